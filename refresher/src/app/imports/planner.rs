//! Makes a plan: what becomes of each credential, one after the other.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::super::accounts::{credential_of, key_of, own_base_url, platform_of_key};
use super::super::{App, Error, Result};
use super::files::{fault, place};
use super::{Becomes, Files, Kind, Line, Plan, Planned};
use crate::credential::Credential;
use crate::egress::Proxy;
use crate::fault::Fault;
use crate::login::finish::{choose_name, outlasting};
use crate::login::import::template::Template;
use crate::login::import::{self, Entry, Form, Imported};
use crate::oauth::claims::{EMAIL, IDENTITY, is_same_account};
use crate::oauth::exchange::{Granted, require_vars};
use crate::platform::Profile;
use crate::platform::flow::Import;
use crate::store::Known;
use crate::variable;

/// Makes a plan, one credential after the other.
pub(super) struct Planner<'a> {
    app: &'a App,
    files: &'a Files<'a>,
    accounts: Vec<Known>,
    pools: BTreeSet<String>,
    pub(super) plan: Plan,
}

impl<'a> Planner<'a> {
    pub(super) async fn new(app: &'a App, files: &'a Files<'a>) -> Result<Planner<'a>> {
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

    /// Plans one credential of the file at `path`.
    pub(super) async fn add(&mut self, path: &Path, entry: &Entry) -> Result<()> {
        let at = place(path, &entry.at);
        let placed = |error: Error| Error::new(error.fault.clone(), format_args!("{at}: {error}"));
        let pool = self.pool(entry).map_err(placed)?;
        let profile = self.reached(entry).map_err(placed)?;
        let profile = &*profile;
        let proxy = self.proxy(entry).map_err(placed)?;
        let imported = entry.read(profile.oauth.as_ref(), self.app.now());
        let planned = match imported.map_err(|error| unread(path, &at, &error, profile))? {
            Imported::Login(login) => self.login(profile, *login, entry),
            Imported::AccessToken(key) | Imported::ApiKey(key) => {
                let holders = self.app.store.holders_of(&profile.id, &key).await?;
                if let Some(name) = self.holder(entry, &holders) {
                    let becomes = Becomes::Nothing { name: name.clone() };
                    self.plan.lines.push(Line { at, becomes });
                    return Ok(());
                }
                match entry.is_login() {
                    true => self.access_token(profile, key),
                    false => self.key(profile, key, entry, holders),
                }
            }
        };
        let (mut planned, kind) = planned.map_err(placed)?;
        self.require_unplanned(&planned.name).map_err(placed)?;
        planned.line = self.plan.lines.len();
        (planned.pool, planned.proxy) = (pool, proxy);
        planned.origin = Template::of(entry);
        self.plan.lines.push(Line {
            at,
            becomes: Becomes::Account {
                name: planned.name.clone(),
                platform: profile.id.clone(),
                is_new: !planned.renew,
                kind,
            },
        });
        self.plan.planned.push(planned);
        Ok(())
    }

    /// The pool that a credential's account joins besides the default one.
    fn pool(&self, entry: &Entry) -> Result<Option<String>> {
        let pool = entry.pool.clone().or(self.files.pool.map(str::to_owned));
        if let Some(pool) = pool.as_ref().filter(|pool| !self.pools.contains(*pool)) {
            let sentence = format!("expected a pool that is there, found {pool:?}");
            return Err(Error::new(Fault::Invalid, sentence));
        }
        Ok(pool)
    }

    /// The platform of a credential, with the operator's own client where logins there need one.
    fn reached(&self, entry: &Entry) -> Result<Cow<'a, Profile>> {
        let profile = self.profile(entry)?;
        match entry.is_login() {
            true => Ok(profile.with_client(variable::read)?),
            false => Ok(Cow::Borrowed(profile)),
        }
    }

    /// The proxy that a credential's file names. What left by a proxy must not leave in another way from here on, unless
    /// somebody says so.
    fn proxy(&self, entry: &Entry) -> Result<Option<Proxy>> {
        let url = entry.proxy().filter(|_| self.files.terms.proxy.is_none());
        let proxy = url.map(|url| Proxy::parse(url, None)).transpose();
        proxy.map_err(|error| Error::new(Fault::UnfitProxy, format_args!("proxy_url: {error}")))
    }

    /// Finds the account that has a key already, of those that have it, and keeps it.
    fn holder<'b>(&self, entry: &Entry, holders: &'b [String]) -> Option<&'b String> {
        let asked = self.files.name.or(entry.name.as_deref());
        let holder = match asked {
            Some(name) => holders.iter().find(|holder| *holder == name),
            None => holders.first(),
        };
        holder.filter(|_| !self.files.replace)
    }

    /// Refuses a name that an earlier credential of this import gets.
    fn require_unplanned(&self, name: &str) -> Result<()> {
        let mut planned = self.plan.planned.iter();
        let Some(earlier) = planned.find(|one| one.name == name) else {
            return Ok(());
        };
        let earlier = &self.plan.lines[earlier.line].at;
        let sentence = format!("the account {name:?} is also that of {earlier}");
        Err(Error::new(Fault::Invalid, sentence))
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
            None if entry.of.is_empty() => {
                let sentence = match entry.is_login() {
                    true => "nothing in it says which platform the login is for",
                    false => "platform: expected the platform of the key, found nothing",
                };
                return Err(Error::new(Fault::NeedsPlatform, sentence));
            }
            None if entry.is_login() => {
                let all = || profiles().filter(|profile| takes(profile));
                let usable: Vec<&str> = all()
                    .filter(|one| catalog.usable(&one.id).is_ok())
                    .map(|one| one.id.as_str())
                    .collect();
                // One that is off gives way to those that are on, and says why it is off where there is none.
                let ids = match usable.is_empty() {
                    true => all().map(|one| one.id.as_str()).collect(),
                    false => usable,
                };
                match ids[..] {
                    [one] => one,
                    [_, ..] => {
                        let sentence = format!(
                            "expected one platform that takes over such a login, found {}",
                            ids.join(", ")
                        );
                        return Err(Error::new(Fault::NeedsPlatform, sentence));
                    }
                    [] => return Err(nobody_takes(entry.form)),
                }
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
            false => platform_of_key(self.app, found, entry.name.as_deref().unwrap_or(found)),
        }
    }

    /// A login, given to the account that is its own, or a new one.
    fn login(&self, profile: &Profile, login: Granted, entry: &Entry) -> Result<(Planned, Kind)> {
        let mut told = login.vars.clone();
        // The platform itself tells it, once the login is taken over.
        told.extend(
            profile
                .login
                .setup
                .map(|setup| (setup.var().to_owned(), String::new())),
        );
        require_vars(profile, &told)?;
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
            credential_expires_at: login.credential_expires_at,
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
        let asked = self.files.name.or(entry.name.as_deref());
        let (given, called) = (key.expose_secret(), asked.unwrap_or(&profile.id));
        let key = key_of(self.app, profile, base_url.as_ref(), given, called)?;
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

/// Words a credential that cannot be read. The path in the file is part of the error of a field.
fn unread(path: &Path, at: &str, error: &import::Error, profile: &Profile) -> Error {
    let fault = fault(error, Some(&profile.id));
    match error {
        import::Error::Field { .. } | import::Error::ForeignIssuer { .. } => {
            Error::in_file(path, fault, error)
        }
        _ => Error::new(fault, format_args!("{at}: {error}")),
    }
}

/// The login is one that no profile here takes over.
fn nobody_takes(form: Form) -> Error {
    let whose = form.whose();
    let sentence = format!(
        "it is {whose}. Add an API key of the platform in its place, or a profile of your own that has [login.import] with \
         this login's word in known_as"
    );
    Error::new(Fault::Invalid, sentence)
}
