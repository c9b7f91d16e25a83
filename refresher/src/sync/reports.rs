//! Batches of reports. A batch may come twice, when its answer was lost; it is applied once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use latchkey::meter::record::Record;
use latchkey::sync::report::Report;
use latchkey::verdict::Scope;
use serde::Deserialize;

use super::OnUnauthorized;
use crate::id::AccountId;
use crate::refresh::clock::{Clock, SystemClock, UnixMillis};
use crate::refresh::enable_command;
use crate::store::{self, BatchId, Noticed, Store};

/// How many batch ids are remembered: at a batch a second, a quarter of an hour. A filter gives up on a batch sooner.
const REMEMBERED_BATCHES: usize = 1024;
/// The longest batch id, in bytes: 32 hex digits, with room to grow.
const MAX_BATCH_ID_BYTES: usize = 64;

/// What a filter has to say.
#[derive(Debug, Deserialize)]
pub struct Batch {
    batch: String,
    /// Not read yet, because a newer filter may have more to say than is known here.
    #[serde(default)]
    reports: Vec<serde_json::Value>,
    /// Each by itself: one that cannot be read costs no other.
    #[serde(default)]
    records: Vec<serde_json::Value>,
}

impl Batch {
    /// The records of requests that can be read, and how many cannot; none where the batch has none.
    ///
    /// # Errors
    /// If the batch has records and its id is none that a filter makes.
    pub fn take_records(&mut self) -> Result<Option<Records>, InvalidId> {
        let values = std::mem::take(&mut self.records);
        if values.is_empty() {
            return Ok(None);
        }
        let batch = BatchId::parse(&self.batch).ok_or(InvalidId)?;
        let count = values.len();
        let read = values
            .into_iter()
            .filter_map(|value| serde_json::from_value(value).ok());
        let records: Vec<Record> = read.collect();
        let malformed = count - records.len();
        Ok(Some(Records {
            batch,
            records,
            malformed,
        }))
    }
}

/// The records of a batch.
#[derive(Debug)]
pub struct Records {
    /// The batch.
    pub batch: BatchId,
    /// Those that can be read.
    pub records: Vec<Record>,
    /// How many cannot.
    pub malformed: usize,
}

/// A batch of records whose id is not 32 hex digits: it could not be told from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

/// Takes batches.
pub struct Reports {
    store: Store,
    on_unauthorized: OnUnauthorized,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Reports {
    /// Tells `on_unauthorized` of each report of that kind; the others go to `store` and into the log.
    pub fn new(store: Store, on_unauthorized: OnUnauthorized) -> Reports {
        Reports {
            store,
            on_unauthorized,
            seen: Mutex::default(),
        }
    }

    /// Applies a batch, unless it was applied before.
    ///
    /// # Errors
    /// If the store fails. The batch is to be sent again then: what is stored of it already changes nothing.
    pub async fn take(&self, batch: Batch) -> Result<(), store::Error> {
        let reports: Vec<Report> = batch.reports.into_iter().filter_map(known).collect();
        let now = SystemClock.now();
        for noticed in self.store.take_reports(&reports, now).await? {
            log(&noticed, now);
        }
        let is_new = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_new(&batch.batch);
        for report in reports.iter().filter(|_| is_new) {
            if let Report::Unauthorized {
                account,
                generation,
            } = report
                && let Some(account) = AccountId::parse(account.as_str())
            {
                (self.on_unauthorized)(&account, *generation);
            }
        }
        Ok(())
    }
}

fn known(report: serde_json::Value) -> Option<Report> {
    let report = serde_json::from_value(report).ok();
    if report.is_none() {
        tracing::debug!("passed over a report that is not one of those known here");
    }
    report
}

/// Says what happened to an account, for people.
fn log(noticed: &Noticed, now: UnixMillis) {
    match noticed {
        Noticed::CoolingDown {
            account,
            held,
            again,
        } => {
            let end = UnixMillis(i64::try_from(held.until).unwrap_or(i64::MAX));
            let model = match &held.scope {
                Scope::Account => None,
                Scope::Model(model) => Some(model.as_str()),
            };
            let (reason, guessed) = (held.reason.as_str(), held.guessed);
            let seconds = end.since(now).as_secs();
            if *again {
                tracing::debug!(
                    account,
                    model,
                    reason,
                    seconds,
                    guessed,
                    "an account is cooling down still"
                );
            } else {
                tracing::info!(
                    account,
                    model,
                    reason,
                    seconds,
                    guessed,
                    "an account is cooling down; its pools' other accounts serve meanwhile"
                );
            }
        }
        Noticed::Recovered { account } => {
            tracing::info!(account, "an account has answered and is back in use");
        }
        Noticed::Dead {
            account,
            platform,
            reason,
        } => {
            let cure = format!(
                "see to it at {platform}, then run: {}",
                enable_command(account)
            );
            tracing::warn!(
                account,
                reason,
                cure,
                "an account is dead and out of use: the platform says that it is of no use"
            );
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
