//! The device authorization grant (RFC 8628): a code for a person to type in, and a client that asks until they have.
//! Codex CLI's own form of it ends with an authorization code, for which the server makes the PKCE verifier.

use serde::{Deserialize, Serialize};

use super::{CODE_LIFETIME_SECONDS, Code, Maker, OAuth, TokenError, TokenSet, token::challenge};
use crate::clock::UnixMillis;

/// Seconds between two polls; a client that comes sooner is told to slow down.
pub const INTERVAL_SECONDS: u64 = 1;

/// Seconds for which a code may be typed in: a person has to find the page first.
pub const DEVICE_CODE_LIFETIME_SECONDS: u64 = 15 * 60;

/// Seconds that `slow_down` adds to it (RFC 8628 §3.5).
const SLOW_DOWN_SECONDS: u64 = 5;

/// One login by device code.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DeviceLogin {
    device_code: String,
    user_code: String,
    expires_at: UnixMillis,
    interval_seconds: u64,
    polled_at: Option<UnixMillis>,
    decision: Decision,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Decision {
    Pending,
    By(String),
    Denied,
}

/// The codes that a client is given to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCode {
    /// Opaque.
    pub device_code: String,
    /// For the person.
    pub user_code: String,
}

/// The end of a login in Codex CLI's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeGrant {
    /// For the token endpoint.
    pub code: String,
    /// What proves it there.
    pub verifier: String,
    /// Its challenge.
    pub challenge: String,
}

/// The reason for which a poll brings no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// Nobody has typed the code in yet.
    Pending,
    /// The client asks too often.
    SlowDown,
    /// The person said no.
    Denied,
    /// The code is past its time.
    Expired,
    /// The code is unknown or used up, or its user is gone.
    Token(TokenError),
}

impl OAuth {
    /// Starts a login by device code.
    pub fn start_device(&mut self, now: UnixMillis) -> DeviceCode {
        let (device_code, digits) = (self.random_token("dc_"), self.random_id());
        let user_code = format!("{}-{}", &digits[..4], &digits[4..8]).to_uppercase();
        self.devices
            .retain(|login| now < login.expires_at.plus_seconds(DEVICE_CODE_LIFETIME_SECONDS));
        self.devices.push(DeviceLogin {
            device_code: device_code.clone(),
            user_code: user_code.clone(),
            expires_at: now.plus_seconds(DEVICE_CODE_LIFETIME_SECONDS),
            interval_seconds: INTERVAL_SECONDS,
            polled_at: None,
            decision: Decision::Pending,
        });
        DeviceCode {
            device_code,
            user_code,
        }
    }

    /// Those who can type a code in; none where nobody waits with it.
    pub fn device_users(&self, user_code: &str) -> Option<Vec<String>> {
        let mut waiting = self.devices.iter();
        waiting.find(|login| login.user_code == user_code)?;
        Some(self.users.keys().cloned().collect())
    }

    /// A person types a code in: as that user, or to refuse. False if the code or the user is unknown.
    pub fn decide_device(&mut self, user_code: &str, email: Option<&str>) -> bool {
        if email.is_some_and(|email| !self.users.contains_key(email)) {
            return false;
        }
        let login = self
            .devices
            .iter_mut()
            .find(|login| login.user_code == user_code);
        login.is_some_and(|login| {
            login.decision = email.map_or(Decision::Denied, |email| Decision::By(email.into()));
            true
        })
    }

    /// A client polls.
    pub fn exchange_device(
        &mut self,
        device_code: &str,
        now: UnixMillis,
    ) -> Result<TokenSet, DeviceError> {
        let index = self
            .devices
            .iter()
            .position(|login| login.device_code == device_code)
            .ok_or(DeviceError::Token(TokenError::InvalidGrant))?;
        let login = &mut self.devices[index];
        if login.expires_at <= now {
            return Err(DeviceError::Expired);
        }
        let last = login.polled_at.replace(now);
        if last.is_some_and(|last| now < last.plus_seconds(login.interval_seconds)) {
            login.interval_seconds += SLOW_DOWN_SECONDS;
            return Err(DeviceError::SlowDown);
        }
        match login.decision.clone() {
            Decision::Pending => Err(DeviceError::Pending),
            Decision::Denied => {
                self.devices.remove(index);
                Err(DeviceError::Denied)
            }
            Decision::By(email) => {
                self.devices.remove(index);
                self.log_in(&email, now).map_err(DeviceError::Token)
            }
        }
    }

    /// A client of Codex CLI's form polls. None: nobody has typed the code in, or nobody waits with it.
    pub fn grant_device(
        &mut self,
        device_code: &str,
        user_code: &str,
        redirect_uri: String,
        now: UnixMillis,
    ) -> Option<CodeGrant> {
        let index = self.devices.iter().position(|login| {
            login.device_code == device_code
                && login.user_code == user_code
                && now < login.expires_at
        })?;
        let Decision::By(email) = self.devices[index].decision.clone() else {
            return None;
        };
        self.devices.remove(index);
        let (code, verifier) = (self.random_token("ac_"), self.random_token(""));
        let challenge = challenge(&verifier)?;
        self.codes.insert(
            code.clone(),
            Code {
                email,
                redirect_uri,
                challenge: challenge.clone(),
                expires_at: now.plus_seconds(CODE_LIFETIME_SECONDS),
                exchanged: None,
                state: String::new(),
                maker: Maker::OpenAi,
            },
        );
        Some(CodeGrant {
            code,
            verifier,
            challenge,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::User;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);
    const ALICE: &str = "alice@example.test";

    fn server() -> OAuth {
        let mut oauth = OAuth::new(1);
        oauth.upsert_user(User {
            email: ALICE.into(),
            account_id: "acct-alice".into(),
            plan: "plus".into(),
            access_lifetime_seconds: None,
        });
        oauth
    }

    fn after(seconds: u64) -> UnixMillis {
        NOW.plus_seconds(seconds)
    }

    #[test]
    fn a_code_brings_tokens_once_a_person_typed_it_in() {
        let mut oauth = server();
        let code = oauth.start_device(NOW);
        let poll =
            |oauth: &mut OAuth, seconds| oauth.exchange_device(&code.device_code, after(seconds));
        assert_eq!(poll(&mut oauth, 1), Err(DeviceError::Pending));
        assert!(!oauth.decide_device("WRONG", Some(ALICE)));
        assert!(!oauth.decide_device(&code.user_code, Some("nobody@example.test")));
        assert!(oauth.decide_device(&code.user_code, Some(ALICE)));
        assert!(poll(&mut oauth, 2).is_ok());
        let again = Err(DeviceError::Token(TokenError::InvalidGrant));
        assert_eq!(poll(&mut oauth, 3), again);
    }

    #[test]
    fn who_asks_too_often_must_ask_less_often() {
        let mut oauth = server();
        let code = oauth.start_device(NOW).device_code;
        for (seconds, expected) in [
            (1, DeviceError::Pending),
            (1, DeviceError::SlowDown),
            (6, DeviceError::SlowDown),
            (17, DeviceError::Pending),
        ] {
            let polled = oauth.exchange_device(&code, after(seconds));
            assert_eq!(polled, Err(expected), "after {seconds} s");
        }
    }

    #[test]
    fn a_refusal_and_a_late_poll_are_told() {
        let mut oauth = server();
        let code = oauth.start_device(NOW);
        assert!(oauth.decide_device(&code.user_code, None));
        let polled = oauth.exchange_device(&code.device_code, NOW);
        assert_eq!(polled, Err(DeviceError::Denied));
        let late = oauth.start_device(NOW).device_code;
        let polled = oauth.exchange_device(&late, after(DEVICE_CODE_LIFETIME_SECONDS));
        assert_eq!(polled, Err(DeviceError::Expired));
    }

    #[test]
    fn codexs_form_ends_with_a_code_that_the_token_endpoint_takes_once() {
        const BACK: &str = "https://sim.test/deviceauth/callback";
        let mut oauth = server();
        let DeviceCode {
            device_code,
            user_code,
        } = oauth.start_device(NOW);
        let poll = |oauth: &mut OAuth, user_code: &str| {
            oauth.grant_device(&device_code, user_code, BACK.to_owned(), NOW)
        };
        assert_eq!(poll(&mut oauth, &user_code), None);
        assert!(oauth.decide_device(&user_code, Some(ALICE)));
        assert_eq!(poll(&mut oauth, "WRONG"), None);
        let grant = poll(&mut oauth, &user_code).expect("a code");
        assert_eq!(poll(&mut oauth, &user_code), None);
        assert_eq!(challenge(&grant.verifier), Some(grant.challenge));
        let CodeGrant { code, verifier, .. } = grant;
        let mut exchange = |back| oauth.exchange_code(&code, back, &verifier, NOW);
        assert_eq!(
            exchange("https://else.test/"),
            Err(TokenError::InvalidGrant)
        );
        assert!(exchange(BACK).is_ok());
        assert_eq!(exchange(BACK), Err(TokenError::InvalidGrant));
    }
}
