//! What stands in the documents' sentences as `code` is true: commands run or at least parse, and whatever is named is
//! there. [`crate::docs`] does the same for whole blocks.
//!
//! Each span is sorted by its form, and what has no form that is known is an error: a new command in a sentence cannot go
//! unchecked. Of a command that lacks arguments, such as `refresher login`, only the words that are there are
//! checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use refresher::{cli::Cli, config::Config, platform::Catalog};

use crate::{
    docs::{fences, pages},
    harness::{
        program::{self, Program},
        refresher::Refresher,
        run,
        sim::Sim,
        source_root, stack,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

/// Where the names are that may stand in a sentence.
const CODE: &str = "src refresher/src refresher/platforms refresher/migrations envoy scripts tools tests/sim/src bench/src \
    bench/Cargo.toml fuzz/targets Cargo.toml clippy.toml Makefile";

/// Files and keys that are there only while something runs: the file that makes them, and how it names them.
const RUN_TIME: &str = r#"
target/ | Makefile | $(CURDIR)/target
config.toml | refresher/src/state.rs | config.toml
latchkey.db | refresher/src/state.rs | latchkey.db
setup.lock | refresher/src/state.rs | setup.lock
serve.lock | refresher/src/state.rs | serve.lock
run/serve.lock | refresher/src/state.rs | serve.lock
run/rotation.lock | refresher/src/state.rs | rotation.lock
run/refresher.sock | refresher/src/state.rs | refresher.sock
run/envoy-escape.sock | refresher/src/envoy.rs | envoy-escape.sock
envoy/clusters.json | refresher/src/state.rs | envoy/clusters.json
<state>/envoy/clusters.json | refresher/src/state.rs | envoy/clusters.json
high-water.json | refresher/src/store/high_water.rs | high-water.json
<platforms_dir>/<id>.toml | refresher/src/platform/catalog.rs | toml_files
~/.local/state/latchkey | refresher/src/state.rs | .local/state
target/fuzz/corpus | scripts/fuzz.sh | $OUT/corpus
target/fuzz/findings | scripts/fuzz.sh | $OUT/findings
latchkey/2/ | src/host.rs | latchkey/2/
quota/NN | src/sync/quota.rs | quota/{}
bucket/NN | src/snapshot/bucket.rs | bucket/{}
counters/NN | src/limit/table.rs | counters/{:02}
counters/news | src/limit/table.rs | counters/news
counters/instance | src/limit/table.rs | counters/instance
latchkey_requests_lost | refresher/src/metrics.rs | requests_lost
hostile | tests/it/main.rs | mod hostile;
refresher/platforms/<id>.toml | refresher/src/platform/catalog.rs | platforms/codex.toml
envoy/.env | envoy/docker-compose.yaml | LATCHKEY_ACKNOWLEDGED_TERMS
"#;

/// What is not ours, or is no name at all, and whose it is. Nothing stands here that no page has.
const OTHERS: &str = r#"
codex logout | Codex CLI
GATEWAY_KEY=lk_… codex | Codex CLI; the block after it is run
auth.json | Codex CLI
~/.codex/config.toml | Codex CLI
docker compose --file envoy/docker-compose.yaml --file envoy/docker-compose.demo.yaml up --build | Docker
keyctl padd user latchkey:key @u | keyutils
@u | keyutils
perf | Linux
chrt -r 10 | Linux
fsync | Linux
/proc/PID/task/*/schedstat | Linux
wasm-opt -O4 | binaryen
--converge | binaryen
trace | Envoy
FAIL_OPEN | Envoy
wasmcustom.latchkey.* | Envoy, before the names in src/shell/stats.rs
[table] | TOML
a-z 0-9 _ | characters
* | characters
.. | characters
%2e | characters
r | a figure's name
(N − 1) · min(limit, r · 2 · (1 s + 0.1 s)) | a formula
format ∥ key id ∥ nonce ∥ ciphertext ∥ tag | a layout
// === impl X === | a rule of style
get_ | a rule of style
area: what and why | a rule of style
<!-- run --> | a mark of tests/it/docs.rs
<!-- check: … --> | a mark of tests/it/docs.rs
latchkey-<account id> | a name of a cluster
"#;

/// What there is to name.
struct Known {
    /// The code without its comments and tests, and the pages' blocks, which are run or checked.
    code: String,
    words: BTreeSet<String>,
    makefile: String,
    make_help: String,
    bench: String,
    /// The refresher's flags, and the commands that have them.
    flags: BTreeMap<String, Vec<String>>,
    /// Where settings are tried.
    folder: PathBuf,
}

impl Known {
    async fn new(folder: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(source_root().join(path)).expect("a file");
        let mut code = String::new();
        for place in CODE.split_whitespace() {
            add_code(&source_root().join(place), &mut code);
        }
        for page in pages() {
            let blocks = fences(&read(&page)).into_iter();
            code.extend(blocks.map(|(_, _, block)| block + "\n"));
        }
        let mut help = Program::command("make".as_ref());
        help.arg("help").current_dir(source_root());
        let help = program::output_of(help, LIMIT).await.stdout;
        let mut flags = BTreeMap::new();
        add_flags(&Cli::command(), "", &mut flags);
        Self {
            words: words(&code).map(str::to_lowercase).collect(),
            code,
            makefile: read("Makefile"),
            make_help: String::from_utf8(help).expect("text"),
            bench: read("bench/src/main.rs"),
            flags,
            folder: folder.to_owned(),
        }
    }

    /// What is wrong with a span of that section, if it is not as it says; of a whole command of the refresher, its
    /// arguments.
    fn judge(&self, page: &str, section: &str, span: &str) -> Result<Option<Vec<String>>, String> {
        if rows(OTHERS).any(|row| row[0] == span) {
            let mut files = span.split(' ').filter(|word| word.starts_with("envoy/"));
            return files
                .try_for_each(|file| is_file(page, file))
                .map(|()| None);
        }
        let (first, rest) = span.split_once(' ').unwrap_or((span, ""));
        let is_one_of_many = |word: &str| !rest.is_empty() && first == word;
        let judged = if is_one_of_many("refresher")
            || !rest.is_empty() && Cli::command().find_subcommand(first).is_some()
        {
            return refresher_command(span);
        } else if span.starts_with(|first: char| first.is_ascii_digit()) {
            // A day of this year may be over.
            let end = span.get(4..).filter(|rest| rest.starts_with('-'));
            let end = end.map_or(span.to_owned(), |rest| format!("2999{rest}"));
            return refresher_command(&format!("keys set NAME --expires {end}"));
        } else if is_one_of_many("make")
            || span.split_once('=').is_some_and(|(name, _)| is_upper(name))
        {
            self.make(span.strip_prefix("make ").unwrap_or(span))
        } else if !rest.is_empty() && first.starts_with("scripts/") {
            is_file(page, first).and_then(|()| self.all_words(rest))
        } else if let Some((table, key)) = setting(span) {
            self.setting(table, key)
        } else if !rest.is_empty()
            && first
                .chars()
                .all(|one| one.is_ascii_lowercase() || "-.".contains(one))
        {
            Err(format!("no command that is known: {first}"))
        } else if span.starts_with("--") {
            let is_bench = page == "bench/README.md";
            is_there(
                is_bench && self.bench_has(span) || self.has_flag(section, span),
                span,
            )
        } else if is_one_of_many("GET") || is_one_of_many("POST") {
            self.request(first, rest)
        } else if span.starts_with('/') {
            self.request("", span)
        } else if is_path(span) || rows(RUN_TIME).any(|row| row[0] == span) {
            is_file(page, span)
        } else if let Some((parent, module)) = span.split_once("::") {
            let module = format!("src/{parent}/{module}");
            is_file("", &format!("{module}.rs")).or_else(|_| is_file("", &module))
        } else if let Some(name) = span.strip_prefix("latchkey.") {
            // A property, or one of the numbers that get this before their name.
            let number = format!("Metric::counter(\"{name}\")");
            is_there(
                self.found(span).next().is_some() || self.code.contains(&number),
                span,
            )
        } else {
            self.all_words(span)
        };
        judged.map(|()| None)
    }

    /// Whether a command that the section names has the flag.
    fn has_flag(&self, section: &str, flag: &str) -> bool {
        let mut commands = self.flags.get(flag).into_iter().flatten();
        commands.any(|command| {
            section.contains(&format!("refresher {command}"))
                || section.contains(&format!("`{command}"))
        })
    }

    fn bench_has(&self, flag: &str) -> bool {
        let field = flag.trim_start_matches('-').replace('-', "_");
        self.bench.contains(&format!(")]\n    {field}: "))
    }

    /// Targets, and then the value of a variable.
    fn make(&self, arguments: &str) -> Result<(), String> {
        let mut words = arguments.split([' ', '\'']);
        for word in words.by_ref() {
            let target = |line: &str| line.split_whitespace().next() == Some(word);
            let Some((variable, value)) = word.split_once('=') else {
                is_there(self.make_help.lines().any(target), word)?;
                continue;
            };
            let definition = format!("\n{variable} ?=");
            is_there(self.makefile.contains(&definition), variable)?;
            let mut flags = std::iter::once(value).chain(words);
            let is_wrong = |flag: &&str| flag.starts_with('-') && !self.bench_has(flag);
            let wrong = flags.find(is_wrong).filter(|_| variable == "BENCH_OPTIONS");
            return wrong.map_or(Ok(()), |flag| is_there(false, flag));
        }
        Ok(())
    }

    /// Whether the code has the path, as `"/reports", post(…)` or `path = "/…" methods = ["POST"]`, and its parameters.
    fn request(&self, method: &str, target: &str) -> Result<(), String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let part = |part: &str| match is_upper(part) {
            true => format!("{{{}}}", part.to_lowercase()),
            false => part.to_owned(),
        };
        let path = path.split('/').map(part).collect::<Vec<_>>().join("/");
        let takes = |rest: &str| {
            let near: String = rest.chars().take(100).collect();
            let near = near
                .split(".route(")
                .next()
                .unwrap_or_default()
                .to_lowercase();
            match method {
                "POST" => near.contains("post"),
                "GET" => near.contains("get(") || !near.contains("post"),
                _ => true,
            }
        };
        is_there(self.found(&path).any(takes), target)?;
        let mut names = query.split('&').filter_map(|pair| pair.split_once('='));
        names.try_for_each(|(name, _)| self.all_words(name))
    }

    /// Whether the refresher knows the setting: given a value of no sensible type, it must not say that there is none.
    fn setting(&self, table: &str, key: &str) -> Result<(), String> {
        let line = if key.is_empty() {
            String::new()
        } else {
            format!("{key} = {{}}")
        };
        let texts = match table {
            "" => vec![line.clone(), format!("[[routes]]\n{line}")],
            table => vec![format!("[{table}]\n{line}")],
        };
        let profiles = self.folder.join("profiles");
        fs::create_dir_all(&profiles).expect("a folder");
        let (config, profile) = (self.folder.join("config.toml"), profiles.join("codex.toml"));
        let is_known =
            |refused: Option<String>| !refused.is_some_and(|why| why.contains("unknown field"));
        for text in texts {
            fs::write(&config, &text).expect("written");
            fs::write(&profile, &text).expect("written");
            let by_config = Config::load(&config).err().map(|error| error.to_string());
            let by_profile = Catalog::load(Some(&profiles), BTreeSet::new())
                .err()
                .map(|error| error.to_string());
            if is_known(by_config) || is_known(by_profile) {
                return Ok(());
            }
        }
        Err(format!(
            "neither config.toml nor a profile may have [{table}] {key}"
        ))
    }

    /// What follows each place of the code where the text stands by itself.
    fn found<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let ends = |side: Option<char>| side.is_none_or(|side| !is_of_word(side) && side != '/');
        self.code.match_indices(text).filter_map(move |(at, _)| {
            let (before, after) = (&self.code[..at], &self.code[at + text.len()..]);
            (ends(before.chars().next_back()) && ends(after.chars().next())).then_some(after)
        })
    }

    /// Whether every name in it occurs in the code; one in capitals stands for what the reader puts there.
    fn all_words(&self, text: &str) -> Result<(), String> {
        is_there(words(text).next().is_some(), text)?;
        for word in words(text) {
            let lower = word.to_lowercase();
            // `x-latchkey-*` is whatever begins so.
            let begins = format!("{lower}-");
            let is_known = match text.ends_with("-*") {
                true => self.words.iter().any(|known| known.starts_with(&begins)),
                false => self.words.contains(&lower) || is_upper(word) && !word.contains('_'),
            };
            is_there(is_known, word)?;
        }
        Ok(())
    }
}

fn is_there(is_there: bool, what: &str) -> Result<(), String> {
    is_there.then_some(()).ok_or(format!("there is no {what}"))
}

/// The table and the key of `[usage] keep_days`, `[key]`, `keep_days = 90`; one of them may be empty.
fn setting(span: &str) -> Option<(&str, &str)> {
    let (table, rest) = match span.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", span.contains(" = ").then_some(span)?),
    };
    let key = rest.split(" = ").next().unwrap_or_default().trim();
    let are_names = [table, key]
        .concat()
        .chars()
        .all(|one| is_of_word(one) || one == '.');
    are_names.then_some((table, key))
}

/// The arguments of a command of the refresher, if none is missing, with what NAME could stand for.
fn refresher_command(span: &str) -> Result<Option<Vec<String>>, String> {
    let line = span.strip_prefix("refresher ").unwrap_or(span);
    let name = if line.starts_with("keys") {
        "my-team"
    } else {
        "team"
    };
    let real = |word: &str| match word {
        "NAME" => name.to_owned(),
        // Any port that is free.
        "ADDRESS" | "127.0.0.1:9464" => "127.0.0.1:0".to_owned(),
        word => word.to_owned(),
    };
    let arguments: Vec<_> = line.split(' ').map(real).collect();
    let ends_with_flag = arguments.last().is_some_and(|last| last.starts_with("--"));
    match Cli::try_parse_from(["refresher".to_owned()].iter().chain(&arguments)) {
        Ok(_) => Ok(Some(arguments)),
        Err(error) => match error.kind() {
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(None),
            ErrorKind::InvalidValue if ends_with_flag => Ok(None),
            _ => Err(error.to_string()),
        },
    }
}

fn is_file(page: &str, path: &str) -> Result<(), String> {
    let root = source_root();
    let beside = root.join(page).parent().map(|folder| folder.join(path));
    if root.join(path).exists() || beside.is_some_and(|beside| beside.exists()) {
        return Ok(());
    }
    let Some([_, maker, name]) = rows(RUN_TIME).find(|row| row[0] == path) else {
        return Err(format!("no file {path}"));
    };
    let made = fs::read_to_string(root.join(maker)).is_ok_and(|text| text.contains(name));
    made.then_some(()).ok_or(format!("{maker} makes no {name}"))
}

/// The rows of a table: what it is, and two words about it.
fn rows(table: &str) -> impl Iterator<Item = [&str; 3]> {
    table.trim().lines().map(|line| {
        let mut cells = line.split(" | ");
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    })
}

fn is_path(span: &str) -> bool {
    let known = [
        "rs", "md", "toml", "yaml", "json", "sock", "lock", "db", "sh", "txt",
    ];
    let extension = span.rsplit_once('.').map(|(_, extension)| extension);
    !span.contains([' ', '=', '{', '"', '$'])
        && (span.contains('/') || extension.is_some_and(|it| known.contains(&it)))
}

fn is_of_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == '-'
}

/// Whether it is a variable, or stands for something.
fn is_upper(word: &str) -> bool {
    !word.is_empty()
        && word
            .chars()
            .all(|one| one.is_ascii_uppercase() || one == '_')
}

/// The names in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter| !is_of_word(letter));
    let words = words.map(|word| word.trim_matches('-'));
    words.filter(|word| word.contains(|letter: char| letter.is_ascii_alphabetic()))
}

fn add_flags(command: &clap::Command, path: &str, flags: &mut BTreeMap<String, Vec<String>>) {
    for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
        let commands = flags.entry(format!("--{flag}")).or_default();
        commands.push(path.to_owned());
    }
    for command in command.get_subcommands() {
        let path = format!("{path} {}", command.get_name());
        add_flags(command, path.trim(), flags);
    }
}

/// Adds what stands in a file, or in the files of a folder, but comments and tests.
fn add_code(path: &Path, code: &mut String) {
    if path.file_stem().is_some_and(|name| name == "tests") {
        return;
    }
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder");
        entries.for_each(|entry| add_code(&entry.expect("an entry").path(), code));
        return;
    }
    let Ok(text) = fs::read_to_string(path) else {
        return;
    };
    let comment = if path.extension().is_some_and(|it| it == "rs") {
        "//"
    } else {
        "# "
    };
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with(comment))
    {
        code.push_str(line);
        code.push('\n');
    }
}

/// What stands between single backquotes in a page's sentences, with its line and its section.
fn spans(page: &str) -> Vec<(usize, &str, &str)> {
    let mut spans = Vec::new();
    let mut number = 0;
    for section in page.split("\n## ") {
        let mut in_block = false;
        for line in section.lines() {
            number += 1;
            let is_fence = line.starts_with("```");
            in_block ^= is_fence;
            if in_block || is_fence {
                continue;
            }
            let parts: Vec<_> = line.split('`').collect();
            let are_even = parts.len() % 2 == 1;
            assert!(are_even, "line {number}: a backquote has no other: {line}");
            let found = parts.into_iter().skip(1).step_by(2);
            spans.extend(found.map(|span| (number, section, span)));
        }
    }
    spans
}

#[test]
fn what_the_sentences_name_is_there_and_their_commands_run() {
    run(async {
        let folder = stack::new_folder("spans");
        let known = Known::new(&folder).await;
        let (mut wrong, mut found) = (Vec::new(), BTreeMap::new());
        for page in pages() {
            let text = fs::read_to_string(source_root().join(&page)).expect("the page");
            for (line, section, span) in spans(&text) {
                match known.judge(&page, section, span) {
                    Ok(command) => drop(found.insert(span.to_owned(), command)),
                    Err(why) => wrong.push(format!("{page}:{line}: `{span}`: {why}")),
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for [span, ..] in rows(OTHERS).chain(rows(RUN_TIME)) {
            assert!(found.contains_key(span), "no page has {span}");
        }

        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        refresher.add_api_key("team", "openai", "sk-team").await;
        refresher.create_key("my-team").await;
        let mut commands = 0;
        for arguments in found.into_values().flatten() {
            println!("{arguments:?}");
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            match arguments[..] {
                ["serve", ref rest @ ..] => {
                    refresher.serve_with(rest).await;
                    refresher.stop().await;
                }
                // A browser would have to come.
                ["login", ..] => {}
                _ => drop(refresher.run(&arguments, "").await),
            }
            commands += 1;
        }
        assert!(commands >= 10, "{commands} commands");
    });
}

/// What a caller or an operator meets and looks up is in the README.
#[test]
fn every_code_variable_and_path_is_in_the_readme() {
    let readme = fs::read_to_string(source_root().join("README.md")).expect("the page");
    let named: BTreeSet<_> = spans(&readme)
        .into_iter()
        .map(|(_, _, span)| span)
        .collect();
    for (place, prefix, least) in [
        ("src/dialect/refusal.rs", "latchkey_", 15),
        ("refresher/src", "LATCHKEY_", 5),
    ] {
        let mut code = String::new();
        add_code(&source_root().join(place), &mut code);
        let names =
            words(&code).filter(|word| word.len() > prefix.len() && word.starts_with(prefix));
        let names: BTreeSet<_> = names.collect();
        assert!(names.len() >= least, "{names:?}");
        let missing: Vec<_> = names.difference(&named).collect();
        assert!(missing.is_empty(), "the README lacks {missing:?}");
    }
    let mut profiles = String::new();
    add_code(&source_root().join("refresher/platforms"), &mut profiles);
    let paths = profiles
        .lines()
        .filter_map(|line| line.strip_prefix("path = "));
    let paths: Vec<_> = paths.map(|path| path.trim_matches('"')).collect();
    assert!(paths.len() >= 7, "{paths:?}");
    for path in paths {
        let post = format!("POST {path}");
        assert!(
            named.contains(path) || named.contains(&*post),
            "the README lacks {path}"
        );
    }
}

const WRONG: &str = r#"
refresher accounts restet NAME
refresher keys create --pol x
refresher serve --metrics-port 1
refresher keys set NAME --rpm many
accounts frobnicate
pools add --heavy
latchkey serve
make tset
make e2e TSET_OPTIONS=x
BENCH_OPTIONS=--quik
FUZZ_HOURS=3
scripts/fuz.sh 60 verdict
cargo build
rm -rf target
--past
--paste
GET /snapshots
GET /snapshot?eras=E
POST /logins
/v1/images
$LATCHKEY_STATE
LATCHKEY_NOTHING
latchkey_no_such_code
src/gate/nothing.rs
tests/it/nothing.rs
nothing.lock
gate::nothing
[usage] keep_weeks
[usages]
[oauth.claim]
keep_weeks = 3
x-latchkey-nothing
x-lachkey-*
latchkey.nothing
fail_policy: FAIL_RELOAD
least_in_fligth
30 minutes
…
"#;

#[test]
fn a_wrong_span_is_found() {
    run(async {
        let folder = stack::new_folder("spans-wrong");
        let known = Known::new(&folder).await;
        for span in WRONG.trim().lines() {
            let judged = known.judge("README.md", "`refresher status`", span);
            assert!(judged.is_err(), "{span}: {judged:?}");
        }
        let page = "a `b c` and\n```sh\n`x`\n```\n## D\n`e`";
        let found = [
            (1, "a `b c` and\n```sh\n`x`\n```", "b c"),
            (6, "D\n`e`", "e"),
        ];
        assert_eq!(spans(page), found);
    });
}
