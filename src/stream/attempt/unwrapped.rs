//! An answer that stands in an object of the platform's. The proxy has nothing of it: what stands in there is here until it
//! goes on.

use std::{cell::RefCell, rc::Rc};

use crate::{
    attempt::unwrap::Unwrap,
    budget::{OF_AN_ANSWER, Shares},
    host::{Side, Stream},
    id::Id,
};

/// Such an answer.
#[derive(Debug)]
pub(super) struct Unwrapped {
    unwrap: Unwrap,
    held: Vec<u8>,
    /// The client key that it is for.
    key: Id,
    /// The count of what all of one VM hold.
    shares: Rc<RefCell<Shares>>,
    /// The bytes that this one counts among them.
    counted: usize,
}

impl Unwrapped {
    /// Makes one of `key`'s, among those that count together in `shares`.
    pub(super) fn new(unwrap: Unwrap, key: Id, shares: Rc<RefCell<Shares>>) -> Self {
        Self {
            unwrap,
            held: Vec::new(),
            key,
            shares,
            counted: 0,
        }
    }

    /// The bytes that are held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The bytes of memory that these take.
    pub(super) fn taken(&self) -> usize {
        self.held.capacity()
    }

    /// Counts what is held. Returns false where there is no room for it beside what others hold.
    pub(super) fn has_room(&mut self) -> bool {
        let free = usize::try_from(OF_AN_ANSWER).unwrap_or(usize::MAX);
        self.counts(self.taken().saturating_sub(free))
    }

    fn counts(&mut self, now: usize) -> bool {
        // One borrow at a time: no stream is called from here.
        let has_room = match self.shares.try_borrow_mut() {
            Ok(mut shares) => shares.change(&self.key, self.counted, now),
            Err(_) => false,
        };
        if has_room {
            self.counted = now;
        }
        has_room
    }

    /// Holds more. What is large grows by a quarter of it: its memory counts.
    fn push(&mut self, bytes: &[u8]) {
        let room = self.held.capacity().saturating_sub(self.held.len());
        if room < bytes.len() {
            self.held
                .reserve_exact(bytes.len().max(self.held.len() / 4));
        }
        self.held.extend_from_slice(bytes);
    }

    /// Takes what is held, and its memory with it.
    fn take(&mut self) -> Vec<u8> {
        self.counts(0);
        std::mem::take(&mut self.held)
    }
}

impl Drop for Unwrapped {
    fn drop(&mut self) {
        self.take();
    }
}

/// Takes what is around an answer off the `size` bytes that the proxy holds of it; `end`: they are the last. Returns how many
/// bytes are held then: by the proxy, or here.
pub(super) fn take(
    unwrapped: Option<&mut Unwrapped>,
    size: usize,
    end: bool,
    stream: &mut impl Stream,
) -> usize {
    let Some(unwrapped) = unwrapped else {
        return size;
    };
    let came = held_body(None, 0, size, stream);
    let goes_on = unwrapped.unwrap.on_body(&came, end);
    unwrapped.push(&goes_on);
    if size > 0 {
        stream.set_body(Side::Answer, size, b"");
    }
    unwrapped.len()
}

/// Returns the bytes from `start` to `size` of those of an answer's body that are held: by the proxy, or here.
pub(super) fn held_body(
    unwrapped: Option<&Unwrapped>,
    start: usize,
    size: usize,
    stream: &impl Stream,
) -> Vec<u8> {
    match (size.saturating_sub(start), unwrapped) {
        (0, _) => Vec::new(),
        (_, Some(one)) => one.held.get(start..size).unwrap_or_default().to_vec(),
        (length, None) => stream.body(Side::Answer, start, length),
    }
}

/// Returns all `size` bytes of an answer's body that are held: those of the proxy's, or those that were here.
pub(super) fn whole_body(
    unwrapped: Option<&mut Unwrapped>,
    size: usize,
    stream: &impl Stream,
) -> Vec<u8> {
    match unwrapped {
        Some(one) => one.take(),
        None => held_body(None, 0, size, stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeStream;

    const MIB: usize = 1024 * 1024;

    fn shares() -> Rc<RefCell<Shares>> {
        Rc::new(RefCell::new(Shares::new(64 * MIB)))
    }

    fn unwrapped(key: &str, shares: &Rc<RefCell<Shares>>) -> Unwrapped {
        let key = Id::try_from(key).unwrap();
        Unwrapped::new(Unwrap::new("response"), key, Rc::clone(shares))
    }

    /// Its caller may read for hours what the platform sent in a second.
    #[test]
    fn what_has_gone_on_takes_no_memory() {
        let shares = shares();
        let mut one = unwrapped("a", &shares);
        one.push(&vec![b'x'; 1024 * 1024]);
        assert!(one.has_room() && shares.borrow().all() > 0);
        let stream = FakeStream::default();
        let body = whole_body(Some(&mut one), 1024 * 1024, &stream);
        assert_eq!(body.len(), 1024 * 1024);
        assert_eq!((one.len(), one.taken(), shares.borrow().all()), (0, 0, 0));
    }

    #[test]
    fn what_is_held_takes_little_more_than_it_is() {
        let mut one = unwrapped("a", &shares());
        for _ in 0..600 {
            one.push(&[b'x'; 16 * 1024]);
            assert!(one.taken() <= one.len() + (one.len() / 4).max(16 * 1024));
        }
    }

    #[test]
    fn those_of_one_vm_are_held_within_a_bound_of_which_no_key_has_all_and_small_ones_always() {
        let shares = shares();
        let held = |key: &str, size: usize| {
            let mut one = unwrapped(key, &shares);
            one.push(&vec![b'x'; size]);
            one
        };
        let mut all = Vec::new();
        for (key, expected) in [("a", 4), ("b", 2), ("c", 1)] {
            let before = all.len();
            loop {
                let mut one = held(key, 8 * MIB);
                if !one.has_room() {
                    break;
                }
                all.push(one);
            }
            assert_eq!(all.len() - before, expected, "{key}");
        }
        assert!(held("a", 32 * 1024).has_room());
        all.drain(4..6);
        assert!(held("b", 8 * MIB).has_room());
        drop(all);
        assert_eq!(shares.borrow().all(), 0);
    }
}
