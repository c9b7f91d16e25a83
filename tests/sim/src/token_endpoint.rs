//! The HTTP side of the OAuth server: forms and JSON in, the platform's exact bodies out.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{
    answer::Answer,
    clock::UnixMillis,
    fixtures::{Fill, fixture},
    oauth::{
        AuthorizeOutcome, AuthorizeRequest, CLIENT_ID, CodeGrant, DEVICE_CODE_LIFETIME_SECONDS,
        DeviceError, FamilyId, INTERVAL_SECONDS, OAuth, TokenError, TokenSet,
    },
};

/// The parameters of a token request, whatever they were encoded in.
#[derive(Debug, Default)]
pub struct TokenRequest(Vec<(String, String)>);

/// The answer to a token request, and its effect.
#[derive(Debug)]
pub struct TokenAnswer {
    /// The answer.
    pub answer: Answer,
    /// The effect that the rest of the simulator has to know.
    pub effect: Effect,
}

/// The effect of a token request beside its answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing to tell.
    None,
    /// A refresh token was rotated, or replayed in the grace window.
    Refreshed,
    /// A client bought an access token.
    Minted,
    /// A spent refresh token was replayed.
    ReuseDetected,
    /// A known token was revoked.
    Revoked,
    /// An API key was made for a user.
    ApiKey {
        /// The user's email.
        name: String,
        /// The key.
        key: String,
    },
}

impl TokenRequest {
    /// Reads a form or a JSON object of strings; anything else has no parameters.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Self {
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        match content_type.map(|value| value.split(';').next().unwrap_or_default().trim()) {
            Some("application/json") => match serde_json::from_slice(body) {
                Ok(Value::Object(members)) => Self(
                    members
                        .into_iter()
                        .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                        .collect(),
                ),
                _ => Self::default(),
            },
            Some("application/x-www-form-urlencoded") => {
                Self(form_urlencoded::parse(body).into_owned().collect())
            }
            _ => Self::default(),
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str) -> &str {
        self.value(name).unwrap_or_default()
    }

    /// The user that the request is about, if its code or refresh token is known.
    pub fn account(&self, oauth: &OAuth) -> Option<String> {
        let by_code = self.value("code").and_then(|code| oauth.code_owner(code));
        let refresh_token = self.value("refresh_token").or_else(|| self.value("token"));
        let by_client = || oauth.client_owner(self.value("client_id")?);
        by_code
            .or_else(|| Some(oauth.family(refresh_token?)?.1))
            .or_else(by_client)
            .map(str::to_owned)
    }

    /// The login that the request wants to refresh, if it does.
    pub fn refreshes(&self, oauth: &OAuth) -> Option<FamilyId> {
        let token = self.value("refresh_token")?;
        (self.value("grant_type") == Some("refresh_token"))
            .then(|| oauth.family(token).map(|(family, _)| family))?
    }
}

/// `POST /oauth/token`.
pub fn token(
    oauth: &mut OAuth,
    request: &TokenRequest,
    fill: &Fill,
    now: UnixMillis,
) -> TokenAnswer {
    if request.value("grant_type") == Some("client_credentials") {
        return mint(oauth, request, now);
    }
    if request.value("client_id") != Some(CLIENT_ID) {
        return unknown_client();
    }
    match request.value("grant_type") {
        Some("urn:ietf:params:oauth:grant-type:device_code") => {
            match oauth.exchange_device(request.required("device_code"), now) {
                Ok(tokens) => answered(Ok(tokens), Effect::None, fill),
                Err(DeviceError::Token(error)) => answered(Err(error), Effect::None, fill),
                Err(error) => {
                    let (code, words) = match error {
                        DeviceError::SlowDown => ("slow_down", "asked too soon"),
                        DeviceError::Denied => ("access_denied", "the person said no"),
                        DeviceError::Expired => ("expired_token", "the code is past its time"),
                        _ => ("authorization_pending", "nobody has typed the code in"),
                    };
                    refused(StatusCode::BAD_REQUEST, code, words)
                }
            }
        }
        Some("authorization_code") => {
            let tokens = oauth.exchange_code(
                request.required("code"),
                request.required("redirect_uri"),
                request.required("code_verifier"),
                now,
            );
            answered(tokens, Effect::None, fill)
        }
        Some("refresh_token") => {
            let tokens = oauth.refresh(request.required("refresh_token"), now);
            answered(tokens, Effect::Refreshed, fill)
        }
        Some("urn:ietf:params:oauth:grant-type:token-exchange") => {
            match oauth.exchange_for_api_key(request.required("subject_token")) {
                Ok((user, key)) => TokenAnswer {
                    answer: Answer::json(
                        StatusCode::OK,
                        json!({"access_token": key, "token_type": "Bearer"}).to_string(),
                    ),
                    effect: Effect::ApiKey {
                        name: user.email,
                        key,
                    },
                },
                Err(error) => answered(Err(error), Effect::None, fill),
            }
        }
        _ => refused(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "unknown grant_type",
        ),
    }
}

/// RFC 6749 §4.4.
fn mint(oauth: &mut OAuth, request: &TokenRequest, now: UnixMillis) -> TokenAnswer {
    let secret = request.required("client_secret");
    let Some((token, lifetime)) = oauth.mint(request.required("client_id"), secret, now) else {
        return unknown_client();
    };
    let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime});
    TokenAnswer {
        answer: Answer::json(StatusCode::OK, body.to_string()),
        effect: Effect::Minted,
    }
}

fn unknown_client() -> TokenAnswer {
    refused(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "unknown client_id, or not its secret",
    )
}

/// `POST /oauth/device/code` (RFC 8628 §3.1).
pub fn device(oauth: &mut OAuth, request: &TokenRequest, issuer: &str, now: UnixMillis) -> Answer {
    if request.value("client_id") != Some(CLIENT_ID) {
        return unknown_client().answer;
    }
    let code = oauth.start_device(now);
    let page = format!("{issuer}/oauth/device");
    let body = json!({
        "device_code": code.device_code,
        "user_code": code.user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", code.user_code),
        "expires_in": DEVICE_CODE_LIFETIME_SECONDS,
        "interval": INTERVAL_SECONDS,
    });
    Answer::json(StatusCode::OK, body.to_string()).with("cache-control", "no-store")
}

/// `POST /api/accounts/deviceauth/usercode`: the beginning of Codex CLI's form of a device login. The interval is text.
pub fn user_code(oauth: &mut OAuth, request: &TokenRequest, now: UnixMillis) -> Answer {
    if request.value("client_id") != Some(CLIENT_ID) {
        return unknown_client().answer;
    }
    let code = oauth.start_device(now);
    let body = json!({
        "device_auth_id": code.device_code,
        "user_code": code.user_code,
        "interval": INTERVAL_SECONDS.to_string(),
    });
    Answer::json(StatusCode::OK, body.to_string()).with("cache-control", "no-store")
}

/// `POST /api/accounts/deviceauth/token`: 403 until the person has typed the code in.
pub fn device_grant(
    oauth: &mut OAuth,
    request: &TokenRequest,
    issuer: &str,
    now: UnixMillis,
) -> Answer {
    let (device_code, user_code) = (
        request.required("device_auth_id"),
        request.required("user_code"),
    );
    let back = format!("{issuer}/deviceauth/callback");
    let Some(grant) = oauth.grant_device(device_code, user_code, back, now) else {
        return Answer::json(StatusCode::FORBIDDEN, "{}");
    };
    let CodeGrant {
        code,
        verifier,
        challenge,
    } = grant;
    let body = json!({
        "authorization_code": code, "code_challenge": challenge, "code_verifier": verifier,
    });
    Answer::json(StatusCode::OK, body.to_string()).with("cache-control", "no-store")
}

/// `GET /oauth/device` and `/codex/device`: where a person types the code in, as `sim_user`, or refuses, as `sim_error` says. Who does
/// neither yet is asked for it.
pub fn decide(oauth: &mut OAuth, query: &str) -> Answer {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let value = |name: &str| {
        let pair = pairs.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    };
    let page = |status, body: String| Answer::whole(status, "text/html; charset=utf-8", body);
    let code = value("user_code").unwrap_or_default();
    let Some(users) = oauth.device_users(code) else {
        let (status, words) = match code {
            "" => (StatusCode::OK, "Type in the code that your device shows."),
            _ => (StatusCode::BAD_REQUEST, "Nobody waits with that code."),
        };
        let form = "<form><input name=\"user_code\" autofocus><button>Go on</button></form>";
        return page(status, html(&format!("<p>{words}</p>{form}")));
    };
    let user = value("sim_user").filter(|_| value("sim_error").is_none());
    if user.is_none() && value("sim_error").is_none() {
        return page(StatusCode::OK, user_page(query, &users));
    }
    match oauth.decide_device(code, user) {
        true => page(
            StatusCode::OK,
            html("<p>You can go back to your device.</p>"),
        ),
        false => page(
            StatusCode::BAD_REQUEST,
            html("<p>There is no such user.</p>"),
        ),
    }
}

/// `POST /oauth/revoke`.
pub fn revoke(oauth: &mut OAuth, request: &TokenRequest) -> TokenAnswer {
    let known = oauth.revoke(request.required("token"));
    TokenAnswer {
        answer: Answer::json(StatusCode::OK, "{}"),
        effect: if known { Effect::Revoked } else { Effect::None },
    }
}

/// `GET /oauth/authorize`.
pub fn authorize(oauth: &mut OAuth, query: &str, now: UnixMillis) -> Answer {
    let pairs = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    match oauth.authorize(&AuthorizeRequest(pairs), now) {
        AuthorizeOutcome::Redirect(location) => Answer::redirect(&location),
        AuthorizeOutcome::Refused(reason) => {
            Answer::whole(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", reason)
        }
        AuthorizeOutcome::ChooseUser(emails) => Answer::whole(
            StatusCode::OK,
            "text/html; charset=utf-8",
            user_page(query, &emails),
        ),
    }
    .with("cache-control", "no-store")
}

/// One link a user, and one that says no. The emails come from the control API, the query from
/// anywhere: both are percent-encoded or escaped.
pub(crate) fn user_page(query: &str, emails: &[String]) -> String {
    let link = |name: &str, value: &str, text: &str| {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(form_urlencoded::parse(query.as_bytes()));
        pairs.append_pair(name, value);
        format!(
            "<li><a href=\"?{}\">{}</a></li>",
            escaped(&pairs.finish()),
            escaped(text)
        )
    };
    let users: String = emails
        .iter()
        .map(|email| link("sim_user", email, email))
        .collect();
    let refusal = link("sim_error", "access_denied", "Refuse");
    html(&format!("<p>Log in as:</p><ul>{users}{refusal}</ul>"))
}

pub(crate) fn html(body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Log in</title></head>\
         <body><h1>Simulated platform</h1>{body}</body></html>"
    )
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn answered(tokens: Result<TokenSet, TokenError>, effect: Effect, fill: &Fill) -> TokenAnswer {
    match tokens {
        Ok(tokens) => {
            let body = json!({
                "access_token": tokens.access_token,
                "id_token": tokens.id_token,
                "refresh_token": tokens.refresh_token,
                "token_type": "Bearer",
                "expires_in": tokens.expires_in,
            });
            TokenAnswer {
                answer: Answer::json(StatusCode::OK, body.to_string())
                    .with("cache-control", "no-store"),
                effect,
            }
        }
        Err(error) => {
            let fixture = match error {
                TokenError::InvalidGrant => fixture!("codex/token_invalid_grant.json"),
                TokenError::EmptyRefreshToken => fixture!("codex/token_empty_refresh_token.json"),
                TokenError::Reused => fixture!("codex/token_refresh_token_reused.json"),
                TokenError::Invalidated => fixture!("codex/token_refresh_token_invalidated.json"),
            };
            let reused = error == TokenError::Reused;
            TokenAnswer {
                answer: fixture.answer(fill),
                effect: if reused {
                    Effect::ReuseDetected
                } else {
                    Effect::None
                },
            }
        }
    }
}

fn refused(status: StatusCode, error: &str, description: &str) -> TokenAnswer {
    let body = json!({"error": error, "error_description": description});
    TokenAnswer {
        answer: Answer::json(status, body.to_string()),
        effect: Effect::None,
    }
}
