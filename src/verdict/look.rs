//! The beginning of an answer of HTTP 200: the error that it is after all, or its first content.
//!
//! While an answer is looked at it is held back. Events that only announce it are passed over,
//! whatever they echo of the request ([`Brief`]); the first one with content or with a failure
//! decides. Each byte of events is framed once here, as it comes; what goes on is framed anew in
//! [`forwarding`](crate::attempt::forwarding), which says which passes there are. The beginning of a JSON text is read anew
//! when it has grown by a quarter, or is whole, so the work grows with its length, however small the
//! pieces are. Sound, pictures and plain text are not looked at: any bytes may stand at their beginning.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{
    body::{ErrorBody, Gather, Scalar, json},
    brief::Brief,
};
use crate::{
    dialect::{Dialect, EventKind},
    text::{
        json::{Lexer, Token},
        kind::{self as text, Begun, Start},
        members::{self, Members},
        sse::{Framer, Piece},
    },
};

/// The most of a JSON answer that is looked at, in bytes; one without a decision by then is let go.
/// Errors are below 4 KiB, and so is what comes before them.
pub const MAX_LOOK_BYTES: usize = 16 * 1024;

/// The least by which a JSON text grows before it is read anew, in bytes.
const JSON_STEP_BYTES: usize = 64;

/// The types of answers that are neither JSON nor events, as they begin.
const RAW_TYPES: [&[u8]; 5] = [
    b"audio/",
    b"image/",
    b"video/",
    b"text/plain",
    b"application/octet-stream",
];

/// The longest name of an event that is kept, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Values of `code` of an answer without an error.
const SUCCESS: [&str; 5] = ["", "0", "200", "ok", "success"];

/// The meaning of an answer's first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Not to be told yet: hold the bytes back and go on with what follows.
    NeedMore,
    /// Nothing wrong so far: let everything go, and look no more.
    Fine,
    /// The answer is at its end, and had no content and no error.
    Empty,
    /// The answer is this error; not a byte of content has come.
    Error(InnerError),
}

/// An error inside an answer of HTTP 200. `Debug` shows no word of the platform's.
#[derive(Clone, PartialEq, Eq)]
pub struct InnerError {
    /// The error.
    pub error: ErrorBody,
    /// The failure came as an event of a stream.
    pub in_events: bool,
    /// The JSON in which it came, as far as that was read.
    said: Vec<u8>,
}

/// The beginning of an answer.
#[derive(Debug)]
pub struct Beginning {
    dialect: Dialect,
    /// A body without a byte is no answer.
    expects_text: bool,
    kind: Kind,
}

/// The kinds of answers.
#[derive(Debug)]
enum Kind {
    /// Nothing has come that tells.
    Unknown(Start),
    /// One JSON text, as far as it is looked at.
    Json(Text),
    /// An event stream.
    Events(Box<Events>),
    /// Something else, or an answer that is decided about.
    Other,
}

/// The beginning of a JSON text.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// Follows the bytes up to `lexed`.
    lexer: Lexer,
    lexed: usize,
    depth: u32,
    /// The outermost value is a list.
    is_list: bool,
    /// The outermost value has ended, or the first of a list.
    is_closed: bool,
    /// The length at which it is read anew.
    read_at: usize,
}

/// The events of a stream, one after the other.
#[derive(Debug)]
struct Events {
    dialect: Dialect,
    framer: Framer,
    name: Vec<u8>,
    data: Brief,
}

// === impl InnerError ===

impl InnerError {
    fn new(error: ErrorBody, said: &[u8], in_events: bool) -> Self {
        let said = said.to_vec();
        Self {
            error,
            in_events,
            said,
        }
    }

    /// The members of the error, as the platform wrote them. One that stands in no object of its own has a type and a code
    /// all the same, of the same word where the platform has one.
    pub fn members(&self) -> Map<String, Value> {
        let said: Option<Value> = serde_json::from_slice(&self.said).ok();
        let object = |value: &Value| {
            value
                .as_object()
                .filter(|object| !object.is_empty())
                .cloned()
        };
        let member = |name: &str| {
            let said = said.as_ref()?;
            let within = said.get("response").and_then(|response| response.get(name));
            object(said.get(name).or(within)?)
        };
        let own = || {
            let members = said.as_ref().and_then(object).unwrap_or_default();
            let members = members.into_iter();
            let is_of_error = |name: &str| matches!(name, "code" | "param");
            members.filter(|(name, _)| is_of_error(name)).collect()
        };
        let object = member("error").or_else(|| member("detail"));
        let is_flat = object.is_none();
        let mut members = object.unwrap_or_else(own);
        if is_flat && let Some(code) = self.error.code() {
            for name in ["type", "code"] {
                members.entry(name).or_insert_with(|| code.into());
            }
        }
        let has_message = members.get("message").is_some_and(Value::is_string);
        if !has_message {
            members.insert("message".to_owned(), self.error.message().into());
        }
        members
    }
}

impl fmt::Debug for InnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InnerError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

// === impl Beginning ===

impl Beginning {
    /// Makes that of an answer of this dialect. `expects_text`: a body without a byte is no answer.
    pub fn new(dialect: Dialect, expects_text: bool) -> Self {
        Self {
            dialect,
            expects_text,
            kind: Kind::Unknown(Start::default()),
        }
    }

    /// Notes the `content-type` of the answer, if it has one. Some platforms send JSON or events as something
    /// else, so only the types are believed whose bytes may look like either and are not.
    #[must_use]
    pub fn of_type(mut self, content_type: Option<&[u8]>) -> Self {
        let kind = content_type.unwrap_or_default().trim_ascii_start();
        let begins = |prefix: &&[u8]| {
            let start = kind.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if RAW_TYPES.iter().any(begins) {
            self.kind = Kind::Other;
        }
        self
    }

    /// Looks at the next bytes of the body of an answer of HTTP 2xx; `end`: no more will come. Ask
    /// with each chunk until the answer is not [`Look::NeedMore`].
    pub fn look(&mut self, chunk: &[u8], end: bool) -> Look {
        let begun: Begun<'_>;
        let chunk = match &mut self.kind {
            Kind::Unknown(start) => {
                begun = start.read(chunk, end);
                self.kind = match begun.kind {
                    None if end && self.expects_text => return Look::Empty,
                    None if end => return Look::Fine,
                    None => return Look::NeedMore,
                    Some(text::BodyKind::Json) => Kind::Json(Text::default()),
                    Some(text::BodyKind::Events) => {
                        Kind::Events(Box::new(Events::new(self.dialect)))
                    }
                    Some(text::BodyKind::Other) => Kind::Other,
                };
                begun.text()
            }
            _ => chunk,
        };
        let looked = match &mut self.kind {
            Kind::Unknown(_) => Look::NeedMore,
            Kind::Json(text) => {
                let room = MAX_LOOK_BYTES.saturating_sub(text.bytes.len());
                let is_over = chunk.len() > room;
                let new = chunk.get(..room).unwrap_or(chunk);
                let ends = end && !is_over;
                let is_first = text.bytes.is_empty();
                let looked = if is_first {
                    // Most tell with their first bytes what they are: these are kept where they do not.
                    json_answer(new, ends)
                } else if text.grows(new) || end || is_over {
                    json_answer(&text.bytes, ends)
                } else {
                    return Look::NeedMore;
                };
                match looked {
                    Look::NeedMore if is_over => Look::Fine,
                    Look::NeedMore if is_first => {
                        text.grows(new);
                        Look::NeedMore
                    }
                    looked => looked,
                }
            }
            Kind::Events(events) => events.look(chunk, end),
            Kind::Other => Look::Fine,
        };
        if looked != Look::NeedMore {
            self.kind = Kind::Other;
        }
        looked
    }
}

// === impl Text ===

impl Text {
    /// Takes the next bytes. Returns true if it is worth while to read it anew.
    fn grows(&mut self, chunk: &[u8]) -> bool {
        self.bytes.extend_from_slice(chunk);
        let length = self.bytes.len();
        // Most answers come whole, and are read once.
        let is_worth_reading = length >= self.read_at || self.closes();
        if is_worth_reading {
            self.read_at = length.saturating_add(JSON_STEP_BYTES.max(length / 4));
        }
        is_worth_reading
    }

    /// Returns true if the outermost value has ended since it was asked last.
    fn closes(&mut self) -> bool {
        let was_closed = self.is_closed;
        let mut new = self.bytes.get(self.lexed..).unwrap_or_default();
        self.lexed = self.bytes.len();
        while let Some(token) = self.lexer.next(&mut new) {
            match token {
                Token::Open(byte) => {
                    self.is_list |= byte == b'[' && self.depth == 0;
                    self.depth = self.depth.saturating_add(1);
                }
                Token::Close => {
                    self.depth = self.depth.saturating_sub(1);
                    self.is_closed |= self.depth <= u32::from(self.is_list);
                }
                Token::Colon | Token::Comma | Token::Text { .. } => {}
            }
        }
        self.is_closed && !was_closed
    }
}

// === impl Events ===

impl Events {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            framer: Framer::default(),
            name: Vec::new(),
            data: Brief::new(dialect),
        }
    }

    /// Takes in the next bytes, up to the first event that decides.
    fn look(&mut self, mut chunk: &[u8], end: bool) -> Look {
        loop {
            let sign = match self.next(&mut chunk) {
                Some(sign) => sign,
                // What a stream ends with is an event without its blank line too.
                None if end => match self.end() {
                    Sign::Announcement => return Look::Empty,
                    sign => sign,
                },
                None => return Look::NeedMore,
            };
            match sign {
                Sign::Announcement => {}
                Sign::Content => return Look::Fine,
                Sign::End => return Look::Empty,
                Sign::Failure(failure) => return Look::Error(failure),
            }
        }
    }

    /// The next event that ends in these bytes.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Sign> {
        while let Some(piece) = self.framer.next(bytes) {
            match piece {
                Piece::Name { piece, first } => {
                    if first {
                        self.name.clear();
                    }
                    let room = MAX_NAME_BYTES.saturating_sub(self.name.len());
                    self.name
                        .extend_from_slice(piece.get(..room).unwrap_or(piece));
                }
                Piece::Data(piece) => self.data.push(piece),
                Piece::End => return Some(self.end()),
                Piece::Comment | Piece::Blank => {}
            }
        }
        None
    }

    /// Ends the event, and begins the next one.
    fn end(&mut self) -> Sign {
        let sign = Sign::of(self.dialect, &self.name, &self.data);
        self.data.begin_anew();
        self.name.clear();
        sign
    }
}

/// The first error among events of a stream, of which the last may lack its blank line.
pub fn failure(dialect: Dialect, mut events: &[u8]) -> Option<ErrorBody> {
    let mut reader = Events::new(dialect);
    loop {
        let next = reader.next(&mut events);
        let is_last = next.is_none();
        match next.unwrap_or_else(|| reader.end()) {
            Sign::Failure(failure) => return Some(failure.error),
            _ if is_last => return None,
            _ => {}
        }
    }
}

/// The meaning of one event for the answer.
#[derive(Debug)]
enum Sign {
    /// An event in which nothing of the answer is.
    Announcement,
    Content,
    /// The answer has ended.
    End,
    Failure(InnerError),
}

impl Sign {
    /// Reads the event of this `name`, if it has one.
    fn of(dialect: Dialect, name: &[u8], data: &Brief) -> Self {
        let format = dialect.format();
        let Some(data) = data.text().map(<[u8]>::trim_ascii) else {
            // What is so large without what it echoes is no error.
            return match format.announces(name) {
                true => Self::Announcement,
                false => Self::Content,
            };
        };
        if data.is_empty() && name.is_empty() {
            return Self::Announcement;
        }
        let kind = type_of(data);
        let kind = kind.as_deref().unwrap_or_default();
        let names = [name, kind];
        let fails =
            |name: &[u8]| matches!(format.event(name), EventKind::Error | EventKind::Failed);
        if names.into_iter().any(fails) {
            return Self::Failure(InnerError::new(ErrorBody::read(data), data, true));
        }
        if names.into_iter().any(|name| format.announces(name)) {
            return Self::Announcement;
        }
        if format.end_mark() == Some(data) {
            return Self::End;
        }
        match json_answer(data, true) {
            Look::Error(failure) => Self::Failure(InnerError {
                in_events: true,
                ..failure
            }),
            // It is cut off.
            Look::Empty => Self::Announcement,
            Look::Fine | Look::NeedMore if !format.has_quiet_events() => Self::Content,
            Look::Fine | Look::NeedMore => match serde_json::from_slice(data) {
                Ok(value) if format.announces_in(&value) => Self::Announcement,
                _ => Self::Content,
            },
        }
    }
}

/// Returns the `type` of an event's data; none where it is no JSON object, or has no such string.
fn type_of(data: &[u8]) -> Option<Cow<'_, [u8]>> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }

    // Most platforms write it first of all: the rest says nothing of it then. What is cut off has none.
    let mut members = Members::of(data);
    if members.name() == Some(b"type")
        && let Some(members::Value::Text(kind)) = members.value()
        && data.ends_with(b"}")
    {
        return Some(Cow::Borrowed(kind));
    }
    let kind = serde_json::from_slice::<Typed<'_>>(data).ok()?.kind?;
    Some(match kind {
        Cow::Borrowed(kind) => Cow::Borrowed(kind.as_bytes()),
        Cow::Owned(kind) => Cow::Owned(kind.into_bytes()),
    })
}

/// Returns true if the first members of an answer tell that it is output. [`Peek`] says the same of all of those, and
/// is asked about all others.
fn is_plainly_output(body: &[u8]) -> bool {
    let mut members = Members::of(body);
    while let Some(name) = members.name() {
        let says_nothing = match name {
            b"type" => {
                let kind = members.value();
                return matches!(kind, Some(members::Value::Text(kind)) if !is_type_of_error(kind));
            }
            b"code" | b"error_code" => false,
            b"error" | b"detail" => members.value() == Some(members::Value::Null),
            name if is_preamble(name) => members.value().is_some(),
            _ => return true,
        };
        if !says_nothing {
            return false;
        }
    }
    false
}

/// Returns true if a field comes before the output or the error of a JSON answer.
fn is_preamble(name: &[u8]) -> bool {
    matches!(
        name,
        b"background"
            | b"completed_at"
            | b"created"
            | b"created_at"
            | b"error_msg"
            | b"id"
            | b"message"
            | b"msg"
            | b"object"
            | b"param"
            | b"request_id"
            | b"sid"
            | b"status"
            | b"status_code"
            | b"success"
            | b"timestamp"
    )
}

/// Returns true if `kind` is the type of an error or of an error's envelope; other objects name theirs too.
fn is_type_of_error(kind: &[u8]) -> bool {
    kind == b"error" || kind.ends_with(b"_error")
}

/// A JSON answer, or a list of them: the first field that is neither preamble nor an error is output.
fn json_answer(body: &[u8], end: bool) -> Look {
    match is_plainly_output(body) {
        true => Look::Fine,
        false => answer_by_all(body, end),
    }
}

/// The same, by a parser.
fn answer_by_all(body: &[u8], end: bool) -> Look {
    let mut peek = Peek::default();
    let read = (&mut peek).deserialize(&mut json(body));
    match (peek.decision, read) {
        (Some(None), _) => Look::Fine,
        (Some(Some(error)), _) => Look::Error(InnerError::new(error, body, false)),
        (None, Err(error)) if error.is_eof() => match end {
            true => Look::Empty,
            false => Look::NeedMore,
        },
        (None, _) => Look::Fine,
    }
}

/// Reads the fields of a JSON object until one decides.
#[derive(Default)]
struct Peek {
    /// The error that it is, or none for output.
    decision: Option<Option<ErrorBody>>,
    error: ErrorBody,
}

impl<'de> DeserializeSeed<'de> for &mut Peek {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Peek {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    /// Reads the first answer of a list, which decides.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        list.next_element_seed(self).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut failed = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "error" | "detail" => {
                    if map.next_value_seed(Gather::into(&mut self.error))? {
                        self.decision = Some(Some(std::mem::take(&mut self.error)));
                    }
                }
                "type" => {
                    let kind = map.next_value_seed(Scalar)?.unwrap_or_default();
                    if !is_type_of_error(kind.as_bytes()) {
                        self.decision = Some(None);
                    }
                    self.error.add("type", kind);
                }
                "code" | "error_code" => {
                    let code = map.next_value_seed(Scalar)?.unwrap_or_default();
                    failed |= !SUCCESS.contains(&code.to_ascii_lowercase().as_str());
                    self.error.add("code", code);
                }
                key if is_preamble(key.as_bytes()) => {
                    if let Some(value) = map.next_value_seed(Scalar)? {
                        self.error.add(key, value);
                    }
                }
                _ => self.decision = Some(None),
            }
            if self.decision.is_some() {
                // Ends the parsing; what it makes of the rest does not matter.
                return Err(A::Error::custom("decided"));
            }
        }
        if failed {
            self.decision = Some(Some(std::mem::take(&mut self.error)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
