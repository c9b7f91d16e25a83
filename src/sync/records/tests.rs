use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{request::carried::Carried, verdict::Reason};

fn vm(number: u64) -> Origin {
    Origin {
        instance: "0123456789abcdef".repeat(2),
        vm: number,
        node: None,
    }
}

/// Counts the requests that a body says have begun.
fn begun(body: &str) -> u64 {
    let body: Value = serde_json::from_str(body).unwrap();
    let begun: Begun = serde_json::from_value(body["begun"].clone()).unwrap();
    assert!(begun.is_sound(), "{begun:?}");
    begun.requests
}

fn of_key(key: &str, number: u64) -> Carried {
    let text = format!(
        "account=a key={key} pool=p url=http://g/v1 door=1 dialect=chat endpoint=0 id=req-{number} at=5"
    );
    Carried::decode(text.as_bytes()).unwrap()
}

fn record(number: u64) -> RequestRecord {
    let platform = Id::try_from("openai").unwrap();
    RequestRecord::of_attempt(&of_key("k", number), &platform)
}

fn refused(key: &str, error: &'static str, number: u64) -> RequestRecord {
    RequestRecord::of_request(&of_key(key, number)).answered(429, Reason::known(error), 9)
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
fn a_request_that_began_is_told_of_in_a_second_and_once() {
    let mut records = Records::default();
    records.begin(10_000);
    records.begin(10_900);
    assert_eq!(records.next(&vm(1), 10_999), None, "gathered for a second");
    let first = records.next(&vm(1), 11_000).unwrap();
    assert_eq!((begun(&first), ids(&first).1.len()), (2, 0));
    assert_eq!(records.next(&vm(1), 99_000), None, "one at a time");
    records.begin(11_100);
    records.answered(b"", &vm(1), 11_500);
    assert_eq!(records.next(&vm(1), 12_499), None, "a pause");
    assert_eq!(records.next(&vm(1), 12_500).unwrap(), first, "as it was");
    records.answered(b"204", &vm(1), 12_500);
    records.push(record(1), 12_500);
    let second = records.next(&vm(1), 12_600).unwrap();
    assert_eq!(
        (begun(&second), &*ids(&second).1),
        (1, &["req-1".to_owned()][..])
    );
    records.answered(b"204", &vm(1), 12_600);
    assert_eq!(records.next(&vm(1), 999_000), None, "nothing to tell of");
}

#[test]
fn what_began_is_told_of_though_its_batch_is_never_taken() {
    let mut records = Records::default();
    records.begin(0);
    records.push(record(1), 0);
    let refused = records.next(&vm(1), 1_000).unwrap();
    assert_eq!(begun(&refused), 1);
    records.answered(b"400", &vm(1), 1_000);
    let next = records.next(&vm(1), 2_000).unwrap();
    assert_eq!((begun(&next), ids(&next).1.len()), (1, 0));
    assert_eq!(records.take_dropped(), 1);
}

#[test]
fn what_began_reads_as_documented() {
    let text = r#"{"instance":"4e07408562bedb8b60ce05c1decfe3ad","node":"latchkey","requests":14}"#;
    let page = include_str!("../../../docs/protocol.md");
    assert!(page.contains(&format!(r#""begun":{text}"#)), "{text}");
    let begun: Begun = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&begun).unwrap(), text);
    assert!(begun.is_sound());
    for (name, odd) in [
        ("instance", "\"latchkey\""),
        ("instance", "\"4e07408562bedb8b60ce05c1decfe3a\\n\""),
        ("requests", "1099511627777"),
    ] {
        let mut odd_one: Value = serde_json::from_str(text).unwrap();
        odd_one[name] = serde_json::from_str(odd).unwrap();
        let odd_one: Begun = serde_json::from_value(odd_one).unwrap();
        assert!(!odd_one.is_sound(), "{odd_one:?}");
    }
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

#[test]
fn the_same_word_of_two_processes_is_two_batches() {
    let batch = |instance: &str| {
        let mut records = Records::default();
        records.begin(0);
        let vm = Origin {
            instance: instance.repeat(32),
            ..vm(1)
        };
        ids(&records.next(&vm, 1_000).unwrap()).0
    };
    assert_ne!(batch("a"), batch("b"));
}

/// The refresher, as far as records go: it takes each batch once.
#[derive(Default)]
struct Taker {
    batches: HashSet<String>,
    begun: u64,
    recorded: u64,
    ids: HashSet<String>,
    records: usize,
}

impl Taker {
    fn take(&mut self, body: &str) {
        let (batch, ids) = ids(body);
        if self.batches.insert(batch) {
            self.begun += begun(body);
            self.recorded += counts(body).iter().map(|(_, count)| count).sum::<u64>();
            self.records += ids.len();
            self.ids.extend(ids);
        }
    }
}

proptest! {
    /// Whatever the refresher answers, what it took and what was dropped is all there was, each
    /// once; what waits is bounded; what was served makes room for nothing that was refused; and
    /// nothing is recorded of which the refresher has not heard that it began. `step`: the
    /// requests that come, which of them are refused for which of two reasons and which go on for
    /// a while, how many of those end, and what becomes of the batch: 0 is lost on its way, 1 is
    /// taken and its answer lost, 2 is refused for good, others are taken.
    #[test]
    fn every_request_is_taken_once_or_counted_as_dropped(
        steps in prop::collection::vec(
            (prop::collection::vec(0..5_u8, 0..40), 0..20_usize, 0..6_u8), 1..60,
        ),
        room in 1..50_usize,
    ) {
        let mut records = Records::with_room(room);
        let mut refresher = Taker::default();
        let (mut begun, mut pushed, mut dropped, mut now) = (0_u64, 0, 0, 0);
        let mut under_way = 0;
        for (kinds, ends, fate) in steps {
            let before = pushed;
            for kind in kinds {
                begun += 1;
                records.begin(now);
                if kind == 4 {
                    under_way += 1;
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
            for _ in 0..ends.min(under_way) {
                under_way -= 1;
                pushed += 1;
                records.push(record(pushed), now);
            }
            now += GATHER_MS;
            if let Some(body) = records.next(&vm(1), now) {
                if fate == 1 || fate > 2 {
                    refresher.take(&body);
                }
                // A batch that was taken is not refused later.
                let is_known = refresher.batches.contains(&ids(&body).0);
                let answer: &[u8] = match fate {
                    2 if !is_known => b"422",
                    0 | 1 => b"",
                    _ => b"204",
                };
                prop_assert_eq!(records.answered(answer, &vm(1), now), None);
            }
            dropped += records.take_dropped();
            prop_assert!(refresher.recorded <= refresher.begun && refresher.begun <= begun);
        }
        for _ in 0..under_way {
            pushed += 1;
            records.push(record(pushed), now);
        }
        // The answer to the last batch may have been lost.
        for _ in 0..3 {
            now += GATHER_MS;
            if let Some(body) = records.next(&vm(1), now) {
                refresher.take(&body);
                records.answered(b"204", &vm(1), now);
            }
        }
        dropped += records.take_dropped();
        prop_assert_eq!(refresher.records, refresher.ids.len(), "each record once");
        prop_assert_eq!(refresher.recorded + dropped, pushed);
        prop_assert_eq!((refresher.begun, pushed), (begun, begun));
    }

    /// Where the refresher answers, it has heard of every request a second and two ticks after it
    /// began, at no more than a word a second and what batches that are full take. `step`, of a
    /// tick: how many begin and how many end.
    #[test]
    fn no_request_is_unheard_of_for_long(
        steps in prop::collection::vec((0..3_u8, 0..3_u64), 1..200),
    ) {
        const TICK_MS: u64 = 100;
        let mut records = Records::default();
        let mut refresher = Taker::default();
        let (mut now, mut begun, mut under_way, mut words) = (50_000, 0, 0, 0);
        let mut begun_by = Vec::new();
        let ticks = u64::try_from(steps.len()).unwrap();
        for (begins, ends) in steps {
            for _ in 0..begins {
                (begun, under_way) = (begun + 1, under_way + 1);
                records.begin(now);
            }
            for _ in 0..ends.min(under_way) {
                under_way -= 1;
                records.push(record(begun - under_way), now);
            }
            begun_by.push((now, begun));
            now += TICK_MS;
            if let Some(body) = records.next(&vm(1), now) {
                refresher.take(&body);
                words += 1;
                prop_assert_eq!(records.answered(b"204", &vm(1), now), None);
            }
            let long_ago = now - GATHER_MS - 2 * TICK_MS;
            let due = begun_by.iter().rfind(|(at, _)| *at <= long_ago);
            prop_assert!(refresher.begun >= due.map_or(0, |(_, begun)| *begun));
        }
        prop_assert!(words <= 1 + ticks * TICK_MS / GATHER_MS, "{} in {} ticks", words, ticks);
    }
}
