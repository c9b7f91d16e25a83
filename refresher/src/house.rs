//! The laws of the house: what its files may name. They are read as text, tests apart.

mod golden;
#[path = "../../src/house/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use clap::CommandFactory;
use source::{circles, docs_that_ask, folders, too_long, uses, uses_in};

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

/// The files whose sentences are those of the command line.
fn is_for_the_command_line(path: &str) -> bool {
    path.starts_with("/cli/") || path == "/advice"
}

/// The names of commands, below `refresher` alone.
fn commands() -> Vec<String> {
    let cli = crate::cli::Cli::command();
    let commands = cli.get_subcommands().map(|one| one.get_name().to_owned());
    commands.collect()
}

/// The door that people came through says what to type. Other layers say what happened.
#[test]
fn flags_and_commands_are_named_at_the_command_line_alone() {
    let commands = commands();
    let names_command = |text: &str| {
        let mut named = text.split("refresher ").skip(1);
        named.any(|rest| {
            let mut words = rest.split(|char: char| !char.is_ascii_lowercase() && char != '-');
            let word = words.next().unwrap();
            commands.iter().any(|command| command == word)
        })
    };
    let names_flag = |text: &str| {
        let mut behind = text.split("--").skip(1);
        behind.any(|rest| rest.starts_with(|char: char| char.is_ascii_lowercase()))
    };
    let (mut flags, mut found) = (0, Vec::new());
    for (path, text) in files() {
        // A sentence may go on in the next line.
        let text = text.replace("\\\n", " ");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if is_for_the_command_line(&path) {
            flags += usize::from(names_flag(&text) && names_command(&text));
            continue;
        }
        // Those are Chromium's.
        if names_command(&text) || (path != "/browser" && names_flag(&text)) {
            found.push(path);
        }
    }
    assert!(flags > 2, "they are found where they are");
    assert!(found.is_empty(), "{found:?}");
}

/// Vendors of models, and their programs.
const VENDORS: [&str; 22] = [
    "google",
    "gemini",
    "anthropic",
    "claude",
    "openai",
    "chatgpt",
    "codex",
    "azure",
    "amazon",
    "bedrock",
    "alibaba",
    "qwen",
    "baidu",
    "ernie",
    "qianfan",
    "zhipu",
    "deepseek",
    "moonshot",
    "mistral",
    "doubao",
    "ollama",
    "vllm",
];

/// The files that may name a vendor, by the beginning of their path, and why.
const ABOUT_VENDORS: [(&str, &str); 10] = [
    ("/login/import", "the files of other programs"),
    ("/login/setup/code_assist", "one vendor's way to set up"),
    ("/platform/flow", "the words of profiles for those two"),
    ("/platform/mod", "a profile for tests"),
    ("/envoy/clusters", "types of Envoy's are google's"),
    ("/browser", "the names of browsers"),
    ("/advice", "an example"),
    ("/cli/status", "an example"),
    ("/cli/doctor/checks/pool", "an example"),
    ("/cli/terms_page", "the page about vendors' terms"),
];

/// Vendors are data: files of profiles.
#[test]
fn code_that_is_for_every_platform_names_no_vendor() {
    let mut excepted = BTreeMap::from(ABOUT_VENDORS.map(|(path, _)| (path, 0)));
    for (path, text) in files() {
        let text = text.to_lowercase();
        let Some(name) = VENDORS.into_iter().find(|name| text.contains(name)) else {
            continue;
        };
        let mut exceptions = excepted.iter_mut();
        let exception = exceptions.find(|(start, _)| path.starts_with(**start));
        let (_, uses) = exception.unwrap_or_else(|| panic!("{path} names {name}"));
        *uses += 1;
    }
    let idle = excepted.iter().find(|(_, uses)| **uses == 0);
    assert_eq!(idle, None, "an exception that nobody needs");
}

/// A door parses and shows; what is done, and saved, is `app`'s.
#[test]
fn the_command_line_saves_nothing_by_itself() {
    for (path, text) in files() {
        let is_door = path.starts_with("/cli/");
        assert!(!is_door || !text.contains(".store"), "{path}");
    }
}
