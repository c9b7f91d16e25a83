//! What the contexts of one VM share.

use std::cell::RefCell;

use super::{
    config::Config,
    envoy::{self, EnvoySharedData, Metric},
};
use crate::{
    gate::{Decision, Gate},
    header::HeaderMap,
    snapshot::View,
    sync::{
        follow::Follower,
        lease::Holder,
        poll::{Answer, Poll, Poller},
        report::{Report, Reports},
    },
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
    /// Unix milliseconds at the last tick: exact enough for expiry, and a hostcall a request less.
    now: u64,
    sync: Option<Sync>,
}

/// What only a VM with a configured gate has.
#[derive(Debug)]
struct Sync {
    holder: Holder,
    poller: Poller,
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
        if self.sync.is_none() {
            self.sync = Some(Sync {
                holder: Holder::register(&mut self.shared),
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
        let poll = if sync.holder.hold(&mut self.shared, self.now) {
            sync.poller.poll(&self.shared, self.now)
        } else {
            None
        };
        Due { poll, report }
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

    /// Keeps a report for the next tick.
    pub(super) fn report(&mut self, report: Report) {
        self.reports.push(report);
    }

    /// Decides about a request.
    pub(super) fn decide(&mut self, headers: &HeaderMap) -> Decision {
        let view = self.follower.view(&self.shared);
        self.gate.decide(headers, view, self.now)
    }

    /// The view that the gate used; read anew where this VM has none.
    pub(super) fn view(&mut self) -> Option<&View> {
        if self.follower.held().is_some() {
            return self.follower.held();
        }
        self.follower.view(&self.shared)
    }
}
