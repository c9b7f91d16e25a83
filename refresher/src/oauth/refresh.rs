//! The requests that renew a credential: by its refresh token (RFC 6749 §6), or by a client's own secret (§4.4).

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::http::Request;
use super::signed::Signer;
use crate::credential::{ClientCredentials, OAuthTokens};
use crate::platform::OAuth;
use crate::platform::oauth::{Scheme, SignedRequests};

/// The request that spends, or uses, the refresh token.
pub fn by_token(oauth: &OAuth, tokens: &OAuthTokens) -> Request {
    let request = Request::new(&oauth.token_url, oauth.refresh_encoding);
    let request = as_client(request, oauth, tokens)
        .field("grant_type", "refresh_token")
        .field("refresh_token", tokens.refresh.clone());
    with_params(request, oauth)
}

/// Says to which client the person logged in: the operator's own, with its secret, or the platform's.
pub fn as_client(request: Request, oauth: &OAuth, tokens: &OAuthTokens) -> Request {
    match &tokens.client {
        Some(own) => request
            .field("client_id", own.id.as_str())
            .field("client_secret", own.secret.clone()),
        None => request.field("client_id", oauth.client_id.as_str()),
    }
}

/// The request that buys an access token with the client's secret.
pub fn by_client(oauth: &OAuth, client_id: &str, client_secret: &SecretString) -> Request {
    if let Some(SignedRequests {
        scheme: Scheme::BceAuthV1,
        validity_seconds,
    }) = oauth.signed
    {
        let signer = Signer {
            client_id: client_id.to_owned(),
            client_secret: client_secret.clone(),
            validity: Duration::from_secs(validity_seconds.into()),
        };
        return with_params(Request::signed(&oauth.token_url, signer), oauth);
    }
    let request = Request::new(&oauth.token_url, oauth.refresh_encoding)
        .field("client_id", client_id)
        .field("client_secret", client_secret.clone())
        .field("grant_type", "client_credentials");
    let request = if oauth.scopes.is_empty() {
        request
    } else {
        request.field("scope", oauth.scopes.join(" "))
    };
    with_params(request, oauth)
}

/// The request that spends, or uses, the refresh token of a client of the account's own.
pub fn by_token_of(oauth: &OAuth, client: &ClientCredentials, refresh: &SecretString) -> Request {
    let request = by(
        Request::new(&oauth.token_url, oauth.refresh_encoding),
        oauth,
        client,
    );
    let request = request
        .field("grant_type", "refresh_token")
        .field("refresh_token", refresh.clone());
    with_params(request, oauth)
}

/// Says who asks: a client of the account's own, with its secret if it has one, or the platform's.
pub fn by(request: Request, oauth: &OAuth, client: &ClientCredentials) -> Request {
    let id = match client.client_id.as_str() {
        "" => oauth.client_id.as_str(),
        own => own,
    };
    let request = request.field("client_id", id);
    match client.client_secret.expose_secret().is_empty() {
        true => request,
        false => request.field("client_secret", client.client_secret.clone()),
    }
}

/// Adds the profile's own parameters, which give way to ours.
fn with_params(request: Request, oauth: &OAuth) -> Request {
    oauth
        .refresh_params
        .iter()
        .fold(request, |request, (name, value)| {
            request.unless_given(name, value)
        })
}
