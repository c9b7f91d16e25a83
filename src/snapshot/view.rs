//! The parsed copy of the snapshot that one VM has.

use std::rc::Rc;

use super::{
    Account, ClientKey, Doors, KeyHash, Kind, Platform, Pool, Record,
    bucket::{BUCKETS, Bucket},
};
use crate::{header::HeaderName, id::Id, known::Known};

/// The parsed snapshot, indexed for requests.
#[derive(Debug)]
pub struct View {
    /// The doors; none before the refresher has told them.
    doors: Option<Doors>,
    /// The headers that some platform sets to what is an account's own, and that none lets through.
    account_headers: Vec<HeaderName>,
    platforms: Known<Id, Rc<Platform>>,
    accounts: Known<Id, Rc<Account>>,
    pools: Known<Id, Rc<Pool>>,
    keys: Known<KeyHash, ClientKey>,
    /// Their hashes, by id.
    key_hashes: Known<Id, KeyHash>,
    /// The number of keys that have limits.
    limited_keys: usize,
    /// The number of accounts that have limits.
    limited_accounts: usize,
    /// The records of each bucket, so that its next content replaces them.
    contents: Vec<Vec<Held>>,
    version: u64,
}

/// The place of a record of a bucket.
#[derive(Debug)]
enum Held {
    Doors,
    Platform(Id),
    Account(Id),
    Pool(Id),
    Key(KeyHash),
}

// === impl View ===

impl View {
    /// Counts the changes; tables made from the view are stale when it moved.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the doors; none before the refresher has told them.
    pub fn doors(&self) -> Option<&Doors> {
        self.doors.as_ref()
    }

    /// Returns true if the header `name` is an account's alone: some platform sets it to what is the
    /// account's own, and none takes it from callers.
    pub fn is_accounts(&self, name: &str) -> bool {
        self.account_headers.iter().any(|set| set.as_str() == name)
    }

    /// The client key with this hash.
    pub fn key(&self, hash: &KeyHash) -> Option<&ClientKey> {
        self.keys.get(hash)
    }

    /// The client key of this id.
    pub fn key_of(&self, id: &Id) -> Option<&ClientKey> {
        self.keys.get(self.key_hashes.get(id)?)
    }

    /// The client key of this id, if it has limits.
    pub fn limited_key(&self, id: &Id) -> Option<&ClientKey> {
        self.key_of(id).filter(|key| !key.limits.is_none())
    }

    /// Returns true if any key or account has limits.
    pub fn has_limits(&self) -> bool {
        self.limited_keys > 0 || self.limited_accounts > 0
    }

    /// The pool of this id.
    pub fn pool(&self, id: &Id) -> Option<&Rc<Pool>> {
        self.pools.get(id)
    }

    /// The account of this id.
    pub fn account(&self, id: &str) -> Option<&Rc<Account>> {
        self.accounts.get(id)
    }

    /// The platform of this id.
    pub fn platform(&self, id: &Id) -> Option<&Rc<Platform>> {
        self.platforms.get(id)
    }

    /// Every platform, in no order.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.platforms.values().map(Rc::as_ref)
    }

    /// Takes `bucket` as the content of bucket `number`. A record that does not parse is not there:
    /// what was held of it is out of date.
    pub fn replace(&mut self, number: usize, bucket: &Bucket<'_>) {
        let records = bucket
            .records()
            .filter_map(|line| Record::from_line(line).ok());
        let Some(content) = self.contents.get_mut(number) else {
            return;
        };
        for held in content.drain(..) {
            match held {
                Held::Doors => self.doors = None,
                Held::Platform(id) => drop(self.platforms.remove(&id)),
                Held::Account(id) => {
                    let old = self.accounts.remove(&id);
                    let was_limited = old.is_some_and(|old| !old.limits.is_none());
                    self.limited_accounts = self
                        .limited_accounts
                        .saturating_sub(usize::from(was_limited));
                }
                Held::Pool(id) => drop(self.pools.remove(&id)),
                Held::Key(hash) => {
                    if let Some(old) = self.keys.remove(&hash) {
                        self.key_hashes.remove(&old.id);
                        let was_limited = usize::from(!old.limits.is_none());
                        self.limited_keys = self.limited_keys.saturating_sub(was_limited);
                    }
                }
            }
        }
        for record in records {
            content.push(match record {
                Record::Doors(doors) => {
                    self.doors = Some(doors);
                    Held::Doors
                }
                Record::Platform(platform) => {
                    let id = platform.id.clone();
                    self.platforms.insert(id.clone(), Rc::new(platform));
                    Held::Platform(id)
                }
                Record::Account(account) => {
                    let id = account.id.clone();
                    let is_limited = usize::from(!account.limits.is_none());
                    self.limited_accounts = self.limited_accounts.saturating_add(is_limited);
                    self.accounts.insert(id.clone(), Rc::new(account));
                    Held::Account(id)
                }
                Record::Pool(pool) => {
                    let id = pool.id.clone();
                    self.pools.insert(id.clone(), Rc::new(pool));
                    Held::Pool(id)
                }
                Record::Key(key) => {
                    let hash = key.sha256;
                    let is_limited = usize::from(!key.limits.is_none());
                    self.limited_keys = self.limited_keys.saturating_add(is_limited);
                    self.key_hashes.insert(key.id.clone(), hash);
                    self.keys.insert(hash, key);
                    Held::Key(hash)
                }
                // A bucket holds what is, not what is gone, and health has a place of its own.
                Record::Health(_) | Record::Removed(_) => continue,
            });
        }
        self.note_account_headers();
        self.version = self.version.wrapping_add(1);
    }

    fn note_account_headers(&mut self) {
        let plans = || self.platforms.values().map(|platform| &platform.headers);
        let is_let_through = |name: &HeaderName| {
            let mut allowed = plans().flat_map(|plan| &plan.allow);
            allowed.any(|pattern| pattern.matches(name.as_str()))
        };
        let mut names: Vec<HeaderName> = plans()
            .flat_map(|plan| &plan.set)
            .filter(|(name, template)| template.is_accounts() && !is_let_through(name))
            .map(|(name, _)| name.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        self.account_headers = names;
    }

    /// Counts its records of `kind`.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Doors => usize::from(self.doors.is_some()),
            Kind::Platform => self.platforms.len(),
            Kind::Account => self.accounts.len(),
            Kind::Pool => self.pools.len(),
            Kind::Key => self.keys.len(),
            Kind::Health => 0,
        }
    }
}

impl Default for View {
    fn default() -> Self {
        Self {
            doors: None,
            account_headers: Vec::new(),
            platforms: Known::default(),
            accounts: Known::default(),
            pools: Known::default(),
            keys: Known::default(),
            key_hashes: Known::default(),
            limited_keys: 0,
            limited_accounts: 0,
            contents: std::iter::repeat_with(Vec::new).take(BUCKETS).collect(),
            version: 0,
        }
    }
}

#[cfg(test)]
impl View {
    /// A view of these records and the [doors](super::fixture::doors) of the fixture, for tests.
    pub(crate) fn of(records: &[Record]) -> Self {
        let doors = [Record::Doors(super::fixture::doors())];
        let records: Vec<&Record> = doors.iter().chain(records).collect();
        let lines: Vec<_> = records.iter().map(|r| r.to_line().unwrap()).collect();
        let mut view = Self::default();
        for number in 0..BUCKETS {
            let mut bucket = Bucket::default();
            for (record, line) in records.iter().zip(&lines) {
                let (kind, id) = record.key();
                if super::bucket::bucket_of(kind, id) == number {
                    bucket.apply(record, line.as_bytes()).unwrap();
                }
            }
            view.replace(number, &bucket);
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Policy, fixture};

    #[test]
    fn a_bucket_replaces_what_it_held() {
        let key = Record::Key(fixture::client_key("key_1", b"old", "default"));
        let account = Record::Account(fixture::account("acc_1", "codex"));
        let pool = Record::Pool(fixture::pool("default", Policy::Sticky, &["acc_1"]));
        let mut view = View::of(&[key, account, pool]);
        assert!(view.key(&KeyHash::of(b"old")).is_some());

        let rotated = Record::Key(fixture::client_key("key_1", b"new", "default"));
        let line = rotated.to_line().unwrap();
        let mut bucket = Bucket::default();
        bucket.apply(&rotated, line.as_bytes()).unwrap();
        let (kind, id) = rotated.key();
        view.replace(super::super::bucket::bucket_of(kind, id), &bucket);
        assert!(view.key(&KeyHash::of(b"old")).is_none());
        assert!(view.key(&KeyHash::of(b"new")).is_some());
        assert!(view.account("acc_1").is_some());
    }

    #[test]
    fn a_record_that_cannot_be_read_is_gone() {
        let account = Record::Account(fixture::account("acc_1", "codex"));
        let (kind, id) = account.key();
        let number = super::super::bucket::bucket_of(kind, id);
        let mut view = View::of(std::slice::from_ref(&account));
        let other = Record::Pool(fixture::pool("other", Policy::Sticky, &["acc_1"]));
        let line = other.to_line().unwrap();
        let mut bucket = Bucket::decode(b"aacc_1 {\"account\":{}}\n").unwrap();
        bucket.apply(&other, line.as_bytes()).unwrap();
        view.replace(number, &bucket);
        assert!(view.account("acc_1").is_none());
        assert_eq!(view.count(Kind::Pool), 1, "what stands beside it is read");
    }
}
