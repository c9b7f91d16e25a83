//! The beginning of a good answer: what only announces it is held, and what fails before its content is no
//! answer.

use super::envoy::{Call, Envoy, head};
use crate::{
    attempt::{failure, holding::MAX_ANNOUNCED_BYTES},
    host::fake::first,
    snapshot::fixture,
};

const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/codex/response.sse");
const LIMITED: &[u8] =
    include_bytes!("../../../tests/fixtures/codex/response_failed_rate_limit_exceeded.sse");
const TOO_LONG: &[u8] =
    include_bytes!("../../../tests/fixtures/codex/response_failed_context_length_exceeded.sse");
const EVENTS: [(&str, &str); 1] = [("content-type", "text/event-stream; charset=utf-8")];
const STREAM: &[u8] = br#"{"model":"gpt-6.1-sol","input":"hi","stream":true}"#;

/// The time for which announcements are held by default, in milliseconds.
const HELD_MS: u64 = 2_000;

fn envoy(accounts: &[&str]) -> Envoy {
    let accounts = accounts.iter();
    let accounts: Vec<_> = accounts.map(|id| fixture::account(id, "codex")).collect();
    Envoy::with_accounts(&accounts)
}

/// A request for a stream.
fn ask(envoy: &mut Envoy) -> Call {
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(STREAM, true);
    call
}

/// An event that echoes so much of the request.
fn announcement(kind: &str, echo: usize) -> Vec<u8> {
    let echo = "x".repeat(echo);
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{{\"error\":null,\"instructions\":\"{echo}\"}}}}\n\n")
        .into_bytes()
}

/// The platform sends this in writes of 16 KiB, and the request stays with its account meanwhile.
fn sends(call: &mut Call, account: &str, bytes: &[u8]) {
    for chunk in bytes.chunks(16 * 1024) {
        call.platform_goes_on(chunk, false);
        call.is_at(account);
    }
}

#[test]
fn a_failure_after_what_announces_fails_over_and_content_does_not() {
    let mut envoy = envoy(&["acc_1", "acc_2"]);
    let mut call = ask(&mut envoy);
    call.platform_begins(200, &EVENTS);
    for kind in [
        "response.created",
        "response.queued",
        "response.in_progress",
    ] {
        sends(&mut call, "acc_1", &announcement(kind, 60_000));
    }
    let (_, failed) = LIMITED.split_at(LIMITED.len() / 2);
    let at = failed.windows(6).position(|six| six == b"event:");
    call.platform_goes_on(&failed[at.unwrap_or_default()..], false);
    call.is_at("acc_2");
    call.platform_begins(200, &EVENTS);
    let created = announcement("response.created", 60_000);
    sends(&mut call, "acc_2", &created);
    let content = b"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n";
    call.platform_goes_on(content, false);
    assert_eq!(call.answer().body, [created.as_slice(), content].concat());
    // From here on whatever comes passes.
    call.platform_goes_on(LIMITED, true);
    call.gets(200, &[created.as_slice(), content, LIMITED].concat());
}

#[test]
fn what_announces_is_let_go_in_time_and_before_it_is_too_much() {
    let mut envoy = envoy(&["acc_1"]);
    let created = announcement("response.created", 60_000);
    let mut call = ask(&mut envoy);
    call.platform_begins(200, &EVENTS);
    sends(&mut call, "acc_1", &created);
    envoy.after(HELD_MS - 100);
    call.is_at("acc_1");
    envoy.after(200);
    call.is_judged();
    assert_eq!(call.answer().body, created);

    envoy.configure(r#"{"announcement_wait_seconds":0}"#);
    let mut call = ask(&mut envoy);
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(b": hello\n\n", false);
    assert!(call.has_answer());

    envoy.configure(r#"{"announcement_wait_seconds":60}"#);
    let mut call = ask(&mut envoy);
    call.platform_begins(200, &EVENTS);
    sends(
        &mut call,
        "acc_1",
        &announcement("response.created", MAX_ANNOUNCED_BYTES - 20_000),
    );
    call.platform_goes_on(&announcement("response.in_progress", 30_000), false);
    assert!(call.has_answer());
}

/// A key whose memory is used up loses the look, and nothing else.
#[test]
fn what_announces_is_charged_and_let_go_where_there_is_no_room() {
    const MIB: usize = 1024 * 1024;
    let mut envoy = envoy(&["acc_1"]);
    envoy.configure(r#"{"held_mib":1,"held_mib_per_key":1}"#);
    let mut calls: Vec<Call> = Vec::new();
    let created = announcement("response.created", 200_000);
    while calls.len() * created.len() < MIB {
        let mut call = ask(&mut envoy);
        if call.has_answer() {
            break;
        }
        call.platform_begins(200, &EVENTS);
        call.platform_goes_on(&created, false);
        calls.push(call);
    }
    let held = calls.iter().filter(|call| !call.has_answer()).count();
    assert!((1..4).contains(&held), "{held}");
    let let_go = calls.iter().filter(|call| call.has_answer()).count();
    assert!(let_go > 0, "{} calls", calls.len());
    // What was held is free again once it is let go.
    for call in &mut calls {
        if !call.has_answer() {
            call.platform_goes_on(ANSWER, false);
        }
        assert_eq!(call.answer().status, 200);
    }
    calls.drain(1..).for_each(Call::goes_away);
    let mut call = ask(&mut envoy);
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(&created, false);
    assert!(!call.has_answer());
}

#[test]
fn a_failure_that_nobody_betters_has_its_true_status() {
    let mut envoy = envoy(&["acc_1"]);
    envoy.configure(r#"{"throttle_wait_seconds":0}"#);
    let mut call = ask(&mut envoy);
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(LIMITED, false);
    let answer = call.is_refused(429, failure::CODE);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded", "{body}");
    let header = |name| first(&answer.headers, name).map(|value| String::from_utf8(value).unwrap());
    assert_eq!(header("retry-after").as_deref(), Some("2"));
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    let record = "acc_1 429 attempts=1 cooling_down latchkey_platform_failed whole tokens=null";
    assert_eq!(envoy.records(), [record]);
}

#[test]
fn what_the_caller_did_wrong_goes_on_as_events_to_who_reads_events() {
    let mut envoy = envoy(&["acc_1", "acc_2"]);
    let mut call = ask(&mut envoy);
    call.platform(200, &EVENTS, TOO_LONG);
    call.gets(200, TOO_LONG);
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(br#"{"stream":false,"model":"gpt-6.1-sol"}"#, true);
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(TOO_LONG, false);
    call.is_refused(400, failure::CODE);
}

#[test]
fn an_answer_without_content_is_trouble_and_costs_nothing() {
    let created = announcement("response.created", 60_000);
    let json = [("content-type", "application/json")];
    for (headers, body) in [
        (EVENTS, created.as_slice()),
        (EVENTS, b": hello\n\n"),
        (EVENTS, b""),
        (json, b""),
        (json, b"{\"id\":\"resp_1\""),
    ] {
        let mut envoy = envoy(&["acc_1", "acc_2"]);
        let mut call = ask(&mut envoy);
        call.platform(200, &headers, body);
        call.is_at("acc_2");
        call.platform(200, &headers, body);
        call.is_refused(502, "latchkey_platform_no_content");
        let record =
            "acc_2 502 attempts=2 platform_trouble latchkey_platform_no_content whole tokens=null";
        assert_eq!(envoy.records(), [record]);
    }
    // Where no text is promised, there may be none.
    let mut envoy = envoy(&["acc_1"]);
    let mut call = ask(&mut envoy);
    call.platform(200, &[("content-type", "application/octet-stream")], b"");
    call.gets(200, b"");
}

#[test]
fn an_answer_that_ends_with_trailers_is_judged_too() {
    let mut envoy = envoy(&["acc_1"]);
    let mut call = ask(&mut envoy);
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(b": hello\n\n", false);
    call.platform_sends_trailers();
    call.is_refused(502, "latchkey_platform_no_content");
}

/// What begins so begins with nothing.
const MARKS: [&str; 3] = ["\u{feff}", "\r\n\u{feff}", "\u{feff}\n\u{feff}"];

#[test]
fn a_byte_order_mark_hides_no_failure() {
    let json = [("content-type", "application/json")];
    let limited: &[u8] = br#"{"error":{"code":"rate_limit_exceeded","message":"later"}}"#;
    for mark in MARKS {
        for (headers, failed) in [(EVENTS, LIMITED), (json, limited)] {
            let mut envoy = envoy(&["acc_1", "acc_2"]);
            let mut call = ask(&mut envoy);
            call.platform_begins(200, &headers);
            for byte in mark.as_bytes() {
                call.platform_goes_on(&[*byte], false);
            }
            call.platform_goes_on(failed, true);
            call.is_at("acc_2");
            // Another one's answer goes on with its mark, and counts.
            let answer = [mark.as_bytes(), ANSWER].concat();
            call.platform(200, &EVENTS, &answer);
            call.gets(200, &answer);
            let metered = envoy.records().concat();
            let expected = "acc_2 200 attempts=2 fine - whole tokens=";
            assert!(metered.starts_with(expected), "{metered}");
            assert!(!metered.ends_with("tokens=null"), "{metered}");
        }
        // It is no content either.
        let mut envoy = envoy(&["acc_1", "acc_2"]);
        let mut call = ask(&mut envoy);
        call.platform(200, &EVENTS, mark.as_bytes());
        call.is_at("acc_2");
    }
}

#[test]
fn an_answer_of_json_behind_a_byte_order_mark_is_metered_and_goes_on_as_it_came() {
    for mark in MARKS {
        let mut envoy = envoy(&["acc_1"]);
        let mut call = envoy.ask();
        let answer = format!(
            r#"{mark}{{"id":"resp_1","output":[],"status":"completed","usage":{{"input_tokens":3000,"output_tokens":2}}}}"#
        );
        let json = [("content-type", "application/json")];
        call.platform(200, &json, answer.as_bytes());
        call.gets(200, answer.as_bytes());
        let expected = "acc_1 200 attempts=1 fine - whole tokens=3002";
        assert_eq!(envoy.records(), [expected]);
    }
}
