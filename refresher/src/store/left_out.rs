//! Records that pages leave out, because Envoy could not read or use them. A page says that such a record is gone, so
//! that no older version of it stays in use, and brings all others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use latchkey::id::Id;
use latchkey::snapshot::bucket::Rooms;
use latchkey::snapshot::page::Page;
use latchkey::snapshot::{InvalidRecord, Kind, Record, Removed};

use super::{Error, Result, corrupt};

/// A record that pages leave out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// The reason. It holds no secret.
    pub why: String,
}

/// A changed record on its way to a page.
#[derive(Debug)]
pub(super) struct Entry {
    pub kind: Kind,
    pub id: String,
    pub line: String,
}

/// The records that the pages of this process left out, and the room that the others take, as far as it has made any.
#[derive(Debug, Default)]
pub(super) struct Known {
    left_out: Mutex<BTreeMap<(Kind, String), String>>,
    rooms: Mutex<Rooms>,
}

impl Known {
    /// Notes what a page has and what it leaves out. What is new of that goes into the log.
    pub fn note(&self, entries: &[Entry], left_out: &[LeftOut]) {
        let mut known = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left_out = |entry: &&Entry| {
            let is_it = |one: &LeftOut| one.kind == entry.kind && one.id == entry.id;
            left_out.iter().any(is_it)
        };
        if !known.is_empty() {
            for entry in entries.iter().filter(|entry| !is_left_out(entry)) {
                known.remove(&(entry.kind, entry.id.clone()));
            }
        }
        for one in left_out {
            let key = (one.kind, one.id.clone());
            if known.insert(key, one.why.clone()).as_ref() != Some(&one.why) {
                let LeftOut { kind, id, why } = one;
                let kind = kind.word();
                tracing::error!(
                    kind,
                    id,
                    why,
                    "a record cannot go to Envoy and is out of use"
                );
            }
        }
    }

    pub fn count(&self) -> usize {
        let left_out = self.left_out.lock();
        left_out.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The room that the records of pages take; `anew`: of the pages from here on.
    pub fn rooms(&self, anew: bool) -> MutexGuard<'_, Rooms> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if anew {
            *rooms = Rooms::default();
        }
        rooms
    }
}

impl Entry {
    /// Says that the record is gone; none where its id is one that Envoy cannot hold.
    pub fn removal(kind: Kind, id: &str) -> Option<Entry> {
        let removed = Removed {
            kind,
            id: Id::try_from(id).ok()?,
        };
        Some(Entry {
            kind,
            id: id.to_owned(),
            line: Record::Removed(removed).to_line().ok()?,
        })
    }
}

/// True if an error is about one record and not about the database as a whole.
pub(super) fn is_of_one_record(error: &Error) -> bool {
    match error {
        Error::Database(error) => matches!(
            error,
            sqlx::Error::RowNotFound | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }
        ),
        _ => true,
    }
}

/// The page that `encode` makes of `entries`, read with the filter's own code. What that could not read, or has no room
/// for in `rooms`, gives way to its removal, and is added to `left_out`.
pub(super) fn readable_page(
    entries: &mut Vec<Entry>,
    left_out: &mut Vec<LeftOut>,
    rooms: &mut Rooms,
    encode: impl Fn(&[Entry]) -> Vec<u8>,
) -> Result<Vec<u8>> {
    loop {
        let bytes = encode(entries);
        let page = Page::parse(&bytes).map_err(|error| corrupt("page", error.to_string()))?;
        let records = page.records().enumerate();
        let unread = records.filter_map(|(at, (read, line))| {
            let error = match read {
                Ok(record) => rooms
                    .put(&record, line.len())
                    .err()
                    .map(|_| InvalidRecord::NoRoom),
                Err(unread) => Some(unread.error),
            };
            Some((at, error?))
        });
        let unread: Vec<_> = unread.collect();
        if unread.is_empty() {
            return Ok(bytes);
        }
        for (at, error) in unread.into_iter().rev() {
            let Entry { kind, id, .. } = entries.remove(at);
            entries.extend(Entry::removal(kind, &id));
            let why = error.to_string();
            left_out.push(LeftOut { kind, id, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use latchkey::snapshot::bucket::{MAX_BUCKET_BYTES, bucket_of};
    use latchkey::snapshot::page::{Epoch, PageHeader};
    use serde_json::json;

    use super::*;

    /// A record that the filter would have no room for does not go to it, and what it replaces goes.
    #[test]
    fn what_does_not_fit_is_left_out_with_its_reason_and_the_rest_goes() {
        let in_one = |id: &String| bucket_of(Kind::Account, &id.as_str().try_into().unwrap()) == 3;
        let ids = (0..).map(|n| format!("acc_{n}")).filter(in_one).take(6);
        let filler: serde_json::Map<_, _> = (0..60)
            .map(|n| (format!("v{n}"), "x".repeat(16 * 1024).into()))
            .collect();
        let mut entries: Vec<Entry> = ids
            .map(|id| {
                let line = json!({"account": {
                    "id": id, "name": id, "platform": "openai", "cluster": "c", "authority": "a", "credential": "c",
                    "vars": filler, "generation": 1,
                }});
                let (kind, line) = (Kind::Account, line.to_string());
                Entry { kind, id, line }
            })
            .collect();
        let fits = MAX_BUCKET_BYTES / entries[0].line.len();
        let encode = |entries: &[Entry]| {
            let lines = entries.iter().map(|entry| entry.line.as_str());
            PageHeader::encode(Epoch::default(), false, (1, 2), false, lines)
        };
        let (mut left_out, mut rooms) = (Vec::new(), Rooms::default());
        readable_page(&mut entries, &mut left_out, &mut rooms, encode).unwrap();
        assert_eq!(left_out.len(), 6 - fits);
        assert!(left_out[0].why.contains("remove some"), "{left_out:?}");
        let removed = entries
            .iter()
            .filter(|one| one.line.starts_with("{\"removed\""));
        assert_eq!((entries.len(), removed.count()), (6, 6 - fits));
    }
}
