//! The upstream filter's context: carries out what the attempt says.

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, BufferType},
};

use super::{envoy, vm};
use crate::{
    attempt::{
        self, MAX_HELD_BYTES, REDIRECT_STATUS, STATUS_HEADER,
        passage::Passage,
        passing::{self, Asking, Passing, RequestBytes},
    },
    dialect::{Dialect, Refusal, refusal::ERROR_HEADER},
    header::{HeaderMap, HeaderText},
    meter::record::Record,
    snapshot::{Account, Platform},
    verdict::{ErrorBody, Look, Quota, Verdict, look},
};

/// One try of one request.
#[derive(Debug, Default)]
pub(super) struct AttemptContext {
    sent: Option<Sent>,
    /// The status of an answer that is held back until it is judged.
    held: Option<u16>,
    passed: Option<PassedOn>,
    request_bytes: RequestBytes,
}

/// An answer that passes on.
#[derive(Debug)]
struct PassedOn {
    record: Record,
    /// None for an error.
    answer: Option<Passing>,
}

/// What was sent, and as whom.
#[derive(Debug)]
struct Sent {
    account: Rc<Account>,
    platform: Rc<Platform>,
    passage: Passage,
    /// The request as the gate let it through, to be put back before it runs again.
    request: HeaderMap,
    /// Whether it can be put back.
    replayable: bool,
    dialect: Dialect,
    /// To the escape listener, without a credential.
    escape: bool,
    usage: Usage,
}

/// Whether the platform has to be asked for usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    /// Not by us.
    AsItIs,
    /// That depends on the body.
    MayAsk,
    /// It was.
    Asked,
}

impl Context for AttemptContext {}

impl HttpContext for AttemptContext {
    /// The headers go on with the first of the body, not before: Envoy takes a filter's request
    /// headers away once it lets them go alone, and they have to be put back before the request
    /// runs again.
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
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
                envoy::send(&refusal.reply(Dialect::Chat));
                Action::Pause
            }
        }
    }

    /// Lets the headers go, with the first of the body, or with all of it where it has to be known.
    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let Some(sent) = &mut self.sent else {
            return Action::Continue;
        };
        let action = match sent.usage {
            Usage::MayAsk => sent.ask(size, end_of_stream),
            Usage::AsItIs | Usage::Asked => Action::Continue,
        };
        self.request_bytes.on_body(size, action == Action::Continue);
        let (pass, total) = (sent.passage.pass, self.request_bytes.total());
        vm::with(|vm| vm.sent_body(pass, total));
        action
    }

    fn on_http_response_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        let Some(sent) = &self.sent else {
            return Action::Continue;
        };
        if sent.escape {
            return sent.unreachable();
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
            Some(status) if !end_of_stream => {
                if sent.usage == Usage::Asked {
                    // What is taken out of the answer is not in its length.
                    envoy::set_response_header("content-length", None);
                }
                self.held = Some(status);
                Action::Pause
            }
            Some(status) => {
                self.passed = sent.settle(status, None);
                self.finish(true);
                Action::Continue
            }
            None => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.held.is_none() && self.passed.is_none() {
            return Action::Continue;
        }
        let body = envoy::body(BufferType::HttpResponseBody, size);
        if !self.judge(&body, end_of_stream) {
            return Action::Pause;
        }
        if let Some(answer) = self.passed.as_mut().and_then(|one| one.answer.as_mut())
            && let Some(instead) = answer.on_body(&body, end_of_stream)
        {
            envoy::set_body(BufferType::HttpResponseBody, size, &instead);
        }
        if end_of_stream {
            self.finish(true);
        }
        Action::Continue
    }

    /// The end of an answer that has trailers.
    fn on_http_response_trailers(&mut self, _trailers: usize) -> Action {
        if self.held.is_some() {
            let body = envoy::body(BufferType::HttpResponseBody, MAX_HELD_BYTES);
            self.judge(&body, true);
            if let Some(answer) = self.passed.as_mut().and_then(|one| one.answer.as_mut()) {
                answer.on_body(&body, false);
            }
        }
        self.finish(true);
        Action::Continue
    }
}

/// Whoever went away first, the caller or the platform: the answer did not come to its end.
impl Drop for AttemptContext {
    fn drop(&mut self) {
        self.finish(false);
    }
}

// === impl AttemptContext ===

impl AttemptContext {
    /// Judges an answer that is held back by what has come of its body; false where that is not
    /// enough.
    fn judge(&mut self, body: &[u8], end: bool) -> bool {
        let (Some(status), Some(sent)) = (self.held, &self.sent) else {
            return true;
        };
        let complete = end || body.len() >= MAX_HELD_BYTES;
        let body = body.get(..MAX_HELD_BYTES).unwrap_or(body);
        let error = if (200..300).contains(&status) {
            // What the body begins with tells more than its type, and costs no hostcall.
            match look(None, body, complete) {
                Look::NeedMore => return false,
                Look::Fine => None,
                Look::Error(error) => Some(error),
            }
        } else if complete {
            Some(ErrorBody::read(body))
        } else {
            return false;
        };
        self.held = None;
        self.passed = sent.settle(status, error.as_ref());
        true
    }

    /// Keeps the record of an answer that passes on; `end`: all of it has.
    fn finish(&mut self, end: bool) {
        let Some(PassedOn { mut record, answer }) = self.passed.take() else {
            return;
        };
        match answer {
            Some(answer) => record.metered(answer.finish(end, self.request_bytes.total())),
            None => record.completeness = passing::completeness(end),
        }
        let record = record.ended(envoy::now());
        envoy::set_usage(&record);
        vm::with(|vm| vm.keep(record));
    }
}

/// Puts the account's headers on the request. The header block is written whole, in one
/// hostcall: what is not in it does not go out.
fn send_on(request: HeaderMap, replayable: bool) -> Result<Sent, Refusal> {
    let passage = envoy::passage().ok_or(Refusal::NoCredential)?;
    let found = vm::with(|vm| {
        let view = vm.view()?;
        let account = view.account(passage.account.as_str())?;
        let platform = view.platform(&account.platform)?;
        Some((Rc::clone(account), Rc::clone(platform)))
    });
    let (account, platform) = found.flatten().ok_or(Refusal::NoCredential)?;
    let escape = attempt::is_escape(&request);
    let written = if escape {
        envoy::set_request_headers(attempt::framing(&request).collect())
    } else {
        let outgoing = attempt::headers(&request, &platform, &account)?;
        let block = outgoing.iter().map(|(name, value)| (*name, value.as_ref()));
        envoy::set_request_headers(block.collect())
    };
    if !written {
        return Err(Refusal::NoCredential);
    }
    let route = attempt::route(&request, &platform, &passage);
    let dialect = route.map_or(Dialect::Chat, |route| route.dialect);
    let length = request.first("content-length");
    let may_ask =
        replayable && !escape && route.is_some_and(|route| passing::may_ask(route, length));
    Ok(Sent {
        account,
        platform,
        passage,
        request,
        replayable,
        dialect,
        escape,
        usage: if may_ask {
            Usage::MayAsk
        } else {
            Usage::AsItIs
        },
    })
}

// === impl Sent ===

impl Sent {
    /// Has the platform asked for usage once the request's body is there.
    fn ask(&mut self, size: usize, end_of_stream: bool) -> Action {
        let read = || envoy::body(BufferType::HttpRequestBody, size);
        match passing::request_with_usage(size, end_of_stream, read) {
            Asking::NeedMore => return Action::Pause,
            Asking::AsItIs => self.usage = Usage::AsItIs,
            Asking::Instead(body) => {
                let length = body.len().to_string();
                let has_length = self.request.first("content-length").is_some();
                if !has_length || envoy::set_request_header("content-length", &length) {
                    envoy::set_body(BufferType::HttpRequestBody, size, &body);
                    self.usage = Usage::Asked;
                } else {
                    self.usage = Usage::AsItIs;
                }
            }
        }
        Action::Continue
    }

    /// Judges an answer, and has the request run again where another account could do better;
    /// else the answer passes on.
    fn settle(&self, status: u16, error: Option<&ErrorBody>) -> Option<PassedOn> {
        let good = (200..300).contains(&status) && error.is_none();
        let quota = self.platform.quota.filter(|_| {
            // A failure is read anyway, and is rare.
            !good || vm::with(|vm| vm.wants_quota(&self.account)).unwrap_or_default()
        });
        let headers = if good && quota.is_none() {
            HeaderMap::default()
        } else {
            envoy::response_headers()
        };
        if headers.first(ERROR_HEADER).is_some() {
            // A platform's error must not look like one of ours.
            envoy::set_response_header(ERROR_HEADER, None);
        }
        let now = envoy::now();
        if let Some(family) = quota {
            let quota = Quota::read(family, &headers, now);
            vm::with(|vm| vm.quota(&self.account, quota));
        }
        let verdict = if good {
            Verdict::Fine
        } else {
            let model = self.passage.model.as_ref().map(HeaderText::as_str);
            attempt::judge(status, &headers, error, &self.platform, model, now)
        };
        if let Some(next) = self.next(&verdict)
            && self.run_again(&next, status)
        {
            return None;
        }
        let mut record = vm::with(|vm| vm.answered(self.passage.pass)).flatten()?;
        record.status = status;
        record.dialect = self.dialect;
        record.first_byte(now);
        let asked = self.usage == Usage::Asked;
        Some(PassedOn {
            record,
            answer: good.then(|| Passing::new(self.dialect, asked)),
        })
    }

    /// The platform did not answer at all.
    fn unreachable(&self) -> Action {
        let until = vm::with(|vm| vm.now()).unwrap_or_default();
        let verdict = Verdict::PlatformTrouble {
            until: until.saturating_add(attempt::UNREACHABLE_MS),
        };
        let next = self.next(&verdict);
        if next.is_some_and(|next| self.run_again(&next, 502)) {
            return Action::Continue;
        }
        envoy::send(&Refusal::Unreachable.reply(self.dialect));
        Action::Pause
    }

    /// Posts the verdict; what the request is to be when it runs again, if it is to.
    fn next(&self, verdict: &Verdict) -> Option<Passage> {
        vm::with(|vm| vm.judged(&self.account, &self.passage, verdict)).flatten()
    }

    /// Turns the answer of this status into the redirect by which the request runs again; false
    /// where that cannot be.
    fn run_again(&self, next: &Passage, status: u16) -> bool {
        let Some(location) = attempt::location(&self.request, &self.passage) else {
            return false;
        };
        let request = if self.escape {
            attempt::restored(&self.request, &self.platform, &self.passage)
        } else {
            self.request.iter().collect()
        };
        if !self.replayable || !envoy::set_request_headers(request) {
            return false;
        }
        envoy::set_passage(next);
        envoy::set_response_header("location", Some(&location));
        envoy::set_response_header(STATUS_HEADER, Some(status.to_string().as_bytes()));
        envoy::set_response_header(":status", Some(REDIRECT_STATUS.as_bytes()));
        vm::with(|vm| vm.redirected(self.passage.pass));
        true
    }
}
