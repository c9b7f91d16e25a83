//! Metering: how many tokens an answer used, read while its bytes pass.
//!
//! A [`Meter`] sees each event of an answer's body and keeps none of it. It changes nothing, delays
//! nothing and never fails: an answer that it cannot read has no usage. Its result does not depend on
//! where the chunks are cut, every byte costs the same, and it holds no more than a few names of
//! [`MAX_NAME_BYTES`].
//!
//! # Estimates
//!
//! Where the platform reported no input, the input is estimated from the length of the request's body,
//! four bytes to a token. Where it reported no output, the output is estimated from the bytes of text
//! that passed. The record says that it is an estimate. So a caller that leaves early pays for what it
//! sent and saw. An image in base64 counts for more than a platform would charge: who wants the true
//! count reads the answer to its end. Nothing is estimated on a `free` endpoint, and nothing is charged
//! for what the platform refused or failed at. No request counts for more than [`MAX_TOKENS`].
//!
//! Two things no estimate can know: reasoning that a platform keeps to itself where the caller leaves
//! before the usage comes, and a `"background": true` in a body that the gate could not read.

mod answer;
mod usage;

use serde::{Deserialize, Serialize};

pub use self::{
    answer::MAX_NAME_BYTES,
    usage::{BODY_BYTES_PER_TOKEN, BYTES_PER_TOKEN, MAX_TOKENS, Usage},
};
use self::{
    answer::{Choices, Reader, Said},
    usage::Counts,
};
use crate::{
    dialect::{Dialect, EventKind},
    label::ModelName,
    text::sse::Piece,
};

/// The longest mark that ends a stream: `[DONE]`. One byte more tells that there is more.
const MAX_MARK_BYTES: usize = 6;

/// Reads one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    dialect: Dialect,
    /// The answer is an event stream, not one JSON text.
    is_sse: bool,
    reader: Reader,
    /// The first bytes of the event's data, enough to tell the mark that ends a stream.
    head: Vec<u8>,
    counts: Option<Counts>,
    /// The counts are those of `message_start`: the output has hardly begun.
    provisional: bool,
    text_bytes: u64,
    ended: bool,
    failed: bool,
}

/// The tokens that an answer used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// The tokens, or `None` where the platform reported none and there is nothing to charge.
    pub usage: Option<Usage>,
    /// The input or the output is not the platform's count but [`BODY_BYTES_PER_TOKEN`] bytes of
    /// the request each, or [`BYTES_PER_TOKEN`] bytes of text.
    pub estimate: bool,
    /// The model that the platform says it served.
    pub model: Option<ModelName>,
    /// The part of the answer that came.
    pub completeness: Completeness,
    /// The platform gave up in the middle: an `error` or `response.failed`.
    pub failed: bool,
}

/// The part of an answer that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Up to the mark that ends answers of its dialect: `[DONE]`, `message_stop`,
    /// `response.completed` (or `.incomplete` or `.failed`), the end of the JSON object.
    Whole,
    /// The body ended properly, but without that mark.
    Partial,
    /// The body did not come to its end: the platform, or the gateway, broke off.
    Cut,
    /// The caller went away before its end.
    Left,
}

// === impl Meter ===

impl Meter {
    /// Meters an answer of this dialect that is one JSON text. The body has to come without a
    /// content encoding.
    pub fn of_body(dialect: Dialect) -> Self {
        Self::new(dialect, Reader::of_body(dialect), false)
    }

    /// Meters an answer of this dialect that is an event stream.
    pub fn of_events(dialect: Dialect) -> Self {
        Self::new(dialect, Reader::of_events(dialect), true)
    }

    fn new(dialect: Dialect, reader: Reader, is_sse: bool) -> Self {
        Self {
            dialect,
            is_sse,
            reader,
            head: Vec::new(),
            counts: None,
            provisional: false,
            text_bytes: 0,
            ended: false,
            failed: false,
        }
    }

    /// Reads the next bytes of a JSON text, however many.
    pub fn on_json(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    /// Reads the next piece of an event stream.
    #[inline]
    pub fn on_token(&mut self, token: Piece<'_>) {
        match token {
            Piece::Data(piece) => self.on_data(piece),
            Piece::End => self.end_event(),
            Piece::Name { .. } | Piece::Comment | Piece::Blank => {}
        }
    }

    /// Returns true if the event, as far as it has come, reports usage and has no choices.
    pub fn event_is_usage_alone(&self) -> bool {
        let said = self.reader.said();
        said.choices == Choices::Empty && said.counts.is_some()
    }

    /// Returns true if the event may turn out to [report usage alone](Self::event_is_usage_alone).
    pub fn event_may_be_usage_alone(&self) -> bool {
        self.reader.said().choices != Choices::Some
    }

    /// Returns true if the event may turn out to be an error.
    pub fn event_may_fail(&self) -> bool {
        self.reader.said().kind != EventKind::Skipped
    }

    /// Returns true if the platform gave up in the middle.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The model that the platform says it served, as far as that has come.
    pub fn model(&self) -> Option<&ModelName> {
        self.reader.model()
    }

    /// Ends the answer and counts what it used. `end_of_stream`: the body came to its end, so that
    /// what it ends with counts as an event even without the blank line after it. `request_bytes`:
    /// how long the request's body was, which tells its input where the platform did not; 0 for a
    /// request that costs nothing.
    pub fn finish(mut self, end_of_stream: bool, request_bytes: u64) -> Metered {
        if self.is_sse && end_of_stream {
            self.end_event();
        } else {
            let said = self.reader.end();
            self.ended |= !self.is_sse && said.closed;
            self.take(said);
        }
        let completeness = match (self.ended, end_of_stream) {
            (true, _) => Completeness::Whole,
            (false, true) => Completeness::Partial,
            (false, false) => Completeness::Cut,
        };
        let reported = self.counts.map(|counts| counts.usage(self.dialect));
        let known = reported.unwrap_or_default();
        let mut usage = known;
        if self.is_charged() && !self.knows_input(known) {
            usage = usage.with_input_of(request_bytes);
        }
        if reported.is_none() || self.provisional {
            usage = usage.with_output_of(self.text_bytes);
        }
        let estimate = usage != known;
        Metered {
            usage: (estimate || reported.is_some()).then_some(usage),
            estimate,
            model: self.reader.take_model(),
            completeness,
            failed: self.failed,
        }
    }

    /// Returns true if the platform has said how long the prompt is. Some say 0 in `message_start`, and the truth at
    /// the end.
    fn knows_input(&self, known: Usage) -> bool {
        let said = self.counts.is_some_and(|counts| counts.say_input());
        said && (known.input > 0 || !self.provisional)
    }

    /// Returns true if a prompt is to be charged where the platform reported none: not for an error in place of an
    /// answer. That no text came tells nothing: an answer may be a vector, or come later.
    fn is_charged(&self) -> bool {
        self.text_bytes > 0 || !self.failed
    }

    fn on_data(&mut self, piece: &[u8]) {
        self.reader.push(piece);
        let room = MAX_MARK_BYTES
            .saturating_add(1)
            .saturating_sub(self.head.len());
        self.head
            .extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    fn end_event(&mut self) {
        if self.head.is_empty() {
            return; // No byte of data has come, so it says nothing.
        }
        let said = self.reader.end();
        self.ended |= match self.dialect.format().end_mark() {
            Some(mark) => self.head == mark,
            None => {
                let is_end = matches!(said.kind, EventKind::End | EventKind::Failed);
                said.closed && (is_end || said.finished)
            }
        };
        self.head.clear();
        self.take(said);
    }

    fn take(&mut self, said: Said) {
        self.failed |= said.failed || matches!(said.kind, EventKind::Error | EventKind::Failed);
        if let Some(counts) = said.counts {
            self.counts.get_or_insert_default().update(counts);
            let on_the_way = self.is_sse && self.dialect.format().counts_on_the_way();
            self.provisional = said.kind == EventKind::Start || on_the_way && !said.finished;
        }
        self.text_bytes = self.text_bytes.saturating_add(said.text_bytes);
    }
}

#[cfg(test)]
mod tests;
