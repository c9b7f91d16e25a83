//! Which accounts are out, and until when: what every worker of an Envoy knows at once.
//!
//! The board lies in shared data. An attempt that gets a verdict posts it there; every VM reads
//! the board when the head says that it moved, and the gate passes over what is out. An entry
//! ends by itself at its time. Where that time was only a guess the account is half-open then:
//! the request that finds it so takes a [`Board::probe`], which keeps the others away for a
//! moment, and a good answer takes the entry down.

pub mod quota;

use serde::{Deserialize, Serialize};

use self::quota::{Outlook, Quotas};
use crate::{
    id::Id,
    snapshot::Account,
    verdict::{Reason, Scope, Verdict},
};

/// The most entries. A new one takes the place of the one that ends first.
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

/// An account that is out, or about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The account.
    pub account: Id,
    /// For all of it or for one model.
    pub scope: Scope,
    /// The credential that the verdict is about, where another would change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The end, in Unix milliseconds; 0 where the account is not out yet.
    pub until: u64,
    /// Whether the platform did not say when.
    pub guessed: bool,
    /// Why.
    pub reason: Reason,
    /// How many answers have blamed the platform since `struck_at`, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strikes: u32,
    /// When the first of those came.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub struck_at: u64,
}

fn is_zero<T: PartialEq + Default>(number: &T) -> bool {
    *number == T::default()
}

/// The accounts that are out, and beside them what is known of every account's quota.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Board {
    /// At most one for an account and scope.
    entries: Vec<Entry>,
    quotas: Quotas,
}

/// How an account stands.
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
        Self {
            entries: serde_json::from_slice(bytes).unwrap_or_default(),
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

    /// What is known of the quotas.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The quotas, to be brought up to date.
    pub fn quotas_mut(&mut self) -> &mut Quotas {
        &mut self.quotas
    }

    /// How much of its quota an account has left at `now`.
    pub fn outlook(&self, account: &Id, now: u64) -> Outlook {
        let known = self.quotas.of(account);
        known.map_or_else(Outlook::default, |known| known.outlook(now))
    }

    /// Whether nothing is out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How `account` stands at `now` for a request for `model`.
    pub fn standing(&self, account: &Account, model: Option<&str>, now: u64) -> Standing<'_> {
        let mut half_open = None;
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.is_about(account, model))
        {
            if now < entry.until {
                return Standing::Out(entry);
            }
            if entry.guessed && entry.until > 0 {
                half_open = Some(entry);
            }
        }
        half_open.map_or(Standing::Free, Standing::HalfOpen)
    }

    /// Posts what `verdict` says about `account`; whether the board changed.
    pub fn post(&mut self, account: &Account, verdict: &Verdict, now: u64) -> bool {
        let entry = match verdict {
            Verdict::Fine => return self.clear(account, None),
            Verdict::CallersFault => return false,
            Verdict::CoolingDown {
                scope,
                until,
                guessed,
                reason,
            } => Entry {
                account: account.id.clone(),
                scope: scope.clone(),
                generation: None,
                until: *until,
                guessed: *guessed,
                reason: reason.clone(),
                strikes: 0,
                struck_at: 0,
            },
            Verdict::CredentialExpired => Entry {
                generation: Some(account.generation),
                ..Entry::guess(account, now, REFRESH_WAIT_MS, "credential_expired")
            },
            Verdict::Dead { reason } => Entry {
                reason: reason.clone(),
                ..Entry::guess(account, now, DEAD_MS, "dead")
            },
            Verdict::PlatformTrouble { until } => self.strike(account, *until, now),
        };
        // A late answer to an older request does not shorten what the platform itself said.
        let stands = self.entries.iter().any(|old| {
            let same = old.account == entry.account && old.scope == entry.scope;
            same && !old.guessed && old.until > now.max(entry.until)
        });
        if !stands {
            self.put(entry, now);
        }
        !stands
    }

    /// Whether there is something about `account` that a good answer to a request for `model`
    /// takes down.
    pub fn has_guess(&self, account: &Account, model: Option<&str>) -> bool {
        let mut guesses = self.entries.iter().filter(|entry| entry.guessed);
        guesses.any(|entry| entry.account == account.id && entry.scope.covers(model))
    }

    /// Takes the probe of a half-open account: until it is answered, or for [`PROBE_MS`], the
    /// account is out for everybody else.
    pub fn probe(&mut self, account: &Account, model: Option<&str>, now: u64) {
        let until = now.saturating_add(PROBE_MS);
        for entry in &mut self.entries {
            if entry.guessed && entry.until <= now && entry.is_about(account, model) {
                entry.until = until;
            }
        }
    }

    /// The entry after one more answer that blames the platform.
    fn strike(&self, account: &Account, until: u64, now: u64) -> Entry {
        let earlier = self.entries.iter().find(|entry| {
            let in_time = now.saturating_sub(entry.struck_at) < STRIKES_MS;
            entry.strikes > 0 && in_time && entry.is_about(account, None)
        });
        let (struck_at, before) =
            earlier.map_or((now, 0), |entry| (entry.struck_at, entry.strikes));
        let strikes = before.saturating_add(1);
        let was_out = self
            .entries
            .iter()
            .any(|entry| entry.guessed && entry.until > 0 && entry.is_about(account, None));
        Entry {
            // One that was out and fails its probe is out again.
            until: if strikes < STRIKES && !was_out {
                0
            } else {
                until
            },
            strikes,
            struck_at,
            ..Entry::guess(account, now, 0, "platform_trouble")
        }
    }

    /// Takes down what was guessed about `account`: it has just answered a request for `model`.
    /// What the platform itself set a time for stays, as answers to older requests may come late.
    /// Whether the board changed.
    pub fn clear(&mut self, account: &Account, model: Option<&str>) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| {
            entry.account != account.id || !entry.guessed || !entry.scope.covers(model)
        });
        self.entries.len() != before
    }

    fn put(&mut self, entry: Entry, now: u64) {
        self.entries.retain(|old| {
            let replaced = old.account == entry.account && old.scope == entry.scope;
            let ended = old.until <= now && !old.guessed;
            let forgiven = old.until == 0 && now.saturating_sub(old.struck_at) >= STRIKES_MS;
            !replaced && !ended && !forgiven
        });
        if self.entries.len() >= MAX_ENTRIES {
            let first = self
                .entries
                .iter()
                .enumerate()
                .min_by_key(|(_, old)| old.until);
            if let Some((index, _)) = first {
                self.entries.swap_remove(index);
            }
        }
        self.entries.push(entry);
    }
}

// === impl Entry ===

impl Entry {
    fn guess(account: &Account, now: u64, lasts: u64, reason: &'static str) -> Self {
        Self {
            account: account.id.clone(),
            scope: Scope::Account,
            generation: None,
            until: now.saturating_add(lasts),
            guessed: true,
            reason: Reason::known(reason),
            strikes: 0,
            struck_at: 0,
        }
    }

    fn is_about(&self, account: &Account, model: Option<&str>) -> bool {
        let scope_fits = self.scope.covers(model);
        let generation_fits = self.generation.is_none_or(|of| of == account.generation);
        self.account == account.id && scope_fits && generation_fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture;

    fn limited(until: u64, guessed: bool) -> Verdict {
        Verdict::CoolingDown {
            scope: Scope::Account,
            until,
            guessed,
            reason: Reason::rate_limited(),
        }
    }

    fn board_of(verdict: &Verdict) -> (Board, Account) {
        let account = fixture::account("acc_1", "codex");
        let mut board = Board::default();
        assert!(board.post(&account, verdict, 1_000));
        (Board::decode(&board.encode()), account)
    }

    #[test]
    fn a_time_from_the_platform_ends_by_itself() {
        let (mut board, account) = board_of(&limited(5_000, false));
        assert!(matches!(
            board.standing(&account, None, 4_999),
            Standing::Out(_)
        ));
        assert_eq!(board.standing(&account, None, 5_000), Standing::Free);
        assert!(
            !board.post(&account, &Verdict::Fine, 2_000),
            "a late answer"
        );
        assert!(matches!(
            board.standing(&account, None, 2_000),
            Standing::Out(_)
        ));
        let other = fixture::account("acc_2", "codex");
        assert_eq!(board.standing(&other, None, 2_000), Standing::Free);
    }

    #[test]
    fn a_guess_is_half_open_for_one_probe_at_a_time() {
        let (mut board, account) = board_of(&limited(5_000, true));
        let standing = board.standing(&account, None, 5_000);
        assert!(matches!(standing, Standing::HalfOpen(_)));
        board.probe(&account, None, 5_000);
        assert!(matches!(
            board.standing(&account, None, 5_001),
            Standing::Out(_)
        ));
        let later = 5_000 + PROBE_MS;
        assert!(matches!(
            board.standing(&account, None, later),
            Standing::HalfOpen(_)
        ));
        assert!(board.post(&account, &Verdict::Fine, later));
        assert_eq!(board.standing(&account, None, later), Standing::Free);
    }

    #[test]
    fn a_new_credential_ends_the_wait_for_it() {
        let (board, mut account) = board_of(&Verdict::CredentialExpired);
        assert!(matches!(
            board.standing(&account, None, 1_001),
            Standing::Out(_)
        ));
        account.generation += 1;
        assert_eq!(board.standing(&account, None, 1_001), Standing::Free);
    }

    #[test]
    fn trouble_takes_an_account_out_at_the_third_time() {
        let trouble = Verdict::PlatformTrouble { until: 9_000 };
        let (mut board, account) = board_of(&trouble);
        assert_eq!(board.standing(&account, None, 1_000), Standing::Free);
        board.post(&account, &trouble, 1_001);
        assert_eq!(board.standing(&account, None, 1_001), Standing::Free);
        board.post(&account, &trouble, 1_002);
        assert!(matches!(
            board.standing(&account, None, 1_002),
            Standing::Out(_)
        ));
        assert!(matches!(
            board.standing(&account, None, 9_000),
            Standing::HalfOpen(_)
        ));

        let (mut board, account) = board_of(&trouble);
        board.post(&account, &trouble, 1_001);
        assert!(
            board.post(&account, &Verdict::Fine, 1_002),
            "a good answer wipes them out"
        );
        let late = 1_002 + STRIKES_MS;
        board.post(&account, &trouble, 1_003);
        board.post(&account, &trouble, 1_004);
        board.post(&account, &trouble, late + 2);
        assert_eq!(board.standing(&account, None, late + 2), Standing::Free);
    }

    #[test]
    fn a_failed_probe_and_a_late_answer_set_nobody_free() {
        let (mut board, account) = board_of(&limited(60_000, true));
        board.probe(&account, None, 60_000);
        let trouble = Verdict::PlatformTrouble { until: 66_000 };
        board.post(&account, &trouble, 61_000);
        assert!(matches!(
            board.standing(&account, None, 65_999),
            Standing::Out(_)
        ));

        for late in [
            Verdict::PlatformTrouble { until: 2_000 },
            Verdict::CredentialExpired,
            limited(3_000, true),
            Verdict::CallersFault,
        ] {
            let (mut board, account) = board_of(&limited(3_600_000, false));
            assert!(!board.post(&account, &late, 1_500), "{late:?}");
            assert!(matches!(
                board.standing(&account, None, 3_599_999),
                Standing::Out(_)
            ));
        }
    }

    #[test]
    fn a_model_cools_down_alone() {
        let scope = Scope::Model(crate::header::HeaderText::try_from("opus").unwrap());
        let (board, account) = board_of(&Verdict::CoolingDown {
            scope,
            until: 5_000,
            guessed: false,
            reason: Reason::rate_limited(),
        });
        assert!(matches!(
            board.standing(&account, Some("opus"), 2_000),
            Standing::Out(_)
        ));
        assert_eq!(
            board.standing(&account, Some("haiku"), 2_000),
            Standing::Free
        );
        assert_eq!(board.standing(&account, None, 2_000), Standing::Free);
    }

    #[test]
    fn the_board_is_bounded() {
        let mut board = Board::default();
        for n in 0..2 * MAX_ENTRIES {
            let account = fixture::account(&format!("acc_{n}"), "codex");
            board.post(&account, &limited(10_000 + n as u64, false), 0);
        }
        assert_eq!(board.entries.len(), MAX_ENTRIES);
        let last = fixture::account(&format!("acc_{}", 2 * MAX_ENTRIES - 1), "codex");
        assert!(matches!(board.standing(&last, None, 0), Standing::Out(_)));
    }
}
