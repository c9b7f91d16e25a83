//! Sends a request as an account: writes its headers, and notes what its body and its answer need.

use std::rc::Rc;

use super::{Sent, body::Around, edits::Demanded, translated::Translated};
use crate::{
    attempt::{self, unwrap::Unwrap, usage_ask::UsageAsk},
    dialect::accent,
    gate::Refusal,
    header::{HeaderMap, HeaderText},
    host::{Host, Side, Stream},
    request::carried::{self, Carried, TryId},
    snapshot::Endpoint,
    worker::{Found, Worker},
};

impl Sent {
    /// Puts the account's headers on the request. The header block is written whole, in one
    /// hostcall: what is not in it does not go out.
    pub(in crate::stream::attempt) fn send<H: Host>(
        replayable: bool,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Result<Self, Refusal> {
        let request = stream.headers(Side::Request);
        let found = stream.property(carried::PROPERTY);
        let found = found.and_then(|text| worker.find(&text));
        let found = found.ok_or(Refusal::NoCredential)?;
        let endpoint = found.endpoint().ok_or(Refusal::NoCredential)?;
        let Found {
            account,
            platform,
            estimates,
            carried,
        } = &found;
        let escape = attempt::is_escape(&request);
        let request = as_let_through(request, escape, carried.try_id, worker)?;
        let is_translated = endpoint.dialect != carried.dialect;
        let model = carried.model_at(account);
        let wrapper = endpoint.wrapper.as_ref().filter(|_| !escape);
        // Before the headers are written, with the credential among them: there may be none.
        let around = match wrapper {
            Some(wrapper) => Some(Around::of(wrapper, account, carried, model.as_ref())?),
            None => None,
        };
        let translated =
            is_translated.then(|| Translated::of(carried, endpoint, account, *estimates));
        let is_translated = translated.is_some();
        let written = if escape {
            stream.set_request_headers(attempt::escaping(&request).collect())
        } else {
            write_headers(&request, &found, endpoint, is_translated, &model, stream)?
        };
        if !written {
            return Err(Refusal::NoCredential);
        }
        let length = request.first("content-length");
        let usage_ask = match replayable && !escape && !is_translated {
            true => UsageAsk::of(endpoint, length),
            false => UsageAsk::NotAsked,
        };
        let demanded = match escape || is_translated {
            true => None,
            false => Demanded::of(carried, account, endpoint, &model),
        };
        let exact = match escape {
            true => None,
            false => exact_names(carried, endpoint, &model),
        };
        Ok(Self {
            exact,
            demanded,
            model,
            account: Rc::clone(account),
            platform: Rc::clone(platform),
            carried: Rc::clone(carried),
            request,
            replayable,
            dialect: endpoint.dialect,
            free: endpoint.free || endpoint.opaque,
            opaque: endpoint.opaque,
            keeps_asked: endpoint.keeps_asked,
            // A translated request asks for nothing to be kept.
            keeps: endpoint.keeps_days.filter(|_| translated.is_none()),
            escape,
            usage_ask,
            translated,
            around,
            unwrap: wrapper.map(|wrapper| Unwrap::new(&wrapper.answer)),
        })
    }
}

/// Finds the request as the gate let it through: `request`, which the attempt at the escape has to find, or at the
/// escape what the first attempt noted.
fn as_let_through<H: Host>(
    request: HeaderMap,
    escape: bool,
    try_id: TryId,
    worker: &mut Worker<H>,
) -> Result<Rc<HeaderMap>, Refusal> {
    let own = worker.sent().get_mut(try_id);
    if escape {
        // What is there now is what the first attempt made of it.
        let first = own.and_then(|own| own.request.take());
        return first.ok_or(Refusal::Unreachable);
    }
    let request = Rc::new(request);
    if let Some(own) = own {
        own.request = Some(Rc::clone(&request));
    }
    Ok(request)
}

/// Writes the headers with which the request goes to the platform, the credential among them. Returns false where
/// the proxy did not take them.
fn write_headers(
    request: &HeaderMap,
    found: &Found,
    endpoint: &Endpoint,
    is_translated: bool,
    model: &Option<HeaderText>,
    stream: &mut impl Stream,
) -> Result<bool, Refusal> {
    let Found {
        account, platform, ..
    } = found;
    let places = found.carried.places(model.clone());
    let headers = match is_translated {
        true => attempt::translated_headers,
        false => attempt::headers,
    };
    let outgoing = headers(request, platform, endpoint, account, &places)?;
    let block = outgoing.iter().map(|(name, value)| (*name, value.as_ref()));
    Ok(stream.set_request_headers(block.collect()))
}

/// Lists the names of the model that was asked for, where the answer has to be that one's; and tells if the platform
/// may name none.
fn exact_names(
    carried: &Carried,
    endpoint: &Endpoint,
    model: &Option<HeaderText>,
) -> Option<(Vec<HeaderText>, bool)> {
    if !carried.exact_model || !endpoint.names_model() {
        return None;
    }
    let names = [&carried.asked, &carried.model, model].into_iter();
    let names: Vec<HeaderText> = names.flatten().cloned().collect();
    let called: Vec<&str> = names.iter().map(HeaderText::as_str).collect();
    if called.is_empty() {
        return None;
    }
    let may_be_unnamed = endpoint.accent(&called).flag(accent::UNNAMED_MODEL);
    Some((names, may_be_unnamed))
}
