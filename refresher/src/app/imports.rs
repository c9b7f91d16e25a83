//! Logins that another program made, taken over from its files.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::logins::{self, Saved};
use super::{App, Caller, Error, Result};
use crate::credential::Credential;
use crate::fault::Fault;
use crate::files::owned::require_owned_text;
use crate::login::auth_json::{self, FILE_LIMIT, Imported};
use crate::login::finish::outlasting;
use crate::oauth::claims::IDENTITY;
use crate::oauth::exchange::{self, Granted, require_vars};
use crate::platform::Profile;
use crate::platform::flow::{CredentialFile, Import};
use crate::store::{NewAccount, Terms};

/// A credential file of another program's, and the account to make of it.
#[derive(Debug)]
pub struct Foreign<'a> {
    /// The form of the file.
    pub form: CredentialFile,
    /// The platform that the login in it is of.
    pub platform: &'a str,
    /// The file.
    pub path: &'a Path,
    /// The account's name; without it, its email address or its platform.
    pub name: Option<&'a str>,
    /// The platform's id of the account of an access token, which does not say it itself.
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
    pub platform: String,
}

/// Takes over the credential in another program's file. Nothing is saved if that fails.
///
/// # Errors
/// If the file cannot be used, the error names it and the place in it.
pub async fn take_over(app: &App, caller: Caller, file: Foreign<'_>) -> Result<Taken> {
    let profile = app.catalog.usable(file.platform)?;
    let way_in = profile.oauth.as_ref().zip(profile.login.import(file.form));
    let (oauth, import) = way_in.ok_or_else(|| exchange::Error::NoOAuth(profile.id.clone()))?;
    // Who else writes the file would have our callers use a login of theirs.
    let text = require_owned_text(file.path, FILE_LIMIT).map_err(Error::of_handed_file)?;
    let found = auth_json::read(&text, oauth, import, app.now());
    let fault = |error: &auth_json::Error| fault(error, &profile.id);
    let taken = match found.map_err(|error| Error::in_file(file.path, fault(&error), error))? {
        Imported::Login(found) => {
            require_vars(profile, &found.vars)
                .map_err(|error| Error::in_file(file.path, Fault::Invalid, error))?;
            file.refuse_older(app, profile, &found).await?;
            let (name, terms) = (file.name, file.terms);
            Taken::Login(logins::save(app, caller, profile, *found, name, terms, None).await?)
        }
        Imported::AccessToken(token) => {
            let vars = file.token_vars(profile)?;
            Taken::AccessToken(file.save_key(app, &profile.id, token, vars).await?)
        }
        Imported::ApiKey(key) => {
            let platform = file.key_platform(import)?;
            Taken::ApiKey(file.save_key(app, platform, key, BTreeMap::new()).await?)
        }
    };
    caller.changes("import", file.name.unwrap_or_default());
    Ok(taken)
}

/// The cure of what a file lacks is a login of our own, where the file is one of a login at all.
fn fault(error: &auth_json::Error, platform: &str) -> Fault {
    let no_login = || Fault::NoUsableLogin {
        platform: platform.to_owned(),
    };
    match error {
        auth_json::Error::Unsupported { mode, .. } if *mode != "bedrockApiKey" => no_login(),
        auth_json::Error::UnknownMode => no_login(),
        _ => Fault::Invalid,
    }
}

impl Foreign<'_> {
    /// Refuses a file that was imported before: it holds a refresh token that is spent by now.
    async fn refuse_older(&self, app: &App, profile: &Profile, found: &Granted) -> Result<()> {
        let accounts = app.store.known_accounts().await?;
        match outlasting(&accounts, &profile.id, found) {
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

    /// The platform of an API key in the file.
    fn key_platform<'a>(&self, import: &'a Import) -> Result<&'a str> {
        let none = || {
            let sentence = "the file holds an API key, and the profile does not say of which platform: key_platform";
            Error::in_file(self.path, Fault::Invalid, sentence)
        };
        import.key_platform.as_deref().ok_or_else(none)
    }

    fn token_vars(&self, profile: &Profile) -> Result<BTreeMap<String, String>> {
        let needs_id = profile.required_vars().contains(IDENTITY);
        match self.account_id {
            None if needs_id => Err(Error::in_file(
                self.path,
                Fault::NoAccountId,
                "a personal access token does not say which account it is for",
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
        platform: &str,
        key: SecretString,
        vars: BTreeMap<String, String>,
    ) -> Result<Key> {
        let profile = app.catalog.usable(platform)?;
        let form = &profile.api_keys;
        let key = app.catalog.api_key(profile, form, key.expose_secret());
        let key = key.map_err(|error| Error::in_file(self.path, Fault::BadCredential, error))?;
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
            platform: platform.to_owned(),
        })
    }
}
