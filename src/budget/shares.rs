//! Bytes that one VM holds for its callers, shared out between their client keys.

use std::collections::BTreeMap;

use crate::id::Id;

/// Such bytes. A key may have as many as it leaves free, so none takes all from the others.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    all: usize,
    keys: BTreeMap<Id, usize>,
}

// === impl Shares ===

impl Shares {
    /// Shares of `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            all: 0,
            keys: BTreeMap::new(),
        }
    }

    /// The bytes of all keys.
    #[cfg(test)]
    pub fn all(&self) -> usize {
        self.all
    }

    /// Has `key` hold `now` bytes in place of `before` that it held. Returns false where there is no room for that, and
    /// changes nothing then. Less than before always has room.
    pub fn change(&mut self, key: &Id, before: usize, now: usize) -> bool {
        let of_key = self.keys.get(key).copied().unwrap_or_default();
        let of_key = of_key.saturating_sub(before).saturating_add(now);
        let all = self.all.saturating_sub(before).saturating_add(now);
        let free = self.most.checked_sub(all);
        if now > before && free.is_none_or(|free| of_key > free) {
            return false;
        }
        self.all = all;
        match of_key {
            0 => {
                self.keys.remove(key);
            }
            _ => {
                self.keys.insert(key.clone(), of_key);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Id {
        Id::try_from(name).unwrap()
    }

    #[test]
    fn a_key_leaves_as_much_free_as_it_has() {
        let mut shares = Shares::new(64);
        let (a, b) = (key("a"), key("b"));
        assert!(!shares.change(&a, 0, 33));
        assert!(shares.change(&a, 0, 20) && shares.change(&a, 0, 12));
        assert!(!shares.change(&a, 0, 1));
        assert!(shares.change(&b, 0, 16) && !shares.change(&b, 16, 17));
        assert_eq!(shares.all(), 48);
        // What becomes less has room, also where others have more than is free.
        assert!(shares.change(&a, 20, 19));
        assert!(shares.change(&a, 12, 0) && shares.change(&a, 19, 0));
        assert!(shares.change(&b, 16, 32) && shares.change(&b, 32, 0));
        assert_eq!((shares.all(), shares.keys.len()), (0, 0));
    }
}
