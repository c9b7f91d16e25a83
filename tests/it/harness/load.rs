//! A steady stream of requests beside a test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::{Answer, Caller, RUNTIME};

/// Requests that are being sent.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sending: JoinHandle<Vec<reqwest::Result<Answer>>>,
}

impl Load {
    /// Posts `body` to `path`, `rate` times a second, each with `?load` behind it.
    pub fn start(caller: Caller, path: &str, body: Value, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let path = format!("{path}?load");
        let sending = RUNTIME.spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut requests = JoinSet::new();
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let (caller, path, body) = (caller.clone(), path.clone(), body.clone());
                requests.spawn(async move { caller.try_post(&path, &body).await });
            }
            requests.join_all().await
        });
        Self { stop, sending }
    }

    /// Stops, and returns what came of each request.
    pub async fn stop(self) -> Vec<reqwest::Result<Answer>> {
        self.stop.store(true, Ordering::Relaxed);
        self.sending.await.expect("sent")
    }

    /// Stops, and asserts that at least `least` requests were sent and each was answered with 200.
    pub async fn assert_all_good(self, least: usize) {
        let outcomes = self.stop().await;
        assert!(outcomes.len() >= least, "only {} requests", outcomes.len());
        let bad: Vec<_> = outcomes
            .iter()
            .filter(|outcome| !matches!(outcome, Ok(Answer { status: 200, .. })))
            .collect();
        assert!(
            bad.is_empty(),
            "{} of {}, the first: {:?}",
            bad.len(),
            outcomes.len(),
            bad[0]
        );
    }
}
