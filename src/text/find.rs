//! Searching bytes a word at a time: the filter is built without SIMD.

const WORD_BYTES: usize = size_of::<u64>();
const LOW_BITS: u64 = u64::from_ne_bytes([0x01; WORD_BYTES]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; WORD_BYTES]);

/// The position of the first byte that is `a` or `b`.
pub fn find_either(bytes: &[u8], a: u8, b: u8) -> Option<usize> {
    let found = search(bytes, a, b);
    #[cfg(test)]
    work::add(found.map_or(bytes.len(), |at| at + 1));
    found
}

fn search(bytes: &[u8], a: u8, b: u8) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<WORD_BYTES>();
    let every_a = u64::from_ne_bytes([a; WORD_BYTES]);
    let every_b = u64::from_ne_bytes([b; WORD_BYTES]);
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zero_bytes(word ^ every_a) | zero_bytes(word ^ every_b);
        if hits != 0 {
            let within = hits.trailing_zeros() as usize / 8;
            return Some(index.saturating_mul(WORD_BYTES).saturating_add(within));
        }
    }
    tail.iter()
        .position(|byte| *byte == a || *byte == b)
        .map(|at| at.saturating_add(words.as_flattened().len()))
}

/// The high bit of the lowest zero byte is set; above that one the answer may be wrong.
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW_BITS) & !word & HIGH_BITS
}

#[cfg(test)]
pub mod work {
    //! Counts the bytes that searches looked at, so that tests can bound the work.

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
            bytes in prop::collection::vec(prop::sample::select(vec![0, 1, b'!', b'"', b'#', 0x7f, 0x80, 0xa2, 0xff]), 0..40),
            a: u8,
        ) {
            let plain = bytes.iter().position(|byte| *byte == a || *byte == b'"');
            prop_assert_eq!(find_either(&bytes, a, b'"'), plain);
        }
    }
}
