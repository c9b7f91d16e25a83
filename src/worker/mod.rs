//! A worker: what the streams of a VM share. Envoy runs a VM's callbacks one at a time, on one
//! thread.
//!
//! It follows the snapshot and the board, decides by them about requests, and learns from answers
//! ([`answers`]). What the refresher is to hear, and what it says, goes by [`refresher`].

pub mod answers;
mod bodies;
pub mod config;
pub mod decoding;
mod homes;
pub mod own;
pub(crate) mod pace;
pub mod refresher;
pub mod sent;
mod stats;
pub mod waiting;

use std::{cell::RefCell, rc::Rc};

use self::{
    answers::Probe,
    bodies::MAX_UNWRAPPED_BYTES,
    config::Config,
    decoding::Decoding,
    own::Own,
    pace::Pace,
    refresher::Calls,
    sent::Tries,
    stats::{Metrics, Totals},
    waiting::{For, Starting, Waiting},
};
use crate::{
    attempt,
    budget::{self, Book, Connections, KeyName, Shares},
    deadline::Deadline,
    gate::{Asked, Decision, Forward, Gate, Knowledge, Refusal, Reply, Request, select::Awaited},
    home::{Home, ring},
    host::Host,
    id::Id,
    limit::{Limiter, limited, settle::Settler, table},
    meter::Metered,
    request::{
        carried::{Carried, TryId},
        peek::Wanted,
        record::RequestRecord,
    },
    snapshot::{Account, Endpoint, Platform, View},
    sync::{
        confirmed,
        follow::Follower,
        lease::Holder,
        poll::Poller,
        queues,
        quota::{self, Looks, Told},
        records::{Origin, Records},
        report::Reports,
    },
};

/// The state that the streams of one VM share.
#[derive(Debug)]
pub struct Worker<H> {
    host: Own<H>,
    follower: Follower,
    gate: Gate,
    reports: Reports,
    waiting: Waiting,
    pace: Pace,
    starting: Starting,
    decoding: Decoding,
    /// The bytes of answers that are held without what the platform has around them.
    unwrapped: Rc<RefCell<Shares>>,
    /// The probes whose requests have no answer yet; one an account at a time, or nearly so.
    probes: Vec<Probe>,
    looks: Looks,
    records: Records,
    sent: Tries,
    totals: Totals,
    limiter: Limiter,
    book: Book,
    connections: Connections,
    settings: Settings,
    calls: Calls,
    asked: homes::Questions,
    sync: Option<Sync>,
}

/// The settings of the operator; times in milliseconds.
#[derive(Debug, Default)]
struct Settings {
    max_attempts: usize,
    /// The time for which a snapshot that nobody confirms is used; 0 for without end.
    unconfirmed: u64,
    failover: u64,
    refresh_wait: u64,
    announcement_wait: u64,
    throttle_wait: u64,
    refresher_cluster: String,
}

/// The part that only a VM with a configured gate has.
#[derive(Debug)]
struct Sync {
    holder: Holder,
    origin: Origin,
    poller: Poller,
    settler: Settler,
    metrics: Metrics,
    told: Told,
    /// The time of the next report of quotas to the refresher.
    tell_at: Deadline,
    /// The time at which it is told again what it has not confirmed.
    repeat_at: Deadline,
}

/// Returns what the gate may know at `now` of a request that it does not send on.
fn knowledge<'a>(follower: &'a Follower, limiter: &'a Limiter, now: u64) -> Knowledge<'a> {
    Knowledge {
        is_confirmed: true,
        view: follower.current(),
        board: follower.board(),
        full: limiter.full(),
        now,
        try_id: TryId::default(),
        may_wait: false,
        soon: None,
        home: Home::Any,
    }
}

/// Returns true if the request goes to `forward`'s account because another account, or a limit, sent it there: many
/// may come at once.
fn is_paced(
    context: u32,
    last_try: Option<&Carried>,
    forward: &Forward,
    waiting: &Waiting,
) -> bool {
    let is_other = |last: &Carried| last.account != forward.account.id;
    waiting.waits_for_limit(context) || last_try.is_some_and(is_other)
}

/// The thing for which a request that could go has to wait after all: others were there before it, or too
/// many have just gone where it goes.
fn held_up(
    context: u32,
    last_try: Option<&Carried>,
    forward: &Forward,
    waiting: &Waiting,
    pace: &Pace,
    now: u64,
) -> Option<Awaited> {
    let Forward {
        account, carried, ..
    } = forward;
    let is_limited = account.limits.concurrent_streams.is_some();
    if is_limited && waiting.is_behind(context, &carried.pool) {
        return Some(Awaited::Place);
    }
    let is_herd = is_paced(context, last_try, forward, waiting) && !pace.has_room(&account.id, now);
    is_herd.then_some(Awaited::Limit)
}

/// The facts that an attempt finds about the request that it sends.
#[derive(Debug)]
pub struct Found {
    /// The account that the gate chose.
    pub account: Rc<Account>,
    /// Its platform.
    pub platform: Rc<Platform>,
    /// The platform is not asked: the tokens of the request are estimated.
    pub estimates: bool,
    /// The gate's own words.
    pub carried: Rc<Carried>,
}

// === impl Found ===

impl Found {
    /// Returns where the platform answers what is asked.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.platform.endpoint(self.carried.endpoint)
    }
}

// === impl Worker ===

impl<H: Host> Worker<H> {
    /// Makes a worker of a VM that has no gate yet.
    pub fn new(host: H) -> Self {
        Self {
            host: Own::new(host),
            follower: Follower::default(),
            gate: Gate::default(),
            reports: Reports::default(),
            waiting: Waiting::default(),
            pace: Pace::default(),
            starting: Starting::default(),
            decoding: Decoding::default(),
            unwrapped: Rc::new(RefCell::new(Shares::new(MAX_UNWRAPPED_BYTES))),
            probes: Vec::new(),
            looks: Looks::default(),
            records: Records::default(),
            sent: Tries::default(),
            totals: Totals::default(),
            limiter: Limiter::default(),
            book: Book::new(0, Config::default().budget()),
            connections: Connections::new(0, Config::default().connections()),
            settings: Settings::default(),
            calls: Calls::default(),
            asked: homes::Questions::default(),
            sync: None,
        }
    }

    /// Prepares the VM for a gate. A second gate of the same VM shares what the first made.
    pub fn configure(&mut self, config: Config) {
        let (budget, connections) = (config.budget(), config.connections());
        self.gate.reads_openings = config.sessions_by_opening;
        self.settings = Settings {
            max_attempts: config.max_attempts,
            unconfirmed: config.max_unconfirmed_seconds.saturating_mul(1_000),
            failover: config.failover_seconds.saturating_mul(1_000),
            refresh_wait: config.refresh_wait_seconds.saturating_mul(1_000),
            announcement_wait: config.announcement_wait_seconds.saturating_mul(1_000),
            throttle_wait: config.throttle_wait_seconds.saturating_mul(1_000),
            refresher_cluster: config.refresher_cluster,
        };
        if self.sync.is_some() {
            self.book.set_budget(budget);
            self.connections.set_budget(connections);
            return;
        }
        let holder = Holder::register(&mut self.host);
        let seed = self.host.seed();
        table::prepare(&mut self.host, &seed);
        budget::prepare(&mut self.host);
        ring::prepare(&mut self.host);
        queues::prepare(&mut self.host);
        quota::prepare(&mut self.host);
        self.limiter = Limiter::new(holder.number());
        let (instance, node) = (table::instance(&self.host), self.host.node());
        self.book = Book::new(holder.number(), budget);
        self.connections = Connections::new(holder.number(), connections);
        self.sync = Some(Sync {
            holder,
            poller: Poller::new(config.poll_wait_seconds, instance.clone(), node.clone()),
            origin: Origin {
                instance,
                vm: holder.number(),
                node,
            },
            settler: Settler::default(),
            metrics: Metrics::define(&mut *self.host),
            told: Told::default(),
            tell_at: Deadline::default(),
            repeat_at: Deadline::default(),
        });
    }

    /// Begins a callback.
    pub fn begin(&mut self) {
        self.host.begin();
    }

    /// The host.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// Returns the time of this callback, in Unix milliseconds.
    pub fn now(&mut self) -> u64 {
        self.host.now()
    }

    /// Returns the time, in Unix milliseconds, a tick late at most: where that is near enough, it
    /// costs no hostcall.
    pub fn recently(&self) -> u64 {
        self.host.recently()
    }

    /// Returns the number of a context's try.
    pub fn try_id(&self, context: u32) -> TryId {
        let vm = self.sync.as_ref().map(|sync| sync.holder.number());
        TryId {
            vm: vm.unwrap_or_default(),
            context,
        }
    }

    /// Returns the contexts of the requests that wait, in the order in which they are to be decided about.
    pub fn waiting(&mut self) -> Vec<u32> {
        let waiting = self.waiting.in_turn(|| self.sent.by_key());
        waiting
            .into_iter()
            .chain(self.starting.contexts())
            .collect()
    }

    /// Returns true if the request of `context` waits for a place, and no other one that waits has just found
    /// that all are taken.
    pub fn may_find_place(&self, context: u32) -> bool {
        self.waiting.may_find_place(context)
    }

    /// Returns true if a request has to wait until there is a snapshot, and may. `is_new`: it has just come.
    pub fn awaits_snapshot(&mut self, context: u32, request: &Request, is_new: bool) -> bool {
        let now = self.look();
        if self.follower.current().is_some() || !request.presents_key() {
            self.starting.remove(context);
            return false;
        }
        self.starting.waits(context, is_new, now)
    }

    /// Takes note of the time, and of what shared data has of the snapshot and the board.
    fn look(&mut self) -> u64 {
        let (now, moved) = (self.host.now(), self.host.take_moved());
        self.follower.look(&self.host, now, moved);
        now
    }

    /// True while the snapshot may be used, as the operator's bound says.
    fn is_confirmed(&self, now: u64) -> bool {
        let bound = self.settings.unconfirmed;
        bound == 0 || !confirmed::until(&*self.host, bound).is_due(now)
    }

    /// Returns what of a request's body is worth reading before it is decided about, and counts
    /// the request as one that has begun.
    ///
    /// # Errors
    /// The answer, where nothing in the body could change it.
    pub fn ask(&mut self, request: &mut Request) -> Result<Wanted, Reply> {
        let now = self.look();
        let knowledge = Knowledge {
            is_confirmed: self.is_confirmed(now),
            ..knowledge(&self.follower, &self.limiter, now)
        };
        let asked = self.gate.ask(request, &knowledge);
        let is_new = request.carried().is_none();
        match &asked {
            Ok(_) if is_new => self.records.begin(now),
            Ok(_) => {}
            Err(reply) => {
                let record = self.record(request);
                if is_new && record.is_some() && reply.code().is_some() {
                    self.records.begin(now);
                }
                self.refused(record, reply);
            }
        }
        asked
    }

    /// Returns the milliseconds for which events are held that only announce an answer.
    pub fn announcement_wait(&self) -> u64 {
        self.settings.announcement_wait
    }

    /// Returns the answer to a request that is refused before it is decided about, and keeps its
    /// record.
    pub fn refuse(&mut self, request: &Request, refusal: &Refusal) -> Reply {
        let reply = request.refused(refusal);
        self.refused(self.record(request), &reply);
        reply
    }

    /// Decides about the request of `context`. One that waits is remembered until its patience
    /// ends.
    pub fn decide(&mut self, context: u32, request: &Request) -> Decision {
        let now = self.look();
        let key = request.key_id(self.follower.current()).cloned();
        let Settings {
            refresh_wait,
            throttle_wait,
            ..
        } = self.settings;
        let until = Deadline::after(now, refresh_wait.max(throttle_wait));
        let patience = self.waiting.patience(context, key.as_ref(), until);
        let may = |most| patience.has_place && !patience.until.is_over(most, now);
        let may_wait = may(refresh_wait);
        let soon = may(throttle_wait).then(|| patience.until.end_of(throttle_wait));
        let Some(home) = self.home(request, key.as_ref(), patience.has_place, now) else {
            if let Some(key) = key {
                self.waiting
                    .insert(context, &key, patience.until, For::News);
            }
            return Decision::Wait(Awaited::News);
        };
        let asked = Asked {
            context,
            last_try: request.carried(),
            view: self.follower.current(),
            now,
            looks_again: self.waiting.looks_again(context),
        };
        let try_id = self.try_id(context);
        let is_confirmed = self.is_confirmed(now);
        let board = self.follower.board();
        let (gate, waiting, pace) = (&mut self.gate, &self.waiting, &self.pace);
        let decision = self.limiter.decide(&mut self.host, &asked, |full| {
            let knowledge = Knowledge {
                is_confirmed,
                view: asked.view,
                board,
                full,
                now,
                try_id,
                may_wait,
                soon,
                home,
            };
            match gate.decide(request, &knowledge) {
                Decision::Forward(forward) if soon.is_some() => {
                    match held_up(context, asked.last_try, &forward, waiting, pace, now) {
                        Some(awaited) => Decision::Wait(awaited),
                        None => Decision::Forward(forward),
                    }
                }
                decision => decision,
            }
        });
        let decision = match (decision, key) {
            (Ok(Decision::Wait(awaited)), Some(key)) => {
                let awaits = For::of(awaited, || self.pool(request));
                self.waiting.insert(context, &key, patience.until, awaits);
                return Decision::Wait(awaited);
            }
            // Who is not known has no place.
            (Ok(Decision::Wait(_)), None) => Decision::Reply(request.refused(&Refusal::NotReady)),
            (Ok(decision), _) => decision,
            (Err(refusal), _) => Decision::Reply(request.refused(&refusal)),
        };
        if let Decision::Forward(forward) = &decision
            && is_paced(context, asked.last_try, forward, &self.waiting)
        {
            self.pace.take(&forward.account.id, now);
        }
        self.waiting.remove(context);
        if let Decision::Reply(reply) = &decision {
            self.refused(self.record(request), reply);
        }
        decision
    }

    /// Returns the pool of a request that waits; none where it may use none any more.
    fn pool(&self, request: &Request) -> Option<Id> {
        let knowledge = knowledge(&self.follower, &self.limiter, self.host.recently());
        let record = self.gate.record(request, &knowledge);
        record.map(|record| record.pool)
    }

    /// Begins the try of a request that goes to an account, with the property `text` to say so.
    pub fn forward(&mut self, forward: Forward, text: String) {
        let Forward {
            account,
            half_open,
            carried,
            first_event_ms,
            ..
        } = forward;
        if half_open {
            self.probe(&account, &carried);
        }
        self.gate.began(&account.id);
        let record = RequestRecord::of_attempt(&carried, &account.platform);
        self.sent.insert(text, carried, record, first_event_ms);
    }

    /// Returns the record of a request that is not sent on, as far as it goes; none where its key
    /// is not known.
    pub fn record(&self, request: &Request) -> Option<RequestRecord> {
        let knowledge = knowledge(&self.follower, &self.limiter, self.host.recently());
        self.gate.record(request, &knowledge)
    }

    /// Keeps the record of a request that the gate answered with an error.
    fn refused(&mut self, record: Option<RequestRecord>, reply: &Reply) {
        let Some(code) = reply.code() else { return };
        self.totals.refused = self.totals.refused.saturating_add(1);
        if let Some(record) = record {
            let now = self.host.recently();
            self.keep(record.answered(reply.status, code, now), TryId::default());
        }
    }

    /// Keeps the record of a request that has come to its end; `try_id` is its last, if it had one.
    pub fn keep(&mut self, record: RequestRecord, try_id: TryId) {
        let usage = record.usage.unwrap_or_default();
        self.charge(&record, try_id, usage.total);
        let totals = &mut self.totals;
        totals.requests = totals.requests.saturating_add(1);
        totals.tokens_input = totals.tokens_input.saturating_add(usage.input);
        totals.tokens_output = totals.tokens_output.saturating_add(usage.output);
        self.records.push(record, self.host.recently());
    }

    /// Counts what a try used whose answer goes to nobody, as its request runs again: the account has spent it all the same.
    pub fn spent(&mut self, try_id: TryId, used: &Metered) {
        let sent = self.sent.get_mut(try_id);
        let record = sent.and_then(|sent| sent.record.clone());
        if let (Some(record), Some(usage)) = (record, used.usage) {
            self.charge(&record, try_id, usage.total);
        }
    }

    /// Counts the tokens of a request that has ended, where its key or its account has limits.
    fn charge(&mut self, record: &RequestRecord, try_id: TryId, tokens: u64) {
        let Some(view) = self.follower.current().filter(|_| tokens > 0) else {
            return;
        };
        let account = record.account.as_ref();
        let account = account.and_then(|id| view.account(id.as_str()));
        let limited = limited(view, &record.key, account.map(Rc::as_ref));
        let now = self.host.recently();
        self.limiter
            .charge(&mut self.host, try_id, &limited, tokens, now);
    }

    /// Ends the wait of a request, for whatever it waited.
    pub fn stop_waiting(&mut self, context: u32) {
        self.waiting.remove(context);
        self.starting.remove(context);
        self.decoding.remove(context);
    }

    /// Ends `context`, the gate's of a request that may still be `undecided`, and that had no answer where it is
    /// `unanswered_beyond` its key's share of connections. Gives an unanswered
    /// probe back to the board. Records a request without an answer as cut off. Returns true if
    /// that frees a place, and requests wait for one here alone.
    pub fn end(
        &mut self,
        context: u32,
        undecided: Option<&Request>,
        unanswered_beyond: Option<KeyName>,
    ) -> bool {
        let try_id = self.try_id(context);
        self.give_back_probes(context);
        self.stop_waiting(context);
        let mut unanswered = undecided.and_then(|request| self.record(request));
        let mut runs_again = false;
        if let Some(sent) = self.sent.remove(try_id) {
            runs_again = sent.redirected;
            self.gate.ended(&sent.account);
            unanswered = sent.record.filter(|_| !sent.redirected);
            if let Some(record) = &mut unanswered {
                record.left_unanswered(sent.request_bytes);
            }
        }
        if let Some(record) = unanswered {
            let now = self.host.now();
            self.keep(record.ended(now), try_id);
        }
        let now = self.host.recently();
        self.limiter.release(&mut self.host, context, now);
        if let Some(key) = unanswered_beyond.filter(|_| !runs_again) {
            self.connections.break_off(key, now);
            self.book.end_without_answer(context, now);
        }
        self.book.end(context, runs_again, now);
        self.limiter.take_freed()
            && self.waiting.has_any_for_place()
            && !queues::others_wait(&*self.host, try_id.vm, now)
    }

    /// Returns the requests that were sent on.
    pub fn sent(&mut self) -> &mut Tries {
        &mut self.sent
    }

    /// Finds what the property `text` is about.
    pub fn find(&mut self, text: &[u8]) -> Option<Found> {
        let carried = self.sent.carried(text)?;
        let view = self.view()?;
        let account = view.account(carried.account.as_str())?;
        let platform = view.platform(&account.platform)?;
        let endpoint = attempt::endpoint(platform, view.doors(), &carried)?;
        let door = view.doors()?.get(carried.door)?;
        Some(Found {
            estimates: endpoint.estimates(door),
            account: Rc::clone(account),
            platform: Rc::clone(platform),
            carried,
        })
    }

    /// Returns the view that the gate used; reads it anew where this VM has none.
    fn view(&mut self) -> Option<&View> {
        if self.follower.current().is_some() {
            return self.follower.current();
        }
        self.follower.view(&self.host)
    }
}
