//! The downstream filter's context: carries out the gate's decisions.
//!
//! A request with a body stops at its headers until the gate has read what it needs of the body.
//! Envoy then calls for each piece of the body and keeps what was not let go, which only happens
//! where the plugin sets `allow_on_headers_stop_iteration`.

use std::{cell::Cell, rc::Rc};

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, BufferType, MapType},
};

use super::{envoy, vm};
use crate::{
    attempt::{EARLY_STATUS, REDIRECT_STATUS, STATUS_HEADER},
    dialect::Dialect,
    gate::refusal::{ERROR_HEADER, Refusal},
    gate::{CLUSTER_HEADER, Decision, Forward, Reply, Request},
    meter::Completeness,
    request::carried::Carried,
    request::peek::{MAX_PEEK_BYTES, Peek},
    request::record::{FROM_ENVOY, Record},
    verdict::Reason,
};

/// The header that Envoy itself sets on a request that it runs again.
const RUN_AGAIN_HEADER: &str = "x-envoy-original-url";

/// One try of one request at the gate.
#[derive(Debug)]
pub(super) struct GateContext {
    id: u32,
    stage: Rc<Cell<Stage>>,
    /// The request whose body is read.
    reading: Option<Reading>,
}

/// How far a request is. Nothing of it goes on before it is [`Stage::Open`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing was decided yet.
    #[default]
    Undecided,
    /// It waits for a fresh credential.
    Waits,
    /// It was sent on.
    Open,
    /// It was answered from here.
    Answered,
}

/// A request whose body comes.
#[derive(Debug)]
struct Reading {
    request: Request,
    peek: Peek,
    /// The bytes that were read.
    read: usize,
}

/// A request that waits, and who has to hear of it when it does no longer.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    request: Rc<Request>,
    stage: Rc<Cell<Stage>>,
}

impl Context for GateContext {}

impl HttpContext for GateContext {
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        let headers = envoy::request_headers();
        #[cfg(feature = "fault-injection")]
        super::fault::on_request(&headers);
        let passed = headers
            .first(RUN_AGAIN_HEADER)
            .and_then(|_| Carried::decode(&envoy::carried()?));
        let ends = end_of_stream || passed.is_some();
        let mut request = Request::new(headers, passed);
        let asked = vm::with(|vm| {
            let wanted = vm.ask(&mut request)?;
            if !ends {
                vm.let_in(&request)?;
            }
            Ok(wanted)
        });
        match asked.unwrap_or_else(|| Err(not_ready())) {
            Err(reply) => {
                envoy::send(&reply);
                self.stage.set(Stage::Answered);
            }
            Ok(_) if ends => self.decide(request),
            Ok(wanted) => {
                self.reading = Some(Reading {
                    request,
                    peek: Peek::new(wanted),
                    read: 0,
                });
            }
        }
        self.action()
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let Some(reading) = &mut self.reading {
            reading.read(size);
            if end_of_stream || !reading.needs_more() {
                self.decide_on_what_was_read();
            }
        }
        self.action()
    }

    /// A body may end without its last piece saying so.
    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        self.decide_on_what_was_read();
        self.action()
    }

    /// Puts an answer right that was to become a redirect and could not: the request's body was
    /// too large to be kept for a second try. Keeps the record of an answer that is not the
    /// platform's: an attempt that passes one on keeps its own.
    fn on_http_response_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        let forwarded = vm::with(|vm| vm.sent.is_forwarded(vm.try_id(self.id))).unwrap_or_default();
        if forwarded {
            // Nothing of ours is in it; what a platform puts there reaches no caller.
            envoy::set_response_header(STATUS_HEADER, None);
            return Action::Continue;
        }
        let mut status = None;
        if let Some(restored) = envoy::response_header(STATUS_HEADER) {
            envoy::set_response_header(STATUS_HEADER, None);
            // A platform may send such a header too, but its redirects never get here.
            let ours = [REDIRECT_STATUS, EARLY_STATUS].map(str::as_bytes);
            if envoy::response_header(":status").is_some_and(|status| ours.contains(&&*status)) {
                envoy::set_response_header(":status", Some(&restored));
                envoy::set_response_header("location", None);
                status = Some(restored);
            }
        }
        let reading = self.reading.take();
        let record = vm::with(|vm| match &reading {
            // Envoy answers itself: it waits no longer for the body, or can hold no more of it.
            Some(reading) => vm.record(&reading.request),
            None => vm
                .stop_waiting(self.id)
                .or_else(|| vm.sent.answered(vm.try_id(self.id))),
        });
        if let Some(record) = record.flatten() {
            self.record_answer(record, status);
        }
        Action::Continue
    }
}

impl Drop for GateContext {
    fn drop(&mut self) {
        let reading = self.reading.take();
        let request = reading.as_ref().map(|reading| &reading.request);
        vm::with(|vm| vm.end(self.id, request));
    }
}

// === impl GateContext ===

impl GateContext {
    /// The context that Envoy calls by this number.
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            stage: Rc::default(),
            reading: None,
        }
    }

    /// Keeps the record of an answer that no attempt passed on: the platform's, put right to
    /// `restored`, or one of our own or of Envoy's.
    fn record_answer(&self, mut record: Record, restored: Option<Vec<u8>>) {
        let own = restored.is_none().then(|| {
            let code = envoy::response_header(ERROR_HEADER);
            let code = code.and_then(|code| String::from_utf8(code).ok());
            let code = code.and_then(|code| Reason::try_from(code).ok());
            code.unwrap_or(FROM_ENVOY)
        });
        let status = restored.or_else(|| envoy::response_header(":status"));
        let status = status.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok());
        record.error = own;
        record.status = status.unwrap_or_default();
        record.completeness = Completeness::Whole;
        let record = record.ended(envoy::now());
        envoy::set_usage(&record);
        vm::with(|vm| {
            let try_id = vm.try_id(self.id);
            vm.keep(record, try_id);
        });
    }

    fn decide_on_what_was_read(&mut self) {
        if let Some(Reading { request, peek, .. }) = self.reading.take() {
            self.decide(request.with_facts(peek.into_facts()));
        }
    }

    fn decide(&self, request: Request) {
        Waiting {
            request: Rc::new(request),
            stage: Rc::clone(&self.stage),
        }
        .carry_out(self.id);
    }

    fn action(&self) -> Action {
        match self.stage.get() {
            Stage::Open => Action::Continue,
            Stage::Undecided | Stage::Waits | Stage::Answered => Action::Pause,
        }
    }
}

// === impl Reading ===

impl Reading {
    /// Reads what is new of a body of which `size` bytes are held.
    fn read(&mut self, size: usize) {
        let new = size.saturating_sub(self.read);
        let piece = hostcalls::get_buffer(BufferType::HttpRequestBody, self.read, new);
        self.peek.push(&piece.ok().flatten().unwrap_or_default());
        self.read = self.read.max(size);
    }

    fn needs_more(&self) -> bool {
        self.peek.needs_more() && self.read < MAX_PEEK_BYTES
    }
}

// === impl Waiting ===

impl Waiting {
    /// Decides about the request of the context `id`, which is the effective one, and does what
    /// was decided.
    fn carry_out(&self, id: u32) {
        let decision = vm::with(|vm| vm.decide(id, self));
        match decision.unwrap_or_else(|| Decision::Reply(not_ready())) {
            Decision::Forward(forward) => {
                send_on(forward);
                self.stage.set(Stage::Open);
            }
            Decision::Reply(reply) => {
                envoy::send(&reply);
                self.stage.set(Stage::Answered);
            }
            Decision::Wait => self.stage.set(Stage::Waits),
        }
    }

    /// The request.
    pub(super) fn request(&self) -> &Request {
        &self.request
    }
}

fn not_ready() -> Reply {
    Refusal::NotReady.reply(Dialect::default())
}

fn send_on(forward: Forward) {
    for name in &forward.strip {
        let _ = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
    }
    let text = forward.carried.encode();
    envoy::set_carried(&text);
    let cluster = Some(forward.account.cluster.as_str());
    let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, CLUSTER_HEADER, cluster);
    vm::with(|vm| vm.sent.went(text, forward.carried));
}

/// Decides anew about the requests that wait; called by the root context `root`.
pub(super) fn look_at_waiting(root: u32) {
    let waiting = vm::with(|vm| vm.waiting()).unwrap_or_default();
    if waiting.is_empty() {
        return;
    }
    for (id, waiting) in waiting {
        // A request whose caller has gone has no context any more.
        if hostcalls::set_effective_context(id).is_ok() {
            waiting.carry_out(id);
            if waiting.stage.get() == Stage::Open {
                let _ = hostcalls::resume_http_request();
            }
        }
    }
    let _ = hostcalls::set_effective_context(root);
}
