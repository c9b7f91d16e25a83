//! An entry: an account that is out for every client key.

use serde::{Deserialize, Serialize};

use super::PROBE_MS;
use crate::{
    deadline::Deadline,
    id::Id,
    snapshot::{Account, Cooldown},
    verdict::{Reason, Scope},
};

/// The least difference between two ends that makes them different, in milliseconds: the answers
/// to the requests that were under way tell the same end over and over, each a little later.
const SAME_MS: u64 = 1_000;

/// The most, in milliseconds; in between it is a tenth of the time that is left.
const MOST_SAME_MS: u64 = 60_000;

/// An account that is out for every client key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The account.
    pub account: Id,
    /// The part of it that is out: everything, or one model.
    pub scope: Scope,
    /// The credential that the verdict is about, where another would change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The end, in Unix milliseconds.
    pub until: u64,
    /// The platform did not say when.
    pub guessed: bool,
    /// The reason.
    pub reason: Reason,
    /// The time at which it was learned, in Unix milliseconds.
    pub at: u64,
    /// The account is of no use until somebody sees to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dead: bool,
    /// The refresher has the entry, as this Envoy heard from it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub told: bool,
    /// Until when a probe keeps the others away, in Unix milliseconds; 0 where there is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probe_until: u64,
}

fn is_default<T: PartialEq + Default>(value: &T) -> bool {
    *value == T::default()
}

// === impl Entry ===

impl Entry {
    /// A guess about all of an account, learned at `now`, that lasts for so many milliseconds.
    pub(super) fn guess(account: &Account, now: u64, lasts: u64, reason: Reason) -> Self {
        let cooldown = Cooldown {
            scope: Scope::Account,
            until: now.saturating_add(lasts),
            guessed: true,
            reason,
            at: now,
        };
        Self::of(&account.id, cooldown)
    }

    /// An entry against `account`.
    pub(super) fn of(account: &Id, cooldown: Cooldown) -> Self {
        let Cooldown {
            scope,
            until,
            guessed,
            reason,
            at,
        } = cooldown;
        Self {
            account: account.clone(),
            scope,
            generation: None,
            until,
            guessed,
            reason,
            at,
            dead: false,
            told: false,
            probe_until: 0,
        }
    }

    /// The part of it that other Envoys are to know.
    pub fn cooldown(&self) -> Cooldown {
        Cooldown {
            scope: self.scope.clone(),
            until: self.until,
            guessed: self.guessed,
            reason: self.reason.clone(),
            at: self.at,
        }
    }

    /// Returns true if a fresh credential ends the entry.
    pub fn awaits_credential(&self) -> bool {
        self.generation.is_some() && !self.dead
    }

    /// Returns true if the entry says at `now` that the credential that `account` has here, or a later one, is of no
    /// use. A request with that one was sent before this was learned.
    pub(super) fn refuses(&self, account: &Account, now: u64) -> bool {
        let of = self.generation;
        of.is_some_and(|of| of >= account.generation) && now < self.until
    }

    /// The time at which it lets the next request through, in Unix milliseconds: its end, or that
    /// of a probe.
    pub fn back_at(&self) -> u64 {
        self.until.max(self.probe_until)
    }

    /// Returns true if other Envoys must know the entry as it is: it is a limit, and not a refused or useless
    /// credential, of which the refresher hears anyway.
    pub fn is_limit(&self) -> bool {
        self.generation.is_none()
    }

    /// Returns true if the entry keeps requests away at `now`.
    pub(super) fn is_out(&self, now: u64) -> bool {
        now < self.until || !Deadline::ending(self.probe_until, PROBE_MS).is_due(now)
    }

    /// Returns true if the entry lets one request try now.
    pub(super) fn is_half_open(&self, now: u64) -> bool {
        self.guessed && !self.is_out(now)
    }

    /// Returns true if the entry is about a request to `account` for `model`.
    pub(super) fn is_about(&self, account: &Account, model: Option<&str>) -> bool {
        let scope_fits = self.scope.covers(model);
        let generation_fits = self.generation.is_none_or(|of| of == account.generation);
        self.account == account.id && scope_fits && generation_fits
    }

    /// Returns true if `other` has the same account and scope, and so this entry's place.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.account == other.account && self.scope == other.scope
    }

    /// Returns true if a `newer` entry in this one's place would be no news to anybody.
    pub(super) fn says_the_same_as(&self, newer: &Self, now: u64) -> bool {
        now < self.until
            && is_same_end(self.until, newer.until, now)
            && self.guessed == newer.guessed
            && self.reason == newer.reason
            && self.dead == newer.dead
            && self.generation == newer.generation
    }
}

/// Returns true if two ends are one, as far as requests at `now` are concerned.
pub(super) fn is_same_end(one: u64, other: u64, now: u64) -> bool {
    let left = one.saturating_sub(now);
    one.abs_diff(other) <= (left / 10).clamp(SAME_MS, MOST_SAME_MS)
}
