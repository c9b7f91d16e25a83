//! Makes an account of what a login was granted: the one place for every way in.
//!
//! A login's owner is found first; then the account is set up where its platform asks for that; then it is saved.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::setup;
use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::egress::Proxy;
use crate::id::AccountId;
use crate::oauth::claims::{EMAIL, IDENTITY, is_same_account};
use crate::oauth::exchange::{self, Granted, require_vars};
use crate::platform::Profile;
use crate::platform::flow::Setup;
use crate::store::{self, Account, Known, Member, NewAccount, Saved, Status, Store, Terms, Vars};

/// The owner of the login that is expected.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Anybody's. The account that is the login's takes it; else there is a new one.
    Anybody {
        /// The name of a new account; without it, its email address.
        name: Option<&'a str>,
        /// The account's limits and its end.
        terms: &'a Terms,
        /// The address at which it is reached, if not its platform's.
        base_url: Option<&'a BaseUrl>,
        /// The project that its operator says; without it, an account that is here keeps its own.
        project: Option<&'a str>,
    },
    /// The login of this account and no other: whoever read its URL in a log can log in as themselves.
    Account(&'a Account),
}

/// An account that has what was granted.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its id.
    pub id: AccountId,
    /// Its name. A login of an account that is here already keeps the account's.
    pub name: String,
    /// True if there was no such account before.
    pub is_new: bool,
    /// The name of its platform.
    pub platform: String,
    /// The claims that its platform's headers use.
    pub vars: Vars,
    /// The kind of its credential.
    pub kind: CredentialKind,
    /// The end of what goes out, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// The proof of who logged in, where the platform gave one.
    pub id_token: Option<SecretString>,
}

/// An account to be saved with what was granted to it.
#[derive(Debug)]
pub struct Grant<'a> {
    /// Its platform.
    pub profile: &'a Profile,
    /// Its name, as [`choose_name`] says.
    pub name: &'a str,
    /// True if an account of that name and platform takes the credential.
    pub renew: bool,
    /// Its credential, and what is known of it.
    pub granted: Granted,
    /// The address at which it is reached, if not its platform's.
    pub base_url: Option<&'a BaseUrl>,
    /// A pool that it joins besides the default one.
    pub pool: Option<&'a str>,
    /// A proxy of its own, unless the terms say one, or none.
    pub proxy: Option<&'a Proxy>,
    /// The rest of its file, beside its credential.
    pub origin: Option<&'a [u8]>,
}

/// The reason why a login does not count. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The login lacks what the platform's headers need.
    #[error(transparent)]
    Login(#[from] exchange::Error),
    /// The account cannot be set up.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// A login that is somebody else's.
    #[error(
        "expected a login of {expected}, found one of {found} at {platform}; nothing was changed, and the account has a new URL to log in"
    )]
    OtherAccount {
        /// The person whose it should be.
        expected: String,
        /// The person whose it is.
        found: String,
        /// The address.
        platform: String,
    },
    /// The account has moved on meanwhile.
    #[error("the account was removed or has another login by now; nothing was changed")]
    Overtaken,
    /// The name is another account's.
    #[error("{name:?} is the name of another account, at {platform}")]
    NameTaken {
        /// The name.
        name: String,
        /// The place where its account is.
        platform: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Gives a login to the account that it belongs to, which is set up first. `profile`: the platform as the account reaches
/// it.
///
/// # Errors
/// If it is nobody's that was expected, its account cannot be set up, or the store fails.
pub async fn finish(
    store: &Store,
    profile: &Profile,
    granted: Granted,
    whose: Whose<'_>,
    now: UnixMillis,
) -> Result<Finished, Error> {
    let granted = set_up(store, profile, granted, whose).await?;
    require_vars(profile, &granted.vars)?;
    let told = Told::of(profile, &granted);
    match whose {
        Whose::Anybody {
            name,
            terms,
            base_url,
            ..
        } => {
            let accounts = store.known_accounts().await?;
            let none = BTreeSet::new();
            let (name, renew) = choose_name(&accounts, &profile.id, &granted.vars, name, &none)?;
            let new = account(profile, &name, base_url, granted);
            let saved = store.save_account(new, terms, renew, now).await?;
            told.saved(store, saved, &name).await
        }
        Whose::Account(expected) => {
            let new = account(profile, &expected.name, None, granted);
            let renewed = store.renew_login(&expected.id, expected.generation, new, now);
            if !renewed.await? {
                return Err(Error::Overtaken);
            }
            let saved = Saved::Renewed(expected.id.clone());
            told.saved(store, saved, &expected.name).await
        }
    }
}

/// Saves accounts that come together, on the same terms: all of them, or none. Each was set up before ([`set_up`]).
///
/// # Errors
/// If one of them cannot be saved.
pub async fn finish_all(
    store: &Store,
    grants: Vec<Grant<'_>>,
    terms: &Terms,
    now: UnixMillis,
) -> Result<Vec<Finished>, Error> {
    let (mut told, mut members) = (Vec::new(), Vec::new());
    for grant in grants {
        require_vars(grant.profile, &grant.granted.vars)?;
        told.push((grant.name, Told::of(grant.profile, &grant.granted)));
        members.push(Member {
            account: account(grant.profile, grant.name, grant.base_url, grant.granted),
            renew: grant.renew,
            pool: grant.pool,
            proxy: grant.proxy,
            origin: grant.origin,
        });
    }
    let saved = store.save_accounts(&members, terms, now).await?;
    let mut finished = Vec::with_capacity(saved.len());
    for (saved, (name, told)) in saved.into_iter().zip(told) {
        finished.push(told.saved(store, saved, name).await?);
    }
    Ok(finished)
}

/// Finds what the account of a login needs beside it, where its platform has it set up ([`setup`]). `profile`: the platform
/// as the account reaches it. Nobody else's account is set up.
///
/// # Errors
/// If the login is nobody's that was expected, before the platform is asked. If the platform does not set the account up.
pub async fn set_up(
    store: &Store,
    profile: &Profile,
    granted: Granted,
    whose: Whose<'_>,
) -> Result<Granted, Error> {
    let owner = owner(store, &profile.id, &granted.vars, whose).await?;
    let Some(setup) = profile.login.setup else {
        return Ok(granted);
    };
    let given = given(store, setup, owner, whose).await?;
    Ok(setup::complete(profile, granted, &given).await?)
}

/// Finds what an operator said of the account of a login, now or before.
async fn given(
    store: &Store,
    setup: Setup,
    owner: Option<Account>,
    whose: Whose<'_>,
) -> Result<Vars, Error> {
    let said = match whose {
        Whose::Anybody { project, .. } => project.map(str::to_owned),
        Whose::Account(_) => None,
    };
    let given = match (said, owner) {
        (Some(said), _) => Some(said),
        (None, Some(owner)) => store.vars(&owner.id).await?.remove(setup.var()),
        (None, None) => None,
    };
    let given = given.map(|value| (setup.var().to_owned(), value));
    Ok(given.into_iter().collect())
}

/// Finds the account that a login of which `vars` are told would go to; `None` for a new one.
///
/// # Errors
/// If it is nobody's that was expected, its name is another account's, or the store fails.
async fn owner(
    store: &Store,
    platform: &str,
    vars: &Vars,
    whose: Whose<'_>,
) -> Result<Option<Account>, Error> {
    match whose {
        Whose::Anybody { name, .. } => {
            let accounts = store.known_accounts().await?;
            let (name, renew) = choose_name(&accounts, platform, vars, name, &BTreeSet::new())?;
            let mut accounts = accounts.into_iter().map(|known| known.account);
            Ok(accounts.find(|account| renew && account.name == name))
        }
        Whose::Account(expected) => {
            let own = store.vars(&expected.id).await?;
            require_same(&expected.platform, &own, vars)?;
            Ok(Some(expected.clone()))
        }
    }
}

/// The facts of a grant that are told once its account has it.
struct Told {
    platform: String,
    vars: Vars,
    kind: CredentialKind,
    credential_expires_at: Option<UnixMillis>,
    login_ends_at: Option<UnixMillis>,
    id_token: Option<SecretString>,
}

impl Told {
    fn of(profile: &Profile, granted: &Granted) -> Told {
        Told {
            platform: profile.name.clone(),
            vars: granted.vars.clone(),
            kind: granted.credential.kind(),
            credential_expires_at: granted.credential_expires_at,
            login_ends_at: granted.login_ends_at,
            id_token: granted.credential.id_token().cloned(),
        }
    }

    /// Makes what is known of the account that was saved, and notes when its login ends.
    async fn saved(self, store: &Store, saved: Saved, name: &str) -> Result<Finished, Error> {
        let (id, is_new) = match saved {
            Saved::Added(id) => (id, true),
            Saved::Renewed(id) => (id, false),
        };
        note_end(store, &id, self.login_ends_at).await?;
        Ok(Finished {
            id,
            name: name.to_owned(),
            is_new,
            platform: self.platform,
            vars: self.vars,
            kind: self.kind,
            credential_expires_at: self.credential_expires_at,
            id_token: self.id_token,
        })
    }
}

/// Notes when the login that an account was just given ends for good.
async fn note_end(store: &Store, id: &AccountId, ends_at: Option<UnixMillis>) -> Result<(), Error> {
    if ends_at.is_none() {
        return Ok(());
    }
    let generation = store.account(id.as_str()).await?.generation;
    Ok(store.note_login_end(id, generation, ends_at).await?)
}

/// The account at `platform` that already has this login, or one that outlasts it: an older copy of a login holds a
/// refresh token that is spent by now.
pub fn outlasting<'a>(
    accounts: &'a [Known],
    platform: &str,
    granted: &Granted,
) -> Option<&'a Account> {
    let same = accounts
        .iter()
        .filter(|known| is_login_of(known, platform, &granted.vars));
    same.map(|known| &known.account).find(|account| {
        account.status != Status::NeedsLogin
            && account.credential_expires_at >= granted.credential_expires_at
    })
}

/// True if a login at `platform` of which `vars` are told is the account's.
fn is_login_of(known: &Known, platform: &str, vars: &Vars) -> bool {
    let is_same = |own: &Vars| is_same_account(own, vars);
    known.account.platform == platform && known.vars.as_ref().is_some_and(is_same)
}

fn account<'a>(
    profile: &'a Profile,
    name: &'a str,
    base_url: Option<&'a BaseUrl>,
    granted: Granted,
) -> NewAccount<'a> {
    NewAccount {
        name,
        platform: &profile.id,
        credential: granted.credential,
        vars: granted.vars,
        credential_expires_at: granted.credential_expires_at,
        base_url,
    }
}

/// Refuses a login of another account than the one that `expected` is known of.
fn require_same(platform: &str, expected: &Vars, found: &Vars) -> Result<(), Error> {
    if is_same_account(expected, found) {
        return Ok(());
    }
    let who = |vars: &Vars| {
        let identity = vars.get(IDENTITY).map_or("(none)", String::as_str);
        vars.get(EMAIL).map_or_else(
            || format!("{IDENTITY} {identity}"),
            |email| format!("{email} ({IDENTITY} {identity})"),
        )
    };
    Err(Error::OtherAccount {
        expected: who(expected),
        found: who(found),
        platform: platform.to_owned(),
    })
}

/// Names the account of a login; true if that takes the place of one that has the name. A login of an account that is
/// here already goes to that account, whatever name is wanted. Of what a login without a wanted name could be called,
/// `reserved` is left to others.
///
/// # Errors
/// If the name is another account's.
pub fn choose_name(
    accounts: &[Known],
    platform: &str,
    vars: &Vars,
    wanted: Option<&str>,
    reserved: &BTreeSet<&str>,
) -> Result<(String, bool), Error> {
    let mut known = accounts.iter();
    if let Some(same) = known.find(|known| is_login_of(known, platform, vars)) {
        return Ok((same.account.name.clone(), true));
    }
    let holder = |name: &str| accounts.iter().find(|known| known.account.name == name);
    // A platform that does not tell its accounts apart leaves that to their names.
    let is_nameless = |held: &Known| {
        let vars = held.vars.as_ref();
        held.account.platform == platform && vars.is_some_and(|vars| !vars.contains_key(IDENTITY))
    };
    if let Some(wanted) = wanted {
        return match holder(wanted) {
            None => Ok((wanted.to_owned(), false)),
            Some(held) if is_nameless(held) => Ok((wanted.to_owned(), true)),
            Some(held) => Err(Error::NameTaken {
                name: wanted.to_owned(),
                platform: held.account.platform.clone(),
            }),
        };
    }
    let first = vars.get(EMAIL).map_or(platform, String::as_str);
    let numbered = (2..).map(|n| format!("{first}-{n}"));
    let free = std::iter::once(first.to_owned())
        .chain(numbered)
        .find(|name| holder(name).is_none() && !reserved.contains(name.as_str()));
    Ok((free.unwrap_or_else(|| first.to_owned()), false))
}

#[cfg(test)]
mod tests;
