//! The questions of one VM to the refresher about homes, and the answers to them.
//!
//! A request's own callback only notes the question; the next tick asks it. Envoy gives the answer to
//! a call to the context that made it, and drops the call where that ends: a request that goes away
//! would take the answer from those that wait for the same.

use std::collections::VecDeque;

use crate::{
    deadline::Deadline,
    hash::hash64,
    home::{Home, ThingHash},
    host::CallId,
    id::Id,
};

/// The most things that are asked about at a time, or were lately: half of it, the most that one key
/// has, is more than wait at a time.
const MAX_ASKED: usize = 512;

/// The time for which an answer holds, in milliseconds: the requests that wait for it decide by it
/// within a tick.
const HOLDS_MS: u64 = 2_000;

/// The time after which no answer is waited for, in milliseconds: longer than a call may take.
const PATIENCE_MS: u64 = 2_500;

/// The things that the refresher was asked about.
#[derive(Debug, Default)]
pub(super) struct Asked(VecDeque<Question>);

#[derive(Debug)]
struct Question {
    thing: ThingHash,
    /// The client key that asks.
    key: Id,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No answer has come; none is waited for after then. It has no call until the next tick.
    Open(Option<CallId>, Deadline),
    /// It has come, and holds until then.
    Answered(Home, Deadline),
}

/// What to do about a thing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody was asked: ask.
    Ask,
    /// Wait for the answer.
    Wait,
    /// Go by this.
    Known(Home),
}

// === impl Asked ===

impl Asked {
    /// Says what to do about `thing`, which a request of `key` names, at `now`.
    pub(super) fn next(&mut self, thing: &ThingHash, key: &Id, now: u64) -> Next {
        self.0.retain(|one| match &one.state {
            State::Open(..) => true,
            State::Answered(_, until) => !until.is_due(now),
        });
        for one in &mut self.0 {
            if matches!(&one.state, State::Open(_, until) if until.is_due(now)) {
                one.state = State::Answered(Home::Unasked, Deadline::after(now, HOLDS_MS));
            }
        }
        match self.0.iter().find(|one| one.thing == *thing) {
            None if !self.has_room(key) => Next::Known(Home::Unasked),
            None => Next::Ask,
            Some(Question {
                state: State::Open(..),
                ..
            }) => Next::Wait,
            Some(Question {
                state: State::Answered(home, _),
                ..
            }) => Next::Known(*home),
        }
    }

    /// Notes that a request of `key` waits for the home of `thing`.
    pub(super) fn note(&mut self, thing: ThingHash, key: Id, now: u64) {
        let state = State::Open(None, Deadline::after(now, PATIENCE_MS));
        self.0.push_back(Question { thing, key, state });
    }

    /// Asks what was noted, by `call`, which makes the call about a thing.
    pub(super) fn ask(&mut self, now: u64, mut call: impl FnMut(&ThingHash) -> Option<CallId>) {
        for one in &mut self.0 {
            let State::Open(made @ None, _) = &mut one.state else {
                continue;
            };
            *made = call(&one.thing);
            if made.is_none() {
                one.state = State::Answered(Home::Unasked, Deadline::after(now, HOLDS_MS));
            }
        }
    }

    /// Returns true if one more may be asked for `key`: however many it invents, it leaves half of
    /// what there is (as [`super::waiting`] does).
    fn has_room(&self, key: &Id) -> bool {
        let own = self.0.iter().filter(|one| one.key == *key).count();
        own < MAX_ASKED.saturating_sub(self.0.len())
    }

    /// Takes the answer to `call`: its status, empty where there was none, and its body. Returns the
    /// thing and what is known of it now; none where the call asked about no thing.
    pub(super) fn answered(
        &mut self,
        call: CallId,
        status: &[u8],
        body: impl FnOnce() -> Vec<u8>,
        now: u64,
    ) -> Option<(ThingHash, Home)> {
        let is_it =
            |one: &&mut Question| matches!(one.state, State::Open(Some(open), _) if open == call);
        let question = self.0.iter_mut().find(is_it)?;
        let home = match status {
            b"200" => std::str::from_utf8(body().trim_ascii())
                .ok()
                .and_then(|id| Id::try_from(id).ok())
                .map_or(Home::Unasked, |id| {
                    Home::At(hash64(&[id.as_str().as_bytes()]))
                }),
            b"404" => Home::Nowhere,
            _ => Home::Unasked,
        };
        question.state = State::Answered(home, Deadline::after(now, HOLDS_MS));
        Some((question.thing, home))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Id {
        Id::try_from(name).unwrap()
    }

    fn thing(number: usize) -> ThingHash {
        ThingHash::of(&key("key_1"), &number.to_string())
    }

    #[test]
    fn a_thing_is_asked_about_once_and_its_answer_does_not_hold_for_long() {
        let mut asked = Asked::default();
        for (number, status, body, home) in [
            (
                1,
                b"200".as_slice(),
                b"acc_1\n".as_slice(),
                Home::At(hash64(&[b"acc_1"])),
            ),
            (2, b"404", b"", Home::Nowhere),
            (3, b"", b"", Home::Unasked),
            (4, b"200", b"two words", Home::Unasked),
        ] {
            let call = CallId(u32::try_from(number).unwrap());
            assert_eq!(asked.next(&thing(number), &key("key_1"), 0), Next::Ask);
            asked.note(thing(number), key("key_1"), 0);
            assert_eq!(asked.next(&thing(number), &key("key_1"), 0), Next::Wait);
            let mut calls = Vec::new();
            for _ in 0..2 {
                asked.ask(0, |thing| {
                    calls.push(*thing);
                    Some(call)
                });
            }
            assert_eq!(calls, [thing(number)], "it is asked about once");
            assert_eq!(asked.next(&thing(number), &key("key_1"), 0), Next::Wait);
            let answered = asked.answered(call, status, || body.to_vec(), 10);
            assert_eq!(answered, Some((thing(number), home)));
            assert_eq!(asked.answered(call, status, Vec::new, 10), None);
            assert_eq!(
                asked.next(&thing(number), &key("key_1"), 10 + HOLDS_MS - 1),
                Next::Known(home)
            );
            assert_eq!(
                asked.next(&thing(number), &key("key_1"), 10 + HOLDS_MS),
                Next::Ask
            );
        }
    }

    #[test]
    fn who_invents_things_leaves_others_their_questions() {
        let (mut asked, mut number) = (Asked::default(), 0);
        for (name, most) in [("key_1", MAX_ASKED / 2), ("key_2", MAX_ASKED / 4)] {
            let begin = number;
            while asked.next(&thing(number), &key(name), 0) == Next::Ask {
                asked.note(thing(number), key(name), 0);
                number += 1;
            }
            assert_eq!(number - begin, most, "{name}");
            let over = asked.next(&thing(number), &key(name), 0);
            assert_eq!(over, Next::Known(Home::Unasked));
        }
        let one = key("key_1");
        asked.ask(0, |one| (*one != thing(0)).then_some(CallId(1)));
        let known = asked.next(&thing(0), &one, 0);
        assert_eq!(known, Next::Known(Home::Unasked), "Envoy makes no call");
        assert_eq!(asked.next(&thing(1), &one, PATIENCE_MS - 1), Next::Wait);
        let lost = asked.next(&thing(1), &one, PATIENCE_MS);
        assert_eq!(lost, Next::Known(Home::Unasked), "no answer came");
        let later = asked.next(&thing(1), &one, PATIENCE_MS + HOLDS_MS);
        assert_eq!(later, Next::Ask);
    }
}
