//! The real Envoy, with the shipped configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{eventually, program, program::Program, setting, source_root, wall_clock};

/// The longest that Envoy may take until it listens: it compiles the filter, on a machine that is busy.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Where the shipped configuration has the admin interface, in a stack's folder.
const ADMIN_SOCKET: &str = "state/run/envoy-admin.sock";

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    program: Program,
    admin: reqwest::Client,
    /// Where callers connect, on 127.0.0.1.
    pub port: u16,
}

impl Envoy {
    /// Writes `run.yaml` into `folder`: a shipped configuration with `port` (0: the system chooses) and the state in
    /// `folder/state`.
    pub async fn configure(folder: &Path, shipped: &str, port: u16) -> PathBuf {
        let mut script = Program::command(&source_root().join("scripts/envoy-config.sh"));
        script
            .arg("--from")
            .arg(source_root().join("envoy").join(shipped))
            .args(["--port", &port.to_string(), "--state"])
            .arg(folder.join("state"))
            .arg("--wasm")
            .arg(setting("LATCHKEY_WASM"));
        let printed = program::output_of(script, START_LIMIT).await;
        assert!(printed.status.success(), "{printed:?}");
        let mut text = String::from_utf8(printed.stdout).expect("UTF-8");
        if !text.contains("\nadmin:") {
            // What is added to somebody's Envoy leaves its admin interface alone, which this harness needs.
            let socket = folder.join(ADMIN_SOCKET);
            text += &format!(
                "\nadmin: {{address: {{pipe: {{path: {}}}}}}}\n",
                socket.display()
            );
        }
        let config = folder.join("run.yaml");
        std::fs::write(&config, text).expect("written");
        config
    }

    /// Starts it on `folder` with `envoy.yaml` and waits until it listens. `state/envoy/clusters.json` has to be there.
    pub async fn start(folder: &Path, port: u16) -> Self {
        Self::start_with(folder, "envoy.yaml", port).await
    }

    /// [`Envoy::start`] with another shipped configuration.
    pub async fn start_with(folder: &Path, shipped: &str, port: u16) -> Self {
        let config = Self::configure(folder, shipped, port).await;
        Self::run(folder, &config).await
    }

    /// [`Envoy::start`] with a configuration that is not quite the shipped one.
    pub async fn start_edited(folder: &Path, edit: impl Fn(&str) -> String) -> Self {
        let config = Self::configure(folder, "envoy.yaml", 0).await;
        let text = std::fs::read_to_string(&config).expect("the configuration");
        std::fs::write(&config, edit(&text)).expect("written");
        Self::run(folder, &config).await
    }

    /// Another one on the same state, with sockets and a log of its own.
    pub async fn start_beside(folder: &Path, name: &str) -> Self {
        Self::start_beside_edited(folder, name, str::to_owned).await
    }

    /// [`Envoy::start_beside`] with a configuration that is not quite the shipped one.
    pub async fn start_beside_edited(
        folder: &Path,
        name: &str,
        edit: impl Fn(&str) -> String,
    ) -> Self {
        let shipped = Self::configure(folder, "envoy.yaml", 0).await;
        let text = std::fs::read_to_string(&shipped).expect("the configuration");
        let own = |socket: &str| format!("/{name}-{socket}");
        let text = ["envoy-admin.sock", "envoy-escape.sock"]
            .iter()
            .fold(text, |text, socket| {
                text.replace(&format!("/{socket}"), &own(socket))
            });
        let config = folder.join(format!("{name}.yaml"));
        std::fs::write(&config, edit(&text)).expect("written");
        let admin = folder
            .join("state/run")
            .join(format!("{name}-envoy-admin.sock"));
        Self::run_at(folder, &config, &admin, &format!("envoy-{name}.log")).await
    }

    async fn run(folder: &Path, config: &Path) -> Self {
        Self::run_at(folder, config, &folder.join(ADMIN_SOCKET), "envoy.log").await
    }

    async fn run_at(folder: &Path, config: &Path, socket: &Path, log: &str) -> Self {
        let mut command = Program::command(&setting("LATCHKEY_ENVOY"));
        command.envs(wall_clock::environment(folder));
        command
            .arg("--config-path")
            .arg(config)
            .args(["--concurrency", "2", "--disable-hot-restart"])
            .args(["--log-level", "info"]);
        std::fs::remove_file(socket).ok();
        let mut program = Program::start(command, &folder.join(log)).await;
        let admin = reqwest::Client::builder().unix_socket(socket).build();
        let admin = admin.expect("a client");
        let port = eventually("Envoy listens", START_LIMIT, async || {
            program.assert_alive();
            let ready = ask(&admin, "/ready").await?;
            if ready.trim() != "LIVE" {
                return Err(ready);
            }
            listening_port(&ask(&admin, "/listeners?format=json").await?)
        })
        .await;
        Self {
            program,
            admin,
            port,
        }
    }

    /// A page of its admin interface.
    pub async fn admin(&self, path: &str) -> String {
        ask(&self.admin, path)
            .await
            .expect("the admin interface answers")
    }

    /// The sum of all counters and gauges whose name contains `part`.
    pub async fn stat(&self, part: &str) -> u64 {
        let stats = self.admin("/stats").await;
        stats
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.contains(part))
            .map(|(_, value)| value.trim().parse::<u64>().unwrap_or(0))
            .sum()
    }

    /// The revision of the snapshot that it holds.
    pub async fn revision(&self) -> u64 {
        self.stat("latchkey.snapshot_revision").await
    }

    /// The number of times that a VM of the filter crashed.
    pub async fn crashes(&self) -> u64 {
        self.stat("vm_reload").await
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.program.resident_kib()
    }

    /// The time that its threads have spent on a core since it started.
    pub fn cpu_time(&self) -> Duration {
        self.program.cpu_time()
    }

    /// The version that it says it has.
    pub async fn version(&self) -> String {
        let info: Value = serde_json::from_str(&self.admin("/server_info").await).expect("JSON");
        // COMMIT/VERSION/…
        let version = info["version"]
            .as_str()
            .and_then(|text| text.split('/').nth(1));
        version.expect("a version").to_owned()
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.program.kill().await;
    }

    /// Stops it where it is, until it [goes on](Self::go_on).
    pub fn pause(&self) {
        self.program.pause();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.program.go_on();
    }
}

async fn ask(admin: &reqwest::Client, path: &str) -> Result<String, String> {
    let answer = admin.get(format!("http://admin{path}")).send().await;
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    answer.text().await.map_err(|error| error.to_string())
}

fn listening_port(listeners: &str) -> Result<u16, String> {
    let listeners: Value = serde_json::from_str(listeners).map_err(|error| error.to_string())?;
    listeners
        .pointer("/listener_statuses/0/local_address/socket_address/port_value")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| listeners.to_string())
}
