//! Callers of one dialect, served by platforms that speak another.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    clients::{google_works, node, python},
    harness::{
        Caller, Stack,
        caller::chat_body,
        run,
        sim::Seen,
        stack::{ALICE, CHAT_ALONE, CODEX, GEMINI_ALONE, client_key},
    },
};

/// A pool of one platform, the model that is asked for there, and the dialects of OpenAI that are translated for it.
struct Target {
    pool: &'static str,
    model: &'static str,
    of_openai: &'static [&'static str],
}

const TARGETS: [Target; 4] = [
    Target {
        pool: "codex",
        model: "gpt-6.1-sol",
        of_openai: &["chat"],
    },
    Target {
        pool: CHAT_ALONE,
        model: "gpt-6.1-sol",
        of_openai: &["responses"],
    },
    Target {
        pool: "anthropic",
        model: "claude-opus-5-5",
        of_openai: &["chat", "responses"],
    },
    Target {
        pool: GEMINI_ALONE,
        model: "gemini-3.8-flash",
        of_openai: &["chat", "responses"],
    },
];

/// The targets but for `own`, as the clients' scripts take them.
fn but(own: &str) -> String {
    let others = TARGETS.iter().filter(|target| target.pool != own);
    let told = others.map(|target| {
        json!({"pool": target.pool, "key": client_key(target.pool), "model": target.model, "dialects": target.of_openai})
    });
    Value::from_iter(told).to_string()
}

/// Has the platforms refuse who says `please refuse this`, and end a stream after its beginning for who says `please break off`. Returns the faults.
async fn faults(stack: &Stack) -> Vec<u64> {
    let says_no = json!({
        "target": "upstream", "request_has": "please refuse this", "status": 400,
        "body": {"type": "error", "error": {"type": "invalid_request_error", "message": "the platform says no"}},
    });
    let event = |name: &str, data: Value| match name {
        "" => format!("data: {data}\n\n"),
        name => format!("event: {name}\ndata: {data}\n\n"),
    };
    let item = json!({"type": "message", "id": "msg_1", "role": "assistant", "content": []});
    let response =
        json!({"id": "resp_1", "object": "response", "status": "in_progress", "output": []});
    let message =
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []});
    let begun = [
        (ALICE, [
            event("response.created", json!({"type": "response.created", "response": response})),
            event("response.output_item.added", json!({"type": "response.output_item.added", "output_index": 0, "item": item})),
            event("response.output_text.delta", json!({"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"})),
        ].concat()),
        ("openai-key", event("", json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": null}],
        }))),
        ("anthropic-key", [
            event("message_start", json!({"type": "message_start", "message": message})),
            event("content_block_start", json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})),
            event("content_block_delta", json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}})),
        ].concat()),
        ("gemini", event("", json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hel"}]}, "index": 0}]}))),
    ];
    let mut set = vec![stack.sim.add_fault(says_no).await];
    for (account, body) in begun {
        let fault = json!({
            "target": "upstream", "request_has": "please break off", "account": account, "status": 200, "body": body,
            "headers": {"content-type": "text/event-stream"},
        });
        set.push(stack.sim.add_fault(fault).await);
    }
    set
}

/// What an SDK calls things.
struct Words {
    /// The ends of an answer, and of one that calls.
    ends: [&'static str; 2],
    /// The class of a refusal, and of a stream that breaks off: the event that says so, where the SDK raises nothing.
    refused: &'static str,
    broken: &'static str,
    /// What it has in the place of our code.
    code: Value,
}

/// Asserts what an SDK has to have got.
#[track_caller]
fn works(got: &Value, words: &Words) {
    let text = |name: &str| got[name].as_str().unwrap_or_default();
    for name in ["text", "streamed", "after", "parsed"] {
        assert!(text(name).starts_with("Hello "), "{name}: {got}");
    }
    assert_eq!(text("finish"), words.ends[0], "{got}");
    let call_finish = got["call_finish"].as_str();
    assert!(call_finish.is_none_or(|end| end == words.ends[1]), "{got}");
    let mut targets = TARGETS.iter();
    let target = targets.find(|target| target.pool == got["at"]);
    let target = target.expect("a target");
    assert_eq!(text("model"), target.model, "{got}");
    assert!(
        got["tokens"].as_u64() > Some(0) && got["streamed_tokens"] == got["tokens"],
        "{got}"
    );
    assert!(got["pieces"].as_u64() > Some(1), "it came at once: {got}");
    assert_eq!(got["call"], json!(["add", {"a": 1}]), "{got}");
    assert_eq!(got["call_in_stream"], json!({"a": 1}), "{got}");
    for (name, says) in [("refused", ""), ("wrong", "the platform says no")] {
        let error = &got[name];
        assert_eq!(
            (&error[0], &error[1]),
            (&json!(words.refused), &json!(400)),
            "{name}: {got}"
        );
        let sentence = error[3].as_str().unwrap_or_default();
        assert!(
            !sentence.is_empty() && sentence.contains(says),
            "{name}: {got}"
        );
    }
    assert_eq!(got["refused"][2], words.code, "{got}");
    assert_eq!(text("broken"), words.broken, "{got}");
}

/// Both of OpenAI's clients check the grammar of what they read, and their helpers put streams together.
#[test]
fn the_clients_of_openai_are_served_by_every_other_dialect() {
    run(async {
        let stack = Stack::shared("clients").await;
        let faults = faults(&stack).await;
        let caller = stack.caller("codex");
        let (base, targets) = (caller.url(""), but(""));
        let arguments = [&*base, &*targets];
        let (python, node) = tokio::join!(
            python("openai_translated.py", &arguments),
            node("openai_translated.mjs", &arguments)
        );
        for got in [python, node] {
            let all = got.as_array().expect("a list");
            assert_eq!(all.len(), 6, "{got}");
            for got in all {
                let is_chat = got["dialect"] == "chat";
                works(
                    got,
                    &Words {
                        ends: if is_chat {
                            ["stop", "tool_calls"]
                        } else {
                            ["completed"; 2]
                        },
                        refused: "BadRequestError",
                        broken: if is_chat {
                            "APIError"
                        } else {
                            "response.failed"
                        },
                        code: "latchkey_untranslatable".into(),
                    },
                );
                let says = got["refused"][3].as_str().unwrap_or_default();
                let member = if is_chat {
                    "messages[0].content[0].file.file_id"
                } else {
                    "previous_response_id"
                };
                assert!(says.contains(member), "{says}");
                assert!(
                    is_chat || got["note"] == json!(["note", "two\nlines"]),
                    "{got}"
                );
            }
        }
        for fault in faults {
            stack.sim.remove_fault(fault).await;
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
        said_as_the_platforms_take_it(&stack).await;
    });
}

/// Looks at what of OpenAI's clients reached the platforms that are told in ways of their own.
async fn said_as_the_platforms_take_it(stack: &Stack) {
    let seen = stack.sim.seen().await;
    let bodies: Vec<(&str, Value)> = seen
        .iter()
        .filter_map(|seen| Some((seen.path(), serde_json::from_slice(&seen.body()).ok()?)))
        .collect();
    let brief = |path: &str, says: fn(&Value) -> &Value| {
        let is_ours = |(at, body): &&(&str, Value)| *at == path && *says(body) == "be brief";
        let ours: Vec<_> = bodies
            .iter()
            .filter(is_ours)
            .map(|(_, body)| body)
            .collect();
        assert!(ours.len() >= 2, "{path}: {ours:?}");
        ours
    };
    for body in brief("/backend-api/codex/responses", |body| &body["instructions"]) {
        assert_eq!(
            (&body["stream"], &body["store"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(body["input"][0]["content"][0]["text"], "hi");
        assert_eq!(body["temperature"], Value::Null, "the platform refuses it");
    }
    for body in brief("/v1/messages", |body| &body["system"][0]["text"]) {
        assert_eq!(body["max_tokens"], 128_000);
        assert_eq!(body["cache_control"], json!({"type": "ephemeral"}));
        assert_eq!(body["temperature"], Value::Null, "the model refuses it");
    }
}

#[test]
fn the_clients_of_anthropic_are_served_by_every_other_dialect() {
    run(async {
        let stack = Stack::shared("clients").await;
        let faults = faults(&stack).await;
        let (base, targets) = (stack.caller("codex").url(""), but("anthropic"));
        let arguments = [&*base, &*targets];
        let (python, node) = tokio::join!(
            python("anthropic_translated.py", &arguments),
            node("anthropic_translated.mjs", &arguments)
        );
        for (got, broken) in [(python, "APIStatusError"), (node, "APIError")] {
            let all = got.as_array().expect("a list");
            assert_eq!(all.len(), 3, "{got}");
            for got in all {
                works(
                    got,
                    &Words {
                        ends: ["end_turn", "tool_use"],
                        refused: "BadRequestError",
                        broken,
                        code: "latchkey_untranslatable".into(),
                    },
                );
            }
        }
        for fault in faults {
            stack.sim.remove_fault(fault).await;
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

#[test]
fn the_clients_of_google_are_served_by_every_other_dialect() {
    run(async {
        let stack = Stack::shared("clients").await;
        let faults = faults(&stack).await;
        let (base, targets) = (stack.caller("codex").url(""), but(GEMINI_ALONE));
        let arguments = [&*base, &*targets];
        let (python, node) = tokio::join!(
            python("google_client.py", &arguments),
            node("google.mjs", &arguments)
        );
        for (got, refused, broken) in [
            (python, "ClientError", "ServerError"),
            (node, "ApiError", "ApiError"),
        ] {
            let all = got.as_array().expect("a list");
            assert_eq!(all.len(), 3, "{got}");
            for got in all {
                works(
                    got,
                    &Words {
                        ends: ["STOP", ""],
                        refused,
                        broken,
                        code: "INVALID_ARGUMENT".into(),
                    },
                );
                google_works(got);
            }
        }
        for fault in faults {
            stack.sim.remove_fault(fault).await;
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// What a ChatGPT login does not take of a chat is named, and what it has no answer for is not asked of it.
#[test]
fn what_is_left_out_of_a_chat_is_named() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        let mut body = chat_body(false);
        body["model"] = "gpt-6.1-sol".into();
        body["seed"] = 1.into();
        let answer = caller.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-latchkey-dropped"), Some("seed"));
        let body = json!({"model": "gpt-6.1-sol", "input": "hi"});
        let answer = caller.post("/v1/embeddings", &body).await;
        assert_eq!(
            answer.own_code(),
            Some("latchkey_path_not_in_pool"),
            "{answer:?}"
        );
    });
}

/// Whoever serves it: the answer, each event of a stream, and every refusal stand in envelopes.
#[test]
fn a_chat_in_an_envelope_is_served_by_every_dialect() {
    run(async {
        let stack = Stack::shared("clients").await;
        const PATH: &str = "/api/v1/oauth/chat/completions";
        for target in TARGETS {
            let caller = stack.caller(target.pool);
            let mut body =
                json!({"model": target.model, "messages": [{"role": "user", "content": "hi"}]});
            let answer = caller.post(PATH, &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let whole = answer.json();
            assert_eq!(
                (&whole["code"], &whole["message"]),
                (&json!(200), &json!("success"))
            );
            let text = whole["data"]["choices"][0]["message"]["content"].as_str();
            assert!(
                text.is_some_and(|text| text.starts_with("Hello ")),
                "{whole}"
            );
            body["stream"] = true.into();
            let stream = caller.post(PATH, &body).await;
            let events: Vec<&str> = stream.body.split_terminator("\n\n").collect();
            assert_eq!(events.last(), Some(&"data: [DONE]"), "{stream:?}");
            let first: Value = serde_json::from_str(&events[0]["data: ".len()..]).expect("JSON");
            assert_eq!(first["data"]["object"], "chat.completion.chunk", "{first}");
            body["account_id"] = CODEX.into();
            let refused = caller.post(PATH, &body).await;
            let error = json!("latchkey_choice_not_allowed");
            assert_eq!(
                (refused.status, &refused.json()["error"]),
                (403, &error),
                "{refused:?}"
            );
        }
        let nobody = Caller::new(stack.envoy.port, "lk_unknown");
        let refused = nobody.post(PATH, &json!({})).await;
        let told = refused.json();
        assert_eq!(
            (&told["code"], &told["data"]),
            (&json!(401), &Value::Null),
            "{refused:?}"
        );
    });
}

/// A picture of 20 MB goes through whole, in a request that is held and translated.
#[test]
fn a_long_body_is_translated_whole() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        let picture = |length| format!("data:image/png;base64,{}", "Q".repeat(length));
        let lengths = [400, 20_000_000];
        for length in lengths {
            let body = json!({"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": [
                {"type": "text", "text": "a long picture"},
                {"type": "image_url", "image_url": {"url": picture(length)}},
            ]}]});
            let answer = caller.post("/v1/chat/completions", &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let seen = stack.sim.seen().await;
        let is_ours =
            |seen: &&Seen| String::from_utf8_lossy(&seen.body()).contains("a long picture");
        let [short, long] = seen.iter().filter(is_ours).collect::<Vec<_>>()[..] else {
            panic!("not two requests");
        };
        // Those of the other one, but for the picture.
        let expected = String::from_utf8(short.body()).unwrap();
        let expected = expected.replace(&picture(lengths[0]), &picture(lengths[1]));
        let digest = format!("{:x}", Sha256::digest(&expected));
        assert_eq!(long.0["body_sha256"], *digest);
    });
}

/// A request goes from platform to platform before its first byte, translated anew for each. Its caller notices nothing.
#[test]
fn a_request_fails_over_from_dialect_to_dialect() {
    run(async {
        let stack = Stack::start("translated-failover").await;
        let caller = stack.caller("all");
        let messages = json!([{"role": "user", "content": "over to the next"}]);
        let chat = json!({"model": "claude-opus-5-5", "stream": true, "messages": messages});
        let mut message = chat.clone();
        message["model"] = "gpt-6.1-sol".into();
        message["max_tokens"] = 99.into();
        for (name, status, path, body, end, served_at) in [
            (
                "openai-key",
                503,
                "/v1/chat/completions",
                &chat,
                "data: [DONE]\n\n",
                "/v1/messages",
            ),
            (
                "anthropic-key",
                529,
                "/v1/messages",
                &message,
                "{\"type\":\"message_stop\"}\n\n",
                "/backend-api/codex/responses",
            ),
        ] {
            let fault =
                json!({"target": "upstream", "account": name, "status": status, "body": ""});
            stack.sim.add_fault(fault).await;
            let answer = caller.post(path, body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.contains("Hello"), "{answer:?}");
            assert!(answer.body.ends_with(end), "{answer:?}");
            let seen = stack.sim.seen().await;
            let is_ours =
                |seen: &&Seen| String::from_utf8_lossy(&seen.body()).contains("over to the next");
            let paths: Vec<&str> = seen.iter().filter(is_ours).map(Seen::path).collect();
            assert!(paths.contains(&path), "{paths:?}");
            assert_eq!(paths.last(), Some(&served_at), "{paths:?}");
        }
    });
}
