//! Logins with a Claude subscription: the OAuth server as Claude Code was seen to use it, and what a request with such a
//! login has to have. Whatever else comes is refused.

use std::collections::BTreeSet;

use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use crate::{
    answer::Answer,
    clock::UnixMillis,
    fixtures::{Fill, Fixture, fixture},
    oauth::{Access, Maker, NewCode, OAuth, User},
    token_endpoint::{Effect, TokenAnswer, escaped, html, user_page},
};

/// Where the browser is sent.
pub const AUTHORIZE: &str = "/cai/oauth/authorize";

/// The token endpoint.
pub const TOKEN: &str = "/v1/oauth/token";

/// Who it is that logged in.
pub const PROFILE: &str = "/api/oauth/profile";

/// The beginning of access tokens.
pub const ACCESS_TOKEN: &str = "sk-ant-oat";

/// What stands for a plan in the rest of the simulator.
pub const PLAN: &str = "subscription";

const CLIENT_ID: &str = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";

/// The platform's page that shows the code.
const SHOWN: &str = "https://platform.claude.com/oauth/code/callback";

/// The item of `anthropic-beta` without which no access token is taken.
const BETA: &str = "oauth-2025-04-20";

/// The scopes of Claude Code's login, but for that of making API keys.
const SCOPES: [&str; 5] = [
    "user:file_upload",
    "user:inference",
    "user:mcp_servers",
    "user:profile",
    "user:sessions:claude_code",
];

/// `GET /cai/oauth/authorize`. `sim_user` names who logs in, and `sim_error` makes the answer that OAuth error.
pub fn authorize(oauth: &mut OAuth, query: &str, now: UnixMillis) -> Answer {
    match authorized(oauth, query, now) {
        Ok(answer) => answer,
        Err(wrong) => Answer::whole(StatusCode::BAD_REQUEST, "text/plain", wrong),
    }
}

fn authorized(oauth: &mut OAuth, query: &str, now: UnixMillis) -> Result<Answer, String> {
    /// Length of base64url(SHA-256) without padding.
    const CHALLENGE_LENGTH: usize = 43;
    const EXPECTED: [&str; 8] = [
        "client_id",
        "code",
        "code_challenge",
        "code_challenge_method",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
    ];
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let value = |name: &str| {
        let pair = pairs.iter().find(|(key, _)| key == name);
        pair.map_or("", |(_, value)| value.as_str())
    };
    let mut found: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    found.retain(|name| !name.starts_with("sim_"));
    found.sort_unstable();
    if found != EXPECTED {
        return Err(format!("expected {EXPECTED:?}, found {found:?}"));
    }
    for (name, expected) in [
        ("client_id", CLIENT_ID),
        ("code", "true"),
        ("code_challenge_method", "S256"),
        ("response_type", "code"),
    ] {
        if value(name) != expected {
            return Err(format!("expected {name} to be {expected}"));
        }
    }
    let scopes: BTreeSet<&str> = value("scope").split(' ').collect();
    if scopes != BTreeSet::from(SCOPES) {
        return Err(format!("expected the scopes {SCOPES:?}"));
    }
    let (challenge, state) = (value("code_challenge"), value("state"));
    if challenge.len() != CHALLENGE_LENGTH || state.is_empty() {
        return Err("expected a challenge of 43 characters and a state".to_owned());
    }
    let redirect_uri = value("redirect_uri");
    let mut back = redirect(redirect_uri).ok_or("redirect_uri is not registered")?;
    let is_shown = redirect_uri == SHOWN;
    let error = value("sim_error");
    let email = value("sim_user");
    if error.is_empty() && email.is_empty() {
        let emails: Vec<String> = oauth.emails().map(str::to_owned).collect();
        let page = user_page(query, &emails);
        return Ok(Answer::whole(StatusCode::OK, "text/html", page));
    }
    if !error.is_empty() {
        back.query_pairs_mut()
            .append_pair("error", error)
            .append_pair("state", state);
        return Ok(Answer::redirect(back.as_str()));
    }
    if oauth.user(email).is_none() {
        return Err("no such sim_user".to_owned());
    }
    let code = oauth.issue_code(
        &NewCode {
            email,
            redirect_uri,
            challenge,
            state,
            maker: Maker::Anthropic,
        },
        now,
    );
    if is_shown {
        let shown = escaped(&format!("{code}#{state}"));
        let page = html(&format!(
            "<p>Paste this into Claude Code:</p><code>{shown}</code>"
        ));
        return Ok(Answer::whole(StatusCode::OK, "text/html", page));
    }
    back.query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", state);
    Ok(Answer::redirect(back.as_str()))
}

/// A redirect URI that is registered: the page that shows the code, or any port of this machine.
fn redirect(uri: &str) -> Option<Url> {
    let url = Url::parse(uri).ok()?;
    let is_local = url.scheme() == "http"
        && url.host_str() == Some("localhost")
        && url.path() == "/callback"
        && url.query().is_none();
    (is_local || uri == SHOWN).then_some(url)
}

/// `POST /v1/oauth/token`: JSON, with exactly the members that Claude Code sends.
pub fn token(oauth: &mut OAuth, headers: &HeaderMap, body: &[u8], now: UnixMillis) -> TokenAnswer {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == "application/json");
    let members: Map<String, Value> = match is_json {
        true => serde_json::from_slice(body).unwrap_or_default(),
        false => Map::new(),
    };
    let text = |name: &str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let mut names: Vec<&str> = members.keys().map(String::as_str).collect();
    names.sort_unstable();
    let granted = match (text("grant_type"), names.as_slice()) {
        (
            "authorization_code",
            [
                "client_id",
                "code",
                "code_verifier",
                "grant_type",
                "redirect_uri",
                "state",
            ],
        ) if oauth.code_state(text("code")).unwrap_or_default() == text("state") => oauth
            .exchange_code(
                text("code"),
                text("redirect_uri"),
                text("code_verifier"),
                now,
            ),
        ("refresh_token", ["client_id", "grant_type", "refresh_token", "scope"]) => {
            oauth.refresh(text("refresh_token"), now)
        }
        _ => return malformed(),
    };
    if text("client_id") != CLIENT_ID {
        return malformed();
    }
    let is_refresh = text("grant_type") == "refresh_token";
    let Ok(tokens) = granted else {
        let body = json!({
            "error": "invalid_grant", "error_description": "Refresh token not found or invalid",
        });
        return TokenAnswer {
            answer: Answer::json(StatusCode::BAD_REQUEST, body.to_string()),
            effect: Effect::None,
        };
    };
    let owner = oauth
        .family(&tokens.refresh_token)
        .map(|(_, email)| email.to_owned());
    let user = owner.and_then(|email| oauth.user(&email));
    let mut body = json!({
        "token_type": "Bearer",
        "access_token": tokens.access_token,
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "scope": SCOPES.join(" "),
    });
    if let Some(user) = user {
        body["organization"] = json!({"uuid": organization(user), "name": "An organization"});
        body["account"] = json!({"uuid": person(user), "email_address": user.email});
    }
    TokenAnswer {
        answer: Answer::json(StatusCode::OK, body.to_string()),
        effect: match is_refresh {
            true => Effect::Refreshed,
            false => Effect::None,
        },
    }
}

fn malformed() -> TokenAnswer {
    let error = json!({"type": "invalid_request_error", "message": "Invalid request format"});
    let body = json!({"type": "error", "error": error});
    TokenAnswer {
        answer: Answer::json(StatusCode::BAD_REQUEST, body.to_string()),
        effect: Effect::None,
    }
}

/// Whose access token a request has, or what it is answered. `has_beta`: such a request needs [`BETA`].
pub fn authenticate(
    oauth: &OAuth,
    headers: &HeaderMap,
    has_beta: bool,
    now: UnixMillis,
) -> Result<User, (Option<String>, &'static Fixture)> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = bearers.next().and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let lists = headers.get_all("anthropic-beta").iter();
    let lists = lists.filter_map(|value| value.to_str().ok());
    let items = lists.flat_map(|list| list.split(',')).map(str::trim);
    let betas = items.filter(|item| *item == BETA).count();
    if betas != usize::from(has_beta) || headers.contains_key("x-api-key") {
        return Err((None, fixture!("anthropic/oauth_not_supported.json")));
    }
    match oauth.access(token.unwrap_or_default(), now) {
        Access::Valid(user) => Ok(user),
        Access::Expired(user) => Err((
            Some(user.email),
            fixture!("anthropic/oauth_token_expired.json"),
        )),
        Access::Revoked(user) => Err((
            Some(user.email),
            fixture!("anthropic/oauth_token_revoked.json"),
        )),
        Access::Unknown => Err((None, fixture!("anthropic/oauth_token_unknown.json"))),
    }
}

/// `GET /api/oauth/profile`, and whose it is.
pub fn profile(
    oauth: &OAuth,
    headers: &HeaderMap,
    fill: &Fill,
    now: UnixMillis,
) -> (Option<String>, Answer) {
    match authenticate(oauth, headers, false, now) {
        Ok(user) => {
            let body = json!({
                "account": {"uuid": person(&user), "email": user.email, "has_claude_max": true},
                "organization": {
                    "uuid": organization(&user), "name": "An organization", "organization_type": "claude_max",
                    "rate_limit_tier": "default_claude_max_5x",
                },
            });
            (
                Some(user.email),
                Answer::json(StatusCode::OK, body.to_string()),
            )
        }
        Err((email, fixture)) => (email, fixture.answer(fill)),
    }
}

/// The answer with the headers that tell how much of a plan is used, in place of those that tell it of a key.
pub fn with_windows(mut answer: Answer, now: UnixMillis) -> Answer {
    let names: Vec<_> = answer.headers.keys().cloned().collect();
    for name in names {
        if name.as_str().starts_with("anthropic-ratelimit-") {
            answer.headers.remove(name);
        }
    }
    let hours = |hours: u64| (now.plus_seconds(hours * 3600).0 / 1000).to_string();
    answer
        .with("anthropic-ratelimit-unified-status", "allowed")
        .with("anthropic-ratelimit-unified-reset", hours(2))
        .with(
            "anthropic-ratelimit-unified-representative-claim",
            "five_hour",
        )
        .with("anthropic-ratelimit-unified-5h-status", "allowed")
        .with("anthropic-ratelimit-unified-5h-reset", hours(2))
        .with("anthropic-ratelimit-unified-5h-utilization", "0.25")
        .with("anthropic-ratelimit-unified-7d-status", "allowed")
        .with("anthropic-ratelimit-unified-7d-reset", hours(72))
        .with("anthropic-ratelimit-unified-7d-utilization", "0.5")
}

fn organization(user: &User) -> &str {
    &user.account_id
}

fn person(user: &User) -> String {
    format!("person-of-{}", user.account_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);
    const ALICE: &str = "alice@example.test";
    const VERIFIER: &str = "0123456789abcdefghijklmnopqrstuvwxyz0123456789";

    fn server() -> OAuth {
        let mut oauth = OAuth::new(1);
        oauth.upsert_user(User {
            email: ALICE.into(),
            account_id: "org-1".into(),
            plan: "max".into(),
            access_lifetime_seconds: Some(60),
        });
        oauth
    }

    fn query(change: impl Fn(&mut Vec<(&'static str, String)>)) -> String {
        let mut pairs = vec![
            ("code", "true".to_owned()),
            ("client_id", CLIENT_ID.to_owned()),
            ("response_type", "code".to_owned()),
            ("redirect_uri", SHOWN.to_owned()),
            ("scope", SCOPES.join(" ")),
            (
                "code_challenge",
                crate::oauth::challenge(VERIFIER).expect("a verifier"),
            ),
            ("code_challenge_method", "S256".to_owned()),
            ("state", "the-state".to_owned()),
            ("sim_user", ALICE.to_owned()),
        ];
        change(&mut pairs);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs).finish()
    }

    fn text(answer: &Answer) -> String {
        match &answer.body {
            crate::answer::Payload::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            crate::answer::Payload::Events(events) => events.concat(),
        }
    }

    fn asked(oauth: &mut OAuth, body: &Value) -> (u16, Value) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("a value"));
        let answer = token(oauth, &headers, body.to_string().as_bytes(), NOW).answer;
        let body = serde_json::from_str(&text(&answer)).expect("JSON");
        (answer.status.as_u16(), body)
    }

    #[test]
    fn a_login_is_redeemed_with_its_state_and_refreshed_once() {
        let mut oauth = server();
        let page = text(&authorize(&mut oauth, &query(|_| {}), NOW));
        let shown = page.split_once("<code>").expect("a code").1;
        let shown = shown.split_once("</code>").expect("its end").0;
        let (code, state) = shown.split_once('#').expect("both");
        assert_eq!(state, "the-state");
        let body = |state: &str| {
            json!({
                "grant_type": "authorization_code", "code": code, "redirect_uri": SHOWN, "client_id": CLIENT_ID,
                "code_verifier": VERIFIER, "state": state,
            })
        };
        assert_eq!(asked(&mut oauth, &body("another")).0, 400);
        let (status, first) = asked(&mut oauth, &body("the-state"));
        assert_eq!(
            (status, &first["account"]["email_address"]),
            (200, &json!(ALICE))
        );
        let refresh = json!({
            "grant_type": "refresh_token", "refresh_token": first["refresh_token"], "client_id": CLIENT_ID, "scope": "a",
        });
        let (status, second) = asked(&mut oauth, &refresh);
        assert_eq!(status, 200, "{second}");
        let (status, spent) = asked(&mut oauth, &refresh);
        assert_eq!((status, &spent["error"]), (400, &json!("invalid_grant")));

        let headers = |betas: &[&str]| {
            let bearer = format!("Bearer {}", second["access_token"].as_str().expect("text"));
            let mut headers = HeaderMap::new();
            headers.insert("authorization", bearer.parse().expect("a value"));
            for beta in betas {
                headers.append("anthropic-beta", beta.parse().expect("a value"));
            }
            headers
        };
        for (betas, is_taken) in [
            (&["a,oauth-2025-04-20"][..], true),
            (&["a", "oauth-2025-04-20"], true),
            (&["a"], false),
            (&["oauth-2025-04-20,oauth-2025-04-20"], false),
            (&[], false),
        ] {
            let found = authenticate(&oauth, &headers(betas), true, NOW);
            assert_eq!(found.is_ok(), is_taken, "{betas:?}");
        }
    }

    #[test]
    fn another_request_than_claude_codes_is_refused() {
        for (name, value) in [
            ("client_id", "another"),
            ("redirect_uri", "http://localhost:1/other"),
            ("scope", "user:inference"),
            ("code", ""),
            ("code_challenge_method", "plain"),
        ] {
            let change = |pairs: &mut Vec<(&'static str, String)>| {
                pairs.retain(|(key, _)| *key != name);
                pairs.push((name, value.to_owned()));
            };
            let answer = authorize(&mut server(), &query(change), NOW);
            assert_eq!(answer.status, 400, "{name}");
        }
        let local = |pairs: &mut Vec<(&'static str, String)>| {
            pairs.retain(|(key, _)| *key != "redirect_uri");
            pairs.push(("redirect_uri", "http://localhost:54545/callback".to_owned()));
        };
        let answer = authorize(&mut server(), &query(local), NOW);
        assert_eq!(answer.status, 302);
        for body in [
            json!({}),
            json!({"grant_type": "refresh_token", "refresh_token": "a", "client_id": CLIENT_ID}),
        ] {
            assert_eq!(asked(&mut server(), &body).0, 400, "{body}");
        }
    }
}
