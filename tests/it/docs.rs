//! The README's commands and configurations, run as they stand there.
//!
//! A fenced block after `<!-- run -->` or `<!-- run: HOW -->` is run in the order of the page, in one shell after the
//! other, with the state and the home directory of this test. Port 8080 becomes a free one.
//!
//! In every page, a block after `<!-- check: HOW -->` is read by what it is meant for; a block that nobody runs or
//! checks is an error, unless it is a picture (`text`).

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use latchkey::snapshot::{Record, page::PageHeader};
use refresher::config::Config;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::harness::{
    Caller, eventually, holds,
    program::{self, Program},
    refresher::Refresher,
    run, setting,
    sim::Sim,
    source_root, stack,
};

/// The longest that one block may take, logins and the Codex CLI included.
const LIMIT: Duration = Duration::from_secs(60);

/// A `make` of the shell that only looks whether the targets are there.
const DRY_MAKE: &str = "make() { command make --dry-run \"$@\" > /dev/null; }";

/// So many that one of four accounts would have some of them.
const CODEX_SESSIONS: usize = 32;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";

/// A block of the page.
#[derive(Debug)]
struct Block {
    /// `sh`, `toml`, `python`.
    language: String,
    /// The text that follows `run:`, empty for nothing.
    how: String,
    text: String,
}

/// The blocks that are to be run.
fn blocks(page: &str) -> Vec<Block> {
    let mut lines = page.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let Some(mark) = line
            .strip_prefix("<!-- run")
            .and_then(|rest| rest.strip_suffix("-->"))
        else {
            continue;
        };
        let fence = lines.next().unwrap_or_default();
        let language = fence
            .strip_prefix("```")
            .unwrap_or_else(|| panic!("no block after {line}"));
        let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(Block {
            language: language.to_owned(),
            how: mark.trim_start_matches(':').trim().to_owned(),
            text: text.join("\n"),
        });
    }
    blocks
}

#[test]
fn the_readme_does_what_it_says() {
    run(async {
        let page = fs::read_to_string(source_root().join("README.md")).expect("the page");
        let blocks = blocks(&page);
        assert!(blocks.len() >= 10, "{blocks:?}");
        let _permit = stack::permit().await;
        let mut reader = Reader::new().await;
        for block in &blocks {
            reader.run(block).await;
        }
        assert_eq!(reader.sim.count("refused_count").await, 0);
    });
}

/// From the clone to the first answer with one API key it takes six commands.
#[test]
fn the_first_answer_takes_six_commands() {
    let page = fs::read_to_string(source_root().join("README.md")).expect("the page");
    let (_, section) = page
        .split_once("\n## The first answer")
        .expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let blocks = blocks(&format!("\n{section}"));
    let lines = blocks.iter().flat_map(|block| block.text.lines());
    let commands: Vec<_> = lines
        .filter(|line| !line.starts_with(' ') && !line.starts_with('#'))
        .flat_map(|line| line.split(" && "))
        .collect();
    assert!(commands.len() <= 6, "{commands:#?}");
    let calls = |one: &str| one.starts_with("curl ");
    assert!(
        commands.last().is_some_and(|last| calls(last)),
        "{commands:#?}"
    );
}

/// The pages of the repository, from its root.
pub fn pages() -> Vec<String> {
    fn add(folder: &Path, pages: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let is_ours = !name.starts_with('.') && name != "target" && name != "node_modules";
            if path.is_dir() && is_ours {
                add(&path, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let page = path.strip_prefix(source_root()).expect("below the root");
                pages.push(page.display().to_string());
            }
        }
    }
    let mut pages = Vec::new();
    add(source_root(), &mut pages);
    pages.sort();
    pages
}

/// Every block of a page: the line before it, its language, and its text.
pub fn fences(page: &str) -> Vec<(String, String, String)> {
    let mut fences = Vec::new();
    let mut before = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            fences.push((before.to_owned(), language.to_owned(), text.join("\n")));
        }
        before = line;
    }
    fences
}

#[test]
fn every_block_of_the_pages_is_run_or_checked() {
    run(async {
        let folder = stack::new_folder("docs-blocks");
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        refresher.serve().await;
        let mut checked = 0;
        for page in pages() {
            let text = fs::read_to_string(source_root().join(&page)).expect("the page");
            for (before, language, block) in fences(&text) {
                let at = format!("{page}: {language} after {before:?}: {block}");
                let how = before.strip_prefix("<!-- check: ");
                match (
                    how.and_then(|how| how.strip_suffix(" -->")),
                    language.as_str(),
                ) {
                    (None, "text") => {}
                    (None, _) if before.starts_with("<!-- run") && page == "README.md" => {}
                    (Some("records"), "json") => {
                        block.lines().for_each(|line| check_record(line, &at))
                    }
                    (Some("page"), "json") => {
                        serde_json::from_str::<PageHeader>(&block).expect(&at);
                    }
                    (Some("reports"), "json") => check_reports(&refresher, &block, &at).await,
                    (Some("counts"), "json") => {
                        serde_json::from_str::<latchkey::limit::settle::Counts>(&block).expect(&at);
                    }
                    (Some("profile"), "toml") => {
                        check_profile(&folder, "page.toml", &block, &at).await;
                    }
                    // What a file says of a platform that is built in.
                    (Some(how), "toml") if how.starts_with("profile ") => {
                        let file = how.trim_start_matches("profile ");
                        check_profile(&folder, file, &block, &at).await;
                    }
                    (Some("config"), "toml") => check_config(&folder, &block, &at),
                    (Some("make"), "sh") => check_make(&block, &at).await,
                    _ => panic!("nobody runs or checks this: {at}"),
                }
                checked += usize::from(how.is_some());
            }
        }
        assert!(checked >= 7, "{checked} blocks");
    });
}

/// The filter takes the record, and every field of it means something.
fn check_record(line: &str, at: &str) {
    let record = Record::from_line(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {at}"));
    let meant = record
        .to_line()
        .unwrap_or_else(|error| panic!("{error}: {at}"));
    let meant: Value = serde_json::from_str(&meant).expect(at);
    let written: Value = serde_json::from_str(line).expect(at);
    assert!(
        has_all(&meant, &written),
        "{meant} does not say all of {at}"
    );
}

/// True if `whole` has every field of `part`, with the same value.
fn has_all(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| has_all(whole, part))),
        _ => whole == part,
    }
}

/// The refresher takes it.
async fn check_reports(refresher: &Refresher, block: &str, at: &str) {
    let client = reqwest::Client::builder().unix_socket(refresher.file("run/refresher.sock"));
    let client = client.build().expect("a client");
    let request = client
        .post("http://refresher/reports")
        .header("content-type", "application/json");
    let answer = request.body(block.to_owned()).send().await;
    assert_eq!(answer.expect("an answer").status(), 204, "{at}");
}

/// It is a configuration.
fn check_config(folder: &Path, block: &str, at: &str) {
    let path = folder.join("page-config.toml");
    fs::write(&path, block).expect("written");
    Config::load(&path).unwrap_or_else(|error| panic!("{error}: {at}"));
}

/// The refresher loads it, as the whole of a platform.
async fn check_profile(folder: &Path, file: &str, block: &str, at: &str) {
    let (state, platforms) = (folder.join("profile-state"), folder.join("profiles"));
    // Each page's profile begins with nothing.
    fs::remove_dir_all(&state).ok();
    fs::remove_dir_all(&platforms).ok();
    private_folder(&state);
    fs::create_dir_all(&platforms).expect("a folder");
    // Another id than any that is built in, so that nothing is merged under it.
    let lines = block.lines().map(|line| match line.starts_with("id = ") {
        true => "id = \"page\"",
        false => line,
    });
    let block = lines.collect::<Vec<_>>().join("\n");
    fs::write(platforms.join(file), block).expect("written");
    let config = format!("platforms_dir = {platforms:?}\nacknowledged_terms = ['page']\n");
    fs::write(state.join("config.toml"), config).expect("written");
    let mut command = Program::command(&setting("LATCHKEY_REFRESHER"));
    command.arg("--state-dir").arg(&state);
    command.args(["platforms", "check"]);
    command.arg(platforms.join(file));
    let done = program::output_of(command, LIMIT).await;
    assert!(done.status.success(), "{done:?}: {at}");
}

/// The make targets are there.
async fn check_make(block: &str, at: &str) {
    let mut shell = Program::command("bash".as_ref());
    let script = format!("{DRY_MAKE}\n{block}");
    shell
        .current_dir(source_root())
        .args(["-euo", "pipefail", "-c", &script]);
    let done = program::output_of(shell, LIMIT).await;
    assert!(done.status.success(), "{done:?}: {at}");
}

/// The machine of somebody who follows the page.
struct Reader {
    sim: Sim,
    folder: PathBuf,
    port: u16,
    /// The variables that `export` set, and the client key once it was shown.
    environment: Vec<(String, String)>,
    daemons: Vec<Program>,
}

impl Reader {
    async fn new() -> Self {
        let folder = stack::new_folder("docs");
        let sim = Sim::start(&folder).await;
        for email in [ALICE, BOB, CAROL] {
            sim.add_user(email, Duration::from_secs(3600)).await;
        }
        sim.add_api_key("openai", "sk-readme", "team").await;
        sim.add_api_key("anthropic", "sk-ant-readme", "claude")
            .await;
        // Other tests' refreshers may wait for logins at the platform's own ports.
        sim.redirect_to(0).await;
        let reader = Self {
            port: stack::closed_port(),
            environment: Vec::new(),
            daemons: Vec::new(),
            sim,
            folder,
        };
        reader.prepare().await;
        reader
    }

    /// The things that the page takes for granted: programs on the PATH, a browser, a Codex login, and platforms to log in to.
    async fn prepare(&self) {
        let bin = self.folder.join("bin");
        fs::create_dir_all(&bin).expect("a folder");
        for (name, program) in [
            ("refresher", setting("LATCHKEY_REFRESHER")),
            ("envoy", setting("LATCHKEY_ENVOY")),
        ] {
            symlink(program, bin.join(name)).expect("a link");
        }
        let browser = format!(
            "#!/bin/sh\nexec curl --silent --location --output /dev/null --cacert '{}' \"$1&sim_user={ALICE}\"\n",
            self.folder.join("sim/ca.pem").display()
        );
        executable(&bin.join("xdg-open"), &browser);

        let tokens = self.sim.login(CAROL).await;
        let login = json!({
            "OPENAI_API_KEY": null,
            "tokens": {
                "id_token": tokens.id_token, "access_token": tokens.access_token,
                "refresh_token": tokens.refresh_token, "account_id": "ws-carol",
            },
            "last_refresh": "2026-11-21T00:00:00Z",
        });
        let home = self.home();
        fs::create_dir_all(home.join(".codex")).expect("a folder");
        fs::write(home.join(".codex/auth.json"), login.to_string()).expect("written");

        let state = self.state();
        private_folder(&state);
        let config = format!("platforms_dir = {:?}\n", self.sim.platforms_dir);
        fs::write(state.join("config.toml"), config).expect("written");
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Where the refresher keeps its state, by this machine's `XDG_STATE_HOME`.
    fn state(&self) -> PathBuf {
        self.folder.join("xdg/latchkey")
    }

    /// A variable that the page set.
    fn exported(&self, name: &str) -> &str {
        let found = self.environment.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{name} is not set")).1
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = program::path_with(Some(&self.folder.join("bin")));
        command
            .current_dir(source_root())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home())
            .env("XDG_STATE_HOME", self.folder.join("xdg"))
            .env("DISPLAY", ":0")
            .env("OPENAI_API_KEY", "sk-readme")
            .env("ANTHROPIC_API_KEY", "sk-ant-readme")
            .envs(self.environment.iter().cloned())
            .kill_on_drop(true);
        command
    }

    /// The block's text for this machine.
    fn localised(&self, text: &str) -> String {
        let wasm = setting("LATCHKEY_WASM").display().to_string();
        text.replace("8080", &self.port.to_string())
            .replace("$PWD/target/latchkey.wasm", &wasm)
            .replace(
                "$PWD/target/debug",
                &self.folder.join("bin").display().to_string(),
            )
            .replace(
                "gateway.yaml",
                &self.folder.join("gateway.yaml").display().to_string(),
            )
            .replace("\"$(scripts/envoy.sh)\"", "exec envoy")
            .replace("target/debug/refresher", "refresher")
    }

    async fn run(&mut self, block: &Block) {
        let text = self.localised(&block.text);
        match (block.language.as_str(), block.how.as_str()) {
            ("sh", "gateway") => self.start_gateway(&block.text).await,
            ("sh", "daemon") => self.start(&text).await,
            ("sh", "make") => self.make(&text).await,
            ("sh", "paste") => self.paste(&text).await,
            ("sh", "compose") => self.compose(&text).await,
            ("sh", "again") => {
                for mut daemon in self.daemons.drain(..) {
                    daemon.interrupt().await;
                }
                self.start(&text).await;
            }
            ("sh", "key") => {
                let key = self
                    .shell(&format!("{text}\nprintf %s \"$GATEWAY_KEY\""))
                    .await;
                assert!(key.starts_with("lk_"), "no key in {key}");
                let caller = Caller::new(self.port, &key);
                eventually("the key works", stack::SYNC_LIMIT, async || {
                    let answer = caller.get("/v1/models").await;
                    holds(answer.status == 200, || format!("{answer:?}"))
                })
                .await;
                self.environment.push(("GATEWAY_KEY".to_owned(), key));
            }
            ("sh", _) => drop(self.shell(&text).await),
            ("python", _) => {
                let printed = self
                    .finish(self.command("python").args(["-c", &text]))
                    .await;
                assert_eq!(printed.matches("you said hello").count(), 2, "{printed}");
            }
            ("toml", "codex") => self.codex(&text).await,
            ("toml", "config") => {
                let state = self.folder.join("configured");
                private_folder(&state);
                let text = text.replace(
                    "/etc/latchkey/platforms",
                    &self.sim.platforms_dir.display().to_string(),
                );
                fs::write(state.join("config.toml"), text).expect("written");
                let state = state.display().to_string();
                self.finish(self.command("refresher").args([
                    "--state-dir",
                    &state,
                    "pools",
                    "create",
                    "page",
                ]))
                .await;
            }
            other => panic!("nobody knows how to run {other:?}"),
        }
    }

    /// Runs a block that makes what is made already, and keeps what it exports.
    async fn make(&mut self, text: &str) {
        let exported = self
            .shell(&format!("{DRY_MAKE}\n{text}\nexec env --null"))
            .await;
        let exported = exported.split_terminator('\0');
        let exported = exported.filter_map(|variable| variable.split_once('='));
        let exported = exported.filter(|(name, _)| text.contains(&format!("export {name}=")));
        self.environment
            .extend(exported.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    async fn shell(&self, text: &str) -> String {
        self.finish(self.command("bash").args(["-euo", "pipefail", "-c", text]))
            .await
    }

    /// Runs a command to its end; it must succeed.
    async fn finish(&self, command: &mut Command) -> String {
        let done = tokio::time::timeout(LIMIT, command.stdin(Stdio::null()).output());
        let done = done
            .await
            .unwrap_or_else(|_| panic!("{command:?} takes longer than {LIMIT:?}"));
        let done = done.expect("it runs");
        assert!(done.status.success(), "{command:?}: {done:?}");
        String::from_utf8(done.stdout).expect("text")
    }

    /// Starts what `make gateway` starts. This tree stands for the clone, with all that it builds.
    async fn start_gateway(&mut self, text: &str) {
        let steps: Vec<_> = text.lines().collect();
        assert_eq!(
            steps,
            ["git clone URL latchkey", "cd latchkey", "make gateway"]
        );
        let targets = format!("{DRY_MAKE}\nmake gateway");
        self.shell(&targets).await;
        let mut command = self.command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "env", "--default-signal=INT"])
            .arg(source_root().join("scripts/gateway.sh"))
            .env("PORT", self.port.to_string());
        for name in ["LATCHKEY_REFRESHER", "LATCHKEY_ENVOY", "LATCHKEY_WASM"] {
            command.env(name, setting(name));
        }
        let log = self.folder.join("gateway.log");
        let mut gateway = Program::start(command, &log).await;
        let said = format!("gateway: http://127.0.0.1:{} serves", self.port);
        eventually("the gateway says that it serves", LIMIT, async || {
            gateway.assert_alive();
            let printed = gateway.printed();
            holds(printed.contains(&said), || printed)
        })
        .await;
        self.daemons.push(gateway);
    }

    /// Starts a block whose last command does not end: under a supervisor, which has none of what this shell exports.
    async fn start(&mut self, text: &str) {
        let (before, daemon) = text.rsplit_once('\n').unwrap_or(("", text));
        self.shell(before).await;
        let mut command = self.command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "bash", "-c"])
            .arg(format!(
                "exec env --ignore-environment PATH=\"$PATH\" HOME=\"$HOME\" {}",
                daemon.trim_start_matches("exec ")
            ));
        let log = self
            .folder
            .join(format!("daemon-{}.log", self.daemons.len()));
        self.daemons.push(Program::start(command, &log).await);
        let state = self.state();
        eventually("the refresher serves", LIMIT, async || {
            let ready = state.join("envoy/clusters.json").exists()
                && state.join("run/refresher.sock").exists();
            ready.then_some(()).ok_or_else(|| self.daemons[0].printed())
        })
        .await;
        if daemon.contains("envoy") {
            eventually("the gateway serves", LIMIT, async || {
                let caller = Caller::new(self.port, self.exported("GATEWAY_KEY"));
                let key = [("x-api-key", caller.key())];
                let answer = caller.try_send("GET", "/v1/models", &key, "").await;
                let serves = answer.is_ok_and(|answer| answer.status == 200);
                serves
                    .then_some(())
                    .ok_or_else(|| self.daemons[1].printed())
            })
            .await;
        }
    }

    /// Logs in with a browser elsewhere: takes the printed URL there, and pastes where it ends.
    async fn paste(&self, text: &str) {
        let mut command = self.command("bash");
        command.args(["-euo", "pipefail", "-c", text]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let mut stdin = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        while let Some(line) = lines.next_line().await.expect("text") {
            if let Some(url) = line
                .split_whitespace()
                .find(|word| word.starts_with("https://") && word.contains("/oauth/"))
            {
                let address = self.sim.authorize(url, BOB).await;
                stdin
                    .write_all(format!("{address}\n").as_bytes())
                    .await
                    .expect("read");
            }
        }
        let status = child.wait().await.expect("it ends");
        assert!(status.success(), "{status}");
    }

    /// Runs a block about containers with a `docker` that runs inside what is run in the refresher's.
    async fn compose(&self, text: &str) {
        let state = self.folder.join("composed");
        private_folder(&state);
        let config = self.state().join("config.toml");
        let config = fs::read_to_string(config).expect("the configuration");
        let platforms = config
            .lines()
            .find(|line| line.starts_with("platforms_dir"));
        fs::write(state.join("config.toml"), platforms.expect("set")).expect("written");
        let docker = r#"
            docker() {
                [ "$1" = compose ] && [ "$2" = --file ] || return 2
                [ -f "$3" ] && grep -q '^ *- LATCHKEY_ACKNOWLEDGED_TERMS\b' "$3" || return 3
                case ${*:4} in
                    "up --build --detach") ;;
                    "exec -T refresher refresher "*) "${@:7}" ;;
                    "exec refresher refresher "*) "${@:6}" ;;
                    *) return 4 ;;
                esac
            }
        "#;
        let state = state.display();
        self.paste(&format!(
            "export LATCHKEY_STATE_DIR='{state}'\n{docker}\n{text}"
        ))
        .await;
    }

    async fn codex(&self, config: &str) {
        let home = self.folder.join("codex");
        fs::create_dir_all(&home).expect("a folder");
        let quiet = format!(
            "check_for_update_on_startup = false\n{config}\n[analytics]\nenabled = false\n"
        );
        fs::write(home.join("config.toml"), quiet).expect("written");
        let mut command = self.command("codex");
        command
            .env("CODEX_HOME", &home)
            .args(["exec", "--skip-git-repo-check", "say hi"]);
        let printed = self.finish(&mut command).await;
        assert!(printed.contains("Hello from"), "{printed}");
        self.codex_sessions_go_to_logins().await;
    }

    /// No session of such a Codex goes to an account whose platform has no such model.
    async fn codex_sessions_go_to_logins(&self) {
        let model = self.asked_for("/responses").await.pop();
        let (_, model) = model.expect("Codex asked");
        let body = json!({"model": model, "instructions": "", "input": [], "stream": true, "store": false});
        let caller = Caller::new(self.port, self.exported("GATEWAY_KEY"));
        for session in 0..CODEX_SESSIONS {
            let session = format!("session-{session}");
            let headers = [
                ("x-api-key", caller.key()),
                ("content-type", "application/json"),
                ("session-id", &session),
            ];
            let answer = caller.send("POST", "/v1/responses", &headers, body.to_string());
            assert_eq!(answer.await.status, 200, "{session}");
        }
        let mut asked = self.asked_for("/responses").await;
        asked.retain(|(_, asked)| *asked == model);
        assert!(asked.len() > CODEX_SESSIONS, "{asked:?}");
        let elsewhere = asked.iter().find(|(account, _)| account == "team");
        assert_eq!(elsewhere, None);
    }

    /// The account that was asked for each model at paths that end so.
    async fn asked_for(&self, path: &str) -> Vec<(String, String)> {
        let mut seen = self.sim.seen().await;
        seen.retain(|seen| seen.path().ends_with(path));
        let asked = seen.iter().map(|seen| {
            let body: Value = serde_json::from_slice(&seen.body()).expect("JSON");
            let model = body["model"].as_str().expect("a model");
            let account = seen.account().expect("an account");
            (account.to_owned(), model.to_owned())
        });
        asked.collect()
    }
}

fn private_folder(path: &Path) {
    fs::create_dir_all(path).expect("a folder");
    fs::set_permissions(path, Permissions::from_mode(0o700)).expect("private");
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("executable");
}
