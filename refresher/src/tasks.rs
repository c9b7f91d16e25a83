//! The daemon's supervisor: gives each task a name, notices one that ends, and stops all of them within a bound.
//!
//! A task of a daemon runs until the daemon stops. One that ends before that has failed, whether it returned or
//! panicked: [`Tasks::run`] then stops the others and returns an error with its name.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The reason why the daemon stopped though nobody told it to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A task returned.
    #[error("the task {name:?} ended by itself")]
    Returned {
        /// Its name.
        name: &'static str,
    },
    /// A task panicked. What the panic said is kept out: it may hold a secret.
    #[error("the task {name:?} panicked; the log names the place")]
    Panicked {
        /// Its name.
        name: &'static str,
    },
}

/// The time that any task gets to reach its next await.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// A set of named tasks that start and stop together.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<()>,
    known: HashMap<Id, Known>,
    shutdown: CancellationToken,
}

/// A running task, as the supervisor knows it.
#[derive(Debug)]
struct Known {
    name: &'static str,
    /// The time the task gets to end once it is told to.
    grace: Duration,
    handle: AbortHandle,
}

impl Known {
    fn deadline(&self, told_at: Instant) -> Instant {
        told_at + DROP_GRACE + self.grace
    }
}

impl Tasks {
    /// The token that is cancelled when the tasks are to stop.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Starts a task that may be dropped at any of its awaits when the daemon stops.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        let task = async move {
            // None means that the shutdown came first.
            let _ = shutdown.run_until_cancelled(task).await;
        };
        self.start(name, Duration::ZERO, task);
    }

    /// Starts a task that ends in order by itself after [`Tasks::shutdown`] is cancelled, and gets `grace` for that.
    pub fn spawn_draining(
        &mut self,
        name: &'static str,
        grace: Duration,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.start(name, grace, task);
    }

    fn start(
        &mut self,
        name: &'static str,
        grace: Duration,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.running.spawn(task);
        let id = handle.id();
        let known = Known {
            name,
            grace,
            handle,
        };
        self.known.insert(id, known);
    }

    /// Runs until `told` returns for the first time, or a task ends; then stops every task. When `told` returns again
    /// meanwhile, the stop waits no longer.
    ///
    /// # Errors
    /// Naming the task that ended by itself.
    pub async fn run(mut self, mut told: impl AsyncFnMut()) -> Result<(), Error> {
        let outcome = tokio::select! {
            () = told() => Ok(()),
            Some(ended) = self.running.join_next_with_id() => Err(self.failure(ended)),
        };
        tracing::info!("stopping");
        tokio::select! {
            () = self.stop() => {}
            () = told() => {
                tracing::warn!("told again to stop, so at once: refresh calls in flight count as unanswered");
            }
        }
        outcome
    }

    /// Has every task stop, and waits for each as long as its grace lasts.
    async fn stop(&mut self) {
        self.shutdown.cancel();
        let told_at = Instant::now();
        while let Some(next) = self.known.values().map(|task| task.deadline(told_at)).min() {
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.note_end(ended),
                () = sleep_until(next) => self.cut_off(told_at),
            }
        }
    }

    /// Aborts the tasks whose grace is over, and waits for them no longer.
    fn cut_off(&mut self, told_at: Instant) {
        let now = Instant::now();
        let late = self
            .known
            .extract_if(|_, task| task.deadline(told_at) <= now);
        for (_, Known { name, handle, .. }) in late {
            tracing::warn!(name, "a task did not stop in time; it is cut off");
            handle.abort();
        }
    }

    /// Takes note of a task that ended after it was told to.
    fn note_end(&mut self, ended: Result<(Id, ()), JoinError>) {
        match ended {
            Ok((id, ())) => drop(self.known.remove(&id)),
            Err(error) if error.is_cancelled() => {}
            panicked => {
                let error = self.failure(panicked);
                tracing::error!(%error, "a task did not stop in order");
            }
        }
    }

    /// The error that the end of a task is while the daemon runs.
    fn failure(&mut self, ended: Result<(Id, ()), JoinError>) -> Error {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let name = self.known.remove(&id).map_or("unknown", |task| task.name);
        match ended {
            Err(error) if error.is_panic() => Error::Panicked { name },
            _ => Error::Returned { name },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::sleep;

    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    /// A stop that is told after a minute, and no second time.
    fn after_a_minute() -> impl AsyncFnMut() {
        let mut is_first = true;
        async move || {
            if !std::mem::take(&mut is_first) {
                pending::<()>().await;
            }
            sleep(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_returns_is_an_error_with_its_name_and_stops_the_others() {
        let mut tasks = Tasks::default();
        let (shutdown, drained) = (tasks.shutdown().clone(), Arc::new(AtomicBool::new(false)));
        let seen = drained.clone();
        tasks.spawn("loop", pending());
        tasks.spawn_draining("engine", GRACE, async move {
            shutdown.cancelled().await;
            sleep(Duration::from_secs(5)).await;
            seen.store(true, Ordering::Relaxed);
        });
        tasks.spawn("watch", sleep(Duration::from_secs(1)));
        let started = Instant::now();
        let ended = tasks.run(after_a_minute()).await;
        assert_eq!(ended, Err(Error::Returned { name: "watch" }));
        assert!(drained.load(Ordering::Relaxed), "the others stop in order");
        assert_eq!(started.elapsed().as_secs(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_an_error_with_its_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("loop", pending());
        tasks.spawn("watch", async { panic!("secret") });
        let ended = tasks.run(after_a_minute()).await;
        assert_eq!(ended, Err(Error::Panicked { name: "watch" }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_will_not_stop_is_cut_off_after_its_grace() {
        let mut tasks = Tasks::default();
        tasks.spawn("loop", pending());
        tasks.spawn_draining("socket", Duration::from_secs(2), pending());
        tasks.spawn_draining("engine", GRACE, pending());
        let started = Instant::now();
        assert_eq!(tasks.run(after_a_minute()).await, Ok(()));
        let stop = started.elapsed() - Duration::from_secs(60);
        assert!(stop >= GRACE && stop <= GRACE + 2 * DROP_GRACE, "{stop:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_stop_waits_for_nobody() {
        let mut tasks = Tasks::default();
        tasks.spawn_draining("engine", GRACE, pending());
        let started = Instant::now();
        let twice = async || sleep(Duration::from_secs(3)).await;
        assert_eq!(tasks.run(twice).await, Ok(()));
        assert_eq!(started.elapsed().as_secs(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_stop_in_order_are_not_waited_for_longer() {
        let mut tasks = Tasks::default();
        tasks.spawn("loop", pending());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_draining("engine", GRACE, async move { shutdown.cancelled().await });
        let started = Instant::now();
        assert_eq!(tasks.run(after_a_minute()).await, Ok(()));
        assert_eq!(started.elapsed().as_secs(), 60);
    }
}
