use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::time::sleep;

use crate::harness::{
    Caller, Load, Stack,
    caller::{chat_body, responses_body},
    eventually, holds,
    refresher::Refresher,
    run,
    sim::Sim,
    stack::{ALICE, new_folder},
};

const CHAT: &str = "/v1/chat/completions";

/// A state directory with one account.
async fn state(name: &str) -> Refresher {
    let folder = new_folder(name);
    let refresher = Refresher::new(&folder, &Sim::start(&folder).await);
    refresher.add_api_key("first", "openai", "sk-first").await;
    refresher
}

/// A process that is killed while it makes the state directory leaves one that works.
#[test]
fn a_kill_during_the_first_start_leaves_a_usable_state() {
    run(async {
        let folder = new_folder("store-first-start");
        let sim = Sim::start(&folder).await;
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..40 {
            let state = folder.join("state");
            fs::remove_dir_all(&state).expect("removed");
            fs::create_dir(&state).expect("made");
            fs::set_permissions(&state, Permissions::from_mode(0o700)).expect("private");
            let mut refresher = Refresher::new(&folder, &sim);
            refresher.start().await;
            sleep(Duration::from_micros(random.random_range(0..60_000))).await;
            refresher.kill().await;
            // What only reads makes no state, and there may be none yet.
            let add = ["accounts", "add", "one", "--platform", "openai"];
            let output = refresher.try_run(&add, "sk-one").await;
            assert!(output.status.success(), "round {round}: {output:?}");
            let output = refresher.try_run(&["status", "--json"], "").await;
            assert!(output.status.success(), "round {round}: {output:?}");
        }
    });
}

/// A thing that a command said was saved is there after any number of `kill -9` of other commands and of the daemon,
/// and every kill leaves a store that opens.
#[test]
fn what_was_saved_survives_kills() {
    run(async {
        let mut refresher = state("store-kills").await;
        let mut random = StdRng::seed_from_u64(7);
        let mut saved = vec!["first".to_owned()];
        for round in 0..25 {
            refresher.serve().await;
            let name = format!("account-{round}");
            let arguments = ["accounts", "add", &name, "--platform", "openai"];
            let pause = Duration::from_millis(random.random_range(0..40));
            let (output, ()) = tokio::join!(refresher.try_run(&arguments, "sk-any"), sleep(pause));
            refresher.kill().await;
            assert!(output.status.success(), "{output:?}");
            saved.push(name);
        }
        let accounts = refresher.accounts().await;
        let names: Vec<&str> = accounts
            .iter()
            .filter_map(|account| account["name"].as_str())
            .collect();
        assert!(
            saved.iter().all(|name| names.contains(&name.as_str())),
            "{names:?}"
        );
    });
}

/// A disk that is full is an error of the command that meets it, and what was there stays.
#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    run(async {
        let refresher = state("store-full").await;
        let mut failed = 0;
        for kilobytes in [0, 4, 16, 32, 64] {
            // A write past the limit fails as on a full disk; the signal that comes with it is ignored.
            let limited = format!("ulimit -f {kilobytes}; trap '' XFSZ; exec \"$@\"");
            let name = format!("account-{kilobytes}");
            let output = refresher
                .try_run_in(
                    &["sh", "-c", &limited, "sh"],
                    &["accounts", "add", &name, "--platform", "openai"],
                    "sk-any",
                )
                .await;
            let added = refresher
                .accounts()
                .await
                .iter()
                .any(|account| account["name"] == name.as_str());
            assert_eq!(
                output.status.success(),
                added,
                "{kilobytes} KiB: {output:?}"
            );
            assert!(
                output.status.code().is_some(),
                "{kilobytes} KiB: {output:?}"
            );
            failed += usize::from(!added);
        }
        assert!(failed >= 2, "the limit was never met");
        assert_eq!(refresher.account("first").await["usable"], true);
    });
}

/// A disk that fills up while new tokens are on their way: nothing is sent that could not be noted first, new tokens are
/// kept until they can be stored, and callers are served with the old ones meanwhile.
#[test]
fn tokens_outlast_a_full_disk() {
    // A write past the limit fails as on a full disk; the signal that comes with it is ignored.
    const WRAPPER: [&str; 4] = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    const FULL: [&str; 4] = ["sh", "-c", "ulimit -f 1; trap '' XFSZ; exec \"$@\"", "sh"];
    const LIMIT: Duration = Duration::from_secs(30);
    run(async {
        let stack = Stack::alice("store-disk", Duration::from_secs(3600)).await;
        let caller = stack.caller("disk").await;
        let served = async || {
            let answer = caller.post("/v1/responses", &responses_body()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        served().await;
        let calls = stack.sim.count("token_calls").await;

        let output = stack
            .refresher
            .try_run_in(&FULL, &["refresh", ALICE], "")
            .await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(stack.sim.count("token_calls").await, calls);
        served().await;

        stack
            .sim
            .add_fault(json!({"target": "token", "delay_ms": 3_000, "times": 1}))
            .await;
        let mut refreshing = stack
            .refresher
            .start_command(&WRAPPER, &["refresh", ALICE], "refresh.log")
            .await;
        eventually("the call is out", LIMIT, async || {
            let found = stack.sim.count("token_calls").await;
            holds(found == calls + 1, || found.to_string())
        })
        .await;
        let limit_to = |limit: &str| {
            let pid = refreshing.pid().to_string();
            let limit = format!("--fsize={limit}:unlimited");
            let limited = Command::new("prlimit")
                .args(["--pid", &pid, &limit])
                .status();
            assert!(limited.expect("prlimit runs").success());
        };
        limit_to("1024");
        eventually("the store fails", LIMIT, async || {
            let printed = refreshing.printed();
            holds(printed.contains("cannot store new tokens"), || printed)
        })
        .await;
        served().await;
        assert_eq!(stack.refresher.account(ALICE).await["generation"], 1);
        limit_to("unlimited");
        let status = refreshing.ends().await;
        assert!(status.success(), "{}", refreshing.printed());
        assert_eq!(stack.refresher.account(ALICE).await["generation"], 2);
        served().await;
        assert_eq!(stack.sim.count("token_calls").await, calls + 1);
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
    });
}

/// A key rotation beside requests, refreshes and commands: nobody notices, and everything opens with the new key alone.
#[test]
fn a_key_rotation_is_not_noticed() {
    const ROUNDS: usize = 5;
    run(async {
        let mut stack = Stack::real("store-rotation", async |sim, refresher| {
            sim.add_api_key("openai", "sk-any", "any").await;
            let life = Duration::from_secs(6);
            refresher.log_in_new(sim, ALICE, life).await;
        })
        .await;
        let key = |stack: &Stack<Refresher>| {
            fs::read_to_string(stack.refresher.file("key")).expect("the key")
        };
        let old = key(&stack);
        let load = Load::start(
            stack.caller("load").await,
            "/v1/responses",
            responses_body(),
            20,
        );
        for round in 0..ROUNDS {
            let name = format!("account-{round}");
            tokio::join!(
                stack.refresher.run(&["rotate-key"], ""),
                stack.refresher.add_api_key(&name, "openai", "sk-any"),
                sleep(Duration::from_secs(2)),
            );
        }
        load.assert_all_good(150).await;
        assert_ne!(key(&stack), old);
        assert_eq!(key(&stack).lines().count(), 1);
        let generation = stack.refresher.account(ALICE).await["generation"].as_u64();
        assert!(generation >= Some(2), "{generation:?}");
        assert_eq!(stack.sim.count("rejected_credentials").await, 0);
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
        stack.refresher.stop().await;
        stack.refresher.serve().await;
        assert_eq!(stack.refresher.accounts().await.len(), ROUNDS + 1);
        assert_eq!(stack.refresher.log_lines("cannot be opened", ""), 0);
        stack.refresher.run(&["refresh", ALICE], "").await;
    });
}

/// A database that was put back from an older copy: what was spent since is not sent again.
#[test]
fn a_token_that_was_spent_after_the_backup_is_not_sent_again() {
    run(async {
        let folder = new_folder("store-spent");
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        sim.add_user(ALICE, Duration::from_secs(3600)).await;
        refresher.import(&sim, ALICE).await;
        let backup = fs::read(refresher.file("latchkey.db")).expect("a backup");
        refresher.run(&["refresh", ALICE], "").await;
        let calls = sim.count("token_calls").await;
        fs::write(refresher.file("latchkey.db"), backup).expect("restored");
        // Whoever looks first, and then before and after a start: each account is told until somebody logs in again.
        let told = async |refresher: &Refresher| {
            let output = refresher.try_run(&["doctor", "--offline"], "").await;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!said.contains("Nothing is wrong"), "{said}");
            let is_named = said.contains(&format!(
                "account {ALICE} serves until its access token ends"
            ));
            assert!(is_named && said.contains("refresher login codex"), "{said}");
            (
                said.contains("an older copy"),
                said.contains("was spent after this copy"),
            )
        };
        assert_eq!(told(&refresher).await, (true, true));
        assert_eq!(told(&refresher).await, (true, true));
        refresher.serve().await;
        assert_eq!(told(&refresher).await, (false, true));
        assert_eq!(refresher.log_lines("older copy", "newest copy"), 1);
        assert_eq!(refresher.log_lines("refresh token was spent", ALICE), 1);
        let output = refresher.try_run(&["refresh", ALICE], "").await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("may be spent"), "{said}");
        let account = refresher.account(ALICE).await;
        assert_eq!(
            account["usable"], true,
            "to its access token's end: {account}"
        );
        assert_eq!(sim.count("token_calls").await, calls);
        assert_eq!(sim.count("reuse_detected").await, 0);
    });
}

/// A state directory that somebody else can reach, or that is damaged, foreign or incomplete, is refused
/// by name and left as it is. The daemon does not start on it either.
#[test]
fn a_state_that_is_not_right_is_refused_and_untouched() {
    type Spoil = fn(&Path);
    let cases: [(&str, &str, Spoil); 13] = [
        ("a lax directory", "chmod 700", |state| mode(state, 0o755)),
        ("a lax database", "chmod 600", |state| {
            mode(&state.join("latchkey.db"), 0o644)
        }),
        ("a lax key", "chmod 600", |state| {
            mode(&state.join("key"), 0o640)
        }),
        ("a linked key", "symbolic link", |state| {
            link(&state.join("key"))
        }),
        ("a linked database", "symbolic link", |state| {
            link(&state.join("latchkey.db"))
        }),
        ("another key", "key", |state| {
            write(
                &state.join("key"),
                b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
            );
        }),
        ("half a key", "44 characters", |state| {
            write(&state.join("key"), b"AAAAAAAAAAAAAAAAAAAAAA==\n")
        }),
        ("no key", "missing", |state| {
            fs::remove_file(state.join("key")).expect("removed")
        }),
        ("half a database", "latchkey.db", |state| {
            let database = state.join("latchkey.db");
            let bytes = fs::read(&database).expect("read");
            write(&database, &bytes[..bytes.len() / 2]);
        }),
        ("an empty database", "latchkey.db", |state| {
            write(&state.join("latchkey.db"), b"")
        }),
        ("no database", "latchkey.db", |state| {
            write(&state.join("latchkey.db"), &[7; 40_000])
        }),
        ("a damaged page", "latchkey.db", |state| {
            let database = state.join("latchkey.db");
            let mut bytes = fs::read(&database).expect("read");
            bytes[4_096..4_200].fill(0xff);
            write(&database, &bytes);
        }),
        ("a mistyped configuration", "config.toml", |state| {
            write(&state.join("config.toml"), b"[serv]\n");
        }),
    ];
    run(async {
        for (number, (case, message, spoil)) in cases.into_iter().enumerate() {
            let refresher = state(&format!("store-spoilt-{number}")).await;
            let state = refresher.file("");
            spoil(&state);
            let before = content(&state);
            for arguments in [
                &["serve"][..],
                &["accounts", "list"],
                &["keys", "create", "any"],
            ] {
                let output = refresher.try_run(arguments, "").await;
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(
                    output.status.code(),
                    Some(1),
                    "{case}, {arguments:?}: {said}"
                );
                assert!(said.contains(message), "{case}, {arguments:?}: {said}");
                assert!(
                    said.contains(state.to_str().expect("UTF-8")) || case.contains("directory"),
                    "{case}: {said}"
                );
            }
            assert!(content(&state) == before, "{case}: something was changed");
            mode(&state, 0o700);
        }
    });
}

/// Files of another user are refused, where this test can make some.
#[test]
fn another_users_files_are_refused() {
    run(async {
        if !rustix::process::geteuid().is_root() {
            println!("not root: there is no file of another user to be made");
            return;
        }
        for (number, file) in ["", "key", "latchkey.db"].into_iter().enumerate() {
            let refresher = state(&format!("store-foreign-{number}")).await;
            chown(refresher.file(file), Some(65_534), None).expect("given away");
            let output = refresher.try_run(&["accounts", "list"], "").await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{file}: {said}");
            assert!(said.contains("chown"), "{file}: {said}");
        }
    });
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("written");
}

/// Moves a file away and puts a link to it in its place.
fn link(path: &Path) {
    let target = path.with_extension("target");
    fs::rename(path, &target).expect("moved");
    symlink(target, path).expect("linked");
}

/// The files that matter, with what is in them.
fn content(state: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    [
        "key",
        "key.target",
        "latchkey.db",
        "latchkey.target",
        "config.toml",
    ]
    .map(|name| (name.to_owned(), fs::read(state.join(name)).ok()))
    .to_vec()
}

/// A restored backup is a new history: Envoy drops what the backup does not have, though it had seen a later
/// revision.
#[test]
fn a_restored_backup_replaces_what_envoy_holds() {
    run(async {
        let mut stack = Stack::real("store-backup", async |sim, refresher| {
            sim.add_api_key("openai", "sk-openai", "openai-key").await;
            refresher.add_api_key("work", "openai", "sk-openai").await;
        })
        .await;
        let old = stack.caller("old").await;
        stack.refresher.stop().await;
        let backup = fs::read(stack.refresher.file("latchkey.db")).expect("a backup");
        stack.refresher.serve().await;
        let mut later: Vec<Caller> = Vec::new();
        for key in 0..5 {
            later.push(stack.caller(&format!("later-{key}")).await);
        }
        stack.refresher.stop().await;
        for side_file in ["latchkey.db-wal", "latchkey.db-shm"] {
            fs::remove_file(stack.refresher.file(side_file)).ok();
        }
        fs::write(stack.refresher.file("latchkey.db"), backup).expect("restored");
        stack.refresher.serve().await;
        eventually(
            "the later keys are refused",
            Duration::from_secs(3),
            async || {
                for caller in &later {
                    let answer = caller.post(CHAT, &chat_body(false)).await;
                    holds(answer.status == 401, || format!("{answer:?}"))?;
                }
                Ok(())
            },
        )
        .await;
        assert_eq!(old.post(CHAT, &chat_body(false)).await.status, 200);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// No core dump, a socket for this user only, and one daemon on one state.
#[test]
fn the_daemon_keeps_to_itself() {
    run(async {
        let mut refresher = state("store-daemon").await;
        refresher.serve().await;
        let limits =
            fs::read_to_string(format!("/proc/{}/limits", refresher.pid())).expect("limits");
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let core: Vec<&str> = core.expect("a line").split_whitespace().collect();
        assert_eq!(core[4..6], ["0", "0"], "{core:?}");
        for (file, expected) in [
            ("", 0o700),
            ("run", 0o700),
            ("run/refresher.sock", 0o600),
            ("latchkey.db", 0o600),
            ("latchkey.db-wal", 0o600),
            ("key", 0o600),
            ("envoy", 0o700),
        ] {
            let found = fs::metadata(refresher.file(file))
                .expect("a file")
                .permissions()
                .mode();
            assert_eq!(found & 0o7777, expected, "{file}: {found:o}");
        }
        let second = refresher.try_run(&["serve"], "").await;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{said}");
        assert!(said.contains("error: another refresher serves"), "{said}");
        refresher.stop().await;
        assert!(!refresher.file("run/refresher.sock").exists());
    });
}
