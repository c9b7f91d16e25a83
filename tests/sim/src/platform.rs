//! The platforms that are simulated, and which path belongs to which.

use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::deployment;

/// A simulated platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// The ChatGPT backend that Codex talks to; OAuth logins.
    Codex,
    /// The OpenAI API; API keys.
    OpenAi,
    /// The Anthropic API; API keys.
    Anthropic,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Codex, Self::OpenAi, Self::Anthropic];

    /// The platform's id in profiles and in the control API.
    pub fn id(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }

    /// The path that its base URL has.
    pub fn base_path(self) -> &'static str {
        match self {
            Self::Codex => "/backend-api/codex",
            Self::OpenAi => "/v1",
            Self::Anthropic => "",
        }
    }

    /// Whose path this is. `/v1/models` and `/v1/files` exist at two platforms: Anthropic's clients are known
    /// by `anthropic-version` or `x-api-key`.
    pub fn of(path: &str, headers: &HeaderMap) -> Option<Self> {
        let anthropic_client =
            headers.contains_key("anthropic-version") || headers.contains_key("x-api-key");
        if path.starts_with("/backend-api/codex/") {
            Some(Self::Codex)
        } else if path.starts_with("/v1/messages")
            || (anthropic_client && (path == "/v1/models" || path.starts_with("/v1/files")))
        {
            Some(Self::Anthropic)
        } else if path.starts_with("/v1/") || path.starts_with(deployment::PATH) {
            Some(Self::OpenAi)
        } else {
            None
        }
    }
}
