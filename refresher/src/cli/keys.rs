//! `refresher keys`.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::output::{print, print_json, relative, table};
use super::{Context, Error, status};
use crate::refresh::clock::{Clock, SystemClock};
use crate::store::DEFAULT_POOL;

/// What to do with client keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key and print it, this once
    Create(Create),
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
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
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
                let new = context
                    .store
                    .create_client_key(&create.name, &create.pool, now)
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
    if format.json {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({
                    "id": key.id.as_str(), "name": key.name, "prefix": key.prefix, "pool": key.pool,
                    "created_at": key.created_at.0, "revoked_at": key.revoked_at.map(|time| time.0),
                })
            })
            .collect();
        print_json(&keys)?;
    } else if keys.is_empty() {
        print("No keys yet. Make one: refresher keys create NAME\n")?;
    } else {
        let rows: Vec<[String; 6]> = keys
            .iter()
            .map(|key| {
                let state = match key.revoked_at {
                    Some(time) => format!("revoked {}", relative(time, now)),
                    None => "in use".to_owned(),
                };
                let made = relative(key.created_at, now);
                [
                    key.name.clone(),
                    format!("{}…", key.prefix),
                    key.pool.clone(),
                    state,
                    made,
                    key.id.to_string(),
                ]
            })
            .collect();
        print(&table(
            ["NAME", "KEY", "POOL", "STATUS", "MADE", "ID"],
            &rows,
        ))?;
    }
    Ok(())
}
