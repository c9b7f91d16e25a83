//! `refresher status`: the accounts and how they are, for people and for machines.

use clap::Args;
use latchkey::limit::SubjectKind;
use latchkey::snapshot::{Cooldown, Models};
use latchkey::verdict::Scope;
use latchkey::verdict::quota::Window;
use serde::Serialize;

use super::limit_flags::Use;
use super::output::{print, print_json, relative, table};
use super::{Context, Error, daemon};
use crate::advice::{enable_command, login_command};
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::credential::CredentialKind;
use crate::login::pending::LoginUrl;
use crate::refresh::schedule::{Jitter, refresh_at};
use crate::store::{Account, Health, Pool, Status};

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
    /// The pools that it is in.
    pub pools: Vec<String>,
    /// The models that it serves; none means all.
    pub models: Models,
    /// Why it is as it is.
    pub reason: Option<String>,
    /// If it needs a login and `serve` waits for one: the URL to open in a browser.
    pub login_url: Option<String>,
    /// The port on this machine that the browser comes back to then.
    #[serde(skip)]
    pub login_port: Option<u16>,
    /// Counts its credentials.
    pub generation: u64,
    /// When the access token expires.
    pub expires_at: Option<i64>,
    /// When the account itself ends.
    pub ends_at: Option<i64>,
    /// Whether it is past that.
    #[serde(skip)]
    pub has_ended: bool,
    /// When the next refresh is due.
    pub next_refresh_at: Option<i64>,
    /// Refreshes that failed in a row.
    pub failures: u32,
    /// What keeps Envoy from using it, or lets it try with one request at a time.
    pub cooling_down: Vec<Cooling>,
    /// The windows of its quota, as its platform last said.
    pub quota: Vec<Window>,
    /// When that was.
    pub quota_at: Option<u64>,
    /// What it may use, and has used.
    pub limits: serde_json::Value,
    /// The same for people, and when it ends.
    #[serde(skip)]
    pub limits_text: String,
}

/// One thing that is held against an account.
#[derive(Debug, Serialize)]
pub struct Cooling {
    /// The model that it is about; none: all of the account.
    pub model: Option<String>,
    /// When it ends.
    pub until: u64,
    /// Whether the platform did not say when: one request at a time tries after `until`.
    pub guessed: bool,
    /// Why, in a word.
    pub reason: String,
}

impl Cooling {
    fn of(held: Cooldown) -> Cooling {
        Cooling {
            model: match held.scope {
                Scope::Account => None,
                Scope::Model(model) => Some(model.as_str().to_owned()),
            },
            until: held.until,
            guessed: held.guessed,
            reason: held.reason.as_str().to_owned(),
        }
    }

    /// `cooling down, back in 2m (rate_limited, a guess)`.
    fn text(&self, now: UnixMillis) -> String {
        let what = match &self.model {
            None => "cooling down".to_owned(),
            Some(model) => format!("{model} cooling down"),
        };
        let until = UnixMillis(i64::try_from(self.until).unwrap_or(i64::MAX));
        let back = if until > now {
            format!("back {}", relative(until, now))
        } else {
            "one request at a time tries".to_owned()
        };
        let guess = if self.guessed { ", a guess" } else { "" };
        format!("{what}, {back} ({}{guess})", self.reason)
    }
}

impl View {
    /// `account` at `now`; `pools` are all there are.
    fn new(
        account: Account,
        health: Health,
        pools: &[Pool],
        used: &Use,
        login: Option<&LoginUrl>,
        platform_is_on: bool,
        now: UnixMillis,
    ) -> View {
        let millis = u64::try_from(now.0).unwrap_or(0);
        let is_out = |held: &Cooldown| held.scope == Scope::Account && held.until > millis;
        let out = health.entries.iter().any(is_out);
        let running = health.entries.into_iter();
        let running = running.filter(|held| !held.has_ended(millis));
        let expired = account.expires_at.is_some_and(|time| time <= now);
        let has_ended = account.has_ended(now);
        let next = (account.kind != CredentialKind::ApiKey && account.status != Status::NeedsLogin)
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
            None if has_ended => Some("it is past its end".to_owned()),
            None if expired => Some("its access token has expired".to_owned()),
            None if account.failures > 0 => {
                Some(format!("{} refreshes failed in a row", account.failures))
            }
            reason => reason,
        };
        let has = |pool: &&Pool| pool.members.iter().any(|one| one.account == account.name);
        let pools = pools.iter().filter(has).map(|pool| pool.id.clone());
        let id = account.id.as_str();
        let limits = used.text(SubjectKind::Account, id, &account.limits);
        let end = account.ends_at.map(|time| {
            let verb = if has_ended { "ended" } else { "ends" };
            format!("{verb} {}", relative(time, now))
        });
        let limits_text = [limits, end.unwrap_or_default()].into_iter();
        let limits_text = limits_text.filter(|part| !part.is_empty());
        View {
            pools: pools.collect(),
            limits: used.json(SubjectKind::Account, id, &account.limits),
            limits_text: limits_text.collect::<Vec<_>>().join(", "),
            usable: account.status == Status::Active
                && platform_is_on
                && !has_ended
                && !expired
                && !out,
            id: account.id.to_string(),
            name: account.name,
            platform: account.platform,
            kind: account.kind.as_str(),
            status: account.status,
            models: account.models,
            reason,
            login_url: login.map(|login| login.url.clone()),
            login_port: login.map(|login| login.port),
            generation: account.generation,
            expires_at: account.expires_at.map(|time| time.0),
            ends_at: account.ends_at.map(|time| time.0),
            has_ended,
            next_refresh_at: next.map(|time| time.0),
            failures: account.failures,
            cooling_down: running.map(Cooling::of).collect(),
            quota_at: (!health.quota.windows.is_empty()).then_some(health.quota.at),
            quota: health.quota.windows,
        }
    }

    /// The status in a word or two.
    pub fn state(&self) -> String {
        match self.status {
            Status::Active if self.usable => "active",
            Status::Active if self.has_ended => Status::ENDED,
            Status::Active if self.cooling_down.iter().any(|one| one.model.is_none()) => {
                "cooling down"
            }
            Status::Active => "not usable",
            Status::Disabled => "disabled",
            Status::NeedsLogin => "needs login",
            Status::Dead => "dead",
        }
        .to_owned()
    }

    /// What is held against it, in words; empty where nothing is.
    pub fn held(&self, now: UnixMillis) -> String {
        let held = self.cooling_down.iter().map(|one| one.text(now));
        held.collect::<Vec<_>>().join("; ")
    }

    /// `5h 62 % used, resets in 1h 10m`, a window each.
    fn quota(&self, now: UnixMillis) -> String {
        let window = |window: &Window| {
            let reset = |at: u64| UnixMillis(i64::try_from(at).unwrap_or(i64::MAX));
            match window.resets_at.map(reset) {
                Some(at) if at <= now => format!("{} is full again", window.name),
                at => {
                    let used = format!("{} {:.0} % used", window.name, window.used_percent);
                    let resets = at.map(|at| format!(", resets {}", relative(at, now)));
                    used + &resets.unwrap_or_default()
                }
            }
        };
        let windows = self.quota.iter().map(window);
        windows.collect::<Vec<_>>().join("; ")
    }

    /// Why it is as it is: its status's reason, and what is held against it.
    fn why(&self, now: UnixMillis) -> String {
        let parts = [self.reason.clone().unwrap_or_default(), self.held(now)];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("; ")
    }
}

/// Every account, as it is now.
///
/// # Errors
/// If the store fails.
pub async fn accounts(context: &Context) -> Result<Vec<View>, Error> {
    let now = SystemClock.now();
    let pools = context.store.pools().await?;
    let used = Use::of(context, now).await?;
    let mut health = context.store.health().await?;
    let accounts = context.store.accounts().await?;
    let needs_login = |account: &Account| account.status == Status::NeedsLogin;
    let logins: Option<Vec<LoginUrl>> = match accounts.iter().any(needs_login) {
        true => daemon::ask(&context.state, "/logins").await,
        false => None,
    };
    let view = |account: Account| {
        let platform_is_on = context.catalog.usable(&account.platform).is_ok();
        let health = health.remove(account.id.as_str()).unwrap_or_default();
        let mut logins = logins.iter().flatten();
        let login = logins.find(|login| login.account == account.id.as_str());
        let login = login.filter(|_| needs_login(&account));
        View::new(account, health, &pools, &used, login, platform_is_on, now)
    };
    Ok(accounts.into_iter().map(view).collect())
}

/// Says how to log in the accounts that need it.
///
/// # Errors
/// If standard output is gone.
pub fn print_logins(accounts: &[View]) -> std::io::Result<()> {
    for view in accounts {
        if view.status != Status::NeedsLogin {
            continue;
        }
        let (name, cure) = (&view.name, login_command(&view.platform, &view.name));
        print(&match (&view.login_url, view.login_port) {
            (Some(url), Some(port)) => format!(
                "\n{name} needs a new login. Open this URL in a browser on this machine:\n\n{url}\n\n  For a browser on \
                 another machine, first run there: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE\n  Or run here: {cure} --paste\n"
            ),
            _ => format!(
                "\n{name} needs a new login: {cure}\n  It prints the URL to open. For a browser on another machine, add --paste.\n"
            ),
        })?;
    }
    Ok(())
}

impl Show {
    /// Prints it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let accounts = accounts(context).await?;
        let (_, revision) = context.store.head().await?;
        let pools = context.store.pools().await?;
        let serving = context.state.is_served();
        if self.json.json {
            return Ok(print_json(&serde_json::json!({
                "state_dir": context.state.path(), "serving": serving, "revision": revision, "accounts": accounts,
                "pools": pools.iter().map(super::pools::view).collect::<Vec<_>>(),
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
                    view.why(now),
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
        if context.store.waiting_key().await?.is_some() {
            print(
                "The first of the sealing keys does not seal yet. Finish the rotation: refresher rotate-key\n\n",
            )?;
        }
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
        print(&format!("\n{}", super::pools::as_table(&pools)))?;
        let quotas: Vec<[String; 2]> = accounts
            .iter()
            .filter(|view| !view.quota.is_empty())
            .map(|view| [view.name.clone(), view.quota(now)])
            .collect();
        if !quotas.is_empty() {
            print(&format!("\n{}", table(["ACCOUNT", "QUOTA"], &quotas)))?;
        }
        print_logins(&accounts)?;
        for view in accounts.iter().filter(|view| view.status == Status::Dead) {
            let (name, platform) = (&view.name, &view.platform);
            print(&format!(
                "\n{name} is dead: see to it at {platform}, then run: {}\n",
                enable_command(name)
            ))?;
        }
        Ok(())
    }
}
