//! The record of one request: who asked, who served, what came of it, and what it used.
//!
//! Each request with a known client key makes one record when its answer has ended or was cut off, whether
//! the platform, the gateway or Envoy answered. It never holds a credential, a header, or a byte of a body
//! beside the model's name. `error` is the gateway's own code, `envoy` where Envoy answered itself, or
//! `failed_inside` where the platform gave up in the middle of its answer. A request whose caller leaves
//! while the gate still reads its body, or while it waits, is `left` with status 0.
//!
//! Requests of one key that were refused with the same code within a second, in one VM, are one record
//! whose `count` says for how many it stands: who is refused for nothing must not push out what was served.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{carried::Carried, digits::push_number};
use crate::{
    dialect::Dialect,
    header::HeaderText,
    home::Made,
    id::Id,
    label::ModelName,
    meter::{Completeness, Metered, Usage},
    verdict::Reason,
};

/// The property with its [line](RequestRecord::line), for access logs:
/// `%FILTER_STATE(wasm.latchkey.usage:PLAIN)%`.
pub const PROPERTY: &str = "latchkey.usage";

/// The [`RequestRecord::error`] of an answer that Envoy itself gave, in place of the platform.
pub const FROM_ENVOY: Reason = Reason::known("latchkey_envoy");

/// The [`RequestRecord::error`] of an answer in whose middle the platform gave up.
pub const FAILED_INSIDE: Reason = Reason::known("failed_inside");

/// Room for what [`RequestRecord::line`] usually writes, in bytes: it is made for every request.
const USUAL_BYTES: usize = 128;

/// One request, from its arrival to the end of its answer, however many accounts it took; or
/// several that were [not served](RequestRecord::unserved) for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The time at which it came, in Unix milliseconds.
    pub at: u64,
    /// Envoy's `x-request-id`; none where that is not an [`Id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// The client key that it came with.
    pub key: Id,
    /// The pool that served it.
    pub pool: Id,
    /// The account whose answer the caller got; none where the gateway itself answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Id>,
    /// The platform of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Id>,
    /// The dialect that its caller speaks.
    pub dialect: Dialect,
    /// The model that it asked for, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<ModelName>,
    /// The model that the platform says it served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The HTTP status that the caller got; 0 where it went away before.
    pub status: u16,
    /// The verdict on that answer, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Reason>,
    /// The gateway's own error code where it answered itself, or [`FAILED_INSIDE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Reason>,
    /// The number of accounts that it was tried on.
    pub attempts: u32,
    /// The tokens; none where nothing is known of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The tokens are not the platform's count, or not all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimate: bool,
    /// The things that its answer made, or told of for the first time, and which exist in the account alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<Made>,
    /// From its arrival to the first byte of the answer's body, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// From its arrival to the end of its answer, in milliseconds.
    pub duration_ms: u64,
    /// The part of the answer that the caller got.
    pub completeness: Completeness,
    /// The number of requests that it stands for. What is told beside that is the first one's, `asked` what
    /// all of them asked for.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: NonZeroU32,
}

/// The facts by which refused requests that no account served are told as one. A caller cannot choose any of
/// them without bounds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unserved {
    key: Id,
    pool: Id,
    dialect: Dialect,
    status: u16,
    error: Option<Reason>,
    attempts: u32,
}

/// The model that a request asks for, as records name it.
pub fn asked(model: Option<&HeaderText>) -> Option<ModelName> {
    ModelName::try_from(model?.as_str()).ok()
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn is_one(count: &NonZeroU32) -> bool {
    *count == NonZeroU32::MIN
}

// === impl RequestRecord ===

impl RequestRecord {
    /// Makes the record of a request that came at `at` and has no answer yet.
    pub fn new(key: Id, pool: Id, dialect: Dialect, at: u64) -> Self {
        Self {
            at,
            id: None,
            key,
            pool,
            account: None,
            platform: None,
            dialect,
            asked: None,
            model: None,
            status: 0,
            verdict: None,
            error: None,
            attempts: 0,
            usage: None,
            estimate: false,
            made: Vec::new(),
            first_byte_ms: None,
            duration_ms: 0,
            completeness: Completeness::Left,
            count: one(),
        }
    }

    /// Makes the record of a request that has come this far and no further: it was tried on those accounts
    /// that the carried says it was.
    pub fn of_request(carried: &Carried) -> Self {
        let (key, pool) = (carried.key.clone(), carried.pool.clone());
        Self {
            id: carried.id.clone(),
            asked: asked(carried.asked.as_ref().or(carried.model.as_ref())),
            attempts: u32::try_from(carried.failed_attempts()).unwrap_or(u32::MAX),
            ..Self::new(key, pool, carried.dialect, carried.at)
        }
    }

    /// Makes the record of a request that `account`, the carried's, was asked to serve.
    pub fn of_attempt(carried: &Carried, platform: &Id) -> Self {
        let request = Self::of_request(carried);
        Self {
            account: Some(carried.account.clone()),
            platform: Some(platform.clone()),
            attempts: request.attempts.saturating_add(1),
            ..request
        }
    }

    /// Notes an answer of the gateway's own, which is whole at once.
    #[must_use]
    pub fn answered(self, status: u16, error: Reason, now: u64) -> Self {
        Self {
            status,
            error: Some(error),
            completeness: Completeness::Whole,
            ..self.ended(now)
        }
    }

    /// Notes that the first byte of the answer's body has come.
    pub fn first_byte(&mut self, now: u64) {
        let since = now.saturating_sub(self.at);
        self.first_byte_ms.get_or_insert(since);
    }

    /// Notes what the answer used.
    pub fn metered(&mut self, metered: Metered) {
        self.usage = metered.usage;
        self.estimate = metered.estimate;
        self.model = metered.model;
        self.completeness = metered.completeness;
        if metered.failed {
            self.error = Some(FAILED_INSIDE);
        }
    }

    /// Notes that an answer did not come to its end for its caller's leaving.
    pub fn left(&mut self) {
        self.completeness = Completeness::Left;
    }

    /// Notes that the caller left before there was an answer to pass on: what it sent, a body of
    /// so many bytes, is charged all the same, unless the platform had failed at it by then.
    pub fn left_unanswered(&mut self, request_bytes: u64) {
        self.left();
        if self.verdict.is_none() {
            self.usage = Usage::of_request(request_bytes);
            self.estimate = self.usage.is_some();
        }
    }

    /// The traits that it shares with others, where no account served it: the gateway answered, or
    /// its caller left before it was sent on.
    pub fn unserved(&self) -> Option<Unserved> {
        if self.account.is_some() {
            return None;
        }
        Some(Unserved {
            key: self.key.clone(),
            pool: self.pool.clone(),
            dialect: self.dialect,
            status: self.status,
            error: self.error.clone(),
            attempts: self.attempts,
        })
    }

    /// Has it stand for a later request that was [not served](Self::unserved) for the same reason.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count.get());
        if self.asked != other.asked {
            self.asked = None;
        }
    }

    /// Notes the end.
    #[must_use]
    pub fn ended(mut self, now: u64) -> Self {
        self.duration_ms = now.saturating_sub(self.at);
        self
    }

    /// Writes it for access logs: `name=value` pairs in one line.
    pub fn line(&self) -> String {
        let Usage {
            input,
            output,
            cached_input,
            reasoning,
            total,
            ..
        } = self.usage.unwrap_or_default();
        let mut line = String::with_capacity(USUAL_BYTES);
        line.push_str("attempts=");
        push_number(&mut line, self.attempts.into());
        if self.usage.is_some() {
            for (name, count) in [
                (" input=", input),
                (" cached=", cached_input),
                (" output=", output),
                (" reasoning=", reasoning),
                (" total=", total),
            ] {
                line.push_str(name);
                push_number(&mut line, count);
            }
        }
        if self.estimate {
            line.push_str(" estimate=true");
        }
        line.push_str(" answer=");
        line.push_str(self.completeness.word());
        if let Some(error) = &self.error {
            line.push_str(" error=");
            line.push_str(error.as_str());
        }
        line
    }
}

// === impl Completeness ===

impl Completeness {
    /// The completeness in one word, as records write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::Cut => "cut",
            Self::Left => "left",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried() -> Carried {
        let text = "account=acc_2 key=key_1 pool=default url=http://gateway/v1/responses door=1 dialect=responses endpoint=0 id=req-1 at=1000 since=5 tried=acc_1:1";
        Carried::decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_record_is_a_line_of_json_and_comes_back() {
        let platform = Id::try_from("codex").unwrap();
        let mut record = RequestRecord::of_attempt(&carried(), &platform);
        record.status = 200;
        record.first_byte(1_020);
        record.first_byte(1_030);
        record.metered(Metered {
            usage: Some(Usage {
                input: 7,
                output: 9,
                total: 16,
                ..Usage::default()
            }),
            estimate: true,
            model: "gpt".try_into().ok(),
            completeness: Completeness::Partial,
            failed: true,
        });
        let record = record.ended(1_500);
        assert_eq!((record.first_byte_ms, record.duration_ms), (Some(20), 500));
        assert_eq!(record.attempts, 2);
        let line = "attempts=2 input=7 cached=0 output=9 reasoning=0 total=16 estimate=true answer=partial error=failed_inside";
        assert_eq!(record.line(), line);
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            serde_json::from_str::<RequestRecord>(&json).unwrap(),
            record
        );
        assert!(json.contains(r#""id":"req-1""#), "{json}");
    }

    #[test]
    fn who_leaves_pays_for_what_was_sent_unless_the_platform_failed() {
        let mut record = RequestRecord::of_request(&carried());
        let mut failed = record.clone();
        failed.verdict = Some(Reason::known("platform_trouble"));
        for (record, charged) in [(&mut record, Some(101)), (&mut failed, None)] {
            record.left_unanswered(401);
            assert_eq!(record.usage.map(|usage| usage.total), charged);
            assert_eq!(record.estimate, charged.is_some());
        }
    }

    #[test]
    fn the_gateways_own_answer_has_no_account() {
        let record = RequestRecord::of_request(&carried()).answered(
            429,
            Reason::known("latchkey_all_out"),
            1_007,
        );
        assert_eq!((record.account.as_ref(), record.attempts), (None, 1));
        assert_eq!(
            record.line(),
            "attempts=1 answer=whole error=latchkey_all_out"
        );
        assert_eq!(record.duration_ms, 7);
        let json = serde_json::to_string(&record).unwrap();
        assert!(
            !json.contains("usage") && !json.contains("estimate"),
            "{json}"
        );
    }
}
