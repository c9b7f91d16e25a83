//! Logins of accounts: saved, and refreshed at once, whatever their schedule.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use super::accounts::{self, NewKey};
use super::{App, Caller, Error, Result};
use crate::base_url::BaseUrl;
use crate::clock::{SystemClock, UnixMillis};
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::fault::{Fault, Kind};
use crate::login::finish::{Finished, Whose, finish, owner};
use crate::login::setup;
use crate::oauth::answer::{self, Outcome};
use crate::oauth::exchange::{self, Granted};
use crate::oauth::http::HttpClient;
use crate::oauth::{api_key, refresh};
use crate::platform::flow::Setup;
use crate::platform::oauth::ApiKeyExchange;
use crate::platform::{OAuth, Profile};
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{Engine, Refreshed};
use crate::store::{self, Terms, Vars};

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

/// An account that has a login that was just made.
#[derive(Debug)]
pub struct Saved {
    /// The account.
    pub account: Finished,
    /// The claims that its platform's headers use.
    pub vars: BTreeMap<String, String>,
    /// The kind of its credential.
    pub kind: CredentialKind,
    /// The end of what goes out, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// The name of its platform.
    pub platform: String,
    /// The proof of who logged in, where the platform gave one.
    pub(super) id_token: Option<SecretString>,
}

/// A platform's offer of API keys for its logins.
#[derive(Debug, Clone, Copy)]
pub struct KeyOffer<'a> {
    profile: &'a Profile,
    oauth: &'a OAuth,
    exchange: &'a ApiKeyExchange,
}

/// An account that was made of an API key.
#[derive(Debug)]
pub struct KeyAccount {
    /// Its name.
    pub name: String,
    /// Its platform's id.
    pub platform: String,
}

/// True if an account has the name of a login that is to be made, and may get it. Ask before anybody logs in.
///
/// # Errors
/// If the name is that of an account that cannot get such a login, or the store fails.
pub async fn is_taken(app: &App, profile: &Profile, name: &str) -> Result<bool> {
    let account = match app.store.account(name).await {
        Err(store::Error::Unknown { .. }) => return Ok(false),
        found => found?,
    };
    if account.platform == profile.id && !account.kind.is_key() {
        return Ok(true);
    }
    let what = if account.kind.is_key() {
        "an API key"
    } else {
        "a login"
    };
    let sentence = format!(
        "the account {name:?} is another one: {what} at {}",
        account.platform
    );
    let (kind, name) = (Kind::Account, name.to_owned());
    Err(Error::new(Fault::NameTaken { kind, name }, sentence))
}

/// The platform as a login reaches it that these terms are for: by the proxy that they say, or else by that of the
/// account of that name.
///
/// # Errors
/// If it is not named, and some of its platform's accounts have proxies: it could be one of them. If the account's proxy
/// cannot be opened, or the store fails.
pub async fn way_out<'a>(
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
            let sentence = "accounts of this platform leave by proxies of their own, and nobody knows yet which account \
                            logs in";
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

/// Finds what the account of a login needs beside it, where its platform has it set up ([`setup`]). `profile`: the platform
/// as the account reaches it. `project`: the one that its operator says; else that of the account that the login is of stays.
///
/// # Errors
/// If the name is another account's, before the platform is asked. If the platform does not set the account up.
pub async fn set_up(
    app: &App,
    profile: &Profile,
    granted: Granted,
    name: Option<&str>,
    project: Option<&str>,
) -> Result<Granted> {
    let Some(setup) = profile.login.setup else {
        return Ok(granted);
    };
    let given = given(app, profile, setup, &granted.vars, name, project).await?;
    Ok(setup::complete(profile, granted, &given).await?)
}

/// What an operator said of the account of a login, now or before.
async fn given(
    app: &App,
    profile: &Profile,
    setup: Setup,
    vars: &Vars,
    name: Option<&str>,
    project: Option<&str>,
) -> Result<Vars> {
    let whose = Whose::Anybody {
        name,
        terms: &Terms::default(),
        base_url: None,
    };
    let account = owner(&app.store, &profile.id, vars, whose).await?;
    let given = match (project, account) {
        (Some(project), _) => Some(project.to_owned()),
        (None, Some(account)) => app.store.vars(&account.id).await?.remove(setup.var()),
        (None, None) => None,
    };
    let given = given.map(|value| (setup.var().to_owned(), value));
    Ok(given.into_iter().collect())
}

/// The login, with an access token that has not ended: a platform that is asked about it takes no other. `profile`: the
/// platform as the account reaches it.
///
/// # Errors
/// If the token has ended and the platform gives no other.
pub async fn fresh(profile: &Profile, mut granted: Granted, now: UnixMillis) -> Result<Granted> {
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
pub fn check_project(profile: &Profile, project: Option<&str>) -> Result<()> {
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

/// Saves a login: the account that it is of gets it, or a new one on these terms. `base_url` is what
/// [`checked_base_url`](super::accounts::checked_base_url) allowed.
///
/// # Errors
/// If the name belongs to another account, or the store fails.
pub async fn save(
    app: &App,
    caller: Caller,
    profile: &Profile,
    granted: Granted,
    name: Option<&str>,
    terms: &Terms,
    base_url: Option<&BaseUrl>,
) -> Result<Saved> {
    let (vars, credential_expires_at) = (granted.vars.clone(), granted.credential_expires_at);
    let whose = Whose::Anybody {
        name,
        terms,
        base_url,
    };
    let kind = granted.credential.kind();
    let id_token = granted.credential.id_token().cloned();
    let account = finish(&app.store, profile, granted, whose, app.now()).await?;
    caller.changes("login", &account.name);
    Ok(Saved {
        account,
        vars,
        kind,
        credential_expires_at,
        platform: profile.name.clone(),
        id_token,
    })
}

/// Finds the offer of API keys in `profile`. Ask before anybody logs in for one.
///
/// # Errors
/// If the platform gives none.
pub fn key_offer(profile: &Profile) -> Result<KeyOffer<'_>> {
    let oauth = profile.oauth.as_ref();
    let offer = oauth.and_then(|oauth| {
        Some(KeyOffer {
            profile,
            oauth,
            exchange: oauth.api_key.as_ref()?,
        })
    });
    let lacks = || {
        let sentence = format!("platform {} gives no API keys for its logins", profile.id);
        Error::new(Fault::Invalid, sentence)
    };
    offer.ok_or_else(lacks)
}

/// Gets an API key for a login that was just saved, and makes an account of it on these terms. An account that a login
/// of that name made before takes the new key.
///
/// # Errors
/// If the platform gives no key, or the account cannot be saved.
pub async fn add_api_key(
    app: &App,
    caller: Caller,
    offer: KeyOffer<'_>,
    login: &Saved,
    terms: &Terms,
) -> Result<KeyAccount> {
    let id_token = login.id_token.as_ref().ok_or_else(|| {
        let sentence = "the platform gave no id token, so there is no API key to be had";
        Error::new(Fault::Failed, sentence)
    })?;
    let http = HttpClient::for_platform(offer.profile)?;
    let request = api_key::request(offer.oauth, offer.exchange, id_token);
    let key = api_key::read(http.send(&request).await, app.now())?;
    let name = format!("{} API key", login.account.name);
    let platform = offer.exchange.platform.clone();
    let new = NewKey {
        name: &name,
        platform: &platform,
        key,
        base_url: None,
        terms,
        replace: true,
    };
    accounts::add(app, caller, new).await?;
    Ok(KeyAccount { name, platform })
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
    caller.changes("refresh", name);
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

#[cfg(test)]
mod tests;
