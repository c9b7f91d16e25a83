//! Pools: which accounts serve a key, and in which order.

use latchkey::snapshot::Policy;
use latchkey::snapshot::pool::{Tier, Weight};

use super::{App, Caller, Result};
use crate::store::{Pool, RuleChange};

/// Every pool, in order of name.
///
/// # Errors
/// If the store fails.
pub async fn list(app: &App) -> Result<Vec<Pool>> {
    Ok(app.store.pools().await?)
}

/// Makes an empty pool.
///
/// # Errors
/// If the name is taken, or none that a pool may have.
pub async fn create(app: &App, caller: Caller, pool: &str, policy: Policy) -> Result<()> {
    app.store.create_pool(pool, policy).await?;
    caller.changes("pool made", pool);
    Ok(())
}

/// Changes how a pool picks an account, and what becomes of its requests. What is not given stays.
///
/// # Errors
/// If there is no such pool.
pub async fn set(
    app: &App,
    caller: Caller,
    pool: &str,
    policy: Option<Policy>,
    rules: &RuleChange,
) -> Result<()> {
    app.store.set_pool(pool, policy, rules).await?;
    caller.changes("pool changed", pool);
    Ok(())
}

/// Puts accounts at the end of a pool. Those in it get the weight and the tier, where one is given.
///
/// # Errors
/// If there is no such pool or account.
pub async fn add(
    app: &App,
    caller: Caller,
    pool: &str,
    accounts: &[String],
    weight: Option<Weight>,
    tier: Option<Tier>,
) -> Result<()> {
    app.store.add_to_pool(pool, accounts, weight, tier).await?;
    caller.changes("pool member added", pool);
    Ok(())
}

/// Takes accounts out of a pool.
///
/// # Errors
/// If there is no such pool or account, or an account is not in it.
pub async fn drop(app: &App, caller: Caller, pool: &str, accounts: &[String]) -> Result<()> {
    app.store.drop_from_pool(pool, accounts).await?;
    caller.changes("pool member removed", pool);
    Ok(())
}

/// Removes a pool; its accounts stay.
///
/// # Errors
/// If there is no such pool, keys use it, or it is the default one.
pub async fn remove(app: &App, caller: Caller, pool: &str) -> Result<()> {
    app.store.remove_pool(pool).await?;
    caller.changes("pool removed", pool);
    Ok(())
}
