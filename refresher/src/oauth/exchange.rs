//! Redeems an authorization code for tokens (RFC 6749 §4.1.3), and reads what a token endpoint grants to a login.

use std::collections::BTreeMap;

use latchkey::header::MAX_VALUE_BYTES;
use latchkey::snapshot::path;
use oauth2::{AuthorizationCode, CsrfToken, PkceCodeVerifier, RedirectUrl};
use secrecy::SecretString;

use super::answer::{self, Answer, Grant};
use super::claims;
use super::http::{CallError, Request};
use crate::clock::UnixMillis;
use crate::credential::{ClientCredentials, Credential, OAuthTokens};
use crate::platform::{OAuth, Profile};

/// A finished login.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The proof of the account.
    pub credential: Credential,
    /// The end of the access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// The end of the login for good, where that is known.
    pub login_ends_at: Option<UnixMillis>,
    /// The profile's claims.
    pub vars: BTreeMap<String, String>,
}

/// The reason why there are no tokens. Codes are single-use, so the cure is always a new login.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform has no `[oauth]`.
    #[error("platform {0} has no [oauth] in its profile; its accounts are API keys")]
    NoOAuth(String),
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The token endpoint refused the code.
    #[error("the token endpoint refused the login: {0}")]
    Refused(String),
    /// Something before the token endpoint, or another server, answered.
    #[error(
        "expected the token endpoint's answer in JSON, found a page (HTTP {0}); check token_url in [oauth] of the \
         platform's profile, and the proxies on the way to it"
    )]
    Page(u16),
    /// A token that is needed is not in the answer.
    #[error(
        "expected {0} in the token endpoint's answer, found none; check [oauth] of the platform's profile"
    )]
    Missing(&'static str),
    /// The access token is longer than a header's value may be.
    #[error(
        "expected an access_token of at most {MAX_VALUE_BYTES} bytes, as a header carries it; the token endpoint granted a \
         longer one"
    )]
    TooLong,
    /// A claim that the platform's headers need is not in the tokens.
    #[error("{}", missing_var(.0))]
    MissingVar(String),
    /// A claim that the platform's paths need cannot stand in one.
    #[error(
        "expected the claim {0} to be 1 to 256 visible ASCII characters without / \\ ? # and %, as it goes into the \
         platform's paths, found another value; point [oauth.claims] of its profile elsewhere"
    )]
    UnfitVar(String),
}

fn missing_var(name: &str) -> String {
    format!(
        "expected the claim {name} in the tokens, found none; this login has no account at the platform, or \
         [oauth.claims] of its profile points elsewhere"
    )
}

/// The request that redeems `code`; `state`: the login's, where it has one.
pub fn request(
    oauth: &OAuth,
    code: &AuthorizationCode,
    redirect_uri: &RedirectUrl,
    verifier: &PkceCodeVerifier,
    state: Option<&CsrfToken>,
) -> Request {
    let request = Request::new(&oauth.token_url, oauth.exchange_encoding)
        .field("grant_type", "authorization_code")
        .field("client_id", oauth.client_id.as_str())
        .field("code", code.secret().as_str())
        .field("redirect_uri", redirect_uri.as_str())
        .field("code_verifier", verifier.secret().as_str());
    let request = match &oauth.own_client {
        Some(client) => request.field("client_secret", client.secret.clone()),
        None => request,
    };
    match state.filter(|_| oauth.exchange_state) {
        Some(state) => request.field("state", state.secret().as_str()),
        None => request,
    }
}

/// Reads the answer to a request for a login's first tokens.
///
/// # Errors
/// If there is none, it is a refusal, or it has no tokens.
pub fn read(
    oauth: &OAuth,
    answer: Result<Answer, CallError>,
    now: UnixMillis,
) -> Result<Granted, Error> {
    let Grant {
        access,
        refresh,
        id,
        login_ends_at,
        is_too_long,
        vars: told,
    } = granted(oauth, answer, now)?.ok_or(Error::Missing("access_token and refresh_token"))?;
    if is_too_long {
        return Err(Error::TooLong);
    }
    let (access, credential_expires_at) = access.ok_or(Error::Missing("access_token"))?;
    let refresh = refresh.ok_or(Error::Missing("refresh_token"))?;
    let mut vars = claims::vars(&oauth.claims, id.as_ref(), &access);
    vars.extend(told);
    Ok(Granted {
        credential: Credential::OAuth(OAuthTokens {
            access,
            refresh,
            id,
            client: oauth.own_client.clone(),
        }),
        credential_expires_at,
        login_ends_at,
        vars,
    })
}

/// Reads the answer to a client's request for its first token, which makes `client` of it.
///
/// # Errors
/// If there is none, it is a refusal, or it has no token.
pub fn read_client(
    oauth: &OAuth,
    client: impl FnOnce(SecretString) -> ClientCredentials,
    answer: Result<Answer, CallError>,
    now: UnixMillis,
) -> Result<Granted, Error> {
    let grant = granted(oauth, answer, now)?;
    if grant.as_ref().is_some_and(|grant| grant.is_too_long) {
        return Err(Error::TooLong);
    }
    let (access, told) = match grant {
        Some(grant) => (grant.access, grant.vars),
        None => (None, BTreeMap::new()),
    };
    let (access, credential_expires_at) = access.ok_or(Error::Missing("access_token"))?;
    let mut vars = claims::vars(&oauth.claims, None, &access);
    vars.extend(told);
    Ok(Granted {
        vars,
        credential: Credential::Client(client(access)),
        credential_expires_at,
        login_ends_at: None,
    })
}

/// The tokens of an answer that is no refusal; `None` if it has none.
fn granted(
    oauth: &OAuth,
    answer: Result<Answer, CallError>,
    now: UnixMillis,
) -> Result<Option<Grant>, Error> {
    let answer = answer?;
    let refused = || Error::Refused(answer::refusal_by(&answer, &oauth.ends.codes));
    if !(200..300).contains(&answer.status) {
        return Err(refused());
    }
    if answer::is_page(&answer) {
        return Err(Error::Page(answer.status));
    }
    let body: serde_json::Map<_, _> = serde_json::from_slice(&answer.body).unwrap_or_default();
    let grant = answer::grant(&body, &oauth.answer, now);
    // Some servers answer 200 and put the error into the body.
    if grant.is_none() && answer::error_code_of(&answer).is_some() {
        return Err(refused());
    }
    Ok(grant)
}

/// Checks that an account has what the platform's headers are made of.
///
/// # Errors
/// Naming the first that is missing, or that cannot stand where it must.
pub fn require_vars(profile: &Profile, vars: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut required = profile.required_vars().into_iter();
    if let Some(name) = required.find(|name| !vars.contains_key(*name)) {
        return Err(Error::MissingVar(name.to_owned()));
    }
    let endpoints = profile.record.endpoints.iter();
    let mut in_paths = endpoints.flat_map(|endpoint| endpoint.path.vars());
    let is_unfit = |name: &&str| vars.get(*name).is_some_and(|value| !path::fits(value));
    match in_paths.find(is_unfit) {
        Some(name) => Err(Error::UnfitVar(name.to_owned())),
        None => Ok(()),
    }
}
