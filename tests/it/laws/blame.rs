//! One caller takes no account from another.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    failover::Pool,
    harness::{
        Answer, Caller, Load, Stack,
        caller::{chat_body, messages_body},
        eventually, holds, records,
        refresher::Refresher,
        run,
        stack::{SYNC_LIMIT, client_key},
    },
};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// The time for which the attacks go on: several times as long as an account in trouble is left alone.
const ATTACK: Duration = Duration::from_secs(16);

/// The poison requests a second.
const RATE: u32 = 5;

/// A second key for the pool.
async fn victim(stack: &Stack) -> Caller {
    let key = client_key("victim");
    let revision = stack
        .refresher
        .publish([records::key("key_victim", &key, "several")]);
    stack.reaches(revision).await;
    Caller::new(stack.envoy.port, &key)
}

/// A chat that says `text`.
fn saying(text: &str) -> Value {
    let mut body = chat_body(false);
    body["messages"][0]["content"] = text.into();
    body
}

/// The share of good answers, in percent.
fn good(outcomes: &[reqwest::Result<Answer>]) -> f64 {
    let good = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Answer { status: 200, .. })));
    good.count() as f64 / outcomes.len() as f64 * 100.0
}

/// Beside a key whose every request breaks every account in this way, another key is served.
async fn attack(name: &str, mut fault: Value) {
    let pool = Pool::of(name, &["one", "two"]).await;
    let victim = victim(&pool.stack).await;
    fault["target"] = "upstream".into();
    fault["request_has"] = "poison".into();
    pool.stack.sim.add_fault(fault).await;
    let poison = Load::start(pool.caller.clone(), CHAT, saying("poison"), RATE);
    let served = Load::start(victim, CHAT, saying("hi"), RATE);
    tokio::time::sleep(ATTACK).await;
    let served = served.stop().await;
    drop(poison);
    let share = good(&served);
    println!("{name}: {share:.1} % of {} answers are good", served.len());
    assert!(served.len() > 40, "only {} requests", served.len());
    assert!(
        share >= 98.0,
        "{share:.1} %: {:?}",
        served
            .iter()
            .find(|one| { !matches!(one, Ok(Answer { status: 200, .. })) })
    );
    assert_eq!(pool.stack.envoy.crashes().await, 0);
}

#[test]
fn poison_that_is_answered_500_costs_the_other_key_nothing() {
    run(attack("blame-500", json!({"status": 500, "body": "{}"})));
}

#[test]
fn poison_that_breaks_the_connection_costs_the_other_key_nothing() {
    run(attack("blame-reset", json!({"drop_before_answer": true})));
}

#[test]
fn poison_that_stalls_costs_the_other_key_nothing() {
    run(attack("blame-stall", json!({"stall_after_bytes": 0})));
}

/// A limit without a time is the platform's word about one request.
#[test]
fn poison_that_is_answered_429_costs_the_other_key_nothing() {
    run(attack("blame-429", json!({"status": 429, "body": "{}"})));
}

/// Anthropic's API begins a message with the caller's own word. Whatever sentence that is, the request is at fault and
/// nothing else.
#[test]
fn a_member_named_like_a_sentence_is_its_callers_fault() {
    run(async {
        let stack = Stack::start("blame-echo").await;
        let caller = stack.caller("anthropic");
        for sentence in [
            "This organization has been disabled.",
            "OAuth authentication is currently not allowed for this organization.",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
            "You have reached your specified API usage limits. You will regain access on 2030-10-01 at 00:00 UTC.",
            "invalid x-api-key",
            "billing_error",
        ] {
            let mut body = messages_body(false);
            body[sentence] = 1.into();
            let answer = caller.post(MESSAGES, &body).await;
            assert_eq!(answer.status, 400, "{sentence}: {answer:?}");
            let begins = format!("{sentence}: Extra inputs are not permitted");
            assert_eq!(answer.json()["error"]["message"], begins, "{answer:?}");
            let answer = caller.post(MESSAGES, &messages_body(false)).await;
            assert_eq!(answer.status, 200, "after {sentence}: {answer:?}");
        }
        assert_eq!(
            stack
                .refresher
                .reports()
                .iter()
                .filter(|batch| {
                    batch["reports"].as_array().is_some_and(|reports| {
                        reports.iter().any(|report| report["kind"] != "quota")
                    })
                })
                .count(),
            0
        );
    });
}

/// Two accounts say the same of one request: it is the request. Neither is out for anybody else.
#[test]
fn a_refusal_that_two_accounts_share_is_its_callers_fault() {
    run(async {
        let pool = Pool::of("blame-same", &["one", "two", "three"]).await;
        let victim = victim(&pool.stack).await;
        let poison = json!({
            "target": "upstream", "request_has": "poison", "status": 403,
            "body": {"error": {"message": "no", "type": "invalid_request_error", "code": "account_deactivated"}},
        });
        pool.stack.sim.add_fault(poison).await;
        for _ in 0..6 {
            let answer = pool.caller.post(CHAT, &saying("poison")).await;
            let own = answer.own_code();
            // Where one account alone is left to its caller, nobody can say the same.
            let alone = matches!(own, Some("latchkey_all_out" | "latchkey_no_account"));
            assert!(answer.status == 403 && own.is_none() || alone, "{answer:?}");
        }
        let served = async |name: &str| {
            let hello = format!("Hello from {name}");
            for _ in 0..9 {
                let answer = victim.post(CHAT, &saying("hi")).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                if answer.body.contains(&hello) {
                    return true;
                }
            }
            false
        };
        for name in ["one", "two", "three"] {
            assert!(served(name).await, "{name} is out");
        }
        eventually(
            "the suspicion is reported with who raised it",
            SYNC_LIMIT,
            async || {
                let batches = pool.stack.refresher.reports();
                let mut reports = batches
                    .iter()
                    .filter_map(|batch| batch["reports"].as_array())
                    .flatten();
                let found = reports.any(|report| {
                    report["kind"] == "dead"
                        && report["confirmed"] == false
                        && report["key"] == "key_several"
                        && report["request"].is_string()
                });
                holds(found, || format!("{batches:?}"))
            },
        )
        .await;
    });
}

/// A broken account is left alone by the keys that meet it, each by itself, and by all of them once two have.
#[test]
fn a_broken_account_is_left_by_every_key() {
    run(async {
        let pool = Pool::of("blame-broken", &["one", "two"]).await;
        let victim = victim(&pool.stack).await;
        pool.break_account("one", json!({"status": 500, "body": "{}"}))
            .await;
        for _ in 0..12 {
            for caller in [&pool.caller, &victim] {
                assert_eq!(caller.post(CHAT, &saying("hi")).await.status, 200);
            }
        }
        let heard = pool.heard_from("one").await;
        assert!((3..=8).contains(&heard), "it was asked {heard} times");
    });
}

/// The real refresher with accounts of OpenAI's API, and two client keys, of which the second one never asks.
async fn of_two_keys(name: &str, accounts: &[&str]) -> (Stack<Refresher>, Caller) {
    let stack = Stack::real(name, async |sim, refresher| {
        for account in accounts {
            let key = format!("sk-{account}");
            sim.add_api_key("openai", &key, account).await;
            refresher.add_api_key(account, "openai", &key).await;
        }
        refresher.takes_turns().await;
    })
    .await;
    let caller = stack.caller("team").await;
    stack.caller("silent").await;
    (stack, caller)
}

/// How often the refresher itself asked the platform about `account`, each time with the account's credential alone.
async fn probes(stack: &Stack<Refresher>, account: &str) -> usize {
    let seen = stack.sim.seen().await;
    let probes = seen
        .iter()
        .filter(|seen| seen.path() == "/v1/models" && seen.account() == Some(account));
    let key = format!("Bearer sk-{account}");
    let ours = probes.inspect(|seen| assert_eq!(seen.header("authorization"), [&key]));
    ours.count()
}

/// Nobody but one key meets the account. The platform is asked by the refresher itself, and its word is final.
#[test]
fn a_dead_account_that_one_key_alone_meets_is_dead_for_good() {
    run(async {
        let (stack, caller) = of_two_keys("blame-probe-dead", &["gone", "good"]).await;
        let gone = json!({"target": "upstream", "account": "gone", "fixture": "openai/account_deactivated.json"});
        stack.sim.add_fault(gone).await;
        for _ in 0..4 {
            assert_eq!(caller.post(CHAT, &saying("hi")).await.status, 200);
        }
        let refresher = &stack.refresher;
        refresher.becomes("gone", "dead", SYNC_LIMIT).await;
        assert_eq!(probes(&stack, "gone").await, 1);
        assert_eq!(refresher.log_lines("the platform was asked", "gone"), 1);
        // The operator finds who said so, and in which request.
        for field in ["\"key\":\"", "\"request\":\""] {
            let told = refresher.log_lines("one client key was told", field);
            assert_eq!(told, 1, "{field}");
        }
        assert_eq!(
            probes(&stack, "good").await,
            0,
            "nobody said anything of it"
        );
        let shown = refresher.account("gone").await;
        assert!(
            shown["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("deactivated")),
            "{shown}"
        );
    });
}

/// A request that makes its platform say that the account is dead costs its caller that account until the platform has
/// been asked, and not for the minute that it would be out otherwise.
#[test]
fn an_account_that_a_request_slandered_is_back_soon() {
    run(async {
        let (stack, caller) = of_two_keys("blame-probe-alive", &["only"]).await;
        let slander = json!({
            "target": "upstream", "request_has": "poison", "status": 401,
            "body": {"error": {"message": "no", "type": "invalid_request_error", "code": "invalid_api_key"}},
        });
        stack.sim.add_fault(slander).await;
        let answer = caller.post(CHAT, &saying("poison")).await;
        assert_ne!(answer.status, 200, "{answer:?}");
        let began = Instant::now();
        eventually("the account is back", SYNC_LIMIT, async || {
            let answer = caller.post(CHAT, &saying("hi")).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        println!("back after {:?}", began.elapsed());
        assert_eq!(probes(&stack, "only").await, 1);
        let refresher = &stack.refresher;
        assert_eq!(refresher.log_lines("an account is alive", "only"), 1);
        let shown = refresher.account("only").await;
        assert_eq!(
            (&shown["status"], &shown["reason"]),
            (&json!("active"), &Value::Null)
        );
    });
}

/// A caller who may not choose an account is told of it by its id.
#[test]
fn no_caller_is_told_the_name_of_an_account() {
    run(async {
        let stack = Stack::start("blame-names").await;
        let name = "alice@example.com";
        let account = records::account(
            "acc_private",
            "openai",
            stack.sim.authority(),
            "sk-openai",
            json!({"name": name}),
        );
        let free = client_key("free");
        let revision = stack.refresher.publish([
            account,
            records::pool("private", "sticky", &["acc_private"]),
            records::key("key_private", &client_key("private"), "private"),
            records::key_with(
                "key_free",
                &free,
                "private",
                json!({"may_choose": {"account": true}}),
            ),
        ]);
        stack.have_clusters(&["acc_private"]).await;
        stack.reaches(revision).await;
        let limited = json!({"target": "upstream", "status": 429, "body": {"error": {"message": "slow"}},
            "headers": {"retry-after": "600"}});
        stack.sim.add_fault(limited).await;
        let caller = stack.caller("private");
        caller.post(CHAT, &chat_body(false)).await;
        let answer = caller.post(CHAT, &chat_body(false)).await;
        assert_eq!(answer.own_code(), Some("latchkey_all_out"), "{answer:?}");
        assert!(
            answer.body.contains("acc_private (rate_limited)"),
            "{answer:?}"
        );
        assert!(!answer.body.contains(name), "{answer:?}");
        let answer = Caller::new(stack.envoy.port, &free)
            .post(CHAT, &chat_body(false))
            .await;
        assert!(
            answer.body.contains("alice@example.com (rate_limited)"),
            "{answer:?}"
        );
    });
}
