//! `[oauth]` of a profile: the token endpoint, its client, and what its tokens are like.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use super::{Invalid, invalid, web_url};
use crate::credential::{OwnClient, Renewal};
use crate::variable;

/// The form of a token request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    Form,
    /// No body: the fields stand in the URL's query.
    Query,
}

/// A request that a client signs with its secret in place of sending it: `GET` of the token endpoint with
/// `refresh_params` in its query.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRequests {
    /// The scheme of its signature.
    pub scheme: Scheme,
    /// For how many seconds a signature is good.
    #[serde(default = "half_an_hour")]
    pub validity_seconds: u32,
}

/// A way to sign requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Scheme {
    /// Baidu's.
    #[serde(rename = "bce-auth-v1")]
    BceAuthV1,
}

fn half_an_hour() -> u32 {
    30 * 60
}

/// The places of an answer's parts: names of members, or JSON pointers (RFC 6901). Unless told, those of RFC 6749
/// §5.1.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Members {
    /// The access token.
    pub access_token: String,
    /// Its life, in seconds.
    pub expires_in: String,
    /// Its end: a time as RFC 3339 has it, or Unix time.
    pub expires_at: Option<String>,
    /// Account variable → JSON pointer (RFC 6901) into the answer to a login.
    pub claims: BTreeMap<String, String>,
}

impl Default for Members {
    fn default() -> Members {
        Members {
            access_token: "access_token".to_owned(),
            expires_in: "expires_in".to_owned(),
            expires_at: None,
            claims: BTreeMap::new(),
        }
    }
}

/// The token endpoint of a platform, and how to speak to it.
#[derive(Debug, Clone)]
pub struct OAuth {
    /// RFC 6749 §3.2.
    pub token_url: Url,
    /// RFC 7009.
    pub revoke_url: Option<Url>,
    /// The public client; empty where each account brings a client of its own, and for the operator's that was not read.
    pub client_id: String,
    /// The environment variables that hold the client to which people log in, where it is the operator's own.
    pub client_env: Option<ClientEnv>,
    /// The operator's own client, once it was read.
    pub own_client: Option<OwnClient>,
    /// The scopes of a login.
    pub scopes: Vec<String>,
    /// The form of a request that redeems a code.
    pub exchange_encoding: Encoding,
    /// The request that redeems a code names the login's state, too.
    pub exchange_state: bool,
    /// The form of a refresh request.
    pub refresh_encoding: Encoding,
    /// More parameters of the refresh request.
    pub refresh_params: BTreeMap<String, String>,
    /// The signing of requests with a client's own secret; none where the secret itself goes out.
    pub signed: Option<SignedRequests>,
    /// The places of an answer's parts.
    pub answer: Members,
    /// The fate of the refresh token in a refresh.
    pub renewal: Renewal,
    /// A file of certificates to trust for these endpoints instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Account variable → JSON pointer (RFC 6901) into the id token's payload.
    pub claims: BTreeMap<String, String>,
    /// The answers of the token endpoint that end the login for good.
    pub ends: Ends,
    /// The API key that an id token can be exchanged for.
    pub api_key: Option<ApiKeyExchange>,
}

/// The environment variables that hold a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEnv {
    /// The variable of its id.
    pub id: String,
    /// The variable of its secret.
    pub secret: String,
    /// The way to make one, as a clause without a full stop.
    pub help: Option<String>,
}

/// The client to which people log in is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "platform {platform} needs an OAuth client of your own: expected its id in the environment variable {} \
     and its secret in {}, found nothing in {missing}", env.id, env.secret
)]
pub struct NoClient {
    /// The platform.
    pub platform: String,
    /// The variables in which it should be.
    pub env: ClientEnv,
    /// The variable that is not set, or is empty.
    pub missing: String,
}

/// An exchange of an id token for an API key (RFC 8693).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyExchange {
    /// The platform where the key is an account.
    pub platform: String,
    /// The value of `requested_token`.
    pub requested_token: String,
}

impl OAuth {
    /// A token endpoint of which no profile says more: it is spoken to as RFC 6749 has it.
    pub fn at(token_url: Url) -> OAuth {
        OAuth {
            token_url,
            revoke_url: None,
            client_id: String::new(),
            client_env: None,
            own_client: None,
            scopes: Vec::new(),
            exchange_encoding: Encoding::Form,
            exchange_state: false,
            refresh_encoding: Encoding::Form,
            refresh_params: BTreeMap::new(),
            signed: None,
            answer: Members::default(),
            renewal: Renewal::SingleUse,
            ca_file: None,
            claims: BTreeMap::new(),
            ends: Ends::default(),
            api_key: None,
        }
    }
}

/// `[oauth]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    token_url: String,
    revoke_url: Option<String>,
    #[serde(default)]
    client_id: String,
    client_id_env: Option<String>,
    client_secret_env: Option<String>,
    client_help: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default = "form")]
    exchange_encoding: Encoding,
    #[serde(default)]
    exchange_state: bool,
    #[serde(default = "form")]
    refresh_encoding: Encoding,
    #[serde(default)]
    refresh_params: BTreeMap<String, String>,
    signed: Option<SignedRequests>,
    #[serde(default)]
    answer: Members,
    #[serde(default)]
    refresh_token: RefreshToken,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    #[serde(default, rename = "errors")]
    ends: Ends,
    api_key: Option<ApiKeyExchange>,
}

/// The answers of a token endpoint that end a login for good, beside those that do so everywhere.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ends {
    /// Error codes.
    #[serde(default, rename = "permanent")]
    pub codes: Vec<String>,
    /// HTTP statuses, whatever the answer says.
    #[serde(default)]
    pub statuses: Vec<u16>,
}

/// The two kinds of refresh tokens. The careful one is the default: taking a reusable token for a single-use one costs a
/// login now and then, the reverse costs it for certain.
#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RefreshToken {
    #[default]
    SingleUse,
    Reusable,
}

fn form() -> Encoding {
    Encoding::Form
}

impl Raw {
    pub(super) fn check(self) -> Result<OAuth, Invalid> {
        for (table, claims) in [
            ("oauth.claims", &self.claims),
            ("oauth.answer.claims", &self.answer.claims),
        ] {
            let mut claims = claims.iter();
            if let Some((name, _)) = claims.find(|(_, pointer)| !pointer.starts_with('/')) {
                let problem = "expected a JSON pointer, which starts with /";
                return Err(invalid(format!("{table}.{name}"), problem));
            }
        }
        // 408 and 429 ask for patience, and a server in trouble says nothing of a login.
        let may_end = |status: &u16| (400..=499).contains(status) && ![408, 429].contains(status);
        if !self.ends.statuses.iter().all(may_end) {
            let problem = "expected statuses from 400 to 499, and neither 408 nor 429";
            return Err(invalid("oauth.errors.statuses", problem));
        }
        let named = |field: &str, name: Option<String>| {
            let name = name.map(|name| variable::named(field, name)).transpose();
            name.map_err(|problem| invalid(format!("oauth.{field}"), problem))
        };
        let id = named("client_id_env", self.client_id_env)?;
        let secret = named("client_secret_env", self.client_secret_env)?;
        let client_env = match (id, secret) {
            (None, None) => None,
            (Some(id), Some(secret)) if self.client_id.is_empty() => Some(ClientEnv {
                id,
                secret,
                help: self.client_help,
            }),
            _ => {
                let problem = "expected client_id_env and client_secret_env together, and no client_id beside them";
                return Err(invalid("oauth.client_id_env", problem));
            }
        };
        Ok(OAuth {
            client_env,
            own_client: None,
            token_url: web_url("oauth.token_url", &self.token_url)?,
            revoke_url: self
                .revoke_url
                .map(|url| web_url("oauth.revoke_url", &url))
                .transpose()?,
            client_id: self.client_id,
            scopes: self.scopes,
            exchange_encoding: self.exchange_encoding,
            exchange_state: self.exchange_state,
            refresh_encoding: self.refresh_encoding,
            refresh_params: self.refresh_params,
            signed: self.signed,
            answer: self.answer,
            renewal: match self.refresh_token {
                RefreshToken::SingleUse => Renewal::SingleUse,
                RefreshToken::Reusable => Renewal::Reusable,
            },
            ca_file: self.ca_file,
            claims: self.claims,
            ends: self.ends,
            api_key: self.api_key,
        })
    }
}
