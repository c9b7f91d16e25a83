//! `kill -9` at any moment: whatever was said to be saved is there, and every record opens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use refresher::credential::{Credential, OAuthTokens};
use refresher::key_file::KeyFile;
use refresher::key_source::KeySource;
use refresher::refresh::clock::UnixMillis;
use refresher::state::StateDir;
use refresher::store::{NewAccount, Store};
use tokio::runtime::Runtime;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn keys(state: &StateDir) -> KeySource {
    KeySource::Vault(Box::new(KeyFile(state.key())))
}

async fn open(state: &StateDir) -> Store {
    let _lock = state.lock_setup().unwrap();
    Store::open(state, keys(state)).await.unwrap()
}

fn login(token: &str) -> Credential {
    Credential::OAuth(OAuthTokens {
        access: format!("access-{token}").into(),
        refresh: format!("refresh-{token}").into(),
        id: None,
    })
}

/// Adds an account, or gives it its next generation.
async fn save(store: &Store, name: &str, token: &str) {
    let new = NewAccount {
        name,
        platform: "codex",
        credential: login(token),
        vars: [("account_id".to_owned(), "ws-1".to_owned())].into(),
        expires_at: None,
    };
    store.save_account(new, true, NOW).await.unwrap();
}

fn refresher(state: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_refresher"))
        .env_clear()
        .arg("--state-dir")
        .arg(state)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts `serve` and waits until it says so.
fn serve(state: &Path) -> Child {
    let mut child = refresher(state, &["serve"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("serving")));
    // The log is read on, or the pipe fills.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn copy(from: &StateDir, to: &Path) -> StateDir {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    let copied = StateDir::open(to).unwrap();
    for file in [StateDir::database, StateDir::key] {
        fs::copy(file(from), file(&copied)).unwrap();
    }
    copied
}

#[test]
fn a_rotation_that_is_killed_leaves_every_record_readable() {
    const ACCOUNTS: usize = 300;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let runtime = Runtime::new().unwrap();
    let outer = tempfile::tempdir().unwrap();
    let template = StateDir::open(&outer.path().join("template")).unwrap();
    runtime.block_on(async {
        let store = open(&template).await;
        for number in 0..ACCOUNTS {
            save(&store, &format!("account {number}"), "1").await;
        }
        store.close().await;
    });
    let whole = copy(&template, &outer.path().join("whole"));
    let started = Instant::now();
    assert!(
        refresher(whole.path(), &["rotate-key"])
            .wait()
            .unwrap()
            .success()
    );
    let whole = started.elapsed();
    let mut cut_short = 0;
    for round in 0..60 {
        let path = outer.path().join(format!("round-{round}"));
        let state = copy(&template, &path);
        let mut daemon = (round % 4 == 0).then(|| serve(&path));
        // Again and again on one state, so that rotations meet what others left.
        for _ in 0..3 {
            let mut rotating = refresher(&path, &["rotate-key"]);
            sleep(whole.mul_f64(random.random_range(0.0..1.1)));
            rotating.kill().unwrap();
            cut_short += usize::from(!rotating.wait().unwrap().success());
        }
        runtime.block_on(async {
            let store = open(&state).await;
            let accounts = store.accounts().await.unwrap();
            assert_eq!(accounts.len(), ACCOUNTS, "round {round}");
            for account in &accounts {
                store.tokens(&account.id).await.unwrap();
            }
            store.close().await;
        });
        let done = refresher(&path, &["rotate-key"])
            .wait_with_output()
            .unwrap();
        assert!(done.status.success(), "round {round}: {done:?}");
        let keys = fs::read_to_string(state.key()).unwrap();
        assert_eq!(keys.lines().count(), 1, "round {round}");
        if let Some(daemon) = &mut daemon {
            assert!(daemon.try_wait().unwrap().is_none(), "round {round}");
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        fs::remove_dir_all(path).unwrap();
    }
    assert!(cut_short >= 60, "only {cut_short} were killed in time");
}
