//! The files that the clusters name and that Envoy reads: the filter, which sees every credential, and the certificates by
//! which Envoy knows a platform. Whoever else can write one of them has credentials sent to themselves.

use std::path::Path;

use super::{Error, Result};
use crate::advice;
use crate::config;
use crate::envoy::clusters::{Clusters, names_file};
use crate::envoy::filter_file::{self, Refused};
use crate::fault::Fault;
use crate::files;
use crate::files::owned::require_owned;
use crate::platform::Catalog;

/// Refuses files that others could change, and paths of which nobody can tell what they lead to.
///
/// # Errors
/// Naming the file.
pub fn require_safe(envoy: &config::Envoy, catalog: &Catalog) -> Result<()> {
    filter(envoy).require_safe()?;
    trust(envoy).require_safe()?;
    let mut of_platforms = catalog
        .all_usable()
        .flat_map(|profile| &profile.upstream.ca_file);
    of_platforms.try_for_each(|path| Ok(require_owned(path)?))
}

/// [`require_safe`], for files that have to be there as well: the filter as it was built, and the certificates where
/// `clusters` name them.
///
/// # Errors
/// Naming the file.
pub fn require(envoy: &config::Envoy, catalog: &Catalog, clusters: &Clusters) -> Result<()> {
    require_safe(envoy, catalog)?;
    filter(envoy).require_there()?;
    filter_file::check(envoy.wasm()).map_err(|refused| match refused {
        Refused::Sum(error) => error.into(),
        other @ Refused::Other { .. } => Error::in_file(envoy.wasm(), Fault::OtherFilter, other),
    })?;
    match trust(envoy).require_there() {
        Err(error) if !names_file(clusters, &envoy.trusted_ca) => {
            let cure = advice::in_log(&error.fault);
            tracing::warn!(%error, cure, "no account needs them yet");
            Ok(())
        }
        found => found,
    }
}

/// Refuses certificates that others could change.
///
/// # Errors
/// Naming the file.
pub fn require_safe_trust(envoy: &config::Envoy) -> Result<()> {
    trust(envoy).require_safe()
}

/// A file, and what is said where it is not there.
struct Part<'a> {
    path: &'a Path,
    fault: Fault,
    missing: &'static str,
}

fn filter(envoy: &config::Envoy) -> Part<'_> {
    Part {
        path: envoy.wasm(),
        fault: Fault::NoFilter,
        missing: "the filter is not there, and Envoy does not start without it",
    }
}

fn trust(envoy: &config::Envoy) -> Part<'_> {
    Part {
        path: &envoy.trusted_ca,
        fault: Fault::NoTrustedCa,
        missing: "the root certificates for Envoy are not there, and without them it refuses the platforms' clusters",
    }
}

impl Part<'_> {
    fn require_safe(&self) -> Result<()> {
        if self.path.is_relative() {
            let sentence = "expected a whole path, which begins with /; Envoy looks for this one from where it was started";
            return Err(Error::in_file(self.path, Fault::RelativePath, sentence));
        }
        require_owned(self.path).map_err(|error| match error {
            files::Error::Io { .. } => Error::new(self.fault.clone(), error),
            error => error.into(),
        })
    }

    fn require_there(&self) -> Result<()> {
        match self.path.is_file() {
            true => Ok(()),
            false => Err(Error::in_file(self.path, self.fault.clone(), self.missing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::process::Command;

    use serde_json::json;

    use super::*;

    /// A folder with both files, as the configuration names them.
    fn installed() -> (tempfile::TempDir, config::Envoy) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "text").unwrap();
            mode(&path, 0o644);
            path
        };
        let envoy = config::Envoy {
            trusted_ca: at("ca.pem"),
            wasm: Some(at("latchkey.wasm")),
            escape: None,
            ..config::Envoy::default()
        };
        (folder, envoy)
    }

    fn catalog() -> Catalog {
        Catalog::load(None, Default::default()).unwrap()
    }

    /// [`super::require`] where a cluster names the certificates.
    fn require(envoy: &config::Envoy) -> Result<()> {
        let cluster = json!({ "trusted_ca": { "filename": envoy.trusted_ca } });
        super::require(envoy, &catalog(), &[("one".to_owned(), cluster)].into())
    }

    fn require_safe(envoy: &config::Envoy) -> Result<()> {
        super::require_safe(envoy, &catalog())
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// The fault of each file, once `spoil` was done to it.
    fn faults(spoil: fn(&Path)) -> [Fault; 2] {
        [true, false].map(|is_wasm| {
            let (_folder, envoy) = installed();
            require(&envoy).unwrap();
            spoil(match is_wasm {
                true => envoy.wasm(),
                false => &envoy.trusted_ca,
            });
            require(&envoy).unwrap_err().fault
        })
    }

    #[test]
    fn what_others_could_change_and_what_is_no_file_is_refused() {
        let open = faults(|path| mode(path, 0o646));
        assert!(matches!(
            open,
            [Fault::LaxMode { .. }, Fault::LaxMode { .. }]
        ));
        let fifo = faults(|path| {
            fs::remove_file(path).unwrap();
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        });
        assert!(matches!(
            fifo,
            [Fault::WrongKind { .. }, Fault::WrongKind { .. }]
        ));
        let missing = faults(|path| fs::remove_file(path).unwrap());
        assert_eq!(missing, [Fault::NoFilter, Fault::NoTrustedCa]);
        // Where all platforms are plain http, or have a `ca_file`, they may be missing.
        let (_folder, envoy) = installed();
        fs::remove_file(&envoy.trusted_ca).unwrap();
        super::require(&envoy, &catalog(), &Clusters::new()).unwrap();
    }

    #[test]
    fn a_filter_that_is_not_what_the_sum_beside_it_says_is_refused() {
        const TEXT: &str = "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1";
        let (folder, envoy) = installed();
        let sum = folder.path().join("latchkey.wasm.sha256");
        fs::write(&sum, format!("{TEXT}  latchkey.wasm\n")).unwrap();
        mode(&sum, 0o644);
        require(&envoy).unwrap();
        fs::write(envoy.wasm(), "another text").unwrap();
        let refused = require(&envoy).unwrap_err();
        assert_eq!(refused.fault, Fault::OtherFilter);
        assert!(refused.to_string().contains(TEXT), "{refused}");
        // What prints clusters for an Envoy that is told by hand looks at who may write the filter, and no more.
        require_safe(&envoy).unwrap();
    }

    #[test]
    fn a_link_is_followed_to_where_nobody_else_writes() {
        let (_folder, mut envoy) = installed();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("bundle.pem");
        fs::rename(&envoy.trusted_ca, &target).unwrap();
        symlink(&target, &envoy.trusted_ca).unwrap();
        require(&envoy).unwrap();
        mode(elsewhere.path(), 0o777);
        let refused = require(&envoy).unwrap_err();
        assert!(matches!(refused.fault, Fault::LaxMode { .. }), "{refused}");
        mode(elsewhere.path(), 0o755);
        envoy.trusted_ca = PathBuf::from("bundle.pem");
        let refused = require_safe(&envoy).unwrap_err();
        assert_eq!(refused.fault, Fault::RelativePath);
        assert!(refused.to_string().contains("expected a whole path"));
    }

    /// The files of an Envoy that is told by hand may come later; where anybody could make them, they are refused.
    #[test]
    fn what_is_not_there_yet_is_safe_where_nobody_else_makes_it() {
        let (folder, envoy) = installed();
        fs::remove_file(&envoy.trusted_ca).unwrap();
        require_safe(&envoy).unwrap();
        mode(folder.path(), 0o1777);
        let refused = require_safe(&envoy).unwrap_err();
        assert!(
            matches!(refused.fault, Fault::Unclaimed { .. }),
            "{refused}"
        );
    }
}
