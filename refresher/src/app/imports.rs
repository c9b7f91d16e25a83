//! Logins that another program made, taken over from its files.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::logins::{self, Saved};
use super::{App, Caller, Error, Result};
use crate::credential::Credential;
use crate::fault::Fault;
use crate::files::read_bounded;
use crate::login::finish::outlasting;
use crate::login::import_codex::{self, FILE_LIMIT, Imported, KEY_PLATFORM, PLATFORM};
use crate::oauth::claims::IDENTITY;
use crate::oauth::exchange::{self, Granted, require_vars};
use crate::platform::Profile;
use crate::platform::flow::CredentialFile;
use crate::store::{NewAccount, Terms};

/// An `auth.json` of Codex CLI's, and the account to make of it.
#[derive(Debug)]
pub struct CodexFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// The account's name; without it, its email address or its platform.
    pub name: Option<&'a str>,
    /// The ChatGPT account of a personal access token, which does not say it itself.
    pub account_id: Option<&'a str>,
    /// The file goes before a login that lasts longer, and before the key of an account that has the name.
    pub replace: bool,
    /// The account's limits and its end.
    pub terms: &'a Terms,
}

/// The account that was made of a file.
#[derive(Debug)]
pub enum Taken {
    /// A login, which Latchkey refreshes from now on.
    Login(Saved),
    /// A personal access token, which nobody can refresh.
    AccessToken(Key),
    /// An API key.
    ApiKey(Key),
}

/// An account that has a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Its platform.
    pub platform: &'static str,
}

/// Takes over the credential in a file of Codex CLI's. Nothing is saved if that fails.
///
/// # Errors
/// If the file cannot be used, the error names it and the place in it.
pub async fn codex(app: &App, caller: Caller, file: CodexFile<'_>) -> Result<Taken> {
    let profile = app.catalog.usable(PLATFORM)?;
    let oauth = profile
        .oauth
        .as_ref()
        .filter(|_| profile.login.imports(CredentialFile::Codex))
        .ok_or_else(|| exchange::Error::NoOAuth(PLATFORM.into()))?;
    let text = read_bounded(file.path, FILE_LIMIT).map(Zeroizing::new);
    let text = text.map_err(|error| {
        Error::in_file(file.path, Fault::Failed, format!("cannot read it: {error}"))
    })?;
    let found = import_codex::read(&text, oauth, app.now());
    let taken = match found.map_err(|error| Error::in_file(file.path, fault(&error), error))? {
        Imported::Login(found) => {
            require_vars(profile, &found.vars)
                .map_err(|error| Error::in_file(file.path, Fault::Invalid, error))?;
            file.refuse_older(app, &found).await?;
            let (name, terms) = (file.name, file.terms);
            Taken::Login(logins::save(app, caller, profile, *found, name, terms, None).await?)
        }
        Imported::AccessToken(token) => {
            let vars = file.token_vars(profile)?;
            Taken::AccessToken(file.save_key(app, PLATFORM, token, vars).await?)
        }
        Imported::ApiKey(key) => Taken::ApiKey(
            file.save_key(app, KEY_PLATFORM, key, BTreeMap::new())
                .await?,
        ),
    };
    caller.changes("import codex", file.name.unwrap_or_default());
    Ok(taken)
}

/// The cure of what a file lacks is a login of our own, where the file is one of a login at all.
fn fault(error: &import_codex::Error) -> Fault {
    match error {
        import_codex::Error::Unsupported { mode, .. } if *mode != "bedrockApiKey" => {
            Fault::NoUsableLogin {
                platform: PLATFORM.to_owned(),
            }
        }
        import_codex::Error::UnknownMode => Fault::NoUsableLogin {
            platform: PLATFORM.to_owned(),
        },
        _ => Fault::Invalid,
    }
}

impl CodexFile<'_> {
    /// Refuses a file that was imported before: it holds a refresh token that is spent by now.
    async fn refuse_older(&self, app: &App, found: &Granted) -> Result<()> {
        let accounts = app.store.known_accounts().await?;
        match outlasting(&accounts, PLATFORM, found) {
            Some(account) if !self.replace => Err(Error::in_file(
                self.path,
                Fault::LikelySpent,
                format!(
                    "the account {} has a login that lasts at least as long, so this one is likely spent; nothing was \
                     changed",
                    account.name
                ),
            )),
            _ => Ok(()),
        }
    }

    fn token_vars(&self, profile: &Profile) -> Result<BTreeMap<String, String>> {
        let needs_id = profile.required_vars().contains(IDENTITY);
        match self.account_id {
            None if needs_id => Err(Error::in_file(
                self.path,
                Fault::NoAccountId,
                "a personal access token does not say which ChatGPT account it is for",
            )),
            id => Ok(id
                .map(|id| (IDENTITY.to_owned(), id.to_owned()))
                .into_iter()
                .collect()),
        }
    }

    async fn save_key(
        &self,
        app: &App,
        platform: &'static str,
        key: SecretString,
        vars: BTreeMap<String, String>,
    ) -> Result<Key> {
        let profile = app.catalog.usable(platform)?;
        require_vars(profile, &vars)
            .map_err(|error| Error::in_file(self.path, Fault::Invalid, error))?;
        let name = self.name.unwrap_or(platform);
        let new = NewAccount {
            name,
            platform,
            credential: Credential::ApiKey(key),
            vars,
            credential_expires_at: None,
            base_url: None,
        };
        let saved = app
            .store
            .save_account(new, self.terms, self.replace, app.now());
        saved.await?;
        Ok(Key {
            name: name.to_owned(),
            platform,
        })
    }
}
