//! The plugin's configuration, as docs/configuration.md lists it.

use std::fmt;

use serde::Deserialize;

use crate::{budget::Budget, request::carried::MAX_TRIES};

/// The longest that a refresher lets a poll wait, in seconds.
const MAX_POLL_WAIT_SECONDS: u64 = 60;

/// The longest that a request may be kept by the gateway itself, in seconds.
const MAX_PATIENCE_SECONDS: u64 = 600;

/// The longest that an operator may let an Envoy go on with what nobody confirms, in seconds: a week.
const MAX_UNCONFIRMED_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The most memory that a budget may allow, in MiB: 1 TiB.
const MAX_HELD_MIB: u64 = 1024 * 1024;

/// The most connections that a bound may allow.
const MAX_CONNECTIONS: u64 = 1_000_000;

/// The settings of an operator.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The Envoy cluster of the refresher.
    pub refresher_cluster: String,
    /// The seconds that one long poll waits.
    pub poll_wait_seconds: u64,
    /// The seconds for which requests are served after the refresher last confirmed the snapshot;
    /// 0 for without end.
    pub max_unconfirmed_seconds: u64,
    /// The number of accounts that a request is tried on.
    pub max_attempts: usize,
    /// The seconds after its first failure for which a request is tried on another account.
    pub failover_seconds: u64,
    /// The seconds that a request waits for an account that is being refreshed, where there is no
    /// other.
    pub refresh_wait_seconds: u64,
    /// The seconds for which the events of an answer are held that only announce it, from the first
    /// on: until then an error that follows them leads to another account.
    pub announcement_wait_seconds: u64,
    /// The seconds that a request waits for an account whose platform told it to pause for no longer, or
    /// that has as many requests under way as it may.
    pub throttle_wait_seconds: u64,
    /// The opening of a conversation stands for its session, where none is named.
    pub sessions_by_opening: bool,
    /// The memory that all requests may hold, in MiB.
    pub held_mib: u64,
    /// The memory that the requests of one client key may hold, in MiB.
    pub held_mib_per_key: u64,
    /// The connections that all callers may keep open between their requests.
    pub kept_connections: u64,
    /// The connections that the callers with one client key may keep.
    pub kept_connections_per_key: u64,
}

/// The reason why a configuration is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum InvalidConfig {
    /// The configuration is no JSON object of known keys.
    Json(String),
    /// A number is too small or too large.
    OutOfRange {
        /// The key.
        key: &'static str,
        /// The least that may be set.
        least: u64,
        /// The most.
        most: u64,
        /// The number that was found.
        found: u64,
    },
}

// === impl Config ===

impl Config {
    /// Reads the configuration of a plugin; none at all means the defaults.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(bytes: Option<&[u8]>) -> Result<Self, InvalidConfig> {
        let config: Self = match bytes {
            None | Some([]) => Self::default(),
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| InvalidConfig::Json(error.to_string()))?,
        };
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        let attempts = (count(config.max_attempts), count(MAX_TRIES));
        // A poll that brings nothing new confirms only when its wait is over.
        let least_unconfirmed = match config.max_unconfirmed_seconds {
            0 => 0,
            _ => config.poll_wait_seconds.saturating_mul(2),
        };
        for (key, found, least, most) in [
            (
                "poll_wait_seconds",
                config.poll_wait_seconds,
                1,
                MAX_POLL_WAIT_SECONDS,
            ),
            (
                "max_unconfirmed_seconds",
                config.max_unconfirmed_seconds,
                least_unconfirmed,
                MAX_UNCONFIRMED_SECONDS,
            ),
            ("max_attempts", attempts.0, 1, attempts.1),
            (
                "failover_seconds",
                config.failover_seconds,
                0,
                MAX_PATIENCE_SECONDS,
            ),
            (
                "refresh_wait_seconds",
                config.refresh_wait_seconds,
                0,
                MAX_PATIENCE_SECONDS,
            ),
            (
                "announcement_wait_seconds",
                config.announcement_wait_seconds,
                0,
                MAX_PATIENCE_SECONDS,
            ),
            (
                "throttle_wait_seconds",
                config.throttle_wait_seconds,
                0,
                MAX_PATIENCE_SECONDS,
            ),
            ("held_mib", config.held_mib, 1, MAX_HELD_MIB),
            (
                "held_mib_per_key",
                config.held_mib_per_key,
                1,
                config.held_mib,
            ),
            (
                "kept_connections",
                config.kept_connections,
                1,
                MAX_CONNECTIONS,
            ),
            (
                "kept_connections_per_key",
                config.kept_connections_per_key,
                1,
                config.kept_connections,
            ),
        ] {
            if !(least..=most).contains(&found) {
                return Err(InvalidConfig::OutOfRange {
                    key,
                    least,
                    most,
                    found,
                });
            }
        }
        Ok(config)
    }

    /// The bounds of what requests hold.
    pub fn budget(&self) -> Budget {
        let bytes = |mebibytes: u64| mebibytes.saturating_mul(1024 * 1024);
        Budget {
            all: bytes(self.held_mib),
            of_key: bytes(self.held_mib_per_key),
        }
    }

    /// The bounds of the connections that callers keep.
    pub fn connections(&self) -> Budget {
        Budget {
            all: self.kept_connections,
            of_key: self.kept_connections_per_key,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            refresher_cluster: "refresher_admin".to_owned(),
            poll_wait_seconds: 25,
            max_unconfirmed_seconds: 0,
            max_attempts: 4,
            failover_seconds: 60,
            refresh_wait_seconds: 10,
            announcement_wait_seconds: 2,
            throttle_wait_seconds: 10,
            sessions_by_opening: true,
            held_mib: 768,
            held_mib_per_key: 256,
            kept_connections: 3_500,
            kept_connections_per_key: 700,
        }
    }
}

// === impl InvalidConfig ===

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plugin's configuration: ")?;
        match self {
            Self::Json(error) => write!(f, "expected a JSON object of known keys: {error}"),
            Self::OutOfRange {
                key,
                least,
                most,
                found,
            } => write!(f, "{key}: expected {least} to {most}, found {found}"),
        }
    }
}

impl std::error::Error for InvalidConfig {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_means_the_defaults() {
        for empty in [None, Some(&b""[..]), Some(b"{}")] {
            let config = Config::parse(empty).unwrap();
            assert_eq!(config.refresher_cluster, "refresher_admin");
            assert_eq!((config.max_attempts, config.refresh_wait_seconds), (4, 10));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            (
                r#"{"max_attempts":17}"#,
                "max_attempts: expected 1 to 16, found 17",
            ),
            (
                r#"{"max_attempts":0}"#,
                "max_attempts: expected 1 to 16, found 0",
            ),
            (
                r#"{"poll_wait_seconds":61}"#,
                "poll_wait_seconds: expected 1 to 60, found 61",
            ),
            (
                r#"{"max_unconfirmed_seconds":49}"#,
                "max_unconfirmed_seconds: expected 50 to 604800, found 49",
            ),
            (
                r#"{"failover_seconds":601}"#,
                "failover_seconds: expected 0 to 600, found 601",
            ),
            (
                r#"{"refresh_wait_seconds":601}"#,
                "refresh_wait_seconds: expected 0 to 600, found 601",
            ),
            (
                r#"{"held_mib":64,"held_mib_per_key":65}"#,
                "held_mib_per_key: expected 1 to 64, found 65",
            ),
            (
                r#"{"kept_connections":64,"kept_connections_per_key":0}"#,
                "kept_connections_per_key: expected 1 to 64, found 0",
            ),
            (
                r#"{"max_atempts":1}"#,
                "expected a JSON object of known keys: ",
            ),
        ] {
            let found = Config::parse(Some(text.as_bytes()))
                .unwrap_err()
                .to_string();
            let expected = format!("the plugin's configuration: {error}");
            assert!(found.starts_with(&expected), "{found}");
        }
    }
}
