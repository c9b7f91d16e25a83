//! The source of a crate as text, and which of its modules use which. Both crates read themselves with this.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Files of tests and of what only tests use.
const OF_TESTS: [&str; 7] = [
    "tests",
    "laws",
    "fixture",
    "fake",
    "house",
    "golden",
    "reference",
];

/// Reads each file below `source`, a crate's `src`, by its path there without its extension; without
/// comments and tests.
pub fn files(source: &Path) -> BTreeMap<String, String> {
    let bare = |text: String| {
        text.lines()
            .map(without_comment)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let texts = texts(source).into_iter();
    texts.map(|(path, text)| (path, bare(text))).collect()
}

/// Reads each file as [`files`] does, with its comments.
fn texts(source: &Path) -> BTreeMap<String, String> {
    fn read(folder: &Path, within: &str, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            if OF_TESTS.contains(&stem) {
                continue;
            }
            let name = format!("{within}/{stem}");
            if path.is_dir() {
                read(&path, &name, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                files.insert(name, text.to_owned());
            }
        }
    }
    let mut files = BTreeMap::new();
    read(source, "", &mut files);
    files
}

/// Words that begin a question or a condition, that stand for a subject which is not named, or that name no act of
/// code. A doc comment begins with a verb or a noun.
const ASKS: [&str; 16] = [
    "Whether", "What", "How", "Who", "Whose", "Which", "Why", "When", "Where", "If", "Whatever",
    "It", "They", "That", "Those", "Tells",
];

/// Finds the doc comments that begin with such a word: the file and the first line of each.
pub fn docs_that_ask(source: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in texts(source) {
        let mut within = "";
        for line in text.lines().map(str::trim_start) {
            let mark = ["///", "//!"]
                .into_iter()
                .find(|mark| line.starts_with(mark));
            let mark = mark.unwrap_or_default();
            let said = line[mark.len()..].trim_start();
            let word = said.split(|char: char| !char.is_alphabetic()).next();
            if mark != within && word.is_some_and(|word| ASKS.contains(&word)) {
                found.push(format!("{path}: {said}"));
            }
            within = mark;
        }
    }
    found
}

/// The most lines that a file has without its tests.
const MAX_LINES: usize = 600;

/// Finds the files that are longer: their paths and lines.
pub fn too_long(source: &Path) -> Vec<String> {
    let lines = texts(source)
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()));
    let long = lines.filter(|(_, lines)| *lines > MAX_LINES);
    long.map(|(path, lines)| format!("{path}: {lines}"))
        .collect()
}

/// The line up to its comment. Slashes in a string, as in an address, begin none.
fn without_comment(line: &str) -> &str {
    let mut starts = line.match_indices("//").map(|(at, _)| at);
    let comment = starts.find(|at| line[..*at].matches('"').count().is_multiple_of(2));
    &line[..comment.unwrap_or(line.len())]
}

/// The folders of the source, by their path there; the source itself has an empty one.
pub fn folders<'a>(files: &'a BTreeMap<String, String>) -> BTreeSet<&'a str> {
    let above = |path: &'a String| path.match_indices('/').map(move |(at, _)| &path[..at]);
    files.keys().flat_map(above).collect()
}

/// The modules that each module of the crate names.
pub fn uses(files: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    uses_in(files, "")
}

/// The modules that each module of `folder` names, of those that stand there too.
pub fn uses_in<'a>(
    files: &'a BTreeMap<String, String>,
    folder: &'a str,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let folder: Vec<&str> = folder.split('/').skip(1).collect();
    let within = |path: &[&'a str]| path.strip_prefix(&folder[..])?.first().copied();
    let modules = files.keys().filter_map(|path| within(&names(path)));
    let modules: BTreeSet<&str> = modules.collect();
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, text) in files {
        let own = names(path);
        let Some(module) = within(&own) else {
            continue;
        };
        let named = paths(&own, text);
        let named = named.iter().filter_map(|path| within(path));
        let others = named.filter(|name| modules.contains(name) && *name != module);
        uses.entry(module).or_default().extend(others);
    }
    uses
}

/// The names of a file's module, from the crate's root down.
fn names(path: &str) -> Vec<&str> {
    path.split('/')
        .skip(1)
        .filter(|name| *name != "mod")
        .collect()
}

/// Takes away the modules that use nothing that is left, again and again. The rest is circles,
/// and what stands on them.
pub fn circles<'a>(
    mut uses: BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let floor = |uses: &BTreeMap<&'a str, BTreeSet<&'a str>>| {
        let mut bare = uses.iter().filter(|(_, used)| used.is_empty());
        bare.next().map(|(name, _)| *name)
    };
    while let Some(floor) = floor(&uses) {
        uses.remove(floor);
        uses.values_mut().for_each(|used| {
            used.remove(floor);
        });
    }
    uses
}

/// The paths that the text of the module `own` names, from the crate's root down.
fn paths<'a>(own: &[&'a str], text: &'a str) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    for root in ["crate", "super", "self"] {
        for (at, _) in text.match_indices(root) {
            let goes_on = |char: char| is_of_a_name(char) || char == ':';
            let rest = text[at + root.len()..].strip_prefix("::");
            let Some(mut rest) = rest.filter(|_| !text[..at].ends_with(goes_on)) else {
                continue;
            };
            let mut up = if root == "super" { 1 } else { 0 };
            while let Some(higher) = rest.strip_prefix("super::") {
                (rest, up) = (higher, up + 1);
            }
            let from = match root {
                "crate" => Vec::new(),
                _ => own[..own.len().saturating_sub(up)].to_vec(),
            };
            read_tree(&mut rest, from, &mut found);
        }
    }
    found
}

/// Reads a path, or several in braces, off the beginning of `text`, which goes on where `path` ends.
fn read_tree<'a>(text: &mut &'a str, mut path: Vec<&'a str>, found: &mut Vec<Vec<&'a str>>) {
    loop {
        *text = text.trim_start();
        if let Some(rest) = text.strip_prefix('{') {
            *text = rest;
            while !text.is_empty() {
                let next = |char: char| char.is_whitespace() || char == ',';
                *text = text.trim_start_matches(next);
                if let Some(rest) = text.strip_prefix('}') {
                    *text = rest;
                    return;
                }
                read_tree(text, path.clone(), found);
                // Past another name for it.
                *text = &text[text.find([',', '}']).unwrap_or(text.len())..];
            }
            return;
        }
        let end = text.find(|char| !is_of_a_name(char));
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        path.push(name);
        *text = rest;
        let Some(rest) = rest.strip_prefix("::") else {
            break;
        };
        *text = rest;
    }
    found.push(path);
}

fn is_of_a_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}
