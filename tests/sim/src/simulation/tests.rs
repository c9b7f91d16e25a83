use serde_json::json;

use super::*;
use crate::{answer::Payload, oauth::User};

const NOW: UnixMillis = UnixMillis(1_000_000_000);
const AUTHORITY: &str = "127.0.0.1:443";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

struct Tokens {
    access: String,
    refresh: String,
}

fn simulation() -> Simulation {
    let mut simulation = Simulation::new(1, vec![AUTHORITY.to_owned()]);
    simulation.oauth.upsert_user(User {
        email: "alice@example.test".into(),
        account_id: "acct-alice".into(),
        plan: "plus".into(),
        access_lifetime_seconds: Some(60),
    });
    simulation.api_keys.insert(
        "sk-1".into(),
        ApiKey {
            platform: Some(Platform::OpenAi),
            name: "key-one".into(),
        },
    );
    simulation
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Bytes> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", AUTHORITY);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .expect("request")
}

fn body(outcome: &Outcome) -> Value {
    match &outcome.answer.body {
        Payload::Whole(body) => serde_json::from_slice(body).expect("JSON"),
        Payload::Events(events) => Value::from(events.concat()),
    }
}

fn form(simulation: &mut Simulation, body: &str) -> Outcome {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    simulation.handle(&request("POST", "/oauth/token", &form, body), NOW)
}

fn refresh(simulation: &mut Simulation, token: &str) -> Outcome {
    let body = json!({
        "client_id": crate::oauth::CLIENT_ID, "grant_type": "refresh_token", "refresh_token": token,
    });
    let json = [("content-type", "application/json; charset=utf-8")];
    simulation.handle(
        &request("POST", "/oauth/token", &json, &body.to_string()),
        NOW,
    )
}

fn login(simulation: &mut Simulation) -> Tokens {
    let query = "/oauth/authorize?response_type=code&client_id=app_EMoamEEZ73f0CkXaXp7hrann\
        &redirect_uri=http%3A%2F%2Flocalhost%3A1455%2Fauth%2Fcallback&scope=openid+email\
        &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256\
        &state=s&sim_user=alice%40example.test";
    let outcome = simulation.handle(&request("GET", query, &[], ""), NOW);
    let location = outcome.answer.headers["location"]
        .to_str()
        .expect("location");
    let location = url::Url::parse(location).expect("URL");
    let (_, code) = location
        .query_pairs()
        .find(|(name, _)| name == "code")
        .expect("code");
    let outcome = form(
        simulation,
        &format!(
            "grant_type=authorization_code&client_id=app_EMoamEEZ73f0CkXaXp7hrann&code={code}\
             &redirect_uri=http%3A%2F%2Flocalhost%3A1455%2Fauth%2Fcallback&code_verifier={VERIFIER}"
        ),
    );
    tokens(&outcome)
}

fn tokens(outcome: &Outcome) -> Tokens {
    let body = body(outcome);
    let text = |name: &str| {
        body[name]
            .as_str()
            .unwrap_or_else(|| panic!("{body}"))
            .to_owned()
    };
    Tokens {
        access: text("access_token"),
        refresh: text("refresh_token"),
    }
}

fn ask_codex(
    simulation: &mut Simulation,
    access: &str,
    account_id: &str,
    extra: &[(&str, &str)],
) -> Outcome {
    let authorization = format!("Bearer {access}");
    let mut headers = vec![
        ("authorization", authorization.as_str()),
        ("chatgpt-account-id", account_id),
    ];
    headers.extend(extra);
    let body = r#"{"store":false,"stream":true,"model":"m","input":"ping"}"#;
    simulation.handle(
        &request("POST", "/backend-api/codex/responses", &headers, body),
        NOW,
    )
}

fn set_fault(simulation: &mut Simulation, fault: Value) {
    simulation
        .faults
        .add(serde_json::from_value(fault).expect("fault"));
}

#[test]
fn login_then_request() {
    let mut simulation = simulation();
    let tokens = login(&mut simulation);
    let outcome = ask_codex(&mut simulation, &tokens.access, "acct-alice", &[]);
    assert_eq!(outcome.answer.status, StatusCode::OK);
    assert!(
        body(&outcome)
            .to_string()
            .contains("Hello from alice@example.test: you said ping")
    );
    let records = simulation
        .records
        .list(Some("/backend-api/codex/responses"));
    assert_eq!(records[0].account.as_deref(), Some("alice@example.test"));
    assert_eq!(records[0].status, Some(200));
}

#[test]
fn credential_must_be_live_and_belong_to_the_account() {
    let mut simulation = simulation();
    let tokens = login(&mut simulation);
    for (access, account_id) in [
        (tokens.access.as_str(), "acct-bob"),
        ("other", "acct-alice"),
    ] {
        let outcome = ask_codex(&mut simulation, access, account_id, &[]);
        assert_eq!(outcome.answer.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(simulation.stats.rejected_credentials, 2);
    simulation.oauth.expire_access("alice@example.test", NOW);
    let expired = ask_codex(&mut simulation, &tokens.access, "acct-alice", &[]);
    assert_eq!(body(&expired)["error"]["code"], "token_expired");
    assert_eq!(simulation.stats.expired_token_uses, 1);
    simulation.oauth.revoke_access("alice@example.test");
    let revoked = ask_codex(&mut simulation, &tokens.access, "acct-alice", &[]);
    assert_eq!(body(&revoked)["error"]["code"], "token_invalidated");
}

#[test]
fn refusal_names_the_header_and_is_listed() {
    let mut simulation = simulation();
    let tokens = login(&mut simulation);
    let extra = [("x-forwarded-for", "10.0.0.1")];
    let outcome = ask_codex(&mut simulation, &tokens.access, "acct-alice", &extra);
    assert_eq!(outcome.answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(body(&outcome)["error"]["header"], "x-forwarded-for");
    let stats = serde_json::to_value(&simulation.stats).expect("JSON");
    assert_eq!(stats["refused"][0]["path"], "/backend-api/codex/responses");
    assert_eq!(stats["refused"][0]["header"], "x-forwarded-for");
}

#[test]
fn dropped_answer_has_rotated_the_token_and_a_replaced_one_has_not() {
    let mut simulation = simulation();
    let first = login(&mut simulation);
    set_fault(
        &mut simulation,
        json!({"target": "token", "times": 1, "status": 503}),
    );
    assert_eq!(
        refresh(&mut simulation, &first.refresh).answer.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let second = tokens(&refresh(&mut simulation, &first.refresh));

    let drop = json!({
        "target": "token", "account": "alice@example.test", "times": 1, "drop_before_answer": true,
    });
    set_fault(&mut simulation, drop);
    assert!(refresh(&mut simulation, &second.refresh).drop);
    let replay = refresh(&mut simulation, &second.refresh);
    assert_eq!(body(&replay)["error"]["code"], "refresh_token_reused");
    assert_eq!(
        (simulation.stats.refreshes, simulation.stats.reuse_detected),
        (2, 1)
    );
    assert_eq!(simulation.stats.token_calls, 5);
}

#[test]
fn refreshes_in_flight_are_counted_by_login() {
    let mut simulation = simulation();
    let (first, other) = (login(&mut simulation), login(&mut simulation));
    let one = refresh(&mut simulation, &first.refresh);
    let _other_login = refresh(&mut simulation, &other.refresh);
    assert_eq!(simulation.stats.refresh_in_flight_max_per_family, 1);
    let _replay = refresh(&mut simulation, &first.refresh);
    assert_eq!(simulation.stats.refresh_in_flight_max_per_family, 2);
    let family = one.refreshing.expect("a refresh");
    simulation.stats.refresh_ends(family);
    simulation.stats.refresh_ends(family);
    simulation.stats.reset();
    let _third = refresh(&mut simulation, &first.refresh);
    assert_eq!(simulation.stats.refresh_in_flight_max_per_family, 1);
}

#[test]
fn fault_hits_one_account_and_leaves_others_alone() {
    let mut simulation = simulation();
    let tokens = login(&mut simulation);
    set_fault(
        &mut simulation,
        json!({"target": "upstream", "account": "key-one", "fixture": "openai/insufficient_quota.json"}),
    );
    let key = [("authorization", "Bearer sk-1")];
    let ask = request(
        "POST",
        "/v1/responses",
        &key,
        r#"{"model":"m","input":"ping"}"#,
    );
    let outcome = simulation.handle(&ask, NOW);
    assert_eq!(outcome.answer.status, StatusCode::TOO_MANY_REQUESTS);
    let outcome = ask_codex(&mut simulation, &tokens.access, "acct-alice", &[]);
    assert_eq!(outcome.answer.status, StatusCode::OK);
}

#[test]
fn anthropic_key_is_taken_in_either_header() {
    let mut simulation = simulation();
    let (platform, name) = (Some(Platform::Anthropic), "ant-one".to_owned());
    simulation
        .api_keys
        .insert("sk-ant-1".into(), ApiKey { platform, name });
    let mut ask = |header: &str, value: &str| {
        let headers = [(header, value), ("anthropic-version", "2023-06-01")];
        let ask = request("POST", "/v1/messages", &headers, r#"{"model":"m"}"#);
        simulation.handle(&ask, NOW).answer.status
    };
    assert_eq!(ask("x-api-key", "sk-ant-1"), StatusCode::OK);
    assert_eq!(ask("authorization", "Bearer sk-ant-1"), StatusCode::OK);
    // A key of another platform is no key here.
    assert_eq!(ask("x-api-key", "sk-1"), StatusCode::UNAUTHORIZED);
}

#[test]
fn id_token_buys_an_api_key() {
    let mut simulation = simulation();
    let first = login(&mut simulation);
    let id_token = body(&refresh(&mut simulation, &first.refresh))["id_token"].clone();
    let outcome = form(
        &mut simulation,
        &format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &client_id=app_EMoamEEZ73f0CkXaXp7hrann&requested_token=openai-api-key\
             &subject_token={}&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token",
            id_token.as_str().expect("id token")
        ),
    );
    let authorization = format!(
        "Bearer {}",
        body(&outcome)["access_token"].as_str().expect("key")
    );
    let models = request(
        "GET",
        "/v1/models",
        &[("authorization", &authorization)],
        "",
    );
    assert_eq!(
        simulation.handle(&models, NOW).answer.status,
        StatusCode::OK
    );
}
