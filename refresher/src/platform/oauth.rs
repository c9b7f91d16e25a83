//! `[oauth]` of a profile: the token endpoint, its client, and what its tokens are like.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use super::{Invalid, invalid, web_url};
use crate::credential::Renewal;

/// The form of a token request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    Form,
}

/// The token endpoint of a platform, and how to speak to it.
#[derive(Debug, Clone)]
pub struct OAuth {
    /// RFC 6749 §3.2.
    pub token_url: Url,
    /// RFC 7009.
    pub revoke_url: Option<Url>,
    /// The public client; empty where each account brings a client of its own.
    pub client_id: String,
    /// The scopes of a login.
    pub scopes: Vec<String>,
    /// The form of a request that redeems a code.
    pub exchange_encoding: Encoding,
    /// The form of a refresh request.
    pub refresh_encoding: Encoding,
    /// More parameters of the refresh request.
    pub refresh_params: BTreeMap<String, String>,
    /// The fate of the refresh token in a refresh.
    pub renewal: Renewal,
    /// A file of certificates to trust for these endpoints instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Account variable → JSON pointer (RFC 6901) into the id token's payload.
    pub claims: BTreeMap<String, String>,
    /// Error codes of the token endpoint that end the login for good.
    pub permanent_errors: Vec<String>,
    /// The API key that an id token can be exchanged for.
    pub api_key: Option<ApiKeyExchange>,
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

/// `[oauth]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    token_url: String,
    revoke_url: Option<String>,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default = "form")]
    exchange_encoding: Encoding,
    #[serde(default = "form")]
    refresh_encoding: Encoding,
    #[serde(default)]
    refresh_params: BTreeMap<String, String>,
    #[serde(default)]
    refresh_token: RefreshToken,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    #[serde(default)]
    errors: Errors,
    api_key: Option<ApiKeyExchange>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Errors {
    #[serde(default)]
    permanent: Vec<String>,
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
        for (name, pointer) in &self.claims {
            if !pointer.starts_with('/') {
                let problem = "expected a JSON pointer, which starts with /";
                return Err(invalid(format!("oauth.claims.{name}"), problem));
            }
        }
        Ok(OAuth {
            token_url: web_url("oauth.token_url", &self.token_url)?,
            revoke_url: self
                .revoke_url
                .map(|url| web_url("oauth.revoke_url", &url))
                .transpose()?,
            client_id: self.client_id,
            scopes: self.scopes,
            exchange_encoding: self.exchange_encoding,
            refresh_encoding: self.refresh_encoding,
            refresh_params: self.refresh_params,
            renewal: match self.refresh_token {
                RefreshToken::SingleUse => Renewal::SingleUse,
                RefreshToken::Reusable => Renewal::Reusable,
            },
            ca_file: self.ca_file,
            claims: self.claims,
            permanent_errors: self.errors.permanent,
            api_key: self.api_key,
        })
    }
}
