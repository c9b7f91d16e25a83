//! Accounts that are logged out, and what meets them meanwhile.

use super::*;

#[tokio::test]
async fn a_logout_keeps_the_account_and_ends_its_credential() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    publish(&store, &["codex"]).await;
    let taken = store.take_out(&id, NOW).await.unwrap();
    assert_eq!(taken.credential.on_the_wire().expose_secret(), "access-1");
    // Out of use at once, whatever the platform says of it then.
    let account = store.account("alice").await.unwrap();
    assert_eq!(account.status, Status::NeedsLogin);
    assert!(store.entries().await.unwrap().is_empty());
    let (records, _) = poll(&store, None, 0).await;
    let accounts = keys(&records).into_iter();
    assert_eq!(accounts.filter(|key| key.0 == Kind::Account).count(), 0);
    // The platform said no: a second try has the same credential.
    let again = store.take_out(&id, NOW).await.unwrap();
    assert_eq!(again.credential.on_the_wire().expose_secret(), "access-1");
    store.empty(&again, NOW).await.unwrap();
    assert!(store.credential(&id).await.unwrap().is_empty());
    let last = store.take_out(&id, NOW).await.unwrap();
    assert!(last.credential.is_empty());
    assert_eq!(last.generation, again.generation);
    let refused = store.asked_account("alice").await.unwrap_err();
    assert!(matches!(refused, Error::NeedsLogin { .. }), "{refused}");
}

#[tokio::test]
async fn what_comes_during_a_logout_is_not_undone_by_it() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    // An answer under way brings a token that nobody would revoke.
    let held = claim(&store, &id, 1, LIFE).await;
    let refused = store.take_out(&id, NOW).await.unwrap_err();
    assert!(matches!(refused, Error::Refreshing { .. }), "{refused}");
    let wait = Retry {
        at: NOW,
        failures: 1,
        failing: None,
        unanswered: 0,
    };
    store.retry_later(&held, wait).await.unwrap();

    let lapsed = claim(&store, &id, 1, Duration::ZERO).await;
    let taken = store.take_out(&id, NOW).await.unwrap();
    let late = tokens("access-2");
    let is_stored = store.commit(&lapsed, &late, None, NOW).await.unwrap();
    assert!(!is_stored, "a refresh logged it in again");

    // Somebody logs in while the platform is asked.
    let login = NewAccount {
        name: "alice",
        platform: "codex",
        credential: tokens("access-3"),
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    let terms = Terms::default();
    let saved = store.save_account(login, &terms, true, NOW).await.unwrap();
    assert_eq!(saved, Saved::Renewed(id.clone()));
    store.empty(&taken, NOW).await.unwrap();
    let credential = store.credential(&id).await.unwrap();
    assert_eq!(credential.on_the_wire().expose_secret(), "access-3");
}
