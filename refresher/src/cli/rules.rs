//! The rules for requests: the flags that say so for client keys, pools and accounts, and the words for it.

use clap::{Args, ValueEnum};
use latchkey::dialect::{Demands, EffortWord, ServiceTier};
use latchkey::snapshot::{ModelMap, ModelMaps};

use super::{Error, Result};
use crate::advice::shell_word;
use crate::store::{DemandChange, RuleChange, Rules};

/// The models that others serve.
#[derive(Debug, Args)]
#[group(skip)]
pub struct MapList {
    /// Model maps, separated by commas, in place of the old ones; the first match wins, and @EFFORT says how much the model
    /// is to think: claude-sonnet-*=gpt-6.1-sol,fast=gpt-6.1-sol@low
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
    /// On: only the model that is asked for answers; maps of keys and pools to another one do not count, and an answer of
    /// another one is refused [default: off]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    exact_model: Option<Switch>,
}

/// The demands of a client key.
#[derive(Debug, Args)]
#[group(skip)]
pub struct DemandFlags {
    /// The effort with which models think, in place of the caller's: none, minimal, low, medium, high, xhigh or max; any:
    /// the caller's
    #[arg(long, value_name = "WORD|any", value_parser = effort)]
    effort: Option<Setting<EffortWord>>,
    /// The highest effort with which models think: a request for more becomes one for that; any: no bound
    #[arg(long, value_name = "WORD|any", value_parser = effort)]
    max_effort: Option<Setting<EffortWord>>,
    /// The service tier, in place of the caller's: auto, default, flex or priority; any: the caller's
    #[arg(long, value_name = "TIER|any", value_parser = tier)]
    service_tier: Option<Setting<ServiceTier>>,
}

/// A word, or `any` for none.
#[derive(Debug, Clone, Copy)]
struct Setting<T>(Option<T>);

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

fn map(text: &str) -> std::result::Result<ModelMap, String> {
    ModelMap::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// The word that a setting says; the error lists those that it may say.
fn setting<T>(
    text: &str,
    word: Option<T>,
    all: &[&str],
) -> std::result::Result<Setting<T>, String> {
    match word {
        Some(word) => Ok(Setting(Some(word))),
        None if text == "any" => Ok(Setting(None)),
        None => Err(format!("expected any or one of {}", all.join(", "))),
    }
}

fn effort(text: &str) -> std::result::Result<Setting<EffortWord>, String> {
    let all = EffortWord::ALL.map(EffortWord::as_str);
    setting(text, EffortWord::parse(text), &all)
}

fn tier(text: &str) -> std::result::Result<Setting<ServiceTier>, String> {
    let all = ServiceTier::ALL.map(ServiceTier::as_str);
    setting(text, ServiceTier::parse(text), &all)
}

impl DemandFlags {
    /// The change that they ask for.
    pub fn change(&self) -> DemandChange {
        DemandChange {
            effort: self.effort.map(|setting| setting.0),
            max_effort: self.max_effort.map(|setting| setting.0),
            tier: self.service_tier.map(|setting| setting.0),
        }
    }
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

/// `fast=gpt-6-luna; no translation; effort at most medium`; none where nothing is said.
pub fn rules(rules: &Rules, demands: &Demands) -> Option<String> {
    let effort = demands.effort.map(EffortWord::as_str);
    let most = demands.max_effort.map(EffortWord::as_str);
    let tier = demands.tier.map(ServiceTier::as_str);
    let own = Some(&rules.maps).filter(|maps| !maps.is_empty());
    let said = [
        own.map(maps),
        rules.untranslated.then(|| "no translation".to_owned()),
        rules.exact_model.then(|| "exact model".to_owned()),
        effort.map(|word| format!("effort {word}")),
        most.map(|word| format!("effort at most {word}")),
        tier.map(|word| format!("service tier {word}")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// The name of what wants each model to serve itself.
#[derive(Debug, Clone, Copy)]
pub enum Exact<'a> {
    /// A client key.
    Key(&'a str),
    /// A pool.
    Pool(&'a str),
}

impl Exact<'_> {
    fn who(self) -> String {
        match self {
            Self::Key(name) => format!("key {name}"),
            Self::Pool(name) => format!("pool {name}"),
        }
    }

    /// Takes it away, as a shell takes it.
    fn end_command(self) -> String {
        let (noun, name) = match self {
            Self::Key(name) => ("keys", name),
            Self::Pool(name) => ("pools", name),
        };
        format!(
            "refresher {noun} set {} --exact-model off",
            shell_word(name)
        )
    }
}

/// Says what an operator may not see in maps, those of the client key `of` where the command is about another: a
/// word that is no effort, and that nothing comes of them where each model serves itself, as all of `exact` want.
pub fn notes(maps: &ModelMaps, of: Option<&str>, exact: &[Exact<'_>]) -> Vec<String> {
    let efforts = EffortWord::ALL.map(EffortWord::as_str).join(", ");
    let maps = maps.maps();
    let of = of.map(|key| format!(" of key {key}")).unwrap_or_default();
    let no_effort = |map: &ModelMap| {
        let word = no_effort(map)?;
        Some(format!(
            "note: {word:?} of {map}{of} is no effort, so it is part of the model's name; efforts are {efforts}"
        ))
    };
    let is_other = |map: &&ModelMap| map.asked().exact() != Some(map.served().as_str());
    let dead: Vec<String> = maps
        .iter()
        .filter(is_other)
        .map(ModelMap::to_string)
        .collect();
    let idle = (!dead.is_empty() && !exact.is_empty()).then(|| {
        let has = if dead.len() == 1 { "has" } else { "have" };
        let takes = if exact.len() == 1 { "takes" } else { "take" };
        let dead = dead.join(", ");
        let who: Vec<String> = exact.iter().map(|exact| exact.who()).collect();
        let ends: Vec<String> = exact.iter().map(|exact| exact.end_command()).collect();
        let (who, ends) = (who.join(" and "), ends.join("; "));
        format!("note: {who} {takes} exact models only, so {dead}{of} {has} no effect; to allow maps, run: {ends}")
    });
    maps.iter().filter_map(no_effort).chain(idle).collect()
}

/// The word that stands where a map's effort would, and looks like one: a part of a model's name has digits there, as
/// `@20250514`, or nothing before it, as `@cf/meta/llama`.
fn no_effort(map: &ModelMap) -> Option<&str> {
    let (name, word) = map.served().as_str().rsplit_once('@')?;
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    (map.effort().is_none() && is_word && !name.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_an_effort_and_is_none_is_told() {
        let of = |text: &str| {
            let maps = ModelMaps::try_from(vec![map(text).unwrap()]).unwrap();
            notes(&maps, None, &[])
        };
        let expected = "note: \"hgih\" of a=b@hgih is no effort, so it is part of the model's name; efforts are none, minimal, \
                        low, medium, high, xhigh, max";
        assert_eq!(of("a=b@hgih"), [expected]);
        for fine in [
            "a=b@high",
            "a=b@20250514",
            "a=@cf/meta/llama",
            "a=@cf",
            "a=b",
            "a=b@",
        ] {
            assert!(of(fine).is_empty(), "{fine}");
        }
    }

    #[test]
    fn maps_that_nothing_comes_of_are_told() {
        let given = ["a=b", "c=c@low", "*=d"].map(|text| map(text).unwrap());
        let maps = ModelMaps::try_from(given.to_vec()).unwrap();
        let (key, pool) = (Exact::Key("my ci"), Exact::Pool("p"));
        assert_eq!(
            notes(&maps, None, &[pool]),
            [
                "note: pool p takes exact models only, so a=b, *=d have no effect; to allow maps, run: refresher pools set p \
                 --exact-model off"
            ]
        );
        assert_eq!(
            notes(&maps, Some("my ci"), &[key, pool]),
            [
                "note: key my ci and pool p take exact models only, so a=b, *=d of key my ci have no effect; to allow maps, \
                 run: refresher keys set 'my ci' --exact-model off; refresher pools set p --exact-model off"
            ]
        );
        assert!(notes(&maps, None, &[]).is_empty());
    }

    #[test]
    fn rules_are_said_in_one_line() {
        assert_eq!(rules(&Rules::default(), &Demands::default()), None);
        let all = Rules {
            maps: vec![map("claude-*=gpt-7").unwrap()].try_into().unwrap(),
            untranslated: true,
            exact_model: true,
        };
        let demands = Demands {
            effort: None,
            max_effort: effort("low").unwrap().0,
            tier: tier("flex").unwrap().0,
        };
        assert_eq!(
            rules(&all, &demands).unwrap(),
            "claude-*=gpt-7; no translation; exact model; effort at most low; service tier flex"
        );
        assert!(effort("any").unwrap().0.is_none() && effort("much").is_err());
    }
}
