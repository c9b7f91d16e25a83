//! Batches of reports. A batch may come twice, when its answer was lost; it is applied once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use latchkey::id::Id;
use latchkey::request::record::RequestRecord;
use latchkey::sync::records::Begun;
use latchkey::sync::report::Report;
use latchkey::verdict::Scope;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::OnUnauthorized;
use crate::advice;
use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::fault::Fault;
use crate::id::AccountId;
use crate::store::{self, BatchId, Met, Noticed, Store};

/// The number of batch ids that are remembered: at a batch a second, a quarter of an hour. A filter gives up on a batch sooner.
const REMEMBERED_BATCHES: usize = 1024;
/// The time within which the word of a second client key confirms the first one's, in milliseconds: as long as
/// the filter that told it remembers its longest pause.
const SUSPECTED_MS: u64 = 2 * latchkey::health::DEAD_MS;
/// The most accounts of which one key's word is remembered.
const MAX_SUSPECTS: usize = 1024;
/// The kinds of reports.
const KINDS: [&str; 5] = ["unauthorized", "cooling_down", "dead", "recovered", "quota"];
/// The longest batch id, in bytes: 32 hex digits, with room to grow.
const MAX_BATCH_ID_BYTES: usize = 64;

/// A filter's message.
#[derive(Debug, Deserialize)]
pub struct Batch {
    batch: String,
    /// Not read yet, because a newer filter may have more to say than is known here.
    #[serde(default)]
    reports: Vec<serde_json::Value>,
    /// Each by itself: one that cannot be read costs no other.
    #[serde(default)]
    records: Vec<Box<RawValue>>,
    /// The requests that began since the batch before.
    #[serde(default)]
    begun: serde_json::Value,
}

impl Batch {
    /// Takes the number of requests that began; none where the batch has none that can be read.
    fn take_begun(&mut self) -> Option<Begun> {
        let begun = std::mem::take(&mut self.begun);
        let is_given = !begun.is_null();
        let sound = serde_json::from_value(begun).ok().filter(Begun::is_sound);
        if is_given && sound.is_none() {
            tracing::debug!("passed over a number of requests that cannot be read");
        }
        sound
    }

    /// Takes what the batch says of requests; none where that is nothing.
    ///
    /// # Errors
    /// If the batch says something of requests and its id is none that a filter makes.
    pub fn take_records(&mut self) -> Result<Option<Records>, InvalidId> {
        let values = std::mem::take(&mut self.records);
        let begun = self.take_begun();
        if values.is_empty() && begun.is_none() {
            return Ok(None);
        }
        let batch = BatchId::parse(&self.batch).ok_or(InvalidId)?;
        let count = values.len();
        let read = values
            .into_iter()
            .filter_map(|value| serde_json::from_str(value.get()).ok());
        let records: Vec<RequestRecord> = read.collect();
        let malformed = count - records.len();
        Ok(Some(Records {
            batch,
            records,
            malformed,
            begun,
        }))
    }
}

/// The part of a batch that is about requests.
#[derive(Debug)]
pub struct Records {
    /// The batch.
    pub batch: BatchId,
    /// The records that can be read.
    pub records: Vec<RequestRecord>,
    /// The number of records that cannot.
    pub malformed: usize,
    /// The requests that began since the batch before.
    pub begun: Option<Begun>,
}

/// A batch of records whose id is not 32 hex digits: it could not be told from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

/// Takes batches.
pub struct Reports {
    store: Store,
    on_unauthorized: OnUnauthorized,
    seen: Mutex<Seen>,
    suspects: Mutex<Suspects>,
}

/// The accounts of which one client key was told that they are of no use.
#[derive(Debug, Default)]
struct Suspects(HashMap<Id, Suspect>);

#[derive(Debug)]
struct Suspect {
    generation: u64,
    key: Id,
    at: u64,
}

#[derive(Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Reports {
    /// Makes an intake that gives each report of that kind to `on_unauthorized`, and the others to `store` and the
    /// log.
    pub fn new(store: Store, on_unauthorized: OnUnauthorized) -> Reports {
        Reports {
            store,
            on_unauthorized,
            seen: Mutex::default(),
            suspects: Mutex::default(),
        }
    }

    /// Applies a batch, unless it was applied before.
    ///
    /// # Errors
    /// If the store fails. The batch is to be sent again then: what is stored of it already changes nothing.
    pub async fn take(&self, batch: Batch) -> Result<(), store::Error> {
        let (mut reports, mut refused) = (Vec::new(), 0);
        for report in batch.reports {
            match read(report) {
                Ok(mut report) => {
                    let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
                    suspects.weigh(&mut report);
                    reports.push(report);
                }
                Err(Refused::Malformed) => refused += 1,
                Err(Refused::Kind) => tracing::debug!("passed over a report of an unknown kind"),
            }
        }
        if reports.is_empty() && refused == 0 {
            return Ok(());
        }
        if refused > 0 {
            let expected = Refused::Malformed;
            tracing::warn!(refused, %expected, "passed over reports that cannot be read");
        }
        let now = SystemClock.now();
        for noticed in self.store.take_reports(&reports, now).await? {
            log(&noticed, now);
        }
        let is_new = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_new(&batch.batch);
        for report in reports.iter().filter(|_| is_new) {
            if let Report::Unauthorized {
                account,
                generation,
            } = report
                && let Some(account) = AccountId::parse(account.as_str())
            {
                (self.on_unauthorized)(&account, *generation);
            }
        }
        Ok(())
    }
}

/// A reason to pass a report over. The others of its batch are taken, and it is not sent again: it would be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refused {
    /// A report of a kind that a newer filter knows.
    #[error("expected a kind of report that is known here")]
    Kind,
    /// Text of it could be shown to people, and is too long, not visible or out of bounds.
    #[error("expected a report as docs/protocol.md shows it, its texts short and in visible ASCII")]
    Malformed,
}

fn read(report: serde_json::Value) -> Result<Report, Refused> {
    let kind = report.get("kind").and_then(serde_json::Value::as_str);
    let is_known = kind.is_some_and(|kind| KINDS.contains(&kind));
    serde_json::from_value(report).map_err(|_| match is_known {
        true => Refused::Malformed,
        false => Refused::Kind,
    })
}

/// Says what happened to an account, for people.
fn log(noticed: &Noticed, now: UnixMillis) {
    match noticed {
        Noticed::CoolingDown {
            account,
            cooldown,
            again,
        } => {
            let end = UnixMillis(i64::try_from(cooldown.until).unwrap_or(i64::MAX));
            let model = match &cooldown.scope {
                Scope::Account => None,
                Scope::Model(model) => Some(model.as_str()),
            };
            let (reason, guessed) = (cooldown.reason.as_str(), cooldown.guessed);
            let seconds = end.since(now).as_secs();
            if *again {
                tracing::debug!(
                    account,
                    model,
                    reason,
                    seconds,
                    guessed,
                    "an account is cooling down still"
                );
            } else {
                tracing::info!(
                    account,
                    model,
                    reason,
                    seconds,
                    guessed,
                    "an account is cooling down; its pools' other accounts serve meanwhile"
                );
            }
        }
        Noticed::Recovered { account } => {
            tracing::info!(account, "an account has answered and is back in use");
        }
        Noticed::Suspected {
            account,
            reason,
            met,
        } => {
            let (key, request) = ids(met);
            tracing::warn!(
                account,
                reason,
                key,
                request,
                "one client key was told that an account is of no use; it serves the others until another key is told so too"
            );
        }
        Noticed::Dead {
            account,
            platform,
            kind,
            reason,
            met,
        } => {
            let (key, request) = ids(met);
            let cure = advice::in_log(&Fault::Dead {
                account: account.clone(),
                platform: platform.clone(),
                has_key: kind.is_key(),
            });
            tracing::warn!(
                account,
                reason,
                key,
                request,
                cure,
                "an account is dead and out of use: the platform says that it is of no use"
            );
        }
    }
}

fn ids(met: &Met) -> (Option<&str>, Option<&str>) {
    (
        met.key.as_ref().map(Id::as_str),
        met.request.as_ref().map(Id::as_str),
    )
}

impl Suspects {
    /// Confirms a report of an account that is of no use, where another client key was told the same of this
    /// credential, through whichever Envoy.
    fn weigh(&mut self, report: &mut Report) {
        let Report::Dead {
            account,
            generation,
            at,
            confirmed,
            key: Some(key),
            ..
        } = report
        else {
            return;
        };
        let earlier = self.0.get(account);
        *confirmed |= earlier.is_some_and(|earlier| {
            let is_recent = at.abs_diff(earlier.at) < SUSPECTED_MS;
            earlier.generation == *generation && earlier.key != *key && is_recent
        });
        if self.0.len() >= MAX_SUSPECTS {
            self.0.clear();
        }
        let suspect = Suspect {
            generation: *generation,
            key: key.clone(),
            at: *at,
        };
        self.0.insert(account.clone(), suspect);
    }
}

impl Seen {
    fn is_new(&mut self, id: &str) -> bool {
        let end = id.floor_char_boundary(MAX_BATCH_ID_BYTES);
        let id = id[..end].to_owned();
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED_BATCHES
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Each text that a report or a record may hold, with `text` in its place.
    fn with(text: &str) -> (Vec<Value>, Vec<Value>) {
        let quota = json!([{"name": text, "used_percent": 1.0}]);
        let reports = vec![
            json!({"kind": "quota", "account": "acc_1", "windows": quota, "at": 5}),
            json!({"kind": "quota", "account": text, "windows": [], "at": 5}),
            json!({"kind": "dead", "account": "acc_1", "generation": 1, "reason": text, "at": 5}),
            json!({"kind": "recovered", "account": "acc_1", "model": text, "at": 5}),
            json!({"kind": "cooling_down", "account": "acc_1", "scope": {"model": text}, "until": 9, "guessed": true,
                "reason": "overloaded", "at": 5}),
        ];
        let names = [
            "id", "key", "pool", "account", "platform", "asked", "model", "verdict", "error",
        ];
        let record = |name: &&str| {
            let mut record = json!({"at": 5, "key": "key_1", "pool": "default", "dialect": "chat", "status": 200,
                "attempts": 1, "duration_ms": 9, "completeness": "whole"});
            record[*name] = text.into();
            record
        };
        (reports, names.iter().map(record).collect())
    }

    fn read_records(records: Vec<Value>) -> Vec<RequestRecord> {
        let batch = json!({"batch": "0".repeat(32), "records": records});
        let mut batch: Batch = serde_json::from_str(&batch.to_string()).unwrap();
        batch.take_records().unwrap().unwrap().records
    }

    #[test]
    fn what_is_shown_to_people_is_short_and_visible() {
        let (reports, records) = with("gpt_5");
        assert!(reports.iter().all(|report| read(report.clone()).is_ok()));
        assert_eq!(read_records(records.clone()), {
            let read = |record: &Value| serde_json::from_value(record.clone()).unwrap();
            records.iter().map(read).collect::<Vec<RequestRecord>>()
        });
        for bad in [
            "",
            "a\u{1b}[2J",
            "a\nb",
            "a\tb",
            "\u{202e}a",
            "é",
            &"x".repeat(257),
        ] {
            let (reports, records) = with(bad);
            for report in reports {
                assert_eq!(read(report.clone()), Err(Refused::Malformed), "{report}");
            }
            assert_eq!(read_records(records), [], "{bad:?}");
        }
        let long = json!([{"name": "x".repeat(65), "used_percent": 1.0}]);
        for windows in [long, json!([{"name": "5h", "used_percent": -1e300}])] {
            let quota = json!({"kind": "quota", "account": "acc_1", "windows": windows, "at": 5});
            assert_eq!(read(quota), Err(Refused::Malformed));
        }
        assert_eq!(read(json!({"kind": "tomorrow's"})), Err(Refused::Kind));
        assert_eq!(read(json!(7)), Err(Refused::Kind));
    }

    proptest! {
        /// All that is taken of a report or a record can be shown, whatever text that is made of.
        #[test]
        fn no_text_that_is_taken_moves_a_cursor(text in "\\PC{0,9}|[ -~]{0,300}|.{0,9}") {
            let (reports, records) = with(&text);
            let reports = reports.into_iter().filter_map(|report| read(report).ok());
            let shown = reports.map(|report| serde_json::to_value(report).unwrap());
            let records = read_records(records).into_iter();
            let shown = shown.chain(records.map(|record| serde_json::to_value(record).unwrap()));
            for value in shown {
                let text = value.to_string();
                prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
                prop_assert!(text.len() < 900, "{text}");
            }
        }
    }

    #[test]
    fn the_word_of_a_second_key_confirms_the_first() {
        let says = |suspects: &mut Suspects, key: &str, generation: u64, at: u64| {
            let mut report = read(
                json!({"kind": "dead", "account": "acc_1", "generation": generation,
                "reason": "gone", "at": at, "key": key}),
            )
            .unwrap();
            suspects.weigh(&mut report);
            matches!(
                report,
                Report::Dead {
                    confirmed: true,
                    ..
                }
            )
        };
        let mut suspects = Suspects::default();
        assert!(!says(&mut suspects, "key_1", 1, 5));
        assert!(!says(&mut suspects, "key_1", 1, 6), "the same key");
        assert!(!says(&mut suspects, "key_2", 2, 7), "another credential");
        assert!(says(&mut suspects, "key_1", 2, 8));
        assert!(!says(&mut suspects, "key_2", 2, 8 + SUSPECTED_MS), "late");
    }

    #[test]
    fn a_batch_counts_once_and_memory_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_new("a"));
        assert!(!seen.is_new("a"));
        for number in 0..REMEMBERED_BATCHES {
            assert!(seen.is_new(&format!("{number} {}", "é".repeat(100))));
        }
        assert_eq!(
            (seen.order.len(), seen.ids.len()),
            (REMEMBERED_BATCHES, REMEMBERED_BATCHES)
        );
        assert!(seen.is_new("a"), "the oldest is forgotten");
    }
}
