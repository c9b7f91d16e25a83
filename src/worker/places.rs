//! The places of requests that wait at the gate, and how large a key's share of them is.

use crate::id::Id;

/// The most requests that wait in one VM: half of it, the most that one key has, is more than a
/// worker usually has under way. Each keeps its body in Envoy, which the overload manager bounds,
/// and all are decided about anew at each tick.
pub const MAX_WAITING: usize = 256;

/// Whether one more request of `key` may wait, where requests of these keys do: as long as fewer of
/// its own wait than there are places free. However many come, one key has half of the places at
/// most and leaves the other half, a second one has half of that, and so on; one that has none yet
/// gets the last.
pub fn has_place<'a>(waiting: impl IntoIterator<Item = &'a Id>, key: &Id) -> bool {
    let (mut free, mut own) = (MAX_WAITING, 0_usize);
    for one in waiting {
        free = free.saturating_sub(1);
        own = own.saturating_add(usize::from(one == key));
    }
    own < free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Id {
        Id::try_from(format!("key_{n}")).unwrap()
    }

    /// As many requests of each key in turn as get a place.
    fn flooded(keys: usize) -> Vec<Id> {
        let mut waiting = Vec::new();
        for key in (0..keys).map(key) {
            while has_place(&waiting, &key) {
                waiting.push(key.clone());
            }
        }
        waiting
    }

    #[test]
    fn who_floods_leaves_half_of_what_there_is() {
        for (keys, taken) in [(1, 128), (2, 192), (3, 224), (4, 240), (8, 255), (9, 256)] {
            assert_eq!(flooded(keys).len(), taken, "{keys} keys");
        }
        assert_eq!(flooded(20).len(), MAX_WAITING);
    }

    #[test]
    fn a_place_that_is_free_again_is_for_who_has_least() {
        let mut waiting = flooded(9);
        waiting.swap_remove(0);
        assert!(!has_place(&waiting, &key(1)));
        assert!(has_place(&waiting, &key(19)));
    }
}
