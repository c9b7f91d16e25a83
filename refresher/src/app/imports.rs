//! Credentials in files of other programs, taken over: all of what is asked for, or nothing.

mod files;
mod planner;

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use self::files::{entries, expand, place, refuse};
use self::planner::Planner;
use super::logins;
use super::{App, Caller, Error, Part, Result};
use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::credential::Credential;
use crate::egress::Proxy;
use crate::fault::Fault;
use crate::login::finish::{self, Finished, Grant, Whose, finish_all};
use crate::login::import;
use crate::login::import::template::Template;
use crate::oauth::exchange::Granted;
use crate::platform::Profile;
use crate::store::{Terms, Vars};

/// The credentials of one import, of all files.
const ACCOUNTS_LIMIT: usize = import::ENTRIES_LIMIT;

/// Files of other programs, and what to make of them.
#[derive(Debug)]
pub struct Files<'a> {
    /// Files, and folders of them.
    pub paths: &'a [PathBuf],
    /// The platform that they are of, whatever they say.
    pub platform: Option<&'a str>,
    /// The account's name, where there is one credential.
    pub name: Option<&'a str>,
    /// The platform's id of the account of an access token, which does not say it itself.
    pub account_id: Option<&'a str>,
    /// The pool that the accounts join besides the default one, unless the file names another.
    pub pool: Option<&'a str>,
    /// A file goes before a login that lasts longer, and before the key of an account that has the name.
    pub replace: bool,
    /// True if what cannot be taken over is left out; else everything is refused then.
    pub skip: bool,
    /// The accounts' limits and their end.
    pub terms: &'a Terms,
}

/// The plan of an import, told before it is done.
#[derive(Debug)]
pub struct Plan {
    /// The fate of each credential, in the order of the files.
    pub lines: Vec<Line>,
    planned: Vec<Planned>,
}

/// The fate of one credential, and its place.
#[derive(Debug)]
pub struct Line {
    /// Its file, and its place in there.
    pub at: String,
    /// Its fate.
    pub becomes: Becomes,
}

/// The fate of a credential.
#[derive(Debug, Clone)]
pub enum Becomes {
    /// The credential of an account.
    Account {
        /// The account's name.
        name: String,
        /// Its platform.
        platform: String,
        /// There is no such account yet.
        is_new: bool,
        /// Its kind.
        kind: Kind,
    },
    /// Nothing: the account has it already.
    Nothing {
        /// The account.
        name: String,
    },
    /// Nothing, as it cannot be taken over.
    LeftOut {
        /// The reason.
        why: Error,
    },
}

/// The kind of an account's credential, and what is known of it.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A login, which Latchkey refreshes from then on.
    Login {
        /// The end of the access token, where that is known.
        credential_expires_at: Option<UnixMillis>,
    },
    /// A personal access token, which nobody can refresh.
    AccessToken,
    /// An API key.
    ApiKey {
        /// The names of other accounts that have the same key.
        twins: Vec<String>,
    },
}

/// An account to be saved.
#[derive(Debug)]
struct Planned {
    line: usize,
    name: String,
    platform: String,
    credential: Credential,
    vars: Vars,
    credential_expires_at: Option<UnixMillis>,
    base_url: Option<BaseUrl>,
    proxy: Option<Proxy>,
    renew: bool,
    pool: Option<String>,
    origin: Option<Template>,
}

/// An account that has a login that was in a file.
#[derive(Debug)]
pub struct Taken {
    /// The login, where it is one.
    pub login: Option<Finished>,
    /// The place of its line in the plan.
    pub line: usize,
}

/// Looks at the files, and says what an import of them does. Nothing is saved.
///
/// # Errors
/// If a file cannot be used, or a credential cannot be taken over and is not to be left out. The error names the file and
/// the place in it.
pub async fn plan(app: &App, files: &Files<'_>) -> Result<Plan> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for path in expand(files.paths)? {
        match entries(&path) {
            Ok(entries) => found.extend(entries.into_iter().map(|entry| (path.clone(), entry))),
            Err(error) => problems.push(Part {
                at: path.display().to_string(),
                error,
            }),
        }
        if found.len() > ACCOUNTS_LIMIT {
            let sentence = format!("expected at most {ACCOUNTS_LIMIT} credentials, found more");
            return Err(Error::new(Fault::Invalid, sentence));
        }
    }
    if files.name.is_some() && found.len() > 1 {
        let found = found.len();
        let sentence = format!("expected one credential for that name, found {found}");
        return Err(Error::new(Fault::OneName { found }, sentence));
    }
    let mut planner = Planner::new(app, files).await?;
    for (path, entry) in &found {
        if let Err(error) = planner.add(path, entry).await {
            let at = place(path, &entry.at);
            problems.push(Part { at, error });
        }
    }
    if !files.skip {
        refuse(problems)?;
    } else {
        for Part { at, error } in problems {
            let becomes = Becomes::LeftOut { why: error };
            planner.plan.lines.push(Line { at, becomes });
        }
    }
    Ok(planner.plan)
}

/// Does what a plan says. `project`: that of the accounts that may have one of their own; else those that they have stay.
///
/// # Errors
/// If something has changed since, or the store fails. Nothing is saved then.
pub async fn take_over(
    app: &App,
    caller: Caller,
    plan: &Plan,
    terms: &Terms,
    project: Option<&str>,
) -> Result<Vec<Taken>> {
    let mut granted = Vec::with_capacity(plan.planned.len());
    for one in &plan.planned {
        granted.push(set_up(app, one, terms, project).await?);
    }
    let origins: Vec<_> = plan
        .planned
        .iter()
        .map(|one| one.origin.as_ref().map(Template::to_bytes))
        .collect();
    let grants = plan.planned.iter().zip(granted).zip(&origins);
    let grants = grants.map(|((one, (profile, granted)), origin)| Grant {
        profile,
        name: &one.name,
        renew: one.renew,
        granted,
        base_url: one.base_url.as_ref(),
        pool: one.pool.as_deref(),
        proxy: one.proxy.as_ref(),
        origin: origin.as_ref().map(|bytes| bytes.as_slice()),
    });
    let saved = finish_all(&app.store, grants.collect(), terms, app.now()).await?;
    let taken = plan.planned.iter().zip(saved);
    let taken = taken.map(|(one, saved)| {
        caller.changes("account imported", &one.name);
        let is_login = matches!(one.credential, Credential::OAuth(_));
        Taken {
            login: is_login.then_some(saved),
            line: one.line,
        }
    });
    Ok(taken.collect())
}

/// Returns the platform of an account and what that gets: its credential, and what it needs beside that where the platform has
/// it set up.
async fn set_up<'a>(
    app: &'a App,
    one: &Planned,
    terms: &Terms,
    project: Option<&str>,
) -> Result<(&'a Profile, Granted)> {
    let granted = Granted {
        credential: one.credential.clone(),
        credential_expires_at: one.credential_expires_at,
        login_ends_at: None,
        vars: one.vars.clone(),
    };
    let profile = app.catalog.profile(&one.platform)?;
    logins::check_project(profile, project)?;
    if profile.login.setup.is_none() {
        return Ok((profile, granted));
    }
    let own = || one.proxy.clone().map(Some);
    let terms = Terms {
        proxy: terms.proxy.clone().or_else(own),
        ..Terms::default()
    };
    let reached = logins::way_out(app, profile, Some(&one.name), &terms).await?;
    let granted = logins::fresh(&reached, granted, app.now()).await?;
    let whose = Whose::Anybody {
        name: Some(&one.name),
        terms: &terms,
        base_url: None,
        project,
    };
    let granted = finish::set_up(&app.store, &reached, granted, whose).await?;
    Ok((profile, granted))
}

impl Planned {
    fn of(name: String, profile: &Profile) -> Planned {
        Planned {
            line: 0,
            name,
            platform: profile.id.clone(),
            credential: Credential::ApiKey(SecretString::from("")),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
            proxy: None,
            renew: false,
            pool: None,
            origin: None,
        }
    }
}

#[cfg(test)]
mod tests;
