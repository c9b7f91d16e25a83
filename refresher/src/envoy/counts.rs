//! Adds up what the Envoys count of limits (`POST /counts`): each is told what the others used.
//!
//! Minutes and streams are kept in memory; days are in the store before an Envoy is answered, so that neither a restart
//! of the refresher nor one of Envoy gives a day's budget anew. Counts are cumulative within their window, so a message
//! that comes twice, late or never does no harm.

use std::collections::HashMap;

use latchkey::id::is_hex_name;
use latchkey::limit::settle::{Counts, Line, MAX_LINES, Others, Said, Span};
use latchkey::limit::{DAY_MS, MINUTE_MS, Subject, Used};

use crate::day::{Day, Zone};
use crate::store::{self, DayCount, Store};

/// The most Envoy processes that are told apart for one subject. When one more comes, the one that was silent for longest
/// is added to [`EARLIER`].
const MAX_INSTANCES: usize = 64;
/// The time for which the streams of a silent Envoy count. Envoys report every second.
const STREAMS_MS: u64 = 30_000;
/// The time for which a day is kept after its start: into the second day after it in every zone.
const KEEP_MS: u64 = 4 * DAY_MS;
/// The instance that has the sums of the processes that are told apart no more.
const EARLIER: &str = "";

/// The reason why counts were not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Counts that no Envoy sends.
    #[error("expected counts of at most {MAX_LINES} subjects from an instance of 32 hex digits")]
    Malformed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The sums, for as long as the process lives.
#[derive(Debug)]
pub struct LimitSums {
    store: Store,
    /// The state of the store that `subjects` follows; 0 for none, as a store's own begin at 1.
    revision: u64,
    subjects: HashMap<Subject, Entry>,
}

/// One subject that has limits.
#[derive(Debug)]
struct Entry {
    zone: Zone,
    day: Day,
    instances: HashMap<String, Instance>,
}

/// One Envoy process's use of it.
#[derive(Debug, Clone, Copy, Default)]
struct Instance {
    /// The time of its last report, in Unix milliseconds; 0 if there was none since the refresher started.
    heard_at: u64,
    minute: Span,
    streams: u64,
    day: Used,
    /// The part of `day` that is in the store.
    kept: Used,
}

impl LimitSums {
    /// Makes the sums over this store, which begin with the days that it keeps.
    pub fn new(store: Store) -> LimitSums {
        LimitSums {
            store,
            revision: 0,
            subjects: HashMap::new(),
        }
    }

    /// Adds an Envoy's counts. Returns the sums of all other Envoys for the same limits.
    ///
    /// # Errors
    /// If it is malformed or the store fails. The Envoy sends it again then.
    pub async fn take(&mut self, counts: &Counts, now: u64) -> Result<Others, Error> {
        if !is_hex_name(&counts.instance) || counts.subjects.len() > MAX_LINES {
            return Err(Error::Malformed);
        }
        self.follow(now).await?;
        let mut changed = Vec::new();
        for Line { subject, said } in &counts.subjects {
            if let Some(entry) = self.subjects.get_mut(subject) {
                entry.roll(now);
                entry.make_room(subject, &counts.instance, &mut changed);
                entry.hear(&counts.instance, said, now);
                changed.extend(entry.unkept(subject, &counts.instance));
            }
        }
        if !changed.is_empty() {
            self.store
                .keep_day_counts(&changed, now.saturating_sub(KEEP_MS))
                .await?;
        }
        let mut others = Others::default();
        for line in &counts.subjects {
            let Some(entry) = self.subjects.get_mut(&line.subject) else {
                continue;
            };
            if let Some(instance) = entry.instances.get_mut(&counts.instance) {
                instance.kept = instance.day;
            }
            others.subjects.push(Line {
                subject: line.subject.clone(),
                said: entry.sum(&counts.instance, line.said.minute.start, now),
            });
        }
        Ok(others)
    }

    /// The use of everything that has limits, now.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn all(&mut self, now: u64) -> Result<Others, store::Error> {
        self.follow(now).await?;
        let minute = now - now % MINUTE_MS;
        let mut subjects: Vec<Line> = self
            .subjects
            .iter_mut()
            .map(|(subject, entry)| {
                entry.roll(now);
                Line {
                    subject: subject.clone(),
                    said: entry.sum("-", minute, now),
                }
            })
            .collect();
        subjects.sort_by(|one, other| one.subject.cmp(&other.subject));
        Ok(Others { subjects })
    }

    /// Takes over what the operator changed.
    async fn follow(&mut self, now: u64) -> Result<(), store::Error> {
        let (_, revision) = self.store.head().await?;
        if revision == self.revision {
            return Ok(());
        }
        let limited = self.store.limited().await?;
        // Read before anything is changed here: who asks may go away meanwhile, or the store may fail.
        let knows = |(subject, _): &(Subject, _)| self.subjects.contains_key(subject);
        let counts = match limited.iter().all(knows) {
            true => Vec::new(),
            false => self.store.day_counts().await?,
        };
        let mut old = std::mem::take(&mut self.subjects);
        let mut moved = Vec::new();
        for (subject, settings) in limited {
            let zone = Zone::of(settings.time_zone.as_deref(), settings.day_starts);
            let entry = match old.remove(&subject) {
                Some(entry) if entry.zone == zone => entry,
                Some(entry) => {
                    let before = entry.rows(&subject, false);
                    let entry = entry.moved_to(zone, now);
                    moved.extend(before);
                    moved.extend(entry.rows(&subject, true));
                    entry
                }
                None => Entry::new(zone, now),
            };
            self.subjects.insert(subject, entry);
        }
        let (own, foreign): (Vec<DayCount>, Vec<DayCount>) =
            counts.into_iter().partition(|count| {
                let entry = self.subjects.get(&count.subject);
                entry.is_none_or(|entry| entry.has(count.day))
            });
        for count in own {
            if let Some(entry) = self.subjects.get_mut(&count.subject) {
                entry.recall(count);
            }
        }
        for count in foreign {
            if let Some(entry) = self.subjects.get_mut(&count.subject) {
                moved.extend(entry.recall_moved(count, now));
            }
        }
        if !moved.is_empty() {
            let oldest = now.saturating_sub(KEEP_MS);
            self.store.keep_day_counts(&moved, oldest).await?;
        }
        self.revision = revision;
        Ok(())
    }
}

impl Entry {
    fn new(zone: Zone, now: u64) -> Entry {
        Entry {
            day: zone.day_at(now),
            zone,
            instances: HashMap::new(),
        }
    }

    /// The same with another zone: what was used today was used today, whenever the day began.
    fn moved_to(mut self, zone: Zone, now: u64) -> Entry {
        self.roll(now);
        self.day = zone.day_at(now);
        self.zone = zone;
        self
    }

    /// The rows of today's use, by each instance: to be kept, or to be forgotten.
    fn rows(&self, subject: &Subject, kept: bool) -> Vec<DayCount> {
        let count = |(name, instance): (&String, &Instance)| DayCount {
            subject: subject.clone(),
            day: self.day,
            instance: name.clone(),
            used: kept.then_some(instance.day),
        };
        self.instances.iter().map(count).collect()
    }

    /// Returns true if it is one of its zone's days.
    fn has(&self, day: Day) -> bool {
        self.zone.day_at(day.start) == day
    }

    /// Begins the next day when this one has ended. A clock set back begins none.
    fn roll(&mut self, now: u64) {
        if now >= self.day.end || now.saturating_add(2 * DAY_MS) < self.day.start {
            self.day = self.zone.day_at(now);
            self.instances.remove(EARLIER);
            for instance in self.instances.values_mut() {
                instance.day = Used::default();
                instance.kept = Used::default();
            }
        }
    }

    /// Takes back what the store kept, where it is of today.
    fn recall(&mut self, count: DayCount) {
        let known = self.instances.contains_key(&count.instance);
        if let Some(used) = count.used
            && count.day == self.day
            && !known
        {
            let instance = Instance {
                day: used,
                kept: used,
                ..Instance::default()
            };
            self.instances.insert(count.instance, instance);
        }
    }

    /// Takes back what the store kept of another zone's day, if that is not over: the zone was changed while nobody
    /// counted, as in a profile between two runs. What is to be kept of it is returned. A move forgets the rows of the zone
    /// before, so there are none of a day that was carried over once.
    fn recall_moved(&mut self, count: DayCount, now: u64) -> Vec<DayCount> {
        let Day { start, end } = count.day;
        let is_over = now < start || now >= end;
        let Some(used) = count.used.filter(|_| !is_over) else {
            return Vec::new();
        };
        let instance = self.instances.entry(count.instance.clone()).or_default();
        instance.day = instance.day.max(used);
        instance.kept = instance.day;
        let after = DayCount {
            day: self.day,
            used: Some(instance.day),
            ..count.clone()
        };
        let before = DayCount {
            used: None,
            ..count
        };
        vec![before, after]
    }

    /// Makes room for one more instance, if it is one.
    fn make_room(&mut self, subject: &Subject, new: &str, changed: &mut Vec<DayCount>) {
        if self.instances.contains_key(new) || self.instances.len() < MAX_INSTANCES {
            return;
        }
        let silent = self
            .instances
            .iter()
            .filter(|(name, _)| *name != EARLIER)
            .min_by_key(|(_, instance)| instance.heard_at)
            .map(|(name, _)| name.clone());
        let Some((name, gone)) = silent.and_then(|name| self.instances.remove_entry(&name)) else {
            return;
        };
        let earlier = self.instances.entry(EARLIER.to_owned()).or_default();
        earlier.day = earlier.day.plus(gone.day);
        let count = |instance: &str, used| DayCount {
            subject: subject.clone(),
            day: self.day,
            instance: instance.to_owned(),
            used,
        };
        let (earlier, day) = (earlier.day, gone.day);
        if day != Used::default() {
            changed.push(count(EARLIER, Some(earlier)));
        }
        if gone.kept != Used::default() {
            changed.push(count(&name, None));
        }
    }

    fn hear(&mut self, name: &str, said: &Said, now: u64) {
        let today = said.day.start <= now && now < said.day.end;
        let instance = self.instances.entry(name.to_owned()).or_default();
        instance.heard_at = now;
        instance.streams = said.streams;
        if said.minute.start > instance.minute.start {
            instance.minute = said.minute;
        } else if said.minute.start == instance.minute.start {
            let used = instance.minute.used().max(said.minute.used());
            (instance.minute.requests, instance.minute.tokens) = (used.requests, used.tokens);
        }
        // An Envoy that does not know the zone yet tells of a day of UTC; one whose day is over tells of no more.
        if today {
            instance.day = instance.day.max(said.day.used());
        }
    }

    fn unkept(&self, subject: &Subject, name: &str) -> Option<DayCount> {
        let instance = self.instances.get(name)?;
        (instance.day != instance.kept).then(|| DayCount {
            subject: subject.clone(),
            day: self.day,
            instance: name.to_owned(),
            used: Some(instance.day),
        })
    }

    /// The use of everybody but `except` in the minute that starts at `minute`.
    fn sum(&self, except: &str, minute: u64, now: u64) -> Said {
        let mut said = Said {
            minute: Span {
                start: minute,
                end: minute.saturating_add(MINUTE_MS),
                ..Span::default()
            },
            day: Span {
                start: self.day.start,
                end: self.day.end,
                ..Span::default()
            },
            streams: 0,
        };
        let others = self.instances.iter().filter(|(name, _)| *name != except);
        for (_, instance) in others {
            if instance.minute.start == minute {
                add(&mut said.minute, instance.minute.used());
            }
            add(&mut said.day, instance.day);
            if now.saturating_sub(instance.heard_at) < STREAMS_MS {
                said.streams = said.streams.saturating_add(instance.streams);
            }
        }
        said
    }
}

fn add(to: &mut Span, used: Used) {
    let sum = to.used().plus(used);
    (to.requests, to.tokens) = (sum.requests, sum.tokens);
}

#[cfg(test)]
mod tests;
