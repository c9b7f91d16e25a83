//! Accounts as they are: their columns, and what is sealed of them.

use std::collections::BTreeMap;

use latchkey::snapshot::{ModelMaps, Models};
use secrecy::{ExposeSecret, SecretString};
use sqlx::FromRow;

use super::limits::OwnLimitRow;
use super::sql::{self, JsonText, limit_columns, own_limit_columns};
use super::sqlite::{self, Connection};
use super::{Change, Error, LOGGED_OUT, Result, Store, corrupt};
use crate::clock::UnixMillis;
use crate::credential::{Credential, CredentialKind};
use crate::failing::Failing;
use crate::fault;
use crate::id::AccountId;
use crate::keys::seal::Binding;
use crate::limits::OwnLimits;

pub(super) mod removal;
pub(super) mod saving;
pub(super) mod settings;

/// The standing of an account, apart from the end that its operator set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The account may serve requests.
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

/// The facts of an account at its platform, by name: the variables of its header templates, and who it is.
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
    /// Its refresh token may be spent and is not sent any more, so that it ends with its access token.
    pub is_spent: bool,
    /// The failures in a row, and their beginning; none where the last one went well.
    #[sqlx(try_from = "JsonText<Option<Failing>>")]
    pub failing: Option<Failing>,
    /// The time before which no refresh is tried.
    pub retry_at: Option<UnixMillis>,
    /// The models that it serves.
    #[sqlx(try_from = "JsonText<Models>")]
    pub models: Models,
    /// The names by which its platform knows models.
    #[sqlx(try_from = "JsonText<ModelMaps>")]
    pub maps: ModelMaps,
    /// The operator's limits for it.
    #[sqlx(flatten, try_from = "OwnLimitRow")]
    pub limits: OwnLimits,
    /// The end that the operator set, whatever the credential.
    pub expires_at: Option<UnixMillis>,
    /// The end of the login, which no refresh moves, where its platform told one.
    pub login_ends_at: Option<UnixMillis>,
    /// The address at which it is reached, if not its platform's.
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
             credential_expires_at, failures, failing, unanswered > 1 AND claim_token IS NULL AS is_spent, retry_at, models, maps, expires_at, login_ends_at, base_url, revision, ",
            own_limit_columns!(),
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
}

impl Account {
    /// True where its operator logged it out, and nobody wants it back.
    pub fn is_logged_out(&self) -> bool {
        self.status == Status::NeedsLogin && self.reason.as_deref() == Some(LOGGED_OUT)
    }

    /// True past the end that the operator set.
    pub fn has_ended(&self, now: UnixMillis) -> bool {
        self.expires_at.is_some_and(|time| time <= now)
    }

    /// Returns when it ends for good unless a person does something; none where nobody knows an end.
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
            is_spent: false,
            failing: None,
            retry_at: None,
            models: Models::default(),
            maps: ModelMaps::default(),
            limits: OwnLimits::default(),
            expires_at: None,
            login_ends_at: None,
            base_url: None,
            revision: 1,
        }
    }
}

impl Store {
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

    /// Returns true if the account is a client of its own, which buys tokens. One that cannot be opened is none.
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
}

impl Change<'_> {
    /// The sealed credential of an account.
    async fn sealed(&mut self, id: &AccountId) -> Result<SealedRow> {
        let sealed = sqlx::query_as(SEALED).bind(id.as_str());
        let sealed = sealed.fetch_optional(self.sql()).await?;
        sealed.ok_or_else(|| unknown(id.as_str()))
    }

    /// The same, where no refresh is under way: that would store its tokens for the generation that it began with.
    async fn sealed_at_rest(&mut self, account: &Account) -> Result<SealedRow> {
        let sealed = self.sealed(&account.id).await?;
        let clock = sqlite::now(self.sql()).await?;
        if sealed.claim_until.is_some_and(|until| until > clock) {
            return Err(Error::Refreshing {
                account: account.name.clone(),
            });
        }
        Ok(sealed)
    }

    /// The credential of an account of which no refresh is under way.
    pub(super) async fn credential_at_rest(&mut self, account: &Account) -> Result<Credential> {
        let sealed = self.sealed_at_rest(account).await?;
        let binding = sealed.binding(&account.id);
        self.store.open_credential(binding, &sealed.credential)
    }

    /// Seals the next credential of an account; its generation, and the seal.
    pub(super) async fn seal_next(
        &mut self,
        account: &Account,
        base_url: Option<&str>,
        credential: &Credential,
    ) -> Result<(u64, Vec<u8>)> {
        let (id, generation) = (account.id.as_str(), account.generation + 1);
        let sealed = self
            .seal(id, generation, &account.platform, base_url, credential)
            .await?;
        Ok((generation, sealed))
    }
}

pub(super) fn unknown(name: &str) -> Error {
    Error::unknown(fault::Kind::Account, name)
}

pub(super) async fn find(connection: &mut Connection, name: &str) -> Result<Option<Account>> {
    let found = sqlx::query_as(BY_NAME).bind(name);
    Ok(found.fetch_optional(connection).await?)
}

/// The account with this name or id; an error where there is none.
pub(super) async fn known(connection: &mut Connection, name: &str) -> Result<Account> {
    find(connection, name).await?.ok_or_else(|| unknown(name))
}
