//! Accounts that are saved: new ones, and those that get a new credential.

use latchkey::header::HeaderText;
use latchkey::limit::SubjectKind;
use secrecy::ExposeSecret;

use super::removal::touch_pools_of;
use super::{Account, Status, Vars, find, vars_binding};
use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::credential::Credential;
use crate::fault;
use crate::id::AccountId;
use crate::store::error::{MAX_NAME, Unfit};
use crate::store::limits::Terms;
use crate::store::sql::{self, json_text, signed};
use crate::store::sqlite::Connection;
use crate::store::{Change, DEFAULT_POOL, Error, Result, Store};

/// An account to be saved.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// The name: 1 to 64 visible characters.
    pub name: &'a str,
    /// The platform's id.
    pub platform: &'a str,
    /// The credential.
    pub credential: Credential,
    /// The facts of it there.
    pub vars: Vars,
    /// The end of the access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// The address at which it is reached, if not its platform's. Without one, an account keeps its own, if its owner
    /// gave it that.
    pub base_url: Option<&'a BaseUrl>,
}

/// The outcome of saving a [`NewAccount`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// The account is new.
    Added(AccountId),
    /// An account of this name and platform has the credential now, and is active.
    Renewed(AccountId),
}

sql::statements! {
    ADD = "INSERT INTO accounts (id, name, platform, kind, status, vars, generation, credential, issued_at, \
           credential_expires_at, created_at, updated_at, revision, base_url) \
           VALUES ($1, $2, $3, $4, 'active', $5, 1, $6, $7, $8, $7, $7, $9, $10)";
    JOIN_POOL = "INSERT INTO pool_members (pool, account, position) \
                 SELECT $1, $2, coalesce(max(position), 0) + 1 FROM pool_members WHERE pool = $1";
    /// Leaves a claim alone: its holder may have a call in flight, and another must not join it.
    RENEW = "UPDATE accounts SET kind = $1, status = 'active', reason = NULL, vars = $2, generation = $3, \
             credential = $4, issued_at = $5, credential_expires_at = $6, unanswered = 0, \
             first_unanswered_at = NULL, failures = 0, failing = 'null', retry_at = NULL, login_ends_at = NULL, updated_at = $5, revision = $7, \
             base_url = $9 WHERE id = $8";
    OWNER_OF = "SELECT platform, vars FROM accounts WHERE id = $1 AND generation = $2";
    NOTE_OWNER = "UPDATE accounts SET vars = $1, revision = $2 WHERE id = $3";
}

impl Store {
    /// Saves an account and lets it join the default pool. With `renew` an account of the same name and platform takes
    /// the new credential; without, the name must be free. Of `terms` an account that exists takes those that are set.
    ///
    /// # Errors
    /// If the name is taken, or something in it cannot go into a header.
    pub async fn save_account(
        &self,
        new: NewAccount<'_>,
        terms: &Terms,
        renew: bool,
        now: UnixMillis,
    ) -> Result<Saved> {
        let mut change = self.change().await?;
        let saved = change.save_account(&new, terms, renew, now).await?;
        change.commit().await?;
        Ok(saved)
    }

    /// Gives an account that needs a login its new one. False, and nothing changed, if there is no such account, it needs
    /// none any more, or its credential is not that of `generation`.
    ///
    /// # Errors
    /// If something in it cannot go into a header.
    pub async fn renew_login(
        &self,
        id: &AccountId,
        generation: u64,
        new: NewAccount<'_>,
        now: UnixMillis,
    ) -> Result<bool> {
        check_fit(&new)?;
        let mut change = self.change().await?;
        match find(change.sql(), id.as_str()).await? {
            Some(old)
                if old.id == *id
                    && old.generation == generation
                    && old.status == Status::NeedsLogin =>
            {
                renew_account(&mut change, &old, &new, now).await?;
            }
            _ => return Ok(false),
        }
        change.commit().await?;
        Ok(true)
    }
}

impl Change<'_> {
    /// Saves one account of a change.
    pub(in crate::store) async fn save_account(
        &mut self,
        new: &NewAccount<'_>,
        terms: &Terms,
        renew: bool,
        now: UnixMillis,
    ) -> Result<Saved> {
        check_fit(new)?;
        let saved = match find(self.sql(), new.name).await? {
            Some(old) if renew && old.platform == new.platform => {
                renew_account(self, &old, new, now).await?;
                Saved::Renewed(old.id)
            }
            Some(_) => {
                return Err(Error::name_taken(fault::Kind::Account, new.name));
            }
            None => Saved::Added(add_account(self, new, now).await?),
        };
        let (Saved::Added(id) | Saved::Renewed(id)) = &saved;
        self.set_terms(SubjectKind::Account, id.as_str(), terms)
            .await?;
        Ok(saved)
    }

    /// The base URL that an account keeps with a new credential. Only the seal of the old one says that it is its
    /// owner's: whoever writes the database could have put another there.
    async fn kept_base_url(&mut self, account: &Account) -> Result<Option<String>> {
        if account.base_url.is_some() {
            let sealed = self.sealed(&account.id).await?;
            let opened = self
                .store
                .open_credential(sealed.binding(&account.id), &sealed.credential);
            opened.map_err(|_| Error::ForeignBaseUrl {
                account: account.name.clone(),
                platform: account.platform.clone(),
            })?;
        }
        Ok(account.base_url.clone())
    }

    async fn seal_vars(&mut self, id: &str, platform: &str, vars: &Vars) -> Result<Vec<u8>> {
        let plaintext = json_text(vars);
        self.seal_bytes(vars_binding(id, platform), plaintext.as_bytes())
            .await
    }
}

impl Store {
    /// Notes whose an account of this generation is, unless it has a var `identity` already. What could not go to Envoy is
    /// left out.
    ///
    /// # Errors
    /// If the database fails, or the account's vars cannot be opened.
    pub async fn note_owner(
        &self,
        account: &AccountId,
        generation: u64,
        identity: &str,
        told: &Vars,
    ) -> Result<()> {
        let mut reader = self.pool.acquire().await?;
        let unnamed = self.unnamed(&mut reader, account, generation, identity);
        // As a rule it is known: nobody else's change waits for that to be told.
        if unnamed.await?.is_none() {
            return Ok(());
        }
        drop(reader);
        let mut change = self.change().await?;
        let unnamed = self.unnamed(change.sql(), account, generation, identity);
        let Some((platform, mut vars)) = unnamed.await? else {
            return Ok(());
        };
        for (name, value) in told.iter().filter(|(_, value)| fits(value)) {
            vars.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let sealed = change.seal_vars(account.as_str(), &platform, &vars).await?;
        let revision = change.next_revision().await?;
        sqlx::query(NOTE_OWNER)
            .bind(sealed)
            .bind(revision)
            .bind(account.as_str())
            .execute(change.sql())
            .await?;
        change.commit().await
    }

    /// The platform and the vars of an account of this generation that has no var `identity`. None too if it was replaced, or
    /// removed.
    async fn unnamed(
        &self,
        sql: &mut Connection,
        account: &AccountId,
        generation: u64,
        identity: &str,
    ) -> Result<Option<(String, Vars)>> {
        let row: Option<(String, Vec<u8>)> = sqlx::query_as(OWNER_OF)
            .bind(account.as_str())
            .bind(signed(generation))
            .fetch_optional(sql)
            .await?;
        let Some((platform, sealed)) = row else {
            return Ok(None);
        };
        let vars = self.open_vars(account.as_str(), &platform, &sealed)?;
        Ok((!vars.contains_key(identity)).then_some((platform, vars)))
    }
}

/// Returns true if a text can stand in a header.
fn fits(text: &str) -> bool {
    HeaderText::try_from(text).is_ok()
}

/// Refuses an account that could not go to Envoy.
fn check_fit(new: &NewAccount<'_>) -> Result<()> {
    check_name(fault::Kind::Account, new.name)?;
    let unfit = |unfit| Error::Unfit {
        record: fault::Kind::Account,
        name: new.name.to_owned(),
        unfit,
    };
    let wire = new.credential.on_the_wire().expose_secret();
    if new.credential.is_empty() || !fits(wire) {
        return Err(unfit(Unfit::Credential));
    }
    if new
        .credential_expires_at
        .is_some_and(|time| time < UnixMillis(0))
    {
        return Err(unfit(Unfit::Time));
    }
    match new.vars.iter().find(|(_, value)| !fits(value)) {
        Some((name, _)) => Err(unfit(Unfit::Variable(name.clone()))),
        None => Ok(()),
    }
}

/// Refuses a name that could not go into headers, tables and commands.
pub(in crate::store) fn check_name(record: fault::Kind, name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-');
    if fits
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && name.trim() == name
    {
        return Ok(());
    }
    Err(Error::Unfit {
        record,
        name: name.to_owned(),
        unfit: Unfit::Name,
    })
}

async fn add_account(
    change: &mut Change<'_>,
    new: &NewAccount<'_>,
    now: UnixMillis,
) -> Result<AccountId> {
    let id = AccountId::random();
    let base_url = new.base_url.map(BaseUrl::as_str);
    let sealed = change
        .seal(id.as_str(), 1, new.platform, base_url, &new.credential)
        .await?;
    let vars = change
        .seal_vars(id.as_str(), new.platform, &new.vars)
        .await?;
    let revision = change.next_revision().await?;
    sqlx::query(ADD)
        .bind(id.as_str())
        .bind(new.name)
        .bind(new.platform)
        .bind(new.credential.kind().as_str())
        .bind(vars)
        .bind(sealed)
        .bind(now)
        .bind(new.credential_expires_at)
        .bind(revision)
        .bind(base_url)
        .execute(change.sql())
        .await?;
    sqlx::query(JOIN_POOL)
        .bind(DEFAULT_POOL)
        .bind(id.as_str())
        .execute(change.sql())
        .await?;
    change.require_room(DEFAULT_POOL).await?;
    touch_pools_of(change, &id).await?;
    Ok(id)
}

/// Gives an account its next credential, and forgets its health, which was learned with the old one.
async fn renew_account(
    change: &mut Change<'_>,
    old: &Account,
    new: &NewAccount<'_>,
    now: UnixMillis,
) -> Result<()> {
    let base_url = match new.base_url {
        Some(url) => Some(url.as_str().to_owned()),
        None => change.kept_base_url(old).await?,
    };
    let (generation, sealed) = change
        .seal_next(old, base_url.as_deref(), &new.credential)
        .await?;
    let id = old.id.as_str();
    let vars = change.seal_vars(id, &old.platform, &new.vars).await?;
    let revision = change.next_revision().await?;
    sqlx::query(RENEW)
        .bind(new.credential.kind().as_str())
        .bind(vars)
        .bind(signed(generation))
        .bind(sealed)
        .bind(now)
        .bind(new.credential_expires_at)
        .bind(revision)
        .bind(id)
        .bind(base_url)
        .execute(change.sql())
        .await?;
    change.forget_health(&old.id, now).await
}
