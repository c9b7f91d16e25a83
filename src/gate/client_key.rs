//! Finds the client key of a request.
//!
//! A client may send more than one credential: Claude Code does with two of its settings, an
//! ingress adds one of its own, a login of the caller's comes along. So each place is read, and the
//! one value that is a key of this gateway counts.

use super::Refusal;
use crate::{
    header::HeaderMap,
    request::{KEY_HEADERS, OWN_KEY_HEADER},
    snapshot::KeyHash,
};

/// The longest client key, in bytes. Ours have 40 or so.
const MAX_KEY_BYTES: usize = 256;

/// The most different credentials of one request that are looked at: each costs a hash.
pub const MAX_PRESENTED: usize = 8;

/// The query parameters in which other gateways take keys. A key in a URL ends up in logs, so it
/// is refused rather than read or passed on.
const KEY_PARAMETERS: [&[u8]; 4] = [b"key", b"api_key", b"api-key", b"access_token"];

/// The different credentials that a request brings, each where it was seen first.
#[derive(Debug, PartialEq, Eq)]
pub struct Presented(Vec<Credential>);

/// A credential: where it stands, and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Credential {
    header: &'static str,
    /// The hash; none for what cannot be a client key: too long, or not one token.
    hash: Option<KeyHash>,
}

// === impl Presented ===

impl Presented {
    /// The credentials in `headers`. The header that is ours alone hides all others.
    ///
    /// # Errors
    /// [`Refusal::NoKey`] for none; [`Refusal::KeyInUrl`] for a query that seems to have one;
    /// [`Refusal::AmbiguousKey`] for more than [`MAX_PRESENTED`].
    pub fn of(headers: &HeaderMap, query: &[u8]) -> Result<Self, Refusal> {
        if query.split(|byte| *byte == b'&').any(names_a_key) {
            return Err(Refusal::KeyInUrl);
        }
        let own = Self::in_headers(headers, &[OWN_KEY_HEADER])?;
        let presented = if own.0.is_empty() {
            Self::in_headers(headers, &KEY_HEADERS)?
        } else {
            own
        };
        if presented.0.is_empty() {
            Err(Refusal::NoKey)
        } else {
            Ok(presented)
        }
    }

    fn in_headers(headers: &HeaderMap, names: &[&'static str]) -> Result<Self, Refusal> {
        let mut found: Vec<Credential> = Vec::new();
        for (name, value) in headers.iter() {
            let Some(header) = names.iter().find(|known| **known == name) else {
                continue;
            };
            // Envoy joins repeated `authorization` headers with a comma, which no key contains.
            for part in value.split(|byte| *byte == b',') {
                let Some(token) = token(header, part.trim_ascii()) else {
                    continue;
                };
                let is_key = token.len() <= MAX_KEY_BYTES && token.iter().copied().all(is_key_byte);
                let hash = is_key.then(|| KeyHash::of(token));
                if hash.is_some() && found.iter().any(|other| other.hash == hash) {
                    continue;
                }
                if found.len() == MAX_PRESENTED {
                    return Err(Refusal::AmbiguousKey(headers_of(&found)));
                }
                found.push(Credential { header, hash });
            }
        }
        Ok(Self(found))
    }

    /// The one client key among them: of several, the one that `is_known`.
    ///
    /// # Errors
    /// [`Refusal::UnknownKey`] where none is known, [`Refusal::AmbiguousKey`] where two are.
    pub fn choose(self, is_known: impl Fn(&KeyHash) -> bool) -> Result<KeyHash, Refusal> {
        let known = |one: &Credential| one.hash.as_ref().is_some_and(&is_known);
        let mut all: Vec<Credential> = self.0.into_iter().filter(known).collect();
        match all.pop() {
            None => Err(Refusal::UnknownKey),
            Some(Credential {
                hash: Some(hash), ..
            }) if all.is_empty() => Ok(hash),
            Some(last) => {
                all.push(last);
                Err(Refusal::AmbiguousKey(headers_of(&all)))
            }
        }
    }
}

fn headers_of(credentials: &[Credential]) -> Vec<&'static str> {
    let mut headers: Vec<_> = credentials.iter().map(|one| one.header).collect();
    headers.dedup();
    headers
}

/// The credential in a value of `header`. None for an empty one, and for an `authorization` of
/// another scheme than Bearer, which is for somebody else.
fn token<'a>(header: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    let token = match header {
        "authorization" => bearer(value)?,
        _ => value,
    };
    (!token.is_empty()).then_some(token)
}

/// The token of `Bearer <token>` (RFC 6750 §2.1); the scheme's case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && rest.first() == Some(&b' ');
    is_bearer.then(|| rest.trim_ascii())
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
    use proptest::prelude::*;

    use super::*;

    /// The key that `headers` choose where `known` are the keys of the gateway.
    fn chosen(headers: &[(&str, &str)], known: &[&str]) -> Result<String, Refusal> {
        let map: HeaderMap = headers.iter().copied().collect();
        let chosen = Presented::of(&map, b"")?
            .choose(|hash| known.iter().any(|key| KeyHash::of(key.as_bytes()) == *hash))?;
        let mut known = known.iter();
        let key = known.find(|key| KeyHash::of(key.as_bytes()) == chosen);
        Ok((*key.unwrap()).to_owned())
    }

    #[test]
    fn each_place_alone_is_taken() {
        for (header, value) in [
            ("authorization", "Bearer lk_1"),
            ("authorization", "bearer  lk_1 "),
            ("x-api-key", "lk_1"),
            ("x-goog-api-key", "lk_1"),
            ("api-key", "lk_1"),
            ("x-latchkey-key", "lk_1"),
        ] {
            let chosen = chosen(&[(header, value)], &["lk_1"]);
            assert_eq!(chosen.as_deref(), Ok("lk_1"), "{header}");
        }
    }

    #[test]
    fn equal_keys_are_one_and_empty_ones_are_none() {
        for headers in [
            [("authorization", "Bearer lk_1"), ("x-api-key", "lk_1")],
            [("authorization", "Bearer lk_1,Bearer lk_1"), ("a", "")],
            [("authorization", "Bearer "), ("x-api-key", "lk_1")],
            [("authorization", "Bearer lk_1"), ("x-api-key", "")],
            [("authorization", "Basic YTpi"), ("api-key", "lk_1")],
            [("x-api-key", "lk_1"), ("x-api-key", "lk_1")],
        ] {
            assert_eq!(chosen(&headers, &["lk_1"]).as_deref(), Ok("lk_1"));
        }
    }

    #[test]
    fn of_different_ones_the_known_one_counts() {
        let headers = [
            ("authorization", "Bearer sk-ant-oat01-mine"),
            ("x-api-key", "lk_1"),
        ];
        assert_eq!(chosen(&headers, &["lk_1"]).as_deref(), Ok("lk_1"));
        assert_eq!(chosen(&headers, &["lk_2"]), Err(Refusal::UnknownKey));
        let both = chosen(&headers, &["lk_1", "sk-ant-oat01-mine"]);
        let named = vec!["authorization", "x-api-key"];
        assert_eq!(both, Err(Refusal::AmbiguousKey(named)));
    }

    #[test]
    fn our_own_header_hides_the_others() {
        let headers = |own| [("authorization", "Bearer lk_1"), ("x-latchkey-key", own)];
        let known = ["lk_1", "lk_2"];
        assert_eq!(chosen(&headers("lk_2"), &known).as_deref(), Ok("lk_2"));
        assert_eq!(chosen(&headers("lk_3"), &known), Err(Refusal::UnknownKey));
        assert_eq!(chosen(&headers(""), &known).as_deref(), Ok("lk_1"));
    }

    #[test]
    fn what_is_no_client_key_is_an_unknown_one() {
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for value in ["a b", "\u{e9}", &long] {
            let found = chosen(&[("x-api-key", value)], &["lk_1"]);
            assert_eq!(found, Err(Refusal::UnknownKey), "{value}");
        }
        for headers in [
            vec![],
            vec![("x-api-key", "")],
            vec![("authorization", "Bearer ")],
            vec![("authorization", "Basic YQ==")],
            vec![("authorization", "lk_1")],
            vec![("authorization", "Bearerlk")],
        ] {
            assert_eq!(chosen(&headers, &["lk_1"]), Err(Refusal::NoKey));
        }
    }

    #[test]
    fn more_credentials_than_are_looked_at_are_refused() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}")).collect::<Vec<_>>();
        let value = many(MAX_PRESENTED).join(",");
        assert_eq!(chosen(&[("api-key", &value)], &["k7"]).as_deref(), Ok("k7"));
        let value = many(MAX_PRESENTED + 1).join(",");
        let refused = Refusal::AmbiguousKey(vec!["api-key"]);
        assert_eq!(chosen(&[("api-key", &value)], &["k7"]), Err(refused));
    }

    #[test]
    fn a_key_in_the_query_is_refused() {
        let headers: HeaderMap = [("x-api-key", "lk_1")].into_iter().collect();
        for query in ["key=x", "a=1&KEY=x", "%6bey=x", "api_key", "access_token=1"] {
            let found = Presented::of(&headers, query.as_bytes());
            assert_eq!(found, Err(Refusal::KeyInUrl), "{query}");
        }
        assert!(Presented::of(&headers, b"beta=true&monkey=1").is_ok());
    }

    proptest! {
        /// Nothing but a known key is ever chosen, and never one of two.
        #[test]
        fn only_a_known_key_is_chosen(
            values in prop::collection::vec(
                (0..KEY_HEADERS.len(), prop::sample::select(vec!["", "a", "b", "c", "x y"])),
                0..6,
            ),
        ) {
            let headers: Vec<_> = values
                .iter()
                .map(|(at, value)| match KEY_HEADERS[*at] {
                    "authorization" => ("authorization", format!("Bearer {value}")),
                    name => (name, (*value).to_owned()),
                })
                .collect();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let sent = |key: &str| values.iter().any(|(_, value)| *value == key);
            let expected = match (sent("a"), sent("b")) {
                (true, true) => None,
                (true, false) => Some("a"),
                (false, true) => Some("b"),
                (false, false) => None,
            };
            let chosen = chosen(&headers, &["a", "b"]).ok();
            prop_assert_eq!(chosen.as_deref(), expected);
        }
    }
}
