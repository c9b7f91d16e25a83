//! Accounts fail, and callers do not notice.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    harness::{
        Answer, Caller, Stack,
        caller::{chat_body, responses_body},
        eventually, holds, raw, records, run,
        stack::{ALICE, CODEX, OPENAI, SYNC_LIMIT, client_key, closed_port},
    },
    metering::recorded,
};

const PATH: &str = "/v1/chat/completions";

/// A stream that is an error from its first event on.
const FAILED: &str = "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":0,\"response\":\
    {\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"failed\",\"error\":{\"code\":\"server_is_overloaded\",\
    \"message\":\"Selected model is at capacity.\"},\"output\":[],\"usage\":null}}\n\n";

/// The words of OpenAI's API to an account at its limit.
const LIMITED: &str = include_str!("../fixtures/openai/rate_limit_exceeded.json");

/// Accounts of OpenAI's API in a pool of their own, `several`, which takes turns.
pub struct Pool {
    /// The thing that it is on.
    pub stack: Stack,
    /// Whose key leads to it.
    pub caller: Caller,
}

impl Pool {
    /// One with these accounts.
    pub async fn of(name: &str, accounts: &[&str]) -> Self {
        Self::on(Stack::start(name).await, accounts).await
    }

    /// One on that stack.
    pub async fn on(stack: Stack, accounts: &[&str]) -> Self {
        let ids: Vec<_> = accounts
            .iter()
            .map(|account| format!("acc_{account}"))
            .collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let mut lines = Vec::new();
        for account in accounts {
            let key = format!("sk-{account}");
            stack.sim.add_api_key("openai", &key, account).await;
            let authority = stack.sim.authority();
            lines.push(records::account(
                &format!("acc_{account}"),
                "openai",
                authority,
                &key,
                json!({}),
            ));
        }
        lines.push(records::pool("several", "round_robin", &ids));
        lines.push(records::key(
            "key_several",
            &client_key("several"),
            "several",
        ));
        let revision = stack.refresher.publish(lines);
        stack.have_clusters(&ids).await;
        stack.reaches(revision).await;
        let caller = stack.caller("several");
        Self { stack, caller }
    }

    /// Asks for a chat completion.
    pub async fn ask(&self, stream: bool) -> Answer {
        self.caller.post(PATH, &chat_body(stream)).await
    }

    /// Lets every answer to `account` be this.
    pub async fn break_account(&self, account: &str, mut fault: Value) -> u64 {
        fault["target"] = "upstream".into();
        fault["account"] = account.into();
        self.stack.sim.add_fault(fault).await
    }

    /// The number of times that the platform heard from `account`.
    pub async fn heard_from(&self, account: &str) -> usize {
        let seen = self.stack.sim.seen().await;
        seen.iter()
            .filter(|seen| seen.account() == Some(account))
            .count()
    }
}

/// The SHA-256 of a body, as the platform records it.
fn sha256(body: &str) -> String {
    let digest = Sha256::digest(body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_account_that_cannot_answer_costs_no_request() {
    run(async {
        let pool = Pool::of("failover", &["one", "two", "three", "good"]).await;
        let limited =
            json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "60"}});
        // How often the platform hears from an account at the most: a limited one is left alone at once, one that the
        // platform has trouble with after three strikes.
        for (account, fault, most) in [
            ("one", limited, 1),
            (
                "two",
                json!({"status": 500, "body": "{\"error\":{\"message\":\"oops\"}}"}),
                3,
            ),
            ("three", json!({"status": 529, "body": ""}), 3),
        ] {
            let before = pool.heard_from(account).await;
            pool.break_account(account, fault).await;
            for n in 0..16 {
                let answer = pool.ask(n % 2 == 0).await;
                assert_eq!(answer.status, 200, "{account}: {answer:?}");
                assert!(
                    !answer.body.contains(&format!("Hello from {account}")),
                    "{answer:?}"
                );
            }
            let heard = pool.heard_from(account).await - before;
            // Requests that another account failed first strike nobody else, so they may add some.
            assert!(
                (1..=most + 8).contains(&heard),
                "{account} was asked {heard} times"
            );
        }
        assert_eq!(pool.stack.envoy.crashes().await, 0);
        assert_eq!(pool.stack.sim.count("refused_count").await, 0);
    });
}

/// An answer of HTTP 200 whose first event is an error, no answer at all, and one cut before its first byte.
#[test]
fn what_is_no_answer_costs_no_request_either() {
    run(async {
        let pool = Pool::of("failover-inside", &["four", "five"]).await;
        for fault in [
            json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": FAILED}),
            json!({"drop_before_answer": true}),
            json!({"cut_after_bytes": 0}),
        ] {
            let shown = fault.to_string();
            let fault = pool.break_account("four", fault).await;
            let before = pool.heard_from("four").await;
            for _ in 0..4 {
                let answer = pool.caller.post("/v1/responses", &responses_body()).await;
                assert_eq!(answer.status, 200, "{shown}: {answer:?}");
                assert!(
                    !answer.body.contains("response.failed"),
                    "{shown}: {answer:?}"
                );
                assert!(
                    answer.body.contains("response.completed"),
                    "{shown}: {answer:?}"
                );
            }
            pool.stack.sim.remove_fault(fault).await;
            assert!(
                pool.heard_from("four").await > before,
                "{shown}: the fault was not met"
            );
            eventually("the account is back", Duration::from_secs(15), async || {
                let answer = pool.caller.post("/v1/responses", &responses_body()).await;
                holds(answer.body.contains("Hello from four"), || {
                    format!("{answer:?}")
                })
            })
            .await;
        }
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// Platforms have names: one that is never found, one where nobody listens, one that is found and then is not any more
/// to be reached.
#[test]
fn a_platform_by_a_name_that_is_not_found_or_not_reached_costs_no_request() {
    run(async {
        let pool = Pool::of("failover-names", &["lost", "shut", "good"]).await;
        let (stack, port) = (&pool.stack, closed_port());
        let (_, good) = stack.sim.authority().rsplit_once(':').expect("a port");
        for (account, host, port) in [
            ("acc_lost", "platform.invalid", "443"),
            ("acc_shut", "localhost", port.to_string().as_str()),
            ("acc_good", "localhost", good),
        ] {
            let url = format!("https://{host}:{port}");
            stack.lead(account, &url).await;
        }
        for _ in 0..12 {
            let answer = pool.ask(false).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.contains("Hello from good"), "{answer:?}");
        }
        for account in ["lost", "shut"] {
            let alone = format!("only-{account}");
            let id = format!("acc_{account}");
            let revision = stack.refresher.publish([
                records::pool(&alone, "sticky", &[&id]),
                records::key(&format!("key_{alone}"), &client_key(&alone), &alone),
            ]);
            stack.reaches(revision).await;
            let answer = stack.caller(&alone).post(PATH, &chat_body(false)).await;
            assert_eq!(answer.status, 502, "{account}: {answer:?}");
            let code = Some("latchkey_platform_unreachable");
            assert_eq!(answer.own_code(), code, "{account}: {answer:?}");
            assert_eq!(answer.header("x-should-retry"), Some("true"), "{account}");
        }
        // It is found from now on.
        stack
            .lead("acc_lost", &format!("https://localhost:{good}"))
            .await;
        eventually("the account serves", Duration::from_secs(15), async || {
            let answer = pool.ask(false).await;
            holds(answer.body.contains("Hello from lost"), || {
                format!("{answer:?}")
            })
        })
        .await;
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Accounts of two platforms in one pool: where the first is at its limit, the request goes to the other one's path, with
/// that one's headers and credential, and is still the caller's, byte for byte.
#[test]
fn an_account_of_another_platform_takes_over() {
    /// A platform's account, as the platform is to see it.
    struct Side {
        account: &'static str,
        user: &'static str,
        platform: &'static str,
        path: &'static str,
        /// The values of headers, the caller's and its own; none: it must not get that.
        headers: [(&'static str, &'static [&'static str]); 6],
        /// The words that it says at its limit.
        limited: Value,
    }
    let codex = || Side {
        account: CODEX,
        user: ALICE,
        platform: "codex",
        path: "/backend-api/codex/responses?turn=1",
        headers: [
            ("chatgpt-account-id", &["ws-alice"]),
            ("session-id", &["s-1"]),
            ("x-oai-attestation", &["a-1"]),
            ("idempotency-key", &[]),
            ("x-api-key", &[]),
            ("x-other", &[]),
        ],
        limited: json!({"fixture": "codex/usage_limit_reached.json"}),
    };
    let openai = || Side {
        account: OPENAI,
        user: "openai-key",
        platform: "openai",
        path: "/v1/responses?turn=1",
        headers: [
            ("chatgpt-account-id", &[]),
            ("session-id", &["s-1"]),
            ("x-oai-attestation", &[]),
            ("idempotency-key", &["i-1"]),
            ("x-api-key", &[]),
            ("x-other", &[]),
        ],
        limited: json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "600"}}),
    };
    // A model of both.
    let mut body = responses_body();
    body["model"] = "gpt-5.5".into();
    let body = body.to_string();
    run(async {
        for [limited, other] in [[codex(), openai()], [openai(), codex()]] {
            let shown = format!("from {} to {}", limited.account, other.account);
            let stack = Stack::start(&format!("failover-to-{}", other.platform)).await;
            let revision = stack.refresher.publish([
                records::pool("both", "fill_first", &[limited.account, other.account]),
                records::key("key_both", &client_key("both"), "both"),
            ]);
            stack.reaches(revision).await;
            let mut fault = limited.limited.clone();
            fault["target"] = "upstream".into();
            fault["account"] = limited.user.into();
            stack.sim.add_fault(fault).await;
            let caller = stack.caller("both");
            let headers = [
                ("x-api-key", caller.key()),
                ("content-type", "application/json"),
                ("chatgpt-account-id", "ws-of-the-caller"),
                ("session-id", "s-1"),
                ("x-oai-attestation", "a-1"),
                ("idempotency-key", "i-1"),
                ("x-other", "o-1"),
            ];
            let ask = async || {
                let path = "/v1/responses?turn=1";
                let answer = caller.send("POST", path, &headers, body.clone()).await;
                assert_eq!(answer.status, 200, "{shown}: {answer:?}");
                let greeting = format!("Hello from {}", other.user);
                assert!(answer.body.contains(&greeting), "{shown}: {answer:?}");
                assert!(
                    answer.body.contains("response.completed"),
                    "{shown}: {answer:?}"
                );
            };
            let asked = async || {
                let mut seen = stack.sim.seen().await;
                seen.retain(|seen| !seen.path().starts_with("/oauth/"));
                seen
            };
            ask().await;
            let seen = asked().await;
            assert_eq!(seen.len(), 2, "{shown}: {seen:?}");
            for (seen, side) in seen.iter().zip([&limited, &other]) {
                assert_eq!(seen.account(), Some(side.user), "{shown}: {seen:?}");
                assert_eq!(seen.path(), side.path, "{shown}: {seen:?}");
                assert_eq!(seen.authority(), stack.sim.authority(), "{shown}: {seen:?}");
                assert_eq!(seen.header("authorization").len(), 1, "{shown}: {seen:?}");
                for (name, values) in side.headers {
                    assert_eq!(seen.header(name), values, "{shown}: {name} of {seen:?}");
                }
                assert_eq!(seen.0["body_sha256"], sha256(&body), "{shown}: {seen:?}");
            }
            let found = recorded(&stack.refresher, 1).await;
            for (name, expected) in [
                ("account", json!(other.account)),
                ("platform", json!(other.platform)),
                ("pool", json!("both")),
                ("attempts", json!(2)),
                ("verdict", json!("fine")),
                ("completeness", json!("whole")),
                ("estimate", Value::Null),
            ] {
                assert_eq!(found[0][name], expected, "{shown}: {name} of {found:?}");
            }

            // It is known to be limited by then.
            ask().await;
            let seen = asked().await;
            assert_eq!(seen.len(), 3, "{shown}: {seen:?}");
            assert_eq!(seen[2].account(), Some(other.user), "{shown}: {seen:?}");
            eventually("the limit is reported", SYNC_LIMIT, async || {
                let batches = stack.refresher.reports();
                let mut reports = batches
                    .iter()
                    .filter_map(|batch| batch["reports"].as_array())
                    .flatten();
                let found = reports.any(|report| {
                    report["kind"] == "cooling_down"
                        && report["account"] == limited.account
                        && report["guessed"] == false
                });
                holds(found, || format!("{shown}: {batches:?}"))
            })
            .await;
            assert_eq!(stack.sim.count("refused_count").await, 0, "{shown}");
            assert_eq!(stack.sim.count("rejected_credentials").await, 0, "{shown}");
            assert_eq!(stack.envoy.crashes().await, 0, "{shown}");
        }
    });
}

/// What a platform does not get of the caller's headers, and what it gets beside them, is its own business: the next one has
/// the caller's own, by the redirect and by the escape.
#[test]
fn the_callers_own_headers_come_to_the_next_platform() {
    let mut body = responses_body();
    body["model"] = "gpt-5.5".into();
    let (codex, openai) = ((CODEX, ALICE, "codex"), (OPENAI, "openai-key", "openai"));
    run(async {
        let stack = Stack::start("failover-headers").await;
        let own_headers = |line: &String| {
            let mut record: Value = serde_json::from_str(line).expect("JSON");
            let platform = record.get_mut("platform")?;
            let id = platform["id"].as_str()?.to_owned();
            platform["headers"]["default"] = json!([["session-id", id]]);
            ["codex", "openai"]
                .contains(&&*id)
                .then(|| record.to_string())
        };
        let lines = records::platforms(&stack.sim.platforms_dir);
        let mut lines: Vec<_> = lines.iter().filter_map(own_headers).collect();
        for (pool, accounts) in [("codex", [CODEX, OPENAI]), ("openai", [OPENAI, CODEX])] {
            lines.push(records::pool(pool, "fill_first", &accounts));
            lines.push(records::key(
                &format!("key_{pool}"),
                &client_key(pool),
                pool,
            ));
        }
        let revision = stack.refresher.publish(lines);
        stack.reaches(revision).await;
        for (first, second) in [(codex, openai), (openai, codex)] {
            for mut fault in [json!({"status": 500}), json!({"drop_before_answer": true})] {
                let shown = format!("from {first:?} by {fault}");
                fault["target"] = "upstream".into();
                fault["account"] = first.1.into();
                fault["times"] = 1.into();
                stack.sim.add_fault(fault).await;
                let caller = stack.caller(first.2);
                let headers = [
                    ("x-api-key", caller.key()),
                    ("content-type", "application/json"),
                    ("x-oai-attestation", "a-1"),
                    ("idempotency-key", "i-1"),
                ];
                let path = "/v1/responses?turn=1";
                let answer = caller.send("POST", path, &headers, body.to_string()).await;
                assert_eq!(answer.status, 200, "{shown}: {answer:?}");
                let mut seen = stack.sim.seen().await;
                seen.retain(|seen| !seen.path().starts_with("/oauth/"));
                let seen = seen.split_off(seen.len() - 2);
                for (seen, (_, user, platform)) in seen.iter().zip([first, second]) {
                    assert_eq!(seen.account(), Some(user), "{shown}: {seen:?}");
                    assert!(seen.path().ends_with("/responses?turn=1"), "{shown}");
                    assert_eq!(seen.header("session-id"), [platform], "{shown}: {seen:?}");
                    for (name, of) in [
                        ("x-oai-attestation", "codex"),
                        ("idempotency-key", "openai"),
                    ] {
                        let got = usize::from(of == platform);
                        assert_eq!(seen.header(name).len(), got, "{shown}: {name} of {seen:?}");
                    }
                    assert_eq!(seen.0["body_sha256"], sha256(&body.to_string()));
                }
            }
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// The caller's own fault goes to the caller, byte for byte, and the account stays in use.
#[test]
fn a_callers_fault_is_not_the_accounts() {
    run(async {
        let pool = Pool::of("failover-fault", &["six"]).await;
        let body = "{\"error\":{\"message\":\"bad\",  \"type\":\"invalid_request_error\"}}";
        let posing = json!({"x-latchkey-error": "latchkey_all_out"});
        let fault = pool
            .break_account(
                "six",
                json!({"status": 400, "body": body, "headers": posing}),
            )
            .await;
        let answer = pool.ask(false).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, body),
            "{answer:?}"
        );
        assert_eq!(answer.header("x-latchkey-error"), None, "it is not ours");
        pool.stack.sim.remove_fault(fault).await;
        assert_eq!(pool.ask(false).await.status, 200);
    });
}

/// A body too large to be kept for a second try: the platform's answer comes through as it was.
#[test]
fn what_cannot_be_sent_again_is_answered_as_the_platform_did() {
    run(async {
        let pool = Pool::of("failover-large", &["seven", "eight"]).await;
        let fault = json!({
            "fixture": "openai/rate_limit_exceeded.json",
            "headers": {"retry-after": "7", "x-latchkey-error": "latchkey_all_out"},
        });
        for account in ["seven", "eight"] {
            pool.break_account(account, fault.clone()).await;
        }
        let mut body = chat_body(false);
        body["messages"][0]["content"] = "x".repeat(33 * 1024 * 1024).into();
        let answer = pool.caller.post(PATH, &body).await;
        assert_eq!(answer.status, 429, "{:?}", answer.headers);
        assert_eq!(answer.own_code(), None, "{:?}", answer.headers);
        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
        let limited = LIMITED.replace("fixture-model", "gpt-5.6");
        assert_eq!(answer.body, limited, "byte for byte");
        assert_eq!(answer.header("retry-after"), Some("7"));
        let length = limited.len().to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("location"), None);
        assert_eq!(answer.header("x-latchkey-status"), None);
        assert_eq!(answer.header("x-latchkey-error"), None);
    });
}

/// The last account's answer is the platform's own. After that the gateway says so itself: who is out, why, and when
/// to come back; and nothing is sent.
#[test]
fn a_pool_that_is_out_says_who_and_when() {
    run(async {
        let pool = Pool::of("failover-out", &["nine", "ten"]).await;
        let fault = json!({"status": 429, "body": "{\"error\":{\"message\":\"slow down\"}}", "headers": {"retry-after": "40"}});
        for account in ["nine", "ten"] {
            pool.break_account(account, fault.clone()).await;
        }
        // A request speaks against one account alone, so the second takes the other account out.
        for _ in 0..2 {
            let answer = pool.ask(false).await;
            assert_eq!(
                (answer.status, answer.own_code()),
                (429, None),
                "{answer:?}"
            );
            assert_eq!(answer.json()["error"]["message"], "slow down", "{answer:?}");
        }
        let answer = pool.ask(false).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.own_code(), Some("latchkey_all_out"), "{answer:?}");
        let seconds: u32 = answer
            .header("retry-after")
            .and_then(|text| text.parse().ok())
            .expect("a number");
        assert!((30..=40).contains(&seconds), "{answer:?}");
        assert!(
            answer.body.contains("acc_nine (rate_limited)"),
            "{answer:?}"
        );
        assert_eq!(
            pool.heard_from("nine").await + pool.heard_from("ten").await,
            3
        );
    });
}

/// One odd request that makes a platform fail takes nobody's account away.
#[test]
fn one_failure_takes_no_account_out() {
    run(async {
        let pool = Pool::of("failover-odd", &["eleven"]).await;
        let fault = pool
            .break_account("eleven", json!({"status": 500, "body": "oops", "times": 1}))
            .await;
        let answer = pool.ask(false).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (500, "oops"),
            "{answer:?}"
        );
        assert_eq!(pool.ask(false).await.status, 200, "fault {fault}");
    });
}

/// With one account whose token the platform no longer takes, a request waits for the refresh and is served.
#[test]
fn a_refused_token_is_refreshed_while_the_request_waits() {
    run(async {
        let stack = Stack::alice("failover-401", Duration::from_secs(3600)).await;
        let caller = stack.caller("waiting").await;
        let body = responses_body();
        for round in 1..=3 {
            stack
                .sim
                .ask(
                    Method::POST,
                    &format!("/users/{ALICE}/expire_access"),
                    json!({}),
                )
                .await;
            let (one, other) = tokio::join!(
                caller.post("/v1/responses", &body),
                caller.post("/v1/responses", &body),
            );
            for answer in [one, other] {
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(answer.body.contains("response.completed"), "{answer:?}");
            }
            assert_eq!(
                stack.sim.count("refreshes").await,
                round,
                "one refresh for both"
            );
        }
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// One key's requests leave places for others' where they wait for a refresh, however many they are.
#[test]
fn a_key_that_floods_leaves_places_to_wait() {
    /// Enough that both workers have more of them than places.
    const FLOOD: usize = 600;
    run(async {
        let stack = Stack::start("failover-places").await;
        let account = |expires_at: u64| {
            let authority = stack.sim.authority();
            let other = json!({"credential_expires_at": expires_at});
            records::account(OPENAI, "openai", authority, "sk-openai", other)
        };
        let second = records::key("key_second", &client_key("second"), "openai");
        let revision = stack.refresher.publish([account(1), second]);
        stack.reaches(revision).await;
        let body = chat_body(false).to_string();
        let flood = format!(
            "POST {PATH} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            client_key("openai"),
            body.len()
        );
        let idle = stack.envoy.stat("downstream_rq_active").await;
        let mut flooding = Vec::new();
        for _ in 0..FLOOD {
            flooding.push(raw::open(stack.envoy.port, flood.as_bytes()).await);
        }
        // They come long before those that wait give up.
        eventually("the others are refused", SYNC_LIMIT, async || {
            let refused = stack.envoy.stat("wasmcustom.latchkey.refused").await;
            let waiting = stack
                .envoy
                .stat("downstream_rq_active")
                .await
                .saturating_sub(idle);
            let all = refused + waiting == FLOOD as u64;
            holds(all && (1..=256).contains(&waiting), || {
                format!("{refused} refused, {waiting} wait")
            })
        })
        .await;
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let caller = stack.caller("second");
                tokio::spawn(async move { caller.post(PATH, &chat_body(false)).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.refresher.publish([account(u64::MAX / 2)]);
        for answer in waiting {
            let answer = answer.await.expect("sent");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let mut served = 0;
        for stream in &mut flooding {
            let answer = raw::read(stream, 1).await;
            match raw::status(&answer) {
                200 => served += 1,
                503 => assert!(answer.contains("latchkey_all_out"), "{answer}"),
                _ => panic!("{answer}"),
            }
        }
        // Half of the 256 places of each of the two workers.
        assert!(
            (1..=256).contains(&served),
            "{served} of {FLOOD} were served"
        );
    });
}

/// A refused token is reported with the generation that was used, for the refresher to replace it once.
#[test]
fn a_refused_token_is_reported() {
    run(async {
        let stack = Stack::start("failover-report").await;
        let path = format!("/users/{ALICE}/expire_access");
        stack.sim.ask(Method::POST, &path, json!({})).await;
        let caller = stack.caller("codex");
        let asking =
            tokio::spawn(async move { caller.post("/v1/responses", &responses_body()).await });
        let report = json!({"account": CODEX, "generation": 1, "kind": "unauthorized"});
        eventually("a report", Duration::from_secs(5), async || {
            let batches = stack.refresher.reports();
            let found = batches
                .iter()
                .any(|batch| batch["reports"] == json!([report]));
            holds(found, || format!("{batches:?}"))
        })
        .await;
        asking.abort();
    });
}
