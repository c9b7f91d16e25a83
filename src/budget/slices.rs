//! The memory that the pieces of a body take in Envoy's buffers.
//!
//! Envoy reads into slices of 16 KiB and moves them from buffer to buffer as they are. Only a piece of
//! 512 bytes or less is copied into the room that the slice before it has left.

/// The size of a slice, in bytes.
const SLICE: u64 = 16 * 1024;

/// The largest piece that is copied, in bytes.
const MAX_COPIED: u64 = 512;

/// The slices of one body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slices {
    /// Their bytes, used or not.
    taken: u64,
    /// The bytes that are free in the last one.
    room: u64,
}

// === impl Slices ===

impl Slices {
    /// Takes in a piece.
    pub fn push(&mut self, piece: u64) {
        if piece <= MAX_COPIED.min(self.room) {
            self.room = self.room.saturating_sub(piece);
            return;
        }
        let new = piece.div_ceil(SLICE).saturating_mul(SLICE);
        self.taken = self.taken.saturating_add(new);
        self.room = new.saturating_sub(piece);
    }

    /// The bytes that all pieces take together.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pieces: impl IntoIterator<Item = u64>) -> u64 {
        let mut slices = Slices::default();
        pieces.into_iter().for_each(|piece| slices.push(piece));
        slices.taken()
    }

    /// `allocated` of Envoy 1.40 for a body of 1 MiB in pieces of that size, one a read, in MiB.
    #[test]
    fn pieces_take_what_was_measured() {
        for (piece, measured) in [(300, 1.06), (600, 27.49), (1_400, 11.88), (4_000, 4.20)] {
            let count = (1 << 20) / piece;
            let modelled = taken(std::iter::repeat_n(piece, count as usize));
            let modelled = modelled as f64 / f64::from(1 << 20);
            assert!(
                (modelled / measured - 1.0).abs() < 0.1,
                "{piece}: {modelled} MiB, measured {measured}"
            );
        }
    }

    #[test]
    fn no_pieces_take_less_than_their_bytes() {
        for piece in [1, 512, 513, SLICE - 1, SLICE, SLICE + 1, 100_000] {
            for count in [1, 2, 33, 1_000] {
                assert!(taken(std::iter::repeat_n(piece, count)) >= piece * count as u64);
            }
        }
    }
}
