//! Claims and intents of refreshes, across processes and restarts.

use super::*;
use crate::failing::{Failing, Failure};

#[tokio::test]
async fn one_claim_at_a_time() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let id = add_login(&store, "alice").await;
    let other = open(&state).await.unwrap();
    let held = claim(&store, &id, 1, LIFE).await;
    assert_eq!(held.credential.on_the_wire().expose_secret(), "access-1");
    assert!(matches!(
        other.claim(&id, 1, NOW, LIFE, &single_use).await.unwrap(),
        Claimed::Busy
    ));
    store
        .retry_later(
            &held,
            Retry {
                at: NOW,
                failures: 1,
                failing: None,
                unanswered: 0,
            },
        )
        .await
        .unwrap();
    assert_eq!(claim(&other, &id, 1, LIFE).await.failures, 1);
}

/// Until a refresh goes well, or another credential takes the place of the one that could not be renewed.
#[tokio::test]
async fn how_refreshes_fail_is_kept_with_the_account() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let failing = Failing::noted(None, Failure::Refused, "HTTP 403", NOW);
    let fail = async |id: &AccountId, generation| {
        let held = claim(&store, id, generation, LIFE).await;
        let retry = Retry {
            at: NOW,
            failures: 1,
            failing: Some(failing.clone()),
            unanswered: 0,
        };
        store.retry_later(&held, retry).await.unwrap();
    };
    let told = async || store.account("alice").await.unwrap().failing;
    assert_eq!(told().await, None);
    fail(&id, 1).await;
    assert_eq!(told().await, Some(failing.clone()));
    let held = claim(&store, &id, 1, LIFE).await;
    assert_eq!(held.failing, Some(failing.clone()));
    let stored = store.commit(&held, &tokens("access-2"), None, NOW).await;
    assert!(stored.unwrap());
    assert_eq!(told().await, None);

    fail(&id, 2).await;
    let login = NewAccount {
        name: "alice",
        platform: "codex",
        credential: tokens("access-3"),
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    let saved = store
        .save_account(login, &Terms::default(), true, NOW)
        .await;
    saved.unwrap();
    assert_eq!(told().await, None);

    fail(&id, 3).await;
    store.take_out(&id, NOW).await.unwrap();
    assert_eq!(told().await, None);

    let id = add_login(&store, "bob").await;
    fail(&id, 1).await;
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(store.needs_login(&held, "it is over").await.unwrap());
    assert_eq!(store.account("bob").await.unwrap().failing, None);
}

/// As one whose file named nobody.
#[tokio::test]
async fn only_an_account_without_an_owner_learns_who_that_is() {
    let Fixture { store, _outer, .. } = fixture().await;
    let told = |id: &str| {
        let vars = [
            ("account_id", id),
            ("user_id", "person-1"),
            ("email", "b@x"),
            ("plan", "a\nb"),
        ];
        vars.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    let named = add_login(&store, "alice").await;
    let new = NewAccount {
        name: "bob",
        platform: "claude-code",
        credential: tokens("access-2"),
        vars: BTreeMap::from([("email".to_owned(), "bob@x".to_owned())]),
        credential_expires_at: None,
        base_url: None,
    };
    let saved = store.save_account(new, &Terms::default(), false, NOW).await;
    let Saved::Added(nameless) = saved.unwrap() else {
        panic!("it is new");
    };
    let note = async |id: &AccountId, generation, told| {
        let told: BTreeMap<String, String> = told;
        store
            .note_owner(id, generation, "account_id", &told)
            .await
            .unwrap();
        let vars = store.vars(id).await.unwrap().into_iter();
        vars.map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(note(&named, 1, told("other")).await, "account_id=ws-1");
    assert_eq!(note(&nameless, 2, told("org-1")).await, "email=bob@x");
    let learned = "account_id=org-1 email=bob@x user_id=person-1";
    assert_eq!(note(&nameless, 1, told("org-1")).await, learned);
    assert_eq!(note(&nameless, 1, told("org-2")).await, learned);
    // Nothing is to be written: another's change does not hold it up.
    let change = store.change().await.unwrap();
    for (id, generation) in [(&nameless, 1), (&named, 2)] {
        let told = told("org-3");
        let noted = store.note_owner(id, generation, "account_id", &told);
        let noted = tokio::time::timeout(Duration::from_secs(5), noted).await;
        noted.expect("it waits for the change").unwrap();
    }
    drop(change);
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let id = add_login(&store, "alice").await;
    let other = open(&state).await.unwrap();
    let claims = (0..20)
        .map(|n| {
            if n % 2 == 0 {
                store.clone()
            } else {
                other.clone()
            }
        })
        .map(|store| {
            let id = id.clone();
            tokio::spawn(async move { store.claim(&id, 1, NOW, LIFE, &single_use).await.unwrap() })
        });
    let claimed = futures_util::future::join_all(claims).await;
    let won = claimed
        .into_iter()
        .filter(|claimed| matches!(claimed, Ok(Claimed::Ours(_))))
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_lapsed_claim_may_still_save_what_it_got_but_say_nothing_else() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let lapsed = claim(&store, &id, 1, Duration::ZERO).await;
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(!store.intend(&lapsed, NOW, LIFE).await.unwrap());
    assert!(!store.needs_login(&lapsed, "gone").await.unwrap());
    store
        .retry_later(
            &lapsed,
            Retry {
                at: NOW,
                failures: 9,
                failing: None,
                unanswered: 9,
            },
        )
        .await
        .unwrap();
    assert_eq!(store.account("alice").await.unwrap().failures, 0);
    assert!(
        store
            .commit(&lapsed, &tokens("access-2"), None, NOW)
            .await
            .unwrap()
    );
    assert!(
        !store
            .commit(&held, &tokens("access-3"), None, NOW)
            .await
            .unwrap()
    );
    assert!(matches!(
        store.claim(&id, 1, NOW, LIFE, &single_use).await.unwrap(),
        Claimed::Moved
    ));
    assert!(
        matches!(
            store.claim(&id, 2, NOW, LIFE, &single_use).await.unwrap(),
            Claimed::Busy
        ),
        "the other claim's call may be in flight"
    );
    assert_eq!(
        store
            .credential(&id)
            .await
            .unwrap()
            .on_the_wire()
            .expose_secret(),
        "access-2"
    );
}

#[tokio::test]
async fn an_intent_outlives_the_process_and_a_commit_clears_it() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let id = add_login(&store, "alice").await;
    let later = NOW.plus(LIFE);
    let held = claim(&store, &id, 1, Duration::ZERO).await;
    assert_eq!((held.unanswered, held.first_unanswered_at), (0, None));
    store.close().await;
    let store = open(&state).await.unwrap();
    for _ in 0..2 {
        let held = claim(&store, &id, 1, Duration::ZERO).await;
        assert_eq!(
            (held.unanswered, held.first_unanswered_at),
            (1, Some(NOW)),
            "only a first call is intended by its claim"
        );
    }
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(store.intend(&held, later, Duration::ZERO).await.unwrap());
    store.close().await;
    let store = open(&state).await.unwrap();
    let held = claim(&store, &id, 1, LIFE).await;
    assert_eq!((held.unanswered, held.first_unanswered_at), (2, Some(NOW)));
    assert!(
        store
            .commit(&held, &tokens("access-2"), Some(later), NOW)
            .await
            .unwrap()
    );
    let held = claim(&store, &id, 2, LIFE).await;
    assert_eq!(
        (held.unanswered, held.first_unanswered_at, held.failures),
        (0, None, 0)
    );
}

#[tokio::test]
async fn a_disabled_account_is_refreshed_and_one_without_a_login_is_not() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    assert!(store.disable("alice", NOW).await.unwrap());
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(
        store
            .commit(&held, &tokens("access-2"), None, NOW)
            .await
            .unwrap()
    );
    assert_eq!(
        store.account("alice").await.unwrap().status,
        Status::Disabled
    );
    let held = claim(&store, &id, 2, LIFE).await;
    assert!(
        store
            .needs_login(&held, "the login has ended")
            .await
            .unwrap()
    );
    assert!(matches!(
        store.claim(&id, 2, NOW, LIFE, &single_use).await.unwrap(),
        Claimed::NotRefreshable
    ));
    assert_eq!(store.entries().await.unwrap(), []);
    let refused = store.enable("alice", NOW).await.unwrap_err();
    assert!(
        matches!(&refused, Error::NeedsLogin { account, platform, .. } if account == "alice" && platform == "codex"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_new_login_during_a_refresh_leaves_the_claim_to_its_holder() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let held = claim(&store, &id, 1, LIFE).await;
    let new = NewAccount {
        name: "alice",
        platform: "codex",
        credential: tokens("access-9"),
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    assert_eq!(
        store
            .save_account(new, &Terms::default(), true, NOW)
            .await
            .unwrap(),
        Saved::Renewed(id.clone())
    );
    assert!(matches!(
        store.claim(&id, 2, NOW, LIFE, &single_use).await.unwrap(),
        Claimed::Busy
    ));
    let late = store.commit(&held, &tokens("access-2"), None, NOW).await;
    assert!(!late.unwrap(), "the login's tokens are newer");
}

#[tokio::test]
async fn a_claim_that_spends_nothing_leaves_no_intent() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let journal = async || -> (i64, Option<i64>) {
        sqlx::query_as("SELECT unanswered, first_unanswered_at FROM accounts")
            .fetch_one(&store.pool)
            .await
            .unwrap()
    };
    for renewal in [Renewal::Reusable, Renewal::Minted] {
        let renewal_of = |_: &str, _| renewal;
        let claimed = store.claim(&id, 1, NOW, LIFE, &renewal_of).await;
        let Ok(Claimed::Ours(held)) = claimed else {
            panic!("{claimed:?}")
        };
        assert_eq!(held.renewal, renewal);
        assert_eq!(journal().await, (0, None));
        let retry = Retry {
            at: NOW,
            failures: 1,
            failing: None,
            unanswered: held.unanswered,
        };
        store.retry_later(&held, retry).await.unwrap();
        assert_eq!(journal().await, (0, None));
    }
    let none = |_: &str, _| Renewal::None;
    let claimed = store.claim(&id, 1, NOW, LIFE, &none).await.unwrap();
    assert!(matches!(claimed, Claimed::NotRefreshable));
    claim(&store, &id, 1, LIFE).await;
    assert_eq!(journal().await, (1, Some(NOW.0)));
}
