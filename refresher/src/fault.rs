//! Faults as data: a code for machines, and the facts that a cure needs.
//!
//! An error's sentence says what happened and is the same for everybody who reads it. A cure that holds for every door may
//! stand in it. One that differs by the door that the reader came through is no part of an error:
//! [`advice`](crate::advice) words it from a [`Fault`].

use std::fmt;

use serde::Serialize;

use crate::failing::Failure;

/// A kind of record that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An account at a platform.
    Account,
    /// A key that callers present.
    ClientKey,
    /// A pool of accounts.
    Pool,
}

impl Kind {
    /// The word for one, with its article.
    pub fn with_article(self) -> &'static str {
        match self {
            Kind::Account => "an account",
            Kind::ClientKey => "a client key",
            Kind::Pool => "a pool",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Account => "account",
            Kind::ClientKey => "client key",
            Kind::Pool => "pool",
        })
    }
}

/// The place of the sealing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlace {
    /// In environment variables.
    Environment,
    /// In a place that the operator fills, such as the kernel's keyring.
    Operators,
    /// In a place that the refresher fills, such as the key file.
    Ours,
}

/// The reason why a keyring gives no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyringFault {
    /// This process may not read the entry.
    Denied,
    /// The entry has expired or was revoked.
    Gone,
    /// The kernel offers no keyring to this process.
    Unavailable,
    /// The keyring of the user's session is locked, or was never made.
    Locked,
    /// Nothing offers a keyring to this session.
    NoService,
    /// An entry of the session's keyring has the name, and cannot be the keys.
    Ambiguous,
}

/// A fault that has a cure: its code, and the facts that the cure names. Serialised as `{"code": …, "facts": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", content = "facts", rename_all = "snake_case")]
pub enum Fault {
    /// No record has that name or id.
    Unknown {
        /// The kind of record.
        kind: Kind,
        /// The name or id that was asked for.
        name: String,
    },
    /// Another record has that name.
    NameTaken {
        /// The kind of record.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// An account of that name and platform has an API key already.
    HasKey {
        /// The account.
        account: String,
        /// Its platform.
        platform: String,
    },
    /// The name of a login's account belongs to another account.
    NameOfAnother {
        /// The name.
        account: String,
    },
    /// A credential holds characters that no credential has, or is none of its platform's; the sentence says which.
    BadCredential,
    /// An API key lacks its middle or its end.
    MaskedKey,
    /// An API key is that of another platform.
    ForeignKey {
        /// The name that the account was to have.
        account: String,
        /// The platform that makes such keys.
        platform: String,
    },
    /// A client key of ours is where a platform's key belongs.
    OwnKey,
    /// Somebody logged in as another account than the one that needs it.
    OtherLogin {
        /// The platform.
        platform: String,
    },
    /// A pool is what keys use.
    PoolInUse {
        /// The pool.
        pool: String,
        /// The names of the keys.
        keys: Vec<String>,
    },
    /// The default pool can be emptied, not removed.
    DefaultPool,
    /// An account is not in that pool.
    NotInPool {
        /// The pool.
        pool: String,
        /// The account.
        account: String,
    },
    /// An account's login has ended.
    NeedsLogin {
        /// The account.
        account: String,
        /// Its platform.
        platform: String,
        /// True for a client of the account's own, which buys tokens.
        is_client: bool,
    },
    /// An account has a key, and was never logged in.
    NoLogin {
        /// The account.
        account: String,
    },
    /// A platform did not revoke a login that is to end.
    NotRevoked {
        /// The account.
        account: String,
    },
    /// The base URL that the database has for an account is not its owner's.
    ForeignBaseUrl {
        /// The account.
        account: String,
        /// Its platform.
        platform: String,
    },
    /// The platform says that an account is of no use.
    Dead {
        /// The account.
        account: String,
        /// Its platform.
        platform: String,
        /// True if the account has an API key, which can be replaced.
        has_key: bool,
    },
    /// A platform takes logins and no API keys.
    NoApiKeys {
        /// The name that the account was to have.
        account: String,
        /// The platform.
        platform: String,
    },
    /// Another process refreshes the account.
    RefreshRunning {
        /// The account.
        account: String,
    },
    /// A refresh failed, and will be tried again.
    RefreshLater {
        /// The account.
        account: String,
        /// Its platform.
        platform: String,
        /// The kind of the failure; none where it was held back.
        how: Option<Failure>,
        /// True for a client of the account's own, which buys tokens.
        is_client: bool,
        /// The time of that, in Unix milliseconds.
        at: i64,
    },
    /// The notice of a platform was not acknowledged.
    NotAcknowledged {
        /// The platform.
        platform: String,
    },
    /// The daemon has not told the database of a platform yet.
    NotPublished,
    /// The folder of profiles cannot be read.
    NoPlatformsFolder,
    /// A change changes nothing.
    NoChange,
    /// A file is within reach of other users.
    LaxMode {
        /// The file.
        path: String,
        /// The permission bits that it should have, as `chmod` takes them.
        wanted: String,
    },
    /// A file belongs to another user.
    ForeignOwner {
        /// The file.
        path: String,
        /// The user who owns it, as a shell takes it.
        owner: String,
        /// The id of the user who runs this.
        user: u32,
    },
    /// A file is not there, and others could make it.
    Unclaimed {
        /// The file.
        path: String,
    },
    /// Something else than a plain file or directory is in a file's place.
    WrongKind {
        /// The file.
        path: String,
    },
    /// A `serve` runs on that state directory.
    StateInUse,
    /// A key rotation runs on that state directory.
    RotationRunning,
    /// Nothing names a state directory.
    NoStateDir,
    /// Nothing is kept in the state directory yet.
    NoState,
    /// A database that was there is gone.
    DatabaseLost,
    /// A file is no whole database of ours.
    NotOurs,
    /// Something reads a database while it is made.
    DatabaseInUse,
    /// A database was written by another release.
    OtherRelease,
    /// An earlier release made a database, and this one has not changed it yet.
    OlderDatabase,
    /// A database is sealed with another key.
    WrongKey,
    /// The key that seals a database is missing.
    NoKey,
    /// The text in the place of the keys is no key, or too many.
    BadKeys {
        /// The place of the keys.
        place: KeyPlace,
    },
    /// A key rotation was begun and not finished.
    UnfinishedRotation,
    /// A keyring gives no key.
    Keyring {
        /// The reason.
        why: KeyringFault,
    },
    /// There are retired keys, and none that seals.
    RetiredAlone,
    /// A key has sealed as many records as is safe.
    KeyExhausted,
    /// The key that seals is not at hand.
    KeyNotAtHand,
    /// The keys are the operator's to make, and there is no new one.
    NoNewKey {
        /// The place of the keys.
        place: KeyPlace,
    },
    /// The running `serve` does not have the new key.
    KeyNotServed,
    /// A sealed record cannot be opened.
    Unopened,
    /// Some sealed records cannot be opened.
    Unreadable,
    /// The path of the socket is too long.
    SocketPathTooLong,
    /// Something else is in the socket's place.
    SocketTaken,
    /// The address for metrics cannot be listened on.
    MetricsAddressTaken,
    /// The filter is not where Envoy is to find it.
    NoFilter,
    /// The filter is another one than was built.
    OtherFilter,
    /// A path that Envoy is told is not a whole one.
    RelativePath,
    /// The certificates are not where Envoy is to find them.
    NoTrustedCa,
    /// Certificates that the refresher is to trust cannot be used.
    BadRoots {
        /// The variable that names them; none where a profile's `ca_file` does.
        variable: Option<String>,
    },
    /// Other machines would reach the metrics.
    MetricsExposed,
    /// All ports of a login are in use.
    PortsTaken,
    /// A login came to nothing, and may be tried again.
    LoginFailed,
    /// The way to log in that was asked for is turned off at the platform.
    WayClosed,
    /// A platform has no logins; its accounts are API keys.
    KeysAlone {
        /// The platform.
        platform: String,
    },
    /// The logins of a platform are made by other programs, in files.
    ImportsAlone,
    /// A platform does not offer the way to log in that was asked for.
    NoSuchWay,
    /// The accounts of a platform bring OAuth clients of their own, and none was named.
    NeedsClient,
    /// A login does not say which account it is for, and some of its platform's leave by proxies of their own.
    NoWayOut,
    /// The platform's accounts work in no projects.
    NoProjects,
    /// The account works in a project, and nobody says which.
    NeedsProject,
    /// The OAuth client to which people log in is the operator's own, and is not there.
    NoOwnClient {
        /// Its profile's words about such a client.
        help: Option<String>,
    },
    /// The platform's accounts are each reached at an address of their own.
    NeedsBaseUrl,
    /// An address in the operator's own network, where the platform is not.
    OwnNetwork,
    /// One name for several credentials.
    OneName {
        /// The number of credentials.
        found: usize,
    },
    /// A file does not say which platform it is of.
    NeedsPlatform,
    /// The proxy that a file names is none that we could leave by.
    UnfitProxy,
    /// Several credentials cannot be taken over; the sentence lists them.
    SeveralUnfit,
    /// Another login of an account is likely newer.
    LikelySpent,
    /// A token does not say whose it is.
    NoAccountId,
    /// A file holds no login that can be used.
    NoUsableLogin {
        /// Its platform, where that is known.
        platform: Option<String>,
    },
    /// The configuration or a profile does not fit; the sentence names the place.
    Misconfigured,
    /// A value does not fit; the sentence says what was expected.
    Invalid,
    /// The operating system or the database failed; the sentence says how.
    Failed,
}
