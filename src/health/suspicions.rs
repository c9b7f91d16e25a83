//! The suspicions of every client key, in an Envoy.

use serde::{Deserialize, Serialize};

use super::{DEAD_MS, Entry, STRIKES, STRIKES_MS, SUSPECTED_MS, Striker, Suspicion, SuspicionKind};
use crate::{id::Id, snapshot::Account};

/// The most suspicions. A new one takes the place of the one that ends first; at
/// [`MAX_KEY_SUSPICIONS`] of one key, of that key's.
pub const MAX_SUSPICIONS: usize = 1024;

/// The most suspicions of one key: it may name any number of models.
pub const MAX_KEY_SUSPICIONS: usize = 64;

/// The suspicions: at most one for an account, key and scope, by account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Suspicions(Vec<Suspicion>);

// === impl Suspicions ===

impl Suspicions {
    /// Makes a list of none.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Brings those that were read into order.
    pub(super) fn sort(&mut self) {
        self.0.sort_by(|one, next| one.account.cmp(&next.account));
    }

    /// Finds the suspicions about an account, of whatever key.
    pub(super) fn of(&self, account: &Id) -> impl Iterator<Item = &Suspicion> {
        let start = self.0.partition_point(|one| one.account < *account);
        let rest = self.0.get(start..).unwrap_or_default();
        let end = rest.partition_point(|one| one.account == *account);
        rest.get(..end).unwrap_or_default().iter()
    }

    /// All of them.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Suspicion> {
        self.0.iter_mut()
    }

    /// Marks the keys whose strikes took an account out by this entry: none of them is its probe.
    pub(super) fn strike_all(&mut self, entry: &Entry, kind: SuspicionKind, now: u64) {
        for one in &mut self.0 {
            let is_of = one.account == entry.account && one.scope == entry.scope;
            if is_of && one.kind == kind && one.until == 0 && one.is_alive(now) {
                one.until = entry.until;
            }
        }
    }

    /// Forgets those that are `over`. Returns true if there were any.
    pub(super) fn forget(&mut self, mut over: impl FnMut(&Suspicion) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|one| !over(one));
        self.0.len() < before
    }

    /// Returns what `key` suspects of `account` after one more verdict, which would put up `entry`; true if it
    /// suspected nothing before. None where that is no news.
    pub(super) fn next(
        &self,
        account: &Account,
        key: Striker,
        kind: SuspicionKind,
        entry: &Entry,
        now: u64,
    ) -> Option<(Suspicion, bool)> {
        let mut new = Suspicion {
            account: account.id.clone(),
            key,
            scope: entry.scope.clone(),
            kind,
            generation: entry.generation,
            until: entry.until,
            reason: entry.reason.clone(),
            at: now,
            strikes: 1,
            struck_at: now,
            probe_until: 0,
        };
        let mut about = self.of(&account.id);
        let old = about.find(|old| old.is_beside(&new) && old.is_alive(now));
        let was_out = old.is_some_and(|old| old.until > 0 && old.is_of(account));
        if let Some(old) = old {
            let is_guess = matches!(kind, SuspicionKind::Trouble | SuspicionKind::Limit);
            if is_guess && old.refuses(account, now) || old.says_the_same_as(&new, now) {
                return None;
            }
            let is_known_dead =
                kind == SuspicionKind::Dead && old.kind == kind && old.is_of(account);
            if is_known_dead && now < old.until {
                return None;
            }
            let is_recent = now.saturating_sub(old.struck_at) < STRIKES_MS;
            if is_known_dead || old.kind == kind && kind != SuspicionKind::Dead && is_recent {
                new.strikes = old.strikes.saturating_add(1);
                new.struck_at = old.struck_at;
            }
        }
        if kind == SuspicionKind::Dead {
            let times = 2_u64.saturating_pow(new.strikes.saturating_sub(1));
            let pause = SUSPECTED_MS.saturating_mul(times).min(DEAD_MS);
            new.until = now.saturating_add(pause);
        }
        // One that was out and fails its try is out again.
        if kind == SuspicionKind::Trouble && new.strikes < STRIKES && !was_out {
            new.until = 0;
        }
        Some((new, old.is_none()))
    }

    /// Returns true if other keys share the suspicion, so that it holds for every key.
    pub(super) fn confirm(&self, new: &Suspicion, now: u64) -> bool {
        let about = self.of(&new.account);
        let others = about.filter(|other| other.confirms(new, now));
        if new.kind != SuspicionKind::Trouble {
            return others.count() > 0;
        }
        let recent = others.filter(|other| now.saturating_sub(other.struck_at) < STRIKES_MS);
        let strikes = recent.map(|other| other.strikes).chain([new.strikes]);
        let (mut all, mut most) = (0_u32, 0_u32);
        for one in strikes.map(|strikes| strikes.min(STRIKES)) {
            all = all.saturating_add(one);
            most = most.max(one);
        }
        all.saturating_sub(most) >= STRIKES.saturating_sub(1)
    }

    /// Puts up a suspicion, in the place of the one before it.
    pub(super) fn put(&mut self, new: Suspicion, now: u64) {
        self.0
            .retain(|old| !old.is_beside(&new) && old.is_alive(now));
        let own = self.0.iter().filter(|old| old.key == new.key);
        let is_crowded = own.count() >= MAX_KEY_SUSPICIONS;
        if is_crowded || self.0.len() >= MAX_SUSPICIONS {
            let olds = self.0.iter().enumerate();
            let first = olds
                .filter(|(_, old)| !is_crowded || old.key == new.key)
                .min_by_key(|(_, old)| old.until);
            if let Some((index, _)) = first {
                self.0.remove(index);
            }
        }
        let place = self.0.partition_point(|old| old.account < new.account);
        self.0.insert(place, new);
    }
}
