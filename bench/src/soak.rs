//! True if memory grows: a million requests and ten thousand changes of the snapshot through one
//! gateway.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{task, time};

use crate::{
    gateway::Gateway,
    load::{Answer, Callers},
};

/// The least number of requests that are sent.
const REQUESTS: usize = 1_000_000;

/// The number of times that an account gets another credential meanwhile.
const CHANGES: usize = 10_000;

/// The pause between two changes: all of them come well within the requests.
const PAUSE: Duration = Duration::from_millis(10);

/// The time for which each kind of answer is asked for in turn.
const TURN: [(Answer, Duration); 2] = [
    (Answer::Json, Duration::from_millis(1_600)),
    (Answer::Sse, Duration::from_millis(400)),
];

/// The share of the samples, from the start, in which memory may grow: caches fill, and V8
/// compiles what is hot anew.
const WARM_UP: f64 = 0.3;

/// Memory at a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    kib: f64,
}

/// Loads `gateway` and prints what its memory did.
///
/// # Errors
/// When it stops answering as it should.
pub async fn soak(gateway: &Gateway, mut callers: Callers, connections: usize) -> Result<()> {
    let records = gateway
        .records
        .as_ref()
        .context("a gateway with a filter")?;
    let (records, fleet) = (Rc::clone(records), gateway.variant.fleet);
    let changing = task::spawn_local(async move {
        for change in 0..CHANGES {
            let (account, generation) = (change % fleet.size, change / fleet.size + 2);
            records.push(fleet.account(account, generation));
            time::sleep(PAUSE).await;
        }
    });
    let (start, mut requests, mut samples) = (Instant::now(), 0, Vec::new());
    while requests < REQUESTS || !changing.is_finished() {
        for (answer, turn) in TURN {
            requests += callers.run(answer, connections, turn).await?.len();
        }
        samples.push(Sample {
            seconds: start.elapsed().as_secs_f64(),
            kib: gateway.resident_kib()? as f64,
        });
    }
    let warm = samples.split_off((samples.len() as f64 * WARM_UP) as usize);
    let [first, .., last] = &warm[..] else {
        anyhow::bail!("too few samples");
    };
    println!(
        "{requests} requests and {CHANGES} changes of the snapshot in {:.0} s",
        last.seconds
    );
    println!(
        "resident after the warm-up: {:.1} MiB at {:.0} s, {:.1} MiB at {:.0} s",
        first.kib / 1024.0,
        first.seconds,
        last.kib / 1024.0,
        last.seconds
    );
    println!(
        "slope: {:+.1} MiB an hour at that rate; the goal is below 1",
        slope(&warm) * 3_600.0 / 1024.0
    );
    Ok(())
}

/// KiB a second, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (seconds, kib) = (mean(|one| one.seconds), mean(|one| one.kib));
    let covariance: f64 = samples
        .iter()
        .map(|one| (one.seconds - seconds) * (one.kib - kib))
        .sum();
    let variance: f64 = samples
        .iter()
        .map(|one| (one.seconds - seconds).powi(2))
        .sum();
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let line = [0.0, 1.0, 2.0, 5.0].map(|seconds| Sample {
            seconds,
            kib: 100.0 + 3.0 * seconds,
        });
        assert!((slope(&line) - 3.0).abs() < 1e-9);
    }
}
