use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::login::Login;
use crate::platform::{Profile, example};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn profile() -> Profile {
    let mut profile = example();
    profile.login.flows = vec![flow::Flow::Device(flow::Device {
        authorize_url: "https://platform.example/device".parse().unwrap(),
        by_code: None,
    })];
    profile
}

fn answer(status: u16, body: Value) -> Result<Answer, CallError> {
    Ok(Answer {
        status,
        retry_after: None,
        body: body.to_string().into_bytes().into(),
    })
}

fn unanswered() -> Result<Answer, CallError> {
    Err(CallError::Unanswered {
        host: "platform.example".into(),
        cause: "reset".into(),
    })
}

fn device_answer() -> Value {
    json!({
        "device_code": "the-device-code", "user_code": "WDJB-MJHT", "expires_in": 900, "interval": 3,
        "verification_uri": "https://platform.example/device",
    })
}

fn tokens() -> Value {
    json!({"access_token": "access", "refresh_token": "refresh", "expires_in": 60})
}

/// A login that was given its code, and its prompt.
fn begun() -> (Login, Prompt) {
    match begin(200, device_answer()) {
        (mut login, Step::Prompt(prompt)) => {
            let first = login.poll();
            assert!(matches!(first, Step::Wait(pause) if pause.as_secs() == 3));
            (login, prompt)
        }
        (_, step) => panic!("{step:?}"),
    }
}

fn begin(status: u16, body: Value) -> (Login, Step) {
    let profile = profile();
    let (mut login, step) = Login::device(&profile, profile.login.device().unwrap()).unwrap();
    let Step::Send(request) = step else {
        panic!("{step:?}")
    };
    assert_eq!(request.url.as_str(), "https://platform.example/device");
    assert_eq!(
        request.exposed().collect::<Vec<_>>(),
        [
            ("client_id", "app_EMoamEEZ73f0CkXaXp7hrann"),
            ("scope", "openid profile email offline_access")
        ]
    );
    let step = login.answered(answer(status, body), NOW);
    (login, step)
}

/// Polls, gives an answer, and returns the pause that follows.
fn pause(login: &mut Login, answer: Result<Answer, CallError>) -> u64 {
    assert!(matches!(login.poll(), Step::Send(_)));
    match login.answered(answer, NOW) {
        Step::Wait(pause) => pause.as_secs(),
        step => panic!("{step:?}"),
    }
}

fn error(code: &str) -> Result<Answer, CallError> {
    answer(400, json!({"error": code}))
}

#[test]
fn a_person_is_shown_the_page_and_the_code() {
    let (mut login, prompt) = begun();
    assert_eq!(prompt.url.as_str(), "https://platform.example/device");
    assert_eq!(prompt.code.as_deref(), Some("WDJB-MJHT"));
    assert_eq!(prompt.lifetime, Some(Duration::from_secs(900)));
    let Step::Send(request) = login.poll() else {
        panic!("it does not ask")
    };
    assert_eq!(request.url.as_str(), "https://auth.openai.com/oauth/token");
    let fields: Vec<_> = request.exposed().collect();
    assert!(fields.contains(&("device_code", "the-device-code")));
    assert!(fields.contains(&("grant_type", "urn:ietf:params:oauth:grant-type:device_code")));
    assert!(!format!("{request:?} {login:?}").contains("the-device-code"));
}

#[test]
fn a_page_that_knows_the_code_is_opened_in_place_of_the_plain_one() {
    let mut body = device_answer();
    body["verification_uri_complete"] = json!("https://platform.example/device?user_code=W");
    let (_, Step::Prompt(prompt)) = begin(200, body) else {
        panic!("no prompt")
    };
    assert_eq!(prompt.url.query(), Some("user_code=W"));
}

#[test]
fn the_pauses_are_the_servers_and_grow_as_it_asks() {
    let (mut login, _) = begun();
    assert_eq!(pause(&mut login, error("authorization_pending")), 3);
    assert_eq!(pause(&mut login, error("slow_down")), 8);
    assert_eq!(pause(&mut login, error("authorization_pending")), 8);
    assert_eq!(pause(&mut login, error("slow_down")), 13);
    assert_eq!(pause(&mut login, unanswered()), 26);
    assert_eq!(pause(&mut login, answer(503, json!("<html>"))), 52);
    assert_eq!(pause(&mut login, unanswered()), 60);
    let page = Answer {
        status: 200,
        retry_after: None,
        body: b"<html>".to_vec().into(),
    };
    assert_eq!(pause(&mut login, Ok(page)), 60);
    assert_eq!(pause(&mut login, error("authorization_pending")), 60);
    assert!(matches!(login.poll(), Step::Send(_)));
    let Step::Granted(granted) = login.answered(answer(200, tokens()), NOW) else {
        panic!("no grant")
    };
    assert_eq!(granted.credential.on_the_wire().expose_secret(), "access");
}

#[test]
fn a_refusal_and_a_lapse_end_the_login() {
    for (code, words) in [
        ("access_denied", "refused the login: access_denied"),
        ("expired_token", "nobody finished the login in time"),
        ("invalid_grant", "invalid_grant (HTTP 400)"),
        ("invalid_client", "invalid_client (HTTP 400)"),
    ] {
        let (mut login, _) = begun();
        let Step::Failed(failed) = login.answered(error(code), NOW) else {
            panic!("{code} does not end it")
        };
        assert!(failed.to_string().contains(words), "{failed}");
    }
}

#[test]
fn what_a_person_cannot_use_is_refused_at_once() {
    for (name, value) in [
        ("device_code", json!("")),
        ("device_code", json!("two words")),
        ("user_code", json!("x".repeat(USER_CODE_LIMIT + 1))),
        ("user_code", json!("A\u{202e}B")),
        ("user_code", json!(7)),
        ("verification_uri", json!("file:///etc/passwd")),
        ("verification_uri", json!("http://platform.example/device")),
        ("verification_uri", json!("javascript:alert(1)")),
    ] {
        let mut body = device_answer();
        body[name] = value;
        let (_, step) = begin(200, body);
        let Step::Failed(failed) = step else {
            panic!("{name}: {step:?}")
        };
        assert!(failed.to_string().contains(name), "{failed}");
    }
    let (_, step) = begin(404, json!("<html>"));
    assert!(
        matches!(step, Step::Failed(Error::NoDeviceCode(problem)) if problem.contains("HTTP 404"))
    );
}

#[test]
fn no_wait_is_without_end_whatever_the_server_says() {
    for (lifetime, interval) in [
        (json!(1e12), json!(1e12)),
        (json!(-1), json!("x")),
        (json!(null), json!(0)),
    ] {
        let mut body = device_answer();
        (body["expires_in"], body["interval"]) = (lifetime, interval);
        let (mut login, Step::Prompt(prompt)) = begin(200, body) else {
            panic!("no prompt")
        };
        assert!(prompt.lifetime.unwrap() <= LIFETIME_LIMIT);
        assert!(matches!(login.poll(), Step::Wait(_)));
        let pause = pause(&mut login, error("authorization_pending"));
        assert!((1..=60).contains(&pause), "{pause}");
    }
}

/// A login of the shipped profile's own form that was given its code, and its prompt.
fn begun_by_code() -> (Login, Prompt) {
    let body =
        json!({"device_auth_id": "the-device-id", "user_code": "WDJB-MJHT", "interval": "3"});
    match begin_by_code(200, body) {
        (mut login, Step::Prompt(prompt)) => {
            let first = login.poll();
            assert!(matches!(first, Step::Wait(pause) if pause.as_secs() == 3));
            (login, prompt)
        }
        (_, step) => panic!("{step:?}"),
    }
}

fn begin_by_code(status: u16, body: Value) -> (Login, Step) {
    let profile = example();
    let (mut login, step) = Login::device(&profile, profile.login.device().unwrap()).unwrap();
    let Step::Send(request) = step else {
        panic!("{step:?}")
    };
    let url = "https://auth.openai.com/api/accounts/deviceauth/usercode";
    assert_eq!(request.url.as_str(), url);
    let fields: Vec<_> = request.exposed().collect();
    assert_eq!(fields, [("client_id", "app_EMoamEEZ73f0CkXaXp7hrann")]);
    let step = login.answered(answer(status, body), NOW);
    (login, step)
}

#[test]
fn codexs_own_form_ends_with_a_code_that_buys_the_tokens() {
    let (mut login, prompt) = begun_by_code();
    assert_eq!(prompt.url.as_str(), "https://auth.openai.com/codex/device");
    assert_eq!(prompt.code.as_deref(), Some("WDJB-MJHT"));
    assert_eq!(prompt.lifetime, Some(Duration::from_secs(900)));
    let Step::Send(question) = login.poll() else {
        panic!("it does not ask")
    };
    let url = "https://auth.openai.com/api/accounts/deviceauth/token";
    assert_eq!(question.url.as_str(), url);
    let fields: Vec<_> = question.exposed().collect();
    let expected = [
        ("device_auth_id", "the-device-id"),
        ("user_code", "WDJB-MJHT"),
    ];
    assert_eq!(fields, expected);

    // The person has not decided; the server is in trouble; what stands before it shows a page.
    for (answer, seconds) in [
        (answer(403, json!({})), 3),
        (answer(404, json!("<html>")), 3),
        (answer(503, json!({})), 6),
        (unanswered(), 12),
    ] {
        let step = login.answered(answer, NOW);
        assert!(
            matches!(step, Step::Wait(pause) if pause.as_secs() == seconds),
            "{step:?}"
        );
        assert!(matches!(login.poll(), Step::Send(_)));
    }
    let granted = json!({
        "authorization_code": "ac_1", "code_challenge": "challenge", "code_verifier": "the-verifier",
    });
    let Step::Send(exchange) = login.answered(answer(200, granted), NOW) else {
        panic!("no exchange")
    };
    assert_eq!(exchange.url.as_str(), "https://auth.openai.com/oauth/token");
    let fields: Vec<_> = exchange.exposed().collect();
    let expected = [
        ("grant_type", "authorization_code"),
        ("client_id", "app_EMoamEEZ73f0CkXaXp7hrann"),
        ("code", "ac_1"),
        (
            "redirect_uri",
            "https://auth.openai.com/deviceauth/callback",
        ),
        ("code_verifier", "the-verifier"),
    ];
    assert_eq!(fields, expected);
    let shown = format!("{question:?} {exchange:?} {login:?}");
    for secret in ["the-device-id", "WDJB-MJHT", "ac_1", "the-verifier"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let Step::Granted(granted) = login.answered(answer(200, tokens()), NOW) else {
        panic!("no grant")
    };
    assert_eq!(granted.credential.on_the_wire().expose_secret(), "access");
}

#[test]
fn codexs_own_form_ends_where_it_is_refused_and_where_its_answer_does_not_fit() {
    let failed = |step| match step {
        Step::Failed(error) => error.to_string(),
        step => panic!("{step:?}"),
    };
    let off = failed(begin_by_code(404, json!({"detail": "not found"})).1);
    assert!(off.contains("turned off there"), "{off}");
    for (name, value) in [
        ("device_auth_id", json!("two words")),
        ("user_code", json!("A\u{202e}B")),
        ("user_code", json!("")),
    ] {
        let mut body = json!({"device_auth_id": "id", "user_code": "WDJB", "interval": "5"});
        body[name] = value;
        let words = failed(begin_by_code(200, body).1);
        assert!(words.contains(name), "{words}");
    }
    for (status, body, words) in [
        (
            400,
            json!({"error": "invalid_client"}),
            "invalid_client (HTTP 400)",
        ),
        (410, json!({}), "HTTP 410"),
        (200, json!({"authorization_code": "a"}), "code_verifier"),
        (
            200,
            json!({"authorization_code": "a b", "code_verifier": "v"}),
            "authorization_code",
        ),
    ] {
        let (mut login, _) = begun_by_code();
        assert!(matches!(login.poll(), Step::Send(_)));
        let found = failed(login.answered(answer(status, body), NOW));
        assert!(found.contains(words), "{found}");
    }
    // A code is redeemed once, whatever becomes of it.
    let (mut login, _) = begun_by_code();
    login.poll();
    let granted = json!({"authorization_code": "ac_1", "code_verifier": "the-verifier"});
    assert!(matches!(
        login.answered(answer(200, granted), NOW),
        Step::Send(_)
    ));
    failed(login.answered(unanswered(), NOW));
}
