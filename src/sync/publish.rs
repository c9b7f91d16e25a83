//! Writes pages from the refresher into shared data.

use std::collections::BTreeMap;

use super::{board, quota, unread};
use crate::{
    host::SharedData,
    snapshot::{
        Health, InvalidRecord, Kind, Record,
        bucket::{BUCKETS, Bucket, HEAD_KEY, Head, INDEX_KEY, Index, bucket_key, bucket_of},
        page::{InvalidPage, Page},
        unread::{About, Unread},
    },
};

/// The reason why a page was not applied. What the shared data held is held still.
#[derive(Debug)]
pub enum RefusedPage {
    /// The bytes are not a page.
    Page(InvalidPage),
    /// One of its lines is not a record, and does not tell what it is about. Everything is to be
    /// asked for anew, so that nothing stays in use that this line would have changed.
    Record(InvalidRecord),
    /// The page builds on another state than the one held.
    Gap,
    /// Another VM's page came in between, of which this one may have undone a part. The head says that nothing is
    /// held, so that everything is asked for anew.
    Overtaken,
}

/// The state that shared data holds; the default where it holds none.
pub fn head(shared: &impl SharedData) -> Head {
    let value = shared.read(HEAD_KEY);
    value
        .and_then(|(bytes, _)| Head::decode(&bytes))
        .unwrap_or_default()
}

/// The effect of a page.
#[derive(Debug)]
pub struct Applied {
    /// The state that shared data holds now.
    pub head: Head,
    /// The page's news of accounts' health.
    pub health: Vec<Health>,
    /// The lines that are no records, or do not fit. What they are about is out of use.
    pub unread: Vec<Unread>,
}

/// The lines of a page.
struct Lines<'p> {
    /// The records, and the removals that stand for lines which are none.
    records: Vec<(Record, &'p [u8])>,
    unread: Vec<Unread>,
    still_unreadable: unread::Unreadable,
}

/// Applies a page at `now`: the buckets that it touches, then the index, then the head. A VM
/// that reads in between finds digests that do not hold, and keeps what it has until the head
/// moves. What the page says of accounts' health goes on the board and to the quotas instead,
/// so that it costs nobody a bucket. A record that cannot be read is passed over, and what was held
/// of it is removed; so is one for which there is no room.
///
/// # Errors
/// [`RefusedPage`]; all but [`RefusedPage::Overtaken`] before anything is written.
pub fn apply(shared: &mut impl SharedData, bytes: &[u8], now: u64) -> Result<Applied, RefusedPage> {
    let page = Page::parse(bytes).map_err(RefusedPage::Page)?;
    let old = head(shared);
    let header = &page.header;
    let continues = header.epoch == old.epoch && header.from == old.revision;
    if !(header.reset && header.from == 0 || !header.reset && continues) {
        return Err(RefusedPage::Gap);
    }
    // Where everything comes anew, nothing is held that a line could be about.
    let comes_anew = header.reset || !old.complete;
    let unreadable = unread::read(shared);
    let still_unreadable = match header.reset {
        true => unread::Unreadable::default(),
        false => unreadable.clone(),
    };
    let mut lines = Lines::of(&page, comes_anew, still_unreadable)?;
    write_buckets(shared, header.reset, &mut lines);
    let health: Vec<Health> = lines
        .records
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
    unread::write(shared, &unreadable, &lines.still_unreadable);
    let mut is_overtaken = false;
    board::update_head(shared, |head| {
        is_overtaken = !head.is_of_state(&old);
        if is_overtaken {
            (head.epoch, head.revision) = Default::default();
        } else {
            (head.epoch, head.revision) = (header.epoch, header.to);
            head.complete = !header.more || (old.complete && !header.reset);
        }
    });
    if is_overtaken {
        return Err(RefusedPage::Overtaken);
    }
    Ok(Applied {
        head: head(shared),
        health,
        unread: lines.unread,
    })
}

/// Writes the buckets that records change, and then the index. A record for which a bucket has no room is unread.
fn write_buckets(shared: &mut impl SharedData, reset: bool, lines: &mut Lines<'_>) {
    let mut changes: BTreeMap<usize, Vec<(&Record, &[u8])>> = BTreeMap::new();
    if reset {
        changes.extend((0..BUCKETS).map(|number| (number, Vec::new())));
    }
    let of_buckets = lines
        .records
        .iter()
        .filter(|(record, _)| !is_health(record));
    for (record, line) in of_buckets {
        let (kind, id) = record.key();
        let bucket = changes.entry(bucket_of(kind, id)).or_default();
        bucket.push((record, line));
    }
    let mut index = match shared.read(INDEX_KEY) {
        Some((bytes, _)) if !reset => Index::decode(&bytes).unwrap_or_default(),
        _ => Index::default(),
    };
    for (number, changes) in changes {
        let key = bucket_key(number);
        let held = match shared.read(&key) {
            Some((content, _)) if !reset => content,
            _ => Vec::new(),
        };
        let mut bucket = Bucket::decode(&held).unwrap_or_default();
        for (record, line) in changes {
            if bucket.apply(record, line).is_err() {
                let (kind, id) = record.key();
                let one = Unread {
                    about: About::Record(kind, id.clone()),
                    error: InvalidRecord::NoRoom,
                };
                lines.still_unreadable.add(&one);
                lines.unread.push(one);
            }
        }
        let content = bucket.encode();
        if content != held || reset {
            shared.write(&key, &content);
            index.set(number, &content);
        }
    }
    shared.write(INDEX_KEY, &index.encode());
}

fn is_health(record: &Record) -> bool {
    let (kind, _) = record.key();
    kind == Kind::Health
}

// === impl Lines ===

impl<'p> Lines<'p> {
    /// Reads them. Where they do not `come_anew`, a line that does not tell what it is about could be about anything
    /// that is held.
    fn of(
        page: &Page<'p>,
        come_anew: bool,
        still_unreadable: unread::Unreadable,
    ) -> Result<Self, RefusedPage> {
        let mut lines = Self {
            records: Vec::new(),
            unread: Vec::new(),
            still_unreadable,
        };
        for (read, line) in page.records() {
            match read {
                Ok(record) => {
                    let (kind, id) = record.key();
                    lines.still_unreadable.read(kind, id);
                    lines.records.push((record, line));
                }
                Err(one) if one.about == About::Unknown && !come_anew => {
                    return Err(RefusedPage::Record(one.error));
                }
                Err(one) => {
                    let removal = one.removal();
                    lines.records.extend(removal.map(|removal| (removal, line)));
                    lines.still_unreadable.add(&one);
                    lines.unread.push(one);
                }
            }
        }
        Ok(lines)
    }
}

// === impl RefusedPage ===

impl RefusedPage {
    /// The reason in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Page(invalid) => invalid.word(),
            Self::Record(_) => "record",
            Self::Gap => "gap",
            Self::Overtaken => "overtaken",
        }
    }
}

impl std::fmt::Display for RefusedPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Page(invalid) => invalid.fmt(f),
            Self::Record(invalid) => invalid.fmt(f),
            Self::Gap => f.write_str("the page does not build on the revision held"),
            Self::Overtaken => f.write_str("another VM's page came in between"),
        }
    }
}

impl std::error::Error for RefusedPage {}
