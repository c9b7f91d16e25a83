//! The authorization code flow (RFC 6749 §4.1) with PKCE (RFC 7636): S256 always, a verifier and a state for one login
//! alone. The code comes back by a browser or pasted; each has its own reader.

use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    url::ParseError,
};
use reqwest::Url;

use super::redirect::{Awaited, Refused, Returned};
use super::{Prompt, Step, ended};
use crate::clock::UnixMillis;
use crate::oauth::answer::Answer;
use crate::oauth::exchange;
use crate::oauth::http::CallError;
use crate::platform::OAuth;
use crate::platform::flow::{Authorize, Explanation};

/// Random bytes of the verifier: 86 characters, as Codex CLI sends.
const VERIFIER_BYTES: u32 = 64;
/// Random bytes of the state.
const STATE_BYTES: u32 = 32;

/// Reads an answer in the form in which it comes back.
pub(super) type Read = fn(&str, &Awaited<'_>) -> Result<Returned, Refused>;

/// A login that waits for its code, or has it redeemed.
#[derive(Debug)]
pub(super) struct ByCode {
    oauth: OAuth,
    authorization: Authorization,
    state_suffix: Option<String>,
    explanations: Vec<Explanation>,
    read: Read,
    /// True once the state was taken; a second answer with it is nobody's.
    used: bool,
}

/// An authorization request. Its secrets are oauth2's types, which do not print.
#[derive(Debug)]
pub struct Authorization {
    /// The page that a person opens.
    pub url: Url,
    /// The address that the browser comes back to.
    pub redirect_uri: RedirectUrl,
    /// The state that it must bring back.
    pub state: CsrfToken,
    /// The proof that redeems the code.
    pub verifier: PkceCodeVerifier,
}

impl ByCode {
    pub(super) fn start(
        oauth: &OAuth,
        authorize: &Authorize,
        explanations: &[Explanation],
        redirect_uri: String,
        read: Read,
    ) -> Result<ByCode, ParseError> {
        Ok(ByCode {
            oauth: oauth.clone(),
            authorization: Authorization::start(oauth, authorize, redirect_uri)?,
            state_suffix: authorize.state_suffix.clone(),
            explanations: explanations.to_vec(),
            read,
            used: false,
        })
    }

    pub(super) fn prompt(&self) -> Prompt {
        Prompt {
            url: self.authorization.url.clone(),
            code: None,
            lifetime: None,
        }
    }

    /// Takes the state once, whatever comes of it.
    pub(super) fn input(&mut self, text: &str) -> Result<Step, Refused> {
        let Authorization {
            redirect_uri,
            state,
            verifier,
            ..
        } = &self.authorization;
        let awaited = Awaited {
            state,
            suffix: self.state_suffix.as_deref(),
            explanations: &self.explanations,
        };
        let returned = (self.read)(text, &awaited)?;
        if std::mem::replace(&mut self.used, true) {
            return Err(Refused::Used);
        }
        Ok(match returned {
            Returned::Code(code) => Step::Send(exchange::request(
                &self.oauth,
                &code,
                redirect_uri,
                verifier,
                Some(state),
            )),
            Returned::Denied(denial) => Step::Failed(denial.into()),
        })
    }

    pub(super) fn answered(&self, answer: Result<Answer, CallError>, now: UnixMillis) -> Step {
        ended(exchange::read(&self.oauth, answer, now))
    }
}

impl Authorization {
    /// Starts a login whose browser will come back to `redirect_uri`.
    ///
    /// # Errors
    /// If that is no URL.
    pub fn start(
        oauth: &OAuth,
        authorize: &Authorize,
        redirect_uri: String,
    ) -> Result<Authorization, ParseError> {
        let redirect_uri = RedirectUrl::new(redirect_uri)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256_len(VERIFIER_BYTES);
        let client = BasicClient::new(ClientId::new(oauth.client_id.clone()))
            .set_auth_uri(AuthUrl::from_url(authorize.url.clone()))
            .set_redirect_uri(redirect_uri.clone());
        let mut request = client
            .authorize_url(|| CsrfToken::new_random_len(STATE_BYTES))
            .set_pkce_challenge(challenge)
            .add_scopes(oauth.scopes.iter().cloned().map(Scope::new));
        for (name, value) in &authorize.params {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::platform::example;

    fn start(port: u16) -> Authorization {
        let profile = example();
        let code = profile.login.code().unwrap();
        let redirect_uri = code.redirect_uri(port);
        Authorization::start(
            profile.oauth.as_ref().unwrap(),
            &code.authorize,
            redirect_uri,
        )
        .unwrap()
    }

    #[test]
    fn the_request_is_the_profiles_and_pkce_is_s256() {
        let authorization = start(1457);
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
        let [one, other] = [(); 2].map(|()| start(1455));
        assert_ne!(one.state.secret(), other.state.secret());
        assert_ne!(one.verifier.secret(), other.verifier.secret());
        assert!(!format!("{one:?}").contains(one.verifier.secret()));
    }
}
