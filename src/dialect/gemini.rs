//! `gemini`: Google's `generateContent`. The model and the wish for a stream are in the path.
//!
//! A stream is events of whole answers (`alt=sse`), or one JSON list of them. It has no mark at its end: an
//! answer has ended that says why.

mod answer_reader;
mod answer_writer;
mod request_reader;
mod request_writer;
mod schema;

use serde_json::{Map, Value, json};

use super::{
    Dialect, EffortWord, Steering,
    demands::{EffortForm, EffortMember, Makes, TierMember},
    format::{
        Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember, RequestMember,
    },
    parts::{Counting, Parts},
};

/// The format.
pub(super) struct Gemini;

/// Google takes names with underscores too.
const OPENING: &[OpeningMember] = &[
    OpeningMember::whole("systemInstruction"),
    OpeningMember::whole("system_instruction"),
    OpeningMember::whole("tools"),
    OpeningMember::turns("contents"),
];

/// The members of an answer that has nothing generated in it.
const ABOUT: [&str; 4] = ["createTime", "modelVersion", "responseId", "usageMetadata"];

static STEERING: Steering = Steering {
    efforts: &[
        EffortMember {
            path: &["generationConfig", "thinkingConfig", "thinkingLevel"],
            form: EffortForm::Capitals(EffortWord::Minimal, EffortWord::High),
            is_own: false,
        },
        EffortMember {
            path: &["generationConfig", "thinkingConfig", "thinkingBudget"],
            form: EffortForm::Tokens {
                least: 0,
                within_bound: false,
            },
            is_own: false,
        },
    ],
    within: &["generationConfig", "thinkingConfig"],
    unsaid: Some(EffortWord::High),
    tiers: &[TierMember {
        name: "serviceTier",
        values: [
            Some("\"unspecified\""),
            Some("\"standard\""),
            Some("\"flex\""),
            Some("\"priority\""),
        ],
        makes: Makes::IfTaken,
    }],
    ..Steering::NONE
};

impl Format for Gemini {
    fn word(&self) -> &'static str {
        "gemini"
    }

    fn listed_with(&self) -> &'static [Dialect] {
        &[Dialect::Gemini]
    }

    fn is_hinted_by(&self, path: &str) -> bool {
        path.contains("/v1beta/")
    }

    /// The path says all that decides.
    fn request_members(&self) -> &'static [RequestMember] {
        &[]
    }

    fn opening(&self) -> &'static [OpeningMember] {
        OPENING
    }

    fn steering(&self) -> &'static Steering {
        &STEERING
    }

    fn answer_models(&self) -> &'static [&'static [&'static str]] {
        &[&["modelVersion"]]
    }

    fn member(&self, name: &[u8]) -> Member {
        match name {
            b"usageMetadata" => Member::Usage,
            b"modelVersion" => Member::Model,
            b"error" => Member::Error,
            b"candidates" | b"promptFeedback" => Member::Section,
            b"text" => Member::Text,
            b"finishReason" | b"blockReason" => Member::Finish,
            _ => Member::Other,
        }
    }

    /// Events have no names, and no type.
    fn event(&self, kind: &[u8]) -> EventKind {
        match kind {
            b"error" => EventKind::Error,
            _ => EventKind::Plain,
        }
    }

    fn announces(&self, kind: &[u8]) -> bool {
        matches!(kind, b"ping" | b"keepalive")
    }

    fn announces_in(&self, data: &Value) -> bool {
        let is_about = |name: &String| ABOUT.contains(&name.as_str());
        data.as_object()
            .is_some_and(|members| members.keys().all(is_about))
    }

    fn count(&self, details: &[u8], name: &[u8]) -> Option<Count> {
        Some(match (details, name) {
            (b"", b"promptTokenCount") => Count::Input,
            (b"", b"toolUsePromptTokenCount") => Count::ToolInput,
            (b"", b"candidatesTokenCount") => Count::Output,
            (b"", b"thoughtsTokenCount") => Count::Reasoning,
            (b"", b"cachedContentTokenCount") => Count::CachedInput,
            (b"", b"totalTokenCount") => Count::Total,
            _ => return None,
        })
    }

    fn counts_reasoning_apart(&self) -> bool {
        true
    }

    fn platforms_error(&self, _: u16, error: Map<String, Value>) -> Value {
        json!({ "error": error })
    }

    fn error(&self, error: &ErrorText<'_>) -> Value {
        let ErrorText {
            status,
            message,
            code,
            resets_at: _,
        } = error;
        let word = status_word(*status);
        let reason = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "latchkey",
        });
        json!({"error": {"code": status, "message": message, "status": word, "details": [reason]}})
    }

    fn models(&self, models: &[ListedModel<'_>]) -> Value {
        json!({"models": models.iter().map(|model| self.model(model)).collect::<Vec<Value>>()})
    }

    fn model(&self, model: &ListedModel<'_>) -> Value {
        let name = format!("models/{}", model.id);
        let methods = ["generateContent", "streamGenerateContent", "countTokens"];
        json!({"name": name, "displayName": model.id, "supportedGenerationMethods": methods})
    }

    fn parts(&self) -> Parts {
        Parts {
            count: Some(Counting {
                member: "totalTokens",
                about: None,
                takes: &[
                    "contents",
                    "systemInstruction",
                    "tools",
                    "toolConfig",
                    "generationConfig",
                ],
                within: Some("generateContentRequest"),
            }),
            read_request: Some(request_reader::read),
            write_request: Some(request_writer::write),
            read_answer: Some(answer_reader::Reader::begin),
            stream_query: "alt=sse",
            state_is_the_platforms: true,
            state_is_of_calls: true,
            richness: 1,
            read_target: Some(request_reader::read_target),
            write_answer: Some(answer_writer::Writer::of),
            ..Parts::default()
        }
    }
}

/// Google's word for an HTTP status.
fn status_word(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        402 | 429 => "RESOURCE_EXHAUSTED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        400..=499 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}
