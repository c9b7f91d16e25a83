//! Accounts written into a file, in the form in which they came.

use std::path::Path;

use super::{App, Caller, Error, Result};
use crate::credential::Credential;
use crate::fault::Fault;
use crate::files::create_private;
use crate::login::import::template::{self, Template, write};

/// A file that was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Exported {
    /// The accounts in it.
    pub number: usize,
    /// One of them is a login, which has one owner.
    pub has_login: bool,
}

/// Writes accounts into a new file that its owner alone may read.
///
/// # Errors
/// If there is no such account, one has no credential, their files have several forms, or the file cannot be made.
pub async fn export(app: &App, caller: Caller, names: &[String], to: &Path) -> Result<Exported> {
    let mut accounts = Vec::new();
    for name in names {
        accounts.push(exported(app, name).await?);
    }
    let text = write(&accounts).map_err(|error| Error::new(Fault::Invalid, error))?;
    create_private(to, text.as_bytes()).map_err(Error::of_handed_file)?;
    for name in names {
        caller.changes("account exported", name);
    }
    let is_login = |one: &template::Exported| matches!(one.credential, Credential::OAuth(_));
    Ok(Exported {
        number: accounts.len(),
        has_login: accounts.iter().any(is_login),
    })
}

async fn exported(app: &App, name: &str) -> Result<template::Exported> {
    let account = app.store.account(name).await?;
    let credential = app.store.credential(&account.id).await?;
    if credential.is_empty() {
        let sentence =
            format!("{name}: expected an account that is logged in, found one that is logged out");
        let fault = Fault::NeedsLogin {
            account: account.name,
            platform: account.platform,
            is_client: credential.is_client(),
        };
        return Err(Error::new(fault, sentence));
    }
    if matches!(credential, Credential::Client(_)) {
        let sentence = format!(
            "{name}: no program's file holds an account's own OAuth client; keep its id and secret elsewhere"
        );
        return Err(Error::new(Fault::Invalid, sentence));
    }
    let origin = app.store.origin(&account).await?;
    let template = match origin.as_deref().and_then(Template::from_bytes) {
        Some(template) => template,
        None => {
            let profile = app.catalog.profile(&account.platform).ok();
            let import = profile.and_then(|profile| profile.login.import());
            let vars = app.store.vars(&account.id).await?;
            let file = import.map(|import| import.file);
            Template::fresh(
                &account.name,
                &account.platform,
                credential.kind(),
                file,
                &vars,
            )
        }
    };
    Ok(template::Exported {
        template,
        credential,
        credential_expires_at: account.credential_expires_at,
        issued_at: account.issued_at,
    })
}
