//! Lists of models, as operators write them.

use serde::{Deserialize, Serialize};

use crate::newtype::checked_text;

/// The longest pattern, in bytes; the longest model that platforms list has 60.
pub const MAX_PATTERN_BYTES: usize = 128;

/// The most patterns of one list.
pub const MAX_PATTERNS: usize = 64;

/// A model by its name, or every model whose name starts so: `gpt-5*`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelPattern(String);

checked_text! {
    ModelPattern, InvalidModels;
}

/// The models that an account serves or a client key may ask for; an empty list means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ModelPattern>", into = "Vec<ModelPattern>")]
pub struct Models(Vec<ModelPattern>);

/// The reason why a text is not a [`ModelPattern`], or a list not [`Models`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidModels {
    /// Not a pattern.
    Pattern,
    /// More than [`MAX_PATTERNS`].
    TooMany,
}

// === impl ModelPattern ===

impl ModelPattern {
    /// The model, where the pattern names one alone.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.ends_with('*')).then_some(&self.0)
    }

    /// Returns true if `model` is one of those.
    pub fn matches(&self, model: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => model == self.0,
        }
    }

    fn check(text: &str) -> Result<(), InvalidModels> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'*' && byte != b',';
        let fits = !text.is_empty() && text.len() <= MAX_PATTERN_BYTES;
        let fits = fits && name.bytes().all(legal);
        fits.then_some(()).ok_or(InvalidModels::Pattern)
    }
}

// === impl Models ===

impl Models {
    /// Returns true if every model is on it.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if `model` is on it. One that is not known is on no list but that of all.
    pub fn contain(&self, model: Option<&str>) -> bool {
        let listed = |model| self.0.iter().any(|pattern| pattern.matches(model));
        self.is_all() || model.is_some_and(listed)
    }

    /// The patterns.
    pub fn patterns(&self) -> &[ModelPattern] {
        &self.0
    }
}

impl TryFrom<Vec<ModelPattern>> for Models {
    type Error = InvalidModels;

    fn try_from(patterns: Vec<ModelPattern>) -> Result<Self, InvalidModels> {
        if patterns.len() > MAX_PATTERNS {
            return Err(InvalidModels::TooMany);
        }
        Ok(Self(patterns))
    }
}

impl From<Models> for Vec<ModelPattern> {
    fn from(models: Models) -> Self {
        models.0
    }
}

// === impl InvalidModels ===

impl std::fmt::Display for InvalidModels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pattern => write!(
                f,
                "expected a model of 1 to {MAX_PATTERN_BYTES} visible ASCII characters, with * at its end alone"
            ),
            Self::TooMany => write!(f, "expected at most {MAX_PATTERNS} models"),
        }
    }
}

impl std::error::Error for InvalidModels {}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(patterns: &[&str]) -> Models {
        let pattern = |text: &&str| ModelPattern::try_from((*text).to_owned()).unwrap();
        Models::try_from(patterns.iter().map(pattern).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_list_holds_names_and_beginnings() {
        let list = models(&["gpt-5*", "o3"]);
        for (model, expected) in [
            ("gpt-5.6", true),
            ("gpt-4", false),
            ("o3", true),
            ("o3x", false),
        ] {
            assert_eq!(list.contain(Some(model)), expected, "{model}");
        }
        assert!(!list.contain(None) && models(&[]).contain(None));
        assert!(models(&["*"]).contain(Some("anything")));
    }

    #[test]
    fn patterns_are_plain() {
        for bad in [
            "",
            "a b",
            "*a",
            "a**",
            "a,b",
            "é",
            &"m".repeat(MAX_PATTERN_BYTES + 1),
        ] {
            let refused = ModelPattern::try_from(bad.to_owned());
            assert_eq!(refused, Err(InvalidModels::Pattern), "{bad}");
        }
        let many = vec![ModelPattern::try_from("m".to_owned()).unwrap(); MAX_PATTERNS + 1];
        assert_eq!(Models::try_from(many), Err(InvalidModels::TooMany));
    }
}
