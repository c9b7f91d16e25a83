//! Requests that wait for the first snapshot, and platforms that make a request wait.

use super::envoy::{BODY, Call, Envoy, head, records};
use crate::{
    host::fake::first,
    snapshot::{Account, fixture},
    worker::waiting::{MAX_START_BYTES, MAX_START_PIECES, MAX_WAITING, START_MS},
};

const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/codex/response.sse");
fn account(id: &str) -> Account {
    fixture::account(id, "codex")
}

#[test]
fn a_request_that_comes_before_the_first_snapshot_waits_for_it() {
    let mut envoy = Envoy::starting();
    let mut call = envoy.ask();
    call.waits();
    let mut slow = envoy.call(&head("/v1/responses"));
    slow.sends(&BODY[..9], false);
    slow.waits();
    envoy.publish(&records(&[account("acc_1")]));
    call.resumes();
    call.is_at("acc_1");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    slow.goes_away();
}

#[test]
fn nobody_waits_long_for_a_snapshot_or_without_what_may_be_a_key() {
    let mut envoy = Envoy::starting();
    let mut call = envoy.ask();
    envoy.after(START_MS - 100);
    call.waits();
    envoy.after(200);
    call.is_answered();
    call.is_refused(503, "latchkey_not_ready");

    let mut stranger = envoy.call(&[(":method", "POST"), (":path", "/v1/responses")]);
    stranger.is_refused(401, "latchkey_no_key");
}

#[test]
fn few_wait_for_a_snapshot_and_with_little() {
    let mut envoy = Envoy::starting();
    let mut large = envoy.call(&head("/v1/responses"));
    large.sends(&vec![b' '; MAX_START_BYTES], false);
    large.waits();
    large.sends(b" ", false);
    large.is_refused(503, "latchkey_not_ready");
    let mut crumbs = envoy.call(&head("/v1/responses"));
    for _ in 0..MAX_START_PIECES {
        crumbs.sends(b" ", false);
    }
    crumbs.waits();
    crumbs.sends(b" ", false);
    crumbs.is_refused(503, "latchkey_not_ready");
    let calls: Vec<Call> = (0..MAX_WAITING).map(|_| envoy.ask()).collect();
    calls.iter().for_each(Call::waits);
    envoy.ask().is_refused(503, "latchkey_not_ready");
    for call in calls {
        call.goes_away();
    }
    envoy.ask().waits();
}

#[test]
fn the_first_event_of_a_stream_has_a_deadline() {
    let mut envoy = Envoy::with_accounts(&[account("acc_1"), account("acc_2")]);
    let mut call = envoy.ask();
    assert_eq!(call.deadline(), None, "no stream");
    call.goes_away();
    let events = [
        head("/v1/responses").as_slice(),
        &[("accept", "text/event-stream")],
    ]
    .concat();
    call = envoy.call(&events);
    call.sends(BODY, true);
    assert_eq!(call.deadline(), Some("92000"));
    call.is_at("acc_1");
    envoy.after(92_000);
    call.platform_hangs_up();
    call.is_at("acc_2");
    assert_eq!(call.deadline(), Some("92000"));
    envoy.after(92_000);
    call.platform_hangs_up();
    let answer = call.is_refused(504, "latchkey_platform_silent");
    assert_eq!(first(&answer.headers, "x-should-retry").unwrap(), b"false");
}
