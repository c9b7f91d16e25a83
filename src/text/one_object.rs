//! A body that is one object of JSON, looked at as it comes, as far as has to be known before something is put around it:
//! that it ends where it seems to, for whoever reads it. Nothing is kept of it.

use super::{
    json::{Lexer, Token},
    taken,
    tree::MAX_DEPTH,
};

/// The bytes that stand between the tokens of JSON (RFC 8259 §3 and §6): blanks, numbers, `true`, `false` and `null`.
/// A reader that takes more, as comments and other quotes, could see another end.
const BETWEEN: &[u8] = b" \t\r\n+-.0123456789Eaeflnrstu";

/// Such a body.
#[derive(Debug, Default)]
pub struct OneObject {
    lexer: Lexer,
    /// The bytes of it that have been read.
    read: usize,
    depth: usize,
    /// The lists among what is open, a bit each, the innermost last.
    lists: u128,
    seen: Seen,
}

/// The finding about a body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The beginning of an object, or nothing.
    #[default]
    Beginning,
    /// An object.
    Whole,
    /// No object.
    Other,
    /// One that is deeper than [`MAX_DEPTH`].
    TooDeep,
}

// === impl OneObject ===

impl OneObject {
    /// The number of bytes of the body that it has read.
    pub fn read(&self) -> usize {
        self.read
    }

    /// Reads the bytes behind those that it has read; `end`: they are the last. Returns what has been seen then.
    pub fn on_body(&mut self, bytes: &[u8], end: bool) -> Seen {
        let valid = match std::str::from_utf8(bytes) {
            Ok(text) => text.as_bytes(),
            // The rest of a letter is yet to come.
            Err(error) if error.error_len().is_none() && !end => {
                bytes.get(..error.valid_up_to()).unwrap_or_default()
            }
            Err(_) => {
                self.seen = Seen::Other;
                return self.seen;
            }
        };
        self.read = self.read.saturating_add(valid.len());
        let (mut rest, mut before) = (valid, valid);
        let mut lexer = std::mem::take(&mut self.lexer);
        while let Some(token) = lexer.next(&mut rest) {
            self.on_token(token, taken(before, rest));
            before = rest;
        }
        self.lexer = lexer;
        self.between(before);
        if end && self.seen == Seen::Beginning {
            self.seen = Seen::Other;
        }
        self.seen
    }

    /// Reads a token, with the bytes that it ends.
    fn on_token(&mut self, token: Token<'_>, bytes: &[u8]) {
        let own = match token {
            Token::Text { raw, first, last } => raw
                .len()
                .saturating_add(usize::from(first))
                .saturating_add(usize::from(last)),
            _ => 1,
        };
        let blank = bytes.len().saturating_sub(own);
        self.between(bytes.get(..blank).unwrap_or_default());
        match (token, bytes.last()) {
            _ if self.seen == Seen::TooDeep => {}
            (Token::Open(b'{'), _) if self.depth == 0 && self.seen == Seen::Beginning => {
                self.depth = 1;
            }
            _ if self.depth == 0 => self.seen = Seen::Other,
            (Token::Open(_), _) if self.depth >= MAX_DEPTH => self.seen = Seen::TooDeep,
            (Token::Open(byte), _) => {
                self.depth = self.depth.saturating_add(1);
                self.lists = self.lists << 1 | u128::from(byte == b'[');
            }
            (Token::Close, Some(byte)) if (self.lists & 1 == 1) == (*byte == b']') => {
                self.depth = self.depth.saturating_sub(1);
                self.lists >>= 1;
                if self.depth == 0 && self.seen == Seen::Beginning {
                    self.seen = Seen::Whole;
                }
            }
            (Token::Close, _) => self.seen = Seen::Other,
            (Token::Colon | Token::Comma | Token::Text { .. }, _) => {}
        }
    }

    /// Reads what stands between two tokens.
    fn between(&mut self, bytes: &[u8]) {
        let is_outside = self.depth == 0;
        let fits = |byte: &u8| match is_outside {
            true => b" \t\r\n".contains(byte),
            false => BETWEEN.contains(byte),
        };
        if !bytes.iter().all(fits) && self.seen != Seen::TooDeep {
            self.seen = Seen::Other;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::tree::{JsonKind, Tree};

    fn seen(text: &[u8]) -> Seen {
        OneObject::default().on_body(text, true)
    }

    #[test]
    fn an_object_is_one_and_what_has_members_behind_it_is_none() {
        for text in [
            "{}",
            " {\"a\" : [1.5e-3, {\"b\\\"}\\\\\": null}, [], true ,false]}\r\n\t",
            "{\"\u{e9}\u{1f600}\":\"'}//\"}",
        ] {
            assert_eq!(seen(text.as_bytes()), Seen::Whole, "{text}");
        }
        for text in [
            "",
            " ",
            "{",
            "{\"a\":\"}",
            "[{}]",
            "\"{}\"",
            "{}{}",
            "{},\"b\":1",
            "{}}",
            "}{",
            "{]",
            "{\"a\":[}]}",
            "{\"a\":{]}",
            "{'a':'\"'},\"b\":{c\":'\"'}",
            "{\"a\":1/*\"*/},\"b\":{\"c\":1/*\"*/}",
            "{\"a\":1#\"\n},\"b\":{\"c\":1#\"\n}",
            "{\"a\":`\"`}",
            "x{}",
            "{} x",
            "{}1",
            "\u{feff}{}",
        ] {
            assert_eq!(seen(text.as_bytes()), Seen::Other, "{text}");
        }
        assert_eq!(seen(b"{\"\xc3\":1}"), Seen::Other);
        assert_eq!(seen(b"{\"a\":1}\xc3"), Seen::Other);
    }

    #[test]
    fn the_deepest_is_as_deep_as_others_read() {
        for (depth, expected) in [
            (MAX_DEPTH, Seen::Whole),
            (MAX_DEPTH + 1, Seen::TooDeep),
            (100_000, Seen::TooDeep),
        ] {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            assert_eq!(
                seen(format!("{{\"a\":{open}{close}}}").as_bytes()),
                expected
            );
        }
    }

    proptest! {
        /// Of what is JSON it says what a whole reading says, wherever it is cut.
        #[test]
        fn it_takes_what_is_an_object_and_no_other_value(
            text in "(\\{\"\u{e9}\":|\\[|1e5,?|\"\\\\\"\\{\",?|[ \\{\\}\\[\\]\",:\\\\an\u{1f600}]){0,12}[\\]\\}]{0,4}",
            cuts in prop::collection::vec(0_usize..40, 0..5),
        ) {
            let whole = seen(text.as_bytes());
            if let Ok(tree) = Tree::read(text.as_bytes()) {
                let is_object = tree.root().kind() == JsonKind::Object;
                prop_assert_eq!(whole == Seen::Whole, is_object);
            }
            let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            ends.sort_unstable();
            let mut one = OneObject::default();
            for end in ends {
                let start = one.read();
                one.on_body(text.as_bytes().get(start..end).unwrap_or_default(), false);
            }
            let last = one.on_body(&text.as_bytes()[one.read()..], true);
            prop_assert_eq!(last, whole);
        }
    }
}
