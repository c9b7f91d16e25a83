//! Disks that fail: every error is told, what was said to be saved is there, and no store is left that does not open.
//!
//! Faults of system calls are put in by strace, and a full file system is a small tmpfs in a mount namespace of its own.
//! Where a machine has or allows neither, that test says so and passes; the limit on the size of files, which makes short
//! writes and then errors of them, is there on every machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A state directory to spoil copies of, with one account.
struct Template {
    outer: tempfile::TempDir,
}

impl Template {
    fn new() -> Template {
        let outer = tempfile::tempdir().unwrap();
        let template = Template { outer };
        let output = template.run(&[], &template.state("template"), &add("first"));
        assert!(output.status.success(), "{output:?}");
        template
    }

    fn state(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    /// A copy, or an empty directory: the first start is a fault's chance too.
    fn copy(&self, name: &str, is_first_start: bool) -> PathBuf {
        let state = self.state(name);
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        if !is_first_start {
            for file in ["latchkey.db", "key", "high-water.json"] {
                fs::copy(self.state("template").join(file), state.join(file)).unwrap();
            }
        }
        state
    }

    /// Runs `refresher` by `wrapper`.
    fn run(&self, wrapper: &[&str], state: &Path, arguments: &[&str]) -> Output {
        let refresher = env!("CARGO_BIN_EXE_refresher");
        let words: Vec<&str> = wrapper.iter().copied().chain([refresher]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("--state-dir")
            .arg(state)
            .args(arguments);
        command
            .env(
                "LATCHKEY_API_KEY",
                "sk-any----0123456789abcdefghijklmnopqrstuv",
            )
            .env_remove("LATCHKEY_KEY");
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Spoils each of some commands, then looks whether what they said is so; how many failed.
    fn assert_told_and_whole(&self, case: &str, wrapper: &[&str]) -> usize {
        let commands = [
            (false, add("second")),
            (false, ["rotate-key"].to_vec()),
            (true, add("second")),
        ];
        let mut failed = 0;
        for (number, (is_first_start, arguments)) in commands.into_iter().enumerate() {
            let state = self.copy(&format!("{case} {number}"), is_first_start);
            let spoilt = self.run(wrapper, &state, &arguments);
            let case = format!("{case}, {arguments:?}: {spoilt:?}");
            assert!(matches!(spoilt.status.code(), Some(0 | 1)), "{case}");
            if !spoilt.status.success() {
                failed += 1;
                let said = String::from_utf8_lossy(&spoilt.stderr).into_owned();
                assert!(said.contains("error: "), "{case}");
            }
            if is_first_start {
                // Whatever is there of it, another start is none the worse for it.
                let begun = self.run(&[], &state, &["pools", "create", "probe"]);
                assert!(begun.status.success(), "{case}: {begun:?}");
            }
            let listed = self.run(&[], &state, &["accounts", "list", "--json"]);
            let names = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert!(listed.status.success(), "{case}: {listed:?}");
            assert!(
                is_first_start || names.contains("\"first\""),
                "{case}: {names}"
            );
            if spoilt.status.success() && arguments.contains(&"second") {
                assert!(names.contains("\"second\""), "{case}: {names}");
            }
            // What is sealed opens too: a rotation looks at every record.
            let rotated = self.run(&[], &state, &["rotate-key"]);
            assert!(rotated.status.success(), "{case}: {rotated:?}");
            fs::remove_dir_all(state).unwrap();
        }
        failed
    }
}

fn add(name: &str) -> Vec<&str> {
    vec!["accounts", "add", name, "--platform", "openai"]
}

/// True if a command can be had here; else says why this test passes without having tried anything.
fn is_there(command: &[&str]) -> bool {
    let tried = Command::new(command[0]).args(&command[1..]).output();
    match tried {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!(
                "skipped: {command:?} is forbidden here: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            false
        }
        Err(error) => {
            println!("skipped: {command:?} is not there: {error}");
            false
        }
    }
}

#[test]
fn failing_system_calls_are_told_and_lose_nothing() {
    system_calls_fail(&[1, 3, 8]);
}

/// Lets each kind of system call fail from the first, the second… one on.
fn system_calls_fail(from: &[usize]) {
    if !is_there(&["strace", "-f", "-e", "trace=none", "true"]) {
        return;
    }
    let template = Template::new();
    let mut failed = 0;
    for (calls, error) in [
        ("fsync,fdatasync", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("ftruncate", "ENOSPC"),
        ("rename,renameat,renameat2", "EIO"),
    ] {
        for first in from {
            let trace = format!("trace={calls}");
            let inject = format!("inject={calls}:error={error}:when={first}+");
            let wrapper = [
                "strace",
                "-f",
                "--seccomp-bpf",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &trace,
                "-e",
                &inject,
            ];
            failed += template.assert_told_and_whole(&format!("{error} {calls} {first}"), &wrapper);
        }
    }
    println!("{failed} commands failed");
    let least = 3 * from.len();
    assert!(failed >= least, "only {failed} commands met their fault");
}

#[test]
fn short_writes_are_told_and_lose_nothing() {
    writes_are_short(&[0, 9, 33, 81, 200]);
}

/// Lets files be no longer than so many blocks, of 512 bytes or of 1,024, as the shell has it: the ends are in the middle
/// of pages and of frames of the log.
fn writes_are_short(limits: &[usize]) {
    let template = Template::new();
    let mut failed = 0;
    for blocks in limits {
        // The signal that comes with the error is ignored.
        let limited = format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$@\"");
        let case = format!("{blocks} blocks");
        failed += template.assert_told_and_whole(&case, &["sh", "-c", &limited, "sh"]);
    }
    println!("{failed} commands failed");
    let least = limits.len();
    assert!(failed >= least, "only {failed} commands met the limit");
}

#[test]
fn a_full_file_system_is_told_and_loses_nothing() {
    let mount = "mount -t tmpfs -o size=64k tmpfs /mnt";
    if !is_there(&["unshare", "--mount", "sh", "-c", mount]) {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    // Adds accounts until one fails, lists them, makes room and goes on; a rotation has room for all of them then.
    let script = r#"
        mount -t tmpfs -o size=4000k,mode=0700 tmpfs "$1"
        refresher() { LATCHKEY_API_KEY=sk-$(printf '%12000s' | tr ' ' k) "$2" --state-dir "$1" "${@:3}"; }
        dd if=/dev/zero of="$1/filler" bs=1k count=2200 status=none
        added=0
        while refresher "$1" "$2" accounts add "account $added" --platform openai; do
            added=$((added + 1))
            [ $added -lt 500 ]
        done 2> "$1/../said"
        found=$(refresher "$1" "$2" accounts list --json | grep -c '"name"')
        echo "counted $added found $found"
        rm "$1/filler"
        refresher "$1" "$2" accounts add after --platform openai
        refresher "$1" "$2" rotate-key
        echo "finally $(refresher "$1" "$2" accounts list --json | grep -c '"name"')"
    "#;
    let state = outer.path().join("state");
    fs::create_dir(&state).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "bash", "-euo", "pipefail", "-c", script, "bash"])
        .arg(&state)
        .arg(env!("CARGO_BIN_EXE_refresher"))
        .env_remove("LATCHKEY_KEY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = fs::read_to_string(outer.path().join("said")).unwrap_or_default();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{output:?}");
    assert!(said.contains("error: "), "{said}");
    let number = |word: &str| -> usize {
        let mut words = printed
            .split_whitespace()
            .skip_while(|found| *found != word);
        words
            .nth(1)
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{printed}"))
    };
    let (added, found) = (number("counted"), number("found"));
    assert!(
        added >= 5 && (added..=added + 1).contains(&found),
        "{printed}"
    );
    assert_eq!(number("finally"), found + 1, "{printed}");
}

/// The same for longer (`make long`).
mod long {
    #[test]
    #[ignore = "half a minute"]
    fn more_failing_system_calls_are_told_and_lose_nothing() {
        super::system_calls_fail(&[1, 2, 3, 5, 8, 13, 21]);
    }

    #[test]
    #[ignore = "ten seconds"]
    fn more_short_writes_are_told_and_lose_nothing() {
        super::writes_are_short(&[0, 1, 7, 9, 25, 33, 49, 81, 129, 200]);
    }
}
