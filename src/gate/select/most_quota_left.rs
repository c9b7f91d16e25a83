//! The account that has used least of its quota.

use super::{Candidate, Need, round_robin};

/// The eligible candidate with the most left of its tightest window; of several, the next after
/// `turn`. One of which nothing is known counts as full: once it is used, its windows are known.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    turn: &mut usize,
    need: &Need<'_>,
) -> Option<&'a Candidate> {
    round_robin::best(candidates, turn, need, |candidate| {
        let outlook = need.board.outlook(&candidate.account.id, need.now);
        -outlook.left.unwrap_or(1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Need, Pick, fixture};
    use crate::snapshot::Policy;

    #[test]
    fn the_fullest_account_is_next() {
        let board = fixture::board(&[
            ("acc_0", 0.2, 900),
            ("acc_1", 0.7, 500),
            ("acc_2", 0.7, 700),
        ]);
        let mut table = fixture::table(Policy::MostQuotaLeft, 3);
        let mut at = |now| {
            let need = Need {
                board: &board,
                ..fixture::need(Some(1), now)
            };
            match table.pick(&need) {
                Pick::Account { account, .. } => account.id.to_string(),
                other => panic!("{other:?}"),
            }
        };
        let mut first: Vec<_> = (0..4).map(|_| at(1)).collect();
        first.sort();
        assert_eq!(
            first,
            ["acc_1", "acc_1", "acc_2", "acc_2"],
            "equals take turns"
        );
        assert_eq!(
            [at(500), at(600)],
            ["acc_1", "acc_1"],
            "its window starts anew"
        );
    }

    #[test]
    fn one_that_nobody_knows_is_full() {
        let board = fixture::board(&[("acc_0", 0.9, 900)]);
        let mut table = fixture::table(Policy::MostQuotaLeft, 2);
        let need = Need {
            board: &board,
            ..fixture::need(None, 1)
        };
        for _ in 0..3 {
            let Pick::Account { account, .. } = table.pick(&need) else {
                panic!("nobody");
            };
            assert_eq!(account.id.as_str(), "acc_1");
        }
    }
}
