//! The facts that `refresher doctor` judges, gathered in one place. Nothing is changed here, and nothing is judged: what a
//! fact means, and what to do about it, is the door's to say.
//!
//! Each fact stands by itself, so that what is broken hides nothing else: the files are looked at before the state is
//! opened, and where it cannot be opened the rest is told all the same.

mod envoy;
mod files;
mod hosts;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

pub use self::envoy::{Admin, ClustersRead, Gateway};
pub use self::files::{SocketState, Space, Unread};
pub use self::hosts::Host;
use super::declared::NotTaken;
use super::keys::KeyView;
use super::status::{self, Overview};
use super::{App, Error, Options, daemon, declared, envoy_files, keys};
use crate::clock::{Clock, UnixMillis};
use crate::config::Config;
use crate::envoy::filter_file::Found;
use crate::state::StateDir;
use crate::store::SPENT;

/// The address at which the shipped configuration of Envoy listens.
pub const USUAL_GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The places to look at besides the state.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The address that callers connect to, if somebody said so.
    pub gateway: Option<SocketAddr>,
    /// Ask no platform for the time.
    pub is_offline: bool,
}

/// All that is known of an installation.
#[derive(Debug)]
pub struct Facts {
    /// The time here.
    pub now: UnixMillis,
    /// The state directory; none where nothing names one.
    pub state_dir: Option<PathBuf>,
    /// The address that callers connect to.
    pub gateway_at: SocketAddr,
    /// Somebody said that they connect there.
    pub is_gateway_named: bool,
    /// The faults of files, folders and profiles, and why the state cannot be opened.
    pub faults: Vec<Error>,
    /// The room on the disk of the state directory.
    pub space: Option<Space>,
    /// The running `serve`.
    pub daemon: Daemon,
    /// The facts of the state; none where it cannot be opened.
    pub state: Option<OpenState>,
    /// Envoy's account of itself; none where its admin interface does not answer.
    pub envoy: Option<Admin>,
    /// The database was put back from an older copy, and nothing has been done about it yet.
    pub is_older_copy: bool,
    /// The platforms of which the configuration acknowledges a notice and that are not there.
    pub unknown_terms: Vec<String>,
    /// The accounts that the configuration declares and that are not here, and why.
    pub not_taken: Vec<NotTaken>,
    /// The clusters that Envoy reads.
    pub clusters: ClustersRead,
    /// The filter's files by the paths that Envoy or its clusters name, and whether each is what was built.
    pub filters: Vec<(PathBuf, Result<Found, Unread>)>,
    /// The fault of the certificates that Envoy trusts, as this machine has them.
    pub trusted_ca: Result<(), Error>,
    /// The fault of the browser that the configuration names.
    pub browser: Result<(), Error>,
    /// A filter's file changed after Envoy had loaded it.
    pub is_filter_newer: bool,
    /// Envoy's escape listener takes connections; none where nobody can tell.
    pub escape: Option<bool>,
    /// The program that answers where callers connect.
    pub gateway: Gateway,
    /// The hosts of the accounts' platforms, asked for the time.
    pub hosts: Vec<Host>,
}

/// The running `serve`, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// True if the daemon holds its lock.
    pub runs: bool,
    /// True if the daemon ran before.
    pub ran: bool,
    /// Its socket.
    pub socket: SocketState,
    /// True if the daemon answers there.
    pub answers: bool,
}

/// Facts of an open state.
#[derive(Debug)]
pub struct OpenState {
    /// Accounts, pools and Envoys.
    pub overview: Overview,
    /// The client keys.
    pub keys: Vec<KeyView>,
}

/// Gathers the facts. `variable` reads the environment.
pub async fn gather(
    options: Options,
    scope: Scope,
    variable: impl Fn(&str) -> Option<OsString>,
    clock: Arc<dyn Clock>,
) -> Facts {
    let now = clock.now();
    let gateway_at = scope.gateway.unwrap_or(USUAL_GATEWAY);
    let mut facts = Facts {
        now,
        state_dir: None,
        gateway_at,
        is_gateway_named: scope.gateway.is_some(),
        faults: Vec::new(),
        space: None,
        daemon: Daemon {
            runs: false,
            ran: false,
            socket: SocketState::Missing,
            answers: false,
        },
        state: None,
        envoy: None,
        is_older_copy: false,
        unknown_terms: Vec::new(),
        not_taken: Vec::new(),
        clusters: ClustersRead::default(),
        filters: Vec::new(),
        trusted_ca: Ok(()),
        browser: Ok(()),
        is_filter_newer: false,
        escape: None,
        gateway: envoy::gateway(gateway_at).await,
        hosts: Vec::new(),
    };
    let located = StateDir::locate(options.state_dir.clone(), |name| {
        variable(name).map(PathBuf::from)
    });
    let path = match located {
        Ok(path) => path,
        Err(error) => {
            facts.faults.push(error.into());
            return facts;
        }
    };
    facts.state_dir = Some(path.clone());
    let dir = StateDir::unchecked(&path);
    facts.faults.extend(files::lax(&dir));
    facts.space = files::space(&path);
    if let Ok(config) = Config::load(&dir.config()) {
        facts.faults.extend(files::profiles(&config));
        facts.trusted_ca = envoy_files::require_safe_trust(&config.envoy);
        facts.browser = files::browser(&config);
    }
    facts.daemon = daemon_of(&dir).await;
    facts.envoy = envoy::admin(&dir).await;
    let options = Options {
        only_looks: true,
        ..options
    };
    match App::open(options, variable, clock).await {
        Ok(app) => {
            let looked = look(&app, scope, &mut facts).await;
            app.close().await;
            if let Err(error) = looked {
                facts.add(error);
            }
        }
        Err(error) => facts.add(error),
    }
    let named = facts.envoy.iter().flat_map(|envoy| envoy.filters.clone());
    let paths: BTreeSet<PathBuf> = named.chain(facts.clusters.filter.clone()).collect();
    facts.is_filter_newer = facts
        .envoy
        .as_ref()
        .is_some_and(|envoy| envoy.is_outdated(now));
    facts.filters = paths.into_iter().map(files::filter).collect();
    facts
}

impl Facts {
    /// Notes a fault, unless it is known from another look.
    fn add(&mut self, error: Error) {
        let said = error.to_string();
        if !self.faults.iter().any(|known| known.to_string() == said) {
            self.faults.push(error);
        }
    }
}

/// Reads what an open state says, and what follows from it.
async fn look(app: &App, scope: Scope, facts: &mut Facts) -> super::Result<()> {
    facts.clusters = envoy::clusters(app).await?;
    facts.escape = envoy::escape(app).await;
    let acknowledged = app.config.acknowledged_terms.iter();
    let unknown = acknowledged.filter(|platform| app.catalog.profile(platform).is_err());
    facts.unknown_terms = unknown.cloned().collect();
    facts.not_taken = declared::not_taken(app).await?;
    let mut overview = status::overview(app).await?;
    if let Some(older) = app.store.older_copy(&app.state).await? {
        facts.is_older_copy = true;
        for view in &mut overview.accounts {
            if older.spent.iter().any(|spent| spent.account == view.name) {
                view.is_spent = true;
                view.reason = Some(SPENT.to_owned());
            }
        }
    }
    if !scope.is_offline {
        facts.hosts = hosts::ask(app, &overview.accounts).await;
    }
    let keys = keys::list(app).await?;
    facts.state = Some(OpenState { overview, keys });
    Ok(())
}

async fn daemon_of(dir: &StateDir) -> Daemon {
    let runs = dir.is_served();
    let health: Option<Value> = daemon::ask(dir, "/healthz").await;
    Daemon {
        runs,
        ran: dir.was_served(),
        socket: files::socket(&dir.socket()),
        answers: health.is_some(),
    }
}

#[cfg(test)]
mod tests;
