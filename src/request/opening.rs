//! The opening of a conversation: what its first turn says and all later ones repeat. It is the system's text,
//! the tools, and the turns up to the first of the user. Where a request names no session, a hash of that
//! stands for one, so that a conversation stays with the account that has it in its prompt cache.
//!
//! It reads strings, names and brackets as they stand there: numbers and the order of the body's members do
//! not count, and neither do marks of what to cache, which clients move from turn to turn. Of a long text its
//! beginning and its length count. Each byte is read once, and nothing of it is kept.

use super::MAX_DEPTH;
use crate::{
    dialect::{OpeningMember, OpeningValue},
    hash::{Stream, combine},
    text::json::Token,
};

/// The most of one string that counts, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// The longest name that is looked for has 18 bytes.
const MAX_NAME_BYTES: usize = 24;

/// The most members of a dialect that an opening consists of.
const MAX_MEMBERS: usize = 4;

/// The member by which clients mark what to cache.
const CACHE_MARK: &[u8] = b"cache_control";

/// The depths at which tokens stand: in the body's object, in the list of turns, in one of them.
const BODY: u32 = 1;
const TURNS: u32 = 2;
const TURN: u32 = 3;

/// The opening of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Its hash.
    pub hash: u64,
    /// The conversation has more: this is no first turn.
    pub goes_on: bool,
}

/// Reads a body token by token.
#[derive(Debug)]
pub struct OpeningReader {
    members: &'static [OpeningMember],
    /// The bytes of each member that were read of it.
    read: [u64; MAX_MEMBERS],
    depth: u32,
    /// The member whose value comes.
    member: Option<usize>,
    text: Text,
    /// The depth at which a mark stands, while its value comes.
    mark: Option<u32>,
    /// The value that comes is the role of a turn.
    is_role: bool,
    /// The turn that comes is the user's.
    is_users: bool,
    turns: Turns,
}

/// The turns that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turns {
    /// The turns before the user's first.
    Before,
    /// The first of the user.
    First,
    /// More.
    More,
}

/// The string that comes, or has come.
#[derive(Debug, Default)]
struct Text {
    hash: Stream,
    length: usize,
    name: Vec<u8>,
    /// The string has come, and what follows tells if it is a name or a value.
    is_whole: bool,
}

// === impl OpeningReader ===

impl OpeningReader {
    /// A reader at the start of a body, for the members that its dialect says.
    pub fn new(members: &'static [OpeningMember]) -> Self {
        Self {
            members,
            read: [0; MAX_MEMBERS],
            depth: 0,
            member: None,
            text: Text::default(),
            mark: None,
            is_role: false,
            is_users: false,
            turns: Turns::Before,
        }
    }

    /// Takes the next token of the body.
    pub fn take(&mut self, token: Token<'_>) {
        match token {
            Token::Text { raw, first, last } => self.text.push(raw, first, last),
            Token::Colon => self.name(),
            Token::Comma => {
                self.value();
                self.next_member();
            }
            Token::Open(byte) => {
                self.add(byte.into());
                self.depth = self.depth.saturating_add(1);
                if self.depth > MAX_DEPTH {
                    self.member = None;
                }
            }
            Token::Close => {
                self.value();
                self.close();
            }
        }
    }

    /// The opening, if all of it has come.
    pub fn opening(&self) -> Option<Opening> {
        let goes_on = match self.turns {
            Turns::Before => return None,
            Turns::First => false,
            Turns::More => true,
        };
        let hash = self.read.iter().fold(0, |hash, read| combine(hash, *read));
        Some(Opening { hash, goes_on })
    }

    /// The string that has come is a name.
    fn name(&mut self) {
        if !std::mem::take(&mut self.text.is_whole) {
            return;
        }
        let name = self.text.name.as_slice();
        if self.depth == BODY {
            let mut members = self.members.iter();
            self.member = members.position(|member| member.name.as_bytes() == name);
        } else if name == CACHE_MARK {
            self.mark.get_or_insert(self.depth);
        } else {
            self.is_role = self.depth == TURN && name == b"role" && self.is_turns();
            self.add(combine(1, self.text.hash()));
        }
    }

    /// A value ends; a string, if one has come.
    fn value(&mut self) {
        let is_role = std::mem::take(&mut self.is_role);
        if !std::mem::take(&mut self.text.is_whole) {
            return;
        }
        self.is_users |= is_role && self.text.name == b"user";
        self.add(combine(2, self.text.hash()));
        // The user's words, and nothing else.
        if self.depth == BODY && self.is_turns() && self.turns == Turns::Before {
            self.turns = Turns::First;
        }
    }

    /// A comma: what comes next is another member, or another turn.
    fn next_member(&mut self) {
        if self.mark == Some(self.depth) {
            self.mark = None;
        }
        if self.depth == TURNS && self.is_turns() && self.turns == Turns::First {
            self.turns = Turns::More;
        }
        if self.depth == BODY {
            self.member = None;
        }
    }

    fn close(&mut self) {
        if self.mark == Some(self.depth) {
            self.mark = None;
        }
        if self.depth == BODY {
            self.member = None;
        }
        self.add(0);
        self.depth = self.depth.saturating_sub(1);
        if self.depth == TURNS && self.is_turns() {
            let is_users = std::mem::take(&mut self.is_users);
            if is_users && self.turns == Turns::Before {
                self.turns = Turns::First;
            }
        }
    }

    /// The member whose value comes has the turns.
    fn is_turns(&self) -> bool {
        let member = self.member.and_then(|index| self.members.get(index));
        member.is_some_and(|member| member.value == OpeningValue::Turns)
    }

    /// Takes a token of the opening.
    fn add(&mut self, token: u64) {
        let is_over = self.turns != Turns::Before && self.is_turns();
        if is_over || self.mark.is_some() {
            return;
        }
        if let Some(read) = self.member.and_then(|index| self.read.get_mut(index)) {
            *read = combine(*read, token);
        }
    }
}

// === impl Text ===

impl Text {
    fn push(&mut self, raw: &[u8], first: bool, last: bool) {
        if first {
            self.hash = Stream::default();
            self.length = 0;
            self.name.clear();
        }
        let room = MAX_TEXT_BYTES.saturating_sub(self.length);
        self.hash.push(raw.get(..room).unwrap_or(raw));
        self.length = self.length.saturating_add(raw.len());
        let room = MAX_NAME_BYTES.saturating_sub(self.name.len());
        self.name.extend(raw.iter().take(room));
        self.is_whole = last;
    }

    fn hash(&self) -> u64 {
        let length = u64::try_from(self.length).unwrap_or(u64::MAX);
        combine(self.hash.end(), length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{dialect::Dialect, text::json::Lexer};

    fn opening_of_pieces<'a>(
        dialect: Dialect,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Opening> {
        let mut reader = OpeningReader::new(dialect.format().opening());
        let mut lexer = Lexer::default();
        for mut piece in pieces {
            while let Some(token) = lexer.next(&mut piece) {
                reader.take(token);
            }
        }
        reader.opening()
    }

    fn opening_of(dialect: Dialect, body: &[u8]) -> Option<Opening> {
        opening_of_pieces(dialect, [body])
    }

    fn opening(dialect: Dialect, body: &Value) -> Opening {
        opening_of(dialect, body.to_string().as_bytes()).expect("an opening")
    }

    /// A conversation of so many turns.
    fn turns(dialect: Dialect, system: &str, first: &str, count: usize) -> Value {
        let turn = |index: usize| {
            let (role, text) = match index {
                0 => ("user", first.to_owned()),
                index if index % 2 == 1 => ("assistant", format!("answer {index}")),
                index => ("user", format!("question {index}")),
            };
            json!({"role": role, "content": text})
        };
        let turns: Vec<Value> = (0..count).map(turn).collect();
        let tools = json!([{"name": "read", "parameters": {"type": "object"}}]);
        match dialect {
            Dialect::Chat | Dialect::Envelope => {
                let system = json!({"role": "system", "content": system});
                let turns: Vec<Value> = std::iter::once(system).chain(turns).collect();
                json!({"model": "m", "messages": turns, "tools": tools, "n": count})
            }
            Dialect::Responses => {
                json!({"model": "m", "instructions": system, "input": turns, "tools": tools})
            }
            Dialect::Messages => {
                json!({"model": "m", "system": system, "messages": turns, "tools": tools})
            }
            Dialect::Ernie => Value::Null,
            Dialect::Gemini => {
                let parts = |text: &Value| json!([{"text": text}]);
                let role = |turn: &Value| match turn["role"] == "user" {
                    true => "user",
                    false => "model",
                };
                let turns = turns.iter();
                let turns: Vec<Value> = turns
                    .map(|turn| json!({"role": role(turn), "parts": parts(&turn["content"])}))
                    .collect();
                let system = json!({"parts": parts(&system.into())});
                json!({"systemInstruction": system, "contents": turns, "tools": tools})
            }
        }
    }

    #[test]
    fn all_turns_of_a_conversation_have_one_opening_in_every_dialect() {
        for dialect in Dialect::OF_CALLERS {
            let first = opening(dialect, &turns(dialect, "be kind", "hello", 1));
            assert!(!first.goes_on, "{dialect:?}");
            for count in 2..6 {
                let later = opening(dialect, &turns(dialect, "be kind", "hello", count));
                assert_eq!(later.hash, first.hash, "{dialect:?}");
                assert!(later.goes_on, "{dialect:?}");
            }
            for other in [
                turns(dialect, "be kind", "hello you", 3),
                turns(dialect, "be terse", "hello", 3),
            ] {
                assert_ne!(opening(dialect, &other).hash, first.hash, "{dialect:?}");
            }
            let mut tools = turns(dialect, "be kind", "hello", 3);
            tools["tools"][0]["name"] = "write".into();
            assert_ne!(opening(dialect, &tools).hash, first.hash, "{dialect:?}");
        }
    }

    #[test]
    fn what_a_turn_changes_elsewhere_does_not_count() {
        let marked = r#"{ "messages" : [ {"content":[{"type":"text","text":"hello","cache_control":{"type":"ephemeral","ttl":"1h"}}],
            "role":"user"} , {"role":"assistant","content":"hi"} ], "temperature": 0.5,
            "system":[{"cache_control":{"type":"ephemeral"},"type":"text","text":"be kind"}],"metadata":{"user_id":"u"}}"#;
        let plain = r#"{"messages":[{"content":[{"type":"text","text":"hello"}],"role":"user"}],"system":[{"type":"text","text":"be kind"}]}"#;
        let first = opening_of(Dialect::Messages, plain.as_bytes()).unwrap();
        let later = opening_of(Dialect::Messages, marked.as_bytes()).unwrap();
        assert_eq!(later.hash, first.hash);
        assert!(later.goes_on && !first.goes_on);
    }

    #[test]
    fn words_alone_are_a_turn() {
        let one = opening(Dialect::Responses, &json!({"input": "hi", "model": "m"}));
        let same = opening(Dialect::Responses, &json!({"input": "hi"}));
        let other = opening(Dialect::Responses, &json!({"input": "ho"}));
        assert_eq!(one, same);
        assert_ne!(one.hash, other.hash);
    }

    #[test]
    fn without_a_users_turn_there_is_none() {
        for body in [
            r#"{"model":"m","prompt":"hi"}"#,
            r#"{"messages":[{"role":"system","content":"user"}]}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":[{"role":"user","content":"cut o"#,
            r#"[{"role":"user"}]"#,
            r#"{"x":{"messages":[{"role":"user","content":"hi"}]}}"#,
            "hello",
            "",
        ] {
            assert_eq!(opening_of(Dialect::Chat, body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn of_a_long_text_its_beginning_and_its_length_count() {
        let of = |text: &str| opening(Dialect::Chat, &turns(Dialect::Chat, "s", text, 1)).hash;
        let long = "x".repeat(MAX_TEXT_BYTES);
        assert_ne!(of(&format!("{long}y")), of(&long));
        assert_eq!(of(&format!("{long}y")), of(&format!("{long}z")));
        assert_ne!(of(&format!("y{long}")), of(&format!("z{long}")));
    }

    #[test]
    fn every_dialect_has_room() {
        for dialect in Dialect::OF_CALLERS {
            let members = dialect.format().opening();
            assert!(members.len() <= MAX_MEMBERS, "{dialect:?}");
            let turns = members
                .iter()
                .filter(|one| one.value == OpeningValue::Turns);
            assert_eq!(turns.count(), 1, "{dialect:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(cuts in prop::collection::vec(1_usize..9, 1..20), junk: Vec<u8>, take_junk: bool) {
            let body = turns(Dialect::Messages, "be \"kind\" \\", "hello \u{1f600}", 4).to_string();
            let body = if take_junk { junk } else { body.into_bytes() };
            let at_once = opening_of(Dialect::Messages, &body);
            let mut rest = body.as_slice();
            let pieces = cuts.iter().cycle().map_while(|cut| {
                let piece = rest.split_off(..rest.len().min(*cut));
                piece.filter(|piece| !piece.is_empty())
            });
            prop_assert_eq!(opening_of_pieces(Dialect::Messages, pieces), at_once);
        }

        #[test]
        fn no_body_panics(body in "[{}\\[\\]\",:a-c\\\\ ]{0,200}") {
            opening_of(Dialect::Chat, format!("{{\"messages\":[{{\"role\":\"user\"{body}").as_bytes());
        }
    }
}
