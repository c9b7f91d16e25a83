//! Requests that die with a VM count as lost, each once, and not where the VM speaks again.

use latchkey::id::Id;
use latchkey::sync::tally::{Counts, Origin, Tally};
use serde_json::json;

use super::*;
use crate::lost::Untold;
use crate::store::vms::MAX_VMS;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn tally(vm: u64, number: u64, begun: u64, told: u64, dropped: u64) -> Tally {
    Tally {
        origin: Origin {
            instance: "0123456789abcdef".repeat(2),
            vm,
            node: Id::try_from("latchkey").ok(),
        },
        number,
        counts: Counts {
            begun,
            told,
            dropped,
        },
    }
}

/// Those that have requests to tell of, and how many.
async fn untold(store: &Store) -> Vec<(u64, u64)> {
    let untold = store.untold().await.unwrap();
    let one = |untold: &Untold| (untold.origin.vm, untold.requests);
    untold.iter().map(one).collect()
}

async fn lost(store: &Store) -> u64 {
    store.lost(UnixMillis(0)).await.unwrap()
}

#[tokio::test]
async fn what_a_silent_vm_has_not_told_of_is_lost_until_it_speaks_again() {
    let fixture = fixture().await;
    let store = &fixture.store;
    store.hear(&tally(1, 1, 9, 4, 2), NOW).await.unwrap();
    store.hear(&tally(2, 1, 7, 7, 0), NOW).await.unwrap();
    assert_eq!(untold(store).await, [(1, 3)]);
    assert_eq!(lost(store).await, 0);
    let silent = store.untold().await.unwrap().remove(0);
    assert_eq!(silent.origin, tally(1, 1, 0, 0, 0).origin);

    // It spoke after it was looked at.
    let later = NOW.plus(HOUR);
    store.hear(&tally(1, 2, 10, 4, 2), later).await.unwrap();
    assert!(!store.miss(&silent, later).await.unwrap());
    let silent = store.untold().await.unwrap().remove(0);
    assert!(store.miss(&silent, later).await.unwrap());
    assert!(
        !store.miss(&silent, later).await.unwrap(),
        "only one says so"
    );
    assert_eq!((untold(store).await, lost(store).await), (vec![], 4));
    assert_eq!(store.lost(later.plus(HOUR)).await.unwrap(), 0);

    fixture.store.close().await;
    let store = open(&fixture.state).await.unwrap();
    assert_eq!(lost(&store).await, 4, "also after a restart");
    // A batch of two that was on its way for long: two requests are not lost.
    let record = json!({
        "at": NOW.0, "key": "key_1", "pool": "default", "dialect": "chat", "status": 200, "attempts": 1,
        "duration_ms": 9, "completeness": "whole",
    });
    let records = [0; 2].map(|_| serde_json::from_value(record.clone()).unwrap());
    let id = BatchId::parse(&"0".repeat(32)).unwrap();
    let said = tally(1, 3, 10, 6, 2);
    for (taken, back) in [(Taken::New, 4), (Taken::Known, 0)] {
        let received = store.take_records(id, &records, Some(&said), later).await;
        assert_eq!(received.unwrap(), Received { taken, back });
    }
    assert_eq!(
        (untold(&store).await, lost(&store).await),
        (vec![(1, 2)], 0)
    );
    let silent = store.untold().await.unwrap().remove(0);
    assert!(store.miss(&silent, later).await.unwrap());
    assert_eq!(lost(&store).await, 2);
}

#[tokio::test]
async fn what_comes_late_changes_nothing_that_was_said_later() {
    let fixture = fixture().await;
    let store = &fixture.store;
    for said in [
        // A batch was taken and its answer lost; the tally after it does not know that.
        tally(1, 4, 20, 15, 0),
        tally(1, 5, 22, 10, 1),
        tally(1, 3, 18, 10, 0),
    ] {
        store.hear(&said, NOW).await.unwrap();
    }
    assert_eq!(untold(store).await, [(1, 22 - 15 - 1)]);
}

#[tokio::test]
async fn vms_are_forgotten_when_there_is_nothing_more_to_say_of_them() {
    let fixture = fixture().await;
    let store = &fixture.store;
    store.hear(&tally(1, 1, 5, 5, 0), NOW).await.unwrap();
    store.hear(&tally(2, 1, 5, 4, 0), NOW).await.unwrap();
    store.hear(&tally(3, 1, 5, 2, 0), NOW).await.unwrap();
    let silent = store.untold().await.unwrap();
    assert!(store.miss(&silent[0], NOW).await.unwrap());
    let rows = async || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM vms");
        count.fetch_one(&store.pool).await.unwrap()
    };
    store.prune_records(1, NOW.plus(HOUR)).await.unwrap();
    assert_eq!(rows().await, 3);
    let later = NOW.plus(HOUR).plus(Duration::from_millis(1));
    store.prune_records(1, later).await.unwrap();
    assert_eq!((rows().await, lost(store).await), (2, 1));
    store.prune_records(1, NOW.plus(25 * HOUR)).await.unwrap();
    assert_eq!((rows().await, lost(store).await), (1, 0));
    assert_eq!(untold(store).await, [(3, 3)], "it may speak yet");
}

#[tokio::test]
async fn no_more_vms_are_remembered_than_there_is_room_for() {
    let fixture = fixture().await;
    let store = &fixture.store;
    let most = MAX_VMS.unsigned_abs();
    let fill = "WITH RECURSIVE n(vm) AS (SELECT 10 UNION ALL SELECT vm + 1 FROM n WHERE vm < ? + 9) \
                INSERT INTO vms (instance, vm, number, begun, told, dropped, heard_at) \
                SELECT ?, vm, 1, 2, 0, 0, ? + vm FROM n";
    sqlx::query(fill)
        .bind(MAX_VMS)
        .bind(tally(0, 0, 0, 0, 0).origin.instance)
        .bind(NOW.0)
        .execute(&store.pool)
        .await
        .unwrap();
    let known = async |vm: i64| -> bool {
        let known = sqlx::query_scalar("SELECT count(*) FROM vms WHERE vm = ? AND instance <> ''");
        let count: i64 = known.bind(vm).fetch_one(&store.pool).await.unwrap();
        count > 0
    };
    let later = NOW.plus(HOUR);
    store.hear(&tally(1, 1, 1, 0, 0), later).await.unwrap();
    assert!(!known(1).await, "all of them may speak yet");

    // One that has nothing to tell of goes first, then those that were missed, and what they lost stays counted.
    store.hear(&tally(12, 2, 2, 2, 0), later).await.unwrap();
    for silent in store.untold().await.unwrap() {
        if [10, 11].contains(&silent.origin.vm) {
            assert!(store.miss(&silent, later).await.unwrap());
        }
    }
    assert_eq!(lost(store).await, 4);
    for (new, gone) in [(2, 12), (3, 10), (4, 11)] {
        store.hear(&tally(new, 1, 1, 0, 0), later).await.unwrap();
        assert!(known(new as i64).await && !known(gone).await, "{new}");
        assert_eq!(lost(store).await, 4);
    }
    let untold = store.untold().await.unwrap();
    assert_eq!(untold.len() as u64, most);
}
