//! The neutral form: requests and answers in no dialect.
//!
//! A dialect reads requests into it and writes requests from it, reads answers into [`Event`]s and writes
//! them from those ([`Parts`](super::Parts)). So each dialect is read and written once, and not once for
//! each other one.
//!
//! Readers are lenient, writers are strict: none writes what the clients and platforms of its dialect
//! refuse. What cannot be said in the other dialect is left out without a word where the answer stays the
//! same, left out by name ([`Request::left_out`]) where it may not, and refused ([`Refused`]) where the
//! answer would be a wrong one.

pub mod conversation;
mod estimate;
mod event;
mod folded;
mod freeform;
pub mod functions;
mod in_turn;
pub mod names;
mod progress;
pub mod read;
mod request;

pub use self::{
    event::{BlockKind, CONTEXT_LENGTH, Event, Failure, Finish, Tokens},
    folded::{Folded, FoldedBlock, is_cut},
    freeform::Unwrapping,
    in_turn::InTurn,
    progress::Progress,
    request::{
        Arguments, Block, Call, Choice, Effort, Form, Media, MediaKind, Output, Reasoning, Refused,
        Request, Role, Sampling, Schema, Source, Tool, ToolInput, ToolResult, Turn,
    },
};
