//! Homes: which account made a thing that requests name later (`latchkey::home`). They come with records, in the
//! transaction that takes those, and are looked up by an Envoy that does not know one.

use latchkey::home::{Made, ThingHash};
use latchkey::id::Id;

use super::sql::{self, signed};
use super::{Change, Result, Store};
use crate::clock::UnixMillis;

/// The most homes that are kept: some 100 MiB. Those whose things the platforms forget first make room.
pub(super) const MAX_HOMES: i64 = 1_000_000;
/// The rows that one transaction of a pruning takes away.
const PRUNE_ROWS: i64 = 5_000;

sql::statements! {
    KEEP = "INSERT INTO homes (thing, account, until) VALUES ($1, $2, $3) ON CONFLICT (thing) DO UPDATE \
            SET until = excluded.until WHERE homes.account = excluded.account";
    FIND = "SELECT account FROM homes WHERE thing = $1 AND until > $2";
    /// Those that are over, and those before the last so many.
    PRUNE = "DELETE FROM homes WHERE thing IN (SELECT thing FROM homes WHERE until <= $1 \
             OR until < coalesce((SELECT until FROM homes ORDER BY until DESC LIMIT 1 OFFSET $2), 0) LIMIT $3)";
}

impl Store {
    /// Finds the account that made `thing`, if that is known.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn home(&self, thing: &ThingHash, now: UnixMillis) -> Result<Option<String>> {
        let query = sqlx::query_scalar(FIND).bind(&thing.bytes()[..]).bind(now);
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// Forgets what the platforms have forgotten, and what is too much.
    pub(super) async fn prune_homes(&self, now: UnixMillis) -> Result<()> {
        loop {
            let mut change = self.change().await?;
            let pruned = sqlx::query(PRUNE)
                .bind(now)
                .bind(MAX_HOMES)
                .bind(PRUNE_ROWS)
                .execute(change.sql())
                .await?
                .rows_affected();
            change.commit().await?;
            if pruned < PRUNE_ROWS.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

impl Change<'_> {
    /// Keeps what requests made. The first account that is told of a thing stays its home.
    pub(super) async fn keep_homes<'r>(
        &mut self,
        made: impl Iterator<Item = (&'r Id, &'r Made)>,
    ) -> Result<()> {
        for (account, made) in made {
            sqlx::query(KEEP)
                .bind(&made.thing.bytes()[..])
                .bind(account.as_str())
                .bind(signed(made.until))
                .execute(self.sql())
                .await?;
        }
        Ok(())
    }
}
