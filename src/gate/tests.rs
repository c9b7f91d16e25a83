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

static NOBODY: Board = Board::new();

/// A snapshot, nobody out, the start of time, and no patience.
fn knowing(view: Option<&View>) -> Knowledge<'_> {
    Knowledge {
        view,
        board: &NOBODY,
        now: 0,
        may_wait: false,
    }
}

fn decide(headers: &HeaderMap) -> Decision {
    Gate::default().decide(headers, None, &knowing(Some(&View::of(&records()))))
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
        other => panic!("{other:?}"),
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
            "chatgpt-account-id",
            "x-envoy-retry-on",
            "x-latchkey-cluster"
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
    match Gate::default().decide(&headers, None, &knowing(None)) {
        Decision::Reply(reply) => assert_eq!(reply.status, 503),
        other => panic!("{other:?}"),
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
        other => panic!("{other:?}"),
    }
}

#[test]
fn tables_follow_the_view_and_stay_few() {
    let mut gate = Gate::default();
    let view = View::of(&records());
    for n in 0..100 {
        let path = format!("/v1/{n}");
        let headers = request(&[("x-api-key", KEY), (":path", &path)]);
        gate.decide(&headers, None, &knowing(Some(&view)));
    }
    let headers = request(&[("x-api-key", KEY)]);
    gate.decide(&headers, None, &knowing(Some(&view)));
    assert_eq!(gate.tables.values().map(HashMap::len).sum::<usize>(), 1);

    let fewer: Vec<_> = records()
        .into_iter()
        .filter(|record| !matches!(record, Record::Account(_)))
        .collect();
    // Another view at another version: made of fewer records, then touched once more.
    let mut view = View::of(&fewer);
    view.replace(0, &crate::snapshot::bucket::Bucket::default())
        .unwrap();
    let Decision::Reply(reply) = gate.decide(&headers, None, &knowing(Some(&view))) else {
        panic!("an account that is gone was used");
    };
    assert_eq!(reply.status, 503);
}

#[test]
fn a_request_that_comes_again_goes_to_another_account_without_its_key() {
    let view = View::of(&records());
    let mut gate = Gate::default();
    let with_key = request(&[("x-api-key", KEY), ("session-id", "s1")]);
    let Decision::Forward(first) = gate.decide(&with_key, None, &knowing(Some(&view))) else {
        panic!("refused");
    };
    let passage = first.passage.after_failure(1, 1_000, 3, 10_000).unwrap();
    let again = request(&[("session-id", "s1")]);
    let Decision::Forward(second) = gate.decide(&again, Some(&passage), &knowing(Some(&view)))
    else {
        panic!("refused");
    };
    assert_ne!(first.account.id, second.account.id);
    assert_eq!(second.passage.tried, [(first.account.id.clone(), 1)]);
    assert_eq!(second.passage.key, first.passage.key);
    let last = second.passage.after_failure(1, 1_001, 3, 10_000).unwrap();
    let Decision::Reply(reply) = gate.decide(&again, Some(&last), &knowing(Some(&view))) else {
        panic!("an account was tried twice");
    };
    assert_eq!(reply.status, 429);
    assert!(reply.body.contains("latchkey_all_out"), "{}", reply.body);
}

#[test]
fn a_request_waits_for_a_refresh_while_it_may() {
    use crate::verdict::Verdict;
    let view = View::of(&records());
    let mut board = Board::new();
    for id in ["acc_1", "acc_2"] {
        let account = fixture::account(id, "codex");
        board.post(&account, &Verdict::CredentialExpired, 0);
    }
    let headers = request(&[("x-api-key", KEY)]);
    let patient = Knowledge {
        board: &board,
        may_wait: true,
        ..knowing(Some(&view))
    };
    let decision = Gate::default().decide(&headers, None, &patient);
    assert!(matches!(decision, Decision::Wait), "{decision:?}");
    let impatient = Knowledge {
        may_wait: false,
        ..patient
    };
    let Decision::Reply(reply) = Gate::default().decide(&headers, None, &impatient) else {
        panic!("it waits on");
    };
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("credential_expired"), "{}", reply.body);
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
