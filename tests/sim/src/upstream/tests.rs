use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::answer::{Answer, Payload};

fn context() -> Context<'static> {
    Context {
        account: "alice",
        id: "0a".into(),
        pieces: 3,
        now: UnixMillis(1_000_000),
    }
}

fn text(answer: &Answer) -> String {
    match &answer.body {
        Payload::Whole(body) => String::from_utf8_lossy(body).into_owned(),
        Payload::Events(events) => events.concat(),
    }
}

#[test]
fn codex_takes_only_unstored_streams() {
    let ask = |body: Value| {
        codex::answer("/backend-api/codex/responses", &body, "plus", context()).expect("endpoint")
    };
    let stored = ask(json!({"stream": true}));
    assert_eq!(stored.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        text(&stored).trim(),
        r#"{"detail":"Store must be set to false"}"#
    );
    let whole = ask(json!({"store": false}));
    assert_eq!(
        text(&whole).trim(),
        r#"{"detail":"Stream must be set to true"}"#
    );
    let input = json!([{"role": "user", "content": [{"type": "input_text", "text": "ping"}]}]);
    let good = ask(json!({"store": false, "stream": true, "model": "m", "input": input}));
    assert_eq!(good.headers["x-codex-primary-used-percent"], "12");
    assert!(text(&good).contains("Hello from alice: you said ping"));
}

#[test]
fn chat_stream_carries_usage_only_when_asked() {
    let ask = |options: Value| {
        let body = json!({
            "model": "m", "stream": true, "stream_options": options,
            "messages": [{"role": "user", "content": "ping"}],
        });
        text(&openai::answer("/v1/chat/completions", &body, context()).expect("endpoint"))
    };
    assert!(!ask(Value::Null).contains("usage"));
    let with_usage = ask(json!({"include_usage": true}));
    assert!(with_usage.contains(r#""prompt_tokens":1,"completion_tokens":6,"total_tokens":7"#));
    assert!(with_usage.ends_with("data: [DONE]\n\n"));
}

#[test]
fn anthropic_needs_its_version() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "ping"}]});
    let mut headers = HeaderMap::new();
    let refused = anthropic::answer("/v1/messages", &headers, &body, context()).expect("endpoint");
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    let good = anthropic::answer("/v1/messages", &headers, &body, context()).expect("endpoint");
    let message: Value = serde_json::from_str(&text(&good)).expect("JSON");
    assert_eq!(
        message["content"][0]["text"],
        "Hello from alice: you said ping"
    );
    assert_eq!(
        good.headers["anthropic-ratelimit-tokens-reset"],
        "1970-01-01T00:17:40Z"
    );
}

#[test]
fn echo_is_bounded() {
    let body = json!({"input": "é".repeat(10_000)});
    assert!(context().reply(&body).text.chars().count() < MAX_ECHO_CHARS + 40);
}
