use proptest::prelude::*;

use super::*;
use crate::snapshot::{Policy, Record, fixture};

const KEY: &str = "lk_0123456789";

fn records() -> Vec<Record> {
    vec![
        Record::Platform(fixture::platform("codex")),
        Record::Platform(fixture::platform("anthropic")),
        Record::Account(fixture::account("acc_1", "codex")),
        Record::Account(fixture::account("acc_2", "codex")),
        Record::Pool(fixture::pool(
            "default",
            Policy::Sticky,
            &["acc_1", "acc_2"],
        )),
        Record::Key(fixture::client_key("key_1", KEY.as_bytes(), "default")),
        Record::Key(fixture::client_key("key_2", b"lk_other", "gone")),
    ]
}

fn request<'a>(extra: &[(&'a str, &'a str)]) -> HeaderMap {
    let base = [
        (":method", "POST"),
        (":path", "/v1/responses"),
        (":authority", "gateway"),
        ("content-type", "application/json"),
    ];
    let replaced = |name: &str| extra.iter().any(|(other, _)| *other == name);
    base.into_iter()
        .filter(|(name, _)| !replaced(name))
        .chain(extra.iter().copied())
        .collect()
}

fn decide(headers: &HeaderMap) -> Decision {
    Gate::default().decide(headers, Some(&View::of(&records())), 0)
}

fn refused(headers: &[(&str, &str)]) -> (u16, String) {
    match decide(&request(headers)) {
        Decision::Reply(reply) => {
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            (
                reply.status,
                body["error"]["code"].as_str().unwrap().to_owned(),
            )
        }
        Decision::Forward(forward) => panic!("{forward:?}"),
    }
}

#[test]
fn a_known_key_reaches_an_account_of_its_pool() {
    let headers = request(&[("x-api-key", KEY), ("session-id", "s1")]);
    let Decision::Forward(first) = decide(&headers) else {
        panic!("refused");
    };
    let Decision::Forward(second) = decide(&headers) else {
        panic!("refused");
    };
    assert_eq!(first.account.id, second.account.id);
}

#[test]
fn whatever_could_steer_or_leak_is_stripped() {
    let headers = request(&[
        ("authorization", "Bearer lk_0123456789"),
        ("x-latchkey-cluster", "evil"),
        ("chatgpt-account-id", "ws"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-retry-on", "reset"),
        ("accept", "text/event-stream"),
    ]);
    let Decision::Forward(forward) = decide(&headers) else {
        panic!("refused");
    };
    assert_eq!(
        forward.strip,
        [
            "authorization",
            "x-latchkey-cluster",
            "chatgpt-account-id",
            "x-envoy-retry-on"
        ]
    );
}

#[test]
fn each_refusal_has_its_status_and_code() {
    let key = ("x-api-key", KEY);
    for (headers, status, code) in [
        (vec![], 401, "latchkey_no_key"),
        (vec![("x-api-key", "lk_wrong")], 401, "latchkey_unknown_key"),
        (
            vec![key, ("authorization", "Bearer x")],
            400,
            "latchkey_ambiguous_key",
        ),
        (
            vec![key, (":path", "/v1/responses?key=x")],
            400,
            "latchkey_ambiguous_key",
        ),
        (vec![key, (":path", "/admin")], 404, "latchkey_unknown_path"),
        (
            vec![key, (":path", "/v1/responses/../x")],
            404,
            "latchkey_unknown_path",
        ),
        (
            vec![key, (":path", "/v1/messages")],
            503,
            "latchkey_no_account",
        ),
        (
            vec![key, (":method", "GET")],
            405,
            "latchkey_method_not_allowed",
        ),
        (
            vec![key, (":method", "GET"), ("upgrade", "websocket")],
            426,
            "latchkey_no_upgrade",
        ),
        (vec![("x-api-key", "lk_other")], 503, "latchkey_no_pool"),
        (
            vec![key, (":path", "/v1/models")],
            405,
            "latchkey_method_not_allowed",
        ),
    ] {
        assert_eq!(refused(&headers), (status, code.to_owned()), "{headers:?}");
    }
}

#[test]
fn without_a_snapshot_a_request_waits_outside() {
    let headers = request(&[("x-api-key", KEY)]);
    match Gate::default().decide(&headers, None, 0) {
        Decision::Reply(reply) => assert_eq!(reply.status, 503),
        Decision::Forward(forward) => panic!("{forward:?}"),
    }
}

#[test]
fn models_are_answered_here() {
    let headers = request(&[
        ("x-api-key", KEY),
        (":method", "GET"),
        (":path", "/v1/models"),
    ]);
    match decide(&headers) {
        Decision::Reply(reply) => {
            assert_eq!(reply.status, 200);
            assert!(reply.body.contains("gpt-6.1-sol"));
            assert!(
                !reply.body.contains("claude"),
                "the pool has no such account"
            );
        }
        Decision::Forward(forward) => panic!("{forward:?}"),
    }
}

#[test]
fn tables_follow_the_view_and_stay_few() {
    let mut gate = Gate::default();
    let view = View::of(&records());
    for n in 0..100 {
        let path = format!("/v1/{n}");
        let headers = request(&[("x-api-key", KEY), (":path", &path)]);
        gate.decide(&headers, Some(&view), 0);
    }
    let headers = request(&[("x-api-key", KEY)]);
    gate.decide(&headers, Some(&view), 0);
    assert_eq!(gate.tables.values().map(HashMap::len).sum::<usize>(), 1);

    let fewer: Vec<_> = records()
        .into_iter()
        .filter(|record| !matches!(record, Record::Account(_)))
        .collect();
    // Another view at another version: made of fewer records, then touched once more.
    let mut view = View::of(&fewer);
    view.replace(0, &crate::snapshot::bucket::Bucket::default())
        .unwrap();
    let Decision::Reply(reply) = gate.decide(&headers, Some(&view), 0) else {
        panic!("an account that is gone was used");
    };
    assert_eq!(reply.status, 503);
}

proptest! {
    #[test]
    fn no_request_panics_and_no_credential_stays(
        path in prop_oneof![Just(b"/v1/responses".to_vec()), any::<Vec<u8>>()],
        headers in prop::collection::vec(
            (
                prop_oneof![
                    prop::sample::select(client_key::KEY_HEADERS.to_vec()).prop_map(str::to_owned),
                    "x-(latchkey|envoy|other)-[a-z]{1,8}",
                    "[a-z-]{1,12}",
                ],
                prop_oneof![Just(b"Bearer lk_0123456789".to_vec()), Just(KEY.as_bytes().to_vec()), any::<Vec<u8>>()],
            ),
            0..6,
        ),
    ) {
        let mut all = vec![(":path".to_owned(), path), (":method".to_owned(), b"POST".to_vec())];
        all.extend(headers);
        let map = HeaderMap::from(all);
        if let Decision::Forward(forward) = decide(&map) {
            for (name, _) in map.iter() {
                let must_go = client_key::KEY_HEADERS.contains(&name)
                    || INTERNAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
                prop_assert_eq!(forward.strip.iter().any(|strip| strip == name), must_go || STRIPPED.contains(&name));
            }
        }
    }
}
