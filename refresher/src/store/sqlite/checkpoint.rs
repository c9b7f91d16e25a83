//! Writes SQLite's log back into the database, beside the writers.
//!
//! Left to itself SQLite writes back at the commit that finds the log grown (sqlite.org/wal.html §2.1). That commit then
//! waits for the disk three times in place of once. New tokens, which exist nowhere else, must not wait so.

use std::time::Duration;

use sqlx::sqlite::SqlitePool;

use crate::store::{Result, Store};

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
    pub(in crate::store) async fn write_log_back(&self) -> Result<()> {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Writes SQLite's log back and empties it. False if readers or writers held that up: it then happens by itself later.
pub(in crate::store) async fn empty_log(pool: &SqlitePool) -> Result<bool> {
    // The first column says whether it was held up, which is no error (sqlite.org/pragma.html#pragma_wal_checkpoint).
    let held_up: bool = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(pool)
        .await?;
    Ok(!held_up)
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqlitePoolOptions;

    use super::*;
    use crate::store::sqlite::open::options;

    #[tokio::test]
    async fn who_reads_meanwhile_keeps_the_log_from_being_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder.path().join("database"))
            .create_if_missing(true)
            .busy_timeout(Duration::from_millis(1));
        let pool = SqlitePoolOptions::new()
            .connect_with(options)
            .await
            .unwrap();
        let run = async |sql| sqlx::query(sql).execute(&pool).await.unwrap();
        run("CREATE TABLE t (x)").await;
        assert!(empty_log(&pool).await.unwrap());
        let mut reader = pool.begin().await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM t")
            .fetch_one(&mut *reader)
            .await
            .unwrap();
        assert_eq!(rows, 0);
        run("INSERT INTO t VALUES (1)").await;
        assert!(!empty_log(&pool).await.unwrap());
        reader.rollback().await.unwrap();
        assert!(empty_log(&pool).await.unwrap());
    }
}
