//! The gate: who is calling, which pool, which account.
//!
//! [`Gate::ask`] says what of a request's body matters, [`Gate::decide`] is the decision: a
//! [`Request`] in, a [`Decision`] out. They touch nothing;
//! [`crate::stream::gate`] carries the decision out.

mod admission;
pub mod client_key;
pub mod models;
pub mod refusal;
pub mod select;

use std::{collections::HashMap, rc::Rc};

use self::select::{Back, InFlight, Need, Out, Pick, Table};
pub use self::{
    admission::Asked,
    refusal::{AllOut, Refusal, Reply},
};
use crate::{
    dialect::Dialect,
    header::{HeaderMap, HeaderName, HeaderText},
    health::Board,
    id::Id,
    limit::FullAccounts,
    request::{
        ACCOUNT_HEADER, Head, Lacks, POOL_HEADER,
        carried::{Carried, TryId},
        peek::{Facts, Wanted},
        record::{self, Record},
        session, stripped,
    },
    snapshot::{Account, ClientKey, Door, DoorId, Doors, Entered, KeyHash, Models, NoDoor, View},
};

/// The header by which the route finds the account's cluster.
pub const CLUSTER_HEADER: &str = "x-latchkey-cluster";

/// The gate's memory between requests.
#[derive(Debug, Default)]
pub struct Gate {
    tables: Tables,
    in_flight: InFlight,
}

/// Tables made from the snapshot, by pool and door.
#[derive(Debug, Default)]
struct Tables {
    by_pool: HashMap<Id, HashMap<DoorId, Table>>,
    version: u64,
}

/// What the gate decides by, beside the request.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// The snapshot; none where the refresher has not been reached yet.
    pub view: Option<&'a View>,
    /// The accounts that are out.
    pub board: &'a Board,
    /// The accounts that are at a limit.
    pub full: &'a FullAccounts,
    /// Unix milliseconds.
    pub now: u64,
    /// This try.
    pub try_id: TryId,
    /// Whether the request may still wait for a fresh credential.
    pub may_wait: bool,
}

/// A request, until it is decided about.
#[derive(Debug, Default)]
pub struct Request {
    headers: HeaderMap,
    /// What the filter state says where the request comes again after an attempt that failed: it
    /// has lost its client key by then, and its body is not read again.
    carried: Option<Carried>,
    /// How it came in.
    entry: Entry,
    key: Option<KeyHash>,
    facts: Facts,
    /// When it came, in Unix milliseconds.
    at: u64,
}

/// How a request came in.
#[derive(Debug, Default)]
enum Entry {
    /// That was not looked at, or cannot be told yet.
    #[default]
    Unknown,
    /// Through no door.
    None(NoDoor),
    /// Through this door.
    Through {
        door: DoorId,
        dialect: Dialect,
        /// The model that its path names.
        model: Option<HeaderText>,
    },
}

/// What to do with a request.
#[derive(Debug)]
pub enum Decision {
    /// Send it on.
    Forward(Forward),
    /// Answer it here.
    Reply(Reply),
    /// Hold it, and ask again when the snapshot or the board moved: an account that would serve
    /// it is being refreshed.
    Wait,
}

/// How to send a request on.
#[derive(Debug)]
pub struct Forward {
    /// The account that serves it.
    pub account: Rc<Account>,
    /// It is half-open: the request is its probe.
    pub half_open: bool,
    /// What the attempt is to be told.
    pub carried: Carried,
    /// The names of the headers to take off, each once.
    pub strip: Vec<String>,
}

/// What a request is to the pool that serves it.
struct Subject<'a> {
    key: &'a Id,
    pool: &'a Id,
    /// The models that its key allows; all of them where that was looked at before.
    allowed: Option<&'a Models>,
    /// The account that it asks for, by name or id.
    wish: Option<&'a str>,
    model: Option<&'a HeaderText>,
    lacks: Lacks,
    session: Option<u64>,
}

// === impl Request ===

impl Request {
    /// A request with these headers, which may have been here before.
    pub fn new(headers: HeaderMap, carried: Option<Carried>) -> Self {
        Self {
            headers,
            carried,
            ..Self::default()
        }
    }

    /// Envoy's id of it, which is off its headers by the time that it comes again.
    fn id(&self) -> Option<Id> {
        if let Some(carried) = &self.carried {
            return carried.id.clone();
        }
        let id = std::str::from_utf8(self.headers.first("x-request-id")?);
        Id::try_from(id.ok()?).ok()
    }

    /// The client key that it came with; none on a later try, which has lost it.
    pub fn client_key<'a>(&self, view: &'a View) -> Option<&'a ClientKey> {
        view.key(self.key.as_ref()?)
    }

    /// The id of that key, on a later try too; none where it is not known.
    pub fn key_id<'a>(&'a self, view: Option<&'a View>) -> Option<&'a Id> {
        match &self.carried {
            Some(carried) => Some(&carried.key),
            None => Some(&self.client_key(view?)?.id),
        }
    }

    /// What it is known by from its last try, if it has had one.
    pub fn carried(&self) -> Option<&Carried> {
        self.carried.as_ref()
    }

    /// The answer of a refusal, in the dialect that its caller speaks.
    pub fn refused(&self, refusal: &Refusal) -> Reply {
        refusal.reply(self.dialect())
    }

    /// The dialect that its caller speaks: that of its door.
    fn dialect(&self) -> Dialect {
        match (&self.carried, &self.entry) {
            (Some(carried), _) => carried.dialect,
            (None, Entry::Through { dialect, .. }) => *dialect,
            (None, Entry::Unknown | Entry::None(_)) => Head::of(&self.headers).strangers_dialect(),
        }
    }

    /// The door that it came through.
    fn door(&self) -> Result<DoorId, Refusal> {
        match (&self.carried, &self.entry) {
            (Some(carried), _) => Ok(carried.door),
            (None, Entry::Through { door, .. }) => Ok(*door),
            (None, Entry::None(NoDoor::Path)) => Err(Refusal::UnknownPath),
            (None, Entry::None(NoDoor::Method)) => Err(Refusal::Method),
            (None, Entry::Unknown) => Err(Refusal::NotReady),
        }
    }

    /// The model that it asks for, by its path or else by its body.
    fn model(&self) -> Option<&HeaderText> {
        match (&self.carried, &self.entry) {
            (Some(carried), _) => carried.model.as_ref(),
            (
                None,
                Entry::Through {
                    model: Some(model), ..
                },
            ) => Some(model),
            _ => self.facts.model.as_ref(),
        }
    }

    /// Its path names the model, so that its body cannot name another one.
    fn names_model_in_path(&self) -> bool {
        matches!(self.entry, Entry::Through { model: Some(_), .. })
    }

    /// The request with what its body says.
    pub fn with_facts(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }
}

// === impl Gate ===

impl Gate {
    /// Finds out who is asking, and what of the request's body is worth reading before it is
    /// decided about.
    ///
    /// # Errors
    /// The answer, where nothing in the body could change it.
    pub fn ask(
        &mut self,
        request: &mut Request,
        knowledge: &Knowledge<'_>,
    ) -> Result<Wanted, Reply> {
        request.at = knowledge.now;
        if request.carried.is_none() {
            let head = Head::of(&request.headers);
            // The door first: it says in which words to refuse.
            let doors = knowledge.view.and_then(View::doors);
            request.entry = doors.map_or(Entry::Unknown, |doors| {
                Entry::of(doors, &head, &request.headers)
            });
            let key = client_key::find(&request.headers, head.query);
            request.key = match key {
                Ok(key) => Some(KeyHash::of(key)),
                Err(refusal) => return Err(request.refused(&refusal)),
            };
        }
        self.try_ask(request, knowledge)
            .unwrap_or_else(|refusal| Err(request.refused(&refusal)))
    }

    fn try_ask(
        &mut self,
        request: &Request,
        knowledge: &Knowledge<'_>,
    ) -> Result<Result<Wanted, Reply>, Refusal> {
        let view = knowledge.view.ok_or(Refusal::NotReady)?;
        let subject = Subject::of(request, view, knowledge.now)?;
        let is_connect = request.headers.first(":method") == Some(b"CONNECT".as_slice());
        if request.headers.first("upgrade").is_some() || is_connect {
            return Err(Refusal::Upgrade);
        }
        let (id, doors) = (request.door()?, view.doors().ok_or(Refusal::NotReady)?);
        let door = doors.get(id).ok_or(Refusal::UnknownPath)?;
        if door.lists_models() {
            return models_reply(door, view, &subject, knowledge.now).map(Err);
        }
        let table = self.tables.get(view, subject.pool, door)?;
        if request.carried.is_some() {
            return Ok(Ok(Wanted::default()));
        }
        let mut wanted = table.wanted();
        wanted.members = door.dialect.format().request_members();
        if wanted.session.is_some() {
            let named = session::in_headers(&request.headers, &doors.session_headers);
            wanted.session = door.dialect.best_session_name().filter(|_| named.is_none());
        }
        if request.names_model_in_path() {
            wanted.model = false;
        } else if subject.allowed.is_some_and(|models| !models.is_all()) {
            // Platforms take the last of two models.
            wanted.whole = true;
        }
        Ok(Ok(wanted))
    }

    /// Decides about a request that was [asked](Self::ask) about.
    pub fn decide(&mut self, request: &Request, knowledge: &Knowledge<'_>) -> Decision {
        self.try_decide(request, knowledge)
            .unwrap_or_else(|refusal| Decision::Reply(request.refused(&refusal)))
    }

    fn try_decide(
        &mut self,
        request: &Request,
        knowledge: &Knowledge<'_>,
    ) -> Result<Decision, Refusal> {
        let Knowledge {
            view, now, try_id, ..
        } = *knowledge;
        let view = view.ok_or(Refusal::NotReady)?;
        let subject = Subject::of(request, view, now)?;
        let Subject { key, pool, .. } = subject;
        let carried = request.carried.as_ref();
        let model = subject.model.map(HeaderText::as_str);
        // What was not read could name another model, which the platform may prefer.
        let is_sure =
            request.names_model_in_path() || request.facts.whole && !request.facts.models_differ;
        if let Some(allowed) = subject.allowed
            && (!allowed.contain(model) || !allowed.is_all() && !is_sure)
        {
            return Err(Refusal::ModelNotAllowed(subject.model.cloned()));
        }
        let need = Need {
            session: subject.session,
            now,
            board: knowledge.board,
            full: knowledge.full,
            tried: carried.map_or(&[], |carried| &carried.tried),
            model,
            lacks: subject.lacks,
            wish: subject.wish,
            in_flight: &self.in_flight,
        };
        let doors = view.doors().ok_or(Refusal::NotReady)?;
        let door = doors.get(request.door()?).ok_or(Refusal::UnknownPath)?;
        let table = self.tables.get(view, pool, door)?;
        let (account, endpoint, half_open) = match table.pick(&need) {
            Pick::Account {
                account,
                endpoint,
                half_open,
            } => (account, endpoint, half_open),
            Pick::None => return Err(Refusal::NoAccount),
            Pick::NoSuchAccount => return Err(Refusal::ChoiceNotAllowed),
            Pick::NoModel => {
                return Err(Refusal::ModelNotServed {
                    model: subject.model.cloned(),
                    pool: pool.clone(),
                });
            }
            Pick::Unmet(requirements) => {
                return Err(Refusal::Unmet {
                    pool: pool.clone(),
                    requirements,
                });
            }
            // A refresh is under way: the time at which it brings the account back is not known.
            Pick::AllOut(out)
                if knowledge.may_wait && out.iter().any(|out| out.back == Back::WithCredential) =>
            {
                return Ok(Decision::Wait);
            }
            Pick::AllOut(out) => return Err(all_out(pool, out, now)),
        };
        Ok(Decision::Forward(Forward {
            strip: stripped(&request.headers, view),
            half_open,
            carried: Carried {
                account: account.id.clone(),
                key: key.clone(),
                pool: pool.clone(),
                url: Head::of(&request.headers).url(&request.headers),
                door: door.id,
                dialect: door.dialect,
                endpoint,
                id: request.id(),
                at: carried.map_or(request.at, |carried| carried.at),
                try_id,
                since: carried.map_or(0, |carried| carried.since),
                tried: carried.map_or_else(Vec::new, |carried| carried.tried.clone()),
                model: subject.model.cloned(),
                session: subject.session,
                lacks: subject.lacks,
                wish: subject.wish.is_some(),
            },
            account,
        }))
    }

    /// The record of a request that is not sent on, as far as it goes. None where its key is not
    /// known.
    pub fn record(&self, request: &Request, knowledge: &Knowledge<'_>) -> Option<Record> {
        if let Some(carried) = &request.carried {
            return Some(Record::of_request(carried));
        }
        let view = knowledge.view?;
        let key = request.client_key(view)?;
        let subject = Subject::of(request, view, knowledge.now);
        let pool = subject.map_or_else(|_| key.pool.clone(), |subject| subject.pool.clone());
        Some(Record {
            id: request.id(),
            asked: record::asked(request.model()),
            ..Record::new(key.id.clone(), pool, request.dialect(), request.at)
        })
    }

    /// Whether a request that has been where `carried` says could be served by another account.
    pub fn can_serve(&mut self, carried: &Carried, knowledge: &Knowledge<'_>) -> bool {
        let need = Need {
            session: None,
            now: knowledge.now,
            board: knowledge.board,
            full: knowledge.full,
            tried: &carried.tried,
            model: carried.model.as_ref().map(HeaderText::as_str),
            lacks: carried.lacks,
            wish: carried.wish.then_some(carried.account.as_str()),
            in_flight: &self.in_flight,
        };
        let Some(view) = knowledge.view else {
            return false;
        };
        let door = view.doors().and_then(|doors| doors.get(carried.door));
        let table = door.map(|door| self.tables.get(view, &carried.pool, door));
        matches!(table, Some(Ok(table)) if table.can_serve(&need))
    }

    /// A request of `account` begins.
    pub fn began(&mut self, account: &Id) {
        self.in_flight.began(account);
    }

    /// A request of `account` has ended.
    pub fn ended(&mut self, account: &Id) {
        self.in_flight.ended(account);
    }
}

// === impl Tables ===

impl Tables {
    /// The table of `pool` for `door`. There are no more of them than pools and doors.
    fn get(&mut self, view: &View, pool: &Id, door: &Door) -> Result<&mut Table, Refusal> {
        if self.version != view.version() {
            self.by_pool.clear();
            self.version = view.version();
        }
        let known = self
            .by_pool
            .get(pool)
            .is_some_and(|tables| tables.contains_key(&door.id));
        if !known {
            let mut platforms = view.platforms();
            if !platforms.any(|platform| platform.endpoint_for(door).is_some()) {
                return Err(Refusal::UnknownPath);
            }
            let table = Table::new(view, view.pool(pool).ok_or(Refusal::NoPool)?, door);
            let tables = self.by_pool.entry(pool.clone()).or_default();
            tables.insert(door.id, table);
        }
        let tables = self.by_pool.get_mut(pool);
        tables
            .and_then(|tables| tables.get_mut(&door.id))
            .ok_or(Refusal::NoPool)
    }
}

// === impl Entry ===

impl Entry {
    /// How a request of this head comes in.
    fn of(doors: &Doors, head: &Head<'_>, headers: &HeaderMap) -> Self {
        let entered = doors.enter(&head.knock(), |name| headers.first(name).is_some());
        match entered {
            Err(none) => Self::None(none),
            Ok(Entered { door, model }) => Self::Through {
                door: door.id,
                dialect: door.dialect,
                // What fits into a path fits into a header.
                model: model.and_then(|model| HeaderText::try_from(&*model).ok()),
            },
        }
    }
}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// What a request is, by its client key and its body, or by what the filter state says.
    fn of(request: &'a Request, view: &'a View, now: u64) -> Result<Self, Refusal> {
        if let Some(carried) = &request.carried {
            return Ok(Self {
                key: &carried.key,
                pool: &carried.pool,
                allowed: None,
                wish: carried.wish.then_some(carried.account.as_str()),
                model: carried.model.as_ref(),
                lacks: carried.lacks,
                session: carried.session,
            });
        }
        let Request { headers, facts, .. } = request;
        let hash = request.key.as_ref().ok_or(Refusal::NoKey)?;
        let key = view.key(hash).ok_or(Refusal::UnknownKey)?;
        if key.is_expired(now) {
            return Err(Refusal::KeyExpired(key.name.clone()));
        }
        let pool = match headers.first(POOL_HEADER) {
            None => &key.pool,
            Some(wish) => {
                let mut pools = key.may_choose.pools.iter().chain([&key.pool]);
                let named = pools.find(|pool| pool.as_str().as_bytes() == wish);
                named.ok_or(Refusal::ChoiceNotAllowed)?
            }
        };
        let wish = match headers.first(ACCOUNT_HEADER) {
            None => None,
            Some(wish) if key.may_choose.account => {
                Some(std::str::from_utf8(wish).map_err(|_| Refusal::ChoiceNotAllowed)?)
            }
            Some(_) => return Err(Refusal::ChoiceNotAllowed),
        };
        let named = facts.session.as_ref();
        Ok(Self {
            key: &key.id,
            pool,
            allowed: Some(&key.models),
            wish,
            model: request.model(),
            lacks: Lacks::of(facts),
            session: session::of(headers, session_headers(view), named, key.id.as_str()),
        })
    }
}

/// The headers in which clients name a session.
fn session_headers(view: &View) -> &[HeaderName] {
    view.doors().map_or(&[], |doors| &doors.session_headers)
}

/// The list of the models that may be asked for.
fn models_reply(
    door: &Door,
    view: &View,
    subject: &Subject<'_>,
    now: u64,
) -> Result<Reply, Refusal> {
    let pool = view.pool(subject.pool).ok_or(Refusal::NoPool)?;
    Ok(Reply {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        body: models::list(door.dialect, view, pool, subject.allowed, now),
    })
}

/// The refusal for a pool whose candidates are all out.
fn all_out(pool: &Id, out: Vec<Out>, now: u64) -> Refusal {
    let times = out.iter().filter_map(|out| match out.back {
        Back::At(until) => Some(until),
        Back::WithCredential | Back::Never => None,
    });
    let first = times.min();
    let seconds = |until: u64| until.saturating_sub(now).div_ceil(1_000).max(1);
    Refusal::AllOut(AllOut {
        pool: pool.clone(),
        retry_after: first.map(|until| u32::try_from(seconds(until)).unwrap_or(u32::MAX)),
        out,
    })
}

#[cfg(test)]
mod tests;
