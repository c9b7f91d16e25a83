//! A device login as OpenAI has it for Codex CLI, which is not RFC 8628's: JSON, an answer of 403 or 404 until the person
//! has decided, and in place of tokens an authorization code and the PKCE verifier that the server made for it.

use std::time::Duration;

use oauth2::url::ParseError;
use oauth2::{AuthorizationCode, PkceCodeVerifier, RedirectUrl};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{Given, INTERVAL, pause_of, user_code};
use crate::login::Prompt;
use crate::oauth::answer::{self, Answer};
use crate::oauth::exchange;
use crate::oauth::http::Request;
use crate::platform::flow::DeviceByCode;
use crate::platform::{Encoding, OAuth};

/// The time that Codex CLI waits for a code; the server names none.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The rest of such a login.
#[derive(Debug)]
pub(super) struct ByCode {
    flow: DeviceByCode,
    redirect_uri: RedirectUrl,
    /// The code that the person types in: each question repeats it.
    user_code: SecretString,
}

impl ByCode {
    pub(super) fn new(flow: &DeviceByCode) -> Result<ByCode, ParseError> {
        Ok(ByCode {
            flow: flow.clone(),
            redirect_uri: RedirectUrl::new(flow.redirect_uri.clone())?,
            user_code: SecretString::default(),
        })
    }

    /// Reads the codes that the server gave; else the name of the member that is missing or does not fit.
    pub(super) fn given(&mut self, body: &Map<String, Value>) -> Result<Given, &'static str> {
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let id = text("device_auth_id").filter(|id| answer::is_token(id));
        // The second name is an older one, which Codex CLI takes too.
        let shown = text("user_code").or_else(|| text("usercode"));
        let shown = shown.and_then(user_code).ok_or("user_code")?;
        self.user_code = shown.clone().into();
        Ok(Given {
            device_code: id.ok_or("device_auth_id")?.into(),
            interval: body.get("interval").map_or(INTERVAL, pause_of),
            prompt: Prompt {
                url: self.flow.page.clone(),
                code: Some(shown),
                lifetime: Some(LIFETIME),
            },
        })
    }

    /// The question if the person has decided.
    pub(super) fn question(&self, device_code: &SecretString) -> Request {
        Request::new(&self.flow.poll_url, Encoding::Json)
            .field("device_auth_id", device_code.clone())
            .field("user_code", self.user_code.clone())
    }

    /// Makes of the answer to it the request that buys the tokens; none where it has no code.
    pub(super) fn redeemed(&self, oauth: &OAuth, answer: &Answer) -> Option<Request> {
        let body: Map<String, Value> = serde_json::from_slice(&answer.body).ok()?;
        let secret = |name: &str| {
            let text = body.get(name).and_then(Value::as_str);
            text.filter(|text| answer::is_token(text))
                .map(str::to_owned)
        };
        let code = AuthorizationCode::new(secret("authorization_code")?);
        let verifier = PkceCodeVerifier::new(secret("code_verifier")?);
        Some(exchange::request(
            oauth,
            &code,
            &self.redirect_uri,
            &verifier,
            None,
        ))
    }
}

/// True for the answer while the person has not decided.
pub(super) fn is_undecided(answer: &Answer) -> bool {
    matches!(answer.status, 403 | 404)
}
