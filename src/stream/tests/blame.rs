//! What the requests of one client key meet, and what becomes of another key's.

use serde_json::Value;

use super::envoy::{Call, Envoy, KEY, head, records};
use crate::snapshot::{Account, Record, fixture};

const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/codex/response.sse");
const NO_PLAN: &[u8] = include_bytes!("../../../tests/fixtures/codex/usage_not_included.json");

/// The key of another caller.
const OTHER: &str = "lk_another";

/// Two accounts and a key, whose platform's only rules are these.
fn two_accounts(rules: &str) -> Vec<Record> {
    let accounts = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    let mut records = records(&accounts);
    for record in &mut records {
        if let Record::Platform(platform) = record {
            platform.verdicts = serde_json::from_str(rules).unwrap();
        }
    }
    records
}

/// An Envoy with those and a second key.
fn two_keys(rules: &str) -> Envoy {
    let mut records = two_accounts(rules);
    let other = fixture::client_key("key_2", OTHER.as_bytes(), "default");
    records.push(Record::Key(other));
    Envoy::with(&records)
}

const DEAD: &str = r#"[{"code":["usage_not_included"],"verdict":"dead","reason":"plan"}]"#;

/// A request of `key` is answered so by the account that it goes to first; its caller gets something.
fn meets(envoy: &mut Envoy, key: &str, account: &str, status: u16) {
    let mut call = envoy.ask_as(key);
    call.is_at(account);
    match status {
        200 => call.platform(200, &[], ANSWER),
        _ => call.platform(status, &[], b"{}"),
    }
    call.goes_away();
}

#[test]
fn trouble_is_out_for_the_key_that_met_it() {
    let mut envoy = two_keys("[]");
    for _ in 0..3 {
        meets(&mut envoy, KEY, "acc_1", 500);
    }
    envoy.ask_as(KEY).is_at("acc_2");
    meets(&mut envoy, OTHER, "acc_1", 200);
    envoy.ask_as(KEY).is_at("acc_2");
    // One failure of the other key is no proof, two are.
    meets(&mut envoy, OTHER, "acc_1", 500);
    envoy.ask_as(OTHER).is_at("acc_1");
    meets(&mut envoy, OTHER, "acc_1", 500);
    envoy.ask_as(OTHER).is_at("acc_2");
}

#[test]
fn the_same_refusal_of_two_accounts_is_the_callers_fault() {
    let mut envoy = two_keys(DEAD);
    let mut call = envoy.ask();
    call.platform(400, &[], NO_PLAN);
    call.is_at("acc_2");
    call.platform(400, &[], NO_PLAN);
    call.gets(400, NO_PLAN);
    let record = envoy.records().concat();
    assert!(record.contains("attempts=2 callers_fault"), "{record}");
    // The first is left alone by that key for now, the second by nobody.
    envoy.ask().is_at("acc_2");
    envoy.ask_as(OTHER).is_at("acc_1");
}

#[test]
fn two_accounts_without_money_are_that_and_one_is_blamed() {
    let mut envoy = two_keys(DEAD);
    let mut call = envoy.ask();
    call.platform(402, &[], NO_PLAN);
    call.is_at("acc_2");
    call.platform(402, &[], NO_PLAN);
    call.gets(402, NO_PLAN);
    envoy.ask().is_at("acc_2");
    envoy.ask_as(OTHER).is_at("acc_1");
}

/// A request of `key` for `model` is answered so by one account after the other.
fn asks_for(envoy: &mut Envoy, key: &str, model: &str) -> Call {
    let bearer = format!("Bearer {key}");
    let mut headers = head("/v1/responses");
    headers[4].1 = &bearer;
    let mut call = envoy.call(&headers);
    call.sends(format!("{{\"model\":\"{model}\"}}").as_bytes(), true);
    call
}

const NO_MODEL: &str = r#"[{"code":["model_not_found"],"verdict":"cooling_down","scope":"model",
    "reason":"not_served","default_seconds":3600,"max_seconds":3600}]"#;
const NOT_FOUND: &[u8] = br#"{"error":{"code":"model_not_found","message":"m"}}"#;

#[test]
fn an_account_that_may_not_is_left_alone_for_that_model_once_another_one_did_it() {
    let mut envoy = two_keys(NO_MODEL);
    let mut call = asks_for(&mut envoy, KEY, "gpt-6-astra");
    call.platform(404, &[], NOT_FOUND);
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    asks_for(&mut envoy, KEY, "gpt-6-astra").is_at("acc_2");
    asks_for(&mut envoy, KEY, "gpt-5.5").is_at("acc_1");
    asks_for(&mut envoy, OTHER, "gpt-6-astra").is_at("acc_1");
}

#[test]
fn a_model_that_nobody_has_takes_out_nobody() {
    let mut envoy = two_keys(NO_MODEL);
    for _ in 0..4 {
        let mut call = asks_for(&mut envoy, KEY, "invented");
        call.is_at("acc_1");
        call.platform(404, &[], NOT_FOUND);
        call.is_at("acc_2");
        call.platform(404, &[], NOT_FOUND);
        call.gets(404, NOT_FOUND);
    }
    let mut envoy = Envoy::with(&two_accounts(NO_MODEL)[..]);
    envoy.publish(&records(&[fixture::account("acc_1", "codex")]));
    for _ in 0..4 {
        let mut call = envoy.ask();
        call.is_at("acc_1");
        call.platform(403, &[], b"{}");
        call.gets(403, b"{}");
    }
}

#[test]
fn whoever_has_no_money_is_left_alone_whatever_the_platform() {
    let mut envoy = two_keys("[]");
    let mut call = envoy.ask();
    call.platform(402, &[], b"");
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    envoy.ask().is_at("acc_2");
}

/// A request of `key` is told that the first account is dead, and gets its answer from the second. Returns
/// what the refresher hears of it.
fn dies(envoy: &mut Envoy, key: &str) -> Value {
    let mut call = envoy.ask_as(key);
    call.is_at("acc_1");
    call.platform(402, &[], NO_PLAN);
    call.is_at("acc_2");
    call.platform(200, &[], ANSWER);
    call.gets(200, ANSWER);
    let told = envoy.after(2_000);
    let mut reports = told.iter().filter_map(|body| body["reports"].as_array());
    let reports = reports.next().expect("a report");
    assert_eq!(reports[0]["kind"], "dead", "{reports:?}");
    reports[0].clone()
}

#[test]
fn a_dead_account_is_dead_when_a_second_key_says_so() {
    let mut envoy = two_keys(DEAD);
    let first = dies(&mut envoy, KEY);
    assert_eq!(first["confirmed"], false, "{first}");
    assert_eq!(first["key"], "key_1", "{first}");
    let second = dies(&mut envoy, OTHER);
    assert_eq!(second["confirmed"], true, "{second}");
    assert_eq!(second["key"], "key_2", "{second}");
    envoy.ask_as(OTHER).is_at("acc_2");
}

#[test]
fn the_only_keys_third_word_of_a_death_is_enough() {
    let mut envoy = Envoy::with(&two_accounts(DEAD));
    for (minutes, confirmed) in [(1, false), (2, false), (60, true)] {
        let told = dies(&mut envoy, KEY);
        assert_eq!(told["confirmed"], confirmed, "{told}");
        // It is left alone meanwhile.
        envoy.after(minutes * 60_000 - 10_000);
        envoy.ask().is_at("acc_2");
        envoy.after(10_000);
    }
}

#[test]
fn one_key_among_others_never_makes_a_death_final() {
    let mut envoy = two_keys(DEAD);
    for minutes in [1, 2, 4, 8, 16] {
        let told = dies(&mut envoy, KEY);
        assert_eq!(told["confirmed"], false, "{told}");
        envoy.after(minutes * 60_000);
        meets(&mut envoy, OTHER, "acc_1", 200);
    }
}

#[test]
fn a_refused_token_is_refreshed_and_waited_for_by_the_key_that_met_it() {
    let account = |id| Account {
        credential_expires_at: Some(u64::MAX / 2),
        ..fixture::account(id, "codex")
    };
    let mut records = records(&[account("acc_1")]);
    let other = fixture::client_key("key_2", OTHER.as_bytes(), "default");
    records.push(Record::Key(other));
    let mut envoy = Envoy::with(&records);
    let mut call = envoy.ask();
    call.platform(401, &[], b"");
    call.waits();
    let told = envoy.after(100);
    assert_eq!(told[0]["reports"][0]["kind"], "unauthorized");
    envoy.ask_as(OTHER).is_at("acc_1");
    call.waits();
}

/// What makes one account refuse it may make every other one do so: a login may be at stake with each.
#[test]
fn a_request_that_every_account_refuses_is_reported_of_one() {
    let accounts = ["acc_1", "acc_2", "acc_3"].map(|id| Account {
        credential_expires_at: Some(u64::MAX / 2),
        ..fixture::account(id, "codex")
    });
    let mut envoy = Envoy::with(&records(&accounts));
    let mut call = envoy.ask();
    for account in ["acc_1", "acc_2", "acc_3"] {
        call.is_at(account);
        call.platform(401, &[], b"{}");
    }
    call.goes_away();
    let told = envoy.after(2_000);
    let reports = told.iter().filter_map(|body| body["reports"].as_array());
    let refused: Vec<_> = reports
        .flatten()
        .filter(|report| report["kind"] == "unauthorized")
        .map(|report| report["account"].as_str())
        .collect();
    assert_eq!(refused, [Some("acc_1")]);
}
