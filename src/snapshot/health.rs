//! The health of an account beside its status: its cooldowns, and the used part of its quota.
//!
//! It starts as what one Envoy's attempts learn, goes to the refresher as reports, and comes back
//! to every Envoy in this record. An Envoy does not keep the record with the others: it merges it
//! into its board ([`crate::health`]).

use serde::{Deserialize, Serialize};

use crate::{
    id::Id,
    verdict::{Reason, Scope, quota::Window},
};

/// The health of one account, as every Envoy is to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The account.
    pub id: Id,
    /// The cooldowns, one for each scope; some may have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Cooldown>,
    /// The windows of its quota, as last reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// The time at which they were reported, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub windows_at: u64,
    /// The time of the operator's last `accounts reset`, in Unix milliseconds. Nothing that was known by then
    /// counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reset_at: u64,
    /// The time at which the refresher last asked the platform and found the account alive, in Unix
    /// milliseconds. No death that was met by then counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub alive_at: u64,
}

/// A cooldown: an account is not to be used for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// The part of it that is out: everything, or one model.
    pub scope: Scope,
    /// The end, in Unix milliseconds.
    pub until: u64,
    /// True where the platform did not say when: one request at a time may try after `until`.
    pub guessed: bool,
    /// The reason, in a word.
    pub reason: Reason,
    /// The time at which it was learned, in Unix milliseconds.
    pub at: u64,
}

fn is_zero<T: PartialEq + Default>(number: &T) -> bool {
    *number == T::default()
}

// === impl Cooldown ===

impl Cooldown {
    /// Returns true if it keeps nobody away any more, not even until a request has tried.
    pub fn has_ended(&self, now: u64) -> bool {
        self.until <= now && !self.guessed
    }

    /// Returns true if `other`, about the same account and scope, is to be believed at `now`
    /// instead:
    /// what was learned later, but a late answer to an older request does not shorten what the
    /// platform itself said. Of two, either one yields or both are the same news.
    pub fn yields_to(&self, other: &Self, now: u64) -> bool {
        !self.stands_against(other, now) && (other.stands_against(self, now) || other.at > self.at)
    }

    /// Returns true if the platform itself set its end, and a later one than `other` has.
    pub fn stands_against(&self, other: &Self, now: u64) -> bool {
        !self.guessed && self.until > now.max(other.until)
    }
}
