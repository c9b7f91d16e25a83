//! The keys that a running process holds. Another process may have made a new one since, so a key that is not at hand
//! has the keys read again.

use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

use super::{Error, Result};
use crate::keys::KeySource;
use crate::keys::seal::{Binding, KeyId, Keyring};

/// The text that `meta.key_check` is sealed from, and its binding. It tells at start whether the key is the right one,
/// and that everything is sealed as this release seals.
pub(super) const KEY_CHECK: (&[u8], Binding<'_>) = (
    b"latchkey, variables too",
    Binding {
        record: "key_check",
        generation: 0,
        platform: "",
        kind: "",
        base_url: None,
    },
);
/// The text of releases that left accounts' variables in the clear.
pub(super) const EARLIER_KEY_CHECK: &[u8] = b"latchkey";

/// The keys, and where they come from.
#[derive(Debug)]
pub(super) struct Keys {
    source: KeySource,
    held: RwLock<Arc<Keyring>>,
}

impl Keys {
    pub(super) fn new(source: KeySource, held: Keyring) -> Keys {
        Keys {
            source,
            held: RwLock::new(Arc::new(held)),
        }
    }

    pub(super) fn source(&self) -> &KeySource {
        &self.source
    }

    /// The keys as they were last read.
    pub(super) fn held(&self) -> Arc<Keyring> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the keys again. Records that were read before a rotation ended still open: no reader may take an account
    /// for one that cannot be opened.
    pub(super) fn reload(&self) -> Result<Arc<Keyring>> {
        let read = self.source.load()?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(read.with_earlier(&held));
        Ok(Arc::clone(&held))
    }

    /// The keys, with this one among them if it can be had.
    fn with(&self, id: Option<KeyId>) -> Result<Arc<Keyring>> {
        let held = self.held();
        match id {
            Some(id) if !held.holds(id) => self.reload(),
            _ => Ok(held),
        }
    }

    pub(super) fn seal(
        &self,
        id: KeyId,
        binding: Binding<'_>,
        plaintext: &[u8],
        seals: u64,
    ) -> Result<Vec<u8>> {
        let keyring = self.with(Some(id))?;
        keyring
            .seal(id, binding, plaintext, seals)
            .map_err(|source| Error::Seal {
                record: binding.record.to_owned(),
                source,
            })
    }

    /// [`Keyring::open_first_format`].
    pub(super) fn open_first_format(
        &self,
        binding: Binding<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let keyring = self.with(KeyId::of(sealed))?;
        let opened = keyring.open_first_format(binding, sealed);
        opened.map_err(|source| Error::Seal {
            record: binding.record.to_owned(),
            source,
        })
    }

    pub(super) fn open(&self, binding: Binding<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let keyring = self.with(KeyId::of(sealed))?;
        keyring.open(binding, sealed).map_err(|source| Error::Seal {
            record: binding.record.to_owned(),
            source,
        })
    }
}
