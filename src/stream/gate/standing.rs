//! A request that was sent on before all of it had come, and of which more comes.

use super::GateStream;
use crate::{
    deadline::Deadline,
    host::{Host, Stream},
    request::carried,
    worker::Worker,
};

/// The longest interval at which a request is looked at that was sent on and of which more comes, in milliseconds: what ends
/// by itself moves no snapshot.
const LOOK_MS: u64 = 100;

/// A look if a request may go on.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The version of the snapshot by which it may.
    seen: u64,
    /// The time of the next one, whatever the snapshot does.
    next: Deadline,
}

impl GateStream {
    /// Takes note that the request may go on now, so that the rest of a body that is there a moment later costs no look.
    pub(super) fn look_later<H: Host>(&mut self, worker: &Worker<H>) {
        self.look = Look {
            seen: worker.snapshot_version(),
            next: Deadline::after(worker.recently(), LOOK_MS),
        };
    }

    /// Breaks a request off that was sent on before all of it had come, where what it was sent on with has been taken away:
    /// the platform generates when it is whole.
    pub(super) fn look_again<H: Host>(&mut self, worker: &mut Worker<H>, stream: &mut impl Stream) {
        let has_news = self.look.seen != worker.snapshot_version();
        if !has_news && !self.look.next.is_due(worker.recently()) {
            return;
        }
        self.look_later(worker);
        let property = || stream.property(carried::PROPERTY);
        if let Some(reply) = worker.withdrawn(self.context, property) {
            self.answer(&reply, stream);
        }
    }
}
