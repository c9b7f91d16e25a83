//! Measures how late the events of a stream come: the upstream writes the time into each, and the caller
//! looks at the clock when it has it. Both are this program, so it is one clock.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream::FuturesUnordered};
use http_body_util::BodyExt;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, Incoming},
};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    answers::Dialect,
    gateway::Gateway,
    load::{Answer, Callers, request},
    report::{Spread, quantile},
};

/// The header by which a caller asks for such a stream; what it says names the request. It gets
/// through the allow-list of the platform.
pub const HEADER: &str = "x-codex-paced";

/// The beginning of the name of a request whose first attempt is to fail.
pub const FAILS: &str = "fails-";

/// The time between two events, as fast as a model writes.
const PACE: Duration = Duration::from_millis(5);

/// The beginning of the name of a request whose stream lasts for seconds.
pub const SLOW: &str = "slow-";

/// The time between two events of it.
const SLOW_PACE: Duration = Duration::from_millis(50);

/// The number of events of a stream, and the length of each in bytes.
const EVENTS: (usize, usize) = (160, 160);

/// The streams that a gateway has at the same time.
const STREAMS: usize = 16;

/// The text before the time in an event.
const BEFORE: &str = r#"data: {"type":"response.output_text.delta","at":""#;

/// The moment that clocks here count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The events of one stream, each written when its time has come.
#[derive(Debug)]
pub struct Paced {
    left: usize,
    timer: Interval,
}

/// The delays of events at one gateway, one entry a round.
#[derive(Debug, Default)]
pub struct Delays {
    /// The name that the table has for it.
    pub name: String,
    rounds: Vec<Delay>,
    events: usize,
}

/// In microseconds.
#[derive(Debug, Clone, Copy)]
struct Delay {
    p50: f64,
    p99: f64,
}

/// Nanoseconds since the start of the program.
fn clock() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

// === impl Paced ===

impl Paced {
    /// A stream whose first event comes at once.
    pub fn start(name: &str) -> Self {
        let slow = name.starts_with(SLOW);
        let mut timer = interval(if slow { SLOW_PACE } else { PACE });
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            left: EVENTS.0,
            timer,
        }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.timer.poll_tick(context));
        self.left -= 1;
        let event = format!("{BEFORE}{:020}\",\"delta\":\"", clock());
        let end = "\"}\n\n";
        let event = format!("{event:x<0$}{end}", EVENTS.1 - end.len());
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

// === impl Delays ===

impl Delays {
    /// Of a gateway that the table calls so.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Has `callers` take streams from `gateway` for `duration`; `fails`: the first attempt of
    /// each request fails.
    ///
    /// # Errors
    /// When an answer is none of these streams.
    pub async fn measure(
        &mut self,
        gateway: &Gateway,
        callers: &mut Callers,
        fails: bool,
        duration: Duration,
    ) -> Result<()> {
        let mut late = streams(callers, fails, duration).await;
        let late = late
            .as_mut()
            .map_err(|error| anyhow::anyhow!("{}: {error:#}", gateway.variant.name))?;
        self.events += late.len();
        self.rounds.push(Delay {
            p50: quantile(late, 0.5),
            p99: quantile(late, 0.99),
        });
        Ok(())
    }

    fn over(&self, base: &Self, part: impl Fn(&Delay) -> f64) -> Spread {
        let rounds = self.rounds.iter().zip(&base.rounds);
        Spread::of(rounds.map(|(own, base)| part(own) - part(base)).collect())
    }

    fn median(&self, part: impl Fn(&Delay) -> f64) -> f64 {
        quantile(&mut self.rounds.iter().map(part).collect::<Vec<_>>(), 0.5)
    }
}

/// Prints how late events came, and how much later than at the first of `all`.
pub fn print(all: &[Delays]) {
    let Some(base) = all.first() else { return };
    println!(
        "Events: µs from the upstream's write to the caller's read; {STREAMS} streams at once, an \
         event each {} ms; median of the rounds (quartiles).",
        PACE.as_millis()
    );
    println!();
    println!("| gateway | events | p50 | p99 | added, p50 | added, p99 |");
    println!("|---|--:|--:|--:|--:|--:|");
    for delays in all {
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            delays.name,
            delays.events,
            delays.median(|delay| delay.p50),
            delays.median(|delay| delay.p99),
            delays.over(base, |delay| delay.p50),
            delays.over(base, |delay| delay.p99),
        );
    }
    println!();
    println!("The goal: no more than 1,000 µs added, p99.");
}

async fn streams(callers: &mut Callers, fails: bool, duration: Duration) -> Result<Vec<f64>> {
    let end = Instant::now() + duration;
    let fleet = callers.fleet;
    let start = callers.next;
    let active = callers.connections.iter_mut().take(STREAMS).enumerate();
    let runs: FuturesUnordered<_> = active
        .map(|(lane, connection)| async move {
            let mut late = Vec::new();
            let mut number = start + lane;
            while Instant::now() < end {
                let mut request = request(Dialect::Responses, Answer::Sse, fleet, number);
                let name = format!("{}{number}", if fails { FAILS } else { "" });
                request.headers_mut().insert(HEADER, name.parse()?);
                connection.ready().await?;
                let response = connection.send_request(request).await?;
                late.extend(read(response).await?);
                number += STREAMS;
            }
            anyhow::Ok((number, late))
        })
        .collect();
    let runs: Vec<_> = runs.try_collect().await?;
    callers.next = runs
        .iter()
        .map(|(number, _)| *number)
        .max()
        .unwrap_or(start);
    Ok(runs.into_iter().flat_map(|(_, late)| late).collect())
}

/// Reads a stream; how late each of its events came, in microseconds.
async fn read(response: Response<Incoming>) -> Result<Vec<f64>> {
    let status = response.status();
    ensure!(status == StatusCode::OK, "expected 200, found {status}");
    let mut body = response.into_body();
    let (mut bytes, mut late) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let now = clock();
        bytes.extend_from_slice(frame?.data_ref().map_or(&[], |data| data.as_ref()));
        while let Some(event) = bytes.get(late.len() * EVENTS.1..(late.len() + 1) * EVENTS.1) {
            let at = event.get(BEFORE.len()..BEFORE.len() + 20);
            let at = std::str::from_utf8(at.unwrap_or_default())?;
            let at: u64 = at.parse().context("an event without its time")?;
            late.push(now.saturating_sub(at) as f64 / 1e3);
        }
    }
    ensure!(
        late.len() == EVENTS.0,
        "expected {} events, found {}",
        EVENTS.0,
        late.len()
    );
    Ok(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_says_when_it_was_written() {
        let mut body = Paced::start("");
        let mut events = 0;
        let mut last = 0;
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert_eq!(data.len(), EVENTS.1);
            assert!(data.ends_with(b"\n\n"));
            let at = std::str::from_utf8(&data[BEFORE.len()..BEFORE.len() + 20]).unwrap();
            let at: u64 = at.parse().unwrap();
            assert!(last <= at && at <= clock());
            (last, events) = (at, events + 1);
        }
        assert_eq!(events, EVENTS.0);
    }

    #[test]
    fn what_is_added_is_of_the_same_round() {
        let delays = |p99: &[f64]| Delays {
            rounds: p99
                .iter()
                .map(|p99| Delay {
                    p50: 0.0,
                    p99: *p99,
                })
                .collect(),
            ..Delays::default()
        };
        let (base, own) = (
            delays(&[100.0, 900.0, 200.0]),
            delays(&[150.0, 950.0, 250.0]),
        );
        assert_eq!(own.over(&base, |delay| delay.p99).median, 50.0);
    }
}
