//! The same account for the same session: weighted rendezvous hashing.
//!
//! Each eligible account draws a score from the session and its own hash, and the highest
//! wins (Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005). Nothing
//! is stored: every worker and every Envoy finds the same account, only the sessions of an
//! account that goes move, and they return with it.

use super::{Candidate, Need};
use crate::hash::combine;

/// The most candidates for which a session draws scores at a time. A larger pool is a ring of
/// hashes, on which the session starts at its own place and looks at this many: the cost of a pick
/// does not grow with the pool, and an account that goes or comes moves few other sessions.
pub const WINDOW: usize = 64;

/// The eligible candidate with the highest score for `session`. `even`: all weights are equal.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    session: u64,
    even: bool,
    need: &Need<'_>,
) -> Option<&'a Candidate> {
    let start = match candidates.len() {
        0..=WINDOW => 0,
        _ => candidates.partition_point(|candidate| candidate.hash < session),
    };
    let (before, after) = candidates.split_at_checked(start)?;
    let mut ring = after.iter().chain(before);
    for _ in candidates.chunks(WINDOW) {
        let scored = ring
            .by_ref()
            .take(WINDOW)
            .filter(|candidate| candidate.is_eligible(need))
            .map(|candidate| (score(candidate, session, even), candidate));
        let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
        if let Some((_, candidate)) = best {
            return Some(candidate);
        }
    }
    None
}

/// `-weight / ln(u)` for a `u` drawn evenly from (0, 1): the highest of several is each one's
/// with a chance in proportion to its weight. It grows with `u`, so where all weights are equal
/// `u` itself finds the same candidate, without a logarithm for each.
fn score(candidate: &Candidate, session: u64, even: bool) -> f64 {
    let bits = u32::try_from(combine(session, candidate.hash) >> 32).unwrap_or_default();
    let u = (f64::from(bits) + 0.5) / 4_294_967_296.0;
    if even {
        u
    } else {
        -candidate.weight.as_f64() / u.ln()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::fixture::table;
    use crate::snapshot::Policy;

    /// Sessions as the gate draws them.
    fn sessions(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| crate::hash::hash64(&[&n.to_le_bytes()]))
    }

    #[test]
    fn an_account_that_goes_moves_only_its_own_sessions() {
        for size in [10, 500] {
            let mut table = table(Policy::Sticky, size);
            let before: Vec<_> = sessions(1_000).map(|s| table.id(Some(s), 0)).collect();
            table.expire("acc_3", 10);
            for (session, old) in sessions(1_000).zip(&before) {
                let new = table.id(Some(session), 10);
                assert_eq!(new != *old, old == "acc_3", "{session}: {old} to {new}");
            }
            for (session, old) in sessions(1_000).zip(&before) {
                assert_eq!(table.id(Some(session), 9), *old);
            }
        }
    }

    #[test]
    fn equal_weights_pick_as_if_there_were_none() {
        let mut light = table(Policy::Sticky, 20);
        let mut heavy = table(Policy::Sticky, 20);
        for n in 0..20 {
            heavy.weigh(&format!("acc_{n}"), 7);
        }
        assert!(light.tiers[0].even);
        for session in sessions(500) {
            assert_eq!(light.id(Some(session), 0), heavy.id(Some(session), 0));
        }
    }

    #[test]
    fn shares_follow_weights() {
        let mut table = table(Policy::Sticky, 4);
        table.weigh("acc_0", 5);
        let mut counts: HashMap<String, u32> = HashMap::new();
        for session in sessions(8_000) {
            *counts.entry(table.id(Some(session), 0)).or_default() += 1;
        }
        // Five of eight parts of 8,000, and one of eight: within six standard deviations.
        assert!(counts["acc_0"].abs_diff(5_000) < 260, "{counts:?}");
        assert!(counts["acc_1"].abs_diff(1_000) < 180, "{counts:?}");
    }

    #[test]
    fn a_large_pool_is_used_evenly_enough() {
        let mut table = table(Policy::Sticky, 1_000);
        let mut counts: HashMap<String, u32> = HashMap::new();
        for session in sessions(20_000) {
            *counts.entry(table.id(Some(session), 0)).or_default() += 1;
        }
        assert!(counts.len() > 990, "{} accounts used", counts.len());
        assert!(
            counts.values().all(|count| *count < 60),
            "{:?}",
            counts.values().max()
        );
    }

    #[test]
    fn an_eligible_account_is_found_wherever_it_is() {
        let mut table = table(Policy::Sticky, 300);
        for n in 0..299 {
            table.expire(&format!("acc_{n}"), 1);
        }
        for session in sessions(50) {
            assert_eq!(table.id(Some(session), 1), "acc_299");
        }
    }
}
