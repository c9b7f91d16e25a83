//! What the contexts of one VM share.

mod refresher;

use std::{cell::RefCell, rc::Rc};

use super::{
    config::Config,
    envoy::{self, EnvoySharedData},
    gate::Waiting,
    sent::Tries,
    stats::{Metrics, Totals},
};
use crate::{
    attempt::{is_posted, is_refreshable, is_worth_another},
    dialect::Dialect,
    gate::{Asked, Decision, Gate, Knowledge, Reply, Request},
    header::HeaderText,
    health::{Change, MAX_ENTRIES, quota::Known},
    id::Id,
    label::ModelName,
    limit::{Limiter, limited, settle::Settler, table},
    request::carried::{Carried, TryId},
    request::peek::Wanted,
    request::record::Record,
    snapshot::{Account, View},
    sync::{
        board,
        follow::Follower,
        lease::Holder,
        poll::Poller,
        quota::{self, Looks, Told},
        records::{Origin, Records},
        report::{Report, Reports},
    },
    verdict::{Quota, Reason, Verdict},
    worker::places,
};

thread_local! {
    static VM: RefCell<Vm> = RefCell::new(Vm::default());
}

/// One VM's state.
#[derive(Debug, Default)]
pub(super) struct Vm {
    shared: EnvoySharedData,
    follower: Follower,
    gate: Gate,
    reports: Reports,
    waiting: Vec<Waits>,
    /// The probes whose requests have no answer yet; one an account at a time, or nearly so.
    probes: Vec<Probe>,
    looks: Looks,
    records: Records,
    /// Each context's request that was sent on.
    pub(super) sent: Tries,
    totals: Totals,
    limiter: Limiter,
    settings: Settings,
    /// Unix milliseconds at the last tick or decision.
    now: u64,
    sync: Option<Sync>,
}

/// A request that waits at the gate.
#[derive(Debug)]
struct Waits {
    context: u32,
    /// Its client key.
    key: Id,
    waiting: Waiting,
    /// Until when, in Unix milliseconds.
    until: u64,
}

/// A request that is the probe of a half-open account.
#[derive(Debug)]
struct Probe {
    context: u32,
    account: Id,
    /// When it was taken, in Unix milliseconds.
    at: u64,
}

/// What the operator set, in milliseconds.
#[derive(Debug, Default)]
struct Settings {
    max_attempts: usize,
    failover: u64,
    refresh_wait: u64,
}

/// What only a VM with a configured gate has.
#[derive(Debug)]
struct Sync {
    holder: Holder,
    origin: Origin,
    poller: Poller,
    settler: Settler,
    metrics: Metrics,
    told: Told,
    /// When the refresher is to hear of quotas next, and of what it has not said that it has, in
    /// Unix milliseconds.
    tell_at: u64,
    repeat_at: u64,
}

/// What the gate may know at `now` of a request that it does not send on.
fn knowledge<'a>(follower: &'a Follower, limiter: &'a Limiter, now: u64) -> Knowledge<'a> {
    Knowledge {
        view: follower.held(),
        board: follower.board(),
        full: limiter.full(),
        now,
        try_id: TryId::default(),
        may_wait: false,
    }
}

/// Runs `f` on the VM's state. None where a callback runs inside another, which Envoy does not
/// do; callers fail closed.
pub(super) fn with<T>(f: impl FnOnce(&mut Vm) -> T) -> Option<T> {
    VM.with(|vm| vm.try_borrow_mut().ok().map(|mut vm| f(&mut vm)))
}

// === impl Vm ===

impl Vm {
    /// Prepares the VM for a gate. A second gate of the same VM shares what the first made.
    pub(super) fn configure(&mut self, config: &Config) {
        self.now = envoy::now();
        self.settings = Settings {
            max_attempts: config.max_attempts,
            failover: config.failover_seconds.saturating_mul(1_000),
            refresh_wait: config.refresh_wait_seconds.saturating_mul(1_000),
        };
        if self.sync.is_none() {
            let holder = Holder::register(&mut self.shared);
            table::prepare(&mut self.shared, &envoy::seed());
            self.limiter = Limiter::new(holder.number());
            self.sync = Some(Sync {
                holder,
                origin: Origin {
                    instance: table::instance(&self.shared),
                    vm: holder.number(),
                    node: envoy::node(),
                },
                settler: Settler::default(),
                poller: Poller::new(config.poll_wait_seconds),
                metrics: Metrics::define(),
                told: Told::default(),
                tell_at: 0,
                repeat_at: 0,
            });
        }
    }

    /// Unix milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Takes note of the time, and of what shared data has of the snapshot and the board.
    fn look(&mut self) {
        self.now = envoy::now();
        let moved = self.shared.take_moved();
        self.follower.look(&self.shared, self.now, moved);
    }

    /// What of a request's body is worth reading before it is decided about.
    pub(super) fn ask(&mut self, request: &mut Request) -> Result<Wanted, Reply> {
        self.look();
        let knowledge = knowledge(&self.follower, &self.limiter, self.now);
        let asked = self.gate.ask(request, &knowledge);
        let is_new = request.carried().is_none();
        match &asked {
            Ok(_) if is_new => self.records.begin(self.now),
            Ok(_) => {}
            Err(reply) => {
                let record = self.record(request);
                if is_new && record.is_some() && reply.code().is_some() {
                    self.records.begin(self.now);
                }
                self.refused(record, reply);
            }
        }
        asked
    }

    /// Refuses a request whose body is yet to come where its client key is at a limit.
    pub(super) fn let_in(&mut self, request: &Request) -> Result<(), Reply> {
        let view = self.follower.held();
        let Some(key) = view.and_then(|view| request.client_key(view)) else {
            return Ok(());
        };
        let (limiter, shared) = (&self.limiter, &mut self.shared);
        let Err(refusal) = limiter.let_in(shared, key, envoy::now) else {
            return Ok(());
        };
        let reply = request.refused(&refusal);
        self.refused(self.record(request), &reply);
        Err(reply)
    }

    /// Keeps the record of a request that the gate answered with an error.
    fn refused(&mut self, record: Option<Record>, reply: &Reply) {
        let Some(code) = reply.code() else { return };
        self.totals.refused = self.totals.refused.saturating_add(1);
        if let Some(record) = record {
            self.keep(
                record.answered(reply.status, code, self.now),
                TryId::default(),
            );
        }
    }

    /// Keeps the record of a request that has come to its end; `try_id` is its last, if it had one.
    pub(super) fn keep(&mut self, record: Record, try_id: TryId) {
        let usage = record.usage.unwrap_or_default();
        self.charge(&record, try_id, usage.total);
        let totals = &mut self.totals;
        totals.requests = totals.requests.saturating_add(1);
        totals.tokens_input = totals.tokens_input.saturating_add(usage.input);
        totals.tokens_output = totals.tokens_output.saturating_add(usage.output);
        self.records.push(record, self.now);
    }

    /// Counts the tokens of a request that has ended, where its key or its account has limits.
    fn charge(&mut self, record: &Record, try_id: TryId, tokens: u64) {
        let Some(view) = self.follower.held().filter(|_| tokens > 0) else {
            return;
        };
        let account = record.account.as_ref();
        let account = account.and_then(|id| view.account(id.as_str()));
        let limited = limited(view, &record.key, account.map(Rc::as_ref));
        self.limiter
            .charge(&mut self.shared, try_id, &limited, tokens, self.now);
    }

    /// The try of a context.
    pub(super) fn try_id(&self, context: u32) -> TryId {
        let vm = self.sync.as_ref().map(|sync| sync.holder.number());
        TryId {
            vm: vm.unwrap_or_default(),
            context,
        }
    }

    /// The answer of that try became a redirect.
    pub(super) fn redirected(&mut self, try_id: TryId) {
        self.totals.failovers = self.totals.failovers.saturating_add(1);
        self.sent.redirected(try_id);
    }

    /// Decides about the request of a context. One that is to wait is remembered, with the end of
    /// its patience; one that waits already keeps its own.
    pub(super) fn decide(&mut self, context: u32, waiting: &Waiting) -> Decision {
        self.look();
        let waits = self.waiting.iter().find(|one| one.context == context);
        let until = match waits {
            Some(waits) => waits.until,
            None => self.now.saturating_add(self.settings.refresh_wait),
        };
        let request = waiting.request();
        let others = self.waiting.iter().map(|one| &one.key);
        let has_place = waits.is_some()
            || self.waiting.is_empty()
            || request
                .key_id(self.follower.held())
                .is_some_and(|key| places::has_place(others, key));
        // A clock that was set back makes nobody wait longer.
        let patience = until.saturating_sub(self.now);
        let may_wait = (1..=self.settings.refresh_wait).contains(&patience) && has_place;
        let asked = Asked {
            context,
            last_try: request.carried(),
            view: self.follower.held(),
            now: self.now,
        };
        let try_id = self.try_id(context);
        let board = self.follower.board();
        let gate = &mut self.gate;
        let decision = self
            .limiter
            .decide(&mut self.shared, &asked, envoy::now, |full, now| {
                let knowledge = Knowledge {
                    view: asked.view,
                    board,
                    full,
                    now,
                    try_id,
                    may_wait,
                };
                gate.decide(request, &knowledge)
            });
        let decision =
            decision.unwrap_or_else(|refusal| Decision::Reply(request.refused(&refusal)));
        match &decision {
            Decision::Wait if waits.is_some() => {}
            Decision::Wait => {
                // Who is not known is refused, and does not wait.
                if let Some(key) = request.key_id(asked.view) {
                    self.waiting.push(Waits {
                        context,
                        key: key.clone(),
                        waiting: waiting.clone(),
                        until,
                    });
                }
            }
            Decision::Forward(forward) => {
                if forward.half_open {
                    let (account, now) = (&forward.account, self.now);
                    let model = forward.carried.model.as_ref().map(HeaderText::as_str);
                    board::update(&mut self.shared, |board| {
                        board.probe(account, model, now);
                        true
                    });
                    if self.probes.len() < MAX_ENTRIES {
                        self.probes.push(Probe {
                            context,
                            account: account.id.clone(),
                            at: now,
                        });
                    }
                }
                self.waiting.retain(|one| one.context != context);
                self.gate.began(&forward.account.id);
                let (carried, account) = (&forward.carried, &forward.account);
                let dialect = Dialect::of_path(carried.url.path(), false);
                let record = Record::of_attempt(carried, &account.platform, dialect);
                self.sent.insert(carried.try_id, account.id.clone(), record);
            }
            Decision::Reply(reply) => {
                let record = self.record(waiting.request());
                self.waiting.retain(|one| one.context != context);
                self.refused(record, reply);
            }
        }
        decision
    }

    /// The requests that wait, by their contexts.
    pub(super) fn waiting(&self) -> Vec<(u32, Waiting)> {
        let one = |one: &Waits| (one.context, one.waiting.clone());
        self.waiting.iter().map(one).collect()
    }

    /// Whether the headers of a good answer of this account are to be looked at.
    pub(super) fn wants_quota(&mut self, account: &Account) -> bool {
        self.looks.is_due(&account.id, self.now)
    }

    /// Takes what an answer says of an account's windows.
    pub(super) fn quota(&mut self, account: &Account, quota: Quota) {
        let known = Known::new(quota.windows, self.now);
        let held = self.follower.board().quotas().of(&account.id);
        // What this VM has read may be old, but not so that it takes every answer for news.
        if held.is_none_or(|held| held.is_news(&known)) && !known.windows.is_empty() {
            quota::note(&mut self.shared, &account.id, &known);
        }
    }

    /// The record of a request that is not sent on, as far as it goes. None where its key is not
    /// known.
    pub(super) fn record(&self, request: &Request) -> Option<Record> {
        let knowledge = knowledge(&self.follower, &self.limiter, self.now);
        self.gate.record(request, &knowledge)
    }

    /// The record of the request of a context that waits, and does no longer.
    pub(super) fn stop_waiting(&mut self, context: u32) -> Option<Record> {
        let at = self.waiting.iter().position(|one| one.context == context)?;
        let held = self.waiting.swap_remove(at);
        self.record(held.waiting.request())
    }

    /// The context is no more: its request is at its end, or goes into another try. A probe that
    /// it was and that has no answer is given back, and a request without one was cut off, as was
    /// the one of which it still `reads` the body.
    pub(super) fn end(&mut self, context: u32, reads: Option<&Request>) {
        while let Some(index) = self.probes.iter().position(|one| one.context == context) {
            let probe = self.probes.swap_remove(index);
            board::update(&mut self.shared, |board| {
                board.give_back(&probe.account, probe.at)
            });
        }
        let mut unanswered = reads.and_then(|request| self.record(request));
        unanswered = unanswered.or_else(|| self.stop_waiting(context));
        if let Some(sent) = self.sent.remove(self.try_id(context)) {
            self.gate.ended(&sent.account);
            unanswered = sent.open.filter(|_| !sent.redirected);
            if let Some(record) = &mut unanswered {
                record.left(sent.request_bytes);
            }
        }
        if let Some(record) = unanswered {
            self.now = envoy::now();
            self.keep(record.ended(self.now), self.try_id(context));
        }
        self.limiter.release(&mut self.shared, context, self.now);
    }

    /// Takes a verdict about an account; what its request is to be when it runs again, if it
    /// `can_run` and is to.
    pub(super) fn judged(
        &mut self,
        account: &Account,
        carried: &Carried,
        verdict: &Verdict,
        can_run: bool,
    ) -> Option<Carried> {
        let now = self.now;
        let sent = self.sent.get_mut(carried.try_id);
        let broke_off = sent.as_ref().is_some_and(|sent| sent.broke_off);
        if let Some(record) = sent.and_then(|sent| sent.open.as_mut()) {
            record.verdict = Some(Reason::known(verdict.word()));
        }
        // Where a platform hangs up in the middle of a request, its caller may have been too slow
        // for it: whoever dawdles must not have accounts taken out.
        if !broke_off {
            self.learn(account, carried, verdict);
        }
        if !can_run || !is_worth_another(verdict) {
            return None;
        }
        let Settings {
            max_attempts,
            failover,
            ..
        } = self.settings;
        let next = carried.after_failure(account.generation, now, max_attempts, failover)?;
        // The platform's own answer is better than ours where nobody else can serve.
        self.follower.view(&self.shared);
        let knowledge = knowledge(&self.follower, &self.limiter, now);
        let expired = *verdict == Verdict::CredentialExpired;
        let worth_waiting = expired && is_refreshable(account) && self.settings.refresh_wait > 0;
        if !worth_waiting && !self.gate.can_serve(&next, &knowledge) {
            return None;
        }
        Some(next)
    }

    /// Takes a verdict about an account, for other requests.
    pub(super) fn learn(&mut self, account: &Account, carried: &Carried, verdict: &Verdict) {
        if *verdict != Verdict::CallersFault {
            self.probes.retain(|probe| probe.account != account.id);
        }
        if is_posted(verdict, account, carried, self.follower.board()) {
            let model = carried.model.as_ref();
            self.post(account, model, verdict);
        }
        // The refresher knows for itself which accounts it can refresh.
        if *verdict == Verdict::CredentialExpired {
            self.reports.push(Report::Unauthorized {
                account: account.id.clone(),
                generation: account.generation,
            });
        }
    }

    /// A good answer of an account came to its good end, which wipes out its strikes.
    pub(super) fn ended_well(&mut self, account: &Account, carried: &Carried) {
        let model = carried.model.as_ref();
        let board = self.follower.board();
        if board.has_guess(account, model.map(HeaderText::as_str)) {
            self.post(account, model, &Verdict::Fine);
        }
    }

    /// Posts a verdict, and reports what it changes for requests.
    fn post(&mut self, account: &Account, model: Option<&HeaderText>, verdict: &Verdict) {
        let (now, mut change) = (self.now, Change::Nothing);
        board::update(&mut self.shared, |board| {
            change = board.learn(account, model.map(HeaderText::as_str), verdict, now);
            change != Change::Nothing
        });
        let report = match &change {
            Change::Out(entry) => Report::of(entry),
            Change::Recovered => Some(Report::Recovered {
                account: account.id.clone(),
                model: model.and_then(|model| ModelName::try_from(model.as_str()).ok()),
                at: now,
            }),
            Change::Nothing | Change::Noted => None,
        };
        if let Some(report) = report {
            self.reports.push(report);
        }
    }

    /// The view that the gate used; read anew where this VM has none.
    pub(super) fn view(&mut self) -> Option<&View> {
        if self.follower.held().is_some() {
            return self.follower.held();
        }
        self.follower.view(&self.shared)
    }
}
