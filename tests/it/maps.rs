//! Models that others serve, and what an operator demands of requests: from the command line to the platform and back.

use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack,
    caller::{chat_body, messages_body},
    eventually, holds,
    http2::Http2,
    run, stack,
};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn what_the_operator_says_of_models_goes_out_and_the_answer_names_what_was_asked_for() {
    run(async {
        let stack = Stack::real("maps", async |sim, refresher| {
            sim.add_api_key("openai", "sk-maps", "team").await;
            refresher.add_api_key("team", "openai", "sk-maps").await;
        })
        .await;
        for command in [
            &["accounts", "set", "team", "--maps", "gpt-5.6=east-7"][..],
            &["pools", "set", "default", "--maps", "claude-*=gpt-5.6@high"],
        ] {
            stack.refresher.run(command, "").await;
        }
        let create = ["keys", "create", "mapped", "--maps", "smart=claude-x"];
        let demands = ["--max-effort", "medium", "--service-tier", "flex"];
        let create = [&create[..], &demands].concat();
        let key = stack.refresher.run(&create, "").await;
        let caller = Caller::new(stack.envoy.port, key.trim());
        eventually("the key is taken", stack::SYNC_LIMIT, async || {
            let answer = caller.get("/v1/models/smart").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        for streamed in [false, true] {
            let mut body = chat_body(streamed);
            body["model"] = "smart".into();
            body["reasoning_effort"] = "low".into();
            let answer = caller.post(CHAT, &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.contains(r#""smart""#), "{answer:?}");
            assert!(!answer.body.contains("east-7"), "{answer:?}");
            let seen = stack.sim.seen().await;
            let sent: Value =
                serde_json::from_slice(&seen.last().expect("a request").body()).expect("JSON");
            assert_eq!(sent["model"], "east-7");
            assert_eq!(sent["reasoning_effort"], "medium", "the map's, bounded");
            assert_eq!(sent["service_tier"], "flex");
            assert_eq!(sent["messages"], body["messages"]);
        }
        let mut message = messages_body(false);
        message["model"] = "smart".into();
        // It begins with an empty piece, and ends with trailers.
        let mut chat = chat_body(false);
        chat["model"] = "smart".into();
        let bearer = format!("Bearer {}", key.trim());
        let connection = Http2::connect(stack.envoy.port).await;
        for (path, body) in [(CHAT, &chat), ("/v1/messages", &message)] {
            let text = body.to_string();
            let length = text.len().to_string();
            let (first, second) = text.split_at(20);
            for length in [None, Some(length.as_str())] {
                let mut headers = vec![
                    ("authorization", bearer.as_str()),
                    ("content-type", "application/json"),
                ];
                headers.extend(length.map(|length| ("content-length", length)));
                let pieces = ["", first, second];
                let trailers = Some(("x-sum", "1"));
                let (status, answer) = connection.post(path, &headers, &pieces, trailers).await;
                assert_eq!(status, 200, "{path}: {answer}");
                let seen = stack.sim.seen().await;
                let sent = seen.last().expect("a request").body();
                let sent: Value = serde_json::from_slice(&sent).expect("JSON");
                assert_eq!(sent["model"], "east-7", "{path}: {sent}");
                assert_eq!(sent["service_tier"], "flex", "{path}: {sent}");
                // Translated, it is for the platform's richest dialect.
                let effort = match path {
                    CHAT => &sent["reasoning_effort"],
                    _ => &sent["reasoning"]["effort"],
                };
                assert_eq!(effort, "medium", "{path}: {sent}");
            }
        }
        let answer = caller.post("/v1/messages", &message).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["model"], json!("smart"));
        let off = ["keys", "set", "mapped", "--translation", "off"];
        stack.refresher.run(&off, "").await;
        eventually("nothing is translated", stack::SYNC_LIMIT, async || {
            let answer = caller.post("/v1/messages", &message).await;
            let is_refused = answer.own_code() == Some("latchkey_path_not_in_pool");
            holds(is_refused, || format!("{answer:?}"))
        })
        .await;
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// A platform that serves another model than it was asked for, in silence: nobody gets that answer, and its account stays
/// in use.
#[test]
fn an_exact_model_serves_itself_or_another_account_does_or_nobody() {
    run(async {
        let stack = Stack::real("exact", async |sim, refresher| {
            for name in ["honest", "other"] {
                let secret = format!("sk-{name}");
                sim.add_api_key("openai", &secret, name).await;
                refresher.add_api_key(name, "openai", &secret).await;
            }
        })
        .await;
        let create = ["keys", "create", "exact", "--exact-model", "on"];
        let key = stack.refresher.run(&create, "").await;
        let caller = Caller::new(stack.envoy.port, key.trim());
        eventually("the key is taken", stack::SYNC_LIMIT, async || {
            let answer = caller.get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        let whole = json!({
            "id": "x", "object": "chat.completion", "created": 1, "choices": [{
                "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "cheap words"},
            }], "model": "gpt-5.6-mini",
        });
        let chunk = json!({
            "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5.6-mini",
            "choices": [{"index": 0, "delta": {"content": "cheap words"}}],
        });
        let stream = format!("data: {chunk}\n\ndata: [DONE]\n\n");
        let fault = |account: &str, streamed: bool| {
            let (kind, body) = match streamed {
                false => ("application/json", whole.to_string()),
                true => ("text/event-stream", stream.clone()),
            };
            json!({
                "target": "upstream", "account": account, "path": CHAT, "status": 200,
                "headers": {"content-type": kind}, "body": body, "piece_bytes": 40, "piece_delay_ms": 5,
            })
        };
        for streamed in [false, true] {
            let other = stack.sim.add_fault(fault("other", streamed)).await;
            let asked = async || {
                let seen = stack.sim.seen().await;
                seen.iter().filter(|one| one.path() == CHAT).count()
            };
            let before = asked().await;
            for session in 0..20 {
                let mut body = chat_body(streamed);
                body["prompt_cache_key"] = format!("{streamed}-{session}").into();
                let answer = caller.post(CHAT, &body).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(answer.body.contains(r#""gpt-5.6""#), "{answer:?}");
                assert!(!answer.body.contains("cheap"), "{answer:?}");
            }
            // It is asked the second time too: nothing was held against it.
            let asked = asked().await - before;
            assert!(asked > 20, "{asked}");
            let honest = stack.sim.add_fault(fault("honest", streamed)).await;
            let answer = caller.post(CHAT, &chat_body(streamed)).await;
            assert_eq!(answer.status, 502, "{answer:?}");
            assert_eq!(answer.own_code(), Some("latchkey_another_model"));
            let message = &answer.json()["error"]["message"];
            let message = message.as_str().expect("a message");
            assert!(
                message.contains(r#""gpt-5.6-mini""#) && message.contains(r#""gpt-5.6""#),
                "{message}"
            );
            for id in [other, honest] {
                stack.sim.remove_fault(id).await;
            }
        }
        let answer = caller.post(CHAT, &chat_body(false)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // Google's answers name it behind all that they have made.
        let mut large = whole.clone();
        large["choices"][0]["message"]["content"] = "x".repeat(3 * 512 * 1024).into();
        for (model, status) in [("gpt-5.6", 200), ("gpt-5.6-mini", 502)] {
            large["model"] = model.into();
            let body = large.to_string();
            let fault = json!({
                "target": "upstream", "path": CHAT, "status": 200,
                "headers": {"content-type": "application/json"}, "body": body,
            });
            let fault = stack.sim.add_fault(fault).await;
            let answer = caller.post(CHAT, &chat_body(false)).await;
            assert_eq!(answer.status, status, "{:.300}", answer.body);
            let is_whole = answer.body == body;
            assert_eq!(is_whole, status == 200, "{:.300}", answer.body);
            stack.sim.remove_fault(fault).await;
        }
    });
}
