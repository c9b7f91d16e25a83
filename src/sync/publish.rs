//! Writes pages from the refresher into shared data.

use std::collections::BTreeMap;

use super::{board, quota};
use crate::{
    host::SharedData,
    snapshot::{
        Health, InvalidRecord, Kind, Record,
        bucket::{BUCKETS, Bucket, HEAD_KEY, Head, INDEX_KEY, Index, bucket_key, bucket_of},
        page::{InvalidPage, Page},
    },
};

/// Why a page was not applied. What the shared data held is held still.
#[derive(Debug)]
pub enum Refused {
    /// It is not a page.
    Page(InvalidPage),
    /// One of its records is not a record.
    Record(InvalidRecord),
    /// It builds on another state than the one held.
    Gap,
}

/// The state that shared data holds; the default where it holds none.
pub fn head(shared: &impl SharedData) -> Head {
    let value = shared.read(HEAD_KEY);
    value
        .and_then(|(bytes, _)| Head::decode(&bytes))
        .unwrap_or_default()
}

/// What a page did.
#[derive(Debug)]
pub struct Applied {
    /// The state that shared data holds now.
    pub head: Head,
    /// What the page said of accounts' health.
    pub health: Vec<Health>,
}

/// Applies a page at `now`: the buckets that it touches, then the index, then the head. A VM
/// that reads in between finds digests that do not hold, and keeps what it has until the head
/// moves. What the page says of accounts' health goes on the board and to the quotas instead,
/// so that it costs nobody a bucket.
///
/// # Errors
/// [`Refused`], before anything is written.
pub fn apply(shared: &mut impl SharedData, bytes: &[u8], now: u64) -> Result<Applied, Refused> {
    let page = Page::parse(bytes).map_err(Refused::Page)?;
    let old = head(shared);
    let header = &page.header;
    let continues = header.epoch == old.epoch && header.from == old.revision;
    if !(header.reset && header.from == 0 || !header.reset && continues) {
        return Err(Refused::Gap);
    }
    let records: Vec<(Record, &[u8])> = page
        .lines()
        .map(|line| Record::from_line(line).map(|record| (record, line)))
        .collect::<Result<_, _>>()
        .map_err(Refused::Record)?;
    let mut changes: BTreeMap<usize, Vec<(&Record, &[u8])>> = BTreeMap::new();
    if header.reset {
        changes.extend((0..BUCKETS).map(|number| (number, Vec::new())));
    }
    for (record, line) in records.iter().filter(|(record, _)| !is_health(record)) {
        let (kind, id) = record.key();
        let bucket = changes.entry(bucket_of(kind, id)).or_default();
        bucket.push((record, line));
    }
    let mut index = match shared.read(INDEX_KEY) {
        Some((bytes, _)) if !header.reset => Index::decode(&bytes).unwrap_or_default(),
        _ => Index::default(),
    };
    for (number, changes) in changes {
        let key = bucket_key(number);
        let held = match shared.read(&key) {
            Some((content, _)) if !header.reset => content,
            _ => Vec::new(),
        };
        let mut bucket = Bucket::decode(&held).unwrap_or_default();
        for (record, line) in changes {
            bucket.apply(record, line);
        }
        let content = bucket.encode();
        if content != held || header.reset {
            shared.write(&key, &content);
            index.set(number, &content);
        }
    }
    shared.write(INDEX_KEY, &index.encode());
    let health: Vec<Health> = records
        .into_iter()
        .filter_map(|(record, _)| match record {
            Record::Health(health) => Some(health),
            _ => None,
        })
        .collect();
    // Before the head says that the snapshot is there: who uses it knows who is out.
    if !health.is_empty() {
        board::update(shared, |board| {
            let taken = health.iter().filter(|one| board.take(one, now));
            taken.count() > 0
        });
        quota::take(shared, health.iter());
    }
    board::update_head(shared, |head| {
        head.epoch = header.epoch;
        head.revision = header.to;
        head.complete = !header.more || (old.complete && !header.reset);
    });
    Ok(Applied {
        head: head(shared),
        health,
    })
}

fn is_health(record: &Record) -> bool {
    let (kind, _) = record.key();
    kind == Kind::Health
}

// === impl Refused ===

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Page(invalid) => invalid.fmt(f),
            Self::Record(invalid) => invalid.fmt(f),
            Self::Gap => f.write_str("the page does not build on the revision held"),
        }
    }
}

impl std::error::Error for Refused {}
