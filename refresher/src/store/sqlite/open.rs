//! Opens the database, or makes it. Refuses a file that is not a whole database of ours, and leaves it alone.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::checkpoint::{MAX_LOG_PAGES, empty_log};
use super::{found, high_water, now};
use crate::clock::UnixMillis;
use crate::files::{self, require_private_file};
use crate::keys::KeySource;
use crate::keys::seal::Keyring;
use crate::state::StateDir;
use crate::store::keys::{EARLIER_KEY_CHECK, KEY_CHECK, Keys};
use crate::store::{Error, Result, Store, head, sql};

/// The forms that the tables have had, and this release's.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
/// `LTCH`: marks a SQLite file as ours (sqlite.org/pragma.html#pragma_application_id); set by the first migration.
const APPLICATION_ID: i64 = 0x4C54_4348;
/// The first bytes of every SQLite file (sqlite.org/fileformat.html §1.3).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The longest wait of a writer for another process's transaction, which is at most a page of SQL.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for a refresh that an earlier release has begun: most are over sooner. Its claim may last a minute.
const REFRESH_WAIT: Duration = Duration::from_secs(10);
/// The pause between two looks at it.
const REFRESH_LOOK: Duration = Duration::from_millis(200);
/// Readers beside the one writer that SQLite allows.
const MAX_CONNECTIONS: u32 = 8;
/// Reads the sealed [`KEY_CHECK`]; no row where the database was not finished when it was made.
const READ_KEY_CHECK: &str = "SELECT key_check FROM meta";

sql::statements! {
    LAST_CLAIM = "SELECT max(claim_until) FROM accounts WHERE claim_until > $1";
}

impl Store {
    /// Opens the database of `state`, making it, and a key in `source`, if there is none. Hold
    /// [`StateDir::lock_setup`] meanwhile.
    ///
    /// # Errors
    /// If the file is not ours, not whole, sealed with another key, or within reach of others. It is then unchanged.
    pub async fn open(state: &StateDir, source: KeySource) -> Result<Store> {
        Store::open_as(state, source, As::Owner(REFRESH_WAIT)).await
    }

    /// [`Store::open`] of a database that is there and of this release, and is left as it is.
    ///
    /// # Errors
    /// As there, or if an earlier release made it.
    pub async fn open_to_look(state: &StateDir, source: KeySource) -> Result<Store> {
        Store::open_as(state, source, As::Onlooker).await
    }

    /// [`Store::open`] that waits no longer than that for refreshes of an earlier release.
    #[cfg(test)]
    pub(in crate::store) async fn open_within(
        state: &StateDir,
        source: KeySource,
        patience: Duration,
    ) -> Result<Store> {
        Store::open_as(state, source, As::Owner(patience)).await
    }

    async fn open_as(state: &StateDir, source: KeySource, who: As) -> Result<Store> {
        let path = state.database();
        let exists = path.symlink_metadata().is_ok();
        if !exists && (matches!(who, As::Onlooker) || high_water::is_marked(state)) {
            return Err(Error::Lost { path });
        }
        let keyring = source.load_or_make(!exists)?;
        let mut is_sealed = true;
        if exists {
            require_private_file(&path)?;
            check_magic(&path)?;
            let found = check_contents(&path, &keyring).await?;
            if found.is_older() && state.is_served() {
                return Err(Error::OlderServes { path });
            }
            match who {
                As::Owner(patience) if found.is_older() => {
                    wait_for_refreshes(&path, patience).await?;
                }
                As::Onlooker if found.is_older() => return Err(Error::Older { path }),
                _ => {}
            }
            is_sealed = found.is_sealed;
        } else {
            make(&path, &keyring).await?;
        }
        let pool = connections(MAX_CONNECTIONS)
            .connect_with(options(&path))
            .await?;
        migrate(&pool, &path).await?;
        let (_, revision) = head(&mut *pool.acquire().await?).await?;
        let store = Store {
            pool,
            keys: Arc::new(Keys::new(source, keyring)),
            writers: Arc::default(),
            new_tokens: Arc::default(),
            left_out: Arc::default(),
            revision: Arc::new(watch::Sender::new(revision)),
        };
        if !is_sealed {
            store.seal_everything().await?;
        }
        Ok(store)
    }
}

/// A caller who opens a database.
enum As {
    /// Somebody who makes it, or changes it to this release's form, waiting so long for refreshes of an earlier one.
    Owner(Duration),
    /// Somebody who changes nothing of it.
    Onlooker,
}

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        // Records as old keys sealed them, and credentials of old logins, do not stay in unused parts of the file.
        .pragma("secure_delete", "ON")
        .pragma("wal_autocheckpoint", MAX_LOG_PAGES)
        .disable_statement_logging()
}

/// At most so many connections, none of which is used again once it does not know that its transaction is over.
///
/// On a full disk SQLite ends a transaction by itself. The rollback that follows fails then, and sqlx counts that
/// transaction for good: no other one would begin on that connection.
fn connections(most: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(most)
        .after_release(|connection, _| {
            Box::pin(async move {
                // The rollback is under way; this answers once it has ended.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

/// Makes a new database beside its place and moves it there when it is whole, so that a kill leaves none.
async fn make(path: &Path, keyring: &Keyring) -> Result<()> {
    let unfinished = path.with_extension("new");
    for leftover in ["new", "new-journal", "new-wal", "new-shm"] {
        let leftover = &path.with_extension(leftover);
        match fs::remove_file(leftover) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(
                    files::io_error(leftover, "remove what an earlier start left")(error).into(),
                );
            }
            _ => {}
        }
    }
    // In the journal mode that it keeps: a change of it, cut short, needs a repair that a reader cannot make.
    let options = options(&unfinished).create_if_missing(true);
    let pool = connections(1).connect_with(options).await?;
    migrate(&pool, path).await?;
    found::fill(&pool, keyring).await?;
    // The file is moved without its log, and closing says nothing of what it could not write back.
    if !empty_log(&pool).await? {
        return Err(Error::LogInUse { path: unfinished });
    }
    pool.close().await;
    fs::rename(&unfinished, path).map_err(files::io_error(path, "put the new database here"))?;
    Ok(files::sync_parent(path)?)
}

fn not_ours(path: &Path, found: impl Into<String>) -> Error {
    Error::NotOurs {
        path: path.to_owned(),
        found: found.into(),
    }
}

fn check_magic(path: &Path) -> Result<()> {
    let mut magic = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut magic));
    read.map_err(files::io_error(path, "read it"))?;
    match magic.as_slice() {
        [] => Err(not_ours(
            path,
            "expected a SQLite database, found an empty file",
        )),
        magic if magic == SQLITE_MAGIC => Ok(()),
        _ => Err(not_ours(
            path,
            "expected a SQLite database, found something else",
        )),
    }
}

/// Waits until no refresh can be under way that an earlier release began: one that finds other tables when its answer
/// comes could not save the new tokens, and the old ones are spent.
async fn wait_for_refreshes(path: &Path, patience: Duration) -> Result<()> {
    let mut connection = look_at(path).await?;
    let started = Instant::now();
    let outcome = loop {
        let now = now(&mut connection).await?;
        let until: Option<UnixMillis> = sqlx::query_scalar(LAST_CLAIM)
            .bind(now)
            .fetch_one(&mut connection)
            .await?;
        match until {
            None => break Ok(()),
            Some(until) if started.elapsed() >= patience => {
                let path = path.to_owned();
                break Err(Error::RefreshUnderWay { path, until });
            }
            Some(_) => sleep(REFRESH_LOOK).await,
        }
    };
    connection.close().await?;
    outcome
}

/// A connection that cannot write.
async fn look_at(path: &Path) -> sqlx::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT);
    options.disable_statement_logging().connect().await
}

/// The facts of an existing database.
#[derive(Debug)]
struct Found {
    /// The last migration that it had.
    migration: i64,
    /// All is sealed in it as this release seals.
    is_sealed: bool,
}

impl Found {
    /// True if an earlier release made it and no later one has opened it yet.
    fn is_older(&self) -> bool {
        let last = MIGRATIONS.iter().map(|one| one.version).max();
        !self.is_sealed || last.is_some_and(|last| self.migration < last)
    }
}

/// Looks at an existing database over a connection that cannot write.
async fn check_contents(path: &Path, keyring: &Keyring) -> Result<Found> {
    let unreadable = |error: sqlx::Error| match error {
        sqlx::Error::Database(error) => {
            tracing::debug!(%error, "SQLite cannot read it");
            not_ours(path, "it is damaged, or no database at all")
        }
        error => Error::Database(error),
    };
    let mut connection = look_at(path).await.map_err(unreadable)?;
    let checked = check_tables(&mut connection, path, keyring).await;
    connection.close().await?;
    checked.map_err(|error| match error {
        Error::Database(error) => unreadable(error),
        error => error,
    })
}

async fn check_tables(
    connection: &mut SqliteConnection,
    path: &Path,
    keyring: &Keyring,
) -> Result<Found> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await?;
    if application != APPLICATION_ID {
        return Err(not_ours(
            path,
            "it is a SQLite database, but not Latchkey's",
        ));
    }
    let damage: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await?;
    if damage != "ok" {
        tracing::debug!(damage, "SQLite's quick check");
        return Err(not_ours(path, "it is damaged"));
    }
    let sealed: Option<Vec<u8>> = sqlx::query_scalar(READ_KEY_CHECK)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(sealed) = sealed else {
        return Err(not_ours(path, "it was not finished when it was made"));
    };
    let (text, binding) = KEY_CHECK;
    let opened = keyring.open(binding, &sealed);
    let opened = opened.or_else(|_| keyring.open_first_format(binding, &sealed));
    let is_sealed = match opened.as_ref().map(|opened| &opened[..]) {
        Ok(found) if found == text => true,
        Ok(EARLIER_KEY_CHECK) => false,
        _ => {
            return Err(Error::WrongKey {
                path: path.to_owned(),
            });
        }
    };
    let migration: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
            .fetch_one(&mut *connection)
            .await?;
    Ok(Found {
        migration,
        is_sealed,
    })
}

async fn migrate(pool: &SqlitePool, path: &Path) -> Result<()> {
    MIGRATIONS.run(pool).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => Error::Database(error),
        error => Error::Schema {
            path: path.to_owned(),
            found: error.to_string(),
        },
    })
}
