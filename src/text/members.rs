//! The outermost members of a JSON object, one after the other, without a copy and no further than is asked.
//!
//! It checks little: who has to know that a text is JSON parses it. What is not written as serializers write it ends the
//! members early, and so does a cut.

use super::{
    find::find_quote_or_escape,
    json::{Lexer, Token},
};

/// Reads the members of a text that begins with an object.
#[derive(Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
    /// No member was taken off.
    is_first: bool,
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

// === impl Members ===

impl<'a> Members<'a> {
    /// Reads those of `text`.
    pub fn of(text: &'a [u8]) -> Self {
        Self {
            rest: text,
            is_first: true,
        }
    }

    /// Takes off the next name, which has no escapes, and its colon. After a name comes its [value](Self::value).
    pub fn name(&mut self) -> Option<&'a [u8]> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        self.take(if is_first { b'{' } else { b',' })?;
        self.take(b'"')?;
        let Value::Text(name) = self.text()? else {
            return None;
        };
        self.take(b':')?;
        Some(name)
    }

    /// Takes off the value of the name that was taken last.
    pub fn value(&mut self) -> Option<Value<'a>> {
        let rest = self.rest.trim_ascii_start();
        match rest.first()? {
            b'"' => {
                self.take(b'"')?;
                self.text()
            }
            b'{' | b'[' => self.nested(),
            _ => {
                let ends = |byte: &u8| byte.is_ascii_whitespace() || b",]}".contains(byte);
                let (scalar, after) = rest.split_at_checked(rest.iter().position(ends)?)?;
                self.rest = after.trim_ascii_start();
                let is_last = self.rest.first() != Some(&b',');
                (!is_last).then_some(match scalar {
                    b"null" => Value::Null,
                    _ => Value::Other,
                })
            }
        }
    }

    /// Takes off `byte`, if that is the next one.
    fn take(&mut self, byte: u8) -> Option<()> {
        let (first, after) = self.rest.trim_ascii_start().split_first()?;
        self.rest = after;
        (*first == byte).then_some(())
    }

    /// Takes off a string, of which the quote is off already.
    fn text(&mut self) -> Option<Value<'a>> {
        let (all, mut at, mut is_plain) = (self.rest, 0_usize, true);
        loop {
            at = at.saturating_add(find_quote_or_escape(all.get(at..)?)?);
            let (text, after) = all.split_at_checked(at)?;
            if let [b'"', after @ ..] = after {
                self.rest = after;
                return Some(if is_plain {
                    Value::Text(text)
                } else {
                    Value::Other
                });
            }
            is_plain = false;
            at = at.saturating_add(2);
        }
    }

    /// Takes off an object or a list.
    fn nested(&mut self) -> Option<Value<'a>> {
        let (mut lexer, mut depth) = (Lexer::default(), 0_u32);
        loop {
            match lexer.next(&mut self.rest)? {
                Token::Open(_) => depth = depth.saturating_add(1),
                Token::Close => depth = depth.saturating_sub(1),
                Token::Comma | Token::Colon | Token::Text { .. } => {}
            }
            if depth == 0 {
                return Some(Value::Other);
            }
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
