//! Keeps in shared data which records of the snapshot could not be read, so that every VM which
//! polls can tell the refresher.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    host::{SharedData, shared_key},
    id::Id,
    snapshot::{
        Kind,
        unread::{About, Unread},
    },
};

const UNREAD_KEY: &str = shared_key!("unread");

/// The most records that are remembered by name; what comes after them is only counted.
pub const MAX_NAMED: usize = 256;

/// The records that could not be read and have not been replaced since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    named: BTreeSet<(Kind, Id)>,
    /// Those without a name that could be told, since everything was last sent.
    nameless: u64,
}

// === impl Unreadable ===

impl Unreadable {
    /// How many there are.
    pub fn count(&self) -> u64 {
        let named = u64::try_from(self.named.len()).unwrap_or(u64::MAX);
        named.saturating_add(self.nameless)
    }

    /// The first that has a name.
    pub fn first(&self) -> Option<&(Kind, Id)> {
        self.named.first()
    }

    /// Notes a record that was read, or is gone.
    pub fn read(&mut self, kind: Kind, id: &Id) {
        if !self.named.is_empty() {
            self.named.remove(&(kind, id.clone()));
        }
    }

    /// Notes one that could not be read.
    pub fn add(&mut self, unread: &Unread) {
        match &unread.about {
            About::Record(kind, id) if self.named.len() < MAX_NAMED => {
                self.named.insert((*kind, id.clone()));
            }
            _ => self.nameless = self.nameless.saturating_add(1),
        }
    }
}

/// What shared data has of them.
pub fn read(shared: &impl SharedData) -> Unreadable {
    let value = shared.read(UNREAD_KEY);
    value
        .and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Puts `now` in the place of `before`.
pub fn write(shared: &mut impl SharedData, before: &Unreadable, now: &Unreadable) {
    if before != now {
        shared.write(UNREAD_KEY, &serde_json::to_vec(now).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::fake::FakeSharedData, snapshot::InvalidRecord};

    fn unread(about: About) -> Unread {
        let error = InvalidRecord::TooLong;
        Unread { about, error }
    }

    #[test]
    fn what_was_read_since_is_forgotten_and_the_list_is_bounded() {
        let id = |number: usize| Id::try_from(format!("acc_{number}")).unwrap();
        let mut all = Unreadable::default();
        for number in 0..MAX_NAMED + 5 {
            all.add(&unread(About::Record(Kind::Account, id(number))));
        }
        all.add(&unread(About::Unknown));
        assert_eq!((all.named.len(), all.count()), (MAX_NAMED, 262));
        assert_eq!(all.first(), Some(&(Kind::Account, id(0))));
        all.read(Kind::Account, &id(0));
        all.read(Kind::Key, &id(1));
        assert_eq!(all.count(), 261);

        let mut shared = FakeSharedData::default();
        assert_eq!(read(&shared), Unreadable::default());
        write(&mut shared, &Unreadable::default(), &all);
        assert_eq!(read(&shared), all);
    }
}
