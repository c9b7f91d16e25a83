//! Requests like those of the bench, for counting the filter's own instructions: `make bench-native` runs each of these
//! under callgrind. They are ignored otherwise.

use super::envoy::{Envoy, records};
use crate::{
    secret::Secret,
    snapshot::{Account, Policy, Record, fixture},
};

/// The number of requests, each of a session of its own.
const REQUESTS: usize = 200;

const ACCOUNTS: usize = 10;

/// The length of an access token, in bytes: a JWT of a few claims, signed with RSA.
const CREDENTIAL_BYTES: usize = 2048;

/// The length of a JSON answer, in bytes, and the number of events of a stream.
const JSON_BYTES: usize = 1024;
const EVENTS: usize = 20;

fn account(number: usize) -> Account {
    let letters = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9');
    let letters: String = letters.map(char::from).collect();
    let mut token = format!("token-{number}.");
    token.extend(letters.chars().cycle().take(CREDENTIAL_BYTES - token.len()));
    let mut account = fixture::account(&format!("acc_{number}"), "codex");
    account.credential = Secret::new(token);
    account
}

/// An Envoy with some accounts.
fn envoy() -> Envoy {
    let accounts: Vec<Account> = (0..ACCOUNTS).map(account).collect();
    let ids: Vec<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    let mut records = records(&accounts);
    for record in &mut records {
        if let Record::Pool(pool) = record {
            *pool = fixture::pool("default", Policy::Sticky, &ids);
        }
    }
    Envoy::with(&records)
}

/// The pieces of an answer.
fn answer(stream: bool) -> Vec<String> {
    if stream {
        let sse = include_str!("../../../tests/fixtures/openai/response.sse");
        let events: Vec<&str> = sse.split_inclusive("\n\n").collect();
        let more = EVENTS - events.len();
        let times = |event: &str| {
            if event.contains("fixture delta") {
                more + 1
            } else {
                1
            }
        };
        let all = events.iter();
        all.flat_map(|event| std::iter::repeat_n((*event).to_owned(), times(event)))
            .collect()
    } else {
        let json = include_str!("../../../tests/fixtures/openai/response.json").trim_end();
        let text = format!("fixture text{}", "x".repeat(JSON_BYTES - json.len()));
        vec![json.replacen("fixture text", &text, 1)]
    }
}

fn run(stream: bool) {
    let (mut envoy, pieces) = (envoy(), answer(stream));
    let kind = match stream {
        true => "text/event-stream",
        false => "application/json",
    };
    let length = JSON_BYTES.to_string();
    let answer = [
        ("content-type", kind),
        ("date", "Mon, 21 Sep 2026 14:13:20 GMT"),
        ("content-length", &length),
        ("x-envoy-upstream-service-time", "1"),
    ];
    envoy.reads_the_snapshot();
    for number in 0..REQUESTS {
        let session = format!("019a0000-0000-7000-8000-{number:012}");
        let body = format!(
            r#"{{"model":"gpt-6.1-sol","input":"{}","store":false,"stream":{stream},"prompt_cache_key":"{session}"}}"#,
            "1".repeat(900),
        );
        let mut call = envoy.call(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "gateway.test"),
            (":path", "/v1/responses"),
            ("authorization", "Bearer lk_0123456789"),
            (
                "user-agent",
                "codex_cli_rs/0.169.0 (Debian 13.0.0; x86_64) xterm-256color",
            ),
            ("originator", "codex_cli_rs"),
            ("content-type", "application/json"),
            ("accept", kind),
            ("session-id", &session),
            ("x-codex-window-id", "w:0"),
            (
                "x-codex-turn-metadata",
                r#"{"turn_id":"019a0000-0000-7000-8000-000000000001"}"#,
            ),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "019a0000-0000-7000-8000-000000000001"),
        ]);
        call.sends(body.as_bytes(), false);
        call.sends(b"", true);
        call.platform_begins(200, &answer);
        for piece in &pieces {
            call.platform_goes_on(piece.as_bytes(), false);
        }
        call.platform_goes_on(b"", true);
        assert!(call.has_answer());
        envoy.host.log.take();
    }
}

#[test]
#[ignore = "`make bench-native` runs it"]
fn json() {
    run(false);
}

#[test]
#[ignore = "`make bench-native` runs it"]
fn sse() {
    run(true);
}
