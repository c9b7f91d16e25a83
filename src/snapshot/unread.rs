//! Lines of a page that are no records, and what each of them puts out of use.
//!
//! What a page says of a record replaces what is held of it. Where that cannot be read, what is
//! held is out of date all the same, and must not be used: it may be what was taken away.

use std::collections::BTreeMap;

use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error as ValueError},
};

use super::{InvalidRecord, Kind, Record, Removed};
use crate::id::Id;

/// A line that is not a record.
#[derive(Debug)]
pub struct Unread {
    /// The record that it should have been.
    pub about: About,
    /// The reason why it is none.
    pub error: InvalidRecord,
}

/// The subject of a line that is not a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A record.
    Record(Kind, Id),
    /// Nothing that anybody could hold: a kind that is not known here, or an id that none has.
    Nothing,
    /// The line does not tell.
    Unknown,
}

/// The members that must be readable to tell what a line is about.
#[derive(Deserialize)]
struct Loose {
    id: Option<String>,
    /// The kind of a record that is gone.
    kind: Option<String>,
}

impl Unread {
    /// Finds the subject of `line`, which `error` says is no record.
    pub fn of(line: &[u8], error: InvalidRecord) -> Self {
        let about = About::of(line);
        Self { about, error }
    }

    /// The record that says what the line puts out of use; none where that cannot be told, or is
    /// nothing.
    pub fn removal(&self) -> Option<Record> {
        match &self.about {
            About::Record(kind, id) => Some(Record::Removed(Removed {
                kind: *kind,
                id: id.clone(),
            })),
            About::Nothing | About::Unknown => None,
        }
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.about {
            About::Record(kind, id) => write!(f, "{} {id}: {}", kind.word(), self.error),
            About::Nothing | About::Unknown => self.error.fmt(f),
        }
    }
}

impl About {
    fn of(line: &[u8]) -> Self {
        let read: Result<BTreeMap<String, Loose>, _> = serde_json::from_slice(line);
        let mut entries = read.unwrap_or_default().into_iter();
        let (Some((word, loose)), None) = (entries.next(), entries.next()) else {
            return Self::Unknown;
        };
        let word = match (word.as_str(), loose.kind) {
            ("removed", Some(kind)) => kind,
            ("removed", None) => return Self::Unknown,
            _ => word,
        };
        let (Some(kind), Some(id)) = (Kind::from_word(&word), loose.id) else {
            return match Kind::from_word(&word) {
                Some(_) => Self::Unknown,
                None => Self::Nothing,
            };
        };
        Id::try_from(id).map_or(Self::Nothing, |id| Self::Record(kind, id))
    }
}

impl Kind {
    /// The kind of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        let word: serde::de::value::StrDeserializer<'_, ValueError> = word.into_deserializer();
        Self::deserialize(word).ok()
    }

    /// Its name, as records have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Doors => "doors",
            Self::Platform => "platform",
            Self::Account => "account",
            Self::Pool => "pool",
            Self::Key => "key",
            Self::Health => "health",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_read_tells_what_it_is_about() {
        let record = |kind, id: &str| About::Record(kind, Id::try_from(id).unwrap());
        for (line, about) in [
            (
                r#"{"account":{"id":"acc_1","credential":"a\nb"}}"#,
                record(Kind::Account, "acc_1"),
            ),
            (
                r#"{"key":{"sha256":7,"id":"key_1"}}"#,
                record(Kind::Key, "key_1"),
            ),
            (
                r#"{"removed":{"kind":"pool","id":"p","x":[{}]}}"#,
                record(Kind::Pool, "p"),
            ),
            (r#"{"account":{"id":"a\nb"}}"#, About::Nothing),
            (r#"{"gadget":{"id":"acc_1"}}"#, About::Nothing),
            (
                r#"{"removed":{"kind":"gadget","id":"acc_1"}}"#,
                About::Nothing,
            ),
            (r#"{"removed":{"id":"acc_1"}}"#, About::Unknown),
            (r#"{"account":{"id":7}}"#, About::Unknown),
            (r#"{"account":{}}"#, About::Unknown),
            (r#"{"account":{"id":"a"},"key":{"id":"b"}}"#, About::Unknown),
            (r#"{"account":{"id":"a","id":"b"}}"#, About::Unknown),
            (r#"{"account":{"id":"acc_1""#, About::Unknown),
            ("[]", About::Unknown),
            ("\u{0}", About::Unknown),
        ] {
            assert_eq!(About::of(line.as_bytes()), about, "{line}");
        }
    }

    #[test]
    fn every_kind_has_its_word() {
        for kind in [
            Kind::Doors,
            Kind::Platform,
            Kind::Account,
            Kind::Pool,
            Kind::Key,
            Kind::Health,
        ] {
            assert_eq!(Kind::from_word(kind.word()), Some(kind));
        }
        assert_eq!(Kind::from_word("gadget"), None);
    }
}
