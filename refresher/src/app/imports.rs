//! Credentials in files of other programs, taken over: all of what is asked for, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::accounts::{credential_of, not_a_key, own_base_url};
use super::logins::Saved;
use super::{App, Caller, Error, Result};
use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::credential::Credential;
use crate::fault::Fault;
use crate::files::owned::require_owned_text;
use crate::login::finish::{Finished, choose_name, outlasting};
use crate::login::import::template::{Form, Template};
use crate::login::import::{self, Entry, FILE_LIMIT, Imported, recognise};
use crate::oauth::claims::{EMAIL, IDENTITY, is_same_account};
use crate::oauth::exchange::{Granted, require_vars};
use crate::os_error::in_words;
use crate::platform::flow::Import;
use crate::platform::{KeyForm, Profile};
use crate::store::{self, Known, Member, NewAccount, Terms, Vars};

/// The files of one import.
const FILES_LIMIT: usize = 1_000;
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
    /// What cannot be taken over is left out; else it has everything refused.
    pub skip: bool,
    /// The accounts' limits and their end.
    pub terms: &'a Terms,
}

/// What an import does, told before it is done.
#[derive(Debug)]
pub struct Plan {
    /// What becomes of each credential, in the order of the files.
    pub lines: Vec<Line>,
    planned: Vec<Planned>,
}

/// What becomes of one credential.
#[derive(Debug)]
pub struct Line {
    /// Its file, and its place in there.
    pub at: String,
    /// What becomes of it.
    pub becomes: Becomes,
}

/// What becomes of a credential.
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
        /// Why.
        why: String,
    },
}

/// What is known of an account's credential.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A login, which Latchkey refreshes from then on.
    Login {
        /// The claims that its platform's headers use.
        vars: Vars,
        /// The end of the access token, where that is known.
        expires_at: Option<UnixMillis>,
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
    renew: bool,
    pool: Option<String>,
    origin: Option<Template>,
}

/// An account that has a login that was in a file.
#[derive(Debug)]
pub struct Taken {
    /// The login, where it is one.
    pub login: Option<Saved>,
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
            Err(error) => problems.push((path.display().to_string(), error)),
        }
        if found.len() > ACCOUNTS_LIMIT {
            let sentence = format!("expected at most {ACCOUNTS_LIMIT} credentials, found more");
            return Err(Error::new(Fault::Invalid, sentence));
        }
    }
    if files.name.is_some() && found.len() > 1 {
        let sentence = format!("expected one credential for --name, found {}", found.len());
        return Err(Error::new(Fault::Invalid, sentence));
    }
    let mut planner = Planner::new(app, files).await?;
    for (path, entry) in &found {
        if let Err(error) = planner.add(path, entry).await {
            problems.push((place(path, &entry.at), error));
        }
    }
    if !files.skip {
        refuse(problems)?;
    } else {
        for (at, why) in problems {
            let why = why.to_string();
            let why = why
                .strip_prefix(&format!("{at}: "))
                .unwrap_or(&why)
                .to_owned();
            let becomes = Becomes::LeftOut { why };
            planner.plan.lines.push(Line { at, becomes });
        }
    }
    Ok(planner.plan)
}

/// Does what a plan says.
///
/// # Errors
/// If something has changed since, or the store fails. Nothing is saved then.
pub async fn take_over(
    app: &App,
    caller: Caller,
    plan: &Plan,
    terms: &Terms,
) -> Result<Vec<Taken>> {
    let origins: Vec<_> = plan
        .planned
        .iter()
        .map(|one| one.origin.as_ref().map(Template::to_bytes))
        .collect();
    let members: Vec<Member<'_>> = plan
        .planned
        .iter()
        .zip(&origins)
        .map(|(one, origin)| Member {
            account: NewAccount {
                name: &one.name,
                platform: &one.platform,
                credential: one.credential.clone(),
                vars: one.vars.clone(),
                credential_expires_at: one.credential_expires_at,
                base_url: one.base_url.as_ref(),
            },
            renew: one.renew,
            pool: one.pool.as_deref(),
            origin: origin.as_ref().map(|bytes| bytes.as_slice()),
        })
        .collect();
    let saved = app.store.save_accounts(&members, terms, app.now()).await?;
    let taken = plan.planned.iter().zip(saved).map(|(one, saved)| {
        caller.changes("import", &one.name);
        let (id, is_new) = match saved {
            store::Saved::Added(id) => (id, true),
            store::Saved::Renewed(id) => (id, false),
        };
        let is_login = matches!(one.credential, Credential::OAuth(_));
        let login = is_login.then(|| Saved {
            account: Finished {
                id,
                name: one.name.clone(),
                is_new,
            },
            vars: one.vars.clone(),
            kind: one.credential.kind(),
            credential_expires_at: one.credential_expires_at,
            platform: platform_name(app, &one.platform),
            id_token: None,
        });
        Taken {
            login,
            line: one.line,
        }
    });
    Ok(taken.collect())
}

fn platform_name(app: &App, id: &str) -> String {
    app.catalog
        .profile(id)
        .map_or_else(|_| id.to_owned(), |profile| profile.name.clone())
}

/// The files that are meant: each that was named, and in each folder those that end as credential files do.
fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let failed = |error: std::io::Error| {
            let why = in_words(&error);
            Error::in_file(
                path,
                Fault::Failed,
                format_args!("cannot read the folder: {why}"),
            )
        };
        let mut inside = Vec::new();
        for found in fs::read_dir(path).map_err(failed)? {
            let found = found.map_err(failed)?.path();
            let end = found.extension().and_then(|end| end.to_str());
            let fits = end.is_some_and(|end| {
                ["json", "csv"]
                    .iter()
                    .any(|one| end.eq_ignore_ascii_case(one))
            });
            if fits && !found.is_dir() {
                inside.push(found);
            }
            if inside.len() > FILES_LIMIT {
                break;
            }
        }
        if inside.is_empty() {
            let sentence = "expected a file here, or a folder with files that end in .json or .csv; found none";
            return Err(Error::in_file(path, Fault::Invalid, sentence));
        }
        inside.sort();
        all.extend(inside);
    }
    if all.len() > FILES_LIMIT {
        let sentence = format!("expected at most {FILES_LIMIT} files, found more");
        return Err(Error::new(Fault::Invalid, sentence));
    }
    Ok(all)
}

fn entries(path: &Path) -> Result<Vec<Entry>> {
    // Who else writes the file would have our callers use a login of theirs.
    let text = require_owned_text(path, FILE_LIMIT).map_err(Error::of_handed_file)?;
    recognise(&text).map_err(|error| Error::in_file(path, fault(&error, "codex"), error))
}

/// A file, and a place in it.
fn place(path: &Path, at: &str) -> String {
    match at {
        "" => path.display().to_string(),
        at => format!("{}: {at}", path.display()),
    }
}

/// One problem is told as it is, and several together.
fn refuse(mut problems: Vec<(String, Error)>) -> Result<()> {
    match problems.len() {
        0 => Ok(()),
        1 => problems.pop().map_or(Ok(()), |(_, error)| Err(error)),
        number => {
            let lines: String = problems
                .iter()
                .take(20)
                .map(|(_, error)| format!("\n  {error}"))
                .collect();
            let more = match number.saturating_sub(20) {
                0 => String::new(),
                more => format!("\n  and {more} more"),
            };
            let sentence = format!(
                "{number} credentials cannot be taken over, so nothing was; --skip leaves them out:{lines}{more}"
            );
            Err(Error::new(Fault::Invalid, sentence))
        }
    }
}

/// The cure of what a file lacks is a login of our own, where the file is one of a login at all.
fn fault(error: &import::Error, platform: &str) -> Fault {
    let no_login = || Fault::NoUsableLogin {
        platform: platform.to_owned(),
    };
    match error {
        import::Error::Unsupported { mode, .. } if *mode != "bedrockApiKey" => no_login(),
        import::Error::UnknownMode => no_login(),
        _ => Fault::Invalid,
    }
}

/// Makes a plan, one credential after the other.
struct Planner<'a> {
    app: &'a App,
    files: &'a Files<'a>,
    accounts: Vec<Known>,
    pools: BTreeSet<String>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    async fn new(app: &'a App, files: &'a Files<'a>) -> Result<Planner<'a>> {
        let pools = app.store.pools().await?.into_iter().map(|pool| pool.id);
        let pools: BTreeSet<String> = pools.collect();
        Ok(Planner {
            app,
            files,
            accounts: app.store.known_accounts().await?,
            pools,
            plan: Plan {
                lines: Vec::new(),
                planned: Vec::new(),
            },
        })
    }

    async fn add(&mut self, path: &Path, entry: &Entry) -> Result<()> {
        let at = place(path, &entry.at);
        let fail = |fault, sentence: &dyn std::fmt::Display| {
            Error::new(fault, format_args!("{at}: {sentence}"))
        };
        let pool = entry.pool.clone().or(self.files.pool.map(str::to_owned));
        if let Some(pool) = pool.as_ref().filter(|pool| !self.pools.contains(*pool)) {
            let sentence = format!("expected a pool that is there, found {pool:?}");
            return Err(fail(Fault::Invalid, &sentence));
        }
        let profile = self
            .profile(entry)
            .map_err(|error| fail(error.fault.clone(), &error))?;
        let imported = entry.read(profile.oauth.as_ref(), self.app.now());
        // The path in the file is part of the error of a field.
        let told = |error: import::Error| {
            let fault = fault(&error, &profile.id);
            let is_placed = matches!(
                error,
                import::Error::Field { .. } | import::Error::ForeignIssuer { .. }
            );
            match is_placed {
                true => Error::in_file(path, fault, error),
                false => fail(fault, &error),
            }
        };
        let mut planned = match imported.map_err(told)? {
            Imported::Login(login) => {
                let planned = self.login(profile, *login, entry);
                planned.map_err(|error| fail(error.fault.clone(), &error))?
            }
            Imported::AccessToken(key) | Imported::ApiKey(key) => {
                let asked = self.files.name.or(entry.name.as_deref());
                let holders = self.app.store.holders_of(&profile.id, &key).await?;
                let has_it = match asked {
                    Some(name) => holders.iter().find(|holder| *holder == name),
                    None => holders.first(),
                };
                if let Some(name) = has_it.filter(|_| !self.files.replace) {
                    let becomes = Becomes::Nothing { name: name.clone() };
                    self.plan.lines.push(Line { at, becomes });
                    return Ok(());
                }
                let planned = match entry.is_login() {
                    true => self.access_token(profile, key),
                    false => self.key(profile, key, entry, holders),
                };
                planned.map_err(|error| fail(error.fault.clone(), &error))?
            }
        };
        if let Some(earlier) = self
            .plan
            .planned
            .iter()
            .find(|one| one.name == planned.0.name)
        {
            let earlier = &self.plan.lines[earlier.line].at;
            let sentence = format!("the account {:?} is also that of {earlier}", planned.0.name);
            return Err(fail(Fault::Invalid, &sentence));
        }
        planned.0.line = self.plan.lines.len();
        planned.0.pool = pool;
        planned.0.origin = Template::of(entry);
        self.plan.lines.push(Line {
            at,
            becomes: Becomes::Account {
                name: planned.0.name.clone(),
                platform: profile.id.clone(),
                is_new: !planned.0.renew,
                kind: planned.1,
            },
        });
        self.plan.planned.push(planned.0);
        Ok(())
    }

    /// The platform of a credential: that which was asked for, or the one that takes what the file calls its platform.
    fn profile(&self, entry: &Entry) -> Result<&'a Profile> {
        let catalog = &self.app.catalog;
        let profiles = || catalog.written().map(|(profile, _)| profile);
        let takes = |profile: &Profile| {
            let import = profile.login.import();
            import.is_some_and(|import| import.known_as.contains(&entry.of))
        };
        let found = match self.files.platform {
            Some(asked) => {
                let profile = catalog.profile(asked)?;
                let fits = entry.of.is_empty() || entry.of == profile.id || takes(profile);
                let key_of = profile
                    .login
                    .import()
                    .and_then(|import| import.key_platform.as_deref());
                if !(fits || !entry.is_login() && key_of == Some(&*entry.of)) {
                    let known = profile
                        .login
                        .import()
                        .map(|import: &Import| import.known_as.join(" or "));
                    let known = known.unwrap_or_else(|| profile.id.clone());
                    let sentence =
                        format!("expected a credential of {known}, found one of another platform");
                    return Err(Error::new(Fault::Invalid, sentence));
                }
                match (entry.is_login(), key_of) {
                    (false, Some(platform)) => platform,
                    _ => &profile.id,
                }
            }
            None if entry.is_login() => {
                let mut all = profiles().filter(|profile| takes(profile));
                match (all.next(), all.next()) {
                    (Some(one), None) => &one.id,
                    (Some(_), Some(_)) => {
                        let ids: Vec<&str> = profiles()
                            .filter(|one| takes(one))
                            .map(|one| one.id.as_str())
                            .collect();
                        let sentence = format!(
                            "expected one platform that takes such a login over, found {}; --platform says which",
                            ids.join(", ")
                        );
                        return Err(Error::new(Fault::Invalid, sentence));
                    }
                    (None, _) => return Err(nobody_takes(entry.form)),
                }
            }
            None if entry.of.is_empty() => {
                let sentence = "platform: expected the platform of the key, found nothing; --platform says it for all";
                return Err(Error::new(Fault::Invalid, sentence));
            }
            None if catalog.profile(&entry.of).is_ok() => &entry.of,
            None => {
                let import = profiles()
                    .find(|profile| takes(profile))
                    .and_then(|one| one.login.import());
                let platform = import.and_then(|import| import.key_platform.as_deref());
                platform.ok_or_else(|| {
                    let sentence = "platform: expected one that has a profile here, found another";
                    Error::new(Fault::Invalid, sentence)
                })?
            }
        };
        match entry.is_login() {
            true => Ok(catalog.usable(found)?),
            false => super::accounts::platform_of_key(
                self.app,
                found,
                entry.name.as_deref().unwrap_or(found),
            ),
        }
    }

    /// A login, given to the account that is its own, or a new one.
    fn login(&self, profile: &Profile, login: Granted, entry: &Entry) -> Result<(Planned, Kind)> {
        require_vars(profile, &login.vars)?;
        match outlasting(&self.accounts, &profile.id, &login) {
            Some(account) if !self.files.replace => {
                return Err(Error::new(
                    Fault::LikelySpent,
                    format!(
                        "the account {} has a login that lasts at least as long, so this one is likely spent; nothing was \
                         changed",
                        account.name
                    ),
                ));
            }
            _ => {}
        }
        let mut planned = self.plan.planned.iter();
        let same = planned
            .find(|one| one.platform == profile.id && is_same_account(&one.vars, &login.vars));
        if let Some(same) = same {
            let sentence = format!(
                "it is a login of the same account as {}",
                self.plan.lines[same.line].at
            );
            return Err(Error::new(Fault::Invalid, sentence));
        }
        let own = entry
            .name
            .as_deref()
            .filter(|_| !login.vars.contains_key(EMAIL));
        let taken: BTreeSet<&str> = self
            .plan
            .planned
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        let wanted = self.files.name.or(own);
        let chosen = choose_name(&self.accounts, &profile.id, &login.vars, wanted, &taken);
        let (name, renew) = chosen?;
        let kind = Kind::Login {
            vars: login.vars.clone(),
            expires_at: login.credential_expires_at,
        };
        let planned = Planned {
            credential: login.credential,
            vars: login.vars,
            credential_expires_at: login.credential_expires_at,
            renew,
            ..Planned::of(name, profile)
        };
        Ok((planned, kind))
    }

    /// A personal access token, which looks like a key and goes where logins go.
    fn access_token(&self, profile: &Profile, token: SecretString) -> Result<(Planned, Kind)> {
        let vars: BTreeMap<_, _> = match self.files.account_id {
            None if profile.required_vars().contains(IDENTITY) => {
                let sentence = "a personal access token does not say which account it is for";
                return Err(Error::new(Fault::NoAccountId, sentence));
            }
            id => id
                .map(|id| (IDENTITY.to_owned(), id.to_owned()))
                .into_iter()
                .collect(),
        };
        require_vars(profile, &vars)?;
        let key = self
            .app
            .catalog
            .api_key(profile, &profile.api_keys, token.expose_secret());
        let key = key.map_err(|refused| Error::new(Fault::BadCredential, refused))?;
        let (name, renew) = self.name_of_key(profile, self.files.name)?;
        let planned = Planned {
            credential: Credential::ApiKey(key),
            vars,
            renew,
            ..Planned::of(name, profile)
        };
        Ok((planned, Kind::AccessToken))
    }

    /// An API key, which `holders` have already.
    fn key(
        &self,
        profile: &Profile,
        key: SecretString,
        entry: &Entry,
        holders: Vec<String>,
    ) -> Result<(Planned, Kind)> {
        require_vars(profile, &BTreeMap::new())?;
        let base_url = own_base_url(profile, entry.base_url.as_deref())?;
        let anything = KeyForm::default();
        let form = match &base_url {
            Some(_) => &anything,
            None => &profile.api_keys,
        };
        let asked = self.files.name.or(entry.name.as_deref());
        let key = self.app.catalog.api_key(profile, form, key.expose_secret());
        let key = key.map_err(|refused| not_a_key(refused, asked.unwrap_or(&profile.id)))?;
        let (name, renew) = self.name_of_key(profile, asked)?;
        let (credential, credential_expires_at) =
            credential_of(profile, key.clone(), self.app.now())?;
        let has_key = |one: &&Planned| match &one.credential {
            Credential::ApiKey(held) => held.expose_secret() == key.expose_secret(),
            Credential::Signed(signed) => signed.key.expose_secret() == key.expose_secret(),
            _ => false,
        };
        let planned = self
            .plan
            .planned
            .iter()
            .filter(has_key)
            .map(|one| one.name.clone());
        let twins = holders
            .into_iter()
            .chain(planned)
            .filter(|twin| *twin != name);
        let kind = Kind::ApiKey {
            twins: twins.collect(),
        };
        let planned = Planned {
            credential,
            credential_expires_at,
            base_url,
            renew,
            ..Planned::of(name, profile)
        };
        Ok((planned, kind))
    }

    /// The name of an account of a key; true if one of that name takes it.
    fn name_of_key(&self, profile: &Profile, asked: Option<&str>) -> Result<(String, bool)> {
        let held = |name: &str| {
            self.accounts
                .iter()
                .find(|known| known.account.name == name)
        };
        let is_planned = |name: &str| self.plan.planned.iter().any(|one| one.name == name);
        if let Some(name) = asked {
            return match held(name) {
                None => Ok((name.to_owned(), false)),
                Some(known) if known.account.platform == profile.id && self.files.replace => {
                    Ok((name.to_owned(), true))
                }
                Some(_) => {
                    let name = name.to_owned();
                    let sentence =
                        format!("there is already an account {name:?}, with another credential");
                    let kind = crate::fault::Kind::Account;
                    Err(Error::new(Fault::NameTaken { kind, name }, sentence))
                }
            };
        }
        let numbered = (2..).map(|number| format!("{}-{number}", profile.id));
        let free = std::iter::once(profile.id.clone()).chain(numbered);
        let mut free = free.filter(|name| held(name).is_none() && !is_planned(name));
        Ok((free.next().unwrap_or_default(), false))
    }
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
            renew: false,
            pool: None,
            origin: None,
        }
    }
}

/// The login is one that no profile here takes over.
fn nobody_takes(form: Form) -> Error {
    let whose = match form {
        Form::Claude => {
            "a login of Claude Code's, and Anthropic's terms allow it to its own programs alone"
        }
        Form::Gemini => {
            "a login of Gemini CLI's or Qwen Code's, which Google and Alibaba have ended for persons"
        }
        _ => "a login of a platform that takes none over here",
    };
    let sentence = format!(
        "it is {whose}. Add an API key of the platform in its place, or a profile of your own that has [login.import] with \
         this login's word in known_as"
    );
    Error::new(Fault::Invalid, sentence)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::app::Options;
    use crate::clock::SystemClock;

    const KEY: &str = "sk-proj-0123456789abcdefghijklmnopqrstuvwx";

    /// An installation, and a folder for files.
    async fn installation(profiles: &[(&str, String)]) -> (tempfile::TempDir, App) {
        let outer = tempfile::tempdir().unwrap();
        let (state, platforms) = (outer.path().join("state"), outer.path().join("platforms"));
        crate::files::make_private_dir(&state).unwrap();
        fs::create_dir(&platforms).unwrap();
        for (id, profile) in profiles {
            fs::write(platforms.join(format!("{id}.toml")), profile).unwrap();
        }
        let config = format!("platforms_dir = '{}'\n", platforms.display());
        fs::write(state.join("config.toml"), config).unwrap();
        let options = Options {
            state_dir: Some(state),
            acknowledged_terms: vec!["codex".to_owned()],
            may_make: true,
        };
        let app = App::open(options, |_| None, Arc::new(SystemClock));
        (outer, app.await.unwrap())
    }

    fn file(outer: &tempfile::TempDir, name: &str, text: impl ToString) -> PathBuf {
        let path = outer.path().join(name);
        fs::write(&path, text.to_string()).unwrap();
        path
    }

    async fn run(app: &App, paths: &[PathBuf], platform: Option<&str>) -> Result<Plan> {
        let terms = Terms::default();
        let files = Files {
            paths,
            platform,
            name: None,
            account_id: None,
            pool: None,
            replace: false,
            skip: false,
            terms: &terms,
        };
        let plan = plan(app, &files).await?;
        take_over(app, Caller::LocalOperator, &plan, &terms).await?;
        Ok(plan)
    }

    async fn names(app: &App) -> Vec<String> {
        let accounts = app.store.accounts().await.unwrap().into_iter();
        accounts.map(|account| account.name).collect()
    }

    #[tokio::test]
    async fn of_several_files_all_are_taken_or_none() {
        let (outer, app) = installation(&[]).await;
        let good = file(
            &outer,
            "a.csv",
            format!("name,platform,key\none,openai,{KEY}\n"),
        );
        for (name, text, said) in [
            (
                "b.json",
                json!({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r"}}).to_string(),
                "Claude Code",
            ),
            (
                "c.csv",
                format!("name,platform,key\none,openai,{KEY}\n"),
                "is also that of",
            ),
            (
                "d.csv",
                "name,platform,key\ntwo,openai,sk-short\n".to_owned(),
                "line 2: ",
            ),
            (
                "e.csv",
                format!("name,platform,key,pool\ntwo,openai,{KEY},nowhere\n"),
                "line 2: expected a pool",
            ),
            (
                "f.csv",
                format!("name,key\ntwo,{KEY}\n"),
                "line 2: platform: expected",
            ),
            (
                "g.csv",
                format!("name,platform,key\n../../etc/passwd\0,openai,{KEY}\n"),
                "visible ASCII",
            ),
            ("h.json", "{".to_owned(), "syntax error"),
        ] {
            let bad = file(&outer, name, text);
            let refused = run(&app, &[good.clone(), bad], None).await.unwrap_err();
            let refused = refused.to_string();
            assert!(
                refused.contains(said) && !refused.contains(KEY),
                "{name}: {refused}"
            );
            assert!(names(&app).await.is_empty(), "{name}: half of it is saved");
        }
        // A name is a name, and no path: nothing is made of it.
        let named = file(
            &outer,
            "i.csv",
            format!("name,platform,key\n../../x,openai,{KEY}\n"),
        );
        run(&app, &[named], None).await.unwrap();
        assert_eq!(names(&app).await, ["../../x"]);
        assert!(!outer.path().join("x").exists());
    }

    #[tokio::test]
    async fn a_credential_that_is_there_is_told_and_not_doubled() {
        let (outer, app) = installation(&[]).await;
        let list = json!([{"platform": "openai", "key": KEY}, {"platform": "openai", "key": format!("{KEY}2")}]);
        let path = file(&outer, "keys.json", list);
        run(&app, std::slice::from_ref(&path), None).await.unwrap();
        assert_eq!(names(&app).await, ["openai", "openai-2"]);
        let again = run(&app, &[path], None).await.unwrap();
        let told = again
            .lines
            .iter()
            .all(|line| matches!(line.becomes, Becomes::Nothing { .. }));
        assert!(told, "{again:?}");
        assert_eq!(names(&app).await.len(), 2);
        let twin = json!([{"platform": "openai", "key": KEY, "name": "twin"}]);
        let plan = run(&app, &[file(&outer, "twin.json", twin)], None)
            .await
            .unwrap();
        let Becomes::Account {
            kind: Kind::ApiKey { twins },
            ..
        } = &plan.lines[0].becomes
        else {
            panic!("{plan:?}");
        };
        assert_eq!(*twins, ["openai"]);
    }

    /// A platform of the operator's own, in three lines of data, takes over what no shipped one does.
    #[tokio::test]
    async fn a_profile_says_whose_logins_it_takes_over() {
        let profile = |id: &str, known_as: &str| {
            format!(
                "id = '{id}'\nname = 'Own'\nowner = 'us'\ncredentials = ['oauth']\n\
                 endpoints.chat.generate.path = '/x'\nupstream.base_url = 'http://127.0.0.1:1'\n\
                 headers.set = {{ authorization = 'Bearer {{credential}}' }}\nheaders.allow = []\n\
                 [oauth]\ntoken_url = 'http://127.0.0.1:1/token'\nclient_id = 'it'\n\
                 [login.import]\nfile = 'claude'\nknown_as = ['{known_as}']\n"
            )
        };
        let own = [
            ("own", profile("own", "claude")),
            ("more", profile("more", "claude")),
        ];
        let login =
            json!({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r"}, "kept": [1]});
        let (outer, app) = installation(&own[..1]).await;
        run(&app, &[file(&outer, "a.json", &login)], None)
            .await
            .unwrap();
        let account = app.store.account("own").await.unwrap();
        assert_eq!(account.platform, "own");
        let to = outer.path().join("again.json");
        let names = ["own".to_owned()];
        crate::app::exports::export(&app, Caller::LocalOperator, &names, &to)
            .await
            .unwrap();
        let written: serde_json::Value = serde_json::from_slice(&fs::read(&to).unwrap()).unwrap();
        assert_eq!(written, login);
        let there = crate::app::exports::export(&app, Caller::LocalOperator, &names, &to).await;
        assert!(there.is_err(), "a file is not written over");

        let (outer, app) = installation(&own).await;
        let path = [file(&outer, "a.json", &login)];
        let refused = run(&app, &path, None).await.unwrap_err().to_string();
        assert!(
            refused.contains("more, own; --platform says which"),
            "{refused}"
        );
        run(&app, &path, Some("more")).await.unwrap();
        assert_eq!(app.store.account("more").await.unwrap().platform, "more");
    }
}
