//! What an account made is found again for as long as the platform has it.

use latchkey::home::ThingHash;
use latchkey::id::Id;
use latchkey::request::record::Record;
use serde_json::json;

use super::*;

fn thing(id: &str) -> ThingHash {
    ThingHash::of(&Id::try_from("key_1").unwrap(), id)
}

fn record(account: &str, id: &str, until: i64) -> Record {
    serde_json::from_value(json!({
        "at": NOW.0, "key": "key_1", "pool": "default", "account": account, "dialect": "responses", "status": 200,
        "attempts": 1, "duration_ms": 9, "completeness": "whole", "made": {"thing": thing(id).to_string(), "until": until},
    }))
    .unwrap()
}

#[tokio::test]
async fn a_home_is_kept_with_its_record_until_its_thing_is_forgotten() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let late = NOW.0 + 1_000;
    let first = [
        record("acc_1", "resp_1", late),
        record("acc_2", "resp_2", late + 1),
    ];
    // Whoever comes second with the same id takes nothing.
    let second = [record("acc_9", "resp_1", late + 9)];
    for (number, records) in [(1, &first[..]), (2, &second[..])] {
        let batch = BatchId::parse(&format!("{number:032x}")).unwrap();
        store.take_records(batch, records, None, NOW).await.unwrap();
    }
    let home = async |id: &str, now| store.home(&thing(id), UnixMillis(now)).await.unwrap();
    assert_eq!(home("resp_1", NOW.0).await.as_deref(), Some("acc_1"));
    assert_eq!(home("resp_2", NOW.0).await.as_deref(), Some("acc_2"));
    assert_eq!(home("resp_3", NOW.0).await, None);
    assert_eq!(home("resp_1", late).await, None, "it is over");
    store.prune_records(90, UnixMillis(late)).await.unwrap();
    assert_eq!(home("resp_1", NOW.0).await, None, "it is gone");
    assert_eq!(home("resp_2", NOW.0).await.as_deref(), Some("acc_2"));
}
