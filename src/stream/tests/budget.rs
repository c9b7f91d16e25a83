//! What requests hold, and who is refused when there is no room.

use super::envoy::{BODY, Call, Envoy, KEY, head, records};
use crate::snapshot::{Record, fixture};

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
    calls.iter().for_each(Call::waits);
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
    others.iter().for_each(Call::waits);
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
    calls.iter().for_each(Call::waits);
    calls.drain(..).for_each(Call::goes_away);
}

/// A key may keep two connections open.
fn few_connections() -> Envoy {
    let mut records = records(&[fixture::account("acc_1", "codex")]);
    let other = fixture::client_key("key_2", b"another", "default");
    records.push(Record::Key(other));
    let mut ended = fixture::client_key("key_3", b"ended", "default");
    ended.expires_at = Some(1);
    records.push(Record::Key(ended));
    let mut envoy = Envoy::with(&records);
    envoy.configure(r#"{"kept_connections":8,"kept_connections_per_key":2}"#);
    envoy
}

fn is_closed(call: &Call) -> bool {
    let answer = call.answer();
    answer
        .headers
        .iter()
        .any(|(name, _)| name == "x-latchkey-close")
}

/// Asks on a connection, and tells if that is closed with the platform's answer.
fn is_closed_after(envoy: &mut Envoy, connection: u64, key: &str) -> bool {
    let bearer = format!("Bearer {key}");
    let mut headers = head("/v1/responses");
    headers[4].1 = &bearer;
    let mut call = envoy.call_on(connection, &headers);
    call.sends(BODY, true);
    call.platform(200, &[], b"{}");
    let is_closed = is_closed(&call);
    call.gets(200, b"{}");
    is_closed
}

#[test]
fn connections_beyond_a_keys_share_are_closed_with_the_platforms_answer() {
    let mut envoy = few_connections();
    for _ in 0..3 {
        assert!(!is_closed_after(&mut envoy, 1, KEY));
        assert!(!is_closed_after(&mut envoy, 2, KEY));
        assert!(is_closed_after(&mut envoy, 3, KEY));
        assert!(!is_closed_after(&mut envoy, 4, "another"));
        envoy.after(30_000);
    }
    for _ in 0..90 {
        envoy.after(1_000);
    }
    assert!(!is_closed_after(&mut envoy, 3, KEY));
}

#[test]
fn answers_of_the_gateways_own_close_connections_as_well() {
    let mut envoy = few_connections();
    assert!(!is_closed_after(&mut envoy, 1, KEY));
    assert!(!is_closed_after(&mut envoy, 2, KEY));
    for (method, path, status) in [
        ("GET", "/v1/models", 200),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/nowhere", 404),
    ] {
        for (connection, closes) in [(3, true), (1, false)] {
            let mut headers = head(path);
            headers[0].1 = method;
            let mut call = envoy.call_on(connection, &headers);
            if !call.has_answer() {
                call.sends(b"", true);
            }
            assert_eq!(call.answer().status, status, "{path}");
            assert_eq!(is_closed(&call), closes, "{path}");
        }
    }
}

#[test]
fn whoever_has_no_key_that_is_good_keeps_no_connection() {
    let mut envoy = few_connections();
    for headers in [&head("/v1/models")[..4], &head("/health")[..4]] {
        assert!(is_closed(&envoy.call(headers)), "{headers:?}");
    }
    let mut headers = head("/v1/responses");
    headers[4].1 = "Bearer ended";
    let mut call = envoy.call_on(1, &headers);
    assert!(is_closed(&call));
    call.is_refused(401, "latchkey_key_expired");
}

#[test]
fn a_key_that_breaks_requests_off_beyond_its_share_is_refused_there() {
    let mut envoy = few_connections();
    assert!(!is_closed_after(&mut envoy, 1, KEY));
    assert!(!is_closed_after(&mut envoy, 2, KEY));
    envoy.is_http2 = true;
    let mut call = envoy.call_on(3, &head("/v1/responses"));
    call.sends(BODY, true);
    call.is_at("acc_1");
    call.goes_away();
    for connection in [3, 4] {
        let mut call = envoy.call_on(connection, &head("/v1/responses"));
        assert!(is_closed(&call), "{connection}");
        let refused = call.is_refused(429, "latchkey_no_room");
        let text = String::from_utf8_lossy(&refused.body);
        assert!(text.contains("connections"), "{text}");
    }
    // Those that it may keep are as before, and so are others' keys, and what cannot be broken off.
    assert!(!is_closed_after(&mut envoy, 1, KEY));
    assert!(!is_closed_after(&mut envoy, 5, "another"));
    envoy.is_http2 = false;
    assert!(is_closed_after(&mut envoy, 3, KEY));
    envoy.is_http2 = true;
    for _ in 0..17 {
        envoy.after(5_000);
        assert!(!is_closed_after(&mut envoy, 1, KEY));
        assert!(!is_closed_after(&mut envoy, 2, KEY));
    }
    assert!(is_closed_after(&mut envoy, 3, KEY));
}

#[test]
fn a_request_that_was_broken_off_is_held_while_its_connection_may_stay() {
    let mut envoy = few_connections();
    // A key may hold eight requests.
    envoy.configure(
        r#"{"kept_connections":8,"kept_connections_per_key":2,"held_mib":2,"held_mib_per_key":1}"#,
    );
    envoy.is_http2 = true;
    let begun: Vec<_> = (1..=6)
        .map(|connection| envoy.call_on(connection, &head("/v1/responses")))
        .collect();
    // Two of these connections are kept, and counted as that.
    begun.into_iter().for_each(Call::goes_away);
    envoy.is_http2 = false;
    let room = |envoy: &mut Envoy| {
        let calls = (11..20).map(|connection| envoy.call_on(connection, &head("/v1/responses")));
        let calls: Vec<_> = calls.collect();
        let count = calls.iter().filter(|call| !call.has_answer()).count();
        calls.into_iter().for_each(Call::goes_away);
        count
    };
    assert_eq!(room(&mut envoy), 4);
    envoy.after(80_000);
    assert_eq!(room(&mut envoy), 4);
    envoy.after(6_000);
    assert_eq!(room(&mut envoy), 8);
}

#[test]
fn a_request_that_runs_again_is_not_broken_off() {
    let accounts = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    let mut envoy = Envoy::with_accounts(&accounts);
    envoy.configure(r#"{"kept_connections":8,"kept_connections_per_key":1}"#);
    assert!(!is_closed_after(&mut envoy, 1, KEY));
    envoy.is_http2 = true;
    let mut call = envoy.call_on(2, &head("/v1/responses"));
    call.sends(BODY, true);
    call.platform(500, &[], b"");
    call.is_at("acc_2");
    call.platform(200, &[], b"{}");
    assert!(is_closed(&call));
    call.gets(200, b"{}");
    let mut call = envoy.call_on(2, &head("/v1/responses"));
    call.sends(BODY, true);
    assert!(call.has_attempt());
}
