//! The account whose quota says so: the fullest, or the one whose quota would be lost first.

use super::{Candidate, Need, round_robin};
use crate::health::quota::Outlook;

/// Ranks an account by what is known of its quota: the lowest is picked.
type Rank = fn(&Outlook) -> f64;

/// The fullest first, by the tightest window. An account of which nothing is known counts as
/// full: once it is used, its windows are known.
pub const MOST_LEFT: Rank = |outlook| -outlook.left.unwrap_or(1.0);

/// The nearest reset first: what is left of that window then would be lost. An account without a
/// known reset comes after those, and one of which nothing is left last.
pub const SOONEST_RESET: Rank = |outlook| match (outlook.left, outlook.resets_at) {
    (Some(left), _) if left <= 0.0 => f64::INFINITY,
    (_, Some(at)) => at as f64,
    (_, None) => f64::MAX,
};

/// The eligible candidate with the lowest rank; of several, the next after `turn`.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    turn: &mut usize,
    need: &Need<'_>,
    rank: Rank,
) -> Option<&'a Candidate> {
    round_robin::best(candidates, turn, need, |candidate| {
        rank(&need.board.outlook(&candidate.account.id, need.now))
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

    #[test]
    fn what_would_be_lost_first_is_used_first() {
        let board = fixture::board(&[
            ("acc_0", 0.0, 400),
            ("acc_1", 0.1, 500),
            ("acc_2", 0.9, 700),
        ]);
        let mut table = fixture::table(Policy::SoonestResetFirst, 4);
        let mut at = |now, tried: &[&str]| {
            let id = |id: &&str| (crate::id::Id::try_from(*id).unwrap(), 1);
            let tried: Vec<_> = tried.iter().map(id).collect();
            let need = Need {
                board: &board,
                tried: &tried,
                ..fixture::need(Some(1), now)
            };
            match table.pick(&need) {
                Pick::Account { account, .. } => account.id.to_string(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(at(1, &[]), "acc_1");
        assert_eq!(at(1, &["acc_1"]), "acc_2");
        assert_eq!(at(1, &["acc_1", "acc_2"]), "acc_3", "nobody knows it");
        assert_eq!(
            at(1, &["acc_1", "acc_2", "acc_3"]),
            "acc_0",
            "nothing is left"
        );
        assert_eq!(at(500, &[]), "acc_2", "that one has started anew");
    }
}
