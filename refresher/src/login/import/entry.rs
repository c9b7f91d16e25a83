//! One credential of a file, as it was found there.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::Names;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Codex CLI's `auth.json`.
    Codex,
    /// Claude Code's `.credentials.json`.
    Claude,
    /// Gemini CLI's `oauth_creds.json`, and Qwen Code's.
    Gemini,
    /// CLIProxyAPI's: one login, with nothing around it.
    Flat,
    /// sub2api's export.
    Sub2api,
    /// opencode's `auth.json`.
    Opencode,
    /// A JSON list of API keys.
    Keys,
    /// A table of API keys.
    Csv,
}

impl Form {
    /// The login in such a file, where no platform here takes it over.
    pub fn whose(self) -> &'static str {
        match self {
            Form::Gemini => {
                "a login of Gemini CLI's or Qwen Code's, which Google and Alibaba have ended for persons"
            }
            _ => "a login of a platform that takes none over here",
        }
    }
}

/// The proxy by which CLIProxyAPI has an account leave, and its words for none.
const PROXY: &str = "proxy_url";
const NO_PROXY: [&str; 3] = ["", "direct", "none"];

/// One credential of a file.
#[derive(Clone)]
pub struct Entry {
    /// Its place in the file, for messages; empty where the file holds no other.
    pub at: String,
    /// The file's own word for its platform; empty where it does not say it.
    pub of: String,
    /// The name that the file has for it.
    pub name: Option<String>,
    /// The pool that the file puts it into.
    pub pool: Option<String>,
    /// The address at which it is reached, as the file says.
    pub base_url: Option<String>,
    /// The form of the file.
    pub form: Form,
    pub(super) holds: Holds,
    /// All that the file says of it.
    pub(super) entry: Map<String, Value>,
    /// The members around the entries of the file.
    pub(super) around: Option<Map<String, Value>>,
    /// The names of a table's columns, in their order.
    pub(super) columns: Vec<String>,
}

/// The kind of credential that an entry holds, and where.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holds {
    /// The tokens of a login, in a member; `""` is the entry itself.
    Login(&'static str),
    /// An API key, in a member as above, under one of these names.
    Key(&'static str, Names),
    /// A personal access token, under one of these names.
    AccessToken(Names),
    /// Nothing that a gateway can use, by the file's `auth_mode`.
    Nothing(&'static str),
}

impl Entry {
    pub(super) fn new(form: Form, of: &str, holds: Holds, entry: Map<String, Value>) -> Entry {
        Entry {
            at: String::new(),
            of: of.to_owned(),
            name: None,
            pool: None,
            base_url: None,
            form,
            holds,
            entry,
            around: None,
            columns: Vec::new(),
        }
    }

    /// The URL of the proxy by which the file says that the account leaves.
    pub fn proxy(&self) -> Option<&str> {
        let url = self.entry.get(PROXY)?.as_str()?.trim();
        Some(url).filter(|url| !NO_PROXY.contains(url))
    }

    /// True for a login, which its platform's token endpoint renews.
    pub fn is_login(&self) -> bool {
        matches!(
            self.holds,
            Holds::Login(_) | Holds::AccessToken(_) | Holds::Nothing(_)
        )
    }
}

/// Holds secrets.
impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Entry")
            .field("at", &self.at)
            .field("of", &self.of)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}
