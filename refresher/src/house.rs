//! The laws of the house: what its files may name. They are read as text, tests apart.

#[path = "../../src/house/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use source::{circles, uses};

fn files() -> BTreeMap<String, String> {
    let files = source::files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    assert!(files.len() > 80, "{} files", files.len());
    files
}

#[test]
fn modules_go_in_no_circle() {
    let files = files();
    let uses = uses(&files);
    assert!(uses["app"].contains("store"), "names are found");
    let circles = circles(uses);
    assert!(
        circles.is_empty(),
        "a circle, and what stands on it: {circles:#?}"
    );
}

/// A door parses and shows; what is done, and saved, is `app`'s.
#[test]
fn the_command_line_saves_nothing_by_itself() {
    for (path, text) in files() {
        let is_door = path.starts_with("/cli/");
        assert!(!is_door || !text.contains(".store"), "{path}");
    }
}
