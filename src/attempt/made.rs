//! Finds in an answer, as it passes, the ids of what it made.
//!
//! Which members have them the platform's profile says ([`Makes`]). A stream tells them in the first
//! event that has any, or in the `response` that is in it.

use crate::{
    home::MAX_ID_BYTES,
    snapshot::{MAX_MEMBER_BYTES, MadeMember, Makes},
    text::{
        json::{Lexer, Token},
        kind::{Begun, BodyKind, Start},
        sse::{Framer, Piece},
    },
};

/// The most bytes of an answer that are read for its ids. Platforms write them first, or after what the
/// request said, which they repeat.
const MAX_BYTES: usize = 256 * 1024;

/// The most events of a stream that are read for them: they are in the first that is about the answer.
const MAX_EVENTS: usize = 16;

/// The member of an event with the whole answer in it.
const ANSWER: &str = "response";

/// Reads an answer for the ids of what it made.
#[derive(Debug)]
pub struct MadeReader {
    makes: Makes,
    form: Form,
    /// The bytes that may still be read.
    left: usize,
}

#[derive(Debug)]
enum Form {
    /// Nothing has come that tells.
    Unknown(Start),
    Json(Object),
    Events {
        framer: Framer,
        object: Object,
        /// The event has told an id.
        has_told: bool,
        events: usize,
    },
    /// The ids were found, or are not there.
    Done,
}

/// Reads one object for members of it, and of the objects in it.
#[derive(Debug, Default)]
struct Object {
    lexer: Lexer,
    /// The containers that are open: of the first two, true for an object.
    outer: [bool; 2],
    depth: u32,
    /// The names of the members whose values come.
    names: [Kept<MAX_MEMBER_BYTES>; 2],
    /// A colon has come, and not the end of what follows it.
    is_value: bool,
    value: Kept<MAX_ID_BYTES>,
    /// The members that were met, of those that are looked for.
    met: Vec<usize>,
    is_over: bool,
}

/// A text of at most so many bytes, without escapes; longer ones and those that have some are none.
#[derive(Debug, Default)]
struct Kept<const MOST: usize> {
    bytes: Vec<u8>,
    is_none: bool,
}

// === impl MadeReader ===

impl MadeReader {
    /// A reader of an answer that `makes` this.
    pub fn new(makes: Makes) -> Self {
        Self {
            makes,
            form: Form::Unknown(Start::default()),
            left: MAX_BYTES,
        }
    }

    /// Takes the next bytes. Returns the ids in them, each once.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let bytes = bytes.get(..self.left).unwrap_or(bytes);
        self.left = self.left.saturating_sub(bytes.len());
        let begun: Begun<'_>;
        let bytes = match &mut self.form {
            Form::Unknown(start) => {
                begun = start.read(bytes, false);
                self.form = match begun.kind {
                    None => return Vec::new(),
                    Some(BodyKind::Json) => Form::Json(Object::default()),
                    Some(BodyKind::Events) => Form::Events {
                        framer: Framer::default(),
                        object: Object::default(),
                        has_told: false,
                        events: 0,
                    },
                    Some(BodyKind::Other) => Form::Done,
                };
                begun.text()
            }
            Form::Json(_) | Form::Events { .. } | Form::Done => bytes,
        };
        let mut ids = Vec::new();
        let members = self.makes.members();
        let may_come = match &mut self.form {
            Form::Unknown(_) => true,
            Form::Done => false,
            Form::Json(object) => {
                object.read(bytes, members, None, &mut ids);
                !object.is_over
            }
            Form::Events {
                framer,
                object,
                has_told,
                events,
            } => {
                let mut rest = bytes;
                while *events < MAX_EVENTS
                    && let Some(piece) = framer.next(&mut rest)
                {
                    match piece {
                        Piece::Data(data) => object.read(data, members, Some(ANSWER), &mut ids),
                        Piece::End => {
                            *events = if *has_told || !ids.is_empty() {
                                MAX_EVENTS
                            } else {
                                events.saturating_add(1)
                            };
                            *object = Object::default();
                        }
                        Piece::Name { .. } | Piece::Comment | Piece::Blank => {}
                    }
                }
                *has_told |= !ids.is_empty();
                *events < MAX_EVENTS
            }
        };
        if !may_come || self.left == 0 {
            self.form = Form::Done;
        }
        ids
    }
}

// === impl Object ===

impl Object {
    /// Reads on. `inside`: an object that stands for this one.
    fn read(
        &mut self,
        bytes: &[u8],
        members: &[MadeMember],
        inside: Option<&str>,
        ids: &mut Vec<String>,
    ) {
        let mut rest = bytes;
        while !self.is_over
            && let Some(token) = self.lexer.next(&mut rest)
        {
            match token {
                Token::Open(byte) => self.open(byte == b'{'),
                Token::Close => {
                    self.is_value = false;
                    self.depth = self.depth.saturating_sub(1);
                    self.is_over = self.depth == 0;
                }
                Token::Colon => self.is_value = true,
                Token::Comma => self.is_value = false,
                Token::Text { raw, first, last } => {
                    let Some(level) = self.level() else { continue };
                    if !self.is_value {
                        if let Some(name) = self.names.get_mut(level) {
                            name.push(raw, first);
                        }
                        continue;
                    }
                    self.value.push(raw, first);
                    let text = self.value.text().filter(|text| last && !text.is_empty());
                    if let Some(text) = text
                        && let Some(met) = self.meets(level, members, inside)
                    {
                        ids.push(text.to_owned());
                        self.met.push(met);
                        self.is_over = self.met.len() == members.len();
                    }
                }
            }
        }
    }

    fn open(&mut self, is_object: bool) {
        if let Some(level) = usize::try_from(self.depth)
            .ok()
            .and_then(|depth| self.outer.get_mut(depth))
        {
            *level = is_object;
        }
        self.is_value = false;
        self.depth = self.depth.saturating_add(1);
    }

    /// The object whose members come, where they may be looked for: 0 for the outermost.
    fn level(&self) -> Option<usize> {
        match (self.depth, self.outer) {
            (1, [true, _]) => Some(0),
            (2, [true, true]) => Some(1),
            _ => None,
        }
    }

    /// The place among `members` of the one whose value has come, where it is looked for and is the
    /// first of its name.
    fn meets(&self, level: usize, members: &[MadeMember], inside: Option<&str>) -> Option<usize> {
        let [outer, inner] = &self.names;
        let (within, name) = match level {
            0 => (None, outer.text()?),
            _ => (Some(outer.text()?), inner.text()?),
        };
        let within = within.filter(|object| inside != Some(object));
        let is_it = |member: &MadeMember| member.within.as_deref() == within && member.name == name;
        let at = members.iter().position(is_it)?;
        (!self.met.contains(&at)).then_some(at)
    }
}

// === impl Kept ===

impl<const MOST: usize> Kept<MOST> {
    fn push(&mut self, raw: &[u8], first: bool) {
        if first {
            self.bytes.clear();
            self.is_none = false;
        }
        self.is_none |= self.bytes.len().saturating_add(raw.len()) > MOST || raw.contains(&b'\\');
        if !self.is_none {
            self.bytes.extend_from_slice(raw);
        }
    }

    fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        (!self.is_none).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(members: &[&str]) -> MadeReader {
        let texts: Vec<String> = members.iter().map(|&text| text.to_owned()).collect();
        MadeReader::new(texts.try_into().unwrap())
    }

    fn made(members: &[&str], answer: &str) -> Vec<String> {
        reader(members).push(answer.as_bytes())
    }

    const STREAM: &str = concat!(
        ": ping\n\n",
        "event: codex.rate_limits\ndata: {\"type\":\"codex.rate_limits\",\"plan\":{\"id\":1}}\n\n",
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"object\":\"response\",",
        "\"instructions\":\"say \\\"id\\\":\\\"resp_no\\\"\",\"id\":\"resp_1\"}}\n\n",
        "data: {\"response\":{\"id\":\"resp_2\"}}\n\n",
    );

    const BATCH: &str = r#"{"id":"batch_1","object":"batch","errors":null,"input_file_id":"file-in",
        "output_file_id":"file-out","error_file_id":null,"request_counts":{"total":1},
        "metadata":{"output_file_id":"file-no"},"usage":{"id":"no"}}"#;

    const MEMBERS: [&str; 4] = ["id", "output_file_id", "error_file_id", "file.id"];

    #[test]
    fn the_id_is_the_answers_own() {
        assert_eq!(
            made(&["id"], r#"{"id":"file-1","object":"file"}"#),
            ["file-1"]
        );
        let nested = r#" {"object":"x","metadata":{"id":"no"},"data":[{"id":"no"}],"id":"vs_1"}"#;
        assert_eq!(made(&["id"], nested), ["vs_1"]);
        assert_eq!(made(&["id"], STREAM), ["resp_1"]);
        for nothing in [
            "",
            "  ",
            "[]",
            r#"[{"id":"no"}]"#,
            r#"{"id":7}"#,
            r#"{"id":""}"#,
            r#"{"object":"x"}"#,
            r#"{"x":"id","y":["id","no"]}"#,
            "ID3 sound",
            "data: [DONE]\n\n",
        ] {
            assert!(made(&["id"], nothing).is_empty(), "{nothing}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(MAX_ID_BYTES + 1));
        assert!(made(&["id"], &long).is_empty());
    }

    #[test]
    fn a_batch_tells_its_files_and_an_upload_its_file() {
        assert_eq!(made(&MEMBERS, BATCH), ["batch_1", "file-out"]);
        let upload =
            r#"{"id":"upload_1","file":{"object":"file","id":"file-1"},"part":{"id":"no"}}"#;
        assert_eq!(made(&MEMBERS, upload), ["upload_1", "file-1"]);
        assert_eq!(made(&["file.id"], upload), ["file-1"]);
        let twice = r#"{"id":"a","id":"b","output_file_id":"c"}"#;
        assert_eq!(made(&MEMBERS, twice), ["a", "c"], "the first counts");
    }

    #[test]
    fn they_are_told_once_and_not_looked_for_without_end() {
        let mut told = reader(&["id"]);
        assert_eq!(told.push(STREAM.as_bytes()), ["resp_1"]);
        assert!(told.push(STREAM.as_bytes()).is_empty());
        let mut reader = reader(&["id"]);
        let long = format!("{{\"input\":\"{}", "x".repeat(MAX_BYTES));
        assert!(reader.push(long.as_bytes()).is_empty());
        assert!(reader.push(b"\",\"id\":\"late\"}").is_empty());
        let mut reader = self::reader(&["id"]);
        assert!(
            reader
                .push("data: {}\n\n".repeat(MAX_EVENTS).as_bytes())
                .is_empty()
        );
        assert!(reader.push(STREAM.as_bytes()).is_empty());
    }

    proptest! {
        #[test]
        fn an_answer_says_the_same_wherever_it_is_cut(
            is_stream: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = if is_stream { STREAM } else { BATCH };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut reader = reader(&MEMBERS);
            let pieces = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]);
            let found: Vec<String> = pieces.flat_map(|piece| reader.push(piece)).collect();
            prop_assert_eq!(found, made(&MEMBERS, text));
        }

        #[test]
        fn no_answer_panics(pieces: Vec<Vec<u8>>) {
            let mut reader = reader(&MEMBERS);
            for piece in &pieces {
                reader.push(piece);
            }
        }
    }
}
