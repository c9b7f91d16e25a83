//! What the contexts of one VM share.

use std::{cell::RefCell, collections::HashMap};

use super::{
    config::Config,
    envoy::{self, EnvoySharedData, Metric},
    gate::Waiting,
};
use crate::{
    attempt::{is_posted, is_refreshable, is_worth_another, passage::Passage},
    gate::{Decision, Gate, Knowledge, Reply, Request, peek::Wanted},
    header::HeaderText,
    id::Id,
    limit::{Asked, Limiter, settle::Settler, table},
    snapshot::{Account, View},
    sync::{
        board,
        follow::Follower,
        lease::Holder,
        poll::{Answer, Poll, Poller},
        report::{Report, ReportKind, Reports},
    },
    verdict::Verdict,
};

/// The most requests that wait in one VM; the next one is refused at once. Each keeps a body of up
/// to 32 MiB in Envoy, and all are decided about anew at each tick.
const MAX_WAITING: usize = 64;

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
    waiting: Vec<Held>,
    /// The account of each context's request that was sent on.
    sent: HashMap<u32, Id>,
    limiter: Limiter,
    settings: Settings,
    /// Unix milliseconds at the last tick: exact enough for expiry, and a hostcall a request less.
    now: u64,
    sync: Option<Sync>,
}

/// A request that waits at the gate.
#[derive(Debug)]
struct Held {
    context: u32,
    waiting: Waiting,
    /// Until when, in Unix milliseconds.
    until: u64,
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
    poller: Poller,
    settler: Settler,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    revision: Metric,
    polls_failed: Metric,
    pages_refused: Metric,
}

/// What a tick asks for.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// A request to `GET`.
    pub(super) poll: Option<Poll>,
    /// A body to `POST` to `/reports`.
    pub(super) report: Option<String>,
    /// A body to `POST` to `/counts`.
    pub(super) counts: Option<String>,
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
                settler: Settler::default(),
                poller: Poller::new(config.poll_wait_seconds),
                metrics: Metrics {
                    revision: Metric::gauge("snapshot_revision"),
                    polls_failed: Metric::counter("polls_failed"),
                    pages_refused: Metric::counter("pages_refused"),
                },
            });
        }
    }

    /// Takes note of the time; what is to be sent now.
    pub(super) fn tick(&mut self) -> Due {
        self.now = envoy::now();
        let Some(sync) = &mut self.sync else {
            return Due::default();
        };
        let report = self.reports.next(sync.holder.number(), self.now);
        self.limiter.tick(&mut self.shared, self.now);
        let (mut poll, mut counts) = (None, None);
        if sync.holder.hold(&mut self.shared, self.now) {
            poll = sync.poller.poll(&self.shared, self.now);
            if self
                .follower
                .view(&self.shared)
                .is_some_and(View::has_limits)
            {
                counts = sync.settler.next(&mut self.shared, self.now);
            }
        }
        Due {
            poll,
            report,
            counts,
        }
    }

    /// Takes the answer to a poll; the next poll to send at once.
    pub(super) fn polled(&mut self, status: &[u8], body: &[u8]) -> Option<Poll> {
        self.now = envoy::now();
        let sync = self.sync.as_mut()?;
        if !sync.holder.hold(&mut self.shared, self.now) {
            sync.poller.abandon();
            return None;
        }
        match sync
            .poller
            .answered(&mut self.shared, status, body, self.now)
        {
            Answer::Applied(head) => {
                sync.metrics.revision.set(head.revision);
                self.follower.view(&self.shared);
                if self.follower.is_torn() {
                    log::warn!("the snapshot in shared data is damaged; asking for it anew");
                    sync.poller.start_anew();
                }
                sync.poller.poll(&self.shared, self.now)
            }
            Answer::Refused(refused) => {
                sync.metrics.pages_refused.increment();
                log::error!(
                    "a page of the snapshot was refused, the last good state stays: {refused}"
                );
                None
            }
            Answer::Failed { first } => {
                sync.metrics.polls_failed.increment();
                if first {
                    log::warn!(
                        "the refresher cannot be reached; the last good snapshot stays in use"
                    );
                }
                None
            }
        }
    }

    /// Notes that a poll could not be sent.
    pub(super) fn poll_failed(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.metrics.polls_failed.increment();
            sync.poller.failed(self.now);
        }
    }

    /// Takes the answer to a report; empty where it could not be sent.
    pub(super) fn reported(&mut self, status: &[u8]) {
        self.reports.answered(status);
    }

    /// Takes the answer to what was counted; empty where it could not be sent.
    pub(super) fn counted(&mut self, status: &[u8], body: &[u8]) {
        if let Some(sync) = &mut self.sync {
            sync.settler
                .answered(&mut self.shared, status, body, self.now);
        }
    }

    /// Unix milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// What of a request's body is worth reading before it is decided about.
    pub(super) fn ask(&mut self, request: &mut Request) -> Result<Wanted, Reply> {
        self.follower.view(&self.shared);
        let knowledge = Knowledge {
            view: self.follower.held(),
            board: self.follower.board(),
            full: self.limiter.full(),
            now: self.now,
            may_wait: false,
        };
        self.gate.ask(request, &knowledge)
    }

    /// Decides about the request of a context. One that is to wait is remembered, with the end of
    /// its patience; one that waits already keeps its own.
    pub(super) fn decide(&mut self, context: u32, waiting: &Waiting) -> Decision {
        self.follower.view(&self.shared);
        let waits = self.waiting.iter().find(|one| one.context == context);
        let until = match waits {
            Some(waits) => waits.until,
            None => self.now.saturating_add(self.settings.refresh_wait),
        };
        let has_place = waits.is_some() || self.waiting.len() < MAX_WAITING;
        let may_wait = self.now < until && has_place;
        let request = waiting.request();
        let asked = Asked {
            context,
            last_pass: request.passed(),
            view: self.follower.held(),
            now: self.now,
        };
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
                    may_wait,
                };
                gate.decide(request, &knowledge)
            });
        let decision =
            decision.unwrap_or_else(|refusal| Decision::Reply(request.refused(&refusal)));
        match &decision {
            Decision::Wait if waits.is_none() => self.waiting.push(Held {
                context,
                waiting: waiting.clone(),
                until,
            }),
            Decision::Wait => {}
            Decision::Forward(forward) => {
                if forward.half_open {
                    let (account, now) = (&forward.account, self.now);
                    let model = forward.passage.model.as_ref().map(HeaderText::as_str);
                    board::update(&mut self.shared, |board| {
                        board.probe(account, model, now);
                        true
                    });
                }
                self.waiting.retain(|one| one.context != context);
                self.gate.began(&forward.account.id);
                self.sent.insert(context, forward.account.id.clone());
            }
            Decision::Reply(_) => self.waiting.retain(|one| one.context != context),
        }
        decision
    }

    /// The requests that wait, by their contexts.
    pub(super) fn waiting(&self) -> Vec<(u32, Waiting)> {
        let one = |one: &Held| (one.context, one.waiting.clone());
        self.waiting.iter().map(one).collect()
    }

    /// The context is no more.
    pub(super) fn end(&mut self, context: u32) {
        self.waiting.retain(|one| one.context != context);
        if let Some(account) = self.sent.remove(&context) {
            self.gate.ended(&account);
        }
        self.limiter.release(&mut self.shared, context, self.now);
    }

    /// Takes a verdict about an account; what its request is to be when it runs again, if it is to.
    pub(super) fn judged(
        &mut self,
        account: &Account,
        passage: &Passage,
        verdict: &Verdict,
    ) -> Option<Passage> {
        let now = self.now;
        if is_posted(verdict, account, passage, self.follower.board()) {
            let model = passage.model.as_ref().map(HeaderText::as_str);
            board::update(&mut self.shared, |board| match verdict {
                Verdict::Fine => board.clear(account, model),
                verdict => board.post(account, verdict, now),
            });
        }
        // The refresher knows for itself which accounts it can refresh.
        let expired = *verdict == Verdict::CredentialExpired;
        if expired {
            self.reports.push(Report {
                account: account.id.clone(),
                generation: account.generation,
                kind: ReportKind::Unauthorized,
            });
        }
        if !is_worth_another(verdict) {
            return None;
        }
        let Settings {
            max_attempts,
            failover,
            ..
        } = self.settings;
        let next = passage.after_failure(account.generation, now, max_attempts, failover)?;
        // The platform's own answer is better than ours where nobody else can serve.
        self.follower.view(&self.shared);
        let knowledge = Knowledge {
            view: self.follower.held(),
            board: self.follower.board(),
            full: self.limiter.full(),
            now,
            may_wait: false,
        };
        let worth_waiting = expired && is_refreshable(account) && self.settings.refresh_wait > 0;
        if !worth_waiting && !self.gate.can_serve(&next, &knowledge) {
            return None;
        }
        self.limiter.moves(passage.slot);
        Some(next)
    }

    /// The view that the gate used; read anew where this VM has none.
    pub(super) fn view(&mut self) -> Option<&View> {
        if self.follower.held().is_some() {
            return self.follower.held();
        }
        self.follower.view(&self.shared)
    }
}
