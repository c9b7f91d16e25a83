//! The limits of accounts and client keys. `limit` counts what is used of them.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// The most that an account or a client key may use. A limit that is absent is none.
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

// === impl Limits ===

impl Limits {
    /// Returns true if no limit is set.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
