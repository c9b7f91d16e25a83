//! `refresher export`: writes accounts into a file as the program reads it that they came from.

use std::path::PathBuf;

use clap::Args;

use super::{CALLER, Context, Result};
use crate::app::exports::{Exported, export};

/// The accounts to write, and where.
#[derive(Debug, Args)]
pub struct Export {
    /// Their names or ids
    #[arg(required = true, value_name = "ACCOUNT", allow_negative_numbers = true)]
    accounts: Vec<String>,
    /// The file to make, readable by you alone; it must not be there yet
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Export {
    /// Writes the file.
    ///
    /// # Errors
    /// If there is no such account, they make no file together, or it cannot be written.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let Exported { number, has_login } = export(app, CALLER, &self.accounts, &self.to).await?;
        let accounts = if number == 1 { "account" } else { "accounts" };
        out.print(&format!(
            "{}: {number} {accounts} written\n",
            self.to.display()
        ))?;
        if has_login {
            out.note(
                "warning: whoever has this file has the login. A refresh token works once: if another program is to go on \
                 with it, end it here at once: refresher logout ACCOUNT --no-revoke",
            );
        }
        Ok(())
    }
}
