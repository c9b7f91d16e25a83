//! What long bodies and many streams take where they are translated: time, and memory that stays.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream::FuturesUnordered};
use http_body_util::{BodyExt, Full};
use hyper::{StatusCode, client::conn::http1::SendRequest};
use tokio::time::sleep;

use crate::{
    answers::Dialect,
    events::{HEADER, SLOW},
    gateway::Gateway,
    load::{Answer, Callers, request},
};

/// The length of the long body, in bytes.
const BODY_BYTES: usize = 20_000_000;

/// The times that it is sent.
const BODIES: usize = 5;

/// The streams that there are at the same time.
const STREAMS: usize = 1_000;

/// The time after which all of them are there, and none has ended.
const MIDDLE: Duration = Duration::from_secs(5);

/// Prints a line of the table for `gateway`.
///
/// # Errors
/// When an answer is not what it should be.
pub async fn print(gateway: &Gateway, mut callers: Callers) -> Result<()> {
    let mib = || anyhow::Ok(gateway.resident_kib()? / 1024);
    let name = &gateway.variant.name;
    let before = mib()?;
    let dialect = gateway.variant.fleet.dialect(0);
    let (mut cpu, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..BODIES {
        let (sent, spent) = (Instant::now(), gateway.cpu_time()?);
        let mut request = request(dialect, Answer::Json, callers.fleet, 0);
        let text = "1".repeat(BODY_BYTES);
        *request.body_mut() = Full::from(dialect.request_body(Answer::Json, 0, &text));
        let connection = &mut callers.connections[0];
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == StatusCode::OK && dialect.is_answer(&body),
            "{name}: {status}"
        );
        taken.push(sent.elapsed().as_millis());
        cpu.push((gateway.cpu_time()? - spent).as_millis());
    }
    taken.sort_unstable();
    cpu.sort_unstable();
    let (taken, cpu) = (taken[BODIES / 2], cpu[BODIES / 2]);
    let after_bodies = mib()?;

    let fleet = callers.fleet;
    let callers = Callers::connect(gateway.port, STREAMS, fleet).await?;
    let streams: FuturesUnordered<_> = callers
        .connections
        .into_iter()
        .enumerate()
        .map(|(number, connection)| stream(connection, fleet.dialect(0), fleet, number))
        .collect();
    let at_once = async {
        sleep(MIDDLE).await;
        mib()
    };
    let (streams, most) = tokio::join!(streams.try_collect::<Vec<()>>(), at_once);
    streams?;
    println!(
        "{name}: a body of 20 MB takes {taken} ms, {cpu} ms of them CPU (median of {BODIES}); memory {before} MiB, \
         {after_bodies} MiB after those, {} MiB with {STREAMS} streams",
        most?
    );
    Ok(())
}

async fn stream(
    mut connection: SendRequest<Full<Bytes>>,
    dialect: Dialect,
    fleet: crate::fleet::Fleet,
    number: usize,
) -> Result<()> {
    let mut request = request(dialect, Answer::Sse, fleet, number);
    let name = format!("{SLOW}{number}");
    request.headers_mut().insert(HEADER, name.parse()?);
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let deltas = body.windows(5).filter(|part| part == b"xxxxx").count();
    ensure!(
        status == StatusCode::OK && deltas > 0,
        "stream {number}: {status}, {}",
        String::from_utf8_lossy(body.get(..200).unwrap_or(&body))
    );
    Ok(())
}
