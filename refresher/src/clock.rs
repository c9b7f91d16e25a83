//! Wall-clock time, injected so that a test can move it. Waits are not here: they use tokio's monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point of wall-clock time: milliseconds since the Unix epoch, the unit of `expires_at` in the snapshot.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type, Serialize, Deserialize,
)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This time and `duration`, at most the last representable time.
    pub fn plus(self, duration: Duration) -> UnixMillis {
        UnixMillis(self.0.saturating_add(millis(duration)))
    }

    /// This time less `duration`, at least the first representable time.
    pub fn minus(self, duration: Duration) -> UnixMillis {
        UnixMillis(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this; zero if this is not after it.
    pub fn since(self, earlier: UnixMillis) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The time to the second in UTC, as RFC 3339 has it.
    pub fn in_utc(self) -> String {
        let time = jiff::Timestamp::from_second(self.0.div_euclid(1_000));
        time.unwrap_or(jiff::Timestamp::MAX).to_string()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The wall clock.
pub trait Clock: Send + Sync + 'static {
    /// The time now. It may jump, also backwards.
    fn now(&self) -> UnixMillis;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(0).plus(since_epoch)
    }
}
