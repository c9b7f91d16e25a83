//! Header names and values that cannot break a header block, and the request's header list.
//!
//! Envoy writes a local reply's headers to an HTTP/1.1 client as they are, so a CR LF in a
//! value would split the response. Whatever the filter puts on passes through these types.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::newtype::{checked_str, checked_text};

/// The longest header name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The longest header value that the filter puts on, in bytes. Access tokens of 2 to 4 KiB are
/// usual; Envoy refuses header blocks over 60 KiB.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;

/// Headers that frame a message, belong to one connection (RFC 9110 §7.6.1), or say where a request
/// goes. Only the proxy writes them.
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-proto",
];

/// The beginnings of names that steer Envoy and this filter. Envoy believes them of callers that it
/// takes for internal, which on a private network is all of them.
pub(crate) const INTERNAL_PREFIXES: [&str; 2] = ["x-latchkey-", "x-envoy-"];

/// A header name: an HTTP token (RFC 9110 §5.1) in lower case; no pseudo-header.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderName(Arc<str>);

/// Text that may stand in a header value: visible ASCII, space and tab.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderText(Arc<str>);

/// A rule that a header name matches: exactly, or by prefix where it ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NamePattern {
    /// The name itself.
    Exact(HeaderName),
    /// A prefix: every name that starts so.
    Prefix(HeaderName),
}

/// The reason why a text is not a header name or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidHeader {
    /// A name that is not a lower-case HTTP token of at most [`MAX_NAME_BYTES`].
    Name,
    /// A value that is not visible ASCII, spaces and tabs of at most [`MAX_VALUE_BYTES`].
    Value,
    /// A name that only the proxy writes.
    Reserved,
}

/// A header block as Envoy hands it over: names in lower case, values any bytes.
#[derive(Debug, Default, Clone)]
pub struct HeaderMap(Vec<(String, Vec<u8>)>);

checked_text! {
    HeaderName, InvalidHeader;
    HeaderText, InvalidHeader;
}

checked_str! {
    HeaderName, InvalidHeader;
    HeaderText, InvalidHeader;
}

// === impl HeaderName ===

impl HeaderName {
    fn check(text: &str) -> Result<(), InvalidHeader> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len());
        if fits && text.bytes().all(is_token_byte) {
            Ok(())
        } else {
            Err(InvalidHeader::Name)
        }
    }
}

/// Returns true if a platform's profile may neither set this name nor let it through.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
        || INTERNAL_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

// === impl HeaderText ===

impl HeaderText {
    fn check(text: &str) -> Result<(), InvalidHeader> {
        let legal = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
        if text.len() <= MAX_VALUE_BYTES && text.bytes().all(legal) {
            Ok(())
        } else {
            Err(InvalidHeader::Value)
        }
    }
}

// === impl NamePattern ===

impl NamePattern {
    /// The name, or what names must start with.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(name) | Self::Prefix(name) => name.as_str(),
        }
    }

    /// Returns true if the pattern matches `name`, which is in lower case.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == name,
            // What is reserved goes out for no prefix, however short.
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()) && !is_reserved(name),
        }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = InvalidHeader;

    fn try_from(text: String) -> Result<Self, InvalidHeader> {
        match text.strip_suffix('*') {
            Some(prefix) => HeaderName::try_from(prefix).map(Self::Prefix),
            None => HeaderName::try_from(text.as_str()).map(Self::Exact),
        }
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        match pattern {
            NamePattern::Exact(name) => name.into(),
            NamePattern::Prefix(prefix) => format!("{}*", prefix.as_str()),
        }
    }
}

// === impl InvalidHeader ===

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(
                f,
                "expected a header name: a lower-case HTTP token of 1 to {MAX_NAME_BYTES} characters"
            ),
            Self::Reserved => f.write_str(
                "expected a header that does not frame the message, belong to the connection or route the request",
            ),
            Self::Value => write!(
                f,
                "expected a header value: visible ASCII, spaces and tabs, at most {MAX_VALUE_BYTES} bytes"
            ),
        }
    }
}

impl std::error::Error for InvalidHeader {}

// === impl HeaderMap ===

impl HeaderMap {
    /// The first value of `name`.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// Returns every value of `name`, in order.
    pub fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter()
            .filter_map(move |(key, value)| (key == name).then_some(value))
    }

    /// Returns every header, in order.
    pub fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

impl From<Vec<(String, Vec<u8>)>> for HeaderMap {
    fn from(headers: Vec<(String, Vec<u8>)>) -> Self {
        Self(headers)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for HeaderMap {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(headers: T) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
        Self(headers.into_iter().map(owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_lower_case_tokens() {
        assert!(HeaderName::try_from("x-api-key").is_ok());
        for bad in [
            "",
            ":path",
            "X-Api",
            "a b",
            "a:b",
            "a\r",
            "é",
            &"a".repeat(129),
        ] {
            assert_eq!(
                HeaderName::try_from(bad),
                Err(InvalidHeader::Name),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_routes_or_frames_a_request_is_reserved() {
        for name in [
            "host",
            "te",
            "content-length",
            "x-envoy-original-url",
            "x-latchkey-cluster",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        for name in [
            "authorization",
            "x-api-key",
            "content-type",
            "x-envoy",
            "hosts",
        ] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn patterns_match_exactly_or_by_prefix() {
        let pattern = |text: &str| NamePattern::try_from(text.to_owned()).unwrap();
        assert!(pattern("x-codex-*").matches("x-codex-window-id"));
        assert!(!pattern("x-codex-*").matches("x-code"));
        assert!(pattern("accept").matches("accept"));
        assert!(!pattern("accept").matches("accept-encoding"));
        assert!(NamePattern::try_from("*".to_owned()).is_err());
    }

    proptest! {
        #[test]
        fn no_value_holds_a_control_byte(text in any::<String>()) {
            if let Ok(value) = HeaderText::try_from(text.as_str()) {
                prop_assert!(value.as_str().bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b)));
            }
        }
    }
}
