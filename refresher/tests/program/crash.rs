//! `kill -9` at any moment: whatever was said to be saved is there, and every record opens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use refresher::clock::UnixMillis;
use refresher::credential::{Credential, OAuthTokens};
use refresher::keys::KeySource;
use refresher::keys::file::KeyFile;
use refresher::state::StateDir;
use refresher::store::{NewAccount, Store, Terms};
use secrecy::ExposeSecret;
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
        client: None,
    })
}

/// Adds an account, or gives it its next generation.
async fn save(store: &Store, name: &str, token: &str) {
    let new = NewAccount {
        name,
        platform: "codex",
        credential: login(token),
        vars: [("account_id".to_owned(), "ws-1".to_owned())].into(),
        credential_expires_at: None,
        base_url: None,
    };
    store
        .save_account(new, &Terms::default(), true, NOW)
        .await
        .unwrap();
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
    let mut child = refresher(state, &["serve", "--envoy-elsewhere"]);
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
    rotations_are_killed(12);
}

/// Kills three rotations in each of so many rounds.
fn rotations_are_killed(rounds: usize) {
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
    for round in 0..rounds {
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
                store.credential(&account.id).await.unwrap();
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
    assert!(cut_short >= rounds, "only {cut_short} were killed in time");
}

/// The things that a writer process saves, in order, each under its name: the number of the save and as many filling bytes as it says.
fn torn_text(number: u64) -> String {
    let filling = usize::try_from(number * 7919 % 3000).unwrap();
    format!("{number}-{}", "x".repeat(filling))
}

const TORN_STATE: &str = "LATCHKEY_TEST_TORN_STATE";
const TORN_NAMES: u64 = 5;

/// The process that is killed: saves as fast as it can and says what was saved.
#[test]
#[ignore = "a process that `writers_that_are_killed_leave_a_store_that_opens` starts, with a state directory"]
fn torn_writer() {
    let state = std::env::var_os(TORN_STATE).expect("a state directory");
    let state = StateDir::open(Path::new(&state)).unwrap();
    Runtime::new().unwrap().block_on(async {
        let store = open(&state).await;
        let accounts = store.accounts().await.unwrap();
        let saved: u64 = accounts.iter().map(|account| account.generation).sum();
        for number in saved + 1.. {
            save(
                &store,
                &format!("account {}", number % TORN_NAMES),
                &torn_text(number),
            )
            .await;
            println!("saved {number}");
        }
    });
}

/// Starts that process.
fn start_writer(state: &StateDir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::torn_writer", "--ignored", "--nocapture"])
        .env(TORN_STATE, state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The time from a writer's start, on a new state, to its first save: how long that takes is the machine's matter.
fn time_to_save(outer: &Path) -> Duration {
    let state = StateDir::open(&outer.join("measured")).unwrap();
    let started = Instant::now();
    let mut writer = start_writer(&state);
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("saved ")));
    let took = started.elapsed();
    writer.kill().unwrap();
    writer.wait().unwrap();
    took
}

/// Kills `rounds` writers, one after the other and each within `span`, on one state; how many saves were said.
fn kill_writers(state: &StateDir, rounds: usize, span: Duration, seed: u64) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let runtime = Runtime::new().unwrap();
    let mut last = 0;
    for round in 0..rounds {
        let mut writer = start_writer(state);
        sleep(span.mul_f64(random.random_range(0.0..1.0)));
        writer.kill().unwrap();
        let output = writer.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said
            .lines()
            .filter_map(|line| line.split_once("saved ")?.1.parse().ok());
        last = said.max().unwrap_or(last);
        runtime.block_on(async {
            let store = open(state).await;
            let mut newest = 0;
            for account in store.accounts().await.unwrap() {
                let credential = store.credential(&account.id).await.unwrap();
                let text = credential
                    .on_the_wire()
                    .expose_secret()
                    .strip_prefix("access-")
                    .unwrap();
                let number: u64 = text.split_once('-').unwrap().0.parse().unwrap();
                assert_eq!(text, torn_text(number), "round {round}");
                newest = newest.max(number);
            }
            assert!(
                newest >= last,
                "round {round}: {last} was said to be saved, {newest} is"
            );
            // The one that was being saved may be there.
            assert!(
                newest <= last + 1,
                "round {round}: {newest} is there, {last} was the last"
            );
            last = newest;
            store.close().await;
        });
    }
    last
}

#[test]
fn writers_that_are_killed_leave_a_store_that_opens() {
    writers_are_killed(200);
}

/// Kills so many writers, on four states at the same time.
fn writers_are_killed(kills: usize) {
    const STATES: usize = 4;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let outer = tempfile::tempdir().unwrap();
    let states: Vec<StateDir> = (0..STATES)
        .map(|n| StateDir::open(&outer.path().join(n.to_string())).unwrap())
        .collect();
    let span = 2 * time_to_save(outer.path());
    let saves: u64 = std::thread::scope(|scope| {
        let kills = states.iter().zip(0..).map(|(state, n)| {
            scope.spawn(move || kill_writers(state, kills / STATES, span, seed.wrapping_add(n)))
        });
        let kills: Vec<_> = kills.collect();
        kills.into_iter().map(|kills| kills.join().unwrap()).sum()
    });
    println!("{saves} saves");
    let least = kills as u64 / 10;
    assert!(
        saves >= least,
        "only {saves} saves: the kills came too early"
    );
}

/// The same for longer (`make long`).
mod long {
    #[test]
    #[ignore = "half a minute"]
    fn sixty_rotations_that_are_killed_leave_every_record_readable() {
        super::rotations_are_killed(60);
    }

    #[test]
    #[ignore = "a minute"]
    fn two_thousand_writers_that_are_killed_leave_a_store_that_opens() {
        super::writers_are_killed(2_000);
    }
}
