//! Tests of the calls on the wire, and of all that the wire can do to them, against a token endpoint on loopback.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oauth2::AuthorizationCode;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::api_key;
use super::claims::unsigned;
use super::exchange::{self, Granted};
use super::http::{ApiRequest, HttpClient};
use super::revoke::{Revoked, revoke};
use crate::clock::UnixMillis;
use crate::credential::{ClientCredentials, Credential, OAuthTokens};
use crate::egress::Proxy;
use crate::login::code::Authorization;
use crate::oauth::answer::{Answer, Outcome};
use crate::platform::oauth::{Members, Scheme, SignedRequests};
use crate::platform::{Encoding, Profile};
use crate::refresh::endpoint::{TokenEndpoint, TokenEndpoints};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// A request that arrived.
#[derive(Clone)]
struct Arrived {
    method: String,
    path: String,
    /// Path and query.
    target: String,
    content_type: String,
    authorization: String,
    body: String,
}

/// An endpoint that gives one answer to everything.
struct Endpoint {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    profile: Profile,
}

impl Endpoint {
    async fn answering(status: u16, body: Value) -> Endpoint {
        let text = if body.is_string() {
            body.as_str().unwrap().to_owned()
        } else {
            body.to_string()
        };
        let arrived: Arc<Mutex<Vec<Arrived>>> = Arc::default();
        let answer = move |State(arrived): State<Arc<Mutex<Vec<Arrived>>>>,
                           request: axum::extract::Request| async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let of_head = |name| {
                head.headers
                    .get(name)
                    .map_or("", |value: &HeaderValue| value.to_str().unwrap())
            };
            arrived.lock().unwrap().push(Arrived {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                target: head.uri.path_and_query().unwrap().to_string(),
                content_type: of_head(header::CONTENT_TYPE).to_owned(),
                authorization: of_head(header::AUTHORIZATION).to_owned(),
                body: String::from_utf8(body.to_vec()).unwrap(),
            });
            let headers = [(header::LOCATION, "/elsewhere"), (header::RETRY_AFTER, "7")];
            (StatusCode::from_u16(status).unwrap(), headers, text).into_response() as Response
        };
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&arrived));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let profile = profile(listener.local_addr().unwrap().port());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Endpoint { arrived, profile }
    }

    fn only(&self) -> Arrived {
        let arrived = self.arrived.lock().unwrap();
        assert_eq!(arrived.len(), 1);
        arrived[0].clone()
    }

    /// Path, content type and body of the one request.
    fn only_request(&self) -> (String, String, String) {
        let Arrived {
            path,
            content_type,
            body,
            ..
        } = self.only();
        (path, content_type, body)
    }

    /// Method, path with query, `authorization` and body of the one request.
    fn only_target(&self) -> (String, String, String, String) {
        let Arrived {
            method,
            target,
            authorization,
            body,
            ..
        } = self.only();
        (method, target, authorization, body)
    }
}

/// The codex profile with its endpoints on a loopback port.
fn profile(port: u16) -> Profile {
    let mut profile = crate::platform::example();
    let oauth = profile.oauth.as_mut().unwrap();
    for url in [&mut oauth.token_url, oauth.revoke_url.as_mut().unwrap()] {
        url.set_scheme("http").unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
    }
    profile
}

fn tokens() -> OAuthTokens {
    OAuthTokens {
        access: "the-access".into(),
        refresh: "rt_1/+&".into(),
        id: Some("the-id".into()),
        client: None,
    }
}

async fn refresh(profile: &Profile) -> Outcome {
    renew(profile, &Credential::OAuth(tokens())).await
}

async fn renew(profile: &Profile, credential: &Credential) -> Outcome {
    TokenEndpoints::new([profile].into_iter())
        .unwrap()
        .refresh("codex", credential, None)
        .await
}

async fn redeem(endpoint: &Endpoint) -> Result<Granted, exchange::Error> {
    redeem_at(&endpoint.profile).await
}

async fn redeem_at(profile: &Profile) -> Result<Granted, exchange::Error> {
    let (oauth, flow) = (
        profile.oauth.as_ref().unwrap(),
        profile.login.code().unwrap(),
    );
    let authorization =
        Authorization::start(oauth, &flow.authorize, flow.redirect_uri(1455)).unwrap();
    let http = HttpClient::for_platform(profile).unwrap();
    let code = AuthorizationCode::new("the-code".into());
    let request = exchange::request(
        oauth,
        &code,
        &authorization.redirect_uri,
        &authorization.verifier,
        Some(&authorization.state),
    );
    let granted = exchange::read(oauth, http.send(&request).await, NOW)?;
    exchange::require_vars(profile, &granted.vars)?;
    Ok(granted)
}

fn codex_token(account: &str) -> String {
    let claims = json!({"https://api.openai.com/auth": {"chatgpt_account_id": account}, "exp": NOW.0 / 1000 + 60});
    unsigned(&claims).expose_secret().to_owned()
}

#[tokio::test]
async fn a_refresh_is_codex_clis_json() {
    let endpoint = Endpoint::answering(200, json!({"access_token": "new"})).await;
    assert!(matches!(
        refresh(&endpoint.profile).await,
        Outcome::Fresh(_)
    ));
    let (path, content_type, body) = endpoint.only_request();
    assert_eq!(
        (path.as_str(), content_type.as_str()),
        ("/oauth/token", "application/json")
    );
    let expected = json!({
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann", "grant_type": "refresh_token", "refresh_token": "rt_1/+&",
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

#[tokio::test]
async fn a_refresh_is_a_form_where_the_profile_says_so() {
    let mut endpoint = Endpoint::answering(200, json!({"access_token": "new"})).await;
    let oauth = endpoint.profile.oauth.as_mut().unwrap();
    oauth.refresh_encoding = Encoding::Form;
    oauth.refresh_params = [("scope".to_owned(), "openid email".to_owned())].into();
    refresh(&endpoint.profile).await;
    let (_, content_type, body) = endpoint.only_request();
    assert_eq!(content_type, "application/x-www-form-urlencoded");
    let expected = "client_id=app_EMoamEEZ73f0CkXaXp7hrann&grant_type=refresh_token&refresh_token=rt_1%2F%2B%26&\
                    scope=openid+email";
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let endpoint = Endpoint::answering(307, json!({})).await;
    let Outcome::Transient { retry_after, .. } = refresh(&endpoint.profile).await else {
        panic!()
    };
    assert_eq!(retry_after.unwrap().as_secs(), 7);
    endpoint.only_request();
}

#[tokio::test]
async fn an_endless_answer_is_read_to_its_bound() {
    let endpoint = Endpoint::answering(200, json!("x".repeat(4 * 1024 * 1024))).await;
    assert!(matches!(
        refresh(&endpoint.profile).await,
        Outcome::Page { .. }
    ));
    let endpoint = Endpoint::answering(401, json!("x".repeat(4 * 1024 * 1024))).await;
    assert!(matches!(
        refresh(&endpoint.profile).await,
        Outcome::Permanent { .. }
    ));
}

#[tokio::test]
async fn a_call_that_was_not_sent_is_told_from_one_without_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let profile = profile(listener.local_addr().unwrap().port());
    let endpoint = tokio::spawn(async move {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_token\":\"a\"}",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let outcome = refresh(&profile).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    // Cut short after the last brace: the tokens are whole, and the old ones are spent.
    let outcome = refresh(&profile).await;
    assert!(matches!(outcome, Outcome::Fresh(_)), "{outcome:?}");
    endpoint.await.unwrap();
    let outcome = refresh(&profile).await;
    assert!(matches!(outcome, Outcome::NotSent { .. }), "{outcome:?}");
}

fn api_request(url: &reqwest::Url) -> ApiRequest {
    let json = (header::CONTENT_TYPE, "application/json".parse().unwrap());
    ApiRequest {
        method: reqwest::Method::POST,
        url: url.clone(),
        headers: [json].into_iter().collect(),
        body: None,
    }
}

#[tokio::test]
async fn a_call_to_an_api_follows_nothing_and_reads_to_its_bound() {
    for (status, body, length) in [
        (307, "{}".to_owned(), 2),
        (200, "x".repeat(4 << 20), 64 << 10),
    ] {
        let endpoint = Endpoint::answering(status, json!(body)).await;
        let url = &endpoint.profile.oauth.as_ref().unwrap().token_url;
        let client = HttpClient::new(&[url], None, None).unwrap();
        let answer = client.ask(api_request(url)).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, length));
        assert_eq!(answer.is_whole, length == 2);
        endpoint.only_request();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_silent_api_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let profile = profile(listener.local_addr().unwrap().port());
    let url = &profile.oauth.as_ref().unwrap().token_url;
    let client = HttpClient::new(&[url], None, None).unwrap();
    let asked_at = tokio::time::Instant::now();
    assert!(client.ask(api_request(url)).await.is_err());
    assert!(asked_at.elapsed().as_secs() <= 11);
}

#[tokio::test]
async fn a_platform_that_is_off_is_not_called() {
    let endpoints = TokenEndpoints::new([].into_iter()).unwrap();
    let outcome = endpoints
        .refresh("codex", &Credential::OAuth(tokens()), None)
        .await;
    assert!(matches!(outcome, Outcome::NotSent { reason } if reason.contains("codex")));
}

#[tokio::test]
async fn a_code_becomes_a_login_with_its_claims() {
    let token = codex_token("the-account");
    let answer = json!({"access_token": token, "refresh_token": "rt_2", "id_token": token, "expires_in": 60});
    let endpoint = Endpoint::answering(200, answer).await;
    let login = redeem(&endpoint).await.unwrap();
    assert_eq!(login.vars["account_id"], "the-account");
    assert_eq!(
        login.credential_expires_at,
        Some(UnixMillis(NOW.0 + 60_000))
    );
    assert!(
        matches!(login.credential, Credential::OAuth(tokens) if tokens.refresh.expose_secret() == "rt_2")
    );
    let (_, content_type, body) = endpoint.only_request();
    assert_eq!(content_type, "application/x-www-form-urlencoded");
    for field in [
        "grant_type=authorization_code&client_id=app_EMoamEEZ73f0CkXaXp7hrann&code=the-code",
        "redirect_uri=http%3A%2F%2F127.0.0.1%3A1455%2Fauth%2Fcallback",
        "code_verifier=",
    ] {
        assert!(body.contains(field), "{field}");
    }
}

/// As at Anthropic: the answer itself says whose login it is, and there is no id token.
#[tokio::test]
async fn an_answer_tells_whose_login_it_is() {
    let answer = json!({
        "access_token": "sk-ant-oat01-a", "refresh_token": "sk-ant-ort01-r", "expires_in": 28800,
        "account": {"uuid": "person-1", "email_address": "a@example.com"},
        "organization": {"uuid": "org-1", "name": "An organization"},
    });
    let mut endpoint = Endpoint::answering(200, answer).await;
    let catalog = crate::platform::Catalog::load(None, ["claude-code".to_owned()].into()).unwrap();
    let claude = catalog.usable("claude-code").unwrap().clone();
    let oauth = endpoint.profile.oauth.as_mut().unwrap();
    let url = oauth.token_url.clone();
    *oauth = claude.oauth.unwrap();
    oauth.token_url = url;
    endpoint.profile.login = claude.login;
    endpoint.profile.record = claude.record;
    let granted = redeem(&endpoint).await.unwrap();
    let vars: Vec<_> = granted
        .vars
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    let expected = [
        ("account_id", "org-1"),
        ("email", "a@example.com"),
        ("user_id", "person-1"),
    ];
    assert_eq!(vars, expected);
    assert_eq!(
        granted.credential_expires_at,
        Some(UnixMillis(NOW.0 + 28_800_000))
    );
    let (_, content_type, body) = endpoint.only_request();
    assert_eq!(content_type, "application/json");
    let body: serde_json::Map<String, Value> = serde_json::from_str(&body).unwrap();
    let mut names: Vec<&str> = body.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "client_id",
        "code",
        "code_verifier",
        "grant_type",
        "redirect_uri",
        "state",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn an_exchange_that_gives_too_little_says_what_is_missing() {
    let token = codex_token("the-account");
    for (status, answer, expected) in [
        (
            400,
            json!({"error": "invalid_grant", "error_description": "the-code"}),
            "invalid_grant (HTTP 400)",
        ),
        (500, json!("<html>the-code</html>"), "HTTP 500"),
        (200, json!("<html>"), "found a page (HTTP 200)"),
        (200, json!({"access_token": token}), "refresh_token"),
        (
            200,
            json!({"access_token": "opaque", "refresh_token": "r"}),
            "account_id",
        ),
    ] {
        let message = redeem(&Endpoint::answering(status, answer).await)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(expected) && !message.contains("the-code"),
            "{message}"
        );
    }
}

/// An endpoint that answers a code with something else than tokens. Nothing of it is a login, and nobody else is asked.
#[tokio::test]
async fn a_page_a_redirect_and_endless_bytes_are_no_login() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/token", elsewhere.local_addr().unwrap());
    let token = codex_token("the-account");
    let tokens =
        json!({"access_token": token, "refresh_token": "r", "id_token": "i".repeat(1 << 20)});
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>the-code"
                .to_owned(),
            "found a page (HTTP 200)",
        ),
        (
            format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"),
            "HTTP 302, a redirect",
        ),
        (
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{tokens}"),
            "access_token",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let profile = profile(listener.local_addr().unwrap().port());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            // Who has read enough hangs up.
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let message = redeem_at(&profile).await.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(
            !message.contains("the-code") && !message.contains(&token),
            "{message}"
        );
        serving.await.unwrap();
    }
    let asked = tokio::time::timeout(std::time::Duration::from_millis(50), elsewhere.accept());
    assert!(asked.await.is_err(), "the redirect was followed");
}

/// An id token is a hint about whose login it is. What is none, or too much, is no hint.
#[test]
fn a_hostile_id_token_gains_nothing() {
    let profile = profile(1);
    let oauth = profile.oauth.as_ref().unwrap();
    let access = codex_token("the-account");
    let huge = codex_token(&"a".repeat(1 << 20));
    let unbounded =
        json!({"exp": 1e300, "https://api.openai.com/auth": {"chatgpt_account_id": ["x"]}});
    for id in [
        "",
        "...",
        "a.b.c",
        "eyJhbGciOiJub25lIn0..",
        "eyJhbGciOiJub25lIn0.!!!!.x",
        "eyJhbGciOiJub25lIn0.bnVsbA.x",
        unsigned(&unbounded).expose_secret(),
        &huge,
    ] {
        let body =
            json!({"access_token": access, "refresh_token": "r", "id_token": id, "expires_in": 60});
        let answer = Answer {
            status: 200,
            retry_after: None,
            body: body.to_string().into_bytes().into(),
        };
        let login = exchange::read(oauth, Ok(answer), NOW).unwrap();
        assert_eq!(login.vars["account_id"], "the-account", "{id:.40}");
        let end = UnixMillis(NOW.0 + 60_000);
        assert_eq!(login.credential_expires_at, Some(end), "{id:.40}");
    }
}

/// Buys an API key at an endpoint.
async fn buy(endpoint: &Endpoint) -> Result<secrecy::SecretString, api_key::Error> {
    let Endpoint { profile, .. } = endpoint;
    let oauth = profile.oauth.as_ref().unwrap();
    let exchange = oauth.api_key.as_ref().unwrap();
    let request = api_key::request(oauth, exchange, &"the-id".into());
    let http = HttpClient::for_platform(profile).unwrap();
    api_key::read(http.send(&request).await, NOW)
}

#[tokio::test]
async fn an_id_token_buys_an_api_key() {
    let endpoint = Endpoint::answering(200, json!({"access_token": "sk-key"})).await;
    assert_eq!(buy(&endpoint).await.unwrap().expose_secret(), "sk-key");
    assert!(
        endpoint
            .only_request()
            .2
            .contains("requested_token=openai-api-key&subject_token=the-id")
    );
    let endpoint = Endpoint::answering(403, json!({"access_token": "sk-key"})).await;
    assert!(buy(&endpoint).await.is_err());
}

#[tokio::test]
async fn a_client_buys_a_token_with_its_secret() {
    let answer = json!({"access_token": "new", "expires_in": 60});
    let endpoint = Endpoint::answering(200, answer).await;
    let client = Credential::Client(ClientCredentials {
        token_url: None,
        refresh: None,
        client_id: "the client".into(),
        client_secret: "s3cret".into(),
        access: "old".into(),
    });
    let Outcome::Fresh(grant) = renew(&endpoint.profile, &client).await else {
        panic!("no token")
    };
    let (renewed, _) = grant.over(&client, None);
    assert_eq!(renewed.on_the_wire().expose_secret(), "new");
    let body: Value = serde_json::from_str(&endpoint.only_request().2).unwrap();
    let expected = json!({
        "client_id": "the client", "client_secret": "s3cret", "grant_type": "client_credentials",
        "scope": "openid profile email offline_access",
    });
    assert_eq!(body, expected);
}

fn client() -> Credential {
    Credential::Client(ClientCredentials {
        token_url: None,
        refresh: None,
        client_id: "the client".into(),
        client_secret: "s3cret".into(),
        access: "old".into(),
    })
}

/// As Baidu's first token endpoint has it.
#[tokio::test]
async fn a_clients_secret_may_stand_in_the_query() {
    let answer = json!({"access_token": "new", "expires_in": 2_592_000});
    let mut endpoint = Endpoint::answering(200, answer).await;
    let oauth = endpoint.profile.oauth.as_mut().unwrap();
    (oauth.refresh_encoding, oauth.scopes) = (Encoding::Query, Vec::new());
    let outcome = renew(&endpoint.profile, &client()).await;
    assert!(matches!(outcome, Outcome::Fresh(_)), "{outcome:?}");
    let (method, target, _, body) = endpoint.only_target();
    let expected =
        "/oauth/token?client_id=the+client&client_secret=s3cret&grant_type=client_credentials";
    assert_eq!((&*method, &*target, &*body), ("POST", expected, ""));
    // The URL holds the secret, so no error repeats it.
    let mut unreached = profile(1);
    unreached.oauth.as_mut().unwrap().refresh_encoding = Encoding::Query;
    let Outcome::NotSent { reason } = renew(&unreached, &client()).await else {
        panic!("somebody answers");
    };
    assert!(!reason.contains("s3cret"), "{reason}");
}

/// As Baidu's IAM has it: the secret stays here.
#[tokio::test]
async fn a_client_may_sign_its_requests() {
    let answer = json!({"token": "new", "expireTime": "2099-01-01T00:00:00Z"});
    let mut endpoint = Endpoint::answering(200, answer).await;
    let oauth = endpoint.profile.oauth.as_mut().unwrap();
    oauth.signed = Some(SignedRequests {
        scheme: Scheme::BceAuthV1,
        validity_seconds: 1800,
    });
    oauth.refresh_params = [("expireInSeconds".to_owned(), "86400".to_owned())].into();
    oauth.answer = Members {
        access_token: "token".into(),
        expires_at: Some("expireTime".into()),
        ..Members::default()
    };
    let Outcome::Fresh(grant) = renew(&endpoint.profile, &client()).await else {
        panic!("no token");
    };
    let (access, end) = grant.access.unwrap();
    assert_eq!(access.expose_secret(), "new");
    assert!(end.is_some());
    let (method, target, authorization, body) = endpoint.only_target();
    assert_eq!(
        (&*method, &*target, &*body),
        ("GET", "/oauth/token?expireInSeconds=86400", "")
    );
    assert!(
        authorization.starts_with("bce-auth-v1/the client/"),
        "{authorization}"
    );
    assert!(!authorization.contains("s3cret"), "{authorization}");
}

#[tokio::test]
async fn a_login_is_revoked_by_its_refresh_token() {
    let login = Credential::OAuth(tokens());
    let endpoint = Endpoint::answering(200, json!({})).await;
    assert_eq!(revoke(&endpoint.profile, &login).await, Some(Revoked::Done));
    let (path, _, body) = endpoint.only_request();
    assert_eq!(path, "/oauth/revoke");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["token"], &body["token_type_hint"]),
        (&json!("rt_1/+&"), &json!("refresh_token"))
    );
    // Some servers say so of a token that has ended, in place of RFC 7009's 200.
    for (status, answer, revoked) in [
        (400, json!({"error": "invalid_token"}), Revoked::Done),
        (
            400,
            json!({"error": "invalid_client"}),
            Revoked::Failed("HTTP 400".into()),
        ),
        (503, json!({}), Revoked::Failed("HTTP 503".into())),
        (307, json!({}), Revoked::Failed("HTTP 307".into())),
    ] {
        let endpoint = Endpoint::answering(status, answer).await;
        assert_eq!(revoke(&endpoint.profile, &login).await, Some(revoked));
        endpoint.only_request();
    }
    let mut profile = profile(1);
    let gone = revoke(&profile, &login).await;
    assert!(matches!(gone, Some(Revoked::Failed(why)) if why.contains("no connection")));
    profile.oauth.as_mut().unwrap().revoke_url = None;
    assert_eq!(revoke(&profile, &login).await, Some(Revoked::NotOffered));
}

#[tokio::test]
async fn a_clients_token_is_revoked_with_its_secret_and_a_key_not_at_all() {
    let endpoint = Endpoint::answering(200, json!({})).await;
    let client = Credential::Client(ClientCredentials {
        token_url: None,
        refresh: None,
        client_id: "the client".into(),
        client_secret: "s3cret".into(),
        access: "bought".into(),
    });
    assert_eq!(
        revoke(&endpoint.profile, &client).await,
        Some(Revoked::Done)
    );
    let body: Value = serde_json::from_str(&endpoint.only_request().2).unwrap();
    let expected = json!({
        "client_id": "the client", "client_secret": "s3cret", "token": "bought", "token_type_hint": "access_token",
    });
    assert_eq!(body, expected);
    let key = Credential::ApiKey("sk-1".into());
    assert_eq!(revoke(&endpoint.profile, &key).await, None);
    endpoint.only_request();
}

/// The token endpoint is alive, and is not asked: the account's proxy is not there, so nothing leaves.
#[tokio::test]
async fn a_call_by_a_proxy_that_is_down_is_not_made_in_another_way() {
    let endpoint = Endpoint::answering(200, json!({"access_token": "new"})).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let proxy = Proxy::parse(&format!("http://user:secret@{gone}"), None).unwrap();
    let endpoints = TokenEndpoints::new([&endpoint.profile].into_iter()).unwrap();
    let credential = Credential::OAuth(tokens());
    let outcome = endpoints.refresh("codex", &credential, Some(&proxy)).await;
    let Outcome::NotSent { reason } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(!reason.contains("secret"), "{reason}");
    assert!(endpoint.arrived.lock().unwrap().is_empty());
    let profile = endpoint.profile.by(Some(&proxy));
    assert!(matches!(
        revoke(&profile, &credential).await,
        Some(Revoked::Failed(_))
    ));
    assert!(endpoint.arrived.lock().unwrap().is_empty());
}
