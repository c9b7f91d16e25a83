//! The parts of a dialect that a translation is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::Demands;
use super::accent::{self, Accent};
use super::neutral::{Event, Failure, Form, Refused, Request, read::Read};
use crate::text::tree::{Text, Tree};

/// Writes a request for a platform.
pub type WriteRequest = fn(&mut Request<'_>, &Target<'_>) -> Result<Vec<u8>, Refused>;

/// The count of a request's tokens, as a dialect has it.
#[derive(Debug, Clone, Copy)]
pub struct Counting {
    /// The member of an answer that has them.
    pub member: &'static str,
    /// A member beside that one, and its value.
    pub about: Option<(&'static str, &'static str)>,
    /// The members of a request that are taken; others are refused.
    pub takes: &'static [&'static str],
    /// The member that has the whole request and its model, where one has.
    pub within: Option<&'static str>,
}

/// The readers and writers of a dialect, from and into the [neutral form](super::neutral).
///
/// A request is translated where its caller's dialect has the first and the last of these, and the
/// platform's has those between.
#[derive(Clone, Copy, Default)]
pub struct Parts {
    /// The rank of the dialect by how much of a request and an answer it can say.
    pub richness: u8,
    /// Reads a request.
    pub read_request: Option<for<'a> fn(&Tree<'a>) -> Read<Request<'a>>>,
    /// Writes a request, and notes in it what is left out.
    pub write_request: Option<WriteRequest>,
    /// Reads an answer.
    pub read_answer: Option<fn() -> Box<dyn AnswerReader>>,
    /// Reads what the path and the query of a request say of it, in a dialect where they say what others say in the
    /// body: the model, and the wish for a stream.
    pub read_target: Option<fn(&mut Request<'_>, &str)>,
    /// The query that asks for a stream as events, in a dialect where the path asks for a stream at all: what is
    /// translated for a platform that speaks it is asked for there. Empty in any other one.
    pub stream_query: &'static str,
    /// The count of a request's tokens.
    pub count: Option<Counting>,
    /// Writes an answer.
    pub write_answer: Option<fn(About) -> Box<dyn AnswerWriter>>,
    /// The status of an answer that says that the platform has too much to do; 0 for 503, as most have it.
    pub overloaded: u16,
    /// State that only the platform reads is read for all of its accounts.
    pub state_is_the_platforms: bool,
    /// State that only the platform reads belongs to the call that comes next, and needs none of the thoughts before it.
    pub state_is_of_calls: bool,
}

/// The platform that a request is written for, and where it was asked for.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The model, as the platform names it.
    pub model: Text<'a>,
    /// Members of a request that it refuses.
    pub refuses: &'a [String],
    /// The accent in which it speaks the dialect.
    pub accent: &'a Accent,
    /// The platform answers with streams alone.
    pub streams_only: bool,
    /// Its streams tell the tokens only if they are asked to.
    pub asks_usage: bool,
    /// The account, as an [`envelope`](super::neutral::names::envelope) names it.
    pub owner: &'a str,
    /// The demands of the operator on the request.
    pub demands: Demands,
    /// The path and the query at which the caller asked.
    pub asked_at: &'a str,
}

/// The facts that an answer states beside what the platform says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The model that the caller asked for; empty for the platform's.
    pub model: String,
    /// Seconds since 1970.
    pub created: u64,
    /// A stream ends with the tokens that were used.
    pub wants_usage: bool,
    /// A stream is one list of JSON.
    pub as_list: bool,
    /// The names of the caller's free-form tools.
    pub raw: BTreeSet<String>,
    /// Tools that the caller's dialect calls in a form of its own, by the names that events have.
    pub forms: BTreeMap<String, Form>,
    /// Members of the request that the answer repeats, as they stand in an object of JSON.
    pub repeated: String,
    /// The function whose arguments are the answer's text.
    pub answer_tool: Option<&'static str>,
    /// State that only the platform reads may come back with the calls alone.
    pub state_beside_calls: bool,
}

/// Reads an answer in steps. Nothing follows [`Event::End`] or [`Event::Fail`].
pub trait AnswerReader {
    /// Reads the data of a stream's event, and appends what it says.
    fn on_event(&mut self, data: &[u8], events: &mut Vec<Event>);

    /// Reads an answer that is no stream, and appends what it says.
    fn on_whole(&mut self, body: &[u8], events: &mut Vec<Event>);

    /// Takes the end of a stream: one that did not say so has failed.
    fn on_end(&mut self, events: &mut Vec<Event>);

    /// The bytes that it keeps of the answer; what is never more than a few hundred need not be told.
    fn held_bytes(&self) -> usize {
        0
    }
}

/// Writes an answer.
pub trait AnswerWriter {
    /// Appends the events of a stream that say `event`.
    fn stream(&mut self, event: &Event, bytes: &mut Vec<u8>);

    /// Writes the whole answer that `events` make.
    ///
    /// # Errors
    /// The platform's failure, which is among them, or their missing end.
    fn whole(&self, events: &[Event]) -> Result<Vec<u8>, Failure>;

    /// The bytes that it keeps of the answer; what is never more than a few hundred need not be told.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Writes the body of an error.
    fn error(&self, failure: &Failure) -> Vec<u8>;
}

// === impl Target ===

impl Target<'_> {
    /// Returns true if the platform refuses this member of a request.
    pub fn refuses(&self, name: &str) -> bool {
        self.refuses.iter().any(|refused| refused == name) || self.accent.has(accent::REFUSES, name)
    }
}

// What each reader and writer is made of is shown nowhere, so the filter does without that code.

impl fmt::Debug for dyn AnswerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerReader")
    }
}

impl fmt::Debug for dyn AnswerWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerWriter")
    }
}
