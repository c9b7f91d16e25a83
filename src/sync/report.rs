//! The reports of attempts about accounts, on their way to the refresher.

use serde::{Deserialize, Serialize};

use crate::{
    hash::hash64,
    health::Entry,
    id::Id,
    label::ModelName,
    request::carried::Carried,
    snapshot::Account,
    verdict::{Reason, Scope, quota::Window},
};

/// The most reports that wait in one VM. An account has one for each thing that is to be said of
/// it, so more than this means that as many accounts are in trouble at once. What finds no place
/// is told later: the board says what the refresher has not heard of ([`REPEAT_MS`]).
pub const MAX_WAITING: usize = 256;

/// The interval, in milliseconds, at which the VM that polls looks on the board for what the refresher has
/// not confirmed. A report may take that long before it is repeated.
pub const REPEAT_MS: u64 = 30_000;

/// One thing learned about an account. Each says when (`at`, Unix milliseconds), or of which
/// credential, so that it may arrive twice, late, and in any order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// The platform answered 401.
    Unauthorized {
        /// The account.
        account: Id,
        /// The generation of the credential that was used.
        generation: u64,
    },
    /// The account is not to be used for a while.
    CoolingDown {
        /// The account.
        account: Id,
        /// The part of it that is out: everything, or one model.
        scope: Scope,
        /// The end, in Unix milliseconds.
        until: u64,
        /// True where the platform did not say when.
        guessed: bool,
        /// The reason, in a word.
        reason: Reason,
        /// The time at which this was learned, in Unix milliseconds.
        at: u64,
    },
    /// The account is of no use until somebody sees to it.
    Dead {
        /// The account.
        account: Id,
        /// The generation of the credential that was used.
        generation: u64,
        /// The reason, in a word.
        reason: Reason,
        /// The time at which this was learned, in Unix milliseconds.
        at: u64,
        /// Two client keys have met it so, or the only one three times. Otherwise people see the
        /// suspicion, and the account serves the other keys.
        #[serde(default)]
        confirmed: bool,
        /// The client key whose request met it so last, and that request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Id>,
        /// See `key`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Id>,
    },
    /// The account answered: what was guessed about it is over.
    Recovered {
        /// The account.
        account: Id,
        /// The model that it answered for, where that is known; guesses about others stay.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
        /// The time of its answer, in Unix milliseconds.
        at: u64,
    },
    /// The used part of its windows.
    Quota {
        /// The account.
        account: Id,
        /// The windows, each name once.
        windows: Vec<Window>,
        /// The time at which the platform said so, in Unix milliseconds.
        at: u64,
    },
}

/// A body of `POST /reports` that brings reports; [`super::records`] writes those that bring
/// records. It is applied once however often it arrives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// 32 hex digits, never used for another batch.
    pub batch: String,
    /// The reports, at least one.
    pub reports: Vec<Report>,
}

/// The reports of one VM.
#[derive(Debug, Default)]
pub struct Reports {
    waiting: Vec<Report>,
    in_flight: bool,
    /// A batch that was not acknowledged: it is sent again as it was.
    batch: Option<Batch>,
    batches: u64,
}

// === impl Report ===

impl Report {
    /// The report of what keeps every key's requests away.
    pub fn of(entry: &Entry) -> Option<Self> {
        let account = entry.account.clone();
        let (reason, at) = (entry.reason.clone(), entry.at);
        match entry.generation {
            Some(generation) if entry.dead => Some(Self::Dead {
                account,
                generation,
                reason,
                at,
                confirmed: true,
                key: None,
                request: None,
            }),
            None if entry.is_limit() => Some(Self::CoolingDown {
                account,
                scope: entry.scope.clone(),
                until: entry.until,
                guessed: entry.guessed,
                reason,
                at,
            }),
            _ => None,
        }
    }

    /// The report of an account that is of no use, as a request of one key alone has met it.
    pub fn suspicion(account: &Account, why: &Reason, at: u64) -> Self {
        Self::Dead {
            account: account.id.clone(),
            generation: account.generation,
            reason: why.clone(),
            at,
            confirmed: false,
            key: None,
            request: None,
        }
    }

    /// Returns the report with the request that led to it, where that is to be told.
    #[must_use]
    pub fn met_by(mut self, carried: &Carried) -> Self {
        if let Self::Dead { key, request, .. } = &mut self {
            *key = Some(carried.key.clone());
            request.clone_from(&carried.id);
        }
        self
    }

    /// Returns true if `other` says of the same thing what was so later.
    fn is_replaced_by(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::CoolingDown { account, scope, .. },
                Self::CoolingDown {
                    account: of,
                    scope: other,
                    ..
                },
            ) => account == of && scope == other,
            (
                Self::Recovered { account, model, .. },
                Self::Recovered {
                    account: of,
                    model: other,
                    ..
                },
            ) => account == of && model == other,
            (Self::Quota { account, .. }, Self::Quota { account: of, .. }) => account == of,
            _ => false,
        }
    }
}

// === impl Reports ===

impl Reports {
    /// Adds a report unless the same one waits already; one that waits and is out of date gives
    /// its place. False where there is no place.
    pub fn push(&mut self, report: Report) -> bool {
        let unacknowledged = self.batch.iter().flat_map(|batch| &batch.reports);
        if self
            .waiting
            .iter()
            .chain(unacknowledged)
            .any(|r| *r == report)
        {
            return true;
        }
        let mut waiting = self.waiting.iter_mut();
        if let Some(old) = waiting.find(|old| old.is_replaced_by(&report)) {
            *old = report;
            return true;
        }
        let has_place = self.waiting.len() < MAX_WAITING;
        if has_place {
            self.waiting.push(report);
        }
        has_place
    }

    /// The body to send at `now` from the VM of this number, if there is anything to say and
    /// nothing on its way.
    pub fn next(&mut self, vm: u64, now: u64) -> Option<String> {
        if self.in_flight {
            return None;
        }
        if self.batch.is_none() && !self.waiting.is_empty() {
            self.batches = self.batches.wrapping_add(1);
            let half = |salt: u64| {
                let parts = [vm, now, self.batches, salt].map(u64::to_le_bytes);
                hash64(&[parts.as_flattened()])
            };
            self.batch = Some(Batch {
                batch: format!("{:016x}{:016x}", half(0), half(1)),
                reports: std::mem::take(&mut self.waiting),
            });
        }
        let body = serde_json::to_string(self.batch.as_ref()?).ok()?;
        self.in_flight = true;
        Some(body)
    }

    /// Takes the answer's status; anything but 204 leaves the batch for another try.
    pub fn answered(&mut self, status: &[u8]) {
        self.in_flight = false;
        if status == b"204" {
            self.batch = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Id {
        Id::try_from("acc_1").unwrap()
    }

    fn report(generation: u64) -> Report {
        Report::Unauthorized {
            account: account(),
            generation,
        }
    }

    fn limited(at: u64) -> Report {
        Report::CoolingDown {
            account: account(),
            scope: Scope::Account,
            until: at + 1_000,
            guessed: false,
            reason: Reason::rate_limited(),
            at,
        }
    }

    #[test]
    fn a_storm_is_one_report() {
        let mut reports = Reports::default();
        for _ in 0..10_000 {
            reports.push(report(7));
        }
        let body = reports.next(1, 5).unwrap();
        let batch: Batch = serde_json::from_str(&body).unwrap();
        assert_eq!(batch.reports, [report(7)]);
        assert_eq!(batch.batch.len(), 32);
        reports.push(report(7));
        reports.answered(b"204");
        assert_eq!(reports.next(1, 6), None);
    }

    #[test]
    fn an_unacknowledged_batch_is_sent_again_as_it_was() {
        let mut reports = Reports::default();
        reports.push(report(1));
        let first = reports.next(1, 5).unwrap();
        assert_eq!(reports.next(1, 5), None, "one at a time");
        reports.push(report(2));
        reports.answered(b"503");
        assert_eq!(reports.next(1, 9).unwrap(), first);
        reports.answered(b"204");
        let second = reports.next(1, 9).unwrap();
        assert!(second.contains("\"generation\":2"));
        assert_ne!(second[..45], first[..45], "a new batch has a new id");
    }

    #[test]
    fn what_is_out_of_date_is_not_sent_and_the_list_is_bounded() {
        let mut reports = Reports::default();
        for at in 0..1_000 {
            assert!(reports.push(limited(at)));
        }
        assert_eq!(reports.waiting, [limited(999)]);
        for generation in 0..2 * MAX_WAITING as u64 {
            reports.push(report(generation));
        }
        assert_eq!(reports.waiting.len(), MAX_WAITING);
        assert!(!reports.push(report(9_999)));
    }

    #[test]
    fn reports_read_as_documented() {
        let json = serde_json::to_string(&limited(5)).unwrap();
        assert_eq!(
            json,
            r#"{"kind":"cooling_down","account":"acc_1","scope":"account","until":1005,"guessed":false,"reason":"rate_limited","at":5}"#
        );
        let model = r#"{"kind":"cooling_down","account":"acc_1","scope":{"model":"opus"},"until":9,"guessed":true,"reason":"overloaded","at":5}"#;
        assert!(serde_json::from_str::<Report>(model).is_ok());
    }
}
