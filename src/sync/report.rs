//! What attempts learn about accounts, on its way to the refresher.

use serde::{Deserialize, Serialize};

use crate::{hash::hash64, id::Id};

/// The most reports that wait in one VM. They are one an account and generation, so more than
/// this means that as many accounts were refused at once; the refresher finds the rest by itself.
pub const MAX_WAITING: usize = 256;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// The platform answered 401.
    Unauthorized,
}

/// One thing learned about one credential of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The account.
    pub account: Id,
    /// The generation of the credential that was used.
    pub generation: u64,
    /// What happened.
    pub kind: ReportKind,
}

/// The body of `POST /reports`. It is applied once however often it arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// 32 hex digits, never used for another batch.
    pub batch: String,
    /// At least one.
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

// === impl Reports ===

impl Reports {
    /// Adds a report unless the same one waits already or the list is full.
    pub fn push(&mut self, report: Report) {
        let unacknowledged = self.batch.iter().flat_map(|batch| &batch.reports);
        let known = self
            .waiting
            .iter()
            .chain(unacknowledged)
            .any(|r| *r == report);
        if !known && self.waiting.len() < MAX_WAITING {
            self.waiting.push(report);
        }
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

    fn report(generation: u64) -> Report {
        Report {
            account: Id::try_from("acc_1").unwrap(),
            generation,
            kind: ReportKind::Unauthorized,
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
}
