//! Reads one JSON text of an answer: its token counts, its model and the length of its text.
//!
//! The text is a whole body or the data of one event. It passes by in pieces and is never held
//! or parsed as a whole; only strings that may be a name are kept.
//! Names are compared as they stand on the wire; no platform writes its own with escapes.

use super::usage::{Counts, UsageReader};
use crate::{
    dialect::{Dialect, EventKind, Member},
    label::ModelName,
    text::{
        json::{Lexer, Token},
        taken,
    },
};

/// The longest name of a member, a model or a type that is read, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The deepest object that may say why the answer has ended: an element of an outermost member. What
/// is deeper is generated, and may have members of any name.
const MAX_FINISH_DEPTH: u32 = 3;

/// The facts that a text has told so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Its `usage`.
    pub counts: Option<Counts>,
    /// The kind of an event, by its `type`.
    pub kind: EventKind,
    /// Bytes of generated text, as they stand on the wire.
    pub text_bytes: u64,
    /// Its `choices`.
    pub choices: Choices,
    /// The outermost value has ended.
    pub closed: bool,
    /// The text has an `error` that is an object, or the code of an error.
    pub failed: bool,
    /// The text says why the answer has ended.
    pub finished: bool,
}

/// The `choices` of the chat dialect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choices {
    /// No such member.
    #[default]
    Absent,
    /// `[]` so far.
    Empty,
    /// A list with at least one.
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
    /// The body is a list of texts, the way in which one dialect streams without events: its brackets
    /// and commas count for nothing.
    in_list: bool,
    depth: u32,
    /// The member of the outermost object that the next token belongs to.
    section: Option<Member>,
    /// The member, of any object, whose value comes next.
    member: Option<Member>,
    /// The last string, if it may be a name.
    string: Vec<u8>,
    /// The depth at which the `usage` object began that is passing by.
    usage_depth: Option<u32>,
    usage: UsageReader,
    model: Option<ModelName>,
    said: Said,
}

// === impl Reader ===

impl Reader {
    /// Makes a reader for whole bodies of this dialect.
    pub fn of_body(dialect: Dialect) -> Self {
        Self {
            dialect,
            events: false,
            lexer: Lexer::default(),
            in_list: false,
            depth: 0,
            section: None,
            member: None,
            string: Vec::new(),
            usage_depth: None,
            usage: UsageReader::default(),
            model: None,
            said: Said::default(),
        }
    }

    /// Makes a reader for the data of events of this dialect.
    pub fn of_events(dialect: Dialect) -> Self {
        Self {
            events: true,
            ..Self::of_body(dialect)
        }
    }

    /// The next bytes of the text.
    pub fn push(&mut self, mut bytes: &[u8]) {
        // A string that may be a name, and came whole: it is kept only where more is asked of it than its meaning.
        let mut name = None;
        while self.said.kind != EventKind::Skipped {
            let before = bytes;
            let token = self.lexer.next(&mut bytes);
            if self.usage_depth.is_some() {
                self.usage.push(match token {
                    // No byte of a string makes a number of it.
                    Some(Token::Text { .. }) => b"\"",
                    _ => taken(before, bytes),
                });
            }
            match token {
                Some(Token::Colon) => {
                    self.scalar(taken(before, bytes));
                    self.name_member(name.take());
                    continue;
                }
                Some(Token::Text {
                    raw,
                    first: true,
                    last: true,
                }) if self.member.is_none() => {
                    match bytes {
                        // Its colon is the next token, of which no count is part.
                        [b':', after @ ..] if self.usage_depth.is_none() => {
                            bytes = after;
                            name = None;
                            self.name_member(Some(raw));
                            if self.member == Some(Member::Other) {
                                self.pass_over(&mut bytes);
                            }
                        }
                        _ => name = Some(raw),
                    }
                    continue;
                }
                _ => {}
            }
            if let Some(name) = name.take() {
                self.keep(name);
            }
            match token {
                None => {
                    self.scalar(before);
                    return;
                }
                Some(Token::Open(byte)) => {
                    self.scalar(taken(before, bytes));
                    self.open(byte);
                }
                Some(Token::Close) => {
                    self.scalar(taken(before, bytes));
                    self.close();
                }
                Some(Token::Comma) => {
                    self.scalar(taken(before, bytes));
                    self.end_member();
                }
                Some(Token::Text { raw, first, last }) => {
                    if first {
                        self.scalar(taken(before, bytes));
                    }
                    self.text(raw, first, last);
                }
                Some(Token::Colon) => {}
            }
        }
    }

    /// Takes the next token of a value that says nothing, as most of an answer does, and the comma behind it.
    fn pass_over(&mut self, bytes: &mut &[u8]) {
        match self.lexer.next(bytes) {
            Some(Token::Text { last: true, .. }) => {
                if let [b',', after @ ..] = *bytes {
                    *bytes = after;
                    self.member = None;
                }
            }
            Some(Token::Comma) => self.member = None,
            Some(Token::Open(byte)) => self.open(byte),
            Some(Token::Close) => self.close(),
            Some(Token::Colon) => self.name_member(None),
            Some(Token::Text { last: false, .. }) | None => {}
        }
    }

    /// The `model` that the first text to name one has named.
    pub fn take_model(&mut self) -> Option<ModelName> {
        self.model.take()
    }

    /// The same, to be looked at.
    pub fn model(&self) -> Option<&ModelName> {
        self.model.as_ref()
    }

    /// The facts that the text has told so far.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// Ends the text and begins the next one.
    pub fn end(&mut self) -> Said {
        self.lexer = Lexer::default();
        self.in_list = false;
        self.depth = 0;
        (self.section, self.member) = (None, None);
        self.string.clear();
        self.usage_depth = None;
        self.usage.end();
        std::mem::take(&mut self.said)
    }

    /// The bytes that are kept of the text.
    #[cfg(test)]
    pub fn kept_bytes(&self) -> usize {
        self.string.len() + self.usage.kept_bytes()
    }

    fn open(&mut self, byte: u8) {
        if byte == b'[' && self.depth == 0 && !self.events && !self.in_list {
            self.in_list = true;
            return;
        }
        self.said.failed |= self.member == Some(Member::Error) && self.depth == 1;
        match self.usage_depth {
            None if self.member == Some(Member::Usage) && self.is_place_of_usage() => {
                self.usage_depth = Some(self.depth);
            }
            Some(_) if self.usage_level() == 1 => self.usage.begin_details(&self.string),
            _ => {}
        }
        if self.section == Some(Member::Choices) {
            self.said.choices = match self.said.choices {
                Choices::Absent if self.depth == 1 => Choices::Empty,
                _ => Choices::Some,
            };
        }
        self.depth = self.depth.saturating_add(1);
        self.member = None;
    }

    /// Takes the bytes of a value that is no string, or some of them, and the token behind it: where the text is no
    /// JSON, any token may be there, and a cut before it must change nothing.
    fn scalar(&mut self, raw: &[u8]) {
        if self.depth != 1 {
            return;
        }
        let mut value = raw.iter().take_while(|byte| **byte != b'"');
        match self.member {
            // No other value has this letter.
            Some(Member::IsEnd) => self.said.finished |= value.any(|byte| *byte == b't'),
            Some(Member::ErrorCode) => {
                self.said.failed |= value.any(|byte| matches!(byte, b'1'..=b'9'));
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        self.end_member();
        // The last to close.
        self.said.closed |= self.depth == u32::from(!self.in_list);
        self.depth = self.depth.saturating_sub(1);
        if self.usage_depth == Some(self.depth) {
            self.usage_depth = None;
            if let Some(counts) = self.usage.end() {
                self.said.counts.get_or_insert_default().update(counts);
            }
        }
    }

    /// Takes the name of the member whose value comes next: `name`, or the last string.
    fn name_member(&mut self, name: Option<&[u8]>) {
        let format = self.dialect.format();
        self.member = Some(match name {
            Some(name) => format.member(name),
            None => format.member(&self.string),
        });
        if self.depth == 1 {
            self.section = self.member;
        }
        if self.usage_depth.is_none() {
            self.string.clear();
            return;
        }
        // What it counts is told at its end.
        if let Some(name) = name {
            self.keep(name);
        }
        self.usage.begin_value();
    }

    fn end_member(&mut self) {
        let level = self.usage_level();
        if self.member.is_some() && matches!(level, 1 | 2) {
            self.usage.end_value(self.dialect, level == 2, &self.string);
        }
        self.member = None;
    }

    /// The depth of the next token in the `usage` object; 0 is outside.
    fn usage_level(&self) -> u32 {
        self.usage_depth
            .map_or(0, |began| self.depth.saturating_sub(began))
    }

    fn text(&mut self, raw: &[u8], first: bool, last: bool) {
        if self.is_generated() {
            let bytes = u64::try_from(raw.len()).unwrap_or(u64::MAX);
            self.said.text_bytes = self.said.text_bytes.saturating_add(bytes);
        }
        let is_finish = self.member == Some(Member::Finish) && self.depth <= MAX_FINISH_DEPTH;
        self.said.finished |= is_finish && self.section == Some(Member::Section);
        if !matches!(self.member, None | Some(Member::Model | Member::Type)) {
            return;
        }
        if first {
            self.string.clear();
        }
        self.keep_more(raw);
        if last && self.string.len() <= MAX_NAME_BYTES {
            match self.member {
                Some(Member::Type) if self.depth == 1 => self.take_kind(),
                Some(Member::Model) if self.model.is_none() && self.is_outer() => self.keep_model(),
                _ => {}
            }
        }
    }

    fn keep(&mut self, string: &[u8]) {
        self.string.clear();
        self.keep_more(string);
    }

    /// Keeps more of a string, and one byte more than a name may have, which tells that it is too long.
    fn keep_more(&mut self, raw: &[u8]) {
        let most = MAX_NAME_BYTES.saturating_add(1);
        let room = most.saturating_sub(self.string.len());
        self.string
            .extend_from_slice(raw.get(..room).unwrap_or(raw));
    }

    fn take_kind(&mut self) {
        if self.events {
            self.said.kind = self.dialect.format().event(&self.string);
        }
    }

    fn keep_model(&mut self) {
        self.model = match std::str::from_utf8(&self.string) {
            Ok(plain) if !plain.contains('\\') => ModelName::try_from(plain).ok(),
            _ => {
                let quoted = [b"\"", self.string.as_slice(), b"\""].concat();
                let model: Option<String> = serde_json::from_slice(&quoted).ok();
                model.and_then(|model| ModelName::try_from(model).ok())
            }
        };
    }

    /// Returns true in the outermost object, or in the object of the answer that some events wrap.
    fn is_outer(&self) -> bool {
        self.depth == 1 || (self.depth == 2 && self.section == Some(Member::Answer))
    }

    /// Moonshot puts the counts into the choice.
    fn is_place_of_usage(&self) -> bool {
        self.is_outer() || (self.depth == 3 && self.section == Some(Member::Choices))
    }

    fn is_generated(&self) -> bool {
        matches!(self.member, Some(Member::Text | Member::TextOrSection))
            && matches!(
                self.section,
                Some(Member::Choices | Member::Section | Member::TextOrSection)
            )
    }
}
