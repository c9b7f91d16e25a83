//! Failover from a platform of one dialect to a platform of another, for callers of every dialect: the caller notices
//! nothing.

use serde_json::{Value, json};

use super::envoy::{Call, Envoy, head, records};
use crate::{
    dialect::{Dialect, grammar},
    host::fake::first,
    snapshot::{Platform, Record, Tier, fixture},
};

/// The answers that the golden table of the pairs begins with: `Hi é😀 "there"`, and 55 tokens.
const ANSWERS: &str = include_str!("../../../tests/golden/pairs/answers/text.txt");
const TEXT: &str = "Hi \u{e9}\u{1f600} \"there\"";

/// What callers and platforms of a dialect send.
struct Speaks {
    dialect: &'static str,
    /// Where callers ask, and where the platform answers.
    asked_at: &'static str,
    answers_at: &'static str,
    /// What no other dialect's requests have.
    mark: &'static str,
    /// The beginning of an answer which is an error.
    fails: &'static str,
}

const ALL: [Speaks; 4] = [
    Speaks {
        dialect: "chat",
        asked_at: "/v1/chat/completions",
        answers_at: "/p/chat/completions",
        mark: "messages",
        fails: r#"data: {"error":{"message":"so it is","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}"#,
    },
    Speaks {
        dialect: "responses",
        asked_at: "/v1/responses",
        answers_at: "/p/responses",
        mark: "input",
        fails: concat!(
            "event: response.failed\n",
            r#"data: {"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"so it is"}}}"#
        ),
    },
    Speaks {
        dialect: "messages",
        asked_at: "/v1/messages",
        answers_at: "/p/messages",
        mark: "max_tokens",
        fails: concat!(
            "event: error\n",
            r#"data: {"type":"error","error":{"type":"overloaded_error","message":"so it is"}}"#
        ),
    },
    Speaks {
        dialect: "gemini",
        asked_at: "/v1beta/models/gpt-6.1-sol:streamGenerateContent?alt=sse",
        answers_at: "/p/models/gpt-6.1-sol:streamGenerateContent?alt=sse",
        mark: "contents",
        fails: r#"data: {"error":{"code":429,"message":"so it is","status":"RESOURCE_EXHAUSTED"}}"#,
    },
];

/// What platforms alone speak.
const ERNIE: Speaks = Speaks {
    dialect: "ernie",
    asked_at: "",
    answers_at: "/p/chat/gpt-6.1-sol",
    mark: "messages",
    fails: r#"data: {"error_code":18,"error_msg":"so it is"}"#,
};

/// What platforms speak.
fn platforms() -> impl Iterator<Item = &'static Speaks> {
    ALL.iter().chain([&ERNIE])
}

const EVENTS: [(&str, &str); 1] = [("content-type", "text/event-stream")];
const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("retry-after", "60")];

impl Speaks {
    fn platform(&self) -> Platform {
        let mut platform = fixture::platform("codex");
        platform.id = self.dialect.to_owned().try_into().unwrap();
        let endpoint = &mut platform.endpoints[0];
        let path = self.answers_at.replace("gpt-6.1-sol", "{model}");
        let path = path.trim_end_matches("?alt=sse");
        let operation = match path.contains(":stream") {
            true => "stream",
            false => "generate",
        };
        *endpoint = serde_json::from_value(json!({
            "dialect": self.dialect, "operation": operation, "path": path,
        }))
        .unwrap();
        let rule = json!({"code": ["18"], "verdict": "platform_trouble", "seconds": 5});
        platform
            .verdicts
            .push(serde_json::from_value(rule).unwrap());
        platform
    }

    fn asks(&self) -> Value {
        let user = json!({"role": "user", "content": "hi"});
        match self.dialect {
            "chat" => json!({"model": "gpt-6.1-sol", "stream": true, "messages": [user]}),
            "responses" => json!({"model": "gpt-6.1-sol", "stream": true, "input": [user]}),
            "messages" => {
                json!({"model": "gpt-6.1-sol", "stream": true, "max_tokens": 9, "messages": [user]})
            }
            _ => json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
        }
    }

    fn answer(&self) -> &'static str {
        let heading = format!("\n== {} stream\n", self.dialect);
        let (_, rest) = ANSWERS.split_once(&heading).unwrap();
        let (answer, _) = rest.split_once("\n-- ").unwrap();
        answer
    }

    /// The body of an error in its form.
    fn error(&self) -> Value {
        match self.dialect {
            "messages" => {
                json!({"type": "error", "error": {"type": "api_error", "message": "so it is"}})
            }
            "gemini" => {
                json!({"error": {"code": 500, "message": "so it is", "status": "INTERNAL"}})
            }
            "ernie" => json!({"error_code": 336_100, "error_msg": "so it is"}),
            _ => {
                json!({"error": {"message": "so it is", "type": "server_error", "param": null, "code": null}})
            }
        }
    }

    /// The members of an error of this dialect.
    fn has_error_form(&self, body: &Value) -> bool {
        let error = &body["error"];
        match self.dialect {
            "messages" => body["type"] == "error" && error["type"].is_string(),
            "gemini" => error["code"].is_u64() && error["status"].is_string(),
            _ => error["type"].is_string() && error.get("param").is_some(),
        }
    }
}

/// The text that a stream says, of whatever dialect.
fn text_of(stream: &[u8]) -> String {
    let stream = std::str::from_utf8(stream).unwrap();
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let texts = data.filter_map(|data| {
        let event: Value = serde_json::from_str(data).ok()?;
        let text = match event["type"].as_str() {
            Some("response.output_text.delta") => &event["delta"],
            Some(_) => &event["delta"]["text"],
            None if event["candidates"].is_array() => {
                &event["candidates"][0]["content"]["parts"][0]["text"]
            }
            None => &event["choices"][0]["delta"]["content"],
        };
        Some(text.as_str()?.to_owned())
    });
    texts.collect()
}

/// What becomes of the first try.
#[derive(Debug, Clone, Copy)]
enum Fails {
    Limited,
    Broken,
    HangsUp,
    Inside,
}

/// A caller's request, at an account of the first platform; one of the second is behind it.
fn begin(envoy: &mut Envoy, caller: &Speaks) -> Call {
    let mut call = envoy.call(&head(caller.asked_at));
    call.sends(caller.asks().to_string().as_bytes(), true);
    call
}

fn envoy(first: &Speaks, second: &Speaks) -> Envoy {
    let accounts = [("acc_1", first), ("acc_2", second)];
    let accounts = accounts.map(|(id, speaks)| fixture::account(id, speaks.dialect));
    let mut records = records(&accounts);
    for record in &mut records {
        if let Record::Pool(pool) = record {
            pool.members[1].tier = Tier::try_from(1).unwrap();
        }
    }
    records.extend([first, second].map(|speaks| Record::Platform(speaks.platform())));
    let mut envoy = Envoy::with(&records);
    envoy.configure(r#"{"throttle_wait_seconds":0}"#);
    envoy
}

/// The platform has what the caller asked, in its own words.
#[track_caller]
fn is_asked(call: &Call, platform: &Speaks, caller: &Speaks) {
    let path = call.header(":path").unwrap();
    assert_eq!(path, platform.answers_at);
    let sent = call.sent_on();
    if platform.dialect == caller.dialect {
        return assert_eq!(sent, caller.asks(), "untouched");
    }
    assert!(sent.get(platform.mark).is_some(), "{sent}");
    assert!(sent.to_string().contains("\"hi\""), "{sent}");
    if !platform.answers_at.contains("gpt-6.1-sol") {
        assert_eq!(sent["model"], "gpt-6.1-sol");
    }
}

#[test]
fn a_request_fails_over_from_each_dialect_to_each_other_one() {
    let mut pairs = 0;
    for caller in &ALL {
        for first_platform in platforms() {
            for second in platforms() {
                if second.dialect == first_platform.dialect {
                    continue;
                }
                pairs += 1;
                for fails in [Fails::Limited, Fails::Broken, Fails::HangsUp, Fails::Inside] {
                    let mut envoy = envoy(first_platform, second);
                    let mut call = begin(&mut envoy, caller);
                    call.is_at("acc_1");
                    is_asked(&call, first_platform, caller);
                    let error = first_platform.error().to_string();
                    match fails {
                        Fails::Limited => call.platform(429, &JSON, error.as_bytes()),
                        Fails::Broken => call.platform(503, &JSON, error.as_bytes()),
                        Fails::HangsUp => call.platform_hangs_up(),
                        Fails::Inside => {
                            let inside = format!("{}\n\n", first_platform.fails);
                            call.platform(200, &EVENTS, inside.as_bytes());
                        }
                    }
                    call.is_at("acc_2");
                    is_asked(&call, second, caller);
                    let answer = second.answer();
                    call.platform(200, &EVENTS, answer.as_bytes());
                    let got = call.answer();
                    let place = format!(
                        "{} {} {} {fails:?}",
                        caller.dialect, first_platform.dialect, second.dialect
                    );
                    let kind = first(&got.headers, "content-type").unwrap();
                    assert_eq!((got.status, &*kind), (200, &b"text/event-stream"[..]));
                    assert_eq!(text_of(&got.body), TEXT, "{place}");
                    if second.dialect == caller.dialect {
                        assert_eq!(got.body, answer.as_bytes(), "{place}");
                    }
                    drop(call);
                    let served = "acc_2 200 attempts=2 fine - whole tokens=55";
                    assert_eq!(envoy.records(), [served], "{place}");
                }
            }
        }
    }
    let platforms = Dialect::OF_PLATFORMS.len();
    assert_eq!(
        pairs,
        grammar::of_both().count() * platforms * (platforms - 1)
    );
}

/// Where the last account fails too, its error is told in the caller's form.
#[test]
fn the_last_error_is_told_in_the_callers_dialect() {
    for caller in &ALL {
        for second in platforms().filter(|second| second.dialect != caller.dialect) {
            let overloaded = if caller.dialect == "messages" {
                529
            } else {
                503
            };
            for (status, told) in [(500, 500), (503, overloaded), (529, overloaded), (422, 400)] {
                let mut envoy = envoy(caller, second);
                let mut call = begin(&mut envoy, caller);
                call.platform(429, &JSON, caller.error().to_string().as_bytes());
                call.is_at("acc_2");
                call.platform(status, &JSON[..1], second.error().to_string().as_bytes());
                let got = call.answer();
                let body: Value = serde_json::from_slice(&got.body).unwrap();
                let place = format!("{} {}: {body}", caller.dialect, second.dialect);
                assert_eq!(got.status, told, "{place}");
                assert_eq!(body["error"]["message"], "so it is", "{place}");
                assert!(caller.has_error_form(&body), "{place}");
            }
        }
    }
}

/// A platform that counts tokens is asked for the count, in its own words.
#[test]
fn tokens_are_counted_where_the_platform_counts_them() {
    const ASKED_AT: [&str; 3] = [
        "/v1/responses/input_tokens",
        "/v1/messages/count_tokens",
        "/v1beta/models/gpt-6.1-sol:countTokens",
    ];
    const COUNTS: [&str; 3] = [
        r#"{"object":"response.input_tokens","input_tokens":1234}"#,
        r#"{"input_tokens":1234}"#,
        r#"{"totalTokens":1234}"#,
    ];
    let texts = ["Be brief.", "hi"];
    for (caller, asked_at) in ALL[1..].iter().zip(ASKED_AT) {
        for (at, speaks) in ALL[1..].iter().enumerate() {
            if speaks.dialect == caller.dialect {
                continue;
            }
            let mut platform = speaks.platform();
            let mut counts = platform.endpoints[0].clone();
            counts.operation = serde_json::from_str("\"count_tokens\"").unwrap();
            counts.path = serde_json::from_str("\"/p/count/{model}\"").unwrap();
            counts.free = true;
            platform.endpoints.push(counts);
            let mut records = records(&[fixture::account("acc_1", speaks.dialect)]);
            records.push(Record::Platform(platform));
            let mut envoy = Envoy::with(&records);
            let mut body = caller.asks();
            match caller.dialect {
                "responses" => body["instructions"] = texts[0].into(),
                "messages" => body["system"] = texts[0].into(),
                _ => body["systemInstruction"] = json!({"parts": [{"text": texts[0]}]}),
            }
            let mut call = envoy.call(&head(asked_at));
            call.sends(body.to_string().as_bytes(), true);
            call.is_at("acc_1");
            let place = format!("{} {}", caller.dialect, speaks.dialect);
            assert_eq!(call.header(":path").unwrap(), "/p/count/gpt-6.1-sol");
            let sent = call.sent_on();
            let names: Vec<&str> = sent
                .as_object()
                .unwrap()
                .keys()
                .map(|name| &**name)
                .collect();
            let expected: &[&str] = match speaks.dialect {
                "responses" => &["input", "instructions", "model"],
                "messages" => &["messages", "model", "system"],
                _ => &["generateContentRequest"],
            };
            assert_eq!(names, expected, "{place}: {sent}");
            let within = &sent["generateContentRequest"]["model"];
            assert!(within.is_null() || within == "models/gpt-6.1-sol", "{sent}");
            let text = sent.to_string();
            assert!(
                texts.iter().all(|said| text.contains(said)),
                "{place}: {sent}"
            );
            call.platform(200, &JSON[..1], COUNTS[at].as_bytes());
            let got = call.answer();
            let own = ALL[1..]
                .iter()
                .position(|one| one.dialect == caller.dialect);
            let expected: Value = serde_json::from_str(COUNTS[own.unwrap()]).unwrap();
            let counted: Value = serde_json::from_slice(&got.body).unwrap();
            assert_eq!((got.status, counted), (200, expected), "{place}");
            assert_eq!(first(&got.headers, "x-latchkey-estimate"), None);
            drop(call);
            assert_eq!(
                envoy.records(),
                ["acc_1 200 attempts=1 fine - whole tokens=null"]
            );
            for (status, answer) in [(200, "{}".to_owned()), (500, speaks.error().to_string())] {
                let mut call = envoy.call(&head(asked_at));
                call.sends(body.to_string().as_bytes(), true);
                call.platform(status, &JSON[..1], answer.as_bytes());
                let got = call.answer();
                let body: Value = serde_json::from_slice(&got.body).unwrap();
                assert!(
                    got.status >= 500 && caller.has_error_form(&body),
                    "{place}: {body}"
                );
            }
        }
    }
}

/// A stream of responses repeats itself at its end: what is kept for that is its key's memory.
#[test]
fn what_a_stream_of_responses_keeps_is_its_keys_memory() {
    let (platform, caller) = (&ALL[0], &ALL[1]);
    let mut envoy = envoy(platform, &ALL[2]);
    envoy.configure(r#"{"held_mib":2,"held_mib_per_key":1}"#);
    let mut call = begin(&mut envoy, caller);
    call.platform_begins(200, &EVENTS);
    let delta = json!({"content": "x".repeat(100_000)});
    let chunk = json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]});
    for _ in 0..20 {
        call.platform_goes_on(format!("data: {chunk}\n\n").as_bytes(), false);
    }
    let got = String::from_utf8(call.answer().body).unwrap();
    assert!(got.contains("response.failed") && got.contains("latchkey_no_room"));
    let pieces = got.matches("response.output_text.delta\"").count();
    assert!((2..11).contains(&pieces), "{pieces}");
    // It keeps nothing more, and others have room.
    call.platform_goes_on(b"data: x\n\n", true);
    begin(&mut envoy, caller).is_at("acc_1");
}
