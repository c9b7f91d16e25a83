//! An answer that came before its request was whole, kept while the rest of the request is waited
//! for: should that turn out too large to be sent again, the answer is still the caller's.

use super::{EARLY_STATUS, MAX_HELD_BYTES, STATUS_HEADER};
use crate::header::HeaderMap;

/// A whole answer of a platform.
#[derive(Debug, PartialEq, Eq)]
pub struct Early {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

// === impl Early ===

impl Early {
    /// The answer of this status; none where its body is larger than [`MAX_HELD_BYTES`].
    pub fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        // What frames the answer is Envoy's to write. A value that is not UTF-8 stays behind: the SDK
        // answers with none.
        let goes_on = |name: &str| {
            !name.starts_with(':') && !["content-length", "transfer-encoding"].contains(&name)
        };
        let own = |(name, value): (&str, &[u8])| {
            Some((name.to_owned(), String::from_utf8(value.to_vec()).ok()?))
        };
        let mut headers: Vec<_> = headers
            .iter()
            .filter(|(name, _)| goes_on(name) && *name != STATUS_HEADER)
            .filter_map(own)
            .collect();
        headers.push((STATUS_HEADER.to_owned(), status.to_string()));
        (body.len() <= MAX_HELD_BYTES).then(|| Self {
            headers,
            body: body.to_vec(),
        })
    }

    /// The status to answer with: the gate puts the platform's own in its place, as it does where
    /// an answer that was to run again could not.
    pub fn status(&self) -> u16 {
        EARLY_STATUS.parse().unwrap_or_default()
    }

    /// The headers, the platform's status among them.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let pairs = self.headers.iter();
        pairs
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// The body, byte for byte.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_but_for_what_frames_it() {
        let headers = HeaderMap::from_iter([
            (":status", "429"),
            ("content-length", "2"),
            ("transfer-encoding", "chunked"),
            ("retry-after", "60"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            (STATUS_HEADER, "200"),
        ]);
        let early = Early::new(429, &headers, b"{\xff").unwrap();
        let expected = [
            ("retry-after", "60"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            (STATUS_HEADER, "429"),
        ];
        assert_eq!(early.headers(), expected);
        assert_eq!((early.status(), early.body()), (308, &b"{\xff"[..]));
    }

    #[test]
    fn no_more_is_kept_than_is_held() {
        let kept = |bytes| Early::new(500, &HeaderMap::default(), &vec![b'x'; bytes]).is_some();
        assert!(kept(0) && kept(MAX_HELD_BYTES) && !kept(MAX_HELD_BYTES + 1));
    }
}
