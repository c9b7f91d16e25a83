//! Ends a login at the platform (RFC 7009), when its account is deleted. Best effort: the account goes either way.

use std::time::Duration;

use tokio::time::timeout;

use super::http::{HttpClient, Request};
use crate::credential::OAuthTokens;
use crate::platform::Profile;

/// The longest that a deletion waits for the platform.
const REVOKE_LIMIT: Duration = Duration::from_secs(10);

/// The end of a login at the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The platform took it.
    Done,
    /// The profile has no `revoke_url`.
    NotOffered,
    /// It may still be valid there, and why.
    Failed(String),
}

/// Revokes the refresh token, and with it the login. The request is written as the profile's refresh requests are.
pub async fn revoke(profile: &Profile, tokens: &OAuthTokens) -> Revoked {
    let Some(oauth) = &profile.oauth else {
        return Revoked::NotOffered;
    };
    let Some(url) = &oauth.revoke_url else {
        return Revoked::NotOffered;
    };
    let http = match HttpClient::for_platform(profile) {
        Ok(http) => http,
        Err(error) => return Revoked::Failed(error.to_string()),
    };
    let request = Request::new(url, oauth.refresh_encoding)
        .field("client_id", oauth.client_id.as_str())
        .field("token", tokens.refresh.clone())
        .field("token_type_hint", "refresh_token");
    match timeout(REVOKE_LIMIT, http.send(&request)).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => Revoked::Done,
        Ok(Ok(answer)) => Revoked::Failed(format!("HTTP {}", answer.status)),
        Ok(Err(error)) => Revoked::Failed(error.to_string()),
        Err(_) => Revoked::Failed(format!(
            "no answer within {} seconds",
            REVOKE_LIMIT.as_secs()
        )),
    }
}
