//! Accounts that are logged out: out of use at once, their credential kept until it is worth nothing at the platform.

use super::accounts::{Status, known};
use super::sql::{self, signed};
use super::{Result, Store};
use crate::clock::UnixMillis;
use crate::credential::Credential;
use crate::id::AccountId;

/// The reason of an account's status from then on.
pub const LOGGED_OUT: &str = "logged out by the operator";

sql::statements! {
    /// A refresh whose claim has lapsed finds another generation, and changes nothing.
    TAKE_OUT = "UPDATE accounts SET status = 'needs_login', reason = $1, generation = $2, credential = $3, retry_at = NULL, \
                failures = 0, failing = 'null', unanswered = 0, first_unanswered_at = NULL, updated_at = $4, revision = $5 WHERE id = $6";
    EMPTY = "UPDATE accounts SET credential = $1, credential_expires_at = NULL, updated_at = $2 \
             WHERE id = $3 AND generation = $4 AND status = 'needs_login'";
}

/// An account that is out of use, and its credential, which may be worth something at the platform.
#[derive(Debug)]
pub struct TakenOut {
    /// Its id.
    pub id: AccountId,
    /// The number of its credential.
    pub generation: u64,
    /// Its credential; empty where it was logged out before.
    pub credential: Credential,
}

impl Store {
    /// Takes an account out of use until somebody logs it in again. It keeps its credential, which nobody uses any more.
    ///
    /// # Errors
    /// If there is no such account, its credential cannot be opened, or a refresh of it is under way.
    pub async fn take_out(&self, account: &AccountId, now: UnixMillis) -> Result<TakenOut> {
        let mut change = self.change().await?;
        let account = known(change.sql(), account.as_str()).await?;
        let credential = change.credential_at_rest(&account).await?;
        if credential.is_empty() && account.status == Status::NeedsLogin {
            return Ok(TakenOut {
                id: account.id,
                generation: account.generation,
                credential,
            });
        }
        let base_url = account.base_url.as_deref();
        let (generation, sealed) = change.seal_next(&account, base_url, &credential).await?;
        let revision = change.next_revision().await?;
        sqlx::query(TAKE_OUT)
            .bind(LOGGED_OUT)
            .bind(signed(generation))
            .bind(sealed)
            .bind(now)
            .bind(revision)
            .bind(account.id.as_str())
            .execute(change.sql())
            .await?;
        change.commit().await?;
        Ok(TakenOut {
            id: account.id,
            generation,
            credential,
        })
    }

    /// Puts nothing in the place of the credential of an account that was taken out. An account that somebody logged in
    /// meanwhile keeps its new one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn empty(&self, taken: &TakenOut, now: UnixMillis) -> Result<()> {
        let Some(nothing) = taken.credential.emptied() else {
            return Ok(());
        };
        let mut change = self.change().await?;
        let account = known(change.sql(), taken.id.as_str()).await?;
        let (id, base_url) = (account.id.as_str(), account.base_url.as_deref());
        let sealed = change
            .seal(id, taken.generation, &account.platform, base_url, &nothing)
            .await?;
        sqlx::query(EMPTY)
            .bind(sealed)
            .bind(now)
            .bind(id)
            .bind(signed(taken.generation))
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}
