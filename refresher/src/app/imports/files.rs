//! The files of an import, and the places in them that errors name.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Error, Part, Result};
use crate::fault::Fault;
use crate::files::owned::require_owned_text;
use crate::login::import::{self, Entry, FILE_LIMIT, recognise};
use crate::os_error::in_words;

/// The files of one import.
const FILES_LIMIT: usize = 1_000;

/// The files that are meant: each that was named, and in each folder those that end as credential files do.
pub(super) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let failed = |error: std::io::Error| {
            let why = in_words(&error);
            Error::in_file(
                path,
                Fault::Failed,
                format_args!("cannot read the folder: {why}"),
            )
        };
        let mut inside = Vec::new();
        for found in fs::read_dir(path).map_err(failed)? {
            let found = found.map_err(failed)?.path();
            let end = found.extension().and_then(|end| end.to_str());
            let fits = end.is_some_and(|end| {
                ["json", "csv"]
                    .iter()
                    .any(|one| end.eq_ignore_ascii_case(one))
            });
            if fits && !found.is_dir() {
                inside.push(found);
            }
            if inside.len() > FILES_LIMIT {
                break;
            }
        }
        if inside.is_empty() {
            let sentence = "expected a file here, or a folder with files that end in .json or .csv; found none";
            return Err(Error::in_file(path, Fault::Invalid, sentence));
        }
        inside.sort();
        all.extend(inside);
    }
    if all.len() > FILES_LIMIT {
        let sentence = format!("expected at most {FILES_LIMIT} files, found more");
        return Err(Error::new(Fault::Invalid, sentence));
    }
    Ok(all)
}

pub(super) fn entries(path: &Path) -> Result<Vec<Entry>> {
    // Who else writes the file would have our callers use a login of theirs.
    let text = require_owned_text(path, FILE_LIMIT).map_err(Error::of_handed_file)?;
    recognise(&text).map_err(|error| Error::in_file(path, fault(&error, error.platform()), error))
}

/// A file, and a place in it.
pub(super) fn place(path: &Path, at: &str) -> String {
    match at {
        "" => path.display().to_string(),
        at => format!("{}: {at}", path.display()),
    }
}

/// One problem is told as it is, and several together.
pub(super) fn refuse(mut problems: Vec<Part>) -> Result<()> {
    match problems.len() {
        0 => Ok(()),
        1 => problems.pop().map_or(Ok(()), |one| Err(one.error)),
        number => {
            let sentence = format!("{number} credentials cannot be taken over, so nothing was");
            Err(Error::of_parts(Fault::SeveralUnfit, sentence, problems))
        }
    }
}

/// The cure of what a file lacks is a login of our own, where the file is one of a login at all.
pub(super) fn fault(error: &import::Error, platform: Option<&str>) -> Fault {
    match error {
        import::Error::Unsupported { .. } | import::Error::UnknownMode => Fault::NoUsableLogin {
            platform: platform.map(str::to_owned),
        },
        _ => Fault::Invalid,
    }
}
