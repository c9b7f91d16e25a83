//! A client of the account's own (RFC 6749 §4.4): its id and its secret are the login, and buy the first token at once.

use secrecy::SecretString;

use super::{Step, ended};
use crate::clock::UnixMillis;
use crate::credential::ClientCredentials;
use crate::oauth::answer::Answer;
use crate::oauth::exchange;
use crate::oauth::http::{CallError, Request};
use crate::oauth::refresh;
use crate::platform::OAuth;

/// A login that has its first token bought.
#[derive(Debug)]
pub(super) struct ByClient {
    oauth: OAuth,
    client_id: String,
    client_secret: SecretString,
}

impl ByClient {
    pub(super) fn start(
        oauth: &OAuth,
        client_id: &str,
        client_secret: SecretString,
    ) -> (ByClient, Request) {
        let request = refresh::by_client(oauth, client_id, &client_secret);
        let login = ByClient {
            oauth: oauth.clone(),
            client_id: client_id.to_owned(),
            client_secret,
        };
        (login, request)
    }

    pub(super) fn answered(&self, answer: Result<Answer, CallError>, now: UnixMillis) -> Step {
        let client = |access| ClientCredentials {
            token_url: None,
            refresh: None,
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.clone(),
            access,
        };
        ended(exchange::read_client(&self.oauth, client, answer, now))
    }
}
