//! Holds failover to the figures that Latchkey promises for it under load.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt, stream};
use reqwest::Method;
use rustix::{
    io::ioctl_fionbio,
    net::{AddressFamily, SocketType, bind, connect, listen, socket},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{
    Caller, Load, Stack,
    caller::{chat_body, responses_body},
    envoy::Envoy,
    eventually,
    fake_refresher::FakeRefresher,
    holds, records, run,
    sim::Sim,
    stack::{self, ALICE, SYNC_LIMIT, client_key, closed_port, new_folder},
    yardstick::Yardstick,
};

const CHAT: &str = "/v1/chat/completions";

/// A stream that is an error from its first event on.
const OVERLOADED: &str = "data: {\"error\":{\"message\":\"The server is overloaded\",\"type\":\"server_error\",\
    \"code\":\"server_is_overloaded\"}}\n\n";

/// The cluster that accounts of OpenAI's API share, as the refresher names it.
const SHARED: &str = "latchkey-openai";

/// A stack with accounts of OpenAI's API in a pool of their own, `many`. They share the platform's cluster.
async fn pool(name: &str, policy: &str, accounts: &[&str]) -> Stack {
    let shared = json!({"cluster": SHARED});
    let stack = Stack::start(name).await;
    pool_on(stack, policy, accounts, &shared, &["openai"]).await
}

/// [`pool`] in which each account has a cluster of its own, so that one can be moved elsewhere.
async fn pool_apart(name: &str, policy: &str, accounts: &[&str]) -> Stack {
    let stack = Stack::start(name).await;
    pool_on(stack, policy, accounts, &json!({}), accounts).await
}

async fn pool_on(
    stack: Stack,
    policy: &str,
    accounts: &[&str],
    other: &Value,
    clusters: &[&str],
) -> Stack {
    let mut lines = Vec::new();
    for account in accounts {
        let key = format!("sk-{account}");
        stack.sim.add_api_key("openai", &key, account).await;
        let authority = stack.sim.authority();
        let other = other.clone();
        lines.push(records::account(account, "openai", authority, &key, other));
    }
    lines.push(records::pool("many", policy, accounts));
    lines.push(records::key("key_many", &client_key("many"), "many"));
    let revision = stack.refresher.publish(lines);
    stack.have_clusters(clusters).await;
    stack.reaches(revision).await;
    stack
}

/// A port on which connections are neither taken nor refused, as long as what is returned lives: its queue is full.
fn silent_port() -> (u16, Vec<OwnedFd>) {
    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let new = || socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let listener = new();
    bind(&listener, &any).expect("bound");
    listen(&listener, 0).expect("listening");
    let port = std::net::TcpListener::from(listener);
    let address = port.local_addr().expect("bound");
    let mut kept = vec![OwnedFd::from(port)];
    for _ in 0..4 {
        let waiting = new();
        ioctl_fionbio(&waiting, true).expect("set");
        // The first is taken into the queue, the others wait for ever.
        let _ = connect(&waiting, &address);
        kept.push(waiting);
    }
    (address.port(), kept)
}

/// One account of three fails in every way that there is, for 2 s at 100 requests a second each: no caller sees it, and
/// the cluster that it shares with the others is not held to be down. One that the platform gave a time is asked once and left alone, one in trouble is asked three times before it is.
#[test]
fn one_failing_account_of_three_costs_no_request_of_a_hundred_a_second() {
    let deactivated = json!({"status": 403, "fixture": "openai/account_deactivated.json"});
    let limited =
        json!({"fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": "60"}});
    let failed = json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": OVERLOADED});
    let faults = [
        ("limited", limited, 2),
        (
            "refused",
            json!({"fixture": "openai/invalid_api_key.json"}),
            2,
        ),
        ("forbidden", deactivated, 2),
        ("error", json!({"fixture": "openai/server_error.json"}), 8),
        ("overloaded", json!({"status": 529, "body": ""}), 8),
        ("inside", failed, 8),
        ("reset", json!({"drop_before_answer": true}), 8),
    ];
    run(async {
        for (case, fault, most) in faults {
            let stack = pool(
                &format!("figures-{case}"),
                "round_robin",
                &["bad", "fair", "good"],
            )
            .await;
            let mut fault = fault;
            fault["target"] = "upstream".into();
            fault["account"] = "bad".into();
            stack.sim.add_fault(fault).await;
            let stats = stack.envoy.schedstat();
            let load = Load::start(stack.caller("many"), CHAT, chat_body(true), 100);
            sleep(Duration::from_secs(2)).await;
            load.assert_all_good(100).await;
            let heard = heard(&stack).await;
            // Where Envoy waits for a core, more are under way until it knows; without knowing it would ask a third.
            let slowness = stack.envoy.slowness_since(stats);
            println!("{case}: {heard:?}; Envoy took {slowness:.1} times as long");
            let all: usize = heard.values().sum();
            let most = ((f64::from(most) * slowness) as usize).min(all / 6);
            let bad = heard.get("bad").copied().unwrap_or_default();
            assert!((1..=most).contains(&bad), "{case}: asked {bad} times");
            assert_eq!(stack.envoy.crashes().await, 0, "{case}");
        }
    });
}

/// The same where nobody listens at all.
#[test]
fn an_account_behind_a_closed_port_costs_no_request() {
    run(async {
        let stack = pool_apart("figures-unplugged", "round_robin", &["bad", "fair", "good"]).await;
        stack.replug("bad", closed_port()).await;
        let load = Load::start(stack.caller("many"), CHAT, chat_body(true), 100);
        sleep(Duration::from_secs(3)).await;
        load.assert_all_good(200).await;
        assert_eq!(heard(&stack).await.get("bad"), None);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// And where connections are neither taken nor refused: those who wait for one are served by another account when
/// Envoy has given up on it, which takes five seconds, and the account is then left alone.
#[test]
fn an_account_behind_a_silent_port_costs_no_request() {
    run(async {
        let accounts = ["bad", "fair", "good"];
        let stack = pool_apart("figures-silent", "round_robin", &accounts).await;
        let (port, _kept) = silent_port();
        stack.replug("bad", port).await;
        let load = Load::start(stack.caller("many"), CHAT, chat_body(true), 20);
        sleep(Duration::from_secs(8)).await;
        let caller = stack.caller("many");
        for _ in 0..6 {
            let asked = Instant::now();
            let answer = caller.post(CHAT, &chat_body(true)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(
                asked.elapsed() < Duration::from_secs(4),
                "{:?}",
                asked.elapsed()
            );
        }
        load.assert_all_good(60).await;
        assert_eq!(heard(&stack).await.get("bad"), None);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Envoy serves 10,000 accounts after 3 s more of work than 10 at most. One account more is served at once, and neither the
/// clusters nor Envoy's main thread hear of it.
#[test]
fn ten_thousand_accounts_are_one_cluster() {
    const ACCOUNTS: usize = 10_000;
    /// Of CPU: how long that takes is the machine's matter, which runs other tests too. The filter is compiled in both.
    const START_LIMIT: Duration = Duration::from_secs(3);
    const NEWS_LIMIT: Duration = Duration::from_millis(500);
    run(async {
        let _permit = stack::permit().await;
        let folder = new_folder("figures-ten-thousand");
        let sim = Sim::start(&folder).await;
        sim.add_api_key("openai", "sk-one", "one").await;
        let refresher = FakeRefresher::start(&folder).await;
        let shared = json!({"cluster": SHARED});
        let account =
            |id: &str| records::account(id, "openai", sim.authority(), "sk-one", shared.clone());
        sim.write_clusters(&folder, &["openai"]);
        let start = async |accounts: usize| {
            let ids = (0..accounts).map(|number| format!("acc_{number}"));
            let ids: Vec<String> = ids.collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let mut lines = records::platforms(&sim.platforms_dir);
            lines.extend(ids.iter().map(|id| account(id)));
            lines.push(records::pool("many", "sticky", &ids));
            lines.push(records::key("key_many", &client_key("many"), "many"));
            refresher.publish(lines);
            let start = Instant::now();
            let envoy = Envoy::start(&folder, 0).await;
            let caller = Caller::new(envoy.port, &client_key("many"));
            eventually("a request is served", SYNC_LIMIT, async || {
                let answer = caller.post(CHAT, &chat_body(false)).await;
                holds(answer.status == 200, || format!("{answer:?}"))
            })
            .await;
            let (took, worked) = (start.elapsed(), envoy.cpu_time());
            println!("{accounts} accounts: serves after {took:?} and {worked:?} of CPU");
            (envoy, worked)
        };
        let (few, of_few) = start(10).await;
        drop(few);
        let (envoy, worked) = start(ACCOUNTS).await;
        let more = worked.saturating_sub(of_few);
        assert!(more < START_LIMIT, "{more:?}");

        let clusters = folder.join("state/envoy/clusters.json");
        let read = async || {
            let text = std::fs::read_to_string(&clusters).expect("the clusters");
            let updates = envoy.stat("cluster_manager.cds.update_attempt").await;
            let clusters = envoy.stat("cluster_manager.active_clusters").await;
            (
                text,
                updates,
                clusters,
                envoy.stat("cluster_manager.cluster_modified").await,
            )
        };
        let before = read().await;
        let yardstick = Yardstick::start();
        let (asked, began) = (Instant::now(), SystemTime::now());
        refresher.publish([
            account("acc_new"),
            records::pool("new", "sticky", &["acc_new"]),
            records::key("key_new", &client_key("new"), "new"),
        ]);
        let newcomer = Caller::new(envoy.port, &client_key("new"));
        eventually("the new account serves", SYNC_LIMIT, async || {
            let answer = newcomer.post(CHAT, &chat_body(false)).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        let (took, late) = (asked.elapsed(), yardstick.late(began, SystemTime::now()));
        println!("one account more: serves after {took:?}");
        assert!(took < NEWS_LIMIT + late, "{took:?}");
        assert_eq!(read().await, before);
        assert_eq!(envoy.crashes().await, 0);
    });
}

/// The number of times that the platform was asked by each account.
async fn heard(stack: &Stack) -> HashMap<String, usize> {
    let mut heard = HashMap::new();
    for seen in stack.sim.seen().await {
        if let Some(account) = seen.account() {
            *heard.entry(account.to_owned()).or_default() += 1;
        }
    }
    heard
}

/// 10,000 requests, 100 at a time, on the one account of a pool whose token the platform has just revoked: one refresh,
/// and every request is served.
#[test]
fn a_storm_on_a_revoked_token_is_one_refresh() {
    run(async {
        let stack = Stack::alice("figures-storm", Duration::from_secs(3_600)).await;
        let caller = stack.caller("storm").await;
        let before = stack.sim.count("refreshes").await;
        let revoke = format!("/users/{ALICE}/revoke_access");
        stack.sim.ask(Method::POST, &revoke, Value::Null).await;
        let body = responses_body();
        let mut statuses: HashMap<u16, usize> = HashMap::new();
        let mut answers = stream::iter(0..10_000)
            .map(|_| caller.post("/v1/responses", &body))
            .buffer_unordered(100);
        while let Some(answer) = answers.next().await {
            *statuses.entry(answer.status).or_default() += 1;
        }
        assert_eq!(statuses, HashMap::from([(200, 10_000)]));
        assert_eq!(stack.sim.count("refreshes").await - before, 1);
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Of 1,000 sessions on ten accounts, those of an account that is limited go elsewhere and come back when its time has
/// come; at least 99 % of the others stay where they are all the while.
#[test]
fn sessions_stay_and_return() {
    const ACCOUNTS: [&str; 10] = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9"];
    /// Longer than a busy machine takes to ask in every session.
    const LIMITED: Duration = Duration::from_secs(300);
    run(async {
        let (stack, mut clock) = Stack::with_clock("figures-sticky").await;
        let shared = json!({"cluster": SHARED});
        let stack = pool_on(stack, "sticky", &ACCOUNTS, &shared, &["openai"]).await;
        let caller = stack.caller("many");
        let home = where_sessions_are(&caller).await;
        let limited = home[&0].clone();
        let fault = json!({
            "target": "upstream", "account": limited, "times": 1,
            "fixture": "openai/rate_limit_exceeded.json", "headers": {"retry-after": LIMITED.as_secs().to_string()},
        });
        stack.sim.add_fault(fault).await;
        // Alone: requests that are under way with the account when it is limited are served by it.
        assert_ne!(ask_in_session(&caller, 0).await, limited);
        let away = where_sessions_are(&caller).await;
        let of_others = home.iter().filter(|(_, account)| **account != limited);
        let stayed = of_others
            .clone()
            .filter(|(session, account)| away[session] == **account);
        let (stayed, all) = (stayed.count(), of_others.count());
        println!("{stayed} of {all} sessions of the other accounts stayed");
        assert!(stayed * 100 >= all * 99, "{stayed} of {all}");
        assert!(away.values().all(|account| *account != limited));
        clock.pass(LIMITED);
        eventually("the account is back", SYNC_LIMIT, async || {
            let answer = ask_in_session(&caller, 0).await;
            holds(answer == limited, || answer.clone())
        })
        .await;
        assert_eq!(where_sessions_are(&caller).await, home);
    });
}

/// The account that serves each of 1,000 sessions.
async fn where_sessions_are(caller: &Caller) -> HashMap<usize, String> {
    let ask = |session| async move { (session, ask_in_session(caller, session).await) };
    stream::iter(0..1_000)
        .map(ask)
        .buffer_unordered(16)
        .collect()
        .await
}

/// The account that serves a request of a session; the simulated platform's answers say.
async fn ask_in_session(caller: &Caller, session: usize) -> String {
    let (bearer, session) = (
        format!("Bearer {}", caller.key()),
        format!("session-{session}"),
    );
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("session-id", session.as_str()),
    ];
    let answer = caller
        .send("POST", CHAT, &headers, chat_body(false).to_string())
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (_, account) = answer
        .body
        .split_once("Hello from ")
        .expect("the account's name");
    account
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect()
}

/// A stream through a failover is, byte for byte, what the second account's platform sent, odd as that may be.
#[test]
fn a_stream_after_a_failover_is_the_second_accounts() {
    const STREAM: &str = ": hello\r\n\r\ndata:{\"choices\":[{\"delta\":{\"content\":\"\u{e9}\u{1f511}\"}}]}\r\n\r\n\
        event: odd\nid: 7\nretry: 10\ndata: one\ndata: two\n\n\rdata: {\"choices\":[],\"usage\":null}\n\n\
        data: [DONE]\n\ntrailing bytes";
    run(async {
        let stack = pool("figures-bytes", "round_robin", &["bad", "good"]).await;
        let good = json!({"status": 200, "headers": {"content-type": "text/event-stream"}, "body": STREAM});
        for (account, mut fault) in [
            ("bad", json!({"fixture": "openai/server_error.json"})),
            ("good", good),
        ] {
            fault["target"] = "upstream".into();
            fault["account"] = account.into();
            stack.sim.add_fault(fault).await;
        }
        for _ in 0..8 {
            let answer = stack.caller("many").post(CHAT, &chat_body(true)).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, STREAM));
        }
        assert!(
            heard(&stack).await.contains_key("bad"),
            "the fault was not met"
        );
    });
}
