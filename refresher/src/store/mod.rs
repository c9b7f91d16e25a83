//! Everything that outlives the process: accounts, pools, client keys, their revisions, and what requests used.
//!
//! Each method is one transaction, on disk when it returns. Each change of a record takes the next *revision* in the
//! same transaction, so that a delta is "every record whose revision is larger than yours". Credentials are sealed
//! before SQL sees them. What is SQLite's own is in `sqlite/`; the rest is SQL that PostgreSQL runs as well (`sql.rs`).

mod accounts;
mod batch;
mod client_keys;
mod egress;
mod envoys;
mod error;
mod health;
mod homes;
mod keys;
mod ledger;
mod left_out;
mod limits;
mod login_ends;
mod logout;
mod pools;
mod probes;
mod publish;
mod quotas;
mod requests;
mod rotate;
mod rows;
mod rules;
mod snapshot;
mod sql;
mod sqlite;
mod switches;

use std::sync::Arc;

use latchkey::snapshot::page::Epoch;
use rand::RngCore;
use sqlx::Transaction;
use tokio::sync::watch;

pub use self::accounts::saving::{NewAccount, Saved};
pub use self::accounts::settings::AccountChanges;
pub use self::accounts::{Account, Known, Status, Vars};
pub use self::batch::Member;
pub use self::client_keys::{ClientKey, KeyChange, NewClientKey};
pub use self::envoys::EnvoyRequests;
pub use self::error::{Error, NotRotated, Result, Unfit};
pub use self::health::{Health, Met, Noticed, is_suspected};
pub use self::homes::Home;
use self::keys::Keys;
pub use self::left_out::LeftOut;
pub use self::limits::{DayCount, LimitChanges, Terms};
pub use self::logout::{LOGGED_OUT, TakenOut};
pub use self::pools::{Member as PoolMember, Pool};
pub use self::probes::{Due, MayAsk, Probing};
pub use self::quotas::{Askable, Asked, Asking};
pub use self::requests::{BatchId, By, Sums, Taken};
pub use self::rotate::{Retired, Rotation, Step};
pub use self::rules::{DemandChange, RuleChange, Rules};
pub use self::snapshot::{Outgoing, SnapshotPage};
use self::sql::signed;
use self::sqlite::{Connection, Database, NewTokens, Pool as Connections, Turn, WriteQueue};
pub use self::sqlite::{OlderCopy, SPENT, Spent, UNMARKED};
use crate::credential::Credential;
use crate::keys::seal::{Binding, KeyId};

/// The pool that every account joins.
pub const DEFAULT_POOL: &str = "default";

sql::statements! {
    HEAD = "SELECT epoch, revision FROM meta";
    NEW_EPOCH = "UPDATE meta SET epoch = $1";
    /// Locks the row of `meta` until the change ends, so that revisions become visible in their order.
    NEXT_REVISION = "UPDATE meta SET revision = revision + 1 RETURNING revision";
    COUNT_SEAL = "UPDATE sealing_keys SET seals = seals + 1 WHERE id = (SELECT sealing_key FROM meta) \
                  RETURNING id, seals - 1";
}

/// The store. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Connections,
    keys: Arc<Keys>,
    writers: Arc<WriteQueue>,
    new_tokens: Arc<NewTokens>,
    left_out: Arc<left_out::Known>,
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
    /// If the database fails.
    pub async fn head(&self) -> Result<(Epoch, u64)> {
        head(&mut *self.pool.acquire().await?).await
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
        let transaction = sqlite::begin_change(&self.pool).await?;
        Ok(Change {
            store: self,
            transaction,
            revision: None,
            _turn: turn,
        })
    }

    /// Opens a sealed credential.
    fn open_credential(&self, binding: Binding<'_>, sealed: &[u8]) -> Result<Credential> {
        let plaintext = self.keys.open(binding, sealed)?;
        Credential::from_plaintext(&plaintext).ok_or_else(|| Error::Corrupt {
            column: "accounts.credential".to_owned(),
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
    transaction: Transaction<'static, Database>,
    revision: Option<u64>,
    /// Dropped last: the transaction has ended then.
    _turn: Turn<'s>,
}

impl Change<'_> {
    fn sql(&mut self) -> &mut Connection {
        &mut self.transaction
    }

    /// The revision that the next changed record takes.
    async fn next_revision(&mut self) -> Result<i64> {
        let next: i64 = sqlx::query_scalar(NEXT_REVISION)
            .fetch_one(self.sql())
            .await?;
        self.revision = Some(unsigned("meta.revision", next)?);
        Ok(next)
    }

    /// Begins a new history: whoever polls gets everything anew.
    async fn new_epoch(&mut self) -> Result<()> {
        let mut epoch = [0; 16];
        rand::rng().fill_bytes(&mut epoch);
        let set = sqlx::query(NEW_EPOCH).bind(&epoch[..]);
        set.execute(self.sql()).await?;
        Ok(())
    }

    /// Seals the credential of an account for `generation`, for `platform` or its own `base_url` there.
    async fn seal(
        &mut self,
        id: &str,
        generation: u64,
        platform: &str,
        base_url: Option<&str>,
        credential: &Credential,
    ) -> Result<Vec<u8>> {
        let binding = Binding {
            record: id,
            generation,
            platform,
            kind: credential.kind().as_str(),
            base_url,
        };
        self.seal_bytes(binding, &credential.to_plaintext()).await
    }

    /// Seals with the key that the database names, and counts it. Nobody can change over to another key meanwhile, so
    /// nothing is sealed with a key that is on its way out.
    async fn seal_bytes(&mut self, binding: Binding<'_>, plaintext: &[u8]) -> Result<Vec<u8>> {
        let (key, seals): (Vec<u8>, i64) = sqlx::query_as(COUNT_SEAL).fetch_one(self.sql()).await?;
        let seals = unsigned("sealing_keys.seals", seals)?;
        let key = key_id(&key)?;
        self.store.keys.seal(key, binding, plaintext, seals)
    }

    /// Puts the change on disk, then wakes those who wait for a revision.
    async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        if let Some(revision) = self.revision {
            self.store.announce(revision);
        }
        Ok(())
    }
}

async fn head(connection: &mut Connection) -> Result<(Epoch, u64)> {
    let (epoch, revision): (Vec<u8>, i64) = sqlx::query_as(HEAD).fetch_one(connection).await?;
    let epoch = epoch
        .try_into()
        .map_err(|_| corrupt("meta.epoch", "another length than 16 bytes"))?;
    Ok((
        Epoch::from_bytes(epoch),
        unsigned("meta.revision", revision)?,
    ))
}

fn key_id(bytes: &[u8]) -> Result<KeyId> {
    KeyId::from_bytes(bytes)
        .ok_or_else(|| corrupt("sealing_keys.id", "another length than 4 bytes"))
}

fn corrupt(column: &'static str, found: impl Into<String>) -> Error {
    Error::Corrupt {
        column: column.to_owned(),
        found: found.into(),
    }
}

/// A number that a database holds as a signed one.
fn unsigned(column: &'static str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| corrupt(column, value.to_string()))
}

#[cfg(test)]
mod tests;
