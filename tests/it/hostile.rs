use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::harness::{
    Stack,
    caller::{chat_body, messages_body, responses_body},
    eventually,
    eventually::holds,
    raw, records, run,
    sim::account_id,
    stack::{ALICE, CODEX, OPENAI, client_key},
};

/// The stack that these tests share.
async fn stack() -> Arc<Stack> {
    Stack::shared("hostile").await
}

/// No VM of the filter crashed, the platform found nothing to refuse, and a good request still works.
async fn is_unharmed(stack: &Stack) {
    assert_eq!(stack.envoy.crashes().await, 0, "a VM crashed");
    assert_eq!(stack.sim.count("refused_count").await, 0);
    assert_eq!(stack.sim.count("rejected_credentials").await, 0);
    let answer = stack
        .caller("openai")
        .post("/v1/chat/completions", &chat_body(false))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// In every combination of places and counts one key is one key: the platform gets the account's
/// credential alone, or nothing.
#[test]
fn one_key_counts_in_whatever_places_it_stands() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let (key, other) = (caller.key(), client_key("all"));
        let bearer = format!("Bearer {key}");
        let body = chat_body(false).to_string();
        let send = async |query: &str, values: &[(&'static str, &str)]| {
            let mut headers = vec![("content-type", "application/json")];
            headers.extend(values.iter().copied());
            let path = format!("/v1/chat/completions?matrix{query}");
            let answer = caller.send("POST", &path, &headers, body.clone()).await;
            (
                answer.status,
                answer.own_code().map(str::to_owned),
                format!("{values:?} {answer:?}"),
            )
        };
        let places = [
            ("authorization", bearer.as_str()),
            ("x-api-key", key),
            ("x-goog-api-key", key),
            ("api-key", key),
        ];
        for case in 0..81 {
            let counts = [case % 3, case / 3 % 3, case / 9 % 3, case / 27];
            let values = places.into_iter().zip(counts);
            let values: Vec<_> = values
                .flat_map(|(value, count)| std::iter::repeat_n(value, count))
                .collect();
            let (status, _, seen) = send("", &values).await;
            assert_eq!(status, if case == 0 { 401 } else { 200 }, "{seen}");
        }
        let joined = format!("{bearer}, {bearer}");
        let foreign = (
            "authorization",
            "Bearer sk-ant-oat01-a-login-of-the-callers",
        );
        let basic = ("authorization", "Basic YTpi");
        let own = ("x-latchkey-key", key);
        let many = (0..9)
            .map(|n| format!("k{n}"))
            .collect::<Vec<_>>()
            .join(",");
        let long = "x".repeat(300);
        for (values, expected) in [
            (&[("authorization", joined.as_str())][..], None),
            (&[foreign, ("api-key", key)], None),
            (&[basic, ("x-api-key", key)], None),
            (&[("authorization", "Bearer "), ("x-api-key", key)], None),
            (&[own, foreign, ("x-api-key", &other)], None),
            (
                &[places[0], ("x-api-key", &other)],
                Some("latchkey_ambiguous_key"),
            ),
            (&[("x-api-key", &many)], Some("latchkey_ambiguous_key")),
            (
                &[("x-latchkey-key", "lk_x"), places[0]],
                Some("latchkey_unknown_key"),
            ),
            (
                &[("authorization", "Bearer a b")],
                Some("latchkey_unknown_key"),
            ),
            (&[("x-api-key", &long)], Some("latchkey_unknown_key")),
            (&[basic], Some("latchkey_no_key")),
            (&[("authorization", "Bearer")], Some("latchkey_no_key")),
            (&[("authorization", "Bearer ,")], Some("latchkey_no_key")),
            (&[("authorization", key)], Some("latchkey_no_key")),
        ] {
            let (_, code, seen) = send("", values).await;
            assert_eq!(code.as_deref(), expected, "{seen}");
        }
        for query in ["&key=abc", "&%6bey=abc"] {
            let (_, code, seen) = send(query, &places).await;
            assert_eq!(code.as_deref(), Some("latchkey_key_in_url"), "{seen}");
        }
        let seen = stack.sim.seen().await;
        let passed = seen.iter().filter(|seen| seen.path().contains("matrix"));
        assert_eq!(passed.count(), 80 + 5);
        is_unharmed(&stack).await;
    });
}

/// Nothing that Envoy or the filter trusts can come from a caller.
#[test]
fn forged_internal_headers_have_no_effect() {
    run(async {
        let stack = stack().await;
        let slow =
            json!({"target": "upstream", "path": "/v1/messages/count_tokens", "delay_ms": 150});
        let slow = stack.sim.add_fault(slow).await;
        let caller = stack.caller("anthropic");
        let another = format!("latchkey-{OPENAI}");
        for (name, value) in [
            ("x-latchkey-cluster", another.as_str()),
            ("x-latchkey-cluster", "refresher_admin"),
            ("x-latchkey-anything", "1"),
            ("chatgpt-account-id", "ws-forged"),
            ("x-envoy-attempt-count", "2"),
            ("x-envoy-original-url", "http://evil.example/"),
            ("x-envoy-original-path", "/v1/responses"),
            ("x-envoy-upstream-rq-timeout-ms", "1"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
            ("x-envoy-upstream-stream-duration-ms", "1"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
            ("x-envoy-upstream-alt-stat-name", "forged"),
            ("x-envoy-decorator-operation", "forged"),
            ("x-envoy-internal", "true"),
            ("x-envoy-external-address", "10.9.9.9"),
            ("x-forwarded-for", "10.9.9.9"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
            ("x-original-url", "/v1/responses"),
            ("x-http-method-override", "DELETE"),
            ("proxy-authorization", "Basic YTpi"),
            ("te", "trailers"),
            ("expect", "100-continue"),
        ] {
            let path = format!("/v1/messages/count_tokens?forged={name}-{}", value.len());
            let headers = [
                ("x-api-key", caller.key()),
                ("content-type", "application/json"),
                (name, value),
            ];
            let answer = caller
                .send("POST", &path, &headers, messages_body(false).to_string())
                .await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            let seen = stack.sim.seen_once(&path).await;
            assert!(seen.header(name).is_empty(), "{name}: {seen:?}");
            assert_eq!(seen.account(), Some("anthropic-key"), "{name}");
        }
        stack.sim.remove_fault(slow).await;
        is_unharmed(&stack).await;
    });
}

/// A caller cannot make Envoy repeat a request, which would be generated and billed again.
#[test]
fn a_caller_cannot_order_retries() {
    run(async {
        let stack = stack().await;
        let path = "/v1/responses?retries";
        let fault =
            json!({"target": "upstream", "path": "/v1/responses", "times": 1, "status": 500});
        stack.sim.add_fault(fault).await;
        let caller = stack.caller("openai");
        let headers = [
            ("x-api-key", caller.key()),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-max-retries", "3"),
        ];
        let answer = caller.send("POST", path, &headers, "{}").await;
        assert_eq!(answer.status, 500, "{answer:?}");
        stack.sim.seen_once(path).await;
    });
}

/// Bytes that are not text, in each place, crash no VM.
#[test]
fn bytes_that_are_not_text_crash_nothing() {
    run(async {
        let stack = stack().await;
        let key = client_key("openai");
        let request = |head: &[u8]| -> Vec<u8> {
            let body = chat_body(false).to_string();
            let rest = format!(
                "content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            [head, rest.as_bytes()].concat()
        };
        let with = |line: &[u8]| -> Vec<u8> {
            let start = format!(
                "POST /v1/chat/completions?bytes HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n"
            );
            request(&[start.as_bytes(), line, b"\r\n"].concat())
        };
        let many = |count: usize| {
            (0..count)
                .map(|n| format!("x-{n}: {n}\r\n"))
                .collect::<String>()
        };
        let crowd = |count: usize| {
            let lines = many(count);
            with(lines.trim_end().as_bytes())
        };
        let long = |bytes: usize| with(format!("x-long: {}", "a".repeat(bytes)).as_bytes());
        let mut wrong = Vec::new();
        for (case, request, expected) in [
            ("unknown header", with(b"x-a: \xff\xfe\x80"), 200),
            ("allowed header", with(b"user-agent: caf\xe9 \xff"), 200),
            ("session", with(b"session-id: \xff\xc3\x28"), 200),
            ("another key", with(b"authorization: Bearer \xff"), 200),
            ("dialect", with(b"anthropic-version: \xff"), 200),
            ("attempt count", with(b"x-envoy-attempt-count: \xff"), 200),
            ("cluster", with(b"x-latchkey-cluster: \xff"), 200),
            ("content type", with(b"content-type: \xff"), 200),
            ("NUL in a value", with(b"x-a: a\0b"), 400),
            ("NUL in a name", with(b"x-\0: a"), 400),
            ("byte in a name", with(b"x-\xff: a"), 400),
            ("99 headers", crowd(90), 200),
            ("1,000 headers", crowd(1000), 431),
            ("50 KiB header", long(50 * 1024), 200),
            ("100 KiB header", long(100 * 1024), 431),
            (
                "host",
                request(b"POST /v1/chat/completions HTTP/1.1\r\nhost: \xff\r\nx-api-key: a\r\n"),
                400,
            ),
            (
                "path",
                request(b"POST /v1/\xff HTTP/1.1\r\nhost: a\r\nx-api-key: a\r\n"),
                400,
            ),
            (
                "query",
                request(
                    b"POST /v1/chat/completions?\xff=1 HTTP/1.1\r\nhost: a\r\nx-api-key: a\r\n",
                ),
                400,
            ),
            (
                "key",
                request(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-api-key: \xff\r\n"),
                401,
            ),
            (
                "method",
                request(b"P\xff /v1/responses HTTP/1.1\r\nhost: a\r\nx-api-key: a\r\n"),
                400,
            ),
        ] {
            let answer = raw::exchange(stack.envoy.port, &request, 1).await;
            if raw::status(&answer) != expected {
                wrong.push((case, expected, answer));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        is_unharmed(&stack).await;
    });
}

/// Requests that two servers could read differently, and paths that could walk around the routes.
#[test]
fn smuggling_and_path_tricks_get_their_status() {
    run(async {
        let stack = stack().await;
        let key = client_key("openai");
        let post = |target: &str, lines: &str, body: &str| {
            format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\nconnection: close\r\n{lines}\r\n{body}"
            )
        };
        let body = chat_body(false)
            .to_string()
            .replace("hi", "around the routes");
        let length = format!("content-length: {}\r\n", body.len());
        let path = |target: &str| post(target, &length, &body);
        let head = |lines: &str, body: &str| post("/v1/chat/completions?trick", lines, body);
        let chunked = "transfer-encoding: chunked\r\n";
        let cases = [
            (
                "length and chunks",
                head(&format!("{length}{chunked}"), "0\r\n\r\n"),
                400,
            ),
            (
                "two lengths",
                head("content-length: 2\r\ncontent-length: 3\r\n", "{}"),
                400,
            ),
            ("signed length", head("content-length: +2\r\n", "{}"), 400),
            (
                "length in words",
                head("content-length: two\r\n", "{}"),
                400,
            ),
            (
                "coding before chunks",
                head("transfer-encoding: identity, chunked\r\n", "0\r\n\r\n"),
                501,
            ),
            (
                "space before the colon",
                head("x-a : 1\r\ncontent-length: 0\r\n", ""),
                400,
            ),
            ("line that is no header", head("nonsense\r\n\r\n", ""), 400),
            (
                "bad chunk size",
                head(chunked, "zz\r\n{}\r\n0\r\n\r\n"),
                400,
            ),
            ("escaped slash", path("/v1%2fchat/completions"), 400),
            ("escaped backslash", path("/v1%5cchat/completions"), 400),
            ("parameter", path("/v1/chat/completions;x=1"), 404),
            ("end slash", path("/v1/chat/completions/"), 200),
            ("upper case", path("/V1/chat/completions"), 404),
            ("prefix", path("/v1/chat/completionsx"), 404),
            (
                "dots to nowhere",
                path("/v1/chat/completions/../../../etc/passwd"),
                404,
            ),
            (
                "escaped dots to nowhere",
                path("/v1/%2e%2e/%2e%2e/admin"),
                404,
            ),
            (
                "double escape",
                path("/v1/%252e%252e/chat/completions"),
                404,
            ),
            ("above the root", path("/../../v1/nothing"), 404),
            ("fragment", path("/v1/chat/completions#x"), 400),
            ("admin path", path("/quitquitquit"), 404),
            ("stats path", path("/stats"), 404),
            ("sync path", path("/snapshot?epoch=0&since=0&wait=0"), 404),
            ("reports path", path("/reports"), 404),
            (
                "version 9, which Envoy takes for HTTP/1.0",
                "POST /v1/responses HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(),
                401,
            ),
            (
                "no host",
                format!("POST /v1/chat/completions HTTP/1.1\r\nx-api-key: {key}\r\n\r\n"),
                400,
            ),
            (
                "connect",
                format!(
                    "CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\nx-api-key: {key}\r\n\r\n"
                ),
                426,
            ),
            (
                "trace",
                format!(
                    "TRACE /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
                ),
                405,
            ),
        ];
        let mut wrong = Vec::new();
        for (case, request, expected) in cases {
            let answer = raw::exchange(stack.envoy.port, request.as_bytes(), 1).await;
            if raw::status(&answer) != expected {
                wrong.push((case, expected, answer));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let seen = stack.sim.seen().await;
        let mut tricked = seen.iter().filter(|seen| {
            let path = seen.path().split('?').next();
            let here = path != Some("/v1/chat/completions") && seen.body() == body.as_bytes();
            here || seen.path().contains("trick")
        });
        assert!(tricked.next().is_none(), "{seen:?}");
        for spelling in [
            "/v1//chat/completions",
            "/v1/x/../chat/completions",
            "/v1/%63hat/completions",
        ] {
            let answer = raw::exchange(stack.envoy.port, path(spelling).as_bytes(), 1).await;
            assert_eq!(
                raw::status(&answer),
                200,
                "one path, one spelling: {spelling}: {answer}"
            );
        }
        // What an old Codex sends is no reason to turn it away; but nothing with an underscore goes on, nor means what
        // the name with a dash does.
        for (number, line) in [
            "session_id: 1",
            "content_length: 3",
            "transfer_encoding: chunked",
            "x_api_key: another",
            "x_latchkey_cluster: nowhere",
            "x-codex-turn_state: 1",
        ]
        .into_iter()
        .enumerate()
        {
            let path = format!("/v1/chat/completions?underscore={number}");
            let request = post(&path, &format!("{line}\r\n{length}"), &body);
            let answer = raw::exchange(stack.envoy.port, request.as_bytes(), 1).await;
            assert_eq!(raw::status(&answer), 200, "{line}: {answer}");
            let seen = stack.sim.seen().await.into_iter();
            let seen = seen.rev().find(|seen| path.ends_with(seen.path()));
            let seen = seen.expect("a request");
            let with_underscore = seen
                .header_names()
                .iter()
                .filter(|name| name.contains('_'))
                .count();
            assert_eq!(with_underscore, 0, "{line}: {seen:?}");
        }
        is_unharmed(&stack).await;
    });
}

/// Bytes after a request are the next request, never a part of another caller's.
#[test]
fn pipelined_requests_are_authenticated_one_by_one() {
    run(async {
        let stack = stack().await;
        let body = chat_body(false).to_string();
        let first = format!(
            "POST /v1/chat/completions?pipelined=1 HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            client_key("openai"),
            body.len()
        );
        let second = "POST /v1/chat/completions?pipelined=2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let answers =
            raw::exchange(stack.envoy.port, format!("{first}{second}").as_bytes(), 2).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{answers}");
        assert_eq!(
            answers.matches("HTTP/1.1 401 Unauthorized").count(),
            1,
            "{answers}"
        );
        stack
            .sim
            .seen_once("/v1/chat/completions?pipelined=1")
            .await;
    });
}

/// The caller never says where a request goes.
#[test]
fn the_caller_does_not_choose_the_host() {
    run(async {
        let stack = stack().await;
        let key = client_key("openai");
        let body = chat_body(false).to_string();
        let rest = format!(
            "x-api-key: {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        for (case, start) in [
            (
                "host",
                "POST /v1/chat/completions?host=0 HTTP/1.1\r\nhost: evil.example\r\n",
            ),
            (
                "absolute",
                "POST http://evil.example/v1/chat/completions?host=1 HTTP/1.1\r\nhost: a\r\n",
            ),
            (
                "absolute with a user",
                "POST http://a:b@evil.example/v1/chat/completions?host=2 HTTP/1.1\r\nhost: a\r\n",
            ),
            (
                "port",
                "POST /v1/chat/completions?host=3 HTTP/1.1\r\nhost: 127.0.0.1:1\r\n",
            ),
        ] {
            let answer =
                raw::exchange(stack.envoy.port, format!("{start}{rest}").as_bytes(), 1).await;
            assert!(
                matches!(raw::status(&answer), 200 | 400),
                "{case}: {answer}"
            );
        }
        let seen = stack.sim.seen().await;
        let mine: Vec<_> = seen
            .iter()
            .filter(|seen| seen.path().contains("host="))
            .collect();
        assert!(mine.len() >= 3, "{mine:?}");
        assert!(
            mine.iter()
                .all(|seen| seen.authority() == stack.sim.authority()),
            "{mine:?}"
        );
        is_unharmed(&stack).await;
    });
}

/// Somebody to whom nothing may lead.
struct Stranger {
    port: u16,
    connections: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Stranger {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let listening = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            port,
            connections,
            listening,
        }
    }

    fn heard_nothing(self) {
        assert_eq!(self.connections.load(Ordering::Relaxed), 0);
        self.listening.abort();
    }
}

/// A platform's redirect is neither followed nor passed on.
#[test]
fn a_platforms_redirect_leads_nowhere() {
    run(async {
        let stack = stack().await;
        let stranger = Stranger::listen().await;
        let port = stranger.port;
        let caller = stack.caller("openai");
        for status in [301, 302, 303, 307, 308] {
            for location in [
                format!("http://127.0.0.1:{port}/v1/embeddings"),
                "/v1/responses".to_owned(),
            ] {
                let path = format!("/v1/embeddings?redirect={status}{}", location.len());
                let fault = json!({
                    "target": "upstream", "path": "/v1/embeddings", "times": 1, "status": status,
                    "headers": {"location": location, "x-secret-of-the-platform": "1"},
                });
                stack.sim.add_fault(fault).await;
                let answer = caller.post(&path, &json!({})).await;
                assert_eq!(answer.status, 502, "{status}: {answer:?}");
                assert_eq!(
                    answer.own_code(),
                    Some("latchkey_platform_redirect"),
                    "{answer:?}"
                );
                assert_eq!(answer.header("location"), None, "{answer:?}");
                assert_eq!(
                    answer.header("x-secret-of-the-platform"),
                    None,
                    "{answer:?}"
                );
                stack.sim.seen_once(&path).await;
            }
        }
        stranger.heard_nothing();
        is_unharmed(&stack).await;
    });
}

/// Whatever a platform's redirect points at, nothing follows it: not to a stranger, not to another platform, and not back
/// to the gateway. So no platform sees another credential than its own account's.
#[test]
fn a_platforms_redirect_leads_no_credential_astray() {
    const OPENAI_KEY: &str = "sk-openai";
    run(async {
        let stack = Stack::start("hostile-redirects").await;
        let token = stack.sim.login(ALICE).await.access_token;
        let authority = stack.sim.authority();
        let alices = json!({"vars": {"account_id": account_id(ALICE)}, "generation": 2});
        let revision = stack.refresher.publish([
            records::account(CODEX, "codex", authority, &token, alices),
            records::pool("pair", "round_robin", &[OPENAI, CODEX]),
            records::key("key_pair", &client_key("pair"), "pair"),
        ]);
        stack.reaches(revision).await;
        let stranger = Stranger::listen().await;
        let port = stranger.port;
        let caller = stack.caller("pair");
        let mut locations = vec![
            format!("http://127.0.0.1:{port}/v1/responses?led"),
            format!("https://127.0.0.1:{port}/v1/responses?led"),
            format!("//127.0.0.1:{port}/v1/responses?led"),
            caller.url("/v1/responses?led"),
            "responses?led".to_owned(),
            "../../v1/responses?led".to_owned(),
            "?led".to_owned(),
        ];
        for path in [
            "/v1/responses?led",
            "/v1/embeddings?led",
            "/v1/messages?led",
            "/backend-api/codex/responses?led",
        ] {
            locations.extend([path.to_owned(), format!("https://{authority}{path}")]);
        }
        let mut asked = Vec::new();
        for status in [300, 301, 302, 303, 305, 307, 308] {
            for location in &locations {
                let fault = json!({
                    "target": "upstream", "times": 1, "status": status,
                    // The gateway's own redirects have such a header.
                    "headers": {"location": location, "x-latchkey-status": "200"},
                });
                stack.sim.add_fault(fault).await;
                let query = format!("redirect={}", asked.len());
                let path = format!("/v1/responses?{query}");
                let answer = caller.post(&path, &responses_body()).await;
                let shown = format!("{status} to {location}: {answer:?}");
                assert_eq!(answer.status, 502, "{shown}");
                assert_eq!(
                    answer.own_code(),
                    Some("latchkey_platform_redirect"),
                    "{shown}"
                );
                assert_eq!(answer.header("location"), None, "{shown}");
                assert_eq!(answer.header("x-latchkey-status"), None, "{shown}");
                assert!(!shown.contains(OPENAI_KEY), "{shown}");
                assert!(!shown.contains(&token), "{shown}");
                asked.push(query);
            }
        }
        let mut seen = stack.sim.seen().await;
        seen.retain(|seen| !seen.path().starts_with("/oauth/"));
        assert_eq!(seen.len(), asked.len(), "each was sent once: {seen:?}");
        let mut times = [0, 0];
        for (seen, query) in seen.iter().zip(&asked) {
            let (which, path, credential) = match seen.account() {
                Some("openai-key") => (0, "/v1/responses", OPENAI_KEY),
                Some(ALICE) => (1, "/backend-api/codex/responses", token.as_str()),
                _ => panic!("nobody's: {seen:?}"),
            };
            times[which] += 1;
            assert_eq!(seen.path(), format!("{path}?{query}"), "{seen:?}");
            let bearer = format!("Bearer {credential}");
            assert_eq!(seen.header("authorization"), [&bearer], "{seen:?}");
            let text = seen.0.to_string();
            for one in [OPENAI_KEY, &token] {
                let expected = usize::from(one == credential);
                assert_eq!(text.matches(one).count(), expected, "{seen:?}");
            }
        }
        assert!(times.iter().all(|times| *times > 10), "{times:?}");
        stranger.heard_nothing();
        is_unharmed(&stack).await;
    });
}

/// 2,000 callers that never finish their headers and 50 that send their body a byte a second: all are cut off when it is
/// time, and good callers hardly notice.
#[test]
fn slow_callers_are_cut_off_and_hinder_nobody() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let before = slowest_but_one_in_a_hundred(&caller).await;
        let start = Instant::now();
        let mut slow = Vec::new();
        for _ in 0..2_000 {
            slow.push(begun(&stack, "").await);
        }
        let opened = start.elapsed();
        let dripping = (0..50).map(|_| drip(&stack, start));
        let (with, ()) = tokio::join!(slowest_but_one_in_a_hundred(&caller), async {
            drop(futures_util::future::join_all(dripping).await)
        });
        println!("p99 {before:?} alone, {with:?} beside slow callers");
        assert!(with <= before * 2 + Duration::from_millis(100), "{with:?}");
        for mut stream in slow {
            let mut answer = Vec::new();
            let limit = (opened + Duration::from_secs(20)).saturating_sub(start.elapsed());
            let ended = tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "still open after {:?}", start.elapsed());
        }
        eventually(
            "the connections are gone",
            Duration::from_secs(5),
            async || {
                let open = stack.envoy.stat("http.latchkey.downstream_cx_active").await;
                holds(open < 50, || format!("{open} open"))
            },
        )
        .await;
        is_unharmed(&stack).await;
    });
}

/// A connection on which the start of a request's headers was sent.
async fn begun(stack: &Stack, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", stack.envoy.port))
        .await
        .expect("connected");
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{more}");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

/// Sends a body a byte a second for ten seconds.
async fn drip(stack: &Stack, start: Instant) {
    let key = client_key("openai");
    let head = format!("authorization: Bearer {key}\r\ncontent-length: 5000\r\n\r\n{{");
    let mut stream = begun(stack, &head).await;
    while start.elapsed() < Duration::from_secs(15) && stream.write_all(b" ").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The 99th percentile of 200 good requests, one after the other.
async fn slowest_but_one_in_a_hundred(caller: &crate::harness::Caller) -> Duration {
    let mut took = Vec::new();
    for _ in 0..200 {
        let asked = Instant::now();
        let answer = caller.post("/v1/chat/completions", &chat_body(false)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        took.push(asked.elapsed());
    }
    took.sort_unstable();
    took[took.len() * 99 / 100 - 1]
}
