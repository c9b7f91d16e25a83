use std::{fs, time::Duration};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Stack,
    caller::responses_body,
    eventually, holds,
    refresher::Refresher,
    run,
    sim::Sim,
    stack::{ALICE, new_folder},
};

/// A daemon that was killed while it made its database left one that no later start took. Now it is made beside its
/// place, and what an earlier start left there is made anew.
#[test]
fn a_database_left_half_made_is_made_anew() {
    run(async {
        let folder = new_folder("regression-half-made");
        let refresher = Refresher::new(&folder, &Sim::start(&folder).await);
        fs::write(
            refresher.file("latchkey.new"),
            "SQLite format 3\0 and then the kill",
        )
        .expect("written");
        fs::write(refresher.file("latchkey.new-journal"), "half a journal").expect("written");
        fs::write(refresher.file("latchkey.new-wal"), "half a log").expect("written");
        fs::write(refresher.file("key.new"), "AAAA").expect("written");
        refresher.add_api_key("first", "openai", "sk-first").await;
        assert_eq!(refresher.account("first").await["usable"], true);
        assert!(!refresher.file("latchkey.new").exists());
    });
}

/// A stream that came to its good end after its token was revoked said that the account is well, and the requests that
/// waited for the new token were answered with 429. It was asked for before, and says nothing of the token.
#[test]
fn a_stream_that_ends_does_not_end_the_wait_for_a_token() {
    const RESPONSES: &str = "/v1/responses";
    run(async {
        let hour = Duration::from_secs(3600);
        let stack = Stack::alice("regression-late-end", hour).await;
        let (sim, caller) = (&stack.sim, stack.caller("caller").await);
        let pace = json!({"event_delay_ms": 200, "events": 8});
        sim.ask(Method::POST, "/settings", pace).await;
        let slow = json!({"target": "token", "account": ALICE, "times": 1, "delay_ms": 4_000});
        sim.add_fault(slow).await;
        let body = responses_body();
        let waits = async {
            eventually("the stream runs", Duration::from_secs(5), async || {
                let requests = sim.count("requests").await;
                holds(requests == 1, || requests.to_string())
            })
            .await;
            let path = format!("/users/{ALICE}/revoke_access");
            sim.ask(Method::POST, &path, Value::Null).await;
            // What others ask has each worker learn that the account is out.
            let others = (0..20).map(async |_| {
                eventually("it is refused", Duration::from_secs(5), async || {
                    let refused = sim.count("rejected_credentials").await;
                    holds(refused == 1, || refused.to_string())
                })
                .await;
                caller.get("/v1/models").await
            });
            let (answer, _) = tokio::join!(caller.post(RESPONSES, &body), join_all(others));
            answer
        };
        let (stream, answer) = tokio::join!(caller.post(RESPONSES, &body), waits);
        assert_eq!(stream.status, 200, "{stream:?}");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(sim.count("rejected_credentials").await, 1);
        assert_eq!(sim.count("refreshes").await, 1);
    });
}

/// An API key that was longer than the bound was cut there in silence, and the platform refused it later with other words.
#[test]
fn an_api_key_that_is_too_long_is_refused_and_not_cut() {
    const MAX_SECRET_BYTES: usize = 16 * 1024;
    run(async {
        let folder = new_folder("regression-long-key");
        let refresher = Refresher::new(&folder, &Sim::start(&folder).await);
        let add = ["accounts", "add", "long", "--platform", "openai"];
        let refused = refresher
            .try_run(&add, &"k".repeat(MAX_SECRET_BYTES + 1))
            .await;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{words}");
        assert!(words.contains("longer than 16384 bytes"), "{words}");
        assert!(refresher.accounts().await.is_empty());
        let file = folder.join("long.key");
        fs::write(&file, "k".repeat(MAX_SECRET_BYTES + 1)).expect("written");
        let file = file.to_str().expect("UTF-8");
        let from_file = [add.as_slice(), &["--key-file", file]].concat();
        let refused = refresher.try_run(&from_file, "").await;
        assert!(!refused.status.success());
        // One of just that length is taken whole.
        refresher
            .add_api_key(
                "whole",
                "openai",
                &format!("sk-{}", "k".repeat(MAX_SECRET_BYTES - 3)),
            )
            .await;
    });
}
