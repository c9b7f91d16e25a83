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
//! Each batch says how many requests this VM has begun and told of ([`Tally`]), and where there is
//! nothing to send and that has changed, a tally goes alone.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::tally::{Begun, Counts, Origin, Tally, UnderWay};
use crate::{
    id::Id,
    request::record::{Record, Unserved},
};

/// The most records that wait in one VM: some 6 MiB, and five minutes at 50 requests a second.
pub const MAX_WAITING: usize = 16 * 1024;

/// The most records in a batch; at most some 600 KiB, within what the refresher takes.
pub const MAX_BATCH: usize = 500;

/// How long records are gathered before they are sent, in milliseconds, and how long the refresher
/// does not hear of a request that has begun.
pub const GATHER_MS: u64 = 1_000;

/// The pause after a batch or a tally that was not taken, in milliseconds.
pub const PAUSE_MS: u64 = 1_000;

/// How often a VM that has requests to tell of says so, in milliseconds, also where nothing has
/// changed: who is silent for longer is no more, or cannot reach the refresher.
pub const REPEAT_MS: u64 = 5_000;

/// Answers that say that a batch will never be taken, however often it is sent.
const NEVER: [&[u8]; 3] = [b"400", b"413", b"422"];

/// The records of one VM.
#[derive(Debug)]
pub struct Records {
    /// Of requests that an account served.
    served: Line,
    refused: Refused,
    /// How many have come.
    pushed: u64,
    most: usize,
    /// The batch that is not acknowledged.
    batch: Option<Batch>,
    in_flight: Option<Sent>,
    batches: u64,
    /// Not before this time, in Unix milliseconds, is a batch sent.
    due: u64,
    begun: Begun,
    /// For how many requests those stand that wait.
    waiting_requests: u64,
    /// Requests of acknowledged batches.
    told: u64,
    /// Requests whose records were dropped, and how many of those were asked about.
    dropped: u64,
    dropped_shown: u64,
    tallies: Tallies,
}

/// Records that were taken off their lines, to be sent.
#[derive(Debug)]
struct Batch {
    body: String,
    /// How many requests they tell of.
    requests: u64,
}

/// What has no answer yet.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Batch,
    Tally,
}

/// What was said of all requests.
#[derive(Debug, Default)]
struct Tallies {
    /// How many tallies there were.
    number: u64,
    /// What the last one said, and when it was made, in Unix milliseconds.
    said: Counts,
    said_at: u64,
    /// Whether the refresher did not take it.
    in_vain: bool,
    /// Since when there is something to say.
    since: Option<u64>,
}

/// Records in the order in which they came, each with its number.
type Line = VecDeque<(u64, Record)>;

/// Records of requests that no account served.
#[derive(Debug, Default)]
struct Refused {
    line: Line,
    /// The number of the record that each kind has in the interval that runs. It may be gone.
    running: HashMap<Unserved, u64>,
    /// When that interval ends, in Unix milliseconds.
    until: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self::with_room(MAX_WAITING)
    }
}

// === impl Records ===

impl Records {
    /// With room for so many that wait.
    pub fn with_room(most: usize) -> Self {
        Self {
            served: Line::new(),
            refused: Refused::default(),
            pushed: 0,
            most,
            batch: None,
            in_flight: None,
            batches: 0,
            due: 0,
            begun: Begun::default(),
            waiting_requests: 0,
            told: 0,
            dropped: 0,
            dropped_shown: 0,
            tallies: Tallies::default(),
        }
    }

    /// A request has begun of which there will be a record: it is under way until what this
    /// returns is dropped.
    pub fn begin(&self) -> UnderWay {
        self.begun.one()
    }

    /// Adds one. The oldest that waits makes room, and of those that were served none while
    /// another waits.
    pub fn push(&mut self, record: Record, now: u64) {
        if self.waiting() == 0 && self.batch.is_none() {
            self.due = now.saturating_add(GATHER_MS);
        }
        self.pushed = self.pushed.wrapping_add(1);
        self.waiting_requests = self.waiting_requests.saturating_add(requests_of(&record));
        match record.unserved() {
            None => self.served.push_back((self.pushed, record)),
            Some(kind) => self.refused.push(kind, self.pushed, record, now),
        }
        if self.waiting() > self.most {
            let oldest = self.refused.line.pop_front();
            let oldest = oldest.or_else(|| self.served.pop_front());
            let requests = oldest.map_or(0, |(_, record)| requests_of(&record));
            self.waiting_requests = self.waiting_requests.saturating_sub(requests);
            self.dropped = self.dropped.saturating_add(requests);
        }
    }

    /// How many requests have begun and what became of them.
    pub fn counts(&self) -> Counts {
        let sent = self.batch.as_ref().map_or(0, |batch| batch.requests);
        let parts = [
            self.told,
            self.dropped,
            sent,
            self.waiting_requests,
            self.begun.under_way(),
        ];
        Counts {
            begun: parts.into_iter().fold(0, u64::saturating_add),
            told: self.told,
            dropped: self.dropped,
        }
    }

    fn waiting(&self) -> usize {
        self.served.len().saturating_add(self.refused.line.len())
    }

    /// Takes the first that waits off its line.
    fn take_first(&mut self) -> Option<Record> {
        let number = |line: &Line| line.front().map_or(u64::MAX, |(number, _)| *number);
        let line = if number(&self.refused.line) < number(&self.served) {
            &mut self.refused.line
        } else {
            &mut self.served
        };
        line.pop_front().map(|(_, record)| record)
    }

    /// The body to send at `now` from this VM, if any is due.
    pub fn next(&mut self, vm: &Origin, now: u64) -> Option<String> {
        let tally_is_due = self.tally_is_due(now);
        if self.in_flight.is_some() {
            return None;
        }
        // A time further off than a pause is long was set before the clock was set back.
        let early = now < self.due && self.due <= now.saturating_add(GATHER_MS.max(PAUSE_MS));
        let batch_is_due = !early || self.is_full() || tally_is_due;
        if batch_is_due && self.batch.is_none() && self.waiting() > 0 {
            self.batch = self.gather(vm, now);
        }
        if let Some(batch) = self.batch.as_ref().filter(|_| batch_is_due) {
            self.in_flight = Some(Sent::Batch);
            return Some(batch.body.clone());
        }
        if !tally_is_due {
            return None;
        }
        let tally = self.tallies.next(vm, self.counts(), now)?;
        self.in_flight = Some(Sent::Tally);
        // An id that no batch has, and the same for all tallies: who remembers ids remembers one.
        let id = &vm.instance;
        Some(format!(
            r#"{{"batch":"{id}","reports":[],"tally":{tally}}}"#
        ))
    }

    /// Whether a tally is to go: a second after there is something else to say, and now and then
    /// while there are requests to tell of. Not while a batch is not acknowledged: what that
    /// cannot reach a tally cannot either.
    fn tally_is_due(&mut self, now: u64) -> bool {
        let is_due = self.tallies.is_due(self.counts(), now);
        is_due && self.batch.is_none()
    }

    /// Whether a whole batch waits, and none that was sent before.
    fn is_full(&self) -> bool {
        self.batch.is_none() && self.waiting() >= MAX_BATCH
    }

    /// Takes the answer's status, empty where there was none. The body to send at once, if a whole
    /// batch waits: a batch a tick is less than a worker can serve.
    pub fn answered(&mut self, status: &[u8], vm: &Origin, now: u64) -> Option<String> {
        match self.in_flight.take()? {
            Sent::Batch => self.batch_was_answered(status, now),
            Sent::Tally => {
                let settled = status == b"204" || NEVER.contains(&status);
                self.tallies.was_answered(settled, now);
            }
        }
        self.is_full().then(|| self.next(vm, now)).flatten()
    }

    fn batch_was_answered(&mut self, status: &[u8], now: u64) {
        if status != b"204" && !NEVER.contains(&status) {
            self.due = now.saturating_add(PAUSE_MS);
            return;
        }
        let Some(batch) = self.batch.take() else {
            return;
        };
        if status == b"204" {
            self.told = self.told.saturating_add(batch.requests);
            self.due = now;
        } else {
            self.dropped = self.dropped.saturating_add(batch.requests);
            self.tallies.was_answered(false, now);
        }
    }

    /// How many requests' records were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        let shown = std::mem::replace(&mut self.dropped_shown, self.dropped);
        self.dropped.saturating_sub(shown)
    }

    /// The next batch. There is no source of chance here, so its id is drawn from what tells the
    /// requests in it from others, Envoy's random ids among that, and from which batch of which VM
    /// it is.
    fn gather(&mut self, vm: &Origin, now: u64) -> Option<Batch> {
        let first = std::iter::from_fn(|| self.take_first());
        let records: Vec<Record> = first.take(MAX_BATCH).collect();
        let requests = records.iter().map(requests_of);
        let requests = requests.fold(0, u64::saturating_add);
        self.waiting_requests = self.waiting_requests.saturating_sub(requests);
        self.batches = self.batches.wrapping_add(1);
        let mut digest = Sha256::new();
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
        let id: String = digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let counts = Counts {
            begun: self.counts().begun.saturating_add(requests),
            told: self.told.saturating_add(requests),
            dropped: self.dropped,
        };
        let tally = self.tallies.next(vm, counts, now)?;
        let records = serde_json::to_string(&records).ok()?;
        let body =
            format!(r#"{{"batch":"{id}","reports":[],"tally":{tally},"records":{records}}}"#);
        Some(Batch { body, requests })
    }
}

fn requests_of(record: &Record) -> u64 {
    record.count.get().into()
}

// === impl Tallies ===

impl Tallies {
    /// Whether it is time to say that `counts` are so.
    fn is_due(&mut self, counts: Counts, now: u64) -> bool {
        // A time that is yet to come was noted before the clock was set back.
        let is_over = |from: u64, ms: u64| now < from || now.saturating_sub(from) >= ms;
        if counts == self.said && !self.in_vain {
            self.since = None;
            return counts.pending() > 0 && is_over(self.said_at, REPEAT_MS);
        }
        let since = *self.since.get_or_insert(now);
        is_over(since, GATHER_MS)
    }

    /// The next tally.
    fn next(&mut self, vm: &Origin, counts: Counts, now: u64) -> Option<String> {
        (self.said, self.said_at) = (counts, now);
        (self.in_vain, self.since) = (false, None);
        self.number = self.number.saturating_add(1);
        let tally = Tally {
            origin: vm.clone(),
            number: self.number,
            counts,
        };
        serde_json::to_string(&tally).ok()
    }

    /// The last one needs no repeating, or it does, after a pause.
    fn was_answered(&mut self, settled: bool, now: u64) {
        if !settled {
            self.in_vain = true;
            self.since = Some(now);
        }
    }
}

// === impl Refused ===

impl Refused {
    /// Adds a record of that kind: to the one that it has in the interval, if that waits still.
    fn push(&mut self, kind: Unserved, number: u64, record: Record, now: u64) {
        // An end further off than an interval is long was set before the clock was set back.
        if now >= self.until || self.until > now.saturating_add(GATHER_MS) {
            self.until = now.saturating_add(GATHER_MS);
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
