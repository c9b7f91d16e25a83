//! The real refresher: its daemon and its command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{
    RUNTIME, envoy::VERSION, eventually, eventually::holds, program::Program, setting, sim::Sim,
    wall_clock,
};

/// The longest that it may take to start: it opens its store and writes the clusters.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Tests have tokens that live for seconds, so that many come and go in a short time.
pub const SHORT_LIVES: &str = "[refresh]\nfloor_seconds = 1\n";

/// A state directory, and the daemon on it while it serves.
#[derive(Debug)]
pub struct Refresher {
    folder: PathBuf,
    serving: Option<Program>,
    /// The arguments that `serve` gets beside.
    arguments: Vec<String>,
    /// The environment of the daemon and of commands, beside ours.
    variables: Vec<(&'static str, PathBuf)>,
}

/// The OAuth client of the operator's that the simulated Google knows.
const CLIENT: [(&str, &str); 2] = [
    ("LATCHKEY_CODE_ASSIST_CLIENT_ID", "client-1.apps.sim.test"),
    ("LATCHKEY_CODE_ASSIST_CLIENT_SECRET", "secret-of-client-1"),
];

impl Refresher {
    /// Sets `folder/state` up for the simulated platform. Nothing runs yet.
    pub fn new(folder: &Path, sim: &Sim) -> Self {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let config = format!(
            "acknowledged_terms = ['codex']\nplatforms_dir = '{}'\n{SHORT_LIVES}[envoy]\nwasm = '{}'\nversion = '{}'\n",
            text(&sim.platforms_dir),
            text(&setting("LATCHKEY_WASM")),
            *VERSION,
        );
        fs::write(folder.join("state/config.toml"), config).expect("written");
        Self {
            folder: folder.to_owned(),
            serving: None,
            arguments: Vec::new(),
            variables: CLIENT.map(|(name, value)| (name, value.into())).into(),
        }
    }

    /// The folder of the state directory and the logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the state directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("state").join(name)
    }

    /// Sets a variable of the environment of what is started from here on.
    pub fn set_variable(&mut self, name: &'static str, value: &Path) {
        self.variables.push((name, value.to_owned()));
    }

    /// Takes a variable away from the environment of what is started from here on.
    pub fn unset_variable(&mut self, name: &str) {
        self.variables.retain(|(known, _)| *known != name);
    }

    /// Starts the daemon and waits until it serves.
    pub async fn serve(&mut self) {
        self.start().await;
        let program = self.serving.as_mut().expect("started");
        let socket = self.folder.join("state/run/refresher.sock");
        eventually("the refresher serves", START_LIMIT, async || {
            program.assert_alive();
            let connected = tokio::net::UnixStream::connect(&socket).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// [`Refresher::serve`] with more arguments.
    pub async fn serve_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().copied().map(str::to_owned).collect();
        self.serve().await;
    }

    /// Starts the daemon.
    pub async fn start(&mut self) {
        let mut command = self.command(&[]);
        command
            .arg("serve")
            .args(&self.arguments)
            .env("LATCHKEY_LOG", "debug");
        let log = self.folder.join("refresher.log");
        self.serving = Some(Program::start(command, &log).await);
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.serving.as_ref().expect("it serves").pid()
    }

    /// `kill -9` of the daemon.
    pub async fn kill(&mut self) {
        self.serving.take().expect("it serves").kill().await;
    }

    /// Waits until the daemon ends by itself.
    pub async fn ends(&mut self, limit: Duration) -> ExitStatus {
        let mut program = self.serving.take().expect("it serves");
        let ended = timeout(limit, program.ends()).await;
        ended.unwrap_or_else(|_| panic!("it goes on: {}", program.printed()))
    }

    /// Ends the daemon in order.
    pub async fn stop(&mut self) {
        let status = self.serving.take().expect("it serves").terminate().await;
        assert!(status.success(), "{status}");
    }

    /// The refresher on this state directory, run by `wrapper`.
    fn command(&self, wrapper: &[&str]) -> Command {
        let refresher = setting("LATCHKEY_REFRESHER");
        let mut command = match wrapper {
            [] => Program::command(&refresher),
            [program, arguments @ ..] => {
                let mut command = Program::command(program.as_ref());
                command.args(arguments).arg(refresher);
                command
            }
        };
        command
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            // The machine's own say nothing of the simulated platform.
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR")
            .envs(wall_clock::environment(&self.folder))
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command with that standard input, and keeps what it prints in `cli.log`.
    pub async fn try_run(&self, arguments: &[&str], input: &str) -> Output {
        self.try_run_in(&[], arguments, input).await
    }

    /// [`Refresher::try_run`] with a program before it that runs it.
    pub async fn try_run_in(&self, wrapper: &[&str], arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(wrapper);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let input = input.to_owned();
        let running = RUNTIME.spawn(async move {
            let mut child = command.spawn().expect("the refresher starts");
            let mut stdin = child.stdin.take().expect("piped");
            // A command that reads nothing may have ended already.
            stdin.write_all(input.as_bytes()).await.ok();
            drop(stdin);
            child.wait_with_output().await.expect("waited for")
        });
        let output = running.await.expect("spawned");
        // This prints a secret, once and for good reason.
        let prints_key = arguments.starts_with(&["keys", "create"]);
        self.log(if prints_key { &[] } else { &output.stdout });
        self.log(&output.stderr);
        output
    }

    /// Starts a command run by `wrapper`; what it prints goes to `log` in the folder.
    pub async fn start_command(&self, wrapper: &[&str], arguments: &[&str], log: &str) -> Program {
        let mut command = self.command(wrapper);
        command.args(arguments);
        Program::start(command, &self.folder.join(log)).await
    }

    /// Runs a command that must do what it is for, and returns its standard output. With 3 it says that Envoy does not
    /// know yet.
    pub async fn run(&self, arguments: &[&str], input: &str) -> String {
        let output = self.try_run(arguments, input).await;
        let is_done = matches!(output.status.code(), Some(0 | 3));
        assert!(is_done, "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn log(&self, printed: &[u8]) {
        use std::io::Write;
        let log = self.folder.join("cli.log");
        let mut log = fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        log.write_all(printed).expect("written");
    }

    /// Adds an account that has an API key.
    pub async fn add_api_key(&self, name: &str, platform: &str, key: &str) {
        self.run(&["accounts", "add", name, "--platform", platform], key)
            .await;
    }

    /// Changes the database behind its back.
    pub fn change_database(&self, sql: &str) {
        // As one change: the daemon must not see half of it.
        let sql = &format!("BEGIN IMMEDIATE; {sql}; COMMIT;");
        let python = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as database:\n    \
                      database.executescript(sys.argv[2])\n";
        let mut command = std::process::Command::new("python3");
        command.args(["-c", python]).arg(self.file("latchkey.db"));
        let status = command.arg(sql).status();
        assert!(status.expect("python3 runs").success(), "{sql}");
    }

    /// Logs a user of the simulated platform in, as a person with a browser elsewhere would.
    pub async fn log_in(&self, sim: &Sim, email: &str) {
        self.log_in_as(sim, email, email).await;
    }

    /// [`Refresher::log_in`] under another name than the user's.
    pub async fn log_in_as(&self, sim: &Sim, email: &str, name: &str) {
        let logged_in = self.try_log_in_as(sim, email, name).await;
        logged_in.unwrap_or_else(|said| panic!("{said}"));
    }

    /// [`Refresher::log_in_as`], or what is said where it fails.
    pub async fn try_log_in_as(&self, sim: &Sim, email: &str, name: &str) -> Result<(), String> {
        self.try_log_in_with(sim, email, name, &[]).await
    }

    /// [`Refresher::try_log_in_as`] with more arguments.
    pub async fn try_log_in_with(
        &self,
        sim: &Sim,
        email: &str,
        name: &str,
        more: &[&str],
    ) -> Result<(), String> {
        let arguments = [&["login", "codex", "--paste", "--name", name], more].concat();
        self.try_paste(&arguments, async |url| sim.authorize(&url, email).await)
            .await
    }

    /// Runs a login, takes the URL that it prints to `bring`, and pastes what that brings back; or what is said where the
    /// login fails.
    pub async fn try_paste(
        &self,
        arguments: &[&str],
        bring: impl AsyncFnOnce(String) -> String,
    ) -> Result<(), String> {
        let mut command = self.command(&[]);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let started = RUNTIME.spawn(async move { command.spawn() });
        let mut child = started
            .await
            .expect("spawned")
            .expect("the refresher starts");
        let mut printed = child.stdout.take().expect("piped");
        let mut shown = Vec::new();
        let url = loop {
            let read = printed.read_buf(&mut shown).await.expect("its output");
            let text = String::from_utf8_lossy(&shown);
            let url = text
                .split_whitespace()
                .find(|word| word.starts_with("https://"));
            match url {
                Some(url) if text.contains(&format!("{url}\n")) => break url.to_owned(),
                _ => assert_ne!(read, 0, "no URL: {text}"),
            }
        };
        let brought = bring(url).await;
        let mut stdin = child.stdin.take().expect("piped");
        stdin
            .write_all(format!("{brought}\n").as_bytes())
            .await
            .expect("pasted");
        drop(stdin);
        let output = child.wait_with_output().await.expect("waited for");
        self.log(&shown);
        self.log(&output.stderr);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Adds a user to the simulated platform, whose access tokens live that long, and logs them in.
    pub async fn log_in_new(&self, sim: &Sim, email: &str, access_lifetime: Duration) {
        sim.add_user(email, access_lifetime).await;
        self.log_in(sim, email).await;
    }

    /// Lets the default pool's accounts take turns, however alike the requests are: those without a session stay with one
    /// account else, as one conversation.
    pub async fn takes_turns(&self) {
        let set = ["pools", "set", "default", "--policy", "round_robin"];
        self.run(&set, "").await;
    }

    /// Lets an account have as many requests under way as a load of quick ones needs, in place of its platform's few.
    pub async fn serves_many(&self, account: &str) {
        let set = ["accounts", "set", account, "--streams", "1000"];
        self.run(&set, "").await;
    }

    /// Takes over a login that Codex CLI made.
    pub async fn import(&self, sim: &Sim, email: &str) {
        self.import_to(sim, email, "codex").await;
    }

    /// [`Refresher::import`] for a platform that is like `codex`.
    pub async fn import_to(&self, sim: &Sim, email: &str, platform: &str) {
        let tokens = sim.login(email).await;
        let file = self.folder.join(format!("{email}.auth.json"));
        let auth = json!({"auth_mode": "chatgpt", "tokens": {
            "id_token": tokens.id_token, "access_token": tokens.access_token, "refresh_token": tokens.refresh_token,
        }});
        fs::write(&file, auth.to_string()).expect("written");
        let path = file.to_str().expect("UTF-8");
        let import = ["import", path, "--name", email, "--platform", platform];
        self.run(&import, "").await;
        fs::remove_file(file).expect("removed");
    }

    /// Makes a client key.
    pub async fn create_key(&self, name: &str) -> String {
        self.run(&["keys", "create", name], "")
            .await
            .trim()
            .to_owned()
    }

    /// The accounts as `accounts list --json` shows them.
    pub async fn accounts(&self) -> Vec<Value> {
        let list = self.run(&["accounts", "list", "--json"], "").await;
        serde_json::from_str(&list).expect("a list")
    }

    /// One account as `accounts list --json` shows it.
    pub async fn account(&self, name: &str) -> Value {
        let mut accounts = self.accounts().await;
        accounts.retain(|account| account["name"] == name);
        accounts
            .pop()
            .unwrap_or_else(|| panic!("no account {name}"))
    }

    /// The number of lines of the daemon's log that contain both texts.
    pub fn log_lines(&self, one: &str, other: &str) -> usize {
        let log = fs::read_to_string(self.folder.join("refresher.log")).expect("the log");
        let lines = log
            .lines()
            .filter(|line| line.contains(one) && line.contains(other));
        lines.count()
    }

    /// Waits until an account has that status.
    pub async fn becomes(&self, name: &str, status: &str, limit: Duration) {
        eventually("the account's status", limit, async || {
            let account = self.account(name).await;
            holds(account["status"] == status, || account.to_string())
        })
        .await;
    }
}
