//! The blocks of a ledger that one VM has taken for its client keys.

use super::{
    Budget, NoRoom,
    ledger::{KeyName, Ledger},
};
use crate::{deadline::Deadline, host::SharedData, known::Known};

/// The interval at which a VM renews what it has taken, in milliseconds: several times in a lease.
const RENEW_MS: u64 = 5_000;

/// The time for which unused blocks are kept for the requests to come while there is plenty, in
/// milliseconds.
pub(super) const SPARE_MS: u64 = 1_000;

/// The blocks of one VM.
#[derive(Debug)]
pub(super) struct Blocks {
    ledger: Ledger,
    vm: u64,
    budget: Budget,
    keys: Known<KeyName, OfKey>,
    renew: Deadline,
}

/// The part of one key.
#[derive(Debug, Default)]
struct OfKey {
    used: u64,
    blocks: u64,
    /// Until then blocks that are not used are kept.
    spare: Deadline,
}

// === impl Blocks ===

impl Blocks {
    /// Makes those of the VM of this number, which no other VM of this Envoy has.
    pub(super) fn new(ledger: Ledger, vm: u64, budget: Budget) -> Self {
        Self {
            ledger,
            vm,
            budget,
            keys: Known::default(),
            renew: Deadline::default(),
        }
    }

    pub(super) fn budget(&self) -> Budget {
        self.budget
    }

    /// Changes the bounds, for what is taken from now on.
    pub(super) fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Charges `key` so much `more`. Before this VM refuses, it gives back what it only kept for the
    /// requests to come.
    ///
    /// # Errors
    /// There is no room for it; nothing is charged.
    pub(super) fn charge(
        &mut self,
        shared: &mut impl SharedData,
        key: KeyName,
        more: u64,
        now: u64,
    ) -> Result<(), NoRoom> {
        match self.take(shared, key, more, now) {
            Err(_) if self.frees_spare(|_| true) => {
                self.tell(shared, now);
                self.take(shared, key, more, now)
            }
            taken => taken,
        }
    }

    /// Takes so much off what `key` was charged.
    pub(super) fn give_back(&mut self, key: KeyName, less: u64) {
        if let Some(of_key) = self.keys.get_mut(&key) {
            of_key.used = of_key.used.saturating_sub(less);
        }
    }

    /// Gives back what was not used for a while, and renews the rest.
    pub(super) fn tick(&mut self, shared: &mut impl SharedData, now: u64) {
        let is_due = !self.keys.is_empty() && self.renew.is_due(now);
        if self.frees_spare(|spare| spare.is_due(now)) || is_due {
            self.tell(shared, now);
        }
    }

    /// Frees the blocks of each key that are not used, where what is kept for it until then `goes`. Returns
    /// false where there were none.
    fn frees_spare(&mut self, goes: impl Fn(Deadline) -> bool) -> bool {
        let mut frees = false;
        for of_key in self.keys.values_mut() {
            let needed = of_key.used.div_ceil(self.ledger.block);
            if needed < of_key.blocks && goes(of_key.spare) {
                of_key.blocks = needed;
                frees = true;
            }
        }
        frees
    }

    /// Writes into the ledger what each key has.
    fn tell(&mut self, shared: &mut impl SharedData, now: u64) {
        self.keys.retain(|_, of_key| of_key.blocks > 0);
        let held = self.keys.iter().map(|(key, of_key)| (*key, of_key.blocks));
        let held: Vec<(KeyName, u64)> = held.collect();
        let is_told = self.ledger.tell(shared, self.vm, &held, now);
        self.renew = match is_told {
            true => Deadline::after(now, RENEW_MS),
            false => Deadline::default(),
        };
    }

    fn take(
        &mut self,
        shared: &mut impl SharedData,
        key: KeyName,
        more: u64,
        now: u64,
    ) -> Result<(), NoRoom> {
        let of_key = self.keys.entry(key).or_default();
        let used = of_key.used.saturating_add(more);
        let missing = used
            .div_ceil(self.ledger.block)
            .saturating_sub(of_key.blocks);
        if missing > 0 {
            let taken = self
                .ledger
                .take(shared, self.vm, key, missing, &self.budget, now)?;
            of_key.blocks = of_key.blocks.saturating_add(taken.blocks);
            of_key.spare = match taken.is_plenty {
                true => Deadline::after(now, SPARE_MS),
                false => Deadline::default(),
            };
        }
        of_key.used = used;
        Ok(())
    }
}
