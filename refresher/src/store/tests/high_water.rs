//! A database that was put back from an older copy.

use super::*;
use crate::store::sqlite::empty_log;

const MARK: &str = "high-water.json";

/// A store that looks at its mark, as a command does when it starts.
async fn start(state: &StateDir) -> Store {
    let store = open(state).await.unwrap();
    store.check_high_water(state, NOW).await.unwrap();
    store
}

async fn stop(state: &StateDir, store: Store) -> Vec<u8> {
    store.write_mark(state).await.unwrap();
    // Where several connections close at once SQLite may take none of them for the last one, and leave its log. An empty
    // one says nothing.
    for _ in 0..1_000 {
        if empty_log(&store.pool).await.unwrap() {
            store.close().await;
            return fs::read(state.database()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log is in use");
}

async fn refresh(store: &Store, id: &AccountId, generation: u64) {
    let held = claim(store, id, generation, LIFE).await;
    let new = tokens(&format!("access-{}", generation + 1));
    assert!(store.commit(&held, &new, None, NOW).await.unwrap());
}

#[tokio::test]
async fn spent_tokens_of_an_older_copy_are_not_sent() {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let store = start(&state).await;
    let (alice, bob) = (
        add_login(&store, "alice").await,
        add_login(&store, "bob").await,
    );
    add_api_key(&store, "team", "sk-1").await.unwrap();
    let (epoch, _) = store.head().await.unwrap();
    let older = stop(&state, store).await;

    let store = start(&state).await;
    assert_eq!(store.head().await.unwrap().0, epoch, "no false alarm");
    refresh(&store, &alice, 1).await;
    let newest = stop(&state, store).await;

    fs::write(state.database(), &older).unwrap();
    let store = open(&state).await.unwrap();
    for _ in 0..2 {
        let seen = store.older_copy(&state).await.unwrap().unwrap();
        let spent: Vec<_> = seen.spent.iter().map(|one| one.account.as_str()).collect();
        assert_eq!(spent, ["alice"], "a look changes nothing");
    }
    store.close().await;
    let store = start(&state).await;
    assert_eq!(store.older_copy(&state).await.unwrap(), None);
    assert!(store.account("alice").await.unwrap().is_spent);
    assert!(!store.account("bob").await.unwrap().is_spent);
    let (later, _) = store.head().await.unwrap();
    assert_ne!(later, epoch);
    assert_eq!(claim(&store, &bob, 1, LIFE).await.unanswered, 0);
    let reason = store.account("alice").await.unwrap().reason.unwrap();
    assert!(reason.contains("spent"), "{reason}");
    assert_eq!(store.account("team").await.unwrap().reason, None);
    assert_eq!(claim(&store, &alice, 1, Duration::ZERO).await.unanswered, 2);
    stop(&state, store).await;

    let store = start(&state).await;
    assert_eq!(store.head().await.unwrap().0, later, "it was seen to");
    stop(&state, store).await;

    fs::write(state.database(), &newest).unwrap();
    let store = start(&state).await;
    assert_eq!(claim(&store, &alice, 2, LIFE).await.unanswered, 0);
}

#[tokio::test]
async fn an_older_copy_without_spent_tokens_is_a_new_history_all_the_same() {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let store = start(&state).await;
    add_login(&store, "alice").await;
    let (epoch, _) = store.head().await.unwrap();
    let older = stop(&state, store).await;
    let store = start(&state).await;
    add_login(&store, "bob").await;
    stop(&state, store).await;
    fs::write(state.database(), &older).unwrap();
    let store = start(&state).await;
    assert_ne!(store.head().await.unwrap().0, epoch);
    assert_eq!(store.account("alice").await.unwrap().reason, None);
}

#[tokio::test]
async fn what_is_no_mark_keeps_nobody_from_starting() {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    for bytes in [&b""[..], b"{}", b"\xff", b"{\"epoch\":7}"] {
        fs::write(state.path().join(MARK), bytes).unwrap();
        let store = start(&state).await;
        stop(&state, store).await;
        assert_ne!(fs::read(state.path().join(MARK)).unwrap(), bytes);
    }
    fs::remove_file(state.path().join(MARK)).unwrap();
    fs::create_dir(state.path().join(MARK)).unwrap();
    start(&state).await;
}
