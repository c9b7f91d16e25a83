//! A secret that is looked for in all that goes by, such as a credential in answers.

use super::find::find_either;
use crate::secret::Secret;

/// A secret that is looked for by the byte of it that other texts seldom have. It shares the secret's
/// memory.
///
/// To make one takes a pass over the secret, to look for it little more than to look for one byte.
pub struct Needle {
    secret: Secret,
    /// The place of the byte that is looked for: the first of its kind.
    probe: usize,
}

/// The parts of a text that are secrets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The place and the length of each.
    pub whole: Vec<(usize, usize)>,
    /// The length of the longest end of the text with which a secret begins.
    pub begun: usize,
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
    /// Makes that of a secret.
    pub fn new(secret: Secret) -> Self {
        let (mut probe, mut rarest) = (0, usize::MAX);
        for (at, byte) in secret.expose().bytes().enumerate() {
            let rank = RANKS.get(usize::from(byte)).copied();
            let rank = rank.unwrap_or(usize::MAX);
            if rank < rarest {
                (probe, rarest) = (at, rank);
            }
            if rarest == 0 {
                break;
            }
        }
        Self { secret, probe }
    }

    /// The length of the secret.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        self.secret.expose().as_bytes()
    }

    fn probe(&self) -> Option<u8> {
        self.bytes().get(self.probe).copied()
    }

    /// Notes this secret, or the beginning of it at the end of `hay`, whose probe is at `at`.
    fn note_around(&self, hay: &[u8], at: usize, found: &mut Found) {
        let Some(start) = at.checked_sub(self.probe) else {
            return;
        };
        let rest = hay.get(start..).unwrap_or_default();
        if rest.starts_with(self.bytes()) {
            found.whole.push((start, self.len()));
        } else if self.bytes().starts_with(rest) {
            found.begun = found.begun.max(rest.len());
        }
    }

    /// The length of the longest end of `hay` with which this secret begins, of those that end before its
    /// probe.
    fn begun_before_probe(&self, hay: &[u8]) -> usize {
        let before = self.bytes().get(..self.probe).unwrap_or_default();
        // Most pieces end in a byte that is not there, such as that of a line.
        let (Some(first), Some(last)) = (before.first(), hay.last()) else {
            return 0;
        };
        if !before.contains(last) {
            return 0;
        }
        let start = hay.len().saturating_sub(before.len());
        let mut end = hay.get(start..).unwrap_or_default();
        while let Some(at) = find_either(end, *first, *first) {
            end = end.get(at..).unwrap_or_default();
            if before.starts_with(end) {
                return end.len();
            }
            end = end.get(1..).unwrap_or_default();
        }
        0
    }
}

/// Finds `needles`, two at most, in `hay`.
pub fn find_all(needles: &[Needle], hay: &[u8]) -> Found {
    let mut found = Found::default();
    let probe = |needle: Option<&Needle>| needle.and_then(Needle::probe);
    let (Some(a), Some(b)) = (probe(needles.first()), probe(needles.last())) else {
        return found;
    };
    let mut at = 0_usize;
    while let Some(rest) = hay.get(at..)
        && let Some(next) = find_either(rest, a, b)
    {
        at = at.saturating_add(next);
        for needle in needles {
            needle.note_around(hay, at, &mut found);
        }
        at = at.saturating_add(1);
    }
    let begun = needles.iter().map(|needle| needle.begun_before_probe(hay));
    found.begun = begun.fold(found.begun, usize::max);
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needle(text: &str) -> Needle {
        Needle::new(Secret::new(text))
    }

    #[test]
    fn the_rarest_byte_is_looked_for() {
        for (text, probe) in [
            ("sk-proj-Qab", b'Q'),
            ("token", b't'),
            ("0123", b'0'),
            ("aXbQ", b'Q'),
        ] {
            assert_eq!(needle(text).probe(), Some(probe), "{text}");
        }
    }

    #[test]
    fn two_texts_are_found_wherever_they_are() {
        let needles = ["a b", "a%20b"].map(needle);
        let found = |whole: &[(usize, usize)], begun| Found {
            whole: whole.to_vec(),
            begun,
        };
        let both = find_all(&needles, b"a ba%20b a");
        assert_eq!(both, found(&[(0, 3), (3, 5)], 1));
        assert_eq!(find_all(&[], b"a b"), found(&[], 0));
        assert_eq!(find_all(&needles, b"x a%20 a%2"), found(&[], 3));
        assert_eq!(find_all(&needles, b"a%20b"), found(&[(0, 5)], 0));
    }

    #[test]
    fn it_takes_no_memory_of_its_own() {
        let secret = Secret::new("sk-0123456789");
        let needle = Needle::new(secret.clone());
        assert_eq!(needle.bytes().as_ptr(), secret.expose().as_ptr());
    }

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(text in "[abQ]{1,6}", hay in "[abQ]{0,24}") {
            let starts = 0..hay.len();
            let whole = starts.clone().filter(|at| hay[*at..].starts_with(&text));
            let begun = starts.clone().find(|at| hay.len() - at < text.len() && text.starts_with(&hay[*at..]));
            let mut found = find_all(&[needle(&text)], hay.as_bytes());
            found.whole.sort_unstable();
            prop_assert_eq!(found.whole, whole.map(|at| (at, text.len())).collect::<Vec<_>>());
            prop_assert_eq!(found.begun, begun.map_or(0, |at| hay.len() - at));
        }
    }
}
