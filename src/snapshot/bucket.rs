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

/// The key of the [`Head`].
pub const HEAD_KEY: &str = shared_key!("head");

/// The key of the [`Index`].
pub const INDEX_KEY: &str = shared_key!("index");

/// The key of bucket `number`.
pub fn bucket_key(number: usize) -> String {
    format!(shared_key!("bucket/{}"), number)
}

/// Which state of the store the shared data holds: the one thing that each request reads.
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
pub struct Bucket<'a>(BTreeMap<(Kind, &'a str), &'a [u8]>);

// === impl Head ===

impl Head {
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
        let mut lines = BTreeMap::new();
        for line in super::page::lines(content) {
            let (letter, rest) = line.split_first()?;
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let (id, record) = rest.split_at(space);
            let id = std::str::from_utf8(id).ok()?;
            lines.insert((Kind::from_letter(*letter)?, id), record.get(1..)?);
        }
        Some(Self(lines))
    }

    /// Its content.
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for ((kind, id), record) in &self.0 {
            content.push(kind.letter());
            content.extend_from_slice(id.as_bytes());
            content.push(b' ');
            content.extend_from_slice(record);
            content.push(b'\n');
        }
        content
    }

    /// Puts `line`, which is `record` serialised, in the place of what had its key.
    pub fn apply(&mut self, record: &'a Record, line: &'a [u8]) {
        let (kind, id) = record.key();
        match record {
            Record::Removed(_) => self.0.remove(&(kind, id.as_str())),
            _ => self.0.insert((kind, id.as_str()), line),
        };
    }

    /// The record lines.
    pub fn records(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0.values().copied()
    }
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
        bucket.apply(&account, line.as_bytes());
        bucket.apply(&account, line.as_bytes());
        let content = bucket.encode();
        let mut read = Bucket::decode(&content).unwrap();
        assert_eq!(read.records().collect::<Vec<_>>(), [line.as_bytes()]);
        let removed = Record::Removed(Removed {
            kind: Kind::Account,
            id: Id::try_from("acc_1").unwrap(),
        });
        read.apply(&removed, b"");
        assert!(read.encode().is_empty());
    }
}
