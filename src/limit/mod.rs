//! Limits of accounts and client keys: requests and tokens a minute, tokens a day, and requests
//! served at the same time.
//!
//! All workers of an Envoy count in shared data ([`table`]), so they share one limit; each
//! subject's [`Counters`] change by compare-and-swap. [`settle`] sends an Envoy's counts to the
//! refresher and brings back those of the others. [`Limiter`] is what one VM keeps beside that.
//! Whoever has no limit is never counted, and costs no hostcall.
//!
//! A minute is that of the clock, not the 60 s before a request: its end is known, so the
//! `retry-after` of a refusal is true, and it is the same minute on every Envoy, so their counts
//! can be added up. In 60 s that lie across its end, up to twice the limit can pass.

mod counters;
mod limiter;
pub mod settle;
pub mod table;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU32, NonZeroU64},
};

use serde::{Deserialize, Serialize};

pub(crate) use self::limiter::Denied;
pub use self::{
    counters::{Counters, FIRST_SETTLE_MS, LEASE_MS, Used, Window},
    limiter::{Limiter, RENEW_MS, limited},
};
use crate::id::Id;

/// A minute, in milliseconds.
pub const MINUTE_MS: u64 = 60_000;

/// A day that nobody set the clock in, in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

/// What an account or a client key may use. Each that is absent is without end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests in a minute of the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens in a minute of the clock. They are known when a request ends, and counted then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Tokens in a day, which begins at midnight in a time zone that the refresher knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<NonZeroU64>,
    /// Requests that are served at the same time, streamed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_streams: Option<NonZeroU32>,
}

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

/// Whose limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Of which kind.
    pub kind: SubjectKind,
    /// Its id.
    pub id: Id,
}

/// Who may have limits.
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
    /// Which.
    pub limit: Limit,
    /// How much it allows.
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

// === impl Limits ===

impl Limits {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Limit ===

impl Limit {
    /// What it counts, for people.
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
    /// Whether nobody has a limit.
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

    /// Whether it is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Until when, in Unix milliseconds, `account` is at a limit at `now`.
    pub fn until(&self, account: &Id, now: u64) -> Option<u64> {
        let full = self.0.get(account)?;
        (now < full.until).then_some(full.until)
    }

    fn put(&mut self, account: Id, full: Full) {
        self.0.insert(account, full);
    }
}
