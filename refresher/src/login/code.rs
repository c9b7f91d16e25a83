//! The authorization request (RFC 6749 §4.1.1) with PKCE (RFC 7636): S256 always, a verifier and a state for one login
//! alone.

use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    url::ParseError,
};
use reqwest::Url;

use crate::platform::OAuth;

/// Random bytes of the verifier: 86 characters, as Codex CLI sends.
const VERIFIER_BYTES: u32 = 64;
/// Random bytes of the state.
const STATE_BYTES: u32 = 32;

/// One login under way. Its secrets are oauth2's types, which do not print.
#[derive(Debug)]
pub struct Authorization {
    /// What a person opens.
    pub url: Url,
    /// Where the browser comes back to.
    pub redirect_uri: RedirectUrl,
    /// What it must bring back.
    pub state: CsrfToken,
    /// What the code is redeemed with.
    pub verifier: PkceCodeVerifier,
}

impl Authorization {
    /// Starts a login whose browser will come back to `port`.
    ///
    /// # Errors
    /// If the profile's redirect host and path make no URL.
    pub fn start(oauth: &OAuth, port: u16) -> Result<Authorization, ParseError> {
        let redirect = format!(
            "http://{}:{port}{}",
            oauth.redirect_host, oauth.redirect_path
        );
        let redirect_uri = RedirectUrl::new(redirect)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256_len(VERIFIER_BYTES);
        let client = BasicClient::new(ClientId::new(oauth.client_id.clone()))
            .set_auth_uri(AuthUrl::from_url(oauth.authorize_url.clone()))
            .set_redirect_uri(redirect_uri.clone());
        let mut request = client
            .authorize_url(|| CsrfToken::new_random_len(STATE_BYTES))
            .set_pkce_challenge(challenge)
            .add_scopes(oauth.scopes.iter().cloned().map(Scope::new));
        for (name, value) in &oauth.authorize_params {
            request = request.add_extra_param(name, value);
        }
        let (url, state) = request.url();
        Ok(Authorization {
            url,
            redirect_uri,
            state,
            verifier,
        })
    }
}

/// Settings of an authorization server for tests.
#[cfg(test)]
pub fn example() -> OAuth {
    let catalog = crate::platform::Catalog::load(None, ["codex".to_owned()].into()).unwrap();
    catalog.usable("codex").unwrap().oauth.clone().unwrap()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_request_is_the_profiles_and_pkce_is_s256() {
        let authorization = Authorization::start(&example(), 1457).unwrap();
        let query: BTreeMap<String, String> =
            authorization.url.query_pairs().into_owned().collect();
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&authorization.verifier);
        let expected = [
            ("client_id", "app_EMoamEEZ73f0CkXaXp7hrann"),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("codex_cli_simplified_flow", "true"),
            ("id_token_add_organizations", "true"),
            ("redirect_uri", "http://127.0.0.1:1457/auth/callback"),
            ("response_type", "code"),
            ("scope", "openid profile email offline_access"),
            ("state", authorization.state.secret()),
        ];
        let expected: BTreeMap<String, String> = expected
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(query, expected);
        assert!(
            authorization
                .url
                .as_str()
                .starts_with("https://auth.openai.com/oauth/authorize?")
        );
        assert_eq!(authorization.verifier.secret().len(), 86);
    }

    #[test]
    fn no_two_logins_share_a_secret_and_none_is_printed() {
        let [one, other] = [(); 2].map(|()| Authorization::start(&example(), 1455).unwrap());
        assert_ne!(one.state.secret(), other.state.secret());
        assert_ne!(one.verifier.secret(), other.verifier.secret());
        assert!(!format!("{one:?}").contains(one.verifier.secret()));
    }
}
