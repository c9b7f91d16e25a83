//! A client of the account's own (RFC 6749 §4.4): its id and its secret are the login, and buy the first token at once.

use secrecy::SecretString;

use super::redirect::Refused;
use super::{IDLE, Step, ended};
use crate::clock::UnixMillis;
use crate::credential::ClientCredentials;
use crate::oauth::answer::Answer;
use crate::oauth::exchange;
use crate::oauth::http::CallError;
use crate::oauth::refresh;
use crate::platform::OAuth;

/// A login that waits for its client's secret, and then has its first token bought.
#[derive(Debug)]
pub(super) struct ByClient {
    oauth: OAuth,
    client_id: String,
    client_secret: Option<SecretString>,
}

impl ByClient {
    pub(super) fn start(oauth: &OAuth, client_id: &str) -> ByClient {
        ByClient {
            oauth: oauth.clone(),
            client_id: client_id.to_owned(),
            client_secret: None,
        }
    }

    /// Takes the secret, once.
    pub(super) fn input(&mut self, secret: &str) -> Result<Step, Refused> {
        if self.client_secret.is_some() {
            return Err(Refused::Used);
        }
        let secret = self.client_secret.insert(secret.into());
        let request = refresh::by_client(&self.oauth, &self.client_id, secret);
        Ok(Step::Send(request))
    }

    pub(super) fn answered(&self, answer: Result<Answer, CallError>, now: UnixMillis) -> Step {
        // Nothing was sent without it.
        let Some(secret) = &self.client_secret else {
            return Step::Wait(IDLE);
        };
        let client = |access| ClientCredentials {
            token_url: None,
            refresh: None,
            client_id: self.client_id.clone(),
            client_secret: secret.clone(),
            access,
        };
        ended(exchange::read_client(&self.oauth, client, answer, now))
    }
}
