//! The head of a request: what decides, and what must not go on.

use super::carried::Url;
use crate::{
    dialect::Dialect,
    header::{HeaderMap, INTERNAL_PREFIXES},
    snapshot::{Knock, View},
};

/// The headers in which clients send keys. All of them are taken off every request.
pub const KEY_HEADERS: [&str; 4] = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];

/// The header of a client key that counts before all of [`KEY_HEADERS`]: for callers whose
/// `authorization` is a login of their own.
pub const OWN_KEY_HEADER: &str = "x-latchkey-key";

/// The header by which a caller asks for an account of the pool, by name or id.
pub const ACCOUNT_HEADER: &str = "x-latchkey-account";

/// The header by which a caller asks for a pool.
pub const POOL_HEADER: &str = "x-latchkey-pool";

/// The header that says how a body is compressed. What goes on is not.
pub(crate) const CODING_HEADER: &str = "content-encoding";

/// A credential of the caller's for somebody else.
pub(crate) const PROXY_KEY_HEADER: &str = "proxy-authorization";

/// The parts of a request's head that decide.
pub(crate) struct Head<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) path: &'a str,
    pub(crate) query: &'a [u8],
}

// === impl Head ===

impl<'a> Head<'a> {
    /// A head with parts that are missing or not text is one that no platform serves.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let target = headers.first(":path").unwrap_or_default();
        let (path, query) = split_target(target);
        let path = std::str::from_utf8(path).unwrap_or_default();
        Self {
            method: headers.first(":method").unwrap_or_default(),
            path,
            query,
        }
    }

    /// Returns true if the request may be a probe, for which no key is needed, by its method.
    pub(crate) fn may_be_probe(&self) -> bool {
        matches!(self.method, b"GET" | b"HEAD" | b"OPTIONS")
    }

    /// Returns the parts that the doors look at.
    pub(crate) fn knock(&self) -> Knock<'a> {
        Knock {
            method: self.method,
            path: self.path,
            query: self.query,
        }
    }

    /// The dialect in which to refuse a request that came through no door: the best guess.
    pub(crate) fn strangers_dialect(&self, headers: &HeaderMap) -> Dialect {
        Dialect::hinted_by_headers(headers)
            .or_else(|| Dialect::hinted_by_path(self.path))
            .unwrap_or_default()
    }

    /// The URL to which the request was sent. Envoy compares schemes by `x-forwarded-proto`.
    pub(crate) fn url(&self, headers: &HeaderMap) -> Url {
        self.url_of(headers, self.path)
    }

    /// The URL of this `path` of the same host.
    pub(crate) fn url_of(&self, headers: &HeaderMap, path: &str) -> Url {
        let scheme = match headers.first("x-forwarded-proto") {
            Some(b"https") => "https",
            _ => "http",
        };
        let authority = headers.first(":authority").unwrap_or_default();
        Url::new(scheme, authority, path)
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

/// The headers to take off before the request goes anywhere, where any other filter could read
/// them. The attempt's allow-list keeps them off the wire as well.
pub(crate) fn stripped(headers: &HeaderMap, view: &View) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in headers.iter() {
        let goes = matches!(name, PROXY_KEY_HEADER | CODING_HEADER)
            || KEY_HEADERS.contains(&name)
            // `session_id` and `session-id` are one name to many servers.
            || name.as_bytes().contains(&b'_')
            || view.is_accounts(name)
            || INTERNAL_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if goes {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}
