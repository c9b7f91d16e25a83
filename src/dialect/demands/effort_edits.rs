//! The edits by which a body that is not translated asks for so much thinking, or for no more than that.
//!
//! How much a request asks for stands in the members of its dialect, of which some are single platforms' own; and whether
//! it asks at all in a *switch* that some platforms have besides (`enable_thinking`, `thinking.type`), which the accent
//! knows by what it says for `none`. A switch that is on, without a measure that the platform reads, asks for as much as
//! the model likes.

use serde_json::{Map, Value};

use super::{EffortForm, EffortMember, EffortWord, Steering, edit, owned};
use crate::{
    dialect::accent::{self, Accent},
    text::{
        edit::{Edit, Place, each, snake},
        tree::Tree,
    },
};

/// The longest value of a switch that is compared, in bytes: `{"type": "disabled"}` has 20.
const MAX_SWITCH_BYTES: usize = 256;

/// The members of an accent that say an effort, each by its path.
type Members<'a> = Vec<(Vec<String>, &'a Value)>;

/// The edits for `wanted`, which the caller may not ask for less than where it is `forced`; none for a body that is no
/// object.
pub(super) fn effort_edits(
    steering: &Steering,
    accent: &Accent,
    body: &Tree<'_>,
    wanted: EffortWord,
    forced: bool,
) -> Option<Vec<Edit>> {
    let nearest = match forced {
        true => accent.nearest_effort(wanted.as_str()),
        false => accent.most_effort(wanted.as_str()),
    };
    let word = nearest.and_then(EffortWord::parse).unwrap_or(wanted);
    let takes = steering.takes_efforts || nearest.is_some();
    let members = nearest.and_then(|word| accent.effort(word));
    let has_own = steering.within.is_empty();
    let known: Members<'_> = accent
        .efforts()
        .filter(|_| has_own)
        .flat_map(flat)
        .collect();
    let paths: Vec<Vec<String>> = steering.efforts.iter().map(|one| owned(one.path)).collect();
    let is_read = |member: &EffortMember, path: &Vec<String>| {
        let is_named = known.iter().any(|(named, _)| named == path);
        let first = member.path.first().copied().unwrap_or_default();
        let is_usual = !member.is_own && known.is_empty();
        is_usual || is_named || accent.has(accent::TAKES, first)
    };
    // Of each member, that it is there, and that it is too much.
    let mut said = vec![(false, false); paths.len()];
    shown(body, &paths, |which, raw| {
        let member = steering.efforts.get(which).zip(said.get_mut(which));
        if let Some((member, said)) = member.filter(|_| raw != "null") {
            said.0 = true;
            said.1 |= member.form.is_over(raw, wanted);
        }
    })?;
    let all = || steering.efforts.iter().zip(&paths).zip(&said);
    let mut read = all().filter(|((member, path), _)| is_read(member, path));
    let is_over = read.clone().any(|(_, (_, is_over))| *is_over);
    let is_measured = read.any(|(_, (is_there, _))| *is_there);
    let is_unmeasured = !is_measured && EffortWord::High > wanted && {
        let switches = accent.effort(EffortWord::None.as_str()).map(flat);
        let switches = switches.filter(|_| has_own).into_iter().flatten();
        is_on(
            body,
            switches.filter(|(path, _)| !paths.contains(path)).collect(),
        )?
    };

    let mut edits = Vec::new();
    let is_none = word == EffortWord::None;
    let asks_none = is_none && (forced || wanted == EffortWord::None);
    let off = steering.off.filter(|_| asks_none);
    edits.extend(off.map(|(name, value)| edit(&[name], value.to_owned(), takes)));
    // An accent's own members, where they are the body's.
    let is_own = has_own && (forced || asks_none || is_unmeasured || (is_none && is_over));
    for (path, value) in members.filter(|_| is_own).into_iter().flat_map(flat) {
        edits.push(Edit {
            path,
            value: value.to_string(),
            place: Place::Anywhere,
        });
    }
    let is_free = |path: &[String]| {
        let leads = |edit: &Edit| path.starts_with(&edit.path) || edit.path.starts_with(path);
        !edits.iter().any(leads)
    };
    // Where a platform's own switch is off, nothing else says how much.
    let is_switched_off = is_none && is_own && members.is_some();
    let mut rest = Vec::new();
    for ((member, path), (is_there, is_over)) in all() {
        let may_grow =
            !matches!(member.form, EffortForm::Tokens { within_bound, .. } if within_bound);
        let is_changed = *is_over || (forced && may_grow);
        if *is_there && is_changed && !is_switched_off && is_free(path) {
            let known = members.and_then(|all| all.get(path.last()?)?.as_u64());
            rest.push(Edit {
                path: path.clone(),
                value: member.form.value(word, known),
                place: Place::There,
            });
        }
    }
    // What is said in a member that another one hides, or that the platform does not read, is not said.
    let is_said = |path: &Vec<String>| {
        let last = path.iter().try_fold(body.root(), |here, name| {
            let other = || here.get(&snake(name).collect::<String>());
            here.get(name).or_else(other)
        });
        last.is_some()
    };
    let is_unsaid = edits.is_empty()
        && !all().any(|((member, path), _)| is_read(member, path) && is_said(path));
    let is_too_much = steering.unsaid.is_some_and(|unsaid| unsaid > wanted);
    // A model of which the form is another one thinks only where it is asked to.
    let has_word = accent
        .word(accent::THINKING)
        .is_none_or(|form| form == "adaptive");
    if is_unsaid && takes && has_word && (forced || is_too_much) {
        match (members, steering.efforts.first()) {
            (Some(members), _) => rest.extend(members.iter().map(|(name, value)| {
                let path = [steering.within, &[name.as_str()]].concat();
                edit(&path, value.to_string(), true)
            })),
            // There it is said already, in a member that nobody reads: it was changed above.
            (None, Some(first)) if !rest.iter().any(|edit| edit.path == first.path) => {
                rest.push(edit(first.path, first.form.value(word, None), true));
            }
            (None, _) => {}
        }
    }
    edits.append(&mut rest);
    if let Some(apart) = accent.words(accent::APART) {
        keep_apart(&apart, &mut edits);
    }
    Some(edits)
}

/// Has all members go of which the platform takes one, but for the one in which it is said.
fn keep_apart(apart: &[&str], edits: &mut Vec<Edit>) {
    let first = |edit: &Edit| edit.path.first().cloned().unwrap_or_default();
    let is_apart = |name: &str| apart.contains(&name);
    let made = edits.iter().filter(|edit| edit.place == Place::Anywhere);
    let mut said = made.chain(edits.iter()).map(first);
    let Some(said) = said.find(|name| is_apart(name)) else {
        return;
    };
    edits.retain(|edit| {
        let name = first(edit);
        name == said || !is_apart(&name)
    });
    let others = apart.iter().filter(|name| **name != said);
    edits.extend(others.map(|name| Edit {
        path: vec![(*name).to_owned()],
        value: String::new(),
        place: Place::Nowhere,
    }));
}

/// Tells that a switch is on.
fn is_on(body: &Tree<'_>, switches: Members<'_>) -> Option<bool> {
    let (paths, off): (Vec<_>, Vec<_>) = switches.into_iter().unzip();
    let mut is_on = false;
    shown(body, &paths, |which, raw| {
        // None is off by a long value, which would be dear to read.
        let short = Some(raw).filter(|raw| raw.len() <= MAX_SWITCH_BYTES);
        let value: Option<Value> = short.and_then(|raw| serde_json::from_str(raw).ok());
        is_on |= raw != "null" && value.as_ref() != off.get(which).copied();
    })?;
    Some(is_on)
}

fn shown(body: &Tree<'_>, paths: &[Vec<String>], show: impl FnMut(usize, &str)) -> Option<()> {
    let slices: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
    let mut show = show;
    each(body, &slices, &mut show)
}

/// Lists members, those in an object one by one.
fn flat(members: &Map<String, Value>) -> Members<'_> {
    let mut flat = Vec::new();
    for (name, value) in members {
        match value {
            Value::Object(inner) => {
                let inner = inner.iter();
                flat.extend(inner.map(|(own, value)| (vec![name.clone(), own.clone()], value)));
            }
            _ => flat.push((vec![name.clone()], value)),
        }
    }
    flat
}
