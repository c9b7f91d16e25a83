//! The vocabulary in which a dialect describes itself.

use serde_json::{Map, Value};

use super::{Dialect, SessionName, Steering, parts::Parts};

/// A wire format: the names that it has for what every request, answer and error says.
///
/// The rest of the filter asks here and never which dialect it has before it. A new dialect is a file with an `impl` of
/// this trait, a folder of its readers and writers ([`Parts`]), a variant of [`Dialect`] and its arm of
/// [`Dialect::format`].
pub trait Format: Sync {
    /// The dialect in one word, as profiles and records write it.
    fn word(&self) -> &'static str;

    /// The dialects in which the models of a list in this one's shape are asked for: this one, and those whose clients
    /// read the same list. OpenAI's have one for both of theirs.
    fn listed_with(&self) -> &'static [Dialect] {
        &[Dialect::Chat, Dialect::Responses]
    }

    /// The header that every client of the dialect sends and no other does.
    fn own_header(&self) -> Option<&'static str> {
        None
    }

    /// Returns true if `path` looks like the dialect's own: a guess, for requests that come through no door.
    fn is_hinted_by(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// The members of a request's body that decide where the request goes.
    fn request_members(&self) -> &'static [RequestMember];

    /// The members of a request's body by which a conversation opens.
    fn opening(&self) -> &'static [OpeningMember];

    /// The places of a request's body at which an id of something stands that exists in one account alone.
    fn things(&self) -> &'static [ThingPlace] {
        &[]
    }

    /// The members of a request by which an operator steers it.
    fn steering(&self) -> &'static Steering {
        &Steering::NONE
    }

    /// Puts into a request that its stream is to report usage; none for a dialect in which every stream does.
    fn asks_usage(&self) -> Option<AskUsage> {
        None
    }

    /// The places at which an answer, or an event of its stream, names the model: members of it, or of an object in it.
    fn answer_models(&self) -> &'static [&'static [&'static str]] {
        &[&["model"]]
    }

    /// The meaning of a member of an answer's body, or of an event's data.
    fn member(&self, name: &[u8]) -> Member;

    /// The meaning of an event, by its name or the `type` in its data.
    fn event(&self, kind: &[u8]) -> EventKind;

    /// Returns true if events of this kind announce an answer without a byte of its output. Nobody misses one if the
    /// answer then comes from another account.
    fn announces(&self, kind: &[u8]) -> bool;

    /// Returns true if a stream begins with an announcement, before the model thinks.
    fn announces_at_once(&self) -> bool {
        false
    }

    /// Returns true if the dialect has events that [announce in their data](Self::announces_in).
    fn has_quiet_events(&self) -> bool {
        true
    }

    /// Returns true if an event with this data announces without [saying so](Self::announces): what could be output in
    /// it is empty.
    fn announces_in(&self, data: &Value) -> bool {
        let _ = data;
        false
    }

    /// The data of the event that ends a stream, in a dialect that ends it by such a mark
    /// instead of an [`EventKind::End`].
    fn end_mark(&self) -> Option<&'static [u8]> {
        None
    }

    /// The count in a member of a `usage` object, or in a member of its object `details`.
    ///
    /// Some servers send the counts under the names of two dialects, those of the other one
    /// as 0: a dialect reads its own names alone.
    fn count(&self, details: &[u8], name: &[u8]) -> Option<Count>;

    /// Returns true if each event of a stream has the tokens so far: they are provisional before the last one.
    fn counts_on_the_way(&self) -> bool {
        false
    }

    /// Returns true if the input count leaves out what a cache was involved in.
    fn counts_cache_apart(&self) -> bool {
        false
    }

    /// Returns true if the output count leaves out the reasoning.
    fn counts_reasoning_apart(&self) -> bool {
        false
    }

    /// The body of an answer with this HTTP status that is a platform's error, from the members of that error.
    fn platforms_error(&self, status: u16, error: Map<String, Value>) -> Value;

    /// The body of an error of the gateway's own.
    fn error(&self, error: &ErrorText<'_>) -> Value;

    /// The header of an answer in which clients look for the request's id.
    fn request_id_header(&self) -> &'static str {
        "x-request-id"
    }

    /// The body of a list of models.
    fn models(&self, models: &[ListedModel<'_>]) -> Value;

    /// The body that tells of one model.
    fn model(&self, model: &ListedModel<'_>) -> Value;

    /// The readers and writers of the dialect, for where the other side speaks another one.
    fn parts(&self) -> Parts {
        Parts::default()
    }
}

/// Makes the body of a request ask for the usage of its stream; none where it asks already, wants no stream or cannot be
/// read.
pub type AskUsage = fn(&[u8]) -> Option<Vec<u8>>;

/// A member of a request's body that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestMember {
    /// The object of the body in which it stands; none for the body's own members.
    pub within: Option<&'static str>,
    /// The name.
    pub name: &'static str,
    /// The meaning of its value.
    pub meaning: RequestValue,
}

/// The steps from a body to an id in it: a member's name, `[]` for each element of a list, `*` for each member of an
/// object.
pub type ThingPlace = &'static [&'static str];

/// A member of a request's body that the opening of a conversation consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpeningMember {
    /// The name.
    pub name: &'static str,
    /// The part of it that is.
    pub value: OpeningValue,
}

/// The part of a member that the opening of a conversation consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpeningValue {
    /// All of it.
    Whole,
    /// The turns up to the first of the user.
    Turns,
}

/// The meaning of a value in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestValue {
    /// The model.
    Model,
    /// Models that may serve in place of that one.
    OtherModels,
    /// Asks for a stream.
    Stream,
    /// Asks the platform to keep the answer.
    Store,
    /// Asks the platform to go on after it has answered.
    Background,
    /// Names the account that is to serve, by name or id.
    Account,
    /// Names the platform whose accounts may serve.
    Platform,
    /// Names the session.
    Session(SessionName),
    /// Names what this request goes on from, itself or by a member of that name in an object: that names the session
    /// too.
    Thing,
}

/// The meaning of a member of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// The object of token counts.
    Usage,
    /// The model that the platform served.
    Model,
    /// The kind of an event.
    Type,
    /// The error.
    Error,
    /// The whole answer, inside an event.
    Answer,
    /// The list of choices, each with generated text.
    Choices,
    /// An outermost member with generated text somewhere in it.
    Section,
    /// Generated text, in [`Self::Choices`], [`Self::Section`] or [`Self::TextOrSection`].
    Text,
    /// An outermost member that is generated text, or has some in it.
    TextOrSection,
    /// The reason for which the answer has ended, within an outermost member or an element of one.
    Finish,
    /// `true` in the last event of a stream, of whose outermost members it is one.
    IsEnd,
    /// A number that tells an error where it is not 0: one of the outermost members.
    ErrorCode,
    /// A member of no interest.
    Other,
}

/// The kinds of events that are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EventKind {
    /// A kind that is not said, or is no other one of these.
    #[default]
    Plain,
    /// The beginning, whose output count is only provisional.
    Start,
    /// The last event of a stream.
    End,
    /// The last event of a stream in which the platform gave up.
    Failed,
    /// An error, after which the stream has no proper end.
    Error,
    /// An event of no interest: what it carries other events have carried or will carry.
    Skipped,
}

/// The token counts that a `usage` object may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The prompt.
    Input,
    /// The tokens that tools put into the prompt, where those are counted apart.
    ToolInput,
    /// All that was generated.
    Output,
    /// The part of the prompt that was read from the platform's cache.
    CachedInput,
    /// The part of the prompt that was written to the platform's cache.
    CacheWrite,
    /// The reasoning within the output.
    Reasoning,
    /// The platform's own total.
    Total,
}

/// An error of the gateway's own.
#[derive(Debug, Clone, Copy)]
pub struct ErrorText<'a> {
    /// The HTTP status that it comes with.
    pub status: u16,
    /// The sentences for the caller.
    pub message: &'a str,
    /// Our own code.
    pub code: &'a str,
    /// The end of a limit that is not soon, in Unix seconds.
    pub resets_at: Option<u64>,
}

/// A model in a list.
#[derive(Debug, Clone, Copy)]
pub struct ListedModel<'a> {
    /// Its name.
    pub id: &'a str,
    /// Its maker.
    pub owner: &'a str,
}

// === impl OpeningMember ===

impl OpeningMember {
    /// A member that all turns repeat.
    pub(super) const fn whole(name: &'static str) -> Self {
        let value = OpeningValue::Whole;
        Self { name, value }
    }

    /// The member that has the turns.
    pub(super) const fn turns(name: &'static str) -> Self {
        let value = OpeningValue::Turns;
        Self { name, value }
    }
}

// === impl RequestMember ===

impl RequestMember {
    /// A member of the body itself.
    pub(super) const fn of_body(name: &'static str, meaning: RequestValue) -> Self {
        Self {
            within: None,
            name,
            meaning,
        }
    }

    /// `models`: OpenRouter's list of what to fall back on, in every dialect that it speaks.
    pub(super) const MODELS: Self = Self::of_body("models", RequestValue::OtherModels);

    /// `fallbacks`: the same in other gateways, of which an account may be one.
    pub(super) const FALLBACKS: Self = Self::of_body("fallbacks", RequestValue::OtherModels);

    /// `metadata.user_id`.
    pub(super) const USER_ID: Self = Self {
        within: Some("metadata"),
        name: "user_id",
        meaning: RequestValue::Session(SessionName::UserId),
    };
}
