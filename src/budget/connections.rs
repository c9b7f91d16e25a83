//! The connections that callers keep open between their requests.
//!
//! Envoy takes so many connections and no more, and has no bound of them by who is known behind them: one key could
//! hold them all, with a cheap request a minute on each. So those that one key keeps are counted, when a request of it
//! and when its answer comes, and what is beyond its share is closed with that answer. Its caller connects anew: nothing
//! else is lost.
//!
//! Only an answer closes a connection. With HTTP/2 a caller can break each request off before its answer and use the
//! connection on: a key that does so on connections beyond its share is answered there at once, with a refusal, until it
//! has not done so for a while. The connection of a request that was broken off there stays until it was idle for too
//! long: for that time it counts as that request does while it is under way.
//!
//! Nobody tells a VM that a connection is gone. One counts as kept for as long as Envoy keeps one without requests; so
//! a caller that connects anew for each request is taken to keep more than it has, and is told to close what it closes
//! anyway. A connection on which a request is under way is that request's, which the budget of memory bounds.

use super::{Budget, KeyName, blocks::Blocks, ledger};
use crate::{deadline::Deadline, host::SharedData, known::Known};

/// The time for which a connection counts as kept after a request or its answer began, in milliseconds: `idle_timeout`
/// and `stream_flush_timeout` of `envoy/envoy.yaml`, and the moments that the closing takes.
pub(super) const KEPT_MS: u64 = 85_000;

/// The shortest time between two searches for those that are kept no longer, in milliseconds.
const SEARCH_MS: u64 = 1_000;

/// The kept connections of one VM, by the proxy's numbers. They are no more than the bound of the whole Envoy.
#[derive(Debug)]
pub struct Connections {
    blocks: Blocks,
    kept: Known<u64, Kept>,
    /// The keys that break requests off on connections beyond their share, and until when that is held against them.
    broken_off: Known<KeyName, Deadline>,
    search: Deadline,
}

/// A connection that is kept.
#[derive(Debug)]
struct Kept {
    key: KeyName,
    until: Deadline,
}

// === impl Connections ===

impl Connections {
    /// Makes those of the VM of this number, which no other VM of this Envoy has.
    pub fn new(vm: u64, budget: Budget) -> Self {
        Self {
            blocks: Blocks::new(ledger::KEPT, vm, budget),
            kept: Known::default(),
            broken_off: Known::default(),
            search: Deadline::default(),
        }
    }

    /// Changes the bounds, for the answers that come.
    pub fn set_budget(&mut self, budget: Budget) {
        self.blocks.set_budget(budget);
    }

    /// Keeps `connection` for `key`, which has a request on it now. Returns false where that key keeps as many as it may:
    /// the connection is to be closed with the answer.
    pub fn keep(
        &mut self,
        shared: &mut impl SharedData,
        connection: u64,
        key: KeyName,
        now: u64,
    ) -> bool {
        let until = Deadline::after(now, KEPT_MS);
        match self.kept.get_mut(&connection) {
            Some(kept) if kept.key == key => {
                kept.until = until;
                return true;
            }
            // Callers behind one proxy share its connections: the last one counts.
            Some(_) => self.forget(connection),
            None => {}
        }
        let has_room = self.blocks.charge(shared, key, 1, now).is_ok()
            || self.forget_old(now) && self.blocks.charge(shared, key, 1, now).is_ok();
        if has_room {
            self.kept.insert(connection, Kept { key, until });
        }
        has_room
    }

    /// Takes note that `key` broke a request off on a connection beyond its share.
    pub fn break_off(&mut self, key: KeyName, now: u64) {
        self.broken_off.insert(key, Deadline::after(now, KEPT_MS));
    }

    /// Returns true if `key` has done so of late.
    pub fn breaks_off(&self, key: KeyName, now: u64) -> bool {
        let until = self.broken_off.get(&key);
        until.is_some_and(|until| !until.is_due(now))
    }

    /// Gives back what is kept no longer, and renews the rest.
    pub fn tick(&mut self, shared: &mut impl SharedData, now: u64) {
        self.forget_old(now);
        self.blocks.tick(shared, now);
    }

    fn forget(&mut self, connection: u64) {
        if let Some(kept) = self.kept.remove(&connection) {
            self.blocks.give_back(kept.key, 1);
        }
    }

    /// Forgets those whose time is over, if it is time to look for them. Returns true if it looked.
    fn forget_old(&mut self, now: u64) -> bool {
        if !self.search.is_due(now) {
            return false;
        }
        self.search = Deadline::after(now, SEARCH_MS);
        self.broken_off.retain(|_, until| !until.is_due(now));
        let Self { blocks, kept, .. } = self;
        kept.retain(|_, one| {
            let stays = !one.until.is_due(now);
            if !stays {
                blocks.give_back(one.key, 1);
            }
            stays
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::fake::FakeSharedData, id::Id};

    const NOW: u64 = 1_790_000_000_000;
    const BUDGET: Budget = Budget {
        all: 200,
        of_key: 60,
    };

    fn key(name: &str) -> KeyName {
        KeyName::of(&Id::try_from(name).unwrap())
    }

    /// An Envoy of two workers, which take connections in turn.
    struct Envoy {
        shared: FakeSharedData,
        vms: [Connections; 2],
        now: u64,
    }

    impl Envoy {
        fn new() -> Self {
            let mut shared = FakeSharedData::default();
            ledger::KEPT.prepare(&mut shared);
            let vms = [1, 2].map(|vm| Connections::new(vm, BUDGET));
            Self {
                shared,
                vms,
                now: NOW,
            }
        }

        fn keep(&mut self, connection: u64, of: &str) -> bool {
            let vm = &mut self.vms[connection as usize % 2];
            vm.keep(&mut self.shared, connection, key(of), self.now)
        }

        /// Answers a request of `of` on each of these connections, and counts those that are kept.
        fn kept(&mut self, connections: impl IntoIterator<Item = u64>, of: &str) -> usize {
            let connections = connections.into_iter();
            connections.filter(|one| self.keep(*one, of)).count()
        }

        /// Lets that many seconds pass, tick by tick.
        fn wait(&mut self, seconds: u64) {
            for _ in 0..seconds * 10 {
                self.now += 100;
                for vm in &mut self.vms {
                    vm.tick(&mut self.shared, self.now);
                }
            }
        }
    }

    #[test]
    fn a_key_keeps_its_share_and_no_more() {
        let mut envoy = Envoy::new();
        assert_eq!(envoy.kept(0..1_000, "a"), 60);
        // Those go on, however often they are used; the others are closed each time.
        for _ in 0..10 {
            envoy.wait(30);
            assert_eq!(envoy.kept(0..1_000, "a"), 60);
        }
    }

    #[test]
    fn however_many_keys_keep_all_they_may_another_one_finds_room() {
        let mut envoy = Envoy::new();
        let mut all = 0;
        for (n, most) in [60, 60, 40, 20, 10, 5].into_iter().enumerate() {
            let first = n as u64 * 1_000;
            let kept = envoy.kept(first..first + 500, &format!("key_{n}"));
            assert_eq!(kept, most, "key {n}");
            all += kept;
        }
        assert_eq!(all, 195);
        assert!(envoy.keep(9_000, "last"));
    }

    #[test]
    fn what_envoy_has_closed_counts_no_longer() {
        let mut envoy = Envoy::new();
        assert_eq!(envoy.kept(0..100, "a"), 60);
        envoy.wait(KEPT_MS / 1_000 - 1);
        assert_eq!(envoy.kept(100..200, "a"), 0);
        envoy.wait(1);
        assert_eq!(envoy.kept(100..200, "a"), 60);
        envoy.wait(90);
        assert!(envoy.vms.iter().all(|vm| vm.kept.is_empty()));
        assert_eq!(envoy.shared.read("latchkey/3/kept").unwrap().0, b"");
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nothing_for_longer() {
        let mut envoy = Envoy::new();
        assert_eq!(envoy.kept(0..100, "a"), 60);
        envoy.now -= 3_600_000;
        envoy.wait(2);
        assert_eq!(envoy.kept(100..200, "a"), 60);
    }

    #[test]
    fn a_shared_connection_counts_for_the_last_key() {
        let mut envoy = Envoy::new();
        for of in ["a", "b", "a", "b"] {
            assert_eq!(envoy.kept(0..40, of), 40, "{of}");
        }
        envoy.wait(2);
        assert_eq!(envoy.kept(100..200, "a"), 60);
        assert_eq!(envoy.kept(200..300, "b"), 20);
    }

    #[test]
    fn a_vm_that_crashed_keeps_nothing_after_its_lease() {
        let mut envoy = Envoy::new();
        assert_eq!(envoy.kept(0..40, "a"), 40);
        envoy.wait(2);
        envoy.vms[0] = Connections::new(3, BUDGET);
        assert_eq!(envoy.kept((100..200).step_by(2), "a"), 20);
        envoy.wait(26);
        assert_eq!(envoy.kept((200..300).step_by(2), "a"), 20);
    }
}
