//! `chat`: OpenAI chat completions, and what other platforms made of them.

mod answer_reader;
mod answer_writer;
mod request_reader;
pub(super) mod request_writer;
mod usage_option;

use serde_json::{Map, Value, json};

use super::{
    EffortWord, Parts, SessionName, Steering,
    demands::{EffortForm, EffortMember, Makes, TierMember},
    format::{
        AskUsage, Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember,
        RequestMember, RequestValue, ThingPlace,
    },
};

/// The format.
pub(super) struct Chat;

/// The member of a call in which Google's own form of this dialect has the signature that has to come back with it:
/// `extra_content.google.thought_signature`.
const EXTRA: &str = "extra_content";
const MAKER: &str = "google";
const SIGNATURE: &str = "thought_signature";

pub(super) const REQUEST: &[RequestMember] = &[
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
    // Not OpenAI's own, but a session is a session wherever a client names it.
    RequestMember::of_body("previous_response_id", RequestValue::Thing),
];

const OPENING: &[OpeningMember] = &[
    OpeningMember::whole("tools"),
    OpeningMember::whole("functions"),
    OpeningMember::turns("messages"),
];

/// The places of the ids of things: in chats, batches and vector stores.
const THINGS: &[ThingPlace] = &[
    &["previous_response_id"],
    &["messages", "[]", "content", "[]", "file", "file_id"],
    &["input_file_id"],
    &["file_id"],
    &["file_ids", "[]"],
    &["files", "[]", "file_id"],
];

/// OpenAI's own, OpenRouter's, and those of the platforms that bound what a model thinks by tokens.
static STEERING: Steering = Steering {
    efforts: &[
        EffortMember {
            path: &["reasoning_effort"],
            form: EffortForm::Word(EffortWord::None, EffortWord::Max),
            is_own: false,
        },
        EffortMember {
            path: &["reasoning", "effort"],
            form: EffortForm::Word(EffortWord::None, EffortWord::Max),
            is_own: true,
        },
        EffortMember {
            path: &["reasoning", "max_tokens"],
            form: TOKENS,
            is_own: true,
        },
        EffortMember {
            path: &["thinking", "budget_tokens"],
            form: TOKENS,
            is_own: true,
        },
        EffortMember {
            path: &["thinking_budget"],
            form: TOKENS,
            is_own: true,
        },
        // Google's.
        EffortMember {
            path: &["extra_body", "google", "thinking_config", "thinking_budget"],
            form: TOKENS,
            is_own: true,
        },
        EffortMember {
            path: &["extra_body", "google", "thinking_config", "thinking_level"],
            form: EffortForm::Word(EffortWord::Minimal, EffortWord::High),
            is_own: true,
        },
    ],
    tiers: &[TierMember::openai(Makes::IfTaken)],
    ..Steering::NONE
};

const TOKENS: EffortForm = EffortForm::Tokens {
    least: 0,
    within_bound: false,
};

impl Format for Chat {
    fn word(&self) -> &'static str {
        "chat"
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

    fn asks_usage(&self) -> Option<AskUsage> {
        Some(usage_option::ask)
    }

    fn things(&self) -> &'static [ThingPlace] {
        THINGS
    }

    fn member(&self, name: &[u8]) -> Member {
        match name {
            b"choices" => Member::Choices,
            b"usage" => Member::Usage,
            b"model" => Member::Model,
            b"error" => Member::Error,
            // `reasoning` is OpenRouter's name, `reasoning_content` DeepSeek's; `input` is that of
            // a custom tool.
            b"content" | b"text" | b"refusal" | b"arguments" | b"input" | b"reasoning"
            | b"reasoning_content" | b"thinking" => Member::Text,
            _ => Member::Other,
        }
    }

    /// Events have no names in this dialect, but for those of errors. `session.error` is that of
    /// Ark.
    fn event(&self, kind: &[u8]) -> EventKind {
        match kind {
            b"error" | b"session.error" => EventKind::Error,
            _ => EventKind::Plain,
        }
    }

    fn announces(&self, kind: &[u8]) -> bool {
        matches!(kind, b"ping" | b"keepalive")
    }

    /// The first chunk has a role alone, or says what a filter found in the prompt.
    fn announces_in(&self, data: &Value) -> bool {
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        let says_nothing = |choice: &Value| {
            let delta = choice.get("delta").and_then(Value::as_object);
            let mut members = delta.into_iter().flatten();
            ["finish_reason", "text", "message"]
                .iter()
                .all(|name| choice.get(name).is_none_or(is_empty))
                && members.all(|(name, value)| name == "role" || is_empty(value))
        };
        let choices = data.get("choices").and_then(Value::as_array);
        choices.is_some_and(|choices| choices.iter().all(says_nothing))
            && data.get("usage").is_none_or(Value::is_null)
    }

    fn end_mark(&self) -> Option<&'static [u8]> {
        Some(b"[DONE]")
    }

    /// Beside OpenAI's names stand those of DeepSeek (`prompt_cache_hit_tokens`), of Moonshot
    /// (`cached_tokens`) and of gateways that translate (`cached_creation_tokens`).
    fn count(&self, details: &[u8], name: &[u8]) -> Option<Count> {
        Some(match (details, name) {
            (b"", b"prompt_tokens") => Count::Input,
            (b"", b"completion_tokens") => Count::Output,
            (b"", b"total_tokens") => Count::Total,
            (b"", b"prompt_cache_hit_tokens" | b"cached_tokens")
            | (b"prompt_tokens_details", b"cached_tokens") => Count::CachedInput,
            (b"prompt_tokens_details", b"cache_write_tokens" | b"cached_creation_tokens") => {
                Count::CacheWrite
            }
            (b"completion_tokens_details", b"reasoning_tokens") => Count::Reasoning,
            _ => return None,
        })
    }

    fn platforms_error(&self, _: u16, error: Map<String, Value>) -> Value {
        json!({ "error": error })
    }

    fn error(&self, error: &ErrorText<'_>) -> Value {
        openai_error(error)
    }

    fn models(&self, models: &[ListedModel<'_>]) -> Value {
        json!({"object": "list", "data": models.iter().map(openai_model).collect::<Vec<Value>>()})
    }

    fn model(&self, model: &ListedModel<'_>) -> Value {
        openai_model(model)
    }

    fn parts(&self) -> Parts {
        Parts {
            richness: 0,
            read_request: Some(request_reader::read),
            write_request: Some(request_writer::write),
            read_answer: Some(answer_reader::Reader::begin),
            write_answer: Some(Writer::of),
            ..Parts::default()
        }
    }
}

pub(super) use self::{
    answer_writer::{Writer, error as openai_failure, openai_code},
    request_reader::read as read_request,
};

/// A model as OpenAI writes it in both of its dialects.
pub(super) fn openai_model(model: &ListedModel<'_>) -> Value {
    json!({"id": model.id, "object": "model", "created": 0, "owned_by": model.owner})
}

/// An error as OpenAI writes it in both of its dialects.
pub(super) fn openai_error(error: &ErrorText<'_>) -> Value {
    let ErrorText {
        status,
        message,
        code,
        resets_at: _,
    } = error;
    let kind = match status {
        400 | 401 | 403 | 404 | 405 | 413 | 415 | 426 => "invalid_request_error",
        429 => "rate_limit_error",
        _ => "server_error",
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}
