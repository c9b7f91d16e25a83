//! The gate: who is calling, which pool, which account.
//!
//! [`Gate::decide`] is the whole of it: the headers of a request in, a [`Decision`] out. It
//! touches nothing; the shell carries the decision out.

pub mod client_key;
pub mod models;
pub mod select;
pub mod session;

use std::{collections::HashMap, rc::Rc};

use self::select::{Pick, Table};
pub use crate::dialect::refusal::{Refusal, Reply};
use crate::{
    dialect::Dialect,
    header::HeaderMap,
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

/// What to do with a request.
#[derive(Debug)]
pub enum Decision {
    /// Send it on.
    Forward(Forward),
    /// Answer it here.
    Reply(Reply),
}

/// How to send a request on.
#[derive(Debug)]
pub struct Forward {
    /// The account that serves it.
    pub account: Rc<Account>,
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
    /// Decides about a request at `now`, in Unix milliseconds. Without a view the refresher has
    /// not been reached yet.
    pub fn decide(&mut self, headers: &HeaderMap, view: Option<&View>, now: u64) -> Decision {
        let head = Head::of(headers);
        match self.try_decide(&head, headers, view, now) {
            Ok(decision) => decision,
            Err(refusal) => Decision::Reply(refusal.reply(head.dialect)),
        }
    }

    fn try_decide(
        &mut self,
        head: &Head<'_>,
        headers: &HeaderMap,
        view: Option<&View>,
        now: u64,
    ) -> Result<Decision, Refusal> {
        let key = client_key::find(headers, head.query)?;
        let view = view.ok_or(Refusal::NotReady)?;
        let key = view.key(&KeyHash::of(key)).ok_or(Refusal::UnknownKey)?;
        if headers.first("upgrade").is_some() || head.method == b"CONNECT" {
            return Err(Refusal::Upgrade);
        }
        let pool = view.pool(&key.pool).ok_or(Refusal::NoPool)?;
        if models::MODEL_PATHS.contains(&head.path) {
            return head.method_is(b"GET").map(|()| {
                let shape = models::Shape::of(head.dialect, head.query);
                Decision::Reply(Reply {
                    status: 200,
                    headers: vec![("content-type", "application/json".to_owned())],
                    body: shape.body(view, pool),
                })
            });
        }
        let table = self.table(view, &key.pool, head.path)?;
        let account = match table.pick(session::of(headers, key.id.as_str()), now) {
            Pick::Account(account) => account,
            Pick::AllExpired => return Err(Refusal::AllExpired),
            Pick::None => return Err(Refusal::NoAccount),
        };
        let platform = view.platform(&account.platform);
        let route = platform.and_then(|platform| platform.route(head.path));
        match route {
            Some(route) if route.allows(head.method) => Ok(Decision::Forward(Forward {
                strip: stripped(headers),
                account,
            })),
            Some(_) => Err(Refusal::Method),
            None => Err(Refusal::NoAccount),
        }
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

    fn method_is(&self, method: &[u8]) -> Result<(), Refusal> {
        if self.method == method {
            Ok(())
        } else {
            Err(Refusal::Method)
        }
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
