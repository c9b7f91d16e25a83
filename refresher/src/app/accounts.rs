//! Accounts: added, changed, switched on and off, removed.

use std::collections::BTreeMap;
use std::fmt::Display;

use latchkey::snapshot::{ModelMaps, Models};
use latchkey::verdict::Reason;
use secrecy::{ExposeSecret, SecretString};

use super::{App, Caller, Error, Result};
use crate::address::Refused;
use crate::base_url::{BaseUrl, NotOfAccount};
use crate::clock::SystemClock;
use crate::clock::UnixMillis;
use crate::config;
use crate::credential::{Credential, CredentialKind};
use crate::envoy::clusters::{self, Clusters};
use crate::fault::Fault;
use crate::guarded::require_reach;
use crate::oauth::exchange::require_vars;
use crate::oauth::revoke::{Revoked, revoke};
use crate::platform::{KeyForm, NotAKey, OwnBaseUrl, Profile};
use crate::probe::{self, Finding, quota};
use crate::store::{self, AccountChanges, NewAccount, Outgoing, Saved, Status, Terms};

/// An API key to be added as an account.
#[derive(Debug)]
pub struct NewKey<'a> {
    /// The account's name.
    pub name: &'a str,
    /// The platform that the key is for.
    pub platform: &'a str,
    /// The key, with whatever packing it came in.
    pub key: SecretString,
    /// The address at which the account is reached, if not its platform's.
    pub base_url: Option<&'a str>,
    /// The account's limits and its end.
    pub terms: &'a Terms,
    /// An account of that name and platform gets the new key in place of its own.
    pub replace: bool,
}

/// An account that has the API key.
#[derive(Debug)]
pub struct Added {
    /// The account.
    pub saved: Saved,
    /// Something was around the key, and was taken off.
    pub was_packed: bool,
    /// A call is known that tells if the platform takes the key.
    pub can_be_checked: bool,
    /// The names of other accounts that have the same key, and so share its limits at the platform.
    pub twins: Vec<String>,
}

/// The clusters that the accounts use, as Envoy reads them.
///
/// # Errors
/// If the store fails.
pub async fn clusters(app: &App, settings: &config::Envoy) -> Result<Clusters> {
    let keys = app.store.clusters().await?;
    Ok(clusters::clusters(keys, &app.catalog, settings))
}

/// The platform of an account that is to have an API key. Ask before the key is asked for.
///
/// # Errors
/// If there is no such platform, it is off, or it takes no API keys.
pub fn platform_of_key<'a>(app: &'a App, platform: &str, name: &str) -> Result<&'a Profile> {
    let profile = app.catalog.profile(platform)?;
    if !profile.credentials.contains(&CredentialKind::ApiKey) {
        let fault = Fault::NoApiKeys {
            account: name.to_owned(),
            platform: profile.id.clone(),
        };
        let sentence = format!("platform {} takes no API keys", profile.id);
        return Err(Error::new(fault, sentence));
    }
    Ok(app.catalog.usable(platform)?)
}

/// Checks a base URL that an account is to have for itself, or that it is to have none.
///
/// # Errors
/// If it is none, the platform's accounts are all where the platform is, or each has to have its own.
pub fn own_base_url(profile: &Profile, text: Option<&str>) -> Result<Option<BaseUrl>> {
    let id = &profile.id;
    let refused = |sentence| Err(Error::new(Fault::Invalid, sentence));
    match (text, profile.upstream.of_accounts) {
        (None, OwnBaseUrl::None | OwnBaseUrl::Optional) => Ok(None),
        (None, OwnBaseUrl::Required) => {
            let sentence = format!("expected a base URL: each account of {id} has its own");
            Err(Error::new(Fault::NeedsBaseUrl, sentence))
        }
        (Some(_), OwnBaseUrl::None) => refused(format!(
            "expected no base URL: all accounts of {id} are reached at {}, as its profile does not say account_base_url = \
             true",
            profile.upstream.url.as_str()
        )),
        (Some(text), OwnBaseUrl::Optional | OwnBaseUrl::Required) => {
            let unfit = |why: &dyn Display| format!("base URL: {why}");
            let url = BaseUrl::of_account(text, profile.upstream.network);
            let url = url.map_err(|error| match error {
                NotOfAccount::Elsewhere(refused) => elsewhere(refused),
                NotOfAccount::Url(_) => Error::new(Fault::Invalid, unfit(&error)),
            })?;
            let endpoints = profile.record.endpoints.iter();
            let ends = endpoints.filter_map(|endpoint| url.end_at(&endpoint.path));
            match ends.max_by_key(String::len) {
                None => Ok(Some(url)),
                Some(end) => refused(unfit(&format_args!(
                    "expected the part of the URL before the platform's paths, found the URL of a path; leave out {end}"
                ))),
            }
        }
    }
}

/// [`own_base_url`], and its name, where it is found now, leads nowhere that it must not.
///
/// # Errors
/// As [`own_base_url`], or if the name leads into the own network and the profile does not say so.
pub async fn checked_base_url(profile: &Profile, text: Option<&str>) -> Result<Option<BaseUrl>> {
    let url = own_base_url(profile, text)?;
    if let Some(url) = &url {
        let reached = require_reach(profile.upstream.network, url).await;
        reached.map_err(elsewhere)?;
    }
    Ok(url)
}

/// A base URL that leads where its platform's accounts are not.
fn elsewhere(refused: Refused) -> Error {
    let fault = match refused.is_own_network() {
        true => Fault::OwnNetwork,
        false => Fault::Invalid,
    };
    Error::new(fault, format_args!("base URL: {refused}"))
}

/// Adds an account that has an API key.
///
/// # Errors
/// As [`platform_of_key`] and [`checked_base_url`]; or if the name is taken, the key is surely none of that platform's, or
/// cannot go into a header.
pub async fn add(app: &App, caller: Caller, new: NewKey<'_>) -> Result<Added> {
    let profile = platform_of_key(app, new.platform, new.name)?;
    let vars = BTreeMap::new();
    require_vars(profile, &vars)?;
    let base_url = checked_base_url(profile, new.base_url).await?;
    let given = new.key.expose_secret();
    let key = key_of(app, profile, base_url.as_ref(), given, new.name)?;
    let was_packed = given.trim() != key.expose_secret();
    let mut twins = app.store.holders_of(&profile.id, &key).await?;
    twins.retain(|name| name != new.name);
    let (credential, credential_expires_at) = credential_of(profile, key, app.now())?;
    let account = NewAccount {
        name: new.name,
        platform: &profile.id,
        credential,
        vars,
        credential_expires_at,
        base_url: base_url.as_ref(),
    };
    let saved = app
        .store
        .save_account(account, new.terms, new.replace, app.now());
    match saved.await {
        Ok(saved) => {
            caller.changes("account added", new.name);
            Ok(Added {
                saved,
                was_packed,
                can_be_checked: profile.probe.is_some(),
                twins,
            })
        }
        Err(error @ store::Error::NameTaken { .. }) if !new.replace => {
            let same = app.store.account(new.name).await;
            let is_same = same.is_ok_and(|account| account.platform == profile.id);
            let (account, platform) = (new.name.to_owned(), profile.id.clone());
            Err(match is_same {
                true => Error::new(Fault::HasKey { account, platform }, error),
                false => error.into(),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes what proves an account that has `key`, and the end of that: the key itself, or a token that it signs.
pub(super) fn credential_of(
    profile: &Profile,
    key: SecretString,
    now: UnixMillis,
) -> Result<(Credential, Option<UnixMillis>)> {
    let Some(signing) = &profile.signing else {
        return Ok((Credential::ApiKey(key), None));
    };
    let minted = signing.mint(&key, now);
    let (signed, end) = minted.map_err(|error| Error::new(Fault::BadCredential, error))?;
    Ok((Credential::Signed(signed), Some(end)))
}

/// The key in a text, for the account of that name. Nobody knows the keys of another place than the platform's own.
pub(super) fn key_of(
    app: &App,
    profile: &Profile,
    base_url: Option<&BaseUrl>,
    given: &str,
    name: &str,
) -> Result<SecretString> {
    let anything = KeyForm::default();
    let form = match base_url {
        Some(_) => &anything,
        None => &profile.api_keys,
    };
    let key = app.catalog.api_key(profile, form, given);
    key.map_err(|refused| not_a_key(refused, name))
}

/// The error of a text that is no key for the account of that name.
fn not_a_key(refused: NotAKey, account: &str) -> Error {
    let fault = match &refused {
        NotAKey::Foreign { id, .. } => Fault::ForeignKey {
            account: account.to_owned(),
            platform: id.clone(),
        },
        NotAKey::Ours(_) => Fault::OwnKey,
        NotAKey::Masked | NotAKey::Short { .. } => Fault::MaskedKey,
        NotAKey::Empty
        | NotAKey::Spaced
        | NotAKey::Variable
        | NotAKey::Placeholder
        | NotAKey::Other { .. }
        | NotAKey::Form { .. } => Fault::BadCredential,
    };
    Error::new(fault, refused)
}

/// Changes which models an account serves (an empty list for all), its maps, where it is reached (`Some(None)` for where
/// its platform is), and its terms.
///
/// # Errors
/// If there is no such account, or as [`checked_base_url`].
pub async fn set(
    app: &App,
    caller: Caller,
    account: &str,
    models: Option<&Models>,
    maps: Option<&ModelMaps>,
    base_url: Option<Option<&str>>,
    terms: &Terms,
) -> Result<()> {
    let base_url = match base_url {
        Some(text) => {
            let platform = app.store.account(account).await?.platform;
            Some(checked_base_url(app.catalog.profile(&platform)?, text).await?)
        }
        None => None,
    };
    let changes = AccountChanges {
        models,
        maps,
        base_url: base_url.as_ref().map(Option::as_ref),
    };
    let set = app.store.set_account(account, changes, terms, app.now());
    set.await?;
    caller.changes("account changed", account);
    Ok(())
}

/// Lets an account serve requests again. True if that changed anything.
///
/// # Errors
/// If there is no such account, or it needs a login.
pub async fn enable(app: &App, caller: Caller, account: &str) -> Result<bool> {
    let changed = app.store.enable(account, app.now()).await?;
    caller.changes("account enabled", account);
    Ok(changed)
}

/// Takes an account out of use; its login is kept fresh. True if that changed anything.
///
/// # Errors
/// If there is no such account.
pub async fn disable(app: &App, caller: Caller, account: &str) -> Result<bool> {
    let changed = app.store.disable(account, app.now()).await?;
    caller.changes("account disabled", account);
    Ok(changed)
}

/// Has every Envoy forget what was learned of an account; its status from then on.
///
/// # Errors
/// If there is no such account.
pub async fn reset(app: &App, caller: Caller, account: &str) -> Result<Status> {
    let status = app.store.reset(account, app.now()).await?;
    caller.changes("account reset", account);
    Ok(status)
}

/// Asks the platform about an account, now, with the credential that is stored. It changes nothing.
///
/// # Errors
/// If there is no such account, its platform is off, or no call is known that could tell.
pub async fn check(app: &App, account: &str) -> Result<Finding> {
    let platform = app.store.account(account).await?.platform;
    let profile = app.catalog.usable(&platform)?;
    let probe = profile.probe.as_ref().ok_or_else(|| {
        let sentence = format!(
            "platform {platform} has no [probe] in its profile, so there is no call that could test a credential"
        );
        Error::new(Fault::Invalid, sentence)
    })?;
    let outgoing = app.store.asked_account(account).await?;
    let Some(Outgoing {
        account,
        tls,
        proxy,
    }) = outgoing
    else {
        let sentence = format!("no daemon has run here since platform {platform} was turned on");
        return Err(Error::new(Fault::NotPublished, sentence));
    };
    let profile = profile.by(proxy.as_ref());
    let finding = probe::ask(&profile, probe, &account, tls, &SystemClock).await;
    let Some(endpoint) = profile.quota_endpoint.as_ref() else {
        return Ok(finding);
    };
    if finding != Finding::Alive {
        return Ok(finding);
    }
    // Who is known may still have nothing left. Where that cannot be learned, the first answer holds.
    let figures = quota::ask(&profile, endpoint, &account, tls, &SystemClock).await;
    let out = figures
        .ok()
        .and_then(|figures| quota::out(&figures, endpoint.every, app.now()));
    let limited = |(out, reason): (quota::Out, Reason)| Finding::Limited {
        until: out.until,
        guessed: out.guessed,
        reason,
    };
    Ok(out.zip(quota::used_up()).map_or(finding, limited))
}

/// An account that was removed. Its login may live on at the platform until [`Removed::revoke`].
#[derive(Debug)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The pools that it was in.
    pub pools: Vec<String>,
    /// The reason why its login cannot be revoked, where its credential could not be opened.
    pub unreadable: Option<String>,
    login: Option<(Profile, Credential)>,
}

/// Removes an account with its credential. Nothing of that waits for the platform: it must not decide whether an account
/// is out of use.
///
/// # Errors
/// If there is no such account.
pub async fn remove(app: &App, caller: Caller, account: &str) -> Result<Removed> {
    let account = app.store.account(account).await?;
    let credential = app.store.credential(&account.id).await;
    let proxy = app.store.proxy(&account.id).await;
    let (credential, proxy, unreadable) = match credential.and_then(|found| Ok((found, proxy?))) {
        Ok((credential, proxy)) => (Some(credential).filter(|one| !one.is_empty()), proxy, None),
        Err(error) => (None, None, Some(error.to_string())),
    };
    let pools = app.store.pools().await?.into_iter();
    let pools = pools.filter(|pool| pool.members.iter().any(|one| one.account == account.name));
    let pools = pools.map(|pool| pool.id).collect();
    app.store.remove_account(&account.id).await?;
    caller.changes("account removed", &account.name);
    let profile = app.catalog.profile(&account.platform).ok();
    Ok(Removed {
        name: account.name,
        id: account.id.to_string(),
        pools,
        unreadable,
        login: profile.zip(credential).map(|(profile, credential)| {
            let profile = profile.by(proxy.as_ref()).into_owned();
            (profile, credential)
        }),
    })
}

impl Removed {
    /// Revokes the login at the platform; none where there is none.
    pub async fn revoke(self) -> Option<Revoked> {
        let (profile, credential) = self.login?;
        revoke(&profile, &credential).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::platform::Catalog;

    #[test]
    fn a_base_url_is_needed_allowed_or_refused_as_the_profile_says() {
        let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
        let own = |id: &str, text| own_base_url(catalog.usable(id).unwrap(), text);
        let url = Some("https://gpu.test/v1");
        for (id, with, without) in [
            ("openai", false, true),
            ("qwen", true, true),
            ("custom", true, false),
        ] {
            assert_eq!(own(id, url).is_ok(), with, "{id}");
            assert_eq!(own(id, None).is_ok(), without, "{id}");
        }
        let fault = |id: &str, text| own(id, text).unwrap_err().fault;
        assert_eq!(fault("custom", None), Fault::NeedsBaseUrl);
        let here = Some("https://127.0.0.1/v1");
        assert_eq!(fault("qwen", here), Fault::OwnNetwork);
        assert!(
            own("custom", Some("http://gpu.test/v1")).is_err(),
            "in the clear"
        );
    }
}
