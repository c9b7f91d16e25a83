//! Accounts that are removed. Of every record that is gone a tombstone is kept, which tells Envoys.

use super::unknown;
use crate::id::AccountId;
use crate::store::sql;
use crate::store::{Change, Result, Store};

sql::statements! {
    DELETE = "DELETE FROM accounts WHERE id = $1";
    POOLS_OF = "SELECT pool FROM pool_members WHERE account = $1";
    BURY = "INSERT INTO tombstones (kind, id, revision) VALUES ($1, $2, $3) \
            ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision";
}

impl Store {
    /// Deletes an account with its credential.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn remove_account(&self, id: &AccountId) -> Result<()> {
        let mut change = self.change().await?;
        touch_pools_of(&mut change, id).await?;
        let deleted = sqlx::query(DELETE)
            .bind(id.as_str())
            .execute(change.sql())
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(unknown(id.as_str()));
        }
        change.bury("account", id.as_str()).await?;
        change.commit().await
    }
}

impl Change<'_> {
    /// Notes that a record is gone.
    pub(in crate::store) async fn bury(&mut self, kind: &'static str, id: &str) -> Result<()> {
        let revision = self.next_revision().await?;
        sqlx::query(BURY)
            .bind(kind)
            .bind(id)
            .bind(revision)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}

/// Gives each pool that the account is in a new revision.
pub(super) async fn touch_pools_of(change: &mut Change<'_>, id: &AccountId) -> Result<()> {
    let pools: Vec<String> = sqlx::query_scalar(POOLS_OF)
        .bind(id.as_str())
        .fetch_all(change.sql())
        .await?;
    for pool in pools {
        change.touch_pool(&pool).await?;
    }
    Ok(())
}
