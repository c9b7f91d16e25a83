//! The answers that attempts hold back: nothing may come any more that would tell what to do about
//! one, so the gate's root looks at them at each tick.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use proxy_wasm::hostcalls;

use super::{attempt::Attempt, vm};

thread_local! {
    static HELD: RefCell<Vec<Watched>> = const { RefCell::new(Vec::new()) };
}

/// An attempt that holds an answer; one a stream at most.
#[derive(Debug)]
struct Watched {
    context: u32,
    attempt: Weak<RefCell<Attempt>>,
}

/// Has the answer looked at that the attempt of this context holds, until it does no longer.
pub(super) fn watch(context: u32, attempt: &Rc<RefCell<Attempt>>) {
    let attempt = Rc::downgrade(attempt);
    HELD.with_borrow_mut(|held| held.push(Watched { context, attempt }));
}

/// Does what is due about the answers that are held; called by the root context `root`.
///
/// What resumes an answer is put off by Envoy until this call is over, so no other callback runs
/// inside it.
pub(super) fn look_at_held(root: u32) {
    let mut held = HELD.take();
    if held.is_empty() {
        return;
    }
    let now = vm::with(|vm| vm.now()).unwrap_or_default();
    held.retain(|one| one.is_still_held(now));
    HELD.set(held);
    let _ = hostcalls::set_effective_context(root);
}

// === impl Watched ===

impl Watched {
    /// Does what is due about it; whether it is held on.
    fn is_still_held(&self, now: u64) -> bool {
        // A stream that is no more has no attempt any more.
        let Some(attempt) = self.attempt.upgrade() else {
            return false;
        };
        let Ok(mut attempt) = attempt.try_borrow_mut() else {
            return true;
        };
        match attempt.held() {
            Some(held) if held.is_due(now) => {
                if hostcalls::set_effective_context(self.context).is_ok() {
                    attempt.judge_now();
                }
                false
            }
            held => held.is_some(),
        }
    }
}
