//! `responses`: OpenAI Responses, as the API and the ChatGPT backend speak them.

use serde_json::{Map, Value, json};

use super::{
    SessionName,
    chat::{openai_error, openai_model},
    format::{
        Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember, RequestMember,
        RequestValue,
    },
};

/// The format.
pub(super) struct Responses;

const REQUEST: &[RequestMember] = &[
    RequestMember::of_body("model", RequestValue::Model),
    RequestMember::MODELS,
    RequestMember::FALLBACKS,
    RequestMember::of_body("stream", RequestValue::Stream),
    RequestMember::of_body("store", RequestValue::Store),
    RequestMember::of_body("background", RequestValue::Background),
    RequestMember::of_body(
        "prompt_cache_key",
        RequestValue::Session(SessionName::CacheKey),
    ),
    RequestMember::USER_ID,
    RequestMember::of_body(
        "safety_identifier",
        RequestValue::Session(SessionName::SafetyIdentifier),
    ),
    RequestMember::of_body("user", RequestValue::Session(SessionName::User)),
    RequestMember::of_body("previous_response_id", RequestValue::Thing),
    RequestMember::of_body("conversation", RequestValue::Thing),
    RequestMember {
        within: Some("conversation"),
        name: "id",
        meaning: RequestValue::Thing,
    },
];

const OPENING: &[OpeningMember] = &[
    OpeningMember::whole("instructions"),
    OpeningMember::whole("tools"),
    OpeningMember::turns("input"),
];

impl Format for Responses {
    fn word(&self) -> &'static str {
        "responses"
    }

    fn is_hinted_by(&self, path: &str) -> bool {
        path.ends_with("/responses")
    }

    fn request_members(&self) -> &'static [RequestMember] {
        REQUEST
    }

    fn opening(&self) -> &'static [OpeningMember] {
        OPENING
    }

    fn member(&self, name: &[u8]) -> Member {
        match name {
            b"usage" => Member::Usage,
            b"model" => Member::Model,
            b"type" => Member::Type,
            b"error" => Member::Error,
            b"response" => Member::Answer,
            b"output" => Member::Section,
            b"delta" => Member::TextOrSection,
            b"content" | b"text" | b"refusal" | b"arguments" | b"input" => Member::Text,
            _ => Member::Other,
        }
    }

    fn event(&self, kind: &[u8]) -> EventKind {
        match kind {
            b"response.completed" | b"response.incomplete" => EventKind::End,
            // They have what was made in them, and what it used.
            b"image_generation.completed"
            | b"image_edit.completed"
            | b"transcript.text.done"
            | b"speech.audio.done" => EventKind::Plain,
            b"response.failed" => EventKind::Failed,
            b"error" | b"session.error" => EventKind::Error,
            b"response.created" => EventKind::Plain,
            _ if kind.ends_with(b".delta") => EventKind::Plain,
            _ => EventKind::Skipped,
        }
    }

    fn announces_at_once(&self) -> bool {
        true
    }

    fn announces(&self, kind: &[u8]) -> bool {
        matches!(
            kind,
            b"response.created"
                | b"response.in_progress"
                | b"response.queued"
                | b"response.metadata"
                | b"codex.rate_limits"
                | b"codex.response.metadata"
                | b"ping"
                | b"keepalive"
        )
    }

    fn count(&self, details: &[u8], name: &[u8]) -> Option<Count> {
        Some(match (details, name) {
            (b"", b"input_tokens") => Count::Input,
            (b"", b"output_tokens") => Count::Output,
            (b"", b"total_tokens") => Count::Total,
            (b"input_tokens_details", b"cached_tokens") => Count::CachedInput,
            (b"input_tokens_details", b"cache_write_tokens") => Count::CacheWrite,
            (b"output_tokens_details", b"reasoning_tokens") => Count::Reasoning,
            _ => return None,
        })
    }

    fn platforms_error(&self, error: Map<String, Value>) -> Value {
        json!({ "error": error })
    }

    fn error(&self, error: &ErrorText<'_>) -> Value {
        openai_error(error)
    }

    /// Codex alone asks for its list in this dialect. It has its own metadata for models and reads
    /// an empty list as no change.
    fn models(&self, _models: &[ListedModel<'_>]) -> Value {
        json!({"models": []})
    }

    fn model(&self, model: &ListedModel<'_>) -> Value {
        openai_model(model)
    }
}
