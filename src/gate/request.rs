//! A request as the gate knows it before it is decided about, and what it is to its pool.

use super::{
    client_key::Presented,
    models::{is_exact, mapped},
    refusal::{MeantBase, Refusal, Reply},
    standing,
};
use crate::{
    decode::Coding,
    dialect::{Demands, Dialect},
    hash::hash64,
    header::{HeaderMap, HeaderName, HeaderText},
    home::ThingHash,
    id::Id,
    request::{
        ACCOUNT_HEADER, Head, Lacks, POOL_HEADER,
        body::BodyReader,
        carried::{Carried, Wish},
        peek::{Facts, Wanted},
        session,
    },
    snapshot::{
        ClientKey, DoorId, Doors, Entered, KeyHash, Models, NoDoor, Own, Places, View, path::Place,
    },
};

/// A request, until it is decided about.
#[derive(Debug, Default)]
pub struct Request {
    pub(super) headers: HeaderMap,
    /// The carried of an earlier attempt that failed, read from filter state. The request has lost its client
    /// key by then, and its body is not read again.
    pub(super) carried: Option<Box<Carried>>,
    /// The way in which it came in.
    pub(super) entry: Entry,
    pub(super) key: Option<KeyHash>,
    /// The coding in which its body comes, if it is not plain.
    pub(super) coding: Option<Coding>,
    pub(super) facts: Facts,
    /// The time at which it came, in Unix milliseconds.
    pub(super) at: u64,
}

/// The way in which a request came in.
#[derive(Debug, Default)]
pub(super) enum Entry {
    /// The door was not looked for, or cannot be told yet.
    #[default]
    Unknown,
    /// Through no door.
    None(NoDoor),
    /// Through this door.
    Through {
        door: DoorId,
        dialect: Dialect,
        /// The answer that the gateway itself gives there.
        own: Option<Own>,
        /// The values that its path names.
        places: Places,
    },
}

/// A request as the pool that serves it sees it.
pub(super) struct Subject<'a> {
    pub(super) key: &'a Id,
    pub(super) pool: &'a Id,
    /// The models that its key allows.
    pub(super) allowed: &'a Models,
    /// The request may not be translated.
    pub(super) untranslated: bool,
    /// The model that it asks for serves it, or none.
    pub(super) exact_model: bool,
    /// The demands of its operator.
    pub(super) demands: Demands,
    /// The account that it asks for, by name or id.
    pub(super) wish: Option<&'a str>,
    /// The platform that it asks for.
    pub(super) platform: Option<&'a str>,
    /// Its caller may choose the account, and so know their names.
    pub(super) may_choose: bool,
    /// The model that serves it, and the one that its caller asked for.
    pub(super) model: Option<&'a HeaderText>,
    pub(super) asked: Option<&'a HeaderText>,
    pub(super) lacks: Lacks,
    /// The hash of the account that it is bound to, where an earlier try found that out.
    pub(super) home: Option<u64>,
}

// === impl Request ===

impl Request {
    /// A request with these headers, which may have been here before.
    pub fn new(headers: HeaderMap, carried: Option<Carried>) -> Self {
        Self {
            headers,
            carried: carried.map(Box::new),
            ..Self::default()
        }
    }

    /// Envoy's id of it, which is off its headers by the time that it comes again.
    pub(super) fn id(&self) -> Option<Id> {
        if let Some(carried) = &self.carried {
            return carried.id.clone();
        }
        let id = std::str::from_utf8(self.headers.first("x-request-id")?);
        Id::try_from(id.ok()?).ok()
    }

    /// The client key that it came with, as the snapshot has it; on a later try, which has lost it, by its id.
    pub fn client_key<'a>(&self, view: &'a View) -> Option<&'a ClientKey> {
        match &self.carried {
            Some(carried) => view.key_of(&carried.key),
            None => view.key(self.key.as_ref()?),
        }
    }

    /// Returns true if that key has limits of tokens.
    pub(super) fn has_token_limits(&self, view: &View) -> bool {
        let limits = self.client_key(view).map(|key| &key.limits);
        limits.is_some_and(|limits| {
            limits.tokens_per_minute.is_some() || limits.tokens_per_day.is_some()
        })
    }

    /// The id of that key, on a later try too; none where it is not known.
    pub fn key_id<'a>(&'a self, view: Option<&'a View>) -> Option<&'a Id> {
        match &self.carried {
            Some(carried) => Some(&carried.key),
            None => Some(&self.client_key(view?)?.id),
        }
    }

    /// Returns true if it brings what may be a client key, and has not been here before.
    pub fn presents_key(&self) -> bool {
        let query = Head::of(&self.headers).query;
        self.carried.is_none() && Presented::of(&self.headers, query).is_ok()
    }

    /// A reader for its body, which has to say what is `wanted`.
    pub fn reader(&self, wanted: Wanted) -> BodyReader {
        BodyReader::new(self.headers.first("content-type"), wanted)
    }

    /// Returns what its last try carried, if it has had one.
    pub fn carried(&self) -> Option<&Carried> {
        self.carried.as_deref()
    }

    /// The coding in which its body comes, once it was asked about; none for a plain one.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// The answer of a refusal, in the dialect that its caller speaks.
    pub fn refused(&self, refusal: &Refusal) -> Reply {
        let (dialect, id) = (self.dialect(), self.id());
        refusal.reply(dialect).with_request_id(dialect, id.as_ref())
    }

    /// The dialect that its caller speaks: that of its door.
    pub(super) fn dialect(&self) -> Dialect {
        match (&self.carried, &self.entry) {
            (Some(carried), _) => carried.dialect,
            (None, Entry::Through { dialect, .. }) => *dialect,
            (None, Entry::Unknown | Entry::None(_)) => {
                Head::of(&self.headers).strangers_dialect(&self.headers)
            }
        }
    }

    /// Returns true if it is known to ask for a stream.
    pub(super) fn streams(&self) -> bool {
        let accepts = self.headers.first("accept").unwrap_or_default();
        match &self.carried {
            Some(carried) => carried.streams,
            None => self.facts.stream.unwrap_or(accepts == b"text/event-stream"),
        }
    }

    /// The door that it came through.
    pub(super) fn door(&self, view: &View) -> Result<DoorId, Refusal> {
        match (&self.carried, &self.entry) {
            (Some(carried), _) => Ok(carried.door),
            (None, Entry::Through { door, .. }) => Ok(*door),
            (None, Entry::None(NoDoor::Path)) => Err(self.unknown_path(view)),
            (None, Entry::None(NoDoor::Method(allowed))) => Err(Refusal::Method(allowed.clone())),
            (None, Entry::Unknown) => Err(Refusal::NotReady),
        }
    }

    /// The refusal of its path, with the base URL that its client was meant to have.
    pub(super) fn unknown_path(&self, view: &View) -> Refusal {
        let head = Head::of(&self.headers);
        let doors = view.doors();
        let base = doors.and_then(|doors| doors.meant_base(head.method, head.path));
        let url = |path: &str| {
            let url = head.url_of(&self.headers, path).with_query(b"")?;
            String::from_utf8(url).ok()
        };
        Refusal::UnknownPath(base.and_then(|(sent, meant)| {
            Some(MeantBase {
                sent: url(sent)?,
                meant: url(&meant)?,
            })
        }))
    }

    /// The answer to what anybody may ask, whoever they are.
    pub(super) fn anybodys(&self) -> Option<Reply> {
        match &self.entry {
            Entry::Through {
                own: Some(Own::Alive),
                ..
            } => Some(Reply::alive()),
            // A browser asks so before it sends a key.
            Entry::None(NoDoor::Method(allowed))
                if self.headers.first(":method") == Some(b"OPTIONS") =>
            {
                Some(Reply::options(allowed))
            }
            _ => None,
        }
    }

    /// The thing that its path names, and those that its body names, on its first try. None where its caller chose
    /// the account.
    pub fn things(&self) -> (Option<ThingHash>, &[ThingHash]) {
        if self.carried.is_some() || self.headers.first(ACCOUNT_HEADER).is_some() {
            return (None, &[]);
        }
        let in_path = self.places().and_then(|places| places.thing.as_ref());
        let in_path = in_path.map(|id| ThingHash::of(id.as_str()));
        let things = &self.facts.things;
        match things.too_many {
            // It will be refused: nobody is asked about them.
            true => (in_path, &[]),
            false => (in_path, things.hashes()),
        }
    }

    /// The value that its path names in `place`.
    pub(super) fn named(&self, place: Place) -> Option<HeaderText> {
        match &self.carried {
            Some(carried) => carried.places(carried.model.clone()).get(place).cloned(),
            None => self.places()?.get(place).cloned(),
        }
    }

    /// The values that its path names, on its first try.
    fn places(&self) -> Option<&Places> {
        match &self.entry {
            Entry::Through { places, .. } => Some(places),
            Entry::Unknown | Entry::None(_) => None,
        }
    }

    /// The model that it asks for, by its path or else by its body.
    pub(super) fn model(&self) -> Option<&HeaderText> {
        match &self.carried {
            Some(carried) => carried.model.as_ref(),
            None => {
                let in_path = self.places().and_then(|places| places.model.as_ref());
                in_path.or(self.facts.model.as_ref())
            }
        }
    }

    /// Its path names the model.
    pub(super) fn names_model_in_path(&self) -> bool {
        self.places().is_some_and(|places| places.model.is_some())
    }

    /// Returns true if nothing in it names another model than [`Self::model`]: what was not read could, and the platform
    /// may prefer that. A later try knows it where its key had a list of models at the first one.
    pub(super) fn names_one_model(&self) -> bool {
        if let Some(carried) = &self.carried {
            return carried.one_model;
        }
        let Facts {
            model,
            models_differ,
            whole,
            ..
        } = &self.facts;
        let agree = model
            .as_ref()
            .is_none_or(|model| self.model() == Some(model));
        *whole && !models_differ && agree
    }

    /// The session of a request from `key`, if it has one, and if it is the first turn of that, as far as can be told.
    pub(super) fn session(&self, view: &View, key: &Id) -> (Option<u64>, bool) {
        if let Some(carried) = &self.carried {
            return (carried.session, carried.opens);
        }
        let (names, named) = (session_headers(view), self.facts.session.as_ref());
        let named = session::of(&self.headers, names, named, key.as_str());
        match self.facts.opening {
            Some(opening) if named.is_none() => {
                let opened = session::opened_by(&opening, key.as_str());
                (Some(opened), !opening.goes_on)
            }
            _ => (named, false),
        }
    }

    /// The request with what its body says.
    pub fn with_facts(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }
}

// === impl Entry ===

impl Entry {
    /// Finds the way in which a request of this head comes in.
    pub(super) fn of(doors: &Doors, head: &Head<'_>, headers: &HeaderMap) -> Self {
        let entered = doors.enter(&head.knock(), |name| headers.first(name).is_some());
        match entered {
            Err(none) => Self::None(none),
            Ok(Entered { door, places }) => Self::Through {
                door: door.id,
                dialect: door.dialect,
                own: door.own(),
                places,
            },
        }
    }
}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// Describes a request by its client key, as that is now, and by its body, or what the filter state says of it.
    pub(super) fn of(request: &'a Request, view: &'a View, now: u64) -> Result<Self, Refusal> {
        let Request { headers, facts, .. } = request;
        let carried = request.carried.as_deref();
        if carried.is_none() && request.key.is_none() {
            return Err(Refusal::NoKey);
        }
        let key = standing::usable(request.client_key(view), now)?;
        let pool = match (carried, headers.first(POOL_HEADER)) {
            (Some(carried), _) => standing::pool_of(carried, key)?,
            (None, None) => &key.pool,
            (None, Some(wish)) => key.pool_named(wish).ok_or(Refusal::ChoiceNotAllowed)?,
        };
        let wish = match (carried, headers.first(ACCOUNT_HEADER)) {
            (Some(carried), _) => carried.wished_account(),
            (None, None) => facts.account.as_deref(),
            (None, Some(wish)) => {
                Some(std::str::from_utf8(wish).map_err(|_| Refusal::ChoiceNotAllowed)?)
            }
        };
        let platform = match carried {
            Some(carried) => wished_platform(carried, view),
            None => facts.platform.as_deref(),
        };
        if (wish.is_some() || platform.is_some()) && !key.may_choose.account {
            return Err(Refusal::ChoiceNotAllowed);
        }
        let asked = carried.and_then(|carried| carried.asked.as_ref());
        let asked = asked.or_else(|| request.model());
        let within = view.pool(pool).map(|pool| &**pool);
        let mapped = asked.map(|asked| mapped(key, within, asked.as_str()));
        let mapped = mapped.unwrap_or_default();
        Ok(Self {
            key: &key.id,
            pool,
            allowed: &key.models,
            demands: key.demands.or_effort(mapped.effort),
            exact_model: is_exact(key, within),
            untranslated: key.untranslated || within.is_some_and(|pool| pool.untranslated),
            wish,
            platform,
            may_choose: key.may_choose.account,
            model: mapped.model.or(asked),
            asked,
            lacks: carried.map_or_else(|| Lacks::of(facts), |carried| carried.lacks),
            home: carried.filter(|carried| carried.at_home).map(home_hash),
        })
    }
}

/// The hash of the account that has what the request goes on from.
fn home_hash(carried: &Carried) -> u64 {
    hash64(&[carried.account.as_str().as_bytes()])
}

/// The platform that a request asked for which comes again: that of the account that it had.
pub(super) fn wished_platform<'a>(carried: &Carried, view: &'a View) -> Option<&'a str> {
    (carried.wish == Wish::Platform).then(|| {
        let account = view.account(carried.account.as_str());
        // No platform has no name: one that is gone is not replaced.
        account.map_or("", |account| account.platform.as_str())
    })
}

/// The headers in which clients name a session.
fn session_headers(view: &View) -> &[HeaderName] {
    view.doors().map_or(&[], |doors| &doors.session_headers)
}
