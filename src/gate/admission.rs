//! Puts the gate's decision and the limits together: who is picked is counted, and who cannot be
//! counted is not picked.

use super::{
    Decision,
    refusal::{AtLimit, Refusal},
};
use crate::{
    host::SharedData,
    id::Id,
    limit::{Denied, FullAccounts, Limiter, PlaceAtKey, Subject, limited},
    request::carried::Carried,
    snapshot::{ClientKey, View},
};

/// The most accounts that one request finds full, one after the other. Each is known to be so for
/// the requests that follow.
const MAX_FULL: usize = 1_000;

/// A request to decide about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its context at the gate.
    pub context: u32,
    /// Its last try, where it runs again after an attempt that failed.
    pub last_try: Option<&'a Carried>,
    /// The snapshot.
    pub view: Option<&'a View>,
    /// Unix milliseconds.
    pub now: u64,
    /// The request looks itself at accounts that had as many under way as they may a moment ago.
    pub looks_again: bool,
}

impl Limiter {
    /// Refuses a request whose body is yet to come where its key is at a limit, so that no body is
    /// kept for it. One that is let in holds its key's stream from here on. It counts as a request
    /// when it is decided about.
    ///
    /// # Errors
    /// The refusal of a key that is at its limit.
    pub fn let_in(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        key: &ClientKey,
        now: u64,
    ) -> Result<(), Refusal> {
        if key.limits.is_none() {
            return Ok(());
        }
        let subject = Subject::key(&key.id);
        self.admit_body(shared, context, (&subject, &key.limits), now)
            .map_err(|denied| refusal(denied, Some(key), now))
    }

    /// Decides about a request. `decide` is the gate's, told which accounts are full.
    ///
    /// # Errors
    /// The refusal of a key that is at its limit.
    pub fn decide(
        &mut self,
        shared: &mut impl SharedData,
        asked: &Asked<'_>,
        mut decide: impl FnMut(&FullAccounts) -> Decision,
    ) -> Result<Decision, Refusal> {
        if let Some(view) = asked.view {
            self.follow(view);
        }
        let mut place = PlaceAtKey::None;
        if let Some(last) = asked.last_try {
            self.run_again(shared, last.try_id, asked.now);
            place = PlaceAtKey::Kept;
        }
        let now = asked.now;
        let mut found_full: Vec<Id> = Vec::new();
        loop {
            let forward = match decide(self.full()) {
                Decision::Forward(forward) => forward,
                // What was full a moment ago may be free: nobody is refused by an old look.
                _ if asked.looks_again && self.forget_full_streams(&found_full) => continue,
                other => return Ok(other),
            };
            let limited = asked
                .view
                .map(|view| limited(view, &forward.carried.key, Some(&forward.account)));
            let Some(limited) = limited.filter(|limited| !limited.is_nobody()) else {
                return Ok(Decision::Forward(forward));
            };
            match self.admit(shared, asked.context, &limited, &mut place, now) {
                Ok(()) => return Ok(Decision::Forward(forward)),
                Err(Denied::Account) if found_full.len() < MAX_FULL => {
                    found_full.push(forward.account.id.clone());
                }
                Err(denied) => {
                    let view = asked.view;
                    let key = view.and_then(|view| view.limited_key(&forward.carried.key));
                    return Err(refusal(denied, key, now));
                }
            }
        }
    }
}

fn refusal(denied: Denied, key: Option<&ClientKey>, now: u64) -> Refusal {
    match denied {
        Denied::Key(reached) => Refusal::Limit(AtLimit {
            key: key.and_then(|key| key.name.clone()),
            reached,
            now,
        }),
        Denied::Account | Denied::Busy => Refusal::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gate::{Gate, Knowledge, Request},
        header::{HeaderMap, HeaderText},
        health::Board,
        home::Home,
        host::{Version, fake::FakeSharedData},
        limit::{Counters, DAY_MS, Limit, Limits, table},
        request::carried::TryId,
        snapshot::{Policy, Record, fixture},
    };

    /// The start of a minute and of a day.
    const START: u64 = 1_790_000_000_000 / DAY_MS * DAY_MS;

    const KEY: &[u8] = b"lk_0123456789";

    fn limits(json: &str) -> Limits {
        serde_json::from_str(json).unwrap()
    }

    /// One VM: the real gate over two accounts, the first of which serves while it can, and shared
    /// data in which some keys never stand still.
    struct Vm {
        view: View,
        gate: Gate,
        limiter: Limiter,
        shared: Restless,
    }

    struct Restless {
        shared: FakeSharedData,
        busy: Vec<Subject>,
    }

    impl SharedData for Restless {
        fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
            self.shared.read(key)
        }

        fn write(&mut self, key: &str, value: &[u8]) {
            self.shared.write(key, value);
        }

        fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
            let is_busy = |subject: &Subject| table::key_of(subject) == key;
            !self.busy.iter().any(is_busy) && self.shared.swap(key, value, version)
        }
    }

    impl Vm {
        fn new(of_key: &str, of_accounts: [&str; 2]) -> Self {
            let mut records = vec![
                Record::Platform(fixture::platform("codex")),
                Record::Pool(fixture::pool(
                    "default",
                    Policy::FillFirst,
                    &["acc_1", "acc_2"],
                )),
                Record::Key(ClientKey {
                    name: HeaderText::try_from("alice").ok(),
                    limits: limits(of_key),
                    ..fixture::client_key("key_1", KEY, "default")
                }),
            ];
            for (id, of_account) in ["acc_1", "acc_2"].into_iter().zip(of_accounts) {
                let mut account = fixture::account(id, "codex");
                account.limits = limits(of_account);
                records.push(Record::Account(account));
            }
            let mut shared = FakeSharedData::default();
            table::prepare(&mut shared, &[1]);
            Self {
                view: View::of(&records),
                gate: Gate::default(),
                limiter: Limiter::new(1),
                shared: Restless {
                    shared,
                    busy: Vec::new(),
                },
            }
        }

        /// A request that was asked about.
        fn request(&mut self, carried: Option<&Carried>) -> Request {
            let headers: HeaderMap = [
                (":method", "POST"),
                (":path", "/v1/responses"),
                ("x-api-key", std::str::from_utf8(KEY).unwrap()),
            ]
            .into_iter()
            .collect();
            let mut request = Request::new(headers, carried.cloned());
            let knowledge = knowledge(&self.view, self.limiter.full(), START, 0);
            self.gate.ask(&mut request, &knowledge).unwrap();
            request
        }

        fn let_in(&mut self, context: u32) -> Result<(), Refusal> {
            let request = self.request(None);
            let key = request.client_key(&self.view).unwrap();
            self.limiter.let_in(&mut self.shared, context, key, START)
        }

        fn decide(
            &mut self,
            context: u32,
            last_try: Option<&Carried>,
        ) -> Result<Decision, Refusal> {
            let request = self.request(last_try);
            let Self {
                view,
                gate,
                limiter,
                shared,
            } = self;
            let asked = Asked {
                context,
                last_try,
                view: Some(view),
                now: START,
                looks_again: true,
            };
            limiter.decide(shared, &asked, |full| {
                gate.decide(&request, &knowledge(view, full, START, context))
            })
        }

        /// Returns what is carried of a request that is sent on.
        fn forwards(&mut self, context: u32, last_try: Option<&Carried>) -> Carried {
            match self.decide(context, last_try) {
                Ok(Decision::Forward(forward)) => forward.carried,
                other => panic!("{other:?}"),
            }
        }

        /// The limit of the key that refuses it.
        fn refused(&mut self, context: u32) -> Limit {
            at_limit(self.decide(context, None).unwrap_err())
        }

        fn counters(&self, subject: &Subject) -> Counters {
            table::look(&self.shared, subject, START)
        }

        fn requests(&self, subject: &Subject) -> u64 {
            self.counters(subject).minute.own.requests
        }
    }

    fn knowledge<'a>(
        view: &'a View,
        full: &'a FullAccounts,
        now: u64,
        context: u32,
    ) -> Knowledge<'a> {
        static NOBODY: Board = Board::new();
        Knowledge {
            is_confirmed: true,
            view: Some(view),
            board: &NOBODY,
            full,
            now,
            try_id: TryId { vm: 1, context },
            may_wait: false,
            soon: None,
            home: Home::Any,
        }
    }

    fn at_limit(refusal: Refusal) -> Limit {
        match refusal {
            Refusal::Limit(AtLimit { key, reached, .. }) => {
                assert_eq!(key.as_ref().map(HeaderText::as_str), Some("alice"));
                reached.limit
            }
            other => panic!("{other:?}"),
        }
    }

    fn key() -> Subject {
        Subject::key(&Id::try_from("key_1").unwrap())
    }

    fn account(id: &str) -> Subject {
        Subject::account(&Id::try_from(id).unwrap())
    }

    #[test]
    fn a_full_account_makes_way_for_the_next_until_all_are_full() {
        let one = r#"{"requests_per_minute":1}"#;
        let mut vm = Vm::new("{}", [one, r#"{"concurrent_streams":1}"#]);
        assert_eq!(vm.forwards(1, None).account.as_str(), "acc_1");
        let second = vm.forwards(2, None);
        assert_eq!(second.account.as_str(), "acc_2");
        match vm.decide(3, None).unwrap() {
            Decision::Reply(reply) => assert!(reply.body.contains("latchkey_all_out")),
            other => panic!("{other:?}"),
        }
        assert_eq!(vm.requests(&account("acc_1")), 1);
        assert_eq!(vm.requests(&account("acc_2")), 1);
        // The stream is free: what was full a moment ago is looked at again.
        vm.limiter.release(&mut vm.shared, 2, START);
        assert_eq!(vm.forwards(4, None).account.as_str(), "acc_2");
    }

    #[test]
    fn a_full_key_is_refused_and_counts_at_no_account() {
        let many = r#"{"requests_per_minute":9}"#;
        let mut vm = Vm::new(r#"{"requests_per_minute":2}"#, [many, many]);
        vm.forwards(1, None);
        vm.forwards(2, None);
        assert_eq!(vm.refused(3), Limit::RequestsPerMinute);
        assert_eq!(
            (vm.requests(&key()), vm.requests(&account("acc_1"))),
            (2, 2)
        );
    }

    #[test]
    fn a_request_that_runs_again_counts_at_its_next_account_alone() {
        let streams = r#"{"requests_per_minute":9,"concurrent_streams":1}"#;
        let mut vm = Vm::new(streams, [streams, streams]);
        let first = vm.forwards(1, None);
        let next = first.after_failure(1, START, 3, 1_000).unwrap();
        vm.limiter.release(&mut vm.shared, 1, START);
        let second = vm.forwards(2, Some(&next));
        assert_eq!(second.account.as_str(), "acc_2");
        for (subject, streams) in [(key(), 1), (account("acc_1"), 0), (account("acc_2"), 1)] {
            assert_eq!(vm.requests(&subject), 1, "{subject:?}");
            assert_eq!(vm.counters(&subject).own_streams(), streams, "{subject:?}");
        }
    }

    #[test]
    fn where_shared_data_takes_no_count_nothing_is_let_through_uncounted() {
        let many = r#"{"requests_per_minute":9}"#;
        let mut vm = Vm::new(many, [many, many]);
        vm.shared.busy = vec![account("acc_1")];
        assert_eq!(vm.forwards(1, None).account.as_str(), "acc_2");
        let mut vm = Vm::new(many, [many, many]);
        vm.shared.busy = vec![key()];
        assert_eq!(vm.decide(1, None).unwrap_err(), Refusal::NotReady);
        assert_eq!(vm.requests(&account("acc_1")), 0, "nothing is taken of it");
    }

    #[test]
    fn a_key_at_its_limit_is_refused_before_a_body_is_read() {
        let limits = r#"{"requests_per_minute":2,"concurrent_streams":5}"#;
        let mut vm = Vm::new(limits, ["{}", "{}"]);
        for context in 1..=3 {
            assert_eq!(vm.let_in(context), Ok(()));
        }
        assert_eq!(vm.requests(&key()), 0, "a body that comes is no request");
        vm.forwards(1, None);
        vm.forwards(2, None);
        let refusal = vm.let_in(4).unwrap_err();
        assert_eq!(vm.decide(3, None).unwrap_err(), refusal, "the same words");
        assert_eq!(at_limit(refusal), Limit::RequestsPerMinute);
        assert_eq!(vm.requests(&key()), 2);
    }

    #[test]
    fn a_request_that_finds_every_account_full_counts_nowhere() {
        let of_account = r#"{"requests_per_minute":1}"#;
        let mut vm = Vm::new(r#"{"requests_per_minute":9}"#, [of_account, of_account]);
        for context in [1, 2] {
            vm.forwards(context, None);
        }
        // Another VM, which does not know yet that both are full.
        vm.limiter = Limiter::new(2);
        let refused = vm.decide(3, None).unwrap();
        assert!(matches!(refused, Decision::Reply(_)), "both are full");
        assert_eq!(vm.requests(&key()), 2);
        for account in [account("acc_1"), account("acc_2")] {
            assert_eq!(vm.requests(&account), 1);
        }
    }

    #[test]
    fn a_stream_is_held_from_the_first_of_a_body_until_its_caller_goes() {
        let mut vm = Vm::new(
            r#"{"concurrent_streams":2,"requests_per_minute":9}"#,
            ["{}", "{}"],
        );
        assert_eq!(vm.let_in(1), Ok(()));
        vm.forwards(2, None);
        assert_eq!(
            at_limit(vm.let_in(3).unwrap_err()),
            Limit::ConcurrentStreams
        );
        assert_eq!(vm.refused(4), Limit::ConcurrentStreams);
        // What it holds already is not in its way.
        vm.forwards(1, None);
        assert_eq!(
            (vm.counters(&key()).own_streams(), vm.requests(&key())),
            (2, 2)
        );
        for context in [1, 2, 3, 4] {
            vm.limiter.release(&mut vm.shared, context, START);
        }
        assert_eq!(vm.counters(&key()).own_streams(), 0);
    }

    #[test]
    fn bodies_that_never_end_are_no_more_than_a_keys_streams() {
        let mut vm = Vm::new(r#"{"concurrent_streams":2}"#, ["{}", "{}"]);
        let let_in = (1..=9).filter(|context| vm.let_in(*context).is_ok());
        assert_eq!(let_in.collect::<Vec<_>>(), [1, 2]);
        vm.limiter.release(&mut vm.shared, 1, START);
        assert_eq!(vm.let_in(10), Ok(()));
    }

    #[test]
    fn who_has_no_limits_is_let_in_without_a_look() {
        let mut vm = Vm::new("{}", ["{}", "{}"]);
        let request = vm.request(None);
        let key = request.client_key(&vm.view).unwrap();
        let nothing = &mut Untouchable;
        assert_eq!(vm.limiter.let_in(nothing, 1, key, START), Ok(()));
    }

    struct Untouchable;

    impl SharedData for Untouchable {
        fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
            panic!("{key} was read");
        }

        fn write(&mut self, key: &str, _: &[u8]) {
            panic!("{key} was written");
        }

        fn swap(&mut self, key: &str, _: &[u8], _: Version) -> bool {
            panic!("{key} was swapped");
        }
    }
}
