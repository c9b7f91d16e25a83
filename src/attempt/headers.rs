//! The header block that a platform gets of a request: what its profile allows of the caller's, and the account's
//! credential. What a header that is a list becomes is in [`list`].

use std::borrow::Cow;

use super::list;
use crate::{
    gate::refusal::Refusal,
    header::HeaderMap,
    request::split_target,
    snapshot::{Account, Endpoint, HeaderPlan, Places, Platform, Requirement},
};

/// A request's whole header block as it goes to the platform, in wire order.
pub type Headers<'a> = Vec<(&'a str, Cow<'a, [u8]>)>;

/// The headers that frame the request; they pass whatever the platform's allow-list says.
const FRAMING: [&str; 3] = [":method", ":scheme", "content-length"];

/// Room for the headers that a request usually goes out with.
const USUAL_HEADERS: usize = 24;

/// The request for `account`: the authority, path and query of the platform's `endpoint`, the
/// caller's headers that the platform's profile allows, and the credential. Nothing else.
///
/// # Errors
/// [`Refusal::NoCredential`] where a template needs what the account lacks: a request never goes out
/// without its credential.
pub fn headers<'a>(
    request: &'a HeaderMap,
    platform: &'a Platform,
    endpoint: &Endpoint,
    account: &'a Account,
    places: &Places,
) -> Result<Headers<'a>, Refusal> {
    let (_, query) = split_target(request.first(":path").unwrap_or_default());
    headers_with(query, request, platform, endpoint, account, places)
}

/// [`headers`] of a request that is translated: its query string says nothing to the platform, and what it accepts is
/// what the platform has.
///
/// # Errors
/// Those of [`headers`].
pub fn translated_headers<'a>(
    request: &'a HeaderMap,
    platform: &'a Platform,
    endpoint: &Endpoint,
    account: &'a Account,
    places: &Places,
) -> Result<Headers<'a>, Refusal> {
    let query = match endpoint.generates() {
        true => endpoint.dialect.format().parts().stream_query.as_bytes(),
        false => b"",
    };
    let mut headers = headers_with(query, request, platform, endpoint, account, places)?;
    if endpoint.requires.contains(&Requirement::Stream) {
        headers.retain(|(name, _)| *name != "accept");
        headers.push(("accept", b"text/event-stream".as_slice().into()));
    }
    Ok(headers)
}

fn headers_with<'a>(
    query: &[u8],
    request: &'a HeaderMap,
    platform: &'a Platform,
    endpoint: &Endpoint,
    account: &'a Account,
    places: &Places,
) -> Result<Headers<'a>, Refusal> {
    let base = platform.base_path_of(account);
    let path = endpoint.path(base, places, account);
    let query = platform.query.with(query, account);
    let (Some(path), Some(query)) = (path, query) else {
        return Err(Refusal::NoCredential);
    };
    let target = target(path.as_bytes(), &query);
    let plan = &platform.headers;
    let mut headers: Headers<'a> = Vec::with_capacity(USUAL_HEADERS);
    headers.extend([
        (":authority", account.authority.as_str().as_bytes().into()),
        (":path", target.into()),
        // What comes back must be readable here: it is metered and judged as it passes.
        ("accept-encoding", b"identity".as_slice().into()),
    ]);
    for (name, value) in request.iter() {
        if FRAMING.contains(&name) || is_allowed(plan, name) {
            let mut removed = plan.remove.iter();
            let removed = removed.find(|(listed, _)| listed.as_str() == name);
            let value = match removed {
                None => Some(value.into()),
                Some((_, item)) => list::rest(value, item.as_str()),
            };
            headers.extend(value.map(|value| (name, value)));
        }
    }
    for (name, value) in &plan.default {
        if request.first(name.as_str()).is_none() {
            headers.push((name.as_str(), value.as_str().as_bytes().into()));
        }
    }
    let add = plan.add.iter();
    for (name, item) in add.filter(|(name, _)| !endpoint.omit.contains(name)) {
        list::add(&mut headers, name.as_str(), item.as_str());
    }
    let set = plan.set.iter();
    for (name, template) in set.filter(|(name, _)| !endpoint.omit.contains(name)) {
        let value = template.render(account).ok_or(Refusal::NoCredential)?;
        headers.push((name.as_str(), value.into_bytes().into()));
    }
    Ok(headers)
}

/// A path and a query as they stand in `:path`.
fn target(path: &[u8], query: &[u8]) -> Vec<u8> {
    let mut target = path.to_vec();
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    target
}

/// The headers of a request to the escape listener, which nobody else hears: no credential, nothing
/// of the caller but its URL, and no length, as its body does not go there. `request` is the caller's.
pub fn escaping(request: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let target = [":method", ":scheme", ":authority", ":path"];
    request
        .iter()
        .filter(move |(name, _)| target.contains(name))
}

/// Returns true if the caller's header `name` goes out.
fn is_allowed(plan: &HeaderPlan, name: &str) -> bool {
    plan.allow.iter().any(|pattern| pattern.matches(name))
        && name != "accept-encoding"
        && !plan.set.iter().any(|(set, _)| set.as_str() == name)
}

#[cfg(test)]
mod tests;
