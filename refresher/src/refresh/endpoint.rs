//! The token endpoints as the engine sees them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use secrecy::SecretString;

use crate::base_url::web_url;
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::egress::Proxy;
use crate::oauth::answer::{Grant, Outcome, classify};
use crate::oauth::http::{CallError, Error, HttpClient};
use crate::oauth::refresh;
use crate::platform::{OAuth, Profile, Signing};

/// The place where credentials are renewed.
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Makes one refresh call for an account of `platform` and says what became of it. Never repeats it. It leaves by
    /// `proxy`, if the account has one of its own.
    fn refresh(
        &self,
        platform: &str,
        credential: &Credential,
        proxy: Option<&Proxy>,
    ) -> impl Future<Output = Outcome> + Send;

    /// Finds how the credentials of that kind are renewed at `platform`.
    fn renewal(&self, platform: &str, kind: CredentialKind) -> Renewal;
}

/// The token endpoints of every platform that may be used.
#[derive(Debug)]
pub struct TokenEndpoints(HashMap<String, Endpoint>);

/// The source of a platform's tokens.
#[derive(Debug)]
enum Endpoint {
    /// From its token endpoint.
    Remote(Box<Remote>),
    /// From the account's key, here.
    Local(Signing),
    /// From nowhere: its accounts are keys, but for those that bring a token endpoint of their own. All leave by this
    /// proxy, if there is one.
    Keys(Option<Proxy>),
}

/// A token endpoint, and how it is reached.
#[derive(Debug)]
struct Remote {
    profile: Profile,
    oauth: OAuth,
    http: HttpClient,
}

impl Remote {
    /// The client whose calls leave by `proxy`, if there is one.
    fn http(&self, proxy: Option<&Proxy>) -> Result<Cow<'_, HttpClient>, Error> {
        Ok(match proxy {
            None => Cow::Borrowed(&self.http),
            Some(_) => Cow::Owned(HttpClient::for_platform(&self.profile.by(proxy))?),
        })
    }
}

impl TokenEndpoints {
    /// The endpoints of `profiles`.
    ///
    /// # Errors
    /// If a profile's endpoints or certificates cannot be used.
    pub fn new<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Result<TokenEndpoints, Error> {
        let endpoint = |profile: &'a Profile| {
            let endpoint = match (&profile.signing, &profile.oauth) {
                (Some(signing), _) => Ok(Endpoint::Local(signing.clone())),
                (None, Some(oauth)) => HttpClient::for_platform(profile).map(|http| {
                    let (profile, oauth) = (profile.clone(), oauth.clone());
                    Endpoint::Remote(Box::new(Remote {
                        profile,
                        oauth,
                        http,
                    }))
                }),
                (None, None) => Ok(Endpoint::Keys(profile.upstream.proxy.clone())),
            };
            endpoint.map(|endpoint| (profile.id.clone(), endpoint))
        };
        profiles
            .map(endpoint)
            .collect::<Result<_, _>>()
            .map(TokenEndpoints)
    }
}

impl TokenEndpoint for TokenEndpoints {
    async fn refresh(
        &self,
        platform: &str,
        credential: &Credential,
        proxy: Option<&Proxy>,
    ) -> Outcome {
        let not_sent = |reason: String| Outcome::NotSent { reason };
        let own = match self.own_endpoint(platform, credential, proxy) {
            Ok(own) => own,
            Err(reason) => return not_sent(reason),
        };
        let (oauth, http) = match (self.0.get(platform), credential) {
            (Some(Endpoint::Local(signing)), Credential::Signed(signed)) => {
                return minted(signing, &signed.key, SystemClock.now());
            }
            (Some(Endpoint::Remote(remote)), _) => match own {
                Some((oauth, http)) => (Cow::Owned(oauth), Ok(Cow::Owned(http))),
                None => (Cow::Borrowed(&remote.oauth), remote.http(proxy)),
            },
            (Some(Endpoint::Keys(_)), _) => match own {
                Some((oauth, http)) => (Cow::Owned(oauth), Ok(Cow::Owned(http))),
                None => {
                    return not_sent(format!("platform {platform} has no [oauth] in its profile"));
                }
            },
            (Some(Endpoint::Local(_)), _) => {
                return not_sent(format!(
                    "platform {platform} has keys that sign, and this is none"
                ));
            }
            (None, _) => {
                return not_sent(format!(
                    "platform {platform} is off: its notice is not acknowledged"
                ));
            }
        };
        let oauth = &*oauth;
        let http = match http {
            Ok(http) => http,
            Err(error) => return not_sent(error.to_string()),
        };
        let request = match credential {
            Credential::OAuth(tokens) => refresh::by_token(oauth, tokens),
            Credential::Client(client) => match &client.refresh {
                Some(token) => refresh::by_token_of(oauth, client, token),
                None => refresh::by_client(oauth, &client.client_id, &client.client_secret),
            },
            Credential::Signed(_) => {
                return not_sent(format!("platform {platform} has no [signing] any more"));
            }
            Credential::ApiKey(_) | Credential::Session(_) => {
                return not_sent("an API key and a session are not refreshed".to_owned());
            }
        };
        match http.send(&request).await {
            Ok(answer) => classify(&answer, &oauth.answer, &oauth.ends, SystemClock.now()),
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
                Some(Endpoint::Remote(remote)) => remote.oauth.renewal,
                Some(Endpoint::Local(_) | Endpoint::Keys(_)) | None => Renewal::SingleUse,
            },
            CredentialKind::ClientCredentials | CredentialKind::SignedKey => Renewal::Minted,
            CredentialKind::Session => Renewal::Person,
            CredentialKind::ApiKey => Renewal::None,
        }
    }
}

impl TokenEndpoints {
    /// The token endpoint of an account's own, if it has one: spoken to as the platform's is, and trusted as that is.
    fn own_endpoint(
        &self,
        platform: &str,
        credential: &Credential,
        proxy: Option<&Proxy>,
    ) -> Result<Option<(OAuth, HttpClient)>, String> {
        let Credential::Client(client) = credential else {
            return Ok(None);
        };
        let Some(url) = &client.token_url else {
            return Ok(None);
        };
        let url = web_url(url).map_err(|error| error.to_string())?;
        let (oauth, shared) = match self.0.get(platform) {
            Some(Endpoint::Remote(remote)) => {
                let oauth = OAuth {
                    token_url: url,
                    ..remote.oauth.clone()
                };
                (oauth, remote.profile.upstream.proxy.as_ref())
            }
            Some(Endpoint::Keys(shared)) => (OAuth::at(url), shared.as_ref()),
            Some(Endpoint::Local(_)) | None => (OAuth::at(url), None),
        };
        let proxy = proxy.or(shared);
        let http = HttpClient::new(&[&oauth.token_url], oauth.ca_file.as_deref(), proxy);
        let http = http.map_err(|error| error.to_string())?;
        Ok(Some((oauth, http)))
    }
}

/// A token that the account's key signs at `now`. The key was checked when it was added.
fn minted(signing: &Signing, key: &SecretString, now: UnixMillis) -> Outcome {
    match signing.mint(key, now) {
        Ok((signed, expires_at)) => Outcome::Fresh(Grant {
            access: Some((signed.token, Some(expires_at))),
            refresh: None,
            id: None,
            login_ends_at: None,
            is_too_long: false,
            vars: BTreeMap::new(),
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
        let Outcome::Fresh(grant) = endpoints.refresh("own", &old, None).await else {
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
        let outcome = endpoints.refresh("own", &old, None).await;
        assert!(matches!(outcome, Outcome::NotSent { .. }), "{outcome:?}");
    }
}
