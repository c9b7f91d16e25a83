//! The proxies by which single accounts leave. Sealed at rest, for their passwords.
//!
//! Who cannot be read is not taken for none: an account whose proxy cannot be opened is out of use.

use std::collections::BTreeMap;

use super::sqlite::Connection;
use super::{Change, Result, Store, corrupt, sql};
use crate::egress::Proxy;
use crate::id::AccountId;
use crate::keys::seal::Binding;

sql::statements! {
    OF_ACCOUNT = "SELECT accounts.platform, egress.proxy FROM egress JOIN accounts ON accounts.id = egress.account \
                  WHERE egress.account = $1";
    ALL = "SELECT egress.account, accounts.platform, egress.proxy FROM egress \
           JOIN accounts ON accounts.id = egress.account ORDER BY egress.account";
    PLATFORM = "SELECT platform FROM accounts WHERE id = $1";
    SET = "INSERT INTO egress (account, proxy) VALUES ($1, $2) \
           ON CONFLICT (account) DO UPDATE SET proxy = excluded.proxy";
    UNSET = "DELETE FROM egress WHERE account = $1";
}

/// A sealed proxy, and whose it is.
#[derive(sqlx::FromRow)]
struct EgressRow {
    #[sqlx(try_from = "String")]
    account: AccountId,
    platform: String,
    proxy: Vec<u8>,
}

/// The place of an account's sealed proxy. It outlives the account's credentials.
pub(super) fn binding<'a>(id: &'a str, platform: &'a str) -> Binding<'a> {
    Binding {
        record: id,
        generation: 0,
        platform,
        kind: "proxy",
        base_url: None,
    }
}

impl Store {
    /// The proxy by which an account leaves; none where it has none of its own.
    ///
    /// # Errors
    /// If it cannot be opened, or the database fails.
    pub async fn proxy(&self, id: &AccountId) -> Result<Option<Proxy>> {
        let mut connection = self.pool.acquire().await?;
        self.proxy_of(&mut connection, id.as_str()).await
    }

    /// [`Store::proxy`], in a transaction.
    pub(super) async fn proxy_of(
        &self,
        connection: &mut Connection,
        id: &str,
    ) -> Result<Option<Proxy>> {
        let row: Option<(String, Vec<u8>)> = sqlx::query_as(OF_ACCOUNT)
            .bind(id)
            .fetch_optional(connection)
            .await?;
        row.map(|(platform, sealed)| self.open_proxy(id, &platform, &sealed))
            .transpose()
    }

    /// The proxies of all accounts that have one, by the accounts' ids. One that cannot be opened is an error of its own.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn proxies(&self) -> Result<BTreeMap<AccountId, Result<Proxy>>> {
        let rows: Vec<EgressRow> = sqlx::query_as(ALL).fetch_all(&self.pool).await?;
        let opened = rows.into_iter().map(|row| {
            let proxy = self.open_proxy(row.account.as_str(), &row.platform, &row.proxy);
            (row.account, proxy)
        });
        Ok(opened.collect())
    }

    /// Opens a sealed proxy.
    pub(super) fn open_proxy(&self, id: &str, platform: &str, sealed: &[u8]) -> Result<Proxy> {
        let plaintext = self.keys.open(binding(id, platform), sealed)?;
        let text = std::str::from_utf8(&plaintext).ok();
        let proxy = text.and_then(|text| Proxy::parse(text, None).ok());
        proxy.ok_or_else(|| corrupt("egress.proxy", "no proxy that can be used"))
    }
}

impl Change<'_> {
    /// Has an account leave by this proxy, or as its platform's others. It is given no revision.
    pub(super) async fn set_proxy(&mut self, id: &str, proxy: Option<&Proxy>) -> Result<()> {
        let Some(proxy) = proxy else {
            sqlx::query(UNSET).bind(id).execute(self.sql()).await?;
            return Ok(());
        };
        let platform: String = sqlx::query_scalar(PLATFORM)
            .bind(id)
            .fetch_one(self.sql())
            .await?;
        let plaintext = proxy.exposed().as_bytes();
        let sealed = self.seal_bytes(binding(id, &platform), plaintext).await?;
        sqlx::query(SET)
            .bind(id)
            .bind(sealed)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
