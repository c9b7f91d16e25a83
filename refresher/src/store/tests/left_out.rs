//! The store takes what the filter takes; what the filter does not take costs nothing else, and is out of use.

use latchkey::header::MAX_VALUE_BYTES;
use latchkey::snapshot::Models;
use latchkey::snapshot::pool::MAX_MEMBERS;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::oauth::answer::{Answer, Outcome, classify};
use crate::platform::Profile;
use crate::platform::oauth::{Ends, Members};

/// Changes a row behind the store's back.
async fn spoil(store: &Store, sql: &'static str) {
    sqlx::query(sql).execute(&store.pool).await.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_out_of_use_and_the_rest_is_in_use() {
    for (spoilt, sql) in [
        (
            Kind::Account,
            "UPDATE accounts SET vars = CAST('{}' AS BLOB) WHERE name = 'one'",
        ),
        (
            Kind::Account,
            "UPDATE accounts SET base_url = 'https://evil.test' WHERE name = 'one'",
        ),
        (
            Kind::Account,
            "UPDATE accounts SET name = char(10) WHERE name = 'one'",
        ),
        (
            Kind::Account,
            "UPDATE accounts SET credential = x'00' WHERE name = 'one'",
        ),
        (
            Kind::Account,
            "UPDATE accounts SET expires_at = -1 WHERE name = 'one'",
        ),
        (
            Kind::Account,
            "UPDATE accounts SET models = '7' WHERE name = 'one'",
        ),
        (
            Kind::Key,
            "UPDATE client_keys SET sha256 = substr(sha256, 1, 63) || 'x' WHERE name = 'laptop'",
        ),
        (
            Kind::Key,
            "UPDATE client_keys SET expires_at = -5 WHERE name = 'laptop'",
        ),
        (
            Kind::Pool,
            "UPDATE pools SET policy = 'by_chance' WHERE id = 'spare'",
        ),
        (
            Kind::Platform,
            "UPDATE platforms SET record = '{\"platform\":{\"id\":\"openai\"}}'",
        ),
        (Kind::Doors, "UPDATE doors SET record = '{}'"),
    ] {
        let Fixture { store, _outer, .. } = fixture().await;
        publish(&store, &["openai"]).await;
        store.publish_doors(crate::platform::doors()).await.unwrap();
        add_api_key(&store, "one", "sk-1").await.unwrap();
        store.create_pool("spare", Policy::Sticky).await.unwrap();
        let rights = KeyChange::default();
        let key = store.create_client_key("laptop", "spare", &rights, NOW);
        key.await.unwrap();
        let (records, header) = poll(&store, None, 0).await;
        let before = keys(&records);
        spoil(&store, sql).await;
        // Everything has changed since the poller last asked.
        for touch in [
            "UPDATE accounts SET revision = revision + 1000",
            "UPDATE client_keys SET revision = revision + 1000",
            "UPDATE pools SET revision = revision + 1000",
            "UPDATE platforms SET revision = revision + 1000",
            "UPDATE doors SET revision = revision + 1000",
            "UPDATE meta SET revision = revision + 1000",
        ] {
            spoil(&store, touch).await;
        }
        // An account goes with its platform.
        let gone = |kind: Kind| kind == spoilt || spoilt == Kind::Platform && kind == Kind::Account;
        let (records, _) = poll(&store, Some(header.epoch), header.to).await;
        for (kind, id, is_removed) in keys(&records) {
            let is_spoilt = gone(kind) && id != DEFAULT_POOL;
            assert_eq!(is_removed, is_spoilt, "{sql}: {kind:?} {id}");
        }
        assert_eq!(records.len(), before.len(), "{sql}");
        let (records, _) = poll(&store, None, 0).await;
        let is_kept = |(kind, id, _): &&(Kind, String, bool)| !gone(*kind) || id == DEFAULT_POOL;
        let kept: Vec<_> = before.iter().filter(is_kept).collect();
        let found = keys(&records);
        assert!(
            found.len() == kept.len() && kept.iter().all(|one| found.contains(one)),
            "{sql}"
        );
        let left_out = store.left_out().await.unwrap();
        assert_eq!(left_out[0].kind, spoilt, "{sql}: {left_out:?}");
        assert!(left_out.iter().all(|one| gone(one.kind)), "{left_out:?}");
        assert!(!left_out[0].why.contains("sk-1"));
        assert_eq!(store.count_left_out(), left_out.len());
        // No row keeps the others from being seen.
        store.accounts().await.unwrap();
    }
}

#[tokio::test]
async fn an_account_that_its_platform_cannot_use_any_more_is_out_of_use_until_it_can() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["codex"]).await;
    add_login(&store, "alice").await;
    assert_eq!(store.left_out().await.unwrap(), []);
    let catalog = Catalog::load(None, ["codex".to_owned()].into()).unwrap();
    let mut codex = catalog.usable("codex").unwrap().publication();
    let plain = codex.clone();
    codex.record.endpoints[0].path = "/{plan}/x".to_owned().try_into().unwrap();
    store.publish_platforms(&[codex]).await.unwrap();
    let left_out = store.left_out().await.unwrap();
    assert!(left_out[0].why.contains("variable plan"), "{left_out:?}");
    store.publish_platforms(&[plain]).await.unwrap();
    assert_eq!(store.left_out().await.unwrap(), []);
}

#[tokio::test]
async fn a_pool_takes_as_many_accounts_as_a_record_has_room_for() {
    let Fixture { store, _outer, .. } = fixture().await;
    add_api_key(&store, "first", "sk-1").await.unwrap();
    store.create_pool("spare", Policy::Sticky).await.unwrap();
    let columns: Vec<(String,)> = sqlx::query_as("SELECT name FROM pragma_table_info('accounts')")
        .fetch_all(&store.pool)
        .await
        .unwrap();
    let columns: Vec<_> = columns.into_iter().map(|(name,)| name).collect();
    let values: Vec<_> = columns
        .iter()
        .map(|name| match name.as_str() {
            "id" => "'acc_' || printf('%016d', i)".to_owned(),
            "name" => "'copy ' || i".to_owned(),
            "revision" => "revision + i".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    let copies = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_MEMBERS}) INSERT INTO accounts ({}) SELECT {} FROM accounts, n",
        columns.join(", "),
        values.join(", ")
    );
    sqlx::query(sqlx::AssertSqlSafe(copies))
        .execute(&store.pool)
        .await
        .unwrap();
    let join = "INSERT INTO pool_members (pool, account, position) SELECT 'spare', id, 1 FROM accounts WHERE name <> 'first'";
    spoil(&store, join).await;
    let pools = ["first".to_owned()];
    let refused = store.add_to_pool("spare", &pools, None, None).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("at most 16000 accounts"), "{message}");
    spoil(
        &store,
        "DELETE FROM pool_members WHERE account = 'acc_0000000000000007'",
    )
    .await;
    store
        .add_to_pool("spare", &pools, None, None)
        .await
        .unwrap();
    assert_eq!(store.left_out().await.unwrap(), []);
}

/// An account as somebody may try to save it.
#[derive(Debug, Clone)]
struct Tried {
    name: String,
    credential: String,
    vars: BTreeMap<String, String>,
    expires_at: i64,
    ends_at: i64,
    granted: String,
    models: Vec<String>,
    pool: String,
}

fn tried() -> impl Strategy<Value = Tried> {
    let text = || prop_oneof!["[ -~]{0,70}", "\\PC{0,9}", ".{0,9}", Just("x".repeat(70))];
    let token = || {
        prop_oneof![
            4 => "[!-~]{1,40}",
            1 => text(),
            1 => (MAX_VALUE_BYTES - 1..MAX_VALUE_BYTES + 4_000).prop_map(|length| "t".repeat(length)),
        ]
    };
    let vars = prop::collection::btree_map("account_id|email|plan", token(), 0..3);
    let time = || prop_oneof![Just(-1), Just(0), any::<i64>(), Just(NOW.0 + 5)];
    let models = prop::collection::vec(text(), 0..3);
    (
        text(),
        token(),
        vars,
        time(),
        time(),
        token(),
        models,
        "[ -~]{1,9}|[a-z.]{1,70}",
    )
        .prop_map(
            |(name, credential, vars, expires_at, ends_at, granted, models, pool)| Tried {
                name,
                credential,
                vars,
                expires_at,
                ends_at,
                granted,
                models,
                pool,
            },
        )
}

/// Tries to store all that is tried; whatever was refused is not there.
async fn store_what_is_taken(store: &Store, codex: &Profile, tried: &Tried) {
    let credential = tokens(&tried.credential);
    let new = NewAccount {
        name: &tried.name,
        platform: "codex",
        credential: credential.clone(),
        vars: tried.vars.clone(),
        credential_expires_at: Some(UnixMillis(tried.expires_at)),
        base_url: None,
    };
    let terms = Terms {
        expires_at: Some(Some(UnixMillis(tried.ends_at))),
        ..Terms::default()
    };
    let models: Option<Models> = serde_json::from_value(json!(tried.models)).ok();
    // A login is held against its profile before the store sees it.
    let is_whole = crate::oauth::exchange::require_vars(codex, &tried.vars).is_ok();
    if is_whole
        && let Ok(Saved::Added(id)) = store.save_account(new, &Terms::default(), false, NOW).await
    {
        let changes = AccountChanges {
            models: models.as_ref(),
            ..AccountChanges::default()
        };
        let _ = store.set_account(&tried.name, changes, &terms, NOW).await;
        let claim = claim(store, &id, 1, LIFE).await;
        let body =
            json!({"access_token": tried.granted, "refresh_token": "next", "expires_in": 60});
        let answer = Answer {
            status: 200,
            retry_after: None,
            body: body.to_string().into_bytes().into(),
        };
        if let Outcome::Fresh(grant) = classify(&answer, &Members::default(), &Ends::default(), NOW)
        {
            let (granted, expires_at) = grant.over(&credential, None);
            assert!(
                store
                    .commit(&claim, &granted, expires_at, NOW)
                    .await
                    .unwrap()
            );
        }
    }
    let _ = store.create_pool(&tried.pool, Policy::Sticky).await;
    let rights = KeyChange {
        models,
        may_choose_pools: vec![tried.pool.clone()],
        terms,
        ..KeyChange::default()
    };
    let _ = store
        .create_client_key(&tried.name, &tried.pool, &rights, NOW)
        .await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The filter reads all that the store took, and nothing of it is left out.
    #[test]
    fn the_filter_reads_what_the_store_took(all in prop::collection::vec(tried(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Fixture { store, _outer, .. } = fixture().await;
            publish(&store, &["codex"]).await;
            let codex = crate::platform::example();
            for tried in &all {
                store_what_is_taken(&store, &codex, tried).await;
            }
            assert_eq!(store.left_out().await.unwrap(), []);
            let accounts = store.accounts().await.unwrap().len();
            let pools = store.pools().await.unwrap().len();
            let client_keys = store.client_keys().await.unwrap().len();
            let (records, _) = poll(&store, None, 0).await;
            let count = |kind| records.iter().filter(|record| record.key().0 == kind).count();
            assert_eq!(count(Kind::Account), accounts);
            assert_eq!(count(Kind::Pool), pools);
            assert_eq!(count(Kind::Key), client_keys);
        });
    }
}
