use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    Answer, Caller, Stack,
    caller::{chat_body, messages_body, responses_body},
    eventually, holds, raw, records, run,
    stack::{ANTHROPIC, CODEX, OPENAI, SYNC_LIMIT, client_key},
};

/// A second account with a key of the OpenAI API.
const SPARE: &str = "acc_spare";

/// An account whose key the platform refuses.
const REFUSED: &str = "acc_refused";

/// The stack that these tests share.
async fn stack() -> std::sync::Arc<Stack> {
    Stack::shared("callers").await
}

#[test]
fn each_dialect_is_served_whole_and_as_a_stream() {
    run(async {
        let stack = stack().await;
        let json_responses = json!({"model": "gpt-5.6", "input": "hi"});
        for (pool, path, body, kind, part) in [
            (
                "openai",
                "/v1/responses",
                json_responses,
                "application/json",
                "\"output\"",
            ),
            (
                "openai",
                "/v1/chat/completions",
                chat_body(false),
                "application/json",
                "\"choices\"",
            ),
            (
                "openai",
                "/v1/chat/completions",
                chat_body(true),
                "text/event-stream",
                "data: [DONE]",
            ),
            (
                "anthropic",
                "/v1/messages",
                messages_body(false),
                "application/json",
                "\"end_turn\"",
            ),
            (
                "anthropic",
                "/v1/messages",
                messages_body(true),
                "text/event-stream",
                "event: message_stop",
            ),
            (
                "codex",
                "/v1/responses",
                responses_body(),
                "text/event-stream",
                "event: response.completed",
            ),
            (
                "codex",
                "/backend-api/codex/responses",
                responses_body(),
                "text/event-stream",
                "response.completed",
            ),
        ] {
            let answer = stack.caller(pool).post(path, &body).await;
            assert_eq!(answer.status, 200, "{pool} {path}: {answer:?}");
            let found = answer.header("content-type").unwrap_or_default();
            assert!(found.starts_with(kind), "{pool} {path}: {found}");
            assert!(answer.body.contains(part), "{pool} {path}: {answer:?}");
        }
    });
}

#[test]
fn a_stream_arrives_event_by_event() {
    const PAUSE: Duration = Duration::from_millis(100);
    run(async {
        let stack = stack().await;
        let pause = json!({"event_delay_ms": 100});
        stack.sim.ask(Method::POST, "/settings", pause).await;
        let caller = stack.caller("openai");
        let bearer = format!("Bearer {}", caller.key());
        let request = reqwest::Client::new()
            .post(caller.url("/v1/chat/completions"))
            .header("authorization", bearer)
            .json(&chat_body(true));
        let mut answer = request.send().await.expect("an answer");
        let mut times = Vec::new();
        while let Some(_event) = answer.chunk().await.expect("a whole stream") {
            times.push(Instant::now());
        }
        let no_pause = json!({"event_delay_ms": 0});
        stack.sim.ask(Method::POST, "/settings", no_pause).await;
        assert!(times.len() > 4, "{} chunks", times.len());
        let spread = times[times.len() - 1] - times[0];
        assert!(spread > PAUSE * 3, "the stream came within {spread:?}");
    });
}

/// Silence ends an answer, and nothing else does: one that moves takes as long as it takes.
#[test]
fn a_long_answer_comes_whole_and_silence_ends_one() {
    const SILENCE: Duration = Duration::from_secs(4);
    run(async {
        let short = |text: &str| {
            assert!(text.contains("idle_timeout: 3600s"), "the shipped figure");
            text.replace("idle_timeout: 3600s", "idle_timeout: 4s")
        };
        let stack = Stack::edited("callers-long", short).await;
        let caller = stack.caller("openai");
        let settings = async |event_delay_ms: u64| {
            let pause = json!({"event_delay_ms": event_delay_ms});
            stack.sim.ask(Method::POST, "/settings", pause).await;
        };
        settings(1_200).await;
        let began = Instant::now();
        let path = "/v1/chat/completions";
        let answer = caller.post(path, &chat_body(true)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("[DONE]"), "{answer:?}");
        assert!(began.elapsed() > SILENCE, "{:?}", began.elapsed());
        // Whoever sent it may send it again, and pay for both: nothing tells its client to.
        settings(0).await;
        let silence = json!({"target": "upstream", "path": path, "times": 1, "delay_ms": 60_000});
        stack.sim.add_fault(silence).await;
        let answer = caller.post(path, &chat_body(false)).await;
        assert!(answer.status >= 500, "{answer:?}");
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), None, "{answer:?}");
    });
}

/// A page may call once its origin is named, and the shipped configuration names none.
#[test]
fn a_browsers_page_may_call_where_the_policys_marks_are_off() {
    run(async {
        let marks_off = |text: &str| {
            let at = text.find("# typed_per_filter_config:").expect("the policy");
            let (before, policy) = text.split_at(at);
            let lines = policy.split_inclusive('\n').enumerate();
            let off = lines.map(|(number, line)| match number {
                0..6 => line.replacen("# ", "", 1),
                _ => line.to_owned(),
            });
            before.to_owned() + &off.collect::<String>()
        };
        let open = Stack::edited("callers-pages", marks_off).await;
        let closed = stack().await;
        let origin = "https://app.example.com";
        let asks = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization"),
        ];
        let allowed = "access-control-allow-origin";
        for (port, expected) in [(open.envoy.port, Some(origin)), (closed.envoy.port, None)] {
            let caller = Caller::new(port, &client_key("openai"));
            let path = "/v1/chat/completions";
            let answer = caller.send("OPTIONS", path, &asks, String::new()).await;
            assert_eq!(answer.header(allowed), expected, "{answer:?}");
            let bearer = format!("Bearer {}", caller.key());
            let headers = [
                ("origin", origin),
                ("authorization", bearer.as_str()),
                ("content-type", "application/json"),
            ];
            let body = chat_body(false).to_string();
            let answer = caller.send("POST", path, &headers, body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header(allowed), expected, "{answer:?}");
        }
    });
}

#[test]
fn a_large_body_arrives_whole() {
    run(async {
        let stack = stack().await;
        let body = json!({"model": "gpt-5.6", "input": "x".repeat(20 * 1024 * 1024)}).to_string();
        let caller = stack.caller("openai");
        let path = "/v1/responses?large";
        let headers = [
            ("x-api-key", caller.key()),
            ("content-type", "application/json"),
        ];
        let answer = caller.send("POST", path, &headers, body.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = stack.sim.seen_once(path).await;
        let sum: String = Sha256::digest(&body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(seen.0["body_sha256"], sum);
    });
}

#[test]
fn each_client_reads_its_own_list_of_models() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("all");
        let openai = caller.get("/v1/models").await.json();
        assert_eq!(openai["object"], "list");
        let ids = |list: &Value| -> Vec<String> {
            let models = list["data"].as_array().expect("a list");
            models
                .iter()
                .map(|model| model["id"].as_str().expect("an id").to_owned())
                .collect()
        };
        for model in ["gpt-6.1-sol", "gpt-5.6", "claude-opus-5-5"] {
            assert!(ids(&openai).contains(&model.to_owned()), "{model}");
        }
        let headers = [
            ("x-api-key", caller.key()),
            ("anthropic-version", "2023-06-01"),
        ];
        let anthropic = caller.send("GET", "/v1/models", &headers, "").await.json();
        assert_eq!(anthropic["has_more"], false);
        assert_eq!(ids(&anthropic), ids(&openai));
        let codex = caller
            .get("/backend-api/codex/models?client_version=0.169.0")
            .await;
        assert_eq!(codex.json(), json!({"models": []}));

        let only_anthropic = stack.caller("anthropic").get("/v1/models").await.json();
        let ids = ids(&only_anthropic);
        assert!(
            !ids.is_empty() && ids.iter().all(|id| id.starts_with("claude-")),
            "{ids:?}"
        );
    });
}

#[test]
fn a_key_is_taken_from_each_known_place() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let key = caller.key();
        for (name, value) in [
            ("authorization", format!("Bearer {key}")),
            ("authorization", format!("bearer  {key}")),
            ("x-api-key", key.to_owned()),
            ("x-goog-api-key", key.to_owned()),
        ] {
            let headers = [(name, value.as_str()), ("content-type", "application/json")];
            let body = chat_body(false).to_string();
            let answer = caller
                .send("POST", "/v1/chat/completions", &headers, body)
                .await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
        }
    });
}

/// A refusal of the gateway: how to get it, and what it must be.
struct Refused<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    status: u16,
    code: &'a str,
    retry_after: Option<&'a str>,
}

#[test]
fn each_refusal_is_in_the_callers_dialect() {
    run(async {
        let stack = stack().await;
        publish_what_cannot_serve(&stack).await;
        let [good, poolless, expired, empty] =
            ["all", "poolless", "expired", "empty"].map(client_key);
        let bearer = format!("Bearer {good}");
        let key = |key| vec![("x-api-key", key)];
        // At the same time: the last of each waits for a credential that does not come.
        let paths = ["/v1/chat/completions", "/v1/messages", "/v1/responses"];
        let of_path = async |path| {
            for (method, headers, status, code, retry_after) in [
                ("POST", vec![], 401, "latchkey_no_key", None),
                ("POST", key(""), 401, "latchkey_no_key", None),
                ("POST", key("lk_unknown"), 401, "latchkey_unknown_key", None),
                (
                    "POST",
                    vec![("authorization", "Basic YTpi")],
                    401,
                    "latchkey_no_key",
                    None,
                ),
                (
                    "POST",
                    vec![("authorization", &bearer), ("x-api-key", &poolless)],
                    400,
                    "latchkey_ambiguous_key",
                    None,
                ),
                ("PUT", key(&good), 405, "latchkey_method_not_allowed", None),
                ("POST", key(&poolless), 503, "latchkey_no_pool", None),
                ("POST", key(&empty), 503, "latchkey_no_account", None),
                ("POST", key(&expired), 503, "latchkey_all_out", Some("5")),
            ] {
                is_refused(
                    &stack,
                    &Refused {
                        method,
                        path,
                        headers,
                        status,
                        code,
                        retry_after,
                    },
                )
                .await;
            }
        };
        join_all(paths.map(of_path)).await;
        for path in ["/nothing", "/v1/nothing", "/v1/messages/nothing"] {
            let (method, headers, status, code) =
                ("POST", key(&good), 404, "latchkey_unknown_path");
            is_refused(
                &stack,
                &Refused {
                    method,
                    path,
                    headers,
                    status,
                    code,
                    retry_after: None,
                },
            )
            .await;
        }
    });
}

/// Client keys whose pool is gone, is empty, or has only accounts that are past their expiry.
async fn publish_what_cannot_serve(stack: &Stack) {
    let authority = stack.sim.authority();
    let expired = json!({"credential_expires_at": 1_000});
    let revision = stack.refresher.publish([
        records::key("key_poolless", &client_key("poolless"), "nowhere"),
        records::account(
            "acc_expired",
            "openai",
            authority,
            "sk-old",
            expired.clone(),
        ),
        records::account("acc_expired_2", "anthropic", authority, "sk-old", expired),
        records::pool("expired", "sticky", &["acc_expired", "acc_expired_2"]),
        records::key("key_expired", &client_key("expired"), "expired"),
        records::pool("empty", "sticky", &[]),
        records::key("key_empty", &client_key("empty"), "empty"),
    ]);
    stack.reaches(revision).await;
}

async fn is_refused(stack: &Stack, refused: &Refused<'_>) {
    /// Told from what other tests send at the same time.
    const BODY: &str = r#"{"refused": true}"#;
    let caller = stack.caller("all");
    let answer = caller
        .send(refused.method, refused.path, &refused.headers, BODY)
        .await;
    let case = format!(
        "{} {} {}: {answer:?}",
        refused.method, refused.path, refused.code
    );
    assert_eq!(answer.status, refused.status, "{case}");
    assert_eq!(answer.own_code(), Some(refused.code), "{case}");
    assert_eq!(answer.header("retry-after"), refused.retry_after, "{case}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{case}"
    );
    is_error_of_dialect(refused.path, &answer);
    let seen = stack.sim.seen().await;
    let sent_on = seen.iter().any(|seen| seen.body() == BODY.as_bytes());
    assert!(!sent_on, "the platform got it: {case}");
}

fn is_error_of_dialect(path: &str, answer: &Answer) {
    let body = answer.json();
    let error = &body["error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.len() > 10),
        "{body}"
    );
    assert_eq!(error["code"].as_str(), answer.own_code(), "{body}");
    assert!(error["type"].is_string(), "{body}");
    if path.starts_with("/v1/messages") {
        assert_eq!(body["type"], "error", "{body}");
    } else {
        assert!(error.get("param").is_some_and(Value::is_null), "{body}");
    }
}

#[test]
fn a_websocket_is_told_to_use_http() {
    run(async {
        let stack = stack().await;
        let request = format!(
            "GET /v1/responses HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            client_key("codex")
        );
        let answer = raw::exchange(stack.envoy.port, request.as_bytes(), 1).await;
        assert_eq!(raw::status(&answer), 426, "{answer}");
        assert!(answer.contains("latchkey_no_upgrade"), "{answer}");
    });
}

/// nginx speaks HTTP/1.0 to what is behind it, and may send no host; Java's clients offer TLS.
#[test]
fn old_http_is_understood_and_an_offer_of_tls_declined() {
    run(async {
        let stack = stack().await;
        let body = chat_body(false).to_string();
        let rest = format!(
            "authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            client_key("openai"),
            body.len()
        );
        for head in [
            "HTTP/1.0\r\n",
            "HTTP/1.0\r\nhost: gateway\r\nconnection: close\r\n",
            "HTTP/1.1\r\nhost: gateway\r\nconnection: Upgrade\r\nupgrade: TLS/1.2\r\n",
        ] {
            let request = format!("POST /v1/chat/completions {head}{rest}");
            let answer = raw::exchange(stack.envoy.port, request.as_bytes(), 1).await;
            assert_eq!(raw::status(&answer), 200, "{head}: {answer}");
            assert!(answer.contains("Hello from"), "{head}: {answer}");
        }
    });
}

/// What clients and people probe with, and what they make of a base URL.
#[test]
fn base_urls_and_probes_are_understood() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        for path in [
            "/chat/completions",
            "/v1/chat/completions/",
            "/v1/v1/chat/completions",
            "/openai/v1/chat/completions",
        ] {
            let answer = caller.post(path, &chat_body(false)).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
        let answer = caller
            .post("/team/v1/chat/completions", &chat_body(false))
            .await;
        assert_eq!(
            answer.own_code(),
            Some("latchkey_unknown_path"),
            "{answer:?}"
        );
        let told = format!("{} in place of {}", caller.url(""), caller.url("/team"));
        assert!(answer.body.contains(&told), "{told}: {answer:?}");
        for path in ["/", "/health", "/ready", "/api/hello"] {
            for method in ["GET", "HEAD"] {
                let answer = caller.send(method, path, &[], "").await;
                assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
                assert_eq!(answer.own_code(), None, "{method} {path}: {answer:?}");
            }
        }
        let answer = caller
            .send("OPTIONS", "/v1/chat/completions", &[], "")
            .await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"), "{answer:?}");
    });
}

/// Clients and monitors ask such things before they have a key, again and again: a log in which that is an error is one
/// that nobody reads.
#[test]
fn probes_without_a_key_leave_no_error_in_the_logs() {
    const PROBES: [(&str, &str, u16); 12] = [
        ("HEAD", "/", 200),
        ("GET", "/", 200),
        ("HEAD", "/api/hello", 200),
        ("GET", "/health", 200),
        ("GET", "/healthz", 200),
        ("GET", "/ready", 200),
        ("HEAD", "/v1/models", 401),
        ("GET", "/v1/models", 401),
        ("GET", "/v1beta/models", 401),
        ("OPTIONS", "/v1/models", 204),
        ("OPTIONS", "/v1/chat/completions", 204),
        ("OPTIONS", "/v1/messages", 204),
    ];
    run(async {
        let stack = Stack::alice("callers-probes", Duration::from_secs(600)).await;
        let keyed = stack.caller("caller").await;
        let logs = ["envoy.log", "refresher.log"].map(|name| stack.folder.join(name));
        let read = |at: usize| std::fs::read_to_string(&logs[at]).expect("a log");
        let before = [read(0).len(), read(1).len()];
        let caller = Caller::new(stack.envoy.port, "");
        for (method, path, status) in PROBES {
            let answer = caller.send(method, path, &[], "").await;
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        }
        // What the refresher is told of them, and Envoy's log, come within seconds.
        assert_eq!(keyed.get("/v1/models/last").await.status, 404);
        eventually("the access log", Duration::from_secs(40), async || {
            let log = read(0);
            holds(log.contains("/v1/models/last"), || log)
        })
        .await;
        let [envoy, refresher] = [0, 1].map(|at| read(at).split_off(before[at]));
        let loud = ["][warning]", "][error]", "][critical]", " WARN ", "ERROR "];
        for line in envoy.lines().chain(refresher.lines()) {
            assert!(!loud.iter().any(|word| line.contains(word)), "{line}");
        }
        // Only who asks for what takes a key is refused.
        let lines: Vec<Value> = envoy
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        for (method, path, status) in PROBES {
            let is_it = |line: &&Value| line["method"] == method && line["path"] == path;
            let found = lines.iter().filter(is_it).any(|line| {
                let refused = (status == 401).then_some("latchkey_no_key");
                line["status"] == status && line["refused"].as_str() == refused
            });
            assert!(found, "{method} {path}: {envoy}");
        }
    });
}

#[test]
fn the_platform_sees_our_credential_and_nothing_of_the_caller() {
    run(async {
        let stack = stack().await;
        let cases = [
            (
                "codex",
                "/v1/responses",
                "/backend-api/codex/responses",
                responses_body(),
            ),
            (
                "openai",
                "/v1/chat/completions",
                "/v1/chat/completions",
                chat_body(false),
            ),
            (
                "anthropic",
                "/v1/messages",
                "/v1/messages",
                messages_body(false),
            ),
        ];
        for (pool, path, upstream, body) in cases {
            let caller = stack.caller(pool);
            let query = "?beta=true&case=nothing-of-the-caller";
            let headers = [
                ("x-api-key", caller.key()),
                ("content-type", "application/json"),
                ("accept", "*/*"),
                ("accept-encoding", "gzip, br, zstd"),
                ("user-agent", "test/1"),
                ("cookie", "session=1"),
                ("referer", "https://intranet.example/"),
                ("x-forwarded-for", "10.1.2.3"),
                ("forwarded", "for=10.1.2.3"),
                ("x-real-ip", "10.1.2.3"),
                ("via", "1.1 corporate"),
                ("x-request-id", "0af7651916cd43dd8448eb211c80319c"),
                (
                    "traceparent",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ),
                ("x-team", "blue"),
            ];
            let body = body.to_string();
            let answer = caller
                .send("POST", &format!("{path}{query}"), &headers, body.clone())
                .await;
            assert_eq!(answer.status, 200, "{pool}: {answer:?}");

            let seen = stack.sim.seen_once(&format!("{upstream}{query}")).await;
            let mut expected = vec![
                "accept",
                "accept-encoding",
                "content-length",
                "content-type",
                "host",
                "user-agent",
            ];
            expected.extend(match pool {
                "codex" => &["authorization", "chatgpt-account-id"][..],
                "openai" => &["authorization"],
                _ => &["anthropic-version", "x-api-key"],
            });
            let mut names = seen.header_names();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected, "{pool}");
            assert_eq!(seen.authority(), stack.sim.authority(), "{pool}");
            assert_eq!(seen.header("accept-encoding"), ["identity"], "{pool}");
            assert_eq!(seen.body(), body.into_bytes(), "{pool}");
            let account = match pool {
                "codex" => "alice@example.com",
                "openai" => "openai-key",
                _ => "anthropic-key",
            };
            assert_eq!(seen.account(), Some(account), "{pool}");
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

#[test]
fn a_platforms_error_reaches_the_caller_as_it_is() {
    run(async {
        let stack = Stack::start("callers-error").await;
        let path = "/v1/embeddings";
        let fault = json!({
            "target": "upstream", "path": path, "times": 1, "fixture": "openai/rate_limit_exceeded.json",
            "headers": {"retry-after": "70", "x-ratelimit-limit-requests": "60"},
        });
        stack.sim.add_fault(fault).await;
        let answer = stack
            .caller("openai")
            .post(
                path,
                &json!({"model": "text-embedding-3-small", "input": "a"}),
            )
            .await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.own_code(), None, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("70"));
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("60"));
        assert_eq!(
            answer.json()["error"]["code"],
            "rate_limit_exceeded",
            "{answer:?}"
        );
    });
}

/// A key that the platform does not take is of no use, and that is no word about the caller's own.
#[test]
fn a_refused_key_is_not_tried_again() {
    run(async {
        let stack = Stack::start("callers-refused").await;
        let authority = stack.sim.authority();
        let may_choose = json!({"may_choose": {"account": true}});
        let revision = stack.refresher.publish([
            records::account(REFUSED, "anthropic", authority, "sk-refused", json!({})),
            records::pool("refused", "sticky", &[REFUSED]),
            records::key("key_refused", &client_key("refused"), "refused"),
            records::pool("mixed", "sticky", &[REFUSED, OPENAI]),
            records::key("key_mixed", &client_key("mixed"), "mixed"),
            records::key_with("key_chooses", &client_key("chooses"), "mixed", may_choose),
        ]);
        stack
            .have_clusters(&[CODEX, OPENAI, ANTHROPIC, REFUSED])
            .await;
        stack.reaches(revision).await;
        let caller = stack.caller("refused");
        let answer = caller.post("/v1/messages", &messages_body(false)).await;
        assert_eq!(
            (answer.status, answer.own_code()),
            (503, Some("latchkey_no_account")),
            "{answer:?}"
        );
        let no_account = |answer: &Answer| {
            let found = (answer.status, answer.own_code());
            assert_eq!(found, (503, Some("latchkey_no_account")), "{answer:?}");
        };
        let answer = caller.post("/v1/messages", &messages_body(false)).await;
        no_account(&answer);
        assert!(
            answer.body.contains("acc_refused (invalid_api_key)"),
            "{answer:?}"
        );
        stack.sim.seen_once("/v1/messages").await;

        // Once it is dead the snapshot has it no more, and what it served nobody serves.
        let revision = stack
            .refresher
            .publish([records::removed("account", REFUSED)]);
        stack.reaches(revision).await;
        for name in ["refused", "mixed"] {
            let caller = stack.caller(name);
            no_account(&caller.post("/v1/messages", &messages_body(false)).await);
        }
        let chooses = stack.caller("chooses");
        let wish = async |name: &str| {
            let headers = [("x-api-key", chooses.key()), ("x-latchkey-account", name)];
            let body = messages_body(false).to_string();
            chooses.send("POST", "/v1/messages", &headers, body).await
        };
        no_account(&wish(REFUSED).await);
        let answer = wish(OPENAI).await;
        let found = (answer.status, answer.own_code());
        assert_eq!(
            found,
            (404, Some("latchkey_model_not_served")),
            "{answer:?}"
        );
        assert!(answer.body.contains(OPENAI), "{answer:?}");
    });
}

#[test]
fn a_session_stays_on_one_account_and_sessions_spread() {
    run(async {
        let stack = stack().await;
        let authority = stack.sim.authority();
        stack
            .sim
            .add_api_key("openai", "sk-spare", "spare-key")
            .await;
        stack
            .have_clusters(&[CODEX, OPENAI, ANTHROPIC, SPARE, REFUSED])
            .await;
        let revision = stack.refresher.publish([
            records::account(SPARE, "openai", authority, "sk-spare", json!({})),
            records::pool("pair", "sticky", &[OPENAI, SPARE]),
            records::key("key_pair", &client_key("pair"), "pair"),
        ]);
        stack.reaches(revision).await;
        let caller = stack.caller("pair");
        let bearer = format!("Bearer {}", caller.key());
        for round in 0..3 {
            for session in 0..16 {
                let path = format!("/v1/chat/completions?session={session}&round={round}");
                let id = format!("session-{session}");
                let headers = [
                    ("authorization", bearer.as_str()),
                    ("content-type", "application/json"),
                    ("session-id", &id),
                ];
                let answer = caller
                    .send("POST", &path, &headers, chat_body(false).to_string())
                    .await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
        let seen = stack.sim.seen().await;
        let account = |session: u32, round: u32| {
            let path = format!("/v1/chat/completions?session={session}&round={round}");
            let seen = seen.iter().find(|seen| seen.path() == path).expect("seen");
            seen.account().expect("an account").to_owned()
        };
        let of_spare = (0..16)
            .filter(|session| account(*session, 0) == "spare-key")
            .count();
        assert!(
            (1..16).contains(&of_spare),
            "{of_spare} of 16 sessions on the spare account"
        );
        for session in 0..16 {
            assert_eq!(
                account(session, 0),
                account(session, 1),
                "session {session}"
            );
            assert_eq!(
                account(session, 0),
                account(session, 2),
                "session {session}"
            );
        }
    });
}

/// A form with a model and a file, as the SDKs send it: the file is no text.
fn form(model: &str, file: &str) -> Vec<u8> {
    let mut form = format!(
        "--a-b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--a-b\r\n\
         content-disposition: form-data; name=\"{file}\"; filename=\"f\"\r\n\r\n"
    )
    .into_bytes();
    form.extend([0xff, 0, b'\r', b'\n', b'-', b'-', 0x80]);
    form.extend(b"\r\n--a-b--\r\n");
    form
}

#[test]
fn sound_and_pictures_pass_and_are_counted() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let json = |body: Value| ("application/json", body.to_string().into_bytes());
        let multipart = |file: &str| ("multipart/form-data; boundary=a-b", form("gpt-5.6", file));
        let mut counted = 0;
        for (path, (kind, body), begins, tokens) in [
            (
                "/v1/audio/speech",
                json(json!({"model": "gpt-5.6", "input": "hello", "voice": "alloy"})),
                &b"ID3\xff\xfb\x90\0\x80"[..],
                None,
            ),
            (
                "/v1/audio/transcriptions",
                multipart("file"),
                b"{\"text\":",
                Some(12),
            ),
            (
                "/v1/audio/translations",
                multipart("file"),
                b"{\"text\":",
                Some(12),
            ),
            (
                "/v1/images/generations",
                json(json!({"model": "gpt-5.6", "prompt": "a cat"})),
                b"{\"created\":",
                Some(12),
            ),
            (
                "/v1/images/edits",
                multipart("image"),
                b"{\"created\":",
                Some(12),
            ),
        ] {
            let answer = reqwest::Client::new()
                .post(caller.url(path))
                .bearer_auth(caller.key())
                .header("content-type", kind)
                .body(body.clone());
            let answer = answer.send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{path}");
            let got = answer.bytes().await.expect("all of it");
            assert!(got.starts_with(begins), "{path}");
            let sent = stack.sim.seen_once(path).await;
            assert_eq!(sent.account(), Some("openai-key"));
            assert_eq!(sent.body(), body, "{path}: it came as it was sent");
            let Some(tokens) = tokens else {
                assert_eq!(got, b"ID3\xff\xfb\x90\0\x80\"{".repeat(1_000));
                continue;
            };
            counted += tokens;
        }
        eventually("they are counted", SYNC_LIMIT, async || {
            let records = stack.refresher.records();
            let mine = records
                .iter()
                .filter(|record| record["asked"] == "gpt-5.6" && record["usage"]["output"] == 7);
            let sum: u64 = mine
                .filter_map(|record| record["usage"]["total"].as_u64())
                .sum();
            holds(sum == counted, || format!("{records:?}"))
        })
        .await;
    });
}
