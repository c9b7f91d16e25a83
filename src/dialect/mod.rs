//! The wire formats of LLM requests: one file each, behind one trait.
//!
//! Everything that differs from dialect to dialect is asked of [`Dialect::format`]; outside of
//! this folder nobody tells dialects apart.

pub mod accent;
mod chat;
mod counting;
mod demands;
mod envelope;
mod ernie;
mod format;
mod gemini;
#[cfg(any(test, feature = "grammar"))]
pub mod grammar;
mod messages;
pub mod neutral;
mod parts;
mod responses;
mod session_name;
mod translation;

use serde::{Deserialize, Serialize};

pub use self::format::{
    Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember, OpeningValue,
    RequestMember, RequestValue, ThingPlace,
};
pub use self::{
    accent::Accent,
    demands::{Demands, EffortWord, ServiceTier, Steered, Steering},
    parts::{About, AnswerReader, AnswerWriter, Parts, Target},
    session_name::SessionName,
    translation::{
        AnswerTranslation, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, TranslatedRequest, Written,
    },
};
use crate::header::HeaderMap;

/// A wire format, by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI chat completions: what a caller is answered in whose own dialect is not known.
    #[default]
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// Google's `generateContent`.
    Gemini,
    /// Chat completions in envelopes, which only callers speak.
    Envelope,
    /// The first version of Baidu's chat, which only platforms speak.
    Ernie,
}

// === impl Dialect ===

impl Dialect {
    /// Every dialect that platforms speak.
    pub const OF_PLATFORMS: [Self; 5] = [
        Self::Chat,
        Self::Responses,
        Self::Messages,
        Self::Gemini,
        Self::Ernie,
    ];

    /// Every dialect that callers speak.
    pub const OF_CALLERS: [Self; 5] = [
        Self::Chat,
        Self::Responses,
        Self::Messages,
        Self::Gemini,
        Self::Envelope,
    ];

    /// The dialect's own names for everything.
    pub fn format(self) -> &'static dyn Format {
        match self {
            Self::Chat => &chat::Chat,
            Self::Responses => &responses::Responses,
            Self::Messages => &messages::Messages,
            Self::Gemini => &gemini::Gemini,
            Self::Envelope => &envelope::Envelope,
            Self::Ernie => &ernie::Ernie,
        }
    }

    /// The dialects in which the models of a list in this one's shape are asked for.
    pub fn listed_with(self) -> &'static [Self] {
        self.format().listed_with()
    }

    /// Returns true if platforms speak the dialect.
    pub fn is_of_platforms(self) -> bool {
        Self::OF_PLATFORMS.contains(&self)
    }

    /// Returns true if callers speak the dialect.
    pub fn is_of_callers(self) -> bool {
        Self::OF_CALLERS.contains(&self)
    }

    /// The dialect in one word, as profiles and records write it.
    pub fn word(self) -> &'static str {
        self.format().word()
    }

    /// The dialect of this [word](Self::word).
    pub fn of_word(word: &str) -> Option<Self> {
        let mut all = Self::OF_CALLERS.into_iter().chain(Self::OF_PLATFORMS);
        all.find(|dialect| dialect.word() == word)
    }

    /// The dialect of which these headers have one that no other has.
    pub fn hinted_by_headers(headers: &HeaderMap) -> Option<Self> {
        let own = |dialect: &Self| dialect.format().own_header();
        let has_own = |dialect: &Self| own(dialect).is_some_and(|own| headers.first(own).is_some());
        Self::OF_CALLERS.into_iter().find(has_own)
    }

    /// The dialect whose paths look like this one.
    pub fn hinted_by_path(path: &str) -> Option<Self> {
        let looks_like_it = |dialect: &Self| dialect.format().is_hinted_by(path);
        Self::OF_CALLERS.into_iter().rev().find(looks_like_it)
    }

    /// The member that names a session best in a request: nothing better can come after it.
    pub fn best_session_name(self) -> Option<SessionName> {
        let members = self.format().request_members().iter();
        let names = members.filter_map(|member| match member.meaning {
            RequestValue::Session(name) => Some(name),
            _ => None,
        });
        names.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_one_that_records_write() {
        for dialect in Dialect::OF_CALLERS.into_iter().chain(Dialect::OF_PLATFORMS) {
            assert_eq!(Dialect::of_word(dialect.word()), Some(dialect));
            let word = format!("\"{}\"", dialect.word());
            assert_eq!(serde_json::to_string(&dialect).unwrap(), word);
        }
    }

    #[test]
    fn a_stream_has_one_kind_of_end() {
        for dialect in Dialect::OF_PLATFORMS {
            let format = dialect.format();
            let ends = [b"response.completed".as_slice(), b"message_stop"];
            let ends = ends.iter().any(|kind| format.event(kind) == EventKind::End);
            let members = [b"finishReason".as_slice(), b"blockReason"];
            let says = members.map(|name| format.member(name) == Member::Finish);
            assert_eq!(says[0], says[1], "{dialect:?}");
            let flag = format.member(b"is_end") == Member::IsEnd;
            let kinds = [format.end_mark().is_some(), ends, says[0], flag];
            let kinds = kinds.into_iter().filter(|has| *has);
            assert_eq!(kinds.count(), 1, "{dialect:?}");
        }
    }

    #[test]
    fn what_announces_is_no_error() {
        for dialect in Dialect::OF_PLATFORMS {
            let format = dialect.format();
            for kind in ["error", "response.failed", "session.error"] {
                assert!(!format.announces(kind.as_bytes()), "{dialect:?} {kind}");
            }
            assert!(format.announces(b"ping") && format.event(b"error") == EventKind::Error);
        }
    }
}
