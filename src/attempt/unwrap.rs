//! An answer of a platform that has an object around what the dialect has ([`Wrapper`](crate::snapshot::wrapper::Wrapper)).
//!
//! What stands in the member goes on as its bytes come; what is around it goes nowhere. Its last byte waits for the end of
//! the object around it: where that does not come, or has the member twice, what goes on is cut as the answer is. An
//! object without the member, as an error, goes on as it is.

use crate::text::{
    json::{Lexer, Token},
    kind::{Begun, BodyKind, Start},
    sse::{Framer, Piece},
    taken,
};

/// The most bytes of an object that are kept until its member comes: a name and an id.
pub const MAX_BEFORE_BYTES: usize = 16 * 1024;

/// Takes the wrapper off an answer.
#[derive(Debug)]
pub struct Unwrap {
    member: String,
    form: Form,
    lexer: Lexer,
    place: Place,
    depth: u32,
    /// The outermost value is a list of objects.
    in_list: bool,
    /// The last string at the outermost level of an object, one byte more than the member at most.
    name: Vec<u8>,
    /// The bytes of an object before its member.
    before: Vec<u8>,
    /// The last byte of what stands in the member.
    last: Option<u8>,
    out: Vec<u8>,
}

#[derive(Debug)]
enum Form {
    /// Nothing has come that tells.
    Unknown(Start),
    Json,
    Events(Framer),
    Other,
}

/// The place of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of any object, or in one that has no such member.
    Plain,
    /// An object, before its member.
    Before,
    /// Before the value of the member.
    Value,
    /// Inside of the value of the member.
    Within,
    /// Behind it.
    Behind,
    /// An object that has the member twice.
    Broken,
}

// === impl Unwrap ===

impl Unwrap {
    /// Takes what stands in `member` out of an answer.
    pub fn new(member: &str) -> Self {
        Self {
            member: member.to_owned(),
            form: Form::Unknown(Start::default()),
            lexer: Lexer::default(),
            place: Place::Plain,
            depth: 0,
            in_list: false,
            name: Vec::new(),
            before: Vec::new(),
            last: None,
            out: Vec::new(),
        }
    }

    /// Reads the next bytes; `end`: they are the last. Returns what goes on.
    pub fn on_body(&mut self, chunk: &[u8], end: bool) -> Vec<u8> {
        let begun: Begun<'_>;
        let chunk = match &mut self.form {
            Form::Unknown(start) => {
                begun = start.read(chunk, end);
                self.put(begun.before());
                match begun.kind {
                    None => return std::mem::take(&mut self.out),
                    Some(BodyKind::Json) => self.form = Form::Json,
                    Some(BodyKind::Events) => self.form = Form::Events(Framer::default()),
                    Some(BodyKind::Other) => self.form = Form::Other,
                }
                begun.text()
            }
            Form::Json | Form::Events(_) | Form::Other => chunk,
        };
        match std::mem::replace(&mut self.form, Form::Json) {
            Form::Json => self.read(chunk),
            Form::Events(mut framer) => {
                self.read_events(&mut framer, chunk);
                self.form = Form::Events(framer);
            }
            form => {
                self.put(chunk);
                self.form = form;
            }
        }
        if end {
            self.end_text();
        }
        std::mem::take(&mut self.out)
    }

    #[inline(never)]
    fn read_events(&mut self, framer: &mut Framer, chunk: &[u8]) {
        let (mut rest, mut before) = (chunk, chunk);
        while let Some(piece) = framer.next(&mut rest) {
            let bytes = taken(before, rest);
            before = rest;
            match piece {
                // It stands between two lines, and nowhere in the bytes.
                Piece::Data(b"\n") => self.put(bytes),
                Piece::Data(data) => {
                    let frame = bytes.len().saturating_sub(data.len());
                    self.put(bytes.get(..frame).unwrap_or_default());
                    self.read(data);
                }
                Piece::End => {
                    let is_cut = matches!(self.place, Place::Behind | Place::Broken);
                    self.end_text();
                    // The end of its last line went nowhere either.
                    self.put(if is_cut { b"\n\n" } else { bytes });
                }
                Piece::Name { .. } | Piece::Comment | Piece::Blank => self.put(bytes),
            }
        }
        self.put(before);
    }

    /// Ends a text, or one event's.
    #[inline(never)]
    fn end_text(&mut self) {
        self.is_plain();
        self.lexer = Lexer::default();
        (self.depth, self.in_list) = (0, false);
        self.last = None;
    }

    /// Goes on with an object as it is.
    #[inline(never)]
    fn is_plain(&mut self) {
        self.place = Place::Plain;
        self.out.append(&mut self.before);
    }

    /// Has bytes go where those of this place do.
    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        match self.place {
            Place::Plain | Place::Within => self.out.extend_from_slice(bytes),
            Place::Before | Place::Value => {
                self.before.extend_from_slice(bytes);
                if self.before.len() > MAX_BEFORE_BYTES {
                    self.is_plain();
                }
            }
            Place::Behind | Place::Broken => {}
        }
    }

    /// Reads the next bytes of a text.
    #[inline(never)]
    fn read(&mut self, text: &[u8]) {
        let (mut rest, mut before) = (text, text);
        let mut lexer = std::mem::take(&mut self.lexer);
        while let Some(token) = lexer.next(&mut rest) {
            let bytes = taken(before, rest);
            before = rest;
            self.on_token(token, bytes);
        }
        self.lexer = lexer;
        self.put(before);
    }

    /// Reads a token, with the bytes that it ends.
    #[inline(never)]
    fn on_token(&mut self, token: Token<'_>, bytes: &[u8]) {
        let (blank, byte) = match token {
            Token::Text { raw, first, .. } => {
                if self.depth == 1 && self.place != Place::Within {
                    if first {
                        self.name.clear();
                    }
                    let room = self.member.len().saturating_add(1);
                    let room = room.saturating_sub(self.name.len());
                    self.name.extend(raw.iter().take(room));
                }
                if self.place == Place::Value {
                    self.is_plain();
                }
                return self.put(bytes);
            }
            _ => bytes
                .split_at_checked(bytes.len().saturating_sub(1))
                .unwrap_or_default(),
        };
        self.put(blank);
        match (token, self.place, self.depth) {
            (Token::Colon, Place::Before, 1) if self.name == self.member.as_bytes() => {
                self.put(byte);
                self.place = Place::Value;
                return;
            }
            (Token::Colon, Place::Behind, 1) if self.name == self.member.as_bytes() => {
                self.place = Place::Broken;
            }
            (Token::Open(b'{'), Place::Value, _)
                if self.before.trim_ascii_end().ends_with(b":") =>
            {
                self.before.clear();
                self.place = Place::Within;
            }
            (_, Place::Value, _) => self.is_plain(),
            (Token::Open(b'{'), Place::Plain, 0) => self.place = Place::Before,
            _ => {}
        }
        match token {
            Token::Open(b'[') if self.depth == 0 && !self.in_list => self.in_list = true,
            Token::Open(_) => self.depth = self.depth.saturating_add(1),
            Token::Close => self.depth = self.depth.saturating_sub(1),
            Token::Colon | Token::Comma | Token::Text { .. } => {}
        }
        match (token, self.place, self.depth) {
            (Token::Close, Place::Within, 1) => {
                self.last = byte.first().copied();
                self.name.clear();
                self.place = Place::Behind;
            }
            (Token::Close, Place::Behind, 0) => {
                self.out.extend(self.last.take());
                self.place = Place::Plain;
            }
            (Token::Close, Place::Before, 0) => {
                self.put(byte);
                self.is_plain();
            }
            _ => self.put(byte),
        }
    }
}

#[cfg(test)]
mod tests;
