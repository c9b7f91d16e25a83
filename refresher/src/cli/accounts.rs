//! `refresher accounts`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::limit_flags::TermFlags;
use super::output::{print, print_json, table};
use super::{Context, Error, secret_prompt, status};
use crate::advice::login_command;
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::credential::{Credential, CredentialKind};
use crate::oauth::revoke::{Revoked, revoke};
use crate::store::{self, NewAccount, Saved, Status};

/// The most bytes of an API key, whatever it comes from.
const MAX_KEY_BYTES: u64 = 16 * 1024;
/// Where a key may come from besides standard input and a file.
const KEY_VARIABLE: &str = "LATCHKEY_API_KEY";

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an account that has an API key, read from standard input, --key-file or $LATCHKEY_API_KEY
    Add(Add),
    /// Show the accounts
    List(status::Json),
    /// Change which models an account serves, its limits and its end
    Set(Set),
    /// Let an account serve requests again that was disabled or is dead
    Enable(Name),
    /// Take an account out of use; its login is kept fresh
    Disable(Name),
    /// Have every Envoy forget what is held against an account: cool-downs, strikes, a quota that is used up, death
    Reset(Name),
    /// Delete an account and its credential; a login is revoked at the platform as far as it lets us
    Remove(Name),
}

/// Which account.
#[derive(Debug, Args)]
pub struct Name {
    /// Its name or id
    account: String,
}

/// A new account.
#[derive(Debug, Args)]
pub struct Add {
    /// What to call it
    name: String,
    /// The platform that the key is for: openai, anthropic, or one of yours
    #[arg(long)]
    platform: String,
    /// A file that holds the key and nothing else
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Put the new key in place of the one that an account of this name has
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    terms: TermFlags,
}

/// What is to be another about an account.
#[derive(Debug, Args)]
#[group(required = true, multiple = true, id = "change", args = ["models", "all_models", "rpm", "tpm", "tokens_per_day", "time_zone", "streams", "expires"])]
pub struct Set {
    /// Its name or id
    account: String,
    #[command(flatten)]
    models: super::ModelList,
    #[command(flatten)]
    terms: TermFlags,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// With a message for a person.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let store = &context.store;
        let now = SystemClock.now();
        match self {
            Command::Add(add) => add.run(context, now).await?,
            Command::List(json) => list(context, json).await?,
            Command::Set(set) => {
                let account = set.account;
                let models = set.models.given()?;
                let terms = set.terms.terms(now)?;
                store
                    .set_account(&account, models.as_ref(), &terms, now)
                    .await?;
                print(&format!("{account}: changed\n"))?;
            }
            Command::Enable(Name { account }) => {
                let changed = store.enable(&account, now).await?;
                print(&format!(
                    "{account}: {}\n",
                    if changed {
                        "enabled"
                    } else {
                        "was enabled already"
                    }
                ))?;
            }
            Command::Disable(Name { account }) => {
                let changed = store.disable(&account, now).await?;
                print(&format!(
                    "{account}: {}\n",
                    if changed {
                        "disabled"
                    } else {
                        "was out of use already"
                    }
                ))?;
            }
            Command::Reset(Name { account }) => {
                let status = store.reset(&account, now).await?;
                print(&match status {
                    Status::Active => format!("{account}: nothing is held against it any more\n"),
                    Status::Disabled => {
                        format!(
                            "{account}: nothing is held against it any more; it is disabled still\n"
                        )
                    }
                    _ => format!(
                        "{account}: nothing is held against it any more; it needs a login still\n"
                    ),
                })?;
            }
            Command::Remove(Name { account }) => remove(context, &account).await?,
        }
        Ok(())
    }
}

impl Add {
    async fn run(self, context: &Context, now: UnixMillis) -> Result<(), Error> {
        let profile = context.catalog.profile(&self.platform)?;
        if !profile.credentials.contains(&CredentialKind::ApiKey) {
            return Err(format!(
                "platform {} takes no API keys; log in with: {}",
                profile.id,
                login_command(&profile.id, &self.name)
            )
            .into());
        }
        context.catalog.usable(&self.platform)?;
        let terms = self.terms.terms(now)?;
        let new = NewAccount {
            name: &self.name,
            platform: &profile.id,
            credential: Credential::ApiKey(self.read_key()?),
            vars: BTreeMap::new(),
            expires_at: None,
        };
        let saved = context
            .store
            .save_account_on(new, &terms, self.replace, SystemClock.now())
            .await;
        let saved = match saved {
            Err(error @ store::Error::NameTaken { .. }) if !self.replace => {
                let same = context.store.account(&self.name).await;
                let is_same = same.is_ok_and(|account| account.platform == profile.id);
                return Err(if is_same {
                    format!("{error}; or give it the new key: add --replace").into()
                } else {
                    error.into()
                });
            }
            saved => saved?,
        };
        print(&match saved {
            Saved::Added(id) => format!("{}: added as {id}\n", self.name),
            Saved::Renewed(id) => format!("{} ({id}): has the new key\n", self.name),
        })?;
        Ok(())
    }

    fn read_key(&self) -> Result<SecretString, Error> {
        let mut key = Zeroizing::new(String::new());
        if let Some(path) = &self.key_file {
            key = Zeroizing::new(
                crate::files::read_bounded(path, MAX_KEY_BYTES)
                    .map_err(|error| format!("{}: cannot read it: {error}", path.display()))?,
            );
        } else if let Ok(value) = std::env::var(KEY_VARIABLE) {
            key = Zeroizing::new(value);
        } else {
            let stdin = io::stdin();
            let read = if stdin.is_terminal() {
                secret_prompt::ask(
                    "Paste the API key (it is not shown) and press Enter: ",
                    MAX_KEY_BYTES,
                )
                .map(|line| key = line)
            } else {
                stdin
                    .lock()
                    .take(MAX_KEY_BYTES)
                    .read_to_string(&mut key)
                    .map(drop)
            };
            read.map_err(|error| format!("cannot read the API key from standard input: {error}"))?;
        }
        match key.trim() {
            "" => Err("expected an API key on standard input, in --key-file or in $LATCHKEY_API_KEY; found none".into()),
            key => Ok(SecretString::from(key)),
        }
    }
}

async fn list(context: &Context, json: status::Json) -> Result<(), Error> {
    let views = status::accounts(context).await?;
    if json.json {
        print_json(&views)?;
    } else if views.is_empty() {
        print("No accounts yet. Add one: refresher accounts add NAME --platform openai\n")?;
    } else {
        let now = SystemClock.now();
        let rows: Vec<[String; 8]> = views
            .iter()
            .map(|view| {
                [
                    view.name.clone(),
                    view.platform.clone(),
                    view.kind.to_owned(),
                    view.state(),
                    view.pools.join(", "),
                    view.limits_text.clone(),
                    view.id.clone(),
                    view.held(now),
                ]
            })
            .collect();
        print(&table(
            [
                "NAME",
                "PLATFORM",
                "CREDENTIAL",
                "STATUS",
                "POOLS",
                "LIMITS",
                "ID",
                "HELD",
            ],
            &rows,
        ))?;
        status::print_logins(&views)?;
    }
    Ok(())
}

/// Deletes first: whether the platform can be reached must not decide whether an account is out of use.
async fn remove(context: &Context, name: &str) -> Result<(), Error> {
    let account = context.store.account(name).await?;
    let tokens = context
        .store
        .tokens(&account.id)
        .await
        .unwrap_or_else(|error| {
            eprintln!("warning: {error}; its login cannot be revoked");
            None
        });
    context.store.remove_account(&account.id).await?;
    print(&format!("{} ({}): removed\n", account.name, account.id))?;
    let profile = context.catalog.profile(&account.platform).ok();
    if let (Some(tokens), Some(profile)) = (tokens, profile) {
        match revoke(profile, &tokens).await {
            Revoked::Done => print("Its login was revoked at the platform.\n")?,
            Revoked::NotOffered => {
                print("The platform has no way to revoke its login; sign out there.\n")?
            }
            Revoked::Failed(why) => {
                eprintln!(
                    "warning: its login could not be revoked at the platform ({why}); sign out there"
                );
            }
        }
    }
    Ok(())
}
