//! The process of an Envoy, and its admin interface.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{eventually, program::Program, setting, wall_clock};

/// The longest that Envoy may take until it listens: it compiles the filter, on a machine that is busy.
pub const START_LIMIT: Duration = Duration::from_secs(30);

/// The threads that serve callers.
pub const WORKERS: usize = 2;

/// After this long what is in its access log is in the file; it would be 10 s else.
pub const FLUSH: Duration = Duration::from_millis(100);

/// An Envoy that runs.
#[derive(Debug)]
pub struct Process {
    /// What runs.
    pub program: Program,
    /// The folder of its log.
    pub folder: PathBuf,
    admin: reqwest::Client,
}

// === impl Process ===

impl Process {
    /// Starts one on that configuration, with these options beside. Its admin interface is at `socket`.
    pub async fn start(
        folder: &Path,
        config: &Path,
        socket: &Path,
        log: &str,
        options: &[&str],
    ) -> Self {
        let mut command = Program::command(&setting("LATCHKEY_ENVOY"));
        command.envs(wall_clock::environment(folder));
        command
            .arg("--config-path")
            .arg(config)
            .args(["--concurrency", &WORKERS.to_string()])
            .args(["--disable-hot-restart", "--log-level", "info"])
            .args(["--file-flush-interval-msec", &FLUSH.as_millis().to_string()])
            .args(options);
        std::fs::remove_file(socket).ok();
        let program = Program::start(command, &folder.join(log)).await;
        let admin = reqwest::Client::builder().unix_socket(socket).build();
        Self {
            program,
            folder: folder.to_owned(),
            admin: admin.expect("a client"),
        }
    }

    /// Waits until it listens, and returns where.
    pub async fn listens(&mut self) -> u16 {
        eventually("Envoy listens", START_LIMIT, async || {
            self.program.assert_alive();
            let ready = self.ask("/ready").await?;
            if ready.trim() != "LIVE" {
                return Err(ready);
            }
            self.port().await
        })
        .await
    }

    /// The port of its first listener.
    pub async fn port(&self) -> Result<u16, String> {
        let listeners = self.ask("/listeners?format=json").await?;
        let parsed: Value = serde_json::from_str(&listeners).map_err(|error| error.to_string())?;
        parsed
            .pointer("/listener_statuses/0/local_address/socket_address/port_value")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .ok_or(listeners)
    }

    /// A page of its admin interface.
    pub async fn ask(&self, path: &str) -> Result<String, String> {
        let answer = self.admin.get(format!("http://admin{path}")).send().await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        answer.text().await.map_err(|error| error.to_string())
    }

    /// Has its admin interface do something.
    pub async fn order(&self, path: &str) -> Result<(), String> {
        let answer = self.admin.post(format!("http://admin{path}")).send().await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let ordered = answer.error_for_status();
        ordered.map(drop).map_err(|error| error.to_string())
    }
}
