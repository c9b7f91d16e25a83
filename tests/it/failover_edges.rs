//! Answers that are slow, early, or odd: they fail over all the same, and what cannot passes as it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    failover::Pool,
    harness::{
        Answer, Stack,
        caller::{chat_body, responses_body},
        eventually, holds, raw, records, run,
        scripted::{Script, Scripted},
        sim::account_id,
        stack::{ALICE, CODEX, OPENAI, closed_port},
    },
    metering::recorded,
};

const RESPONSES: &str = "/v1/responses";

/// In what time an answer that stalls is judged, with what a busy machine adds.
const JUDGED: Duration = Duration::from_secs(6);

/// A limited account's answer: this many bytes of its body, and then nothing.
fn stalling(bytes: u64) -> Value {
    json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "60"}, "stall_after_bytes": bytes})
}

/// Asks for a response, and returns with its head.
async fn begin(pool: &Pool) -> reqwest::Response {
    let request = reqwest::Client::new()
        .post(pool.caller.url(RESPONSES))
        .bearer_auth(pool.caller.key())
        .json(&responses_body());
    let answer = timeout(JUDGED, request.send()).await;
    answer.expect("an answer in time").expect("an answer")
}

/// An error whose body stops, or comes a byte a second, is judged by what is there.
#[test]
fn an_error_that_stalls_is_failed_over() {
    run(async {
        let dribbling = json!({
            "status": 429, "headers": {"retry-after": "60"}, "body": "{\"error\":{\"message\":\"wait\"}}",
            "piece_bytes": 1, "piece_delay_ms": 1000,
        });
        let faults = [
            ("stalling", stalling(20)),
            ("bodyless", stalling(0)),
            ("dribbling", dribbling),
        ];
        for (name, fault) in faults {
            let pool = Pool::of(&format!("failover-{name}"), &["slow", "good"]).await;
            pool.break_account("slow", fault).await;
            for _ in 0..2 {
                let begun = Instant::now();
                let answer = pool.ask(false).await;
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
                assert!(begun.elapsed() < JUDGED, "{name}: {:?}", begun.elapsed());
            }
            assert_eq!(pool.heard_from("slow").await, 1, "{name}");
            assert_eq!(pool.stack.envoy.crashes().await, 0);
        }
    });
}

/// Where there is no other account, the caller gets what there is of such an error, as it comes.
#[test]
fn an_error_that_stalls_passes_where_nobody_else_can_serve() {
    run(async {
        let pool = Pool::of("failover-stalling-last", &["slow"]).await;
        pool.break_account("slow", stalling(20)).await;
        let mut answer = begin(&pool).await;
        assert_eq!(answer.status(), 429);
        let mut body = Vec::new();
        while body.len() < 20 {
            let chunk = timeout(JUDGED, answer.chunk()).await.expect("in time");
            body.extend(chunk.expect("a chunk").expect("more"));
        }
        assert!(body.starts_with(b"{\"error\":{\"message\":"), "{body:?}");
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// A good answer is held for its first byte however long that takes, and from then on no longer than an error's.
#[test]
fn a_good_answer_is_held_for_its_first_byte_and_not_for_its_second() {
    const FAILED: &str = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":\
        {\"code\":\"server_is_overloaded\",\"message\":\"full\"}}}\n\n";
    run(async {
        let pool = Pool::of("failover-thinking", &["slow", "good"]).await;
        let thinking = json!({
            "status": 200, "headers": {"content-type": "text/event-stream"}, "body": FAILED, "times": 1,
            "after_headers_delay_ms": 4000,
        });
        pool.break_account("slow", thinking).await;
        for _ in 0..2 {
            let answer = pool.caller.post(RESPONSES, &responses_body()).await;
            assert!(
                answer.body.contains("Hello from good") || answer.body.contains("Hello from slow")
            );
        }
        assert_eq!(
            pool.heard_from("slow").await + pool.heard_from("good").await,
            3
        );

        let half = json!({"status": 200, "headers": {"content-type": "text/event-stream"},
            "body": "event: response.created\ndata: {\"type\":\"resp", "stall_after_bytes": 1000});
        for account in ["slow", "good"] {
            pool.break_account(account, half.clone()).await;
        }
        let mut answer = begin(&pool).await;
        assert_eq!(answer.status(), 200);
        let chunk = timeout(JUDGED, answer.chunk()).await.expect("in time");
        let chunk = chunk.expect("a chunk").expect("more");
        assert!(chunk.starts_with(b"event: response.created"), "{chunk:?}");
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// Events that echo the request, 150 KB of them, are held for the failure that follows in a later write:
/// another account serves it, and without one its status is that of an error.
#[test]
fn a_failure_behind_what_announces_the_answer_fails_over() {
    run(async {
        let echo = "instructions ".repeat(6_000);
        let event = |kind: &str, error: Value| {
            let event = json!({"type": kind, "response": {"error": error, "instructions": echo}});
            format!("event: {kind}\ndata: {event}\n\n")
        };
        let limited = json!({"code": "rate_limit_exceeded", "message": "Please try again in 41s."});
        let failing = event("response.created", Value::Null)
            + &event("response.in_progress", Value::Null)
            + &event("response.failed", limited.clone());
        assert!(failing.len() > 200_000);
        let fault = json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": failing,
            "piece_bytes": 16_384, "piece_delay_ms": 50});
        let pool = Pool::of("failover-announced", &["bad", "good"]).await;
        pool.break_account("bad", fault.clone()).await;
        for _ in 0..2 {
            let answer = pool.caller.post(RESPONSES, &responses_body()).await;
            assert!(answer.body.contains("Hello from good"), "{answer:?}");
        }
        pool.break_account("good", fault).await;
        let answer = pool.caller.post(RESPONSES, &responses_body()).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.json()["error"], limited, "{answer:?}");
        let seconds = answer.header("retry-after").map(str::parse::<u32>);
        let seconds = seconds.expect("a header").expect("a number");
        assert!((30..=41).contains(&seconds), "{answer:?}");
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// A platform that takes the request for a stream and says nothing is given up: without headers, and with them.
#[test]
fn the_first_event_of_a_stream_is_waited_for_no_longer_than_the_profile_says() {
    run(async {
        let pool = Pool::of("failover-silent", &["silent", "good"]).await;
        let hasty = |line: &String| {
            let mut record: Value = serde_json::from_str(line).expect("JSON");
            let platform = record.get_mut("platform")?;
            let endpoints = platform["endpoints"].as_array_mut().expect("a list");
            for endpoint in endpoints {
                endpoint["first_event_seconds"] = 1.into();
            }
            (platform["id"] == "openai").then(|| record.to_string())
        };
        let lines = records::platforms(&pool.stack.sim.platforms_dir);
        let lines: Vec<_> = lines.iter().filter_map(hasty).collect();
        let revision = pool.stack.refresher.publish(lines);
        pool.stack.reaches(revision).await;
        for silence in ["delay_ms", "after_headers_delay_ms"] {
            let events = json!({"content-type": "text/event-stream"});
            let fault = pool
                .break_account(
                    "silent",
                    json!({"status": 200, "headers": events, "body": "", silence: 20_000}),
                )
                .await;
            for _ in 0..2 {
                let answer = pool.caller.post(RESPONSES, &responses_body()).await;
                assert!(
                    answer.body.contains("Hello from good"),
                    "{silence}: {answer:?}"
                );
            }
            pool.stack.sim.remove_fault(fault).await;
        }
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// A platform that asks for a pause of some seconds is given it: the caller of a lone account does not notice.
#[test]
fn a_short_throttle_is_waited_for() {
    run(async {
        let pool = Pool::of("failover-throttle", &["lone"]).await;
        let throttled = json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "2"}, "times": 1});
        pool.break_account("lone", throttled).await;
        let begun = Instant::now();
        let answer = pool.ask(true).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(begun.elapsed() >= Duration::from_secs(1), "{answer:?}");
        assert_eq!(pool.heard_from("lone").await, 2);
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// The platform's end of connections that do not hold.
struct Fickle {
    port: u16,
    /// The requests that were read on the connections so far, in the order in which those came.
    heard: Arc<Mutex<Vec<usize>>>,
    serving: JoinHandle<()>,
}

/// What it does when the second request of a connection comes.
#[derive(Debug, Clone, Copy)]
enum Second {
    /// Reads it, and closes the connection.
    Read,
    /// Closes the connection without reading it.
    Unread,
}

impl Fickle {
    async fn start(second: Second) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let heard: Arc<Mutex<Vec<usize>>> = Arc::default();
        let all = Arc::clone(&heard);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut heard = all.lock().expect("not poisoned");
                let index = heard.len();
                heard.push(0);
                tokio::spawn(serve(stream, second, index, Arc::clone(&all)));
            }
        });
        Self {
            port,
            heard,
            serving,
        }
    }

    fn heard(&self) -> Vec<usize> {
        self.heard.lock().expect("not poisoned").clone()
    }
}

impl Drop for Fickle {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves one request of a connection, and closes that at the second.
async fn serve(
    mut stream: TcpStream,
    second: Second,
    index: usize,
    heard: Arc<Mutex<Vec<usize>>>,
) -> std::io::Result<()> {
    let answer =
        json!({"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    request(&mut stream).await?;
    heard.lock().expect("not poisoned")[index] += 1;
    stream
        .write_all(format!("{head}{answer}").as_bytes())
        .await?;
    match second {
        Second::Unread => stream.readable().await,
        Second::Read => {
            request(&mut stream).await?;
            heard.lock().expect("not poisoned")[index] += 1;
            Ok(())
        }
    }
}

/// Reads one request.
async fn request(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
            return Ok(());
        }
    }
}

/// A connection that closes as a request comes costs its caller nothing, though in HTTP/1.1 nothing tells if the platform
/// read the request: it is sent once more. What is to be kept might be there twice then, so that is not. And Envoy closes
/// idle connections before the platform does.
#[test]
fn what_breaks_as_it_comes_is_sent_once_more() {
    run(async {
        for (name, second, store, heard) in [
            ("failover-read", Second::Read, false, vec![2, 1]),
            ("failover-unread", Second::Unread, false, vec![1, 1]),
            ("failover-kept", Second::Read, true, vec![2]),
        ] {
            let platform = Fickle::start(second).await;
            let pool = Pool::of(name, &["lone"]).await;
            let (stack, port) = (&pool.stack, platform.port);
            stack.replug_in_plain_text("acc_lone", port).await;
            let answer = pool.ask(false).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            // By then the client has its connection back; by another one it might get to the other worker.
            sleep(Duration::from_millis(100)).await;
            let mut body = chat_body(false);
            body["store"] = store.into();
            let answer = pool.caller.post("/v1/chat/completions", &body).await;
            let expected = match store {
                true => (502, Some("latchkey_platform_unreachable")),
                false => (200, None),
            };
            assert_eq!((answer.status, answer.own_code()), expected, "{answer:?}");
            // It would have been sent again by now.
            sleep(Duration::from_millis(300)).await;
            assert_eq!(platform.heard(), heard, "{name}");

            stack.close_idle("acc_lone", port, 1).await;
            for count in 1..=3 {
                let answer = pool.ask(false).await;
                assert_eq!(answer.status, 200, "{name} {count}: {answer:?}");
                sleep(Duration::from_millis(1_500)).await;
            }
            let each_alone = [heard, vec![1, 1, 1]].concat();
            assert_eq!(platform.heard(), each_alone, "{name}");
            assert_eq!(stack.envoy.crashes().await, 0);
        }
    });
}

/// A connection that is never made took nothing along: a lone account gets the request over the next one.
#[test]
fn what_never_left_is_sent_once_more() {
    run(async {
        let pool = Pool::of("failover-unsent", &["lone"]).await;
        let (_, sim) = pool.stack.sim.authority().rsplit_once(':').expect("a port");
        let sim: u16 = sim.parse().expect("a number");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let door = tokio::spawn(async move {
            // The first one does not come to its TLS.
            drop(listener.accept().await);
            while let Ok((mut caller, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut platform = TcpStream::connect(("127.0.0.1", sim)).await?;
                    copy_bidirectional(&mut caller, &mut platform).await
                });
            }
        });
        pool.stack.replug("acc_lone", port).await;
        let answer = pool.ask(true).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(pool.heard_from("lone").await, 1);
        door.abort();
    });
}

/// Asks with a body of so many pieces of 64 KiB, one now and then; and its digest.
async fn upload(pool: &Pool, pieces: usize, pause: Duration) -> (Answer, String) {
    // The gate lets it go when it has read the model.
    let text = "x".repeat(pieces * 64 * 1024);
    let text = format!("{{\"model\":\"gpt-6.1-sol\",\"stream\":true,\"input\":\"{text}\"}}");
    let sum = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let chunks: Vec<_> = text
        .into_bytes()
        .chunks(64 * 1024)
        .map(<[u8]>::to_vec)
        .collect();
    let bearer = format!("Bearer {}", pool.caller.key());
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let chunks = stream::iter(chunks).then(move |chunk| async move {
        sleep(pause).await;
        Ok::<_, std::io::Error>(chunk)
    });
    let body = reqwest::Body::wrap_stream(chunks);
    (
        pool.caller.send("POST", RESPONSES, &headers, body).await,
        sum,
    )
}

/// A pool at a platform that asks nothing of a request's body: for what a platform asks, the gate reads a body to its end
/// before any of it goes out.
async fn undemanding(name: &str, accounts: &[&str]) -> Pool {
    let pool = Pool::of(name, accounts).await;
    let platforms = records::platforms(&pool.stack.sim.platforms_dir);
    let lines = platforms.into_iter().map(|line| {
        let mut record: Value = serde_json::from_str(&line).expect("JSON");
        let endpoints = record.pointer_mut("/platform/endpoints");
        for endpoint in endpoints
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let endpoint = endpoint.as_object_mut().expect("an endpoint");
            for demand in ["requires", "keeps_days"] {
                endpoint.remove(demand);
            }
        }
        record.to_string()
    });
    let revision = pool.stack.refresher.publish(lines);
    pool.stack.reaches(revision).await;
    pool
}

/// A platform that refuses a request before all of it is there, and reads the rest, ends the connection, or does not
/// read on: the request runs again when it is whole, and is the one that the caller sent.
#[test]
fn an_answer_before_the_request_is_whole_is_failed_over() {
    let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 2\r\n\r\n{}";
    run(async {
        for case in ["reads", "closes", "deaf"] {
            let pool = undemanding(&format!("failover-early-{case}"), &["hasty", "good"]).await;
            let script = Script {
                answer: head.into(),
                reads: false,
            };
            let deaf = Scripted::start(script).await;
            match case {
                "deaf" => {
                    pool.stack
                        .replug_in_plain_text("acc_hasty", deaf.port)
                        .await
                }
                _ => {
                    let fault = json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "60"}});
                    let mut fault = fault;
                    fault["early"] = case.into();
                    pool.break_account("hasty", fault).await;
                }
            }
            for (pieces, pause) in [(32, 20), (160, 1), (1, 0)] {
                let (answer, sum) = upload(&pool, pieces, Duration::from_millis(pause)).await;
                assert_eq!(answer.status, 200, "{case}: {answer:?}");
                let seen = pool.stack.sim.seen().await;
                let last = seen.last().expect("it was asked");
                assert_eq!(last.account(), Some("good"), "{case}");
                assert_eq!(last.0["body_sha256"], sum, "{case}: not the caller's body");
            }
            // The end of a connection on which something is unread can overtake the answer (RFC 9112 §9.6): the account
            // is then one that does not answer, and is asked until it has failed three times. The deaf one is no part of
            // the platform that counts.
            let times = match case {
                "reads" => 1..=1,
                "closes" => 1..=3,
                _ => 0..=0,
            };
            let heard = pool.heard_from("hasty").await;
            assert!(times.contains(&heard), "{case}: asked {heard} times");
            assert_eq!(pool.stack.envoy.crashes().await, 0, "{case}");
        }
    });
}

/// The same where the request is too large to be kept: the platform's answer passes at once if the request's length says
/// so, and where that only shows as it comes, then.
#[test]
fn an_early_answer_to_what_cannot_be_sent_again_passes() {
    run(async {
        let pool = undemanding("failover-early-large", &["hasty"]).await;
        let headers = json!({"x-trace": "7"});
        let fault =
            json!({"status": 500, "body": "too busy", "early": "reads", "headers": headers});
        pool.break_account("hasty", fault).await;
        let second = "acc_second";
        let authority = pool.stack.sim.authority();
        let lines = vec![
            records::account(second, "openai", authority, "sk-hasty", json!({})),
            records::pool("several", "fill_first", &["acc_hasty", second]),
        ];
        let revision = pool.stack.refresher.publish(lines);
        pool.stack.have_clusters(&["acc_hasty", second]).await;
        pool.stack.reaches(revision).await;

        let begun = format!(
            "POST {RESPONSES} HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{{\"model\":\"gpt-5.6\",\"input\":\"",
            pool.caller.key(),
            33 * 1024 * 1024
        );
        let answer = raw::exchange(pool.stack.envoy.port, begun.as_bytes(), 1).await;
        assert_eq!(raw::status(&answer), 500, "{answer}");
        assert!(answer.ends_with("too busy"), "{answer}");
        assert!(!answer.contains("x-latchkey"), "{answer}");

        let (answer, _) = upload(&pool, 33 * 16, Duration::ZERO).await;
        assert_eq!((answer.status, answer.body.as_str()), (500, "too busy"));
        assert_eq!(answer.header("x-trace"), Some("7"));
        assert_eq!(answer.header("content-length"), Some("8"));
        for ours in ["location", "x-latchkey-status", "x-latchkey-error"] {
            assert_eq!(answer.header(ours), None, "{answer:?}");
        }
        let records = recorded(&pool.stack.refresher, 2).await;
        for record in records {
            assert_eq!(
                (record["status"].clone(), record["error"].clone()),
                (500.into(), Value::Null)
            );
        }
        assert_eq!(pool.stack.envoy.stat("latchkey.failovers").await, 0);
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// An account behind a closed port costs a request nothing that is still being sent when that shows.
#[test]
fn a_slow_request_to_nobody_is_failed_over() {
    run(async {
        let pool = undemanding("failover-slow-nobody", &["gone", "good"]).await;
        pool.stack.replug("acc_gone", closed_port()).await;
        for _ in 0..4 {
            let (answer, sum) = upload(&pool, 16, Duration::from_millis(20)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = pool.stack.sim.seen().await;
            assert_eq!(seen.last().expect("it was asked").0["body_sha256"], sum);
        }
        // A caller's slowness is no strike. Stats are told at each worker's next tick.
        eventually("each was failed over", Duration::from_secs(5), async || {
            let failovers = pool.stack.envoy.stat("latchkey.failovers").await;
            holds(failovers == 4, || failovers.to_string())
        })
        .await;
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// Answers that are within HTTP's rules and that no platform is expected to give: each passes and ends.
#[test]
fn odd_answers_pass_and_end() {
    const BODY: &str =
        "{\"id\":\"1\",\"object\":\"response\",\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}";
    const ZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\x02\x00";
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let until_closed = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{BODY}");
    let mut zipped = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        ZIPPED.len()
    )
    .into_bytes();
    zipped.extend_from_slice(ZIPPED);
    let text = |head: &str| head.as_bytes().to_vec();
    let cases: Vec<(&str, Vec<u8>, u16, &[u8])> = vec![
        ("whole", text(&whole), 200, BODY.as_bytes()),
        (
            "100 first",
            text(&format!("HTTP/1.1 100 Continue\r\n\r\n{whole}")),
            200,
            BODY.as_bytes(),
        ),
        (
            "103 first",
            text(&format!(
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{whole}"
            )),
            200,
            BODY.as_bytes(),
        ),
        ("until it closes", text(&until_closed), 200, BODY.as_bytes()),
        ("204", text("HTTP/1.1 204 No Content\r\n\r\n"), 204, b""),
        (
            "empty",
            text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            200,
            b"",
        ),
        (
            "empty chunks",
            text("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            200,
            b"",
        ),
        ("gzip", zipped, 200, ZIPPED),
        (
            "empty error",
            text("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
            400,
            b"",
        ),
        ("304", text("HTTP/1.1 304 Not Modified\r\n\r\n"), 502, b""),
    ];
    run(async {
        let pool = Pool::of("failover-odd-answers", &["odd"]).await;
        let platform = Scripted::start(Script {
            answer: Vec::new(),
            reads: true,
        })
        .await;
        pool.stack
            .replug_in_plain_text("acc_odd", platform.port)
            .await;
        let count = cases.len();
        for (case, answer, status, body) in cases {
            platform.answers(answer);
            let request = reqwest::Client::new()
                .post(pool.caller.url(RESPONSES))
                .bearer_auth(pool.caller.key())
                .json(&responses_body());
            let answer = timeout(JUDGED, request.send())
                .await
                .expect(case)
                .expect(case);
            assert_eq!(answer.status(), status, "{case}: {answer:?}");
            let got = timeout(JUDGED, answer.bytes())
                .await
                .expect(case)
                .expect(case);
            if status != 502 {
                assert_eq!(&got[..], body, "{case}");
            }
        }
        let records = recorded(&pool.stack.refresher, count).await;
        for record in &records {
            let expected = if record["status"] == 502 {
                Value::Null
            } else {
                "fine".into()
            };
            let expected = if record["status"] == 400 {
                "callers_fault".into()
            } else {
                expected
            };
            assert_eq!(record["verdict"], expected, "{record}");
        }
        assert_eq!(records.len(), count);
        let head = pool
            .caller
            .send("HEAD", RESPONSES, &[("x-api-key", pool.caller.key())], "")
            .await;
        assert_eq!((head.status, head.body.as_str()), (405, ""), "{head:?}");
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// Of twenty accounts that all fail as many are asked as the configuration says, each once, and the caller gets, byte
/// for byte, what the last of them said.
#[test]
fn a_request_is_tried_as_often_as_configured_and_on_no_account_twice() {
    run(async {
        for attempts in [4, 16] {
            let setting = format!("\"max_attempts\": {attempts}");
            let name = format!("failover-all-{attempts}");
            let stack =
                Stack::edited(&name, |text| text.replace("\"max_attempts\": 4", &setting)).await;
            let names: Vec<_> = (0..20).map(|n| format!("f{n}")).collect();
            let accounts: Vec<_> = names.iter().map(String::as_str).collect();
            let pool = Pool::on(stack, &accounts).await;
            for account in &accounts {
                let body = format!("{{\"error\":  {{\"message\":\"not {account}\"}}}}\n");
                pool.break_account(account, json!({"status": 503, "body": body}))
                    .await;
            }
            let answer = pool
                .caller
                .post("/v1/chat/completions", &chat_body(false))
                .await;
            let seen = pool.stack.sim.seen().await;
            let asked: Vec<_> = seen.iter().filter_map(|one| one.account()).collect();
            let asked: Vec<_> = asked
                .into_iter()
                .filter(|one| accounts.contains(one))
                .collect();
            let mut times: HashMap<&str, usize> = HashMap::new();
            asked
                .iter()
                .for_each(|one| *times.entry(one).or_default() += 1);
            assert_eq!(times.len(), attempts, "{asked:?}");
            assert!(times.values().all(|count| *count == 1), "{asked:?}");
            let last = asked.last().expect("one was asked");
            let body = format!("{{\"error\":  {{\"message\":\"not {last}\"}}}}\n");
            assert_eq!((answer.status, answer.body), (503, body));
            assert_eq!(answer.headers.get("location"), None);
            assert_eq!(pool.stack.envoy.crashes().await, 0);
        }
    });
}

/// A request waits for a refresh, and is tried on other accounts, for as long as the configuration says.
#[test]
fn a_request_waits_and_is_tried_as_long_as_configured() {
    /// `refresh_wait_seconds`, and `failover_seconds`.
    const SECONDS: u64 = 3;
    const CONFIGURED: Duration = Duration::from_secs(SECONDS);
    /// The time that a busy machine adds. With it, it is still less than what is waited without a configuration, 10 s.
    const LATE: Duration = Duration::from_secs(5);
    /// The gate's clock may be behind by this much.
    const EARLY: Duration = Duration::from_millis(100);
    const ACCOUNTS: [&str; 4] = ["p1", "p2", "p3", "p4"];
    run(async {
        let setting = format!(
            "\"max_attempts\": 4, \"refresh_wait_seconds\": {SECONDS}, \"failover_seconds\": {SECONDS}"
        );
        let edit = |text: &str| text.replace("\"max_attempts\": 4", &setting);
        let stack = Stack::edited("failover-patience", edit).await;
        let pool = Pool::on(stack, &ACCOUNTS).await;
        let ask = async || {
            let before = pool.stack.sim.seen().await.len();
            let answer = pool.ask(false).await;
            assert_eq!(
                (answer.status, answer.own_code()),
                (503, None),
                "{answer:?}"
            );
            pool.stack.sim.seen().await.len() - before
        };
        let mut faults = Vec::new();
        for account in ACCOUNTS {
            let fault = json!({"status": 503, "body": "down"});
            faults.push(pool.break_account(account, fault).await);
        }
        assert_eq!(ask().await, ACCOUNTS.len(), "there is time for all");
        for fault in faults {
            pool.stack.sim.remove_fault(fault).await;
        }
        for account in ACCOUNTS {
            let delay = 1_000 * SECONDS + 500;
            let fault = json!({"status": 503, "body": "down", "delay_ms": delay});
            pool.break_account(account, fault).await;
        }
        // The second fails when the time since the first failure is over.
        assert_eq!(ask().await, 2, "the time is over");

        // An account whose token has ended, and one whose token the platform no longer takes: nobody refreshes them.
        let authority = pool.stack.sim.authority();
        let ended = json!({"credential_expires_at": 1});
        let ended = records::account(OPENAI, "openai", authority, "sk-openai", ended);
        let token = pool.stack.sim.login(ALICE).await.access_token;
        let refused = json!({
            "vars": {"account_id": account_id(ALICE)}, "generation": 2, "credential_expires_at": u64::MAX / 2,
        });
        let refused = records::account(CODEX, "codex", authority, &token, refused);
        let revision = pool.stack.refresher.publish([ended, refused]);
        pool.stack.have_clusters(&[OPENAI, CODEX]).await;
        pool.stack.reaches(revision).await;
        let path = format!("/users/{ALICE}/expire_access");
        pool.stack.sim.ask(Method::POST, &path, json!({})).await;
        for name in ["openai", "codex"] {
            let start = Instant::now();
            let answer = pool
                .stack
                .caller(name)
                .post(RESPONSES, &responses_body())
                .await;
            let took = start.elapsed();
            println!("{name}: {took:?}");
            let expected = (503, Some("latchkey_all_out"));
            assert_eq!((answer.status, answer.own_code()), expected, "{answer:?}");
            let allowed = CONFIGURED - EARLY..CONFIGURED + LATE;
            assert!(allowed.contains(&took), "{name}: {took:?}");
        }
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// A platform that gives up after its first byte has said something about the account: the answer passes, and the next
/// requests go elsewhere as they do after the same error as a status.
#[test]
fn an_error_in_the_middle_of_a_stream_takes_the_account_out() {
    let event = |data: Value| format!("data: {data}\n\n");
    let output = event(json!({"type": "response.output_text.delta", "delta": "half of "}));
    let failed = |code: &str, message: &str| {
        let error = json!({"code": code, "message": message});
        event(json!({"type": "response.failed", "response": {"status": "failed", "error": error}}))
    };
    let limited = failed(
        "rate_limit_exceeded",
        "Rate limit reached. Please try again in 60s.",
    );
    let overloaded = failed("server_is_overloaded", "Selected model is at capacity.");
    let fault = failed(
        "context_length_exceeded",
        "Your input exceeds the context window.",
    );
    run(async {
        // How often the platform hears from it in twelve requests, of which it gets about every second one.
        for (case, end, verdict, times) in [
            ("limited", limited, "cooling_down", 1..=1),
            ("overloaded", overloaded, "platform_trouble", 3..=4),
            ("fault", fault, "callers_fault", 4..=8),
        ] {
            let pool = Pool::of(&format!("failover-middle-{case}"), &["bad", "good"]).await;
            let body = format!("{output}{end}");
            let fault = json!({
                "status": 200, "headers": {"content-type": "text/event-stream"}, "body": body,
                "piece_bytes": 64, "piece_delay_ms": 1,
            });
            pool.break_account("bad", fault).await;
            let caller = pool.stack.caller("several");
            for _ in 0..12 {
                let answer = caller.post(RESPONSES, &responses_body()).await;
                assert_eq!(answer.status, 200, "{case}: {answer:?}");
            }
            let heard = pool.heard_from("bad").await;
            assert!(times.contains(&heard), "{case}: {heard} times");
            let records = recorded(&pool.stack.refresher, 12).await;
            let failed = records
                .iter()
                .find(|record| record["error"] == "failed_inside");
            assert_eq!(failed.expect("a record")["verdict"], verdict, "{case}");
            assert_eq!(pool.stack.envoy.crashes().await, 0, "{case}");
        }
    });
}
