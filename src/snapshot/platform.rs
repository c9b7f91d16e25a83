//! What the filter must know of a platform: its routes, its headers and what its answers mean.

use serde::{Deserialize, Serialize};

use super::Template;
use crate::{
    dialect::Dialect,
    header::{HeaderName, HeaderText, NamePattern},
    id::Id,
    verdict::{Rule, quota::Windows},
};

/// A service that answers LLM requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// For example `codex`.
    pub id: Id,
    /// `owned_by` in the list of models.
    pub owner: HeaderText,
    /// What callers may ask of it. Everything else is not sent there.
    pub routes: Vec<Route>,
    /// Which headers go out.
    pub headers: HeaderPlan,
    /// The models that it serves, as it names them.
    #[serde(default)]
    pub models: Vec<HeaderText>,
    /// What its answers say about the account; the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Rule>,
    /// The headers in which its answers report an account's windows.
    #[serde(default, skip_serializing_if = "Windows::is_empty")]
    pub quota: Windows,
}

/// One path that callers may use, and where it is at the platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The caller's path, exact, without a query.
    pub path: Path,
    /// The methods allowed, in upper case.
    pub methods: Vec<HeaderText>,
    /// The wire format spoken on it.
    pub dialect: Dialect,
    /// The path at the platform; the caller's query string is appended.
    pub upstream: Path,
    /// What the platform asks of a request on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// Streams on it report usage only if `stream_options.include_usage` asks them to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_usage: bool,
    /// What is asked on it costs nothing, as a count of tokens: where the platform reports no
    /// usage, none is estimated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free: bool,
}

/// What a platform asks of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// `"stream": true`
    Stream,
    /// `"store": false`
    StoreFalse,
    /// Not `"background": true`: what is generated after the answer, nobody here could count.
    Foreground,
}

/// Which headers go out to a platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeaderPlan {
    /// Put on always, in place of whatever the caller sent.
    pub set: Vec<(HeaderName, Template)>,
    /// Put on where the caller sent none.
    #[serde(default)]
    pub default: Vec<(HeaderName, HeaderText)>,
    /// The caller's headers that may pass. All others stay here.
    pub allow: Vec<NamePattern>,
}

/// An absolute path without query, fragment, dot segments or escapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(String);

/// Why a text is not a [`Path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPath;

// === impl Platform ===

impl Platform {
    /// The route of the caller's `path`.
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.path.0 == path)
    }

    /// Whether it may limit one model of an account alone.
    pub fn limits_models(&self) -> bool {
        self.verdicts.iter().any(Rule::limits_models)
    }
}

// === impl HeaderPlan ===

impl HeaderPlan {
    /// The names of the account variables that it needs, each as often as it is used.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        self.set.iter().flat_map(|(_, template)| template.vars())
    }
}

// === impl Route ===

impl Route {
    /// Whether `method`, in upper case, is allowed.
    pub fn allows(&self, method: &[u8]) -> bool {
        self.methods
            .iter()
            .any(|allowed| allowed.as_str().as_bytes() == method)
    }
}

// === impl Requirement ===

impl Requirement {
    /// The member of the body that it asks for.
    pub fn member(&self) -> &'static str {
        match self {
            Self::Stream => "\"stream\": true",
            Self::StoreFalse => "\"store\": false",
            Self::Foreground => "\"background\": false",
        }
    }

    /// Why, where the reason is not the platform's own.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Stream | Self::StoreFalse => None,
            Self::Foreground => Some(
                "What is generated in the background could not be counted: ask for a stream instead.",
            ),
        }
    }
}

// === impl Path ===

impl Path {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Path {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~:@".contains(&byte);
        let segments_fit = !text.split('/').any(|segment| matches!(segment, "." | ".."));
        if text.starts_with('/') && text.len() <= 256 && text.bytes().all(legal) && segments_fit {
            Ok(Self(text))
        } else {
            Err(InvalidPath)
        }
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

// === impl InvalidPath ===

impl std::fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("expected an absolute path of at most 256 bytes, without query, fragment, '..' or escapes")
    }
}

impl std::error::Error for InvalidPath {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_plain() {
        assert!(Path::try_from("/v1/responses".to_owned()).is_ok());
        for bad in [
            "", "v1", "/v1?x", "/v1#x", "/a/../b", "/%2e", "/a b", "/a;b", "/é",
        ] {
            assert_eq!(Path::try_from(bad.to_owned()), Err(InvalidPath), "{bad}");
        }
    }
}
