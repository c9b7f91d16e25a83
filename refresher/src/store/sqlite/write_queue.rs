//! The order of a process's writers: new tokens before anything else.
//!
//! SQLite has one writer. Whoever finds it taken sleeps and looks again, up to 100 ms later and in no order
//! (`sqliteDefaultBusyCallback` in SQLite's main.c). So a process's writers stand in line here before they ask SQLite,
//! and wait there only for the writers of another process.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// The line. An urgent writer waits for the one that writes and for earlier urgent ones. That starves no ordinary one,
/// because each urgent write follows a claim or an intent of its own, which is an ordinary one.
#[derive(Debug, Default)]
pub(in crate::store) struct WriteQueue {
    /// Held by the one ordinary writer that writes or is next to; the others wait for it here.
    ordinary: Mutex<()>,
    writer: Mutex<()>,
    /// Urgent writers that wait.
    urgent: AtomicUsize,
}

/// The right to write, until dropped.
#[derive(Debug)]
pub(in crate::store) struct Turn<'q> {
    _writer: MutexGuard<'q, ()>,
    _ordinary: Option<MutexGuard<'q, ()>>,
}

impl WriteQueue {
    /// A turn to write data that exists nowhere else yet.
    pub(in crate::store) async fn urgent(&self) -> Turn<'_> {
        let _waiting = Waiting::count(&self.urgent);
        Turn {
            _writer: self.writer.lock().await,
            _ordinary: None,
        }
    }

    /// A turn to write anything else.
    pub(in crate::store) async fn ordinary(&self) -> Turn<'_> {
        let ordinary = self.ordinary.lock().await;
        loop {
            let writer = self.writer.lock().await;
            if self.urgent.load(Ordering::Relaxed) == 0 {
                return Turn {
                    _writer: writer,
                    _ordinary: Some(ordinary),
                };
            }
            // Tokio's mutex is fair: those who wait for it come before us now.
        }
    }
}

/// Counts an urgent writer as long as it waits, also one that stops waiting.
struct Waiting<'q>(&'q AtomicUsize);

impl<'q> Waiting<'q> {
    fn count(waiting: &'q AtomicUsize) -> Waiting<'q> {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::future::join_all;
    use futures_util::{FutureExt, poll};

    use super::*;

    /// The order in which writers that come while `first` writes get their turns.
    async fn order(
        queue: &WriteQueue,
        first: Turn<'_>,
        writers: &[&'static str],
    ) -> Vec<&'static str> {
        let order = RefCell::new(Vec::new());
        let write = async |name: &'static str| {
            let _turn = match name.split_once(' ') {
                Some(("urgent", _)) => queue.urgent().await,
                _ => queue.ordinary().await,
            };
            order.borrow_mut().push(name);
        };
        let mut all = join_all(writers.iter().map(|name| write(name).boxed_local()));
        assert!(poll!(&mut all).is_pending());
        drop(first);
        all.await;
        order.into_inner()
    }

    #[tokio::test]
    async fn urgent_writers_pass_all_ordinary_ones() {
        let queue = WriteQueue::default();
        let writers = [
            "ordinary 1",
            "ordinary 2",
            "urgent 1",
            "ordinary 3",
            "urgent 2",
        ];
        let expected = [
            "urgent 1",
            "urgent 2",
            "ordinary 1",
            "ordinary 2",
            "ordinary 3",
        ];
        let first = queue.ordinary().await;
        assert_eq!(order(&queue, first, &writers).await, expected);
        let first = queue.urgent().await;
        assert_eq!(order(&queue, first, &writers).await, expected);
    }

    #[tokio::test]
    async fn a_writer_that_gives_up_holds_nobody_up() {
        let queue = WriteQueue::default();
        let first = queue.urgent().await;
        for given_up in [queue.urgent().boxed_local(), queue.ordinary().boxed_local()] {
            let mut given_up = given_up;
            assert!(poll!(&mut given_up).is_pending());
        }
        let writers = ["ordinary 1", "urgent 1"];
        assert_eq!(
            order(&queue, first, &writers).await,
            ["urgent 1", "ordinary 1"]
        );
    }
}
