//! Notices what other processes commit.

use std::time::Duration;

use crate::store::{Result, Store, head};

/// The pause between two looks for another process's change. Sync promises 100 ms.
const INTERVAL: Duration = Duration::from_millis(50);

impl Store {
    /// Looks for changes that other processes make, until dropped. A failure is logged and looked past.
    pub async fn watch(&self) {
        loop {
            if let Err(error) = self.watch_one_connection().await {
                tracing::warn!(%error, "cannot look for changes of other processes");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// `data_version` moves on this connection when another one commits (sqlite.org/pragma.html#pragma_data_version).
    async fn watch_one_connection(&self) -> Result<()> {
        let mut connection = self.pool.acquire().await?.detach();
        let mut seen = None;
        loop {
            let version: i64 = sqlx::query_scalar("PRAGMA data_version")
                .fetch_one(&mut connection)
                .await?;
            if seen.replace(version) != Some(version) {
                let (_, revision) = head(&mut connection).await?;
                self.announce(revision);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
