//! An answer that is held back until it can be judged.

use crate::deadline::Deadline;

/// The milliseconds for which an answer is held that could tell more than it has: from an error's
/// headers on, and from a good answer's first byte. Errors come in one piece; before its first
/// byte a model may think for minutes.
pub const JUDGE_MS: u64 = 2_000;

/// An answer that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    status: u16,
    size: usize,
    /// The time at which it is judged by what there is; none before its first byte.
    until: Option<Deadline>,
}

/// The part of an answer that has come when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// There may be more.
    Some,
    /// There may be more, but it is judged by what there is.
    Enough,
    /// All of it.
    All,
}

// === impl Holding ===

impl Holding {
    /// An answer of which the headers came at `now`, in Unix milliseconds.
    pub fn new(status: u16, now: u64) -> Self {
        let mut held = Self {
            status,
            size: 0,
            until: None,
        };
        if !held.is_good() {
            held.until = Some(Deadline::after(now, JUDGE_MS));
        }
        held
    }

    /// Tells a status that says no error.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The bytes of the body that are held.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Notes that so much of the body is held at `now`.
    pub fn grows(&mut self, size: usize, now: u64) {
        self.size = size;
        if size > 0 {
            self.until.get_or_insert(Deadline::after(now, JUDGE_MS));
        }
    }

    /// Tells an answer that will be due some time, though nothing more comes.
    pub fn has_end(&self) -> bool {
        self.until.is_some()
    }

    /// Tells an answer that has to be judged now, by what there is.
    pub fn is_due(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until.is_due(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    #[test]
    fn an_error_is_held_for_two_seconds_from_its_headers_on() {
        let mut held = Holding::new(429, NOW);
        assert!(held.has_end());
        held.grows(9, NOW + 1_500);
        assert!(!held.is_due(NOW + JUDGE_MS - 1) && held.is_due(NOW + JUDGE_MS));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_longer() {
        let held = Holding::new(429, NOW);
        assert!(!held.is_due(NOW) && held.is_due(NOW - 1));
    }

    #[test]
    fn a_good_answer_is_held_as_long_from_its_first_byte_on() {
        let mut held = Holding::new(200, NOW);
        held.grows(0, NOW + 1);
        assert!(!held.has_end() && !held.is_due(u64::MAX));
        held.grows(3, NOW + 60_000);
        held.grows(4, NOW + 61_000);
        assert!(!held.is_due(NOW + 61_999) && held.is_due(NOW + 62_000));
    }
}
