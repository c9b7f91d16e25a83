//! The model that was asked for serves, or none.

use std::num::NonZeroU64;

use serde_json::{Value, json};

use super::envoy::{BUFFER_LIMIT, Call, Envoy, head, records};
use crate::{
    attempt::holding::MAX_UNNAMED_BYTES,
    header::HeaderName,
    snapshot::{ClientKey, Record, fixture},
};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
/// In which the platform names the model besides.
const HEADER: &str = "openai-model";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const EVENTS: [(&str, &str); 1] = [("content-type", "text/event-stream")];

/// An Envoy with these accounts, whose pool takes each model as itself, with this map of the accounts.
fn envoy(accounts: &[&str], map: &str) -> Envoy {
    envoy_with(accounts, map, |_| {})
}

/// The same, whose caller has a key that `change` changes.
fn envoy_with(accounts: &[&str], map: &str, change: impl Fn(&mut ClientKey)) -> Envoy {
    let accounts = accounts.iter().map(|id| {
        let mut account = fixture::account(id, "codex");
        account.maps = serde_json::from_str(map).unwrap();
        account
    });
    let accounts: Vec<_> = accounts.collect();
    let mut records = records(&accounts);
    for record in &mut records {
        match record {
            Record::Pool(pool) => pool.exact_model = true,
            Record::Key(key) => change(key),
            Record::Platform(platform) => {
                platform.endpoints[0].requires = Vec::new();
                platform.headers.model = HeaderName::try_from(HEADER.to_owned()).ok();
            }
            _ => {}
        }
    }
    Envoy::with(&records)
}

fn ask(envoy: &mut Envoy, path: &str) -> Call {
    let mut call = envoy.call(&head(path));
    let body = match path {
        CHAT => json!({"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": "hi"}]}),
        _ => json!({"model": "gpt-6.1-sol", "input": "hi"}),
    };
    call.sends(body.to_string().as_bytes(), true);
    call
}

/// A whole answer that names its model behind its text, as some do.
fn whole(model: &str) -> String {
    let text = json!([{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}]);
    format!(
        r#"{{"id":"resp_1","output":{text},"status":"completed","model":"{model}","usage":{{"input_tokens":3,"output_tokens":2}}}}"#
    )
}

fn events(model: &str) -> String {
    format!(
        "event: response.created\ndata: {}\n\nevent: response.output_text.delta\ndata: {}\n\nevent: response.completed\ndata: {}\n\n",
        json!({"type": "response.created", "response": {"id": "resp_1", "model": model}}),
        json!({"type": "response.output_text.delta", "delta": "hi"}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "model": model, "status": "completed"}}),
    )
}

/// In pieces: nothing of it may go before the model is known.
fn answers(call: &mut Call, said: &str) {
    let headers = if said.starts_with('{') { JSON } else { EVENTS };
    let account = call.header("authorization");
    call.platform_begins(200, &headers);
    let pieces = said.as_bytes().chunks(9).map(|piece| (piece, false));
    for (piece, end) in pieces.chain([(&b""[..], true)]) {
        // It may have gone to another one meanwhile.
        if call.header("authorization") == account {
            call.platform_goes_on(piece, end);
        }
    }
}

#[test]
fn an_answer_of_another_model_reaches_no_caller_and_another_account_is_tried() {
    for make in [whole, events] {
        let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
        let mut call = ask(&mut envoy, RESPONSES);
        answers(&mut call, &make("gpt-6-luna"));
        call.is_at("acc_2");
        let good = make("gpt-6.1-sol-2026-03-01");
        answers(&mut call, &good);
        call.gets(200, good.as_bytes());
        // It is held against nobody.
        let record = "acc_2 200 attempts=2 fine - whole";
        assert!(envoy.records().concat().starts_with(record));
        ask(&mut envoy, RESPONSES).is_at("acc_1");
    }
}

#[test]
fn where_nobody_serves_it_the_error_names_both_in_the_callers_dialect() {
    for make in [whole, events] {
        for path in [RESPONSES, CHAT] {
            let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
            let mut call = ask(&mut envoy, path);
            for account in ["acc_1", "acc_2"] {
                call.is_at(account);
                answers(&mut call, &make("gpt-6-luna"));
            }
            let refused = call.is_refused(502, "latchkey_another_model");
            let body: Value = serde_json::from_slice(&refused.body).unwrap();
            let message = body["error"]["message"].as_str().unwrap();
            assert!(
                message.contains("\"gpt-6-luna\"") && message.contains("\"gpt-6.1-sol\""),
                "{message}"
            );
            let record = "acc_2 502 attempts=2";
            let told = envoy.records().concat();
            assert!(told.starts_with(record), "{told}");
            ask(&mut envoy, path).is_at("acc_1");
        }
    }
}

/// It is read while it is held, and goes on from there.
#[test]
fn what_an_answer_used_is_counted_once() {
    for piece in [9, 100_000] {
        let mut envoy = envoy(&["acc_1"], "[]");
        let mut call = ask(&mut envoy, RESPONSES);
        let said = whole("gpt-6.1-sol");
        call.platform_begins(200, &JSON);
        for piece in said.as_bytes().chunks(piece) {
            call.platform_goes_on(piece, false);
        }
        call.platform_goes_on(b"", true);
        call.gets(200, said.as_bytes());
        let expected = "acc_1 200 attempts=1 fine - whole tokens=5";
        assert_eq!(envoy.records(), [expected]);
    }
}

#[test]
fn a_byte_order_mark_hides_no_model() {
    for make in [whole, events] {
        for mark in ["\u{feff}", "\n\u{feff}"] {
            let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
            let mut call = ask(&mut envoy, RESPONSES);
            for model in ["gpt-6-luna", "gpt-6.1-sol"] {
                call.platform_begins(200, &JSON);
                let said = format!("{mark}{}", make(model));
                call.platform_goes_on(said.as_bytes(), true);
            }
            call.gets(200, format!("{mark}{}", make("gpt-6.1-sol")).as_bytes());
        }
    }
}

#[test]
fn an_answer_that_names_none_is_none() {
    for said in [
        r#"{"output":[],"status":"completed"}"#.to_owned(),
        events("gpt-6.1-sol").replace("\"model\":", "\"mode\":"),
    ] {
        let mut envoy = envoy(&["acc_1"], "[]");
        let mut call = ask(&mut envoy, RESPONSES);
        answers(&mut call, &said);
        call.is_refused(502, "latchkey_another_model");
    }
}

/// What an account's map calls it is the model too, and so is the model where the platform says that.
#[test]
fn the_names_of_an_accounts_map_are_the_model() {
    for said in ["east-7", "gpt-6.1-sol-20260301"] {
        let mut envoy = envoy(&["acc_1"], r#"["gpt-6.1-sol=east-7"]"#);
        let mut call = ask(&mut envoy, RESPONSES);
        assert_eq!(call.sent_on()["model"], "east-7");
        answers(&mut call, &whole(said));
        call.gets(200, whole("gpt-6.1-sol").as_bytes());
    }
}

/// Blank lines while a model thinks, as some send them, let nothing go.
#[test]
fn time_does_not_tell_the_model() {
    let mut envoy = envoy(&["acc_1"], "[]");
    let mut call = ask(&mut envoy, RESPONSES);
    call.platform_begins(200, &JSON);
    call.platform_goes_on(b"\n\n", false);
    envoy.after(600_000);
    call.platform_goes_on(b"{\"output\":[", false);
    envoy.after(600_000);
    call.is_held();
    call.platform_goes_on(b"],\"model\":\"gpt-5\"", false);
    call.is_refused(502, "latchkey_another_model");
}

#[test]
fn comments_before_a_stream_begins_let_nothing_go() {
    let mut envoy = envoy(&["acc_1"], "[]");
    let mut call = ask(&mut envoy, RESPONSES);
    call.platform_begins(200, &EVENTS);
    for _ in 0..5 {
        call.platform_goes_on(b": keep-alive\n\n", false);
        envoy.after(600_000);
        call.is_held();
    }
    let good = events("gpt-6.1-sol");
    call.platform_goes_on(good.as_bytes(), true);
    let answer = call.answer();
    let text = String::from_utf8(answer.body).unwrap();
    assert_eq!(text, format!("{}{good}", ": keep-alive\n\n".repeat(5)));
}

/// The platform counts what it made, whoever gets it: 10 tokens each time by the length of what came, as its own count had
/// not come yet.
#[test]
fn what_another_model_made_is_counted_each_time() {
    let limited =
        |tokens| move |key: &mut ClientKey| key.limits.tokens_per_minute = NonZeroU64::new(tokens);
    let refused = |envoy: &mut Envoy| {
        let mut call = ask(envoy, RESPONSES);
        for account in ["acc_1", "acc_2"] {
            call.is_at(account);
            answers(&mut call, &whole("gpt-6-luna"));
        }
        call.is_refused(502, "latchkey_another_model");
    };
    let accounts = ["acc_1", "acc_2"];
    let mut free = envoy_with(&accounts, "[]", limited(21));
    refused(&mut free);
    assert_eq!(
        free.records(),
        ["acc_2 502 attempts=2 - latchkey_another_model whole tokens=10"]
    );
    ask(&mut free, RESPONSES).is_at("acc_1");
    let mut spent = envoy_with(&accounts, "[]", limited(20));
    refused(&mut spent);
    ask(&mut spent, RESPONSES).is_refused(429, "latchkey_limit");
}

#[test]
fn what_does_not_tell_within_what_may_be_held_is_none_and_no_other_account_is_paid_for_it() {
    let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
    let mut call = ask(&mut envoy, RESPONSES);
    call.platform_begins(200, &JSON);
    call.platform_goes_on(b"{\"output\":[\"", false);
    let text = vec![b'x'; 64 * 1024];
    for _ in 0..MAX_UNNAMED_BYTES / text.len() {
        call.is_held();
        call.platform_goes_on(&text, false);
    }
    call.is_refused(502, "latchkey_another_model");
}

/// An answer of 3 MiB, in pieces of this size, that names its model behind all else, as Google's do.
fn answers_much(call: &mut Call, model: &str, piece: usize) -> String {
    let text = "x".repeat(3 * 1024 * 1024);
    let said = whole(model).replace("\"hi\"", &format!("{text:?}"));
    let account = call.header("authorization");
    call.platform_begins(200, &JSON);
    let last = said.len().div_ceil(piece);
    for (number, piece) in said.as_bytes().chunks(piece).enumerate() {
        if call.header("authorization") == account && call.has_attempt() {
            call.platform_goes_on(piece, number + 1 == last);
        }
    }
    said
}

#[test]
fn a_large_answer_may_name_its_model_behind_all_else() {
    let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
    let mut call = ask(&mut envoy, RESPONSES);
    answers_much(&mut call, "gpt-6-luna", 16 * 1024);
    call.is_at("acc_2");
    let good = answers_much(&mut call, "gpt-6.1-sol", 16 * 1024);
    call.gets(200, good.as_bytes());
}

/// What is held of it is the key's, in the slices that Envoy has it in.
#[test]
fn a_large_answer_that_is_held_counts_for_its_key() {
    for (per_key, piece, fits) in [
        (16, 16 * 1024, true),
        (2, 16 * 1024, false),
        (16, 600, false),
    ] {
        let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
        envoy.configure(&format!(
            r#"{{"held_mib":64,"held_mib_per_key":{per_key}}}"#
        ));
        let mut call = ask(&mut envoy, RESPONSES);
        let said = answers_much(&mut call, "gpt-6.1-sol", piece);
        match fits {
            true => call.gets(200, said.as_bytes()),
            false => {
                call.is_refused(502, "latchkey_another_model");
            }
        }
    }
}

#[test]
fn a_header_that_names_another_model_keeps_the_answer_from_its_caller() {
    let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
    let mut call = ask(&mut envoy, RESPONSES);
    let good = events("gpt-6.1-sol");
    for (account, named) in [("acc_1", "gpt-6-luna"), ("acc_2", "GPT-6.1-Sol")] {
        call.is_at(account);
        call.platform_begins(200, &[EVENTS[0], (HEADER, named)]);
        call.platform_goes_on(good.as_bytes(), true);
    }
    call.gets(200, good.as_bytes());
    // Of an error it says nothing.
    let mut call = ask(&mut envoy, RESPONSES);
    call.platform_begins(400, &[JSON[0], (HEADER, "gpt-6-luna")]);
    call.platform_goes_on(b"{}", true);
    call.gets(400, b"{}");
}

/// Envoy cannot run a request again that it could not keep: what the platform said does not go on then either.
#[test]
fn not_even_a_request_that_cannot_run_again_gets_another_models_answer() {
    let body = json!({"model": "gpt-6.1-sol", "input": "hi"}).to_string();
    for make in [whole, events] {
        let mut envoy = envoy(&["acc_1", "acc_2"], "[]");
        let mut call = envoy.call(&head(RESPONSES));
        call.sends(body.as_bytes(), false);
        call.sends(&vec![b' '; BUFFER_LIMIT], true);
        call.is_at("acc_1");
        answers(&mut call, &make("gpt-6-luna"));
        let refused = call.is_refused(502, "latchkey_another_model");
        let text = String::from_utf8(refused.body).unwrap();
        assert!(
            text.starts_with("{\"error\":") && text.ends_with('}'),
            "{text}"
        );

        let mut call = envoy.call(&head(RESPONSES));
        call.sends(body.as_bytes(), false);
        call.is_at("acc_1");
        answers(&mut call, &make("gpt-6-luna"));
        call.sends(&vec![b' '; BUFFER_LIMIT], false);
        let refused = call.is_refused(502, "latchkey_another_model");
        let text = String::from_utf8(refused.body).unwrap();
        assert!(
            text.starts_with("{\"error\":") && text.ends_with('}'),
            "{text}"
        );
    }
}

/// It may be that of another key: a platform that repeats it is not quoted.
#[test]
fn a_credential_in_place_of_a_model_is_masked() {
    let mut envoy = envoy(&["acc_1"], "[]");
    let secret = fixture::account("acc_1", "codex").credential;
    let secret = secret.expose().to_owned();
    let mut call = ask(&mut envoy, RESPONSES);
    answers(&mut call, &whole(&secret));
    let refused = call.is_refused(502, "latchkey_another_model");
    let text = String::from_utf8(refused.body).unwrap();
    assert!(!text.contains(&secret) && text.contains("****"), "{text}");
}
