//! The accounts at which sessions go on, after another one did not have what they go on from.
//!
//! What a conversation goes on from may be encrypted for one account, with no id by which that could
//! be known: then the account that takes it is found by trying. Each VM learns that once a session.

use std::collections::{HashMap, VecDeque};

/// The most sessions that are remembered; the one that was noted first makes room.
const MAX_SESSIONS: usize = 4_096;

/// The accounts of sessions, by hashes.
#[derive(Debug, Default)]
pub(super) struct Preferences {
    accounts: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

// === impl Preferences ===

impl Preferences {
    /// The account at which `session` goes on, where that was learned.
    pub(super) fn of(&self, session: u64) -> Option<u64> {
        self.accounts.get(&session).copied()
    }

    /// Notes that `session` goes on at `account`.
    pub(super) fn note(&mut self, session: u64, account: u64) {
        if self.accounts.insert(session, account).is_some() {
            return;
        }
        self.order.push_back(session);
        if self.order.len() > MAX_SESSIONS
            && let Some(first) = self.order.pop_front()
        {
            self.accounts.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_account_counts_and_the_first_session_makes_room() {
        let mut preferences = Preferences::default();
        preferences.note(0, 1);
        preferences.note(0, 2);
        assert_eq!(preferences.of(0), Some(2));
        for session in 1..=u64::try_from(MAX_SESSIONS).unwrap() {
            preferences.note(session, 3);
        }
        assert_eq!((preferences.of(0), preferences.of(1)), (None, Some(3)));
        assert_eq!(preferences.accounts.len(), MAX_SESSIONS);
    }
}
