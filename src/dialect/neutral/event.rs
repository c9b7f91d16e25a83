//! An answer in no dialect: steps, in the order in which they come.

use crate::text::tree::Json;

/// A step of an answer. Blocks are numbered in the order in which they open.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The answer begins.
    Start {
        /// The platform's name for it.
        id: String,
        /// The model that serves.
        model: String,
    },
    /// A block begins.
    Open {
        /// Its number.
        block: u32,
        /// Its kind.
        kind: BlockKind,
    },
    /// More of a block: of its text, or of a call's arguments.
    Delta {
        /// Its number.
        block: u32,
        /// The text.
        text: String,
    },
    /// State that only the maker of a block of reasoning reads.
    Opaque {
        /// Its number.
        block: u32,
        /// The whole of it.
        data: String,
    },
    /// A block is whole.
    Close {
        /// Its number.
        block: u32,
    },
    /// Tokens, as far as they are told; what comes later counts.
    Usage(Tokens),
    /// The answer ends for this reason.
    Finish(Finish),
    /// The answer fails.
    Fail(Failure),
    /// Nothing follows.
    End,
}

/// The kinds of an answer's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockKind {
    /// Text.
    Text,
    /// A refusal in words.
    Refusal,
    /// Thoughts of the model.
    Reasoning,
    /// A call.
    Call {
        /// The id by which the result will name it.
        id: String,
        /// The tool.
        name: String,
        /// The tool takes a raw text.
        raw: bool,
    },
}

/// Tokens. A number that was not told is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The tokens of the prompt, without those that a cache was involved in.
    pub input: Option<u64>,
    /// Read from the platform's cache.
    pub cache_read: Option<u64>,
    /// Written to the platform's cache.
    pub cache_write: Option<u64>,
    /// Made, with the reasoning.
    pub output: Option<u64>,
    /// The reasoning.
    pub reasoning: Option<u64>,
}

// === impl Event ===

impl Event {
    /// The beginning of an answer, as far as its members of these names tell its id and its model.
    pub fn start(answer: Option<Json<'_, '_>>, [id, model]: [&str; 2]) -> Self {
        let text = |name| answer.and_then(|answer| answer.text_at(name));
        let text = |name| text(name).map(|text| text.plain().into_owned());
        Self::Start {
            id: text(id).unwrap_or_default(),
            model: text(model).unwrap_or_default(),
        }
    }
}

// === impl BlockKind ===

impl BlockKind {
    /// Returns true if the block is a call of this tool.
    pub fn is_call_of(&self, tool: Option<&str>) -> bool {
        matches!(self, Self::Call { name, .. } if tool == Some(name))
    }
}

// === impl Tokens ===

impl Tokens {
    /// The whole prompt.
    pub fn prompt(&self) -> u64 {
        let parts = [self.input, self.cache_read, self.cache_write];
        parts.into_iter().flatten().fold(0, u64::saturating_add)
    }

    /// Takes what `later` tells.
    pub fn update(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.cache_read = later.cache_read.or(self.cache_read);
        self.cache_write = later.cache_write.or(self.cache_write);
        self.output = later.output.or(self.output);
        self.reasoning = later.reasoning.or(self.reasoning);
    }
}

/// The reason for which an answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The answer is whole.
    Done,
    /// The answer met a text of [`Request::stop`], which is told if it is known.
    Stop(Option<String>),
    /// Tools are called.
    Calls,
    /// The answer has as many tokens as it may.
    Length,
    /// The conversation is as long as the model takes.
    ContextFull,
    /// The model or a filter refuses.
    Refused,
    /// A tool of the platform's own works on.
    Paused,
}

// === impl Finish ===

impl Finish {
    /// Returns true if the answer ended in the middle of what the model was about to say.
    pub fn cuts(&self) -> bool {
        matches!(self, Self::Length | Self::ContextFull | Self::Refused)
    }
}

/// A failure that a platform tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status that says the same.
    pub status: u16,
    /// The platform's sentence.
    pub message: String,
    /// The platform's code.
    pub code: Option<String>,
}

/// The code of a conversation that is longer than the model takes.
pub const CONTEXT_LENGTH: &str = "context_length_exceeded";

/// The words in which platforms that have no code for it say that.
const TOO_LONG: [&str; 3] = [
    "prompt is too long",
    "exceeds the maximum number of tokens",
    "maximum context length",
];

/// Google's words for statuses.
const STATUS_WORDS: [&str; 8] = [
    "INVALID_ARGUMENT",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
];

/// Returns true if a platform's word says the status alone: a number, a type of OpenAI's or Anthropic's, a word of
/// Google's.
fn is_status_word(word: &str) -> bool {
    word.ends_with("_error")
        || word.bytes().all(|byte| byte.is_ascii_digit())
        || STATUS_WORDS.contains(&word)
}

// === impl Failure ===

impl Failure {
    /// A platform that breaks the grammar of its own dialect.
    pub fn grammar(why: &str) -> Self {
        Self {
            status: 502,
            message: why.to_owned(),
            code: None,
        }
    }

    /// An event of the platform that is no JSON.
    pub fn event_is_no_json() -> Self {
        Self::grammar("an event of the platform is no JSON")
    }

    /// An answer of the platform that is no JSON.
    pub fn answer_is_no_json() -> Self {
        Self::grammar("the platform's answer is no JSON")
    }

    /// A stream of the platform that ends before its answer does.
    pub fn stream_broke_off() -> Self {
        Self::grammar("the platform's stream broke off")
    }

    /// An answer of the platform that does not say how it ends.
    pub fn answer_broke_off() -> Self {
        Self::grammar("the platform's answer broke off")
    }

    /// The gateway has no memory left for the answer.
    pub fn no_room() -> Self {
        Self {
            status: 503,
            message: "the gateway has no room for more of this answer now; try again in a moment"
                .to_owned(),
            code: Some("latchkey_no_room".to_owned()),
        }
    }

    /// An error object, of OpenAI's form or Anthropic's.
    pub fn of(error: Json<'_, '_>) -> Self {
        let text = |name| error.text_at(name).map(|text| text.plain().into_owned());
        let code = text("code").or_else(|| text("type"));
        let code = code.or_else(|| text("status"));
        let status = match code.as_deref().unwrap_or_default() {
            "rate_limit_exceeded"
            | "rate_limit_error"
            | "insufficient_quota"
            | "usage_limit_reached" => 429,
            "server_is_overloaded" | "slow_down" | "overloaded_error" => 503,
            "context_length_exceeded" | "invalid_prompt" | "invalid_request_error" => 400,
            "timeout" | "timeout_error" => 504,
            _ => 500,
        };
        // Google and others say the status itself.
        let told = error.get("code").and_then(Json::whole);
        let told = told.and_then(|code| u16::try_from(code).ok());
        let status = told
            .filter(|code| (400..600).contains(code))
            .unwrap_or(status);
        let message = text("message").or_else(|| {
            let text = error.text()?;
            Some(text.plain().into_owned())
        });
        let words = [text("code"), text("type"), text("status")];
        let words = words.iter().flatten().map(String::as_str);
        Self::told(status, &message.unwrap_or_default(), words)
    }

    /// A failure that a platform told with these words for it. Its code is the first that tells more than a status does.
    pub fn told<'a>(status: u16, message: &str, mut words: impl Iterator<Item = &'a str>) -> Self {
        let is_too_long = status == 400 && TOO_LONG.iter().any(|words| message.contains(words));
        let code = match is_too_long {
            true => Some(CONTEXT_LENGTH),
            false => words.find(|word| !is_status_word(word)),
        };
        Self {
            status,
            message: message.to_owned(),
            code: code.map(str::to_owned),
        }
    }
}
