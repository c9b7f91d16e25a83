//! Tables by the numbers that the proxy gives to contexts.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A table by numbers. The proxy counts them up, so no caller can have them collide, and every
/// callback looks in several of these tables.
pub type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Hashes numbers by one multiplication each.
#[derive(Debug, Default)]
pub struct NumberHasher(u64);

/// An odd number whose bits are evenly mixed: 2^64 through the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(MIX);
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
        let mut hasher = NumberHasher::default();
        key.hash(&mut hasher);
        hasher.finish()
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
