//! An answer that stands in an object of the platform's. The proxy has nothing of it: what stands in there is here until it
//! goes on.

use std::{cell::Cell, rc::Rc};

use crate::{
    attempt::unwrap::Unwrap,
    budget::OF_AN_ANSWER,
    host::{Side, Stream},
};

/// The most bytes that one VM has of such answers while they are held, beside what each may take uncounted. Where there is
/// no room, an answer is held no longer.
pub const MAX_UNWRAPPED_BYTES: usize = 64 * 1024 * 1024;

/// Such an answer.
#[derive(Debug)]
pub(super) struct Unwrapped {
    unwrap: Unwrap,
    held: Vec<u8>,
    /// What all of one VM count.
    of_all: Rc<Cell<usize>>,
    /// What this one counts among them.
    counted: usize,
}

impl Unwrapped {
    /// One of those that count together in `of_all`.
    pub(super) fn new(unwrap: Unwrap, of_all: Rc<Cell<usize>>) -> Self {
        Self {
            unwrap,
            held: Vec::new(),
            of_all,
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
        let counted = self.taken().saturating_sub(free);
        let of_others = self.of_all.get().saturating_sub(self.counted);
        let of_all = of_others.saturating_add(counted);
        let has_room = counted == 0 || of_all <= MAX_UNWRAPPED_BYTES;
        if has_room {
            self.of_all.set(of_all);
            self.counted = counted;
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
        let of_others = self.of_all.get().saturating_sub(self.counted);
        self.of_all.set(of_others);
        self.counted = 0;
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

    fn unwrapped(of_all: &Rc<Cell<usize>>) -> Unwrapped {
        Unwrapped::new(Unwrap::new("response"), Rc::clone(of_all))
    }

    /// Its caller may read for hours what the platform sent in a second.
    #[test]
    fn what_has_gone_on_takes_no_memory() {
        let of_all = Rc::default();
        let mut one = unwrapped(&of_all);
        one.push(&vec![b'x'; 1024 * 1024]);
        assert!(one.has_room() && of_all.get() > 0);
        let stream = FakeStream::default();
        let body = whole_body(Some(&mut one), 1024 * 1024, &stream);
        assert_eq!(body.len(), 1024 * 1024);
        assert_eq!((one.len(), one.taken(), of_all.get()), (0, 0, 0));
    }

    #[test]
    fn what_is_held_takes_little_more_than_it_is() {
        let mut one = unwrapped(&Rc::default());
        for _ in 0..600 {
            one.push(&[b'x'; 16 * 1024]);
            assert!(one.taken() <= one.len() + (one.len() / 4).max(16 * 1024));
        }
    }

    #[test]
    fn those_of_one_vm_are_held_within_a_bound_and_small_ones_always() {
        let of_all = Rc::default();
        let held = |size: usize| {
            let mut one = unwrapped(&of_all);
            one.push(&vec![b'x'; size]);
            one
        };
        let mut all = Vec::new();
        loop {
            let mut one = held(8 * 1024 * 1024);
            if !one.has_room() {
                break;
            }
            all.push(one);
        }
        assert_eq!(all.len(), 8);
        assert!(of_all.get() <= MAX_UNWRAPPED_BYTES);
        assert!(held(32 * 1024).has_room());
        all.pop();
        assert!(held(8 * 1024 * 1024).has_room());
        drop(all);
        assert_eq!(of_all.get(), 0);
    }
}
