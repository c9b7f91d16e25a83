//! The account with the fewest requests under way.

use super::{Candidate, Need, round_robin};

/// The eligible candidate with the fewest requests under way for its weight; of several, the next
/// after `turn`.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    turn: &mut usize,
    need: &Need<'_>,
) -> Option<&'a Candidate> {
    round_robin::best(candidates, turn, need, |candidate| {
        let count = need.in_flight.count(&candidate.account.id);
        f64::from(count) / candidate.weight.as_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::super::{InFlight, Pick, fixture};
    use crate::snapshot::Policy;

    /// The accounts of `count` requests in a row, none of which ends.
    fn begin(table: &mut super::super::Table, count: usize) -> Vec<String> {
        let mut in_flight = InFlight::new();
        let pick = |_| {
            let need = super::Need {
                in_flight: &in_flight,
                ..fixture::need(Some(1), 0)
            };
            let Pick::Account { account, .. } = table.pick(&need) else {
                panic!("nobody");
            };
            in_flight.began(&account.id);
            account.id.to_string()
        };
        (0..count).map(pick).collect()
    }

    #[test]
    fn requests_go_where_the_fewest_are() {
        let mut table = fixture::table(Policy::LeastInFlight, 3);
        let mut ids = begin(&mut table, 6);
        ids.sort();
        assert_eq!(ids, ["acc_0", "acc_0", "acc_1", "acc_1", "acc_2", "acc_2"]);
    }

    #[test]
    fn idle_accounts_take_turns() {
        let mut table = fixture::table(Policy::LeastInFlight, 3);
        let mut ids: Vec<_> = (0..3).map(|_| table.id(None, 0)).collect();
        ids.sort();
        assert_eq!(ids, ["acc_0", "acc_1", "acc_2"]);
    }

    #[test]
    fn a_weight_is_a_share() {
        let mut table = fixture::table(Policy::LeastInFlight, 2);
        table.weigh("acc_0", 3);
        let ids = begin(&mut table, 8);
        let first = ids.iter().filter(|id| *id == "acc_0").count();
        assert_eq!(first, 6, "{ids:?}");
    }
}
