//! Key rotation: cut short at every step, under writes, at the key's bound, with keys from the environment.

use std::{collections::HashSet, path::PathBuf};

use zeroize::Zeroizing;

use super::*;
use crate::egress::Proxy;
use crate::keys::file::KeyFile;
use crate::keys::seal::SEALS_PER_KEY;
use crate::keys::{Given, KeySource, RETIRED_VARIABLE, VARIABLE, encoded, fixed};
use crate::store::{NotRotated, Step};

/// More than two batches.
const ACCOUNTS: usize = 150;

fn from_file(state: &StateDir) -> KeySource {
    KeySource::Vault(Box::new(KeyFile(state.key())))
}

async fn open_file(state: &StateDir) -> Store {
    Store::open(state, from_file(state)).await.unwrap()
}

fn state() -> (tempfile::TempDir, StateDir) {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    (outer, state)
}

/// A store with a key file and `accounts` logins.
async fn filled(accounts: usize) -> (tempfile::TempDir, StateDir, Store) {
    let (outer, state) = state();
    let store = open_file(&state).await;
    for number in 0..accounts {
        add_login(&store, &format!("account {number}")).await;
    }
    (outer, state, store)
}

async fn rotate(store: &Store, state: &StateDir) -> Result<Vec<Step>> {
    let mut rotation = store.rotation(state);
    let mut steps = Vec::new();
    loop {
        match rotation.step().await? {
            Step::Done => return Ok(steps),
            step => steps.push(step),
        }
    }
}

async fn assert_all_open(store: &Store, accounts: usize) {
    let found = store.accounts().await.unwrap();
    assert_eq!(found.len(), accounts);
    for account in found {
        store.credential(&account.id).await.unwrap();
        let origin = store.origin(&account).await.unwrap();
        assert_eq!(origin.is_some(), account.name == "imported");
    }
}

async fn seals(store: &Store, key: KeyId) -> i64 {
    sqlx::query_scalar("SELECT seals FROM sealing_keys WHERE id = ?")
        .bind(key.as_bytes())
        .fetch_one(&store.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn every_record_opens_whatever_step_was_the_last() {
    let (_outer, template, store) = filled(ACCOUNTS - 1).await;
    let imported = Member {
        account: NewAccount {
            name: "imported",
            platform: "codex",
            credential: tokens("access-1"),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
        },
        renew: false,
        pool: None,
        proxy: None,
        origin: Some(b"what its file said"),
    };
    let terms = Terms::default();
    store.save_accounts(&[imported], &terms, NOW).await.unwrap();
    let proxy = Proxy::parse("http://user:secret@proxy.test", None).unwrap();
    let by_proxy = Terms {
        proxy: Some(Some(proxy.clone())),
        ..Terms::default()
    };
    for name in ["account 1", "imported"] {
        let set = store.set_account(name, AccountChanges::default(), &by_proxy, NOW);
        set.await.unwrap();
    }
    store.close().await;
    for steps in 0.. {
        let (_outer, state) = state();
        for file in [StateDir::database, StateDir::key] {
            fs::copy(file(&template), file(&state)).unwrap();
        }
        let store = open_file(&state).await;
        let before = store.sealing_key().await.unwrap();
        let mut rotation = store.rotation(&state);
        let mut last = None;
        for _ in 0..steps {
            last = Some(rotation.step().await.unwrap());
        }
        // Nothing is closed: that is what a kill leaves.
        let next = open_file(&state).await;
        assert_all_open(&next, ACCOUNTS).await;
        rotate(&next, &state).await.unwrap();
        let key = next.sealing_key().await.unwrap();
        assert_ne!(key, before);
        assert_eq!(next.used_keys().await.unwrap(), [key].into());
        let held: Vec<_> = from_file(&state).load().unwrap().ids().collect();
        assert_eq!(held, [key], "{steps} steps");
        assert_all_open(&next, ACCOUNTS).await;
        let proxies = next.proxies().await.unwrap().into_values();
        let proxies: Vec<_> = proxies.map(|opened| opened.unwrap()).collect();
        assert_eq!(proxies, [proxy.clone(), proxy.clone()]);
        if last == Some(Step::Done) {
            assert!(steps >= 7, "{steps}");
            break;
        }
    }
}

#[tokio::test]
async fn a_rotation_says_what_it_does_and_counts_what_it_seals() {
    let (_outer, state, store) = filled(3).await;
    let old = store.sealing_key().await.unwrap();
    assert_eq!(
        seals(&store, old).await,
        7,
        "two of each account, and the check value"
    );
    let steps = rotate(&store, &state).await.unwrap();
    let new = store.sealing_key().await.unwrap();
    let expected = [
        Step::Made(new),
        Step::Switched,
        Step::Sealed(3),
        Step::Sealed(0),
        Step::Forgot(1),
    ];
    assert_eq!(steps, expected);
    assert_eq!(seals(&store, new).await, 7);
    let (_, revision) = store.head().await.unwrap();
    rotate(&store, &state).await.unwrap();
    assert_eq!(
        store.head().await.unwrap().1,
        revision,
        "nothing to publish"
    );
}

#[tokio::test]
async fn a_running_process_takes_the_new_key_over_and_seals_with_no_other() {
    let (_outer, state, store) = filled(ACCOUNTS).await;
    let running = open_file(&state).await;
    let id = running.account("account 7").await.unwrap().id;
    let writing = tokio::spawn({
        let (running, id) = (running.clone(), id.clone());
        async move {
            for generation in 1..=100 {
                let held = claim(&running, &id, generation, LIFE).await;
                let new = tokens(&format!("access-{generation}"));
                assert!(running.commit(&held, &new, None, NOW).await.unwrap());
            }
        }
    });
    let mut rotations = 0;
    while !writing.is_finished() {
        rotate(&store, &state).await.unwrap();
        rotations += 1;
    }
    writing.await.unwrap();
    assert!(rotations > 0);
    rotate(&store, &state).await.unwrap();
    let newest = running.credential(&id).await.unwrap();
    assert_eq!(newest.on_the_wire().expose_secret(), "access-100");
    add_login(&running, "late").await;
    let key = store.sealing_key().await.unwrap();
    assert_eq!(store.used_keys().await.unwrap(), [key].into());
    assert_all_open(&open_file(&state).await, ACCOUNTS + 1).await;
}

#[tokio::test]
async fn what_was_read_before_a_rotation_ended_opens_after_it() {
    let (_outer, state, store) = filled(1).await;
    let running = open_file(&state).await;
    let id = running.account("account 0").await.unwrap().id;
    let read: Vec<u8> = sqlx::query_scalar("SELECT credential FROM accounts")
        .fetch_one(&running.pool)
        .await
        .unwrap();
    rotate(&store, &state).await.unwrap();
    add_login(&running, "with the new key").await;
    let binding = Binding {
        record: id.as_str(),
        generation: 1,
        platform: "codex",
        kind: "oauth",
        base_url: None,
    };
    running.open_credential(binding, &read).unwrap();
    let next = open_file(&state).await;
    next.open_credential(binding, &read).unwrap_err();
}

#[tokio::test]
async fn a_key_at_its_bound_is_replaced_by_a_rotation() {
    let (_outer, state, store) = filled(2).await;
    let id = store.account("account 0").await.unwrap().id;
    let held = claim(&store, &id, 1, LIFE).await;
    sqlx::query("UPDATE sealing_keys SET seals = ?")
        .bind(signed(SEALS_PER_KEY - 2))
        .execute(&store.pool)
        .await
        .unwrap();
    add_login(&store, "the last").await;
    let new = tokens("access-2");
    let error = store.commit(&held, &new, None, NOW).await.unwrap_err();
    let is_exhausted = matches!(
        error,
        Error::Seal {
            source: seal::Error::Exhausted,
            ..
        }
    );
    assert!(is_exhausted, "{error}");
    let old = store.sealing_key().await.unwrap();
    assert_eq!(seals(&store, old).await, signed(SEALS_PER_KEY));
    // Whoever holds new tokens tries until they are stored.
    rotate(&store, &state).await.unwrap();
    assert!(store.commit(&held, &new, None, NOW).await.unwrap());
    assert_all_open(&store, 3).await;
    let key = store.sealing_key().await.unwrap();
    assert_eq!(seals(&store, key).await, 8);
    assert_eq!(
        seals(&store, old).await,
        signed(SEALS_PER_KEY),
        "if it came back"
    );
}

#[tokio::test]
async fn a_record_that_does_not_open_keeps_its_key() {
    let (_outer, state, store) = filled(3).await;
    let old = store.sealing_key().await.unwrap();
    sqlx::query(
        "UPDATE accounts SET credential = substr(credential, 1, 30) WHERE name = 'account 1'",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let error = rotate(&store, &state).await.unwrap_err();
    assert!(
        matches!(error, Error::Rotation(NotRotated::Unreadable(1))),
        "{error}"
    );
    let new = store.sealing_key().await.unwrap();
    let held: Vec<_> = from_file(&state).load().unwrap().ids().collect();
    assert_eq!(held, [new, old]);
}

#[tokio::test]
async fn what_an_old_key_sealed_is_gone_from_the_files() {
    let (_outer, state, store) = filled(ACCOUNTS).await;
    let old: Vec<Vec<u8>> = sqlx::query_scalar("SELECT credential FROM accounts")
        .fetch_all(&store.pool)
        .await
        .unwrap();
    let found = || {
        let files = fs::read_dir(state.path()).unwrap();
        let files: Vec<_> = files
            .filter(|file| file.as_ref().unwrap().file_type().unwrap().is_file())
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        let heads: HashSet<&[u8]> = old.iter().map(|sealed| &sealed[..40]).collect();
        let parts = files.iter().flat_map(|file| file.windows(40));
        let found: HashSet<&[u8]> = parts.filter(|part| heads.contains(part)).collect();
        found.len()
    };
    assert_eq!(found(), ACCOUNTS);
    rotate(&store, &state).await.unwrap();
    assert_eq!(found(), 0);
}

/// Keys that the operator keeps where every process can read them.
#[derive(Debug)]
struct Shared(PathBuf);

impl Given for Shared {
    fn place(&self) -> String {
        "shared".to_owned()
    }

    fn read(&self) -> std::result::Result<Option<Zeroizing<String>>, crate::keys::Error> {
        Ok(fs::read_to_string(&self.0).ok().map(Zeroizing::new))
    }
}

#[tokio::test]
async fn a_running_process_reads_a_key_that_the_operator_put_there() {
    let (outer, state) = state();
    let shared = outer.path().join("shared");
    let source = || KeySource::Given(Box::new(Shared(shared.clone())));
    fs::write(&shared, encoded(1)).unwrap();
    let running = Store::open(&state, source()).await.unwrap();
    add_login(&running, "alice").await;
    let error = rotate(&running, &state).await.unwrap_err();
    assert!(
        matches!(error, Error::Rotation(NotRotated::GivenKeys(_))),
        "{error}"
    );

    fs::write(&shared, format!("{}\n{}", encoded(2), encoded(1))).unwrap();
    let store = Store::open(&state, source()).await.unwrap();
    let new = store.waiting_key().await.unwrap().unwrap();
    let steps = rotate(&store, &state).await.unwrap();
    assert_eq!(steps[..2], [Step::Resumed(new), Step::Switched]);
    add_login(&running, "bob").await;
    assert_all_open(&running, 2).await;
    fs::write(&shared, encoded(2)).unwrap();
    assert_all_open(&Store::open(&state, source()).await.unwrap(), 2).await;
}

/// The keys 2 and, retired, 1.
fn both() -> KeySource {
    let state = state().1;
    KeySource::locate(&state, &crate::config::Key::default(), |name| {
        let KeySource::Variables { first, .. } = fixed(match name {
            VARIABLE => 2,
            RETIRED_VARIABLE => 1,
            _ => return None,
        }) else {
            return None;
        };
        Some(first)
    })
    .unwrap()
}

#[tokio::test]
async fn keys_of_the_environment_change_over_when_told() {
    let (_outer, state) = state();
    let store = open(&state).await.unwrap();
    add_login(&store, "alice").await;
    let error = rotate(&store, &state).await.unwrap_err();
    assert!(
        matches!(error, Error::Rotation(NotRotated::FixedKeys)),
        "{error}"
    );
    let old = store.sealing_key().await.unwrap();
    store.close().await;

    let store = Store::open(&state, both()).await.unwrap();
    add_login(&store, "bob").await;
    assert_eq!(store.sealing_key().await.unwrap(), old, "until it is told");
    let new = store.waiting_key().await.unwrap().unwrap();
    let mut served = state.lock_serve().unwrap();
    served.note(&format!("{old}\n")).unwrap();
    let error = rotate(&store, &state).await.unwrap_err();
    assert!(
        matches!(error, Error::Rotation(NotRotated::NotServed(_))),
        "{error}"
    );
    served.note(&store.fixed_keys()).unwrap();
    let steps = rotate(&store, &state).await.unwrap();
    assert_eq!(
        steps[..3],
        [Step::Resumed(new), Step::Switched, Step::Sealed(2)]
    );
    assert_eq!(store.waiting_key().await.unwrap(), None);
    let error = rotate(&store, &state).await.unwrap_err();
    assert!(
        matches!(error, Error::Rotation(NotRotated::FixedKeys)),
        "{error}"
    );
    store.close().await;

    assert_all_open(&Store::open(&state, fixed(2)).await.unwrap(), 2).await;
    let error = Store::open(&state, fixed(1)).await.unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error}");
}

/// The published rows are sealed with the new key from its first transaction on, and what something else has
/// written is not made good by that.
#[tokio::test]
async fn what_is_published_is_sealed_anew_and_not_published() {
    let (_outer, state, store) = filled(1).await;
    publish(&store, &["codex", "openai"]).await;
    store.publish_doors(crate::platform::doors()).await.unwrap();
    let (_, revision) = store.head().await.unwrap();
    rotate(&store, &state).await.unwrap();
    let key = store.sealing_key().await.unwrap();
    assert_eq!(store.used_keys().await.unwrap(), [key].into());
    let anew = open_file(&state).await;
    assert_eq!(anew.left_out().await.unwrap(), []);
    assert_eq!(anew.head().await.unwrap().1, revision, "nothing to publish");

    let write = "UPDATE platforms SET authority = 'evil.example' WHERE id = 'codex'";
    sqlx::query(write).execute(&store.pool).await.unwrap();
    let unread = rotate(&store, &state).await.unwrap_err();
    assert!(
        matches!(unread, Error::Rotation(NotRotated::Unreadable(1))),
        "{unread}"
    );
    let left_out = store.left_out().await.unwrap();
    assert!(left_out.iter().any(|one| one.id == "codex"), "{left_out:?}");
    assert!(
        left_out.iter().all(|one| one.id != "openai"),
        "{left_out:?}"
    );
    publish(&store, &["codex", "openai"]).await;
    assert_eq!(store.left_out().await.unwrap(), []);
    rotate(&store, &state).await.unwrap();
}
