//! Accounts: added, looked at, switched on and off, removed.

use std::collections::BTreeMap;

use latchkey::header::HeaderText;
use latchkey::limit::SubjectKind;
use latchkey::snapshot::Models;
use secrecy::{ExposeSecret, SecretString};
use sqlx::FromRow;

use super::error::{Named, Unfit};
use super::limits::{LimitRow, LimitSettings, Terms};
use super::sql::{self, JsonText, json_text, limit_columns, signed};
use super::sqlite::{self, Connection};
use super::{Change, DEFAULT_POOL, Error, Result, Store, corrupt};
use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::credential::{Credential, CredentialKind};
use crate::id::AccountId;
use crate::keys::seal::Binding;

/// The longest name of an account or a client key, in characters, so that a terminal shows a table of them.
pub(super) const MAX_NAME: usize = 64;

/// The standing of an account, apart from the end that its operator set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It may serve requests.
    Active,
    /// The operator switched it off. Its login is kept fresh all the same.
    Disabled,
    /// Its login has ended; a person must log in again.
    NeedsLogin,
    /// The platform refuses it until somebody sees to it. Its login is kept fresh all the same.
    Dead,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 4] = [
        Status::Active,
        Status::Disabled,
        Status::NeedsLogin,
        Status::Dead,
    ];

    /// The name in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Disabled => "disabled",
            Status::NeedsLogin => "needs_login",
            Status::Dead => "dead",
        }
    }
}

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Status, String> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no status"))
    }
}

/// What is known of an account at its platform, by name: the variables of the platform's header templates, and who it is.
/// Sealed at rest.
pub type Vars = BTreeMap<String, String>;

/// An account without its credential and its [`Vars`].
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Account {
    /// The id, never used again for another account.
    #[sqlx(try_from = "String")]
    pub id: AccountId,
    /// The name, unique among accounts.
    pub name: String,
    /// The platform's id.
    pub platform: String,
    /// The kind of its credential.
    #[sqlx(try_from = "String")]
    pub kind: CredentialKind,
    /// The standing of the account.
    #[sqlx(try_from = "String")]
    pub status: Status,
    /// The reason of its status, or the last failure.
    pub reason: Option<String>,
    /// The number of its credential, from 1.
    #[sqlx(try_from = "i64")]
    pub generation: u64,
    /// The time at which the current credential was stored.
    pub issued_at: UnixMillis,
    /// The end of the access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// Refreshes that failed in a row.
    #[sqlx(try_from = "i64")]
    pub failures: u32,
    /// The time before which no refresh is tried.
    pub retry_at: Option<UnixMillis>,
    /// The models that it serves.
    #[sqlx(try_from = "JsonText<Models>")]
    pub models: Models,
    /// The most that it may use.
    #[sqlx(flatten, try_from = "LimitRow")]
    pub limits: LimitSettings,
    /// The end that the operator set, whatever the credential.
    pub expires_at: Option<UnixMillis>,
    /// The end of the login, which no refresh moves, where its platform told one.
    pub login_ends_at: Option<UnixMillis>,
    /// Where it is reached, if not where its platform is.
    pub base_url: Option<String>,
    /// The revision of its last change.
    #[sqlx(try_from = "i64")]
    pub revision: u64,
}

/// An account with its vars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The account.
    pub account: Account,
    /// Its vars; none where they cannot be opened.
    pub vars: Option<Vars>,
}

/// A sealed credential, and what it is bound to beside the account's id.
#[derive(sqlx::FromRow)]
pub(super) struct SealedRow {
    platform: String,
    kind: String,
    #[sqlx(try_from = "i64")]
    generation: u64,
    pub(super) base_url: Option<String>,
    pub(super) credential: Vec<u8>,
    claim_until: Option<UnixMillis>,
}

impl SealedRow {
    pub(super) fn binding<'a>(&'a self, id: &'a AccountId) -> Binding<'a> {
        Binding {
            record: id.as_str(),
            generation: self.generation,
            platform: &self.platform,
            kind: &self.kind,
            base_url: self.base_url.as_deref(),
        }
    }
}

/// The sealed vars of an account.
#[derive(sqlx::FromRow)]
struct VarsRow {
    id: String,
    platform: String,
    vars: Vec<u8>,
}

/// The place of an account's sealed vars. They outlive its credentials.
pub(super) fn vars_binding<'a>(id: &'a str, platform: &'a str) -> Binding<'a> {
    Binding {
        record: id,
        generation: 0,
        platform,
        kind: "vars",
        base_url: None,
    }
}

/// A sealed API key, and whose it is.
#[derive(sqlx::FromRow)]
struct KeyRow {
    #[sqlx(try_from = "String")]
    id: AccountId,
    name: String,
    #[sqlx(flatten)]
    sealed: SealedRow,
}

macro_rules! select_accounts {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, platform, kind, status, reason, generation, issued_at, \
             credential_expires_at, failures, retry_at, models, expires_at, login_ends_at, base_url, revision, ",
            limit_columns!(),
            " FROM accounts ",
            $rest
        )
    };
}

sql::statements! {
    ALL = select_accounts!("ORDER BY name");
    BY_NAME = select_accounts!("WHERE name = $1 OR id = $1");
    SEALED = "SELECT platform, kind, generation, base_url, credential, claim_until FROM accounts WHERE id = $1";
    VARS = "SELECT id, platform, vars FROM accounts";
    VARS_OF = "SELECT id, platform, vars FROM accounts WHERE id = $1";
    SEALED_KEYS = "SELECT id, name, platform, kind, generation, base_url, credential, claim_until FROM accounts \
                   WHERE platform = $1 AND kind IN ('api_key', 'signed_key') ORDER BY name";
    ADD = "INSERT INTO accounts (id, name, platform, kind, status, vars, generation, credential, issued_at, \
           credential_expires_at, created_at, updated_at, revision, base_url) \
           VALUES ($1, $2, $3, $4, 'active', $5, 1, $6, $7, $8, $7, $7, $9, $10)";
    JOIN_POOL = "INSERT INTO pool_members (pool, account, position) \
                 SELECT $1, $2, coalesce(max(position), 0) + 1 FROM pool_members WHERE pool = $1";
    /// Leaves a claim alone: its holder may have a call in flight, and another must not join it.
    RENEW = "UPDATE accounts SET kind = $1, status = 'active', reason = NULL, vars = $2, generation = $3, \
             credential = $4, issued_at = $5, credential_expires_at = $6, unanswered = 0, \
             first_unanswered_at = NULL, failures = 0, retry_at = NULL, login_ends_at = NULL, updated_at = $5, revision = $7, \
             base_url = $9 WHERE id = $8";
    SET_STATUS = "UPDATE accounts SET status = $1, reason = $2, updated_at = $3, revision = $4 WHERE id = $5";
    SET_MODELS = "UPDATE accounts SET models = coalesce($1, models), updated_at = $2, revision = $3 WHERE id = $4";
    SET_BASE_URL = "UPDATE accounts SET base_url = $1, generation = $2, credential = $3 WHERE id = $4";
    DELETE = "DELETE FROM accounts WHERE id = $1";
    POOLS_OF = "SELECT pool FROM pool_members WHERE account = $1";
    BURY = "INSERT INTO tombstones (kind, id, revision) VALUES ($1, $2, $3) \
            ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision";
}

impl Account {
    /// True past the end that the operator set.
    pub fn has_ended(&self, now: UnixMillis) -> bool {
        self.expires_at.is_some_and(|time| time <= now)
    }

    /// When it ends for good unless a person does something; none where nobody knows an end.
    pub fn ends_at(&self) -> Option<UnixMillis> {
        let of_credential = self.credential_expires_at;
        let of_credential = of_credential.filter(|_| self.kind == CredentialKind::Session);
        let ends = [self.expires_at, self.login_ends_at, of_credential];
        ends.into_iter().flatten().min()
    }
}

#[cfg(test)]
impl Account {
    /// An account whose login has ended, for tests.
    pub fn example(name: &str, platform: &str) -> Account {
        Account {
            id: AccountId::random(),
            name: name.into(),
            platform: platform.into(),
            kind: CredentialKind::OAuth,
            status: Status::NeedsLogin,
            reason: None,
            generation: 1,
            issued_at: UnixMillis(0),
            credential_expires_at: None,
            failures: 0,
            retry_at: None,
            models: Models::default(),
            limits: LimitSettings::default(),
            expires_at: None,
            login_ends_at: None,
            base_url: None,
            revision: 1,
        }
    }
}

/// An account to be saved.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// The name: 1 to 64 visible characters.
    pub name: &'a str,
    /// The platform's id.
    pub platform: &'a str,
    /// The credential.
    pub credential: Credential,
    /// What is known of it there.
    pub vars: Vars,
    /// The end of the access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// Where it is reached, if not where its platform is. An account that exists keeps its own without one, if its owner
    /// gave it that.
    pub base_url: Option<&'a BaseUrl>,
}

/// Changes to an account; a field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccountChanges<'a> {
    /// The models that it serves; an empty list for all.
    pub models: Option<&'a Models>,
    /// Where it is reached; `Some(None)` for where its platform is.
    pub base_url: Option<Option<&'a BaseUrl>>,
}

/// The outcome of saving a [`NewAccount`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// The account is new.
    Added(AccountId),
    /// An account of this name and platform has the credential now, and is active.
    Renewed(AccountId),
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

    /// Every account, in order of name. One whose row cannot be read costs no other: it is out of use
    /// ([`Store::left_out`]), and not among them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn accounts(&self) -> Result<Vec<Account>> {
        let rows = sqlx::query(ALL).fetch_all(&self.pool).await?;
        let read = rows.iter().map(Account::from_row);
        Ok(read.filter_map(std::result::Result::ok).collect())
    }

    /// Every account with its vars, as [`Store::accounts`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn known_accounts(&self) -> Result<Vec<Known>> {
        let rows: Vec<VarsRow> = sqlx::query_as(VARS).fetch_all(&self.pool).await?;
        let opened = rows.into_iter().filter_map(|row| {
            let vars = self.open_vars(&row.id, &row.platform, &row.vars);
            let vars = vars
                .inspect_err(|error| tracing::error!(%error, "nobody knows whose account it is"));
            Some((row.id, vars.ok()?))
        });
        let mut opened: BTreeMap<String, Vars> = opened.collect();
        let accounts = self.accounts().await?.into_iter();
        let known = accounts.map(|account| Known {
            vars: opened.remove(account.id.as_str()),
            account,
        });
        Ok(known.collect())
    }

    /// The vars of an account.
    ///
    /// # Errors
    /// If there is no such account, or they cannot be opened.
    pub async fn vars(&self, id: &AccountId) -> Result<Vars> {
        let row: VarsRow = sqlx::query_as(VARS_OF)
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| unknown(id.as_str()))?;
        self.open_vars(&row.id, &row.platform, &row.vars)
    }

    /// Opens sealed vars.
    pub(super) fn open_vars(&self, id: &str, platform: &str, sealed: &[u8]) -> Result<Vars> {
        let plaintext = self.keys.open(vars_binding(id, platform), sealed)?;
        serde_json::from_slice(&plaintext).map_err(|_| corrupt("accounts.vars", "no variables"))
    }

    /// The account with this name or id.
    ///
    /// # Errors
    /// If there is none.
    pub async fn account(&self, name: &str) -> Result<Account> {
        known(&mut *self.pool.acquire().await?, name).await
    }

    /// The credential of an account, for revoking or exporting it.
    ///
    /// # Errors
    /// If there is no such account, or its credential cannot be opened.
    pub async fn credential(&self, id: &AccountId) -> Result<Credential> {
        let sealed: SealedRow = sqlx::query_as(SEALED)
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| unknown(id.as_str()))?;
        self.open_credential(sealed.binding(id), &sealed.credential)
    }

    /// Tells an account that is a client of its own, which buys tokens. One that cannot be opened is none.
    pub async fn has_own_client(&self, id: &AccountId) -> bool {
        let credential = self.credential(id).await;
        credential.is_ok_and(|credential| credential.is_client())
    }

    /// The names of the accounts of `platform` that have this API key. One that cannot be opened has another.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn holders_of(&self, platform: &str, key: &SecretString) -> Result<Vec<String>> {
        let rows = sqlx::query_as(SEALED_KEYS).bind(platform);
        let rows: Vec<KeyRow> = rows.fetch_all(&self.pool).await?;
        let has_it = |row: &KeyRow| {
            let binding = row.sealed.binding(&row.id);
            let held = match self.open_credential(binding, &row.sealed.credential) {
                Ok(Credential::ApiKey(key)) => key,
                Ok(Credential::Signed(signed)) => signed.key,
                _ => return false,
            };
            held.expose_secret() == key.expose_secret()
        };
        let holders = rows.into_iter().filter(has_it);
        Ok(holders.map(|row| row.name).collect())
    }

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
        let mut change = self.change().await?;
        let account = known(change.sql(), name).await?;
        if account.status != Status::Active {
            return Ok(false);
        }
        set_status(
            &mut change,
            &account.id,
            Status::Disabled,
            Some("disabled by the operator"),
            now,
        )
        .await?;
        change.commit().await?;
        Ok(true)
    }

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

    /// Deletes an account with its credential.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn remove_account(&self, id: &AccountId) -> Result<()> {
        let mut change = self.change().await?;
        touch_pools_of(&mut change, id).await?;
        let deleted = sqlx::query(DELETE)
            .bind(id.as_str())
            .execute(change.sql())
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(unknown(id.as_str()));
        }
        change.bury("account", id.as_str()).await?;
        change.commit().await
    }
}

impl Change<'_> {
    /// Saves one account of a change.
    pub(super) async fn save_account(
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
                return Err(Error::name_taken(Named::Account, new.name));
            }
            None => Saved::Added(add_account(self, new, now).await?),
        };
        let (Saved::Added(id) | Saved::Renewed(id)) = &saved;
        self.set_terms(SubjectKind::Account, id.as_str(), terms)
            .await?;
        Ok(saved)
    }

    /// The sealed credential of an account.
    async fn sealed(&mut self, id: &AccountId) -> Result<SealedRow> {
        let sealed = sqlx::query_as(SEALED).bind(id.as_str());
        let sealed = sealed.fetch_optional(self.sql()).await?;
        sealed.ok_or_else(|| unknown(id.as_str()))
    }

    /// The same, where no refresh is under way: that would store its tokens for the generation that it began with.
    pub(super) async fn sealed_at_rest(&mut self, account: &Account) -> Result<SealedRow> {
        let sealed = self.sealed(&account.id).await?;
        let clock = sqlite::now(self.sql()).await?;
        if sealed.claim_until.is_some_and(|until| until > clock) {
            return Err(Error::Refreshing {
                account: account.name.clone(),
            });
        }
        Ok(sealed)
    }

    /// Seals an account's credential for another place. That is a new generation: what is reported of the old one was
    /// learned in the old place.
    async fn reach_at(&mut self, account: &Account, base_url: Option<&str>) -> Result<()> {
        let sealed = self.sealed_at_rest(account).await?;
        let (store, id) = (self.store, &account.id);
        let credential = store.open_credential(sealed.binding(id), &sealed.credential)?;
        let generation = account.generation + 1;
        let sealed = self
            .seal(
                id.as_str(),
                generation,
                &account.platform,
                base_url,
                &credential,
            )
            .await?;
        sqlx::query(SET_BASE_URL)
            .bind(base_url)
            .bind(signed(generation))
            .bind(sealed)
            .bind(id.as_str())
            .execute(self.sql())
            .await?;
        Ok(())
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

    /// Notes that a record is gone.
    pub(super) async fn bury(&mut self, kind: &'static str, id: &str) -> Result<()> {
        let revision = self.next_revision().await?;
        sqlx::query(BURY)
            .bind(kind)
            .bind(id)
            .bind(revision)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::unknown(Named::Account, name)
}

/// Refuses an account that could not go to Envoy.
fn check_fit(new: &NewAccount<'_>) -> Result<()> {
    check_name(Named::Account, new.name)?;
    let unfit = |unfit| Error::Unfit {
        record: Named::Account,
        name: new.name.to_owned(),
        unfit,
    };
    let fits = |text: &str| HeaderText::try_from(text).is_ok();
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
pub(super) fn check_name(record: Named, name: &str) -> Result<()> {
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
    let generation = old.generation + 1;
    let base_url = match new.base_url {
        Some(url) => Some(url.as_str().to_owned()),
        None => change.kept_base_url(old).await?,
    };
    let (id, platform) = (old.id.as_str(), &old.platform);
    let sealed = change
        .seal(
            id,
            generation,
            platform,
            base_url.as_deref(),
            &new.credential,
        )
        .await?;
    let vars = change.seal_vars(id, platform, &new.vars).await?;
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

/// Gives each pool that the account is in a new revision.
async fn touch_pools_of(change: &mut Change<'_>, id: &AccountId) -> Result<()> {
    let pools: Vec<String> = sqlx::query_scalar(POOLS_OF)
        .bind(id.as_str())
        .fetch_all(change.sql())
        .await?;
    for pool in pools {
        change.touch_pool(&pool).await?;
    }
    Ok(())
}

async fn find(connection: &mut Connection, name: &str) -> Result<Option<Account>> {
    let found = sqlx::query_as(BY_NAME).bind(name);
    Ok(found.fetch_optional(connection).await?)
}

/// The account with this name or id; an error where there is none.
pub(super) async fn known(connection: &mut Connection, name: &str) -> Result<Account> {
    find(connection, name).await?.ok_or_else(|| unknown(name))
}
