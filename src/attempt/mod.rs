//! The attempt: one try of one request on one account, and failover.
//!
//! It runs in Envoy's upstream filter chain, so the credential exists only on the wire to the platform:
//! no other filter, access log or redirect sees it.
//!
//! # Judging
//!
//! An attempt judges its answer before a byte of it goes on. It holds the response headers until the
//! first piece of the body has come, however long that takes. An error's body is held whole, at most
//! [`MAX_HELD_BYTES`], and judged by what there is 2 s after its headers.
//!
//! A good answer is held until its first event with content, or the failure in its place
//! ([`crate::verdict::Beginning`]): events that only announce it may be followed by one. It is let go
//! `announcement_wait_seconds` after its first byte, at [`holding::MAX_ANNOUNCED_BYTES`], or where its
//! key's memory is used up. One that ends before that is no answer: the platform is in trouble. Where no
//! other account does better, the caller gets the failure with its true status ([`failure`]).
//!
//! Where a key takes only the model that it asks for, a good answer is held until it names its model, however long
//! that takes, and another one's goes to nobody ([`served_model`]). Such an answer is held against no account.
//!
//! # Failover
//!
//! 1. The verdict goes on the board ([`crate::health`]), where every worker sees it within 5 ms. A request
//!    speaks there against one account at most. The same 4xx from a second account is its caller's fault, but for 401, 402
//!    and 429: the caller gets it, and nothing is held against that account.
//!    An account that may not do what was asked (`not_served`) is left alone for that model only once
//!    another one has done it: a model that nobody has takes out nobody.
//! 2. If another account could do better, and tries and time are left, the attempt puts the request's
//!    headers back and makes the answer a 307 to the request's own URL, with the true status in
//!    `x-latchkey-status`. Envoy's internal redirect then runs the whole request again, gate included,
//!    with the buffered body. Else the platform's answer passes as it is, but for what [`answer`] keeps here.
//!    An account whose platform told it to pause for `throttle_wait_seconds` at most is not left: the request
//!    goes back to the gate as in 2, and waits there for the account if that has its session's prompt cache,
//!    or nobody else serves ([`Table::worth_waiting`](crate::gate::select::Table::worth_waiting)). It does so once.
//!    Those that waited, and those that move, reach an account at the pace of `worker::pace`.
//! 3. What the next try must know is *carried* in filter state ([`crate::request::carried`]).
//! 4. Where Envoy cannot run the request again (a body over the limit), the 307 reaches the gate's
//!    response path, which restores the platform's answer.
//! 5. Where no answer came, the router's retry goes to the escape endpoint. That attempt carries no
//!    credential and no body, waits until the request is whole, strikes the account, and redirects as
//!    in 2. A connection that broke before the request was whole is no strike: its caller may have been
//!    too slow, and a slow caller must not take accounts out.
//!    Where the platform is known not to have had all of the request, as there was no connection or that broke
//!    while the request was being sent, a lone account gets it once more. A connection that breaks when all is sent
//!    says nothing of that, and HTTP/1.1 has no sign for it. Within a second it was closing as the request came, as
//!    a rule, and what makes nothing but its answer is sent once more. All else the platform may have worked on, or
//!    keep twice, so it is not sent there again (RFC 9110 §9.2.2).
//! 6. Envoy runs only a whole request again. An answer that comes while the request is still being sent
//!    becomes a 308, for which the router's retry goes to the escape endpoint as in 5, without the
//!    strike. Where the request is known to be over the body limit, the answer passes at once. Where
//!    only the escape finds that out, the caller gets the answer that [`early`] kept.
//! 7. A 401 is reported with the credential's generation, and the account is out until it has a new
//!    credential. A request that has no other account waits at the gate.
//!
//! After its first byte an answer passes whatever comes. An error event in the middle of a stream is
//! judged by the same rules, for the requests that come after. A verdict of scope `model` concerns the
//! model that was asked for. Where the model is unknown it takes the whole account out, for 10 s at most.

pub mod answer;
pub mod asked_model;
pub mod early;
pub mod failure;
pub mod forwarding;
pub mod holding;
mod list;
pub mod made;
pub mod request_bytes;
pub mod served_model;
pub mod unwrap;
pub mod usage_ask;

use std::borrow::Cow;

use crate::{
    gate::refusal::Refusal,
    header::{HeaderMap, HeaderText},
    health::{Board, Striker},
    request::{carried::Carried, split_target},
    snapshot::{Account, Doors, Endpoint, HeaderPlan, Places, Platform, Requirement},
    verdict::{self, Answer, ErrorBody, Quota, Scope, Verdict},
};

/// A request's whole header block as it goes to the platform, in wire order.
pub type Headers<'a> = Vec<(&'a str, Cow<'a, [u8]>)>;

/// The headers that frame the request; they pass whatever the platform's allow-list says.
const FRAMING: [&str; 3] = [":method", ":scheme", "content-length"];

/// The endpoint that the gate chose, if the platform still answers there what was asked at the door:
/// a profile may have changed since.
pub fn endpoint<'p>(
    platform: &'p Platform,
    doors: Option<&Doors>,
    carried: &Carried,
) -> Option<&'p Endpoint> {
    let door = doors?.get(carried.door)?;
    let endpoint = platform.endpoint(carried.endpoint)?;
    let answers = endpoint.answers(door) || endpoint.answers_translated(door);
    answers.then_some(endpoint)
}

/// Room for the headers that a request usually goes out with.
const USUAL_HEADERS: usize = 24;

/// The header of an answer that is ours and no error: it says what in it is an estimate.
pub const ESTIMATE_HEADER: &str = "x-latchkey-estimate";

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

/// A list of the caller's by its name, with the values that it had.
pub type List = (String, Vec<Vec<u8>>);

/// The caller's own lists, as far as the platform's profile adds an item to them or takes one off, empty ones too: an attempt
/// puts them back as they were.
pub fn listed(request: &HeaderMap, platform: &Platform) -> Vec<List> {
    let plan = &platform.headers;
    let mut lists: Vec<List> = Vec::new();
    for (name, _) in plan.add.iter().chain(&plan.remove) {
        let name = name.as_str();
        if lists.iter().any(|(list, _)| list == name) {
            continue;
        }
        let own = request.iter().filter(|(sent, _)| *sent == name);
        let own = own.map(|(_, value)| value.to_vec()).collect();
        lists.push((name.to_owned(), own));
    }
    lists
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
/// of the caller, and no length, as its body does not go there. `request` is [`restored`].
pub fn escaping(request: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let target = [":method", ":scheme", ":authority", ":path"];
    request
        .iter()
        .filter(move |(name, _)| target.contains(name))
}

/// Tells a header `name` of the caller that goes out.
fn is_allowed(plan: &HeaderPlan, name: &str) -> bool {
    plan.allow.iter().any(|pattern| pattern.matches(name))
        && name != "accept-encoding"
        && !plan.set.iter().any(|(set, _)| set.as_str() == name)
}

/// The most bytes of an answer that are held back while it is judged. Errors are far below.
pub const MAX_HELD_BYTES: usize = 32 * 1024;

/// The header in which the status of an answer travels from the attempt to the gate, where the
/// answer became a redirect to run the request again. It reaches the gate only where Envoy could
/// not run it again, and the gate puts the answer right.
pub const STATUS_HEADER: &str = "x-latchkey-status";

/// The status of that redirect: one that platforms do not answer, as theirs are never passed on.
pub const REDIRECT_STATUS: &str = "307";

/// The status on which the router's retry goes to the escape listener, for an answer that came
/// before the request was whole; neither does a platform answer that.
pub const EARLY_STATUS: &str = "308";

/// The milliseconds for which a platform that could not be reached is left alone.
pub const UNREACHABLE_MS: u64 = 5_000;

/// The header that the router numbers the attempts of one try in.
pub const ATTEMPT_HEADER: &str = "x-envoy-attempt-count";

/// Tells an attempt that is the router's own second one: the first had no answer at all, and this
/// one goes to the escape listener, which answers for the platform that could not be reached.
pub fn is_escape(request: &HeaderMap) -> bool {
    request
        .first(ATTEMPT_HEADER)
        .is_some_and(|count| count != b"1")
}

/// The status of the escape listener's answer.
pub const ESCAPE_STATUS: u16 = 503;

/// Tells the escape listener by its `address`, a socket's path: accounts have no other host that is a file. A first attempt
/// reaches it where its cluster has no host of its own.
pub fn is_escape_address(address: &[u8]) -> bool {
    address.starts_with(b"/")
}

/// Stands for the model of a request that does not say it, or not in a way that can be read.
const UNREAD_MODEL: &str = "unread";

/// The milliseconds for which an account is out where the platform limits one model of it and
/// nobody knows which requests that concerns: long enough to leave it alone, too short for one
/// model's limit to cost the others much.
pub const UNREAD_MODEL_MS: u64 = 10_000;

/// Judges an answer, other than a redirect, to a request for `model`.
pub fn judge(
    status: u16,
    headers: &HeaderMap,
    error: Option<&ErrorBody>,
    platform: &Platform,
    model: Option<&str>,
    now: u64,
) -> Verdict {
    let quota = Quota::read(&platform.quota, headers, now);
    let answer = Answer {
        status,
        headers,
        quota: &quota,
        error,
        model: Some(model.unwrap_or(UNREAD_MODEL)),
    };
    match verdict::judge(&platform.verdicts, &answer, now) {
        Verdict::CoolingDown {
            scope: Scope::Model(_),
            until,
            reason,
            ..
        } if model.is_none() => Verdict::CoolingDown {
            scope: Scope::Account,
            until: until.min(now.saturating_add(UNREAD_MODEL_MS)),
            guessed: true,
            reason,
        },
        verdict => verdict,
    }
}

/// Tells a verdict by which another account could do better.
pub fn is_worth_another(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Fine | Verdict::CallersFault)
}

/// Tells a verdict about `account` that goes on the board.
///
/// The good path posts nothing, unless there is a guess to take down. A request speaks against one
/// account at most, however many it was tried on: it may be the request that makes them fail. An API
/// key that is refused in words that no rule knows may lack a right for this path alone.
pub fn is_posted(verdict: &Verdict, account: &Account, carried: &Carried, board: &Board) -> bool {
    let may_blame = !carried.blames || carried.waited.as_ref() == Some(&account.id);
    match verdict {
        Verdict::Fine => {
            let model = carried.model.as_ref().map(HeaderText::as_str);
            board.is_guessed_out(account, Striker::of(&carried.key), model)
        }
        Verdict::CallersFault => false,
        // Another account has to do it first.
        verdict if verdict.is_not_served() => false,
        Verdict::CredentialExpired => may_blame && is_refreshable(account),
        Verdict::CoolingDown { .. } | Verdict::PlatformTrouble { .. } | Verdict::Dead { .. } => {
            may_blame
        }
    }
}

/// Tells a status that blames the request where two accounts answer with it. A 401, 402 or 429 speaks
/// of the account whatever was asked, and two accounts may be without money or at their limit.
pub fn blames_request(status: u16) -> bool {
    (400..=499).contains(&status) && !verdict::rule::OF_THE_ACCOUNT.contains(&status)
}

/// Tells an account to which another credential may come by itself. An API key has no end, and no
/// successor.
pub fn is_refreshable(account: &Account) -> bool {
    account.credential_expires_at.is_some()
}

/// The header by which Envoy knows the scheme that a request came with. Without it there is no
/// route for a second try.
pub const SCHEME_HEADER: &str = "x-forwarded-proto";

/// The request as it has to be when it runs again, from what an earlier attempt of the same try
/// left of it: without that attempt's credential, wherever that was. `query`: the caller's own, where the account's took its
/// place. `listed`: the lists that the profile changes, as the caller sent them ([`listed`]). `length`: that of the
/// caller's own body, where it is known.
pub fn restored(
    request: &HeaderMap,
    platform: &Platform,
    carried: &Carried,
    query: Option<&[u8]>,
    listed: &[List],
    length: Option<&[u8]>,
) -> HeaderMap {
    let is_replaced = |name: &str| {
        let set = &platform.headers.set;
        name == SCHEME_HEADER || name == ":path" || set.iter().any(|(set, _)| set.as_str() == name)
    };
    let (path, left) = split_target(request.first(":path").unwrap_or_default());
    let query = query.map_or_else(|| platform.query.without(left), <[u8]>::to_vec);
    let path = match carried.url.path() {
        // A request from an odd URL runs again nowhere.
        "" => path,
        callers => callers.as_bytes(),
    };
    let target = target(path, &query);
    let is_listed = |name: &str| listed.iter().any(|(list, _)| list == name);
    let kept = request.iter();
    let kept = kept.filter(|(name, _)| !is_replaced(name) && !is_listed(name));
    let kept = kept.map(|(name, value)| match name {
        "content-length" => (name, length.unwrap_or(value)),
        name => (name, value),
    });
    let lists = listed.iter().flat_map(|(name, values)| {
        let values = values.iter();
        values.map(move |value| (name.as_str(), value.as_slice()))
    });
    let scheme = carried.url.scheme().as_bytes();
    kept.chain(lists)
        .chain([(SCHEME_HEADER, scheme), (":path", target.as_slice())])
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .collect::<Vec<_>>()
        .into()
}

/// Where the request runs again: its own URL. None where that cannot be told.
pub fn location(request: &HeaderMap, carried: &Carried) -> Option<Vec<u8>> {
    let (_, query) = split_target(request.first(":path").unwrap_or_default());
    carried.url.with_query(query)
}

#[cfg(test)]
mod tests {
    mod kinds;

    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::fixture;

    /// Header lists with the names that matter, in any number and order, with any bytes.
    fn any_headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let name = prop_oneof![
            prop::sample::select(vec![
                ":authority",
                ":path",
                "authorization",
                "x-api-key",
                "chatgpt-account-id",
                "x-latchkey-cluster",
                "x-envoy-retry-on",
                "x-forwarded-for",
                "accept-encoding",
                "x-codex-window-id",
                "content-length",
                "cookie",
            ])
            .prop_map(str::to_owned),
            "[a-z][a-z0-9-]{0,20}",
        ];
        prop::collection::vec((name, any::<Vec<u8>>()), 0..30)
    }

    /// The request at the platform's first endpoint.
    fn outgoing<'a>(
        request: &'a HeaderMap,
        platform: &'a Platform,
        account: &'a Account,
    ) -> Result<Headers<'a>, Refusal> {
        headers(
            request,
            platform,
            &platform.endpoints[0],
            account,
            &Places::default(),
        )
    }

    proptest! {
        #[test]
        fn one_credential_goes_out_whatever_comes_in(extra in any_headers()) {
            let mut request = vec![(":path".to_owned(), b"/v1/responses".to_vec())];
            request.extend(extra);
            let request = HeaderMap::from(request);
            let (platform, account) =
                (fixture::platform("codex"), fixture::account("acc_1", "codex"));
            let outgoing = outgoing(&request, &platform, &account).unwrap();
            let values = |wanted: &str| -> Vec<Vec<u8>> {
                let of = outgoing.iter().filter(|(name, _)| *name == wanted);
                of.map(|(_, value)| value.to_vec()).collect()
            };
            prop_assert_eq!(values("authorization"), [b"Bearer token-of-acc_1".to_vec()]);
            prop_assert_eq!(values("chatgpt-account-id"), [b"ws-acc_1".to_vec()]);
            prop_assert_eq!(values(":authority"), [b"up.test".to_vec()]);
            prop_assert_eq!(values("accept-encoding"), [b"identity".to_vec()]);
            for (name, _) in &outgoing {
                let ours = [":authority", ":path", "accept-encoding", "authorization", "chatgpt-account-id"];
                let allowed = platform.headers.allow.iter().any(|pattern| pattern.matches(name));
                prop_assert!(allowed || ours.contains(name) || FRAMING.contains(name), "{}", name);
            }
        }
    }

    #[test]
    fn an_item_of_a_list_stays_here_where_the_profile_says_so() {
        let (mut platform, account) = (
            fixture::platform("anthropic"),
            fixture::account("acc_1", "anthropic"),
        );
        platform.headers = serde_json::from_value(serde_json::json!({
            "set": [["x-api-key", "{credential}"]], "allow": ["anthropic-*"], "remove": [["anthropic-beta", "oauth-1"]],
        }))
        .unwrap();
        let request = HeaderMap::from_iter([
            (":path", "/v1/messages"),
            ("anthropic-beta", "a-1, oauth-1,b-1"),
            ("anthropic-beta", "oauth-1"),
            ("anthropic-beta", "c-1"),
            ("anthropic-version", "oauth-1"),
        ]);
        let outgoing = outgoing(&request, &platform, &account).unwrap();
        let anthropic = outgoing
            .iter()
            .filter(|(name, _)| name.starts_with("anthropic"));
        let anthropic: Vec<_> = anthropic
            .map(|(name, value)| (*name, std::str::from_utf8(value).unwrap()))
            .collect();
        let expected = [
            ("anthropic-beta", "a-1,b-1"),
            ("anthropic-beta", "c-1"),
            ("anthropic-version", "oauth-1"),
        ];
        assert_eq!(anthropic, expected);
    }

    fn sent(request: &[(&str, &str)]) -> Vec<(String, String)> {
        let request: HeaderMap = request.iter().copied().collect();
        let (platform, account) = (
            fixture::platform("codex"),
            fixture::account("acc_1", "codex"),
        );
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        outgoing(&request, &platform, &account)
            .unwrap()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), text(&value)))
            .collect()
    }

    #[test]
    fn only_what_the_profile_allows_goes_out_with_one_credential() {
        let sent = sent(&[
            (":method", "POST"),
            (":authority", "gateway.corp"),
            (":path", "/v1/responses?beta=true"),
            (":scheme", "http"),
            ("content-length", "12"),
            ("authorization", "Bearer lk_client"),
            ("chatgpt-account-id", "forged"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-envoy-attempt-count", "1"),
            ("x-latchkey-cluster", "latchkey-acc_1"),
            ("x-request-id", "abc"),
            ("cookie", "session=1"),
            ("accept-encoding", "gzip, br"),
            ("x-codex-window-id", "w:0"),
            ("accept", "text/event-stream"),
        ]);
        let expected = [
            (":authority", "up.test"),
            (":path", "/backend-api/codex/responses?beta=true"),
            ("accept-encoding", "identity"),
            (":method", "POST"),
            (":scheme", "http"),
            ("content-length", "12"),
            ("x-codex-window-id", "w:0"),
            ("accept", "text/event-stream"),
            ("authorization", "Bearer token-of-acc_1"),
            ("chatgpt-account-id", "ws-acc_1"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(sent, expected);
    }

    #[test]
    fn the_endpoint_is_the_one_that_the_gate_chose_while_it_answers_that() {
        let mut platform = fixture::platform("codex");
        let doors = fixture::doors();
        let of = |platform: &Platform, door: u16| {
            let text = format!(
                "account=acc_1 key=key_1 pool=default url= door={door} dialect=responses endpoint=0"
            );
            let carried = Carried::decode(text.as_bytes()).unwrap();
            endpoint(platform, Some(&doors), &carried).is_some()
        };
        assert!(of(&platform, fixture::RESPONSES));
        assert!(of(&platform, fixture::CHAT), "translated");
        assert!(!of(&platform, fixture::NOWHERE), "another door");
        assert!(!of(&platform, 999), "a door that is gone");
        let embed = platform.endpoints[0].clone();
        platform.endpoints.insert(0, embed);
        platform.endpoints[0].operation = "embed".to_owned().try_into().unwrap();
        assert!(!of(&platform, fixture::RESPONSES), "the profile changed");
    }

    /// A platform whose model is in the path and whose key is in the query.
    fn odd_platform() -> Platform {
        let mut platform = fixture::platform("codex");
        platform.base_path = "/base".to_owned().try_into().unwrap();
        platform.endpoints[0].path = "/m/{model}:go".to_owned().try_into().unwrap();
        platform.query = serde_json::from_str(r#"[["key","{credential}"]]"#).unwrap();
        platform
    }

    #[test]
    fn a_model_goes_out_in_the_path_and_a_key_in_the_query() {
        let (platform, account) = (odd_platform(), fixture::account("acc_1", "codex"));
        let sent = |path: &str, model: Option<&str>| {
            let request: HeaderMap = [(":path", path)].into_iter().collect();
            let places = Places {
                model: model.and_then(|model| HeaderText::try_from(model).ok()),
                ..Places::default()
            };
            let sent = headers(
                &request,
                &platform,
                &platform.endpoints[0],
                &account,
                &places,
            );
            let target = sent.ok()?.remove(1);
            Some(String::from_utf8(target.1.into_owned()).unwrap())
        };
        assert_eq!(
            sent("/v1/x?alt=sse&key=mine", Some("a:b")).unwrap(),
            "/base/m/a:b:go?alt=sse&key=token-of-acc_1"
        );
        assert_eq!(sent("/v1/x", Some("../up")), None);
        assert_eq!(sent("/v1/x", None), None);
    }

    #[test]
    fn a_key_in_the_query_is_in_nothing_that_runs_again() {
        let left: HeaderMap = [
            (":path", "/base/m/a:go?alt=sse&key=token-of-acc_1"),
            (":method", "POST"),
        ]
        .into_iter()
        .collect();
        let carried = Carried::decode(
            b"account=acc_1 key=key_1 pool=default url=http://gateway/v1/x door=1 dialect=chat endpoint=0",
        );
        let carried = carried.unwrap();
        let own = restored(
            &left,
            &odd_platform(),
            &carried,
            Some(b"key=mine&alt=sse"),
            &[],
            Some(b"9"),
        );
        assert_eq!(own.first(":path").unwrap(), b"/v1/x?key=mine&alt=sse");
        let restored = restored(&left, &odd_platform(), &carried, None, &[], None);
        assert_eq!(restored.first(":path").unwrap(), b"/v1/x?alt=sse");
        let heard: Vec<_> = escaping(&restored).collect();
        assert!(heard.contains(&(":path", b"/v1/x?alt=sse")));
        let location = location(&restored, &carried).unwrap();
        assert_eq!(location, b"http://gateway/v1/x?alt=sse");
    }

    #[test]
    fn a_default_gives_way_to_the_caller() {
        let (platform, account) = (
            fixture::platform("anthropic"),
            fixture::account("acc_2", "anthropic"),
        );
        let versions = |request: &[(&str, &str)]| -> Vec<Vec<u8>> {
            let request: HeaderMap = request.iter().copied().collect();
            outgoing(&request, &platform, &account)
                .unwrap()
                .into_iter()
                .filter(|(name, _)| *name == "anthropic-version")
                .map(|(_, value)| value.into_owned())
                .collect()
        };
        let path = (":path", "/v1/messages");
        assert_eq!(versions(&[path]), [b"2023-06-01"]);
        assert_eq!(
            versions(&[path, ("anthropic-version", "2024-01-01")]),
            [b"2024-01-01"]
        );
    }

    #[test]
    fn an_item_is_added_to_the_callers_list_or_taken_off_and_the_list_put_back() {
        let mut platform = fixture::platform("anthropic");
        let account = fixture::account("acc_2", "anthropic");
        platform.headers.add = serde_json::from_str(r#"[["anthropic-beta","new-1"]]"#).unwrap();
        let request: HeaderMap = [(":path", "/v1/messages"), ("anthropic-beta", "a")]
            .into_iter()
            .collect();
        let betas = |platform: &Platform| -> Vec<Vec<u8>> {
            let sent = outgoing(&request, platform, &account).unwrap();
            let sent = sent
                .into_iter()
                .filter(|(name, _)| *name == "anthropic-beta");
            sent.map(|(_, value)| value.into_owned()).collect()
        };
        assert_eq!(betas(&platform), [b"a,new-1"]);
        let carried = Carried::decode(
            b"account=acc_2 key=key_1 pool=default url=http://gateway/v1/messages door=1 dialect=messages endpoint=0",
        );
        let carried = carried.unwrap();
        platform.headers.remove = serde_json::from_str(r#"[["anthropic-beta","own-1"]]"#).unwrap();
        for own in [
            &["a"][..],
            &[],
            &["a,new-1"],
            &["own-1"],
            &["own-1,a", "b, own-1 ,c"],
        ] {
            let own = own.iter().map(|value| ("anthropic-beta", *value));
            let request: HeaderMap = [(":path", "/v1/messages")].into_iter().chain(own).collect();
            let sent = outgoing(&request, &platform, &account).unwrap();
            let sent = sent
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()));
            let left: HeaderMap = sent.collect::<Vec<_>>().into();
            let listed = listed(&request, &platform);
            let restored = restored(&left, &platform, &carried, None, &listed, None);
            let betas = |headers: &HeaderMap| -> Vec<Vec<u8>> {
                let betas = headers.iter().filter(|(name, _)| *name == "anthropic-beta");
                betas.map(|(_, value)| value.to_vec()).collect()
            };
            assert_eq!(betas(&restored), betas(&request));
        }
        let beta = platform.headers.add[0].0.clone();
        platform.endpoints[0].omit.push(beta);
        assert_eq!(betas(&platform), [b"a"]);
    }

    #[test]
    fn nothing_goes_out_without_a_variable() {
        let (platform, mut account) = (
            fixture::platform("codex"),
            fixture::account("acc_1", "codex"),
        );
        account.vars.clear();
        let request: HeaderMap = [(":path", "/v1/responses")].into_iter().collect();
        assert!(outgoing(&request, &platform, &account).is_err());
    }

    #[test]
    fn an_answer_is_judged_by_its_status_where_no_rule_is() {
        let platform = fixture::platform("codex");
        let judge = |status| judge(status, &HeaderMap::default(), None, &platform, None, 1_000);
        assert_eq!(judge(200), Verdict::Fine);
        assert_eq!(judge(401), Verdict::CredentialExpired);
        assert_eq!(judge(404), Verdict::CallersFault);
        assert!(matches!(judge(429), Verdict::CoolingDown { .. }));
        assert!(is_worth_another(&judge(503)) && !is_worth_another(&judge(400)));
    }

    #[test]
    fn a_models_limit_is_its_own_and_where_nobody_knows_it_the_accounts_for_a_moment() {
        let mut platform = fixture::platform("codex");
        let rule = r#"{"status":[429],"verdict":"cooling_down","scope":"model","until":["header:retry-after"],"default_seconds":30,"max_seconds":86400}"#;
        platform.verdicts = vec![serde_json::from_str(rule).unwrap()];
        let headers: HeaderMap = [("retry-after", "86000")].into_iter().collect();
        let Verdict::CoolingDown {
            scope,
            until,
            guessed,
            ..
        } = judge(429, &headers, None, &platform, None, 1_000)
        else {
            panic!("no cool-down");
        };
        assert_eq!(
            (scope, until, guessed),
            (Scope::Account, 1_000 + UNREAD_MODEL_MS, true)
        );
        let known = judge(429, &headers, None, &platform, Some("gpt"), 1_000);
        let expected = Verdict::CoolingDown {
            scope: Scope::Model("gpt".try_into().unwrap()),
            until: 1_000 + 86_000_000,
            guessed: false,
            reason: verdict::Reason::rate_limited(),
        };
        assert_eq!(known, expected);
    }

    #[test]
    fn a_request_speaks_against_one_account_at_most() {
        let first = "account=acc_1 key=key_1 pool=default url=http://gateway/v1/responses door=1 dialect=responses endpoint=0";
        let second = format!("{first} since=5 tried=acc_2:1");
        let third = format!("{second} blames=account");
        let carried = |text: &str| Carried::decode(text.as_bytes()).unwrap();
        let (first, second, third) = (carried(first), carried(&second), carried(&third));
        let trouble = Verdict::PlatformTrouble { until: 9 };
        let nobody = Board::new();
        let mut account = fixture::account("acc_1", "codex");
        let expired = Verdict::CredentialExpired;
        let limited = |scope, guessed| Verdict::CoolingDown {
            scope,
            until: 9,
            guessed,
            reason: verdict::Reason::rate_limited(),
        };
        let posted = |verdict: &Verdict, account: &Account, carried: &Carried| {
            is_posted(verdict, account, carried, &nobody)
        };
        let dead = Verdict::Dead {
            reason: verdict::Reason::known("banned"),
        };
        for verdict in [
            trouble.clone(),
            limited(Scope::Account, false),
            limited(Scope::Account, true),
            dead,
        ] {
            assert!(posted(&verdict, &account, &first), "{verdict:?}");
            assert!(posted(&verdict, &account, &second), "nobody was blamed");
            assert!(!posted(&verdict, &account, &third), "{verdict:?}");
        }
        assert!(!posted(&Verdict::Fine, &account, &first));
        assert!(!posted(&expired, &account, &first), "an API key");
        account.credential_expires_at = Some(1);
        assert!(posted(&expired, &account, &first), "a login");
        assert!(!posted(&expired, &account, &third), "a login");
        let mut board = Board::new();
        board.post(&account, &trouble, 0);
        let fine = Verdict::Fine;
        assert!(!is_posted(&fine, &account, &first, &board), "a strike");
        board.post(&account, &trouble, 0);
        board.post(&account, &trouble, 0);
        assert!(is_posted(&fine, &account, &first, &board));
        let other = fixture::account("acc_2", "codex");
        assert!(!is_posted(&Verdict::Fine, &other, &first, &board));
    }

    #[test]
    fn what_an_earlier_attempt_left_is_put_right() {
        let left: HeaderMap = [
            (":path", "/backend-api/codex/responses?a=b"),
            ("authorization", "Bearer token-of-acc_1"),
            ("chatgpt-account-id", "ws-acc_1"),
            ("accept", "text/event-stream"),
        ]
        .into_iter()
        .collect();
        let carried = Carried::decode(
            b"account=acc_1 key=key_1 pool=default url=https://gateway:8443/v1/responses door=1 dialect=responses endpoint=0",
        );
        let carried = carried.unwrap();
        let platform = fixture::platform("codex");
        let expected: [(&str, &[u8]); 3] = [
            ("accept", b"text/event-stream"),
            (SCHEME_HEADER, b"https"),
            (":path", b"/v1/responses?a=b"),
        ];
        let restored = restored(&left, &platform, &carried, None, &[], None);
        assert_eq!(restored.iter().collect::<Vec<_>>(), expected);
        assert_eq!(
            location(&restored, &carried).unwrap(),
            b"https://gateway:8443/v1/responses?a=b"
        );
    }

    #[test]
    fn the_escape_hears_no_credential() {
        let left: HeaderMap = [
            (":method", "POST"),
            (":authority", "up.test"),
            (":path", "/backend-api/codex/responses"),
            ("authorization", "Bearer token-of-acc_1"),
            ("session-id", "s1"),
            ("content-length", "2"),
        ]
        .into_iter()
        .collect();
        let names: Vec<_> = escaping(&left).map(|(name, _)| name).collect();
        assert_eq!(names, [":method", ":authority", ":path"]);
    }

    #[test]
    fn the_second_attempt_of_a_pass_is_the_escape() {
        let count = |count| is_escape(&[(ATTEMPT_HEADER, count)].into_iter().collect());
        assert!(!count("1") && count("2"));
        assert!(!is_escape(&HeaderMap::default()));
    }
}
