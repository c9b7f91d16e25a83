//! The policy `round_robin`: each account in turn.

use super::{Candidate, Need};

/// The next eligible candidate after `turn`, which moves on to it. Each worker has a turn of its
/// own: over a few requests the shares are equal, and no worker waits for another.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    turn: &mut usize,
    need: &Need<'_>,
) -> Option<&'a Candidate> {
    let (distance, candidate) =
        in_turn(candidates, *turn).find(|(_, one)| one.is_eligible(need))?;
    *turn = after(*turn, distance, candidates.len());
    Some(candidate)
}

/// Picks each eligible candidate as often as its weight says, as evenly spread as can be: everyone
/// gains its weight, and whoever is furthest ahead pays what all have gained (the smooth weighted
/// round-robin of nginx).
pub fn pick_by_weight<'a>(
    candidates: &'a mut [Candidate],
    need: &Need<'_>,
) -> Option<&'a Candidate> {
    let mut total = 0_i64;
    let mut first: Option<&mut Candidate> = None;
    for candidate in candidates.iter_mut().filter(|one| one.is_eligible(need)) {
        let weight = i64::from(u32::from(candidate.weight));
        total = total.saturating_add(weight);
        candidate.credit = candidate.credit.saturating_add(weight);
        if first
            .as_ref()
            .is_none_or(|first| candidate.credit > first.credit)
        {
            first = Some(candidate);
        }
    }
    let first = first?;
    first.credit = first.credit.saturating_sub(total);
    Some(first)
}

/// The eligible candidate with the lowest `cost`; of several, the next after `turn`, which moves
/// on to it.
pub fn best<'a>(
    candidates: &'a [Candidate],
    turn: &mut usize,
    need: &Need<'_>,
    cost: impl Fn(&Candidate) -> f64,
) -> Option<&'a Candidate> {
    let eligible = in_turn(candidates, *turn).filter(|(_, one)| one.is_eligible(need));
    let costs = eligible.map(|(distance, one)| (distance, one, cost(one)));
    let (distance, candidate, _) = costs.min_by(|(.., a), (.., b)| a.total_cmp(b))?;
    *turn = after(*turn, distance, candidates.len());
    Some(candidate)
}

/// Lists every candidate from `turn` on, around to it, with its distance.
fn in_turn(candidates: &[Candidate], turn: usize) -> impl Iterator<Item = (usize, &Candidate)> {
    let (before, after) = candidates
        .split_at_checked(turn)
        .unwrap_or((&[], candidates));
    after.iter().chain(before).enumerate()
}

/// The turn after the candidate at that distance.
fn after(turn: usize, distance: usize, count: usize) -> usize {
    let next = turn.wrapping_add(distance).wrapping_add(1);
    next.checked_rem(count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::fixture::table;
    use crate::snapshot::Policy;

    #[test]
    fn every_account_has_its_turn() {
        let mut table = table(Policy::RoundRobin, 3);
        let first: Vec<_> = (0..3).map(|_| table.id(None, 0)).collect();
        let second: Vec<_> = (0..3).map(|_| table.id(Some(1), 0)).collect();
        assert_eq!(first, second);
        let mut sorted = first.clone();
        sorted.sort();
        assert_eq!(sorted, ["acc_0", "acc_1", "acc_2"]);
    }

    #[test]
    fn an_expired_account_is_passed_over() {
        let mut table = table(Policy::RoundRobin, 3);
        table.expire("acc_1", 5);
        let ids: Vec<_> = (0..4).map(|_| table.id(None, 5)).collect();
        assert!(!ids.contains(&"acc_1".to_owned()));
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[0], ids[2]);
    }

    #[test]
    fn turns_follow_weights() {
        for policy in [Policy::RoundRobin, Policy::Sticky] {
            let mut table = table(policy, 3);
            table.weigh("acc_0", 5);
            table.weigh("acc_1", 2);
            let ids: Vec<_> = (0..80).map(|_| table.id(None, 0)).collect();
            let mut counts: HashMap<&str, u32> = HashMap::new();
            ids.iter()
                .for_each(|id| *counts.entry(id).or_default() += 1);
            assert_eq!(counts["acc_0"], 50, "{counts:?}");
            assert_eq!(counts["acc_1"], 20, "{counts:?}");
            let longest = ids.chunk_by(|a, b| a == b).map(<[String]>::len).max();
            assert!(longest < Some(4), "one after the other: {ids:?}");
        }
    }
}
