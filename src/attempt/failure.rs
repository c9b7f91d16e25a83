//! The error inside of an answer of HTTP 200, as the answer that it should have been: clients try again on
//! a status, and one that did not ask for a stream reads no events.

use crate::{
    dialect::Dialect,
    gate::{Reply, refusal},
    verdict::{InnerError, Verdict},
};

/// Our own code for it, in a header. The one in the body is the platform's.
pub const CODE: &str = "latchkey_platform_failed";

/// Returns the answer that says the failure with the status that its verdict stands for; none where the
/// platform's own goes on.
///
/// What the request itself did wrong stays in the stream that its caller asked for: there clients know the
/// platform's code, and a repeat helps nobody.
pub fn reply(
    failure: &InnerError,
    verdict: &Verdict,
    dialect: Dialect,
    lacks_stream: bool,
    now: u64,
) -> Option<Reply> {
    let is_unreadable = failure.in_events && lacks_stream;
    if *verdict == Verdict::CallersFault && !is_unreadable {
        return None;
    }
    let status = failure.error.likely_status();
    let (status, until) = match verdict {
        Verdict::CallersFault => (
            status.filter(|of| (400..500).contains(of)).unwrap_or(400),
            None,
        ),
        Verdict::CoolingDown { until, .. } => (429, Some(*until)),
        Verdict::PlatformTrouble { until } => {
            (status.filter(|of| *of >= 500).unwrap_or(503), Some(*until))
        }
        // A client that reads 401 or 403 believes that its own key is meant.
        Verdict::CredentialExpired | Verdict::Dead { .. } | Verdict::Fine => (503, None),
    };
    let seconds = until.map(|until| until.saturating_sub(now).div_ceil(1_000).max(1));
    let repeats = seconds.is_some_and(|seconds| seconds <= refusal::LONGEST_REPEAT_SECONDS.into());
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        (refusal::ERROR_HEADER, CODE.to_owned()),
        (refusal::RETRY_HEADER, repeats.to_string()),
    ];
    headers.extend(seconds.map(|seconds| ("retry-after", seconds.to_string())));
    Some(Reply {
        status,
        headers,
        body: dialect
            .format()
            .platforms_error(status, failure.members())
            .to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        snapshot::fixture,
        verdict::{Beginning, Look},
    };

    const NOW: u64 = 1_790_000_000_000;

    fn failure(dialect: Dialect, body: &str) -> InnerError {
        match Beginning::new(dialect, true).look(body.as_bytes(), true) {
            Look::Error(failure) => failure,
            other => panic!("{body}: {other:?}"),
        }
    }

    /// The status, `retry-after`, if to repeat, and the body.
    fn said(dialect: Dialect, body: &str, lacks_stream: bool) -> Option<(u16, String, Value)> {
        let failure = failure(dialect, body);
        let platform = fixture::platform("codex");
        let headers = crate::header::HeaderMap::default();
        let error = Some(&failure.error);
        let verdict = crate::attempt::judge(200, &headers, error, &platform, None, NOW);
        let reply = reply(&failure, &verdict, dialect, lacks_stream, NOW)?;
        let header = |wanted: &str| {
            let found = reply.headers.iter().find(|(name, _)| *name == wanted);
            found.map_or("-", |(_, value)| value.as_str())
        };
        let told = format!("{} {}", header("retry-after"), header("x-should-retry"));
        Some((
            reply.status,
            told,
            serde_json::from_str(&reply.body).unwrap(),
        ))
    }

    #[test]
    fn a_failure_has_the_status_of_its_verdict_and_the_platforms_words() {
        let limited = json!({"code": "rate_limit_exceeded", "message": "Please try again in 7s."});
        let event =
            json!({"type": "response.failed", "response": {"status": "failed", "error": limited}});
        let event = format!("event: response.failed\ndata: {event}\n\n");
        let expected = (429, "7 true".to_owned(), json!({ "error": limited }));
        assert_eq!(said(Dialect::Responses, &event, false), Some(expected));

        let event = include_str!("../../tests/fixtures/codex/error_event_usage_limit_reached.sse");
        let (status, told, body) = said(Dialect::Responses, event, false).unwrap();
        assert_eq!((status, told.as_str()), (429, "30 true"));
        assert_eq!(body["error"]["type"], "usage_limit_reached");
        assert_eq!(
            body["error"]["resets_in_seconds"], 3600,
            "a number stays one"
        );

        let event = include_str!("../../tests/fixtures/anthropic/error_event_overloaded.sse");
        let error = json!({"type": "overloaded_error", "message": "Overloaded"});
        let expected = (
            529,
            "5 true".to_owned(),
            json!({"type": "error", "error": error}),
        );
        assert_eq!(said(Dialect::Messages, event, false), Some(expected));

        let flat = "data: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\",\"param\":null}\n\n";
        let error =
            json!({"type": "server_error", "code": "server_error", "message": "m", "param": null});
        let expected = (500, "5 true".to_owned(), json!({ "error": error }));
        assert_eq!(said(Dialect::Responses, flat, false), Some(expected));
        for (flat, code) in [
            (r#"{"code":429,"msg":"m"}"#, json!(429)),
            (r#"{"error_code":429,"error_msg":"m"}"#, json!("429")),
        ] {
            let error = json!({"type": "429", "code": code, "message": "m"});
            let (.., body) = said(Dialect::Chat, flat, false).unwrap();
            assert_eq!(body, json!({ "error": error }));
        }
        let text = r#"{"error":"internal_error"}"#;
        let word = "internal_error";
        let error = json!({"type": word, "code": word, "message": word});
        let expected = (500, "5 true".to_owned(), json!({ "error": error }));
        assert_eq!(said(Dialect::Chat, text, false), Some(expected));
    }

    #[test]
    fn what_the_caller_did_wrong_stays_in_the_stream_that_it_asked_for() {
        let event =
            include_str!("../../tests/fixtures/codex/response_failed_context_length_exceeded.sse");
        assert_eq!(said(Dialect::Responses, event, false), None);
        let (status, told, body) = said(Dialect::Responses, event, true).unwrap();
        assert_eq!((status, told.as_str()), (400, "- false"));
        assert_eq!(body["error"]["code"], "context_length_exceeded");
        let json = r#"{"error":{"code":"context_length_exceeded"}}"#;
        assert_eq!(said(Dialect::Chat, json, true), None, "it reads that");
    }
}
