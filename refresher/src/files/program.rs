//! Programs that a login runs: found as a shell finds them, and checked as the files are that decide where a credential
//! goes. What is checked is what is run: a whole path, which nobody looks for once more.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::owned::require_owned;
use super::{Error, io_error};

/// The directories of programs where no `PATH` says others, as the system has them.
const USUAL: &str = "/usr/bin:/bin";

/// The place of the program `name`: of that file where it has a slash, else of the first such program on the `PATH`; none
/// where it is not there.
///
/// # Errors
/// If others than its owner and root can put something else in its place, or it is no file.
pub fn find(name: &Path) -> Result<Option<PathBuf>, Error> {
    let search = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(USUAL));
    find_in(&search, name)
}

fn find_in(search: &OsStr, name: &Path) -> Result<Option<PathBuf>, Error> {
    let whole = |path: &Path| std::path::absolute(path).map_err(io_error(path, "find it"));
    let place = match name.as_os_str().as_bytes().contains(&b'/') {
        true => whole(name)?,
        false => {
            let mut places = std::env::split_paths(search).map(|folder| folder.join(name));
            match places.find(|place| can_be_run(place)) {
                Some(place) => whole(&place)?,
                None => return Ok(None),
            }
        }
    };
    require_owned(&place)?;
    Ok(place.exists().then_some(place))
}

fn can_be_run(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A folder with the directories `a` and `b`, and a search through both.
    fn folders() -> (tempfile::TempDir, OsString) {
        let folder = tempfile::tempdir().unwrap();
        let both = ["a", "b"].map(|name| folder.path().join(name));
        both.iter().for_each(|path| fs::create_dir(path).unwrap());
        let search = std::env::join_paths(both).unwrap();
        (folder, search)
    }

    fn put(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_that_can_be_run_is_found() {
        let (folder, search) = folders();
        let at = |place: &str| folder.path().join(place);
        let found = || find_in(&search, Path::new("open")).unwrap();
        assert_eq!(found(), None);
        put(&at("b/open"), 0o755);
        fs::create_dir(at("a/open")).unwrap();
        assert_eq!(found(), Some(at("b/open")));
        fs::remove_dir(at("a/open")).unwrap();
        put(&at("a/open"), 0o644);
        assert_eq!(found(), Some(at("b/open")));
        put(&at("a/open"), 0o755);
        assert_eq!(found(), Some(at("a/open")));
    }

    #[test]
    fn a_name_with_a_slash_is_looked_for_nowhere_else() {
        let (folder, search) = folders();
        put(&folder.path().join("a/open"), 0o755);
        for name in [Path::new("./open"), &folder.path().join("open")] {
            assert_eq!(find_in(&search, name).unwrap(), None);
        }
        let whole = folder.path().join("a/open");
        assert_eq!(find_in("".as_ref(), &whole).unwrap(), Some(whole.clone()));
    }

    /// A relative directory in `PATH` is one of where we are: the program has no second search to fear.
    #[test]
    fn what_is_found_is_a_whole_path() {
        let here = std::env::current_dir().unwrap();
        let folder = tempfile::tempdir_in(&here).unwrap();
        put(&folder.path().join("open"), 0o755);
        let relative = folder.path().strip_prefix(&here).unwrap();
        let found = find_in(relative.as_os_str(), Path::new("open")).unwrap();
        assert_eq!(found, Some(folder.path().join("open")));
    }

    #[test]
    fn what_others_can_replace_is_refused_and_nothing_else_is_taken_for_it() {
        let (folder, search) = folders();
        let at = |place: &str| folder.path().join(place);
        let find = || find_in(&search, Path::new("open"));
        put(&at("b/open"), 0o755);
        put(&at("a/open"), 0o757);
        assert!(matches!(find(), Err(Error::Writable { path, .. }) if path == at("a/open")));
        put(&at("a/open"), 0o755);
        fs::set_permissions(at("a"), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(find(), Err(Error::Writable { path, .. }) if path == at("a")));
        fs::remove_file(at("a/open")).unwrap();
        fs::create_dir(at("open")).unwrap();
        put(&at("open/it"), 0o755);
        fs::set_permissions(at("open"), Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(at("a"), Permissions::from_mode(0o755)).unwrap();
        symlink("../open/it", at("a/open")).unwrap();
        assert!(matches!(find(), Err(Error::Writable { path, .. }) if path == at("a/../open")));
        // Where nothing is yet, others could be the first.
        fs::set_permissions(at("open"), Permissions::from_mode(0o1777)).unwrap();
        let later = at("open/later");
        assert!(matches!(
            find_in(&search, &later),
            Err(Error::Unclaimed { .. })
        ));
    }

    /// The system's programs are root's, by root's links.
    #[test]
    fn what_the_system_has_passes_for_every_user() {
        let found = find(Path::new("sh")).unwrap().unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"), "{found:?}");
        assert_eq!(
            find(Path::new("/bin/sh")).unwrap(),
            Some(PathBuf::from("/bin/sh"))
        );
    }
}
