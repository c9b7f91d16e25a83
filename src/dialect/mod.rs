//! The wire formats of LLM requests, and how each of them says no.

pub mod refusal;

use serde::{Deserialize, Serialize};

pub use refusal::Refusal;

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Anthropic messages.
    Messages,
}

// === impl Dialect ===

impl Dialect {
    /// The dialect in one word, as profiles write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }

    /// The dialect in which a caller of `path` expects an error.
    pub fn of_path(path: &str, speaks_anthropic: bool) -> Self {
        if speaks_anthropic || path.starts_with("/v1/messages") {
            Self::Messages
        } else if path.ends_with("/responses") {
            Self::Responses
        } else {
            Self::Chat
        }
    }
}
