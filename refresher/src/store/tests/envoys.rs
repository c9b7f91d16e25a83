//! The requests that an Envoy process began, and those of them that are recorded, are summed up, each batch once.

use latchkey::id::Id;
use latchkey::sync::records::Begun;
use serde_json::json;

use super::*;
use crate::store::envoys::MAX_ENVOYS;

const ALL: usize = 10_000;
const HOUR: Duration = Duration::from_secs(60 * 60);

fn begun(instance: u128, requests: u64) -> Begun {
    Begun {
        instance: format!("{instance:032x}"),
        node: Id::try_from("latchkey").ok(),
        requests,
    }
}

fn batch(number: u128) -> BatchId {
    BatchId::parse(&format!("{number:032x}")).unwrap()
}

fn record(count: u32) -> latchkey::request::record::RequestRecord {
    serde_json::from_value(json!({
        "at": NOW.0, "key": "key_1", "pool": "default", "dialect": "chat", "status": 429, "attempts": 1,
        "duration_ms": 9, "completeness": "whole", "count": count,
    }))
    .unwrap()
}

/// The sums of each process since `since`, by its number.
async fn sums(store: &Store, since: UnixMillis) -> Vec<(u128, u64, u64)> {
    let envoys = store.envoys(since, ALL).await.unwrap().into_iter();
    let number = |instance: &str| u128::from_str_radix(instance, 16).unwrap();
    envoys
        .map(|one| (number(&one.instance), one.begun, one.recorded))
        .collect()
}

#[tokio::test]
async fn a_batch_counts_once_however_often_it_comes() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let all = UnixMillis(0);
    for _ in 0..3 {
        let records = [record(1), record(4)];
        let said = begun(7, 9);
        store
            .take_records(batch(1), &records, Some(&said), NOW)
            .await
            .unwrap();
    }
    assert_eq!(sums(store, all).await, [(7, 9, 5)]);
    // Streams that begin, of which there is no record yet.
    let said = begun(7, 3);
    for _ in 0..2 {
        store
            .take_records(batch(2), &[], Some(&said), NOW)
            .await
            .unwrap();
    }
    let later = NOW.plus(HOUR);
    let said = begun(8, 1);
    store
        .take_records(batch(3), &[record(1)], Some(&said), later)
        .await
        .unwrap();
    let expected = [(8, 1, 1), (7, 12, 5)];
    assert_eq!(sums(store, all).await, expected, "the last heard first");
    assert_eq!(sums(store, later).await, expected[..1]);
    let seven = store.envoys(all, ALL).await.unwrap().remove(1);
    assert_eq!(seven.node.as_deref(), Some("latchkey"));
    assert_eq!(seven.unrecorded(), 7);
    let store = open(&fixture.state).await.unwrap();
    assert_eq!(sums(&store, all).await, expected, "also after a restart");
}

#[tokio::test]
async fn a_batch_that_says_nothing_of_its_process_is_taken_all_the_same() {
    let fixture = fixture().await;
    let taken = fixture
        .store
        .take_records(batch(1), &[record(1)], None, NOW)
        .await;
    assert_eq!(taken.unwrap(), Taken::New);
    assert_eq!(sums(&fixture.store, UnixMillis(0)).await, []);
}

#[tokio::test]
async fn processes_are_forgotten_with_the_records_and_when_there_are_too_many() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let mut change = store.change().await.unwrap();
    let many = u128::try_from(MAX_ENVOYS).unwrap();
    for number in 0..many + 2 {
        let at = NOW.plus(Duration::from_secs(u64::try_from(number).unwrap()));
        change.add_requests(&begun(number, 1), 1, at).await.unwrap();
    }
    change.commit().await.unwrap();
    let found = sums(store, UnixMillis(0)).await;
    assert_eq!(found.len() as i64, MAX_ENVOYS);
    assert_eq!(found.first().map(|one| one.0), Some(many + 1));
    assert_eq!(found.last().map(|one| one.0), Some(2), "the oldest went");
    store.prune_records(1, NOW.plus(48 * HOUR)).await.unwrap();
    assert_eq!(sums(store, UnixMillis(0)).await, []);
}
