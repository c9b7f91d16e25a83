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
        credential: Credential::OAuth(tokens("access-9")),
        vars: BTreeMap::new(),
        expires_at: None,
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
    let message = store.disable("nobody", NOW).await.unwrap_err().to_string();
    assert!(
        message.contains("\"nobody\"") && message.contains("refresher accounts list"),
        "{message}"
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
            credential: Credential::OAuth(tokens("access-2")),
            vars: BTreeMap::from([("account_id".to_owned(), "ws-1".to_owned())]),
            expires_at: None,
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
