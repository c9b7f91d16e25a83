//! What requests hold, and who is refused when there is no room.

use super::envoy::{BODY, Envoy, head};
use crate::snapshot::fixture;

/// A key may hold 1 MiB: eight requests, or one with a body of 896 KiB.
fn small() -> Envoy {
    let accounts = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    let mut envoy = Envoy::with_accounts(&accounts);
    envoy.configure(r#"{"held_mib":2,"held_mib_per_key":1}"#);
    envoy
}

fn with_length(length: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut head = head("/v1/responses").to_vec();
    head.push(("content-length", length));
    head
}

#[test]
fn a_length_that_never_fits_is_refused_before_the_body() {
    let mut envoy = small();
    let mut call = envoy.call(&with_length("1048576"));
    let refused = call.is_refused(413, "latchkey_no_room");
    assert!(String::from_utf8_lossy(&refused.body).contains("1 MiB"));
    // It has a record, as other refusals have.
    assert_eq!(
        envoy.records(),
        ["- 413 attempts=0 - latchkey_no_room whole tokens=null"]
    );
}

#[test]
fn requests_that_do_not_fit_beside_others_of_their_key_wait_until_those_have_ended() {
    let mut envoy = small();
    let mut calls: Vec<_> = (0..9).map(|_| envoy.call(&head("/v1/responses"))).collect();
    let mut refused = calls.pop().unwrap();
    calls.iter().for_each(super::envoy::Call::waits);
    let reply = refused.is_refused(429, "latchkey_no_room");
    assert!(reply.headers.iter().any(|(name, _)| name == "retry-after"));
    calls.pop().unwrap().goes_away();
    envoy.call(&head("/v1/responses")).waits();
}

#[test]
fn a_body_is_refused_when_it_grows_beyond_its_room_also_after_it_was_sent_on() {
    for sent_on in [true, false] {
        let mut envoy = small();
        let mut call = envoy.call(&head("/v1/responses"));
        let begin: &[u8] = match sent_on {
            true => br#"{"model":"gpt-6.1-sol","stream":true,"store":false,"input":""#,
            false => br#"{"input":""#,
        };
        call.sends(begin, false);
        for _ in 0..54 {
            // Each takes a slice of 16 KiB.
            call.sends(&[b'x'; 600], false);
        }
        assert!(!call.has_answer(), "55 of 56 slices");
        call.sends(&[b'x'; 600], false);
        call.sends(&[b'x'; 600], false);
        call.is_refused(429, "latchkey_no_room");
        envoy.ask().is_at("acc_1");
    }
}

#[test]
fn a_request_that_runs_again_holds_what_it_held() {
    let mut envoy = small();
    let mut call = envoy.ask();
    call.is_at("acc_1");
    call.platform(500, &[], b"");
    call.is_at("acc_2");
    // Six more, and no seventh: its body takes 16 KiB besides.
    let others: Vec<_> = (0..6).map(|_| envoy.call(&head("/v1/responses"))).collect();
    others.iter().for_each(super::envoy::Call::waits);
    envoy
        .call(&head("/v1/responses"))
        .is_refused(429, "latchkey_no_room");
    call.platform(200, &[], b"{}");
    call.gets(200, b"{}");
    let mut next = envoy.call(&head("/v1/responses"));
    next.sends(BODY, true);
    assert!(!next.has_answer());
}

/// An error that comes in many pieces takes a slice of 16 KiB for each while it is held.
#[test]
fn an_error_that_is_held_is_charged_and_judged_where_there_is_no_room() {
    let mut envoy = small();
    let mut call = envoy.ask();
    call.is_at("acc_1");
    call.platform_begins(400, &[]);
    let mut sent = 0;
    while !call.has_answer() {
        assert!(sent < 60, "{sent} pieces are held");
        call.platform_goes_on(&[b' '; 513], false);
        sent += 1;
    }
    assert!(sent > 40, "{sent}: the key has room for more");
    call.platform_goes_on(b"{}", true);
    let expected = [vec![b' '; 513 * sent], b"{}".to_vec()].concat();
    call.gets(400, &expected);
    // It holds nothing any more.
    let mut calls: Vec<_> = (0..8).map(|_| envoy.call(&head("/v1/responses"))).collect();
    calls.iter().for_each(super::envoy::Call::waits);
    calls.drain(..).for_each(super::envoy::Call::goes_away);
}
