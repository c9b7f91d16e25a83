use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack, envoy::Envoy, eventually, holds, refresher::Refresher, run, sim::Sim,
};

const RESPONSES: &str = "/v1/responses";

/// Three accounts of the OpenAI API that are taken in turn.
async fn stack(name: &str) -> Stack<Refresher> {
    Stack::real(name, async |sim: &Sim, refresher: &Refresher| {
        let create = ["pools", "create", "turns", "--policy", "round_robin"];
        refresher.run(&create, "").await;
        for account in ["one", "two", "three"] {
            let key = format!("sk-{account}");
            sim.add_api_key("openai", &key, account).await;
            refresher.add_api_key(account, "openai", &key).await;
            refresher.run(&["pools", "add", "turns", account], "").await;
        }
    })
    .await
}

/// The last turn of a conversation: the id of its answer, and the account that made it.
#[derive(Debug, Clone)]
struct Turn {
    id: String,
    account: String,
}

/// Takes a turn, after `before` if there is one.
async fn turn(caller: &Caller, before: Option<&Turn>) -> Turn {
    let mut body = json!({"model": "gpt-5.6", "input": "hi", "store": true});
    if let Some(before) = before {
        body["previous_response_id"] = Value::from(before.id.as_str());
    }
    let answer = caller.post(RESPONSES, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    let text = body["output"].to_string();
    let said = text.split("Hello from ").nth(1).expect("who answered");
    Turn {
        id: body["id"].as_str().expect("an id").to_owned(),
        account: said.split(':').next().expect("an account").to_owned(),
    }
}

/// Each conversation goes on where it was, through this caller.
async fn go_on(caller: &Caller, conversations: &mut [Turn]) {
    for last in conversations {
        let next = turn(caller, Some(last)).await;
        assert_eq!(next.account, last.account, "{last:?}");
        *last = next;
    }
}

async fn until_served(caller: &Caller) {
    eventually(
        "the key is known",
        std::time::Duration::from_secs(10),
        async || {
            let answer = caller.get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        },
    )
    .await;
}

#[test]
fn a_conversation_stays_with_its_account_over_workers_envoys_and_restarts() {
    run(async {
        let mut stack = stack("laws-homes").await;
        let command = ["keys", "create", "mine", "--pool", "turns"];
        let key = stack.refresher.run(&command, "").await;
        let key = key.trim().to_owned();
        let caller = Caller::new(stack.envoy.port, &key);
        until_served(&caller).await;
        let mut conversations = Vec::new();
        for _ in 0..8 {
            conversations.push(turn(&caller, None).await);
        }
        let mut accounts: Vec<&str> = conversations.iter().map(|one| &*one.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        assert!(
            accounts.len() > 1,
            "they are of several accounts: {conversations:?}"
        );
        for _ in 0..3 {
            go_on(&caller, &mut conversations).await;
        }
        // Whoever asks for one by its id reaches the account that has it.
        let path = format!("{RESPONSES}/{}", conversations[0].id);
        let answer = caller.get(&path).await;
        assert_ne!(
            answer.header("x-latchkey-error"),
            Some("latchkey_no_such_thing"),
            "{answer:?}"
        );
        let other = stack
            .refresher
            .run(&["keys", "create", "other", "--pool", "turns"], "")
            .await;
        let other = Caller::new(stack.envoy.port, other.trim());
        until_served(&other).await;
        let answer = other.get(&path).await;
        assert_eq!(
            answer.header("x-latchkey-error"),
            Some("latchkey_no_such_thing"),
            "{answer:?}"
        );

        // Another Envoy, which made none of them, once the records are told.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let beside = Envoy::start_beside(&stack.folder, "beside").await;
        let second = Caller::new(beside.port, &key);
        until_served(&second).await;
        go_on(&second, &mut conversations).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        drop(beside);
        // The refresher starts anew, and so does Envoy.
        stack.refresher.kill().await;
        stack.refresher.serve().await;
        stack.envoy = Envoy::start(&stack.folder, 0).await;
        let caller = Caller::new(stack.envoy.port, &key);
        until_served(&caller).await;
        go_on(&caller, &mut conversations).await;
    });
}

#[test]
fn a_home_that_is_out_is_said_plainly() {
    run(async {
        let stack = stack("laws-homes-out").await;
        let command = ["keys", "create", "mine", "--pool", "turns"];
        let key = stack.refresher.run(&command, "").await;
        let caller = Caller::new(stack.envoy.port, key.trim());
        until_served(&caller).await;
        let first = turn(&caller, None).await;
        stack
            .refresher
            .run(&["accounts", "disable", &first.account], "")
            .await;
        let body = json!({"model": "gpt-5.6", "input": "hi", "previous_response_id": first.id});
        eventually(
            "the account is away",
            std::time::Duration::from_secs(5),
            async || {
                let answer = caller.post(RESPONSES, &body).await;
                let code = answer.header("x-latchkey-error").map(str::to_owned);
                holds(code.as_deref() == Some("latchkey_home_gone"), || {
                    format!("{answer:?}")
                })
            },
        )
        .await;
        assert_ne!(
            turn(&caller, None).await.account,
            first.account,
            "the others serve"
        );
    });
}
