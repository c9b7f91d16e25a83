//! The witness and the verdicts of tests.

use super::*;

/// The client key that tests ask with.
pub(crate) fn key() -> Striker {
    Striker::of(&Id::try_from("key_1").unwrap())
}

/// Makes a witness of that key, where there is no other.
pub(crate) fn alone() -> Witness {
    Witness {
        key: key(),
        alone: true,
    }
}

impl Board {
    /// Posts what `verdict` says about `account`, as the one key that there is met it.
    /// Returns true if the board changed.
    pub(crate) fn post(&mut self, account: &Account, verdict: &Verdict, now: u64) -> bool {
        self.learn(account, alone(), None, verdict, now) != Change::Nothing
    }
}
