//! Searching bytes a word at a time: the filter is built without SIMD.

const WORD_BYTES: usize = size_of::<u64>();
const LOW_BITS: u64 = u64::from_ne_bytes([0x01; WORD_BYTES]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; WORD_BYTES]);

/// The position of the first byte that is `a` or `b`.
#[inline]
pub fn find_either(bytes: &[u8], a: u8, b: u8) -> Option<usize> {
    let (every_a, every_b) = (every(a), every(b));
    let found = if a == b {
        search(bytes, |word| zero_bytes(word ^ every_a))
    } else {
        search(bytes, |word| {
            zero_bytes(word ^ every_a) | zero_bytes(word ^ every_b)
        })
    };
    note_work(bytes, found);
    found
}

/// The position of the first quote or backslash: the end of a string of JSON, or an escape in it.
pub fn find_quote_or_escape(bytes: &[u8]) -> Option<usize> {
    let found = search(bytes, |word| {
        zero_bytes(word ^ every(b'"')) | zero_bytes(word ^ every(b'\\'))
    });
    note_work(bytes, found);
    found
}

/// The position of the first byte that does not stand for itself in a string of JSON: a quote, a backslash, or a control
/// character, which none may have.
pub fn find_in_string(bytes: &[u8]) -> Option<usize> {
    let found = search(bytes, |word| {
        let quotes_and_escapes = zero_bytes(word ^ every(b'"')) | zero_bytes(word ^ every(b'\\'));
        bytes_up_to(word, 0x1f) | quotes_and_escapes
    });
    note_work(bytes, found);
    found
}

/// The position of the first CR or LF.
pub fn find_line_end(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut at) = (bytes, 0_usize);
    // Texts have few control characters, so both are looked for at once, and told from the others after.
    let found = loop {
        let Some(next) = search(rest, |word| bytes_up_to(word, b'\r')) else {
            break None;
        };
        at = at.saturating_add(next);
        if matches!(bytes.get(at), Some(b'\n' | b'\r')) {
            break Some(at);
        }
        at = at.saturating_add(1);
        rest = bytes.get(at..).unwrap_or_default();
    };
    note_work(bytes, found);
    found
}

#[inline]
fn note_work(bytes: &[u8], found: Option<usize>) {
    #[cfg(test)]
    work::add(found.map_or(bytes.len(), |at| at + 1));
    #[cfg(not(test))]
    let _ = (bytes, found);
}

/// The position of the first byte that `hits` tells. Of a word, it sets the high bit of the lowest such byte; above that
/// one it may be wrong.
#[inline(always)]
fn search(bytes: &[u8], hits: impl Fn(u64) -> u64) -> Option<usize> {
    let within = |hits: u64| hits.trailing_zeros() as usize / 8;
    let (words, tail) = bytes.as_chunks::<WORD_BYTES>();
    let mut at = 0_usize;
    for word in words {
        let found = hits(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(at.wrapping_add(within(found)));
        }
        at = at.wrapping_add(WORD_BYTES);
    }
    if tail.is_empty() {
        return None;
    }
    let Some(last) = bytes.last_chunk() else {
        let mut word = [0; WORD_BYTES];
        // The bytes above those of the tail are zero, and no hit counts there.
        for (place, byte) in word.iter_mut().zip(tail) {
            *place = *byte;
        }
        let found = hits(u64::from_le_bytes(word));
        let at = within(found);
        return (at < tail.len()).then_some(at);
    };
    // What it has of the word before it was looked at: nothing is there.
    let found = hits(u64::from_le_bytes(*last));
    (found != 0).then(|| {
        let start = bytes.len().wrapping_sub(WORD_BYTES);
        start.wrapping_add(within(found))
    })
}

const fn every(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; WORD_BYTES])
}

/// The high bit of the lowest byte that is `most` or less is set; above that one the answer may be wrong. `most` is below 0x80.
#[inline]
fn bytes_up_to(word: u64, most: u8) -> u64 {
    word.wrapping_sub(every(most.wrapping_add(1))) & !word & HIGH_BITS
}

/// The high bit of the lowest zero byte is set; above that one the answer may be wrong.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW_BITS) & !word & HIGH_BITS
}

#[cfg(test)]
pub mod work {
    //! Counts the bytes that searches looked at, and the steps of lookups, so that tests can bound the work.

    use std::cell::Cell;

    thread_local! {
        static EXAMINED: Cell<usize> = const { Cell::new(0) };
    }

    pub fn add(bytes: usize) {
        EXAMINED.with(|examined| examined.set(examined.get() + bytes));
    }

    /// The bytes examined by this thread while `run` ran.
    pub fn of(run: impl FnOnce()) -> usize {
        let before = EXAMINED.with(Cell::get);
        run();
        EXAMINED.with(Cell::get) - before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(
            bytes in prop::collection::vec(prop::sample::select(vec![
                0, 1, b'\t', b'\n', b'\r', 0x0e, 0x1f, b' ', b'!', b'"', b'#', b'[', b'\\', 0x7f, 0x80, 0x8a, 0x8d, 0xa2, 0xff,
            ]), 0..40),
            a: u8,
        ) {
            let plain = |a, b| bytes.iter().position(|byte| *byte == a || *byte == b);
            prop_assert_eq!(find_either(&bytes, a, b'"'), plain(a, b'"'));
            prop_assert_eq!(find_either(&bytes, a, a), plain(a, a));
            prop_assert_eq!(find_quote_or_escape(&bytes), plain(b'"', b'\\'));
            prop_assert_eq!(find_line_end(&bytes), plain(b'\n', b'\r'));
            let plain = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..32));
            prop_assert_eq!(find_in_string(&bytes), plain);
        }
    }
}
