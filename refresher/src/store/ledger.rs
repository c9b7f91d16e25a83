//! The store as the refresh engine sees it. A claim is a row update that one process wins, on the database's clock.

use std::time::Duration;

use super::accounts::Vars;
use super::sql::{self, JsonText, json_text, signed};
use super::{Error, Result, Store, sqlite};
use crate::clock::UnixMillis;
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::failing::Failing;
use crate::id::{AccountId, random_base32};
use crate::keys::seal::Binding;
use crate::refresh::ledger::{Claim, Claimed, Entry, Ledger, RenewalOf, Retry};

/// 160 random bits.
const TOKEN_CHARACTERS: usize = 32;

sql::statements! {
    ENTRIES = "SELECT id, kind, generation, issued_at, credential_expires_at, retry_at FROM accounts \
               WHERE kind <> 'api_key' AND status <> 'needs_login' ORDER BY id";
    CLAIMABLE = "SELECT name, platform, kind, generation, base_url, credential, credential_expires_at, login_ends_at, failures, failing, unanswered, \
                 first_unanswered_at, claim_until FROM accounts \
                 WHERE id = $1 AND status <> 'needs_login'";
    /// With `$5` = 1 the claim counts as a call without an answer until it is told otherwise.
    CLAIM = "UPDATE accounts SET claim_token = $1, claim_until = $2, \
             unanswered = CASE WHEN unanswered < $5 THEN $5 ELSE unanswered END, \
             first_unanswered_at = CASE WHEN $5 = 0 THEN first_unanswered_at \
             ELSE coalesce(first_unanswered_at, $3) END WHERE id = $4";
    INTEND = "UPDATE accounts SET unanswered = unanswered + 1, \
              first_unanswered_at = coalesce(first_unanswered_at, $1), claim_until = $2 \
              WHERE id = $3 AND generation = $4 AND claim_token = $5 AND status <> 'needs_login'";
    RETRY_LATER = "UPDATE accounts SET retry_at = $1, failures = $2, failing = $7, unanswered = CAST($3 AS BIGINT), \
                   first_unanswered_at = CASE WHEN CAST($3 AS BIGINT) = 0 THEN NULL ELSE first_unanswered_at END, \
                   claim_token = NULL, claim_until = NULL \
                   WHERE id = $4 AND generation = $5 AND claim_token = $6";
    NEEDS_LOGIN = "UPDATE accounts SET status = 'needs_login', reason = $1, retry_at = NULL, failing = 'null', claim_token = NULL, \
                   claim_until = NULL, revision = $2 WHERE id = $3 AND generation = $4 AND claim_token = $5";
}

/// An [`Entry`].
#[derive(sqlx::FromRow)]
struct EntryRow {
    #[sqlx(try_from = "String")]
    id: AccountId,
    #[sqlx(try_from = "String")]
    kind: CredentialKind,
    #[sqlx(try_from = "i64")]
    generation: u64,
    issued_at: UnixMillis,
    credential_expires_at: Option<UnixMillis>,
    retry_at: Option<UnixMillis>,
}

/// An account that may be claimed.
#[derive(sqlx::FromRow)]
struct ClaimableRow {
    name: String,
    platform: String,
    kind: String,
    #[sqlx(try_from = "i64")]
    generation: u64,
    base_url: Option<String>,
    credential: Vec<u8>,
    credential_expires_at: Option<UnixMillis>,
    login_ends_at: Option<UnixMillis>,
    #[sqlx(try_from = "i64")]
    failures: u32,
    #[sqlx(try_from = "JsonText<Option<Failing>>")]
    failing: Option<Failing>,
    #[sqlx(try_from = "i64")]
    unanswered: u32,
    first_unanswered_at: Option<UnixMillis>,
    claim_until: Option<UnixMillis>,
}

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Entry {
        Entry {
            account: row.id,
            kind: row.kind,
            generation: row.generation,
            issued_at: row.issued_at,
            credential_expires_at: row.credential_expires_at,
            retry_at: row.retry_at,
        }
    }
}

impl Ledger for Store {
    type Error = Error;

    async fn note_login_end(
        &self,
        account: &AccountId,
        generation: u64,
        end: Option<UnixMillis>,
    ) -> Result<()> {
        Store::note_login_end(self, account, generation, end).await
    }

    async fn note_owner(
        &self,
        account: &AccountId,
        generation: u64,
        identity: &str,
        told: &Vars,
    ) -> Result<()> {
        Store::note_owner(self, account, generation, identity, told).await
    }

    async fn entries(&self) -> Result<Vec<Entry>> {
        let rows: Vec<EntryRow> = sqlx::query_as(ENTRIES).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(Entry::from).collect())
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
        let row: Option<ClaimableRow> = sqlx::query_as(CLAIMABLE)
            .bind(account.as_str())
            .fetch_optional(change.sql())
            .await?;
        let Some(row) = row else {
            return Ok(Claimed::NotRefreshable);
        };
        if row.generation != generation {
            return Ok(Claimed::Moved);
        }
        let clock = sqlite::now(change.sql()).await?;
        if row.claim_until.is_some_and(|until| until > clock) {
            return Ok(Claimed::Busy);
        }
        let binding = Binding {
            record: account.as_str(),
            generation,
            platform: &row.platform,
            kind: &row.kind,
            base_url: row.base_url.as_deref(),
        };
        let credential = self.open_credential(binding, &row.credential)?;
        let renewal = renewal_of(&row.platform, credential.kind());
        if renewal == Renewal::None {
            return Ok(Claimed::NotRefreshable);
        }
        // Opened before the call is counted: who has a proxy that cannot be used makes none.
        let proxy = self.proxy_of(change.sql(), account.as_str()).await?;
        let claim = Claim {
            account: account.clone(),
            proxy,
            name: row.name,
            platform: row.platform,
            generation,
            base_url: row.base_url,
            token: random_base32(TOKEN_CHARACTERS),
            credential,
            renewal,
            credential_expires_at: row.credential_expires_at,
            login_ends_at: row.login_ends_at,
            failures: row.failures,
            failing: row.failing,
            unanswered: row.unanswered,
            first_unanswered_at: row.first_unanswered_at,
        };
        sqlx::query(CLAIM)
            .bind(&claim.token)
            .bind(clock.plus(life))
            .bind(now)
            .bind(account.as_str())
            .bind(i64::from(claim.renewal == Renewal::SingleUse))
            .execute(change.sql())
            .await?;
        change.commit().await?;
        Ok(Claimed::Ours(Box::new(claim)))
    }

    async fn intend(&self, claim: &Claim, now: UnixMillis, life: Duration) -> Result<bool> {
        let mut change = self.change().await?;
        let clock = sqlite::now(change.sql()).await?;
        let updated = sqlx::query(INTEND)
            .bind(now)
            .bind(clock.plus(life))
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
        credential_expires_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<bool> {
        self.store_tokens(claim, credential, credential_expires_at, now)
            .await
    }

    async fn retry_later(&self, claim: &Claim, retry: Retry) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(RETRY_LATER)
            .bind(retry.at)
            .bind(i64::from(retry.failures))
            .bind(i64::from(retry.unanswered))
            .bind(claim.account.as_str())
            .bind(signed(claim.generation))
            .bind(&claim.token)
            .bind(json_text(&retry.failing))
            .execute(change.sql())
            .await?;
        change.commit().await
    }

    async fn needs_login(&self, claim: &Claim, reason: &str) -> Result<bool> {
        let mut change = self.change().await?;
        let revision = change.next_revision().await?;
        let updated = sqlx::query(NEEDS_LOGIN)
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
