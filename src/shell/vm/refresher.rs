//! What a VM and the refresher tell each other: at each tick what is to be sent, and then what was
//! answered.

use super::Vm;
use crate::{
    shell::envoy,
    snapshot::View,
    sync::{
        poll::{Answer, Poll},
        report::{REPEAT_MS, Report},
    },
};

/// How often the VM that polls looks whether the refresher is to hear of quotas, in milliseconds.
const TELL_MS: u64 = 1_000;

/// What a tick asks for.
#[derive(Debug, Default)]
pub(in crate::shell) struct Due {
    /// A request to `GET`.
    pub(in crate::shell) poll: Option<Poll>,
    /// A body to `POST` to `/reports`.
    pub(in crate::shell) report: Option<String>,
    /// Another one, of records or of how many requests there are.
    pub(in crate::shell) records: Option<String>,
    /// A body to `POST` to `/counts`.
    pub(in crate::shell) counts: Option<String>,
}

// === impl Vm ===

impl Vm {
    /// Takes note of the time; what is to be sent now.
    pub(in crate::shell) fn tick(&mut self) -> Due {
        self.now = envoy::now();
        let Some(sync) = &mut self.sync else {
            return Due::default();
        };
        let totals = std::mem::take(&mut self.totals);
        sync.metrics.count(&totals, self.records.take_dropped());
        let records = self.records.next(&sync.origin, self.now);
        self.limiter.tick(&mut self.shared, self.now);
        let (mut poll, mut counts) = (None, None);
        if sync.holder.hold(&mut self.shared, self.now) {
            poll = sync.poller.poll(&self.shared, self.now);
            let view = self.follower.view(&self.shared);
            if view.is_some_and(View::has_limits) {
                counts = sync.settler.next(&mut self.shared, self.now);
            }
            self.tell();
        }
        let number = self.sync.as_ref().map(|sync| sync.holder.number());
        let report = number.and_then(|number| self.reports.next(number, self.now));
        Due {
            poll,
            report,
            records,
            counts,
        }
    }

    /// Reports what lies in shared data and the refresher has not heard of.
    fn tell(&mut self) {
        let (Some(sync), now) = (&mut self.sync, self.now) else {
            return;
        };
        if now < sync.tell_at && sync.tell_at <= now.saturating_add(TELL_MS) {
            return;
        }
        sync.tell_at = now.saturating_add(TELL_MS);
        self.follower.view(&self.shared);
        let (board, reports) = (self.follower.board(), &mut self.reports);
        sync.told
            .tell(board.quotas(), now, |report| reports.push(report));
        if now >= sync.repeat_at || sync.repeat_at > now.saturating_add(REPEAT_MS) {
            sync.repeat_at = now.saturating_add(REPEAT_MS);
            let untold = board.untold(now.saturating_sub(REPEAT_MS), now);
            for report in untold.filter_map(Report::of) {
                reports.push(report);
            }
        }
    }

    /// Takes the answer to a poll; the next poll to send at once.
    pub(in crate::shell) fn polled(&mut self, status: &[u8], body: &[u8]) -> Option<Poll> {
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
            Answer::Applied(applied) => {
                sync.metrics.revision.set(applied.head.revision);
                for health in &applied.health {
                    sync.told.hear(health);
                }
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
    pub(in crate::shell) fn poll_failed(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.metrics.polls_failed.increment();
            sync.poller.failed(self.now);
        }
    }

    /// Takes the answer to a report; empty where it could not be sent.
    pub(in crate::shell) fn reported(&mut self, status: &[u8]) {
        self.reports.answered(status);
    }

    /// Takes the answer to a batch of records, empty where it could not be sent; the next batch, if
    /// it is to be sent at once.
    pub(in crate::shell) fn recorded(&mut self, status: &[u8]) -> Option<String> {
        self.now = envoy::now();
        let origin = &self.sync.as_ref()?.origin;
        self.records.answered(status, origin, self.now)
    }

    /// Takes the answer to what was counted; empty where it could not be sent.
    pub(in crate::shell) fn counted(&mut self, status: &[u8], body: &[u8]) {
        if let Some(sync) = &mut self.sync {
            sync.settler
                .answered(&mut self.shared, status, body, self.now);
        }
    }
}
