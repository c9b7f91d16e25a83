//! Records of requests on their way to the refresher: at least once, in batches that are counted
//! once.
//!
//! A batch that is not acknowledged is sent again as it was, under the id that it had, so that
//! the refresher can tell. What comes meanwhile waits; where that is too much, the oldest goes.
//!
//! Requests that no account served cost their callers nothing, so whoever sends them without end
//! must not push out what others used: those that were refused for one reason are one record a
//! second, and they go first.
//!
//! What an answer made is told at the next tick, with all that waits. The rest is gathered for a second.
//!
//! Each batch also says how many requests the gate let in since the batch before ([`Begun`]), a
//! second after they came at the latest. The refresher adds these up by Envoy process and counts
//! what was recorded beside them. The difference is what is under way, and what died with an Envoy.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    deadline::Deadline,
    hex,
    id::{Id, is_hex_name},
    request::record::{RequestRecord, Unserved},
};

/// The most records that wait in one VM: some 6 MiB, and five minutes at 50 requests a second.
pub const MAX_WAITING: usize = 16 * 1024;

/// The most records in a batch; at most some 600 KiB, within what the refresher takes.
pub const MAX_BATCH: usize = 500;

/// The time for which records are gathered before they are sent, in milliseconds. The refresher hears of a
/// request that has begun within it.
pub const GATHER_MS: u64 = 1_000;

/// The pause after a batch that was not taken, in milliseconds.
pub const PAUSE_MS: u64 = 1_000;

/// The most requests that one batch says have begun: far more than any VM sees between two batches,
/// and few enough that sums of them fit everywhere.
const MAX_BEGUN: u64 = 1 << 40;

/// Answers that say that a batch will never be taken, however often it is sent.
const NEVER: [&[u8]; 3] = [b"400", b"413", b"422"];

/// An Envoy process, and a VM in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Names the process: 32 hex digits.
    pub instance: String,
    /// The node id that the operator gave that Envoy.
    pub node: Option<Id>,
    /// The VM's number in the process, which makes the ids of its batches its own.
    pub vm: u64,
}

/// The requests of an Envoy process that began since the batch before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Names the process: 32 hex digits.
    pub instance: String,
    /// The node id that the operator gave that Envoy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Id>,
    /// The number that began. Each gets one record, unless something dies first.
    pub requests: u64,
}

/// The records of one VM.
#[derive(Debug)]
pub struct Records {
    /// The records of requests that an account served.
    served: Line,
    refused: RefusedRecords,
    /// The number that have come.
    pushed: u64,
    most: usize,
    /// Requests that began and that no batch has told of.
    begun: u64,
    /// The batch that is not acknowledged.
    batch: Option<Batch>,
    in_flight: bool,
    batches: u64,
    /// The time before which no batch is sent.
    due: Deadline,
    /// Requests whose records were dropped since this was last asked.
    dropped: u64,
}

/// Records that were taken off their lines, to be sent.
#[derive(Debug)]
struct Batch {
    body: String,
    /// Counts the requests that its records stand for.
    requests: u64,
    /// Counts the requests that it says have begun.
    begun: u64,
}

/// Records in the order in which they came, each with its number.
type Line = VecDeque<(u64, RequestRecord)>;

/// Records of requests that no account served.
#[derive(Debug, Default)]
struct RefusedRecords {
    line: Line,
    /// The number of the record that each kind has in the interval that runs. It may be gone.
    running: HashMap<Unserved, u64>,
    /// The end of that interval, in Unix milliseconds.
    until: Deadline,
}

impl Default for Records {
    fn default() -> Self {
        Self::with_room(MAX_WAITING)
    }
}

// === impl Begun ===

impl Begun {
    /// Returns true if a VM of Latchkey can have said this.
    pub fn is_sound(&self) -> bool {
        is_hex_name(&self.instance) && self.requests <= MAX_BEGUN
    }
}

// === impl Records ===

impl Records {
    /// Makes room for so many that wait.
    pub fn with_room(most: usize) -> Self {
        Self {
            served: Line::new(),
            refused: RefusedRecords::default(),
            pushed: 0,
            most,
            begun: 0,
            batch: None,
            in_flight: false,
            batches: 0,
            due: Deadline::default(),
            dropped: 0,
        }
    }

    /// Counts a request that the gate let in, before there is a record of it.
    pub fn begin(&mut self, now: u64) {
        self.set_due(now);
        self.begun = self.begun.saturating_add(1).min(MAX_BEGUN);
    }

    /// Adds a record. The oldest that waits makes room, and of those that were served none while
    /// another waits.
    pub fn push(&mut self, record: RequestRecord, now: u64) {
        self.set_due(now);
        self.pushed = self.pushed.wrapping_add(1);
        if !record.made.is_empty() && self.batch.is_none() {
            // Its caller may ask another Envoy for it at once.
            self.due = Deadline::default();
        }
        match record.unserved() {
            None => self.served.push_back((self.pushed, record)),
            Some(kind) => self.refused.push(kind, self.pushed, record, now),
        }
        if self.waiting() > self.most {
            let oldest = self.refused.line.pop_front();
            let oldest = oldest.or_else(|| self.served.pop_front());
            let requests = oldest.map_or(0, |(_, record)| requests_of(&record));
            self.dropped = self.dropped.saturating_add(requests);
        }
    }

    /// Has what is about to come gathered for a while, where it is the first.
    fn set_due(&mut self, now: u64) {
        if !self.has_news() && self.batch.is_none() {
            self.due = Deadline::after(now, GATHER_MS);
        }
    }

    /// Returns true if there is something that no batch has told of.
    fn has_news(&self) -> bool {
        self.waiting() > 0 || self.begun > 0
    }

    fn waiting(&self) -> usize {
        self.served.len().saturating_add(self.refused.line.len())
    }

    /// Takes the first that waits off its line.
    fn take_first(&mut self) -> Option<RequestRecord> {
        let number = |line: &Line| line.front().map_or(u64::MAX, |(number, _)| *number);
        let line = if number(&self.refused.line) < number(&self.served) {
            &mut self.refused.line
        } else {
            &mut self.served
        };
        line.pop_front().map(|(_, record)| record)
    }

    /// Returns the body to send at `now` from this VM, if any is due.
    pub fn next(&mut self, vm: &Origin, now: u64) -> Option<String> {
        if self.in_flight || !self.due.is_due(now) && !self.is_full() {
            return None;
        }
        if self.batch.is_none() && self.has_news() {
            self.batch = self.gather(vm, now);
        }
        let body = self.batch.as_ref()?.body.clone();
        self.in_flight = true;
        Some(body)
    }

    /// Returns true if a whole batch waits, and none that was sent before.
    fn is_full(&self) -> bool {
        self.batch.is_none() && self.waiting() >= MAX_BATCH
    }

    /// Takes the answer's status, empty where there was none. Returns the body to send at once, if
    /// a whole batch waits: a batch a tick is less than a worker can serve.
    pub fn answered(&mut self, status: &[u8], vm: &Origin, now: u64) -> Option<String> {
        if !std::mem::take(&mut self.in_flight) {
            return None;
        }
        let is_hopeless = NEVER.contains(&status);
        self.due = match status {
            b"204" => Deadline::default(),
            _ => Deadline::after(now, PAUSE_MS),
        };
        if status == b"204" || is_hopeless {
            let batch = self.batch.take()?;
            if is_hopeless {
                // Its requests have begun all the same: the next batch says so.
                self.begun = self.begun.saturating_add(batch.begun).min(MAX_BEGUN);
                self.dropped = self.dropped.saturating_add(batch.requests);
            }
        }
        self.is_full().then(|| self.next(vm, now)).flatten()
    }

    /// Returns how many requests' records were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Makes the next batch. There is no source of chance here, so its id is drawn from what tells
    /// the requests in it from others, Envoy's random ids among that, and from which batch of which
    /// VM of which process it is.
    fn gather(&mut self, vm: &Origin, now: u64) -> Option<Batch> {
        let first = std::iter::from_fn(|| self.take_first());
        let records: Vec<RequestRecord> = first.take(MAX_BATCH).collect();
        let requests = records.iter().map(requests_of);
        let requests = requests.fold(0, u64::saturating_add);
        self.batches = self.batches.wrapping_add(1);
        let mut digest = Sha256::new();
        digest.update(&vm.instance);
        digest.update(
            [vm.vm, now, self.batches]
                .map(u64::to_le_bytes)
                .as_flattened(),
        );
        for record in &records {
            // Not all that a record says: to hash that costs more than to write it.
            let id = record.id.as_ref().map(Id::as_str).unwrap_or_default();
            digest.update(record.at.to_le_bytes());
            digest.update(record.key.as_str());
            digest.update(id);
        }
        let digest = digest.finalize();
        let id = hex::encode(digest.first_chunk::<16>()?);
        let begun = Begun {
            instance: vm.instance.clone(),
            node: vm.node.clone(),
            requests: std::mem::take(&mut self.begun),
        };
        let said = serde_json::to_string(&begun).ok()?;
        let records = serde_json::to_string(&records).ok()?;
        let body = format!(r#"{{"batch":"{id}","reports":[],"begun":{said},"records":{records}}}"#);
        Some(Batch {
            body,
            requests,
            begun: begun.requests,
        })
    }
}

fn requests_of(record: &RequestRecord) -> u64 {
    record.count.get().into()
}

// === impl RefusedRecords ===

impl RefusedRecords {
    /// Adds a record of that kind: to the one that it has in the interval, if that waits still.
    fn push(&mut self, kind: Unserved, number: u64, record: RequestRecord, now: u64) {
        if self.until.is_due(now) {
            self.until = Deadline::after(now, GATHER_MS);
            self.running.clear();
        }
        let known = self.running.get(&kind);
        let at = known.and_then(|known| self.line.binary_search_by_key(known, |(n, _)| *n).ok());
        if let Some((_, held)) = at.and_then(|at| self.line.get_mut(at)) {
            held.add(&record);
            return;
        }
        if self.running.len() >= MAX_WAITING {
            self.running.clear();
        }
        self.running.insert(kind, number);
        self.line.push_back((number, record));
    }
}

#[cfg(test)]
mod tests;
