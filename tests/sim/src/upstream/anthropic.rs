//! The Anthropic API: messages, token counting and models.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{
    Context,
    tools::{self, Format},
};
use crate::{answer::Answer, fixtures::fixture};

/// Seconds until the rate limit headers say that the limit is full again.
const LIMIT_RESET_SECONDS: u64 = 60;

/// The members of a request that the API knows, as far as clients here send them.
const MEMBERS: [&str; 17] = [
    "model",
    "messages",
    "cache_control",
    "max_tokens",
    "stream",
    "system",
    "metadata",
    "tools",
    "tool_choice",
    "thinking",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "service_tier",
    "context_management",
    "output_config",
];

/// The complaint about a member of a request that there is none of: it begins with the caller's own
/// word.
fn unknown_member(body: &Value) -> Option<Answer> {
    let members = body.as_object()?.keys();
    let unknown = members
        .into_iter()
        .find(|name| !MEMBERS.contains(&name.as_str()))?;
    let message = format!("{unknown}: Extra inputs are not permitted");
    let error =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}});
    Some(Answer::json(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Answers an authenticated request; None: no such endpoint.
pub fn answer(
    path: &str,
    headers: &HeaderMap,
    body: &Value,
    context: Context<'_>,
) -> Option<Answer> {
    if let Some(answer) = unknown_member(body) {
        return Some(answer);
    }
    let id = format!("req_{}", context.id);
    let reset = context.now.plus_seconds(LIMIT_RESET_SECONDS).rfc3339();
    let call = tools::answer(Format::Messages, body, &context);
    if let Some(call) = call.filter(|_| path == "/v1/messages") {
        return Some(call);
    }
    let fixture = match path {
        _ if !headers.contains_key("anthropic-version") => {
            fixture!("anthropic/missing_version.json")
        }
        "/v1/messages" if body["stream"] == Value::Bool(true) => fixture!("anthropic/message.sse"),
        "/v1/messages" => fixture!("anthropic/message.json"),
        "/v1/messages/count_tokens" => fixture!("anthropic/count_tokens.json"),
        "/v1/models" => fixture!("anthropic/models.json"),
        _ => return None,
    };
    Some(
        fixture
            .answer(&context.reply(body))
            .with("request-id", id)
            .with(
                "anthropic-organization-id",
                "5f1e0000-0000-4000-8000-000000000001",
            )
            .with("anthropic-ratelimit-requests-limit", "4000")
            .with("anthropic-ratelimit-requests-remaining", "3999")
            .with("anthropic-ratelimit-requests-reset", &reset)
            .with("anthropic-ratelimit-tokens-limit", "480000")
            .with("anthropic-ratelimit-tokens-remaining", "479000")
            .with("anthropic-ratelimit-tokens-reset", &reset)
            .with("anthropic-ratelimit-input-tokens-limit", "400000")
            .with("anthropic-ratelimit-input-tokens-remaining", "399000")
            .with("anthropic-ratelimit-input-tokens-reset", &reset)
            .with("anthropic-ratelimit-output-tokens-limit", "80000")
            .with("anthropic-ratelimit-output-tokens-remaining", "79000")
            .with("anthropic-ratelimit-output-tokens-reset", &reset),
    )
}
