//! Chaos for minutes: faults of every kind at the platform, its token endpoint included, and `kill -9` of the refresher,
//! under a load of JSON and streams. At the end the counts of the callers, the platform and `refresher usage` must agree.
//!
//! `make soak` runs it; `SOAK_SECONDS` says how long it loads.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::harness::{
    Caller, Stack,
    caller::{chat_body, messages_body, responses_body},
    eventually, holds,
    refresher::Refresher,
    run,
    sim::Sim,
};

/// The time for which it loads unless told otherwise: as long as two access tokens of a login would live in all.
const SECONDS: u64 = 840;

/// The pause between two faults.
const FAULT_PAUSE: Duration = Duration::from_millis(1_600);

/// The length of each life of the refresher.
const REFRESHER_LIFE: Duration = Duration::from_secs(45);

/// The time for which it stays dead.
const REFRESHER_DEATH: Duration = Duration::from_secs(2);

/// The life of an access token: a refresh of each login comes every half minute.
const ACCESS_LIFETIME: Duration = Duration::from_secs(60);

/// The longest that the last records may take: a batch that nobody took is sent again after a pause.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

/// The time for which nothing more may come after that.
const QUIET: Duration = Duration::from_secs(5);

/// By how much Envoy's memory may grow in the second half: less than one request in a hundred would leave behind.
const GROWTH_LIMIT_KIB: u64 = 16 * 1024;

/// Users that log in; API keys by platform.
const USERS: [&str; 3] = ["ann@example.com", "ben@example.com", "cas@example.com"];
const KEYS: [(&str, &str); 4] = [
    ("openai-1", "openai"),
    ("openai-2", "openai"),
    ("anthropic-1", "anthropic"),
    ("anthropic-2", "anthropic"),
];

/// A stream that is an error from its first event on.
const OVERLOADED: &str = "data: {\"error\":{\"message\":\"The server is overloaded\",\"type\":\"server_error\",\
    \"code\":\"server_is_overloaded\"}}\n\n";

/// The outcomes of the requests, by what the caller saw.
type Outcomes = Arc<Mutex<BTreeMap<String, u64>>>;

/// The answers other than 200: when, and in which words.
type Others = Arc<Mutex<Vec<(Instant, String)>>>;

/// The time before an answer in which a fault may be its cause: it limits an account for 2 s, and may have waited for a request
/// that it fits.
const FAULT_REACH: Duration = Duration::from_secs(6);

/// One fault of each kind that the simulated platform has, each for one request.
fn faults() -> Vec<Value> {
    let openai = "/v1/chat/completions";
    vec![
        json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "2"}, "path": openai}),
        json!({"fixture": "openai/server_error.json"}),
        json!({"status": 529, "body": ""}),
        json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": OVERLOADED, "path": openai}),
        json!({"drop_before_answer": true}),
        json!({"cut_after_bytes": 300}),
        json!({"delay_ms": 2_000}),
        json!({"after_headers_delay_ms": 1_500}),
        json!({"piece_bytes": 64, "piece_delay_ms": 5}),
        json!({"status": 503, "early": "reads"}),
        json!({"status": 503, "early": "closes"}),
        json!({"trailer": true}),
        json!({"stall_after_bytes": 200, "path": "/v1/messages"}),
        json!({"target": "token", "status": 503}),
        json!({"target": "token", "status": 429, "headers": {"retry-after": "1"}}),
        json!({"target": "token", "delay_ms": 1_000}),
    ]
}

#[test]
#[ignore = "takes 14 minutes: make soak"]
fn counts_agree_after_faults_and_kills() {
    let seconds = env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().expect("seconds"));
    run(async {
        let mut stack = Stack::real("soak", prepare).await;
        let stop = Arc::new(AtomicBool::new(false));
        let (outcomes, others) = (Outcomes::default(), Others::default());
        let mut loads = Vec::new();
        for (name, path, body, rate) in [
            ("chat", "/v1/chat/completions", chat_body(false), 6),
            ("chat-stream", "/v1/chat/completions", chat_body(true), 6),
            ("codex", "/v1/responses", responses_body(), 8),
            ("claude", "/v1/messages", messages_body(false), 5),
            ("claude-stream", "/v1/messages", messages_body(true), 5),
        ] {
            let caller = stack.caller(name).await;
            let seen = (Arc::clone(&outcomes), Arc::clone(&others));
            loads.push(load(caller, path, body, rate, seen, Arc::clone(&stop)));
        }
        // What the callers asked before, to see whether their keys are known, is not recorded.
        let start = Instant::now();
        let end = start + Duration::from_secs(seconds);
        let (mut faulty, mut kills, mut logins) = (0, 0, 0);
        let mut next_kill = start + REFRESHER_LIFE;
        let mut memory = Vec::new();
        let mut ordered = Vec::new();
        let kinds = faults();
        while Instant::now() < end {
            let mut fault = kinds[faulty % kinds.len()].clone();
            fault["times"] = 1.into();
            if fault.get("target").is_none() {
                fault["target"] = "upstream".into();
            }
            ordered.push((Instant::now(), fault.to_string()));
            stack.sim.add_fault(fault).await;
            faulty += 1;
            let user = USERS[faulty % USERS.len()];
            match faulty % 12 {
                3 => act(&stack.sim, user, "expire_access").await,
                9 => act(&stack.sim, user, "revoke_access").await,
                _ => {}
            }
            sleep(FAULT_PAUSE).await;
            memory.push(stack.envoy.resident_kib());
            if Instant::now() > next_kill {
                stack.refresher.kill().await;
                sleep(REFRESHER_DEATH).await;
                stack.refresher.serve().await;
                (kills, next_kill) = (kills + 1, Instant::now() + REFRESHER_LIFE);
                logins += repair(&stack).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.await.expect("sent");
        }
        logins += repair(&stack).await;
        let sent: u64 = lock(&outcomes).values().sum();
        println!(
            "{sent} requests in {seconds} s, {faulty} faults, {kills} kills of the refresher, {logins} new logins"
        );
        for (outcome, count) in lock(&outcomes).iter() {
            println!("  the callers saw {outcome}: {count}");
        }
        explain(start, &lock(&others), &ordered);
        eventually("every request is recorded", SETTLE_LIMIT, async || {
            let recorded = recorded(&stack.refresher).await;
            holds(recorded >= sent, || format!("{recorded} of {sent}"))
        })
        .await;
        sleep(QUIET).await;
        let (count, refresher) = (async |name| stack.sim.count(name).await, &stack.refresher);
        let recorded = recorded(refresher).await;
        println!("  `refresher usage` counts {recorded}");
        println!(
            "  the platform was asked {} times, for tokens {}, {} times with a token that it had seen",
            count("requests").await,
            count("token_calls").await,
            count("reuse_detected").await
        );
        let half = memory.len() / 2;
        let (first, last) = (memory[half], memory[memory.len() - 1]);
        println!("  Envoy has {first} KiB after half of the time and {last} KiB at the end");
        assert_eq!(recorded, sent, "recorded and sent");
        assert!(
            count("requests").await >= sent / 2,
            "most requests reach the platform"
        );
        // A kill between the token endpoint's answer and the disk loses tokens that are nowhere else. The old one is sent
        // once more then, and a platform that is strict ends the login: see `kills`.
        let reused = count("reuse_detected").await;
        assert!(
            reused <= logins.min(kills),
            "{reused} refresh tokens used twice, {logins} new logins, {kills} kills"
        );
        assert!(
            count("refresh_in_flight_max_per_family").await <= 1,
            "refreshes of one login at once"
        );
        assert!(last <= first + GROWTH_LIMIT_KIB, "memory grows: {memory:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
        assert!(kills >= seconds / 60, "{kills} kills in {seconds} s");
    });
}

async fn prepare(sim: &Sim, refresher: &Refresher) {
    for user in USERS {
        refresher.log_in_new(sim, user, ACCESS_LIFETIME).await;
    }
    for (name, platform) in KEYS {
        let key = match platform {
            "anthropic" => format!("sk-ant-{name}"),
            _ => format!("sk-{name}"),
        };
        sim.add_api_key(platform, &key, name).await;
        refresher.add_api_key(name, platform, &key).await;
    }
}

/// Prints each answer that was not 200, and the faults that may be the cause. A platform's own error reaches a caller where the
/// other accounts of that platform are out: one of two is limited for 2 s, and 1.6 s later the next fault meets the other.
fn explain(start: Instant, others: &[(Instant, String)], faults: &[(Instant, String)]) {
    let at = |time: &Instant| (*time - start).as_secs_f64();
    for (when, words) in others {
        println!("  {:.1} s: {words}", at(when));
        let recent = faults
            .iter()
            .filter(|(ordered, _)| ordered <= when && *when - *ordered <= FAULT_REACH);
        for (ordered, fault) in recent {
            println!("    {:.1} s: {fault:.120}", at(ordered));
        }
    }
}

/// The platform's own words for an error, or the beginning of them.
fn reason(body: &str) -> String {
    let error = serde_json::from_str::<Value>(body).map(|body| body["error"].clone());
    let error = error.unwrap_or_default();
    let told = [&error["code"], &error["type"]];
    let told = told.into_iter().find_map(Value::as_str);
    told.map_or_else(|| format!("{body:.80}"), str::to_owned)
}

/// Sends `rate` requests a second until it is told to stop, and waits for every answer.
fn load(
    caller: Caller,
    path: &'static str,
    body: Value,
    rate: u32,
    (outcomes, others): (Outcomes, Others),
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut requests = JoinSet::new();
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let (caller, body) = (caller.clone(), body.clone());
            let (outcomes, others) = (Arc::clone(&outcomes), Arc::clone(&others));
            requests.spawn(async move {
                let asked = caller.try_post(path, &body).await;
                if let Ok(answer) = &asked
                    && answer.status != 200
                {
                    let own = answer.own_code();
                    let words = own.map_or_else(|| reason(&answer.body), |code| code.to_string());
                    let words = format!("{path} {} {words}", answer.status);
                    lock(&others).push((Instant::now(), words));
                }
                let outcome = match asked {
                    Ok(answer) => match answer.own_code() {
                        Some(code) => format!("{} {code}", answer.status),
                        None => answer.status.to_string(),
                    },
                    Err(error) if error.is_timeout() => "an answer that stopped".to_owned(),
                    Err(error) if error.is_connect() => {
                        panic!("Envoy takes no connection: {error:?}")
                    }
                    Err(_) => "an answer that was cut off".to_owned(),
                };
                *lock(&outcomes).entry(outcome).or_default() += 1;
            });
            while let Some(ended) = requests.try_join_next() {
                ended.expect("asked");
            }
        }
        requests.join_all().await;
    })
}

/// Changes what the platform knows of a user.
async fn act(sim: &Sim, user: &str, action: &str) {
    let path = format!("/users/{user}/{action}");
    sim.ask(Method::POST, &path, Value::Null).await;
}

/// Logs in again who lost the login with the refresher, as a person would. Returns how many did.
async fn repair(stack: &Stack<Refresher>) -> u64 {
    let mut repaired = 0;
    for account in stack.refresher.accounts().await {
        let name = account["name"].as_str().expect("a name");
        if account["status"] == "needs_login" {
            // The login may meet a fault too; each of them is for one call.
            let mut said = Ok(());
            for _ in 0..3 {
                said = stack.refresher.try_log_in_as(&stack.sim, name, name).await;
                if said.is_ok() {
                    break;
                }
            }
            said.expect("logged in");
            repaired += 1;
        }
        assert_ne!(account["status"], "dead", "{account}");
    }
    repaired
}

/// The number of requests that `refresher usage` counts.
async fn recorded(refresher: &Refresher) -> u64 {
    let arguments = ["usage", "--by", "key", "--since", "1d", "--json"];
    let text = refresher.run(&arguments, "").await;
    let usage: Value = serde_json::from_str(&text).expect("JSON");
    let rows = usage["rows"].as_array().expect("rows").iter();
    rows.map(|row| row["requests"].as_u64().expect("a number"))
        .sum()
}

/// Nothing panics while it is held.
fn lock<T>(seen: &Mutex<T>) -> MutexGuard<'_, T> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
