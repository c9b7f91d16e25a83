//! A JSON text in which some members have other values, and every other byte is as it was.
//!
//! Names are compared without their case and their underscores: readers take some for the same that are not written
//! alike (`thinkingBudget`, `thinking_budget`; Go's takes any case). Of a member that is there twice both are changed. One
//! that only some readers find does not keep that from being made which all find.

use std::ops::Range;

use serde::de::IgnoredAny;

use super::{
    folded,
    json::{Lexer, Token},
    tree::characters,
};

/// The most bytes by which a text may grow: the names and values of a few members. One that has them a thousand times
/// is nobody's.
const MAX_GROWTH: usize = 64 * 1024;

/// The most edits of one text: each is a bit.
pub const MAX_EDITS: usize = 32;

/// Another value for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The names of the objects around it, and its own, outermost first. None of two edits of a text leads through the
    /// other's member.
    pub path: Vec<String>,
    /// The value, in JSON.
    pub value: String,
    /// The members that get it.
    pub place: Place,
}

/// The members that an edit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Those that are strings.
    Text,
    /// Those that are there.
    There,
    /// Those that are there; where there is none, it is made, with the objects around it.
    Anywhere,
}

/// What is met on the way through a text.
enum Met {
    /// A value of the path `which`.
    Value { which: usize, range: Range<usize> },
    /// What stands in place of the object behind `level` steps of it.
    Blocked {
        which: usize,
        level: usize,
        range: Range<usize>,
    },
    /// The end of the object behind `level` steps of it, which does not have the next one; `follows`: it has others.
    Absent {
        which: usize,
        level: usize,
        at: usize,
        follows: bool,
    },
}

/// An object that a path leads into.
struct Level {
    /// The paths that do, each a bit.
    leads: u32,
    /// Those of them whose next step was met.
    met: u32,
    /// The member whose value comes, if one does.
    member: Option<Member>,
    follows: bool,
}

/// A member on the way of paths, each a bit.
#[derive(Clone, Copy)]
struct Member {
    /// Those whose step some reader takes its name for.
    on: u32,
    /// Those of them whose step every reader does.
    named: u32,
    /// The place at which its value begins.
    start: usize,
}

/// The text with these edits; none for one that is no object of JSON, or would grow by more than 64 KiB.
pub fn edited(body: &[u8], edits: &[Edit]) -> Option<Vec<u8>> {
    let paths: Vec<&[String]> = edits.iter().map(|edit| edit.path.as_slice()).collect();
    let mut made = Vec::with_capacity(body.len().saturating_add(256));
    let (mut copied, mut last_insert) = (0_usize, None);
    let mut grown = 0_usize;
    walk(body, &paths, &mut |met| {
        if grown > MAX_GROWTH {
            return None;
        }
        let which = match &met {
            Met::Value { which, .. } | Met::Blocked { which, .. } | Met::Absent { which, .. } => {
                *which
            }
        };
        let edit = edits.get(which)?;
        let (range, text) = match met {
            Met::Value { range, .. } => {
                let is_text = body.get(range.start) == Some(&b'"');
                let is_meant = is_text || edit.place != Place::Text;
                (range, is_meant.then(|| edit.value.clone())?)
            }
            Met::Blocked { level, range, .. } => {
                let is_null = body.get(range.clone()) == Some(b"null");
                let is_meant = is_null && edit.place == Place::Anywhere;
                (range, is_meant.then(|| edit.nested(level))?)
            }
            Met::Absent {
                level, at, follows, ..
            } => {
                let is_meant = edit.place == Place::Anywhere;
                let nested = is_meant.then(|| edit.nested(level))?;
                let member = nested.get(1..nested.len().saturating_sub(1))?;
                let comma = follows || last_insert.replace(at) == Some(at);
                (at..at, format!("{}{member}", if comma { "," } else { "" }))
            }
        };
        grown = grown.saturating_add(text.len().saturating_sub(range.len()));
        made.extend_from_slice(body.get(copied..range.start)?);
        made.extend_from_slice(text.as_bytes());
        copied = range.end;
        Some(())
    })?;
    if grown > MAX_GROWTH {
        return None;
    }
    made.extend_from_slice(body.get(copied..)?);
    Some(made)
}

/// Shows every value at one of these paths, with the number of that; none for a text that is no object of JSON.
pub fn each<'b>(
    body: &'b [u8],
    paths: &[&[String]],
    shown: &mut dyn FnMut(usize, &'b [u8]),
) -> Option<()> {
    walk(body, paths, &mut |met| {
        if let Met::Value { which, range } = met {
            shown(which, body.get(range)?);
        }
        Some(())
    })
}

// === impl Edit ===

impl Edit {
    /// The object that has the value behind the steps from `level` on.
    fn nested(&self, level: usize) -> String {
        let steps = self.path.get(level..).unwrap_or_default();
        let mut text = self.value.clone();
        for name in steps.iter().rev() {
            text = format!("{{\"{name}\":{text}}}");
        }
        text
    }
}

/// Goes through a text once.
fn walk(body: &[u8], paths: &[&[String]], on: &mut dyn FnMut(Met) -> Option<()>) -> Option<()> {
    serde_json::from_slice::<IgnoredAny>(body).ok()?;
    body.trim_ascii_start().starts_with(b"{").then_some(())?;
    let bits = |of: u32| (0..paths.len().min(MAX_EDITS)).filter(move |which| of >> which & 1 == 1);
    let all = (0..paths.len().min(MAX_EDITS)).fold(0_u32, |all, which| all | 1 << which);
    let (mut lexer, mut rest) = (Lexer::default(), body);
    let (mut levels, mut outside): (Vec<Level>, u32) = (Vec::new(), 0);
    let mut string: &[u8] = b"";
    while let Some(token) = lexer.next(&mut rest) {
        let at = body.len().saturating_sub(rest.len());
        let depth = levels.len();
        let before = at.saturating_sub(1);
        match token {
            Token::Text { raw, .. } => string = raw,
            Token::Colon if outside == 0 => {
                let level = levels.last_mut()?;
                let step = |which: usize| paths.get(which)?.get(depth.saturating_sub(1));
                let is_named =
                    |which: &usize| step(*which).is_some_and(|name| is_name(name, string));
                let mask = |on: u32, which: usize| on | 1 << which;
                let is_on = |which: &usize| step(*which).is_some_and(|name| is_same(name, string));
                let on = bits(level.leads).filter(is_on).fold(0_u32, mask);
                let named = bits(on).filter(is_named).fold(0_u32, mask);
                level.member = Some(Member {
                    on,
                    named,
                    start: at,
                });
                level.follows = true;
            }
            Token::Colon => {}
            Token::Open(byte) => {
                let level = levels.last_mut();
                let on = level
                    .as_ref()
                    .map_or(all, |level| level.member.map_or(0, |member| member.on));
                let goes_on =
                    |which: &usize| paths.get(*which).is_some_and(|names| names.len() > depth);
                let leads = match byte {
                    b'{' if outside == 0 && bits(on).all(|which| goes_on(&which)) => on,
                    _ => 0,
                };
                if depth > 0 && leads == 0 {
                    outside = outside.saturating_add(1);
                    continue;
                }
                if let Some(level) = level {
                    level.met |= leads & level.member.map_or(0, |member| member.named);
                    level.member = None;
                }
                levels.push(Level {
                    leads,
                    met: 0,
                    member: None,
                    follows: false,
                });
            }
            Token::Close if outside > 0 => outside = outside.saturating_sub(1),
            Token::Close => {
                let mut level = levels.pop()?;
                level.end_member(body, before, depth, paths, on);
                for which in bits(level.leads & !level.met) {
                    let follows = level.follows;
                    on(Met::Absent {
                        which,
                        level: depth.saturating_sub(1),
                        at: before,
                        follows,
                    });
                }
            }
            Token::Comma if outside == 0 => {
                levels
                    .last_mut()?
                    .end_member(body, before, depth, paths, on);
            }
            Token::Comma => {}
        }
    }
    Some(())
}

// === impl Level ===

impl Level {
    /// Ends the member whose value came up to `end`, in the object behind so many steps less one.
    fn end_member(
        &mut self,
        body: &[u8],
        end: usize,
        depth: usize,
        paths: &[&[String]],
        met: &mut dyn FnMut(Met) -> Option<()>,
    ) {
        let Some(Member { on, named, start }) = self.member.take() else {
            return;
        };
        self.met |= named;
        for which in (0..paths.len().min(MAX_EDITS)).filter(|which| on >> which & 1 == 1) {
            let range = trimmed(body, start..end);
            let ends = paths.get(which).is_some_and(|names| names.len() == depth);
            met(match ends {
                true => Met::Value { which, range },
                false => Met::Blocked {
                    which,
                    level: depth,
                    range,
                },
            });
        }
    }
}

/// The range without the white space at its ends.
pub(crate) fn trimmed(body: &[u8], range: Range<usize>) -> Range<usize> {
    let value = body.get(range.clone()).unwrap_or_default().trim_ascii_end();
    let end = range.start.saturating_add(value.len());
    end.saturating_sub(value.trim_ascii_start().len())..end
}

/// Tells a name, as it stands in a text, that some reader takes for `name`.
fn is_same(name: &str, raw: &[u8]) -> bool {
    let Ok(raw) = std::str::from_utf8(raw) else {
        return false;
    };
    letters(characters(raw)).eq(letters(name.chars()))
}

/// Tells a name, as it stands in a text, that is `name`, or the same with underscores for its capital letters.
fn is_name(name: &str, raw: &[u8]) -> bool {
    let raw = std::str::from_utf8(raw).unwrap_or_default();
    characters(raw).eq(name.chars()) || characters(raw).eq(snake(name))
}

/// A name with underscores for its capital letters: Google takes `thinkingBudget` so too.
pub fn snake(name: &str) -> impl Iterator<Item = char> {
    name.chars().flat_map(|letter| {
        let underscore = letter.is_ascii_uppercase().then_some('_');
        underscore.into_iter().chain([letter.to_ascii_lowercase()])
    })
}

/// The letters of a name as readers tell names apart that take any case.
fn letters(name: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let letters = name.filter(|letter| *letter != '_');
    letters.map(folded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn path(path: &str) -> Vec<String> {
        path.split('.').map(str::to_owned).collect()
    }

    fn edit(to: &str, value: &str, place: Place) -> Edit {
        Edit {
            path: path(to),
            value: value.to_owned(),
            place,
        }
    }

    fn text(body: &str, edits: &[Edit]) -> Option<String> {
        edited(body.as_bytes(), edits).map(|made| String::from_utf8(made).unwrap())
    }

    #[test]
    fn a_string_is_another_and_every_other_byte_the_same() {
        let model = [edit("model", r#""gpt-5.6""#, Place::Text)];
        for (body, expected) in [
            (
                r#"{ "model" : "a\"b" , "x":1}"#,
                r#"{ "model" : "gpt-5.6" , "x":1}"#,
            ),
            (
                r#"{"x":{"model":"a"},"model":"a","y":["model","a"]}"#,
                r#"{"x":{"model":"a"},"model":"gpt-5.6","y":["model","a"]}"#,
            ),
            (
                r#"{"model":"a","mod\u0065l":"b","Model":"c"}"#,
                r#"{"model":"gpt-5.6","mod\u0065l":"gpt-5.6","Model":"gpt-5.6"}"#,
            ),
            (
                r#"{"model":null,"y":"model"}"#,
                r#"{"model":null,"y":"model"}"#,
            ),
            (r#"{"model":["a"],"y":"z"}"#, r#"{"model":["a"],"y":"z"}"#),
            ("{}", "{}"),
        ] {
            assert_eq!(text(body, &model).as_deref(), Some(expected));
        }
        for bad in ["", "[\"model\"]", "{\"model\":\"a\"", "\"model\"", "--form"] {
            assert_eq!(text(bad, &model), None, "{bad}");
        }
    }

    #[test]
    fn a_member_is_changed_where_it_stands_or_made() {
        let deep = |place| [edit("aB.cD.e", "7", place), edit("z", "8", place)];
        for (body, there, anywhere) in [
            ("{}", "{}", r#"{"aB":{"cD":{"e":7}},"z":8}"#),
            (
                r#"{"x" : 1 }"#,
                r#"{"x" : 1 }"#,
                r#"{"x" : 1 ,"aB":{"cD":{"e":7}},"z":8}"#,
            ),
            (
                r#"{"aB":{"cD": {"e": [1,{"e":2}] }},"z":{"z":1}}"#,
                r#"{"aB":{"cD": {"e": 7 }},"z":8}"#,
                r#"{"aB":{"cD": {"e": 7 }},"z":8}"#,
            ),
            (
                r#"{"a_b":{"x":1,"c_d":{}},"z":null}"#,
                r#"{"a_b":{"x":1,"c_d":{}},"z":8}"#,
                r#"{"a_b":{"x":1,"c_d":{"e":7}},"z":8}"#,
            ),
            (
                r#"{"aB":null,"z":1}"#,
                r#"{"aB":null,"z":8}"#,
                r#"{"aB":{"cD":{"e":7}},"z":8}"#,
            ),
            (
                r#"{"aB":[{"cD":{"e":1}}],"z":1,"z":2}"#,
                r#"{"aB":[{"cD":{"e":1}}],"z":8,"z":8}"#,
                r#"{"aB":[{"cD":{"e":1}}],"z":8,"z":8}"#,
            ),
        ] {
            assert_eq!(text(body, &deep(Place::There)).unwrap(), there, "{body}");
            assert_eq!(
                text(body, &deep(Place::Anywhere)).unwrap(),
                anywhere,
                "{body}"
            );
        }
    }

    #[test]
    fn what_only_some_readers_find_keeps_nothing_from_being_made() {
        let effort = [edit("reasoningEffort", "7", Place::Anywhere)];
        for (body, expected) in [
            (
                r#"{"ReasoningEffort":1}"#,
                r#"{"ReasoningEffort":7,"reasoningEffort":7}"#,
            ),
            (r#"{"reasoning_effort":1}"#, r#"{"reasoning_effort":7}"#),
            (
                "{\"rea\u{17f}oning_effort\":1}",
                "{\"rea\u{17f}oning_effort\":7,\"reasoningEffort\":7}",
            ),
            (
                r#"{"rea\u017foningEffort":1}"#,
                r#"{"rea\u017foningEffort":7,"reasoningEffort":7}"#,
            ),
        ] {
            assert_eq!(text(body, &effort).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn a_text_does_not_grow_without_end() {
        let model = [edit(
            "model",
            &format!("\"{}\"", "m".repeat(62)),
            Place::Text,
        )];
        let body = |members: usize| format!("{{{}}}", vec!["\"model\":\"\""; members].join(","));
        assert!(text(&body(1_000), &model).is_some());
        assert!(text(&body(2_000), &model).is_none());
    }

    #[test]
    fn every_value_at_a_path_is_shown() {
        let (first, second) = (path("a.b"), path("c"));
        let mut shown = Vec::new();
        let body = br#"{"a":{"b": "x" ,"b":[1]},"c":{"a":{"b":2}},"A":{"B":3}}"#;
        each(body, &[&first, &second], &mut |which, raw| {
            shown.push((which, String::from_utf8(raw.to_vec()).unwrap()));
        });
        let expected = [(0, "\"x\""), (0, "[1]"), (1, r#"{"a":{"b":2}}"#), (0, "3")];
        assert_eq!(shown, expected.map(|(which, raw)| (which, raw.to_owned())));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\PC\"\\\\]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[abx]", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    /// What a text says with an edit, by another way than the bytes.
    fn put(object: &mut Value, path: &[String], value: &Value, place: Place) {
        let Some((name, rest)) = path.split_first() else {
            return;
        };
        let Some(members) = object.as_object_mut() else {
            return;
        };
        let found = members.get_mut(name);
        let is_there = found.is_some();
        match (found, rest.is_empty()) {
            (Some(found), true) if place != Place::Text || found.is_string() => {
                *found = value.clone()
            }
            (Some(_), true) => {}
            (Some(found), false) => {
                if found.is_null() && place == Place::Anywhere {
                    *found = json!({});
                }
                put(found, rest, value, place);
            }
            (None, _) => {}
        }
        if !is_there && place == Place::Anywhere {
            let made = rest
                .iter()
                .rev()
                .fold(value.clone(), |value, name| json!({ name: value }));
            members.insert(name.clone(), made);
        }
    }

    proptest! {
        #[test]
        fn a_text_says_the_same_but_for_its_edits(
            members in prop::collection::btree_map("[abx]", value(), 0..4),
            spaced in any::<bool>(),
            first in "a(\\.[abx]){0,2}",
            second in "b(\\.[abx]){0,2}",
            places in prop::collection::vec(prop::sample::select(vec![Place::Text, Place::There, Place::Anywhere]), 2),
        ) {
            let mut said = json!(members);
            let body = match spaced {
                true => serde_json::to_string_pretty(&said).unwrap(),
                false => said.to_string(),
            };
            let edits = [edit(&first, "[7]", places[0]), edit(&second, "\"new\"", places[1])];
            let made = edited(body.as_bytes(), &edits).unwrap();
            for edit in &edits {
                let value: Value = serde_json::from_str(&edit.value).unwrap();
                put(&mut said, &edit.path, &value, edit.place);
            }
            let made: Value = serde_json::from_slice(&made).unwrap();
            prop_assert_eq!(made, said);
        }
    }
}
