//! Seals records at rest: AES-256-GCM, the one place in Latchkey that holds cryptography.
//!
//! A sealed record is `format (1) ∥ key id (4) ∥ nonce (12) ∥ ciphertext ∥ tag (16)`. Its associated data is `format ∥ key
//! id ∥ generation`, then the record's id, its platform, its kind and, where the account has one, its base URL, each after its
//! length. So a record cannot be put in another's place, made another platform's, sent to another host, or put back when it
//! is old. The key id is four bytes of a hash of the key.
//! Format 1, of earlier releases, had neither platform nor kind; it is only opened to be sealed anew.
//!
//! Any key of a keyring opens what it sealed. Which key seals is the database's word (`meta.sealing_key`), read in the
//! transaction that seals, so all processes change over at once. The first key of the source is meant to seal. A process
//! that meets a key that it does not hold reads the source again, and remembers the last few keys that it had.
//! `sealing_keys` counts what each key has sealed. At 3,865,470,566 records a key seals no more; a rotation is the cure.

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use rand::RngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::id::hex;

/// The layout above.
const FORMAT: u8 = 2;
/// The layout of earlier releases.
pub const FIRST_FORMAT: u8 = 1;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
/// NIST SP 800-38D §8.2.2: 96 random bits.
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES;

/// The most records that one key may seal: nine tenths of the 2^32 that NIST SP 800-38D §8.3 allows for random nonces.
/// AES-GCM-SIV (RFC 8452) would need no such count. But no standard of NIST's has it, and a database that is sealed with
/// AES-GCM would have two ciphers; the count is one number a key.
pub const SEALS_PER_KEY: u64 = 3_865_470_566;

/// The most keys that a process remembers though they were forgotten where keys are kept: that of the rotation which runs
/// while something is read, and a few more.
const MAX_EARLIER_KEYS: usize = 4;

/// The reason why a record could not be sealed or opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Tampered with, cut short, swapped, or sealed with a key that is not at hand: one answer for all of them.
    #[error(
        "a sealed record cannot be opened: it, its platform or its base URL was changed in the database, or it was sealed \
         with another key"
    )]
    Open,
    /// The key has sealed [`SEALS_PER_KEY`] records.
    #[error(
        "the key has sealed {SEALS_PER_KEY} records, the most that is safe: it must be rotated"
    )]
    Exhausted,
    /// The key that is to seal is not at hand.
    #[error("records are sealed with the key {0} by now, which is not at hand here")]
    NotAtHand(KeyId),
}

/// The name of a key in the records that it sealed. It says nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl KeyId {
    /// The id in these bytes, if they are as many as an id has.
    pub fn from_bytes(bytes: &[u8]) -> Option<KeyId> {
        bytes.try_into().ok().map(KeyId)
    }

    /// The id that a sealed record names, if it is whole enough to name one.
    pub fn of(sealed: &[u8]) -> Option<KeyId> {
        KeyId::from_bytes(sealed.get(1..=KEY_ID_BYTES)?)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyId({self})")
    }
}

/// A 256-bit key with the id that sealed records name it by.
pub struct Key {
    id: KeyId,
    cipher: Aes256Gcm,
}

impl Key {
    /// A key from its bytes. Its id is derived from them, so that it needs no keeping.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Key {
        let mut hash = Sha256::new();
        hash.update(b"latchkey key id");
        hash.update(bytes);
        let digest = hash.finalize();
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Key {
            id: KeyId(id),
            cipher: Aes256Gcm::new(bytes.into()),
        }
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(…)")
    }
}

/// The place that a sealed record is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The record's id in the store.
    pub record: &'a str,
    /// The record's generation: counts what was sealed under this id.
    pub generation: u64,
    /// The platform whose credential it is; empty where it is none.
    pub platform: &'a str,
    /// The kind of the credential, or of what else is sealed.
    pub kind: &'a str,
    /// The account's own base URL, if it has one: the credential goes there.
    pub base_url: Option<&'a str>,
}

impl Binding<'_> {
    /// Every part has a fixed length or comes after its length, so that no two bindings share their bytes.
    fn associated_data(&self, key: &Key) -> Vec<u8> {
        let mut data = vec![FORMAT];
        data.extend_from_slice(key.id.as_bytes());
        data.extend_from_slice(&self.generation.to_be_bytes());
        let texts = [self.record, self.platform, self.kind].into_iter();
        for text in texts.chain(self.base_url) {
            data.extend_from_slice(&(text.len() as u64).to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        data
    }

    /// The associated data of [`FIRST_FORMAT`].
    fn first_associated_data(&self, key: &Key) -> Vec<u8> {
        [
            &[FIRST_FORMAT],
            self.record.as_bytes(),
            key.id.as_bytes(),
            &self.generation.to_be_bytes(),
        ]
        .concat()
    }
}

/// The keys at hand, one at least.
#[derive(Debug)]
pub struct Keyring {
    first: Arc<Key>,
    others: Vec<Arc<Key>>,
}

impl Keyring {
    /// `first` is the key that is meant to seal, `others` those before it.
    pub fn new(first: Key, others: Vec<Key>) -> Keyring {
        Keyring {
            first: Arc::new(first),
            others: others.into_iter().map(Arc::new).collect(),
        }
    }

    /// These keys, and behind them those of `earlier` that are gone, so that what was read before opens: at most
    /// [`MAX_EARLIER_KEYS`] of them.
    pub fn with_earlier(mut self, earlier: &Keyring) -> Keyring {
        let gone = |key: &&Arc<Key>| !self.holds(key.id);
        let gone: Vec<_> = earlier
            .all()
            .filter(gone)
            .take(MAX_EARLIER_KEYS)
            .cloned()
            .collect();
        self.others.extend(gone);
        self
    }

    /// The key that is meant to seal.
    pub fn first(&self) -> KeyId {
        self.first.id
    }

    /// Every key, the first one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.all().map(|key| key.id)
    }

    /// True if the key is at hand.
    pub fn holds(&self, id: KeyId) -> bool {
        self.ids().any(|held| held == id)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Seals `plaintext` with the key `id`. `seals` is how many records that key has sealed before this one.
    ///
    /// # Errors
    /// [`Error::Exhausted`] once that is [`SEALS_PER_KEY`]; [`Error::NotAtHand`] if there is no such key.
    pub fn seal(
        &self,
        id: KeyId,
        binding: Binding<'_>,
        plaintext: &[u8],
        seals: u64,
    ) -> Result<Vec<u8>, Error> {
        if seals >= SEALS_PER_KEY {
            return Err(Error::Exhausted);
        }
        let mut keys = self.all();
        let key = keys.find(|key| key.id == id).ok_or(Error::NotAtHand(id))?;
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload {
            msg: plaintext,
            aad: &binding.associated_data(key),
        };
        let ciphertext = key
            .cipher
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| Error::Exhausted)?;
        Ok([&[FORMAT], key.id.as_bytes(), &nonce, &ciphertext].concat())
    }

    /// Opens what [`Keyring::seal`] sealed under the same binding.
    ///
    /// # Errors
    /// [`Error::Open`], whatever the reason.
    pub fn open(&self, binding: Binding<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.open_form(FORMAT, sealed, |key| binding.associated_data(key))
    }

    /// Opens what an earlier release sealed, to be sealed anew: platform and kind of `binding` are not looked at.
    ///
    /// # Errors
    /// [`Error::Open`], whatever the reason.
    pub fn open_first_format(
        &self,
        binding: Binding<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.open_form(FIRST_FORMAT, sealed, |key| {
            binding.first_associated_data(key)
        })
    }

    fn open_form(
        &self,
        format: u8,
        sealed: &[u8],
        associated_data: impl FnOnce(&Key) -> Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        if sealed.len() < HEADER_BYTES + TAG_BYTES || sealed[0] != format {
            return Err(Error::Open);
        }
        let (header, ciphertext) = sealed.split_at(HEADER_BYTES);
        let (key_id, nonce) = header[1..].split_at(KEY_ID_BYTES);
        let mut keys = self.all();
        let key = keys
            .find(|key| key.id.as_bytes() == key_id)
            .ok_or(Error::Open)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &associated_data(key),
        };
        key.cipher
            .decrypt(Nonce::from_slice(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| Error::Open)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const ALICE: Binding<'_> = Binding {
        record: "acc_A",
        generation: 7,
        platform: "codex",
        kind: "oauth",
        base_url: Some("https://eu.test/v1"),
    };

    fn keyring(byte: u8) -> Keyring {
        Keyring::new(Key::new(&[byte; KEY_BYTES]), Vec::new())
    }

    /// Seals with the first key.
    fn seal(keyring: &Keyring, binding: Binding<'_>, plaintext: &[u8]) -> Vec<u8> {
        keyring
            .seal(keyring.first(), binding, plaintext, 0)
            .unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(plaintext: Vec<u8>, record: String, generation: u64, platform: String) {
            let binding = Binding { record: &record, generation, platform: &platform, kind: "api_key", base_url: None };
            let sealed = seal(&keyring(1), binding, &plaintext);
            prop_assert_eq!(&**keyring(1).open(binding, &sealed).unwrap(), &plaintext[..]);
        }

        #[test]
        fn every_flipped_bit_is_refused(plaintext in prop::collection::vec(any::<u8>(), 0..64)) {
            let sealed = seal(&keyring(1), ALICE, &plaintext);
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(keyring(1).open(ALICE, &flipped), Err(Error::Open));
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let sealed = seal(&keyring(1), ALICE, b"token");
        for length in 0..sealed.len() {
            assert_eq!(
                keyring(1).open(ALICE, &sealed[..length]),
                Err(Error::Open),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_swapped_or_older_record_is_refused() {
        let sealed = seal(&keyring(1), ALICE, b"token");
        for other in [
            Binding {
                record: "acc_B",
                ..ALICE
            },
            Binding {
                generation: 8,
                ..ALICE
            },
            Binding {
                platform: "openai",
                ..ALICE
            },
            Binding {
                kind: "api_key",
                ..ALICE
            },
            Binding {
                base_url: Some("https://evil.test/v1"),
                ..ALICE
            },
            Binding {
                base_url: None,
                ..ALICE
            },
            // The same text, cut in another place.
            Binding {
                record: "acc_Ac",
                platform: "odex",
                ..ALICE
            },
        ] {
            assert_eq!(keyring(1).open(other, &sealed), Err(Error::Open));
        }
    }

    #[test]
    fn a_retired_key_opens_and_a_foreign_one_does_not() {
        let sealed = seal(&keyring(1), ALICE, b"token");
        let rotated = Keyring::new(Key::new(&[2; KEY_BYTES]), vec![Key::new(&[1; KEY_BYTES])]);
        assert_eq!(&**rotated.open(ALICE, &sealed).unwrap(), b"token");
        assert_eq!(keyring(2).open(ALICE, &sealed), Err(Error::Open));
        let resealed = seal(&rotated, ALICE, b"token");
        assert_eq!(keyring(1).open(ALICE, &resealed), Err(Error::Open));
    }

    #[test]
    fn a_few_earlier_keys_are_remembered() {
        let mut held = keyring(0);
        for byte in 1..20 {
            held = keyring(byte).with_earlier(&held);
        }
        let expected = [19, 18, 17, 16, 15].map(|byte| keyring(byte).first());
        assert_eq!(held.ids().collect::<Vec<_>>(), expected);
        let again = keyring(19).with_earlier(&held);
        assert_eq!(again.ids().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn any_key_at_hand_seals_when_it_is_told_to() {
        let (old, new) = (Key::new(&[1; KEY_BYTES]), Key::new(&[2; KEY_BYTES]));
        let (old_id, new_id) = (old.id(), new.id());
        let both = Keyring::new(new, vec![old]);
        for id in [old_id, new_id] {
            let sealed = both.seal(id, ALICE, b"token", 0).unwrap();
            assert_eq!(KeyId::of(&sealed), Some(id));
        }
        let stranger = keyring(3).first();
        assert_eq!(
            both.seal(stranger, ALICE, b"token", 0),
            Err(Error::NotAtHand(stranger))
        );
    }

    #[test]
    fn a_hundred_thousand_nonces_do_not_repeat() {
        nonces_do_not_repeat(100_000);
    }

    fn nonces_do_not_repeat(count: usize) {
        let keyring = keyring(1);
        let nonces: HashSet<[u8; NONCE_BYTES]> = (0..count)
            .map(|seals| {
                let seals = seals.try_into().unwrap();
                let sealed = keyring.seal(keyring.first(), ALICE, b"", seals).unwrap();
                sealed[1 + KEY_ID_BYTES..HEADER_BYTES].try_into().unwrap()
            })
            .collect();
        assert_eq!(nonces.len(), count);
    }

    /// The same for more (`make long`).
    mod long {
        #[test]
        #[ignore = "ten seconds"]
        fn a_million_nonces_do_not_repeat() {
            super::nonces_do_not_repeat(1_000_000);
        }
    }

    #[test]
    fn a_key_seals_no_more_than_its_bound() {
        let keyring = keyring(1);
        let seal = |seals| keyring.seal(keyring.first(), ALICE, b"", seals);
        assert!(seal(SEALS_PER_KEY - 1).is_ok());
        assert_eq!(seal(SEALS_PER_KEY).unwrap_err(), Error::Exhausted);
    }
}
