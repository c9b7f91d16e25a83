//! The key file: keys as base64, one a line, mode 0600.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Error, Given, MAX_TEXT_BYTES, Vault};
use crate::files::{self, io_error, replace_file, require_private};

/// The file `key` of the state directory.
#[derive(Debug)]
pub struct KeyFile(pub PathBuf);

impl Given for KeyFile {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    /// Permissions are checked on what was opened, not on a name.
    fn read(&self) -> Result<Option<Zeroizing<String>>, Error> {
        let path = &self.0;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(files::Error::WrongKind {
                    path: path.clone(),
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
        file.take(MAX_TEXT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(io_error(path, "read it"))?;
        Ok(Some(Zeroizing::new(
            String::from_utf8_lossy(&bytes).into_owned(),
        )))
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
