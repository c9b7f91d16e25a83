//! Each account in turn.

use super::{Candidate, Need};

/// The next eligible candidate after `turn`, which moves on to it. Each worker has a turn of its
/// own: over a few requests the shares are equal, and no worker waits for another.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    turn: &mut usize,
    need: &Need<'_>,
) -> Option<&'a Candidate> {
    let (before, after) = candidates
        .split_at_checked(*turn)
        .unwrap_or((&[], candidates));
    let (distance, candidate) = after
        .iter()
        .chain(before)
        .enumerate()
        .find(|(_, candidate)| candidate.is_eligible(need))?;
    *turn = turn
        .wrapping_add(distance)
        .wrapping_add(1)
        .checked_rem(candidates.len())?;
    Some(candidate)
}

#[cfg(test)]
mod tests {
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
}
