//! The filter's file, as far as this machine has it: is it there, and is it the one that was built?
//!
//! `scripts/wasm.sh` prints the filter's SHA-256 and writes it beside the filter. That tells a file that was cut, mixed up or
//! left over from another version, and `serve` does not start on it. It stops nobody who can write both files.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::files::owned::{Readers, read_owned};
use crate::files::{self, io_error};
use crate::id::hex;

/// The most bytes of a filter that are read. The build refuses one of more than 1,843,200.
const MAX_FILTER_BYTES: u64 = 16 * 1024 * 1024;
/// The most bytes of a sum: 64 digits and a name.
const MAX_SUM_BYTES: u64 = 4096;

/// The filter beside its sum, each as SHA-256 in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// As it was built.
    Same(String),
    /// Nobody says which one was built.
    WithoutSum(String),
    /// Another one than was built.
    Other {
        /// The sum beside it.
        expected: String,
        /// Its own.
        found: String,
    },
}

/// The reason why a filter is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another one than was built.
    #[error("the filter's SHA-256 is {found}, and the .sha256 beside it says '{expected}'")]
    Other {
        /// The sum beside it.
        expected: String,
        /// Its own.
        found: String,
    },
    /// The sum beside it cannot be read, or others could change it: it says nothing of what was built.
    #[error(transparent)]
    Sum(files::Error),
}

/// Logs the filter's SHA-256.
///
/// # Errors
/// If the filter is not the one that was built, or the sum beside it is of no use. A filter that cannot be read, as Envoy
/// alone may, is in the log and no more.
pub fn check(wasm: &Path) -> Result<(), Refused> {
    let wasm_path = wasm.display();
    let found = match sum_of(wasm) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%wasm_path, %error, "cannot read the filter");
            return Ok(());
        }
    };
    match compare(wasm, found).map_err(Refused::Sum)? {
        Found::Same(sha256) => {
            tracing::info!(%wasm_path, sha256, "the filter is the one that was built");
        }
        Found::WithoutSum(sha256) => {
            tracing::info!(%wasm_path, sha256, "the filter has no .sha256 beside it to compare with");
        }
        Found::Other { expected, found } => return Err(Refused::Other { expected, found }),
    }
    Ok(())
}

/// Compares the filter with the sum beside it.
///
/// # Errors
/// If one of them cannot be read, or others could change it.
pub fn look(wasm: &Path) -> Result<Found, files::Error> {
    compare(wasm, sum_of(wasm)?)
}

fn sum_of(wasm: &Path) -> Result<String, files::Error> {
    let missing = || io_error(wasm, "read it")(io::ErrorKind::NotFound.into());
    let bytes = read_owned(wasm, Readers::Anybody, MAX_FILTER_BYTES)?.ok_or_else(missing)?;
    Ok(hex(&Sha256::digest(&*bytes)))
}

/// Compares the sum that was `found` with the one beside the filter.
fn compare(wasm: &Path, found: String) -> Result<Found, files::Error> {
    let mut sum = wasm.as_os_str().to_owned();
    sum.push(".sha256");
    let Some(sum) = read_owned(Path::new(&sum), Readers::Anybody, MAX_SUM_BYTES)? else {
        return Ok(Found::WithoutSum(found));
    };
    let sum = String::from_utf8_lossy(&sum);
    let expected = sum.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(if expected == found {
        Found::Same(found)
    } else {
        Found::Other { expected, found }
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn another_filter_than_was_built_is_told() {
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let folder = tempfile::tempdir().unwrap();
        let (wasm, sum) = (
            folder.path().join("latchkey.wasm"),
            folder.path().join("latchkey.wasm.sha256"),
        );
        fs::write(&wasm, "abc").unwrap();
        assert_eq!(look(&wasm).unwrap(), Found::WithoutSum(ABC.to_owned()));
        fs::write(&sum, format!("{ABC}  latchkey.wasm\n")).unwrap();
        assert_eq!(look(&wasm).unwrap(), Found::Same(ABC.to_owned()));
        fs::write(&wasm, "abd").unwrap();
        assert!(matches!(look(&wasm).unwrap(), Found::Other { expected, .. } if expected == ABC));
        assert!(matches!(check(&wasm), Err(Refused::Other { .. })));
        // A sum that others could change, or that is none, says nothing of what was built.
        fs::write(&wasm, "abc").unwrap();
        check(&wasm).unwrap();
        fs::set_permissions(&sum, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(check(&wasm), Err(Refused::Sum(_))));
        fs::set_permissions(&sum, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&sum, "0".repeat(8192)).unwrap();
        assert!(matches!(check(&wasm), Err(Refused::Sum(_))));
        // What only Envoy may read is Envoy's to judge.
        fs::remove_file(&wasm).unwrap();
        check(&wasm).unwrap();
    }
}
