//! Requests that each Envoy process let in, and how many of them are recorded.
//!
//! Both numbers come with batches of records and change in the transaction that takes the batch, so neither counts a
//! batch twice. Their difference is what is under way, and what died with the process before it was reported. A request
//! that began in the last second of a process is in neither number.

use latchkey::sync::records::Begun;
use sqlx::Row;

use super::{Change, Result, Store, signed, unsigned};
use crate::clock::UnixMillis;

/// The most processes that are remembered: a year of 10 restarts a day. The one that was heard of longest ago makes room.
pub(super) const MAX_ENVOYS: i64 = 4_096;
/// No sum goes further, so that none overflows.
const MAX_SUM: i64 = 1 << 60;

/// The requests of an Envoy process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyRequests {
    /// Names the process.
    pub instance: String,
    /// The node id that the operator gave the Envoy.
    pub node: Option<String>,
    /// Requests that the gate let in.
    pub begun: u64,
    /// Requests of which there is a record.
    pub recorded: u64,
}

impl EnvoyRequests {
    /// Counts requests that are under way or died with the process.
    pub fn unrecorded(&self) -> u64 {
        self.begun.saturating_sub(self.recorded)
    }
}

impl Store {
    /// Reads the requests of at most `most` Envoy processes that were heard of since `since`, the last heard first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn envoys(&self, since: UnixMillis, most: usize) -> Result<Vec<EnvoyRequests>> {
        let rows = sqlx::query(
            "SELECT instance, node, begun, recorded FROM envoys WHERE heard_at >= $1 \
             ORDER BY heard_at DESC, instance LIMIT $2",
        )
        .bind(since.0)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(EnvoyRequests {
                instance: row.try_get("instance")?,
                node: row.try_get("node")?,
                begun: unsigned("envoys.begun", row.try_get("begun")?)?,
                recorded: unsigned("envoys.recorded", row.try_get("recorded")?)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Forgets processes that were last heard of before `before`.
    pub(super) async fn prune_envoys(&self, before: i64) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query("DELETE FROM envoys WHERE heard_at < $1")
            .bind(before)
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}

impl Change<'_> {
    /// Adds what a batch says to the sums of its Envoy process.
    pub(super) async fn add_requests(
        &mut self,
        begun: &Begun,
        recorded: u64,
        now: UnixMillis,
    ) -> Result<()> {
        let added = sqlx::query(
            "UPDATE envoys SET begun = CASE WHEN begun < $5 THEN begun + $2 ELSE begun END, \
             recorded = CASE WHEN recorded < $5 THEN recorded + $3 ELSE recorded END, heard_at = $4 WHERE instance = $1",
        )
        .bind(&begun.instance)
        .bind(signed(begun.requests))
        .bind(signed(recorded))
        .bind(now.0)
        .bind(MAX_SUM)
        .execute(self.sql())
        .await?;
        if added.rows_affected() > 0 {
            return Ok(());
        }
        sqlx::query(
            "DELETE FROM envoys WHERE instance IN \
             (SELECT instance FROM envoys ORDER BY heard_at DESC, instance LIMIT $1 OFFSET $2)",
        )
        .bind(MAX_ENVOYS)
        .bind(MAX_ENVOYS - 1)
        .execute(self.sql())
        .await?;
        sqlx::query(
            "INSERT INTO envoys (instance, node, begun, recorded, heard_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&begun.instance)
        .bind(begun.node.as_ref().map(|node| node.as_str()))
        .bind(signed(begun.requests))
        .bind(signed(recorded))
        .bind(now.0)
        .execute(self.sql())
        .await?;
        Ok(())
    }
}
