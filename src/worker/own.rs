//! The host of one VM, which notes what the VM itself writes, and reads the clock once a callback.

use std::ops::{Deref, DerefMut};

use crate::{
    host::{Host, SharedData, Version},
    snapshot::bucket::HEAD_KEY,
};

/// A host.
#[derive(Debug)]
pub struct Own<H> {
    host: H,
    /// The VM has written to the head since that was last asked.
    moved: bool,
    /// Unix milliseconds when the clock was last read.
    now: u64,
    /// The clock was read in this callback.
    is_now: bool,
}

// === impl Own ===

impl<H: Host> Own<H> {
    /// Wraps the host of a VM.
    pub fn new(host: H) -> Self {
        Self {
            host,
            moved: false,
            now: 0,
            is_now: false,
        }
    }

    /// Begins a callback.
    pub fn begin(&mut self) {
        self.is_now = false;
    }

    /// Returns the time of this callback, in Unix milliseconds.
    pub fn now(&mut self) -> u64 {
        if !self.is_now {
            self.now = self.host.clock();
            self.is_now = true;
        }
        self.now
    }

    /// Returns when the clock was last read: a tick ago at most. Costs nothing.
    pub fn recently(&self) -> u64 {
        self.now
    }

    /// Returns true if this VM has written to the head since this was last asked.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

impl<H: Host> SharedData for Own<H> {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.host.read(key)
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        self.moved |= key == HEAD_KEY;
        self.host.write(key, value);
    }

    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
        self.moved |= key == HEAD_KEY;
        self.host.swap(key, value, version)
    }
}

impl<H> Deref for Own<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.host
    }
}

impl<H> DerefMut for Own<H> {
    fn deref_mut(&mut self) -> &mut H {
        &mut self.host
    }
}
