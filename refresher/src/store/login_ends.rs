//! The times at which logins end for good, as their platforms tell it beside a refresh token.

use super::sql::{self, signed};
use super::{Result, Store};
use crate::clock::UnixMillis;
use crate::id::AccountId;

sql::statements! {
    /// Of a login that was replaced meanwhile nothing is noted.
    NOTE_LOGIN_END = "UPDATE accounts SET login_ends_at = $1 WHERE id = $2 AND generation = $3";
}

impl Store {
    /// Notes when the login of this generation of an account ends. It is announced and decides nothing, so it has no
    /// revision.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_login_end(
        &self,
        account: &AccountId,
        generation: u64,
        end: Option<UnixMillis>,
    ) -> Result<()> {
        let mut change = self.change().await?;
        sqlx::query(NOTE_LOGIN_END)
            .bind(end)
            .bind(account.as_str())
            .bind(signed(generation))
            .execute(change.sql())
            .await?;
        change.commit().await
    }
}
