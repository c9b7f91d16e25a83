//! What exists in one account alone goes back to that account.

use serde_json::{Value, json};

use super::envoy::{BODY, Call, Envoy, KEY, head, records};
use crate::{
    home::ThingHash,
    host::fake::first,
    snapshot::{Account, ClientKey, Policy, Record, fixture},
};

const OTHER_KEY: &str = "lk_other";
const MADE: &[u8] = br#"{"id":"resp_1","object":"response","status":"completed","output":[]}"#;
const NOT_FOUND: &[u8] = br#"{"error":{"message":"no","type":"invalid_request_error","code":"previous_response_not_found"}}"#;
const NEXT: &[u8] = br#"{"model":"gpt-6.1-sol","input":"go on","previous_response_id":"resp_1"}"#;
const ENCRYPTED: &[u8] = br#"{"error":{"code":"invalid_encrypted_content","message":"no"}}"#;

/// A pool that takes its accounts in turn, of a platform that keeps what it answers.
fn keeping(accounts: &[&str]) -> Vec<Record> {
    let all: Vec<Account> = accounts
        .iter()
        .map(|id| fixture::account(id, "codex"))
        .collect();
    let mut records = records(&all);
    for record in &mut records {
        match record {
            Record::Pool(pool) => pool.policy = Policy::RoundRobin,
            Record::Platform(platform) => {
                platform.endpoints[0].keeps_days = Some(30);
                let mut get = platform.endpoints[0].clone();
                get.operation = "get".to_owned().try_into().unwrap();
                get.path = "/responses/{id}".to_owned().try_into().unwrap();
                (get.opaque, get.keeps_days) = (true, None);
                platform.endpoints.push(get);
                platform.elsewhere = ["previous_response_not_found", "invalid_encrypted_content"]
                    .map(str::to_owned)
                    .to_vec();
            }
            _ => {}
        }
    }
    records.push(Record::Key(fixture::client_key(
        "key_2",
        OTHER_KEY.as_bytes(),
        "default",
    )));
    records
}

fn sends(envoy: &mut Envoy, body: &[u8]) -> Call {
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(body, true);
    call
}

fn gets(envoy: &mut Envoy, path: &str, key: &str) -> Call {
    let bearer = format!("Bearer {key}");
    let mut headers = head(path);
    headers[0].1 = "GET";
    headers[4].1 = &bearer;
    let mut call = envoy.call(&headers);
    call.sends(b"", true);
    call
}

/// The first turn, at the account that this returns.
fn first_turn(envoy: &mut Envoy) -> String {
    let mut call = sends(envoy, BODY);
    let account = account_of(&call);
    call.platform(200, &[], MADE);
    call.gets(200, MADE);
    account
}

fn account_of(call: &Call) -> String {
    let credential = call.header("authorization").expect("it was sent");
    credential.trim_start_matches("Bearer token-of-").to_owned()
}

/// The platform answers with a response that is called `id`.
fn answers(mut call: Call, id: &str) {
    let answer = format!(r#"{{"id":"{id}","object":"response"}}"#);
    call.platform(200, &[], answer.as_bytes());
    call.gets(200, answer.as_bytes());
}

#[test]
fn every_turn_goes_to_the_account_that_made_the_one_before() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2", "acc_3"]));
    for conversation in 0..8 {
        let id = |turn: u32| format!("resp_{conversation}_{turn}");
        let call = sends(&mut envoy, BODY);
        let home = account_of(&call);
        answers(call, &id(0));
        for turn in 1..4 {
            // Others come in between.
            sends(&mut envoy, BODY).goes_away();
            let before = id(turn - 1);
            let body = match turn {
                1 => format!(r#"{{"previous_response_id":"{before}","model":"m"}}"#),
                2 => format!(r#"{{"model":"m","conversation":"{before}"}}"#),
                _ => format!(r#"{{"model":"m","conversation":{{"id":"{before}"}}}}"#),
            };
            let call = sends(&mut envoy, body.as_bytes());
            call.is_at(&home);
            answers(call, &id(turn));
        }
        let path = format!("/v1/responses/{}", id(3));
        let mut read = gets(&mut envoy, &path, KEY);
        read.is_at(&home);
        let upstream = path.replace("/v1/", "/");
        assert_eq!(read.header(":path"), Some(upstream));
        // It failed when it was made: that says nothing about the account now.
        let failed = br#"{"error":{"code":"rate_limit_exceeded"}}"#;
        read.platform(200, &[], failed);
        read.gets(200, failed);
    }
}

#[test]
fn another_worker_knows_and_the_record_tells_the_refresher() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    let home = first_turn(&mut envoy);
    // At the next tick, so that another Envoy may be asked for it at once.
    let told = envoy.after(1);
    let made: Vec<&Value> = told
        .iter()
        .filter_map(|body| body["records"].as_array())
        .flatten()
        .filter(|record| record["made"].is_array())
        .collect();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0]["account"], *home);
    let thing = ThingHash::of("resp_1").to_string();
    assert_eq!(made[0]["made"][0]["thing"], thing);
    let line = serde_json::to_string(&told).unwrap();
    assert!(
        !line.contains("resp_1"),
        "the id itself is nobody's business"
    );
    let mut other = envoy.new_vm();
    for _ in 0..3 {
        let call = sends(&mut other, NEXT);
        call.is_at(&home);
        call.goes_away();
    }
}

#[test]
fn who_does_not_know_asks_the_refresher_and_waits() {
    for home in ["acc_1", "acc_2"] {
        let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
        let mut call = sends(&mut envoy, NEXT);
        let mut second = sends(&mut envoy, NEXT);
        call.waits();
        second.waits();
        envoy.tells_home("key_1", home);
        for call in [&mut call, &mut second] {
            call.resumes();
            call.is_at(home);
        }
        // It is known from here on.
        sends(&mut envoy, NEXT).is_at(home);
    }
    // Nobody knows: the accounts are asked in turn, and the caller gets the last answer.
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    let mut call = sends(&mut envoy, NEXT);
    envoy.tells_of_no_home("key_1");
    call.resumes();
    let first = account_of(&call);
    call.platform(400, &[], NOT_FOUND);
    assert_ne!(account_of(&call), first);
    call.platform(400, &[], NOT_FOUND);
    call.gets(400, NOT_FOUND);
    // Nothing is held against an account that never had it.
    let mut found = Vec::new();
    for _ in 0..2 {
        let call = sends(&mut envoy, BODY);
        found.push(account_of(&call));
        call.goes_away();
    }
    found.sort();
    assert_eq!(found, ["acc_1", "acc_2"]);
}

#[test]
fn a_refresher_that_is_silent_costs_a_conversation_one_more_try_and_a_file_its_answer() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    let mut call = sends(&mut envoy, NEXT);
    let mut read = gets(&mut envoy, "/v1/responses/resp_1", KEY);
    envoy.fails_home("key_1");
    call.resumes();
    assert!(["acc_1", "acc_2"].contains(&account_of(&call).as_str()));
    read.is_answered();
    read.is_refused(503, "latchkey_home_unknown");
}

#[test]
fn no_other_key_reaches_it_by_its_path_or_by_a_body() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    first_turn(&mut envoy);
    let bearer = format!("Bearer {OTHER_KEY}");
    let mut headers = head("/v1/responses");
    headers[4].1 = &bearer;
    for refresher_knows in [true, false] {
        let mut read = gets(&mut envoy, "/v1/responses/resp_1", OTHER_KEY);
        let mut next = envoy.call(&headers);
        next.sends(NEXT, true);
        read.waits();
        next.waits();
        match refresher_knows {
            true => envoy.tells_others("key_2"),
            // This Envoy has it from the answer that made it.
            false => envoy.fails_home("key_2"),
        }
        for call in [&mut read, &mut next] {
            call.is_answered();
            call.is_refused(404, "latchkey_no_such_thing");
        }
        envoy.after(1_000);
    }
}

#[test]
fn what_another_envoy_made_a_moment_ago_is_asked_for_again() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    let mut call = sends(&mut envoy, NEXT);
    call.waits();
    envoy.is_asked_in_vain("key_1");
    call.waits();
    envoy.host.time.set(envoy.host.time.get() + 100);
    envoy.tells_home("key_1", "acc_2");
    call.resumes();
    call.is_at("acc_2");
}

#[test]
fn a_batch_tells_its_files_when_it_is_asked_for() {
    let mut records = keeping(&["acc_1", "acc_2"]);
    for record in &mut records {
        if let Record::Platform(platform) = record {
            let get = platform.endpoints.last_mut().unwrap();
            get.keeps_days = Some(30);
            let members = ["output_file_id", "error_file_id"].map(str::to_owned);
            get.makes = members.to_vec().try_into().unwrap();
        }
    }
    let mut envoy = Envoy::with(&records);
    let home = first_turn(&mut envoy);
    let mut call = gets(&mut envoy, "/v1/responses/resp_1", KEY);
    let batch = br#"{"id":"resp_1","output_file_id":"file-out","error_file_id":"file-err"}"#;
    call.platform(200, &[], batch);
    call.gets(200, batch);
    for file in ["file-out", "file-err"] {
        for _ in 0..2 {
            let read = gets(&mut envoy, &format!("/v1/responses/{file}"), KEY);
            read.is_at(&home);
            read.goes_away();
        }
    }
    let told = serde_json::to_string(&envoy.after(1)).unwrap();
    for file in ["file-out", "file-err"] {
        let thing = ThingHash::of(file).to_string();
        assert!(told.contains(&thing), "{file}: {told}");
    }
}

#[test]
fn a_home_that_is_out_or_gone_is_said_plainly_and_nobody_stands_in() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    let home = first_turn(&mut envoy);
    let mut call = sends(&mut envoy, NEXT);
    call.platform(429, &[("retry-after", "60")], b"{}");
    assert_eq!(call.answer().status, 429, "it went to no other account");
    call.goes_away();
    let mut call = sends(&mut envoy, NEXT);
    let refused = call.is_refused(429, "latchkey_home_out");
    let retry_after = first(&refused.headers, "retry-after").unwrap();
    let retry_after: u32 = String::from_utf8(retry_after).unwrap().parse().unwrap();
    assert!((50..=60).contains(&retry_after), "{retry_after}");
    // The others go on.
    let call = sends(&mut envoy, BODY);
    assert_ne!(account_of(&call), home);
    call.goes_away();
    let left = if home == "acc_1" { "acc_2" } else { "acc_1" };
    envoy.publish(&keeping(&[left, "acc_3"]));
    sends(&mut envoy, NEXT).is_refused(404, "latchkey_home_gone");
}

/// A turn with these files.
fn with_files(ids: &[&str]) -> Vec<u8> {
    let files = ids
        .iter()
        .map(|id| json!({"type": "input_file", "file_id": id}));
    let content: Vec<Value> = files.collect();
    json!({"model": "gpt-6.1-sol", "input": [{"role": "user", "content": content}]})
        .to_string()
        .into_bytes()
}

/// Has `account` make `id`.
fn makes(envoy: &mut Envoy, account: &str, id: &str) {
    for _ in 0..3 {
        let call = sends(envoy, BODY);
        if account_of(&call) == account {
            return answers(call, id);
        }
        call.goes_away();
    }
    panic!("{account} takes its turn");
}

#[test]
fn a_body_goes_where_the_files_are_that_it_names_however_it_is_cut() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2", "acc_3"]));
    for home in ["acc_1", "acc_2", "acc_3"] {
        let id = format!("file-{home}");
        makes(&mut envoy, home, &id);
        for step in [1, 7, 1_000] {
            let mut call = envoy.call(&head("/v1/responses"));
            let body = with_files(&[&id, &id]);
            let pieces = body.chunks(step).collect::<Vec<_>>();
            for (at, piece) in pieces.iter().enumerate() {
                call.sends(piece, at + 1 == pieces.len());
            }
            call.is_at(home);
            call.goes_away();
        }
    }
    for files in [["file-acc_1", "file-acc_2"], ["file-acc_3", "file-acc_1"]] {
        sends(&mut envoy, &with_files(&files)).is_refused(400, "latchkey_homes_apart");
    }
    let many: Vec<String> = (0..129).map(|number| format!("file-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    sends(&mut envoy, &with_files(&many)).is_refused(400, "latchkey_too_many_things");
    // A path and a body.
    let bearer = format!("Bearer {OTHER_KEY}");
    let mut headers = head("/v1/responses");
    headers[4].1 = &bearer;
    let mut call = envoy.call(&headers);
    call.sends(&with_files(&["resp_1"]), true);
    call.waits();
    envoy.tells_others("key_2");
    call.is_answered();
    call.is_refused(404, "latchkey_no_such_thing");
}

#[test]
fn all_that_a_body_names_is_asked_about_at_once() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    for (home, other) in [("acc_1", "acc_2"), ("acc_2", "acc_1")] {
        let [one, two, apart] = ["one", "two", "apart"].map(|name| format!("{name}-{home}"));
        let mut call = sends(&mut envoy, &with_files(&[&one, &two]));
        let mut third = sends(&mut envoy, &with_files(&[&two, &apart]));
        call.waits();
        envoy.tells_homes_of(&[(&one, home), (&two, home), (&apart, other)]);
        call.resumes();
        call.is_at(home);
        call.goes_away();
        third.is_answered();
        third.is_refused(400, "latchkey_homes_apart");
    }
}

#[test]
fn what_was_made_elsewhere_costs_one_wait_and_no_more() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2"]));
    let body = with_files(&["resp_1"]);
    let mut call = sends(&mut envoy, &body);
    call.waits();
    envoy.tells_of_no_home("key_1");
    call.resumes();
    call.goes_away();
    // It is asked about once more meanwhile.
    envoy.after(1_100);
    sends(&mut envoy, &body).goes_away();
    envoy.tells_home("key_1", "acc_2");
    for _ in 0..3 {
        let call = sends(&mut envoy, &body);
        call.is_at("acc_2");
        call.goes_away();
    }
}

#[test]
fn what_is_encrypted_for_another_account_finds_it_once_and_stays() {
    let mut envoy = Envoy::with(&keeping(&["acc_1", "acc_2", "acc_3"]));
    let body = br#"{"model":"m","store":false,"prompt_cache_key":"s1","input":[]}"#;
    let mut call = sends(&mut envoy, body);
    let mut seen = vec![account_of(&call)];
    for _ in 0..2 {
        call.platform(400, &[], ENCRYPTED);
        seen.push(account_of(&call));
    }
    call.platform(200, &[], MADE);
    call.gets(200, MADE);
    let home = seen.pop().unwrap();
    assert!(!seen.contains(&home));
    for _ in 0..3 {
        let mut call = sends(&mut envoy, body);
        call.is_at(&home);
        call.platform(200, &[], MADE);
        call.gets(200, MADE);
    }
    let told = serde_json::to_string(&envoy.after(2_000)).unwrap();
    assert!(!told.contains("\"made\""), "it asked to have nothing kept");
}

#[test]
fn a_list_of_what_an_account_holds_is_for_who_may_choose_it() {
    let mut records = keeping(&["acc_1", "acc_2"]);
    for record in &mut records {
        match record {
            Record::Doors(doors) => {
                for door in &mut doors.doors {
                    door.of_account = door.operation.as_str() == "get";
                }
            }
            Record::Key(ClientKey { id, may_choose, .. }) if id.as_str() == "key_1" => {
                may_choose.account = true;
            }
            _ => {}
        }
    }
    let mut envoy = Envoy::with(&records);
    let mut call = gets(&mut envoy, "/v1/responses/resp_1", OTHER_KEY);
    if !call.has_answer() {
        envoy.tells_of_no_home("key_2");
        call.is_answered();
    }
    call.is_refused(403, "latchkey_list_of_account");
    let mut headers = head("/v1/responses/resp_1").to_vec();
    headers[0].1 = "GET";
    headers.push(("x-latchkey-account", "acc_2"));
    let mut call = envoy.call(&headers);
    call.sends(b"", true);
    call.is_at("acc_2");
}
