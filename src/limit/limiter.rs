//! The part of one VM in keeping limits: what its requests take, and what they let go of.
//!
//! All counts are in shared data. A VM keeps beside it which streams its requests hold, as it must
//! renew and free them, and which accounts it found full.

use super::{
    Full, FullAccounts, Limited, Limits, Reached, Subject,
    table::{self, Changed},
};
use crate::{
    deadline::Deadline,
    host::SharedData,
    id::Id,
    known::Known,
    request::carried::TryId,
    snapshot::{Account, ClientKey, View},
};

/// The interval at which a VM renews its share of a subject's streams, in milliseconds: several times in a
/// lease.
pub const RENEW_MS: u64 = 5_000;

/// The time for which an account whose streams are all in use is passed over without another look, in
/// milliseconds.
const STREAMS_LOOK_MS: u64 = 100;

/// The interval at which a subject that refuses requests is touched, in milliseconds, so that what the
/// others do with it stays known.
const TOUCH_MS: u64 = 500;

/// The part of one VM in keeping limits.
#[derive(Debug, Default)]
pub struct Limiter {
    pub(super) vm: u64,
    full: FullAccounts,
    /// The version of the snapshot that `full` is about.
    version: u64,
    /// The subjects of which each gate context's request holds a stream.
    held: Known<u32, Vec<Subject>>,
    streams: Known<Subject, Streams>,
    /// A stream was let go of since that was last asked.
    has_freed: bool,
}

/// The streams of one subject that this VM's requests hold.
#[derive(Debug, Default)]
struct Streams {
    count: u64,
    /// The time at which shared data is told next; at once where it did not take the last.
    due: Deadline,
}

/// The place that a request has at its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceAtKey {
    /// The request has none yet.
    None,
    /// Its last try had one, and it runs again: it is not asked a second time.
    Kept,
    /// The request has taken one.
    Taken,
}

/// The reason why a request is not let through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Its key is at a limit.
    Key(Reached),
    /// The account is at a limit; another one may serve.
    Account,
    /// Other VMs change the key's counters all the time.
    Busy,
}

/// The reason why nothing was taken of a subject.
#[derive(Debug, PartialEq, Eq)]
enum NotTaken {
    /// The subject is at a limit.
    At(Reached),
    /// Other VMs change its counters all the time.
    Busy,
}

/// The limits of a subject that a request is held to, and what it takes.
#[derive(Debug, Clone, Copy)]
struct Take {
    /// The request must be within the limits.
    is_checked: bool,
    /// The request counts as one.
    counts: bool,
    /// The request takes a stream.
    stream: bool,
}

/// Names the subjects of a request that have limits.
pub fn limited(view: &View, key: &Id, account: Option<&Account>) -> Limited {
    let of_key = view.limited_key(key).map(|key| key.limits);
    let of_account = account.filter(|account| !account.limits.is_none());
    Limited {
        key: of_key.map(|limits| (Subject::key(key), limits)),
        account: of_account.map(|account| (Subject::account(&account.id), account.limits)),
    }
}

// === impl Take ===

impl Take {
    const ALL: Self = Self {
        is_checked: true,
        counts: true,
        stream: true,
    };
    const STREAM: Self = Self {
        counts: false,
        ..Self::ALL
    };
    const COUNT: Self = Self {
        is_checked: false,
        counts: true,
        stream: false,
    };
}

// === impl Denied ===

/// A key whose request could not be counted.
impl From<NotTaken> for Denied {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::At(reached) => Self::Key(reached),
            NotTaken::Busy => Self::Busy,
        }
    }
}

// === impl Limiter ===

impl Limiter {
    /// Makes that of the VM of this number, which no other VM of this Envoy has.
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

    /// Looks for a limit that `subject` is at. Takes nothing.
    pub fn reached(
        &self,
        shared: &mut impl SharedData,
        subject: &Subject,
        limits: &Limits,
        now: u64,
    ) -> Option<Reached> {
        let counters = table::look(shared, subject, now);
        let reached = counters.reached(limits)?;
        keep_known(shared, subject, counters.touched_at, now);
        Some(reached)
    }

    /// Takes the stream of a key for a request whose body is yet to come, so that the bodies that a
    /// key has under way are bounded by its streams. Counts no request yet. Of a key without a limit
    /// of streams it takes nothing.
    pub(crate) fn admit_body(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        (subject, limits): (&Subject, &Limits),
        now: u64,
    ) -> Result<(), Denied> {
        if limits.concurrent_streams.is_none() {
            let reached = self.reached(shared, subject, limits, now);
            return reached.map_or(Ok(()), |reached| Err(Denied::Key(reached)));
        }
        Ok(self.take(shared, context, subject, limits, Take::STREAM, now)?)
    }

    /// Counts a request of a key that was let in and is refused for its body.
    pub(crate) fn count_refused(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        key: &ClientKey,
        now: u64,
    ) {
        // It is refused already: at a limit there is nothing more to say.
        let _ = self.take(
            shared,
            context,
            &Subject::key(&key.id),
            &key.limits,
            Take::COUNT,
            now,
        );
    }

    /// Takes what a request uses of its key and its account, or says who denies it. Where the key
    /// [admitted its body](Self::admit_body), the stream of that is the request's.
    ///
    ///
    /// The account is looked at first, so that a request that finds it full counts at no key; and
    /// the key takes first, so that whoever is over its limit and asks again and again counts at no
    /// account.
    pub(crate) fn admit(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        limited: &Limited,
        place: &mut PlaceAtKey,
        now: u64,
    ) -> Result<(), Denied> {
        if let Some((subject, limits)) = &limited.account
            && let Some(reached) = self.reached(shared, subject, limits, now)
        {
            return Err(self.found_full(&subject.id, reached.until, now));
        }
        if let Some((subject, limits)) = &limited.key
            && *place != PlaceAtKey::Taken
        {
            let take = Take {
                is_checked: *place == PlaceAtKey::None,
                counts: *place == PlaceAtKey::None,
                stream: !self.holds(context, subject),
            };
            self.take(shared, context, subject, limits, take, now)?;
            *place = PlaceAtKey::Taken;
        }
        let Some((subject, limits)) = &limited.account else {
            return Ok(());
        };
        self.take(shared, context, subject, limits, Take::ALL, now)
            .map_err(|not_taken| {
                let until = match not_taken {
                    NotTaken::At(reached) => reached.until,
                    NotTaken::Busy => None,
                };
                self.found_full(&subject.id, until, now)
            })
    }

    /// Counts the tokens of a request whose answer has ended, and lets go of the streams that its
    /// try holds, in one change a subject.
    pub fn charge(
        &mut self,
        shared: &mut impl SharedData,
        try_id: TryId,
        limited: &Limited,
        tokens: u64,
        now: u64,
    ) {
        let mut held = match try_id.vm == self.vm {
            true => self.held.remove(&try_id.context).unwrap_or_default(),
            false => Vec::new(),
        };
        self.has_freed |= !held.is_empty();
        for (subject, _) in [&limited.key, &limited.account].into_iter().flatten() {
            match held.iter().position(|held| held == subject) {
                Some(at) => {
                    held.swap_remove(at);
                    let count = self.count(subject).saturating_sub(1);
                    self.tell(shared, subject, count, tokens, now);
                }
                None => count_tokens(shared, subject, tokens, now),
            }
        }
        if !held.is_empty() {
            self.held.insert(try_id.context, held);
        }
    }

    /// Lets go of the streams that the request of a context holds: the context has gone.
    pub fn release(&mut self, shared: &mut impl SharedData, context: u32, now: u64) {
        for subject in self.held.remove(&context).into_iter().flatten() {
            self.has_freed = true;
            let count = self.count(&subject).saturating_sub(1);
            self.tell(shared, &subject, count, 0, now);
        }
    }

    /// Returns true if a stream was let go of since this was last asked.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.has_freed)
    }

    /// Lets go of what the last try of a request holds, as that is over whether Envoy has said so
    /// yet or not. The numbers of another VM's tries are not this one's.
    pub(crate) fn run_again(&mut self, shared: &mut impl SharedData, last: TryId, now: u64) {
        if last.vm == self.vm {
            self.release(shared, last.context, now);
        }
    }

    /// Renews this VM's share of every subject's streams.
    pub fn tick(&mut self, shared: &mut impl SharedData, now: u64) {
        self.full.0.retain(|_, full| now < full.until);
        let due = self.streams.iter();
        let due = due.filter(|(_, streams)| streams.due.is_due(now));
        let due: Vec<Subject> = due.map(|(subject, _)| subject.clone()).collect();
        for subject in due {
            self.tell(shared, &subject, self.count(&subject), 0, now);
        }
    }

    /// Forgets which accounts are full where the snapshot moved: they may have other limits.
    pub(crate) fn follow(&mut self, view: &View) {
        if self.version != view.version() {
            self.version = view.version();
            self.full = FullAccounts::new();
        }
    }

    /// Forgets the accounts whose streams were all in use before a request came, as one may have
    /// ended since; `fresh` are those that it found so itself. Returns true if there was one.
    pub(crate) fn forget_full_streams(&mut self, fresh: &[Id]) -> bool {
        let before = self.full.0.len();
        let stays = |id: &Id, full: &Full| !full.by_streams || fresh.contains(id);
        self.full.0.retain(|id, full| stays(id, full));
        self.full.0.len() != before
    }

    /// Remembers an account as full, for a moment where its streams end it is not known when.
    fn found_full(&mut self, account: &Id, until: Option<u64>, now: u64) -> Denied {
        let full = Full {
            until: until.unwrap_or(now.saturating_add(STREAMS_LOOK_MS)),
            by_streams: until.is_none(),
        };
        self.full.put(account.clone(), full);
        Denied::Account
    }

    /// Counts this VM's requests that hold a stream of `subject`.
    fn count(&self, subject: &Subject) -> u64 {
        self.streams.get(subject).map_or(0, |streams| streams.count)
    }

    /// Returns true if the request of a context holds a stream of `subject`.
    fn holds(&self, context: u32, subject: &Subject) -> bool {
        let held = self.held.get(&context);
        held.is_some_and(|held| held.contains(subject))
    }

    /// Takes of `subject`, in one swap, what `take` says and what is limited.
    fn take(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        subject: &Subject,
        limits: &Limits,
        take: Take,
        now: u64,
    ) -> Result<(), NotTaken> {
        let limits = match take.stream {
            true => *limits,
            // Its own stream is among those in use.
            false => Limits {
                concurrent_streams: None,
                ..*limits
            },
        };
        let streams = limits.concurrent_streams;
        let streams = streams.map(|_| self.count(subject).saturating_add(1));
        if limits.is_none() || !take.is_checked && !take.counts && streams.is_none() {
            return Ok(());
        }
        let (vm, mut touched_at) = (self.vm, now);
        let taken = table::update(shared, subject, now, |counters| {
            touched_at = counters.touched_at;
            if take.is_checked {
                counters.reached(&limits).map_or(Ok(()), Err)?;
            }
            if take.counts {
                counters.count_requests(1);
            }
            counters.touched_at = now;
            if let Some(streams) = streams {
                counters.lease(vm, streams, now);
            }
            Ok(())
        });
        match taken {
            Changed::Done => {}
            Changed::Refused(reached) => {
                keep_known(shared, subject, touched_at, now);
                return Err(NotTaken::At(reached));
            }
            Changed::Lost => return Err(NotTaken::Busy),
        }
        if let Some(count) = streams {
            let due = Deadline::after(now, RENEW_MS);
            self.streams.insert(subject.clone(), Streams { count, due });
            self.held.entry(context).or_default().push(subject.clone());
        }
        Ok(())
    }

    /// Writes into shared data how many of this VM's requests hold a stream of `subject`, and the tokens that one of
    /// them used.
    fn tell(
        &mut self,
        shared: &mut impl SharedData,
        subject: &Subject,
        count: u64,
        tokens: u64,
        now: u64,
    ) {
        let vm = self.vm;
        let told: Changed<()> = table::update(shared, subject, now, |counters| {
            counters.count_tokens(tokens);
            counters.lease(vm, count, now);
            counters.touched_at = now;
            Ok(())
        });
        let is_told = told == Changed::Done;
        if count == 0 && is_told {
            self.streams.remove(subject);
        } else {
            let due = if is_told {
                Deadline::after(now, RENEW_MS)
            } else {
                Deadline::default()
            };
            self.streams.insert(subject.clone(), Streams { count, due });
        }
    }
}

fn count_tokens(shared: &mut impl SharedData, subject: &Subject, tokens: u64, now: u64) {
    let _: Changed<()> = table::update(shared, subject, now, |counters| {
        counters.count_tokens(tokens);
        counters.touched_at = now;
        Ok(())
    });
}

/// Touches a subject that refuses a request, so that the refresher goes on being asked what the
/// other Envoys do with it.
fn keep_known(shared: &mut impl SharedData, subject: &Subject, touched_at: u64, now: u64) {
    if now.saturating_sub(touched_at) >= TOUCH_MS {
        count_tokens(shared, subject, 0, now);
    }
}
