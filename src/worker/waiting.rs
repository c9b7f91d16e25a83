//! The requests that wait at the gate: how long each may, and how large a key's share of the
//! places is.

use std::collections::HashMap;

use crate::{deadline::Deadline, gate::select::Awaited, id::Id};

/// The most requests that wait in one VM: half of it, the most that one key has, is more than a
/// worker usually has under way. Each keeps its body in Envoy, which the overload manager bounds,
/// and all are decided about anew at each tick.
pub const MAX_WAITING: usize = 256;

/// The requests of one VM that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    waits: Vec<Waits>,
    /// The pools of which a request has found since the last look at all that all places are taken.
    taken: Vec<Id>,
}

/// The milliseconds for which a request waits for the first snapshot: a refresher that runs answers the
/// first poll within one.
pub const START_MS: u64 = 2_000;

/// The most bytes of a body that are kept for a request whose key is not known yet. A longer one is refused,
/// as all are that come while there is no place.
pub const MAX_START_BYTES: usize = 128 * 1024;

/// The most pieces in which that body comes: small ones take more of Envoy's memory than they are long.
pub const MAX_START_PIECES: usize = 32;

/// The requests of a VM that has no snapshot yet.
#[derive(Debug, Default)]
pub struct Starting(Vec<(u32, Deadline)>);

/// A request that waits.
#[derive(Debug)]
struct Waits {
    context: u32,
    /// Its client key.
    key: Id,
    /// The end of its patience.
    until: Deadline,
    awaits: For,
}

/// The thing that a request waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum For {
    /// An answer of the refresher.
    News,
    /// The end of a limit.
    Limit,
    /// A place with an account of this pool.
    Place(Id),
}

/// The place and the time that a request has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The request has a place, or there is one for it.
    pub has_place: bool,
    /// Its end.
    pub until: Deadline,
}

// === impl For ===

impl For {
    /// Finds what a request of `pool` waits for.
    pub fn of(awaited: Awaited, pool: impl FnOnce() -> Option<Id>) -> Self {
        match awaited {
            Awaited::Place => pool().map_or(Self::Limit, Self::Place),
            Awaited::Limit => Self::Limit,
            Awaited::News => Self::News,
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Returns the patience of the request of `context` from `key`. One that waits already keeps
    /// its place and its end; another one's end is `new_until`.
    pub fn patience(&self, context: u32, key: Option<&Id>, new_until: Deadline) -> Patience {
        match self.find(context) {
            Some(waits) => Patience {
                has_place: true,
                until: waits.until,
            },
            None => Patience {
                has_place: self.waits.is_empty() || key.is_some_and(|key| self.has_place(key)),
                until: new_until,
            },
        }
    }

    /// Lets the request of `context` wait for that, until then if it does not wait already.
    pub fn insert(&mut self, context: u32, key: &Id, until: Deadline, awaits: For) {
        if let For::Place(pool) = &awaits
            && !self.taken.contains(pool)
        {
            self.taken.push(pool.clone());
        }
        match self.waits.iter_mut().find(|one| one.context == context) {
            Some(waits) => waits.awaits = awaits,
            None => self.waits.push(Waits {
                context,
                key: key.clone(),
                until,
                awaits,
            }),
        }
    }

    /// Returns true if the request of `context` waits for the end of a limit.
    pub fn waits_for_limit(&self, context: u32) -> bool {
        self.find(context)
            .is_some_and(|waits| waits.awaits == For::Limit)
    }

    /// Returns true if the request of `context` has just come, and others wait for a place in its pool.
    pub fn is_behind(&self, context: u32, pool: &Id) -> bool {
        let mut waits = self.waits.iter();
        let is_queue = |awaits: &For| matches!(awaits, For::Place(own) if own == pool);
        self.find(context).is_none() && waits.any(|one| is_queue(&one.awaits))
    }

    /// Returns true if the request of `context` should look itself if there is a place for it: not where
    /// another one that waits has just done that.
    pub fn looks_again(&self, context: u32) -> bool {
        match self.find(context).map(|waits| &waits.awaits) {
            Some(For::Place(pool)) => !self.taken.contains(pool),
            _ => true,
        }
    }

    /// Returns true if some request waits for a place.
    pub fn has_any_for_place(&self) -> bool {
        let mut waits = self.waits.iter();
        waits.any(|one| matches!(one.awaits, For::Place(_)))
    }

    /// Returns true if the request of `context` waits for a place, and may find one: no other one that waits
    /// has just found that all are taken.
    pub fn may_find_place(&self, context: u32) -> bool {
        let waits = self.find(context);
        let is_for_place = |waits: &Waits| matches!(waits.awaits, For::Place(_));
        waits.is_some_and(is_for_place) && self.looks_again(context)
    }

    fn find(&self, context: u32) -> Option<&Waits> {
        self.waits.iter().find(|one| one.context == context)
    }

    /// Ends the wait of a request; returns false if it did not wait.
    pub fn remove(&mut self, context: u32) -> bool {
        let at = self.waits.iter().position(|one| one.context == context);
        at.map(|at| self.waits.remove(at)).is_some()
    }

    /// Returns the contexts of all that wait, in the order in which places go to them: first to the client
    /// key that has the fewest requests `under_way`, and of one key in the order in which they came. So one
    /// that sends many does not stand before another one that sends few.
    pub fn in_turn<'a>(&mut self, under_way: impl FnOnce() -> HashMap<&'a Id, usize>) -> Vec<u32> {
        self.taken.clear();
        if self.waits.is_empty() {
            return Vec::new();
        }
        let mut counts = under_way();
        let mut turns: Vec<(usize, u32)> = Vec::with_capacity(self.waits.len());
        let mut ranks: HashMap<&Id, usize> = HashMap::new();
        for waits in &self.waits {
            let before = counts.remove(&waits.key).unwrap_or_default();
            let rank = ranks.entry(&waits.key).or_insert(before);
            turns.push((*rank, waits.context));
            *rank = rank.saturating_add(1);
        }
        turns.sort_by_key(|(rank, _)| *rank);
        turns.into_iter().map(|(_, context)| context).collect()
    }

    /// Returns true if one more request of `key` may wait: as long as fewer of its own wait than
    /// there are places free. However many come, one key has half of the places at most and leaves
    /// the other half, a second one has half of that, and so on; one that has none yet gets the
    /// last.
    pub fn has_place(&self, key: &Id) -> bool {
        let own = self.waits.iter().filter(|one| one.key == *key).count();
        own < MAX_WAITING.saturating_sub(self.waits.len())
    }
}

// === impl Starting ===

impl Starting {
    /// Returns true if the request of `context` waits for the first snapshot at `now`: until its time is
    /// over, if it has a place. One that does not wait any more never does again.
    pub fn waits(&mut self, context: u32, is_new: bool, now: u64) -> bool {
        let known = self.0.iter().find(|(one, _)| *one == context);
        match known {
            Some((_, until)) if !until.is_due(now) => true,
            None if is_new && self.0.len() < MAX_WAITING => {
                self.0.push((context, Deadline::after(now, START_MS)));
                true
            }
            _ => {
                self.remove(context);
                false
            }
        }
    }

    /// Ends the wait of a request.
    pub fn remove(&mut self, context: u32) {
        self.0.retain(|(one, _)| *one != context);
    }

    /// Returns the contexts of all that wait, in the order in which they came.
    pub fn contexts(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(context, _)| *context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Deadline = Deadline::after(0, 9);

    fn key(n: usize) -> Id {
        Id::try_from(format!("key_{n}")).unwrap()
    }

    /// As many requests of each key in turn as get a place.
    fn flooded(keys: usize) -> Waiting {
        let (mut waiting, mut context) = (Waiting::default(), 0);
        for key in (0..keys).map(key) {
            while waiting.patience(context, Some(&key), UNTIL).has_place {
                waiting.insert(context, &key, UNTIL, For::News);
                context += 1;
            }
        }
        waiting
    }

    #[test]
    fn who_floods_leaves_half_of_what_there_is() {
        for (keys, taken) in [(1, 128), (2, 192), (3, 224), (4, 240), (8, 255), (9, 256)] {
            assert_eq!(flooded(keys).waits.len(), taken, "{keys} keys");
        }
        assert_eq!(flooded(20).waits.len(), MAX_WAITING);
    }

    #[test]
    fn a_place_that_is_free_again_is_for_who_has_least() {
        let mut waiting = flooded(9);
        assert!(waiting.remove(0) && !waiting.remove(0));
        assert!(!waiting.patience(999, Some(&key(1)), UNTIL).has_place);
        assert!(waiting.patience(999, Some(&key(19)), UNTIL).has_place);
        assert!(!waiting.patience(999, None, UNTIL).has_place, "nobody's");
    }

    #[test]
    fn who_waits_keeps_its_place_and_its_end() {
        let mut waiting = flooded(9);
        let later = Deadline::after(11, 9);
        let patience = waiting.patience(3, Some(&key(0)), later);
        assert_eq!(
            patience,
            Patience {
                has_place: true,
                until: UNTIL
            }
        );
        waiting.insert(3, &key(0), later, For::News);
        assert_eq!(waiting.waits.len(), MAX_WAITING);
    }

    /// The contexts, in the order in which they are decided about while these are under way.
    fn in_turn(waiting: &mut Waiting, under_way: &[(&Id, usize)]) -> Vec<u32> {
        waiting.in_turn(|| under_way.iter().copied().collect())
    }

    #[test]
    fn places_go_to_the_key_that_has_least() {
        let (mut waiting, pool) = (Waiting::default(), key(99));
        let (many, few) = (key(1), key(2));
        for context in 0..6 {
            waiting.insert(context, &many, UNTIL, For::Place(pool.clone()));
        }
        for context in 6..8 {
            waiting.insert(context, &few, UNTIL, For::Place(pool.clone()));
        }
        assert_eq!(in_turn(&mut waiting, &[]), [0, 6, 1, 7, 2, 3, 4, 5]);
        let three = [(&many, 3)];
        assert_eq!(in_turn(&mut waiting, &three), [6, 7, 0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn who_comes_stands_behind_those_that_wait_in_its_pool() {
        let (mut waiting, pool, other) = (Waiting::default(), key(98), key(99));
        waiting.insert(1, &key(1), UNTIL, For::Place(pool.clone()));
        waiting.insert(2, &key(1), UNTIL, For::Limit);
        assert!(waiting.is_behind(3, &pool) && !waiting.is_behind(3, &other));
        assert!(!waiting.is_behind(1, &pool) && !waiting.is_behind(2, &pool));
        assert!(waiting.waits_for_limit(2) && !waiting.waits_for_limit(1));
    }

    #[test]
    fn one_look_a_tick_is_enough_for_those_that_wait() {
        let (mut waiting, pool) = (Waiting::default(), key(98));
        for context in [1, 2] {
            waiting.insert(context, &key(1), UNTIL, For::Place(pool.clone()));
        }
        in_turn(&mut waiting, &[]);
        assert!(waiting.looks_again(1));
        waiting.insert(1, &key(1), UNTIL, For::Place(pool));
        assert!(!waiting.looks_again(2), "the first has looked");
        assert!(waiting.looks_again(3), "it has just come");
    }
}
