//! The ChatGPT backend as Codex uses it.

use serde_json::Value;

use super::{
    Context,
    tools::{self, Format},
};
use crate::{
    answer::Answer,
    fixtures::{RESET_SECONDS, fixture},
};

/// Answers an authenticated request; None: no such endpoint.
pub fn answer(path: &str, body: &Value, plan: &str, context: Context<'_>) -> Option<Answer> {
    let now = context.now;
    let id = context.id.clone();
    let answer = match path {
        "/backend-api/codex/models" => fixture!("codex/models.json")
            .answer(&context.plain())
            .with("etag", "\"sim-models-1\""),
        "/backend-api/codex/responses" => responses(body, context),
        _ => return None,
    };
    let reset = |seconds: u64| now.plus_seconds(seconds).seconds().to_string();
    Some(
        answer
            .with("x-request-id", &id)
            .with("x-oai-request-id", &id)
            .with("x-models-etag", "\"sim-models-1\"")
            .with("x-codex-active-limit", "codex")
            .with("x-codex-plan-type", plan)
            .with("x-codex-primary-used-percent", "12")
            .with("x-codex-primary-window-minutes", "300")
            .with(
                "x-codex-primary-reset-after-seconds",
                RESET_SECONDS.to_string(),
            )
            .with("x-codex-primary-reset-at", reset(RESET_SECONDS))
            .with("x-codex-secondary-used-percent", "34")
            .with("x-codex-secondary-window-minutes", "10080")
            .with(
                "x-codex-secondary-reset-after-seconds",
                (24 * RESET_SECONDS).to_string(),
            )
            .with("x-codex-secondary-reset-at", reset(24 * RESET_SECONDS))
            .with("x-codex-primary-over-secondary-limit-percent", "0")
            .with("x-codex-credits-has-credits", "False")
            .with("x-codex-credits-unlimited", "False")
            .with("x-codex-credits-balance", ""),
    )
}

fn responses(body: &Value, context: Context<'_>) -> Answer {
    let fixture = if body["store"] != Value::Bool(false) {
        fixture!("codex/store_must_be_false.json")
    } else if body["stream"] != Value::Bool(true) {
        fixture!("codex/stream_must_be_true.json")
    } else if let Some(call) = tools::answer(Format::Responses, body, &context) {
        return call;
    } else {
        fixture!("codex/response.sse")
    };
    fixture.answer(&context.reply(body))
}
