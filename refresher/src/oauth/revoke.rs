//! Ends a login at the platform (RFC 7009), when its account is deleted. Best effort: the account goes either way.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::http::HttpClient;
use crate::credential::OAuthTokens;
use crate::platform::{OAuth, RefreshEncoding};

/// How long a deletion waits for the platform.
const REVOKE_LIMIT: Duration = Duration::from_secs(10);

/// What came of it.
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
pub async fn revoke(oauth: &OAuth, tokens: &OAuthTokens) -> Revoked {
    let Some(url) = &oauth.revoke_url else {
        return Revoked::NotOffered;
    };
    let http = match HttpClient::for_platform(oauth) {
        Ok(http) => http,
        Err(error) => return Revoked::Failed(error.to_string()),
    };
    let fields = std::collections::BTreeMap::from([
        ("client_id", oauth.client_id.as_str()),
        ("token", tokens.refresh.expose_secret()),
        ("token_type_hint", "refresh_token"),
    ]);
    let call = async {
        match oauth.refresh_encoding {
            RefreshEncoding::Json => http.post_json(url, &fields).await,
            RefreshEncoding::Form => http.post_form(url, &fields).await,
        }
    };
    match timeout(REVOKE_LIMIT, call).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => Revoked::Done,
        Ok(Ok(answer)) => Revoked::Failed(format!("HTTP {}", answer.status)),
        Ok(Err(error)) => Revoked::Failed(error.to_string()),
        Err(_) => Revoked::Failed(format!(
            "no answer within {} seconds",
            REVOKE_LIMIT.as_secs()
        )),
    }
}
