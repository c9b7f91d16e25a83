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
    meter::record::{Record, Unserved},
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
        let id = &vm.envoy;
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
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::{attempt::passage::Passage, dialect::Dialect, verdict::Reason};

    fn vm(number: u64) -> Origin {
        Origin {
            envoy: "0123456789abcdef".repeat(2),
            vm: number,
            node: None,
        }
    }

    /// The tally in a body.
    fn tally(body: &str) -> Tally {
        let body: Value = serde_json::from_str(body).unwrap();
        let tally: Tally = serde_json::from_value(body["tally"].clone()).unwrap();
        assert!(tally.is_sound(), "{tally:?}");
        tally
    }

    fn of_key(key: &str, number: u64) -> Passage {
        let text = format!("account=a key={key} pool=p url=http://g/v1 id=req-{number} at=5");
        Passage::decode(text.as_bytes()).unwrap()
    }

    fn record(number: u64) -> Record {
        let platform = Id::try_from("openai").unwrap();
        Record::of_attempt(&of_key("k", number), &platform, Dialect::Chat)
    }

    fn refused(key: &str, error: &'static str, number: u64) -> Record {
        Record::of_request(&of_key(key, number), Dialect::Chat).answered(
            429,
            Reason::known(error),
            9,
        )
    }

    /// Of each record its id and for how many requests it stands.
    fn counts(body: &str) -> Vec<(String, u64)> {
        let body: Value = serde_json::from_str(body).unwrap();
        let one = |record: &Value| {
            let count = record
                .get("count")
                .map_or(1, |count| count.as_u64().unwrap());
            (record["id"].as_str().unwrap().to_owned(), count)
        };
        body["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(one)
            .collect()
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
        assert_eq!(records.next(&vm(1), 0), None);
        records.push(record(1), 10_000);
        records.push(record(2), 10_500);
        assert_eq!(records.next(&vm(1), 10_999), None, "gathered for a second");
        let first = records.next(&vm(1), 11_000).unwrap();
        assert_eq!(records.next(&vm(1), 20_000), None, "one at a time");
        records.push(record(3), 11_100);
        records.answered(b"", &vm(1), 11_200);
        assert_eq!(records.next(&vm(1), 12_199), None, "a pause");
        assert_eq!(records.next(&vm(1), 12_200).unwrap(), first);
        records.answered(b"204", &vm(1), 12_300);
        let second = records.next(&vm(1), 12_300).unwrap();
        assert_eq!(ids(&first).1, ["req-1", "req-2"]);
        assert_eq!(ids(&second).1, ["req-3"]);
        assert_ne!(ids(&first).0, ids(&second).0);
        records.answered(b"204", &vm(1), 12_400);
        assert_eq!(
            (records.next(&vm(1), 99_000), records.take_dropped()),
            (None, 0)
        );
    }

    #[test]
    fn whole_batches_follow_each_other_at_once_as_long_as_they_are_taken() {
        let mut records = Records::default();
        let most = u64::try_from(MAX_BATCH).unwrap();
        for number in 0..3 * most + 1 {
            records.push(record(number), 0);
        }
        let first = records.next(&vm(1), 0).unwrap();
        assert_eq!(ids(&first).1.len(), MAX_BATCH);
        assert_eq!(records.answered(b"503", &vm(1), 1), None, "a pause");
        assert_eq!(records.next(&vm(1), 1 + PAUSE_MS).unwrap(), first);
        let second = records.answered(b"204", &vm(1), 2_000).unwrap();
        assert_eq!(records.next(&vm(1), 2_000), None, "one at a time");
        let third = records.answered(b"204", &vm(1), 2_000).unwrap();
        assert_ne!(ids(&second).1, ids(&third).1);
        assert_eq!(
            records.answered(b"204", &vm(1), 2_000),
            None,
            "the rest can wait for a tick"
        );
        assert_eq!(ids(&records.next(&vm(1), 2_000).unwrap()).1.len(), 1);
    }

    #[test]
    fn requests_that_are_refused_alike_are_one_record_a_second() {
        let mut records = Records::default();
        for number in 0..40_000 {
            records.push(refused("k", "latchkey_limit", number), 5_000 + number / 40);
        }
        let mut other = refused("k", "latchkey_limit", 40_000);
        other.asked = "gpt".try_into().ok();
        records.push(other, 5_999);
        records.push(refused("k", "latchkey_no_account", 40_001), 5_999);
        records.push(refused("l", "latchkey_limit", 40_002), 5_999);
        records.push(record(40_003), 5_999);
        records.push(refused("k", "latchkey_limit", 40_004), 6_000);
        let found = counts(&records.next(&vm(1), 6_000).unwrap());
        let found: Vec<_> = found
            .iter()
            .map(|(id, count)| (id.as_str(), *count))
            .collect();
        let expected = [
            ("req-0", 40_001),
            ("req-40001", 1),
            ("req-40002", 1),
            ("req-40003", 1),
            ("req-40004", 1),
        ];
        assert_eq!(found, expected);
        records.answered(b"413", &vm(1), 6_000);
        assert_eq!(records.take_dropped(), 40_005);
    }

    #[test]
    fn a_flood_of_refusals_pushes_out_nothing_that_was_served() {
        let mut records = Records::with_room(10);
        for number in 0..10 {
            records.push(record(number), 0);
        }
        for number in 10..1_000 {
            records.push(refused("k", "latchkey_limit", number), 2_000 * number);
        }
        assert_eq!(records.take_dropped(), 990);
        records.push(record(1_000), 2_000_000);
        assert_eq!(records.take_dropped(), 1, "the oldest of its own kind");
        let found = counts(&records.next(&vm(1), 2_002_000).unwrap());
        let expected: Vec<_> = (1..10)
            .chain([1_000])
            .map(|number| (format!("req-{number}"), 1))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_clock_set_back_delays_nothing_for_long() {
        let mut records = Records::default();
        records.push(record(1), 3_600_000);
        assert!(records.next(&vm(1), 5_000).is_some());
    }

    #[test]
    fn a_batch_that_will_never_be_taken_holds_up_no_other() {
        let mut records = Records::default();
        records.push(record(1), 0);
        records.next(&vm(1), 1_000).unwrap();
        records.push(record(2), 1_000);
        records.answered(b"400", &vm(1), 1_000);
        assert_eq!(records.take_dropped(), 1);
        assert_eq!(ids(&records.next(&vm(1), 2_000).unwrap()).1, ["req-2"]);
    }

    #[test]
    fn a_request_under_way_is_told_of_in_a_second_and_then_now_and_then() {
        let mut records = Records::default();
        let said = |body: Option<String>| {
            let tally = tally(&body?);
            let Counts {
                begun,
                told,
                dropped,
            } = tally.counts;
            Some((tally.number, begun, told, dropped))
        };
        let under_way = records.begin();
        assert_eq!(records.next(&vm(1), 10_000), None);
        assert_eq!(records.next(&vm(1), 10_999), None);
        assert_eq!(said(records.next(&vm(1), 11_000)), Some((1, 1, 0, 0)));
        assert_eq!(records.next(&vm(1), 99_000), None, "one at a time");
        records.answered(b"", &vm(1), 11_500);
        assert_eq!(records.next(&vm(1), 12_499), None, "a pause");
        assert_eq!(said(records.next(&vm(1), 12_500)), Some((2, 1, 0, 0)));
        records.answered(b"204", &vm(1), 12_500);
        assert_eq!(records.next(&vm(1), 17_499), None);
        assert_eq!(said(records.next(&vm(1), 17_500)), Some((3, 1, 0, 0)));
        records.answered(b"204", &vm(1), 17_600);
        records.push(record(1), 18_000);
        drop(under_way);
        let body = records.next(&vm(1), 19_000).unwrap();
        assert_eq!(ids(&body).1, ["req-1"]);
        assert_eq!(said(Some(body)), Some((4, 1, 1, 0)), "with the batch");
        records.answered(b"204", &vm(1), 19_000);
        assert_eq!(records.next(&vm(1), 999_000), None, "nothing to tell of");
        drop(records.begin());
        assert_eq!(records.next(&vm(1), 999_100), None, "no record to come");
    }

    #[test]
    fn records_that_wait_go_where_a_tally_is_due() {
        let mut records = Records::default();
        let under_way = records.begin();
        assert_eq!(records.next(&vm(1), 10_000), None);
        records.push(record(1), 10_900);
        let body = records.next(&vm(1), 11_000).unwrap();
        assert_eq!(ids(&body).1, ["req-1"]);
        assert_eq!(tally(&body).counts.pending(), 1);
        records.answered(b"400", &vm(1), 11_000);
        assert_eq!(records.next(&vm(1), 11_999), None);
        let body = records.next(&vm(1), 12_000).unwrap();
        let counts = Counts {
            begun: 2,
            told: 0,
            dropped: 1,
        };
        assert_eq!(tally(&body).counts, counts, "the batch said something else");
        drop(under_way);
    }

    #[test]
    fn the_same_records_of_two_vms_are_two_batches() {
        let batch = |number| {
            let mut records = Records::default();
            records.push(record(1), 0);
            ids(&records.next(&vm(number), 1_000).unwrap()).0
        };
        assert_ne!(batch(1), batch(2));
        assert_eq!(batch(1).len(), 32);
    }

    proptest! {
        /// Whatever the refresher answers, what it took and what was dropped is all there was,
        /// each once, what waits is bounded, what was served makes room for nothing that was
        /// refused, and every tally counts each request that has begun. `step`: the requests that
        /// come, which of them are refused for which of two reasons and which go on for a while,
        /// how many of those end, and what the refresher answers then.
        #[test]
        fn every_request_is_taken_once_or_counted_as_dropped(
            steps in prop::collection::vec(
                (prop::collection::vec(0..5_u8, 0..40), 0..20_usize, 0..5_u8), 1..60,
            ),
            room in 1..50_usize,
        ) {
            let mut records = Records::with_room(room);
            let (mut begun, mut pushed, mut dropped, mut now) = (0, 0, 0, 0);
            let mut under_way = Vec::new();
            let mut taken: HashSet<String> = HashSet::new();
            let (mut count, mut records_taken, mut batches) = (0, 0, HashSet::new());
            let mut deliver = |records: &mut Records, now: &mut u64, begun: u64, answer: u8| {
                *now += GATHER_MS;
                let is_new = records.batch.is_none();
                let Some(body) = records.next(&vm(1), *now) else { return false };
                if is_new {
                    assert_eq!(tally(&body).counts.begun, begun);
                }
                // 0: lost on the way; 1: applied, its answer lost; else applied and acknowledged.
                if records.batch.is_some() {
                    let (batch, ids) = ids(&body);
                    if answer > 0 && batches.insert(batch) {
                        records_taken += ids.len();
                        taken.extend(ids);
                        count += counts(&body).iter().map(|(_, count)| count).sum::<u64>();
                        assert_eq!(tally(&body).counts.told, count);
                    }
                }
                let status: &[u8] = if answer > 1 { b"204" } else { b"" };
                assert_eq!(records.answered(status, &vm(1), *now), None, "no whole batch waits");
                true
            };
            for (kinds, ends, answer) in steps {
                let before = pushed;
                for kind in kinds {
                    begun += 1;
                    if kind == 4 {
                        under_way.push(records.begin());
                        continue;
                    }
                    pushed += 1;
                    let served = records.served.len();
                    let one = match kind {
                        0 => refused("k", "latchkey_limit", pushed),
                        1 => refused("l", "latchkey_limit", pushed),
                        _ => record(pushed),
                    };
                    records.push(one, now);
                    let lost_one = records.served.len() < served + usize::from(kind > 1);
                    prop_assert!(!lost_one || records.refused.line.is_empty());
                    prop_assert!(!lost_one || kind > 1);
                }
                prop_assert!(records.waiting() <= room);
                let of_step = records.refused.line.iter().filter(|(number, _)| *number > before);
                prop_assert!(of_step.count() <= 2);
                for ended in under_way.drain(..ends.min(under_way.len())) {
                    pushed += 1;
                    records.push(record(pushed), now);
                    drop(ended);
                }
                prop_assert_eq!(records.counts().begun, begun);
                deliver(&mut records, &mut now, begun, answer);
                dropped += records.take_dropped();
            }
            for _ in under_way.drain(..) {
                pushed += 1;
                records.push(record(pushed), now);
            }
            while deliver(&mut records, &mut now, begun, 2) || now % REPEAT_MS != 0 {}
            dropped += records.take_dropped();
            prop_assert_eq!(records_taken, taken.len(), "each record once");
            prop_assert_eq!(count + dropped, pushed);
            prop_assert_eq!(pushed, begun);
            let told = Counts { begun, told: count, dropped };
            prop_assert_eq!((records.counts(), told.pending()), (told, 0), "all is told");
        }

        /// Where the refresher answers, it has heard of every request a second and two ticks after
        /// it began, at no more than a word a second and what batches that are full take. `step`,
        /// of a tick: how many begin, how many end, how many are refused.
        #[test]
        fn no_request_is_unheard_of_for_long(
            steps in prop::collection::vec((0..3_u8, 0..3_usize, 0..2_u8), 1..200),
        ) {
            const TICK_MS: u64 = 100;
            let mut records = Records::default();
            let (mut now, mut begun, mut heard, mut words) = (50_000, 0_u64, 0, 0);
            let (mut under_way, mut begun_by) = (Vec::new(), Vec::new());
            let ticks = u64::try_from(steps.len()).unwrap();
            for (begins, ends, refusals) in steps {
                for _ in 0..begins {
                    under_way.push(records.begin());
                }
                for ended in under_way.drain(..ends.min(under_way.len())) {
                    records.push(record(begun), now);
                    drop(ended);
                }
                for _ in 0..refusals {
                    records.push(refused("k", "latchkey_limit", begun), now);
                }
                begun += u64::from(begins) + u64::from(refusals);
                begun_by.push((now, begun));
                now += TICK_MS;
                if let Some(body) = records.next(&vm(1), now) {
                    (heard, words) = (tally(&body).counts.begun, words + 1);
                    prop_assert_eq!(records.answered(b"204", &vm(1), now), None);
                }
                let long_ago = now - GATHER_MS - 2 * TICK_MS;
                let due = begun_by.iter().rfind(|(at, _)| *at <= long_ago);
                prop_assert!(heard >= due.map_or(0, |(_, begun)| *begun));
            }
            prop_assert!(words <= 1 + ticks * TICK_MS / GATHER_MS, "{} in {} ticks", words, ticks);
        }
    }
}
