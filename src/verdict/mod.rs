//! The verdict: what a platform's answer says about the account that it was asked with.
//!
//! Everything here is a pure function of the answer's status, headers and first body bytes, the
//! platform's rules and `now`. Nothing here acts on a verdict: that is the attempt's business.
//!
//! [`Beginning`] finds the error inside an answer of HTTP 200, [`failure`] one in the middle of it,
//! [`ErrorBody::read`] the one in any other; [`Quota::read`] reads the account's windows from good and bad answers; [`judge`] puts
//! it all together by the [`Rule`]s of the platform's profile.

mod body;
mod brief;
mod judge;
mod look;
pub mod quota;
pub mod rule;
pub mod time;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use self::{
    body::{ErrorBody, MAX_BODY_BYTES},
    judge::{Answer, judge},
    look::{Beginning, InnerError, Look, MAX_LOOK_BYTES, failure},
    quota::Quota,
    rule::Rule,
};
use crate::{
    label::ModelName,
    newtype::{checked_text, invalid_text},
};

/// The meaning of an answer for the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong.
    Fine,
    /// The account is not to be used for a while.
    CoolingDown {
        /// The part of it that is out: everything, or one model.
        scope: Scope,
        /// The end, in Unix milliseconds.
        until: u64,
        /// The platform did not say when: after `until`, one request at a time may try.
        guessed: bool,
        /// The reason, in a word.
        reason: Reason,
    },
    /// Its credential is no longer accepted: it needs a refresh.
    CredentialExpired,
    /// The account is of no use until somebody sees to it.
    Dead {
        /// The reason, in a word.
        reason: Reason,
    },
    /// The platform is at fault and would be with any account: leave it alone for a moment.
    PlatformTrouble {
        /// The end of the moment, in Unix milliseconds.
        until: u64,
    },
    /// The request is at fault and would be with any account: pass the answer on untouched.
    CallersFault,
}

/// The part of an account that cools down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The account.
    Account,
    /// The account for this model alone.
    Model(ModelName),
}

/// A reason in one word, for headers, logs and metrics: 1 to 32 of `a-z 0-9 _`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(Cow<'static, str>);

invalid_text! {
    /// A text that is not a [`Reason`].
    InvalidReason,
    "expected a word of 1 to 32 of a-z, 0-9 and _"
}

checked_text! {
    Reason, InvalidReason;
}

// === impl Scope ===

impl Scope {
    /// Returns true if a request for `model` falls under this scope.
    pub fn covers(&self, model: Option<&str>) -> bool {
        match self {
            Self::Account => true,
            Self::Model(of) => model == Some(of.as_str()),
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Returns true if the account may not do what was asked.
    pub fn is_not_served(&self) -> bool {
        matches!(self, Self::CoolingDown { reason, .. } if *reason == Reason::not_served())
    }

    /// The verdict in one word, as profiles write it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::CoolingDown { .. } => "cooling_down",
            Self::CredentialExpired => "credential_expired",
            Self::Dead { .. } => "dead",
            Self::PlatformTrouble { .. } => "platform_trouble",
            Self::CallersFault => "callers_fault",
        }
    }
}

// === impl Reason ===

impl Reason {
    fn check(text: &str) -> Result<(), InvalidReason> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if (1..=32).contains(&text.len()) && text.bytes().all(legal) {
            Ok(())
        } else {
            Err(InvalidReason)
        }
    }

    /// Too much in too short a time.
    pub fn rate_limited() -> Self {
        Self::known("rate_limited")
    }

    /// The account may not do what was asked, and another one may. It is left alone for that once another
    /// one has done it: of what nobody can do, no account is to blame.
    pub fn not_served() -> Self {
        Self::known("not_served")
    }

    /// A word of our own; it must be one.
    pub(crate) const fn known(word: &'static str) -> Self {
        Self(Cow::Borrowed(word))
    }
}
