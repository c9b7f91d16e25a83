//! A network that is bad on the way to a token endpoint and to a platform: every trouble is taken for what it is, and
//! nothing that was under way is held for it when it is over.
//!
//! [`Wire`] makes the trouble, in this process. What it cannot make, packets that are lost and sent again, a link does
//! that is too narrow, in a network namespace of the test's own; that needs root. A path that swallows all that a
//! connection says from the middle of an answer on is not shown: a kernel would have to drop it. TCP's keepalive ends such
//! a connection (`clusters.rs`).

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use refresher::platform::Catalog;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::harness::{
    Caller, Load, Stack,
    caller::{chat_body, responses_body},
    eventually, holds,
    program::{self, Program},
    refresher::Refresher,
    run,
    sim::{Seen, Sim},
    stack::{ALICE, new_folder},
    wire::{ANSWERS_AFTER, End, Trouble, Wire},
};

const CHAT: &str = "/v1/chat/completions";
const HOUR: Duration = Duration::from_secs(3_600);

/// The time that the simulated platform takes for an answer, so that a wire can tell that it is one.
const THINKING: Duration = ANSWERS_AFTER.saturating_mul(2);

/// The refresher's own: the longest that it waits for a token endpoint, and the life of a claim.
const CALLS: Duration = Duration::from_secs(30);
const CLAIM_LIFE: Duration = Duration::from_secs(60);

/// The time that a busy machine adds.
const BUSY: Duration = Duration::from_secs(10);

/// The simulated platform's address.
fn far(sim: &Sim) -> SocketAddr {
    let (_, port) = sim.authority().rsplit_once(':').expect("a port");
    (Ipv4Addr::LOCALHOST, port.parse().expect("a port")).into()
}

/// `url` of the simulated platform, by a wire.
fn by(wire: &Wire, url: &str, sim: &Sim) -> String {
    let (host, _) = sim.authority().rsplit_once(':').expect("a host");
    let by = url.replace(sim.authority(), &format!("{host}:{}", wire.port));
    assert_ne!(by, url, "it leads to the platform");
    by
}

/// The calls of an account at the token endpoint after its login.
fn calls(seen: &[Seen], email: &str) -> usize {
    let calls = seen
        .iter()
        .filter(|seen| seen.path() == "/oauth/token" && seen.account() == Some(email));
    calls.count() - 1
}

/// Trouble on the way to a token endpoint, and what a refresh makes of it.
struct OnRefresh {
    name: &'static str,
    trouble: Trouble,
    /// On so many connections alone, and else until it is over.
    times: Option<usize>,
    /// The calls that reach the platform in all.
    calls: usize,
    /// It fails, and is tried again later.
    fails: bool,
}

/// Nothing that never left is taken for spent; what may be spent is sent once more and no oftener; whoever is only slow
/// is waited for. No login ends of it, and none waits for a claim that nobody holds.
async fn trouble_on_the_way_to_a_token_endpoint() {
    const LIFE: Duration = Duration::from_secs(5);
    let lasting = |name, trouble| OnRefresh {
        name,
        trouble,
        times: None,
        calls: 1,
        fails: true,
    };
    let once = |name, trouble| OnRefresh {
        times: Some(1),
        calls: 2,
        fails: false,
        ..lasting(name, trouble)
    };
    let slow = |name, trouble| OnRefresh {
        fails: false,
        ..lasting(name, trouble)
    };
    let cases = [
        lasting("refuses", Trouble::Refuses),
        lasting("swallows", Trouble::Swallows),
        lasting("silent", Trouble::Silent),
        lasting("resets-at-once", Trouble::ResetsAtOnce),
        once("resets-answer", Trouble::Answer(0, End::Reset)),
        once("cuts-answer", Trouble::Answer(0, End::Cut)),
        once("cuts-in-answer", Trouble::Answer(60, End::Cut)),
        once("resets-in-answer", Trouble::Answer(60, End::Reset)),
        once("stalls-answer", Trouble::Answer(0, End::Stall)),
        once("stalls-in-answer", Trouble::Answer(60, End::Stall)),
        slow("late", Trouble::Late(Duration::from_millis(400))),
        slow("lossy", Trouble::Lossy(3)),
        slow("drips", Trouble::Drips(64, Duration::from_millis(20))),
    ];
    let folder = new_folder("network-token");
    let sim = Sim::start(&folder).await;
    let mut refresher = Refresher::new(&folder, &sim);
    let email = |case: &OnRefresh| format!("{}@example.com", case.name);
    let platform = |case: &OnRefresh| format!("by-{}", case.name);
    let token_url = format!("https://{}/oauth/token", sim.authority());
    let grace = json!({"grace_seconds": 600});
    sim.ask(reqwest::Method::POST, "/settings", grace).await;
    let config = refresher.file("config.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    let ids: Vec<_> = cases.iter().map(platform).collect();
    let all = format!("acknowledged_terms = {ids:?}");
    let text = text.replace("acknowledged_terms = ['codex']", &all);
    assert!(text.contains(&all), "{text}");
    fs::write(&config, text).expect("written");
    let mut wires = Vec::new();
    for case in &cases {
        let wire = Wire::new(far(&sim), case.trouble, case.times).await;
        let profile = format!(
            "extends = 'codex'\nterms = 'a'\n[oauth]\ntoken_url = '{}'\nrefresh_token = 'single_use'\n",
            by(&wire, &token_url, &sim)
        );
        let file = sim.platforms_dir.join(format!("{}.toml", platform(case)));
        fs::write(file, profile).expect("written");
        wires.push(wire);
    }
    for case in &cases {
        let email = email(case);
        sim.add_user(&email, LIFE).await;
        refresher.import_to(&sim, &email, &platform(case)).await;
        sim.add_user(&email, HOUR).await;
        let thinks =
            json!({"target": "token", "account": email, "delay_ms": THINKING.as_millis() as u64});
        sim.add_fault(thinks).await;
    }
    let began = Instant::now();
    refresher.serve().await;

    // Every trouble was met, and what does not last is over by then: a stall is waited for, and sent once more.
    sleep(LIFE + CALLS + BUSY).await;
    let seen = sim.seen().await;
    for (case, wire) in cases.iter().zip(&wires) {
        let account = refresher.account(&email(case)).await;
        let (calls, failures) = (calls(&seen, &email(case)), &account["failures"]);
        println!(
            "{:16} {:3} connections, {calls} calls, {failures} failures, generation {}, {}",
            case.name,
            wire.connections(),
            account["generation"],
            account["reason"],
        );
        assert_eq!(account["status"], "active", "{}: {account}", case.name);
        match case.fails {
            true => {
                assert_eq!((calls, &account["generation"]), (0, &json!(1)), "{account}");
                assert!(failures.as_u64() >= Some(1), "{}: {account}", case.name);
            }
            false => {
                assert_eq!(
                    (calls, &account["generation"]),
                    (case.calls, &json!(2)),
                    "{account}"
                );
            }
        }
    }

    // The network is good again: whoever waits is served by the next try, sooner than a claim that nobody holds would end.
    let healed = Instant::now();
    let down = healed - began;
    let wires = join_all(wires.into_iter().map(Wire::heal)).await;
    eventually("all are fresh", CLAIM_LIFE, async || {
        let accounts = refresher.accounts().await;
        let is_active = |account: &&Value| account["status"] == "active";
        assert_eq!(accounts.iter().filter(is_active).count(), cases.len());
        let late = accounts
            .iter()
            .find(|account| account["generation"] != 2 || account["usable"] != true);
        late.map_or(Ok(()), |late| Err(late.to_string()))
    })
    .await;
    println!(
        "all are fresh {:?} after {down:?} of trouble",
        healed.elapsed()
    );
    // No try that was under way comes in later.
    sleep(BUSY).await;
    let seen = sim.seen().await;
    for case in &cases {
        assert_eq!(calls(&seen, &email(case)), case.calls, "{}", case.name);
        let account = refresher.account(&email(case)).await;
        assert_eq!(account["failures"], 0, "{account}");
    }
    assert_eq!(sim.count("reuse_detected").await, 0);
    assert_eq!(sim.count("refresh_in_flight_max_per_family").await, 1);
    drop(wires);
}

/// Trouble on the way to a platform, and what a request makes of it.
struct OnRequest {
    name: &'static str,
    trouble: Trouble,
    /// What the caller gets, and of whom.
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A whole answer of another account, and the platform heard nothing of it from this one.
    NeverLeft,
    /// A whole answer of another account, after this one was asked.
    FailedOver,
    /// A whole answer of this account.
    Served,
    /// The beginning of this account's answer, which visibly has no end.
    Broken,
}

/// The answer to a stream, as its caller sees it.
struct Got {
    status: u16,
    text: String,
    /// The transfer ended in order.
    is_whole: bool,
    took: Duration,
}

/// Asks for a stream, and leaves where nothing comes for so long.
async fn ask(caller: &Caller, patience: Duration) -> Got {
    let began = Instant::now();
    let mut answer = caller.begin(CHAT, &chat_body(true)).await;
    let (mut text, mut is_whole) = (Vec::new(), false);
    while let Ok(Ok(piece)) = timeout(patience, answer.chunk()).await {
        match piece {
            Some(piece) => text.extend_from_slice(&piece),
            None => {
                is_whole = true;
                break;
            }
        }
    }
    Got {
        status: answer.status().as_u16(),
        text: String::from_utf8(text).expect("UTF-8"),
        is_whole,
        took: began.elapsed(),
    }
}

/// What never left, and what was sent and not answered, another account serves, in time; what has begun breaks where its
/// caller can see it; whoever is slow is waited for. It is the platform's trouble, and no account's. None is counted as
/// under way when it is over, and each serves again.
async fn trouble_on_the_way_to_a_platform() {
    /// Of the profile.
    const FIRST_EVENT: Duration = Duration::from_secs(5);
    /// As `clusters.rs` has it.
    const CONNECTS: Duration = Duration::from_secs(5);
    let case = |name, trouble, outcome| OnRequest {
        name,
        trouble,
        outcome,
    };
    let cases = [
        case("refuses", Trouble::Refuses, Outcome::NeverLeft),
        case("swallows", Trouble::Swallows, Outcome::NeverLeft),
        case("silent", Trouble::Silent, Outcome::NeverLeft),
        case("resets-at-once", Trouble::ResetsAtOnce, Outcome::NeverLeft),
        case(
            "resets-answer",
            Trouble::Answer(0, End::Reset),
            Outcome::FailedOver,
        ),
        case(
            "cuts-answer",
            Trouble::Answer(0, End::Cut),
            Outcome::FailedOver,
        ),
        case(
            "stalls-answer",
            Trouble::Answer(0, End::Stall),
            Outcome::FailedOver,
        ),
        case(
            "resets-in-answer",
            Trouble::Answer(2_000, End::Reset),
            Outcome::Broken,
        ),
        case(
            "cuts-in-answer",
            Trouble::Answer(2_000, End::Cut),
            Outcome::Broken,
        ),
        case(
            "stalls-in-answer",
            Trouble::Answer(2_000, End::Stall),
            Outcome::Broken,
        ),
        case(
            "late",
            Trouble::Late(Duration::from_millis(200)),
            Outcome::Served,
        ),
        case(
            "drips",
            Trouble::Drips(64, Duration::from_millis(20)),
            Outcome::Served,
        ),
    ];
    let wires = std::cell::RefCell::new(Vec::new());
    let stack = Stack::real(
        "network-platform",
        async |sim: &Sim, refresher: &Refresher| {
            let catalog =
                Catalog::load(Some(&sim.platforms_dir), BTreeSet::new()).expect("profiles");
            let openai = catalog.profile("openai").expect("a profile");
            sim.add_api_key("openai", "sk-good", "good").await;
            refresher.add_api_key("good", "openai", "sk-good").await;
            for case in &cases {
                let name = case.name;
                let wire = Wire::new(far(sim), case.trouble, None).await;
                let here = json!({"authority": by(&wire, sim.authority(), sim)});
                sim.ask(reqwest::Method::POST, "/settings", here).await;
                let profile = format!(
                    "extends = 'openai'\nupstream.base_url = '{}'\nlimits.streams = 4\n\
                 endpoints.chat.generate.first_event_seconds = {}\n",
                    by(&wire, openai.upstream.url.as_str(), sim),
                    FIRST_EVENT.as_secs(),
                );
                let file = sim.platforms_dir.join(format!("by-{name}.toml"));
                fs::write(file, profile).expect("written");
                let key = format!("sk-{name}");
                sim.add_api_key("openai", &key, name).await;
                let thinks = json!({
                    "target": "upstream", "account": name, "delay_ms": THINKING.as_millis() as u64,
                    "piece_bytes": 200, "piece_delay_ms": 50,
                });
                sim.add_fault(thinks).await;
                refresher
                    .add_api_key(name, &format!("by-{name}"), &key)
                    .await;
                let create = ["pools", "create", name, "--policy", "fill_first"];
                refresher.run(&create, "").await;
                refresher
                    .run(&["pools", "add", name, name, "good"], "")
                    .await;
                wires.borrow_mut().push(wire);
            }
        },
    )
    .await;
    let wires = wires.into_inner();
    let mut callers = Vec::new();
    for case in &cases {
        let create = ["keys", "create", case.name, "--pool", case.name];
        let key = stack.refresher.run(&create, "").await;
        callers.push(Caller::new(stack.envoy.port, key.trim()));
    }
    for caller in &callers {
        eventually("the key is taken", BUSY, async || {
            let answer = caller.get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
    }
    let heard = |seen: &[Seen], name: &str| {
        let of_account = seen.iter().filter(|seen| seen.account() == Some(name));
        of_account.count()
    };

    let asked = callers
        .iter()
        .map(|caller| ask(caller, FIRST_EVENT + CONNECTS));
    let got = join_all(asked).await;
    let seen = stack.sim.seen().await;
    let mut shown = Vec::new();
    for case in &cases {
        shown.push(stack.refresher.account(case.name).await);
    }
    for (((case, got), wire), account) in cases.iter().zip(&got).zip(&wires).zip(&shown) {
        println!(
            "{:16} {} after {:?}, {} bytes{}, {} connections, heard {}, {}",
            case.name,
            got.status,
            got.took,
            got.text.len(),
            if got.is_whole { "" } else { " and no end" },
            wire.connections(),
            heard(&seen, case.name),
            account["cooling_down"],
        );
    }
    for ((case, got), account) in cases.iter().zip(&got).zip(&shown) {
        let (name, heard) = (case.name, heard(&seen, case.name));
        assert_eq!(got.status, 200, "{name}: {}", got.text);
        let ends = got.text.ends_with("data: [DONE]\n\n") && got.is_whole;
        assert_eq!(
            ends,
            case.outcome != Outcome::Broken,
            "{name}: {}",
            got.text
        );
        assert_eq!(
            heard > 0,
            case.outcome != Outcome::NeverLeft,
            "{name}: heard {heard}"
        );
        let limit = match case.outcome {
            Outcome::NeverLeft => 2 * CONNECTS + BUSY,
            _ => FIRST_EVENT + 2 * CONNECTS + BUSY,
        };
        assert!(got.took < limit, "{name}: {:?}", got.took);
        assert_eq!(account["status"], "active", "{account}");
        let reasons = account["cooling_down"].as_array().expect("a list").iter();
        let mut reasons = reasons.map(|one| &one["reason"]);
        assert!(
            reasons.all(|reason| reason == "platform_trouble"),
            "{account}"
        );
    }

    // Nobody is under way any more, and each is asked again once the network is good, and serves.
    let _wires = join_all(wires.into_iter().map(Wire::heal)).await;
    for case in &cases {
        eventually(case.name, BUSY, async || {
            let account = stack.refresher.account(case.name).await;
            holds(account["limits"]["used"]["streams"] == 0, || {
                account.to_string()
            })
        })
        .await;
    }
    let before: Vec<_> = cases.iter().map(|case| heard(&seen, case.name)).collect();
    let healed = Instant::now();
    for ((case, caller), before) in cases.iter().zip(&callers).zip(before) {
        eventually(case.name, CLAIM_LIFE, async || {
            let got = ask(caller, FIRST_EVENT).await;
            assert!(
                got.is_whole && got.status == 200,
                "{}: {}",
                case.name,
                got.text
            );
            let now = heard(&stack.sim.seen().await, case.name);
            holds(now > before, || format!("heard {now}"))
        })
        .await;
    }
    println!("all serve again {:?} after it was over", healed.elapsed());
    let dead: Vec<Value> = stack.refresher.accounts().await;
    assert!(dead.iter().all(|account| account["status"] == "active"));
    assert_eq!(stack.envoy.crashes().await, 0);
}

/// Says that this process is in a network namespace of its own, whose only link is narrow.
const NARROW: &str = "LATCHKEY_IT_NARROW_LINK";

/// Makes the link narrow: a queue of some packets, behind which more are dropped. What is said comes to more.
const NARROWS: &str = "ip link set lo up mtu 1500 && tc qdisc add dev lo root tbf rate 20mbit burst 6kb limit 12kb && \
                       exec \"$0\" \"$@\"";

/// Runs a test of this binary in a network namespace of its own, which has a narrow link and nothing else.
async fn on_a_narrow_link(test: &str) {
    let mut command = Program::command("unshare".as_ref());
    command.args(["--net", "sh", "-c", NARROWS]);
    command.arg(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "--nocapture", test]);
    command.env(NARROW, "1");
    let done = program::output_of(command, 10 * CLAIM_LIFE).await;
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}{}", String::from_utf8_lossy(&done.stderr));
    let passed = done.status.success() && said.contains("1 passed");
    assert!(
        passed,
        "expected to be root, with unshare, ip and tc, on a kernel that has tbf, and the test to pass"
    );
}

/// The TCP segments that were sent again in this network namespace.
fn sent_again() -> u64 {
    let text = fs::read_to_string("/proc/self/net/snmp").expect("the kernel's counters");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs
        .find(|(name, _)| *name == "RetransSegs")
        .expect("a counter");
    value.parse().expect("a number")
}

/// Packets are lost on every way, of requests, answers, refreshes and what Envoy and the platform say: all comes to its
/// end, and nobody takes it for more than a slow network.
async fn requests_and_refreshes_with_lost_packets() {
    /// More than the link's queue holds, in each request.
    const BODY_BYTES: usize = 60_000;
    const LASTS: Duration = Duration::from_secs(40);
    const LIFE: Duration = Duration::from_secs(6);
    let stack = Stack::alice("network-loss", LIFE).await;
    let mut body = responses_body();
    body["instructions"] = "x".repeat(BODY_BYTES).into();
    let load = Load::start(stack.caller("load").await, "/v1/responses", body, 8);
    sleep(LASTS).await;
    load.assert_all_good(200).await;
    let again = sent_again();
    let refreshes = stack.sim.count("refreshes").await;
    println!("{again} segments were sent again, {refreshes} refreshes");
    assert!(again > 100, "the link lost too little: {again}");
    assert!(refreshes >= LASTS.as_secs() / LIFE.as_secs(), "{refreshes}");
    for counter in [
        "reuse_detected",
        "expired_token_uses",
        "rejected_credentials",
    ] {
        assert_eq!(stack.sim.count(counter).await, 0, "{counter}");
    }
    eventually("nothing is under way", BUSY, async || {
        let account = stack.refresher.account(ALICE).await;
        let (status, held) = (&account["status"], &account["cooling_down"]);
        assert_eq!((status, held), (&json!("active"), &json!([])), "{account}");
        holds(account["limits"]["used"]["streams"] == 0, || {
            account.to_string()
        })
    })
    .await;
    assert_eq!(stack.envoy.crashes().await, 0);
}

/// `make long`
mod long {
    use super::*;

    /// Where packets are really lost. It needs root.
    #[test]
    #[ignore = "a minute"]
    fn lost_packets_cost_no_request_and_no_login() {
        match std::env::var_os(NARROW) {
            Some(_) => run(requests_and_refreshes_with_lost_packets()),
            None => run(on_a_narrow_link(
                "network::long::lost_packets_cost_no_request_and_no_login",
            )),
        }
    }

    #[test]
    #[ignore = "two minutes"]
    fn trouble_on_the_way_to_a_token_endpoint_ends_no_login() {
        run(trouble_on_the_way_to_a_token_endpoint());
    }

    #[test]
    #[ignore = "a minute"]
    fn trouble_on_the_way_to_a_platform_is_the_platforms() {
        run(trouble_on_the_way_to_a_platform());
    }
}
