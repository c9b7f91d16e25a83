//! `refresher import`: takes over a login that another program made.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::terms::TermFlags;
use super::{CALLER, Context, Result, login};
use crate::app::imports::{self, Foreign, Key, Taken};
use crate::platform::flow::CredentialFile;

/// The program whose file it is.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Take over the login in Codex CLI's auth.json, or in a file of CLIProxyAPI, sub2api or opencode that holds one
    Codex(Codex),
}

/// A file of Codex CLI's, and the account to make of it.
#[derive(Debug, Args)]
pub struct Codex {
    /// The file: ~/.codex/auth.json, most likely
    file: PathBuf,
    /// The platform that the login is of
    #[arg(long, value_name = "ID", default_value = "codex")]
    platform: String,
    /// The account's name [default: its email address]
    #[arg(long)]
    name: Option<String>,
    /// The ChatGPT account of a personal access token, which does not say it itself
    #[arg(long, value_name = "ID")]
    account_id: Option<String>,
    /// Take this login although the account has one that lasts longer
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    terms: TermFlags,
}

impl Import {
    /// Reads the file and saves the account.
    ///
    /// # Errors
    /// With a message for a person that names the file and the place; nothing is saved then.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Import::Codex(import) => import.run(context).await,
        }
    }
}

impl Codex {
    async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let terms = self.terms.terms(app.now())?;
        let name = self.name.as_deref();
        let file = Foreign {
            form: CredentialFile::Codex,
            platform: &self.platform,
            path: &self.file,
            name,
            account_id: self.account_id.as_deref(),
            replace: self.replace,
            terms: &terms,
        };
        let said = match imports::take_over(app, CALLER, file).await? {
            Taken::Login(new) => login::saved(&new, name, app.now()) + &single_owner(&self.file),
            Taken::AccessToken(key) => {
                imported(&key)
                    + "It is a personal access token: it cannot be refreshed, and works until it expires or is \
                       revoked.\n"
            }
            Taken::ApiKey(key) => imported(&key),
        };
        Ok(out.print(&said)?)
    }
}

fn imported(Key { name, platform }: &Key) -> String {
    format!("{name}: imported at {platform}\n")
}

fn single_owner(file: &Path) -> String {
    let file = file.display();
    format!(
        "\nFrom now on Latchkey alone may refresh this login: a refresh token works once, and whoever comes second \
         loses the login for both.\nStop the program that wrote {file} from using it: delete it, and give that program a \
         gateway key instead.\nDo not log out there (`codex logout`): it would revoke the login here too.\n"
    )
}
