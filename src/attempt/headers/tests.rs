use proptest::prelude::*;

use super::*;
use crate::{header::HeaderText, snapshot::fixture};

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

/// A platform whose model is in the path and whose key is in the query.
fn odd_platform() -> Platform {
    let mut platform = fixture::platform("codex");
    platform.base_path = "/base".to_owned().try_into().unwrap();
    platform.endpoints[0].path = "/m/{model}:go".to_owned().try_into().unwrap();
    platform.query = serde_json::from_str(r#"[["key","{credential}"]]"#).unwrap();
    platform
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

#[test]
fn an_item_is_added_to_the_callers_list_unless_the_endpoint_omits_that() {
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
fn the_escape_hears_where_the_request_goes_and_nothing_else_of_it() {
    let request: HeaderMap = [
        (":method", "POST"),
        (":authority", "gateway.test"),
        (":path", "/v1/responses"),
        ("cookie", "session=1"),
        ("session-id", "s1"),
        ("content-length", "2"),
    ]
    .into_iter()
    .collect();
    let names: Vec<_> = escaping(&request).map(|(name, _)| name).collect();
    assert_eq!(names, [":method", ":authority", ":path"]);
}
