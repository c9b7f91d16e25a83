//! The things that requests hold: the memory of their bodies, the turns in which these are decoded, and connections.

use std::{cell::RefCell, rc::Rc};

use super::Worker;
use crate::{
    budget::{KeyName, Shares},
    gate::{Refusal, Reply, Request, standing},
    host::Host,
    request::carried::TryId,
    snapshot::View,
};

/// The most bytes that one VM has of answers without what the platform has around them, while they are held, beside what
/// each may take uncounted. Where there is no room, an answer is held no longer.
pub(super) const MAX_UNWRAPPED_BYTES: usize = 64 * 1024 * 1024;

impl<H: Host> Worker<H> {
    /// Refuses the request of `context`, whose body is yet to come, where its client key is at a
    /// limit.
    ///
    /// # Errors
    /// The answer.
    pub fn let_in(&mut self, context: u32, request: &Request) -> Result<(), Reply> {
        let view = self.follower.current();
        let Some(key) = view.and_then(|view| request.client_key(view)) else {
            return Ok(());
        };
        let now = self.host.recently();
        let Err(refusal) = self.limiter.let_in(&mut self.host, context, key, now) else {
            return Ok(());
        };
        Err(self.refuse(request, &refusal))
    }

    /// Begins to hold the request of `context`, whose body has that `length` as far as its headers
    /// tell.
    ///
    /// # Errors
    /// The answer, where there is no room for it.
    pub fn hold(&mut self, context: u32, request: &Request, length: u64) -> Result<(), Reply> {
        if let Some(carried) = request.carried() {
            self.book.again(carried.try_id.context, context);
            return Ok(());
        }
        let Some(key) = request.key_id(self.follower.current()) else {
            return Ok(());
        };
        let (key, now) = (KeyName::of(key), self.host.recently());
        let held = self.book.begin(&mut self.host, context, key, length, now);
        held.map_err(|no_room| self.refuse(request, &Refusal::NoRoom(no_room)))
    }

    /// Returns the name by which what the request's key holds is counted; none where that key is not known.
    pub fn key_name(&self, request: &Request) -> Option<KeyName> {
        request.key_id(self.follower.current()).map(KeyName::of)
    }

    /// Keeps a connection open on which there is a request of `key`. Returns false where it is to be closed with the answer,
    /// as that key keeps as many as it may.
    pub fn keep_connection(&mut self, connection: u64, key: KeyName) -> bool {
        let now = self.host.recently();
        self.connections.keep(&mut self.host, connection, key, now)
    }

    /// Returns true if `key` has of late broken requests off on connections that it may not keep.
    pub fn breaks_off(&self, key: KeyName) -> bool {
        self.connections.breaks_off(key, self.host.recently())
    }

    /// Holds a piece more of the body of the request of `context`, which is `undecided` or was sent
    /// on.
    ///
    /// # Errors
    /// The answer, where there is no room for it.
    pub fn hold_more(
        &mut self,
        context: u32,
        undecided: Option<&Request>,
        piece: usize,
    ) -> Result<(), Reply> {
        let now = self.host.recently();
        let Err(no_room) = self.book.grow(&mut self.host, context, piece, now) else {
            return Ok(());
        };
        Err(match undecided {
            Some(request) => self.refuse(request, &Refusal::NoRoom(no_room)),
            None => Refusal::NoRoom(no_room).reply_to(self.sent.of(self.try_id(context))),
        })
    }

    /// Returns the version of the snapshot as it was last read; it moves with each change.
    pub fn snapshot_version(&self) -> u64 {
        self.follower.current().map_or(0, View::version)
    }

    /// Returns the answer to the request of `context`, which was sent on and of which more comes, where what it was sent on
    /// with was taken away meanwhile. `property`: what its tries have told of it.
    pub fn withdrawn(
        &mut self,
        context: u32,
        property: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Reply> {
        let (now, moved) = (self.host.recently(), self.host.take_moved());
        self.follower.look(&self.host, now, moved);
        let (try_id, is_confirmed) = (self.try_id(context), self.is_confirmed(now));
        let (carried, view) = (self.sent.of(try_id)?, self.follower.current()?);
        let refusal = match standing::check(carried, view, now) {
            Ok(()) if is_confirmed => return None,
            Ok(()) => Refusal::Unconfirmed,
            // It has left that account, and goes to another one when it is whole.
            Err(Refusal::Withdrawn)
                if property().is_some_and(|text| !self.sent.is_own(try_id, &text)) =>
            {
                return None;
            }
            Err(refusal) => refusal,
        };
        Some(refusal.reply_to(Some(carried)))
    }

    /// Holds the `made` bytes that the body of the request of `context` was decoded to so far, and
    /// the bytes of its `decoder`, where that goes on.
    ///
    /// # Errors
    /// The answer, where there is no room for them.
    pub fn hold_decoded(
        &mut self,
        context: u32,
        request: &Request,
        made: usize,
        decoder: usize,
    ) -> Result<(), Reply> {
        let [made, decoder] = [made, decoder].map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
        let now = self.host.recently();
        let held = self
            .book
            .hold_decoded(&mut self.host, context, made, decoder, now);
        held.map_err(|no_room| self.refuse(request, &Refusal::NoRoom(no_room)))
    }

    /// Holds `size` bytes of the answer to a try back. Returns false where there is no room for them.
    pub fn holds_answer(&mut self, try_id: TryId, size: usize) -> bool {
        let now = self.host.recently();
        let held = self
            .book
            .hold_answer(&mut self.host, try_id.context, size, now);
        held.is_ok()
    }

    /// The counter for the bytes of answers that are held without the platform's wrapper.
    pub fn unwrapped(&self) -> Rc<RefCell<Shares>> {
        Rc::clone(&self.unwrapped)
    }

    /// Has the body of a request wait for its turn to be decoded on. Returns true if it keeps its
    /// decoder until then.
    pub fn keeps_decoding(&mut self, context: u32, request: &Request) -> bool {
        let key = request.key_id(self.follower.current());
        let keeps = self.decoding.keeps(context, key);
        self.decoding.insert(context, key, keeps);
        keeps
    }

    /// Returns true if the body of a request may be decoded in this callback. Else has it wait for
    /// its turn.
    pub fn may_decode(&mut self, context: u32, request: &Request) -> bool {
        let key = request.key_id(self.follower.current());
        let may = self.decoding.may_decode(context, key);
        if !may {
            self.decoding.insert(context, key, false);
        }
        may
    }

    /// Counts the time that the decoding of a request's body took.
    pub fn spend(&mut self, request: &Request, milliseconds: u64) {
        let key = request.key_id(self.follower.current());
        self.decoding.spend(key, milliseconds);
    }

    /// Counts a request whose body is refused in its key's minute.
    pub fn count_refused(&mut self, context: u32, request: &Request) {
        let view = self.follower.current();
        if let Some(key) = view.and_then(|view| request.client_key(view)) {
            let now = self.host.recently();
            self.limiter
                .count_refused(&mut self.host, context, key, now);
        }
    }

    /// Begins a tick of decoding.
    pub fn begin_turns(&mut self) {
        self.decoding.begin_tick();
    }

    /// Returns the context of the body whose turn it is to be decoded on.
    pub fn take_turn(&mut self) -> Option<u32> {
        self.decoding.take_turn()
    }
}
