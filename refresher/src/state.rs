//! The state directory: where it is, what lies in it, and that nobody else can read it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// Why the state directory, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("{path}: its mode is {mode:04o}, so other users can reach it; run: chmod {wanted:o} {path}", path = path.display())]
    LaxMode {
        /// The file.
        path: PathBuf,
        /// The permission bits found.
        mode: u32,
        /// The permission bits wanted.
        wanted: u32,
    },
    /// Another user owns it.
    #[error("{path}: it belongs to user {owner}, not to user {us} who runs this; run: chown {us} {path}", path = path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The user id found.
        owner: u32,
        /// The user id wanted.
        us: u32,
    },
    /// A symbolic link, a directory or a device where a plain file is wanted, or the like.
    #[error("{}: expected {expected} here, found something else (symbolic links are not followed); move it away", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// `a file` or `a directory`.
        expected: &'static str,
    },
    /// Another process holds the lock.
    #[error("another `refresher serve` is running on {}; stop it first, or choose another --state-dir", path.display())]
    Locked {
        /// The state directory.
        path: PathBuf,
    },
    /// Another process rotates the key.
    #[error("another `refresher rotate-key` is running on {}; wait for it", path.display())]
    Rotating {
        /// The state directory.
        path: PathBuf,
    },
    /// Neither a flag nor the environment names a directory.
    #[error(
        "no state directory: give --state-dir, or set LATCHKEY_STATE_DIR, XDG_STATE_HOME or HOME"
    )]
    Nowhere,
}

/// Turns an [`io::Error`] into one that names the file and what was tried.
pub(crate) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        path,
        action,
        source,
    }
}

/// The state directory, mode 0700, owned by who runs this.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// `flag`, else `$LATCHKEY_STATE_DIR`, else `$XDG_STATE_HOME/latchkey`, else `~/.local/state/latchkey`.
    /// `variable` reads the environment; an empty variable counts as unset.
    ///
    /// # Errors
    /// [`Error::Nowhere`] if none is set.
    pub fn locate(
        flag: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<PathBuf, Error> {
        let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
        flag.or_else(|| set("LATCHKEY_STATE_DIR"))
            .or_else(|| Some(set("XDG_STATE_HOME")?.join("latchkey")))
            .or_else(|| Some(set("HOME")?.join(".local/state/latchkey")))
            .ok_or(Error::Nowhere)
    }

    /// Opens the directory, making it and its parents where they are missing. From here on the process's umask is 077.
    ///
    /// # Errors
    /// If it cannot be made, is not a directory, or others can reach it.
    pub fn open(path: &Path) -> Result<StateDir, Error> {
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        make_private_dir(path)?;
        let path = fs::canonicalize(path).map_err(io_error(path, "open it"))?;
        Ok(StateDir { path })
    }

    /// The directory itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.path.join("latchkey.db")
    }

    /// The sealing key.
    pub fn key(&self) -> PathBuf {
        self.path.join("key")
    }

    /// The optional configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The directory of the socket.
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The socket that Envoy asks.
    pub fn socket(&self) -> PathBuf {
        self.run().join("refresher.sock")
    }

    /// The clusters that Envoy reads.
    pub fn clusters(&self) -> PathBuf {
        self.path.join("envoy/clusters.json")
    }

    /// Waits for the lock under which the key and the database are made, so that two first starts do not meet.
    ///
    /// # Errors
    /// If the lock file cannot be made or locked.
    pub fn lock_setup(&self) -> Result<Lock, Error> {
        let path = self.path.join("setup.lock");
        let file = open_private(&path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| io_error(&path, "lock it")(errno.into()))?;
        Ok(Lock { file })
    }

    /// Takes the lock that one `serve` holds as long as it runs.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process holds it.
    pub fn lock_serve(&self) -> Result<Lock, Error> {
        make_private_dir(&self.run())?;
        try_lock(&self.serve_lock())?.ok_or_else(|| Error::Locked {
            path: self.path.clone(),
        })
    }

    /// Takes the lock that one `rotate-key` holds as long as it runs.
    ///
    /// # Errors
    /// [`Error::Rotating`] if another process holds it.
    pub fn lock_rotation(&self) -> Result<Lock, Error> {
        make_private_dir(&self.run())?;
        let path = self.run().join("rotation.lock");
        try_lock(&path)?.ok_or_else(|| Error::Rotating {
            path: self.path.clone(),
        })
    }

    /// The ids of the keys that the running `serve` has from its environment, one a line; `None` where none runs, or it
    /// reads its keys from where everybody does.
    pub fn served_keys(&self) -> Option<String> {
        if !self.is_served() {
            return None;
        }
        let noted = fs::read_to_string(self.serve_lock()).unwrap_or_default();
        (!noted.is_empty()).then_some(noted)
    }

    fn serve_lock(&self) -> PathBuf {
        self.run().join("serve.lock")
    }

    /// Whether a `serve` holds its lock now.
    pub fn is_served(&self) -> bool {
        matches!(self.lock_serve(), Err(Error::Locked { .. }))
    }
}

/// A lock on a file, held until dropped; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Puts `text` into the locked file, for those who cannot have the lock.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(text.as_bytes())
    }
}

/// Locks a file; `None` if somebody else has it.
fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    let file = open_private(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(io_error(path, "lock it")(errno.into())),
    }
}

/// Opens a lock file, making it with mode 0600, and follows no symbolic link.
fn open_private(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(io_error(path, "open it"))
}

/// Makes a directory with mode 0700, and its parents, unless it exists; then checks it. A symbolic link is none: who may
/// change it could lead us elsewhere later.
///
/// # Errors
/// If it cannot be made or is not ours alone.
pub fn make_private_dir(path: &Path) -> Result<(), Error> {
    // Without a slash at the end, which would follow a link.
    let path: &Path = &path.components().collect::<PathBuf>();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error(path, "make the directory"))?;
    let metadata = fs::symlink_metadata(path).map_err(io_error(path, "look at it"))?;
    if !metadata.is_dir() {
        return Err(Error::WrongKind {
            path: path.to_owned(),
            expected: "a directory",
        });
    }
    require_ours(path, &metadata, 0o700)
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
            expected: "a file",
        });
    }
    require_ours(path, metadata, 0o600)
}

fn require_ours(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), Error> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(Error::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            us,
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

/// Makes a rename or a new name in the file's directory survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error(parent, "sync the directory"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_directory_comes_from_the_flag_then_the_environment() {
        let environment = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| PathBuf::from(value))
            }
        };
        let all = &[
            ("LATCHKEY_STATE_DIR", "/l"),
            ("XDG_STATE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(
            StateDir::locate(Some("/f".into()), environment(all)).unwrap(),
            Path::new("/f")
        );
        assert_eq!(
            StateDir::locate(None, environment(all)).unwrap(),
            Path::new("/l")
        );
        let xdg = &[
            ("LATCHKEY_STATE_DIR", ""),
            ("XDG_STATE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(
            StateDir::locate(None, environment(xdg)).unwrap(),
            Path::new("/x/latchkey")
        );
        let home = &[("HOME", "/h")];
        assert_eq!(
            StateDir::locate(None, environment(home)).unwrap(),
            Path::new("/h/.local/state/latchkey")
        );
        assert!(matches!(
            StateDir::locate(None, environment(&[])),
            Err(Error::Nowhere)
        ));
    }

    #[test]
    fn a_lax_directory_is_refused_with_its_cure() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("state");
        StateDir::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let message = StateDir::open(&path).unwrap_err().to_string();
        assert!(
            message.contains("0755") && message.contains("chmod 700"),
            "{message}"
        );
    }

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

    #[test]
    fn a_link_is_no_private_directory() {
        let outer = tempfile::tempdir().unwrap();
        let (directory, link) = (outer.path().join("state"), outer.path().join("link"));
        StateDir::open(&directory).unwrap();
        symlink(&directory, &link).unwrap();
        for path in [link.clone(), link.join("")] {
            let error = StateDir::open(&path).unwrap_err();
            assert!(matches!(error, Error::WrongKind { .. }), "{error}");
        }
        fs::remove_file(&link).unwrap();
        symlink(outer.path().join("nowhere"), &link).unwrap();
        assert!(StateDir::open(&link).is_err());
        assert!(!outer.path().join("nowhere").exists());
    }

    #[test]
    fn one_serve_at_a_time() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let lock = state.lock_serve().unwrap();
        assert!(state.is_served());
        drop(lock);
        assert!(!state.is_served());
    }
}
