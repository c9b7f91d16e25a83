use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    clients::{Ask, claude_with},
    harness::{
        Caller, Stack,
        caller::{Answer, chat_body},
        eventually, holds,
        refresher::Refresher,
        run,
        sim::{Seen, Sim},
        stack::ALICE,
    },
};

const BOB: &str = "bob@example.com";
const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(15);
const MESSAGES: &str = "/v1/messages?beta=true";

/// Where Claude Code's login goes, on the simulated platform.
fn point_at(sim: &Sim) {
    let ca_file = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
    let (base, ca_file) = (format!("https://{}", sim.authority()), ca_file.display());
    let text = format!(
        "[upstream]\nbase_url = '{base}'\nca_file = '{ca_file}'\n\
         [oauth]\ntoken_url = '{base}/v1/oauth/token'\nca_file = '{ca_file}'\n\
         [login]\ncode.authorize_url = '{base}/cai/oauth/authorize'\n\
         pasted.authorize_url = '{base}/cai/oauth/authorize'\n"
    );
    fs::write(sim.platforms_dir.join("claude-code.toml"), text).expect("written");
}

/// Does what the notice asks for.
fn acknowledge(refresher: &Refresher) {
    let config = refresher.file("config.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("['codex']", "['codex', 'claude-code']");
    fs::write(config, text).expect("written");
}

/// The code that the platform's page shows to a person who has said yes.
async fn shown(sim: &Sim, url: &str, email: &str) -> String {
    let (status, page) = sim.visit(&format!("{url}&sim_user={email}")).await;
    assert_eq!(status, 200, "{page}");
    let (_, code) = page.split_once("<code>").expect("a code");
    let (code, _) = code.split_once("</code>").expect("its end");
    code.to_owned()
}

async fn log_in_by_paste(sim: &Sim, refresher: &Refresher, email: &str) {
    let login = ["login", "claude-code", "--paste"];
    let pasted = refresher.try_paste(&login, async |url| shown(sim, &url, email).await);
    pasted.await.unwrap_or_else(|said| panic!("{said}"));
}

async fn log_in_by_callback(sim: &Sim, refresher: &Refresher, email: &str) {
    let login = ["login", "claude-code", "--no-browser"];
    let mut login = refresher.start_command(&[], &login, "callback.log").await;
    let url = eventually("it prints the URL", LIMIT, async || {
        login.assert_alive();
        let printed = login.printed();
        let mut words = printed.split_whitespace();
        let url = words.find(|word| word.contains("/cai/oauth/authorize"));
        url.map(str::to_owned).ok_or(printed.clone())
    })
    .await;
    let address = sim.authorize(&url, email).await;
    assert!(address.starts_with("http://localhost:"), "{address}");
    let (status, page) = sim.browse(&address).await;
    assert_eq!(status, 200, "{page}");
    assert!(login.ends().await.success(), "{}", login.printed());
}

/// As Claude Code asks, with these values of `anthropic-beta`.
async fn asks(caller: &Caller, betas: &[&str], body: &str) -> Answer {
    let bearer = format!("Bearer {}", caller.key());
    let mut headers = vec![
        ("accept", "application/json"),
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("user-agent", "claude-cli/2.1.197 (external, sdk-cli)"),
        ("x-app", "cli"),
        (
            "x-claude-code-session-id",
            "11111111-2222-4333-8444-555555555555",
        ),
    ];
    headers.extend(betas.iter().map(|beta| ("anthropic-beta", *beta)));
    caller
        .send("POST", MESSAGES, &headers, body.to_owned())
        .await
}

async fn last_message(sim: &Sim) -> Seen {
    let mut seen = sim.seen().await;
    seen.retain(|seen| seen.path().starts_with("/v1/messages"));
    seen.pop().expect("a request")
}

/// The bodies that the token endpoint got.
async fn token_requests(sim: &Sim) -> Vec<Value> {
    let seen = sim.seen().await;
    let seen = seen.iter().filter(|seen| seen.path() == "/v1/oauth/token");
    let bodies = seen.map(|seen| serde_json::from_slice(&seen.body()).expect("JSON"));
    bodies.collect()
}

fn names(body: &Value) -> Vec<&str> {
    let members = body.as_object().expect("an object").keys();
    let mut names: Vec<&str> = members.map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Nothing happens before the notice is acknowledged. Then one person logs in by the browser's way back, another by the code
/// that the platform shows; each is known by what the token endpoint says, as there is no id token.
#[test]
fn a_subscription_logs_in_by_callback_and_by_pasted_code() {
    run(async {
        let folder = crate::harness::stack::new_folder("claude-login");
        let sim = Sim::start(&folder).await;
        let refresher = Refresher::new(&folder, &sim);
        point_at(&sim);
        for email in [ALICE, BOB] {
            sim.add_user(email, HOUR).await;
        }
        let login = ["login", "claude-code", "--paste"];
        let refused = refresher.try_run(&login, "").await;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{words}");
        assert!(
            words.contains("is off until you have read this notice")
                && words.contains("Anthropic's terms"),
            "{words}"
        );
        assert!(sim.seen().await.is_empty(), "nobody was asked");

        acknowledge(&refresher);
        log_in_by_callback(&sim, &refresher, ALICE).await;
        log_in_by_paste(&sim, &refresher, BOB).await;
        // The same person again: the account gets the new login.
        log_in_by_paste(&sim, &refresher, ALICE).await;
        let mut accounts = refresher.accounts().await;
        accounts.sort_by_key(|account| account["name"].to_string());
        let told: Vec<_> = accounts
            .iter()
            .map(|one| json!([one["name"], one["platform"], one["kind"], one["generation"]]))
            .collect();
        assert_eq!(
            told,
            [
                json!([ALICE, "claude-code", "oauth", 2]),
                json!([BOB, "claude-code", "oauth", 1])
            ]
        );
        let exchanges = token_requests(&sim).await;
        let redirects: Vec<&str> = exchanges
            .iter()
            .filter_map(|body| body["redirect_uri"].as_str())
            .collect();
        let page = "https://platform.claude.com/oauth/code/callback";
        assert!(redirects[0].ends_with("/callback"), "{redirects:?}");
        assert_eq!(redirects[1..], [page, page]);
        for body in &exchanges {
            let expected = [
                "client_id",
                "code",
                "code_verifier",
                "grant_type",
                "redirect_uri",
                "state",
            ];
            assert_eq!(names(body), expected);
        }

        // A code that belongs to another login is worth nothing here.
        let wrong = refresher.try_paste(&login, async |url| {
            let code = shown(&sim, &url, BOB).await;
            format!(
                "{}#another-state",
                code.split('#').next().unwrap_or_default()
            )
        });
        wrong.await.expect_err("another state");
        assert_eq!(token_requests(&sim).await.len(), exchanges.len());

        let file = folder.join("credentials.json");
        let path = file.to_str().expect("a path");
        refresher.run(&["export", BOB, "--to", path], "").await;
        let written: Value =
            serde_json::from_slice(&fs::read(&file).expect("the file")).expect("JSON");
        let tokens = &written["claudeAiOauth"];
        let begins = |name: &str, with: &str| {
            tokens[name]
                .as_str()
                .is_some_and(|text| text.starts_with(with))
        };
        assert!(
            begins("accessToken", "sk-ant-oat01-"),
            "{}",
            names(tokens).join(" ")
        );
        assert!(begins("refreshToken", "sk-ant-ort01-"));
        assert!(tokens["expiresAt"].is_u64());
        refresher.run(&["logout", BOB, "--no-revoke"], "").await;
        refresher
            .run(&["import", path, "--name", "taken-over"], "")
            .await;
        let said = refresher.run(&["refresh", "taken-over"], "").await;
        assert!(said.contains("generation 2"), "{said}");
    });
}

/// What a caller sends goes out as it is but for the credential, and for the one item of `anthropic-beta` that such a login
/// needs. Its token is renewed when it is told to, and when the platform says that it has ended.
#[test]
fn a_subscription_serves_what_claude_code_sends() {
    run(async {
        let stack = Stack::real("claude-serves", async |sim, refresher| {
            point_at(sim);
            acknowledge(refresher);
            sim.add_user(ALICE, HOUR).await;
            log_in_by_paste(sim, refresher, ALICE).await;
        })
        .await;
        let caller = stack.caller("team").await;
        let body = "{ \"model\":\"claude-opus-5-5\",  \"max_tokens\": 16,\"system\":[{\"type\":\"text\",\"text\":\"x\"}],\
                    \"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"metadata\":{\"user_id\":\"{}\"} }";
        let ours = "oauth-2025-04-20";
        for (sent, goes_out) in [
            (
                &["claude-code-20250219,interleaved-thinking-2025-05-14"][..],
                &["claude-code-20250219,interleaved-thinking-2025-05-14,oauth-2025-04-20"][..],
            ),
            (
                &["claude-code-20250219, oauth-2025-04-20,effort-2025-11-24"],
                &["claude-code-20250219, oauth-2025-04-20,effort-2025-11-24"],
            ),
            (&[], &[ours]),
        ] {
            let answer = asks(&caller, sent, body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("anthropic-organization-id"), None);
            let seen = last_message(&stack.sim).await;
            assert_eq!(seen.account(), Some(ALICE));
            assert_eq!(seen.path(), MESSAGES);
            assert_eq!(seen.header("anthropic-beta"), goes_out);
            assert!(seen.header("authorization")[0].starts_with("Bearer sk-ant-oat01-"));
            assert_eq!(String::from_utf8_lossy(&seen.body()), body);
            let mut names = seen.header_names();
            names.retain(|name| !name.starts_with(':'));
            names.sort_unstable();
            let expected = [
                "accept",
                "accept-encoding",
                "anthropic-beta",
                "anthropic-dangerous-direct-browser-access",
                "anthropic-version",
                "authorization",
                "content-length",
                "content-type",
                "host",
                "user-agent",
                "x-app",
                "x-claude-code-session-id",
            ];
            assert_eq!(names, expected);
            assert_eq!(
                seen.header("user-agent"),
                ["claude-cli/2.1.197 (external, sdk-cli)"]
            );
        }

        // A chat would have to become a request that is none of Claude Code's.
        let before = stack.sim.count("requests").await;
        let mut chat = chat_body(false);
        chat["model"] = "claude-opus-5-5".into();
        let refused = caller.post("/v1/chat/completions", &chat).await;
        assert!(refused.own_code().is_some(), "{refused:?}");
        assert_eq!(stack.sim.count("requests").await, before);

        eventually("the answers' headers tell the quota", LIMIT, async || {
            let quota = stack.refresher.account(ALICE).await["quota"].take();
            let of = |name: &str| {
                let mut all = quota.as_array().into_iter().flatten();
                all.find(|window| window["name"] == name)
                    .map(|window| window["used_percent"].clone())
            };
            let told = (of("5h"), of("7d"));
            holds(told == (Some(json!(25.0)), Some(json!(50.0))), || {
                quota.to_string()
            })
        })
        .await;
        let found = stack.refresher.run(&["accounts", "check", ALICE], "").await;
        assert!(found.starts_with(&format!("{ALICE}: alive")), "{found}");

        let credential = async || {
            last_message(&stack.sim)
                .await
                .header("authorization")
                .concat()
        };
        let before = credential().await;
        let said = stack.refresher.run(&["refresh", ALICE], "").await;
        assert!(said.contains("generation 2"), "{said}");
        let refreshed = token_requests(&stack.sim).await.pop().expect("a refresh");
        assert_eq!(
            names(&refreshed),
            ["client_id", "grant_type", "refresh_token", "scope"]
        );
        // A request with the old token would wait for the new one, which is to expire too.
        eventually("the new token is in use", LIMIT, async || {
            asks(&caller, &[], body).await;
            let now = credential().await;
            holds(now != before, || "the old one".to_owned())
        })
        .await;
        let expire = format!("/users/{ALICE}/expire_access");
        stack.sim.ask(Method::POST, &expire, Value::Null).await;
        let answer = asks(&caller, &[], body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let account = stack.refresher.account(ALICE).await;
        assert!(account["generation"].as_u64() > Some(2), "{account}");

        // The window is used up: the account is left alone until it starts anew.
        let fault = json!({
            "target": "upstream", "account": ALICE, "status": 429, "times": 1,
            "headers": {
                "anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-5h-status": "rejected",
                "retry-after": "2094",
            },
            "body": {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your account's rate limit."}},
        });
        stack.sim.add_fault(fault).await;
        let refused = asks(&caller, &[], body).await;
        assert_eq!(refused.status, 429, "{refused:?}");
        let again = asks(&caller, &[], body).await;
        assert!(again.own_code().is_some(), "{again:?}");
        stack.refresher.run(&["accounts", "reset", ALICE], "").await;
        eventually("it serves again", LIMIT, async || {
            let answer = asks(&caller, &[], body).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;

        // The real Claude Code, with the gateway's key.
        let home = stack.folder.join("claude");
        let url = caller.url("");
        let ask = Ask {
            ends_well: true,
            ..Ask::new(&home, &url, caller.key())
        };
        let (printed, _) = claude_with(&ask, &["--model", "claude-opus-5-5", "--tools", ""]).await;
        assert!(
            printed.contains(&format!("Hello from {ALICE}")),
            "{printed}"
        );
        let betas = last_message(&stack.sim)
            .await
            .header("anthropic-beta")
            .concat();
        assert!(
            betas.starts_with("claude-code-") || betas.contains(",claude-code-"),
            "{betas}"
        );
        assert!(betas.ends_with(&format!(",{ours}")), "{betas}");
        assert_eq!(stack.sim.count("refused_count").await, 0);

        // Whoever revokes the login at the platform has it logged in anew here.
        for action in ["revoke_login", "revoke_access"] {
            let path = format!("/users/{ALICE}/{action}");
            stack.sim.ask(Method::POST, &path, Value::Null).await;
        }
        let refused = asks(&caller, &[], body).await;
        assert_ne!(refused.status, 200, "{refused:?}");
        stack.refresher.becomes(ALICE, "needs_login", LIMIT).await;
        log_in_by_paste(&stack.sim, &stack.refresher, ALICE).await;
        eventually("it serves again", LIMIT, async || {
            let answer = asks(&caller, &[], body).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
    });
}
