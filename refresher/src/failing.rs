//! Refreshes of an account that fail: how, since when, and when a person should look. Pure: times come in.
//!
//! A token endpoint that is down for some minutes is no news. One that has not given a new token for an hour is, and one that
//! gives none while the old token is about to end. Nothing else follows from it: the account is used and asked for as before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// The time after which refreshes that fail are a matter for a person, however long the credential lives.
const LONG: Duration = Duration::from_secs(60 * 60);
/// The time after which they are one where the credential is about to end, or has ended: what is shorter than this is a
/// restart, or a network that comes up.
const BRIEF: Duration = Duration::from_secs(60);
/// The credential is about to end. A refresh begins as long before the end, so it is told while the account still serves.
const NEAR: Duration = Duration::from_secs(5 * 60);
/// The most characters of a reason that are kept: it may have words of the peer's, as a certificate's names.
const MAX_REASON: usize = 300;

/// The kind of a refresh's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The token endpoint says no, and does not say that the login has ended.
    Refused,
    /// There is no connection to it, or no answer.
    Unreached,
    /// The platform is in trouble, or something before it answers.
    Troubled,
}

/// An account whose last refresh failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// The kind of the failure.
    pub how: Failure,
    /// The reason, in a few words.
    pub reason: String,
    /// The time when the first refresh of those in a row failed.
    pub since: UnixMillis,
}

impl Failure {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Failure; 3] = [Failure::Refused, Failure::Unreached, Failure::Troubled];

    /// The word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Unreached => "unreached",
            Failure::Troubled => "troubled",
        }
    }

    /// Returns what became of the refresh, for people: the end of "refresh …".
    pub fn word(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Unreached => "unanswered",
            Failure::Troubled => "failed",
        }
    }

    /// Returns what it means, as a clause.
    pub fn meaning(self) -> &'static str {
        match self {
            Failure::Refused => {
                "its token endpoint refuses, and does not say whether the login has ended"
            }
            Failure::Unreached => "its token endpoint does not answer",
            Failure::Troubled => {
                "its token endpoint is in trouble, or something before it answers in its place"
            }
        }
    }
}

impl Failing {
    /// Notes a failure at `now`; `before` is what was known of those before it in a row.
    pub fn noted(before: Option<&Failing>, how: Failure, reason: &str, now: UnixMillis) -> Failing {
        let shown = |char: char| if char.is_control() { '?' } else { char };
        Failing {
            how,
            reason: reason.chars().take(MAX_REASON).map(shown).collect(),
            // Under a clock that was set back since, the row begins anew.
            since: before.map_or(now, |before| before.since.min(now)),
        }
    }

    /// True if a person should look. `end`: the credential's, where it is known.
    pub fn is_stuck(&self, end: Option<UnixMillis>, now: UnixMillis) -> bool {
        let failed_for = now.since(self.since);
        let ends_soon = end.is_some_and(|end| end <= now.plus(NEAR));
        failed_for >= LONG || (failed_for >= BRIEF && ends_soon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_short_trouble_is_no_news_and_a_long_or_an_urgent_one_is() {
        let far = Some(NOW.plus(10 * LONG));
        for (minutes, end, is_stuck) in [
            (0, Some(NOW), false),
            (1, Some(NOW), true),
            (5, far, false),
            (5, None, false),
            (59, far, false),
            (60, far, true),
            (60, None, true),
            (1, Some(NOW.plus(5 * MINUTE)), true),
            (1, Some(NOW.plus(6 * MINUTE)), false),
            (1, Some(NOW.minus(MINUTE)), true),
        ] {
            let failing = Failing::noted(
                None,
                Failure::Refused,
                "HTTP 403",
                NOW.minus(minutes * MINUTE),
            );
            assert_eq!(failing.is_stuck(end, NOW), is_stuck, "{minutes} {end:?}");
        }
    }

    #[test]
    fn the_row_keeps_its_beginning_and_tells_its_last_failure() {
        let first = Failing::noted(None, Failure::Unreached, "no connection", NOW);
        let later = NOW.plus(LONG);
        let second = Failing::noted(Some(&first), Failure::Refused, "HTTP 403", later);
        assert_eq!(
            (second.how, &*second.reason, second.since),
            (Failure::Refused, "HTTP 403", NOW)
        );
        let set_back = NOW.minus(LONG);
        let third = Failing::noted(Some(&second), Failure::Refused, "HTTP 403", set_back);
        assert_eq!(third.since, set_back);
    }

    /// A peer has a say in it: in the names of its certificate.
    #[test]
    fn a_reason_is_one_short_line() {
        let long = "\u{1b}[2Jno\nconnection ".repeat(1_000);
        let failing = Failing::noted(None, Failure::Unreached, &long, NOW);
        assert_eq!(failing.reason.chars().count(), MAX_REASON);
        assert!(failing.reason.starts_with("?[2Jno?connection "));
    }

    #[test]
    fn it_is_stored_in_words() {
        for how in Failure::ALL {
            let json = serde_json::to_string(&Some(Failing::noted(None, how, "x", NOW))).unwrap();
            let word = how.as_str();
            assert_eq!(
                json,
                format!("{{\"how\":\"{word}\",\"reason\":\"x\",\"since\":1790000000000}}")
            );
            let read: Option<Failing> = serde_json::from_str(&json).unwrap();
            assert_eq!(read.unwrap().how, how);
        }
    }
}
