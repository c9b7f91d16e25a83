//! The lease: one of an Envoy's VMs polls, the others read.

use super::board;
use crate::{
    deadline::{Deadline, OLD_READING_MS},
    host::{Changed, SharedData, shared_key},
};

/// The milliseconds for which a holder that does not renew keeps the lease. A holder renews at
/// every tick, 15 times in it, and this bounds how long nobody polls after a VM has crashed: what is
/// taken away then has to be out of use within two seconds.
///
/// A holder that is kept busy for longer, or an Envoy that was paused, may find the lease taken. The answer to
/// its poll is passed over then: the other VM has asked anew. One that loses the lease while it writes a page finds
/// that out at the end, and has everything asked for anew ([`publish::apply`](super::publish::apply)).
pub const LEASE_MS: u64 = 1_500;

const LEASE_KEY: &str = shared_key!("lease");
const HOLDERS_KEY: &str = shared_key!("holders");

/// A VM, told from every other VM of this Envoy process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(u64);

// === impl Holder ===

impl Holder {
    /// Takes the next number. To be called where a plugin is configured: Envoy does that first
    /// for one throw-away VM alone, which makes the keys, so that swaps are safe from then on.
    pub fn register(shared: &mut impl SharedData) -> Self {
        if shared.read(LEASE_KEY).is_none() {
            shared.write(LEASE_KEY, &Lease::default().encode());
        }
        if shared.read(HOLDERS_KEY).is_none() {
            shared.write(HOLDERS_KEY, &0_u64.to_le_bytes());
        }
        board::prepare(shared);
        let mut next = 0;
        // Every swap that is lost is another VM's number, and there are only so many VMs.
        while shared.update(HOLDERS_KEY, |value| {
            let last = value.first_chunk().copied().map_or(0, u64::from_le_bytes);
            next = last.wrapping_add(1);
            Some(next.to_le_bytes().to_vec())
        }) == Changed::Lost
        {}
        Self(next)
    }

    /// Takes or renews the lease at `now`, in Unix milliseconds; returns true if this VM has it.
    pub fn hold(self, shared: &mut impl SharedData, now: u64) -> bool {
        let renewed = Lease {
            holder: self.0,
            until: now.saturating_add(LEASE_MS),
        };
        let changed = shared.update(LEASE_KEY, |value| {
            let lease = Lease::decode(&value).unwrap_or_default();
            let is_free = lease.holder == self.0 || !lease.is_held(now);
            is_free.then(|| renewed.encode())
        });
        changed == Changed::Done
    }

    /// The VM's number, for ids that must not meet another VM's.
    pub fn number(self) -> u64 {
        self.0
    }
}

#[derive(Debug, Default)]
struct Lease {
    holder: u64,
    until: u64,
}

impl Lease {
    fn is_held(&self, now: u64) -> bool {
        let longest = LEASE_MS.saturating_add(OLD_READING_MS);
        !Deadline::ending(self.until, longest).is_due(now)
    }

    fn encode(&self) -> Vec<u8> {
        [self.holder.to_le_bytes(), self.until.to_le_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (holder, rest) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            holder: u64::from_le_bytes(*holder),
            until: u64::from_le_bytes(*rest.first_chunk::<8>()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeSharedData;

    #[test]
    fn one_holds_until_it_stops_renewing() {
        let mut shared = FakeSharedData::default();
        let first = Holder::register(&mut shared);
        let second = Holder::register(&mut shared);
        assert_ne!(first, second);

        assert!(first.hold(&mut shared, 10_000));
        assert!(!second.hold(&mut shared, 10_200));
        assert!(first.hold(&mut shared, 11_000));
        assert!(!second.hold(&mut shared, 11_000 + LEASE_MS - 1));
        assert!(second.hold(&mut shared, 11_000 + LEASE_MS));
        assert!(!first.hold(&mut shared, 11_200 + LEASE_MS));
    }

    #[test]
    fn a_reading_that_is_a_little_older_than_the_lease_does_not_take_it() {
        let mut shared = FakeSharedData::default();
        let first = Holder::register(&mut shared);
        let second = Holder::register(&mut shared);
        assert!(first.hold(&mut shared, 1_000_000));
        for old in [1, 10, OLD_READING_MS] {
            assert!(!second.hold(&mut shared, 1_000_000 - old), "{old} ms older");
        }
        assert!(second.hold(&mut shared, 1_000_000 - OLD_READING_MS - 1));
    }

    #[test]
    fn a_clock_set_back_frees_the_lease() {
        let mut shared = FakeSharedData::default();
        let first = Holder::register(&mut shared);
        let second = Holder::register(&mut shared);
        assert!(first.hold(&mut shared, 3_600_000));
        assert!(second.hold(&mut shared, 1_000));
    }
}
