//! Faults that tests order: which requests they hit, and what they change about the answer.

use std::{collections::BTreeMap, num::NonZeroUsize};

use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    answer::Answer,
    fixtures::{Fill, Fixture},
};

/// The part of the platform that a fault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// `POST /oauth/*`.
    Token,
    /// The LLM endpoints.
    Upstream,
}

/// The fate of the request's body after an answer that did not wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Early {
    /// It is read to its end, and the connection stays.
    Reads,
    /// It is not read, and the connection ends with the answer.
    Closes,
}

/// A fault as the control API takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The part that it is in.
    pub target: Target,
    /// Only requests of this account: a user's email or an API key's name.
    #[serde(default)]
    pub account: Option<String>,
    /// Only requests of this path (without query).
    #[serde(default)]
    pub path: Option<String>,
    /// Only requests whose body has this text in it.
    #[serde(default)]
    pub request_has: Option<String>,
    /// The number of requests that it hits; absent: all.
    #[serde(default)]
    pub times: Option<u32>,
    /// The number of matching requests that it lets by first.
    #[serde(default)]
    pub skip: u32,
    /// Answer with this status instead; alone: with an empty JSON object.
    #[serde(default)]
    pub status: Option<u16>,
    /// Put on the answer, whether or not it is replaced.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Answer with this body instead: a string as it is, anything else as JSON. Status 500 unless
    /// `status` is given.
    #[serde(default)]
    pub body: Option<Value>,
    /// Answer with this file of `tests/fixtures/` instead, with the status the platform sends it
    /// with unless `status` is given.
    #[serde(default)]
    pub fixture: Option<String>,
    /// Wait before the answer. The work (a rotation, for one) is done first.
    #[serde(default)]
    pub delay_ms: u64,
    /// Wait between the answer's headers and its body.
    #[serde(default)]
    pub after_headers_delay_ms: u64,
    /// Close the connection after this many bytes of the answer's body.
    #[serde(default)]
    pub cut_after_bytes: Option<u64>,
    /// Send nothing more after this many bytes of the answer's body, and keep the connection.
    #[serde(default)]
    pub stall_after_bytes: Option<u64>,
    /// Send the body in pieces of this many bytes, `piece_delay_ms` apart.
    #[serde(default)]
    pub piece_bytes: Option<NonZeroUsize>,
    /// See `piece_bytes`.
    #[serde(default)]
    pub piece_delay_ms: u64,
    /// End the body with a trailer.
    #[serde(default)]
    pub trailer: bool,
    /// Answer as soon as the request's headers are there.
    #[serde(default)]
    pub early: Option<Early>,
    /// Do the work, then close the connection without an answer.
    #[serde(default)]
    pub drop_before_answer: bool,
}

impl Fault {
    /// Says what is wrong with the fault, if anything.
    pub fn validate(&self) -> Result<(), String> {
        if let Some(name) = &self.fixture
            && Fixture::find(name).is_none()
        {
            return Err(format!("no fixture {name}, see tests/fixtures"));
        }
        if let Some(status) = self.status
            && !(200..=599).contains(&status)
        {
            return Err(format!("status {status} is not in 200..=599"));
        }
        for (name, value) in &self.headers {
            HeaderName::try_from(name).map_err(|_| format!("bad header name {name:?}"))?;
            HeaderValue::try_from(value).map_err(|_| format!("bad value of header {name}"))?;
        }
        Ok(())
    }

    /// The answer that stands in for the real one; None: the work is done and its answer used.
    pub fn replacement(&self, fill: &Fill) -> Option<Answer> {
        let status = self
            .status
            .and_then(|status| StatusCode::from_u16(status).ok());
        let mut answer = match (&self.fixture, &self.body) {
            (Some(name), _) => Fixture::find(name)?.answer(fill),
            (None, Some(Value::String(text))) => Answer::whole(
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain",
                text.clone(),
            ),
            (None, Some(body)) => Answer::json(StatusCode::INTERNAL_SERVER_ERROR, body.to_string()),
            (None, None) => Answer::json(status?, "{}"),
        };
        answer.status = status.unwrap_or(answer.status);
        Some(answer)
    }

    /// Puts the fault's headers on.
    pub fn decorate(&self, answer: &mut Answer) {
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                answer.headers.insert(name, value);
            }
        }
    }

    fn matches(&self, target: Target, account: Option<&str>, path: &str, body: &[u8]) -> bool {
        let has = |text: &String| {
            let text = text.as_bytes();
            body.windows(text.len().max(1)).any(|part| part == text)
        };
        self.target == target
            && self.request_has.as_ref().is_none_or(has)
            && (self.account.is_none() || self.account.as_deref() == account)
            && self.path.as_deref().is_none_or(|wanted| wanted == path)
    }
}

/// The faults that are set, in the order they were set.
#[derive(Debug, Default)]
pub struct Faults {
    set: Vec<(u64, Fault)>,
    last_id: u64,
}

impl Faults {
    /// Sets a fault and gives it an id.
    pub fn add(&mut self, fault: Fault) -> u64 {
        self.last_id += 1;
        self.set.push((self.last_id, fault));
        self.last_id
    }

    /// Removes one fault; false: there was none of that id.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.set.len();
        self.set.retain(|(other, _)| *other != id);
        self.set.len() < before
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.set.clear();
    }

    /// The answer of the fault that the next such request meets, if that comes before its body.
    pub fn early(&self, account: Option<&str>, path: &str) -> Option<Early> {
        let mut hits = self.set.iter().map(|(_, fault)| fault).filter(|fault| {
            fault.matches(Target::Upstream, account, path, b"")
                && fault.skip == 0
                && fault.times != Some(0)
        });
        hits.next()?.early
    }

    /// The first fault that hits this request, counted down; spent faults are removed.
    pub fn take(
        &mut self,
        target: Target,
        account: Option<&str>,
        path: &str,
        body: &[u8],
    ) -> Option<Fault> {
        let hit = self.set.iter_mut().position(|(_, fault)| {
            let matches = fault.matches(target, account, path, body);
            let skipped = matches && fault.skip > 0;
            fault.skip -= u32::from(skipped);
            matches && !skipped && fault.times != Some(0)
        })?;
        let (_, fault) = &mut self.set[hit];
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        let taken = fault.clone();
        self.set.retain(|(_, fault)| fault.times != Some(0));
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{answer::Payload, clock::UnixMillis};

    fn fault(value: Value) -> Fault {
        let fault: Fault = serde_json::from_value(value).expect("fault");
        fault.validate().expect("valid");
        fault
    }

    fn fill() -> Fill {
        Fill {
            id: "a".into(),
            model: "m".into(),
            text: "t".into(),
            pieces: 1,
            input_tokens: 1,
            output_tokens: 1,
            now: UnixMillis(5_000),
        }
    }

    #[test]
    fn skips_then_hits_then_is_gone() {
        let mut faults = Faults::default();
        faults.add(fault(
            json!({"target": "upstream", "skip": 1, "times": 2, "status": 503}),
        ));
        let hits: Vec<bool> = (0..5)
            .map(|_| {
                faults
                    .take(Target::Upstream, None, "/v1/responses", b"")
                    .is_some()
            })
            .collect();
        assert_eq!(hits, [false, true, true, false, false]);
    }

    #[test]
    fn an_early_answer_is_that_of_the_next_hit() {
        let mut faults = Faults::default();
        let early = json!({"target": "upstream", "account": "a", "times": 1, "status": 429, "early": "reads"});
        faults.add(fault(early));
        assert_eq!(faults.early(Some("b"), "/"), None);
        assert_eq!(faults.early(Some("a"), "/"), Some(Early::Reads));
        assert!(faults.take(Target::Upstream, Some("a"), "/", b"").is_some());
        assert_eq!(faults.early(Some("a"), "/"), None);
    }

    #[test]
    fn hits_only_requests_that_say_something() {
        let mut faults = Faults::default();
        let poison = json!({"target": "upstream", "request_has": "poison", "status": 500});
        faults.add(fault(poison));
        let mut take = |body: &[u8]| faults.take(Target::Upstream, None, "/", body).is_some();
        assert_eq!(
            [take(b""), take(b"a poison b"), take(b"pois")],
            [false, true, false]
        );
    }

    #[test]
    fn hits_only_its_target_account_and_path() {
        let mut faults = Faults::default();
        let id = faults.add(fault(json!({
            "target": "token", "account": "alice", "path": "/oauth/token", "status": 500,
        })));
        assert!(
            faults
                .take(Target::Upstream, Some("alice"), "/oauth/token", b"")
                .is_none()
        );
        assert!(
            faults
                .take(Target::Token, Some("bob"), "/oauth/token", b"")
                .is_none()
        );
        assert!(
            faults
                .take(Target::Token, None, "/oauth/token", b"")
                .is_none()
        );
        assert!(
            faults
                .take(Target::Token, Some("alice"), "/oauth/revoke", b"")
                .is_none()
        );
        assert!(
            faults
                .take(Target::Token, Some("alice"), "/oauth/token", b"")
                .is_some()
        );
        assert!(faults.remove(id));
        assert!(
            faults
                .take(Target::Token, Some("alice"), "/oauth/token", b"")
                .is_none()
        );
    }

    #[test]
    fn fixture_comes_with_its_status_and_current_times() {
        let fault = fault(json!({
            "target": "upstream", "fixture": "codex/usage_limit_reached.json",
            "headers": {"retry-after": "3"},
        }));
        let mut answer = fault.replacement(&fill()).expect("replaced");
        fault.decorate(&mut answer);
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers["retry-after"], "3");
        let Payload::Whole(body) = answer.body else {
            panic!("a stream")
        };
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["resets_at"], 3605);
    }

    #[test]
    fn delays_and_cuts_leave_the_answer_alone() {
        for change in [
            json!({"delay_ms": 5}),
            json!({"cut_after_bytes": 1}),
            json!({"stall_after_bytes": 1}),
            json!({"piece_bytes": 1, "piece_delay_ms": 1000}),
            json!({"headers": {"a": "b"}}),
        ] {
            let mut value = json!({"target": "token"});
            value
                .as_object_mut()
                .expect("object")
                .extend(change.as_object().expect("object").clone());
            assert!(fault(value).replacement(&fill()).is_none());
        }
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        for value in [
            json!({"target": "token", "fixture": "codex/none.json"}),
            json!({"target": "token", "status": 99}),
            json!({"target": "token", "headers": {"a b": "c"}}),
        ] {
            let fault: Fault = serde_json::from_value(value).expect("fault");
            assert!(fault.validate().is_err());
        }
        assert!(serde_json::from_value::<Fault>(json!({"target": "token", "statsu": 1})).is_err());
    }
}
