//! `messages`: Anthropic messages.

mod answer_reader;
mod answer_writer;
mod request_reader;
mod request_writer;

use serde_json::{Map, Value, json};

use super::{
    Dialect, EffortWord, Parts, Steering,
    demands::{EffortForm, EffortMember, Makes, TierMember},
    format::{
        Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember, RequestMember,
        RequestValue, ThingPlace,
    },
    parts::Counting,
};

/// The mark of what only the platform reads, where it is the signature of a text. Of what is read by nobody else there
/// is no text, and no mark.
const SIGNED: &str = "s.";

/// The format.
pub(super) struct Messages;

const REQUEST: &[RequestMember] = &[
    RequestMember::of_body("model", RequestValue::Model),
    RequestMember::MODELS,
    RequestMember::FALLBACKS,
    RequestMember::of_body("stream", RequestValue::Stream),
    RequestMember::USER_ID,
];

const OPENING: &[OpeningMember] = &[
    OpeningMember::whole("system"),
    OpeningMember::whole("tools"),
    OpeningMember::turns("messages"),
];

/// The places of the ids of things: in messages, and in those of a batch.
const THINGS: &[ThingPlace] = &[
    &["container"],
    &["container", "id"],
    &["messages", "[]", "content", "[]", "file_id"],
    &["messages", "[]", "content", "[]", "source", "file_id"],
    &[
        "messages", "[]", "content", "[]", "content", "[]", "source", "file_id",
    ],
    &["requests", "[]", "params", "container"],
    &["requests", "[]", "params", "container", "id"],
    &[
        "requests", "[]", "params", "messages", "[]", "content", "[]", "file_id",
    ],
    &[
        "requests", "[]", "params", "messages", "[]", "content", "[]", "source", "file_id",
    ],
    &[
        "requests", "[]", "params", "messages", "[]", "content", "[]", "content", "[]", "source",
        "file_id",
    ],
];

/// The members that steer a model. Its thoughts are part of the bound of its answer.
static STEERING: Steering = Steering {
    efforts: &[
        EffortMember {
            path: &["output_config", "effort"],
            form: EffortForm::Word(EffortWord::Low, EffortWord::Max),
            is_own: false,
        },
        EffortMember {
            path: &["thinking", "budget_tokens"],
            form: EffortForm::Tokens {
                least: 1024,
                within_bound: true,
            },
            is_own: false,
        },
    ],
    off: Some(("thinking", r#"{"type":"disabled"}"#)),
    unsaid: Some(EffortWord::High),
    tiers: &[
        TierMember {
            name: "service_tier",
            values: [
                Some("\"auto\""),
                Some("\"standard_only\""),
                Some("\"standard_only\""),
                Some("\"auto\""),
            ],
            makes: Makes::IfTaken,
        },
        // Fast costs more than any tier.
        TierMember {
            name: "speed",
            values: [Some("\"standard\""); 4],
            makes: Makes::Never,
        },
    ],
    ..Steering::NONE
};

impl Format for Messages {
    fn word(&self) -> &'static str {
        "messages"
    }

    fn listed_with(&self) -> &'static [Dialect] {
        &[Dialect::Messages]
    }

    fn own_header(&self) -> Option<&'static str> {
        Some("anthropic-version")
    }

    fn is_hinted_by(&self, path: &str) -> bool {
        path.contains("/messages")
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
        &[&["model"], &["message", "model"]]
    }

    fn member(&self, name: &[u8]) -> Member {
        match name {
            b"usage" => Member::Usage,
            b"model" => Member::Model,
            b"type" => Member::Type,
            b"error" => Member::Error,
            b"message" => Member::Answer,
            b"content" | b"delta" => Member::TextOrSection,
            b"text" | b"thinking" | b"partial_json" => Member::Text,
            _ => Member::Other,
        }
    }

    fn event(&self, kind: &[u8]) -> EventKind {
        match kind {
            b"message_start" => EventKind::Start,
            b"message_stop" => EventKind::End,
            b"error" | b"session.error" => EventKind::Error,
            b"content_block_delta" | b"message_delta" => EventKind::Plain,
            _ => EventKind::Skipped,
        }
    }

    fn announces_at_once(&self) -> bool {
        true
    }

    fn announces(&self, kind: &[u8]) -> bool {
        matches!(kind, b"message_start" | b"ping" | b"keepalive")
    }

    /// The beginning of a block that has no text yet.
    fn announces_in(&self, data: &Value) -> bool {
        fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
            value.get(name)?.as_str()
        }
        let begins = text(data, "type") == Some("content_block_start");
        let block = data.get("content_block").filter(|_| begins);
        block.is_some_and(|block| match text(block, "type") {
            Some(kind @ ("text" | "thinking")) => text(block, kind) == Some(""),
            _ => false,
        })
    }

    fn count(&self, details: &[u8], name: &[u8]) -> Option<Count> {
        Some(match (details, name) {
            (b"", b"input_tokens") => Count::Input,
            (b"", b"output_tokens") => Count::Output,
            (b"", b"total_tokens") => Count::Total,
            (b"", b"cache_read_input_tokens") => Count::CachedInput,
            (b"", b"cache_creation_input_tokens") => Count::CacheWrite,
            (b"output_tokens_details", b"thinking_tokens") => Count::Reasoning,
            _ => return None,
        })
    }

    fn counts_cache_apart(&self) -> bool {
        true
    }

    fn platforms_error(&self, _: u16, error: Map<String, Value>) -> Value {
        json!({"type": "error", "error": error})
    }

    fn error(&self, error: &ErrorText<'_>) -> Value {
        let ErrorText {
            status,
            message,
            code,
            resets_at: _,
        } = error;
        let kind = match status {
            400 | 405 | 415 | 426 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            _ => "api_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": message, "code": code}})
    }

    fn request_id_header(&self) -> &'static str {
        "request-id"
    }

    fn models(&self, models: &[ListedModel<'_>]) -> Value {
        json!({
            "data": models.iter().map(|model| self.model(model)).collect::<Vec<Value>>(),
            "has_more": false,
            "first_id": models.first().map(|model| model.id),
            "last_id": models.last().map(|model| model.id),
        })
    }
    fn model(&self, model: &ListedModel<'_>) -> Value {
        json!({"type": "model", "id": model.id, "display_name": model.id, "created_at": "1970-01-01T00:00:00Z"})
    }

    fn parts(&self) -> Parts {
        Parts {
            richness: 2,
            count: Some(Counting {
                member: "input_tokens",
                about: None,
                takes: &[
                    "model",
                    "messages",
                    "system",
                    "tools",
                    "tool_choice",
                    "thinking",
                    "output_config",
                    "cache_control",
                ],
                within: None,
            }),
            read_request: Some(request_reader::read),
            write_request: Some(request_writer::write),
            read_answer: Some(answer_reader::Reader::begin),
            write_answer: Some(answer_writer::Writer::of),
            state_is_the_platforms: true,
            overloaded: 529,
            ..Parts::default()
        }
    }
}
