//! A database that earlier releases made: its migrations, and what must survive them.

use std::os::unix::fs::PermissionsExt;

use latchkey::limit::SubjectKind;
use secrecy::SecretString;
use sqlx::{ConnectOptions, Connection as _};

use super::*;
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::keys::seal;

/// Made by the release whose last migration was the eighth: by its commands, and by its `serve` from an Envoy's reports.
const EIGHT_MIGRATIONS: &str = include_str!("fixtures/eight_migrations.sql");

/// A state directory with that database, which nobody has opened yet.
async fn old_state() -> (tempfile::TempDir, StateDir) {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let mut old = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(state.database())
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql(EIGHT_MIGRATIONS)
        .execute(&mut old)
        .await
        .unwrap();
    old.close().await.unwrap();
    fs::set_permissions(state.database(), fs::Permissions::from_mode(0o600)).unwrap();
    (outer, state)
}

async fn migrated() -> Fixture {
    let (outer, state) = old_state().await;
    let store = open(&state).await.unwrap();
    Fixture {
        _outer: outer,
        state,
        store,
    }
}

/// The formats of all that is sealed.
async fn formats(store: &Store) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT DISTINCT hex(substr(sealed, 1, 1)) FROM (SELECT credential AS sealed FROM accounts \
         UNION ALL SELECT vars FROM accounts UNION ALL SELECT key_check FROM meta) ORDER BY 1",
    )
    .fetch_all(&store.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_running_serve_keeps_the_tables_that_it_knows() {
    let (_outer, state) = old_state().await;
    let before = fs::read(state.database()).unwrap();
    let lock = state.lock_serve().unwrap();
    let refused = open(&state).await.unwrap_err();
    assert!(matches!(refused, Error::OlderServes { .. }), "{refused}");
    assert!(fs::read(state.database()).unwrap() == before);
    drop(lock);
    open(&state).await.unwrap();
    // The same tables, and a `serve` of this release.
    let _lock = state.lock_serve().unwrap();
    open(&state).await.unwrap();
}

#[tokio::test]
async fn who_only_looks_changes_no_tables_and_makes_none() {
    let (_outer, state) = old_state().await;
    let look = async || Store::open_to_look(&state, crate::keys::fixed(1)).await;
    let before = fs::read(state.database()).unwrap();
    let refused = look().await.unwrap_err();
    assert!(matches!(refused, Error::Older { .. }), "{refused}");
    assert!(fs::read(state.database()).unwrap() == before);
    open(&state).await.unwrap();
    look().await.unwrap();
    fs::remove_file(state.database()).unwrap();
    let refused = look().await.unwrap_err();
    assert!(matches!(refused, Error::Lost { .. }), "{refused}");
    assert!(!state.database().exists());
}

/// The process that began it would find other tables when its answer comes, and a refresh token works once.
#[tokio::test]
async fn a_refresh_of_an_earlier_release_keeps_the_tables_until_its_claim_lapses() {
    let (_outer, state) = old_state().await;
    let claim_for = async |seconds: i64| {
        let path = state.database();
        let old = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let mut old = old.connect().await.unwrap();
        let claim = "UPDATE accounts SET claim_token = 't', claim_until = (unixepoch('subsec') + $1) * 1000 \
                     WHERE name = 'carol'";
        sqlx::query(claim)
            .bind(seconds)
            .execute(&mut old)
            .await
            .unwrap();
        old.close().await.unwrap();
    };
    let open_within =
        async |patience| Store::open_within(&state, crate::keys::fixed(1), patience).await;
    claim_for(60).await;
    let before = fs::read(state.database()).unwrap();
    let refused = open_within(Duration::from_millis(300)).await.unwrap_err();
    assert!(
        matches!(refused, Error::RefreshUnderWay { .. }),
        "{refused}"
    );
    let until = UnixMillis(SystemClock.now().0 + 60_000).in_utc();
    let hour = until.split_once(':').unwrap().0;
    assert!(refused.to_string().contains(hour), "{refused}");
    assert!(fs::read(state.database()).unwrap() == before);
    claim_for(1).await;
    let store = open_within(Duration::from_secs(9)).await.unwrap();
    assert_eq!(formats(&store).await, ["02"]);
    // Of this release the claim is no matter.
    drop(store);
    claim_for(60).await;
    open_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_was_sealed_for_any_platform_is_sealed_for_its_own() {
    let Fixture {
        store,
        state,
        _outer,
    } = migrated().await;
    assert_eq!(formats(&store).await, ["02"]);
    let carol = store.account("carol").await.unwrap();
    store.credential(&carol.id).await.unwrap();
    // Whoever writes the database cannot send a credential to another platform, or as another kind.
    for moved in ["platform = 'openai'", "kind = 'api_key'"] {
        let sql = format!("UPDATE accounts SET {moved} WHERE name = 'carol'");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&store.pool)
            .await
            .unwrap();
        let refused = store.credential(&carol.id).await.unwrap_err();
        assert!(matches!(refused, Error::Seal { .. }), "{refused}");
        let back = "UPDATE accounts SET platform = 'codex', kind = 'oauth' WHERE name = 'carol'";
        sqlx::query(back).execute(&store.pool).await.unwrap();
    }
    store.credential(&carol.id).await.unwrap();
    // What is put back in the old form is not opened, and no start seals it anew.
    let (_old_outer, old) = old_state().await;
    let attach = format!(
        "ATTACH '{}' AS old; UPDATE accounts SET credential = (SELECT credential FROM old.accounts \
         WHERE old.accounts.id = accounts.id)",
        old.database().display()
    );
    let mut connection = store.pool.acquire().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(attach))
        .execute(&mut *connection)
        .await
        .unwrap();
    drop(connection);
    store.close().await;
    let store = open(&state).await.unwrap();
    assert_eq!(formats(&store).await, ["01", "02"]);
    store.credential(&carol.id).await.unwrap_err();
}

/// True if a file of the state directory holds `text`.
fn is_in_a_file(state: &StateDir, text: &str) -> bool {
    let files = fs::read_dir(state.path()).unwrap();
    let mut files = files.map(|file| fs::read(file.unwrap().path()).unwrap_or_default());
    files.any(|file| file.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[tokio::test]
async fn who_an_account_is_was_in_the_clear_and_is_not_any_more() {
    let (_outer, state) = old_state().await;
    assert!(is_in_a_file(&state, "carol@example.com"));
    let store = open(&state).await.unwrap();
    let carol = store.account("carol").await.unwrap().id;
    assert_eq!(
        store.vars(&carol).await.unwrap()["email"],
        "carol@example.com"
    );
    assert!(!is_in_a_file(&state, "carol@example.com"));
    // What is put there in the clear later is nobody's word, and no start seals it.
    let put = "UPDATE accounts SET vars = CAST('{\"email\":\"x\"}' AS BLOB) WHERE name = 'carol'";
    sqlx::query(put).execute(&store.pool).await.unwrap();
    store.close().await;
    open(&state).await.unwrap().vars(&carol).await.unwrap_err();
}

/// A start that is killed while it seals anew leaves all of it or nothing.
#[tokio::test]
async fn a_start_that_is_cut_short_begins_again() {
    let (_outer, state) = old_state().await;
    let mut old = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(state.database())
        .connect()
        .await
        .unwrap();
    // The last account cannot be written: the transaction ends there.
    let stop = "CREATE TRIGGER stop BEFORE UPDATE OF key_check ON meta BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::raw_sql(stop).execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    open(&state).await.unwrap_err();
    let mut old = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(state.database())
        .connect()
        .await
        .unwrap();
    let formats_of_old: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT hex(substr(credential, 1, 1)) FROM accounts")
            .fetch_all(&mut old)
            .await
            .unwrap();
    assert_eq!(formats_of_old, ["01"]);
    sqlx::raw_sql("DROP TRIGGER stop")
        .execute(&mut old)
        .await
        .unwrap();
    old.close().await.unwrap();
    let store = open(&state).await.unwrap();
    assert_eq!(formats(&store).await, ["02"]);
}

/// A record under a key that is not at hand waits for it: nothing is sealed anew until then.
#[tokio::test]
async fn a_start_without_one_of_the_keys_changes_no_seal() {
    const SET: &str = "UPDATE accounts SET credential = $1 WHERE name = 'carol'";
    let (_outer, state) = old_state().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(state.database());
    let mut old = options.connect().await.unwrap();
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT credential FROM accounts WHERE name = 'carol'")
            .fetch_one(&mut old)
            .await
            .unwrap();
    let mut foreign = sealed.clone();
    foreign[1..5].copy_from_slice(b"none");
    let set = sqlx::query(SET).bind(foreign);
    set.execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    let refused = open(&state).await.unwrap_err();
    let source = match refused {
        Error::Seal { source, .. } => source,
        other => panic!("{other}"),
    };
    assert!(matches!(source, seal::Error::NotAtHand(_)), "{source}");
    let mut old = options.connect().await.unwrap();
    let set = sqlx::query(SET).bind(sealed);
    set.execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    let store = open(&state).await.unwrap();
    assert_eq!(formats(&store).await, ["02"]);
}

#[tokio::test]
async fn accounts_and_their_credentials_survive() {
    let Fixture { store, _outer, .. } = migrated().await;
    let accounts = store.accounts().await.unwrap();
    let seen: Vec<_> = accounts
        .iter()
        .map(|account| {
            (
                account.name.as_str(),
                account.platform.as_str(),
                account.status,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("alice", "openai", Status::Active),
            ("bob", "anthropic", Status::Active),
            ("carol", "codex", Status::Active),
            ("dave", "openai", Status::Disabled),
        ]
    );
    let [alice, bob, carol, _] = &accounts[..] else {
        panic!("{accounts:?}");
    };
    let limits = alice.limits.set.limits;
    assert_eq!(limits.requests_per_minute.unwrap().get(), 100);
    assert_eq!(limits.tokens_per_day.unwrap().get(), 5_000);
    assert_eq!(alice.limits.set.time_zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(
        serde_json::to_string(&bob.models).unwrap(),
        r#"["claude-*"]"#
    );
    assert_eq!(bob.expires_at, Some(UnixMillis(1_896_048_000_000)));
    assert_eq!(bob.credential_expires_at, None);
    assert_eq!(
        (carol.credential_expires_at, carol.expires_at),
        (Some(UnixMillis(1_827_461_231_469)), None)
    );
    let vars = store.vars(&carol.id).await.unwrap();
    assert_eq!(vars["email"], "carol@example.com");
    let credential = store.credential(&carol.id).await.unwrap();
    let Credential::OAuth(tokens) = credential else {
        panic!("another credential");
    };
    assert_eq!(tokens.refresh.expose_secret(), "refresh-of-carol");
}

#[tokio::test]
async fn pools_keys_health_and_use_survive() {
    let Fixture { store, _outer, .. } = migrated().await;
    let pools = store.pools().await.unwrap();
    let members = |index: usize| -> Vec<(&str, u32, u32)> {
        let member = |member: &'_ PoolMember| (u32::from(member.weight), u32::from(member.tier));
        let members = pools[index].members.iter();
        members
            .map(|one| (one.account.as_str(), member(one).0, member(one).1))
            .collect()
    };
    assert_eq!(
        (pools[0].id.as_str(), pools[0].policy),
        ("default", Policy::Sticky)
    );
    assert_eq!(members(0).len(), 4);
    assert_eq!(
        (pools[1].id.as_str(), pools[1].policy),
        ("fast", Policy::FillFirst)
    );
    assert_eq!(members(1), [("alice", 3, 1), ("bob", 3, 1)]);
    assert_eq!(pools[1].keys, ["laptop"]);

    let keys = store.client_keys().await.unwrap();
    assert_eq!(
        (keys[0].name.as_str(), keys[0].pool.as_str()),
        ("laptop", "fast")
    );
    assert!(keys[0].may_choose_account && keys[0].revoked_at.is_none());
    assert_eq!(keys[0].may_choose_pools, ["default"]);
    assert!(keys[1].name == "old" && keys[1].revoked_at.is_some());

    let health = store.health().await.unwrap();
    let entries: usize = health.values().map(|health| health.entries.len()).sum();
    assert_eq!((health.len(), entries), (2, 2));
    let windows = health.values().map(|health| health.quota.windows.len());
    assert_eq!(windows.sum::<usize>(), 1);

    let counts = store.day_counts().await.unwrap();
    assert_eq!(counts[0].subject.kind, SubjectKind::Account);
    assert_eq!(counts[0].used.unwrap().tokens, 1_200);
    assert_eq!(
        counts[0].day.end - counts[0].day.start,
        latchkey::limit::DAY_MS
    );
    let sums = store.usage(By::Key, UnixMillis(0)).await.unwrap();
    assert_eq!((sums[0].requests, sums[0].total), (11, 657));
    assert_eq!(sums[0].name.as_deref(), Some("laptop"));
}

#[tokio::test]
async fn words_are_checked_by_the_code_alone() {
    let Fixture { store, _outer, .. } = migrated().await;
    let lists: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE sql LIKE '% IN (''%'")
            .fetch_one(&store.pool)
            .await
            .unwrap();
    assert_eq!(lists, 0);
    let broken: Vec<(String,)> = sqlx::query_as("SELECT \"table\" FROM pragma_foreign_key_check")
        .fetch_all(&store.pool)
        .await
        .unwrap();
    assert_eq!(broken, []);
    let client = Credential::Client(crate::credential::ClientCredentials {
        token_url: None,
        refresh: None,
        client_id: "client".to_owned(),
        client_secret: SecretString::from("secret"),
        access: SecretString::from("access"),
    });
    let new = NewAccount {
        name: "machine",
        platform: "openai",
        credential: client,
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    store
        .save_account(new, &Terms::default(), false, NOW)
        .await
        .unwrap();
    // An account takes its rows in other tables with it, as before.
    let alice = store.account("alice").await.unwrap().id;
    store.remove_account(&alice).await.unwrap();
    assert_eq!(store.pools().await.unwrap()[1].members.len(), 1);
    assert_eq!(store.health().await.unwrap().len(), 1);
}
