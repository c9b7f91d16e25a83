//! What an operator asks at the command line, answered by the platform.

use serde_json::{Value, json};

use crate::harness::{refresher::Refresher, run, sim::Sim, stack};

const KEY: &str = "sk-operator-good";

/// `accounts check` says in words, in JSON and by its exit code what the platform says, and changes nothing.
#[test]
fn a_check_says_what_the_platform_says_of_an_account() {
    run(async {
        let folder = stack::new_folder("operator-check");
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        for account in ["good", "limited", "refused", "silent"] {
            let key = format!("{KEY}-{account}");
            sim.add_api_key("openai", &key, account).await;
            let said = refresher
                .try_run(&["accounts", "add", account, "--platform", "openai"], &key)
                .await;
            let offer = format!("refresher accounts check {account}");
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.contains(&offer), "{said}");
        }
        // The platform has never heard of its key.
        refresher
            .add_api_key("dead", "openai", "sk-unheard-of")
            .await;
        let early = refresher.try_run(&["accounts", "check", "good"], "").await;
        assert_eq!(early.status.code(), Some(1), "{early:?}");
        let said = String::from_utf8_lossy(&early.stderr).into_owned();
        assert!(said.contains("run: refresher serve"), "{said}");

        refresher.serve().await;
        for (account, status, headers) in [
            ("limited", 429, json!({"retry-after": "600"})),
            ("refused", 401, json!({})),
            ("silent", 500, json!({})),
        ] {
            sim.add_fault(json!({
                "target": "upstream", "account": account, "status": status, "body": "{}", "headers": headers,
            }))
            .await;
        }
        for (account, code, says, found) in [
            ("good", 0, "alive: the platform takes", "alive"),
            ("limited", 0, "out of quota (rate_limited) until", "limited"),
            (
                "dead",
                4,
                "dead: the platform says that it is of no use (invalid_api_key)",
                "dead",
            ),
            ("refused", 4, "expired: the platform refuses", "refused"),
            ("silent", 1, "unknown: it answered 500", "unknown"),
        ] {
            let words = ["accounts", "check", account];
            let done = refresher.try_run(&words, "").await;
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            assert_eq!(done.status.code(), Some(code), "{done:?}");
            assert!(said.starts_with(&format!("{account}: {says}")), "{said}");
            let done = refresher
                .try_run(&[&words[..], &["--json"]].concat(), "")
                .await;
            let json: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            assert_eq!(done.status.code(), Some(code), "{done:?}");
            assert_eq!(json["found"], found, "{json}");
            assert!(!format!("{done:?}").contains(KEY), "it shows the key");
        }
        for account in refresher.accounts().await {
            assert_eq!(account["status"], "active", "{account}");
            assert_eq!(account["cooling_down"], json!([]), "{account}");
        }
        refresher.stop().await;
    });
}
