//! Logins of accounts: saved, and refreshed at once, whatever their schedule.

use std::collections::BTreeMap;

use super::{App, Caller, Error, Result};
use crate::clock::{SystemClock, UnixMillis};
use crate::fault::Fault;
use crate::login::finish::{Finished, Whose, finish};
use crate::oauth::exchange::Granted;
use crate::platform::Profile;
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{Engine, Refreshed};
use crate::store::Terms;

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
    /// The end of the access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// The name of its platform.
    pub platform: String,
}

/// Saves a login: the account that it is of gets it, or a new one on these terms.
///
/// # Errors
/// If the name belongs to another account, or the store fails.
pub async fn save(
    app: &App,
    profile: &Profile,
    granted: Granted,
    name: Option<&str>,
    terms: &Terms,
) -> Result<Saved> {
    let (vars, credential_expires_at) = (granted.vars.clone(), granted.credential_expires_at);
    let whose = Whose::Anybody { name, terms };
    let account = finish(&app.store, profile, granted, whose, app.now()).await?;
    Ok(Saved {
        account,
        vars,
        credential_expires_at,
        platform: profile.name.clone(),
    })
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
        Refreshed::Later { at, reason } => {
            let sentence = format!("{name}: not refreshed: {reason}");
            let (account, at) = (name, at.0);
            Err(Error::new(Fault::RefreshLater { account, at }, sentence))
        }
        Refreshed::NeedsLogin { reason } => {
            let sentence = format!("{name}: {reason}");
            let (account, platform) = (name, account.platform);
            Err(Error::new(
                Fault::NeedsLogin { account, platform },
                sentence,
            ))
        }
        Refreshed::NotRefreshable => {
            let reason = account.reason.unwrap_or_else(|| "it has an API key".into());
            let sentence = format!("{name}: there is nothing to refresh ({reason})");
            Err(Error::new(Fault::Invalid, sentence))
        }
    }
}
