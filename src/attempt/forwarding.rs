//! An answer on its way to the caller: read as its bytes go by, and changed only where the gateway
//! itself made the platform say more than the caller asked for.
//!
//! # Passes over the bytes
//!
//! The meter, the event that is taken out ([`UsageAsk`]) and the search for an error in the middle go by one framing of
//! the bytes. So does the model of an answer that is held until it names that: what was read ahead is not read again
//! ([`Forwarding::read_ahead`]). Others read an answer for themselves:
//!
//! | reader | what it reads | why it is none of this pass |
//! |---|---|---|
//! | [`Unwrap`](super::unwrap::Unwrap) | what a platform wraps | All others read what it leaves. |
//! | [`Beginning`](verdict::Beginning) | what is held, mostly the first piece | It decides if there is an answer that goes on, and passes over all that an event repeats. |
//! | [`MadeReader`](super::made::MadeReader) | what is kept at the platform, 256 KiB at most | It reads answers that nobody meters, too. |
//! | [`AskedModel`](super::asked_model::AskedModel) | what another model serves than was asked for | It changes what is left of an answer here, without the credential. |
//! | [`AnswerTranslation`](crate::dialect::AnswerTranslation) | what is translated | It reads the same. |

use std::{borrow::Cow, ops::Range};

use super::usage_ask::UsageAsk;
use crate::{
    dialect::Dialect,
    label::ModelName,
    meter::{Completeness, Meter, Metered, Usage},
    text::{
        kind::{BodyKind, Start},
        sse::{Framer, Piece},
    },
    verdict::{self, ErrorBody},
};

/// The most bytes that are kept of an event that comes in several chunks. Errors have less than
/// 4 KiB, and the event that may have to be taken out a few hundred bytes: a larger event is
/// neither.
pub const MAX_EVENT_BYTES: usize = 16 * 1024;

/// The body of a good answer.
#[derive(Debug)]
pub struct Forwarding {
    dialect: Dialect,
    usage_ask: UsageAsk,
    body: Body,
    failure: Option<ErrorBody>,
    /// The number of bytes that were read ahead.
    ahead: usize,
    /// Not all of these are to go on as they came.
    is_ahead_changed: bool,
}

/// The two kinds of answers. Their readers are large, and stay where they are while what holds the answer changes.
#[derive(Debug)]
enum Body {
    /// Nothing has come that tells: what is kept of it is held back.
    Unknown(Start),
    /// One JSON text.
    Json(Box<Meter>),
    /// An event stream.
    Events(Box<Events>),
    /// Neither, such as sound.
    Other,
}

/// An event stream.
#[derive(Debug)]
struct Events {
    dialect: Dialect,
    usage_ask: UsageAsk,
    framer: Framer,
    meter: Meter,
    /// The bytes of the event that has not ended, from earlier chunks.
    begun: Vec<u8>,
    state: State,
    /// After a CR that ended an event: true if that event was taken out. A LF that follows
    /// belongs to it and goes the same way.
    after_cr: Option<bool>,
    has_failed: bool,
}

/// The fate of the beginning of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The event went on, and was kept besides: it may be an error.
    Kept,
    /// The event was held back: it may have to be taken out.
    Held,
    /// The event went on, and was not kept.
    Gone,
}

/// A chunk, without what is cut out of it.
struct Edit<'a> {
    chunk: &'a [u8],
    /// The bytes that go on instead of those before `done`; none while nothing was changed.
    out: Option<Vec<u8>>,
    done: usize,
}

// === impl Forwarding ===

impl Forwarding {
    /// Makes that of an answer of this dialect.
    pub fn new(dialect: Dialect, usage_ask: UsageAsk) -> Self {
        Self {
            dialect,
            usage_ask,
            body: Body::Unknown(Start::default()),
            failure: None,
            ahead: 0,
            is_ahead_changed: false,
        }
    }

    /// Reads the next bytes of an answer that is held. All of them come again when it goes on.
    pub fn read_ahead(&mut self, new: &[u8]) {
        self.is_ahead_changed |= self.on_new(new, false).is_some();
        self.ahead = self.ahead.saturating_add(new.len());
    }

    /// Returns true if the answer goes on from where it was read ahead to. One of which not all is to go on as it came
    /// is read from its beginning instead.
    pub fn goes_on_from_here(&self, usage_ask: UsageAsk) -> bool {
        self.usage_ask == usage_ask && !self.is_ahead_changed
    }

    /// Reads the next bytes; `end`: they are the last. Returns what goes on instead of them, or
    /// none if just these do.
    pub fn on_body(&mut self, chunk: &[u8], end: bool) -> Option<Vec<u8>> {
        let ahead = std::mem::take(&mut self.ahead);
        let (read, new) = chunk.split_at_checked(ahead).unwrap_or((chunk, &[]));
        let instead = self.on_new(new, end)?;
        Some(match read {
            [] => instead,
            read => [read, &instead].concat(),
        })
    }

    /// Reads the next bytes that were not read ahead.
    #[inline(never)]
    fn on_new(&mut self, chunk: &[u8], end: bool) -> Option<Vec<u8>> {
        let Body::Unknown(start) = &mut self.body else {
            return self.on_known(chunk, 0, end);
        };
        let told = match start.forward(chunk, end) {
            Ok(told) => told,
            Err(instead) => return instead,
        };
        self.body = match told.kind {
            BodyKind::Json => Body::Json(Box::new(Meter::of_body(self.dialect))),
            BodyKind::Events => Body::Events(Box::new(Events::new(self.dialect, self.usage_ask))),
            BodyKind::Other => Body::Other,
        };
        let instead = self.on_known(&told.bytes, told.blank, end);
        told.instead(instead)
    }

    /// Reads the next bytes of an answer of a kind that is known, of which the first `blank` say nothing.
    fn on_known(&mut self, chunk: &[u8], blank: usize, end: bool) -> Option<Vec<u8>> {
        match &mut self.body {
            Body::Unknown(_) | Body::Other => None,
            Body::Json(meter) => {
                meter.on_json(chunk.get(blank..).unwrap_or_default());
                None
            }
            Body::Events(events) => {
                let mut edit = Edit::of(chunk);
                let failure = events.on_body(&mut edit, blank, end);
                self.failure = failure.or(self.failure.take());
                edit.finish()
            }
        }
    }

    /// Takes out what the platform said when it gave up in the middle.
    pub fn take_failure(&mut self) -> Option<ErrorBody> {
        self.failure.take()
    }

    /// The model that it says has served it, as far as that has come.
    pub fn model(&self) -> Option<&ModelName> {
        match &self.body {
            Body::Json(meter) => meter.model(),
            Body::Events(events) => events.meter.model(),
            Body::Unknown(_) | Body::Other => None,
        }
    }

    /// Returns true if the answer is one JSON text, or may turn out to be.
    pub fn is_json(&self) -> bool {
        matches!(self.body, Body::Unknown(_) | Body::Json(_))
    }

    /// Ends the answer; `end`: its body came to its end. Returns what it used. `request_bytes` is
    /// the length of the request's body, 0 where it costs nothing.
    pub fn finish(self, end: bool, request_bytes: u64) -> Metered {
        match self.body {
            Body::Json(meter) => meter.finish(end, request_bytes),
            Body::Events(events) => events.meter.finish(end, request_bytes),
            Body::Unknown(_) | Body::Other => {
                let usage = Usage::of_request(request_bytes);
                Metered {
                    usage,
                    estimate: usage.is_some(),
                    model: None,
                    completeness: completeness(end),
                    failed: false,
                }
            }
        }
    }

    /// The bytes that are kept of an event that has not ended.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        match &self.body {
            Body::Events(events) => events.begun.len(),
            Body::Unknown(_) | Body::Json(_) | Body::Other => 0,
        }
    }
}

/// The part that came of an answer that is not metered.
pub fn completeness(end: bool) -> Completeness {
    if end {
        Completeness::Whole
    } else {
        Completeness::Cut
    }
}

// === impl Events ===

impl Events {
    fn new(dialect: Dialect, usage_ask: UsageAsk) -> Self {
        Self {
            dialect,
            usage_ask,
            framer: Framer::default(),
            meter: Meter::of_events(dialect),
            begun: Vec::new(),
            state: State::Kept,
            after_cr: None,
            has_failed: false,
        }
    }

    /// Reads the bytes of a chunk after the first `blank` ones; `end`: they are the last. Returns
    /// the error of an event that has ended, if one was the first.
    fn on_body(&mut self, edit: &mut Edit<'_>, blank: usize, end: bool) -> Option<ErrorBody> {
        let chunk = edit.chunk;
        let mut rest = chunk.get(blank..).unwrap_or_default();
        let mut event = blank..blank;
        if let Some(first) = rest.first()
            && let Some(was_taken_out) = self.after_cr.take()
            && *first == b'\n'
        {
            event.end = event.end.saturating_add(1);
            if was_taken_out {
                edit.cut(event.clone());
            }
            event.start = event.end;
        }
        let mut failure = None;
        while let Some(token) = self.framer.next(&mut rest) {
            if !matches!(token, Piece::End | Piece::Blank) {
                self.meter.on_token(token);
                continue;
            }
            event.end = chunk.len().saturating_sub(rest.len());
            let ends_in_cr = chunk
                .get(..event.end)
                .is_some_and(|text| text.ends_with(b"\r"));
            if ends_in_cr && rest.first() == Some(&b'\n') {
                event.end = event.end.saturating_add(1);
            }
            if token == Piece::Blank {
                self.after_cr = (ends_in_cr && rest.is_empty()).then_some(false);
                event.start = event.end;
                continue;
            }
            let is_taken_out = self.is_taken_out(&event);
            self.let_go(edit, &event, is_taken_out);
            self.after_cr = (ends_in_cr && rest.is_empty()).then_some(is_taken_out);
            self.meter.on_token(token);
            if self.meter.has_failed() && !self.has_failed {
                self.has_failed = true;
                failure = self.failure(edit.chunk, &event);
            }
            self.begun.clear();
            self.state = State::Kept;
            event.start = event.end;
        }
        event.end = chunk.len();
        if end {
            let is_taken_out = self.is_taken_out(&event);
            self.let_go(edit, &event, is_taken_out);
            if !self.has_failed {
                // Without the blank line after it, an error is not yet known to be one.
                failure = self.failure(edit.chunk, &event);
                self.has_failed = true;
            }
        } else if !event.is_empty() {
            self.keep(edit, event);
        }
        failure
    }

    /// Returns true if the event that ends with `range` was asked for here and is taken out.
    fn is_taken_out(&self, range: &Range<usize>) -> bool {
        self.state != State::Gone
            && self.size_with(range) <= MAX_EVENT_BYTES
            && self.usage_ask.takes_out(&self.meter)
    }

    /// Lets an event go on, of which `range` is the end, or has it taken out.
    fn let_go(&mut self, edit: &mut Edit<'_>, range: &Range<usize>, is_taken_out: bool) {
        if is_taken_out {
            edit.cut(range.clone());
        } else if self.state == State::Held {
            edit.put_first(&self.begun);
        }
    }

    /// Keeps what came of an event that has not ended, of which `range` is the last.
    fn keep(&mut self, edit: &mut Edit<'_>, range: Range<usize>) {
        let fits = self.size_with(&range) <= MAX_EVENT_BYTES;
        let may_be_taken_out =
            self.state != State::Gone && fits && self.usage_ask.may_take_out(&self.meter);
        let piece = edit.chunk.get(range.clone()).unwrap_or_default();
        if may_be_taken_out {
            edit.cut(range);
            self.begun.extend_from_slice(piece);
            self.state = State::Held;
            return;
        }
        self.let_go(edit, &range, false);
        let may_fail = !self.has_failed && self.meter.event_may_fail();
        if self.state == State::Gone || !fits || !may_fail {
            self.begun.clear();
            self.state = State::Gone;
        } else {
            self.begun.extend_from_slice(piece);
            self.state = State::Kept;
        }
    }

    fn size_with(&self, range: &Range<usize>) -> usize {
        self.begun.len().saturating_add(range.len())
    }

    /// The error that an event is, of which `range` is the end.
    fn failure(&self, chunk: &[u8], range: &Range<usize>) -> Option<ErrorBody> {
        let end = chunk.get(range.clone()).unwrap_or_default();
        let event = if self.begun.is_empty() {
            Cow::Borrowed(end)
        } else {
            Cow::Owned([&self.begun, end].concat())
        };
        let fits = self.state != State::Gone && event.len() <= MAX_EVENT_BYTES;
        fits.then(|| verdict::failure(self.dialect, &event))?
    }
}

// === impl Edit ===

impl<'a> Edit<'a> {
    fn of(chunk: &'a [u8]) -> Self {
        Self {
            chunk,
            out: None,
            done: 0,
        }
    }

    /// Cuts out a range behind those that were cut out before.
    fn cut(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.copy_to(range.start);
            self.done = range.end;
        }
    }

    /// Puts bytes before the chunk, of which nothing was cut out yet.
    fn put_first(&mut self, bytes: &[u8]) {
        self.out.get_or_insert_default().extend_from_slice(bytes);
    }

    fn copy_to(&mut self, end: usize) {
        let piece = self.chunk.get(self.done..end).unwrap_or_default();
        self.out.get_or_insert_default().extend_from_slice(piece);
    }

    /// The bytes that go on, or none if they are the chunk itself.
    fn finish(mut self) -> Option<Vec<u8>> {
        if self.out.is_some() {
            self.copy_to(self.chunk.len());
        }
        self.out
    }
}

#[cfg(test)]
mod tests;
