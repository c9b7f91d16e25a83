//! Accounts that are switched on and off: by their operator, or for a reason and back only where that reason holds.

use super::accounts::{Status, known};
use super::{Change, Error, Result, Store, sql};
use crate::clock::UnixMillis;
use crate::id::AccountId;

/// The reason of an account's status from then on.
const BY_OPERATOR: &str = "disabled by the operator";

sql::statements! {
    SET_STATUS = "UPDATE accounts SET status = $1, reason = $2, updated_at = $3, revision = $4 WHERE id = $5";
}

impl Store {
    /// Lets an account serve requests again. A dead one's health is forgotten. True if that changed anything.
    ///
    /// # Errors
    /// If there is no such account, or it needs a login.
    pub async fn enable(&self, name: &str, now: UnixMillis) -> Result<bool> {
        let mut change = self.change().await?;
        let account = known(change.sql(), name).await?;
        match account.status {
            Status::Active => return Ok(false),
            Status::NeedsLogin => {
                drop(change);
                return Err(Error::NeedsLogin {
                    is_client: self.has_own_client(&account.id).await,
                    account: account.name,
                    platform: account.platform,
                });
            }
            Status::Disabled => {}
            Status::Dead => change.forget_health(&account.id, now).await?,
        }
        set_status(&mut change, &account.id, Status::Active, None, now).await?;
        change.commit().await?;
        Ok(true)
    }

    /// Takes an account out of use; its login is kept fresh. True if that changed anything: an account that needs a
    /// login or is dead is out of use already.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn disable(&self, name: &str, now: UnixMillis) -> Result<bool> {
        self.switch_off(name, BY_OPERATOR, now).await
    }

    /// Takes an active account out of use for `reason`. True if that changed anything.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn switch_off(&self, account: &str, reason: &str, now: UnixMillis) -> Result<bool> {
        let mut change = self.change().await?;
        let account = known(change.sql(), account).await?;
        if account.status != Status::Active {
            return Ok(false);
        }
        set_status(
            &mut change,
            &account.id,
            Status::Disabled,
            Some(reason),
            now,
        )
        .await?;
        change.commit().await?;
        Ok(true)
    }

    /// Lets an account serve again that was switched off for one of `reasons`. True if that changed anything: what was
    /// switched off for another stays off.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn switch_on(
        &self,
        account: &AccountId,
        reasons: &[&str],
        now: UnixMillis,
    ) -> Result<bool> {
        let mut change = self.change().await?;
        let account = known(change.sql(), account.as_str()).await?;
        let is_meant = account
            .reason
            .is_some_and(|reason| reasons.contains(&&*reason));
        if account.status != Status::Disabled || !is_meant {
            return Ok(false);
        }
        set_status(&mut change, &account.id, Status::Active, None, now).await?;
        change.commit().await?;
        Ok(true)
    }
}

pub(super) async fn set_status(
    change: &mut Change<'_>,
    id: &AccountId,
    status: Status,
    reason: Option<&str>,
    now: UnixMillis,
) -> Result<()> {
    let revision = change.next_revision().await?;
    sqlx::query(SET_STATUS)
        .bind(status.as_str())
        .bind(reason)
        .bind(now)
        .bind(revision)
        .bind(id.as_str())
        .execute(change.sql())
        .await?;
    Ok(())
}
