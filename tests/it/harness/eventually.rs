//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The longest that a look and its pause count for.
///
/// Tests run beside each other on few cores. A machine that gives this process no time gives none to what it waits for
/// either, so a deadline is counted in looks there.
const LOOK: Duration = Duration::from_millis(40);

/// How many times its deadline a wait may take on such a machine.
const STRETCH: u32 = 5;

/// Looks until `probe` succeeds and returns what it found.
///
/// # Panics
/// After `deadline`, with `what` was waited for and what the last look found instead. On a busy machine that can be
/// [`STRETCH`] times as late.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    let mut waited = Duration::ZERO;
    loop {
        let look = Instant::now();
        let instead = match probe().await {
            Ok(found) => return found,
            Err(instead) => instead,
        };
        if waited > deadline || began.elapsed() > deadline * STRETCH {
            let took = began.elapsed();
            panic!("not within {deadline:?} ({took:?} of a clock): {what}; last look: {instead}")
        }
        tokio::time::sleep(PAUSE).await;
        waited += look.elapsed().min(LOOK);
    }
}

/// `Ok` if it holds; for the last expression of a probe.
pub fn holds(condition: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    condition.then_some(()).ok_or_else(instead)
}
