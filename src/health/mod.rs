//! The board: which accounts are out, until when, and why. Every worker of an Envoy knows it at once.
//!
//! The board lies in shared data. An attempt posts its verdict there. Every VM reads the board when the
//! head says that it moved. The gate passes over what is out.
//!
//! - An entry ends at its time. Where that time was a guess, the account is then half-open: one request
//!   at a time is its [probe](Board::probe). A good answer removes the entry. A probe whose caller
//!   leaves before an answer is given back.
//! - Trouble of the platform is a strike. Three strikes within 10 s take the account out. A request
//!   strikes only the first account that it was tried on. Strikes end with the good end of an answer.
//! - A verdict that changes something for requests is reported: an account is out that was not, its end
//!   moved by a tenth of the time left (1 s to 60 s), it is dead, or a guess was removed. Strikes that
//!   took nobody out, and waits for a refresh, stay in their Envoy.
//! - Envoys and the refresher's store merge by one rule ([`Board::take`]), so they agree in the end: the
//!   later news wins, but a later guess or a shorter end does not shorten what the platform itself set.
//!   Every 30 s the polling VM repeats what the refresher has not taken, so a crash loses nothing.
//! - The refresher deletes what has ended, a guess 10 minutes after its end. Until then a new Envoy
//!   sends such an account one request at a time, as the others do.
//! - `dead` of the current generation removes the account from the snapshot, until an operator enables
//!   or resets it, or it gets a new credential. `accounts reset` makes every Envoy forget what it
//!   learned before, strikes included.
//!
//! Quota windows are read from answer headers: of failures always, of good answers once a second in each
//! VM. A change of a whole percent, of 60 s in the reset, or from or to exhausted is kept in shared data
//! and reported at most once in 10 s an account. A window past its reset is full. A window without a
//! reset is forgotten after an hour.

mod entry;
pub mod quota;

pub use self::entry::Entry;
use self::quota::{Outlook, Quotas};
use crate::{
    id::Id,
    snapshot::{Account, Cooldown, Health},
    verdict::{Reason, Scope, Verdict},
};

/// The most entries. A new one takes the place of the one that ends first; at
/// [`MAX_ACCOUNT_ENTRIES`] of one account, of its models' first.
pub const MAX_ENTRIES: usize = 1024;

/// How long one probe keeps other requests away from a half-open account, in milliseconds: the
/// time in which most answers begin.
pub const PROBE_MS: u64 = 10_000;

/// How long an account whose credential was refused waits for another one, in milliseconds. The
/// new one ends the wait at once, as its generation is another.
pub const REFRESH_WAIT_MS: u64 = 60_000;

/// How long an account that is of no use is left alone before one request may try, in
/// milliseconds. The refresher takes it out of the snapshot much sooner.
pub const DEAD_MS: u64 = 3_600_000;

/// How many answers in a row that blame the platform take an account out: one may be the work of
/// a single odd request.
pub const STRIKES: u32 = 3;

/// The time in which they must come, in milliseconds.
pub const STRIKES_MS: u64 = 10_000;

/// The accounts that are out, and beside them what is known of every account's quota.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Board {
    /// At most one for an account and scope, by account: each request looks at several accounts.
    entries: Vec<Entry>,
    quotas: Quotas,
}

/// The changes that a verdict made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// A strike came or went, which nobody else needs to know of.
    Noted,
    /// This keeps requests away now.
    Out(Entry),
    /// A guess that kept requests away is taken down.
    Recovered,
}

/// The most entries about one account: a limit for each of its models.
pub const MAX_ACCOUNT_ENTRIES: usize = 64;

/// The standing of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It may be used.
    Free,
    /// It may be tried, by one request.
    HalfOpen(&'a Entry),
    /// It may not be used.
    Out(&'a Entry),
}

// === impl Board ===

impl Board {
    /// One with nobody on it.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            quotas: Quotas::new(),
        }
    }

    /// The board whose entries lie in `bytes`; what does not parse is an empty one, as if Envoy
    /// had just started.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut entries: Vec<Entry> = serde_json::from_slice(bytes).unwrap_or_default();
        entries.sort_by(|one, next| one.account.cmp(&next.account));
        Self {
            entries,
            quotas: Quotas::new(),
        }
    }

    /// The bytes of its entries in shared data; the quotas have keys of their own.
    pub fn encode(&self) -> Vec<u8> {
        // Ids, numbers and checked words always serialise.
        serde_json::to_vec(&self.entries).unwrap_or_default()
    }

    /// Takes the entries of another board; the quotas stay.
    pub fn take_entries(&mut self, other: Self) {
        self.entries = other.entries;
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
        self.entries.is_empty()
    }

    /// The entries about an account, whatever they say.
    fn of(&self, account: &Id) -> &[Entry] {
        let start = self.start_of(account);
        let rest = self.entries.get(start..).unwrap_or_default();
        let end = rest.partition_point(|entry| entry.account == *account);
        rest.get(..end).unwrap_or_default()
    }

    /// Where the entries about an account begin, or would.
    fn start_of(&self, account: &Id) -> usize {
        self.entries
            .partition_point(|entry| entry.account < *account)
    }

    /// Returns how `account` stands at `now` for a request for `model`.
    pub fn standing(&self, account: &Account, model: Option<&str>, now: u64) -> Standing<'_> {
        let mut half_open = None;
        let about = self.of(&account.id).iter();
        for entry in about.filter(|entry| entry.is_about(account, model)) {
            if entry.is_out(now) {
                return Standing::Out(entry);
            }
            if entry.is_half_open(now) {
                half_open = Some(entry);
            }
        }
        half_open.map_or(Standing::Free, Standing::HalfOpen)
    }

    /// Posts what `verdict` says about `account`; whether the board changed.
    pub fn post(&mut self, account: &Account, verdict: &Verdict, now: u64) -> bool {
        self.learn(account, None, verdict, now) != Change::Nothing
    }

    /// Posts what `verdict` on a request for `model` says about `account` at `now`. The same news
    /// again is none.
    pub fn learn(
        &mut self,
        account: &Account,
        model: Option<&str>,
        verdict: &Verdict,
        now: u64,
    ) -> Change {
        let entry = match verdict {
            Verdict::Fine => return self.clear(account, model, now),
            Verdict::CallersFault => return Change::Nothing,
            Verdict::CoolingDown {
                scope,
                until,
                guessed,
                reason,
            } => {
                let held = Cooldown {
                    scope: scope.clone(),
                    until: *until,
                    guessed: *guessed,
                    reason: reason.clone(),
                    at: now,
                };
                Entry::of(&account.id, held)
            }
            Verdict::CredentialExpired => {
                let reason = Reason::known("credential_expired");
                Entry {
                    generation: Some(account.generation),
                    ..Entry::guess(account, now, REFRESH_WAIT_MS, reason)
                }
            }
            Verdict::Dead { reason } => Entry {
                generation: Some(account.generation),
                dead: true,
                ..Entry::guess(account, now, DEAD_MS, reason.clone())
            },
            Verdict::PlatformTrouble { until } => self.strike(account, *until, now),
        };
        let mut about = self.of(&account.id).iter();
        let old = about.find(|old| old.is_beside(&entry));
        let known = old.is_some_and(|old| {
            let stands = old.generation.is_none() && old.held().stands_against(&entry.held(), now);
            let is_guess = entry.guessed && entry.generation.is_none();
            let refused = is_guess && old.refuses(account, now);
            stands || refused || old.says_the_same_as(&entry, now)
        });
        if known {
            return Change::Nothing;
        }
        self.put(entry.clone(), now);
        if entry.until > 0 {
            Change::Out(entry)
        } else {
            Change::Noted
        }
    }

    /// Whether there is something about `account` that a good answer to a request for `model`
    /// takes down.
    pub fn has_guess(&self, account: &Account, model: Option<&str>) -> bool {
        let mut about = self.of(&account.id).iter();
        about.any(|entry| entry.guessed && entry.scope.covers(model))
    }

    /// Whether a guess keeps requests for `model` away from `account`, or lets one try: the
    /// beginning of a good answer takes it down. A strike waits for the good end of one.
    pub fn is_guessed_out(&self, account: &Account, model: Option<&str>) -> bool {
        let mut about = self.of(&account.id).iter();
        about.any(|entry| entry.guessed && entry.until > 0 && entry.scope.covers(model))
    }

    /// Takes the probe of a half-open account: until it is answered or given back, or for
    /// [`PROBE_MS`], the account is out for everybody else.
    pub fn probe(&mut self, account: &Account, model: Option<&str>, now: u64) {
        for entry in &mut self.entries {
            if entry.is_half_open(now) && entry.is_about(account, model) {
                entry.probe_until = now.saturating_add(PROBE_MS);
            }
        }
    }

    /// Gives back the probe of `account` that was taken at `taken_at`: its request went away
    /// before there was an answer. Whether it was still out.
    pub fn give_back(&mut self, account: &Id, taken_at: u64) -> bool {
        let until = taken_at.saturating_add(PROBE_MS);
        let mut given = false;
        for entry in &mut self.entries {
            if entry.account == *account && entry.probe_until == until {
                entry.probe_until = 0;
                given = true;
            }
        }
        given
    }

    /// Takes what the refresher knows of an account at `now`: later knowledge wins, what was
    /// learned before the last reset is forgotten, and what the refresher had and has no more is
    /// over. Whether the board changed.
    pub fn take(&mut self, health: &Health, now: u64) -> bool {
        let id = &health.id;
        let is_old = |at: u64| health.reset_at > 0 && (at <= health.reset_at || at > now);
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let gone = || {
                let has = |held: &Cooldown| held.scope == entry.scope;
                entry.told && !health.entries.iter().any(has)
            };
            entry.account != *id || !(is_old(entry.at) || gone())
        });
        let mut changed = self.entries.len() != before;
        let news = health.entries.iter().take(MAX_ACCOUNT_ENTRIES);
        for held in news.filter(|held| !held.has_ended(now) && !is_old(held.at)) {
            let theirs = Entry {
                told: true,
                ..Entry::of(id, held.clone())
            };
            let place = self.entries.iter_mut();
            match place.into_iter().find(|old| old.is_beside(&theirs)) {
                Some(ours) if ours.held() == *held => {
                    changed |= !ours.told;
                    ours.told = true;
                }
                // Of two that were learned at the same time the refresher's is everybody's.
                Some(ours) if ours.at == held.at || ours.held().yields_to(held, now) => {
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

    /// What keeps requests away at `now` and was learned before `before`, and the refresher has
    /// not said that it has.
    pub fn untold(&self, before: u64, now: u64) -> impl Iterator<Item = &Entry> {
        let untold = self.entries.iter().filter(|entry| !entry.told);
        untold.filter(move |entry| {
            (entry.is_limit() || entry.dead) && entry.until > now && entry.at < before
        })
    }

    /// The entry after one more answer that blames the platform.
    fn strike(&self, account: &Account, until: u64, now: u64) -> Entry {
        let mut about = self.of(&account.id).iter();
        let earlier = about.find(|entry| {
            let in_time = now.saturating_sub(entry.struck_at) < STRIKES_MS;
            entry.strikes > 0 && in_time && entry.is_about(account, None)
        });
        let (struck_at, before) =
            earlier.map_or((now, 0), |entry| (entry.struck_at, entry.strikes));
        let strikes = before.saturating_add(1);
        let mut about = self.of(&account.id).iter();
        let was_out =
            about.any(|entry| entry.guessed && entry.until > 0 && entry.is_about(account, None));
        Entry {
            // One that was out and fails its probe is out again.
            until: if strikes < STRIKES && !was_out {
                0
            } else {
                until
            },
            strikes,
            struck_at,
            ..Entry::guess(account, now, 0, Reason::known("platform_trouble"))
        }
    }

    /// Takes down what was guessed about `account`: it has just answered a request for `model`.
    /// What the platform itself said stays, as answers to older requests may come late: a time,
    /// and that this credential, or a later one, is refused.
    fn clear(&mut self, account: &Account, model: Option<&str>, now: u64) -> Change {
        let mut change = Change::Nothing;
        self.entries.retain(|entry| {
            let is_guess = entry.guessed && !entry.refuses(account, now);
            let over = entry.account == account.id && is_guess && entry.scope.covers(model);
            if over && entry.is_limit() {
                change = Change::Recovered;
            } else if over && change == Change::Nothing {
                change = Change::Noted;
            }
            !over
        });
        change
    }

    fn put(&mut self, entry: Entry, now: u64) {
        self.entries.retain(|old| {
            let ended = old.until <= now && !old.guessed;
            let forgiven = old.until == 0 && now.saturating_sub(old.struck_at) >= STRIKES_MS;
            !old.is_beside(&entry) && !ended && !forgiven
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

#[cfg(test)]
mod tests;
