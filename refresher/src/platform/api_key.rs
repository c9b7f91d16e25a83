//! API keys as people hand them over: the packing around them, and the form that a platform's keys have. Pure.
//!
//! What is surely packing is taken off, and what surely is no key of the platform is refused. A caller would read the
//! platform's own refusal otherwise, much later, and take it for a word about their own key. No error repeats the key.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;

use super::{Catalog, Profile};
use crate::id::CLIENT_KEY_PREFIX;

/// The form of a platform's API keys, as a profile says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyForm {
    /// The beginnings that its keys have; none where that is not known.
    pub prefixes: Vec<String>,
    /// The fewest characters of one; 0 where that is not known.
    pub shortest: usize,
    /// Beginnings of what looks like one of its keys and is none, and what that is.
    pub others: BTreeMap<String, String>,
}

/// The reason why a text is no API key of a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// Nothing is there.
    #[error("expected an API key, found none")]
    Empty,
    /// White space is inside.
    #[error("expected one API key, found white space inside it")]
    Spaced,
    /// The name of a shell's variable, which no shell has replaced.
    #[error("expected an API key, found the name of a variable")]
    Variable,
    /// A part of it is left out, as consoles show keys.
    #[error("expected a whole API key, found a shortened one")]
    Masked,
    /// A placeholder, which an example has where a key goes.
    #[error("expected an API key, found the placeholder of an example")]
    Placeholder,
    /// A key of the platform is longer.
    #[error(
        "expected an API key of {name}, which has at least {shortest} characters; found {found}"
    )]
    Short {
        /// The name of the platform.
        name: String,
        /// The fewest that its keys have.
        shortest: usize,
        /// The number that there is.
        found: usize,
    },
    /// A client key of ours.
    #[error(
        "expected an API key that {0} made, found a client key of Latchkey's, which callers present to Envoy"
    )]
    Ours(String),
    /// A key of another platform.
    #[error("expected an API key of {wanted}, found one of {found}")]
    Foreign {
        /// The name of the platform that was named.
        wanted: String,
        /// The name of the platform that makes such keys.
        found: String,
        /// Its id.
        id: String,
    },
    /// Something else of the platform's own.
    #[error("expected an API key of {wanted} that serves requests, found {found}")]
    Other {
        /// The name of the platform.
        wanted: String,
        /// The thing that was found.
        found: String,
    },
    /// Text that begins as no key of the platform does.
    #[error("expected an API key of {name}, which begins with {prefixes}; found something else")]
    Form {
        /// The name of the platform.
        name: String,
        /// The beginnings.
        prefixes: String,
    },
}

/// Takes off what is surely packing: white space, quotes, `NAME=`, `export`, the header's name, `Bearer`.
fn unpacked(text: &str) -> &str {
    let mut key = text;
    loop {
        let inner = without_one(key);
        if inner.len() == key.len() {
            return key;
        }
        key = inner;
    }
}

/// `text` without its outermost packing, if it has one.
fn without_one(text: &str) -> &str {
    let is_blank =
        |one: char| one.is_whitespace() || matches!(one, '\u{feff}' | '\u{200b}' | '\u{2060}');
    let text = text.trim_matches(is_blank);
    for (open, close) in [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{2018}', '\u{2019}'),
    ] {
        let inner = text
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close));
        if let Some(inner) = inner {
            return inner;
        }
    }
    for word in ["export ", "Bearer ", "authorization:", "x-api-key:"] {
        let is_it = text
            .get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word));
        if let Some(rest) = text.get(word.len()..).filter(|_| is_it) {
            return rest;
        }
    }
    match text.split_once('=') {
        // Base64 may end with `=`, and no name of a variable has a small letter by custom.
        Some((name, rest)) if is_variable(name) && !rest.is_empty() => rest,
        _ => text,
    }
}

fn is_variable(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() >= 3 && name.contains("KEY") && name.bytes().all(is_legal)
}

/// True for `sk-abc...xyz`, `sk-…` and `sk-****`.
fn is_masked(key: &str) -> bool {
    let hides = ["...", "***", "\u{2026}", "\u{2022}", "\u{25cf}"];
    hides.iter().any(|hides| key.contains(hides))
}

/// True for `<your-key>`, `sk-YOUR_API_KEY` and `sk-xxxxxxxx`.
fn is_placeholder(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let is_bracketed = key.starts_with('<') && key.ends_with('>');
    let is_yours = ["your_", "your-", "api_key", "api-key"]
        .iter()
        .any(|words| key.contains(words));
    is_bracketed || is_yours || key.contains("xxxxxx")
}

impl KeyForm {
    /// The beginnings of which none begins as another one does.
    fn shortest(&self) -> Vec<&str> {
        let all = || self.prefixes.iter().map(String::as_str);
        let is_shortest = |one: &&str| !all().any(|other| other != *one && one.starts_with(other));
        all().filter(is_shortest).collect()
    }

    /// The length of the longest beginning of the platform's keys that `key` has.
    fn matched(&self, key: &str) -> Option<usize> {
        let fitting = self
            .prefixes
            .iter()
            .filter(|prefix| key.starts_with(*prefix));
        fitting.map(String::len).max()
    }
}

impl Catalog {
    /// The key in `text`, for an account of `profile` whose keys have that form, without its packing.
    ///
    /// # Errors
    /// If it surely is no API key of that platform.
    pub fn api_key(
        &self,
        profile: &Profile,
        form: &KeyForm,
        text: &str,
    ) -> Result<SecretString, NotAKey> {
        let key = unpacked(text);
        if key.is_empty() {
            return Err(NotAKey::Empty);
        }
        if key.contains(char::is_whitespace) {
            return Err(NotAKey::Spaced);
        }
        if key.starts_with('$') {
            return Err(NotAKey::Variable);
        }
        if is_masked(key) {
            return Err(NotAKey::Masked);
        }
        if is_placeholder(key) {
            return Err(NotAKey::Placeholder);
        }
        let name = || profile.name.clone();
        let own = form.matched(key);
        if own.is_none() && key.starts_with(CLIENT_KEY_PREFIX) {
            return Err(NotAKey::Ours(name()));
        }
        let mut others = form.others.iter();
        if let Some((_, found)) = others.find(|(prefix, _)| key.starts_with(*prefix)) {
            let (wanted, found) = (name(), found.clone());
            return Err(NotAKey::Other { wanted, found });
        }
        let foreign = self.all().filter(|other| other.id != profile.id);
        let foreign = foreign.filter(|other| other.api_keys.matched(key) > own.max(Some(0)));
        // A gateway of somebody else's takes keys of any form: only who knows its own keys can tell others'.
        let foreign = foreign.filter(|_| !form.prefixes.is_empty());
        let foreign: Vec<_> = foreign.collect();
        let best = foreign
            .iter()
            .map(|other| other.api_keys.matched(key))
            .max();
        let mut fitting = foreign
            .iter()
            .filter(|other| Some(other.api_keys.matched(key)) == best);
        // Of several whose keys begin so it could be any: then it is only none of this one's.
        if let (Some(other), None) = (fitting.next(), fitting.next()) {
            return Err(NotAKey::Foreign {
                wanted: name(),
                found: other.name.clone(),
                id: other.id.clone(),
            });
        }
        match own {
            None if !form.prefixes.is_empty() => Err(NotAKey::Form {
                name: name(),
                prefixes: form.shortest().join(" or "),
            }),
            Some(length) if length == key.len() => Err(NotAKey::Empty),
            _ if key.len() < form.shortest => Err(NotAKey::Short {
                name: name(),
                shortest: form.shortest,
                found: key.len(),
            }),
            _ => Ok(SecretString::from(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    /// Loaded once: that takes longer than what these tests do.
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let text = "extends = 'openai-compatible'\nid = 'own'\nname = 'Own'\nowner = 'us'\n\
                    [upstream]\nbase_url = 'http://127.0.0.1:1'";
        fs::write(folder.path().join("own.toml"), text).unwrap();
        Catalog::load(Some(folder.path()), BTreeSet::new()).unwrap()
    });

    fn read(platform: &str, text: &str) -> Result<String, NotAKey> {
        let catalog = &*CATALOG;
        let profile = catalog.usable(platform).unwrap();
        let key = catalog.api_key(profile, &profile.api_keys, text)?;
        Ok(key.expose_secret().to_owned())
    }

    #[test]
    fn packing_is_taken_off() {
        for text in [
            "sk-proj-0123456789abcdefghijklmnopqrstu_a",
            "  sk-proj-0123456789abcdefghijklmnopqrstu_a\r\n",
            "\u{feff}sk-proj-0123456789abcdefghijklmnopqrstu_a\n",
            "\"sk-proj-0123456789abcdefghijklmnopqrstu_a\"",
            "'sk-proj-0123456789abcdefghijklmnopqrstu_a'",
            "\u{201c}sk-proj-0123456789abcdefghijklmnopqrstu_a\u{201d}",
            "Bearer sk-proj-0123456789abcdefghijklmnopqrstu_a",
            "bearer  sk-proj-0123456789abcdefghijklmnopqrstu_a",
            "Authorization: Bearer sk-proj-0123456789abcdefghijklmnopqrstu_a",
            "OPENAI_API_KEY=sk-proj-0123456789abcdefghijklmnopqrstu_a",
            "export OPENAI_API_KEY=\"sk-proj-0123456789abcdefghijklmnopqrstu_a\"\n",
            "x-api-key: sk-proj-0123456789abcdefghijklmnopqrstu_a",
        ] {
            assert_eq!(
                read("openai", text).as_deref(),
                Ok("sk-proj-0123456789abcdefghijklmnopqrstu_a"),
                "{text}"
            );
        }
        // Not packing, but a key.
        for key in ["KEY=", "a=b", "aGVsbG8=", "Bearer"] {
            assert_eq!(read("own", key).as_deref(), Ok(key), "{key}");
        }
    }

    #[test]
    fn what_surely_is_no_key_of_the_platform_is_refused() {
        for (platform, text, says) in [
            ("openai", "", "found none"),
            ("openai", "''", "found none"),
            ("openai", "sk-", "found none"),
            ("openai", "hello", "begins with sk-"),
            ("openai", "sk-proj 1", "white space inside"),
            ("openai", "sk-1\nsk-2", "white space inside"),
            ("openai", "$OPENAI_API_KEY", "name of a variable"),
            ("openai", "sk-abc...xyz", "a shortened one"),
            ("openai", "sk-proj-\u{2026}wxyz", "a shortened one"),
            ("openai", "sk-****************wxyz", "a shortened one"),
            (
                "openai",
                "sk-proj-0123456789",
                "at least 40 characters; found 18",
            ),
            ("openai", "sk-YOUR_API_KEY", "of an example"),
            ("openai", "<your-key>", "of an example"),
            (
                "openai",
                "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                "of an example",
            ),
            ("own", "abc...xyz", "a shortened one"),
            ("openai", "lk_abc", "a client key of Latchkey's"),
            ("openai", "sk-ant-api03-x", "found one of Anthropic API"),
            ("openai", "sk-admin-x", "an admin key"),
            ("anthropic", "sk-proj-1", "found one of OpenAI API"),
            ("deepseek", "sk-proj-1", "found one of OpenAI API"),
            // OpenAI's, or DeepSeek's, or another one's.
            ("anthropic", "sk-1", "begins with sk-ant-"),
            ("openai", "xyz", "begins with sk-; found"),
            ("deepseek", "sk-ant-api03-x", "found one of Anthropic API"),
            ("openai", "sk-or-v1-x", "found one of OpenRouter"),
            ("qianfan", "xai-1", "found one of xAI"),
            ("anthropic", "sk-ant-oat01-x", "of a subscription"),
            ("own", "lk_abc", "a client key of Latchkey's"),
            ("own", "two words", "white space inside"),
        ] {
            let refused = read(platform, text).unwrap_err().to_string();
            assert!(refused.contains(says), "{platform} {text}: {refused}");
        }
    }

    #[test]
    fn a_platform_that_says_nothing_of_its_keys_takes_any() {
        for key in ["hello", "sk-ant-api03-x", "sk-1", "x"] {
            assert_eq!(read("own", key).as_deref(), Ok(key));
        }
    }

    proptest! {
        #[test]
        fn unpacking_ends_and_only_cuts(text in "[ a-zA-Z=\"'`$:_-]{0,60}") {
            let key = unpacked(&text);
            prop_assert!(text.contains(key));
            prop_assert_eq!(unpacked(key), key);
        }

        #[test]
        fn no_error_repeats_the_key(text in "[a-z0-9]{24}") {
            for platform in ["openai", "anthropic"] {
                let refused = read(platform, &text).unwrap_err();
                prop_assert!(!refused.to_string().contains(&text));
            }
        }
    }
}
