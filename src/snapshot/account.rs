//! A usable account, with its credential.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BasePath, Limits, ModelMaps, Models, escaped};
use crate::{header::HeaderText, id::Id, secret::Secret, text::needle::Needle};

/// The shortest credential that is looked for, in bytes: a shorter one is in any text.
const MIN_NEEDLE_BYTES: usize = 8;

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
    /// The time at which the credential expires, in Unix milliseconds; none for one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_expires_at: Option<u64>,
    /// The time at which the account itself expires, as its operator set, in Unix milliseconds; none for one that
    /// does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The models that it serves.
    #[serde(default, skip_serializing_if = "Models::is_all")]
    pub models: Models,
    /// The names by which its platform knows models, by those that callers and pools have.
    #[serde(default, skip_serializing_if = "ModelMaps::is_empty")]
    pub maps: ModelMaps,
    /// The most that it may use.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Made of the credential when it is first looked for.
    #[serde(skip)]
    pub needles: Needles,
}

/// The credential as it is looked for in answers, once that was done. It follows from the credential, so
/// that all are equal.
#[derive(Clone, Default)]
pub struct Needles(OnceLock<Arc<[Needle]>>);

// === impl Account ===

impl Account {
    /// Returns true if it is past its end at `now`, in Unix milliseconds.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// Returns what finds the credential in a text: as it is, and as in a URL where that differs. Nothing
    /// finds one that is too short to be looked for.
    pub fn needles(&self) -> Arc<[Needle]> {
        let make = || {
            let own = &self.credential;
            let escaped = match escaped(own.expose()) {
                Cow::Borrowed(_) => None,
                Cow::Owned(text) => Some(Secret::new(text)),
            };
            let forms = [Some(own.clone()), escaped];
            let forms = forms.into_iter().flatten();
            let forms = forms.filter(|form| form.expose().len() >= MIN_NEEDLE_BYTES);
            forms.map(Needle::new).collect()
        };
        Arc::clone(self.needles.0.get_or_init(make))
    }
}

// === impl Needles ===

impl PartialEq for Needles {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The credential is not shown.
impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needles").finish_non_exhaustive()
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
