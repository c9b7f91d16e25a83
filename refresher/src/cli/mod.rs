//! The command line: parses, calls, prints. What is done is [`app`](crate::app)'s.

mod accounts;
mod error;
mod import;
mod keys;
mod login;
mod output;
mod pools;
#[cfg(test)]
mod reference;
mod refresh;
mod rotate_key;
mod secret_input;
mod serve;
mod status;
mod terms;
mod time;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use latchkey::snapshot::{ModelPattern, Models};

pub use self::error::{Error, Result};
use self::output::Out;
use crate::app::{App, Caller, Options};
use crate::clock::SystemClock;
use crate::envoy::clusters::discovery_response;

/// Whoever uses the command line has the state directory.
const CALLER: Caller = Caller::LocalOperator;

/// Logs LLM accounts in, keeps their credentials fresh and sealed, and publishes them to Envoy.
#[derive(Debug, Parser)]
#[command(name = "refresher", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The flags of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The directory of accounts, keys and the socket [default: $LATCHKEY_STATE_DIR, else $XDG_STATE_HOME/latchkey, else
    /// ~/.local/state/latchkey]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Turn on a platform whose notice you have read and accept; may be given more than once
    #[arg(
        long,
        global = true,
        value_name = "PLATFORM",
        env = "LATCHKEY_ACKNOWLEDGED_TERMS",
        value_delimiter = ','
    )]
    acknowledge_terms: Vec<String>,
}

/// A list of models, or all of them.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ModelList {
    /// The models, separated by commas; gpt-5* means every model whose name begins with gpt-5
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    models: Vec<String>,
    /// Every model
    #[arg(long, conflicts_with = "models")]
    all_models: bool,
}

impl ModelList {
    /// The list, if one was given; an empty one means all.
    fn given(self) -> Result<Option<Models>> {
        if self.models.is_empty() && !self.all_models {
            return Ok(None);
        }
        let unfit = |error: &dyn std::fmt::Display| Error::Input(error.to_string());
        let patterns = self.models.into_iter().map(ModelPattern::try_from);
        let patterns: Vec<_> = patterns
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| unfit(&error))?;
        let models = patterns.try_into().map_err(|error| unfit(&error))?;
        Ok(Some(models))
    }
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, Args)]
struct Json {
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: refresh logins, and publish accounts and keys to Envoy
    Serve(serve::Serve),
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
    /// Make, list, fill or remove pools: the accounts that serve a key
    #[command(subcommand)]
    Pools(pools::Command),
    /// Make, list, change or revoke the keys that callers present
    #[command(subcommand)]
    Keys(keys::Command),
    /// Make a new sealing key and seal everything with it, also while `serve` runs
    RotateKey,
    /// Print the clusters that Envoy reads, one for each platform that has an account
    EnvoyConfig {
        /// The filter's file, as Envoy sees the path [default: `wasm` of [envoy] in config.toml]
        #[arg(long, value_name = "FILE")]
        wasm: Option<PathBuf>,
    },
}

/// Everything that a command works with.
pub struct Context {
    app: App,
    out: Out,
}

impl Cli {
    /// Runs the command. Says on standard error what went wrong.
    pub async fn run(self) -> ExitCode {
        match self.try_run().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {}", error.told());
                ExitCode::FAILURE
            }
        }
    }

    async fn try_run(self) -> Result<()> {
        let options = Options {
            state_dir: self.global.state_dir,
            acknowledged_terms: self.global.acknowledge_terms,
        };
        let app = App::open(
            options,
            |name| std::env::var_os(name),
            Arc::new(SystemClock),
        )
        .await?;
        let context = Context {
            app,
            out: Out::standard(),
        };
        let outcome = self.command.run(&context).await;
        context.app.close().await;
        outcome
    }
}

impl Command {
    async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Serve(serve) => serve.run(context).await,
            Command::Login(login) => login.run(context).await,
            Command::Import(import) => import.run(context).await,
            Command::Refresh(refresh) => refresh.run(context).await,
            Command::Status(show) => show.run(context).await,
            Command::Usage(show) => show.run(context).await,
            Command::Accounts(command) => command.run(context).await,
            Command::Pools(command) => command.run(context).await,
            Command::Keys(command) => command.run(context).await,
            Command::RotateKey => rotate_key::run(context).await,
            Command::EnvoyConfig { wasm } => {
                let Context { app, out } = context;
                let clusters = crate::app::accounts::clusters(app, &app.envoy(wasm)).await?;
                Ok(out.print(&discovery_response(clusters.values()))?)
            }
        }
    }
}

#[cfg(test)]
mod golden;

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
