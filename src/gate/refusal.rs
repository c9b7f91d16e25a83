//! Answers of our own: an error in the caller's dialect that cannot be mistaken for the
//! platform's.

use std::borrow::Cow;

use super::select::Out;
use crate::{
    dialect::{Dialect, ErrorText},
    header::HeaderText,
    id::Id,
    limit::Reached,
    snapshot::Requirement,
    verdict::{Reason, time},
};

/// The header with our own error code.
pub const ERROR_HEADER: &str = "x-latchkey-error";

/// The most accounts that a message names.
const MAX_NAMED: usize = 8;

/// Why the gateway itself answers a request with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No client key, or an empty one.
    NoKey,
    /// More than one client key, or one in a place or form that is not known.
    AmbiguousKey,
    /// A client key that is unknown or revoked.
    UnknownKey,
    /// A client key that has ended; its name, where it is known.
    KeyExpired(Option<HeaderText>),
    /// The client key is at one of its limits.
    Limit(AtLimit),
    /// A path that no platform of the snapshot serves.
    UnknownPath,
    /// A path that is served with another method.
    Method,
    /// An upgrade to another protocol.
    Upgrade,
    /// The client key names a pool that the snapshot does not hold.
    NoPool,
    /// No account of the pool speaks this path.
    NoAccount,
    /// The client key may not ask for this model, or its request does not say one that could be
    /// read; or says two.
    ModelNotAllowed(Option<HeaderText>),
    /// No account of the pool that speaks this path serves the model.
    ModelNotServed {
        /// The model, if it could be read.
        model: Option<HeaderText>,
        /// The pool.
        pool: Id,
    },
    /// The accounts that would serve the request ask of it what it does not have.
    Unmet {
        /// Their pool.
        pool: Id,
        /// What they ask.
        requirements: Vec<Requirement>,
    },
    /// The client key may not choose that account or pool, or there is none such.
    ChoiceNotAllowed,
    /// No account of the pool that speaks this path may be used now.
    AllOut(AllOut),
    /// The refresher has not been reached since Envoy started, or not about the request's limits,
    /// and no place to wait for that is left.
    NotReady,
    /// The upstream filter was reached without an account.
    NoCredential,
    /// The platform answered with a redirect, which is never followed or passed on.
    Redirected,
    /// The platform could not be reached, or went away before it answered.
    Unreachable,
}

/// A pool of which no account may be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllOut {
    /// The pool.
    pub pool: Id,
    /// Its accounts that speak the path.
    pub out: Vec<Out>,
    /// After how many seconds the first is back, where that is known.
    pub retry_after: Option<u32>,
}

/// A client key at one of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtLimit {
    /// The key's name, where it is known.
    pub key: Option<HeaderText>,
    /// Which limit.
    pub reached: Reached,
    /// Unix milliseconds.
    pub now: u64,
}

/// What the caller gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers beside the status; values are constants or digits.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

// === impl Refusal ===

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::AmbiguousKey | Self::Unmet { .. } => 400,
            Self::NoKey | Self::UnknownKey | Self::KeyExpired(_) => 401,
            Self::Limit(_) => 429,
            Self::ModelNotAllowed(_) | Self::ChoiceNotAllowed => 403,
            Self::UnknownPath | Self::ModelNotServed { .. } => 404,
            Self::Method => 405,
            Self::Upgrade => 426,
            Self::Redirected | Self::Unreachable => 502,
            Self::AllOut(all) if all.retry_after.is_some() => 429,
            Self::NoPool
            | Self::NoAccount
            | Self::AllOut(_)
            | Self::NotReady
            | Self::NoCredential => 503,
        }
    }

    /// Our own code for it: no platform's code starts with `latchkey_`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "latchkey_no_key",
            Self::AmbiguousKey => "latchkey_ambiguous_key",
            Self::UnknownKey => "latchkey_unknown_key",
            Self::KeyExpired(_) => "latchkey_key_expired",
            Self::Limit(_) => "latchkey_limit",
            Self::UnknownPath => "latchkey_unknown_path",
            Self::Method => "latchkey_method_not_allowed",
            Self::Upgrade => "latchkey_no_upgrade",
            Self::NoPool => "latchkey_no_pool",
            Self::NoAccount => "latchkey_no_account",
            Self::ModelNotAllowed(_) => "latchkey_model_not_allowed",
            Self::ModelNotServed { .. } => "latchkey_model_not_served",
            Self::Unmet { .. } => "latchkey_requirement_not_met",
            Self::ChoiceNotAllowed => "latchkey_choice_not_allowed",
            Self::AllOut(_) => "latchkey_all_out",
            Self::NotReady => "latchkey_not_ready",
            Self::NoCredential => "latchkey_no_credential",
            Self::Redirected => "latchkey_platform_redirect",
            Self::Unreachable => "latchkey_platform_unreachable",
        }
    }

    /// What happened and what to do.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::NoKey => {
                "No client key. Send the gateway's key in one of: Authorization: Bearer, x-api-key, x-goog-api-key."
            }
            Self::AmbiguousKey => {
                "Expected exactly one client key, once, in one of: Authorization: Bearer, x-api-key, x-goog-api-key. It is never taken from the URL."
            }
            Self::UnknownKey => {
                "This client key is unknown or revoked. Ask whoever runs the gateway for a key (refresher keys create)."
            }
            Self::KeyExpired(name) => {
                return Cow::Owned(format!(
                    "The client key{} has expired. Ask whoever runs the gateway for another one, or for more time (refresher keys set).",
                    named(name.as_ref())
                ));
            }
            Self::Limit(limit) => return Cow::Owned(limit.message()),
            Self::UnknownPath => "The gateway serves no such path.",
            Self::Method => "The gateway serves this path with another method.",
            Self::Upgrade => "The gateway does not speak WebSocket. Use plain HTTP.",
            Self::NoPool => {
                "The pool of this client key does not exist any more. The gateway's operator can see it with: refresher keys list."
            }
            Self::NoAccount => {
                "No usable account of this key's pool serves this path. The gateway's operator can see why with: refresher status."
            }
            Self::ModelNotAllowed(model) => {
                return Cow::Owned(match model {
                    Some(model) => format!(
                        "This client key may not ask for the model {}. GET /v1/models lists those that it may.",
                        model.as_str()
                    ),
                    None => "This client key may ask for some models alone, and no single model could be read in the request. GET /v1/models lists those that it may.".to_owned(),
                });
            }
            Self::ModelNotServed { model, pool } => {
                return Cow::Owned(match model {
                    Some(model) => format!(
                        "No account of the gateway's pool {pool} serves the model {} on this path. GET /v1/models lists what it serves.",
                        model.as_str()
                    ),
                    None => format!(
                        "The accounts of the gateway's pool {pool} serve some models alone, and no model could be read in the request."
                    ),
                });
            }
            Self::Unmet { pool, requirements } => {
                let members: Vec<_> = requirements.iter().map(Requirement::member).collect();
                let reasons = requirements.iter().filter_map(Requirement::reason);
                let reasons: String = reasons.flat_map(|reason| [" ", reason]).collect();
                return Cow::Owned(format!(
                    "The accounts of the gateway's pool {pool} take a request on this path only with {}.{reasons}",
                    members.join(" and ")
                ));
            }
            Self::ChoiceNotAllowed => {
                "This client key may not choose that account or pool, or its pool has no such account for this path. The gateway's operator can allow it with: refresher keys set."
            }
            Self::AllOut(all) => return Cow::Owned(all.message()),
            Self::NotReady => {
                "The gateway has not heard from its refresher yet what this request needs: the accounts, or what is used of the limits. Try again; if that does not help, its operator should see whether the refresher runs."
            }
            Self::NoCredential => {
                "The account of this request is gone. Nothing was sent to the platform; try again."
            }
            Self::Redirected => {
                "The platform answered with a redirect, which the gateway does not follow or pass on."
            }
            Self::Unreachable => {
                "The platform could not be reached, or went away before it answered."
            }
        })
    }

    /// After how many seconds a new try makes sense; none where it never does by itself.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::NotReady | Self::NoCredential => Some(1),
            Self::AllOut(all) => Some(all.retry_after.unwrap_or(5)),
            Self::Limit(limit) => Some(limit.retry_after()),
            Self::Unreachable => Some(5),
            Self::NoAccount | Self::NoPool => Some(30),
            _ => None,
        }
    }

    /// The answer in `dialect`.
    pub fn reply(&self, dialect: Dialect) -> Reply {
        let (message, code) = (self.message(), self.code());
        let body = dialect.format().error(&ErrorText {
            status: self.status(),
            message: &message,
            code,
        });
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            (ERROR_HEADER, code.to_owned()),
        ];
        if let Some(seconds) = self.retry_after() {
            headers.push(("retry-after", seconds.to_string()));
        }
        if self.status() == 401 {
            headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        Reply {
            status: self.status(),
            headers,
            body: body.to_string(),
        }
    }
}

// === impl Reply ===

impl Reply {
    /// Our own error code; none where the answer is no error.
    pub fn code(&self) -> Option<Reason> {
        let mut headers = self.headers.iter();
        let (_, code) = headers.find(|(name, _)| *name == ERROR_HEADER)?;
        Reason::try_from(code.clone()).ok()
    }
}

/// A name in a message, with a space before it; nothing where there is none.
fn named(name: Option<&HeaderText>) -> String {
    name.map_or_else(String::new, |name| format!(" \"{}\"", name.as_str()))
}

// === impl AtLimit ===

impl AtLimit {
    /// In whole seconds, rounded up: a request that comes then is let through, if no other comes
    /// first.
    fn retry_after(&self) -> u32 {
        let left = self
            .reached
            .until
            .map(|until| until.saturating_sub(self.now));
        let seconds = left.unwrap_or_default().div_ceil(1_000).max(1);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    fn message(&self) -> String {
        let Reached {
            limit,
            allowed,
            until,
        } = self.reached;
        let end = match until {
            Some(until) => format!("at {}", time::to_rfc3339(until)),
            None => "when one of its requests ends".to_owned(),
        };
        format!(
            "The client key{} is at the limit that the gateway's operator set for it: {allowed} {}. The limit ends {end}.",
            named(self.key.as_ref()),
            limit.unit()
        )
    }
}

// === impl AllOut ===

impl AllOut {
    fn message(&self) -> String {
        let named: Vec<String> = self
            .out
            .iter()
            .take(MAX_NAMED)
            .map(|out| format!("{} ({})", out.name.as_str(), out.reason.as_str()))
            .collect();
        let more = match self.out.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "No account of the gateway's pool {} can be used now: {}{more}.",
            self.pool,
            named.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_its_shape() {
        let reply = Refusal::NotReady.reply(Dialect::Messages);
        assert_eq!(reply.code().unwrap().as_str(), "latchkey_not_ready");
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "api_error");
        assert_eq!(body["error"]["code"], "latchkey_not_ready");
        assert!(reply.headers.contains(&("retry-after", "1".to_owned())));

        let reply = Refusal::UnknownKey.reply(Dialect::Responses);
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body["error"]["code"], "latchkey_unknown_key");
        assert!(body["error"]["param"].is_null());
        assert_eq!(reply.status, 401);
    }

    #[test]
    fn a_limit_says_which_whose_and_until_when() {
        use crate::limit::Limit;
        let at = |limit, until| {
            Refusal::Limit(AtLimit {
                key: Some(HeaderText::try_from("alice").unwrap()),
                reached: Reached {
                    limit,
                    allowed: 60,
                    until,
                },
                now: 1_790_000_000_001,
            })
        };
        let reply = at(Limit::RequestsPerMinute, Some(1_790_000_030_000)).reply(Dialect::Messages);
        assert_eq!(reply.status, 429);
        assert!(reply.headers.contains(&("retry-after", "30".to_owned())));
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body["error"]["type"], "rate_limit_error");
        assert_eq!(body["error"]["code"], "latchkey_limit");
        assert_eq!(
            body["error"]["message"],
            "The client key \"alice\" is at the limit that the gateway's operator set for it: 60 requests a minute. The limit ends at 2026-09-21T14:13:50Z."
        );
        let reply = at(Limit::ConcurrentStreams, None).reply(Dialect::Chat);
        assert!(reply.headers.contains(&("retry-after", "1".to_owned())));
        assert!(
            reply.body.contains("60 requests at the same time"),
            "{}",
            reply.body
        );
        let reply = Refusal::KeyExpired(None).reply(Dialect::Responses);
        assert_eq!(reply.status, 401);
        assert!(
            reply.body.contains("The client key has expired"),
            "{}",
            reply.body
        );
    }

    #[test]
    fn a_pool_that_is_out_says_who_and_why() {
        use crate::{gate::select::Back, header::HeaderText, verdict::Reason};
        let out = |name: &str| Out {
            name: HeaderText::try_from(name).unwrap(),
            reason: Reason::rate_limited(),
            back: Back::At(9_000),
        };
        let mut all = AllOut {
            pool: Id::try_from("default").unwrap(),
            out: (0..10).map(|n| out(&format!("a{n}"))).collect(),
            retry_after: Some(9),
        };
        let reply = Refusal::AllOut(all.clone()).reply(Dialect::Chat);
        assert_eq!(reply.status, 429);
        assert!(reply.headers.contains(&("retry-after", "9".to_owned())));
        assert!(reply.body.contains("default") && reply.body.contains("a0 (rate_limited)"));
        assert!(reply.body.contains("and 2 more"), "{}", reply.body);
        all.retry_after = None;
        assert_eq!(Refusal::AllOut(all).status(), 503);
    }
}
