//! Tables by what no caller chooses: numbers that the proxy gives to contexts, and names that operators give.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A table whose keys no caller can have collide. Every callback looks in several of these, so they hash by few
/// steps.
pub type Known<K, V> = HashMap<K, V, BuildHasherDefault<KnownHasher>>;

/// Hashes each word by one multiplication.
#[derive(Debug, Default)]
pub struct KnownHasher(u64);

/// An odd number whose bits are evenly mixed: 2^64 through the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for KnownHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, tail) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        if !tail.is_empty() {
            let tail = tail.iter();
            self.write_u64(tail.fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(MIX);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn finish(&self) -> u64 {
        // The table takes its place from the low bits, and the product has its mix in the high ones.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::Hash};

    use super::*;
    use crate::request::carried::TryId;

    fn hash(key: impl Hash) -> u64 {
        let mut hasher = KnownHasher::default();
        key.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn names_in_a_row_spread() {
        let mask = (1 << 12) - 1;
        let places: HashSet<u64> = (0..=mask)
            .map(|number| hash(format!("acc_{number}")) & mask)
            .collect();
        assert!(places.len() * 2 > 1 << 12, "{} places", places.len());
        assert_ne!(hash("12345678"), hash("12345678a"));
        assert_ne!(hash(("ab", "c")), hash(("a", "bc")));
    }

    #[test]
    fn numbers_in_a_row_spread() {
        for bits in [8, 12] {
            let mask = (1 << bits) - 1;
            let places: HashSet<u64> = (0..=mask)
                .map(|context| {
                    hash(TryId {
                        vm: 3,
                        context: u32::try_from(context * 7).unwrap(),
                    }) & mask
                })
                .collect();
            let places = u64::try_from(places.len()).unwrap();
            assert!(places * 2 > mask, "{places} places of {mask}");
        }
        assert_ne!(hash(1_u32), hash(2_u32));
    }
}
