//! The gate: who is calling, which pool, which account.
//!
//! [`Gate::decide`] is the whole of it: the headers of a request in, a [`Decision`] out. It
//! touches nothing; the shell carries the decision out.

pub mod client_key;
pub mod models;
pub mod select;
pub mod session;

use std::{collections::HashMap, rc::Rc};

use self::select::{Need, Out, Pick, Table};
pub use crate::dialect::refusal::{AllOut, Refusal, Reply};
use crate::{
    attempt::passage::{Passage, Url},
    dialect::Dialect,
    header::HeaderMap,
    health::Board,
    id::Id,
    snapshot::{Account, KeyHash, View},
};

/// The header by which the route finds the account's cluster.
pub const CLUSTER_HEADER: &str = "x-latchkey-cluster";

/// Headers that steer Envoy or are our own. Envoy keeps those of callers that it takes for
/// internal, which on a private network is all of them.
const INTERNAL_PREFIXES: [&str; 2] = ["x-latchkey-", "x-envoy-"];

/// Headers of the caller that would go on as ours. The attempt's allow-list keeps them off the
/// wire as well; here they go before any other filter can read them.
const STRIPPED: [&str; 2] = ["chatgpt-account-id", "proxy-authorization"];

/// The gate's memory between requests: tables made from the snapshot.
#[derive(Debug, Default)]
pub struct Gate {
    tables: HashMap<Id, HashMap<String, Table>>,
    version: u64,
}

/// What the gate decides by, beside the request.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// The snapshot; none where the refresher has not been reached yet.
    pub view: Option<&'a View>,
    /// The accounts that are out.
    pub board: &'a Board,
    /// Unix milliseconds.
    pub now: u64,
    /// Whether the request may still wait for a fresh credential.
    pub may_wait: bool,
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
    pub passage: Passage,
    /// The names of the headers to take off, each once.
    pub strip: Vec<String>,
}

/// The parts of a request's head that decide.
struct Head<'a> {
    method: &'a [u8],
    path: &'a str,
    query: &'a [u8],
    dialect: Dialect,
}

// === impl Gate ===

impl Gate {
    /// Decides about a request. `passed` is what the filter state says where the request comes
    /// again after an attempt that failed: it has lost its client key by then.
    pub fn decide(
        &mut self,
        headers: &HeaderMap,
        passed: Option<&Passage>,
        knowledge: &Knowledge<'_>,
    ) -> Decision {
        let head = Head::of(headers);
        match self.try_decide(&head, headers, passed, knowledge) {
            Ok(decision) => decision,
            Err(refusal) => Decision::Reply(refusal.reply(head.dialect)),
        }
    }

    fn try_decide(
        &mut self,
        head: &Head<'_>,
        headers: &HeaderMap,
        passed: Option<&Passage>,
        knowledge: &Knowledge<'_>,
    ) -> Result<Decision, Refusal> {
        let Knowledge { view, now, .. } = *knowledge;
        let (key, pool) = match passed {
            Some(passed) => (&passed.key, &passed.pool),
            None => {
                let key = client_key::find(headers, head.query)?;
                let view = view.ok_or(Refusal::NotReady)?;
                let key = view.key(&KeyHash::of(key)).ok_or(Refusal::UnknownKey)?;
                (&key.id, &key.pool)
            }
        };
        let view = view.ok_or(Refusal::NotReady)?;
        if headers.first("upgrade").is_some() || head.method == b"CONNECT" {
            return Err(Refusal::Upgrade);
        }
        if models::MODEL_PATHS.contains(&head.path) {
            return models_reply(head, view, pool);
        }
        let need = Need {
            session: session::of(headers, key.as_str()),
            now,
            board: knowledge.board,
            tried: passed.map_or(&[], |passed| &passed.tried),
        };
        let (account, half_open) = match self.table(view, pool, head.path)?.pick(&need) {
            Pick::Account { account, half_open } => (account, half_open),
            Pick::None => return Err(Refusal::NoAccount),
            // A refresh is under way: the time at which it brings the account back is not known.
            Pick::AllOut(out)
                if knowledge.may_wait && out.iter().any(|out| out.until.is_none()) =>
            {
                return Ok(Decision::Wait);
            }
            Pick::AllOut(out) => return Err(all_out(pool, out, now)),
        };
        let platform = view.platform(&account.platform);
        let route = platform.and_then(|platform| platform.route(head.path));
        match route {
            Some(route) if route.allows(head.method) => Ok(Decision::Forward(Forward {
                strip: stripped(headers),
                half_open,
                passage: Passage {
                    account: account.id.clone(),
                    key: key.clone(),
                    pool: pool.clone(),
                    url: head.url(headers),
                    since: passed.map_or(0, |passed| passed.since),
                    tried: passed.map_or_else(Vec::new, |passed| passed.tried.clone()),
                },
                account,
            })),
            Some(_) => Err(Refusal::Method),
            None => Err(Refusal::NoAccount),
        }
    }

    /// Whether a request that has been where `passage` says could be served by another account.
    pub fn can_serve(&mut self, passage: &Passage, knowledge: &Knowledge<'_>) -> bool {
        let need = Need {
            session: None,
            now: knowledge.now,
            board: knowledge.board,
            tried: &passage.tried,
        };
        let table = knowledge
            .view
            .map(|view| self.table(view, &passage.pool, passage.url.path()));
        matches!(table, Some(Ok(table)) if table.can_serve(&need))
    }

    /// The table of `pool` for `path`; only paths that some platform serves have one, so the
    /// number of tables is bounded by the snapshot.
    fn table(&mut self, view: &View, pool: &Id, path: &str) -> Result<&mut Table, Refusal> {
        if self.version != view.version() {
            self.tables.clear();
            self.version = view.version();
        }
        let known = self
            .tables
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
            let paths = self.tables.entry(pool.clone()).or_default();
            paths.insert(path.to_owned(), table);
        }
        let paths = self.tables.get_mut(pool);
        paths
            .and_then(|paths| paths.get_mut(path))
            .ok_or(Refusal::NoPool)
    }
}

fn models_reply(head: &Head<'_>, view: &View, pool: &Id) -> Result<Decision, Refusal> {
    if head.method != b"GET" {
        return Err(Refusal::Method);
    }
    let pool = view.pool(pool).ok_or(Refusal::NoPool)?;
    let shape = models::Shape::of(head.dialect, head.query);
    Ok(Decision::Reply(Reply {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        body: shape.body(view, pool),
    }))
}

/// The refusal for a pool whose candidates are all out.
fn all_out(pool: &Id, out: Vec<Out>, now: u64) -> Refusal {
    let first = out.iter().filter_map(|out| out.until).min();
    let seconds = |until: u64| until.saturating_sub(now).div_ceil(1_000).max(1);
    Refusal::AllOut(AllOut {
        pool: pool.clone(),
        retry_after: first.map(|until| u32::try_from(seconds(until)).unwrap_or(u32::MAX)),
        out,
    })
}

/// The headers to take off before the request goes anywhere.
fn stripped(headers: &HeaderMap) -> Vec<String> {
    let mut names: Vec<String> = headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| {
            client_key::KEY_HEADERS.contains(name)
                || STRIPPED.contains(name)
                || INTERNAL_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

// === impl Head ===

impl<'a> Head<'a> {
    /// A head with parts that are missing or not text is one that no platform serves.
    fn of(headers: &'a HeaderMap) -> Self {
        let target = headers.first(":path").unwrap_or_default();
        let (path, query) = split_target(target);
        let path = std::str::from_utf8(path).unwrap_or_default();
        let speaks_anthropic = headers.first("anthropic-version").is_some();
        Self {
            method: headers.first(":method").unwrap_or_default(),
            path,
            query,
            dialect: Dialect::of_path(path, speaks_anthropic),
        }
    }

    /// Where the request was sent. Envoy compares schemes by `x-forwarded-proto`.
    fn url(&self, headers: &HeaderMap) -> Url {
        let scheme = match headers.first("x-forwarded-proto") {
            Some(b"https") => "https",
            _ => "http",
        };
        let authority = headers.first(":authority").unwrap_or_default();
        Url::new(scheme, authority, self.path)
    }
}

/// The path and the query, without the question mark, of a request target.
pub fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => {
            let (path, rest) = target.split_at(at);
            (path, rest.get(1..).unwrap_or_default())
        }
        None => (target, &[]),
    }
}

#[cfg(test)]
mod tests;
