//! Batches of reports. A batch may come twice, when its answer was lost; it is applied once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::OnUnauthorized;
use crate::id::AccountId;

/// How many batch ids are remembered: at a batch a second, a quarter of an hour. A filter gives up on a batch sooner.
const REMEMBERED_BATCHES: usize = 1024;
/// The longest batch id, in bytes: 32 hex digits, with room to grow.
const MAX_BATCH_ID_BYTES: usize = 64;

/// What a filter has to say.
#[derive(Debug, Deserialize)]
pub struct Batch {
    batch: String,
    reports: Vec<Report>,
}

#[derive(Debug, Deserialize)]
struct Report {
    account: String,
    generation: u64,
    /// Text, because a newer filter may have more to say than is known here.
    kind: String,
}

/// Takes batches.
pub struct Reports {
    on_unauthorized: OnUnauthorized,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Reports {
    /// Tells `on_unauthorized` of each report of that kind.
    pub fn new(on_unauthorized: OnUnauthorized) -> Reports {
        Reports {
            on_unauthorized,
            seen: Mutex::default(),
        }
    }

    /// Applies a batch, unless it was applied before.
    pub fn take(&self, batch: Batch) {
        if !self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_new(&batch.batch)
        {
            return;
        }
        for report in batch.reports {
            match (report.kind.as_str(), AccountId::parse(&report.account)) {
                ("unauthorized", Some(account)) => {
                    (self.on_unauthorized)(&account, report.generation)
                }
                _ => tracing::debug!(
                    "passed over a report of a kind or account id that is not known here"
                ),
            }
        }
    }
}

impl Seen {
    fn is_new(&mut self, id: &str) -> bool {
        let end = id.floor_char_boundary(MAX_BATCH_ID_BYTES);
        let id = id[..end].to_owned();
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED_BATCHES
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_once_and_memory_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_new("a"));
        assert!(!seen.is_new("a"));
        for number in 0..REMEMBERED_BATCHES {
            assert!(seen.is_new(&format!("{number} {}", "é".repeat(100))));
        }
        assert_eq!(
            (seen.order.len(), seen.ids.len()),
            (REMEMBERED_BATCHES, REMEMBERED_BATCHES)
        );
        assert!(seen.is_new("a"), "the oldest is forgotten");
    }
}
