//! The plugin's configuration, as ARCHITECTURE.md lists it.

use serde::Deserialize;

/// The longest that a refresher lets a poll wait, in seconds.
const MAX_POLL_WAIT_SECONDS: u64 = 60;

/// What an operator may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Config {
    /// The Envoy cluster of the refresher.
    pub(super) refresher_cluster: String,
    /// How long one long poll waits.
    pub(super) poll_wait_seconds: u64,
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
        Ok(config)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            refresher_cluster: "refresher_admin".to_owned(),
            poll_wait_seconds: 25,
        }
    }
}
