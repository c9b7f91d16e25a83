//! The requests that were sent on and are under way, by their passes at the gate.
//!
//! The gate and the attempts of a request run in the same VM, so an attempt finds here what the
//! gate decided. Which request it is it knows from the filter state, which no caller can reach.

use std::{collections::HashMap, rc::Rc};

use crate::{
    attempt::{
        early::Early,
        passage::{Pass, Passage},
    },
    id::Id,
    meter::record::Record,
    sync::tally::UnderWay,
};

/// All of one VM; Envoy bounds how many there are.
#[derive(Debug, Default)]
pub(super) struct Passes(HashMap<Pass, SentOn>);

/// A request that was sent on.
#[derive(Debug)]
pub(super) struct SentOn {
    pub(super) account: Id,
    /// Where it goes, and the property that says so.
    passage: Option<(String, Rc<Passage>)>,
    /// None once there is an answer.
    pub(super) open: Option<Open>,
    /// How many bytes of its body the attempt has let go.
    pub(super) request_bytes: u64,
    /// The answer became a redirect: if Envoy follows it, another pass has the record.
    pub(super) redirected: bool,
    /// An attempt of it came to its end before its body was whole.
    pub(super) broke_off: bool,
    /// The platform's answer, where it came before the request was whole.
    early: Option<Early>,
}

/// The record of a request that is under way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) record: Record,
    pub(super) under_way: UnderWay,
}

// === impl Passes ===

impl Passes {
    /// The request of that pass is to go to `account`.
    pub(super) fn insert(&mut self, pass: Pass, account: Id, open: Open) {
        let sent = SentOn {
            account,
            passage: None,
            open: Some(open),
            request_bytes: 0,
            redirected: false,
            broke_off: false,
            early: None,
        };
        self.0.insert(pass, sent);
    }

    /// It went, with the property `text` to say where.
    pub(super) fn went(&mut self, text: String, passage: Passage) {
        if let Some(sent) = self.0.get_mut(&passage.pass) {
            sent.passage = Some((text, Rc::new(passage)));
        }
    }

    /// The passage that the property `text` says. As a rule the gate of this VM wrote it and has
    /// it still, to the letter: then nothing is to be read.
    pub(super) fn passage(&self, text: &[u8]) -> Option<Rc<Passage>> {
        let sent = Passage::pass_of(text).and_then(|pass| self.0.get(&pass));
        match sent.and_then(|sent| sent.passage.as_ref()) {
            Some((own, passage)) if own.as_bytes() == text => Some(Rc::clone(passage)),
            _ => Passage::decode(text).map(Rc::new),
        }
    }

    /// The record of the request of that pass, which has an answer now.
    pub(super) fn answered(&mut self, pass: Pass) -> Option<Open> {
        self.0.get_mut(&pass)?.open.take()
    }

    /// So many bytes of the body of that pass's request have gone out.
    pub(super) fn sent_body(&mut self, pass: Pass, bytes: u64) {
        if let Some(sent) = self.0.get_mut(&pass) {
            sent.request_bytes = bytes;
        }
    }

    /// The answer of that pass became a redirect.
    pub(super) fn redirected(&mut self, pass: Pass) {
        if let Some(sent) = self.0.get_mut(&pass) {
            sent.redirected = true;
        }
    }

    /// An attempt of that pass ended while its request was still being sent.
    pub(super) fn broke_off(&mut self, pass: Pass) {
        if let Some(sent) = self.0.get_mut(&pass) {
            sent.broke_off = true;
        }
    }

    /// The answer to that pass's request came before the request was whole.
    pub(super) fn keep(&mut self, pass: Pass, answer: Early) {
        if let Some(sent) = self.0.get_mut(&pass) {
            sent.early = Some(answer);
        }
    }

    /// That answer, if there is one.
    pub(super) fn take_early(&mut self, pass: Pass) -> Option<Early> {
        self.0.get_mut(&pass)?.early.take()
    }

    /// Whether an attempt of this pass passes the platform's answer on, as it is.
    pub(super) fn is_passed_on(&self, pass: Pass) -> bool {
        let sent = self.0.get(&pass);
        sent.is_some_and(|sent| sent.open.is_none() && !sent.redirected)
    }

    /// The request of that pass, if it is under way.
    pub(super) fn get_mut(&mut self, pass: Pass) -> Option<&mut SentOn> {
        self.0.get_mut(&pass)
    }

    /// Its context is no more.
    pub(super) fn remove(&mut self, pass: Pass) -> Option<SentOn> {
        self.0.remove(&pass)
    }
}
