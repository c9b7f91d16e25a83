//! Tests that the documents and the command line agree.
//!
//! `docs/cli.md` is generated from the commands' definitions. The pages that people write name each command as it is,
//! and the README has every variable and error code that the code has.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;

/// The generated page, from the repository's root.
const REFERENCE: &str = "docs/cli.md";
/// Set to write the page instead of comparing it.
const WRITE: &str = "LATCHKEY_WRITE_DOCS";
/// The command that writes the page, for messages.
const REGENERATE: &str = "make docs";
/// Folders that hold what was built or fetched.
const NOT_OURS: [&str; 2] = ["target", "node_modules"];

fn root() -> &'static Path {
    let refresher = Path::new(env!("CARGO_MANIFEST_DIR"));
    refresher.parent().expect("the repository's root")
}

/// Finds the files below `folder` that have this extension.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && !NOT_OURS.contains(&name) {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

/// Returns the text between single backquotes in the sentences of a page.
fn spans(page: &str) -> Vec<&str> {
    let mut in_block = false;
    let mut spans = Vec::new();
    for line in page.lines() {
        let is_fence = line.starts_with("```");
        in_block ^= is_fence;
        if !in_block && !is_fence {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// Parses a command as a sentence names it: arguments may be missing, but whatever stands there must be known.
fn parse(command: &str) -> Result<(), String> {
    let is_sound = |error: &clap::Error| {
        let ends_with_flag = command
            .rsplit(' ')
            .next()
            .is_some_and(|last| last.starts_with("--"));
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
            ErrorKind::InvalidValue => ends_with_flag,
            _ => false,
        }
    };
    // Where a sentence writes ADDRESS, a reader puts a real one.
    let words = command.split(' ').map(|word| match word {
        "ADDRESS" => "127.0.0.1:9464",
        word => word,
    });
    match Cli::try_parse_from(words) {
        Ok(_) => Ok(()),
        Err(error) if is_sound(&error) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_reference_is_current() {
    let options = clap_markdown::MarkdownOptions::new()
        .title("The commands of `refresher`".to_owned())
        .show_footer(false);
    let generated = clap_markdown::help_markdown_custom::<Cli>(&options);
    let generated = format!(
        "<!-- `{REGENERATE}` writes this page from the code. -->\n\n{}\n",
        generated.trim()
    );
    let path = root().join(REFERENCE);
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, generated).expect("written");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == generated,
        "{REFERENCE} is not what the commands say; run: {REGENERATE}"
    );
}

#[test]
fn every_command_that_a_sentence_names_is_known() {
    let mut pages = Vec::new();
    files(root(), "md", &mut pages);
    pages.retain(|page| !page.ends_with(REFERENCE));
    let (mut checked, mut wrong) = (0, Vec::new());
    for page in pages {
        let text = fs::read_to_string(&page).expect("the page");
        let commands = spans(&text)
            .into_iter()
            .filter(|span| span.starts_with("refresher "));
        for command in commands {
            checked += 1;
            if let Err(why) = parse(command) {
                wrong.push(format!("{}: `{command}`: {why}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 20, "{checked} commands");
}

/// Folders of the repository that pages name files of.
const FOLDERS: [&str; 8] = [
    "src/",
    "refresher/",
    "tests/",
    "bench/",
    "fuzz/",
    "scripts/",
    "tools/",
    "docs/",
];

#[test]
fn every_file_that_a_sentence_names_is_there() {
    let mut pages = Vec::new();
    files(root(), "md", &mut pages);
    let mut named = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("the page");
        for span in spans(&text) {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder));
            if is_path && !span.contains(['<', '*', ' ', '{']) {
                let path = span.split(':').next().unwrap_or_default();
                assert!(
                    root().join(path).exists(),
                    "{}: {span} is not there",
                    page.display()
                );
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named} paths");
}

#[test]
fn a_wrong_command_is_found() {
    for wrong in [
        "refresher accounts restet NAME",
        "refresher keys create --pol x",
        "refresher serve --metrics-port 1",
        "refresher keys set NAME --rpm many",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let page = "a `b c` and\n```sh\n`x`\n```\n## D\n`e`";
    assert_eq!(spans(page), ["b c", "e"]);
}

/// All that a caller or an operator meets and looks up is on a page: codes in docs/errors.md, variables in the README.
#[test]
fn every_error_code_and_variable_is_on_a_page() {
    let pages = ["README.md", "docs/errors.md"];
    let pages = pages.map(|page| fs::read_to_string(root().join(page)).expect("the page"));
    let named: BTreeSet<_> = pages.iter().flat_map(|page| spans(page)).collect();
    let mut sources = Vec::new();
    files(&root().join("src"), "rs", &mut sources);
    files(&root().join("refresher/src"), "rs", &mut sources);
    let mut names = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(source).expect("the file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            // A code is the value of an arm; a variable is a literal of its own.
            let arm = line.split_once("=> \"").map(|(_, rest)| rest);
            let code = arm.filter(|rest| rest.starts_with("latchkey_"));
            let variables = line.split('"').skip(1).step_by(2);
            let variables = variables.filter(|text| {
                let is_upper = |one: char| one.is_ascii_uppercase() || one == '_';
                let is_ours = text.starts_with("LATCHKEY_") && text.chars().all(is_upper);
                is_ours && *text != WRITE && !text.starts_with("LATCHKEY_TEST_")
            });
            names.extend(variables.map(str::to_owned));
            names.extend(
                code.and_then(|rest| rest.split('"').next())
                    .map(str::to_owned),
            );
        }
    }
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    assert!(
        count("latchkey_") >= 15 && count("LATCHKEY_") >= 5,
        "{names:?}"
    );
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !named.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "no page has {missing:?}");
}

/// A caller looks up the paths that the gateway serves, the common ones in the README.
#[test]
fn every_path_of_a_door_is_on_a_page() {
    let pages = ["README.md", "docs/profiles.md"];
    let pages = pages.map(|page| fs::read_to_string(root().join(page)).expect("the page"));
    let named: BTreeSet<_> = pages.iter().flat_map(|page| spans(page)).collect();
    let doors = root().join("refresher/src/platform/doors.toml");
    let doors = fs::read_to_string(doors).expect("the file");
    let found = doors
        .lines()
        .filter_map(|line| line.strip_prefix("path = "));
    let paths: BTreeSet<_> = found.map(|path| path.trim_matches('"')).collect();
    assert!(paths.len() >= 6, "{paths:?}");
    for path in paths {
        let spelled = [
            path.to_owned(),
            format!("POST {path}"),
            format!("GET {path}"),
        ];
        let is_named = spelled.iter().any(|one| named.contains(one.as_str()));
        assert!(is_named, "no page names {path}");
    }
}
