//! `refresher refresh`: what the daemon does by itself, once and now.

use clap::Args;

use super::{CALLER, Context, Result};
use crate::app::logins::{self, Fresh};

/// The account to refresh.
#[derive(Debug, Args)]
pub struct Refresh {
    /// Its name or id
    account: String,
}

impl Refresh {
    /// Refreshes the account and says what came of it.
    ///
    /// # Errors
    /// If the account has no fresh login afterwards.
    pub async fn run(self, context: &Context) -> Result<()> {
        let name = &self.account;
        let said = match logins::refresh(&context.app, CALLER, name).await? {
            Fresh::Refreshed(generation) => format!("{name}: refreshed, generation {generation}\n"),
            Fresh::ByAnother => format!("{name}: another process has just refreshed it\n"),
        };
        Ok(context.out.print(&said)?)
    }
}
