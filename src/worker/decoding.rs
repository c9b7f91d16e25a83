//! The bodies that take longer to decode than one callback may: whose turn it is.
//!
//! Each tick one body gets its turn, the next one at the tick after. One that has no decoder yet
//! waits in Envoy as it came; so what decoders take of a VM's memory is bounded however many
//! bodies come, and as a key has one decoder at most, the bodies of one key keep those of another
//! from nothing but half of the turns.

use std::collections::VecDeque;

use crate::id::Id;

/// The most decoders that one VM keeps from one callback to another. Each has a whole body and a
/// window: 50 MiB and a little at most.
pub const MAX_DECODERS: usize = 2;

/// The bodies of one VM that wait for a turn.
#[derive(Debug, Default)]
pub struct Decoding(VecDeque<Waits>);

/// A body that waits for a turn.
#[derive(Debug)]
struct Waits {
    context: u32,
    /// Its client key.
    key: Option<Id>,
    has_decoder: bool,
}

// === impl Decoding ===

impl Decoding {
    /// Tells a key of which a body may keep its decoder.
    pub fn has_place(&self, key: Option<&Id>) -> bool {
        let mut kept = self.0.iter().filter(|one| one.has_decoder);
        kept.clone().count() < MAX_DECODERS && !kept.any(|one| one.key.as_ref() == key)
    }

    /// Has the body of `context` wait for its turn.
    pub fn insert(&mut self, context: u32, key: Option<&Id>, has_decoder: bool) {
        self.remove(context);
        self.0.push_back(Waits {
            context,
            key: key.cloned(),
            has_decoder,
        });
    }

    /// Ends the wait of a body.
    pub fn remove(&mut self, context: u32) {
        self.0.retain(|one| one.context != context);
    }

    /// Returns the context whose turn it is. That body keeps its decoder from now on.
    pub fn take_turn(&mut self) -> Option<u32> {
        let may = |one: &Waits| one.has_decoder || self.has_place(one.key.as_ref());
        let at = self.0.iter().position(may)?;
        let mut next = self.0.remove(at)?;
        let context = next.context;
        next.has_decoder = true;
        self.0.push_back(next);
        Some(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Id {
        Id::try_from(format!("key_{n}")).unwrap()
    }

    fn turns(decoding: &mut Decoding, turns: usize) -> Vec<u32> {
        (0..turns).filter_map(|_| decoding.take_turn()).collect()
    }

    #[test]
    fn turns_go_around_those_that_have_a_decoder() {
        let mut decoding = Decoding::default();
        assert_eq!(decoding.take_turn(), None);
        for context in 0..3 {
            let key = key(context as usize);
            assert_eq!(decoding.has_place(Some(&key)), context < 2);
            decoding.insert(context, Some(&key), context < 2);
        }
        assert_eq!(turns(&mut decoding, 5), [0, 1, 0, 1, 0]);
        decoding.remove(0);
        assert_eq!(turns(&mut decoding, 4), [2, 1, 2, 1]);
    }

    #[test]
    fn who_floods_has_one_decoder_and_others_pass() {
        let mut decoding = Decoding::default();
        let (flood, other) = (key(1), key(2));
        decoding.insert(0, Some(&flood), true);
        for context in 1..100 {
            assert!(!decoding.has_place(Some(&flood)));
            decoding.insert(context, Some(&flood), false);
        }
        assert_eq!(turns(&mut decoding, 3), [0, 0, 0]);
        assert!(decoding.has_place(Some(&other)));
        decoding.insert(200, Some(&other), false);
        assert_eq!(turns(&mut decoding, 4), [0, 200, 0, 200]);
        decoding.remove(0);
        assert_eq!(
            turns(&mut decoding, 3),
            [1, 200, 1],
            "in the order of their coming"
        );
    }
}
