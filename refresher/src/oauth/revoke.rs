//! Ends a credential at the platform (RFC 7009): when its account is deleted, which goes either way, or logged out.

use std::time::Duration;

use tokio::time::timeout;

use super::answer::error_code_of;
use super::http::{HttpClient, Request};
use super::refresh::{as_client, by};
use crate::credential::Credential;
use crate::platform::{OAuth, Profile};

/// The longest that anybody waits for the platform.
const REVOKE_LIMIT: Duration = Duration::from_secs(10);
/// The error of servers that do not take a token that is worth nothing for revoked, as RFC 7009 §2.2 has it.
const WORTHLESS: &str = "invalid_token";

/// The end of a login at the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The login is worth nothing there any more.
    Done,
    /// The profile has no `revoke_url`.
    NotOffered,
    /// The login may still be valid there, and why.
    Failed(String),
}

/// Revokes a refresh token, and with it the login, or the token that a client bought. None for what is no login. The
/// request is written as the profile's refresh requests are.
pub async fn revoke(profile: &Profile, credential: &Credential) -> Option<Revoked> {
    let oauth = profile.oauth.as_ref();
    let Some(request) = oauth.and_then(|oauth| request(oauth, credential)) else {
        let is_login = matches!(credential, Credential::OAuth(_));
        return is_login.then_some(Revoked::NotOffered);
    };
    let http = match HttpClient::for_platform(profile) {
        Ok(http) => http,
        Err(error) => return Some(Revoked::Failed(error.to_string())),
    };
    Some(match timeout(REVOKE_LIMIT, http.send(&request)).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => Revoked::Done,
        Ok(Ok(answer)) if error_code_of(&answer).as_deref() == Some(WORTHLESS) => Revoked::Done,
        Ok(Ok(answer)) => Revoked::Failed(format!("HTTP {}", answer.status)),
        Ok(Err(error)) => Revoked::Failed(error.to_string()),
        Err(_) => Revoked::Failed(format!(
            "no answer within {} seconds",
            REVOKE_LIMIT.as_secs()
        )),
    })
}

/// The request that revokes `credential`; none where the platform offers none, or it is nothing that can be revoked.
fn request(oauth: &OAuth, credential: &Credential) -> Option<Request> {
    let request = Request::new(oauth.revoke_url.as_ref()?, oauth.refresh_encoding);
    match credential {
        Credential::OAuth(tokens) => Some(
            as_client(request, oauth, tokens)
                .field("token", tokens.refresh.clone())
                .field("token_type_hint", "refresh_token"),
        ),
        // Another server's tokens are none of this one's business.
        Credential::Client(client) if client.token_url.is_some() => None,
        Credential::Client(client) => {
            let (token, hint) = match &client.refresh {
                Some(refresh) => (refresh, "refresh_token"),
                None => (&client.access, "access_token"),
            };
            let request = by(request, oauth, client).field("token", token.clone());
            Some(request.field("token_type_hint", hint))
        }
        Credential::ApiKey(_) | Credential::Signed(_) | Credential::Session(_) => None,
    }
}
