//! The body of a request on its way out: as it is, edited or translated, and in the object that the platform has around it
//! ([`Wrapper`](crate::snapshot::wrapper::Wrapper)).

use super::{
    Sent,
    edits::MAX_EDITED_BYTES,
    translated::{Became, estimate},
};
use crate::{
    attempt::usage_ask::{Rewrite, UsageAsk},
    gate::{Refusal, Reply, Unwrappable},
    header::HeaderText,
    host::{Action, Side, Stream},
    id::Id,
    request::carried::Carried,
    snapshot::{Account, Wrapper, wrapper::MAX_WRAPPED_BYTES},
    text::one_object::{OneObject, Seen},
};

/// The texts that stand around a request's body.
#[derive(Debug)]
pub(super) struct Around {
    before: Vec<u8>,
    behind: Vec<u8>,
    /// The reader of a body that is not translated, as it comes.
    body: OneObject,
}

impl Around {
    /// Makes the texts for the body of a request as this account, which this model serves.
    ///
    /// # Errors
    /// It needs what the request or the account does not have.
    pub(super) fn of(
        wrapper: &Wrapper,
        account: &Account,
        carried: &Carried,
        model: Option<&HeaderText>,
    ) -> Result<Self, Refusal> {
        let try_id = carried.try_id;
        // The numbers of VMs are far apart.
        let own = try_id.vm.wrapping_add(try_id.context.into()).to_string();
        let id = carried.id.as_ref().map_or(own.as_str(), Id::as_str);
        let around = wrapper.around(account, model.map(HeaderText::as_str), id);
        let (before, behind) = around.ok_or_else(|| match model {
            None if wrapper.names_model() => Refusal::Unwrappable(Unwrappable::NoModel),
            _ => Refusal::NoCredential,
        })?;
        Ok(Self {
            before,
            behind,
            body: OneObject::default(),
        })
    }

    /// Looks at what has come of a body, `size` bytes; `end`: they are all.
    ///
    /// # Errors
    /// It does not go into an object: what is none itself could have members of its own put beside ours.
    fn fits(&mut self, size: usize, end: bool, stream: &impl Stream) -> Result<(), Refusal> {
        let start = self.body.read();
        let seen = match size.saturating_sub(start) {
            _ if size > MAX_WRAPPED_BYTES => Seen::TooDeep,
            0 => self.body.on_body(&[], end),
            length => {
                let new = stream.body(Side::Request, start, length);
                self.body.on_body(&new, end)
            }
        };
        match seen {
            Seen::Beginning | Seen::Whole => Ok(()),
            Seen::TooDeep => Err(Refusal::Unwrappable(Unwrappable::TooLarge)),
            Seen::Other => Err(Refusal::Unwrappable(Unwrappable::NoObject)),
        }
    }
}

impl Sent {
    /// Lets the request's body go on edited or translated, and in what the platform has around it.
    ///
    /// # Errors
    /// It cannot be; or it asks for what is said here, and that is what the caller gets.
    pub(in crate::stream::attempt) fn rewrite(
        &mut self,
        size: usize,
        end: bool,
        now: u64,
        stream: &mut impl Stream,
    ) -> Result<Action, Reply> {
        if let (Some(around), None) = (&mut self.around, &self.translated) {
            if let Err(refusal) = around.fits(size, end, stream) {
                return Err(self.refused(&refusal));
            }
            // Also before its first byte: the headers say its length, which is another one then.
            if !end {
                return Ok(Action::Pause);
            }
        }
        let Some(length) = self.written(size, end, now, stream)? else {
            return Ok(Action::Pause);
        };
        if let Some(Around { before, behind, .. }) = &self.around {
            stream.set_body(Side::Request, 0, before);
            let length = length.saturating_add(before.len());
            stream.append_body(Side::Request, length, behind);
            if self.request.first("content-length").is_some() {
                let length = length.saturating_add(behind.len()).to_string();
                stream.set_header(Side::Request, "content-length", Some(length.as_bytes()));
            }
        }
        Ok(Action::Continue)
    }

    /// Lets the request's body go on edited or translated; none of it yet, or so many bytes.
    ///
    /// # Errors
    /// It cannot be translated; or it asks for what is said here, and that is what the caller gets.
    fn written(
        &mut self,
        size: usize,
        end: bool,
        now: u64,
        stream: &mut impl Stream,
    ) -> Result<Option<usize>, Reply> {
        if let Some(translated) = &mut self.translated {
            let asked_at = self.request.first(":path").unwrap_or_default();
            let asked_at = std::str::from_utf8(asked_at).unwrap_or_default();
            let made = translated.request(&self.carried, asked_at, size, end, now, stream);
            let body = match made.map_err(|refusal| self.refused(&refusal))? {
                Became::Nothing => return Ok(None),
                Became::Body(body) => body,
                Became::Estimate(body) => {
                    let Carried { dialect, id, .. } = &*self.carried;
                    return Err(estimate(body).with_request_id(*dialect, id.as_ref()));
                }
            };
            let length = body.len().to_string();
            if self.request.first("content-length").is_some() {
                stream.set_header(Side::Request, "content-length", Some(length.as_bytes()));
            }
            stream.set_body(Side::Request, size, &body);
            return Ok(Some(body.len()));
        }
        let is_edited = self.renamed_to().is_some() || self.demanded.is_some();
        let edited = match is_edited {
            false => None,
            // Also before its first byte: the headers say its length, which is another one then.
            true if !end && size <= MAX_EDITED_BYTES => return Ok(None),
            true if size == 0 => None,
            true => {
                let made = self.edited(size, stream);
                Some(made.map_err(|refusal| self.refused(&refusal))?)
            }
        };
        let rewrite = match &edited {
            None => {
                let read = || stream.body(Side::Request, 0, size);
                self.usage_ask.on_request(self.dialect, size, end, read)
            }
            Some(body) => self
                .usage_ask
                .on_request(self.dialect, body.len(), end, || body.clone()),
        };
        match (rewrite, edited) {
            (Rewrite::NeedMore, _) => return Ok(None),
            (Rewrite::AsItIs, None) => {}
            (Rewrite::Instead(body), _) | (Rewrite::AsItIs, Some(body)) => {
                let length = body.len().to_string();
                let length = Some(length.as_bytes());
                let has_length = self.request.first("content-length").is_some();
                if !has_length || stream.set_header(Side::Request, "content-length", length) {
                    stream.set_body(Side::Request, size, &body);
                    return Ok(Some(body.len()));
                } else if is_edited {
                    // Nothing goes on of which it was demanded to be another.
                    return Err(self.refused(&Refusal::Unchangeable {
                        too_large: false,
                        why: "its length went on before it".to_owned(),
                    }));
                } else {
                    self.usage_ask = UsageAsk::NotAsked;
                }
            }
        }
        Ok(Some(size))
    }
}
