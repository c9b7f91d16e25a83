//! The error that an answer of HTTP 200 is after all, from the first bytes of its body.
//!
//! While the answer is looked at it is held back, so the look is short: until the first sign of
//! output, never past an event that announces some, never past [`MAX_LOOK_BYTES`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
};

use super::body::{ErrorBody, Gather, Scalar, json};
use crate::{
    dialect::{Dialect, EventKind},
    text::{
        event::Event,
        sse::{Framer, Piece},
    },
};

/// The most that is held back, in bytes; an answer without a decision by then is let go. Errors
/// are below 4 KiB, and so is what comes before them.
pub const MAX_LOOK_BYTES: usize = 16 * 1024;

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

/// Values of `code` of an answer without an error.
const SUCCESS: [&str; 5] = ["", "0", "200", "ok", "success"];

/// The meaning of an answer's first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Not to be told yet: hold the bytes back and ask again with more.
    NeedMore,
    /// Nothing wrong so far: let everything go, and look no more.
    Fine,
    /// The answer is this error; not a byte of output has come.
    Error(ErrorBody),
}

/// Looks at all bytes that have come of the body of an answer of HTTP 2xx; `end`: no more will.
/// Ask after each chunk until the answer is not [`Look::NeedMore`].
pub fn look(dialect: Dialect, body: &[u8], end: bool) -> Look {
    match body.get(..MAX_LOOK_BYTES) {
        None => look_into(dialect, body, end),
        Some(beginning) => match look_into(dialect, beginning, false) {
            Look::NeedMore => Look::Fine,
            decided => decided,
        },
    }
}

fn look_into(dialect: Dialect, body: &[u8], end: bool) -> Look {
    let start = body.trim_ascii_start();
    let is_or_will_be = |prefix: &&[u8]| start.starts_with(prefix) || prefix.starts_with(start);
    match start.first() {
        None if !end => Look::NeedMore,
        Some(b'{') => json_answer(start, end),
        _ if [b"data:".as_slice(), b"event:", b"id:", b"retry:", b":"]
            .iter()
            .any(is_or_will_be) =>
        {
            events(dialect, start, end)
        }
        _ => Look::Fine,
    }
}

/// The first events of a stream (WHATWG HTML §9.2.6). A stream that only announced is let go at
/// the end of the chunk: the output may take its time.
fn events(dialect: Dialect, body: &[u8], end: bool) -> Look {
    let mut announced = false;
    for sign in signs(dialect, body, end) {
        match sign {
            Sign::Nothing => {}
            Sign::Announcement => announced = true,
            Sign::Output => return Look::Fine,
            Sign::Error(error) => return Look::Error(error),
        }
    }
    if announced || end {
        Look::Fine
    } else {
        Look::NeedMore
    }
}

/// The first error among events of a stream, of which the last may lack its blank line.
pub fn failure(dialect: Dialect, events: &[u8]) -> Option<ErrorBody> {
    signs(dialect, events, true).find_map(|sign| match sign {
        Sign::Error(error) => Some(error),
        Sign::Nothing | Sign::Announcement | Sign::Output => None,
    })
}

/// The signs that events give, one after the other; `end`: what they end with is an event too.
fn signs(dialect: Dialect, mut body: &[u8], end: bool) -> impl Iterator<Item = Sign> {
    let (mut framer, mut event) = (Framer::default(), Event::default());
    let mut has_ended = false;
    std::iter::from_fn(move || {
        while let Some(token) = framer.next(&mut body) {
            if token == Piece::End {
                let sign = Sign::of(dialect, &event);
                event.clear();
                return Some(sign);
            }
            event.take(&token);
        }
        let is_last = end && !std::mem::replace(&mut has_ended, true);
        is_last.then(|| Sign::of(dialect, &event))
    })
}

/// The meaning of one event for the answer.
enum Sign {
    Nothing,
    Announcement,
    Output,
    Error(ErrorBody),
}

impl Sign {
    fn of(dialect: Dialect, event: &Event) -> Self {
        #[derive(Deserialize)]
        struct Typed<'a> {
            #[serde(borrow, rename = "type")]
            kind: Option<Cow<'a, str>>,
        }

        let data = event.data().trim_ascii();
        if data.is_empty() && event.name().is_empty() {
            return if event.has_comment() {
                Self::Announcement
            } else {
                Self::Nothing
            };
        }
        let typed = serde_json::from_slice::<Typed<'_>>(data);
        let kind = typed.ok().and_then(|typed| typed.kind);
        let kind = kind.as_deref().unwrap_or_default().as_bytes();
        let (format, names) = (dialect.format(), [event.name(), kind]);
        let fails =
            |name: &[u8]| matches!(format.event(name), EventKind::Error | EventKind::Failed);
        if names.into_iter().any(fails) {
            return Self::Error(ErrorBody::read(data));
        }
        if names.into_iter().any(|name| format.announces(name)) {
            return Self::Announcement;
        }
        match json_answer(data, true) {
            Look::Error(error) => Self::Error(error),
            _ => Self::Output,
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
mod tests;
