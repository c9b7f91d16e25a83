//! The key file: keys as base64, one a line, mode 0600.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{Error, Given, MAX_TEXT_BYTES, Vault};
use crate::files::owned::{Readers, read_owned};
use crate::files::replace_file;

/// The file `key` of the state directory.
#[derive(Debug)]
pub struct KeyFile(pub PathBuf);

impl Given for KeyFile {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn read(&self) -> Result<Option<Zeroizing<String>>, Error> {
        let bytes = read_owned(&self.0, Readers::Owner, MAX_TEXT_BYTES)?;
        let text = |bytes: Zeroizing<Vec<u8>>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(bytes.map(text).map(Zeroizing::new))
    }
}

impl Vault for KeyFile {
    /// Whole or not at all: who is killed meanwhile leaves no half of a key, and none less than there was.
    fn replace(&self, text: &str) -> Result<(), Error> {
        Ok(replace_file(&self.0, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::files;

    fn file() -> (tempfile::TempDir, KeyFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile(folder.path().join("key"));
        (folder, file)
    }

    #[test]
    fn what_was_written_is_read_and_nobody_else_can() {
        let (_folder, file) = file();
        assert!(file.read().unwrap().is_none());
        file.replace("text").unwrap();
        assert_eq!(**file.read().unwrap().unwrap(), *"text");
        let mode = fs::metadata(&file.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_file_within_reach_of_others_is_refused() {
        let (_folder, file) = file();
        file.replace("text").unwrap();
        fs::set_permissions(&file.0, fs::Permissions::from_mode(0o644)).unwrap();
        let error = file.read().unwrap_err();
        assert!(
            matches!(
                error,
                Error::File(files::Error::LaxMode {
                    mode: 0o644,
                    wanted: 0o600,
                    ..
                })
            ),
            "{error}"
        );
    }

    #[test]
    fn a_link_or_a_directory_is_refused() {
        let (_folder, file) = file();
        let is_refused = || {
            matches!(
                file.read(),
                Err(Error::File(files::Error::WrongKind { .. }))
            )
        };
        symlink("/dev/zero", &file.0).unwrap();
        assert!(is_refused());
        fs::remove_file(&file.0).unwrap();
        fs::create_dir(&file.0).unwrap();
        assert!(is_refused());
    }
}
