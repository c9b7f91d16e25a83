//! `[[accounts]]` of the configuration: accounts whose secrets stand in environment variables. The file names the
//! variables and holds no secret.

use std::collections::{BTreeMap, BTreeSet};

use latchkey::snapshot::ModelMaps;
use reqwest::Url;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::base_url::web_url;
use crate::variable;

/// The most accounts: a file of more than this is long.
const MAX_ACCOUNTS: usize = 500;

/// An account that the file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its platform's id.
    pub platform: String,
    /// The names of its secrets' variables.
    pub secrets: Secrets,
    /// Its token endpoint, if not its platform's.
    pub token_url: Option<Url>,
    /// The address at which it is reached, if not its platform's.
    pub base_url: Option<String>,
    /// The variable that holds the URL of the proxy by which it leaves.
    pub proxy_env: Option<String>,
    /// A pool that it joins besides the default one.
    pub pool: Option<String>,
    /// The facts of it at its platform, which a login would tell.
    pub vars: BTreeMap<String, String>,
    /// The names by which its platform knows models, if the file says any.
    pub maps: Option<ModelMaps>,
    /// False stops it.
    pub enabled: bool,
}

/// The variables that hold the secrets of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secrets {
    /// The variable of an API key.
    Key(String),
    /// The variables of a client's id and secret, which buy tokens.
    Client {
        /// The id's.
        id: String,
        /// The secret's.
        secret: String,
    },
    /// The variable of a refresh token, and of the client that it was given to, if not the platform's own.
    RefreshToken {
        /// The token's.
        token: String,
        /// The id's.
        id: Option<String>,
        /// The secret's.
        secret: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    platform: String,
    key_env: Option<String>,
    client_id_env: Option<String>,
    client_secret_env: Option<String>,
    refresh_token_env: Option<String>,
    token_url: Option<String>,
    base_url: Option<String>,
    proxy_env: Option<String>,
    pool: Option<String>,
    #[serde(default)]
    vars: BTreeMap<String, String>,
    maps: Option<ModelMaps>,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Declared, D::Error> {
        Raw::deserialize(deserializer)?
            .check()
            .map_err(D::Error::custom)
    }
}

/// Reads the list, in which no two have one name.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Declared>, D::Error> {
    let all = Vec::<Declared>::deserialize(deserializer)?;
    if all.len() > MAX_ACCOUNTS {
        let found = all.len();
        let problem = format!("expected at most {MAX_ACCOUNTS} accounts, found {found}");
        return Err(D::Error::custom(problem));
    }
    let mut names = BTreeSet::new();
    match all.iter().all(|one| names.insert(&one.name)) {
        true => Ok(all),
        false => Err(D::Error::custom(
            "expected a name of its own for each of the accounts",
        )),
    }
}

impl Raw {
    fn check(self) -> Result<Declared, String> {
        let token_url = self.token_url.as_deref().map(web_url).transpose();
        let token_url = token_url.map_err(|error| format!("token_url: {error}"))?;
        let [key, id, secret, token, proxy] = [
            ("key_env", self.key_env),
            ("client_id_env", self.client_id_env),
            ("client_secret_env", self.client_secret_env),
            ("refresh_token_env", self.refresh_token_env),
            ("proxy_env", self.proxy_env),
        ]
        .map(|(field, name)| name.map(|name| variable::named(field, name)).transpose());
        let secrets = match (key?, token?, id?, secret?) {
            (Some(key), None, None, None) if token_url.is_none() => Secrets::Key(key),
            (None, Some(token), id, secret) if secret.is_none() || id.is_some() => {
                Secrets::RefreshToken { token, id, secret }
            }
            (None, None, Some(id), Some(secret)) => Secrets::Client { id, secret },
            _ => {
                return Err(
                    "expected key_env alone; or client_id_env and client_secret_env; or refresh_token_env, with the two \
                     others where the token is another client's"
                        .to_owned(),
                );
            }
        };
        Ok(Declared {
            name: self.name,
            platform: self.platform,
            secrets,
            token_url,
            base_url: self.base_url,
            proxy_env: proxy?,
            pool: self.pool,
            vars: self.vars,
            maps: self.maps,
            enabled: self.enabled,
        })
    }
}
