//! `refresher import`: takes over a login that another program made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::terms::TermFlags;
use super::{Context, Error, login};
use crate::credential::Credential;
use crate::login::finish::outlasting;
use crate::login::import_codex::{self, Imported, KEY_PLATFORM, PLATFORM};
use crate::oauth::claims::IDENTITY;
use crate::oauth::exchange::{self, Granted, require_vars};
use crate::platform::Profile;
use crate::platform::flow::CredentialFile;
use crate::store::{NewAccount, Terms};

/// Whose file.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Take over the login in Codex CLI's auth.json
    Codex(Codex),
}

/// Which file, and what to make of it.
#[derive(Debug, Args)]
pub struct Codex {
    /// The file: ~/.codex/auth.json, most likely
    file: PathBuf,
    /// What to call the account [default: its email address]
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
    pub async fn run(self, context: &Context) -> Result<(), Error> {
        match self {
            Import::Codex(import) => import.run(context).await,
        }
    }
}

impl Codex {
    async fn run(self, context: &Context) -> Result<(), Error> {
        let profile = context.app.catalog.usable(PLATFORM)?;
        let oauth = profile
            .oauth
            .as_ref()
            .filter(|_| profile.login.imports(CredentialFile::Codex))
            .ok_or_else(|| exchange::Error::NoOAuth(PLATFORM.into()))?;
        let terms = self.terms.terms(context.app.now())?;
        let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", self.file.display());
        let text = crate::files::read_bounded(&self.file, import_codex::FILE_LIMIT)
            .map_err(|error| in_file(&format!("cannot read it: {error}")))?;
        let text = Zeroizing::new(text);
        match import_codex::read(&text, oauth, context.app.now())
            .map_err(|error| in_file(&error))?
        {
            Imported::Login(found) => {
                require_vars(profile, &found.vars).map_err(|error| in_file(&error))?;
                self.refuse_older(context, &found).await?;
                login::save(context, profile, *found, self.name.as_deref(), &terms).await?;
                context.out.print(&single_owner(&self.file))?;
            }
            Imported::AccessToken(token) => {
                self.save_access_token(context, profile, token, &terms)
                    .await?;
            }
            Imported::ApiKey(key) => {
                self.save_key(context, KEY_PLATFORM, key, BTreeMap::new(), &terms)
                    .await?;
            }
        }
        Ok(())
    }

    /// A file that was imported before holds a refresh token that is spent by now.
    async fn refuse_older(&self, context: &Context, found: &Granted) -> Result<(), Error> {
        let accounts = context.app.store.accounts().await?;
        match outlasting(&accounts, PLATFORM, found) {
            Some(account) if !self.replace => Err(format!(
                "{}: the account {} has a login that lasts at least as long, so this one is likely spent; nothing was \
                 changed. Give --replace if you know better",
                self.file.display(),
                account.name
            )
            .into()),
            _ => Ok(()),
        }
    }

    async fn save_access_token(
        &self,
        context: &Context,
        profile: &Profile,
        token: SecretString,
        terms: &Terms,
    ) -> Result<(), Error> {
        let vars: BTreeMap<String, String> = self
            .account_id
            .iter()
            .map(|id| (IDENTITY.to_owned(), id.clone()))
            .collect();
        if profile
            .required_vars()
            .into_iter()
            .any(|name| name == IDENTITY)
            && vars.is_empty()
        {
            return Err(format!(
                "{}: a personal access token does not say which ChatGPT account it is for; give --account-id",
                self.file.display()
            )
            .into());
        }
        self.save_key(context, PLATFORM, token, vars, terms).await?;
        context.out.print(
            "It is a personal access token: it cannot be refreshed, and works until it expires or is revoked.\n",
        )?;
        Ok(())
    }

    async fn save_key(
        &self,
        context: &Context,
        platform: &str,
        key: SecretString,
        vars: BTreeMap<String, String>,
        terms: &Terms,
    ) -> Result<(), Error> {
        context.app.catalog.usable(platform)?;
        let name = self.name.as_deref().unwrap_or(platform);
        let new = NewAccount {
            name,
            platform,
            credential: Credential::ApiKey(key),
            vars,
            expires_at: None,
        };
        let store = &context.app.store;
        store
            .save_account_on(new, terms, self.replace, context.app.now())
            .await?;
        context
            .out
            .print(&format!("{name}: imported at {platform}\n"))?;
        Ok(())
    }
}

fn single_owner(file: &Path) -> String {
    let file = file.display();
    format!(
        "\nFrom now on Latchkey alone may refresh this login: a refresh token works once, and whoever comes second \
         loses the login for both.\nStop Codex CLI from using {file}: delete it, and give Codex CLI a gateway key \
         instead.\nDo not run `codex logout` with that file: it would revoke the login here too.\n"
    )
}
