//! The board: which accounts are out, until when, and why. Every worker of an Envoy knows it at once.
//!
//! The board lies in shared data. An attempt posts its verdict there. Every VM reads the board when the
//! head says that it moved. The gate passes over what is out.
//!
//! An account is out for every client key, by an [`Entry`], or for one key, by a [`Suspicion`]: what one
//! caller's requests meet says nothing yet of other callers'.
//!
//! | verdict | for the key that met it | for every key |
//! |---|---|---|
//! | a limit with the platform's own time | | at once |
//! | a limit without, a refused credential | at once | when a second key meets it |
//! | of no use (`dead`) | at once, for a minute, then for twice as long each time, up to an hour | when a second key meets it |
//! | trouble of the platform | at the third strike within 10 s | at the second strike within 10 s of other keys than the one that struck most |
//!
//! - One request speaks against one account at most ([`crate::request::carried::Carried::blames`]).
//! - An entry ends at its time. Where that time was a guess, the account is then half-open: one request
//!   at a time is its [probe](Board::probe). A good answer removes the entry, a failed probe renews it.
//!   A probe whose caller leaves before an answer is given back.
//! - The probe is of a key that did not strike. One that did may try the account too, for itself: its
//!   failure holds for itself alone.
//! - A key's strikes end with the good end of an answer to that key. A suspicion is forgotten a minute
//!   after its end, that of a death an hour after.
//! - Where there is one key alone, what it meets holds for every key; `dead` does when the key has met it
//!   three times, each after the pause of the one before.
//! - A verdict that changes something for every key is reported: an account is out that was not, its end
//!   moved by a tenth of the time left (1 s to 60 s), it is dead, or a guess was removed. So is the
//!   suspicion that an account is dead, and its end: people see it, and the refresher compares what
//!   several Envoys say. Other suspicions stay in their Envoy.
//! - Envoys and the refresher's store merge by one rule ([`Board::take`]), so they agree in the end: the
//!   later news wins, but a later guess or a shorter end does not shorten what the platform itself set.
//!   Every 30 s the polling VM repeats what the refresher has not taken, so a crash loses nothing.
//! - The refresher deletes what has ended, a guess 10 minutes after its end. Until then a new Envoy
//!   sends such an account one request at a time, as the others do.
//! - `dead` of the current generation removes the account from the snapshot, until an operator enables
//!   or resets it, or it gets a new credential. `accounts reset` makes every Envoy forget what it
//!   learned before, suspicions included.
//! - The refresher asks the platform itself about an account that one key alone says is dead. Where the
//!   platform still knows it, every Envoy forgets the deaths that were met before that.
//!
//! Quota windows are read from answer headers: of failures always, of good answers once a second in each
//! VM. A change of a whole percent, of 60 s in the reset, or from or to exhausted is kept in shared data
//! and reported at most once in 10 s an account. A window past its reset is full. A window without a
//! reset is forgotten after an hour.

mod entry;
pub mod quota;
mod suspicion;
mod suspicions;

use serde::{Deserialize, Serialize};

use self::quota::{Outlook, Quotas};
pub use self::{
    entry::Entry,
    suspicion::{KEPT_MS, Striker, Suspicion, SuspicionKind},
    suspicions::{MAX_KEY_SUSPICIONS, MAX_SUSPICIONS, Suspicions},
};
use crate::{
    id::Id,
    snapshot::{Account, Cooldown, Health},
    verdict::{Reason, Scope, Verdict},
};

/// The most entries. A new one takes the place of the one that ends first; at
/// [`MAX_ACCOUNT_ENTRIES`] of one account, of its models' first.
pub const MAX_ENTRIES: usize = 1024;

/// The time for which one probe keeps other requests away from a half-open account, in milliseconds. Most
/// answers begin within it.
pub const PROBE_MS: u64 = 10_000;

/// The time for which an account whose credential was refused waits for another one, in milliseconds. The
/// new one ends the wait at once, as its generation is another.
const REFRESH_WAIT_MS: u64 = 60_000;

/// The time for which an account of no use is left alone before one request may try, in milliseconds. The
/// refresher takes it out of the snapshot much sooner.
pub const DEAD_MS: u64 = 3_600_000;

/// The first pause of a key that met such an account, where nobody has confirmed that, in
/// milliseconds. Each time that it is told so again the pause is twice as long, up to [`DEAD_MS`].
pub const SUSPECTED_MS: u64 = 60_000;

/// The times that the only key must meet such an account, so that its word is enough: the third comes
/// three minutes after the first at the earliest.
pub const DEATHS: u32 = 3;

/// The number of answers in a row that blame the platform before an account is out. One may be the work of
/// a single odd request.
pub const STRIKES: u32 = 3;

/// The time in which they must come, in milliseconds.
pub const STRIKES_MS: u64 = 10_000;

/// The accounts that are out, and beside them what is known of every account's quota.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Board {
    /// The entries, at most one for an account and scope, by account: each request looks at several accounts.
    entries: Vec<Entry>,
    suspicions: Suspicions,
    quotas: Quotas,
}

/// The part of a board that lies under its key in shared data.
#[derive(Default, Serialize, Deserialize)]
struct Written {
    entries: Vec<Entry>,
    suspicions: Suspicions,
}

/// The client key whose request met a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The key.
    pub key: Striker,
    /// Only this key exists.
    pub alone: bool,
}

/// The changes that a verdict made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// Something about one key, which nobody else needs to know of.
    Noted,
    /// A death that one key has met; nobody has confirmed it.
    Suspected,
    /// An entry that keeps the requests of every key away now.
    Out(Entry),
    /// A guess that kept requests away, or the suspicion that an account is of no use, is taken down.
    Recovered,
}

/// The most entries about one account: a limit for each of its models.
pub const MAX_ACCOUNT_ENTRIES: usize = 64;

/// The standing of an account with a client key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// The account may be used.
    Free,
    /// The account may be tried, by one request.
    HalfOpen,
    /// The account may not be used.
    Out(Why<'a>),
}

/// The reason why an account may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Why<'a> {
    /// The reason, in a word.
    pub reason: &'a Reason,
    /// The time at which the next request is let through, in Unix milliseconds.
    pub back_at: u64,
    /// A fresh credential ends it.
    pub awaits_credential: bool,
    /// The platform said when it ends.
    pub is_told: bool,
    /// The account is of no use until somebody sees to it.
    pub is_dead: bool,
}

// === impl Board ===

impl Board {
    /// Makes a board with nobody on it.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            suspicions: Suspicions::new(),
            quotas: Quotas::new(),
        }
    }

    /// The board whose entries lie in `bytes`; what does not parse is an empty one, as if Envoy
    /// had just started.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut written: Written = serde_json::from_slice(bytes).unwrap_or_default();
        let Written {
            entries,
            suspicions,
        } = &mut written;
        entries.sort_by(|one, next| one.account.cmp(&next.account));
        suspicions.sort();
        Self {
            entries: written.entries,
            suspicions: written.suspicions,
            quotas: Quotas::new(),
        }
    }

    /// The bytes of its entries and suspicions in shared data, which it gives up for them; the quotas
    /// have keys of their own.
    pub fn encode(self) -> Vec<u8> {
        let written = Written {
            entries: self.entries,
            suspicions: self.suspicions,
        };
        // Ids, numbers and checked words always serialise.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Takes the entries and suspicions of another board; the quotas stay.
    pub fn take_entries(&mut self, other: Self) {
        self.entries = other.entries;
        self.suspicions = other.suspicions;
    }

    /// Returns what is known of the quotas.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The quotas, to be brought up to date.
    pub fn quotas_mut(&mut self) -> &mut Quotas {
        &mut self.quotas
    }

    /// Returns the part of its quota that an account has left at `now`.
    pub fn outlook(&self, account: &Id, now: u64) -> Outlook {
        let known = self.quotas.of(account);
        known.map_or_else(Outlook::default, |known| known.outlook(now))
    }

    /// Returns true if nothing is out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.suspicions.is_empty()
    }

    /// The entries about an account, whatever they say.
    fn of(&self, account: &Id) -> &[Entry] {
        let start = self.start_of(account);
        let rest = self.entries.get(start..).unwrap_or_default();
        let end = rest.partition_point(|entry| entry.account == *account);
        rest.get(..end).unwrap_or_default()
    }

    /// Finds the place at which the entries about an account begin, or would.
    fn start_of(&self, account: &Id) -> usize {
        self.entries
            .partition_point(|entry| entry.account < *account)
    }

    /// Returns how `account` stands at `now` for a request of `key` for `model`.
    pub fn standing(
        &self,
        account: &Account,
        key: Striker,
        model: Option<&str>,
        now: u64,
    ) -> Standing<'_> {
        let mut standing = Standing::Free;
        let entries = self.of(&account.id).iter();
        for entry in entries.filter(|entry| entry.is_about(account, model)) {
            if entry.is_out(now) {
                return Standing::Out(entry.into());
            }
            if entry.is_half_open(now) {
                standing = Standing::HalfOpen;
            }
        }
        let suspicions = self.suspicions.of(&account.id);
        let own = suspicions.filter(|one| one.is_about(account, key, model) && one.is_alive(now));
        for suspicion in own {
            if suspicion.is_out(now) {
                return Standing::Out(suspicion.into());
            }
            if suspicion.until > 0 {
                standing = Standing::HalfOpen;
            }
        }
        standing
    }

    /// Posts what `verdict` of `witness` on a request for `model` says about `account` at `now`. The
    /// same news again is none.
    pub fn learn(
        &mut self,
        account: &Account,
        witness: Witness,
        model: Option<&str>,
        verdict: &Verdict,
        now: u64,
    ) -> Change {
        if *verdict == Verdict::Fine {
            return self.clear(account, witness.key, model, now);
        }
        let Some((kind, entry)) = entry_of(account, verdict, now) else {
            return Change::Nothing;
        };
        if self.says(account, &entry, now) {
            return Change::Nothing;
        }
        let Some(kind) = kind else {
            self.put(entry.clone(), now);
            return Change::Out(entry);
        };
        let next = self
            .suspicions
            .next(account, witness.key, kind, &entry, now);
        let Some((suspicion, is_first)) = next else {
            return Change::Nothing;
        };
        let holds_for_all = self.suspicions.confirm(&suspicion, now)
            || witness.alone && suspicion.is_enough_alone()
            || is_first && kind != SuspicionKind::Dead && self.is_on_probe(account, model, now);
        self.suspicions.put(suspicion, now);
        if holds_for_all {
            self.suspicions.strike_all(&entry, kind, now);
            self.put(entry.clone(), now);
            Change::Out(entry)
        } else if kind == SuspicionKind::Dead {
            Change::Suspected
        } else {
            Change::Noted
        }
    }

    /// Returns true if `new` would be no news to anybody who has this board.
    fn says(&self, account: &Account, new: &Entry, now: u64) -> bool {
        let mut about = self.of(&account.id).iter();
        let old = about.find(|old| old.is_beside(new));
        old.is_some_and(|old| {
            let stands =
                old.generation.is_none() && old.cooldown().stands_against(&new.cooldown(), now);
            let is_guess = new.guessed && new.generation.is_none();
            let refused = is_guess && old.refuses(account, now);
            stands || refused || old.says_the_same_as(new, now)
        })
    }

    /// Returns true if the account is out for every key until a request has tried.
    fn is_on_probe(&self, account: &Account, model: Option<&str>, now: u64) -> bool {
        let mut about = self.of(&account.id).iter();
        about.any(|entry| entry.is_about(account, model) && entry.guessed && entry.until <= now)
    }

    /// Returns true if there is something about `account` that a good answer to a request of `key` for `model`
    /// takes down.
    pub fn has_guess(&self, account: &Account, key: Striker, model: Option<&str>) -> bool {
        let mut suspicions = self.suspicions.of(&account.id);
        self.has_guessed_entry(account, model)
            || suspicions.any(|one| one.key == key && one.scope.covers(model))
    }

    /// Returns true if a guess keeps requests of `key` for `model` away from `account`, or lets one try: the
    /// beginning of a good answer takes it down. A strike waits for the good end of one.
    pub fn is_guessed_out(&self, account: &Account, key: Striker, model: Option<&str>) -> bool {
        let mut suspicions = self.suspicions.of(&account.id);
        self.has_guessed_entry(account, model)
            || suspicions.any(|one| one.key == key && one.until > 0 && one.scope.covers(model))
    }

    fn has_guessed_entry(&self, account: &Account, model: Option<&str>) -> bool {
        let mut about = self.of(&account.id).iter();
        about.any(|entry| entry.guessed && entry.scope.covers(model))
    }

    /// Takes the probe of a half-open account for a request of `key`: until it is answered or given
    /// back, or for [`PROBE_MS`], the account is out for everybody else. A key that struck tries for
    /// itself, and keeps itself alone away.
    pub fn probe(&mut self, account: &Account, key: Striker, model: Option<&str>, now: u64) {
        let mut struck = false;
        for suspicion in self.suspicions.all_mut() {
            if suspicion.is_about(account, key, model) && suspicion.is_alive(now) {
                suspicion.probe(now);
                struck = true;
            }
        }
        if struck {
            return;
        }
        for entry in &mut self.entries {
            if entry.is_half_open(now) && entry.is_about(account, model) {
                entry.probe_until = now.saturating_add(PROBE_MS);
            }
        }
    }

    /// Gives back the probe of `account` that a request of `key` took at `taken_at`: it went away
    /// before there was an answer. Returns true if it was still out.
    pub fn give_back(&mut self, account: &Id, key: Striker, taken_at: u64) -> bool {
        let until = taken_at.saturating_add(PROBE_MS);
        let entries = self.entries.iter_mut();
        let entries = entries.filter(|entry| entry.account == *account);
        let suspicions = self.suspicions.all_mut();
        let suspicions = suspicions.filter(|one| one.account == *account && one.key == key);
        let probes = entries
            .map(|entry| &mut entry.probe_until)
            .chain(suspicions.map(|one| &mut one.probe_until));
        let mut given = false;
        for probe_until in probes.filter(|probe_until| **probe_until == until) {
            *probe_until = 0;
            given = true;
        }
        given
    }

    /// Takes what the refresher knows of an account at `now`: later knowledge wins, what was
    /// learned before the last reset is forgotten, so are deaths from before the account was found
    /// alive, and what the refresher had and has no more is over. Returns true if the board changed.
    pub fn take(&mut self, health: &Health, now: u64) -> bool {
        let id = &health.id;
        let is_old = |at: u64| health.reset_at > 0 && (at <= health.reset_at || at > now);
        let is_disproved = |dead: bool, at: u64| dead && at <= health.alive_at;
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let gone = || {
                let has = |cooldown: &Cooldown| cooldown.scope == entry.scope;
                entry.told && !health.entries.iter().any(has)
            };
            let over = is_old(entry.at) || is_disproved(entry.dead, entry.at) || gone();
            entry.account != *id || !over
        });
        let forgotten = self.suspicions.forget(|one| {
            let over = is_old(one.at) || is_disproved(one.kind == SuspicionKind::Dead, one.at);
            one.account == *id && over
        });
        let mut changed = self.entries.len() != before || forgotten;
        let news = health.entries.iter().take(MAX_ACCOUNT_ENTRIES);
        for cooldown in news.filter(|cooldown| !cooldown.has_ended(now) && !is_old(cooldown.at)) {
            let theirs = Entry {
                told: true,
                ..Entry::of(id, cooldown.clone())
            };
            let place = self.entries.iter_mut();
            match place.into_iter().find(|old| old.is_beside(&theirs)) {
                Some(ours) if ours.cooldown() == *cooldown => {
                    changed |= !ours.told;
                    ours.told = true;
                }
                // Of two that were learned at the same time the refresher's is everybody's.
                Some(ours)
                    if ours.at == cooldown.at || ours.cooldown().yields_to(cooldown, now) =>
                {
                    self.put(theirs, now);
                    changed = true;
                }
                Some(_) => {}
                None => {
                    self.put(theirs, now);
                    changed = true;
                }
            }
        }
        changed
    }

    /// Returns the entries that keep requests away at `now`, were learned before `before`, and are not known
    /// to have reached the refresher.
    pub fn untold(&self, before: u64, now: u64) -> impl Iterator<Item = &Entry> {
        let untold = self.entries.iter().filter(|entry| !entry.told);
        untold.filter(move |entry| {
            (entry.is_limit() || entry.dead) && entry.until > now && entry.at < before
        })
    }

    /// Takes down what was guessed about `account`, for every key and for `key`: it has just answered
    /// a request of that key for `model`. What the platform itself said stays, as answers to older
    /// requests may come late: a time, and that this credential, or a later one, is refused.
    fn clear(&mut self, account: &Account, key: Striker, model: Option<&str>, now: u64) -> Change {
        let entries = self.entries.len();
        let mut change = Change::Nothing;
        self.entries.retain(|entry| {
            let is_guess = entry.guessed && !entry.refuses(account, now);
            let over = entry.account == account.id && is_guess && entry.scope.covers(model);
            if over && entry.is_limit() {
                change = Change::Recovered;
            }
            !over
        });
        let forgotten = self.suspicions.forget(|one| {
            let is_own = one.account == account.id && one.key == key && one.scope.covers(model);
            let over = is_own && !one.refuses(account, now);
            if over && one.kind == SuspicionKind::Dead {
                change = Change::Recovered;
            }
            over
        });
        if (forgotten || self.entries.len() < entries) && change == Change::Nothing {
            change = Change::Noted;
        }
        change
    }

    fn put(&mut self, entry: Entry, now: u64) {
        self.entries.retain(|old| {
            let ended = old.until <= now && !old.guessed;
            !old.is_beside(&entry) && !ended
        });
        let is_crowded = self.of(&entry.account).len() >= MAX_ACCOUNT_ENTRIES;
        if is_crowded || self.entries.len() >= MAX_ENTRIES {
            let may_go = |old: &Entry| {
                let is_models = matches!(old.scope, Scope::Model(_));
                !is_crowded || (old.account == entry.account && is_models)
            };
            let olds = self.entries.iter().enumerate();
            let first = olds
                .filter(|(_, old)| may_go(old))
                .min_by_key(|(_, old)| old.until);
            if let Some((index, _)) = first {
                self.entries.remove(index);
            }
        }
        self.entries.insert(self.start_of(&entry.account), entry);
    }
}

impl<'a> From<&'a Entry> for Why<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            reason: &entry.reason,
            back_at: entry.back_at(),
            awaits_credential: entry.awaits_credential(),
            is_told: !entry.guessed,
            is_dead: entry.dead,
        }
    }
}

impl<'a> From<&'a Suspicion> for Why<'a> {
    fn from(suspicion: &'a Suspicion) -> Self {
        Self {
            reason: &suspicion.reason,
            back_at: suspicion.back_at(),
            awaits_credential: suspicion.awaits_credential(),
            is_told: false,
            is_dead: suspicion.kind == SuspicionKind::Dead,
        }
    }
}

/// Makes the entry by which `verdict` keeps requests away, and tells the kind of suspicion that it is first; none of
/// what the platform itself set an end to. None at all where it says nothing against the account.
fn entry_of(
    account: &Account,
    verdict: &Verdict,
    now: u64,
) -> Option<(Option<SuspicionKind>, Entry)> {
    Some(match verdict {
        Verdict::Fine | Verdict::CallersFault => return None,
        Verdict::CoolingDown {
            scope,
            until,
            guessed,
            reason,
        } => {
            let cooldown = Cooldown {
                scope: scope.clone(),
                until: *until,
                guessed: *guessed,
                reason: reason.clone(),
                at: now,
            };
            let kind = guessed.then_some(SuspicionKind::Limit);
            (kind, Entry::of(&account.id, cooldown))
        }
        Verdict::CredentialExpired => {
            let reason = Reason::known("credential_expired");
            let entry = Entry {
                generation: Some(account.generation),
                ..Entry::guess(account, now, REFRESH_WAIT_MS, reason)
            };
            (Some(SuspicionKind::Expired), entry)
        }
        Verdict::Dead { reason } => {
            let entry = Entry {
                generation: Some(account.generation),
                dead: true,
                ..Entry::guess(account, now, DEAD_MS, reason.clone())
            };
            (Some(SuspicionKind::Dead), entry)
        }
        Verdict::PlatformTrouble { until } => {
            let reason = Reason::known("platform_trouble");
            let entry = Entry {
                until: *until,
                ..Entry::guess(account, now, 0, reason)
            };
            (Some(SuspicionKind::Trouble), entry)
        }
    })
}

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests;
