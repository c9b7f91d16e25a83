//! The VMs of an Envoy that have requests which wait for a place with an account.
//!
//! A VM alone with such requests hands a place on as soon as one of its own streams frees it. Were others
//! to wait as well they would never find it free; so then each VM looks at its usual ticks alone.

use crate::{
    deadline::Deadline,
    host::{SharedData, shared_key},
};

const QUEUES_KEY: &str = shared_key!("queues");

/// The milliseconds for which a VM counts after it has said that requests wait: it says so at each tick.
const SAID_MS: u64 = 250;

/// The most VMs that are noted: more than an Envoy has workers.
const MAX_VMS: usize = 1_024;

/// A VM's number, and the end of what it said in Unix milliseconds.
const ENTRY_BYTES: usize = 16;

/// Makes the key, which cannot be changed safely before it was written.
pub fn prepare(shared: &mut impl SharedData) {
    if shared.read(QUEUES_KEY).is_none() {
        shared.write(QUEUES_KEY, &[]);
    }
}

/// Says at `now` that requests wait in the VM of this number.
pub fn note(shared: &mut impl SharedData, vm: u64, now: u64) {
    shared.update(QUEUES_KEY, |said| {
        let others = waiting(&said, vm, now).take(MAX_VMS);
        let all = others.chain([(vm, now.saturating_add(SAID_MS))]);
        let bytes = all.flat_map(|(vm, until)| [vm.to_le_bytes(), until.to_le_bytes()]);
        Some(bytes.flatten().collect())
    });
}

/// Returns true if requests wait in another VM than that of this number.
pub fn others_wait(shared: &impl SharedData, vm: u64, now: u64) -> bool {
    let said = shared.read(QUEUES_KEY);
    said.is_some_and(|(said, _)| waiting(&said, vm, now).next().is_some())
}

/// The VMs but `own` that said so, and until when that counts. What counts for longer than it can was said
/// before the clock was set back.
fn waiting(said: &[u8], own: u64, now: u64) -> impl Iterator<Item = (u64, u64)> {
    let (entries, _) = said.as_chunks::<ENTRY_BYTES>();
    let entries = entries.iter().filter_map(|entry| {
        let (vm, until) = entry.split_first_chunk()?;
        let until = u64::from_le_bytes(until.try_into().ok()?);
        Some((u64::from_le_bytes(*vm), until))
    });
    entries.filter(move |(vm, until)| *vm != own && !Deadline::ending(*until, SAID_MS).is_due(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeSharedData;

    #[test]
    fn a_vm_hears_of_others_while_they_say_that_they_wait() {
        let mut shared = FakeSharedData::default();
        prepare(&mut shared);
        note(&mut shared, 1, 1_000);
        prepare(&mut shared);
        for (vm, now, wait) in [
            (1, 1_000, false),
            (2, 1_000, true),
            (2, 1_000 + SAID_MS - 1, true),
            (2, 1_000 + SAID_MS, false),
            (2, 999, false),
        ] {
            assert_eq!(others_wait(&shared, vm, now), wait, "{vm} at {now}");
        }
        note(&mut shared, 2, 1_100);
        assert!(others_wait(&shared, 1, 1_200) && others_wait(&shared, 2, 1_200));
        assert!(!others_wait(&shared, 2, 1_300), "the first is silent");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut shared = FakeSharedData::default();
        prepare(&mut shared);
        for vm in 0..5_000 {
            note(&mut shared, vm, 1_000);
        }
        let held = shared.read(QUEUES_KEY).unwrap().0;
        assert_eq!(held.len(), (MAX_VMS + 1) * ENTRY_BYTES);
        note(&mut shared, 1, 9_000);
        assert_eq!(shared.read(QUEUES_KEY).unwrap().0.len(), ENTRY_BYTES);
    }
}
