//! `refresher logout`: ends an account's login, at the platform and here.

use clap::Args;

use super::{CALLER, Context, Result};
use crate::app::logout::{LoggedOut, Unrevoked, log_out};
use crate::oauth::revoke::Revoked;

/// The login to end.
#[derive(Debug, Args)]
pub struct Logout {
    /// The account's name or id
    #[arg(allow_negative_numbers = true)]
    account: String,
    /// Forget the login even if the platform does not revoke it, for example because it cannot be reached
    #[arg(long)]
    forget: bool,
    /// Forget the login here and leave it as it is at the platform: another program goes on with it
    #[arg(long, conflicts_with = "forget")]
    no_revoke: bool,
}

impl Logout {
    /// Logs the account out and says what came of it.
    ///
    /// # Errors
    /// If the login was not ended.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let name = &self.account;
        let unrevoked = match (self.forget, self.no_revoke) {
            (_, true) => Unrevoked::Wanted,
            (true, false) => Unrevoked::Forgotten,
            (false, false) => Unrevoked::Refused,
        };
        let ended = log_out(app, CALLER, name, unrevoked).await;
        // It is out of use also where the platform did not revoke it.
        context.tell_if_envoy_is_behind();
        let said = match ended? {
            LoggedOut::Before => format!("{name}: is logged out already\n"),
            LoggedOut::HandedOver => {
                format!("{name}: logged out here; its login goes on at the platform\n")
            }
            LoggedOut::Now(Revoked::Done) => {
                format!("{name}: logged out; its login was revoked at the platform\n")
            }
            LoggedOut::Now(Revoked::NotOffered) => format!(
                "{name}: logged out here\nThe platform offers no way to revoke its login: sign out there.\n"
            ),
            LoggedOut::Now(Revoked::Failed(why)) => {
                out.note(&format!(
                    "warning: its login could not be revoked at the platform ({why}): sign out there"
                ));
                format!("{name}: logged out here\n")
            }
        };
        Ok(out.print(&said)?)
    }
}
