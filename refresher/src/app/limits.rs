//! Limits of accounts and client keys, and what is used of them now.

use std::collections::{BTreeSet, HashMap};

use latchkey::id::Id;
use latchkey::limit::settle::{Others, Said};
use latchkey::limit::{self, Subject, SubjectKind};
use serde::Serialize;

use super::{App, Result, daemon};
use crate::day::TimeOfDay;
use crate::envoy::counts::LimitSums;
use crate::limits::{Effective, Setting};

/// The limits of an account or a client key, and what is used of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The limits that hold; what is not set is left out.
    #[serde(flatten)]
    pub limits: limit::Limits,
    /// The zone in which its day begins; none for UTC.
    pub time_zone: Option<String>,
    /// The time of day at which it begins there; none for midnight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day_starts: Option<TimeOfDay>,
    /// The limits that an account has from its platform's profile, as its operator said nothing of them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub of_profile: BTreeSet<Setting>,
    /// The use of them now.
    pub used: Used,
}

/// The use of limits now. Only a running `serve` knows minutes and streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Used {
    /// Requests in this minute.
    pub requests_this_minute: Option<u64>,
    /// Tokens in this minute.
    pub tokens_this_minute: Option<u64>,
    /// Tokens in this day.
    pub tokens_today: Option<u64>,
    /// The end of the day, in Unix milliseconds.
    pub day_ends_at: Option<u64>,
    /// Requests under way.
    pub streams: Option<u64>,
}

/// Everybody's use of their limits now.
#[derive(Debug, Default)]
pub(super) struct Use {
    said: HashMap<Subject, Said>,
    /// A running `serve` said it.
    is_live: bool,
}

impl Use {
    /// Asks the running `serve`; where none runs, the store, which knows the days.
    pub(super) async fn now(app: &App) -> Result<Use> {
        let asked: Option<Others> = daemon::ask(&app.state, "/counts").await;
        let is_live = asked.is_some();
        let all = match asked {
            Some(all) => all,
            None => {
                let now = u64::try_from(app.now().0).unwrap_or_default();
                LimitSums::new(app.store.clone()).all(now).await?
            }
        };
        let said = all
            .subjects
            .into_iter()
            .map(|line| (line.subject, line.said));
        Ok(Use {
            said: said.collect(),
            is_live,
        })
    }

    /// These limits, which the record with that id has, and its use of them.
    pub(super) fn of(&self, kind: SubjectKind, id: &str, effective: Effective) -> Limits {
        let id = Id::try_from(id).ok();
        let said = id.and_then(|id| self.said.get(&Subject { kind, id }));
        let live = said.filter(|_| self.is_live);
        let Effective {
            settings,
            of_profile,
        } = effective;
        Limits {
            limits: settings.limits,
            time_zone: settings.time_zone,
            day_starts: settings.day_starts,
            of_profile,
            used: Used {
                requests_this_minute: live.map(|said| said.minute.requests),
                tokens_this_minute: live.map(|said| said.minute.tokens),
                tokens_today: said.map(|said| said.day.tokens),
                day_ends_at: said.map(|said| said.day.end),
                streams: live.map(|said| said.streams),
            },
        }
    }
}
