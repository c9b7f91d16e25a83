//! The homes of what was made last, in shared data: so many that none is pushed out before the
//! refresher has it.

use super::ThingHash;
use crate::{
    hash::hash64,
    host::{Changed, SharedData, shared_key},
};

/// The number of keys. Workers seldom meet at one.
const BUCKETS: u64 = 64;

/// The most homes in one bucket; a new one takes the place of the oldest. All buckets together have
/// 16,384 and 384 KiB.
const MAX_HOMES: usize = 256;

/// The bytes of one home: the thing and the hash of its account.
const HOME_BYTES: usize = ThingHash::BYTES + 8;

fn key(thing: &ThingHash) -> String {
    let number = hash64(&[thing.bytes()]);
    let number = number.checked_rem(BUCKETS).unwrap_or_default();
    format!(shared_key!("homes/{}"), number)
}

/// Makes the keys where they are not there yet, so that swaps are safe.
pub fn prepare(shared: &mut impl SharedData) {
    const FIRST: &str = shared_key!("homes");
    if shared.read(FIRST).is_some() {
        return;
    }
    for number in 0..BUCKETS {
        shared.write(&format!(shared_key!("homes/{}"), number), b"");
    }
    shared.write(FIRST, b"");
}

/// Notes that the account of the hash `account` has `thing`. Returns false where that did not get
/// in. The first account that is noted stays: no later answer takes a thing from it.
pub fn note(shared: &mut impl SharedData, thing: &ThingHash, account: u64) -> bool {
    let changed = shared.update(&key(thing), |held| {
        if found(held, thing).is_some() {
            return None;
        }
        let homes = held.chunks_exact(HOME_BYTES);
        let over = homes.len().saturating_add(1).saturating_sub(MAX_HOMES);
        let mut new = homes.skip(over).flatten().copied().collect::<Vec<u8>>();
        new.extend_from_slice(thing.bytes());
        new.extend_from_slice(&account.to_le_bytes());
        Some(new)
    });
    matches!(changed, Changed::Done | Changed::Kept)
}

/// The hash of the account that has `thing`.
pub fn find(shared: &impl SharedData, thing: &ThingHash) -> Option<u64> {
    let (held, _) = shared.read(&key(thing))?;
    found(&held, thing)
}

fn found(held: &[u8], thing: &ThingHash) -> Option<u64> {
    held.chunks_exact(HOME_BYTES).find_map(|home| {
        let account = home.strip_prefix(thing.bytes())?;
        Some(u64::from_le_bytes(account.try_into().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::fake::FakeSharedData, id::Id};

    fn thing(number: usize) -> ThingHash {
        ThingHash::of(&Id::try_from("key_1").unwrap(), &format!("resp_{number}"))
    }

    #[test]
    fn what_was_noted_is_found_and_stays_where_it_was() {
        let mut shared = FakeSharedData::default();
        assert!(!note(&mut shared, &thing(1), 7), "nothing is prepared");
        prepare(&mut shared);
        assert_eq!(find(&shared, &thing(1)), None);
        assert!(note(&mut shared, &thing(1), 7));
        assert!(note(&mut shared, &thing(1), 8), "known already");
        prepare(&mut shared);
        assert_eq!(find(&shared, &thing(1)), Some(7));
        assert_eq!(find(&shared, &thing(2)), None);
    }

    #[test]
    fn the_oldest_makes_room_and_no_bucket_grows_without_end() {
        let mut shared = FakeSharedData::default();
        prepare(&mut shared);
        let number = 64 * MAX_HOMES * 2;
        for n in 0..number {
            assert!(note(&mut shared, &thing(n), 7));
        }
        assert_eq!(find(&shared, &thing(0)), None);
        for n in number - 100..number {
            assert_eq!(find(&shared, &thing(n)), Some(7));
        }
        let (held, _) = shared.read(&key(&thing(0))).unwrap();
        assert_eq!(held.len(), MAX_HOMES * HOME_BYTES);
    }
}
