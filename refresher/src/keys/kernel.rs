//! Keys in the Linux kernel's keyring (keyrings(7)): in memory, out of every file's and other user's reach, and gone with
//! the next start of the machine. So the keys are the operator's to make, keep and put there; nothing here writes.

use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use zeroize::Zeroizing;

use super::{Error, Given};
use crate::fault::KeyringFault;

/// An entry of type `user` in the user's keyring, `@u`.
#[derive(Debug)]
pub struct KernelKeyring(pub String);

impl KernelKeyring {
    /// The entry's name, unless the configuration says another.
    pub const NAME: &str = "latchkey:key";
}

impl Given for KernelKeyring {
    fn place(&self) -> String {
        format!("the entry {:?} of the kernel's keyring @u", self.0)
    }

    fn read(&self) -> Result<Option<Zeroizing<String>>, Error> {
        let failed = |problem: &str, why| Error::Keyring {
            place: self.place(),
            problem: problem.to_owned(),
            why,
        };
        let found = KeyRing::from_special_id(KeyRingIdentifier::User, false)
            .and_then(|keyring| keyring.search(&self.0))
            .and_then(|entry| entry.read_to_vec());
        match found.map(Zeroizing::new) {
            Ok(bytes) => Ok(Some(Zeroizing::new(
                String::from_utf8_lossy(&bytes).into_owned(),
            ))),
            Err(KeyError::KeyDoesNotExist | KeyError::KeyringDoesNotExist) => Ok(None),
            Err(KeyError::AccessDenied) => Err(failed("it may not be read", KeyringFault::Denied)),
            Err(KeyError::KeyExpired | KeyError::KeyRevoked | KeyError::KeyRejected) => {
                Err(failed("it has expired or was revoked", KeyringFault::Gone))
            }
            Err(error) => Err(failed(&format!("{error:?}"), KeyringFault::Unavailable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeySource;
    use crate::keys::seal::{KEY_BYTES, Key};

    #[test]
    fn what_the_operator_puts_there_is_read() {
        let name = format!("latchkey-test:{}", crate::id::random_base32(26));
        let keyring = match KeyRing::from_special_id(KeyRingIdentifier::User, true) {
            Ok(keyring) => keyring,
            Err(error) => {
                println!("skipped: this machine forbids the kernel's keyring: {error:?}");
                return;
            }
        };
        let source = KeySource::Given(Box::new(KernelKeyring(name.clone())));
        let error = source.load_or_make(true).unwrap_err();
        assert!(matches!(error, Error::Missing(_)), "{error}");
        let text = format!("{}\n", crate::keys::encoded(7));
        let entry = match keyring.add_key(name.as_str(), text.as_bytes()) {
            Ok(entry) => entry,
            Err(error) => {
                println!("skipped: this machine lets nobody add to the keyring: {error:?}");
                return;
            }
        };
        let loaded = source.load_or_make(true);
        keyring.unlink_key(entry).unwrap();
        assert_eq!(loaded.unwrap().first(), Key::new(&[7; KEY_BYTES]).id());
        assert!(matches!(source.load(), Err(Error::Missing(_))));
    }
}
