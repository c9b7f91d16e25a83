//! Errors of the platforms' files.

use std::path::PathBuf;

use super::Invalid;
use crate::files;
use crate::os_error::in_words;
use crate::toml_place::Place;

/// The reason why the platforms cannot be loaded, or one of them cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be read.
    #[error(
        "{}: cannot read the folder: {}",
        path.display(), in_words(source)
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's own words.
        source: std::io::Error,
    },
    /// The folder or a file in it cannot be read, or is not the owner's alone to write.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The file is not TOML.
    #[error("{}:{place}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        place: Place,
    },
    /// A value does not fit.
    #[error("{}{}: {source}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line of the value, or of what it should be in; none for what the file does not say at all.
        line: Option<usize>,
        /// The key, and what is wrong.
        source: Invalid,
    },
    /// No such platform.
    #[error("there is no platform {id:?}; there are: {known}")]
    Unknown {
        /// The id that was asked for.
        id: String,
        /// The ids that there are.
        known: String,
    },
    /// Its terms were not acknowledged.
    #[error("platform {id} is off until you have read this notice:\n\n{terms}")]
    TermsNotAcknowledged {
        /// The platform.
        id: String,
        /// Its notice.
        terms: String,
    },
}
