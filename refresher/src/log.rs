//! The log, on standard error: lines for people on a terminal, and from every command but the daemon; JSON elsewhere. And what keeps secrets out of crashes.

use std::io::IsTerminal;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tracing_subscriber::EnvFilter;

/// The environment variable that chooses what is logged, in the syntax of `tracing_subscriber`'s `EnvFilter`.
const VARIABLE: &str = "LATCHKEY_LOG";
/// The database library logs slow statements at warn; everything else that is not ours stays at warn too.
const DEFAULT: &str = "warn,refresher=info";

/// Starts logging, of a daemon or of a command that a person runs. Call once.
pub fn start(is_daemon: bool) {
    let wanted = std::env::var_os(VARIABLE).filter(|filter| !filter.is_empty());
    let parsed = wanted.as_ref().map(|filter| {
        let filter = filter.to_str().ok_or("it is no text (UTF-8)".to_owned())?;
        EnvFilter::try_new(filter).map_err(|error| error.to_string())
    });
    let (filter, wrong) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(problem)) => (EnvFilter::new(DEFAULT), Some(problem)),
        None => (EnvFilter::new(DEFAULT), None),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match (std::io::stderr().is_terminal(), is_daemon) {
        (true, _) => log.with_target(false).init(),
        (false, true) => log.json().flatten_event(true).with_ansi(false).init(),
        (false, false) => log.with_target(false).with_ansi(false).init(),
    }
    if let Some(problem) = wrong {
        let found = wanted.unwrap_or_default();
        tracing::warn!(
            found = %found.display(),
            problem,
            instead = DEFAULT,
            "{VARIABLE} is no filter; expected one like refresher=debug"
        );
    }
}

/// Keeps memory out of core dumps and out of other processes' reach, and a panic's payload out of the log: what a
/// panic formats may hold a secret.
pub fn harden() {
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let hardened = rustix::process::setrlimit(Resource::Core, no_core)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = hardened {
        tracing::warn!(%error, "cannot rule out core dumps");
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(place, "a bug: panicked; please report the place");
    }));
}
