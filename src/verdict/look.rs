//! Whether an answer of HTTP 200 is an error after all, from the first bytes of its body.
//!
//! While the answer is looked at it is held back, so the look is short: until the first sign of
//! output, never past an event that announces some, never past [`MAX_LOOK_BYTES`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
};

use super::body::{ErrorBody, Gather, Scalar, json};

/// The most that is held back, in bytes; an answer without a decision by then is let go. Errors
/// are below 4 KiB, and so is what comes before them.
pub const MAX_LOOK_BYTES: usize = 16 * 1024;

/// Events that say that an answer will come: nobody misses anything if the answer is another's.
const ANNOUNCING: [&str; 9] = [
    "codex.rate_limits",
    "codex.response.metadata",
    "keepalive",
    "message_start",
    "ping",
    "response.created",
    "response.in_progress",
    "response.metadata",
    "response.queued",
];

/// Events that are an error.
const FAILING: [&str; 3] = ["error", "response.failed", "session.error"];

/// Fields that come before the output or the error of a JSON answer.
const PREAMBLE: [&str; 16] = [
    "background",
    "completed_at",
    "created",
    "created_at",
    "error_msg",
    "id",
    "message",
    "msg",
    "object",
    "param",
    "request_id",
    "sid",
    "status",
    "status_code",
    "success",
    "timestamp",
];

/// Values of `code` that say that all is well.
const SUCCESS: [&str; 5] = ["", "0", "200", "ok", "success"];

/// What the first bytes of an answer show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Not to be told yet: hold the bytes back and ask again with more.
    NeedMore,
    /// Nothing wrong so far: let everything go, and look no more.
    Fine,
    /// The answer is this error; not a byte of output has come.
    Error(ErrorBody),
}

/// Whether an answer of this `content-type` is worth a look.
pub fn may_hold_error(content_type: Option<&[u8]>) -> bool {
    let Some(content_type) = content_type else {
        return true;
    };
    let content_type = content_type.to_ascii_lowercase();
    let has = |word: &str| {
        content_type
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    };
    has("json") || has("text/")
}

/// Looks at all bytes that have come of the body of an answer of HTTP 2xx; `end`: no more will.
/// Ask after each chunk until the answer is not [`Look::NeedMore`].
pub fn look(content_type: Option<&[u8]>, body: &[u8], end: bool) -> Look {
    if !may_hold_error(content_type) {
        return Look::Fine;
    }
    match body.get(..MAX_LOOK_BYTES) {
        None => look_into(body, end),
        Some(beginning) => match look_into(beginning, false) {
            Look::NeedMore => Look::Fine,
            decided => decided,
        },
    }
}

fn look_into(body: &[u8], end: bool) -> Look {
    let start = body.trim_ascii_start();
    let is_or_will_be = |prefix: &&[u8]| start.starts_with(prefix) || prefix.starts_with(start);
    match start.first() {
        None if !end => Look::NeedMore,
        Some(b'{') => json_answer(start, end),
        _ if [b"data:".as_slice(), b"event:", b"id:", b"retry:", b":"]
            .iter()
            .any(is_or_will_be) =>
        {
            events(start, end)
        }
        _ => Look::Fine,
    }
}

/// The first events of a stream (WHATWG HTML §9.2.6). A stream that only announced is let go at
/// the end of the chunk: the output may take its time.
fn events(body: &[u8], end: bool) -> Look {
    let mut announced = false;
    let mut event = Event::default();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n").or(end.then_some(line)) else {
            break;
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            match std::mem::take(&mut event).sign() {
                Sign::Nothing => {}
                Sign::Announcement => announced = true,
                Sign::Output => return Look::Fine,
                Sign::Error(error) => return Look::Error(error),
            }
        } else {
            event.add(line);
        }
    }
    match event.sign() {
        Sign::Error(error) if end => Look::Error(error),
        _ if announced || end => Look::Fine,
        _ => Look::NeedMore,
    }
}

/// What an event says about the answer.
enum Sign {
    Nothing,
    Announcement,
    Output,
    Error(ErrorBody),
}

#[derive(Default)]
struct Event<'a> {
    name: &'a [u8],
    data: Vec<u8>,
    comment: bool,
}

impl<'a> Event<'a> {
    fn add(&mut self, line: &'a [u8]) {
        let value = |rest: &'a [u8]| rest.strip_prefix(b" ").unwrap_or(rest);
        if let Some(rest) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(value(rest));
            self.data.push(b'\n');
        } else if let Some(rest) = line.strip_prefix(b"event:") {
            self.name = value(rest);
        } else if line.starts_with(b":") {
            self.comment = true;
        }
    }

    fn sign(self) -> Sign {
        #[derive(Deserialize)]
        struct Typed<'a> {
            #[serde(borrow, rename = "type")]
            kind: Option<Cow<'a, str>>,
        }

        let data = self.data.trim_ascii();
        if data.is_empty() && self.name.is_empty() {
            return if self.comment {
                Sign::Announcement
            } else {
                Sign::Nothing
            };
        }
        let typed = serde_json::from_slice::<Typed<'_>>(data);
        let kind = typed.ok().and_then(|typed| typed.kind);
        let name = std::str::from_utf8(self.name).unwrap_or_default();
        let is_one_of = |words: &[&str]| {
            words.contains(&name) || kind.as_deref().is_some_and(|kind| words.contains(&kind))
        };
        if is_one_of(&FAILING) {
            return Sign::Error(ErrorBody::read(data));
        }
        if is_one_of(&ANNOUNCING) {
            return Sign::Announcement;
        }
        match json_answer(data, true) {
            Look::Error(error) => Sign::Error(error),
            _ => Sign::Output,
        }
    }
}

/// A JSON answer: the first field that is neither preamble nor an error is output.
fn json_answer(body: &[u8], end: bool) -> Look {
    let mut peek = Peek::default();
    let read = (&mut peek).deserialize(&mut json(body));
    match (peek.decision, read) {
        (Some(decision), _) => decision,
        (None, Err(error)) if error.is_eof() && !end => Look::NeedMore,
        (None, _) => Look::Fine,
    }
}

/// Reads the fields of a JSON object until one decides.
#[derive(Default)]
struct Peek {
    decision: Option<Look>,
    error: ErrorBody,
}

impl<'de> DeserializeSeed<'de> for &mut Peek {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Peek {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut failed = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "error" | "detail" => {
                    if map.next_value_seed(Gather::into(&mut self.error))? {
                        self.decision = Some(Look::Error(std::mem::take(&mut self.error)));
                    }
                }
                "type" => {
                    let kind = map.next_value_seed(Scalar)?.unwrap_or_default();
                    // An error's own type, or its envelope's; other objects name theirs too.
                    if kind != "error" && !kind.ends_with("_error") {
                        self.decision = Some(Look::Fine);
                    }
                    self.error.add("type", kind);
                }
                "code" | "error_code" => {
                    let code = map.next_value_seed(Scalar)?.unwrap_or_default();
                    failed |= !SUCCESS.contains(&code.to_ascii_lowercase().as_str());
                    self.error.add("code", code);
                }
                key if PREAMBLE.contains(&key) => {
                    if let Some(value) = map.next_value_seed(Scalar)? {
                        self.error.add(key, value);
                    }
                }
                _ => self.decision = Some(Look::Fine),
            }
            if self.decision.is_some() {
                // Ends the parsing; what it makes of the rest does not matter.
                return Err(A::Error::custom("decided"));
            }
        }
        if failed {
            self.decision = Some(Look::Error(std::mem::take(&mut self.error)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SSE: Option<&[u8]> = Some(b"text/event-stream");
    const JSON: Option<&[u8]> = Some(b"application/json");

    fn read(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    /// Asks after each chunk, as the filter does.
    fn in_chunks(body: &[u8], chunk: usize) -> Look {
        let mut end = 0;
        while end < body.len() {
            end = body.len().min(end + chunk);
            match look(None, &body[..end], end == body.len()) {
                Look::NeedMore => {}
                decided => return decided,
            }
        }
        panic!("no decision at the end of {} bytes", body.len())
    }

    #[test]
    fn errors_inside_200_are_found_in_the_first_chunk() {
        for (name, code) in [
            (
                "codex/response_failed_rate_limit_exceeded.sse",
                "rate_limit_exceeded",
            ),
            (
                "codex/response_failed_context_length_exceeded.sse",
                "context_length_exceeded",
            ),
            (
                "codex/error_event_usage_limit_reached.sse",
                "usage_limit_reached",
            ),
            (
                "openai/response_failed_insufficient_quota.sse",
                "insufficient_quota",
            ),
            ("anthropic/error_event_overloaded.sse", "overloaded_error"),
        ] {
            let Look::Error(error) = look(SSE, &read(name), false) else {
                panic!("{name}");
            };
            assert!(error.has_code(code), "{name}: {error:?}");
        }
        for (body, code) in [
            (r#"{"error":{"code":"c"},"id""#, "c"),
            (r#"{"type":"error","error":{"type":"c"}}"#, "c"),
            (
                r#"{"id":"r","object":"response","status":"failed","error":{"code":"c"},"instr"#,
                "c",
            ),
            (r#"{"error_code":336501,"error_msg":"m"}"#, "336501"),
            (r#"{"code":10007,"message":"m","sid":"s"}"#, "10007"),
            ("data: {\"error\":{\"code\":\"c\"}}\n\n", "c"),
            ("data:{\"code\":10007,\"message\":\"m\"}\r\n\r\n", "10007"),
            (
                "event: error\ndata: {\"type\":\"c_error\",\"message\":\"m\"}\n\n",
                "c_error",
            ),
            (
                "event: ping\ndata: {}\n\nevent: error\ndata: {\"code\":\"c\"}\n\n",
                "c",
            ),
        ] {
            let Look::Error(error) = look(None, body.as_bytes(), false) else {
                panic!("{body}");
            };
            assert!(error.has_code(code), "{body}: {error:?}");
        }
    }

    #[test]
    fn good_answers_go_at_their_first_sign() {
        for (content_type, body) in [
            (
                JSON,
                r#"{"id":"c","object":"chat.completion","created":1,"model""#,
            ),
            (JSON, r#"{"id":"m","type":"message","#),
            (JSON, r#"{"id":"r","error":null,"incomplete_details""#),
            (JSON, r#"{"object":"list","data":["#),
            (JSON, r#"{"input_tokens":"#),
            (
                JSON,
                r#"{"code":0,"message":"Success","sid":"s","choices":["#,
            ),
            (JSON, r#"{"code":0,"message":"Success"}"#),
            (JSON, "[1"),
            (JSON, "nonsense"),
            (None, "data: [DONE]\n\n"),
            (
                SSE,
                "event: response.created\ndata: {\"type\":\"response.created\"}\n\n",
            ),
            (SSE, ": keep-alive\n\n"),
            (
                SSE,
                "data: {\"choices\":[]}\n\ndata: {\"error\":{\"code\":\"late\"}}\n\n",
            ),
            (Some(b"audio/mpeg"), "{"),
        ] {
            assert_eq!(
                look(content_type, body.as_bytes(), false),
                Look::Fine,
                "{body}"
            );
        }
        for name in [
            "codex/response.sse",
            "codex/response_incomplete.sse",
            "anthropic/message.sse",
            "anthropic/message.json",
            "anthropic/message_then_overloaded.sse",
            "openai/chat.sse",
            "openai/chat.json",
            "openai/embeddings.json",
            "openai/models.json",
            "openai/response.json",
        ] {
            let body = read(name);
            for chunk in 1..=body.len() {
                assert_eq!(in_chunks(&body, chunk), Look::Fine, "{name} by {chunk}");
            }
        }
    }

    #[test]
    fn nothing_is_held_back_for_long() {
        for body in [
            "",
            " ",
            "da",
            "data: {\"error\"",
            "{\"id\":\"",
            "event: response.created\nda",
        ] {
            assert_eq!(look(None, body.as_bytes(), false), Look::NeedMore, "{body}");
            assert_eq!(look(None, body.as_bytes(), true), Look::Fine, "{body}");
        }
        for start in ["{\"id\":\"", "data: ", "data: {\"error\":\""] {
            let long = format!("{start}{}", "x".repeat(MAX_LOOK_BYTES));
            assert_eq!(look(None, long.as_bytes(), false), Look::Fine, "{start}");
        }
        let ended = b"data: {\"error\":{\"code\":\"c\"}}";
        assert!(matches!(look(None, ended, true), Look::Error(_)));
    }

    const ANNOUNCEMENTS: [&str; 3] = [
        "event: ping\ndata: {}\n\n",
        "data: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n",
        ": keep-alive\n\n",
    ];

    /// Streams and JSON answers in pieces, good and bad, whole and cut.
    fn any_body(more: &[&'static str]) -> impl Strategy<Value = Vec<u8>> + use<> {
        let mut pieces = vec![
            "data: {\"type\":\"error\",\"error\":{\"code\":\"c\"}}\n\n",
            "event: error\r\ndata: {\"type\":\"x_error\"}\r\n\r\n",
            "data: {\"choices\":[]}\n\n",
            "event: response.failed\ndata: {\"response\":{\"error\":{\"code\":\"c\"}}}\n\n",
            "\n",
            "data: ",
            "{\"id\":\"i\",",
            "\"error\":{\"code\":\"c\"}",
            "\"error\":null,",
            "\"code\":7,",
            "\"choices\":[]",
            "}",
            "{",
            "[DONE]",
            "é",
            "\"",
        ];
        pieces.extend(more);
        prop::collection::vec(prop::sample::select(pieces), 1..6)
            .prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200), end: bool) {
            look(None, &body, end);
            look(SSE, &body, end);
        }

        /// Where nothing only announces, chunks do not matter: a decision is that of the whole.
        #[test]
        fn any_split_decides_as_the_whole_does(body in any_body(&[]), chunk in 1_usize..40) {
            prop_assert_eq!(in_chunks(&body, chunk), look(None, &body, true));
        }

        /// An announcement at a chunk's end lets go of what might have been an error, no more.
        #[test]
        fn an_announcement_only_hides_errors(body in any_body(&ANNOUNCEMENTS), chunk in 1_usize..40) {
            let decided = in_chunks(&body, chunk);
            prop_assert!(decided == Look::Fine || decided == look(None, &body, true));
        }
    }

    #[test]
    fn an_error_after_an_announcement_is_seen_in_the_same_chunk_alone() {
        for name in [
            "codex/response_failed_rate_limit_exceeded.sse",
            "codex/response_failed_server_is_overloaded.sse",
        ] {
            let body = read(name);
            let whole = look(SSE, &body, true);
            assert!(matches!(whole, Look::Error(_)));
            for chunk in 1..=body.len() {
                let decided = in_chunks(&body, chunk);
                assert!(
                    decided == Look::Fine || decided == whole,
                    "{name} by {chunk}"
                );
            }
        }
    }
}
