//! Accounts that the configuration declares, brought in line with it when the daemon starts.
//!
//! - The secrets are those of the environment, until the platform gives others: a refresh token that was rotated lives
//!   sealed in the store, and goes before the variable's until that has another value.
//! - `enabled = false` takes an account out of use, and so does its removal from the file; either way it keeps its
//!   history and its tokens, and comes back with its line.
//! - An account with a `proxy_env` leaves by the proxy that stood in that variable last, or not at all.
//! - The `maps` of an account that has some there are those of the file.
//! - An account that somebody made by hand is left alone, whatever the file says.
//! - What does not fit is told in the log, and costs no other account: a daemon must not stay down for it.

use ring::digest::{Context, SHA256};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::accounts::{credential_of, key_of, own_base_url, platform_of_key};
use super::{App, Caller, Error, Result};
use crate::advice;
use crate::config::accounts::{Declared, Secrets};
use crate::credential::{ClientCredentials, Credential};
use crate::egress::Proxy;
use crate::fault::Fault;
use crate::id::{AccountId, hex};
use crate::oauth::exchange::require_vars;
use crate::platform::Profile;
use crate::store::{Account, AccountChanges, Member, NewAccount, Saved, Status, Terms};

/// The reason of an account that is out of use.
const OFF: &str = "config.toml says enabled = false";
const GONE: &str = "config.toml does not declare it any more";

/// The reason of an account that is left alone, as somebody made it by hand.
const NAME_TAKEN: &str =
    "there is an account of that name already, which config.toml did not make; it is left alone";

/// The proxy of an account that is to have one, of which nothing is known. Nobody can have that name (RFC 6761 §6.4), so
/// nothing leaves.
const NOWHERE: &str = "http://proxy-is-not-set.invalid:1";

/// An account that waits for its first token, and the number of its credential.
pub type Waiting = (AccountId, u64);

/// The record that is kept beside an account that the configuration declared.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    /// The digest of the secrets and of where they go. Sealed, as secrets may be short.
    declared: String,
}

/// Brings the accounts in line with the configuration. `variable` reads the environment. Those that wait for their first
/// token should be refreshed at once.
///
/// # Errors
/// If the store fails.
pub async fn apply(
    app: &App,
    variable: impl Fn(&str) -> Option<SecretString>,
) -> Result<Vec<Waiting>> {
    let mut waiting = Vec::new();
    for declared in &app.config.accounts {
        match one(app, declared, &variable).await {
            Ok(new) => waiting.extend(new),
            Err(error) => {
                let (account, cure) = (&declared.name, advice::in_log(&error.fault));
                tracing::warn!(account, %error, cure, "cannot bring an account in line with config.toml");
            }
        }
    }
    for account in app.store.accounts().await? {
        let mut all = app.config.accounts.iter();
        let is_declared = all.any(|declared| declared.name == account.name);
        if is_declared || declaration(app, &account).await?.is_none() {
            continue;
        }
        if app
            .store
            .switch_off(account.id.as_str(), GONE, app.now())
            .await?
        {
            let cure = advice::undeclared(&account.name);
            let account = account.name;
            tracing::warn!(
                account,
                cure,
                "config.toml does not declare an account any more: it is out of use"
            );
        }
    }
    Ok(waiting)
}

/// An account that the configuration declares and that is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    /// Its name.
    pub account: String,
    /// The reason, where that is seen without the daemon's environment.
    pub why: Option<String>,
}

/// The accounts of the configuration that were not taken. Nothing is changed.
///
/// # Errors
/// If the store fails.
pub async fn not_taken(app: &App) -> Result<Vec<NotTaken>> {
    let (known, pools) = (app.store.accounts().await?, app.store.pools().await?);
    let mut all = Vec::new();
    for declared in &app.config.accounts {
        let of_its_name = known.iter().find(|account| account.name == declared.name);
        let has_pool = |id: &String| pools.iter().any(|pool| pool.id == *id);
        let why = match of_its_name {
            Some(account) if is_ours(declared, account, &declaration(app, account).await?) => {
                continue;
            }
            Some(_) => Some(NAME_TAKEN.to_owned()),
            None => match app.catalog.usable(&declared.platform) {
                Err(error) => Some(error.to_string()),
                Ok(_) => {
                    let pool = declared.pool.as_ref().filter(|id| !has_pool(id));
                    pool.map(|id| format!("there is no pool {id}"))
                }
            },
        };
        let account = declared.name.clone();
        all.push(NotTaken { account, why });
    }
    Ok(all)
}

/// True for an account that the configuration made.
fn is_ours(declared: &Declared, account: &Account, declaration: &Option<Declaration>) -> bool {
    declaration.is_some() && account.platform == declared.platform
}

/// Brings one account in line.
async fn one(
    app: &App,
    declared: &Declared,
    variable: &impl Fn(&str) -> Option<SecretString>,
) -> Result<Option<Waiting>> {
    let known = app.store.accounts().await?;
    let known = known
        .into_iter()
        .find(|account| account.name == declared.name);
    let before = match &known {
        Some(account) => {
            let declaration = declaration(app, account).await?;
            if !is_ours(declared, account, &declaration) {
                let (kind, name) = (crate::fault::Kind::Account, account.name.clone());
                return Err(Error::new(Fault::NameTaken { kind, name }, NAME_TAKEN));
            }
            declaration
        }
        None => None,
    };
    let terms = way_out(app, declared, known.as_ref(), variable).await;
    if let Some(account) = known.as_ref().filter(|_| terms.proxy.is_some()) {
        let changes = AccountChanges::default();
        let set = app
            .store
            .set_account(&account.name, changes, &terms, app.now());
        set.await?;
    }
    let waiting = match secrets(declared, variable) {
        Ok(secrets) => {
            let before = before.as_ref();
            renew(app, declared, known.as_ref(), before, secrets, &terms).await?
        }
        // It goes on with what it has.
        Err(missing) if known.is_some() => {
            let account = &declared.name;
            tracing::warn!(
                account,
                variable = missing,
                "a variable that config.toml names is not set"
            );
            None
        }
        Err(missing) => {
            let sentence =
                format!("expected its secret in the environment variable {missing}, found none");
            return Err(Error::new(Fault::Invalid, sentence));
        }
    };
    let account = app.store.account(&declared.name).await?;
    let maps = declared.maps.as_ref();
    if let Some(maps) = maps.filter(|maps| **maps != account.maps) {
        let changes = AccountChanges {
            maps: Some(maps),
            ..AccountChanges::default()
        };
        let (terms, now) = (Terms::default(), app.now());
        app.store
            .set_account(&account.name, changes, &terms, now)
            .await?;
    }
    match declared.enabled {
        true => {
            app.store
                .switch_on(&account.id, &[OFF, GONE], app.now())
                .await?
        }
        false => {
            app.store
                .switch_off(account.id.as_str(), OFF, app.now())
                .await?
        }
    };
    Ok(waiting)
}

/// The change to the proxy of an account by which it leaves as the configuration says.
async fn way_out(
    app: &App,
    declared: &Declared,
    known: Option<&Account>,
    variable: &impl Fn(&str) -> Option<SecretString>,
) -> Terms {
    let Some(name) = &declared.proxy_env else {
        return Terms::default();
    };
    let before = match known {
        Some(account) => app.store.proxy(&account.id).await.ok().flatten(),
        None => None,
    };
    let value = variable(name).ok_or_else(|| "expected the URL of a proxy, found none".to_owned());
    let said = value.and_then(|value| {
        Proxy::parse(value.expose_secret().trim(), None).map_err(|error| error.to_string())
    });
    let proxy = said.or_else(|problem| {
        let account = &declared.name;
        tracing::warn!(
            account,
            variable = name,
            problem,
            "cannot set the proxy of an account of config.toml: it keeps its last one; without any, none of its requests leaves"
        );
        before.clone().map_or_else(|| Proxy::parse(NOWHERE, None), Ok)
    });
    Terms {
        proxy: proxy
            .ok()
            .filter(|proxy| before.as_ref() != Some(proxy))
            .map(Some),
        ..Terms::default()
    }
}

/// Gives an account its secrets, if they are others than before, or those of before have come to their end and can be
/// used again.
async fn renew(
    app: &App,
    declared: &Declared,
    known: Option<&Account>,
    before: Option<&Declaration>,
    secrets: Values,
    terms: &Terms,
) -> Result<Option<Waiting>> {
    let digest = secrets.digest(declared);
    let is_same = before.is_some_and(|before| before.declared == digest);
    let ended = known.is_some_and(|account| account.status == Status::NeedsLogin);
    let works_again = !matches!(declared.secrets, Secrets::RefreshToken { .. });
    if is_same && !(ended && works_again) {
        return Ok(None);
    }
    let profile = app.catalog.usable(&declared.platform)?;
    require_vars(profile, &declared.vars)?;
    let base_url = own_base_url(profile, declared.base_url.as_deref())?;
    let now = app.now();
    let (credential, end) = match secrets {
        Values::Key(key) => {
            platform_of_key(app, &declared.platform, &declared.name)?;
            let (given, name) = (key.expose_secret(), &declared.name);
            let key = key_of(app, profile, base_url.as_ref(), given, name)?;
            credential_of(profile, key, now)?
        }
        Values::Client {
            id,
            secret,
            refresh,
        } => {
            require_endpoint(profile, declared)?;
            let client = ClientCredentials {
                token_url: declared.token_url.as_ref().map(ToString::to_string),
                client_id: id.unwrap_or_default(),
                client_secret: secret.unwrap_or_else(|| SecretString::from("")),
                refresh,
                access: SecretString::from(""),
            };
            // Its first token is due at once.
            (Credential::Client(client), Some(now))
        }
    };
    let is_waiting = matches!(credential, Credential::Client(_));
    let declaration = Declaration { declared: digest };
    // A struct of text always serialises.
    let origin = serde_json::to_vec(&declaration).unwrap_or_default();
    let member = Member {
        account: NewAccount {
            name: &declared.name,
            platform: &declared.platform,
            credential,
            vars: declared.vars.clone(),
            credential_expires_at: end,
            base_url: base_url.as_ref(),
        },
        renew: known.is_some(),
        pool: declared.pool.as_deref(),
        proxy: None,
        origin: Some(&origin),
    };
    let saved = app.store.save_accounts(&[member], terms, now).await?;
    Caller::LocalOperator.changes("account declared", &declared.name);
    let generation = known.map_or(1, |account| account.generation + 1);
    Ok(saved
        .into_iter()
        .next()
        .filter(|_| is_waiting)
        .map(|saved| {
            let (Saved::Added(id) | Saved::Renewed(id)) = saved;
            (id, generation)
        }))
}

/// Refuses an account that nobody could get a token for.
fn require_endpoint(profile: &Profile, declared: &Declared) -> Result<()> {
    if profile.oauth.is_some() || declared.token_url.is_some() {
        return Ok(());
    }
    let sentence = format!(
        "expected a token_url: platform {} has no [oauth] in its profile",
        profile.id
    );
    Err(Error::new(Fault::Invalid, sentence))
}

async fn declaration(app: &App, account: &Account) -> Result<Option<Declaration>> {
    let origin = app.store.origin(account).await?;
    Ok(origin.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// The values of the variables.
enum Values {
    Key(SecretString),
    Client {
        id: Option<String>,
        secret: Option<SecretString>,
        refresh: Option<SecretString>,
    },
}

impl Values {
    /// A digest of the secrets and of where they go: of anything whose change asks for a new credential.
    fn digest(&self, declared: &Declared) -> String {
        let mut context = Context::new(&SHA256);
        let mut add = |text: Option<&str>| {
            // The length keeps two texts apart.
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            context.update(&length.to_le_bytes());
            context.update(text.unwrap_or_default().as_bytes());
        };
        add(Some(&declared.platform));
        add(declared.token_url.as_ref().map(|url| url.as_str()));
        add(declared.base_url.as_deref());
        for (name, value) in &declared.vars {
            add(Some(name));
            add(Some(value));
        }
        match self {
            Values::Key(key) => add(Some(key.expose_secret())),
            Values::Client {
                id,
                secret,
                refresh,
            } => {
                add(id.as_deref());
                add(secret.as_ref().map(|secret| secret.expose_secret()));
                add(refresh.as_ref().map(|token| token.expose_secret()));
            }
        }
        hex(context.finish().as_ref())
    }
}

/// The values of an account's variables; else the name of one that is not set, or is empty.
fn secrets(
    declared: &Declared,
    variable: &impl Fn(&str) -> Option<SecretString>,
) -> std::result::Result<Values, String> {
    let value = |name: &str| {
        let value = variable(name).map(|value| SecretString::from(value.expose_secret().trim()));
        let value = value.filter(|value| !value.expose_secret().is_empty());
        value.ok_or_else(|| name.to_owned())
    };
    let optional = |name: &Option<String>| name.as_deref().map(value).transpose();
    let id = |value: SecretString| value.expose_secret().to_owned();
    Ok(match &declared.secrets {
        Secrets::Key(name) => Values::Key(value(name)?),
        Secrets::Client { id: name, secret } => Values::Client {
            id: Some(id(value(name)?)),
            secret: Some(value(secret)?),
            refresh: None,
        },
        Secrets::RefreshToken {
            token,
            id: name,
            secret,
        } => Values::Client {
            id: optional(name)?.map(id),
            secret: optional(secret)?,
            refresh: Some(value(token)?),
        },
    })
}

#[cfg(test)]
mod tests;
