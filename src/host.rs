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
