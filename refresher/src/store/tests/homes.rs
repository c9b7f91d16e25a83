//! A thing that an account made is found again for as long as the platform has it, by the client key that had it made.

use latchkey::home::ThingHash;
use latchkey::id::Id;
use latchkey::request::record::RequestRecord;
use serde_json::json;

use super::*;
use crate::store::Home;

fn record(key: &str, account: &str, ids: &[&str], until: i64) -> RequestRecord {
    let made = ids
        .iter()
        .map(|id| json!({"thing": ThingHash::of(id).to_string(), "until": until}));
    serde_json::from_value(json!({
        "at": NOW.0, "key": key, "pool": "default", "account": account, "dialect": "responses", "status": 200,
        "attempts": 1, "duration_ms": 9, "completeness": "whole", "made": made.collect::<Vec<_>>(),
    }))
    .unwrap()
}

async fn take(store: &Store, number: u32, records: &[RequestRecord]) {
    let batch = BatchId::parse(&format!("{number:032x}")).unwrap();
    store.take_records(batch, records, None, NOW).await.unwrap();
}

async fn home(store: &Store, key: &str, id: &str, now: i64) -> Home {
    let key = Id::try_from(key).unwrap();
    store
        .home(&ThingHash::of(id), &key, UnixMillis(now))
        .await
        .unwrap()
}

fn at(account: &str) -> Home {
    Home::At(account.to_owned())
}

#[tokio::test]
async fn a_home_is_kept_with_its_record_until_its_thing_is_forgotten() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let late = NOW.0 + 1_000;
    let first = [
        record("key_1", "acc_1", &["batch_1", "file-out"], late),
        record("key_1", "acc_2", &["resp_2"], late + 1),
    ];
    take(store, 1, &first).await;
    // Whoever comes second with the same id takes nothing.
    take(
        store,
        2,
        &[record("key_1", "acc_9", &["batch_1"], late + 9)],
    )
    .await;
    for id in ["batch_1", "file-out"] {
        assert_eq!(home(store, "key_1", id, NOW.0).await, at("acc_1"));
        assert_eq!(home(store, "key_2", id, NOW.0).await, Home::Others);
        assert_eq!(
            home(store, "key_1", id, late).await,
            Home::Nowhere,
            "it is over"
        );
        assert_eq!(home(store, "key_2", id, late).await, Home::Nowhere);
    }
    assert_eq!(home(store, "key_1", "resp_2", NOW.0).await, at("acc_2"));
    assert_eq!(home(store, "key_1", "resp_3", NOW.0).await, Home::Nowhere);
    // Where callers choose ids, each has its own.
    take(store, 3, &[record("key_2", "acc_3", &["batch_1"], late)]).await;
    assert_eq!(home(store, "key_2", "batch_1", NOW.0).await, at("acc_3"));
    assert_eq!(home(store, "key_1", "batch_1", NOW.0).await, at("acc_1"));
    store.prune_homes(UnixMillis(late)).await.unwrap();
    assert_eq!(
        home(store, "key_1", "batch_1", NOW.0).await,
        Home::Nowhere,
        "it is gone"
    );
    assert_eq!(home(store, "key_1", "resp_2", NOW.0).await, at("acc_2"));
}

#[tokio::test]
async fn who_makes_most_gives_up_what_is_too_much() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let names: Vec<String> = (0..30).map(|number| format!("resp_{number}")).collect();
    let many = names
        .iter()
        .zip(1..)
        .map(|(name, until)| record("key_1", "acc_1", &[name], NOW.0 + until));
    take(store, 1, &many.collect::<Vec<_>>()).await;
    take(
        store,
        2,
        &[record("key_2", "acc_2", &["file-a", "file-b"], NOW.0 + 1)],
    )
    .await;
    store.prune_homes_to(12, NOW).await.unwrap();
    for id in ["file-a", "file-b"] {
        assert_eq!(home(store, "key_2", id, NOW.0).await, at("acc_2"));
    }
    for (number, name) in names.iter().enumerate() {
        let expected = if number < 20 {
            Home::Nowhere
        } else {
            at("acc_1")
        };
        assert_eq!(home(store, "key_1", name, NOW.0).await, expected, "{name}");
    }
}
