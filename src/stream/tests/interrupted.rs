//! Requests and answers that do not come to their end.

use super::envoy::{BODY, Envoy, head};
use crate::snapshot::fixture;

const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/codex/response.sse");
const GAVE_UP: &[u8] = include_bytes!("../../../tests/fixtures/meter/responses_failed.sse");

fn one() -> Envoy {
    Envoy::with_accounts(&[fixture::account("acc_1", "codex")])
}

/// Lets the account fail until it is out by a guess, and that guess end.
fn half_open(envoy: &mut Envoy) {
    for _ in 0..3 {
        let mut call = envoy.ask();
        call.platform(500, &[], b"{}");
        call.gets(500, b"{}");
    }
    envoy.ask().is_refused(429, "latchkey_all_out");
    envoy.after(31_000);
}

#[test]
fn who_leaves_before_an_answer_pays_for_what_was_sent() {
    let mut envoy = one();
    envoy.ask().goes_away();
    let tokens = BODY.len().div_ceil(4);
    let left = format!("acc_1 0 attempts=1 - - left tokens={tokens}");
    assert_eq!(envoy.records(), [left]);
}

#[test]
fn who_leaves_while_its_body_is_read_is_recorded() {
    let mut envoy = one();
    let call = envoy.call(&head("/v1/responses"));
    call.waits();
    call.goes_away();
    assert_eq!(envoy.records(), ["- 0 attempts=0 - - left tokens=null"]);
    // Nothing is left of it.
    let mut call = envoy.ask();
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
}

#[test]
fn a_stream_that_does_not_end_is_metered_as_far_as_it_came_and_says_who_left() {
    for (caller_leaves, expected) in [(true, "left"), (false, "cut")] {
        let mut envoy = one();
        let mut call = envoy.ask();
        call.platform_begins(200, &[]);
        call.platform_goes_on(&ANSWER[..ANSWER.len() / 2], false);
        match caller_leaves {
            true => call.goes_away(),
            false => call.breaks_off(),
        }
        let records = envoy.records().concat();
        let expected = format!("acc_1 200 attempts=1 fine - {expected} tokens=");
        assert!(records.starts_with(&expected), "{records}");
    }
}

#[test]
fn a_probe_that_is_given_up_is_given_back() {
    let mut envoy = one();
    half_open(&mut envoy);
    let probe = envoy.ask();
    probe.is_at("acc_1");
    envoy.ask().is_refused(429, "latchkey_all_out");
    probe.goes_away();
    let mut next = envoy.ask();
    next.is_at("acc_1");
    next.platform(200, &[], ANSWER);
    next.gets(200, ANSWER);
    envoy.ask().is_at("acc_1");
    envoy.ask().is_at("acc_1");
}

#[test]
fn a_stream_goes_on_event_by_event_and_is_metered() {
    let mut envoy = one();
    let mut call = envoy.ask();
    call.platform_begins(200, &[("content-type", "text/event-stream")]);
    for event in ANSWER.split_inclusive(|byte| *byte == b'\n') {
        call.platform_goes_on(event, false);
    }
    call.platform_goes_on(b"", true);
    call.gets(200, ANSWER);
    assert_eq!(
        envoy.records(),
        ["acc_1 200 attempts=1 fine - whole tokens=3003"]
    );
}

#[test]
fn an_error_in_the_middle_of_a_stream_is_the_callers_and_is_learned() {
    let mut envoy = one();
    let mut call = envoy.ask();
    call.platform(200, &[], GAVE_UP);
    call.gets(200, GAVE_UP);
    let records = envoy.records().concat();
    assert!(records.contains("failed_inside"), "{records}");
}
