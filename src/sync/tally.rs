//! What a VM says of how many requests it has begun and told of, so that those are counted that
//! die with it.
//!
//! A request has begun when the gate lets it in, and is told of when the refresher has its record.
//! Whatever a VM that is no more had begun and not told of is lost.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::id::{Id, is_hex_name};

/// No number of a tally is larger: far more than any VM lives to count, and few enough that sums
/// over many VMs fit everywhere.
pub const MAX_NUMBER: u64 = 1 << 48;

/// A VM, told from every other VM of every Envoy, also from the one in whose place it was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Names the Envoy process: 32 hex digits.
    pub instance: String,
    /// The VM's number there.
    pub vm: u64,
    /// The node id that the operator gave that Envoy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Id>,
}

/// How many requests a VM has begun, and what became of those that it has no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of which there is or will be a record.
    pub begun: u64,
    /// Those whose records the refresher has. In a batch, those of the batch are among them: it
    /// has them once it takes the batch.
    pub told: u64,
    /// Those whose records were dropped.
    pub dropped: u64,
}

/// What a VM says: a batch of records has one, and where there is none to send it goes alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Who says so.
    #[serde(flatten)]
    pub origin: Origin,
    /// Larger than that of all its tallies before.
    pub number: u64,
    /// How many.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Counts the requests that are under way.
#[derive(Debug, Default)]
pub struct Begun(Rc<()>);

/// A request that is under way: until this is dropped. Where it takes another shape it may be
/// counted twice within one callback; nobody looks meanwhile.
#[derive(Debug)]
#[must_use]
pub struct UnderWay {
    _counted: Rc<()>,
}

// === impl Counts ===

impl Counts {
    /// Requests whose records the refresher does not have and may yet get.
    pub fn pending(&self) -> u64 {
        let settled = self.told.saturating_add(self.dropped);
        self.begun.saturating_sub(settled)
    }
}

// === impl Tally ===

impl Tally {
    /// Whether it is one that a VM says.
    pub fn is_sound(&self) -> bool {
        let Counts {
            begun,
            told,
            dropped,
        } = self.counts;
        let numbers = [self.origin.vm, self.number, begun, told, dropped];
        is_hex_name(&self.origin.instance) && numbers.iter().all(|number| *number <= MAX_NUMBER)
    }
}

// === impl Begun ===

impl Begun {
    /// One more is under way.
    pub fn one(&self) -> UnderWay {
        UnderWay {
            _counted: Rc::clone(&self.0),
        }
    }

    /// How many are.
    pub fn under_way(&self) -> u64 {
        let own = 1;
        let count = Rc::strong_count(&self.0).saturating_sub(own);
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_reads_as_documented() {
        let text = r#"{"instance":"4e07408562bedb8b60ce05c1decfe3ad","vm":3,"node":"latchkey","number":17,"begun":1204,"told":1190,"dropped":0}"#;
        let page = include_str!("../../ARCHITECTURE.md");
        assert!(page.contains(&format!(r#""tally":{text}"#)), "{text}");
        let tally: Tally = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&tally).unwrap(), text);
        assert!(tally.is_sound());
        assert_eq!(tally.counts.pending(), 14);
        for (name, odd) in [
            ("instance", "\"latchkey\""),
            ("instance", "\"4e07408562bedb8b60ce05c1decfe3a\\n\""),
            ("begun", "281474976710657"),
        ] {
            let mut odd_one: serde_json::Value = serde_json::from_str(text).unwrap();
            odd_one[name] = serde_json::from_str(odd).unwrap();
            let odd_one: Tally = serde_json::from_value(odd_one).unwrap();
            assert!(!odd_one.is_sound(), "{odd_one:?}");
        }
    }

    #[test]
    fn a_request_is_under_way_until_its_token_is_dropped() {
        let begun = Begun::default();
        let (one, other) = (begun.one(), begun.one());
        assert_eq!(begun.under_way(), 2);
        drop(one);
        assert_eq!(begun.under_way(), 1);
        drop(other);
        assert_eq!(begun.under_way(), 0);
    }
}
