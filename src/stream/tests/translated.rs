//! A caller of one dialect at a platform of another.

use serde_json::{Value, json};

use super::envoy::{Call, Envoy, head, records};
use crate::{
    host::fake::first,
    snapshot::{Account, Record, Requirement, fixture},
};

const CHAT: &str = "/v1/chat/completions?beta=true";

/// An Envoy with these accounts of a platform that speaks `responses`, in streams alone.
fn envoy(accounts: &[&str]) -> Envoy {
    let account = |id: &&str| fixture::account(id, "codex");
    let accounts: Vec<Account> = accounts.iter().map(account).collect();
    let mut records = records(&accounts);
    for record in &mut records {
        if let Record::Platform(platform) = record {
            platform.endpoints[0].requires = vec![Requirement::Stream, Requirement::StoreFalse];
            platform.endpoints[0].refuses = vec!["temperature".to_owned()];
        }
    }
    Envoy::with(&records)
}

fn chat(stream: bool) -> Value {
    json!({
        "model": "gpt-6.1-sol", "stream": stream, "temperature": 0,
        "messages": [{"role": "user", "content": "hi"}],
    })
}

fn ask(envoy: &mut Envoy, body: &Value) -> Call {
    ask_at(CHAT, envoy, body)
}

fn ask_at(path: &str, envoy: &mut Envoy, body: &Value) -> Call {
    let body = body.to_string();
    let mut call = envoy.call(&head(path));
    let (first, rest) = body.as_bytes().split_at(body.len() / 2);
    call.sends(first, false);
    call.sends(rest, true);
    call
}

fn event(data: &Value) -> String {
    format!(
        "event: {}\ndata: {data}\n\n",
        data["type"].as_str().unwrap()
    )
}

/// The answer "Hi there" of a platform that speaks `responses`.
fn answer() -> String {
    let usage = json!({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5});
    let response = json!({"id": "resp_1", "model": "gpt-6.1-sol", "status": "completed", "output": [], "usage": usage});
    let delta = |text: &str| json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text});
    [
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-6.1-sol"}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}),
        delta("Hi"),
        delta(" there"),
        json!({"type": "response.completed", "response": response}),
    ]
    .iter()
    .map(event)
    .collect()
}

/// The text in the chunks of a stream of `chat`.
fn text_of(stream: &[u8]) -> String {
    let stream = std::str::from_utf8(stream).unwrap();
    let chunks = stream
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "));
    let texts = chunks.filter_map(|chunk| {
        let chunk: Value = serde_json::from_str(chunk).ok()?;
        Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
    });
    texts.collect()
}

const EVENTS: [(&str, &str); 2] = [
    ("content-type", "text/event-stream"),
    ("content-length", "9"),
];

#[test]
fn the_platform_gets_its_own_dialect_and_the_caller_a_stream_of_its_own() {
    let answer = answer();
    for cut in 0..answer.len() {
        let mut envoy = envoy(&["acc_1"]);
        let mut call = ask(&mut envoy, &chat(true));
        call.is_at("acc_1");
        assert_eq!(
            call.header(":path").unwrap(),
            "/backend-api/codex/responses"
        );
        assert_eq!(call.header("accept").unwrap(), "text/event-stream");
        let sent = call.sent_on();
        assert_eq!(sent["input"][0]["content"][0]["text"], "hi");
        assert_eq!(
            (&sent["store"], &sent["temperature"]),
            (&json!(false), &Value::Null)
        );
        call.platform_begins(200, &EVENTS);
        let (first_piece, rest) = answer.as_bytes().split_at(cut);
        call.platform_goes_on(first_piece, false);
        call.platform_goes_on(rest, true);
        let got = call.answer();
        let header =
            |name| first(&got.headers, name).map(|value| String::from_utf8(value).unwrap());
        assert_eq!(header("content-type").unwrap(), "text/event-stream");
        assert_eq!(header("content-length"), None);
        assert_eq!(header("x-latchkey-dropped").unwrap(), "temperature");
        assert_eq!(text_of(&got.body), "Hi there", "{cut}");
        assert!(got.body.ends_with(b"data: [DONE]\n\n"));
    }
}

/// The model and the wish for a stream are in the path. Without `alt=sse` a stream is one list.
#[test]
fn a_caller_of_gemini_gets_its_own_forms_of_a_stream() {
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let path = "/v1beta/models/gpt-6.1-sol:streamGenerateContent";
    let answer = answer();
    for (query, kind) in [("?alt=sse", "text/event-stream"), ("", "application/json")] {
        for cut in 0..answer.len() {
            let mut envoy = envoy(&["acc_1"]);
            let mut call = ask_at(&format!("{path}{query}"), &mut envoy, &contents);
            call.is_at("acc_1");
            let path = call.header(":path").unwrap();
            assert_eq!(path, "/backend-api/codex/responses");
            let sent = call.sent_on();
            assert_eq!(
                (&sent["model"], &sent["stream"]),
                (&json!("gpt-6.1-sol"), &json!(true))
            );
            call.platform_begins(200, &EVENTS);
            let (first_piece, rest) = answer.as_bytes().split_at(cut);
            call.platform_goes_on(first_piece, false);
            call.platform_goes_on(rest, true);
            let got = call.answer();
            assert_eq!(
                first(&got.headers, "content-type").unwrap(),
                kind.as_bytes()
            );
            let body = String::from_utf8(got.body).unwrap();
            let list = match query {
                "" => body,
                _ => {
                    let events = body.split_terminator("\n\n");
                    let events: Vec<_> = events
                        .map(|one| one.strip_prefix("data: ").unwrap())
                        .collect();
                    format!("[{}]", events.join(","))
                }
            };
            let elements: Vec<Value> = serde_json::from_str(&list).unwrap();
            let texts = elements.iter().map(|one| {
                one["candidates"][0]["content"]["parts"][0]["text"]
                    .as_str()
                    .unwrap()
            });
            assert_eq!(texts.collect::<String>(), "Hi there", "{cut}");
            let last = elements.last().unwrap();
            assert_eq!(last["candidates"][0]["finishReason"], "STOP");
            assert_eq!(last["usageMetadata"]["totalTokenCount"], 5);
            assert_eq!(last["modelVersion"], "gpt-6.1-sol");
        }
    }
    let mut envoy = envoy(&["acc_1"]);
    let file = json!({"contents": [{"parts": [{"fileData": {"fileUri": "files/1"}}]}]});
    let mut call = ask_at(path, &mut envoy, &file);
    let refused = call.is_refused(400, "latchkey_untranslatable");
    let text = String::from_utf8(refused.body).unwrap();
    assert!(
        text.contains("contents[0].parts[0].fileData.fileUri: that file"),
        "{text}"
    );
}

/// Nobody is asked for it, so it is an estimate, and says so. It is better high than low.
#[test]
fn tokens_are_estimated_where_the_platform_counts_none() {
    let data = json!({"type": "base64", "media_type": "image/png", "data": "QUJD".repeat(9_000)});
    let messages = json!({
        "model": "gpt-6.1-sol", "system": "x".repeat(400),
        "messages": [{"role": "user", "content": [{"type": "image", "source": data}, {"type": "text", "text": "y".repeat(41)}]}],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    });
    let tool = "f".len() + "d".len() + r#"{"type":"object"}"#.len();
    let expected = (400 + 41 + tool).div_ceil(4) + 1500;
    let parts = json!([{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}, {"text": "y".repeat(40)}]);
    let contents = json!({"contents": [{"parts": parts}]});
    let within = json!({"generateContentRequest": contents});
    let google = "/v1beta/models/gpt-6.1-sol:countTokens";
    for (path, body, member, tokens) in [
        (
            "/v1/messages/count_tokens",
            &messages,
            "input_tokens",
            expected,
        ),
        (google, &contents, "totalTokens", 1510),
        (google, &within, "totalTokens", 1510),
    ] {
        let mut envoy = envoy(&["acc_1"]);
        let call = ask_at(path, &mut envoy, body);
        let got = call.answer();
        assert_eq!(got.status, 200, "{path}");
        assert_eq!(
            first(&got.headers, "x-latchkey-estimate").unwrap(),
            b"tokens"
        );
        let said: Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(said, json!({ member: tokens }), "{path}");
        drop(call);
        assert_eq!(
            envoy.records(),
            ["acc_1 200 attempts=1 - - whole tokens=null"]
        );
    }
    let mut envoy = envoy(&["acc_1"]);
    let mut call = ask_at(google, &mut envoy, &json!({"contents": [{"parts": [{}]}]}));
    call.is_refused(400, "latchkey_untranslatable");
}

#[test]
fn who_asks_for_no_stream_gets_none() {
    let answer = answer();
    for cut in 0..answer.len() {
        let mut envoy = envoy(&["acc_1"]);
        let mut call = ask(&mut envoy, &chat(false));
        assert_eq!(call.sent_on()["stream"], true);
        call.platform_begins(200, &EVENTS);
        let (first_piece, rest) = answer.as_bytes().split_at(cut);
        call.platform_goes_on(first_piece, false);
        call.platform_goes_on(rest, true);
        let got = call.answer();
        let kind = first(&got.headers, "content-type").unwrap();
        assert_eq!(kind, b"application/json");
        let body: Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], "Hi there");
        assert_eq!(body["usage"]["total_tokens"], 5);
        assert_eq!(body["object"], "chat.completion");
    }
}

#[test]
fn what_was_used_is_recorded_as_the_platform_says() {
    let mut envoy = envoy(&["acc_1"]);
    let mut call = ask(&mut envoy, &chat(false));
    call.platform(200, &EVENTS, answer().as_bytes());
    assert_eq!(
        envoy.records(),
        ["acc_1 200 attempts=1 fine - whole tokens=5"]
    );
}

#[test]
fn a_stream_that_breaks_off_is_a_failure_in_the_callers_dialect() {
    let broken = answer();
    let broken = &broken[..broken.find("event: response.completed").unwrap()];
    let mut envoy = envoy(&["acc_1"]);
    let mut call = ask(&mut envoy, &chat(true));
    call.platform(200, &EVENTS, broken.as_bytes());
    let stream = String::from_utf8(call.answer().body).unwrap();
    assert!(
        stream.contains("\"error\":{\"message\":\"the platform's stream broke off\""),
        "{stream}"
    );
    assert!(
        !stream.contains("[DONE]") && !stream.contains("\"finish_reason\":\"stop\""),
        "{stream}"
    );

    let mut call = ask(&mut envoy, &chat(false));
    call.platform(200, &EVENTS, broken.as_bytes());
    let got = call.answer();
    assert_eq!(got.status, 502);
    let body: Value = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(body["error"]["type"], "server_error");
}

#[test]
fn an_error_comes_in_the_callers_dialect_without_the_credential() {
    let mut envoy = envoy(&["acc_1"]);
    let mut call = ask(&mut envoy, &chat(true));
    let error = br#"{"detail":{"code":"bad_input","message":"no token-of-acc_1 here"}}"#;
    call.platform_begins(
        400,
        &[("content-type", "application/json"), ("x-request-id", "r")],
    );
    call.platform_goes_on(&error[..20], false);
    call.platform_goes_on(&error[20..], true);
    let expected = json!({"error": {
        "message": "no ************** here", "type": "invalid_request_error", "param": null, "code": "bad_input",
    }});
    let got = call.answer();
    assert_eq!(got.status, 400);
    assert_eq!(
        serde_json::from_slice::<Value>(&got.body).unwrap(),
        expected
    );
    assert_eq!(first(&got.headers, "x-request-id").unwrap(), b"r");
}

#[test]
fn the_next_account_gets_it_translated_anew() {
    let mut envoy = envoy(&["acc_1", "acc_2"]);
    let mut call = ask(&mut envoy, &chat(true));
    let sent = call.sent_on();
    call.platform(429, &[("retry-after", "99")], b"{}");
    call.is_at("acc_2");
    assert_eq!(call.sent_on(), sent);
    call.platform(200, &EVENTS, answer().as_bytes());
    assert_eq!(text_of(&call.answer().body), "Hi there");
}

/// The refusal is final: no other account is tried, which would cost the same again.
#[test]
fn what_cannot_be_translated_is_refused_with_its_path() {
    let mut envoy = envoy(&["acc_1", "acc_2"]);
    for (member, value, says) in [
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]),
            "messages[0].content[0].file.file_id: that file",
        ),
        (
            "messages",
            json!([{"role": "user", "content": 3}]),
            "messages[0].content: expected a string or a list, found a number",
        ),
        ("n", json!(2), "n: more than one answer"),
    ] {
        let mut body = chat(true);
        body[member] = value;
        let mut call = ask(&mut envoy, &body);
        let refused = call.is_refused(400, "latchkey_untranslatable");
        let text = String::from_utf8(refused.body).unwrap();
        assert!(text.contains(says), "{text}");
    }
    let mut call = envoy.call(&head(CHAT));
    call.sends(b"{\"model\":\"gpt-6.1-sol\", \"messages\": [", true);
    call.is_refused(400, "latchkey_untranslatable");
}

#[test]
fn an_account_that_speaks_the_callers_dialect_comes_first() {
    let codex = fixture::account("acc_1", "codex");
    let own = fixture::account("acc_2", "own");
    let mut records = records(&[codex, own]);
    let mut platform = fixture::platform("codex");
    platform.id = "own".to_owned().try_into().unwrap();
    platform.endpoints[0].dialect = serde_json::from_str("\"chat\"").unwrap();
    records.push(Record::Platform(platform));
    let mut envoy = Envoy::with(&records);
    let mut call = ask(&mut envoy, &chat(true));
    call.is_at("acc_2");
    assert_eq!(call.sent_on(), chat(true), "untouched");
    call.platform(429, &[("retry-after", "99")], b"{}");
    call.is_at("acc_1");
    assert_eq!(call.sent_on()["input"][0]["role"], "user");
    call.platform(200, &EVENTS, answer().as_bytes());
    assert_eq!(text_of(&call.answer().body), "Hi there");
}

/// Another maker's model is nothing to fail over to: the caller is told when its own is back.
#[test]
fn who_speaks_another_dialect_serves_the_models_that_it_has_alone() {
    let mut envoy = envoy(&["acc_1"]);
    let mut body = chat(true);
    body["model"] = "claude-opus-5-5".into();
    let mut call = ask(&mut envoy, &body);
    call.is_refused(404, "latchkey_model_not_served");

    let mut account = fixture::account("acc_1", "codex");
    account.models = vec!["claude-*".to_owned().try_into().unwrap()]
        .try_into()
        .unwrap();
    let mut envoy = Envoy::with_accounts(&[account]);
    let call = ask(&mut envoy, &body);
    call.is_at("acc_1");
    assert_eq!(call.sent_on()["model"], "claude-opus-5-5");
}

/// It names no model that an account of another dialect could have.
#[test]
fn a_request_without_a_body_goes_nowhere() {
    let mut envoy = envoy(&["acc_1"]);
    let mut call = envoy.call(&head(CHAT));
    call.sends(b"", true);
    call.is_refused(400, "latchkey_no_model");
}

#[test]
fn what_is_kept_of_an_answer_is_its_keys_memory() {
    let begun = event(
        &json!({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-6.1-sol"}}),
    );
    let item = event(
        &json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}),
    );
    let delta = json!({"type": "response.output_text.delta", "output_index": 0, "delta": "x".repeat(100_000)});
    let delta = event(&delta);
    let long = delta.trim_end();
    for (stream, piece) in [(false, &*delta), (true, long)] {
        let mut envoy = envoy(&["acc_1"]);
        // Seven times the piece have room.
        envoy.configure(r#"{"held_mib":2,"held_mib_per_key":1}"#);
        let mut call = ask(&mut envoy, &chat(stream));
        call.platform_begins(200, &EVENTS);
        call.platform_goes_on(format!("{begun}{item}").as_bytes(), false);
        call.platform_goes_on(
            event(&json!({"type": "response.output_text.delta", "output_index": 0, "delta": "x"}))
                .as_bytes(),
            false,
        );
        for _ in 0..20 {
            call.platform_goes_on(piece.as_bytes(), false);
        }
        let got = String::from_utf8(call.answer().body).unwrap();
        assert!(got.contains("latchkey_no_room"), "{got}");
        assert!(got.len() < 2_000, "{}", got.len());
        // It holds nothing more, and others have room.
        call.platform_goes_on(&[b'x'; 9_000], true);
        ask(&mut envoy, &chat(true)).is_at("acc_1");
    }
}

/// A platform's word about its own bytes does not hold for those that the caller gets, whatever becomes of the answer.
#[test]
fn what_holds_for_the_platforms_bytes_alone_is_not_told() {
    let of_the_bytes = [
        ("accept-ranges", "bytes"),
        ("content-digest", "sha-256=:x:"),
        ("content-encoding", "gzip"),
        ("content-length", "9"),
        ("content-md5", "x"),
        ("content-range", "bytes 0-8/9"),
        ("digest", "sha-256=x"),
        ("etag", "\"x\""),
        ("repr-digest", "sha-256=:x:"),
    ];
    let headers = [of_the_bytes.as_slice(), &EVENTS, &[("x-request-id", "r")]].concat();
    let failed = event(
        &json!({"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": {"code": "server_error", "message": "x"}}}),
    );
    let half = answer().replace("response.completed", "response.odd");
    let broken = half.clone() + &failed;
    for (status, stream, body) in [
        (200, false, answer()),
        (200, true, answer()),
        (200, false, broken),
        (200, false, half),
        (400, false, "{}".to_owned()),
    ] {
        let mut envoy = envoy(&["acc_1"]);
        let mut call = ask(&mut envoy, &chat(stream));
        call.platform(status, &headers, body.as_bytes());
        let got = call.answer();
        for (name, _) in of_the_bytes {
            assert_eq!(first(&got.headers, name), None, "{name} of {status} {body}");
        }
        assert!(first(&got.headers, "x-request-id").is_some(), "{body}");
    }
}
