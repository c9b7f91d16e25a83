//! The command line: parses, calls, prints. What is done is [`app`](crate::app)'s.

mod accounts;
mod doctor;
mod envoy_config;
mod error;
mod export;
mod import;
mod keys;
mod login;
mod logout;
mod number;
mod output;
mod platforms;
mod pools;
mod proxy;
#[cfg(test)]
mod reference;
mod refresh;
mod rotate_key;
mod rules;
mod secret_input;
mod serve;
mod shell;
mod status;
mod terms;
#[cfg(test)]
mod terms_page;
mod time;
mod usage;
mod waiting;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use latchkey::snapshot::{ModelPattern, Models};

pub use self::error::{Error, Result};
use self::output::Out;
use crate::advice::RESTART;
use crate::app::platforms::Setting;
use crate::app::{App, Begun, Caller, Options};
use crate::clock::SystemClock;

/// The words that programs of other people have for taking something away.
const REMOVE: [&str; 2] = ["rm", "delete"];
/// Whoever uses the command line has the state directory.
const CALLER: Caller = Caller::LocalOperator;

/// Logs LLM accounts in, keeps their credentials fresh and sealed, and publishes them to Envoy.
#[derive(Debug, Parser)]
#[command(name = "refresher", version, arg_required_else_help = true, after_long_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The heading of the flags of every command.
const GLOBAL: &str = "For every command";
/// Behind the flags of each command itself.
const LAST: usize = 1_000;

/// The flags of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The directory of accounts, keys and the socket [default: $LATCHKEY_STATE_DIR, else $XDG_STATE_HOME/latchkey, else
    /// ~/.local/state/latchkey]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = GLOBAL,
        display_order = LAST
    )]
    state_dir: Option<PathBuf>,
    /// Turn on a platform whose notice you have read and accept; may be given more than once
    #[arg(
        long,
        global = true,
        value_name = "PLATFORM",
        env = "LATCHKEY_ACKNOWLEDGED_TERMS",
        value_delimiter = ',',
        help_heading = GLOBAL,
        display_order = LAST
    )]
    acknowledge_terms: Vec<String>,
}

/// A list of models, or all of them.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ModelList {
    /// The models, separated by commas; gpt-5* means every model whose name begins with gpt-5
    #[arg(long, value_name = "MODEL", value_delimiter = ',', value_parser = model)]
    models: Vec<ModelPattern>,
    /// Every model
    #[arg(long, conflicts_with = "models")]
    all_models: bool,
}

fn model(text: &str) -> std::result::Result<ModelPattern, String> {
    ModelPattern::try_from(text.to_owned()).map_err(|error| error.to_string())
}

impl ModelList {
    /// The list, if one was given; an empty one means all.
    fn given(self) -> Result<Option<Models>> {
        if self.models.is_empty() && !self.all_models {
            return Ok(None);
        }
        let models = Models::try_from(self.models);
        Ok(Some(
            models.map_err(|error| Error::Input(error.to_string()))?,
        ))
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
    /// Log an account in: through a browser, by a code, or with a client's secret
    Login(login::Login),
    /// End an account's login, at the platform and here; the account stays, until somebody logs it in again
    Logout(logout::Logout),
    /// Take over logins and API keys from files of other programs
    Import(import::Import),
    /// Write accounts into a file that the program they came from can read
    Export(export::Export),
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
    /// Show the platforms, or check a profile of one
    #[command(subcommand)]
    Platforms(platforms::Command),
    /// Make, list, change or revoke the keys that callers present
    #[command(subcommand)]
    Keys(keys::Command),
    /// Find what is wrong with an installation, and say what to do about it; nothing is changed
    ///
    /// Looks at files, keys, `serve`, Envoy, accounts, pools and client keys. Asks the accounts' platforms for the time, without
    /// any credential. Exits with 4 where something is broken or wrong.
    Doctor(doctor::Doctor),
    /// Make a new sealing key and seal everything with it, also while `serve` runs
    ///
    /// Backups made before need the old key, which is forgotten when everything is sealed anew: copy it first, or make a new
    /// backup afterwards.
    RotateKey,
    /// Print the clusters that Envoy reads: one for each platform, base URL and proxy that accounts have
    EnvoyConfig(envoy_config::EnvoyConfig),
    /// Print the completions of a shell
    Completions(shell::Completions),
    /// Write the manual pages into a folder
    Man(shell::Man),
}

/// Everything that a command works with.
pub struct Context {
    app: App,
    out: Out,
    exit: Cell<Exit>,
}

/// The rule of exit codes, as `--help` and docs/cli.md tell it.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  not done: the state, the platform or the machine does not allow it
  2  not done: what was typed or handed over does not fit
  3  done, but `refresher serve` is not running: Envoy goes on with the old state until it does
  4  `doctor`, `status --check` or `accounts check` found something that somebody has to see to";

/// The end of a command that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Done,
    /// The command asked, and got no answer.
    NotDone,
    EnvoyIsBehind,
    NeedsSomebody,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::NotDone => 1,
            Exit::EnvoyIsBehind => 3,
            Exit::NeedsSomebody => 4,
        }
    }
}

impl Context {
    fn new(app: App, out: Out) -> Context {
        let exit = Cell::new(Exit::Done);
        Context { app, out, exit }
    }

    /// Warns, after accounts came to these platforms, where they serve nobody before `serve` starts, or starts anew.
    async fn tell_if_nobody_serves(&self, platforms: &[&str]) -> Result<()> {
        self.tell_if_envoy_is_behind();
        let Some(known) = crate::app::platforms::served(&self.app).await? else {
            return Ok(());
        };
        let new: BTreeSet<&str> = platforms.iter().copied().collect();
        for platform in new
            .into_iter()
            .filter(|platform| !known.contains(*platform))
        {
            self.out.note(&format!(
                "warning: the running `refresher serve` does not know {platform} yet, so its accounts serve nobody; \
                 {RESTART}"
            ));
        }
        Ok(())
    }

    /// Warns, after a change, where Envoy goes on with the old state because `serve` does not run.
    fn tell_if_envoy_is_behind(&self) {
        let state = &self.app.state;
        if state.was_served() && !state.is_served() {
            self.exit.set(Exit::EnvoyIsBehind);
            self.out.note(
                "warning: `refresher serve` is not running, so a running Envoy goes on with the old state; start it: \
                 refresher serve",
            );
        }
    }
}

impl Cli {
    /// Runs the command. Says on standard error what went wrong.
    pub async fn run(self) -> ExitCode {
        match self.try_run().await {
            Ok(exit) => ExitCode::from(exit.code()),
            Err(error) => {
                eprintln!("error: {}", error.told());
                ExitCode::from(error.exit_code())
            }
        }
    }

    /// Reads what the command line of this process asks for. `commit` is what this program was built of.
    pub fn of_command_line(commit: Option<&str>) -> Cli {
        let commit = commit.filter(|commit| !commit.is_empty());
        let (version, filter) = (env!("CARGO_PKG_VERSION"), latchkey::VERSION);
        let version = format!(
            "{version} (commit {}, filter {filter})",
            commit.unwrap_or("unknown")
        );
        // Once in a process: clap keeps it for as long.
        let command = Cli::command().version(&*version.leak());
        Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// True for the daemon, whose log machines read.
    pub fn is_daemon(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }

    async fn try_run(self) -> Result<Exit> {
        let out = Out::standard();
        match &self.command {
            Command::Completions(completions) => return completions.run(&out).map(|()| Exit::Done),
            Command::Man(man) => return man.run(&out).map(|()| Exit::Done),
            _ => {}
        }
        let options = Options {
            state_dir: self.global.state_dir,
            acknowledged_terms: self.global.acknowledge_terms,
            may_make: self.command.may_make(),
            ..Options::default()
        };
        if let Command::Platforms(command) = self.command {
            // A profile is looked at before there is a state.
            let setting = Setting::locate(options, |name| std::env::var_os(name))?;
            return command.run(&setting, &out).map(|()| Exit::Done);
        }
        if let Command::Doctor(doctor) = self.command {
            // What it is asked about may be why nothing opens.
            return doctor.run(options, &out).await;
        }
        let app = App::open(
            options,
            |name| std::env::var_os(name),
            Arc::new(SystemClock),
        )
        .await?;
        match (begun(&app), &self.command) {
            (Some(said), Command::Serve(_)) if app.begun == Begun::Now => tracing::info!("{said}"),
            (Some(said), Command::Serve(_)) => tracing::warn!("{said}"),
            (Some(said), _) => out.note(&said),
            (None, _) => {}
        }
        let context = Context::new(app, out);
        let outcome = self.command.run(&context).await;
        context.app.close().await;
        outcome.map(|()| context.exit.get())
    }
}

/// Says that a state was begun: a mistyped directory must not look like an empty gateway.
fn begun(app: &App) -> Option<String> {
    let path = app.state.path().display();
    match app.begun {
        Begun::Before => None,
        Begun::Now => Some(format!("New state in {path}")),
        Begun::BesideKey => Some(format!(
            "{path} had a sealing key and no database; a new, empty one was begun with that key. If there was a \
             database, put it back"
        )),
    }
}

impl Command {
    /// True for what may be the first thing that anybody does with a state. All else works on what is there, and makes
    /// nothing: a mistyped directory would look like an empty gateway.
    fn may_make(&self) -> bool {
        match self {
            Command::Serve(_) | Command::Login(_) | Command::Import(_) => true,
            Command::Accounts(command) => matches!(command, accounts::Command::Add(_)),
            Command::Pools(command) => matches!(command, pools::Command::Create(_)),
            Command::Keys(command) => matches!(command, keys::Command::Create(_)),
            Command::Refresh(_)
            | Command::Export(_)
            | Command::Logout(_)
            | Command::Status(_)
            | Command::Usage(_)
            | Command::RotateKey
            | Command::Doctor(_)
            | Command::Platforms(_)
            | Command::EnvoyConfig(_)
            | Command::Completions(_)
            | Command::Man(_) => false,
        }
    }

    async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Serve(serve) => serve.run(context).await,
            Command::Login(login) => login.run(context).await,
            Command::Logout(logout) => logout.run(context).await,
            Command::Import(import) => import.run(context).await,
            Command::Export(export) => export.run(context).await,
            Command::Refresh(refresh) => refresh.run(context).await,
            Command::Status(show) => show.run(context).await,
            Command::Usage(show) => show.run(context).await,
            Command::Accounts(command) => command.run(context).await,
            Command::Pools(command) => command.run(context).await,
            Command::Keys(command) => command.run(context).await,
            Command::Platforms(command) => command.run(&Setting::of(&context.app), &context.out),
            Command::RotateKey => rotate_key::run(context).await,
            Command::Doctor(doctor) => {
                let options = Options {
                    state_dir: Some(context.app.state.path().to_owned()),
                    ..Options::default()
                };
                context.exit.set(doctor.run(options, &context.out).await?);
                Ok(())
            }
            Command::Completions(completions) => completions.run(&context.out),
            Command::Man(man) => man.run(&context.out),
            Command::EnvoyConfig(show) => show.run(context).await,
        }
    }
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
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
            "import auth.json",
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
