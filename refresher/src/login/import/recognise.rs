//! Recognises a file by what is in it, and finds its credentials. Nothing is judged here: whose platform a credential
//! is, and what it is worth, is looked at when it is read.

use serde_json::{Map, Value};

use super::entry::{Entry, Form, Holds};
use super::fields::{self, Names, Place, kind};
use super::{BYTE_ORDER_MARK, ENTRIES_LIMIT, Error, keys, object};

/// The member in which Claude Code keeps its login.
const CLAUDE_CODE: &str = "claudeAiOauth";
/// The member that tells Gemini CLI's and Qwen Code's files from others, and the one that tells these two apart.
const GOOGLE_EXPIRY: &str = "expiry_date";
const QWEN_HOST: &str = "resource_url";
/// The kind of a login in files that say it.
const OAUTH: &str = "oauth";
const TYPE: Names = &["type"];
const PLATFORM: Names = &["platform"];
const NAME: Names = &["name"];

/// The credentials in the text of a file.
///
/// # Errors
/// If it is of no known form, or holds none.
pub fn recognise(text: &str) -> Result<Vec<Entry>, Error> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Error::Blank);
    }
    let entries = match keys::is_table(text) {
        true => keys::table(text)?,
        false => in_json(parse(text)?)?,
    };
    match entries.len() {
        0 => Err(Error::Empty),
        1..=ENTRIES_LIMIT => Ok(entries),
        _ => Err(Error::TooMany),
    }
}

fn parse(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::Syntax {
        line: error.line(),
        column: error.column(),
    })
}

fn in_json(file: Value) -> Result<Vec<Entry>, Error> {
    if let Value::Array(list) = file {
        return keys::list(list, "", None);
    }
    let mut file = object(file, "the file")?;
    if matches!(file.get("tokens"), Some(Value::Object(_))) {
        return codex(file).map(|entry| vec![entry]);
    }
    // An answer of sub2api's own API, as it stands.
    if let Some(Value::Object(data)) = file.get("data")
        && data.contains_key("accounts")
        && let Some(Value::Object(data)) = file.remove("data")
    {
        file = data;
    }
    for member in ["accounts", "keys"] {
        if let Some(Value::Array(_)) = file.get(member)
            && let Some(Value::Array(list)) = file.remove(member)
        {
            return exported(list, member, file);
        }
    }
    if file.contains_key(CLAUDE_CODE) {
        let holds = Holds::Login(CLAUDE_CODE);
        return Ok(vec![Entry::new(Form::Claude, "claude", holds, file)]);
    }
    let whole = Place::new(&file, "");
    if whole.has(fields::ACCESS) || whole.has(fields::REFRESH) {
        return flat(file).map(|entry| vec![entry]);
    }
    let has_type = |value: &Value| value.get("type").is_some_and(Value::is_string);
    if !file.contains_key("auth_mode") && file.values().any(has_type) {
        return opencode(file);
    }
    codex(file).map(|entry| vec![entry])
}

/// A file with one login and nothing around it: CLIProxyAPI's says in `type` of which platform it is; Gemini CLI's and
/// Qwen Code's do not, nor do those of programs that took Codex CLI's login up, which have its account beside it. Of any
/// other nobody can tell whose it is.
fn flat(file: Map<String, Value>) -> Result<Entry, Error> {
    let whole = Place::new(&file, "");
    let of = whole.optional(TYPE)?;
    let (form, of) = match of.filter(|of| of != OAUTH) {
        Some(of) => (Form::Flat, of),
        None if file.contains_key(QWEN_HOST) => (Form::Gemini, "qwen-code".to_owned()),
        None if file.contains_key(GOOGLE_EXPIRY) => (Form::Gemini, "gemini".to_owned()),
        None if whole.has(fields::ACCOUNT) => (Form::Flat, "codex".to_owned()),
        None => (Form::Flat, String::new()),
    };
    let name = whole.optional(fields::EMAIL)?;
    let entry = Entry::new(form, &of, Holds::Login(""), file);
    Ok(Entry { name, ..entry })
}

/// sub2api exports many accounts of many platforms; a list of keys may have the same member.
fn exported(
    list: Vec<Value>,
    member: &'static str,
    around: Map<String, Value>,
) -> Result<Vec<Entry>, Error> {
    let is_sub2api = |one: &Value| one.get("credentials").is_some();
    if !list.iter().any(is_sub2api) {
        return keys::list(list, member, Some(around));
    }
    let entries = list.into_iter().enumerate().map(|(index, one)| {
        let at = format!("{member}[{index}]");
        let account = object(one, &at)?;
        let place = Place::new(&account, &at);
        let of = place.text(PLATFORM)?;
        // A name that nobody here could type is none.
        let name = place.optional_name(NAME).ok().flatten();
        let holds = match place.text(TYPE)?.as_str() {
            OAUTH | "setup-token" => Holds::Login("credentials"),
            "apikey" => Holds::Key("credentials", keys::KEY),
            _ => {
                return Err(Error::Field {
                    field: place.path(TYPE),
                    expected: "oauth or apikey",
                    found: "another type",
                });
            }
        };
        let entry = Entry::new(Form::Sub2api, &of, holds, account);
        Ok(Entry {
            at,
            name,
            around: Some(around.clone()),
            ..entry
        })
    });
    entries.collect()
}

/// opencode has an entry for each platform.
fn opencode(file: Map<String, Value>) -> Result<Vec<Entry>, Error> {
    let entries = file.into_iter().map(|(of, entry)| {
        let entry = object(entry, &of)?;
        let place = Place::new(&entry, &of);
        let holds = match place.text(TYPE)?.as_str() {
            OAUTH => Holds::Login(""),
            "api" => Holds::Key("", keys::KEY),
            _ => {
                return Err(Error::Field {
                    field: place.path(TYPE),
                    expected: "oauth or api",
                    found: "another type",
                });
            }
        };
        Ok(Entry {
            at: of.clone(),
            ..Entry::new(Form::Opencode, &of, holds, entry)
        })
    });
    entries.collect()
}

/// Codex CLI's file, in the mode that it says, or that Codex CLI infers.
fn codex(file: Map<String, Value>) -> Result<Entry, Error> {
    let (of, holds) = match mode(&file)? {
        "chatgpt" => ("codex", Holds::Login("tokens")),
        "apikey" => ("openai", Holds::Key("", &["OPENAI_API_KEY"])),
        "personalAccessToken" => ("codex", Holds::AccessToken(&["personal_access_token"])),
        mode => ("codex", Holds::Nothing(mode)),
    };
    Ok(Entry::new(Form::Codex, of, holds, file))
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
