use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    dialect::Dialect,
    header::{HeaderMap, INTERNAL_PREFIXES},
    health::Witness,
    request::{ACCOUNT_HEADER, KEY_HEADERS, POOL_HEADER, PROXY_KEY_HEADER, peek::Peek},
    snapshot::{Models, Policy, Record, Requirement, fixture},
    verdict::{Reason, Scope, Verdict},
};

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
static NOBODY_FULL: FullAccounts = FullAccounts::new();

/// A snapshot, nobody out, the start of time, and no patience.
fn knowing(view: Option<&View>) -> Knowledge<'_> {
    Knowledge {
        is_confirmed: true,
        view,
        board: &NOBODY,
        full: &NOBODY_FULL,
        now: 0,
        try_id: TryId::default(),
        may_wait: false,
        soon: None,
        home: Home::Any,
    }
}

/// Asks and decides, as the stream does for a request whose body says this.
fn run(
    gate: &mut Gate,
    headers: &HeaderMap,
    carried: Option<&Carried>,
    body: &str,
    knowledge: &Knowledge<'_>,
) -> Decision {
    let mut request = Request::new(headers.clone(), carried.cloned());
    let wanted = match gate.ask(&mut request, knowledge) {
        Ok(wanted) => wanted,
        Err(reply) => return Decision::Reply(reply),
    };
    let mut peek = Peek::new(wanted);
    peek.push(body.as_bytes());
    gate.decide(&request.with_facts(peek.into_facts()), knowledge)
}

impl Gate {
    /// [`run`] without a body.
    fn decide_at_once(
        &mut self,
        headers: &HeaderMap,
        carried: Option<&Carried>,
        knowledge: &Knowledge<'_>,
    ) -> Decision {
        run(self, headers, carried, "", knowledge)
    }
}

fn decide(headers: &HeaderMap) -> Decision {
    let view = View::of(&records());
    Gate::default().decide_at_once(headers, None, &knowing(Some(&view)))
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
fn an_expired_key_is_refused_before_its_body_is_read() {
    let mut records = records();
    for record in &mut records {
        if let Record::Key(key) = record {
            key.expires_at = Some(5);
        }
    }
    let view = View::of(&records);
    for (now, refused) in [(4, None), (5, Some(401))] {
        let mut request = Request::new(request(&[("x-api-key", KEY)]), None);
        let knowledge = Knowledge {
            now,
            ..knowing(Some(&view))
        };
        let asked = Gate::default().ask(&mut request, &knowledge);
        assert_eq!(asked.err().map(|reply| reply.status), refused);
    }
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
            vec![("authorization", "Basic YTpi")],
            401,
            "latchkey_no_key",
        ),
        (
            vec![key, ("authorization", "Bearer lk_other")],
            400,
            "latchkey_ambiguous_key",
        ),
        (
            vec![key, (":path", "/v1/responses?key=x")],
            400,
            "latchkey_key_in_url",
        ),
        (vec![key, (":path", "/admin")], 404, "latchkey_unknown_path"),
        (
            vec![key, (":path", "/v1/nowhere")],
            404,
            "latchkey_unknown_path",
        ),
        (
            vec![key, (":path", "/v1/responses/../x")],
            404,
            "latchkey_unknown_path",
        ),
        (
            vec![key, (":path", "/v1/messages")],
            400,
            "latchkey_no_model",
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
    match Gate::default().decide_at_once(&headers, None, &knowing(None)) {
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
        gate.decide_at_once(&headers, None, &knowing(Some(&view)));
    }
    assert!(gate.tables.by_pool.is_empty());
    let mut records = in_path();
    records.push(Record::Key(fixture::client_key(
        "key_1",
        KEY.as_bytes(),
        "azure",
    )));
    let view = View::of(&records);
    let mut gate = Gate::default();
    for n in 0..100 {
        let path = format!("/v1/deployments/m{n}/chat");
        let headers = request(&[("x-api-key", KEY), (":path", &path)]);
        gate.decide_at_once(&headers, None, &knowing(Some(&view)));
    }
    assert_eq!(
        gate.tables
            .by_pool
            .values()
            .map(HashMap::len)
            .sum::<usize>(),
        1
    );

    let headers = request(&[("x-api-key", KEY)]);
    let fewer: Vec<_> = self::records()
        .into_iter()
        .filter(|record| !matches!(record, Record::Account(_)))
        .collect();
    // Another view at another version: made of fewer records, then touched once more.
    let mut view = View::of(&fewer);
    view.replace(0, &crate::snapshot::bucket::Bucket::default());
    let Decision::Reply(reply) = gate.decide_at_once(&headers, None, &knowing(Some(&view))) else {
        panic!("an account that is gone was used");
    };
    assert_eq!(reply.status, 503);
}

#[test]
fn a_request_that_comes_again_goes_to_another_account_without_its_key() {
    let view = View::of(&records());
    let mut gate = Gate::default();
    let with_key = request(&[("x-api-key", KEY), ("session-id", "s1")]);
    let Decision::Forward(first) = gate.decide_at_once(&with_key, None, &knowing(Some(&view)))
    else {
        panic!("refused");
    };
    let carried = first.carried.after_failure(1, 1_000, 3, 10_000).unwrap();
    let again = request(&[("session-id", "s1")]);
    let Decision::Forward(second) =
        gate.decide_at_once(&again, Some(&carried), &knowing(Some(&view)))
    else {
        panic!("refused");
    };
    assert_ne!(first.account.id, second.account.id);
    assert_eq!(second.carried.tried, [(first.account.id.clone(), 1)]);
    assert_eq!(second.carried.key, first.carried.key);
    let last = second.carried.after_failure(1, 1_001, 3, 10_000).unwrap();
    let Decision::Reply(reply) = gate.decide_at_once(&again, Some(&last), &knowing(Some(&view)))
    else {
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
    let decision = Gate::default().decide_at_once(&headers, None, &patient);
    assert!(
        matches!(decision, Decision::Wait(Awaited::News)),
        "{decision:?}"
    );
    let impatient = Knowledge {
        may_wait: false,
        ..patient
    };
    let Decision::Reply(reply) = Gate::default().decide_at_once(&headers, None, &impatient) else {
        panic!("it waits on");
    };
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("credential_expired"), "{}", reply.body);
}

#[test]
fn nobody_waits_for_an_account_that_has_ended() {
    use crate::verdict::Verdict;
    let mut records = records();
    for record in &mut records {
        if let Record::Account(account) = record {
            account.expires_at = Some(match account.id.as_str() {
                "acc_1" => 5,
                _ => 7,
            });
        }
    }
    let view = View::of(&records);
    let mut board = Board::new();
    for id in ["acc_1", "acc_2"] {
        let account = fixture::account(id, "codex");
        board.post(&account, &Verdict::CredentialExpired, 0);
    }
    let at = |now| {
        let knowledge = Knowledge {
            board: &board,
            now,
            may_wait: true,
            ..knowing(Some(&view))
        };
        let headers = request(&[("x-api-key", KEY)]);
        Gate::default().decide_at_once(&headers, None, &knowledge)
    };
    let decision = at(6);
    assert!(
        matches!(decision, Decision::Wait(Awaited::News)),
        "for the other one: {decision:?}"
    );
    let Decision::Reply(reply) = at(7) else {
        panic!("it waits");
    };
    assert_eq!(
        (reply.status, reply.code().unwrap().as_str()),
        (503, "latchkey_no_account")
    );
    for named in ["acc_1 (ended)", "acc_2 (ended)"] {
        assert!(reply.body.contains(named), "{}", reply.body);
    }
}

proptest! {
    #[test]
    fn no_request_panics_and_no_credential_stays(
        path in prop_oneof![Just(b"/v1/responses".to_vec()), any::<Vec<u8>>()],
        headers in prop::collection::vec(
            (
                prop_oneof![
                    prop::sample::select(KEY_HEADERS.to_vec()).prop_map(str::to_owned),
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
                let must_go = KEY_HEADERS.contains(&name)
                    || INTERNAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
                prop_assert_eq!(forward.strip.iter().any(|strip| strip == name), must_go || name == PROXY_KEY_HEADER || name == "chatgpt-account-id");
            }
        }
    }
}

/// A platform that takes the model in the path, and keys for it.
fn in_path() -> Vec<Record> {
    let mut azure = fixture::platform("codex");
    azure.id = Id::try_from("azure").unwrap();
    let endpoint = r#"{"dialect":"chat","operation":"generate","path":"/openai/deployments/{model}/chat/completions"}"#;
    azure.endpoints = vec![serde_json::from_str(endpoint).unwrap()];
    let mut few = fixture::client_key("key_few", b"lk_few", "azure");
    few.models = serde_json::from_str(r#"["gpt-5*"]"#).unwrap();
    let mut account = fixture::account("acc_2", "azure");
    account.models = serde_json::from_str(r#"["gpt-6"]"#).unwrap();
    vec![
        Record::Platform(azure),
        Record::Account(fixture::account("acc_1", "azure")),
        Record::Account(account),
        Record::Pool(fixture::pool("azure", Policy::FillFirst, &["acc_1"])),
        Record::Pool(fixture::pool("six", Policy::FillFirst, &["acc_2"])),
        Record::Key(few),
        Record::Key(fixture::client_key("key_all", b"lk_all", "azure")),
        Record::Key(fixture::client_key("key_six", b"lk_six", "six")),
    ]
}

/// What the gate makes of a request at `path` with this body: the model that it sends on, or the code
/// of its refusal.
fn model_sent(key: &str, path: &str, body: &str) -> Result<String, String> {
    let view = View::of(&in_path());
    let headers = request(&[("x-api-key", key), (":path", path)]);
    match run(
        &mut Gate::default(),
        &headers,
        None,
        body,
        &knowing(Some(&view)),
    ) {
        Decision::Forward(forward) => {
            assert_eq!(forward.carried.dialect, Dialect::Chat);
            Ok(forward.carried.model.unwrap().as_str().to_owned())
        }
        Decision::Reply(reply) => Err(reply.code().unwrap().as_str().to_owned()),
        Decision::Wait(_) => panic!("it waits"),
    }
}

#[test]
fn the_model_in_the_path_is_the_one_that_is_asked_for() {
    let at = |model: &str| format!("/v1/deployments/{model}/chat");
    let not_allowed = || Err("latchkey_model_not_allowed".to_owned());
    assert_eq!(model_sent("lk_few", &at("o3"), "{}"), not_allowed());
    assert_eq!(model_sent("lk_few", &at("%6f3"), "{}"), not_allowed());
    // A platform may go by the body's model all the same. Where the key has a list, the body names the same one or none.
    let all = model_sent("lk_all", &at("gpt-5.6"), r#"{"model":"o3"}"#);
    assert_eq!(all.as_deref(), Ok("gpt-5.6"));
    for body in ["{}", r#"{"model":"gpt-5"}"#, r#"{"a":{"model":"o3"}}"#] {
        let sent = model_sent("lk_few", &at("gpt%2d5"), body);
        assert_eq!(sent.as_deref(), Ok("gpt-5"), "{body}");
    }
    for body in [
        r#"{"model":"o3"}"#,
        r#"{"model":"gpt-5.6"}"#,
        r#"{"model":"gpt-5","Model":"o3"}"#,
        r#"{"model":"gpt-5","model":null}"#,
        r#"{"model":"gpt-5","models":["o3"]}"#,
        r#"{"model":null}"#,
        r#"{"model":"o 3"}"#,
        "not JSON",
        "",
    ] {
        let sent = model_sent("lk_few", &at("gpt-5"), body);
        assert_eq!(sent, not_allowed(), "{body}");
    }
    assert_eq!(
        model_sent("lk_six", &at("gpt-6"), "").as_deref(),
        Ok("gpt-6")
    );
    let unserved = Err("latchkey_model_not_served".to_owned());
    assert_eq!(
        model_sent("lk_six", &at("gpt-5"), r#"{"model":"gpt-6"}"#),
        unserved
    );
    let unknown = || Err("latchkey_unknown_path".to_owned());
    for bad in ["a/b", "a%2fb", "..", "%2e%2e", ""] {
        assert_eq!(model_sent("lk_all", &at(bad), ""), unknown(), "{bad}");
    }
}

#[test]
fn a_model_in_the_body_gets_into_the_path_of_a_platform_that_wants_it_there() {
    let sent = |body| model_sent("lk_all", "/v1/chat/completions", body);
    assert_eq!(sent(r#"{"model":"gpt-5.6"}"#).as_deref(), Ok("gpt-5.6"));
    for (bad, code) in [
        (r#"{}"#, "latchkey_no_model"),
        (r#"{"model":"../../admin"}"#, "latchkey_model_not_served"),
        (r#"{"model":".."}"#, "latchkey_model_not_served"),
    ] {
        assert_eq!(sent(bad), Err(code.to_owned()), "{bad}");
    }
}

#[test]
fn a_refusal_is_in_the_words_of_the_door() {
    let view = View::of(&records());
    let body = |headers: &[(&str, &str)]| -> serde_json::Value {
        let headers = request(headers);
        match Gate::default().decide_at_once(&headers, None, &knowing(Some(&view))) {
            Decision::Reply(reply) => serde_json::from_str(&reply.body).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(body(&[(":path", "/v1/messages")])["type"], "error");
    // The door knows better than what a client sends to every path.
    let version = ("anthropic-version", "2023-06-01");
    assert!(body(&[version]).get("type").is_none());
    let list = [
        ("x-api-key", "no"),
        (":method", "GET"),
        (":path", "/v1/models"),
    ];
    assert!(body(&list).get("type").is_none());
    assert_eq!(
        body(&[list.as_slice(), &[version]].concat())["type"],
        "error"
    );
    assert_eq!(body(&[(":path", "/odd"), version])["type"], "error");
}

/// Two accounts of ChatGPT, one with a key of the same path, and keys of all sorts.
fn mixed() -> Vec<Record> {
    let mut codex = fixture::platform("codex");
    codex.endpoints[0].requires = vec![Requirement::Stream, Requirement::StoreFalse];
    let mut openai = fixture::platform("codex");
    openai.id = Id::try_from("openai").unwrap();
    let models = |patterns: &[&str]| -> Models {
        serde_json::from_value(serde_json::json!(patterns)).unwrap()
    };
    let mut api = fixture::account("acc_api", "openai");
    api.models = models(&["gpt-5*"]);
    let mut choosy = fixture::client_key("key_choosy", b"lk_choosy", "default");
    choosy.models = models(&["gpt-5.6"]);
    let mut free = fixture::client_key("key_free", b"lk_free", "default");
    free.may_choose.account = true;
    free.may_choose.pools = vec![Id::try_from("plans").unwrap()];
    let ids = ["acc_1", "acc_2", "acc_api"];
    vec![
        Record::Platform(codex),
        Record::Platform(openai),
        Record::Account(fixture::account("acc_1", "codex")),
        Record::Account(fixture::account("acc_2", "codex")),
        Record::Account(api),
        Record::Pool(fixture::pool("default", Policy::Sticky, &ids)),
        Record::Pool(fixture::pool("plans", Policy::Sticky, &ids[..2])),
        Record::Key(fixture::client_key("key_1", KEY.as_bytes(), "default")),
        Record::Key(choosy),
        Record::Key(free),
    ]
}

/// The account that serves a request, or the code and message of our refusal.
fn outcome(headers: &[(&str, &str)], body: &str) -> Result<String, (u16, String, String)> {
    let view = View::of(&mixed());
    outcome_of(headers, body, &knowing(Some(&view)))
}

fn outcome_of(
    headers: &[(&str, &str)],
    body: &str,
    knowledge: &Knowledge<'_>,
) -> Result<String, (u16, String, String)> {
    let mut gate = Gate::default();
    match run(&mut gate, &request(headers), None, body, knowledge) {
        Decision::Forward(forward) => Ok(forward.account.id.to_string()),
        Decision::Reply(reply) => {
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
            Err((reply.status, text("code"), text("message")))
        }
        Decision::Wait(_) => panic!("it waits"),
    }
}

#[test]
fn a_request_goes_only_where_it_is_taken() {
    let key = ("x-api-key", KEY);
    let plain = outcome(&[key], r#"{"input":"hi","model":"gpt-5.6"}"#);
    assert_eq!(plain.unwrap(), "acc_api");
    let codex = outcome(&[key], r#"{"model":"gpt-6","stream":true,"store":false}"#);
    assert!(codex.unwrap() != "acc_api", "it serves gpt-5 alone");
    let (status, code, message) =
        outcome(&[key], r#"{"model":"gpt-6","stream":false}"#).unwrap_err();
    assert_eq!(
        (status, code.as_str()),
        (400, "latchkey_requirement_not_met")
    );
    assert!(
        message.contains(r#""stream": true and "store": false"#),
        "{message}"
    );
    let unread = outcome(&[key], "not JSON");
    assert!(
        unread.unwrap() != "acc_api",
        "the platform says what is wrong"
    );
}

#[test]
fn what_nobody_could_count_is_refused_with_the_reason() {
    let ask = |body: &str| {
        let mut openai = fixture::platform("codex");
        openai.endpoints[0].requires = vec![Requirement::Foreground];
        let records = vec![
            Record::Platform(openai),
            Record::Account(fixture::account("acc_1", "codex")),
            Record::Pool(fixture::pool("default", Policy::Sticky, &["acc_1"])),
            Record::Key(fixture::client_key("key_1", KEY.as_bytes(), "default")),
        ];
        let view = View::of(&records);
        let request = request(&[("x-api-key", KEY)]);
        match run(
            &mut Gate::default(),
            &request,
            None,
            body,
            &knowing(Some(&view)),
        ) {
            Decision::Forward(_) => None,
            Decision::Reply(reply) => Some((reply.status, reply.body)),
            Decision::Wait(_) => panic!("it waits"),
        }
    };
    for refused in [
        r#"{"model":"a","background":true,"store":true}"#,
        r#"{"background":true}"#,
        r#"{"backgro\u0075nd" : true , "model":"a"}"#,
        r#"{"model":"a","background":false,"background":true}"#,
    ] {
        let (status, body) = ask(refused).unwrap_or_else(|| panic!("{refused}"));
        assert_eq!(status, 400, "{refused}");
        for part in [
            "latchkey_requirement_not_met",
            "background",
            "could not be counted",
            "stream",
        ] {
            assert!(body.contains(part), "{part}: {body}");
        }
    }
    for served in [
        r#"{"model":"a"}"#,
        r#"{"background":false,"model":"a"}"#,
        r#"{"background":null}"#,
        r#"{"metadata":{"background":true},"input":[{"background":true}]}"#,
        "not JSON",
    ] {
        assert_eq!(ask(served), None, "{served}");
    }
}

#[test]
fn a_keys_models_hold_against_every_trick() {
    let key = ("x-api-key", "lk_choosy");
    let good = r#"{"model":"gpt-5.6","input":[]}"#;
    assert_eq!(outcome(&[key], good).unwrap(), "acc_api");
    // Deeper than anybody reads, so what follows is not read.
    let nested = "[".repeat(1_100) + &"]".repeat(1_100);
    let deep = format!(r#"{{"model":"gpt-5.6","input":{nested},"model":"gpt-6"}}"#);
    for bad in [
        deep.as_str(),
        r#"{"model":"gpt-5.6","input":["#,
        r#"{"model":"gpt-5.6" "input":[],"model":"gpt-6"}"#,
        r#"{"model":"gpt-5","input":[]}"#,
        r#"{"model":"gpt-5.6","input":[],"model":"gpt-6"}"#,
        r#"{"model":"gpt-5.6","mod\u0065l":"gpt-6"}"#,
    ] {
        let (status, code, _) = outcome(&[key], bad).unwrap_err();
        assert_eq!(
            (status, code.as_str()),
            (403, "latchkey_model_not_allowed"),
            "{bad}"
        );
    }
    for none in [
        r#"{"input":[]}"#,
        r#"{"model":5}"#,
        r#"["gpt-5.6"]"#,
        "gpt-5.6",
        "",
    ] {
        let (status, code, _) = outcome(&[key], none).unwrap_err();
        assert_eq!(
            (status, code.as_str()),
            (400, "latchkey_no_model"),
            "{none}"
        );
    }
}

#[test]
fn a_model_that_nobody_serves_is_named() {
    let mut records = mixed();
    for record in &mut records {
        if let Record::Account(account) = record {
            account.models = serde_json::from_str(r#"["gpt-5*"]"#).unwrap();
        }
    }
    let view = View::of(&records);
    let headers = request(&[("x-api-key", KEY)]);
    let body = r#"{"model":"o3","stream":true,"store":false}"#;
    let decision = run(
        &mut Gate::default(),
        &headers,
        None,
        body,
        &knowing(Some(&view)),
    );
    let Decision::Reply(reply) = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(reply.status, 404);
    assert!(
        reply.body.contains("latchkey_model_not_served"),
        "{}",
        reply.body
    );
    assert!(
        reply.body.contains("o3") && reply.body.contains("default"),
        "{}",
        reply.body
    );
}

#[test]
fn a_wish_is_granted_to_whom_it_may_be() {
    let body = r#"{"model":"gpt-5.6","stream":true,"store":false}"#;
    let free = ("x-api-key", "lk_free");
    for wish in ["acc_1", "acc_2", "acc_api"] {
        let wished = outcome(&[free, (ACCOUNT_HEADER, wish)], body);
        assert_eq!(wished.unwrap(), wish);
    }
    let pool = outcome(&[free, (POOL_HEADER, "plans"), ("session-id", "s")], body);
    assert!(pool.unwrap() != "acc_api");
    for refused in [
        vec![("x-api-key", KEY), (ACCOUNT_HEADER, "acc_1")],
        vec![("x-api-key", KEY), (POOL_HEADER, "plans")],
        vec![free, (POOL_HEADER, "other")],
        vec![free, (ACCOUNT_HEADER, "acc_9")],
        vec![free, (POOL_HEADER, "plans"), (ACCOUNT_HEADER, "acc_api")],
    ] {
        let (status, code, _) = outcome(&refused, body).unwrap_err();
        assert_eq!(
            (status, code.as_str()),
            (403, "latchkey_choice_not_allowed"),
            "{refused:?}"
        );
    }
    assert!(
        outcome(&[("x-api-key", KEY), (POOL_HEADER, "default")], body).is_ok(),
        "its own"
    );
}

/// A caller that may choose is told what is the matter with the choice; one that may not, nothing about any account.
#[test]
fn a_choice_that_cannot_be_served_is_told_as_it_is() {
    let (free, bound) = (("x-api-key", "lk_free"), ("x-api-key", KEY));
    let wish = |name| (ACCOUNT_HEADER, name);
    let body = r#"{"model":"gpt-6","stream":true,"store":false}"#;
    let api = fixture::account("acc_api", "openai");
    let name = api.name.as_str();
    for named in ["acc_api", name] {
        let (status, code, message) = outcome(&[free, wish(named)], body).unwrap_err();
        assert_eq!(
            (status, code.as_str()),
            (404, "latchkey_model_not_served"),
            "{named}"
        );
        let expected = format!(
            "The account \"{named}\" in the gateway's pool default does not serve the model gpt-6"
        );
        assert!(message.starts_with(&expected), "{message}");
    }
    let (status, code, message) = outcome(&[free, wish("bob")], body).unwrap_err();
    assert_eq!(
        (status, code.as_str()),
        (403, "latchkey_choice_not_allowed")
    );
    assert!(message.contains("has no account \"bob\""), "{message}");
    let long = "b".repeat(9_000);
    let (_, _, message) = outcome(&[free, wish(&long)], body).unwrap_err();
    assert!(message.len() < 300, "{message}");

    // One of the pool's is out of use: it may be that one, whose name is not known here.
    let mut records = mixed();
    records.retain(|record| !matches!(record, Record::Account(one) if one.id.as_str() == "acc_2"));
    let view = View::of(&records);
    let outcome = |headers: &[_]| outcome_of(headers, body, &knowing(Some(&view)));
    for named in ["bob", "acc_2"] {
        let (status, code, message) = outcome(&[free, wish(named)]).unwrap_err();
        assert_eq!(
            (status, code.as_str()),
            (503, "latchkey_no_account"),
            "{named}"
        );
        let expected = format!("no usable account \"{named}\" for this path: it is out of use");
        assert!(message.contains(&expected), "{message}");
    }
    let refused = ["bob", "acc_1", "acc_2", "acc_9"].map(|name| outcome(&[bound, wish(name)]));
    for (status, code, message) in refused.iter().map(|one| one.as_ref().unwrap_err()) {
        assert_eq!(
            (*status, code.as_str()),
            (403, "latchkey_choice_not_allowed")
        );
        let (_, _, first) = refused[0].as_ref().unwrap_err();
        assert_eq!(message, first, "the same whoever it is");
    }
}

/// The snapshot does not say what an account serves that is out of use.
#[test]
fn a_model_that_an_account_out_of_use_may_serve_is_not_unserved() {
    let mut records = mixed();
    records.push(Record::Platform(fixture::platform("anthropic")));
    for record in &mut records {
        if let Record::Account(account) = record {
            account.models = serde_json::from_str(r#"["gpt-5*"]"#).unwrap();
        }
    }
    let body = r#"{"model":"claude-opus-5-5","stream":true,"store":false}"#;
    let of = |records: &[Record], body: &str| {
        let view = View::of(records);
        let headers = [("x-api-key", KEY)];
        let (status, code, message) =
            outcome_of(&headers, body, &knowing(Some(&view))).unwrap_err();
        (status, code, message)
    };
    assert_eq!(of(&records, body).0, 404);
    // Its platform is not there: it was added since the refresher started.
    let no_platform: Vec<Record> = records
        .iter()
        .filter(|record| !matches!(record, Record::Platform(one) if one.id.as_str() == "openai"))
        .cloned()
        .collect();
    records.retain(|record| !matches!(record, Record::Account(one) if one.id.as_str() == "acc_2"));
    for records in [&records, &no_platform] {
        let (status, code, message) = of(records, body);
        assert_eq!(
            (status, code.as_str()),
            (503, "latchkey_no_account"),
            "{message}"
        );
        assert!(
            message.contains("serves the model claude-opus-5-5"),
            "{message}"
        );
        assert!(message.contains("pool default"), "{message}");
        // What nobody has ever heard of is no matter of who is out.
        let typo = body.replace("opus", "opsu");
        assert_eq!(of(records, &typo).0, 404);
        // Whoever names none is told that.
        assert_eq!(of(records, r#"{"stream":true}"#).0, 400);
    }
}

/// A platform that refuses an account says nothing of a limit.
#[test]
fn accounts_that_their_platforms_refuse_are_not_at_a_limit() {
    let view = View::of(&records());
    let (key, now) = (Striker::of(&Id::try_from("key_1").unwrap()), 1_000);
    let mut board = Board::new();
    let account = |id: &str| view.account(id).unwrap();
    let post = |board: &mut Board, id: &str, verdict: &Verdict| {
        let witness = Witness { key, alone: true };
        board.learn(account(id), witness, None, verdict, now);
    };
    let dead = Verdict::Dead {
        reason: Reason::known("invalid_api_key"),
    };
    let limited = Verdict::CoolingDown {
        scope: Scope::Account,
        until: now + 90_000,
        guessed: false,
        reason: Reason::rate_limited(),
    };
    let ask = |board: &Board| {
        let knowledge = Knowledge {
            board,
            now,
            ..knowing(Some(&view))
        };
        let headers = request(&[("x-api-key", KEY)]);
        let body = r#"{"model":"gpt-6"}"#;
        match run(&mut Gate::default(), &headers, None, body, &knowledge) {
            Decision::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    };
    post(&mut board, "acc_1", &dead);
    let mut half = board.clone();
    post(&mut half, "acc_2", &limited);
    let reply = ask(&half);
    assert_eq!(
        (reply.status, reply.code().unwrap().as_str()),
        (429, "latchkey_all_out"),
        "one of them comes back"
    );
    post(&mut board, "acc_2", &dead);
    let reply = ask(&board);
    assert_eq!(
        (reply.status, reply.code().unwrap().as_str()),
        (503, "latchkey_no_account")
    );
    assert!(reply.body.contains("invalid_api_key"), "{}", reply.body);
    let headers: HashMap<_, _> = reply.headers.into_iter().collect();
    // It is tried again then: one key's word is not the end of it.
    assert_eq!(headers["retry-after"], "60");
}

#[test]
fn a_wished_account_is_not_replaced() {
    let view = View::of(&mixed());
    let mut gate = Gate::default();
    let headers = request(&[("x-api-key", "lk_free"), (ACCOUNT_HEADER, "acc_1")]);
    let body = r#"{"model":"gpt-6","stream":true,"store":false}"#;
    let knowledge = knowing(Some(&view));
    let Decision::Forward(first) = run(&mut gate, &headers, None, body, &knowledge) else {
        panic!("refused");
    };
    let carried = first.carried.after_failure(1, 1_000, 3, 10_000).unwrap();
    assert!(!gate.can_serve(&carried, &knowledge));
    let again = run(&mut gate, &request(&[]), Some(&carried), "", &knowledge);
    let Decision::Reply(reply) = again else {
        panic!("{again:?}");
    };
    assert_eq!(reply.status, 429);
    assert!(
        reply.body.contains("acc_1") && !reply.body.contains("acc_2"),
        "{}",
        reply.body
    );
}

/// The account that serves a chat in an envelope, or the status and code of our refusal.
fn enveloped(headers: &[(&str, &str)], body: &str) -> Result<String, (u16, String)> {
    let view = View::of(&mixed());
    let headers = [headers, &[(":path", "/api/v1/oauth/chat/completions")]].concat();
    let knowledge = knowing(Some(&view));
    match run(
        &mut Gate::default(),
        &request(&headers),
        None,
        body,
        &knowledge,
    ) {
        Decision::Forward(forward) => Ok(forward.account.id.to_string()),
        Decision::Reply(reply) => {
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(
                (&body["code"], &body["data"]),
                (&reply.status.into(), &serde_json::Value::Null)
            );
            Err((reply.status, body["error"].as_str().unwrap().to_owned()))
        }
        Decision::Wait(_) => panic!("it waits"),
    }
}

#[test]
fn a_chat_in_an_envelope_names_its_account_or_platform_where_its_key_may() {
    let free = [("x-api-key", "lk_free")];
    let body = |model: &str, wish: &str| {
        format!(r#"{{"model":"{model}","messages":[],{wish}"stream":true}}"#)
    };
    for wish in ["acc_1", "acc_2"] {
        let named = body("gpt-6.1-sol", &format!(r#""account_id":"{wish}","#));
        assert_eq!(enveloped(&free, &named).unwrap(), wish);
        let last = format!(r#"{{"model":"gpt-6.1-sol","messages":[],"account_id":"{wish}"}}"#);
        assert_eq!(enveloped(&free, &last).unwrap(), wish, "wherever it stands");
    }
    let of_platform = |platform: &str| {
        enveloped(
            &free,
            &body("gpt-5.6", &format!(r#""platform":"{platform}","#)),
        )
    };
    assert_eq!(of_platform("openai").unwrap(), "acc_api");
    let (status, _) = of_platform("codex").unwrap_err();
    assert_eq!(status, 404, "it has no such model");
    for nothing in [
        r#""account_id":"","platform":"","#,
        r#""account_id":null,"#,
        "",
    ] {
        let key = [("x-api-key", KEY)];
        assert_eq!(
            enveloped(&key, &body("gpt-5.6", nothing)).unwrap(),
            "acc_api"
        );
    }
    let long = format!(r#""account_id":"{}","#, "acc_api".repeat(50));
    let plans = [free[0], (POOL_HEADER, "plans")];
    let key = [("x-api-key", KEY)];
    for (headers, wish) in [
        (&key[..], r#""account_id":"acc_api","#),
        (&key, r#""platform":"openai","#),
        (&free, r#""account_id":"acc_9","#),
        (&free, r#""platform":"nobody","#),
        (&free, r#""account_id":"acc_1","platform":"openai","#),
        (&free, &long),
        (&plans, r#""account_id":"acc_api","#),
        (&plans, r#""platform":"openai","#),
    ] {
        let refused = enveloped(headers, &body("gpt-5.6", wish)).unwrap_err();
        assert_eq!(
            refused,
            (403, "latchkey_choice_not_allowed".to_owned()),
            "{wish}"
        );
    }
}

#[test]
fn a_request_for_a_platform_goes_on_at_that_platform_alone() {
    let view = View::of(&mixed());
    let mut gate = Gate::default();
    let knowledge = knowing(Some(&view));
    let path = (":path", "/api/v1/oauth/chat/completions");
    let headers = request(&[("x-api-key", "lk_free"), path]);
    let body = r#"{"model":"gpt-6.1-sol","messages":[],"platform":"codex"}"#;
    let mut last = None;
    for left in [true, false] {
        let decision = run(&mut gate, &headers, last.as_ref(), body, &knowledge);
        let Decision::Forward(forward) = decision else {
            panic!("{decision:?}");
        };
        assert_ne!(forward.account.id.as_str(), "acc_api");
        let carried = forward.carried.after_failure(1, 1_000, 3, 10_000).unwrap();
        let carried = Carried::decode(carried.encode().as_bytes()).unwrap();
        assert_eq!(gate.can_serve(&carried, &knowledge), left, "{carried:?}");
        last = Some(carried);
    }
}

#[test]
fn a_second_try_knows_what_the_body_said() {
    let view = View::of(&mixed());
    let mut gate = Gate::default();
    let knowledge = knowing(Some(&view));
    let headers = request(&[("x-api-key", KEY)]);
    let body = r#"{"model":"gpt-5.6","prompt_cache_key":"s"}"#;
    let Decision::Forward(first) = run(&mut gate, &headers, None, body, &knowledge) else {
        panic!("refused");
    };
    assert_eq!(first.account.id.as_str(), "acc_api");
    let carried = first.carried.after_failure(1, 1_000, 3, 10_000).unwrap();
    let carried = Carried::decode(carried.encode().as_bytes()).unwrap();
    assert_eq!(carried.session, first.carried.session);
    assert!(carried.session.is_some());
    assert!(
        !gate.can_serve(&carried, &knowledge),
        "the others want a stream"
    );
    assert_eq!(carried.model.unwrap().as_str(), "gpt-5.6");
}

#[test]
fn the_body_is_read_only_as_far_as_it_matters() {
    let wanted = |records: &[Record], headers: &[(&str, &str)]| {
        let view = View::of(records);
        let mut request = Request::new(request(headers), None);
        let wanted = Gate::default().ask(&mut request, &knowing(Some(&view)));
        Wanted {
            members: &[],
            ..wanted.unwrap()
        }
    };
    let key = ("x-api-key", KEY);
    let mut lone = records();
    lone.retain(|record| record.key().1.as_str() != "acc_2");
    assert_eq!(
        wanted(&lone, &[key]),
        Wanted::default(),
        "there is no choice"
    );
    assert_eq!(
        wanted(&records(), &[key, ("session-id", "s")]),
        Wanted::default()
    );
    assert!(wanted(&records(), &[key]).session.is_some());
    let all = wanted(&mixed(), &[key]);
    assert!(all.model && all.stream && all.store && all.session.is_some() && !all.whole);
    assert!(wanted(&mixed(), &[("x-api-key", "lk_choosy")]).whole);
}

/// A tenth of the sessions moves when one of ten accounts goes, and all return with it.
#[test]
fn an_account_that_goes_disturbs_its_own_sessions_alone() {
    let ids: Vec<String> = (0..10).map(|n| format!("acc_{n}")).collect();
    let mut records = vec![Record::Platform(fixture::platform("codex"))];
    records.extend(
        ids.iter()
            .map(|id| Record::Account(fixture::account(id, "codex"))),
    );
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    records.push(Record::Pool(fixture::pool("default", Policy::Sticky, &ids)));
    records.push(Record::Key(fixture::client_key(
        "key_1",
        KEY.as_bytes(),
        "default",
    )));
    let view = View::of(&records);
    let mut gate = Gate::default();
    let mut all = |board: &Board, now| -> Vec<String> {
        let knowledge = Knowledge {
            board,
            now,
            ..knowing(Some(&view))
        };
        let mut one = |n: u32| {
            let headers = request(&[("x-api-key", KEY)]);
            let body = format!(r#"{{"model":"gpt","prompt_cache_key":"session {n}"}}"#);
            match run(&mut gate, &headers, None, &body, &knowledge) {
                Decision::Forward(forward) => forward.account.id.to_string(),
                other => panic!("{other:?}"),
            }
        };
        (0..1_000).map(&mut one).collect()
    };
    let before = all(&NOBODY, 0);
    let mut board = Board::new();
    let gone = fixture::account("acc_3", "codex");
    let limited = Verdict::CoolingDown {
        scope: Scope::Account,
        until: 1_000,
        guessed: false,
        reason: Reason::rate_limited(),
    };
    board.post(&gone, &limited, 0);
    let during = all(&board, 999);
    let mut own = 0;
    for (old, new) in before.iter().zip(&during) {
        own += u32::from(old == "acc_3");
        assert_eq!(old != new, old == "acc_3", "{old} to {new}");
    }
    assert!((50..200).contains(&own), "{own} sessions of 1,000");
    assert_eq!(all(&board, 1_000), before);
}

#[test]
fn a_key_with_limits_of_tokens_or_a_list_of_models_generates_nothing_unseen() {
    for (limits, models, refused) in [
        (r#"{"tokens_per_day":9}"#, "[]", true),
        (r#"{"tokens_per_minute":9}"#, "[]", true),
        ("{}", r#"["gpt-5.6"]"#, true),
        (r#"{"requests_per_minute":9}"#, "[]", false),
    ] {
        let mut records = records();
        for record in &mut records {
            if let Record::Key(key) = record {
                key.limits = serde_json::from_str(limits).unwrap();
                key.models = serde_json::from_str(models).unwrap();
            }
        }
        let mut doors = fixture::doors();
        doors.doors[0].uncounted = true;
        records.push(Record::Doors(doors));
        let view = View::of(&records);
        let headers = request(&[("x-api-key", KEY)]);
        let body = r#"{"model":"gpt-5.6"}"#;
        match run(
            &mut Gate::default(),
            &headers,
            None,
            body,
            &knowing(Some(&view)),
        ) {
            Decision::Forward(_) => assert!(!refused, "{limits}"),
            Decision::Reply(reply) => {
                assert!(refused, "{limits}");
                assert_eq!(reply.status, 403);
                assert!(reply.body.contains("latchkey_uncounted"), "{}", reply.body);
            }
            Decision::Wait(_) => panic!("it waits"),
        }
    }
}

#[test]
fn anybody_may_ask_if_somebody_is_there_and_which_methods_a_path_has() {
    let view = View::of(&records());
    let ask = |view: Option<&View>, method: &str, path: &str| {
        let headers: HeaderMap = [(":method", method), (":path", path), (":authority", "gw:1")]
            .into_iter()
            .collect();
        let mut request = Request::new(headers, None);
        Gate::default()
            .ask(&mut request, &knowing(view))
            .unwrap_err()
    };
    for method in ["GET", "HEAD"] {
        for path in ["/health", "/health/"] {
            let reply = ask(Some(&view), method, path);
            assert_eq!((reply.status, reply.code()), (200, None), "{method} {path}");
            assert_eq!(ask(None, method, path).status, 503, "nothing is known yet");
        }
    }
    let allowed = |path: &str| {
        let reply = ask(Some(&view), "OPTIONS", path);
        let allow = reply.headers.into_iter().find(|(name, _)| *name == "allow");
        (reply.status, allow.map(|(_, value)| value))
    };
    assert_eq!(
        allowed("/responses"),
        (204, Some("POST, OPTIONS".to_owned()))
    );
    assert_eq!(allowed("/nothing").0, 401);
    assert_eq!(ask(Some(&view), "POST", "/health").status, 401);
}

#[test]
fn a_base_url_with_too_much_or_too_little_is_understood_or_named() {
    let view = View::of(&records());
    let ask = |path: &str| {
        let headers: HeaderMap = [
            (":method", "POST"),
            (":path", path),
            (":authority", "gw:8080"),
            ("x-api-key", KEY),
        ]
        .into_iter()
        .collect();
        let mut request = Request::new(headers, None);
        Gate::default().ask(&mut request, &knowing(Some(&view)))
    };
    for path in [
        "/v1/responses",
        "/v1/responses/",
        "/responses",
        "/v1/v1/responses",
        "/messages",
    ] {
        assert!(ask(path).is_ok(), "{path}");
    }
    let reply = ask("/team/responses?key_id=1").unwrap_err();
    assert_eq!(reply.status, 404);
    let expected = "the base URL http://gw:8080/v1 in place of http://gw:8080/team.";
    assert!(reply.body.contains(expected), "{}", reply.body);
    let reply = ask("/v1/nowhere").unwrap_err();
    assert_eq!(reply.status, 404);
    assert!(
        reply.body.contains("No platform of the gateway"),
        "{}",
        reply.body
    );
}

#[test]
fn one_model_is_told_in_the_shape_that_its_client_reads() {
    let view = View::of(&records());
    let ask = |path: &str, header: (&str, &str)| {
        let headers: HeaderMap = [
            (":method", "GET"),
            (":path", path),
            ("x-api-key", KEY),
            header,
        ]
        .into_iter()
        .collect();
        let mut request = Request::new(headers, None);
        let reply = Gate::default().ask(&mut request, &knowing(Some(&view)));
        reply.unwrap_err()
    };
    let none = ("accept", "*/*");
    let reply = ask("/models/gpt-6.1-sol", none);
    assert!(
        reply.body.contains("\"object\":\"model\""),
        "{}",
        reply.body
    );
    let reply = ask(
        "/v1/models/gpt-6.1-sol",
        ("anthropic-version", "2023-06-01"),
    );
    assert!(reply.body.contains("display_name"), "{}", reply.body);
    let reply = ask("/v1/models/gpt-7", none);
    assert_eq!(reply.status, 404);
    assert!(
        reply.body.contains("latchkey_model_not_listed"),
        "{}",
        reply.body
    );
}

#[test]
fn a_header_with_an_underscore_may_name_a_session_and_goes_no_further() {
    let mut doors = fixture::doors();
    doors
        .session_headers
        .push("session_id".to_owned().try_into().unwrap());
    let mut records = records();
    records.push(Record::Doors(doors));
    let view = View::of(&records);
    let headers = request(&[("x-api-key", KEY), ("session_id", "s1"), ("x_other", "1")]);
    let decision = run(
        &mut Gate::default(),
        &headers,
        None,
        "{}",
        &knowing(Some(&view)),
    );
    let Decision::Forward(forward) = decision else {
        panic!("{decision:?}");
    };
    assert!(forward.carried.session.is_some());
    for name in ["session_id", "x_other"] {
        assert!(forward.strip.iter().any(|one| one == name), "{name}");
    }
}
