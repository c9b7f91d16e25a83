//! The requests that wait at the gate: how long each may, and how large a key's share of the
//! places is.

use crate::{deadline::Deadline, id::Id};

/// The most requests that wait in one VM: half of it, the most that one key has, is more than a
/// worker usually has under way. Each keeps its body in Envoy, which the overload manager bounds,
/// and all are decided about anew at each tick.
pub const MAX_WAITING: usize = 256;

/// The requests of one VM that wait.
#[derive(Debug, Default)]
pub struct Waiting(Vec<Waits>);

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
}

/// The place and the time that a request has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// It has a place, or there is one for it.
    pub has_place: bool,
    /// Its end.
    pub until: Deadline,
}

// === impl Waiting ===

impl Waiting {
    /// Returns the patience of the request of `context` from `key`. One that waits already keeps
    /// its place and its end; another one's end is `new_until`.
    pub fn patience(&self, context: u32, key: Option<&Id>, new_until: Deadline) -> Patience {
        match self.0.iter().find(|one| one.context == context) {
            Some(waits) => Patience {
                has_place: true,
                until: waits.until,
            },
            None => Patience {
                has_place: self.0.is_empty() || key.is_some_and(|key| self.has_place(key)),
                until: new_until,
            },
        }
    }

    /// Lets the request of `context` wait until then, if it does not already.
    pub fn insert(&mut self, context: u32, key: &Id, until: Deadline) {
        if !self.0.iter().any(|one| one.context == context) {
            let key = key.clone();
            self.0.push(Waits {
                context,
                key,
                until,
            });
        }
    }

    /// Ends the wait of a request; returns false if it did not wait.
    pub fn remove(&mut self, context: u32) -> bool {
        let at = self.0.iter().position(|one| one.context == context);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Returns the contexts of all that wait, in the order in which they came.
    pub fn contexts(&self) -> Vec<u32> {
        self.0.iter().map(|one| one.context).collect()
    }

    /// Returns true if one more request of `key` may wait: as long as fewer of its own wait than
    /// there are places free. However many come, one key has half of the places at most and leaves
    /// the other half, a second one has half of that, and so on; one that has none yet gets the
    /// last.
    fn has_place(&self, key: &Id) -> bool {
        let own = self.0.iter().filter(|one| one.key == *key).count();
        own < MAX_WAITING.saturating_sub(self.0.len())
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
                waiting.insert(context, &key, UNTIL);
                context += 1;
            }
        }
        waiting
    }

    #[test]
    fn who_floods_leaves_half_of_what_there_is() {
        for (keys, taken) in [(1, 128), (2, 192), (3, 224), (4, 240), (8, 255), (9, 256)] {
            assert_eq!(flooded(keys).contexts().len(), taken, "{keys} keys");
        }
        assert_eq!(flooded(20).contexts().len(), MAX_WAITING);
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
        waiting.insert(3, &key(0), later);
        assert_eq!(waiting.contexts().len(), MAX_WAITING);
    }
}
