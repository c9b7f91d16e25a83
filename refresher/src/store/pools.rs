//! Pools: made, filled, listed, removed.

use latchkey::id::Id;
use latchkey::snapshot::Policy;
use latchkey::snapshot::pool::{MAX_MEMBERS, Tier, Weight};

use super::error::Unfit;
use super::rules::{RuleChange, Rules, rule_columns};
use super::sqlite::Connection;
use super::{Change, DEFAULT_POOL, Error, Result, Store, accounts, corrupt, sql, sqlite};
use crate::fault;
use crate::id::AccountId;

/// A pool with its members and users, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The name.
    pub id: String,
    /// The way in which it picks an account.
    pub policy: Policy,
    /// Its accounts, in the operator's order.
    pub members: Vec<Member>,
    /// The rules for its requests.
    pub rules: Rules,
    /// The names of the client keys in use that it serves, or that may choose it.
    pub keys: Vec<String>,
}

/// A pool's own row.
#[derive(sqlx::FromRow)]
pub(super) struct PoolRow {
    id: String,
    policy: String,
    #[sqlx(flatten)]
    pub(super) rules: Rules,
}

/// An account's place in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The account's name.
    pub account: String,
    /// Its share.
    pub weight: Weight,
    /// The turn in which it comes.
    pub tier: Tier,
}

sql::statements! {
    ALL = concat!("SELECT id, policy, ", rule_columns!(), " FROM pools ORDER BY id");
    MEMBERS = "SELECT name, weight, tier FROM pool_members JOIN accounts ON accounts.id = account \
               WHERE pool = $1 ORDER BY position";
    /// The names of the keys in use that need a pool.
    USERS = "SELECT name FROM client_keys WHERE revoked_at IS NULL AND (pool = $1 \
             OR id IN (SELECT client_key FROM client_key_pools WHERE pool = $1)) ORDER BY name";
    KNOWN = "SELECT count(*) FROM pools WHERE id = $1";
    ADD = "INSERT INTO pools (id, policy, revision) VALUES ($1, $2, $3)";
    DIG_UP = "DELETE FROM tombstones WHERE kind = 'pool' AND id = $1";
    SET = "UPDATE pools SET policy = coalesce($1, policy), maps = coalesce($2, maps), \
           untranslated = coalesce($4, untranslated), exact_model = coalesce($5, exact_model) WHERE id = $3";
    TOUCH = "UPDATE pools SET revision = $1 WHERE id = $2";
    JOIN = "INSERT INTO pool_members (pool, account, weight, tier, position) \
            SELECT $1, $2, coalesce($3, 1), coalesce($4, 0), coalesce(max(position), 0) + 1 \
            FROM pool_members WHERE pool = $1 \
            ON CONFLICT (pool, account) DO UPDATE SET weight = coalesce($3, pool_members.weight), \
            tier = coalesce($4, pool_members.tier)";
    LEAVE = "DELETE FROM pool_members WHERE pool = $1 AND account = $2";
    COUNT_MEMBERS = "SELECT count(*) FROM pool_members WHERE pool = $1";
    /// Deletes what is left, which is revoked keys'.
    DELETE_CHOICES = "DELETE FROM client_key_pools WHERE pool = $1";
    DELETE = "DELETE FROM pools WHERE id = $1";
}

impl Store {
    /// Makes an empty pool.
    ///
    /// # Errors
    /// If the name is taken, or is none.
    pub async fn create_pool(&self, id: &str, policy: Policy) -> Result<()> {
        Id::try_from(id).map_err(|problem| Error::Unfit {
            record: fault::Kind::Pool,
            name: id.to_owned(),
            unfit: Unfit::Id(problem.to_string()),
        })?;
        let mut change = self.change().await?;
        let revision = change.next_revision().await?;
        sqlx::query(ADD)
            .bind(id)
            .bind(policy.as_str())
            .bind(revision)
            .execute(change.sql())
            .await
            .map_err(Error::of_insert(fault::Kind::Pool, id))?;
        sqlx::query(DIG_UP).bind(id).execute(change.sql()).await?;
        change.commit().await
    }

    /// Every pool, in order of name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pools(&self) -> Result<Vec<Pool>> {
        let mut transaction = sqlite::begin_read(&self.pool).await?;
        let rows: Vec<PoolRow> = sqlx::query_as(ALL).fetch_all(&mut *transaction).await?;
        let mut pools = Vec::new();
        for row in rows {
            let (policy, id) = (row.policy()?, row.id);
            let members: Vec<(String, i64, i64)> = sqlx::query_as(MEMBERS)
                .bind(&id)
                .fetch_all(&mut *transaction)
                .await?;
            let keys = sqlx::query_scalar(USERS)
                .bind(&id)
                .fetch_all(&mut *transaction)
                .await?;
            pools.push(Pool {
                policy,
                rules: row.rules,
                members: members.into_iter().map(member).collect::<Result<_>>()?,
                keys,
                id,
            });
        }
        Ok(pools)
    }

    /// Lets a pool pick by another policy, or changes what becomes of its requests. What is not given stays.
    ///
    /// # Errors
    /// If there is no such pool.
    pub async fn set_pool(
        &self,
        pool: &str,
        policy: Option<Policy>,
        rules: &RuleChange,
    ) -> Result<()> {
        let mut change = self.change().await?;
        known(change.sql(), pool).await?;
        let [untranslated, exact_model] = rules.flags();
        sqlx::query(SET)
            .bind(policy.map(Policy::as_str))
            .bind(rules.maps.as_ref().map(sql::json_text))
            .bind(pool)
            .bind(untranslated)
            .bind(exact_model)
            .execute(change.sql())
            .await?;
        change.touch_pool(pool).await?;
        change.commit().await
    }

    /// Puts accounts, by name or id, at the end of a pool. A member keeps its place. A weight or tier that is not given
    /// stays as it was; a new member's is the first.
    ///
    /// # Errors
    /// If there is no such pool or account, or the pool would be too large. Then nothing was changed.
    pub async fn add_to_pool(
        &self,
        pool: &str,
        accounts: &[String],
        weight: Option<Weight>,
        tier: Option<Tier>,
    ) -> Result<()> {
        let mut change = self.change().await?;
        known(change.sql(), pool).await?;
        for account in accounts {
            let account = accounts::known(change.sql(), account).await?;
            sqlx::query(JOIN)
                .bind(pool)
                .bind(account.id.as_str())
                .bind(weight.map(|weight| i64::from(u32::from(weight))))
                .bind(tier.map(|tier| i64::from(u32::from(tier))))
                .execute(change.sql())
                .await?;
        }
        change.require_room(pool).await?;
        change.touch_pool(pool).await?;
        change.commit().await
    }

    /// Takes accounts, by name or id, out of a pool.
    ///
    /// # Errors
    /// If there is no such pool, or an account is not in it. Then nothing was changed.
    pub async fn drop_from_pool(&self, pool: &str, accounts: &[String]) -> Result<()> {
        let mut change = self.change().await?;
        known(change.sql(), pool).await?;
        for name in accounts {
            let account = accounts::known(change.sql(), name).await?;
            let deleted = sqlx::query(LEAVE)
                .bind(pool)
                .bind(account.id.as_str())
                .execute(change.sql())
                .await?;
            if deleted.rows_affected() == 0 {
                return Err(Error::NotInPool {
                    pool: pool.to_owned(),
                    account: name.clone(),
                });
            }
        }
        change.touch_pool(pool).await?;
        change.commit().await
    }

    /// Removes a pool; its accounts stay.
    ///
    /// # Errors
    /// If there is no such pool, it is the default one, or keys in use need it.
    pub async fn remove_pool(&self, pool: &str) -> Result<()> {
        let mut change = self.change().await?;
        known(change.sql(), pool).await?;
        let keys: Vec<String> = sqlx::query_scalar(USERS)
            .bind(pool)
            .fetch_all(change.sql())
            .await?;
        if pool == DEFAULT_POOL {
            return Err(Error::DefaultPool);
        }
        if !keys.is_empty() {
            return Err(Error::PoolInUse {
                pool: pool.to_owned(),
                keys,
            });
        }
        for statement in [DELETE_CHOICES, DELETE] {
            sqlx::query(statement)
                .bind(pool)
                .execute(change.sql())
                .await?;
        }
        change.bury("pool", pool).await?;
        change.commit().await
    }
}

impl Change<'_> {
    /// Puts an account at the end of a pool that is there.
    pub(super) async fn join_pool(&mut self, pool: &str, account: &AccountId) -> Result<()> {
        let unsaid: Option<i64> = None;
        sqlx::query(JOIN)
            .bind(pool)
            .bind(account.as_str())
            .bind(unsaid)
            .bind(unsaid)
            .execute(self.sql())
            .await?;
        self.require_room(pool).await?;
        self.touch_pool(pool).await
    }

    /// Refuses a pool that has more members by now than a record has room for.
    pub(super) async fn require_room(&mut self, pool: &str) -> Result<()> {
        let members: i64 = sqlx::query_scalar(COUNT_MEMBERS)
            .bind(pool)
            .fetch_one(self.sql())
            .await?;
        match usize::try_from(members) {
            Ok(members) if members <= MAX_MEMBERS => Ok(()),
            _ => Err(Error::Unfit {
                record: fault::Kind::Pool,
                name: pool.to_owned(),
                unfit: Unfit::Members,
            }),
        }
    }

    /// Gives a pool a new revision.
    pub(super) async fn touch_pool(&mut self, pool: &str) -> Result<()> {
        let revision = self.next_revision().await?;
        sqlx::query(TOUCH)
            .bind(revision)
            .bind(pool)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}

/// Refuses a pool that is not there.
pub(super) async fn known(connection: &mut Connection, pool: &str) -> Result<()> {
    let found: i64 = sqlx::query_scalar(KNOWN)
        .bind(pool)
        .fetch_one(connection)
        .await?;
    if found == 0 {
        return Err(Error::unknown(fault::Kind::Pool, pool));
    }
    Ok(())
}

impl PoolRow {
    pub(super) fn policy(&self) -> Result<Policy> {
        let policy = Policy::parse(&self.policy);
        policy.ok_or_else(|| corrupt("pools.policy", format!("{:?}", self.policy)))
    }
}

fn member((account, weight, tier): (String, i64, i64)) -> Result<Member> {
    Ok(Member {
        account,
        weight: weight_of(weight)?,
        tier: tier_of(tier)?,
    })
}

pub(super) fn weight_of(found: i64) -> Result<Weight> {
    let weight = u32::try_from(found).ok();
    let weight = weight.and_then(|weight| Weight::try_from(weight).ok());
    weight.ok_or_else(|| corrupt("pool_members.weight", found.to_string()))
}

pub(super) fn tier_of(found: i64) -> Result<Tier> {
    let tier = u32::try_from(found).ok();
    let tier = tier.and_then(|tier| Tier::try_from(tier).ok());
    tier.ok_or_else(|| corrupt("pool_members.tier", found.to_string()))
}
