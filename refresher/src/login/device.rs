//! The device authorization grant (RFC 8628): a person types a code in at the platform, and the login asks the token
//! endpoint until they have. The pauses are those of §3.5: the server's interval, five seconds more each time that it
//! says `slow_down`, twice as long after a call without an answer.
//!
//! [`by_code`] is what differs where a server does it as OpenAI does for Codex CLI.

mod by_code;

use std::time::Duration;

use oauth2::url::ParseError;
use reqwest::Url;
use secrecy::SecretString;
use serde_json::{Map, Value};

use self::by_code::ByCode;
use super::redirect::{Denial, presentable};
use super::{Error, Prompt, Step, ended};
use crate::base_url::is_web;
use crate::clock::UnixMillis;
use crate::oauth::answer::{self, Answer};
use crate::oauth::claims;
use crate::oauth::exchange;
use crate::oauth::http::{CallError, Request};
use crate::platform::flow::{self, Explanation};
use crate::platform::{Encoding, OAuth};

/// The pause between two polls where the server names none (RFC 8628 §3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// The addition of `slow_down` to it (RFC 8628 §3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest pause: a person who is done must not wait much longer.
const INTERVAL_LIMIT: Duration = Duration::from_secs(60);
/// The longest time that a code is waited for, whatever the server says.
const LIFETIME_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Characters of a code that a person types.
const USER_CODE_LIMIT: usize = 64;

/// A login by device code.
#[derive(Debug)]
pub(super) struct ByDevice {
    oauth: OAuth,
    explanations: Vec<Explanation>,
    /// The server's own form, where it differs from RFC 8628.
    by_code: Option<ByCode>,
    /// The code that the server knows the login by, once it gave it.
    device_code: Option<SecretString>,
    interval: Duration,
    /// False until the first pause, which comes before the first question.
    asks: bool,
    /// An authorization code is on its way to the token endpoint.
    redeems: bool,
}

/// The answer of the device authorization endpoint.
struct Given {
    device_code: SecretString,
    interval: Duration,
    prompt: Prompt,
}

impl ByDevice {
    pub(super) fn start(
        oauth: &OAuth,
        explanations: &[Explanation],
        flow: &flow::Device,
    ) -> Result<(ByDevice, Request), ParseError> {
        let request = |encoding| {
            let request = Request::new(&flow.authorize_url, encoding);
            request.field("client_id", oauth.client_id.as_str())
        };
        let request = match flow.by_code {
            Some(_) => request(Encoding::Json),
            None => request(Encoding::Form).field("scope", oauth.scopes.join(" ")),
        };
        let login = ByDevice {
            oauth: oauth.clone(),
            explanations: explanations.to_vec(),
            by_code: flow.by_code.as_ref().map(ByCode::new).transpose()?,
            device_code: None,
            interval: INTERVAL,
            asks: false,
            redeems: false,
        };
        Ok((login, request))
    }

    pub(super) fn poll(&mut self) -> Step {
        match &self.device_code {
            Some(device_code) if std::mem::replace(&mut self.asks, true) => {
                Step::Send(match &self.by_code {
                    Some(by_code) => by_code.question(device_code),
                    None => self.question(device_code),
                })
            }
            _ => Step::Wait(self.interval),
        }
    }

    fn question(&self, device_code: &SecretString) -> Request {
        let grant_type = "urn:ietf:params:oauth:grant-type:device_code";
        Request::new(&self.oauth.token_url, self.oauth.exchange_encoding)
            .field("grant_type", grant_type)
            .field("client_id", self.oauth.client_id.as_str())
            .field("device_code", device_code.clone())
    }

    pub(super) fn answered(&mut self, answer: Result<Answer, CallError>, now: UnixMillis) -> Step {
        if self.device_code.is_none() {
            return self.begun(answer);
        }
        if self.redeems {
            return ended(exchange::read(&self.oauth, answer, now));
        }
        let answer = match answer {
            Ok(answer) if self.by_code.is_some() && by_code::is_undecided(&answer) => {
                return Step::Wait(self.interval);
            }
            Ok(answer) if !is_trouble(answer.status) && !answer::is_page(&answer) => answer,
            Ok(Answer { retry_after, .. }) => {
                return self.back_off(retry_after.unwrap_or_default());
            }
            Err(_) => return self.back_off(Duration::ZERO),
        };
        if let Some(by_code) = &self.by_code
            && (200..300).contains(&answer.status)
        {
            return match by_code.redeemed(&self.oauth, &answer) {
                Some(request) => {
                    self.redeems = true;
                    Step::Send(request)
                }
                None => Step::Failed(Error::NoDeviceCode(lacks(
                    "authorization_code and code_verifier",
                ))),
            };
        }
        match answer::error_code_of(&answer).as_deref() {
            Some("authorization_pending") => Step::Wait(self.interval),
            Some("slow_down") => {
                self.interval = (self.interval + SLOW_DOWN).min(INTERVAL_LIMIT);
                Step::Wait(self.interval)
            }
            Some("expired_token") => Step::Failed(Error::Lapsed),
            Some("access_denied") => {
                let denial = Denial::new("access_denied", "", &self.explanations);
                Step::Failed(denial.into())
            }
            _ => ended(exchange::read(&self.oauth, Ok(answer), now)),
        }
    }

    /// Takes the answer of the device authorization endpoint.
    fn begun(&mut self, answer: Result<Answer, CallError>) -> Step {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Step::Failed(Error::NoDeviceCode(error.to_string())),
        };
        if self.by_code.is_some() && answer.status == 404 {
            return Step::Failed(Error::DeviceOff);
        }
        if !(200..300).contains(&answer.status) {
            return Step::Failed(Error::NoDeviceCode(answer::refusal(&answer)));
        }
        let body: Map<String, Value> = serde_json::from_slice(&answer.body).unwrap_or_default();
        let given = match &mut self.by_code {
            Some(by_code) => by_code.given(&body),
            None => given(&body),
        };
        match given {
            Ok(given) => {
                self.device_code = Some(given.device_code);
                self.interval = given.interval;
                Step::Prompt(given.prompt)
            }
            Err(field) => Step::Failed(Error::NoDeviceCode(lacks(field))),
        }
    }

    fn back_off(&mut self, at_least: Duration) -> Step {
        self.interval = (self.interval * 2).max(at_least).min(INTERVAL_LIMIT);
        Step::Wait(self.interval)
    }
}

/// True if the server may answer better a moment later.
fn is_trouble(status: u16) -> bool {
    status == 429 || status >= 500
}

/// Reads RFC 8628 §3.2; else the name of the member that is missing or does not fit.
fn given(body: &Map<String, Value>) -> Result<Given, &'static str> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let device_code = text("device_code")
        .filter(|code| answer::is_token(code))
        .ok_or("device_code")?;
    let user_code = text("user_code").and_then(user_code).ok_or("user_code")?;
    // The second name is that of drafts and of Google's server.
    let plain = text("verification_uri").or_else(|| text("verification_url"));
    let plain = plain.and_then(page).ok_or("verification_uri")?;
    let complete = text("verification_uri_complete").and_then(page);
    let lifetime = body.get("expires_in").and_then(claims::lifetime);
    Ok(Given {
        device_code: device_code.into(),
        interval: body.get("interval").map_or(INTERVAL, pause_of),
        prompt: Prompt {
            url: complete.unwrap_or(plain),
            code: Some(user_code),
            lifetime: Some(lifetime.unwrap_or(LIFETIME_LIMIT).min(LIFETIME_LIMIT)),
        },
    })
}

/// A code that a person can read and type in.
fn user_code(text: &str) -> Option<String> {
    let fits = (1..=USER_CODE_LIMIT).contains(&text.len()) && presentable(text) == *text;
    fits.then(|| text.to_owned())
}

/// The pause between two questions that a server asks for.
fn pause_of(interval: &Value) -> Duration {
    let interval = claims::lifetime(interval).unwrap_or(INTERVAL);
    interval.clamp(Duration::from_secs(1), INTERVAL_LIMIT)
}

/// The sentence about an answer without `field`.
fn lacks(field: &str) -> String {
    format!("expected {field} in its answer, found none that fits")
}

/// A page that a browser may be sent to: a server's word is not enough for anything else on this machine.
fn page(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(is_web)
}

#[cfg(test)]
mod tests;
