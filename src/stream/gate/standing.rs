//! A request that was sent on before all of it had come, and of which more comes.

use super::GateStream;
use crate::{
    deadline::Deadline,
    host::{Host, Stream},
    request::carried,
    worker::Worker,
};

/// The interval at which a request is looked at that was sent on and of which more comes, in milliseconds.
const LOOK_MS: u64 = 100;

impl GateStream {
    /// Takes note that the request may go on now, so that the rest of a body that is there a moment later costs no look.
    pub(super) fn look_later<H: Host>(&mut self, worker: &Worker<H>) {
        self.next_look = Deadline::after(worker.recently(), LOOK_MS);
    }

    /// Breaks a request off that was sent on before all of it had come, where what it was sent on with has been taken away:
    /// the platform generates when it is whole.
    pub(super) fn look_again<H: Host>(&mut self, worker: &mut Worker<H>, stream: &mut impl Stream) {
        let now = worker.recently();
        if !self.next_look.is_due(now) {
            return;
        }
        self.look_later(worker);
        let property = || stream.property(carried::PROPERTY);
        if let Some(reply) = worker.withdrawn(self.context, property) {
            self.answer(&reply, stream);
        }
    }
}
