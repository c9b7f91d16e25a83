//! Picks an account of a pool.
//!
//! A [`Table`] holds the candidates of one pool for one path. It is made once for each state of
//! the snapshot; a pick then costs what its policy needs and no more.

pub mod round_robin;
pub mod sticky;

use std::rc::Rc;

use crate::{
    hash::hash64,
    snapshot::{Account, Policy, Pool, View, pool::Weight},
};

/// The accounts of a pool that serve one path.
#[derive(Debug)]
pub struct Table {
    policy: Policy,
    /// By position on the ring of hashes.
    candidates: Vec<Candidate>,
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

/// What became of a pick.
#[derive(Debug)]
pub enum Pick {
    /// This account.
    Account(Rc<Account>),
    /// There are candidates, but the credential of each is past its end.
    AllExpired,
    /// There is no candidate.
    None,
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
        Self {
            policy: pool.policy,
            candidates,
            turn: 0,
        }
    }

    /// Picks an account for a request of `session` at `now`, in Unix milliseconds. A request
    /// without a session takes its turn, whatever the policy.
    pub fn pick(&mut self, session: Option<u64>, now: u64) -> Pick {
        let picked = match (self.policy, session) {
            (Policy::Sticky, Some(session)) => sticky::pick(&self.candidates, session, now),
            (Policy::Sticky, None) | (Policy::RoundRobin, _) => {
                round_robin::pick(&self.candidates, &mut self.turn, now)
            }
        };
        match picked {
            Some(candidate) => Pick::Account(Rc::clone(&candidate.account)),
            None if self.candidates.is_empty() => Pick::None,
            None => Pick::AllExpired,
        }
    }

    /// Whether there is a candidate at all.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }
}

// === impl Candidate ===

impl Candidate {
    /// Whether a request may be sent with it at `now`.
    fn is_eligible(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use crate::snapshot::{Record, fixture};

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
        }

        /// The id that is picked.
        pub(crate) fn id(&mut self, session: Option<u64>, now: u64) -> String {
            match self.pick(session, now) {
                Pick::Account(account) => account.id.to_string(),
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
        assert!(Table::new(&view, &pool, "/v1/nothing").is_empty());
    }

    #[test]
    fn expired_accounts_are_told_from_no_accounts() {
        let mut table = fixture::table(Policy::Sticky, 1);
        table.expire("acc_0", 10);
        assert!(matches!(table.pick(Some(1), 9), Pick::Account(_)));
        assert!(matches!(table.pick(Some(1), 10), Pick::AllExpired));
        assert!(matches!(
            fixture::table(Policy::Sticky, 0).pick(None, 0),
            Pick::None
        ));
    }
}
