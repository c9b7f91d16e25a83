//! The used part of the accounts' windows, as their platforms last said.
//!
//! Answers report windows ([`crate::verdict::quota`]), good ones too. The latest of each account
//! lies in shared data, spread over [`BUCKETS`] keys, so that one account's news costs no more
//! than its bucket. A policy that spreads requests by quota asks for an [`Outlook`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{hash::hash64, id::Id, label::WindowName, verdict::quota::Window};

/// The number of keys that the quotas are spread over.
pub const BUCKETS: usize = 64;

/// The most accounts of one bucket: six times what 10,000 accounts put there. A new one takes
/// the place of the one that was heard of longest ago.
pub const MAX_BUCKET_ACCOUNTS: usize = 1_024;

/// The most windows of one account; platforms have up to seven.
pub const MAX_WINDOWS: usize = 8;

/// The milliseconds for which a window counts that does not say when it starts anew.
pub const STALE_MS: u64 = 3_600_000;

/// The shortest time between two changes of what is kept of one account, in milliseconds, unless
/// a window is exhausted or is so no longer.
pub const PAUSE_MS: u64 = 1_000;

/// The shift of a window's start that is news, in milliseconds. Platforms tell the start to the second, and
/// some tell how long it is until then.
const RESET_MOVED_MS: u64 = 60_000;

/// The windows of one account, and when they were reported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownQuota {
    /// The time of the report, in Unix milliseconds.
    pub at: u64,
    /// The windows, at most [`MAX_WINDOWS`], each name once. None where what was known was forgotten.
    pub windows: Vec<Window>,
}

/// The figures that a policy may go by at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outlook {
    /// The rest of the tightest window, 0 to 1; none where nothing is known.
    pub left: Option<f64>,
    /// The time at which the first of the windows starts anew, in Unix milliseconds, after now; none where no
    /// window says so.
    pub resets_at: Option<u64>,
}

/// The accounts of one bucket.
pub type Bucket = BTreeMap<Id, KnownQuota>;

/// The copy of the quotas that one VM has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quotas(Vec<Bucket>);

/// Counts the changes of each bucket, so that a VM reads only what moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaVersions(Vec<u32>);

/// The bucket of an account.
pub fn bucket_of(account: &Id) -> usize {
    let [low, ..] = hash64(&[b"quota", account.as_str().as_bytes()]).to_le_bytes();
    usize::from(low) % BUCKETS
}

/// The bucket that lies in `bytes`; what does not parse is an empty one.
pub fn decode(bytes: &[u8]) -> Bucket {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// A bucket's bytes in shared data.
pub fn encode(bucket: &Bucket) -> Vec<u8> {
    // Ids, names and finite numbers always serialise.
    serde_json::to_vec(bucket).unwrap_or_default()
}

/// Puts what is known of an account into its bucket.
pub fn put(bucket: &mut Bucket, account: &Id, known: KnownQuota) {
    if bucket.len() >= MAX_BUCKET_ACCOUNTS && !bucket.contains_key(account) {
        let oldest = bucket.iter().min_by_key(|(_, known)| known.at);
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            bucket.remove(&id);
        }
    }
    bucket.insert(account.clone(), known);
}

// === impl KnownQuota ===

impl KnownQuota {
    /// Makes the quota that an answer at `now` reported.
    pub fn new(mut windows: Vec<Window>, now: u64) -> Self {
        windows.truncate(MAX_WINDOWS);
        Self { at: now, windows }
    }

    /// Merges `newer`, which may leave windows out: an answer reports those that it counted in. One that is
    /// left out stays until it starts anew.
    pub fn merged(&self, newer: &Self) -> Self {
        let is_new = |name: &WindowName| newer.windows.iter().any(|window| window.name == *name);
        let kept = self.windows.iter().filter(|window| {
            let runs = window.resets_at.is_some_and(|at| at > newer.at);
            runs && !is_new(&window.name)
        });
        let windows = newer.windows.iter().chain(kept).cloned();
        Self {
            at: newer.at,
            windows: windows.take(MAX_WINDOWS).collect(),
        }
    }

    /// Returns true if `newer` is worth being told to everybody: a whole percent of a window or another start
    /// of it, not more often than once in [`PAUSE_MS`].
    pub fn is_news(&self, newer: &Self) -> bool {
        if newer.at <= self.at {
            return false;
        }
        let of = |name: &WindowName| self.windows.iter().find(|window| window.name == *name);
        let turned = newer.windows.iter().any(|window| {
            let was_exhausted = of(&window.name).is_some_and(|old| old.exhausted);
            was_exhausted != window.exhausted
        });
        let moved = newer.windows.iter().any(|window| {
            of(&window.name).is_none_or(|old| {
                let percent = (old.used_percent - window.used_percent).abs();
                let reset = match (old.resets_at, window.resets_at) {
                    (Some(old), Some(new)) => old.abs_diff(new) >= RESET_MOVED_MS,
                    (old, new) => old.is_some() != new.is_some(),
                };
                percent >= 1.0 || reset
            })
        });
        turned || moved && newer.at.saturating_sub(self.at) >= PAUSE_MS
    }

    /// Returns the figures that a policy may go by at `now`. A window past its reset is full again.
    pub fn outlook(&self, now: u64) -> Outlook {
        let counts =
            |window: &&Window| window.resets_at.is_some() || now.saturating_sub(self.at) < STALE_MS;
        let left = self.windows.iter().filter(counts).map(|window| {
            if window.resets_at.is_some_and(|at| at <= now) {
                1.0
            } else if window.exhausted {
                0.0
            } else {
                (1.0 - window.used_percent / 100.0).clamp(0.0, 1.0)
            }
        });
        let resets = self.windows.iter().filter_map(|window| window.resets_at);
        Outlook {
            left: left.min_by(f64::total_cmp),
            resets_at: resets.filter(|at| *at > now).min(),
        }
    }
}

// === impl Quotas ===

impl Quotas {
    /// Makes the quotas of no account.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns what is known of an account.
    pub fn of(&self, account: &Id) -> Option<&KnownQuota> {
        self.0.get(bucket_of(account))?.get(account)
    }

    /// Lists every account of which anything is known, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &KnownQuota)> {
        self.0.iter().flatten()
    }

    /// Takes `bucket` as the content of bucket `number`.
    pub fn replace(&mut self, number: usize, bucket: Bucket) {
        if self.0.is_empty() {
            self.0.resize_with(BUCKETS, Bucket::new);
        }
        if let Some(held) = self.0.get_mut(number) {
            *held = bucket;
        }
    }
}

// === impl QuotaVersions ===

impl QuotaVersions {
    /// Counts a change of bucket `number`.
    pub fn count(&mut self, number: usize) {
        if let Some(changes) = self.0.get_mut(number) {
            *changes = changes.wrapping_add(1);
        }
    }

    /// The buckets that changed since `older`.
    pub fn moved<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let pairs = self.0.iter().zip(&older.0).enumerate();
        pairs.filter_map(|(number, (new, old))| (new != old).then_some(number))
    }

    /// Its bytes in shared data.
    pub fn encode(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|count| count.to_le_bytes())
            .collect()
    }

    /// Reads [`QuotaVersions::encode`]'s bytes; what is none counts no change.
    pub fn decode(bytes: &[u8]) -> Self {
        let (counts, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || counts.len() != BUCKETS {
            return Self::default();
        }
        Self(
            counts
                .iter()
                .map(|count| u32::from_le_bytes(*count))
                .collect(),
        )
    }
}

impl Default for QuotaVersions {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn window(name: &str, used_percent: f64, resets_at: Option<u64>) -> Window {
        Window {
            name: name.try_into().unwrap(),
            used_percent,
            resets_at,
            exhausted: used_percent >= 100.0,
        }
    }

    fn known(at: u64, windows: &[Window]) -> KnownQuota {
        KnownQuota::new(windows.to_vec(), at)
    }

    #[test]
    fn the_tightest_window_counts_until_it_starts_anew() {
        let known = known(
            0,
            &[
                window("5h", 90.0, Some(5 * HOUR)),
                window("7d", 40.0, Some(100 * HOUR)),
            ],
        );
        let at = |now| {
            let Outlook { left, resets_at } = known.outlook(now);
            (left.map(|left| (left * 100.0).round()), resets_at)
        };
        assert_eq!(at(1), (Some(10.0), Some(5 * HOUR)));
        assert_eq!(at(5 * HOUR), (Some(60.0), Some(100 * HOUR)));
        assert_eq!(at(100 * HOUR), (Some(100.0), None));
        assert_eq!(KnownQuota::default().outlook(1), Outlook::default());
    }

    #[test]
    fn a_window_without_an_end_is_forgotten_and_one_overdrawn_is_empty() {
        let endless = known(0, &[window("5h", 70.0, None)]);
        assert!(endless.outlook(STALE_MS - 1).left.is_some());
        assert_eq!(endless.outlook(STALE_MS).left, None);
        let overdrawn = known(0, &[window("5h", 104.0, Some(HOUR))]);
        assert_eq!(overdrawn.outlook(1).left, Some(0.0));
    }

    #[test]
    fn a_percent_or_another_start_is_news_but_not_each_answer() {
        let old = known(0, &[window("5h", 10.0, Some(HOUR))]);
        let news = |at, percent, resets_at| {
            old.is_news(&known(at, &[window("5h", percent, Some(resets_at))]))
        };
        assert!(!news(PAUSE_MS, 10.9, HOUR + RESET_MOVED_MS - 1));
        assert!(news(PAUSE_MS, 11.0, HOUR));
        assert!(news(PAUSE_MS, 9.0, HOUR));
        assert!(news(PAUSE_MS, 10.0, HOUR + RESET_MOVED_MS));
        assert!(!news(PAUSE_MS - 1, 50.0, HOUR), "too soon");
        assert!(news(1, 100.0, HOUR), "an end is news at once");
        assert!(!news(0, 100.0, HOUR), "what is older is none");
        assert!(old.is_news(&known(PAUSE_MS, &[window("7d", 1.0, None)])));
    }

    #[test]
    fn a_window_that_is_left_out_stays_while_it_runs() {
        let old = known(
            0,
            &[
                window("5h", 10.0, Some(HOUR)),
                window("7d_oi", 20.0, Some(9 * HOUR)),
                window("odd", 1.0, None),
            ],
        );
        let merged = old.merged(&known(2 * HOUR, &[window("7d", 3.0, Some(8 * HOUR))]));
        let names: Vec<_> = merged.windows.iter().map(|w| w.name.as_str()).collect();
        assert_eq!((names, merged.at), (vec!["7d", "7d_oi"], 2 * HOUR));
    }

    #[test]
    fn quotas_survive_shared_data_in_bounded_room() {
        let mut bucket = Bucket::new();
        let id = |n: usize| Id::try_from(format!("acc_{n}")).unwrap();
        for n in 0..=MAX_BUCKET_ACCOUNTS {
            put(
                &mut bucket,
                &id(n),
                known(1 + n as u64, &[window("5h", 1.5, Some(7))]),
            );
        }
        assert_eq!(bucket.len(), MAX_BUCKET_ACCOUNTS);
        assert!(!bucket.contains_key(&id(0)), "the oldest makes room");
        assert_eq!(decode(&encode(&bucket)), bucket);
        assert_eq!(decode(b"{"), Bucket::new());

        let mut quotas = Quotas::new();
        let account = id(7);
        assert_eq!(quotas.of(&account), None);
        quotas.replace(bucket_of(&account), bucket);
        assert!(quotas.of(&account).is_some());

        let (old, mut index) = (QuotaVersions::default(), QuotaVersions::default());
        index.count(3);
        assert_eq!(index.moved(&old).collect::<Vec<_>>(), [3]);
        assert_eq!(QuotaVersions::decode(&index.encode()), index);
        assert_eq!(QuotaVersions::decode(b"short"), old);
    }
}
