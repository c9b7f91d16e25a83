//! The choice of the account that serves a request: by its body, its pool's policy, and what its key allows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::stream;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Caller, Stack,
    caller::{chat_body, responses_body},
    clusters,
    compress::zstd,
    eventually, holds,
    http2::Http2,
    records, run,
    stack::{CODEX, OPENAI, client_key},
};

const PATH: &str = "/v1/chat/completions";

/// A pool whose members are written out, and a key to it that has more than that.
struct Pool<'a> {
    id: &'a str,
    policy: &'a str,
    members: Value,
    key: Value,
}

/// A stack with accounts of OpenAI's API, named `acc_<name>`, and pools of them.
struct Fleet {
    stack: Stack,
}

impl Fleet {
    async fn of(name: &str, accounts: &[(&str, Value)], pools: &[Pool<'_>]) -> Self {
        let stack = Stack::start(name).await;
        let mut lines = Vec::new();
        let mut ids = vec![CODEX.to_owned(), OPENAI.to_owned()];
        for (account, other) in accounts {
            let (id, key) = (format!("acc_{account}"), format!("sk-{account}"));
            stack.sim.add_api_key("openai", &key, account).await;
            let authority = stack.sim.authority();
            lines.push(records::account(
                &id,
                "openai",
                authority,
                &key,
                other.clone(),
            ));
            ids.push(id);
        }
        for pool in pools {
            let Pool {
                id,
                policy,
                members,
                key,
            } = pool;
            lines.push(
                json!({"pool": {"id": id, "policy": policy, "members": members}}).to_string(),
            );
            let line = records::key(&format!("key_{id}"), &client_key(id), id);
            let mut line: Value = serde_json::from_str(&line).expect("JSON");
            let (Some(record), Value::Object(more)) = (line["key"].as_object_mut(), key.clone())
            else {
                panic!("expected objects")
            };
            record.extend(more);
            lines.push(line.to_string());
        }
        let revision = stack.refresher.publish(lines);
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        stack.have_clusters(&ids).await;
        stack.reaches(revision).await;
        Self { stack }
    }

    /// Limits an account for that many seconds, until the fault is removed.
    async fn limit(&self, account: &str, seconds: u32) -> u64 {
        let retry_after = seconds.to_string();
        let fault = json!({
            "target": "upstream", "account": account, "fixture": "openai/rate_limit_exceeded.json",
            "headers": {"retry-after": retry_after},
        });
        self.stack.sim.add_fault(fault).await
    }

    /// The accounts of the chat completions that the platform got.
    async fn heard(&self) -> Vec<String> {
        let mut seen = self.stack.sim.seen().await;
        seen.retain(|seen| seen.path() == PATH);
        seen.iter()
            .map(|seen| seen.account().unwrap_or_default().to_owned())
            .collect()
    }

    async fn is_unharmed(&self) {
        assert_eq!(self.stack.envoy.crashes().await, 0, "a VM crashed");
        assert_eq!(self.stack.sim.count("refused_count").await, 0);
        assert_eq!(self.stack.sim.count("rejected_credentials").await, 0);
    }
}

fn members(accounts: &[&str]) -> Value {
    accounts
        .iter()
        .map(|id| json!({"account": format!("acc_{id}")}))
        .collect()
}

/// The account that served a chat completion.
fn server(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.body.split_once("Hello from ").expect("a greeting").1;
    text.chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect()
}

async fn ask(caller: &Caller, model: &str) -> Answer {
    let mut body = chat_body(false);
    body["model"] = model.into();
    caller.post(PATH, &body).await
}

async fn post(caller: &Caller, body: impl Into<reqwest::Body>, more: &[(&str, &str)]) -> Answer {
    let mut headers = vec![
        ("x-api-key", caller.key()),
        ("content-type", "application/json"),
    ];
    headers.extend(more);
    caller.send("POST", PATH, &headers, body).await
}

#[test]
fn a_models_limit_leaves_the_other_models_alone() {
    run(async {
        let pool = Pool {
            id: "pair",
            policy: "round_robin",
            members: members(&["one", "two"]),
            key: json!({}),
        };
        let accounts = [("one", json!({})), ("two", json!({}))];
        let fleet = Fleet::of("selection-model", &accounts, &[pool]).await;
        let caller = fleet.stack.caller("pair");
        let fault = fleet.limit("one", 60).await;
        for _ in 0..4 {
            assert_eq!(server(&ask(&caller, "gpt-5.6").await), "two");
        }
        fleet.stack.sim.remove_fault(fault).await;
        let mut others = Vec::new();
        for _ in 0..4 {
            assert_eq!(
                server(&ask(&caller, "gpt-5.6").await),
                "two",
                "it is out for it"
            );
            others.push(server(&ask(&caller, "gpt-5.4").await));
        }
        assert!(others.contains(&"one".to_owned()), "{others:?}");
        fleet.is_unharmed().await;
    });
}

#[test]
fn a_session_in_the_body_stays_on_one_account() {
    run(async {
        let names = ["three", "four", "five"];
        let pool = Pool {
            id: "sessions",
            policy: "sticky",
            members: members(&names),
            key: json!({}),
        };
        let accounts = names.map(|name| (name, json!({})));
        let fleet = Fleet::of("selection-session", &accounts, &[pool]).await;
        let caller = fleet.stack.caller("sessions");
        let mut all = BTreeMap::new();
        for session in 0..12 {
            let session = format!("session-{session}");
            let with = |name: &str, value: Value| {
                let mut body = chat_body(false);
                body[name] = value;
                body.to_string()
            };
            let user = json!({"device_id": "d", "account_uuid": "", "session_id": session});
            let in_header = [("session-id", session.as_str())];
            let mut servers = Vec::new();
            for (body, headers) in [
                (chat_body(false).to_string(), &in_header[..]),
                (with("prompt_cache_key", session.as_str().into()), &[]),
                (with("metadata", json!({"user_id": user.to_string()})), &[]),
                (with("previous_response_id", session.as_str().into()), &[]),
                (with("prompt_cache_key", session.as_str().into()), &[]),
            ] {
                servers.push(server(&post(&caller, body, headers).await));
            }
            servers.dedup();
            assert_eq!(servers.len(), 1, "{session}: {servers:?}");
            *all.entry(servers.remove(0)).or_insert(0) += 1;
        }
        assert!(all.len() > 1, "{all:?}");
        fleet.is_unharmed().await;
    });
}

/// ChatGPT takes only streams that are not stored.
#[test]
fn a_request_that_a_platform_would_refuse_goes_to_another() {
    run(async {
        let pool = Pool {
            id: "both",
            policy: "round_robin",
            members: json!([{"account": CODEX}, {"account": OPENAI}]),
            key: json!({}),
        };
        let fleet = Fleet::of("selection-requirements", &[], &[pool]).await;
        let caller = fleet.stack.caller("both");
        let heard = async || {
            let seen = fleet.stack.sim.seen().await;
            let to = |path: &str| seen.iter().filter(|seen| seen.path() == path).count();
            (to("/backend-api/codex/responses"), to("/v1/responses"))
        };
        for body in [
            json!({"model": "gpt-5.6", "input": "hi"}),
            json!({"model": "gpt-5.6", "input": "hi", "stream": true}),
            json!({"model": "gpt-5.6", "input": "hi", "stream": false, "store": false}),
        ] {
            for _ in 0..2 {
                let answer = caller.post("/v1/responses", &body).await;
                assert_eq!(answer.status, 200, "{body}: {answer:?}");
            }
        }
        assert_eq!(heard().await, (0, 6));
        for _ in 0..4 {
            let answer = caller.post("/v1/responses", &responses_body()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        // Each worker takes turns by itself, and connections are spread over the workers.
        let spread = heard().await;
        assert!(spread.0 >= 1 && spread.0 + spread.1 == 10, "{spread:?}");

        let body = json!({"model": "gpt-6.1-sol", "input": "hi", "store": false});
        let answer = fleet
            .stack
            .caller("codex")
            .post("/v1/responses", &body)
            .await;
        assert_eq!(
            answer.own_code(),
            Some("latchkey_requirement_not_met"),
            "{answer:?}"
        );
        assert_eq!(answer.status, 400);
        let message = answer.json()["error"]["message"].to_string();
        assert!(
            message.contains("stream") && message.contains("codex"),
            "{message}"
        );
        assert_eq!(heard().await, spread, "nothing was sent");
        fleet.is_unharmed().await;
    });
}

/// Each of the two workers takes turns by itself, so shares hold but for one request a worker.
#[test]
fn policies_tiers_and_weights_hold() {
    run(async {
        let names = ["six", "seven", "eight"];
        let weighted = json!([
            {"account": "acc_six", "weight": 3}, {"account": "acc_seven"}, {"account": "acc_eight"},
        ]);
        let tiers = json!([{"account": "acc_six", "tier": 1}, {"account": "acc_seven"}]);
        let pool = |id, policy, members| Pool {
            id,
            policy,
            members,
            key: json!({}),
        };
        let pools = [
            pool("turns", "round_robin", members(&names)),
            pool("weights", "round_robin", weighted),
            pool("tiers", "sticky", tiers),
            pool("filling", "fill_first", members(&["eight", "six"])),
            pool("idle", "least_in_flight", members(&names)),
        ];
        let accounts = names.map(|name| (name, json!({})));
        let fleet = Fleet::of("selection-policies", &accounts, &pools).await;
        let count = async |pool: &str, requests: usize| {
            let caller = fleet.stack.caller(pool);
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for n in 0..requests {
                let session = format!("s{n}");
                let answer = post(
                    &caller,
                    chat_body(false).to_string(),
                    &[("session-id", &session)],
                )
                .await;
                *counts.entry(server(&answer)).or_default() += 1;
            }
            counts
        };
        let of = |counts: &[(&str, usize)]| -> BTreeMap<String, usize> {
            counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        for (pool, shares) in [
            ("turns", [10, 10, 10]),
            ("weights", [18, 6, 6]),
            ("idle", [10, 10, 10]),
        ] {
            let counts = count(pool, 30).await;
            for (name, share) in names.into_iter().zip(shares) {
                let found = counts.get(name).copied().unwrap_or_default();
                assert!(found.abs_diff(share) <= 2, "{pool}: {counts:?}");
            }
        }
        assert_eq!(count("filling", 5).await, of(&[("eight", 5)]));
        assert_eq!(count("tiers", 5).await, of(&[("seven", 5)]));

        let (started, seconds) = (Instant::now(), 3);
        let seven = fleet.limit("seven", seconds).await;
        let eight = fleet.limit("eight", seconds).await;
        assert_eq!(count("tiers", 1).await, of(&[("six", 1)]));
        assert_eq!(count("filling", 1).await, of(&[("six", 1)]));
        fleet.stack.sim.remove_fault(seven).await;
        fleet.stack.sim.remove_fault(eight).await;
        for (pool, first) in [("tiers", "seven"), ("filling", "eight")] {
            eventually("the first returns", Duration::from_secs(20), async || {
                let counts = count(pool, 1).await;
                holds(counts.contains_key(first), || format!("{counts:?}"))
            })
            .await;
        }
        assert!(started.elapsed() >= Duration::from_secs(seconds.into()));
        fleet.is_unharmed().await;
    });
}

/// The words of platforms about the accounts' windows, in good answers, decide who is next.
#[test]
fn quota_decides_where_the_policy_goes_by_it() {
    run(async {
        let names = ["scarce", "plenty"];
        let pool = |id, policy| Pool {
            id,
            policy,
            members: members(&names),
            key: json!({}),
        };
        let pools = [
            pool("left", "most_quota_left"),
            pool("soon", "soonest_reset_first"),
        ];
        let accounts = names.map(|name| (name, json!({})));
        let fleet = Fleet::of("selection-quota", &accounts, &pools).await;
        for (name, remaining, reset) in [("scarce", "20", "30m"), ("plenty", "80", "50m")] {
            let fault = json!({
                "target": "upstream", "account": name, "status": 200, "body": format!("{{\"x\":\"Hello from {name}\"}}"),
                "headers": {
                    "content-type": "application/json", "x-ratelimit-limit-tokens": "100",
                    "x-ratelimit-remaining-tokens": remaining, "x-ratelimit-reset-tokens": reset,
                },
            });
            fleet.stack.sim.add_fault(fault).await;
        }
        for (pool, expected) in [("left", "plenty"), ("soon", "scarce")] {
            let caller = fleet.stack.caller(pool);
            eventually(
                "the policy's account",
                Duration::from_secs(20),
                async || {
                    let mut servers = Vec::new();
                    for _ in 0..4 {
                        servers.push(server(&ask(&caller, "gpt-5.6").await));
                    }
                    holds(servers.iter().all(|name| name == expected), || {
                        format!("{servers:?}")
                    })
                },
            )
            .await;
        }
        fleet.is_unharmed().await;
    });
}

/// One connection is one worker's, which counts what is under way with each account.
#[test]
fn the_idler_account_gets_the_next_request() {
    run(async {
        let pool = Pool {
            id: "idler",
            policy: "least_in_flight",
            members: members(&["nine", "ten"]),
            key: json!({}),
        };
        let accounts = [("nine", json!({})), ("ten", json!({}))];
        let fleet = Fleet::of("selection-idle", &accounts, &[pool]).await;
        let slow = json!({"target": "upstream", "account": "nine", "delay_ms": 60_000});
        fleet.stack.sim.add_fault(slow).await;
        let connection = Http2::connect(fleet.stack.envoy.port).await;
        let ask = async |connection: &Http2| {
            let key = client_key("idler");
            let headers = [
                ("x-api-key", key.as_str()),
                ("content-type", "application/json"),
            ];
            let body = chat_body(false).to_string();
            connection.post(PATH, &headers, &[&body], None).await.1
        };
        let other = connection.clone();
        let hanging = tokio::spawn(async move {
            // One of two goes to the account that takes a minute.
            ask(&other).await;
            ask(&other).await;
        });
        eventually("one hangs", Duration::from_secs(10), async || {
            let stats = fleet.stack.envoy.admin("/stats").await;
            let active = format!(
                "cluster.{}.upstream_rq_active: 1",
                clusters::hosts("acc_nine")
            );
            holds(stats.contains(&active), || "none is under way".to_owned())
        })
        .await;
        for _ in 0..6 {
            let body = ask(&connection).await;
            assert!(body.contains("Hello from ten"), "{body}");
        }
        hanging.abort();
        fleet.is_unharmed().await;
    });
}

/// A body that ends with trailers is read to its end like any other, and nothing of it goes on undecided.
#[test]
fn trailers_let_nothing_through_undecided() {
    run(async {
        let pool = Pool {
            id: "trailing",
            policy: "round_robin",
            members: members(&["right", "wrong"]),
            key: json!({"models": ["gpt-5.6", "o3"]}),
        };
        let accounts = [
            ("right", json!({"models": ["gpt-5.6"]})),
            ("wrong", json!({"models": ["o3"]})),
        ];
        let fleet = Fleet::of("selection-trailers", &accounts, &[pool]).await;
        let connection = Http2::connect(fleet.stack.envoy.port).await;
        let key = client_key("trailing");
        let forged = format!("latchkey-{OPENAI}");
        let headers = [
            ("x-api-key", key.as_str()),
            ("content-type", "application/json"),
            ("x-latchkey-cluster", forged.as_str()),
        ];
        let trailers = Some(("x-sum", "1"));
        let pieces = [r#"{"messages":[],"#, r#""model":"gpt-5"#, r#".6"}"#];
        for _ in 0..4 {
            let (status, body) = connection.post(PATH, &headers, &pieces, trailers).await;
            assert!(
                status == 200 && body.contains("Hello from right"),
                "{status} {body}"
            );
        }
        for cut in [&pieces[..1], &pieces[..2], &[]] {
            let (status, body) = connection.post(PATH, &headers, cut, trailers).await;
            assert!(
                status == 400 && body.contains("latchkey_no_model"),
                "{status} {body}"
            );
        }
        assert_eq!(fleet.heard().await, ["right"; 4]);
        fleet.is_unharmed().await;
    });
}

#[test]
fn a_wish_is_granted_where_the_key_allows_it() {
    run(async {
        let names = ["eleven", "twelve"];
        let pool = |id, accounts: &[&str], key| Pool {
            id,
            policy: "sticky",
            members: members(accounts),
            key,
        };
        let may = json!({"may_choose": {"account": true, "pools": ["second"]}});
        let pools = [
            pool("free", &names, may),
            pool("second", &["twelve"], json!({})),
        ];
        let accounts = names.map(|name| (name, json!({})));
        let fleet = Fleet::of("selection-wish", &accounts, &pools).await;
        let (free, bound) = (fleet.stack.caller("free"), fleet.stack.caller("second"));
        let body = || chat_body(false).to_string();
        for name in names {
            let id = format!("acc_{name}");
            let answer = post(&free, body(), &[("x-latchkey-account", &id)]).await;
            assert_eq!(server(&answer), name);
        }
        let answer = post(&free, body(), &[("x-latchkey-pool", "second")]).await;
        assert_eq!(server(&answer), "twelve");
        for (caller, wish) in [
            (&bound, ("x-latchkey-account", "acc_twelve")),
            (&bound, ("x-latchkey-pool", "free")),
            (&free, ("x-latchkey-account", OPENAI)),
            (&free, ("x-latchkey-pool", "all")),
        ] {
            let answer = post(caller, body(), &[wish]).await;
            let found = (answer.status, answer.own_code());
            assert_eq!(
                found,
                (403, Some("latchkey_choice_not_allowed")),
                "{wish:?}"
            );
        }

        // What the platform says about the account is passed on, and then told by ourselves: never another account.
        fleet.limit("eleven", 60).await;
        let wish = [("x-latchkey-account", "acc_eleven")];
        let first = post(&free, body(), &wish).await;
        assert_eq!((first.status, first.own_code()), (429, None), "{first:?}");
        let second = post(&free, body(), &wish).await;
        assert_eq!(
            (second.status, second.own_code()),
            (429, Some("latchkey_all_out")),
            "{second:?}"
        );
        assert!(
            second.body.contains("acc_eleven") && !second.body.contains("acc_twelve"),
            "{second:?}"
        );
        assert!(second.header("retry-after").is_some(), "{second:?}");
        assert_eq!(server(&post(&free, body(), &[]).await), "twelve");
        for seen in fleet.stack.sim.seen().await {
            let names = seen.header_names();
            assert!(
                !names.iter().any(|name| name.starts_with("x-latchkey")),
                "{names:?}"
            );
        }
        fleet.is_unharmed().await;
    });
}

#[test]
fn lists_of_models_hold_for_keys_and_accounts() {
    run(async {
        let pool = |id, key| Pool {
            id,
            policy: "round_robin",
            members: members(&["old", "new"]),
            key,
        };
        let pools = [
            pool("any", json!({})),
            pool("some", json!({"models": ["gpt-5.6", "o3"]})),
        ];
        let accounts = [
            ("old", json!({"models": ["gpt-5.4*"]})),
            ("new", json!({"models": ["gpt-5.6", "gpt-9"]})),
        ];
        let fleet = Fleet::of("selection-lists", &accounts, &pools).await;
        let (any, some) = (fleet.stack.caller("any"), fleet.stack.caller("some"));
        for _ in 0..3 {
            assert_eq!(server(&ask(&any, "gpt-5.4-mini").await), "old");
            assert_eq!(server(&ask(&any, "gpt-5.6").await), "new");
            assert_eq!(server(&ask(&some, "gpt-5.6").await), "new");
        }
        let refused = async |caller: &Caller, body: &str| {
            let answer = post(caller, body.to_owned(), &[]).await;
            (
                answer.status,
                answer.own_code().unwrap_or_default().to_owned(),
            )
        };
        let not_served = (404, "latchkey_model_not_served".to_owned());
        let not_allowed = (403, "latchkey_model_not_allowed".to_owned());
        assert_eq!(
            refused(&any, r#"{"model":"o3","messages":[]}"#).await,
            not_served
        );
        let no_model = (400, "latchkey_no_model".to_owned());
        for none in [r#"{"messages":[]}"#, "gpt-5.6", ""] {
            assert_eq!(refused(&any, none).await, no_model, "{none}");
            assert_eq!(refused(&some, none).await, no_model, "{none}");
        }
        assert_eq!(
            refused(&some, r#"{"model":"o3","messages":[]}"#).await,
            not_served
        );
        for trick in [
            r#"{"model":"gpt-5.4","messages":[]}"#,
            r#"{"model":"gpt-5.6","messages":[],"model":"gpt-5.4"}"#,
            r#"{"model":"gpt-5.6","messages":[],"mod\u0065l":"gpt-5.4"}"#,
        ] {
            assert_eq!(refused(&some, trick).await, not_allowed, "{trick}");
        }
        assert_eq!(fleet.heard().await.len(), 9, "nothing else was sent");
        let listed = async |caller: &Caller| -> Vec<String> {
            let list = caller.get("/v1/models").await.json();
            let models = list["data"].as_array().expect("a list");
            models
                .iter()
                .map(|model| model["id"].as_str().expect("an id").to_owned())
                .collect()
        };
        let all = listed(&any).await;
        assert!(
            all.contains(&"gpt-5.4-mini".to_owned()) && all.contains(&"gpt-9".to_owned()),
            "{all:?}"
        );
        assert!(!all.contains(&"gpt-5.5".to_owned()), "{all:?}");
        assert_eq!(listed(&some).await, ["gpt-5.6"]);
        fleet.is_unharmed().await;
    });
}

/// Only the end of the body says where it may go; and the answer is the platform's, byte for byte.
#[test]
fn a_model_at_the_end_of_a_large_or_slow_body_is_found() {
    run(async {
        let pool = Pool {
            id: "late",
            policy: "round_robin",
            members: members(&["right", "wrong"]),
            key: json!({}),
        };
        let accounts = [
            ("right", json!({"models": ["gpt-5.6"]})),
            ("wrong", json!({"models": ["o3"]})),
        ];
        let fleet = Fleet::of("selection-late", &accounts, &[pool]).await;
        let caller = fleet.stack.caller("late");
        let body = |bytes: usize| {
            let text = "word \\\"quoted\\\" {[".repeat(bytes / 18);
            format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],"model":"gpt-5.6"}}"#)
        };
        let large = body(5 * 1024 * 1024);
        assert_eq!(server(&post(&caller, large, &[]).await), "right");
        let coding = [("content-encoding", "zstd")];
        assert_eq!(
            server(&post(&caller, zstd(body(100_000).as_bytes()), &coding).await),
            "right"
        );

        let slow = |body: String| {
            let pieces: Vec<_> = body.as_bytes().chunks(997).map(<[u8]>::to_vec).collect();
            reqwest::Body::wrap_stream(stream::unfold(pieces.into_iter(), async |mut pieces| {
                let piece = pieces.next()?;
                tokio::time::sleep(Duration::from_millis(10)).await;
                Some((Ok::<_, std::io::Error>(piece), pieces))
            }))
        };
        assert_eq!(
            server(&post(&caller, slow(body(20_000)), &[]).await),
            "right"
        );

        let exact = "{\"id\":\"x\",  \"model\" : \"gpt-5.6\", \"choices\":[] }\n";
        let fault = json!({"target": "upstream", "status": 200, "headers": {"content-type": "application/json"}, "body": exact});
        fleet.stack.sim.add_fault(fault).await;
        for sent in [body(10), body(200_000)] {
            assert_eq!(post(&caller, sent, &[]).await.body, exact);
        }
        fleet.is_unharmed().await;
    });
}

/// A body that is no JSON, or too much of it, goes to the platform, which says what is wrong with it.
#[test]
fn hostile_bodies_are_the_platforms_to_refuse() {
    run(async {
        let pool = Pool {
            id: "hostile",
            policy: "sticky",
            members: members(&["thirteen", "fourteen"]),
            key: json!({}),
        };
        let accounts = [("thirteen", json!({})), ("fourteen", json!({}))];
        let fleet = Fleet::of("selection-hostile", &accounts, &[pool]).await;
        let caller = fleet.stack.caller("hostile");
        let deep = 200_000;
        let bodies: Vec<Vec<u8>> = vec![
            vec![b'['; 1 << 20],
            vec![b'{'; 1 << 20],
            format!(
                r#"{{"messages":{}{},"model":"m"}}"#,
                "[".repeat(deep),
                "]".repeat(deep)
            )
            .into(),
            b"{\"model\":\"\0\0\"}".to_vec(),
            vec![0; 100_000],
            b"{\"model\":\"\xff\xfe\",\"prompt_cache_key\":\"\xc3\x28\"}".to_vec(),
            vec![0xff; 100_000],
            br#"{"model":"a","model":"b","stream":true,"stream":false}"#.to_vec(),
            format!(r#"{{"model":"{}"}}"#, "m".repeat(1 << 20)).into(),
            format!("{{\"{}\":1}}", "k".repeat(1 << 20)).into(),
            br#"{"model":"#.to_vec(),
            br#"{"model":"\ud800\"#.to_vec(),
            b"null".to_vec(),
            Vec::new(),
        ];
        let mut sent = 0;
        for body in bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let answer = post(&caller, body, &[]).await;
            assert_eq!(answer.own_code(), None, "{shown}: {answer:?}");
            sent += 1;
            assert_eq!(fleet.heard().await.len(), sent, "{shown}");
        }
        assert_eq!(fleet.stack.envoy.crashes().await, 0);
        assert_eq!(ask(&caller, "gpt-5.6").await.status, 200);
    });
}
