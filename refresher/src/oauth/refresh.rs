//! The refresh request (RFC 6749 §6), as JSON or as a form, whichever the profile says: the engine's token endpoint.

use std::collections::{BTreeMap, HashMap};

use secrecy::ExposeSecret;

use super::http::{CallError, Error, HttpClient};
use crate::clock::{Clock, SystemClock};
use crate::credential::OAuthTokens;
use crate::oauth::answer::{Outcome, classify};
use crate::platform::{OAuth, Profile, RefreshEncoding};
use crate::refresh::engine::TokenEndpoint;

/// The token endpoints of every platform that may be used.
#[derive(Debug)]
pub struct TokenEndpoints(HashMap<String, (OAuth, HttpClient)>);

impl TokenEndpoints {
    /// The endpoints of `profiles`; those without `[oauth]` have none.
    ///
    /// # Errors
    /// If a profile's endpoints or certificates cannot be used.
    pub fn new<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Result<TokenEndpoints, Error> {
        let endpoint = |profile: &'a Profile| {
            let oauth = profile.oauth.as_ref()?;
            Some(
                HttpClient::for_platform(oauth)
                    .map(|http| (profile.id.clone(), (oauth.clone(), http))),
            )
        };
        profiles
            .filter_map(endpoint)
            .collect::<Result<_, _>>()
            .map(TokenEndpoints)
    }
}

impl TokenEndpoint for TokenEndpoints {
    async fn refresh(&self, platform: &str, tokens: &OAuthTokens) -> Outcome {
        let Some((oauth, http)) = self.0.get(platform) else {
            let reason = format!(
                "platform {platform} is off or has no [oauth]; acknowledge its terms in config.toml"
            );
            return Outcome::NotSent { reason };
        };
        let mut fields: BTreeMap<&str, &str> = oauth
            .refresh_params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        fields.insert("client_id", &oauth.client_id);
        fields.insert("grant_type", "refresh_token");
        fields.insert("refresh_token", tokens.refresh.expose_secret());
        let answer = match oauth.refresh_encoding {
            RefreshEncoding::Json => http.post_json(&oauth.token_url, &fields).await,
            RefreshEncoding::Form => http.post_form(&oauth.token_url, &fields).await,
        };
        match answer {
            Ok(answer) => classify(&answer, &oauth.permanent_errors, SystemClock.now()),
            Err(error @ CallError::NotSent { .. }) => Outcome::NotSent {
                reason: error.to_string(),
            },
            Err(error @ CallError::Unanswered { .. }) => Outcome::Unknown {
                reason: error.to_string(),
            },
        }
    }
}
