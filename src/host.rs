//! The proxy around the filter, as traits: [`Host`] is what one VM has of it, [`Stream`] what one
//! filter of one request has. `shell` implements them on Envoy, the fake for tests.
//!
//! Log lines go out by the `log` crate, which is such a seam already.

#[cfg(test)]
pub(crate) mod fake;

use std::time::Duration;

use crate::{header::HeaderMap, id::Id};

/// The proxy, as one VM sees it.
pub trait Host: SharedData {
    /// The filter of one request.
    type Stream: Stream;

    /// Reads the clock: Unix milliseconds.
    fn clock(&self) -> u64;

    /// Makes 256 bytes that no other process has made.
    fn seed(&self) -> [u64; 32];

    /// Returns the node id that the operator gave this Envoy.
    fn node(&self) -> Option<Id>;

    /// Has the proxy's stats show a number as `wasmcustom.latchkey.<name>`. Naming one twice gives
    /// the same number.
    fn define(&mut self, kind: MetricKind, name: &str) -> Metric;

    /// Adds to a counter.
    fn add(&mut self, metric: Metric, step: u64);

    /// Sets a gauge.
    fn set(&mut self, metric: Metric, value: u64);

    /// Sends an HTTP request. Its answer comes in a later callback; none where it cannot be sent.
    fn call(&mut self, call: &Call<'_>) -> Option<CallId>;

    /// Has the root of the callback's context tick at this interval, in milliseconds, from now on.
    fn tick_each(&mut self, milliseconds: u64);

    /// Turns from the root's callback to the filter of `context`; none where its stream has gone.
    fn enter(&mut self, context: u32) -> Option<Self::Stream>;

    /// Turns back to the root, whose context this is.
    fn leave(&mut self, root: u32);
}

/// A filter's side of one request, in a callback or [entered](Host::enter).
pub trait Stream {
    /// Returns the whole header block.
    fn headers(&self, side: Side) -> HeaderMap;

    /// Returns the first value of one header.
    fn header(&self, side: Side, name: &str) -> Option<Vec<u8>>;

    /// Sets a header, or takes it off. Returns false where the proxy does not take the change.
    fn set_header(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool;

    /// Writes the request's header block whole; false where the proxy does not take it. The SDK
    /// crashes the VM where the headers are no longer this filter's to write: once they were let
    /// go alone, before the body, they are not.
    fn set_request_headers(&mut self, headers: Vec<(&str, &[u8])>) -> bool;

    /// Returns `size` bytes, from `start` on, of what the proxy holds of the body. What was let go
    /// is no longer there.
    fn body(&self, side: Side, start: usize, size: usize) -> Vec<u8>;

    /// Puts `body` in the place of the `size` bytes that the proxy holds.
    fn set_body(&mut self, side: Side, size: usize, body: &[u8]);

    /// Puts `body` behind the `size` bytes that the proxy holds.
    fn append_body(&mut self, side: Side, size: usize, body: &[u8]);

    /// Returns what was [set](Stream::set_property) for this request, by any of its filters, on
    /// this or an earlier try.
    fn property(&self, name: &str) -> Option<Vec<u8>>;

    /// Returns the address of the host that answers, as the proxy writes it: `address:port`, or the path of a socket.
    fn answered_by(&self) -> Option<Vec<u8>>;

    /// Returns the proxy's number of the connection on which the request came: no other one has it.
    fn connection(&self) -> Option<u64>;

    /// Returns true if the caller may break a request off and use its connection on: not with HTTP/1.
    fn may_break_off(&self) -> bool;

    /// Returns true if the proxy chose a host for the request and is known to have had no connection to it: not a
    /// byte has left.
    fn was_not_sent(&self) -> bool;

    /// Returns true once the caller has gone away before the end of its answer.
    fn caller_left(&self) -> bool;

    /// Sets what the other filters of this request, its later tries and access logs see.
    fn set_property(&mut self, name: &str, value: &str);

    /// Answers the request, or replaces its answer. In the gate the answer runs through the
    /// filter's own answer callbacks once this callback is over; in an attempt it goes to the
    /// caller as it is, and is not redirected.
    fn reply(&mut self, status: u16, headers: Vec<(&str, &str)>, body: &[u8]);

    /// Lets go on what was paused. The proxy does so once this callback is over, so no other
    /// callback runs inside of it.
    fn resume(&mut self, side: Side);
}

/// The two halves of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From the caller to the platform.
    Request,
    /// From the platform to the caller.
    Answer,
}

/// The fate of what a callback was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The message goes on to the next filter.
    Continue,
    /// The message stays, with what follows, until a later callback continues or the stream is resumed.
    Pause,
}

/// A number in the proxy's stats; none where the proxy did not take it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metric(pub Option<u32>);

/// The kinds of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only goes up.
    Counter,
    /// A number that is set.
    Gauge,
}

/// An HTTP request to a cluster of the proxy.
#[derive(Debug)]
pub struct Call<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// The method.
    pub method: &'static str,
    /// Path and query.
    pub path: &'a str,
    /// JSON; none for a request without a body.
    pub body: Option<&'a str>,
    /// The time after which it has failed.
    pub timeout: Duration,
}

/// Names a call whose answer is yet to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallId(pub u32);

/// Envoy's shared data: one key space for every worker and the main thread.
pub trait SharedData {
    /// The value of `key`, and the version that a [`SharedData::swap`] needs.
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)>;

    /// Sets `key` whatever it holds.
    fn write(&mut self, key: &str, value: &[u8]);

    /// Sets `key` if it is as it was read; false if somebody changed it since. A key that was
    /// never written cannot be swapped safely: write it first.
    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool;

    /// Changes the value of `key`, which must have been written before. `change` may run more
    /// than once, on the latest value; where it returns none nothing happens.
    fn update(&mut self, key: &str, mut change: impl FnMut(Vec<u8>) -> Option<Vec<u8>>) -> Changed {
        for _ in 0..TRIES {
            let Some((value, version)) = self.read(key) else {
                return Changed::Absent;
            };
            let Some(value) = change(value) else {
                return Changed::Kept;
            };
            if self.swap(key, &value, version) {
                return Changed::Done;
            }
        }
        Changed::Lost
    }
}

/// The most tries of one change while other VMs change the same key. Each lost try is a change of
/// theirs, so more than this means that there is something wrong.
const TRIES: usize = 256;

/// The outcome of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The key has the new value.
    Done,
    /// The change itself wanted none.
    Kept,
    /// The key was never written.
    Absent,
    /// Others changed the key at each try.
    Lost,
}

/// The key of this name in shared data, or the format of several keys. The number counts the forms
/// of what lies there: builds of the filter that differ in it live in one Envoy, as they do while
/// its configuration changes, and share nothing. Whoever changes the form of any value counts it
/// up.
macro_rules! shared_key {
    ($name:literal) => {
        concat!("latchkey/3/", $name)
    };
}
pub(crate) use shared_key;

/// The version of a value that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u32);

// === impl Action ===

impl Action {
    /// Continues if `is_so`.
    pub fn continue_if(is_so: bool) -> Self {
        if is_so { Self::Continue } else { Self::Pause }
    }
}
