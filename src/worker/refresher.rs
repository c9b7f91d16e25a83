//! The talk of a VM with the refresher: calls at each tick, and their answers.

use std::time::Duration;

use super::Worker;
use crate::{
    deadline::Deadline,
    home::{Home, ThingHash, ring},
    host::{Call, CallId, Host},
    id::Id,
    snapshot::View,
    sync::{
        confirmed,
        poll::{Answer, Poll},
        queues,
        report::{REPEAT_MS, Report},
    },
};

/// The interval at which the VM that polls looks for quotas that the refresher has not heard of, in
/// milliseconds.
const TELL_MS: u64 = 1_000;

/// The time that the refresher may take over a batch of reports or records, or over counts.
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that the refresher may take to say which account has a thing.
const HOME_TIMEOUT: Duration = Duration::from_millis(1_800);

/// The path at which the refresher says which account has a thing that a client key names.
pub fn home_path(thing: &ThingHash, key: &Id) -> String {
    format!("/homes/{thing}?key={key}")
}

/// The milliseconds after the end of its time at which a call without an answer is lost: Envoy ends it in time, but tells
/// nobody if the root that made it is gone.
const LOST_MS: u64 = 1_000;

/// The calls whose answers are yet to come.
#[derive(Debug, Default)]
pub(super) struct Calls {
    poll: Option<Pending>,
    report: Option<Pending>,
    records: Option<Pending>,
    counts: Option<Pending>,
}

/// A call whose answer is yet to come.
#[derive(Debug)]
struct Pending {
    id: CallId,
    /// No answer will come after that.
    until: Deadline,
}

// === impl Worker ===

impl<H: Host> Worker<H> {
    /// Takes note of the time, and sends what is to be sent now.
    pub fn tick(&mut self) {
        let now = self.host.now();
        self.give_lost_calls_up(now);
        let Some(sync) = &mut self.sync else {
            return;
        };
        let totals = std::mem::take(&mut self.totals);
        let dropped = self.records.take_dropped();
        sync.metrics.count(&mut *self.host, &totals, dropped);
        let records = self.records.next(&sync.origin, now);
        self.limiter.tick(&mut self.host, now);
        self.book.tick(&mut self.host, now);
        self.connections.tick(&mut self.host, now);
        if self.waiting.has_any_for_place() {
            queues::note(&mut self.host, sync.holder.number(), now);
        }
        let (mut poll, mut counts) = (None, None);
        if sync.holder.hold(&mut self.host, now) {
            poll = sync.poller.poll(&self.host, now);
            self.follower.follow(&self.host);
            // Who has no view does not know.
            if self.follower.current().is_none_or(View::has_limits) {
                counts = sync.settler.next(&mut self.host, now);
            }
            self.tell();
        }
        let number = self.sync.as_ref().map(|sync| sync.holder.number());
        let report = number.and_then(|number| self.reports.next(number, now));
        self.send_report(report);
        self.send_records(records);
        self.send_counts(counts);
        self.send_poll(poll);
        self.ask_for_homes(now);
    }

    /// Takes the answer to a call: its status, empty where there was none, and its body, which is
    /// read only where it matters. Returns true if it may have brought what requests wait for.
    pub fn answered(
        &mut self,
        call: CallId,
        status: &[u8],
        body: impl FnOnce() -> Vec<u8>,
    ) -> bool {
        let Calls {
            poll,
            report,
            records,
            counts,
        } = &mut self.calls;
        let is_it = |one: &mut Pending| one.id == call;
        if poll.take_if(is_it).is_some() {
            self.polled(status, &body());
            true
        } else if report.take_if(is_it).is_some() {
            self.reports.answered(status);
            false
        } else if records.take_if(is_it).is_some() {
            self.recorded(status);
            false
        } else if counts.take_if(is_it).is_some() {
            self.counted(status, &body());
            true
        } else {
            self.heard_of_home(call, status, body)
        }
    }

    /// Takes note that a root is gone, and with it the answers to the calls that it made: which ones these are nobody keeps,
    /// so the next tick makes all of them anew. The refresher takes none of them twice.
    pub fn lose_calls(&mut self) {
        let Calls {
            poll,
            report,
            records,
            counts,
        } = &mut self.calls;
        for one in [poll, report, records, counts].into_iter().flatten() {
            one.until = Deadline::default();
        }
    }

    /// Gives the calls up to which no answer will come.
    fn give_lost_calls_up(&mut self, now: u64) {
        let Calls {
            poll,
            report,
            records,
            counts,
        } = &mut self.calls;
        let is_lost = |one: &mut Pending| one.until.is_due(now);
        let [poll, report, records, counts] =
            [poll, report, records, counts].map(|one| one.take_if(is_lost).is_some());
        if poll && let Some(sync) = &mut self.sync {
            sync.poller.abandon();
        }
        if report {
            self.reports.answered(b"");
        }
        if records {
            self.recorded(b"");
        }
        if counts {
            self.counted(b"", b"");
        }
    }

    /// Asks which accounts have what requests name.
    fn ask_for_homes(&mut self, now: u64) {
        let Self {
            asked,
            host,
            settings,
            ..
        } = self;
        asked.ask(now, |thing, key| {
            host.call(&Call {
                cluster: &settings.refresher_cluster,
                method: "GET",
                path: &home_path(thing, key),
                body: None,
                timeout: HOME_TIMEOUT,
            })
        });
    }

    /// Takes the answer to that. Returns true if requests wait for it.
    fn heard_of_home(
        &mut self,
        call: CallId,
        status: &[u8],
        body: impl FnOnce() -> Vec<u8>,
    ) -> bool {
        let now = self.host.now();
        let Some(told) = self.asked.answered(call, status, body, now) else {
            return false;
        };
        if let Home::At(account) = told.home {
            ring::note(&mut self.host, &told.thing, &told.key, account);
        }
        told.is_last
    }

    /// Reports what lies in shared data and the refresher has not heard of.
    fn tell(&mut self) {
        let now = self.host.recently();
        let Some(sync) = &mut self.sync else {
            return;
        };
        if !sync.tell_at.is_due(now) {
            return;
        }
        sync.tell_at = Deadline::after(now, TELL_MS);
        self.follower.follow(&self.host);
        let (board, reports) = (self.follower.board(), &mut self.reports);
        sync.told
            .tell(board.quotas(), now, |report| reports.push(report));
        if sync.repeat_at.is_due(now) {
            sync.repeat_at = Deadline::after(now, REPEAT_MS);
            let untold = board.untold(now.saturating_sub(REPEAT_MS), now);
            for report in untold.filter_map(Report::of) {
                reports.push(report);
            }
        }
    }

    /// Takes the answer to a poll, and sends the next one.
    fn polled(&mut self, status: &[u8], body: &[u8]) {
        let now = self.host.now();
        let Some(sync) = &mut self.sync else {
            return;
        };
        if !sync.holder.hold(&mut self.host, now) {
            sync.poller.abandon();
            return;
        }
        match sync.poller.answered(&mut self.host, status, body, now) {
            Answer::Applied(applied) => {
                confirmed::note(&mut *self.host, now);
                self.host.set(sync.metrics.revision, applied.head.revision);
                for health in &applied.health {
                    sync.told.hear(health);
                }
                let unread = applied.unread.len();
                if let Some(first) = applied.unread.first() {
                    let number = u64::try_from(unread).unwrap_or(u64::MAX);
                    self.host.add(sync.metrics.records_unread, number);
                    log::error!(
                        "{unread} records of the snapshot cannot be read and are out of use, first {first}"
                    );
                }
                self.follower.follow(&self.host);
                if self.follower.is_torn() {
                    log::warn!("the snapshot in shared data is damaged; asking for it anew");
                    sync.poller.start_anew();
                }
                let next = sync.poller.poll(&self.host, now);
                self.send_poll(next);
            }
            Answer::Refused(refused) => {
                self.host.add(sync.metrics.pages_refused, 1);
                log::error!(
                    "a page of the snapshot was refused, the last good state stays: {refused}"
                );
            }
            Answer::Failed { first } => {
                self.host.add(sync.metrics.polls_failed, 1);
                if first {
                    log::warn!(
                        "the refresher cannot be reached; the last good snapshot stays in use"
                    );
                }
            }
        }
    }

    /// Takes the answer to a batch of records, and sends the next one where it is due at once.
    fn recorded(&mut self, status: &[u8]) {
        let now = self.host.now();
        let Some(sync) = &self.sync else { return };
        let next = self.records.answered(status, &sync.origin, now);
        self.send_records(next);
    }

    /// Takes the answer to what was counted.
    fn counted(&mut self, status: &[u8], body: &[u8]) {
        let now = self.host.now();
        if let Some(sync) = &mut self.sync {
            sync.settler.answered(&mut self.host, status, body, now);
        }
    }

    fn send_poll(&mut self, poll: Option<Poll>) {
        let Some(poll) = poll else { return };
        let timeout = Duration::from_secs(poll.timeout_seconds);
        self.calls.poll = self.call("GET", &poll.path, None, timeout);
        if let (None, Some(sync)) = (&self.calls.poll, &mut self.sync) {
            self.host.add(sync.metrics.polls_failed, 1);
            sync.poller.failed(self.host.recently());
        }
    }

    fn send_report(&mut self, body: Option<String>) {
        let Some(body) = body else { return };
        self.calls.report = self.post("/reports", &body);
        if self.calls.report.is_none() {
            self.reports.answered(b"");
        }
    }

    fn send_records(&mut self, body: Option<String>) {
        let Some(body) = body else { return };
        self.calls.records = self.post("/reports", &body);
        if let (None, Some(sync)) = (&self.calls.records, &self.sync) {
            let now = self.host.recently();
            // Nothing follows a batch that was not sent.
            self.records.answered(b"", &sync.origin, now);
        }
    }

    fn send_counts(&mut self, body: Option<String>) {
        let Some(body) = body else { return };
        self.calls.counts = self.post("/counts", &body);
        if self.calls.counts.is_none() {
            self.counted(b"", b"");
        }
    }

    fn post(&mut self, path: &str, body: &str) -> Option<Pending> {
        self.call("POST", path, Some(body), POST_TIMEOUT)
    }

    fn call(
        &mut self,
        method: &'static str,
        path: &str,
        body: Option<&str>,
        timeout: Duration,
    ) -> Option<Pending> {
        let id = self.host.call(&Call {
            cluster: &self.settings.refresher_cluster,
            method,
            path,
            body,
            timeout,
        })?;
        let longest = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let until = Deadline::after(self.host.recently(), longest.saturating_add(LOST_MS));
        Some(Pending { id, until })
    }
}
