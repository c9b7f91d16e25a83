//! Exchanges an id token for an API key of the platform (RFC 8693, with OpenAI's own `requested_token`, as Codex CLI
//! does after a login). Nobody needs it to serve requests; a login does it only where the operator asks.

use secrecy::{ExposeSecret, SecretString};

use super::answer;
use super::http::{CallError, HttpClient};
use crate::clock::UnixMillis;
use crate::platform::OAuth;

/// Why there is no API key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The platform said no.
    #[error(
        "the platform gave no API key for this login: {0}; the account may have no API organization"
    )]
    Refused(String),
}

/// An API key for the account that `id_token` names.
///
/// # Errors
/// If the platform does not answer or gives none.
pub async fn api_key(
    http: &HttpClient,
    oauth: &OAuth,
    id_token: &SecretString,
    now: UnixMillis,
) -> Result<SecretString, Error> {
    let fields = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("client_id", &oauth.client_id),
        ("requested_token", "openai-api-key"),
        ("subject_token", id_token.expose_secret()),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:id_token",
        ),
    ];
    let answered = http.post_form(&oauth.token_url, &fields).await?;
    let body: serde_json::Map<_, _> = serde_json::from_slice(&answered.body).unwrap_or_default();
    let success = (200..300).contains(&answered.status);
    let key = answer::grant(&body, now)
        .filter(|_| success)
        .and_then(|grant| grant.access);
    key.map(|(key, _)| key)
        .ok_or_else(|| Error::Refused(answer::refusal(&answered)))
}
