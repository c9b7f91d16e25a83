//! Client keys: made, listed, revoked. A key itself is shown once and never stored; its SHA-256 is.

use latchkey::limit::SubjectKind;
use latchkey::snapshot::{KeyHash, Models};
use secrecy::{ExposeSecret, SecretString};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::accounts::{check_name, models_to_json};
use super::limits::{LIMIT_COLUMNS, LimitSettings, Terms, settings};
use super::snapshot::models_from_json;
use super::{Change, Error, Result, Store, corrupt, pools};
use crate::clock::UnixMillis;
use crate::id::{ClientKeyId, random_base32};

/// What every client key starts with, so that scanners and people know one.
const PREFIX: &str = "lk_";
/// 160 random bits.
const KEY_CHARACTERS: usize = 32;
/// How much of a key the store keeps for people: the prefix and 20 bits.
const SHOWN_CHARACTERS: usize = PREFIX.len() + 4;

/// A client key without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// Names the key in logs and records.
    pub id: ClientKeyId,
    /// Unique among those in use.
    pub name: String,
    /// The key's first characters.
    pub prefix: String,
    /// The pool that serves it.
    pub pool: String,
    /// The models that it may ask for.
    pub models: Models,
    /// Whether its caller may choose the account.
    pub may_choose_account: bool,
    /// The other pools that its caller may choose.
    pub may_choose_pools: Vec<String>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
    /// When it ends.
    pub expires_at: Option<UnixMillis>,
    /// What it may use.
    pub limits: LimitSettings,
}

/// What is to be another about a key; the rest stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// The pool that serves it.
    pub pool: Option<String>,
    /// The models that it may ask for; an empty list means all.
    pub models: Option<Models>,
    /// Takes away what its caller may choose, before anything is given.
    pub no_choice: bool,
    /// Lets its caller choose the account.
    pub may_choose_account: bool,
    /// Lets its caller choose these pools as well.
    pub may_choose_pools: Vec<String>,
    /// Its limits and its end.
    pub terms: Terms,
}

/// A client key just made.
#[derive(Debug)]
pub struct NewClientKey {
    /// Names it from here on.
    pub id: ClientKeyId,
    /// The key, to be shown once.
    pub key: SecretString,
}

impl Store {
    /// Makes a client key that `pool` serves, with these rights.
    ///
    /// # Errors
    /// If the name is taken or there is no such pool.
    pub async fn create_client_key(
        &self,
        name: &str,
        pool: &str,
        rights: &KeyChange,
        now: UnixMillis,
    ) -> Result<NewClientKey> {
        check_name(name).map_err(|problem| Error::Unfit {
            account: name.to_owned(),
            problem,
        })?;
        let mut change = self.change().await?;
        pools::known(change.sql(), pool).await?;
        let id = ClientKeyId::random();
        let key = SecretString::from(format!(
            "{PREFIX}{}",
            random_base32(KEY_CHARACTERS).to_lowercase()
        ));
        let revision = change.next_revision().await?;
        let inserted = sqlx::query(
            "INSERT INTO client_keys (id, name, sha256, prefix, pool, created_at, revision) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.as_str())
        .bind(name)
        .bind(String::from(KeyHash::of(key.expose_secret().as_bytes())))
        .bind(&key.expose_secret()[..SHOWN_CHARACTERS])
        .bind(pool)
        .bind(now.0)
        .bind(revision)
        .execute(change.sql())
        .await;
        inserted.map_err(Error::taken("a client key", name))?;
        change.set_client_key(id.as_str(), rights).await?;
        change.commit().await?;
        Ok(NewClientKey { id, key })
    }

    /// Changes the key in use with this name or id.
    ///
    /// # Errors
    /// If no key in use has it, or there is no such pool.
    pub async fn set_client_key(&self, name: &str, wanted: &KeyChange) -> Result<ClientKeyId> {
        let mut change = self.change().await?;
        let revision = change.next_revision().await?;
        let id: Option<String> = sqlx::query_scalar(
            "UPDATE client_keys SET revision = ?1 WHERE (name = ?2 OR id = ?2) AND revoked_at IS NULL RETURNING id",
        )
        .bind(revision)
        .bind(name)
        .fetch_optional(change.sql())
        .await?;
        let id = id.ok_or_else(|| unknown(name))?;
        change.set_client_key(&id, wanted).await?;
        change.commit().await?;
        client_key_id(&id)
    }

    /// Every client key, revoked ones included, oldest first.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn client_keys(&self) -> Result<Vec<ClientKey>> {
        let sql = format!(
            "SELECT id, name, prefix, pool, models, may_choose_account, created_at, revoked_at, expires_at, {LIMIT_COLUMNS}, \
             (SELECT coalesce(json_group_array(pool), '[]') FROM client_key_pools WHERE client_key = client_keys.id) \
             AS may_choose_pools FROM client_keys ORDER BY created_at, id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(client_key).collect()
    }

    /// Revokes the key with this name or id.
    ///
    /// # Errors
    /// If no key in use has it.
    pub async fn revoke_client_key(&self, name: &str, now: UnixMillis) -> Result<ClientKeyId> {
        let mut change = self.change().await?;
        let revision = change.next_revision().await?;
        let id: Option<String> = sqlx::query_scalar(
            "UPDATE client_keys SET revoked_at = ?1, revision = ?2 \
             WHERE (name = ?3 OR id = ?3) AND revoked_at IS NULL RETURNING id",
        )
        .bind(now.0)
        .bind(revision)
        .bind(name)
        .fetch_optional(change.sql())
        .await?;
        let id = id.ok_or_else(|| unknown(name))?;
        change.commit().await?;
        client_key_id(&id)
    }
}

impl Change<'_> {
    /// Changes a key whose revision has moved already.
    async fn set_client_key(&mut self, id: &str, wanted: &KeyChange) -> Result<()> {
        self.set_terms(SubjectKind::Key, id, &wanted.terms).await?;
        if let Some(pool) = &wanted.pool {
            pools::known(self.sql(), pool).await?;
        }
        if wanted.no_choice {
            sqlx::query("DELETE FROM client_key_pools WHERE client_key = ?")
                .bind(id)
                .execute(self.sql())
                .await?;
        }
        for pool in &wanted.may_choose_pools {
            pools::known(self.sql(), pool).await?;
            sqlx::query("INSERT OR IGNORE INTO client_key_pools (client_key, pool) VALUES (?, ?)")
                .bind(id)
                .bind(pool)
                .execute(self.sql())
                .await?;
        }
        sqlx::query(
            "UPDATE client_keys SET pool = coalesce(?1, pool), models = coalesce(?2, models), \
             may_choose_account = ?3 OR (may_choose_account AND NOT ?4) WHERE id = ?5",
        )
        .bind(wanted.pool.as_deref())
        .bind(wanted.models.as_ref().map(models_to_json))
        .bind(wanted.may_choose_account)
        .bind(wanted.no_choice)
        .bind(id)
        .execute(self.sql())
        .await?;
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::Unknown {
        kind: "client key",
        name: name.to_owned(),
        list: "keys list",
    }
}

fn client_key(row: &SqliteRow) -> Result<ClientKey> {
    Ok(ClientKey {
        id: client_key_id(row.try_get("id")?)?,
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        pool: row.try_get("pool")?,
        models: models_from_json("client_keys.models", row.try_get("models")?)?,
        may_choose_account: row.try_get("may_choose_account")?,
        may_choose_pools: serde_json::from_str(row.try_get("may_choose_pools")?)
            .map_err(|_| corrupt("client_key_pools.pool", "something else than text"))?,
        created_at: UnixMillis(row.try_get("created_at")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(UnixMillis),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(UnixMillis),
        limits: settings(row)?,
    })
}

fn client_key_id(text: &str) -> Result<ClientKeyId> {
    ClientKeyId::parse(text).ok_or_else(|| corrupt("client_keys.id", format!("{text:?}")))
}
