//! The store as the refresh engine sees it. A claim is a row update that one process wins, on the database's clock.

use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::accounts::account_id;
use super::{Error, Result, Store, signed, unsigned};
use crate::clock::UnixMillis;
use crate::credential::{Credential, Renewal};
use crate::id::{AccountId, random_base32};
use crate::refresh::ledger::{Claim, Claimed, Entry, Ledger, RenewalOf, Retry};

/// 160 random bits.
const TOKEN_CHARACTERS: usize = 32;

impl Ledger for Store {
    type Error = Error;

    async fn entries(&self) -> Result<Vec<Entry>> {
        let rows = sqlx::query(
            "SELECT id, generation, issued_at, expires_at, retry_at FROM accounts \
             WHERE kind <> 'api_key' AND status <> 'needs_login' ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(entry).collect()
    }

    async fn claim(
        &self,
        account: &AccountId,
        generation: u64,
        now: UnixMillis,
        life: Duration,
        renewal_of: RenewalOf<'_>,
    ) -> Result<Claimed> {
        let mut change = self.change().await?;
        let row = sqlx::query(
            "SELECT name, platform, generation, credential, expires_at, failures, unanswered, first_unanswered_at, \
             coalesce(claim_until > CAST(unixepoch('subsec') * 1000 AS INTEGER), 0) AS held FROM accounts \
             WHERE id = ? AND status <> 'needs_login'",
        )
        .bind(account.as_str())
        .fetch_optional(change.sql())
        .await?;
        let Some(row) = row else {
            return Ok(Claimed::NotRefreshable);
        };
        if unsigned("accounts.generation", row.try_get("generation")?)? != generation {
            return Ok(Claimed::Moved);
        }
        if row.try_get("held")? {
            return Ok(Claimed::Busy);
        }
        let credential =
            self.open_credential(account.as_str(), generation, row.try_get("credential")?)?;
        let platform: String = row.try_get("platform")?;
        let renewal = renewal_of(&platform, credential.kind());
        if renewal == Renewal::None {
            return Ok(Claimed::NotRefreshable);
        }
        let claim = Claim {
            account: account.clone(),
            name: row.try_get("name")?,
            platform,
            generation,
            token: random_base32(TOKEN_CHARACTERS),
            credential,
            renewal,
            expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(UnixMillis),
            failures: row.try_get("failures")?,
            unanswered: row.try_get("unanswered")?,
            first_unanswered_at: row
                .try_get::<Option<i64>, _>("first_unanswered_at")?
                .map(UnixMillis),
        };
        sqlx::query(
            "UPDATE accounts SET claim_token = ?1, \
             claim_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?2, unanswered = max(unanswered, ?5), \
             first_unanswered_at = CASE ?5 WHEN 0 THEN first_unanswered_at ELSE coalesce(first_unanswered_at, ?3) END \
             WHERE id = ?4",
        )
        .bind(&claim.token)
        .bind(millis(life))
        .bind(now.0)
        .bind(account.as_str())
        .bind(i64::from(claim.renewal == Renewal::SingleUse))
        .execute(change.sql())
        .await?;
        change.commit().await?;
        Ok(Claimed::Ours(Box::new(claim)))
    }

    async fn intend(&self, claim: &Claim, now: UnixMillis, life: Duration) -> Result<bool> {
        let mut change = self.change().await?;
        let updated = sqlx::query(
            "UPDATE accounts SET unanswered = unanswered + 1, \
             first_unanswered_at = coalesce(first_unanswered_at, ?1), \
             claim_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?2 \
             WHERE id = ?3 AND generation = ?4 AND claim_token = ?5 AND status <> 'needs_login'",
        )
        .bind(now.0)
        .bind(millis(life))
        .bind(claim.account.as_str())
        .bind(signed(claim.generation))
        .bind(&claim.token)
        .execute(change.sql())
        .await?;
        change.commit().await?;
        Ok(updated.rows_affected() == 1)
    }

    async fn commit(
        &self,
        claim: &Claim,
        credential: &Credential,
        expires_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<bool> {
        self.store_tokens(claim, credential, expires_at, now).await
    }

    async fn retry_later(&self, claim: &Claim, retry: Retry) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(
            "UPDATE accounts SET retry_at = ?1, failures = ?2, unanswered = ?3, \
             first_unanswered_at = CASE WHEN ?3 = 0 THEN NULL ELSE first_unanswered_at END, \
             claim_token = NULL, claim_until = NULL WHERE id = ?4 AND generation = ?5 AND claim_token = ?6",
        )
        .bind(retry.at.0)
        .bind(retry.failures)
        .bind(retry.unanswered)
        .bind(claim.account.as_str())
        .bind(signed(claim.generation))
        .bind(&claim.token)
        .execute(change.sql())
        .await?;
        change.commit().await
    }

    async fn needs_login(&self, claim: &Claim, reason: &str) -> Result<bool> {
        let mut change = self.change().await?;
        let revision = change.next_revision().await?;
        let updated = sqlx::query(
            "UPDATE accounts SET status = 'needs_login', reason = ?1, retry_at = NULL, claim_token = NULL, \
             claim_until = NULL, revision = ?2 WHERE id = ?3 AND generation = ?4 AND claim_token = ?5",
        )
        .bind(reason)
        .bind(revision)
        .bind(claim.account.as_str())
        .bind(signed(claim.generation))
        .bind(&claim.token)
        .execute(change.sql())
        .await?;
        if updated.rows_affected() == 0 {
            return Ok(false);
        }
        change.commit().await?;
        Ok(true)
    }
}

fn entry(row: &SqliteRow) -> Result<Entry> {
    Ok(Entry {
        account: account_id(row.try_get("id")?)?,
        generation: unsigned("accounts.generation", row.try_get("generation")?)?,
        issued_at: UnixMillis(row.try_get("issued_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(UnixMillis),
        retry_at: row.try_get::<Option<i64>, _>("retry_at")?.map(UnixMillis),
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
