use std::time::{Duration, Instant};

use latchkey::snapshot::page::{Epoch, PageHeader};
use serde_json::json;
use tokio::time::sleep;

use crate::harness::{
    Caller, Load, Stack,
    caller::{chat_body, messages_body, responses_body},
    envoy::Envoy,
    eventually,
    fake_refresher::{FakeRefresher, Mangle},
    holds, records, run,
    sim::Sim,
    stack::{self, CODEX, OPENAI, client_key, new_folder},
};

const CHAT: &str = "/v1/chat/completions";

/// Until the first snapshot every request is refused, in its dialect and with a time to come back, and
/// nothing is sent anywhere.
#[test]
fn without_a_snapshot_nothing_is_sent() {
    run(async {
        let _permit = stack::permit().await;
        let folder = new_folder("faults-no-snapshot");
        let sim = Sim::start(&folder).await;
        sim.write_clusters(&folder, &[OPENAI]);
        let envoy = Envoy::start(&folder, 0).await;
        let caller = Caller::new(envoy.port, &client_key("openai"));
        for (path, body) in [
            ("/v1/responses", responses_body()),
            (CHAT, chat_body(true)),
            ("/v1/messages", messages_body(false)),
        ] {
            let answer = caller.post(path, &body).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_eq!(answer.own_code(), Some("latchkey_not_ready"), "{answer:?}");
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
            let dialect_is_messages = answer.json()["type"] == "error";
            assert_eq!(dialect_is_messages, path == "/v1/messages", "{answer:?}");
        }
        assert_eq!(caller.get("/v1/models").await.status, 503);

        sim.add_api_key("openai", "sk-openai", "openai-key").await;
        let refresher = FakeRefresher::start(&folder).await;
        refresher.publish(stack::openai_alone(&sim));
        eventually(
            "the first good answer",
            Duration::from_secs(2),
            async || {
                let answer = caller.post(CHAT, &chat_body(false)).await;
                holds(answer.status == 200, || format!("{answer:?}"))
            },
        )
        .await;
        assert_eq!(sim.count("rejected_credentials").await, 0);
    });
}

/// A page that is damaged, of another format, or not the next one is refused and counted, what was there
/// stays in use, and the next good page mends it.
#[test]
fn a_bad_page_is_never_applied() {
    let bad: [(&str, Mangle); 11] = [
        ("a flipped bit in the checksum", |page| flipped(page, 3)),
        ("a flipped bit in the header", |page| flipped(page, 70)),
        ("a flipped bit in a record", |page| {
            flipped(page, page.len() - 20)
        }),
        ("cut short", |page| page[..page.len() - 7].to_vec()),
        ("longer", |page| [page, b"{}\n"].concat()),
        ("empty", |_| Vec::new()),
        ("not a page", |_| b"<html>502 Bad Gateway</html>".to_vec()),
        ("another format", |page| {
            resealed(page, "\"format\":2", "\"format\":1")
        }),
        ("a wrong count", |page| {
            resealed(page, "\"records\":", "\"records\":1")
        }),
        ("a gap", |_| {
            PageHeader::encode(Epoch::from_bytes([1; 16]), false, (900, 901), false, [])
        }),
        ("another history", |_| {
            PageHeader::encode(Epoch::from_bytes([2; 16]), false, (1, 99), false, [])
        }),
    ];
    run(async {
        let stack = Stack::start("faults-pages").await;
        let caller = stack.caller("openai");
        for (number, (case, mangle)) in bad.into_iter().enumerate() {
            let refused = stack.envoy.stat("latchkey.pages_refused").await;
            let held = stack.envoy.revision().await;
            stack.refresher.mangle(Some(mangle));
            let key = format!("late-{number}");
            let line = records::key(&format!("key_{number}"), &client_key(&key), "openai");
            let revision = stack.refresher.publish([line]);
            eventually(case, Duration::from_secs(5), async || {
                let now = stack.envoy.stat("latchkey.pages_refused").await;
                holds(now > refused, || format!("{now} refused"))
            })
            .await;
            assert_eq!(stack.envoy.revision().await, held, "{case}");
            assert_eq!(
                caller.post(CHAT, &chat_body(false)).await.status,
                200,
                "{case}"
            );
            assert_eq!(
                stack.caller(&key).get("/v1/models").await.status,
                401,
                "{case}"
            );
            stack.refresher.mangle(None);
            stack.reaches(revision).await;
            assert_eq!(
                stack.caller(&key).get("/v1/models").await.status,
                200,
                "{case}"
            );
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

fn flipped(page: &[u8], at: usize) -> Vec<u8> {
    let mut page = page.to_vec();
    page[at] ^= 1;
    page
}

/// The page with a text replaced and a checksum that holds.
fn resealed(page: &[u8], from: &str, to: &str) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let text = String::from_utf8(page.to_vec()).expect("UTF-8");
    let (_, body) = text.split_once('\n').expect("a checksum");
    assert!(body.contains(from), "{from} in {body}");
    let body = body.replacen(from, to, 1);
    let sum = Sha256::digest(&body);
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{sum}\n{body}").into_bytes()
}

/// As far as it can be seen from outside: of the three VMs of this Envoy, one polls at a time.
#[test]
fn one_vm_polls() {
    run(async {
        let stack = Stack::start("faults-lease").await;
        for _ in 0..20 {
            let revision = stack
                .refresher
                .publish([records::removed("account", "acc_none")]);
            stack.reaches(revision).await;
        }
        sleep(Duration::from_secs(4)).await;
        assert_eq!(stack.refresher.most_polling(), 1);
    });
}

/// A snapshot of 10,000 accounts and as many keys arrives whole, and a change of it is in use at once.
#[test]
fn a_large_snapshot_arrives_and_changes_quickly() {
    const MANY: usize = 10_000;
    run(async {
        let stack = Stack::start("faults-large").await;
        let token = "t".repeat(2_000);
        let names: Vec<String> = (0..MANY).map(|number| format!("acc_{number}")).collect();
        let accounts = names
            .iter()
            .map(|name| records::account(name, "openai", "127.0.0.1:1", &token, json!({})));
        let keys = (0..MANY).map(|number| {
            records::key(
                &format!("key_{number}"),
                &client_key(&number.to_string()),
                "openai",
            )
        });
        let published = Instant::now();
        let revision = stack.refresher.publish(accounts.chain(keys));
        let limit = Duration::from_secs(60);
        stack.reaches_within(limit, revision).await;
        println!("20,000 records arrived in {:?}", published.elapsed());
        let last = stack.caller(&(MANY - 1).to_string());
        assert_eq!(last.post(CHAT, &chat_body(false)).await.status, 200);

        let key = [records::key("key_new", &client_key("new"), "openai")];
        let published = Instant::now();
        stack.refresher.publish(key);
        eventually("the new key is taken", Duration::from_secs(1), async || {
            let answer = stack.caller("new").get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        println!("one change was in use in {:?}", published.elapsed());
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// While the refresher is dead, for moments and for longer than a poll takes, the last snapshot serves with its tokens;
/// when it is back the next change arrives.
#[test]
fn a_dead_refresher_costs_no_request() {
    run(a_refresher_is_dead_for(Duration::from_secs(15)));
}

async fn a_refresher_is_dead_for(long: Duration) {
    const TEN_MINUTES: Duration = Duration::from_secs(600);
    const SHORT: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];
    let mut stack = Stack::alice("faults-refresher", TEN_MINUTES).await;
    let caller = stack.caller("load").await;
    let load = Load::start(caller, "/v1/responses", responses_body(), 100);
    for pause in [SHORT[0], long, SHORT[1]] {
        sleep(Duration::from_millis(500)).await;
        stack.refresher.kill().await;
        sleep(pause).await;
        stack.refresher.serve().await;
    }
    stack.caller("after").await;
    let least = long.as_secs() * 65;
    load.assert_all_good(usize::try_from(least).expect("not for ever"))
        .await;
    assert_eq!(stack.sim.count("rejected_credentials").await, 0);
    assert_eq!(stack.envoy.crashes().await, 0);
}

/// Nothing without a credential ever leaves, and good answers are back within 2 s of Envoy being live.
#[test]
fn a_killed_envoy_comes_back_within_two_seconds() {
    run(an_envoy_is_killed(3));
}

async fn an_envoy_is_killed(times: usize) {
    let mut stack = Stack::real("faults-envoy", async |sim, refresher| {
        sim.add_api_key("openai", "sk-openai", "openai-key").await;
        refresher.add_api_key("work", "openai", "sk-openai").await;
    })
    .await;
    let caller = stack.caller("load").await;
    let load = Load::start(caller.clone(), CHAT, chat_body(false), 50);
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        stack.restart_envoy(stack.envoy.port).await;
        let live = Instant::now();
        eventually("a good answer", Duration::from_secs(2), async || {
            let answer = caller.try_post(CHAT, &chat_body(false)).await;
            holds(
                matches!(&answer, Ok(answer) if answer.status == 200),
                || format!("{answer:?}"),
            )
        })
        .await;
        slowest = slowest.max(live.elapsed());
    }
    println!("the slowest first good answer came {slowest:?} after Envoy was live");
    let outcomes = load.stop().await;
    let strange: Vec<_> = outcomes
        .iter()
        .flatten()
        .filter(|answer| answer.status != 200 && answer.own_code() != Some("latchkey_not_ready"))
        .collect();
    assert!(
        strange.is_empty(),
        "{} of {}: {:?}",
        strange.len(),
        outcomes.len(),
        strange[0]
    );
    assert_eq!(stack.sim.count("rejected_credentials").await, 0);
    assert_eq!(stack.sim.count("refused_count").await, 0);
}

/// A stream that runs goes on to its end while its account's token is replaced and its account is taken away.
#[test]
fn a_running_stream_is_not_cut() {
    run(async {
        let stack = Stack::start("faults-stream").await;
        let pace = json!({"event_delay_ms": 200, "events": 30});
        stack
            .sim
            .ask(reqwest::Method::POST, "/settings", pace)
            .await;
        let caller = stack.caller("openai");
        let streams: Vec<_> = (0..20)
            .map(|_| {
                let caller = caller.clone();
                tokio::spawn(async move { caller.post(CHAT, &chat_body(true)).await })
            })
            .collect();
        sleep(Duration::from_secs(1)).await;
        let (sim, newer) = (&stack.sim, json!({"generation": 2}));
        sim.add_api_key("openai", "sk-newer", "newer-key").await;
        let authority = sim.authority();
        stack.refresher.publish([records::account(
            OPENAI, "openai", authority, "sk-newer", newer,
        )]);
        sleep(Duration::from_secs(1)).await;
        let revision = stack
            .refresher
            .publish([records::removed("account", OPENAI)]);
        stack.reaches(revision).await;
        stack.have_clusters(&[CODEX]).await;
        assert_eq!(
            caller.post(CHAT, &chat_body(true)).await.own_code(),
            Some("latchkey_no_account")
        );
        assert!(
            streams.iter().all(|stream| !stream.is_finished()),
            "too short a stream"
        );
        for stream in streams {
            let answer = stream.await.expect("no panic");
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.ends_with("data: [DONE]\n\n"), "cut: {answer:?}");
        }
    });
}

/// Accounts that are added while requests run serve some of them and fail none. Those of a platform that is in use
/// change no cluster; for the first of another one Envoy learns of its cluster and of the account itself in two ways,
/// and either may be first.
#[test]
fn a_new_account_costs_no_request() {
    run(async {
        let stack = Stack::real("faults-new-account", async |sim, refresher| {
            sim.add_api_key("openai", "sk-0", "key-0").await;
            refresher.add_api_key("account-0", "openai", "sk-0").await;
            refresher.takes_turns().await;
        })
        .await;
        let clusters = stack.refresher.file("envoy/clusters.json");
        let read = || std::fs::read_to_string(&clusters).expect("the clusters");
        let before = read();
        assert_eq!(before.matches("\"latchkey-openai\"").count(), 1, "{before}");
        let mut loads = Vec::new();
        for caller in 0..8 {
            let caller = stack.caller(&format!("caller-{caller}")).await;
            loads.push(Load::start(caller, CHAT, chat_body(false), 12));
        }
        for number in 1..6 {
            let (key, name) = (format!("sk-{number}"), format!("key-{number}"));
            stack.sim.add_api_key("openai", &key, &name).await;
            stack
                .refresher
                .add_api_key(&format!("account-{number}"), "openai", &key)
                .await;
            sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(read(), before, "an account more is no cluster more");
        let messages = stack.caller("messages").await;
        stack.sim.add_api_key("anthropic", "sk-ant-1", "ant").await;
        stack
            .refresher
            .add_api_key("ant", "anthropic", "sk-ant-1")
            .await;
        eventually("the other platform serves", stack::SYNC_LIMIT, async || {
            let answer = messages.post("/v1/messages", &messages_body(false)).await;
            // Until the account is known nobody serves the path. Envoy never has an account without its cluster.
            let unknown = answer.own_code() != Some("latchkey_envoy");
            assert!(unknown, "{answer:?}");
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        assert!(read().contains("\"latchkey-anthropic\""));
        for load in loads {
            load.assert_all_good(20).await;
        }
        let seen = stack.sim.seen().await;
        let used = (0..6).filter(|number| {
            let name = format!("key-{number}");
            seen.iter().any(|seen| seen.account() == Some(&name))
        });
        assert!(used.count() >= 3, "the callers spread over the accounts");
    });
}

/// The same for longer (`make long`).
mod long {
    use super::*;

    #[test]
    #[ignore = "five minutes"]
    fn a_refresher_that_is_dead_for_minutes_costs_no_request() {
        run(a_refresher_is_dead_for(Duration::from_secs(300)));
    }

    #[test]
    #[ignore = "two minutes"]
    fn an_envoy_that_is_killed_fifty_times_comes_back() {
        run(an_envoy_is_killed(50));
    }
}
