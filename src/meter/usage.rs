//! Token counts, in one meaning for all dialects.

use serde::{Deserialize, Serialize};

use crate::dialect::{Count, Dialect};

/// Bytes of text that are taken for one token where a platform says nothing: the usual rule of
/// thumb for English and for code. Other scripts have more tokens to a byte.
pub const BYTES_PER_TOKEN: u64 = 4;

/// Bytes of a request's body that are taken for one token of its prompt where a platform says
/// nothing: a body is mostly the prompt's text, so the same rule of thumb holds. The JSON around
/// the text makes it a little too much and an image in base64 far too much. That is the right side
/// to be wrong on: what is too little could be had for nothing by whoever always leaves early.
pub const BODY_BYTES_PER_TOKEN: u64 = 4;

/// The most tokens that a request is believed to have used, of any kind: more than the largest
/// context that models have (10 million), so no real request comes near it. A platform's answer
/// that is broken or hostile uses up no more of a limit than that, and no sum of such overflows.
pub const MAX_TOKENS: u64 = 1 << 24;

/// The tokens that a request used; no count is above [`MAX_TOKENS`].
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
    tool_input: Option<u64>,
    output: Option<u64>,
    cached_input: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
    total: Option<u64>,
}

/// Reads one `usage` object from its tokens and the bytes between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageReader {
    counts: Counts,
    /// The member that the object within the object is the value of.
    details: Vec<u8>,
    number: Number,
}

/// A value, as far as it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Number {
    #[default]
    None,
    Whole(u64),
    /// Something else than a whole number that fits.
    Other,
}

// === impl Counts ===

impl Counts {
    /// The place of a count.
    fn of(&mut self, count: Count) -> &mut Option<u64> {
        match count {
            Count::Input => &mut self.input,
            Count::ToolInput => &mut self.tool_input,
            Count::Output => &mut self.output,
            Count::CachedInput => &mut self.cached_input,
            Count::CacheWrite => &mut self.cache_write,
            Count::Reasoning => &mut self.reasoning,
            Count::Total => &mut self.total,
        }
    }

    /// Takes over what a later `usage` of the same answer says. Counts are cumulative wherever
    /// they come more than once: a later one replaces an earlier one and is never added to it,
    /// and one that is absent or null leaves it as it was.
    pub fn update(&mut self, later: Self) {
        *self = Self {
            input: later.input.or(self.input),
            tool_input: later.tool_input.or(self.tool_input),
            output: later.output.or(self.output),
            cached_input: later.cached_input.or(self.cached_input),
            cache_write: later.cache_write.or(self.cache_write),
            reasoning: later.reasoning.or(self.reasoning),
            total: later.total.or(self.total),
        };
    }

    /// Returns true if the counts say how long the prompt was.
    pub fn say_input(&self) -> bool {
        self.input.is_some()
    }

    /// The counts in the meaning of [`Usage`], each at most [`MAX_TOKENS`].
    pub fn usage(self, dialect: Dialect) -> Usage {
        let cached_input = self.cached_input.unwrap_or(0);
        let cache_write = self.cache_write.unwrap_or(0);
        let reported = self.input.unwrap_or(0);
        let reported = reported.saturating_add(self.tool_input.unwrap_or(0));
        let input = if dialect.format().counts_cache_apart() {
            reported
                .saturating_add(cached_input)
                .saturating_add(cache_write)
        } else {
            reported
        };
        let reasoning = self.reasoning.unwrap_or(0);
        let reported = self.output.unwrap_or(0);
        let output = if dialect.format().counts_reasoning_apart() {
            reported.saturating_add(reasoning)
        } else {
            reported
        };
        let total = self.total.unwrap_or(input.saturating_add(output));
        Usage {
            input: input.min(MAX_TOKENS),
            output: output.min(MAX_TOKENS),
            cached_input: cached_input.min(MAX_TOKENS),
            cache_write: cache_write.min(MAX_TOKENS),
            reasoning: reasoning.min(MAX_TOKENS),
            total: total.min(MAX_TOKENS),
        }
    }
}

// === impl UsageReader ===

impl UsageReader {
    /// The next bytes, up to and with the token that the calls below are for.
    pub fn push(&mut self, bytes: &[u8]) {
        self.number = bytes
            .iter()
            .fold(self.number, |number, byte| number.then(*byte));
    }

    /// A `:`; the value comes next.
    pub fn begin_value(&mut self) {
        self.number = Number::None;
    }

    /// A value that is an object or array begins, of the member `name`.
    pub fn begin_details(&mut self, name: &[u8]) {
        self.details.clear();
        self.details.extend_from_slice(name);
    }

    /// The value of the member `name` has ended; `in_details`: of the object within the object.
    pub fn end_value(&mut self, dialect: Dialect, in_details: bool, name: &[u8]) {
        let details = if in_details {
            self.details.as_slice()
        } else {
            b""
        };
        if let Number::Whole(number) = std::mem::take(&mut self.number)
            && let Some(count) = dialect.format().count(details, name)
        {
            *self.counts.of(count) = Some(number);
        }
    }

    /// Ends the object and begins the next one. `None` if it had no count.
    pub fn end(&mut self) -> Option<Counts> {
        self.number = Number::None;
        let counts = std::mem::take(&mut self.counts);
        (counts != Counts::default()).then_some(counts)
    }
}

#[cfg(test)]
impl UsageReader {
    /// The bytes that are kept of the object.
    pub fn kept_bytes(&self) -> usize {
        self.details.len()
    }
}

// === impl Number ===

impl Number {
    fn then(self, byte: u8) -> Self {
        let digit = match byte {
            b'0'..=b'9' => u64::from(byte & 0x0f),
            // Before and after a value.
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' => return self,
            _ => return Self::Other,
        };
        let number = match self {
            Self::None => Some(digit),
            Self::Whole(number) => number
                .checked_mul(10)
                .and_then(|number| number.checked_add(digit)),
            Self::Other => None,
        };
        number.map_or(Self::Other, Self::Whole)
    }
}

// === impl Usage ===

impl Usage {
    /// The estimate for a request with a body of so many bytes that went out, and of whose answer
    /// nothing came before its caller left; none where it has no body.
    pub fn of_request(body_bytes: u64) -> Option<Self> {
        (body_bytes > 0).then(|| Self::default().with_input_of(body_bytes))
    }

    /// Raises these counts to at least the input that a request's body of so many bytes makes.
    #[must_use]
    pub fn with_input_of(self, body_bytes: u64) -> Self {
        self.at_least(body_bytes.div_ceil(BODY_BYTES_PER_TOKEN), 0)
    }

    /// Raises these counts to at least the output that so many bytes of generated text make.
    #[must_use]
    pub fn with_output_of(self, text_bytes: u64) -> Self {
        self.at_least(0, text_bytes.div_ceil(BYTES_PER_TOKEN))
    }

    fn at_least(self, input: u64, output: u64) -> Self {
        let input = self.input.max(input.min(MAX_TOKENS));
        let output = self.output.max(output.min(MAX_TOKENS));
        if (input, output) == (self.input, self.output) {
            return self;
        }
        Self {
            input,
            output,
            total: input.saturating_add(output).min(MAX_TOKENS),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::answer::Reader, *};

    fn usage(object: &str, dialect: Dialect) -> Option<Usage> {
        let body = format!("{{\"usage\":{object}}}");
        let mut reader = Reader::of_body(dialect);
        for chunk in body.as_bytes().chunks(3) {
            reader.push(chunk);
        }
        Some(reader.end().counts?.usage(dialect))
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
            r#"{"x":[9],"prompt_tokens": 11 ,"completion_tokens":5,"prompt_cache_hit_tokens":3}"#,
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
            "null",
            "{\"prompt_tokens\":-1}",
            "{\"prompt_tokens\":1.0}",
            "{\"prompt_tokens\":1e3}",
            "{\"prompt_tokens\":null}",
            "{\"prompt_tokens\":[7]}",
            "{\"prompt_tokens\":18446744073709551616}",
            "{\"prompt_tokens_details\":{\"prompt_tokens\":7}}",
            "{\"steps\":[{\"prompt_tokens\":7}]}",
            "{\"x\":{\"prompt_tokens_details\":{\"cached_tokens\":7}}}",
        ] {
            assert_eq!(usage(object, Dialect::Chat), None, "{object}");
        }
        let odd = r#"{"input_tokens":18446744073709551615,"cache_read_input_tokens":7,"output_tokens":"5"}"#;
        let usage = usage(odd, Dialect::Messages).unwrap();
        assert_eq!(
            (usage.input, usage.output, usage.total),
            (MAX_TOKENS, 0, MAX_TOKENS)
        );
    }

    #[test]
    fn no_count_is_above_what_is_believed() {
        let name = |name: &str| format!("\"{name}\":18446744073709551615");
        let object = format!(
            "{{{},{},{},\"output_tokens_details\":{{{}}},\"input_tokens_details\":{{{},{}}}}}",
            name("input_tokens"),
            name("output_tokens"),
            name("total_tokens"),
            name("reasoning_tokens"),
            name("cached_tokens"),
            name("cache_write_tokens"),
        );
        let most = Usage {
            input: MAX_TOKENS,
            output: MAX_TOKENS,
            cached_input: MAX_TOKENS,
            cache_write: MAX_TOKENS,
            reasoning: MAX_TOKENS,
            total: MAX_TOKENS,
        };
        assert_eq!(usage(&object, Dialect::Responses), Some(most));
        let nothing = Usage::default();
        let raised = nothing.with_input_of(u64::MAX).with_output_of(u64::MAX);
        assert_eq!(
            (raised.input, raised.output, raised.total),
            (MAX_TOKENS, MAX_TOKENS, MAX_TOKENS)
        );
        let largest = r#"{"total_tokens":16777216}"#;
        assert_eq!(usage(largest, Dialect::Chat).unwrap().total, MAX_TOKENS);
    }

    #[test]
    fn an_estimate_only_raises() {
        let reported = Usage {
            input: 10,
            output: 1,
            total: 11,
            ..Usage::default()
        };
        assert_eq!(reported.with_output_of(4), reported);
        assert_eq!(reported.with_input_of(40), reported);
        let raised = reported.with_output_of(9);
        assert_eq!((raised.input, raised.output, raised.total), (10, 3, 13));
        let raised = reported.with_input_of(41);
        assert_eq!((raised.input, raised.output, raised.total), (11, 1, 12));
    }
}
