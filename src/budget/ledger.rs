//! The blocks of a thing that the VMs of one Envoy have taken, for which keys: one value in shared data.

use super::{BLOCK, Budget, NoRoom};
use crate::{
    hash::hash64,
    host::{Changed, SharedData, shared_key},
    id::Id,
};

/// The time for which what a VM has taken counts after it last said so, in milliseconds.
pub(super) const LEASE_MS: u64 = 25_000;

/// The blocks that are taken at once while there is plenty, so that few requests need the ledger.
const STEP: u64 = 8;

/// The divisor of the budget: there is plenty while less than that part of it is taken.
const PLENTY: u64 = 4;

/// The most entries: so many keys with requests under way. One more is refused.
const MAX_ENTRIES: usize = 65_536;

/// The length of an entry, in bytes: three numbers of eight and one of four.
const ENTRY_BYTES: usize = 28;

/// The bytes that requests hold.
pub(super) const HELD: Ledger = Ledger {
    key: shared_key!("held"),
    block: BLOCK,
};

/// The connections that are kept open.
pub(super) const KEPT: Ledger = Ledger {
    key: shared_key!("kept"),
    block: 1,
};

/// One thing that is shared out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ledger {
    /// Its key in shared data.
    key: &'static str,
    /// The number of it that is taken at a time.
    pub(super) block: u64,
}

/// A client key's name in the ledgers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyName(u64);

/// The blocks that one VM has taken for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    key: KeyName,
    vm: u64,
    until: u64,
    blocks: u32,
}

/// The blocks that are taken, as far as a key needs to know before it takes more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Found {
    /// The sum of all keys.
    taken: u64,
    /// The sum of the key.
    own: u64,
    /// The number of its entry in this VM, lapsed or not.
    at: Option<usize>,
    /// The blocks that this entry stands for.
    has: u32,
}

/// The blocks that were taken for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Their number.
    pub(super) blocks: u64,
    /// The budget has plenty: what is not used may be kept for a while.
    pub(super) is_plenty: bool,
}

// === impl KeyName ===

impl KeyName {
    /// The name of this key.
    pub fn of(key: &Id) -> Self {
        Self(hash64(&[key.as_str().as_bytes()]))
    }
}

// === impl Ledger ===

impl Ledger {
    /// Makes the ledger where it is not there yet, so that swaps are safe.
    pub(super) fn prepare(self, shared: &mut impl SharedData) {
        if shared.read(self.key).is_none() {
            shared.write(self.key, b"");
        }
    }

    /// Takes `blocks` for `key`, or some more where there is plenty.
    pub(super) fn take(
        self,
        shared: &mut impl SharedData,
        vm: u64,
        key: KeyName,
        blocks: u64,
        budget: &Budget,
        now: u64,
    ) -> Result<Taken, NoRoom> {
        let mut taken = Ok(Taken {
            blocks: 0,
            is_plenty: false,
        });
        // Requests come here and not only ticks, so the other entries are looked at where they are: with thousands of keys
        // it would take longer to read and to write them all.
        let changed = shared.update(self.key, |mut bytes| {
            let found = Found::of(&bytes, vm, key, now);
            taken = self.may_take(&found, blocks, budget);
            let taken = taken.ok()?;
            let more = u32::try_from(taken.blocks).unwrap_or(u32::MAX);
            let entry = Entry {
                key,
                vm,
                until: now.saturating_add(LEASE_MS),
                blocks: found.has.saturating_add(more),
            };
            let is_in = put(&mut bytes, found.at, entry) || {
                // What has lapsed is in the way.
                let entries: Vec<Entry> = decode(&bytes, now).collect();
                bytes = encode(&entries);
                put(&mut bytes, None, entry)
            };
            is_in.then_some(bytes)
        });
        match (changed, taken) {
            (Changed::Done, taken) => taken,
            (_, Err(no_room)) => Err(no_room),
            // Other VMs never let it stand still, or it is full of keys.
            (_, Ok(_)) => Err(NoRoom::Others),
        }
    }

    /// Says how many blocks a VM has for each of its keys: those that it does not name it has given back.
    /// Returns false where the ledger did not take it.
    pub(super) fn tell(
        self,
        shared: &mut impl SharedData,
        vm: u64,
        held: &[(KeyName, u64)],
        now: u64,
    ) -> bool {
        let changed = shared.update(self.key, |bytes| {
            let mut entries: Vec<Entry> = decode(&bytes, now).filter(|one| one.vm != vm).collect();
            let until = now.saturating_add(LEASE_MS);
            entries.extend(held.iter().map(|(key, blocks)| Entry {
                key: *key,
                vm,
                until,
                blocks: u32::try_from(*blocks).unwrap_or(u32::MAX),
            }));
            entries.truncate(MAX_ENTRIES);
            Some(encode(&entries))
        });
        changed == Changed::Done
    }

    /// Says if a key of which so many were `found` may take `wanted` blocks, or a step.
    fn may_take(self, found: &Found, wanted: u64, budget: &Budget) -> Result<Taken, NoRoom> {
        let blocks = |bytes: u64| bytes.checked_div(self.block).unwrap_or_default();
        let (all, of_key) = (blocks(budget.all), blocks(budget.of_key));
        let Found { taken, own, .. } = *found;
        let fits = |more: u64| {
            let own = own.saturating_add(more);
            if own > of_key {
                return Err(NoRoom::Key {
                    most: budget.of_key,
                });
            }
            match own <= all.saturating_sub(taken.saturating_add(more)) {
                true => Ok(more),
                false => Err(NoRoom::Others),
            }
        };
        let is_plenty = taken.saturating_mul(PLENTY) < all;
        let step = is_plenty.then(|| fits(wanted.max(STEP)).ok()).flatten();
        let blocks = match step {
            Some(step) => step,
            None => fits(wanted)?,
        };
        Ok(Taken { blocks, is_plenty })
    }
}

// === impl Found ===

impl Found {
    /// Finds what the entries in `bytes` say at `now` of all keys, and of `key` and its part in `vm`.
    fn of(bytes: &[u8], vm: u64, key: KeyName, now: u64) -> Self {
        let mut found = Self::default();
        let (entries, _) = bytes.as_chunks();
        for (at, entry) in entries.iter().enumerate() {
            let entry = Entry::read(entry);
            let blocks = if entry.until > now { entry.blocks } else { 0 };
            found.taken = found.taken.saturating_add(blocks.into());
            if entry.key == key {
                found.own = found.own.saturating_add(blocks.into());
                if entry.vm == vm {
                    (found.at, found.has) = (Some(at), blocks);
                }
            }
        }
        found
    }
}

// === impl Entry ===

impl Entry {
    fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let mut rest = bytes.as_slice();
        let mut number = || {
            let (number, after) = rest.split_first_chunk().unwrap_or((&[0; 8], &[]));
            rest = after;
            u64::from_le_bytes(*number)
        };
        let (key, vm, until) = (number(), number(), number());
        let blocks = rest.first_chunk().copied().unwrap_or_default();
        Self {
            key: KeyName(key),
            vm,
            until,
            blocks: u32::from_le_bytes(blocks),
        }
    }

    fn write(self, bytes: &mut [u8; ENTRY_BYTES]) {
        let mut rest = bytes.as_mut_slice();
        for number in [self.key.0, self.vm, self.until] {
            let Some((place, after)) = rest.split_first_chunk_mut() else {
                return;
            };
            *place = number.to_le_bytes();
            rest = after;
        }
        if let Some(place) = rest.first_chunk_mut() {
            *place = self.blocks.to_le_bytes();
        }
    }
}

/// Puts `entry` in the place of the one `at` that number, or behind all where there is none. Returns false where there is no
/// room behind them, and changes nothing then.
fn put(bytes: &mut Vec<u8>, at: Option<usize>, entry: Entry) -> bool {
    let at = match at {
        Some(at) => at,
        None => {
            let count = bytes.as_chunks::<ENTRY_BYTES>().0.len();
            if count >= MAX_ENTRIES {
                return false;
            }
            bytes.extend_from_slice(&[0; ENTRY_BYTES]);
            count
        }
    };
    let (entries, _) = bytes.as_chunks_mut();
    let place = entries.get_mut(at);
    place.map(|place| entry.write(place)).is_some()
}

/// Reads the entries whose lease has not lapsed at `now`.
fn decode(bytes: &[u8], now: u64) -> impl Iterator<Item = Entry> {
    // A lease that ends later than one can was written before the clock was set back.
    let latest = now.saturating_add(LEASE_MS);
    let (entries, _) = bytes.as_chunks();
    let entries = entries.iter().map(Entry::read);
    let entries = entries.filter(move |one| one.until > now);
    entries.map(move |one| Entry {
        until: one.until.min(latest),
        ..one
    })
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len().saturating_mul(ENTRY_BYTES));
    for one in entries.iter().filter(|one| one.blocks > 0) {
        let mut entry = [0; ENTRY_BYTES];
        one.write(&mut entry);
        bytes.extend_from_slice(&entry);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeSharedData;

    const NOW: u64 = 1_790_000_000_000;
    const BUDGET: Budget = Budget {
        all: 1_000_000,
        of_key: 100,
    };

    fn entry(key: u64, until: u64) -> Entry {
        Entry {
            key: KeyName(key),
            vm: 1,
            until,
            blocks: 2,
        }
    }

    #[test]
    fn entries_survive_their_bytes() {
        let entries = [entry(7, NOW + 1), entry(u64::MAX, NOW + LEASE_MS)];
        let bytes = encode(&entries);
        assert_eq!(bytes.len(), 2 * ENTRY_BYTES);
        assert_eq!(decode(&bytes, NOW).collect::<Vec<_>>(), entries);
        // What is no whole entry is none.
        let cut = bytes.get(..ENTRY_BYTES * 2 - 1).unwrap();
        assert_eq!(decode(cut, NOW).collect::<Vec<_>>(), [entry(7, NOW + 1)]);
    }

    #[test]
    fn a_full_ledger_takes_another_key_where_entries_have_lapsed() {
        let mut shared = FakeSharedData::default();
        let mut take = |entries: &[Entry]| {
            shared.write(KEPT.key, &encode(entries));
            let taken = KEPT.take(&mut shared, 2, KeyName(0), 1, &BUDGET, NOW);
            (
                taken.map(|taken| taken.blocks),
                shared.read(KEPT.key).unwrap().0.len(),
            )
        };
        let full = (1..).take(MAX_ENTRIES);
        let mut entries: Vec<Entry> = full.map(|key| entry(key, NOW + 1)).collect();
        let whole = MAX_ENTRIES * ENTRY_BYTES;
        assert_eq!(take(&entries), (Err(NoRoom::Others), whole));
        entries[9].until = NOW;
        assert_eq!(take(&entries), (Ok(STEP), whole));
    }

    #[test]
    fn what_has_lapsed_counts_for_nobody() {
        let mut shared = FakeSharedData::default();
        shared.write(KEPT.key, &encode(&[entry(1, NOW), entry(2, NOW + 1)]));
        let taken = KEPT.take(&mut shared, 1, KeyName(1), 1, &BUDGET, NOW);
        assert_eq!(taken.map(|taken| taken.blocks), Ok(STEP));
        let bytes = shared.read(KEPT.key).unwrap().0;
        let found = |key| Found::of(&bytes, 1, KeyName(key), NOW);
        assert_eq!((found(1).own, found(1).taken), (STEP, STEP + 2));
        assert_eq!(found(2).own, 2);
    }
}
