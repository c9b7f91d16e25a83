//! `responses`: OpenAI Responses, as the API and the ChatGPT backend speak them.

mod answer_reader;
mod answer_writer;
mod item;
mod request_reader;
mod request_writer;
mod tools;

use serde_json::{Map, Value, json};

use super::{
    EffortWord, Parts, SessionName, Steering,
    chat::{openai_error, openai_model},
    demands::{EffortForm, EffortMember, Makes, TierMember},
    format::{
        Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember, RequestMember,
        RequestValue, ThingPlace,
    },
    parts::Counting,
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

/// The places of the ids of things: in responses, in items of a conversation, and in edits of images.
const THINGS: &[ThingPlace] = &[
    &["previous_response_id"],
    &["conversation"],
    &["conversation", "id"],
    &["input", "[]", "content", "[]", "file_id"],
    &["input", "[]", "output", "[]", "file_id"],
    &["input", "[]", "output", "file_id"],
    &["items", "[]", "content", "[]", "file_id"],
    &["items", "[]", "output", "[]", "file_id"],
    &["items", "[]", "output", "file_id"],
    &["prompt", "variables", "*", "file_id"],
    &["tools", "[]", "vector_store_ids", "[]"],
    &["tools", "[]", "container"],
    &["tools", "[]", "container", "file_ids", "[]"],
    &["tools", "[]", "environment", "container_id"],
    &["tools", "[]", "environment", "file_ids", "[]"],
    &["tools", "[]", "input_image_mask", "file_id"],
    &["images", "[]", "file_id"],
    &["mask", "file_id"],
];

static STEERING: Steering = Steering {
    efforts: &[EffortMember {
        path: &["reasoning", "effort"],
        form: EffortForm::Word(EffortWord::None, EffortWord::Max),
        is_own: false,
    }],
    takes_efforts: true,
    tiers: &[TierMember::openai(Makes::UnlessRefused)],
    ..Steering::NONE
};

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

    fn steering(&self) -> &'static Steering {
        &STEERING
    }

    fn things(&self) -> &'static [ThingPlace] {
        THINGS
    }

    fn answer_models(&self) -> &'static [&'static [&'static str]] {
        &[&["model"], &["response", "model"]]
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

    fn has_quiet_events(&self) -> bool {
        false
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

    fn platforms_error(&self, _: u16, error: Map<String, Value>) -> Value {
        json!({ "error": error })
    }

    fn error(&self, error: &ErrorText<'_>) -> Value {
        let mut body = openai_error(error);
        if let (429, Some(resets_at)) = (error.status, error.resets_at) {
            // Of any other 429 Codex says that it is one, and nothing more. Of this it says until when.
            if let Some(members) = body.get_mut("error").and_then(Value::as_object_mut) {
                members.insert("type".to_owned(), "usage_limit_reached".into());
                members.insert("resets_at".to_owned(), resets_at.into());
            }
        }
        body
    }

    /// Codex alone asks for its list in this dialect. It has its own metadata for models and reads
    /// an empty list as no change.
    fn models(&self, _models: &[ListedModel<'_>]) -> Value {
        json!({"models": []})
    }

    fn model(&self, model: &ListedModel<'_>) -> Value {
        openai_model(model)
    }

    fn parts(&self) -> Parts {
        Parts {
            count: Some(Counting {
                member: "input_tokens",
                about: Some(("object", "response.input_tokens")),
                takes: &[
                    "model",
                    "input",
                    "instructions",
                    "tools",
                    "tool_choice",
                    "parallel_tool_calls",
                    "reasoning",
                    "text",
                ],
                within: None,
            }),
            read_request: Some(request_reader::read),
            richness: 3,
            write_request: Some(request_writer::write),
            read_answer: Some(answer_reader::Reader::begin),
            write_answer: Some(answer_writer::Writer::of),
            ..Parts::default()
        }
    }
}
