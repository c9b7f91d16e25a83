//! What one VM keeps of limits: the streams that it holds, and the accounts that it found full.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    Counters, Full, FullAccounts, Limited, Limits, Reached, Subject,
    settle::STALE_MS,
    table::{self, Changed},
};
use crate::{
    host::SharedData,
    id::Id,
    request::carried::TryId,
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

/// How long a request that was let in at its headers is sent on without another look at its key's
/// limits, in milliseconds: whoever holds requests back must not send what was allowed in many
/// minutes in one.
pub(super) const LOOK_AGAIN_MS: u64 = 1_000;

/// One VM's part in keeping limits.
#[derive(Debug, Default)]
pub struct Limiter {
    pub(super) vm: u64,
    pub(crate) full: FullAccounts,
    /// Of the snapshot that `full` is about.
    version: u64,
    /// By the gate's context.
    requests: HashMap<u32, Request>,
    streams: HashMap<Subject, Streams>,
    ticks: u64,
}

/// A request whose key or account has limits.
#[derive(Debug, Default)]
struct Request {
    key: Option<Taken>,
    account: Option<Taken>,
    /// It is to run again: what it has taken is for its next pass.
    moves: bool,
    /// At which tick its context went.
    left: Option<u64>,
}

/// What a request has taken of a subject. What there is to say of it at the request's end is said
/// in one change.
#[derive(Debug, Clone)]
struct Taken {
    subject: Subject,
    /// Whether that is a stream.
    stream: bool,
    /// When it was counted, in Unix milliseconds and not before its minute, as long as it may still
    /// be refused: then it is to count no more.
    revocable: Option<u64>,
    /// The tokens that it has used.
    tokens: u64,
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
pub(crate) enum Denied {
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
    /// Other VMs change its counters all the time.
    Busy,
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
            NotTaken::Busy => Self::Busy,
        }
    }
}

// === impl Taken ===

impl Taken {
    /// Whether its request may be sent on at `now` without another look.
    fn is_fresh(&self, now: u64) -> bool {
        self.revocable
            .is_none_or(|at| now.abs_diff(at) < LOOK_AGAIN_MS)
    }

    /// The same, counted at `now` in place of then, where the limits still let it through.
    fn again(
        &self,
        shared: &mut impl SharedData,
        limits: &Limits,
        now: u64,
    ) -> Result<Self, NotTaken> {
        let mut taken = self.clone();
        let limits = Limits {
            concurrent_streams: limits.concurrent_streams.filter(|_| !self.stream),
            ..*limits
        };
        let changed = table::update(shared, &self.subject, now, |counters| {
            if let Some(at) = self.revocable {
                counters.uncount_request(at);
            }
            may_take(counters, &limits, now)?;
            counters.count_requests(1);
            counters.touch(now);
            taken.revocable = Some(now.max(counters.minute.start));
            Ok(())
        });
        match changed {
            Changed::Done => Ok(taken),
            Changed::Refused(not_taken) => Err(not_taken),
            Changed::Lost => Err(NotTaken::Busy),
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
    pub(crate) fn follow(&mut self, view: &View) {
        if self.version != view.version() {
            self.version = view.version();
            self.full = FullAccounts::new();
        }
    }

    /// Forgets the accounts that were full by their streams before this request came, as one may
    /// have ended since; whether there was one.
    pub(crate) fn look_again(&mut self, fresh: &[Id]) -> bool {
        let before = self.full.0.len();
        self.full
            .0
            .retain(|id, full| !full.by_streams || fresh.contains(id));
        self.full.0.len() != before
    }

    /// Counts the request of the gate's context at its key and takes the key's stream, before its
    /// body is read. It counts no more once its context goes and it was not admitted.
    pub(crate) fn enter(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        subject: &Subject,
        limits: &Limits,
        now: u64,
    ) -> Result<(), Denied> {
        match self.take(shared, subject, limits, now) {
            Ok(taken) => {
                self.requests.entry(context).or_default().key = Some(taken);
                Ok(())
            }
            // What is not known yet will be by the time that the body is there.
            Err(NotTaken::Unknown) => Ok(()),
            Err(not_taken) => Err(Denied::of_key(not_taken)),
        }
    }

    /// Takes what the request of the gate's context has not yet taken of its key, and then of its
    /// account, or says who denies it. On a second pass its key has been seen to.
    pub(crate) fn admit(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        limited: &Limited,
        second_pass: bool,
        now: u64,
    ) -> Result<(), Denied> {
        // The key comes first: whoever is over its limit asks again and again, and that must not
        // count at accounts.
        let key = limited.key.as_ref().filter(|_| !second_pass);
        if let Some((subject, limits)) = key {
            let taken = match self.taken_of(context, subject) {
                Some(taken) if taken.is_fresh(now) => None,
                Some(taken) => Some(taken.again(shared, limits, now)),
                None => Some(self.take(shared, subject, limits, now)),
            };
            if let (Some(Err(NotTaken::Unknown)), Some((account, limits))) =
                (&taken, &limited.account)
            {
                // Both are asked about at the same time.
                let _ = look(shared, account, limits, now);
            }
            if let Some(taken) = taken {
                let taken = taken.map_err(Denied::of_key)?;
                self.requests.entry(context).or_default().key = Some(taken);
            }
        }
        if let Some((subject, limits)) = &limited.account {
            let until = match self.take(shared, subject, limits, now) {
                Ok(taken) => {
                    self.requests.entry(context).or_default().account = Some(taken);
                    None
                }
                Err(NotTaken::Unknown) => return Err(Denied::Unknown),
                Err(NotTaken::At(reached)) => Some(reached.until),
                Err(NotTaken::Busy) => Some(None),
            };
            if let Some(until) = until {
                let full = Full {
                    until: until.unwrap_or(now.saturating_add(STREAMS_LOOK_MS)),
                    by_streams: until.is_none(),
                };
                self.full.put(subject.id.clone(), full);
                return Err(Denied::Account);
            }
        }
        if let Some(request) = self.requests.get_mut(&context) {
            let taken = [&mut request.key, &mut request.account].into_iter();
            taken.flatten().for_each(|taken| taken.revocable = None);
        }
        Ok(())
    }

    /// Counts the tokens of a request, whose pass this is: with what is said at its end, or at the
    /// next tick, where its context is still there.
    pub fn charge(
        &mut self,
        shared: &mut impl SharedData,
        pass: TryId,
        limited: &Limited,
        tokens: u64,
        now: u64,
    ) {
        let request = self.requests.get_mut(&pass.context);
        let (key, account) = match request.filter(|_| pass.vm == self.vm) {
            Some(request) => (request.key.as_mut(), request.account.as_mut()),
            None => (None, None),
        };
        for (limited, taken) in [(&limited.key, key), (&limited.account, account)] {
            let Some((subject, _)) = limited else {
                continue;
            };
            if let Some(taken) = taken.filter(|taken| taken.subject == *subject) {
                taken.tokens = taken.tokens.saturating_add(tokens);
                continue;
            }
            count_tokens(shared, subject, tokens, now);
        }
    }

    /// Whether a context's request has taken anything.
    #[cfg(test)]
    pub(super) fn knows(&self, context: u32) -> bool {
        self.requests.contains_key(&context)
    }

    /// The request of this pass is to run again.
    pub fn moves(&mut self, pass: TryId) {
        if pass.vm == self.vm
            && let Some(request) = self.requests.get_mut(&pass.context)
        {
            request.moves = true;
        }
    }

    /// Gives what the last pass has taken to the next one, but for what is the account's: that
    /// pass is over. Only what [`Self::moves`] was told of is given: the pass of another VM, or one
    /// that is long over, could have the number of another request's.
    pub(crate) fn take_over(
        &mut self,
        shared: &mut impl SharedData,
        last_try: TryId,
        context: u32,
        now: u64,
    ) {
        let mut request = match self.requests.entry(last_try.context) {
            Entry::Occupied(last) if last_try.vm == self.vm && last.get().moves => last.remove(),
            _ => return,
        };
        if let Some(account) = request.account.take() {
            self.let_go(shared, account, now);
        }
        request.moves = false;
        request.left = None;
        self.requests.insert(context, request);
    }

    /// The context has gone: its request lets go of what it has taken, unless it runs again at
    /// once.
    pub fn release(&mut self, shared: &mut impl SharedData, context: u32, now: u64) {
        let Some(mut request) = self.requests.remove(&context) else {
            return;
        };
        if request.moves {
            request.left = Some(self.ticks);
            self.requests.insert(context, request);
            return;
        }
        for taken in [request.key, request.account].into_iter().flatten() {
            self.let_go(shared, taken, now);
        }
    }

    /// Renews this VM's share of every subject's streams, frees those of requests that were to run
    /// again and did not, and counts the tokens of answers whose requests have not ended.
    pub fn tick(&mut self, shared: &mut impl SharedData, now: u64) {
        if self.requests.is_empty() && self.streams.is_empty() && self.full.is_empty() {
            return;
        }
        self.full.0.retain(|_, full| now < full.until);
        self.ticks = self.ticks.wrapping_add(1);
        let ticks = self.ticks;
        let gone: Vec<u32> = self
            .requests
            .iter()
            .filter(|(_, one)| one.left.is_some_and(|left| left.wrapping_add(1) < ticks))
            .map(|(context, _)| *context)
            .collect();
        for context in gone {
            if let Some(request) = self.requests.get_mut(&context) {
                request.moves = false;
            }
            self.release(shared, context, now);
        }
        // Where an answer waits for a slow caller, what it used must not.
        for request in self.requests.values_mut() {
            let taken = [&mut request.key, &mut request.account].into_iter();
            for taken in taken.flatten().filter(|taken| taken.tokens > 0) {
                if count_tokens(shared, &taken.subject, taken.tokens, now) == Changed::Done {
                    taken.tokens = 0;
                }
            }
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
            let count = self.count(&subject);
            self.tell(shared, &subject, count, now, |_| ());
        }
    }

    /// What the request of a context has taken of its key.
    fn taken_of(&self, context: u32, key: &Subject) -> Option<&Taken> {
        let taken = self.requests.get(&context)?.key.as_ref()?;
        (taken.subject == *key).then_some(taken)
    }

    /// How many of this VM's requests hold a stream of `subject`.
    fn count(&self, subject: &Subject) -> u64 {
        self.streams.get(subject).map_or(0, |streams| streams.count)
    }

    /// Counts one request of `subject`, and takes one more stream where that is limited.
    fn take(
        &mut self,
        shared: &mut impl SharedData,
        subject: &Subject,
        limits: &Limits,
        now: u64,
    ) -> Result<Taken, NotTaken> {
        let streams = limits.concurrent_streams;
        let streams = streams.map(|_| self.count(subject).saturating_add(1));
        let (vm, mut stale, mut at) = (self.vm, false, now);
        let taken = table::update(shared, subject, now, |counters| {
            may_take(counters, limits, now)?;
            at = now.max(counters.minute.start);
            stale = now.saturating_sub(counters.settled_at) >= STALE_MS;
            counters.count_requests(1);
            counters.touch(now);
            if let Some(streams) = streams {
                counters.lease(vm, streams, now);
            }
            Ok(())
        });
        match taken {
            Changed::Done => {}
            Changed::Refused(not_taken) => {
                let _ = look(shared, subject, limits, now);
                return Err(not_taken);
            }
            Changed::Lost => return Err(NotTaken::Busy),
        }
        if stale {
            table::tell_news(shared);
        }
        if let Some(count) = streams {
            let told_at = Some(now);
            self.streams
                .insert(subject.clone(), Streams { count, told_at });
        }
        Ok(Taken {
            subject: subject.clone(),
            stream: streams.is_some(),
            revocable: Some(at),
            tokens: 0,
        })
    }

    /// Says what there is to say at the end of a request.
    fn let_go(&mut self, shared: &mut impl SharedData, taken: Taken, now: u64) {
        let Taken {
            subject,
            stream,
            revocable,
            tokens,
        } = taken;
        let change = |counters: &mut Counters| {
            if let Some(at) = revocable {
                counters.uncount_request(at);
            }
            counters.count_tokens(tokens);
        };
        if stream {
            let count = self.count(&subject).saturating_sub(1);
            self.tell(shared, &subject, count, now, change);
        } else if tokens > 0 || revocable.is_some() {
            let _: Changed<()> = table::update(shared, &subject, now, |counters| {
                change(counters);
                counters.touch(now);
                Ok(())
            });
        }
    }

    /// Tells shared data how many of this VM's requests hold a stream of `subject`, with another
    /// `change`.
    fn tell(
        &mut self,
        shared: &mut impl SharedData,
        subject: &Subject,
        count: u64,
        now: u64,
        change: impl Fn(&mut Counters),
    ) {
        let vm = self.vm;
        let told: Changed<()> = table::update(shared, subject, now, |counters| {
            change(counters);
            counters.lease(vm, count, now);
            counters.touch(now);
            Ok(())
        });
        let is_told = told == Changed::Done;
        if count == 0 && is_told {
            self.streams.remove(subject);
        } else {
            let told_at = is_told.then_some(now);
            self.streams
                .insert(subject.clone(), Streams { count, told_at });
        }
    }
}

fn count_tokens(
    shared: &mut impl SharedData,
    subject: &Subject,
    tokens: u64,
    now: u64,
) -> Changed<()> {
    table::update(shared, subject, now, |counters| {
        counters.count_tokens(tokens);
        counters.touch(now);
        Ok(())
    })
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
