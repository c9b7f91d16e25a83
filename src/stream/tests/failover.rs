//! Requests that one account cannot serve and another one does.

use super::envoy::{BODY, BUFFER_LIMIT, Call, Envoy, head, records};
use crate::{
    attempt::holding::JUDGE_MS,
    snapshot::{Account, Platform, Record, fixture},
};

const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/codex/response.sse");
const LIMITED: &[u8] = include_bytes!("../../../tests/fixtures/codex/rate_limit_exceeded.json");
const LIMITED_INSIDE: &[u8] =
    include_bytes!("../../../tests/fixtures/codex/response_failed_rate_limit_exceeded.sse");

const WAIT_A_MINUTE: [(&str, &str); 1] = [("retry-after", "60")];

fn two() -> Envoy {
    let accounts = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    Envoy::with_accounts(&accounts)
}

fn one() -> Envoy {
    Envoy::with_accounts(&[fixture::account("acc_1", "codex")])
}

/// A login whose token was renewed so often.
fn login(generation: u64) -> Account {
    Account {
        generation,
        credential_expires_at: Some(u64::MAX / 2),
        ..fixture::account("acc_1", "codex")
    }
}

#[test]
fn a_limited_account_makes_way_for_another() {
    let mut envoy = two();
    let mut call = envoy.call(&head("/v1/responses?a=b"));
    call.sends(BODY, true);
    call.is_at("acc_1");
    let upstream = "/backend-api/codex/responses?a=b";
    assert_eq!(call.header(":path").as_deref(), Some(upstream));
    call.platform(429, &WAIT_A_MINUTE, LIMITED);

    call.is_at("acc_2");
    assert_eq!(
        call.header(":path").as_deref(),
        Some(upstream),
        "restored, and set anew"
    );
    assert_eq!(
        call.header("chatgpt-account-id").as_deref(),
        Some("ws-acc_2")
    );
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    let served = "acc_2 200 attempts=2 fine - whole tokens=3003";
    assert_eq!(envoy.records(), [served], "one record for both tries");

    // The next request does not ask the limited one.
    let mut call = envoy.ask();
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    assert_eq!(envoy.host.metrics.borrow()["failovers"], 1);
}

#[test]
fn an_error_inside_a_good_answer_fails_over_too() {
    let mut envoy = two();
    let mut call = envoy.ask();
    call.platform_begins(200, &[]);
    let (first, rest) = LIMITED_INSIDE.split_at(100);
    call.platform_goes_on(first, false);
    call.is_at("acc_1");
    call.platform_goes_on(rest, true);
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
}

#[test]
fn where_nobody_else_serves_the_platforms_own_answer_goes_on() {
    let mut envoy = one();
    envoy.configure(r#"{"throttle_wait_seconds":0}"#);
    let mut call = envoy.ask();
    call.platform(429, &[("x-latchkey-error", "forged")], LIMITED);
    call.gets(429, LIMITED);
    let limited = "acc_1 429 attempts=1 cooling_down - whole tokens=-";
    assert_eq!(envoy.records().concat().replace("null", "-"), limited);
}

#[test]
fn a_request_that_envoy_could_not_keep_gets_the_platforms_answer() {
    let mut envoy = two();
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(&vec![b' '; BUFFER_LIMIT], false);
    call.sends(BODY, true);
    call.is_at("acc_1");
    // The attempt cannot know, and makes a redirect of it that Envoy does not follow.
    call.platform(429, &WAIT_A_MINUTE, LIMITED);
    call.gets(429, LIMITED);
    assert_eq!(envoy.records().len(), 1);
    envoy.ask().is_at("acc_2");
}

#[test]
fn an_answer_before_the_request_is_whole_fails_over_when_it_is() {
    let mut envoy = two();
    let mut call = envoy.call(&head("/v1/responses"));
    let (first, rest) = BODY.split_at(BODY.len() - 5);
    call.sends(first, false);
    call.sends(b"", false);
    let mut call = with_body_under_way(&mut envoy, call);
    call.platform(429, &WAIT_A_MINUTE, LIMITED);
    // It is at the escape, which hears no credential, and waits there for the rest.
    assert_eq!(call.header("authorization"), None);
    call.sends(rest, true);
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    assert_eq!(envoy.records().len(), 1);
}

/// Sees to it that a request is at its account though its body is not whole.
fn with_body_under_way(_: &mut Envoy, call: Call) -> Call {
    call.is_at("acc_1");
    call
}

#[test]
fn an_early_answer_is_the_callers_after_all_where_the_request_grew_too_large() {
    let mut envoy = two();
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(&BODY[..20], false);
    call.is_at("acc_1");
    call.platform(429, &WAIT_A_MINUTE, LIMITED);
    call.sends(&vec![b' '; BUFFER_LIMIT], false);
    call.gets(429, LIMITED);
}

#[test]
fn a_platform_that_cannot_be_reached_is_left_by_the_escape() {
    let mut envoy = two();
    let mut call = envoy.ask();
    call.is_at("acc_1");
    call.platform_hangs_up();
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);

    let mut envoy = one();
    let mut call = envoy.ask();
    envoy.after(1_000);
    call.platform_hangs_up();
    call.is_refused(502, "latchkey_platform_unreachable");
    let unreachable = "acc_1 502 attempts=1 platform_trouble latchkey_platform_unreachable whole";
    assert!(envoy.records().concat().starts_with(unreachable));
}

#[test]
fn a_lone_account_gets_once_more_what_never_reached_it() {
    let mut envoy = one();
    let mut call = envoy.ask();
    call.platform_has_no_connection();
    call.is_at("acc_1");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    let mut call = envoy.ask();
    call.platform_has_no_connection();
    call.is_at("acc_1");
    call.platform_has_no_connection();
    call.is_refused(502, "latchkey_platform_unreachable");
    // Where another account serves, that one does.
    let mut call = two().ask();
    call.platform_has_no_connection();
    call.is_at("acc_2");
}

#[test]
fn a_lone_account_gets_once_more_what_it_had_a_part_of() {
    let mut envoy = one();
    let mut call = envoy.call(&head("/v1/responses"));
    let (first, rest) = BODY.split_at(24);
    call.sends(first, false);
    call.is_at("acc_1");
    call.platform_hangs_up();
    call.sends(rest, true);
    call.is_at("acc_1");
    assert_eq!(call.body(), BODY);
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
}

/// A connection that was closing as the request came: the request makes nothing but its answer, so it may come twice.
#[test]
fn a_lone_account_gets_once_more_what_broke_as_it_came() {
    let mut envoy = one();
    let mut call = envoy.ask();
    envoy.after(999);
    call.platform_hangs_up();
    call.is_at("acc_1");
    assert_eq!(call.body(), BODY);
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    let mut call = envoy.ask();
    call.platform_hangs_up();
    call.is_at("acc_1");
    call.platform_hangs_up();
    call.is_refused(502, "latchkey_platform_unreachable");
    // Where another account serves, that one does.
    let mut call = two().ask();
    call.platform_hangs_up();
    call.is_at("acc_2");
}

#[test]
fn what_a_platform_may_have_worked_on_is_not_sent_there_again() {
    let mut envoy = one();
    let mut call = envoy.ask();
    envoy.after(1_000);
    call.platform_hangs_up();
    call.is_refused(502, "latchkey_platform_unreachable");
    // What is kept would be there twice, and what changes a thing would do so twice; to read it twice does nothing.
    let mut envoy = Envoy::with(&keeping());
    for (method, path, goes_again) in [
        ("POST", "/v1/responses", false),
        ("POST", "/v1/responses/resp_1/cancel", false),
        ("GET", "/v1/responses/resp_1", true),
    ] {
        if path.contains("resp_1") {
            let mut call = envoy.call(&head("/v1/responses"));
            call.sends(BODY, true);
            call.platform(
                200,
                &[],
                br#"{"id":"resp_1","output":[{"type":"message"}]}"#,
            );
        }
        let mut head = head(path);
        head[0].1 = method;
        let mut call = envoy.call(&head);
        call.sends(BODY, true);
        call.is_at("acc_1");
        call.platform_hangs_up();
        if goes_again {
            call.is_at("acc_1");
            continue;
        }
        call.is_refused(502, "latchkey_platform_unreachable");
    }
}

/// One account of a platform that keeps what it answers.
fn keeping() -> Vec<Record> {
    let mut platform = fixture::platform("codex");
    platform.endpoints[0].keeps_days = Some(30);
    for (operation, path) in [
        ("get", "/responses/{id}"),
        ("cancel", "/responses/{id}/cancel"),
    ] {
        let mut endpoint = platform.endpoints[0].clone();
        endpoint.operation = operation.to_owned().try_into().unwrap();
        endpoint.path = path.to_owned().try_into().unwrap();
        endpoint.keeps_days = None;
        platform.endpoints.push(endpoint);
    }
    let cancel = r#"{"id":99,"method":"POST","path":"/v1/responses/{id}/cancel","dialect":"responses",
        "operation":"cancel","opaque":true,"modelless":true}"#;
    let mut all = records(&[fixture::account("acc_1", "codex")]);
    for record in &mut all {
        match record {
            Record::Platform(old) => *old = platform.clone(),
            Record::Doors(doors) => doors.doors.push(serde_json::from_str(cancel).unwrap()),
            _ => {}
        }
    }
    all
}

/// A first attempt that Envoy sends to the escape listener is no answer of the platform's.
#[test]
fn a_first_attempt_at_the_escape_listener_is_one_that_reached_nobody() {
    let mut envoy = two();
    let mut call = envoy.ask();
    call.is_at("acc_1");
    call.platform_has_no_host();
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);

    let mut envoy = one();
    let mut call = envoy.ask();
    call.platform_has_no_host();
    call.is_refused(502, "latchkey_platform_unreachable");
    let unreachable = "acc_1 502 attempts=1 platform_trouble latchkey_platform_unreachable whole";
    assert!(envoy.records().concat().starts_with(unreachable));

    // Before the request is whole, it waits for its end and runs again then.
    let mut envoy = two();
    let length = BODY.len().to_string();
    let head = head("/v1/responses");
    let mut call = envoy.call(&[head.as_slice(), &[("content-length", &length)]].concat());
    let (first, rest) = BODY.split_at(BODY.len() - 1);
    call.sends(first, false);
    call.is_at("acc_1");
    call.platform_has_no_host();
    call.sends(rest, true);
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
}

/// An account of the platform `first` and one of `second`, which is tried after it.
fn of_two_platforms(first: Platform, mut second: Platform) -> Envoy {
    second.id = crate::id::Id::try_from("second").unwrap();
    let mut all = records(&[
        fixture::account("acc_1", "codex"),
        fixture::account("acc_2", "second"),
    ]);
    all.retain(|record| !matches!(record, Record::Platform(_)));
    all.extend([Record::Platform(first), Record::Platform(second)]);
    Envoy::with(&all)
}

/// The caller's own value of a parameter that the first platform sets is the second one's to read.
#[test]
fn the_callers_own_query_survives_the_escape() {
    let mut keyed = fixture::platform("codex");
    keyed.query = serde_json::from_str(r#"[["version","{credential}"]]"#).unwrap();
    let mut envoy = of_two_platforms(keyed, fixture::platform("codex"));
    let mut call = envoy.call(&head("/v1/responses?version=mine&a=b"));
    let (begun, rest) = BODY.split_at(24);
    call.sends(begun, false);
    call.is_at("acc_1");
    let at_first = call.header(":path").unwrap();
    assert!(
        at_first.ends_with("responses?a=b&version=token-of-acc_1"),
        "{at_first}"
    );
    call.platform_hangs_up();
    // At the escape, which waits for the rest: it hears where the request goes, and nothing else of it.
    let heard = call.header_names();
    assert_eq!(heard, [":method", ":scheme", ":authority", ":path"]);
    let own = "/v1/responses?version=mine&a=b";
    assert_eq!(call.header(":path").unwrap(), own);
    call.sends(rest, true);
    call.is_at("acc_2");
    let then = call.header(":path").unwrap();
    assert!(then.ends_with("responses?version=mine&a=b"), "{then}");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
}

/// What the first platform does not get, and what it gets beside or in place of what the caller sent, is its own business.
#[test]
fn the_callers_own_headers_come_to_the_next_platform_whichever_way_it_is_reached() {
    let mut first = fixture::platform("codex");
    first.headers = serde_json::from_value(serde_json::json!({
        "set": [["authorization", "Bearer {credential}"], ["x-title", "first"]],
        "default": [["x-default", "first"]],
        "add": [["x-list", "first"]],
        "remove": [["x-list", "own"]],
        "allow": ["x-first-*", "x-list"],
    }))
    .unwrap();
    let mut second = fixture::platform("codex");
    second.headers = serde_json::from_value(serde_json::json!({
        "set": [["authorization", "Bearer {credential}"]],
        "allow": ["x-first-*", "x-second-*", "x-list", "x-title", "x-default"],
    }))
    .unwrap();
    let length = BODY.len().to_string();
    let own = [
        ("x-first-a", "1"),
        ("x-second-a", "2"),
        ("x-list", "own,x"),
        ("x-title", "mine"),
        ("content-length", &*length),
    ];
    let ways: [fn(&mut Call); 5] = [
        |call| call.platform(429, &WAIT_A_MINUTE, LIMITED),
        Call::platform_hangs_up,
        Call::platform_has_no_connection,
        Call::platform_has_no_host,
        |call| call.platform(200, &[], LIMITED_INSIDE),
    ];
    for is_early in [false, true] {
        for (way, fails) in ways.iter().enumerate() {
            let mut envoy = of_two_platforms(first.clone(), second.clone());
            let mut call = envoy.call(&[head("/v1/responses").as_slice(), &own].concat());
            let (begun, rest) = BODY.split_at(24);
            call.sends(begun, false);
            if !is_early {
                call.sends(rest, true);
            }
            let sent = |call: &Call| {
                let names = ["x-first-a", "x-second-a", "x-list", "x-title", "x-default"];
                names.map(|name| call.header(name).unwrap_or_default())
            };
            call.is_at("acc_1");
            assert_eq!(sent(&call), ["1", "", "x,first", "first", "first"]);
            fails(&mut call);
            if is_early {
                call.sends(rest, true);
            }
            call.is_at("acc_2");
            assert_eq!(sent(&call), ["1", "2", "own,x", "mine", ""], "{way}");
            assert_eq!(call.header("content-length"), Some(length.clone()));
            call.platform(200, &[], ANSWER);
            call.gets(200, ANSWER);
        }
    }
}

#[test]
fn an_error_that_stalls_is_judged_by_what_there_is() {
    let mut envoy = two();
    let mut call = envoy.ask();
    call.platform_begins(429, &WAIT_A_MINUTE);
    call.platform_goes_on(&LIMITED[..10], false);
    envoy.after(JUDGE_MS - 100);
    call.is_at("acc_1");
    envoy.after(200);
    call.is_judged();
    call.is_at("acc_2");
}

#[test]
fn a_good_answer_is_held_for_its_first_byte_as_long_as_it_takes() {
    let mut envoy = two();
    let mut call = envoy.ask();
    call.platform_begins(200, &[]);
    envoy.after(10 * JUDGE_MS);
    call.is_at("acc_1");
    call.platform_goes_on(ANSWER, true);
    call.gets(200, ANSWER);
}

#[test]
fn a_redirect_of_a_platform_takes_no_credential_along() {
    let mut envoy = one();
    let mut call = envoy.ask();
    call.platform_begins(307, &[("location", "https://elsewhere.test/")]);
    call.is_refused(502, "latchkey_platform_redirect");
}

#[test]
fn a_request_waits_for_a_token_that_is_being_refreshed() {
    let mut envoy = Envoy::with_accounts(&[login(1)]);
    let mut call = envoy.ask();
    call.platform(401, &[], b"");
    call.waits();
    let told = envoy.after(100);
    assert_eq!(told[0]["reports"][0]["kind"], "unauthorized");
    call.waits();
    envoy.publish(&records(&[login(2)]));
    call.resumes();
    call.is_at("acc_1");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    assert_eq!(envoy.records().len(), 1);
}

/// Nothing renews a key that the platform refuses, and there is no other account.
#[test]
fn a_caller_is_not_told_that_an_accounts_key_is_wrong() {
    let rule = r#"{"status":[401],"verdict":"dead","reason":"invalid_api_key"}"#;
    for rules in [vec![], vec![serde_json::from_str(rule).unwrap()]] {
        let mut records = records(&[fixture::account("acc_1", "codex")]);
        for record in &mut records {
            if let Record::Platform(platform) = record {
                platform.verdicts.clone_from(&rules);
            }
        }
        let mut envoy = Envoy::with(&records);
        let mut call = envoy.ask();
        let words =
            br#"{"error":{"code":"invalid_api_key","message":"Incorrect API key provided."}}"#;
        call.platform(401, &[], words);
        call.is_refused(503, "latchkey_no_account");
        if !rules.is_empty() {
            // Nor is the next one told to wait.
            envoy.ask().is_refused(503, "latchkey_no_account");
        }
    }
}

#[test]
fn nobody_waits_for_ever() {
    let mut envoy = Envoy::with_accounts(&[login(1)]);
    let mut call = envoy.ask();
    call.platform(401, &[], b"");
    envoy.after(9_900);
    call.waits();
    envoy.after(200);
    call.is_answered();
    call.is_refused(503, "latchkey_all_out");
}
