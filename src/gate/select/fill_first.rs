//! The first account in the operator's order, until it is out.

use super::{Candidate, Need};

/// The first eligible candidate.
pub fn pick<'a>(candidates: &'a [Candidate], need: &Need<'_>) -> Option<&'a Candidate> {
    candidates
        .iter()
        .find(|candidate| candidate.is_eligible(need))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::table;
    use crate::snapshot::Policy;

    #[test]
    fn the_first_serves_until_it_is_out() {
        let mut table = table(Policy::FillFirst, 12);
        let ids: Vec<_> = (0..3).map(|n| table.id(Some(n), 0)).collect();
        assert_eq!(ids, ["acc_0", "acc_0", "acc_0"]);
        table.expire("acc_0", 5);
        table.expire("acc_1", 5);
        assert_eq!(table.id(None, 5), "acc_2");
        assert_eq!(table.id(None, 4), "acc_0");
    }
}
