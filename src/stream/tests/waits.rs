//! Requests that wait: for the first snapshot, for an account that is over a limit of a minute, for one that
//! has as many requests under way as it may. And platforms that make a request wait.

use super::envoy::{BODY, Call, Envoy, KEY, head, records};
use crate::{
    host::fake::first,
    snapshot::{Account, Policy, Record, fixture},
    stream::beat::TICK_MS,
    worker::{
        pace::{AT_ONCE, EACH_MS},
        waiting::{MAX_START_BYTES, MAX_START_PIECES, MAX_WAITING, START_MS},
    },
};

const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/codex/response.sse");
const LIMITED: &[u8] = br#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#;
const FIVE_SECONDS: [(&str, &str); 1] = [("retry-after", "5")];

/// Another client key.
const OTHER: &str = "lk_9876543210";

fn account(id: &str) -> Account {
    fixture::account(id, "codex")
}

/// An account that serves so many requests at the same time.
fn serving(id: &str, at_once: usize) -> Account {
    let limits = format!(r#"{{"concurrent_streams":{at_once}}}"#);
    Account {
        limits: serde_json::from_str(&limits).unwrap(),
        ..account(id)
    }
}

/// An Envoy with two client keys, whose pool goes by this policy.
fn by(policy: Policy, accounts: &[Account]) -> Envoy {
    let ids: Vec<_> = accounts.iter().map(|account| account.id.as_str()).collect();
    let mut records = records(accounts);
    for record in &mut records {
        if let Record::Pool(pool) = record {
            *pool = fixture::pool("default", policy, &ids);
        }
    }
    let other = fixture::client_key("key_2", OTHER.as_bytes(), "default");
    records.push(Record::Key(other));
    Envoy::with(&records)
}

fn sticky(ids: &[&str]) -> Envoy {
    let accounts: Vec<_> = ids.iter().map(|id| account(id)).collect();
    by(Policy::Sticky, &accounts)
}

/// A request of a session.
fn ask_in(envoy: &mut Envoy, session: &str) -> Call {
    let headers = [head("/v1/responses").as_slice(), &[("session-id", session)]].concat();
    let mut call = envoy.call(&headers);
    call.sends(BODY, true);
    call
}

/// The account that a call is at.
#[track_caller]
fn place(call: &Call) -> String {
    let credential = call.header("authorization").expect("a credential");
    let id = credential.strip_prefix("Bearer token-of-");
    id.expect("it is at an account").to_owned()
}

/// Those of the calls that wait which a tick lets go, `milliseconds` later; they are at their accounts then.
fn let_go(envoy: &mut Envoy, waiting: &mut Vec<Call>, milliseconds: u64) -> Vec<Call> {
    envoy.after(milliseconds);
    let (mut gone, left) = std::mem::take(waiting)
        .into_iter()
        .partition(Call::is_decided);
    *waiting = left;
    gone.iter_mut().for_each(|call: &mut Call| call.resumes());
    gone
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
fn a_session_waits_for_the_account_that_has_its_cache() {
    let mut envoy = sticky(&["acc_1", "acc_2"]);
    let mut call = ask_in(&mut envoy, "s1");
    let own = place(&call);
    call.platform(429, &FIVE_SECONDS, LIMITED);
    call.waits();
    // So do the next turns of the other conversations of that account.
    let mut others: Vec<_> = (0..20)
        .map(|n| ask_in(&mut envoy, &format!("t{n}")))
        .collect();
    others.retain(|call| !call.has_attempt());
    assert!(others.len() > 3, "{}", others.len());
    envoy.after(4_900);
    call.waits();
    envoy.after(200);
    call.resumes();
    call.is_at(&own);
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    let record = format!("{own} 200 attempts=2 fine - whole tokens=3003");
    let records = envoy.records();
    assert!(records.contains(&record), "{records:?}");
}

#[test]
fn who_has_no_session_does_not_wait_where_another_account_serves() {
    let mut envoy = by(Policy::RoundRobin, &[account("acc_1"), account("acc_2")]);
    let mut call = envoy.ask();
    let first = place(&call);
    call.platform(429, &FIVE_SECONDS, LIMITED);
    assert_ne!(place(&call), first);
}

#[test]
fn a_window_that_is_spent_moves_a_session_on_at_once() {
    let mut envoy = sticky(&["acc_1", "acc_2"]);
    let mut call = ask_in(&mut envoy, "s1");
    let own = place(&call);
    call.platform(429, &[("retry-after", "11")], LIMITED);
    let next = place(&call);
    assert_ne!(next, own);
    assert_eq!(place(&ask_in(&mut envoy, "s1")), next);
}

#[test]
fn a_lone_account_is_waited_for_once() {
    let mut envoy = Envoy::with_accounts(&[account("acc_1")]);
    let mut call = envoy.ask();
    call.platform(429, &FIVE_SECONDS, LIMITED);
    call.waits();
    envoy.after(5_100);
    call.resumes();
    call.is_at("acc_1");
    call.platform(429, &FIVE_SECONDS, LIMITED);
    call.gets(429, LIMITED);

    envoy.after(6_000);
    let mut call = envoy.ask();
    call.platform(429, &[("retry-after", "11")], LIMITED);
    call.gets(429, LIMITED);
}

#[test]
fn a_throttle_that_comes_before_the_request_is_whole_is_waited_for_too() {
    let mut envoy = Envoy::with_accounts(&[account("acc_1")]);
    let mut call = envoy.call(&head("/v1/responses"));
    let (first, rest) = BODY.split_at(24);
    call.sends(first, false);
    call.is_at("acc_1");
    call.platform(429, &FIVE_SECONDS, LIMITED);
    call.sends(rest, true);
    call.waits();
    envoy.after(5_100);
    call.resumes();
    call.is_at("acc_1");
    assert_eq!(call.body(), BODY);
    // Nothing of its next failure is taken for that answer.
    envoy.after(1_000);
    call.platform_hangs_up();
    call.is_refused(502, "latchkey_platform_unreachable");
}

#[test]
fn an_operator_may_have_nobody_wait() {
    let mut envoy = Envoy::with_accounts(&[serving("acc_1", 1)]);
    envoy.configure(r#"{"throttle_wait_seconds":0}"#);
    let mut call = envoy.ask();
    envoy.ask().is_refused(429, "latchkey_all_out");
    call.platform(429, &FIVE_SECONDS, LIMITED);
    call.gets(429, LIMITED);
}

#[test]
fn a_request_waits_while_every_account_has_as_many_as_it_may() {
    let mut envoy = Envoy::with_accounts(&[serving("acc_1", 1), serving("acc_2", 1)]);
    let mut first = envoy.ask();
    first.is_at("acc_1");
    let second = envoy.ask();
    second.is_at("acc_2");
    let mut third = envoy.ask();
    third.waits();
    envoy.after(1_000);
    third.waits();
    first.platform(200, &[], ANSWER);
    first.gets(200, ANSWER);
    envoy.after(200);
    third.resumes();
    third.is_at("acc_1");
    let mut fourth = envoy.ask();
    envoy.after(10_100);
    fourth.is_answered();
    fourth.is_refused(429, "latchkey_all_out");
}

#[test]
fn who_comes_takes_no_place_that_another_one_waits_for() {
    let mut envoy = Envoy::with_accounts(&[serving("acc_1", 1)]);
    let mut first = envoy.ask();
    let mut second = envoy.ask();
    first.platform(200, &[], ANSWER);
    first.gets(200, ANSWER);
    let third = envoy.ask();
    third.waits();
    envoy.after(TICK_MS);
    second.resumes();
    second.is_at("acc_1");
    third.waits();
}

/// One place serves as many requests as come, one after the other, and nothing else is late by that.
#[test]
fn a_place_is_handed_on_when_its_stream_ends() {
    let mut envoy = Envoy::with_accounts(&[serving("acc_1", 1)]);
    let mut at_work = envoy.ask();
    let mut waiting: Vec<_> = (0..100).map(|_| envoy.ask()).collect();
    envoy.after(TICK_MS);
    assert_eq!(envoy.host.interval.get(), TICK_MS);
    let mut told = 0;
    while !waiting.is_empty() {
        at_work.platform(200, &[], ANSWER);
        at_work.gets(200, ANSWER);
        let until = envoy.host.interval.get();
        assert_eq!(until, 1, "{} wait", waiting.len());
        assert!(!waiting[0].is_decided());
        told += envoy.after(until + 19).len();
        assert!(envoy.host.interval.get() <= TICK_MS);
        assert!(!waiting.iter().skip(1).any(Call::is_decided));
        at_work = waiting.remove(0);
        at_work.resumes();
        at_work.is_at("acc_1");
    }
    assert!(told >= 1, "ticks that do all that is due still come");
    at_work.platform(200, &[], ANSWER);
    at_work.gets(200, ANSWER);
    envoy.after(envoy.host.interval.get());
    assert_eq!(envoy.host.interval.get(), TICK_MS, "nobody waits");
}

/// Else those of another worker would never find it free.
#[test]
fn a_place_for_which_another_worker_waits_too_is_free_until_a_tick() {
    let mut envoy = Envoy::with_accounts(&[serving("acc_1", 1)]);
    let mut at_work = envoy.ask();
    let own = envoy.ask();
    let mut other = envoy.new_vm();
    let mut others = other.ask();
    others.waits();
    envoy.after(TICK_MS);
    other.after(1);
    at_work.platform(200, &[], ANSWER);
    at_work.gets(200, ANSWER);
    assert_eq!(envoy.host.interval.get(), TICK_MS);
    other.after(TICK_MS / 2);
    others.resumes();
    others.is_at("acc_1");
    assert!(!own.is_decided());
}

/// Nobody looks in vain: a stream without a place, or one of a place that nobody waits for, hastens nothing.
#[test]
fn only_a_place_that_is_waited_for_has_the_vm_tick_early() {
    let mut envoy = Envoy::with_accounts(&[serving("acc_1", 2), account("acc_2")]);
    envoy.after(TICK_MS);
    let mut calls: Vec<_> = (0..3).map(|_| envoy.ask()).collect();
    for (call, account) in calls.iter_mut().zip(["acc_1", "acc_1", "acc_2"]) {
        call.is_at(account);
        call.platform(200, &[], ANSWER);
        call.gets(200, ANSWER);
        assert_eq!(envoy.host.interval.get(), TICK_MS, "{account}");
    }
}

#[test]
fn who_sends_many_does_not_stand_before_who_sends_few() {
    let mut envoy = by(Policy::FillFirst, &[serving("acc_1", 4)]);
    let mut at_work: Vec<_> = (0..4).map(|_| envoy.ask_as(KEY)).collect();
    let mut many: Vec<_> = (0..100).map(|_| envoy.ask_as(KEY)).collect();
    let mut few: Vec<_> = (0..2).map(|_| envoy.ask_as(OTHER)).collect();
    for _ in 0..2 {
        let mut done = at_work.pop().unwrap();
        done.platform(200, &[], ANSWER);
        done.gets(200, ANSWER);
        assert_eq!(let_go(&mut envoy, &mut few, TICK_MS).len(), 1);
    }
    assert!(let_go(&mut envoy, &mut many, TICK_MS).is_empty());
}

/// A request of one key that names no session, of so many turns.
fn ask_in_turns(envoy: &mut Envoy, key: &str, first: &str, count: usize) -> Call {
    let turns = std::iter::repeat_n(format!(r#"{{"role":"user","content":"{first}"}}"#), count);
    let turns = turns.collect::<Vec<_>>().join(",");
    let bearer = format!("Bearer {key}");
    let mut headers = head("/v1/responses");
    headers[4].1 = &bearer;
    let mut call = envoy.call(&headers);
    call.sends(
        format!(r#"{{"model":"gpt-6.1-sol","input":[{turns}]}}"#).as_bytes(),
        true,
    );
    call
}

#[test]
fn a_conversation_without_a_name_stays_with_its_account() {
    let ids: Vec<_> = (0..8).map(|n| format!("acc_{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut envoy = sticky(&ids);
    let mut places = Vec::new();
    for first in (0..40).map(|n| format!("hello {n}")) {
        let own = place(&ask_in_turns(&mut envoy, KEY, &first, 1));
        for count in 2..5 {
            let turn = ask_in_turns(&mut envoy, KEY, &first, count);
            assert_eq!(place(&turn), own);
        }
        places.push((own, place(&ask_in_turns(&mut envoy, OTHER, &first, 1))));
    }
    assert!(
        places.iter().any(|(own, others)| own != others),
        "a session is one key's"
    );
    let mut used: Vec<_> = places.iter().map(|(own, _)| own).collect();
    used.sort();
    used.dedup();
    assert!(used.len() >= 6, "they are spread: {used:?}");
    // Turned off, each takes its turn.
    envoy.configure(r#"{"sessions_by_opening":false}"#);
    let mut turns: Vec<_> = (0..8)
        .map(|_| place(&ask_in_turns(&mut envoy, KEY, "hello", 2)))
        .collect();
    turns.sort();
    assert_eq!(turns, ids);
}

#[test]
fn a_first_turn_waits_for_no_cache_and_a_later_one_does() {
    let mut envoy = sticky(&["acc_1", "acc_2"]);
    let mut first = ask_in_turns(&mut envoy, KEY, "hello", 1);
    let own = place(&first);
    first.platform(429, &FIVE_SECONDS, LIMITED);
    assert_ne!(place(&first), own);
    let mut later = ask_in_turns(&mut envoy, KEY, "hello", 2);
    later.waits();
    envoy.after(5_100);
    later.resumes();
    later.is_at(&own);
}

#[test]
fn a_flood_of_one_request_spills_over() {
    let mut envoy = by(Policy::Sticky, &[serving("acc_1", 2), serving("acc_2", 2)]);
    let mut flood: Vec<_> = (0..4)
        .map(|_| ask_in_turns(&mut envoy, KEY, "hello", 1))
        .collect();
    let mut places: Vec<_> = flood.iter().map(place).collect();
    places.sort();
    assert_eq!(places, ["acc_1", "acc_1", "acc_2", "acc_2"]);
    ask_in_turns(&mut envoy, KEY, "hello", 1).waits();
    flood.clear();
}

/// What waited for an account reaches it one after the other, not all in one moment; and where it is throttled
/// again, the rest stays.
#[test]
fn no_herd_runs_at_an_account_that_is_back() {
    let mut envoy = Envoy::with_accounts(&[account("acc_1")]);
    let mut first = envoy.ask();
    let mut waiting: Vec<_> = {
        first.platform(429, &FIVE_SECONDS, LIMITED);
        (0..60).map(|_| envoy.ask()).collect()
    };
    waiting.push(first);
    waiting.iter().for_each(Call::waits);
    assert!(let_go(&mut envoy, &mut waiting, 4_900).is_empty());
    let mut herd = let_go(&mut envoy, &mut waiting, TICK_MS);
    assert_eq!(herd.len() as u64, AT_ONCE);
    let second = let_go(&mut envoy, &mut waiting, TICK_MS);
    assert_eq!(second.len() as u64, TICK_MS / EACH_MS);
    // It is not up to that yet.
    let mut throttled = herd.pop().unwrap();
    throttled.platform(429, &[("retry-after", "2")], LIMITED);
    assert!(let_go(&mut envoy, &mut waiting, 1_900).is_empty());
    assert!(!let_go(&mut envoy, &mut waiting, TICK_MS).is_empty());
}

/// Where a window is spent, the requests that were under way there reach the next account one after the
/// other too. Who has waited for long enough goes.
#[test]
fn no_herd_runs_at_the_next_account_when_a_window_is_spent() {
    let mut envoy = Envoy::with_accounts(&[account("acc_1"), account("acc_2")]);
    let mut calls: Vec<_> = (0..40).map(|_| envoy.ask()).collect();
    for call in &mut calls {
        call.is_at("acc_1");
        call.platform(429, &[("retry-after", "600")], LIMITED);
    }
    let (moved, mut waiting): (Vec<_>, Vec<_>) = calls.into_iter().partition(Call::has_attempt);
    assert_eq!(moved.len() as u64, AT_ONCE);
    moved.iter().for_each(|call| call.is_at("acc_2"));
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(let_go(&mut envoy, &mut waiting, TICK_MS).len() as u64);
    }
    assert!(waiting.is_empty(), "{} are left", waiting.len());
    assert_eq!(most, TICK_MS / EACH_MS);
    // Who comes anew is no part of it.
    envoy.ask().is_at("acc_2");
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
