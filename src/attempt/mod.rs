//! The attempt: one try of one request on one account.
//!
//! It runs in Envoy's upstream filter chain, so the credential exists only on the wire to the
//! platform: no other filter, access log or redirect sees it.

use std::borrow::Cow;

use crate::{
    dialect::{Dialect, Refusal},
    gate::split_target,
    header::HeaderMap,
    snapshot::{Account, HeaderPlan, Platform},
    sync::report::{Report, ReportKind},
};

/// The property, in the request's filter state, by which the gate tells the attempt the account.
/// A caller cannot reach it. It survives an internal redirect, and access logs show it as
/// `%FILTER_STATE(wasm.latchkey.account:PLAIN)%`.
pub const ACCOUNT_PROPERTY: &str = "latchkey.account";

/// The headers that frame the request; they pass whatever the platform's allow-list says.
const FRAMING: [&str; 3] = [":method", ":scheme", "content-length"];

/// A request as it goes to the platform.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Its whole header block, in wire order.
    pub headers: Vec<(&'a str, Cow<'a, [u8]>)>,
    /// The wire format of the route, for an error of ours in place of the answer.
    pub dialect: Dialect,
}

/// The request for `account`: the platform's authority and path, the caller's headers that
/// the platform's profile allows, and the credential. Nothing else.
///
/// # Errors
/// [`Refusal::NoCredential`] where the platform has no such route any more or a header template
/// needs what the account lacks: a request never goes out without its credential.
pub fn headers<'a>(
    request: &'a HeaderMap,
    platform: &'a Platform,
    account: &'a Account,
) -> Result<Outgoing<'a>, Refusal> {
    let (path, query) = split_target(request.first(":path").unwrap_or_default());
    let route = std::str::from_utf8(path)
        .ok()
        .and_then(|path| platform.route(path))
        .ok_or(Refusal::NoCredential)?;
    let mut target = route.upstream.as_str().as_bytes().to_vec();
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let plan = &platform.headers;
    let mut headers: Vec<(&str, Cow<'_, [u8]>)> = vec![
        (":authority", account.authority.as_str().as_bytes().into()),
        (":path", target.into()),
        // What comes back must be readable here: it is metered and judged as it passes.
        ("accept-encoding", b"identity".as_slice().into()),
    ];
    headers.extend(
        request
            .iter()
            .filter(|(name, _)| FRAMING.contains(name) || passes(plan, name))
            .map(|(name, value)| (name, value.into())),
    );
    for (name, value) in &plan.default {
        if request.first(name.as_str()).is_none() {
            headers.push((name.as_str(), value.as_str().as_bytes().into()));
        }
    }
    for (name, template) in &plan.set {
        let value = template.render(account).ok_or(Refusal::NoCredential)?;
        headers.push((name.as_str(), value.into_bytes().into()));
    }
    Ok(Outgoing {
        headers,
        dialect: route.dialect,
    })
}

/// Whether the caller's header `name` goes out.
fn passes(plan: &HeaderPlan, name: &str) -> bool {
    plan.allow.iter().any(|pattern| pattern.matches(name))
        && name != "accept-encoding"
        && !plan.set.iter().any(|(set, _)| set.as_str() == name)
}

/// What to do with a platform's answer, by its status.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Let it pass.
    Pass,
    /// Let it pass, and tell the refresher.
    Report(Report),
    /// Answer something else: a redirect would send the caller, and its client key, elsewhere.
    Replace(Refusal),
}

/// Judges an answer with this `:status` to a request that was sent as `account`.
pub fn judge(status: &[u8], account: &Account) -> Judgement {
    match status {
        b"401" => Judgement::Report(Report {
            account: account.id.clone(),
            generation: account.generation,
            kind: ReportKind::Unauthorized,
        }),
        [b'3', ..] => Judgement::Replace(Refusal::Redirected),
        _ => Judgement::Pass,
    }
}

#[cfg(test)]
mod tests {
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

    proptest! {
        #[test]
        fn one_credential_goes_out_whatever_comes_in(extra in any_headers()) {
            let mut request = vec![(":path".to_owned(), b"/v1/responses".to_vec())];
            request.extend(extra);
            let request = HeaderMap::from(request);
            let (platform, account) =
                (fixture::platform("codex"), fixture::account("acc_1", "codex"));
            let outgoing = headers(&request, &platform, &account).unwrap().headers;
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

    fn sent(request: &[(&str, &str)]) -> Vec<(String, String)> {
        let request: HeaderMap = request.iter().copied().collect();
        let (platform, account) = (
            fixture::platform("codex"),
            fixture::account("acc_1", "codex"),
        );
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers(&request, &platform, &account)
            .unwrap()
            .headers
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
    fn a_default_gives_way_to_the_caller() {
        let (platform, account) = (
            fixture::platform("anthropic"),
            fixture::account("acc_2", "anthropic"),
        );
        let versions = |request: &[(&str, &str)]| -> Vec<Vec<u8>> {
            let request: HeaderMap = request.iter().copied().collect();
            headers(&request, &platform, &account)
                .unwrap()
                .headers
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
    fn nothing_goes_out_without_a_route_or_a_variable() {
        let (platform, mut account) = (
            fixture::platform("codex"),
            fixture::account("acc_1", "codex"),
        );
        let other: HeaderMap = [(":path", "/v1/messages")].into_iter().collect();
        assert!(headers(&other, &platform, &account).is_err());
        account.vars.clear();
        let request: HeaderMap = [(":path", "/v1/responses")].into_iter().collect();
        assert!(headers(&request, &platform, &account).is_err());
    }

    #[test]
    fn a_401_is_reported_and_a_redirect_stays_here() {
        let account = fixture::account("acc_1", "codex");
        assert_eq!(judge(b"200", &account), Judgement::Pass);
        assert_eq!(
            judge(b"304", &account),
            Judgement::Replace(Refusal::Redirected)
        );
        assert_eq!(
            judge(b"307", &account),
            Judgement::Replace(Refusal::Redirected)
        );
        let Judgement::Report(report) = judge(b"401", &account) else {
            panic!("not reported");
        };
        assert_eq!(report.generation, 1);
    }
}
