//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The longest one. A look that starts a program costs much of a core: its pause is as long as three of them, so that
/// whoever waits leaves the machine to what it waits for.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// How many times as long as its look a pause is, within these bounds.
const LOOKS_A_PAUSE: u32 = 3;

/// The longest that a look counts for.
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
        let took = look.elapsed();
        if waited > deadline || began.elapsed() > deadline * STRETCH {
            let all = began.elapsed();
            panic!("not within {deadline:?} ({all:?} of a clock): {what}; last look: {instead}")
        }
        let pause = (LOOKS_A_PAUSE * took).clamp(PAUSE, LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
        waited += took.min(LOOK) + pause;
    }
}

/// `Ok` if it holds; for the last expression of a probe.
pub fn holds(condition: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    condition.then_some(()).ok_or_else(instead)
}
