//! An account that may be picked, and why it may not.

use std::rc::Rc;

use super::Need;
use crate::{
    hash::hash64,
    header::HeaderText,
    health::{Standing, Why},
    id::Id,
    snapshot::{
        Account, Door, EndpointId, Member, Platform, Requirement, Tier, View,
        path::{self, Place},
        pool::Weight,
    },
    verdict::Reason,
};

/// An account that may be picked.
#[derive(Debug)]
pub struct Candidate {
    pub(super) account: Rc<Account>,
    pub(super) tier: Tier,
    pub(super) weight: Weight,
    pub(super) hash: u64,
    /// The endpoint at which its platform answers the request.
    pub(super) endpoint: EndpointId,
    /// The platform, to look its models up, where the request is translated.
    translated: Option<Rc<Platform>>,
    /// The endpoint's path takes the model.
    takes_model_in_path: bool,
    /// Its profile says when the first event of a stream is due, so it matters if one is asked for.
    pub(super) asks_stream: bool,
    /// The request itself says if the account keeps its answer.
    pub(super) asks_store: bool,
    /// The requirements of its platform there.
    pub(super) requires: Box<[Requirement]>,
    /// Its platform has an object of its own around the body, which goes in up to a length.
    pub(super) wraps: bool,
    /// The turns that it is behind its share, where weights differ.
    pub(super) credit: i64,
    /// Its own end or its credential's, whichever comes first; here so that a pick among many stays
    /// within one stretch of memory.
    pub(super) usable_until: Option<u64>,
    /// The account serves every model; the list is looked at for the others alone.
    serves_all: bool,
}

/// A candidate that may not be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// The account.
    pub account: Id,
    /// Its name, for a caller that may choose by it: it may be a person's address.
    pub name: Option<HeaderText>,
    /// The reason.
    pub reason: Reason,
    /// Its return.
    pub back: Back,
    /// Its platform refuses it: when it is back it is tried, no more.
    pub is_refused: bool,
}

/// The return of an account that may not be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// At this time, in Unix milliseconds.
    At(u64),
    /// With its next credential, which may be under way.
    WithCredential,
    /// Not by itself: it is past the end that its operator set.
    Never,
}

// === impl Candidate ===

impl Candidate {
    /// The candidate that a member of a pool is for what is asked at `door`, if it is one.
    pub(super) fn of(view: &View, member: &Member, door: &Door) -> Option<Self> {
        let account = view.account(member.account.as_str())?;
        let platform = view.platform(&account.platform)?;
        let id = platform.endpoint_for(door)?;
        let endpoint = platform.endpoint(id)?;
        let translated = (!endpoint.answers(door)).then(|| Rc::clone(platform));
        // A translated request has what the platform asks for.
        let requires = match translated {
            Some(_) => &[][..],
            None => endpoint.requires.as_slice(),
        };
        Some(Self {
            account: Rc::clone(account),
            tier: member.tier,
            weight: member.weight,
            hash: hash64(&[account.id.as_str().as_bytes()]),
            endpoint: id,
            takes_model_in_path: endpoint.path.has(Place::Model),
            asks_stream: endpoint
                .first_event_seconds
                .is_some_and(|seconds| seconds > 0),
            asks_store: endpoint.keeps_asked && translated.is_none(),
            requires: requires.into(),
            wraps: endpoint.wrapper.is_some() && translated.is_none(),
            translated,
            credit: 0,
            usable_until: [account.credential_expires_at, account.expires_at]
                .into_iter()
                .flatten()
                .min(),
            serves_all: account.models.is_all(),
        })
    }

    /// Returns true if the request may be sent with this candidate.
    pub(super) fn is_eligible(&self, need: &Need<'_>) -> bool {
        (need.board.is_empty() || !matches!(self.standing(need), Standing::Out(_)))
            && (need.full.is_empty() || self.full_until(need).is_none())
            && self.could_serve(need)
    }

    /// Returns true if the candidate could serve the request but for a pause that its platform asked for and that ends
    /// by `soon`.
    pub(super) fn is_throttled(&self, need: &Need<'_>, soon: u64) -> bool {
        let is_short = |why: Why<'_>| why.is_told && !why.awaits_credential && why.back_at <= soon;
        matches!(self.standing(need), Standing::Out(why) if is_short(why)) && self.could_serve(need)
    }

    /// Returns true if the candidate could serve the request, had it fewer under way.
    pub(super) fn is_busy(&self, need: &Need<'_>) -> bool {
        need.full.is_busy(&self.account.id, need.now)
            && !matches!(self.standing(need), Standing::Out(_))
            && self.could_serve(need)
    }

    /// Returns true if the candidate could serve the request, were it neither out nor full.
    fn could_serve(&self, need: &Need<'_>) -> bool {
        !self.is_over(need)
            && !self.was_tried(need)
            && self.speaks(need)
            && self.serves(need)
            && self.suits(need)
            && self.is_wished(need)
    }

    /// Returns true if a request is translated for this candidate.
    pub(super) fn is_translated(&self) -> bool {
        self.translated.is_some()
    }

    /// Returns true if the candidate speaks the caller's dialect, or the request may be translated for it.
    pub(super) fn speaks(&self, need: &Need<'_>) -> bool {
        !(need.untranslated && self.is_translated())
    }

    /// The model that the request is for, as the platform names it.
    fn model<'a>(&'a self, need: &Need<'a>) -> Option<&'a str> {
        let named = |model| self.account.maps.served(model).map(HeaderText::as_str);
        need.model.map(|model| named(model).unwrap_or(model))
    }

    /// Returns true if the candidate serves the model. One that speaks another dialect serves what its platform, or
    /// its operator, says that it has: callers of that dialect ask for other makers' models.
    pub(super) fn serves(&self, need: &Need<'_>) -> bool {
        let lists = |platform: &Rc<Platform>| {
            let mut models = platform.models.iter();
            let own = self.model(need);
            let named = |model| self.account.maps.of(model).is_some();
            need.model.is_some_and(named)
                || own.is_some_and(|model| models.any(|one| one.as_str() == model))
        };
        let serves_all = self.serves_all && self.translated.as_ref().is_none_or(lists);
        let serves_some = !self.serves_all && self.account.models.contain(need.model);
        (serves_all || need.modelless || serves_some)
            && (!self.takes_model_in_path || self.model(need).is_some_and(path::fits))
    }

    /// Returns true if a pick has to know the model.
    pub(super) fn needs_model(&self) -> bool {
        !self.serves_all
            || self.takes_model_in_path
            || self.is_translated()
            || !self.account.maps.is_empty()
    }

    /// Returns true if the candidate's platform takes such a request.
    pub(super) fn suits(&self, need: &Need<'_>) -> bool {
        let is_too_large = self.wraps && need.lacks.small;
        let mut requires = self.requires.iter();
        !is_too_large && !requires.any(|one| need.lacks.includes(*one))
    }

    /// Returns true if the request asks for this candidate, or for none in particular.
    pub(super) fn is_wished(&self, need: &Need<'_>) -> bool {
        need.home.is_none_or(|home| home == self.hash)
            && need
                .platform
                .is_none_or(|wish| self.account.platform.as_str() == wish)
            && need.wish.is_none_or(|wish| {
                self.account.id.as_str() == wish || self.account.name.as_str() == wish
            })
    }

    /// Returns true if the candidate is past its end, or its credential's.
    fn is_over(&self, need: &Need<'_>) -> bool {
        self.usable_until.is_some_and(|end| need.now >= end)
    }

    pub(super) fn is_half_open(&self, need: &Need<'_>) -> bool {
        !need.board.is_empty() && self.standing(need) == Standing::HalfOpen
    }

    fn standing<'a>(&self, need: &Need<'a>) -> Standing<'a> {
        need.board
            .standing(&self.account, need.key, need.model, need.now)
    }

    /// Returns true if it was tried with this credential: with another one it is worth another try.
    fn was_tried(&self, need: &Need<'_>) -> bool {
        need.tried.iter().any(|(id, generation)| {
            *id == self.account.id && *generation == self.account.generation
        })
    }

    /// Until when it is at a limit, if it is.
    fn full_until(&self, need: &Need<'_>) -> Option<u64> {
        need.full.until(&self.account.id, need.now)
    }

    /// Says why the candidate may not be used, and until when.
    pub(super) fn out(&self, need: &Need<'_>) -> Out {
        let (reason, back) = match self.standing(need) {
            // Whatever else is the matter with it: nothing of that brings it back.
            _ if self.account.has_expired(need.now) => (Reason::known("ended"), Back::Never),
            Standing::Out(why) => {
                let back = match why.awaits_credential {
                    true => Back::WithCredential,
                    false => Back::At(why.back_at),
                };
                (why.reason.clone(), back)
            }
            _ if self.is_over(need) => (Reason::known("expired"), Back::WithCredential),
            _ => match self.full_until(need) {
                Some(until) => (Reason::known("limit"), Back::At(until)),
                None => (Reason::known("tried"), Back::At(need.now)),
            },
        };
        let is_refused = matches!(self.standing(need), Standing::Out(why) if why.is_dead);
        Out {
            is_refused,
            account: self.account.id.clone(),
            name: need.shows_names.then(|| self.account.name.clone()),
            reason,
            back,
        }
    }
}
