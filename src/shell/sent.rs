//! The requests that were sent on and are under way, by their passes at the gate.
//!
//! The gate and the attempts of a request run in the same VM, so an attempt finds here what the
//! gate decided. Which request it is it knows from the filter state, which no caller can reach.

use std::{collections::HashMap, rc::Rc};

use crate::{
    attempt::early::Early,
    id::Id,
    request::carried::{Carried, TryId},
    request::record::Record,
};

/// All of one VM; Envoy bounds how many there are.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<TryId, SentOn>);

/// A request that was sent on.
#[derive(Debug)]
pub(super) struct SentOn {
    pub(super) account: Id,
    /// Where it goes, and the property that says so.
    carried: Option<(String, Rc<Carried>)>,
    /// Its record; none once there is an answer.
    pub(super) open: Option<Record>,
    /// How many bytes of its body the attempt has let go.
    pub(super) request_bytes: u64,
    /// The answer became a redirect: if Envoy follows it, another try has the record.
    pub(super) redirected: bool,
    /// An attempt of it came to its end before its body was whole.
    pub(super) broke_off: bool,
    /// The platform's answer, where it came before the request was whole.
    early: Option<Early>,
}

// === impl Tries ===

impl Tries {
    /// The request of that try is to go to `account`.
    pub(super) fn insert(&mut self, try_id: TryId, account: Id, open: Record) {
        let sent = SentOn {
            account,
            carried: None,
            open: Some(open),
            request_bytes: 0,
            redirected: false,
            broke_off: false,
            early: None,
        };
        self.0.insert(try_id, sent);
    }

    /// It went, with the property `text` to say where.
    pub(super) fn went(&mut self, text: String, carried: Carried) {
        if let Some(sent) = self.0.get_mut(&carried.try_id) {
            sent.carried = Some((text, Rc::new(carried)));
        }
    }

    /// The carried that the property `text` says. As a rule the gate of this VM wrote it and has
    /// it still, to the letter: then nothing is to be read.
    pub(super) fn carried(&self, text: &[u8]) -> Option<Rc<Carried>> {
        let sent = Carried::try_of(text).and_then(|try_id| self.0.get(&try_id));
        match sent.and_then(|sent| sent.carried.as_ref()) {
            Some((own, carried)) if own.as_bytes() == text => Some(Rc::clone(carried)),
            _ => Carried::decode(text).map(Rc::new),
        }
    }

    /// The record of the request of that try, which has an answer now.
    pub(super) fn answered(&mut self, try_id: TryId) -> Option<Record> {
        self.0.get_mut(&try_id)?.open.take()
    }

    /// So many bytes of the body of that try's request have gone out.
    pub(super) fn sent_body(&mut self, try_id: TryId, bytes: u64) {
        if let Some(sent) = self.0.get_mut(&try_id) {
            sent.request_bytes = bytes;
        }
    }

    /// The answer of that try became a redirect.
    pub(super) fn redirected(&mut self, try_id: TryId) {
        if let Some(sent) = self.0.get_mut(&try_id) {
            sent.redirected = true;
        }
    }

    /// An attempt of that try ended while its request was still being sent.
    pub(super) fn broke_off(&mut self, try_id: TryId) {
        if let Some(sent) = self.0.get_mut(&try_id) {
            sent.broke_off = true;
        }
    }

    /// The answer to that try's request came before the request was whole.
    pub(super) fn keep(&mut self, try_id: TryId, answer: Early) {
        if let Some(sent) = self.0.get_mut(&try_id) {
            sent.early = Some(answer);
        }
    }

    /// That answer, if there is one.
    pub(super) fn take_early(&mut self, try_id: TryId) -> Option<Early> {
        self.0.get_mut(&try_id)?.early.take()
    }

    /// Whether an attempt of this try passes the platform's answer on, as it is.
    pub(super) fn is_forwarded(&self, try_id: TryId) -> bool {
        let sent = self.0.get(&try_id);
        sent.is_some_and(|sent| sent.open.is_none() && !sent.redirected)
    }

    /// The request of that try, if it is under way.
    pub(super) fn get_mut(&mut self, try_id: TryId) -> Option<&mut SentOn> {
        self.0.get_mut(&try_id)
    }

    /// Its context is no more.
    pub(super) fn remove(&mut self, try_id: TryId) -> Option<SentOn> {
        self.0.remove(&try_id)
    }
}
