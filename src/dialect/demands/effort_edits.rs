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
        edit::{Edit, EditKind, each, snake},
        tree::Tree,
    },
};

/// The longest value of a switch that is compared, in bytes: `{"type": "disabled"}` has 20.
const MAX_SWITCH_BYTES: usize = 256;

/// The members of an accent that say an effort, each by its path.
type Members<'a> = Vec<(Vec<String>, &'a Value)>;

/// A wanted effort, and what tells how a body is to say it.
struct Wanted<'t, 'a> {
    steering: &'t Steering,
    accent: &'t Accent,
    body: &'t Tree<'a>,
    effort: EffortWord,
    /// The caller may not ask for less.
    forced: bool,
    /// The word of the accent that is nearest to the effort; the effort itself where it has none.
    word: EffortWord,
    /// The accent's members for that word.
    members: Option<&'t Map<String, Value>>,
    /// The model takes an effort.
    takes: bool,
    /// An accent's members stand in the body itself.
    has_own: bool,
    /// The accent's members that stand there, for each word.
    known: Members<'t>,
    /// The paths of the dialect's members.
    paths: Vec<Vec<String>>,
}

/// The reading of one of the dialect's members in a body.
#[derive(Clone, Copy, Default)]
struct Said {
    is_there: bool,
    /// The member says more than wanted.
    is_over: bool,
}

/// The edits for `wanted`, which the caller may not ask for less than where it is `forced`; none for a body that is no
/// object.
pub(super) fn effort_edits(
    steering: &Steering,
    accent: &Accent,
    body: &Tree<'_>,
    wanted: EffortWord,
    forced: bool,
) -> Option<Vec<Edit>> {
    let wanted = Wanted::new(steering, accent, body, wanted, forced);
    let said = wanted.said()?;
    let asks_none = wanted.asks_none();
    let is_too_much = wanted.is_too_much(&said)?;
    let is_own = wanted.has_own && (forced || asks_none || is_too_much);
    let mut edits = wanted.own_members(asks_none, is_own);
    let mut rest = wanted.changed(&said, is_own, &edits);
    if edits.is_empty() && wanted.is_unsaid() {
        wanted.say(&mut rest);
    }
    edits.append(&mut rest);
    if let Some(apart) = accent.words(accent::APART) {
        keep_apart(&apart, &mut edits);
    }
    Some(edits)
}

// === impl Wanted ===

impl<'t, 'a> Wanted<'t, 'a> {
    fn new(
        steering: &'t Steering,
        accent: &'t Accent,
        body: &'t Tree<'a>,
        effort: EffortWord,
        forced: bool,
    ) -> Self {
        let nearest = match forced {
            true => accent.nearest_effort(effort.as_str()),
            false => accent.most_effort(effort.as_str()),
        };
        let has_own = steering.within.is_empty();
        let efforts = accent.efforts().filter(|_| has_own);
        Self {
            steering,
            accent,
            body,
            effort,
            forced,
            word: nearest.and_then(EffortWord::parse).unwrap_or(effort),
            members: nearest.and_then(|word| accent.effort(word)),
            takes: steering.takes_efforts || nearest.is_some(),
            has_own,
            known: efforts.flat_map(flat).collect(),
            paths: steering.efforts.iter().map(|one| owned(one.path)).collect(),
        }
    }

    /// The dialect's members, each with its path.
    fn all(&self) -> impl Iterator<Item = (&'t EffortMember, &Vec<String>)> + Clone {
        self.steering.efforts.iter().zip(&self.paths)
    }

    /// Returns true if the platform reads the member.
    fn is_read(&self, member: &EffortMember, path: &Vec<String>) -> bool {
        let is_named = self.known.iter().any(|(named, _)| named == path);
        let first = member.path.first().copied().unwrap_or_default();
        let is_usual = !member.is_own && self.known.is_empty();
        is_usual || is_named || self.accent.has(accent::TAKES, first)
    }

    /// Reads what the body says in each of the dialect's members; none for a body that is no object.
    fn said(&self) -> Option<Vec<Said>> {
        let mut said = vec![Said::default(); self.paths.len()];
        shown(self.body, &self.paths, |which, raw| {
            let member = self.steering.efforts.get(which).zip(said.get_mut(which));
            if let Some((member, said)) = member.filter(|_| raw != "null") {
                said.is_there = true;
                said.is_over |= member.form.is_over(raw, self.effort);
            }
        })?;
        Some(said)
    }

    /// Returns true if the model is not to think at all.
    fn asks_none(&self) -> bool {
        self.word == EffortWord::None && (self.forced || self.effort == EffortWord::None)
    }

    /// Returns true if the body asks for more in a way that only the accent's own members mend: by a switch that does
    /// not say how much, or where not to think is all that is left.
    fn is_too_much(&self, said: &[Said]) -> Option<bool> {
        let all = self.all().zip(said);
        let mut read = all.filter(|((member, path), _)| self.is_read(member, path));
        let is_over = read.clone().any(|(_, said)| said.is_over);
        let is_measured = read.any(|(_, said)| said.is_there);
        let may_be = !is_measured && EffortWord::High > self.effort;
        let is_unmeasured = may_be && self.is_switched_on()?;
        Some(is_unmeasured || (self.word == EffortWord::None && is_over))
    }

    /// Returns true if a switch of the accent's own is on that is none of the dialect's members.
    fn is_switched_on(&self) -> Option<bool> {
        let switches = self.accent.effort(EffortWord::None.as_str()).map(flat);
        let switches = switches.filter(|_| self.has_own).into_iter().flatten();
        let others = switches.filter(|(path, _)| !self.paths.contains(path));
        is_on(self.body, others.collect())
    }

    /// Makes the edits of members that say it whatever the body says: the one that turns thinking off, and, where
    /// `is_own`, the accent's own.
    fn own_members(&self, asks_none: bool, is_own: bool) -> Vec<Edit> {
        let off = self.steering.off.filter(|_| asks_none);
        let off = off.map(|(name, value)| edit(&[name], value.to_owned(), self.takes));
        let own = self.members.filter(|_| is_own).into_iter().flat_map(flat);
        let own = own.map(|(path, value)| Edit {
            path,
            value: value.to_string(),
            kind: EditKind::Set,
        });
        off.into_iter().chain(own).collect()
    }

    /// Makes the edits of the dialect's members that are there and say another effort, where none of `edits` has them.
    fn changed(&self, said: &[Said], is_own: bool, edits: &[Edit]) -> Vec<Edit> {
        // Where a platform's own switch is off, nothing else says how much.
        if self.word == EffortWord::None && is_own && self.members.is_some() {
            return Vec::new();
        }
        let is_free = |path: &[String]| {
            let leads = |edit: &Edit| path.starts_with(&edit.path) || edit.path.starts_with(path);
            !edits.iter().any(leads)
        };
        let mut changed = Vec::new();
        for ((member, path), said) in self.all().zip(said) {
            let may_grow =
                !matches!(member.form, EffortForm::Tokens { within_bound, .. } if within_bound);
            let is_changed = said.is_over || (self.forced && may_grow);
            if said.is_there && is_changed && is_free(path) {
                let known = self.members.and_then(|all| all.get(path.last()?)?.as_u64());
                changed.push(Edit {
                    path: path.clone(),
                    value: member.form.value(self.word, known),
                    kind: EditKind::Replace,
                });
            }
        }
        changed
    }

    /// Returns true if the body does not say an effort that it has to say. One in a member that another one hides, or
    /// that the platform does not read, is not said.
    fn is_unsaid(&self) -> bool {
        let is_there = |path: &Vec<String>| {
            let last = path.iter().try_fold(self.body.root(), |here, name| {
                let other = || here.get(&snake(name).collect::<String>());
                here.get(name).or_else(other)
            });
            last.is_some()
        };
        let mut all = self.all();
        if all.any(|(member, path)| self.is_read(member, path) && is_there(path)) {
            return false;
        }
        let is_too_much = || {
            let unsaid = self.steering.unsaid;
            unsaid.is_some_and(|unsaid| unsaid > self.effort)
        };
        // A model of which the form is another one thinks only where it is asked to.
        let form = self.accent.word(accent::THINKING);
        let has_word = form.is_none_or(|form| form == "adaptive");
        self.takes && has_word && (self.forced || is_too_much())
    }

    /// Adds the edits that say it where nothing does: of the accent's members, or else of the dialect's first.
    fn say(&self, edits: &mut Vec<Edit>) {
        match (self.members, self.steering.efforts.first()) {
            (Some(members), _) => edits.extend(members.iter().map(|(name, value)| {
                let path = [self.steering.within, &[name.as_str()]].concat();
                edit(&path, value.to_string(), true)
            })),
            // There it is said already, in a member that nobody reads: it was changed.
            (None, Some(first)) if !edits.iter().any(|edit| edit.path == first.path) => {
                edits.push(edit(first.path, first.form.value(self.word, None), true));
            }
            (None, _) => {}
        }
    }
}

/// Has all members go of which the platform takes one, but for the one in which it is said.
fn keep_apart(apart: &[&str], edits: &mut Vec<Edit>) {
    let first = |edit: &Edit| edit.path.first().cloned().unwrap_or_default();
    let is_apart = |name: &str| apart.contains(&name);
    let made = edits.iter().filter(|edit| edit.kind == EditKind::Set);
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
        kind: EditKind::Remove,
    }));
}

/// Returns true if a switch is on.
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
