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

/// ARCHITECTURE.md's table of the daemon's folders, from the top down.
#[test]
fn a_folder_uses_none_above_it() {
    let map = include_str!("../../ARCHITECTURE.md");
    let (_, map) = map.split_once("The daemon, `refresher/src/`.").unwrap();
    let (map, _) = map.split_once("Beside them:").unwrap();
    let mut places = BTreeMap::new();
    for (place, row) in map
        .lines()
        .filter(|line| line.starts_with("| `"))
        .enumerate()
    {
        let names = row.split('|').nth(1).unwrap().split(',');
        let names = names.map(|name| name.trim_matches([' ', '`', '/']).to_owned());
        places.extend(names.map(|name| (name, place)));
    }
    assert!(places.len() > 15, "{places:?}");
    let files = files();
    let mut seen = 0;
    for (module, used) in uses(&files) {
        let Some(place) = places.get(module) else {
            continue;
        };
        for name in used {
            let below = places.get(name).is_none_or(|of| of >= place);
            assert!(below, "{module} uses {name}, which stands above it");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} uses are seen");
}

/// A door parses and shows; what is done, and saved, is `app`'s.
#[test]
fn the_command_line_saves_nothing_by_itself() {
    for (path, text) in files() {
        let is_door = path.starts_with("/cli/");
        assert!(!is_door || !text.contains(".store"), "{path}");
    }
}
