//! Keeps what is known of quotas in shared data, and says what of it the refresher is to hear.

use std::collections::HashMap;

use super::{board::update_head, report::Report};
use crate::{
    deadline::Deadline,
    health::quota::{
        BUCKETS, KnownQuota, PAUSE_MS, QuotaVersions, Quotas, bucket_of, decode, encode, put,
    },
    host::{Changed, SharedData, shared_key},
    id::Id,
    known,
    snapshot::Health,
};

/// The key of the [`QuotaVersions`].
const INDEX_KEY: &str = shared_key!("quota");

/// The shortest time between two reports of one account's quota, in milliseconds.
pub const REPORT_MS: u64 = 10_000;

/// The key of bucket `number`.
fn key(number: usize) -> String {
    format!(shared_key!("quota/{}"), number)
}

/// Makes the keys where they are not there yet, so that swaps are safe.
pub fn prepare(shared: &mut impl SharedData) {
    if shared.read(INDEX_KEY).is_some() {
        return;
    }
    for number in 0..BUCKETS {
        shared.write(&key(number), b"{}");
    }
    shared.write(INDEX_KEY, &QuotaVersions::default().encode());
}

/// Notes what an answer reported of `account`, where it is news; whether it was.
pub fn note(shared: &mut impl SharedData, account: &Id, known: &KnownQuota) -> bool {
    change(shared, bucket_of(account), |held| {
        let old = held.get(account).cloned().unwrap_or_default();
        let is_news = old.is_news(known);
        if is_news {
            put(held, account, old.merged(known));
        }
        is_news
    })
}

/// Merges the refresher's quotas: newer values win, values from before a reset are dropped.
pub fn take<'a>(shared: &mut impl SharedData, health: impl Iterator<Item = &'a Health>) {
    let mut buckets: HashMap<usize, Vec<&Health>> = HashMap::new();
    for one in health {
        buckets.entry(bucket_of(&one.id)).or_default().push(one);
    }
    for (number, news) in buckets {
        change(shared, number, |held| {
            let mut changed = false;
            for health in &news {
                let at = held.get(&health.id).map_or(0, |known| known.at);
                let theirs = if health.windows_at > health.reset_at {
                    KnownQuota::new(health.windows.clone(), health.windows_at)
                } else {
                    KnownQuota::new(Vec::new(), health.reset_at)
                };
                if theirs.at > at {
                    put(held, &health.id, theirs);
                    changed = true;
                }
            }
            changed
        });
    }
}

/// Brings `quotas` from the state `seen` of the buckets to the present one.
pub fn follow(shared: &impl SharedData, seen: &mut QuotaVersions, quotas: &mut Quotas) {
    let Some((bytes, _)) = shared.read(INDEX_KEY) else {
        return;
    };
    let index = QuotaVersions::decode(&bytes);
    for number in index.moved(seen) {
        if let Some((bytes, _)) = shared.read(&key(number)) {
            quotas.replace(number, decode(&bytes));
        }
    }
    *seen = index;
}

/// Changes one bucket, then counts that, then lets the head tell every VM: who reads in between
/// reads the bucket again.
fn change(
    shared: &mut impl SharedData,
    number: usize,
    mut change: impl FnMut(&mut crate::health::quota::Bucket) -> bool,
) -> bool {
    let changed = shared.update(&key(number), |bytes| {
        let mut held = decode(&bytes);
        change(&mut held).then(|| encode(&held))
    });
    changed == Changed::Done
        && count(shared, number)
        && update_head(shared, |head| head.quotas = head.quotas.wrapping_add(1))
}

fn count(shared: &mut impl SharedData, number: usize) -> bool {
    let changed = shared.update(INDEX_KEY, |bytes| {
        let mut index = QuotaVersions::decode(&bytes);
        index.count(number);
        Some(index.encode())
    });
    changed == Changed::Done
}

/// The times at which this VM next looks at the headers of each account's good answers: reading
/// them costs more than each of them tells.
#[derive(Debug, Default)]
pub struct Looks(known::Known<Id, Deadline>);

/// The most accounts that [`Looks`] remembers; it then forgets all, and looks once more.
const MAX_LOOKS: usize = 4_096;

// === impl Looks ===

impl Looks {
    /// Returns true if an answer of `account` has to be looked at now, and notes that it is.
    pub fn is_due(&mut self, account: &Id, now: u64) -> bool {
        if self.0.get(account).is_some_and(|next| !next.is_due(now)) {
            return false;
        }
        if self.0.len() >= MAX_LOOKS {
            self.0.clear();
        }
        self.0
            .insert(account.clone(), Deadline::after(now, PAUSE_MS));
        true
    }
}

/// The refresher's knowledge of each account's quota, as far as this VM knows. A VM that has
/// just begun to poll knows of nothing and tells all of it once, which changes nothing there.
#[derive(Debug, Default)]
pub struct Told {
    /// The times at which the platform reported what it heard, and at which that was sent.
    accounts: HashMap<Id, (u64, u64)>,
}

// === impl Told ===

impl Told {
    /// Notes what the refresher itself says.
    pub fn hear(&mut self, health: &Health) {
        self.note(&health.id, health.windows_at.max(health.reset_at), 0);
    }

    /// Gives what the refresher has not heard to `push`, which says whether it has a place: of
    /// each account not more often than once in [`REPORT_MS`].
    pub fn tell(&mut self, quotas: &Quotas, now: u64, mut push: impl FnMut(Report) -> bool) {
        for (account, known) in quotas.iter() {
            let (at, sent) = self.accounts.get(account).copied().unwrap_or_default();
            let is_due = Deadline::after(sent, REPORT_MS).is_due(now);
            if known.at <= at || known.windows.is_empty() || !is_due {
                continue;
            }
            let report = Report::Quota {
                account: account.clone(),
                windows: known.windows.clone(),
                at: known.at,
            };
            if !push(report) {
                return;
            }
            self.note(account, known.at, now);
        }
    }

    fn note(&mut self, account: &Id, at: u64, sent: u64) {
        // As many as the buckets hold; a VM that loses count tells again.
        let most = BUCKETS.saturating_mul(crate::health::quota::MAX_BUCKET_ACCOUNTS);
        if self.accounts.len() >= most && !self.accounts.contains_key(account) {
            self.accounts.clear();
        }
        let told = self.accounts.entry(account.clone()).or_default();
        *told = (at.max(told.0), sent.max(told.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::fake::FakeSharedData, verdict::quota::Window};

    fn id(name: &str) -> Id {
        Id::try_from(name).unwrap()
    }

    fn known(at: u64, used_percent: f64) -> KnownQuota {
        let window = Window {
            name: "5h".try_into().unwrap(),
            used_percent,
            resets_at: Some(1_000_000),
            exhausted: false,
        };
        KnownQuota::new(vec![window], at)
    }

    fn health(name: &str, windows_at: u64, used_percent: f64, reset_at: u64) -> Health {
        Health {
            id: id(name),
            entries: Vec::new(),
            windows: known(windows_at, used_percent).windows,
            windows_at,
            reset_at,
            alive_at: 0,
        }
    }

    fn prepared() -> FakeSharedData {
        let mut shared = FakeSharedData::default();
        super::super::board::prepare(&mut shared);
        prepare(&mut shared);
        shared
    }

    #[test]
    fn news_reach_every_vm_and_what_is_none_is_not_written() {
        let mut shared = prepared();
        let (mut seen, mut quotas) = (QuotaVersions::default(), Quotas::new());
        assert!(note(&mut shared, &id("acc_1"), &known(5_000, 10.0)));
        assert!(!note(&mut shared, &id("acc_1"), &known(9_000, 10.5)));
        follow(&shared, &mut seen, &mut quotas);
        assert_eq!(quotas.of(&id("acc_1")), Some(&known(5_000, 10.0)));
        assert!(note(&mut shared, &id("acc_1"), &known(9_000, 12.0)));
        follow(&shared, &mut seen, &mut quotas);
        assert_eq!(quotas.of(&id("acc_1")), Some(&known(9_000, 12.0)));
    }

    #[test]
    fn not_every_answer_is_looked_at() {
        let mut looks = Looks::default();
        let mut due = |name, now| looks.is_due(&id(name), now);
        assert!(due("acc_1", 5_000));
        assert!(!due("acc_1", 5_000 + PAUSE_MS - 1));
        assert!(due("acc_2", 5_001));
        assert!(due("acc_1", 5_000 + PAUSE_MS));
        assert!(due("acc_1", 1), "the clock was set back");
        for n in 0..2 * MAX_LOOKS {
            looks.is_due(&id(&format!("acc_{n}")), 9_000);
        }
        assert!(looks.0.len() <= MAX_LOOKS);
    }

    #[test]
    fn the_later_of_two_wins_and_a_reset_forgets() {
        let mut shared = prepared();
        let (mut seen, mut quotas) = (QuotaVersions::default(), Quotas::new());
        let mut after = |shared: &mut FakeSharedData, news: Health| {
            take(shared, [news].iter());
            follow(shared, &mut seen, &mut quotas);
            quotas.of(&id("acc_1")).map(|known| known.at)
        };
        assert_eq!(after(&mut shared, health("acc_1", 50, 1.0, 0)), Some(50));
        assert_eq!(after(&mut shared, health("acc_1", 40, 9.0, 0)), Some(50));
        assert_eq!(after(&mut shared, health("acc_1", 50, 1.0, 70)), Some(70));
        assert_eq!(
            quotas.of(&id("acc_1")),
            Some(&KnownQuota::new(Vec::new(), 70))
        );
    }

    #[test]
    fn the_refresher_hears_of_an_account_once_in_a_while() {
        let mut quotas = Quotas::new();
        let set = |quotas: &mut Quotas, known| {
            let bucket = [(id("acc_1"), known)].into();
            quotas.replace(bucket_of(&id("acc_1")), bucket);
        };
        set(&mut quotas, known(100, 1.0));
        let mut told = Told::default();
        let count = |told: &mut Told, quotas: &Quotas, now| {
            let mut count = 0;
            told.tell(quotas, now, |_| {
                count += 1;
                true
            });
            count
        };
        told.tell(&quotas, 20_000, |_| false);
        assert_eq!(count(&mut told, &quotas, 20_000), 1, "there was no place");
        assert_eq!(count(&mut told, &quotas, 40_000), 0);
        set(&mut quotas, known(41_000, 5.0));
        assert_eq!(count(&mut told, &quotas, 41_000), 1);
        set(&mut quotas, known(42_000, 9.0));
        assert_eq!(count(&mut told, &quotas, 50_999), 0);
        assert_eq!(count(&mut told, &quotas, 51_000), 1);
        set(&mut quotas, known(60_000, 19.0));
        told.hear(&health("acc_1", 60_000, 19.0, 0));
        assert_eq!(count(&mut told, &quotas, 90_000), 0, "it says so itself");
    }
}
