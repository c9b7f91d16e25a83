//! Logins of accounts: made ([`begin`]), and refreshed at once, whatever their schedule.

mod begin;
mod key;

use std::borrow::Cow;
use std::time::Duration;

pub use self::begin::{Ask, Done, Todo, Waiting, begin, within};
pub use self::key::KeyAccount;
use super::{App, Caller, Error, Result};
use crate::clock::{SystemClock, UnixMillis};
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::fault::Fault;
use crate::login::setup;
use crate::oauth::answer::{self, Outcome};
use crate::oauth::exchange::{self, Granted};
use crate::oauth::http::HttpClient;
use crate::oauth::refresh;
use crate::platform::Profile;
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{Engine, Refreshed};
use crate::store::{self, Terms};

/// An access token that ends within this time is as good as ended.
const SHORT: Duration = Duration::from_secs(60);

/// The outcome of a refresh after which the login is fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// New tokens are stored, as this generation.
    Refreshed(u64),
    /// Another process has just refreshed the account.
    ByAnother,
}

/// The platform as a login reaches it that these terms are for: by the proxy that they say, or else by that of the
/// account of that name.
///
/// # Errors
/// If it is not named, and some of its platform's accounts have proxies: it could be one of them. If the account's proxy
/// cannot be opened, or the store fails.
pub(super) async fn way_out<'a>(
    app: &App,
    profile: &'a Profile,
    name: Option<&str>,
    terms: &Terms,
) -> Result<Cow<'a, Profile>> {
    if let Some(proxy) = &terms.proxy {
        return Ok(profile.by(proxy.as_ref()));
    }
    let Some(name) = name else {
        let proxies = app.store.proxies().await?;
        let accounts = app.store.accounts().await?.into_iter();
        let mut peers = accounts.filter(|account| account.platform == profile.id);
        if peers.any(|account| proxies.contains_key(&account.id)) {
            let sentence = "accounts of this platform have proxies of their own, and it is not known yet which account logs \
                            in";
            return Err(Error::new(Fault::NoWayOut, sentence));
        }
        return Ok(Cow::Borrowed(profile));
    };
    let account = match app.store.account(name).await {
        Err(store::Error::Unknown { .. }) => return Ok(Cow::Borrowed(profile)),
        found => found?,
    };
    let proxy = app.store.proxy(&account.id).await?;
    Ok(profile.by(proxy.as_ref()))
}

/// The login, with an access token that has not ended: a platform that is asked about it takes no other. `profile`: the
/// platform as the account reaches it.
///
/// # Errors
/// If the token has ended and the platform gives no other.
pub(super) async fn fresh(
    profile: &Profile,
    mut granted: Granted,
    now: UnixMillis,
) -> Result<Granted> {
    let (Some(oauth), Credential::OAuth(tokens)) = (&profile.oauth, &granted.credential) else {
        return Ok(granted);
    };
    let lasts = granted
        .credential_expires_at
        .is_some_and(|end| end > now.plus(SHORT));
    if lasts || oauth.renewal != Renewal::Reusable {
        return Ok(granted);
    }
    let http = HttpClient::for_platform(profile)?;
    let answer = http.send(&refresh::by_token(oauth, tokens)).await;
    let answer = answer.map_err(exchange::Error::from)?;
    let outcome = answer::classify(&answer, &oauth.answer, &oauth.ends, now);
    let grant = match outcome {
        Outcome::Fresh(grant) if !grant.is_too_long => grant,
        Outcome::Fresh(_) => return Err(exchange::Error::TooLong.into()),
        Outcome::Transient { reason, .. }
        | Outcome::Permanent { reason }
        | Outcome::NotSent { reason }
        | Outcome::Page { reason, .. }
        | Outcome::Unknown { reason } => return Err(exchange::Error::Refused(reason).into()),
    };
    let before = granted.credential_expires_at;
    (granted.credential, granted.credential_expires_at) = grant.over(&granted.credential, before);
    Ok(granted)
}

/// Refuses a project for a platform whose accounts have none. Ask before anybody logs in.
///
/// # Errors
/// If the platform has none, or it is no text that a request can carry.
pub(super) fn check_project(profile: &Profile, project: Option<&str>) -> Result<()> {
    let Some(project) = project else {
        return Ok(());
    };
    match profile.login.setup {
        Some(setup) => setup::check(setup, project).map_err(|expected| {
            let var = setup.var();
            Error::new(
                Fault::Invalid,
                format_args!("{var}: expected {expected}, found another text"),
            )
        }),
        None => {
            let sentence = format!("platform {} has no projects", profile.id);
            Err(Error::new(Fault::NoProjects, sentence))
        }
    }
}

/// Refreshes an account's login now. The claim in the database keeps this and a running `serve` apart.
///
/// # Errors
/// If the account has no fresh login afterwards, with the reason.
pub async fn refresh(app: &App, caller: Caller, name: &str) -> Result<Fresh> {
    let account = app.store.account(name).await?;
    let profile = app.catalog.usable(&account.platform)?;
    let endpoints = TokenEndpoints::new([profile].into_iter())?;
    let (store, settings) = (app.store.clone(), app.config.refresh);
    let engine = Engine::new(store, endpoints, SystemClock, settings);
    let refreshed = engine.refresh(&account.id, account.generation).await?;
    caller.changes("refresh asked for", name);
    let name = account.name;
    match refreshed {
        Refreshed::Done(generation) => Ok(Fresh::Refreshed(generation)),
        Refreshed::Superseded => Ok(Fresh::ByAnother),
        Refreshed::Busy => {
            let sentence = format!("{name}: another process is refreshing it");
            Err(Error::new(
                Fault::RefreshRunning { account: name },
                sentence,
            ))
        }
        Refreshed::Later { at, how, reason } => {
            let sentence = format!("{name}: not refreshed: {reason}");
            let fault = Fault::RefreshLater {
                account: name,
                platform: account.platform,
                how,
                is_client: app.store.has_own_client(&account.id).await,
                at: at.0,
            };
            Err(Error::new(fault, sentence))
        }
        Refreshed::NeedsLogin { reason } => {
            let sentence = format!("{name}: {reason}");
            let fault = Fault::NeedsLogin {
                account: name,
                platform: account.platform,
                is_client: app.store.has_own_client(&account.id).await,
            };
            Err(Error::new(fault, sentence))
        }
        Refreshed::NotRefreshable => {
            let kind = match account.kind {
                CredentialKind::Session => "it has a session, which a new login alone renews",
                _ => "it has an API key",
            };
            let reason = account.reason.unwrap_or_else(|| kind.into());
            let sentence = format!("{name}: there is nothing to refresh ({reason})");
            Err(Error::new(Fault::Invalid, sentence))
        }
    }
}
