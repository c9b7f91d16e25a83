//! The token endpoints as the engine sees them.

use std::collections::HashMap;

use secrecy::SecretString;

use super::engine::TokenEndpoint;
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::oauth::answer::{Grant, Outcome, classify};
use crate::oauth::http::{CallError, Error, HttpClient};
use crate::oauth::refresh;
use crate::platform::{OAuth, Profile, Signing};

/// The token endpoints of every platform that may be used.
#[derive(Debug)]
pub struct TokenEndpoints(HashMap<String, Endpoint>);

/// Where the tokens of a platform come from.
#[derive(Debug)]
enum Endpoint {
    /// From its token endpoint.
    Remote(Box<OAuth>, HttpClient),
    /// From the account's key, here.
    Local(Signing),
}

impl TokenEndpoints {
    /// The endpoints of `profiles`; those without `[oauth]` or `[signing]` have none.
    ///
    /// # Errors
    /// If a profile's endpoints or certificates cannot be used.
    pub fn new<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Result<TokenEndpoints, Error> {
        let endpoint = |profile: &'a Profile| {
            let endpoint = match (&profile.signing, &profile.oauth) {
                (Some(signing), _) => Ok(Endpoint::Local(signing.clone())),
                (None, Some(oauth)) => HttpClient::for_platform(profile)
                    .map(|http| Endpoint::Remote(Box::new(oauth.clone()), http)),
                (None, None) => return None,
            };
            Some(endpoint.map(|endpoint| (profile.id.clone(), endpoint)))
        };
        profiles
            .filter_map(endpoint)
            .collect::<Result<_, _>>()
            .map(TokenEndpoints)
    }
}

impl TokenEndpoint for TokenEndpoints {
    async fn refresh(&self, platform: &str, credential: &Credential) -> Outcome {
        let not_sent = |reason: String| Outcome::NotSent { reason };
        let (oauth, http) = match (self.0.get(platform), credential) {
            (Some(Endpoint::Local(signing)), Credential::Signed(signed)) => {
                return minted(signing, &signed.key, SystemClock.now());
            }
            (Some(Endpoint::Remote(oauth, http)), _) => (oauth, http),
            (Some(Endpoint::Local(_)), _) => {
                return not_sent(format!(
                    "platform {platform} has keys that sign, and this is none"
                ));
            }
            (None, _) => {
                return not_sent(format!(
                    "platform {platform} is off or has no [oauth]; acknowledge its terms in config.toml"
                ));
            }
        };
        let request = match credential {
            Credential::OAuth(tokens) => refresh::by_token(oauth, tokens),
            Credential::Client(client) => {
                refresh::by_client(oauth, &client.client_id, &client.client_secret)
            }
            Credential::Signed(_) => {
                return not_sent(format!("platform {platform} has no [signing] any more"));
            }
            Credential::ApiKey(_) => return not_sent("an API key is not refreshed".to_owned()),
        };
        match http.send(&request).await {
            Ok(answer) => {
                let (members, permanent) = (&oauth.answer, &oauth.permanent_errors);
                classify(&answer, members, permanent, SystemClock.now())
            }
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
            CredentialKind::OAuth => match self.0.get(platform) {
                Some(Endpoint::Remote(oauth, _)) => oauth.renewal,
                Some(Endpoint::Local(_)) | None => Renewal::SingleUse,
            },
            CredentialKind::ClientCredentials | CredentialKind::SignedKey => Renewal::Minted,
            CredentialKind::ApiKey => Renewal::None,
        }
    }
}

/// A token that the account's key signs at `now`. The key was checked when it was added.
fn minted(signing: &Signing, key: &SecretString, now: UnixMillis) -> Outcome {
    match signing.mint(key, now) {
        Ok((signed, expires_at)) => Outcome::Fresh(Grant {
            access: Some((signed.token, Some(expires_at))),
            refresh: None,
            id: None,
            is_too_long: false,
        }),
        Err(malformed) => Outcome::Permanent {
            reason: malformed.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::SignedKey;
    use secrecy::ExposeSecret;

    fn profile(more: &str) -> Profile {
        let text = format!(
            "id = 'own'\nname = 'Own'\nowner = 'us'\ncredentials = ['api_key']\n{more}\n\
             endpoints.chat.generate.path = '/x'\nupstream.base_url = 'http://127.0.0.1:1'\n\
             [headers]\nset = {{ authorization = 'Bearer {{credential}}' }}\nallow = []"
        );
        Profile::from_table(text.parse().unwrap()).unwrap()
    }

    /// Nothing is asked: the platform's address leads nowhere.
    #[tokio::test]
    async fn a_token_that_a_key_signs_is_made_here_and_spends_nothing() {
        let signing = "auth = 'signed'\nsigning = { id_claim = 'id', expires_claim = 'exp', lifetime_seconds = 600 }";
        let endpoints = TokenEndpoints::new([&profile(signing)].into_iter()).unwrap();
        let renewal = endpoints.renewal("own", CredentialKind::SignedKey);
        assert_eq!(renewal, Renewal::Minted);
        let old = Credential::Signed(SignedKey {
            key: "id.secret".into(),
            token: "old".into(),
        });
        let Outcome::Fresh(grant) = endpoints.refresh("own", &old).await else {
            panic!("no token");
        };
        let (credential, end) = grant.over(&old, None);
        let Credential::Signed(signed) = credential else {
            panic!("{credential:?}");
        };
        assert_eq!(signed.key.expose_secret(), "id.secret");
        assert_eq!(signed.token.expose_secret().split('.').count(), 3);
        assert!(end.unwrap() > SystemClock.now());

        // A profile that changed its mind leaves the account as it is.
        let endpoints = TokenEndpoints::new([&profile("")].into_iter()).unwrap();
        let outcome = endpoints.refresh("own", &old).await;
        assert!(matches!(outcome, Outcome::NotSent { .. }), "{outcome:?}");
    }
}
