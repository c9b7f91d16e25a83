//! The state directory: where it is, what lies in it, and the locks that processes hold on it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::files::owned::require_owned_directory;
use crate::files::{self, io_error, make_private_dir, open_existing, open_private};

/// The reason why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory, or a file in it, cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Another process holds the lock.
    #[error("another refresher serves {}", path.display())]
    Locked {
        /// The state directory.
        path: PathBuf,
    },
    /// Another process rotates the key.
    #[error("another key rotation is running on {}", path.display())]
    Rotating {
        /// The state directory.
        path: PathBuf,
    },
    /// Nothing has been kept there yet.
    #[error("{}: Latchkey has kept nothing there yet", path.display())]
    Empty {
        /// The state directory, which need not exist.
        path: PathBuf,
    },
    /// Neither the caller nor the environment names a directory.
    #[error("no state directory is named")]
    Nowhere,
}

/// The state directory, mode 0700, owned by who runs this.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// `named`, else `$LATCHKEY_STATE_DIR`, else `$XDG_STATE_HOME/latchkey`, else `~/.local/state/latchkey`.
    /// `variable` reads the environment; an empty variable counts as unset.
    ///
    /// # Errors
    /// [`Error::Nowhere`] if none is set.
    pub fn locate(
        named: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<PathBuf, Error> {
        let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
        named
            .or_else(|| set("LATCHKEY_STATE_DIR"))
            .or_else(|| Some(set("XDG_STATE_HOME")?.join("latchkey")))
            .or_else(|| Some(set("HOME")?.join(".local/state/latchkey")))
            .ok_or(Error::Nowhere)
    }

    /// Opens the directory, making it and its parents where they are missing. From here on the process's umask is 077.
    ///
    /// # Errors
    /// If it cannot be made, is not a directory, or others can reach it or put another in its place.
    pub fn open(path: &Path) -> Result<StateDir, Error> {
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        make_private_dir(path)?;
        let path = fs::canonicalize(path).map_err(io_error(path, "open it"))?;
        require_owned_directory(&path)?;
        Ok(StateDir { path })
    }

    /// Opens a directory that is there, and makes nothing.
    ///
    /// # Errors
    /// As [`StateDir::open`]; [`Error::Empty`] if it is not there.
    pub fn existing(path: &Path) -> Result<StateDir, Error> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Empty {
                path: path.to_owned(),
            }),
            _ => StateDir::open(path),
        }
    }

    /// The directory of that path, whatever is there: for looks that must not end at the first fault. What keeps anything
    /// opens it.
    pub fn unchecked(path: &Path) -> StateDir {
        let path = path.to_owned();
        StateDir { path }
    }

    /// Refuses a directory in which nothing was ever kept.
    ///
    /// # Errors
    /// [`Error::Empty`] if there is neither a database nor the mark of one that is gone.
    pub fn require_used(&self) -> Result<(), Error> {
        let files = [self.database(), self.high_water()];
        match files.iter().any(|path| path.symlink_metadata().is_ok()) {
            true => Ok(()),
            false => Err(Error::Empty {
                path: self.path.clone(),
            }),
        }
    }

    /// The directory itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.path.join("latchkey.db")
    }

    /// The mark of how far the database had come.
    pub fn high_water(&self) -> PathBuf {
        self.path.join("high-water.json")
    }

    /// The sealing key.
    pub fn key(&self) -> PathBuf {
        self.path.join("key")
    }

    /// The optional configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join(Self::CONFIG)
    }

    /// The file of the configuration, in the directory.
    pub const CONFIG: &str = "config.toml";

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
        self.clusters_dir().join("clusters.json")
    }

    /// The directory of that file, which Envoy watches.
    pub fn clusters_dir(&self) -> PathBuf {
        self.path.join("envoy")
    }

    /// Waits for the lock under which the key and the database are made, so that two first starts do not meet.
    ///
    /// # Errors
    /// If the lock file cannot be made or locked.
    pub fn lock_setup(&self) -> Result<Lock, Error> {
        let path = self.path.join("setup.lock");
        let file = open_private(&path)?;
        file.lock().map_err(io_error(&path, "lock it"))?;
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

    /// True if a `serve` holds its lock now. Makes nothing.
    pub fn is_served(&self) -> bool {
        let is_held = |file: File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        open_existing(&self.serve_lock()).is_ok_and(is_held)
    }

    /// True if a `serve` has run on this state, so that an Envoy may hold a snapshot of it.
    pub fn was_served(&self) -> bool {
        self.serve_lock().symlink_metadata().is_ok()
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
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(io_error(path, "lock it")(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_directory_is_the_named_one_then_that_of_the_environment() {
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
    fn a_lax_directory_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("state");
        StateDir::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(
            matches!(
                error,
                Error::File(files::Error::LaxMode {
                    mode: 0o755,
                    wanted: 0o700,
                    ..
                })
            ),
            "{error}"
        );
    }

    #[test]
    fn a_directory_that_others_can_replace_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = StateDir::open(&outer.path().join("state")).unwrap_err();
        let is_refused = matches!(
            error,
            Error::File(files::Error::Writable { mode: 0o777, .. })
        );
        assert!(is_refused, "{error}");
    }

    #[test]
    fn a_link_is_no_private_directory() {
        let outer = tempfile::tempdir().unwrap();
        let (directory, link) = (outer.path().join("state"), outer.path().join("link"));
        StateDir::open(&directory).unwrap();
        symlink(&directory, &link).unwrap();
        for path in [link.clone(), link.join("")] {
            let error = StateDir::open(&path).unwrap_err();
            let is_refused = matches!(error, Error::File(files::Error::WrongKind { .. }));
            assert!(is_refused, "{error}");
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
