//! The things that every supported Envoy must do, in a minute. `make e2e` runs these tests with all others on the Envoy that the
//! project is built for, and `make smoke` on the oldest one.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Answer, Caller, Stack,
    caller::{chat_body, messages_body, responses_body},
    eventually, holds,
    process::WORKERS,
    refresher::Refresher,
    run, setting,
    sim::Sim,
    stack,
    stack::ALICE,
};

const CHAT: &str = "/v1/chat/completions";

/// Longer than a token of this test lives.
const LIFETIME: Duration = Duration::from_secs(600);

/// More than the record of a request takes to the refresher.
const RECORD_LIMIT: Duration = Duration::from_secs(20);

/// The accounts at platforms: more of them at OpenAI's than there are faults below, each of which takes one out.
const KEYS: [(&str, &str); 6] = [
    ("a", "openai"),
    ("b", "openai"),
    ("c", "openai"),
    ("d", "openai"),
    ("e", "openai"),
    ("f", "anthropic"),
];

/// A stack with a login, and accounts with API keys.
async fn start(name: &str) -> Stack<Refresher> {
    Stack::real(name, populate).await
}

async fn populate(sim: &Sim, refresher: &Refresher) {
    refresher.log_in_new(sim, ALICE, LIFETIME).await;
    for (account, platform) in KEYS {
        let key = match platform {
            "anthropic" => format!("sk-ant-{account}"),
            _ => format!("sk-{account}"),
        };
        sim.add_api_key(platform, &key, account).await;
        refresher.add_api_key(account, platform, &key).await;
    }
}

/// The Envoy under test is the one that was asked for, and takes the shipped configuration: a login and API keys serve JSON
/// and streams of each dialect, and what they used is recorded.
#[test]
fn this_envoy_is_the_one_that_was_asked_for_and_serves_requests_and_streams() {
    run(async {
        let stack = Stack::real_as_shipped("smoke-serves", populate).await;
        let version = stack.envoy.version().await;
        let path = setting("LATCHKEY_ENVOY").display().to_string();
        println!("Envoy {version} at {path}");
        // Of each thread one, and the one that these were made of: gate and attempts are in the same.
        let vms = stack.envoy.stat("wasm.runtime.v8.active").await;
        assert_eq!(vms, u64::try_from(WORKERS + 2).expect("few"));
        let supported = [
            include_str!("../../.envoy-version"),
            include_str!("../../.envoy-oldest-version"),
        ];
        let named = supported.iter().find(|named| path.contains(named.trim()));
        assert!(
            named.is_none_or(|named| named.trim() == version),
            "{path}: {version}"
        );
        let caller = stack.caller("caller").await;
        for (path, body, end) in [
            ("/v1/responses", responses_body(), "response.completed"),
            (CHAT, chat_body(false), "chat.completion"),
            (CHAT, chat_body(true), "data: [DONE]\n\n"),
            ("/v1/messages", messages_body(false), "message"),
            ("/v1/messages", messages_body(true), "message_stop"),
        ] {
            let answer = caller.post(path, &body).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.body.contains(end), "{path}: {answer:?}");
        }
        let requests = async || {
            let arguments = ["usage", "--by", "key", "--json"];
            let text = stack.refresher.run(&arguments, "").await;
            let usage: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            usage["rows"][0]["requests"].as_u64()
        };
        eventually("the requests are recorded", RECORD_LIMIT, async || {
            let found = requests().await;
            // A caller asks for the models until its key is known; that is no request to a platform.
            holds(found >= Some(5), || format!("{found:?}"))
        })
        .await;
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Each way of failing over: an error, an error inside a stream, no answer at all.
#[test]
fn what_one_account_fails_another_serves() {
    const OVERLOADED: &str = "data: {\"error\":{\"message\":\"The server is overloaded\",\"type\":\"server_error\",\
        \"code\":\"server_is_overloaded\"}}\n\n";
    run(async {
        let stack = start("smoke-failover").await;
        let caller = stack.caller("caller").await;
        for mut fault in [
            json!({"fixture": "openai/server_error.json"}),
            json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": OVERLOADED}),
            json!({"drop_before_answer": true}),
            json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "1"}}),
        ] {
            let what = fault.to_string();
            fault["target"] = "upstream".into();
            fault["path"] = CHAT.into();
            fault["times"] = 1.into();
            let before = stack.sim.count("requests").await;
            stack.sim.add_fault(fault).await;
            let answer = caller.post(CHAT, &chat_body(true)).await;
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            assert!(
                answer.body.ends_with("data: [DONE]\n\n"),
                "{what}: {answer:?}"
            );
            assert_eq!(stack.sim.count("requests").await - before, 2, "{what}");
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// A key's limit is kept, and its refusal says when to come back.
#[test]
fn a_limit_refuses_what_is_above_it() {
    /// One, and those that began before it was counted.
    const MOST: u64 = 10;
    run(async {
        let stack = start("smoke-limit").await;
        let arguments = ["keys", "create", "limited", "--tokens-per-day", "1"];
        let key = stack.refresher.run(&arguments, "").await;
        let caller = Caller::new(stack.envoy.port, key.trim());
        let mut refused = None;
        eventually("the limit is met", stack::SYNC_LIMIT, async || {
            let answer: Answer = caller.post(CHAT, &chat_body(false)).await;
            let is_limit = answer.status == 429;
            let said = format!("{answer:?}");
            refused = Some(answer);
            holds(is_limit, || said)
        })
        .await;
        let refused = refused.expect("an answer");
        assert!(
            refused
                .own_code()
                .is_some_and(|code| code.contains("limit")),
            "{refused:?}"
        );
        assert!(refused.body.contains("Try again at"), "{refused:?}");
        let served = stack.sim.count("requests").await;
        assert!(
            (1..=MOST).contains(&served),
            "{served} requests of a key with one token a day"
        );
    });
}
