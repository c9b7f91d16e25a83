//! The words of the file system: modes and owners, profiles, room on the disk, the filter.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::app::Error;
use crate::browser;
use crate::config::Config;
use crate::envoy::filter_file::{self, Found};
use crate::files::owned::{require_owned, require_owned_directory};
use crate::files::{self, require_private_dir, require_private_file};
use crate::login::session;
use crate::os_error::in_words;
use crate::platform::Catalog;
use crate::state::StateDir;

/// The room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The bytes that are left to this user.
    pub free: u64,
    /// All there are.
    pub total: u64,
}

/// The socket that Envoy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketState {
    /// Nothing is there.
    Missing,
    /// Something else is there.
    Other,
    /// The file is there, with this mode.
    There {
        /// The permission bits.
        mode: u32,
    },
}

/// Finds what others could read, change or replace in the state directory.
pub fn lax(dir: &StateDir) -> Vec<Error> {
    let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
    let folders = [dir.path().to_owned(), dir.run(), dir.clusters_dir()];
    let beside = |ending: &str| {
        let mut name = dir.database().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let private = [
        dir.database(),
        beside("-wal"),
        beside("-shm"),
        dir.key(),
        dir.high_water(),
    ];
    let folders = folders.into_iter().filter(is_there);
    let folders = folders.map(|path| require_private_dir(&path));
    let private = private.into_iter().filter(is_there);
    let private = private.map(|path| require_private_file(&path));
    let above = is_there(&dir.path().to_owned()).then(|| require_owned_directory(dir.path()));
    let all = folders
        .chain(private)
        .chain(above)
        .chain([require_owned(&dir.config())]);
    distinct(all.filter_map(Result::err).map(Error::from))
}

/// Each profile of the operator's that does not fit.
pub fn profiles(config: &Config) -> Vec<Error> {
    let faults = config.platforms_dir.as_deref().map(Catalog::faults);
    distinct(faults.into_iter().flatten().map(Error::from))
}

/// Refuses a browser of the operator's that no login would open.
pub fn browser(config: &Config) -> Result<(), Error> {
    let Some(named) = &config.browser else {
        return Ok(());
    };
    let found = browser::find(Some(named));
    found
        .map(drop)
        .map_err(|error| session::Error::from(error).into())
}

/// Without those that say the same.
fn distinct(errors: impl Iterator<Item = Error>) -> Vec<Error> {
    let mut distinct: Vec<Error> = Vec::new();
    for error in errors {
        let said = error.to_string();
        if !distinct.iter().any(|known| known.to_string() == said) {
            distinct.push(error);
        }
    }
    distinct
}

/// The room on the disk where `path` is; none where nobody can tell.
pub fn space(path: &Path) -> Option<Space> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// Finds what is at the socket's path.
pub fn socket(path: &Path) -> SocketState {
    match fs::symlink_metadata(path) {
        Err(_) => SocketState::Missing,
        Ok(found) if !found.file_type().is_socket() => SocketState::Other,
        Ok(found) => SocketState::There {
            mode: found.mode() & 0o7777,
        },
    }
}

/// A filter's file that was not compared.
#[derive(Debug)]
pub enum Unread {
    /// The file is not there, or cannot be read.
    Gone(String),
    /// Others could change it.
    Refused(Error),
}

/// The filter's file at a path that Envoy or its clusters name.
pub fn filter(path: PathBuf) -> (PathBuf, Result<Found, Unread>) {
    let found = filter_file::look(&path).map_err(|error| match error {
        files::Error::Io { source, .. } => Unread::Gone(in_words(&source)),
        error => Unread::Refused(error.into()),
    });
    (path, found)
}

/// Returns the time of a file's last change, in Unix milliseconds.
pub fn changed_at(path: &Path) -> Option<i64> {
    let found = fs::metadata(path).ok()?;
    Some(found.mtime().saturating_mul(1_000))
}
