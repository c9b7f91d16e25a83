//! The program itself, as an operator and as Envoy meet it: a state directory, a socket, signals, exit codes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use latchkey::snapshot::page::Page;
use latchkey::snapshot::{Kind, Record};
use linux_keyutils::{KeyRing, KeyRingIdentifier};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

/// The longest that anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A state directory of its own.
struct Installation {
    outer: tempfile::TempDir,
}

impl Installation {
    fn new() -> Installation {
        Installation {
            outer: tempfile::tempdir().unwrap(),
        }
    }

    fn state(&self) -> PathBuf {
        self.outer.path().join("state")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refresher"));
        command
            .env_clear()
            .arg("--state-dir")
            .arg(self.state())
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Makes the state, with nothing in it.
    fn begin(&self) {
        self.ok(&["pools", "create", "first"]);
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.run(arguments).status.code()
    }

    /// Standard error of a command that must fail.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{arguments:?}: {}",
            text(&output.stdout)
        );
        text(&output.stderr)
    }

    /// Imports a login that is due for a refresh, whose token endpoint is `endpoint`.
    fn import_due_login(&self, endpoint: &TcpListener, name: &str) {
        let url = format!("http://{}/token", endpoint.local_addr().unwrap());
        let platforms = self.outer.path().join("platforms");
        fs::create_dir(&platforms).unwrap();
        fs::write(
            platforms.join("codex.toml"),
            format!("[oauth]\ntoken_url = '{url}'"),
        )
        .unwrap();
        self.begin();
        fs::write(
            self.state().join("config.toml"),
            format!(
                "acknowledged_terms = ['codex']\nplatforms_dir = '{}'\n[refresh]\nfloor_seconds = 1",
                platforms.display()
            ),
        )
        .unwrap();
        let login = include_str!("../../src/login/import/fixtures/chatgpt_opaque_token.json");
        let expired = self.outer.path().join("auth.json");
        fs::write(&expired, login.replace("2026-11-21", "2020-01-01")).unwrap();
        self.ok(&["import", expired.to_str().unwrap(), "--name", name]);
    }

    fn add_account(&self, name: &str) -> Output {
        let mut command = self.command(&["accounts", "add", name, "--platform", "openai"]);
        command
            .env(
                "LATCHKEY_API_KEY",
                "sk-secret-0123456789abcdefghijklmnopqrstuv",
            )
            .output()
            .unwrap()
    }

    /// Starts `serve` and waits until it serves.
    fn serve(&self) -> Daemon {
        let daemon = self.start(&["serve", "--envoy-elsewhere"]);
        daemon.says("serving");
        daemon
    }

    /// Starts the daemon.
    fn start(&self, arguments: &[&str]) -> Daemon {
        let mut child = self.command(arguments).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        // The log is read on, or the pipe fills.
        std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line.unwrap()))));
        Daemon { child, log }
    }

    /// Every record that the daemon publishes.
    fn snapshot(&self) -> Vec<Record> {
        let body = get(&self.state().join("run/refresher.sock"), "/snapshot").unwrap();
        let page = Page::parse(&body).unwrap();
        page.lines()
            .map(|line| Record::from_line(line).unwrap())
            .collect()
    }
}

/// An Envoy, as far as `serve` hears of it: it polls until dropped, and holds what it was told.
struct Poller {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    fn start(installation: &Installation) -> Poller {
        let socket = installation.state().join("run/refresher.sock");
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut holds = String::new();
            while !ends.load(Ordering::Relaxed) {
                let path = format!("/snapshot?instance={}{holds}", "ab".repeat(16));
                // The daemon may be gone for a while.
                if let Some(body) = get(&socket, &path)
                    && let Ok(page) = Page::parse(&body)
                {
                    let (epoch, to) = (String::from(page.header.epoch), page.header.to);
                    holds = format!("&epoch={epoch}&since={to}&held={to}");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Poller {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The body that a socket answers with, if it does.
fn get(socket: &Path, path: &str) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: refresher\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let head = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    Some(answer.split_off(head + 4))
}

/// A running `serve`; killed when dropped.
struct Daemon {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Daemon {
    /// Waits for a line of the log.
    fn says(&self, text: &str) {
        while let line = self.log.recv_timeout(DEADLINE).expect(text)
            && !line.contains(text)
        {}
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_the_command_line_changes_reaches_envoy() {
    let installation = Installation::new();
    assert!(installation.add_account("team").status.success());
    let daemon = installation.serve();
    let has = |kind, count: usize| {
        let records = installation.snapshot();
        records
            .iter()
            .filter(|record| record.key().0 == kind)
            .count()
            == count
    };
    assert!(has(Kind::Account, 1) && has(Kind::Key, 0));
    let key = installation.ok(&["keys", "create", "laptop"]);
    assert!(
        key.starts_with("lk_") && key.trim().len() >= 35,
        "one line, the key alone"
    );
    eventually("the new key is published", || has(Kind::Key, 1));
    installation.ok(&["accounts", "disable", "team"]);
    eventually("the disabled account is gone", || has(Kind::Account, 0));
    let clusters = installation.state().join("envoy/clusters.json");
    assert!(
        fs::read_to_string(&clusters)
            .unwrap()
            .contains("\"latchkey-openai\""),
        "its cluster stays"
    );
    assert_eq!(
        fs::read_to_string(&clusters).unwrap(),
        installation.ok(&["envoy-config"])
    );
    installation.ok(&["accounts", "remove", "team"]);
    eventually("the cluster of the last account is gone", || {
        !fs::read_to_string(&clusters)
            .unwrap()
            .contains("latchkey-openai")
    });
    assert!(
        installation
            .fails(&["serve", "--envoy-elsewhere"])
            .contains("another refresher serves ")
    );
    assert!(installation.ok(&["status"]).contains("running"));
    drop(daemon);
    assert!(installation.ok(&["status"]).contains("NOT running"));
}

#[test]
fn pools_and_rights_reach_envoy() {
    let installation = Installation::new();
    for name in ["team", "spare"] {
        assert!(installation.add_account(name).status.success());
    }
    let _daemon = installation.serve();
    for command in [
        &["pools", "create", "paid-last", "--policy", "fill_first"][..],
        &["pools", "add", "paid-last", "team", "--weight", "2"],
        &["pools", "add", "paid-last", "spare", "--tier", "1"],
        &["accounts", "set", "spare", "--models", "gpt-5*,o3"],
        &[
            "keys",
            "create",
            "laptop",
            "--pool",
            "paid-last",
            "--models",
            "gpt-5*",
            "--may-choose-account",
        ],
        &["keys", "set", "laptop", "--may-choose-pool", "default"],
    ] {
        installation.ok(command);
    }
    let find = |kind, id: &dyn Fn(&Record) -> bool| {
        let mut records = installation.snapshot();
        records.retain(|record| record.key().0 == kind && id(record));
        records
            .pop()
            .map(|record| record.to_line().unwrap())
            .unwrap_or_default()
    };
    eventually("all of it is published", || {
        let pool = find(Kind::Pool, &|record| record.key().1.as_str() == "paid-last");
        let key = find(Kind::Key, &|_| true);
        let spare = find(Kind::Account, &|record| {
            record.to_line().unwrap().contains("\"spare\"")
        });
        pool.contains(r#""policy":"fill_first""#)
            && pool.contains(r#""weight":2"#)
            && pool.contains(r#""tier":1"#)
            && key.contains(
                r#""models":["gpt-5*"],"may_choose":{"account":true,"pools":["default"]}"#,
            )
            && spare.contains(r#""models":["gpt-5*","o3"]"#)
    });
    let shown = installation.ok(&["pools", "list"]);
    assert!(shown.contains("team x2; then: spare"), "{shown}");
    assert!(installation.ok(&["status"]).contains("paid-last"));
    assert!(
        installation
            .ok(&["accounts", "list"])
            .contains("default, paid-last")
    );
    assert!(
        installation
            .ok(&["keys", "list"])
            .contains("account, pool default")
    );
    let listed = installation.ok(&["pools", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[1]["members"][1]["tier"], 1, "{listed}");

    let refused = installation.fails(&["pools", "remove", "paid-last"]);
    assert!(
        refused.contains("laptop") && refused.contains("keys set"),
        "{refused}"
    );
    installation.ok(&[
        "keys",
        "set",
        "laptop",
        "--pool",
        "default",
        "--no-choice",
        "--all-models",
    ]);
    installation.ok(&["pools", "drop", "paid-last", "spare"]);
    installation.ok(&["pools", "set", "paid-last", "--policy", "round_robin"]);
    installation.ok(&["pools", "remove", "paid-last"]);
    eventually("the pool is gone", || {
        let key = find(Kind::Key, &|_| true);
        let pool = find(Kind::Pool, &|record| record.key().1.as_str() == "paid-last");
        pool.is_empty() && !key.contains("models") && !key.contains("may_choose")
    });
}

#[test]
fn exit_codes_follow_one_rule() {
    let installation = Installation::new();
    assert!(installation.add_account("team").status.success());
    installation.ok(&["keys", "create", "laptop"]);
    for misfit in [
        &["pools", "create", "x", "--policy", "random"][..],
        &["pools", "add", "default", "team", "--tier", "100"],
        &["accounts", "set", "team"],
        &["accounts", "set", "team", "--models", "a**"],
        &["keys", "set", "laptop"],
        &["keys", "set", "laptop", "--expires", "never"],
        &["keys", "create", ""],
        &["accounts", "add", "x", "--platform", "nope"],
    ] {
        assert_eq!(installation.code(misfit), Some(2), "{misfit:?}");
    }
    for refused in [
        &["keys", "create", "laptop"][..],
        &["keys", "revoke", "nobody"],
    ] {
        assert_eq!(installation.code(refused), Some(1), "{refused:?}");
    }
    installation.ok(&["keys", "create", "old"]);
    installation.ok(&["keys", "revoke", "old"]);
    let again = installation.fails(&["keys", "revoke", "old"]);
    assert!(
        again.contains("client key \"old\" is revoked already"),
        "{again}"
    );
    // Nobody has served this state, so no Envoy has it.
    assert_eq!(installation.code(&["accounts", "disable", "team"]), Some(0));
    assert_eq!(installation.code(&["status", "--check"]), Some(4));
    let daemon = installation.serve();
    assert_eq!(installation.code(&["accounts", "enable", "team"]), Some(0));
    assert_eq!(installation.code(&["accounts", "disable", "team"]), Some(0));
    // Callers have an answer by Envoy alone.
    assert_eq!(installation.code(&["status", "--check"]), Some(4));
    assert!(installation.ok(&["status"]).contains("No Envoy has asked"));
    let envoy = Poller::start(&installation);
    eventually("an Envoy polls", || {
        installation.code(&["status", "--check"]) == Some(0)
    });
    drop(envoy);
    eventually("it is gone", || {
        installation.code(&["status", "--check"]) == Some(4)
    });
    let shown = installation.ok(&["status"]);
    assert!(shown.contains("has not polled for"), "{shown}");
    drop(daemon);
    for changed in [
        &["accounts", "enable", "team"][..],
        &["accounts", "reset", "team"],
        &["accounts", "disable", "team"],
        &["keys", "create", "other"],
        &["pools", "create", "spare"],
        &["pools", "add", "spare", "team"],
        &["pools", "set", "spare", "--policy", "round_robin"],
        &["keys", "set", "laptop", "--rpm", "1"],
        &["pools", "drop", "default", "team"],
        &["keys", "revoke", "laptop"],
        &["accounts", "remove", "team"],
    ] {
        let output = installation.run(changed);
        assert_eq!(output.status.code(), Some(3), "{changed:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("goes on with the old state; start it: refresher serve"),
            "{said}"
        );
    }
    installation.ok(&["status"]);
}

/// A mistyped directory must not look like an empty gateway.
#[test]
fn a_new_state_is_never_silent() {
    let installation = Installation::new();
    let said = |arguments: &[&str]| {
        let output = installation.run(arguments);
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr)
    };
    let new = said(&["keys", "create", "one"]);
    assert_eq!(new.matches("New state in ").count(), 1, "{new}");
    let state = installation.state().display().to_string();
    assert!(new.contains(&state), "{new}");
    let again = said(&["keys", "create", "two"]);
    assert!(!again.contains("New state"), "{again}");
    let beside = installation.outer.path().join("beside");
    fs::create_dir(&beside).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(installation.state().join("key"), beside.join("key")).unwrap();
    let at = |path: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refresher"));
        command.env_clear().arg("--state-dir").arg(path);
        command.args(arguments).output().unwrap()
    };
    let output = at(&beside, &["keys", "create", "three"]);
    let told = text(&output.stderr);
    assert!(told.contains("had a sealing key and no database"), "{told}");
    // Only reading, nothing is begun.
    let elsewhere = installation.outer.path().join("elsewhere");
    let output = at(&elsewhere, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!elsewhere.exists());
}

/// What a tired person types wrong is answered in a sentence of ours, with the exit code of the one rule.
#[test]
fn wrong_words_are_answered_in_ours() {
    let installation = Installation::new();
    installation.begin();
    let outer = installation.outer.path().display().to_string();
    let file = format!("{outer}/file");
    fs::write(&file, "{}").unwrap();
    let (missing, below) = (format!("{outer}/none"), format!("{file}/below"));
    let empty = format!("{outer}/empty");
    fs::create_dir(&empty).unwrap();
    let claude = format!("{outer}/claude.json");
    fs::write(&claude, r#"{"claudeAiOauth":{"accessToken":"x"}}"#).unwrap();
    let config = installation.state().join("config.toml");
    let own = "extends = 'openai-compatible'\nid = 'own'\nname = 'Own'\nowner = 'us'\n\
               [upstream]\nbase_url = 'https://own.test/v1'\n";
    let platforms = format!("{outer}/platforms");
    fs::create_dir(&platforms).unwrap();
    fs::write(format!("{platforms}/own.toml"), own).unwrap();
    fs::write(
        config,
        format!("platforms_dir = '{platforms}'\nacknowledged_terms = ['codex']\n"),
    )
    .unwrap();
    let add = ["accounts", "add", "a", "--platform"];
    let own = |url| [&add[..], &["own", "--base-url", url]].concat();
    for (arguments, code, says) in [
        (
            vec!["man", &file],
            2,
            "expected a folder for the pages, found a file",
        ),
        (
            vec!["man", &below],
            1,
            "something on the way to it is no folder",
        ),
        (vec!["import", &missing], 2, "there is no such file"),
        (vec!["import", &empty], 2, "expected a file here"),
        (
            vec!["import", &claude],
            1,
            "platform claude-code is off until you have read this notice",
        ),
        (
            [&add[..], &["openai", "--key-file", &missing]].concat(),
            2,
            "there is no such file",
        ),
        (own("api.test/v1"), 2, "begins with https://"),
        (
            own("https://api.test:99999/v1"),
            2,
            "a port from 1 to 65535",
        ),
        (
            own("https://api.test/v1/chat/completions"),
            2,
            "leave out /chat/completions",
        ),
        (
            vec!["--acknowledge-terms", "codx", "status"],
            2,
            "no platform \"codx\"; there are: anthropic, ",
        ),
        (vec!["pools", "remove", "default"], 2, "cannot be removed"),
        (
            vec!["pools", "create", "default"],
            1,
            "choose another name\n",
        ),
        (vec!["accounts", "rm", "nobody"], 1, "no account"),
        (vec!["keys", "delete", "nobody"], 1, "no client key"),
        (vec!["pools", "rm", "nobody"], 1, "no pool"),
    ] {
        let output = installation.run(&arguments);
        let said = text(&output.stderr);
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("os error"), "{said}");
        assert!(!said.starts_with('{'), "JSON for a person: {said}");
    }
}

#[test]
fn what_only_reads_or_changes_makes_nothing() {
    let installation = Installation::new();
    for command in [
        &["status"][..],
        &["usage"],
        &["accounts", "list"],
        &["accounts", "disable", "team"],
        &["keys", "list"],
        &["keys", "revoke", "laptop"],
        &["pools", "list"],
        &["envoy-config"],
        &["rotate-key"],
        &["refresh", "team"],
    ] {
        let said = installation.fails(command);
        assert!(
            said.contains("Latchkey has kept nothing there yet") && said.contains("--state-dir"),
            "{command:?}: {said}"
        );
        assert!(!installation.state().exists(), "{command:?}");
    }
    installation.begin();
    installation.ok(&["status"]);
    assert!(!installation.state().join("run").exists());
    let database = installation.state().join("latchkey.db");
    fs::remove_file(&database).unwrap();
    for command in [&["status"][..], &["serve"], &["pools", "create", "x"]] {
        let said = installation.fails(command);
        assert!(
            said.contains("latchkey.db: the database is gone") && said.contains("backup"),
            "{command:?}: {said}"
        );
        assert!(!database.exists(), "{command:?}");
    }
}

#[test]
fn a_directory_that_is_something_else_is_told() {
    let installation = Installation::new();
    fs::write(installation.state(), "").unwrap();
    let said = installation.fails(&["status"]);
    assert!(
        said.contains("expected a directory and no symbolic link here"),
        "{said}"
    );
    let below = installation.state().join("below");
    let mut command = Command::new(env!("CARGO_BIN_EXE_refresher"));
    command.arg("--state-dir").arg(&below).arg("serve");
    let said = text(&command.output().unwrap().stderr);
    assert!(said.contains("expected a directory here"), "{said}");
}

#[test]
fn a_table_is_as_wide_as_columns_says() {
    let installation = Installation::new();
    let name = "a-name-of-an-account-that-is-long";
    assert!(installation.add_account(name).status.success());
    let mut command = installation.command(&["accounts", "list"]);
    let output = command.env("COLUMNS", "70").output().unwrap();
    let listed = text(&output.stdout);
    assert!(
        listed.lines().all(|line| line.chars().count() <= 70),
        "{listed}"
    );
    assert!(installation.ok(&["accounts", "list"]).contains(name));
}

#[test]
fn a_running_daemon_takes_a_new_key_over() {
    let installation = Installation::new();
    assert!(installation.add_account("before").status.success());
    let daemon = installation.serve();
    let key = || fs::read_to_string(installation.state().join("key")).unwrap();
    let old = key();
    let said = installation.ok(&["rotate-key"]);
    assert!(
        said.contains("Accounts sealed anew: 1. Old keys forgotten: 1."),
        "{said}"
    );
    assert_eq!(key().lines().count(), 1);
    assert_ne!(key(), old);
    assert!(!said.contains(key().trim()), "{said}");
    assert!(installation.add_account("after").status.success());
    eventually("both accounts are published", || {
        let records = installation.snapshot();
        records
            .iter()
            .filter(|record| record.key().0 == Kind::Account)
            .count()
            == 2
    });
    drop(daemon);
    let mut command = installation.command(&["rotate-key"]);
    let output = command.env("LATCHKEY_KEY", key().trim()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("LATCHKEY_RETIRED_KEYS"), "{said}");
}

#[test]
fn a_key_in_the_kernels_keyring_is_the_operators_to_put_there() {
    let installation = Installation::new();
    installation.begin();
    let (key, database) = (
        installation.state().join("key"),
        installation.state().join("latchkey.db"),
    );
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let name = format!("latchkey-test:{}", std::process::id());
    let config = format!("[key]\nsource = 'keyring'\nname = '{name}'\n");
    fs::write(installation.state().join("config.toml"), config).unwrap();
    let keyring = KeyRing::from_special_id(KeyRingIdentifier::User, true);
    let Ok(keyring) = keyring else {
        println!("skipped: this machine forbids the kernel's keyring: {keyring:?}");
        return;
    };
    let said = installation.fails(&["accounts", "list"]);
    assert!(said.contains(&name) && said.contains("missing"), "{said}");
    let entry = match keyring.add_key(name.as_str(), &kept) {
        Ok(entry) => entry,
        Err(error) => {
            println!("skipped: this machine lets nobody add to the keyring: {error:?}");
            return;
        }
    };
    let opened = installation.run(&["accounts", "list"]);
    let rotated = installation.run(&["rotate-key"]);
    fs::remove_file(&database).unwrap();
    fs::remove_file(installation.state().join("high-water.json")).unwrap();
    keyring.unlink_key(entry).unwrap();
    assert!(opened.status.success(), "{opened:?}");
    assert_eq!(rotated.status.code(), Some(1));
    assert!(
        text(&rotated.stderr).contains("its first key is in use already; make one with"),
        "{rotated:?}"
    );
    assert!(
        installation
            .fails(&["pools", "create", "x"])
            .contains("missing"),
        "none is made"
    );
    assert!(!key.exists() && !database.exists());
}

#[test]
fn a_stop_is_orderly_and_a_crash_leaves_nothing_in_the_way() {
    let installation = Installation::new();
    let socket = installation.state().join("run/refresher.sock");
    let mut signals = vec![Signal::TERM, Signal::INT];
    // Under nohup it is ignored here, and so it is by the daemon.
    if !is_ignored(Signal::HUP) {
        signals.push(Signal::HUP);
    }
    for signal in signals {
        let mut daemon = installation.serve();
        daemon.signal(signal);
        daemon.says("stopping");
        assert!(daemon.child.wait().unwrap().success());
        assert!(!socket.exists());
    }
    let mut daemon = installation.serve();
    daemon.signal(Signal::ABORT);
    let status = daemon.child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    assert!(socket.exists());
    installation.serve();
}

/// Tells a signal that this process ignores.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    ignored >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn a_second_signal_does_not_wait_for_a_refresh() {
    let installation = Installation::new();
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    installation.import_due_login(&endpoint, "alice");

    let mut daemon = installation.serve();
    let (_unanswered, _) = endpoint.accept().unwrap();
    daemon.signal(Signal::TERM);
    daemon.says("stopping");
    let told = Instant::now();
    daemon.signal(Signal::INT);
    daemon.says("at once");
    assert!(daemon.child.wait().unwrap().success());
    let took = told.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Answers a call of a token endpoint.
fn answer_token_call(endpoint: &TcpListener, status: &str, body: &str) {
    let (mut stream, _) = endpoint.accept().unwrap();
    let (mut request, mut piece) = (Vec::new(), [0; 4_096]);
    // Codex's is one object without others in it.
    while !request.ends_with(b"}") {
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "{}", text(&request));
        request.extend_from_slice(&piece[..length]);
    }
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close");
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
}

/// Its first refresh is refused in a way that does not say whether the login is over.
#[test]
fn a_refusal_of_a_refresh_is_told_until_one_goes_well() {
    let installation = Installation::new();
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    installation.import_due_login(&endpoint, "alice");
    let told = || {
        let accounts = installation.ok(&["accounts", "list", "--json"]);
        let mut accounts: Vec<Value> = serde_json::from_str(&accounts).unwrap();
        accounts.remove(0)
    };
    let refresh = |status: &str, body: &str| {
        std::thread::scope(|scope| {
            scope.spawn(|| answer_token_call(&endpoint, status, body));
            installation.run(&["refresh", "alice"])
        })
    };
    assert_eq!(told()["failing"], Value::Null);
    for (status, says, how) in [
        (
            "403 Forbidden",
            "run: refresher login codex --name alice; where that is refused too",
            "refused",
        ),
        ("503 Unavailable", "tries again by itself", "troubled"),
        (
            "404 Not Found",
            "run: refresher login codex --name alice; where that is refused too",
            "refused",
        ),
    ] {
        let refused = refresh(status, "<html>");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let said = text(&refused.stderr);
        assert!(said.contains(&status[..3]) && said.contains(says), "{said}");
        let account = told();
        assert_eq!(account["failing"]["how"], how, "{account}");
        assert_eq!(
            account["failing"]["reason"],
            format!("HTTP {}", &status[..3])
        );
        assert_eq!(account["failing"]["stuck"], false);
    }
    let status = installation.ok(&["status"]);
    assert!(status.contains("refresh refused 3 times in "), "{status}");
    let body = r#"{"access_token":"new-access","refresh_token":"rt_2","expires_in":3600}"#;
    let refreshed = refresh("200 OK", body);
    assert!(refreshed.status.success(), "{refreshed:?}");
    assert_eq!(told()["failing"], Value::Null);
    assert!(!installation.ok(&["status"]).contains("refused"));
}

#[test]
fn a_kill_while_writing_loses_nothing_that_was_said_to_be_saved() {
    writes_are_killed(10);
}

/// Kills so many commands that add an account, the last after about the time that a command takes.
fn writes_are_killed(rounds: u32) {
    let installation = Installation::new();
    let started = Instant::now();
    installation.begin();
    let whole = started.elapsed();
    let mut saved = 0;
    for round in 0..rounds {
        let name = format!("account {round:02}");
        let mut command = installation.command(&["accounts", "add", &name, "--platform", "openai"]);
        let mut child = command
            .env(
                "LATCHKEY_API_KEY",
                "sk-secret-0123456789abcdefghijklmnopqrstuv",
            )
            .spawn()
            .unwrap();
        std::thread::sleep(whole * round / rounds);
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        saved += usize::from(text(&output.stdout).contains("added"));
        let names = installation
            .ok(&["accounts", "list", "--json"])
            .matches("\"name\"")
            .count();
        assert!(names >= saved, "round {round}: {names} of {saved}");
    }
    installation.serve();
}

#[test]
fn bad_input_is_refused_by_name_and_left_as_it_is() {
    let installation = Installation::new();
    assert!(installation.add_account("team").status.success());
    let platforms = installation.state().join("platforms");
    fs::create_dir(&platforms).unwrap();
    let config = format!("platforms_dir = {platforms:?}\n");
    fs::write(installation.state().join("config.toml"), config).unwrap();
    for (file, bytes, place) in [
        ("config.toml", &b"acknowledged_terms = [\n"[..], ":1:23:"),
        ("config.toml", b"colour = 'blue'", "colour"),
        ("config.toml", b"\xff\xfe", "UTF-8"),
        ("key", b"c2hvcnQ=", "found 5 bytes"),
        ("key", b"", "found 0 bytes"),
        (
            "key",
            b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "another key",
        ),
        ("latchkey.db", b"", "an empty file"),
        (
            "latchkey.db",
            b"SQLite format 3\0 and then nothing",
            "latchkey.db",
        ),
        ("platforms/openai.toml", b"models = 7", "models"),
        (
            "platforms/openai.toml",
            b"[headers.set]\nauthorization = \"a\\nb\"",
            "headers.set.authorization",
        ),
    ] {
        let path = installation.state().join(file);
        let good = fs::read(&path).ok();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for command in [&["serve"][..], &["accounts", "list"]] {
            let message = installation.fails(command);
            let named = if place == "another key" {
                "latchkey.db"
            } else {
                file
            };
            assert!(
                message.contains(named) && message.contains(place),
                "{file}: {message}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{file}");
        match good {
            Some(good) => fs::write(&path, good).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    assert!(
        installation.ok(&["accounts", "list"]).contains("team"),
        "nothing was lost"
    );
}

#[test]
fn an_error_says_which_account_and_what_to_do() {
    let installation = Installation::new();
    assert!(installation.add_account("team").status.success());
    for (arguments, says) in [
        (
            &["accounts", "disable", "nobody"][..],
            "no account \"nobody\"; see: refresher accounts list",
        ),
        (
            &["accounts", "add", "a", "--platform", "nope"],
            "there are: anthropic, ",
        ),
        (
            &["accounts", "add", "a b", "--platform", "codex"],
            "takes no API keys; log in with: refresher login codex --name 'a b'",
        ),
        (
            &["login", "codex", "--name", "a"],
            "acknowledged_terms = [\"codex\"]",
        ),
        (
            &["accounts", "add", "a", "--platform", "openai"],
            "expected an API key on standard input",
        ),
        (
            &["keys", "create", "k", "--pool", "nope"],
            "no pool \"nope\"",
        ),
        (&["keys", "revoke", "nope"], "see: refresher keys list"),
    ] {
        let message = installation.fails(arguments);
        assert!(message.contains(says), "{arguments:?}: {message}");
    }
    let again = text(&installation.add_account("team").stderr);
    assert!(
        again.contains("already an account \"team\"") && again.contains("--replace"),
        "{again}"
    );
    let other = installation
        .command(&["accounts", "add", "team", "--platform", "anthropic"])
        .env(
            "LATCHKEY_API_KEY",
            "sk-ant-api03-0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghij",
        )
        .output()
        .unwrap();
    let other = text(&other.stderr);
    assert!(other.contains("already an account"), "{other}");
    assert!(!other.contains("--replace"), "{other}");
    let state = fs::Permissions::from_mode(0o755);
    fs::set_permissions(installation.state(), state).unwrap();
    assert!(installation.fails(&["status"]).contains("chmod 700"));
}

#[test]
fn an_imported_login_has_the_end_that_is_given() {
    let installation = Installation::new();
    let import = |file: &str, more: &[&str]| {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/src/login/import/fixtures");
        let file = format!("{fixtures}/{file}");
        let mut arguments = vec!["--acknowledge-terms", "codex", "import", &file];
        arguments.extend(more);
        installation.run(&arguments)
    };
    let end_of = |name: &str| {
        let accounts = installation.ok(&["accounts", "list", "--json"]);
        let accounts: Vec<Value> = serde_json::from_str(&accounts).unwrap();
        let account = accounts.into_iter().find(|one| one["name"] == name);
        account.map(|account| account["expires_at"].clone())
    };
    for (name, file) in [
        ("login", "chatgpt.json"),
        ("key", "api_key.json"),
        ("token", "personal_access_token.json"),
    ] {
        let identity: &[&str] = match name {
            "token" => &["--account-id", "ws-1"],
            _ => &[],
        };
        let import = |more: &[&str]| import(file, &[&["--name", name], identity, more].concat());
        let past = import(&["--expires", "2020-01-01"]);
        assert!(
            text(&past.stderr).contains("2020-01-01 is past"),
            "{name}: {past:?}"
        );
        assert_eq!(end_of(name), None, "nothing is saved");
        let given = import(&["--expires", "2100-01-01"]);
        assert!(given.status.success(), "{given:?}");
        assert_eq!(end_of(name), Some(json!(4_102_444_800_000_i64)), "{name}");
        // Unless told, a new login leaves the account's end as it is.
        let again = import(&["--replace"]);
        assert!(again.status.success(), "{again:?}");
        assert_eq!(end_of(name), Some(json!(4_102_444_800_000_i64)), "{name}");
        assert!(import(&["--replace", "--expires", "none"]).status.success());
        assert_eq!(end_of(name), Some(Value::Null), "{name}");
    }
}

#[test]
fn what_is_odd_but_no_error_is_told() {
    let installation = Installation::new();
    installation.begin();
    let mut command = installation.command(&["accounts", "list"]);
    let output = command
        .env("LATCHKEY_LOG", "refresher=loud")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("LATCHKEY_LOG is no filter") && said.contains("loud"),
        "{said}"
    );
    let said = installation.fails(&["serve", "--wasm", "filter.wasm"]);
    assert!(
        said.contains("filter.wasm: expected a whole path"),
        "{said}"
    );
    let config = "platforms_dir = '/nonexistent/platforms'";
    fs::write(installation.state().join("config.toml"), config).unwrap();
    let said = installation.fails(&["status"]);
    assert!(
        said.contains("/nonexistent/platforms: ") && said.contains("correct platforms_dir"),
        "{said}"
    );
}

/// The README's own order, with the restart forgotten.
#[test]
fn an_account_of_a_platform_that_serve_does_not_know_is_told_of() {
    let installation = Installation::new();
    assert!(installation.add_account("team").status.success());
    let daemon = installation.serve();
    let profiles = installation.outer.path().join("profiles");
    fs::create_dir(&profiles).unwrap();
    let profile =
        "id = 'mine'\nextends = 'openai'\n[upstream]\nbase_url = 'https://llm.example.com/v1'\n";
    fs::write(profiles.join("mine.toml"), profile).unwrap();
    let config = format!("platforms_dir = '{}'\n", profiles.display());
    fs::write(installation.state().join("config.toml"), config).unwrap();
    let add = |name: &str, platform: &str| {
        let mut command = installation.command(&["accounts", "add", name, "--platform", platform]);
        let key = format!("sk-{name}-0123456789abcdefghijklmnopqrstuvwxyz");
        let added = command.env("LATCHKEY_API_KEY", key).output().unwrap();
        assert!(added.status.success(), "{added:?}");
        text(&added.stderr)
    };
    const WARNING: &str =
        "does not know mine yet, so its accounts serve nobody; restart `refresher serve`";
    let (known, new) = (add("second", "openai"), add("own", "mine"));
    assert!(
        !known.contains("does not know") && new.contains(WARNING),
        "{new}"
    );
    let shown = installation.ok(&["status"]);
    assert!(shown.contains("does not know its platform yet"), "{shown}");
    assert!(shown.contains("own serves nobody yet: restart"), "{shown}");
    assert_eq!(installation.code(&["status", "--check"]), Some(4));
    drop(daemon);
    let _daemon = installation.serve();
    let _envoy = Poller::start(&installation);
    let shown = installation.ok(&["status"]);
    assert!(!shown.contains("does not know"), "{shown}");
    eventually("all is well", || {
        installation.code(&["status", "--check"]) == Some(0)
    });
}

/// What every page says, typed as it stands, must not lead Envoy to a filter that is not there.
#[test]
fn a_serve_without_its_flags_goes_on_with_the_filter_that_envoy_has() {
    let installation = Installation::new();
    assert!(installation.add_account("team").status.success());
    let clusters = installation.state().join("envoy/clusters.json");
    let refused = installation.fails(&["serve"]);
    assert!(
        refused.contains("/etc/latchkey/latchkey.wasm: the filter is not there")
            && refused.contains("--envoy-elsewhere"),
        "{refused}"
    );
    assert!(!clusters.exists());

    let wasm = installation.outer.path().join("latchkey.wasm");
    fs::write(&wasm, "a filter").unwrap();
    let serve = |arguments: &[&str]| {
        let daemon = installation.start(&[&["serve"], arguments].concat());
        daemon.says("serving");
    };
    serve(&["--wasm", wasm.to_str().unwrap()]);
    let told = || fs::read_to_string(&clusters).unwrap();
    let first = told();
    assert!(first.contains(wasm.to_str().unwrap()), "{first}");
    serve(&[]);
    assert_eq!(told(), first);

    let before = fs::metadata(&clusters).unwrap().modified().unwrap();
    fs::remove_file(&wasm).unwrap();
    for arguments in [
        &["serve"][..],
        &["serve", "--wasm", "/nonexistent/latchkey.wasm"],
    ] {
        let refused = installation.fails(arguments);
        assert!(
            refused.contains("latchkey.wasm: the filter is not there"),
            "{refused}"
        );
        assert_eq!(fs::metadata(&clusters).unwrap().modified().unwrap(), before);
    }
}

#[test]
fn a_socket_path_that_is_too_long_is_told_with_its_cure() {
    let installation = Installation::new();
    let state = installation.state().join("x".repeat(90));
    let mut command = Command::new(env!("CARGO_BIN_EXE_refresher"));
    let output = command
        .arg("--state-dir")
        .arg(state)
        .args(["serve", "--envoy-elsewhere"])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("refresher.sock")
            && said.contains("107 bytes")
            && said.contains("--state-dir"),
        "{said}"
    );
}

#[test]
fn a_key_typed_at_a_terminal_is_not_shown() {
    let installation = Installation::new();
    installation.begin();
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let terminal = fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(OpenptFlags::NOCTTY.bits().cast_signed())
        .open(name.to_str().unwrap())
        .unwrap();
    let echoes = || {
        let modes = tcgetattr(&terminal).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    };
    assert!(echoes());
    let mut child = installation
        .command(&["accounts", "add", "team", "--platform", "openai"])
        .stdin(terminal.try_clone().unwrap())
        .spawn()
        .unwrap();
    let prompt = b"Paste the API key (it is not shown) and press Enter: ";
    let mut asked = vec![0; prompt.len()];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut asked)
        .unwrap();
    assert_eq!(text(&asked), text(prompt));
    assert!(!echoes());
    let mut person = fs::File::from(person);
    person
        .write_all(b"sk-typed--0123456789abcdefghijklmnopqrstuv\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("team: added"), "{output:?}");
    assert!(echoes(), "the terminal is as it was");
    let mut shown = [0; 64];
    let length = person.read(&mut shown).unwrap();
    assert_eq!(text(&shown[..length]), "\r\n");
}

#[test]
fn no_secret_is_printed() {
    let installation = Installation::new();
    let output = installation.add_account("team");
    let key = installation.ok(&["keys", "create", "laptop"]);
    let daemon = installation.serve();
    let mut printed = text(&output.stdout) + &text(&output.stderr);
    for arguments in [
        &["accounts", "list", "--json"][..],
        &["keys", "list", "--json"],
        &["status", "--json"],
        &["envoy-config"],
    ] {
        let output = installation
            .command(arguments)
            .env("LATCHKEY_LOG", "trace")
            .output()
            .unwrap();
        printed += &(text(&output.stdout) + &text(&output.stderr));
    }
    drop(daemon);
    assert!(
        !printed.contains("sk-secret-0123456789abcdefghijklmnopqrstuv")
            && !printed.contains(key.trim())
    );
}

/// The same for longer (`make long`).
mod long {
    #[test]
    #[ignore = "ten seconds"]
    fn forty_kills_while_writing_lose_nothing_that_was_said_to_be_saved() {
        super::writes_are_killed(40);
    }
}
