//! The outermost members of a JSON object, one after the other, without a copy and no further than is asked.
//!
//! It checks little: who has to know that a text is JSON parses it. What is not written as serializers write it ends the
//! members early, and so does a cut.

use super::{
    json::{Lexer, Token},
    taken,
};

/// Reads the members of a text that begins with an object.
#[derive(Debug)]
pub struct Members<'a> {
    lexer: Lexer,
    rest: &'a [u8],
    place: Place,
}

/// A value, as far as it is told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string without escapes: the bytes between its quotes.
    Text(&'a [u8]),
    /// `null`
    Null,
    /// Any other.
    Other,
}

/// What comes next of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its `{`.
    Object,
    /// A name.
    Name,
    /// The comma before a name.
    Comma,
}

// === impl Members ===

impl<'a> Members<'a> {
    /// Reads those of `text`.
    pub fn of(text: &'a [u8]) -> Self {
        Self {
            lexer: Lexer::default(),
            rest: text,
            place: Place::Object,
        }
    }

    /// Takes off the next name, which has no escapes, and its colon. After a name comes its [value](Self::value).
    pub fn name(&mut self) -> Option<&'a [u8]> {
        let before = match self.place {
            Place::Object => Some(Token::Open(b'{')),
            Place::Comma => Some(Token::Comma),
            Place::Name => None,
        };
        if before.is_some() && self.token() != before {
            return None;
        }
        self.place = Place::Comma;
        let name = self.plain_text()?;
        (self.token()? == Token::Colon).then_some(name)
    }

    /// Takes off the value of the name that was taken last.
    pub fn value(&mut self) -> Option<Value<'a>> {
        let before = self.rest;
        let mut depth = match self.token()? {
            Token::Text {
                raw, last: true, ..
            } => {
                return Some(match raw.contains(&b'\\') {
                    true => Value::Other,
                    false => Value::Text(raw),
                });
            }
            Token::Comma => {
                self.place = Place::Name;
                let scalar = taken(before, self.rest)
                    .strip_suffix(b",")
                    .unwrap_or_default();
                return Some(match scalar.trim_ascii() {
                    b"null" => Value::Null,
                    _ => Value::Other,
                });
            }
            Token::Open(_) => 1_u32,
            Token::Text { .. } | Token::Close | Token::Colon => return None,
        };
        while depth > 0 {
            match self.token()? {
                Token::Open(_) => depth = depth.saturating_add(1),
                Token::Close => depth = depth.saturating_sub(1),
                Token::Comma | Token::Colon | Token::Text { .. } => {}
            }
        }
        Some(Value::Other)
    }

    fn token(&mut self) -> Option<Token<'a>> {
        self.lexer.next(&mut self.rest)
    }

    fn plain_text(&mut self) -> Option<&'a [u8]> {
        match self.token()? {
            Token::Text {
                raw, last: true, ..
            } => (!raw.contains(&b'\\')).then_some(raw),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<(&str, Value<'_>)> {
        let mut members = Members::of(text.as_bytes());
        std::iter::from_fn(|| {
            let name = members.name()?;
            Some((str::from_utf8(name).unwrap(), members.value()?))
        })
        .collect()
    }

    #[test]
    fn members_are_told_by_name_and_by_what_they_are() {
        let text =
            r#" { "a" : "x" , "b":null ,"c":[{"d":null}],"e":"\u0061","f":1.5, "g": "" ,"h":{}}"#;
        let expected = [
            ("a", Value::Text(b"x")),
            ("b", Value::Null),
            ("c", Value::Other),
            ("e", Value::Other),
            ("f", Value::Other),
            ("g", Value::Text(b"")),
            ("h", Value::Other),
        ];
        assert_eq!(members(text), expected);
    }

    #[test]
    fn what_is_written_otherwise_or_cut_ends_them() {
        for text in [
            "",
            "[]",
            "[\"a\"]",
            "{}",
            "\"a\"",
            r#"{"a"#,
            r#"{"a""#,
            r#"{"a":"#,
            r#"{"a":1"#,
            r#"{"a":"x"#,
            r#"{"a":["#,
            r#"{"a":1}"#,
            r#"{"\u0061":"x"}"#,
            r#"{"a","b":"x"}"#,
        ] {
            assert_eq!(members(text), [], "{text}");
        }
        assert_eq!(members(r#"{"a":"x" "b":"y"}"#), [("a", Value::Text(b"x"))]);
    }
}
