//! What the pure modules need of Envoy, as a trait, and a fake of it for tests.

/// Envoy's shared data: one key space for every worker and the main thread.
pub trait SharedData {
    /// The value of `key`, and the token that a [`SharedData::swap`] needs.
    fn read(&self, key: &str) -> Option<(Vec<u8>, Token)>;

    /// Sets `key` whatever it holds.
    fn write(&mut self, key: &str, value: &[u8]);

    /// Sets `key` if it is as it was read; false if somebody changed it since. A key that was
    /// never written cannot be swapped safely: write it first.
    fn swap(&mut self, key: &str, value: &[u8], token: Token) -> bool;

    /// Changes the value of `key`, which must have been written before. `change` may run more
    /// than once, on the latest value; where it returns none nothing happens.
    fn update(&mut self, key: &str, mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Changed {
        for _ in 0..TRIES {
            let Some((value, token)) = self.read(key) else {
                return Changed::Absent;
            };
            let Some(value) = change(&value) else {
                return Changed::Kept;
            };
            if self.swap(key, &value, token) {
                return Changed::Done;
            }
        }
        Changed::Lost
    }
}

/// The most tries of one change while other VMs change the same key. Each lost try is a change of
/// theirs, so more than this means that there is something wrong.
const TRIES: usize = 64;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The key has the new value.
    Done,
    /// The change itself wanted none.
    Kept,
    /// The key was never written.
    Absent,
    /// Others changed the key at each try.
    Lost,
}

/// The key of this name in shared data, or the format of several keys. The number counts the forms of what lies there:
/// builds of the filter that differ in it live in one Envoy, as they do while its configuration changes, and share
/// nothing. Whoever changes the form of any value counts it up.
macro_rules! shared_key {
    ($name:literal) => {
        concat!("latchkey/2/", $name)
    };
}
pub(crate) use shared_key;

/// Says which value of a key was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u32);

#[cfg(test)]
pub(crate) mod fake {
    use std::{cell::RefCell, collections::HashMap, rc::Rc};

    use super::*;

    /// Shared data that several fake VMs hold in common.
    #[derive(Debug, Default, Clone)]
    pub(crate) struct FakeSharedData(Rc<RefCell<HashMap<String, Value>>>);

    type Value = (Vec<u8>, u32);

    impl SharedData for FakeSharedData {
        fn read(&self, key: &str) -> Option<(Vec<u8>, Token)> {
            let map = self.0.borrow();
            map.get(key)
                .map(|(value, cas)| (value.clone(), Token(*cas)))
        }

        fn write(&mut self, key: &str, value: &[u8]) {
            let mut map = self.0.borrow_mut();
            let entry = map.entry(key.to_owned()).or_default();
            *entry = (value.to_vec(), entry.1 + 1);
        }

        fn swap(&mut self, key: &str, value: &[u8], token: Token) -> bool {
            let fits = self.read(key).is_none_or(|(_, now)| now == token);
            if fits {
                self.write(key, value);
            }
            fits
        }
    }
}
