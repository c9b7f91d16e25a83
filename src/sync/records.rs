//! Records of requests on their way to the refresher: at least once, in batches that are counted
//! once.
//!
//! A batch that is not acknowledged is sent again as it was, under the id that it had, so that
//! the refresher can tell. What comes meanwhile waits; where that is too much, the oldest goes.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use crate::meter::record::Record;

/// The most records that wait in one VM: some 6 MiB, and five minutes at 50 requests a second.
pub const MAX_WAITING: usize = 16 * 1024;

/// The most records in a batch; at most some 600 KiB, within what the refresher takes.
pub const MAX_BATCH: usize = 500;

/// How long records are gathered before they are sent, in milliseconds.
pub const GATHER_MS: u64 = 1_000;

/// The pause after a batch that was not taken, in milliseconds.
pub const PAUSE_MS: u64 = 1_000;

/// Answers that say that a batch will never be taken, however often it is sent.
const NEVER: [&[u8]; 3] = [b"400", b"413", b"422"];

/// The records of one VM.
#[derive(Debug)]
pub struct Records {
    waiting: VecDeque<Record>,
    most: usize,
    /// The batch that is not acknowledged, and how many records it has.
    batch: Option<(String, u64)>,
    in_flight: bool,
    batches: u64,
    /// Not before this time, in Unix milliseconds, is anything sent.
    due: u64,
    dropped: u64,
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
            waiting: VecDeque::new(),
            most,
            batch: None,
            in_flight: false,
            batches: 0,
            due: 0,
            dropped: 0,
        }
    }

    /// Adds one; the oldest that waits makes room.
    pub fn push(&mut self, record: Record, now: u64) {
        if self.waiting.is_empty() && self.batch.is_none() {
            self.due = now.saturating_add(GATHER_MS);
        }
        if self.waiting.len() >= self.most {
            self.waiting.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.waiting.push_back(record);
    }

    /// The body to send at `now` from the VM of this number, if any is due.
    pub fn next(&mut self, vm: u64, now: u64) -> Option<String> {
        // A time further off than a pause is long was set before the clock was set back.
        let early = now < self.due && self.due <= now.saturating_add(GATHER_MS.max(PAUSE_MS));
        let is_full = self.batch.is_none() && self.waiting.len() >= MAX_BATCH;
        if self.in_flight || (early && !is_full) {
            return None;
        }
        if self.batch.is_none() && !self.waiting.is_empty() {
            self.batch = Some(self.gather(vm, now)?);
        }
        let (body, _) = self.batch.as_ref()?;
        self.in_flight = true;
        Some(body.clone())
    }

    /// Takes the answer's status, empty where there was none.
    pub fn answered(&mut self, status: &[u8], now: u64) {
        self.in_flight = false;
        if status == b"204" {
            self.batch = None;
            self.due = now;
        } else if NEVER.contains(&status) {
            let lost = self.batch.take().map_or(0, |(_, records)| records);
            self.dropped = self.dropped.saturating_add(lost);
        } else {
            self.due = now.saturating_add(PAUSE_MS);
        }
    }

    /// How many were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The next batch. There is no source of chance here, so its id is drawn from what is in it,
    /// Envoy's random request ids among that, and from which batch of which VM it is.
    fn gather(&mut self, vm: u64, now: u64) -> Option<(String, u64)> {
        let count = self.waiting.len().min(MAX_BATCH);
        let records: Vec<Record> = self.waiting.drain(..count).collect();
        let records = serde_json::to_string(&records).ok()?;
        self.batches = self.batches.wrapping_add(1);
        let digest = Sha256::new()
            .chain_update([vm, now, self.batches].map(u64::to_le_bytes).as_flattened())
            .chain_update(&records)
            .finalize();
        let id: String = digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let body = format!(r#"{{"batch":"{id}","reports":[],"records":{records}}}"#);
        Some((body, u64::try_from(count).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::{attempt::passage::Passage, dialect::Dialect};

    fn record(number: u64) -> Record {
        let text = format!("account=a key=k pool=p url=http://g/v1 id=req-{number} at=5");
        Record::of_request(&Passage::decode(text.as_bytes()).unwrap(), Dialect::Chat)
    }

    fn ids(body: &str) -> (String, Vec<String>) {
        let body: Value = serde_json::from_str(body).unwrap();
        let ids = body["records"].as_array().unwrap().iter();
        let ids = ids.map(|record| record["id"].as_str().unwrap().to_owned());
        (body["batch"].as_str().unwrap().to_owned(), ids.collect())
    }

    #[test]
    fn records_are_gathered_and_sent_again_as_they_were_until_taken() {
        let mut records = Records::default();
        assert_eq!(records.next(1, 0), None);
        records.push(record(1), 10_000);
        records.push(record(2), 10_500);
        assert_eq!(records.next(1, 10_999), None, "gathered for a second");
        let first = records.next(1, 11_000).unwrap();
        assert_eq!(records.next(1, 20_000), None, "one at a time");
        records.push(record(3), 11_100);
        records.answered(b"", 11_200);
        assert_eq!(records.next(1, 12_199), None, "a pause");
        assert_eq!(records.next(1, 12_200).unwrap(), first);
        records.answered(b"204", 12_300);
        let second = records.next(1, 12_300).unwrap();
        assert_eq!(ids(&first).1, ["req-1", "req-2"]);
        assert_eq!(ids(&second).1, ["req-3"]);
        assert_ne!(ids(&first).0, ids(&second).0);
        records.answered(b"204", 12_400);
        assert_eq!((records.next(1, 99_000), records.take_dropped()), (None, 0));
    }

    #[test]
    fn a_clock_set_back_delays_nothing_for_long() {
        let mut records = Records::default();
        records.push(record(1), 3_600_000);
        assert!(records.next(1, 5_000).is_some());
    }

    #[test]
    fn a_batch_that_will_never_be_taken_holds_up_no_other() {
        let mut records = Records::default();
        records.push(record(1), 0);
        records.next(1, 1_000).unwrap();
        records.push(record(2), 1_000);
        records.answered(b"400", 1_000);
        assert_eq!(records.take_dropped(), 1);
        assert_eq!(ids(&records.next(1, 2_000).unwrap()).1, ["req-2"]);
    }

    #[test]
    fn the_same_records_of_two_vms_are_two_batches() {
        let batch = |vm| {
            let mut records = Records::default();
            records.push(record(1), 0);
            ids(&records.next(vm, 1_000).unwrap()).0
        };
        assert_ne!(batch(1), batch(2));
        assert_eq!(batch(1).len(), 32);
    }

    proptest! {
        /// Whatever the refresher answers, what it took and what was dropped is all there was,
        /// each once, and what waits is bounded.
        #[test]
        fn every_record_is_taken_once_or_counted_as_dropped(
            steps in prop::collection::vec((0..40_u64, 0..5_u8), 1..60), room in 1..50_usize,
        ) {
            let mut records = Records::with_room(room);
            let (mut pushed, mut dropped, mut now) = (0, 0, 0);
            let mut taken: HashSet<String> = HashSet::new();
            let (mut count, mut batches) = (0, HashSet::new());
            let mut deliver = |records: &mut Records, now: &mut u64, answer: u8| {
                *now += 1_000;
                let Some(body) = records.next(1, *now) else { return };
                // 0: lost on the way; 1: applied, its answer lost; else applied and acknowledged.
                let (batch, ids) = ids(&body);
                if answer > 0 && batches.insert(batch) {
                    count += ids.len();
                    taken.extend(ids);
                }
                records.answered(if answer > 1 { b"204" } else { b"" }, *now);
            };
            for (number, answer) in steps {
                for _ in 0..number {
                    pushed += 1;
                    records.push(record(pushed), now);
                }
                prop_assert!(records.waiting.len() <= room);
                deliver(&mut records, &mut now, answer);
                dropped += records.take_dropped();
            }
            for _ in 0..3 {
                deliver(&mut records, &mut now, 2);
            }
            prop_assert_eq!(count, taken.len());
            prop_assert_eq!(count as u64 + dropped, pushed);
        }
    }
}
