//! The accent with which a platform speaks a dialect: how its form differs from that of the dialect's maker.
//!
//! It is data of the platform's profile, by model, and steers what is written for it. Names, kinds and
//! meanings are those of [`MEMBERS`]; docs/profiles.md tells them to operators.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::text::decimal::decimal;

/// Members of an accent, and what each of them may be.
pub const MEMBERS: &[(&str, MemberForm)] = &[
    (MAX_TOKENS_FIELD, MemberForm::Name),
    (
        SYSTEM_ROLE,
        MemberForm::One(&["system", "developer", "user"]),
    ),
    (SYSTEM_BETWEEN, MemberForm::Flag),
    (
        TOOL_CHOICE,
        MemberForm::Some(&["auto", "none", "required", "one", "some"]),
    ),
    (CONTENT, MemberForm::One(&["text", "parts", "text_alone"])),
    (REASONING_IN, MemberForm::Name),
    (REASONING_REQUIRED, MemberForm::Flag),
    (EFFORTS, MemberForm::Some(EFFORT_WORDS)),
    (EFFORT, MemberForm::Efforts),
    (APART, MemberForm::Names),
    (THINKING, MemberForm::One(&["adaptive", "budget", "none"])),
    (FORCED_WITH_THINKING, MemberForm::Flag),
    (
        SCHEMA,
        MemberForm::One(&["native", "json_object", "tool", "none"]),
    ),
    (STRICT, MemberForm::Flag),
    (MAX_TEMPERATURE, MemberForm::Number),
    (ONE_SAMPLER, MemberForm::Flag),
    (MAX_OUTPUT, MemberForm::Number),
    (ID_MAX, MemberForm::Number),
    (ID_LENGTH, MemberForm::Number),
    (NAME_MAX, MemberForm::Number),
    (TAKES, MemberForm::Names),
    (REFUSES, MemberForm::Names),
    (SIGNED_CALLS, MemberForm::Flag),
    (MEDIA_IN_RESULTS, MemberForm::Flag),
    (FORM_OR_TOOLS, MemberForm::Flag),
    (UNNAMED_MODEL, MemberForm::Flag),
    (SET, MemberForm::Members),
];

/// The member that bounds the answer's tokens.
pub const MAX_TOKENS_FIELD: &str = "max_tokens_field";
/// The role of the messages that are the operator's.
pub const SYSTEM_ROLE: &str = "system_role";
/// Such a message may stand between turns.
pub const SYSTEM_BETWEEN: &str = "system_between";
/// The forms of `tool_choice` that are taken.
pub const TOOL_CHOICE: &str = "tool_choice";
/// The content of messages: text where there is nothing else, parts always, or nothing but text.
pub const CONTENT: &str = "content";
/// The member in which the platform wants back what the model thought.
pub const REASONING_IN: &str = "reasoning_in";
/// The platform wants that of each message of the model's.
pub const REASONING_REQUIRED: &str = "reasoning_required";
/// The words for how much the model is to think that are taken as they are.
pub const EFFORTS: &str = "efforts";
/// The members that say it instead, by those words.
pub const EFFORT: &str = "effort";
/// Members that say it of which a request may have one.
pub const APART: &str = "apart";
/// The form in which `messages` says it.
pub const THINKING: &str = "thinking";
/// A model that thinks may be made to call a tool.
pub const FORCED_WITH_THINKING: &str = "forced_with_thinking";
/// The form in which a schema of the answer is said.
pub const SCHEMA: &str = "schema";
/// Tools and schemas may be marked as strict.
pub const STRICT: &str = "strict";
/// The highest temperature.
const MAX_TEMPERATURE: &str = "max_temperature";
/// Only one of `temperature` and `top_p` is taken.
pub const ONE_SAMPLER: &str = "one_sampler";
/// The most tokens of an answer.
pub const MAX_OUTPUT: &str = "max_output";
/// The longest id of a call.
pub const ID_MAX: &str = "id_max";
/// The length that each id of a call has: of letters and digits alone.
pub const ID_LENGTH: &str = "id_length";
/// The longest name of a tool.
pub const NAME_MAX: &str = "name_max";
/// Members that are taken, and not everywhere else.
pub const TAKES: &str = "takes";
/// Members that are not taken.
pub const REFUSES: &str = "refuses";
/// The first call of each of the model's turns has to have a signature, or what stands for one that was lost.
pub const SIGNED_CALLS: &str = "signed_calls";
/// The result of a call may have pictures and documents in it.
pub const MEDIA_IN_RESULTS: &str = "media_in_results";
/// A request may have a form for the answer or tools, and not both.
pub const FORM_OR_TOOLS: &str = "form_or_tools";
/// Its answers do not say which model they are from.
pub const UNNAMED_MODEL: &str = "unnamed_model";
/// Members that every request has.
pub const SET: &str = "set";

/// The words for how much a model is to think, from less to more.
pub const EFFORT_WORDS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// Members of a request that an accent may not set: they are its meaning.
const OWN: &[&str] = &[
    "model", "messages", "stream", "tools", "system", "input", "contents",
];

/// The forms that a member of an accent may have.
#[derive(Debug, Clone, Copy)]
pub enum MemberForm {
    /// `true` or `false`.
    Flag,
    /// A number that is not negative.
    Number,
    /// The name of a member.
    Name,
    /// Names of members.
    Names,
    /// One of these words.
    One(&'static [&'static str]),
    /// Some of these words.
    Some(&'static [&'static str]),
    /// Members of a request with their values.
    Members,
    /// The same for each of the [`EFFORT_WORDS`] that is there.
    Efforts,
}

/// An accent, as far as something is said of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Accent(Map<String, Value>);

// === impl Accent ===

impl Accent {
    /// Reads an accent that is written so.
    ///
    /// # Errors
    /// The member that is wrong, and what was expected there.
    pub fn parse(members: Map<String, Value>) -> Result<Self, (String, String)> {
        for (name, value) in &members {
            let known = MEMBERS.iter().find(|(known, _)| known == name);
            let Some((_, form)) = known else {
                let known: Vec<_> = MEMBERS.iter().map(|(known, _)| *known).collect();
                return Err((
                    name.clone(),
                    format!("expected one of {}", known.join(", ")),
                ));
            };
            if !form.fits(value) {
                return Err((name.clone(), form.expected()));
            }
        }
        Ok(Self(members))
    }

    /// Takes what `other` says and this does not.
    pub fn complete(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            if !self.0.contains_key(name) {
                self.0.insert(name.clone(), value.clone());
            }
        }
    }

    /// Returns true if nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A flag, `false` if it is not said.
    #[inline(never)]
    pub fn flag(&self, name: &str) -> bool {
        self.0
            .get(name)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }

    /// A word or a name.
    #[inline(never)]
    pub fn word(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A whole number.
    #[inline(never)]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// A temperature, no higher than the platform takes it.
    pub fn temperature<'n>(&self, number: &'n str) -> Cow<'n, str> {
        let Some(most) = self.0.get(MAX_TEMPERATURE).and_then(Value::as_f64) else {
            return number.into();
        };
        match decimal(number) {
            Some(asked) if asked > most => most.to_string().into(),
            _ => number.into(),
        }
    }

    /// Words; none if nothing is said of them.
    #[inline(never)]
    pub fn words(&self, name: &str) -> Option<Vec<&str>> {
        let words = self.0.get(name)?.as_array()?;
        Some(words.iter().filter_map(Value::as_str).collect())
    }

    /// Returns true if the list of that name has this word.
    #[inline(never)]
    pub fn has(&self, name: &str, word: &str) -> bool {
        let list = self.0.get(name).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|value| value == word))
    }

    /// The members that every request has.
    pub fn set(&self) -> Option<&Map<String, Value>> {
        self.0.get(SET)?.as_object()
    }

    /// The members that say a word of effort.
    pub fn effort(&self, word: &str) -> Option<&Map<String, Value>> {
        self.0.get(EFFORT)?.get(word)?.as_object()
    }

    /// The members of the platform's own that say an effort, for each word of it.
    pub fn efforts(&self) -> impl Iterator<Item = &Map<String, Value>> {
        let efforts = self.0.get(EFFORT).and_then(Value::as_object);
        let efforts = efforts.into_iter().flat_map(Map::values);
        efforts.filter_map(Value::as_object)
    }

    /// The word of effort for no more than this one. A platform that says it in members of its own, and does not know so
    /// little, can tell its models not to think at all.
    pub fn most_effort(&self, word: &str) -> Option<&'static str> {
        let nearest = self.nearest_effort(word)?;
        let place = |word: &str| EFFORT_WORDS.iter().position(|known| *known == word);
        let none = EFFORT_WORDS.first().copied();
        let none = none.filter(|none| self.effort(none).is_some());
        let is_more = place(nearest) > place(word);
        none.filter(|_| is_more).or(Some(nearest))
    }

    /// The word of effort that the platform takes in place of this one: the next one that is less, else its
    /// least. None if it takes none.
    pub fn nearest_effort(&self, word: &str) -> Option<&'static str> {
        let by_members = self.0.get(EFFORT).and_then(Value::as_object);
        let takes = |word: &&&str| match by_members {
            Some(members) => members.contains_key(**word),
            None => self.has(EFFORTS, word),
        };
        let wanted = EFFORT_WORDS.iter().position(|known| *known == word)?;
        let (less, more) = EFFORT_WORDS.split_at(wanted.saturating_add(1));
        // Only who asks for no reasoning at all gets none.
        let less = less.iter().filter(|less| wanted == 0 || **less != "none");
        let nearest = less.rev().find(takes);
        nearest.or_else(|| more.iter().find(takes)).copied()
    }
}

// === impl MemberForm ===

impl MemberForm {
    fn fits(self, value: &Value) -> bool {
        let is_name = |value: &Value| {
            let legal =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            value
                .as_str()
                .is_some_and(|name| (1..=64).contains(&name.len()) && name.bytes().all(legal))
        };
        let is_of = |words: &[&str], value: &Value| {
            value.as_str().is_some_and(|word| words.contains(&word))
        };
        let all = |value: &Value, fits: &dyn Fn(&Value) -> bool| {
            value.as_array().is_some_and(|list| list.iter().all(fits))
        };
        let is_legal = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            !OWN.contains(&name) && name.bytes().all(plain)
        };
        let are_members = |value: &Value| {
            value
                .as_object()
                .is_some_and(|members| members.keys().all(|name| is_legal(name)))
        };
        match self {
            Self::Flag => value.is_boolean(),
            Self::Number => value.as_f64().is_some_and(|number| number >= 0.0),
            Self::Name => is_name(value),
            Self::Names => all(value, &is_name),
            Self::One(words) => is_of(words, value),
            Self::Some(words) => all(value, &|value| is_of(words, value)),
            Self::Members => are_members(value),
            Self::Efforts => value.as_object().is_some_and(|efforts| {
                efforts.iter().all(|(word, value)| {
                    EFFORT_WORDS.contains(&word.as_str()) && are_members(value)
                })
            }),
        }
    }

    fn expected(self) -> String {
        let own = OWN.join(", ");
        match self {
            Self::Flag => "expected true or false".to_owned(),
            Self::Number => "expected a number that is not negative".to_owned(),
            Self::Name => "expected the name of a member, of a-z, 0-9 and _".to_owned(),
            Self::Names => "expected a list of names of members, of a-z, 0-9 and _".to_owned(),
            Self::One(words) => format!("expected one of {}", words.join(", ")),
            Self::Some(words) => format!("expected a list of some of {}", words.join(", ")),
            Self::Members => format!("expected a table of members of a request, and none of {own}"),
            Self::Efforts => format!(
                "expected a table of tables of members, by some of {}; none of {own} among the members",
                EFFORT_WORDS.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn accent(value: &Value) -> Result<Accent, (String, String)> {
        Accent::parse(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_member_that_is_wrong_is_named_with_what_was_expected() {
        for (value, name, says) in [
            (
                json!({"sytem_role": "user"}),
                "sytem_role",
                "expected one of max_tokens_field,",
            ),
            (
                json!({"system_role": "robot"}),
                "system_role",
                "expected one of system, developer, user",
            ),
            (json!({"strict": 1}), "strict", "expected true or false"),
            (
                json!({"tool_choice": ["auto", "any"]}),
                "tool_choice",
                "some of auto, none",
            ),
            (json!({"max_output": -1}), "max_output", "not negative"),
            (json!({"refuses": ["Top P"]}), "refuses", "names of members"),
            (
                json!({"set": {"messages": []}}),
                "set",
                "none of model, messages",
            ),
            (
                json!({"effort": {"much": {}}}),
                "effort",
                "none, minimal, low",
            ),
        ] {
            let (found, expected) = accent(&value).unwrap_err();
            assert_eq!(found, name);
            assert!(expected.contains(says), "{expected}");
        }
    }

    #[test]
    fn what_is_said_first_counts() {
        let mut first = accent(&json!({"strict": false, "refuses": ["stop"]})).unwrap();
        first.complete(&accent(&json!({"strict": true, "id_max": 40})).unwrap());
        assert!(!first.flag(STRICT) && first.has(REFUSES, "stop"));
        assert_eq!(first.number(ID_MAX), Some(40));
    }

    #[test]
    fn an_effort_that_is_not_taken_becomes_the_next_that_is_less() {
        let some = accent(&json!({"efforts": ["low", "high"]})).unwrap();
        let nearest = |word| some.nearest_effort(word);
        assert_eq!(nearest("max"), Some("high"));
        assert_eq!(nearest("medium"), Some("low"));
        assert_eq!(nearest("none"), Some("low"));
        assert_eq!(nearest("much"), None);
        assert_eq!(Accent::default().nearest_effort("low"), None);
        let members =
            accent(&json!({"effort": {"none": {"thinking": {"type": "disabled"}}}})).unwrap();
        assert_eq!(members.nearest_effort("max"), None);
        assert_eq!(members.nearest_effort("none"), Some("none"));
        let few = accent(&json!({"efforts": ["none", "high"]})).unwrap();
        assert_eq!(few.nearest_effort("minimal"), Some("high"));
        assert_eq!(few.most_effort("minimal"), Some("high"), "in a word");
        let switched = accent(&json!({"effort": {"none": {"x": 1}, "high": {"x": 2}}})).unwrap();
        assert_eq!(switched.nearest_effort("low"), Some("high"));
        assert_eq!(switched.most_effort("low"), Some("none"));
        assert_eq!(switched.most_effort("max"), Some("high"));
        assert_eq!(switched.efforts().count(), 2);
        assert_eq!(
            members.effort("none").unwrap()["thinking"]["type"],
            "disabled"
        );
    }
}
