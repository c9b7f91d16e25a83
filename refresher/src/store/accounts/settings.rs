//! The settings of an account that an operator changes.

use latchkey::limit::SubjectKind;
use latchkey::snapshot::{ModelMaps, Models};

use super::{Account, known};
use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::store::limits::Terms;
use crate::store::sql::{self, json_text, signed};
use crate::store::{Change, Result, Store};

/// Changes to an account; a field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccountChanges<'a> {
    /// The models that it serves; an empty list for all.
    pub models: Option<&'a Models>,
    /// The names by which its platform knows models.
    pub maps: Option<&'a ModelMaps>,
    /// The address at which it is reached; `Some(None)` for its platform's.
    pub base_url: Option<Option<&'a BaseUrl>>,
}

sql::statements! {
    SET_MODELS = "UPDATE accounts SET models = coalesce($1, models), maps = coalesce($5, maps), updated_at = $2, revision = $3 \
                  WHERE id = $4";
    SET_BASE_URL = "UPDATE accounts SET base_url = $1, generation = $2, credential = $3 WHERE id = $4";
}

impl Store {
    /// Changes an account and its terms. One that is reached elsewhere, or by another way, has its health forgotten, which
    /// was learned where it was before.
    ///
    /// # Errors
    /// If there is no such account. If it is to be reached elsewhere: if its credential cannot be opened, or a refresh of
    /// it is under way.
    pub async fn set_account(
        &self,
        name: &str,
        changes: AccountChanges<'_>,
        terms: &Terms,
        now: UnixMillis,
    ) -> Result<()> {
        let mut change = self.change().await?;
        let account = known(change.sql(), name).await?;
        change
            .set_terms(SubjectKind::Account, account.id.as_str(), terms)
            .await?;
        let revision = change.next_revision().await?;
        sqlx::query(SET_MODELS)
            .bind(changes.models.map(json_text))
            .bind(now)
            .bind(revision)
            .bind(account.id.as_str())
            .bind(changes.maps.map(json_text))
            .execute(change.sql())
            .await?;
        let base_url = changes.base_url.map(|url| url.map(BaseUrl::as_str));
        if let Some(base_url) = base_url.filter(|url| *url != account.base_url.as_deref()) {
            change.reach_at(&account, base_url).await?;
            change.forget_health(&account.id, now).await?;
        } else if terms.proxy.is_some() {
            change.forget_health(&account.id, now).await?;
        }
        change.commit().await
    }
}

impl Change<'_> {
    /// Seals an account's credential for another place. That is a new generation: what is reported of the old one was
    /// learned in the old place.
    async fn reach_at(&mut self, account: &Account, base_url: Option<&str>) -> Result<()> {
        let credential = self.credential_at_rest(account).await?;
        let (generation, sealed) = self.seal_next(account, base_url, &credential).await?;
        sqlx::query(SET_BASE_URL)
            .bind(base_url)
            .bind(signed(generation))
            .bind(sealed)
            .bind(account.id.as_str())
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
