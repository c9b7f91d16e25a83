//! The counts that the Envoys tell the refresher, and its answer: `POST /counts`.
//!
//! The counts of a period are cumulative, and an answer gives sums of the others: a message that
//! is lost, late or repeated changes nothing.

use serde::{Deserialize, Serialize};

use super::{
    Counters, Period, Subject, Used,
    table::{self, Changed},
};
use crate::{deadline::Deadline, host::SharedData};

/// The milliseconds between two messages of an Envoy that counts.
pub const SETTLE_MS: u64 = 1_000;

/// The time after its last request for which a subject is asked about, in milliseconds.
const KEEN_MS: u64 = 5_000;

/// The most subjects of one message; the others wait for the next one.
pub const MAX_LINES: usize = 1_000;

/// The longest answer that is read, in bytes: [`MAX_LINES`] have 300 each.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The body of `POST /counts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Names the Envoy process: 32 hex digits.
    pub instance: String,
    /// Its counts, at most [`MAX_LINES`].
    pub subjects: Vec<Line>,
}

/// The answer: what the others counted of the same subjects. One that the refresher does not know
/// is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// A line for each.
    pub subjects: Vec<Line>,
}

/// One subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The account or key.
    #[serde(flatten)]
    pub subject: Subject,
    /// The amount.
    #[serde(flatten)]
    pub said: Said,
}

/// The use of one subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The use in the minute.
    pub minute: Span,
    /// The use in the day. Its bounds in an answer are those in the subject's time zone.
    pub day: Span,
    /// Requests under way.
    pub streams: u64,
}

/// A stretch of time and what was used in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its first millisecond, Unix time.
    pub start: u64,
    /// The first one after it.
    pub end: u64,
    /// Requests let through.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
}

/// Sends the messages of one Envoy, in the VM that has the lease.
#[derive(Debug, Default)]
pub struct Settler {
    /// The time at which the message in flight was made, in Unix milliseconds.
    in_flight: Option<u64>,
    due: Deadline,
}

// === impl Span ===

impl Span {
    /// Both counts.
    pub fn used(&self) -> Used {
        Used {
            requests: self.requests,
            tokens: self.tokens,
        }
    }

    /// A period's bounds with these counts.
    pub fn of(period: &Period, used: Used) -> Self {
        Self {
            start: period.start,
            end: period.end,
            requests: used.requests,
            tokens: used.tokens,
        }
    }
}

// === impl Settler ===

impl Settler {
    /// The body to send at `now`, if it is time and something is counted.
    pub fn next(&mut self, shared: &mut impl SharedData, now: u64) -> Option<String> {
        if self.in_flight.is_some() {
            return None;
        }
        if !self.due.is_due(now) {
            return None;
        }
        self.due = Deadline::after(now, SETTLE_MS);
        let mut counted = table::all(shared, now);
        counted.retain(|(_, counters)| is_worth_telling(counters, now));
        if counted.is_empty() {
            return None;
        }
        counted.sort_by_key(|(_, counters)| counters.settled_at);
        counted.truncate(MAX_LINES);
        let line = |(subject, counters): (Subject, Counters)| Line {
            subject,
            said: Said {
                minute: Span::of(&counters.minute, counters.minute.own),
                day: Span::of(&counters.day, counters.day.own),
                streams: counters.own_streams(),
            },
        };
        let body = serde_json::to_string(&Counts {
            instance: table::instance(shared),
            subjects: counted.into_iter().map(line).collect(),
        });
        self.in_flight = Some(now);
        body.ok()
    }

    /// Takes the answer to the message in flight; empty where it could not be sent.
    pub fn answered(&mut self, shared: &mut impl SharedData, status: &[u8], body: &[u8], now: u64) {
        let Some(sent_at) = self.in_flight.take() else {
            return;
        };
        if status != b"200" || body.len() > MAX_ANSWER_BYTES {
            return;
        }
        let others: Others = serde_json::from_slice(body).unwrap_or_default();
        for line in others.subjects.iter().take(MAX_LINES) {
            let _: Changed<()> = table::update(shared, &line.subject, now, |counters| {
                if counters.touched_at == 0 {
                    return Err(());
                }
                counters.learn(&line.said, sent_at, now);
                Ok(())
            });
        }
    }
}

/// Returns true if the refresher has not heard of all of it, or is to be asked about the others.
fn is_worth_telling(counters: &Counters, now: u64) -> bool {
    let keen = now.saturating_sub(counters.touched_at) < KEEN_MS;
    let untold = counters.touched_at >= counters.settled_at && !counters.is_idle(now);
    keen || untold || counters.own_streams() > 0
}
