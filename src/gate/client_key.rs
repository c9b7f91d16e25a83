//! Finds the one client key of a request.

use super::Refusal;
use crate::{header::HeaderMap, request::KEY_HEADERS};

/// The longest client key, in bytes. Ours have 40 or so.
pub const MAX_KEY_BYTES: usize = 256;

/// The query parameters in which other gateways take keys. A key in a URL ends up in logs, so it
/// is refused rather than read or passed on.
const KEY_PARAMETERS: [&[u8]; 4] = [b"key", b"api_key", b"api-key", b"access_token"];

/// The client key of a request with these headers and this query.
///
/// # Errors
/// [`Refusal::NoKey`] for none; [`Refusal::AmbiguousKey`] for more than one, for one that is not
/// a single token, and for one in the query. Envoy joins repeated `authorization` headers with a
/// comma, which no key contains.
pub fn find<'a>(headers: &'a HeaderMap, query: &[u8]) -> Result<&'a [u8], Refusal> {
    if query.split(|byte| *byte == b'&').any(names_a_key) {
        return Err(Refusal::AmbiguousKey);
    }
    let mut candidates = headers
        .iter()
        .filter(|(name, _)| KEY_HEADERS.contains(name));
    let (name, value) = candidates.next().ok_or(Refusal::NoKey)?;
    if candidates.next().is_some() {
        return Err(Refusal::AmbiguousKey);
    }
    let key = match name {
        "authorization" => bearer(value)?,
        _ => value,
    };
    match key {
        [] => Err(Refusal::NoKey),
        key if key.len() <= MAX_KEY_BYTES && key.iter().all(|byte| is_key_byte(*byte)) => Ok(key),
        _ => Err(Refusal::AmbiguousKey),
    }
}

/// The token of `Bearer <token>` (RFC 6750 §2.1); the scheme's case does not matter.
fn bearer(value: &[u8]) -> Result<&[u8], Refusal> {
    let (scheme, rest) = value.split_at_checked(6).ok_or(Refusal::AmbiguousKey)?;
    match rest {
        _ if !scheme.eq_ignore_ascii_case(b"bearer") => Err(Refusal::AmbiguousKey),
        [] => Err(Refusal::NoKey),
        [b' ', ..] => Ok(rest.trim_ascii()),
        _ => Err(Refusal::AmbiguousKey),
    }
}

/// The characters of a bearer token (RFC 6750 §2.1, `b64token`).
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

fn names_a_key(parameter: &[u8]) -> bool {
    let name = parameter.split(|byte| *byte == b'=').next();
    name.is_some_and(|name| {
        KEY_PARAMETERS
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
            // An escaped name could spell any of them.
            || name.contains(&b'%')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(headers: &[(&str, &str)], query: &str) -> Result<String, Refusal> {
        let map: HeaderMap = headers.iter().copied().collect();
        find(&map, query.as_bytes()).map(|key| String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn each_place_alone_is_taken() {
        for headers in [
            [("authorization", "Bearer lk_1")],
            [("authorization", "bearer  lk_1 ")],
            [("x-api-key", "lk_1")],
            [("x-goog-api-key", "lk_1")],
        ] {
            assert_eq!(find_in(&headers, "a=1").as_deref(), Ok("lk_1"));
        }
    }

    #[test]
    fn two_keys_are_refused_in_every_combination() {
        for first in KEY_HEADERS {
            for second in KEY_HEADERS {
                let headers = [(first, "Bearer lk_1"), (second, "Bearer lk_1")];
                assert_eq!(find_in(&headers, ""), Err(Refusal::AmbiguousKey));
            }
        }
    }

    #[test]
    fn what_is_not_one_token_is_refused() {
        for value in [
            "Bearer a,Bearer b",
            "Bearer a b",
            "Basic YQ==",
            "lk_1",
            "Bearerlk",
            "Bearer \u{e9}",
        ] {
            let found = find_in(&[("authorization", value)], "");
            assert_eq!(found, Err(Refusal::AmbiguousKey), "{value}");
        }
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        assert_eq!(
            find_in(&[("x-api-key", &long)], ""),
            Err(Refusal::AmbiguousKey)
        );
        assert_eq!(find_in(&[("x-api-key", "")], ""), Err(Refusal::NoKey));
        assert_eq!(
            find_in(&[("authorization", "Bearer ")], ""),
            Err(Refusal::NoKey)
        );
        assert_eq!(find_in(&[], ""), Err(Refusal::NoKey));
    }

    #[test]
    fn a_key_in_the_query_is_refused() {
        for query in ["key=x", "a=1&KEY=x", "%6bey=x", "api_key", "access_token=1"] {
            let found = find_in(&[("x-api-key", "lk_1")], query);
            assert_eq!(found, Err(Refusal::AmbiguousKey), "{query}");
        }
        assert!(find_in(&[("x-api-key", "lk_1")], "beta=true&monkey=1").is_ok());
    }
}
