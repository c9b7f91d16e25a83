//! How the requests of Envoys' VMs stand, and those that were lost with a VM.

use latchkey::sync::tally::{Counts, Origin, Tally};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Change, Result, Store, signed, unsigned};
use crate::clock::UnixMillis;
use crate::lost::{Standing, Untold};

/// The most VMs that are remembered. When one more comes, one goes that has nothing to tell of, else the one that was
/// missed longest ago is added to those of before. Where all of them speak and have something to tell of, the new one is
/// not remembered.
pub(super) const MAX_VMS: i64 = 4_096;
/// The `instance` that VMs of before are added up in.
const EARLIER: &str = "";
/// The most that is added up there, so that sums stay in bounds.
const MAX_EARLIER: i64 = 1 << 60;
/// How long a VM that has nothing to tell of is remembered: longer than anything that it said may be on its way.
const IDLE_MS: i64 = 60 * 60 * 1000;

impl Store {
    /// Takes what a VM says of its requests. Returns how many of them had counted as lost and do no longer.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn hear(&self, tally: &Tally, now: UnixMillis) -> Result<u64> {
        let mut change = self.change().await?;
        let back = change.hear(tally, now).await?;
        change.commit().await?;
        Ok(back)
    }

    /// The VMs that have requests to tell of and do not count as gone.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn untold(&self) -> Result<Vec<Untold>> {
        let rows = sqlx::query(
            "SELECT instance, vm, node, number, heard_at, begun - told - dropped AS requests FROM vms \
             WHERE missed_at IS NULL AND begun > told + dropped",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(untold).collect()
    }

    /// Has a VM count as gone, unless it was heard of since. Whether it counts so now and did not before.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn miss(&self, silent: &Untold, now: UnixMillis) -> Result<bool> {
        let mut change = self.change().await?;
        let missed = sqlx::query(
            "UPDATE vms SET missed_at = ? \
             WHERE instance = ? AND vm = ? AND number = ? AND heard_at = ? AND missed_at IS NULL",
        )
        .bind(now.0)
        .bind(&silent.origin.instance)
        .bind(signed(silent.origin.vm))
        .bind(signed(silent.number))
        .bind(silent.heard_at.0)
        .execute(change.sql())
        .await?;
        change.commit().await?;
        Ok(missed.rows_affected() > 0)
    }

    /// How many requests were lost with VMs that were last heard of since `since`.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn lost(&self, since: UnixMillis) -> Result<u64> {
        let lost: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(max(begun - told - dropped, 0)), 0) FROM vms \
             WHERE missed_at IS NOT NULL AND heard_at >= ?",
        )
        .bind(since.0)
        .fetch_one(&self.pool)
        .await?;
        unsigned("vms.begun", lost)
    }

    /// Forgets VMs that have nothing to tell of any more, and those that were missed and last heard of before `before`.
    pub(super) async fn prune_vms(&self, before: i64, now: UnixMillis) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(
            "DELETE FROM vms WHERE (begun <= told + dropped AND heard_at < ?) \
             OR (missed_at IS NOT NULL AND heard_at < ?)",
        )
        .bind(now.0.saturating_sub(IDLE_MS))
        .bind(before)
        .execute(change.sql())
        .await?;
        change.commit().await
    }
}

impl Change<'_> {
    /// Takes what a VM says of its requests. Returns how many of them had counted as lost and do no longer.
    pub(super) async fn hear(&mut self, tally: &Tally, now: UnixMillis) -> Result<u64> {
        let known = sqlx::query(
            "SELECT number, begun, told, dropped, missed_at IS NOT NULL AS missed FROM vms WHERE instance = ? AND vm = ?",
        )
        .bind(&tally.origin.instance)
        .bind(signed(tally.origin.vm))
        .fetch_optional(self.sql())
        .await?;
        let mut back = 0;
        let standing = match known {
            Some(row) => {
                let mut standing = standing(&row)?;
                if row.try_get("missed")? {
                    back = standing.counts.pending();
                }
                standing.hear(tally);
                standing
            }
            None if self.has_room().await? => Standing::new(tally),
            None => return Ok(0),
        };
        let Counts {
            begun,
            told,
            dropped,
        } = standing.counts;
        sqlx::query(
            "INSERT INTO vms (instance, vm, node, number, begun, told, dropped, heard_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (instance, vm) DO UPDATE SET number = excluded.number, begun = excluded.begun, \
             told = excluded.told, dropped = excluded.dropped, heard_at = excluded.heard_at, missed_at = NULL",
        )
        .bind(&tally.origin.instance)
        .bind(signed(tally.origin.vm))
        .bind(tally.origin.node.as_ref().map(|node| node.as_str()))
        .bind(signed(standing.number))
        .bind(signed(begun))
        .bind(signed(told))
        .bind(signed(dropped))
        .bind(now.0)
        .execute(self.sql())
        .await?;
        Ok(back)
    }

    /// Makes room for one more VM; whether there is any.
    async fn has_room(&mut self) -> Result<bool> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM vms WHERE instance <> ?")
            .bind(EARLIER)
            .fetch_one(self.sql())
            .await?;
        if count < MAX_VMS {
            return Ok(true);
        }
        let gone = sqlx::query(
            "DELETE FROM vms WHERE (instance, vm) = (SELECT instance, vm FROM vms \
             WHERE (begun <= told + dropped OR missed_at IS NOT NULL) AND instance <> ? \
             ORDER BY begun > told + dropped, heard_at LIMIT 1) \
             RETURNING max(begun - told - dropped, 0), heard_at, missed_at",
        )
        .bind(EARLIER)
        .fetch_optional(self.sql())
        .await?;
        let Some(gone) = gone else {
            return Ok(false);
        };
        let (requests, heard_at): (i64, i64) = (gone.try_get(0)?, gone.try_get(1)?);
        if requests > 0 {
            sqlx::query(
                "INSERT INTO vms (instance, vm, number, begun, told, dropped, heard_at, missed_at) \
                 VALUES (?1, 0, 0, ?2, 0, 0, ?3, ?4) \
                 ON CONFLICT (instance, vm) DO UPDATE SET begun = min(begun + ?2, ?5), \
                 heard_at = max(heard_at, ?3)",
            )
            .bind(EARLIER)
            .bind(requests)
            .bind(heard_at)
            .bind(gone.try_get::<Option<i64>, _>(2)?)
            .bind(MAX_EARLIER)
            .execute(self.sql())
            .await?;
        }
        Ok(true)
    }
}

fn standing(row: &SqliteRow) -> Result<Standing> {
    let number = |column: &'static str| unsigned(column, row.try_get(column)?);
    Ok(Standing {
        number: number("number")?,
        counts: Counts {
            begun: number("begun")?,
            told: number("told")?,
            dropped: number("dropped")?,
        },
    })
}

fn untold(row: &SqliteRow) -> Result<Untold> {
    let number = |column: &'static str| unsigned(column, row.try_get(column)?);
    let node: Option<&str> = row.try_get("node")?;
    Ok(Untold {
        origin: Origin {
            instance: row.try_get("instance")?,
            vm: number("vm")?,
            node: node.and_then(|node| node.try_into().ok()),
        },
        number: number("number")?,
        heard_at: UnixMillis(row.try_get("heard_at")?),
        requests: number("requests")?,
    })
}
