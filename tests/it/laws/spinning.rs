//! Nothing spins.

use std::{
    fs,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use latchkey::{dialect::Dialect, text::tree::MAX_VALUES};

use self::dear::{Size, requests};
use crate::harness::{
    Load, Stack,
    caller::{chat_body, messages_body, responses_body},
    refresher::{Refresher, SHORT_LIVES},
    run,
    stack::ALICE,
};

#[path = "../../../bench/dear.rs"]
mod dear;

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

/// A key that sends what is dearest to translate, again and again, gets its answers, and so does everybody else.
#[test]
fn bodies_that_are_dear_to_translate_leave_the_others_their_answers() {
    const CALLERS: usize = 4;
    const MODEL: &str = "gpt-6.1-sol";
    run(async {
        let stack = Stack::start("spinning-translation").await;
        let size = Size {
            bytes: 4 << 20,
            values: MAX_VALUES,
        };
        let bodies = requests(Dialect::Chat, size)
            .into_iter()
            .map(|(name, body)| {
                let asked = format!("{{\"model\":\"{MODEL}\",");
                (
                    name,
                    asked + body.replace("\"model\":\"m\",", "").trim_start_matches('{'),
                )
            });
        let bodies: Vec<(&str, String)> = bodies.collect();
        let attacker = stack.caller("codex");
        let attacks = async |from: usize| {
            for at in 0..bodies.len() {
                let (name, body) = &bodies[(from + at) % bodies.len()];
                let headers = [
                    ("x-api-key", attacker.key()),
                    ("content-type", "application/json"),
                ];
                let answer = attacker
                    .send("POST", "/v1/chat/completions", &headers, body.clone())
                    .await;
                let is_refused = [400, 413].contains(&answer.status)
                    && answer.own_code() == Some("latchkey_untranslatable");
                assert!(answer.status == 200 || is_refused, "{name}: {answer:?}");
            }
        };
        let step = bodies.len() / CALLERS;
        let attacked = async {
            tokio::join!(
                attacks(0),
                attacks(step),
                attacks(2 * step),
                attacks(3 * step)
            );
        };
        let victim = stack.caller("anthropic");
        let served = async {
            let mut count = 0;
            loop {
                let asked = Instant::now();
                let answer = victim.post("/v1/messages", &messages_body(false)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let took = asked.elapsed();
                assert!(took < Duration::from_secs(3), "{took:?}");
                count += 1;
                sleep(Duration::from_millis(50)).await;
                if count > 1_000 {
                    break;
                }
            }
        };
        tokio::select! {
            () = attacked => {}
            () = served => panic!("the attack goes on"),
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}
