//! The certificates by which the refresher knows whom it gives tokens to: a profile's `ca_file`, or else what `SSL_CERT_FILE`
//! and `SSL_CERT_DIR` name, or else the system's.
//!
//! Whoever else could write what is named would have tokens sent to themselves, so each of those files, each link to it and
//! each directory on the way is the owner's or root's ([`owned`](crate::files::owned)). The system's own are root's, at
//! the usual places below `/etc` and `/opt`, and are read as they are.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::files::owned::{Readers, read_owned, require_owned_directory};
use crate::files::{self, io_error};

/// Bytes of all files of certificates that one client trusts. The bundles of systems have some 250 KiB, and their
/// directories the same again.
const MAX_ROOTS_BYTES: u64 = 8 * 1024 * 1024;
/// Names in one directory of certificates. Those of systems have some 450.
const MAX_NAMES: usize = 8_192;

const FILE_VARIABLE: &str = "SSL_CERT_FILE";
const DIR_VARIABLE: &str = "SSL_CERT_DIR";

/// The setting or the variable that names certificates to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// `ca_file` of a profile.
    CaFile,
    /// `SSL_CERT_FILE`.
    File,
    /// `SSL_CERT_DIR`.
    Dir,
}

/// A lack of certificates to trust.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This system has none.
    #[error(
        "this system has no root certificates{0}; install them (ca-certificates), or name a file as [oauth] ca_file or \
         SSL_CERT_FILE"
    )]
    None(String),
    /// A variable says nothing.
    #[error("{0} is set and empty")]
    Empty(Named),
    /// A file or directory cannot be read, or others could change it.
    #[error("{error} ({named} names it)")]
    File {
        /// The setting that names it.
        named: Named,
        /// The problem.
        error: files::Error,
    },
    /// A file or directory holds no certificates that can be used.
    #[error("{}: expected PEM certificates to trust: {problem} ({named} names it)", path.display())]
    Unfit {
        /// The setting that names it.
        named: Named,
        /// The file or directory.
        path: PathBuf,
        /// The mistake in it.
        problem: String,
    },
}

/// The certificates in `ca_file`, or else those that the environment names, or else the system's. `variable` reads the
/// environment.
///
/// # Errors
/// If there are none, or others could change them.
pub fn roots(
    ca_file: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<RootCertStore, Error> {
    let mut found = Certificates::default();
    let (named, path) = match (ca_file, variable(FILE_VARIABLE), variable(DIR_VARIABLE)) {
        (Some(path), _, _) => {
            found.add_all_of_file(path)?;
            (Named::CaFile, path.to_owned())
        }
        (None, None, None) => return of_system(),
        // Set and empty, it would have the system's search look elsewhere.
        (None, file, dirs) => {
            let file = file.map(PathBuf::from);
            if let Some(file) = &file {
                if file.as_os_str().is_empty() {
                    return Err(Error::Empty(Named::File));
                }
                found.add_file(Named::File, file)?;
            }
            let dirs = dirs.iter().flat_map(std::env::split_paths);
            let dirs: Vec<PathBuf> = dirs.filter(|dir| !dir.as_os_str().is_empty()).collect();
            for dir in &dirs {
                found.add_directory(dir)?;
            }
            match (file, dirs.into_iter().next()) {
                (Some(file), _) => (Named::File, file),
                (None, Some(dir)) => (Named::Dir, dir),
                (None, None) => return Err(Error::Empty(Named::Dir)),
            }
        }
    };
    let (added, roots) = found.into_roots();
    match added {
        0 => Err(Error::Unfit {
            named,
            path,
            problem: "found none".to_owned(),
        }),
        _ => Ok(roots),
    }
}

fn of_system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let problem = found.errors.first().map(|error| format!(" ({error})"));
    let all = Certificates {
        certificates: found.certs,
        bytes: 0,
    };
    let (added, roots) = all.into_roots();
    match added {
        0 => Err(Error::None(problem.unwrap_or_default())),
        _ => Ok(roots),
    }
}

/// The certificates found so far.
#[derive(Default)]
struct Certificates {
    certificates: Vec<CertificateDer<'static>>,
    bytes: u64,
}

// === impl Named ===

impl Named {
    /// The variable that it is.
    pub fn variable(self) -> Option<&'static str> {
        match self {
            Named::CaFile => None,
            Named::File => Some(FILE_VARIABLE),
            Named::Dir => Some(DIR_VARIABLE),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.variable().unwrap_or("ca_file"))
    }
}

// === impl Certificates ===

impl Certificates {
    /// Takes the certificates of a file, all of which have to be whole.
    fn add_all_of_file(&mut self, path: &Path) -> Result<(), Error> {
        let read: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&self.read(Named::CaFile, path)?).collect();
        let read = read.map_err(|error| Error::Unfit {
            named: Named::CaFile,
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        self.certificates.extend(read);
        Ok(())
    }

    /// Takes those certificates of a file that are whole.
    fn add_file(&mut self, named: Named, path: &Path) -> Result<(), Error> {
        let bytes = self.read(named, path)?;
        let read = CertificateDer::pem_slice_iter(&bytes);
        self.certificates.extend(read.filter_map(Result::ok));
        Ok(())
    }

    /// Takes the certificates of each file in a directory.
    fn add_directory(&mut self, path: &Path) -> Result<(), Error> {
        let refused = |error| Error::File {
            named: Named::Dir,
            error,
        };
        require_owned_directory(path).map_err(refused)?;
        let failed = |error| refused(io_error(path, "read it")(error));
        let names = path.read_dir().map_err(failed)?.take(MAX_NAMES + 1);
        let names: Vec<_> = names.collect::<Result<_, _>>().map_err(failed)?;
        if names.len() > MAX_NAMES {
            let long = std::io::Error::other(format!("more than {MAX_NAMES} names are in it"));
            return Err(failed(long));
        }
        for name in names {
            // What is no file, or a link to nothing, is no certificate.
            let path = name.path();
            if path.is_file()
                && let Err(error) = self.add_file(Named::Dir, &path)
            {
                // To leave one out trusts fewer.
                tracing::warn!(%error, "a file of certificates is left out");
            }
        }
        Ok(())
    }

    /// Returns the certificates that can be used, and their number.
    fn into_roots(mut self) -> (usize, RootCertStore) {
        // Directories of certificates have most of them under several names.
        self.certificates
            .sort_unstable_by(|one, other| one.cmp(other));
        self.certificates.dedup();
        let mut roots = RootCertStore::empty();
        // A bundle may hold a certificate that this library cannot read; one that it can is enough.
        let (added, _) = roots.add_parsable_certificates(self.certificates);
        (added, roots)
    }

    fn read(&mut self, named: Named, path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        let refused = |error| Error::File { named, error };
        let room = MAX_ROOTS_BYTES - self.bytes;
        let bytes = read_owned(path, Readers::Anybody, room).map_err(refused)?;
        let missing = || {
            refused(io_error(path, "read it")(
                std::io::ErrorKind::NotFound.into(),
            ))
        };
        let bytes = bytes.ok_or_else(missing)?;
        self.bytes += bytes.len() as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::process::Command;

    use super::*;

    /// Nobody we know.
    const STRANGER: u32 = 65_534;

    const ONE: &str = include_str!("fixtures/one.pem");
    const TWO: &str = include_str!("fixtures/two.pem");

    /// A folder with the certificate `ca.pem`, and that file.
    fn folder_of(certificate: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        fs::write(&path, certificate).unwrap();
        mode(&path, 0o644);
        (folder, path)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// The number of certificates that the environment names.
    fn trusted(file: Option<&Path>, dirs: Option<&str>) -> Result<usize, Error> {
        let variable = |name: &str| match name {
            FILE_VARIABLE => file.map(Into::into),
            DIR_VARIABLE => dirs.map(Into::into),
            other => panic!("{other}"),
        };
        roots(None, variable).map(|roots| roots.len())
    }

    /// The error of a file; in a directory it is left out.
    fn refused(path: &Path) -> files::Error {
        let dir = path.parent().unwrap();
        let is_open = fs::metadata(dir).unwrap().mode() & 0o002 != 0;
        match trusted(None, dir.to_str()).unwrap_err() {
            Error::File { named, error } => {
                assert!(is_open && named == Named::Dir, "{error}");
            }
            error => assert!(
                !is_open && error.to_string().contains("found none"),
                "{error}"
            ),
        }
        match trusted(Some(path), None).unwrap_err() {
            Error::File { named, error } => {
                assert_eq!(named, Named::File);
                error
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn one_bad_file_in_a_directory_keeps_no_other_from_being_trusted() {
        let (folder, path) = folder_of(ONE);
        let bad = folder.path().join("bad.pem");
        fs::write(&bad, TWO).unwrap();
        mode(&bad, 0o666);
        assert_eq!(trusted(None, folder.path().to_str()).unwrap(), 1);
        mode(&path, 0o666);
        let none = trusted(None, folder.path().to_str()).unwrap_err();
        assert!(none.to_string().contains("found none"), "{none}");
    }

    #[test]
    fn what_the_environment_names_is_trusted_and_nothing_else() {
        let (folder, path) = folder_of(ONE);
        let (other, second) = folder_of(TWO);
        symlink("ca.pem", folder.path().join("4042bcee.0")).unwrap();
        symlink("nothing", folder.path().join("dangling")).unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("README"), "no certificate").unwrap();
        let dir = |folder: &tempfile::TempDir| folder.path().to_str().unwrap().to_owned();
        assert_eq!(trusted(Some(&path), None).unwrap(), 1);
        assert_eq!(trusted(None, Some(&dir(&folder))).unwrap(), 1);
        assert_eq!(trusted(Some(&path), Some(&dir(&folder))).unwrap(), 1);
        assert_eq!(trusted(Some(&path), Some(&dir(&other))).unwrap(), 2);
        let both = format!("{}::{}", dir(&folder), dir(&other));
        assert_eq!(trusted(None, Some(&both)).unwrap(), 2);
        // A profile's own come first, whatever the environment says.
        let bad = |_: &str| Some("/nonexistent".into());
        assert_eq!(roots(Some(&second), bad).unwrap().len(), 1);
    }

    #[test]
    fn what_others_could_change_is_refused() {
        let (folder, path) = folder_of(ONE);
        mode(&path, 0o666);
        assert!(matches!(refused(&path), files::Error::Writable { .. }));
        mode(&path, 0o644);
        mode(folder.path(), 0o777);
        assert!(matches!(refused(&path), files::Error::Writable { .. }));
        mode(folder.path(), 0o755);
        // A link to where others may write.
        let open = tempfile::tempdir().unwrap();
        let target = open.path().join("ca.pem");
        fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        assert_eq!(trusted(Some(&path), None).unwrap(), 1);
        mode(open.path(), 0o777);
        assert!(matches!(refused(&path), files::Error::Writable { .. }));
        mode(open.path(), 0o755);
        if rustix::process::geteuid().is_root() {
            chown(&target, None, Some(STRANGER)).unwrap();
            mode(&target, 0o664);
            assert!(matches!(refused(&path), files::Error::Writable { .. }));
            chown(&target, Some(STRANGER), None).unwrap();
            mode(&target, 0o644);
            assert!(matches!(refused(&path), files::Error::ForeignOwner { .. }));
        }
    }

    #[test]
    fn what_is_named_and_is_not_there_is_refused_and_nothing_is_waited_for() {
        let (folder, path) = folder_of(ONE);
        fs::remove_file(&path).unwrap();
        let said = |file, dirs| trusted(file, dirs).unwrap_err().to_string();
        let missing = said(Some(path.as_path()), None);
        assert!(
            missing.contains("ca.pem") && missing.contains("SSL_CERT_FILE"),
            "{missing}"
        );
        let missing = said(None, Some("/nonexistent/certs"));
        assert!(missing.contains("SSL_CERT_DIR"), "{missing}");
        for empty in [
            said(None, Some("")),
            said(None, Some(":")),
            said(Some(Path::new("")), None),
        ] {
            assert!(empty.contains("SSL_CERT_"), "{empty}");
        }
        let dir = folder.path().to_str().unwrap();
        let empty = said(None, Some(dir));
        assert!(
            empty.contains(dir) && empty.contains("found none"),
            "{empty}"
        );
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let fifo = trusted(Some(&path), None);
        assert!(matches!(
            fifo,
            Err(Error::File {
                error: files::Error::WrongKind { .. },
                ..
            })
        ));
        assert!(said(None, Some(dir)).contains("found none"));
    }

    #[test]
    fn there_is_a_bound() {
        let (folder, path) = folder_of(ONE);
        let file = fs::File::create(&path).unwrap();
        file.set_len(MAX_ROOTS_BYTES / 2 + 1).unwrap();
        fs::copy(&path, folder.path().join("again.pem")).unwrap();
        assert!(trusted(None, folder.path().to_str()).is_err());
        file.set_len(MAX_ROOTS_BYTES + 1).unwrap();
        let said = trusted(Some(&path), None).unwrap_err().to_string();
        assert!(said.contains("longer than"), "{said}");
    }
}
