//! The long poll, as a state machine: ticks and answers in, requests out.

use super::{
    publish::{self, Applied, RefusedPage},
    unread,
};
use crate::{deadline::Deadline, host::SharedData, id::Id, snapshot::bucket::Head};

/// The shortest wait after a poll that failed, in milliseconds; it doubles with each failure.
const FIRST_RETRY_MS: u64 = 200;

/// The longest. The refresher is on this machine: asking twice a second costs nothing.
const LAST_RETRY_MS: u64 = 500;

/// The seconds that a poll may take beyond the wait that it asked for.
const GRACE_SECONDS: u64 = 5;

/// Polls the refresher while this VM holds the lease.
#[derive(Debug)]
pub struct Poller {
    wait_seconds: u64,
    /// Names the Envoy process.
    instance: String,
    /// The node id that the operator gave that Envoy.
    node: Option<Id>,
    /// The state that shared data held when the poll in flight was made.
    in_flight: Option<Head>,
    retry: Deadline,
    failures: u32,
    reset: bool,
    /// The reason why the last page was refused, until one is applied.
    refused: Option<&'static str>,
}

/// A request to the refresher.
#[derive(Debug, PartialEq, Eq)]
pub struct Poll {
    /// Path and query.
    pub path: String,
    /// After how many seconds it has failed.
    pub timeout_seconds: u64,
}

/// The outcome of an answer.
#[derive(Debug)]
pub enum Answer {
    /// A page; shared data holds its state now.
    Applied(Applied),
    /// A page that was refused; everything is asked for anew.
    Refused(RefusedPage),
    /// Another status than 200: the refresher is away or in trouble.
    Failed {
        /// True at the first failure after a success.
        first: bool,
    },
}

// === impl Poller ===

impl Poller {
    /// A poller of that Envoy process, whose polls wait for so long at the refresher.
    pub fn new(wait_seconds: u64, instance: String, node: Option<Id>) -> Self {
        Self {
            wait_seconds,
            instance,
            node,
            in_flight: None,
            retry: Deadline::default(),
            failures: 0,
            reset: false,
            refused: None,
        }
    }

    /// The poll to send at `now`, if it is time for one: none is in flight, or one that asks for what follows on another
    /// state than the one held now, which would wait at the refresher for nothing.
    pub fn poll(&mut self, shared: &impl SharedData, now: u64) -> Option<Poll> {
        if !self.retry.is_due(now) {
            return None;
        }
        let head = publish::head(shared);
        if self.in_flight.is_some_and(|asked| asked.is_of_state(&head)) {
            return None;
        }
        self.in_flight = Some(head);
        let since = if self.reset { 0 } else { head.revision };
        let wait = if head.complete && !self.reset {
            self.wait_seconds
        } else {
            0
        };
        let mut path = format!(
            "/snapshot?epoch={}&since={since}&wait={wait}",
            String::from(head.epoch)
        );
        self.tell(shared, head.revision, &mut path);
        Some(Poll {
            path,
            timeout_seconds: wait.saturating_add(GRACE_SECONDS),
        })
    }

    /// Adds how far this Envoy is, and what keeps it from being further.
    fn tell(&self, shared: &impl SharedData, held: u64, path: &mut String) {
        path.push_str(&format!("&held={held}&instance={}", self.instance));
        if let Some(node) = &self.node {
            path.push_str(&format!("&node={node}"));
        }
        if let Some(word) = self.refused {
            path.push_str(&format!("&refused={word}"));
        }
        let unread = unread::read(shared);
        if unread.count() > 0 {
            path.push_str(&format!("&unread={}", unread.count()));
        }
        if let Some((kind, id)) = unread.first() {
            path.push_str(&format!("&first_unread={}/{id}", kind.word()));
        }
    }

    /// Takes the answer to the poll in flight. A VM that lost the lease meanwhile must not call
    /// this, but [`Poller::abandon`].
    pub fn answered(
        &mut self,
        shared: &mut impl SharedData,
        status: &[u8],
        body: &[u8],
        now: u64,
    ) -> Answer {
        self.in_flight = None;
        if status != b"200" {
            return self.failed(now);
        }
        match publish::apply(shared, body, now) {
            Ok(applied) => {
                self.failures = 0;
                self.reset = false;
                self.refused = None;
                Answer::Applied(applied)
            }
            Err(refused) => {
                self.failed(now);
                self.reset = true;
                self.refused = Some(refused.word());
                Answer::Refused(refused)
            }
        }
    }

    /// Notes that the poll in flight could not be sent, or was answered with nothing.
    pub fn failed(&mut self, now: u64) -> Answer {
        self.in_flight = None;
        let doubled = FIRST_RETRY_MS.saturating_mul(1 << self.failures.min(8));
        self.retry = Deadline::after(now, doubled.min(LAST_RETRY_MS));
        let first = self.failures == 0;
        self.failures = self.failures.saturating_add(1);
        Answer::Failed { first }
    }

    /// Forgets the poll in flight.
    pub fn abandon(&mut self) {
        self.in_flight = None;
    }

    /// Asks for everything anew at the next poll.
    pub fn start_anew(&mut self) {
        self.reset = true;
    }
}
