//! The platform's answers: each dialect's own answers of `tests/fixtures`, made as long as
//! short answers of a model. A made-up body would be metered as something that no platform sends.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::load::Answer;

/// The length of a JSON answer, in bytes.
const JSON_BYTES: usize = 1024;

/// The number of events of a stream, the end marker of its dialect included. Each is a write.
const EVENTS: usize = 20;

/// A text of the fixtures, which is made longer in the JSON answers.
const TEXT: &str = "fixture text";

/// The mark of the event of a fixture that carries a piece of text, and is repeated.
const DELTA: &str = "fixture delta";

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's Responses API, as Codex uses it.
    Responses,
    /// OpenAI's Chat Completions API.
    Chat,
    /// Anthropic's Messages API.
    Messages,
}

/// The answers of one dialect, in the pieces in which they are written.
#[derive(Debug)]
struct Answers {
    json: Vec<Bytes>,
    sse: Vec<Bytes>,
}

/// Every dialect. Requests take them in turn.
pub const DIALECTS: [Dialect; 3] = [Dialect::Responses, Dialect::Chat, Dialect::Messages];

static ANSWERS: LazyLock<[Answers; 3]> = LazyLock::new(|| DIALECTS.map(Answers::of));

// === impl Dialect ===

impl Dialect {
    /// The dialect of request `number`.
    pub fn of(number: usize) -> Self {
        DIALECTS[number % DIALECTS.len()]
    }

    /// The dialect that the platform speaks on `path`.
    pub fn at(path: &str) -> Self {
        let of_path = |dialect: &Self| dialect.upstream_path() == path || dialect.path() == path;
        DIALECTS.into_iter().find(of_path).unwrap_or(DIALECTS[0])
    }

    /// Its name in a snapshot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Chat => "chat",
            Self::Messages => "messages",
        }
    }

    /// The path that callers use.
    pub fn path(self) -> &'static str {
        match self {
            Self::Responses => "/v1/responses",
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
        }
    }

    /// The path at the platform.
    pub fn upstream_path(self) -> &'static str {
        match self {
            Self::Responses => "/backend-api/codex/responses",
            Self::Chat | Self::Messages => self.path(),
        }
    }

    /// The pieces of an answer.
    pub fn pieces(self, answer: Answer) -> &'static [Bytes] {
        let answers = &ANSWERS[self as usize];
        match answer {
            Answer::Json => &answers.json,
            Answer::Sse => &answers.sse,
        }
    }

    /// The length of an answer's body, in bytes.
    pub fn body_bytes(self, answer: Answer) -> usize {
        self.pieces(answer).iter().map(Bytes::len).sum()
    }

    /// Tells an answer that is whole, from its beginning and its end.
    pub fn is_answer(self, body: &[u8]) -> bool {
        let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        let is_stream = !body.starts_with(b"{");
        match self {
            Self::Responses if is_stream => has("response.completed"),
            Self::Responses => has(r#""status":"completed""#),
            Self::Chat if is_stream => has("[DONE]"),
            Self::Chat => has(r#""finish_reason":"stop""#),
            Self::Messages if is_stream => has("message_stop"),
            Self::Messages => has(r#""stop_reason":"end_turn""#),
        }
    }

    /// A request's body that asks for that answer with `text`, of the session `session`.
    pub fn request_body(self, answer: Answer, session: usize, text: &str) -> String {
        let stream = answer == Answer::Sse;
        match self {
            Self::Responses => format!(
                r#"{{"model":"gpt-6.1-sol","input":"{text}","store":false,"stream":{stream},"prompt_cache_key":"{session:036}"}}"#
            ),
            // A stream of this dialect reports usage to those who ask; then nobody has to ask for them.
            Self::Chat => format!(
                r#"{{"model":"gpt-6.1-sol","messages":[{{"role":"user","content":"{text}"}}],"stream":{stream}{}}}"#,
                if stream {
                    r#","stream_options":{"include_usage":true}"#
                } else {
                    ""
                }
            ),
            Self::Messages => format!(
                r#"{{"model":"gpt-6.1-sol","max_tokens":64,"messages":[{{"role":"user","content":"{text}"}}],"stream":{stream},"metadata":{{"user_id":"{session:036}"}}}}"#
            ),
        }
    }

    fn fixtures(self) -> (&'static str, &'static str) {
        match self {
            Self::Responses => (
                include_str!("../../tests/fixtures/openai/response.json"),
                include_str!("../../tests/fixtures/openai/response.sse"),
            ),
            Self::Chat => (
                include_str!("../../tests/fixtures/openai/chat.json"),
                include_str!("../../tests/fixtures/openai/chat.sse"),
            ),
            Self::Messages => (
                include_str!("../../tests/fixtures/anthropic/message.json"),
                include_str!("../../tests/fixtures/anthropic/message.sse"),
            ),
        }
    }
}

// === impl Answers ===

impl Answers {
    fn of(dialect: Dialect) -> Self {
        let (json, sse) = dialect.fixtures();
        Self {
            json: vec![stretched(json.trim_end(), JSON_BYTES).into()],
            sse: repeated(sse, EVENTS),
        }
    }
}

/// `json` with a longer text, so that the whole has `length` bytes.
fn stretched(json: &str, length: usize) -> String {
    let missing = length.saturating_sub(json.len());
    let text = format!("{TEXT}{}", " and more".repeat(missing));
    json.replacen(TEXT, &text[..TEXT.len() + missing], 1)
}

/// The events of `stream`, the one with text so often that there are `count`.
fn repeated(stream: &'static str, count: usize) -> Vec<Bytes> {
    let events: Vec<&str> = stream.split_inclusive("\n\n").collect();
    let more = count.saturating_sub(events.len());
    let times = |event: &str| if event.contains(DELTA) { more + 1 } else { 1 };
    events
        .iter()
        .flat_map(|event| std::iter::repeat_n(*event, times(event)))
        .map(|event| Bytes::from_static(event.as_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_answers_are_json_of_the_same_length() {
        for dialect in DIALECTS {
            let [body] = dialect.pieces(Answer::Json) else {
                panic!("{dialect:?}: expected one piece")
            };
            assert_eq!(body.len(), JSON_BYTES, "{dialect:?}");
            assert!(
                body.starts_with(b"{") && body.ends_with(b"}"),
                "{dialect:?}"
            );
            let text = std::str::from_utf8(body).unwrap();
            assert!(
                text.contains("usage") && text.contains("and more"),
                "{text}"
            );
        }
    }

    #[test]
    fn streams_have_as_many_events_and_end_as_their_dialect_does() {
        let ends = ["response.completed", "[DONE]", "message_stop"];
        for (dialect, end) in DIALECTS.into_iter().zip(ends) {
            let pieces = dialect.pieces(Answer::Sse);
            assert_eq!(pieces.len(), EVENTS, "{dialect:?}");
            let last = std::str::from_utf8(pieces.last().unwrap()).unwrap();
            assert!(last.contains(end), "{dialect:?}: {last}");
            assert!(pieces.iter().all(|piece| piece.ends_with(b"\n\n")));
        }
    }
}
