//! Readers of text that comes in pieces: JSON and event streams.
//!
//! Each reader of pieces looks at every byte once, holds no more than a named bound, and gives the same
//! answer wherever the input was cut. A [`tree::Tree`] reads a whole text, [`out::Out`]
//! writes one, and [`edit`] changes some of one. None of them
//! knows a dialect, a platform or HTTP.

pub(crate) mod decimal;
pub mod edit;
pub(crate) mod find;
pub(crate) mod json;
pub(crate) mod json_string;
pub mod kind;
pub(crate) mod members;
pub(crate) mod needle;
pub(crate) mod one_object;
pub mod out;
pub mod sse;
pub mod tree;

/// A letter with its case folded as Unicode does: two letters beyond ASCII fold into it, the long s and the sign for
/// kelvins.
pub(crate) fn folded(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    }
}

/// The bytes that were taken off the front of `before` to leave `after`.
pub(crate) fn taken<'a>(before: &'a [u8], after: &[u8]) -> &'a [u8] {
    let length = before.len().saturating_sub(after.len());
    before.get(..length).unwrap_or_default()
}
