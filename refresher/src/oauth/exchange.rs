//! Redeems an authorization code for tokens (RFC 6749 §4.1.3), as a form, the way Codex CLI does.

use std::collections::BTreeMap;

use oauth2::{AuthorizationCode, PkceCodeVerifier, RedirectUrl};

use super::answer::{self, Grant};
use super::claims;
use super::http::{CallError, HttpClient};
use crate::clock::UnixMillis;
use crate::credential::OAuthTokens;
use crate::platform::Profile;

/// A finished login.
#[derive(Debug, Clone)]
pub struct Login {
    /// Its tokens.
    pub tokens: OAuthTokens,
    /// When the access token expires, where that is known.
    pub expires_at: Option<UnixMillis>,
    /// The profile's claims.
    pub vars: BTreeMap<String, String>,
}

/// Why a code brought no login. Codes are single-use, so the cure is always a new login.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform has no `[oauth]`.
    #[error("platform {0} has no [oauth] in its profile; its accounts are API keys")]
    NoOAuth(String),
    /// No answer.
    #[error("{0}; log in again")]
    Call(#[from] CallError),
    /// The token endpoint refused the code.
    #[error(
        "the token endpoint refused the login: {0}; log in again, and finish it within a few minutes"
    )]
    Refused(String),
    /// A token that is needed is not in the answer.
    #[error(
        "expected {0} in the token endpoint's answer, found none; check [oauth] of the platform's profile"
    )]
    Missing(&'static str),
    /// A claim that the platform's headers need is not in the tokens.
    #[error("{}", missing_var(.0))]
    MissingVar(String),
}

fn missing_var(name: &str) -> String {
    format!(
        "expected the claim {name} in the tokens, found none; this login has no account at the platform, or \
         [oauth.claims] of its profile points elsewhere"
    )
}

/// Redeems `code`.
///
/// # Errors
/// If the platform refuses it, does not answer, or gives less than its profile needs.
pub async fn exchange(
    http: &HttpClient,
    profile: &Profile,
    code: &AuthorizationCode,
    redirect_uri: &RedirectUrl,
    verifier: &PkceCodeVerifier,
    now: UnixMillis,
) -> Result<Login, Error> {
    let oauth = profile
        .oauth
        .as_ref()
        .ok_or_else(|| Error::NoOAuth(profile.id.clone()))?;
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", &oauth.client_id),
        ("code", code.secret()),
        ("redirect_uri", redirect_uri.as_str()),
        ("code_verifier", verifier.secret()),
    ];
    let answered = http.post_form(&oauth.token_url, &fields).await?;
    if !(200..300).contains(&answered.status) {
        return Err(Error::Refused(answer::refusal(&answered)));
    }
    let body: serde_json::Map<_, _> = serde_json::from_slice(&answered.body).unwrap_or_default();
    let Some(Grant {
        access,
        refresh,
        id,
    }) = answer::grant(&body, now)
    else {
        return Err(Error::Missing("access_token and refresh_token"));
    };
    let (access, expires_at) = access.ok_or(Error::Missing("access_token"))?;
    let refresh = refresh.ok_or(Error::Missing("refresh_token"))?;
    let vars = claims::vars(&oauth.claims, id.as_ref(), &access);
    require_vars(profile, &vars)?;
    Ok(Login {
        tokens: OAuthTokens {
            access,
            refresh,
            id,
        },
        expires_at,
        vars,
    })
}

/// Checks that an account has what the platform's headers are made of.
///
/// # Errors
/// Naming the first that is missing.
pub fn require_vars(profile: &Profile, vars: &BTreeMap<String, String>) -> Result<(), Error> {
    match profile
        .required_vars()
        .into_iter()
        .find(|name| !vars.contains_key(*name))
    {
        Some(name) => Err(Error::MissingVar(name.to_owned())),
        None => Ok(()),
    }
}
