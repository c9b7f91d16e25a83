//! A model that another one serves.

use serde_json::{Value, json};

use super::envoy::{Call, Envoy, head, records};
use crate::{
    dialect::EffortWord,
    host::fake::first,
    snapshot::{Account, Record, fixture},
};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";

/// An Envoy with these accounts of a platform that speaks `responses`, whose pool has these maps; the platform takes
/// requests that are stored.
fn envoy(accounts: &[&str], maps: &str) -> Envoy {
    let account = |id: &&str| fixture::account(id, "codex");
    let accounts: Vec<Account> = accounts.iter().map(account).collect();
    let mut records = records(&accounts);
    for record in &mut records {
        match record {
            Record::Pool(pool) => pool.maps = serde_json::from_str(maps).unwrap(),
            Record::Platform(platform) => platform.endpoints[0].requires = Vec::new(),
            _ => {}
        }
    }
    Envoy::with(&records)
}

fn ask(envoy: &mut Envoy, path: &str, body: &[u8]) -> Call {
    let mut call = envoy.call(&head(path));
    let (first, rest) = body.split_at(body.len() / 2);
    call.sends(first, false);
    call.sends(rest, true);
    call
}

#[test]
fn the_platform_gets_the_model_that_serves_and_every_other_byte() {
    let maps = r#"["claude-sonnet-*=gpt-6.1-sol"]"#;
    let body = r#"{ "input":[{"model":"x","role":"user","content":"hi"}], "model" : "claude-sonnet-5" ,"stream":true, "mode\u006c":"y"}"#;
    let mut envoy = envoy(&["acc_1", "acc_2"], maps);
    let mut call = ask(&mut envoy, RESPONSES, body.as_bytes());
    call.is_at("acc_1");
    let expected = body
        .replace("claude-sonnet-5", "gpt-6.1-sol")
        .replace(r#""y""#, r#""gpt-6.1-sol""#);
    assert_eq!(call.sent_bytes(), expected.as_bytes());
    // The next account gets it from what the caller sent.
    call.platform(429, &[("retry-after", "99")], b"{}");
    call.is_at("acc_2");
    assert_eq!(call.sent_bytes(), expected.as_bytes());

    let own = json!({"model": "gpt-6.1-sol", "input": "hi"}).to_string();
    let call = ask(&mut envoy, RESPONSES, own.as_bytes());
    assert_eq!(call.sent_bytes(), own.as_bytes(), "it serves itself");
}

#[test]
fn who_asks_in_another_dialect_is_answered_by_the_model_that_it_asked_for() {
    let mut envoy = envoy(&["acc_1"], r#"["claude-*=gpt-6.1-sol"]"#);
    let chat = json!({"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "hi"}]});
    let mut call = ask(&mut envoy, CHAT, chat.to_string().as_bytes());
    call.is_at("acc_1");
    assert_eq!(call.sent_on()["model"], "gpt-6.1-sol");
    let usage = json!({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5});
    let answer = json!({"id": "resp_1", "model": "gpt-6.1-sol", "status": "completed", "output": [], "usage": usage});
    call.platform(
        200,
        &[("content-type", "application/json")],
        answer.to_string().as_bytes(),
    );
    let body: Value = serde_json::from_slice(&call.answer().body).unwrap();
    assert_eq!(body["model"], "claude-opus-5-5");
    let told = envoy.after(2_000);
    let record = told
        .iter()
        .find_map(|body| Some(&body["records"].as_array()?[0]));
    let record = record.expect("a record");
    assert_eq!(
        (&record["asked"], &record["model"]),
        (&json!("claude-opus-5-5"), &json!("gpt-6.1-sol"))
    );
}

/// What the key may ask for is what its caller says, not what serves it.
#[test]
fn a_key_may_ask_for_the_models_of_its_list_whatever_serves_them() {
    let account = fixture::account("acc_1", "codex");
    let mut records = records(&[account]);
    for record in &mut records {
        match record {
            Record::Pool(pool) => {
                pool.maps = serde_json::from_str(r#"["fast=gpt-6.1-sol"]"#).unwrap();
            }
            Record::Platform(platform) => platform.endpoints[0].requires = Vec::new(),
            Record::Key(key) => key.models = serde_json::from_str(r#"["fast"]"#).unwrap(),
            _ => {}
        }
    }
    let mut envoy = Envoy::with(&records);
    let body = |model: &str| json!({"model": model, "input": "hi"}).to_string();
    let call = ask(&mut envoy, RESPONSES, body("fast").as_bytes());
    assert_eq!(call.sent_on()["model"], "gpt-6.1-sol");
    let mut call = ask(&mut envoy, RESPONSES, body("gpt-6.1-sol").as_bytes());
    call.is_refused(403, "latchkey_model_not_allowed");
}

#[test]
fn a_body_into_which_no_model_can_be_put_is_refused() {
    let mut envoy = envoy(&["acc_1"], r#"["fast=gpt-6.1-sol"]"#);
    let mut call = ask(&mut envoy, RESPONSES, br#"{"model":"fast","input":"#);
    call.is_refused(400, "latchkey_unchangeable");
    let deep = format!(
        r#"{{"model":"fast","input":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let mut call = ask(&mut envoy, RESPONSES, deep.as_bytes());
    let refused = call.is_refused(400, "latchkey_unchangeable");
    let text = String::from_utf8(refused.body).unwrap();
    assert!(text.contains("up to 128 levels"), "{text}");
}

/// An Envoy with one account, whose records were changed like this.
fn changed(change: impl Fn(&mut Record)) -> Envoy {
    let mut records = records(&[fixture::account("acc_1", "codex")]);
    for record in &mut records {
        if let Record::Platform(platform) = record {
            platform.endpoints[0].requires = Vec::new();
        }
        change(record);
    }
    Envoy::with(&records)
}

/// What the key's caller means, what the pool serves it by, and what the account's platform calls that.
#[test]
fn maps_of_key_pool_and_account_follow_each_other() {
    let maps = |maps: &str| serde_json::from_str(maps).unwrap();
    let mut envoy = changed(|record| match record {
        Record::Key(key) => key.maps = maps(r#"["mine=fast"]"#),
        Record::Pool(pool) => pool.maps = maps(r#"["fast=gpt-7","mine=never"]"#),
        Record::Account(account) => account.maps = maps(r#"["gpt-7=my-deployment"]"#),
        _ => {}
    });
    for asked in ["mine", "fast", "gpt-7"] {
        for path in [RESPONSES, CHAT] {
            let body = match path {
                RESPONSES => json!({"model": asked, "input": "hi"}),
                _ => json!({"model": asked, "messages": [{"role": "user", "content": "hi"}]}),
            };
            let mut call = ask(&mut envoy, path, body.to_string().as_bytes());
            call.is_at("acc_1");
            assert_eq!(call.sent_on()["model"], "my-deployment", "{asked} {path}");
            call.platform(
                400,
                &[("content-type", "application/json")],
                br#"{"error":{"message":"no"}}"#,
            );
            assert_eq!(call.answer().status, 400);
        }
    }
}

/// Each name is the platform's own in its path too.
#[test]
fn the_path_has_the_name_that_the_accounts_platform_has() {
    let mut envoy = changed(|record| match record {
        Record::Platform(platform) => {
            platform.endpoints[0].path = "/deployments/{model}/go".to_owned().try_into().unwrap();
        }
        Record::Account(account) => {
            account.maps = serde_json::from_str(r#"["gpt-*=east-7"]"#).unwrap();
        }
        _ => {}
    });
    let body = json!({"model": "gpt-7", "input": "hi"}).to_string();
    let call = ask(&mut envoy, RESPONSES, body.as_bytes());
    assert_eq!(call.header(":path").unwrap(), "/deployments/east-7/go");
    assert_eq!(call.sent_on()["model"], "east-7");
}

/// By its key or by its pool. Who speaks the platform's dialect is served as before.
#[test]
fn what_may_not_be_translated_is_refused_as_what_nobody_serves() {
    for by_key in [true, false] {
        let mut envoy = changed(|record| match record {
            Record::Key(key) => key.untranslated = by_key,
            Record::Pool(pool) => pool.untranslated = !by_key,
            _ => {}
        });
        let chat = json!({"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": "hi"}]});
        let mut call = ask(&mut envoy, CHAT, chat.to_string().as_bytes());
        let refused = call.is_refused(400, "latchkey_path_not_in_pool");
        let body = String::from_utf8(refused.body).unwrap();
        assert!(body.contains("POST /v1/responses"), "{body}");
        assert!(!body.contains("POST /v1/messages"), "{body}");
        let own = json!({"model": "gpt-6.1-sol", "input": "hi"}).to_string();
        let call = ask(&mut envoy, RESPONSES, own.as_bytes());
        call.is_at("acc_1");
    }
}

#[test]
fn a_model_serves_itself_or_is_not_served_where_the_key_or_the_pool_says_so() {
    for by_key in [true, false] {
        let mut envoy = changed(|record| match record {
            Record::Key(key) => key.exact_model = by_key,
            Record::Pool(pool) => {
                pool.exact_model = !by_key;
                pool.maps = serde_json::from_str(r#"["fast=gpt-6.1-sol"]"#).unwrap();
            }
            Record::Account(account) => {
                account.models = serde_json::from_str(r#"["gpt-6.1-sol"]"#).unwrap();
                account.maps = serde_json::from_str(r#"["gpt-6.1-sol=east-7"]"#).unwrap();
            }
            _ => {}
        });
        let body = |model: &str| json!({"model": model, "input": "hi"}).to_string();
        let mut call = ask(&mut envoy, RESPONSES, body("fast").as_bytes());
        call.is_refused(404, "latchkey_model_not_served");
        let call = ask(&mut envoy, RESPONSES, body("gpt-6.1-sol").as_bytes());
        assert_eq!(call.sent_on()["model"], "east-7", "the platform's own name");
    }
}

/// The caller's program may compare. What is metered and recorded is what the platform said.
#[test]
fn an_answer_that_passes_as_it_is_names_the_model_that_was_asked_for() {
    let mut envoy = envoy(&["acc_1"], r#"["fast=gpt-6.1-sol"]"#);
    let body = json!({"model": "fast", "input": "hi"}).to_string();
    let own = json!({"model": "gpt-6.1-sol", "input": "hi"}).to_string();
    let usage = json!({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5});
    let response = json!({
        "id": "resp_1", "object": "response", "model": "gpt-6.1-sol-2026", "status": "completed", "usage": usage,
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "\"model\":\"gpt\""}]}],
    });
    let whole = response.to_string();
    let events = format!(
        "event: response.created\ndata: {}\n\nevent: response.output_text.delta\ndata: {}\n\nevent: response.completed\ndata: {}\n\n",
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-6.1-sol-2026"}}),
        json!({"type": "response.output_text.delta", "delta": "model"}),
        json!({"type": "response.completed", "response": response}),
    );
    for (kind, said) in [("application/json", whole), ("text/event-stream", events)] {
        let length = said.len().to_string();
        let headers = [("content-type", kind), ("content-length", &length)];
        let mut call = ask(&mut envoy, RESPONSES, body.as_bytes());
        call.platform_begins(200, &headers);
        for piece in said.as_bytes().chunks(7) {
            call.platform_goes_on(piece, false);
        }
        call.platform_goes_on(b"", true);
        let answer = call.answer();
        let expected = said.replace("\"gpt-6.1-sol-2026\"", "\"fast\"");
        assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
        assert_eq!(first(&answer.headers, "content-length"), None);
        let told = envoy.after(2_000);
        let mut records = told.iter().filter_map(|body| body["records"].as_array());
        let record = &records.next().expect("a record")[0];
        assert_eq!(record["model"], "gpt-6.1-sol-2026");
        assert_eq!(record["usage"]["total"], 5);

        let mut call = ask(&mut envoy, RESPONSES, own.as_bytes());
        call.platform(200, &headers, said.as_bytes());
        let answer = call.answer();
        assert_eq!(
            String::from_utf8(answer.body).unwrap(),
            said,
            "no map is of it"
        );
        assert!(first(&answer.headers, "content-length").is_some());
    }
}

/// In the caller's own dialect and in another one; on the next account too.
#[test]
fn what_is_demanded_goes_out_whatever_the_caller_says() {
    let mut envoy = changed(|record| match record {
        Record::Key(key) => {
            key.demands =
                serde_json::from_str(r#"{"max_effort":"medium","tier":"default"}"#).unwrap();
            key.maps = serde_json::from_str(r#"["deep=gpt-6.1-sol@max"]"#).unwrap();
        }
        Record::Account(account) => {
            account.maps = serde_json::from_str(r#"["gpt-6.1-sol=sol@low"]"#).unwrap();
        }
        _ => {}
    });
    for (asked, effort) in [("deep", "medium"), ("gpt-6.1-sol", "low")] {
        let own =
            format!(r#"{{"model":"{asked}", "input":"hi","reasoning":{{"effort":"xhigh"}}}}"#);
        let call = ask(&mut envoy, RESPONSES, own.as_bytes());
        let expected = format!(
            r#"{{"model":"sol", "input":"hi","reasoning":{{"effort":"{effort}"}},"service_tier":"default"}}"#
        );
        assert_eq!(std::str::from_utf8(call.sent_bytes()).unwrap(), expected);
        let chat = json!({
            "model": asked, "reasoning_effort": "high", "service_tier": "priority",
            "messages": [{"role": "user", "content": "hi"}],
        });
        let call = ask(&mut envoy, CHAT, chat.to_string().as_bytes());
        let sent = call.sent_on();
        assert_eq!(sent["reasoning"]["effort"], effort);
        assert_eq!(
            (&sent["model"], &sent["service_tier"]),
            (&json!("sol"), &json!("default"))
        );
    }
}

/// At the older completions too: the list of models and the maps, and of what is demanded what the request says.
#[test]
fn completions_take_what_is_theirs_of_it() {
    let mut envoy = changed(|record| match record {
        Record::Doors(doors) => {
            let door = json!({
                "id": 8, "method": "POST", "path": "/v1/completions", "dialect": "chat", "operation": "complete",
            });
            doors.doors[7] = serde_json::from_value(door).unwrap();
        }
        Record::Platform(platform) => {
            let endpoint = json!({
                "dialect": "chat", "operation": "complete", "path": "/completions",
                "accents": [{"accent": {"efforts": ["low", "high"], "takes": ["service_tier"]}}],
            });
            platform.endpoints = vec![serde_json::from_value(endpoint).unwrap()];
        }
        Record::Key(key) => {
            key.models = serde_json::from_str(r#"["fast"]"#).unwrap();
            key.maps = serde_json::from_str(r#"["fast=gpt-6.1-sol"]"#).unwrap();
            key.demands = serde_json::from_str(r#"{"effort":"low","tier":"default"}"#).unwrap();
        }
        _ => {}
    });
    let path = "/v1/completions";
    let said =
        r#"{"model":"fast", "prompt":"hi","service_tier":"priority","reasoning_effort":"high"}"#;
    let unsaid = r#"{"model":"fast", "prompt":"hi"}"#;
    for body in [said, unsaid] {
        let call = ask(&mut envoy, path, body.as_bytes());
        let expected = body.replace("fast", "gpt-6.1-sol");
        let expected = expected
            .replace("priority", "default")
            .replace("high", "low");
        assert_eq!(std::str::from_utf8(call.sent_bytes()).unwrap(), expected);
    }
    let other = r#"{"model":"gpt-6.1-sol","prompt":"hi"}"#;
    let mut call = ask(&mut envoy, path, other.as_bytes());
    call.is_refused(403, "latchkey_model_not_allowed");
}

/// Where nobody sees what a model is asked for, nothing could be demanded of it.
#[test]
fn a_body_in_which_nothing_can_be_demanded_is_refused() {
    let mut envoy = changed(|record| {
        if let Record::Key(key) = record {
            key.demands = serde_json::from_str(r#"{"max_effort":"low"}"#).unwrap();
        }
    });
    for body in [&br#"{"input":"hi""#[..], b"--form"] {
        let mut call = ask(&mut envoy, RESPONSES, body);
        call.is_refused(400, "latchkey_unchangeable");
    }
}

/// Envoy hands on what it holds where a request ends with trailers.
#[test]
fn a_body_that_ends_with_trailers_is_changed_and_translated_too() {
    for path in [RESPONSES, CHAT] {
        let mut envoy = changed(|record| {
            if let Record::Key(key) = record {
                key.maps = serde_json::from_str(r#"["fast=gpt-6.1-sol"]"#).unwrap();
                key.demands.max_effort = Some(EffortWord::Low);
            }
        });
        let body = match path {
            RESPONSES => json!({"model": "fast", "input": "hi", "reasoning": {"effort": "high"}}),
            _ => {
                let messages = json!([{"role": "user", "content": "hi"}]);
                json!({"model": "fast", "messages": messages, "reasoning_effort": "high"})
            }
        };
        let mut call = envoy.call(&head(path));
        call.sends(body.to_string().as_bytes(), false);
        call.sends_trailers();
        call.is_at("acc_1");
        let sent = call.sent_on();
        assert_eq!(sent["model"], "gpt-6.1-sol");
        assert_eq!(sent["reasoning"]["effort"], "low", "{path}: {sent}");
        assert!(sent["input"].is_array() == (path == CHAT), "{sent}");
    }
}

/// The headers say the length of the body that goes out, so they wait for it.
#[test]
fn an_empty_first_piece_lets_nothing_go() {
    let mut envoy = changed(|record| {
        if let Record::Key(key) = record {
            key.demands.max_effort = Some(EffortWord::Low);
        }
    });
    let body = json!({"model": "gpt-6.1-sol", "input": "hi", "reasoning": {"effort": "xhigh"}});
    let body = body.to_string();
    let length = body.len().to_string();
    let headers = head(RESPONSES);
    let headers: Vec<_> = headers
        .into_iter()
        .chain([("content-length", length.as_str()), ("session_id", "one")])
        .collect();
    let mut call = envoy.call(&headers);
    call.sends(b"", false);
    assert!(call.has_attempt(), "the gate needs nothing of the body");
    call.sends(body.as_bytes(), true);
    assert_eq!(call.sent_on()["reasoning"]["effort"], "low");
    let sent = call.sent_bytes().len().to_string();
    assert_eq!(call.header("content-length").unwrap(), sent);
}
