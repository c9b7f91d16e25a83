//! Requests that died with an Envoy: they were under way, or their records waited to be sent, when it was last heard of.
//!
//! Each VM says how many requests it has begun and told of ([`Tally`]), and as long as the two differ it says so every 5
//! seconds. One that falls silent then counts as gone after a while, and the difference as lost. It is no verdict for
//! good: a VM that was only cut off, and speaks again, has lost nothing, and what it lost is not counted any more.

use std::collections::HashMap;
use std::time::Duration;

use latchkey::sync::tally::{Counts, Origin, Tally};
use tokio::time::Instant;

use crate::clock::UnixMillis;

/// How a VM's requests stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The largest number of a tally that was heard.
    pub number: u64,
    /// What that tally said of what was begun and dropped, and what has been told.
    pub counts: Counts,
}

impl Standing {
    /// Of a VM that says this, and is not known yet. What it has told by now is not among what it may lose.
    pub fn new(tally: &Tally) -> Standing {
        Standing {
            number: tally.number,
            counts: tally.counts,
        }
    }

    /// Takes what the VM says. It may come twice, late and in any order, also after the VM has gone.
    pub fn hear(&mut self, tally: &Tally) {
        let told = self.counts.told.max(tally.counts.told);
        if tally.number > self.number {
            *self = Standing::new(tally);
        }
        // A tally that goes alone does not know that a batch was taken whose answer was lost.
        self.counts.told = told;
    }
}

/// A VM that has requests to tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// Which.
    pub origin: Origin,
    /// The number of its last tally.
    pub number: u64,
    /// When it was last heard of.
    pub heard_at: UnixMillis,
    /// How many requests.
    pub requests: u64,
}

/// Tells which VMs have fallen silent. It goes by what this process has seen: a VM is not silent while nobody could have
/// heard it, and no clock that jumps makes it so.
#[derive(Debug)]
pub struct Watch {
    after: Duration,
    seen: HashMap<Origin, Seen>,
}

/// What was heard of a VM when it was looked at.
#[derive(Debug, Clone, Copy)]
struct Seen {
    last: (u64, UnixMillis),
    /// When that was new.
    at: Instant,
}

impl Watch {
    /// Takes those for gone that say nothing for so long.
    pub fn new(after: Duration) -> Watch {
        Watch {
            after,
            seen: HashMap::new(),
        }
    }

    /// Those of all that have requests to tell of and have fallen silent.
    pub fn silent(&mut self, all: Vec<Untold>, now: Instant) -> Vec<Untold> {
        let mut before = std::mem::take(&mut self.seen);
        let mut silent = Vec::new();
        for one in all {
            let last = (one.number, one.heard_at);
            let seen = before
                .remove(&one.origin)
                .filter(|seen| seen.last == last)
                .unwrap_or(Seen { last, at: now });
            self.seen.insert(one.origin.clone(), seen);
            if now.duration_since(seen.at) >= self.after {
                silent.push(one);
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests;
