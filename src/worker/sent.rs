//! The requests that were sent on and are under way, by their tries.
//!
//! The gate and the attempts of a request run in the same VM, so an attempt finds here what the
//! gate decided. Which request it serves it knows from the filter state, which no caller can reach.

use std::{collections::HashMap, rc::Rc};

use crate::{
    attempt::early::Early,
    header::HeaderMap,
    id::Id,
    known::Known,
    request::{
        carried::{Carried, TryId},
        record::RequestRecord,
    },
};

/// A connection that breaks within this many milliseconds of a request's end was closing as the request came: no
/// platform has worked for long by then.
const STALE_MS: u64 = 1_000;

/// The tries of one VM that are under way; Envoy bounds how many there are.
#[derive(Debug, Default)]
pub struct Tries(Known<TryId, SentOn>);

/// A request that was sent on.
#[derive(Debug)]
pub struct SentOn {
    /// The account that serves it.
    pub account: Id,
    /// The property with what the gate decided, and the same read.
    carried: (String, Rc<Carried>),
    /// Its record; none once there is an answer.
    pub record: Option<RequestRecord>,
    /// The bytes of its body that the attempt has let go and that may be charged.
    pub request_bytes: u64,
    /// Its answer became a redirect: if Envoy follows it, another try has the record.
    pub redirected: bool,
    /// An attempt of it ended before its body was whole.
    pub broke_off: bool,
    /// No connection was had for an attempt of it.
    pub was_not_sent: bool,
    /// The request as the gate let it through, which the attempt at the escape finds as the first one made it; none once
    /// there is an answer. Envoy takes no larger header block than `max_request_headers_kb`, 60 KiB.
    pub request: Option<Rc<HeaderMap>>,
    /// The milliseconds within which the first event of its answer is due.
    first_event_ms: Option<u64>,
    /// The time at which all of it had gone to the platform, in Unix milliseconds.
    whole_at: Option<u64>,
    /// The platform's answer, where it came before the request was whole.
    early: Option<Early>,
}

// === impl Tries ===

impl Tries {
    /// Begins the try that `carried` names, which the property `text` says.
    pub fn insert(
        &mut self,
        text: String,
        carried: Carried,
        record: RequestRecord,
        first_event_ms: Option<u64>,
    ) {
        let sent = SentOn {
            account: carried.account.clone(),
            record: Some(record),
            request_bytes: 0,
            redirected: false,
            broke_off: false,
            was_not_sent: false,
            request: None,
            first_event_ms,
            whole_at: None,
            early: None,
            carried: (text, Rc::new(carried)),
        };
        self.0.insert(sent.carried.1.try_id, sent);
    }

    /// Reads the property `text`. As a rule the gate of this VM wrote it and still has it, to the
    /// letter: then nothing is parsed.
    pub fn carried(&self, text: &[u8]) -> Option<Rc<Carried>> {
        let sent = Carried::try_of(text).and_then(|try_id| self.0.get(&try_id));
        match sent.map(|sent| &sent.carried) {
            Some((own, carried)) if own.as_bytes() == text => Some(Rc::clone(carried)),
            _ => Carried::decode(text).map(Rc::new),
        }
    }

    /// Returns what the gate decided of a try that is under way.
    pub fn of(&self, try_id: TryId) -> Option<&Carried> {
        Some(&self.0.get(&try_id)?.carried.1)
    }

    /// Returns true if this is the property of that try: no attempt has written what comes next.
    pub fn is_own(&self, try_id: TryId, text: &[u8]) -> bool {
        let sent = self.0.get(&try_id);
        sent.is_some_and(|sent| sent.carried.0.as_bytes() == text)
    }

    /// Counts the tries that are under way, by client key.
    pub fn by_key(&self) -> HashMap<&Id, usize> {
        let mut counts = HashMap::new();
        for sent in self.0.values() {
            let count: &mut usize = counts.entry(&sent.carried.1.key).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// Takes the record of a try that has an answer now, and that no other attempt follows.
    pub fn answered(&mut self, try_id: TryId) -> Option<RequestRecord> {
        let sent = self.0.get_mut(&try_id)?;
        sent.request = None;
        sent.record.take()
    }

    /// Notes that all of a try's request has gone to the platform at `now`.
    pub fn is_whole(&mut self, try_id: TryId, now: u64) {
        if let Some(sent) = self.0.get_mut(&try_id) {
            sent.whole_at.get_or_insert(now);
        }
    }

    /// Returns true if the first event of a try's answer was due by `now`.
    pub fn was_silent(&self, try_id: TryId, now: u64) -> bool {
        let sent = self.0.get(&try_id);
        let due = sent.and_then(|sent| sent.whole_at?.checked_add(sent.first_event_ms?));
        due.is_some_and(|due| now >= due)
    }

    /// Returns true if the connection of a try that has no answer `now` broke as its request came.
    pub fn was_stale(&self, try_id: TryId, now: u64) -> bool {
        let whole_at = self.0.get(&try_id).and_then(|sent| sent.whole_at);
        whole_at.is_some_and(|at| now.saturating_sub(at) < STALE_MS)
    }

    /// Keeps the answer of a try that came before its request was whole.
    pub fn keep_early(&mut self, try_id: TryId, answer: Early) {
        if let Some(sent) = self.0.get_mut(&try_id) {
            sent.early = Some(answer);
        }
    }

    /// Takes that answer, if there is one.
    pub fn take_early(&mut self, try_id: TryId) -> Option<Early> {
        self.0.get_mut(&try_id)?.early.take()
    }

    /// Returns true if an attempt of this try forwards the platform's answer as it is.
    pub fn is_forwarded(&self, try_id: TryId) -> bool {
        let sent = self.0.get(&try_id);
        sent.is_some_and(|sent| sent.record.is_none() && !sent.redirected)
    }

    /// Returns the try of this number, if it is under way.
    pub fn get_mut(&mut self, try_id: TryId) -> Option<&mut SentOn> {
        self.0.get_mut(&try_id)
    }

    /// Ends a try: its context is no more.
    pub fn remove(&mut self, try_id: TryId) -> Option<SentOn> {
        self.0.remove(&try_id)
    }
}
