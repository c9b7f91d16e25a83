//! The pace at which requests reach an account that did not choose it themselves: those that another account
//! sent away, and those that waited for a limit to end. Without it all of them would be there at once, when a
//! window is spent or a limit ends, and run into the next limit together.

use std::collections::HashMap;

use crate::{deadline::Deadline, id::Id};

/// The requests that one VM sends to an account at once.
pub(crate) const AT_ONCE: u64 = 4;

/// The milliseconds after which it sends one more.
pub(crate) const EACH_MS: u64 = 50;

/// The furthest that the last one is ahead, in milliseconds.
const MOST_AHEAD_MS: u64 = AT_ONCE * EACH_MS;

/// The number of accounts from which on those are forgotten that nothing was sent to of late.
const MANY: usize = 64;

/// The accounts that such requests were sent to, each with the time by which the last of them would have come
/// had they come evenly, in Unix milliseconds.
#[derive(Debug, Default)]
pub(super) struct Pace(HashMap<Id, u64>);

// === impl Pace ===

impl Pace {
    /// Returns true if one more may go to `account` at `now`.
    pub(super) fn has_room(&self, account: &Id, now: u64) -> bool {
        self.ahead(account, now) <= EACH_MS.saturating_mul(AT_ONCE.saturating_sub(1))
    }

    /// Notes that one more goes to `account` at `now`.
    pub(super) fn take(&mut self, account: &Id, now: u64) {
        if self.0.len() >= MANY {
            self.0.retain(|_, even| *even > now);
        }
        let ahead = self.ahead(account, now);
        let even = now.saturating_add(ahead).saturating_add(EACH_MS);
        let most = now.saturating_add(MOST_AHEAD_MS);
        self.0.insert(account.clone(), even.min(most));
    }

    fn ahead(&self, account: &Id, now: u64) -> u64 {
        let even = self.0.get(account).copied().unwrap_or_default();
        match Deadline::ending(even, MOST_AHEAD_MS).is_due(now) {
            true => 0,
            false => even.saturating_sub(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account() -> Id {
        Id::try_from("acc_1").unwrap()
    }

    #[test]
    fn a_few_go_at_once_and_then_one_after_the_other() {
        let (mut pace, account) = (Pace::default(), account());
        let mut gone = Vec::new();
        for now in (1_000..2_000).step_by(10) {
            while pace.has_room(&account, now) {
                pace.take(&account, now);
                gone.push(now);
            }
        }
        assert_eq!(gone[..6], [1_000, 1_000, 1_000, 1_000, 1_050, 1_100]);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nobody_up() {
        let (mut pace, account) = (Pace::default(), account());
        for _ in 0..9 {
            pace.take(&account, 1_000_000);
        }
        assert!(!pace.has_room(&account, 1_000_000));
        assert!(pace.has_room(&account, 1_000));
    }

    #[test]
    fn accounts_are_forgotten() {
        let mut pace = Pace::default();
        for n in 0..1_000_u64 {
            pace.take(&Id::try_from(format!("acc_{n}")).unwrap(), n * 1_000);
        }
        assert!(pace.0.len() <= MANY);
    }

    proptest! {
        /// However they come, in no span do more go than go at once and one for each step of it.
        #[test]
        fn the_pace_is_kept(steps in prop::collection::vec(0_u64..120, 1..400)) {
            let (mut pace, account, mut now) = (Pace::default(), account(), 1_000);
            let mut gone = Vec::new();
            for step in steps {
                now += step;
                if pace.has_room(&account, now) {
                    pace.take(&account, now);
                    gone.push(now);
                }
            }
            for (first, from) in gone.iter().enumerate() {
                for (last, to) in gone.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    prop_assert!(count <= AT_ONCE + (to - from) / EACH_MS + 1);
                }
            }
        }
    }
}
