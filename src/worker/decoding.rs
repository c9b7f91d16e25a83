//! The bodies that take longer to decode than one callback may: whose turn it is.
//!
//! Each tick bodies get a turn, one after the other while the tick has time: of the keys whose bodies
//! may go on, that of the key whose last turn is the oldest. One that has no decoder yet waits in Envoy as it came; so what decoders take
//! of a VM's memory is bounded however many bodies come. A key has one decoder at most, and a place
//! that falls free is no newcomer's while a body of another key waits for it.
//!
//! A body that comes is decoded at once only while this tick has time left for it, in the VM and
//! for its key, and no other body of its key waits. Else it waits too.

use std::collections::{BTreeMap, VecDeque};

use crate::id::Id;

/// The most decoders that one VM keeps from one callback to another. Each has a whole body and a
/// decoder of some 26 MiB at most: under 60 MiB.
const MAX_DECODERS: usize = 2;

/// The milliseconds of decoding from one tick to the next after which no other body begins.
const MAX_SPENT_MS: u64 = 30;

/// The most turns of one tick, whatever the clock says.
const MAX_TURNS: usize = 64;

/// The same as [`MAX_SPENT_MS`], of one key.
const MAX_KEY_SPENT_MS: u64 = 15;

/// The bodies of one VM that wait for a turn.
#[derive(Debug, Default)]
pub struct Decoding {
    waiting: VecDeque<Waits>,
    /// The keys that had turns since a body waits, that of the last turn at the end.
    turns: Vec<Option<Id>>,
    /// The milliseconds that each key's bodies took since the last tick.
    spent: BTreeMap<Option<Id>, u64>,
    /// The bodies that had their turn since the last tick.
    taken: Vec<u32>,
}

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
    /// Returns true if the body may be decoded in this callback: it has its turn, or comes while there is time.
    pub fn may_decode(&self, context: u32, key: Option<&Id>) -> bool {
        if self.has_decoder(context) {
            return true;
        }
        let of_key = self.spent.iter().find(|(one, _)| one.as_ref() == key);
        self.has_time()
            && of_key.is_none_or(|(_, spent)| *spent < MAX_KEY_SPENT_MS)
            && !self.waiting.iter().any(|one| one.key.as_ref() == key)
    }

    /// Counts the time that a body of a key took.
    pub fn spend(&mut self, key: Option<&Id>, milliseconds: u64) {
        let spent = self.spent.entry(key.cloned()).or_default();
        *spent = spent.saturating_add(milliseconds);
    }

    /// Returns true if the body keeps its decoder from this callback on: it has one already, or there is a place that
    /// no body of another key waits for.
    pub fn keeps(&self, context: u32, key: Option<&Id>) -> bool {
        let waits = |one: &Waits| {
            one.key.as_ref() != key && !one.has_decoder && self.has_place(one.key.as_ref())
        };
        self.has_decoder(context) || self.has_place(key) && !self.waiting.iter().any(waits)
    }

    fn has_time(&self) -> bool {
        let spent = self.spent.values().copied();
        spent.fold(0, u64::saturating_add) < MAX_SPENT_MS
    }

    fn has_decoder(&self, context: u32) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|one| one.context == context && one.has_decoder)
    }

    /// Returns true if a body of this key may keep its decoder.
    fn has_place(&self, key: Option<&Id>) -> bool {
        let mut kept = self.waiting.iter().filter(|one| one.has_decoder);
        kept.clone().count() < MAX_DECODERS && !kept.any(|one| one.key.as_ref() == key)
    }

    /// Has the body of `context` wait for its turn.
    pub fn insert(&mut self, context: u32, key: Option<&Id>, has_decoder: bool) {
        self.remove(context);
        self.waiting.push_back(Waits {
            context,
            key: key.cloned(),
            has_decoder,
        });
    }

    /// Ends the wait of a body.
    pub fn remove(&mut self, context: u32) {
        self.waiting.retain(|one| one.context != context);
        if self.waiting.is_empty() {
            self.turns.clear();
        }
    }

    /// Begins a tick.
    pub fn begin_tick(&mut self) {
        self.spent.clear();
        self.taken.clear();
    }

    /// Returns the context whose turn it is, while the tick has time. That body keeps its decoder
    /// from now on.
    pub fn take_turn(&mut self) -> Option<u32> {
        if !self.has_time() || self.taken.len() >= MAX_TURNS {
            return None;
        }
        let may = |one: &Waits| {
            !self.taken.contains(&one.context)
                && (one.has_decoder || self.has_place(one.key.as_ref()))
        };
        let waiting = self.waiting.iter().enumerate().filter(|(_, one)| may(one));
        // Who had no turn comes before all who had one.
        let last_turn = |one: &Waits| self.turns.iter().position(|key| *key == one.key);
        let (at, _) = waiting.min_by_key(|(_, one)| last_turn(one))?;
        let mut next = self.waiting.remove(at)?;
        let context = next.context;
        self.turns.retain(|key| *key != next.key);
        self.turns.push(next.key.clone());
        next.has_decoder = true;
        self.taken.push(context);
        self.waiting.push_back(next);
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
        let turn = |_| {
            decoding.begin_tick();
            decoding.take_turn()
        };
        (0..turns).filter_map(turn).collect()
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
        assert_eq!(turns(&mut decoding, 4), [200, 0, 200, 0]);
        decoding.remove(0);
        assert_eq!(
            turns(&mut decoding, 3),
            [200, 1, 200],
            "in the order of their coming"
        );
    }

    #[test]
    fn a_place_goes_to_the_key_that_waits_and_not_to_a_newcomer() {
        let mut decoding = Decoding::default();
        let keys = [key(0), key(1), key(2)];
        for (context, key) in (0..3).zip(&keys) {
            let keeps = decoding.keeps(context, Some(key));
            assert_eq!(keeps, context < 2);
            decoding.insert(context, Some(key), keeps);
        }
        assert_eq!(turns(&mut decoding, 2), [0, 1]);
        decoding.remove(0);
        assert!(!decoding.keeps(3, Some(&keys[0])));
        decoding.insert(3, Some(&keys[0]), false);
        assert!(decoding.keeps(1, Some(&keys[1])), "it has one");
        assert_eq!(turns(&mut decoding, 4), [2, 1, 2, 1]);
        decoding.remove(1);
        assert_eq!(turns(&mut decoding, 3), [3, 2, 3]);
    }

    /// Small bodies that had to wait go on in one tick, so that a burst is over soon.
    #[test]
    fn a_tick_has_as_many_turns_as_it_has_time_for() {
        let mut decoding = Decoding::default();
        let key = key(0);
        for context in 0..100 {
            decoding.insert(context, Some(&key), false);
        }
        decoding.begin_tick();
        let mut turns = 0;
        while let Some(context) = decoding.take_turn() {
            decoding.spend(Some(&key), 1);
            decoding.remove(context);
            turns += 1;
        }
        assert_eq!(turns, MAX_SPENT_MS);
        decoding.begin_tick();
        let mut turns = 0;
        while let Some(context) = decoding.take_turn() {
            decoding.remove(context);
            turns += 1;
        }
        assert_eq!(turns, MAX_TURNS);
    }

    #[test]
    fn who_has_spent_its_time_waits_for_a_turn() {
        let mut decoding = Decoding::default();
        let keys = [key(0), key(1), key(2)];
        decoding.spend(Some(&keys[0]), 14);
        assert!(decoding.may_decode(0, Some(&keys[0])));
        decoding.spend(Some(&keys[0]), 1);
        assert!(!decoding.may_decode(0, Some(&keys[0])));
        assert!(decoding.may_decode(1, Some(&keys[1])));
        decoding.spend(Some(&keys[1]), 15);
        assert!(!decoding.may_decode(2, Some(&keys[2])), "the VM's time");
        decoding.insert(0, Some(&keys[0]), false);
        assert_eq!(decoding.take_turn(), None, "no time is left");
        decoding.begin_tick();
        assert_eq!(decoding.take_turn(), Some(0));
        assert!(decoding.may_decode(0, Some(&keys[0])), "its turn");
        assert!(!decoding.may_decode(5, Some(&keys[0])), "after that one");
        assert!(decoding.may_decode(2, Some(&keys[2])));
    }
}
