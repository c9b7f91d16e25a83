//! Platforms that an operator adds as data: no Rust is written for them.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack, caller::chat_body, eventually, eventually::holds, refresher::Refresher, run,
    sim::Sim,
};

/// How long the log of a request may take to be written.
const LOG_LIMIT: Duration = Duration::from_secs(5);

/// A platform that takes the model in the path and the key in the query.
const AZURE: &str = "extends = 'openai'
models = ['gpt-5.6', 'gpt-5-mini']
auth = 'query'
headers.set.authorization = false
query.set.key = '{credential}'
endpoints.responses = false
endpoints.chat.generate = { path = '/openai/deployments/{model}/chat/completions', root = true }
";

const KEY: &str = "sk-azure-1";
const SECOND_KEY: &str = "sk-azure-2";

/// A stack with two accounts of the platform, and nothing else.
async fn azure(name: &str) -> Stack<Refresher> {
    Stack::real(name, async |sim: &Sim, refresher: &Refresher| {
        fs::write(sim.platforms_dir.join("azure.toml"), AZURE).expect("written");
        for (account, key) in [("one", KEY), ("two", SECOND_KEY)] {
            sim.add_api_key("openai", key, account).await;
            refresher.add_api_key(account, "azure", key).await;
        }
    })
    .await
}

#[test]
fn a_model_in_the_path_and_a_key_in_the_query_are_a_matter_of_a_profile() {
    run(async {
        let stack = azure("profiles-azure").await;
        let caller = stack.caller("team").await;

        // The model of the body gets into the path; a parameter of the caller's stays.
        let answer = caller
            .post("/v1/chat/completions?a=b", &chat_body(false))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let model = chat_body(false)["model"]
            .as_str()
            .expect("a model")
            .to_owned();
        let seen = stack.sim.seen().await;
        let path = seen.last().expect("a request").path();
        let expected = format!("/openai/deployments/{model}/chat/completions?a=b&key=sk-azure-");
        assert!(path.starts_with(&expected), "{path}");

        // The model of the path is the one that is asked for, whatever the body says.
        let deployment = "/openai/deployments/gpt-5-mini/chat/completions";
        let answer = caller.post(deployment, &chat_body(true)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = stack.sim.seen().await;
        let path = seen.last().expect("a request").path();
        assert!(path.starts_with(deployment), "{path}");

        // What a key may not ask for, it may not ask for in a path either.
        let few = ["keys", "create", "few", "--models", "gpt-5-mini", "--json"];
        let few: Value = serde_json::from_str(&stack.refresher.run(&few, "").await).expect("JSON");
        let few = Caller::new(stack.envoy.port, few["key"].as_str().expect("a key"));
        eventually("the key is taken", LOG_LIMIT, async || {
            let answer = few.get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        let mut same = chat_body(false);
        same["model"] = "gpt-5-mini".into();
        let allowed = few.post(deployment, &same).await;
        assert_eq!(allowed.status, 200, "{allowed:?}");
        let other = "/openai/deployments/gpt-5%2e6/chat/completions";
        // Nor in the body, which a platform may go by all the same.
        for (path, body) in [(other, &same), (deployment, &chat_body(false))] {
            let refused = few.post(path, body).await;
            assert_eq!(
                refused.own_code(),
                Some("latchkey_model_not_allowed"),
                "{refused:?}"
            );
        }

        // A door is a method too.
        let wrong = caller.get(deployment).await;
        assert_eq!(
            wrong.own_code(),
            Some("latchkey_method_not_allowed"),
            "{wrong:?}"
        );
    });
}

/// However a request goes, its key is in the URL that the platform gets and nowhere else.
#[test]
fn a_key_in_the_query_is_the_platforms_alone() {
    run(async {
        let stack = azure("profiles-query").await;
        let caller = stack.caller("team").await;
        let ask = async || {
            caller
                .post("/v1/chat/completions?a=b", &chat_body(false))
                .await
        };
        let unable = json!({"error": {"message": "slow down", "code": "slow_down"}});
        let fault = json!({"target": "upstream", "account": "one", "status": 429, "body": unable});
        let fault = stack.sim.add_fault(fault).await;
        for _ in 0..4 {
            let answer = ask().await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        stack.sim.remove_fault(fault).await;
        // Both fail, so that the caller gets an answer through the redirect that nobody follows.
        for account in ["one", "two"] {
            stack
                .sim
                .add_fault(
                    json!({"target": "upstream", "account": account, "drop_before_answer": true}),
                )
                .await;
        }
        let answer = ask().await;
        assert!(answer.status >= 500, "{answer:?}");
        let shown = format!("{answer:?}");
        assert!(!shown.contains("sk-azure"), "{shown}");

        let logs = crate::harness::logs(&stack.folder);
        for log in logs.iter().filter(|log| !log.ends_with("sim.log")) {
            let text = fs::read_to_string(log).expect("a log");
            assert!(!text.contains("sk-azure"), "{}", log.display());
        }
        for seen in stack.sim.seen().await {
            let path = seen.path();
            assert!(path.contains("?a=b&key=sk-azure-"), "{path}");
        }
    });
}
