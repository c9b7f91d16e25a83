//! Accounts: added, looked at, switched on and off, removed.

use std::collections::BTreeMap;

use latchkey::header::HeaderText;
use latchkey::limit::SubjectKind;
use latchkey::snapshot::Models;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::limits::{LIMIT_COLUMNS, LimitSettings, Terms, settings};
use super::snapshot::models_from_json;
use super::{Change, DEFAULT_POOL, Error, Result, Store, corrupt, signed, unsigned};
use crate::clock::UnixMillis;
use crate::credential::{Credential, CredentialKind, OAuthTokens};
use crate::id::AccountId;

/// The longest name of an account or a client key, in characters: what a table on a terminal can show.
pub(super) const MAX_NAME: usize = 64;

/// Whether an account may serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It may.
    Active,
    /// The operator switched it off. Its login is kept fresh all the same.
    Disabled,
    /// Its login has ended; a person must log in again.
    NeedsLogin,
    /// The platform says that it is of no use until somebody sees to it. Its login is kept fresh all the same.
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
    /// What is shown of an active account that is past its end.
    pub const ENDED: &str = "ended";

    /// Its name in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Disabled => "disabled",
            Status::NeedsLogin => "needs_login",
            Status::Dead => "dead",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Status> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| corrupt("accounts.status", format!("{text:?}")))
    }
}

/// An account without its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Never reused.
    pub id: AccountId,
    /// Unique.
    pub name: String,
    /// Its platform's id.
    pub platform: String,
    /// The kind of its credential.
    pub kind: CredentialKind,
    /// Whether it may serve requests.
    pub status: Status,
    /// Why not, or what went wrong last.
    pub reason: Option<String>,
    /// What the platform's header templates use.
    pub vars: BTreeMap<String, String>,
    /// Counts its credentials, from 1.
    pub generation: u64,
    /// When the current credential was stored.
    pub issued_at: UnixMillis,
    /// When the access token expires, where that is known.
    pub expires_at: Option<UnixMillis>,
    /// Refreshes that failed in a row.
    pub failures: u32,
    /// No refresh before this.
    pub retry_at: Option<UnixMillis>,
    /// The models that it serves.
    pub models: Models,
    /// What it may use.
    pub limits: LimitSettings,
    /// When it ends, whatever its credential.
    pub ends_at: Option<UnixMillis>,
    /// The revision of its last change.
    pub revision: u64,
}

impl Account {
    /// Whether it is past its end.
    pub fn has_ended(&self, now: UnixMillis) -> bool {
        self.ends_at.is_some_and(|time| time <= now)
    }
}

#[cfg(test)]
impl Account {
    /// An account whose login has ended, for tests.
    pub fn example(name: &str, platform: &str, vars: BTreeMap<String, String>) -> Account {
        Account {
            id: AccountId::random(),
            name: name.into(),
            platform: platform.into(),
            kind: CredentialKind::OAuth,
            status: Status::NeedsLogin,
            reason: None,
            vars,
            generation: 1,
            issued_at: UnixMillis(0),
            expires_at: None,
            failures: 0,
            retry_at: None,
            models: Models::default(),
            limits: LimitSettings::default(),
            ends_at: None,
            revision: 1,
        }
    }
}

/// An account to be saved.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// 1 to 64 characters, none of them a control character.
    pub name: &'a str,
    /// Its platform's id.
    pub platform: &'a str,
    /// What proves it.
    pub credential: Credential,
    /// What the platform's header templates use.
    pub vars: BTreeMap<String, String>,
    /// When the access token expires, where that is known.
    pub expires_at: Option<UnixMillis>,
}

/// What became of a [`NewAccount`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is new.
    Added(AccountId),
    /// An account of this name and platform has the credential now, and is active.
    Renewed(AccountId),
}

/// The columns of an [`Account`].
fn columns() -> String {
    format!("{COLUMNS}, {LIMIT_COLUMNS} FROM accounts")
}

const COLUMNS: &str = "SELECT id, name, platform, kind, status, reason, vars, generation, issued_at, expires_at, \
                       failures, retry_at, models, ends_at, revision";

impl Store {
    /// Saves an account and lets it join the default pool. `renew` says whether an account of the same name and
    /// platform takes the new credential, and keeps its terms; else the name must be free.
    ///
    /// # Errors
    /// If the name is taken, or something in it cannot go into a header.
    pub async fn save_account(
        &self,
        new: NewAccount<'_>,
        renew: bool,
        now: UnixMillis,
    ) -> Result<Saved> {
        self.save_account_on(new, &Terms::default(), renew, now)
            .await
    }

    /// [`Store::save_account`] on these terms.
    ///
    /// # Errors
    /// As there.
    pub async fn save_account_on(
        &self,
        new: NewAccount<'_>,
        terms: &Terms,
        renew: bool,
        now: UnixMillis,
    ) -> Result<Saved> {
        check_fit(&new)?;
        let mut change = self.change().await?;
        let saved = match find(change.sql(), new.name).await? {
            Some(old) if renew && old.platform == new.platform => {
                renew_account(&mut change, &old, &new, now).await?;
                Saved::Renewed(old.id)
            }
            Some(_) => {
                return Err(Error::NameTaken {
                    kind: "an account",
                    name: new.name.to_owned(),
                });
            }
            None => Saved::Added(add_account(&mut change, &new, now).await?),
        };
        let (Saved::Added(id) | Saved::Renewed(id)) = &saved;
        change
            .set_terms(SubjectKind::Account, id.as_str(), terms)
            .await?;
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

    /// Every account, in order of name.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn accounts(&self) -> Result<Vec<Account>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{} ORDER BY name", columns())))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(account).collect()
    }

    /// The account with this name or id.
    ///
    /// # Errors
    /// If there is none.
    pub async fn account(&self, name: &str) -> Result<Account> {
        known(&mut *self.pool.acquire().await?, name).await
    }

    /// The OAuth tokens of an account, for revoking them; `None` if its credential is of another kind.
    ///
    /// # Errors
    /// If there is no such account, or its credential cannot be opened.
    pub async fn tokens(&self, id: &AccountId) -> Result<Option<OAuthTokens>> {
        let row = sqlx::query("SELECT generation, credential FROM accounts WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| unknown(id.as_str()))?;
        let generation = unsigned("accounts.generation", row.try_get("generation")?)?;
        match self.open_credential(id.as_str(), generation, row.try_get("credential")?)? {
            Credential::OAuth(tokens) => Ok(Some(tokens)),
            Credential::ApiKey(_) | Credential::Client(_) => Ok(None),
        }
    }

    /// Lets an account serve requests again; of one that was dead, what was learned is forgotten. True if that changed
    /// anything.
    ///
    /// # Errors
    /// If there is no such account, or it needs a login.
    pub async fn enable(&self, name: &str, now: UnixMillis) -> Result<bool> {
        let mut change = self.change().await?;
        let account = known(change.sql(), name).await?;
        match account.status {
            Status::Active => return Ok(false),
            Status::NeedsLogin => {
                return Err(Error::NeedsLogin {
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

    /// Changes which models an account serves, an empty list for all, and its terms.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn set_account(
        &self,
        name: &str,
        models: Option<&Models>,
        terms: &Terms,
        now: UnixMillis,
    ) -> Result<()> {
        let mut change = self.change().await?;
        let account = known(change.sql(), name).await?;
        change
            .set_terms(SubjectKind::Account, account.id.as_str(), terms)
            .await?;
        let revision = change.next_revision().await?;
        sqlx::query(
            "UPDATE accounts SET models = coalesce(?, models), updated_at = ?, revision = ? WHERE id = ?",
        )
            .bind(models.map(models_to_json))
            .bind(now.0)
            .bind(revision)
            .bind(account.id.as_str())
            .execute(change.sql())
            .await?;
        change.commit().await
    }

    /// Deletes an account with its credential.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn remove_account(&self, id: &AccountId) -> Result<()> {
        let mut change = self.change().await?;
        touch_pools_of(&mut change, id).await?;
        let deleted = sqlx::query("DELETE FROM accounts WHERE id = ?")
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
    /// Notes that a record is gone.
    pub(super) async fn bury(&mut self, kind: &'static str, id: &str) -> Result<()> {
        let revision = self.next_revision().await?;
        sqlx::query("INSERT OR REPLACE INTO tombstones (kind, id, revision) VALUES (?, ?, ?)")
            .bind(kind)
            .bind(id)
            .bind(revision)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::Unknown {
        kind: "account",
        name: name.to_owned(),
        list: "accounts list",
    }
}

/// Refuses what could not go to Envoy.
fn check_fit(new: &NewAccount<'_>) -> Result<()> {
    let unfit = |problem: String| Error::Unfit {
        account: new.name.to_owned(),
        problem,
    };
    check_name(new.name).map_err(&unfit)?;
    let fits = |text: &str| HeaderText::try_from(text).is_ok();
    let wire = secrecy::ExposeSecret::expose_secret(new.credential.on_the_wire());
    if wire.is_empty() || !fits(wire) {
        return Err(unfit(
            "expected a credential of visible ASCII characters; check that it was copied whole"
                .into(),
        ));
    }
    match new.vars.iter().find(|(_, value)| !fits(value)) {
        Some((name, _)) => Err(unfit(format!(
            "expected visible ASCII in its variable {name}"
        ))),
        None => Ok(()),
    }
}

/// Names go into headers, tables and commands.
pub(super) fn check_name(name: &str) -> std::result::Result<(), String> {
    let fits = !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-');
    if fits
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && name.trim() == name
    {
        return Ok(());
    }
    Err(format!(
        "expected a name of 1 to {MAX_NAME} visible ASCII characters that does not start with -"
    ))
}

async fn add_account(
    change: &mut Change<'_>,
    new: &NewAccount<'_>,
    now: UnixMillis,
) -> Result<AccountId> {
    let id = AccountId::random();
    let sealed = change.seal(id.as_str(), 1, &new.credential).await?;
    let revision = change.next_revision().await?;
    sqlx::query(
        "INSERT INTO accounts (id, name, platform, kind, status, vars, generation, credential, issued_at, expires_at, \
         created_at, updated_at, revision) VALUES (?1, ?2, ?3, ?4, 'active', ?5, 1, ?6, ?7, ?8, ?7, ?7, ?9)",
    )
    .bind(id.as_str())
    .bind(new.name)
    .bind(new.platform)
    .bind(new.credential.kind().as_str())
    .bind(vars_to_json(&new.vars))
    .bind(sealed)
    .bind(now.0)
    .bind(new.expires_at.map(|time| time.0))
    .bind(revision)
    .execute(change.sql())
    .await?;
    sqlx::query(
        "INSERT INTO pool_members (pool, account, position) \
         SELECT ?1, ?2, coalesce(max(position), 0) + 1 FROM pool_members WHERE pool = ?1",
    )
    .bind(DEFAULT_POOL)
    .bind(id.as_str())
    .execute(change.sql())
    .await?;
    touch_pools_of(change, &id).await?;
    Ok(id)
}

/// Leaves a claim alone: its holder may have a call in flight, and another must not join it. What was learned with the
/// old credential is forgotten.
async fn renew_account(
    change: &mut Change<'_>,
    old: &Account,
    new: &NewAccount<'_>,
    now: UnixMillis,
) -> Result<()> {
    let generation = old.generation + 1;
    let sealed = change
        .seal(old.id.as_str(), generation, &new.credential)
        .await?;
    let revision = change.next_revision().await?;
    sqlx::query(
        "UPDATE accounts SET kind = ?1, status = 'active', reason = NULL, vars = ?2, generation = ?3, credential = ?4, \
         issued_at = ?5, expires_at = ?6, unanswered = 0, first_unanswered_at = NULL, failures = 0, retry_at = NULL, \
         updated_at = ?5, revision = ?7 WHERE id = ?8",
    )
    .bind(new.credential.kind().as_str())
    .bind(vars_to_json(&new.vars))
    .bind(signed(generation))
    .bind(sealed)
    .bind(now.0)
    .bind(new.expires_at.map(|time| time.0))
    .bind(revision)
    .bind(old.id.as_str())
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
    sqlx::query(
        "UPDATE accounts SET status = ?, reason = ?, updated_at = ?, revision = ? WHERE id = ?",
    )
    .bind(status.as_str())
    .bind(reason)
    .bind(now.0)
    .bind(revision)
    .bind(id.as_str())
    .execute(change.sql())
    .await?;
    Ok(())
}

/// Gives each pool that the account is in a new revision.
async fn touch_pools_of(change: &mut Change<'_>, id: &AccountId) -> Result<()> {
    let pools: Vec<String> = sqlx::query_scalar("SELECT pool FROM pool_members WHERE account = ?")
        .bind(id.as_str())
        .fetch_all(change.sql())
        .await?;
    for pool in pools {
        change.touch_pool(&pool).await?;
    }
    Ok(())
}

async fn find(connection: &mut SqliteConnection, name: &str) -> Result<Option<Account>> {
    let sql = sqlx::AssertSqlSafe(format!("{} WHERE name = ?1 OR id = ?1", columns()));
    let row = sqlx::query(sql)
        .bind(name)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(account).transpose()
}

pub(super) async fn known(connection: &mut SqliteConnection, name: &str) -> Result<Account> {
    find(connection, name).await?.ok_or_else(|| unknown(name))
}

fn account(row: &SqliteRow) -> Result<Account> {
    let kind: &str = row.try_get("kind")?;
    Ok(Account {
        id: account_id(row.try_get("id")?)?,
        name: row.try_get("name")?,
        platform: row.try_get("platform")?,
        kind: CredentialKind::parse(kind)
            .ok_or_else(|| corrupt("accounts.kind", format!("{kind:?}")))?,
        status: Status::parse(row.try_get("status")?)?,
        reason: row.try_get("reason")?,
        vars: vars_from_json(row.try_get("vars")?)?,
        generation: unsigned("accounts.generation", row.try_get("generation")?)?,
        issued_at: UnixMillis(row.try_get("issued_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(UnixMillis),
        failures: row.try_get("failures")?,
        retry_at: row.try_get::<Option<i64>, _>("retry_at")?.map(UnixMillis),
        models: models_from_json("accounts.models", row.try_get("models")?)?,
        limits: settings(row)?,
        ends_at: row.try_get::<Option<i64>, _>("ends_at")?.map(UnixMillis),
        revision: unsigned("accounts.revision", row.try_get("revision")?)?,
    })
}

pub(super) fn account_id(text: &str) -> Result<AccountId> {
    AccountId::parse(text).ok_or_else(|| corrupt("accounts.id", format!("{text:?}")))
}

pub(super) fn models_to_json(models: &Models) -> String {
    // A list of text always serialises.
    serde_json::to_string(models).unwrap_or_default()
}

fn vars_to_json(vars: &BTreeMap<String, String>) -> String {
    // A map of text to text always serialises.
    serde_json::to_string(vars).unwrap_or_default()
}

pub(super) fn vars_from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|_| corrupt("accounts.vars", "something else than an object of text"))
}
