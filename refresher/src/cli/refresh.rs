//! `refresher refresh`: what the daemon does by itself, once and now. The claim in the database keeps the two apart.

use clap::Args;

use super::output::{print, relative};
use super::{Context, Error};
use crate::advice::login_command;
use crate::clock::{Clock, SystemClock};
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{Engine, Refreshed};

/// Which account.
#[derive(Debug, Args)]
pub struct Refresh {
    /// Its name or id
    account: String,
}

impl Refresh {
    /// Refreshes the account and says what came of it.
    ///
    /// # Errors
    /// If it has no fresh login afterwards, with the reason and the cure.
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        let account = context.store.account(&self.account).await?;
        let endpoints =
            TokenEndpoints::new([context.catalog.usable(&account.platform)?].into_iter())?;
        let engine = Engine::new(
            context.store.clone(),
            endpoints,
            SystemClock,
            context.config.refresh,
        );
        let name = &account.name;
        let cure = format!("log in again: {}", login_command(&account.platform, name));
        match engine.refresh(&account.id, account.generation).await? {
            Refreshed::Done(generation) => {
                print(&format!("{name}: refreshed, generation {generation}\n"))?
            }
            Refreshed::Superseded => {
                print(&format!("{name}: another process has just refreshed it\n"))?
            }
            Refreshed::Busy => {
                return Err(format!(
                    "{name}: another process is refreshing it; see: refresher status"
                )
                .into());
            }
            Refreshed::Later { at, reason } => {
                let when = relative(at, SystemClock.now());
                return Err(format!(
                    "{name}: not refreshed: {reason}; `refresher serve` tries again {when}"
                )
                .into());
            }
            Refreshed::NeedsLogin { reason } => {
                return Err(format!("{name}: {reason}; {cure}").into());
            }
            Refreshed::NotRefreshable => {
                let reason = account.reason.unwrap_or_else(|| "it has an API key".into());
                return Err(format!("{name}: there is nothing to refresh ({reason})").into());
            }
        }
        Ok(())
    }
}
