//! An answer that goes on to the caller: what is noted of it, and what is changed in it.

use super::sent::{Answer, GoesOn, Sent};
use crate::{
    attempt::{
        asked_model::AskedModel,
        forwarding::{self, Forwarding},
        made::MadeReader,
    },
    host::{Host, Side, Stream},
    request::record::RequestRecord,
    worker::Worker,
};

/// An answer that goes on to the caller.
#[derive(Debug)]
pub(super) struct Forwarded {
    record: RequestRecord,
    /// The answer is no error.
    good: bool,
    /// The reader of it; none for an error, and for what is not read.
    answer: Option<Forwarding>,
    /// The changer of the model's name to the one that was asked for, where another one has served it.
    asked_model: Option<AskedModel>,
    /// The answer for the caller, where it speaks another dialect than the platform.
    translated: Option<Answer>,
    /// The reader of the ids of things that the answer makes, and the days for which they live.
    makes: Option<(MadeReader, u16)>,
}

/// A translated piece of an answer.
pub(super) struct Translated {
    /// The bytes for the caller.
    pub(super) bytes: Vec<u8>,
    /// False while nothing goes on yet, nor the headers.
    pub(super) goes_on: bool,
}

// === impl Forwarded ===

impl Forwarded {
    /// The answer to `sent`, which has this `record`. `answer`: the reader that has read it ahead, where one has.
    pub(super) fn of(
        sent: &Sent,
        record: RequestRecord,
        good: bool,
        translated: Option<Answer>,
        answer: Option<Forwarding>,
    ) -> Self {
        Self {
            record,
            good,
            translated,
            asked_model: sent.asked_model().filter(|_| good),
            makes: sent.keeps().filter(|_| good),
            answer: (good && !sent.opaque).then(|| sent.forwarding(answer)),
        }
    }

    /// Returns true if it is kept until it can be translated whole.
    pub(super) fn is_kept(&self) -> bool {
        self.translated.as_ref().is_some_and(Answer::is_kept)
    }

    /// Reads a piece: the ids of what it makes, its tokens, and an error in it. Returns what goes on in its place, if
    /// that is not the same.
    pub(super) fn meter<H: Host>(
        &mut self,
        body: &[u8],
        end: bool,
        sent: &Sent,
        worker: &mut Worker<H>,
    ) -> Option<Vec<u8>> {
        if let Some((reader, days)) = &mut self.makes {
            // Before the caller has it.
            let ids = reader.push(body).into_iter();
            let made = ids.map(|id| sent.made(&id, *days, worker));
            self.record.made.extend(made);
        }
        let answer = self.answer.as_mut()?;
        let instead = answer.on_body(body, end);
        if let Some(error) = answer.take_failure() {
            self.record.verdict = Some(sent.gave_up(&error, worker));
        }
        instead
    }

    /// Puts the name of the model that was asked for into a piece. Returns what goes on in its place, if that is not the
    /// same.
    pub(super) fn rename(&mut self, text: &[u8], end: bool) -> Option<Vec<u8>> {
        self.asked_model.as_mut()?.on_body(text, end)
    }

    /// Translates a piece, where the answer is translated.
    pub(super) fn translate<H: Host>(
        &mut self,
        text: &[u8],
        end: bool,
        sent: &Sent,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Option<Translated> {
        let holds = |size| worker.holds_answer(sent.try_id(), size);
        let (bytes, goes_on) = match self.translated.as_mut()?.on_body(text, end, holds) {
            GoesOn::Bytes(bytes) => (bytes, true),
            GoesOn::Nothing => (Vec::new(), false),
            GoesOn::All(status, bytes) => {
                if let Some(status) = status {
                    let status = status.to_string();
                    stream.set_header(Side::Answer, ":status", Some(status.as_bytes()));
                }
                (bytes, true)
            }
        };
        Some(Translated { bytes, goes_on })
    }

    /// Ends the answer; `end`: all of it has gone on. Returns its record, with the tokens: those of the request are
    /// estimated from the `charged` bytes of its body.
    pub(super) fn finish<H: Host>(
        self,
        end: bool,
        charged: u64,
        sent: &Sent,
        worker: &mut Worker<H>,
    ) -> RequestRecord {
        let mut record = self.record;
        match self.answer {
            Some(answer) => {
                let metered = answer.finish(end, charged);
                if end && !metered.failed {
                    sent.ended_well(worker);
                }
                record.metered(metered);
            }
            None => {
                if end && self.good && sent.opaque {
                    sent.ended_well(worker);
                }
                record.completeness = forwarding::completeness(end);
            }
        }
        record
    }
}
