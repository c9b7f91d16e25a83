//! An answer that names the model that its caller asked for, where another one has served it.
//!
//! The names stand at places that the dialect lists ([`Format::answer_models`](crate::dialect::Format::answer_models)):
//! of the whole answer, or of each event of a stream. They are replaced as the bytes pass; every other byte goes on as it
//! came, and nothing is held back but what does not tell yet what the answer is. An answer that is neither JSON nor a
//! stream, as a compressed one, is not changed.

use std::ops::Range;

use crate::{
    dialect::Dialect,
    text::{
        json::{Lexer, Token},
        kind::{BodyKind, Start},
        out::Out,
        sse::{Framer, Piece},
    },
};

/// The longest name of a member that is looked for has 12 bytes.
const MAX_NAME_BYTES: usize = 16;

/// Puts the model into an answer.
#[derive(Debug)]
pub struct AskedModel {
    /// The model, as JSON has it.
    model: Vec<u8>,
    object: Object,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Nothing has come that tells.
    Unknown(Start),
    Json,
    Events(Framer),
    Other,
}

/// A text of JSON, as far as it has come.
#[derive(Debug)]
struct Object {
    places: &'static [&'static [&'static str]],
    lexer: Lexer,
    depth: u32,
    /// The outermost value is a list of texts, as one dialect streams without events.
    in_list: bool,
    /// The last string, if it may be a name.
    string: Vec<u8>,
    /// The outermost member whose value comes, if a place is in it.
    within: Option<&'static str>,
    /// The value comes that is to be another one.
    is_place: bool,
    /// Such a value is passing.
    passes: bool,
}

/// A range of a chunk that does not go on.
struct Cut {
    range: Range<usize>,
    /// The model goes on in its place.
    begins: bool,
}

// === impl AskedModel ===

impl AskedModel {
    /// Puts `model` into an answer of this dialect.
    pub fn new(dialect: Dialect, model: &str) -> Self {
        let mut out = Out::default();
        out.word(model);
        Self {
            model: out.into_bytes(),
            object: Object::new(dialect.format().answer_models()),
            form: Form::Unknown(Start::default()),
        }
    }

    /// Reads the next bytes; `end`: they are the last. Returns what goes on instead of them, or none if just these do.
    pub fn on_body(&mut self, chunk: &[u8], end: bool) -> Option<Vec<u8>> {
        let Form::Unknown(start) = &mut self.form else {
            return self.on_known(chunk, 0);
        };
        let told = match start.forward(chunk, end) {
            Ok(told) => told,
            Err(instead) => return instead,
        };
        self.form = match told.kind {
            BodyKind::Json => Form::Json,
            BodyKind::Events => Form::Events(Framer::default()),
            BodyKind::Other => Form::Other,
        };
        let instead = self.on_known(&told.bytes, told.blank);
        told.instead(instead)
    }

    /// Reads the next bytes of an answer of a kind that is known, of which the first `blank` say nothing.
    fn on_known(&mut self, chunk: &[u8], blank: usize) -> Option<Vec<u8>> {
        let mut cuts = Vec::new();
        let text = chunk.get(blank..).unwrap_or_default();
        match &mut self.form {
            Form::Unknown(_) | Form::Other => return None,
            Form::Json => self.object.read(text, blank, &mut cuts),
            Form::Events(framer) => {
                let mut rest = text;
                while let Some(piece) = framer.next(&mut rest) {
                    match piece {
                        // It stands between two lines of data, and not where the piece ends.
                        Piece::Data(b"\n") => {
                            self.object.read(b"\n", 0, &mut Vec::new());
                        }
                        Piece::Data(data) => {
                            let end = chunk.len().saturating_sub(rest.len());
                            let start = end.saturating_sub(data.len());
                            self.object.read(data, start, &mut cuts);
                        }
                        Piece::End => self.object = Object::new(self.object.places),
                        Piece::Name { .. } | Piece::Comment | Piece::Blank => {}
                    }
                }
            }
        }
        if cuts.is_empty() {
            return None;
        }
        let (mut made, mut copied) = (Vec::with_capacity(chunk.len()), 0_usize);
        for Cut { range, begins } in cuts {
            made.extend_from_slice(chunk.get(copied..range.start).unwrap_or_default());
            if begins {
                made.extend_from_slice(&self.model);
            }
            copied = range.end;
        }
        made.extend_from_slice(chunk.get(copied..).unwrap_or_default());
        Some(made)
    }
}

// === impl Object ===

impl Object {
    fn new(places: &'static [&'static [&'static str]]) -> Self {
        Self {
            places,
            lexer: Lexer::default(),
            depth: 0,
            in_list: false,
            string: Vec::new(),
            within: None,
            is_place: false,
            passes: false,
        }
    }

    /// Reads the next bytes, which begin at `offset` of the chunk, and appends what of them does not go on.
    fn read(&mut self, bytes: &[u8], offset: usize, cuts: &mut Vec<Cut>) {
        let mut rest = bytes;
        while let Some(token) = self.lexer.next(&mut rest) {
            match token {
                Token::Text { raw, first, last } => {
                    if first {
                        self.string.clear();
                        self.passes = self.is_place;
                    }
                    if !self.passes {
                        // One byte more tells that there is more.
                        let room = MAX_NAME_BYTES.saturating_sub(self.string.len());
                        self.string.extend(raw.iter().take(room));
                        continue;
                    }
                    let end = bytes.len().saturating_sub(rest.len());
                    let quotes = usize::from(first).saturating_add(usize::from(last));
                    let start = end.saturating_sub(raw.len()).saturating_sub(quotes);
                    self.passes = !last;
                    cuts.push(Cut {
                        range: offset.saturating_add(start)..offset.saturating_add(end),
                        begins: first,
                    });
                }
                Token::Colon => self.name(),
                Token::Comma => {
                    self.is_place = false;
                    self.within = self.within.filter(|_| self.depth > 1);
                }
                Token::Open(b'[') if self.depth == 0 && !self.in_list => self.in_list = true,
                Token::Open(byte) => {
                    let is_within = byte == b'{' || self.depth > 1;
                    self.within = self.within.filter(|_| is_within);
                    self.depth = self.depth.saturating_add(1);
                    self.is_place = false;
                }
                Token::Close => {
                    self.depth = self.depth.saturating_sub(1);
                    self.within = self.within.filter(|_| self.depth > 1);
                    self.is_place = false;
                }
            }
        }
    }

    /// Takes the last string as the name of the member whose value comes.
    fn name(&mut self) {
        let is = |name: &str| name.as_bytes() == self.string;
        let mut places = self.places.iter();
        match self.depth {
            1 => {
                self.is_place = places.any(|place| matches!(place, [name] if is(name)));
                let mut places = self.places.iter();
                self.within = places.find_map(|place| match place {
                    [outer, _] if is(outer) => Some(*outer),
                    _ => None,
                });
            }
            2 => {
                let within = self.within;
                self.is_place = places.any(
                    |place| matches!(place, [outer, name] if within == Some(outer) && is(name)),
                );
            }
            _ => self.is_place = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(dialect: Dialect, text: &str) -> String {
        let instead = AskedModel::new(dialect, "asked").on_body(text.as_bytes(), true);
        instead.map_or(text.to_owned(), |bytes| String::from_utf8(bytes).unwrap())
    }

    const CHAT: &str = r#"{"id":"x","choices":[{"model":"m","message":{"model":"m","content":"\"model\":\"m\""}}], "model" : "a\"b" ,"x":{"model":"m"}}"#;

    #[test]
    fn the_answers_own_model_is_the_one_that_was_asked_for() {
        let expected = CHAT.replace(r#""a\"b""#, r#""asked""#);
        assert_eq!(whole(Dialect::Chat, CHAT), expected);
        let event = |data: &str| format!("event: x\r\ndata: {data}\r\n\r\n");
        for (dialect, body, expected) in [
            (Dialect::Chat, r#"{"model":"m"}"#, r#"{"model":"asked"}"#),
            (Dialect::Chat, r#"{"model":null}"#, r#"{"model":null}"#),
            (
                Dialect::Responses,
                r#"{"response":{"output":[{"model":"m"}],"model":"m","x":{"model":"m"}},"model":"m"}"#,
                r#"{"response":{"output":[{"model":"m"}],"model":"asked","x":{"model":"m"}},"model":"asked"}"#,
            ),
            (
                Dialect::Responses,
                r#"{"response":[{"model":"m"}],"item":{"model":"m"}}"#,
                r#"{"response":[{"model":"m"}],"item":{"model":"m"}}"#,
            ),
            (
                Dialect::Messages,
                r#"{"type":"message_start","message":{"id":"1","model":"m"}}"#,
                r#"{"type":"message_start","message":{"id":"1","model":"asked"}}"#,
            ),
            (
                Dialect::Gemini,
                r#"{"candidates":[{"content":{}}],"modelVersion":"m"}"#,
                r#"{"candidates":[{"content":{}}],"modelVersion":"asked"}"#,
            ),
        ] {
            assert_eq!(whole(dialect, body), expected);
            assert_eq!(whole(dialect, &event(body)), event(expected));
        }
        let list = r#"[{"modelVersion":"m"},
            {"modelVersion":"m"}]"#;
        let expected = list.replace("\"m\"", "\"asked\"");
        assert_eq!(whole(Dialect::Gemini, list), expected);
    }

    #[test]
    fn what_is_neither_json_nor_a_stream_passes_as_it_is() {
        for other in [
            "model\ndata: {\"model\":\"m\"}\n\n",
            "\u{1f}\u{8b}data: {\"model\":\"m\"}\n",
            "",
        ] {
            assert_eq!(whole(Dialect::Chat, other), other);
        }
        let marked = "\u{feff}data: {\"model\":\"m\"}\n\ndata: [DONE]\n\n";
        let expected = marked.replace("\"m\"", "\"asked\"");
        assert_eq!(whole(Dialect::Chat, marked), expected);
    }

    proptest! {
        #[test]
        fn where_the_chunks_are_cut_does_not_matter(
            cuts in prop::collection::vec(0_usize..400, 0..12),
            kind in 0..4,
            line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let text = match kind {
                0 => CHAT.to_owned(),
                1 => format!("\u{feff}: hi{line_end}{line_end}event: a{line_end}data: {CHAT}{line_end}{line_end}data: [DONE]{line_end}{line_end}"),
                2 => format!("{line_end}data:{{\"x\":1,{line_end}data: \"model\":\"m\"}}{line_end}{line_end}data: {CHAT}"),
                _ => format!("data{CHAT}"),
            };
            let expected = whole(Dialect::Chat, &text);
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let mut model = AskedModel::new(Dialect::Chat, "asked");
            let mut made = Vec::new();
            let last = at.len() - 2;
            for (number, pair) in at.windows(2).enumerate() {
                let piece = &text.as_bytes()[pair[0]..pair[1]];
                let instead = model.on_body(piece, number == last);
                made.extend(instead.unwrap_or_else(|| piece.to_vec()));
            }
            prop_assert_eq!(String::from_utf8_lossy(&made), expected);
        }
    }
}
