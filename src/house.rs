//! The laws of the house: what its files may name. They are read as text, tests apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Files of tests and of what only tests use.
const OF_TESTS: [&str; 5] = ["tests", "laws", "fixture", "fake", "house"];

/// The text of each file below `src/`, by its path, without comments and tests.
fn files() -> BTreeMap<String, String> {
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
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = text.lines().map(|line| line.split("//").next().unwrap());
            files.insert(name, lines.collect::<Vec<_>>().join("\n"));
        }
    }
    let mut files = BTreeMap::new();
    read(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        "",
        &mut files,
    );
    assert!(files.len() > 80);
    files
}

/// The module of a file: the first part of its path.
fn module(path: &str) -> &str {
    path.split('/').nth(1).unwrap()
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

#[test]
fn modules_go_in_no_circle() {
    let files = files();
    let modules: BTreeSet<&str> = files.keys().map(|path| module(path)).collect();
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, text) in &files {
        let own = module(path);
        let named = names_from_root(text).into_iter();
        let others = named.filter(|name| modules.contains(name) && *name != own);
        uses.entry(own).or_default().extend(others);
    }
    assert!(uses["gate"].contains("snapshot"), "names are found");
    // Takes away, again and again, what uses nothing that is left.
    while let Some(floor) = uses
        .iter()
        .find(|(_, used)| used.is_empty())
        .map(|(name, _)| *name)
    {
        uses.remove(floor);
        uses.values_mut().for_each(|used| {
            used.remove(floor);
        });
    }
    assert!(
        uses.is_empty(),
        "a circle, and what stands on it: {uses:#?}"
    );
}

#[test]
fn only_the_dialects_tell_dialects_apart() {
    for (path, text) in files() {
        let arms = crate::dialect::Dialect::ALL.map(|one| format!("Dialect::{one:?}"));
        let tells = arms.iter().any(|name| text.contains(name.as_str()));
        assert!(!tells || module(&path) == "dialect", "{path}");
    }
}

#[test]
fn only_the_shell_knows_the_proxy() {
    for (path, text) in files() {
        assert!(
            !text.contains("proxy_wasm") || module(&path) == "shell",
            "{path}"
        );
    }
}
