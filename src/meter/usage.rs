//! Token counts, in one meaning for all dialects.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dialect::Dialect;

/// Bytes of text that are taken for one token where a platform says nothing: the usual rule of
/// thumb for English and for code. Other scripts have more tokens to a byte.
pub const BYTES_PER_TOKEN: u64 = 4;

/// What a request used, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All of the prompt. The messages dialect reports only what no cache was involved in; here
    /// what was read from the cache and written to it is in, as in the other dialects.
    pub input: u64,
    /// All that was generated.
    pub output: u64,
    /// The part of `input` that was read from the platform's cache.
    pub cached_input: u64,
    /// The part of `input` that was written to the platform's cache.
    pub cache_write: u64,
    /// The part of `output` that was reasoning.
    pub reasoning: u64,
    /// The platform's own total, or `input` and `output` where it gives none.
    pub total: u64,
}

/// The counts of one or more `usage` objects of one answer, as the platform names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cached_input: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
    total: Option<u64>,
}

/// JSON pointers into a `usage` object; of several the first that holds a count.
struct Names {
    input: &'static [&'static str],
    output: &'static [&'static str],
    cached_input: &'static [&'static str],
    cache_write: &'static [&'static str],
    reasoning: &'static [&'static str],
}

/// Some servers send the counts under the names of two dialects, those of the other one as 0:
/// only a dialect's own names are read. Beside OpenAI's names stand those of DeepSeek
/// (`prompt_cache_hit_tokens`), Moonshot (`cached_tokens`) and of gateways that translate
/// (`cached_creation_tokens`).
const CHAT: Names = Names {
    input: &["/prompt_tokens"],
    output: &["/completion_tokens"],
    cached_input: &[
        "/prompt_tokens_details/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/cached_tokens",
    ],
    cache_write: &[
        "/prompt_tokens_details/cache_write_tokens",
        "/prompt_tokens_details/cached_creation_tokens",
    ],
    reasoning: &["/completion_tokens_details/reasoning_tokens"],
};

const RESPONSES: Names = Names {
    input: &["/input_tokens"],
    output: &["/output_tokens"],
    cached_input: &["/input_tokens_details/cached_tokens"],
    cache_write: &["/input_tokens_details/cache_write_tokens"],
    reasoning: &["/output_tokens_details/reasoning_tokens"],
};

const MESSAGES: Names = Names {
    input: &["/input_tokens"],
    output: &["/output_tokens"],
    cached_input: &["/cache_read_input_tokens"],
    cache_write: &["/cache_creation_input_tokens"],
    reasoning: &["/output_tokens_details/thinking_tokens"],
};

// === impl Counts ===

impl Counts {
    /// Reads a `usage` object. `None` if it is not JSON or has no count in it; a member that is
    /// not a whole number is as good as absent.
    pub fn from_json(object: &[u8], dialect: Dialect) -> Option<Self> {
        let object: Value = serde_json::from_slice(object).ok()?;
        let names = match dialect {
            Dialect::Chat => CHAT,
            Dialect::Responses => RESPONSES,
            Dialect::Messages => MESSAGES,
        };
        let count = |pointers: &[&str]| -> Option<u64> {
            pointers
                .iter()
                .find_map(|pointer| object.pointer(pointer)?.as_u64())
        };
        let counts = Self {
            input: count(names.input),
            output: count(names.output),
            cached_input: count(names.cached_input),
            cache_write: count(names.cache_write),
            reasoning: count(names.reasoning),
            total: count(&["/total_tokens"]),
        };
        (counts != Self::default()).then_some(counts)
    }

    /// Takes over what a later `usage` of the same answer says. Counts are cumulative wherever
    /// they come more than once: a later one replaces an earlier one and is never added to it,
    /// and one that is absent or null leaves it as it was.
    pub fn update(&mut self, later: Self) {
        *self = Self {
            input: later.input.or(self.input),
            output: later.output.or(self.output),
            cached_input: later.cached_input.or(self.cached_input),
            cache_write: later.cache_write.or(self.cache_write),
            reasoning: later.reasoning.or(self.reasoning),
            total: later.total.or(self.total),
        };
    }

    /// The counts in the meaning of [`Usage`].
    pub fn usage(self, dialect: Dialect) -> Usage {
        let cached_input = self.cached_input.unwrap_or(0);
        let cache_write = self.cache_write.unwrap_or(0);
        let reported = self.input.unwrap_or(0);
        let input = match dialect {
            Dialect::Messages => reported
                .saturating_add(cached_input)
                .saturating_add(cache_write),
            Dialect::Chat | Dialect::Responses => reported,
        };
        let output = self.output.unwrap_or(0);
        Usage {
            input,
            output,
            cached_input,
            cache_write,
            reasoning: self.reasoning.unwrap_or(0),
            total: self.total.unwrap_or(input.saturating_add(output)),
        }
    }
}

// === impl Usage ===

impl Usage {
    /// These counts with at least the output that so many bytes of generated text make, or
    /// `None` if they have as much already.
    pub fn with_output_of(self, text_bytes: u64) -> Option<Self> {
        let output = text_bytes.div_ceil(BYTES_PER_TOKEN);
        (output > self.output).then(|| Self {
            output,
            total: self.input.saturating_add(output),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(object: &str, dialect: Dialect) -> Option<Usage> {
        Some(Counts::from_json(object.as_bytes(), dialect)?.usage(dialect))
    }

    #[test]
    fn each_dialect_has_its_names() {
        let expected = Usage {
            input: 11,
            output: 5,
            cached_input: 3,
            cache_write: 4,
            reasoning: 2,
            total: 16,
        };
        for (dialect, object) in [
            (
                Dialect::Chat,
                r#"{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":3,"cached_creation_tokens":4},"completion_tokens_details":{"reasoning_tokens":2},"input_tokens":0,"output_tokens":0}"#,
            ),
            (
                Dialect::Responses,
                r#"{"input_tokens":11,"input_tokens_details":{"cached_tokens":3,"cache_write_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":16}"#,
            ),
            (
                Dialect::Messages,
                r#"{"input_tokens":4,"cache_read_input_tokens":3,"cache_creation_input_tokens":4,"output_tokens":5,"output_tokens_details":{"thinking_tokens":2}}"#,
            ),
        ] {
            assert_eq!(usage(object, dialect), Some(expected));
        }
        for object in [
            r#"{"prompt_tokens":11,"completion_tokens":5,"prompt_cache_hit_tokens":3}"#,
            r#"{"prompt_tokens":11,"completion_tokens":5,"cached_tokens":3,"prompt_tokens_details":null}"#,
        ] {
            let usage = usage(object, Dialect::Chat).unwrap();
            assert_eq!((usage.cached_input, usage.total), (3, 16));
        }
    }

    #[test]
    fn what_is_no_count_is_absent() {
        for object in [
            "{}",
            "[1]",
            "",
            "{\"prompt_tokens\":1",
            "{\"prompt_tokens\":-1}",
        ] {
            assert_eq!(usage(object, Dialect::Chat), None, "{object}");
        }
        let deep = format!("{{\"prompt_tokens\":1,\"x\":{}", "[".repeat(10_000));
        assert_eq!(usage(&deep, Dialect::Chat), None);
        let odd = r#"{"input_tokens":18446744073709551615,"cache_read_input_tokens":7,"output_tokens":"5"}"#;
        let usage = usage(odd, Dialect::Messages).unwrap();
        assert_eq!(
            (usage.input, usage.output, usage.total),
            (u64::MAX, 0, u64::MAX)
        );
    }

    #[test]
    fn an_estimate_only_raises() {
        let reported = Usage {
            input: 10,
            output: 1,
            total: 11,
            ..Usage::default()
        };
        assert_eq!(reported.with_output_of(4), None);
        let raised = reported.with_output_of(9).unwrap();
        assert_eq!((raised.input, raised.output, raised.total), (10, 3, 13));
    }
}
