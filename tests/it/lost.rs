//! Requests are recorded once, or begin and stay unrecorded, whoever dies: the refresher, Envoy, a VM of it, or an answer
//! on its way.

use std::{
    collections::HashMap,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use latchkey::sync::records::GATHER_MS;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::crash::faulty;
use crate::harness::{
    Caller, Load, Stack, caller::chat_body, eventually, holds, refresher::Refresher, run,
};
use crate::metering::RECORD_LIMIT;

const CHAT: &str = "/v1/chat/completions";

/// All that `refresher usage` knows, summed up: requests, input and output tokens.
async fn used(refresher: &Refresher) -> [u64; 3] {
    let text = refresher
        .run(&["usage", "--by", "key", "--since", "1d", "--json"], "")
        .await;
    let usage: Value = serde_json::from_str(&text).expect("JSON");
    let rows = usage["rows"].as_array().expect("rows").iter();
    rows.fold([0; 3], |[requests, input, output], row| {
        let number = |name: &str| row[name].as_u64().expect("a number");
        [
            requests + number("requests"),
            input + number("input"),
            output + number("output"),
        ]
    })
}

/// The number of requests that have begun, as `refresher usage` says, and of those that are recorded.
async fn begun(refresher: &Refresher) -> (u64, u64) {
    let text = refresher.run(&["usage", "--json"], "").await;
    let usage: Value = serde_json::from_str(&text).expect("JSON");
    let number = |name: &str| usage[name].as_u64().expect("a number");
    (number("begun"), number("recorded"))
}

/// A stack with one account.
async fn stack(name: &str, edit: fn(&str) -> String) -> Stack<Refresher> {
    Stack::real_edited(name, edit, async |sim, refresher| {
        let config = refresher.file("config.toml");
        let text = fs::read_to_string(&config).expect("the configuration");
        fs::write(config, edit(&text)).expect("written");
        sim.add_api_key("openai", "sk-one", "one").await;
        refresher.add_api_key("one", "openai", "sk-one").await;
    })
    .await
}

/// Begins so many streams that the platform never ends, and waits until the refresher has heard of them.
async fn endless_streams(
    stack: &Stack<Refresher>,
    caller: &Caller,
    count: usize,
) -> Vec<reqwest::Response> {
    let stall =
        json!({"target": "upstream", "path": CHAT, "stall_after_bytes": 900, "times": count});
    stack.sim.add_fault(stall).await;
    let streams = (0..count).map(|_| async {
        let mut stream = caller.begin(CHAT, &chat_body(true)).await;
        stream.chunk().await.expect("a stream").expect("an event");
        stream
    });
    let streams = join_all(streams).await;
    eventually(
        "the refresher has heard of them",
        RECORD_LIMIT,
        async || {
            let found = begun(&stack.refresher).await;
            holds(found == (count as u64, 0), || format!("{found:?}"))
        },
    )
    .await;
    streams
}

/// The longest time until the refresher has heard of a request that has begun: a second, the tick, and what a
/// busy machine adds for the batch before.
const HEARD: Duration = Duration::from_millis(GATHER_MS + 100 + 1_900);

/// Envoy is killed with streams under way and records that wait: what has begun and is not recorded are these, but for
/// those of the last moment, and it says so where a person and a machine look.
#[test]
fn requests_that_die_with_an_envoy_stay_unrecorded() {
    /// The number of streams that never end, and of those who ask at the same time beside them.
    const STREAMS: usize = 6;
    const CALLERS: usize = 4;
    run(async {
        let mut stack = stack("lost-envoy", str::to_owned).await;
        let caller = stack.caller("load").await;
        let streams = endless_streams(&stack, &caller, STREAMS).await;
        let ask_on = async || {
            let mut begun = Vec::new();
            loop {
                begun.push(Instant::now());
                if caller.try_post(CHAT, &chat_body(true)).await.is_err() {
                    return begun;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let envoy = &mut stack.envoy;
        let killing = async {
            sleep(HEARD + Duration::from_secs(1)).await;
            let at = Instant::now();
            envoy.kill().await;
            at
        };
        let asking = join_all((0..CALLERS).map(|_| ask_on()));
        let (killed_at, asked) = tokio::join!(killing, asking);
        drop(streams);
        let asked = asked.concat();
        let all = (STREAMS + asked.len()) as u64;
        let heard = asked.iter().filter(|at| **at + HEARD < killed_at);
        let heard = (STREAMS + heard.count()) as u64;
        assert!(heard > (STREAMS + CALLERS) as u64, "too few: {asked:?}");
        // What was on its way to the refresher is with it soon: it reads what a dead Envoy has sent.
        sleep(Duration::from_secs(1)).await;
        let (began, recorded) = begun(&stack.refresher).await;
        println!("{began} began, {recorded} recorded, {heard} heard of, {all} asked");
        assert!(
            (heard..=all).contains(&began),
            "{began} of {heard} to {all}"
        );
        assert_eq!(used(&stack.refresher).await[0], recorded);
        let unrecorded = began - recorded;
        assert!(unrecorded >= STREAMS as u64, "{unrecorded}");

        let table = stack.refresher.run(&["usage"], "").await;
        let line = format!("{unrecorded} more requests began and are not recorded");
        assert!(table.contains(&line), "{table}");
        let socket = stack.refresher.file("run/refresher.sock");
        let client = reqwest::Client::builder().unix_socket(socket).build();
        let page = client.expect("a client").get("http://refresher/metrics");
        let page = page.send().await.expect("an answer").text().await;
        let page = page.expect("a page");
        for (name, number) in [("begun", began), ("recorded", recorded)] {
            let name = format!("latchkey_requests_{name}_total{{node=\"latchkey\",");
            let line = page.lines().find(|line| line.starts_with(&name));
            let line = line.unwrap_or_else(|| panic!("no {name}: {page}"));
            assert!(line.ends_with(&format!("}} {number}")), "{line}");
        }

        // The next process has numbers of its own.
        stack.start_envoy(0).await;
        let caller = Caller::new(stack.envoy.port, caller.key());
        eventually("the key is taken", RECORD_LIMIT, async || {
            let answer = caller.get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        assert_eq!(caller.post(CHAT, &chat_body(true)).await.status, 200);
        eventually("it is counted", RECORD_LIMIT, async || {
            let found = begun(&stack.refresher).await;
            holds(found == (began + 1, recorded + 1), || format!("{found:?}"))
        })
        .await;
    });
}

/// A VM that crashes takes the requests with it that it had under way: they began and are not recorded.
#[test]
fn requests_that_die_with_a_vm_stay_unrecorded() {
    const STREAMS: usize = 6;
    run(async {
        let stack = stack("lost-vm", faulty).await;
        let caller = stack.caller("load").await;
        let streams = endless_streams(&stack, &caller, STREAMS).await;
        // Which worker a connection is for, the kernel decides: so many reach both.
        for _ in 0..40 {
            let poison = Caller::new(stack.envoy.port, "lk_poison");
            let headers = [("x-latchkey-crash", "1")];
            poison
                .try_send("GET", "/v1/models", &headers, "")
                .await
                .ok();
            sleep(Duration::from_millis(30)).await;
        }
        assert!(stack.envoy.crashes().await >= 2, "the poison did not work");
        drop(streams);
        eventually("others are served", RECORD_LIMIT, async || {
            let answer = caller.try_post(CHAT, &chat_body(true)).await;
            holds(
                matches!(&answer, Ok(answer) if answer.status == 200),
                || format!("{answer:?}"),
            )
        })
        .await;
        eventually("and recorded", RECORD_LIMIT, async || {
            let (begun, recorded) = begun(&stack.refresher).await;
            let unrecorded = begun - recorded;
            holds(unrecorded == STREAMS as u64 && recorded >= 1, || {
                format!("{begun} began, {recorded} recorded")
            })
        })
        .await;
    });
}

/// An Envoy that was only cut off, and comes back with what it had, has lost nothing; nor has one whose refresher was
/// away.
#[test]
fn what_comes_after_all_is_recorded() {
    const STREAMS: usize = 6;
    run(async {
        // As it is shipped, an Envoy that stands still for 5 s ends itself.
        let patient = |text: &str| text.replace("kill_timeout: 5s", "kill_timeout: 0s");
        let mut stack = stack("lost-cut-off", patient).await;
        let caller = stack.caller("load").await;
        let streams = endless_streams(&stack, &caller, STREAMS).await;
        stack.refresher.kill().await;
        // Longer than it waits for an answer, and the pause after it.
        sleep(Duration::from_secs(7)).await;
        stack.refresher.serve().await;
        stack.envoy.pause();
        sleep(Duration::from_secs(7)).await;
        assert_eq!(begun(&stack.refresher).await, (STREAMS as u64, 0));
        stack.envoy.go_on();
        drop(streams);
        let all = (STREAMS as u64, STREAMS as u64);
        eventually("each is recorded once", RECORD_LIMIT, async || {
            let found = begun(&stack.refresher).await;
            holds(found == all, || format!("{found:?}"))
        })
        .await;
        assert_eq!(used(&stack.refresher).await[0], STREAMS as u64);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// The refresher is killed again and again while requests come, in the middle of whatever it does, and then stays away
/// for longer than Envoy waits for an answer and pauses: when it is back it has every request, each once.
#[test]
fn a_refresher_that_dies_loses_no_request_and_counts_none_twice() {
    run(async {
        let mut stack = Stack::real("metering-kill", async |sim, refresher| {
            sim.add_api_key("openai", "sk-one", "one").await;
            refresher.add_api_key("one", "openai", "sk-one").await;
        })
        .await;
        let caller = stack.caller("load").await;
        let load = Load::start(caller, CHAT, chat_body(true), 20);
        for pause in [900, 1_010, 1_120, 1_230] {
            sleep(Duration::from_millis(pause)).await;
            stack.refresher.kill().await;
            stack.refresher.serve().await;
        }
        stack.refresher.kill().await;
        sleep(Duration::from_secs(15)).await;
        stack.refresher.serve().await;
        let outcomes = load.stop().await;
        let sent = outcomes.len() as u64;
        assert!(sent > 200, "only {sent} requests");
        let good = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Ok(answer) if answer.status == 200));
        assert_eq!(
            good.count() as u64,
            sent,
            "the refresher is not needed for a request"
        );
        let expected = [
            sent,
            stack.sim.count("input_tokens").await,
            stack.sim.count("output_tokens").await,
        ];
        eventually(
            "every request is counted",
            Duration::from_secs(30),
            async || {
                let found = used(&stack.refresher).await;
                holds(found == expected, || format!("{found:?}, not {expected:?}"))
            },
        )
        .await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(used(&stack.refresher).await, expected, "and none twice");
        assert_eq!(stack.envoy.stat("latchkey.records_dropped").await, 0);

        let table = stack.refresher.run(&["usage", "--by", "account"], "").await;
        let line = table.lines().find(|line| line.starts_with("one "));
        let line = line.unwrap_or_else(|| panic!("no account: {table}"));
        let line = line.replace(',', "");
        assert!(line.contains(&format!(" {sent} ")), "{table}");
        let table = stack.refresher.run(&["usage", "--by", "model"], "").await;
        assert!(table.contains("gpt-5.6"), "{table}");
    });
}

/// The number of requests of each model that `refresher usage` knows.
async fn used_by_model(refresher: &Refresher) -> HashMap<String, u64> {
    let text = refresher
        .run(&["usage", "--by", "model", "--since", "1d", "--json"], "")
        .await;
    let usage: Value = serde_json::from_str(&text).expect("JSON");
    let rows = usage["rows"].as_array().expect("rows").iter();
    let row = |row: &Value| {
        let model = row["group"].as_str()?.to_owned();
        Some((model, row["requests"].as_u64()?))
    };
    rows.filter_map(row).collect()
}

/// Envoy is killed again and again while requests come. Lost are those alone whose answers ended within the time that
/// records are gathered before it was killed, and none is counted twice.
#[test]
fn an_envoy_that_dies_loses_about_a_seconds_requests_and_counts_none_twice() {
    /// The time for which records are gathered, and the tick that sends them.
    const GATHERED: Duration = Duration::from_millis(GATHER_MS + 100);
    /// The time that a quiet machine adds until the refresher has them: the batch before them, and their own. One round of all
    /// must be as good.
    const SENT: Duration = Duration::from_millis(400);
    /// And a busy one.
    const SENT_LATE: Duration = Duration::from_millis(1_900);
    /// The number of those who ask at the same time.
    const CALLERS: usize = 4;
    run(async {
        let mut stack = Stack::real("metering-envoy-kill", async |sim, refresher| {
            sim.add_api_key("openai", "sk-one", "one").await;
            refresher.add_api_key("one", "openai", "sk-one").await;
        })
        .await;
        let mut caller = stack.caller("load").await;
        // Each request has a model of its own, by which it is known.
        let numbers = AtomicUsize::new(0);
        let ask = async |caller: &Caller| {
            let model = format!("m-{}", numbers.fetch_add(1, Ordering::Relaxed));
            let mut body = chat_body(true);
            body["model"] = model.as_str().into();
            let answer = caller.try_post(CHAT, &body).await.ok()?;
            assert_eq!(answer.status, 200, "{answer:?}");
            Some((model, Instant::now()))
        };
        let ask_on = async |caller: &Caller| {
            let mut answered = Vec::new();
            while let Some(one) = ask(caller).await {
                answered.push(one);
                sleep(Duration::from_millis(10)).await;
            }
            answered
        };
        let mut rounds = Vec::new();
        for pause in [4_000, 4_310, 4_640] {
            let envoy = &mut stack.envoy;
            let killing = async {
                sleep(Duration::from_millis(pause)).await;
                let at = Instant::now();
                envoy.kill().await;
                at
            };
            let asking = join_all((0..CALLERS).map(|_| ask_on(&caller)));
            let (killed_at, answered) = tokio::join!(killing, asking);
            rounds.push((killed_at, answered.concat()));
            stack.start_envoy(0).await;
            caller = Caller::new(stack.envoy.port, caller.key());
            eventually("the key is taken", RECORD_LIMIT, async || {
                let answer = caller.get("/v1/models").await;
                holds(answer.status == 200, || format!("{answer:?}"))
            })
            .await;
        }
        let mut last = Vec::new();
        for _ in 0..20 {
            last.push(ask(&caller).await.expect("an answer").0);
        }
        let used = eventually("the last are counted", RECORD_LIMIT, async || {
            let used = used_by_model(&stack.refresher).await;
            let missing = last.iter().find(|model| !used.contains_key(*model));
            missing.map_or(Ok(used), |model| Err(format!("no {model}")))
        })
        .await;
        let twice = used.iter().find(|(_, requests)| **requests != 1);
        assert_eq!(twice, None, "counted twice");
        let mut worst = Vec::new();
        for (killed_at, answered) in &rounds {
            let before = |at: &Instant| killed_at.saturating_duration_since(*at);
            let safe = answered
                .iter()
                .filter(|(_, at)| before(at) > GATHERED + SENT_LATE);
            assert!(safe.count() > CALLERS, "too few requests: {answered:?}");
            let lost = answered
                .iter()
                .filter(|(model, _)| !used.contains_key(model));
            let (count, all) = (lost.clone().count(), answered.len());
            let earliest = lost.map(|(_, at)| before(at)).max().unwrap_or_default();
            println!("lost {count} of {all}, the first {earliest:?} before the kill");
            worst.push(earliest);
        }
        let late = worst.iter().find(|one| **one > GATHERED + SENT_LATE);
        assert_eq!(late, None, "lost although it had been there so long");
        let best = worst.iter().min().expect("rounds");
        assert!(*best <= GATHERED + SENT, "{worst:?}");
    });
}

/// A batch whose answer was lost comes again as it was, under the id by which the refresher knows it.
#[test]
fn a_batch_that_was_not_acknowledged_is_sent_again_as_it_was() {
    run(async {
        let stack = Stack::start("lost-batch").await;
        let caller = stack.caller("openai");
        stack.refresher.lose_answers(true);
        for _ in 0..5 {
            assert_eq!(caller.post(CHAT, &chat_body(true)).await.status, 200);
        }
        eventually("batches come again", RECORD_LIMIT, async || {
            let batches = stack.refresher.reports();
            holds(batches.len() >= 4, || format!("{batches:?}"))
        })
        .await;
        stack.refresher.lose_answers(false);
        assert_eq!(caller.post(CHAT, &chat_body(true)).await.status, 200);
        let by_id = async || {
            let mut by_id = std::collections::BTreeMap::new();
            for batch in stack.refresher.reports() {
                let id = batch["batch"].as_str().expect("an id").to_owned();
                let first = by_id.entry(id).or_insert_with(|| batch.clone());
                assert_eq!(*first, batch, "as it was");
            }
            by_id
        };
        eventually("every record arrives", RECORD_LIMIT, async || {
            let batches = by_id().await;
            let records = batches
                .values()
                .filter_map(|batch| batch["records"].as_array());
            let count: usize = records.map(Vec::len).sum();
            holds(count == 6, || format!("{count}: {batches:?}"))
        })
        .await;
    });
}
