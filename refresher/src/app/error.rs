//! The reason why an operation came to nothing: a sentence for people, and the fault for machines and for advice.

use std::fmt::Display;
use std::path::Path;

use crate::envoy::socket;
use crate::fault::{Fault, KeyPlace};
use crate::keys::seal;
use crate::os_error::in_words;
use crate::platform::catalog;
use crate::store::{NotRotated, Unfit};
use crate::{browser, config, envoy, files, keys, login, oauth, state, store, tasks};

/// The reason why an operation came to nothing. Never holds a secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{sentence}")]
pub struct Error {
    /// The code, and the facts that a cure needs.
    pub fault: Fault,
    /// The sentence: it says what happened. A cure stands in it only where that holds for every door.
    sentence: String,
    /// The errors that it is about, where it is about several. The door words each with its cure.
    pub parts: Vec<Part>,
}

/// One of several errors.
#[derive(Debug, Clone)]
pub struct Part {
    /// The place: a file, and a place in it. The sentence of the error begins with it, or names more of it.
    pub at: String,
    /// The error.
    pub error: Error,
}

/// A result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that says `sentence`.
    pub fn new(fault: Fault, sentence: impl Display) -> Error {
        Error {
            fault,
            sentence: sentence.to_string(),
            parts: Vec::new(),
        }
    }

    /// An error about several others, which `sentence` leads to.
    pub fn of_parts(fault: Fault, sentence: impl Display, parts: Vec<Part>) -> Error {
        Error {
            parts,
            ..Error::new(fault, sentence)
        }
    }

    /// The error of a file that the caller named. That it is not there, or no file, is the caller's to correct.
    pub fn of_handed_file(error: files::Error) -> Error {
        match &error {
            files::Error::Io { .. } | files::Error::WrongKind { .. } => {
                Error::new(Fault::Invalid, error)
            }
            _ => error.into(),
        }
    }

    /// An error whose sentence begins with the path of a file.
    pub fn in_file(path: &Path, fault: Fault, sentence: impl Display) -> Error {
        Error::new(fault, format_args!("{}: {sentence}", path.display()))
    }
}

/// An error of a layer below that names its fault.
trait Faulty: Display {
    fn fault(&self) -> Fault;
}

macro_rules! from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Error {
                Error::new(error.fault(), error)
            }
        }
    )*};
}

from!(
    catalog::Error,
    config::Error,
    envoy::clusters::Error,
    files::Error,
    keys::Error,
    login::Error,
    login::callback::Error,
    login::finish::Error,
    login::session::Error,
    login::setup::Error,
    crate::platform::NoClient,
    oauth::api_key::Error,
    oauth::exchange::Error,
    oauth::http::Error,
    tokio::task::JoinError,
    socket::Error,
    state::Error,
    store::Error,
);

impl From<std::sync::Arc<store::Error>> for Error {
    fn from(error: std::sync::Arc<store::Error>) -> Error {
        Error::new(error.fault(), error)
    }
}

impl From<tasks::Error> for Error {
    fn from(error: tasks::Error) -> Error {
        Error::new(Fault::Failed, error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::new(Fault::Failed, in_words(&error))
    }
}

impl Faulty for files::Error {
    fn fault(&self) -> Fault {
        match self {
            files::Error::Io { .. } => Fault::Failed,
            files::Error::LaxMode { path, wanted, .. } => Fault::LaxMode {
                path: path.display().to_string(),
                wanted: format!("{wanted:o}"),
            },
            files::Error::Writable { path, .. } => Fault::LaxMode {
                path: path.display().to_string(),
                wanted: "go-w".to_owned(),
            },
            files::Error::ForeignOwner { path, owner, us } => Fault::ForeignOwner {
                path: path.display().to_string(),
                owner: owner.word(),
                user: us.id(),
            },
            files::Error::Unclaimed { path } => Fault::Unclaimed {
                path: path.display().to_string(),
            },
            files::Error::WrongKind { path, .. } => Fault::WrongKind {
                path: path.display().to_string(),
            },
        }
    }
}

impl Faulty for state::Error {
    fn fault(&self) -> Fault {
        match self {
            state::Error::File(error) => error.fault(),
            state::Error::Locked { .. } => Fault::StateInUse,
            state::Error::Rotating { .. } => Fault::RotationRunning,
            state::Error::Empty { .. } => Fault::NoState,
            state::Error::Nowhere => Fault::NoStateDir,
        }
    }
}

impl Faulty for config::Error {
    fn fault(&self) -> Fault {
        match self {
            config::Error::File(error) => error.fault(),
            config::Error::Syntax { .. } => Fault::Misconfigured,
        }
    }
}

impl Faulty for catalog::Error {
    fn fault(&self) -> Fault {
        match self {
            catalog::Error::Folder { .. } => Fault::NoPlatformsFolder,
            catalog::Error::File(error) => error.fault(),
            catalog::Error::TermsNotAcknowledged { id, .. } => Fault::NotAcknowledged {
                platform: id.clone(),
            },
            catalog::Error::Syntax { .. } | catalog::Error::Invalid { .. } => Fault::Misconfigured,
            catalog::Error::Unknown { .. } => Fault::Invalid,
        }
    }
}

impl Faulty for keys::Error {
    fn fault(&self) -> Fault {
        match self {
            keys::Error::File(error) => error.fault(),
            keys::Error::Malformed { kept, .. } | keys::Error::TooMany { kept, .. } => {
                Fault::BadKeys { place: *kept }
            }
            keys::Error::Missing(_) => Fault::NoKey,
            keys::Error::Full(_) => Fault::UnfinishedRotation,
            keys::Error::Keyring { why, .. } => Fault::Keyring { why: *why },
            keys::Error::RetiredAlone => Fault::RetiredAlone,
        }
    }
}

impl Faulty for seal::Error {
    fn fault(&self) -> Fault {
        match self {
            seal::Error::Open => Fault::Unopened,
            seal::Error::Exhausted => Fault::KeyExhausted,
            seal::Error::NotAtHand(_) => Fault::KeyNotAtHand,
        }
    }
}

impl Faulty for NotRotated {
    fn fault(&self) -> Fault {
        match self {
            NotRotated::FixedKeys => Fault::NoNewKey {
                place: KeyPlace::Environment,
            },
            NotRotated::GivenKeys(_) => Fault::NoNewKey {
                place: KeyPlace::Operators,
            },
            NotRotated::NotServed(_) => Fault::KeyNotServed,
            NotRotated::Unreadable(_) => Fault::Unreadable,
        }
    }
}

impl Faulty for store::Error {
    fn fault(&self) -> Fault {
        match self {
            store::Error::File(error) => error.fault(),
            store::Error::State(error) => error.fault(),
            store::Error::NotOurs { .. } => Fault::NotOurs,
            store::Error::Lost { .. } => Fault::DatabaseLost,
            store::Error::LogInUse { .. } => Fault::DatabaseInUse,
            store::Error::Schema { .. } => Fault::OtherRelease,
            store::Error::Older { .. } => Fault::OlderDatabase,
            store::Error::OlderServes { .. } => Fault::StateInUse,
            store::Error::WrongKey { .. } => Fault::WrongKey,
            store::Error::Keys(error) => error.fault(),
            store::Error::Rotation(refused) => refused.fault(),
            store::Error::Seal { source, .. } => source.fault(),
            store::Error::Database(_)
            | store::Error::Corrupt { .. }
            | store::Error::NotPublished
            | store::Error::RefreshUnderWay { .. } => Fault::Failed,
            store::Error::Unknown { record, name } => Fault::Unknown {
                kind: *record,
                name: name.clone(),
            },
            store::Error::NameTaken { record, name } => Fault::NameTaken {
                kind: *record,
                name: name.clone(),
            },
            store::Error::Unfit {
                unfit: Unfit::Credential,
                ..
            } => Fault::BadCredential,
            store::Error::Unfit { .. } => Fault::Invalid,
            store::Error::PoolInUse { pool, keys } => Fault::PoolInUse {
                pool: pool.clone(),
                keys: keys.clone(),
            },
            store::Error::DefaultPool => Fault::DefaultPool,
            store::Error::NotInPool { pool, account } => Fault::NotInPool {
                pool: pool.clone(),
                account: account.clone(),
            },
            store::Error::Refreshing { account } => Fault::RefreshRunning {
                account: account.clone(),
            },
            store::Error::ForeignBaseUrl { account, platform } => Fault::ForeignBaseUrl {
                account: account.clone(),
                platform: platform.clone(),
            },
            store::Error::NeedsLogin {
                account,
                platform,
                is_client,
            } => Fault::NeedsLogin {
                account: account.clone(),
                platform: platform.clone(),
                is_client: *is_client,
            },
        }
    }
}

impl Faulty for envoy::clusters::Error {
    fn fault(&self) -> Fault {
        match self {
            envoy::clusters::Error::Store(error) => error.fault(),
            envoy::clusters::Error::File(error) => error.fault(),
        }
    }
}

impl Faulty for socket::Error {
    fn fault(&self) -> Fault {
        match self {
            socket::Error::File(error) => error.fault(),
            socket::Error::TooLong(_) => Fault::SocketPathTooLong,
            socket::Error::InTheWay { .. } => Fault::SocketTaken,
        }
    }
}

impl Faulty for login::callback::Error {
    fn fault(&self) -> Fault {
        match self {
            login::callback::Error::Ports { .. } => Fault::PortsTaken,
            login::callback::Error::TimedOut => Fault::LoginFailed,
            login::callback::Error::Stopped(_) => Fault::Failed,
        }
    }
}

impl Faulty for login::session::Error {
    fn fault(&self) -> Fault {
        match self {
            login::session::Error::Browser(browser::Error::Unsafe(error)) => error.fault(),
            login::session::Error::Browser(_) => Fault::Failed,
            login::session::Error::Closed | login::session::Error::TimedOut(_) => {
                Fault::LoginFailed
            }
            login::session::Error::Unfit(_) => Fault::Invalid,
        }
    }
}

impl Faulty for oauth::exchange::Error {
    fn fault(&self) -> Fault {
        match self {
            oauth::exchange::Error::Refused(_) | oauth::exchange::Error::Page(_) => {
                Fault::LoginFailed
            }
            oauth::exchange::Error::Call(_) => Fault::LoginFailed,
            _ => Fault::Invalid,
        }
    }
}

impl Faulty for login::Error {
    fn fault(&self) -> Fault {
        match self {
            login::Error::Exchange(error) => error.fault(),
            login::Error::Denied(_) | login::Error::NoDeviceCode(_) | login::Error::Lapsed => {
                Fault::LoginFailed
            }
            login::Error::DeviceOff => Fault::WayClosed,
            login::Error::Http(error) => error.fault(),
            login::Error::Session(error) => error.fault(),
            login::Error::Redirect(_) => Fault::Invalid,
        }
    }
}

impl Faulty for crate::platform::NoClient {
    fn fault(&self) -> Fault {
        Fault::NoOwnClient {
            help: self.env.help.clone(),
        }
    }
}

impl Faulty for login::setup::Error {
    fn fault(&self) -> Fault {
        match self {
            login::setup::Error::Http(error) => error.fault(),
            login::setup::Error::NotSaid(_) => Fault::NeedsProject,
            login::setup::Error::Refused(_) => Fault::LoginFailed,
        }
    }
}

impl Faulty for login::finish::Error {
    fn fault(&self) -> Fault {
        match self {
            login::finish::Error::Login(error) => error.fault(),
            login::finish::Error::Setup(error) => error.fault(),
            login::finish::Error::OtherAccount { platform, .. } => Fault::OtherLogin {
                platform: platform.clone(),
            },
            login::finish::Error::Overtaken => Fault::Failed,
            login::finish::Error::NameTaken { name, .. } => Fault::NameOfAnother {
                account: name.clone(),
            },
            login::finish::Error::Store(error) => error.fault(),
        }
    }
}

macro_rules! failed {
    ($($error:ty),* $(,)?) => {$(
        impl Faulty for $error {
            fn fault(&self) -> Fault {
                Fault::Failed
            }
        }
    )*};
}

impl Faulty for oauth::http::Error {
    fn fault(&self) -> Fault {
        match self {
            oauth::http::Error::Roots(error) => error.fault(),
            _ => Fault::Failed,
        }
    }
}

impl Faulty for oauth::roots::Error {
    fn fault(&self) -> Fault {
        match self {
            oauth::roots::Error::File { error, .. }
                if !matches!(error, files::Error::Io { .. }) =>
            {
                error.fault()
            }
            oauth::roots::Error::File { named, .. } | oauth::roots::Error::Unfit { named, .. } => {
                Fault::BadRoots {
                    variable: named.variable().map(str::to_owned),
                }
            }
            oauth::roots::Error::Empty(named) => Fault::BadRoots {
                variable: named.variable().map(str::to_owned),
            },
            oauth::roots::Error::None(_) => Fault::Failed,
        }
    }
}

failed!(oauth::api_key::Error, tokio::task::JoinError,);
