//! Names and ids of calls that the other dialect takes, and what only their maker reads.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::{hash::hash64, hex, text::tree::Text};

/// The longest name of a tool, and the longest id of a call, in bytes: OpenAI's.
pub const MAX_NAME_BYTES: usize = 64;

/// The bytes of a hash in a name that was made shorter.
const HASH_BYTES: usize = 8;

/// The beginning of an [`envelope`].
pub const ENVELOPE: &str = "lk1";

/// The name as the other dialect takes it: of letters, digits, `_` and `-`, no longer than
/// [`MAX_NAME_BYTES`]. One that is so stays; any other one becomes the same one each time, and another one than every
/// other name does.
pub fn fitting<'a>(name: &Text<'a>) -> Text<'a> {
    fitting_within(name, MAX_NAME_BYTES)
}

/// The same for a platform that takes no more than `most` bytes.
pub fn fitting_within<'a>(name: &Text<'a>, most: usize) -> Text<'a> {
    let plain = name.plain();
    let legal = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
    if (1..=most).contains(&plain.len()) && plain.chars().all(legal) {
        return name.clone();
    }
    let hash = hash(&plain);
    let hash = hash.get(..most.min(2 * HASH_BYTES)).unwrap_or(&hash);
    let room = most.saturating_sub(hash.len()).saturating_sub(1);
    let head: String = plain
        .chars()
        .map(|char| if legal(char) { char } else { '_' })
        .take(room)
        .collect();
    match head.as_str() {
        "" => Text::made(hash.to_owned()),
        head => Text::made(format!("{head}_{hash}")),
    }
}

/// The id for a platform whose ids are all of `length` letters and digits.
pub fn of_length<'a>(id: &Text<'a>, length: usize) -> Text<'a> {
    let plain = id.plain();
    if plain.len() == length && plain.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.clone();
    }
    let hash = hash(&plain);
    Text::made(hash.get(..length).unwrap_or(&hash).to_owned())
}

/// The key of an id in an ordered table: most keys are told apart by the hash with which they begin. Ids that were made to
/// have the same one cost no more than ids without it.
#[inline(never)]
pub fn key(id: &Text<'_>) -> String {
    let plain = id.plain();
    let mut key = hex::encode(&hash64(&[plain.as_bytes()]).to_be_bytes());
    key.push_str(&plain);
    key
}

/// A hash in hexadecimal digits.
fn hash(text: &str) -> String {
    #[cfg(test)]
    crate::text::find::work::add(text.len());
    hex::encode(&Sha256::digest(text.as_bytes()))
}

/// Wraps what only its maker reads, so that it comes back to the one account that can: `maker` is the platform's
/// dialect, `owner` the account.
pub fn envelope(maker: &str, owner: &str, payload: &str) -> String {
    format!("{ENVELOPE}.{maker}.{owner}.{payload}")
}

/// Takes the wrapping off that was made for this maker and owner; none for anybody else's, and for what was never wrapped.
pub fn opened<'a>(text: &Text<'a>, maker: &str, owner: &str) -> Option<Text<'a>> {
    let beginning = format!("{ENVELOPE}.{maker}.{owner}.");
    match text {
        Text::Escaped(escaped) => escaped.strip_prefix(&beginning).map(Text::Escaped),
        Text::Plain(Cow::Borrowed(plain)) => plain.strip_prefix(&beginning).map(Text::of),
        Text::Plain(Cow::Owned(plain)) => {
            let payload = plain.strip_prefix(&beginning)?;
            Some(Text::made(payload.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_stays_and_another_becomes_one_that_does() {
        let name = |name: &str| fitting(&Text::of(name)).plain().into_owned();
        assert_eq!(name("mcp__server__tool-1"), "mcp__server__tool-1");
        let long = "x".repeat(100);
        for odd in ["a/b", "a_b c", "", "\u{e9}", long.as_str()] {
            let made = name(odd);
            assert!(made.len() <= MAX_NAME_BYTES, "{made}");
            assert_eq!(made, name(odd));
            assert_eq!(made, name(&made), "it fits");
        }
        assert_ne!(name("a/b"), name("a b"));
    }

    #[test]
    fn a_platform_may_take_fewer_bytes_or_ids_of_one_length() {
        let long = Text::of("mcp__server__a_tool_of_a_long_name");
        assert_eq!(fitting_within(&long, 32).plain().len(), 32);
        assert!(
            fitting_within(&long, 32)
                .plain()
                .starts_with("mcp__server__a")
        );
        assert_eq!(of_length(&Text::of("abcDEF123"), 9).plain(), "abcDEF123");
        for odd in ["call_1234", "c1", ""] {
            assert_eq!(of_length(&Text::of(odd), 9).plain().len(), 9);
        }
        assert_ne!(
            of_length(&Text::of("c1"), 9).plain(),
            of_length(&Text::of("c2"), 9).plain()
        );
    }

    #[test]
    fn an_envelope_opens_for_its_owner_alone() {
        let sealed = envelope("responses", "1f", "gAAA=");
        let opens = |maker, owner| {
            opened(&Text::of(&sealed), maker, owner).map(|text| text.plain().into_owned())
        };
        assert_eq!(opens("responses", "1f").as_deref(), Some("gAAA="));
        assert_eq!(opens("responses", "2f"), None);
        assert_eq!(opens("messages", "1f"), None);
        assert!(opened(&Text::of("EqQB"), "responses", "1f").is_none());
    }
}
