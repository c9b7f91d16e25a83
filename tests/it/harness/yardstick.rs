//! Measures how late the machine itself is: it has few cores, and other tests keep them busy.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

/// The length of each sleep.
const PAUSE: Duration = Duration::from_millis(5);

/// Each time that the thread woke up, and how much later than it had asked for.
type Wakes = Arc<Mutex<Vec<(SystemTime, Duration)>>>;

/// A thread that does nothing but wake up every 5 ms. By how much it wakes late, no program on this machine can help.
#[derive(Debug)]
pub struct Yardstick {
    stop: Arc<AtomicBool>,
    wakes: Wakes,
    thread: Option<JoinHandle<()>>,
}

impl Yardstick {
    /// Measures from now on, until dropped.
    pub fn start() -> Self {
        let (stop, wakes) = (Arc::new(AtomicBool::new(false)), Wakes::default());
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&wakes));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let slept = Instant::now();
                thread::sleep(PAUSE);
                let wake = (SystemTime::now(), slept.elapsed().saturating_sub(PAUSE));
                lock(&noted).push(wake);
            }
        });
        Self {
            stop,
            wakes,
            thread: Some(thread),
        }
    }

    /// The part of the time from `from` to `to` it was late, in all.
    pub fn late(&self, from: SystemTime, to: SystemTime) -> Duration {
        let wakes = lock(&self.wakes);
        // One that was asleep when the time was over tells of it when it wakes.
        let after = wakes.iter().position(|(at, _)| *at > to);
        let end = after.map_or(wakes.len(), |after| after + 1);
        let within = wakes[..end].iter().filter(|(at, _)| *at >= from);
        within.map(|(_, late)| *late).sum()
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Nothing panics while it is held.
fn lock(wakes: &Wakes) -> std::sync::MutexGuard<'_, Vec<(SystemTime, Duration)>> {
    wakes.lock().unwrap_or_else(PoisonError::into_inner)
}
