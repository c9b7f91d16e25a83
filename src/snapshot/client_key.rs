//! The key that a caller presents to the gateway, as its hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Limits, ModelMaps, Models};
use crate::{dialect::Demands, header::HeaderText, hex, id::Id, newtype::invalid_text};

/// A client key that is valid now. A revoked one is absent from the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKey {
    /// Names the key in logs and records.
    pub id: Id,
    /// Its hash. A key holds at least 112 random bits, so a plain hash does (OWASP ASVS 6.5.2).
    pub sha256: KeyHash,
    /// The pool that serves it.
    pub pool: Id,
    /// The models that it may ask for.
    #[serde(default, skip_serializing_if = "Models::is_all")]
    pub models: Models,
    /// The models that its caller means by others' names.
    #[serde(default, skip_serializing_if = "ModelMaps::is_empty")]
    pub maps: ModelMaps,
    /// No request of it is translated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untranslated: bool,
    /// Each model serves itself or is not served.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact_model: bool,
    /// The demands of its operator on its requests.
    #[serde(default, skip_serializing_if = "Demands::is_none")]
    pub demands: Demands,
    /// The choices that its caller has.
    #[serde(default, skip_serializing_if = "MayChoose::is_nothing")]
    pub may_choose: MayChoose,
    /// Its operator's name for it, for refusals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<HeaderText>,
    /// The time at which it ends, in Unix milliseconds; none for one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The most that it may use.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// The choices that a caller has by headers of its own, beside what its key says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MayChoose {
    /// The account, among those of the pool.
    #[serde(default)]
    pub account: bool,
    /// Other pools than the key's own.
    #[serde(default)]
    pub pools: Vec<Id>,
}

// === impl ClientKey ===

impl ClientKey {
    /// Returns true if it is past its end at `now`, in Unix milliseconds.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// Returns the pool of this name, if it is the key's own or one that its caller may choose.
    pub fn pool_named(&self, name: &[u8]) -> Option<&Id> {
        let mut pools = self.may_choose.pools.iter().chain([&self.pool]);
        pools.find(|pool| pool.as_str().as_bytes() == name)
    }
}

/// The SHA-256 of a client key, 64 hex digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash([u8; 32]);

invalid_text! {
    /// A text that is not a [`KeyHash`].
    InvalidKeyHash, "expected a SHA-256 of 64 hex digits"
}

// === impl MayChoose ===

impl MayChoose {
    /// Returns true if there is no choice.
    pub fn is_nothing(&self) -> bool {
        !self.account && self.pools.is_empty()
    }
}

// === impl KeyHash ===

impl KeyHash {
    /// Hashes the key that a caller sent.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl TryFrom<String> for KeyHash {
    type Error = InvalidKeyHash;

    fn try_from(text: String) -> Result<Self, InvalidKeyHash> {
        hex::decode(text.as_bytes()).map(Self).ok_or(InvalidKeyHash)
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hex::encode(&hash.0)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let hash = KeyHash::of(b"abc");
        let text = String::from(hash);
        // NIST FIPS 180-2, appendix B.1.
        assert_eq!(
            text,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(KeyHash::try_from(text.to_uppercase()), Ok(hash));
        for bad in [
            "",
            "ba",
            &text[..63],
            &format!("{text}0"),
            &text.replace('b', "g"),
        ] {
            assert_eq!(KeyHash::try_from(bad.to_owned()), Err(InvalidKeyHash));
        }
    }
}
