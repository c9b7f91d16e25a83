//! The platform gets exactly the caller's bytes, or nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::stream;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::{
    failover::Pool,
    harness::{
        Answer, Caller, Stack,
        compress::{gzip, zstd},
        raw, run,
        yardstick::Yardstick,
    },
};

const PATH: &str = "/v1/responses";

/// The most that a body may stand for.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// A frame of three pieces with a flush between them, by libzstd: a request with three million letters in the middle.
const FLUSHED: &[u8] = include_bytes!("../../fixtures/coded/run.zst");

/// The stack that these tests share.
async fn stack() -> Arc<Stack> {
    Stack::shared("laws-bytes").await
}

/// A request with so many bytes of one letter in it.
fn request(letters: usize) -> Vec<u8> {
    let mut body = br#"{"model":"gpt-5.6","input":""#.to_vec();
    body.resize(body.len() + letters, b'a');
    body.extend(br#""}"#);
    body
}

/// Sends a body in that coding.
async fn send(caller: &Caller, path: &str, coding: &str, body: impl Into<reqwest::Body>) -> Answer {
    let headers = [
        ("x-api-key", caller.key()),
        ("content-type", "application/json"),
        ("content-encoding", coding),
    ];
    caller.send("POST", path, &headers, body).await
}

fn sha256(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body that comes piece by piece, without a length.
fn in_pieces(body: &[u8], length: usize) -> reqwest::Body {
    let pieces: Vec<_> = body.chunks(length).map(<[u8]>::to_vec).collect();
    let pieces = stream::unfold(pieces.into_iter(), async |mut pieces| {
        let piece = pieces.next()?;
        tokio::time::sleep(Duration::from_millis(2)).await;
        Some((Ok::<_, std::io::Error>(piece), pieces))
    });
    reqwest::Body::wrap_stream(pieces)
}

#[test]
fn a_compressed_body_reaches_the_platform_as_what_it_stands_for() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let small = request(2);
        let letters = request(200_000);
        let flushed = String::from_utf8(request(3_000_000)).expect("ASCII");
        let flushed = flushed.replace('a', "x").into_bytes();
        // More than one callback decodes.
        let most = request(MAX_BYTES - request(0).len());
        let (first, second) = letters.split_at(77);
        let members = [gzip(first), gzip(second)].concat();
        for (name, coding, coded, plain) in [
            ("gzip", "gzip", gzip(&small), small.clone()),
            ("zstd", "ZSTD", zstd(&small), small.clone()),
            ("letters", "gzip", gzip(&letters), letters.clone()),
            ("flushed", "zstd", FLUSHED.to_vec(), flushed),
            ("members", "x-gzip", members, letters),
            ("most-gzip", "gzip", gzip(&most), most.clone()),
            ("most-zstd", "identity, zstd", zstd(&most), most),
            ("plain", "identity", small.clone(), small),
        ] {
            for slowly in [false, true] {
                let path = format!("{PATH}?{name}-{slowly}");
                let body = match slowly {
                    true => in_pieces(&coded, coded.len() / 7 + 1),
                    false => coded.clone().into(),
                };
                let answer = send(&caller, &path, coding, body).await;
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                let seen = stack.sim.seen_once(&path).await;
                assert_eq!(seen.0["body_length"], plain.len(), "{path}");
                assert_eq!(seen.0["body_sha256"], sha256(&plain), "{path}");
                assert!(seen.header("content-encoding").is_empty(), "{path}");
                if name != "plain" {
                    let length = plain.len().to_string();
                    assert_eq!(seen.header("content-length"), [length], "{path}");
                }
            }
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

#[test]
fn nothing_is_sent_of_a_body_that_stands_for_nothing() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let good = gzip(&request(50));
        let cut = good[..good.len() - 12].to_vec();
        let mut flipped = good.clone();
        let at = flipped.len() - 5;
        flipped[at] ^= 1;
        let trailed = [good.as_slice(), b"more"].concat();
        let window = b"\x28\xb5\x2f\xfd\x00\x88\x09\x00\x00\x7b".to_vec();
        let too_much = request(MAX_BYTES - request(0).len() + 1);
        let garbage = request(9);
        for (name, coding, body, status, code) in [
            ("cut", "gzip", cut, 400, "broken_body"),
            ("flipped", "gzip", flipped, 400, "broken_body"),
            ("trailed", "gzip", trailed, 400, "broken_body"),
            ("no-gzip", "gzip", garbage.clone(), 400, "broken_body"),
            ("no-zstd", "zstd", garbage, 400, "broken_body"),
            ("window", "zstd", window, 400, "broken_body"),
            ("much-gzip", "gzip", gzip(&too_much), 413, "body_too_large"),
            ("much-zstd", "zstd", zstd(&too_much), 413, "body_too_large"),
            ("two", "gzip, zstd", zstd(&good), 415, "unknown_encoding"),
            ("br", "br", good.clone(), 415, "unknown_encoding"),
        ] {
            let path = format!("{PATH}?{name}");
            let answer = send(&caller, &path, coding, body).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            let code = format!("latchkey_{code}");
            assert_eq!(answer.own_code(), Some(&*code), "{name}: {answer:?}");
            assert_eq!(answer.json()["error"]["code"], *code, "{name}");
            let accepted = (status == 415).then_some("gzip, zstd");
            assert_eq!(answer.header("accept-encoding"), accepted, "{name}");
            let seen = stack.sim.seen().await;
            assert!(seen.iter().all(|seen| seen.path() != path), "{name}");
        }
        // What tells a length that no body may have is refused before it comes.
        for path in [PATH, "/v1/messages"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: gateway\r\nx-api-key: {}\r\ncontent-encoding: gzip\r\n\
                content-length: {}\r\n\r\n",
                stack.caller("all").key(),
                MAX_BYTES + 1
            );
            let answer = raw::exchange(stack.envoy.port, head.as_bytes(), 1).await;
            assert_eq!(raw::status(&answer), 413, "{answer}");
            for part in [
                "x-latchkey-error: latchkey_body_too_large",
                "x-should-retry: false",
            ] {
                assert!(answer.contains(part), "{answer}");
            }
            let is_messages = answer.contains("request_too_large");
            assert_eq!(is_messages, path != PATH, "{answer}");
        }
        // The next one is as welcome as ever.
        let answer = send(&caller, PATH, "gzip", good).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Each of them had the gateway reserve 128 MiB. The stack is its own: the bodies of other tests are memory too.
#[test]
fn windows_that_are_announced_take_no_memory_and_nobodys_turn() {
    run(async {
        let stack = Stack::start("laws-bytes-windows").await;
        let port = stack.envoy.port;
        let caller = stack.caller("openai");
        let ask_twenty_times = async || {
            let began = Instant::now();
            for _ in 0..20 {
                let answer = send(&caller, PATH, "zstd", zstd(&request(9))).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            began.elapsed()
        };
        // The connection is there then.
        ask_twenty_times().await;
        let usual = ask_twenty_times().await;
        let before = stack.envoy.stat("server.memory_allocated").await;
        let mut open = Vec::new();
        for _ in 0..16 {
            let head = format!(
                "POST {PATH} HTTP/1.1\r\nhost: gateway\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
                content-encoding: zstd\r\ncontent-length: 1000000\r\n\r\n",
                caller.key()
            );
            let frame = b"\x28\xb5\x2f\xfd\x00\x88\x09\x00\x00\x7b";
            open.push(raw::open(port, &[head.as_bytes(), frame].concat()).await);
        }
        let took = ask_twenty_times().await;
        assert!(
            took < 5 * usual + Duration::from_secs(1),
            "{took:?} in place of {usual:?}"
        );
        let after = stack.envoy.stat("server.memory_allocated").await;
        let grown = after.saturating_sub(before) / 1024 / 1024;
        assert!(grown < 64, "{grown} MiB");
        drop(open);
    });
}

/// 32 MiB and a little in a few KB each: the worker gives each of them a turn at a time.
#[test]
fn bodies_that_take_long_to_decode_take_no_turn_of_others() {
    run(async {
        let stack = stack().await;
        let bomb = zstd(&request(MAX_BYTES));
        assert!(bomb.len() < 64 * 1024, "{} bytes", bomb.len());
        let mut bombs = JoinSet::new();
        for _ in 0..8 {
            let (caller, bomb) = (stack.caller("openai"), bomb.clone());
            bombs.spawn(async move { send(&caller, PATH, "zstd", bomb).await.status });
        }
        // What the gate answers by itself, so that nobody else's time is in it.
        let caller = stack.caller("anthropic");
        let (mut slowest, mut asked) = (Duration::ZERO, 0);
        let yardstick = Yardstick::start();
        while !bombs.is_empty() {
            let (asked_at, began) = (SystemTime::now(), Instant::now());
            let answer = caller.get("/v1/models").await;
            let late = yardstick.late(asked_at, SystemTime::now());
            slowest = slowest.max(began.elapsed().saturating_sub(late));
            asked += 1;
            assert_eq!(answer.status, 200, "{answer:?}");
            while let Some(done) = bombs.try_join_next() {
                assert_eq!(done.expect("it ran"), 413);
            }
        }
        assert!(asked >= 20, "{asked} requests beside the bombs");
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    });
}

#[test]
fn what_runs_again_are_the_bytes_that_were_decoded_once() {
    run(async {
        let pool = Pool::of("laws-bytes-failover", &["one", "two", "three"]).await;
        let plain = request(5_000_000);
        let limited = json!({"fixture": "openai/rate_limit_exceeded.json"});
        let broken = json!({"drop_before_answer": true});
        let failed = json!({"status": 500, "body": ""});
        for (name, mut fault, coding, coded) in [
            ("limited", limited, "gzip", gzip(&plain)),
            ("broken", broken, "zstd", zstd(&plain)),
            ("failed", failed, "zstd", zstd(&plain)),
        ] {
            fault["target"] = "upstream".into();
            fault["times"] = 1.into();
            pool.stack.sim.add_fault(fault).await;
            let path = format!("{PATH}?{name}");
            let answer = send(&pool.caller, &path, coding, coded).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            let seen = pool.stack.sim.seen().await;
            let tries: Vec<_> = seen.iter().filter(|seen| seen.path() == path).collect();
            assert_eq!(tries.len(), 2, "{name}: {tries:?}");
            assert_ne!(tries[0].account(), tries[1].account(), "{name}");
            for one in tries {
                assert_eq!(one.0["body_sha256"], sha256(&plain), "{name}");
                assert!(one.header("content-encoding").is_empty(), "{name}");
            }
        }
    });
}
