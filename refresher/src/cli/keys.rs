//! `refresher keys`.

use clap::{Args, Subcommand};
use latchkey::limit::SubjectKind;
use secrecy::ExposeSecret;
use serde_json::json;

use super::limit_flags::{TermFlags, Use};
use super::output::{print, print_json, relative, table};
use super::{Context, Error, status};
use crate::refresh::clock::{Clock, SystemClock};
use crate::store::{DEFAULT_POOL, KeyTerms};

/// What to do with client keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key and print it, this once
    Create(Create),
    /// Change a key's limits or end
    Set(Set),
    /// Show the keys; never the keys themselves
    List(status::Json),
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
    terms: TermFlags,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

/// What to change.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name or id
    key: String,
    #[command(flatten)]
    terms: TermFlags,
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
                let terms = create.terms.terms(now)?;
                let new = context
                    .store
                    .create_client_key(&create.name, &create.pool, &terms, now)
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
            Command::Set(Set { key, terms }) => {
                let terms = terms.terms(now)?;
                if terms == KeyTerms::default() {
                    return Err("expected at least one flag that says what to change; see: refresher keys set --help".into());
                }
                context.store.set_client_key(&key, &terms).await?;
                print(&format!("{key}: changed\n"))?;
            }
            Command::List(json) => list(context, json).await?,
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
                    "created_at": key.created_at.0, "revoked_at": key.revoked_at.map(|time| time.0),
                    "expires_at": key.expires_at.map(|time| time.0),
                    "limits": used.json(SubjectKind::Key, key.id.as_str(), &key.limits),
                })
            })
            .collect();
        print_json(&keys)?;
    } else if keys.is_empty() {
        print("No keys yet. Make one: refresher keys create NAME\n")?;
    } else {
        let rows: Vec<[String; 7]> = keys
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
                    state,
                    made,
                    used.text(SubjectKind::Key, key.id.as_str(), &key.limits),
                    key.id.to_string(),
                ]
            })
            .collect();
        print(&table(
            ["NAME", "KEY", "POOL", "STATUS", "MADE", "LIMITS", "ID"],
            &rows,
        ))?;
    }
    Ok(())
}
