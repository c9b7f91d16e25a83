//! The model that an answer says has served it, for who wants the one that was asked for or none.
//!
//! # The same model
//!
//! An answer is the asked model's where it names that, or what the account's maps call it. Case of letters does not
//! matter, nor what stands before the last `/` where either name has nothing there or `models` is its last part:
//! `gpt-5.6`, `openai/gpt-5.6`, `models/gpt-5.6` and `publishers/openai/models/gpt-5.6` are one, `a/gpt-5.6` and
//! `b/gpt-5.6` are two. The answer may name a snapshot of it, behind `-` or `@`: a date (`2026-03-01`, `20260301`,
//! `260301`, `0301` for a month and a day, `2603` for a year and a month) or a revision of three digits (`001`).
//! `-latest` of what is asked for stands for any. All else is another model: `gpt-5.6-mini` is not `gpt-5.6`, and of two
//! snapshots neither is the other.
//!
//! # What names none
//!
//! It is let through where the platform is known for that (`unnamed_model` of the accent), and nowhere else.
//!
//! # Headers
//!
//! A platform may name the model in a header besides (`headers.model` of the profile): the answer is another model's where
//! either does so.

use std::ops::RangeInclusive;

use super::forwarding::Forwarding;
use crate::{header::HeaderText, label::ModelName, verdict::Look};

/// Reads the beginning of one answer.
#[derive(Debug)]
pub struct ServedModel {
    /// The names that the model has: its caller's, and the platform's.
    names: Vec<HeaderText>,
    /// The platform names none.
    may_be_unnamed: bool,
    /// Another one, which the headers name.
    another: Option<ModelName>,
    /// The answer, as it goes on if it is the model's.
    answer: Forwarding,
}

/// An answer of another model than was asked for: this one, if it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Another(pub Option<ModelName>);

// === impl ServedModel ===

impl ServedModel {
    /// Reads an `answer` to a request for the model of these names. `may_be_unnamed`: the platform names none.
    pub fn new(names: Vec<HeaderText>, may_be_unnamed: bool, answer: Forwarding) -> Self {
        Self {
            names,
            may_be_unnamed,
            another: None,
            answer,
        }
    }

    /// Reads a header that names the model. One that can be no name says nothing: the body is to name it.
    pub fn read_header(&mut self, value: &[u8]) {
        let model = std::str::from_utf8(value.trim_ascii()).ok();
        let model = model.and_then(|model| ModelName::try_from(model).ok());
        if let Some(model) = model.filter(|model| !self.is_asked(model.as_str())) {
            self.another = Some(model);
        }
    }

    /// Reads the next bytes of the answer.
    pub fn read(&mut self, new: &[u8]) {
        self.answer.read_ahead(new);
    }

    /// Judges the model of the answer that `looked` like this. `is_enough`: no more of it may be held.
    ///
    /// # Errors
    /// It is another model's.
    pub fn look(&self, looked: Look, is_enough: bool) -> Result<Look, Another> {
        if !matches!(looked, Look::Fine | Look::NeedMore) {
            return Ok(looked);
        }
        if let Some(model) = &self.another {
            return Err(Another(Some(model.clone())));
        }
        match self.answer.model() {
            Some(model) if !self.is_asked(model.as_str()) => Err(Another(Some(model.clone()))),
            Some(_) => Ok(looked),
            None if self.may_be_unnamed => Ok(looked),
            // Of an answer in one piece the model may stand behind the text.
            None if !is_enough && (looked == Look::NeedMore || self.answer.is_json()) => {
                Ok(Look::NeedMore)
            }
            None => Err(Another(None)),
        }
    }

    /// Returns true if the answer is one JSON text.
    pub fn is_json(&self) -> bool {
        self.answer.is_json()
    }

    /// The answer, as far as it was read.
    pub fn into_answer(self) -> Forwarding {
        self.answer
    }

    /// Returns true if the model is known, or nothing more of the answer could tell it.
    pub fn is_known(&self) -> bool {
        self.may_be_unnamed || self.answer.model().is_some()
    }

    fn is_asked(&self, model: &str) -> bool {
        let mut names = self.names.iter();
        names.any(|name| is_same(name.as_str(), model))
    }
}

/// Returns true if `served`, the name that an answer has, is the model that was `asked` for.
fn is_same(asked: &str, served: &str) -> bool {
    let (asked_of, asked) = parted(asked);
    let (served_of, served) = parted(served);
    let differ = asked_of.zip(served_of);
    if differ.is_some_and(|(one, other)| !one.eq_ignore_ascii_case(other)) {
        return false;
    }
    if served.eq_ignore_ascii_case(asked) {
        return true;
    }
    let asked = asked.strip_suffix("-latest").unwrap_or(asked);
    let Some((name, rest)) = served.split_at_checked(asked.len()) else {
        return false;
    };
    let snapshot = rest.strip_prefix(['-', '@']);
    name.eq_ignore_ascii_case(asked) && (rest.is_empty() || snapshot.is_some_and(is_snapshot))
}

/// The publisher of a model, where one is named, and its name.
fn parted(model: &str) -> (Option<&str>, &str) {
    match model.rsplit_once('/') {
        None => (None, model),
        Some((before, name)) => {
            let last = before.rsplit('/').next();
            (last.filter(|last| *last != "models"), name)
        }
    }
}

/// Returns true if the text is the name of a snapshot.
fn is_snapshot(text: &str) -> bool {
    const YEARS: RangeInclusive<u8> = 20..=49;
    const MONTHS: RangeInclusive<u8> = 1..=12;
    const DAYS: RangeInclusive<u8> = 1..=31;
    let mut digits = text.bytes().collect::<Vec<u8>>();
    if let [_, _, _, _, b'-', _, _, b'-', _, _] = digits.as_slice() {
        digits.retain(|byte| *byte != b'-');
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let two = |pair: &[u8]| {
        let tens = pair.first().map_or(0, |digit| digit.saturating_sub(b'0'));
        let ones = pair.last().map_or(0, |digit| digit.saturating_sub(b'0'));
        tens.saturating_mul(10).saturating_add(ones)
    };
    let pairs: Vec<u8> = digits.chunks(2).map(two).collect();
    match (digits.len(), pairs.as_slice()) {
        (3, _) => true,
        (4, [first, second]) => {
            (MONTHS.contains(first) && DAYS.contains(second))
                || (YEARS.contains(first) && MONTHS.contains(second))
        }
        (6, [year, month, day]) | (8, [20, year, month, day]) => {
            YEARS.contains(year) && MONTHS.contains(month) && DAYS.contains(day)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{attempt::usage_ask::UsageAsk, dialect::Dialect};

    /// What reads an answer of this dialect to a request for the model of these names.
    fn served(dialect: Dialect, names: &[&str], unnamed: bool) -> ServedModel {
        let names = names
            .iter()
            .map(|name| HeaderText::try_from(*name).unwrap());
        let answer = Forwarding::new(dialect, UsageAsk::NotAsked);
        ServedModel::new(names.collect(), unnamed, answer)
    }

    #[test]
    fn a_snapshot_of_a_model_is_the_model() {
        for (asked, served) in [
            ("gpt-5.6", "gpt-5.6"),
            ("gpt-5.6", "gpt-5.6-2026-03-01"),
            ("claude-x", "claude-x-20260301"),
            ("claude-x", "claude-x@20260301"),
            ("claude-x", "Claude-X"),
            ("claude-x-latest", "claude-x-20260301"),
            ("claude-x-latest", "claude-x-latest"),
            ("doubao-seed-1-6", "doubao-seed-1-6-250615"),
            ("grok-4", "grok-4-0709"),
            ("mistral-large", "mistral-large-2411"),
            ("gemini-2.0-flash", "models/gemini-2.0-flash-001"),
            ("models/gemini-x", "gemini-x"),
            ("gpt-5.6", "openai/gpt-5.6-2026-03-01"),
            ("openai/gpt-5.6", "gpt-5.6"),
            ("openai/gpt-5.6", "OpenAI/gpt-5.6"),
            ("google/gemini-x", "publishers/google/models/gemini-x"),
            ("accounts/fireworks/models/kimi-k3", "kimi-k3"),
            ("qwen3:8b", "qwen3:8b"),
        ] {
            assert!(is_same(asked, served), "{asked} {served}");
        }
    }

    #[test]
    fn all_else_is_another_model() {
        for (asked, served) in [
            ("gpt-5.6", "gpt-5.6-mini"),
            ("gpt-5.6", "gpt-5"),
            ("gpt-5", "gpt-5.6"),
            ("gpt-5.6", "gpt-5.62026-03-01"),
            ("gpt-5.6", "gpt-5.6-2026-13-01"),
            ("gpt-5.6", "gpt-5.6-20260301-mini"),
            ("gpt-5.6", "gpt-5.6-"),
            ("gpt-4", "gpt-4-32k"),
            ("gpt-4", "gpt-4-1399"),
            ("gpt-5.6-2026-03-01", "gpt-5.6"),
            ("gpt-5.6-2026-03-01", "gpt-5.6-2026-04-01"),
            ("openai/gpt-5.6", "other/gpt-5.6"),
            ("qwen3", "qwen3:8b"),
            ("qwen3:8b", "qwen3:4b"),
            ("auto", "gpt-5.6"),
            ("gpt-5.6", ""),
        ] {
            assert!(!is_same(asked, served), "{asked} {served}");
        }
    }

    fn looked(
        dialect: Dialect,
        text: &str,
        is_enough: bool,
        unnamed: bool,
    ) -> Result<Look, Another> {
        let mut served = served(dialect, &["gpt-5.6", "east-7"], unnamed);
        for chunk in text.as_bytes().chunks(5) {
            served.read(chunk);
        }
        served.look(Look::Fine, is_enough)
    }

    #[test]
    fn each_dialect_names_the_model_at_its_place() {
        let named = |dialect, text: &str| looked(dialect, &text.replace('\'', "\""), true, false);
        let another = ModelName::try_from("gpt-5").unwrap();
        for (dialect, text) in [
            (Dialect::Chat, "{'id':'1','model':'MODEL','choices':["),
            (Dialect::Chat, "{'choices':[{'model':'x'}],'model':'MODEL'}"),
            (
                Dialect::Chat,
                "data: {'model':'','choices':[]}\n\ndata: {'model':'MODEL','choices':[{'delta':{'content':'x'}}]}\n\n",
            ),
            (
                Dialect::Responses,
                "event: response.created\ndata: {'type':'response.created','response':{'model':'MODEL'}}\n\n",
            ),
            (
                Dialect::Messages,
                "event: message_start\ndata: {'type':'message_start','message':{'model':'MODEL'}}\n\n",
            ),
            (
                Dialect::Gemini,
                "data: {'candidates':[{'content':{}}],'modelVersion':'MODEL'}\n\n",
            ),
            (
                Dialect::Gemini,
                "[{'candidates':[{'content':{}}],'modelVersion':'MODEL'}",
            ),
        ] {
            for good in ["gpt-5.6", "gpt-5.6-2026-03-01", "east-7"] {
                assert_eq!(
                    named(dialect, &text.replace("MODEL", good)),
                    Ok(Look::Fine),
                    "{text}"
                );
            }
            let other = named(dialect, &text.replace("MODEL", "gpt-5"));
            assert_eq!(other, Err(Another(Some(another.clone()))), "{text}");
        }
    }

    #[test]
    fn an_answer_that_names_none_is_read_on_and_then_refused() {
        let json = r#"{"choices":[{"message":{"content":"x"#;
        let events = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
        let none = Err(Another(None));
        assert_eq!(
            looked(Dialect::Chat, json, false, false),
            Ok(Look::NeedMore)
        );
        assert_eq!(looked(Dialect::Chat, json, true, false), none);
        assert_eq!(looked(Dialect::Chat, events, false, false), none);
        for text in [json, events] {
            assert_eq!(looked(Dialect::Chat, text, false, true), Ok(Look::Fine));
        }
        let compressed = "\u{1f}\u{8b}model";
        assert_eq!(looked(Dialect::Chat, compressed, false, false), none);
        // What is an error or nothing stays that.
        let served = served(Dialect::Chat, &[], false);
        assert_eq!(served.look(Look::Empty, true), Ok(Look::Empty));
        assert_eq!(served.look(Look::NeedMore, false), Ok(Look::NeedMore));
    }

    #[test]
    fn a_header_names_another_model_and_never_stands_for_the_body() {
        let looked = |values: &[&[u8]], body: &str| {
            let mut served = served(Dialect::Responses, &["gpt-5.6"], false);
            values.iter().for_each(|value| served.read_header(value));
            served.read(body.as_bytes());
            served.look(Look::Fine, true)
        };
        let (named, unnamed) = (r#"{"model":"gpt-5.6"}"#, "{}");
        let other = Err(Another(ModelName::try_from("gpt-5").ok()));
        for (values, body, expected) in [
            (&[][..], named, Ok(Look::Fine)),
            (&[&b"gpt-5.6"[..]], named, Ok(Look::Fine)),
            (&[b" gpt-5.6-2026-03-01 "], named, Ok(Look::Fine)),
            (&[b"gpt-5"], named, other.clone()),
            (&[b"gpt-5", b"gpt-5.6"], named, other.clone()),
            (&[b"gpt-5.6", b"gpt-5"], named, other.clone()),
            (&[b"gpt-5"], unnamed, other),
            (&[b"", b"\xff"], named, Ok(Look::Fine)),
            (&[b"gpt-5.6"], unnamed, Err(Another(None))),
        ] {
            assert_eq!(looked(values, body), expected, "{values:?}");
        }
        // An error, or nothing, is what it is.
        let mut served = served(Dialect::Chat, &[], false);
        served.read_header(b"gpt-5");
        assert_eq!(served.look(Look::Empty, true), Ok(Look::Empty));
    }

    proptest! {
        #[test]
        fn no_names_panic_and_each_is_its_own(asked: String, served: String) {
            is_same(&asked, &served);
            prop_assert!(is_same(&asked, &asked));
        }
    }
}
