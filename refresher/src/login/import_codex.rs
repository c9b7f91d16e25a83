//! Codex CLI's `auth.json` in each of the forms that its releases wrote.
//!
//! The file is read as plain JSON and picked apart by name, because a deserializer's type errors quote what they found,
//! and here that would be a token.

use std::collections::BTreeMap;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::clock::UnixMillis;
use crate::credential::{Credential, OAuthTokens};
use crate::oauth::answer::EXPIRY_LIMIT;
use crate::oauth::claims::{self, Claims};
use crate::oauth::exchange::Granted;
use crate::platform::OAuth;
use crate::refresh::schedule::LIFE_WITHOUT_EXPIRY;

/// The platform that Codex CLI logs in to.
pub const PLATFORM: &str = "codex";
/// The platform of the API keys that Codex CLI stores.
pub const KEY_PLATFORM: &str = "openai";
/// Bytes of an `auth.json`. Real ones have under 16 KiB.
pub const FILE_LIMIT: u64 = 256 * 1024;
/// The beginning of a personal access token.
const ACCESS_TOKEN_PREFIX: &str = "at-";
/// The variable that `tokens.account_id` is.
const ACCOUNT_ID: &str = "account_id";

/// The credential in the file.
#[derive(Debug)]
pub enum Imported {
    /// A ChatGPT login, to be kept fresh.
    Login(Box<Granted>),
    /// A personal access token: used like a ChatGPT login, never refreshed.
    AccessToken(SecretString),
    /// An API key of the OpenAI platform.
    ApiKey(SecretString),
}

/// Why nothing was taken from the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not JSON.
    #[error(
        "line {line}, column {column}: expected JSON, found a syntax error or the end of the file; was it copied whole?"
    )]
    Syntax {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
    },
    /// A field is missing or is something else.
    #[error("{field}: expected {expected}, found {found}")]
    Field {
        /// Its path in the file.
        field: &'static str,
        /// The form that it should have.
        expected: &'static str,
        /// The kind of thing that it is; never its value.
        found: &'static str,
    },
    /// A credential that Latchkey cannot use.
    #[error("auth_mode {mode}: {problem}")]
    Unsupported {
        /// As written, or as inferred.
        mode: &'static str,
        /// Why, and what to do instead.
        problem: &'static str,
    },
    /// A mode that this version does not know.
    #[error(
        "auth_mode: expected one that this version knows (chatgpt, apikey, personalAccessToken), found another"
    )]
    UnknownMode,
    /// The login belongs to another authorization server, or another client of it.
    #[error(
        "tokens.oauth_provenance: expected issuer {expected_issuer} and client {expected_client}, as the platform's \
         profile has them, found others; the refresh token is worth nothing there. Use a profile with that issuer"
    )]
    ForeignIssuer {
        /// The profile's.
        expected_issuer: String,
        /// The profile's.
        expected_client: String,
    },
}

/// Reads the text of an `auth.json` whose login is to be refreshed by `oauth`.
///
/// # Errors
/// Naming the place and what was expected there.
pub fn read(text: &str, oauth: &OAuth, now: UnixMillis) -> Result<Imported, Error> {
    let file: Value = serde_json::from_str(text).map_err(|error| Error::Syntax {
        line: error.line(),
        column: error.column(),
    })?;
    let file = file.as_object().ok_or(Error::Field {
        field: "the file",
        expected: "an object",
        found: kind(Some(&file)),
    })?;
    match mode(file)? {
        "chatgpt" => Ok(Imported::Login(Box::new(login(file, oauth, now)?))),
        "apikey" => Ok(Imported::ApiKey(
            text_at(file, "OPENAI_API_KEY", "OPENAI_API_KEY")?.into(),
        )),
        "personalAccessToken" => {
            let token = text_at(file, "personal_access_token", "personal_access_token")?;
            let fits = token.starts_with(ACCESS_TOKEN_PREFIX);
            fits.then(|| Imported::AccessToken(token.into()))
                .ok_or(Error::Field {
                    field: "personal_access_token",
                    expected: "a token that begins with at-",
                    found: "another string",
                })
        }
        mode => Err(unsupported(mode)),
    }
}

/// The file's `auth_mode`, or what Codex CLI infers without one.
fn mode(file: &Map<String, Value>) -> Result<&'static str, Error> {
    const MODES: [&str; 7] = [
        "apikey",
        "chatgpt",
        "chatgptAuthTokens",
        "headers",
        "agentIdentity",
        "personalAccessToken",
        "bedrockApiKey",
    ];
    let has = |name: &str| file.get(name).is_some_and(|value| !value.is_null());
    match file.get("auth_mode") {
        Some(Value::String(mode)) => MODES
            .into_iter()
            .find(|known| known == mode)
            .ok_or(Error::UnknownMode),
        None | Some(Value::Null) => Ok(if has("personal_access_token") {
            "personalAccessToken"
        } else if has("bedrock_api_key") || has("bedrock_access_keys") {
            "bedrockApiKey"
        } else if has("OPENAI_API_KEY") {
            "apikey"
        } else if has("agent_identity") && !has("tokens") {
            "agentIdentity"
        } else {
            "chatgpt"
        }),
        other => Err(Error::Field {
            field: "auth_mode",
            expected: "a string",
            found: kind(other),
        }),
    }
}

fn unsupported(mode: &'static str) -> Error {
    let problem = match mode {
        "agentIdentity" => {
            "it signs every request with a private key instead of sending a token, which a gateway cannot do for it"
        }
        "bedrockApiKey" => {
            "it is a credential of Amazon Bedrock, not of OpenAI; add it as an API key of a platform of your own"
        }
        "chatgptAuthTokens" => {
            "another program owns this login and refreshes it, and Codex CLI only borrows it"
        }
        _ => "its headers come from another program, so there is no credential here",
    };
    Error::Unsupported { mode, problem }
}

fn login(file: &Map<String, Value>, oauth: &OAuth, now: UnixMillis) -> Result<Granted, Error> {
    let tokens = match file.get("tokens") {
        Some(Value::Object(tokens)) => tokens,
        other => {
            return Err(Error::Field {
                field: "tokens",
                expected: "an object; log Codex CLI in first",
                found: kind(other),
            });
        }
    };
    check_provenance(tokens, oauth)?;
    let id = SecretString::from(text_at(tokens, "id_token", "tokens.id_token")?);
    let access = SecretString::from(text_at(tokens, "access_token", "tokens.access_token")?);
    let refresh = SecretString::from(text_at(tokens, "refresh_token", "tokens.refresh_token")?);
    if Claims::decode_unverified(&id).is_none() {
        let expected = "a JSON Web Token of three parts";
        return Err(Error::Field {
            field: "tokens.id_token",
            expected,
            found: "another string",
        });
    }
    let mut vars = claims::vars(&oauth.claims, Some(&id), &access);
    account_id(tokens, &mut vars)?;
    let last_refresh = last_refresh(file)?;
    let credential_expires_at = Claims::decode_unverified(&access)
        .and_then(|claims| claims.expiry())
        .or_else(|| Some(last_refresh?.plus(LIFE_WITHOUT_EXPIRY)))
        .map(|end| end.min(now.plus(EXPIRY_LIMIT)));
    Ok(Granted {
        credential: Credential::OAuth(OAuthTokens {
            access,
            refresh,
            id: Some(id),
        }),
        credential_expires_at,
        vars,
    })
}

/// The file's own id goes before the claim: Codex CLI keeps it over a change of workspace.
fn account_id(
    tokens: &Map<String, Value>,
    vars: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    match tokens.get(ACCOUNT_ID) {
        None | Some(Value::Null) => {}
        Some(_) => {
            vars.insert(
                ACCOUNT_ID.into(),
                text_at(tokens, ACCOUNT_ID, "tokens.account_id")?,
            );
        }
    }
    Ok(())
}

/// Codex CLI refreshes at the issuer that the file names.
fn check_provenance(tokens: &Map<String, Value>, oauth: &OAuth) -> Result<(), Error> {
    let provenance = match tokens.get("oauth_provenance") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(provenance)) => provenance,
        other => {
            let field = "tokens.oauth_provenance";
            return Err(Error::Field {
                field,
                expected: "an object",
                found: kind(other),
            });
        }
    };
    let issuer = text_at(provenance, "issuer", "tokens.oauth_provenance.issuer")?;
    let client = text_at(provenance, "client_id", "tokens.oauth_provenance.client_id")?;
    let token_url = oauth.token_url.as_str();
    if format!("{}/oauth/token", issuer.trim_end_matches('/')) == token_url
        && client == oauth.client_id
    {
        return Ok(());
    }
    Err(Error::ForeignIssuer {
        expected_issuer: token_url.trim_end_matches("/oauth/token").to_owned(),
        expected_client: oauth.client_id.clone(),
    })
}

fn last_refresh(file: &Map<String, Value>) -> Result<Option<UnixMillis>, Error> {
    if file.get("last_refresh").is_none_or(Value::is_null) {
        return Ok(None);
    }
    let text = text_at(file, "last_refresh", "last_refresh")?;
    let time: Timestamp = text.parse().map_err(|_| Error::Field {
        field: "last_refresh",
        expected: "a time like 2026-11-21T21:52:22Z",
        found: "another string",
    })?;
    Ok(Some(UnixMillis(time.as_millisecond().max(0))))
}

/// A string of visible ASCII, as tokens and ids are, not empty.
fn text_at(object: &Map<String, Value>, name: &str, field: &'static str) -> Result<String, Error> {
    let expected = "a string of visible ASCII";
    match object.get(name) {
        Some(Value::String(text)) if text.is_empty() => Err(Error::Field {
            field,
            expected,
            found: "an empty one",
        }),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(text.clone())
        }
        Some(Value::String(_)) => Err(Error::Field {
            field,
            expected,
            found: "other characters in it",
        }),
        other => Err(Error::Field {
            field,
            expected,
            found: kind(other),
        }),
    }
}

fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}

#[cfg(test)]
mod tests;
