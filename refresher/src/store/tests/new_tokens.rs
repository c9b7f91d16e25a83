//! New tokens get to the disk before what waits longer, together, and whoever was to put them there.

use super::*;

#[tokio::test]
async fn new_tokens_are_stored_before_claims_that_waited_longer() {
    let Fixture { store, _outer, .. } = fixture().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        ids.push(add_login(&store, name).await);
    }
    let held = claim(&store, &ids[0], 1, LIFE).await;
    let stored = RefCell::new(Vec::new());
    let claiming = async |id: &AccountId| {
        claim(&store, id, 1, LIFE).await;
        stored.borrow_mut().push("claim");
    };
    let committing = async {
        let new = tokens("access-2");
        assert!(store.commit(&held, &new, None, NOW).await.unwrap());
        stored.borrow_mut().push("tokens");
    };
    let writing = store.change().await.unwrap();
    let waiting = async {
        tokio::join!(
            claiming(&ids[1]),
            claiming(&ids[2]),
            claiming(&ids[3]),
            committing
        );
    };
    let mut waiting = std::pin::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    writing.commit().await.unwrap();
    waiting.await;
    assert_eq!(*stored.borrow(), ["tokens", "claim", "claim", "claim"]);
}

async fn three_claims(store: &Store) -> [Claim; 3] {
    let mut claims = Vec::new();
    for name in ["a", "b", "c"] {
        let id = add_login(store, name).await;
        claims.push(claim(store, &id, 1, LIFE).await);
    }
    claims.try_into().unwrap()
}

async fn generations(store: &Store) -> Vec<u64> {
    let accounts = store.accounts().await.unwrap();
    accounts.iter().map(|account| account.generation).collect()
}

#[tokio::test]
async fn tokens_that_wait_together_are_stored_together() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (claims, new) = (three_claims(&store).await, tokens("access-2"));
    let writing = store.change().await.unwrap();
    let commit = |claim| Box::pin(store.commit(claim, &new, None, NOW));
    let [mut a, mut b, mut c] = claims.each_ref().map(commit);
    for commit in [&mut a, &mut b, &mut c] {
        assert!(futures_util::poll!(commit).is_pending());
    }
    drop(writing);
    assert!(a.await.unwrap());
    assert_eq!(generations(&store).await, [2, 2, 2]);
    assert!(b.await.unwrap() && c.await.unwrap());
}

#[tokio::test]
async fn tokens_outlive_the_refresh_that_was_to_store_them() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (claims, new) = (three_claims(&store).await, tokens("access-2"));
    let writing = store.change().await.unwrap();
    let commit = |claim| Box::pin(store.commit(claim, &new, None, NOW));
    let [mut a, mut b, mut c] = claims.each_ref().map(commit);
    for commit in [&mut a, &mut b, &mut c] {
        assert!(futures_util::poll!(commit).is_pending());
    }
    drop(a);
    drop(writing);
    // It writes for all. How far it gets in one poll is up to SQLite's thread: to the disk, at times.
    let _ = futures_util::poll!(&mut b);
    drop(b);
    assert!(c.await.unwrap());
    let generations = generations(&store).await;
    assert!([[1, 1, 2], [2, 2, 2]].contains(&generations[..].try_into().unwrap()));
}

#[tokio::test]
async fn tokens_on_disk_already_are_stored() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (claims, new) = (three_claims(&store).await, tokens("access-2"));
    for _ in 0..2 {
        assert!(store.commit(&claims[0], &new, None, NOW).await.unwrap());
    }
    let other = tokens("access-3");
    assert!(!store.commit(&claims[0], &other, None, NOW).await.unwrap());
    assert_eq!(generations(&store).await, [2, 1, 1]);
}
