//! The schedule by which a platform is asked about an account, and what comes of its answer. Pure: all is of `now`.
//!
//! - The first call leaves at once. Those after it come 1, 2, 4 minutes and so on after the one before, up to an hour,
//!   whatever the answers were: a caller whose requests make an account look dead again and again costs the platform no
//!   more than that. A day without a call ends the row.
//! - An account is asked at most once a minute, whatever credentials it gets.
//! - An answer that tells nothing is asked for again, [`MAX_ASKS`] times in a row. After that a caller has to be told
//!   so again first.

use std::time::Duration;

use latchkey::verdict::Reason;

use super::Finding;
use crate::clock::UnixMillis;

/// The most calls in a minute, for all accounts together and across processes.
pub const MAX_A_MINUTE: u32 = 6;
/// The calls in a row that may tell nothing: some two hours of them.
const MAX_ASKS: u32 = 8;
/// The time that the calls of a minute are counted over.
pub const MINUTE: Duration = Duration::from_secs(60);
/// The pause after the first call.
const FIRST_PAUSE: Duration = MINUTE;
/// The longest pause.
const PAUSE_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The time without a call that ends a row.
const QUIET: Duration = Duration::from_secs(24 * 60 * 60);

/// The calls about an account until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The credential that they were about.
    pub generation: u64,
    /// The number of there were in a row.
    pub asked: u32,
    /// The time when the last of them left.
    pub asked_at: UnixMillis,
    /// The time when the next one is due; none where none is.
    pub due_at: Option<UnixMillis>,
}

/// The consequence of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The account is dead for good.
    Dead(Reason),
    /// The account is alive: no death that was met before counts.
    Alive,
    /// The platform is asked again then.
    Again(UnixMillis),
    /// The platform is asked no more, until somebody is told again that the account is dead.
    Rest,
}

/// The row of calls once a client key was told at `now` that the account is dead with `generation` of its credential.
pub fn suspected(row: Option<Row>, generation: u64, now: UnixMillis) -> Row {
    let Some(row) = row else {
        return Row {
            generation,
            asked: 0,
            asked_at: UnixMillis(0),
            due_at: Some(now),
        };
    };
    // A time that has not come was noted under a clock that has jumped back since.
    let asked_at = row.asked_at.min(now);
    let goes_on = row.generation == generation && now.since(asked_at) < QUIET;
    let asked = if goes_on { row.asked } else { 0 };
    let earliest = asked_at.plus(pause(asked)).max(now);
    let due_at = match row.due_at {
        Some(due_at) if goes_on => due_at.min(earliest),
        _ => earliest,
    };
    Row {
        generation,
        asked,
        asked_at,
        due_at: Some(due_at),
    }
}

/// Says that a platform refused a credential. Any call that uses the credential tells if that is so.
const REFUSED: &str = "credential_refused";

/// The word for that, where it is a word.
pub fn refused() -> Option<Reason> {
    Reason::try_from(REFUSED.to_owned()).ok()
}

/// True if that is asked about.
pub fn is_refusal(reason: &Reason) -> bool {
    reason.as_str() == REFUSED
}

/// Decides what follows from the answer to the `asked`th call of its row, which asked about `reason`; `disproves`: a
/// good answer speaks against that; `renewable`: another credential may come in place of this one.
pub fn next(
    finding: &Finding,
    reason: &Reason,
    disproves: bool,
    renewable: bool,
    asked: u32,
    now: UnixMillis,
) -> Next {
    let again = || match asked < MAX_ASKS {
        true => Next::Again(now.plus(pause(asked))),
        false => Next::Rest,
    };
    match finding {
        Finding::Dead { reason } => Next::Dead(reason.clone()),
        Finding::Alive if disproves => Next::Alive,
        // The call cannot tell, and will not.
        Finding::Alive => Next::Rest,
        Finding::Refused if is_refusal(reason) && !renewable => Next::Dead(reason.clone()),
        Finding::Refused | Finding::Limited { .. } | Finding::Unknown { .. } => again(),
    }
}

/// The pause after so many calls in a row.
fn pause(asked: u32) -> Duration {
    let times = 2_u32.saturating_pow(asked.saturating_sub(1));
    FIRST_PAUSE.saturating_mul(times).min(PAUSE_LIMIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn dead() -> Finding {
        let reason = Reason::try_from("deactivated".to_owned()).unwrap();
        Finding::Dead { reason }
    }

    fn other() -> Reason {
        Reason::try_from("deactivated".to_owned()).unwrap()
    }

    /// A refusal is final where that is what was asked about and nothing renews the credential; else a refresh or a login
    /// may help, and it is asked again.
    #[test]
    fn a_refusal_that_nothing_can_mend_is_final() {
        let refusal = refused().unwrap();
        let next = |reason, renewable| next(&Finding::Refused, reason, true, renewable, 1, NOW);
        assert_eq!(next(&refusal, false), Next::Dead(refusal.clone()));
        assert!(matches!(next(&refusal, true), Next::Again(_)));
        assert!(matches!(next(&other(), false), Next::Again(_)));
    }

    fn unknown() -> Finding {
        Finding::Unknown {
            why: "no answer".to_owned(),
        }
    }

    #[test]
    fn the_first_call_is_due_at_once_and_the_next_ever_later() {
        let mut row = suspected(None, 1, NOW);
        assert_eq!(row.due_at, Some(NOW));
        let mut pauses = Vec::new();
        let mut now = NOW;
        for _ in 0..9 {
            row = Row {
                asked: row.asked + 1,
                asked_at: now,
                due_at: None,
                ..row
            };
            row = suspected(Some(row), 1, now);
            let due_at = row.due_at.unwrap();
            pauses.push(due_at.since(now).as_secs() / 60);
            now = due_at;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // Told again, what is due stays due.
        assert_eq!(suspected(Some(row), 1, now), row);
        row.due_at = None;
        let tomorrow = row.asked_at.plus(QUIET);
        assert_eq!(suspected(Some(row), 1, tomorrow).asked, 0);
        // Another credential is another matter, but no reason for two calls in a minute.
        let soon = row.asked_at.plus(Duration::from_secs(9));
        let anew = suspected(Some(row), 2, soon);
        assert_eq!((anew.asked, anew.generation), (0, 2));
        assert_eq!(anew.due_at.unwrap(), row.asked_at.plus(FIRST_PAUSE));
    }

    #[test]
    fn an_answer_decides_or_is_asked_for_again() {
        let Finding::Dead { reason } = dead() else {
            unreachable!()
        };
        for disproves in [true, false] {
            assert_eq!(
                next(&dead(), &other(), disproves, false, 1, NOW),
                Next::Dead(reason.clone())
            );
        }
        let alive = |disproves| next(&Finding::Alive, &other(), disproves, false, 1, NOW);
        assert_eq!(alive(true), Next::Alive);
        assert_eq!(alive(false), Next::Rest);
        let later = |asked| next(&unknown(), &other(), true, false, asked, NOW);
        assert_eq!(later(1), Next::Again(NOW.plus(FIRST_PAUSE)));
        assert!(matches!(later(MAX_ASKS - 1), Next::Again(_)));
        assert_eq!(later(MAX_ASKS), Next::Rest);
    }

    proptest! {
        /// However often callers are told so, with whatever clocks: a call is due, not before a minute has passed since
        /// the last one, and within an hour.
        #[test]
        fn no_row_spins_and_none_sleeps_for_ever(
            generation in 1..3_u64,
            asked in any::<u32>(),
            asked_at in any::<i32>(),
            due_at in prop::option::of(any::<i32>()),
            seen in 1..3_u64,
        ) {
            let at = |millis: i32| UnixMillis(NOW.0 + i64::from(millis));
            let row = Row { generation, asked, asked_at: at(asked_at), due_at: due_at.map(at) };
            let after = suspected(Some(row), seen, NOW);
            let due_at = after.due_at.unwrap();
            prop_assert!(due_at.since(NOW) <= PAUSE_LIMIT);
            prop_assert!(row.due_at.is_some() || due_at >= row.asked_at.min(NOW).plus(FIRST_PAUSE));
            prop_assert_eq!(after.generation, seen);
            if let Next::Again(at) = next(&unknown(), &other(), true, false, asked, NOW) {
                prop_assert!(at.since(NOW) >= FIRST_PAUSE && at.since(NOW) <= PAUSE_LIMIT);
            }
        }
    }
}
