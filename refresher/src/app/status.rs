//! The accounts and how they are.

use latchkey::limit::SubjectKind;
use latchkey::snapshot::{self, Kind, ModelMaps, Models};
use latchkey::verdict::Scope;
use serde::Serialize;

use super::limits::{Limits, Use};
use super::quota::Quota;
use super::{App, Result, daemon, platforms, quota};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::failing::Failing;
use crate::keys::seal::KeyId;
use crate::limits::LimitSettings;
use crate::login::pending::LoginUrl;
use crate::progress::EnvoyView;
use crate::refresh::schedule::{Jitter, refresh_at};
use crate::standing::{Standing, ends_soon, stuck};
use crate::store::{Account, Asked, Health, LeftOut, Pool, Status, is_suspected};

/// An account as it is shown. Times are Unix milliseconds.
#[derive(Debug, Serialize)]
pub struct AccountView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its platform's id.
    pub platform: String,
    /// The address at which it is reached, if not its platform's.
    pub base_url: Option<String>,
    /// The proxy of its own, by which it leaves; without its password.
    pub proxy: Option<String>,
    /// The kind of its credential.
    pub kind: &'static str,
    /// The status that the operator or the refresh engine set.
    pub status: Status,
    /// Envoy may use it now.
    pub usable: bool,
    /// The pools that it is in.
    pub pools: Vec<String>,
    /// The models that it serves; none means all.
    pub models: Models,
    /// The names by which its platform knows models.
    pub maps: ModelMaps,
    /// The reason of its state.
    pub reason: Option<String>,
    /// The URL to open in a browser, if it needs a login and `serve` waits for one.
    pub login_url: Option<String>,
    /// True if the account needs other secrets: it is a client of its own, and needs a login or a person to see to its
    /// refreshes.
    #[serde(skip)]
    pub needs_secrets: bool,
    /// The port on this machine that the browser comes back to then.
    #[serde(skip)]
    pub login_port: Option<u16>,
    /// Counts its credentials.
    pub generation: u64,
    /// The end of the access token.
    pub credential_expires_at: Option<i64>,
    /// The end of the account that the operator set.
    pub expires_at: Option<i64>,
    /// The end for good, of the account or of its login, where one is known: no refresh moves it.
    pub ends_at: Option<i64>,
    /// True if that end is near.
    #[serde(skip)]
    pub ends_soon: bool,
    /// The time of the next refresh.
    pub next_refresh_at: Option<i64>,
    /// Refreshes that failed in a row.
    pub failures: u32,
    /// The failures in a row, and their beginning.
    pub failing: Option<FailingView>,
    /// The reasons for which Envoy leaves it alone, or tries it with one request at a time.
    pub cooling_down: Vec<Cooldown>,
    /// The windows of its quota, whoever told them.
    pub quota: Vec<Quota>,
    /// The time at which its platform last told any.
    pub quota_at: Option<u64>,
    /// Its limits, and what is used of them.
    pub limits: Limits,
    /// A client key was told that it is dead, and nobody knows yet.
    #[serde(skip)]
    pub is_suspected: bool,
    /// Its refresh token may be spent, so that it ends with its access token.
    #[serde(skip)]
    pub is_spent: bool,
    /// The effective state.
    #[serde(skip)]
    pub standing: Standing,
}

/// Refreshes of an account that fail.
#[derive(Debug, Clone, Serialize)]
pub struct FailingView {
    /// The kind, the reason and the beginning of the failures.
    #[serde(flatten)]
    pub failing: Failing,
    /// True if it has gone on for so long, or so near the credential's end, that a person should look.
    pub stuck: bool,
}

/// A time for which an account is left alone.
#[derive(Debug, Serialize)]
pub struct Cooldown {
    /// The model that it is about; none: all of the account.
    pub model: Option<String>,
    /// Its end.
    pub until: u64,
    /// The platform did not say when: one request at a time tries after `until`.
    pub guessed: bool,
    /// The reason, in a word.
    pub reason: String,
}

impl From<snapshot::Cooldown> for Cooldown {
    fn from(cooldown: snapshot::Cooldown) -> Cooldown {
        Cooldown {
            model: match cooldown.scope {
                Scope::Account => None,
                Scope::Model(model) => Some(model.as_str().to_owned()),
            },
            until: cooldown.until,
            guessed: cooldown.guessed,
            reason: cooldown.reason.as_str().to_owned(),
        }
    }
}

impl AccountView {
    /// `account` at `now`; `pools` are all there are.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another part of what is known of it"
    )]
    fn new(
        account: Account,
        health: Health,
        pools: &[Pool],
        used: &Use,
        asked: Option<Asked>,
        login: Option<&LoginUrl>,
        proxy: Option<String>,
        platform_is_on: bool,
        is_platform_new: bool,
        defaults: &LimitSettings,
        left_out: Option<&LeftOut>,
        now: UnixMillis,
    ) -> AccountView {
        let mut standing = Standing::of(&account, &health.entries, platform_is_on, now);
        let mut reason = reason(&account, platform_is_on, now);
        if is_platform_new && standing == Standing::Active {
            standing = Standing::PlatformNew;
            reason = Some("the running refresher does not know its platform yet".to_owned());
        }
        if let Some(left_out) = left_out.filter(|_| account.status == Status::Active) {
            standing = Standing::LeftOut;
            reason = Some(format!("it cannot go to Envoy: {}", left_out.why));
        }
        let millis = u64::try_from(now.0).unwrap_or(0);
        let running = health.entries.into_iter();
        let running = running.filter(|one| !one.has_ended(millis));
        let has = |pool: &&Pool| pool.members.iter().any(|one| one.account == account.name);
        let pools = pools.iter().filter(has).map(|pool| pool.id.clone());
        let limits = account.limits.over(defaults);
        let limits = used.of(SubjectKind::Account, account.id.as_str(), limits);
        let quota = quota::of(health.quota, asked, &limits);
        let is_stuck = platform_is_on && left_out.is_none() && stuck(&account, now).is_some();
        let failing = account.failing.clone().map(|failing| FailingView {
            failing,
            stuck: is_stuck,
        });
        AccountView {
            needs_secrets: false,
            pools: pools.collect(),
            limits,
            usable: standing == Standing::Active,
            is_suspected: is_suspected(account.status, account.reason.as_deref()),
            is_spent: account.is_spent,
            standing,
            next_refresh_at: next_refresh(&account).map(|time| time.0),
            ends_at: account.ends_at().map(|time| time.0),
            ends_soon: ends_soon(&account, now).is_some(),
            id: account.id.to_string(),
            name: account.name,
            platform: account.platform,
            base_url: account.base_url,
            proxy,
            kind: account.kind.as_str(),
            status: account.status,
            models: account.models,
            maps: account.maps,
            reason,
            login_url: login.map(|login| login.url.clone()),
            login_port: login.map(|login| login.port),
            generation: account.generation,
            credential_expires_at: account.credential_expires_at.map(|time| time.0),
            expires_at: account.expires_at.map(|time| time.0),
            failures: account.failures,
            failing,
            cooling_down: running.map(Cooldown::from).collect(),
            quota_at: quota.iter().filter_map(|window| window.at).max(),
            quota,
        }
    }
}

/// Says why the account is as it is: what keeps it from serving first, then what was learned of it last.
fn reason(account: &Account, platform_is_on: bool, now: UnixMillis) -> Option<String> {
    let expired = account
        .credential_expires_at
        .is_some_and(|time| time <= now);
    if !platform_is_on {
        return Some("the platform's notice is not acknowledged".to_owned());
    }
    if account.reason.is_some() {
        return account.reason.clone();
    }
    if account.has_ended(now) {
        return Some("it is past its end".to_owned());
    }
    expired.then(|| "its access token has expired".to_owned())
}

/// The time at which the credential is renewed next; none where it never is.
fn next_refresh(account: &Account) -> Option<UnixMillis> {
    let is_renewed = !matches!(
        account.kind,
        CredentialKind::ApiKey | CredentialKind::Session
    );
    if !is_renewed || account.status == Status::NeedsLogin {
        return None;
    }
    let due = refresh_at(
        account.issued_at,
        account.credential_expires_at,
        Jitter::of(&account.id, account.generation),
    );
    Some(account.retry_at.map_or(due, |retry_at| due.max(retry_at)))
}

/// Every account as it is now, in order of name.
///
/// # Errors
/// If the store fails.
pub async fn accounts(app: &App) -> Result<Vec<AccountView>> {
    accounts_but(app, &app.store.left_out().await?).await
}

/// Every account as it is now, where these records cannot go to Envoy.
async fn accounts_but(app: &App, left_out: &[LeftOut]) -> Result<Vec<AccountView>> {
    let now = app.now();
    let pools = app.store.pools().await?;
    let used = Use::now(app).await?;
    let mut health = app.store.health().await?;
    let mut asked = app.store.quotas().await?;
    let mut proxies = app.store.proxies().await?;
    let accounts = app.store.accounts().await?;
    let needs_login = |account: &Account| account.status == Status::NeedsLogin;
    let logins: Option<Vec<LoginUrl>> = match accounts.iter().any(needs_login) {
        true => daemon::ask(&app.state, "/logins").await,
        false => None,
    };
    let known = platforms::served(app).await?;
    let mut clients = Vec::new();
    let is_told = |account: &&Account| {
        needs_login(account) || account.is_spent || stuck(account, now).is_some()
    };
    for account in accounts.iter().filter(is_told) {
        if app.store.has_own_client(&account.id).await {
            clients.push(account.id.clone());
        }
    }
    let no_limits = LimitSettings::default();
    let view = |account: Account| {
        let needs_secrets = clients.contains(&account.id);
        let platform_is_on = app.catalog.usable(&account.platform).is_ok();
        let mut known = known.iter();
        let is_platform_new = known.any(|known| !known.contains(&account.platform));
        let health = health.remove(account.id.as_str()).unwrap_or_default();
        let mut logins = logins.iter().flatten();
        let login = logins.find(|login| login.account == account.id.as_str());
        let login = login.filter(|_| needs_login(&account));
        let proxy = proxies.remove(&account.id).map(|proxy| match proxy {
            Ok(proxy) => proxy.to_string(),
            Err(_) => "one that cannot be opened".to_owned(),
        });
        let is_it = |one: &&LeftOut| one.kind == Kind::Account && one.id == account.id.as_str();
        let left_out = left_out.iter().find(is_it);
        let profile = app.catalog.profile(&account.platform).ok();
        let defaults = profile.map_or(&no_limits, |profile| &profile.limits);
        let account_id = account.id.clone();
        let mut view = AccountView::new(
            account,
            health,
            &pools,
            &used,
            asked.remove(account_id.as_str()),
            login,
            proxy,
            platform_is_on,
            is_platform_new,
            defaults,
            left_out,
            now,
        );
        view.needs_secrets = needs_secrets;
        view
    };
    Ok(accounts.into_iter().map(view).collect())
}

/// Everything at a glance.
#[derive(Debug)]
pub struct Overview {
    /// A `serve` runs on this state.
    pub is_served: bool,
    /// True if the daemon answers on its socket.
    pub is_answered: bool,
    /// The revision of the snapshot.
    pub revision: u64,
    /// A key that waits to seal: a rotation was not finished.
    pub waiting_key: Option<KeyId>,
    /// The accounts.
    pub accounts: Vec<AccountView>,
    /// The pools.
    pub pools: Vec<Pool>,
    /// The records that cannot go to Envoy.
    pub left_out: Vec<LeftOut>,
    /// The Envoys that have polled the running `serve`, and how far they are.
    pub envoys: Vec<EnvoyView>,
}

/// Everything at a glance.
///
/// # Errors
/// If the store fails.
pub async fn overview(app: &App) -> Result<Overview> {
    let left_out = app.store.left_out().await?;
    let accounts = accounts_but(app, &left_out).await?;
    let (_, revision) = app.store.head().await?;
    let envoys: Option<Vec<EnvoyView>> = daemon::ask(&app.state, "/envoys").await;
    Ok(Overview {
        is_served: app.state.is_served(),
        is_answered: envoys.is_some(),
        revision,
        waiting_key: app.store.waiting_key().await?,
        accounts,
        pools: app.store.pools().await?,
        left_out,
        envoys: envoys.unwrap_or_default(),
    })
}
