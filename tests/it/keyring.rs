//! The sealing key in the keyring of the user's session: a real Secret Service, on a message bus of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Script, Output},
    time::Duration,
};

use crate::harness::{
    eventually, program::Program, refresher::Refresher, run, sim::Sim, source_root, stack,
};

const LIMIT: Duration = Duration::from_secs(20);
const KEY: &str = "sk-keyring-0123456789";
const BUS: &str = "DBUS_SESSION_BUS_ADDRESS";

/// A session of a desktop's: a message bus, and a keyring on it.
struct Session {
    programs: PathBuf,
    folder: PathBuf,
    address: String,
    _bus: Program,
}

impl Session {
    /// Starts one; none where this machine has no Secret Service and can fetch none.
    async fn start(folder: &Path) -> Option<Session> {
        let made = Script::new(source_root().join("scripts/secret-service.sh")).output();
        let made = made.expect("the script runs");
        if made.status.code() == Some(3) {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            println!("NOT RUN: {}", why.trim());
            return None;
        }
        assert!(made.status.success(), "{made:?}");
        let programs = String::from_utf8(made.stdout).expect("a path");
        let programs = PathBuf::from(programs.trim()).join("bin");
        let file = folder.join("bus");
        let mut command = Program::command(&programs.join("dbus-run-session"));
        let tell = format!(
            "printf %s \"${BUS}\" > '{0}.new' && mv '{0}.new' '{0}' && exec sleep 300",
            file.display()
        );
        command.args(["--", "sh", "-c", &tell]);
        let bus = Program::start(command, &folder.join("bus.log")).await;
        let address = eventually("there is a bus", LIMIT, async || {
            fs::read_to_string(&file).map_err(|error| error.to_string())
        });
        Some(Session {
            address: address.await,
            programs,
            folder: folder.to_owned(),
            _bus: bus,
        })
    }

    /// Starts the keyring. `unlocked`: with its password, as a login at the desktop does.
    async fn keyring(&self, unlocked: bool) -> Program {
        let home = self.folder.join("home");
        fs::create_dir_all(&home).expect("made");
        let daemon = self.programs.join("gnome-keyring-daemon");
        // By a file, not a pipe: the daemon is to be the very process that ends with the test.
        let password = self.folder.join("password");
        fs::write(&password, "password").expect("written");
        let (daemon, password) = (daemon.display(), password.display());
        let start = match unlocked {
            true => {
                format!("exec '{daemon}' --foreground --components=secrets --unlock < '{password}'")
            }
            false => format!("exec '{daemon}' --foreground --components=secrets"),
        };
        let mut command = Program::command(Path::new("sh"));
        command
            .args(["-c", &start])
            .env(BUS, &self.address)
            .env("HOME", &home);
        command
            .env("XDG_RUNTIME_DIR", &home)
            .env_remove("XDG_DATA_HOME");
        Program::start(command, &self.folder.join("keyring.log")).await
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first start makes the key there, a rotation while `serve` runs replaces it there, and no file ever has it. While the
/// keyring is locked or gone nothing is made anew, and the error has the cure.
#[test]
fn the_sealing_key_lives_in_the_sessions_keyring() {
    run(async {
        let folder = stack::new_folder("keyring");
        let Some(session) = Session::start(&folder).await else {
            return;
        };
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        let config = fs::read_to_string(refresher.file("config.toml")).expect("there");
        let config = format!("{config}[key]\nsource = 'secret-service'\n");
        fs::write(refresher.file("config.toml"), config).expect("written");
        refresher.set_variable(BUS, Path::new(&session.address));
        let mut keyring = session.keyring(true).await;
        eventually("the keyring is there", LIMIT, async || {
            let made = refresher.try_run(&["keys", "create", "first"], "").await;
            made.status.success().then_some(()).ok_or(said(&made))
        })
        .await;
        sim.add_api_key("openai", KEY, "team").await;
        refresher.add_api_key("team", "openai", KEY).await;
        assert!(!refresher.file("key").exists(), "it is in no file");

        refresher.serve().await;
        let rotated = refresher.run(&["rotate-key"], "").await;
        assert!(rotated.contains("key"), "{rotated}");
        refresher
            .add_api_key("again", "openai", "sk-keyring-9876543210")
            .await;
        let checked = refresher.try_run(&["accounts", "check", "team"], "").await;
        assert!(
            checked.status.success(),
            "the old record opens: {checked:?}"
        );
        refresher.stop().await;
        assert!(!refresher.file("key").exists(), "nor is the new one");

        keyring.kill().await;
        drop(keyring);
        let mut keyring = session.keyring(false).await;
        let locked = eventually("the keyring is there again", LIMIT, async || {
            let tried = refresher.try_run(&["status"], "").await;
            let is_there = said(&tried).contains("it is locked");
            is_there.then(|| tried.clone()).ok_or(said(&tried))
        })
        .await;
        assert_eq!(locked.status.code(), Some(1));
        assert!(said(&locked).contains("unlock it"), "{locked:?}");

        // As after a login at the desktop: it opens with its password, and has what it had.
        keyring.kill().await;
        drop(keyring);
        let keyring = session.keyring(true).await;
        eventually("the keys are back", LIMIT, async || {
            let tried = refresher.try_run(&["status"], "").await;
            let is_back = String::from_utf8_lossy(&tried.stdout).contains("team");
            is_back.then_some(()).ok_or(said(&tried))
        })
        .await;
        drop(keyring);

        refresher.set_variable(BUS, Path::new("unix:path=/nonexistent/bus"));
        let alone = refresher.try_run(&["status"], "").await;
        assert_eq!(alone.status.code(), Some(1), "{alone:?}");
        assert!(said(&alone).contains(BUS), "{alone:?}");
    });
}
