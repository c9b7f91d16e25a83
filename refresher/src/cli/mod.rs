//! The command line: parses, calls, prints. Decisions are made elsewhere.

pub mod accounts;
mod daemon;
pub mod import;
pub mod keys;
pub mod limit_flags;
pub mod login;
mod output;
pub mod pools;
#[cfg(test)]
mod reference;
pub mod refresh;
pub mod rotate_key;
mod secret_prompt;
pub mod status;
pub mod usage;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use latchkey::snapshot::{ModelPattern, Models};
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::keys::KeySource;
use crate::metrics;
use crate::platform::Catalog;
use crate::state::StateDir;
use crate::store::{self, Store};

/// Whatever ends a command; its message is for a person.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Logs LLM accounts in, keeps their credentials fresh and sealed, and publishes them to Envoy.
#[derive(Debug, Parser)]
#[command(name = "refresher", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Where accounts, keys and the socket are [default: $LATCHKEY_STATE_DIR, else $XDG_STATE_HOME/latchkey, else
    /// ~/.local/state/latchkey]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Turn a platform on whose notice you have read and accept; may be given more than once
    #[arg(
        long,
        global = true,
        value_name = "PLATFORM",
        env = "LATCHKEY_ACKNOWLEDGED_TERMS",
        value_delimiter = ','
    )]
    acknowledge_terms: Vec<String>,
}

/// Which models: a list, or all of them.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ModelList {
    /// The models, separated by commas; one that ends in * is every model that starts so
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    models: Vec<String>,
    /// Every model
    #[arg(long, conflicts_with = "models")]
    all_models: bool,
}

impl ModelList {
    /// The list, if one was given; an empty one means all.
    fn given(self) -> Result<Option<Models>, Error> {
        if self.models.is_empty() && !self.all_models {
            return Ok(None);
        }
        let patterns = self.models.into_iter().map(ModelPattern::try_from);
        let patterns: Vec<_> = patterns.collect::<Result<_, _>>()?;
        Ok(Some(patterns.try_into()?))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: refresh logins, and publish accounts and keys to Envoy
    Serve {
        /// The filter's file, as Envoy sees the path [default: `wasm` of [envoy] in config.toml]
        #[arg(long, value_name = "FILE")]
        wasm: Option<PathBuf>,
        /// Show metrics to Prometheus there as well, at /metrics; for example 127.0.0.1:9464
        #[arg(long, value_name = "ADDRESS")]
        metrics_listen: Option<SocketAddr>,
        /// Let --metrics-listen be an address that other machines reach
        #[arg(long, requires = "metrics_listen")]
        metrics_anywhere: bool,
    },
    /// Log an account in through a browser
    Login(login::Login),
    /// Take over a login that another program made
    #[command(subcommand)]
    Import(import::Import),
    /// Refresh an account's login now, whatever its schedule
    Refresh(refresh::Refresh),
    /// Show the accounts and how they are
    Status(status::Show),
    /// Show what requests used, by account, client key, model or day
    Usage(usage::Show),
    /// Add, list, change, switch or remove accounts
    #[command(subcommand)]
    Accounts(accounts::Command),
    /// Make, list, fill or remove the pools of accounts that serve keys
    #[command(subcommand)]
    Pools(pools::Command),
    /// Make, list, change or revoke the keys that callers present
    #[command(subcommand)]
    Keys(keys::Command),
    /// Make a new sealing key and seal everything anew with it, also while `serve` runs
    RotateKey,
    /// Print the clusters that Envoy reads, one for each account
    EnvoyConfig {
        /// The filter's file, as Envoy sees the path [default: `wasm` of [envoy] in config.toml]
        #[arg(long, value_name = "FILE")]
        wasm: Option<PathBuf>,
    },
}

/// What every command works on.
#[derive(Debug)]
pub struct Context {
    /// The state directory.
    pub state: StateDir,
    /// The operator's choices.
    pub config: Config,
    /// The platforms.
    pub catalog: Catalog,
    /// Accounts and keys.
    pub store: Store,
}

impl Context {
    /// Opens everything; the first time, makes it.
    ///
    /// # Errors
    /// If the state directory, the configuration, a profile, the key or the database cannot be used. None of them is
    /// changed then.
    pub async fn open(global: Global) -> Result<Context, Error> {
        let path = StateDir::locate(global.state_dir, |name| {
            std::env::var_os(name).map(PathBuf::from)
        })?;
        let state = StateDir::open(&path)?;
        let config = Config::load(&state.config())?;
        let acknowledged: BTreeSet<String> = config
            .acknowledged_terms
            .iter()
            .cloned()
            .chain(global.acknowledge_terms)
            // A variable that is set and empty says nothing.
            .filter(|platform| !platform.is_empty())
            .collect();
        let catalog = Catalog::load(config.platforms_dir.as_deref(), acknowledged)?;
        let _lock = state.lock_setup()?;
        let keys = KeySource::locate(&state, &config.key, |name| {
            // Bytes that are no text are no key either, and must be refused as one.
            std::env::var_os(name).map(|value| Zeroizing::new(value.to_string_lossy().into_owned()))
        })?;
        let store = Store::open(&state, keys).await?;
        if let Some(older) = store.check_high_water(&state, SystemClock.now()).await? {
            log_older_copy(&state, &older);
        }
        Ok(Context {
            state,
            config,
            catalog,
            store,
        })
    }

    /// `[envoy]` of the configuration, with what the command line says instead.
    fn envoy(&self, wasm: Option<PathBuf>) -> crate::config::Envoy {
        let mut settings = self.config.envoy.clone();
        settings.wasm = wasm.unwrap_or(settings.wasm);
        let socket = self
            .state
            .socket()
            .with_file_name(crate::envoy::clusters::ESCAPE_SOCKET);
        settings.escape.get_or_insert(socket);
        settings
    }
}

impl Cli {
    /// Runs the command; says on standard error what went wrong.
    pub async fn run(self) -> ExitCode {
        match self.try_run().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {}", crate::advice::worded(&*error));
                ExitCode::FAILURE
            }
        }
    }

    async fn try_run(self) -> Result<(), Error> {
        let context = Context::open(self.global).await?;
        let (state, store) = (context.state.clone(), context.store.clone());
        let outcome = self.command.run(context).await;
        if let Err(error) = mark_high_water(&state, &store).await {
            tracing::warn!(%error, "{}", store::UNMARKED);
        }
        // Else the last changes stay in SQLite's log file, and a copy of the database alone would lack them.
        store.close().await;
        outcome
    }
}

fn log_older_copy(state: &StateDir, older: &store::OlderCopy) {
    tracing::error!(
        database = %state.database().display(),
        cure = "put the newest copy back; where there is none, log in to the accounts named below again",
        "the database is an older copy: what was changed since is lost"
    );
    for store::Spent { account, platform } in &older.spent {
        let cure = crate::advice::login_command(platform, account);
        tracing::error!(
            account,
            cure,
            "the account's refresh token was spent after this copy of the database was made"
        );
    }
}

async fn mark_high_water(state: &StateDir, store: &Store) -> Result<(), Error> {
    let _lock = state.lock_setup()?;
    Ok(store.write_mark(state).await?)
}

impl Command {
    async fn run(self, context: Context) -> Result<(), Error> {
        match self {
            Command::Serve {
                wasm,
                metrics_listen,
                metrics_anywhere,
            } => {
                if let Some(address) = metrics_listen {
                    metrics::check_address(address, metrics_anywhere)?;
                }
                let envoy = context.envoy(wasm);
                crate::serve::run(context, envoy, metrics_listen).await
            }
            Command::Login(login) => login.run(&context).await,
            Command::Import(import) => import.run(&context).await,
            Command::Refresh(refresh) => refresh.run(&context).await,
            Command::Status(show) => show.run(&context).await,
            Command::Usage(show) => show.run(&context).await,
            Command::Accounts(command) => command.run(&context).await,
            Command::Pools(command) => command.run(&context).await,
            Command::Keys(command) => command.run(&context).await,
            Command::RotateKey => rotate_key::run(&context).await,
            Command::EnvoyConfig { wasm } => {
                let accounts = context.store.accounts().await?;
                let settings = context.envoy(wasm);
                let clusters = crate::envoy::clusters::discovery_response(
                    &accounts,
                    &context.catalog,
                    &settings,
                );
                Ok(output::print(&clusters)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn whatever_makes_an_account_or_a_key_takes_the_same_terms() {
        let parses = |line: &str| {
            let words = ["refresher"].into_iter().chain(line.split(' '));
            Cli::try_parse_from(words).is_ok()
        };
        for command in [
            "accounts add one --platform openai",
            "accounts set one",
            "login codex",
            "import codex auth.json",
            "keys create one",
            "keys set one",
        ] {
            for terms in ["--expires 30d", "--expires none", "--rpm 60 --streams none"] {
                let line = format!("{command} {terms}");
                assert!(parses(&line), "{line}");
            }
            assert!(!parses(&format!("{command} --expires")), "{command}");
        }
        assert!(!parses("accounts set one"), "nothing to change");
    }
}
