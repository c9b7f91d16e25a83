//! Models that are served by others, and how much those are to think: `claude-sonnet-*=gpt-6.1-sol@high`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ModelPattern;
use crate::{dialect::EffortWord, header::HeaderText};

/// The most maps of one list.
pub const MAX_MAPS: usize = 64;

/// A model, or every one whose name starts so, and the model that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelMap {
    asked: ModelPattern,
    served: HeaderText,
    effort: Option<EffortWord>,
}

/// The maps of a client key, a pool or an account, in the operator's order: the first that is of a model says what serves
/// it. What serves it is not looked up again in the same list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ModelMap>", into = "Vec<ModelMap>")]
pub struct ModelMaps(Vec<ModelMap>);

/// The reason why a text is not a [`ModelMap`], or a list not [`ModelMaps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidMaps {
    /// Not a map.
    Map,
    /// More than [`MAX_MAPS`].
    TooMany,
}

// === impl ModelMap ===

impl ModelMap {
    /// The models that are asked for.
    pub fn asked(&self) -> &ModelPattern {
        &self.asked
    }

    /// The model that serves them.
    pub fn served(&self) -> &HeaderText {
        &self.served
    }

    /// The effort in thinking, whatever the caller says; none for the caller's own.
    pub fn effort(&self) -> Option<EffortWord> {
        self.effort
    }
}

impl TryFrom<String> for ModelMap {
    type Error = InvalidMaps;

    fn try_from(text: String) -> Result<Self, InvalidMaps> {
        let (asked, served) = text.split_once('=').ok_or(InvalidMaps::Map)?;
        // Names of models may have an `@` in them too.
        let (served, effort) = match served.trim().rsplit_once('@') {
            Some((name, word)) => match EffortWord::parse(word) {
                Some(effort) => (name, Some(effort)),
                None => (served, None),
            },
            None => (served, None),
        };
        let pattern = |name: &str| ModelPattern::try_from(name.trim().to_owned());
        let asked = pattern(asked).map_err(|_| InvalidMaps::Map)?;
        let served = pattern(served).map_err(|_| InvalidMaps::Map)?;
        let served = served
            .exact()
            .and_then(|name| HeaderText::try_from(name).ok());
        Ok(Self {
            asked,
            served: served.ok_or(InvalidMaps::Map)?,
            effort,
        })
    }
}

impl From<ModelMap> for String {
    fn from(map: ModelMap) -> Self {
        map.to_string()
    }
}

impl fmt::Display for ModelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.asked.as_str(), self.served.as_str())?;
        match self.effort {
            Some(effort) => write!(f, "@{}", effort.as_str()),
            None => Ok(()),
        }
    }
}

// === impl ModelMaps ===

impl ModelMaps {
    /// Returns true if every model serves itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The model that serves `model`; none for one that serves itself.
    pub fn served(&self, model: &str) -> Option<&HeaderText> {
        let map = self.of(model)?;
        (map.served.as_str() != model).then_some(&map.served)
    }

    /// The map that is of `model`.
    pub fn of(&self, model: &str) -> Option<&ModelMap> {
        self.0.iter().find(|map| map.asked.matches(model))
    }

    /// The maps.
    pub fn maps(&self) -> &[ModelMap] {
        &self.0
    }
}

impl TryFrom<Vec<ModelMap>> for ModelMaps {
    type Error = InvalidMaps;

    fn try_from(maps: Vec<ModelMap>) -> Result<Self, InvalidMaps> {
        if maps.len() > MAX_MAPS {
            return Err(InvalidMaps::TooMany);
        }
        Ok(Self(maps))
    }
}

impl From<ModelMaps> for Vec<ModelMap> {
    fn from(maps: ModelMaps) -> Self {
        maps.0
    }
}

// === impl InvalidMaps ===

impl fmt::Display for InvalidMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map => write!(
                f,
                "expected ASKED=SERVED or ASKED=SERVED@EFFORT, as in claude-sonnet-*=gpt-6.1-sol@high: two models of visible ASCII, with * at the end of the first alone"
            ),
            Self::TooMany => write!(f, "expected at most {MAX_MAPS} maps"),
        }
    }
}

impl std::error::Error for InvalidMaps {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn maps(maps: &[&str]) -> ModelMaps {
        let map = |text: &&str| ModelMap::try_from((*text).to_owned()).unwrap();
        ModelMaps::try_from(maps.iter().map(map).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_first_map_of_a_model_serves_it() {
        let maps = maps(&[
            "claude-sonnet-9=gpt-7",
            "gpt-7 = gpt-7",
            "claude-*=gpt-5.6",
            "*=other",
        ]);
        for (asked, served) in [
            ("claude-sonnet-9", Some("gpt-7")),
            ("claude-sonnet-5", Some("gpt-5.6")),
            ("gpt-7", None),
            ("gpt-5.6", Some("other")),
            ("other", None),
        ] {
            let found = maps.served(asked).map(HeaderText::as_str);
            assert_eq!(found, served, "{asked}");
        }
    }

    #[test]
    fn a_map_may_say_how_much_the_model_is_to_think() {
        for (text, served, effort) in [
            ("a=b@high", "b", Some(EffortWord::High)),
            ("a=b@2025@none", "b@2025", Some(EffortWord::None)),
            (
                "a=claude-sonnet-4@20250514",
                "claude-sonnet-4@20250514",
                None,
            ),
            ("a=@cf/meta/llama", "@cf/meta/llama", None),
            ("a = b@MAX ", "b", Some(EffortWord::Max)),
        ] {
            let map = ModelMap::try_from(text.to_owned()).unwrap();
            assert_eq!(
                (map.served.as_str(), map.effort),
                (served, effort),
                "{text}"
            );
            let again = ModelMap::try_from(map.to_string()).unwrap();
            assert_eq!(again, map, "{text}");
        }
        assert!(ModelMap::try_from("a=@high".to_owned()).is_err());
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for bad in [
            "", "a", "=a", "a=", "a=b*", "a*b=c", "a b=c", "a=b c", "*=*",
        ] {
            assert_eq!(
                ModelMap::try_from(bad.to_owned()),
                Err(InvalidMaps::Map),
                "{bad}"
            );
        }
        let many = vec![ModelMap::try_from("a=b".to_owned()).unwrap(); MAX_MAPS + 1];
        assert_eq!(ModelMaps::try_from(many), Err(InvalidMaps::TooMany));
    }

    proptest! {
        /// A map is written as it is read, and what serves a model is named by a map that is of it.
        #[test]
        fn a_map_goes_both_ways(list in prop::collection::vec("[a-c]{0,2}\\*?=[a-c]{1,2}(@low|@x)?", 0..6), model in "[a-c]{1,3}") {
            let read: Vec<ModelMap> = list.into_iter().filter_map(|text| ModelMap::try_from(text).ok()).collect();
            let maps = ModelMaps::try_from(read.clone()).unwrap();
            let text = serde_json::to_string(&maps).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ModelMaps>(&text).unwrap(), &maps);
            let first = read.iter().find(|map| map.asked().matches(&model));
            let expected = first.map(|map| map.served().as_str()).filter(|served| *served != model);
            prop_assert_eq!(maps.served(&model).map(HeaderText::as_str), expected);
        }
    }
}
