//! The endpoints: where a platform answers what callers ask at a [`Door`].

use serde::{Deserialize, Serialize};

use super::{
    Account, Door, Operation,
    path::{PathTemplate, Place, Places},
};
use crate::dialect::Dialect;

/// The number of an endpoint among those of its platform. It holds for one state of the platform.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointId(pub u8);

/// One thing that a platform answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The wire format that is spoken there.
    pub dialect: Dialect,
    /// The operation.
    pub operation: Operation,
    /// The path, after that of the base URL; the caller's query string is appended.
    pub path: PathTemplate,
    /// The path counts from the host, whatever path the base URL has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root: bool,
    /// The platform's requirements of a request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// Streams report usage only if `stream_options.include_usage` asks them to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_usage: bool,
    /// The operation costs nothing, as a count of tokens: where the platform reports no usage,
    /// none is estimated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free: bool,
    /// The seconds within which the first event of a stream is expected; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_event_seconds: Option<u32>,
    /// The answer repeats what was made before, or what callers stored: its body says nothing of
    /// the account, and nothing in it is counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// The `id` in its answers names a thing that exists in the account alone; for so many days
    /// the platform has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_days: Option<u16>,
}

/// The same where a profile does not say it, and the dialect begins a stream with an announcement.
pub const FIRST_EVENT_SECONDS: u32 = 90;

/// The operation of which the answer may be a stream.
const GENERATE: &str = "generate";

/// A platform's requirement of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// `"stream": true`
    Stream,
    /// `"store": false`
    StoreFalse,
    /// Not `"background": true`: what is generated after the answer, nobody here could count.
    Foreground,
}

// === impl Endpoint ===

impl Endpoint {
    /// The milliseconds within which the first event of a stream is expected; none where a model may think in
    /// silence for as long as it likes.
    pub fn first_event_ms(&self) -> Option<u64> {
        let is_announced = self.dialect.format().announces_at_once()
            && self.operation.as_str() == GENERATE
            && !self.free;
        let by_itself = if is_announced { FIRST_EVENT_SECONDS } else { 0 };
        let seconds = self.first_event_seconds.unwrap_or(by_itself);
        (seconds > 0).then(|| u64::from(seconds).saturating_mul(1_000))
    }

    /// Tells if it answers what is asked at `door`, in the caller's own words.
    pub fn answers(&self, door: &Door) -> bool {
        self.dialect == door.dialect
            && self.operation == door.operation
            // What the path alone names has to get into the platform's path.
            && (self.path.has(Place::Model) || !door.path.has(Place::Model))
            && [Place::Thing, Place::Part].iter().all(|place| self.path.has(*place) == door.path.has(*place))
    }

    /// The path of a request with these values, after `base`, the path of the base URL; none where
    /// the path needs what the request or the account does not have.
    pub fn path(&self, base: &str, places: &Places, account: &Account) -> Option<String> {
        let path = self.path.render(places, account)?;
        Some(match self.root {
            true => path,
            false => format!("{base}{path}"),
        })
    }
}

// === impl Requirement ===

impl Requirement {
    /// The member of the body that it asks for.
    pub fn member(&self) -> &'static str {
        match self {
            Self::Stream => "\"stream\": true",
            Self::StoreFalse => "\"store\": false",
            Self::Foreground => "\"background\": false",
        }
    }

    /// Why, where the reason is not the platform's own.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Stream | Self::StoreFalse => None,
            Self::Foreground => Some(
                "What is generated in the background could not be counted: ask for a stream instead.",
            ),
        }
    }
}
