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

/// The most records that are remembered; what comes after them is not counted.
pub const MAX_NAMED: usize = 256;

/// The records that could not be read and have not been replaced since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unreadable(BTreeSet<(Kind, Id)>);

// === impl Unreadable ===

impl Unreadable {
    /// The number of records.
    pub fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// The first of them.
    pub fn first(&self) -> Option<&(Kind, Id)> {
        self.0.first()
    }

    /// Notes a record that was read, or is gone.
    pub fn read(&mut self, kind: Kind, id: &Id) {
        if !self.0.is_empty() {
            self.0.remove(&(kind, id.clone()));
        }
    }

    /// Notes one that could not be read. One that names no record leaves nothing that is lacking, and nothing that
    /// could ever be read in its place.
    pub fn add(&mut self, unread: &Unread) {
        if let About::Record(kind, id) = &unread.about
            && self.0.len() < MAX_NAMED
        {
            self.0.insert((*kind, id.clone()));
        }
    }
}

/// Reads them from shared data.
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
        all.add(&unread(About::Nothing));
        assert_eq!(all.count(), 256);
        assert_eq!(all.first(), Some(&(Kind::Account, id(0))));
        all.read(Kind::Account, &id(0));
        all.read(Kind::Key, &id(1));
        assert_eq!(all.count(), 255);

        let mut shared = FakeSharedData::default();
        assert_eq!(read(&shared), Unreadable::default());
        write(&mut shared, &Unreadable::default(), &all);
        assert_eq!(read(&shared), all);
    }
}
