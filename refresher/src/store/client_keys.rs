//! Client keys: made, listed, revoked. A key itself is shown once and never stored; its SHA-256 is.

use latchkey::snapshot::KeyHash;
use secrecy::{ExposeSecret, SecretString};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::accounts::check_name;
use super::{Error, Result, Store, corrupt};
use crate::id::{ClientKeyId, random_base32};
use crate::refresh::clock::UnixMillis;

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
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
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
    /// Makes a client key that `pool` serves.
    ///
    /// # Errors
    /// If the name is taken or there is no such pool.
    pub async fn create_client_key(
        &self,
        name: &str,
        pool: &str,
        now: UnixMillis,
    ) -> Result<NewClientKey> {
        check_name(name).map_err(|problem| Error::Unfit {
            account: name.to_owned(),
            problem,
        })?;
        let mut change = self.change().await?;
        let pools: i64 = sqlx::query_scalar("SELECT count(*) FROM pools WHERE id = ?")
            .bind(pool)
            .fetch_one(change.sql())
            .await?;
        if pools == 0 {
            return Err(Error::Unknown {
                kind: "pool",
                name: pool.to_owned(),
                list: "status",
            });
        }
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
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Err(Error::NameTaken {
                    kind: "a client key",
                    name: name.to_owned(),
                });
            }
            inserted => inserted?,
        };
        change.commit().await?;
        Ok(NewClientKey { id, key })
    }

    /// Every client key, revoked ones included, oldest first.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn client_keys(&self) -> Result<Vec<ClientKey>> {
        let rows = sqlx::query(
            "SELECT id, name, prefix, pool, created_at, revoked_at FROM client_keys ORDER BY created_at, id",
        )
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
        let id = id.ok_or_else(|| Error::Unknown {
            kind: "client key",
            name: name.to_owned(),
            list: "keys list",
        })?;
        change.commit().await?;
        client_key_id(&id)
    }
}

fn client_key(row: &SqliteRow) -> Result<ClientKey> {
    Ok(ClientKey {
        id: client_key_id(row.try_get("id")?)?,
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        pool: row.try_get("pool")?,
        created_at: UnixMillis(row.try_get("created_at")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(UnixMillis),
    })
}

fn client_key_id(text: &str) -> Result<ClientKeyId> {
    ClientKeyId::parse(text).ok_or_else(|| corrupt("client_keys.id", format!("{text:?}")))
}
