//! The laws of limits on several VMs over one shared data.

mod several_envoys;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use proptest::prelude::*;

use super::{limiter::Denied, table, *};
use crate::{
    host::{SharedData, Version, fake::FakeSharedData},
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
        counters.touched_at = 1;
        counters.settled_at = 2;
        Ok(())
    });
    assert_eq!(known, table::Changed::Done);
}

impl Limiter {
    /// The try of a context of its VM.
    fn try_id(&self, context: u32) -> TryId {
        TryId {
            vm: self.vm,
            context,
        }
    }

    /// Admits the request of a context in its first try.
    fn ask(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        limited: &Limited,
        now: u64,
    ) -> Result<(), Denied> {
        self.admit(shared, context, limited, &mut PlaceAtKey::None, now)
    }

    /// Admits it in a later one.
    fn ask_again(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        limited: &Limited,
        now: u64,
    ) -> Result<(), Denied> {
        self.admit(shared, context, limited, &mut PlaceAtKey::Kept, now)
    }
}

fn key_counters(shared: &FakeSharedData, now: u64) -> Counters {
    table::look(shared, &Subject::key(&id("key_1")), now)
}

/// Admits a request that is looked at first where it has a body to come.
fn lets_in(
    limiter: &mut Limiter,
    shared: &mut impl SharedData,
    context: u32,
    limited: &Limited,
    body: bool,
) -> bool {
    let key = limited.key.as_ref().filter(|_| body);
    let is_let_in = key.is_none_or(|(key, of)| limiter.reached(shared, key, of, START).is_none());
    is_let_in && limiter.ask(shared, context, limited, START).is_ok()
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
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        let read = self.shared.read(key);
        let (limiter, steps, admitted) = &mut *self.other.borrow_mut();
        if steps.pop() == Some(true) {
            let context = u32::try_from(steps.len()).unwrap() + 1_000;
            let mut shared = self.shared.clone();
            let passed = lets_in(limiter, &mut shared, context, &self.limited, self.body);
            *admitted += u64::from(passed);
        }
        read
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        self.shared.write(key, value);
    }

    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
        self.shared.swap(key, value, version)
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
            let passed = lets_in(&mut limiter, &mut interleaved, context, &limited, body);
            admitted += u64::from(passed);
        }
        let total = admitted + interleaved.other.borrow().2;
        prop_assert_eq!(total, limit);
    }

    /// Whatever happens to requests and VMs, what is held of a subject's streams is what the
    /// living VMs' requests hold once a crash is a lease ago, and nothing when all have ended; and
    /// what is counted is what was admitted.
    #[test]
    fn nothing_leaks_and_each_request_counts_once(
        steps in prop::collection::vec((0_u8..5, 0_usize..3, 0_u32..6, 0_u64..9_000), 1..80),
    ) {
        let limited = of_key(r#"{"concurrent_streams":7}"#);
        let mut shared = prepared();
        // Each VM's open requests.
        let mut vms: Vec<(Limiter, BTreeSet<u32>)> =
            (1..=3).map(|vm| (Limiter::new(vm), BTreeSet::new())).collect();
        let (mut now, mut crashed_at, mut next_vm) = (START, 0, 4);
        let (mut counted, mut next_context) = (0, 100);
        for (step, vm, context, wait) in steps {
            let (limiter, open) = &mut vms[vm];
            match step {
                0 if !open.contains(&context) => {
                    let admitted = limiter.ask(&mut shared, context, &limited, now).is_ok();
                    open.extend(admitted.then_some(context));
                    counted += u64::from(admitted);
                }
                1 => {
                    limiter.release(&mut shared, context, now);
                    open.remove(&context);
                }
                // Its answer ends before its context goes.
                2 if open.remove(&context) => {
                    let try_id = limiter.try_id(context);
                    limiter.charge(&mut shared, try_id, &limited, 1, now);
                    limiter.release(&mut shared, context, now);
                }
                // It runs again; Envoy says that its last try is over before or after.
                3 if open.remove(&context) => {
                    let last = limiter.try_id(context);
                    next_context += 1;
                    if wait % 2 == 0 {
                        limiter.release(&mut shared, context, now);
                    }
                    limiter.run_again(&mut shared, last, now);
                    let again = limiter.ask_again(&mut shared, next_context, &limited, now);
                    prop_assert_eq!(again, Ok(()));
                    limiter.release(&mut shared, context, now);
                    open.insert(next_context);
                }
                4 => {
                    *limiter = Limiter::new(next_vm);
                    next_vm += 1;
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
            let all = vms.iter().map(|(_, open)| open.len() as u64).sum::<u64>();
            let counters = key_counters(&shared, now);
            let held = counters.own_streams();
            prop_assert!(held >= all && held <= 7, "{held} held, {all} open");
            if now - crashed_at >= LEASE_MS {
                prop_assert_eq!(held, all);
            }
            prop_assert_eq!(counters.day.own.requests, counted);
        }
        for (limiter, open) in &mut vms {
            for context in std::mem::take(open) {
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
    assert_eq!(limiter.ask(&mut shared, 1, &nobody, START), Ok(()));
    limiter.charge(&mut shared, TryId::default(), &nobody, 10, START);
    limiter.release(&mut shared, 1, START);
    limiter.tick(&mut shared, START);
}

#[test]
fn a_request_that_runs_again_counts_at_its_key_once_and_is_not_asked_there_again() {
    let key = of_key(r#"{"requests_per_minute":2,"concurrent_streams":1}"#).key;
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
    let first = limiter.ask(&mut shared, 1, &account("acc_1"), START);
    assert_eq!((first, streams(&shared, "acc_1")), (Ok(()), 1));
    limiter.release(&mut shared, 1, START);
    // Another takes its place meanwhile.
    let mut other = Limiter::new(2);
    let taken = other.ask(&mut shared, 9, &key_only(&key), START);
    assert_eq!(taken, Ok(()));
    let last = limiter.try_id(1);
    limiter.run_again(&mut shared, last, START);
    let again = limiter.ask_again(&mut shared, 2, &account("acc_2"), START);
    assert_eq!(again, Ok(()));
    let found = (streams(&shared, "acc_1"), streams(&shared, "acc_2"));
    assert_eq!(found, (0, 1));
    let counters = key_counters(&shared, START);
    let found = (counters.minute.own.requests, counters.own_streams());
    assert_eq!(found, (2, 2), "one stream more than allowed");
    let refused = limiter.ask(&mut shared, 3, &key_only(&key), START);
    assert!(matches!(refused, Err(Denied::Key(_))));
    limiter.release(&mut shared, 2, START);
    other.release(&mut shared, 9, START);
    assert_eq!(streams(&shared, "acc_2"), 0);
    assert_eq!(key_counters(&shared, START).own_streams(), 0);
}

/// After a crash of a VM, contexts of the one that comes in its place have its numbers again.
#[test]
fn a_try_of_another_vm_frees_nothing() {
    let limited = of_key(r#"{"concurrent_streams":1}"#);
    let mut shared = prepared();
    let mut limiter = Limiter::new(7);
    assert_eq!(limiter.ask(&mut shared, 1, &limited, START), Ok(()));
    let own = limiter.try_id(1);
    let crashed = TryId { vm: 6, ..own };
    limiter.run_again(&mut shared, crashed, START);
    limiter.charge(&mut shared, crashed, &limited, 9, START);
    assert_eq!(key_counters(&shared, START).own_streams(), 1);
    limiter.run_again(&mut shared, own, START);
    assert_eq!(key_counters(&shared, START).own_streams(), 0);
}

/// The use of a request, and what it held, is said at its end, at once.
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
    assert!(lets_in(&mut limiter, &mut shared, 1, &limited, true));
    // A look at the key and at the account, and then a change of each.
    assert_eq!((shared.reads.take(), shared.swaps), (4, 2));
    let own = limiter.try_id(1);
    limiter.charge(&mut shared, own, &limited, 42, START);
    assert_eq!((shared.reads.take(), shared.swaps), (2, 4));
    limiter.release(&mut shared, 1, START);
    assert_eq!((shared.reads.take(), shared.swaps), (0, 4));
    for (subject, _) in [&limited.key, &limited.account].into_iter().flatten() {
        let counters = table::look(&shared, subject, START);
        assert_eq!(counters.minute.own.requests, 1, "{subject:?}");
        assert_eq!(counters.day.own.tokens, 42, "{subject:?}");
        assert_eq!(counters.own_streams(), 0, "{subject:?}");
    }
    // Its context has gone, or is another VM's: what it used counts all the same.
    limiter.charge(&mut shared, own, &limited, 8, START);
    assert!(lets_in(&mut limiter, &mut shared, 1, &limited, false));
    limiter.charge(&mut shared, TryId { vm: 2, ..own }, &limited, 50, START);
    let counters = key_counters(&shared.shared, START);
    assert_eq!((counters.day.own.tokens, counters.own_streams()), (100, 1));
}

/// Whoever holds bodies back gains nothing by it: a request counts when it is decided about.
#[test]
fn many_bodies_that_come_at_once_are_within_the_limit() {
    let limited = of_key(r#"{"requests_per_minute":2}"#);
    let (key, of) = limited.key.as_ref().unwrap();
    let mut shared = prepared();
    let mut limiter = Limiter::new(1);
    for _ in 0..5 {
        assert_eq!(limiter.reached(&mut shared, key, of, START), None);
    }
    let later = START + MINUTE_MS;
    let admitted = (0..5).filter(|context| {
        let asked = limiter.ask(&mut shared, *context, &limited, later);
        asked.is_ok()
    });
    assert_eq!(admitted.count(), 2);
    let reached = limiter.reached(&mut shared, key, of, later);
    let reached = reached.map(|reached| (reached.limit, reached.until));
    let expected = (Limit::RequestsPerMinute, Some(later + MINUTE_MS));
    assert_eq!(reached, Some(expected));
}

/// Shared data, and how often it was read and swapped.
struct Counted {
    shared: FakeSharedData,
    reads: Cell<u32>,
    swaps: u32,
}

impl SharedData for Counted {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.reads.set(self.reads.get() + 1);
        self.shared.read(key)
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        self.shared.write(key, value);
    }

    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
        self.swaps += 1;
        self.shared.swap(key, value, version)
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
    let asked = limiter.ask(&mut shared, 1, &of("acc_1"), START);
    assert_eq!(asked, Ok(()));
    let (first, second) = (limiter.try_id(1), limiter.try_id(2));
    limiter.charge(&mut shared, first, &of("acc_1"), 5, START);
    limiter.release(&mut shared, 1, START);
    limiter.run_again(&mut shared, first, START);
    let asked = limiter.ask_again(&mut shared, 2, &of("acc_2"), START);
    assert_eq!(asked, Ok(()));
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
    assert_eq!(limiter.ask(&mut shared, 1, &limited, START), Ok(()));
    for context in 2..9 {
        let refused = limiter.ask(&mut shared, context, &limited, START);
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
    assert_eq!(limiter.ask(&mut shared, 1, &limited, START + 5), Ok(()));
    let refused = limiter.ask(&mut shared, 2, &limited, START + 5);
    assert_eq!(refused, Err(Denied::Account));
    let until = |now| limiter.full().until(&id("acc_1"), now);
    assert_eq!(until(START + 5), Some(START + MINUTE_MS));
    assert_eq!(until(START + MINUTE_MS), None);
}
