//! The session that a request belongs to.

use super::opening::Opening;
use crate::{
    dialect::SessionName,
    hash::hash64,
    header::{HeaderMap, HeaderName},
};

/// The session that the first of the headers called `names` names, if one does.
pub fn in_headers<'a>(headers: &'a HeaderMap, names: &[HeaderName]) -> Option<&'a [u8]> {
    names
        .iter()
        .find_map(|name| headers.first(name.as_str()))
        .filter(|session| !session.is_empty())
}

/// The session of a request from a client key, by its headers called `names`, else by what its body
/// names. Two keys' sessions of the same name are two sessions.
pub fn of(
    headers: &HeaderMap,
    names: &[HeaderName],
    named: Option<&(SessionName, String)>,
    client_key: &str,
) -> Option<u64> {
    let hash = |session: &[u8]| hash64(&[client_key.as_bytes(), session]);
    if let Some(session) = in_headers(headers, names) {
        return Some(hash(session));
    }
    let (name, text) = named?;
    Some(hash(name.session(text).as_bytes()))
}

/// The session of a request from a client key that names none, by the opening of its conversation.
pub fn opened_by(opening: &Opening, client_key: &str) -> u64 {
    hash64(&[client_key.as_bytes(), b"", &opening.hash.to_le_bytes()])
}

#[cfg(test)]
mod tests {
    use super::SessionName;
    use crate::snapshot::fixture;

    #[test]
    fn the_most_telling_header_names_the_session() {
        let of = |headers: &[(&str, &str)], key| {
            let names = fixture::doors().session_headers;
            super::of(&headers.iter().copied().collect(), &names, None, key)
        };
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

    #[test]
    fn two_keys_that_open_alike_are_two_sessions() {
        let opening = super::Opening {
            hash: 7,
            goes_on: true,
        };
        let later = super::Opening {
            goes_on: false,
            ..opening
        };
        let of = super::opened_by;
        assert_eq!(of(&opening, "key_1"), of(&later, "key_1"));
        assert_ne!(of(&opening, "key_1"), of(&opening, "key_2"));
    }

    #[test]
    fn a_body_names_the_session_where_no_header_does() {
        let of = |headers: &[(&str, &str)], name, text: &str| {
            let named = Some((name, text.to_owned()));
            let names = fixture::doors().session_headers;
            super::of(
                &headers.iter().copied().collect(),
                &names,
                named.as_ref(),
                "key_1",
            )
        };
        let by_header = of(&[("session-id", "s1")], SessionName::CacheKey, "other");
        assert_eq!(of(&[], SessionName::CacheKey, "s1"), by_header);
        assert_eq!(of(&[], SessionName::PreviousResponse, "s1"), by_header);
        for user in [
            r#"{"device_id":"d","account_uuid":"","session_id":"s1"}"#,
            "user_1_account__session_s1",
            "s1",
        ] {
            assert_eq!(of(&[], SessionName::UserId, user), by_header, "{user}");
        }
        for odd in [r#"{"session_id":""}"#, "{", "user_session_"] {
            assert!(of(&[], SessionName::UserId, odd).is_some(), "{odd}");
        }
    }
}
