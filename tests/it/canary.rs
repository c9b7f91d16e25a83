use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack,
    caller::{chat_body, messages_body, responses_body},
    eventually, holds,
    refresher::Refresher,
    run,
    sim::Sim,
    stack::ALICE,
};

const OPENAI_KEY: &str = "sk-canary-OPENAI-8d1f3c77a02b4e5f9a6b";
const ANTHROPIC_KEY: &str = "sk-ant-canary-ANTHROPIC-55e0a9d2c41b47f8";
const REFUSED_KEY: &str = "sk-ant-canary-REFUSED-91c2b7f04de84a63b5d8";
const MISPLACED_KEY: &str = "lk_canary-MISPLACED-0b7e6f1a2c9d4853";
const BROKEN_TOKEN: &str = "eyJhbGciOiJub25lIn0.canary-BROKEN-3f8e2d1c0b9a48.x";
const BROKEN_REFRESH: &str = "rt_canary-BROKEN-REFRESH-6c5d4e3f2a1b09";
const PASTED_CODE: &str = "ac_canary-PASTED-7a8b9c0d1e2f3a4b5c6d";
/// Another user of the platform.
const BOB: &str = "bob@example.com";
/// A prompt is its caller's: it is in no log.
const PROMPT: &str = "canary-PROMPT-what-the-caller-asked-2e7d";
const ECHOED: &str = "rt_canary-ECHOED-by-the-token-endpoint-4f";

/// No secret shows up in any log, statistic, admin page, error, command's output or file that a run with good,
/// bad and hostile requests leaves: not as it is, not in base64, hex or URL encoding, and not its last part alone.
#[test]
fn no_secret_shows_up_anywhere() {
    run(async {
        let mut stack = Stack::real("canary", async |sim, refresher| {
            sim.add_api_key("openai", OPENAI_KEY, "openai-key").await;
            sim.add_api_key("anthropic", ANTHROPIC_KEY, "anthropic-key")
                .await;
            sim.redirect_to(0).await;
            for email in [ALICE, BOB] {
                sim.add_user(email, std::time::Duration::from_secs(3600))
                    .await;
            }
            refresher.add_api_key("paid", "openai", OPENAI_KEY).await;
            refresher
                .add_api_key("claude", "anthropic", ANTHROPIC_KEY)
                .await;
            refresher
                .add_api_key("refused", "anthropic", REFUSED_KEY)
                .await;
            refresher.log_in(sim, ALICE).await;
        })
        .await;
        let caller = stack.caller("team").await;
        let mut secrets = sealing_key(&stack);
        stack.refresher.run(&["refresh", ALICE], "").await;
        let mut answers = requests(&stack, &caller).await;
        commands(&stack.sim, &stack.refresher, &stack.folder).await;
        token_endpoint_errors(&stack).await;
        answers += &pending_logins(&stack).await;
        let pages = admin_pages(&stack).await;
        secrets.extend(sealing_key(&stack));
        secrets.extend(planted_and_made(&stack, &caller).await);
        stack.refresher.stop().await;
        fs::write(stack.folder.join("answers.txt"), answers).expect("written");
        fs::write(stack.folder.join("admin.txt"), pages).expect("written");

        let files = files(&stack.folder);
        assert!(secrets.len() >= 18, "{} secrets", secrets.len());
        assert!(files.len() >= 8, "{files:?}");
        let mut found = Vec::new();
        for file in &files {
            let bytes = fs::read(file).expect("a file");
            let text = String::from_utf8_lossy(&bytes);
            found.extend(
                secrets
                    .iter()
                    .flat_map(spellings)
                    .filter(|needle| text.contains(needle))
                    .map(|needle| format!("{needle} in {}", file.display())),
            );
        }
        assert!(found.is_empty(), "{found:#?}");
    });
}

/// The search finds what it is to find.
#[test]
fn the_search_knows_every_spelling() {
    let secret = "rt_canary+with/special=characters";
    for (place, text) in [
        ("raw", format!("token={secret},")),
        ("base64", STANDARD.encode(format!("ab{secret}cd"))),
        ("base64, one on", STANDARD.encode(format!("abc{secret}d"))),
        ("base64, two on", STANDARD.encode(format!("abcd{secret}"))),
        (
            "hex",
            secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ),
        ("URL", "rt_canary%2Bwith%2Fspecial%3Dcharacters".to_owned()),
        ("its end", "…special=characters".to_owned()),
    ] {
        let found = spellings(&secret.to_owned())
            .iter()
            .any(|needle| text.contains(needle.as_str()));
        assert!(found, "{place}: {text}");
    }
}

/// Sends what works and what does not. Returns everything that was answered.
async fn requests(stack: &Stack<Refresher>, caller: &Caller) -> String {
    let mut answers = String::new();
    for (path, body) in [
        ("/v1/responses", responses_body()),
        ("/v1/chat/completions", chat_body(true)),
        ("/v1/messages", messages_body(false)),
        ("/v1/messages", messages_body(true)),
    ] {
        for _ in 0..4 {
            answers += &format!("{:?}\n", caller.post(path, &body).await);
        }
    }
    for fixture in ["openai/invalid_api_key.json", "openai/server_error.json"] {
        let fault = json!({"target": "upstream", "path": "/v1/chat/completions", "times": 1, "fixture": fixture});
        stack.sim.add_fault(fault).await;
        answers += &format!(
            "{:?}\n",
            caller.post("/v1/chat/completions", &chat_body(false)).await
        );
    }
    let asked = json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": PROMPT}]});
    caller.post("/v1/chat/completions", &asked).await; // The simulated platform repeats it.
    let query = format!("/v1/chat/completions?key={MISPLACED_KEY}");
    for headers in [
        &[("authorization", MISPLACED_KEY)][..],
        &[("x-api-key", MISPLACED_KEY)],
        &[
            ("x-api-key", MISPLACED_KEY),
            ("x-goog-api-key", MISPLACED_KEY),
        ],
        &[("cookie", MISPLACED_KEY)],
    ] {
        answers += &format!(
            "{:?}\n",
            caller.send("POST", "/v1/responses", headers, "{}").await
        );
        answers += &format!("{:?}\n", caller.send("POST", &query, headers, "{}").await);
    }
    answers += &format!("{:?}\n", caller.get("/v1/models").await);
    answers
}

/// Runs commands that go wrong with a secret at hand. The harness logs what they print.
async fn commands(sim: &Sim, refresher: &Refresher, folder: &Path) {
    for (arguments, input) in [
        (
            &["accounts", "add", "paid", "--platform", "openai"][..],
            OPENAI_KEY,
        ),
        (
            &["accounts", "add", "broken", "--platform", "openai"],
            &format!("{REFUSED_KEY}\nx: {REFUSED_KEY}"),
        ),
        (
            &["accounts", "add", "wrong", "--platform", "codex"],
            OPENAI_KEY,
        ),
        (
            &["login", "codex", "--paste"],
            &format!("http://127.0.0.1:1455/auth/callback?code={PASTED_CODE}&state=x\n"),
        ),
        (&["refresh", "paid"], ""),
    ] {
        let output = refresher.try_run(arguments, input).await;
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
    }
    let auth = folder.join("state/auth.json");
    for text in [
        json!({"tokens": {"id_token": BROKEN_TOKEN, "access_token": BROKEN_TOKEN, "refresh_token": BROKEN_REFRESH}}).to_string(),
        json!({"tokens": {"id_token": [BROKEN_TOKEN], "access_token": {BROKEN_TOKEN: 1}}}).to_string(),
        format!("{{\"tokens\": {{\"refresh_token\": \"{BROKEN_REFRESH}\", \"access_token\": \"{BROKEN_TOKEN}"),
    ] {
        fs::write(&auth, text).expect("written");
        let output = refresher.try_run(&["import", auth.to_str().expect("UTF-8")], "").await;
        assert!(!output.status.success(), "{output:?}");
    }
    fs::remove_file(auth).expect("removed");
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["accounts", "list", "--json"],
        &["keys", "list", "--json"],
        &["keys", "list"],
        &["envoy-config"],
        &["rotate-key"],
    ] {
        refresher.run(arguments, "").await;
    }
    assert_eq!(sim.count("revocations").await, 0);
}

/// Lets refreshes fail with answers that repeat what was sent, and with none.
async fn token_endpoint_errors(stack: &Stack<Refresher>) {
    for fault in [
        json!({"status": 500, "body": {"error": "server_error", "error_description": ECHOED}}),
        json!({"status": 503, "body": format!("<html>{ECHOED}</html>"), "headers": {"x-echo": ECHOED}}),
        json!({"status": 400, "body": {"error": ECHOED, "error_description": ECHOED}}),
    ] {
        let mut fault = fault;
        fault["target"] = "token".into();
        fault["times"] = 1.into();
        stack.sim.add_fault(fault).await;
        stack.refresher.try_run(&["refresh", ALICE], "").await;
    }
    let path = format!("/users/{ALICE}/revoke_login");
    stack
        .sim
        .ask(reqwest::Method::POST, &path, Value::Null)
        .await;
    stack.refresher.try_run(&["refresh", ALICE], "").await;
    assert_eq!(
        stack.refresher.account(ALICE).await["status"],
        "needs_login"
    );
}

/// Opens the URL of the login that ended, as somebody else and as Alice. Returns what the browser showed.
async fn pending_logins(stack: &Stack<Refresher>) -> String {
    let (mut pages, mut last) = (String::new(), Value::Null);
    for email in [BOB, ALICE] {
        let limit = std::time::Duration::from_secs(10);
        let url = eventually("there is a URL", limit, async || {
            let account = stack.refresher.account(ALICE).await;
            let url = &account["login_url"];
            holds(url.is_string() && *url != last, || account.to_string()).map(|()| url.clone())
        })
        .await;
        stack.refresher.run(&["status"], "").await;
        let address = stack
            .sim
            .authorize(url.as_str().expect("a URL"), email)
            .await;
        pages += &format!("{:?}\n", stack.sim.browse(&address).await);
        last = url;
    }
    assert_eq!(stack.refresher.account(ALICE).await["status"], "active");
    pages
}

async fn admin_pages(stack: &Stack<Refresher>) -> String {
    let mut pages = String::new();
    for page in [
        "/stats",
        "/stats/prometheus",
        "/config_dump?include_eds",
        "/clusters",
        "/listeners",
        "/server_info",
        "/certs",
        "/init_dump",
        "/runtime",
        "/contention",
        "/memory",
        "/help",
    ] {
        pages += &stack.envoy.admin(page).await;
    }
    pages
}

/// The sealing key of now, as it is in its file and as bytes in hex.
fn sealing_key(stack: &Stack<Refresher>) -> BTreeSet<String> {
    let key = fs::read_to_string(stack.refresher.file("key")).expect("the key");
    let bytes = STANDARD.decode(key.trim()).expect("one key in base64");
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    BTreeSet::from([key.trim().to_owned(), hex])
}

/// The secrets that were planted, and those that the platform and the refresher made.
async fn planted_and_made(stack: &Stack<Refresher>, caller: &Caller) -> BTreeSet<String> {
    let mut secrets = BTreeSet::from(
        [
            OPENAI_KEY,
            ANTHROPIC_KEY,
            REFUSED_KEY,
            MISPLACED_KEY,
            BROKEN_TOKEN,
            BROKEN_REFRESH,
            PASTED_CODE,
            PROMPT,
            ECHOED,
            caller.key(),
        ]
        .map(str::to_owned),
    );
    for seen in stack.sim.seen().await {
        let bearer = seen
            .header("authorization")
            .first()
            .and_then(|value| value.strip_prefix("Bearer "));
        secrets.extend(bearer.map(str::to_owned));
        if seen.path() == "/oauth/token" {
            let body = String::from_utf8(seen.body()).expect("UTF-8");
            let words = body.split(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c)));
            let tokens = words.filter(|word| word.starts_with("rt_") || word.starts_with("ac_"));
            secrets.extend(tokens.map(str::to_owned));
            let mut fields = body.split('&').filter_map(|field| field.split_once('='));
            let verifier = fields.find(|(name, _)| *name == "code_verifier");
            secrets.extend(verifier.map(|(_, verifier)| verifier.to_owned()));
        }
    }
    secrets
}

/// The forms in which a secret might be written: whole, or its last part alone.
fn spellings(secret: &String) -> Vec<String> {
    const PART: usize = 18;
    let end = &secret[secret.len() - PART.min(secret.len())..];
    let hex = |text: &str| {
        text.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let url = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    let mut spellings = vec![end.to_owned(), hex(end), url(end)];
    for offset in 0..3 {
        // Four characters for each three bytes; those at the edges hold bits of the neighbours.
        let shifted = [&vec![0; offset], secret.as_bytes()].concat();
        let encoded = STANDARD.encode(&shifted);
        let inner = encoded[4..encoded.len() - 4].to_owned();
        spellings.push(inner.replace('+', "-").replace('/', "_"));
        spellings.push(inner);
    }
    spellings
}

/// Everything that the run left, but the sealing key and what the simulated platform keeps.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.is_file() && !path.ends_with("state/key") && !path.ends_with("sim.log") {
            files.push(path);
        }
    }
    files
}
