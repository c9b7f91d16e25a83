//! Records that pages leave out, because Envoy could not read or use them. A page says that such a record is gone, so
//! that no older version of it stays in use, and brings all others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use latchkey::id::Id;
use latchkey::snapshot::page::Page;
use latchkey::snapshot::{Kind, Record, Removed};

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

/// The records that the pages of this process left out, as far as it has made any.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeMap<(Kind, String), String>>);

impl Known {
    /// Notes what a page has and what it leaves out. What is new of that goes into the log.
    pub fn note(&self, entries: &[Entry], left_out: &[LeftOut]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
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

/// The page that `encode` makes of `entries`, read with the filter's own code. What that could not read gives way to its
/// removal, and is added to `left_out`.
pub(super) fn readable_page(
    entries: &mut Vec<Entry>,
    left_out: &mut Vec<LeftOut>,
    encode: impl Fn(&[Entry]) -> Vec<u8>,
) -> Result<Vec<u8>> {
    loop {
        let bytes = encode(entries);
        let page = Page::parse(&bytes).map_err(|error| corrupt("page", error.to_string()))?;
        let records = page.records().enumerate();
        let unread = records.filter_map(|(at, (read, _))| Some((at, read.err()?.error)));
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
