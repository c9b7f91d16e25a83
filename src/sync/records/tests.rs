use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{dialect::Dialect, request::carried::Carried, verdict::Reason};

fn vm(number: u64) -> Origin {
    Origin {
        instance: "0123456789abcdef".repeat(2),
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

fn of_key(key: &str, number: u64) -> Carried {
    let text = format!("account=a key={key} pool=p url=http://g/v1 id=req-{number} at=5");
    Carried::decode(text.as_bytes()).unwrap()
}

fn record(number: u64) -> Record {
    let platform = Id::try_from("openai").unwrap();
    Record::of_attempt(&of_key("k", number), &platform, Dialect::Chat)
}

fn refused(key: &str, error: &'static str, number: u64) -> Record {
    Record::of_request(&of_key(key, number), Dialect::Chat).answered(429, Reason::known(error), 9)
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
