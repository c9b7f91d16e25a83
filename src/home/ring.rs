//! The homes of what was made last, in shared data: so many that none is pushed out before the
//! refresher has it.
//!
//! Where there is no room, the client key that has most in a bucket gives its oldest up. So one that
//! makes things without end leaves those of others, also while the refresher is away.

use std::collections::HashMap;

use super::{Home, ThingHash};
use crate::{
    hash::hash64,
    host::{Changed, SharedData, shared_key},
    id::Id,
};

/// The number of keys. Workers seldom meet at one.
const BUCKETS: u64 = 64;

/// The most homes in one bucket. All buckets together have 16,384 and 512 KiB.
const MAX_HOMES: usize = 256;

/// The bytes of one home: the thing, the hash of the client key that made it, and that of its account.
const HOME_BYTES: usize = ThingHash::BYTES + KEY_BYTES + 8;

/// The bytes of a client key's hash.
const KEY_BYTES: usize = 8;

fn bucket(thing: &ThingHash) -> String {
    let number = hash64(&[thing.bytes()]);
    let number = number.checked_rem(BUCKETS).unwrap_or_default();
    format!(shared_key!("homes/{}"), number)
}

fn maker(key: &Id) -> [u8; KEY_BYTES] {
    hash64(&[key.as_str().as_bytes()]).to_le_bytes()
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

/// Notes that the account of the hash `account` has `thing`, which `key` made. Returns false where that
/// did not get in. The first account that is noted stays: no later answer takes a thing from it.
pub fn note(shared: &mut impl SharedData, thing: &ThingHash, key: &Id, account: u64) -> bool {
    let maker = maker(key);
    let changed = shared.update(&bucket(thing), |held| {
        if let Home::At(_) = found(&held, thing, maker) {
            return None;
        }
        let mut homes: Vec<&[u8]> = held.chunks_exact(HOME_BYTES).collect();
        while homes.len() >= MAX_HOMES {
            homes.remove(next_to_go(&homes));
        }
        let mut new = homes.concat();
        new.extend_from_slice(thing.bytes());
        new.extend_from_slice(&maker);
        new.extend_from_slice(&account.to_le_bytes());
        Some(new)
    });
    matches!(changed, Changed::Done | Changed::Kept)
}

/// The place of the oldest home of the client key that has most; where several have, of the one whose
/// oldest is older.
fn next_to_go(homes: &[&[u8]]) -> usize {
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for home in homes {
        let count = counts.entry(maker_of(home)).or_default();
        *count = count.saturating_add(1);
    }
    let most = counts.values().max().copied().unwrap_or_default();
    let has_most = |home: &&[u8]| counts.get(maker_of(home)) == Some(&most);
    homes.iter().position(has_most).unwrap_or_default()
}

fn maker_of(home: &[u8]) -> &[u8] {
    let end = ThingHash::BYTES.saturating_add(KEY_BYTES);
    home.get(ThingHash::BYTES..end).unwrap_or_default()
}

/// Finds `thing`, for `key`: [`Home::Nowhere`] says that it is not known here.
pub fn find(shared: &impl SharedData, thing: &ThingHash, key: &Id) -> Home {
    let held = shared.read(&bucket(thing));
    held.map_or(Home::Nowhere, |(held, _)| found(&held, thing, maker(key)))
}

fn found(held: &[u8], thing: &ThingHash, maker: [u8; KEY_BYTES]) -> Home {
    let mut home = Home::Nowhere;
    for one in held.chunks_exact(HOME_BYTES) {
        let Some((by, account)) = one
            .strip_prefix(thing.bytes())
            .and_then(|rest| rest.split_first_chunk::<KEY_BYTES>())
        else {
            continue;
        };
        match account.try_into() {
            Ok(account) if *by == maker => return Home::At(u64::from_le_bytes(account)),
            _ => home = Home::Others,
        }
    }
    home
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeSharedData;

    fn thing(number: usize) -> ThingHash {
        ThingHash::of(&format!("resp_{number}"))
    }

    fn key(name: &str) -> Id {
        Id::try_from(name).unwrap()
    }

    #[test]
    fn what_was_noted_is_found_and_stays_where_it_was() {
        let (mut shared, mine, other) = (FakeSharedData::default(), key("key_1"), key("key_2"));
        assert!(
            !note(&mut shared, &thing(1), &mine, 7),
            "nothing is prepared"
        );
        prepare(&mut shared);
        assert_eq!(find(&shared, &thing(1), &mine), Home::Nowhere);
        assert!(note(&mut shared, &thing(1), &mine, 7));
        assert!(note(&mut shared, &thing(1), &mine, 8), "known already");
        prepare(&mut shared);
        assert_eq!(find(&shared, &thing(1), &mine), Home::At(7));
        assert_eq!(find(&shared, &thing(1), &other), Home::Others);
        assert_eq!(find(&shared, &thing(2), &mine), Home::Nowhere);
        // A platform that lets callers choose an id: it is each one's own.
        assert!(note(&mut shared, &thing(1), &other, 9));
        assert_eq!(find(&shared, &thing(1), &other), Home::At(9));
        assert_eq!(find(&shared, &thing(1), &mine), Home::At(7));
    }

    #[test]
    fn who_makes_things_without_end_pushes_out_none_but_its_own() {
        let (mut shared, mine, other) = (FakeSharedData::default(), key("key_1"), key("key_2"));
        prepare(&mut shared);
        for n in 0..1_000 {
            assert!(note(&mut shared, &thing(n), &other, 7));
        }
        let number = 64 * MAX_HOMES * 2;
        for n in 1_000..number {
            assert!(note(&mut shared, &thing(n), &mine, 7));
        }
        assert_eq!(find(&shared, &thing(1_000), &mine), Home::Nowhere);
        for n in number - 100..number {
            assert_eq!(find(&shared, &thing(n), &mine), Home::At(7));
        }
        for n in 0..1_000 {
            assert_eq!(find(&shared, &thing(n), &other), Home::At(7));
        }
        let (held, _) = shared.read(&bucket(&thing(0))).unwrap();
        assert_eq!(held.len(), MAX_HOMES * HOME_BYTES);
    }
}
