//! The files that the clusters name and that Envoy reads: the filter, which sees every credential, and the certificates by
//! which Envoy knows a platform. Whoever else can write one of them has credentials sent to themselves.

use std::path::Path;

use super::{Error, Result};
use crate::config;
use crate::fault::Fault;
use crate::files;
use crate::files::owned::require_owned;

/// Refuses files that others could change, and paths of which nobody can tell what they lead to.
///
/// # Errors
/// Naming the file.
pub fn require_safe(envoy: &config::Envoy) -> Result<()> {
    filter(envoy).require_safe()?;
    trust(envoy).require_safe()
}

/// [`require_safe`], for files that have to be there as well.
///
/// # Errors
/// Naming the file.
pub fn require(envoy: &config::Envoy) -> Result<()> {
    require_safe(envoy)?;
    filter(envoy).require_there()?;
    trust(envoy).require_there()
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
        missing: "the certificates that Envoy is to trust are not there, and without them it takes no cluster of a platform's",
    }
}

impl Part<'_> {
    fn require_safe(&self) -> Result<()> {
        if self.path.is_relative() {
            let sentence = "expected a whole path, which begins with /; Envoy looks for this one from where it was started";
            return Err(self.error(sentence));
        }
        require_owned(self.path).map_err(|error| match error {
            files::Error::Io { .. } => Error::new(self.fault.clone(), error),
            error => error.into(),
        })
    }

    fn require_there(&self) -> Result<()> {
        match self.path.is_file() {
            true => Ok(()),
            false => Err(self.error(self.missing)),
        }
    }

    fn error(&self, sentence: &str) -> Error {
        Error::in_file(self.path, self.fault.clone(), sentence)
    }
}
