//! What becomes of requests: the flags that say so for client keys, pools and accounts, and the words for it.

use clap::{Args, ValueEnum};
use latchkey::snapshot::{ModelMap, ModelMaps};

use super::{Error, Result};
use crate::store::{RuleChange, Rules};

/// The models that others serve.
#[derive(Debug, Args)]
#[group(skip)]
pub struct MapList {
    /// Models that others serve, separated by commas, in place of those before; the first that fits counts:
    /// claude-sonnet-*=gpt-6.1-sol
    #[arg(long, value_name = "ASKED=SERVED", value_delimiter = ',', value_parser = map)]
    maps: Vec<ModelMap>,
    /// Every model serves itself
    #[arg(long, conflicts_with = "maps")]
    no_maps: bool,
}

/// The rules of a client key or a pool.
#[derive(Debug, Args)]
#[group(skip)]
pub struct RuleFlags {
    #[command(flatten)]
    maps: MapList,
    /// Off: only accounts that speak the caller's dialect serve it [default: on]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    translation: Option<Switch>,
    /// On: a model serves itself or is not served, whatever the maps of keys and pools say [default: off]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    exact_model: Option<Switch>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

fn map(text: &str) -> std::result::Result<ModelMap, String> {
    ModelMap::try_from(text.to_owned()).map_err(|error| error.to_string())
}

impl MapList {
    /// The maps, if any were given; none of them means that every model serves itself.
    pub fn given(self) -> Result<Option<ModelMaps>> {
        if self.maps.is_empty() && !self.no_maps {
            return Ok(None);
        }
        let maps = ModelMaps::try_from(self.maps);
        Ok(Some(maps.map_err(|error| Error::Input(error.to_string()))?))
    }
}

impl RuleFlags {
    /// The change that they ask for.
    pub fn change(self) -> Result<RuleChange> {
        Ok(RuleChange {
            maps: self.maps.given()?,
            untranslated: self.translation.map(|switch| switch == Switch::Off),
            exact_model: self.exact_model.map(|switch| switch == Switch::On),
        })
    }
}

/// `claude-*=gpt-6.1-sol, fast=gpt-6-luna`
pub fn maps(maps: &ModelMaps) -> String {
    let texts: Vec<String> = maps.maps().iter().map(ModelMap::to_string).collect();
    texts.join(", ")
}

/// `fast=gpt-6-luna; no translation`; none where nothing is said.
pub fn rules(rules: &Rules) -> Option<String> {
    let own = Some(&rules.maps).filter(|maps| !maps.is_empty());
    let said = [
        own.map(maps),
        rules.untranslated.then(|| "no translation".to_owned()),
        rules.exact_model.then(|| "exact model".to_owned()),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// What a change says, in the words of [`rules`].
pub fn said(change: &RuleChange) -> Vec<String> {
    let word = |flag: Option<bool>, [yes, no]: [&str; 2]| {
        flag.map(|flag| if flag { yes } else { no }.to_owned())
    };
    let said = [
        change.maps.as_ref().map(|set| match set.is_empty() {
            true => "no maps".to_owned(),
            false => maps(set),
        }),
        word(change.untranslated, ["no translation", "translation"]),
        word(change.exact_model, ["exact model", "any model"]),
    ];
    said.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_said_in_one_line() {
        assert_eq!(rules(&Rules::default()), None);
        let all = Rules {
            maps: vec![map("claude-*=gpt-7").unwrap()].try_into().unwrap(),
            untranslated: true,
            exact_model: true,
        };
        assert_eq!(
            rules(&all).unwrap(),
            "claude-*=gpt-7; no translation; exact model"
        );
        let change = RuleChange {
            maps: Some(ModelMaps::default()),
            untranslated: Some(false),
            exact_model: None,
        };
        assert_eq!(said(&change), ["no maps", "translation"]);
    }
}
