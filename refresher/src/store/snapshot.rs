//! The snapshot as the store holds it: which records changed after a revision, and the page that says so.

use std::collections::BTreeMap;

use latchkey::header::HeaderText;
use latchkey::id::Id;
use latchkey::secret::Secret;
use latchkey::snapshot::page::{Epoch, MAX_PAGE_BYTES, PageHeader};
use latchkey::snapshot::{self, Kind, Record, Removed};
use rand::RngCore;
use secrecy::ExposeSecret;
use sqlx::{Row, SqliteConnection};

use super::accounts::vars_from_json;
use super::limits::{LIMIT_COLUMNS, settings};
use super::pools::{policy_of, tier_of, weight_of};
use super::{Result, Store, corrupt, head, health, signed, unsigned};
use crate::platform::Publication;

/// An answer to a poll.
#[derive(Debug)]
pub struct SnapshotPage {
    /// The page.
    pub bytes: Vec<u8>,
    /// Whether it tells the poller anything: records, a reset, or a revision that moved.
    pub news: bool,
}

/// Every record that changed after a revision, oldest change first. Gone ones come as tombstones.
const CHANGED: &str = "SELECT revision, 'platform' AS kind, id FROM platforms WHERE revision > ?1 \
     UNION ALL SELECT revision, 'account', id FROM accounts WHERE revision > ?1 \
     UNION ALL SELECT revision, 'pool', id FROM pools WHERE revision > ?1 \
     UNION ALL SELECT revision, 'key', id FROM client_keys WHERE revision > ?1 \
     UNION ALL SELECT revision, 'health', account FROM health WHERE revision > ?1 \
     UNION ALL SELECT revision, 'removed ' || kind, id FROM tombstones WHERE revision > ?1 ORDER BY revision";

/// The Envoy cluster of an account.
pub fn cluster_name(account: &str) -> String {
    format!("latchkey-{account}")
}

impl Store {
    /// Publishes exactly these platforms. What did not change keeps its revision; accounts move with their platform, whose
    /// authority and variables are in their records, and appear and vanish with it.
    ///
    /// # Errors
    /// If SQLite fails or a record is longer than a page.
    pub async fn publish_platforms(&self, platforms: &[Publication]) -> Result<()> {
        let mut change = self.change().await?;
        let published: Vec<(String, String, String)> =
            sqlx::query_as("SELECT id, record, authority FROM platforms")
                .fetch_all(change.sql())
                .await?;
        let wanted: Vec<(String, String, String)> = platforms
            .iter()
            .map(|platform| {
                let line = Record::Platform(platform.record.clone()).to_line();
                let line = line.map_err(|error| corrupt("platforms.record", error.to_string()))?;
                Ok((
                    platform.record.id.to_string(),
                    line,
                    platform.authority.as_str().to_owned(),
                ))
            })
            .collect::<Result<_>>()?;
        for (id, ..) in published
            .iter()
            .filter(|(id, ..)| !wanted.iter().any(|(wanted, ..)| wanted == id))
        {
            sqlx::query("DELETE FROM platforms WHERE id = ?")
                .bind(id)
                .execute(change.sql())
                .await?;
            change.bury("platform", id).await?;
            touch_accounts_of(&mut change, id).await?;
        }
        for platform in wanted
            .iter()
            .filter(|platform| !published.contains(platform))
        {
            let (id, record, authority) = platform;
            let revision = change.next_revision().await?;
            sqlx::query("INSERT OR REPLACE INTO platforms (id, record, authority, revision) VALUES (?, ?, ?, ?)")
                .bind(id)
                .bind(record)
                .bind(authority)
                .bind(revision)
                .execute(change.sql())
                .await?;
            sqlx::query("DELETE FROM tombstones WHERE kind = 'platform' AND id = ?")
                .bind(id)
                .execute(change.sql())
                .await?;
            touch_accounts_of(&mut change, id).await?;
        }
        change.commit().await
    }

    /// The page for a poller that holds `since` of `epoch`.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn page(&self, epoch: Option<Epoch>, since: u64) -> Result<SnapshotPage> {
        if self.has_lost(epoch, since).await? {
            self.begin_epoch().await?;
        }
        let mut transaction = self.pool.begin().await?;
        let (ours, revision) = head(&mut transaction).await?;
        let reset = epoch != Some(ours) || since == 0;
        let from = if reset { 0 } else { since };
        let (lines, to) = self.lines(&mut transaction, from, revision).await?;
        let news = reset || to > from;
        let bytes = PageHeader::encode(
            ours,
            reset,
            (from, to),
            to < revision,
            lines.iter().map(String::as_str),
        );
        Ok(SnapshotPage { bytes, news })
    }

    /// The revision of the last change of an account or a platform, also of one that is gone.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn accounts_revision(&self) -> Result<u64> {
        let revision: i64 = sqlx::query_scalar(
            "SELECT max(coalesce((SELECT max(revision) FROM accounts), 0), \
             coalesce((SELECT max(revision) FROM platforms), 0), \
             coalesce((SELECT max(revision) FROM tombstones), 0))",
        )
        .fetch_one(&self.pool)
        .await?;
        unsigned("accounts.revision", revision)
    }

    /// Whether the poller has seen a later state of our history than we have: we were restored from a backup.
    async fn has_lost(&self, epoch: Option<Epoch>, since: u64) -> Result<bool> {
        let (ours, revision) = self.head().await?;
        Ok(epoch == Some(ours) && since > revision)
    }

    async fn begin_epoch(&self) -> Result<()> {
        tracing::warn!(
            "Envoy has seen a later state of this database: it was restored from a backup; sending it anew"
        );
        let mut change = self.change().await?;
        new_epoch(change.sql()).await?;
        change.commit().await
    }

    /// The changed records' lines, as many as fit on a page, and the revision that they lead to.
    async fn lines(
        &self,
        connection: &mut SqliteConnection,
        from: u64,
        revision: u64,
    ) -> Result<(Vec<String>, u64)> {
        let changed: Vec<(i64, String, String)> = sqlx::query_as(CHANGED)
            .bind(signed(from))
            .fetch_all(&mut *connection)
            .await?;
        let mut lines = Vec::new();
        let (mut bytes, mut to) = (0, from);
        for (changed_at, kind, id) in changed {
            let record = self.record(connection, &kind, id).await?;
            // Who starts anew holds nothing that could be removed.
            if from > 0 || !matches!(record, Record::Removed(_)) {
                let line = match record.to_line() {
                    Ok(line) => line,
                    Err(error) => {
                        tracing::error!(%kind, %error, "a record cannot be published");
                        continue;
                    }
                };
                bytes += line.len() + 1;
                if bytes > MAX_PAGE_BYTES && !lines.is_empty() {
                    return Ok((lines, to));
                }
                lines.push(line);
            }
            to = unsigned("revision", changed_at)?;
        }
        Ok((lines, revision))
    }

    async fn record(
        &self,
        connection: &mut SqliteConnection,
        kind: &str,
        id: String,
    ) -> Result<Record> {
        Ok(match kind {
            "platform" => platform(connection, &id).await?,
            "account" => self.account_record(connection, id).await?,
            "pool" => pool(connection, id).await?,
            "key" => client_key(connection, id).await?,
            "health" => health::record(connection, &id).await?,
            "removed platform" => removed(Kind::Platform, &id)?,
            "removed pool" => removed(Kind::Pool, &id)?,
            _ => removed(Kind::Account, &id)?,
        })
    }

    /// The account, if it may serve requests; else that it is to be forgotten.
    async fn account_record(
        &self,
        connection: &mut SqliteConnection,
        id: String,
    ) -> Result<Record> {
        let sql = format!(
            "SELECT name, platform, vars, generation, credential, expires_at, ends_at, models, authority, record, {LIMIT_COLUMNS} \
             FROM accounts JOIN platforms ON platforms.id = platform WHERE accounts.id = ? AND status = 'active'"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&id)
            .fetch_optional(connection)
            .await?;
        let Some(row) = row else {
            return removed(Kind::Account, &id);
        };
        let generation = unsigned("accounts.generation", row.try_get("generation")?)?;
        let credential = match self.open_credential(&id, generation, row.try_get("credential")?) {
            Ok(credential) => credential,
            Err(error) => {
                tracing::error!(account = id, %error, "an account cannot be published");
                return removed(Kind::Account, &id);
            }
        };
        let text = |column: &'static str, text: &str| {
            HeaderText::try_from(text)
                .map_err(|_| corrupt(column, "characters that no header may have"))
        };
        let time = |column: &'static str, name: &'static str| -> Result<Option<u64>> {
            let time: Option<i64> = row.try_get(column)?;
            time.map(|time| unsigned(name, time)).transpose()
        };
        let record = platform_from_line(row.try_get("record")?)?;
        let mut vars: BTreeMap<String, HeaderText> = vars_from_json(row.try_get("vars")?)?;
        // Envoy needs no more of a person than goes out: who it is, is nobody's there.
        vars.retain(|name, _| record.headers.vars().any(|used| used == name));
        Ok(Record::Account(snapshot::Account {
            cluster: parse_id(&cluster_name(&id))?,
            id: parse_id(&id)?,
            name: text("accounts.name", row.try_get("name")?)?,
            platform: parse_id(row.try_get("platform")?)?,
            authority: text("platforms.authority", row.try_get("authority")?)?,
            credential: Secret::new(credential.on_the_wire().expose_secret()),
            vars,
            generation,
            expires_at: time("expires_at", "accounts.expires_at")?,
            ends_at: time("ends_at", "accounts.ends_at")?,
            models: models_from_json("accounts.models", row.try_get("models")?)?,
            limits: settings(&row)?.limits,
        }))
    }
}

/// Begins a new history: whoever polls gets everything anew.
pub(super) async fn new_epoch(connection: &mut SqliteConnection) -> Result<()> {
    let mut epoch = [0; 16];
    rand::rng().fill_bytes(&mut epoch);
    sqlx::query("UPDATE meta SET epoch = ?")
        .bind(&epoch[..])
        .execute(connection)
        .await?;
    Ok(())
}

async fn touch_accounts_of(change: &mut super::Change<'_>, platform: &str) -> Result<()> {
    let accounts: Vec<String> = sqlx::query_scalar("SELECT id FROM accounts WHERE platform = ?")
        .bind(platform)
        .fetch_all(change.sql())
        .await?;
    for id in accounts {
        let revision = change.next_revision().await?;
        sqlx::query("UPDATE accounts SET revision = ? WHERE id = ?")
            .bind(revision)
            .bind(id)
            .execute(change.sql())
            .await?;
    }
    Ok(())
}

async fn platform(connection: &mut SqliteConnection, id: &str) -> Result<Record> {
    let line: String = sqlx::query_scalar("SELECT record FROM platforms WHERE id = ?")
        .bind(id)
        .fetch_one(connection)
        .await?;
    Ok(Record::Platform(platform_from_line(&line)?))
}

fn platform_from_line(line: &str) -> Result<snapshot::Platform> {
    match Record::from_line(line.as_bytes()) {
        Ok(Record::Platform(platform)) => Ok(platform),
        Ok(_) => Err(corrupt("platforms.record", "another kind of record")),
        Err(error) => Err(corrupt("platforms.record", error.to_string())),
    }
}

async fn pool(connection: &mut SqliteConnection, id: String) -> Result<Record> {
    let policy: String = sqlx::query_scalar("SELECT policy FROM pools WHERE id = ?")
        .bind(&id)
        .fetch_one(&mut *connection)
        .await?;
    let members: Vec<(String, u32, u32)> = sqlx::query_as(
        "SELECT account, weight, tier FROM pool_members WHERE pool = ? ORDER BY position",
    )
    .bind(&id)
    .fetch_all(connection)
    .await?;
    let member = |(account, weight, tier): (String, u32, u32)| {
        Ok(snapshot::Member {
            account: parse_id(&account)?,
            weight: weight_of(weight)?,
            tier: tier_of(tier)?,
        })
    };
    let policy = policy_of(&policy)?;
    let members = members.into_iter().map(member).collect::<Result<_>>()?;
    Ok(Record::Pool(snapshot::Pool {
        id: parse_id(&id)?,
        policy,
        members,
    }))
}

async fn client_key(connection: &mut SqliteConnection, id: String) -> Result<Record> {
    let sql = format!(
        "SELECT name, sha256, pool, models, may_choose_account, revoked_at, expires_at, {LIMIT_COLUMNS} \
         FROM client_keys WHERE id = ?"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(&id)
        .fetch_one(&mut *connection)
        .await?;
    if row.try_get::<Option<i64>, _>("revoked_at")?.is_some() {
        return removed(Kind::Key, &id);
    }
    let pools: Vec<String> =
        sqlx::query_scalar("SELECT pool FROM client_key_pools WHERE client_key = ? ORDER BY pool")
            .bind(&id)
            .fetch_all(connection)
            .await?;
    let expires_at: Option<i64> = row.try_get("expires_at")?;
    let name = HeaderText::try_from(row.try_get::<&str, _>("name")?)
        .map_err(|_| corrupt("client_keys.name", "characters that no header may have"))?;
    let sha256 = snapshot::KeyHash::try_from(row.try_get::<String, _>("sha256")?)
        .map_err(|_| corrupt("client_keys.sha256", "no SHA-256"))?;
    Ok(Record::Key(snapshot::ClientKey {
        id: parse_id(&id)?,
        sha256,
        pool: parse_id(row.try_get("pool")?)?,
        models: models_from_json("client_keys.models", row.try_get("models")?)?,
        may_choose: snapshot::MayChoose {
            account: row.try_get("may_choose_account")?,
            pools: pools
                .iter()
                .map(|pool| parse_id(pool))
                .collect::<Result<_>>()?,
        },
        name: Some(name),
        expires_at: expires_at
            .map(|time| unsigned("client_keys.expires_at", time))
            .transpose()?,
        limits: settings(&row)?.limits,
    }))
}

pub(super) fn models_from_json(column: &'static str, text: &str) -> Result<snapshot::Models> {
    serde_json::from_str(text).map_err(|_| corrupt(column, "something else than a list of models"))
}

fn removed(kind: Kind, id: &str) -> Result<Record> {
    Ok(Record::Removed(Removed {
        kind,
        id: parse_id(id)?,
    }))
}

fn parse_id(text: &str) -> Result<Id> {
    Id::try_from(text).map_err(|_| corrupt("id", format!("{text:?}")))
}
