//! Paths with places in them: `/v1beta/models/{model}:generateContent`, `/v1/files/{id}/content`.
//!
//! A caller chooses what stands in a place, so a [`fits`]ing value leads nowhere else: it has no
//! slash, is no dot segment, and whatever a path could be told to mean is written as an escape.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::Account;
use crate::header::HeaderText;

/// The longest path with its places, in bytes.
const MAX_BYTES: usize = 256;

/// The most bytes of a value in a place: those of the longest pattern of a model.
const MAX_VALUE_BYTES: usize = 256;

/// The kinds of places that a caller's path can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `{model}`: the model.
    Model,
    /// `{id}`: a thing that an account has, such as a file or a stored response.
    Thing,
    /// `{part}`: a part of that thing.
    Part,
}

/// The path that callers use: exact, but for places, one a segment at most and each once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Vec<Segment>);

/// The text between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Place {
        before: String,
        place: Place,
        after: String,
    },
}

/// The values that stand in the places of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The model.
    pub model: Option<HeaderText>,
    /// The thing.
    pub thing: Option<HeaderText>,
    /// The part of it.
    pub part: Option<HeaderText>,
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
    Place(Place),
    Var(String),
}

/// The reason why a text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPath {
    /// The path is not an absolute one of the characters that one may have.
    Path,
    /// The path has a place of another name, or more than one.
    Places,
}

/// Returns true if `value` may stand in a place of a path.
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

/// Returns true if `text` is an absolute path without query, fragment, dot segments or escapes.
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
        parts.push(match Place::of(name) {
            Some(place) => Part::Place(place),
            None => Part::Var(name.to_owned()),
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

// === impl Place ===

impl Place {
    /// Every place.
    pub const ALL: [Self; 3] = [Self::Model, Self::Thing, Self::Part];

    fn of(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|place| place.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Thing => "id",
            Self::Part => "part",
        }
    }
}

// === impl Places ===

impl Places {
    /// The value in `place`.
    pub fn get(&self, place: Place) -> Option<&HeaderText> {
        match place {
            Place::Model => self.model.as_ref(),
            Place::Thing => self.thing.as_ref(),
            Place::Part => self.part.as_ref(),
        }
    }

    fn set(&mut self, place: Place, value: HeaderText) {
        let at = match place {
            Place::Model => &mut self.model,
            Place::Thing => &mut self.thing,
            Place::Part => &mut self.part,
        };
        *at = Some(value);
    }
}

// === impl Segment ===

impl Segment {
    /// The value that `text` has in the segment's place, without escapes, where `text` is of the
    /// segment.
    fn value(before: &str, after: &str, text: &str) -> Option<HeaderText> {
        let value = unescaped(text.strip_prefix(before)?.strip_suffix(after)?)?;
        // What fits into a path fits into a header.
        HeaderText::try_from(&*value).ok().filter(|_| fits(&value))
    }

    /// Returns true if some text is of both.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(one), Self::Literal(other)) => one == other,
            (Self::Literal(text), Self::Place { before, after, .. })
            | (Self::Place { before, after, .. }, Self::Literal(text)) => {
                Self::value(before, after, text).is_some()
            }
            (
                Self::Place { before, after, .. },
                Self::Place {
                    before: others_before,
                    after: others_after,
                    ..
                },
            ) => {
                let begins = before.starts_with(others_before) || others_before.starts_with(before);
                begins && (after.ends_with(others_after) || others_after.ends_with(after))
            }
        }
    }
}

// === impl Pattern ===

impl Pattern {
    /// The values in the places of `path`; none where the path is another one.
    pub fn matches(&self, path: &str) -> Option<Places> {
        let mut places = Places::default();
        let mut rest = path.split('/');
        for segment in &self.0 {
            let text = rest.next()?;
            match segment {
                Segment::Literal(literal) if literal == text => {}
                Segment::Literal(_) => return None,
                Segment::Place {
                    before,
                    place,
                    after,
                } => places.set(*place, Segment::value(before, after, text)?),
            }
        }
        rest.next().is_none().then_some(places)
    }

    /// Returns true if it has this place.
    pub fn has(&self, place: Place) -> bool {
        let is_it = |segment: &Segment| matches!(segment, Segment::Place { place: one, .. } if *one == place);
        self.0.iter().any(is_it)
    }

    /// Returns true if some path is of both patterns.
    pub fn meets(&self, other: &Pattern) -> bool {
        let mut both = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && both.all(|(one, other)| one.meets(other))
    }

    /// The number of segments at its end that `path` ends in too, as far as they have no place.
    pub fn common_end(&self, path: &str) -> usize {
        let ends = self.0.iter().rev().zip(path.rsplit('/'));
        ends.take_while(
            |(segment, text)| matches!(segment, Segment::Literal(literal) if literal == text),
        )
        .count()
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        let parts = split(&text)?;
        for place in Place::ALL {
            let same = parts.iter().filter(|part| **part == Part::Place(place));
            if same.count() > 1 {
                return Err(InvalidPath::Places);
            }
        }
        let segment = |text: &str| match text.split_once('{') {
            None => Ok(Segment::Literal(text.to_owned())),
            Some((before, rest)) => {
                let (name, after) = rest.split_once('}').ok_or(InvalidPath::Places)?;
                let place = Place::of(name).ok_or(InvalidPath::Places)?;
                match after.contains('{') {
                    true => Err(InvalidPath::Places),
                    false => Ok(Segment::Place {
                        before: before.to_owned(),
                        place,
                        after: after.to_owned(),
                    }),
                }
            }
        };
        text.split('/')
            .map(segment)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        let segments = pattern.0.into_iter().map(|segment| match segment {
            Segment::Literal(text) => text,
            Segment::Place {
                before,
                place,
                after,
            } => format!("{before}{{{}}}{after}", place.name()),
        });
        segments.collect::<Vec<_>>().join("/")
    }
}

// === impl PathTemplate ===

impl PathTemplate {
    /// The path with these values and those of `account`; none where one is missing or does not
    /// [fit](fits).
    pub fn render(&self, places: &Places, account: &Account) -> Option<String> {
        let mut path = String::with_capacity(self.text.len());
        for part in &self.parts {
            let value = match part {
                Part::Literal(text) => {
                    path.push_str(text);
                    continue;
                }
                Part::Place(place) => places.get(*place)?.as_str(),
                Part::Var(name) => account.vars.get(name)?.as_str(),
            };
            if !fits(value) {
                return None;
            }
            escaped(value, &mut path);
        }
        Some(path)
    }

    /// Returns true if it has this place.
    pub fn has(&self, place: Place) -> bool {
        self.parts.contains(&Part::Place(place))
    }

    /// The names of the account variables that it needs.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Var(name) => Some(name.as_str()),
            Part::Literal(_) | Part::Place(_) => None,
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
                "expected places of the form {model}, {id}, {part} or, at a platform, {name}, apart from each other; in a caller's path each once, and one between two slashes",
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
        Some(found.model.map(|model| model.as_str().to_owned()))
    }

    fn of_model(model: &str) -> Places {
        Places {
            model: HeaderText::try_from(model).ok(),
            ..Places::default()
        }
    }

    #[test]
    fn a_thing_and_its_part_are_what_stands_in_their_places() {
        let files = pattern("/v1/vector_stores/{id}/files/{part}/content");
        let found = files
            .matches("/v1/vector_stores/vs_1/files/file%2D2/content")
            .unwrap();
        let text = |place| found.get(place).map(HeaderText::as_str);
        assert_eq!(text(Place::Thing), Some("vs_1"));
        assert_eq!(text(Place::Part), Some("file-2"));
        assert_eq!(text(Place::Model), None);
        for other in [
            "/v1/vector_stores/vs_1/files/file-2",
            "/v1/vector_stores/vs_1/files//content",
            "/v1/vector_stores/../files/file-2/content",
            "/v1/vector_stores/vs_1/files/file-2/content/",
        ] {
            assert_eq!(files.matches(other), None, "{other}");
        }
        let template = PathTemplate::try_from("/s/{id}/{part}".to_owned()).unwrap();
        let account = fixture::account("acc_1", "codex");
        let path = template.render(&found, &account);
        assert_eq!(path.as_deref(), Some("/s/vs_1/file-2"));
        assert_eq!(template.render(&of_model("m"), &account), None);
    }

    #[test]
    fn the_common_end_is_of_whole_segments_without_places() {
        let end = |text, path| pattern(text).common_end(path);
        assert_eq!(end("/v1/chat/completions", "/api/chat/completions"), 2);
        assert_eq!(end("/v1/chat/completions", "/v1/xchat/completions"), 1);
        assert_eq!(end("/v1/files/{id}", "/v1/files/f"), 0);
    }

    #[test]
    fn paths_are_plain() {
        for good in [
            "/v1/responses",
            "/v1/models/{model}",
            "/m/{model}:go",
            "/a/{model}/b",
            "/a/{id}/b/{part}",
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
            "/{id}-{part}",
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
        let render = |text: &str, model: Option<&str>| {
            let template = PathTemplate::try_from(text.to_owned()).unwrap();
            let places = model.map_or_else(Places::default, of_model);
            template.render(&places, &account)
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
            let path = template.render(&of_model(&name), &fixture::account("acc_1", "codex"));
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
