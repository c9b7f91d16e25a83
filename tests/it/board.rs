//! Everything that one Envoy learns about an account stays known: to itself after a crash, to the other Envoys, and to people.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Caller, Stack,
    caller::{chat_body, responses_body},
    envoy::Envoy,
    eventually, holds,
    refresher::Refresher,
    run, setting,
    stack::ALICE,
};

const CHAT: &str = "/v1/chat/completions";

/// Where the refresher asks the platform about an account.
const MODELS: &str = "/v1/models";

/// Within this the other Envoys of a refresher know what one of them learned, and all of them what an operator did. What
/// is promised is 2 s, and it takes 0.2 s as a rule; the disk of a busy machine may stall for longer.
const SPREAD_LIMIT: Duration = Duration::from_secs(2 + 3);

/// The longest that anything else may take, Envoy's start included.
const LIMIT: Duration = Duration::from_secs(10);

/// Accounts of OpenAI's API at the real refresher, in the default pool.
struct Pool {
    stack: Stack<Refresher>,
    caller: Caller,
}

impl Pool {
    async fn of(name: &str, accounts: &[&str]) -> Self {
        Self::edited(name, accounts, str::to_owned).await
    }

    async fn edited(name: &str, accounts: &[&str], edit: fn(&str) -> String) -> Self {
        let stack = Stack::real_edited(name, edit, async |sim, refresher| {
            let config = refresher.file("config.toml");
            let text = fs::read_to_string(&config).expect("the configuration");
            fs::write(config, edit(&text)).expect("written");
            for account in accounts {
                let key = format!("sk-{account}");
                sim.add_api_key("openai", &key, account).await;
                refresher.add_api_key(account, "openai", &key).await;
            }
            refresher.takes_turns().await;
        })
        .await;
        let caller = stack.caller("team").await;
        Self { stack, caller }
    }

    /// Lets every answer to `account` be this.
    async fn break_account(&self, account: &str, mut fault: Value) -> u64 {
        fault["target"] = "upstream".into();
        fault["account"] = account.into();
        self.stack.sim.add_fault(fault).await
    }

    async fn ask(&self) -> Answer {
        self.caller.post(CHAT, &chat_body(false)).await
    }

    /// Asks until the platform has heard from `account`, then lets it answer again.
    async fn meets(&self, account: &str, fault: Value) {
        let fault = self.break_account(account, fault).await;
        let before = self.heard_from(account).await;
        eventually("the fault is met", LIMIT, async || {
            let answer = self.ask().await;
            holds(self.heard_from(account).await > before, || {
                format!("{answer:?}")
            })
        })
        .await;
        self.stack.sim.remove_fault(fault).await;
    }

    /// The number of times that the platform heard from `account`.
    async fn heard_from(&self, account: &str) -> usize {
        let seen = self.stack.sim.seen().await;
        let of = seen.iter().filter(|seen| {
            // The refresher's own question is nobody's request.
            seen.account() == Some(account) && seen.path() != MODELS
        });
        of.count()
    }

    /// Waits until `refresher status` shows what `is` asks of an account.
    async fn shows(&self, account: &str, limit: Duration, is: impl Fn(&Value) -> bool) -> Value {
        let refresher = &self.stack.refresher;
        eventually("the account's status", limit, async || {
            let shown = refresher.account(account).await;
            if is(&shown) {
                Ok(shown)
            } else {
                Err(shown.to_string())
            }
        })
        .await
    }
}

/// True if none of six requests in a row is served by `account`.
async fn leaves_alone(caller: &Caller, account: &str) -> Result<(), String> {
    for _ in 0..6 {
        let answer = caller.post(CHAT, &chat_body(false)).await;
        let good = answer.status == 200 && !answer.body.contains(&format!("Hello from {account}"));
        holds(good, || format!("{answer:?}"))?;
    }
    Ok(())
}

/// True if one of six requests in a row is served by `account`.
async fn uses(caller: &Caller, account: &str) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..6 {
        last = caller.post(CHAT, &chat_body(false)).await.body;
        if last.contains(&format!("Hello from {account}")) {
            return Ok(());
        }
    }
    Err(last)
}

/// A limit of the whole account, in words that no rule knows.
fn limited(seconds: u32) -> Value {
    let body = r#"{"error":{"message":"slow down"}}"#;
    json!({"status": 429, "body": body, "headers": {"retry-after": seconds.to_string()}})
}

/// A cool-down reaches another Envoy, survives `kill -9` of the one that met it, and ends on both by hand.
#[test]
fn a_cool_down_is_known_everywhere_until_it_is_reset() {
    run(async {
        let mut pool = Pool::of("board-spread", &["limited", "good"]).await;
        let second = Envoy::start_beside(&pool.stack.folder, "second").await;
        let other = Caller::new(second.port, pool.caller.key());
        eventually("the second Envoy serves", LIMIT, async || {
            uses(&other, "limited").await
        })
        .await;

        pool.meets("limited", limited(600)).await;
        let met = Instant::now();
        eventually("the second Envoy knows", SPREAD_LIMIT, async || {
            leaves_alone(&other, "limited").await
        })
        .await;
        println!("the second Envoy left it alone within {:?}", met.elapsed());
        let heard = pool.heard_from("limited").await;
        let shown = pool
            .shows("limited", LIMIT, |account| {
                account["cooling_down"][0].is_object()
            })
            .await;
        assert_eq!(shown["status"], "active");
        assert_eq!(shown["usable"], false);
        let cooling = &shown["cooling_down"][0];
        assert_eq!(
            (&cooling["guessed"], &cooling["model"]),
            (&json!(false), &Value::Null)
        );
        assert_eq!(cooling["reason"], "rate_limited");
        let refresher = &pool.stack.refresher;
        for command in [&["status"][..], &["accounts", "list"]] {
            let text = refresher.run(command, "").await;
            assert!(text.contains("cooling down, back in 9m"), "{text}");
            assert!(text.contains("(rate_limited)"), "{text}");
        }
        assert_eq!(refresher.log_lines("is cooling down", "limited"), 1);

        // Neither tells the refresher anything about what it told them: there is an end of news.
        eventually("no more news", Duration::from_secs(15), async || {
            let revision = pool.stack.envoy.revision().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = [pool.stack.envoy.revision().await, second.revision().await];
            holds(now == [revision; 2], || format!("{revision}, then {now:?}"))
        })
        .await;

        pool.stack.restart_envoy(pool.stack.envoy.port).await;
        eventually("the first Envoy is back", LIMIT, async || {
            let answer = pool.caller.try_post(CHAT, &chat_body(false)).await;
            let good = matches!(&answer, Ok(answer) if answer.status == 200);
            holds(good, || format!("{answer:?}"))
        })
        .await;
        leaves_alone(&pool.caller, "limited")
            .await
            .expect("it remembers");
        leaves_alone(&other, "limited").await.expect("it remembers");
        assert_eq!(pool.heard_from("limited").await, heard, "nobody asked it");

        let refresher = &pool.stack.refresher;
        let said = refresher.run(&["accounts", "reset", "limited"], "").await;
        assert!(said.contains("nothing is held against it"), "{said}");
        let reset = Instant::now();
        for caller in [&pool.caller, &other] {
            eventually("the account is back", SPREAD_LIMIT, async || {
                uses(caller, "limited").await
            })
            .await;
        }
        println!("both use it again within {:?}", reset.elapsed());
        let shown = refresher.account("limited").await;
        assert_eq!(shown["cooling_down"], json!([]));
        assert_eq!(pool.stack.envoy.crashes().await, 0);
    });
}

/// All VMs of an Envoy are made anew after crashes, and it still knows who is out.
#[test]
fn a_cool_down_survives_a_reload_of_the_filter() {
    run(async {
        let faulty = |text: &str| {
            let path = |variable| setting(variable).display().to_string();
            text.replace(&path("LATCHKEY_WASM"), &path("LATCHKEY_FAULTY_WASM"))
        };
        let pool = Pool::edited("board-reload", &["limited", "good"], faulty).await;
        pool.meets("limited", limited(600)).await;
        let heard = pool.heard_from("limited").await;
        for _ in 0..20 {
            // Of a connection of its own, so that each worker has some; it is cut.
            let poison = Caller::new(pool.stack.envoy.port, "lk_poison");
            let headers = [("x-latchkey-crash", "1")];
            poison
                .try_send("GET", "/v1/models", &headers, "")
                .await
                .ok();
        }
        assert!(
            pool.stack.envoy.crashes().await >= 2,
            "the poison did not work"
        );
        eventually("it serves", LIMIT, async || {
            leaves_alone(&pool.caller, "limited").await
        })
        .await;
        assert_eq!(pool.heard_from("limited").await, heard, "nobody asked it");
    });
}

/// A limit of one model is kept as that: people see which, and the account serves the others.
#[test]
fn a_models_limit_is_shown_with_its_model() {
    run(async {
        let mut pool = Pool::of("board-model", &["limited"]).await;
        let fault = json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "600"}});
        pool.meets("limited", fault).await;
        let shown = pool
            .shows("limited", LIMIT, |account| {
                account["cooling_down"][0].is_object()
            })
            .await;
        let limited = chat_body(false)["model"].clone();
        assert_eq!(shown["cooling_down"][0]["model"], limited);
        assert_eq!(shown["usable"], true, "for other models: {shown}");
        let text = pool.stack.refresher.run(&["status"], "").await;
        let model = limited.as_str().expect("a model");
        assert!(
            text.contains(&format!("{model} cooling down, back in 9m")),
            "{text}"
        );

        pool.stack.restart_envoy(pool.stack.envoy.port).await;
        let mut body = chat_body(false);
        body["model"] = "another".into();
        eventually("another model is served", LIMIT, async || {
            let answer = pool.caller.try_post(CHAT, &body).await;
            let good = matches!(&answer, Ok(answer) if answer.status == 200);
            holds(good, || format!("{answer:?}"))
        })
        .await;
        let answer = pool.ask().await;
        assert_eq!(answer.own_code(), Some("latchkey_all_out"), "{answer:?}");
    });
}

/// A stored cooldown ends when the platform said, without anybody's doing.
#[test]
fn a_stored_cool_down_ends_by_itself() {
    run(async {
        let mut pool = Pool::of("board-end", &["only"]).await;
        pool.meets("only", limited(8)).await;
        pool.shows("only", LIMIT, |account| {
            account["cooling_down"][0].is_object()
        })
        .await;
        pool.stack.restart_envoy(pool.stack.envoy.port).await;
        eventually("it serves again", Duration::from_secs(20), async || {
            let answer = pool.caller.try_post(CHAT, &chat_body(false)).await;
            let good = matches!(&answer, Ok(answer) if answer.status == 200);
            holds(good, || format!("{answer:?}"))
        })
        .await;
        let shown = pool.stack.refresher.account("only").await;
        assert_eq!(
            (&shown["cooling_down"], &shown["usable"]),
            (&json!([]), &json!(true))
        );
    });
}

/// An account that the platform has done away with leaves the pool, says why, and comes back by hand.
#[test]
fn a_dead_account_is_taken_out_until_somebody_has_seen_to_it() {
    run(async {
        let mut pool = Pool::of("board-dead", &["gone", "good"]).await;
        let gone = || json!({"fixture": "openai/account_deactivated.json", "path": CHAT});
        // The refresher itself learns nothing.
        pool.break_account("gone", json!({"path": MODELS, "status": 500, "body": "{}"}))
            .await;
        let mut second = pool.stack.caller("second").await;
        // The word of one key alone is not enough.
        pool.meets("gone", gone()).await;
        let suspected = |account: &Value| {
            let reason = account["reason"].as_str().unwrap_or_default();
            reason.contains("not confirmed") && reason.contains("deactivated")
        };
        let shown = pool.shows("gone", LIMIT, suspected).await;
        assert_eq!(
            (&shown["status"], &shown["usable"]),
            (&json!("active"), &json!(true))
        );
        let refresher = &pool.stack.refresher;
        assert_eq!(refresher.log_lines("one client key was told", "gone"), 1);
        uses(&second, "gone")
            .await
            .expect("another key's as before");
        std::mem::swap(&mut pool.caller, &mut second);
        pool.meets("gone", gone()).await;
        let shown = pool
            .shows("gone", LIMIT, |account| account["status"] == "dead")
            .await;
        assert_eq!(shown["usable"], false);
        let reason = shown["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("deactivated"), "{shown}");
        let refresher = &pool.stack.refresher;
        assert_eq!(refresher.log_lines("an account is dead", "gone"), 1);
        assert_eq!(
            refresher.log_lines("accounts enable gone", "deactivated"),
            1
        );
        let text = refresher.run(&["status"], "").await;
        assert!(text.contains("refresher accounts enable gone"), "{text}");
        let heard = pool.heard_from("gone").await;
        leaves_alone(&pool.caller, "gone").await.expect("it is out");
        assert_eq!(pool.heard_from("gone").await, heard, "nobody asked it");

        refresher.run(&["accounts", "enable", "gone"], "").await;
        eventually("the account is back", LIMIT, async || {
            uses(&pool.caller, "gone").await
        })
        .await;
        assert_eq!(refresher.account("gone").await["status"], "active");

        // With another key it is another account to the platform, so it comes back by that as well.
        let fault = pool.break_account("gone", gone()).await;
        eventually("two keys are told so", LIMIT, async || {
            pool.ask().await;
            second.post(CHAT, &chat_body(false)).await;
            let shown = refresher.account("gone").await;
            holds(shown["status"] == "dead", || shown.to_string())
        })
        .await;
        pool.stack.sim.remove_fault(fault).await;
        pool.stack.sim.add_api_key("openai", "sk-new", "new").await;
        let replace = [
            "accounts",
            "add",
            "gone",
            "--platform",
            "openai",
            "--replace",
        ];
        refresher.run(&replace, "sk-new").await;
        eventually("the new key serves", LIMIT, async || {
            uses(&pool.caller, "new").await
        })
        .await;
    });
}

/// Good answers say how much of an account's windows is used; people see it.
#[test]
fn the_quota_of_good_answers_is_shown() {
    run(async {
        let stack = Stack::alice("board-quota", Duration::from_secs(3600)).await;
        let caller = stack.caller("quota").await;
        let answer = caller.post("/v1/responses", &responses_body()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let used = |shown: &Value, name: &str| -> Option<f64> {
            let windows = shown["quota"].as_array()?;
            let window = windows.iter().find(|window| window["name"] == name)?;
            window["used_percent"].as_f64()
        };
        let shown = eventually("its windows", LIMIT, async || {
            let shown = stack.refresher.account(ALICE).await;
            holds(used(&shown, "5h").is_some(), || shown.to_string()).map(|()| shown)
        })
        .await;
        assert_eq!(
            (used(&shown, "5h"), used(&shown, "7d")),
            (Some(12.0), Some(34.0))
        );
        let text = stack.refresher.run(&["status"], "").await;
        assert!(text.contains("5h 12 % used, resets in "), "{text}");
    });
}

/// However many requests are refused at once, and however many are served, the refresher hears it once.
#[test]
fn a_storm_is_one_report() {
    run(async {
        let stack = Stack::start("board-storm").await;
        let of_kind = |kind: &str| -> Vec<Value> {
            let batches = stack.refresher.reports();
            let reports = batches
                .iter()
                .filter_map(|batch| batch["reports"].as_array());
            let reports = reports.flatten().filter(|report| report["kind"] == kind);
            reports.cloned().collect()
        };
        let mut fault = limited(60);
        fault["target"] = "upstream".into();
        fault["account"] = "openai-key".into();
        fault["delay_ms"] = 500.into();
        stack.sim.add_fault(fault).await;
        let caller = stack.caller("openai");
        let body = chat_body(false);
        let storm = (0..40).map(|_| caller.post(CHAT, &body));
        let answers = futures_util::future::join_all(storm).await;
        assert!(answers.iter().all(|answer| answer.status == 429));
        let codex = stack.caller("codex");
        for _ in 0..40 {
            let answer = codex.post("/v1/responses", &responses_body()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        eventually("the reports", LIMIT, async || {
            let both = !of_kind("cooling_down").is_empty() && !of_kind("quota").is_empty();
            holds(both, || format!("{:?}", stack.refresher.reports()))
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (cooling, quota) = (of_kind("cooling_down"), of_kind("quota"));
        assert_eq!(
            (cooling.len(), quota.len()),
            (1, 1),
            "{cooling:?} {quota:?}"
        );
        assert_eq!(cooling[0]["account"], "acc_openai");
        assert_eq!(quota[0]["account"], "acc_codex");
    });
}

/// A request that tries a half-open account and is given up leaves the try to the next one.
#[test]
fn a_probe_that_is_given_up_is_given_back() {
    run(async {
        let stack = Stack::start("board-probe").await;
        let caller = stack.caller("openai");
        let fault = |fault: Value| {
            let mut fault = fault;
            fault["target"] = "upstream".into();
            fault["account"] = "openai-key".into();
            fault
        };
        let trouble = fault(json!({"status": 500, "body": "oops", "times": 3}));
        stack.sim.add_fault(trouble).await;
        for _ in 0..3 {
            assert_eq!(caller.post(CHAT, &chat_body(false)).await.status, 500);
        }
        let slow = stack
            .sim
            .add_fault(fault(json!({"delay_ms": 30_000})))
            .await;
        let body = chat_body(false);
        eventually("a probe is sent", Duration::from_secs(15), async || {
            // Out is answered at once; the probe is slow, and is given up.
            let probe = caller.post(CHAT, &body);
            let given_up = tokio::time::timeout(Duration::from_secs(1), probe).await;
            holds(given_up.is_err(), || format!("{given_up:?}"))
        })
        .await;
        stack.sim.remove_fault(slow).await;
        // A probe that is not given back keeps the others away for 10 s.
        eventually("the next one may try", Duration::from_secs(4), async || {
            let answer = caller.post(CHAT, &body).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
    });
}
