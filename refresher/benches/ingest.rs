//! The cost of a recorded request to the refresher: the CPU of the whole process, from the bytes on the socket to the disk.
//!
//! `cargo bench -p refresher --profile daemon --bench ingest` sends batches of records, as an Envoy does, to the daemon's
//! routes on a Unix socket. The few instructions of the sender, which has its requests ready, are counted as well.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use latchkey::id::Id;
use refresher::envoy::socket::Socket;
use refresher::keys::KeySource;
use refresher::keys::file::KeyFile;
use refresher::listen;
use refresher::metrics::Metrics;
use refresher::state::StateDir;
use refresher::store::Store;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The records of a batch, and the batches: an idle Envoy, a busy one, and the largest batch that a filter sends.
const LOADS: [(usize, usize); 3] = [(1, 2_000), (20, 2_000), (500, 400)];
/// The batches before the measuring begins.
const WARM_UP: usize = 20;
/// Accounts, keys and models that the records speak of.
const NAMES: usize = 40;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    // A socket's path is short.
    let short = tempfile::tempdir()?;
    let state = StateDir::open(&folder.path().join("state"))?;
    let store = {
        let _lock = state.lock_setup()?;
        Store::open(&state, KeySource::Vault(Box::new(KeyFile(state.key())))).await?
    };
    let socket = short.path().join("socket");
    let shutdown = CancellationToken::new();
    let (_clusters, settled) = watch::channel(u64::MAX);
    let router = refresher::envoy::router(
        store.clone(),
        std::sync::Arc::new(|_, _| {}),
        settled,
        Metrics::default(),
        refresher::progress::Progress::default(),
        shutdown.clone(),
    );
    let answering = listen::serve(
        Socket::bind(&socket).await?,
        router,
        listen::SOCKET,
        shutdown,
    );
    tokio::select! {
        measured = measure(&socket) => measured,
        _ = answering => Err("the listener ended".into()),
        // As `serve` runs it.
        () = store.keep_log_short() => Err("the upkeep ended".into()),
    }
}

async fn measure(socket: &Path) -> Result<(), Box<dyn Error>> {
    println!("| records in a batch | CPU a record, µs | records a second |\n|--:|--:|--:|");
    let mut stream = UnixStream::connect(socket).await?;
    let mut number = 0;
    for (records, batches) in LOADS {
        let mut requests = (0..WARM_UP + batches).map(|_| {
            number += 1;
            request(number, records)
        });
        for request in requests.by_ref().take(WARM_UP) {
            send(&mut stream, &request).await?;
        }
        let requests: Vec<Vec<u8>> = requests.collect();
        let (cpu, begun) = (cpu_us()?, Instant::now());
        for request in &requests {
            send(&mut stream, request).await?;
        }
        let (cpu, elapsed) = (cpu_us()? - cpu, begun.elapsed());
        let all = (records * batches) as f64;
        let (each, rate) = (cpu as f64 / all, all / elapsed.as_secs_f64());
        println!("| {records} | {each:.1} | {rate:.0} |");
    }
    Ok(())
}

/// A batch as a filter sends it.
fn request(number: usize, records: usize) -> Vec<u8> {
    let records: Vec<_> = (0..records).map(|index| record(number, index)).collect();
    let body = json!({
        "batch": format!("{number:032x}"),
        "records": records,
        "begun": {"instance": "4e07408562bedb8b60ce05c1decfe3ad", "node": "edge-1", "requests": records.len()},
    });
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST /reports HTTP/1.1\r\nhost: refresher\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn record(batch: usize, index: usize) -> serde_json::Value {
    let of = |count: usize| (batch * 7 + index) % count;
    let id = format!("5f0c1b7e-90aa-4c6b-8e0e-{batch:06x}{index:06x}");
    json!({
        "at": 1_790_000_000_000_u64 + (batch * 1_000 + index) as u64,
        "id": Id::try_from(id.as_str()).ok(),
        "key": format!("key_3XPAQ7T2MZ4KW5{:02}", of(NAMES)),
        "pool": "default",
        "account": format!("acc_7YLZHXOICUOSHJ{:02}", of(NAMES)),
        "platform": "openai",
        "dialect": "responses",
        "asked": format!("gpt-5.{}", of(5)),
        "model": format!("gpt-5.{}-2026-08-07", of(5)),
        "status": 200,
        "verdict": "fine",
        "attempts": 1,
        "usage": {"input": 1_200, "output": 340, "cached_input": 1_024, "cache_write": 0, "reasoning": 128, "total": 1_540},
        "first_byte_ms": 412,
        "duration_ms": 6_230,
        "completeness": "whole",
    })
}

async fn send(stream: &mut UnixStream, request: &[u8]) -> Result<(), Box<dyn Error>> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the connection ended".into());
        }
    }
    if !answer.starts_with(b"HTTP/1.1 204") {
        return Err(String::from_utf8_lossy(&answer).into());
    }
    Ok(())
}

/// The CPU time of this process: its 14th and 15th field, in hundredths of a second (proc_pid_stat(5)).
fn cpu_us() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is a name, and may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(ticks * 10_000)
}
