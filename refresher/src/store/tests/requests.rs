//! The use of requests is counted once, summed up right, and goes when its time has come.

use latchkey::request::record::RequestRecord as Request;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn request(at: UnixMillis, other: serde_json::Value) -> Request {
    let mut record = json!({
        "at": at.0, "key": "key_1", "pool": "default", "account": "acc_1", "platform": "openai", "dialect": "chat",
        "model": "gpt", "status": 200, "verdict": "fine", "attempts": 1, "duration_ms": 9, "completeness": "whole",
        "usage": {"input": 10, "output": 5, "cached_input": 4, "cache_write": 0, "reasoning": 2, "total": 15},
    });
    let values = record.as_object_mut().unwrap();
    values.extend(other.as_object().unwrap().clone());
    serde_json::from_value(record).unwrap()
}

fn batch(number: u128) -> BatchId {
    BatchId::parse(&format!("{number:032x}")).unwrap()
}

#[tokio::test]
async fn a_batch_counts_once_also_after_a_restart() {
    let fixture = fixture().await;
    let records = [request(NOW, json!({})), request(NOW, json!({}))];
    let take = async |store: &Store, number| {
        store
            .take_records(batch(number), &records, None, NOW)
            .await
            .unwrap()
    };
    assert_eq!(take(&fixture.store, 1).await, Taken::New);
    assert_eq!(take(&fixture.store, 1).await, Taken::Known);
    fixture.store.close().await;
    let store = open(&fixture.state).await.unwrap();
    assert_eq!(take(&store, 1).await, Taken::Known);
    assert_eq!(take(&store, 2).await, Taken::New);
    let sums = store.usage(By::Key, UnixMillis(0)).await.unwrap();
    assert_eq!((sums.len(), sums[0].requests, sums[0].total), (1, 4, 60));
}

#[tokio::test]
async fn sums_are_by_what_was_asked_for_and_say_what_is_estimated_and_failed() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let login = add_login(store, "alice").await;
    let records = [
        request(
            NOW.minus(DAY),
            json!({"account": login.as_str(), "estimate": true}),
        ),
        request(
            NOW,
            json!({"model": null, "asked": "claude", "completeness": "cut"}),
        ),
        request(NOW, json!({"status": 500, "usage": null})),
        request(
            NOW,
            json!({"account": null, "platform": null, "status": 429, "error": "latchkey_all_out",
            "usage": null, "model": null, "count": 6}),
        ),
        request(NOW, json!({"error": "failed_inside"})),
        request(
            NOW,
            json!({"account": "acc_2", "status": 0, "completeness": "left", "usage": null}),
        ),
        request(
            NOW,
            json!({"usage": {"input": u64::MAX, "output": 0, "cached_input": 0, "cache_write": 0,
            "reasoning": 0, "total": u64::MAX}, "key": "key_odd"}),
        ),
        request(
            NOW,
            json!({"usage": {"input": u64::MAX, "output": 0, "cached_input": 0, "cache_write": 0,
            "reasoning": 0, "total": u64::MAX}, "key": "key_odd"}),
        ),
    ];
    store
        .take_records(batch(1), &records, None, NOW)
        .await
        .unwrap();
    let since = NOW.minus(2 * DAY);
    let groups = async |by, since| {
        let sums = store.usage(by, since).await.unwrap();
        let group = |sums: Sums| {
            (
                sums.group.unwrap_or_default(),
                sums.name,
                sums.requests,
                sums.failed,
            )
        };
        sums.into_iter().map(group).collect::<Vec<_>>()
    };
    let accounts = groups(By::Account, since).await;
    assert_eq!(accounts.len(), 4, "{accounts:?}");
    assert!(
        accounts.contains(&("acc_2".to_owned(), None, 1, 0)),
        "who leaves early is no failure of the account's: {accounts:?}"
    );
    let sums = store.usage(By::Account, since).await.unwrap();
    let left: u64 = sums.iter().map(|sums| sums.caller_left).sum();
    assert_eq!(left, 1, "{sums:?}");
    assert!(
        accounts.contains(&(login.to_string(), Some("alice".to_owned()), 1, 0)),
        "{accounts:?}"
    );
    assert!(
        accounts.contains(&(String::new(), None, 6, 6)),
        "{accounts:?}"
    );
    assert!(
        accounts.contains(&("acc_1".to_owned(), None, 5, 3)),
        "{accounts:?}"
    );
    let days = groups(By::Day, since).await;
    let names: Vec<_> = days.iter().map(|day| day.0.as_str()).collect();
    assert_eq!(names, ["2026-09-20", "2026-09-21"]);
    assert_eq!(groups(By::Day, NOW).await.len(), 1);
    let models: Vec<_> = groups(By::Model, since)
        .await
        .into_iter()
        .map(|group| group.0)
        .collect();
    assert_eq!(models, ["gpt", "claude", ""]);
    let keys = store.usage(By::Key, since).await.unwrap();
    let key = keys
        .iter()
        .find(|key| key.group.as_deref() == Some("key_1"))
        .unwrap();
    assert_eq!((key.estimates, key.input, key.cached_input), (1, 30, 12));
    assert_eq!((key.output, key.reasoning, key.total), (15, 6, 45));
}

#[tokio::test]
async fn old_requests_and_batches_go_and_young_ones_stay() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let old: Vec<_> = (0..12_000).map(|_| request(NOW, json!({}))).collect();
    store.take_records(batch(1), &old, None, NOW).await.unwrap();
    let later = NOW.plus(30 * DAY);
    store
        .take_records(batch(2), &[request(later, json!({}))], None, later)
        .await
        .unwrap();
    assert_eq!(store.prune_records(31, later).await.unwrap(), 0);
    assert_eq!(store.prune_records(29, later).await.unwrap(), 12_000);
    assert_eq!(
        store.usage(By::Key, UnixMillis(0)).await.unwrap()[0].requests,
        1
    );
    // A batch is remembered for a week, the young one still is.
    assert_eq!(
        store
            .take_records(batch(2), &[], None, later)
            .await
            .unwrap(),
        Taken::Known
    );
    assert_eq!(
        store
            .take_records(batch(1), &[], None, later)
            .await
            .unwrap(),
        Taken::New
    );
}

#[test]
fn a_batch_id_is_32_hex_digits() {
    assert_eq!(
        BatchId::parse(&"0A".repeat(16)),
        BatchId::parse(&"0a".repeat(16))
    );
    for bad in ["", "0", &"g".repeat(32), &"0".repeat(33), &"é".repeat(16)] {
        assert_eq!(BatchId::parse(bad), None, "{bad}");
    }
    assert_eq!(BatchId::parse("+0000000000000000000000000000000"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Each record is counted once, in whatever order batches come, and however often.
    #[test]
    fn batches_in_any_order_and_number_count_once(
        sizes in prop::collection::vec(1..20_u64, 1..8), order in prop::collection::vec(0..8_usize, 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = fixture().await;
            let mut expected = BTreeMap::new();
            for index in order.iter().map(|index| index % sizes.len()) {
                let records: Vec<_> = (0..sizes[index]).map(|_| request(NOW, json!({}))).collect();
                let taken = fixture.store.take_records(batch(index as u128), &records, None, NOW).await.unwrap();
                let is_new = expected.insert(index, sizes[index]).is_none();
                assert_eq!(taken, if is_new { Taken::New } else { Taken::Known });
            }
            let sums = fixture.store.usage(By::Key, UnixMillis(0)).await.unwrap();
            assert_eq!(sums[0].requests, expected.values().sum::<u64>());
        });
    }
}
