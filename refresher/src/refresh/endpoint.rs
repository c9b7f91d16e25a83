//! The token endpoints as the engine sees them.

use std::collections::HashMap;

use super::engine::TokenEndpoint;
use crate::clock::{Clock, SystemClock};
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::oauth::answer::{Outcome, classify};
use crate::oauth::http::{CallError, Error, HttpClient};
use crate::oauth::refresh;
use crate::platform::{OAuth, Profile};

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
            let oauth = profile.oauth.clone()?;
            let http = HttpClient::for_platform(profile);
            Some(http.map(|http| (profile.id.clone(), (oauth, http))))
        };
        profiles
            .filter_map(endpoint)
            .collect::<Result<_, _>>()
            .map(TokenEndpoints)
    }
}

impl TokenEndpoint for TokenEndpoints {
    async fn refresh(&self, platform: &str, credential: &Credential) -> Outcome {
        let Some((oauth, http)) = self.0.get(platform) else {
            let reason = format!(
                "platform {platform} is off or has no [oauth]; acknowledge its terms in config.toml"
            );
            return Outcome::NotSent { reason };
        };
        let request = match credential {
            Credential::OAuth(tokens) => refresh::by_token(oauth, tokens),
            Credential::Client(client) => {
                refresh::by_client(oauth, &client.client_id, &client.client_secret)
            }
            Credential::ApiKey(_) => {
                let reason = "an API key is not refreshed".to_owned();
                return Outcome::NotSent { reason };
            }
        };
        match http.send(&request).await {
            Ok(answer) => classify(&answer, &oauth.permanent_errors, SystemClock.now()),
            Err(error @ CallError::NotSent { .. }) => Outcome::NotSent {
                reason: error.to_string(),
            },
            Err(error @ CallError::Unanswered { .. }) => Outcome::Unknown {
                reason: error.to_string(),
            },
        }
    }

    fn renewal(&self, platform: &str, kind: CredentialKind) -> Renewal {
        match kind {
            // A platform that is off now may be one whose tokens are spent by their use.
            CredentialKind::OAuth => self
                .0
                .get(platform)
                .map_or(Renewal::SingleUse, |(oauth, _)| oauth.renewal),
            CredentialKind::ClientCredentials => Renewal::Minted,
            CredentialKind::ApiKey => Renewal::None,
        }
    }
}
