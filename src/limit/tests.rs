//! The laws of limits on several VMs over one shared data.

mod several_envoys;

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::{
    limiter::{Denied, LOOK_AGAIN_MS},
    table, *,
};
use crate::{
    host::{SharedData, Token, fake::FakeSharedData},
    request::carried::TryId,
};

/// The start of a minute and of a day.
const START: u64 = 1_790_000_000_000 / DAY_MS * DAY_MS;

fn limits(json: &str) -> Limits {
    serde_json::from_str(json).unwrap()
}

fn id(text: &str) -> Id {
    Id::try_from(text).unwrap()
}

fn of_key(json: &str) -> Limited {
    Limited {
        key: Some((Subject::key(&id("key_1")), limits(json))),
        account: None,
    }
}

fn of_account(json: &str) -> Limited {
    Limited {
        key: None,
        account: Some((Subject::account(&id("acc_1")), limits(json))),
    }
}

/// Shared data in which it is known of the key and the accounts of these tests what others use.
fn prepared() -> FakeSharedData {
    let mut shared = FakeSharedData::default();
    table::prepare(&mut shared, &[1]);
    for subject in [
        Subject::key(&id("key_1")),
        Subject::account(&id("acc_1")),
        Subject::account(&id("acc_2")),
    ] {
        know(&mut shared, &subject);
    }
    shared
}

/// The refresher has said once what others use of it.
fn know(shared: &mut FakeSharedData, subject: &Subject) {
    let known: table::Changed<()> = table::update(shared, subject, START, |counters| {
        counters.touch(1);
        counters.settled_at = 2;
        Ok(())
    });
    assert_eq!(known, table::Changed::Done);
}

impl Limiter {
    /// The pass of a context of its VM.
    fn pass(&self, context: u32) -> TryId {
        TryId {
            vm: self.vm,
            context,
        }
    }
}

fn key_counters(shared: &FakeSharedData, now: u64) -> Counters {
    table::look(shared, &Subject::key(&id("key_1")), now)
}

/// A request is let in, where it has a body to come, and admitted.
fn pass(
    limiter: &mut Limiter,
    shared: &mut impl SharedData,
    context: u32,
    limited: &Limited,
    body: bool,
) -> bool {
    let key = limited.key.as_ref().filter(|_| body);
    let entered =
        key.is_none_or(|(key, of)| limiter.enter(shared, context, key, of, START).is_ok());
    entered
        && limiter
            .admit(shared, context, limited, false, START)
            .is_ok()
}

/// Shared data in which another VM admits a request between a read and the swap that follows it,
/// as often as there are steps left.
struct Interleaved {
    shared: FakeSharedData,
    other: RefCell<(Limiter, Vec<bool>, u64)>,
    limited: Limited,
    body: bool,
}

impl SharedData for Interleaved {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        let read = self.shared.read(key);
        let (limiter, steps, admitted) = &mut *self.other.borrow_mut();
        if steps.pop() == Some(true) {
            let context = u32::try_from(steps.len()).unwrap() + 1_000;
            let mut shared = self.shared.clone();
            let passed = pass(limiter, &mut shared, context, &self.limited, self.body);
            *admitted += u64::from(passed);
        }
        read
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        self.shared.write(key, value);
    }

    fn swap(&mut self, key: &str, value: &[u8], token: Token) -> bool {
        self.shared.swap(key, value, token)
    }
}

proptest! {
    /// However two VMs' steps fall between each other's, they let through what the limit allows,
    /// and not one request more.
    #[test]
    fn no_interleaving_admits_more_than_the_limit(
        limit in 1_u64..12,
        steps in prop::collection::vec(any::<bool>(), 0..40),
        streams: bool,
        by_account: bool,
        body: bool,
    ) {
        let name = if streams { "concurrent_streams" } else { "requests_per_minute" };
        let json = format!(r#"{{"{name}":{limit}}}"#);
        let limited = if by_account { of_account(&json) } else { of_key(&json) };
        let mut interleaved = Interleaved {
            shared: prepared(),
            other: RefCell::new((Limiter::new(2), steps, 0)),
            limited: limited.clone(),
            body,
        };
        let mut limiter = Limiter::new(1);
        let mut admitted = 0;
        for context in 0..20 {
            let passed = pass(&mut limiter, &mut interleaved, context, &limited, body);
            admitted += u64::from(passed);
        }
        let total = admitted + interleaved.other.borrow().2;
        prop_assert_eq!(total, limit);
    }

    /// Whatever happens to requests and VMs, what is held of a subject's streams is what the
    /// living VMs' requests hold once a crash is a lease ago, and nothing when all have ended; and
    /// what is counted is what was admitted, what may be yet, and what a crash left.
    #[test]
    fn nothing_leaks_and_nobody_is_counted_for_nothing(
        steps in prop::collection::vec((0_u8..7, 0_usize..3, 0_u32..6, 0_u64..9_000), 1..80),
    ) {
        let limited = of_key(r#"{"concurrent_streams":7}"#);
        let mut shared = prepared();
        // Each VM's open requests, and whether they were admitted.
        let mut vms: Vec<(Limiter, BTreeMap<u32, bool>)> =
            (1..=3).map(|vm| (Limiter::new(vm), BTreeMap::new())).collect();
        let (mut now, mut crashed_at, mut next_vm) = (START, 0, 4);
        let (mut counted, mut next_context) = (0, 100);
        for (step, vm, context, wait) in steps {
            let (limiter, open) = &mut vms[vm];
            let is_open = open.contains_key(&context);
            match step {
                0 if !is_open => {
                    let (key, of) = limited.key.as_ref().unwrap();
                    let entry = limiter.enter(&mut shared, context, key, of, now);
                    open.extend(entry.is_ok().then_some((context, false)));
                }
                // Its body has come.
                6 if is_open => {
                    let admission = limiter.admit(&mut shared, context, &limited, false, now);
                    prop_assert_eq!(admission, Ok(()));
                    counted += u64::from(open.insert(context, true) == Some(false));
                }
                1 if !is_open => {
                    let admission = limiter.admit(&mut shared, context, &limited, false, now);
                    open.extend(admission.is_ok().then_some((context, true)));
                    counted += u64::from(admission.is_ok());
                }
                2 => {
                    limiter.release(&mut shared, context, now);
                    open.remove(&context);
                }
                // It runs again, in its next context or not at all.
                3 if open.get(&context) == Some(&true) => {
                    let pass = limiter.pass(context);
                    limiter.moves(pass);
                    limiter.release(&mut shared, context, now);
                    open.remove(&context);
                    if wait % 2 == 0 {
                        next_context += 1;
                        limiter.take_over(&mut shared, pass, next_context, now);
                        open.insert(next_context, true);
                    } else {
                        limiter.tick(&mut shared, now);
                        limiter.tick(&mut shared, now);
                    }
                }
                4 => {
                    *limiter = Limiter::new(next_vm);
                    next_vm += 1;
                    counted += open.values().filter(|admitted| !**admitted).count() as u64;
                    open.clear();
                    crashed_at = now;
                }
                _ => {}
            }
            // Every VM ticks far more often than a lease lapses.
            for _ in 0..2 {
                now += wait / 2;
                for (limiter, _) in &mut vms {
                    limiter.tick(&mut shared, now);
                }
            }
            let open = || vms.iter().flat_map(|(_, open)| open.values());
            let (all, undecided) = (open().count() as u64, open().filter(|admitted| !**admitted).count());
            let counters = key_counters(&shared, now);
            let held = counters.own_streams();
            prop_assert!(held >= all && held <= 7, "{held} held, {all} open");
            if now - crashed_at >= LEASE_MS {
                prop_assert_eq!(held, all);
            }
            prop_assert_eq!(counters.day.own.requests, counted + undecided as u64);
        }
        for (limiter, open) in &mut vms {
            for context in std::mem::take(open).into_keys() {
                limiter.release(&mut shared, context, now);
            }
        }
        let counters = key_counters(&shared, now + LEASE_MS);
        prop_assert_eq!((counters.own_streams(), counters.day.own.requests), (0, counted));
    }
}

#[test]
fn nobody_with_limits_costs_no_hostcall() {
    // It was never prepared: every read and write would fail.
    let mut shared = FakeSharedData::default();
    let mut limiter = Limiter::new(1);
    let nobody = Limited::default();
    assert!(nobody.is_nobody());
    assert_eq!(limiter.admit(&mut shared, 1, &nobody, false, START), Ok(()));
    limiter.charge(&mut shared, TryId::default(), &nobody, 10, START);
    limiter.release(&mut shared, 1, START);
    limiter.tick(&mut shared, START);
    assert!(!limiter.knows(1));
}

#[test]
fn a_second_pass_counts_its_key_once_and_moves_its_stream() {
    let key = of_key(r#"{"requests_per_minute":5,"concurrent_streams":1}"#).key;
    let account = |name: &str| {
        let subject = Subject::account(&id(name));
        Limited {
            key: key.clone(),
            account: Some((subject, limits(r#"{"concurrent_streams":1}"#))),
        }
    };
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    let streams = |shared: &FakeSharedData, name: &str| {
        table::look(shared, &Subject::account(&id(name)), START).own_streams()
    };
    assert_eq!(
        limiter.admit(&mut shared, 1, &account("acc_1"), false, START),
        Ok(())
    );
    assert_eq!(streams(&shared, "acc_1"), 1);
    let pass = limiter.pass(1);
    limiter.moves(pass);
    limiter.release(&mut shared, 1, START);
    let refused = Limiter::new(2).admit(&mut shared, 9, &key_only(&key), false, START);
    assert!(
        matches!(refused, Err(Denied::Key(_))),
        "the stream is kept for the next pass"
    );
    limiter.take_over(&mut shared, pass, 2, START);
    assert_eq!(
        limiter.admit(&mut shared, 2, &account("acc_2"), true, START),
        Ok(())
    );
    assert_eq!(
        (streams(&shared, "acc_1"), streams(&shared, "acc_2")),
        (0, 1)
    );
    let counters = key_counters(&shared, START);
    assert_eq!(
        (counters.minute.own.requests, counters.own_streams()),
        (1, 1)
    );
    limiter.release(&mut shared, 2, START);
    assert_eq!(streams(&shared, "acc_2"), 0);
    assert_eq!(key_counters(&shared, START).own_streams(), 0);
}

/// After a crash of a VM, contexts of the one that comes in its place have its numbers again.
#[test]
fn a_pass_of_another_vm_or_of_a_request_that_stays_is_not_taken_over() {
    let limited = of_key(r#"{"concurrent_streams":1}"#);
    let mut shared = prepared();
    let mut limiter = Limiter::new(7);
    assert_eq!(
        limiter.admit(&mut shared, 1, &limited, false, START),
        Ok(())
    );
    let own = limiter.pass(1);
    let crashed = TryId { vm: 6, ..own };
    limiter.moves(crashed);
    for pass in [own, crashed] {
        limiter.take_over(&mut shared, pass, 2, START);
        assert!(limiter.knows(1) && !limiter.knows(2));
    }
    limiter.moves(own);
    limiter.take_over(&mut shared, crashed, 2, START);
    assert!(limiter.knows(1) && !limiter.knows(2));
    limiter.take_over(&mut shared, own, 2, START);
    assert!(limiter.knows(2) && !limiter.knows(1));
    limiter.release(&mut shared, 2, START);
    assert_eq!(key_counters(&shared, START).own_streams(), 0);
}

/// What a request used and what it held is said at its end, at once.
#[test]
fn a_requests_end_is_one_change_a_subject() {
    let all = r#"{"requests_per_minute":9,"tokens_per_minute":999,"tokens_per_day":999,"concurrent_streams":9}"#;
    let limited = Limited {
        key: of_key(all).key,
        account: of_account(all).account,
    };
    let mut shared = Counted {
        shared: prepared(),
        reads: Cell::new(0),
        swaps: 0,
    };
    let mut limiter = Limiter::new(1);
    assert!(pass(&mut limiter, &mut shared, 1, &limited, true));
    assert_eq!((shared.reads.take(), shared.swaps), (2, 2));
    let own = limiter.pass(1);
    limiter.charge(&mut shared, own, &limited, 30, START);
    limiter.charge(&mut shared, own, &limited, 12, START);
    assert_eq!((shared.reads.take(), shared.swaps), (0, 2));
    limiter.release(&mut shared, 1, START);
    assert_eq!((shared.reads.take(), shared.swaps), (2, 4));
    for (subject, _) in [&limited.key, &limited.account].into_iter().flatten() {
        let counters = table::look(&shared, subject, START);
        assert_eq!(counters.minute.own.requests, 1, "{subject:?}");
        assert_eq!(counters.day.own.tokens, 42, "{subject:?}");
        assert_eq!(counters.own_streams(), 0, "{subject:?}");
    }
    // Its context has gone, or is another VM's: what it used counts all the same.
    limiter.charge(&mut shared, own, &limited, 8, START);
    assert!(pass(&mut limiter, &mut shared, 1, &limited, false));
    limiter.charge(&mut shared, TryId { vm: 2, ..own }, &limited, 50, START);
    let tokens = key_counters(&shared.shared, START).day.own.tokens;
    assert_eq!(tokens, 100);
}

/// Whoever lets requests in and holds their bodies back gains nothing by it.
#[test]
fn a_request_that_was_let_in_is_looked_at_again_when_it_is_late() {
    let limited = of_key(r#"{"requests_per_minute":2,"tokens_per_day":99,"concurrent_streams":4}"#);
    let (key, of) = limited.key.as_ref().unwrap();
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    let later = START + MINUTE_MS;
    for (context, now) in [(1, START), (2, START), (3, later), (4, later)] {
        assert_eq!(limiter.enter(&mut shared, context, key, of, now), Ok(()));
    }
    let refused = limiter.admit(&mut shared, 1, &limited, false, later);
    assert!(matches!(refused, Err(Denied::Key(of)) if of.limit == Limit::RequestsPerMinute));
    limiter.release(&mut shared, 1, later);
    assert_eq!(key_counters(&shared, later).minute.own.requests, 2);
    // Another was refused, and its place is free for one of before.
    limiter.release(&mut shared, 4, later);
    assert_eq!(
        limiter.admit(&mut shared, 2, &limited, false, later),
        Ok(())
    );
    let counters = key_counters(&shared, later);
    assert_eq!(
        (counters.minute.own.requests, counters.own_streams()),
        (2, 2)
    );

    limiter.charge(&mut shared, TryId::default(), &limited, 99, later);
    let soon = later + LOOK_AGAIN_MS;
    let refused = limiter.admit(&mut shared, 3, &limited, false, soon);
    assert!(matches!(refused, Err(Denied::Key(of)) if of.limit == Limit::TokensPerDay));
    assert_eq!(
        limiter.admit(&mut shared, 3, &limited, false, soon - 1),
        Ok(())
    );
}

/// An answer may wait for a slow caller, and its request's end with it.
#[test]
fn tokens_are_counted_at_the_next_tick_at_the_latest_and_once() {
    let limited = of_key(r#"{"tokens_per_day":99}"#);
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    limiter
        .admit(&mut shared, 1, &limited, false, START)
        .unwrap();
    limiter.charge(&mut shared, limiter.pass(1), &limited, 99, START);
    limiter.tick(&mut shared, START + 100);
    assert_eq!(key_counters(&shared, START).day.own.tokens, 99);
    let refused = limiter.admit(&mut shared, 2, &limited, false, START + 200);
    assert!(matches!(refused, Err(Denied::Key(_))));
    limiter.tick(&mut shared, START + 300);
    limiter.release(&mut shared, 1, START + 400);
    assert_eq!(key_counters(&shared, START).day.own.tokens, 99);
}

#[test]
fn a_clock_set_back_into_the_last_minute_takes_back_what_it_counted() {
    let limited = of_key(r#"{"requests_per_minute":9}"#);
    let (key, of) = limited.key.as_ref().unwrap();
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    limiter
        .admit(&mut shared, 1, &limited, false, START)
        .unwrap();
    let before = START - 5_000;
    limiter.enter(&mut shared, 2, key, of, before).unwrap();
    assert_eq!(key_counters(&shared, START).minute.own.requests, 2);
    limiter.release(&mut shared, 2, before);
    assert_eq!(key_counters(&shared, START).minute.own.requests, 1);
}

/// Shared data, and how often it was read and swapped.
struct Counted {
    shared: FakeSharedData,
    reads: Cell<u32>,
    swaps: u32,
}

impl SharedData for Counted {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        self.reads.set(self.reads.get() + 1);
        self.shared.read(key)
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        self.shared.write(key, value);
    }

    fn swap(&mut self, key: &str, value: &[u8], token: Token) -> bool {
        self.swaps += 1;
        self.shared.swap(key, value, token)
    }
}

#[test]
fn what_an_attempt_used_stays_with_its_account() {
    let limits = limits(r#"{"tokens_per_day":99}"#);
    let key = Some((Subject::key(&id("key_1")), limits));
    let of = |account: &str| Limited {
        key: key.clone(),
        account: Some((Subject::account(&id(account)), limits)),
    };
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    limiter
        .admit(&mut shared, 1, &of("acc_1"), false, START)
        .unwrap();
    let (first, second) = (limiter.pass(1), limiter.pass(2));
    limiter.charge(&mut shared, first, &of("acc_1"), 5, START);
    limiter.moves(first);
    limiter.release(&mut shared, 1, START);
    limiter.take_over(&mut shared, first, 2, START);
    limiter
        .admit(&mut shared, 2, &of("acc_2"), true, START)
        .unwrap();
    limiter.charge(&mut shared, second, &of("acc_2"), 7, START);
    limiter.release(&mut shared, 2, START);
    let used = |subject| table::look(&shared, &subject, START).day.own;
    for (subject, requests, tokens) in [
        (Subject::key(&id("key_1")), 1, 12),
        (Subject::account(&id("acc_1")), 1, 5),
        (Subject::account(&id("acc_2")), 1, 7),
    ] {
        assert_eq!(used(subject), Used { requests, tokens });
    }
}

fn key_only(key: &Option<(Subject, Limits)>) -> Limited {
    Limited {
        key: key.clone(),
        account: None,
    }
}

#[test]
fn a_key_over_its_limit_counts_at_no_account() {
    let limited = Limited {
        key: of_key(r#"{"requests_per_minute":1}"#).key,
        account: of_account(r#"{"requests_per_minute":9}"#).account,
    };
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    assert_eq!(
        limiter.admit(&mut shared, 1, &limited, false, START),
        Ok(())
    );
    for context in 2..9 {
        let refused = limiter.admit(&mut shared, context, &limited, false, START);
        assert!(matches!(refused, Err(Denied::Key(_))));
    }
    let account = table::look(&shared, &Subject::account(&id("acc_1")), START);
    assert_eq!(account.minute.own.requests, 1);
}

#[test]
fn a_full_account_is_passed_over_until_its_minute_ends() {
    let limited = of_account(r#"{"requests_per_minute":1}"#);
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    assert_eq!(
        limiter.admit(&mut shared, 1, &limited, false, START + 5),
        Ok(())
    );
    let refused = limiter.admit(&mut shared, 2, &limited, false, START + 5);
    assert_eq!(refused, Err(Denied::Account));
    let until = |now| limiter.full().until(&id("acc_1"), now);
    assert_eq!(until(START + 5), Some(START + MINUTE_MS));
    assert_eq!(until(START + MINUTE_MS), None);
}
