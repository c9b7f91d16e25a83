//! Tokens that a caller made of an API key of two parts, `id.secret`: a JSON Web Token (RFC 7519) signed with HMAC and
//! SHA-256, with the id and its end in milliseconds as claims.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::Value;

use crate::clock::UnixMillis;

/// Finds, among `keys`, the one that `token` was made of, if it is signed with the secret of that key and has not ended.
pub fn key_of<'a>(
    token: &str,
    mut keys: impl Iterator<Item = &'a String>,
    now: UnixMillis,
) -> Option<&'a String> {
    let (input, signature) = token.rsplit_once('.')?;
    let (header, claims) = input.split_once('.')?;
    let (header, claims) = (json(header)?, json(claims)?);
    if header["alg"] != "HS256" || header["sign_type"] != "SIGN" {
        return None;
    }
    let is_current =
        claims["timestamp"].as_u64()? <= now.0 + SKEW_MS && claims["exp"].as_u64()? > now.0;
    let id = claims["api_key"].as_str()?;
    let key = keys.find(|key| key.split_once('.').is_some_and(|(own, _)| own == id))?;
    let (_, secret) = key.split_once('.')?;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let verified = hmac::verify(&secret, input.as_bytes(), &signature);
    (verified.is_ok() && is_current).then_some(key)
}

/// The most that a caller's clock may be ahead.
const SKEW_MS: u64 = 60_000;

fn json(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_of_the_id_signs_and_not_for_ever() {
        // Made with Python's `hmac` of the key `id-1.the.secret`, good until 1790001800123.
        let token = "eyJhbGciOiJIUzI1NiIsInNpZ25fdHlwZSI6IlNJR04ifQ.eyJhcGlfa2V5IjoiaWQtMSIsImV4cCI6MTc5MDAwMTgwMDEyM\
                     ywidGltZXN0YW1wIjoxNzkwMDAwMDAwMTIzfQ.vUXriYyOxwunYS55-JcmuG-W7QYHyN70BUF0wxDqv8k";
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let found =
            |known: &[String], at: u64| key_of(token, known.iter(), UnixMillis(at)).cloned();
        let known = keys(&["plain", "id-2.the.secret", "id-1.the.secret"]);
        assert_eq!(found(&known, 1_790_001_000_000), Some(known[2].clone()));
        assert_eq!(found(&known, 1_790_001_800_123), None, "it has ended");
        assert_eq!(found(&known, 1_780_000_000_000), None, "it is not good yet");
        assert_eq!(found(&keys(&["id-1.another"]), 1_790_001_000_000), None);
        assert_eq!(found(&keys(&["id-2.the.secret"]), 1_790_001_000_000), None);
    }
}
