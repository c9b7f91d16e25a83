//! The OpenAI API: responses, chat completions, embeddings and models.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Context,
    tools::{self, Format},
};
use crate::{
    answer::Answer,
    fixtures::fixture,
    things::{self, Asked},
};

/// Answers an authenticated request; None: no such endpoint.
pub fn answer(path: &str, body: &Value, context: Context<'_>) -> Option<Answer> {
    let id = format!("req_{}", context.id);
    let streams = body["stream"] == Value::Bool(true);
    let format = match path {
        "/v1/responses" => Some(Format::Responses),
        "/v1/chat/completions" => Some(Format::Chat),
        _ => None,
    };
    let call = format.and_then(|format| tools::answer(format, body, &context));
    let answer = match path {
        _ if let Some(call) = call => call,
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

/// Answers what has a body that is no JSON, or an answer that is none; None: no such endpoint.
pub fn media(asked: Asked<'_>, context: &Context<'_>) -> Option<Answer> {
    let is_form = || {
        ["model", "file", "image"]
            .map(|name| things::part(asked.headers, asked.body, name).is_some())
    };
    let usage = json!({"input_tokens": 5, "output_tokens": 7, "total_tokens": 12});
    let said = format!("Hello from {}", context.account);
    let answer = match asked.path {
        "/v1/audio/speech" => {
            let sound: &[u8] = &[b'I', b'D', b'3', 0xff, 0xfb, 0x90, 0, 0x80, b'"', b'{'];
            Answer::whole(StatusCode::OK, "audio/mpeg", sound.repeat(1_000))
        }
        "/v1/audio/transcriptions" | "/v1/audio/translations"
            if is_form() == [true, true, false] =>
        {
            let text = json!({"text": said, "usage": usage});
            Answer::json(StatusCode::OK, text.to_string())
        }
        "/v1/images/edits" if is_form() == [true, false, true] => image(&usage),
        "/v1/images/generations" => image(&usage),
        _ => return None,
    };
    Some(answer)
}

/// A picture, as a text of which there is much.
fn image(usage: &Value) -> Answer {
    let data = json!([{"b64_json": "iVBORw0KGgo".repeat(20_000)}]);
    let image = json!({"created": 1_790_000_000, "data": data, "usage": usage});
    Answer::json(StatusCode::OK, image.to_string())
}

/// A chat stream carries usage only where the caller asked for it.
fn chat_stream(body: &Value, context: Context<'_>) -> Answer {
    let mut answer = fixture!("openai/chat.sse").answer(&context.reply(body));
    if body["stream_options"]["include_usage"] != Value::Bool(true) {
        answer.body = answer.body.without_events("\"choices\":[]");
    }
    answer
}
