//! Platforms' refusals of a token that looked good: which refresh they ask for, and how soon. Pure.
//!
//! What a caller's request met is a report. That its platform said so to us as well confirms it: a report alone asks for
//! a refresh, and ends nothing.
//!
//! A report asks for a refresh at once, but only of the generation it names, so that a storm of reports about one
//! token is one refresh. An account whose *new* token is refused too is refreshed ever more slowly: the fault is then
//! not the token's, and spending refresh tokens on it helps nobody.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::{Jitter, backoff};
use crate::id::AccountId;

/// So long after a further report would have been answered, the next report is the first again.
const CALM: Duration = Duration::from_secs(10 * 60);

/// The reports about each account.
#[derive(Debug, Default)]
pub struct RefusalReports(HashMap<AccountId, Reported>);

#[derive(Debug, Default)]
struct Reported {
    generation: u64,
    /// True if we asked the platform ourselves.
    is_confirmed: bool,
    /// The refreshes made for reports, and when the last was.
    answered: Option<(u32, Instant)>,
}

impl RefusalReports {
    /// Notes that `generation` of `account` was refused. An older generation than the last is ignored.
    pub fn note(&mut self, account: &AccountId, generation: u64) {
        let reported = self.0.entry(account.clone()).or_default();
        if reported.generation < generation {
            reported.generation = generation;
            reported.is_confirmed = false;
        }
    }

    /// Notes that `generation` of `account` was refused when we asked about it ourselves.
    pub fn confirm(&mut self, account: &AccountId, generation: u64) {
        self.note(account, generation);
        if let Some(reported) = self.0.get_mut(account) {
            reported.is_confirmed |= reported.generation == generation;
        }
    }

    /// Returns true if that `generation` of `account` was refused is confirmed.
    pub fn confirms(&self, account: &AccountId, generation: u64) -> bool {
        self.0
            .get(account)
            .is_some_and(|reported| reported.generation == generation && reported.is_confirmed)
    }

    /// Returns true if `generation` of `account` was refused.
    pub fn names(&self, account: &AccountId, generation: u64) -> bool {
        self.0
            .get(account)
            .is_some_and(|reported| reported.generation == generation)
    }

    /// Returns the time until a refresh of `generation` is due for a report; `None` if none is.
    pub fn wait(&self, account: &AccountId, generation: u64, now: Instant) -> Option<Duration> {
        let reported = self
            .0
            .get(account)
            .filter(|reported| reported.generation == generation)?;
        Some(match reported.answered {
            Some((refreshes, last)) => {
                (last + pause_after(refreshes)).saturating_duration_since(now)
            }
            None => Duration::ZERO,
        })
    }

    /// Notes that a refresh of `generation` is being made; it counts if a report asked for it.
    pub fn answered(&mut self, account: &AccountId, generation: u64, now: Instant) {
        let Some(reported) = self
            .0
            .get_mut(account)
            .filter(|reported| reported.generation == generation)
        else {
            return;
        };
        let in_a_row = reported.answered.filter(|(refreshes, last)| {
            now.saturating_duration_since(*last) < pause_after(*refreshes) + CALM
        });
        reported.answered = Some((
            in_a_row.map_or(1, |(refreshes, _)| refreshes.saturating_add(1)),
            now,
        ));
    }

    /// Forgets accounts that are not among `known`.
    pub fn keep(&mut self, known: &HashSet<&AccountId>) {
        self.0.retain(|account, _| known.contains(account));
    }
}

/// Returns how long a report waits after so many refreshes for reports in a row.
fn pause_after(refreshes: u32) -> Duration {
    backoff(refreshes, None, Jitter::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reported_generation_is_due_and_each_further_one_later() {
        let (account, start) = (AccountId::random(), Instant::now());
        let mut reports = RefusalReports::default();
        assert_eq!(reports.wait(&account, 1, start), None);
        reports.note(&account, 1);
        assert_eq!(reports.wait(&account, 1, start), Some(Duration::ZERO));
        assert_eq!(reports.wait(&account, 2, start), None);

        let mut waits = Vec::new();
        for generation in 1..5 {
            reports.note(&account, generation);
            reports.note(&account, 1);
            waits.push(reports.wait(&account, generation, start).unwrap().as_secs());
            reports.answered(&account, generation, start);
        }
        assert_eq!(waits, [0, 1, 2, 4]);
    }

    /// A platform that refuses every new token for a day, each as soon as it is there.
    #[test]
    fn no_end_of_refusals_brings_the_haste_back() {
        let (account, start) = (AccountId::random(), Instant::now());
        let day = Duration::from_secs(24 * 60 * 60);
        let (mut reports, mut now, mut generation) = (RefusalReports::default(), start, 1);
        while now < start + day {
            reports.note(&account, generation);
            now += reports.wait(&account, generation, now).unwrap();
            reports.answered(&account, generation, now);
            generation += 1;
        }
        // Twelve doublings to an hour, and one an hour from there on.
        assert!(generation <= 12 + 24 + 1, "{generation} refreshes in a day");
    }

    #[test]
    fn what_is_confirmed_is_so_of_one_generation() {
        let account = AccountId::random();
        let mut reports = RefusalReports::default();
        reports.note(&account, 2);
        assert!(reports.names(&account, 2) && !reports.confirms(&account, 2));
        reports.confirm(&account, 1);
        assert!(!reports.confirms(&account, 1) && !reports.confirms(&account, 2));
        reports.confirm(&account, 2);
        reports.note(&account, 1);
        assert!(reports.confirms(&account, 2));
        reports.note(&account, 3);
        assert!(!reports.confirms(&account, 3) && !reports.confirms(&account, 2));
    }

    #[test]
    fn calm_forgives() {
        let (account, start) = (AccountId::random(), Instant::now());
        let mut reports = RefusalReports::default();
        for generation in 1..20 {
            reports.note(&account, generation);
            reports.answered(&account, generation, start);
        }
        let later = start + Duration::from_secs(2 * 60 * 60);
        reports.note(&account, 20);
        reports.answered(&account, 20, later);
        reports.note(&account, 21);
        assert_eq!(
            reports.wait(&account, 21, later),
            Some(Duration::from_secs(1))
        );
    }
}
