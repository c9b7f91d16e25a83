//! The demo shows what it promises, what it says to try can be tried, and it ends in order.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Mutex, MutexGuard, SemaphorePermit},
};

use crate::harness::{
    eventually, holds,
    program::{self, Program},
    run, source_root,
    stack::{self, closed_port, new_folder},
};

/// The pictures of the pages are drawn in one way.
#[path = "../../refresher/src/cli/picture.rs"]
mod picture;

/// The picture of the README, from the repository's root. `make demo-picture` draws it.
const PICTURE: &str = "docs/demo.svg";

/// The longest that the show may take; more than a token's life of 10 s is its rotation. A quiet machine needs 20 s.
const SHOW_LIMIT: Duration = Duration::from_secs(120);
/// The longest that one of the things to try may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One demo at a time: its logins wait at the platform's own ports.
static ONE: Mutex<()> = Mutex::const_new(());

/// A place for a demo.
async fn place() -> (MutexGuard<'static, ()>, SemaphorePermit<'static>) {
    (ONE.lock().await, stack::permit().await)
}

/// The demo on `port`. Its SIGINT does what it does at a terminal, also where this was started in the background.
fn demo(port: u16) -> Command {
    let mut demo = Program::command("env".as_ref());
    demo.arg("--default-signal=INT")
        .arg(source_root().join("scripts/demo.sh"))
        .current_dir(source_root())
        .env_remove("ONCE")
        .env("PORT", port.to_string());
    demo
}

#[test]
fn the_demo_shows_all_it_promises() {
    run(async {
        let _place = place().await;
        let mut demo = demo(closed_port());
        demo.env("ONCE", "1");
        let start = Instant::now();
        let done = program::output_of(demo, SHOW_LIMIT).await;
        println!("the demo took {:?}", start.elapsed());
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{shown}{done:?}");
        assert!(shown.contains("All of it happened."), "{shown}");
        let file = source_root().join(PICTURE);
        if std::env::var_os("LATCHKEY_WRITE_DOCS").is_some() {
            fs::write(file, picture::svg(shown.trim())).expect("written");
            return;
        }
        let drawn = fs::read_to_string(file).expect("the picture");
        let lines = |lines: Vec<String>| {
            let mut lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
            // Who used most stands first.
            lines.sort();
            lines
        };
        let drawn = lines(drawn.lines().filter_map(words_of).collect());
        let shown = lines(shown.lines().map(same_each_time).collect());
        assert_eq!(
            drawn, shown,
            "another show than {PICTURE}: make demo-picture"
        );
    });
}

/// The words of a line of the picture; none where it is no text.
fn words_of(line: &str) -> Option<String> {
    let (_, text) = line.strip_suffix("</text>")?.split_once('>')?;
    Some(same_each_time(
        &text.replace("&lt;", "<").replace("&amp;", "&"),
    ))
}

/// A line without what differs from show to show: numbers, what is sealed, and the account that helps out.
fn same_each_time(line: &str) -> String {
    let line = match line.split_once("the caller got: ") {
        Some((met, _)) => met,
        None => line,
    };
    let differs = |word: &str| {
        let is_hex = word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex || word.bytes().any(|byte| byte.is_ascii_digit())
    };
    let is_part = |one: char| !one.is_alphanumeric();
    let words = line.split_whitespace().map(|word| {
        let parts = word.split_inclusive(is_part);
        let parts = parts.map(|part| match differs(part.trim_end_matches(is_part)) {
            true => "#",
            false => part,
        });
        parts.collect::<String>()
    });
    let mut words: Vec<_> = words.collect();
    // `59m 59s` may be `1h` as well.
    words.dedup_by(|next, one| next == "#" && one == "#");
    words.join(" ")
}

#[test]
fn a_taken_port_is_one_line_that_names_the_cure() {
    run(async {
        let taken = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let done = program::output_of(demo(port), LIMIT).await;
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success(), "{done:?}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(said.contains("choose another: make demo PORT="), "{said}");
        assert!(done.stdout.is_empty(), "{done:?}");
    });
}

/// The lines that the demo prints at its end do what they say, and Ctrl-C leaves nothing behind.
#[test]
fn what_the_demo_says_to_try_can_be_tried() {
    run(async {
        let folder = new_folder("demo");
        let _place = place().await;
        let port = closed_port();
        let mut demo = Program::start(demo(port), &folder.join("demo.log")).await;
        let said = eventually("the show is over", SHOW_LIMIT, async || {
            demo.assert_alive();
            let printed = demo.printed();
            let said = printed.split_once("Try it, in another terminal:\n");
            let said = said.filter(|(_, said)| said.contains("Stop with Ctrl-C."));
            said.map(|(_, said)| said.to_owned()).ok_or(printed)
        })
        .await;
        let [curl, codex, python, status, end] = paragraphs(&said);

        let answer = shell(&folder, &curl).await;
        assert!(answer.contains("you said hello"), "{answer}");

        let (words, _) = codex.split_once('\n').expect("two lines");
        let (_, command) = words.split_once("then: ").expect("a command");
        let config =
            format!("check_for_update_on_startup = false\n{codex}\n[analytics]\nenabled = false\n");
        fs::create_dir(folder.join(".codex")).expect("a folder");
        fs::write(folder.join(".codex/config.toml"), config).expect("written");
        let command = format!("{command} exec --skip-git-repo-check 'say hi'");
        let answer = shell(&folder, &command).await;
        assert!(answer.contains("Hello from"), "{answer}");

        fs::write(folder.join("try.py"), &python).expect("written");
        let answer = shell(&folder, "python try.py").await;
        assert!(answer.contains("you said hello"), "{answer}");

        let shown = shell(&folder, &status).await;
        for account in ["alice", "bob", "team-key"] {
            assert!(shown.contains(account), "{shown}");
        }

        let files = end.lines().find_map(|line| line.strip_prefix("Logs: "));
        let files = files.unwrap_or_else(|| panic!("no folder in {end}"));
        assert!(!users_of(files).is_empty(), "nobody uses {files}");
        let ended = demo.interrupt().await;
        assert!(ended.success(), "{ended}: {}", demo.printed());
        assert!(!Path::new(files).exists(), "{files} is there still");
        assert_eq!(users_of(files), Vec::<u32>::new());
        let answer = TcpStream::connect(("127.0.0.1", port)).await;
        holds(answer.is_err(), || format!("{answer:?}")).expect("nobody listens");
    });
}

/// The things that it says to try, a paragraph each, without the indentation.
fn paragraphs<const N: usize>(said: &str) -> [String; N] {
    let lines = said
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join("\n");
    let paragraphs: Vec<_> = text.trim().split("\n\n").map(str::to_owned).collect();
    let found = paragraphs.try_into();
    found.unwrap_or_else(|found| panic!("not {N} paragraphs: {found:#?}"))
}

/// The text that a command prints in a terminal of somebody whose home is `home` and who has the clients.
async fn shell(home: &Path, text: &str) -> String {
    let mut command = Program::command("bash".as_ref());
    command
        .args(["-euo", "pipefail", "-c", text])
        .current_dir(home)
        .env_clear()
        .env("PATH", program::path_with(None))
        .env("HOME", home);
    let done = program::output_of(command, LIMIT).await;
    assert!(done.status.success(), "{text}: {done:?}");
    String::from_utf8(done.stdout).expect("text")
}

/// The processes that were started with a path in `folder`, as argument or in the environment.
fn users_of(folder: &str) -> Vec<u32> {
    let names_it = |process: &Path, file: &str| {
        let text = fs::read(process.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(folder)
    };
    let processes = fs::read_dir("/proc").expect("the processes");
    let users = processes.filter_map(|entry| {
        let process = entry.expect("an entry").path();
        let id = process.file_name()?.to_str()?.parse().ok()?;
        let uses = names_it(&process, "cmdline") || names_it(&process, "environ");
        uses.then_some(id)
    });
    users.collect()
}
