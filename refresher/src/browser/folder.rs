//! The folder of a browser's profile: ours alone, and gone after the login.

use std::fs::{self, DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::files::{Error, io_error};
use crate::id::random_base32;

/// The beginning of the folders' names.
const PREFIX: &str = "latchkey-browser-";
/// 80 random bits.
const NAME_CHARACTERS: usize = 16;
/// The age from which an unlocked folder is nobody's: a younger one may not have its lock yet.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// A folder that is locked while this process uses it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes one in `parent`, and removes those that logins before left there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn new(parent: &Path) -> Result<Folder, Error> {
        sweep(parent, SystemTime::now());
        let path = parent.join(format!("{PREFIX}{}", random_base32(NAME_CHARACTERS)));
        // Not recursive: a folder that is there already is somebody else's.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(io_error(&path, "make it"))?;
        let lock = File::open(&path).map_err(io_error(&path, "open it"))?;
        let locked = flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|errno| io_error(&path, "lock it")(errno.into()))?;
        Ok(Folder { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// True while nothing was put into it.
    pub(super) fn is_empty(&self) -> bool {
        fs::read_dir(&self.path).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Removes it, unless that was done.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remove a browser's profile, which holds a session: remove it");
        }
    }
}

/// Removes what a power failure left: folders of ours that nobody has locked.
fn sweep(parent: &Path, now: SystemTime) {
    let us = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Of a link this tells of the link.
        let Some(found) = is_named.then(|| entry.metadata().ok()).flatten() else {
            continue;
        };
        let age = found
            .modified()
            .ok()
            .and_then(|at| now.duration_since(at).ok());
        if !found.is_dir() || found.uid() != us || age.is_none_or(|age| age < LEFT_BEHIND) {
            continue;
        }
        let Ok(lock) = File::open(entry.path()) else {
            continue;
        };
        if flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_ours_alone_and_what_was_left_behind_goes() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(parent.path()).unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        assert!(folder.is_empty());
        fs::write(folder.path().join("Cookies"), "secret").unwrap();
        assert!(!folder.is_empty());

        let left = parent.path().join(format!("{PREFIX}LEFT"));
        let others = parent.path().join("others");
        for path in [&left, &others] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("Cookies"), "secret").unwrap();
        }
        sweep(parent.path(), SystemTime::now());
        assert!(left.exists(), "too young to tell");
        sweep(parent.path(), SystemTime::now() + 2 * LEFT_BEHIND);
        assert!(!left.exists() && others.exists() && folder.path().exists());

        let path = folder.path().to_owned();
        folder.remove();
        assert!(!path.exists());
    }
}
