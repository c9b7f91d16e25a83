//! The first version of Baidu's interface: a client's id and secret, in the query, buy a token, and the token is in the
//! query of every request. Refusals come with HTTP 200, of either.

use http::{HeaderMap, Request, StatusCode};
use hyper::body::Bytes;
use serde_json::json;
use url::form_urlencoded;

use crate::{
    answer::Answer,
    clock::UnixMillis,
    headers,
    oauth::{Access, OAuth},
    record::authority,
    token_endpoint::{Effect, TokenAnswer},
};

/// The token endpoint.
pub const TOKEN: &str = "/oauth/2.0/token";

/// A request whose token is not taken.
pub struct Refused {
    /// Whose it was, if that is known.
    pub account: Option<String>,
    /// The number of the error.
    pub code: u32,
    /// What it says.
    pub message: String,
}

fn parameters(query: &str) -> Vec<(String, String)> {
    let mut parameters: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    parameters.sort();
    parameters
}

/// The user whose client asks for a token.
pub fn owner(oauth: &OAuth, query: &str) -> Option<String> {
    let parameters = parameters(query);
    let (_, id) = parameters.iter().find(|(name, _)| name == "client_id")?;
    oauth.client_owner(id).map(str::to_owned)
}

/// `POST /oauth/2.0/token`.
pub fn token(oauth: &mut OAuth, query: &str, body: &[u8], now: UnixMillis) -> TokenAnswer {
    let parameters = parameters(query);
    let parameters: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let minted = match parameters.as_slice() {
        [
            ("client_id", id),
            ("client_secret", secret),
            ("grant_type", "client_credentials"),
        ] if body.is_empty() => oauth.mint(id, secret, now),
        _ => None,
    };
    let Some((token, lifetime)) = minted else {
        let body = json!({"error": "invalid_client", "error_description": "unknown client id"});
        return TokenAnswer {
            answer: Answer::json(StatusCode::OK, body.to_string()),
            effect: Effect::None,
        };
    };
    let body = json!({
        "refresh_token": "25.of-no-use", "expires_in": lifetime, "session_key": "9mz", "access_token": token,
        "scope": "public ai_custom_yiyan_com wenxinworkshop_mgr", "session_secret": "f2c",
    });
    TokenAnswer {
        answer: Answer::json(StatusCode::OK, body.to_string()),
        effect: Effect::Minted,
    }
}

/// The user whose token a chat carries.
pub fn authenticate(
    oauth: &OAuth,
    request: &Request<Bytes>,
    authorities: &[String],
    now: UnixMillis,
) -> Result<String, Refused> {
    let refused = |account, code, message: &str| Refused {
        account,
        code,
        message: message.to_owned(),
    };
    let sent: &HeaderMap = request.headers();
    let at = authority(request.uri(), sent);
    if let Err(refusal) = headers::only(sent, &[], at, authorities) {
        let message = format!("{}: {}", refusal.header, refusal.reason);
        return Err(refused(None, 100, &message));
    }
    let parameters = parameters(request.uri().query().unwrap_or_default());
    let [(name, token)] = parameters.as_slice() else {
        return Err(refused(None, 100, "Invalid parameter"));
    };
    match oauth.access(token, now) {
        Access::Valid(user) if name == "access_token" => Ok(user.email),
        Access::Expired(user) => Err(refused(Some(user.email), 111, "Access token expired")),
        Access::Revoked(user) => {
            let message = "Access token invalid or no longer valid";
            Err(refused(Some(user.email), 110, message))
        }
        _ => Err(refused(
            None,
            110,
            "Access token invalid or no longer valid",
        )),
    }
}
