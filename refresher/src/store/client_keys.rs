//! Client keys: made, listed, revoked. A key itself is shown once and never stored; its SHA-256 is.

use std::collections::BTreeMap;

use latchkey::dialect::Demands;
use latchkey::limit::SubjectKind;
use latchkey::snapshot::{KeyHash, Models};
use secrecy::{ExposeSecret, SecretString};

use super::accounts::saving::check_name;
use super::error::{MAX_CHOICES, Unfit};
use super::limits::{LimitRow, Terms};
use super::rules::{DemandChange, RuleChange, Rules, rule_columns};
use super::sql::{self, JsonText, json_text, limit_columns};
use super::{Change, Error, Result, Store, corrupt, pools, sqlite};
use crate::clock::UnixMillis;
use crate::fault;
use crate::id::{CLIENT_KEY_PREFIX, ClientKeyId, random_base32};
use crate::limits::LimitSettings;

/// 160 random bits.
const KEY_CHARACTERS: usize = 32;
/// The characters of a key that the store keeps for people: the prefix and 20 bits.
const SHOWN_CHARACTERS: usize = CLIENT_KEY_PREFIX.len() + 4;

/// A client key without the key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ClientKey {
    /// The id, which names the key in logs and records.
    #[sqlx(try_from = "String")]
    pub id: ClientKeyId,
    /// The name, unique among keys in use.
    pub name: String,
    /// The key's first characters.
    pub prefix: String,
    /// The pool that serves it.
    pub pool: String,
    /// The models that it may ask for.
    #[sqlx(try_from = "JsonText<Models>")]
    pub models: Models,
    /// The rules for its requests.
    #[sqlx(flatten)]
    pub rules: Rules,
    /// The operator's demands on them.
    #[sqlx(try_from = "JsonText<Demands>")]
    pub demands: Demands,
    /// True if its caller may choose the account.
    pub may_choose_account: bool,
    /// The other pools that its caller may choose.
    #[sqlx(skip)]
    pub may_choose_pools: Vec<String>,
    /// The time at which it was made.
    pub created_at: UnixMillis,
    /// The time at which it was revoked.
    pub revoked_at: Option<UnixMillis>,
    /// The end that the operator set.
    pub expires_at: Option<UnixMillis>,
    /// The most that it may use.
    #[sqlx(flatten, try_from = "LimitRow")]
    pub limits: LimitSettings,
}

sql::statements! {
    ALL = concat!(
        "SELECT id, name, prefix, pool, models, may_choose_account = 1 AS may_choose_account, created_at, revoked_at, \
         expires_at, demands, ",
        rule_columns!(),
        ", ",
        limit_columns!(),
        " FROM client_keys ORDER BY created_at, id"
    );
    ALL_CHOICES = "SELECT client_key, pool FROM client_key_pools ORDER BY client_key, pool";
    ADD = "INSERT INTO client_keys (id, name, sha256, prefix, pool, created_at, revision) \
           VALUES ($1, $2, $3, $4, $5, $6, $7)";
    TOUCH = "UPDATE client_keys SET revision = $1 WHERE (name = $2 OR id = $2) AND revoked_at IS NULL RETURNING id";
    SET = "UPDATE client_keys SET pool = coalesce($1, pool), models = coalesce($2, models), \
           may_choose_account = CASE WHEN $3 = 1 THEN 1 WHEN $4 = 1 THEN 0 ELSE may_choose_account END, \
           maps = coalesce($6, maps), untranslated = coalesce($7, untranslated), exact_model = coalesce($8, exact_model) \
           WHERE id = $5";
    REVOKE = "UPDATE client_keys SET revoked_at = $1, revision = $2 \
              WHERE (name = $3 OR id = $3) AND revoked_at IS NULL RETURNING id";
    ADD_CHOICE = "INSERT INTO client_key_pools (client_key, pool) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    DELETE_CHOICES = "DELETE FROM client_key_pools WHERE client_key = $1";
    DEMANDS = "SELECT demands FROM client_keys WHERE id = $1";
    SET_DEMANDS = "UPDATE client_keys SET demands = $1 WHERE id = $2";
    COUNT_CHOICES = "SELECT count(*) FROM client_key_pools WHERE client_key = $1";
}

/// Changes to a key; the rest stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// The pool that serves it.
    pub pool: Option<String>,
    /// The models that it may ask for; an empty list means all.
    pub models: Option<Models>,
    /// The rules for its requests.
    pub rules: RuleChange,
    /// The operator's demands on them.
    pub demands: DemandChange,
    /// Takes away every choice of its caller's, before any is given.
    pub no_choice: bool,
    /// Lets its caller choose the account.
    pub may_choose_account: bool,
    /// Lets its caller choose these pools as well.
    pub may_choose_pools: Vec<String>,
    /// Its limits and its end.
    pub terms: Terms,
}

/// A client key just made.
#[derive(Debug)]
pub struct NewClientKey {
    /// The id.
    pub id: ClientKeyId,
    /// The key, to be shown once.
    pub key: SecretString,
}

impl Store {
    /// Makes a client key that `pool` serves, with these rights.
    ///
    /// # Errors
    /// If the name is taken or there is no such pool.
    pub async fn create_client_key(
        &self,
        name: &str,
        pool: &str,
        rights: &KeyChange,
        now: UnixMillis,
    ) -> Result<NewClientKey> {
        check_name(fault::Kind::ClientKey, name)?;
        let mut change = self.change().await?;
        pools::known(change.sql(), pool).await?;
        let id = ClientKeyId::random();
        let key = SecretString::from(format!(
            "{CLIENT_KEY_PREFIX}{}",
            random_base32(KEY_CHARACTERS).to_lowercase()
        ));
        let revision = change.next_revision().await?;
        sqlx::query(ADD)
            .bind(id.as_str())
            .bind(name)
            .bind(String::from(KeyHash::of(key.expose_secret().as_bytes())))
            .bind(&key.expose_secret()[..SHOWN_CHARACTERS])
            .bind(pool)
            .bind(now)
            .bind(revision)
            .execute(change.sql())
            .await
            .map_err(Error::of_insert(fault::Kind::ClientKey, name))?;
        change.set_client_key(id.as_str(), rights).await?;
        change.commit().await?;
        Ok(NewClientKey { id, key })
    }

    /// Changes the key in use with this name or id.
    ///
    /// # Errors
    /// If no key in use has it, or there is no such pool.
    pub async fn set_client_key(&self, name: &str, wanted: &KeyChange) -> Result<ClientKeyId> {
        let mut change = self.change().await?;
        let revision = change.next_revision().await?;
        let id: Option<String> = sqlx::query_scalar(TOUCH)
            .bind(revision)
            .bind(name)
            .fetch_optional(change.sql())
            .await?;
        let id = id.ok_or_else(|| unknown(name))?;
        change.set_client_key(&id, wanted).await?;
        change.commit().await?;
        client_key_id(&id)
    }

    /// Every client key, revoked ones included, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn client_keys(&self) -> Result<Vec<ClientKey>> {
        let mut transaction = sqlite::begin_read(&self.pool).await?;
        let mut keys: Vec<ClientKey> = sqlx::query_as(ALL).fetch_all(&mut *transaction).await?;
        let choices: Vec<(String, String)> = sqlx::query_as(ALL_CHOICES)
            .fetch_all(&mut *transaction)
            .await?;
        let mut of_keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, pool) in choices {
            of_keys.entry(key).or_default().push(pool);
        }
        for key in &mut keys {
            key.may_choose_pools = of_keys.remove(key.id.as_str()).unwrap_or_default();
        }
        Ok(keys)
    }

    /// Revokes the key with this name or id.
    ///
    /// # Errors
    /// If no key in use has it.
    pub async fn revoke_client_key(&self, name: &str, now: UnixMillis) -> Result<ClientKeyId> {
        let mut change = self.change().await?;
        let revision = change.next_revision().await?;
        let id: Option<String> = sqlx::query_scalar(REVOKE)
            .bind(now)
            .bind(revision)
            .bind(name)
            .fetch_optional(change.sql())
            .await?;
        let id = id.ok_or_else(|| unknown(name))?;
        change.commit().await?;
        client_key_id(&id)
    }
}

impl Change<'_> {
    /// Changes a key whose revision has moved already.
    async fn set_client_key(&mut self, id: &str, wanted: &KeyChange) -> Result<()> {
        self.set_terms(SubjectKind::Key, id, &wanted.terms).await?;
        if let Some(pool) = &wanted.pool {
            pools::known(self.sql(), pool).await?;
        }
        if wanted.no_choice {
            sqlx::query(DELETE_CHOICES)
                .bind(id)
                .execute(self.sql())
                .await?;
        }
        for pool in &wanted.may_choose_pools {
            pools::known(self.sql(), pool).await?;
            sqlx::query(ADD_CHOICE)
                .bind(id)
                .bind(pool)
                .execute(self.sql())
                .await?;
        }
        let choices: i64 = sqlx::query_scalar(COUNT_CHOICES)
            .bind(id)
            .fetch_one(self.sql())
            .await?;
        if choices > MAX_CHOICES {
            return Err(Error::Unfit {
                record: fault::Kind::ClientKey,
                name: id.to_owned(),
                unfit: Unfit::Choices,
            });
        }
        if wanted.demands != DemandChange::default() {
            let before: String = sqlx::query_scalar(DEMANDS)
                .bind(id)
                .fetch_one(self.sql())
                .await?;
            let before = serde_json::from_str(&before)
                .map_err(|error| corrupt("client_keys.demands", error.to_string()))?;
            sqlx::query(SET_DEMANDS)
                .bind(json_text(&wanted.demands.of(before)))
                .bind(id)
                .execute(self.sql())
                .await?;
        }
        let [untranslated, exact_model] = wanted.rules.flags();
        sqlx::query(SET)
            .bind(wanted.pool.as_deref())
            .bind(wanted.models.as_ref().map(json_text))
            .bind(i64::from(wanted.may_choose_account))
            .bind(i64::from(wanted.no_choice))
            .bind(id)
            .bind(wanted.rules.maps.as_ref().map(json_text))
            .bind(untranslated)
            .bind(exact_model)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::unknown(fault::Kind::ClientKey, name)
}

fn client_key_id(text: &str) -> Result<ClientKeyId> {
    ClientKeyId::parse(text).ok_or_else(|| corrupt("client_keys.id", format!("{text:?}")))
}
