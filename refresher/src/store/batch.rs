//! Accounts that come together: all of them are saved, or none; with what their files said beside their credentials.

use super::accounts::Account;
use super::accounts::saving::{NewAccount, Saved};
use super::limits::Terms;
use super::sql;
use super::{Change, Error, Result, Store, pools};
use crate::clock::UnixMillis;
use crate::egress::Proxy;
use crate::fault;
use crate::id::AccountId;
use crate::keys::seal::Binding;

sql::statements! {
    SET_ORIGIN = "UPDATE accounts SET origin = $1 WHERE id = $2";
    ORIGIN = "SELECT origin FROM accounts WHERE id = $1";
}

/// One account of several.
#[derive(Debug)]
pub struct Member<'a> {
    /// The account.
    pub account: NewAccount<'a>,
    /// An account of the same name and platform takes the credential.
    pub renew: bool,
    /// A pool that it joins besides the default one.
    pub pool: Option<&'a str>,
    /// A proxy of its own by which it leaves, unless the terms for all say one, or none.
    pub proxy: Option<&'a Proxy>,
    /// The rest of its file, beside its credential.
    pub origin: Option<&'a [u8]>,
}

/// The place of what an account's file said. It outlives its credentials.
pub(super) fn origin_binding<'a>(id: &'a str, platform: &'a str) -> Binding<'a> {
    Binding {
        record: id,
        generation: 0,
        platform,
        kind: "origin",
        base_url: None,
    }
}

impl Store {
    /// Saves accounts as [`Store::save_account`] does: all of them, on the same terms, but for their proxies.
    ///
    /// # Errors
    /// If one of them cannot be saved. Then none was.
    pub async fn save_accounts(
        &self,
        members: &[Member<'_>],
        terms: &Terms,
        now: UnixMillis,
    ) -> Result<Vec<Saved>> {
        let mut change = self.change().await?;
        let mut all = Vec::with_capacity(members.len());
        for member in members {
            let new = &member.account;
            let mut terms = terms.clone();
            terms.proxy = terms
                .proxy
                .or(member.proxy.map(|proxy| Some(proxy.clone())));
            let saved = change.save_account(new, &terms, member.renew, now).await?;
            let (Saved::Added(id) | Saved::Renewed(id)) = &saved;
            if let Some(pool) = member.pool {
                pools::known(change.sql(), pool).await?;
                change.join_pool(pool, id).await?;
            }
            if let Some(origin) = member.origin {
                change.set_origin(id, new.platform, origin).await?;
            }
            all.push(saved);
        }
        change.commit().await?;
        Ok(all)
    }

    /// Reads what the file of an account said beside its credential; none where it came from no file.
    ///
    /// # Errors
    /// If there is no such account, or it cannot be opened.
    pub async fn origin(&self, account: &Account) -> Result<Option<Vec<u8>>> {
        let sealed: Option<Option<Vec<u8>>> = sqlx::query_scalar(ORIGIN)
            .bind(account.id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let sealed = sealed.ok_or_else(|| Error::unknown(fault::Kind::Account, &account.name))?;
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let binding = origin_binding(account.id.as_str(), &account.platform);
        Ok(Some(self.keys.open(binding, &sealed)?.to_vec()))
    }
}

impl Change<'_> {
    async fn set_origin(&mut self, id: &AccountId, platform: &str, origin: &[u8]) -> Result<()> {
        let sealed = self
            .seal_bytes(origin_binding(id.as_str(), platform), origin)
            .await?;
        sqlx::query(SET_ORIGIN)
            .bind(sealed)
            .bind(id.as_str())
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
