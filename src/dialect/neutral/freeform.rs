//! The raw text of a free-form tool, out of the arguments of a function that stands for it.
//!
//! Where a platform has no free-form tools, its model gets a function that takes `{"input": "…"}`. Models write
//! `patch` for `input` too, and the bare text.

use crate::text::tree::{Text, Tree};

/// The members in which models put the text.
const MEMBERS: [&str; 2] = ["input", "patch"];

/// The most bytes of arguments that wait for their end, because another member stands first in them.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// The bytes of an escaped pair of surrogates.
const PAIR_BYTES: usize = 12;

/// Arguments of which the raw text is read as they come.
#[derive(Debug)]
pub struct Unwrapping(State);

#[derive(Debug)]
enum State {
    /// Nothing has come that tells but this.
    Begins(String),
    /// The string has begun: the escape that has not ended.
    Within(String),
    /// An object that begins otherwise.
    Held(String),
    /// The text is bare.
    Bare,
    /// The string has ended.
    Ended,
}

/// The way in which a text begins.
enum Begin {
    /// The text begins as it should, and its content stands behind that place.
    At(usize),
    /// The text is as it should be, as far as it goes.
    Unknown,
    Otherwise,
}

// === impl Unwrapping ===

impl Default for Unwrapping {
    fn default() -> Self {
        Self(State::Begins(String::new()))
    }
}

impl Unwrapping {
    /// Takes the next piece, and gives what it has of the text.
    pub fn push(&mut self, piece: &str) -> String {
        match &mut self.0 {
            State::Bare => piece.to_owned(),
            State::Ended => String::new(),
            State::Within(escape) => {
                let mut escaped = std::mem::take(escape);
                escaped.push_str(piece);
                self.within(escaped)
            }
            State::Held(held) => {
                held.push_str(piece);
                if held.len() <= MAX_HELD_BYTES {
                    return String::new();
                }
                let held = std::mem::take(held);
                self.0 = State::Bare;
                held
            }
            State::Begins(begun) => {
                begun.push_str(piece);
                let begun = std::mem::take(begun);
                self.begins(begun)
            }
        }
    }

    /// Takes the end, and gives what is left of the text.
    pub fn end(self) -> String {
        match self.0 {
            State::Within(_) | State::Bare | State::Ended => String::new(),
            State::Begins(held) | State::Held(held) => {
                let text = Tree::read(held.as_bytes()).ok().and_then(|tree| {
                    let text = |name: &&str| tree.root().text_at(name);
                    Some(MEMBERS.iter().find_map(text)?.plain().into_owned())
                });
                text.unwrap_or(held)
            }
        }
    }

    fn begins(&mut self, begun: String) -> String {
        let begins = MEMBERS.map(|member| begin(&begun, member));
        for begin in &begins {
            if let Begin::At(at) = begin {
                return self.within(begun.get(*at..).unwrap_or_default().to_owned());
            }
        }
        if begins.iter().any(|begin| matches!(begin, Begin::Unknown)) {
            self.0 = State::Begins(begun);
            return String::new();
        }
        if begun.trim_start().starts_with('{') {
            self.0 = State::Held(String::new());
            return self.push(&begun);
        }
        self.0 = State::Bare;
        begun
    }

    /// Reads on in the string, up to its end or to an escape that has not ended.
    fn within(&mut self, escaped: String) -> String {
        let whole = whole_escapes(&escaped);
        let (text, rest) = escaped.split_at_checked(whole).unwrap_or((&escaped, ""));
        self.0 = match rest.starts_with('"') {
            true => State::Ended,
            false => State::Within(rest.to_owned()),
        };
        Text::Escaped(text).plain().into_owned()
    }
}

/// The bytes of a string's text that have come whole: up to its end, or to an escape that has not ended.
fn whole_escapes(escaped: &str) -> usize {
    let bytes = escaped.as_bytes();
    let mut at = 0_usize;
    while let Some(rest) = bytes.get(at..) {
        let Some(found) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
            return bytes.len();
        };
        at = at.saturating_add(found);
        let rest = rest.get(found..).unwrap_or_default();
        if rest.first() == Some(&b'"') {
            return at;
        }
        let length = match rest.get(1) {
            None => return at,
            Some(b'u') if rest.len() < 6 => return at,
            // Half of a pair: the other half may come.
            Some(b'u')
                if matches!(
                    rest,
                    [
                        _,
                        _,
                        b'd' | b'D',
                        b'8' | b'9' | b'a' | b'b' | b'A' | b'B',
                        ..
                    ]
                ) =>
            {
                let other = rest.get(6..8).or_else(|| rest.get(6..)).unwrap_or_default();
                match b"\\u".starts_with(other) {
                    true if rest.len() < PAIR_BYTES => return at,
                    true => PAIR_BYTES,
                    false => 6,
                }
            }
            Some(b'u') => 6,
            Some(_) => 2,
        };
        // A character of several bytes may follow a stroke where none may.
        at = at.saturating_add(length);
        while !escaped.is_char_boundary(at) && at < bytes.len() {
            at = at.saturating_add(1);
        }
    }
    bytes.len()
}

/// The beginning of `text`, if it is `{"member": "`.
fn begin(text: &str, member: &str) -> Begin {
    let mut rest = text;
    for token in ["{", "\"", member, "\"", ":", "\""] {
        // No white space stands within the quotes of a name.
        let skipped = if token == member {
            rest
        } else {
            rest.trim_start()
        };
        match skipped.strip_prefix(token) {
            Some(behind) => rest = behind,
            None if token.starts_with(skipped) => return Begin::Unknown,
            None => return Begin::Otherwise,
        }
    }
    Begin::At(text.len().saturating_sub(rest.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What is read of arguments that come in pieces of so many characters.
    fn unwrapped(arguments: &str, length: usize) -> String {
        let mut unwrapping = Unwrapping::default();
        let chars: Vec<char> = arguments.chars().collect();
        let pieces = chars.chunks(length.max(1));
        let mut text: String = pieces
            .map(|piece| unwrapping.push(&piece.iter().collect::<String>()))
            .collect();
        text.push_str(&unwrapping.end());
        text
    }

    #[test]
    fn what_models_write_is_the_text() {
        for (arguments, text) in [
            (r#"{"input":"a\n\"b\" \ud83d\ude00"}"#, "a\n\"b\" \u{1f600}"),
            ("\n { \"patch\" : \"x\" , \"y\": 1}", "x"),
            (r#"{"why":"so","input":"x"}"#, "x"),
            ("*** Begin Patch", "*** Begin Patch"),
            (r#"{"other":"x"}"#, r#"{"other":"x"}"#),
            (r#"{"input":3}"#, r#"{"input":3}"#),
            ("{ let a = 1; }", "{ let a = 1; }"),
            (r#"{"input":"\ud83d x"}"#, "\u{fffd} x"),
            ("", ""),
            ("{", "{"),
        ] {
            for length in 1..20 {
                assert_eq!(unwrapped(arguments, length), text, "{length}");
            }
        }
    }

    #[test]
    fn what_waits_has_a_bound() {
        let mut unwrapping = Unwrapping::default();
        assert_eq!(unwrapping.push("{\"why\":\""), "");
        let long = "x".repeat(MAX_HELD_BYTES);
        assert_eq!(unwrapping.push(&long), format!("{{\"why\":\"{long}"));
        assert_eq!(unwrapping.push("y"), "y");
    }

    proptest! {
        #[test]
        fn a_text_is_read_as_it_was_wrapped(text in r#"(\PC|[\n\t"\\\x00-\x1f]|\p{Emoji})*"#, length in 1_usize..9) {
            let arguments = json!({"input": text}).to_string();
            prop_assert_eq!(unwrapped(&arguments, length), text.clone());
            let ascii: String = arguments
                .encode_utf16()
                .map(|unit| match u8::try_from(unit) {
                    Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                    _ => format!("\\u{unit:04x}"),
                })
                .collect();
            prop_assert_eq!(unwrapped(&ascii, length), text);
        }

        #[test]
        fn any_arguments_are_read(arguments in r#"\{"input":"(\PC|[\\"u0-9a-fA-F])*"#, length in 1_usize..5) {
            let (cut, at_once) = (unwrapped(&arguments, length), unwrapped(&arguments, 1_000));
            // What is no JSON may be read in one way or another.
            if serde_json::from_str::<String>(&format!("{}\"", &arguments[9..])).is_ok() {
                prop_assert_eq!(cut, at_once);
            }
        }
    }
}
