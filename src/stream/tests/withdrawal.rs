//! What is taken away while a request is under way: its client key, what that may use, its account. Nothing of it leaves
//! any more.

use super::{
    coded::gzip,
    envoy::{BODY, Call, Envoy, KEY, head, records},
};
use crate::{
    id::Id,
    snapshot::{Account, ClientKey, Policy, Record, fixture},
};

const LIMITED: &[u8] = br#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#;
const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/codex/response.sse");

/// The beginning of a body, after which the gate lets the request go.
const BEGINNING: &[u8] = br#"{"model":"gpt-6.1-sol","input":""#;

fn accounts() -> [Account; 2] {
    ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"))
}

fn key_1() -> ClientKey {
    fixture::client_key("key_1", KEY.as_bytes(), "default")
}

/// A snapshot in which the key is this one, if it is there, and a pool `other` has the same accounts.
fn with_key(key: Option<ClientKey>) -> Vec<Record> {
    let mut records = records(&accounts());
    records.retain(|record| !matches!(record, Record::Key(_)));
    records.extend(key.map(Record::Key));
    let other = fixture::pool("other", Policy::FillFirst, &["acc_1", "acc_2"]);
    records.push(Record::Pool(other));
    records
}

fn listing(models: &str) -> ClientKey {
    ClientKey {
        models: serde_json::from_str(models).unwrap(),
        ..key_1()
    }
}

/// A change of the key while its request is under way, and the answer that the request gets.
struct Case {
    before: ClientKey,
    after: Option<ClientKey>,
    refused: (u16, &'static str),
}

/// The ways in which a key loses what its request needs.
fn cases() -> Vec<Case> {
    let case = |before, after, status, code| Case {
        before,
        after,
        refused: (status, code),
    };
    let ended = ClientKey {
        expires_at: Some(1),
        ..key_1()
    };
    let moved = fixture::client_key("key_1", KEY.as_bytes(), "other");
    let (listed, unlisted) = (listing(r#"["gpt-6.1-sol"]"#), listing(r#"["gpt-5.5"]"#));
    vec![
        case(key_1(), None, 401, "latchkey_unknown_key"),
        case(key_1(), Some(ended), 401, "latchkey_key_expired"),
        case(key_1(), Some(moved), 503, "latchkey_withdrawn"),
        // Nobody has read if its body names another model as well.
        case(key_1(), Some(listed.clone()), 503, "latchkey_withdrawn"),
        case(listed, Some(unlisted), 403, "latchkey_model_not_allowed"),
    ]
}

#[test]
fn a_later_try_is_held_to_what_its_key_may_by_then() {
    for Case {
        before,
        after,
        refused,
    } in cases()
    {
        let mut envoy = Envoy::with(&with_key(Some(before)));
        let mut call = envoy.ask();
        call.is_at("acc_1");
        envoy.publish(&with_key(after));
        call.platform(429, &[("retry-after", "60")], LIMITED);
        let answer = call.is_refused(refused.0, refused.1);
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            text.contains(r#""error":{"#),
            "in the caller's words: {text}"
        );
        assert_eq!(
            envoy.records(),
            [format!(
                "- {} attempts=1 - {} whole tokens=null",
                refused.0, refused.1
            )]
        );
    }
}

#[test]
fn a_later_try_goes_on_where_its_key_still_may() {
    let listed = listing(r#"["gpt-6.1-sol","gpt-5.5"]"#);
    let less = listing(r#"["gpt-6.1-sol"]"#);
    let chosen = |pool: &str| ClientKey {
        may_choose: serde_json::from_str(r#"{"pools":["default"]}"#).unwrap(),
        ..fixture::client_key("key_1", KEY.as_bytes(), pool)
    };
    for (before, after) in [
        (key_1(), key_1()),
        (listed, less),
        (key_1(), chosen("other")),
    ] {
        let mut envoy = Envoy::with(&with_key(Some(before)));
        let mut call = envoy.ask();
        envoy.publish(&with_key(Some(after)));
        call.platform(429, &[("retry-after", "60")], LIMITED);
        call.is_at("acc_2");
        // And once more, by what the second try carried.
        call.platform(200, &[], ANSWER);
        call.gets(200, ANSWER);
    }
}

#[test]
fn a_choice_that_was_taken_away_serves_no_later_try() {
    let chooser = ClientKey {
        may_choose: serde_json::from_str(r#"{"account":true}"#).unwrap(),
        ..key_1()
    };
    let mut envoy = Envoy::with(&with_key(Some(chooser)));
    let headers = [
        head("/v1/responses").as_slice(),
        &[("x-latchkey-account", "acc_1")],
    ]
    .concat();
    let mut call = envoy.call(&headers);
    call.sends(BODY, true);
    call.is_at("acc_1");
    envoy.publish(&with_key(Some(key_1())));
    call.platform(429, &[("retry-after", "5")], LIMITED);
    call.is_refused(403, "latchkey_choice_not_allowed");
}

/// The request of a revoked key that waits at the gate: for an account that told it to pause, or for a place.
#[test]
fn who_waits_is_refused_when_its_key_is_revoked() {
    let one = |limits: &str| {
        let account = Account {
            limits: serde_json::from_str(limits).unwrap(),
            ..fixture::account("acc_1", "codex")
        };
        records(&[account])
    };
    let without_key = |mut records: Vec<Record>| {
        records.retain(|record| !matches!(record, Record::Key(_)));
        records
    };
    let mut envoy = Envoy::with(&one("{}"));
    let mut call = envoy.ask();
    call.platform(429, &[("retry-after", "5")], LIMITED);
    call.waits();
    envoy.publish(&without_key(one("{}")));
    call.is_answered();
    call.is_refused(401, "latchkey_unknown_key");

    let limits = r#"{"concurrent_streams":1}"#;
    let mut envoy = Envoy::with(&one(limits));
    let first = envoy.ask();
    first.is_at("acc_1");
    let mut second = envoy.ask();
    second.waits();
    envoy.publish(&without_key(one(limits)));
    second.is_answered();
    second.is_refused(401, "latchkey_unknown_key");
}

/// The key is looked at again when all is there that the gate waited for.
#[test]
fn a_body_that_is_read_goes_nowhere_once_its_key_is_gone() {
    let listed = listing(r#"["gpt-6.1-sol"]"#);
    let plain: (&[(&str, &str)], Vec<u8>) = (&[], BODY.to_vec());
    let coded: (&[(&str, &str)], Vec<u8>) = (&[("content-encoding", "gzip")], gzip(BODY));
    for (more, body) in [plain, coded] {
        let mut envoy = Envoy::with(&with_key(Some(listed.clone())));
        let headers = [head("/v1/responses").as_slice(), more].concat();
        let mut call = envoy.call(&headers);
        let (first, second) = body.split_at(9);
        call.sends(first, false);
        call.waits();
        envoy.publish(&with_key(None));
        call.sends(second, true);
        call.is_refused(401, "latchkey_unknown_key");
    }
    // Before there was a snapshot, nobody had a key.
    let mut envoy = Envoy::starting();
    let mut call = envoy.ask();
    call.waits();
    envoy.publish(&with_key(None));
    call.is_answered();
    call.is_refused(401, "latchkey_unknown_key");
}

/// A request that the gate has let go, of which more is to come.
fn under_way(envoy: &mut Envoy) -> Call {
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(BEGINNING, false);
    call.is_at("acc_1");
    call
}

#[test]
fn a_body_that_was_let_go_does_not_end_once_its_key_is_gone() {
    for with_trailers in [false, true] {
        for Case {
            before,
            after,
            refused: (status, code),
        } in cases()
        {
            if !before.models.is_all() {
                // It is read to its end.
                continue;
            }
            let mut envoy = Envoy::with(&with_key(Some(before)));
            let mut call = under_way(&mut envoy);
            call.sends(b"x", false);
            envoy.publish(&with_key(after));
            match with_trailers {
                true => call.sends_trailers(),
                false => call.sends(b"\"}", true),
            }
            assert_eq!(call.sent_bytes(), [BEGINNING, b"x"].concat());
            call.is_refused(status, code);
            assert_eq!(
                envoy.records(),
                [format!(
                    "acc_1 {status} attempts=1 - {code} whole tokens=null"
                )]
            );
        }
    }
}

#[test]
fn a_body_that_was_let_go_does_not_end_at_an_account_that_is_gone() {
    let member_no_more = || {
        let mut records = with_key(Some(key_1()));
        for record in &mut records {
            if let Record::Pool(pool) = record {
                let gone = Id::try_from("acc_1").unwrap();
                pool.members.retain(|member| member.account != gone);
            }
        }
        records
    };
    let disabled = || {
        let mut records = with_key(Some(key_1()));
        records
            .retain(|record| !matches!(record, Record::Account(one) if one.id.as_str() == "acc_1"));
        records
    };
    let ended = || {
        let mut records = with_key(Some(key_1()));
        for record in &mut records {
            if let Record::Account(account) = record
                && account.id.as_str() == "acc_1"
            {
                account.expires_at = Some(1);
            }
        }
        records
    };
    for after in [member_no_more(), disabled(), ended()] {
        let mut envoy = Envoy::with(&with_key(Some(key_1())));
        let mut call = under_way(&mut envoy);
        envoy.publish(&after);
        call.sends(b"\"}", true);
        assert_eq!(call.sent_bytes(), BEGINNING);
        call.is_refused(503, "latchkey_withdrawn");
        // Sent again, it goes elsewhere.
        envoy.ask().is_at("acc_2");
    }
    // What has left that account for another one does not need it.
    let mut envoy = Envoy::with(&with_key(Some(key_1())));
    let mut call = under_way(&mut envoy);
    call.platform(429, &[("retry-after", "60")], LIMITED);
    envoy.publish(&disabled());
    call.sends(b"\"}", true);
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
}

#[test]
fn a_body_goes_on_while_nothing_of_its_own_is_taken_away() {
    let mut envoy = Envoy::with(&with_key(Some(key_1())));
    let mut call = under_way(&mut envoy);
    let mut more = with_key(Some(key_1()));
    let other = fixture::client_key("key_2", b"lk_9876543210", "default");
    more.push(Record::Key(other));
    envoy.publish(&more);
    envoy.after(10_000);
    call.sends(b"x", false);
    envoy.after(10_000);
    call.sends(b"\"}", true);
    call.is_at("acc_1");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
}

/// Where the operator bounds how long a snapshot is used that nobody confirms, that holds for a body that was let go.
#[test]
fn a_body_that_was_let_go_does_not_end_by_a_snapshot_that_nobody_confirms() {
    let mut envoy = Envoy::with(&with_key(Some(key_1())));
    envoy.configure(r#"{"max_unconfirmed_seconds":60}"#);
    envoy.publish(&with_key(Some(key_1())));
    let mut call = under_way(&mut envoy);
    envoy.after(60_001);
    call.sends(b"\"}", true);
    call.is_refused(503, "latchkey_unconfirmed");
}
