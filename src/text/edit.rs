//! A JSON text in which some members have other values, or are gone, and every other byte is as it was.
//!
//! Names are compared without their case and their underscores: readers take some for the same that are not written
//! alike (`thinkingBudget`, `thinking_budget`; Go's takes any case). Of a member that is there twice both are changed. One
//! that only some readers find does not keep that from being made which all find.
//!
//! Only the members of objects on the way are looked at; what stands in others costs nothing once the text was read.

use std::{borrow::Cow, ops::Range};

use super::{
    folded,
    tree::{Json, JsonKind, Tree, characters},
};

/// The most bytes by which a text may grow: the names and values of a few members. One that has them a thousand times
/// is nobody's.
const MAX_GROWTH: usize = 64 * 1024;

/// The most edits of one text: each is a bit.
pub const MAX_EDITS: usize = 32;

/// The most members of the text and of the objects on the way that are looked at: a request has a few dozen, and each
/// is compared with the names of all edits.
const MAX_MEMBERS: usize = 4_096;

/// Another value for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The names of the objects around it, and its own, outermost first. None of two edits of a text leads through the
    /// other's member.
    pub path: Vec<String>,
    /// The value, in JSON; of one that goes it says nothing.
    pub value: String,
    /// The change.
    pub kind: EditKind,
}

/// The change that an edit makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditKind {
    /// The values that are strings are replaced.
    ReplaceText,
    /// The values that are there are replaced.
    Replace,
    /// The values that are there are replaced; where there is none, it is made, with the objects around it.
    Set,
    /// The members that are there go, each with the comma that parts it from the others.
    Remove,
}

/// A finding on the way through a text.
enum Met<'t, 'a> {
    /// A value of the path `which`.
    Value { which: usize, value: Json<'t, 'a> },
    /// The bytes of a member at the path `which` that goes.
    Gone { which: usize, range: Range<usize> },
    /// A value in place of the object behind `level` steps of it.
    Blocked {
        which: usize,
        level: usize,
        value: Json<'t, 'a>,
    },
    /// The end of the object behind `level` steps of it, which does not have the next one; `follows`: it has others.
    Absent {
        which: usize,
        level: usize,
        at: usize,
        follows: bool,
    },
}

/// The text with these edits; none for one that is no object, would grow by more than 64 KiB, or has thousands of members
/// where the edits are.
pub fn edited(text: &Tree<'_>, edits: &[Edit]) -> Option<Vec<u8>> {
    let paths: Vec<&[String]> = edits.iter().map(|edit| edit.path.as_slice()).collect();
    let body = text.text().as_bytes();
    let mut made = Vec::with_capacity(body.len().saturating_add(256));
    let (mut copied, mut last_insert) = (0_usize, None);
    let mut grown = 0_usize;
    let mut change = |met: Met<'_, '_>| {
        let which = match &met {
            Met::Value { which, .. }
            | Met::Gone { which, .. }
            | Met::Blocked { which, .. }
            | Met::Absent { which, .. } => *which,
        };
        let edit = edits.get(which).filter(|_| grown <= MAX_GROWTH)?;
        let sets = edit.kind == EditKind::Set;
        let (range, text): (Range<usize>, Cow<'_, str>) = match met {
            Met::Value { value, .. } => {
                let is_meant = value.kind() == JsonKind::Text || edit.kind != EditKind::ReplaceText;
                (value.range(), is_meant.then_some(&*edit.value)?.into())
            }
            Met::Gone { range, .. } => (range, "".into()),
            Met::Blocked { level, value, .. } => {
                let is_meant = value.is_null() && sets;
                (value.range(), is_meant.then(|| edit.nested(level))?.into())
            }
            Met::Absent {
                level, at, follows, ..
            } => {
                let nested = sets.then(|| edit.nested(level))?;
                let member = nested.get(1..nested.len().saturating_sub(1))?;
                let comma = follows || last_insert.replace(at) == Some(at);
                (
                    at..at,
                    format!("{}{member}", if comma { "," } else { "" }).into(),
                )
            }
        };
        grown = grown.saturating_add(text.len().saturating_sub(range.len()));
        made.extend_from_slice(body.get(copied..range.start)?);
        made.extend_from_slice(text.as_bytes());
        copied = range.end;
        Some(())
    };
    let goes = |all: u32, (which, edit): (usize, &Edit)| match edit.kind {
        EditKind::Remove => all | 1 << which,
        _ => all,
    };
    let goes = edits.iter().take(MAX_EDITS).enumerate().fold(0, goes);
    walk(text, &paths, goes, &mut |met| {
        // What is not meant stays.
        let _ = change(met);
    })?;
    if grown > MAX_GROWTH {
        return None;
    }
    made.extend_from_slice(body.get(copied..)?);
    Some(made)
}

/// Shows every value at one of these paths, with the number of that; none for a text that is no object, or has thousands of
/// members there.
pub fn each<'a>(
    text: &Tree<'a>,
    paths: &[&[String]],
    shown: &mut dyn FnMut(usize, &'a str),
) -> Option<()> {
    walk(text, paths, 0, &mut |met| {
        if let Met::Value { which, value } = met {
            shown(which, value.raw());
        }
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

/// The objects of a text to which paths lead.
struct Walk<'p> {
    paths: &'p [&'p [String]],
    /// The edits whose members go, each a bit.
    goes: u32,
    /// The members that may still be looked at.
    left: usize,
    text: &'p [u8],
}

/// Goes through a text. The members at the paths of `goes` go.
fn walk<'t, 'a>(
    text: &'t Tree<'a>,
    paths: &[&[String]],
    goes: u32,
    on: &mut dyn FnMut(Met<'t, 'a>),
) -> Option<()> {
    let root = text.root();
    let all = (0..paths.len().min(MAX_EDITS)).fold(0_u32, |all, which| all | 1 << which);
    let left = MAX_MEMBERS;
    (root.kind() == JsonKind::Object).then_some(())?;
    let text = text.text().as_bytes();
    Walk {
        paths,
        goes,
        left,
        text,
    }
    .object(root, all, 0, on)
}

// === impl Walk ===

impl Walk<'_> {
    /// Goes through an object behind `level` steps of the paths that lead there, each a bit of `leads`.
    fn object<'t, 'a>(
        &mut self,
        object: Json<'t, 'a>,
        leads: u32,
        level: usize,
        on: &mut dyn FnMut(Met<'t, 'a>),
    ) -> Option<()> {
        let paths = self.paths;
        let bits = |of: u32| (0..MAX_EDITS).filter(move |which| of >> which & 1 == 1);
        let mask = |on: u32, which: usize| on | 1 << which;
        let step = |which: usize| paths.get(which)?.get(level);
        let deeper = level.saturating_add(1);
        let goes_on = |which: usize| paths.get(which).is_some_and(|names| names.len() > deeper);
        let (mut met, mut follows) = (0_u32, false);
        // The end of the last member that stays; before there is one, what may go with the next one begins there.
        let mut from = object.range().start.saturating_add(1);
        for (name, value) in object.raw_members() {
            self.left = self.left.checked_sub(1)?;
            let is_on = |which: &usize| step(*which).is_some_and(|step| is_same(step, name));
            let is_named = |which: &usize| step(*which).is_some_and(|step| is_name(step, name));
            let meant = bits(leads).filter(is_on).fold(0_u32, mask);
            met |= bits(meant).filter(is_named).fold(0_u32, mask);
            let end = value.range().end;
            let goes = bits(meant & self.goes).find(|which| !goes_on(*which));
            if let Some(which) = goes {
                let range = match follows {
                    true => from..end,
                    false => from..self.behind_comma(end),
                };
                from = range.end;
                on(Met::Gone { which, range });
                continue;
            }
            (follows, from) = (true, end);
            let leads_on = meant != 0 && bits(meant).all(goes_on);
            if leads_on && value.kind() == JsonKind::Object {
                self.object(value, meant, deeper, on)?;
                continue;
            }
            for which in bits(meant) {
                let level = deeper;
                on(match goes_on(which) {
                    false => Met::Value { which, value },
                    true => Met::Blocked {
                        which,
                        level,
                        value,
                    },
                });
            }
        }
        let at = object.range().end.saturating_sub(1);
        for which in bits(leads & !met) {
            on(Met::Absent {
                which,
                level,
                at,
                follows,
            });
        }
        Some(())
    }
}

impl Walk<'_> {
    /// The place behind the comma that follows what ends there, or that end where none does.
    fn behind_comma(&self, end: usize) -> usize {
        let rest = self.text.get(end..).unwrap_or_default();
        let blank = rest.len().saturating_sub(rest.trim_ascii_start().len());
        match rest.get(blank) {
            Some(b',') => end.saturating_add(blank).saturating_add(1),
            _ => end,
        }
    }
}

/// The range without the white space at its ends.
pub(crate) fn trimmed(body: &[u8], range: Range<usize>) -> Range<usize> {
    let value = body.get(range.clone()).unwrap_or_default().trim_ascii_end();
    let end = range.start.saturating_add(value.len());
    end.saturating_sub(value.trim_ascii_start().len())..end
}

/// Returns true if some reader takes `raw`, a name as it stands in a text, for `name`.
fn is_same(name: &str, raw: &str) -> bool {
    letters(characters(raw)).eq(letters(name.chars()))
}

/// Returns true if `raw`, a name as it stands in a text, is `name`, or the same with underscores for its capital
/// letters.
fn is_name(name: &str, raw: &str) -> bool {
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

    fn edit(to: &str, value: &str, kind: EditKind) -> Edit {
        Edit {
            path: path(to),
            value: value.to_owned(),
            kind,
        }
    }

    fn text(body: &str, edits: &[Edit]) -> Option<String> {
        let made = edited(&Tree::read(body.as_bytes()).ok()?, edits);
        made.map(|made| String::from_utf8(made).unwrap())
    }

    #[test]
    fn a_string_is_another_and_every_other_byte_the_same() {
        let model = [edit("model", r#""gpt-5.6""#, EditKind::ReplaceText)];
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
        let deep = |kind| [edit("aB.cD.e", "7", kind), edit("z", "8", kind)];
        for (body, there, sets) in [
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
            assert_eq!(
                text(body, &deep(EditKind::Replace)).unwrap(),
                there,
                "{body}"
            );
            assert_eq!(text(body, &deep(EditKind::Set)).unwrap(), sets, "{body}");
        }
    }

    #[test]
    fn a_member_goes_from_any_place_and_every_other_byte_stays() {
        let gone = |path| [edit(path, "", EditKind::Remove)];
        for (body, expected) in [
            ("{}", "{}"),
            (r#"{"x":1}"#, r#"{"x":1}"#),
            (r#"{"aB":1}"#, "{}"),
            (r#" { "aB" : {"x":[1,2]} } "#, " { } "),
            (r#"{"aB":1,"x":2}"#, r#"{"x":2}"#),
            (r#"{ "aB" : 1 , "x" : 2 }"#, r#"{ "x" : 2 }"#),
            (r#"{"x":2,"aB":1}"#, r#"{"x":2}"#),
            ("{\n  \"x\": 2,\n  \"aB\": 1\n}", "{\n  \"x\": 2\n}"),
            (r#"{"x":2,"aB":1,"y":3}"#, r#"{"x":2,"y":3}"#),
            (r#"{"x":2, "aB":1 , "y":3}"#, r#"{"x":2 , "y":3}"#),
            (
                r#"{"aB":1,"a_b":null,"x":2,"aB":"}","AB":[],"y":3,"aB":4}"#,
                r#"{"x":2,"y":3}"#,
            ),
            (r#"{"aB":1,"aB":2 , "aB":3 }"#, "{ }"),
            (
                r#"{"x":{"aB":1},"y":["aB"]}"#,
                r#"{"x":{"aB":1},"y":["aB"]}"#,
            ),
        ] {
            assert_eq!(text(body, &gone("aB")).as_deref(), Some(expected), "{body}");
        }
        let inner = text(r#"{"c":{"aB":1,"x":{"aB":2}},"aB":3}"#, &gone("c.aB"));
        assert_eq!(inner.as_deref(), Some(r#"{"c":{"x":{"aB":2}},"aB":3}"#));
        // What is made takes the place of what went.
        let both = [
            edit("z.y", "7", EditKind::Set),
            edit("aB", "", EditKind::Remove),
            edit("w", "8", EditKind::Set),
        ];
        for (body, expected) in [
            (r#"{"aB":1}"#, r#"{"z":{"y":7},"w":8}"#),
            (r#"{"aB":1,"aB":1}"#, r#"{"z":{"y":7},"w":8}"#),
            (r#"{"aB":1,"x":2}"#, r#"{"x":2,"z":{"y":7},"w":8}"#),
            (r#"{"z":{},"aB":1}"#, r#"{"z":{"y":7},"w":8}"#),
            (r#"{"w":1,"aB":1,"z":null}"#, r#"{"w":8,"z":{"y":7}}"#),
        ] {
            assert_eq!(text(body, &both).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn what_only_some_readers_find_keeps_nothing_from_being_made() {
        let effort = [edit("reasoningEffort", "7", EditKind::Set)];
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
            EditKind::ReplaceText,
        )];
        let body = |members: usize| format!("{{{}}}", vec!["\"model\":\"\""; members].join(","));
        assert!(text(&body(1_000), &model).is_some());
        assert!(text(&body(2_000), &model).is_none());
    }

    #[test]
    fn members_where_the_edits_are_have_a_bound() {
        let model = [edit("model.name", "7", EditKind::ReplaceText)];
        let body = |inner: usize, outer: usize| {
            let members = |count: usize| vec!["\"x\":0"; count].join(",");
            format!(
                "{{\"model\":{{{}}},\"y\":[{{{0}}}],{}}}",
                members(inner),
                members(outer)
            )
        };
        assert!(text(&body(2_000, 2_094), &model).is_some());
        assert!(text(&body(2_000, 2_095), &model).is_none());
    }

    #[test]
    fn every_value_at_a_path_is_shown() {
        let (first, second) = (path("a.b"), path("c"));
        let mut shown = Vec::new();
        let body = br#"{"a":{"b": "x" ,"b":[1]},"c":{"a":{"b":2}},"A":{"B":3}}"#;
        each(
            &Tree::read(body).unwrap(),
            &[&first, &second],
            &mut |which, raw| {
                shown.push((which, raw.to_owned()));
            },
        );
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
    fn put(object: &mut Value, path: &[String], value: &Value, kind: EditKind) {
        let Some((name, rest)) = path.split_first() else {
            return;
        };
        let Some(members) = object.as_object_mut() else {
            return;
        };
        let found = members.get_mut(name);
        let is_there = found.is_some();
        match (found, rest.is_empty()) {
            (Some(_), true) if kind == EditKind::Remove => {
                members.remove(name);
            }
            (Some(found), true) if kind != EditKind::ReplaceText || found.is_string() => {
                *found = value.clone()
            }
            (Some(_), true) => {}
            (Some(found), false) => {
                if found.is_null() && kind == EditKind::Set {
                    *found = json!({});
                }
                put(found, rest, value, kind);
            }
            (None, _) => {}
        }
        if !is_there && kind == EditKind::Set {
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
            kinds in prop::collection::vec(prop::sample::select(vec![EditKind::ReplaceText, EditKind::Replace, EditKind::Set, EditKind::Remove]), 2),
        ) {
            let mut said = json!(members);
            let body = match spaced {
                true => serde_json::to_string_pretty(&said).unwrap(),
                false => said.to_string(),
            };
            let edits = [edit(&first, "[7]", kinds[0]), edit(&second, "\"new\"", kinds[1])];
            let made = text(&body, &edits).unwrap();
            for edit in &edits {
                let value: Value = serde_json::from_str(&edit.value).unwrap();
                put(&mut said, &edit.path, &value, edit.kind);
            }
            let made: Value = serde_json::from_str(&made).unwrap();
            prop_assert_eq!(made, said);
        }

        /// By another way than the text: its members in turn, each with the blanks around it.
        #[test]
        fn what_goes_takes_nothing_else_with_it(
            members in prop::collection::vec(("[ax]", value(), "[ \\n]{0,2}", "[ \\n]{0,2}"), 0..6),
        ) {
            let written = |keeps: &dyn Fn(&str) -> bool| {
                let kept = members.iter().filter(|(name, ..)| keeps(name));
                let kept = kept.map(|(name, value, before, after)| {
                    format!("{before}\"{name}\"{after}:{before}{value}{after}")
                });
                kept.collect::<Vec<_>>().join(",")
            };
            let body = format!("{{{}}}", written(&|_| true));
            let made = text(&body, &[edit("a", "", EditKind::Remove)]).unwrap();
            let bare = |text: &str| text.replace([' ', '\n'], "");
            let kept = format!("{{{}}}", written(&|name| name != "a"));
            prop_assert_eq!(bare(&made), bare(&kept));
            // What stays is as it was.
            for (name, value, before, after) in members.iter().filter(|(name, ..)| name != "a") {
                let member = format!("\"{name}\"{after}:{before}{value}");
                prop_assert!(made.contains(&member), "{}", made);
            }
            let mut left = body.chars();
            prop_assert!(made.chars().all(|one| left.any(|other| other == one)), "{}", made);
        }
    }
}
