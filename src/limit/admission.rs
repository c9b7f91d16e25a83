//! Puts the gate's decision and the limits together: who is picked is counted, and who cannot be
//! counted is not picked.

use super::{
    FullAccounts, Limiter,
    limiter::{Denied, limited},
};
use crate::{
    attempt::passage::Passage,
    dialect::refusal::{AtLimit, Refusal},
    gate::Decision,
    host::SharedData,
    id::Id,
    snapshot::View,
};

/// The most accounts that one request finds full, one after the other. Each is known to be so for
/// the requests that follow.
const MAX_FULL: usize = 1_000;

/// Which request is decided about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its context at the gate.
    pub context: u32,
    /// What its last pass was, where it runs again after an attempt that failed.
    pub last_pass: Option<&'a Passage>,
    /// The snapshot.
    pub view: Option<&'a View>,
    /// Unix milliseconds, a tick late at most.
    pub now: u64,
}

impl Limiter {
    /// Decides about a request. `decide` is the gate's, told which accounts are full and the time;
    /// `clock` is asked only where limits are in play, whose ends must be exact.
    ///
    /// # Errors
    /// The refusal of a key that is at its limit.
    pub fn decide(
        &mut self,
        shared: &mut impl SharedData,
        asked: &Asked<'_>,
        clock: impl Fn() -> u64,
        mut decide: impl FnMut(&FullAccounts, u64) -> Decision,
    ) -> Result<Decision, Refusal> {
        if let Some(view) = asked.view {
            self.follow(view);
        }
        let slot = asked.last_pass.and_then(|passage| passage.slot);
        self.take_over(shared, slot, asked.context, asked.now);
        let mut now = if self.full.is_empty() {
            asked.now
        } else {
            clock()
        };
        let mut found_full: Vec<Id> = Vec::new();
        loop {
            let mut forward = match decide(&self.full, now) {
                Decision::Forward(forward) => forward,
                // What was full a moment ago may be free: nobody is refused by an old look.
                _ if self.look_again(&found_full) => continue,
                other => return Ok(other),
            };
            let limited = asked
                .view
                .map(|view| limited(view, &forward.passage.key, Some(&forward.account)));
            if let Some(limited) = limited.filter(|limited| !limited.is_nobody()) {
                now = clock();
                match self.admit(
                    shared,
                    asked.context,
                    &limited,
                    asked.last_pass.is_some(),
                    now,
                ) {
                    Ok(()) => {}
                    Err(Denied::Account) if found_full.len() < MAX_FULL => {
                        found_full.push(forward.account.id.clone());
                        continue;
                    }
                    Err(Denied::Key(reached)) => {
                        let key = asked
                            .view
                            .and_then(|view| view.limited_key(&forward.passage.key));
                        let name = key.and_then(|key| key.name.clone());
                        return Err(Refusal::Limit(AtLimit {
                            key: name,
                            reached,
                            now,
                        }));
                    }
                    Err(Denied::Account | Denied::Busy) => return Err(Refusal::NotReady),
                }
            }
            forward.passage.slot = self.slot_of(asked.context);
            return Ok(Decision::Forward(forward));
        }
    }
}
