//! The request that an attempt sent: as whom, and the ways in which it runs again.

mod body;
mod edits;
mod send;
mod translated;

use std::rc::Rc;

pub(super) use self::translated::{Answer, GoesOn};
use self::{body::Around, edits::Demanded, translated::Translated};
use crate::{
    attempt::{
        self, EARLY_STATUS, REDIRECT_STATUS, STATUS_HEADER,
        answer::{self, Mask},
        early::Early,
        failure,
        forwarding::Forwarding,
        made::MadeReader,
        request_bytes::RequestBytes,
        served_model::ServedModel,
        unwrap::Unwrap,
        usage_ask::UsageAsk,
    },
    dialect::Dialect,
    gate::{Refusal, Reply},
    header::{HeaderMap, HeaderText},
    home::Made,
    host::{Action, Host, Side, Stream},
    id::Id,
    request::carried::{self, Carried, TryId},
    snapshot::{Account, Platform},
    stream::{attempt::Outcome, gate::reply_with},
    verdict::{ErrorBody, Quota, Reason, Verdict},
    worker::{Found, Worker},
};

/// A request that was sent, and as whom.
#[derive(Debug)]
pub(super) struct Sent {
    account: Rc<Account>,
    platform: Rc<Platform>,
    carried: Rc<Carried>,
    /// The request as the gate let it through, to be put back before it runs again.
    request: Rc<HeaderMap>,
    /// The request can be put back: its headers were not let go alone.
    replayable: bool,
    /// The model, as the platform names it.
    model: Option<HeaderText>,
    /// The dialect that the platform speaks at its endpoint.
    pub(super) dialect: Dialect,
    /// The endpoint charges nothing that the platform does not report.
    pub(super) free: bool,
    /// Its answer's body says nothing of the account.
    pub(super) opaque: bool,
    /// The days for which the things live that its answers make.
    keeps: Option<u16>,
    /// The answer is kept only where the request asks for that.
    keeps_asked: bool,
    /// The request goes to the escape listener, without a credential.
    pub(super) escape: bool,
    /// The ask for the usage of its answer.
    usage_ask: UsageAsk,
    /// The names of the model that was asked for, where its answer has to be that one's; and if the platform names none.
    exact: Option<(Vec<HeaderText>, bool)>,
    /// The demands of the operator on a request that is not translated, where a model answers.
    demanded: Option<Demanded>,
    /// The translation, where the platform speaks another dialect than the caller.
    pub(super) translated: Option<Translated>,
    /// The texts around its body, where the platform has a wrapper around those of the dialect.
    around: Option<Around>,
    /// The reader that takes the wrapper off its answer.
    pub(super) unwrap: Option<Unwrap>,
}

impl Sent {
    /// The client key that the request came with.
    pub(super) fn key(&self) -> &Id {
        &self.carried.key
    }

    /// Returns the number of its try.
    pub(super) fn try_id(&self) -> TryId {
        self.carried.try_id
    }

    /// The answer of a refusal of a request that was not sent, in the dialect that its caller speaks, where that is known.
    pub(super) fn unsent<H: Host>(
        refusal: &Refusal,
        worker: &mut Worker<H>,
        stream: &impl Stream,
    ) -> Reply {
        let text = stream.property(carried::PROPERTY);
        let found = text.and_then(|text| worker.find(&text));
        refusal.reply_to(found.as_ref().map(|Found { carried, .. }| &**carried))
    }

    /// The answer of a refusal, in the dialect that the caller speaks.
    pub(super) fn refused(&self, refusal: &Refusal) -> Reply {
        refusal.reply_to(Some(&self.carried))
    }

    /// Takes what the platform gets in the query off the path, once it is on the wire: an access
    /// log that shows the path must not show a credential.
    pub(super) fn hide_query(&self, stream: &mut impl Stream) {
        if self.replayable && !self.platform.query.is_empty() {
            stream.set_request_headers(self.request.iter().collect());
        }
    }

    /// Takes what tells if the answer with these headers is from the model that was asked for.
    pub(super) fn take_served(&mut self, head: &HeaderMap) -> Option<ServedModel> {
        let (names, may_be_unnamed) = self.exact.take()?;
        let mut served = ServedModel::new(names, may_be_unnamed, self.forwarding(None));
        if let Some(name) = &self.platform.headers.model {
            let named = head.iter().filter(|(sent, _)| *sent == name.as_str());
            named.for_each(|(_, value)| served.read_header(value));
        }
        Some(served)
    }

    /// Returns what reads its answer as that goes on: what has read `ahead`, where it can.
    pub(super) fn forwarding(&self, ahead: Option<Forwarding>) -> Forwarding {
        let ahead = ahead.filter(|one| one.goes_on_from_here(self.usage_ask));
        ahead.unwrap_or_else(|| Forwarding::new(self.dialect, self.usage_ask))
    }

    /// Takes the headers off an answer that no caller gets.
    pub(super) fn withhold(&self, head: &HeaderMap, stream: &mut impl Stream) {
        for name in answer::withheld(head, &self.platform.headers, &self.mask()) {
            stream.set_header(Side::Answer, name, None);
        }
    }

    /// Returns what takes the account's credential out of a body.
    pub(super) fn mask(&self) -> Mask {
        Mask::of(&self.account)
    }

    /// Returns true if the request is not whole, but can run again when it is.
    pub(super) fn may_run_whole(&self, body: &RequestBytes) -> bool {
        let length = self.request.first("content-length");
        self.replayable && body.is_worth_waiting_for(length)
    }

    /// Takes the headers off an answer with this `head` that hold for the platform's body alone, where the caller gets another.
    pub(super) fn take_off_the_bodys(&self, head: &HeaderMap, stream: &mut impl Stream) {
        let is_translated = self.translated.is_some();
        if is_translated
            || self.usage_ask.changes_answer()
            || self.around.is_some()
            || self.renamed_to().is_some()
        {
            take_off_the_bodys(head, !is_translated, stream);
        }
    }

    /// Returns true if a good answer with these headers is none without a body.
    pub(super) fn expects_text(&self, answer: &HeaderMap) -> bool {
        let kind = answer.first("content-type").unwrap_or_default();
        let is_text = |prefix: &&[u8]| kind.starts_with(prefix);
        let is_json_or_events = [b"application/json".as_slice(), b"text/event-stream"]
            .iter()
            .any(is_text);
        let is_ok = answer.first(":status") == Some(b"200".as_slice());
        is_json_or_events && is_ok && self.request.first(":method") != Some(b"HEAD".as_slice())
    }

    /// Judges an answer, and takes what it says of the account's windows.
    pub(super) fn verdict<H: Host>(
        &self,
        status: u16,
        headers: &HeaderMap,
        outcome: &Outcome,
        worker: &mut Worker<H>,
    ) -> Verdict {
        let now = worker.now();
        let windows = &self.platform.quota;
        let good = matches!(outcome, Outcome::Good);
        // A failure is read anyway, and is rare.
        let reads_quota = !windows.is_empty() && (!good || worker.wants_quota(&self.account));
        if reads_quota {
            worker.quota(&self.account, Quota::read(windows, headers, now));
        }
        let error = match outcome {
            // Whatever it served in its place, it did serve.
            Outcome::Good | Outcome::Another(_) => return Verdict::Fine,
            Outcome::Empty => {
                let until = now.saturating_add(attempt::UNREACHABLE_MS);
                return Verdict::PlatformTrouble { until };
            }
            Outcome::Error(error) => error,
            Outcome::Failed(failure) => &failure.error,
        };
        attempt::judge(
            status,
            headers,
            Some(error),
            &self.platform,
            self.model(),
            now,
        )
    }

    /// Takes a verdict. Returns what the request carries into the next try, if it `can_run` again and
    /// another account could do better.
    pub(super) fn judged<H: Host>(
        &self,
        status: u16,
        outcome: &Outcome,
        verdict: &Verdict,
        can_run: bool,
        worker: &mut Worker<H>,
    ) -> Option<Carried> {
        if let Outcome::Another(_) = outcome {
            return worker.served_another(&self.account, &self.carried, can_run);
        }
        let elsewhere = self.is_elsewhere(outcome);
        worker.judged(
            &self.account,
            &self.carried,
            status,
            verdict,
            elsewhere,
            can_run,
        )
    }

    /// Returns the answer that the caller gets in place of a good status without content, and of words about a credential
    /// that is not the caller's.
    pub(super) fn instead(
        &self,
        status: u16,
        outcome: &Outcome,
        verdict: &Verdict,
        now: u64,
    ) -> Option<Reply> {
        let is_useless = matches!(verdict, Verdict::CredentialExpired | Verdict::Dead { .. });
        // Where another account answered with it too, it speaks of the request.
        let is_shared = self.carried.refused.contains(&status);
        match outcome {
            // Whoever reads 401 or 403 believes that their own key is meant.
            Outcome::Error(_) if matches!(status, 401 | 403) && is_useless && !is_shared => {
                Some(self.refused(&Refusal::CredentialRefused))
            }
            Outcome::Empty => Some(self.refused(&Refusal::NoContent)),
            Outcome::Another(served) => self.masked(self.refused(&Refusal::AnotherModel {
                asked: self.asked().cloned(),
                served: served.clone(),
            })),
            Outcome::Failed(failure) => {
                let Carried {
                    dialect, id, lacks, ..
                } = &*self.carried;
                let asked = self.translated.as_ref().map(|one| !one.wants_stream());
                let lacks_stream = asked.unwrap_or(lacks.stream);
                let reply = failure::reply(failure, verdict, *dialect, lacks_stream, now)?;
                self.masked(reply.with_request_id(*dialect, id.as_ref()))
            }
            Outcome::Good | Outcome::Error(_) => None,
        }
    }

    /// Takes the account's credential out of a reply that has words of the platform's.
    fn masked(&self, mut reply: Reply) -> Option<Reply> {
        if let Some(masked) = self.mask().masked(reply.body.as_bytes()) {
            reply.body = String::from_utf8(masked).ok()?;
        }
        Some(reply)
    }

    /// Returns what the caller gets of an answer that goes on, where it speaks another dialect.
    pub(super) fn translates(
        &self,
        outcome: &Outcome,
        status: u16,
        stream: &mut impl Stream,
    ) -> Option<Answer> {
        let error = match outcome {
            Outcome::Error(error) => Some(error),
            Outcome::Good | Outcome::Failed(_) | Outcome::Empty | Outcome::Another(_) => None,
        };
        let translated = self.translated.as_ref()?;
        translated.answer(self.carried.dialect, error, status, &self.mask(), stream)
    }

    /// Returns true if the platform says that this account does not have what the request goes on from.
    fn is_elsewhere(&self, outcome: &Outcome) -> bool {
        let error = match outcome {
            Outcome::Good | Outcome::Empty | Outcome::Another(_) => return false,
            Outcome::Error(error) => error,
            Outcome::Failed(failure) => &failure.error,
        };
        let mut codes = self.platform.elsewhere.iter();
        codes.any(|code| error.has_code(code))
    }

    /// Returns what finds the ids of what a good answer makes, and for how many days that lives; none
    /// where it makes nothing that is kept.
    pub(super) fn keeps(&self) -> Option<(MadeReader, u16)> {
        let days = self.keeps.filter(|_| self.is_kept())?;
        let endpoint = self.platform.endpoint(self.carried.endpoint)?;
        Some((MadeReader::new(endpoint.makes.clone()), days))
    }

    /// Returns true if what an answer makes is kept, where the endpoint keeps anything.
    fn is_kept(&self) -> bool {
        self.carried.stored.unwrap_or(!self.keeps_asked)
    }

    /// Returns true if the platform has nothing more, and nothing less, after the request came twice. It is a reading
    /// one, or names nothing that is there and makes nothing that is kept: the answer is all that comes of it.
    fn makes_nothing(&self) -> bool {
        let method = self.request.first(":method").unwrap_or_default();
        let reads = [b"GET".as_slice(), b"HEAD"].contains(&method);
        let keeps = self.keeps.is_some() && self.is_kept();
        reads || (method == b"POST" && self.carried.thing.is_none() && !keeps)
    }

    /// Notes that the answer made what is called `id`.
    pub(super) fn made<H: Host>(&self, id: &str, days: u16, worker: &mut Worker<H>) -> Made {
        worker.made(&self.carried, id, days)
    }

    /// Judges an error in the middle of an answer, for the requests that come after.
    pub(super) fn gave_up<H: Host>(&self, error: &ErrorBody, worker: &mut Worker<H>) -> Reason {
        let (headers, now) = (HeaderMap::default(), worker.now());
        let model = self.model();
        let verdict = attempt::judge(200, &headers, Some(error), &self.platform, model, now);
        worker.learn(&self.account, &self.carried, &verdict);
        Reason::known(verdict.word())
    }

    /// Notes the good end of a good answer.
    pub(super) fn ended_well<H: Host>(&self, worker: &mut Worker<H>) {
        worker.ended_well(&self.account, &self.carried);
    }

    /// Returns true if this first attempt reached the escape listener: its cluster has no other host.
    pub(super) fn has_escaped(&self, stream: &impl Stream) -> bool {
        let address = stream.answered_by();
        address.is_some_and(|address| attempt::is_escape_address(&address))
    }

    /// Takes the escape listener's answer: the platform did not answer at all, or before the
    /// request, of which `body` has gone, was whole.
    pub(super) fn unreachable<H: Host>(
        &self,
        body: RequestBytes,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Action {
        let whole = body.is_whole();
        // The router's own retry waits for the body by itself.
        let waits = !self.escape && self.may_run_whole(&body);
        // An early answer has been judged: the attempt that did has written what comes next.
        let own = worker.sent().of(self.try_id());
        let is_judged = own.is_some_and(|own| *own != *self.carried);
        let next = if is_judged || self.carried.has_tried(&self.account) {
            Some(Carried::clone(&self.carried))
        } else {
            let until = worker.now().saturating_add(attempt::UNREACHABLE_MS);
            let verdict = Verdict::PlatformTrouble { until };
            let can_run = whole || waits;
            // Where there was no host, there was no connection to close.
            let makes_nothing = self.escape && self.makes_nothing();
            match worker.sends_again(&self.account, &self.carried, makes_nothing, can_run) {
                Some(next) => Some(next),
                None => worker.judged(&self.account, &self.carried, 502, &verdict, false, can_run),
            }
        };
        let runs = next.is_some_and(|next| {
            if waits {
                self.run_again_when_whole(&next, 502, None, worker, stream)
            } else {
                whole && self.run_again(&next, 502, worker, stream)
            }
        });
        if runs {
            return Action::Continue;
        }
        match worker.sent().take_early(self.try_id()) {
            Some(early) => stream.reply(early.status(), early.headers(), early.body()),
            None => {
                let now = worker.now();
                let refusal = match worker.sent().was_silent(self.try_id(), now) {
                    true => Refusal::Silent,
                    false => Refusal::Unreachable,
                };
                reply_with(&self.refused(&refusal), stream);
            }
        }
        Action::Pause
    }

    /// Turns the answer of this status into the redirect by which the request runs again, as it
    /// was before this attempt; false where that cannot be.
    pub(super) fn run_again<H: Host>(
        &self,
        next: &Carried,
        status: u16,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> bool {
        let Some(location) = attempt::location(&self.request, &self.carried) else {
            return false;
        };
        if !self.replayable || !stream.set_request_headers(self.request.iter().collect()) {
            return false;
        }
        stream.set_property(carried::PROPERTY, &next.encode());
        stream.set_header(Side::Answer, "location", Some(&location));
        set_status(REDIRECT_STATUS, status, stream);
        worker.redirected(self.try_id());
        true
    }

    /// Turns the answer of this status into one on which the router's retry goes to the escape
    /// listener, from where the request runs again when it is whole; false where that cannot be.
    /// A request that does not say how long it is may turn out too large for that: then its caller
    /// gets this answer after all, if its `body` is here to be kept.
    pub(super) fn run_again_when_whole<H: Host>(
        &self,
        next: &Carried,
        status: u16,
        body: Option<&[u8]>,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> bool {
        if !self.replayable || attempt::location(&self.request, &self.carried).is_none() {
            return false;
        }
        if self.request.first("content-length").is_none() {
            let headers = || stream.headers(Side::Answer);
            let early = body.and_then(|body| {
                let masked = self.mask().masked(body);
                Early::new(status, &headers(), masked.as_deref().unwrap_or(body))
            });
            let Some(early) = early else {
                return false;
            };
            worker.sent().keep_early(self.try_id(), early);
        }
        stream.set_property(carried::PROPERTY, &next.encode());
        set_status(EARLY_STATUS, status, stream);
        true
    }

    fn model(&self) -> Option<&str> {
        self.carried.model.as_ref().map(HeaderText::as_str)
    }
}

/// Makes an answer of this status, for Envoy, one of status `instead`.
fn set_status(instead: &str, status: u16, stream: &mut impl Stream) {
    let status = status.to_string();
    stream.set_header(Side::Answer, STATUS_HEADER, Some(status.as_bytes()));
    stream.set_header(Side::Answer, ":status", Some(instead.as_bytes()));
}

/// Gives an answer with this `head`, of which nothing has gone on, the headers of one of our own.
pub(super) fn put_headers(reply: &Reply, head: &HeaderMap, stream: &mut impl Stream) {
    take_off_the_bodys(head, false, stream);
    for (name, value) in &reply.headers {
        stream.set_header(Side::Answer, name, Some(value.as_bytes()));
    }
}

/// Takes what holds for the platform's body off an answer that has another one; something of it may be `left`.
fn take_off_the_bodys(head: &HeaderMap, left: bool, stream: &mut impl Stream) {
    for name in answer::of_the_body(head, left) {
        stream.set_header(Side::Answer, name, None);
    }
}
