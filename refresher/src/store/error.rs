//! Why the store could not do what it was asked.

use std::path::PathBuf;

use crate::advice::login_command;
use crate::keys::{self, seal};
use crate::{files, state};

/// Why the store could not do what it was asked. Never names a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or its directory, cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A lock of the state directory cannot be had.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The file is not a whole database of ours. It was not changed.
    #[error("{}: {found}; it was left as it is. Put back a backup, or move it away to start with none", path.display())]
    NotOurs {
        /// The database.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// Somebody reads the new database as it is made, so that a part of it would stay behind in its log.
    #[error("{}: something else reads it while it is made; end that, and start again", path.display())]
    LogInUse {
        /// The database, where it is made.
        path: PathBuf,
    },
    /// Its tables are those of another release. It was not changed.
    #[error("{}: its tables do not fit this release ({found}); run the release that wrote it, or a newer one", path.display())]
    Schema {
        /// The database.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// It was sealed with another key. It was not changed.
    #[error(
        "{}: it is sealed with another key than the one given; put back the key file that belongs to it, or set LATCHKEY_KEY",
        path.display()
    )]
    WrongKey {
        /// The database.
        path: PathBuf,
    },
    /// The keys cannot be had.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// There is no key to change over to.
    #[error(transparent)]
    Rotation(#[from] super::rotate::Refused),
    /// SQLite failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A record could not be sealed or opened.
    #[error("{record}: {source}")]
    Seal {
        /// The account's id, or what else is sealed.
        record: String,
        /// Why.
        source: seal::Error,
    },
    /// A column holds what it cannot hold.
    #[error("the database holds {found} in {column}; it was changed by something else")]
    Corrupt {
        /// Table and column.
        column: &'static str,
        /// What was found.
        found: String,
    },
    /// There is no such record.
    #[error("there is no {kind} {name:?}; see: refresher {list}")]
    Unknown {
        /// `account`, `client key` or `pool`.
        kind: &'static str,
        /// The name or id asked for.
        name: String,
        /// The command that lists them.
        list: &'static str,
    },
    /// The name is in use.
    #[error("there is already {kind} {name:?}; choose another name, or remove that one first")]
    NameTaken {
        /// `an account`, `a client key` or `a pool`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The name, the credential or a variable cannot go where it must.
    #[error("account {account:?}: {problem}")]
    Unfit {
        /// The account's name.
        account: String,
        /// What was expected.
        problem: String,
    },
    /// The name cannot be that of a pool.
    #[error("pool {pool:?}: {problem}")]
    UnfitPool {
        /// The name.
        pool: String,
        /// What was expected.
        problem: String,
    },
    /// A pool that keys need was to be removed.
    #[error(
        "pool {pool:?} is what these keys use: {}; first revoke them, or give them another: refresher keys set KEY \
         --pool POOL, and --no-choice where it was theirs to choose",
        keys.join(", ")
    )]
    PoolInUse {
        /// The pool.
        pool: String,
        /// The names of the keys.
        keys: Vec<String>,
    },
    /// The default pool was to be removed.
    #[error(
        "pool \"default\" cannot be removed: every new account joins it; take accounts out of it with: refresher pools drop default ACCOUNT"
    )]
    DefaultPool,
    /// An account was to be taken out of a pool that it is not in.
    #[error("account {account:?} is not in pool {pool:?}; see: refresher pools list")]
    NotInPool {
        /// The pool.
        pool: String,
        /// The account asked for.
        account: String,
    },
    /// An account that needs a login was to be enabled.
    #[error(
        "account {account:?} needs a new login first; run: {}",
        login_command(platform, account)
    )]
    NeedsLogin {
        /// The account's name.
        account: String,
        /// Its platform.
        platform: String,
    },
}

impl Error {
    /// What the failure of an INSERT means where the only thing unique about the record that can be in use is its name.
    pub(super) fn taken(kind: &'static str, name: &str) -> impl FnOnce(sqlx::Error) -> Error {
        move |error| match error {
            sqlx::Error::Database(error) if error.is_unique_violation() => Error::NameTaken {
                kind,
                name: name.to_owned(),
            },
            error => error.into(),
        }
    }
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;
