//! A request's body that comes compressed: it stays in Envoy until it is whole, and goes on as the
//! bytes that it stands for.

use crate::{
    decode::{Coding, Decoder, Fault, MAX_DECODED_BYTES},
    gate::Request,
    host::{Host, Side, Stream},
    request::{
        body::BodyReader,
        peek::{Facts, Wanted},
    },
    worker::Worker,
};

/// The time that one callback may spend on decoding, and one step more. What all callbacks spend
/// from one tick to the next is bounded too ([`crate::worker::decoding`]).
const SLICE_MS: u64 = 15;

/// The most bytes that one callback makes, where the clock does not end it. It bounds what is held
/// here of a body that may not stay.
const MAX_SLICE_BYTES: usize = 8 * 1024 * 1024;

/// The most bytes of a body as it comes: what Envoy, as it is shipped, keeps of one. What is longer
/// is refused by the length that it tells, or else by Envoy when it has come.
const MAX_CODED_BYTES: usize = MAX_DECODED_BYTES;

/// A request whose body comes compressed.
#[derive(Debug)]
pub(super) struct Coded {
    pub(super) request: Request,
    coding: Coding,
    wanted: Wanted,
    /// The bytes of it that Envoy holds.
    size: usize,
    /// Its decoder, while it is under way.
    open: Option<Open>,
}

/// A body that is decoded in part. Envoy holds that part, and nothing else of it.
#[derive(Debug)]
struct Open {
    decoder: Decoder,
    peek: BodyReader,
    /// The bytes of the part.
    made: usize,
}

/// The body as it is.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) facts: Facts,
    pub(super) length: usize,
}

impl Coded {
    /// Makes one of which nothing of the body has come.
    pub(super) fn new(request: Request, coding: Coding, wanted: Wanted) -> Self {
        Self {
            request,
            coding,
            wanted,
            size: 0,
            open: None,
        }
    }

    /// Takes note of the bytes that Envoy holds.
    pub(super) fn grows(&mut self, size: usize) -> Result<(), Fault> {
        self.size = size;
        match size > MAX_CODED_BYTES {
            true => Err(Fault::TooLarge),
            false => Ok(()),
        }
    }

    /// Returns the bytes that were made of it so far.
    pub(super) fn made(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.made)
    }

    /// Returns the bytes that its decoder takes, while it is under way.
    pub(super) fn decoder(&self) -> usize {
        let open = self.open.as_ref();
        open.map_or(0, |open| open.decoder.memory())
    }

    /// Decodes the body, which is whole, for as long as one callback may. Where that is not long
    /// enough it returns none, and the body gets its turn at a later tick.
    pub(super) fn decode<H: Host>(
        &mut self,
        context: u32,
        worker: &mut Worker<H>,
        stream: &mut impl Stream,
    ) -> Result<Option<Plain>, Fault> {
        if self.size == 0 {
            // Nothing was sent, so there is nothing to decode.
            let facts = self.request.reader(self.wanted).into_facts();
            return Ok(Some(Plain { facts, length: 0 }));
        }
        if !worker.may_decode(context, &self.request) {
            return Ok(None);
        }
        let is_new = self.open.is_none();
        let began = worker.host().clock();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(stream),
        };
        let mut slice = Vec::new();
        let ended = loop {
            match open.decoder.step() {
                Err(fault) => break Err(fault),
                Ok(None) => break Ok(true),
                Ok(Some(bytes)) => {
                    open.peek.push(bytes);
                    slice.extend_from_slice(bytes);
                }
            }
            let took = worker.host().clock().saturating_sub(began);
            if took >= SLICE_MS || slice.len() >= MAX_SLICE_BYTES {
                break Ok(false);
            }
        };
        let took = worker.host().clock().saturating_sub(began);
        worker.spend(&self.request, took);
        let is_whole = ended?;
        if !is_whole && !worker.keeps_decoding(context, &self.request) {
            return Ok(None);
        }
        if is_new {
            stream.set_body(Side::Request, self.size, &slice);
        } else {
            stream.append_body(Side::Request, open.made, &slice);
        }
        open.made = open.made.saturating_add(slice.len());
        if is_whole {
            return Ok(Some(Plain {
                facts: open.peek.into_facts(),
                length: open.made,
            }));
        }
        self.open = Some(open);
        Ok(None)
    }

    fn begin(&self, stream: &impl Stream) -> Open {
        let coded = stream.body(Side::Request, 0, self.size);
        Open {
            decoder: Decoder::new(self.coding, coded),
            peek: self.request.reader(self.wanted),
            made: 0,
        }
    }
}

/// Returns true if no coded body may be so long.
pub(super) fn is_too_long(length: u64) -> bool {
    length > MAX_CODED_BYTES as u64
}
