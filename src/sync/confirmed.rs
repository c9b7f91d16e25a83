//! The time at which the refresher last confirmed what shared data holds: with each answer to a poll, also one
//! that brings nothing new. An operator may bound how long an Envoy goes on without that.

use crate::{
    deadline::{Deadline, OLD_READING_MS},
    host::{SharedData, shared_key},
};

const CONFIRMED_KEY: &str = shared_key!("confirmed");

/// Notes an answer at `now`.
pub fn note(shared: &mut impl SharedData, now: u64) {
    shared.write(CONFIRMED_KEY, &now.to_le_bytes());
}

/// The end of the `span` milliseconds after the last answer; past where there was none, or the
/// clock was set back since by more than a reading is old.
pub fn until(shared: &impl SharedData, span: u64) -> Deadline {
    let noted = shared.read(CONFIRMED_KEY);
    let at = noted.and_then(|(bytes, _)| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    at.map_or(Deadline::default(), |at| {
        Deadline::ending(at.saturating_add(span), span.saturating_add(OLD_READING_MS))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeSharedData;

    #[test]
    fn a_reading_that_is_a_little_older_than_the_note_is_good() {
        let mut shared = FakeSharedData::default();
        assert!(until(&shared, 60_000).is_due(1_000_000), "nobody confirmed");
        note(&mut shared, 1_000_000);
        for (now, is_due) in [
            (1_000_000, false),
            (1_059_999, false),
            (1_060_000, true),
            (1_000_000 - OLD_READING_MS, false),
            (1_000_000 - OLD_READING_MS - 1, true),
        ] {
            assert_eq!(until(&shared, 60_000).is_due(now), is_due, "{now}");
        }
    }
}
