//! `refresher keys`.

use clap::{Args, Subcommand};
use latchkey::limit::SubjectKind;
use latchkey::snapshot::{ModelPattern, Models};
use secrecy::ExposeSecret;
use serde_json::json;

use super::limit_flags::{TermFlags, Use};
use super::output::{print, print_json, relative, table};
use super::{Context, Error, status};
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::store::{ClientKey, DEFAULT_POOL, KeyChange};

/// What to do with client keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key and print it, this once
    Create(Create),
    /// Show the keys; never the keys themselves
    List(status::Json),
    /// Change what a key may do, its limits and its end
    Set(Set),
    /// Refuse a key from now on
    Revoke(Revoke),
}

/// A new key.
#[derive(Debug, Args)]
pub struct Create {
    /// Who or what it is for
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

/// What is to be another about a key.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name or id
    key: String,
    /// The pool of accounts that serves it
    #[arg(long)]
    pool: Option<String>,
    /// Take away what its caller may choose, before anything else here gives it
    #[arg(long)]
    no_choice: bool,
    #[command(flatten)]
    rights: Rights,
}

/// What a key may do.
#[derive(Debug, Args)]
struct Rights {
    #[command(flatten)]
    models: super::ModelList,
    /// Let its caller choose the account, with the header x-latchkey-account
    #[arg(long)]
    may_choose_account: bool,
    /// Let its caller choose this pool, with the header x-latchkey-pool; may be given more than once
    #[arg(long, value_name = "POOL")]
    may_choose_pool: Vec<String>,
    #[command(flatten)]
    terms: TermFlags,
}

impl Rights {
    fn change(self, now: UnixMillis) -> Result<KeyChange, Error> {
        Ok(KeyChange {
            terms: self.terms.terms(now)?,
            models: self.models.given()?,
            may_choose_account: self.may_choose_account,
            may_choose_pools: self.may_choose_pool,
            ..KeyChange::default()
        })
    }
}

/// Which key.
#[derive(Debug, Args)]
pub struct Revoke {
    /// Its name or id
    key: String,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// With a message for a person.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let now = SystemClock.now();
        match self {
            Command::Create(create) => {
                let rights = create.rights.change(now)?;
                let new = context
                    .store
                    .create_client_key(&create.name, &create.pool, &rights, now)
                    .await?;
                if create.json {
                    let id = new.id.as_str();
                    print_json(
                        &json!({ "id": id, "name": create.name, "key": new.key.expose_secret() }),
                    )?;
                } else {
                    // The key alone on standard output, so that it can be piped.
                    eprintln!(
                        "Key {:?} for pool {}. Keep it: it is not shown again.",
                        create.name, create.pool
                    );
                    print(&format!("{}\n", new.key.expose_secret()))?;
                }
            }
            Command::List(json) => list(context, json).await?,
            Command::Set(set) => {
                let change = KeyChange {
                    pool: set.pool,
                    no_choice: set.no_choice,
                    ..set.rights.change(now)?
                };
                if change == KeyChange::default() {
                    return Err("expected at least one flag that says what to change; see: refresher keys set --help".into());
                }
                let id = context.store.set_client_key(&set.key, &change).await?;
                print(&format!("{} ({id}): changed\n", set.key))?;
            }
            Command::Revoke(Revoke { key }) => {
                let id = context.store.revoke_client_key(&key, now).await?;
                print(&format!("{key} ({id}): revoked\n"))?;
            }
        }
        Ok(())
    }
}

async fn list(context: &Context, format: status::Json) -> Result<(), Error> {
    let keys = context.store.client_keys().await?;
    let now = SystemClock.now();
    let used = Use::of(context, now).await?;
    if format.json {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({
                    "id": key.id.as_str(), "name": key.name, "prefix": key.prefix, "pool": key.pool,
                    "models": key.models, "may_choose_account": key.may_choose_account,
                    "may_choose_pools": key.may_choose_pools, "created_at": key.created_at.0,
                    "revoked_at": key.revoked_at.map(|time| time.0),
                    "expires_at": key.expires_at.map(|time| time.0),
                    "limits": used.json(SubjectKind::Key, key.id.as_str(), &key.limits),
                })
            })
            .collect();
        print_json(&keys)?;
    } else if keys.is_empty() {
        print("No keys yet. Make one: refresher keys create NAME\n")?;
    } else {
        let rows: Vec<[String; 9]> = keys
            .iter()
            .map(|key| {
                let state = match (key.revoked_at, key.expires_at) {
                    (Some(time), _) => format!("revoked {}", relative(time, now)),
                    (None, Some(time)) if time <= now => format!("expired {}", relative(time, now)),
                    (None, Some(time)) => format!("in use, ends {}", relative(time, now)),
                    (None, None) => "in use".to_owned(),
                };
                let made = relative(key.created_at, now);
                [
                    key.name.clone(),
                    format!("{}…", key.prefix),
                    key.pool.clone(),
                    models(&key.models),
                    choice(key),
                    state,
                    made,
                    used.text(SubjectKind::Key, key.id.as_str(), &key.limits),
                    key.id.to_string(),
                ]
            })
            .collect();
        print(&table(
            [
                "NAME", "KEY", "POOL", "MODELS", "CHOICE", "STATUS", "MADE", "LIMITS", "ID",
            ],
            &rows,
        ))?;
    }
    Ok(())
}

/// A list of models for people.
fn models(models: &Models) -> String {
    let patterns: Vec<&str> = models.patterns().iter().map(ModelPattern::as_str).collect();
    if models.is_all() {
        "all".to_owned()
    } else {
        patterns.join(", ")
    }
}

/// What a caller may choose: `account, pool a`.
fn choice(key: &ClientKey) -> String {
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
