//! The length of a request, as far as it has gone to the platform.

use crate::budget::MAX_KEPT;

/// Counts the bytes of a request's body, as Envoy's calls tell of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestBytes {
    forwarded: u64,
    /// Held back. Envoy counts them again with what comes next.
    held: u64,
    whole: bool,
}

// === impl RequestBytes ===

impl RequestBytes {
    /// Counts a piece of the body; `size` is what Envoy says is there, `goes_on`: the piece is
    /// forwarded.
    pub fn on_body(&mut self, size: usize, goes_on: bool) {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if goes_on {
            self.forwarded = self.forwarded.saturating_add(size);
            self.held = 0;
        } else {
            self.held = size;
        }
    }

    /// The bytes that are held back.
    pub fn held(self) -> usize {
        usize::try_from(self.held).unwrap_or(usize::MAX)
    }

    /// The bytes so far.
    pub fn total(self) -> u64 {
        self.forwarded.saturating_add(self.held)
    }

    /// The bytes that may be charged: none at an endpoint that is [free](crate::snapshot::Endpoint::free).
    pub fn charged(self, free: bool) -> u64 {
        if free { 0 } else { self.total() }
    }

    /// Notes that no more will come.
    pub fn end(&mut self) {
        self.whole = true;
    }

    /// Returns true if the body has come to its end.
    pub fn is_whole(self) -> bool {
        self.whole
    }

    /// Returns true if more of the body will come and all of it may still be kept; `length` is the request's
    /// `content-length`.
    pub fn is_worth_waiting_for(self, length: Option<&[u8]>) -> bool {
        let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        !self.whole && length.unwrap_or(0).max(self.total()) <= MAX_KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_of_a_body_counts_once() {
        let mut bytes = RequestBytes::default();
        for (size, goes_on, total) in [
            (10, false, 10),
            (25, false, 25),
            (30, true, 30),
            (5, true, 35),
            (0, true, 35),
        ] {
            bytes.on_body(size, goes_on);
            assert_eq!(bytes.total(), total);
            assert_eq!((bytes.charged(false), bytes.charged(true)), (total, 0));
        }
    }

    #[test]
    fn a_request_that_is_whole_or_too_large_is_not_waited_for() {
        let body = |bytes| {
            let mut body = RequestBytes::default();
            body.on_body(bytes, true);
            body
        };
        assert!(body(10).is_worth_waiting_for(None));
        assert!(body(10).is_worth_waiting_for(Some(b"33554432")));
        assert!(!body(10).is_worth_waiting_for(Some(b"33554433")));
        assert!(!body(33_554_433).is_worth_waiting_for(None));
        let mut whole = body(10);
        whole.end();
        assert!(whole.is_whole() && !whole.is_worth_waiting_for(None));
    }
}
