//! The account of which a window starts anew first: what is left of it then would be lost.

use super::{Candidate, Need, round_robin};

/// The eligible candidate whose next reset is nearest; of several, the next after `turn`. One
/// without a known reset comes after those, and one of which nothing is left last.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    turn: &mut usize,
    need: &Need<'_>,
) -> Option<&'a Candidate> {
    round_robin::best(candidates, turn, need, |candidate| {
        let outlook = need.board.outlook(&candidate.account.id, need.now);
        match (outlook.left, outlook.resets_at) {
            (Some(left), _) if left <= 0.0 => f64::INFINITY,
            (_, Some(at)) => at as f64,
            (_, None) => f64::MAX,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Need, Pick, fixture};
    use crate::snapshot::Policy;

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
