//! A platform's TOML files, put together: the operator's over the built-in one, both over those of the base that they
//! extend.
//!
//! Tables are merged key by key. The `verdicts` and `accents` of the file above come before those below, as the first
//! that matches decides. Any other value replaces the one below, and `false` takes an endpoint,
//! a header, a parameter, a limit, a window, a way in, the probe or the quota endpoint of the one below away. What names a
//! platform ([`OWN`]) is not inherited from a base, and the life of refresh tokens not past a token endpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::Error;
use super::{Invalid, invalid};
use crate::toml_place::Place;

/// The keys that a platform does not take over from the one that it extends.
const OWN: [&str; 5] = ["id", "name", "owner", "abstract", "extends"];

/// The lists to which a file adds, in front, where other lists are replaced.
const ADDED: [&str; 2] = ["verdicts", "accents"];

/// The table about one token endpoint alone: the file that names another does not take it over.
const OF_ENDPOINT: &str = "refresh_token";

/// The form of keys: one that signs, or goes elsewhere, is made by others. The file that says what keys do does not take
/// it over.
const OF_AUTH: &str = "api_key";

/// One TOML file of a platform.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    path: PathBuf,
    text: String,
    table: Table,
}

/// Every file that there is, by the platform that it describes.
#[derive(Debug, Default)]
pub(super) struct Layers(BTreeMap<String, Vec<Layer>>);

/// A platform as its files say together.
#[derive(Debug)]
pub(super) struct Merged<'a> {
    /// Their content, without `abstract` and `extends`.
    pub table: Table,
    /// True if the profile is there to be extended, and is no platform.
    pub is_abstract: bool,
    /// The files, the one that counts most first.
    layers: Vec<&'a Layer>,
}

impl Layer {
    /// Reads a file's text.
    pub fn parse(path: PathBuf, text: String) -> Result<Layer, Error> {
        match text.parse() {
            Ok(table) => Ok(Layer { path, text, table }),
            Err(error) => {
                let place = Place::of(&error, &text);
                Err(Error::Syntax { path, place })
            }
        }
    }

    fn invalid(&self, source: Invalid) -> Error {
        let (line, _) = self.find(&segments(&source.key));
        Error::Invalid {
            path: self.path.clone(),
            line,
            source,
        }
    }

    /// The id of the platform that the file extends.
    fn extends(&self) -> Result<Option<&str>, Error> {
        match self.table.get("extends") {
            None => Ok(None),
            Some(Value::String(base)) => Ok(Some(base)),
            Some(_) => Err(self.invalid(invalid("extends", "expected the id of a platform"))),
        }
    }

    /// The line of the value under `path`, or of the last that there is on the way to it, and how far that is.
    fn find(&self, path: &[Segment<'_>]) -> (Option<usize>, usize) {
        // The text was parsed before.
        let Ok(document) = DeTable::parse(&self.text) else {
            return (None, 0);
        };
        let (mut line, mut depth) = (None, 0);
        let mut at: Option<&Spanned<DeValue<'_>>> = None;
        for segment in path {
            let next = match (segment, at.map(Spanned::get_ref)) {
                (Segment::Key(key), None) => entry(document.get_ref(), key),
                (Segment::Key(key), Some(DeValue::Table(table))) => entry(table, key),
                (Segment::Index(index), Some(DeValue::Array(list))) => {
                    list.get(*index).map(|value| (value.span().start, value))
                }
                _ => None,
            };
            let Some((start, value)) = next else { break };
            line = Some(self.text[..start].matches('\n').count() + 1);
            depth += 1;
            at = Some(value);
        }
        (line, depth)
    }

    fn added(&self, list: &str) -> usize {
        self.table
            .get(list)
            .and_then(Value::as_array)
            .map_or(0, Vec::len)
    }
}

/// Returns where a key of a table is written, and its value.
fn entry<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Option<(usize, &'a Spanned<DeValue<'i>>)> {
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    Some((name.span().start, value))
}

impl Layers {
    /// Adds a file of the platform `id`, above those that are there.
    pub fn add(&mut self, id: &str, layer: Layer) {
        self.0.entry(id.to_owned()).or_default().insert(0, layer);
    }

    /// Every id that has a file.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Merges the files of `id`, and of all that they extend.
    ///
    /// # Errors
    /// Naming the file and line of an `extends` that leads nowhere, or around in a circle.
    pub fn merged(&self, id: &str) -> Result<Merged<'_>, Error> {
        let mut layers: Vec<&Layer> = Vec::new();
        let mut table = Table::new();
        let mut seen = Vec::new();
        let mut next = Some(id);
        while let Some(current) = next.take() {
            let is_base = !seen.is_empty();
            seen.push(current);
            for layer in self.0.get(current).into_iter().flatten() {
                let mut below = layer.table.clone();
                if is_base {
                    OWN.iter().for_each(|key| drop(below.remove(*key)));
                }
                if has_token_endpoint(&table)
                    && let Some(Value::Table(oauth)) = below.get_mut("oauth")
                {
                    oauth.remove(OF_ENDPOINT);
                }
                if table.contains_key("auth") {
                    below.remove(OF_AUTH);
                }
                under(&mut table, below);
                layers.push(layer);
                let Some(base) = layer.extends()?.filter(|_| next.is_none()) else {
                    continue;
                };
                if seen.contains(&base) {
                    let circle = [&seen[..], &[base]].concat().join(" extends ");
                    return Err(layer.invalid(invalid(
                        "extends",
                        format!(
                            "expected a platform that is not built on this one, found {circle}"
                        ),
                    )));
                }
                if !self.0.contains_key(base) {
                    let known: Vec<&str> = self.ids().collect();
                    let known = known.join(", ");
                    return Err(
                        layer.invalid(invalid("extends", format!("expected one of {known}")))
                    );
                }
                next = Some(base);
            }
        }
        let is_abstract = table.remove("abstract");
        table.remove("extends");
        for key in ["id", "name", "owner"] {
            table.entry(key).or_insert_with(|| id.into());
        }
        for call in ["probe", "quota_endpoint"] {
            if table.get(call) == Some(&Value::Boolean(false)) {
                table.remove(call);
            }
        }
        for key in ["quota", "limits", "endpoints", "login"] {
            take_away(table.get_mut(key));
        }
        for key in ["endpoints", "headers", "query", "login"] {
            if let Some(Value::Table(inner)) = table.get_mut(key) {
                inner
                    .iter_mut()
                    .for_each(|(_, inner)| take_away(Some(inner)));
            }
        }
        let merged = Merged {
            is_abstract: is_abstract == Some(Value::Boolean(true)),
            table,
            layers,
        };
        match is_abstract {
            None | Some(Value::Boolean(_)) => Ok(merged),
            Some(_) => Err(merged.invalid(invalid("abstract", "expected true or false"))),
        }
    }
}

impl Merged<'_> {
    /// The files, the one that counts most first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.layers.iter().map(|layer| layer.path.as_path())
    }

    /// The error, with the file and the line of the value that it is about.
    pub fn invalid(&self, source: Invalid) -> Error {
        let path = segments(&source.key);
        let (layer, line) = self.find(&path);
        Error::Invalid {
            path: layer.map_or_else(PathBuf::new, |layer| layer.path.clone()),
            line,
            source,
        }
    }

    /// The file that counts most of those that say most of the way to a value.
    fn find(&self, path: &[Segment<'_>]) -> (Option<&Layer>, Option<usize>) {
        let first = self.layers.first().copied();
        if let [Segment::Key(list), Segment::Index(index), rest @ ..] = path
            && ADDED.contains(list)
        {
            let mut index = *index;
            for layer in &self.layers {
                if let Some(later) = index.checked_sub(layer.added(list)) {
                    index = later;
                    continue;
                }
                let inner = [&[Segment::Key(list), Segment::Index(index)], rest].concat();
                return (Some(layer), layer.find(&inner).0);
            }
            return (first, None);
        }
        let found = self.layers.iter().map(|layer| (*layer, layer.find(path)));
        // Of equals, `max_by_key` takes the last.
        let best = found.rev().max_by_key(|(_, (_, depth))| *depth);
        match best {
            Some((layer, (line @ Some(_), _))) => (Some(layer), line),
            _ => (first, None),
        }
    }
}

fn has_token_endpoint(table: &Table) -> bool {
    let oauth = table.get("oauth").and_then(Value::as_table);
    oauth.is_some_and(|oauth| oauth.contains_key("token_url"))
}

/// Puts `below` under `table`: what `table` says counts.
fn under(table: &mut Table, below: Table) {
    for (key, value) in below {
        match (table.get_mut(&key), value) {
            (None, value) => {
                table.insert(key, value);
            }
            (Some(Value::Table(table)), Value::Table(below)) => under(table, below),
            (Some(Value::Array(rules)), Value::Array(below)) if ADDED.contains(&&*key) => {
                rules.extend(below);
            }
            (Some(_), _) => {}
        }
    }
}

/// Takes what is `false` out of a table.
fn take_away(table: Option<&mut Value>) {
    if let Some(Value::Table(table)) = table {
        table.retain(|_, value| *value != Value::Boolean(false));
    }
}

/// A step of the way to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

/// The steps of a key like `verdicts[3].status`.
fn segments(key: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    for part in key.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse().ok()),
            None => (part, None),
        };
        segments.push(Segment::Key(name.trim_matches('"')));
        segments.extend(index.map(Segment::Index));
    }
    segments
}
