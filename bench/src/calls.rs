//! The number of times that a request goes into and out of the VM: callbacks and hostcalls, as a build of the
//! filter that `scripts/count-hostcalls.py` made counts them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    task,
    time::{Instant, sleep},
};

use crate::{
    answers::{DIALECTS, Dialect},
    gateway::Gateway,
    load::{Answer, Callers},
};

/// The requests of each kind that are counted. The VM's own work at a tick is hardly seen then.
const REQUESTS: usize = 300;

/// The time for which the VM is watched without a request, to know what it does for none.
const IDLE: Duration = Duration::from_secs(2);

/// The beginning of the names of the counters.
const COUNTER: &str = "wasmcustom.calls.";

/// The beginning of the names of functions that Envoy calls; `malloc` makes room for what a hostcall returns.
const CALLBACKS: [&str; 2] = ["proxy_on_", "malloc"];

/// Less than this a request is the noise of ticks.
const NOISE: f64 = 0.05;

/// The number of times that each function was called, or is called for a request.
type Calls = BTreeMap<String, f64>;

/// The cost of one kind of request.
struct Column {
    title: String,
    calls: Calls,
}

/// Counts the crossings of each kind of request at `gateway`, and prints them.
///
/// # Errors
/// When an answer is not the platform's, or the gateway counts nothing.
pub async fn print(gateway: &Gateway, callers: &mut Callers) -> Result<()> {
    let admin = gateway.admin();
    let before = read(admin).await?;
    sleep(IDLE).await;
    let idle = since(&before, &read(admin).await?);
    let mut columns = Vec::new();
    for answer in [Answer::Json, Answer::Sse] {
        for dialect in DIALECTS {
            columns.push(measure(admin, callers, dialect, answer, &idle).await?);
        }
    }
    println!("Callbacks and hostcalls a request, of {REQUESTS} requests each:");
    println!();
    let titles: Vec<&str> = columns.iter().map(|column| &*column.title).collect();
    println!("| call | {} |", titles.join(" | "));
    println!("|---|{}", "--:|".repeat(columns.len()));
    let names: Vec<&String> = columns[0].calls.keys().collect();
    let (callbacks, hostcalls): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|name| CALLBACKS.iter().any(|start| name.starts_with(start)));
    for (group, names) in [("callbacks", callbacks), ("hostcalls", hostcalls)] {
        let sums = columns.iter().map(|column| {
            let calls = names.iter().filter_map(|name| column.calls.get(*name));
            format!("**{:.1}**", calls.sum::<f64>())
        });
        println!("| **{group}** | {} |", sums.collect::<Vec<_>>().join(" | "));
        for name in names {
            let of = |column: &Column| column.calls.get(name).copied().unwrap_or_default();
            if columns.iter().all(|column| of(column) < NOISE) {
                continue;
            }
            let cells = columns.iter().map(|column| format!("{:.1}", of(column)));
            let name = name.trim_start_matches("proxy_");
            println!("| `{name}` | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }
    Ok(())
}

async fn measure(
    admin: &Path,
    callers: &mut Callers,
    dialect: Dialect,
    answer: Answer,
    idle: &Calls,
) -> Result<Column> {
    let (start, before) = (Instant::now(), read(admin).await?);
    callers.repeat(dialect, answer, REQUESTS).await?;
    let (taken, mut calls) = (start.elapsed(), since(&before, &read(admin).await?));
    let idle_share = taken.as_secs_f64() / IDLE.as_secs_f64();
    for (name, count) in &mut calls {
        let unasked = idle.get(name).copied().unwrap_or_default() * idle_share;
        *count = (*count - unasked).max(0.0) / REQUESTS as f64;
    }
    let kind = match answer {
        Answer::Json => "JSON",
        Answer::Sse => "SSE",
    };
    Ok(Column {
        title: format!("{} {kind}", dialect.name()),
        calls,
    })
}

fn since(before: &Calls, after: &Calls) -> Calls {
    let difference = |(name, count): (&String, &f64)| {
        let earlier = before.get(name).copied().unwrap_or_default();
        (name.clone(), count - earlier)
    };
    after.iter().map(difference).collect()
}

/// The counters, from Envoy's admin interface at the socket `admin`.
async fn read(admin: &Path) -> Result<Calls> {
    let stream = UnixStream::connect(admin).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    task::spawn_local(connection);
    let request = Request::get(format!("/stats?filter={COUNTER}")).header("host", "admin");
    let page = sender
        .send_request(request.body(Empty::<Bytes>::new())?)
        .await?;
    let page = page.into_body().collect().await?.to_bytes();
    let calls = parse(std::str::from_utf8(&page)?);
    ensure!(
        !calls.is_empty(),
        "the filter counts no calls: scripts/count-hostcalls.py makes one that does"
    );
    Ok(calls)
}

fn parse(page: &str) -> Calls {
    let counter = |line: &str| {
        let (name, count) = line.strip_prefix(COUNTER)?.split_once(": ")?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    page.lines().filter_map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_others_are_not() {
        let page = "wasmcustom.calls.proxy_log: 12\nother: 3\n";
        assert_eq!(parse(page), Calls::from([("proxy_log".to_owned(), 12.0)]));
    }

    #[test]
    fn a_counter_that_is_new_began_at_none() {
        let after = Calls::from([("a".to_owned(), 5.0), ("b".to_owned(), 2.0)]);
        let difference = since(&Calls::from([("a".to_owned(), 3.0)]), &after);
        assert_eq!(difference["a"] + difference["b"], 4.0);
    }
}
