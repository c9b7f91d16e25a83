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

/// The most entries, of 28 bytes each: so many keys with requests under way. One more is refused.
const MAX_ENTRIES: usize = 65_536;

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
        let changed = shared.update(self.key, |bytes| {
            let mut entries = decode(bytes, now);
            taken = self.may_take(&entries, key, blocks, budget);
            let taken = taken.ok()?;
            let own = entries
                .iter()
                .position(|one| one.vm == vm && one.key == key);
            let has_place = own.is_some() || entries.len() < MAX_ENTRIES;
            let more = u32::try_from(taken.blocks).unwrap_or(u32::MAX);
            let until = now.saturating_add(LEASE_MS);
            match own.and_then(|at| entries.get_mut(at)) {
                Some(own) => {
                    own.blocks = own.blocks.saturating_add(more);
                    own.until = until;
                }
                None if has_place => entries.push(Entry {
                    key,
                    vm,
                    until,
                    blocks: more,
                }),
                None => return None,
            }
            Some(encode(&entries))
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
            let mut entries = decode(bytes, now);
            entries.retain(|one| one.vm != vm);
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

    /// Says if `key` may take `wanted` blocks, or a step.
    fn may_take(
        self,
        entries: &[Entry],
        key: KeyName,
        wanted: u64,
        budget: &Budget,
    ) -> Result<Taken, NoRoom> {
        let blocks = |bytes: u64| bytes.checked_div(self.block).unwrap_or_default();
        let (all, of_key) = (blocks(budget.all), blocks(budget.of_key));
        let sum = |entries: &mut dyn Iterator<Item = &Entry>| -> u64 {
            entries.fold(0, |sum, one| sum.saturating_add(one.blocks.into()))
        };
        let taken = sum(&mut entries.iter());
        let own = sum(&mut entries.iter().filter(|one| one.key == key));
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

/// Reads the entries whose lease has not lapsed at `now`. What is no entry ends the reading: the
/// filter alone writes here.
fn decode(bytes: &[u8], now: u64) -> Vec<Entry> {
    // A lease that ends later than one can was written before the clock was set back.
    let latest = now.saturating_add(LEASE_MS);
    let mut rest = bytes;
    let mut entries = Vec::new();
    while let Some(((key, vm, until, blocks), after)) = split(rest) {
        rest = after;
        if until > now {
            entries.push(Entry {
                key: KeyName(key),
                vm,
                until: until.min(latest),
                blocks,
            });
        }
    }
    entries
}

type Fields = (u64, u64, u64, u32);

fn split(bytes: &[u8]) -> Option<(Fields, &[u8])> {
    let (key, rest) = bytes.split_first_chunk()?;
    let (vm, rest) = rest.split_first_chunk()?;
    let (until, rest) = rest.split_first_chunk()?;
    let (blocks, rest) = rest.split_first_chunk()?;
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let fields = (
        number(key),
        number(vm),
        number(until),
        u32::from_le_bytes(*blocks),
    );
    Some((fields, rest))
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for one in entries.iter().filter(|one| one.blocks > 0) {
        for number in [one.key.0, one.vm, one.until] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&one.blocks.to_le_bytes());
    }
    bytes
}
