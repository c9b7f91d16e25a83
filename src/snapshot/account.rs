//! A usable account, with its credential.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BasePath, Limits, Models};
use crate::{header::HeaderText, id::Id, secret::Secret};

/// An account that may serve requests. One that may not is absent from the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Never reused.
    pub id: Id,
    /// Its operator's name for it.
    pub name: HeaderText,
    /// The platform it belongs to.
    pub platform: Id,
    /// The Envoy cluster that leads there.
    pub cluster: Id,
    /// The `:authority` of its requests: host, and port where it is not the scheme's own.
    pub authority: HeaderText,
    /// The path of its own base URL; none for an account that is at its platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_path: Option<BasePath>,
    /// The access token or API key.
    #[serde(
        serialize_with = "serialize_secret",
        deserialize_with = "deserialize_secret"
    )]
    pub credential: Secret,
    /// The variables that the platform's templates need beside the credential.
    #[serde(default)]
    pub vars: BTreeMap<String, HeaderText>,
    /// Counts its credentials, from 1.
    pub generation: u64,
    /// When the credential expires, in Unix milliseconds; none for one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_expires_at: Option<u64>,
    /// When the account itself expires, as its operator set, in Unix milliseconds; none for one
    /// that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The models that it serves.
    #[serde(default, skip_serializing_if = "Models::is_all")]
    pub models: Models,
    /// The most that it may use.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

// === impl Account ===

impl Account {
    /// Tells if it is past its end at `now`, in Unix milliseconds.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }
}

fn serialize_secret<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

fn deserialize_secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    let text = HeaderText::deserialize(from)?;
    if text.as_str().is_empty() {
        return Err(serde::de::Error::custom("expected a credential"));
    }
    Ok(Secret::new(text.as_str()))
}

#[cfg(test)]
mod tests {
    use crate::snapshot::fixture;

    #[test]
    fn debug_shows_no_credential() {
        let shown = format!("{:?}", fixture::account("acc_1", "codex"));
        assert!(!shown.contains("token-of"), "{shown}");
    }
}
