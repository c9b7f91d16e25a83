//! The use of requests is counted, and nothing of what passes is changed or late for it.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{
    Caller, Stack,
    caller::{chat_body, messages_body, responses_body},
    eventually,
    fake_refresher::FakeRefresher,
    holds,
    http2::Http2,
    raw, records, run,
    stack::{ALICE, ANTHROPIC, CODEX, OPENAI, client_key},
};

/// The longest that a record may take to arrive: it is gathered for a second, on a machine that is busy.
pub(crate) const RECORD_LIMIT: Duration = Duration::from_secs(15);

const CHAT: &str = "/v1/chat/completions";

/// A chat stream with the chunk that only `include_usage` brings.
const STREAM: &str = include_str!("../fixtures/meter/chat_include_usage.sse");

/// The records, once there are at least so many.
pub async fn recorded(refresher: &FakeRefresher, count: usize) -> Vec<Value> {
    eventually("the records arrive", RECORD_LIMIT, async || {
        let mut records = refresher.records();
        // Each worker sends its own.
        records.sort_by_key(|record| record["at"].as_u64());
        if records.len() >= count {
            Ok(records)
        } else {
            Err(format!("{} of {count}: {records:?}", records.len()))
        }
    })
    .await
}

/// `stream` without the events that hold `needle`.
fn without(stream: &str, needle: &str) -> String {
    let events = stream.split_inclusive("\n\n");
    events.filter(|event| !event.contains(needle)).collect()
}

/// A stream that the platform answers with in place of its own.
fn stream_fault(body: &str) -> Value {
    json!({
        "target": "upstream", "path": CHAT, "status": 200,
        "headers": {"content-type": "text/event-stream"}, "body": body,
    })
}

/// A request's head, and of its body so much that the gate reads on.
fn unfinished(key: &str) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{\"model\":"
    )
}

/// Begins such a request.
async fn begin_upload(stack: &Stack, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", stack.envoy.port))
        .await
        .expect("connected");
    let head = unfinished(key);
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

/// Whole answers and streams of every dialect: the counts are the platform's own, and so is their sum.
#[test]
fn records_say_what_the_platform_counted() {
    run(async {
        let stack = Stack::start("metering").await;
        let text = |words: usize| vec!["word"; words].join(" ");
        let mut cases = Vec::new();
        for stream in [false, true] {
            let mut body = chat_body(stream);
            body["messages"][0]["content"] = text(11).into();
            cases.push(("openai", OPENAI, CHAT, "chat", body));
            let body = json!({"model": "gpt-5.6", "stream": stream, "input": text(7)});
            cases.push(("openai", OPENAI, "/v1/responses", "responses", body));
            let mut body = messages_body(stream);
            body["messages"][0]["content"] = text(5).into();
            cases.push(("anthropic", ANTHROPIC, "/v1/messages", "messages", body));
        }
        let mut body = responses_body();
        body["input"][0]["content"][0]["text"] = text(3).into();
        cases.push(("codex", CODEX, "/v1/responses", "responses", body));
        let inputs = [11, 7, 5, 11, 7, 5, 3];
        let mut totals = [0, 0];
        for (number, ((pool, account, path, dialect, body), input)) in
            cases.iter().zip(inputs).enumerate()
        {
            let answer = stack.caller(pool).post(path, body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let records = recorded(&stack.refresher, number + 1).await;
            let record = &records[number];
            let shown = format!("{pool} {path} {body}: {record}");
            for (name, expected) in [
                ("key", json!(format!("key_{pool}"))),
                ("account", json!(account)),
                ("pool", json!(pool)),
                ("platform", json!(pool)),
                ("dialect", json!(dialect)),
                ("model", body["model"].clone()),
                ("status", json!(200)),
                ("verdict", json!("fine")),
                ("attempts", json!(1)),
                ("completeness", json!("whole")),
                ("error", Value::Null),
                ("estimate", Value::Null),
            ] {
                assert_eq!(record[name], expected, "{name} of {shown}");
            }
            assert_eq!(record["usage"]["input"], input, "{shown}");
            assert_eq!(record["id"].as_str().map(str::len), Some(36), "{shown}");
            let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{shown}"));
            assert!(number(&record["at"]) > 1_700_000_000_000, "{shown}");
            assert!(
                number(&record["first_byte_ms"]) <= number(&record["duration_ms"]),
                "{shown}"
            );
            totals[0] += number(&record["usage"]["input"]);
            totals[1] += number(&record["usage"]["output"]);
        }
        let counted = [
            stack.sim.count("input_tokens").await,
            stack.sim.count("output_tokens").await,
        ];
        assert_eq!(totals, counted, "input and output");
        eventually("Envoy's own counters", RECORD_LIMIT, async || {
            let found = [
                stack.envoy.stat("latchkey.tokens_input").await,
                stack.envoy.stat("latchkey.tokens_output").await,
            ];
            holds(found == totals, || format!("{found:?}"))
        })
        .await;
        assert_eq!(stack.envoy.stat("latchkey.requests").await, 7);
        assert_eq!(stack.envoy.stat("latchkey.records_dropped").await, 0);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// OpenAI's chat streams report usage only if asked. The gateway asks, and the caller gets, byte for byte, what it
/// would have got had nobody asked; a caller that asks itself gets all of it.
#[test]
fn a_caller_does_not_see_that_the_gateway_asked_for_usage() {
    run(async {
        let stack = Stack::start("metering-usage").await;
        let caller = stack.caller("openai");
        stack.sim.add_fault(stream_fault(STREAM)).await;
        let mut asking = chat_body(true);
        asking["stream_options"] = json!({"include_usage": true});
        let mut large = chat_body(true);
        large["messages"][0]["content"] = "x".repeat(2 * 1024 * 1024).into();
        let bearer = format!("Bearer {}", caller.key());
        let expected = without(STREAM, "\"choices\":[]");
        assert_ne!(expected, STREAM);
        for (body, chunked, asked, expected) in [
            (chat_body(true), false, true, expected.as_str()),
            (asking, false, true, STREAM),
            (large.clone(), false, true, &expected),
            (large, true, true, &expected),
            (chat_body(false), false, false, STREAM),
        ] {
            stack
                .sim
                .ask(Method::DELETE, "/requests", Value::Null)
                .await;
            let text = body.to_string();
            let length = text.len();
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "application/json"),
            ];
            let sent: reqwest::Body = if chunked {
                let pieces: Vec<_> = text.as_bytes().chunks(50_000).map(<[u8]>::to_vec).collect();
                let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
                reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
            } else {
                text.into()
            };
            let answer = caller.send("POST", CHAT, &headers, sent).await;
            let shown = format!("{length} bytes, chunked {chunked}, asked {asked}");
            assert_eq!(answer.status, 200, "{shown}: {:?}", answer.headers);
            assert!(answer.body == expected, "{shown}: {}", answer.body);
            let seen = stack.sim.seen_once(CHAT).await;
            if length < 64 * 1024 {
                let seen: Value = serde_json::from_slice(&seen.body()).expect("JSON");
                let option = seen["stream_options"]["include_usage"] == true;
                assert_eq!(option, asked, "{shown}");
                assert_eq!(seen["messages"], body["messages"], "{shown}");
            } else {
                let added = "\"stream_options\":{\"include_usage\":true},".len();
                let arrived = seen.0["body_length"].as_u64().map(|bytes| bytes as usize);
                assert_eq!(arrived, Some(length + added), "{shown}");
            }
        }
        let records = recorded(&stack.refresher, 5).await;
        for record in &records {
            assert!(record["usage"]["output"].as_u64() > Some(0), "{record}");
            assert_eq!(record["estimate"], Value::Null, "{record}");
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// A body that is too large to be looked into goes on as it is, and what it used is then estimated from the text that came.
#[test]
fn a_request_that_cannot_be_asked_for_usage_is_estimated() {
    run(async {
        let stack = Stack::start("metering-estimate").await;
        let caller = stack.caller("openai");
        let mut body = chat_body(true);
        body["messages"][0]["content"] = "x".repeat(9 * 1024 * 1024).into();
        let answer = caller.post(CHAT, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
        let seen = stack.sim.seen_once(CHAT).await;
        assert_eq!(seen.0["body_length"], body.to_string().len());
        // JSON that is not read for its option, whatever a platform makes of it.
        let twice = chat_body(true).to_string();
        let twice = twice.replacen('{', "{\"stream\":true,", 1);
        let bearer = format!("Bearer {}", caller.key());
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let answer = caller.send("POST", CHAT, &headers, twice.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let records = recorded(&stack.refresher, 2).await;
        for (record, length) in records.iter().zip([body.to_string().len(), twice.len()]) {
            assert_eq!(record["estimate"], true, "{record}");
            assert_eq!(record["usage"]["input"], length.div_ceil(4), "{record}");
            assert!(record["usage"]["output"].as_u64() > Some(3), "{record}");
        }
    });
}

/// Where a platform says nothing, the input is charged whatever its answer looks like, but not on an endpoint that is
/// free; what it says beyond measure is not believed; and what nobody could count is not sent.
#[test]
fn no_answers_shape_makes_a_request_free_or_boundless() {
    run(async {
        let stack = Stack::start("metering-shapes").await;
        let json_fault = |path: &str, body: Value| {
            json!({
                "target": "upstream", "path": path, "status": 200, "times": 1,
                "headers": {"content-type": "application/json"}, "body": body.to_string(),
            })
        };
        let responses = "/v1/responses";
        let queued = json!({"status": "queued", "error": null, "output": [], "usage": null});
        stack.sim.add_fault(json_fault(responses, queued)).await;
        let endless =
            json!({"choices": [], "usage": {"prompt_tokens": 7, "total_tokens": u64::MAX}});
        stack.sim.add_fault(json_fault(CHAT, endless)).await;
        let body = json!({"model": "gpt-5.6", "input": "x".repeat(4_000)});
        let length = body.to_string().len();
        let counted = messages_body(false);
        for (number, (pool, path, body)) in [
            ("openai", responses, &body),
            ("openai", CHAT, &chat_body(false)),
            ("anthropic", "/v1/messages/count_tokens", &counted),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = stack.caller(pool).post(path, body).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            recorded(&stack.refresher, number + 1).await;
        }
        let records = recorded(&stack.refresher, 3).await;
        let [queued, endless, counted] = records.as_slice() else {
            panic!("{records:?}");
        };
        assert_eq!(queued["usage"]["input"], length.div_ceil(4), "{queued}");
        assert_eq!(queued["estimate"], true, "{queued}");
        assert_eq!(endless["usage"]["total"], 1 << 24, "{endless}");
        assert_eq!(counted["usage"], Value::Null, "{counted}");

        let sent = stack.sim.seen().await.len();
        let body = json!({"model": "gpt-5.6", "input": "hi", "background": true, "store": true});
        let answer = stack.caller("openai").post(responses, &body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(answer.own_code(), Some("latchkey_requirement_not_met"));
        assert!(answer.body.contains("could not be counted"), "{answer:?}");
        assert_eq!(stack.sim.seen().await.len(), sent, "nothing was sent");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// A stream that the platform or the caller leaves in its middle is recorded as far as it came, and so is one in which
/// the platform gives up, which passes on as it is.
#[test]
fn what_does_not_come_to_its_end_is_recorded_as_that() {
    run(async {
        let stack = Stack::start("metering-cut").await;
        let caller = stack.caller("openai");
        let fault = json!({"target": "upstream", "path": CHAT, "cut_after_bytes": 900});
        let fault = stack.sim.add_fault(fault).await;
        assert!(
            caller.try_post(CHAT, &chat_body(true)).await.is_err(),
            "cut off"
        );
        stack.sim.remove_fault(fault).await;
        let records = recorded(&stack.refresher, 1).await;
        assert_eq!(records[0]["completeness"], "cut", "{records:?}");
        assert_eq!(records[0]["status"], 200, "{records:?}");
        let input = chat_body(true).to_string().len().div_ceil(4);
        assert_eq!(records[0]["usage"]["input"], input, "{records:?}");
        assert_eq!(records[0]["estimate"], true, "{records:?}");

        let pause = json!({"event_delay_ms": 300});
        stack.sim.ask(Method::POST, "/settings", pause).await;
        let mut answer = caller.begin(CHAT, &chat_body(true)).await;
        answer
            .chunk()
            .await
            .expect("a stream")
            .expect("a first event");
        drop(answer);
        let records = recorded(&stack.refresher, 2).await;
        assert_eq!(records[1]["completeness"], "left", "{records:?}");
        assert_eq!(records[1]["error"], Value::Null, "{records:?}");
        assert_eq!(records[1]["usage"]["input"], input, "{records:?}");
        let no_pause = json!({"event_delay_ms": 0});
        stack.sim.ask(Method::POST, "/settings", no_pause).await;

        // The same on HTTP/2, where the stream is reset and its connection stays.
        let connection = Http2::connect(stack.envoy.port).await;
        let authorization = format!("Bearer {}", client_key("openai"));
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        let pause = json!({"event_delay_ms": 300});
        stack.sim.ask(Method::POST, "/settings", pause).await;
        connection
            .leave(CHAT, &headers, &chat_body(true).to_string())
            .await;
        let records = recorded(&stack.refresher, 3).await;
        assert_eq!(records[2]["completeness"], "left", "{records:?}");
        let no_pause = json!({"event_delay_ms": 0});
        stack.sim.ask(Method::POST, "/settings", no_pause).await;

        // A caller that does not wait for the first byte.
        let delay = json!({"target": "upstream", "path": CHAT, "delay_ms": 20_000, "times": 1});
        stack.sim.add_fault(delay).await;
        let body = chat_body(true);
        let gone = tokio::time::timeout(Duration::from_millis(700), caller.try_post(CHAT, &body));
        gone.await.expect_err("no answer yet");
        let records = recorded(&stack.refresher, 4).await;
        assert_eq!(records[3]["completeness"], "left", "{records:?}");
        assert_eq!(records[3]["status"], 0, "{records:?}");
        assert_eq!(records[3]["account"], OPENAI, "{records:?}");
        assert_eq!(records[3]["usage"]["total"], input, "{records:?}");
        assert_eq!(records[3]["estimate"], true, "{records:?}");

        let failing = "/v1/messages";
        let fault = json!({"target": "upstream", "path": failing, "fixture": "anthropic/message_then_overloaded.sse"});
        stack.sim.add_fault(fault).await;
        let answer = stack
            .caller("anthropic")
            .post(failing, &messages_body(true))
            .await;
        assert!(answer.body.contains("overloaded_error"), "{answer:?}");
        let records = recorded(&stack.refresher, 5).await;
        assert_eq!(records[4]["completeness"], "partial", "{records:?}");
        assert_eq!(records[4]["error"], "failed_inside", "{records:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// A request is one record, however many accounts it took, and also where the gateway itself answered it.
#[test]
fn a_request_is_one_record_whoever_answers_it() {
    run(async {
        let stack = Stack::start("metering-failover").await;
        stack.sim.add_api_key("openai", "sk-bad", "bad").await;
        let authority = stack.sim.authority();
        let revision = stack.refresher.publish([
            records::account("acc_bad", "openai", authority, "sk-bad", json!({})),
            records::pool("two", "round_robin", &["acc_bad", OPENAI]),
            records::key("key_two", &client_key("two"), "two"),
        ]);
        stack.have_clusters(&["acc_bad", OPENAI]).await;
        stack.reaches(revision).await;
        let limited = json!({
            "target": "upstream", "account": "bad", "status": 429, "body": "{\"error\":{\"message\":\"slow down\"}}",
            "headers": {"retry-after": "60"},
        });
        stack.sim.add_fault(limited).await;
        let caller = stack.caller("two");
        for _ in 0..4 {
            assert_eq!(caller.post(CHAT, &chat_body(true)).await.status, 200);
        }
        let found = recorded(&stack.refresher, 4).await;
        let attempts: Vec<_> = found
            .iter()
            .map(|record| record["attempts"].as_u64())
            .collect();
        let of = |count| {
            attempts
                .iter()
                .filter(|attempts| **attempts == Some(count))
                .count()
        };
        assert_eq!((of(1), of(2)), (3, 1), "{found:?}");
        assert!(
            found.iter().all(|record| record["account"] == OPENAI),
            "{found:?}"
        );

        // The last account's answer is the platform's own; after that the gateway answers.
        let limited = json!({
            "target": "upstream", "path": CHAT, "status": 429, "body": "{\"error\":{\"message\":\"slow down\"}}",
            "headers": {"retry-after": "60"},
        });
        stack.sim.add_fault(limited).await;
        for _ in 0..2 {
            assert_eq!(caller.post(CHAT, &chat_body(false)).await.status, 429);
        }
        let found = recorded(&stack.refresher, 6).await;
        let (platforms, own) = (&found[4], &found[5]);
        assert_eq!(platforms["status"], 429, "{platforms}");
        assert_eq!(platforms["verdict"], "cooling_down", "{platforms}");
        assert_eq!(platforms["account"], OPENAI, "{platforms}");
        assert_eq!(platforms["error"], Value::Null, "{platforms}");
        assert_eq!(own["status"], 429, "{own}");
        assert_eq!(own["error"], "latchkey_all_out", "{own}");
        assert_eq!(
            (&own["account"], &own["key"]),
            (&Value::Null, &json!("key_two"))
        );
        assert_eq!(own["attempts"], 0, "{own}");

        // Nobody's key: nobody's record.
        let stranger = Caller::new(stack.envoy.port, "lk_nobody");
        assert_eq!(stranger.post(CHAT, &chat_body(false)).await.status, 401);
        assert_eq!(stack.envoy.stat("latchkey.failovers").await, 1);
        eventually("refusals are counted", RECORD_LIMIT, async || {
            let refused = stack.envoy.stat("latchkey.refused").await;
            holds(refused == 2, || refused.to_string())
        })
        .await;
        assert_eq!(stack.refresher.records().len(), 6);
    });
}

/// However a request goes, through however many accounts and wherever it ends, it begins once and is recorded once; and
/// one that is under way has begun.
#[test]
fn every_request_begins_once_and_is_recorded_once() {
    run(async {
        let stack = Stack::start("metering-begun").await;
        stack.sim.add_api_key("openai", "sk-bad", "bad").await;
        let authority = stack.sim.authority();
        let models = json!({"models": ["gpt-5.6"]});
        let revision = stack.refresher.publish([
            records::account("acc_bad", "openai", authority, "sk-bad", json!({})),
            records::account("acc_lost", "openai", authority, "sk-openai", json!({})),
            records::pool("two", "fill_first", &["acc_bad", OPENAI]),
            records::pool("bad", "fill_first", &["acc_bad"]),
            records::pool("lost", "round_robin", &["acc_lost"]),
            records::key("key_two", &client_key("two"), "two"),
            records::key("key_bad", &client_key("bad"), "bad"),
            records::key("key_lost", &client_key("lost"), "lost"),
            records::key_with("key_models", &client_key("models"), "openai", models),
        ]);
        stack.have_clusters(&["acc_bad", OPENAI]).await;
        stack.reaches(revision).await;
        let count = || {
            let records = stack.refresher.records();
            let counts = records
                .iter()
                .map(|record| record["count"].as_u64().unwrap_or(1));
            counts.sum::<u64>()
        };
        let told = async |requests: u64| {
            eventually("all is told of", RECORD_LIMIT, async || {
                let found = (count(), stack.refresher.begun());
                holds(found == (requests, requests), || {
                    format!("{found:?}, not {requests}")
                })
            })
            .await;
        };
        // On two accounts, then none; one that has no cluster.
        let limited = json!({
            "target": "upstream", "account": "bad", "status": 429, "body": "{\"error\":{\"message\":\"slow down\"}}",
            "headers": {"retry-after": "60"},
        });
        stack.sim.add_fault(limited).await;
        let body = chat_body(true);
        for (pool, status) in [("two", 200), ("two", 200), ("lost", 503)] {
            assert_eq!(stack.caller(pool).post(CHAT, &body).await.status, status);
        }
        for _ in 0..20 {
            assert_eq!(stack.caller("bad").post(CHAT, &body).await.status, 429);
        }
        told(23).await;
        assert_eq!(stack.envoy.stat("latchkey.failovers").await, 1);

        // Nobody's key, and what is no request to a platform.
        let stranger = Caller::new(stack.envoy.port, "lk_nobody");
        assert_eq!(stranger.post(CHAT, &body).await.status, 401);
        let caller = stack.caller("openai");
        assert_eq!(caller.get("/v1/models").await.status, 200);

        // Those whose callers leave: while the gate reads, before the answer, and in its middle.
        let under_way = async |begun: u64| {
            eventually("it has begun", RECORD_LIMIT, async || {
                let found = (stack.refresher.begun(), count());
                holds(found == (begun, begun - 1), || format!("{found:?}"))
            })
            .await;
        };
        let key = client_key("models");
        let stream = begin_upload(&stack, &key).await;
        under_way(24).await;
        drop(stream);
        told(24).await;

        let delay = json!({"target": "upstream", "path": CHAT, "delay_ms": 60_000, "times": 1});
        stack.sim.add_fault(delay).await;
        let waiting = tokio::spawn({
            let (caller, body) = (caller.clone(), body.clone());
            async move { caller.try_post(CHAT, &body).await.is_ok() }
        });
        under_way(25).await;
        waiting.abort();
        told(25).await;

        let stall =
            json!({"target": "upstream", "path": CHAT, "stall_after_bytes": 900, "times": 1});
        stack.sim.add_fault(stall).await;
        let mut stream = caller.begin(CHAT, &body).await;
        stream.chunk().await.expect("a stream").expect("an event");
        under_way(26).await;
        drop(stream);
        told(26).await;
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// A key over its limit that goes on all the same makes a record a second, in which every request counts.
#[test]
fn requests_that_are_refused_alike_are_few_records() {
    run(async {
        let stack = Stack::start("metering-refused").await;
        let limits = json!({"limits": {"tokens_per_day": 1}});
        let revision = stack.refresher.publish([records::key_with(
            "key_limited",
            &client_key("limited"),
            "openai",
            limits,
        )]);
        stack.reaches(revision).await;
        let caller = Caller::new(stack.envoy.port, &client_key("limited"));
        assert_eq!(caller.post(CHAT, &chat_body(false)).await.status, 200);
        let started = Instant::now();
        for _ in 0..200 {
            assert_eq!(caller.post(CHAT, &chat_body(false)).await.status, 429);
        }
        let seconds = started.elapsed().as_secs();
        let found = eventually("every request is counted", RECORD_LIMIT, async || {
            let records = stack.refresher.records();
            let refused = |record: &&Value| record["error"] == "latchkey_limit";
            let refused: Vec<_> = records.iter().filter(refused).cloned().collect();
            let count = |record: &Value| record["count"].as_u64().unwrap_or(1);
            let count: u64 = refused.iter().map(count).sum();
            (count == 200)
                .then_some(refused)
                .ok_or_else(|| format!("{count}: {records:?}"))
        })
        .await;
        // One VM has one record an interval, and one that a batch has just taken away.
        let most = usize::try_from(2 * (seconds + 2)).expect("few");
        assert!(found.len() <= most, "{seconds} s: {found:?}");
        let stat = async |name| stack.envoy.stat(name).await;
        assert_eq!(stat("latchkey.refused").await, 200);
        assert_eq!(stat("latchkey.requests").await, 201);
        assert_eq!(stat("latchkey.records_dropped").await, 0);
    });
}

/// A request whose body the gate still reads when its caller leaves, or Envoy waits no longer for it, is its key's.
#[test]
fn a_request_that_ends_while_its_body_is_read_is_recorded() {
    run(async {
        let impatient = |text: &str| text.replace("request_timeout: 3600s", "request_timeout: 6s");
        let stack = Stack::edited("metering-peek", impatient).await;
        let models = json!({"models": ["gpt-5.6"]});
        let revision = stack.refresher.publish([records::key_with(
            "key_models",
            &client_key("models"),
            "openai",
            models,
        )]);
        stack.reaches(revision).await;
        let key = client_key("models");
        let stream = begin_upload(&stack, &key).await;
        // It is being read by the time that another request has been answered.
        let caller = Caller::new(stack.envoy.port, &key);
        assert_eq!(caller.post(CHAT, &chat_body(false)).await.status, 200);
        drop(stream);
        let found = recorded(&stack.refresher, 2).await;
        let cut = found.iter().find(|record| record["status"] == 0);
        let cut = cut.unwrap_or_else(|| panic!("{found:?}"));
        for (name, expected) in [
            ("key", json!("key_models")),
            ("pool", json!("openai")),
            ("account", Value::Null),
            ("completeness", json!("left")),
            ("usage", Value::Null),
        ] {
            assert_eq!(cut[name], expected, "{name} of {cut}");
        }

        let answer = raw::exchange(stack.envoy.port, unfinished(&key).as_bytes(), 1).await;
        assert_eq!(raw::status(&answer), 408, "{answer}");
        let found = recorded(&stack.refresher, 3).await;
        assert_eq!(found[2]["status"], 408, "{found:?}");
        assert_eq!(found[2]["error"], "latchkey_envoy", "{found:?}");
        assert_eq!(found[2]["key"], "key_models", "{found:?}");
        assert_eq!(found[2]["account"], Value::Null, "{found:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// A request that the gateway put right, or that Envoy itself answered, is recorded too.
#[test]
fn answers_that_no_attempt_passed_on_are_recorded() {
    run(async {
        let stack = Stack::start("metering-restored").await;
        let authority = stack.sim.authority();
        let revision = stack.refresher.publish([
            records::account("acc_twin", "openai", authority, "sk-openai", json!({})),
            records::account("acc_lost", "openai", authority, "sk-openai", json!({})),
            records::pool("pair", "round_robin", &[OPENAI, "acc_twin"]),
            records::pool("lost", "round_robin", &["acc_lost"]),
            records::key("key_pair", &client_key("pair"), "pair"),
            records::key("key_lost", &client_key("lost"), "lost"),
        ]);
        stack.have_clusters(&[OPENAI, "acc_twin"]).await;
        stack.reaches(revision).await;

        let fault = json!({"target": "upstream", "fixture": "openai/rate_limit_exceeded.json"});
        stack.sim.add_fault(fault).await;
        let mut body = chat_body(false);
        body["messages"][0]["content"] = "x".repeat(33 * 1024 * 1024).into();
        assert_eq!(stack.caller("pair").post(CHAT, &body).await.status, 429);
        let found = recorded(&stack.refresher, 1).await;
        assert_eq!(found[0]["status"], 429, "{found:?}");
        assert_eq!(found[0]["verdict"], "cooling_down", "{found:?}");
        assert_eq!(found[0]["attempts"], 1, "{found:?}");
        assert_eq!(found[0]["error"], Value::Null, "{found:?}");

        assert_eq!(
            stack
                .caller("lost")
                .post(CHAT, &chat_body(false))
                .await
                .status,
            503
        );
        let found = recorded(&stack.refresher, 2).await;
        assert_eq!(found[1]["status"], 503, "{found:?}");
        assert_eq!(found[1]["error"], "latchkey_envoy", "{found:?}");
        assert_eq!(found[1]["account"], "acc_lost", "{found:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// The end of a body may come as trailers: what was held back until then is judged, and what passed is recorded as
/// whole.
#[test]
fn an_answer_may_end_with_trailers() {
    run(async {
        let stack = Stack::start("metering-trailers").await;
        let caller = stack.caller("openai");
        let fault = json!({"target": "upstream", "trailer": true});
        let trailers = stack.sim.add_fault(fault).await;
        for stream in [true, false] {
            let answer = caller.post(CHAT, &chat_body(stream)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(!answer.body.contains("\"choices\":[]"), "{answer:?}");
            assert!(answer.body.contains("stop"), "{answer:?}");
        }
        stack.sim.remove_fault(trailers).await;
        let text = "{\"error\":{\"message\":\"bad\",  \"type\":\"invalid_request_error\"}}";
        let fault = json!({"target": "upstream", "trailer": true, "status": 400, "body": text});
        let error = stack.sim.add_fault(fault).await;
        let answer = caller.post(CHAT, &chat_body(true)).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, text),
            "{answer:?}"
        );
        stack.sim.remove_fault(error).await;
        let records = recorded(&stack.refresher, 3).await;
        for record in &records {
            assert_eq!(record["completeness"], "whole", "{record}");
        }
        assert_eq!(
            records[0]["usage"]["output"], records[1]["usage"]["output"],
            "{records:?}"
        );
        assert_eq!(records[2]["verdict"], "callers_fault", "{records:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// The record that operators see of a request in Envoy's access log, also of one that was cut off, and of one that a second account
/// served.
#[test]
fn the_access_log_says_what_a_request_used() {
    run(async {
        let stack = Stack::start("metering-log").await;
        stack.sim.add_api_key("openai", "sk-first", "first").await;
        let authority = stack.sim.authority();
        let revision = stack.refresher.publish([
            records::account("acc_first", "openai", authority, "sk-first", json!({})),
            records::pool("pair", "fill_first", &["acc_first", OPENAI]),
            records::key("key_pair", &client_key("pair"), "pair"),
        ]);
        stack.have_clusters(&["acc_first", OPENAI]).await;
        stack.reaches(revision).await;
        let limited = json!({
            "target": "upstream", "account": "first", "fixture": "openai/rate_limit_exceeded.json",
            "headers": {"retry-after": "60"},
        });
        stack.sim.add_fault(limited).await;
        let caller = stack.caller("openai");
        let mut body = chat_body(false);
        body["messages"][0]["content"] = "one two three".into();
        assert_eq!(caller.post(CHAT, &body).await.status, 200);
        assert_eq!(stack.caller("pair").post(CHAT, &body).await.status, 200);
        let fault = json!({"target": "upstream", "path": CHAT, "cut_after_bytes": 900});
        stack.sim.add_fault(fault).await;
        assert!(
            caller.try_post(CHAT, &chat_body(true)).await.is_err(),
            "cut off"
        );
        let found = recorded(&stack.refresher, 3).await;
        let used = |record: &Value| {
            let output = record["usage"]["output"].as_u64().expect("a count");
            let total = 3 + output;
            format!("input=3 cached=0 output={output} reasoning=0 total={total} answer=whole")
        };
        let log = stack.folder.join("envoy.log");
        // Envoy writes its log every 10 seconds.
        eventually("the access log", Duration::from_secs(40), async || {
            let log = fs::read_to_string(&log).expect("the log");
            let mut lines: Vec<Value> = log
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .filter(|line: &Value| line["usage"].is_string())
                .collect();
            // Each worker writes its own.
            lines.sort_by_key(|line| line["time"].to_string());
            let [whole, second, cut] = lines.as_slice() else {
                return Err(format!("{lines:?}"));
            };
            for (line, record, pool, attempts, tried) in [
                (whole, &found[0], "openai", 1, None),
                (second, &found[1], "pair", 2, Some("acc_first:1")),
                (cut, &found[2], "openai", 1, None),
            ] {
                let carried = line["latchkey"].as_str().expect("what was decided");
                let said: HashMap<_, _> = carried
                    .split(' ')
                    .filter_map(|pair| pair.split_once('='))
                    .collect();
                let key = format!("key_{pool}");
                for (name, expected) in [
                    ("account", Some(OPENAI)),
                    ("pool", Some(pool)),
                    ("key", Some(key.as_str())),
                    ("model", Some("gpt-5.6")),
                    ("tried", tried),
                    ("id", record["id"].as_str()),
                ] {
                    assert_eq!(said.get(name).copied(), expected, "{name} of {line}");
                }
                assert_eq!(record["account"], OPENAI, "{record}");
                assert_eq!(record["attempts"], attempts, "{record}");
                let usage = line["usage"].as_str().expect("what it used");
                let rest = usage.strip_prefix(&format!("attempts={attempts} "));
                let rest = rest.unwrap_or_else(|| panic!("{line}"));
                if line == cut {
                    assert!(rest.ends_with(" answer=cut"), "{line}");
                } else {
                    assert_eq!(rest, used(record), "{line}");
                }
                for (name, expected) in [
                    ("cluster", json!(format!("latchkey-{OPENAI}"))),
                    ("status", json!(200)),
                    ("path", json!(CHAT)),
                    ("refused", Value::Null),
                ] {
                    assert_eq!(line[name], expected, "{name} of {line}");
                }
            }
            for secret in ["sk-", "lk_", "one two three"] {
                assert!(!log.contains(secret), "{secret} in {log}");
            }
            Ok(())
        })
        .await;
    });
}

/// The metrics that Prometheus reads, on the socket and where scrapers are let in: what requests used, and how the accounts are.
#[test]
fn metrics_say_what_requests_used_and_how_accounts_are() {
    run(async {
        let mut stack = Stack::real("metering-metrics", async |sim, refresher| {
            sim.add_api_key("openai", "sk-one", "one").await;
            refresher.add_api_key("one", "openai", "sk-one").await;
            let life = Duration::from_secs(3600);
            refresher.log_in_new(sim, ALICE, life).await;
        })
        .await;
        let open = ["serve", "--metrics-listen", "0.0.0.0:0"];
        let refused = stack.refresher.try_run(&open, "").await;
        let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.contains("--metrics-anywhere"), "{refused}");

        stack.refresher.stop().await;
        let listen = ["--metrics-listen", "127.0.0.1:0"];
        stack.refresher.serve_with(&listen).await;
        let address = eventually("metrics are shown", RECORD_LIMIT, async || {
            let log = fs::read_to_string(stack.folder.join("refresher.log"));
            let log = log.expect("the log");
            let line = log.lines().find(|line| line.contains("showing metrics"));
            let address = line.and_then(|line| line.split_once("127.0.0.1:"));
            let port: String = address
                .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
                .unwrap_or_default();
            port.parse::<u16>().map_err(|_| log)
        })
        .await;
        stack.refresher.run(&["refresh", ALICE], "").await;
        let caller = stack.caller("metrics").await;
        for _ in 0..3 {
            assert_eq!(caller.post(CHAT, &chat_body(false)).await.status, 200);
        }
        let account = stack.refresher.account("one").await["id"].clone();
        let account = account.as_str().expect("an id");
        let of = format!("platform=\"openai\",account=\"{account}\"");
        let socket = stack.refresher.file("run/refresher.sock");
        let by_socket = reqwest::Client::builder().unix_socket(socket);
        let by_socket = by_socket.build().expect("a client");
        let by_port = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        // A page whose name was made to resolve to this machine has that name in Host.
        let rebound = by_port.get(format!("http://127.0.0.1:{address}/metrics"));
        let rebound = rebound.header("host", format!("attacker.test:{address}"));
        let rebound = rebound.send().await.expect("an answer");
        assert_eq!(rebound.status(), 421);
        let words = rebound.text().await.expect("its words");
        assert!(
            words.contains("--metrics-host") && !words.contains("attacker"),
            "{words}"
        );
        for (client, url) in [
            (by_socket, "http://refresher/metrics".to_owned()),
            (by_port, format!("http://127.0.0.1:{address}/metrics")),
        ] {
            eventually("the numbers", RECORD_LIMIT, async || {
                let page = client.get(&url).send().await.expect("an answer");
                let page = page.text().await.expect("a page");
                let lines = [
                    format!("latchkey_requests_total{{{of},status=\"2xx\"}} 3"),
                    format!("latchkey_tokens_total{{{of},kind=\"input\"}} 3"),
                    "latchkey_accounts{status=\"active\"} 2".to_owned(),
                    "latchkey_records_total{outcome=\"ingested\"} 3".to_owned(),
                ];
                let missing = lines
                    .iter()
                    .find(|line| !page.lines().any(|found| found == line.as_str()));
                missing.map_or(Ok(()), |line| Err(format!("no {line}: {page}")))
            })
            .await;
        }
    });
}
