//! What one JSON text of an answer says: its token counts, its model, how much text it carries.
//!
//! The text is a whole body or the data of one event. It passes by in pieces and is never held
//! or parsed as a whole; only strings that may be a name are kept.
//! Names are compared as they stand on the wire; no platform writes its own with escapes.

use super::usage::{Counts, UsageReader};
use crate::{
    dialect::Dialect,
    label::ModelName,
    text::{
        json::{Lexer, Token},
        taken,
    },
};

/// The longest name of a member, a model or a type that is read, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// What a text has said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Its `usage`.
    pub counts: Option<Counts>,
    /// The `type` of an event.
    pub kind: Kind,
    /// Bytes of generated text, as they stand on the wire.
    pub text_bytes: u64,
    /// Its `choices`.
    pub choices: Choices,
    /// The outermost value has ended.
    pub closed: bool,
    /// It has an `error` that is an object.
    pub failed: bool,
}

/// The kinds of events that are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Not said, or of no other kind here.
    #[default]
    Plain,
    /// `message_start`, whose output count is only a beginning.
    MessageStart,
    /// `message_stop`, the last event of the messages dialect.
    MessageStop,
    /// `response.completed` or `.incomplete`: the last event of the responses dialect.
    ResponseEnd,
    /// `response.failed`, which is the last one too.
    ResponseFailed,
    /// `error`, in the messages and the responses dialect.
    Error,
    /// Of no interest: what it carries other events have carried or will carry.
    Skipped,
}

/// The `choices` of the chat dialect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choices {
    /// No such member.
    #[default]
    Absent,
    /// `[]` so far.
    Empty,
    /// At least one.
    Some,
}

/// Reads texts, one after the other. Every byte is looked at once, and none after a `type` of
/// no interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    dialect: Dialect,
    /// The texts are events, not whole bodies.
    events: bool,
    lexer: Lexer,
    depth: u32,
    /// The member of the outermost object that the next token belongs to.
    section: Name,
    /// The member, of any object, whose value comes next.
    member: Name,
    /// The last string, if it may be a name.
    string: Vec<u8>,
    /// The depth at which the `usage` object began that is passing by.
    usage_depth: Option<u32>,
    usage: UsageReader,
    model: Option<ModelName>,
    said: Said,
}

/// The names that mean something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Name {
    #[default]
    None,
    Usage,
    Model,
    Type,
    Response,
    Message,
    Choices,
    Delta,
    Output,
    Content,
    Error,
    /// Generated text, in one of [`Name::Choices`], `Delta`, `Output` and `Content`.
    Text,
    Other,
}

// === impl Reader ===

impl Reader {
    /// For whole bodies of this dialect.
    pub fn of_body(dialect: Dialect) -> Self {
        Self {
            dialect,
            events: false,
            lexer: Lexer::default(),
            depth: 0,
            section: Name::None,
            member: Name::None,
            string: Vec::new(),
            usage_depth: None,
            usage: UsageReader::default(),
            model: None,
            said: Said::default(),
        }
    }

    /// For the data of events of this dialect.
    pub fn of_events(dialect: Dialect) -> Self {
        Self {
            events: true,
            ..Self::of_body(dialect)
        }
    }

    /// The next bytes of the text.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while self.said.kind != Kind::Skipped {
            let before = bytes;
            let token = self.lexer.next(&mut bytes);
            if self.usage_depth.is_some() {
                self.usage.push(taken(before, bytes));
            }
            match token {
                None => break,
                Some(Token::Open(_)) => self.open(),
                Some(Token::Close) => self.close(),
                Some(Token::Colon) => self.name_member(),
                Some(Token::Comma) => self.end_member(),
                Some(Token::Text { raw, first, last }) => self.text(raw, first, last),
            }
        }
    }

    /// The `model` that the first text to name one has named.
    pub fn take_model(&mut self) -> Option<ModelName> {
        self.model.take()
    }

    /// What the text has said so far.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// Ends the text and begins the next one.
    pub fn end(&mut self) -> Said {
        self.lexer = Lexer::default();
        self.depth = 0;
        (self.section, self.member) = (Name::None, Name::None);
        self.string.clear();
        self.usage_depth = None;
        self.usage.end();
        std::mem::take(&mut self.said)
    }

    /// How much is kept of the text, in bytes.
    #[cfg(test)]
    pub fn kept_bytes(&self) -> usize {
        self.string.len() + self.usage.kept_bytes()
    }

    fn open(&mut self) {
        self.said.failed |= self.member == Name::Error && self.depth == 1;
        match self.usage_depth {
            None if self.member == Name::Usage && self.is_place_of_usage() => {
                self.usage_depth = Some(self.depth);
            }
            Some(_) if self.usage_level() == 1 => self.usage.begin_details(&self.string),
            _ => {}
        }
        if self.section == Name::Choices {
            self.said.choices = match self.said.choices {
                Choices::Absent if self.depth == 1 => Choices::Empty,
                _ => Choices::Some,
            };
        }
        self.depth = self.depth.saturating_add(1);
        self.member = Name::None;
    }

    fn close(&mut self) {
        self.end_member();
        self.said.closed |= self.depth == 1;
        self.depth = self.depth.saturating_sub(1);
        if self.usage_depth == Some(self.depth) {
            self.usage_depth = None;
            self.said.counts = self.usage.end().or(self.said.counts);
        }
    }

    fn name_member(&mut self) {
        self.member = Name::of(&self.string);
        if self.depth == 1 {
            self.section = self.member;
        }
        self.usage.begin_value();
    }

    fn end_member(&mut self) {
        let level = self.usage_level();
        if self.member != Name::None && matches!(level, 1 | 2) {
            self.usage.end_value(self.dialect, level == 2, &self.string);
        }
        self.member = Name::None;
    }

    /// How deep in the `usage` object the next token is; 0 is outside.
    fn usage_level(&self) -> u32 {
        self.usage_depth
            .map_or(0, |began| self.depth.saturating_sub(began))
    }

    fn text(&mut self, raw: &[u8], first: bool, last: bool) {
        if self.is_generated() {
            let bytes = u64::try_from(raw.len()).unwrap_or(u64::MAX);
            self.said.text_bytes = self.said.text_bytes.saturating_add(bytes);
        }
        if !matches!(self.member, Name::None | Name::Model | Name::Type) {
            return;
        }
        if first {
            self.string.clear();
        }
        // One byte more than a name may have tells that it is too long.
        let room = MAX_NAME_BYTES
            .saturating_add(1)
            .saturating_sub(self.string.len());
        self.string.extend(raw.iter().take(room));
        if last && self.string.len() <= MAX_NAME_BYTES {
            match self.member {
                Name::Type if self.depth == 1 => self.take_kind(),
                Name::Model if self.model.is_none() && self.is_outer() => self.keep_model(),
                _ => {}
            }
        }
    }

    fn take_kind(&mut self) {
        if self.events && self.dialect != Dialect::Chat {
            self.said.kind = Kind::of(&self.string);
        }
    }

    fn keep_model(&mut self) {
        let quoted = [b"\"", self.string.as_slice(), b"\""].concat();
        let model: Option<String> = serde_json::from_slice(&quoted).ok();
        self.model = model.and_then(|model| ModelName::try_from(model).ok());
    }

    /// In the outermost object, or in the object of the answer that some events wrap.
    fn is_outer(&self) -> bool {
        self.depth == 1
            || (self.depth == 2 && matches!(self.section, Name::Response | Name::Message))
    }

    /// Moonshot puts the counts into the choice.
    fn is_place_of_usage(&self) -> bool {
        self.is_outer() || (self.depth == 3 && self.section == Name::Choices)
    }

    fn is_generated(&self) -> bool {
        matches!(self.member, Name::Text | Name::Content | Name::Delta)
            && matches!(
                self.section,
                Name::Choices | Name::Delta | Name::Output | Name::Content
            )
    }
}

// === impl Kind ===

impl Kind {
    fn of(name: &[u8]) -> Self {
        match name {
            b"response.completed" | b"response.incomplete" => Self::ResponseEnd,
            b"response.failed" => Self::ResponseFailed,
            b"error" => Self::Error,
            b"message_start" => Self::MessageStart,
            b"message_stop" => Self::MessageStop,
            b"response.created" | b"content_block_delta" | b"message_delta" => Self::Plain,
            _ if name.ends_with(b".delta") => Self::Plain,
            _ => Self::Skipped,
        }
    }
}

// === impl Name ===

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b"usage" => Self::Usage,
            b"model" => Self::Model,
            b"type" => Self::Type,
            b"response" => Self::Response,
            b"message" => Self::Message,
            b"choices" => Self::Choices,
            b"delta" => Self::Delta,
            b"output" => Self::Output,
            b"content" => Self::Content,
            b"error" => Self::Error,
            b"text" | b"thinking" | b"reasoning" | b"reasoning_content" | b"refusal"
            | b"arguments" | b"partial_json" | b"input" => Self::Text,
            _ => Self::Other,
        }
    }
}
