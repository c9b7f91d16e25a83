//! The OpenAI API: responses, chat completions, embeddings and models.

use serde_json::Value;

use super::Context;
use crate::{answer::Answer, fixtures::fixture};

/// Answers an authenticated request; None: no such endpoint.
pub fn answer(path: &str, body: &Value, context: Context<'_>) -> Option<Answer> {
    let id = format!("req_{}", context.id);
    let streams = body["stream"] == Value::Bool(true);
    let answer = match path {
        "/v1/models" => fixture!("openai/models.json").answer(&context.plain()),
        "/v1/responses" if streams => fixture!("openai/response.sse").answer(&context.reply(body)),
        "/v1/responses" => fixture!("openai/response.json").answer(&context.reply(body)),
        "/v1/chat/completions" if streams => chat_stream(body, context),
        "/v1/chat/completions" => fixture!("openai/chat.json").answer(&context.reply(body)),
        "/v1/embeddings" => fixture!("openai/embeddings.json").answer(&context.reply(body)),
        _ => return None,
    };
    Some(
        answer
            .with("x-request-id", id)
            .with("openai-organization", "sim-organization")
            .with("openai-processing-ms", "12")
            .with("openai-version", "2020-10-01")
            .with("x-ratelimit-limit-requests", "10000")
            .with("x-ratelimit-limit-tokens", "2000000")
            .with("x-ratelimit-remaining-requests", "9999")
            .with("x-ratelimit-remaining-tokens", "1999000")
            .with("x-ratelimit-reset-requests", "6ms")
            .with("x-ratelimit-reset-tokens", "1m26s"),
    )
}

/// A chat stream carries usage only where the caller asked for it.
fn chat_stream(body: &Value, context: Context<'_>) -> Answer {
    let mut answer = fixture!("openai/chat.sse").answer(&context.reply(body));
    if body["stream_options"]["include_usage"] != Value::Bool(true) {
        answer.body = answer.body.without_events("\"choices\":[]");
    }
    answer
}
