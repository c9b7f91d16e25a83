//! The memory that requests make Envoy hold, bounded for each client key and for the whole Envoy.
//!
//! **What Envoy holds.** It keeps a request's body from the first byte to the end of the stream, so
//! that it can run again: the answer's beginning frees nothing. It keeps the pieces as they came
//! ([`slices`]): a body that comes in pieces of 600 bytes takes 27 times its length. Each request
//! takes [`OF_A_REQUEST`] besides. While a body goes to the platform there is a copy of it, so that
//! Envoy's heap needs twice the budget (`envoy/envoy.yaml` does that sum).
//!
//! **Who may hold.** A request is charged when its headers come, with the length that they tell, and
//! with each piece that is more than that. What it is charged it keeps until its stream ends. A body
//! that is decoded is charged what it becomes, and a decoder that goes on in a later callback until
//! it is done: that is in a VM and not in Envoy's heap, where it counts all the same. One
//! that does not fit is refused before Envoy holds it. A key never holds more than its own bound, nor
//! more than is left for the others: however many come, the first has half at most, the second half
//! of the rest, and whoever has nothing yet finds room. A request that runs again is not asked again.
//!
//! **Where it is counted.** The heap is the Envoy's, so all its VMs take from one [`ledger`] in shared
//! data, in blocks. They give back what they have not used for a second, or, where it is short, at once:
//! so thousands of keys with a short request each are in nobody's way. The ledger is a lease: what a
//! crashed VM held is free when it lapses, as Envoy has ended its streams.
//!
//! **Connections** that callers keep open between their requests are shared out likewise, from a ledger
//! of their own ([`connections`]).

mod blocks;
pub mod book;
mod connections;
mod ledger;
mod shares;
mod slices;

pub use self::{
    book::Book, connections::Connections, ledger::KeyName, shares::Shares, slices::Slices,
};
use crate::host::SharedData;

/// The bytes that are taken from the ledger at a time.
pub const BLOCK: u64 = 128 * 1024;

/// The memory that a request takes beside its body, in bytes: 57 KB were measured for an upload of one byte with its
/// two connections, and headers have up to 60 KiB.
pub const OF_A_REQUEST: u64 = BLOCK;

/// The part of that which an answer may take while it is held back, in bytes. One of which more is held
/// is charged for that until it is let go; where there is no room for it, it is let go at once.
pub const OF_AN_ANSWER: u64 = 32 * 1024;

/// The most of a body that Envoy keeps, in bytes, as `envoy/envoy.yaml` sets it
/// (`request_body_buffer_limit`). What is longer goes on without being kept, and is not sent again.
pub const MAX_KEPT: u64 = 32 * 1024 * 1024;

/// The bounds that the operator sets: bytes that are held, or connections that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The bound of the whole Envoy.
    pub all: u64,
    /// The bound of one key.
    pub of_key: u64,
}

/// The reason why a request, or more of it, is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Its key holds as much as one may.
    Key {
        /// The key's bound, in bytes.
        most: u64,
    },
    /// Its key would leave less to the others than it has itself.
    Others,
    /// Its connection is one more than its key may keep, and such ones were used without waiting for answers.
    Connections,
    /// The request alone is more than its key's bound: it could never be held.
    TooLarge {
        /// The key's bound, in bytes.
        most: u64,
    },
}

/// Makes the ledgers where they are not there yet.
pub fn prepare(shared: &mut impl SharedData) {
    ledger::HELD.prepare(shared);
    ledger::KEPT.prepare(shared);
}
