//! Picks an account of a pool.
//!
//! A [`Table`] holds the candidates of one pool for one door. It is built once for each state of the
//! snapshot. A pick then costs what its policy needs and no more.
//!
//! An account is a candidate if its platform has an endpoint for the door. It may be picked if it is not
//! out, neither it nor its credential has ended, it serves the model, the request meets what its endpoint
//! requires, and the caller asked for no other account. The first tier with such an account is used; in it those
//! that speak the caller's dialect come before those for which the request is translated, where it may be.
//! Within the tier the pool's policy decides:
//!
//! | policy | account |
//! |---|---|
//! | `sticky` | by weighted rendezvous hash of the session: the same on every worker and every Envoy, with nothing stored. It returns to its account after a cooldown. A request without a session takes a turn |
//! | `round_robin` | smooth weighted round-robin. Each worker has a turn of its own |
//! | `most_quota_left` | the one whose tightest window has the most left. An account of unknown quota counts as full |
//! | `soonest_reset_first` | the one whose window resets first: what is left of it would be lost |
//! | `least_in_flight` | the fewest requests under way for its weight, as this worker sees it. A count for all workers would cost two compare-and-swaps a request on one place in shared data |
//! | `fill_first` | the first in the operator's order until it is out |

mod candidate;
pub mod fill_first;
pub mod in_flight;
pub mod least_in_flight;
pub mod quota;
pub mod round_robin;
pub mod sticky;

use std::{ops::Range, rc::Rc};

pub use self::{
    candidate::{Back, Candidate, Out},
    in_flight::InFlight,
};
use crate::{
    dialect::SessionName,
    health::{Board, Striker},
    id::Id,
    limit::FullAccounts,
    request::{Lacks, peek::Wanted},
    snapshot::{Account, Door, EndpointId, Policy, Pool, Requirement, View},
};

/// The accounts of a pool that answer what is asked at one door.
#[derive(Debug)]
pub struct Table {
    policy: Policy,
    /// The candidates, by tier, then by position on the ring of hashes, or in the pool where the policy goes by
    /// that.
    candidates: Vec<Candidate>,
    tiers: Vec<Stretch>,
    wanted: Wanted,
    keeps_things: bool,
    depends_on_length: bool,
}

/// The candidates of one tier: those that speak the caller's dialect before those for which the request is
/// translated.
#[derive(Debug)]
struct Stretch {
    range: Range<usize>,
    /// All weights are equal.
    even: bool,
    /// Counts the picks that take each account in turn.
    turn: usize,
}

/// The needs of a request.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// Its session, if it has one.
    pub session: Option<u64>,
    /// The turn is the first of that, as far as can be told: no account has it in its prompt cache.
    pub opens: bool,
    /// Unix milliseconds.
    pub now: u64,
    /// Its client key, as the board knows it.
    pub key: Striker,
    /// Its caller may be told the names of accounts.
    pub shows_names: bool,
    /// The accounts that are out.
    pub board: &'a Board,
    /// The accounts that are at a limit.
    pub full: &'a FullAccounts,
    /// The accounts that this request was tried on, with the generation of the credential.
    pub tried: &'a [(Id, u64)],
    /// The model that it asks for, if that is known.
    pub model: Option<&'a str>,
    /// The request asks for no model, and needs none.
    pub modelless: bool,
    /// The requirements that it does not meet.
    pub lacks: Lacks,
    /// The request is not translated.
    pub untranslated: bool,
    /// The one account that it asks for, by name or id.
    pub wish: Option<&'a str>,
    /// The platform that it asks for.
    pub platform: Option<&'a str>,
    /// The hash of the one account that has what it goes on from.
    pub home: Option<u64>,
    /// The hash of the account that has served its session after others could not.
    pub prefers: Option<u64>,
    /// The requests that are under way with each account.
    pub in_flight: &'a InFlight,
}

/// The thing for which a request may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// An answer of the refresher: a fresh credential, or the home of what the request goes on from.
    News,
    /// The end of a limit.
    Limit,
    /// A request's end: all accounts have as many under way as they may.
    Place,
}

/// The outcome of a pick.
#[derive(Debug)]
pub enum Pick {
    /// The account that was picked.
    Account {
        /// The account.
        account: Rc<Account>,
        /// The endpoint at which its platform answers.
        endpoint: EndpointId,
        /// The account is half-open: take the probe first.
        half_open: bool,
    },
    /// The candidates, none of which may be used now.
    AllOut(Vec<Out>),
    /// No candidate serves the model.
    NoModel,
    /// The candidates that serve the model ask of a request what this one does not have.
    Unmet(Vec<Requirement>),
    /// The request is too large for the candidates that serve the model.
    TooLarge,
    /// The account that the request asks for is no candidate.
    NoSuchAccount,
    /// The pool has no candidate.
    None,
}

// === impl Table ===

impl Table {
    /// The candidates of `pool` for what is asked at `door`.
    pub fn new(view: &View, pool: &Pool, door: &Door) -> Self {
        let mut candidates: Vec<_> = pool
            .members
            .iter()
            .filter_map(|member| Candidate::of(view, member, door))
            .collect();
        match pool.policy {
            // The sort is stable: each tier stays in the operator's order.
            Policy::FillFirst => candidates.sort_by_key(|one| (one.tier, one.is_translated())),
            _ => candidates.sort_by_key(|one| (one.tier, one.is_translated(), one.hash)),
        }
        Self {
            policy: pool.policy,
            tiers: Stretch::all(&candidates),
            wanted: wanted(view, pool.policy, &candidates),
            keeps_things: candidates.iter().any(|one| {
                let platform = view.platform(&one.account.platform);
                platform.is_some_and(|platform| platform.keeps_things())
            }),
            depends_on_length: candidates.iter().any(|one| one.wraps)
                && candidates.iter().any(|one| !one.wraps),
            candidates,
        }
    }

    /// The facts of a request's body that matter to a pick.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Returns true if an account of it may have what no other one has. Also where there is one alone: what a request
    /// names, another key may have made.
    pub fn keeps_things(&self) -> bool {
        self.keeps_things
    }

    /// Returns true if some of it serve longer requests than others.
    pub fn depends_on_length(&self) -> bool {
        self.depends_on_length
    }

    /// Picks an account for a request. One without a session takes its turn where the policy is
    /// to stick to sessions.
    pub fn pick(&mut self, need: &Need<'_>) -> Pick {
        if let Some(candidate) = self.preferred(need) {
            return Pick::Account {
                account: Rc::clone(&candidate.account),
                endpoint: candidate.endpoint,
                half_open: candidate.is_half_open(need),
            };
        }
        for tier in &mut self.tiers {
            let Some(candidates) = self.candidates.get_mut(tier.range.clone()) else {
                continue;
            };
            let picked = match (self.policy, need.session) {
                (Policy::Sticky, Some(session)) => {
                    sticky::pick(candidates, session, tier.even, need)
                }
                // What one client key stores goes to one account, so that it can be put together there.
                (_, Some(session)) if need.modelless => {
                    sticky::pick(candidates, session, tier.even, need)
                }
                (Policy::Sticky | Policy::RoundRobin, _) if tier.even => {
                    round_robin::pick(candidates, &mut tier.turn, need)
                }
                (Policy::Sticky | Policy::RoundRobin, _) => {
                    round_robin::pick_by_weight(candidates, need)
                }
                (Policy::LeastInFlight, _) => {
                    least_in_flight::pick(candidates, &mut tier.turn, need)
                }
                (Policy::MostQuotaLeft, _) => {
                    quota::pick(candidates, &mut tier.turn, need, quota::MOST_LEFT)
                }
                (Policy::SoonestResetFirst, _) => {
                    quota::pick(candidates, &mut tier.turn, need, quota::SOONEST_RESET)
                }
                (Policy::FillFirst, _) => fill_first::pick(candidates, need),
            };
            if let Some(candidate) = picked {
                return Pick::Account {
                    account: Rc::clone(&candidate.account),
                    endpoint: candidate.endpoint,
                    half_open: candidate.is_half_open(need),
                };
            }
        }
        self.nobody(need)
    }

    /// The account that the request's session prefers, while it can serve it.
    fn preferred(&self, need: &Need<'_>) -> Option<&Candidate> {
        let hash = need.prefers?;
        let mut same = self.candidates.iter().filter(|one| one.hash == hash);
        same.find(|one| one.is_eligible(need))
    }

    /// Says why nobody was picked.
    fn nobody(&self, need: &Need<'_>) -> Pick {
        let mut speaking = self
            .candidates
            .iter()
            .filter(|one| one.speaks(need))
            .peekable();
        let is_nobody = speaking.peek().is_none();
        let wished: Vec<_> = speaking.filter(|one| one.is_wished(need)).collect();
        let serving = || wished.iter().filter(|one| one.serves(need));
        let suited = || serving().filter(|one| one.suits(need));
        if is_nobody {
            Pick::None
        } else if wished.is_empty() {
            Pick::NoSuchAccount
        } else if serving().next().is_none() {
            Pick::NoModel
        } else if suited().next().is_none() {
            let mut requirements: Vec<_> = serving()
                .flat_map(|one| one.requires.iter().copied())
                .collect();
            requirements.sort_unstable();
            requirements.dedup();
            match requirements.is_empty() {
                true => Pick::TooLarge,
                false => Pick::Unmet(requirements),
            }
        } else {
            Pick::AllOut(suited().map(|one| one.out(need)).collect())
        }
    }

    /// The account that is better waited for, if there is one, than taken another one or none: until `soon`, in
    /// Unix milliseconds, one is back that has the session's prompt cache; or any is that could serve the
    /// request, and now none does.
    pub fn worth_waiting(&self, need: &Need<'_>, soon: u64) -> Option<Awaited> {
        if need.board.is_empty() && need.full.is_empty() {
            return None;
        }
        if self.policy == Policy::Sticky
            && !need.opens
            && let Some(own) = self.own(need)
            && own.is_throttled(need, soon)
        {
            return Some(Awaited::Limit);
        }
        if self.can_serve(need) {
            return None;
        }
        let mut candidates = self.candidates.iter();
        if candidates.any(|one| one.is_busy(need)) {
            return Some(Awaited::Place);
        }
        let mut candidates = self.candidates.iter();
        let is_back = candidates.any(|one| one.is_throttled(need, soon));
        is_back.then_some(Awaited::Limit)
    }

    /// The account that would serve the session were none out or full: in the first tier that has any.
    fn own(&self, need: &Need<'_>) -> Option<&Candidate> {
        let session = need.session?;
        let (board, full) = (Board::new(), FullAccounts::new());
        let need = Need {
            board: &board,
            full: &full,
            ..*need
        };
        self.preferred(&need).or_else(|| {
            self.tiers.iter().find_map(|tier| {
                let candidates = self.candidates.get(tier.range.clone())?;
                sticky::pick(candidates, session, tier.even, &need)
            })
        })
    }

    /// Returns true if any candidate of the table may be used.
    pub fn can_serve(&self, need: &Need<'_>) -> bool {
        self.candidates.iter().any(|one| one.is_eligible(need))
    }
}

/// The facts of a body that matter to a pick among `candidates`. The model does where a platform's
/// limits may be one model's alone: the account is then out for that model, not for all.
fn wanted(view: &View, policy: Policy, candidates: &[Candidate]) -> Wanted {
    let mut platforms: Vec<&Id> = candidates.iter().map(|one| &one.account.platform).collect();
    platforms.sort_unstable();
    platforms.dedup();
    let platforms = || platforms.iter().filter_map(|id| view.platform(id));
    let requires = |requirement| {
        let mut candidates = candidates.iter();
        candidates.any(|one| one.requires.contains(&requirement))
    };
    let need_model = candidates.iter().any(Candidate::needs_model);
    let has_choice = candidates.len() > 1;
    Wanted {
        members: &[],
        model: need_model || platforms().any(|platform| platform.limits_models()),
        session: (policy == Policy::Sticky && has_choice).then_some(SessionName::CacheKey),
        opening: &[],
        stream: requires(Requirement::Stream) || candidates.iter().any(|one| one.asks_stream),
        store: requires(Requirement::StoreFalse) || candidates.iter().any(|one| one.asks_store),
        background: requires(Requirement::Foreground),
        things: &[],
        whole: false,
    }
}

// === impl Stretch ===

impl Stretch {
    /// The tiers of candidates that are sorted by them.
    fn all(candidates: &[Candidate]) -> Vec<Self> {
        let mut start = 0_usize;
        let tiers = candidates.chunk_by(|one, next| {
            (one.tier, one.is_translated()) == (next.tier, next.is_translated())
        });
        tiers
            .map(|tier| {
                let end = start.saturating_add(tier.len());
                let range = std::mem::replace(&mut start, end)..end;
                let mut weights = tier.iter().map(|one| one.weight);
                let first = weights.next();
                Self {
                    range,
                    even: weights.all(|weight| Some(weight) == first),
                    turn: 0,
                }
            })
            .collect()
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use crate::snapshot::{DoorId, Record, fixture, pool::Weight};

    static NOBODY: Board = Board::new();
    static IDLE: InFlight = InFlight::new();
    static NOBODY_FULL: FullAccounts = FullAccounts::new();

    /// The needs of a first try where nobody is out.
    pub(crate) fn need(session: Option<u64>, now: u64) -> Need<'static> {
        Need {
            session,
            opens: false,
            now,
            key: crate::health::fixture::key(),
            shows_names: false,
            board: &NOBODY,
            full: &NOBODY_FULL,
            tried: &[],
            model: None,
            modelless: false,
            lacks: Lacks::default(),
            untranslated: false,
            wish: None,
            platform: None,
            home: None,
            prefers: None,
            in_flight: &IDLE,
        }
    }

    /// A board that knows of each account what is left of its one window, and when that starts
    /// anew.
    pub(crate) fn board(known: &[(&str, f64, u64)]) -> Board {
        use crate::{health::quota, verdict::quota::Window};
        let mut buckets: Vec<_> = vec![quota::Bucket::new(); quota::BUCKETS];
        for (id, left, resets_at) in known {
            let id = Id::try_from(*id).unwrap();
            let window = Window {
                name: "5h".try_into().unwrap(),
                used_percent: (1.0 - left) * 100.0,
                resets_at: Some(*resets_at),
                exhausted: *left == 0.0,
            };
            let bucket = &mut buckets[quota::bucket_of(&id)];
            quota::put(bucket, &id, quota::KnownQuota::new(vec![window], 0));
        }
        let mut board = Board::new();
        for (number, bucket) in buckets.into_iter().enumerate() {
            board.quotas_mut().replace(number, bucket);
        }
        board
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
        at(&View::of(&records), &pool, fixture::RESPONSES)
    }

    /// The table of `pool` for the door of this number.
    pub(crate) fn at(view: &View, pool: &Pool, door: u16) -> Table {
        let doors = view.doors().unwrap();
        Table::new(view, pool, doors.get(DoorId(door)).unwrap())
    }

    impl Table {
        /// Lets the credential of `id` end at `at`.
        pub(crate) fn expire(&mut self, id: &str, at: u64) {
            for candidate in &mut self.candidates {
                if candidate.account.id.as_str() == id {
                    candidate.usable_until = Some(at);
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
            for tier in &mut self.tiers {
                tier.even = false;
            }
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
mod laws;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_only_accounts_that_answer_at_the_door() {
        use super::fixture::at;
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
        let mut table = at(&view, &pool, fixture::MESSAGES);
        assert_eq!(table.id(None, 0), "acc_2");
        assert_eq!(table.id(None, 0), "acc_2");
        let translated = at(&view, &pool, fixture::CHAT);
        assert_eq!(translated.candidates.len(), 2);
        let mut candidates = translated.candidates.iter();
        assert!(candidates.all(Candidate::is_translated));
        let nothing = at(&view, &pool, fixture::NOWHERE);
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
        assert_eq!(out[0].back, Back::WithCredential);
        let mut empty = table(Policy::Sticky, 0);
        assert!(matches!(empty.pick(&need(None, 0)), Pick::None));
    }

    /// It has ended whatever else is the matter with it, as that is what brings it back no more.
    #[test]
    fn an_account_is_used_until_its_end() {
        use super::fixture::need;
        use crate::{
            snapshot::{Record, fixture},
            verdict::Verdict,
        };
        for expires_at in [None, Some(5), Some(10), Some(90)] {
            let mut account = fixture::account("acc_1", "codex");
            account.credential_expires_at = expires_at;
            account.expires_at = Some(10);
            let pool = fixture::pool("default", Policy::Sticky, &["acc_1"]);
            let mut board = Board::default();
            board.post(&account, &Verdict::CredentialExpired, 0);
            let records = [
                Record::Platform(fixture::platform("codex")),
                Record::Account(account),
            ];
            let mut table = super::fixture::at(&View::of(&records), &pool, fixture::RESPONSES);
            let is_usable = expires_at != Some(5);
            assert_eq!(table.can_serve(&need(None, 9)), is_usable);
            assert!(!table.can_serve(&need(None, 10)));
            for board in [&Board::default(), &board] {
                let need = Need {
                    board,
                    ..need(None, 10)
                };
                let Pick::AllOut(out) = table.pick(&need) else {
                    panic!("it was picked after its end");
                };
                assert_eq!(out[0].reason.as_str(), "ended");
                assert_eq!(out[0].back, Back::Never);
            }
        }
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
            ..
        } = at(499, &[])
        else {
            panic!("nobody stands in");
        };
        assert_ne!(second.id.as_str(), favourite);
        let Pick::Account {
            account: first,
            half_open: true,
            ..
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
        assert!(out.iter().any(|one| one.back == Back::At(500)), "{out:?}");
        let again = [(second.id.clone(), 0), (third.id.clone(), 0)];
        assert!(
            matches!(at(499, &again), Pick::Account { .. }),
            "a new credential is worth a try"
        );
    }
}
