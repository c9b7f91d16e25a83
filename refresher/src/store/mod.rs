//! Everything that outlives the process: accounts, pools, client keys and their revisions, in one SQLite file.
//!
//! Each method is one transaction, on disk when it returns. Each change of a record takes the next *revision* in the
//! same transaction, so that a delta is "every record whose revision is larger than yours". Credentials are sealed
//! before they get here and opened after; SQL never sees one.

mod accounts;
mod checkpoint;
mod client_keys;
mod envoys;
mod error;
mod health;
mod high_water;
mod keys;
mod ledger;
mod limits;
mod new_tokens;
mod open;
mod pools;
mod requests;
mod rotate;
mod snapshot;
mod write_queue;

use std::sync::Arc;
use std::time::Duration;

use latchkey::snapshot::page::Epoch;
use sqlx::sqlite::SqlitePool;
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

pub use self::accounts::{Account, NewAccount, Saved, Status};
pub use self::client_keys::{ClientKey, KeyChange, NewClientKey};
pub use self::envoys::EnvoyRequests;
pub use self::error::{Error, Result};
pub use self::health::{Health, Noticed};
pub use self::high_water::UNMARKED;
use self::keys::Keys;
pub use self::limits::{DayCount, LimitChanges, LimitSettings, Terms};
use self::new_tokens::NewTokens;
pub use self::pools::{Member as PoolMember, Pool};
pub use self::requests::{BatchId, By, Sums, Taken};
pub use self::rotate::{Refused, Rotation, Step};
pub use self::snapshot::{SnapshotPage, cluster_name};
use self::write_queue::{Turn, WriteQueue};
use crate::credential::Credential;
use crate::keys::seal::{Binding, KeyId};

/// The pool that every account joins.
pub const DEFAULT_POOL: &str = "default";
/// How often a change that another process made is looked for. Sync promises 100 ms.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// The store. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    keys: Arc<Keys>,
    writers: Arc<WriteQueue>,
    new_tokens: Arc<NewTokens>,
    revision: Arc<watch::Sender<u64>>,
}

impl Store {
    /// The revision as it moves, by this process at once, by others while [`Store::watch`] runs.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The history and the revision now.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn head(&self) -> Result<(Epoch, u64)> {
        head(&mut *self.pool.acquire().await?).await
    }

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
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    fn announce(&self, revision: u64) {
        self.revision.send_if_modified(|seen| {
            let moved = *seen < revision;
            *seen = revision.max(*seen);
            moved
        });
    }

    /// Begins a change. It holds the write lock until it is committed or dropped.
    async fn change(&self) -> Result<Change<'_>> {
        self.begin(self.writers.ordinary().await).await
    }

    async fn begin<'s>(&'s self, turn: Turn<'s>) -> Result<Change<'s>> {
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Change {
            store: self,
            transaction,
            revision: None,
            _turn: turn,
        })
    }

    /// Opens the sealed credential of an account's generation.
    fn open_credential(&self, id: &str, generation: u64, sealed: &[u8]) -> Result<Credential> {
        let binding = Binding {
            record: id,
            generation,
        };
        let plaintext = self.keys.open(binding, sealed)?;
        Credential::from_plaintext(&plaintext).ok_or_else(|| Error::Corrupt {
            column: "accounts.credential",
            found: "no credential".to_owned(),
        })
    }

    /// Lets go of the file, so that SQLite writes its log back into it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A transaction that changes records.
struct Change<'s> {
    store: &'s Store,
    transaction: Transaction<'static, Sqlite>,
    revision: Option<u64>,
    /// Dropped last: the transaction has ended then.
    _turn: Turn<'s>,
}

impl Change<'_> {
    fn sql(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// The revision that the next changed record takes.
    async fn next_revision(&mut self) -> Result<i64> {
        let next: i64 =
            sqlx::query_scalar("UPDATE meta SET revision = revision + 1 RETURNING revision")
                .fetch_one(self.sql())
                .await?;
        self.revision = Some(unsigned("meta.revision", next)?);
        Ok(next)
    }

    /// Seals an account's credential for `generation`.
    async fn seal(
        &mut self,
        id: &str,
        generation: u64,
        credential: &Credential,
    ) -> Result<Vec<u8>> {
        let binding = Binding {
            record: id,
            generation,
        };
        self.seal_bytes(binding, &credential.to_plaintext()).await
    }

    /// Seals with the key that the database names, and counts it. Nobody can change over to another key meanwhile, so
    /// nothing is sealed with a key that is on its way out.
    async fn seal_bytes(&mut self, binding: Binding<'_>, plaintext: &[u8]) -> Result<Vec<u8>> {
        let (key, seals): (Vec<u8>, i64) = sqlx::query_as(
            "UPDATE sealing_keys SET seals = seals + 1 WHERE id = (SELECT sealing_key FROM meta) \
             RETURNING id, seals - 1",
        )
        .fetch_one(self.sql())
        .await?;
        let seals = unsigned("sealing_keys.seals", seals)?;
        let key = key_id(&key)?;
        self.store.keys.seal(key, binding, plaintext, seals)
    }

    /// Puts the change on disk, then tells who waits for it.
    async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        if let Some(revision) = self.revision {
            self.store.announce(revision);
        }
        Ok(())
    }
}

async fn head(connection: &mut SqliteConnection) -> Result<(Epoch, u64)> {
    let row = sqlx::query("SELECT epoch, revision FROM meta")
        .fetch_one(connection)
        .await?;
    let epoch: Vec<u8> = row.try_get("epoch")?;
    let epoch = epoch
        .try_into()
        .map_err(|_| corrupt("meta.epoch", "another length than 16 bytes"))?;
    Ok((
        Epoch::from_bytes(epoch),
        unsigned("meta.revision", row.try_get("revision")?)?,
    ))
}

fn key_id(bytes: &[u8]) -> Result<KeyId> {
    KeyId::from_bytes(bytes)
        .ok_or_else(|| corrupt("sealing_keys.id", "another length than 4 bytes"))
}

fn corrupt(column: &'static str, found: impl Into<String>) -> Error {
    Error::Corrupt {
        column,
        found: found.into(),
    }
}

/// SQLite has no unsigned integers.
fn unsigned(column: &'static str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| corrupt(column, value.to_string()))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
