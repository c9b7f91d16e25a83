//! Limits of accounts and client keys: requests and tokens a minute, tokens a day, and requests
//! at the same time ("streams").
//!
//! **Counts.** An account or key that has limits is a [`Subject`]; whoever has none costs nothing.
//! Its [`Counters`] lie in shared data ([`table`]): a minute, a day, and for each VM the streams
//! that its requests hold. Every worker changes them by compare-and-swap, so one Envoy keeps its
//! limits exactly, and a crash of a VM loses no count. Streams are a lease: a VM renews it, and that
//! of a crashed VM lapses.
//!
//! **A request.** Where its body is yet to come, its key is looked at, and a full one is refused
//! before a byte is kept; one that is let in holds its key's stream from there on, so that a key has
//! no more bodies under way than streams. Once the gate has picked an account ([`crate::gate::admission`]), that is
//! looked at, then the key takes, then the account: to take is to check and to count in one swap. A
//! full account makes way for the next, and is passed over until its minute or day ends. At the end
//! of the answer its tokens are counted and its streams are free, in one swap a subject. A request
//! that runs again keeps its place at its key, counts there once, and takes anew at its next account.
//!
//! **Several Envoys.** Each second the VM that has the lease tells the refresher what its Envoy
//! counted, and hears what the others did ([`settle`]). Numbers are sums within a period, so a
//! message that is lost, late or repeated changes nothing. Where the refresher is away, an Envoy
//! counts by itself.
//!
//! **Periods.** A minute is that of the clock and a day the operator's, so a refusal's `retry-after`
//! is true and all Envoys mean the same period. A clock that jumps gives no new budget.
//!
//! **What may pass beyond a limit**, with `r` requests a second at one Envoy:
//! - Of tokens, what requests use that were under way when the limit was reached: a request's tokens
//!   are known at its end.
//! - On N Envoys, `(N − 1) · min(limit, r · 2 · (1 s + 0.1 s))`: what the others let through before it is
//!   known, two settle intervals and the tick that starts each.
//! - In an Envoy's first second with a subject, after a restart too, `min(limit, r · (1 s + 0.1 s))`
//!   and what comes while the refresher answers: until then it knows nothing of what was used before.
//! - Of streams, requests that run again, if others took their place in between: they are not asked
//!   a second time.
//! - Across the end of a minute, up to twice the limit within 60 s.
//!
//! A request whose body is still coming does not count in the minute yet: it counts when it is
//! decided about, and is refused then if the key is full. One that is refused because its body cannot
//! be decoded counts then.

mod counters;
mod limiter;
pub mod settle;
pub mod table;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub(crate) use self::limiter::{Denied, PlaceAtKey};
pub use self::{
    counters::{Counters, LEASE_MS, Period, Used},
    limiter::{Limiter, RENEW_MS, limited},
};
use crate::id::Id;
pub use crate::snapshot::Limits;

/// A minute, in milliseconds.
pub const MINUTE_MS: u64 = 60_000;

/// A day that nobody set the clock in, in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

/// One of [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::requests_per_minute`]
    RequestsPerMinute,
    /// [`Limits::tokens_per_minute`]
    TokensPerMinute,
    /// [`Limits::tokens_per_day`]
    TokensPerDay,
    /// [`Limits::concurrent_streams`]
    ConcurrentStreams,
}

/// An account or key that has limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Of which kind.
    pub kind: SubjectKind,
    /// Its id.
    pub id: Id,
}

/// The kind of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// An account.
    Account,
    /// A client key.
    Key,
}

/// The subjects of a request that have limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limited {
    /// The client key, and what it may use.
    pub key: Option<(Subject, Limits)>,
    /// The account, and what it may use.
    pub account: Option<(Subject, Limits)>,
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The limit.
    pub limit: Limit,
    /// The amount that it allows.
    pub allowed: u64,
    /// Its end, in Unix milliseconds; none where it ends when a request ends.
    pub until: Option<u64>,
}

/// The accounts at a limit, as far as one VM knows, each until when.
#[derive(Debug, Default)]
pub struct FullAccounts(BTreeMap<Id, Full>);

#[derive(Debug, Clone, Copy)]
struct Full {
    until: u64,
    /// It is back when one of its requests ends, maybe before `until`.
    by_streams: bool,
}

// === impl Limit ===

impl Limit {
    /// Names what it counts, for people.
    pub fn unit(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests a minute",
            Self::TokensPerMinute => "tokens a minute",
            Self::TokensPerDay => "tokens a day",
            Self::ConcurrentStreams => "requests at the same time",
        }
    }
}

// === impl Subject ===

impl Subject {
    /// The account of this id.
    pub fn account(id: &Id) -> Self {
        Self {
            kind: SubjectKind::Account,
            id: id.clone(),
        }
    }

    /// The client key of this id.
    pub fn key(id: &Id) -> Self {
        Self {
            kind: SubjectKind::Key,
            id: id.clone(),
        }
    }
}

impl fmt::Display for SubjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::Key => "key",
        })
    }
}

// === impl Limited ===

impl Limited {
    /// Returns true if nobody has a limit.
    pub fn is_nobody(&self) -> bool {
        self.key.is_none() && self.account.is_none()
    }
}

// === impl FullAccounts ===

impl FullAccounts {
    /// Nobody.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Returns true if it is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Until when, in Unix milliseconds, `account` is at a limit at `now`.
    pub fn until(&self, account: &Id, now: u64) -> Option<u64> {
        let full = self.0.get(account)?;
        (now < full.until).then_some(full.until)
    }

    /// Returns true if all that is the matter with `account` at `now` is that it has as many requests under way
    /// as it may.
    pub fn is_busy(&self, account: &Id, now: u64) -> bool {
        let full = self.0.get(account);
        full.is_some_and(|full| full.by_streams && now < full.until)
    }

    fn put(&mut self, account: Id, full: Full) {
        self.0.insert(account, full);
    }
}
