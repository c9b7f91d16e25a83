//! The gate's side of one try of one request.
//!
//! A request with a body stops at its headers until the gate has read what it needs of the body.
//! Envoy then calls for each piece of the body and keeps what was not let go, which only happens
//! where the plugin sets `allow_on_headers_stop_iteration`.

mod coded;
mod standing;

use self::{
    coded::{Coded, Plain},
    standing::Look,
};
use super::Event;
use crate::{
    attempt::{EARLY_STATUS, ESTIMATE_HEADER, REDIRECT_STATUS, STATUS_HEADER},
    budget::{KeyName, NoRoom},
    decode::Fault,
    gate::{CLUSTER_HEADER, Decision, Forward, Refusal, Reply, Request, refusal::ERROR_HEADER},
    host::{Action, Host, Side, Stream},
    meter::Completeness,
    request::{
        body::BodyReader,
        carried::{self, Carried},
        peek::{Facts, MAX_PEEK_BYTES},
        record::{self, FROM_ENVOY, RequestRecord},
    },
    verdict::Reason,
    worker::{
        Worker,
        waiting::{MAX_START_BYTES, MAX_START_PIECES},
    },
};

/// The header that Envoy itself sets on a request that it runs again.
const RUN_AGAIN_HEADER: &str = "x-envoy-original-url";

/// The header of an answer after which the connection is to be closed. A filter in `envoy/envoy.yaml` does so, and takes
/// the header off.
const CLOSE_HEADER: &str = "x-latchkey-close";

/// The header by which the router gives an attempt up, if nothing of its answer has gone on for so many
/// milliseconds since the request was whole. Its retry goes to the escape listener, as where there is no
/// answer at all.
const FIRST_EVENT_HEADER: &str = "x-envoy-upstream-rq-per-try-timeout-ms";

/// The state machine of one try of one request at the gate.
#[derive(Debug)]
pub struct GateStream {
    context: u32,
    stage: Stage,
    /// The bytes of the body that the proxy held at the last call, all of which wait here.
    held: usize,
    /// The key of its caller, once it is known.
    key: Option<KeyName>,
    /// The connection on which that came.
    connection: Option<u64>,
    /// The last look if the request may go on, once it was sent on and more of it comes.
    look: Look,
    /// True if the request has no answer yet, its connection is one more than its key may keep, and its caller can
    /// break it off.
    is_beyond: bool,
}

/// The way that a request has come. Nothing of it goes on before it is [`Stage::Open`].
#[derive(Debug, Default)]
enum Stage {
    /// Its headers have not come.
    #[default]
    New,
    /// The request waits for the first snapshot.
    Starting(Starting),
    /// Its body is read.
    Reading(Reading),
    /// Its body comes compressed, or is decoded.
    Coded(Box<Coded>),
    /// The request waits for a fresh credential, or until its limits are known.
    Waits(Request),
    /// The request was sent on.
    Open,
    /// The request was answered without a platform.
    Answered,
}

/// A request that came before there was a snapshot.
#[derive(Debug)]
struct Starting {
    request: Request,
    /// The length of its body, as far as its headers tell; none where it has none that is read.
    length: Option<u64>,
    /// The pieces that came of the body: Envoy takes a slice of 16 KiB for each, however small.
    pieces: usize,
    /// The body, or its trailers, ended.
    is_whole: bool,
}

/// A request whose body comes.
#[derive(Debug)]
struct Reading {
    request: Request,
    body: BodyReader,
    /// The length that its headers tell; 0 where they do not.
    length: usize,
    /// The bytes that were read.
    read: usize,
}

// === impl GateStream ===

impl GateStream {
    /// Makes the stream that the proxy calls by this number.
    pub fn new(context: u32) -> Self {
        Self {
            context,
            stage: Stage::New,
            held: 0,
            key: None,
            connection: None,
            look: Look::default(),
            is_beyond: false,
        }
    }

    /// Takes an event.
    pub fn on<H: Host>(
        &mut self,
        event: Event,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        match event {
            Event::RequestHeaders { end } => self.on_headers(end, worker, stream),
            Event::RequestBody { size, end } => {
                self.hold_more(size, worker, stream);
                self.on_body(size, end, worker, stream);
            }
            // A body may end without its last piece saying so.
            Event::RequestTrailers => match &mut self.stage {
                Stage::Starting(starting) => starting.is_whole = true,
                Stage::Coded(_) => self.decode(worker, stream),
                Stage::Open => self.look_again(worker, stream),
                _ => self.decide_on_what_was_read(worker, stream),
            },
            Event::AnswerHeaders { .. } => {
                self.on_answer(worker, stream);
                self.keep_connection(worker, stream);
                return Action::Continue;
            }
            Event::AnswerBody { .. } | Event::AnswerTrailers => return Action::Continue,
        }
        self.action()
    }

    /// Decides anew about a request that waits.
    pub fn decide_again<H: Host>(
        &mut self,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        match std::mem::take(&mut self.stage) {
            Stage::Waits(request) => self.decide(request, worker, stream),
            Stage::Starting(starting) => self.start(starting, worker, stream),
            stage => self.stage = stage,
        }
        self.action()
    }

    /// Decodes on a body that takes more than one callback.
    pub fn decode_on<H: Host>(
        &mut self,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        self.decode(worker, stream);
        self.action()
    }

    /// Ends the stream. Returns true if that frees a place, and requests wait for one here
    /// alone.
    pub fn end<H: Host>(self, worker: &mut Worker<H>) -> bool {
        let unanswered_beyond = self.key.filter(|_| self.is_beyond);
        worker.end(self.context, self.stage.request(), unanswered_beyond)
    }

    fn action(&self) -> Action {
        Action::continue_if(matches!(self.stage, Stage::Open))
    }

    fn on_headers<H: Host>(&mut self, end: bool, worker: &mut Worker<H>, stream: &mut impl Stream) {
        let headers = stream.headers(Side::Request);
        let carried = headers
            .first(RUN_AGAIN_HEADER)
            .and_then(|_| Carried::decode(&stream.property(carried::PROPERTY)?));
        // The body of a request that runs again is not read again.
        let end = end || carried.is_some();
        let length = headers.first("content-length").filter(|_| !end);
        let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let request = Request::new(headers, carried);
        let length = (!end).then_some(length.unwrap_or_default());
        if worker.awaits_snapshot(self.context, &request, true) {
            self.stage = Stage::Starting(Starting {
                request,
                length,
                pieces: 0,
                is_whole: false,
            });
            return;
        }
        self.begin(request, length, worker, stream);
    }

    /// Goes on with a request that came before there was a snapshot, if there is one now or its time is
    /// over.
    fn start<H: Host>(
        &mut self,
        starting: Starting,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        if worker.awaits_snapshot(self.context, &starting.request, false) {
            self.stage = Stage::Starting(starting);
            return;
        }
        let Starting {
            request,
            length,
            is_whole,
            ..
        } = starting;
        self.begin(request, length, worker, stream);
        let size = std::mem::take(&mut self.held);
        if length.is_some() && (size > 0 || is_whole) {
            self.hold_more(size, worker, stream);
            self.on_body(size, is_whole, worker, stream);
        }
    }

    /// Begins a request. `length`: that of its body, as far as its headers tell; none where it has none that
    /// is read.
    fn begin<H: Host>(
        &mut self,
        mut request: Request,
        length: Option<u64>,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        let end = length.is_none();
        let asked = worker.ask(&mut request);
        self.key = worker.key_name(&request);
        self.connection = self.key.and_then(|_| stream.connection());
        let asked = asked.and_then(|wanted| {
            self.count_connection(&request, worker, stream)?;
            worker.hold(self.context, &request, length.unwrap_or_default())?;
            if !end {
                worker.let_in(self.context, &request)?;
            }
            if length.is_some_and(coded::is_too_long) && request.coding().is_some() {
                worker.count_refused(self.context, &request);
                return Err(worker.refuse(&request, &Refusal::Body(Fault::TooLarge)));
            }
            Ok(wanted)
        });
        match asked {
            Err(reply) => self.answer(&reply, stream),
            Ok(_) if end => self.decide(request, worker, stream),
            Ok(wanted) if let Some(coding) = request.coding() => {
                self.stage = Stage::Coded(Box::new(Coded::new(request, coding, wanted)));
            }
            Ok(wanted) => {
                self.stage = Stage::Reading(Reading {
                    body: request.reader(wanted),
                    request,
                    length: usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX),
                    read: 0,
                });
            }
        }
    }

    fn on_body<H: Host>(
        &mut self,
        size: usize,
        end: bool,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        match &mut self.stage {
            Stage::Reading(reading) => {
                reading.read(size, stream);
                if end || !reading.needs_more() {
                    self.decide_on_what_was_read(worker, stream);
                }
            }
            Stage::Coded(coded) => match coded.grows(size) {
                Err(fault) => self.refuse_body(fault, worker, stream),
                Ok(()) if end => self.decode(worker, stream),
                Ok(()) => {}
            },
            Stage::Starting(starting) => {
                starting.is_whole = end;
                starting.pieces = starting.pieces.saturating_add(1);
                if size > MAX_START_BYTES || starting.pieces > MAX_START_PIECES {
                    worker.stop_waiting(self.context);
                    let reply = starting.request.refused(&Refusal::NotReady);
                    self.answer(&reply, stream);
                }
            }
            Stage::Open => self.look_again(worker, stream),
            Stage::New | Stage::Waits(_) | Stage::Answered => {}
        }
    }

    /// Decodes a body that is whole, and decides about its request once that is done.
    fn decode<H: Host>(&mut self, worker: &mut Worker<H>, stream: &mut impl Stream) {
        let Stage::Coded(coded) = &mut self.stage else {
            return;
        };
        match coded.decode(self.context, worker, stream) {
            Err(fault) => self.refuse_body(fault, worker, stream),
            Ok(plain) => {
                let made = plain
                    .as_ref()
                    .map_or_else(|| coded.made(), |plain| plain.length);
                let (request, decoder) = (&coded.request, coded.decoder());
                let held = worker.hold_decoded(self.context, request, made, decoder);
                if let Err(reply) = held {
                    worker.stop_waiting(self.context);
                    self.answer(&reply, stream);
                    return;
                }
                let Some(Plain { facts, length }) = plain else {
                    return;
                };
                worker.stop_waiting(self.context);
                let facts = Facts {
                    size: length,
                    ..facts
                };
                let length = length.to_string();
                stream.set_header(Side::Request, "content-length", Some(length.as_bytes()));
                if let Stage::Coded(coded) = std::mem::take(&mut self.stage) {
                    self.decide(coded.request.with_facts(facts), worker, stream);
                }
            }
        }
    }

    fn refuse_body<H: Host>(
        &mut self,
        fault: Fault,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        if let Stage::Coded(coded) = std::mem::take(&mut self.stage) {
            worker.stop_waiting(self.context);
            worker.count_refused(self.context, &coded.request);
            let reply = worker.refuse(&coded.request, &Refusal::Body(fault));
            self.answer(&reply, stream);
        }
    }

    /// Answers where there is no room for what came of the body.
    fn hold_more<H: Host>(
        &mut self,
        size: usize,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        let piece = match self.stage {
            Stage::Answered => return,
            // Its key is not known yet.
            Stage::Starting(_) => {
                self.held = size;
                return;
            }
            // What was let go is no longer counted.
            Stage::Open => size,
            _ => size.saturating_sub(self.held),
        };
        self.held = size;
        let undecided = self.stage.request();
        if let Err(reply) = worker.hold_more(self.context, undecided, piece) {
            worker.stop_waiting(self.context);
            self.answer(&reply, stream);
        }
    }

    fn decide_on_what_was_read<H: Host>(
        &mut self,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        match std::mem::take(&mut self.stage) {
            Stage::Reading(reading) => {
                let Reading {
                    request,
                    body,
                    length,
                    read,
                } = reading;
                let facts = Facts {
                    size: length.max(read),
                    ..body.into_facts()
                };
                self.decide(request.with_facts(facts), worker, stream);
            }
            stage => self.stage = stage,
        }
    }

    fn decide<H: Host>(
        &mut self,
        request: Request,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) {
        match worker.decide(self.context, &request) {
            Decision::Forward(forward) => {
                forward_request(*forward, worker, stream);
                self.look_later(worker);
                self.stage = Stage::Open;
            }
            Decision::Reply(reply) => self.answer(&reply, stream),
            Decision::Wait(_) => self.stage = Stage::Waits(request),
        }
    }

    fn answer(&mut self, reply: &Reply, stream: &mut impl Stream) {
        // Whose key has ended is a stranger again.
        if reply.status == 401 {
            self.key = None;
        }
        reply_with(reply, stream);
        self.stage = Stage::Answered;
    }

    /// Counts the connection on which a request came for its caller's key.
    ///
    /// # Errors
    /// The answer, where the connection is one too many and no other answer might come.
    fn count_connection<H: Host>(
        &mut self,
        request: &Request,
        worker: &mut Worker<H>,
        stream: &impl Stream,
    ) -> Result<(), Reply> {
        let Some(key) = self.key else {
            return Ok(());
        };
        if self.has_room(worker) || !stream.may_break_off() {
            return Ok(());
        }
        if worker.breaks_off(key) {
            return Err(worker.refuse(request, &Refusal::NoRoom(NoRoom::Connections)));
        }
        self.is_beyond = true;
        Ok(())
    }

    /// Has the proxy close the connection after this answer, but for a caller whose key is known and may keep one more.
    fn keep_connection<H: Host>(&mut self, worker: &mut Worker<H>, stream: &mut impl Stream) {
        self.is_beyond = false;
        if self.key.is_none() || !self.has_room(worker) {
            stream.set_header(Side::Answer, CLOSE_HEADER, Some(b"true"));
        }
    }

    /// Returns true if the caller's key may keep the connection; where there is none to be counted, too.
    fn has_room<H: Host>(&self, worker: &mut Worker<H>) -> bool {
        let counted = self.key.zip(self.connection);
        counted.is_none_or(|(key, connection)| worker.keep_connection(connection, key))
    }

    /// Puts an answer right that was to become a redirect and could not: the request's body was
    /// too large to be kept for another try. Keeps the record of an answer that is not the
    /// platform's: an attempt that forwards one keeps its own.
    fn on_answer<H: Host>(&mut self, worker: &mut Worker<H>, stream: &mut impl Stream) {
        let try_id = worker.try_id(self.context);
        if worker.sent().is_forwarded(try_id) {
            return;
        }
        let restored = restore(stream);
        // Envoy answers itself where it waits no longer for a body, or can hold no more of it.
        let unanswered = match self.stage.request() {
            Some(request) => worker.record(request),
            None => worker.sent().answered(try_id),
        };
        if !matches!(self.stage, Stage::Open) {
            worker.stop_waiting(self.context);
            self.stage = Stage::Answered;
        }
        if let Some(mut record) = unanswered {
            note_answer(&mut record, restored, stream);
            let record = record.ended(worker.now());
            if record.error == Some(FROM_ENVOY)
                && let Some(id) = &record.id
            {
                // By it the operator finds in the access log what Envoy does not tell its callers.
                let header = record.dialect.format().request_id_header();
                stream.set_header(Side::Answer, header, Some(id.as_str().as_bytes()));
            }
            stream.set_property(record::PROPERTY, &record.line());
            worker.keep(record, try_id);
        }
    }
}

// === impl Stage ===

impl Stage {
    /// Returns the request that nothing was decided about yet.
    fn request(&self) -> Option<&Request> {
        match self {
            Self::Reading(reading) => Some(&reading.request),
            Self::Coded(coded) => Some(&coded.request),
            Self::Waits(request) => Some(request),
            Self::New | Self::Starting(_) | Self::Open | Self::Answered => None,
        }
    }
}

// === impl Reading ===

impl Reading {
    /// Reads what is new of a body of which the proxy holds `size` bytes.
    fn read(&mut self, size: usize, stream: &impl Stream) {
        let new = size.saturating_sub(self.read);
        if new > 0 {
            self.body.push(&stream.body(Side::Request, self.read, new));
            self.read = size;
        }
    }

    fn needs_more(&self) -> bool {
        self.body.needs_more() && self.read < MAX_PEEK_BYTES
    }
}

/// Sends a request on: without the headers that must not go, with what the attempt is to be told,
/// to its platform's cluster.
fn forward_request<H: Host>(forward: Forward, worker: &mut Worker<H>, stream: &mut impl Stream) {
    for name in &forward.strip {
        stream.set_header(Side::Request, name, None);
    }
    let text = forward.carried.encode();
    stream.set_property(carried::PROPERTY, &text);
    if let Some(milliseconds) = forward.first_event_ms {
        let hold = worker.announcement_wait();
        let text = milliseconds.saturating_add(hold).to_string();
        stream.set_header(Side::Request, FIRST_EVENT_HEADER, Some(text.as_bytes()));
    }
    let cluster = forward.account.cluster.as_str().as_bytes();
    stream.set_header(Side::Request, CLUSTER_HEADER, Some(cluster));
    worker.forward(forward, text);
}

/// Answers a request from here.
pub(super) fn reply_with(reply: &Reply, stream: &mut impl Stream) {
    let headers = reply.headers.iter();
    let headers = headers.map(|(name, value)| (*name, value.as_str()));
    stream.reply(reply.status, headers.collect(), reply.body.as_bytes());
}

/// Gives an answer its own status back where an attempt made a redirect of it that Envoy did not
/// follow. Returns that status.
fn restore(stream: &mut impl Stream) -> Option<Vec<u8>> {
    let status = stream.header(Side::Answer, STATUS_HEADER)?;
    stream.set_header(Side::Answer, STATUS_HEADER, None);
    // A platform may send such a header too, but its redirects never get here.
    let ours = [REDIRECT_STATUS, EARLY_STATUS].map(str::as_bytes);
    let is_ours = stream
        .header(Side::Answer, ":status")
        .is_some_and(|status| ours.contains(&&*status));
    if !is_ours {
        return None;
    }
    stream.set_header(Side::Answer, ":status", Some(&status));
    stream.set_header(Side::Answer, "location", None);
    Some(status)
}

/// Notes an answer that no attempt forwards: the platform's, `restored` to this status, or one of
/// our own or of Envoy's.
fn note_answer(record: &mut RequestRecord, restored: Option<Vec<u8>>, stream: &impl Stream) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    let is_estimate = stream.header(Side::Answer, ESTIMATE_HEADER).is_some();
    if restored.is_none() && !is_estimate {
        let code = stream.header(Side::Answer, ERROR_HEADER).and_then(text);
        let code = code.and_then(|code| Reason::try_from(code).ok());
        record.error = Some(code.unwrap_or(FROM_ENVOY));
    }
    let status = restored.or_else(|| stream.header(Side::Answer, ":status"));
    let status = status.and_then(text).and_then(|status| status.parse().ok());
    record.status = status.unwrap_or_default();
    record.completeness = Completeness::Whole;
}
