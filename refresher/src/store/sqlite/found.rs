//! The first rows of a new database.

use rand::RngCore;

use super::{Pool, begin_change};
use crate::keys::seal::Keyring;
use crate::store::keys::KEY_CHECK;
use crate::store::{DEFAULT_POOL, Error, Result, sql};

sql::statements! {
    ADD_KEY = "INSERT INTO sealing_keys (id, seals) VALUES ($1, 1)";
    ADD_META = "INSERT INTO meta (id, epoch, revision, sealing_key, key_check) VALUES (1, $1, 1, $2, $3)";
    ADD_POOL = "INSERT INTO pools (id, policy, revision) VALUES ($1, 'sticky', 1)";
}

/// Fills a new database: a random epoch, the key's check value and the default pool.
pub(super) async fn fill(pool: &Pool, keyring: &Keyring) -> Result<()> {
    let mut epoch = [0; 16];
    rand::rng().fill_bytes(&mut epoch);
    let key = keyring.first();
    let sealed = keyring.seal(key, KEY_CHECK.1, KEY_CHECK.0, 0);
    let sealed = sealed.map_err(|source| Error::Seal {
        record: "key_check".to_owned(),
        source,
    })?;
    let mut transaction = begin_change(pool).await?;
    sqlx::query(ADD_KEY)
        .bind(key.as_bytes())
        .execute(&mut *transaction)
        .await?;
    sqlx::query(ADD_META)
        .bind(&epoch[..])
        .bind(key.as_bytes())
        .bind(sealed)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(ADD_POOL)
        .bind(DEFAULT_POOL)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
