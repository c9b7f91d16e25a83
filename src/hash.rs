//! A hash that gives the same answer in every build, on every worker and every Envoy.

/// The numbers of FNV-1a.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// A 64-bit hash of `parts`: FNV-1a over each part and its end, then the finaliser of
/// MurmurHash3, whose avalanche makes every output bit usable. Not for secrets.
pub fn hash64(parts: &[&[u8]]) -> u64 {
    let mut state = OFFSET;
    for part in parts {
        for byte in *part {
            state = (state ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        // No byte of text is 0x1ff, so ("ab", "c") and ("a", "bc") differ.
        state = (state ^ 0x1ff).wrapping_mul(PRIME);
    }
    mix(state)
}

/// Spreads `a` and `b` over 64 bits.
pub fn combine(a: u64, b: u64) -> u64 {
    mix(a ^ b.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The hash of bytes that come in pieces, cut anywhere.
#[derive(Debug, Clone, Copy)]
pub struct Stream(u64);

// === impl Stream ===

impl Stream {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// The hash of what has come.
    pub fn end(self) -> u64 {
        mix(self.0)
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self(OFFSET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_never_changes() {
        // Sessions would move to other accounts, and buckets to other keys, if it did.
        assert_eq!(hash64(&[b"session", b"acc_1"]), 0x5eb8_eb34_cd1c_966c);
        assert_eq!(combine(1, 2), 0x6e9b_566a_1528_8ae6);
    }

    #[test]
    fn the_ends_of_parts_count() {
        assert_ne!(hash64(&[b"ab", b"c"]), hash64(&[b"a", b"bc"]));
    }
}
