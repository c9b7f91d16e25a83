//! The members of a request that may name its session, and the forms in which clients write it there.

use std::borrow::Cow;

use serde::Deserialize;

/// The members that may name a session, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionName {
    /// `prompt_cache_key`: what the platform's own cache goes by.
    CacheKey,
    /// `metadata.user_id`: some clients put their session into it.
    UserId,
    /// `previous_response_id`, `conversation`: what this request goes on from.
    PreviousResponse,
    /// `safety_identifier`: a person.
    SafetyIdentifier,
    /// `user`: a person, or whatever else a client counts by.
    User,
}

/// The text before the session in a `user_id` as Claude Code wrote it first:
/// `user_…_account_…_session_<uuid>`.
const MARK: &str = "_session_";

/// A `user_id` as Claude Code writes it now: JSON in a string.
#[derive(Deserialize)]
struct UserId {
    session_id: String,
}

// === impl SessionName ===

impl SessionName {
    /// Finds the session in the value of such a member: all of it where it is in no form that is
    /// known. Claude Code's is the one that its header names too.
    pub fn session(self, value: &str) -> Cow<'_, str> {
        match self {
            Self::CacheKey | Self::PreviousResponse | Self::SafetyIdentifier | Self::User => {
                Cow::Borrowed(value)
            }
            Self::UserId => session_of_user(value),
        }
    }
}

fn session_of_user(value: &str) -> Cow<'_, str> {
    if let Ok(user) = serde_json::from_str::<UserId>(value)
        && !user.session_id.is_empty()
    {
        return Cow::Owned(user.session_id);
    }
    let marked = value.rsplit_once(MARK).map(|(_, session)| session);
    let session = marked.filter(|session| !session.is_empty());
    Cow::Borrowed(session.unwrap_or(value))
}
