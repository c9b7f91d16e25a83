//! Files that are ours alone: bounded reads, atomic writes, and checks of owner and mode.

pub mod owned;
pub mod program;
mod user;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

pub use self::user::User;
use crate::os_error::in_words;

/// The reason why a file or a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no.
    #[error("{}: cannot {action}: {}", path.display(), in_words(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("{path}: its mode is {mode:04o}, so other users can reach it", path = path.display())]
    LaxMode {
        /// The file.
        path: PathBuf,
        /// The permission bits found.
        mode: u32,
        /// The permission bits wanted.
        wanted: u32,
    },
    /// Another user owns it.
    #[error("{path}: it belongs to {owner}, not to {us} who runs this", path = path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The user found.
        owner: User,
        /// The user wanted.
        us: User,
    },
    /// Others may change it, or put something else in the place of what is in it.
    #[error("{path}: its mode is {mode:04o}, so other users can change what is there", path = path.display())]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// The permission bits found.
        mode: u32,
    },
    /// A file that is not there, and that others could make it.
    #[error("{path}: it is not there, and other users could put one there", path = path.display())]
    Unclaimed {
        /// The file, or the directory that it would be in.
        path: PathBuf,
    },
    /// A symbolic link, a directory or a device where a plain file is wanted, or the like.
    #[error("{}: expected {expected} here, found something else", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// `a file` or `a directory`.
        expected: &'static str,
    },
}

/// Said of what should be text, and is none.
const NOT_TEXT: &str = "it is no text (UTF-8)";

/// Turns an [`io::Error`] into one that names the file and what was tried.
pub(crate) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        path,
        action,
        source,
    }
}

/// The text that `source` has, of at most `bound` bytes. What is longer is refused: half a secret is another secret.
///
/// # Errors
/// If it cannot be read, is longer, or is not UTF-8.
pub(crate) fn read_within(source: impl Read, bound: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(bound + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bound {
        return Err(io::Error::other(format!("it is longer than {bound} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other(NOT_TEXT))
}

/// Opens a lock file, making it with mode 0600, and follows no symbolic link.
pub(crate) fn open_private(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(io_error(path, "open it"))
}

/// Opens a lock file that is there, and follows no symbolic link.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Makes a directory with mode 0700, and its parents, unless it exists; then checks it. A symbolic link is none: who may
/// change it could lead us elsewhere later.
///
/// # Errors
/// If it cannot be made or is not ours alone.
pub fn make_private_dir(path: &Path) -> Result<(), Error> {
    // Without a slash at the end, which would follow a link.
    let path: &Path = &path.components().collect::<PathBuf>();
    // Whatever else is there already is told below, by what it is.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    if let Err(error) = made
        && path.symlink_metadata().is_err()
    {
        return Err(match file_above(path) {
            Some(path) => Error::WrongKind {
                path,
                expected: "a directory",
            },
            None => io_error(path, "make the directory")(error),
        });
    }
    require_private_dir(path)
}

/// Refuses what is no directory, not ours, or within reach of other users.
///
/// # Errors
/// Naming the directory and what was found.
pub fn require_private_dir(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(io_error(path, "look at it"))?;
    if !metadata.is_dir() {
        return Err(Error::WrongKind {
            path: path.to_owned(),
            expected: "a directory and no symbolic link",
        });
    }
    require_ours(path, &metadata, 0o700)
}

/// Something above `path` that is no directory, if there is one.
fn file_above(path: &Path) -> Option<PathBuf> {
    let is_file = |path: &&Path| fs::metadata(path).is_ok_and(|found| !found.is_dir());
    path.ancestors().skip(1).find(is_file).map(Path::to_owned)
}

/// Refuses a file that is not plain, not ours, or within reach of other users.
///
/// # Errors
/// Naming the file, what was found and the cure.
pub fn require_private_file(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(io_error(path, "look at it"))?;
    require_private(path, &metadata)
}

/// [`require_private_file`] for metadata that is at hand.
pub(crate) fn require_private(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    if !metadata.is_file() {
        return Err(Error::WrongKind {
            path: path.to_owned(),
            expected: "a file and no symbolic link",
        });
    }
    require_ours(path, metadata, 0o600)
}

fn require_ours(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), Error> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(Error::ForeignOwner {
            path: path.to_owned(),
            owner: User::of(metadata.uid()),
            us: User::of(us),
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::LaxMode {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

/// Writes `bytes` so that a reader sees the old file or the new one and a power cut leaves one of them: a new file
/// beside it, fsync, rename, fsync of the directory. Mode 0600.
///
/// # Errors
/// If any of that fails; the old file is then still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let staged = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&staged);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    write().map_err(io_error(path, "replace it"))?;
    sync_parent(path)
}

/// Writes `bytes` into a file that was not there, mode 0600, and follows no symbolic link.
///
/// # Errors
/// If it is there, or cannot be written; then it is not there.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error(path, "make it"))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        io_error(path, "write it")(error)
    })
}

/// Makes a rename or a new name in the file's directory survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error(parent, "sync the directory"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_no_private_file() {
        let outer = tempfile::tempdir().unwrap();
        let (file, link) = (outer.path().join("file"), outer.path().join("link"));
        replace_file(&file, b"x").unwrap();
        symlink(&file, &link).unwrap();
        assert!(require_private_file(&file).is_ok());
        assert!(matches!(
            require_private_file(&link),
            Err(Error::WrongKind { .. })
        ));
    }
}
