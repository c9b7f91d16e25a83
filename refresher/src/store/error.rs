//! Errors of the store: a kind and its facts. `advice` words the cures, for each door in its own way.

use std::path::PathBuf;

use latchkey::header::MAX_VALUE_BYTES;
use latchkey::snapshot::fit;
use latchkey::snapshot::pool::MAX_MEMBERS;

use super::sqlite;
use crate::clock::UnixMillis;
use crate::fault::Kind;
use crate::keys;
use crate::keys::seal::{self, KeyId};
use crate::{files, state};

/// The longest name of an account or a client key, in characters, so that a terminal shows a table of them.
pub(super) const MAX_NAME: usize = 64;
/// The most pools that a key's caller may choose, so that the key fits in a record.
pub(super) const MAX_CHOICES: i64 = 1_000;

/// A failure of the store. Never names a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or its directory, cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A lock of the state directory cannot be had.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The file is not a whole database of ours. It was not changed.
    #[error("{}: {found}; it was left as it is", path.display())]
    NotOurs {
        /// The database.
        path: PathBuf,
        /// The finding.
        found: String,
    },
    /// The database is gone, and what lies beside it is there still.
    #[error("{}: the database is gone; high-water.json beside it says that there was one", path.display())]
    Lost {
        /// The database.
        path: PathBuf,
    },
    /// Another program reads the new database while it is made, so that a part of it would stay behind in its log.
    #[error("{}: another program opened the database while it was being made", path.display())]
    LogInUse {
        /// The database, where it is made.
        path: PathBuf,
    },
    /// The tables are those of another release. The file was not changed.
    #[error("{}: its tables do not fit this release ({found})", path.display())]
    Schema {
        /// The database.
        path: PathBuf,
        /// The finding.
        found: String,
    },
    /// An earlier release made the tables, and whoever only looks changes nothing.
    #[error(
        "{}: an earlier release made it, and this release cannot read it before it has converted it",
        path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
    },
    /// A `serve` of an earlier release runs on the tables, which this one would change. They were not changed.
    #[error(
        "{}: the daemon of an earlier release is running on it, and this release would convert it",
        path.display()
    )]
    OlderServes {
        /// The database.
        path: PathBuf,
    },
    /// A refresh that an earlier release began may be under way on the tables, which this one would change. They were not
    /// changed.
    #[error(
        "{}: an earlier release may be refreshing a login on it until {}, and this release would convert it; try \
         again after that",
        path.display(), until.in_utc()
    )]
    RefreshUnderWay {
        /// The database.
        path: PathBuf,
        /// The time at which the claim on that refresh lapses, by the database's clock.
        until: UnixMillis,
    },
    /// The database was sealed with another key. It was not changed.
    #[error("{}: it is sealed with another key than the one given", path.display())]
    WrongKey {
        /// The database.
        path: PathBuf,
    },
    /// The keys cannot be had.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// The rotation has no key to change over to, or left records behind.
    #[error(transparent)]
    Rotation(#[from] NotRotated),
    /// The database failed.
    #[error("the database failed: {}", sqlite::in_words(.0))]
    Database(sqlx::Error),
    /// A record could not be sealed or opened.
    #[error("{record}: {source}")]
    Seal {
        /// The account's id, or what else is sealed.
        record: String,
        /// The cause.
        source: seal::Error,
    },
    /// A column holds what no release of ours wrote there.
    #[error("the database's {column}: {found}; another program changed it")]
    Corrupt {
        /// The column, with its table where that is known.
        column: String,
        /// The finding.
        found: String,
    },
    /// A platform, or the doors, in the database are not what was published there.
    #[error(
        "another program, or an earlier release, changed a platform or the doors in the database; the daemon publishes them \
         anew when it starts"
    )]
    NotPublished,
    /// No record has the name.
    #[error("there is no {record} {name:?}")]
    Unknown {
        /// The kind of record.
        record: Kind,
        /// The name or id asked for.
        name: String,
    },
    /// Another record has the name.
    #[error("there is already {} {name:?}", record.with_article())]
    NameTaken {
        /// The kind of record.
        record: Kind,
        /// The name.
        name: String,
    },
    /// A part of a record cannot go where it must.
    #[error("{record} {name:?}: {unfit}")]
    Unfit {
        /// The kind of record.
        record: Kind,
        /// Its name.
        name: String,
        /// The part that does not fit.
        unfit: Unfit,
    },
    /// A pool that keys in use need was to be removed.
    #[error("these keys use pool {pool:?}: {}", keys.join(", "))]
    PoolInUse {
        /// The pool.
        pool: String,
        /// The names of the keys.
        keys: Vec<String>,
    },
    /// The default pool was to be removed.
    #[error("pool \"default\" cannot be removed: every new account joins it")]
    DefaultPool,
    /// An account was to be taken out of a pool that it is not in.
    #[error("account {account:?} is not in pool {pool:?}")]
    NotInPool {
        /// The pool.
        pool: String,
        /// The account asked for.
        account: String,
    },
    /// A refresh of the account is under way, which would be lost.
    #[error("account {account:?} is being refreshed at this moment; nothing was changed")]
    Refreshing {
        /// The account's name.
        account: String,
    },
    /// The base URL in the database is not the one for which the account's credential was sealed.
    #[error(
        "account {account:?}: its base URL in the database is not the one that it was given; another program changed it"
    )]
    ForeignBaseUrl {
        /// The account's name.
        account: String,
        /// Its platform.
        platform: String,
    },
    /// An account that needs a login was to be enabled.
    #[error("account {account:?} needs a new login first")]
    NeedsLogin {
        /// The account's name.
        account: String,
        /// Its platform.
        platform: String,
        /// True for a client of the account's own, which buys tokens.
        is_client: bool,
    },
}

/// The reason for which a rotation did not begin, or did not reach every record.
#[derive(Debug, thiserror::Error)]
pub enum NotRotated {
    /// The first of the environment's keys seals already, and nobody but the operator can make another there.
    #[error("the keys come from the environment, and LATCHKEY_KEY holds no new one")]
    FixedKeys,
    /// The first key at this place seals already, and nobody but the operator can make another there.
    #[error("{0}: its first key is in use already")]
    GivenKeys(String),
    /// The running `serve` has other variables.
    #[error("the running daemon does not have the key {0}")]
    NotServed(KeyId),
    /// This many records cannot be opened: their key is not at hand, or they were changed.
    #[error("{0} sealed records cannot be opened, so they keep their key")]
    Unreadable(u64),
}

/// Returns what stands in a column that this release cannot read, without the library's names of types.
fn found_in_column(said: &str) -> String {
    match said.contains("Rust type") {
        true => "a value of another kind than it has".to_owned(),
        false => said.to_owned(),
    }
}

/// The part of a record that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its name, which goes into headers, tables and commands.
    #[error(
        "expected a name of 1 to {MAX_NAME} letters (a-z, A-Z), digits, signs and blanks that does not begin with - and has \
         no blank at either end"
    )]
    Name,
    /// Its name, which is an id at the same time.
    #[error("{0}")]
    Id(String),
    /// Its credential, which goes into a header.
    #[error(
        "expected a credential of 1 to {MAX_VALUE_BYTES} letters (a-z, A-Z), digits and signs, found other characters or \
         more of them"
    )]
    Credential,
    /// This variable of its platform, which goes into a header.
    #[error(
        "expected at most {MAX_VALUE_BYTES} letters (a-z, A-Z), digits and signs in its variable {0}"
    )]
    Variable(String),
    /// A part of its own, in a request to its platform.
    #[error(transparent)]
    Request(fit::Unfit),
    /// The members of a pool.
    #[error("expected at most {MAX_MEMBERS} accounts in a pool; make another pool for more")]
    Members,
    /// The pools that a key's caller may choose.
    #[error("expected at most {MAX_CHOICES} pools that a key's caller may choose")]
    Choices,
    /// A time, which is counted from 1970 on.
    #[error("expected an end after 1970")]
    Time,
}

impl Error {
    /// The error where no record has the name.
    pub(super) fn unknown(record: Kind, name: &str) -> Error {
        Error::Unknown {
            record,
            name: name.to_owned(),
        }
    }

    /// The error where another record has the name.
    pub(super) fn name_taken(record: Kind, name: &str) -> Error {
        Error::NameTaken {
            record,
            name: name.to_owned(),
        }
    }

    /// The meaning of an INSERT's failure where nothing but the record's name may be in use already.
    pub(super) fn of_insert(record: Kind, name: &str) -> impl FnOnce(sqlx::Error) -> Error {
        move |error| match error {
            sqlx::Error::Database(error) if error.is_unique_violation() => {
                Error::name_taken(record, name)
            }
            error => error.into(),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::ColumnDecode { index, source } => Error::Corrupt {
                // sqlx writes a name in quotes.
                column: index.trim_matches('"').to_owned(),
                found: found_in_column(&source.to_string()),
            },
            error => Error::Database(error),
        }
    }
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;
