mod health;
mod high_water;
mod requests;
mod rotation;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use latchkey::snapshot::page::Page;
use latchkey::snapshot::pool::{Tier, Weight};
use latchkey::snapshot::{Kind, Policy, Record};
use secrecy::ExposeSecret;

use super::*;
use crate::credential::OAuthTokens;
use crate::id::AccountId;
use crate::platform::Catalog;
use crate::refresh::clock::UnixMillis;
use crate::refresh::ledger::{Claim, Claimed, Ledger, Retry};
use crate::state::StateDir;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const LIFE: Duration = Duration::from_secs(60);

/// A store in a directory of its own.
struct Fixture {
    _outer: tempfile::TempDir,
    state: StateDir,
    store: Store,
}

async fn open(state: &StateDir) -> Result<Store> {
    Store::open(state, crate::key_source::fixed(1)).await
}

async fn fixture() -> Fixture {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let store = open(&state).await.unwrap();
    Fixture {
        _outer: outer,
        state,
        store,
    }
}

fn tokens(access: &str) -> OAuthTokens {
    OAuthTokens {
        access: access.into(),
        refresh: format!("refresh-of-{access}").into(),
        id: None,
    }
}

async fn add_login(store: &Store, name: &str) -> AccountId {
    let new = NewAccount {
        name,
        platform: "codex",
        credential: Credential::OAuth(tokens("access-1")),
        vars: BTreeMap::from([("account_id".to_owned(), "ws-1".to_owned())]),
        expires_at: Some(NOW.plus(LIFE)),
    };
    match store.save_account(new, false, NOW).await.unwrap() {
        Saved::Added(id) => id,
        Saved::Renewed(id) => panic!("{id} is not new"),
    }
}

async fn add_api_key(store: &Store, name: &str, key: &str) -> Result<Saved> {
    let credential = Credential::ApiKey(key.into());
    let new = NewAccount {
        name,
        platform: "openai",
        credential,
        vars: BTreeMap::new(),
        expires_at: None,
    };
    store.save_account(new, false, NOW).await
}

async fn publish(store: &Store, ids: &[&str]) {
    let catalog = Catalog::load(None, ids.iter().map(|id| (*id).to_owned()).collect()).unwrap();
    let platforms: Vec<Platform> = ids
        .iter()
        .map(|id| catalog.usable(id).unwrap().publication())
        .collect();
    store.publish_platforms(&platforms).await.unwrap();
}

async fn claim(store: &Store, account: &AccountId, generation: u64, life: Duration) -> Claim {
    match store.claim(account, generation, NOW, life).await.unwrap() {
        Claimed::Ours(claim) => *claim,
        other => panic!("{other:?}"),
    }
}

/// What the page for a poller says, and where it leads.
async fn poll(
    store: &Store,
    epoch: Option<Epoch>,
    since: u64,
) -> (Vec<Record>, latchkey::snapshot::page::PageHeader) {
    let bytes = store.page(epoch, since).await.unwrap().bytes;
    let page = Page::parse(&bytes).unwrap();
    (
        page.lines()
            .map(|line| Record::from_line(line).unwrap())
            .collect(),
        page.header.clone(),
    )
}

fn keys(records: &[Record]) -> Vec<(Kind, String, bool)> {
    let removed = |record: &Record| matches!(record, Record::Removed(_));
    records
        .iter()
        .map(|record| (record.key().0, record.key().1.to_string(), removed(record)))
        .collect()
}

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
    assert_eq!(held.tokens.access.expose_secret(), "access-1");
    assert!(matches!(
        other.claim(&id, 1, NOW, LIFE).await.unwrap(),
        Claimed::Busy
    ));
    store
        .retry_later(
            &held,
            Retry {
                at: NOW,
                failures: 1,
                unanswered: 0,
            },
        )
        .await
        .unwrap();
    assert_eq!(claim(&other, &id, 1, LIFE).await.failures, 1);
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
            tokio::spawn(async move { store.claim(&id, 1, NOW, LIFE).await.unwrap() })
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
        store.claim(&id, 1, NOW, LIFE).await.unwrap(),
        Claimed::Moved
    ));
    assert!(
        matches!(store.claim(&id, 2, NOW, LIFE).await.unwrap(), Claimed::Busy),
        "the other claim's call may be in flight"
    );
    assert_eq!(
        store
            .tokens(&id)
            .await
            .unwrap()
            .unwrap()
            .access
            .expose_secret(),
        "access-2"
    );
}

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
        store.claim(&id, 2, NOW, LIFE).await.unwrap(),
        Claimed::NotRefreshable
    ));
    assert_eq!(store.entries().await.unwrap(), []);
    let message = store.enable("alice", NOW).await.unwrap_err().to_string();
    assert!(
        message.contains("refresher login codex --name alice"),
        "{message}"
    );
}

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
async fn a_new_login_during_a_refresh_leaves_the_claim_to_its_holder() {
    let Fixture { store, _outer, .. } = fixture().await;
    let id = add_login(&store, "alice").await;
    let held = claim(&store, &id, 1, LIFE).await;
    let new = NewAccount {
        name: "alice",
        platform: "codex",
        credential: Credential::OAuth(tokens("access-9")),
        vars: BTreeMap::new(),
        expires_at: None,
    };
    assert_eq!(
        store.save_account(new, true, NOW).await.unwrap(),
        Saved::Renewed(id.clone())
    );
    assert!(matches!(
        store.claim(&id, 2, NOW, LIFE).await.unwrap(),
        Claimed::Busy
    ));
    let late = store.commit(&held, &tokens("access-2"), None, NOW).await;
    assert!(!late.unwrap(), "the login's tokens are newer");
}

#[tokio::test]
async fn a_poller_that_applies_deltas_holds_what_one_that_starts_anew_gets() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (records, header) = poll(&store, None, 0).await;
    assert_eq!(keys(&records), [(Kind::Pool, "default".to_owned(), false)]);
    let epoch = Some(header.epoch);
    let mut held = BTreeMap::new();
    let mut since = header.to;
    let alice = add_login(&store, "alice").await;
    let team = ["team".to_owned()];
    for step in 0..12 {
        match step {
            0 => publish(&store, &["codex", "openai"]).await,
            1 => drop(add_api_key(&store, "team", "sk-1").await.unwrap()),
            2 => assert!(store.disable("team", NOW).await.unwrap()),
            3 => drop(
                store
                    .create_client_key("laptop", DEFAULT_POOL, &KeyChange::default(), NOW)
                    .await
                    .unwrap(),
            ),
            4 => publish(&store, &["codex"]).await,
            5 => store.create_pool("spare", Policy::FillFirst).await.unwrap(),
            6 => store
                .add_to_pool("spare", &team, None, Tier::try_from(3).ok())
                .await
                .unwrap(),
            7 => {
                let change = KeyChange {
                    may_choose_account: true,
                    may_choose_pools: vec!["spare".to_owned()],
                    models: serde_json::from_str(r#"["gpt-5*"]"#).ok(),
                    ..KeyChange::default()
                };
                store.set_client_key("laptop", &change).await.unwrap();
            }
            8 => {
                let models = serde_json::from_str(r#"["o3"]"#).unwrap();
                let limits = LimitChanges::default();
                store
                    .set_account("alice", Some(&models), &limits, NOW)
                    .await
                    .unwrap();
            }
            9 => drop(store.revoke_client_key("laptop", NOW).await.unwrap()),
            10 => store.remove_pool("spare").await.unwrap(),
            _ => store.remove_account(&alice).await.unwrap(),
        }
        let (delta, header) = poll(&store, epoch, since).await;
        assert!(
            !header.reset && header.from == since && !header.more,
            "{header:?}"
        );
        since = header.to;
        for record in delta {
            let key = (record.key().0, record.key().1.clone());
            match record {
                Record::Removed(_) => held.remove(&key),
                record => held.insert(key, record),
            };
        }
        let (all, header) = poll(&store, None, 0).await;
        assert!(header.reset && header.to == since);
        let all: BTreeMap<_, _> = all
            .into_iter()
            .map(|record| ((record.key().0, record.key().1.clone()), record))
            .collect();
        assert_eq!(held, all, "step {step}");
    }
    assert!(poll(&store, epoch, since).await.0.is_empty());
    assert!(!store.page(epoch, since).await.unwrap().news);
}

#[tokio::test]
async fn a_snapshot_longer_than_a_page_comes_in_several() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["openai"]).await;
    let long = "k".repeat(15_000);
    for number in 0..150 {
        add_api_key(&store, &format!("account {number}"), &long)
            .await
            .unwrap();
    }
    let (mut epoch, mut since, mut pages, mut seen) = (None, 0, 0, 0);
    loop {
        let bytes = store.page(epoch, since).await.unwrap().bytes;
        assert!(
            bytes.len() < latchkey::snapshot::page::MAX_PAGE_BYTES + 1024,
            "{}",
            bytes.len()
        );
        let (records, header) = poll(&store, epoch, since).await;
        assert_eq!(header.reset, pages == 0);
        (pages, seen) = (pages + 1, seen + records.len());
        (epoch, since) = (Some(header.epoch), header.to);
        if !header.more {
            break;
        }
    }
    // 150 accounts, one platform, one pool.
    assert_eq!((pages, seen), (3, 152));
}

#[tokio::test]
async fn a_restored_backup_begins_a_new_epoch() {
    let Fixture { store, _outer, .. } = fixture().await;
    let (_, header) = poll(&store, None, 0).await;
    let (_, anew) = poll(&store, Some(header.epoch), header.to + 1).await;
    assert!(anew.reset && anew.from == 0);
    assert_ne!(anew.epoch, header.epoch);
}

#[tokio::test]
async fn a_change_wakes_who_waits_here_and_in_other_processes() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let other = open(&state).await.unwrap();
    let (mut here, mut there) = (store.revisions(), other.revisions());
    let watching = tokio::spawn({
        let other = other.clone();
        async move { other.watch().await }
    });
    add_login(&store, "alice").await;
    assert!(here.has_changed().unwrap());
    let (_, revision) = store.head().await.unwrap();
    tokio::time::timeout(
        Duration::from_secs(5),
        there.wait_for(|seen| *seen == revision),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(*here.borrow_and_update(), revision);
    watching.abort();
}

#[tokio::test]
async fn the_files_hold_no_secret_and_nobody_else_can_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    let id = add_login(&store, "alice").await;
    let held = claim(&store, &id, 1, LIFE).await;
    assert!(
        store
            .commit(&held, &tokens("access-2"), None, NOW)
            .await
            .unwrap()
    );
    let key = store
        .create_client_key("laptop", DEFAULT_POOL, &KeyChange::default(), NOW)
        .await
        .unwrap()
        .key;
    let files = || {
        fs::read_dir(state.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    let leaks = |secret: &str| {
        let holds = |path: &Path| {
            fs::read(path)
                .unwrap()
                .windows(secret.len())
                .any(|part| part == secret.as_bytes())
        };
        files().any(|path| holds(&path))
    };
    assert!(
        leaks("alice") && leaks("laptop"),
        "the log is looked at too"
    );
    for secret in [
        "access-1",
        "access-2",
        "refresh-of-access-1",
        key.expose_secret(),
    ] {
        assert!(!leaks(secret), "{secret}");
    }
    for path in files() {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o077,
            0,
            "{}",
            path.display()
        );
    }
}

#[tokio::test]
async fn a_swapped_credential_is_not_published() {
    let Fixture { store, _outer, .. } = fixture().await;
    publish(&store, &["openai"]).await;
    add_api_key(&store, "one", "sk-1").await.unwrap();
    add_api_key(&store, "two", "sk-2").await.unwrap();
    sqlx::query(
        "UPDATE accounts SET credential = (SELECT credential FROM accounts WHERE name = 'one')",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let (records, _) = poll(&store, None, 0).await;
    let accounts = records
        .iter()
        .filter(|record| matches!(record, Record::Account(_)))
        .count();
    assert_eq!(accounts, 1);
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
async fn a_key_is_exhausted_across_restarts() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    sqlx::query("UPDATE sealing_keys SET seals = ?")
        .bind(signed(crate::seal::SEALS_PER_KEY - 1))
        .execute(&store.pool)
        .await
        .unwrap();
    add_api_key(&store, "last", "sk-1").await.unwrap();
    store.close().await;
    let store = open(&state).await.unwrap();
    let error = add_api_key(&store, "one too many", "sk-2")
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        Error::Seal {
            source: crate::seal::Error::Exhausted,
            ..
        }
    ));
}

/// A closed store's file.
async fn closed() -> (tempfile::TempDir, StateDir, Vec<u8>) {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    add_login(&store, "alice").await;
    store.close().await;
    let bytes = fs::read(state.database()).unwrap();
    (_outer, state, bytes)
}

#[tokio::test]
async fn a_damaged_or_foreign_database_is_refused_and_left_as_it_is() {
    let (_outer, state, good) = closed().await;
    let mut foreign = good.clone();
    foreign[68..72].copy_from_slice(&[0; 4]);
    let mut damaged = good.clone();
    let tail = damaged.len() - 4096;
    damaged[4096..tail].fill(0xA5);
    for (bytes, found) in [
        (Vec::new(), "an empty file"),
        (b"{\"accounts\": []}".to_vec(), "found something else"),
        (good[..10].to_vec(), "found something else"),
        (good[..100].to_vec(), "latchkey.db"),
        (good[..good.len() / 2].to_vec(), "latchkey.db"),
        (foreign, "not Latchkey's"),
        (damaged, "latchkey.db"),
    ] {
        fs::write(state.database(), &bytes).unwrap();
        let error = open(&state).await.unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains("latchkey.db") && message.contains(found),
            "{message}"
        );
        assert_eq!(fs::read(state.database()).unwrap(), bytes);
    }
    fs::write(state.database(), &good).unwrap();
    assert_eq!(
        open(&state).await.unwrap().accounts().await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_database_of_another_key_is_refused_and_left_as_it_is() {
    let (_outer, state, good) = closed().await;
    let error = Store::open(&state, crate::key_source::fixed(2))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    assert_eq!(fs::read(state.database()).unwrap(), good);
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let Fixture {
        store,
        state,
        _outer,
    } = fixture().await;
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0)")
        .execute(&store.pool)
        .await
        .unwrap();
    store.close().await;
    assert!(matches!(
        open(&state).await.unwrap_err(),
        Error::Schema { .. }
    ));
}

#[tokio::test]
async fn a_lax_or_linked_database_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let (outer, state, _) = closed().await;
    fs::set_permissions(state.database(), fs::Permissions::from_mode(0o640)).unwrap();
    let message = open(&state).await.unwrap_err().to_string();
    assert!(
        message.contains("0640") && message.contains("chmod 600"),
        "{message}"
    );
    fs::rename(state.database(), outer.path().join("elsewhere")).unwrap();
    symlink(outer.path().join("elsewhere"), state.database()).unwrap();
    assert!(matches!(open(&state).await.unwrap_err(), Error::File(_)));
}

#[tokio::test]
async fn a_pool_has_what_was_put_into_it_in_that_order() {
    let Fixture { store, _outer, .. } = fixture().await;
    for name in ["a", "b", "c"] {
        add_api_key(&store, name, "sk").await.unwrap();
    }
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let (two, late) = (Weight::try_from(2).ok(), Tier::try_from(1).ok());
    store.create_pool("team", Policy::FillFirst).await.unwrap();
    store
        .add_to_pool("team", &names(&["c", "a"]), None, None)
        .await
        .unwrap();
    store
        .add_to_pool("team", &names(&["b"]), two, late)
        .await
        .unwrap();
    store
        .add_to_pool("team", &names(&["c"]), two, None)
        .await
        .unwrap();
    let shown = async || {
        let pools = store.pools().await.unwrap();
        let team = pools.iter().find(|pool| pool.id == "team").unwrap();
        let show = |member: &PoolMember| {
            format!(
                "{} {} {}",
                member.account,
                u32::from(member.weight),
                u32::from(member.tier)
            )
        };
        (
            team.policy,
            team.members.iter().map(show).collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        shown().await,
        (Policy::FillFirst, names(&["c 2 0", "a 1 0", "b 2 1"]))
    );
    let refused = store
        .add_to_pool("team", &names(&["b", "nobody"]), None, late)
        .await;
    assert!(matches!(
        refused,
        Err(Error::Unknown {
            kind: "account",
            ..
        })
    ));
    let refused = store.drop_from_pool("team", &names(&["a", "a"])).await;
    assert!(
        matches!(refused, Err(Error::NotInPool { .. })),
        "{refused:?}"
    );
    assert_eq!(shown().await.1.len(), 3, "nothing was changed");
    store.drop_from_pool("team", &names(&["c"])).await.unwrap();
    store
        .set_policy("team", Policy::LeastInFlight)
        .await
        .unwrap();
    assert_eq!(
        shown().await,
        (Policy::LeastInFlight, names(&["a 1 0", "b 2 1"]))
    );

    for (id, is_taken) in [("team", true), ("two words", false), ("", false)] {
        let refused = store.create_pool(id, Policy::Sticky).await.unwrap_err();
        assert_eq!(
            matches!(refused, Error::NameTaken { .. }),
            is_taken,
            "{refused}"
        );
    }
    let unknown = store.set_policy("other", Policy::Sticky).await.unwrap_err();
    assert!(unknown.to_string().contains("pools list"), "{unknown}");
}

#[tokio::test]
async fn a_pool_that_keys_need_stays() {
    let Fixture { store, _outer, .. } = fixture().await;
    for pool in ["own", "chosen"] {
        store.create_pool(pool, Policy::Sticky).await.unwrap();
    }
    let rights = KeyChange {
        may_choose_pools: vec!["chosen".to_owned()],
        ..KeyChange::default()
    };
    store
        .create_client_key("laptop", "own", &rights, NOW)
        .await
        .unwrap();
    for pool in ["own", "chosen"] {
        let refused = store.remove_pool(pool).await.unwrap_err().to_string();
        assert!(
            refused.contains("laptop") && refused.contains("keys set"),
            "{refused}"
        );
    }
    let refused = store.remove_pool(DEFAULT_POOL).await.unwrap_err();
    assert!(matches!(refused, Error::DefaultPool));
    let change = KeyChange {
        pool: Some(DEFAULT_POOL.to_owned()),
        ..KeyChange::default()
    };
    store.set_client_key("laptop", &change).await.unwrap();
    store.remove_pool("own").await.unwrap();
    store.revoke_client_key("laptop", NOW).await.unwrap();
    store.remove_pool("chosen").await.unwrap();
    store.create_pool("own", Policy::Sticky).await.unwrap();
    let gone = store.set_client_key("laptop", &change).await;
    assert!(gone.is_err(), "it is revoked");
}

#[tokio::test]
async fn what_a_key_may_do_is_given_and_taken() {
    let Fixture { store, _outer, .. } = fixture().await;
    store.create_pool("other", Policy::Sticky).await.unwrap();
    let rights = KeyChange {
        models: serde_json::from_str(r#"["gpt-5*"]"#).ok(),
        may_choose_account: true,
        ..KeyChange::default()
    };
    store
        .create_client_key("laptop", DEFAULT_POOL, &rights, NOW)
        .await
        .unwrap();
    let key = async || store.client_keys().await.unwrap().remove(0);
    assert!(key().await.may_choose_account && !key().await.models.is_all());
    let more = KeyChange {
        may_choose_pools: vec!["other".to_owned()],
        ..KeyChange::default()
    };
    store.set_client_key("laptop", &more).await.unwrap();
    assert!(key().await.may_choose_account, "it keeps what it had");
    assert_eq!(key().await.may_choose_pools, ["other"]);
    let less = KeyChange {
        models: Some(latchkey::snapshot::Models::default()),
        no_choice: true,
        ..KeyChange::default()
    };
    store.set_client_key("laptop", &less).await.unwrap();
    let key = key().await;
    assert!(key.models.is_all() && !key.may_choose_account && key.may_choose_pools.is_empty());
    let nowhere = KeyChange {
        pool: Some("nowhere".to_owned()),
        ..KeyChange::default()
    };
    assert!(store.set_client_key("laptop", &nowhere).await.is_err());
}
