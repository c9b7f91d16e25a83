//! Limits of accounts and client keys, as callers and operators meet them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use latchkey::limit::{
    LEASE_MS,
    settle::{Line, SETTLE_MS},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, sync::OnceCell, time::MissedTickBehavior};

use crate::{
    crash::Crashable,
    harness::{
        Answer, Caller, Stack,
        caller::chat_body,
        envoy::Envoy,
        eventually, holds,
        http2::Http2,
        kept::Home,
        raw, records,
        refresher::Refresher,
        relay::{Relay, Round},
        run, stack,
        stack::SYNC_LIMIT,
        stack::client_key,
        wall_clock::WallClock,
    },
};

const CHAT: &str = "/v1/chat/completions";

/// The time for which the streams of a VM count after it last renewed them.
const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// The time for which a new Envoy does not know what was used before: the settle interval, a tick, and what a busy machine adds for
/// the refresher's answer.
const FIRST_ANSWER: Duration = Duration::from_millis(SETTLE_MS + 100 + 1_900);

/// For how long a request waits for a refresh, as the filter does unless told otherwise.
const REFRESH_WAIT: Duration = Duration::from_secs(10);

/// The first millisecond of the minute that a clock shows.
fn minute(clock: &WallClock) -> u64 {
    clock.unix_seconds() / 60 * 60_000
}

/// The revision that the refresher has published.
async fn revision(refresher: &Refresher) -> u64 {
    let status = refresher.run(&["status", "--json"], "").await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status["revision"].as_u64().expect("a revision")
}

/// A stack with these limits on the client key and on the accounts of OpenAI's API in its pool.
struct Limited {
    stack: Stack,
    /// Envoy's.
    clock: WallClock,
    key: String,
}

impl Limited {
    async fn start(name: &str, of_key: Value, accounts: &[(&str, Value)]) -> Self {
        let (stack, clock) = Stack::with_clock(name).await;
        let ids: Vec<_> = accounts.iter().map(|(id, _)| *id).collect();
        let mut lines = Vec::new();
        for (id, limits) in accounts {
            let secret = format!("sk-{id}");
            stack.sim.add_api_key("openai", &secret, id).await;
            let limits = json!({"limits": limits});
            let authority = stack.sim.authority();
            lines.push(records::account(id, "openai", authority, &secret, limits));
        }
        lines.push(records::pool("limited", "round_robin", &ids));
        let key = client_key("limited");
        let other = json!({"name": "alice", "limits": of_key});
        lines.push(records::key_with("key_limited", &key, "limited", other));
        lines.push(records::key("key_free", &client_key("free"), "limited"));
        let revision = stack.refresher.publish(lines);
        stack.have_clusters(&ids).await;
        stack.reaches(revision).await;
        Self { stack, clock, key }
    }

    /// A caller with a connection of its own.
    fn caller(&self) -> Caller {
        Caller::new(self.stack.envoy.port, &self.key)
    }

    /// The number of chat completions that the platform was asked for, by account.
    async fn heard(&self, account: &str) -> usize {
        let seen = self.stack.sim.seen().await;
        seen.iter()
            .filter(|seen| seen.account() == Some(account))
            .count()
    }
}

fn is_limit(answer: &Answer) -> bool {
    answer.status == 429 && answer.own_code() == Some("latchkey_limit")
}

fn retry_after(answer: &Answer) -> u64 {
    let seconds = answer.header("retry-after").expect("a retry-after");
    seconds.parse().expect("seconds")
}

/// `count` requests at the same time, each over a connection of its own; how each ended.
async fn burst(callers: impl IntoIterator<Item = Caller>, each: usize) -> Vec<Answer> {
    let sending: Vec<_> = callers
        .into_iter()
        .map(|caller| {
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..each {
                    answers.push(caller.post(CHAT, &chat_body(false)).await);
                }
                answers
            })
        })
        .collect();
    let mut answers = Vec::new();
    for sent in sending {
        answers.extend(sent.await.expect("sent"));
    }
    answers
}

#[test]
fn a_keys_requests_a_minute_are_exact_on_two_workers_under_load() {
    run(async {
        let of_key = json!({"requests_per_minute": 40});
        let mut limited = Limited::start("limits-rpm", of_key, &[("acc_a", json!({}))]).await;
        limited.clock.jump_early(45);
        let answers = burst((0..10).map(|_| limited.caller()), 12).await;
        let good = answers.iter().filter(|one| one.status == 200).count();
        assert_eq!(good, 40, "of {}", answers.len());
        assert_eq!(limited.heard("acc_a").await, 40);
        let refused: Vec<_> = answers.iter().filter(|one| one.status != 200).collect();
        for answer in &refused {
            assert!(is_limit(answer), "{answer:?}");
            assert!((1..=60).contains(&retry_after(answer)), "{answer:?}");
            let error = &answer.json()["error"];
            let message = error["message"].as_str().expect("a message");
            assert!(
                message.contains("\"alice\"") && message.contains("40 requests a minute"),
                "{message}"
            );
            assert!(!answer.body.contains(&limited.key));
        }
        // What the gateway answers by itself is no request to count; another key has its own limits.
        assert_eq!(limited.caller().get("/v1/models").await.status, 200);
        let other = limited.stack.caller("free");
        assert_eq!(other.post(CHAT, &chat_body(false)).await.status, 200);
        assert_eq!(limited.stack.envoy.crashes().await, 0);
    });
}

#[test]
fn a_request_after_retry_after_is_served() {
    run(async {
        let of_key = json!({"requests_per_minute": 2});
        let mut limited = Limited::start("limits-retry", of_key, &[("acc_a", json!({}))]).await;
        let caller = limited.caller();
        // Late in a minute, so that the wait is short.
        limited.clock.jump_to_second(55);
        let refused = loop {
            let answer = caller.post(CHAT, &chat_body(false)).await;
            if is_limit(&answer) {
                break answer;
            }
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        let wait = retry_after(&refused);
        println!(
            "refused at second {}, retry-after {wait}",
            limited.clock.second()
        );
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let answer = caller.post(CHAT, &chat_body(false)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn others_take_over_from_an_account_at_its_limit() {
    run(async {
        let three = json!({"requests_per_minute": 3});
        let accounts = [
            ("acc_a", three.clone()),
            ("acc_b", json!({"requests_per_minute": 5})),
        ];
        let mut limited = Limited::start("limits-account", json!({}), &accounts).await;
        limited.clock.jump_early(40);
        let answers = burst((0..4).map(|_| limited.caller()), 5).await;
        let good = answers.iter().filter(|one| one.status == 200).count();
        assert_eq!(good, 8);
        assert_eq!(
            (limited.heard("acc_a").await, limited.heard("acc_b").await),
            (3, 5)
        );
        for answer in answers.iter().filter(|one| one.status != 200) {
            assert_eq!(
                (answer.status, answer.own_code()),
                (429, Some("latchkey_all_out"))
            );
            assert!((1..=60).contains(&retry_after(answer)));
            for named in ["acc_a (limit)", "acc_b (limit)"] {
                assert!(answer.body.contains(named), "{answer:?}");
            }
        }
        // More is allowed from now on: nobody waits for the end of the minute.
        let authority = limited.stack.sim.authority();
        let more = json!({"limits": {"requests_per_minute": 4}});
        let line = records::account("acc_a", "openai", authority, "sk-acc_a", more);
        let revision = limited.stack.refresher.publish([line]);
        limited.stack.reaches(revision).await;
        let caller = limited.caller();
        eventually("the new limit holds", SYNC_LIMIT, async || {
            let answer = caller.post(CHAT, &chat_body(false)).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
    });
}

#[test]
fn a_request_that_fails_over_counts_once_at_its_key() {
    run(async {
        let of_key = json!({"requests_per_minute": 4, "concurrent_streams": 1});
        let one = json!({"concurrent_streams": 1});
        let accounts = [("acc_a", one.clone()), ("acc_b", one)];
        let mut limited = Limited::start("limits-failover", of_key, &accounts).await;
        limited
            .stack
            .sim
            .add_fault(json!({"target": "upstream", "account": "acc_a", "status": 503}))
            .await;
        limited.clock.jump_early(30);
        let caller = limited.caller();
        for _ in 0..4 {
            let answer = caller.post(CHAT, &chat_body(false)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert!(limited.heard("acc_a").await > 0, "nothing failed over");
        let answer = caller.post(CHAT, &chat_body(false)).await;
        assert!(is_limit(&answer), "{answer:?}");
        assert!(answer.body.contains("4 requests a minute"), "{answer:?}");
    });
}

/// Requests that the platform answers late.
struct Open(Vec<tokio::task::JoinHandle<reqwest::Result<Answer>>>);

impl Open {
    /// Sends `count` of them, and waits until the platform has all.
    async fn requests(limited: &Limited, count: usize) -> Self {
        let before = limited.heard("acc_a").await;
        let sending = (0..count).map(|_| {
            let caller = limited.caller();
            tokio::spawn(async move { caller.try_post(CHAT, &chat_body(false)).await })
        });
        let sending = Self(sending.collect());
        eventually("the platform has them", SYNC_LIMIT, async || {
            let heard = limited.heard("acc_a").await - before;
            holds(heard == count, || format!("{heard}"))
        })
        .await;
        sending
    }
}

#[test]
fn streams_are_limited_and_free_again_however_they_end() {
    run(async {
        let of_key = json!({"concurrent_streams": 3});
        let of_account = json!({"concurrent_streams": 4});
        let limited = Limited::start("limits-streams", of_key, &[("acc_a", of_account)]).await;
        let slow = json!({"target": "upstream", "account": "acc_a", "delay_ms": 6_000, "times": 3});
        limited.stack.sim.add_fault(slow).await;
        let open = Open::requests(&limited, 3).await;
        let refused = limited.caller().post(CHAT, &chat_body(false)).await;
        assert!(is_limit(&refused), "{refused:?}");
        assert_eq!(retry_after(&refused), 1);
        assert!(
            refused.body.contains("3 requests at the same time"),
            "{refused:?}"
        );
        for answer in open.0 {
            assert_eq!(answer.await.expect("sent").expect("an answer").status, 200);
        }
        let answer = limited.caller().post(CHAT, &chat_body(false)).await;
        assert_eq!(answer.status, 200, "they have ended: {answer:?}");

        // Callers that go away.
        let slow =
            json!({"target": "upstream", "account": "acc_a", "delay_ms": 60_000, "times": 3});
        limited.stack.sim.add_fault(slow).await;
        let open = Open::requests(&limited, 3).await;
        assert!(is_limit(
            &limited.caller().post(CHAT, &chat_body(false)).await
        ));
        open.0.iter().for_each(tokio::task::JoinHandle::abort);
        // Well before any lease lapses.
        eventually(
            "their streams are free",
            Duration::from_secs(5),
            async || {
                let answer = limited.caller().post(CHAT, &chat_body(false)).await;
                holds(answer.status == 200, || format!("{answer:?}"))
            },
        )
        .await;
        let answers = burst((0..3).map(|_| limited.caller()), 4).await;
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "none is left held"
        );
    });
}

/// Where all accounts have as many requests under way as they may, the next one waits for a place, and is not refused.
#[test]
fn a_request_waits_for_a_place() {
    run(async {
        let one = json!({"concurrent_streams": 1});
        let limited = Limited::start("limits-place", json!({}), &[("acc_a", one)]).await;
        let slow = json!({"target": "upstream", "account": "acc_a", "delay_ms": 2_000, "times": 1});
        limited.stack.sim.add_fault(slow).await;
        let open = Open::requests(&limited, 1).await;
        let answers = burst((0..3).map(|_| limited.caller()), 1).await;
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "{answers:?}"
        );
        for answer in open.0 {
            assert_eq!(answer.await.expect("sent").expect("an answer").status, 200);
        }
        assert_eq!(limited.heard("acc_a").await, 4);
    });
}

/// A place goes on when its stream ends: at the ticks of a worker alone, a tenth of a second each, so many would take longer.
#[test]
fn a_place_is_handed_on_at_once() {
    const MOST: Duration = Duration::from_secs(9);
    // As many streams as a connection may have.
    const COUNT: usize = 100;
    run(async {
        let one = json!({"concurrent_streams": 1});
        let limited = Limited::start("limits-hand-on", json!({}), &[("acc_a", one)]).await;
        let bearer = format!("Bearer {}", limited.key);
        let body = chat_body(false).to_string();
        let headers = [
            ("authorization", &*bearer),
            ("content-type", "application/json"),
        ];
        // One connection is at one worker.
        let connection = Http2::connect(limited.stack.envoy.port).await;
        let begun = Instant::now();
        let pieces = [&*body];
        let posts = (0..COUNT).map(|_| connection.post(CHAT, &headers, &pieces, None));
        for (status, answer) in join_all(posts).await {
            assert_eq!(status, 200, "{answer}");
        }
        assert!(begun.elapsed() < MOST, "{:?}", begun.elapsed());
    });
}

/// A key at a limit is told so at its request's headers: no body of it is kept. An upload is a request under way, until
/// its caller goes.
#[test]
fn a_key_at_its_limit_uploads_nothing() {
    run(async {
        let of_key = json!({"requests_per_minute": 20, "concurrent_streams": 2});
        let mut limited = Limited::start("limits-upload", of_key, &[("acc_a", json!({}))]).await;
        limited.clock.jump_early(40);
        let body = chat_body(false).to_string();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            limited.key,
            body.len()
        );
        let port = limited.stack.envoy.port;
        // A worker reads the snapshot with its first request, which waits for that: no place is taken before.
        for _ in 0..10 {
            limited.caller().post(CHAT, &chat_body(false)).await;
        }
        let under_way = async || limited.stack.envoy.stat("downstream_rq_active").await;
        let idle = under_way().await;
        let two = async || {
            let mut uploads = Vec::new();
            for _ in 0..2 {
                uploads.push(raw::open(port, head.as_bytes()).await);
            }
            eventually("they are under way", SYNC_LIMIT, async || {
                let found = under_way().await;
                holds(found == idle + 2, || format!("{found}, {idle} before"))
            })
            .await;
            uploads
        };
        let mut uploads = two().await;
        let refused = raw::exchange(port, head.as_bytes(), 1).await;
        assert_eq!(raw::status(&refused), 429, "{refused}");
        assert!(refused.contains("2 requests at the same time"), "{refused}");
        // Bodies that come after all are served: their own streams are not in their way.
        for upload in &mut uploads {
            upload.write_all(body.as_bytes()).await.expect("sent");
            let answer = raw::read(upload, 1).await;
            assert_eq!(raw::status(&answer), 200, "{answer}");
        }
        drop(uploads);
        // Callers that go away in the middle; well before any lease lapses.
        drop(two().await);
        eventually("they are not", Duration::from_secs(5), async || {
            let answers = burst((0..2).map(|_| limited.caller()), 1).await;
            holds(answers.iter().all(|one| one.status == 200), || {
                format!("{answers:?}")
            })
        })
        .await;
        while limited.heard("acc_a").await < 20 {
            limited.caller().post(CHAT, &chat_body(false)).await;
        }
        let refused = raw::exchange(port, head.as_bytes(), 1).await;
        assert_eq!(raw::status(&refused), 429, "{refused}");
        assert!(refused.contains("20 requests a minute"), "{refused}");
        assert!(refused.contains("retry-after"), "{refused}");
        assert_eq!(limited.heard("acc_a").await, 20);
    });
}

#[test]
fn a_crashed_worker_holds_its_streams_no_longer_than_their_lease() {
    run(async {
        let _permit = stack::permit().await;
        let home = Home::alone("limits-crash");
        let mut clock = WallClock::new(&home.folder).await;
        let crashable = Crashable::start(home).await;
        let one = json!({"limits": {"concurrent_streams": 1}});
        let key = client_key("openai");
        crashable
            .refresher
            .publish([records::key_with("key_1", &key, "openai", one)]);
        let caller = |key: &str| Caller::new(crashable.envoy.port, key);
        let before = crashable.sim.seen().await.len();
        let slow = json!({"target": "upstream", "delay_ms": 120_000, "times": 1});
        crashable.sim.add_fault(slow).await;
        let held = caller(&key);
        let open = tokio::spawn(async move { held.try_post(CHAT, &chat_body(false)).await });
        eventually("the platform has it", SYNC_LIMIT, async || {
            let heard = crashable.sim.seen().await.len() - before;
            holds(heard == 1, || heard.to_string())
        })
        .await;
        eventually("the key is at its limit", SYNC_LIMIT, async || {
            let answer = caller(&key).post(CHAT, &chat_body(false)).await;
            holds(is_limit(&answer), || format!("{answer:?}"))
        })
        .await;
        // Connections go to either worker: of so many, some to the one that serves the request.
        for _ in 0..24 {
            let header = [("x-latchkey-crash", "1")];
            let poison = caller("lk_poison");
            poison.try_send("GET", "/v1/models", &header, "").await.ok();
        }
        assert!(
            crashable.envoy.crashes().await >= 2,
            "the poison did not work"
        );
        let ask = async || caller(&key).try_post(CHAT, &chat_body(false)).await;
        eventually("its stream is held still", SYNC_LIMIT, async || {
            let answer = ask().await;
            holds(answer.as_ref().is_ok_and(is_limit), || {
                format!("{answer:?}")
            })
        })
        .await;
        clock.pass(LEASE);
        eventually("its lease lapses", SYNC_LIMIT, async || {
            let answer = ask().await;
            holds(
                answer.as_ref().is_ok_and(|answer| answer.status == 200),
                || format!("{answer:?}"),
            )
        })
        .await;
        open.abort();
    });
}

#[test]
fn limits_are_set_shown_and_taken_off_while_all_runs() {
    run(async {
        let clock = OnceCell::new();
        let stack = Stack::real("limits-cli", async |sim, refresher| {
            let new = WallClock::new(refresher.folder()).await;
            clock.set(new).expect("the first");
            sim.add_api_key("openai", "sk-1", "one").await;
            refresher.add_api_key("one", "openai", "sk-1").await;
        })
        .await;
        let caller = stack.caller("alice").await;
        let run = async |arguments: &[&str]| stack.refresher.run(arguments, "").await;
        let ask = async || caller.post(CHAT, &chat_body(false)).await;
        clock.into_inner().expect("made").jump_early(40);
        run(&[
            "keys",
            "set",
            "alice",
            "--rpm",
            "2",
            "--time-zone",
            "Europe/Berlin",
            "--tokens-per-day",
            "1000000",
        ])
        .await;
        let served = std::cell::Cell::new(0);
        eventually("the limit holds", SYNC_LIMIT, async || {
            let answer = ask().await;
            served.set(served.get() + u32::from(answer.status == 200));
            holds(is_limit(&answer), || format!("{answer:?}"))
        })
        .await;
        eventually("what is used is shown", SYNC_LIMIT, async || {
            let keys: Value =
                serde_json::from_str(&run(&["keys", "list", "--json"]).await).expect("JSON");
            let limits = &keys[0]["limits"];
            let shown = limits["requests_per_minute"] == 2
                && limits["time_zone"] == "Europe/Berlin"
                && limits["used"]["requests_this_minute"] == 2;
            holds(shown, || keys.to_string())
        })
        .await;
        let text = run(&["keys", "list"]).await;
        assert!(
            text.contains("2/2 requests/min") && text.contains("tokens/day (Europe/Berlin)"),
            "{text}"
        );
        run(&["keys", "set", "alice", "--rpm", "none"]).await;
        run(&["accounts", "set", "one", "--streams", "7"]).await;
        eventually("the limit is off", SYNC_LIMIT, async || {
            let answer = ask().await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        assert!(run(&["accounts", "list"]).await.contains("7 streams"));
        assert!(run(&["status"]).await.contains("7 streams"));
        assert_eq!(
            stack.refresher.account("one").await["limits"]["concurrent_streams"],
            7
        );

        // A key with an end.
        run(&["keys", "set", "alice", "--expires", "2s"]).await;
        let answer = eventually("the key expires", SYNC_LIMIT, async || {
            let answer = ask().await;
            match answer.status {
                401 => Ok(answer),
                _ => Err(format!("{answer:?}")),
            }
        })
        .await;
        assert_eq!(answer.own_code(), Some("latchkey_key_expired"));
        assert!(answer.body.contains("\\\"alice\\\""), "{answer:?}");
        assert!(run(&["keys", "list"]).await.contains("expired"));
        run(&["keys", "set", "alice", "--expires", "1d"]).await;
        eventually("it has more time", SYNC_LIMIT, async || {
            let answer = ask().await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        let nothing = stack.refresher.try_run(&["keys", "set", "alice"], "").await;
        assert!(!nothing.status.success());
    });
}

/// An account ends by itself, with nobody there who could tell Envoy so, and is back when its end is taken off.
#[test]
fn an_account_is_used_until_its_end() {
    run(async {
        let (mut stack, mut clock) =
            Stack::real_with_clock("limits-end", async |sim, refresher| {
                for name in ["one", "two"] {
                    let key = format!("sk-{name}");
                    sim.add_api_key("openai", &key, name).await;
                    refresher.add_api_key(name, "openai", &key).await;
                }
                refresher.takes_turns().await;
            })
            .await;
        let caller = stack.caller("alice").await;
        let ask = async || caller.post(CHAT, &chat_body(false)).await;
        let heard = async |stack: &Stack<Refresher>, account: &str| {
            let seen = stack.sim.seen().await;
            let of_account = seen.iter().filter(|seen| seen.account() == Some(account));
            of_account.count()
        };
        let set = ["accounts", "set", "one", "--expires", "1h"];
        stack.refresher.run(&set, "").await;
        let expires_at = stack.refresher.account("one").await["expires_at"]
            .as_u64()
            .expect("an end");
        assert!(
            stack
                .refresher
                .run(&["status"], "")
                .await
                .contains("ends in"),
            "it is not shown"
        );
        let revision = revision(&stack.refresher).await;
        stack.reaches(revision).await;
        stack.refresher.kill().await;
        let before = heard(&stack, "one").await;
        eventually("it is used before its end", SYNC_LIMIT, async || {
            assert_eq!(ask().await.status, 200);
            let heard = heard(&stack, "one").await;
            holds(heard > before, || format!("{heard} requests"))
        })
        .await;
        clock.pass(Duration::from_secs(
            (expires_at / 1_000 + 1).saturating_sub(clock.unix_seconds()),
        ));
        let before = [heard(&stack, "one").await, heard(&stack, "two").await];
        let callers = (0..4).map(|_| Caller::new(stack.envoy.port, caller.key()));
        let answers = burst(callers, 4).await;
        assert!(answers.iter().all(|one| one.status == 200), "{answers:?}");
        assert_eq!(heard(&stack, "one").await, before[0], "used after its end");
        assert_eq!(heard(&stack, "two").await, before[1] + answers.len());

        // With the other at its end too, requests are told so, and wait for nothing.
        stack.refresher.serve().await;
        let run = async |arguments: &[&str]| stack.refresher.run(arguments, "").await;
        let shown = stack.refresher.account("one").await;
        assert_eq!(
            (&shown["usable"], &shown["status"]),
            (&json!(false), &json!("active"))
        );
        for command in [["accounts", "list"].as_slice(), &["status"]] {
            let text = run(command).await;
            let line = text.lines().find(|line| line.starts_with("one "));
            assert!(
                line.is_some_and(|line| line.contains("  ended  ")),
                "{text}"
            );
        }
        run(&["accounts", "set", "two", "--expires", "1s"]).await;
        let (answer, took) = eventually("both are out", SYNC_LIMIT, async || {
            let asked = Instant::now();
            let answer = ask().await;
            match answer.status {
                200 => Err(format!("{answer:?}")),
                _ => Ok((answer, asked.elapsed())),
            }
        })
        .await;
        assert_eq!(
            (answer.status, answer.own_code()),
            (503, Some("latchkey_no_account"))
        );
        for name in ["one", "two"] {
            let account = stack.refresher.account(name).await;
            let named = format!("{} (ended)", account["id"].as_str().expect("an id"));
            assert!(answer.body.contains(&named), "{answer:?}");
        }
        assert!(took < REFRESH_WAIT, "it waited for {took:?}");
        let models = caller.get("/v1/models").await;
        assert_eq!(models.json()["data"], json!([]), "{models:?}");

        run(&["accounts", "set", "one", "--expires", "none"]).await;
        eventually("it is back", SYNC_LIMIT, async || {
            let answer = ask().await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        assert_eq!(stack.refresher.account("one").await["usable"], true);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// The tokens that one chat completion is metered with, as the platform's answer says.
fn total(answer: &Answer) -> u64 {
    let total = &answer.json()["usage"]["total_tokens"];
    total.as_u64().unwrap_or_else(|| panic!("{answer:?}"))
}

#[test]
fn tokens_are_limited_by_what_answers_used() {
    run(async {
        let mut free = Limited::start("limits-tokens", json!({}), &[("acc_a", json!({}))]).await;
        free.clock.jump_early(30);
        let each = total(&free.caller().post(CHAT, &chat_body(false)).await);
        assert!(each > 0);
        // Three requests, the third of which begins with a token left; whole answers and streams.
        let limits = json!({"limits": {"tokens_per_minute": 2 * each + 1}});
        let key = records::key_with("key_limited", &free.key, "limited", limits);
        let revision = free.stack.refresher.publish([key]);
        free.stack.reaches(revision).await;
        for stream in [false, true, false] {
            let answer = free.caller().post(CHAT, &chat_body(stream)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        eventually("the tokens are counted", SYNC_LIMIT, async || {
            let answer = free.caller().post(CHAT, &chat_body(false)).await;
            assert!(free.heard("acc_a").await <= 5, "more than the limit");
            holds(is_limit(&answer), || format!("{answer:?}"))
        })
        .await;
        let answer = free.caller().post(CHAT, &chat_body(false)).await;
        assert!(answer.body.contains("tokens a minute"), "{answer:?}");
    });
}

/// Whoever leaves each stream before its count comes pays for the prompt all the same, and for the text that passed.
#[test]
fn hanging_up_before_the_end_is_not_free() {
    run(async {
        let limits = json!({"tokens_per_minute": 8_000});
        let mut limited = Limited::start("limits-hang-up", limits, &[("acc_a", json!({}))]).await;
        let pause = json!({"event_delay_ms": 200});
        limited
            .stack
            .sim
            .ask(Method::POST, "/settings", pause)
            .await;
        limited.clock.jump_early(30);
        let mut body = chat_body(true);
        body["messages"][0]["content"] = "x".repeat(16_000).into();
        for _ in 0..2 {
            let mut answer = limited.caller().begin(CHAT, &body).await;
            assert_eq!(answer.status().as_u16(), 200);
            let first = answer.chunk().await.expect("a stream");
            assert!(first.is_some(), "a first event");
        }
        let pause = json!({"event_delay_ms": 0});
        limited
            .stack
            .sim
            .ask(Method::POST, "/settings", pause)
            .await;
        eventually("the tokens are counted", SYNC_LIMIT, async || {
            let answer = limited.caller().post(CHAT, &chat_body(false)).await;
            holds(is_limit(&answer), || format!("{answer:?}"))
        })
        .await;
        let small = limited.heard("acc_a").await - 2;
        assert!(
            small < 50,
            "the limit was reached by {small} other requests"
        );
    });
}

#[test]
fn a_days_budget_survives_the_death_of_all() {
    run(async {
        let mut stack = Stack::real("limits-day", async |sim, refresher| {
            sim.add_api_key("openai", "sk-1", "one").await;
            refresher.add_api_key("one", "openai", "sk-1").await;
        })
        .await;
        let caller = stack.caller("alice").await;
        let each = total(&caller.post(CHAT, &chat_body(false)).await);
        // A new key has a limit of streams, so its tokens were counted from the first request on.
        let budget = (3 * each).to_string();
        // A zone in which the day does not end while this runs.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let noon = match now.expect("after 1970").as_secs() / 3_600 % 24 {
            0..12 => "UTC",
            _ => "Etc/GMT+12",
        };
        let arguments = [
            "keys",
            "set",
            "alice",
            "--tokens-per-day",
            &budget,
            "--time-zone",
            noon,
        ];
        stack.refresher.run(&arguments, "").await;
        let revision = revision(&stack.refresher).await;
        stack.reaches(revision).await;
        // One after the other, each is counted before the next: the second uses up what there is.
        for _ in 0..2 {
            let answer = caller.post(CHAT, &chat_body(false)).await;
            assert_eq!((answer.status, total(&answer)), (200, each), "{answer:?}");
        }
        let answer = caller.post(CHAT, &chat_body(false)).await;
        assert!(is_limit(&answer), "{answer:?}");
        let used = async || {
            let keys = stack.refresher.run(&["keys", "list", "--json"], "").await;
            let keys: Value = serde_json::from_str(&keys).expect("JSON");
            keys[0]["limits"]["used"]["tokens_today"]
                .as_u64()
                .unwrap_or_default()
        };
        eventually("the refresher has it", SYNC_LIMIT, async || {
            let used = used().await;
            holds(used >= 3 * each, || format!("{used} of {budget}"))
        })
        .await;

        stack.refresher.kill().await;
        let answer = caller.post(CHAT, &chat_body(false)).await;
        assert!(is_limit(&answer), "{answer:?}");
        stack.envoy.kill().await;
        stack.refresher.serve().await;
        stack.start_envoy(0).await;
        let caller = Caller::new(stack.envoy.port, caller.key());
        let answer = eventually("the new Envoy serves", SYNC_LIMIT, async || {
            let answer = caller.post(CHAT, &chat_body(false)).await;
            match answer.own_code() {
                Some("latchkey_not_ready") => Err(format!("{answer:?}")),
                _ => Ok(answer),
            }
        })
        .await;
        // It does not know what was used before until the refresher has answered.
        let began = Instant::now();
        let mut last = answer;
        let answer = loop {
            // Until then its days are those of UTC, and one that is about to end has a `retry-after`.
            let is_limited = last.body.contains("tokens a day");
            if is_limited && last.header("retry-after").is_none() {
                break last;
            }
            assert!(is_limited || last.status == 200, "{last:?}");
            let took = began.elapsed();
            assert!(took < FIRST_ANSWER, "it serves still after {took:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            last = caller.post(CHAT, &chat_body(false)).await;
        };
        assert!(answer.body.contains("Try again at"), "{answer:?}");
    });
}

/// A profile says what its accounts may use in a day, and where that day ends: an account of it is out when it has used
/// that, is back at midnight there, and its operator has the last word.
#[test]
fn an_account_has_its_profiles_day_until_its_operator_says_otherwise() {
    const DAILY: &str = "extends = 'openai'\nlimits = { tokens_per_day = 1, streams = 3, time_zone = 'Asia/Shanghai' }\n";
    /// Midnight in Shanghai is at 16:00 UTC, all year round.
    const MIDNIGHT: i64 = 16 * 3_600;
    const DAY: i64 = 24 * 3_600;
    run(async {
        let clock = OnceCell::new();
        let stack = Stack::real("limits-profile", async |sim, refresher| {
            std::fs::write(sim.platforms_dir.join("daily.toml"), DAILY).expect("written");
            sim.add_api_key("openai", "sk-1", "one").await;
            refresher.add_api_key("one", "daily", "sk-1").await;
            let mut new = WallClock::new(refresher.folder()).await;
            // An hour before midnight there.
            let second = i64::try_from(new.unix_seconds()).expect("a time") % DAY;
            new.jump((MIDNIGHT - 3_600 - second).rem_euclid(DAY));
            clock.set(new).expect("the first");
        })
        .await;
        let mut clock = clock.into_inner().expect("made");
        let caller = stack.caller("alice").await;
        let ask = async || caller.post(CHAT, &chat_body(false)).await;
        let is_out = |answer: &Answer| answer.own_code() == Some("latchkey_all_out");
        let becomes = async |what: &str, status: u16| {
            eventually(what, SYNC_LIMIT, async || {
                let answer = ask().await;
                let found = answer.status == status && (status == 200 || is_out(&answer));
                holds(found, || format!("{answer:?}"))
            })
            .await;
        };
        becomes("it serves", 200).await;
        becomes("it has used its day", 429).await;

        let midnight = (clock.unix_seconds() / 3_600 + 1) * 3_600_000;
        let shown = eventually("what is used is shown", SYNC_LIMIT, async || {
            let account = stack.refresher.account("one").await;
            let used = account["limits"]["used"]["tokens_today"].as_u64();
            match used {
                Some(1..) => Ok(account),
                _ => Err(account.to_string()),
            }
        })
        .await;
        let limits = &shown["limits"];
        assert_eq!(limits["used"]["day_ends_at"], midnight, "{shown}");
        assert_eq!(
            limits["of_profile"],
            json!(["tokens_per_day", "concurrent_streams", "time_zone"])
        );
        assert_eq!(
            (&limits["tokens_per_day"], &limits["concurrent_streams"]),
            (&json!(1), &json!(3))
        );
        let mut quota = shown["quota"].as_array().expect("a list").iter();
        let day = quota.find(|window| window["name"] == "day");
        let day = day.unwrap_or_else(|| panic!("no day: {shown}"));
        assert_eq!(
            (&day["exhausted"], &day["source"]),
            (&json!(true), &json!("profile"))
        );
        let run = async |arguments: &[&str]| stack.refresher.run(arguments, "").await;
        for command in [["accounts", "list"].as_slice(), &["status"]] {
            let text = run(command).await;
            let marked = [
                "/1 tokens/day (profile's, Asia/Shanghai)",
                "/3 streams (profile's)",
            ];
            assert!(marked.iter().all(|mark| text.contains(mark)), "{text}");
        }

        // Neither at midnight UTC, which was long ago, nor a minute before it is midnight there.
        clock.jump(3_600 - 60 - i64::try_from(clock.unix_seconds() % 3_600).expect("an hour"));
        tokio::time::sleep(FIRST_ANSWER).await;
        let answer = ask().await;
        assert!(is_out(&answer), "{answer:?}");
        clock.jump(60);
        becomes("its next day has begun", 200).await;
        becomes("it has used that too", 429).await;

        run(&["accounts", "set", "one", "--tokens-per-day", "none"]).await;
        becomes("the limit is off", 200).await;
        for _ in 0..3 {
            assert_eq!(ask().await.status, 200);
        }
        let limits = &stack.refresher.account("one").await["limits"];
        assert_eq!(limits["tokens_per_day"], Value::Null, "{limits}");
        let set = run(&["accounts", "set", "one", "--default-limits"]).await;
        assert!(set.contains("Asia/Shanghai (profile's)"), "{set}");
        becomes("the profile's limit is back", 429).await;
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// The words that one Envoy and the refresher told each other of one key in one minute.
#[derive(Debug)]
struct Told {
    asked_at: Instant,
    answered_at: Instant,
    /// The requests that the Envoy let through.
    own: u64,
    /// Those of the others, as the refresher answered.
    others: u64,
}

/// The rounds of each Envoy in the minute that begins at `minute`, in their order.
fn told(rounds: &[Round], minute: u64) -> Vec<Vec<Told>> {
    let of_minute = |lines: &[Line]| {
        let mut spans = lines.iter().map(|line| line.said.minute);
        let found = spans.find(|span| span.start == minute);
        found.map(|span| span.requests)
    };
    let mut envoys = BTreeMap::<_, Vec<Told>>::new();
    for round in rounds {
        let own = of_minute(&round.counts.subjects);
        if let (Some(own), Some(others)) = (own, of_minute(&round.others.subjects)) {
            let instance = round.counts.instance.clone();
            envoys.entry(instance).or_default().push(Told {
                asked_at: round.asked_at,
                answered_at: round.answered_at,
                own,
                others,
            });
        }
    }
    envoys.into_values().collect()
}

/// The bound for several Envoys (`src/limit/mod.rs`), on two of them. It is held against the rounds in which they settled, not
/// against the clock: a busy machine makes them longer.
#[test]
fn two_envoys_share_a_limit_within_the_bound() {
    const LIMIT: u64 = 150;
    /// Between two requests at each of them.
    const PAUSE: Duration = Duration::from_millis(100);
    /// The settle interval and a tick, and half as long again.
    const USUAL_ROUND: Duration = Duration::from_millis((1_000 + 100) * 3 / 2);
    run(async {
        let relay = std::cell::OnceCell::new();
        let clock = OnceCell::new();
        let edit = |text: &str| text.replace("/refresher.sock", "/relay.sock");
        let stack = Stack::real_edited("limits-two", edit, async |sim, refresher| {
            sim.add_api_key("openai", "sk-1", "one").await;
            refresher.add_api_key("one", "openai", "sk-1").await;
            let sockets = ["run/relay.sock", "run/refresher.sock"];
            let [socket, real] = sockets.map(|name| refresher.file(name));
            relay.set(Relay::start(&socket, real)).expect("the first");
            let new = WallClock::new(refresher.folder()).await;
            clock.set(new).expect("the first");
        })
        .await;
        let relay = relay.get().expect("a relay");
        let second_envoy = Envoy::start_beside_edited(&stack.folder, "second", edit).await;
        let first = stack.caller("alice").await;
        let second = Caller::new(second_envoy.port, first.key());
        stack
            .refresher
            .run(&["keys", "set", "alice", "--rpm", &LIMIT.to_string()], "")
            .await;
        let revision = revision(&stack.refresher).await;
        for envoy in [&stack.envoy, &second_envoy] {
            eventually("both know the limit", SYNC_LIMIT, async || {
                let found = envoy.revision().await;
                holds(found >= revision, || format!("{found} of {revision}"))
            })
            .await;
        }
        let mut clock = clock.into_inner().expect("made");
        clock.jump_early(45);
        let minute = minute(&clock);
        let before = stack.sim.seen().await.len();
        let until_refused = async |caller: Caller| {
            let mut ticks = tokio::time::interval(PAUSE);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut good = 0;
            loop {
                ticks.tick().await;
                let answer = caller.post(CHAT, &chat_body(false)).await;
                if is_limit(&answer) {
                    break good;
                }
                assert_eq!(answer.status, 200, "{answer:?}");
                good += 1;
            }
        };
        let (one, other) = tokio::join!(until_refused(first), until_refused(second));
        assert_eq!(self::minute(&clock), minute, "too slow a machine for this");
        let all: u64 = one + other;
        assert_eq!((stack.sim.seen().await.len() - before) as u64, all);
        assert!(one > 0 && other > 0 && all >= LIMIT, "{one} and {other}");
        let envoys = eventually("they have told all of it", SYNC_LIMIT, async || {
            let envoys = told(&relay.rounds(), minute);
            let last = |told: &Vec<Told>| told.last().map_or(0, |told| told.own);
            let sum: u64 = envoys.iter().map(last).sum();
            holds(envoys.len() == 2 && sum == all, || {
                format!("{sum} of {all}")
            })?;
            Ok(envoys)
        })
        .await;
        for (told, others) in [(&envoys[0], &envoys[1]), (&envoys[1], &envoys[0])] {
            let own = told.last().expect("a round").own;
            // Its last request came after it had told of fewer, and so after the answer before that.
            let last = told.iter().rposition(|told| told.own < own);
            let known = told[last.expect("it began with none").saturating_sub(1)].others;
            assert!(own + known <= LIMIT, "{own}, and knew of {known}");
            // So both together are over the limit by what the other let through that this one did not know of; and
            // what it does not know of was not told yet when it asked.
            println!("{own} and {} of {LIMIT}: knew of {known}", all - own);
            for round in told {
                let heard = others.iter().filter(|o| o.answered_at < round.asked_at);
                let heard = heard.map(|other| other.own).max().unwrap_or_default();
                assert!(round.others >= heard, "{round:?}: {heard} were told");
            }
            let pairs = told.windows(2);
            let mut gaps: Vec<_> = pairs.map(|two| two[1].asked_at - two[0].asked_at).collect();
            gaps.sort();
            let usual = gaps[gaps.len() / 2];
            assert!(usual <= USUAL_ROUND, "they settle every {usual:?}");
        }
    });
}
