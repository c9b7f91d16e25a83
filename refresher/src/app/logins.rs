//! Logins of accounts: refreshed at once, whatever their schedule.

use super::{App, Caller, Error, Result};
use crate::clock::SystemClock;
use crate::fault::Fault;
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{Engine, Refreshed};

/// What became of a refresh that did no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// New tokens are stored, as this generation.
    Refreshed(u64),
    /// Another process has just refreshed the account.
    ByAnother,
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
