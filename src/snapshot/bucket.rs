//! The layout of the snapshot in Envoy's shared data.
//!
//! Shared data has no delete, so the keys are a fixed set: a head, an index, and
//! [`BUCKETS`] buckets. A record lies in the bucket of its id. The index holds a digest of
//! each bucket, so a reader finds what changed and never takes a bucket that is half of one
//! state and half of another.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Kind, Record, page::Epoch};
use crate::{hash::hash64, host::shared_key, id::Id};

/// The number of buckets: at 10,000 accounts a change re-parses about 40 accounts.
pub const BUCKETS: usize = 256;

/// The most bytes of a bucket. A VM reads the whole bucket of a record that changes, and has all of
/// them in its memory, which ends at 4 GiB: they take 1 GiB at most. 10,000 accounts with tokens of
/// 2 KiB have some 100 KiB in each.
pub const MAX_BUCKET_BYTES: usize = 4 * 1024 * 1024;

/// The key of the [`Head`].
pub const HEAD_KEY: &str = shared_key!("head");

/// The key of the [`Index`].
pub const INDEX_KEY: &str = shared_key!("index");

/// The key of bucket `number`.
pub fn bucket_key(number: usize) -> String {
    format!(shared_key!("bucket/{}"), number)
}

/// The state of the store that the shared data holds: the one thing that each request reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The history.
    pub epoch: Epoch,
    /// The revision in it.
    pub revision: u64,
    /// True once a whole snapshot has arrived since the start or the last reset.
    pub complete: bool,
    /// Counts the changes of the board of accounts that are out ([`crate::health`]).
    pub board: u64,
    /// Counts the changes of what is known of quotas ([`crate::health::quota`]).
    pub quotas: u64,
}

/// A digest for each bucket; the zero digest is that of a bucket never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index(Vec<u64>);

/// The lines of one bucket, by kind and id. A line is kept as it arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bucket<'a> {
    lines: BTreeMap<(Kind, &'a str), &'a [u8]>,
    /// The bytes of its content.
    bytes: usize,
}

/// The fill of the buckets, for one who publishes records and does not have the buckets: as far as it
/// has published them.
#[derive(Debug)]
pub struct Rooms {
    /// The bytes of each bucket's content.
    bytes: Vec<usize>,
    /// The bytes of each record's line.
    records: BTreeMap<(Kind, Id), usize>,
}

/// A record for which its bucket has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketFull;

// === impl Head ===

impl Head {
    /// Returns true if it is of the state of the store that `other` is of: what counts other changes may differ.
    pub fn is_of_state(&self, other: &Self) -> bool {
        (self.epoch, self.revision) == (other.epoch, other.revision)
    }

    /// Its bytes in shared data.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.epoch.as_bytes().to_vec();
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.push(u8::from(self.complete));
        bytes.extend_from_slice(&self.board.to_le_bytes());
        bytes.extend_from_slice(&self.quotas.to_le_bytes());
        bytes
    }

    /// Reads [`Head::encode`]'s bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk::<16>()?;
        let (revision, rest) = rest.split_first_chunk::<8>()?;
        let [complete @ (0 | 1), rest @ ..] = rest else {
            return None;
        };
        let (board, quotas) = rest.split_first_chunk::<8>()?;
        Some(Self {
            epoch: Epoch::from_bytes(*epoch),
            revision: u64::from_le_bytes(*revision),
            complete: *complete == 1,
            board: u64::from_le_bytes(*board),
            quotas: u64::from_le_bytes(quotas.try_into().ok()?),
        })
    }
}

// === impl Index ===

impl Index {
    /// The digest of bucket `number`.
    pub fn digest(&self, number: usize) -> u64 {
        self.0.get(number).copied().unwrap_or_default()
    }

    /// Notes that bucket `number` now holds `content`.
    pub fn set(&mut self, number: usize, content: &[u8]) {
        if let Some(digest) = self.0.get_mut(number) {
            *digest = content_digest(content);
        }
    }

    /// Its bytes in shared data.
    pub fn encode(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|digest| digest.to_le_bytes())
            .collect()
    }

    /// Reads [`Index::encode`]'s bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (digests, rest) = bytes.as_chunks::<8>();
        (rest.is_empty() && digests.len() == BUCKETS).then(|| {
            Self(
                digests
                    .iter()
                    .map(|digest| u64::from_le_bytes(*digest))
                    .collect(),
            )
        })
    }
}

impl Default for Index {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

/// The digest of a bucket's content; 0 for an empty one.
pub fn content_digest(content: &[u8]) -> u64 {
    if content.is_empty() {
        return 0;
    }
    let digest = Sha256::digest(content);
    digest
        .first_chunk::<8>()
        .map_or(0, |start| u64::from_le_bytes(*start))
}

/// The bucket of a record.
pub fn bucket_of(kind: Kind, id: &Id) -> usize {
    let [low, ..] = hash64(&[&[kind.letter()], id.as_str().as_bytes()]).to_le_bytes();
    usize::from(low)
}

// === impl Bucket ===

impl<'a> Bucket<'a> {
    /// Reads a bucket's content: lines of kind letter, id, space and record.
    pub fn decode(content: &'a [u8]) -> Option<Self> {
        let mut bucket = Self::default();
        for line in super::page::lines(content) {
            let (letter, rest) = line.split_first()?;
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let (id, record) = rest.split_at(space);
            let id = std::str::from_utf8(id).ok()?;
            bucket.insert(Kind::from_letter(*letter)?, id, record.get(1..)?);
        }
        Some(bucket)
    }

    /// Its content.
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for ((kind, id), record) in &self.lines {
            content.push(kind.letter());
            content.extend_from_slice(id.as_bytes());
            content.push(b' ');
            content.extend_from_slice(record);
            content.push(b'\n');
        }
        content
    }

    /// Puts `line`, which is `record` serialised, in the place of what had its key.
    ///
    /// # Errors
    /// [`BucketFull`] where the bucket would be above [`MAX_BUCKET_BYTES`]. What had its key is out of
    /// date, and gone.
    pub fn apply(&mut self, record: &'a Record, line: &'a [u8]) -> Result<(), BucketFull> {
        let (kind, id) = record.key();
        let id = id.as_str();
        if let Some(old) = self.lines.remove(&(kind, id)) {
            self.bytes = self.bytes.saturating_sub(content_bytes(id, old.len()));
        }
        if matches!(record, Record::Removed(_)) {
            return Ok(());
        }
        if self.bytes.saturating_add(content_bytes(id, line.len())) > MAX_BUCKET_BYTES {
            return Err(BucketFull);
        }
        self.insert(kind, id, line);
        Ok(())
    }

    fn insert(&mut self, kind: Kind, id: &'a str, line: &'a [u8]) {
        self.bytes = self.bytes.saturating_add(content_bytes(id, line.len()));
        self.lines.insert((kind, id), line);
    }

    /// The record lines.
    pub fn records(&self) -> impl Iterator<Item = &'a [u8]> {
        self.lines.values().copied()
    }
}

// === impl Rooms ===

impl Default for Rooms {
    fn default() -> Self {
        Self {
            bytes: vec![0; BUCKETS],
            records: BTreeMap::new(),
        }
    }
}

impl Rooms {
    /// Puts `record`, whose line has so many bytes, in the place of what had its key.
    ///
    /// # Errors
    /// [`BucketFull`], as [`Bucket::apply`] has it.
    pub fn put(&mut self, record: &Record, line_bytes: usize) -> Result<(), BucketFull> {
        let (kind, id) = record.key();
        // An account's health goes elsewhere.
        let Some(held) = self.bytes.get_mut(bucket_of(kind, id)) else {
            return Ok(());
        };
        if kind == Kind::Health {
            return Ok(());
        }
        let key = (kind, id.clone());
        let old = self.records.remove(&key).unwrap_or_default();
        *held = held.saturating_sub(old);
        if matches!(record, Record::Removed(_)) {
            return Ok(());
        }
        let bytes = content_bytes(id.as_str(), line_bytes);
        if held.saturating_add(bytes) > MAX_BUCKET_BYTES {
            return Err(BucketFull);
        }
        *held = held.saturating_add(bytes);
        self.records.insert(key, bytes);
        Ok(())
    }
}

/// The bytes of a line in a bucket's content: kind letter, id, space, record and end.
fn content_bytes(id: &str, line_bytes: usize) -> usize {
    id.len().saturating_add(line_bytes).saturating_add(3)
}

// === impl Kind ===

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Doors => b'd',
            Self::Platform => b'f',
            Self::Account => b'a',
            Self::Pool => b'p',
            Self::Key => b'k',
            Self::Health => b'h',
        }
    }

    fn from_letter(letter: u8) -> Option<Self> {
        [
            Self::Doors,
            Self::Platform,
            Self::Account,
            Self::Pool,
            Self::Key,
            Self::Health,
        ]
        .into_iter()
        .find(|kind| kind.letter() == letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Removed, fixture};

    #[test]
    fn head_and_index_survive_shared_data() {
        let head = Head {
            epoch: Epoch::from_bytes([3; 16]),
            revision: 77,
            complete: true,
            board: 5,
            quotas: 6,
        };
        assert_eq!(Head::decode(&head.encode()), Some(head));
        for length in 0..head.encode().len() {
            assert_eq!(Head::decode(&head.encode()[..length]), None);
        }
        let mut index = Index::default();
        index.set(255, b"x");
        assert_eq!(Index::decode(&index.encode()), Some(index.clone()));
        assert_eq!(Index::decode(&index.encode()[1..]), None);
    }

    #[test]
    fn a_bucket_takes_replaces_and_removes_lines() {
        let account = Record::Account(fixture::account("acc_1", "codex"));
        let line = account.to_line().unwrap();
        let mut bucket = Bucket::default();
        bucket.apply(&account, line.as_bytes()).unwrap();
        bucket.apply(&account, line.as_bytes()).unwrap();
        let content = bucket.encode();
        assert_eq!(bucket.bytes, content.len());
        let mut read = Bucket::decode(&content).unwrap();
        assert_eq!(read.records().collect::<Vec<_>>(), [line.as_bytes()]);
        let removed = Record::Removed(Removed {
            kind: Kind::Account,
            id: Id::try_from("acc_1").unwrap(),
        });
        assert_eq!(read, bucket);
        read.apply(&removed, b"").unwrap();
        assert_eq!(read, Bucket::default());
    }

    #[test]
    fn who_publishes_finds_as_much_room_as_the_buckets_have() {
        let in_one =
            |id: &String| bucket_of(Kind::Account, &Id::try_from(id.as_str()).unwrap()) == 9;
        let ids = (0..).map(|n| format!("acc_{n}")).filter(in_one);
        let records: Vec<Record> = ids
            .take(7)
            .map(|id| Record::Account(fixture::account(&id, "codex")))
            .collect();
        let line = vec![b'x'; MAX_BUCKET_BYTES / 5];
        let (mut rooms, mut bucket) = (Rooms::default(), Bucket::default());
        let removed = |record: &Record| {
            let (kind, id) = record.key();
            let id = id.clone();
            Record::Removed(Removed { kind, id })
        };
        let gone = [removed(&records[1]), removed(&records[6])];
        let again = [&gone[0], &records[5], &gone[1], &records[0], &records[6]];
        let mut refused = 0;
        for record in records.iter().chain(again) {
            let fits = bucket.apply(record, &line);
            assert_eq!(rooms.put(record, line.len()), fits);
            assert_eq!(rooms.bytes[9], bucket.bytes);
            refused += usize::from(fits.is_err());
        }
        assert_eq!(refused, 4);
    }

    #[test]
    fn what_does_not_fit_is_not_there_and_what_it_replaces_is_gone() {
        let records = ["acc_1", "acc_2", "acc_3"];
        let records = records.map(|id| Record::Account(fixture::account(id, "codex")));
        let [first, second, third] = &records;
        let (half, more) = (vec![b'x'; MAX_BUCKET_BYTES / 2 - 8], [b'x'; 1]);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.apply(first, &half), Ok(()));
        assert_eq!(bucket.apply(second, &half), Ok(()));
        assert_eq!(bucket.bytes, MAX_BUCKET_BYTES);
        assert_eq!(bucket.apply(third, &more), Err(BucketFull));
        let larger = [&half[..], &more].concat();
        assert_eq!(bucket.apply(second, &larger), Err(BucketFull));
        assert_eq!(bucket.records().collect::<Vec<_>>(), [&half]);
        assert_eq!(bucket.apply(third, &more), Ok(()));
        assert_eq!(bucket.bytes, bucket.encode().len());
    }
}
