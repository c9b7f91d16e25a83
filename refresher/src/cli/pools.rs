//! `refresher pools`.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use latchkey::dialect::Demands;
use latchkey::snapshot::Policy;
use latchkey::snapshot::pool::{MAX_TIER, MAX_WEIGHT, Tier, Weight};
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{Width, line, or_none, table};
use super::rules::{self, Exact, RuleFlags};
use super::{CALLER, Context, Error, Json, REMOVE, Result, number};
use crate::app::{keys, pools};
use crate::store::{Pool, RuleChange, Rules};

/// Operations on pools.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an empty pool
    Create(Create),
    /// Show the pools
    List(Json),
    /// Change how a pool picks an account, and what becomes of its requests
    Set(Set),
    /// Put accounts at the end of a pool, or change the weight or tier of those in it
    Add(Add),
    /// Take accounts out of a pool
    Drop(Drop),
    /// Remove a pool; its accounts stay
    #[command(aliases = REMOVE)]
    Remove(Name),
}

/// A new pool.
#[derive(Debug, Args)]
pub struct Create {
    /// The pool's name
    #[arg(allow_negative_numbers = true)]
    pool: String,
    /// The order in which it picks accounts
    #[arg(long, default_value = "sticky", value_parser = policies())]
    policy: String,
}

/// A change of policy or of rules.
#[derive(Debug, Args)]
#[group(required = true, multiple = true, id = "change", args = ["policy", "maps", "no_maps", "translation", "exact_model"])]
pub struct Set {
    /// The pool's name
    #[arg(allow_negative_numbers = true)]
    pool: String,
    /// The order in which it picks accounts
    #[arg(long, value_parser = policies())]
    policy: Option<String>,
    #[command(flatten)]
    rules: RuleFlags,
}

/// Accounts for a pool.
#[derive(Debug, Args)]
pub struct Add {
    /// The pool's name
    #[arg(allow_negative_numbers = true)]
    pool: String,
    /// Names or ids of accounts
    #[arg(required = true, value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Their share of the requests, relative to the others' [default: 1]
    #[arg(long, value_parser = number::within::<u32>(1, MAX_WEIGHT.into()), allow_negative_numbers = true)]
    weight: Option<u32>,
    /// Their turn: a tier serves only while no account of a lower one can [default: 0]
    #[arg(long, value_parser = number::within::<u32>(0, MAX_TIER.into()), allow_negative_numbers = true)]
    tier: Option<u32>,
}

/// Accounts of a pool.
#[derive(Debug, Args)]
pub struct Drop {
    /// The pool's name
    #[arg(allow_negative_numbers = true)]
    pool: String,
    /// Names or ids of accounts
    #[arg(required = true, value_name = "ACCOUNT")]
    accounts: Vec<String>,
}

/// The pool that is meant.
#[derive(Debug, Args)]
pub struct Name {
    /// Its name
    #[arg(allow_negative_numbers = true)]
    pool: String,
}

fn policies() -> PossibleValuesParser {
    PossibleValuesParser::new(Policy::ALL.map(Policy::as_str))
}

/// The parser lets nothing else through.
fn policy(name: &str) -> Policy {
    Policy::parse(name).unwrap_or(Policy::Sticky)
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// If the operation comes to nothing.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        match self {
            Command::Create(Create { pool, policy: name }) => {
                pools::create(app, CALLER, &pool, policy(&name)).await?;
                out.print(&format!("{pool}: created\n"))?;
                context.tell_if_envoy_is_behind();
            }
            Command::List(json) => list(context, json).await?,
            Command::Set(set) => {
                let change = set.rules.change()?;
                let pool = set.pool;
                let wanted = set.policy.as_deref().map(policy);
                pools::set(app, CALLER, &pool, wanted, &change).await?;
                let now = now_set(context, &pool).await?;
                out.print(&format!("{pool}: changed\n{now}"))?;
                if change != RuleChange::default() {
                    tell_of_maps(context, &pool).await?;
                }
                context.tell_if_envoy_is_behind();
            }
            Command::Add(Add {
                pool,
                accounts,
                weight,
                tier,
            }) => {
                let unfit = |error: &dyn std::fmt::Display| Error::Input(error.to_string());
                let weight = weight.map(Weight::try_from).transpose();
                let weight = weight.map_err(|error| unfit(&error))?;
                let tier = tier.map(Tier::try_from).transpose();
                let tier = tier.map_err(|error| unfit(&error))?;
                pools::add(app, CALLER, &pool, &accounts, weight, tier).await?;
                let has = pools::list(app)
                    .await?
                    .into_iter()
                    .find(|one| one.id == pool);
                let has = has.map(|pool| members(&pool)).unwrap_or_default();
                out.print(&format!("{pool}: has {has}\n"))?;
                context.tell_if_envoy_is_behind();
            }
            Command::Drop(Drop { pool, accounts }) => {
                pools::drop(app, CALLER, &pool, &accounts).await?;
                out.print(&format!("{pool}: no longer has {}\n", accounts.join(", ")))?;
                tell_of_empty(context, &[pool]).await?;
                context.tell_if_envoy_is_behind();
            }
            Command::Remove(Name { pool }) => {
                pools::remove(app, CALLER, &pool).await?;
                out.print(&format!("{pool}: removed\n"))?;
                context.tell_if_envoy_is_behind();
            }
        }
        Ok(())
    }
}

/// Returns what a pool is now, a line each.
async fn now_set(context: &Context, id: &str) -> Result<String> {
    let pools = pools::list(&context.app).await?;
    let pool = pools.iter().find(|pool| pool.id == id);
    let lines = pool.map(|pool| {
        let said = rules::rules(&pool.rules, &Demands::default());
        [
            ("policy", pool.policy.as_str()),
            ("accounts", or_none(&members(pool))),
            ("keys", or_none(&pool.keys.join(", "))),
            ("rules", said.as_deref().unwrap_or("none")),
        ]
        .map(|(name, value)| line(name, value))
        .concat()
    });
    Ok(lines.unwrap_or_default())
}

/// Notes what a pool's operator may not see in its maps, and in those of its keys.
async fn tell_of_maps(context: &Context, id: &str) -> Result<()> {
    let app = &context.app;
    let pools = pools::list(app).await?;
    let Some(pool) = pools.iter().find(|pool| pool.id == id) else {
        return Ok(());
    };
    let exact = pool.rules.exact_model.then_some(Exact::Pool(id));
    let exact = exact.as_slice();
    let mut notes = rules::notes(&pool.rules.maps, None, exact);
    if !exact.is_empty() {
        let keys = keys::list(app).await?;
        let keys = keys
            .iter()
            .filter(|key| key.pool == id && !key.rules.exact_model);
        notes.extend(keys.flat_map(|key| rules::notes(&key.rules.maps, Some(&key.name), exact)));
    }
    notes.iter().for_each(|note| context.out.note(note));
    Ok(())
}

/// Names the keys that nobody serves any more, because their pool, one of these, has no account left.
pub async fn tell_of_empty(context: &Context, touched: &[String]) -> Result<()> {
    let pools = pools::list(&context.app).await?;
    let is_idle = |pool: &&Pool| {
        touched.contains(&pool.id) && pool.members.is_empty() && !pool.keys.is_empty()
    };
    for pool in pools.iter().filter(is_idle) {
        context.out.note(&format!(
            "warning: pool {} has no account left; nobody serves its keys: {}",
            pool.id,
            pool.keys.join(", ")
        ));
    }
    Ok(())
}

/// A pool, in JSON.
#[derive(Debug, Serialize)]
pub struct PoolView<'a> {
    name: &'a str,
    policy: &'static str,
    members: Vec<Value>,
    keys: &'a [String],
    #[serde(flatten)]
    rules: &'a Rules,
}

/// A pool as it is shown in JSON.
pub fn view(pool: &Pool) -> PoolView<'_> {
    let members: Vec<Value> = pool
        .members
        .iter()
        .map(|member| {
            json!({
                "account": member.account, "weight": u32::from(member.weight), "tier": u32::from(member.tier),
            })
        })
        .collect();
    PoolView {
        name: &pool.id,
        policy: pool.policy.as_str(),
        members,
        keys: &pool.keys,
        rules: &pool.rules,
    }
}

async fn list(context: &Context, format: Json) -> Result<()> {
    let pools = pools::list(&context.app).await?;
    if format.json {
        let pools: Vec<_> = pools.iter().map(view).collect();
        return Ok(context.out.print_json(&pools)?);
    }
    Ok(context.out.print(&as_table(context.out.width(), &pools))?)
}

/// The pools, one line each. Rules have a column where a pool has any.
pub fn as_table(width: Width, pools: &[Pool]) -> String {
    let row = |pool: &Pool| {
        [
            pool.id.clone(),
            pool.policy.as_str().to_owned(),
            members(pool),
            pool.keys.join(", "),
        ]
    };
    if pools.iter().any(|pool| pool.rules != Rules::default()) {
        let with_rules = |pool: &Pool| {
            let [id, policy, accounts, keys] = row(pool);
            let said = rules::rules(&pool.rules, &Demands::default()).unwrap_or_default();
            [id, policy, accounts, keys, said]
        };
        let rows: Vec<[String; 5]> = pools.iter().map(with_rules).collect();
        return table(
            width,
            ["POOL", "POLICY", "ACCOUNTS", "KEYS", "RULES"],
            &rows,
        );
    }
    let rows: Vec<[String; 4]> = pools.iter().map(row).collect();
    table(width, ["POOL", "POLICY", "ACCOUNTS", "KEYS"], &rows)
}

/// `alice, bob x2; then: spare`: the tiers in order, and weights other than one.
fn members(pool: &Pool) -> String {
    let mut members: Vec<_> = pool.members.iter().collect();
    members.sort_by_key(|member| member.tier);
    let tiers: Vec<String> = members
        .chunk_by(|one, next| one.tier == next.tier)
        .map(|tier| {
            let names: Vec<String> = tier
                .iter()
                .map(|member| match u32::from(member.weight) {
                    1 => member.account.clone(),
                    weight => format!("{} x{weight}", member.account),
                })
                .collect();
            names.join(", ")
        })
        .collect();
    tiers.join("; then: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PoolMember;

    #[test]
    fn tiers_and_weights_can_be_read() {
        let member = |account: &str, weight: u32, tier: u32| PoolMember {
            account: account.to_owned(),
            weight: weight.try_into().unwrap(),
            tier: tier.try_into().unwrap(),
        };
        let pool = Pool {
            id: "team".to_owned(),
            policy: Policy::FillFirst,
            members: vec![
                member("spare", 1, 7),
                member("alice", 1, 0),
                member("bob", 2, 0),
            ],
            keys: vec!["laptop".to_owned()],
            rules: Rules::default(),
        };
        assert_eq!(members(&pool), "alice, bob x2; then: spare");
        assert_eq!(
            as_table(Width::default(), std::slice::from_ref(&pool)),
            "POOL  POLICY      ACCOUNTS                    KEYS\n\
             team  fill_first  alice, bob x2; then: spare  laptop\n"
        );
        let json = |pool: &Pool| serde_json::to_value(view(pool)).unwrap();
        assert_eq!(json(&pool)["members"][2]["weight"], 2);
        let pool = Pool {
            rules: Rules {
                maps: serde_json::from_str(r#"["claude-*=gpt-7"]"#).unwrap(),
                untranslated: true,
                ..Rules::default()
            },
            ..pool
        };
        assert_eq!(json(&pool)["maps"], json!(["claude-*=gpt-7"]));
        assert_eq!(json(&pool)["translation"], false);
        assert_eq!(
            as_table(Width::default(), &[pool]),
            "POOL  POLICY      ACCOUNTS                    KEYS    RULES\n\
             team  fill_first  alice, bob x2; then: spare  laptop  claude-*=gpt-7; no translation\n"
        );
    }
}
