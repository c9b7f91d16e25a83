//! An end of a wait, on a clock that somebody may set.

/// The milliseconds by which one VM's reading of the clock may be older than another's: each takes it once in a callback,
/// which others run beside. What another VM has just written is not of a clock that was set back since.
pub const OLD_READING_MS: u64 = 1_000;

/// The end of a wait, in Unix milliseconds. Whoever sets the clock back makes nobody wait longer:
/// a wait that has not begun yet is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadline {
    set_at: u64,
    at: u64,
}

// === impl Deadline ===

impl Deadline {
    /// The end of a wait that begins at `now` and lasts `span` milliseconds.
    pub const fn after(now: u64, span: u64) -> Self {
        Self {
            set_at: now,
            at: now.saturating_add(span),
        }
    }

    /// The end `at` of a wait of at most `span` milliseconds, by somebody who keeps the end alone.
    pub fn ending(at: u64, span: u64) -> Self {
        Self {
            set_at: at.saturating_sub(span),
            at,
        }
    }

    /// The end of a wait that began at the same time and lasts `span` milliseconds, or with this one.
    pub fn end_of(self, span: u64) -> u64 {
        self.set_at.saturating_add(span).min(self.at)
    }

    /// Returns true if the wait is over `span` milliseconds after its beginning, or at its end.
    pub fn is_over(self, span: u64, now: u64) -> bool {
        now >= self.end_of(span) || now < self.set_at
    }

    /// Returns true if the wait is over.
    pub fn is_due(self, now: u64) -> bool {
        now >= self.at || now < self.set_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_in_time_or_when_the_clock_is_set_back() {
        for deadline in [Deadline::after(1_000, 500), Deadline::ending(1_500, 500)] {
            assert!(!deadline.is_due(1_000) && !deadline.is_due(1_499));
            assert!(deadline.is_due(1_500) && deadline.is_due(999));
        }
        assert!(Deadline::default().is_due(0), "no wait");
    }

    #[test]
    fn a_part_of_a_wait_ends_no_later_than_the_wait() {
        let deadline = Deadline::after(1_000, 500);
        assert_eq!((deadline.end_of(200), deadline.end_of(900)), (1_200, 1_500));
        assert!(!deadline.is_over(200, 1_199) && deadline.is_over(200, 1_200));
        assert!(deadline.is_over(0, 1_000) && deadline.is_over(200, 999));
    }
}
