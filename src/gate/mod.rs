//! The gate: who is calling, which pool, which account.
//!
//! [`Gate::ask`] says what of a request's body matters, [`Gate::decide`] is the decision: a
//! [`Request`] in, a [`Decision`] out. They touch nothing;
//! [`crate::stream::gate`] carries the decision out.

mod admission;
pub mod client_key;
pub mod models;
mod nobody;
mod preferences;
pub mod refusal;
mod request;
pub mod select;
pub mod standing;
mod tables;

use std::rc::Rc;

pub use self::{
    admission::Asked,
    refusal::{AllOut, Refusal, Reply, Unwrappable},
    request::Request,
};
use self::{
    client_key::Presented,
    nobody::{no_model, nobody, not_there},
    preferences::Preferences,
    request::{Entry, Subject, wished_platform},
    select::{Awaited, Back, InFlight, Need, Out, Pick},
    tables::Tables,
};
use crate::{
    decode::{Coding, UnknownCoding},
    dialect::{RequestMember, RequestValue},
    hash::hash64,
    header::HeaderText,
    health::{Board, Striker},
    home::Home,
    id::Id,
    limit::FullAccounts,
    request::{
        CODING_HEADER, Head,
        carried::{Carried, TryId, Wish},
        peek::Wanted,
        record::{self, RequestRecord},
        session, stripped,
    },
    snapshot::{Account, Door, EndpointId, Own, View, path::Place},
};

/// The header by which the route finds the account's cluster.
pub const CLUSTER_HEADER: &str = "x-latchkey-cluster";

/// The gate's memory between requests.
#[derive(Debug, Default)]
pub struct Gate {
    tables: Tables,
    in_flight: InFlight,
    preferences: Preferences,
    /// The opening of a conversation stands for its session, where none is named.
    pub reads_openings: bool,
}

/// The facts that the gate decides by, beside the request.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// The snapshot; none where the refresher has not been reached yet.
    pub view: Option<&'a View>,
    /// True while the snapshot may be used: the refresher has confirmed it lately, or need not.
    pub is_confirmed: bool,
    /// The accounts that are out.
    pub board: &'a Board,
    /// The accounts that are at a limit.
    pub full: &'a FullAccounts,
    /// Unix milliseconds.
    pub now: u64,
    /// The number of this try.
    pub try_id: TryId,
    /// True while the request may still wait for a fresh credential.
    pub may_wait: bool,
    /// Until when it may wait for an account that is at a limit, in Unix milliseconds; none where it may not.
    pub soon: Option<u64>,
    /// The account that has what the request goes on from.
    pub home: Home,
}

/// The gate's decision about a request.
#[derive(Debug)]
pub enum Decision {
    /// Send it on.
    Forward(Box<Forward>),
    /// Answer it here.
    Reply(Reply),
    /// Hold it, and ask again when the snapshot or the board moved, or time has passed: an account that would
    /// serve it is about to be there.
    Wait(Awaited),
}

/// The terms on which a request is sent on.
#[derive(Debug)]
pub struct Forward {
    /// The account that serves it.
    pub account: Rc<Account>,
    /// The account is half-open: the request is its probe.
    pub half_open: bool,
    /// The facts that the attempt is to be told.
    pub carried: Carried,
    /// The names of the headers to take off, each once.
    pub strip: Vec<String>,
    /// The milliseconds within which the platform is to send the first event of a stream.
    pub first_event_ms: Option<u64>,
}

/// An account that was picked.
struct Picked {
    account: Rc<Account>,
    endpoint: EndpointId,
    half_open: bool,
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
            if let Some(reply) = request.anybodys() {
                return Err(reply);
            }
            let presented = Presented::of(&request.headers, head.query);
            let key = presented.and_then(|presented| {
                let view = knowledge.view.ok_or(Refusal::NotReady)?;
                presented.choose(|hash| view.key(hash).is_some())
            });
            request.key = match key {
                Ok(key) => Some(key),
                // A probe cannot be told from a request yet.
                Err(Refusal::NoKey) if doors.is_none() && head.may_be_probe() => {
                    return Err(request.refused(&Refusal::NotReady));
                }
                Err(refusal) => return Err(request.refused(&refusal)),
            };
        }
        let wanted = self
            .try_ask(request, knowledge)
            .unwrap_or_else(|refusal| Err(request.refused(&refusal)))?;
        match Coding::of(request.headers.values(CODING_HEADER)) {
            Ok(coding) => request.coding = coding,
            Err(UnknownCoding) => return Err(request.refused(&Refusal::UnknownCoding)),
        }
        Ok(wanted)
    }

    fn try_ask(
        &mut self,
        request: &Request,
        knowledge: &Knowledge<'_>,
    ) -> Result<Result<Wanted, Reply>, Refusal> {
        let view = knowledge.view.ok_or(Refusal::NotReady)?;
        let subject = Subject::of(request, view, knowledge.now)?;
        if !knowledge.is_confirmed {
            return Err(Refusal::Unconfirmed);
        }
        let is_connect = request.headers.first(":method") == Some(b"CONNECT".as_slice());
        if request.headers.first("upgrade").is_some() || is_connect {
            return Err(Refusal::Upgrade);
        }
        let (id, doors) = (request.door(view)?, view.doors().ok_or(Refusal::NotReady)?);
        let door = doors.get(id).ok_or_else(|| request.unknown_path(view))?;
        if let Some(own) = door.own() {
            return own_reply(own, door, view, request, &subject, knowledge.now).map(Err);
        }
        let table = self.tables.get(view, subject.pool, door)?;
        let table = table.ok_or_else(|| request.unknown_path(view))?;
        if request.carried.is_some() || door.opaque {
            return Ok(Ok(Wanted::default()));
        }
        let mut wanted = table.wanted();
        wanted.members = door.dialect.format().request_members();
        if wanted.session.is_some() {
            let named = session::in_headers(&request.headers, &doors.session_headers);
            wanted.session = door.dialect.best_session_name().filter(|_| named.is_none());
            if self.reads_openings && wanted.session.is_some() {
                wanted.opening = door.dialect.format().opening();
            }
        }
        let key = request.client_key(view).map(|key| &key.maps);
        let pool = view.pool(subject.pool).map(|pool| &pool.maps);
        let mut maps = key.into_iter().chain(pool);
        wanted.model |= maps.any(|maps| !maps.is_empty());
        wanted.model &= !request.names_model_in_path() && !door.modelless;
        // What it wishes may stand anywhere.
        let is_wish = |member: &RequestMember| {
            matches!(
                member.meaning,
                RequestValue::Account | RequestValue::Platform
            )
        };
        wanted.whole |= wanted.members.iter().any(is_wish);
        if door.things && subject.wish.is_none() && table.keeps_things() {
            wanted.things = door.dialect.format().things();
        }
        // A body that does not say how long it is has to come for that.
        wanted.whole |=
            table.depends_on_length() && request.headers.first("content-length").is_none();
        // A key with a list of models: platforms take the last of two, and some the body's before the path's.
        wanted.whole |= !subject.allowed.is_all();
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
        let now = knowledge.now;
        let view = knowledge.view.ok_or(Refusal::NotReady)?;
        let subject = Subject::of(request, view, now)?;
        if !knowledge.is_confirmed {
            return Err(Refusal::Unconfirmed);
        }
        let doors = view.doors().ok_or(Refusal::NotReady)?;
        let door = doors.get(request.door(view)?);
        let door = door.ok_or_else(|| request.unknown_path(view))?;
        check_rights(request, view, &subject, door)?;
        let home = home_of(&subject, door, knowledge.home)?;
        let key = subject.key;
        let (session, opens) = request.session(view, key);
        let of_key = || hash64(&[key.as_str().as_bytes()]);
        let session = session.or_else(|| door.modelless.then(of_key));
        let carried = request.carried.as_deref();
        let need = Need {
            session,
            opens,
            home,
            prefers: session.and_then(|session| self.preferences.of(session)),
            now,
            key: Striker::of(key),
            shows_names: subject.may_choose,
            board: knowledge.board,
            full: knowledge.full,
            tried: carried.map_or(&[], |carried| &carried.tried),
            model: subject.model.map(HeaderText::as_str),
            modelless: door.modelless,
            lacks: subject.lacks,
            untranslated: subject.untranslated,
            wish: subject.wish,
            platform: subject.platform,
            in_flight: &self.in_flight,
        };
        let table = self.tables.get(view, subject.pool, door)?;
        let table = table.ok_or_else(|| request.unknown_path(view))?;
        if let Some(soon) = knowledge.soon
            && let Some(awaited) = table.worth_waiting(&need, soon)
        {
            return Ok(Decision::Wait(awaited));
        }
        let picked = judge_pick(table.pick(&need), view, &subject, &need, knowledge.may_wait)?;
        let picked = match picked {
            Ok(picked) => picked,
            Err(awaited) => return Ok(Decision::Wait(awaited)),
        };
        let carried = carried_of(request, &subject, &need, door, &picked, knowledge.try_id);
        let platform = view.platform(&picked.account.platform);
        let first_event_ms = platform
            .and_then(|platform| platform.endpoint(picked.endpoint)?.first_event_ms())
            .filter(|_| carried.streams);
        Ok(Decision::Forward(Box::new(Forward {
            first_event_ms,
            strip: stripped(&request.headers, view),
            half_open: picked.half_open,
            carried,
            account: picked.account,
        })))
    }

    /// The record of a request that is not sent on, as far as it goes. None where its key is not
    /// known.
    pub fn record(&self, request: &Request, knowledge: &Knowledge<'_>) -> Option<RequestRecord> {
        if let Some(carried) = &request.carried {
            return Some(RequestRecord::of_request(carried));
        }
        let view = knowledge.view?;
        let key = request.client_key(view)?;
        let subject = Subject::of(request, view, knowledge.now);
        let pool = subject.map_or_else(|_| key.pool.clone(), |subject| subject.pool.clone());
        Some(RequestRecord {
            id: request.id(),
            asked: record::asked(request.model()),
            ..RequestRecord::new(key.id.clone(), pool, request.dialect(), request.at)
        })
    }

    /// Returns true if another account could serve a request that has been where `carried` says.
    pub fn can_serve(&mut self, carried: &Carried, knowledge: &Knowledge<'_>) -> bool {
        let Some(view) = knowledge.view else {
            return false;
        };
        let door = view.doors().and_then(|doors| doors.get(carried.door));
        let Some(door) = door else {
            return false;
        };
        let need = Need {
            session: None,
            opens: false,
            now: knowledge.now,
            key: Striker::of(&carried.key),
            shows_names: false,
            board: knowledge.board,
            full: knowledge.full,
            tried: &carried.tried,
            model: carried.model.as_ref().map(HeaderText::as_str),
            modelless: door.modelless,
            lacks: carried.lacks,
            untranslated: carried.untranslated,
            wish: carried.wished_account(),
            platform: wished_platform(carried, view),
            home: carried
                .at_home
                .then(|| hash64(&[carried.account.as_str().as_bytes()])),
            prefers: None,
            in_flight: &self.in_flight,
        };
        let table = self.tables.get(view, &carried.pool, door);
        matches!(table, Ok(Some(table)) if table.can_serve(&need))
    }

    /// A request of this session was served by `account` after others did not have what it goes on
    /// from: the session's next requests begin there.
    pub fn prefer(&mut self, key: &Id, session: u64, account: &Id) {
        let hash = hash64(&[account.as_str().as_bytes()]);
        self.preferences.note(key, session, hash);
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

/// The answer of the gateway itself.
fn own_reply(
    own: Own,
    door: &Door,
    view: &View,
    request: &Request,
    subject: &Subject<'_>,
    now: u64,
) -> Result<Reply, Refusal> {
    let pool = view.pool(subject.pool).ok_or(Refusal::NoPool)?;
    let key = request.client_key(view).ok_or(Refusal::UnknownKey)?;
    let listed = models::Listed::of(view, pool, key, door.dialect, now);
    match own {
        Own::Alive => Ok(Reply::alive()),
        Own::Models => Ok(Reply::json(&listed.all())),
        Own::Model => {
            let model = request.model();
            let one = model.and_then(|model| listed.one(model.as_str()));
            let one = one.ok_or_else(|| Refusal::ModelNotListed(model.cloned()))?;
            Ok(Reply::json(&one))
        }
    }
}

/// Checks that the key may ask what the request asks, whoever would serve it.
fn check_rights(
    request: &Request,
    view: &View,
    subject: &Subject<'_>,
    door: &Door,
) -> Result<(), Refusal> {
    let lists_models = !door.modelless && !subject.allowed.is_all();
    if !door.modelless {
        let allowed = subject.allowed;
        if !allowed.contain(subject.asked.map(HeaderText::as_str)) {
            return Err(match subject.asked {
                Some(model) => Refusal::ModelNotAllowed(Some(model.clone())),
                None => Refusal::NoModel(None),
            });
        }
        if lists_models && !request.names_one_model() {
            return Err(match request.carried {
                // Its key had no list at the first try, and its body is not read again.
                Some(_) => Refusal::Withdrawn,
                None => Refusal::ModelNotAllowed(None),
            });
        }
    }
    if door.of_account && subject.wish.is_none() {
        return Err(Refusal::ListOfAccount);
    }
    let demands = lists_models || !subject.demands.is_none();
    if door.uncounted && (demands || request.has_token_limits(view)) {
        return Err(Refusal::Uncounted);
    }
    if request.facts.things.too_many && request.carried.is_none() {
        return Err(Refusal::TooManyThings);
    }
    Ok(())
}

/// Finds the hash of the account that has what the request goes on from, where one does; `asked` is what is
/// known of the things that it names.
fn home_of(subject: &Subject<'_>, door: &Door, asked: Home) -> Result<Option<u64>, Refusal> {
    let home = subject.home.or(match asked {
        Home::At(account) => Some(account),
        // In its body or in its path.
        Home::Others => return Err(Refusal::NoSuchThing),
        Home::Apart => return Err(Refusal::HomesApart),
        Home::Any | Home::Nowhere | Home::Unasked => None,
    });
    let is_bound = door.path.has(Place::Thing) && subject.wish.is_none();
    if is_bound && home.is_none() {
        return Err(match asked {
            Home::Unasked => Refusal::HomeUnknown,
            _ => Refusal::NoSuchThing,
        });
    }
    Ok(home)
}

/// Takes the account out of a pick, or else the thing to wait for.
fn judge_pick(
    pick: Pick,
    view: &View,
    subject: &Subject<'_>,
    need: &Need<'_>,
    may_wait: bool,
) -> Result<Result<Picked, Awaited>, Refusal> {
    let (pool, has_home) = (subject.pool, need.home.is_some());
    let wished = || refusal::Wished::of(subject.wish, subject.platform);
    Err(match pick {
        Pick::Account {
            account,
            endpoint,
            half_open,
        } => {
            return Ok(Ok(Picked {
                account,
                endpoint,
                half_open,
            }));
        }
        // A refresh is under way: the time at which it brings the account back is not known.
        Pick::AllOut(out) if may_wait && out.iter().any(|out| out.back == Back::WithCredential) => {
            return Ok(Err(Awaited::News));
        }
        Pick::AllOut(out) if has_home => Refusal::HomeOut(all_out(pool, out, need.now)),
        Pick::AllOut(out) => Refusal::AllOut(all_out(pool, out, need.now)),
        Pick::None => nobody(view, pool, subject.untranslated),
        Pick::NoSuchAccount if has_home => Refusal::HomeGone(pool.clone()),
        Pick::NoSuchAccount => not_there(view, pool, wished()),
        Pick::NoModel => no_model(view, pool, subject.asked, wished()),
        Pick::Unmet(requirements) => Refusal::Unmet {
            pool: pool.clone(),
            requirements,
        },
        Pick::TooLarge => Refusal::Unwrappable(Unwrappable::TooLarge),
    })
}

/// Writes what the attempt is to be told of this try, and the gate of the next one.
fn carried_of(
    request: &Request,
    subject: &Subject<'_>,
    need: &Need<'_>,
    door: &Door,
    picked: &Picked,
    try_id: TryId,
) -> Carried {
    let before = request.carried.as_deref();
    let renamed = subject.asked.filter(|_| subject.asked != subject.model);
    Carried {
        account: picked.account.id.clone(),
        key: subject.key.clone(),
        pool: subject.pool.clone(),
        url: Head::of(&request.headers).url(&request.headers),
        door: door.id,
        dialect: door.dialect,
        endpoint: picked.endpoint,
        id: request.id(),
        at: before.map_or(request.at, |before| before.at),
        try_id,
        since: before.map_or(0, |before| before.since),
        tried: before.map_or_else(Vec::new, |before| before.tried.clone()),
        refused: before.map_or_else(Vec::new, |before| before.refused.clone()),
        blames: before.is_some_and(|before| before.blames),
        waited: before.and_then(|before| before.waited.clone()),
        resent: before.is_some_and(|before| before.resent),
        unable: before.and_then(|before| before.unable.clone()),
        model: subject.model.cloned(),
        asked: renamed.cloned(),
        thing: request.named(Place::Thing),
        part: request.named(Place::Part),
        session: need.session,
        opens: need.opens,
        lacks: subject.lacks,
        untranslated: subject.untranslated,
        exact_model: subject.exact_model,
        demands: subject.demands,
        wish: match (subject.wish, subject.platform) {
            (Some(_), _) => Wish::Account,
            (None, Some(_)) => Wish::Platform,
            (None, None) => Wish::Any,
        },
        streams: request.streams(),
        at_home: need.home.is_some(),
        moved: before.is_some_and(|before| before.moved),
        one_model: !subject.allowed.is_all(),
        stored: before.map_or(request.facts.store, |before| before.stored),
    }
}

/// The refusal for a pool whose candidates are all out.
fn all_out(pool: &Id, out: Vec<Out>, now: u64) -> AllOut {
    let first = refusal::first_back(&out);
    let seconds = |until: u64| until.saturating_sub(now).div_ceil(1_000).max(1);
    AllOut {
        pool: pool.clone(),
        retry_after: first.map(|until| u32::try_from(seconds(until)).unwrap_or(u32::MAX)),
        out,
    }
}

#[cfg(test)]
mod tests;
