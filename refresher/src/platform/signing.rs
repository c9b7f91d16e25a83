//! `[signing]` of a profile: tokens that are made of a key, here and not at the platform. Each is a JSON Web Token
//! (RFC 7519) that is signed with HMAC and SHA-256 (RFC 7518 §3.2).
//!
//! The key has two parts, an id and a secret. The platform sees the id and the signature; the secret never leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Invalid, invalid};
use crate::clock::UnixMillis;
use crate::credential::SignedKey;

/// The shortest life of a token: a tenth of it is enough for a new one to reach every Envoy.
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// The longest: a token that is stolen is of use no longer than this.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The making of tokens from a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    separator: String,
    header: BTreeMap<String, String>,
    id_claim: String,
    issued_claim: Option<String>,
    expires_claim: String,
    unit: Unit,
    lifetime: Duration,
}

/// The unit of a token's times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    /// As RFC 7519 has them.
    #[default]
    Seconds,
    Milliseconds,
}

/// The reason why no token can be made of a key. Says nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a key of an id and a secret with {separator:?} between them, found another form")]
pub struct Malformed {
    separator: String,
}

impl Signing {
    /// Makes a token of `key` that is good from `now` on, with its end.
    ///
    /// # Errors
    /// If the key does not have two parts.
    pub fn mint(
        &self,
        key: &SecretString,
        now: UnixMillis,
    ) -> Result<(SignedKey, UnixMillis), Malformed> {
        let parts = key.expose_secret().split_once(&*self.separator);
        let (id, secret) = parts
            .filter(|(id, secret)| !id.is_empty() && !secret.is_empty())
            .ok_or_else(|| Malformed {
                separator: self.separator.clone(),
            })?;
        let expires_at = now.plus(self.lifetime);
        let mut header = Map::from_iter([("alg".to_owned(), Value::from("HS256"))]);
        let more = self.header.iter();
        header.extend(more.map(|(name, value)| (name.clone(), Value::from(value.as_str()))));
        let mut claims = Map::from_iter([
            (self.id_claim.clone(), Value::from(id)),
            (
                self.expires_claim.clone(),
                Value::from(self.unit.of(expires_at)),
            ),
        ]);
        if let Some(issued) = &self.issued_claim {
            claims.insert(issued.clone(), Value::from(self.unit.of(now)));
        }
        let input = format!(
            "{}.{}",
            base64url(Value::Object(header).to_string()),
            base64url(Value::Object(claims).to_string())
        );
        let token = format!("{input}.{}", signature(&input, secret.as_bytes()));
        let signed = SignedKey {
            key: key.clone(),
            token: token.into(),
        };
        Ok((signed, expires_at))
    }
}

impl Unit {
    fn of(self, time: UnixMillis) -> i64 {
        match self {
            Unit::Seconds => time.0 / 1_000,
            Unit::Milliseconds => time.0,
        }
    }
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

fn signature(input: &str, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    base64url(hmac::sign(&key, input.as_bytes()))
}

/// `[signing]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default = "dot")]
    separator: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
    id_claim: String,
    issued_claim: Option<String>,
    expires_claim: String,
    #[serde(default)]
    unit: Unit,
    lifetime_seconds: u64,
}

fn dot() -> String {
    ".".to_owned()
}

impl Raw {
    pub(super) fn check(self) -> Result<Signing, Invalid> {
        if self.separator.is_empty() {
            let problem = "expected the text between the key's id and its secret";
            return Err(invalid("signing.separator", problem));
        }
        if self.header.contains_key("alg") {
            let problem = "expected no alg here: tokens are signed with HS256";
            return Err(invalid("signing.header", problem));
        }
        let mut claims = vec![&self.id_claim, &self.expires_claim];
        claims.extend(&self.issued_claim);
        claims.sort();
        claims.dedup();
        if claims.len() != 2 + usize::from(self.issued_claim.is_some()) {
            let problem =
                "expected another name for each of id_claim, issued_claim and expires_claim";
            return Err(invalid("signing", problem));
        }
        let lifetime = Duration::from_secs(self.lifetime_seconds);
        if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime) {
            let problem = format!(
                "expected {} to {}",
                MIN_LIFETIME.as_secs(),
                MAX_LIFETIME.as_secs()
            );
            return Err(invalid("signing.lifetime_seconds", problem));
        }
        Ok(Signing {
            separator: self.separator,
            header: self.header,
            id_claim: self.id_claim,
            issued_claim: self.issued_claim,
            expires_claim: self.expires_claim,
            unit: self.unit,
            lifetime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECONDS: &str = "header = { sign_type = 'SIGN' }\nid_claim = 'api_key'\nexpires_claim = 'exp'\n\
                                issued_claim = 'timestamp'\nunit = 'milliseconds'\nlifetime_seconds = 1800";

    fn signing(text: &str) -> Result<Signing, Invalid> {
        toml::from_str::<Raw>(text).unwrap().check()
    }

    /// RFC 7515, appendix A.1: its header and payload, line breaks included, and its key.
    #[test]
    fn the_signature_is_that_of_the_rfc() {
        let input = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = BASE64URL_NOPAD.decode(key.as_bytes()).unwrap();
        assert_eq!(
            signature(input, &key),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
    }

    /// The token was made with Python's `hmac` of the same parts.
    #[test]
    fn a_token_is_what_another_program_makes_of_the_key() {
        let now = UnixMillis(1_790_000_000_123);
        let signing = signing(MILLISECONDS).unwrap();
        let (signed, expires_at) = signing.mint(&"id-1.the.secret".into(), now).unwrap();
        assert_eq!(signed.token.expose_secret(), EXPECTED);
        assert_eq!(signed.key.expose_secret(), "id-1.the.secret");
        assert_eq!(expires_at, now.plus(Duration::from_secs(1_800)));
    }

    const EXPECTED: &str = "eyJhbGciOiJIUzI1NiIsInNpZ25fdHlwZSI6IlNJR04ifQ.\
                            eyJhcGlfa2V5IjoiaWQtMSIsImV4cCI6MTc5MDAwMTgwMDEyMywidGltZXN0YW1wIjoxNzkwMDAwMDAwMTIzfQ.\
                            vUXriYyOxwunYS55-JcmuG-W7QYHyN70BUF0wxDqv8k";

    #[test]
    fn a_key_in_another_form_is_refused_and_not_told() {
        let signing = signing(MILLISECONDS).unwrap();
        for bad in ["", ".", "sk-secret", ".secret", "secret."] {
            let refused = signing.mint(&bad.into(), UnixMillis(0)).unwrap_err();
            assert!(!refused.to_string().contains("secret\""), "{refused}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (change, key) in [
            (
                ("lifetime_seconds = 1800", "lifetime_seconds = 59"),
                "signing.lifetime_seconds",
            ),
            (
                ("lifetime_seconds = 1800", "lifetime_seconds = 86401"),
                "signing.lifetime_seconds",
            ),
            (("'timestamp'", "'exp'"), "signing"),
            (("sign_type", "alg"), "signing.header"),
            (("unit", "separator = ''\nunit"), "signing.separator"),
        ] {
            let text = MILLISECONDS.replace(change.0, change.1);
            assert_ne!(text, MILLISECONDS);
            assert_eq!(signing(&text).unwrap_err().key, key);
        }
        let seconds = MILLISECONDS.replace("unit = 'milliseconds'\n", "");
        let (signed, _) = signing(&seconds)
            .unwrap()
            .mint(&"a.b".into(), UnixMillis(5_999))
            .unwrap();
        let claims = signed.token.expose_secret().split('.').nth(1).unwrap();
        let claims = String::from_utf8(BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
        assert_eq!(claims, r#"{"api_key":"a","exp":1805,"timestamp":5}"#);
    }
}
