//! The real Envoy, with the shipped configuration.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde_json::Value;

use super::{
    kept,
    kept::Place,
    process::{Process, START_LIMIT},
    program,
    program::Program,
    setting, source_root,
};

/// Where the shipped configuration has the admin interface, in a stack's folder.
pub const ADMIN_SOCKET: &str = "state/run/envoy-admin.sock";

/// The version of the Envoy under test.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut command = std::process::Command::new(setting("LATCHKEY_ENVOY"));
    let said = command.arg("--version").output().expect("Envoy runs");
    let said = String::from_utf8(said.stdout).expect("UTF-8");
    // … version: COMMIT/VERSION/…
    said.split('/').rev().nth(3).expect("a version").to_owned()
});

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// None while it is being dropped.
    process: Option<Process>,
    /// Where it is kept when it is dropped; none: it ends then.
    place: Option<Arc<Place>>,
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
            .arg(setting("LATCHKEY_WASM"))
            .args(["--envoy", &VERSION]);
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
    pub async fn start_edited(folder: &Path, port: u16, edit: impl Fn(&str) -> String) -> Self {
        let config = Self::configure(folder, "envoy.yaml", port).await;
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
        kept::spoil(folder);
        let mut process = Process::start(folder, config, socket, log, &[]).await;
        let port = process.listens().await;
        Self {
            process: Some(process),
            place: None,
            port,
        }
    }

    /// That process, which listens on that port and is kept at that place.
    pub fn at(place: Arc<Place>, process: Process, port: u16) -> Self {
        Self {
            process: Some(process),
            place: Some(place),
            port,
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it is not being dropped")
    }

    /// A page of its admin interface.
    pub async fn admin(&self, path: &str) -> String {
        self.process()
            .ask(path)
            .await
            .expect("the admin interface answers")
    }

    /// The sum of all counters and gauges whose name contains `part`.
    pub async fn stat(&self, part: &str) -> u64 {
        // As a pattern, it matches more than itself.
        let stats = self.admin(&format!("/stats?filter={part}")).await;
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
        self.process().program.resident_kib()
    }

    /// The time that its threads have spent on a core since it started.
    pub fn cpu_time(&self) -> Duration {
        self.process().program.cpu_time()
    }

    /// [`Program::schedstat`]
    pub fn schedstat(&self) -> [Duration; 2] {
        self.process().program.schedstat()
    }

    /// [`Program::slowness_since`]
    pub fn slowness_since(&self, before: [Duration; 2]) -> f64 {
        self.process().program.slowness_since(before)
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
        self.place = None;
        let process = self.process.as_mut().expect("it is not being dropped");
        process.program.kill().await;
    }

    /// Stops it where it is, until it [goes on](Self::go_on).
    pub fn pause(&self) {
        self.process().program.pause();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process().program.go_on();
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if let (Some(place), Some(process)) = (self.place.take(), self.process.take()) {
            place.give_back(process);
        }
    }
}
