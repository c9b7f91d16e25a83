//! A platform that has an object around what its dialect has.

use serde_json::{Value, json};

use super::{
    coded::gzip,
    envoy::{Call, Envoy, head, records},
};
use crate::{
    host::fake::first,
    snapshot::{Account, Platform, Record, Tier, fixture, wrapper::MAX_WRAPPED_BYTES},
};

const ASKED_AT: &str = "/v1beta/models/gpt-6.1-sol:streamGenerateContent?alt=sse";
const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{ "contents":[{"role":"user", "parts":[{"text":"hi"}]}] }"#;
const EVENTS: [(&str, &str); 2] = [
    ("content-type", "text/event-stream"),
    ("content-length", "9"),
];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn platform(id: &str, endpoint: &Value) -> Platform {
    let mut platform = fixture::platform("codex");
    platform.id = id.to_owned().try_into().unwrap();
    platform.endpoints[0] = serde_json::from_value(endpoint.clone()).unwrap();
    platform
}

/// An Envoy with these accounts, the first of which serves while it can: at `wrapped`, or at `plain` without anything
/// around what is said.
fn envoy(accounts: &[(&str, &str)]) -> Envoy {
    envoy_with(accounts, false)
}

/// The same, whose pool takes each model as itself or not.
fn envoy_with(accounts: &[(&str, &str)], exact_model: bool) -> Envoy {
    let accounts: Vec<Account> = accounts
        .iter()
        .map(|(id, platform)| fixture::account(id, platform))
        .collect();
    let mut records = records(&accounts);
    for record in &mut records {
        if let Record::Pool(pool) = record {
            pool.exact_model = exact_model;
            for (tier, member) in (0..).zip(&mut pool.members) {
                member.tier = Tier::try_from(tier).unwrap();
            }
        }
    }
    let wrapper = json!([
        "request",
        "response",
        "model",
        "{model}",
        "project",
        "{account_id}"
    ]);
    let wrapped = json!({
        "dialect": "gemini", "operation": "stream", "path": "/v1internal:streamGenerateContent",
        "wrapper": wrapper,
    });
    let path = "/p/models/{model}:streamGenerateContent";
    let plain = json!({"dialect": "gemini", "operation": "stream", "path": path});
    let chat = json!({
        "dialect": "chat", "operation": "generate", "path": "/chat", "wrapper": wrapper,
    });
    records.extend(
        [("wrapped", wrapped), ("plain", plain), ("chat", chat)]
            .map(|(id, endpoint)| Record::Platform(platform(id, &endpoint))),
    );
    let mut envoy = Envoy::with(&records);
    envoy.configure(r#"{"throttle_wait_seconds":0}"#);
    envoy
}

/// An answer in one list, of so many bytes in its first object, that names its model in that one's end.
fn list(model: &str, size: usize) -> (String, String) {
    let first = text(&"x".repeat(size), "").replace("gpt-6.1-sol", model);
    let last = text(" there", r#","finishReason":"STOP""#).replace("gpt-6.1-sol", model);
    (
        format!("[{first}\n,\r\n{last}]\n"),
        format!("[{{\"response\":{first},\"traceId\":\"t\"}}\n,\r\n{{\"response\": {last}}}]\n"),
    )
}

fn ask(envoy: &mut Envoy, path: &str, body: &[u8]) -> Call {
    let length = body.len().to_string();
    let mut headers = head(path).to_vec();
    headers.push(("content-length", &length));
    let mut call = envoy.call(&headers);
    let (first, rest) = body.split_at(body.len() / 2);
    call.sends(first, false);
    call.sends(rest, true);
    call
}

/// The platform has what its caller asked, with what it has around that.
#[track_caller]
fn is_asked_wrapped(call: &Call, account: &str, body: &str) {
    call.is_at(account);
    let path = call.header(":path").unwrap();
    assert_eq!(path, "/v1internal:streamGenerateContent?alt=sse");
    let expected =
        format!(r#"{{"model":"gpt-6.1-sol","project":"ws-{account}","request":{body}}}"#);
    assert_eq!(String::from_utf8_lossy(call.sent_bytes()), expected);
    let length = call.header("content-length").unwrap();
    assert_eq!(length, expected.len().to_string());
}

#[track_caller]
fn is_asked_plainly(call: &Call, account: &str) {
    call.is_at(account);
    let path = call.header(":path").unwrap();
    assert_eq!(path, "/p/models/gpt-6.1-sol:streamGenerateContent?alt=sse");
    assert_eq!(String::from_utf8_lossy(call.sent_bytes()), BODY);
    assert_eq!(
        call.header("content-length").unwrap(),
        BODY.len().to_string()
    );
}

fn text(text: &str, finish: &str) -> String {
    format!(
        r#"{{"candidates": [{{"content":{{"role":"model","parts":[{{"text":"{text}"}}]}}{finish}}}],"usageMetadata":{{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}},"modelVersion":"gpt-6.1-sol"}}"#
    )
}

/// An answer of two events, in the dialect and with what is around it.
fn answer() -> (String, String) {
    let (hi, there) = (text("Hi", ""), text(" there", r#","finishReason":"STOP""#));
    (
        format!("data: {hi}\r\n\r\ndata: {there}\r\n\r\n"),
        format!(
            "data: {{\"response\":{hi},\"traceId\":\"t\"}}\r\n\r\ndata: {{\"traceId\": \"t\",\"response\" :{there}}}\r\n\r\n"
        ),
    )
}

#[test]
fn the_platform_gets_the_callers_bytes_in_its_object_and_the_caller_the_dialects_own() {
    let (plain, wrapped) = answer();
    for cut in 0..wrapped.len() {
        let mut envoy = envoy(&[("acc_1", "wrapped")]);
        let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
        is_asked_wrapped(&call, "acc_1", BODY);
        call.platform_begins(200, &EVENTS);
        let (begun, rest) = wrapped.as_bytes().split_at(cut);
        call.platform_goes_on(begun, false);
        call.platform_goes_on(rest, true);
        let got = call.answer();
        assert_eq!(first(&got.headers, "content-length"), None);
        assert_eq!(String::from_utf8(got.body).unwrap(), plain, "{cut}");
        let told = envoy.after(2_000);
        let records = told.iter().find_map(|body| body["records"].as_array());
        let record = &records.expect("a record")[0];
        assert_eq!(
            record["tokens"]["total"]
                .as_u64()
                .or(record["usage"]["total"].as_u64()),
            Some(5),
            "{record}"
        );
    }
}

#[test]
fn a_caller_of_another_dialect_is_translated_beneath_it() {
    let (_, wrapped) = answer();
    for (stream, cut) in [(true, 40), (false, 300)] {
        let mut envoy = envoy(&[("acc_1", "wrapped")]);
        let chat = json!({"model": "gpt-6.1-sol", "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
        let mut call = ask(&mut envoy, CHAT, chat.to_string().as_bytes());
        call.is_at("acc_1");
        let sent = call.sent_on();
        assert_eq!(sent["model"], "gpt-6.1-sol");
        assert_eq!(sent["project"], "ws-acc_1");
        assert_eq!(sent["request"]["contents"][0]["parts"][0]["text"], "hi");
        let length = call.sent_bytes().len().to_string();
        assert_eq!(call.header("content-length").unwrap(), length);
        call.platform_begins(200, &EVENTS);
        let (begun, rest) = wrapped.as_bytes().split_at(cut);
        call.platform_goes_on(begun, false);
        call.platform_goes_on(rest, true);
        let got = String::from_utf8(call.answer().body).unwrap();
        match stream {
            true => assert!(got.contains(r#""content":" there""#), "{got}"),
            false => {
                let body: Value = serde_json::from_str(&got).unwrap();
                assert_eq!(body["choices"][0]["message"]["content"], "Hi there");
                assert_eq!(body["usage"]["total_tokens"], 5);
            }
        }
    }
}

#[test]
fn a_request_moves_to_and_from_a_platform_that_has_nothing_around_it() {
    let error = r#"{"error":{"code":429,"message":"so it is","status":"RESOURCE_EXHAUSTED"}}"#;
    let (plain, wrapped) = answer();
    for hangs_up in [false, true] {
        let fails = |call: &mut Call| match hangs_up {
            true => call.platform_hangs_up(),
            false => call.platform(
                429,
                &[("content-type", "application/json"), ("retry-after", "60")],
                error.as_bytes(),
            ),
        };
        let mut envoy = envoy(&[("acc_1", "wrapped"), ("acc_2", "plain")]);
        let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
        is_asked_wrapped(&call, "acc_1", BODY);
        fails(&mut call);
        is_asked_plainly(&call, "acc_2");
        call.platform(200, &EVENTS, plain.as_bytes());
        assert_eq!(call.answer().body, plain.as_bytes());

        let mut envoy = self::envoy(&[("acc_1", "plain"), ("acc_2", "wrapped")]);
        let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
        is_asked_plainly(&call, "acc_1");
        fails(&mut call);
        is_asked_wrapped(&call, "acc_2", BODY);
        call.platform(200, &EVENTS, wrapped.as_bytes());
        assert_eq!(call.answer().body, plain.as_bytes());
    }
}

#[test]
fn an_error_with_nothing_around_it_is_judged_and_told_as_it_is() {
    let error = r#"{"error":{"code":400,"message":"so it is","status":"INVALID_ARGUMENT"}}"#;
    let mut envoy = envoy(&[("acc_1", "wrapped")]);
    let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
    call.platform(400, &JSON, error.as_bytes());
    call.gets(400, error.as_bytes());

    // Inside of HTTP 200, in the middle of which the first of two accounts gives up.
    let mut envoy = self::envoy(&[("acc_1", "wrapped"), ("acc_2", "wrapped")]);
    let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
    let busy = r#"{"error":{"code":429,"message":"so it is","status":"RESOURCE_EXHAUSTED"}}"#;
    call.platform(200, &EVENTS, format!("data: {busy}\n\n").as_bytes());
    is_asked_wrapped(&call, "acc_2", BODY);
    let (plain, wrapped) = answer();
    call.platform(200, &EVENTS, wrapped.as_bytes());
    assert_eq!(call.answer().body, plain.as_bytes());
}

/// What is cut off, or says twice what it has, is not made whole by what is taken off.
#[test]
fn a_broken_answer_is_no_good_one() {
    let hi = text("Hi", "");
    for broken in [
        format!("data: {{\"response\":{hi}\n\n"),
        format!("data: {{\"response\":{hi},\"response\":{hi}}}\n\n"),
    ] {
        let mut envoy = envoy(&[("acc_1", "wrapped")]);
        let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
        call.platform(200, &EVENTS, broken.as_bytes());
        let got = call.answer();
        let body = String::from_utf8(got.body).unwrap();
        let data = body.strip_prefix("data: ").unwrap_or(&body);
        assert!(data.contains("Hi"), "{body}");
        let read = serde_json::from_str::<Value>(data.trim());
        assert!(read.is_err() || got.status >= 500, "{} {body}", got.status);
    }
}

#[test]
fn nobody_puts_members_of_its_own_beside_the_platforms() {
    let mut envoy = envoy(&[("acc_1", "wrapped")]);
    for body in [
        r#"{},"model":"another","request":{"contents":[]}"#,
        r#"{"contents":[]}}"#,
        r#"{'a':'"'},"project":"another","b":{"c":'"'}"#,
        r#"[{"contents":[]}]"#,
        "{\"contents\":[]",
        "nothing",
    ] {
        let mut call = ask(&mut envoy, ASKED_AT, body.as_bytes());
        assert!(call.sent_bytes().is_empty());
        let reply = call.is_refused(400, "latchkey_unchangeable");
        let told = String::from_utf8(reply.body).unwrap();
        assert!(told.contains("no object of JSON"), "{told}");
    }
}

#[test]
fn a_body_that_ends_in_trailers_and_an_answer_that_does_are_whole() {
    let mut envoy = envoy(&[("acc_1", "wrapped")]);
    let mut call = envoy.call(&head(ASKED_AT));
    call.sends(BODY.as_bytes(), false);
    call.sends_trailers();
    call.is_at("acc_1");
    let sent = call.sent_on();
    assert_eq!(
        sent["request"],
        serde_json::from_str::<Value>(BODY).unwrap()
    );
    let (plain, wrapped) = answer();
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(wrapped.as_bytes(), false);
    call.platform_sends_trailers();
    assert_eq!(call.answer().body, plain.as_bytes());
}

/// What only announces an answer is let go after a while, without what is around it.
#[test]
fn an_answer_that_is_held_too_long_goes_on_without_what_is_around_it() {
    let mut envoy = envoy(&[("acc_1", "wrapped")]);
    let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
    let begun = r#"{"modelVersion":"gpt-6.1-sol"}"#;
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(
        format!("data: {{\"response\":{begun}}}\n\n").as_bytes(),
        false,
    );
    call.is_held();
    envoy.after(10_000);
    call.is_judged();
    let (plain, wrapped) = answer();
    call.platform_goes_on(wrapped.as_bytes(), true);
    let expected = format!("data: {begun}\n\n{plain}");
    assert_eq!(String::from_utf8(call.answer().body).unwrap(), expected);
}

/// It is here until it names its model, and not in the proxy: it counts for its key all the same.
#[test]
fn a_large_answer_is_held_until_it_names_its_model_and_goes_on_without_what_is_around_it() {
    let path = ASKED_AT.strip_suffix("?alt=sse").unwrap();
    for (per_key, fits) in [(16, true), (3, false)] {
        let mut envoy = envoy_with(&[("acc_1", "wrapped"), ("acc_2", "wrapped")], true);
        envoy.configure(&format!(
            r#"{{"held_mib":64,"held_mib_per_key":{per_key}}}"#
        ));
        let mut call = ask(&mut envoy, path, BODY.as_bytes());
        let answers = |call: &mut Call, (plain, wrapped): (String, String)| {
            let account = call.header("authorization");
            call.platform_begins(200, &JSON);
            for piece in wrapped.as_bytes().chunks(16 * 1024) {
                if call.header("authorization") == account && call.has_attempt() {
                    call.platform_goes_on(piece, false);
                }
            }
            plain
        };
        if fits {
            answers(&mut call, list("gpt-6-luna", 3 * 1024 * 1024));
            call.is_at("acc_2");
        }
        let plain = answers(&mut call, list("gpt-6.1-sol", 3 * 1024 * 1024));
        if fits {
            call.platform_goes_on(b"", true);
            let got = call.answer();
            assert_eq!(got.status, 200);
            assert!(got.body == plain.as_bytes(), "{}", got.body.len());
        } else {
            call.is_refused(502, "latchkey_another_model");
        }
    }
}

/// What is kept of an object that is cut before its member goes nowhere: no event comes of it.
#[test]
fn an_answer_that_is_cut_by_trailers_stays_cut() {
    let mut envoy = envoy(&[("acc_1", "wrapped")]);
    let mut call = ask(&mut envoy, ASKED_AT, BODY.as_bytes());
    let (plain, wrapped) = answer();
    call.platform_begins(200, &EVENTS);
    call.platform_goes_on(wrapped.as_bytes(), false);
    call.platform_goes_on(b"data: {\"traceId\":\"t", false);
    call.platform_sends_trailers();
    let got = String::from_utf8(call.answer().body).unwrap();
    assert_eq!(got.trim_end(), format!("{plain}data:"));
}

/// There is nothing of the answer in whose place anything could be put until a piece of its body comes.
#[test]
fn an_error_of_which_nothing_but_its_headers_comes_is_judged_by_them() {
    let error = r#"{"error":{"code":400,"message":"so it is","status":"INVALID_ARGUMENT"}}"#;
    let chat = r#"{"model":"gpt-6.1-sol","messages":[{"role":"user","content":"hi"}]}"#;
    for (path, body) in [(ASKED_AT, BODY), (CHAT, chat)] {
        let mut envoy = envoy(&[("acc_1", "wrapped")]);
        let mut call = ask(&mut envoy, path, body.as_bytes());
        call.platform_begins(400, &JSON);
        envoy.after(10_000);
        call.is_judged();
        assert_eq!(
            (call.answer().status, call.answer().body),
            (400, Vec::new())
        );
        call.platform_goes_on(error.as_bytes(), true);
        let got = String::from_utf8(call.answer().body).unwrap();
        assert!(got.contains(r#""error""#), "{got}");

        let mut call = ask(&mut envoy, path, body.as_bytes());
        call.platform_begins(400, &JSON);
        call.platform_sends_trailers();
        assert_eq!(
            (call.answer().status, call.answer().body),
            (400, Vec::new())
        );
    }
}

/// The platform's object names the model. Nothing is written of the request before that is known, least of all the credential.
#[test]
fn a_request_without_a_model_is_refused_in_its_callers_words_before_the_credential_is_on_it() {
    let mut envoy = envoy(&[("acc_1", "chat")]);
    let mut call = ask(&mut envoy, CHAT, br#"{"messages":[]}"#);
    assert_ne!(
        call.header("authorization").as_deref(),
        Some("Bearer token-of-acc_1")
    );
    let reply = call.is_refused(400, "latchkey_unchangeable");
    let told: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(told["error"]["code"], "latchkey_unchangeable");
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("this request names none"), "{message}");
}

/// Each piece is looked at as it comes, and none twice: not all of a large body in one callback.
#[test]
fn a_large_body_is_looked_at_in_pieces_and_one_that_is_no_object_is_refused_at_once() {
    let mut envoy = envoy(&[("acc_1", "wrapped")]);
    let mut call = envoy.call(&head(ASKED_AT));
    call.sends(BODY.strip_suffix('}').unwrap().as_bytes(), false);
    let mut body = BODY.strip_suffix('}').unwrap().to_owned();
    for _ in 0..40 {
        let piece = format!(",\"{}\":\"\u{e9}\"", "x".repeat(64 * 1024));
        for piece in piece.as_bytes().chunks(32 * 1024 + 1) {
            call.sends(piece, false);
        }
        body.push_str(&piece);
    }
    call.sends(b"}", true);
    body.push('}');
    call.is_at("acc_1");
    let expected = format!(r#"{{"model":"gpt-6.1-sol","project":"ws-acc_1","request":{body}}}"#);
    assert!(call.sent_bytes() == expected.as_bytes());

    let mut call = envoy.call(&head(ASKED_AT));
    call.sends(br#"{"contents":[]},"model":"another""#, false);
    call.is_refused(400, "latchkey_unchangeable");

    let mut call = envoy.call(&head(ASKED_AT));
    call.sends(&[b'['; 200], false);
    call.is_refused(400, "latchkey_unchangeable");
    let mut call = envoy.call(&head(ASKED_AT));
    call.sends(format!("{{\"a\":{}", "[".repeat(200)).as_bytes(), false);
    call.is_refused(413, "latchkey_unchangeable");
}

/// A request that says that it has a body of so many bytes, the first of which have come.
fn of_length(envoy: &mut Envoy, length: usize) -> Call {
    let length = length.to_string();
    let mut headers = head(ASKED_AT).to_vec();
    headers.push(("content-length", &length));
    let mut call = envoy.call(&headers);
    call.sends(b"{\"contents\":", false);
    call
}

#[test]
fn a_body_that_is_too_large_for_the_object_goes_to_another_account_that_takes_it_and_is_refused_where_none_does()
 {
    const TOO_MANY: usize = MAX_WRAPPED_BYTES + 1;
    let mut envoy = envoy(&[("acc_1", "wrapped"), ("acc_2", "plain")]);
    of_length(&mut envoy, MAX_WRAPPED_BYTES).is_at("acc_1");
    let mut call = of_length(&mut envoy, TOO_MANY);
    call.is_at("acc_2");
    // No account is left that could do better: the platform's own answer is the caller's.
    let limited = b"{\"error\":{\"code\":429}}";
    call.platform(429, &[("retry-after", "60")], limited);
    call.gets(429, limited);
    // One that could is out for now, so it is not the request that is wrong.
    of_length(&mut envoy, TOO_MANY).is_refused(429, "latchkey_all_out");
    of_length(&mut envoy, MAX_WRAPPED_BYTES).is_at("acc_1");

    let mut envoy = self::envoy(&[("acc_1", "wrapped")]);
    of_length(&mut envoy, MAX_WRAPPED_BYTES).is_at("acc_1");
    let reply = of_length(&mut envoy, TOO_MANY).is_refused(413, "latchkey_unchangeable");
    let told = String::from_utf8(reply.body).unwrap();
    assert!(told.contains("only up to 16 MiB"), "{told}");
}

/// A later try does not read the body again, and knows its length all the same.
#[test]
fn a_later_try_passes_over_the_object_too() {
    let mut envoy = envoy(&[("acc_1", "plain"), ("acc_2", "wrapped"), ("acc_3", "plain")]);
    let mut call = of_length(&mut envoy, MAX_WRAPPED_BYTES + 1);
    call.is_at("acc_1");
    call.platform_hangs_up();
    call.sends(b"[]}", true);
    call.is_at("acc_3");
}

#[test]
fn a_body_that_does_not_say_its_length_is_known_once_it_is_there() {
    let mut envoy = envoy(&[("acc_1", "wrapped"), ("acc_2", "plain")]);
    for (size, account) in [(1024, "acc_1"), (MAX_WRAPPED_BYTES, "acc_2")] {
        let mut call = envoy.call(&head(ASKED_AT));
        call.sends(b"{\"contents\":\"", false);
        call.sends(&vec![b'x'; size], false);
        call.waits();
        call.sends(b"\"}", true);
        call.is_at(account);
    }
    // Where nobody else serves, there is nothing to choose and nothing waits for it.
    let mut envoy = self::envoy(&[("acc_1", "wrapped")]);
    let mut call = envoy.call(&head(ASKED_AT));
    call.sends(b"{\"contents\":\"", false);
    call.is_at("acc_1");
    call.sends(&vec![b'x'; MAX_WRAPPED_BYTES], false);
    call.is_refused(413, "latchkey_unchangeable");
}

#[test]
fn the_length_of_a_compressed_body_is_that_of_what_it_stands_for() {
    let body = format!("{{{}\"contents\":[]}}", " ".repeat(MAX_WRAPPED_BYTES));
    let coded = gzip(body.as_bytes());
    let length = coded.len().to_string();
    let mut headers = head(ASKED_AT).to_vec();
    headers.extend([("content-encoding", "gzip"), ("content-length", &*length)]);
    let mut envoy = envoy(&[("acc_1", "wrapped"), ("acc_2", "plain")]);
    let mut call = envoy.call(&headers);
    call.sends(&coded, true);
    for _ in 0..10 {
        if !call.has_attempt() && call.is_decided() {
            call.resumes();
        }
        envoy.after(100);
    }
    call.is_at("acc_2");
}
