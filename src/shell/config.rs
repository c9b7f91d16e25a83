//! The plugin's configuration, as ARCHITECTURE.md lists it.

use serde::Deserialize;

use crate::request::carried::MAX_TRIES;

/// The longest that a refresher lets a poll wait, in seconds.
const MAX_POLL_WAIT_SECONDS: u64 = 60;

/// The longest that a request may be kept by the gateway itself, in seconds.
const MAX_PATIENCE_SECONDS: u64 = 600;

/// What an operator may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Config {
    /// The Envoy cluster of the refresher.
    pub(super) refresher_cluster: String,
    /// How long one long poll waits.
    pub(super) poll_wait_seconds: u64,
    /// On how many accounts a request is tried.
    pub(super) max_attempts: usize,
    /// For how long after its first failure it is tried on another one.
    pub(super) failover_seconds: u64,
    /// How long it waits for an account that is being refreshed, where there is no other.
    pub(super) refresh_wait_seconds: u64,
}

// === impl Config ===

impl Config {
    /// Reads the configuration of a plugin; none at all means the defaults.
    pub(super) fn parse(bytes: Option<&[u8]>) -> Result<Self, String> {
        let config: Self = match bytes {
            None | Some([]) => Self::default(),
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| {
                format!("the plugin's configuration: expected a JSON object of known keys: {error}")
            })?,
        };
        if !(1..=MAX_POLL_WAIT_SECONDS).contains(&config.poll_wait_seconds) {
            return Err(format!(
                "the plugin's configuration: poll_wait_seconds: expected 1 to {MAX_POLL_WAIT_SECONDS}, found {}",
                config.poll_wait_seconds
            ));
        }
        if !(1..=MAX_TRIES).contains(&config.max_attempts) {
            return Err(format!(
                "the plugin's configuration: max_attempts: expected 1 to {MAX_TRIES}, found {}",
                config.max_attempts
            ));
        }
        let longest = config.failover_seconds.max(config.refresh_wait_seconds);
        if longest > MAX_PATIENCE_SECONDS {
            return Err(format!(
                "the plugin's configuration: failover_seconds and refresh_wait_seconds: expected at most {MAX_PATIENCE_SECONDS}, found {longest}"
            ));
        }
        Ok(config)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            refresher_cluster: "refresher_admin".to_owned(),
            poll_wait_seconds: 25,
            max_attempts: 4,
            failover_seconds: 60,
            refresh_wait_seconds: 10,
        }
    }
}
