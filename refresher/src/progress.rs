//! The progress of each Envoy with the snapshot, by what its polls say.
//!
//! An Envoy polls with the revision that it holds. One that polls and holds another than ours for longer than [`BEHIND`],
//! refuses pages, or has records that it could not read, stays behind. One that has not polled for as long is gone:
//! somebody stopped it, or it cannot reach us; nobody here can tell which. Both are told of: in the log once, in `status`
//! and in the metrics as long as it is so, each by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use latchkey::id::{Id, is_hex_name};
use latchkey::label::Label;
use serde::{Deserialize, Serialize};

/// The time after which an Envoy that lacks something stays behind, and one that polls no more is gone. Between two polls
/// of one that runs there are milliseconds, and 1.6 s where the VM that polls has died.
const BEHIND: Duration = Duration::from_secs(5);
/// The pause between two looks at all Envoys.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The time after which an Envoy that is gone is forgotten.
const FORGET: Duration = Duration::from_secs(60 * 60);
/// The most Envoys that are remembered; what comes after them is not watched.
const MAX_ENVOYS: usize = 1_024;

/// A word, or a kind and an id, that a filter says.
type Word = Label<96>;

/// The words of a poll about the Envoy that it comes from. An older filter says none of it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Said {
    /// Names the process.
    #[serde(default)]
    instance: String,
    /// The node id that the operator gave the Envoy.
    node: Option<Id>,
    /// The revision that it holds.
    held: Option<u64>,
    /// The reason why it refused the last page.
    refused: Option<Word>,
    /// The number of records it could not read.
    #[serde(default)]
    unread: u64,
    /// The first of them: its kind and id.
    first_unread: Option<Word>,
}

/// An Envoy as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvoyView {
    /// Names the process.
    pub instance: String,
    /// The node id that the operator gave it.
    pub node: Option<String>,
    /// The revision that it holds.
    pub revision: u64,
    /// The number of records it could not read.
    pub unread: u64,
    /// For how many seconds it has stayed behind; none for one that does not.
    pub behind_seconds: Option<u64>,
    /// The reason why it stays behind.
    pub why: Option<String>,
    /// For how many seconds it has not polled; none for one that does.
    #[serde(default)]
    pub gone_seconds: Option<u64>,
}

/// All Envoys that have polled. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<HashMap<String, Envoy>>>);

#[derive(Debug)]
struct Envoy {
    said: Said,
    /// True if the VM holds what its poll asked to go on from.
    is_of_epoch: bool,
    polls: u32,
    /// The time when its last poll came, or was answered.
    heard_at: Instant,
    /// Since when it lacks something.
    lacks_since: Option<Instant>,
    /// The last that was told of it in the log.
    told: Told,
}

/// The last word of the log on an Envoy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Told {
    /// A VM that is where it should be.
    #[default]
    Current,
    /// A VM that stays behind.
    Behind,
    /// A VM that is gone.
    Gone,
}

/// A poll under way. Its end, whatever that is, is noted.
#[derive(Debug)]
pub struct Poll {
    progress: Progress,
    instance: String,
}

impl Drop for Poll {
    fn drop(&mut self) {
        if let Some(envoy) = self.progress.lock().get_mut(&self.instance) {
            envoy.polls = envoy.polls.saturating_sub(1);
            envoy.heard_at = Instant::now();
        }
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Envoy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a poll; `is_of_epoch`: what it holds is of our history. None for a filter that does not say who it is.
    pub fn begin(&self, said: Said, is_of_epoch: bool, now: Instant) -> Option<Poll> {
        if !is_hex_name(&said.instance) {
            return None;
        }
        let instance = said.instance.clone();
        let mut envoys = self.lock();
        if !envoys.contains_key(&instance) && envoys.len() >= MAX_ENVOYS {
            return None;
        }
        // Who restarts an Envoy gives it its node's name again; while both run, both poll.
        let is_successor = !envoys.contains_key(&instance) && said.node.is_some();
        if is_successor {
            envoys.retain(|_, old| old.polls > 0 || old.said.node != said.node);
        }
        let envoy = envoys.entry(instance.clone()).or_insert(Envoy {
            said: Said::default(),
            is_of_epoch,
            polls: 0,
            heard_at: now,
            lacks_since: None,
            told: Told::Current,
        });
        envoy.said = said;
        envoy.is_of_epoch = is_of_epoch;
        envoy.polls += 1;
        envoy.heard_at = now;
        Some(Poll {
            progress: self.clone(),
            instance,
        })
    }

    /// Looks at all Envoys at `now`, when `revision` is ours: notes since when each of them lacks something, logs what is
    /// new of that, and returns them in order of node and process.
    pub fn look(&self, revision: u64, now: Instant) -> Vec<EnvoyView> {
        let mut envoys = self.lock();
        envoys.retain(|_, envoy| envoy.polls > 0 || now.duration_since(envoy.heard_at) < FORGET);
        let mut views: Vec<_> = envoys
            .values_mut()
            .map(|envoy| envoy.look(revision, now))
            .collect();
        views.sort_by(|one, other| (&one.node, &one.instance).cmp(&(&other.node, &other.instance)));
        views
    }
}

impl Envoy {
    fn look(&mut self, revision: u64, now: Instant) -> EnvoyView {
        let silent = now.saturating_duration_since(self.heard_at);
        let gone = (self.polls == 0 && silent >= BEHIND).then_some(silent);
        // What one lacks that is gone, its next poll will say.
        let lacks = self.lack(revision).filter(|_| gone.is_none());
        self.lacks_since = lacks.as_ref().and(self.lacks_since.or(Some(now)));
        let lacking = self.lacks_since.map(|since| now.duration_since(since));
        let behind = lacking.filter(|lacking| *lacking >= BEHIND);
        let why = lacks.filter(|_| behind.is_some());
        self.tell(why.as_deref(), gone.is_some());
        let seconds = |one: Duration| one.as_secs();
        EnvoyView {
            instance: self.said.instance.clone(),
            node: self.said.node.as_ref().map(Id::to_string),
            revision: self.said.held.unwrap_or_default(),
            unread: self.said.unread,
            behind_seconds: behind.map(seconds),
            why,
            gone_seconds: gone.map(seconds),
        }
    }

    /// Logs what is new.
    fn tell(&mut self, why: Option<&str>, is_gone: bool) {
        let now = match (why, is_gone) {
            (_, true) => Told::Gone,
            (Some(_), false) => Told::Behind,
            (None, false) => Told::Current,
        };
        let before = std::mem::replace(&mut self.told, now);
        let instance = &self.said.instance;
        let node = self.said.node.as_ref().map_or("none", Id::as_str);
        match (before, now) {
            _ if before == now => {}
            (_, Told::Behind) => tracing::warn!(node, instance, why, "an Envoy stays behind"),
            (_, Told::Gone) => tracing::warn!(
                node,
                instance,
                "an Envoy polls no more: it was stopped, or it cannot reach the refresher and goes on with what it has"
            ),
            (Told::Gone, Told::Current) => tracing::info!(node, instance, "an Envoy polls again"),
            (_, Told::Current) => tracing::info!(node, instance, "an Envoy has caught up"),
        }
    }

    /// Returns what keeps the Envoy from having what we have; none where it has all.
    fn lack(&self, revision: u64) -> Option<String> {
        let said = &self.said;
        let first = said.first_unread.as_ref();
        if let Some(word) = &said.refused {
            return Some(format!("it refuses the pages of the snapshot ({word})"));
        }
        if said.unread > 0 {
            let first = first.map(|first| format!(", first {first}"));
            let (number, first) = (said.unread, first.unwrap_or_default());
            return Some(format!(
                "it cannot read, or has no room for, {number} records{first}"
            ));
        }
        let is_current = self.is_of_epoch && said.held.is_none_or(|held| held >= revision);
        (!is_current).then(|| match said.held {
            Some(held) => format!("it holds revision {held} of {revision}"),
            None => format!("it does not hold revision {revision}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn said(digit: &str, other: serde_json::Value) -> Said {
        let mut said = json!({"instance": digit.repeat(32), "node": "n", "held": 7});
        said.as_object_mut()
            .unwrap()
            .extend(other.as_object().unwrap().clone());
        serde_json::from_value(said).unwrap()
    }

    /// The reasons that the Envoys stay behind for.
    fn why(progress: &Progress, revision: u64, now: Instant) -> Vec<Option<String>> {
        let views = progress.look(revision, now).into_iter();
        views.map(|view| view.why).collect()
    }

    #[test]
    fn an_envoy_that_lacks_something_for_long_stays_behind() {
        let start = Instant::now();
        for (other, revision, expected) in [
            (json!({}), 7, None),
            (json!({}), 8, Some("it holds revision 7 of 8")),
            (
                json!({"unread": 2}),
                7,
                Some("it cannot read, or has no room for, 2 records"),
            ),
            (
                json!({"unread": 1, "first_unread": "account/acc_1"}),
                7,
                Some("it cannot read, or has no room for, 1 records, first account/acc_1"),
            ),
            (
                json!({"refused": "checksum"}),
                7,
                Some("it refuses the pages of the snapshot (checksum)"),
            ),
        ] {
            let progress = Progress::default();
            let poll = progress.begin(said("a", other), true, start);
            assert_eq!(why(&progress, revision, start), [None]);
            assert_eq!(why(&progress, revision, start + BEHIND - SECOND), [None]);
            let later = start + BEHIND;
            assert_eq!(
                why(&progress, revision, later),
                [expected.map(str::to_owned)]
            );
            // Its next poll says that it has everything.
            drop(poll);
            let _poll = progress.begin(said("a", json!({"held": 8})), true, later);
            assert_eq!(why(&progress, revision, later + BEHIND), [None]);
        }
    }

    #[test]
    fn an_envoy_of_another_history_stays_behind() {
        let progress = Progress::default();
        let start = Instant::now();
        let _poll = progress.begin(said("a", json!({"held": 9})), false, start);
        progress.look(7, start);
        let stays = why(&progress, 7, start + BEHIND);
        assert_eq!(stays, [Some("it holds revision 9 of 7".to_owned())]);
    }

    /// Nobody knows whether it was stopped or is cut off. So it is not behind, whatever it lacked when it was last heard.
    #[test]
    fn an_envoy_that_polls_no_more_is_gone_and_then_forgotten() {
        let progress = Progress::default();
        let start = Instant::now();
        let poll = progress.begin(said("a", json!({"unread": 1})), true, start);
        progress.look(8, start);
        let [one] = &progress.look(8, start + BEHIND)[..] else {
            panic!("no Envoy")
        };
        assert_eq!((one.behind_seconds, one.gone_seconds), (Some(5), None));
        drop(poll);
        let now = Instant::now();
        let gone = |after| {
            let all = progress.look(8, now + after);
            let views = all.iter();
            let views = views.map(|one| (one.behind_seconds.is_some(), one.gone_seconds));
            views.collect::<Vec<_>>()
        };
        assert_eq!(gone(BEHIND - SECOND)[0].1, None, "between two polls");
        assert_eq!(gone(BEHIND + SECOND), [(false, Some(6))]);
        assert_eq!(progress.lock()[&"a".repeat(32)].told, Told::Gone);
        assert_eq!(gone(FORGET + SECOND), []);
        // One that is back lacks what it lacks from then on.
        drop(progress.begin(said("a", json!({})), true, now));
        progress.look(8, now + BEHIND + SECOND);
        let _poll = progress.begin(said("a", json!({})), true, now + 2 * BEHIND);
        assert_eq!(gone(2 * BEHIND), [(false, None)]);
        assert_eq!(progress.lock()[&"a".repeat(32)].told, Told::Current);
        assert_eq!(gone(3 * BEHIND), [(true, None)]);
    }

    #[test]
    fn a_restarted_envoy_takes_the_place_of_the_one_before_and_strangers_have_none() {
        let progress = Progress::default();
        let start = Instant::now();
        let first = progress.begin(said("a", json!({})), true, start);
        let beside = progress.begin(said("b", json!({})), true, start);
        assert_eq!(progress.look(7, start).len(), 2, "both run");
        drop((first, beside));
        let _third = progress.begin(said("c", json!({})), true, start);
        let instances: Vec<_> = progress
            .look(7, start)
            .into_iter()
            .map(|one| one.instance)
            .collect();
        assert_eq!(instances, ["c".repeat(32)]);
        assert!(progress.begin(Said::default(), true, start).is_none());
        for number in 0..2 * MAX_ENVOYS {
            let other = json!({"instance": format!("{number:032}"), "node": null});
            progress.begin(said("d", other), true, start);
        }
        assert_eq!(progress.lock().len(), MAX_ENVOYS);
    }
}
