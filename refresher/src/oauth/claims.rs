//! Claims of a JSON Web Token, read without verifying its signature.
//!
//! They are hints: they name an account to its owner and say when a token is worth refreshing. Nothing is ever
//! authorised by them, since no signature is looked at; which is why the one door here says "unverified".

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::clock::UnixMillis;

/// Bytes of a token that is looked into. Real ones have 1 to 4 KiB.
pub const TOKEN_LIMIT: usize = 64 * 1024;
/// Bytes of one claim: it may become a header value.
pub const CLAIM_LIMIT: usize = 1024;
/// The var that tells one account at a platform from another: at OpenAI the ChatGPT account, which is a workspace and may
/// have several members.
pub const IDENTITY: &str = "account_id";
/// The var that tells the members of a workspace apart. Unlike an address it never changes.
pub const USER: &str = "user_id";
/// The var that says who logged in, and that an account is named after.
pub const EMAIL: &str = "email";
/// 9999-12-31T23:59:59Z in Unix seconds; an `exp` past it is not a date.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The payload of a token. It names a person, so it has no `Debug`.
pub struct Claims(Value);

impl Claims {
    /// Decodes the payload; `None` if `token` is no JWT in compact form (RFC 7515 §7.1) with an object inside.
    pub fn decode_unverified(token: &SecretString) -> Option<Claims> {
        let token = token.expose_secret();
        if token.len() > TOKEN_LIMIT {
            return None;
        }
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let payload = payload.trim_end_matches('=').as_bytes();
        let payload = BASE64URL_NOPAD.decode(payload).ok()?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        claims.is_object().then_some(Claims(claims))
    }

    /// The claim at a JSON pointer (RFC 6901) as text; `None` if it is absent, empty, too long, not a scalar, or not
    /// visible ASCII, as a header value must be.
    pub fn text(&self, pointer: &str) -> Option<String> {
        text(self.0.pointer(pointer)?)
    }

    /// `exp` (RFC 7519 §4.1.4), between 1970 and the year 9999.
    pub fn expiry(&self) -> Option<UnixMillis> {
        seconds(self.0.get("exp")?)
    }
}

/// A claim's value as text, under the rules of [`Claims::text`].
pub fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let fits = (1..=CLAIM_LIMIT).contains(&text.len()) && text.bytes().all(visible);
    fits.then_some(text)
}

/// A non-negative number of seconds, also one that a server wrote as a string, in milliseconds.
fn seconds(value: &Value) -> Option<UnixMillis> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    // The cast is exact enough: the range holds fewer milliseconds than an f64 has integers.
    (0.0..=LAST_SECOND)
        .contains(&seconds)
        .then_some(UnixMillis((seconds * 1000.0) as i64))
}

/// A lifetime (`expires_in`, RFC 6749 §5.1), bounded like [`Claims::expiry`].
pub fn lifetime(value: &Value) -> Option<std::time::Duration> {
    Some(seconds(value)?.since(UnixMillis(0)))
}

/// The account's vars: each of the profile's claims (name to JSON pointer) that the id token holds, or else the
/// access token.
pub fn vars(
    pointers: &BTreeMap<String, String>,
    id: Option<&SecretString>,
    access: &SecretString,
) -> BTreeMap<String, String> {
    let sources: Vec<Claims> = id
        .into_iter()
        .chain([access])
        .filter_map(Claims::decode_unverified)
        .collect();
    let find = |pointer: &str| sources.iter().find_map(|claims| claims.text(pointer));
    pointers
        .iter()
        .filter_map(|(name, pointer)| Some((name.clone(), find(pointer)?)))
        .collect()
}

/// Returns true if two logins at one platform are of the same account: of the same [`IDENTITY`], and of the same
/// [`USER`] or else [`EMAIL`], as far as both tell. Logins without an identity are not known to be.
pub fn is_same_account(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    let both = |name| Some((one.get(name)?, other.get(name)?));
    let is_same_user = match (both(USER), both(EMAIL)) {
        (Some((one, other)), _) => one == other,
        (None, Some((one, other))) => one.eq_ignore_ascii_case(other),
        (None, None) => true,
    };
    both(IDENTITY).is_some_and(|(one, other)| one == other) && is_same_user
}

/// Makes an unsigned token for tests.
#[cfg(test)]
pub fn unsigned(payload: &Value) -> SecretString {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!(
        "{}.{}.c2ln",
        encode(&serde_json::json!({"alg": "none"})),
        encode(payload)
    )
    .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn members_of_one_workspace_are_not_one_account() {
        let vars = |text: &str| -> BTreeMap<String, String> {
            let pairs = text
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        for (one, other, same) in [
            (
                "account_id=w user_id=a email=a@x",
                "account_id=w user_id=a email=new@x",
                true,
            ),
            (
                "account_id=w user_id=a email=a@x",
                "account_id=w user_id=b email=a@x",
                false,
            ),
            ("account_id=w user_id=a", "account_id=v user_id=a", false),
            (
                "account_id=w email=a@x",
                "account_id=w user_id=a email=A@X",
                true,
            ),
            (
                "account_id=w email=a@x",
                "account_id=w user_id=b email=b@x",
                false,
            ),
            ("account_id=w", "account_id=w email=a@x", true),
            ("email=a@x", "email=a@x", false),
        ] {
            assert_eq!(
                is_same_account(&vars(one), &vars(other)),
                same,
                "{one}, {other}"
            );
            assert_eq!(
                is_same_account(&vars(other), &vars(one)),
                same,
                "{other}, {one}"
            );
        }
    }

    #[test]
    fn claims_are_found_by_pointer_first_in_the_id_token() {
        let id =
            unsigned(&json!({"https://api.openai.com/auth": {"chatgpt_account_id": "from-id"}}));
        let access = unsigned(&json!({
            "https://api.openai.com/auth": {"chatgpt_account_id": "from-access"}, "email": "a@example.com",
        }));
        let pointers = BTreeMap::from([
            (
                "account_id".to_owned(),
                "/https:~1~1api.openai.com~1auth/chatgpt_account_id".to_owned(),
            ),
            ("email".to_owned(), "/email".to_owned()),
            ("plan".to_owned(), "/plan".to_owned()),
        ]);
        let found = vars(&pointers, Some(&id), &access);
        assert_eq!(found["account_id"], "from-id");
        assert_eq!(found["email"], "a@example.com");
        assert!(!found.contains_key("plan"));
        assert_eq!(vars(&pointers, None, &access)["account_id"], "from-access");
    }

    #[test]
    fn a_claim_that_could_break_a_header_is_not_taken() {
        let token = unsigned(
            &json!({"a": "x\r\nset-cookie: y", "b": "x".repeat(CLAIM_LIMIT + 1), "c": "", "d": {}}),
        );
        let claims = Claims::decode_unverified(&token).unwrap();
        assert!(
            ["/a", "/b", "/c", "/d", "/e", ""]
                .iter()
                .all(|pointer| claims.text(pointer).is_none())
        );
    }

    #[test]
    fn an_expiry_that_is_no_date_is_refused() {
        let expiry = |exp: Value| {
            Claims::decode_unverified(&unsigned(&json!({"exp": exp})))
                .unwrap()
                .expiry()
        };
        assert_eq!(
            expiry(json!(1_790_000_000)),
            Some(UnixMillis(1_790_000_000_000))
        );
        assert_eq!(expiry(json!(1.5)), Some(UnixMillis(1_500)));
        for wrong in [
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
            json!("tomorrow"),
            json!("NaN"),
            json!(null),
            json!([1]),
        ] {
            assert_eq!(expiry(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_jwt_has_no_claims() {
        for wrong in [
            "",
            "a.b",
            "a.b.c",
            "a.e30.c.d",
            "a.W10.c",
            "sk-key",
            &"x.".repeat(TOKEN_LIMIT),
        ] {
            assert!(
                Claims::decode_unverified(&wrong.into()).is_none(),
                "{wrong:.20}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_token_makes_it_panic(token in ".{0,200}", payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            Claims::decode_unverified(&token.into());
            let encoded = format!("e30.{}.c2ln", BASE64URL_NOPAD.encode(&payload));
            if let Some(claims) = Claims::decode_unverified(&encoded.into()) {
                claims.expiry();
                claims.text("/a");
            }
        }
    }
}
