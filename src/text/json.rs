//! The tokens of a JSON text (RFC 8259 §2), as its bytes come.
//!
//! It checks nothing: text that is not JSON gives some tokens or none. What stands between the
//! tokens (numbers, literals, white space) is passed over.

use super::find::find_quote_or_escape;

/// The next bytes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// `{` or `[`: the byte.
    Open(u8),
    /// `}` or `]`.
    Close,
    /// `:`
    Colon,
    /// `,`
    Comma,
    /// A string, or a piece of it where the input was cut.
    Text {
        /// The bytes between the quotes, escapes as they stand there.
        raw: &'a [u8],
        /// The string starts with this piece.
        first: bool,
        /// The string ends with this piece.
        last: bool,
    },
}

/// Splits the bytes of one text into tokens. Every byte is looked at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lexer {
    in_text: bool,
    /// The last byte was a `\` in a string.
    escaped: bool,
}

/// The meaning of a byte outside of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Part of a number or a literal, or a blank.
    Between,
    Open,
    Close,
    Colon,
    Comma,
    Quote,
}

/// The class of each byte.
const CLASSES: [Class; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "it runs when this is compiled, and nowhere else"
)]
const fn classes() -> [Class; 256] {
    let mut classes = [Class::Between; 256];
    classes[b'{' as usize] = Class::Open;
    classes[b'[' as usize] = Class::Open;
    classes[b'}' as usize] = Class::Close;
    classes[b']' as usize] = Class::Close;
    classes[b':' as usize] = Class::Colon;
    classes[b',' as usize] = Class::Comma;
    classes[b'"' as usize] = Class::Quote;
    classes
}

// === impl Lexer ===

impl Lexer {
    /// Takes bytes off the front of `input` until they make a token, or all of them.
    #[inline(always)]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Token<'a>> {
        if self.in_text {
            return (!input.is_empty()).then(|| self.text(input, false, None));
        }
        let mut rest = *input;
        while let [byte, after @ ..] = rest {
            rest = after;
            let token = match Class::of(*byte) {
                Class::Between => continue,
                Class::Open => Token::Open(*byte),
                Class::Close => Token::Close,
                Class::Colon => Token::Colon,
                Class::Comma => Token::Comma,
                Class::Quote => {
                    let found = find_quote_or_escape(rest);
                    // Most strings come whole, and have no escapes.
                    if let Some((raw, [b'"', after @ ..])) =
                        found.and_then(|at| rest.split_at_checked(at))
                    {
                        *input = after;
                        let (first, last) = (true, true);
                        return Some(Token::Text { raw, first, last });
                    }
                    *input = rest;
                    self.in_text = true;
                    return Some(self.text(input, true, Some(found)));
                }
            };
            *input = rest;
            return Some(token);
        }
        *input = rest;
        None
    }

    /// Takes a piece of a string off. `found`: where its first quote or escape is, if that was looked for.
    fn text<'a>(
        &mut self,
        input: &mut &'a [u8],
        first: bool,
        mut found: Option<Option<usize>>,
    ) -> Token<'a> {
        let whole = *input;
        loop {
            if self.escaped && input.split_off_first().is_some() {
                self.escaped = false;
            }
            match found.take().unwrap_or_else(|| find_quote_or_escape(input)) {
                None => {
                    *input = &[];
                    return Token::Text {
                        raw: whole,
                        first,
                        last: false,
                    };
                }
                Some(at) => {
                    let ends = input.get(at) == Some(&b'"');
                    *input = input.get(at.saturating_add(1)..).unwrap_or_default();
                    if ends {
                        self.in_text = false;
                        let length = whole.len().saturating_sub(input.len()).saturating_sub(1);
                        let raw = whole.get(..length).unwrap_or_default();
                        return Token::Text {
                            raw,
                            first,
                            last: true,
                        };
                    }
                    self.escaped = true;
                }
            }
        }
    }
}

// === impl Class ===

impl Class {
    #[inline]
    fn of(byte: u8) -> Self {
        let class = CLASSES.get(usize::from(byte)).copied();
        class.unwrap_or(Self::Between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> String {
        let (mut lexer, mut input) = (Lexer::default(), text.as_bytes());
        let mut tokens = String::new();
        while let Some(token) = lexer.next(&mut input) {
            tokens.push_str(&match token {
                Token::Open(byte) => char::from(byte).to_string(),
                Token::Close => ")".to_owned(),
                Token::Colon => ":".to_owned(),
                Token::Comma => ",".to_owned(),
                Token::Text { raw, last, .. } => {
                    format!(
                        "<{}{}",
                        String::from_utf8_lossy(raw),
                        if last { ">" } else { "" }
                    )
                }
            });
        }
        tokens
    }

    #[test]
    fn strings_end_at_the_quote_that_is_not_escaped() {
        assert_eq!(
            tokens(r#"{"a" : [1.5e3, null, "b\"}\\" , ""], "c\u0022":{}}"#),
            r#"{<a>:[,,<b\"}\\>,<>),<c\u0022>:{))"#
        );
        assert_eq!(tokens(r#"["cut\"#), r"[<cut\");
    }

    #[test]
    fn a_cut_makes_pieces_of_a_string() {
        let mut lexer = Lexer::default();
        let mut all = Vec::new();
        for mut chunk in [b"\"a".as_slice(), b"\\", b"\"b", b"", b"\"\"", b"\""] {
            while let Some(Token::Text { raw, first, last }) = lexer.next(&mut chunk) {
                all.push((String::from_utf8(raw.to_vec()).unwrap(), first, last));
            }
        }
        let piece = |raw: &str, first, last| (raw.to_owned(), first, last);
        let expected = [
            piece("a", true, false),
            piece("\\", false, false),
            piece("\"b", false, false),
            piece("", false, true),
            piece("", true, false),
            piece("", false, true),
        ];
        assert_eq!(all, expected);
    }
}
