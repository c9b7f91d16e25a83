//! Reads the snapshot from shared data when it moved.
//!
//! A VM parses it from its first request on. Until then it only compares digests, so the main thread's, which
//! serves none, holds no copy of it though it may be the one that polls.

use super::{board, quota};
use crate::{
    health::{Board, quota::QuotaVersions},
    host::SharedData,
    snapshot::{
        View,
        bucket::{BUCKETS, Bucket, HEAD_KEY, Head, INDEX_KEY, Index, bucket_key, content_digest},
        page::Epoch,
    },
};

/// The time for which a read serves without another look, in milliseconds. It matters where a VM has
/// hundreds of requests a second. It is a hundredth of the time in which a removed account has to be out of
/// use, or a new credential in use.
pub const FRESH_MS: u64 = 5;

/// The view of one VM, and the state of the shared data that it is of.
#[derive(Debug, Default)]
pub struct Follower {
    /// The head's bytes as last seen; compared before anything is decoded.
    head: Vec<u8>,
    index: Index,
    view: View,
    board: Board,
    board_version: u64,
    quotas: QuotaVersions,
    quotas_version: u64,
    /// A request has asked for the view.
    serves: bool,
    /// The revision whose index was read last, and its epoch.
    loaded: Option<(Epoch, u64)>,
    ready: bool,
    torn: bool,
    /// The time at which the head was last read for [`Follower::look`], in Unix milliseconds.
    looked_at: Option<u64>,
}

// === impl Follower ===

impl Follower {
    /// The current view, or none where no whole snapshot has arrived yet. Costs one small read
    /// where nothing moved.
    pub fn view(&mut self, shared: &impl SharedData) -> Option<&View> {
        if !std::mem::replace(&mut self.serves, true) {
            self.head = Vec::new();
            self.index = Index::default();
            self.loaded = None;
        }
        self.follow(shared);
        self.current()
    }

    /// Takes note of what moved. Costs one small read where nothing did.
    pub fn follow(&mut self, shared: &impl SharedData) {
        match shared.read(HEAD_KEY) {
            Some((head, _)) if head != self.head => self.load(shared, head),
            _ => {}
        }
    }

    /// Sees to it that the view is of `now` or of [`FRESH_MS`] before; `moved`: this VM has itself
    /// written to the head since, and its own news are to be seen at once.
    pub fn look(&mut self, shared: &impl SharedData, now: u64, moved: bool) {
        let age = self.looked_at.and_then(|at| now.checked_sub(at));
        if moved || !self.ready || age.is_none_or(|age| age >= FRESH_MS) {
            self.view(shared);
            self.looked_at = Some(now);
        }
    }

    /// The view as it was last read.
    pub fn current(&self) -> Option<&View> {
        self.ready.then_some(&self.view)
    }

    /// The accounts that are out, as of the same read.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Returns true if the last load found a bucket that is not what the index says. It is usual while another
    /// VM writes; the VM that writes itself takes it as damage.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    fn load(&mut self, shared: &impl SharedData, bytes: Vec<u8>) {
        let head = Head::decode(&bytes).unwrap_or_default();
        if head.board != self.board_version {
            self.board.take_entries(board::read(shared));
            self.board_version = head.board;
        }
        if head.quotas != self.quotas_version {
            quota::follow(shared, &mut self.quotas, self.board.quotas_mut());
            self.quotas_version = head.quotas;
        }
        if !head.complete {
            return;
        }
        if self.loaded == Some((head.epoch, head.revision)) {
            // The board or a quota moved, and nothing else.
            self.head = bytes;
            return;
        }
        let index = shared.read(INDEX_KEY);
        let Some(index) = index.and_then(|(bytes, _)| Index::decode(&bytes)) else {
            return;
        };
        self.torn = false;
        for number in 0..BUCKETS {
            let digest = index.digest(number);
            if digest != self.index.digest(number) {
                let content = shared.read(&bucket_key(number)).map(|(content, _)| content);
                self.torn |= !self.load_bucket(number, digest, &content.unwrap_or_default());
            }
        }
        if !self.torn {
            self.head = bytes;
            self.loaded = Some((head.epoch, head.revision));
            self.ready = self.serves;
        }
    }

    fn load_bucket(&mut self, number: usize, digest: u64, content: &[u8]) -> bool {
        let whole = content_digest(content) == digest;
        let Some(bucket) = Bucket::decode(content).filter(|_| whole) else {
            return false;
        };
        if self.serves {
            self.view.replace(number, &bucket);
        }
        self.index.set(number, content);
        true
    }
}
