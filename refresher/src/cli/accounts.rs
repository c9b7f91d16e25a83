//! `refresher accounts`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::output::{beneath, line, models, or_none, table};
use super::proxy::ProxyFlag;
use super::rules::{self, MapList};
use super::secret_input::MAX_SECRET_BYTES;
use super::terms::{self, TermFlags};
use super::time::{minute, relative};
use super::{
    CALLER, Context, Error, Exit, Json, ModelList, REMOVE, Result, pools, secret_input, status,
};
use crate::advice::check_command;
use crate::app;
use crate::app::accounts::{self, NewKey};
use crate::clock::UnixMillis;
use crate::files;
use crate::files::owned::require_owned_text;
use crate::oauth::revoke::Revoked;
use crate::os_error::in_words;
use crate::probe::Finding;
use crate::store::{Saved, Status};

/// The variable that a key may come from, besides standard input and a file.
const KEY_VARIABLE: &str = "LATCHKEY_API_KEY";

/// Operations on accounts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an account that has an API key, read from standard input, --key-file or $LATCHKEY_API_KEY
    Add(Add),
    /// Show the accounts
    List(Json),
    /// Change the models that an account serves, its limits and its end
    Set(Set),
    /// Ask the platform if an account is of any use, with the profile's cheapest call; nothing is changed
    ///
    /// Exits with 0 where the account is alive or only at a limit, with 4 where it is dead or its credential is refused,
    /// and with 1 where the platform does not tell.
    Check(Check),
    /// Let an account that was disabled or is dead serve requests again
    Enable(Name),
    /// Take an account out of use; its login is kept fresh
    Disable(Name),
    /// Make every Envoy forget what it learned about an account: cooldowns, strikes, a used-up quota, and that it is
    /// dead
    Reset(Name),
    /// Delete an account and its credential; a login is revoked at the platform if the platform offers that
    #[command(aliases = REMOVE)]
    Remove(Name),
}

/// The account that is meant.
#[derive(Debug, Args)]
pub struct Name {
    /// Its name or id
    #[arg(allow_negative_numbers = true)]
    account: String,
}

/// The account that is asked about.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    json: Json,
}

/// A new account.
#[derive(Debug, Args)]
pub struct Add {
    /// The account's name
    #[arg(allow_negative_numbers = true)]
    name: String,
    /// The platform that the key is for, such as openai; `refresher platforms list` shows all
    #[arg(long)]
    platform: String,
    /// A file that holds the key and nothing else
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The account's own address, if its platform's profile allows one
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Give the new key to the account that has this name already
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    proxy: ProxyFlag,
    #[command(flatten)]
    terms: TermFlags,
}

/// Changes to an account.
#[derive(Debug, Args)]
#[group(required = true, multiple = true, id = "change", args = ["models", "all_models", "maps", "no_maps", "base_url", "proxy", "rpm", "tpm", "tokens_per_day", "time_zone", "day_starts", "streams", "default_limits", "expires"])]
pub struct Set {
    /// Its name or id
    #[arg(allow_negative_numbers = true)]
    account: String,
    #[command(flatten)]
    models: ModelList,
    #[command(flatten)]
    maps: MapList,
    /// The account's own address, if its platform's profile allows one. none: the platform's
    #[arg(long, value_name = "URL|none")]
    base_url: Option<String>,
    #[command(flatten)]
    proxy: ProxyFlag,
    #[command(flatten)]
    terms: TermFlags,
    /// Go back to the limits and the day of the platform's profile; flags beside it still count
    #[arg(long)]
    default_limits: bool,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// If the operation comes to nothing.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        match self {
            Command::Add(add) => add.run(context).await?,
            Command::List(json) => list(context, json).await?,
            Command::Set(set) => {
                let account = set.account;
                let (models, maps) = (set.models.given()?, set.maps.given()?);
                let (models, maps) = (models.as_ref(), maps.as_ref());
                let mut terms = set.terms.terms(app.now())?;
                terms.proxy = set.proxy.setting()?;
                terms.limits.of_profile = set.default_limits;
                let base_url = set.base_url.as_deref();
                let base_url = base_url.map(|url| Some(url).filter(|url| *url != "none"));
                let set = accounts::set(app, CALLER, &account, models, maps, base_url, &terms);
                set.await?;
                out.print(&format!(
                    "{account}: changed\n{}",
                    now_set(context, &account).await?
                ))?;
                let notes = maps.map(|maps| rules::notes(maps, None, &[]));
                notes.iter().flatten().for_each(|note| out.note(note));
                context.tell_if_envoy_is_behind();
            }
            Command::Check(check) => check.run(context).await?,
            Command::Enable(Name { account }) => {
                let said = match accounts::enable(app, CALLER, &account).await? {
                    true => "enabled",
                    false => "is enabled already",
                };
                out.print(&format!("{account}: {said}\n"))?;
                context.tell_if_envoy_is_behind();
            }
            Command::Disable(Name { account }) => {
                let said = match accounts::disable(app, CALLER, &account).await? {
                    true => "disabled",
                    false => "is out of use already",
                };
                out.print(&format!("{account}: {said}\n"))?;
                context.tell_if_envoy_is_behind();
            }
            Command::Reset(Name { account }) => {
                let still = match accounts::reset(app, CALLER, &account).await? {
                    Status::Active => "",
                    Status::Disabled => "; it is still disabled",
                    Status::NeedsLogin | Status::Dead => "; it still needs a login",
                };
                out.print(&format!(
                    "{account}: nothing is held against it any more{still}\n"
                ))?;
                context.tell_if_envoy_is_behind();
            }
            Command::Remove(Name { account }) => remove(context, &account).await?,
        }
        Ok(())
    }
}

impl Check {
    async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let account = self.name.account;
        let finding = accounts::check(app, &account).await?;
        context.exit.set(match &finding {
            // A limit ends by itself.
            Finding::Alive | Finding::Limited { .. } => Exit::Done,
            Finding::Dead { .. } | Finding::Refused => Exit::NeedsSomebody,
            Finding::Unknown { .. } => Exit::NotDone,
        });
        if self.json.json {
            return Ok(out.print_json(&finding)?);
        }
        Ok(out.print(&format!("{account}: {}\n", found(&finding, app.now())))?)
    }
}

/// A finding for people.
fn found(finding: &Finding, now: UnixMillis) -> String {
    match finding {
        Finding::Alive => "alive: the platform takes its credential".to_owned(),
        Finding::Dead { reason } => format!(
            "dead: the platform says that it is of no use ({})",
            reason.as_str()
        ),
        Finding::Refused => "expired: the platform refuses its credential".to_owned(),
        Finding::Limited {
            until,
            guessed,
            reason,
        } => {
            let until = UnixMillis(i64::try_from(*until).unwrap_or(i64::MAX));
            let guess = if *guessed { ", a guess" } else { "" };
            let (reason, at, left) = (reason.as_str(), minute(until), relative(until, now));
            format!("out of quota ({reason}) until {at} ({left}{guess})")
        }
        Finding::Unknown { why } => format!("unknown: {why}"),
    }
}

impl Add {
    async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        // Before anybody is asked for a key that nobody takes.
        let profile = accounts::platform_of_key(app, &self.platform, &self.name)?;
        accounts::own_base_url(profile, self.base_url.as_deref())?;
        let mut terms = self.terms.terms(app.now())?;
        terms.proxy = self.proxy.setting()?;
        let new = NewKey {
            name: &self.name,
            platform: &self.platform,
            key: self.read_key()?,
            base_url: self.base_url.as_deref(),
            terms: &terms,
            replace: self.replace,
        };
        let added = accounts::add(app, CALLER, new).await?;
        match added.saved {
            Saved::Added(id) => out.print(&format!("{}: added as {id}\n", self.name))?,
            Saved::Renewed(id) => out.print(&format!("{} ({id}): has the new key\n", self.name))?,
        }
        context.tell_if_nobody_serves(&[&self.platform]).await?;
        if added.can_be_checked {
            out.note(&format!(
                "Ask the platform if it takes the key: {}",
                check_command(&self.name)
            ));
        }
        if added.was_packed {
            out.note("What was around the key (quotes, a name, `Bearer`) was taken off.");
        }
        if !added.twins.is_empty() {
            out.note(&format!(
                "warning: this key is also that of {}; the platform counts them as one",
                added.twins.join(", ")
            ));
        }
        Ok(())
    }

    fn read_key(&self) -> Result<SecretString> {
        let key = if let Some(path) = &self.key_file {
            // Who else writes the file would have our callers use an account of theirs.
            let key = require_owned_text(path, MAX_SECRET_BYTES);
            Ok(key.map_err(|error| match error {
                // As a pipe of the shell's is, `<(…)`.
                files::Error::WrongKind { .. } => {
                    Error::Input(format!("{error}; write the key to standard input instead"))
                }
                error => app::Error::of_handed_file(error).into(),
            })?)
        } else if let Ok(key) = std::env::var(KEY_VARIABLE) {
            files::read_within(key.as_bytes(), MAX_SECRET_BYTES)
                .map(Zeroizing::new)
                .map_err(|error| {
                    let why = in_words(&error);
                    format!("cannot take the API key in ${KEY_VARIABLE}: {why}")
                })
        } else {
            secret_input::read("Paste the API key (it is not shown) and press Enter: ").map_err(
                |error| {
                    let why = in_words(&error);
                    format!("cannot read the API key from standard input: {why}")
                },
            )
        };
        let key = key.map_err(Error::Input)?;
        if key.trim().is_empty() {
            return Err(Error::Input(format!(
                "expected an API key on standard input, in --key-file or in ${KEY_VARIABLE}; found none"
            )));
        }
        Ok(SecretString::from(key.as_str()))
    }
}

/// Returns what an account may do now, a line each.
async fn now_set(context: &Context, account: &str) -> Result<String> {
    let app = &context.app;
    let views = app::status::accounts(app).await?;
    let view = views
        .iter()
        .find(|view| view.name == account || view.id == account);
    let lines = view.map(|view| {
        let limits = status::limits(view, app.now());
        let platforms = app.catalog.profile(&view.platform).ok();
        let platforms = platforms.map(|profile| profile.upstream.url.as_str());
        let base_url = view.base_url.as_deref().or(platforms);
        [
            ("pools", or_none(&view.pools.join(", "))),
            ("models", &models(&view.models)),
            ("maps", or_none(&rules::maps(&view.maps))),
            ("base URL", base_url.unwrap_or("unknown")),
            ("proxy", or_none(view.proxy.as_deref().unwrap_or_default())),
            ("limits", or_none(&limits)),
            ("time zone", &terms::zone_of(&view.limits)),
        ]
        .map(|(name, value)| line(name, value))
        .concat()
    });
    Ok(lines.unwrap_or_default())
}

async fn list(context: &Context, json: Json) -> Result<()> {
    let Context { app, out, .. } = context;
    let views = app::status::accounts(app).await?;
    if json.json {
        let views: Vec<_> = views.iter().map(status::Shown::of).collect();
        return Ok(out.print_json(&views)?);
    }
    if views.is_empty() {
        return Ok(out.print(status::NO_ACCOUNTS)?);
    }
    let now = app.now();
    let mapped = views.iter().filter(|view| !view.maps.is_empty());
    let mapped: Vec<(&str, String)> = mapped
        .map(|view| (&*view.name, rules::maps(&view.maps)))
        .collect();
    let rows: Vec<[String; 9]> = views
        .iter()
        .map(|view| {
            [
                view.name.clone(),
                view.platform.clone(),
                view.kind.to_owned(),
                status::state(view).to_owned(),
                view.pools.join(", "),
                models(&view.models),
                status::limits(view, now),
                view.id.clone(),
                status::cooldowns(view, now),
            ]
        })
        .collect();
    let head = [
        "NAME",
        "PLATFORM",
        "CREDENTIAL",
        "STATUS",
        "POOLS",
        "MODELS",
        "LIMITS",
        "ID",
        "COOLDOWNS",
    ];
    let text = table(out.width(), head, &rows)
        + &status::quotas(out.width(), &views, now)
        + &beneath(&mapped)
        + &status::proxies(&views)
        + &status::logins(&views)
        + &status::unrenewed(&views, now);
    out.print(&text)?;
    Ok(())
}

async fn remove(context: &Context, name: &str) -> Result<()> {
    let Context { app, out, .. } = context;
    let removed = accounts::remove(app, CALLER, name).await?;
    out.print(&format!("{} ({}): removed\n", removed.name, removed.id))?;
    pools::tell_of_empty(context, &removed.pools).await?;
    context.tell_if_envoy_is_behind();
    if let Some(problem) = &removed.unreadable {
        out.note(&format!(
            "warning: {problem}; its login cannot be revoked: sign out at the platform"
        ));
    }
    match removed.revoke().await {
        None => {}
        Some(Revoked::Done) => out.print("Its login was revoked at the platform.\n")?,
        Some(Revoked::NotOffered) => {
            out.print("The platform offers no way to revoke its login: sign out there.\n")?;
        }
        Some(Revoked::Failed(why)) => out.note(&format!(
            "warning: its login could not be revoked at the platform ({why}): sign out there"
        )),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use latchkey::verdict::Reason;

    use super::*;

    #[test]
    fn a_finding_says_what_the_account_is_worth() {
        let now = UnixMillis(1_790_000_000_000);
        let reason = || Reason::try_from("usage_limit".to_owned()).unwrap();
        let limited = |guessed| Finding::Limited {
            until: 1_790_003_600_000,
            guessed,
            reason: reason(),
        };
        let unknown = Finding::Unknown {
            why: "no answer".to_owned(),
        };
        for (finding, said, json) in [
            (Finding::Alive, "alive: ", r#"{"found":"alive"}"#),
            (
                Finding::Dead { reason: reason() },
                "dead: the platform says that it is of no use (usage_limit)",
                r#"{"found":"dead","reason":"usage_limit"}"#,
            ),
            (Finding::Refused, "expired: ", r#"{"found":"refused"}"#),
            (
                limited(true),
                "out of quota (usage_limit) until 2026-09-21 ",
                r#"{"found":"limited","until":1790003600000,"guessed":true,"reason":"usage_limit"}"#,
            ),
            (
                unknown,
                "unknown: no answer",
                r#"{"found":"unknown","why":"no answer"}"#,
            ),
        ] {
            let text = found(&finding, now);
            assert!(text.starts_with(said), "{text}");
            assert_eq!(serde_json::to_string(&finding).unwrap(), json);
        }
        assert!(found(&limited(true), now).ends_with("a guess)"));
        assert!(!found(&limited(false), now).contains("guess"));
    }
}
