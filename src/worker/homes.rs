//! The questions of one VM to the refresher about homes, and the answers to them.
//!
//! A request's own callback only notes the question; the next tick asks it. Envoy gives the answer to
//! a call to the context that made it, and drops the call where that ends: a request that goes away
//! would take the answer from those that wait for the same.
//!
//! What another Envoy's answer made a moment ago, the refresher may not have yet. So a question that
//! was not answered well is asked again a few times, while the request waits.

use std::collections::VecDeque;

use super::Worker;
use crate::{
    deadline::Deadline,
    gate::Request,
    hash::hash64,
    home::{Home, Made, ThingHash, ring},
    host::{CallId, Host},
    id::Id,
    limit::DAY_MS,
    request::carried::Carried,
};

/// The most things that are asked about at a time, or were lately: half of it, the most that one key
/// has, is more than wait at a time. With [`AGAIN_MS`] and [`HOLDS_MS`] it bounds what a VM asks.
const MAX_ASKED: usize = 512;

/// The pauses after which is asked again, in milliseconds. What an answer made is with the refresher
/// within two ticks of the answer's end.
const AGAIN_MS: [u64; 3] = [100, 200, 400];

/// The time for which the last answer holds, in milliseconds: the requests that wait for it decide by
/// it within a tick. No shorter, so that a thing that is not there is not asked about again and again.
const HOLDS_MS: u64 = 1_000;

/// The time for which a thing that nobody knows is remembered as such, in milliseconds. Things are named that were not
/// made through the gateway, in every turn of a conversation: the next request that has one in its body goes on at once,
/// while it is asked about once more.
const REMEMBERED_MS: u64 = 60_000;

/// The time after which no answer is waited for, in milliseconds.
const PATIENCE_MS: u64 = 2_000;

/// The things that the refresher was asked about.
#[derive(Debug, Default)]
pub(super) struct Questions(VecDeque<Question>);

#[derive(Debug)]
struct Question {
    thing: ThingHash,
    /// The client key that asks.
    key: Id,
    /// The number of calls that were answered.
    answers: usize,
    /// The last answer.
    last: Home,
    /// The end of the wait for an answer.
    until: Deadline,
    /// Nobody knew it, and until then that is taken for so.
    unknown_until: Option<Deadline>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The question is to be asked then.
    Due(Deadline),
    /// The question was asked.
    Open(CallId),
    /// The last answer has come, and holds until then.
    Answered(Deadline),
}

/// The step to take about a thing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody was asked: ask.
    Ask,
    /// Wait for the answer.
    Wait,
    /// Go by this.
    Known(Home),
}

/// An answer of the refresher.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) thing: ThingHash,
    pub(super) key: Id,
    pub(super) home: Home,
    /// Requests that wait can be decided about.
    pub(super) is_last: bool,
}

// === impl Worker ===

impl<H: Host> Worker<H> {
    /// Finds the account that has what a request of `key` goes on from. None where the refresher
    /// is asked, and the request `may_wait` for its answer.
    pub(super) fn home(
        &mut self,
        request: &Request,
        key: Option<&Id>,
        may_wait: bool,
        now: u64,
    ) -> Option<Home> {
        let Some(key) = key else {
            return Some(Home::Any);
        };
        let (in_path, in_body) = request.things();
        // All of them, so that all that are not known are asked about at once.
        let in_path = in_path.map(|thing| self.home_of(thing, key, true, may_wait, now));
        let mut homes = in_body
            .iter()
            .map(|thing| self.home_of(*thing, key, false, may_wait, now));
        let in_body = homes
            .by_ref()
            .try_fold(Home::Any, |home, one| Some(home.and(one?)));
        homes.for_each(drop);
        match in_path {
            None => in_body,
            Some(in_path) => Some(in_path?.of_path(in_body?)),
        }
    }

    /// Finds the account that has `thing`, which the path of a request of `key` names or its body.
    fn home_of(
        &mut self,
        thing: ThingHash,
        key: &Id,
        in_path: bool,
        may_wait: bool,
        now: u64,
    ) -> Option<Home> {
        let held = ring::find(&self.host, &thing, key);
        if let Home::At(_) = held {
            return Some(held);
        }
        match self.asked.next(&thing, key, in_path, now) {
            Next::Known(Home::Nowhere | Home::Unasked) if held == Home::Others => Some(held),
            Next::Known(home) => Some(home),
            Next::Wait if may_wait => None,
            Next::Ask if may_wait => {
                self.asked.note(thing, key.clone(), now);
                None
            }
            Next::Wait | Next::Ask => Some(Home::Unasked),
        }
    }

    /// Notes that an answer of `account` made what is called `id`. Returns what its record says.
    pub fn made(&mut self, carried: &Carried, id: &str, days: u16) -> Made {
        let thing = ThingHash::of(id);
        let account = hash64(&[carried.account.as_str().as_bytes()]);
        ring::note(&mut self.host, &thing, &carried.key, account);
        let life = u64::from(days).saturating_mul(DAY_MS);
        Made {
            thing,
            until: self.host.recently().saturating_add(life),
        }
    }
}

// === impl Questions ===

impl Questions {
    /// Says what to do about `thing`, which a request of `key` names in its path or its body, at `now`.
    pub(super) fn next(&mut self, thing: &ThingHash, key: &Id, in_path: bool, now: u64) -> Next {
        for one in &mut self.0 {
            let is_open = !matches!(one.state, State::Answered(_));
            if is_open && one.until.is_due(now) {
                one.state = State::Answered(Deadline::after(now, HOLDS_MS));
            }
        }
        self.0
            .retain(|one| !one.is_over(now) || one.is_remembered(now));
        let mut questions = self.0.iter_mut();
        let Some(question) = questions.find(|one| one.is_about(thing, key)) else {
            return match self.make_room(key, now) {
                true => Next::Ask,
                false => Next::Known(Home::Unasked),
            };
        };
        if question.is_over(now) {
            question.state = State::Due(Deadline::default());
            question.until = Deadline::after(now, PATIENCE_MS);
        }
        match question.state {
            State::Answered(_) => Next::Known(question.last),
            State::Due(_) | State::Open(_) if !in_path && question.is_remembered(now) => {
                Next::Known(Home::Nowhere)
            }
            State::Due(_) | State::Open(_) => Next::Wait,
        }
    }

    /// Notes that a request of `key` waits for the home of `thing`.
    pub(super) fn note(&mut self, thing: ThingHash, key: Id, now: u64) {
        self.0.push_back(Question {
            thing,
            key,
            answers: 0,
            last: Home::Unasked,
            until: Deadline::after(now, PATIENCE_MS),
            unknown_until: None,
            state: State::Due(Deadline::default()),
        });
    }

    /// Asks what is to be asked at `now`, by `call`, which makes the call about a thing and a key.
    pub(super) fn ask(
        &mut self,
        now: u64,
        mut call: impl FnMut(&ThingHash, &Id) -> Option<CallId>,
    ) {
        for one in &mut self.0 {
            let State::Due(at) = one.state else {
                continue;
            };
            if at.is_due(now) {
                match call(&one.thing, &one.key) {
                    Some(call) => one.state = State::Open(call),
                    None => one.take(Home::Unasked, now),
                }
            }
        }
    }

    /// Returns true if one more may be asked for `key`, for which its oldest question is forgotten that is only
    /// remembered.
    fn make_room(&mut self, key: &Id, now: u64) -> bool {
        if self.has_room(key) {
            return true;
        }
        let mut questions = self.0.iter();
        let oldest = questions.position(|one| one.key == *key && one.is_over(now));
        oldest.is_some_and(|oldest| self.0.remove(oldest).is_some()) && self.has_room(key)
    }

    /// Returns true if one more may be asked for `key`: however many it invents, it leaves half of
    /// what there is (as [`super::waiting`] does).
    fn has_room(&self, key: &Id) -> bool {
        let own = self.0.iter().filter(|one| one.key == *key).count();
        own < MAX_ASKED.saturating_sub(self.0.len())
    }

    /// Takes the answer to `call`: its status, empty where there was none, and its body. None where
    /// the call asked about no thing.
    pub(super) fn answered(
        &mut self,
        call: CallId,
        status: &[u8],
        body: impl FnOnce() -> Vec<u8>,
        now: u64,
    ) -> Option<Told> {
        let is_it = |one: &&mut Question| matches!(one.state, State::Open(open) if open == call);
        let question = self.0.iter_mut().find(is_it)?;
        let home = match status {
            b"200" => std::str::from_utf8(body().trim_ascii())
                .ok()
                .and_then(|id| Id::try_from(id).ok())
                .map_or(Home::Unasked, |id| {
                    Home::At(hash64(&[id.as_str().as_bytes()]))
                }),
            b"403" => Home::Others,
            b"404" => Home::Nowhere,
            _ => Home::Unasked,
        };
        question.take(home, now);
        Some(Told {
            thing: question.thing,
            key: question.key.clone(),
            home,
            is_last: matches!(question.state, State::Answered(_)),
        })
    }
}

// === impl Question ===

impl Question {
    fn is_about(&self, thing: &ThingHash, key: &Id) -> bool {
        self.thing == *thing && self.key == *key
    }

    /// Returns true if it was answered, and that holds no more.
    fn is_over(&self, now: u64) -> bool {
        matches!(self.state, State::Answered(until) if until.is_due(now))
    }

    /// Nobody knew it, not long ago.
    fn is_remembered(&self, now: u64) -> bool {
        self.unknown_until.is_some_and(|until| !until.is_due(now))
    }

    /// Takes an answer. One that says nothing is asked for again, a few times.
    fn take(&mut self, home: Home, now: u64) {
        let pause = AGAIN_MS.get(self.answers);
        self.answers = self.answers.saturating_add(1);
        self.last = home;
        self.state = match (home, pause) {
            (Home::Nowhere | Home::Unasked, Some(pause)) => {
                State::Due(Deadline::after(now, *pause))
            }
            _ => State::Answered(Deadline::after(now, HOLDS_MS)),
        };
        match (home, &self.state) {
            (Home::Nowhere, State::Answered(_)) => {
                self.unknown_until = Some(Deadline::after(now, REMEMBERED_MS));
            }
            (Home::Nowhere | Home::Unasked, _) => {}
            _ => self.unknown_until = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Id {
        Id::try_from(name).unwrap()
    }

    fn thing(number: usize) -> ThingHash {
        ThingHash::of(&number.to_string())
    }

    /// Asks at `now` what is due; answers it so. Returns what came of each.
    fn answer(asked: &mut Questions, now: u64, status: &[u8], body: &[u8]) -> Vec<Told> {
        let mut calls = Vec::new();
        asked.ask(now, |_, _| {
            calls.push(CallId(
                u32::try_from(now).unwrap() * 10 + u32::try_from(calls.len()).unwrap(),
            ));
            calls.last().copied()
        });
        let told = calls.iter().map(|call| {
            let told = asked.answered(*call, status, || body.to_vec(), now);
            assert_eq!(asked.answered(*call, status, Vec::new, now), None);
            told.unwrap()
        });
        told.collect()
    }

    #[test]
    fn who_has_a_thing_is_asked_once() {
        for (status, body, home) in [
            (
                b"200".as_slice(),
                b"acc_1\n".as_slice(),
                Home::At(hash64(&[b"acc_1"])),
            ),
            (b"403", b"", Home::Others),
        ] {
            let (mut asked, one) = (Questions::default(), key("key_1"));
            assert_eq!(asked.next(&thing(1), &one, true, 0), Next::Ask);
            asked.note(thing(1), one.clone(), 0);
            assert_eq!(asked.next(&thing(1), &one, true, 0), Next::Wait);
            assert_eq!(
                asked.next(&thing(1), &key("key_2"), true, 0),
                Next::Ask,
                "its own"
            );
            let told = answer(&mut asked, 0, status, body);
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].home, told[0].is_last), (home, true));
            assert!(answer(&mut asked, 500, status, body).is_empty());
            assert_eq!(
                asked.next(&thing(1), &one, true, HOLDS_MS - 1),
                Next::Known(home)
            );
            assert_eq!(asked.next(&thing(1), &one, true, HOLDS_MS), Next::Ask);
        }
    }

    #[test]
    fn what_is_not_known_is_asked_again_a_few_times_and_then_left() {
        for (status, body, home) in [
            (b"404".as_slice(), b"".as_slice(), Home::Nowhere),
            (b"", b"", Home::Unasked),
            (b"200", b"two words", Home::Unasked),
        ] {
            let (mut asked, one) = (Questions::default(), key("key_1"));
            asked.note(thing(1), one.clone(), 0);
            let mut answers = Vec::new();
            for now in 0..700 + HOLDS_MS {
                for told in answer(&mut asked, now, status, body) {
                    assert_eq!(told.home, home);
                    answers.push((now, told.is_last));
                }
                let expected = match answers.last() {
                    Some((_, true)) => Next::Known(home),
                    _ => Next::Wait,
                };
                assert_eq!(asked.next(&thing(1), &one, true, now), expected, "{now}");
            }
            assert_eq!(
                answers,
                [(0, false), (100, false), (300, false), (700, true)]
            );
            let again = match home {
                Home::Nowhere => Next::Wait,
                _ => Next::Ask,
            };
            assert_eq!(asked.next(&thing(1), &one, true, 700 + HOLDS_MS), again);
        }
        // It has come to the refresher meanwhile.
        let (mut asked, one) = (Questions::default(), key("key_1"));
        asked.note(thing(1), one.clone(), 0);
        answer(&mut asked, 0, b"404", b"");
        let told = answer(&mut asked, 100, b"200", b"acc_1");
        assert!(told[0].is_last);
        let home = Home::At(hash64(&[b"acc_1"]));
        assert_eq!(asked.next(&thing(1), &one, true, 100), Next::Known(home));
    }

    #[test]
    fn a_body_waits_once_for_what_nobody_knows() {
        let (mut asked, one) = (Questions::default(), key("key_1"));
        asked.note(thing(1), one.clone(), 0);
        for now in [0, 100, 300, 700] {
            answer(&mut asked, now, b"404", b"");
        }
        let unknown = Next::Known(Home::Nowhere);
        let mut now = 700;
        for _ in 0..100 {
            now += HOLDS_MS;
            assert_eq!(asked.next(&thing(1), &one, false, now), unknown);
            assert_eq!(answer(&mut asked, now, b"404", b"").len(), 1, "once more");
            assert!(answer(&mut asked, now + 500, b"404", b"").is_empty());
        }
        // The refresher is away, and is there again.
        now += HOLDS_MS;
        assert_eq!(asked.next(&thing(1), &one, false, now), unknown);
        assert_eq!(asked.next(&thing(1), &one, true, now), Next::Wait);
        answer(&mut asked, now, b"", b"");
        now += HOLDS_MS;
        assert_eq!(asked.next(&thing(1), &one, false, now), unknown);
        let told = answer(&mut asked, now, b"200", b"acc_1");
        let home = Home::At(hash64(&[b"acc_1"]));
        assert_eq!((told.len(), told[0].home), (1, home));
        assert_eq!(asked.next(&thing(1), &one, false, now), Next::Known(home));
        assert_eq!(
            asked.next(&thing(1), &one, false, now + HOLDS_MS),
            Next::Ask
        );
        // Nobody asks any more.
        asked.note(thing(2), one.clone(), now);
        for later in [0, 100, 300, 700] {
            answer(&mut asked, now + later, b"404", b"");
        }
        let forgotten = now + 700 + REMEMBERED_MS;
        assert_eq!(asked.next(&thing(2), &one, false, forgotten - 1), unknown);
        answer(&mut asked, forgotten, b"404", b"");
        let forgotten = forgotten + REMEMBERED_MS;
        assert_eq!(asked.next(&thing(2), &one, false, forgotten), Next::Ask);
    }

    #[test]
    fn what_is_only_remembered_makes_room() {
        let (mut asked, one) = (Questions::default(), key("key_1"));
        for number in 0..MAX_ASKED / 2 {
            assert_eq!(asked.next(&thing(number), &one, false, 0), Next::Ask);
            asked.note(thing(number), one.clone(), 0);
        }
        for now in [0, 100, 300, 700] {
            asked.ask(now, |_, _| Some(CallId(1)));
            while asked.answered(CallId(1), b"404", Vec::new, now).is_some() {}
        }
        let full = asked.next(&thing(1_000), &one, false, 700);
        assert_eq!(full, Next::Known(Home::Unasked));
        let now = 700 + HOLDS_MS;
        assert_eq!(asked.next(&thing(1_000), &one, false, now), Next::Ask);
        assert_eq!(asked.0.len(), MAX_ASKED / 2 - 1);
        assert_ne!(asked.0[0].thing, thing(0), "the oldest");
    }

    #[test]
    fn who_invents_things_leaves_others_their_questions() {
        let (mut asked, mut number) = (Questions::default(), 0);
        for (name, most) in [("key_1", MAX_ASKED / 2), ("key_2", MAX_ASKED / 4)] {
            let begin = number;
            while asked.next(&thing(number), &key(name), true, 0) == Next::Ask {
                asked.note(thing(number), key(name), 0);
                number += 1;
            }
            assert_eq!(number - begin, most, "{name}");
            let over = asked.next(&thing(number), &key(name), true, 0);
            assert_eq!(over, Next::Known(Home::Unasked));
        }
        let one = key("key_1");
        asked.ask(0, |_, _| Some(CallId(1)));
        assert_eq!(
            asked.next(&thing(1), &one, true, PATIENCE_MS - 1),
            Next::Wait
        );
        let lost = asked.next(&thing(1), &one, true, PATIENCE_MS);
        assert_eq!(lost, Next::Known(Home::Unasked), "no answer came");
        let later = asked.next(&thing(1), &one, true, PATIENCE_MS + HOLDS_MS);
        assert_eq!(later, Next::Ask);
    }
}
