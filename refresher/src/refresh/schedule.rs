//! The times at which to refresh, and to try again. Pure: times come in, times go out.
//!
//! A token is refreshed ahead of its expiry by five minutes, or by a tenth of its life if that is less, and never sooner
//! after the refresh before than a floor: a platform that grants tokens of no life must not make us spin. Nothing here
//! waits: the engine compares what these functions say with the wall clock each time it wakes, so that a clock that
//! jumps or a machine that slept changes the very next decision.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::UnixMillis;
use crate::id::AccountId;

/// The longest lead ahead of expiry; Codex CLI's own.
const LEAD_LIMIT: Duration = Duration::from_secs(5 * 60);
/// The lead of a short-lived token: this part of its life.
const LEAD_DIVISOR: u32 = 10;
/// The part of the lead by which jitter may lengthen it.
const LEAD_JITTER: f64 = 0.1;
/// The age at which a token of unknown expiry is refreshed, as Codex CLI has it.
pub const LIFE_WITHOUT_EXPIRY: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// The pause after the first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause, and the most that a `Retry-After` is believed.
pub const BACKOFF_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The part of a pause that jitter may take off it.
const BACKOFF_JITTER: f64 = 0.25;

/// A fraction in `[0, 1)` that spreads accounts apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// No jitter.
    pub const NONE: Jitter = Jitter(0.0);

    /// The jitter of one generation of one account: the same each time and in each process, so that asking twice
    /// gives one answer.
    pub fn of(account: &AccountId, generation: u64) -> Jitter {
        let mut hash = Sha256::new();
        hash.update(account.as_str());
        hash.update(generation.to_le_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
        Jitter(f64::from(u32::from_le_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0))
    }

    /// A jitter drawn anew.
    pub fn random() -> Jitter {
        Jitter(rand::random())
    }

    fn of_duration(self, duration: Duration, part: f64) -> Duration {
        duration.mul_f64(part * self.0)
    }
}

/// Returns when a token issued at `issued` is due for a refresh. Never after `expires`.
pub fn refresh_at(issued: UnixMillis, expires: Option<UnixMillis>, jitter: Jitter) -> UnixMillis {
    let Some(expires) = expires else {
        return issued.plus(LIFE_WITHOUT_EXPIRY);
    };
    let lead = (expires.since(issued) / LEAD_DIVISOR).min(LEAD_LIMIT);
    expires.minus(lead + jitter.of_duration(lead, LEAD_JITTER))
}

/// Returns the time until a token is due for a refresh, no sooner than `floor` after it was issued. A token that was
/// issued in the future shows that the clock was set back since, so the floor says nothing; the refresh that this may
/// cost is issued under the new clock.
pub fn wait(
    issued: UnixMillis,
    expires: Option<UnixMillis>,
    floor: Duration,
    jitter: Jitter,
    now: UnixMillis,
) -> Duration {
    let due = refresh_at(issued, expires, jitter).since(now);
    let rest = issued.plus(floor).since(now);
    if rest > floor { due } else { due.max(rest) }
}

/// The pause after the `failures`th failure in a row (1 is the first). `retry_after`, what the server asked
/// for, is honoured up to [`BACKOFF_LIMIT`].
pub fn backoff(failures: u32, retry_after: Option<Duration>, jitter: Jitter) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let pause = BACKOFF_FIRST
        .saturating_mul(1 << doublings)
        .min(BACKOFF_LIMIT);
    let pause = pause - jitter.of_duration(pause, BACKOFF_JITTER);
    pause.max(retry_after.unwrap_or_default().min(BACKOFF_LIMIT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 60 * 60 * 1000;

    fn jitters() -> impl Strategy<Value = Jitter> {
        (0.0..1.0f64).prop_map(Jitter)
    }

    #[test]
    fn the_lead_is_five_minutes_or_a_tenth_of_the_life() {
        let issued = UnixMillis(1_000_000);
        let after = |millis| {
            refresh_at(issued, Some(UnixMillis(1_000_000 + millis)), Jitter::NONE).0 - 1_000_000
        };
        assert_eq!(after(10 * 24 * HOUR), 10 * 24 * HOUR - 5 * 60 * 1000);
        assert_eq!(after(6_000), 5_400);
        assert_eq!(
            refresh_at(issued, None, Jitter::NONE),
            issued.plus(LIFE_WITHOUT_EXPIRY)
        );
    }

    #[test]
    fn the_jitter_of_a_generation_is_stable_and_differs_between_generations() {
        let account = AccountId::random();
        assert_eq!(Jitter::of(&account, 1), Jitter::of(&account, 1));
        assert_ne!(Jitter::of(&account, 1), Jitter::of(&account, 2));
    }

    #[test]
    fn half_an_hour_of_outage_costs_at_most_twelve_calls() {
        let mostly_jittered = Jitter(0.999);
        let mut elapsed = Duration::ZERO;
        let mut calls = 1;
        while elapsed + backoff(calls, None, mostly_jittered) < Duration::from_secs(30 * 60) {
            elapsed += backoff(calls, None, mostly_jittered);
            calls += 1;
        }
        assert!(calls <= 12, "{calls} calls");
    }

    proptest! {
        #[test]
        fn never_after_expiry_and_no_earlier_than_the_lead(issued: i64, expires: i64, jitter in jitters()) {
            let at = refresh_at(UnixMillis(issued), Some(UnixMillis(expires)), jitter);
            prop_assert!(at <= UnixMillis(expires));
            prop_assert!(at >= UnixMillis(expires).minus(LEAD_LIMIT.mul_f64(1.0 + LEAD_JITTER)));
        }

        #[test]
        fn a_later_expiry_is_refreshed_no_earlier(
            issued: i64, one: i64, other: i64, jitter in jitters(),
        ) {
            let (sooner, later) = (one.min(other), one.max(other));
            let at = |expires| refresh_at(UnixMillis(issued), Some(UnixMillis(expires)), jitter);
            // A millisecond of slack: a tenth of a duration is rounded.
            prop_assert!(at(sooner).0 <= at(later).0.saturating_add(1));
        }

        #[test]
        fn a_clock_an_hour_off_at_issue_moves_the_refresh_by_no_more_than_the_lead(
            life in 1..30 * 24 * HOUR, skew in -HOUR..=HOUR, jitter in jitters(),
        ) {
            let issued = UnixMillis(1_790_000_000_000);
            let expires = UnixMillis(issued.0 + life);
            let right = refresh_at(issued, Some(expires), jitter);
            let skewed = refresh_at(UnixMillis(issued.0 + skew), Some(expires), jitter);
            let most = i64::try_from(LEAD_LIMIT.mul_f64(1.0 + LEAD_JITTER).as_millis()).unwrap();
            prop_assert!((right.0 - skewed.0).abs() <= most);
            prop_assert!(skewed <= expires);
        }

        /// Under a clock that goes on, jumps ahead and is set back, tokens of any life, none included, are refreshed no
        /// oftener than once a floor that the clock went forward, and once for each time that it was set back.
        #[test]
        fn no_clock_and_no_life_makes_it_spin(
            life in prop_oneof![Just(0), 0..100i64, 0..40_000i64, 0..HOUR],
            floor in 1..60_000i64,
            steps in proptest::collection::vec(
                prop_oneof![4 => 0..50i64, 3 => 0..60_000i64, 1 => -24 * HOUR..24 * HOUR], 1..300,
            ),
            jitter in jitters(),
        ) {
            let least = Duration::from_millis(u64::try_from(floor).unwrap());
            let mut now = UnixMillis(1_790_000_000_000);
            let (mut issued, mut expires) = (now, UnixMillis(now.0 + life));
            let (mut refreshes, mut ahead, mut set_back) = (0, 0, 0);
            for step in steps {
                now = UnixMillis(now.0 + step);
                ahead += step.max(0);
                set_back += i64::from(step < 0);
                if wait(issued, Some(expires), least, jitter, now).is_zero() {
                    (issued, expires) = (now, UnixMillis(now.0 + life));
                    refreshes += 1;
                }
                let pause = wait(issued, Some(expires), least, jitter, now);
                prop_assert!(issued != now || pause >= least, "due again after {:?}", pause);
            }
            prop_assert!(refreshes <= ahead / floor + set_back, "{} refreshes", refreshes);
        }

        /// A token that outlives its floor is due when its end says so, whatever the clock does.
        #[test]
        fn the_floor_delays_no_token_that_outlives_it(
            life in 60_000..30 * 24 * HOUR, passed in -24 * HOUR..30 * 24 * HOUR, jitter in jitters(),
        ) {
            let issued = UnixMillis(1_790_000_000_000);
            let expires = Some(UnixMillis(issued.0 + life));
            let now = UnixMillis(issued.0 + passed);
            let due = refresh_at(issued, expires, jitter).since(now);
            prop_assert_eq!(wait(issued, expires, Duration::from_secs(30), jitter, now), due);
        }

        #[test]
        fn a_pause_is_bounded_grows_and_honours_retry_after(
            failures: u32, retry_after in proptest::option::of(any::<u64>()), jitter in jitters(),
        ) {
            let asked = retry_after.map(Duration::from_secs);
            let pause = backoff(failures, asked, jitter);
            prop_assert!(pause >= BACKOFF_FIRST.mul_f64(1.0 - BACKOFF_JITTER));
            prop_assert!(pause <= BACKOFF_LIMIT);
            prop_assert!(pause >= asked.unwrap_or_default().min(BACKOFF_LIMIT));
            prop_assert!(pause <= backoff(failures.saturating_add(1), asked, jitter));
        }
    }
}
