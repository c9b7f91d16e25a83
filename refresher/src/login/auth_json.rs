//! A login in another program's credential file: Codex CLI's `auth.json` in each of the forms that its releases wrote, and
//! the files of those who took Codex CLI's login up (`others`).
//!
//! The file is read as plain JSON and picked apart by name, because a deserializer's type errors quote what they found,
//! and here that would be a token.

mod fields;
mod others;

use secrecy::SecretString;
use serde_json::{Map, Value};

use self::fields::{Place, kind};
use self::others::Found;
use crate::clock::UnixMillis;
use crate::credential::{Credential, OAuthTokens};
use crate::oauth::answer::EXPIRY_LIMIT;
use crate::oauth::claims::{self, Claims, EMAIL, IDENTITY};
use crate::oauth::exchange::Granted;
use crate::platform::OAuth;
use crate::platform::flow::Import;
use crate::refresh::schedule::LIFE_WITHOUT_EXPIRY;

/// Bytes of a credential file. Real ones have under 16 KiB.
pub const FILE_LIMIT: u64 = 256 * 1024;
/// The beginning of a personal access token.
const ACCESS_TOKEN_PREFIX: &str = "at-";
/// The member in which Claude Code keeps its login.
const CLAUDE_CODE: &str = "claudeAiOauth";
/// What some editors put before a text (U+FEFF).
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The credential in the file.
#[derive(Debug)]
pub enum Imported {
    /// A login, to be kept fresh.
    Login(Box<Granted>),
    /// A personal access token: used like a login, never refreshed.
    AccessToken(SecretString),
    /// An API key.
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
        field: String,
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
        "{field}: expected issuer {expected_issuer} and client {expected_client}, as the platform's profile has them, \
         found others; the refresh token is worth nothing there. Use a profile with that issuer"
    )]
    ForeignIssuer {
        /// The place in the file.
        field: String,
        /// The profile's.
        expected_issuer: String,
        /// The profile's.
        expected_client: String,
    },
    /// The file is of another platform.
    #[error(
        "{field}: expected a login of {}, found one of another platform; --platform says which one a file is of",
        known_as.join(" or ")
    )]
    OtherPlatform {
        /// The place in the file.
        field: String,
        /// The names that the profile has for its platform.
        known_as: Vec<String>,
    },
    /// The login is Claude Code's.
    #[error(
        "it is a login of Claude Code's, expected one of Codex's; Latchkey takes no Claude subscription over. Add an API key \
         of Anthropic's instead (platform anthropic)"
    )]
    ClaudeCode,
    /// The file holds more than one account.
    #[error(
        "accounts: expected one account of the platform, found {found}; export them one by one"
    )]
    Several {
        /// How many.
        found: usize,
    },
}

/// Reads the text of a credential file whose login is to be refreshed by `oauth`.
///
/// # Errors
/// Naming the place and what was expected there.
pub fn read(
    text: &str,
    oauth: &OAuth,
    import: &Import,
    now: UnixMillis,
) -> Result<Imported, Error> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let file: Value = serde_json::from_str(text).map_err(|error| Error::Syntax {
        line: error.line(),
        column: error.column(),
    })?;
    let file = file.as_object().ok_or(Error::Field {
        field: "the file".to_owned(),
        expected: "an object",
        found: kind(Some(&file)),
    })?;
    let whole = Place::new(file, "");
    match others::find(whole, &import.known_as)? {
        Some(Found::Tokens(tokens)) => return login(tokens, whole, oauth, now),
        Some(Found::ApiKey(key)) => return Ok(Imported::ApiKey(key.into())),
        None => {}
    }
    if file.contains_key(CLAUDE_CODE) {
        return Err(Error::ClaudeCode);
    }
    match mode(file)? {
        "chatgpt" => match file.get("tokens") {
            Some(Value::Object(tokens)) => login(Place::new(tokens, "tokens"), whole, oauth, now),
            other => Err(Error::Field {
                field: "tokens".to_owned(),
                expected: "an object, as Codex CLI writes it once it is logged in; or the file of CLIProxyAPI, sub2api or \
                           opencode",
                found: kind(other),
            }),
        },
        "apikey" => Ok(Imported::ApiKey(whole.text(&["OPENAI_API_KEY"])?.into())),
        "personalAccessToken" => {
            let token = whole.text(&["personal_access_token"])?;
            let fits = token.starts_with(ACCESS_TOKEN_PREFIX);
            fits.then(|| Imported::AccessToken(token.into()))
                .ok_or(Error::Field {
                    field: "personal_access_token".to_owned(),
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
            field: "auth_mode".to_owned(),
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

/// The login whose tokens are in `tokens`; `whole` is the file around them.
fn login(
    tokens: Place<'_>,
    whole: Place<'_>,
    oauth: &OAuth,
    now: UnixMillis,
) -> Result<Imported, Error> {
    check_provenance(tokens, oauth)?;
    let access = SecretString::from(tokens.text(fields::ACCESS)?);
    let refresh = SecretString::from(tokens.text(fields::REFRESH)?);
    let id = tokens.optional(fields::ID)?.map(SecretString::from);
    if id
        .as_ref()
        .is_some_and(|id| Claims::decode_unverified(id).is_none())
    {
        return Err(Error::Field {
            field: tokens.path(fields::ID),
            expected: "a JSON Web Token of three parts",
            found: "another string",
        });
    }
    let mut vars = claims::vars(&oauth.claims, id.as_ref(), &access);
    // The file's own id goes before the claim: Codex CLI keeps it over a change of workspace.
    if let Some(account) = tokens.optional(fields::ACCOUNT)? {
        vars.insert(IDENTITY.to_owned(), account);
    }
    if let Some(email) = tokens.optional(fields::EMAIL)? {
        vars.entry(EMAIL.to_owned()).or_insert(email);
    }
    let told = tokens.time(fields::EXPIRES)?;
    let last_refresh = whole.time(fields::LAST_REFRESH)?;
    let credential_expires_at = Claims::decode_unverified(&access)
        .and_then(|claims| claims.expiry())
        .or(told)
        .or_else(|| Some(last_refresh?.plus(LIFE_WITHOUT_EXPIRY)))
        .map(|end| end.min(now.plus(EXPIRY_LIMIT)));
    Ok(Imported::Login(Box::new(Granted {
        credential: Credential::OAuth(OAuthTokens {
            access,
            refresh,
            id,
        }),
        credential_expires_at,
        vars,
    })))
}

/// Refuses a refresh token that another client got, or that is for another server. Codex CLI refreshes at the issuer that
/// the file names.
fn check_provenance(tokens: Place<'_>, oauth: &OAuth) -> Result<(), Error> {
    let token_url = oauth.token_url.as_str();
    let foreign = |field: String| Error::ForeignIssuer {
        field,
        expected_issuer: token_url.trim_end_matches("/oauth/token").to_owned(),
        expected_client: oauth.client_id.clone(),
    };
    if let Some(client) = tokens.optional(fields::CLIENT)?
        && client != oauth.client_id
    {
        return Err(foreign(tokens.path(fields::CLIENT)));
    }
    let Some(provenance) = tokens.object("oauth_provenance", "tokens.oauth_provenance")? else {
        return Ok(());
    };
    let (issuer, client) = (
        provenance.text(&["issuer"])?,
        provenance.text(fields::CLIENT)?,
    );
    if format!("{}/oauth/token", issuer.trim_end_matches('/')) == token_url
        && client == oauth.client_id
    {
        return Ok(());
    }
    Err(foreign("tokens.oauth_provenance".to_owned()))
}

#[cfg(test)]
mod tests;
