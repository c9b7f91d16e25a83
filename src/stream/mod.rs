//! The streams of one VM: the filter's state machines, event in and calls of [`Host`] and
//! [`Stream`] out.
//!
//! One wasm file runs in two places: as the [gate](gate::GateStream) in the listener's chain and
//! as the [attempt](attempt::AttemptStream) in each platform cluster's. Both kinds of one worker
//! thread share one [`Vm`]. The proxy names each by a context number.

pub mod attempt;
pub mod beat;
pub mod gate;

#[cfg(test)]
mod tests;

use std::cell::RefCell;

use self::{attempt::AttemptStream, beat::Beat, gate::GateStream};
use crate::{
    host::{Action, CallId, Host, Side, Stream},
    known::Known,
    worker::{
        Worker,
        config::{Config, InvalidConfig},
    },
};

/// The two filters that a plugin may be, by its `root_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The downstream filter.
    Gate,
    /// The upstream filter.
    Attempt,
}

/// An event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The request's headers are there.
    RequestHeaders {
        /// Nothing follows.
        end: bool,
    },
    /// More of the request's body is there.
    RequestBody {
        /// The bytes that the proxy holds.
        size: usize,
        /// Nothing follows.
        end: bool,
    },
    /// The request ends with trailers.
    RequestTrailers,
    /// The answer's headers are there.
    AnswerHeaders {
        /// Nothing follows.
        end: bool,
    },
    /// More of the answer's body is there.
    AnswerBody {
        /// The bytes that the proxy holds.
        size: usize,
        /// Nothing follows.
        end: bool,
    },
    /// The answer ends with trailers.
    AnswerTrailers,
}

/// A VM that callbacks take in turn.
#[derive(Debug)]
pub struct Turns<H: Host> {
    vm: RefCell<Vm<H>>,
    /// Streams that ended inside a callback of another one.
    ended: RefCell<Vec<(Role, u32)>>,
}

/// The filter in one VM.
#[derive(Debug)]
pub struct Vm<H: Host> {
    worker: Worker<H>,
    gates: Known<u32, GateStream>,
    attempts: Known<u32, AttemptStream>,
    /// The contexts of attempts that hold an answer back, for a bounded time.
    holding: Vec<u32>,
    beat: Beat,
}

// === impl Role ===

impl Role {
    /// Reads a `root_id`.
    pub fn parse(root_id: &[u8]) -> Option<Self> {
        match root_id {
            b"gate" => Some(Self::Gate),
            b"attempt" => Some(Self::Attempt),
            _ => None,
        }
    }
}

// === impl Turns ===

impl<H: Host> Turns<H> {
    /// Makes the filter of a VM.
    pub fn new(host: H) -> Self {
        Self {
            vm: RefCell::new(Vm::new(host)),
            ended: RefCell::default(),
        }
    }

    /// Runs a callback on the VM. Envoy puts off whatever a callback sets off, so none runs inside
    /// another. Should one do so after all, it gets none and has to fail closed.
    pub fn take<T>(&self, callback: impl FnOnce(&mut Vm<H>) -> T) -> Option<T> {
        let mut vm = self.vm.try_borrow_mut().ok()?;
        vm.worker.begin();
        let done = callback(&mut vm);
        while let Some((role, context)) = self.ended.borrow_mut().pop() {
            vm.end(role, context, None);
        }
        Some(done)
    }

    /// Takes an event of the stream of `context`. A stream stays where it is if the event came
    /// inside another callback.
    // `make bench-native` counts what is done within these two.
    #[inline(never)]
    pub fn on(&self, role: Role, context: u32, event: Event, stream: &mut H::Stream) -> Action {
        let taken = self.take(|vm| vm.on(role, context, event, stream));
        taken.unwrap_or(Action::Pause)
    }

    /// Ends the stream of `context`, at once or after the callback inside of which it ended.
    #[inline(never)]
    pub fn end(&self, role: Role, context: u32, stream: &mut H::Stream) {
        if self
            .take(|vm| vm.end(role, context, Some(stream)))
            .is_none()
        {
            self.ended.borrow_mut().push((role, context));
        }
    }
}

// === impl Vm ===

impl<H: Host> Vm<H> {
    fn new(host: H) -> Self {
        Self {
            worker: Worker::new(host),
            gates: Known::default(),
            attempts: Known::default(),
            holding: Vec::new(),
            beat: Beat::default(),
        }
    }

    /// Prepares the VM for a gate with this configuration, as JSON; none means the defaults.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn configure(&mut self, config: Option<&[u8]>) -> Result<(), InvalidConfig> {
        self.worker.configure(Config::parse(config)?);
        Ok(())
    }

    /// Does what is due, in the root of the context `root`.
    pub fn tick(&mut self, root: u32) {
        let now = self.worker.now();
        if !self.beat.begin(root, now, self.worker.host()) {
            self.hand_places_on(root);
            return;
        }
        self.worker.tick();
        self.worker.begin_turns();
        while let Some(context) = self.worker.take_turn() {
            self.decode_on(context);
        }
        self.worker.host().leave(root);
        self.decide_again(root);
        self.judge_held(root);
    }

    /// Takes the answer to a call, in the root that made it: its status, empty where there was
    /// none, and its body.
    pub fn on_call_answer(
        &mut self,
        root: u32,
        call: CallId,
        status: &[u8],
        body: impl FnOnce() -> Vec<u8>,
    ) {
        if self.worker.answered(call, status, body) {
            self.decide_again(root);
        }
    }

    /// Takes note that a root is gone that may have made calls.
    pub fn lose_calls(&mut self) {
        self.worker.lose_calls();
    }

    /// Takes an event of the stream of `context`.
    fn on(&mut self, role: Role, context: u32, event: Event, stream: &mut H::Stream) -> Action {
        match role {
            Role::Gate => {
                let gate = self.gates.entry(context);
                let gate = gate.or_insert_with(|| GateStream::new(context));
                gate.on(event, &mut self.worker, stream)
            }
            Role::Attempt => {
                let attempt = self.attempts.entry(context).or_default();
                let had_end = attempt.has_end();
                let action = attempt.on(event, &mut self.worker, stream);
                if attempt.has_end() && !had_end {
                    self.holding.push(context);
                }
                action
            }
        }
    }

    fn end(&mut self, role: Role, context: u32, stream: Option<&mut H::Stream>) {
        match role {
            Role::Gate => {
                let gate = self.gates.remove(&context);
                let frees = gate.is_some_and(|gate| gate.end(&mut self.worker));
                // In another one's callback it is not this stream's root that would tick.
                if frees && stream.is_some() {
                    self.beat.hasten(self.worker.host());
                }
            }
            Role::Attempt => {
                if let Some(attempt) = self.attempts.remove(&context) {
                    attempt.end(&mut self.worker, stream);
                }
            }
        }
    }

    /// Decodes on the body of `context`.
    fn decode_on(&mut self, context: u32) {
        let gate = self.gates.get_mut(&context);
        let stream = self.worker.host().enter(context);
        match (gate, stream) {
            (Some(gate), Some(mut stream)) => {
                if gate.decode_on(&mut self.worker, &mut stream) == Action::Continue {
                    stream.resume(Side::Request);
                }
            }
            // Its caller has gone.
            _ => self.worker.stop_waiting(context),
        }
    }

    /// Decides anew about the requests that wait.
    fn decide_again(&mut self, root: u32) {
        let waiting = self.worker.waiting();
        if waiting.is_empty() {
            return;
        }
        for context in waiting {
            self.decide_on(context);
        }
        self.worker.host().leave(root);
    }

    /// Gives the places that are free again to requests that wait for one.
    fn hand_places_on(&mut self, root: u32) {
        for context in self.worker.waiting() {
            if self.worker.may_find_place(context) {
                self.decide_on(context);
            }
        }
        self.worker.host().leave(root);
    }

    /// Decides anew about the request of `context`.
    fn decide_on(&mut self, context: u32) {
        let gate = self.gates.get_mut(&context);
        // A request whose caller has gone has no stream any more.
        let stream = self.worker.host().enter(context);
        if let (Some(gate), Some(mut stream)) = (gate, stream)
            && gate.decide_again(&mut self.worker, &mut stream) == Action::Continue
        {
            stream.resume(Side::Request);
        }
    }

    /// Judges the answers that were held long enough, by what there is of them: nothing may come
    /// any more that would tell what to do about one.
    fn judge_held(&mut self, root: u32) {
        if self.holding.is_empty() {
            return;
        }
        let now = self.worker.now();
        let (attempts, worker) = (&mut self.attempts, &mut self.worker);
        self.holding.retain(|context| {
            let Some(attempt) = attempts.get_mut(context) else {
                return false;
            };
            if attempt.is_due(now)
                && let Some(mut stream) = worker.host().enter(*context)
                && attempt.judge_now(worker, &mut stream)
            {
                stream.resume(Side::Answer);
            }
            attempt.has_end()
        });
        self.worker.host().leave(root);
    }
}
