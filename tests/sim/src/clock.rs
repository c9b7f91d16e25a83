//! Time as a value: every decision of the simulator takes `now`, only the server reads the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The system clock's reading.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self(since_epoch.as_millis() as u64)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This time plus `seconds`, saturating.
    pub fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// The time as RFC 3339 in UTC with whole seconds, such as `2026-11-21T22:00:00Z`.
    pub fn rfc3339(self) -> String {
        Timestamp::from_second(self.seconds() as i64)
            .map(|time| time.to_string())
            .unwrap_or_default()
    }
}
