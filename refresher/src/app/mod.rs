//! The operations that Latchkey does for its operators over the state, whoever asks and through whatever door.
//!
//! An operation takes an [`App`], and the [`Caller`] if it changes anything. It returns typed data, or an [`Error`] with a
//! code and facts. It prints nothing and knows of no command, page or route: a door parses, calls, shows, and asks
//! [`advice`](crate::advice) for the cure of an error.

pub mod accounts;
pub mod daemon;
pub mod declared;
pub mod doctor;
pub mod envoy_files;
mod error;
pub mod exports;
pub mod imports;
pub mod keys;
pub mod limits;
pub mod logins;
pub mod logout;
pub mod platforms;
pub mod pools;
pub mod quota;
pub mod rotation;
pub mod status;
pub mod usage;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

pub use self::error::{Error, Part, Result};
use crate::advice;
use crate::clock::{Clock, UnixMillis};
use crate::config::{self, Config};
use crate::envoy::clusters::{self, ESCAPE_SOCKET};
use crate::fault::Fault;
use crate::keys::KeySource;
use crate::platform::Catalog;
use crate::state::StateDir;
use crate::store::{self, OlderCopy, Spent, Store};

/// The identity that asks for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The user whose state directory it is, at a command line on this machine.
    LocalOperator,
}

impl Caller {
    /// Leaves a trace of a change in the log.
    fn changes(self, action: &'static str, name: &str) {
        tracing::debug!(by = ?self, action, name, "a change");
    }
}

/// The state that every operation works on.
#[derive(Clone)]
pub struct App {
    /// The state directory.
    pub state: StateDir,
    /// The operator's choices.
    pub config: Config,
    /// The platforms.
    pub catalog: Catalog,
    /// Accounts, pools, keys and what requests used.
    pub store: Store,
    /// The time at which the state was begun.
    pub begun: Begun,
    only_looks: bool,
    clock: Arc<dyn Clock>,
}

/// The time at which a state was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The state was there.
    Before,
    /// Just now.
    Now,
    /// Just now, with a sealing key that was there: its database may be elsewhere.
    BesideKey,
}

/// Options for opening an [`App`].
#[derive(Debug, Default)]
pub struct Options {
    /// The state directory, if one was named.
    pub state_dir: Option<PathBuf>,
    /// Platforms whose notice is acknowledged, besides those of the configuration.
    pub acknowledged_terms: Vec<String>,
    /// The state need not be there yet: what is missing of it is made.
    pub may_make: bool,
    /// Somebody only looks: the database keeps its form, and that it is an older copy is left to be told.
    pub only_looks: bool,
}

impl App {
    /// Opens everything; the first time, makes it if it may. `variable` reads the environment.
    ///
    /// # Errors
    /// If the state directory, the configuration, a profile, the key or the database cannot be used. None of them is
    /// changed then.
    pub async fn open(
        options: Options,
        variable: impl Fn(&str) -> Option<OsString>,
        clock: Arc<dyn Clock>,
    ) -> Result<App> {
        let path = StateDir::locate(options.state_dir, |name| variable(name).map(PathBuf::from))?;
        let state = match options.may_make {
            true => StateDir::open(&path)?,
            false => StateDir::existing(&path)?,
        };
        let config = Config::load(&state.config())?;
        // A variable that is set and empty says nothing.
        let mut said = options.acknowledged_terms;
        said.retain(|platform| !platform.is_empty());
        let kept = config.acknowledged_terms.iter();
        let acknowledged: BTreeSet<String> = kept.chain(&said).cloned().collect();
        let catalog = Catalog::load(config.platforms_dir.as_deref(), acknowledged)?;
        for platform in &said {
            catalog.profile(platform).map_err(|error| {
                Error::new(Fault::Invalid, format_args!("acknowledged terms: {error}"))
            })?;
        }
        for platform in &config.acknowledged_terms {
            if let Err(error) = catalog.profile(platform) {
                // A daemon must not stay down because a profile was taken away.
                tracing::warn!(%error, "config.toml acknowledges the terms of a platform that is not there");
            }
        }
        if !options.may_make {
            state.require_used()?;
        }
        let _lock = state.lock_setup()?;
        let is_there = |path: PathBuf| path.symlink_metadata().is_ok();
        let begun = match (is_there(state.database()), is_there(state.key())) {
            (true, _) => Begun::Before,
            (false, false) => Begun::Now,
            (false, true) => Begun::BesideKey,
        };
        let keys = KeySource::locate(&state, &config.key, |name| {
            // Bytes that are no text are no key either, and must be refused as one.
            variable(name).map(|value| Zeroizing::new(value.to_string_lossy().into_owned()))
        })?;
        let store = match options.only_looks {
            true => Store::open_to_look(&state, keys).await?,
            false => Store::open(&state, keys).await?,
        };
        if !options.only_looks
            && let Some(older) = store.check_high_water(&state, clock.now()).await?
        {
            log_older_copy(&state, older);
        }
        Ok(App {
            state,
            config,
            catalog,
            store,
            begun,
            only_looks: options.only_looks,
            clock,
        })
    }

    /// The time now.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// `[envoy]` of the configuration, with the filter's path that was named instead. Where neither names one, it stays the
    /// one of the clusters that are there: a `serve` that is started again needs no more words than the first time.
    pub fn envoy(&self, wasm: Option<PathBuf>) -> config::Envoy {
        let mut settings = self.config.envoy.clone();
        let known = || clusters::filter_in(&clusters::read_file(&self.state)?);
        settings.wasm = wasm.or(settings.wasm).or_else(known);
        let socket = self.state.socket().with_file_name(ESCAPE_SOCKET);
        settings.escape.get_or_insert(socket);
        settings
    }

    /// Lets go of the database. A copy of its file is whole from here on.
    pub async fn close(&self) {
        let marked = async {
            let _lock = self.state.lock_setup()?;
            self.store.write_mark(&self.state).await
        };
        if !self.only_looks
            && let Err(error) = marked.await
        {
            tracing::warn!(%error, "{}", store::UNMARKED);
        }
        // Else the last changes stay in SQLite's log file, and a copy of the database alone would lack them.
        self.store.close().await;
    }
}

/// Says in the log what an older copy of the database costs.
fn log_older_copy(state: &StateDir, older: OlderCopy) {
    tracing::error!(
        database = %state.database().display(),
        cure = advice::OLDER_COPY,
        "the database is an older copy: what was changed since is lost"
    );
    for Spent { account, platform } in older.spent {
        let name = account.clone();
        let cure = advice::in_log(&Fault::NeedsLogin {
            account,
            platform,
            is_client: false,
        });
        tracing::error!(
            account = name,
            cure,
            "the account serves until its access token ends: {}",
            store::SPENT
        );
    }
}
