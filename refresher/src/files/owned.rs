//! Reads files that decide where a credential goes, or that hold one, and no others' files in their place.
//!
//! Every directory and every link on the way belongs to us or to root, and nobody else may put something else there. What
//! is opened is what is looked at: each step starts from the directory that was checked, no link is followed unseen, and
//! nothing that is no file is waited for.
//!
//! In Kubernetes a mounted ConfigMap or Secret is a link of root's to a file in a directory that everybody may write, on
//! a mount that nobody may: both are let pass.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, StatVfsMountFlags, fstat, fstatvfs, openat,
    readlinkat, statat,
};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{Error, NOT_TEXT, User, io_error, require_private};

/// The most links on the way to a file, as in Linux.
const MAX_LINKS: usize = 40;
/// The bits that let the group, and others, write.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Files here are renamed and removed by their owners alone.
const STICKY: u32 = 0o1000;

/// The people who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone. It is no link.
    Owner,
    /// Anybody. It may be a link.
    Anybody,
}

/// The file's bytes; `None` if there is no such file.
///
/// # Errors
/// If others than `readers` can reach it, others than its owner and root can put something else in its place, it is no
/// file, or it has more than `bound` bytes.
pub fn read_owned(
    path: &Path,
    readers: Readers,
    bound: u64,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let Some(file) = open_owned(path, readers)? else {
        return Ok(None);
    };
    let long = || {
        let long = std::io::Error::other(format!("it is longer than {bound} bytes"));
        io_error(path, "read it")(long)
    };
    let length = file.metadata().map_err(io_error(path, "look at it"))?.len();
    if length > bound {
        // Unread: what is refused takes no memory.
        return Err(long());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(bound + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error(path, "read it"))?;
    // It may grow, and some files tell no length.
    if bytes.len() as u64 > bound {
        return Err(long());
    }
    Ok(Some(bytes))
}

/// [`read_owned`] for text that anybody may read.
///
/// # Errors
/// As there, or if it is not UTF-8.
pub fn read_owned_text(path: &Path, bound: u64) -> Result<Option<Zeroizing<String>>, Error> {
    let Some(bytes) = read_owned(path, Readers::Anybody, bound)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| io_error(path, "read it")(std::io::Error::other(NOT_TEXT)))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// [`read_owned_text`] for a file that has to be there.
///
/// # Errors
/// As there, or if there is none.
pub fn require_owned_text(path: &Path, bound: u64) -> Result<Zeroizing<String>, Error> {
    let missing = || io_error(path, "read it")(Errno::NOENT.into());
    read_owned_text(path, bound)?.ok_or_else(missing)
}

/// Checks a file that somebody else reads, now or once it is there.
///
/// # Errors
/// As [`read_owned`], or if it is not there and others could make it.
pub fn require_owned(path: &Path) -> Result<(), Error> {
    let Found::Missing { directory, at } = find(path, Readers::Anybody)? else {
        // Whoever else reads it may be let in where we are not.
        return Ok(());
    };
    // Where nobody removes what is another's, anybody may still be the first.
    let stat = fstat(&directory).map_err(|error| io_error(&at, "look at it")(error.into()))?;
    let is_open = others_write(&stat) && !is_read_only(&directory, &at)?;
    match is_open {
        true => Err(Error::Unclaimed { path: at }),
        false => Ok(()),
    }
}

/// [`require_owned`] for a file that may come later, wherever it is.
///
/// # Errors
/// As [`read_owned`].
pub fn require_owned_if_there(path: &Path) -> Result<(), Error> {
    find(path, Readers::Anybody).map(drop)
}

/// Checks a directory and all that are above it.
///
/// # Errors
/// If it is not there, or others than its owner and root can put something else in its place.
pub fn require_owned_directory(path: &Path) -> Result<(), Error> {
    // The last step of the way is then none that is left to be opened.
    let inside = path.join("x");
    match way(&inside, Readers::Anybody)?.is_whole {
        true => Ok(()),
        false => Err(io_error(path, "open it")(Errno::NOENT.into())),
    }
}

/// The end of a path, looked at.
enum Found {
    File(File),
    /// A file as it should be, which we may not read.
    Unreadable {
        at: PathBuf,
    },
    /// Nothing; it would be made in that directory, or below a new one in it.
    Missing {
        directory: OwnedFd,
        at: PathBuf,
    },
}

fn open_owned(path: &Path, readers: Readers) -> Result<Option<File>, Error> {
    match find(path, readers)? {
        Found::File(file) => Ok(Some(file)),
        Found::Unreadable { at } => Err(io_error(&at, "read it")(Errno::ACCESS.into())),
        Found::Missing { .. } => Ok(None),
    }
}

fn find(path: &Path, readers: Readers) -> Result<Found, Error> {
    let Way {
        directory,
        name,
        at,
        is_whole,
    } = way(path, readers)?;
    if !is_whole {
        return Ok(Found::Missing { directory, at });
    }
    let failed = |error: Errno| io_error(&at, "read it")(error.into());
    let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Found::Missing { directory, at }),
        Err(error) => return Err(failed(error)),
    };
    // To open a device can do something, so it is not even tried.
    require_kind(&at, &stat, FileType::RegularFile)?;
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(&directory, &name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Found::Missing { directory, at }),
        Err(Errno::ACCESS) if readers == Readers::Anybody => {
            require_theirs(&at, &stat)?;
            return Ok(Found::Unreadable { at });
        }
        Err(error) => return Err(failed(error)),
    };
    let stat = fstat(&file).map_err(failed)?;
    require_kind(&at, &stat, FileType::RegularFile)?;
    match readers {
        Readers::Owner => {
            let metadata = file.metadata().map_err(io_error(&at, "look at it"))?;
            require_private(&at, &metadata)?;
        }
        Readers::Anybody => require_theirs(&at, &stat)?,
    }
    Ok(Found::File(file))
}

/// Refuses a file that is neither ours nor root's, or that others may write.
fn require_theirs(at: &Path, stat: &Stat) -> Result<(), Error> {
    require_owner(at, stat.st_uid)?;
    match others_write(stat) {
        true => Err(writable(at, stat)),
        false => Ok(()),
    }
}

/// The end of the way that a path leads.
struct Way {
    directory: OwnedFd,
    /// The next step in that directory, which is no link.
    name: OsString,
    at: PathBuf,
    /// True if that step is the last one; else nothing is there.
    is_whole: bool,
}

/// Goes the way of `path`, as far as it leads.
fn way(path: &Path, readers: Readers) -> Result<Way, Error> {
    let absolute = std::path::absolute(path).map_err(io_error(path, "find it"))?;
    let mut rest = steps(&absolute);
    let (mut directory, mut at) = (open_root()?, PathBuf::from("/"));
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let next = at.join(&name);
        let is_whole = rest.is_empty();
        let end = |directory, name, at| Way {
            directory,
            name,
            at,
            is_whole,
        };
        let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(end(directory, name, next)),
            Err(error) => return Err(io_error(&next, "look at it")(error.into())),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            links += 1;
            if links > MAX_LINKS || (rest.is_empty() && readers == Readers::Owner) {
                return Err(wrong_kind(&next, "a file and no symbolic link"));
            }
            require_owner(&next, stat.st_uid)?;
            let target = readlinkat(&directory, &name, Vec::new())
                .map_err(|error| io_error(&next, "look at it")(error.into()))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                (directory, at) = (open_root()?, PathBuf::from("/"));
            }
            rest.extend(steps(&target));
        } else if is_whole {
            return Ok(end(directory, name, next));
        } else {
            require_kind(&next, &stat, FileType::Directory)?;
            directory = open_directory(&directory, &name, &next)?;
            at = next;
        }
    }
    // The root itself holds nothing that is asked for by no name.
    Err(wrong_kind(path, "a file"))
}

/// The steps of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().filter_map(|step| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut steps: Vec<_> = steps.collect();
    steps.reverse();
    steps
}

fn open_root() -> Result<OwnedFd, Error> {
    let root = Path::new("/");
    open_directory(CWD, root.as_os_str(), root)
}

fn open_directory(from: impl AsFd, name: &OsStr, at: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error: Errno| io_error(at, "open it")(error.into());
    let directory = openat(from, name, flags, Mode::empty()).map_err(failed)?;
    let stat = fstat(&directory).map_err(failed)?;
    require_owner(at, stat.st_uid)?;
    if others_write(&stat) && stat.st_mode & STICKY == 0 && !is_read_only(&directory, at)? {
        return Err(writable(at, &stat));
    }
    Ok(directory)
}

/// Returns true if nobody can write where a directory is.
fn is_read_only(directory: &OwnedFd, at: &Path) -> Result<bool, Error> {
    let mount = fstatvfs(directory).map_err(|error| io_error(at, "look at it")(error.into()))?;
    Ok(mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Returns true if others than we and root may write what `stat` is of. A group of our own is no others: each user has
/// one where the umask is 002.
fn others_write(stat: &Stat) -> bool {
    let is_own_group = [0, rustix::process::getegid().as_raw()].contains(&stat.st_gid);
    let others = match is_own_group {
        true => OTHERS_WRITE,
        false => OTHERS_WRITE | GROUP_WRITES,
    };
    stat.st_mode & others != 0
}

fn require_owner(path: &Path, owner: u32) -> Result<(), Error> {
    let us = rustix::process::geteuid().as_raw();
    match owner == us || owner == 0 {
        true => Ok(()),
        false => Err(Error::ForeignOwner {
            path: path.to_owned(),
            owner: User::of(owner),
            us: User::of(us),
        }),
    }
}

fn require_kind(path: &Path, stat: &Stat, kind: FileType) -> Result<(), Error> {
    match FileType::from_raw_mode(stat.st_mode) == kind {
        true => Ok(()),
        false if kind == FileType::Directory => Err(wrong_kind(path, "a directory")),
        false => Err(wrong_kind(path, "a file")),
    }
}

fn wrong_kind(path: &Path, expected: &'static str) -> Error {
    Error::WrongKind {
        path: path.to_owned(),
        expected,
    }
}

fn writable(path: &Path, stat: &Stat) -> Error {
    Error::Writable {
        path: path.to_owned(),
        mode: stat.st_mode & 0o7777,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    const BOUND: u64 = 9;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        mode(&path, 0o644);
        (folder, path)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
        read_owned_text(path, BOUND)
    }

    /// The bytes that this thread has read so far.
    fn bytes_read() -> u64 {
        let counters = fs::read_to_string("/proc/thread-self/io").unwrap();
        let read = counters
            .lines()
            .find_map(|line| line.strip_prefix("rchar: "));
        read.unwrap().parse().unwrap()
    }

    #[test]
    fn of_a_file_that_is_too_long_nothing_is_read() {
        let (_folder, path) = folder();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        let before = bytes_read();
        let refused = read(&path).unwrap_err().to_string();
        assert!(refused.contains("longer than 9 bytes"), "{refused}");
        assert!(bytes_read() - before < 64 * 1024);
    }

    #[test]
    fn a_file_of_ours_is_read_and_a_missing_one_is_none() {
        let (folder, path) = folder();
        assert_eq!(read(&path).unwrap().unwrap().as_str(), "text");
        for missing in ["none", "none/none"] {
            assert!(read(&folder.path().join(missing)).unwrap().is_none());
        }
        assert!(matches!(
            read_owned(&path, Readers::Owner, BOUND),
            Err(Error::LaxMode { .. })
        ));
        mode(&path, 0o600);
        assert!(read_owned(&path, Readers::Owner, BOUND).unwrap().is_some());
        fs::write(&path, "0123456789").unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("longer than 9")
        );
        fs::write(&path, [0xff]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn what_others_may_write_is_refused() {
        let (folder, path) = folder();
        mode(&path, 0o664);
        assert!(read(&path).is_ok(), "a group of our own");
        for lax in [0o646, 0o666] {
            mode(&path, lax);
            assert!(
                matches!(read(&path), Err(Error::Writable { .. })),
                "{lax:o}"
            );
        }
        mode(&path, 0o644);
        mode(folder.path(), 0o777);
        assert!(matches!(read(&path), Err(Error::Writable { .. })));
        assert!(matches!(
            require_owned_directory(folder.path()),
            Err(Error::Writable { .. })
        ));
        mode(folder.path(), 0o1777);
        assert!(read(&path).is_ok());
        mode(folder.path(), 0o755);
        assert!(require_owned_directory(folder.path()).is_ok());
        assert!(require_owned_directory(&path).is_err());
        assert!(require_owned_directory(&folder.path().join("none")).is_err());
    }

    /// The first to come makes it there, and somebody else reads it.
    #[test]
    fn what_others_could_make_is_refused() {
        let (folder, path) = folder();
        let link = folder.path().join("link");
        symlink("open/none", &link).unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        mode(&open, 0o1777);
        for missing in [open.join("none"), open.join("none/none"), link] {
            let refused = require_owned(&missing);
            assert!(
                matches!(refused, Err(Error::Unclaimed { .. })),
                "{missing:?}"
            );
            assert!(read(&missing).unwrap().is_none());
        }
        mode(&open, 0o755);
        for fine in [open.join("none"), open.join("none/none"), path] {
            assert!(require_owned(&fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn another_users_file_directory_or_link_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (folder, path) = folder();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "text").unwrap();
        let is_foreign = |path: &Path| matches!(read(path), Err(Error::ForeignOwner { owner, .. }) if owner.id() == 65_534);
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        assert!(is_foreign(&link) && read(&path).is_ok());
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(is_foreign(&path));
        std::os::unix::fs::chown(&inner, Some(65_534), None).unwrap();
        assert!(is_foreign(&inner.join("file")));
    }

    /// A mounted ConfigMap: `file` leads to `..data/file`, and `..data` to the directory of one version.
    #[test]
    fn links_of_ours_are_followed_to_what_is_not_secret() {
        let (folder, _) = folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("..2026")).unwrap();
        fs::write(at("..2026/config"), "text").unwrap();
        symlink("..2026", at("..data")).unwrap();
        symlink("..data/config", at("config")).unwrap();
        assert!(read(&at("config")).unwrap().is_some());
        let secret = read_owned(&at("config"), Readers::Owner, BOUND);
        assert!(matches!(secret, Err(Error::WrongKind { .. })));
        symlink(at("..2026/../..data/config"), at("absolute")).unwrap();
        assert!(read(&at("absolute")).unwrap().is_some());
        symlink("around", at("around")).unwrap();
        assert!(matches!(read(&at("around")), Err(Error::WrongKind { .. })));
        mode(&at("..2026"), 0o757);
        assert!(matches!(read(&at("config")), Err(Error::Writable { .. })));
    }

    #[test]
    fn nothing_is_waited_for() {
        let (folder, _) = folder();
        let fifo = folder.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        for path in [&fifo, folder.path(), Path::new("/dev/zero"), Path::new("/")] {
            for readers in [Readers::Owner, Readers::Anybody] {
                let refused = read_owned(path, readers, BOUND);
                assert!(matches!(refused, Err(Error::WrongKind { .. })), "{path:?}");
            }
        }
    }
}
