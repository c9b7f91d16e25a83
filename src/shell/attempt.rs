//! The upstream filter's context: carries out what the attempt says.

use std::{cell::RefCell, rc::Rc};

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, BufferType},
};

use super::{envoy, held, vm};
use crate::{
    attempt::{
        self, EARLY_STATUS, MAX_HELD_BYTES, REDIRECT_STATUS, STATUS_HEADER,
        early::Early,
        forwarding::{self, Forwarding},
        holding::{Came, Holding},
        request_bytes::RequestBytes,
        transform::{Rewrite, Transform},
    },
    dialect::Dialect,
    gate::refusal::{ERROR_HEADER, Refusal},
    header::{HeaderMap, HeaderText},
    request::{carried::Carried, record::Record},
    snapshot::{Account, Platform},
    verdict::{ErrorBody, Look, Quota, Reason, Verdict, look},
};

/// The context of one try of one request.
#[derive(Debug)]
pub(super) struct AttemptContext {
    id: u32,
    attempt: Rc<RefCell<Attempt>>,
    /// Whether [`held`] knows of it.
    watched: bool,
}

/// One try of one request.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    sent: Option<Sent>,
    body: RequestBytes,
    held: Option<Holding>,
    passed: Option<Forwarded>,
}

/// An answer that passes on.
#[derive(Debug)]
struct Forwarded {
    record: Record,
    /// None for an error.
    answer: Option<Forwarding>,
}

/// What was sent, and as whom.
#[derive(Debug)]
struct Sent {
    account: Rc<Account>,
    platform: Rc<Platform>,
    carried: Rc<Carried>,
    /// The request as the gate let it through, to be put back before it runs again.
    request: HeaderMap,
    /// Whether it can be put back.
    replayable: bool,
    dialect: Dialect,
    /// On a route where nothing is charged that the platform does not report.
    free: bool,
    /// To the escape listener, without a credential.
    escape: bool,
    transform: Transform,
}

impl Context for AttemptContext {}

impl HttpContext for AttemptContext {
    /// The headers go on with the first of the body, not before: Envoy takes a filter's request
    /// headers away once it lets them go alone, and they have to be put back before the request
    /// runs again.
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        self.with(|attempt| attempt.send(end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.with(|attempt| attempt.send_body(size, end_of_stream))
    }

    /// The end of a request that has trailers.
    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        self.with(Attempt::end_body)
    }

    fn on_http_response_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        self.with(|attempt| attempt.answer(end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.with(|attempt| attempt.answer_body(size, end_of_stream))
    }

    /// The end of an answer that has trailers.
    fn on_http_response_trailers(&mut self, _trailers: usize) -> Action {
        self.with(Attempt::end_answer)
    }
}

// === impl AttemptContext ===

impl AttemptContext {
    /// The context that Envoy calls by this number.
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            attempt: Rc::default(),
            watched: false,
        }
    }

    fn with(&mut self, step: impl FnOnce(&mut Attempt) -> Action) -> Action {
        // Nobody else uses it while Envoy is in a callback.
        let Ok(mut attempt) = self.attempt.try_borrow_mut() else {
            return Action::Pause;
        };
        let action = step(&mut attempt);
        if !self.watched && attempt.held.as_ref().is_some_and(Holding::has_end) {
            self.watched = true;
            held::watch(self.id, &self.attempt);
        }
        action
    }
}

/// Whoever went away first, the caller or the platform: the answer did not come to its end.
impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.as_ref().filter(|_| !self.body.is_whole()) {
            vm::with(|vm| vm.sent.broke_off(sent.carried.try_id));
        }
        self.finish(false);
    }
}

// === impl Attempt ===

impl Attempt {
    fn send(&mut self, end_of_stream: bool) -> Action {
        if end_of_stream {
            self.body.end();
        }
        match send_on(envoy::request_headers(), !end_of_stream) {
            Ok(sent) => {
                let action = if sent.replayable {
                    Action::Pause
                } else {
                    Action::Continue
                };
                self.sent = Some(sent);
                action
            }
            Err(refusal) => {
                envoy::send(&refusal.reply(Dialect::default()));
                Action::Pause
            }
        }
    }

    /// Lets the headers go, with the first of the body, or with all of it where it has to be known.
    fn send_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let Some(sent) = &mut self.sent else {
            return Action::Continue;
        };
        if end_of_stream {
            self.body.end();
        }
        if sent.escape {
            // Nothing of it goes there, and what is taken away Envoy does not count again.
            self.body.on_body(size, true);
            if size > 0 {
                envoy::set_body(BufferType::HttpRequestBody, size, b"");
            }
            // The listener there answers at once, so it is asked when the request is whole.
            return if self.waits_for_body() {
                Action::Pause
            } else {
                Action::Continue
            };
        }
        let action = sent.rewrite(size, end_of_stream);
        self.body.on_body(size, action == Action::Continue);
        let (try_id, bytes) = (sent.carried.try_id, self.body.charged(sent.free));
        vm::with(|vm| vm.sent.sent_body(try_id, bytes));
        action
    }

    fn end_body(&mut self) -> Action {
        self.body.end();
        Action::Continue
    }

    /// Whether the request is not whole, and could run again were it so.
    fn waits_for_body(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| {
            let length = sent.request.first("content-length");
            sent.replayable && self.body.is_worth_waiting_for(length)
        })
    }

    fn answer(&mut self, end_of_stream: bool) -> Action {
        let Some(sent) = &self.sent else {
            return Action::Continue;
        };
        if sent.escape {
            return sent.unreachable(self.body.is_whole());
        }
        if cfg!(feature = "without-verdicts") {
            vm::with(|vm| vm.sent.answered(sent.carried.try_id));
            return Action::Continue;
        }
        let status = envoy::response_header(":status").unwrap_or_default();
        let status = std::str::from_utf8(&status)
            .ok()
            .and_then(|text| text.parse().ok());
        match status {
            Some(300..=399) => {
                envoy::send(&Refusal::Redirected.reply(sent.dialect));
                Action::Pause
            }
            Some(status) => {
                if sent.transform.changes_answer() && !end_of_stream {
                    // What is taken out of the answer is not in its length.
                    envoy::set_response_header("content-length", None);
                }
                let now = vm::with(|vm| vm.now()).unwrap_or_default();
                self.held = Some(Holding::new(status, now));
                if !end_of_stream {
                    return Action::Pause;
                }
                self.settle(None, Some(b""));
                self.finish(true);
                Action::Continue
            }
            None => Action::Continue,
        }
    }

    fn answer_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.held.is_none() && self.passed.is_none() {
            return Action::Continue;
        }
        let body = envoy::body(BufferType::HttpResponseBody, size);
        let came = if end_of_stream { Came::All } else { Came::Some };
        if !self.judge(&body, came) {
            return Action::Pause;
        }
        self.show(&body, end_of_stream);
        if end_of_stream {
            self.finish(true);
        }
        Action::Continue
    }

    fn end_answer(&mut self) -> Action {
        self.judge_held(Came::All);
        self.finish(true);
        Action::Continue
    }

    /// The answer that is held.
    pub(super) fn held(&self) -> Option<&Holding> {
        self.held.as_ref()
    }

    /// Judges the answer that is held by what has come of it, and lets it go on.
    pub(super) fn judge_now(&mut self) {
        self.judge_held(Came::Enough);
        envoy::resume_answer();
    }

    fn judge_held(&mut self, came: Came) {
        if let Some(held) = &self.held {
            let body = envoy::body(BufferType::HttpResponseBody, held.size());
            self.judge(&body, came);
            self.show(&body, false);
        }
    }

    /// Judges an answer that is held back by what has come of its body; false where that is not
    /// enough.
    fn judge(&mut self, body: &[u8], came: Came) -> bool {
        let Some(held) = &mut self.held else {
            return true;
        };
        let complete = came != Came::Some || body.len() >= MAX_HELD_BYTES;
        let seen = body.get(..MAX_HELD_BYTES).unwrap_or(body);
        let error = if held.is_good() {
            // What the body begins with tells more than its type, and costs no hostcall.
            match look(
                self.sent
                    .as_ref()
                    .map_or(Dialect::default(), |sent| sent.dialect),
                seen,
                complete,
            ) {
                Look::NeedMore => None,
                Look::Fine => Some(None),
                Look::Error(error) => Some(Some(error)),
            }
        } else {
            complete.then(|| Some(ErrorBody::read(seen)))
        };
        let Some(error) = error else {
            let now = vm::with(|vm| vm.now()).unwrap_or_default();
            held.grows(body.len(), now);
            return false;
        };
        self.settle(error.as_ref(), (came == Came::All).then_some(body));
        true
    }

    /// Judges the answer that is held, and has the request run again where another account could
    /// do better; else it passes on. `body`: all of it, where it is there.
    fn settle(&mut self, error: Option<&ErrorBody>, body: Option<&[u8]>) {
        let (Some(held), Some(sent)) = (self.held.take(), &self.sent) else {
            return;
        };
        let status = held.status();
        let good = held.is_good() && error.is_none();
        let now = envoy::now();
        let waits = self.waits_for_body();
        let can_run = waits || self.body.is_whole();
        if let Some(next) = sent.judge(status, good, error, can_run, now) {
            let runs = if waits {
                sent.run_again_when_whole(&next, status, body)
            } else {
                sent.run_again(&next, status)
            };
            if runs {
                return;
            }
        }
        self.passed = sent.forward(status, good, now);
    }

    /// Shows the meter what passes on.
    fn show(&mut self, body: &[u8], end: bool) {
        let (Some(passed), Some(sent)) = (&mut self.passed, &self.sent) else {
            return;
        };
        let Some(answer) = &mut passed.answer else {
            return;
        };
        if let Some(instead) = answer.on_body(body, end) {
            envoy::set_body(BufferType::HttpResponseBody, body.len(), &instead);
        }
        if let Some(error) = answer.take_failure() {
            passed.record.verdict = Some(sent.gave_up(&error));
        }
    }

    /// Keeps the record of an answer that passes on; `end`: all of it has.
    fn finish(&mut self, end: bool) {
        let Some(Forwarded { mut record, answer }) = self.passed.take() else {
            return;
        };
        match answer {
            Some(answer) => {
                let free = self.sent.as_ref().is_some_and(|sent| sent.free);
                let metered = answer.finish(end, self.body.charged(free));
                if let Some(sent) = self.sent.as_ref().filter(|_| end && !metered.failed) {
                    vm::with(|vm| vm.ended_well(&sent.account, &sent.carried));
                }
                record.metered(metered);
            }
            None => record.completeness = forwarding::completeness(end),
        }
        let record = record.ended(envoy::now());
        envoy::set_usage(&record);
        let try_id = self.sent.as_ref().map(|sent| sent.carried.try_id);
        vm::with(|vm| vm.keep(record, try_id.unwrap_or_default()));
    }
}

/// Puts the account's headers on the request. The header block is written whole, in one
/// hostcall: what is not in it does not go out.
fn send_on(request: HeaderMap, replayable: bool) -> Result<Sent, Refusal> {
    let text = envoy::carried().ok_or(Refusal::NoCredential)?;
    let found = vm::with(|vm| {
        let carried = vm.sent.carried(&text)?;
        let view = vm.view()?;
        let account = view.account(carried.account.as_str())?;
        let platform = view.platform(&account.platform)?;
        Some((Rc::clone(account), Rc::clone(platform), carried))
    });
    let (account, platform, carried) = found.flatten().ok_or(Refusal::NoCredential)?;
    let escape = attempt::is_escape(&request);
    let written = if escape {
        envoy::set_request_headers(attempt::escaping(&request).collect())
    } else {
        let outgoing = attempt::headers(&request, &platform, &account)?;
        let block = outgoing.iter().map(|(name, value)| (*name, value.as_ref()));
        envoy::set_request_headers(block.collect())
    };
    if !written {
        return Err(Refusal::NoCredential);
    }
    let route = attempt::route(&request, &platform, &carried);
    let dialect = route.map_or(Dialect::default(), |route| route.dialect);
    let length = request.first("content-length");
    let free = route.is_some_and(|route| route.free);
    let transform = match route {
        Some(route) if replayable && !escape => Transform::of(route, length),
        _ => Transform::Nothing,
    };
    Ok(Sent {
        account,
        platform,
        carried,
        request,
        replayable,
        dialect,
        free,
        escape,
        transform,
    })
}

// === impl Sent ===

impl Sent {
    /// Lets the request's body go on as its transform says.
    fn rewrite(&mut self, size: usize, end_of_stream: bool) -> Action {
        let read = || envoy::body(BufferType::HttpRequestBody, size);
        match self.transform.on_request(size, end_of_stream, read) {
            Rewrite::NeedMore => return Action::Pause,
            Rewrite::AsItIs => {}
            Rewrite::Instead(body) => {
                let length = body.len().to_string();
                let has_length = self.request.first("content-length").is_some();
                if !has_length || envoy::set_request_header("content-length", &length) {
                    envoy::set_body(BufferType::HttpRequestBody, size, &body);
                } else {
                    self.transform = Transform::Nothing;
                }
            }
        }
        Action::Continue
    }

    /// Judges an answer; what the request is to be when it runs again, if it `can_run` and another
    /// account could do better.
    fn judge(
        &self,
        status: u16,
        good: bool,
        error: Option<&ErrorBody>,
        can_run: bool,
        now: u64,
    ) -> Option<Carried> {
        let windows = &self.platform.quota;
        // A failure is read anyway, and is rare.
        let reads_quota = !windows.is_empty()
            && (!good || vm::with(|vm| vm.wants_quota(&self.account)).unwrap_or_default());
        let headers = if good && !reads_quota {
            HeaderMap::default()
        } else {
            envoy::response_headers()
        };
        if headers.first(ERROR_HEADER).is_some() {
            // A platform's error must not look like one of ours.
            envoy::set_response_header(ERROR_HEADER, None);
        }
        if reads_quota {
            let quota = Quota::read(windows, &headers, now);
            vm::with(|vm| vm.quota(&self.account, quota));
        }
        let verdict = if good {
            Verdict::Fine
        } else {
            let model = self.carried.model.as_ref().map(HeaderText::as_str);
            attempt::judge(status, &headers, error, &self.platform, model, now)
        };
        self.next(&verdict, can_run)
    }

    /// Judges an error in the middle of an answer, for the requests that come after.
    fn gave_up(&self, error: &ErrorBody) -> Reason {
        let model = self.carried.model.as_ref().map(HeaderText::as_str);
        let (headers, now) = (HeaderMap::default(), envoy::now());
        let verdict = attempt::judge(200, &headers, Some(error), &self.platform, model, now);
        vm::with(|vm| vm.learn(&self.account, &self.carried, &verdict));
        Reason::known(verdict.word())
    }

    /// What is to be known of an answer of this status while it passes on.
    fn forward(&self, status: u16, good: bool, now: u64) -> Option<Forwarded> {
        let mut record = vm::with(|vm| vm.sent.answered(self.carried.try_id)).flatten()?;
        if cfg!(feature = "without-metering") {
            return None;
        }
        record.status = status;
        record.dialect = self.dialect;
        record.first_byte(now);
        Some(Forwarded {
            record,
            answer: good.then(|| Forwarding::new(self.dialect, self.transform)),
        })
    }

    /// The platform did not answer at all, or before the request was whole, which `whole` says it
    /// is now.
    fn unreachable(&self, whole: bool) -> Action {
        let until = vm::with(|vm| vm.now()).unwrap_or_default();
        let verdict = Verdict::PlatformTrouble {
            until: until.saturating_add(attempt::UNREACHABLE_MS),
        };
        let next = if self.carried.has_tried(&self.account) {
            Some(Carried::clone(&self.carried))
        } else {
            self.next(&verdict, whole)
        };
        if whole && next.is_some_and(|next| self.run_again(&next, 502)) {
            return Action::Continue;
        }
        let early = vm::with(|vm| vm.sent.take_early(self.carried.try_id));
        if let Some(early) = early.flatten() {
            envoy::send_early(&early);
            return Action::Pause;
        }
        envoy::send(&Refusal::Unreachable.reply(self.dialect));
        Action::Pause
    }

    /// Posts the verdict; what the request is to be when it runs again, if it `can_run` and is to.
    fn next(&self, verdict: &Verdict, can_run: bool) -> Option<Carried> {
        vm::with(|vm| vm.judged(&self.account, &self.carried, verdict, can_run)).flatten()
    }

    /// Turns the answer of this status into the redirect by which the request runs again; false
    /// where that cannot be.
    fn run_again(&self, next: &Carried, status: u16) -> bool {
        let Some(location) = attempt::location(&self.request, &self.carried) else {
            return false;
        };
        let request = if self.escape {
            attempt::restored(&self.request, &self.platform, &self.carried)
        } else {
            self.request.iter().collect()
        };
        if !self.replayable || !envoy::set_request_headers(request) {
            return false;
        }
        envoy::set_carried(&next.encode());
        envoy::set_response_header("location", Some(&location));
        set_status(REDIRECT_STATUS, status);
        vm::with(|vm| vm.redirected(self.carried.try_id));
        true
    }

    /// Turns the answer of this status into one on which the router's retry goes to the escape
    /// listener, from where the request runs again when it is whole; false where that cannot be.
    /// A request that does not say how long it is may turn out too large for that: then its caller
    /// gets this answer after all, if its `body` is here to be kept.
    fn run_again_when_whole(&self, next: &Carried, status: u16, body: Option<&[u8]>) -> bool {
        if !self.replayable || attempt::location(&self.request, &self.carried).is_none() {
            return false;
        }
        if self.request.first("content-length").is_none() {
            let early = body.and_then(|body| Early::new(status, &envoy::response_headers(), body));
            let Some(early) = early else {
                return false;
            };
            vm::with(|vm| vm.sent.keep(self.carried.try_id, early));
        }
        envoy::set_carried(&next.encode());
        set_status(EARLY_STATUS, status);
        true
    }
}

/// Makes an answer of this status, for Envoy, one of status `instead`.
fn set_status(instead: &str, status: u16) {
    envoy::set_response_header(STATUS_HEADER, Some(status.to_string().as_bytes()));
    envoy::set_response_header(":status", Some(instead.as_bytes()));
}
