//! The requests that are under way with each account, as one worker of Envoy sees them.

use std::hash::BuildHasherDefault;

use crate::{id::Id, known::Known};

/// The counts. An account without requests is not in it, so its size is bounded by Envoy's
/// requests.
#[derive(Debug, Default)]
pub struct InFlight(Known<Id, u32>);

// === impl InFlight ===

impl InFlight {
    /// Makes counts of zero.
    pub const fn new() -> Self {
        Self(Known::with_hasher(BuildHasherDefault::new()))
    }

    /// The requests that are under way with `account`.
    pub fn count(&self, account: &Id) -> u32 {
        self.0.get(account).copied().unwrap_or_default()
    }

    /// Counts a request that begins.
    pub fn began(&mut self, account: &Id) {
        let count = self.0.entry(account.clone()).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts a request off that has ended.
    pub fn ended(&mut self, account: &Id) {
        if let Some(count) = self.0.get_mut(account) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_leaves_nothing() {
        let (mut counts, id) = (InFlight::new(), Id::try_from("acc_1").unwrap());
        counts.began(&id);
        counts.began(&id);
        assert_eq!(counts.count(&id), 2);
        for _ in 0..3 {
            counts.ended(&id);
        }
        assert_eq!(counts.count(&id), 0);
        assert!(counts.0.is_empty());
    }
}
