//! The output of commands, as transcripts in `snapshots/`: a change of words is a change of these files.
//!
//! Time stands still at 2026-09-21 14:13:20 UTC, and ids are numbered in the order of their appearance. After a change,
//! `INSTA_UPDATE=always cargo test -p refresher golden` writes them anew; read the difference as an operator would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latchkey::id::Id;
use latchkey::request::record::RequestRecord;
use latchkey::sync::report::Report;
use latchkey::verdict::quota::Window;
use latchkey::verdict::{Reason, Scope};
use serde_json::json;

use super::output::Out;
use super::*;
use crate::advice::{Door, cure};
use crate::clock::{Clock, UnixMillis};
use crate::credential::{Credential, CredentialKind, OAuthTokens, Renewal};
use crate::failing::{Failing, Failure};
use crate::fault::{Fault, KeyPlace, KeyringFault, Kind};
use crate::platform::Profile;
use crate::refresh::ledger::{Claimed, Ledger, Retry};
use crate::store::{BatchId, NewAccount};

#[path = "picture.rs"]
mod picture;

/// 2026-09-21T14:13:20Z
const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The renewal of every login here.
const SINGLE_USE: fn(&str, CredentialKind) -> Renewal = |_, _| Renewal::SingleUse;

#[derive(Debug)]
struct StoppedClock(AtomicI64);

impl Clock for StoppedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// Everything that was printed, and the commands in between.
#[derive(Debug, Clone, Default)]
struct Transcript(Arc<Mutex<Vec<u8>>>);

impl Write for Transcript {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An operator at a terminal, with a state directory of their own.
struct Operator {
    outer: tempfile::TempDir,
    clock: Arc<StoppedClock>,
    transcript: Transcript,
    context: Context,
}

impl Operator {
    async fn new() -> Operator {
        let outer = tempfile::tempdir().unwrap();
        let clock = Arc::new(StoppedClock(AtomicI64::new(NOW.0)));
        let options = Options {
            state_dir: Some(outer.path().join("state")),
            acknowledged_terms: vec!["codex".to_owned()],
            may_make: true,
            ..Options::default()
        };
        let app = App::open(options, |_| None, clock.clone()).await.unwrap();
        let transcript = Transcript::default();
        let out = Out::new(transcript.clone(), transcript.clone());
        fs::write(
            outer.path().join("key"),
            "sk-proj-0123456789abcdefghijklmnopqrstuvwx\n",
        )
        .unwrap();
        fs::write(
            outer.path().join("packed"),
            "OPENAI_API_KEY='sk-proj-0123456789abcdefghijklmnopqrstuvwx'\n",
        )
        .unwrap();
        Operator {
            outer,
            clock,
            transcript,
            context: Context::new(app, out),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    fn pass(&self, time: Duration) {
        let now = self.clock.now().plus(time);
        self.clock.0.store(now.0, Ordering::Relaxed);
    }

    /// Runs commands, a line each. `KEY` stands for a file that holds an API key, `PACKED` for one that
    /// holds the same as a line of a shell.
    async fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let before = self.transcript.0.lock().unwrap().len();
            let separator = if before == 0 { "" } else { "\n" };
            writeln!(self.transcript, "{separator}$ refresher {line}").unwrap();
            let key = self.path("key").display().to_string();
            let packed = self.path("packed").display().to_string();
            let line = line.replace("PACKED", &packed).replace("KEY", &key);
            let words = shlex::split(&line).unwrap();
            let cli = Cli::try_parse_from(["refresher".to_owned()].into_iter().chain(words));
            self.context.exit.set(Exit::Done);
            let (said, code) = match cli {
                Ok(cli) => match cli.command.run(&self.context).await {
                    Ok(()) => (String::new(), self.context.exit.get().code()),
                    Err(error) => (format!("error: {}\n", error.told()), error.exit_code()),
                },
                Err(error) => (error.to_string(), u8::try_from(error.exit_code()).unwrap()),
            };
            self.transcript.write_all(said.as_bytes()).unwrap();
            if code != 0 {
                writeln!(self.transcript, "[exit code {code}]").unwrap();
            }
        }
    }

    async fn add_keys(&self, names: &[&str]) {
        for name in names {
            self.save(
                name,
                "openai",
                Credential::ApiKey("sk-proj-0123456789abcdefghijklmnopqrstuvwx".into()),
                None,
            )
            .await;
        }
    }

    async fn add_login(&self, name: &str) {
        let tokens = OAuthTokens {
            access: "access".into(),
            refresh: "refresh".into(),
            id: None,
            client: None,
        };
        let credential_expires_at = Some(self.clock.now().plus(HOUR));
        self.save(
            name,
            "codex",
            Credential::OAuth(tokens),
            credential_expires_at,
        )
        .await;
    }

    async fn save(
        &self,
        name: &str,
        platform: &str,
        credential: Credential,
        credential_expires_at: Option<UnixMillis>,
    ) {
        let vars = BTreeMap::from([("account_id".to_owned(), name.to_owned())]);
        let new = NewAccount {
            name,
            platform,
            credential,
            vars,
            credential_expires_at,
            base_url: None,
        };
        let store = &self.context.app.store;
        let terms = crate::store::Terms::default();
        let saved = store.save_account(new, &terms, false, self.clock.now());
        saved.await.unwrap();
    }

    async fn id(&self, name: &str) -> Id {
        let account = self.context.app.store.account(name).await.unwrap();
        account.id.as_str().try_into().unwrap()
    }

    /// Has the token endpoint refuse to renew a login once more.
    async fn refuse(&self, name: &str) {
        let (store, now) = (&self.context.app.store, self.clock.now());
        let account = store.account(name).await.unwrap();
        let claimed = store.claim(&account.id, account.generation, now, HOUR, &SINGLE_USE);
        let Claimed::Ours(claim) = claimed.await.unwrap() else {
            panic!("{name} is not free");
        };
        let before = account.failing.as_ref();
        let retry = Retry {
            at: now.plus(Duration::from_secs(90)),
            failures: account.failures + 1,
            failing: Some(Failing::noted(before, Failure::Refused, "HTTP 403", now)),
            unanswered: 0,
        };
        store.retry_later(&claim, retry).await.unwrap();
    }

    async fn report(&self, reports: &[Report]) {
        let store = &self.context.app.store;
        store.take_reports(reports, self.clock.now()).await.unwrap();
    }

    /// Everything that was printed, with numbered ids.
    fn transcript(&self) -> String {
        let text = String::from_utf8(self.transcript.0.lock().unwrap().clone()).unwrap();
        let folder = self.outer.path().canonicalize().unwrap();
        let text = text
            .replace(&folder.display().to_string(), "~")
            .replace(&self.outer.path().display().to_string(), "~");
        numbered(&text)
    }
}

/// `text` with every id, client key and sealing key replaced by one of the same length that says which it is.
fn numbered(text: &str) -> String {
    let mut known: Vec<&str> = Vec::new();
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut numbered = String::new();
    let mut last = "";
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (between, from) = rest.split_at(start);
        let end = from.find(|character| !is_word(character));
        let (word, after) = from.split_at(end.unwrap_or(from.len()));
        let prefix = ["acc_", "key_", "lk_"].into_iter().find(|prefix| {
            word.strip_prefix(prefix).is_some_and(|tail| {
                tail.len() >= 4
                    && tail
                        .bytes()
                        .all(|byte| !byte.is_ascii_lowercase() || *prefix == "lk_")
            })
        });
        let is_key_id =
            last == "key" && word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        numbered += between;
        match prefix.or(is_key_id.then_some("")) {
            Some(prefix) => {
                let place = known.iter().position(|one| *one == word);
                let place = place.unwrap_or_else(|| {
                    known.push(word);
                    known.len() - 1
                });
                let width = word.len() - prefix.len();
                numbered += &format!("{prefix}{:.>width$}", place + 1);
            }
            None => numbered += word,
        }
        (last, rest) = (word, after);
    }
    numbered + rest
}

fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[tokio::test]
async fn platforms() {
    let mut operator = Operator::new().await;
    let lines = "platforms list\nplatforms show vllm\nplatforms show nope\nplatforms check nothing-here.toml";
    operator.run(lines).await;
    check("platforms", &operator.transcript());
}

#[tokio::test]
async fn accounts() {
    let mut operator = Operator::new().await;
    operator
        .run(
            "accounts list
             accounts add team --platform openai --key-file KEY
             accounts add spare --platform openai --key-file KEY --rpm 60 --tokens-per-day 5000 --expires 30d
             accounts add team --platform openai --key-file KEY --replace
             accounts add packed --platform openai --key-file PACKED
             accounts set team --models gpt-5*,o3 --maps o3=east-7 --streams 4
             accounts disable spare
             accounts disable spare
             accounts reset spare
             accounts enable spare
             accounts enable spare
             accounts list
             accounts list --json",
        )
        .await;
    operator
        .run(
            "accounts reset team
             accounts remove team",
        )
        .await;
    // What is its profile's, until it is said otherwise.
    operator.add_login("alice").await;
    operator
        .run(
            "accounts set alice --rpm 60
             accounts set alice --streams none
             accounts set alice --default-limits
             accounts list",
        )
        .await;
    check("accounts", &operator.transcript());
}

#[tokio::test]
async fn keys() {
    let mut operator = Operator::new().await;
    // Keys are listed in the order of their making.
    for lines in [
        "keys list\nkeys create laptop",
        "pools create spare
         keys create ci --pool spare --models gpt-5* --may-choose-account --may-choose-pool default --tpm 1000 --expires 12h",
        "keys create short --expires 1h
         keys set laptop --pool spare --streams 2 --maps smart=gpt-7,fast=gpt-7-mini@low --translation off --max-effort high
         keys set ci --no-choice --all-models --effort high --service-tier flex
         keys set ci --effort any --max-effort medium
         keys set ci --maps smart=gpt-7@hgih --exact-model on
         pools set spare --exact-model on
         keys set ci --exact-model off
         pools set spare --exact-model off
         keys set ci --exact-model on",
        "keys create gone\nkeys revoke gone",
    ] {
        operator.run(lines).await;
        operator.pass(Duration::from_secs(60));
    }
    operator.pass(2 * HOUR);
    operator.run("keys list\nkeys list --json").await;
    check("keys", &operator.transcript());
}

#[tokio::test]
async fn pools() {
    let mut operator = Operator::new().await;
    operator.add_keys(&["team", "spare"]).await;
    operator
        .run(
            "pools list
             pools create paid-last --policy fill_first
             pools add paid-last team --weight 2
             pools add paid-last spare --tier 1
             keys create laptop --pool paid-last
             pools list
             pools set paid-last --maps claude-*=gpt-7,fast=gpt-7-mini
             pools set paid-last --policy round_robin --exact-model on --translation off
             pools list
             pools set paid-last --no-maps --translation on
             pools drop paid-last spare
             accounts remove team
             keys revoke laptop
             pools remove paid-last
             pools list --json",
        )
        .await;
    check("pools", &operator.transcript());
}

#[tokio::test]
async fn status() {
    let mut operator = Operator::new().await;
    operator.run("status").await;
    operator
        .add_keys(&["busy", "dead", "disabled", "ended", "suspected", "team"])
        .await;
    for name in ["alice", "bob", "the team"] {
        operator.add_login(name).await;
    }
    let store = operator.context.app.store.clone();
    let claim = async |name| {
        let account = store.account(name).await.unwrap();
        match store
            .claim(&account.id, 1, NOW, HOUR, &SINGLE_USE)
            .await
            .unwrap()
        {
            Claimed::Ours(claim) => *claim,
            other => panic!("{other:?}"),
        }
    };
    let retry = Retry {
        at: NOW.plus(2 * HOUR),
        failures: 9,
        failing: Some(Failing::noted(
            None,
            Failure::Refused,
            "HTTP 403",
            NOW.minus(HOUR),
        )),
        unanswered: 0,
    };
    store.retry_later(&claim("bob").await, retry).await.unwrap();
    let bob = store.account("bob").await.unwrap().id;
    let login_end = NOW.plus(5 * 24 * HOUR);
    store
        .note_login_end(&bob, 1, Some(login_end))
        .await
        .unwrap();
    let ended = "the token endpoint says invalid_grant";
    store
        .needs_login(&claim("alice").await, ended)
        .await
        .unwrap();
    store
        .needs_login(&claim("the team").await, ended)
        .await
        .unwrap();
    let at = u64::try_from(NOW.0).unwrap();
    let cooling = |account, scope, guessed| Report::CoolingDown {
        account,
        scope,
        until: at + 600_000,
        guessed,
        reason: Reason::rate_limited(),
        at,
    };
    let dead = |account, confirmed| Report::Dead {
        account,
        generation: 1,
        reason: Reason::try_from("deactivated".to_owned()).unwrap(),
        at,
        confirmed,
        key: None,
        request: None,
    };
    let (busy, team) = (operator.id("busy").await, operator.id("team").await);
    let window = |name: &str, used_percent, resets_at| Window {
        name: name.try_into().unwrap(),
        used_percent,
        resets_at,
        exhausted: false,
    };
    let reports = [
        cooling(busy.clone(), Scope::Account, true),
        cooling(team, Scope::Model("gpt-5".try_into().unwrap()), false),
        dead(operator.id("dead").await, true),
        dead(operator.id("suspected").await, false),
        Report::Quota {
            account: busy,
            windows: vec![
                window("5h", 62.4, Some(at + 4_200_000)),
                window("weekly", 12.0, None),
            ],
            at,
        },
    ];
    operator.report(&reports).await;
    operator
        .run(
            "accounts set ended --expires 1m --rpm 60
             accounts disable disabled",
        )
        .await;
    operator.pass(Duration::from_secs(120));
    operator.run("status\naccounts list").await;
    check("status", &operator.transcript());
}

/// An account that serves, and soon will not.
#[tokio::test]
async fn a_refresh_that_is_refused() {
    let mut operator = Operator::new().await;
    operator.add_login("alice").await;
    operator.pass(HOUR - Duration::from_secs(5 * 60));
    operator.refuse("alice").await;
    operator.run("status").await;
    for _ in 0..5 {
        operator.refuse("alice").await;
    }
    operator.pass(Duration::from_secs(60));
    operator
        .run("status\naccounts list\naccounts list --json")
        .await;
    operator.pass(Duration::from_secs(5 * 60));
    operator.run("status").await;
    check("refused", &operator.transcript());
}

/// The picture of the README, from the repository's root. `make docs` writes it.
const PICTURE: &str = "../docs/status.svg";

/// The picture shows what `status` prints, word for word.
#[tokio::test]
async fn the_picture_of_status_is_current() {
    let mut operator = Operator::new().await;
    operator.add_keys(&["team"]).await;
    let key = Credential::ApiKey("sk-ant-api03-0123456789abcdefghijklmnop".into());
    operator.save("claude", "anthropic", key, None).await;
    // So long that the jitter of their next refresh is not seen.
    let end = Some(NOW.plus(240 * HOUR));
    for name in ["alice", "bob"] {
        let credential = Credential::OAuth(OAuthTokens {
            access: "access".into(),
            refresh: "refresh".into(),
            id: None,
            client: None,
        });
        operator.save(name, "codex", credential, end).await;
    }
    let at = u64::try_from(NOW.0).unwrap();
    let window = |name: &str, used_percent, seconds: u64| Window {
        name: name.try_into().unwrap(),
        used_percent,
        resets_at: Some(at + seconds * 1_000),
        exhausted: false,
    };
    let reports = [
        Report::CoolingDown {
            account: operator.id("bob").await,
            scope: Scope::Account,
            until: at + 4_800_000,
            guessed: false,
            reason: Reason::rate_limited(),
            at,
        },
        Report::Quota {
            account: operator.id("alice").await,
            windows: vec![window("5h", 62.0, 4_200), window("7d", 12.0, 420_000)],
            at,
        },
    ];
    operator.report(&reports).await;
    let app = &operator.context.app;
    let _serving = app.state.lock_serve().unwrap();
    let platforms: Vec<_> = app.catalog.all_usable().map(Profile::publication).collect();
    app.store.publish_platforms(&platforms).await.unwrap();
    operator.run("status").await;
    let picture = picture::svg(&operator.transcript());
    if std::env::var_os("LATCHKEY_WRITE_DOCS").is_some() {
        fs::write(PICTURE, picture).unwrap();
        return;
    }
    let kept = fs::read_to_string(PICTURE).unwrap_or_default();
    assert!(
        kept == picture,
        "{PICTURE} is not what `status` prints; run: make docs"
    );
}

#[tokio::test]
async fn usage() {
    let mut operator = Operator::new().await;
    operator.run("usage").await;
    operator.add_keys(&["team"]).await;
    let team = operator.id("team").await;
    let record = |other: serde_json::Value| -> RequestRecord {
        let mut record = json!({
            "at": NOW.0, "key": "key_1", "pool": "default", "account": team.as_str(), "platform": "openai",
            "dialect": "chat", "model": "gpt-5", "status": 200, "verdict": "fine", "attempts": 1, "duration_ms": 9,
            "completeness": "whole",
            "usage": {"input": 12000, "output": 500, "cached_input": 4000, "cache_write": 0, "reasoning": 200, "total": 12500},
        });
        let values = record.as_object_mut().unwrap();
        values.extend(other.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    };
    let records = [
        record(json!({})),
        record(json!({"estimate": true})),
        record(
            json!({"account": null, "platform": null, "model": null, "status": 503, "usage": null}),
        ),
    ];
    let batch = BatchId::parse(&"1".repeat(32)).unwrap();
    let store = &operator.context.app.store;
    store
        .take_records(batch, &records, None, NOW)
        .await
        .unwrap();
    operator
        .run(
            "usage
             usage --by model --since 2026-09-01
             usage --by day --since 12h --json",
        )
        .await;
    check("usage", &operator.transcript());
}

#[tokio::test]
async fn imports() {
    let mut operator = Operator::new().await;
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/src/login/import/fixtures");
    for file in [
        "chatgpt",
        "api_key",
        "personal_access_token",
        "agent_identity",
        "bedrock",
    ] {
        let from = format!("{fixtures}/{file}.json");
        fs::copy(from, operator.path(&format!("{file}.json"))).unwrap();
    }
    let table = "name,platform,key,pool,owner\nteam,openai,sk-proj-0123456789abcdefghijklmnopqrstuvwx,,us\n\
                 spare,deepseek,sk-0123456789abcdef0123456789abcdef,other,them\n";
    fs::write(operator.path("keys.csv"), table).unwrap();
    fs::write(
        operator.path("claude.json"),
        r#"{"claudeAiOauth":{"accessToken":"a","refreshToken":"r"}}"#,
    )
    .unwrap();
    fs::write(
        operator.path("nobodys.json"),
        r#"{"access_token":"a","refresh_token":"r"}"#,
    )
    .unwrap();
    fs::create_dir(operator.path("folder")).unwrap();
    fs::copy(operator.path("claude.json"), operator.path("folder/a.json")).unwrap();
    fs::copy(
        operator.path("bedrock.json"),
        operator.path("folder/b.JSON"),
    )
    .unwrap();
    fs::write(operator.path("folder/notes.txt"), "no credentials").unwrap();
    let folder = operator.outer.path().display().to_string();
    let lines = "import DIR/chatgpt.json
         import DIR/chatgpt.json
         import DIR/chatgpt.json --replace --name other
         import DIR/api_key.json
         import DIR/personal_access_token.json
         import DIR/personal_access_token.json --account-id ws-1
         import DIR/agent_identity.json
         import DIR/bedrock.json
         import DIR/claude.json
         import DIR/nobodys.json
         import DIR/keys.csv
         pools create other
         import DIR/keys.csv --dry-run
         import DIR/keys.csv
         import DIR/keys.csv --name one
         import DIR/keys.csv
         import DIR/folder
         import DIR/folder --skip
         pools list
         export team spare --to DIR/again.csv
         export team --to DIR/again.csv
         export alice@example.com --to DIR/auth.json
         export alice@example.com team --to DIR/both.json
         logout alice@example.com --no-revoke
         export alice@example.com --to DIR/none.json";
    operator.run(&lines.replace("DIR", &folder)).await;
    assert_eq!(
        fs::read_to_string(operator.path("again.csv")).unwrap(),
        table
    );
    let read = |name| -> serde_json::Value {
        serde_json::from_slice(&fs::read(operator.path(name)).unwrap()).unwrap()
    };
    let (mut before, mut after) = (read("chatgpt.json"), read("auth.json"));
    for file in [&mut before, &mut after] {
        // The refresher has had it since.
        file["last_refresh"] = json!(null);
    }
    assert_eq!(before, after);
    check("imports", &operator.transcript());
}

/// Every fault is among the samples of [`advice`].
fn require_all(samples: &[Fault]) {
    let source = include_str!("../fault.rs");
    let (_, body) = source.split_once("pub enum Fault {").unwrap();
    let is_variant = |line: &&str| {
        let name = line.strip_prefix("    ").unwrap_or_default();
        name.starts_with(|first: char| first.is_ascii_uppercase())
    };
    let kinds = body.lines().filter(is_variant).count();
    let code = |fault: &Fault| serde_json::to_value(fault).unwrap()["code"].to_string();
    let codes: BTreeSet<_> = samples.iter().map(code).collect();
    assert_eq!(codes.len(), kinds, "{codes:?}");
}

#[tokio::test]
async fn rotation() {
    let mut operator = Operator::new().await;
    operator.add_keys(&["team"]).await;
    operator.run("rotate-key").await;
    check("rotate_key", &operator.transcript());
}

#[tokio::test]
async fn errors() {
    let mut operator = Operator::new().await;
    operator.add_keys(&["team"]).await;
    operator.add_login("alice").await;
    let store = operator.context.app.store.clone();
    let alice = store.account("alice").await.unwrap();
    let claimed = store.claim(&alice.id, 1, NOW, HOUR, &SINGLE_USE).await;
    let Claimed::Ours(claim) = claimed.unwrap() else {
        panic!("the claim is free");
    };
    store
        .needs_login(&claim, "the token endpoint says invalid_grant")
        .await
        .unwrap();
    fs::write(operator.path("empty"), "").unwrap();
    let empty = operator.path("empty").display().to_string();
    operator
        .run(&format!(
            "accounts disable nobody
             accounts add a --platform nope --key-file KEY
             accounts add 'the team' --platform codex --key-file KEY
             accounts add team --platform openai --key-file KEY
             accounts add team --platform anthropic --key-file KEY
             accounts add new --platform openai --key-file {empty}
             accounts add new --platform openai --key-file {empty}/nowhere
             accounts add new --platform custom --key-file KEY
             accounts add new --platform azure-openai --key-file KEY --base-url https://127.0.0.1
             login codex --project mine
             accounts add -- -new --platform openai
             accounts set team
             accounts set team --models a**
             accounts set team --rpm 0
             accounts set team --time-zone Mars/Olympus
             accounts set team --expires soon
             accounts set team --expires 2020-01-01
             accounts enable alice
             refresh team
             refresh nobody
             logout team
             logout nobody
             keys create laptop
             keys create laptop
             keys create ''
             keys create other --pool nope
             keys set laptop
             keys set nobody --streams 1
             keys revoke nobody
             pools create default
             pools create 'no pool'
             pools create x --policy random
             pools add default nobody
             pools add default team --tier 100
             pools drop default nobody
             pools create other
             pools drop other team
             pools remove default
             keys set laptop --pool other
             pools remove other
             keys create -1
             keys create other --rpm -1
             keys create other --rpm 1.5
             keys create other --expires 2027-02-30
             keys create other --expires never
             accounts add other --platform anthropic --key-file KEY
             pools add default team --weight abc
             login codex --port abc
             serve --metrics-listen localhost:9464
             usage --since yesterday
             usage --since 2027-02-30
             import {empty}
             serve --metrics-listen 0.0.0.0:9464",
        ))
        .await;
    check("errors", &operator.transcript());
}

#[test]
fn advice() {
    let (account, platform) = ("the team".to_owned(), "codex".to_owned());
    let name = || "x".to_owned();
    let mut faults = vec![
        Fault::HasKey {
            account: name(),
            platform: platform.clone(),
        },
        Fault::MaskedKey,
        Fault::NotPublished,
        Fault::NoChange,
        Fault::NameOfAnother { account: name() },
        Fault::PoolInUse {
            pool: name(),
            keys: vec![],
        },
        Fault::BadCredential,
        Fault::OtherLogin {
            platform: platform.clone(),
        },
        Fault::DefaultPool,
        Fault::NotInPool {
            pool: name(),
            account: name(),
        },
        Fault::NeedsLogin {
            account: account.clone(),
            platform: platform.clone(),
            is_client: false,
        },
        Fault::NeedsLogin {
            account: account.clone(),
            platform: platform.clone(),
            is_client: true,
        },
        Fault::Dead {
            account: account.clone(),
            platform: platform.clone(),
            has_key: false,
        },
        Fault::ForeignBaseUrl {
            account: account.clone(),
            platform: platform.clone(),
        },
        Fault::Dead {
            account: account.clone(),
            platform: platform.clone(),
            has_key: true,
        },
        Fault::ForeignKey {
            account: account.clone(),
            platform: platform.clone(),
        },
        Fault::OwnKey,
        Fault::NoApiKeys {
            account,
            platform: platform.clone(),
        },
        Fault::NoLogin { account: name() },
        Fault::KeysAlone {
            platform: platform.clone(),
        },
        Fault::ImportsAlone,
        Fault::NoSuchWay,
        Fault::NeedsClient,
        Fault::NotRevoked { account: name() },
        Fault::RefreshRunning { account: name() },
        Fault::NotAcknowledged {
            platform: platform.clone(),
        },
        Fault::NoPlatformsFolder,
        Fault::LaxMode {
            path: "/state/the key".to_owned(),
            wanted: "600".to_owned(),
        },
        Fault::ForeignOwner {
            path: "/state".to_owned(),
            owner: "latchkey".to_owned(),
            user: 1000,
        },
        Fault::Unclaimed { path: name() },
        Fault::WrongKind { path: name() },
        Fault::StateInUse,
        Fault::RotationRunning,
        Fault::NoStateDir,
        Fault::NoState,
        Fault::DatabaseLost,
        Fault::NotOurs,
        Fault::DatabaseInUse,
        Fault::OtherRelease,
        Fault::OlderDatabase,
        Fault::WrongKey,
        Fault::NoKey,
        Fault::UnfinishedRotation,
        Fault::RetiredAlone,
        Fault::KeyExhausted,
        Fault::KeyNotAtHand,
        Fault::KeyNotServed,
        Fault::Unopened,
        Fault::Unreadable,
        Fault::SocketPathTooLong,
        Fault::SocketTaken,
        Fault::MetricsAddressTaken,
        Fault::NoFilter,
        Fault::OtherFilter,
        Fault::RelativePath,
        Fault::NoTrustedCa,
        Fault::BadRoots { variable: None },
        Fault::BadRoots {
            variable: Some("SSL_CERT_FILE".to_owned()),
        },
        Fault::MetricsExposed,
        Fault::PortsTaken,
        Fault::LoginFailed,
        Fault::WayClosed,
        Fault::NoWayOut,
        Fault::NoProjects,
        Fault::NeedsProject,
        Fault::NoOwnClient { help: None },
        Fault::NoOwnClient {
            help: Some("make a client in your own project".to_owned()),
        },
        Fault::NeedsBaseUrl,
        Fault::OwnNetwork,
        Fault::OneName { found: 2 },
        Fault::NeedsPlatform,
        Fault::UnfitProxy,
        Fault::SeveralUnfit,
        Fault::LikelySpent,
        Fault::NoAccountId,
        Fault::NoUsableLogin { platform: None },
        Fault::NoUsableLogin {
            platform: Some(platform),
        },
        Fault::Misconfigured,
        Fault::Invalid,
        Fault::Failed,
    ];
    for kind in [Kind::Account, Kind::ClientKey, Kind::Pool] {
        faults.extend([
            Fault::Unknown { kind, name: name() },
            Fault::NameTaken { kind, name: name() },
        ]);
    }
    for how in Failure::ALL.map(Some).into_iter().chain([None]) {
        faults.push(Fault::RefreshLater {
            account: name(),
            platform: "codex".to_owned(),
            how,
            is_client: false,
            at: 0,
        });
    }
    for place in [KeyPlace::Environment, KeyPlace::Operators, KeyPlace::Ours] {
        faults.extend([Fault::BadKeys { place }, Fault::NoNewKey { place }]);
    }
    for why in [
        KeyringFault::Denied,
        KeyringFault::Gone,
        KeyringFault::Unavailable,
        KeyringFault::Locked,
        KeyringFault::NoService,
        KeyringFault::Ambiguous,
    ] {
        faults.push(Fault::Keyring { why });
    }
    require_all(&faults);
    let line = |fault: &Fault| {
        let cure = cure(Door::CommandLine, fault);
        let code = if error::misfits(fault) { 2 } else { 1 };
        let fault = serde_json::to_string(fault).unwrap();
        format!(
            "{fault} -> {code}\n    {}\n",
            cure.as_deref().unwrap_or("-")
        )
    };
    let mut lines: Vec<String> = faults.iter().map(line).collect();
    lines.sort();
    check("advice", &lines.concat());
}
