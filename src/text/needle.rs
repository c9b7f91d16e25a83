//! A text that is looked for in all that goes by, such as a credential in answers.

use super::find::find_either;

/// A text that is looked for by the byte of it that other texts seldom have.
///
/// To make one takes a pass over the text, to look for it little more than to look for one byte.
pub struct Needle {
    text: Vec<u8>,
    /// The place of the byte that is looked for.
    probe: usize,
}

/// Bytes that texts seldom have, the rarest first: letters of keys that words do without.
const RARE: &[u8] = b"QZXJKVYWUGBHqzjxFMOLNPRDCSTEAI";

/// The place of each byte in [`RARE`]; its length for the others.
const RANKS: [usize; 256] = ranks();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "it runs when this is compiled, and nowhere else"
)]
const fn ranks() -> [usize; 256] {
    let mut ranks = [RARE.len(); 256];
    let mut rank = 0;
    while rank < RARE.len() {
        ranks[RARE[rank] as usize] = rank;
        rank += 1;
    }
    ranks
}

// === impl Needle ===

impl Needle {
    /// Makes that of a text.
    pub fn new(text: Vec<u8>) -> Self {
        let rank = |byte: &u8| RANKS.get(usize::from(*byte)).copied();
        let rarest = text.iter().enumerate().min_by_key(|(_, byte)| rank(byte));
        let probe = rarest.map_or(0, |(at, _)| at);
        Self { text, probe }
    }

    /// The length of the text.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    fn probe(&self) -> Option<u8> {
        self.text.get(self.probe).copied()
    }

    /// The place of this text in `hay` whose probe is at `at`, where it is there.
    fn around(&self, hay: &[u8], at: usize) -> Option<usize> {
        let start = at.checked_sub(self.probe)?;
        hay.get(start..)?.starts_with(&self.text).then_some(start)
    }

    /// The length of the longest end of `hay` with which this text begins.
    pub fn beginning_at_end(&self, hay: &[u8]) -> usize {
        let most = self.text.len().saturating_sub(1).min(hay.len());
        let first = self.text.first().copied().unwrap_or_default();
        let mut end = hay
            .get(hay.len().saturating_sub(most)..)
            .unwrap_or_default();
        while let Some(at) = find_either(end, first, first) {
            end = end.get(at..).unwrap_or_default();
            if self.text.starts_with(end) {
                return end.len();
            }
            end = end.get(1..).unwrap_or_default();
        }
        0
    }
}

/// The place and the length of each of `needles` in `hay`: two at most are looked for.
pub fn find_all(needles: &[Needle], hay: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let probe = |needle: Option<&Needle>| needle.and_then(Needle::probe);
    let (Some(a), Some(b)) = (probe(needles.first()), probe(needles.last())) else {
        return found;
    };
    let mut at = 0_usize;
    while let Some(rest) = hay.get(at..)
        && let Some(next) = find_either(rest, a, b)
    {
        at = at.saturating_add(next);
        let needles = needles.iter();
        found.extend(needles.filter_map(|needle| Some((needle.around(hay, at)?, needle.len()))));
        at = at.saturating_add(1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_byte_is_looked_for() {
        for (text, probe) in [
            ("sk-proj-Qab", b'Q'),
            ("token", b't'),
            ("0123", b'0'),
            ("aXbQ", b'Q'),
        ] {
            let needle = Needle::new(text.as_bytes().to_vec());
            assert_eq!(needle.probe(), Some(probe), "{text}");
        }
    }

    #[test]
    fn two_texts_are_found_wherever_they_are() {
        let needles = ["a b", "a%20b"].map(|text| Needle::new(text.as_bytes().to_vec()));
        assert_eq!(find_all(&needles, b"a ba%20b a"), [(0, 3), (3, 5)]);
        assert_eq!(find_all(&[], b"a b"), []);
        assert_eq!(needles[1].beginning_at_end(b"x a%20 a%2"), 3);
        assert_eq!(needles[1].beginning_at_end(b"a%20b"), 0);
    }
}
