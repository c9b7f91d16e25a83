//! The sources of the sealing keys: `LATCHKEY_KEY` and `LATCHKEY_RETIRED_KEYS`, a place where the operator puts them
//! (the kernel's keyring), or a *vault* (the key file, the keyring of the user's session), in which the first start makes one.
//!
//! A key is 32 bytes as base64. The first one is meant to seal, the others open what they once sealed.

pub mod file;
pub mod kernel;
pub mod seal;
pub mod secret_service;

use std::collections::BTreeSet;
use std::fmt;

use data_encoding::BASE64;
use rand::RngCore;
use zeroize::Zeroizing;

use self::file::KeyFile;
use self::kernel::KernelKeyring;
use self::seal::{KEY_BYTES, Key, KeyId, Keyring};
use self::secret_service::SessionKeyring;
use crate::config;
use crate::fault::{KeyPlace, KeyringFault};
use crate::files;
use crate::state::StateDir;

/// The environment variable that goes before any vault: the key that is meant to seal.
pub const VARIABLE: &str = "LATCHKEY_KEY";
/// Beside [`VARIABLE`]: keys that only open, separated by commas or white space.
pub const RETIRED_VARIABLE: &str = "LATCHKEY_RETIRED_KEYS";
/// The most bytes read of a vault: more than [`MAX_KEYS`] take, so that a wrong file is seen to be wrong.
pub const MAX_TEXT_BYTES: u64 = 1024;
/// The most keys: each rotation that is cut short leaves one more at worst, and the next one clears them away.
const MAX_KEYS: usize = 16;

/// The reason why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or made, or others can reach it.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The text in the place of a key is none.
    #[error("{place}: expected {KEY_BYTES} bytes as base64 (44 characters), found {found}")]
    Malformed {
        /// The vault or the variable.
        place: String,
        /// The text that was found, in words.
        found: String,
        /// The kind of place.
        kept: KeyPlace,
    },
    /// More keys than anybody has.
    #[error("{place}: expected {MAX_KEYS} keys at most, found {found}")]
    TooMany {
        /// The vault or the variable.
        place: String,
        /// The number of keys found.
        found: usize,
        /// The kind of place.
        kept: KeyPlace,
    },
    /// No key where none may be made: there is a database that is sealed with one, or keys are the operator's to make.
    #[error("{0}: the key that seals the database is missing")]
    Missing(String),
    /// The keyring gives nothing.
    #[error("{place}: {problem}")]
    Keyring {
        /// The entry.
        place: String,
        /// The problem.
        problem: String,
        /// The same for machines.
        why: KeyringFault,
    },
    /// The vault has as many keys as it may have, and another one was to be made.
    #[error("{0} has {MAX_KEYS} keys already, the most that it may have")]
    Full(String),
    /// Retired keys, and none that seals.
    #[error("{RETIRED_VARIABLE} is set and {VARIABLE} is not")]
    RetiredAlone,
}

/// A place that has the keys' text.
pub trait Given: fmt::Debug + Send + Sync {
    /// Returns where it is, for messages.
    fn place(&self) -> String;

    /// Its text, at most [`MAX_TEXT_BYTES`]; `None` if nothing was ever put there.
    ///
    /// # Errors
    /// If it cannot be read, or others can read it too.
    fn read(&self) -> Result<Option<Zeroizing<String>>, Error>;
}

/// A place that keeps the keys' text for us.
pub trait Vault: Given {
    /// Puts `text` in place of what it holds, durably: it holds the one or the other, whatever happens meanwhile.
    ///
    /// # Errors
    /// If it cannot be written; the old text is then still there.
    fn replace(&self, text: &str) -> Result<(), Error>;
}

/// See the module's documentation.
pub enum KeySource {
    /// From the environment.
    Variables {
        /// [`VARIABLE`].
        first: Zeroizing<String>,
        /// [`RETIRED_VARIABLE`], empty if unset.
        retired: Zeroizing<String>,
    },
    /// From a place where the operator puts them.
    Given(Box<dyn Given>),
    /// From a vault.
    Vault(Box<dyn Vault>),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Variables { .. } => formatter.write_str("Variables(…)"),
            KeySource::Given(place) => formatter.debug_tuple("Given").field(place).finish(),
            KeySource::Vault(vault) => formatter.debug_tuple("Vault").field(vault).finish(),
        }
    }
}

type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

impl KeySource {
    /// The variables if `variable` (which reads the environment) has the first, else what the configuration says.
    ///
    /// # Errors
    /// [`Error::RetiredAlone`].
    pub fn locate(
        state: &StateDir,
        settings: &config::Key,
        variable: impl Fn(&str) -> Option<Zeroizing<String>>,
    ) -> Result<KeySource, Error> {
        match (variable(VARIABLE), variable(RETIRED_VARIABLE)) {
            (Some(first), retired) => Ok(KeySource::Variables {
                first,
                retired: retired.unwrap_or_default(),
            }),
            (None, Some(_)) => Err(Error::RetiredAlone),
            (None, None) => Ok(match settings.source {
                config::KeySetting::File => KeySource::Vault(Box::new(KeyFile(state.key()))),
                config::KeySetting::Keyring => {
                    let name = settings.name.as_deref().unwrap_or(KernelKeyring::NAME);
                    KeySource::Given(Box::new(KernelKeyring(name.to_owned())))
                }
                config::KeySetting::SecretService => {
                    let entry = SessionKeyring::new(settings.name.as_deref(), state.path());
                    KeySource::Vault(Box::new(entry))
                }
            }),
        }
    }

    /// The keys as they are now.
    ///
    /// # Errors
    /// If they are malformed, within reach of others, or not there.
    pub fn load(&self) -> Result<Keyring, Error> {
        let keys = match self {
            KeySource::Variables { first, retired } => {
                let kept = KeyPlace::Environment;
                let mut keys = vec![parse_key(first.trim(), VARIABLE, kept)?];
                for key in words(retired) {
                    keys.push(parse_key(key, RETIRED_VARIABLE, kept)?);
                }
                require_few(&keys, RETIRED_VARIABLE, kept)?;
                keys
            }
            KeySource::Given(place) => {
                let keys = read_keys(&**place, KeyPlace::Operators)?;
                keys.ok_or_else(|| Error::Missing(place.place()))?
            }
            KeySource::Vault(vault) => {
                read_keys(&**vault, KeyPlace::Ours)?.ok_or_else(|| Error::Missing(vault.place()))?
            }
        };
        Ok(keyring(&keys))
    }

    /// The keys as they are now. A vault without any gets one, unless there is a database already. Hold
    /// [`StateDir::lock_setup`] meanwhile.
    ///
    /// # Errors
    /// As [`KeySource::load`]. What is in the vault is never overwritten.
    pub fn load_or_make(&self, is_first_start: bool) -> Result<Keyring, Error> {
        match self {
            KeySource::Vault(vault)
                if is_first_start && read_keys(&**vault, KeyPlace::Ours)?.is_none() =>
            {
                let keys = [random_key()];
                write_keys(&**vault, &keys)?;
                Ok(keyring(&keys))
            }
            _ => self.load(),
        }
    }

    /// Makes a key and puts it before the others; `None` if keys are not ours to make. Hold
    /// [`StateDir::lock_setup`] meanwhile.
    ///
    /// # Errors
    /// If the vault cannot be read or written; it holds the keys it had, with or without the new one.
    pub fn add(&self) -> Result<Option<KeyId>, Error> {
        let KeySource::Vault(vault) = self else {
            return Ok(None);
        };
        let mut keys =
            read_keys(&**vault, KeyPlace::Ours)?.ok_or_else(|| Error::Missing(vault.place()))?;
        keys.insert(0, random_key());
        write_keys(&**vault, &keys)?;
        Ok(Some(Key::new(&keys[0]).id()))
    }

    /// Forgets every key that is not in `used`; how many. Hold [`StateDir::lock_setup`] meanwhile.
    ///
    /// # Errors
    /// As [`KeySource::add`].
    pub fn keep(&self, used: &BTreeSet<KeyId>) -> Result<usize, Error> {
        let KeySource::Vault(vault) = self else {
            return Ok(0);
        };
        let mut keys =
            read_keys(&**vault, KeyPlace::Ours)?.ok_or_else(|| Error::Missing(vault.place()))?;
        let before = keys.len();
        keys.retain(|key| used.contains(&Key::new(key).id()));
        // Never an empty vault, whatever the caller believes.
        if keys.is_empty() || keys.len() == before {
            return Ok(0);
        }
        write_keys(&**vault, &keys)?;
        Ok(before - keys.len())
    }
}

fn random_key() -> KeyBytes {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    rand::rng().fill_bytes(&mut *bytes);
    bytes
}

/// There is one key at least.
fn keyring(keys: &[KeyBytes]) -> Keyring {
    let mut keys = keys.iter().map(|bytes| Key::new(bytes));
    let first = keys.next().unwrap_or_else(|| Key::new(&random_key()));
    Keyring::new(first, keys.collect())
}

fn read_keys(
    vault: &(impl Given + ?Sized),
    kept: KeyPlace,
) -> Result<Option<Vec<KeyBytes>>, Error> {
    let Some(text) = vault.read()? else {
        return Ok(None);
    };
    let place = vault.place();
    let mut found = words(&text);
    let first = found.next().unwrap_or_default();
    let mut keys = vec![parse_key(first, &place, kept)?];
    for key in found {
        keys.push(parse_key(key, &place, kept)?);
    }
    require_few(&keys, &place, kept)?;
    Ok(Some(keys))
}

fn write_keys(vault: &dyn Vault, keys: &[KeyBytes]) -> Result<(), Error> {
    if keys.len() > MAX_KEYS {
        return Err(Error::Full(vault.place()));
    }
    let mut text = Zeroizing::new(String::with_capacity(keys.len() * 45));
    for key in keys {
        BASE64.encode_append(&key[..], &mut text);
        text.push('\n');
    }
    vault.replace(&text)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character.is_whitespace() || character == ',')
        .filter(|word| !word.is_empty())
}

fn require_few(keys: &[KeyBytes], place: &str, kept: KeyPlace) -> Result<(), Error> {
    if keys.len() <= MAX_KEYS {
        return Ok(());
    }
    Err(Error::TooMany {
        place: place.to_owned(),
        found: keys.len(),
        kept,
    })
}

fn parse_key(text: &str, place: &str, kept: KeyPlace) -> Result<KeyBytes, Error> {
    let malformed = |found| Error::Malformed {
        place: place.to_owned(),
        found,
        kept,
    };
    let bytes = BASE64
        .decode(text.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| {
            let length = text.chars().count();
            malformed(format!("{length} characters that are not base64"))
        })?;
    match <[u8; KEY_BYTES]>::try_from(&bytes[..]) {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(_) => Err(malformed(format!("{} bytes", bytes.len()))),
    }
}

/// The text of the key that consists of this byte alone.
#[cfg(test)]
pub(crate) fn encoded(byte: u8) -> String {
    BASE64.encode(&[byte; KEY_BYTES])
}

/// The key that consists of this byte alone.
#[cfg(test)]
pub(crate) fn fixed(byte: u8) -> KeySource {
    KeySource::Variables {
        first: Zeroizing::new(encoded(byte)),
        retired: Zeroizing::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::keys::seal::Binding;

    /// A vault in memory.
    #[derive(Debug, Default)]
    struct Memory(Mutex<Option<String>>);

    impl Given for &'static Memory {
        fn place(&self) -> String {
            "memory".to_owned()
        }

        fn read(&self) -> Result<Option<Zeroizing<String>>, Error> {
            Ok(self.0.lock().unwrap().clone().map(Zeroizing::new))
        }
    }

    impl Vault for &'static Memory {
        fn replace(&self, text: &str) -> Result<(), Error> {
            *self.0.lock().unwrap() = Some(text.to_owned());
            Ok(())
        }
    }

    fn memory() -> (&'static Memory, KeySource) {
        let memory: &'static Memory = Box::leak(Box::default());
        (memory, KeySource::Vault(Box::new(memory)))
    }

    fn variables(first: &str, retired: &str) -> KeySource {
        KeySource::Variables {
            first: Zeroizing::new(first.to_owned()),
            retired: Zeroizing::new(retired.to_owned()),
        }
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_next_reads_it() {
        let (_, source) = memory();
        let binding = Binding {
            record: "r",
            generation: 1,
            platform: "p",
            kind: "k",
            base_url: None,
        };
        let made = source.load_or_make(true).unwrap();
        let sealed = made.seal(made.first(), binding, b"x", 0).unwrap();
        for again in [
            source.load_or_make(true),
            source.load_or_make(false),
            source.load(),
        ] {
            assert_eq!(&**again.unwrap().open(binding, &sealed).unwrap(), b"x");
        }
    }

    #[test]
    fn a_lost_key_is_not_replaced() {
        let (memory, source) = memory();
        assert!(matches!(source.load_or_make(false), Err(Error::Missing(_))));
        assert!(matches!(source.add(), Err(Error::Missing(_))));
        assert_eq!(*memory.0.lock().unwrap(), None);
    }

    #[test]
    fn keys_that_are_given_are_the_operators_to_make() {
        let (memory, _) = memory();
        let source = KeySource::Given(Box::new(memory));
        assert!(matches!(source.load_or_make(true), Err(Error::Missing(_))));
        *memory.0.lock().unwrap() = Some(format!("{}\n{}", encoded(2), encoded(1)));
        let keys = source.load_or_make(true).unwrap();
        assert_eq!(keys.ids().count(), 2);
        assert_eq!(source.add().unwrap(), None);
        assert_eq!(source.keep(&BTreeSet::from([keys.first()])).unwrap(), 0);
        assert_eq!(source.load().unwrap().ids().count(), 2);
    }

    #[test]
    fn a_new_key_comes_first_and_the_old_ones_stay_until_nothing_uses_them() {
        let (_, source) = memory();
        let old = source.load_or_make(true).unwrap().first();
        let new = source.add().unwrap().unwrap();
        let ids = || source.load().unwrap().ids().collect::<Vec<_>>();
        assert_eq!(ids(), [new, old]);
        assert_eq!(source.keep(&BTreeSet::from([new, old])).unwrap(), 0);
        assert_eq!(source.keep(&BTreeSet::new()).unwrap(), 0, "never none");
        assert_eq!(ids(), [new, old]);
        assert_eq!(source.keep(&BTreeSet::from([new])).unwrap(), 1);
        assert_eq!(ids(), [new]);
    }

    #[test]
    fn variables_hold_the_first_key_and_the_retired_ones() {
        let retired = format!(" {},{}\n{} ", encoded(2), encoded(3), encoded(4));
        let source = variables(&encoded(1), &retired);
        let expected = [1, 2, 3, 4].map(|byte| Key::new(&[byte; KEY_BYTES]).id());
        assert_eq!(source.load().unwrap().ids().collect::<Vec<_>>(), expected);
        assert_eq!(source.add().unwrap(), None);
        assert_eq!(source.keep(&BTreeSet::new()).unwrap(), 0);
        assert!(!format!("{source:?}").contains(&encoded(1)));
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_as_it_is() {
        let many = format!("{}\n", encoded(1)).repeat(MAX_KEYS + 1);
        let second = format!("{}\nc2hvcnQ=\n", encoded(1));
        for (text, found) in [
            ("", "found 0 bytes"),
            ("AAAA", "found 3 bytes"),
            ("not,base64!", "3 characters that are not base64"),
            (&second, "found 5 bytes"),
            (&many, "16 keys at most, found 17"),
        ] {
            let (memory, source) = memory();
            *memory.0.lock().unwrap() = Some(text.to_owned());
            for error in [
                source.load_or_make(true).unwrap_err(),
                source.add().unwrap_err(),
            ] {
                let message = error.to_string();
                assert!(
                    message.starts_with("memory: expected ") && message.contains(found),
                    "{message}"
                );
            }
            assert_eq!(memory.0.lock().unwrap().as_deref(), Some(text));
        }
        let message = variables("short", "").load().unwrap_err().to_string();
        assert!(message.starts_with("LATCHKEY_KEY: "), "{message}");
        let message = variables(&encoded(1), "short")
            .load()
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("LATCHKEY_RETIRED_KEYS: "), "{message}");
    }

    #[test]
    fn retired_keys_alone_are_an_error() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let only = |name: &'static str| {
            move |asked: &str| (asked == name).then(|| Zeroizing::new(encoded(1)))
        };
        let settings = config::Key::default();
        let located = KeySource::locate(&state, &settings, only(RETIRED_VARIABLE));
        assert!(matches!(located, Err(Error::RetiredAlone)));
        let located = KeySource::locate(&state, &settings, only(VARIABLE)).unwrap();
        assert!(matches!(located, KeySource::Variables { .. }));
        let located = KeySource::locate(&state, &settings, |_| None).unwrap();
        assert!(matches!(located, KeySource::Vault(_)));
        let settings = config::Key {
            source: config::KeySetting::Keyring,
            ..settings
        };
        let located = KeySource::locate(&state, &settings, |_| None).unwrap();
        assert!(matches!(located, KeySource::Given(_)));
    }
}
