//! Nothing spins.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{
    Load, Stack,
    caller::{chat_body, responses_body},
    refresher::{Refresher, SHORT_LIVES},
    run,
    stack::ALICE,
};

/// A stack with Alice's login, whose access tokens live for a second, and the settings that operators get.
async fn one_second(name: &str) -> Stack<Refresher> {
    Stack::real(name, async |sim, refresher| {
        let config = refresher.file("config.toml");
        let text = fs::read_to_string(&config).expect("the configuration");
        assert!(text.contains(SHORT_LIVES));
        fs::write(config, text.replace(SHORT_LIVES, "")).expect("written");
        refresher
            .log_in_new(sim, ALICE, Duration::from_secs(1))
            .await;
    })
    .await
}

/// A platform that grants tokens of no life is not asked for the next at once: a token's end alone asks no sooner than half a
/// minute after the refresh before. Without that floor there are eight refreshes here.
#[test]
fn tokens_that_live_for_a_second_are_not_refreshed_each_second() {
    run(async {
        let stack = one_second("spinning-floor").await;
        sleep(Duration::from_secs(8)).await;
        assert_eq!(stack.sim.count("refreshes").await, 0);
        assert_eq!(stack.refresher.account(ALICE).await["status"], "active");
    });
}

/// Refreshes come ever later where the platform takes back each token a moment after it is granted, under a load: after 0,
/// 1, 2 and 4 seconds, and so on.
#[test]
fn a_platform_whose_every_token_is_refused_is_asked_ever_more_seldom() {
    run(async {
        let stack = Stack::alice("spinning-refused", Duration::from_secs(3600)).await;
        let caller = stack.caller("load").await;
        let load = Load::start(caller, "/v1/responses", responses_body(), 20);
        let path = format!("/users/{ALICE}/revoke_access");
        for _ in 0..40 {
            stack.sim.ask(Method::POST, &path, Value::Null).await;
            sleep(Duration::from_millis(250)).await;
        }
        let refreshes = stack.sim.count("refreshes").await;
        load.stop().await;
        assert!((2..=6).contains(&refreshes), "{refreshes} in 10 s");
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
    });
}

/// Streams whose bytes are dear to read pass the real filter as they are. Their cost is bounded in `src/text`, and stands in
/// bench/README.md.
#[test]
fn streams_made_to_be_dear_pass_as_they_are() {
    const BYTES: usize = 1 << 19;
    run(async {
        let stack = Stack::real("spinning-streams", async |sim, refresher| {
            sim.add_api_key("openai", "sk-one", "one").await;
            refresher.add_api_key("one", "openai", "sk-one").await;
        })
        .await;
        let caller = stack.caller("team").await;
        for (dear, tiny) in [
            ("\n", false),
            ("\r", false),
            ("a\n", false),
            ("data:", false),
            ("data:\n\n", false),
            ("[", false),
            ("\n", true),
            ("data:\n", true),
        ] {
            let (bytes, piece) = if tiny {
                (4_096, Some(1))
            } else {
                (BYTES, None)
            };
            let body = format!("data: {{}}\n\n{}", dear.repeat(bytes / dear.len()));
            let mut fault = json!({"target": "upstream", "times": 1, "status": 200, "body": body,
                "headers": {"content-type": "text/event-stream"}});
            if let Some(piece) = piece {
                fault["piece_bytes"] = json!(piece);
            }
            stack.sim.add_fault(fault).await;
            let answer = caller.post("/v1/chat/completions", &chat_body(true)).await;
            assert_eq!(answer.status, 200, "{dear:?}");
            assert!(answer.body == body, "{dear:?}: {} bytes", answer.body.len());
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}
