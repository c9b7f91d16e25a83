//! A text of JSON, with its escapes or without them.
//!
//! It is read as it stands, and is copied only where it has escapes and is wanted without them.

use std::borrow::Cow;

/// The longest text that is told to be blank, in bytes.
const MAX_BLANK_BYTES: usize = 4096;

/// A text that may still have the escapes of the JSON from which it comes.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// The bytes between the quotes of a string of JSON.
    Escaped(&'a str),
    /// The text itself.
    Plain(Cow<'a, str>),
}

// === impl Text ===

impl<'a> Text<'a> {
    /// A text of our own.
    pub const fn of(text: &'a str) -> Self {
        Self::Plain(Cow::Borrowed(text))
    }

    /// A text that was made.
    pub const fn made(text: String) -> Self {
        Self::Plain(Cow::Owned(text))
    }

    /// The text itself.
    #[inline(never)]
    pub fn plain(&self) -> Cow<'a, str> {
        match self {
            Self::Escaped(escaped) if !escaped.contains('\\') => Cow::Borrowed(escaped),
            Self::Escaped(escaped) => Cow::Owned(unescaped(escaped)),
            Self::Plain(text) => text.clone(),
        }
    }

    /// Returns true if it is this text.
    #[inline(never)]
    pub fn is(&self, other: &str) -> bool {
        match self {
            // A character has 1 to 6 bytes of an escaped text for each of its own: long names are not looked through.
            Self::Escaped(escaped)
                if !(other.len()..=other.len().saturating_mul(6)).contains(&escaped.len()) =>
            {
                false
            }
            Self::Plain(text) => text == other,
            // What an escape stands for is shorter.
            Self::Escaped(escaped) if escaped.len() == other.len() => {
                *escaped == other && !other.contains('\\')
            }
            // It ends at the first character that is another one.
            Self::Escaped(escaped) => Unescaped(escaped).eq(other.chars()),
        }
    }

    /// Its length in bytes, as it stands in the JSON.
    pub fn len(&self) -> usize {
        match self {
            Self::Escaped(escaped) => escaped.len(),
            Self::Plain(text) => text.len(),
        }
    }

    /// Returns true if the text has no character.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Escaped(escaped) => escaped.is_empty(),
            Self::Plain(text) => text.is_empty(),
        }
    }

    /// Returns true if the text is white space alone, of at most [`MAX_BLANK_BYTES`]: a longer one goes on as any
    /// other text.
    #[inline(never)]
    pub fn is_blank(&self) -> bool {
        self.len() <= MAX_BLANK_BYTES
            && match self {
                Self::Escaped(escaped) => characters(escaped).all(char::is_whitespace),
                Self::Plain(text) => text.trim().is_empty(),
            }
    }
}

/// The characters for which a string's text stands, as it is in JSON.
pub fn characters(escaped: &str) -> impl Iterator<Item = char> {
    Unescaped(escaped)
}

/// The characters for which an escaped text stands. Half of a surrogate pair, which is JSON to some and text to nobody,
/// stands for the replacement character.
struct Unescaped<'a>(&'a str);

impl Unescaped<'_> {
    fn unit(rest: &str) -> Option<u32> {
        u32::from_str_radix(rest.get(..4)?, 16).ok()
    }
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    // Many loops go through it, and few texts have an escape.
    #[inline(never)]
    fn next(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let char = chars.next()?;
        self.0 = chars.as_str();
        if char != '\\' {
            return Some(char);
        }
        let kind = chars.next()?;
        self.0 = chars.as_str();
        Some(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let high = Self::unit(self.0).unwrap_or_default();
                self.0 = self.0.get(4..).unwrap_or_default();
                let low = self.0.strip_prefix("\\u").and_then(Self::unit);
                let low = low.filter(|low| (0xdc00..0xe000).contains(low));
                let code = match low.filter(|_| (0xd800..0xdc00).contains(&high)) {
                    Some(low) => {
                        self.0 = self.0.get(6..).unwrap_or_default();
                        ((high & 0x3ff) << 10 | (low & 0x3ff)).saturating_add(0x1_0000)
                    }
                    None => high,
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => other,
        })
    }
}

#[inline(never)]
fn unescaped(escaped: &str) -> String {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at_checked(at).unwrap_or((rest, ""));
        text.push_str(plain);
        let mut chars = Unescaped(escape);
        text.extend(chars.next());
        rest = chars.0;
    }
    text.push_str(rest);
    text
}
