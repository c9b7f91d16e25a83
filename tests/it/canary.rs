//! Row 56: no secret is anywhere but where it belongs.
//!
//! A stack runs with secrets that are known, through logins, refreshes, answers and errors. Then everything that it
//! left is searched for them: logs, statistics, the configuration dump, what commands printed, and every file.

use std::{fs, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{
    Answer, Caller, Stack,
    caller::{chat_body, messages_body, responses_body},
    refresher::Refresher,
    run,
};

const ALICE: &str = "alice@example.com";
const OPENAI_KEY: &str = "sk-canary-7f3a91d2c04b5e68";
const ANTHROPIC_KEY: &str = "sk-ant-canary-9b2d41e7a35c0f86";
const WRONG_KEY: &str = "lk_canarywrong5d1e8f3b7a2c";
const PROMPT: &str = "prompt-canary-4c8e2a6f1b";

/// A secret, and what it is.
struct Canary {
    what: &'static str,
    /// It as it is, in hex, and in base64 at each of the three alignments.
    forms: Vec<Vec<u8>>,
}

impl Canary {
    fn new(what: &'static str, text: &str) -> Self {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut forms = vec![
            text.as_bytes().to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
        ];
        forms.extend((0..3).map(|shift| {
            let shifted = [&b"___"[..shift], text.as_bytes()].concat();
            let encoded = STANDARD_NO_PAD.encode(shifted);
            // The first and the last characters depend on what stands beside the secret.
            encoded.as_bytes()[4..encoded.len() - 4].to_vec()
        }));
        Self { what, forms }
    }

    fn is_in(&self, haystack: &[u8]) -> bool {
        self.forms.iter().any(|form| {
            let mut windows = haystack.windows(form.len());
            // The first byte rules nearly everything out.
            windows.any(|window| window[0] == form[0] && window == form)
        })
    }
}

#[test]
fn a_canary_is_found_in_each_of_its_forms() {
    let secret = "sk-0123456789abcdef";
    let canary = Canary::new("a secret", secret);
    for shift in 0..3 {
        let text = format!("{}{secret}yz", &"abc"[..shift]);
        let hex: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        assert!(canary.is_in(text.as_bytes()) && canary.is_in(hex.as_bytes()));
        assert!(
            canary.is_in(STANDARD_NO_PAD.encode(&text).as_bytes()),
            "{shift}"
        );
    }
    assert!(!canary.is_in(b"sk-0123456789abcdeg"));
}

#[test]
fn no_secret_is_where_it_does_not_belong() {
    run(async {
        let stack = Stack::real("canary", async |sim, refresher| {
            sim.add_user(ALICE, Duration::from_secs(3600)).await;
            sim.add_api_key("openai", OPENAI_KEY, "openai").await;
            sim.add_api_key("anthropic", ANTHROPIC_KEY, "anthropic")
                .await;
            refresher.log_in(sim, ALICE).await;
            refresher.add_api_key("openai", "openai", OPENAI_KEY).await;
            refresher
                .add_api_key("anthropic", "anthropic", ANTHROPIC_KEY)
                .await;
        })
        .await;
        let caller = stack.caller("canary").await;
        let mut shown = vec![("answers", answers(&stack, &caller).await)];
        let canaries = canaries(&stack, &caller).await;

        for arguments in [
            &["status"][..],
            &["accounts", "list"],
            &["keys", "list"],
            &["envoy-config"],
        ] {
            shown.push((
                "a command's output",
                stack.refresher.run(arguments, "").await.into_bytes(),
            ));
        }
        for page in [
            "/stats",
            "/stats/prometheus",
            "/config_dump?include_eds",
            "/clusters",
            "/listeners",
            "/server_info",
            "/certs",
        ] {
            shown.push((
                "Envoy's admin interface",
                stack.envoy.admin(page).await.into_bytes(),
            ));
        }
        let mut looked_at = 0;
        files(&stack.folder, &mut |path, content| {
            looked_at += 1;
            for canary in &canaries {
                assert!(
                    !canary.is_in(content),
                    "{} is in {}",
                    canary.what,
                    path.display()
                );
            }
        });
        assert!(looked_at >= 7, "only {looked_at} files");
        for (place, content) in &shown {
            for canary in &canaries {
                assert!(!canary.is_in(content), "{} is in {place}", canary.what);
            }
        }
    });
}

/// Good answers and errors of every kind; what callers got that should not hold a secret.
async fn answers(stack: &Stack<Refresher>, caller: &Caller) -> Vec<u8> {
    let mut got = Vec::new();
    let mut keep =
        |answer: Answer| got.extend(format!("{:?}{}", answer.headers, answer.body).into_bytes());
    for _ in 0..4 {
        keep(caller.post("/v1/responses", &responses_body()).await);
    }
    keep(caller.post("/v1/chat/completions", &chat_body(true)).await);
    keep(caller.post("/v1/messages", &messages_body(false)).await);

    // Errors of the gateway's own, of the platforms, and of the token endpoint. The prompt is echoed by the simulated
    // platform, so what answers it does not count.
    let with_prompt =
        json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": PROMPT}]});
    caller.post("/v1/chat/completions", &with_prompt).await;
    let stranger = Caller::new(stack.envoy.port, WRONG_KEY);
    keep(
        stranger
            .post("/v1/chat/completions", &chat_body(false))
            .await,
    );
    keep(caller.post("/v1/nothing", &json!({})).await);
    for status in [400, 401, 429, 500] {
        let fault = stack
            .sim
            .add_fault(json!({"target": "upstream", "status": status, "body": "no"}))
            .await;
        for (path, body) in [
            ("/v1/chat/completions", chat_body(false)),
            ("/v1/responses", responses_body()),
        ] {
            keep(caller.post(path, &body).await);
        }
        stack.sim.remove_fault(fault).await;
    }
    let fault = stack
        .sim
        .add_fault(json!({"target": "token", "status": 503}))
        .await;
    stack.refresher.try_run(&["refresh", ALICE], "").await;
    stack.sim.remove_fault(fault).await;
    stack.refresher.try_run(&["refresh", ALICE], "").await;
    got
}

/// Every secret of the run: those that were chosen, and those that the platform saw.
async fn canaries(stack: &Stack<Refresher>, caller: &Caller) -> Vec<Canary> {
    let mut canaries = vec![
        Canary::new("the OpenAI key", OPENAI_KEY),
        Canary::new("the Anthropic key", ANTHROPIC_KEY),
        Canary::new("the client key", caller.key()),
        Canary::new("a wrong client key", WRONG_KEY),
        Canary::new("a prompt", PROMPT),
    ];
    let before = canaries.len();
    for seen in stack.sim.seen().await {
        for value in seen.header("authorization") {
            if let Some(token) = value.strip_prefix("Bearer ey") {
                canaries.push(Canary::new("an access token", token));
            }
        }
        if let Ok(Value::Object(body)) = serde_json::from_slice(&seen.body()) {
            if let Some(token) = body.get("refresh_token").and_then(Value::as_str) {
                canaries.push(Canary::new("a refresh token", token));
            }
        }
    }
    let kinds = |what| {
        canaries[before..]
            .iter()
            .filter(|canary| canary.what == what)
            .count()
    };
    assert!(
        kinds("an access token") > 0 && kinds("a refresh token") > 0,
        "the run met no tokens"
    );
    canaries
}

/// Every file of the run but the sealing key, which is a secret and nothing else, and the platform's own.
fn files(folder: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        match fs::symlink_metadata(&path).expect("its kind").file_type() {
            kind if kind.is_dir() && name != "sim" => files(&path, look),
            kind if kind.is_file() && name != "key" && name != "sim.log" => {
                look(&path, &fs::read(&path).expect("its content"));
            }
            _ => {}
        }
    }
}
