//! What one VM keeps of limits: the streams that it holds, and the accounts that it found full.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    Counters, Full, FullAccounts, Limited, Limits, Reached, Subject,
    settle::STALE_MS,
    table::{self, Changed},
};
use crate::{
    attempt::passage::Pass,
    host::SharedData,
    id::Id,
    snapshot::{Account, View},
};

/// How often a VM renews its share of a subject's streams, in milliseconds: several times in a
/// lease.
pub const RENEW_MS: u64 = 5_000;

/// How long an account whose streams are all in use is passed over without another look, in
/// milliseconds.
const STREAMS_LOOK_MS: u64 = 100;

/// How often a subject that refuses requests is touched, in milliseconds, so that what the others
/// do with it stays known.
const TOUCH_MS: u64 = 500;

/// One VM's part in keeping limits.
#[derive(Debug, Default)]
pub struct Limiter {
    pub(super) vm: u64,
    pub(super) full: FullAccounts,
    /// Of the snapshot that `full` is about.
    version: u64,
    /// By the gate's context.
    held: HashMap<u32, Held>,
    streams: HashMap<Subject, Streams>,
    ticks: u64,
}

/// The streams of one request.
#[derive(Debug, Default)]
struct Held {
    key: Option<Subject>,
    account: Option<Subject>,
    /// The request is to run again: what it holds is for its next pass.
    moves: bool,
    /// At which tick its context went.
    left: Option<u64>,
}

/// How many of this VM's requests hold a stream of one subject.
#[derive(Debug, Default)]
struct Streams {
    count: u64,
    /// When shared data was last told; none where it did not take it.
    told_at: Option<u64>,
}

/// Why a request is not let through.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Its key is at a limit.
    Key(Reached),
    /// The account is; another one may serve.
    Account,
    /// It is not known yet what the other Envoys used of one of them.
    Unknown,
    /// Other VMs change the key's counters all the time.
    Busy,
}

/// Why nothing was taken of a subject.
#[derive(Debug, PartialEq, Eq)]
enum NotTaken {
    /// It is at a limit.
    At(Reached),
    /// [`Denied::Unknown`]
    Unknown,
}

/// The subjects of a request that have limits.
pub fn limited(view: &View, key: &Id, account: Option<&Account>) -> Limited {
    let of_key = view.limited_key(key).map(|key| key.limits);
    let of_account = account.filter(|account| !account.limits.is_none());
    Limited {
        key: of_key.map(|limits| (Subject::key(key), limits)),
        account: of_account.map(|account| (Subject::account(&account.id), account.limits)),
    }
}

// === impl Denied ===

impl Denied {
    fn of_key(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::At(reached) => Self::Key(reached),
            NotTaken::Unknown => Self::Unknown,
        }
    }
}

// === impl Limiter ===

impl Limiter {
    /// That of the VM of this number, which no other VM of this Envoy has.
    pub fn new(vm: u64) -> Self {
        Self {
            vm,
            ..Self::default()
        }
    }

    /// The accounts at a limit, as far as this VM knows.
    pub fn full(&self) -> &FullAccounts {
        &self.full
    }

    /// Forgets which accounts are full where the snapshot moved: they may have other limits.
    pub(super) fn follow(&mut self, view: &View) {
        if self.version != view.version() {
            self.version = view.version();
            self.full = FullAccounts::new();
        }
    }

    /// Forgets the accounts that were full by their streams before this request came, as one may
    /// have ended since; whether there was one.
    pub(super) fn look_again(&mut self, fresh: &[Id]) -> bool {
        let before = self.full.0.len();
        self.full
            .0
            .retain(|id, full| !full.by_streams || fresh.contains(id));
        self.full.0.len() != before
    }

    /// Looks at the limits of a key before the body of its request is read, and takes the key's
    /// stream for the gate's context: the request is under way from now on. It is not counted
    /// before it is admitted.
    pub(super) fn enter(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        subject: &Subject,
        limits: &Limits,
        now: u64,
    ) -> Result<(), Denied> {
        let entered = if limits.concurrent_streams.is_some() {
            self.take(shared, subject, limits, 0, now)
        } else {
            look(shared, subject, limits, now).map_or_else(Changed::Refused, |()| Changed::Done)
        };
        match entered {
            Changed::Done if limits.concurrent_streams.is_some() => {
                self.held.entry(context).or_default().key = Some(subject.clone());
                Ok(())
            }
            // What is not known yet will be by the time that the body is there.
            Changed::Done | Changed::Refused(NotTaken::Unknown) => Ok(()),
            Changed::Refused(NotTaken::At(reached)) => Err(Denied::Key(reached)),
            Changed::Lost => Err(Denied::Busy),
        }
    }

    /// Counts a request at `now`, and takes those of its streams for the gate's context that it
    /// does not hold, or says who denies it. On a second pass the key has been counted already.
    pub(super) fn admit(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        limited: &Limited,
        second_pass: bool,
        now: u64,
    ) -> Result<(), Denied> {
        let key = limited.key.as_ref().filter(|_| !second_pass);
        let key =
            key.map(|(subject, limits)| (subject, self.yet_to_take(context, subject, limits)));
        // Whoever is over its limit asks again and again: that must not count at accounts.
        if let Some((subject, limits)) = &key
            && let Err(not_taken) = look(shared, subject, limits, now)
        {
            if let (NotTaken::Unknown, Some((account, limits))) = (&not_taken, &limited.account) {
                // Both are asked about at the same time.
                let _ = look(shared, account, limits, now);
            }
            return Err(Denied::of_key(not_taken));
        }
        if let Some((subject, limits)) = &limited.account {
            let full = match self.take(shared, subject, limits, 1, now) {
                Changed::Done => None,
                Changed::Refused(NotTaken::Unknown) => return Err(Denied::Unknown),
                Changed::Refused(NotTaken::At(reached)) => Some(reached.until),
                Changed::Lost => Some(None),
            };
            if let Some(until) = full {
                let full = Full {
                    until: until.unwrap_or(now.saturating_add(STREAMS_LOOK_MS)),
                    by_streams: until.is_none(),
                };
                self.full.put(subject.id.clone(), full);
                return Err(Denied::Account);
            }
        }
        if let Some((subject, limits)) = &key {
            let taken = self.take(shared, subject, limits, 1, now);
            if taken != Changed::Done {
                if let Some((account, limits)) = &limited.account {
                    self.give_back(shared, account, limits, now);
                }
                return Err(match taken {
                    Changed::Refused(not_taken) => Denied::of_key(not_taken),
                    _ => Denied::Busy,
                });
            }
        }
        let taken =
            |subject: &Subject, limits: &Limits| limits.concurrent_streams.map(|_| subject.clone());
        let account = limited.account.as_ref();
        let account = account.and_then(|(subject, limits)| taken(subject, limits));
        let key = key.and_then(|(subject, limits)| taken(subject, &limits));
        if key.is_some() || account.is_some() {
            let held = self.held.entry(context).or_default();
            held.account = account;
            held.key = key.or(held.key.take());
        }
        Ok(())
    }

    /// Counts tokens of a request that has ended.
    pub fn charge(
        &mut self,
        shared: &mut impl SharedData,
        limited: &Limited,
        tokens: u64,
        now: u64,
    ) {
        let subjects = [&limited.key, &limited.account];
        for (subject, _) in subjects.into_iter().flatten() {
            let _: Changed<()> = table::update(shared, subject, now, |counters| {
                counters.count_tokens(tokens);
                counters.touch(now);
                Ok(())
            });
        }
    }

    /// Whether a context's request holds a stream.
    #[cfg(test)]
    pub(super) fn holds(&self, context: u32) -> bool {
        self.held.contains_key(&context)
    }

    /// The request of this pass is to run again.
    pub fn moves(&mut self, pass: Pass) {
        if pass.vm == self.vm
            && let Some(held) = self.held.get_mut(&pass.context)
        {
            held.moves = true;
        }
    }

    /// Gives what the last pass held to the next one, but for the account's stream: that pass is
    /// over. Only what [`Self::moves`] was told of is given: the pass of another VM, or one
    /// that is long over, could have the number of another request's.
    pub(super) fn take_over(
        &mut self,
        shared: &mut impl SharedData,
        last_pass: Pass,
        context: u32,
        now: u64,
    ) {
        let mut held = match self.held.entry(last_pass.context) {
            Entry::Occupied(held) if last_pass.vm == self.vm && held.get().moves => held.remove(),
            _ => return,
        };
        if let Some(account) = held.account.take() {
            self.step(shared, &account, now, |count| count.saturating_sub(1));
        }
        held.moves = false;
        held.left = None;
        self.held.insert(context, held);
    }

    /// The context has gone: its request's streams are free, unless it runs again at once.
    pub fn release(&mut self, shared: &mut impl SharedData, context: u32, now: u64) {
        let Some(mut held) = self.held.remove(&context) else {
            return;
        };
        if held.moves {
            held.left = Some(self.ticks);
            self.held.insert(context, held);
            return;
        }
        for subject in [held.key, held.account].into_iter().flatten() {
            self.step(shared, &subject, now, |count| count.saturating_sub(1));
        }
    }

    /// Renews this VM's share of every subject's streams, and frees those of requests that were
    /// to run again and did not.
    pub fn tick(&mut self, shared: &mut impl SharedData, now: u64) {
        if self.held.is_empty() && self.streams.is_empty() && self.full.is_empty() {
            return;
        }
        self.full.0.retain(|_, full| now < full.until);
        self.ticks = self.ticks.wrapping_add(1);
        let ticks = self.ticks;
        let gone: Vec<u32> = self
            .held
            .iter()
            .filter(|(_, held)| held.left.is_some_and(|left| left.wrapping_add(1) < ticks))
            .map(|(context, _)| *context)
            .collect();
        for context in gone {
            if let Some(held) = self.held.get_mut(&context) {
                held.moves = false;
            }
            self.release(shared, context, now);
        }
        let due: Vec<Subject> = self
            .streams
            .iter()
            .filter(|(_, streams)| {
                // Told in the future: the clock was set back.
                let fresh = |at: u64| at <= now && now.saturating_sub(at) < RENEW_MS;
                !streams.told_at.is_some_and(fresh)
            })
            .map(|(subject, _)| subject.clone())
            .collect();
        for subject in due {
            self.step(shared, &subject, now, |count| count);
        }
    }

    /// The limits of a key, without that of streams where the context's request holds one.
    fn yet_to_take(&self, context: u32, key: &Subject, limits: &Limits) -> Limits {
        let held = self.held.get(&context).and_then(|held| held.key.as_ref());
        let concurrent_streams = limits.concurrent_streams.filter(|_| held != Some(key));
        Limits {
            concurrent_streams,
            ..*limits
        }
    }

    /// Counts so many requests of `subject`, and takes one more stream where that is limited.
    fn take(
        &mut self,
        shared: &mut impl SharedData,
        subject: &Subject,
        limits: &Limits,
        requests: u64,
        now: u64,
    ) -> Changed<NotTaken> {
        let streams = limits.concurrent_streams.map(|_| {
            let held = self.streams.get(subject);
            held.map_or(0, |held| held.count).saturating_add(1)
        });
        let (vm, mut stale) = (self.vm, false);
        let taken = table::update(shared, subject, now, |counters| {
            may_take(counters, limits, now)?;
            stale = now.saturating_sub(counters.settled_at) >= STALE_MS;
            counters.count_requests(requests);
            counters.touch(now);
            if let Some(streams) = streams {
                counters.lease(vm, streams, now);
            }
            Ok(())
        });
        match taken {
            Changed::Done => {
                if stale {
                    table::tell_news(shared);
                }
                if let Some(count) = streams {
                    let told_at = Some(now);
                    self.streams
                        .insert(subject.clone(), Streams { count, told_at });
                }
            }
            Changed::Refused(_) => drop(look(shared, subject, limits, now)),
            Changed::Lost => {}
        }
        taken
    }

    fn give_back(
        &mut self,
        shared: &mut impl SharedData,
        subject: &Subject,
        limits: &Limits,
        now: u64,
    ) {
        let _: Changed<()> = table::update(shared, subject, now, |counters| {
            counters.uncount_request();
            Ok(())
        });
        if limits.concurrent_streams.is_some() {
            self.step(shared, subject, now, |count| count.saturating_sub(1));
        }
    }

    /// Changes how many of this VM's requests hold a stream of `subject`, and tells shared data.
    fn step(
        &mut self,
        shared: &mut impl SharedData,
        subject: &Subject,
        now: u64,
        change: impl Fn(u64) -> u64,
    ) {
        let count = change(self.streams.get(subject).map_or(0, |held| held.count));
        let vm = self.vm;
        let told: Changed<()> = table::update(shared, subject, now, |counters| {
            counters.lease(vm, count, now);
            counters.touch(now);
            Ok(())
        });
        if count == 0 && told == Changed::Done {
            self.streams.remove(subject);
        } else {
            let told_at = (told == Changed::Done).then_some(now);
            self.streams
                .insert(subject.clone(), Streams { count, told_at });
        }
    }
}

fn may_take(counters: &Counters, limits: &Limits, now: u64) -> Result<(), NotTaken> {
    match counters.reached(limits) {
        Some(reached) => Err(NotTaken::At(reached)),
        None if !counters.is_known(now) => Err(NotTaken::Unknown),
        None => Ok(()),
    }
}

/// Whether something may be taken of a subject; if not, the refresher goes on being asked about it.
fn look(
    shared: &mut impl SharedData,
    subject: &Subject,
    limits: &Limits,
    now: u64,
) -> Result<(), NotTaken> {
    let counters = table::look(shared, subject, now);
    let may_take = may_take(&counters, limits, now);
    if may_take.is_err() && now.saturating_sub(counters.touched_at) >= TOUCH_MS {
        want(shared, subject, now);
    }
    may_take
}

/// Notes that a subject is wanted, and has the refresher asked at once where it is not known.
fn want(shared: &mut impl SharedData, subject: &Subject, now: u64) {
    let mut known = true;
    let _: Changed<()> = table::update(shared, subject, now, |counters| {
        counters.touch(now);
        known = counters.is_known(now);
        Ok(())
    });
    if !known {
        table::tell_news(shared);
    }
}
