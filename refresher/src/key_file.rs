//! Where the sealing key comes from: `LATCHKEY_KEY`, or the file `key` in the state directory, made at first start.
//! Both hold 32 bytes as base64.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::seal::{KEY_BYTES, Key};
use crate::state::{self, StateDir, io_error, replace_file, require_private};

/// The environment variable that goes before the file.
pub const VARIABLE: &str = "LATCHKEY_KEY";
/// The most bytes read of a key file: far more than a key has, so that a wrong file is seen to be wrong.
const MAX_FILE_BYTES: u64 = 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or made, or others can reach it.
    #[error(transparent)]
    File(#[from] state::Error),
    /// What was found is no key.
    #[error("{place}: expected {KEY_BYTES} bytes as base64 (44 characters), found {found}; {cure}")]
    Malformed {
        /// The file or the variable.
        place: String,
        /// What was found, in words.
        found: String,
        /// What to do.
        cure: &'static str,
    },
    /// A database without the key that seals it.
    #[error(
        "{}: the key file is missing, but the database beside it is sealed with one; put the key file back, or set {VARIABLE}",
        .0.display()
    )]
    Missing(PathBuf),
}

/// The key: from `variable` (the value of [`VARIABLE`]) if set, else from the file, which is made if there is neither it
/// nor a database. Hold [`StateDir::lock_setup`] meanwhile.
///
/// # Errors
/// If it is malformed, within reach of others, or lost. No file is ever overwritten.
pub fn load(state: &StateDir, variable: Option<Zeroizing<String>>) -> Result<Key, Error> {
    if let Some(text) = variable {
        return parse(
            &text,
            VARIABLE.to_owned(),
            "make one with: head -c 32 /dev/urandom | base64",
        );
    }
    let path = state.key();
    match read(&path)? {
        Some(text) => parse(
            &text,
            path.display().to_string(),
            "put the right key file back",
        ),
        None if state.database().exists() => Err(Error::Missing(path)),
        None => create(&path),
    }
}

/// The file's text, or `None` if there is no file. Permissions are checked on what was opened, not on a name.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(state::Error::WrongKind {
                path: path.to_owned(),
                expected: "a file",
            }
            .into());
        }
        Err(error) => return Err(io_error(path, "read it")(error).into()),
    };
    require_private(
        path,
        &file.metadata().map_err(io_error(path, "look at it"))?,
    )?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(io_error(path, "read it"))?;
    Ok(Some(Zeroizing::new(
        String::from_utf8_lossy(&bytes).into_owned(),
    )))
}

fn create(path: &Path) -> Result<Key, Error> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    rand::rng().fill_bytes(&mut *bytes);
    let text = Zeroizing::new(STANDARD.encode(*bytes) + "\n");
    // Whole or not at all: who is killed meanwhile leaves no half of a key.
    replace_file(path, text.as_bytes())?;
    Ok(Key::new(&bytes))
}

fn parse(text: &str, place: String, cure: &'static str) -> Result<Key, Error> {
    let text = text.trim();
    let bytes = match STANDARD.decode(text) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(_) => {
            let found = format!("{} characters that are not base64", text.chars().count());
            return Err(Error::Malformed { place, found, cure });
        }
    };
    match <&[u8; KEY_BYTES]>::try_from(&bytes[..]) {
        Ok(bytes) => Ok(Key::new(bytes)),
        Err(_) => Err(Error::Malformed {
            place,
            found: format!("{} bytes", bytes.len()),
            cure,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::seal::{Binding, Keyring};

    fn state() -> (tempfile::TempDir, StateDir) {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        (outer, state)
    }

    fn write_key(state: &StateDir, text: &[u8]) {
        replace_file(&state.key(), text).unwrap();
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_next_reads_it() {
        let (_outer, state) = state();
        let binding = Binding {
            record: "r",
            generation: 1,
        };
        let sealed = Keyring::new(load(&state, None).unwrap(), Vec::new())
            .seal(binding, b"x", 0)
            .unwrap();
        let again = Keyring::new(load(&state, None).unwrap(), Vec::new());
        assert_eq!(&**again.open(binding, &sealed).unwrap(), b"x");
        assert_eq!(
            fs::metadata(state.key()).unwrap().permissions().mode() & 0o7777,
            0o600
        );
    }

    #[test]
    fn a_key_within_reach_of_others_is_refused() {
        let (_outer, state) = state();
        load(&state, None).unwrap();
        fs::set_permissions(state.key(), fs::Permissions::from_mode(0o644)).unwrap();
        let message = load(&state, None).unwrap_err().to_string();
        assert!(
            message.contains("0644") && message.contains("chmod 600"),
            "{message}"
        );
    }

    #[test]
    fn a_link_or_a_directory_is_refused() {
        let (_outer, state) = state();
        symlink("/dev/zero", state.key()).unwrap();
        assert!(matches!(
            load(&state, None),
            Err(Error::File(state::Error::WrongKind { .. }))
        ));
        fs::remove_file(state.key()).unwrap();
        fs::create_dir(state.key()).unwrap();
        assert!(matches!(
            load(&state, None),
            Err(Error::File(state::Error::WrongKind { .. }))
        ));
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_as_it_is() {
        let (_outer, state) = state();
        for text in [
            &b""[..],
            b"AAAA",
            b"not base64!",
            &[0xff; 44],
            &[b'A'; 2000],
        ] {
            write_key(&state, text);
            let message = load(&state, None).unwrap_err().to_string();
            assert!(message.contains("/key: expected 32 bytes"), "{message}");
            assert_eq!(fs::read(state.key()).unwrap(), text);
        }
        let error = load(&state, Some(Zeroizing::new("short".into()))).unwrap_err();
        assert!(error.to_string().starts_with("LATCHKEY_KEY: "), "{error}");
    }

    #[test]
    fn a_lost_key_is_not_replaced() {
        let (_outer, state) = state();
        fs::write(state.database(), b"sealed").unwrap();
        assert!(matches!(load(&state, None), Err(Error::Missing(_))));
        assert!(!state.key().exists());
    }
}
