//! The failures of SQLite in words, by its result codes.

use crate::os_error;

/// The words for a failure that comes of other tables, or of what stands in them.
const FOREIGN: &str =
    "its tables are not as this release makes and fills them; something else has changed it";

/// The words for a failure that nobody expects.
const UNKNOWN: &str =
    "it failed in a way that this release does not know; the log has SQLite's own words";

/// A failure of the database for people. SQLite's own words and numbers go to the log.
pub fn in_words(error: &sqlx::Error) -> String {
    let sqlx::Error::Database(failure) = error else {
        return match error {
            sqlx::Error::PoolTimedOut => "too much waits for it".to_owned(),
            sqlx::Error::Io(error) => os_error::in_words(error),
            sqlx::Error::PoolClosed => "it was closed meanwhile".to_owned(),
            sqlx::Error::WorkerCrashed => {
                "what reads it has ended; start this program anew".to_owned()
            }
            sqlx::Error::RowNotFound
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Migrate(_) => FOREIGN.to_owned(),
            error => {
                tracing::warn!(%error, "the database failed");
                UNKNOWN.to_owned()
            }
        };
    };
    tracing::debug!(%error, "the database failed");
    // The low byte is the kind of failure (sqlite.org/rescode.html).
    let code = failure.code().and_then(|code| code.parse::<u32>().ok());
    let words = match code.map(|code| code & 0xff) {
        // No statement of ours fails so on tables of ours.
        Some(1 | 17 | 19 | 20 | 24 | 25) => FOREIGN,
        Some(3 | 23) => "this user is not allowed to",
        Some(7) => "there is no memory left",
        Some(15) => "its locks do not work on this file system; it belongs on a local disk",
        Some(18) => "a record would be too large",
        Some(22) => "the file would be larger than this file system allows",
        Some(5 | 6) => "another program holds it",
        Some(8) => "it cannot be written: its file, or the disk, is read-only",
        Some(10) => "the disk cannot be read or written",
        Some(11) => "it is damaged",
        Some(13) => "the disk is full",
        Some(14) => "its file cannot be opened",
        Some(26) => "its file is no database",
        _ => {
            tracing::warn!(%error, "the database failed");
            UNKNOWN
        }
    };
    words.to_owned()
}
