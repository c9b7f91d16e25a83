//! Files of programs that hold a login of Codex CLI's in a form of their own: CLIProxyAPI's (the tokens alone), sub2api's
//! export (a list of accounts), opencode's (an entry for each platform), and those that write `accessToken`.

use serde_json::Value;

use super::Error;
use super::fields::{self, Names, Place, kind};

/// A credential in such a file.
pub enum Found<'a> {
    /// The tokens of a login.
    Tokens(Place<'a>),
    /// An API key.
    ApiKey(String),
}

/// The kind of a login in files that say it.
const OAUTH: &str = "oauth";
const TYPE: Names = &["type"];
const PLATFORM: Names = &["platform"];
const KEY: Names = &["key"];

/// The credential of a platform that such files call by one of `known_as`; `None` in a file of another form.
///
/// # Errors
/// If it is another platform's, or one of several.
pub fn find<'a>(file: Place<'a>, known_as: &[String]) -> Result<Option<Found<'a>>, Error> {
    if matches!(file.get("tokens"), Some(Value::Object(_))) {
        return Ok(None);
    }
    // An answer of sub2api's own API, as it stands.
    let export = file.object("data", "data").ok().flatten().unwrap_or(file);
    if let Some(Value::Array(accounts)) = export.get("accounts") {
        return exported(accounts, known_as).map(Some);
    }
    if file.has(fields::ACCESS) || file.has(fields::REFRESH) {
        return flat(file, known_as).map(Some);
    }
    for name in known_as {
        if let Some(Value::Object(entry)) = file.get(name) {
            return entry_of(Place::new(entry, "the platform's entry")).map(Some);
        }
    }
    Ok(None)
}

/// CLIProxyAPI's file says in `type` of which platform it is.
fn flat<'a>(file: Place<'a>, known_as: &[String]) -> Result<Found<'a>, Error> {
    let of = file.optional(TYPE)?;
    match of.filter(|of| of != OAUTH && !known_as.contains(of)) {
        None => Ok(Found::Tokens(file)),
        Some(_) => Err(Error::OtherPlatform {
            field: "type".to_owned(),
            known_as: known_as.to_vec(),
        }),
    }
}

/// sub2api exports many accounts of many platforms.
fn exported<'a>(accounts: &'a [Value], known_as: &[String]) -> Result<Found<'a>, Error> {
    let is_ours = |account: &Place<'_>| {
        let platform = account.optional(PLATFORM).ok().flatten();
        platform.is_some_and(|platform| known_as.contains(&platform))
    };
    let objects = accounts.iter().filter_map(Value::as_object);
    let ours = objects.map(|account| Place::new(account, "accounts[]"));
    let ours: Vec<_> = ours.filter(is_ours).collect();
    let [account] = ours[..] else {
        return Err(match ours.len() {
            0 => Error::OtherPlatform {
                field: "accounts[].platform".to_owned(),
                known_as: known_as.to_vec(),
            },
            found => Error::Several { found },
        });
    };
    if account.text(TYPE)? != OAUTH {
        return Err(Error::Field {
            field: account.path(TYPE),
            expected: "oauth, which is a login; an API key is added as one",
            found: "another type",
        });
    }
    let credentials = account.object("credentials", "accounts[].credentials")?;
    credentials.map(Found::Tokens).ok_or_else(|| Error::Field {
        field: account.path(&["credentials"]),
        expected: "an object",
        found: kind(account.get("credentials")),
    })
}

/// opencode's entry of a platform.
fn entry_of(entry: Place<'_>) -> Result<Found<'_>, Error> {
    match entry.text(TYPE)?.as_str() {
        OAUTH => Ok(Found::Tokens(entry)),
        "api" => Ok(Found::ApiKey(entry.text(KEY)?)),
        _ => Err(Error::Field {
            field: entry.path(TYPE),
            expected: "oauth or api",
            found: "another type",
        }),
    }
}
