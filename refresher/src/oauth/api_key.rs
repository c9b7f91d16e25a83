//! Exchanges an id token for an API key of the platform (RFC 8693 with a `requested_token` of the profile's). Nobody
//! needs the key to serve requests; a login asks for it only where the operator does.

use secrecy::SecretString;

use super::answer::{self, Answer};
use super::http::{CallError, Request};
use crate::clock::UnixMillis;
use crate::platform::OAuth;
use crate::platform::oauth::{ApiKeyExchange, Members};

/// The reason why there is no API key.
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

/// The request for an API key of the account that `id_token` names.
pub fn request(oauth: &OAuth, exchange: &ApiKeyExchange, id_token: &SecretString) -> Request {
    Request::new(&oauth.token_url, oauth.exchange_encoding)
        .field(
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        )
        .field("client_id", oauth.client_id.as_str())
        .field("requested_token", exchange.requested_token.as_str())
        .field("subject_token", id_token.clone())
        .field(
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:id_token",
        )
}

/// Reads the answer to it.
///
/// # Errors
/// If there is none, or it has no key.
pub fn read(answer: Result<Answer, CallError>, now: UnixMillis) -> Result<SecretString, Error> {
    let answer = answer?;
    let body: serde_json::Map<_, _> = serde_json::from_slice(&answer.body).unwrap_or_default();
    let success = (200..300).contains(&answer.status);
    let key = answer::grant(&body, &Members::default(), now)
        .filter(|_| success)
        .and_then(|grant| grant.access);
    key.map(|(key, _)| key)
        .ok_or_else(|| Error::Refused(answer::refusal(&answer)))
}
