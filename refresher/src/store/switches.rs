//! Accounts that are switched for a reason, and back only where that reason holds.

use super::accounts::{Status, known, set_status};
use super::{Result, Store};
use crate::clock::UnixMillis;
use crate::id::AccountId;

impl Store {
    /// Takes an active account out of use for `reason`. True if that changed anything.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn switch_off(
        &self,
        account: &AccountId,
        reason: &str,
        now: UnixMillis,
    ) -> Result<bool> {
        let mut change = self.change().await?;
        let account = known(change.sql(), account.as_str()).await?;
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
