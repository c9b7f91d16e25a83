//! Google's Code Assist and its login, as Google's own Gemini CLI was seen to use them. Whatever else comes is refused.
//!
//! What an account is, its address says: `new@` has no tier before it was set up, `own@` has a tier and works in a project
//! that it has to name, `ended@` and `validate@` are not taken.

use std::collections::{BTreeSet, HashMap};

use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::Bytes;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::{
    answer::{Answer, Payload},
    clock::UnixMillis,
    fixtures::Fill,
    oauth::{Access, Maker, NewCode, OAuth},
    token_endpoint::{Effect, TokenAnswer, escaped, html},
    upstream,
};

/// Where the browser is sent.
pub const AUTHORIZE: &str = "/o/oauth2/v2/auth";

/// The token endpoint, and where tokens end.
pub const TOKEN: &str = "/google/token";
pub const REVOKE: &str = "/google/revoke";

/// The beginning of the API's paths.
pub const API: &str = "/v1internal";

/// The client that is registered, and its secret.
const CLIENT_ID: &str = "client-1.apps.sim.test";
const CLIENT_SECRET: &str = "secret-of-client-1";

/// The page that shows the code.
const SHOWN: &str = "https://codeassist.google.com/authcode";

const SCOPES: [&str; 3] = [
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/userinfo.email",
    "https://www.googleapis.com/auth/userinfo.profile",
];

/// The accounts that were set up: how often that was asked for since it began.
#[derive(Debug, Default)]
pub struct Accounts(HashMap<String, u32>);

type Refused = (StatusCode, &'static str, String);

/// `GET /o/oauth2/v2/auth`. `sim_user` names who logs in.
pub fn authorize(oauth: &mut OAuth, query: &str, now: UnixMillis) -> Answer {
    let found = authorized(oauth, query, now);
    found.unwrap_or_else(|wrong| Answer::whole(StatusCode::BAD_REQUEST, "text/plain", wrong))
}

fn authorized(oauth: &mut OAuth, query: &str, now: UnixMillis) -> Result<Answer, String> {
    let pairs: HashMap<String, String> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let value = |name: &str| pairs.get(name).map_or("", String::as_str);
    for (name, expected) in [
        ("access_type", "offline"),
        ("client_id", CLIENT_ID),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
        ("response_type", "code"),
    ] {
        if value(name) != expected {
            return Err(format!("expected {name} to be {expected}"));
        }
    }
    if value("scope").split(' ').collect::<BTreeSet<_>>() != BTreeSet::from(SCOPES) {
        return Err(format!("expected the scopes {SCOPES:?}"));
    }
    let (email, state, redirect_uri) = (value("sim_user"), value("state"), value("redirect_uri"));
    if oauth.user(email).is_none() || state.is_empty() {
        return Err("no such sim_user, or no state".to_owned());
    }
    let mut back = Url::parse(redirect_uri).map_err(|error| error.to_string())?;
    let is_local = back.host_str() == Some("127.0.0.1") && back.path() == "/oauth2callback";
    if !is_local && redirect_uri != SHOWN {
        return Err("redirect_uri is not registered".to_owned());
    }
    let code = oauth.issue_code(
        &NewCode {
            email,
            redirect_uri,
            challenge: value("code_challenge"),
            state,
            maker: Maker::OpenAi,
        },
        now,
    );
    if !is_local {
        let page = html(&format!("<code>{}</code>", escaped(&code)));
        return Ok(Answer::whole(StatusCode::OK, "text/html", page));
    }
    back.query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", state);
    Ok(Answer::redirect(back.as_str()))
}

/// `POST` of a token endpoint: a form, with exactly the fields that are documented.
pub fn token(
    oauth: &mut OAuth,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
    now: UnixMillis,
) -> TokenAnswer {
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == "application/x-www-form-urlencoded");
    let fields: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let text = |name: &str| fields.get(name).map_or("", String::as_str);
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.sort_unstable();
    let refused = |code: &str, words: &str| TokenAnswer {
        answer: Answer::json(
            StatusCode::BAD_REQUEST,
            json!({"error": code, "error_description": words}).to_string(),
        ),
        effect: Effect::None,
    };
    if !is_form {
        return refused("invalid_request", "no form");
    }
    if path == REVOKE {
        return match oauth.revoke(text("token")) {
            true => TokenAnswer {
                answer: Answer::json(StatusCode::OK, "{}"),
                effect: Effect::Revoked,
            },
            false => refused("invalid_token", "Token expired or revoked"),
        };
    }
    if text("client_id") != CLIENT_ID || text("client_secret") != CLIENT_SECRET {
        return refused("invalid_client", "The OAuth client was not found.");
    }
    let scope = SCOPES.join(" ");
    match (text("grant_type"), names.as_slice()) {
        (
            "authorization_code",
            [
                "client_id",
                "client_secret",
                "code",
                "code_verifier",
                "grant_type",
                "redirect_uri",
            ],
        ) => {
            let (uri, verifier) = (text("redirect_uri"), text("code_verifier"));
            let Ok(tokens) = oauth.exchange_code(text("code"), uri, verifier, now) else {
                return refused("invalid_grant", "Malformed auth code.");
            };
            let body = json!({
                "access_token": tokens.access_token, "expires_in": tokens.expires_in, "scope": scope,
                "refresh_token": tokens.refresh_token, "token_type": "Bearer", "id_token": tokens.id_token,
            });
            TokenAnswer {
                answer: Answer::json(StatusCode::OK, body.to_string()),
                effect: Effect::None,
            }
        }
        ("refresh_token", ["client_id", "client_secret", "grant_type", "refresh_token"]) => {
            // The old refresh token stays, and no other one comes.
            let Ok((access, expires_in)) = oauth.renew(text("refresh_token"), now) else {
                return refused("invalid_grant", "Token has been expired or revoked.");
            };
            let body = json!({
                "access_token": access, "expires_in": expires_in, "scope": scope, "token_type": "Bearer",
            });
            TokenAnswer {
                answer: Answer::json(StatusCode::OK, body.to_string()),
                effect: Effect::Refreshed,
            }
        }
        _ => refused("invalid_request", "another grant, or other fields"),
    }
}

/// Whose access token a request has.
pub fn authenticate(oauth: &OAuth, headers: &HeaderMap, now: UnixMillis) -> (Option<String>, bool) {
    let bearer = headers.get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match oauth.access(bearer.unwrap_or_default(), now) {
        Access::Valid(user) => (Some(user.email), true),
        Access::Expired(user) | Access::Revoked(user) => (Some(user.email), false),
        Access::Unknown => (None, false),
    }
}

/// The answer to a request whose token is none, or has ended.
pub fn unauthenticated() -> Answer {
    let message = "Request had invalid authentication credentials.";
    let error = json!({"code": 401, "message": message, "status": "UNAUTHENTICATED"});
    Answer::json(
        StatusCode::UNAUTHORIZED,
        json!({"error": error}).to_string(),
    )
}

impl Accounts {
    /// A request of `email`, who is known, to the API.
    pub fn answer(&mut self, email: &str, request: &Request<Bytes>, fill: &Fill) -> Answer {
        self.answered(email, request, fill)
            .unwrap_or_else(|(status, word, message)| {
                let error = json!({"code": status.as_u16(), "message": message, "status": word});
                Answer::json(status, json!({"error": error}).to_string())
            })
    }

    fn answered(
        &mut self,
        email: &str,
        request: &Request<Bytes>,
        fill: &Fill,
    ) -> Result<Answer, Refused> {
        let target = request
            .uri()
            .path_and_query()
            .map_or("", |target| target.as_str());
        let call = target.strip_prefix(API).unwrap_or_default();
        let bad = |message: String| (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
        if request.headers().contains_key("x-goog-api-key") {
            return Err(bad("a key beside the token".to_owned()));
        }
        let ok = |body: Value| Ok(Answer::json(StatusCode::OK, body.to_string()));
        let who = email.split('@').next().unwrap_or_default();
        if (request.method(), call) == (&Method::GET, "/operations/set-up-1") {
            let asked = self.0.entry(email.to_owned()).or_default();
            *asked += 1;
            let project = json!({"cloudaicompanionProject": {"id": project(email), "name": "x"}});
            return ok(match *asked {
                1 => json!({"name": "operations/set-up-1", "done": false}),
                _ => json!({"name": "operations/set-up-1", "done": true, "response": project}),
            });
        }
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        if request.method() != Method::POST || !is_json {
            return Err(bad("expected a POST of JSON".to_owned()));
        }
        let body: Value =
            serde_json::from_slice(request.body()).map_err(|error| bad(error.to_string()))?;
        let members: Vec<&str> = body
            .as_object()
            .into_iter()
            .flat_map(|all| all.keys().map(String::as_str))
            .collect();
        let tier = json!({"id": "standard-tier"});
        match call {
            ":loadCodeAssist" if body["metadata"]["pluginType"] == "PLUGIN_UNSPECIFIED" => {
                let ineligible = |code: &str, more: Value| {
                    let mut one =
                        json!({"tierId": "free-tier", "tierName": "x", "reasonCode": code});
                    one.as_object_mut()
                        .into_iter()
                        .for_each(|one| one.extend(more.as_object().cloned().unwrap_or_default()));
                    json!({"ineligibleTiers": [one]})
                };
                let is_new = who == "new" && !self.0.contains_key(email);
                ok(match who {
                    "ended" => ineligible(
                        "UNSUPPORTED_CLIENT",
                        json!({
                            "reasonMessage": "This client is no longer supported for Gemini Code Assist for individuals.",
                        }),
                    ),
                    "validate" => ineligible(
                        "VALIDATION_REQUIRED",
                        json!({
                            "reasonMessage": "Verify your account.", "validationUrl": "https://accounts.sim.test/validate",
                        }),
                    ),
                    "own" => json!({"currentTier": tier}),
                    _ if is_new => {
                        json!({"allowedTiers": [{"id": "standard-tier", "isDefault": true}]})
                    }
                    _ => json!({"currentTier": tier, "cloudaicompanionProject": project(email)}),
                })
            }
            ":onboardUser" if who == "new" && body["tierId"] == "standard-tier" => {
                self.0.insert(email.to_owned(), 0);
                ok(json!({"name": "operations/set-up-1", "done": false}))
            }
            ":generateContent" | ":streamGenerateContent?alt=sse" => {
                if members != ["model", "project", "request", "user_prompt_id"] {
                    return Err(bad(format!("other members: {members:?}")));
                }
                let named = body["project"].as_str().unwrap_or_default();
                if named != project(email) && !(who == "own" && named == "my-project") {
                    let message = "The caller does not have permission".to_owned();
                    return Err((StatusCode::FORBIDDEN, "PERMISSION_DENIED", message));
                }
                let (Some(model), Some(_)) =
                    (body["model"].as_str(), body["user_prompt_id"].as_str())
                else {
                    return Err(bad("no model, or no user_prompt_id".to_owned()));
                };
                let inner = body["request"].to_string();
                let streams = call.starts_with(":stream");
                Ok(wrapped(upstream::gemini::answer(
                    model,
                    streams,
                    inner.as_bytes(),
                    fill,
                )))
            }
            _ => Err((
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                format!("no such call: {call}"),
            )),
        }
    }
}

fn project(email: &str) -> String {
    format!("project-of-{}", email.split('@').next().unwrap_or_default())
}

/// A good answer in its object; an error has none.
fn wrapped(mut answer: Answer) -> Answer {
    if !answer.status.is_success() {
        return answer;
    }
    let wrap = |text: &str| format!("{{\"response\":{text},\"traceId\":\"trace-1\"}}");
    answer.body = match answer.body {
        Payload::Whole(body) => Payload::Whole(wrap(&String::from_utf8_lossy(&body)).into()),
        Payload::Events(events) => {
            let events = events.iter().map(|event| {
                let data = event.trim_end().strip_prefix("data: ").unwrap_or_default();
                format!("data: {}\r\n\r\n", wrap(data))
            });
            Payload::Events(events.collect())
        }
    };
    answer
}
