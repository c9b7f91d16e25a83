//! An attempt: one try of one request on one account, in the account's cluster.
//!
//! It changes a body in this order, and an answer's in the order in which that comes back.
//!
//! | of a request | of its answer |
//! |---|---|
//! | the model that serves and what is demanded, or a translation | what the platform has around it is taken off: [`unwrap`](attempt::unwrap) |
//! | usage is asked for, where nothing is translated | the event with the usage is taken out: [`forwarding`](attempt::forwarding) |
//! | the platform's object goes around it | the credential is taken out: [`Mask`] |
//! | | the model that was asked for is named: [`asked_model`](attempt::asked_model); or it is translated |
//!
//! [`Sent`] has them side by side, and no one type has a variant for each: all but the translation, which excludes the
//! edits of the model and of the usage, go together in any choice, and each has its own place in this order.

mod forwarded;
mod sent;
mod unwrapped;

use self::{
    forwarded::Forwarded,
    sent::{Sent, put_headers},
    unwrapped::{Unwrapped, held_body, whole_body},
};
use super::{Event, gate::reply_with};
use crate::{
    attempt::{
        self, MAX_HELD_BYTES,
        answer::{Mask, is_answer},
        holding::{Came, Holding},
        request_bytes::RequestBytes,
        served_model::Another,
    },
    gate::Refusal,
    header::HeaderMap,
    host::{Action, Host, Side, Stream},
    label::ModelName,
    request::record,
    verdict::{Beginning, ErrorBody, InnerError, Look},
    worker::Worker,
};

/// The state machine of one attempt.
#[derive(Debug, Default)]
pub struct AttemptStream {
    sent: Option<Sent>,
    body: RequestBytes,
    held: Option<Holding>,
    /// The answer's headers as the platform sent them, until it is judged.
    head: HeaderMap,
    forwarded: Option<Forwarded>,
    /// Stays here where the request is to run again: Envoy, which may not be able to, lets the
    /// answer go on then. None before the answer is judged, and for a good one of a platform that
    /// does not take the credential in the query.
    mask: Option<Mask>,
    /// Takes off the answer what the platform has around it.
    unwrapped: Option<Unwrapped>,
    /// The headers of an answer came.
    has_answer: bool,
    /// A piece of its body came. Before that the proxy has nothing in whose place another one could be put, and the SDK crashes
    /// the VM of who tries.
    has_body: bool,
    /// The caller has an answer that is not the platform's: nothing more of this one goes on.
    is_answered: bool,
    /// The body in place of the platform's answer, of which nothing goes on, should Envoy not run the request
    /// again.
    instead: Option<Vec<u8>>,
}

/// The judgement of an answer, once enough has come to tell.
#[derive(Debug)]
enum Outcome {
    Good,
    /// Its status says an error.
    Error(ErrorBody),
    /// The answer is an error inside of HTTP 200.
    Failed(InnerError),
    /// The answer ended without content and without an error.
    Empty,
    /// The answer is of another model than was asked for: this one, if it is named.
    Another(Option<ModelName>),
}

// === impl Outcome ===

impl Outcome {
    /// Makes the outcome of an answer of which enough has come.
    fn of(looked: Result<Look, Another>) -> Self {
        match looked {
            Ok(Look::NeedMore | Look::Fine) => Self::Good,
            Ok(Look::Empty) => Self::Empty,
            Ok(Look::Error(failure)) => Self::Failed(failure),
            Err(Another(model)) => Self::Another(model),
        }
    }
}

// === impl AttemptStream ===

impl AttemptStream {
    /// Takes an event.
    pub fn on<H: Host>(
        &mut self,
        event: Event,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        match event {
            Event::RequestHeaders { end } => self.on_headers(end, worker, stream),
            Event::RequestBody { size, end } => self.on_body(size, end, worker, stream),
            // A body may end without its last piece saying so: what is held of it is all.
            Event::RequestTrailers => self.on_body(self.body.held(), true, worker, stream),
            Event::AnswerHeaders { end } => self.on_answer(end, worker, stream),
            Event::AnswerBody { size, end } => self.on_answer_body(size, end, worker, stream),
            Event::AnswerTrailers => {
                // What is kept of an object that is cut before its member goes nowhere: all else has gone on, and the proxy
                // has nothing in whose place it could be put.
                unwrapped::take(self.unwrapped.as_mut(), 0, true, stream);
                self.judge_held(Came::All, worker, stream);
                self.end_kept(worker, stream);
                self.finish(true, worker, Some(stream));
                Action::continue_if(!self.is_answered)
            }
        }
    }

    /// Returns true if it holds an answer that is judged after a while though nothing more comes.
    pub fn has_end(&self) -> bool {
        self.held.as_ref().is_some_and(Holding::has_end)
    }

    /// Returns true if the answer that it holds is to be judged now.
    pub fn is_due(&self, now: u64) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_due(now))
    }

    /// Judges the answer that is held by what has come of it. Returns false where nothing goes on yet.
    pub fn judge_now<H: Host>(&mut self, worker: &mut Worker<H>, stream: &mut impl Stream) -> bool {
        self.judge_held(Came::Enough, worker, stream)
    }

    /// Ends the attempt. Whoever went away first, the caller or the platform: an answer that is
    /// not at its end will not come to it.
    pub fn end<H: Host>(mut self, worker: &mut Worker<H>, stream: Option<&mut impl Stream>) {
        if let Some(sent) = self.sent.as_ref().filter(|sent| !sent.escape)
            && let Some(open) = worker.sent().get_mut(sent.try_id())
        {
            open.broke_off |= !self.body.is_whole();
            open.was_not_sent =
                !self.has_answer && stream.as_ref().is_some_and(|one| one.was_not_sent());
        }
        self.finish(false, worker, stream);
    }

    /// Puts the account's headers on the request. They go on with the first of the body, not
    /// before: Envoy takes a filter's request headers away once it lets them go alone, and they
    /// have to be put back before the request runs again.
    fn on_headers<H: Host>(
        &mut self,
        end: bool,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        if end {
            self.body.end();
        }
        match Sent::send(!end, worker, stream) {
            Ok(sent) => {
                if end && !sent.escape {
                    let now = worker.recently();
                    worker.sent().is_whole(sent.try_id(), now);
                }
                self.sent = Some(sent);
                Action::continue_if(end)
            }
            Err(refusal) => {
                reply_with(&Sent::unsent(&refusal, worker, stream), stream);
                Action::Pause
            }
        }
    }

    /// Lets the headers go with the first of the body, or with all of it where it has to be known.
    fn on_body<H: Host>(
        &mut self,
        size: usize,
        end: bool,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        let Some(sent) = &mut self.sent else {
            return Action::Continue;
        };
        if end {
            self.body.end();
        }
        if sent.escape {
            // Nothing of it goes there, and what is taken away Envoy does not count again.
            self.body.on_body(size, true);
            if size > 0 {
                stream.set_body(Side::Request, size, b"");
            }
            // The listener there answers at once, so it is asked when the request is whole.
            return Action::continue_if(!self.waits_for_body());
        }
        if end {
            let now = worker.recently();
            worker.sent().is_whole(sent.try_id(), now);
        }
        let now = worker.recently();
        let action = match sent.rewrite(size, end, now, stream) {
            Ok(action) => action,
            Err(reply) => {
                reply_with(&reply, stream);
                self.is_answered = true;
                return Action::Pause;
            }
        };
        self.body.on_body(size, action == Action::Continue);
        if let Some(open) = worker.sent().get_mut(sent.try_id()) {
            open.request_bytes = self.body.charged(sent.free);
        }
        action
    }

    /// Returns true if the request is not whole, and could run again were it so.
    fn waits_for_body(&self) -> bool {
        self.sent
            .as_ref()
            .is_some_and(|sent| sent.may_run_whole(&self.body))
    }

    /// Holds the answer back until its status, or the first of its body, says what to do about it.
    fn on_answer<H: Host>(
        &mut self,
        end: bool,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        self.has_answer = true;
        let Some(sent) = &mut self.sent else {
            return Action::Continue;
        };
        if sent.escape {
            return sent.unreachable(self.body, worker, stream);
        }
        sent.hide_query(stream);
        if cfg!(feature = "without-verdicts") {
            worker.sent().answered(sent.try_id());
            return Action::Continue;
        }
        let head = stream.headers(Side::Answer);
        sent.withhold(&head, stream);
        let status = std::str::from_utf8(head.first(":status").unwrap_or_default()).ok();
        let refusal = match status.and_then(|text| text.parse().ok()) {
            Some(attempt::ESCAPE_STATUS) if sent.has_escaped(stream) => {
                return sent.unreachable(self.body, worker, stream);
            }
            Some(status) if is_answer(status) => {
                let patience = worker.announcement_wait();
                let beginning = Beginning::new(sent.dialect, sent.expects_text(&head))
                    .of_type(head.first("content-type"));
                let held = Holding::new(status, beginning, patience, worker.recently())
                    .served_as(sent.take_served(&head));
                self.held = Some(held);
                if !end {
                    sent.take_off_the_bodys(&head, stream);
                }
                self.head = head;
                let unwrap = sent.unwrap.take();
                self.unwrapped =
                    unwrap.map(|one| Unwrapped::new(one, sent.key().clone(), worker.unwrapped()));
                if !end {
                    return Action::Pause;
                }
                self.judge(0, Came::All, worker, stream);
                self.finish(true, worker, Some(stream));
                return Action::continue_if(!self.is_answered);
            }
            // A redirect that is followed, or that a caller follows, could take a credential to
            // another host.
            Some(300..=399) => Refusal::Redirected,
            _ => Refusal::NoAnswer,
        };
        reply_with(&sent.refused(&refusal), stream);
        Action::Pause
    }

    fn on_answer_body<H: Host>(
        &mut self,
        size: usize,
        end: bool,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        self.has_body = true;
        if self.is_answered {
            return Action::Pause;
        }
        if self.held.is_none() && self.forwarded.is_none() && self.mask.is_none() {
            return Action::Continue;
        }
        let size = unwrapped::take(self.unwrapped.as_mut(), size, end, stream);
        let came = if end { Came::All } else { Came::Some };
        let Some(body) = self.judge(size, came, worker, stream) else {
            return Action::Pause;
        };
        let goes_on = self.show(&body, end, worker, stream);
        if end {
            self.finish(true, worker, Some(stream));
        }
        Action::continue_if(goes_on)
    }

    /// Judges the answer that is held, if one is. Returns false where nothing goes on yet.
    fn judge_held<H: Host>(
        &mut self,
        came: Came,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> bool {
        let Some(held) = &self.held else {
            return true;
        };
        let unwrapped = self.unwrapped.as_ref();
        let size = unwrapped.map_or_else(|| held.size(), Unwrapped::len);
        match self.judge(size, came, worker, stream) {
            Some(body) => self.show(&body, came == Came::All, worker, stream),
            // Where it is still held, time alone does not let it go.
            None => self.held.is_none(),
        }
    }

    /// Ends an answer that is kept until it can be translated whole.
    fn end_kept<H: Host>(&mut self, worker: &mut Worker<H>, stream: &mut impl Stream) {
        if self.forwarded.as_ref().is_some_and(Forwarded::is_kept) {
            self.show(&[], true, worker, stream);
        }
    }

    /// Judges an answer that is held back by what has come of its body, of which the proxy holds `size`
    /// bytes. Returns those that go on; none where more is needed, or the caller was answered.
    fn judge<H: Host>(
        &mut self,
        size: usize,
        came: Came,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Option<Vec<u8>> {
        let (Some(held), Some(sent)) = (&mut self.held, &self.sent) else {
            return Some(whole_body(self.unwrapped.as_mut(), size, stream));
        };
        let (seen, now) = (held.size(), worker.recently());
        let mut new = Vec::new();
        let outcome = if held.is_good() && sent.opaque {
            Outcome::Good
        } else if held.is_good() {
            // What the body begins with tells more than its type, and costs no hostcall.
            new = held_body(self.unwrapped.as_ref(), seen, size, stream);
            let looked = held.look(&new, size, came, now);
            match looked {
                Ok(Look::NeedMore) if has_room(held, self.unwrapped.as_mut(), sent, worker) => {
                    return None;
                }
                Ok(Look::NeedMore) => Outcome::of(held.look_no_more()),
                looked => Outcome::of(looked),
            }
        } else {
            held.grows(size, now);
            if came == Came::Some
                && size < MAX_HELD_BYTES
                && has_room(held, self.unwrapped.as_mut(), sent, worker)
            {
                return None;
            }
            let most = size.min(MAX_HELD_BYTES);
            let body = held_body(self.unwrapped.as_ref(), 0, most, stream);
            Outcome::Error(ErrorBody::read(&body))
        };
        let body = match seen {
            0 if new.len() == size && self.unwrapped.is_none() => new,
            _ => whole_body(self.unwrapped.as_mut(), size, stream),
        };
        worker.holds_answer(sent.try_id(), 0);
        let whole = (came == Came::All).then_some(body.as_slice());
        self.act_on(&outcome, whole, worker, stream);
        (!self.is_answered).then_some(body)
    }

    /// Acts on what an answer that was held turned out to be: has the request run again where another
    /// account could do better. Else the answer goes on, or the error that it has inside of it. `body`:
    /// all of it, where it is there.
    fn act_on<H: Host>(
        &mut self,
        outcome: &Outcome,
        body: Option<&[u8]>,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        let (Some(held), Some(sent)) = (self.held.take(), &self.sent) else {
            return;
        };
        let status = held.status();
        let good = matches!(outcome, Outcome::Good);
        // One text that is not at its end: no more of it may be held, and another account would send as much.
        let is_beyond =
            matches!(outcome, Outcome::Another(None)) && body.is_none() && held.is_json();
        let mut answer = held.into_answer();
        // What another model made is spent, though nobody gets it.
        let unused = match outcome {
            Outcome::Another(_) => answer.take(),
            _ => None,
        };
        let used = unused.and_then(|answer| {
            let open = worker.sent().get_mut(sent.try_id())?;
            Some(answer.finish(false, open.request_bytes))
        });
        let now = worker.now();
        let waits = self.waits_for_body();
        let can_run = (waits || self.body.is_whole()) && !is_beyond;
        let head = std::mem::take(&mut self.head);
        let verdict = sent.verdict(status, &head, outcome, worker);
        self.mask = Some(sent.mask());
        if let Some(next) = sent.judged(status, outcome, &verdict, can_run, worker) {
            let (mut status, mut body) = (status, body);
            if let Outcome::Another(_) = outcome
                && let Some(reply) = sent.instead(status, outcome, &verdict, now)
            {
                status = reply.status;
                put_headers(&reply, &head, stream);
                body = Some(self.instead.insert(reply.body.into_bytes()));
            }
            let runs = if waits {
                sent.run_again_when_whole(&next, status, body, worker, stream)
            } else {
                sent.run_again(&next, status, worker, stream)
            };
            if runs {
                if let Some(used) = &used {
                    worker.spent(sent.try_id(), used);
                }
                return;
            }
        }
        if let Some(reply) = sent.instead(status, outcome, &verdict, now) {
            let open = worker.sent().get_mut(sent.try_id());
            let record = open.and_then(|open| open.record.as_mut());
            if let (Some(used), Some(record)) = (used, record) {
                record.metered(used);
            }
            reply_with(&reply, stream);
            self.is_answered = true;
            return;
        }
        let Some(mut record) = worker.sent().answered(sent.try_id()) else {
            return;
        };
        if cfg!(feature = "without-metering") {
            return;
        }
        record.status = status;
        record.first_byte(now);
        let translated = sent.translates(outcome, status, stream);
        self.forwarded = Some(Forwarded::of(sent, record, good, translated, answer));
    }

    /// Shows the meter what goes on, masks it, and translates it. Returns false where nothing goes on yet, nor
    /// the headers.
    fn show<H: Host>(
        &mut self,
        body: &[u8],
        end: bool,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> bool {
        if !self.has_body {
            return true;
        }
        // The bytes of the proxy's whose place it takes.
        let size = match self.unwrapped {
            Some(_) => 0,
            None => body.len(),
        };
        if let Some(own) = &mut self.instead {
            stream.set_body(Side::Answer, size, &std::mem::take(own));
            return true;
        }
        let (mut instead, mut goes_on) = (None, true);
        let mut forwarded = self.forwarded.as_mut().zip(self.sent.as_ref());
        if let Some((forwarded, sent)) = &mut forwarded {
            instead = forwarded.meter(body, end, sent, worker);
        }
        if let Some(mask) = &mut self.mask {
            let text = instead.as_deref().unwrap_or(body);
            instead = mask.on_body(text, end).or(instead);
        }
        if let Some((forwarded, sent)) = forwarded {
            let text = instead.as_deref().unwrap_or(body);
            instead = forwarded.rename(text, end).or(instead);
            let text = instead.as_deref().unwrap_or(body);
            if let Some(translated) = forwarded.translate(text, end, sent, worker, stream) {
                (goes_on, instead) = (translated.goes_on, Some(translated.bytes));
            }
        }
        let is_unwrapped = self.unwrapped.is_some();
        if let Some(text) = instead.as_deref().or(is_unwrapped.then_some(body)) {
            stream.set_body(Side::Answer, size, text);
        }
        goes_on
    }

    /// Keeps the record of an answer that goes on; `end`: all of it has.
    fn finish<H: Host>(
        &mut self,
        end: bool,
        worker: &mut Worker<H>,
        stream: Option<&mut impl Stream>,
    ) {
        let (Some(forwarded), Some(sent)) = (self.forwarded.take(), &self.sent) else {
            return;
        };
        let charged = self.body.charged(sent.free);
        let left = !end && stream.as_ref().is_some_and(|stream| stream.caller_left());
        let mut record = forwarded.finish(end, charged, sent, worker);
        if left {
            record.left();
        }
        let record = record.ended(worker.now());
        if let Some(stream) = stream {
            stream.set_property(record::PROPERTY, &record.line());
        }
        worker.keep(record, sent.try_id());
    }
}

/// Counts what is held of an answer. Returns false where there is no room for it.
fn has_room<H: Host>(
    held: &Holding,
    unwrapped: Option<&mut Unwrapped>,
    sent: &Sent,
    worker: &mut Worker<H>,
) -> bool {
    let (taken, has_room) = unwrapped.map_or((0, true), |one| (one.taken(), one.has_room()));
    has_room && worker.holds_answer(sent.try_id(), taken.max(held.taken()))
}
