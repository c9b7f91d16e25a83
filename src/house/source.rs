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

/// Words that begin a question or a condition. A doc comment begins with a verb or a noun.
const ASKS: [&str; 11] = [
    "Whether", "What", "How", "Who", "Whose", "Which", "Why", "When", "Where", "If", "Whatever",
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

/// The line up to its comment. Slashes in a string, as in an address, begin none.
fn without_comment(line: &str) -> &str {
    let mut starts = line.match_indices("//").map(|(at, _)| at);
    let comment = starts.find(|at| line[..*at].matches('"').count().is_multiple_of(2));
    &line[..comment.unwrap_or(line.len())]
}

/// The module of a file: the first part of its path.
pub fn module(path: &str) -> &str {
    path.split('/').nth(1).unwrap()
}

/// The modules that each module names.
pub fn uses(files: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let modules: BTreeSet<&str> = files.keys().map(|path| module(path)).collect();
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, text) in files {
        let own = module(path);
        let named = names_from_root(text).into_iter();
        let others = named.filter(|name| modules.contains(name) && *name != own);
        uses.entry(own).or_default().extend(others);
    }
    uses
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

/// The names that a text takes from the crate's root.
fn names_from_root(text: &str) -> BTreeSet<&str> {
    let first_word = |text: &str| -> usize {
        let ends = |char: char| !char.is_alphanumeric() && char != '_';
        text.find(ends).unwrap_or(text.len())
    };
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(&rest[..first_word(rest)]);
            continue;
        };
        let (mut depth, mut at_name) = (1, true);
        for (at, char) in group.char_indices() {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => at_name = true,
                char if depth == 1 && at_name && !char.is_whitespace() => {
                    let rest = &group[at..];
                    names.insert(&rest[..first_word(rest)]);
                    at_name = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}
