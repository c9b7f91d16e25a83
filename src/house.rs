//! The laws of the house: what its files may name. They are read as text, tests apart.

mod source;

use std::{collections::BTreeMap, path::Path};

use source::{circles, docs_that_ask, folders, too_long, uses, uses_in};

fn files() -> BTreeMap<String, String> {
    let files = source::files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    assert!(files.len() > 80);
    files
}

/// The module of a file: the first part of its path.
fn module(path: &str) -> &str {
    path.split('/').nth(1).unwrap()
}

#[test]
fn modules_go_in_no_circle() {
    let files = files();
    let uses = uses(&files);
    assert!(uses["gate"].contains("snapshot"), "names are found");
    for folder in folders(&files) {
        let circles = circles(uses_in(&files, folder));
        assert!(
            circles.is_empty(),
            "a circle in {folder:?}, and what stands on it: {circles:#?}"
        );
    }
}

#[test]
fn doc_comments_begin_with_a_verb_or_a_noun() {
    let found = docs_that_ask(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    assert!(
        found.is_empty(),
        "they begin with a question, or name no subject: {found:#?}"
    );
}

#[test]
fn no_file_is_too_long_without_its_tests() {
    let found = too_long(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_is_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let files = BTreeMap::from([
        file("/a/mod", "use crate::{b::{X, Y}, c};"),
        file("/b", "fn f() { crate::d::g() }"),
        file("/c", ""),
        file("/d/deep", "use crate::a::Z;"),
    ]);
    let left: Vec<&str> = circles(uses(&files)).into_keys().collect();
    assert_eq!(left, ["a", "b", "d"]);
}

#[test]
fn a_circle_in_a_folder_is_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let files = BTreeMap::from([
        file("/a/mod", "pub use self::one::One;"),
        file(
            "/a/one",
            "use super::{Error, two::{self, Two as Second}, three::*};",
        ),
        file("/a/two/mod", ""),
        file("/a/two/deep", "fn f() { super::super::four::g::<u8>() }"),
        file("/a/three", "use crate::{a::Error, b::five};"),
        file("/a/four", "use crate::{b, a::{Error, one as first}};"),
        file("/b/five", "use crate::a::one;"),
    ]);
    let folders: Vec<&str> = folders(&files).into_iter().collect();
    assert_eq!(folders, ["", "/a", "/a/two", "/b"]);
    let left: Vec<&str> = circles(uses_in(&files, "/a")).into_keys().collect();
    assert_eq!(left, ["four", "one", "two"]);
}

#[test]
fn only_the_dialects_tell_dialects_apart() {
    for (path, text) in files() {
        use crate::dialect::Dialect;
        let all = Dialect::OF_CALLERS.into_iter().chain(Dialect::OF_PLATFORMS);
        let words = all.flat_map(|one| {
            let words = [
                format!("Dialect::{one:?}"),
                format!("== \"{}\"", one.word()),
            ];
            words.into_iter().chain([format!("\"{}\" =>", one.word())])
        });
        let told = ["Dialect::*".to_owned()].into_iter().chain(words);
        let tells: Vec<String> = told.filter(|name| text.contains(name)).collect();
        assert!(
            tells.is_empty() || module(&path) == "dialect",
            "{path}: {tells:?}"
        );
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

/// The hasher of the standard library has the same key in every VM, as wasm has no source of randomness. Who knows it can
/// make a body of a hundred thousand ids that all fall into one place of a table, each of which is compared with all.
#[test]
fn what_a_body_names_goes_into_ordered_sets() {
    for (path, text) in files() {
        let hashes = text.contains("HashMap") || text.contains("HashSet");
        assert!(!hashes || module(&path) != "dialect", "{path}");
    }
}
