//! Only an answer is an answer, and only the platform's part of it reaches a caller.

use super::envoy::{BODY, BUFFER_LIMIT, Envoy, head};
use crate::{
    host::fake::first,
    secret::Secret,
    snapshot::{Account, fixture},
};

fn account() -> Account {
    let mut account = fixture::account("acc_1", "codex");
    account.credential = Secret::new("sk-0123456789");
    account
}

#[test]
fn what_is_no_answer_is_an_error_of_ours() {
    for status in [101, 199, 600, 999] {
        let mut envoy = Envoy::with_accounts(&[account()]);
        let mut call = envoy.ask();
        call.platform_begins(status, &[("x-request-id", "r")]);
        call.is_refused(502, "latchkey_platform_no_answer");
    }
}

#[test]
fn headers_that_speak_for_others_reach_nobody_on_good_answers_and_errors() {
    for status in [200, 400, 403] {
        let mut envoy = Envoy::with_accounts(&[account()]);
        let mut call = envoy.ask();
        let headers = [
            ("x-latchkey-error", "latchkey_no_key"),
            ("x-latchkey-status", "200"),
            ("x-envoy-overloaded", "true"),
            ("location", "https://evil.test"),
            ("strict-transport-security", "max-age=1"),
            ("x-debug", "sk-0123456789"),
            ("request-id", "r"),
        ];
        call.platform(status, &headers, b"{}");
        let answer = call.answer();
        let ours = ["content-type", ":status"];
        let names = answer.headers.iter().map(|(name, _)| name.as_str());
        let names: Vec<&str> = names.filter(|name| !ours.contains(name)).collect();
        assert_eq!(names, ["request-id"], "{status}");
        assert_eq!(first(&answer.headers, "request-id").unwrap(), b"r");
        call.gets(status, b"{}");
    }
}

#[test]
fn an_error_that_repeats_the_credential_is_masked_over_its_pieces() {
    let mut envoy = Envoy::with_accounts(&[account()]);
    let mut call = envoy.ask();
    call.platform(
        400,
        &[],
        br#"{"error":{"message":"GET /?key=sk-0123456789"}}"#,
    );
    call.gets(400, br#"{"error":{"message":"GET /?key=*************"}}"#);

    // What is too long to be held goes on in pieces.
    let mut call = envoy.ask();
    call.platform_begins(400, &[]);
    let long = [b' '; 40_000];
    call.platform_goes_on(&long, false);
    call.platform_goes_on(b"key=sk-01234", false);
    call.platform_goes_on(b"56789.", true);
    let expected = [&long[..], b"key=*************."].concat();
    call.gets(400, &expected);
}

/// A platform may repeat it in a good answer as well, and in the middle of a stream.
#[test]
fn a_good_answer_that_repeats_the_credential_is_masked_over_its_pieces() {
    let text = "{\"output\":[],\"echo\":\"Bearer sk-0123456789\"}";
    let masked = text.replace("sk-0123456789", "*************");
    for cut in 1..text.len() {
        let mut envoy = Envoy::with_accounts(&[account()]);
        let mut call = envoy.ask();
        call.platform_begins(200, &[("content-type", "application/json")]);
        let (first, rest) = text.as_bytes().split_at(cut);
        call.platform_goes_on(first, false);
        call.platform_goes_on(rest, true);
        call.gets(200, masked.as_bytes());
    }
    let mut envoy = Envoy::with_accounts(&[account()]);
    let mut call = envoy.ask();
    call.platform_begins(200, &[("content-type", "text/event-stream")]);
    call.platform_goes_on(b"event: response.created\ndata: {}\n\n", false);
    call.platform_goes_on(b"data: {\"delta\":\"sk-0123", false);
    call.platform_goes_on(b"456789 s", false);
    call.platform_goes_on(b"", true);
    let stream = b"event: response.created\ndata: {}\n\ndata: {\"delta\":\"************* s";
    call.gets(200, stream);
}

#[test]
fn an_error_on_which_envoy_cannot_run_the_request_again_is_masked() {
    let masked = b"no key sk-01, no key *************.";
    let accounts = [account(), fixture::account("acc_2", "codex")];

    // By a redirect, which the attempt makes of it as the request is whole.
    let mut envoy = Envoy::with_accounts(&accounts);
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(&vec![b' '; BUFFER_LIMIT], false);
    call.sends(BODY, true);
    call.platform(429, &[], b"no key sk-01, no key sk-0123456789.");
    call.gets(429, masked);

    // What is too long to be held comes in pieces.
    let mut envoy = Envoy::with_accounts(&accounts);
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(&vec![b' '; BUFFER_LIMIT], false);
    call.sends(BODY, true);
    let long = [b' '; 40_000];
    call.platform_begins(429, &[]);
    call.platform_goes_on(&long, false);
    call.platform_goes_on(b"no key sk-01, no key sk-01234", false);
    call.platform_goes_on(b"56789.", true);
    call.gets(429, &[&long[..], masked].concat());

    // By the router's retry, which waits for the rest of the request.
    let mut envoy = Envoy::with_accounts(&accounts);
    let length = (2 * BUFFER_LIMIT).to_string();
    let head = head("/v1/responses");
    let mut call = envoy.call(&[head.as_slice(), &[("content-length", &length)]].concat());
    call.sends(BODY, false);
    call.sends(&vec![b' '; BUFFER_LIMIT], false);
    call.platform(429, &[], b"no key sk-01, no key sk-0123456789.");
    call.gets(429, masked);
}

#[test]
fn a_masked_error_that_ends_with_trailers_comes_whole() {
    let mut envoy = Envoy::with_accounts(&[account()]);
    let mut call = envoy.ask();
    call.platform_begins(400, &[]);
    call.platform_goes_on(b"no key sk-0123456789, nor sk-01234", false);
    call.platform_sends_trailers();
    call.gets(400, b"no key *************, nor sk-01234");
}
