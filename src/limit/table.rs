//! The layout of counters in shared data, and the ways to change them there.
//!
//! Shared data has no delete, so there is a fixed set of [`BUCKETS`] keys. A bucket is a list of
//! entries: length (two bytes), kind, length of the id, id, [`Counters`]. A change finds its entry
//! without reading the others.

use super::{Counters, Subject, SubjectKind};
use crate::{
    hash::hash64,
    host::{self, SharedData, shared_key},
    id::Id,
};

/// The number of buckets: few enough to read all of them once a second.
pub const BUCKETS: usize = 64;

/// The most subjects in one bucket, some 16,000 in all. When one more comes, those that have
/// nothing to count go, or else the one that was not used for longest.
const MAX_SUBJECTS: usize = 256;

/// Names this Envoy process to the refresher.
const INSTANCE_KEY: &str = shared_key!("counters/instance");

/// The key of bucket `number`.
pub fn bucket_key(number: usize) -> String {
    format!(shared_key!("counters/{:02}"), number)
}

fn bucket_of(subject: &Subject) -> usize {
    let [low, ..] =
        hash64(&[&[letter(subject.kind)], subject.id.as_str().as_bytes()]).to_le_bytes();
    usize::from(low).checked_rem(BUCKETS).unwrap_or_default()
}

fn letter(kind: SubjectKind) -> u8 {
    match kind {
        SubjectKind::Account => b'a',
        SubjectKind::Key => b'k',
    }
}

fn kind_of(letter: u8) -> Option<SubjectKind> {
    [SubjectKind::Account, SubjectKind::Key]
        .into_iter()
        .find(|kind| self::letter(*kind) == letter)
}

/// The key of the bucket that holds what is counted of `subject`.
pub fn key_of(subject: &Subject) -> String {
    bucket_key(bucket_of(subject))
}

/// Makes the keys where they are not there yet, so that swaps are safe. `seed` is what no other
/// Envoy has.
pub fn prepare(shared: &mut impl SharedData, seed: &[u64]) {
    for number in 0..BUCKETS {
        let key = bucket_key(number);
        if shared.read(&key).is_none() {
            shared.write(&key, b"");
        }
    }
    if shared.read(INSTANCE_KEY).is_none() {
        let bytes: Vec<u8> = seed.iter().flat_map(|part| part.to_le_bytes()).collect();
        let half = |salt: u8| hash64(&[&[salt], &bytes]);
        let name = format!("{:016x}{:016x}", half(0), half(1));
        shared.write(INSTANCE_KEY, name.as_bytes());
    }
}

/// The name of this Envoy process, 32 hex digits.
pub fn instance(shared: &impl SharedData) -> String {
    let value = shared.read(INSTANCE_KEY);
    value.map_or_else(String::new, |(bytes, _)| {
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Returns the counters of `subject`, rolled to `now`.
pub fn look(shared: &impl SharedData, subject: &Subject, now: u64) -> Counters {
    let content = shared.read(&key_of(subject));
    let content = content.map(|(content, _)| content).unwrap_or_default();
    let mut counters = find(&content, subject)
        .and_then(|entry| Counters::decode(entry.counters))
        .unwrap_or_default();
    counters.roll(now);
    counters
}

/// The outcome of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed<E> {
    /// The change is done.
    Done,
    /// The change itself refused.
    Refused(E),
    /// Shared data did not take it: the bucket was never made, or never stood still.
    Lost,
}

/// Changes the counters of `subject`, rolled to `now`. `change` may run more than once, on the
/// latest counters; where it returns an error nothing happens.
pub fn update<E>(
    shared: &mut impl SharedData,
    subject: &Subject,
    now: u64,
    mut change: impl FnMut(&mut Counters) -> Result<(), E>,
) -> Changed<E> {
    let mut refused = None;
    let changed = shared.update(&key_of(subject), |content| {
        let found = find(&content, subject);
        let mut counters = found
            .as_ref()
            .and_then(|entry| Counters::decode(entry.counters))
            .unwrap_or_default();
        counters.roll(now);
        if let Err(error) = change(&mut counters) {
            refused = Some(error);
            return None;
        }
        Some(match found {
            Some(found) => {
                let mut new = found.before.to_vec();
                push(&mut new, subject, &counters);
                new.extend_from_slice(found.after);
                new
            }
            None => {
                let mut new = make_room(&content, now).unwrap_or_else(|| whole(&content).to_vec());
                push(&mut new, subject, &counters);
                new
            }
        })
    });
    match (changed, refused) {
        (host::Changed::Done, _) => Changed::Done,
        (_, Some(error)) => Changed::Refused(error),
        (_, None) => Changed::Lost,
    }
}

/// All that is counted, rolled to `now`; subjects without anything that counts are left out.
pub fn all(shared: &impl SharedData, now: u64) -> Vec<(Subject, Counters)> {
    let mut all = Vec::new();
    for number in 0..BUCKETS {
        let content = shared.read(&bucket_key(number));
        let content = content.map(|(content, _)| content).unwrap_or_default();
        all.extend(Entries(&content).filter_map(|entry| {
            let mut counters = Counters::decode(entry.counters)?;
            counters.roll(now);
            Some((entry.subject()?, counters))
        }));
    }
    all
}

/// An entry of a bucket, with what is around it.
struct Entry<'a> {
    kind: u8,
    id: &'a [u8],
    counters: &'a [u8],
    whole: &'a [u8],
}

impl Entry<'_> {
    fn subject(&self) -> Option<Subject> {
        Some(Subject {
            kind: kind_of(self.kind)?,
            id: Id::try_from(std::str::from_utf8(self.id).ok()?).ok()?,
        })
    }
}

struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let (body, after) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let [kind, id_length, rest @ ..] = body else {
            return None;
        };
        let (id, counters) = rest.split_at_checked((*id_length).into())?;
        let (whole, _) = self.0.split_at_checked(body.len().saturating_add(2))?;
        self.0 = after;
        Some(Entry {
            kind: *kind,
            id,
            counters,
            whole,
        })
    }
}

struct Found<'a> {
    before: &'a [u8],
    counters: &'a [u8],
    after: &'a [u8],
}

fn find<'a>(content: &'a [u8], subject: &Subject) -> Option<Found<'a>> {
    let mut entries = Entries(content);
    loop {
        let (before, _) =
            content.split_at_checked(content.len().saturating_sub(entries.0.len()))?;
        let entry = entries.next()?;
        if entry.kind == letter(subject.kind) && entry.id == subject.id.as_str().as_bytes() {
            return Some(Found {
                before,
                counters: entry.counters,
                after: entries.0,
            });
        }
    }
}

fn push(content: &mut Vec<u8>, subject: &Subject, counters: &Counters) {
    let (id, counters) = (subject.id.as_str().as_bytes(), counters.encode());
    let length = id.len().saturating_add(counters.len()).saturating_add(2);
    // An id has at most 64 bytes, and counters with all their leases some 16,000.
    let (Ok(length), Ok(id_length)) = (u16::try_from(length), u8::try_from(id.len())) else {
        return;
    };
    content.extend_from_slice(&length.to_le_bytes());
    content.extend_from_slice(&[letter(subject.kind), id_length]);
    content.extend_from_slice(id);
    content.extend_from_slice(&counters);
}

/// The entries at the start of `content`; what is behind them no reader gets to.
fn whole(content: &[u8]) -> &[u8] {
    let mut entries = Entries(content);
    while entries.next().is_some() {}
    let length = content.len().saturating_sub(entries.0.len());
    content.get(..length).unwrap_or_default()
}

/// The content of a full bucket with room for one more; none where there is room.
fn make_room(content: &[u8], now: u64) -> Option<Vec<u8>> {
    if Entries(content).count() < MAX_SUBJECTS {
        return None;
    }
    let mut kept: Vec<(u64, &[u8])> = Entries(content)
        .filter_map(|entry| {
            let counters = Counters::decode(entry.counters)?;
            (!counters.is_idle(now)).then_some((counters.touched_at, entry.whole))
        })
        .collect();
    if kept.len() >= MAX_SUBJECTS {
        let oldest = kept.iter().enumerate().min_by_key(|(_, (at, _))| *at);
        if let Some((index, _)) = oldest {
            kept.remove(index);
        }
    }
    Some(
        kept.iter()
            .flat_map(|(_, whole)| whole.iter().copied())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::fake::FakeSharedData;

    const NOW: u64 = 1_790_000_000_000;

    fn subject(n: usize) -> Subject {
        Subject::key(&Id::try_from(format!("key_{n}")).unwrap())
    }

    fn count(shared: &mut FakeSharedData, subject: &Subject, now: u64) -> Changed<()> {
        update(shared, subject, now, |counters| {
            counters.count_requests(1);
            counters.touched_at = now;
            Ok(())
        })
    }

    #[test]
    fn subjects_do_not_mix() {
        let mut shared = FakeSharedData::default();
        assert_eq!(
            count(&mut shared, &subject(1), NOW),
            Changed::Lost,
            "no bucket yet"
        );
        prepare(&mut shared, &[1]);
        for n in 0..200 {
            for _ in 0..n % 3 {
                assert_eq!(count(&mut shared, &subject(n), NOW), Changed::Done);
            }
        }
        let account = Subject::account(&subject(4).id);
        count(&mut shared, &account, NOW);
        for n in 0..200 {
            let found = look(&shared, &subject(n), NOW).minute.own.requests;
            assert_eq!(found, n as u64 % 3, "{n}");
        }
        assert_eq!(all(&shared, NOW).len(), 200 - 67 + 1);
        let refused = update(&mut shared, &account, NOW, |counters| {
            counters.count_requests(1);
            Err("no")
        });
        assert_eq!(refused, Changed::Refused("no"));
        assert_eq!(look(&shared, &account, NOW).minute.own.requests, 1);
    }

    #[test]
    fn a_table_is_bounded_and_drops_what_is_not_missed() {
        let mut shared = FakeSharedData::default();
        prepare(&mut shared, &[1]);
        let many: Vec<_> = (0..40_000)
            .map(subject)
            .filter(|subject| bucket_of(subject) == 7)
            .take(MAX_SUBJECTS + 20)
            .collect();
        for (n, subject) in many.iter().enumerate() {
            count(&mut shared, subject, NOW + n as u64 % 1_000);
        }
        assert_eq!(all(&shared, NOW).len(), MAX_SUBJECTS);
        let last = many.last().unwrap();
        assert_eq!(look(&shared, last, NOW).minute.own.requests, 1);
        count(&mut shared, &subject(0), NOW);
        let later = NOW + 120_000;
        let idle_before = all(&shared, later).len();
        update::<()>(&mut shared, &many[0], later, |_| Ok(()));
        assert!(all(&shared, later).len() < idle_before);
    }

    #[test]
    fn instances_differ_and_stay() {
        let (mut one, mut other) = (FakeSharedData::default(), FakeSharedData::default());
        prepare(&mut one, &[1, 2]);
        prepare(&mut other, &[1, 3]);
        assert_ne!(instance(&one), instance(&other));
        assert_eq!(instance(&one).len(), 32);
        let name = instance(&one);
        prepare(&mut one, &[9]);
        assert_eq!(instance(&one), name);
    }

    proptest! {
        #[test]
        fn no_content_panics(content: Vec<u8>, now: u64) {
            let mut shared = FakeSharedData::default();
            for number in 0..BUCKETS {
                shared.write(&bucket_key(number), &content);
            }
            all(&shared, now);
            look(&shared, &subject(1), now);
            count(&mut shared, &subject(1), now);
            prop_assert_eq!(look(&shared, &subject(1), now).minute.own.requests >= 1, true);
        }
    }
}
