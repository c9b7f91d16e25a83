//! Accounts that are saved, renewed or refused.

use super::*;

#[tokio::test]
async fn a_new_login_renews_the_account_of_its_name() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(store.needs_login(&held, "ended").await.unwrap());
    let new = |platform| NewAccount {
        name: "alice",
        platform,
        credential: tokens("access-9"),
        vars: BTreeMap::new(),
        credential_expires_at: None,
    };
    assert_eq!(
        store.save_account(new("codex"), true, NOW).await.unwrap(),
        Saved::Renewed(id.clone())
    );
    let account = store.account(id.as_str()).await.unwrap();
    assert_eq!(
        (account.status, account.generation, account.reason),
        (Status::Active, 2, None)
    );
    for (platform, renew) in [("codex", false), ("openai", true)] {
        assert!(matches!(
            store.save_account(new(platform), renew, NOW).await,
            Err(Error::NameTaken { .. })
        ));
    }
}

#[tokio::test]
async fn what_cannot_go_to_envoy_is_refused() {
    let Fixture { store, _outer, .. } = fixture().await;
    for (name, key) in [
        ("", "k"),
        ("-x", "k"),
        ("a\nb", "k"),
        ("é", "k"),
        ("ok", ""),
        ("ok", "k\r\nx: y"),
    ] {
        assert!(
            matches!(
                add_api_key(&store, name, key).await,
                Err(Error::Unfit { .. })
            ),
            "{name:?} {key:?}"
        );
    }
    assert_eq!(store.accounts().await.unwrap(), []);
    let unknown = store.disable("nobody", NOW).await.unwrap_err();
    assert!(
        matches!(&unknown, Error::Unknown { record: Named::Account, name } if name == "nobody"),
        "{unknown}"
    );
}

#[tokio::test]
async fn a_login_that_was_waited_for_renews_only_what_still_waits_for_it() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let renew = async |generation| {
        let new = NewAccount {
            name: "alice",
            platform: "codex",
            credential: tokens("access-2"),
            vars: BTreeMap::from([("account_id".to_owned(), "ws-1".to_owned())]),
            credential_expires_at: None,
        };
        store.renew_login(&id, generation, new, NOW).await.unwrap()
    };
    assert!(!renew(1).await, "it needs none");
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(store.needs_login(&held, "over").await.unwrap());
    assert!(!renew(2).await, "another generation");
    assert!(renew(1).await);
    let account = store.account("alice").await.unwrap();
    assert_eq!((account.status, account.generation), (Status::Active, 2));
    let stored = store.tokens(&id).await.unwrap().unwrap();
    assert_eq!(stored.access.expose_secret(), "access-2");
    store.remove_account(&id).await.unwrap();
    assert!(!renew(2).await, "it is gone");
    assert_eq!(store.accounts().await.unwrap(), []);
}

#[tokio::test]
async fn an_end_is_set_kept_published_and_taken_off() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex", "openai"]).await;
    let id = add_login(&store, "alice").await;
    let ends = |at: Option<UnixMillis>| Terms {
        expires_at: Some(at),
        ..Terms::default()
    };
    let set = async |terms: Terms| {
        let set = store.set_account("alice", None, &terms, NOW);
        set.await.unwrap();
    };
    let end = async || {
        let (records, _) = poll(&store, None, 0).await;
        let published = records.into_iter().find_map(|record| match record {
            Record::Account(account) if account.name.as_str() == "alice" => {
                Some(account.expires_at)
            }
            _ => None,
        });
        let known = store.account("alice").await.unwrap().expires_at;
        let millis = known.map(|time| u64::try_from(time.0).unwrap());
        assert_eq!(published, Some(millis));
        known
    };
    assert_eq!(end().await, None);
    set(ends(Some(NOW))).await;
    assert_eq!(end().await, Some(NOW));
    set(Terms {
        limits: LimitChanges {
            time_zone: Some(Some("Europe/Berlin".to_owned())),
            ..LimitChanges::default()
        },
        ..Terms::default()
    })
    .await;
    assert_eq!(end().await, Some(NOW), "what is not said stays");

    // Past its end, its login is kept fresh, as that of a disabled account is; and a new one leaves the end as it is.
    let entries = store.entries().await.unwrap();
    assert_eq!(entries[0].account, id);
    let held = claim(&store, &id, 1, LIFE).await;
    let fresh = tokens("access-2");
    assert!(store.commit(&held, &fresh, None, NOW).await.unwrap());
    assert_eq!(end().await, Some(NOW));
    set(ends(None)).await;
    assert_eq!(end().await, None);
}

#[tokio::test]
async fn a_key_that_is_renewed_keeps_its_accounts_end_unless_told_another() {
    let Fixture { store, _outer, .. } = fixture().await;
    let save = async |expires_at: Option<Option<UnixMillis>>| {
        let new = NewAccount {
            name: "trial",
            platform: "openai",
            credential: Credential::ApiKey("sk-1".into()),
            vars: BTreeMap::new(),
            credential_expires_at: None,
        };
        let terms = Terms {
            expires_at,
            ..Terms::default()
        };
        let saved = store.save_account_on(new, &terms, true, NOW);
        saved.await.unwrap();
        store.account("trial").await.unwrap().expires_at
    };
    let later = NOW.plus(LIFE);
    assert_eq!(save(Some(Some(NOW))).await, Some(NOW));
    assert_eq!(save(None).await, Some(NOW));
    assert_eq!(save(Some(Some(later))).await, Some(later));
    assert_eq!(save(Some(None)).await, None);
}
