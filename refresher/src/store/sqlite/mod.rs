//! SQLite's own part of the store: its file, its log, its one writer, and its way to notice other processes' changes.
//!
//! Everything else in `store` is SQL that PostgreSQL runs as well, over the types named here.

mod checkpoint;
pub(super) mod found;
pub(super) mod high_water;
pub(super) mod new_tokens;
pub(super) mod open;
mod watch;
mod words;
mod write_queue;

use sqlx::Transaction;

pub(super) use self::checkpoint::empty_log;
pub use self::high_water::{OlderCopy, SPENT, Spent, UNMARKED};
pub(super) use self::new_tokens::NewTokens;
pub(super) use self::words::in_words;
pub(super) use self::write_queue::{Turn, WriteQueue};
use crate::clock::UnixMillis;

/// The database that the store runs on.
pub(super) type Database = sqlx::Sqlite;
/// One connection to it.
pub(super) type Connection = sqlx::SqliteConnection;
/// Connections to it.
pub(super) type Pool = sqlx::SqlitePool;

/// Begins a transaction that writes. It has the write lock from its first moment, so that what it reads stays so until
/// it ends.
pub(super) async fn begin_change(pool: &Pool) -> sqlx::Result<Transaction<'static, Database>> {
    pool.begin_with("BEGIN IMMEDIATE").await
}

/// Begins a transaction that only reads: all its statements see one state.
pub(super) async fn begin_read(pool: &Pool) -> sqlx::Result<Transaction<'static, Database>> {
    pool.begin().await
}

/// Reads the database's clock. Claims end by this clock, whichever process looks at them.
pub(super) async fn now(connection: &mut Connection) -> sqlx::Result<UnixMillis> {
    let now = sqlx::query_scalar("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)");
    Ok(UnixMillis(now.fetch_one(connection).await?))
}
