//! Accounts that are saved together, and what their files said.

use super::*;

fn new<'a>(name: &'a str, key: &str) -> NewAccount<'a> {
    NewAccount {
        name,
        platform: "openai",
        credential: Credential::ApiKey(key.into()),
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    }
}

fn member<'a>(name: &'a str, pool: Option<&'a str>, origin: Option<&'a [u8]>) -> Member<'a> {
    Member {
        account: new(name, "sk-1"),
        renew: false,
        pool,
        proxy: None,
        origin,
    }
}

#[tokio::test]
async fn all_are_saved_or_none() {
    let Fixture { store, _outer, .. } = fixture().await;
    add_api_key(&store, "taken", "sk-0").await.unwrap();
    store.create_pool("paid", Policy::Sticky).await.unwrap();
    let terms = Terms::default();
    for bad in [
        member("taken", None, None),
        member("no pool", Some("nowhere"), None),
        member("-", None, None),
    ] {
        let all = [member("first", Some("paid"), None), bad];
        assert!(store.save_accounts(&all, &terms, NOW).await.is_err());
        assert_eq!(
            store.accounts().await.unwrap().len(),
            1,
            "half of it is saved"
        );
    }
    let all = [
        member("first", Some("paid"), None),
        member("second", None, None),
    ];
    let saved = store.save_accounts(&all, &terms, NOW).await.unwrap();
    assert!(matches!(saved[..], [Saved::Added(_), Saved::Added(_)]));
    let pools = store.pools().await.unwrap();
    let members = |pool: &str| -> Vec<String> {
        let pool = pools.iter().find(|one| one.id == pool).unwrap();
        pool.members.iter().map(|one| one.account.clone()).collect()
    };
    assert_eq!(members("paid"), ["first"]);
    assert_eq!(members(DEFAULT_POOL), ["taken", "first", "second"]);
}

#[tokio::test]
async fn what_a_file_said_is_sealed_and_outlives_keys_and_credentials() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let said = b"{\"mcp\": \"ANOTHER-SECRET\"}".as_slice();
    let all = [
        member("first", None, Some(said)),
        member("second", None, None),
    ];
    let terms = Terms::default();
    store.save_accounts(&all, &terms, NOW).await.unwrap();
    let renewed = store.save_account(new("first", "sk-2"), &terms, true, NOW);
    renewed.await.unwrap();
    let said_of = async |name: &str| {
        let account = store.account(name).await.unwrap();
        store.origin(&account).await.unwrap()
    };
    assert_eq!(said_of("first").await.as_deref(), Some(said));
    assert_eq!(said_of("second").await, None);
    for file in fs::read_dir(state.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = if path.is_file() {
            fs::read(&path).unwrap()
        } else {
            continue;
        };
        let is_clear = bytes.windows(14).any(|part| part == b"ANOTHER-SECRET");
        assert!(!is_clear, "{}", path.display());
    }
    // Another account's is not taken for it.
    sqlx::query("UPDATE accounts SET origin = (SELECT origin FROM accounts WHERE name = 'first') WHERE name = 'second'")
        .execute(&store.pool)
        .await
        .unwrap();
    let second = store.account("second").await.unwrap();
    assert!(store.origin(&second).await.is_err());
}
