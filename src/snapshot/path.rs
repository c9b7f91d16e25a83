//! Paths with places in them: `/v1beta/models/{model}:generateContent`.
//!
//! A caller chooses what stands in a place, so a [`fits`]ing value leads nowhere else: it has no
//! slash, is no dot segment, and whatever a path could be told to mean is written as an escape.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::Account;

/// The longest path with its places, in bytes.
const MAX_BYTES: usize = 256;

/// The most bytes of a value in a place: those of the longest pattern of a model.
const MAX_VALUE_BYTES: usize = 256;

/// The name of the place that takes the model.
const MODEL: &str = "model";

/// The path that callers use, exact but for one place for the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    before: String,
    /// The text after the model; none where the path has no place for it.
    after: Option<String>,
}

/// The path at a platform, with places for the model and for variables of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Model,
    Var(String),
}

/// Tells why a text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPath {
    /// It is not an absolute path of the characters that one may have.
    Path,
    /// It has a place of another name, or more than one.
    Places,
}

/// Tells if `value` may stand in a place of a path.
pub fn fits(value: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"/\\?#%".contains(&byte);
    (1..=MAX_VALUE_BYTES).contains(&value.len())
        && !matches!(value, "." | "..")
        && value.bytes().all(legal)
}

/// Writes `value` as part of one segment (RFC 3986 §3.3). Delimiters are escaped too, as servers
/// read `..;` as `..`.
fn escaped(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            into.push(char::from(byte));
        } else {
            push_escape(byte, into);
        }
    }
}

/// Writes a byte as `%XX`.
pub(super) fn push_escape(byte: u8, into: &mut String) {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    into.push('%');
    into.push(digit(byte >> 4).to_ascii_uppercase());
    into.push(digit(byte & 0xf).to_ascii_uppercase());
}

/// Reads the `%XX` of `text` as what they stand for; none where one is broken or stands for what
/// is no text.
pub fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()?.checked_mul(16)?.checked_add(digit()?)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(String::from_utf8(bytes).ok()?.into())
}

/// Tells if `text` is an absolute path without query, fragment, dot segments or escapes.
pub(super) fn is_plain(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~:@".contains(&byte);
    text.starts_with('/')
        && text.len() <= MAX_BYTES
        && text.bytes().all(legal)
        && !text.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// The literal texts and the names of the places of `text`, in turn, a literal first.
fn split(text: &str) -> Result<Vec<Part>, InvalidPath> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').ok_or(InvalidPath::Places)?;
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        if name.is_empty() || name == "credential" || !name.bytes().all(legal) {
            return Err(InvalidPath::Places);
        }
        // Two places side by side could be told apart by nobody.
        if literal.is_empty() {
            return Err(InvalidPath::Places);
        }
        plain.push_str(literal);
        plain.push('x');
        parts.push(Part::Literal(literal.to_owned()));
        parts.push(match name {
            MODEL => Part::Model,
            name => Part::Var(name.to_owned()),
        });
        rest = tail;
    }
    plain.push_str(rest);
    if text.len() > MAX_BYTES || !is_plain(&plain) {
        return Err(InvalidPath::Path);
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

// === impl Pattern ===

impl Pattern {
    /// The model in `path`, without escapes, where the pattern has a place for it; none where the
    /// path is another one.
    pub fn matches<'p>(&self, path: &'p str) -> Option<Option<Cow<'p, str>>> {
        let rest = path.strip_prefix(self.before.as_str())?;
        let Some(after) = &self.after else {
            return rest.is_empty().then_some(None);
        };
        let model = unescaped(rest.strip_suffix(after.as_str())?)?;
        fits(&model).then_some(Some(model))
    }

    /// Tells if it has a place for the model.
    pub fn has_model(&self) -> bool {
        self.after.is_some()
    }

    /// Tells if some path is of both patterns.
    pub fn meets(&self, other: &Pattern) -> bool {
        // Where one text goes on, what follows has to be in the other's place for the model.
        let within = |rest: Option<&str>| rest.is_some_and(|rest| !rest.contains('/'));
        let begins = |one: &str, other: &str| {
            within(one.strip_prefix(other)) || within(other.strip_prefix(one))
        };
        let ends = |one: &str, other: &str| {
            within(one.strip_suffix(other)) || within(other.strip_suffix(one))
        };
        match (&self.after, &other.after) {
            (None, None) => self.before == other.before,
            (None, Some(_)) => other.matches(&self.before).is_some(),
            (Some(_), None) => self.matches(&other.before).is_some(),
            (Some(after), Some(others)) => {
                begins(&self.before, &other.before) && ends(after, others)
            }
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        let parts = split(&text)?;
        match parts.as_slice() {
            [Part::Literal(path)] => Ok(Self {
                before: path.clone(),
                after: None,
            }),
            [Part::Literal(before), Part::Model] => Ok(Self {
                before: before.clone(),
                after: Some(String::new()),
            }),
            [Part::Literal(before), Part::Model, Part::Literal(after)] => Ok(Self {
                before: before.clone(),
                after: Some(after.clone()),
            }),
            _ => Err(InvalidPath::Places),
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        match pattern.after {
            Some(after) => format!("{}{{{MODEL}}}{after}", pattern.before),
            None => pattern.before,
        }
    }
}

// === impl PathTemplate ===

impl PathTemplate {
    /// The path for `model` and `account`; none where a value is missing or does not [fit](fits).
    pub fn render(&self, model: Option<&str>, account: &Account) -> Option<String> {
        let mut path = String::with_capacity(self.text.len());
        for part in &self.parts {
            let value = match part {
                Part::Literal(text) => {
                    path.push_str(text);
                    continue;
                }
                Part::Model => model?,
                Part::Var(name) => account.vars.get(name)?.as_str(),
            };
            if !fits(value) {
                return None;
            }
            escaped(value, &mut path);
        }
        Some(path)
    }

    /// Tells if it has a place for the model.
    pub fn has_model(&self) -> bool {
        self.parts.contains(&Part::Model)
    }

    /// The names of the account variables that it needs.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Var(name) => Some(name.as_str()),
            Part::Literal(_) | Part::Model => None,
        })
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        let parts = split(&text)?;
        Ok(Self { text, parts })
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.text
    }
}

// === impl InvalidPath ===

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => write!(
                f,
                "expected an absolute path of at most {MAX_BYTES} bytes, without query, fragment, '..' or escapes"
            ),
            Self::Places => f.write_str(
                "expected places of the form {model} or, at a platform, {name}, apart from each other; a caller's path has one at most",
            ),
        }
    }
}

impl std::error::Error for InvalidPath {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::fixture;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).unwrap()
    }

    fn model(text: &str, path: &str) -> Option<Option<String>> {
        let found = pattern(text).matches(path)?;
        Some(found.map(Cow::into_owned))
    }

    #[test]
    fn paths_are_plain() {
        for good in [
            "/v1/responses",
            "/v1/models/{model}",
            "/m/{model}:go",
            "/a/{model}/b",
        ] {
            assert_eq!(String::from(pattern(good)), good);
        }
        for bad in [
            "", "v1", "/v1?x", "/v1#x", "/a/../b", "/%2e", "/a b", "/a;b", "/é", "/..",
        ] {
            let refused = Pattern::try_from(bad.to_owned());
            assert_eq!(refused, Err(InvalidPath::Path), "{bad}");
        }
        for bad in [
            "/{}",
            "/{",
            "/{model",
            "/{a}",
            "/{model}{model}",
            "/{model}/{model}",
            "{model}",
            "/{credential}",
        ] {
            let refused = Pattern::try_from(bad.to_owned());
            assert_eq!(refused, Err(InvalidPath::Places), "{bad}");
        }
    }

    #[test]
    fn the_model_is_what_stands_in_its_place() {
        let gemini = "/v1beta/models/{model}:generateContent";
        let path = |model: &str| format!("/v1beta/models/{model}:generateContent");
        for name in ["gemini-2.5-pro", "a:b", "a@b", "x:generateContent"] {
            assert_eq!(model(gemini, &path(name)), Some(Some(name.to_owned())));
        }
        assert_eq!(
            model(gemini, &path("gemini%2D2%2e5")),
            Some(Some("gemini-2.5".to_owned()))
        );
        for bad in [
            "", ".", "..", "a/b", "a%2Fb", "a%5cb", "%2e%2e", "a%3fb", "a%23b", "a%25b", "a%2",
            "%zz", "a%00b", "a%20b", "%ff", "é",
        ] {
            assert_eq!(model(gemini, &path(bad)), None, "{bad}");
        }
        assert_eq!(model(gemini, &path(&"m".repeat(257))), None);
        assert_eq!(
            model(gemini, "/v1beta/models/m:streamGenerateContent"),
            None
        );
        assert_eq!(model("/v1/messages", "/v1/messages"), Some(None));
        assert_eq!(model("/v1/messages", "/v1/messages/"), None);
    }

    #[test]
    fn a_template_takes_the_model_and_what_the_account_has() {
        let account = fixture::account("acc_1", "codex");
        let render = |text: &str, model| {
            let template = PathTemplate::try_from(text.to_owned()).unwrap();
            template.render(model, &account)
        };
        assert_eq!(render("/x", None).as_deref(), Some("/x"));
        assert_eq!(
            render("/{account_id}/m/{model}:go", Some("a:b[1]")).as_deref(),
            Some("/ws-acc_1/m/a:b%5B1%5D:go")
        );
        let delimiters = render("/m/{model}/x", Some("..;")).unwrap();
        assert_eq!(delimiters, "/m/..%3B/x", "no server reads that as ..");
        assert_eq!(render("/m/{model}", None), None);
        assert_eq!(render("/m/{model}", Some("../admin")), None);
        assert_eq!(render("/m/{model}", Some("..")), None);
        assert_eq!(render("/m/{nobody}", None), None);
    }

    fn literal() -> impl Strategy<Value = String> {
        "/[a-c:/]{0,4}"
    }

    fn any_pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            literal(),
            literal().prop_map(|before| format!("{before}{{model}}")),
            (literal(), "[a-c:/]{1,4}")
                .prop_map(|(before, after)| format!("{before}{{model}}{after}")),
        ]
        .prop_map(|text| pattern(&text))
    }

    proptest! {
        /// Whatever a template writes, the pattern of the same text reads.
        #[test]
        fn a_model_survives_its_path(name in "\\PC{1,20}|[!-~]{1,20}") {
            let text = "/v1/models/{model}:go".to_owned();
            let template = PathTemplate::try_from(text.clone()).unwrap();
            let path = template.render(Some(&name), &fixture::account("acc_1", "codex"));
            prop_assert_eq!(path.is_some(), fits(&name));
            if let Some(path) = path {
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(path.matches('/').count(), 3);
                prop_assert_eq!(model(&text, &path), Some(Some(name)));
            }
        }

        /// No path says two things: where two patterns take one, they are known to meet.
        #[test]
        fn patterns_that_take_one_path_meet(
            one in any_pattern(),
            other in any_pattern(),
            path in "/[a-c:/]{0,10}",
        ) {
            let both = one.matches(&path).is_some() && other.matches(&path).is_some();
            prop_assert!(!both || one.meets(&other) && other.meets(&one));
        }

        #[test]
        fn no_path_panics(text in any::<String>(), path in any::<String>()) {
            if let Ok(pattern) = Pattern::try_from(text.clone()) {
                pattern.matches(&path);
            }
            let _ = PathTemplate::try_from(text);
            unescaped(&path);
        }
    }
}
