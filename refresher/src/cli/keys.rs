//! `refresher keys`.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::output::{beneath, line, models, or_none, table};
use super::rules::{self, DemandFlags, Exact, RuleFlags};
use super::terms::{self, TermFlags};
use super::time::relative;
use super::{CALLER, Context, Json, ModelList, Result};
use crate::app::keys::{self, KeyView, State};
use crate::app::pools;
use crate::clock::UnixMillis;
use crate::store::{DEFAULT_POOL, KeyChange, RuleChange};

/// Operations on client keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key and print it; it is shown this once
    ///
    /// It may have 100 requests at the same time, unless --streams says another number, or none.
    Create(Create),
    /// Show the keys by name; the keys themselves are never shown again
    List(Json),
    /// Change what a key may do, its limits and its end
    Set(Set),
    /// Refuse a key from now on
    #[command(aliases = ["remove", "rm", "delete"])]
    Revoke(Revoke),
}

/// A new key.
#[derive(Debug, Args)]
pub struct Create {
    /// The person or program that it is for
    #[arg(allow_negative_numbers = true)]
    name: String,
    /// The pool of accounts that serves it
    #[arg(long, default_value = DEFAULT_POOL)]
    pool: String,
    #[command(flatten)]
    rights: Rights,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

/// Changes to a key.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name or id
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// The pool of accounts that serves it
    #[arg(long)]
    pool: Option<String>,
    /// Take away all choices of its caller, except those that --may-choose-account and --may-choose-pool give in the same
    /// command
    #[arg(long)]
    no_choice: bool,
    #[command(flatten)]
    rights: Rights,
}

/// Rights of a key.
#[derive(Debug, Args)]
struct Rights {
    #[command(flatten)]
    models: ModelList,
    #[command(flatten)]
    rules: RuleFlags,
    #[command(flatten)]
    demands: DemandFlags,
    /// Let its caller choose the account: by the header x-latchkey-account, or by account_id or platform in an envelope
    #[arg(long)]
    may_choose_account: bool,
    /// Let its caller choose this pool, with the header x-latchkey-pool; may be given more than once
    #[arg(long, value_name = "POOL")]
    may_choose_pool: Vec<String>,
    #[command(flatten)]
    terms: TermFlags,
}

impl Rights {
    fn change(self, now: UnixMillis) -> Result<KeyChange> {
        Ok(KeyChange {
            terms: self.terms.terms(now)?,
            models: self.models.given()?,
            demands: self.demands.change(),
            rules: self.rules.change()?,
            may_choose_account: self.may_choose_account,
            may_choose_pools: self.may_choose_pool,
            ..KeyChange::default()
        })
    }
}

/// The key that is meant.
#[derive(Debug, Args)]
pub struct Revoke {
    /// Its name or id
    #[arg(allow_negative_numbers = true)]
    key: String,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// If the operation comes to nothing.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        match self {
            Command::Create(create) => create.run(context).await?,
            Command::List(json) => list(context, json).await?,
            Command::Set(set) => {
                let change = KeyChange {
                    pool: set.pool,
                    no_choice: set.no_choice,
                    ..set.rights.change(app.now())?
                };
                let id = keys::set(app, CALLER, &set.key, &change).await?;
                let now = now_set(context, id.as_str()).await?;
                out.print(&format!("{} ({id}): changed\n{now}", set.key))?;
                if change.pool.is_some() || change.rules != RuleChange::default() {
                    tell_of_maps(context, id.as_str()).await?;
                }
                context.tell_if_envoy_is_behind();
            }
            Command::Revoke(Revoke { key }) => {
                let id = keys::revoke(app, CALLER, &key).await?;
                out.print(&format!("{key} ({id}): revoked\n"))?;
                context.tell_if_envoy_is_behind();
            }
        }
        Ok(())
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let rights = self.rights.change(app.now())?;
        let says_streams = rights.terms.limits.concurrent_streams.is_some();
        let new = keys::create(app, CALLER, &self.name, &self.pool, rights).await?;
        let key = new.key.expose_secret();
        tell_of_maps(context, new.id.as_str()).await?;
        context.tell_if_envoy_is_behind();
        if self.json {
            let id = new.id.as_str();
            return Ok(out.print_json(&json!({ "id": id, "name": self.name, "key": key }))?);
        }
        // The key alone on standard output, so that it can be piped.
        let streams = match says_streams {
            true => String::new(),
            false => format!(", for {} requests at the same time", keys::NEW_KEY_STREAMS),
        };
        out.note(&format!(
            "Key {:?} for pool {}{streams}. It is not shown again.",
            self.name, self.pool
        ));
        Ok(out.print(&format!("{key}\n"))?)
    }
}

/// Notes what a key's operator may not see in its maps.
async fn tell_of_maps(context: &Context, id: &str) -> Result<()> {
    let app = &context.app;
    let views = keys::list(app).await?;
    let Some(view) = views.iter().find(|view| view.id == id) else {
        return Ok(());
    };
    let pools = pools::list(app).await?;
    let mut pools = pools.iter().filter(|pool| pool.id == view.pool);
    let by_pool = pools.any(|pool| pool.rules.exact_model);
    let by_key = view.rules.exact_model.then_some(Exact::Key(&view.name));
    let by_pool = by_pool.then_some(Exact::Pool(&view.pool));
    let exact: Vec<Exact<'_>> = by_key.into_iter().chain(by_pool).collect();
    let notes = rules::notes(&view.rules.maps, None, &exact);
    notes.iter().for_each(|note| context.out.note(note));
    Ok(())
}

/// Returns what a key may do now, a line each.
async fn now_set(context: &Context, id: &str) -> Result<String> {
    let app = &context.app;
    let views = keys::list(app).await?;
    let view = views.iter().find(|view| view.id == id);
    let lines = view.map(|view| {
        let limits = terms::limits(&view.limits);
        [
            ("pool", view.pool.as_str()),
            ("models", &models(&view.models)),
            (
                "rules",
                rules::rules(&view.rules, &view.demands)
                    .as_deref()
                    .unwrap_or("none"),
            ),
            ("choice", &choice(view)),
            ("limits", or_none(&limits)),
            ("time zone", &terms::zone_of(&view.limits)),
            ("status", &state(view.state, app.now())),
        ]
        .map(|(name, value)| line(name, value))
        .concat()
    });
    Ok(lines.unwrap_or_default())
}

async fn list(context: &Context, format: Json) -> Result<()> {
    let Context { app, out, .. } = context;
    let views = keys::list(app).await?;
    if format.json {
        return Ok(out.print_json(&views)?);
    }
    if views.is_empty() {
        return Ok(out.print("No keys yet. Make one: refresher keys create NAME\n")?);
    }
    let now = app.now();
    let said: Vec<(&str, String)> = views
        .iter()
        .filter_map(|key| Some((&*key.name, rules::rules(&key.rules, &key.demands)?)))
        .collect();
    let rows: Vec<[String; 9]> = views
        .iter()
        .map(|key| {
            [
                key.name.clone(),
                format!("{}…", key.prefix),
                key.pool.clone(),
                models(&key.models),
                choice(key),
                state(key.state, now),
                relative(UnixMillis(key.created_at), now),
                terms::limits(&key.limits),
                key.id.clone(),
            ]
        })
        .collect();
    let head = [
        "NAME", "KEY", "POOL", "MODELS", "CHOICE", "STATUS", "MADE", "LIMITS", "ID",
    ];
    Ok(out.print(&(table(out.width(), head, &rows) + &beneath(&said)))?)
}

fn state(state: State, now: UnixMillis) -> String {
    match state {
        State::InUse { until: None } => "in use".to_owned(),
        State::InUse { until: Some(time) } => format!("in use, ends {}", relative(time, now)),
        State::Expired { since } => format!("expired {}", relative(since, now)),
        State::Revoked { since } => format!("revoked {}", relative(since, now)),
    }
}

/// The choices of a key's caller: `account, pool a`.
fn choice(key: &KeyView) -> String {
    let account = key.may_choose_account.then(|| "account".to_owned());
    let pools = key
        .may_choose_pools
        .iter()
        .map(|pool| format!("pool {pool}"));
    let choices: Vec<String> = account.into_iter().chain(pools).collect();
    if choices.is_empty() {
        "-".to_owned()
    } else {
        choices.join(", ")
    }
}
