//! The ticks of a VM's roots: one each [`TICK_MS`], and one at once where a place is free for which
//! requests wait.
//!
//! A stream that ends cannot let another one go on. Envoy would run that one's filters, and what they set
//! off, inside the end of this one. So it has its root tick early; that tick hands the place on, and does
//! nothing else. A place that another VM has freed is seen at the next usual tick, and where requests wait
//! in other VMs too no tick comes early ([`crate::sync::queues`]).

use crate::{deadline::Deadline, host::Host};

/// The interval at which a gate's root does all that is due, in milliseconds. A poll's answer is acted on
/// when it comes; this bounds how late the first poll, a lease taken over, and a report are.
pub const TICK_MS: u64 = 100;

/// The time after which an early tick comes, in milliseconds: the least that a timer of Envoy takes.
const EARLY_MS: u64 = 1;

/// The ticks of one VM.
#[derive(Debug, Default)]
pub(super) struct Beat {
    /// The tick at which all that is due is done: early ones put it off no further.
    full_at: Deadline,
    /// An early tick is to come.
    hastens: bool,
    /// The roots that tick each [`TICK_MS`]. Of which root an early tick was asked, a VM does not know.
    regular: Vec<u32>,
}

// === impl Beat ===

impl Beat {
    /// Has the root of the stream that the callback is about tick early.
    pub(super) fn hasten(&mut self, host: &mut impl Host) {
        if !self.hastens {
            self.hastens = true;
            self.regular.clear();
            host.tick_each(EARLY_MS);
        }
    }

    /// Begins a tick of `root`. Returns true if all that is due is to be done in it, and false if it came
    /// early.
    pub(super) fn begin(&mut self, root: u32, now: u64, host: &mut impl Host) -> bool {
        let is_early = std::mem::take(&mut self.hastens) && !self.full_at.is_due(now);
        if is_early {
            self.regular.retain(|one| *one != root);
            let left = self.full_at.end_of(TICK_MS).saturating_sub(now);
            host.tick_each(left);
            return false;
        }
        self.full_at = Deadline::after(now, TICK_MS);
        if !self.regular.contains(&root) {
            self.regular.push(root);
            host.tick_each(TICK_MS);
        }
        true
    }
}
