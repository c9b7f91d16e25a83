//! A suspicion: what one client key's requests have met at an account. It holds for that key alone: whoever sends
//! requests that fail everywhere must not take accounts from others.

use serde::{Deserialize, Serialize};

use super::{DEAD_MS, DEATHS, PROBE_MS, STRIKES_MS, entry::is_same_end};
use crate::{
    deadline::Deadline,
    hash::hash64,
    id::Id,
    snapshot::Account,
    verdict::{Reason, Scope},
};

/// The time for which a key counts as one that struck after its suspicion has ended, in milliseconds;
/// after that of a death it is [`DEAD_MS`], as a key alone may ask seldom.
pub const KEPT_MS: u64 = 60_000;

/// A client key, as the board knows it: a hash of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Striker(u32);

/// The kinds of suspicion. Of two keys the same one confirms the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuspicionKind {
    /// The platform is in trouble.
    Trouble,
    /// A limit whose end the platform did not say.
    Limit,
    /// The credential was refused.
    Expired,
    /// The account is of no use.
    Dead,
}

/// The trouble that one client key's requests have met at one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// The account.
    pub account: Id,
    /// The key.
    pub key: Striker,
    /// The part of the account that is out: everything, or one model.
    pub scope: Scope,
    /// The kind.
    pub kind: SuspicionKind,
    /// The credential that it is about, where another would change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The end, in Unix milliseconds; 0 where the key may still use the account.
    pub until: u64,
    /// The reason.
    pub reason: Reason,
    /// The time at which it was last learned, in Unix milliseconds.
    pub at: u64,
    /// The failures since `struck_at`; of a death, those that each came after the pause of the one before.
    pub strikes: u32,
    /// The time at which the first of those came, in Unix milliseconds.
    pub struck_at: u64,
    /// Until when a request of the key tries the account alone, in Unix milliseconds; 0 where none
    /// does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub probe_until: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

// === impl Striker ===

impl Striker {
    /// The key of this id.
    pub fn of(key: &Id) -> Self {
        let [one, two, three, four, ..] = hash64(&[key.as_str().as_bytes()]).to_le_bytes();
        Self(u32::from_le_bytes([one, two, three, four]))
    }
}

// === impl Suspicion ===

impl Suspicion {
    /// Returns true if the suspicion keeps its key away at `now`.
    pub fn is_out(&self, now: u64) -> bool {
        now < self.until || !Deadline::ending(self.probe_until, PROBE_MS).is_due(now)
    }

    /// The time at which it lets its key's next request through, in Unix milliseconds.
    pub fn back_at(&self) -> u64 {
        self.until.max(self.probe_until)
    }

    /// Returns true if a fresh credential ends the suspicion.
    pub fn awaits_credential(&self) -> bool {
        self.kind == SuspicionKind::Expired
    }

    /// Returns true if the suspicion holds for every key where there is no other.
    pub(super) fn is_enough_alone(&self) -> bool {
        match self.kind {
            SuspicionKind::Dead => self.strikes >= DEATHS,
            _ => self.until > 0,
        }
    }

    /// Returns true if the suspicion counts at `now`.
    pub(super) fn is_alive(&self, now: u64) -> bool {
        let end = match self.until {
            0 => self.struck_at.saturating_add(STRIKES_MS),
            until if self.kind == SuspicionKind::Dead => until.saturating_add(DEAD_MS),
            until => until.saturating_add(KEPT_MS),
        };
        // A clock that was set back must not keep it for ever.
        now < end && self.at <= now.saturating_add(STRIKES_MS)
    }

    /// Returns true if the suspicion is about a request of `key` to `account` for `model`.
    pub(super) fn is_about(&self, account: &Account, key: Striker, model: Option<&str>) -> bool {
        self.key == key && self.scope.covers(model) && self.is_of(account)
    }

    /// Returns true if the suspicion is about `account` with the credential that it has.
    pub(super) fn is_of(&self, account: &Account) -> bool {
        let generation_fits = self.generation.is_none_or(|of| of == account.generation);
        self.account == account.id && generation_fits
    }

    /// Returns true if the suspicion says at `now` that the credential that `account` has here, or a later one, is of
    /// no use to its key. A request with that one was sent before this was learned.
    pub(super) fn refuses(&self, account: &Account, now: u64) -> bool {
        let of = self.generation;
        of.is_some_and(|of| of >= account.generation) && now < self.until
    }

    /// Returns true if `other` has this suspicion's place.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.account == other.account && self.key == other.key && self.scope == other.scope
    }

    /// Returns true if a `newer` suspicion in this one's place would be no news to anybody.
    pub(super) fn says_the_same_as(&self, newer: &Self, now: u64) -> bool {
        now < self.until
            && is_same_end(self.until, newer.until, now)
            && self.kind == newer.kind
            && self.reason == newer.reason
            && self.generation == newer.generation
    }

    /// Returns true if `other`, of another key, says the same.
    pub(super) fn confirms(&self, other: &Self, now: u64) -> bool {
        self.key != other.key
            && self.account == other.account
            && self.scope == other.scope
            && self.kind == other.kind
            && self.generation == other.generation
            && self.is_alive(now)
    }

    /// Begins a try of the account.
    pub(super) fn probe(&mut self, now: u64) {
        self.probe_until = now.saturating_add(PROBE_MS);
    }
}
