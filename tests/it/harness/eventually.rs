//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `probe` succeeds and returns what it found.
///
/// # Panics
/// After `deadline`, with `what` was waited for and what the last look found instead.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(instead) if Instant::now() > end => {
                panic!("not within {deadline:?}: {what}; last look: {instead}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// `Ok` if it holds; for the last expression of a probe.
pub fn holds(condition: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    condition.then_some(()).ok_or_else(instead)
}
