//! Who in this process writes next: new tokens before anything else.
//!
//! SQLite has one writer. Whoever finds it taken sleeps and looks again, up to 100 ms later and in no order
//! (`sqliteDefaultBusyCallback` in SQLite's main.c). So a process's writers stand in line here before they ask SQLite,
//! and wait there only for the writers of another process.

use tokio::sync::{Mutex, MutexGuard};

/// The line. Tokio's mutexes are fair, so an ordinary writer too gets its turn: after those urgent ones that came
/// before it.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    /// Held by the one ordinary writer that writes or is next to; the others wait for it here.
    ordinary: Mutex<()>,
    writer: Mutex<()>,
}

/// The right to write, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'q> {
    _writer: MutexGuard<'q, ()>,
    _ordinary: Option<MutexGuard<'q, ()>>,
}

impl WriteQueue {
    /// A turn to write what exists nowhere else yet: waits for earlier urgent writers and for at most one ordinary one.
    pub(super) async fn urgent(&self) -> Turn<'_> {
        Turn {
            _writer: self.writer.lock().await,
            _ordinary: None,
        }
    }

    /// A turn to write anything else.
    pub(super) async fn ordinary(&self) -> Turn<'_> {
        let ordinary = self.ordinary.lock().await;
        Turn {
            _writer: self.writer.lock().await,
            _ordinary: Some(ordinary),
        }
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
    async fn urgent_writers_pass_all_ordinary_ones_but_the_next() {
        let queue = WriteQueue::default();
        let writers = [
            "ordinary 1",
            "ordinary 2",
            "urgent 1",
            "ordinary 3",
            "urgent 2",
        ];
        let first = queue.ordinary().await;
        assert_eq!(
            order(&queue, first, &writers).await,
            [
                "urgent 1",
                "urgent 2",
                "ordinary 1",
                "ordinary 2",
                "ordinary 3"
            ]
        );
        let first = queue.urgent().await;
        assert_eq!(
            order(&queue, first, &writers).await,
            [
                "ordinary 1",
                "urgent 1",
                "urgent 2",
                "ordinary 2",
                "ordinary 3"
            ]
        );
    }

    #[tokio::test]
    async fn an_ordinary_writer_is_not_passed_by_urgent_ones_for_ever() {
        let queue = WriteQueue::default();
        let mut writing = queue.urgent().await;
        let mut ordinary = std::pin::pin!(queue.ordinary());
        assert!(poll!(&mut ordinary).is_pending());
        let mut next = Box::pin(queue.urgent());
        assert!(poll!(&mut next).is_pending());
        drop(writing);
        writing = ordinary.await;
        assert!(poll!(&mut next).is_pending());
        drop(writing);
        next.await;
    }
}
