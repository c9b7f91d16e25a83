//! The head of a request: what decides, and what must not go on.

use super::carried::Url;
use crate::{dialect::Dialect, header::HeaderMap};

/// The headers that may carry a client key. All of them are taken off every request.
pub const KEY_HEADERS: [&str; 3] = ["authorization", "x-api-key", "x-goog-api-key"];

/// By what a caller asks for an account of the pool, by name or id.
pub const ACCOUNT_HEADER: &str = "x-latchkey-account";

/// By what a caller asks for a pool.
pub const POOL_HEADER: &str = "x-latchkey-pool";

/// Headers that steer Envoy or are our own. Envoy keeps those of callers that it takes for
/// internal, which on a private network is all of them.
pub(crate) const INTERNAL_PREFIXES: [&str; 2] = ["x-latchkey-", "x-envoy-"];

/// Headers of the caller that would go on as ours. The attempt's allow-list keeps them off the
/// wire as well; here they go before any other filter can read them.
pub(crate) const STRIPPED: [&str; 2] = ["chatgpt-account-id", "proxy-authorization"];

/// The parts of a request's head that decide.
pub(crate) struct Head<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) path: &'a str,
    pub(crate) query: &'a [u8],
    pub(crate) dialect: Dialect,
}

// === impl Head ===

impl<'a> Head<'a> {
    /// A head with parts that are missing or not text is one that no platform serves.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let target = headers.first(":path").unwrap_or_default();
        let (path, query) = split_target(target);
        let path = std::str::from_utf8(path).unwrap_or_default();
        let speaks_anthropic = headers.first("anthropic-version").is_some();
        Self {
            method: headers.first(":method").unwrap_or_default(),
            path,
            query,
            dialect: Dialect::of_path(path, speaks_anthropic),
        }
    }

    /// Where the request was sent. Envoy compares schemes by `x-forwarded-proto`.
    pub(crate) fn url(&self, headers: &HeaderMap) -> Url {
        let scheme = match headers.first("x-forwarded-proto") {
            Some(b"https") => "https",
            _ => "http",
        };
        let authority = headers.first(":authority").unwrap_or_default();
        Url::new(scheme, authority, self.path)
    }
}

/// The path and the query, without the question mark, of a request target.
pub fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => {
            let (path, rest) = target.split_at(at);
            (path, rest.get(1..).unwrap_or_default())
        }
        None => (target, &[]),
    }
}

/// The headers to take off before the request goes anywhere.
pub(crate) fn stripped(headers: &HeaderMap) -> Vec<String> {
    let mut names: Vec<String> = headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| {
            KEY_HEADERS.contains(name)
                || STRIPPED.contains(name)
                || INTERNAL_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
