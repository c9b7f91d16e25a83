//! Platforms that an operator adds as data: no Rust is written for them.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack, caller::chat_body, eventually, eventually::holds, refresher::Refresher, run,
    sim::Sim,
};

/// The longest that the log of a request may take to be written.
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
        refresher.takes_turns().await;
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

/// An account with a base URL of its own is reached there, and nowhere else; those of one place share a cluster. What is
/// moved is out of use where it was.
#[test]
fn an_account_goes_where_its_own_base_url_leads() {
    run(async {
        let mut other = None;
        let stack = Stack::real("profiles-base-url", async |sim, refresher| {
            let folder = refresher.folder().join("other");
            fs::create_dir_all(&folder).expect("a folder");
            let there = Sim::start(&folder).await;
            let cas = [sim, &there].map(|sim| {
                let folder = sim.platforms_dir.parent().expect("a folder");
                fs::read_to_string(folder.join("ca.pem")).expect("a certificate")
            });
            let ca_file = folder.join("both.pem");
            fs::write(&ca_file, cas.concat()).expect("written");
            let profile = format!(
                "extends = 'openai'\n[upstream]\nbase_url = 'https://{}/v1'\naccount_base_url = true\n\
                 own_network = true\nca_file = '{}'\n",
                sim.authority(),
                ca_file.display()
            );
            fs::write(sim.platforms_dir.join("regions.toml"), profile).expect("written");
            for at in [sim, &there] {
                at.add_api_key("openai", "sk-near", "near").await;
                at.add_api_key("openai", "sk-far", "far").await;
            }
            refresher.add_api_key("near", "regions", "sk-near").await;
            let url = format!("https://{}/v1", there.authority());
            for name in ["far", "farther"] {
                let add = ["accounts", "add", name, "--platform", "regions", "--base-url", &url];
                refresher.run(&add, "sk-far").await;
            }
            let policy = ["pools", "set", "default", "--policy", "round_robin"];
            refresher.run(&policy, "").await;
            other = Some(there);
        })
        .await;
        let other = other.expect("started");
        let caller = stack.caller("team").await;
        let ask = async |times: usize| {
            for _ in 0..times {
                let answer = caller.post("/v1/chat/completions", &chat_body(false)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        };
        let accounts = async |sim: &Sim| {
            let seen = sim.seen().await;
            let accounts = seen.iter().filter_map(|seen| seen.account());
            let mut accounts: Vec<String> = accounts.map(str::to_owned).collect();
            accounts.sort();
            accounts.dedup();
            accounts
        };
        ask(9).await;
        assert_eq!(accounts(&stack.sim).await, ["near"]);
        assert_eq!(accounts(&other).await, ["far"]);
        let clusters = fs::read_to_string(stack.refresher.file("envoy/clusters.json"));
        let clusters: Value = serde_json::from_str(&clusters.expect("the file")).expect("JSON");
        let names = clusters["resources"].as_array().expect("clusters");
        let names = names.iter().filter_map(|cluster| cluster["name"].as_str());
        let of_platforms = names.filter(|name| name.starts_with("latchkey-"));
        assert_eq!(of_platforms.count(), 2, "{clusters}");

        // Moved to where the platform is, it is not asked elsewhere any more.
        for name in ["far", "farther"] {
            let set = ["accounts", "set", name, "--base-url", "none"];
            stack.refresher.run(&set, "").await;
        }
        eventually("the accounts have moved", LOG_LIMIT, async || {
            let before = other.seen().await.len();
            ask(6).await;
            let (here, there) = (accounts(&stack.sim).await, other.seen().await.len());
            holds(here == ["far", "near"] && there == before, || {
                format!("{here:?}")
            })
        })
        .await;

        // A platform that does not allow it says so, before it takes the key.
        let refused = stack.refresher.try_run(
            &[
                "accounts",
                "add",
                "x",
                "--platform",
                "openai",
                "--base-url",
                "https://evil.test",
            ],
            "sk-x",
        );
        let refused = refused.await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("account_base_url"),
            "{said}"
        );
    });
}

/// A platform that takes tokens which are made of the key.
const SIGNED: &str = "extends = 'openai'
auth = 'signed'
[signing]
header = { sign_type = 'SIGN' }
id_claim = 'api_key'
issued_claim = 'timestamp'
expires_claim = 'exp'
unit = 'milliseconds'
lifetime_seconds = 1800
";

/// The platform sees tokens that the key's secret signs, and never the secret. A new token takes the old one's place.
#[test]
fn a_key_signs_and_stays_here() {
    run(async {
        let secret = "the-secret-that-signs";
        let key = format!("id-1.{secret}");
        let stack = Stack::real("profiles-signed", async |sim, refresher| {
            fs::write(sim.platforms_dir.join("signed.toml"), SIGNED).expect("written");
            sim.add_api_key("openai", &key, "signer").await;
            let add = ["accounts", "add", "signer", "--platform", "signed"];
            let refused = refresher.try_run(&add, "one-part-alone").await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(
                said.contains("expected a key of an id and a secret"),
                "{said}"
            );
            assert!(!said.contains("one-part-alone"), "{said}");
            refresher.add_api_key("signer", "signed", &key).await;
        })
        .await;
        let caller = stack.caller("team").await;
        let token = async || {
            let answer = caller.post("/v1/chat/completions", &chat_body(false)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = stack.sim.seen().await;
            let seen = seen.last().expect("a request");
            assert_eq!(seen.account(), Some("signer"), "it was verified");
            let bearer = seen.header("authorization")[0].strip_prefix("Bearer ");
            bearer.expect("a token").to_owned()
        };
        let first = token().await;
        assert!(
            first.split('.').count() == 3 && !first.contains(secret),
            "{first}"
        );
        let account = stack.refresher.account("signer").await;
        let life = account["credential_expires_at"]
            .as_u64()
            .zip(account["next_refresh_at"].as_u64());
        let (end, next) = life.expect("both");
        assert!(next < end, "{account}");

        stack.refresher.run(&["refresh", "signer"], "").await;
        eventually("the new token is used", LOG_LIMIT, async || {
            holds(token().await != first, || "still the first".to_owned())
        })
        .await;
        let stored = stack.refresher.account("signer").await["generation"].clone();
        assert_eq!(stored, json!(2));
    });
}
