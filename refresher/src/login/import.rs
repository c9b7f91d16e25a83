//! Credentials in files of other programs: Codex CLI's `auth.json` in each of the forms that its releases wrote, Claude
//! Code's `.credentials.json`, Gemini CLI's `oauth_creds.json`, the files of CLIProxyAPI, sub2api and opencode, and lists
//! of API keys as JSON or CSV.
//!
//! A file's form is told by what is in it ([`recognise`]). It is read as plain JSON and picked apart by name, because a
//! deserializer's type errors quote what they found, and here that would be a token. What nobody here needs of it is kept
//! beside the account ([`template`]), so that an export writes the same file again.

mod entry;
mod fields;
mod keys;
mod recognise;
pub mod template;

use std::borrow::Cow;

use secrecy::SecretString;
use serde_json::{Map, Value};

use self::entry::Holds;
pub use self::entry::{Entry, Form};
use self::fields::{Place, kind};
pub use self::recognise::recognise;
use crate::clock::UnixMillis;
use crate::credential::{Credential, OAuthTokens};
use crate::oauth::answer::{EXPIRY_LIMIT, believed};
use crate::oauth::claims::{self, Claims, EMAIL, IDENTITY, USER};
use crate::oauth::exchange::Granted;
use crate::platform::OAuth;
use crate::refresh::schedule::LIFE_WITHOUT_EXPIRY;

/// Bytes of a file. One login has under 16 KiB; an export of some hundred of them fits.
pub const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// Credentials of one file.
pub const ENTRIES_LIMIT: usize = 10_000;
/// The beginning of a personal access token of Codex's.
const ACCESS_TOKEN_PREFIX: &str = "at-";
/// The mark that some editors put before a text (U+FEFF).
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

/// The reason why nothing was taken from the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file with nothing in it but blanks.
    #[error("expected JSON or CSV, found an empty file")]
    Blank,
    /// A file that is neither JSON nor a table of keys.
    #[error(
        "line {line}, column {column}: expected JSON, or CSV with the columns name, platform and key in its first line; \
         found a syntax error or the end of the file; was it copied whole?"
    )]
    Syntax {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
    },
    /// A row of a table has another number of cells than its first line, or is no text.
    #[error(
        "line {line}: expected a row of text with as many cells as the first line, found another"
    )]
    Row {
        /// Counts from 1.
        line: u64,
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
        /// The reason, and what to do instead.
        problem: &'static str,
    },
    /// A credential of another platform than the file's program is for.
    #[error("auth_mode {mode}: {problem}")]
    OtherPlatform {
        /// As written, or as inferred.
        mode: &'static str,
        /// Its owner, and what to do instead.
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
    /// The file holds no credential.
    #[error("expected at least one credential, found none")]
    Empty,
    /// The file holds more credentials than anybody has.
    #[error("expected at most {ENTRIES_LIMIT} credentials, found more")]
    TooMany,
}

impl Error {
    /// The platform of a login that cannot be used, where its file's form alone tells it.
    pub fn platform(&self) -> Option<&'static str> {
        matches!(self, Error::UnknownMode).then_some("codex")
    }
}

impl Entry {
    /// Reads the credential. A login is one to be refreshed by `oauth`.
    ///
    /// # Errors
    /// Naming the place and what was expected there.
    pub fn read(&self, oauth: Option<&OAuth>, now: UnixMillis) -> Result<Imported, Error> {
        let whole = Place::new(&self.entry, &self.at);
        match self.holds {
            Holds::Key(member, names) => {
                let at = self.path_of(member);
                let key = self.inner(member, &at)?.text(names)?;
                Ok(Imported::ApiKey(key.into()))
            }
            Holds::AccessToken(names) => {
                let token = whole.text(names)?;
                let fits = token.starts_with(ACCESS_TOKEN_PREFIX);
                fits.then(|| Imported::AccessToken(token.into()))
                    .ok_or_else(|| Error::Field {
                        field: whole.path(names),
                        expected: "a token that begins with at-",
                        found: "another string",
                    })
            }
            Holds::Login(member) => {
                let at = self.path_of(member);
                login(self.inner(member, &at)?, whole, oauth, now)
            }
            Holds::Nothing(mode) => Err(unsupported(mode)),
        }
    }

    /// A member of it that is an object, at that path; `""` is the entry itself.
    fn inner<'a>(&'a self, member: &str, at: &'a str) -> Result<Place<'a>, Error> {
        match self.entry.get(member) {
            _ if member.is_empty() => Ok(Place::new(&self.entry, at)),
            Some(Value::Object(inner)) => Ok(Place::new(inner, at)),
            other => Err(Error::Field {
                field: at.to_owned(),
                expected: "an object with the tokens of a login, or a file of another form that this version knows (Codex \
                           CLI, Claude Code, Gemini CLI, CLIProxyAPI, sub2api, opencode, a list of keys)",
                found: kind(other),
            }),
        }
    }

    /// The path of a member of it, for messages.
    fn path_of(&self, member: &str) -> Cow<'_, str> {
        match (self.at.as_str(), member) {
            (at, "") => Cow::Borrowed(at),
            ("", member) => Cow::Owned(member.to_owned()),
            (at, member) => Cow::Owned(format!("{at}.{member}")),
        }
    }
}

fn unsupported(mode: &'static str) -> Error {
    let problem = match mode {
        "agentIdentity" => {
            "it signs every request with a private key instead of sending a token, which a gateway cannot do for it"
        }
        "bedrockApiKey" => {
            let problem = "it is a credential of Amazon Bedrock, not of OpenAI; add it as an API key of a platform of your own";
            return Error::OtherPlatform { mode, problem };
        }
        "chatgptAuthTokens" => {
            "another program owns this login and refreshes it, and Codex CLI only borrows it"
        }
        _ => "its headers come from another program, so there is no credential here",
    };
    Error::Unsupported { mode, problem }
}

/// The login whose tokens are in `tokens`; `whole` is what is around them.
fn login(
    tokens: Place<'_>,
    whole: Place<'_>,
    oauth: Option<&OAuth>,
    now: UnixMillis,
) -> Result<Imported, Error> {
    if let Some(oauth) = oauth {
        check_provenance(tokens, oauth)?;
    }
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
    let mut vars = oauth
        .map(|oauth| claims::vars(&oauth.claims, id.as_ref(), &access))
        .unwrap_or_default();
    // The file's own id goes before the claim: Codex CLI keeps it over a change of workspace.
    if let Some(account) = tokens.optional(fields::ACCOUNT)? {
        vars.insert(IDENTITY.to_owned(), account);
    }
    // So CLIProxyAPI names a person at Anthropic, who may be in several organizations, and sub2api beside the tokens.
    let extra = whole.get("extra").and_then(Value::as_object);
    let extra = extra.map(|extra| Place::new(extra, "extra"));
    for place in [Some(tokens), extra].into_iter().flatten() {
        for (names, var) in [
            (fields::ORGANIZATION, IDENTITY),
            (fields::USER, USER),
            (fields::EMAIL, EMAIL),
        ] {
            if let Some(told) = place.optional(names)? {
                vars.entry(var.to_owned()).or_insert(told);
            }
        }
    }
    let told = tokens.time(fields::EXPIRES)?;
    let last_refresh = whole.time(fields::LAST_REFRESH)?;
    let credential_expires_at = Claims::decode_unverified(&access)
        .and_then(|claims| claims.expiry())
        .map(|end| believed(end, told, now))
        .or(told)
        .or_else(|| Some(last_refresh?.plus(LIFE_WITHOUT_EXPIRY)))
        .map(|end| end.min(now.plus(EXPIRY_LIMIT)));
    let login_ends_at = Claims::decode_unverified(&refresh).and_then(|claims| claims.expiry());
    Ok(Imported::Login(Box::new(Granted {
        credential: Credential::OAuth(OAuthTokens {
            access,
            refresh,
            id,
            client: oauth.and_then(|oauth| oauth.own_client.clone()),
        }),
        credential_expires_at,
        login_ends_at: login_ends_at.filter(|end| *end > now),
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

/// An object of the file.
fn object(value: Value, at: &str) -> Result<Map<String, Value>, Error> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Error::Field {
            field: at.to_owned(),
            expected: "an object",
            found: kind(Some(&other)),
        }),
    }
}

#[cfg(test)]
mod tests;
