//! The accounts at which sessions go on, after another one did not have what they go on from.
//!
//! What a conversation goes on from may be encrypted for one account, with no id by which that could
//! be known: then the account that takes it is found by trying. Each VM learns that once a session.

use std::collections::{HashMap, VecDeque};

use crate::id::Id;

/// The most sessions that are remembered. Where they are more, the first one makes room of the client key that
/// has most: none forgets another one's sessions, however many it makes.
const MAX_SESSIONS: usize = 4_096;

/// The accounts of sessions, by hashes.
#[derive(Debug, Default)]
pub(super) struct Preferences {
    accounts: HashMap<u64, u64>,
    /// The sessions of each client key, in the order in which they were noted.
    order: HashMap<Id, VecDeque<u64>>,
}

// === impl Preferences ===

impl Preferences {
    /// The account at which `session` goes on, where that was learned.
    pub(super) fn of(&self, session: u64) -> Option<u64> {
        self.accounts.get(&session).copied()
    }

    /// Notes that `session` of `key` goes on at `account`.
    pub(super) fn note(&mut self, key: &Id, session: u64, account: u64) {
        if self.accounts.insert(session, account).is_some() {
            return;
        }
        self.order
            .entry(key.clone())
            .or_default()
            .push_back(session);
        if self.accounts.len() > MAX_SESSIONS {
            self.make_room();
        }
    }

    /// Forgets the first session of the key that has most.
    fn make_room(&mut self) {
        let most = self.order.iter().max_by_key(|(_, own)| own.len());
        let Some(key) = most.map(|(key, _)| key.clone()) else {
            return;
        };
        let Some(own) = self.order.get_mut(&key) else {
            return;
        };
        if let Some(first) = own.pop_front() {
            self.accounts.remove(&first);
        }
        if own.is_empty() {
            self.order.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = MAX_SESSIONS as u64;

    fn key(n: u64) -> Id {
        Id::try_from(format!("key_{n}")).unwrap()
    }

    #[test]
    fn the_last_account_counts_and_the_first_session_makes_room() {
        let mut preferences = Preferences::default();
        preferences.note(&key(1), 0, 1);
        preferences.note(&key(1), 0, 2);
        assert_eq!(preferences.of(0), Some(2));
        for session in 1..=MOST {
            preferences.note(&key(1), session, 3);
        }
        assert_eq!((preferences.of(0), preferences.of(1)), (None, Some(3)));
        assert_eq!(preferences.accounts.len(), MAX_SESSIONS);
    }

    #[test]
    fn a_key_that_makes_many_sessions_costs_another_one_none() {
        let mut preferences = Preferences::default();
        for session in 0..9 {
            preferences.note(&key(1), session, 1);
        }
        for session in 100..100 + 3 * MOST {
            preferences.note(&key(2), session, 2);
        }
        assert!((0..9).all(|session| preferences.of(session) == Some(1)));
        // As many keys as there are places: each has one.
        for n in 0..2 * MOST {
            preferences.note(&key(10 + n), 1_000_000 + n, 3);
        }
        assert_eq!(preferences.accounts.len(), MAX_SESSIONS);
        let noted: usize = preferences.order.values().map(VecDeque::len).sum();
        assert_eq!(noted, MAX_SESSIONS);
        assert!(preferences.order.len() <= MAX_SESSIONS);
    }
}
