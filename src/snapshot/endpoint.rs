//! The endpoints: where a platform answers what callers ask at a [`Door`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Account, Door, Models, Operation, Wrapper,
    path::{PathTemplate, Place, Places},
};
use crate::{
    dialect::{Dialect, accent::Accent},
    header::HeaderName,
};

/// The number of an endpoint among those of its platform. It holds for one state of the platform.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointId(pub u8);

/// A question that a platform answers.
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
    /// The headers of the platform's plan that do not go out here: elsewhere they hold the credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omit: Vec<HeaderName>,
    /// The answer repeats what was made before, or what callers stored: its body says nothing of
    /// the account, and nothing in it is counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// Its answers name things that exist in the account alone; for so many days the platform has
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_days: Option<u16>,
    /// The platform keeps an answer only where the request asks it to (`"store": true`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_asked: bool,
    /// The members that name them.
    #[serde(default, skip_serializing_if = "Makes::is_usual")]
    pub makes: Makes,
    /// The members of a request that it refuses: a translated one has them not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuses: Vec<String>,
    /// The endpoint answers in its own dialect alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untranslated: bool,
    /// The accents of its dialect, by model: of two that say the same of a model the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accents: Vec<ModelAccent>,
    /// The objects in which its requests and answers stand; none where they are the dialect's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapper: Option<Wrapper>,
}

/// The accent of a platform's dialect where some models are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelAccent {
    /// The models.
    #[serde(default, skip_serializing_if = "Models::is_all")]
    pub models: Models,
    /// The accent.
    pub accent: Accent,
}

/// The most members of one answer that name things.
const MAX_MAKES: usize = 8;

/// The longest name of a member that does, in bytes.
pub const MAX_MEMBER_BYTES: usize = 64;

/// The members of an answer that name what it makes: `id` unless a profile says more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Makes(Vec<MadeMember>);

/// A member of an answer, or of an object in it: `id`, `file.id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeMember {
    /// The object in which it stands; none for the answer's own.
    pub within: Option<String>,
    /// The name.
    pub name: String,
}

/// Texts that are no [`Makes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidMakes;

/// The same where a profile does not say it, and the dialect begins a stream with an announcement.
const FIRST_EVENT_SECONDS: u32 = 90;

/// The operation of which the answer may be a stream.
const GENERATE: &str = "generate";

/// The same in a dialect where the path asks for a stream.
const STREAM: &str = "stream";

/// The operation that counts the tokens of a request.
const COUNT: &str = "count_tokens";

/// The operation by which a text is gone on with.
const COMPLETE: &str = "complete";

/// The operation that makes a conversation shorter.
const COMPACT: &str = "compact";

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
        let is_announced =
            self.dialect.format().announces_at_once() && self.generates() && !self.free;
        let by_itself = if is_announced { FIRST_EVENT_SECONDS } else { 0 };
        let seconds = self.first_event_seconds.unwrap_or(by_itself);
        (seconds > 0).then(|| u64::from(seconds).saturating_mul(1_000))
    }

    /// Puts the accent together in which it serves the model that has these names.
    pub fn accent(&self, names: &[&str]) -> Accent {
        let mut accent = Accent::default();
        for one in &self.accents {
            if names.iter().any(|name| one.models.contain(Some(name))) {
                accent.complete(&one.accent);
            }
        }
        accent
    }

    /// Returns true if a model answers there.
    pub fn generates(&self) -> bool {
        [GENERATE, STREAM].contains(&self.operation.as_str())
    }

    /// Returns true if a model answers there in words, so that the answer begins with its name.
    pub fn names_model(&self) -> bool {
        self.generates() || self.completes()
    }

    /// Returns true if what an operator demands of a model's answers holds there: a model answers, or makes a
    /// conversation shorter.
    pub fn is_steered(&self) -> bool {
        self.names_model() || self.operation.as_str() == COMPACT
    }

    /// Returns true if a text is gone on with there, which was in use before models thought: what a request does not
    /// say of that is not put into it.
    pub fn completes(&self) -> bool {
        self.operation.as_str() == COMPLETE
    }

    /// Returns true if it answers what is asked at `door`, in the caller's own words.
    pub fn answers(&self, door: &Door) -> bool {
        self.dialect == door.dialect && self.fits(door)
    }

    /// Returns true if it answers what is asked at `door` once that is translated.
    pub fn answers_translated(&self, door: &Door) -> bool {
        let generates = self.operation.as_str() == self.translated_operation();
        let answers = match door.operation.as_str() {
            GENERATE | STREAM => generates,
            COUNT => counts(door.dialect) && (generates || self.counts()),
            _ => false,
        };
        answers
            && door.dialect.is_translated_to(self.dialect)
            && !self.untranslated
            && self.has_things_of(door)
    }

    /// Returns true if it counts the tokens of a request.
    pub fn counts(&self) -> bool {
        self.operation.as_str() == COUNT && counts(self.dialect)
    }

    /// The operation of an endpoint of its dialect for which requests are translated: where the path asks for a stream,
    /// that one, whatever the caller asked for.
    fn translated_operation(&self) -> &'static str {
        match self.dialect.format().parts().stream_query {
            "" => GENERATE,
            _ => STREAM,
        }
    }

    /// Returns true if `door` asks for the count of a request's tokens, and the platform is not asked for that there:
    /// it is estimated.
    pub fn estimates(&self, door: &Door) -> bool {
        door.operation.as_str() == COUNT && self.operation.as_str() != COUNT && counts(door.dialect)
    }

    /// Returns true if it answers the operation of `door`, and its path takes what that door's path has.
    fn fits(&self, door: &Door) -> bool {
        self.operation == door.operation
            // What the path alone names has to get to the platform.
            && (self.names_model_itself() || !door.path.has(Place::Model))
            && self.has_things_of(door)
    }

    /// Returns true if the model is named beside the body.
    fn names_model_itself(&self) -> bool {
        self.path.has(Place::Model) || self.wrapper.as_ref().is_some_and(Wrapper::names_model)
    }

    fn has_things_of(&self, door: &Door) -> bool {
        let mut places = [Place::Thing, Place::Part].into_iter();
        places.all(|place| self.path.has(place) == door.path.has(place))
    }

    /// The path of a request with these values, after `base`, the path of the base URL; none where
    /// the path needs what the request or the account does not have.
    pub fn path(&self, base: &str, places: &Places, account: &Account) -> Option<String> {
        let path = self.path.render(places, account)?;
        Some(match self.root {
            true => path,
            false => [base, path.as_str()].concat(),
        })
    }
}

/// Returns true if platforms of this dialect can count the tokens of a request.
fn counts(dialect: Dialect) -> bool {
    dialect.format().parts().count.is_some()
}

// === impl Makes ===

impl Makes {
    /// The members.
    pub fn members(&self) -> &[MadeMember] {
        &self.0
    }

    /// Returns true if it is what holds where a profile says nothing.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Makes {
    fn default() -> Self {
        let name = "id".to_owned();
        Self(vec![MadeMember { within: None, name }])
    }
}

impl TryFrom<Vec<String>> for Makes {
    type Error = InvalidMakes;

    fn try_from(texts: Vec<String>) -> Result<Self, InvalidMakes> {
        if !(1..=MAX_MAKES).contains(&texts.len()) {
            return Err(InvalidMakes);
        }
        let members = texts.iter().map(|text| MadeMember::parse(text));
        members.collect::<Option<_>>().map(Self).ok_or(InvalidMakes)
    }
}

impl From<Makes> for Vec<String> {
    fn from(makes: Makes) -> Self {
        makes.0.into_iter().map(|member| member.path()).collect()
    }
}

impl fmt::Display for InvalidMakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected 1 to {MAX_MAKES} members of an answer: names of a-z, 0-9 and _, as \"id\" or \"file.id\""
        )
    }
}

impl std::error::Error for InvalidMakes {}

// === impl MadeMember ===

impl MadeMember {
    fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name =
            |name: &str| (1..=MAX_MEMBER_BYTES).contains(&name.len()) && name.bytes().all(legal);
        let (within, name) = match text.split_once('.') {
            Some((object, name)) => (Some(object), name),
            None => (None, text),
        };
        let is_sound = is_name(name) && within.is_none_or(is_name);
        is_sound.then(|| Self {
            within: within.map(str::to_owned),
            name: name.to_owned(),
        })
    }

    /// Writes the names as they are read.
    fn path(self) -> String {
        match self.within {
            Some(object) => format!("{object}.{}", self.name),
            None => self.name,
        }
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

    /// The reason, where it is not the platform's own.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Stream | Self::StoreFalse => None,
            Self::Foreground => Some(
                "What is generated in the background could not be counted: ask for a stream instead.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_make_is_named_by_a_few_members() {
        let read = |text: &str| serde_json::from_str::<Makes>(text);
        let text = r#"["id","output_file_id","file.id"]"#;
        let makes = read(text).unwrap();
        assert_eq!(serde_json::to_string(&makes).unwrap(), text);
        assert_eq!(makes.members()[2].within.as_deref(), Some("file"));
        assert!(read(r#"["id"]"#).unwrap().is_usual() && !makes.is_usual());
        let many = format!("[{}]", [r#""id""#; MAX_MAKES + 1].join(","));
        for bad in [
            "[]",
            r#"["Id"]"#,
            r#"["a.b.c"]"#,
            r#"[".id"]"#,
            r#"[""]"#,
            &many,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
