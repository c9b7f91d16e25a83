//! Requests that each Envoy process let in, and how many of them are recorded.
//!
//! Both numbers come with batches of records and change in the transaction that takes the batch, so neither counts a
//! batch twice. Their difference is what is under way, and what died with the process before it was reported. A request
//! that began in the last second of a process is in neither number.

use latchkey::sync::records::Begun;

use super::sql::{self, signed};
use super::{Change, Result, Store};
use crate::clock::UnixMillis;

/// The most processes that are remembered: a year of 10 restarts a day. The one that was heard of longest ago makes room.
pub(super) const MAX_ENVOYS: i64 = 4_096;
/// No sum goes further, so that none overflows.
const MAX_SUM: i64 = 1 << 60;

sql::statements! {
    HEARD = "SELECT instance, node, begun, recorded FROM envoys WHERE heard_at >= $1 \
             ORDER BY heard_at DESC, instance LIMIT $2";
    PRUNE = "DELETE FROM envoys WHERE heard_at < $1";
    ADD = "UPDATE envoys SET begun = CASE WHEN begun < $5 THEN begun + $2 ELSE begun END, \
           recorded = CASE WHEN recorded < $5 THEN recorded + $3 ELSE recorded END, heard_at = $4 WHERE instance = $1";
    MAKE_ROOM = "DELETE FROM envoys WHERE instance IN \
                 (SELECT instance FROM envoys ORDER BY heard_at DESC, instance LIMIT $1 OFFSET $2)";
    BEGIN = "INSERT INTO envoys (instance, node, begun, recorded, heard_at) VALUES ($1, $2, $3, $4, $5)";
}

/// The requests of an Envoy process.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EnvoyRequests {
    /// Names the process.
    pub instance: String,
    /// The node id that the operator gave the Envoy.
    pub node: Option<String>,
    /// Requests that the gate let in.
    #[sqlx(try_from = "i64")]
    pub begun: u64,
    /// Requests of which there is a record.
    #[sqlx(try_from = "i64")]
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
        let heard = sqlx::query_as(HEARD)
            .bind(since)
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        Ok(heard.fetch_all(&self.pool).await?)
    }

    /// Forgets processes that were last heard of before `before`.
    pub(super) async fn prune_envoys(&self, before: i64) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(PRUNE)
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
        let added = sqlx::query(ADD)
            .bind(&begun.instance)
            .bind(signed(begun.requests))
            .bind(signed(recorded))
            .bind(now)
            .bind(MAX_SUM)
            .execute(self.sql())
            .await?;
        if added.rows_affected() > 0 {
            return Ok(());
        }
        sqlx::query(MAKE_ROOM)
            .bind(MAX_ENVOYS)
            .bind(MAX_ENVOYS - 1)
            .execute(self.sql())
            .await?;
        sqlx::query(BEGIN)
            .bind(&begun.instance)
            .bind(begun.node.as_ref().map(|node| node.as_str()))
            .bind(signed(begun.requests))
            .bind(signed(recorded))
            .bind(now)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
