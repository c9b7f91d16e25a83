//! Which session a request belongs to.

use crate::{hash::hash64, header::HeaderMap};

/// The headers that name a session, the most telling first: what Codex sends now, Claude Code,
/// then what older Codex clients send.
const SESSION_HEADERS: [&str; 5] = [
    "session-id",
    "x-claude-code-session-id",
    "thread-id",
    "session_id",
    "conversation_id",
];

/// The session of a request from a client key, or none where the caller names none. Two keys'
/// sessions of the same name are two sessions.
pub fn of(headers: &HeaderMap, client_key: &str) -> Option<u64> {
    SESSION_HEADERS
        .iter()
        .find_map(|name| headers.first(name))
        .filter(|session| !session.is_empty())
        .map(|session| hash64(&[client_key.as_bytes(), session]))
}

#[cfg(test)]
mod tests {

    #[test]
    fn the_most_telling_header_names_the_session() {
        let of = |headers: &[(&str, &str)], key| super::of(&headers.iter().copied().collect(), key);
        let session = of(&[("session-id", "s1")], "key_1");
        assert!(session.is_some());
        assert_eq!(
            of(&[("thread-id", "t"), ("session-id", "s1")], "key_1"),
            session
        );
        assert_ne!(of(&[("session-id", "s1")], "key_2"), session);
        assert_ne!(of(&[("session-id", "s2")], "key_1"), session);
        assert_eq!(of(&[("accept", "x")], "key_1"), None);
        assert_eq!(of(&[("session-id", "")], "key_1"), None);
    }
}
