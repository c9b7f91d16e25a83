//! `refresher status`: the accounts and how they are, for people and for machines.

use clap::Args;
use latchkey::limit::SubjectKind;
use serde::Serialize;

use super::limit_flags::Use;
use super::output::{print, print_json, relative, table};
use super::{Context, Error};
use crate::credential::CredentialKind;
use crate::refresh::clock::{Clock, SystemClock, UnixMillis};
use crate::refresh::login_command;
use crate::refresh::schedule::{Jitter, refresh_at};
use crate::store::{Account, Status};

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Print JSON, for machines
    #[arg(long)]
    pub json: bool,
}

/// `refresher status`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    json: Json,
}

/// An account as it is shown. Times are Unix milliseconds.
#[derive(Debug, Serialize)]
pub struct View {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its platform's id.
    pub platform: String,
    /// The kind of its credential.
    pub kind: &'static str,
    /// What the operator or the refresh engine made of it.
    pub status: Status,
    /// Whether Envoy may use it now, and if not, why not.
    pub usable: bool,
    /// Why it is as it is.
    pub reason: Option<String>,
    /// Counts its credentials.
    pub generation: u64,
    /// When the access token expires.
    pub expires_at: Option<i64>,
    /// When the next refresh is due.
    pub next_refresh_at: Option<i64>,
    /// Refreshes that failed in a row.
    pub failures: u32,
    /// What it may use, and has used.
    pub limits: serde_json::Value,
    /// The same for people.
    #[serde(skip)]
    pub limits_text: String,
}

impl View {
    /// `account` at `now`; `notice` is why its platform is off.
    fn new(account: Account, platform_is_on: bool, used: &Use, now: UnixMillis) -> View {
        let expired = account.expires_at.is_some_and(|time| time <= now);
        let next = (account.kind == CredentialKind::OAuth && account.status != Status::NeedsLogin)
            .then(|| {
                let due = refresh_at(
                    account.issued_at,
                    account.expires_at,
                    Jitter::of(&account.id, account.generation),
                );
                account.retry_at.map_or(due, |retry_at| due.max(retry_at))
            });
        let reason = match account.reason {
            _ if !platform_is_on => Some("the platform's notice is not acknowledged".to_owned()),
            None if expired => Some("its access token has expired".to_owned()),
            None if account.failures > 0 => {
                Some(format!("{} refreshes failed in a row", account.failures))
            }
            reason => reason,
        };
        let id = account.id.as_str();
        View {
            limits: used.json(SubjectKind::Account, id, &account.limits),
            limits_text: used.text(SubjectKind::Account, id, &account.limits),
            usable: account.status == Status::Active && platform_is_on && !expired,
            id: account.id.to_string(),
            name: account.name,
            platform: account.platform,
            kind: account.kind.as_str(),
            status: account.status,
            reason,
            generation: account.generation,
            expires_at: account.expires_at.map(|time| time.0),
            next_refresh_at: next.map(|time| time.0),
            failures: account.failures,
        }
    }

    /// The status in a word or two.
    pub fn state(&self) -> String {
        match self.status {
            Status::Active if self.usable => "active",
            Status::Active => "not usable",
            Status::Disabled => "disabled",
            Status::NeedsLogin => "needs login",
        }
        .to_owned()
    }
}

/// Every account, as it is now.
///
/// # Errors
/// If the store fails.
pub async fn accounts(context: &Context) -> Result<Vec<View>, Error> {
    let now = SystemClock.now();
    let used = Use::of(context, now).await?;
    let view = |account: Account| {
        let platform_is_on = context.catalog.usable(&account.platform).is_ok();
        View::new(account, platform_is_on, &used, now)
    };
    Ok(context
        .store
        .accounts()
        .await?
        .into_iter()
        .map(view)
        .collect())
}

impl Show {
    /// Prints it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let accounts = accounts(context).await?;
        let (_, revision) = context.store.head().await?;
        let serving = context.state.is_served();
        if self.json.json {
            return Ok(print_json(&serde_json::json!({
                "state_dir": context.state.path(), "serving": serving, "revision": revision, "accounts": accounts,
            }))?);
        }
        let now = SystemClock.now();
        let time =
            |time: Option<i64>| time.map_or("-".to_owned(), |time| relative(UnixMillis(time), now));
        let rows: Vec<[String; 7]> = accounts
            .iter()
            .map(|view| {
                [
                    view.name.clone(),
                    view.platform.clone(),
                    view.state(),
                    time(view.expires_at),
                    time(view.next_refresh_at),
                    view.limits_text.clone(),
                    view.reason.clone().unwrap_or_default(),
                ]
            })
            .collect();
        let state = if serving {
            "running"
        } else {
            "NOT running (start it: refresher serve)"
        };
        print(&format!(
            "refresher  {state}\nstate      {}\nrevision   {revision}\n\n",
            context.state.path().display()
        ))?;
        if accounts.is_empty() {
            print("No accounts yet. Add one: refresher accounts add NAME --platform openai\n")?;
            return Ok(());
        }
        print(&table(
            [
                "ACCOUNT",
                "PLATFORM",
                "STATUS",
                "EXPIRES",
                "NEXT REFRESH",
                "LIMITS",
                "WHY",
            ],
            &rows,
        ))?;
        for view in accounts
            .iter()
            .filter(|view| view.status == Status::NeedsLogin)
        {
            print(&format!(
                "\n{} needs a new login: {}\n  It prints the URL to open. For a browser on another machine, add --paste.\n",
                view.name,
                login_command(&view.platform, &view.name)
            ))?;
        }
        Ok(())
    }
}
