//! What an operator asks at the command line, answered by the platform.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Stack, eventually, holds, refresher::Refresher, run, sim::Sim, stack};

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

/// What `doctor` finds: its exit code, and the checks that found something.
async fn examine(refresher: &Refresher, gateway: &str) -> (Option<i32>, Vec<String>, Value) {
    let words = ["doctor", "--gateway", gateway, "--json"];
    let done = refresher.try_run(&words, "").await;
    let json: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let findings = json["findings"].as_array().expect("a list").iter();
    let checks = findings.map(|one| {
        assert!(one["cure"].is_string(), "{one}");
        let word = |key: &str| one[key].as_str().expect("a word").to_owned();
        format!("{} {}", word("severity"), word("check"))
    });
    (done.status.code(), checks.collect(), json)
}

/// `doctor` finds nothing wrong at a gateway that serves, by Envoy's own word as well; and each of several broken things at
/// one that does not.
#[test]
fn a_doctor_finds_what_is_broken_and_nothing_where_all_is_well() {
    run(async {
        let mut stack = Stack::real("operator-doctor", async |sim, refresher| {
            sim.add_api_key("openai", KEY, "team").await;
            refresher.add_api_key("team", "openai", KEY).await;
        })
        .await;
        let caller = stack.caller("caller").await;
        assert_eq!(caller.get("/v1/models").await.status, 200);
        let gateway = format!("127.0.0.1:{}", stack.envoy.port);
        eventually("all is well", Duration::from_secs(10), async || {
            let (code, checks, json) = examine(&stack.refresher, &gateway).await;
            let is_well = code == Some(0) && checks == ["note unconfirmed"];
            holds(is_well && json["not_looked_at"] == json!([]), || {
                json.to_string()
            })
        })
        .await;

        // A program of somebody else's where callers connect, files that others read, a profile that does not fit, and
        // nobody who serves.
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let at = other.local_addr().expect("its address").to_string();
        stack.refresher.stop().await;
        let state = |name: &str| stack.refresher.file(name);
        fs::set_permissions(state("key"), fs::Permissions::from_mode(0o644)).expect("set");
        let profile = stack.sim.platforms_dir.join("mine.toml");
        fs::write(&profile, "extends = 'openai'\nupstream = 3\n").expect("written");
        let (code, checks, json) = examine(&stack.refresher, &at).await;
        assert_eq!(code, Some(4), "{json}");
        for expected in ["broken permissions", "broken configuration", "broken serve"] {
            assert!(
                checks.iter().any(|check| check == expected),
                "{expected}: {json:#}"
            );
        }
        let shown = json.to_string();
        assert!(
            shown.contains("mine.toml:2") && shown.contains("chmod 600"),
            "{shown}"
        );

        fs::set_permissions(state("key"), fs::Permissions::from_mode(0o600)).expect("set");
        fs::remove_file(&profile).expect("removed");
        stack.refresher.run(&["keys", "revoke", "caller"], "").await;
        fs::write(state("envoy/clusters.json"), "{}").expect("written");
        let answering = tokio::spawn(async move {
            while let Ok((mut stream, _)) = other.accept().await {
                use tokio::io::AsyncWriteExt;
                let page = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                stream.write_all(page).await.ok();
            }
        });
        let (code, checks, json) = examine(&stack.refresher, &at).await;
        answering.abort();
        assert_eq!(code, Some(4), "{json}");
        for expected in ["broken serve", "wrong clusters", "wrong port", "wrong key"] {
            assert!(
                checks.iter().any(|check| check == expected),
                "{expected}: {json:#}"
            );
        }
        let rank = |check: &String| {
            let severities = ["broken", "wrong", "note"];
            severities.iter().position(|word| check.starts_with(word))
        };
        assert!(checks.is_sorted_by_key(rank), "worst first: {json:#}");
    });
}
