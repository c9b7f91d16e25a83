//! Picks an account of a pool.
//!
//! A [`Table`] holds the candidates of one pool for one path. It is made once for each state of
//! the snapshot; a pick then costs what its policy needs and no more.

pub mod round_robin;
pub mod sticky;

use std::rc::Rc;

use crate::{
    hash::hash64,
    header::HeaderText,
    health::{Board, Standing},
    id::Id,
    snapshot::{Account, Policy, Pool, View, pool::Weight},
    verdict::Reason,
};

/// The accounts of a pool that serve one path.
#[derive(Debug)]
pub struct Table {
    policy: Policy,
    /// By position on the ring of hashes.
    candidates: Vec<Candidate>,
    /// Whether all weights are equal.
    even: bool,
    /// Counts the picks that take each account in turn.
    turn: usize,
}

/// An account that may be picked.
#[derive(Debug)]
pub struct Candidate {
    account: Rc<Account>,
    weight: Weight,
    hash: u64,
    /// The account's own, here so that a pick among many stays within one stretch of memory.
    expires_at: Option<u64>,
}

/// What a request needs of an account.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// Its session, if it has one.
    pub session: Option<u64>,
    /// Unix milliseconds.
    pub now: u64,
    /// Which accounts are out.
    pub board: &'a Board,
    /// The accounts that this request was tried on, with the generation of the credential.
    pub tried: &'a [(Id, u64)],
}

/// What became of a pick.
#[derive(Debug)]
pub enum Pick {
    /// This account.
    Account {
        /// The account.
        account: Rc<Account>,
        /// It is half-open: take the probe first.
        half_open: bool,
    },
    /// There are candidates, but none that may be used now.
    AllOut(Vec<Out>),
    /// There is no candidate.
    None,
}

/// A candidate that may not be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// The account's name.
    pub name: HeaderText,
    /// Why.
    pub reason: Reason,
    /// When it is back, in Unix milliseconds; none where only a new credential brings it back.
    pub until: Option<u64>,
}

// === impl Table ===

impl Table {
    /// The candidates of `pool` for `path`.
    pub fn new(view: &View, pool: &Pool, path: &str) -> Self {
        let candidate = |account: &Rc<Account>, weight| Candidate {
            account: Rc::clone(account),
            weight,
            hash: hash64(&[account.id.as_str().as_bytes()]),
            expires_at: account.expires_at,
        };
        let mut candidates: Vec<_> = pool
            .members
            .iter()
            .filter_map(|member| Some((view.account(member.account.as_str())?, member.weight)))
            .filter(|(account, _)| {
                let platform = view.platform(&account.platform);
                platform.is_some_and(|platform| platform.route(path).is_some())
            })
            .map(|(account, weight)| candidate(account, weight))
            .collect();
        candidates.sort_by_key(|candidate| candidate.hash);
        let weights = candidates.iter().map(|candidate| candidate.weight);
        Self {
            policy: pool.policy,
            even: weights
                .clone()
                .zip(weights.skip(1))
                .all(|(one, next)| one == next),
            candidates,
            turn: 0,
        }
    }

    /// Picks an account for a request. One without a session takes its turn, whatever the policy.
    pub fn pick(&mut self, need: &Need<'_>) -> Pick {
        let picked = match (self.policy, need.session) {
            (Policy::Sticky, Some(session)) => {
                sticky::pick(&self.candidates, session, self.even, need)
            }
            (Policy::Sticky, None) | (Policy::RoundRobin, _) => {
                round_robin::pick(&self.candidates, &mut self.turn, need)
            }
        };
        match picked {
            Some(candidate) => Pick::Account {
                account: Rc::clone(&candidate.account),
                half_open: candidate.is_half_open(need),
            },
            None if self.candidates.is_empty() => Pick::None,
            None => Pick::AllOut(self.candidates.iter().map(|one| one.out(need)).collect()),
        }
    }

    /// Whether any candidate may be used.
    pub fn can_serve(&self, need: &Need<'_>) -> bool {
        self.candidates.iter().any(|one| one.is_eligible(need))
    }
}

// === impl Candidate ===

impl Candidate {
    /// Whether a request may be sent with it.
    fn is_eligible(&self, need: &Need<'_>) -> bool {
        !self.is_expired(need)
            && (need.board.is_empty() || !matches!(self.standing(need), Standing::Out(_)))
            && !self.was_tried(need)
    }

    /// Whether the credential is past its end.
    fn is_expired(&self, need: &Need<'_>) -> bool {
        self.expires_at.is_some_and(|end| need.now >= end)
    }

    fn is_half_open(&self, need: &Need<'_>) -> bool {
        !need.board.is_empty() && matches!(self.standing(need), Standing::HalfOpen(_))
    }

    fn standing<'a>(&self, need: &Need<'a>) -> Standing<'a> {
        need.board.standing(&self.account, None, need.now)
    }

    /// With another credential an account is worth another try.
    fn was_tried(&self, need: &Need<'_>) -> bool {
        let tried = |(id, generation): &(Id, u64)| {
            *id == self.account.id && *generation == self.account.generation
        };
        need.tried.iter().any(tried)
    }

    /// Why it may not be used.
    fn out(&self, need: &Need<'_>) -> Out {
        let name = self.account.name.clone();
        match self.standing(need) {
            Standing::Out(entry) => Out {
                name,
                reason: entry.reason.clone(),
                until: entry.generation.is_none().then_some(entry.until),
            },
            _ if self.is_expired(need) => Out {
                name,
                reason: Reason::known("expired"),
                until: None,
            },
            _ => Out {
                name,
                reason: Reason::known("tried"),
                until: Some(need.now),
            },
        }
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use crate::snapshot::{Record, fixture};

    static NOBODY: Board = Board::new();

    /// What a first try needs where nobody is out.
    pub(crate) fn need(session: Option<u64>, now: u64) -> Need<'static> {
        Need {
            session,
            now,
            board: &NOBODY,
            tried: &[],
        }
    }

    /// `count` candidates of equal weight in a table.
    pub(crate) fn table(policy: Policy, count: usize) -> Table {
        let ids: Vec<String> = (0..count).map(|n| format!("acc_{n}")).collect();
        let mut records = vec![Record::Platform(fixture::platform("codex"))];
        records.extend(
            ids.iter()
                .map(|id| Record::Account(fixture::account(id, "codex"))),
        );
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let pool = fixture::pool("default", policy, &ids);
        Table::new(&View::of(&records), &pool, "/v1/responses")
    }

    impl Table {
        /// Lets the credential of `id` end at `at`.
        pub(crate) fn expire(&mut self, id: &str, at: u64) {
            for candidate in &mut self.candidates {
                if candidate.account.id.as_str() == id {
                    candidate.expires_at = Some(at);
                }
            }
        }

        /// Sets the weight of `id`.
        pub(crate) fn weigh(&mut self, id: &str, weight: u32) {
            for candidate in &mut self.candidates {
                if candidate.account.id.as_str() == id {
                    candidate.weight = Weight::try_from(weight).unwrap();
                }
            }
            self.even = false;
        }

        /// The id that is picked.
        pub(crate) fn id(&mut self, session: Option<u64>, now: u64) -> String {
            match self.pick(&need(session, now)) {
                Pick::Account { account, .. } => account.id.to_string(),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_only_accounts_that_serve_the_path() {
        use crate::snapshot::{Record, fixture};
        let records = [
            Record::Platform(fixture::platform("codex")),
            Record::Platform(fixture::platform("anthropic")),
            Record::Account(fixture::account("acc_1", "codex")),
            Record::Account(fixture::account("acc_2", "anthropic")),
        ];
        let view = View::of(&records);
        let pool = fixture::pool(
            "default",
            Policy::RoundRobin,
            &["acc_1", "acc_2", "acc_gone"],
        );
        let mut table = Table::new(&view, &pool, "/v1/messages");
        assert_eq!(table.id(None, 0), "acc_2");
        assert_eq!(table.id(None, 0), "acc_2");
        let nothing = Table::new(&view, &pool, "/v1/nothing");
        assert!(nothing.candidates.is_empty());
    }

    #[test]
    fn expired_accounts_are_told_from_no_accounts() {
        use super::fixture::{need, table};
        let mut expiring = table(Policy::Sticky, 1);
        expiring.expire("acc_0", 10);
        assert_eq!(expiring.id(Some(1), 9), "acc_0");
        let Pick::AllOut(out) = expiring.pick(&need(Some(1), 10)) else {
            panic!("an expired account was picked");
        };
        assert_eq!(out[0].reason.as_str(), "expired");
        let mut empty = table(Policy::Sticky, 0);
        assert!(matches!(empty.pick(&need(None, 0)), Pick::None));
    }

    #[test]
    fn accounts_that_are_out_or_tried_are_passed_over() {
        use super::fixture::{need, table};
        use crate::verdict::Verdict;
        let mut table = table(Policy::Sticky, 3);
        let favourite = table.id(Some(7), 0);
        let account = crate::snapshot::fixture::account(&favourite, "codex");
        let mut board = Board::default();
        for _ in 0..crate::health::STRIKES {
            board.post(&account, &Verdict::PlatformTrouble { until: 500 }, 0);
        }

        let mut at = |now, tried: &[(Id, u64)]| {
            let need = Need {
                board: &board,
                tried,
                ..need(Some(7), now)
            };
            table.pick(&need)
        };
        let Pick::Account {
            account: second,
            half_open: false,
        } = at(499, &[])
        else {
            panic!("nobody stands in");
        };
        assert_ne!(second.id.as_str(), favourite);
        let Pick::Account {
            account: first,
            half_open: true,
        } = at(500, &[])
        else {
            panic!("the session does not return");
        };
        assert_eq!(first.id.as_str(), favourite);
        let Pick::Account { account: third, .. } = at(499, &[(second.id.clone(), 1)]) else {
            panic!("the third is not tried");
        };
        let tried = [(second.id.clone(), 1), (third.id.clone(), 1)];
        let Pick::AllOut(out) = at(499, &tried) else {
            panic!("one was tried twice");
        };
        assert_eq!(out.len(), 3);
        assert!(out.iter().any(|one| one.until == Some(500)), "{out:?}");
        let again = [(second.id.clone(), 0), (third.id.clone(), 0)];
        assert!(
            matches!(at(499, &again), Pick::Account { .. }),
            "a new credential is worth a try"
        );
    }
}
