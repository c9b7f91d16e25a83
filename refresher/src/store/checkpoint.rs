//! Writes SQLite's log back into the database, beside those who write.
//!
//! Left to itself SQLite has that done by whoever commits when the log has grown (sqlite.org/wal.html §2.1), and that
//! commit then waits for the disk three times in place of once. New tokens, which exist nowhere else, must not.

use std::time::Duration;

use super::{Result, Store};

/// The pause between two checkpoints. The commit after one that got to the end begins the log anew, and waits for the
/// disk twice.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pages of the log, 4 KiB each, past which a commit writes it back after all: no daemon runs, or it falls behind.
/// SQLite's own default is 1,000.
pub(super) const MAX_LOG_PAGES: &str = "8192";

impl Store {
    /// Writes the log back again and again, until dropped. A failure is logged and looked past.
    pub async fn keep_log_short(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.write_log_back().await {
                tracing::warn!(%error, "cannot write the database's log back; it grows until a writer can");
            }
        }
    }

    /// As much as can be done while others read and write.
    pub(super) async fn write_log_back(&self) -> Result<()> {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
