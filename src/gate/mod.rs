//! The gate: who is calling, which pool, which account.
//!
//! [`Gate::ask`] says what of a request's body matters, [`Gate::decide`] is the decision: a
//! [`Request`] in, a [`Decision`] out. They touch nothing; the shell carries the decision out.

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
    header::{HeaderMap, HeaderText},
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
    snapshot::{Account, ClientKey, KeyHash, Models, View},
};

/// The header by which the route finds the account's cluster.
pub const CLUSTER_HEADER: &str = "x-latchkey-cluster";

/// The gate's memory between requests.
#[derive(Debug, Default)]
pub struct Gate {
    tables: Tables,
    in_flight: InFlight,
}

/// Tables made from the snapshot, by pool and path.
#[derive(Debug, Default)]
struct Tables {
    by_pool: HashMap<Id, HashMap<String, Table>>,
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
    key: Option<KeyHash>,
    facts: Facts,
    /// When it came, in Unix milliseconds.
    at: u64,
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
        refusal.reply(Head::of(&self.headers).dialect)
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
            let key = client_key::find(&request.headers, head.query);
            request.key = match key {
                Ok(key) => Some(KeyHash::of(key)),
                Err(refusal) => return Err(refusal.reply(head.dialect)),
            };
        }
        let head = Head::of(&request.headers);
        self.try_ask(&head, request, knowledge)
            .unwrap_or_else(|refusal| Err(refusal.reply(head.dialect)))
    }

    fn try_ask(
        &mut self,
        head: &Head<'_>,
        request: &Request,
        knowledge: &Knowledge<'_>,
    ) -> Result<Result<Wanted, Reply>, Refusal> {
        let view = knowledge.view.ok_or(Refusal::NotReady)?;
        let subject = Subject::of(request, view, knowledge.now)?;
        if request.headers.first("upgrade").is_some() || head.method == b"CONNECT" {
            return Err(Refusal::Upgrade);
        }
        if models::MODEL_PATHS.contains(&head.path) {
            return models_reply(head, view, &subject, knowledge.now).map(Err);
        }
        let table = self.tables.get(view, subject.pool, head.path)?;
        if request.carried.is_some() {
            return Ok(Ok(Wanted::default()));
        }
        let mut wanted = table.wanted();
        wanted.members = head.dialect.format().request_members();
        if wanted.session.is_some() {
            let is_named = session::in_headers(&request.headers).is_some();
            wanted.session = head.dialect.best_session_name().filter(|_| !is_named);
        }
        if subject.allowed.is_some_and(|models| !models.is_all()) {
            // Platforms take the last of two models.
            wanted.whole = true;
        }
        Ok(Ok(wanted))
    }

    /// Decides about a request that was [asked](Self::ask) about.
    pub fn decide(&mut self, request: &Request, knowledge: &Knowledge<'_>) -> Decision {
        let head = Head::of(&request.headers);
        self.try_decide(&head, request, knowledge)
            .unwrap_or_else(|refusal| Decision::Reply(refusal.reply(head.dialect)))
    }

    fn try_decide(
        &mut self,
        head: &Head<'_>,
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
        let is_sure = request.facts.whole && !request.facts.models_differ;
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
        let table = self.tables.get(view, pool, head.path)?;
        let (account, half_open) = match table.pick(&need) {
            Pick::Account { account, half_open } => (account, half_open),
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
        let platform = view.platform(&account.platform);
        let route = platform.and_then(|platform| platform.route(head.path));
        match route {
            Some(route) if route.allows(head.method) => Ok(Decision::Forward(Forward {
                strip: stripped(&request.headers),
                half_open,
                carried: Carried {
                    account: account.id.clone(),
                    key: key.clone(),
                    pool: pool.clone(),
                    url: head.url(&request.headers),
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
            })),
            Some(_) => Err(Refusal::Method),
            None => Err(Refusal::NoAccount),
        }
    }

    /// The record of a request that is not sent on, as far as it goes. None where its key is not
    /// known.
    pub fn record(&self, request: &Request, knowledge: &Knowledge<'_>) -> Option<Record> {
        let dialect = Head::of(&request.headers).dialect;
        if let Some(carried) = &request.carried {
            return Some(Record::of_request(carried, dialect));
        }
        let view = knowledge.view?;
        let key = request.client_key(view)?;
        let subject = Subject::of(request, view, knowledge.now);
        let pool = subject.map_or_else(|_| key.pool.clone(), |subject| subject.pool.clone());
        let model = request.facts.model.as_ref();
        Some(Record {
            id: request.id(),
            asked: record::asked(model),
            ..Record::new(key.id.clone(), pool, dialect, request.at)
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
        let table = knowledge
            .view
            .map(|view| self.tables.get(view, &carried.pool, carried.url.path()));
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
    /// The table of `pool` for `path`; only paths that some platform serves have one, so the
    /// number of tables is bounded by the snapshot.
    fn get(&mut self, view: &View, pool: &Id, path: &str) -> Result<&mut Table, Refusal> {
        if self.version != view.version() {
            self.by_pool.clear();
            self.version = view.version();
        }
        let known = self
            .by_pool
            .get(pool)
            .is_some_and(|paths| paths.contains_key(path));
        if !known {
            if !view
                .platforms()
                .any(|platform| platform.route(path).is_some())
            {
                return Err(Refusal::UnknownPath);
            }
            let table = Table::new(view, view.pool(pool).ok_or(Refusal::NoPool)?, path);
            let paths = self.by_pool.entry(pool.clone()).or_default();
            paths.insert(path.to_owned(), table);
        }
        let paths = self.by_pool.get_mut(pool);
        paths
            .and_then(|paths| paths.get_mut(path))
            .ok_or(Refusal::NoPool)
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
            model: facts.model.as_ref(),
            lacks: Lacks::of(facts),
            session: session::of(headers, named, key.id.as_str()),
        })
    }
}

fn models_reply(
    head: &Head<'_>,
    view: &View,
    subject: &Subject<'_>,
    now: u64,
) -> Result<Reply, Refusal> {
    if head.method != b"GET" {
        return Err(Refusal::Method);
    }
    let pool = view.pool(subject.pool).ok_or(Refusal::NoPool)?;
    Ok(Reply {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        body: models::list(head.dialect, head.query, view, pool, subject.allowed, now),
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
