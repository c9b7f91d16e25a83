//! Answers of the gate itself, and facts that outlive a VM.

use super::envoy::{BODY, Envoy, START, head, records};
use crate::{
    host::{
        Action,
        fake::{FakeStream, first},
    },
    limit::MINUTE_MS,
    snapshot::{Account, Record, bucket::HEAD_KEY, fixture},
    stream::{Event, Role, Turns},
};

fn two() -> Envoy {
    let accounts = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    Envoy::with_accounts(&accounts)
}

#[test]
fn nobody_gets_in_without_a_key_and_no_key_goes_on() {
    let mut envoy = two();
    let mut call = envoy.call(&head("/v1/responses")[..4]);
    call.is_refused(401, "latchkey_no_key");
    let mut wrong = head("/v1/responses");
    wrong[4].1 = "Bearer lk_other";
    envoy.call(&wrong).is_refused(401, "latchkey_unknown_key");

    let mut forged = head("/v1/responses").to_vec();
    forged.extend([
        ("x-latchkey-cluster", "other"),
        ("x-envoy-original-url", "http://gateway:8080/v1/responses"),
        ("chatgpt-account-id", "forged"),
    ]);
    let mut call = envoy.call(&forged);
    call.sends(BODY, true);
    call.is_at("acc_1");
    assert_eq!(
        call.header("chatgpt-account-id").as_deref(),
        Some("ws-acc_1")
    );
    assert_eq!(
        call.header("x-latchkey-cluster"),
        None,
        "nothing of ours goes out"
    );
}

#[test]
fn without_a_snapshot_nothing_goes_out() {
    let mut envoy = Envoy::with(&[]);
    envoy.ask().is_refused(401, "latchkey_unknown_key");
}

/// Where the operator bounds it, an Envoy goes on with a snapshot that nobody confirms for so long, and then serves
/// nobody until the refresher is back. Without a bound it goes on.
#[test]
fn a_snapshot_that_nobody_confirms_is_used_as_long_as_the_operator_allows() {
    let all = records(&["acc_1", "acc_2"].map(|id| fixture::account(id, "codex")));
    let mut envoy = Envoy::with(&all);
    envoy.after(10 * 24 * 60 * 60 * 1_000);
    envoy.ask().sends(BODY, true);

    envoy.configure(r#"{"max_unconfirmed_seconds":60}"#);
    envoy.publish(&all);
    envoy.after(59_999);
    envoy.ask().sends(BODY, true);
    envoy.after(1);
    envoy.ask().is_refused(503, "latchkey_unconfirmed");
    let models = envoy.call(&head("/v1/models"));
    assert!(models.has_answer(), "a list of models is refused as well");
    envoy
        .ask_as("lk_other")
        .is_refused(401, "latchkey_unknown_key");
    // Another VM of the process knows no more.
    let mut other = envoy.new_vm();
    other.configure(r#"{"max_unconfirmed_seconds":60}"#);
    other.ask().is_refused(503, "latchkey_unconfirmed");
    envoy.publish(&all);
    envoy.ask().sends(BODY, true);
    // A clock that is set back makes nothing newer.
    envoy.host.time.set(envoy.host.time.get() - 2_000);
    envoy.ask().is_refused(503, "latchkey_unconfirmed");
}

#[test]
fn a_key_at_its_limit_is_refused_before_its_body_until_the_minute_ends() {
    let mut with_limit = records(&[fixture::account("acc_1", "codex")]);
    for record in &mut with_limit {
        if let Record::Key(key) = record {
            key.limits = serde_json::from_str(r#"{"requests_per_minute":2}"#).unwrap();
        }
    }
    let mut envoy = Envoy::with(&with_limit);
    for _ in 0..2 {
        let mut call = envoy.ask();
        call.is_at("acc_1");
        call.platform(200, &[], b"{}");
        call.gets(200, b"{}");
    }
    let now = envoy.host.time.get() - START;
    let mut call = envoy.call(&head("/v1/responses"));
    let refused = call.is_refused(429, "latchkey_limit");
    let left = (MINUTE_MS - now).div_ceil(1_000).to_string();
    let retry_after = first(&refused.headers, "retry-after").unwrap();
    assert_eq!(String::from_utf8_lossy(&retry_after), left);
    envoy.after(MINUTE_MS - now);
    envoy.ask().is_at("acc_1");
}

#[test]
fn an_account_whose_streams_are_in_use_makes_way_until_one_ends() {
    let limits = serde_json::from_str(r#"{"concurrent_streams":1}"#).unwrap();
    let limited = Account {
        limits,
        ..fixture::account("acc_1", "codex")
    };
    let mut envoy = Envoy::with_accounts(&[limited, fixture::account("acc_2", "codex")]);
    let first = envoy.ask();
    first.is_at("acc_1");
    envoy.ask().is_at("acc_2");
    first.goes_away();
    envoy.after(1_000);
    envoy.ask().is_at("acc_1");
}

#[test]
fn a_good_request_costs_these_hostcalls_and_no_other() {
    let mut envoy = two();
    // The first one of a key takes room for those that come.
    let mut first = envoy.ask();
    first.platform(200, &[], b"{}");
    first.gets(200, b"{}");
    envoy.host.time.set(START + 60_000);
    envoy.host.log.take();
    let mut call = envoy.call(&head("/v1/responses"));
    // Who asks, and what matters of the body.
    let at_the_gate = [
        "headers of Request",
        "clock",
        &format!("read {HEAD_KEY}"),
        // Its key may keep so many of them.
        "connection",
    ];
    assert_eq!(envoy.host.log.take(), at_the_gate);
    call.sends(BODY, true);
    let sent = [
        // Which model, and how the credential can be used: once a callback, and 5 ms, each.
        "body of Request",
        "clock",
        // The client key goes no further; later tries and the attempt go by the property.
        "set header authorization",
        "set property latchkey.request",
        "set header x-latchkey-cluster",
        // What the platform gets is written whole.
        "headers of Request",
        "property latchkey.request",
        "set request headers",
    ];
    assert_eq!(envoy.host.log.take(), sent);
    call.platform(200, &[], b"{}");
    let answered = [
        // Good or not, what of it is no caller's, and what it used.
        "headers of Answer",
        "body of Answer",
        "clock",
        "set property latchkey.usage",
    ];
    assert_eq!(envoy.host.log.take(), answered);
    call.gets(200, b"{}");
    assert!(envoy.host.log.take().is_empty());
}

#[test]
fn a_new_vm_knows_what_the_last_one_did() {
    let mut envoy = two();
    let mut call = envoy.ask();
    call.platform(429, &[("retry-after", "60")], b"{}");
    call.is_at("acc_2");
    let mut next = envoy.new_vm();
    next.ask().is_at("acc_2");
    // The request under way goes on in its own VM.
    call.platform(200, &[], b"{}");
    call.gets(200, b"{}");
    assert_eq!(envoy.records().len(), 1);
}

#[test]
fn a_callback_inside_another_changes_nothing_and_loses_nothing() {
    let vm = Turns::new(two().host);
    let mut stream = FakeStream::default();
    vm.take(|vm| {
        vm.configure(None).unwrap();
    });
    vm.on(Role::Gate, 5, Event::RequestTrailers, &mut stream);
    let inside = vm.take(|_| {
        let event = Event::RequestHeaders { end: false };
        let action = vm.on(Role::Gate, 7, event, &mut stream);
        vm.end(Role::Gate, 5, &mut stream);
        action
    });
    assert_eq!(inside, Some(Action::Pause));
    assert!(stream.state().reply.is_none());
    assert!(vm.take(|vm| vm.gates.is_empty()).unwrap(), "5 has ended");
}

#[test]
fn a_form_names_the_model_in_a_field() {
    let accounts = [("acc_1", "other"), ("acc_2", "whisper-1")].map(|(id, model)| Account {
        models: serde_json::from_value(serde_json::json!([model])).unwrap(),
        ..fixture::account(id, "codex")
    });
    let mut envoy = Envoy::with_accounts(&accounts);
    let mut headers = head("/v1/responses");
    headers[5].1 = "multipart/form-data; boundary=b1";
    let mut call = envoy.call(&headers);
    call.sends(
        b"--b1\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nID3\r\n--b1\r\n",
        false,
    );
    call.waits();
    call.sends(
        b"Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b1--\r\n",
        true,
    );
    call.is_at("acc_2");
    assert!(
        call.body().ends_with(b"--b1--\r\n"),
        "it goes on as it came"
    );
}

/// A body that the platform takes may have its model behind 30 MiB of pictures.
#[test]
fn the_model_counts_however_far_behind_it_stands() {
    let accounts = [("acc_1", "other"), ("acc_2", "gpt-5.6")].map(|(id, model)| Account {
        models: serde_json::from_value(serde_json::json!([model])).unwrap(),
        ..fixture::account(id, "codex")
    });
    let mut envoy = Envoy::with_accounts(&accounts);
    let mut call = envoy.call(&head("/v1/responses"));
    call.sends(br#"{"input":[{"image":""#, false);
    let picture = vec![b'x'; 1024 * 1024];
    for _ in 0..30 {
        call.sends(&picture, false);
        call.waits();
    }
    call.sends(
        br#""}],"model":"gpt-5.6","stream":true,"store":false}"#,
        true,
    );
    call.is_at("acc_2");
}
