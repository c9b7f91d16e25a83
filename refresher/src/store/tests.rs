mod accounts;
mod batch;
mod checkpoint;
mod client_keys;
mod envoys;
mod health;
mod high_water;
mod homes;
mod keys;
mod ledger;
mod left_out;
mod logout;
mod migrations;
mod new_tokens;
mod open;
mod pools;
mod requests;
mod rotation;
mod snapshot;
mod statements;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use latchkey::snapshot::page::Page;
use latchkey::snapshot::pool::{Tier, Weight};
use latchkey::snapshot::{Kind, Policy, Record};
use secrecy::ExposeSecret;

use super::*;
use crate::clock::UnixMillis;
use crate::credential::{Credential, CredentialKind, OAuthTokens, Renewal};
use crate::files;
use crate::id::AccountId;
use crate::keys::seal;
use crate::platform::Catalog;
use crate::refresh::ledger::{Claim, Claimed, Ledger, Retry};
use crate::state::StateDir;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

const LIFE: Duration = Duration::from_secs(60);

/// A store in a directory of its own.
struct Fixture {
    _outer: tempfile::TempDir,
    state: StateDir,
    store: Store,
}

async fn open(state: &StateDir) -> Result<Store> {
    Store::open(state, crate::keys::fixed(1)).await
}

async fn fixture() -> Fixture {
    let outer = tempfile::tempdir().unwrap();
    let state = StateDir::open(&outer.path().join("state")).unwrap();
    let store = open(&state).await.unwrap();
    Fixture {
        _outer: outer,
        state,
        store,
    }
}

fn tokens(access: &str) -> Credential {
    Credential::OAuth(OAuthTokens {
        access: access.into(),
        refresh: format!("refresh-of-{access}").into(),
        id: None,
        client: None,
    })
}

async fn add_login(store: &Store, name: &str) -> AccountId {
    let new = NewAccount {
        name,
        platform: "codex",
        credential: tokens("access-1"),
        vars: BTreeMap::from([("account_id".to_owned(), "ws-1".to_owned())]),
        credential_expires_at: Some(NOW.plus(LIFE)),
        base_url: None,
    };
    match store
        .save_account(new, &Terms::default(), false, NOW)
        .await
        .unwrap()
    {
        Saved::Added(id) => id,
        Saved::Renewed(id) => panic!("{id} is not new"),
    }
}

async fn add_api_key(store: &Store, name: &str, key: &str) -> Result<Saved> {
    let credential = Credential::ApiKey(key.into());
    let new = NewAccount {
        name,
        platform: "openai",
        credential,
        vars: BTreeMap::new(),
        credential_expires_at: None,
        base_url: None,
    };
    store.save_account(new, &Terms::default(), false, NOW).await
}

async fn publish(store: &Store, ids: &[&str]) {
    let catalog = Catalog::load(None, ids.iter().map(|id| (*id).to_owned()).collect()).unwrap();
    let platforms: Vec<_> = ids
        .iter()
        .map(|id| catalog.usable(id).unwrap().publication())
        .collect();
    store.publish_platforms(&platforms).await.unwrap();
}

/// The renewal of refresh tokens that work once.
fn single_use(_platform: &str, _kind: CredentialKind) -> Renewal {
    Renewal::SingleUse
}

async fn claim(store: &Store, account: &AccountId, generation: u64, life: Duration) -> Claim {
    match store
        .claim(account, generation, NOW, life, &single_use)
        .await
        .unwrap()
    {
        Claimed::Ours(claim) => *claim,
        other => panic!("{other:?}"),
    }
}

/// Reads the page for a poller, and where it leads.
async fn poll(
    store: &Store,
    epoch: Option<Epoch>,
    since: u64,
) -> (Vec<Record>, latchkey::snapshot::page::PageHeader) {
    let bytes = store.page(epoch, since).await.unwrap().bytes;
    let page = Page::parse(&bytes).unwrap();
    (
        page.lines()
            .map(|line| Record::from_line(line).unwrap())
            .collect(),
        page.header.clone(),
    )
}

fn keys(records: &[Record]) -> Vec<(Kind, String, bool)> {
    let removed = |record: &Record| matches!(record, Record::Removed(_));
    records
        .iter()
        .map(|record| (record.key().0, record.key().1.to_string(), removed(record)))
        .collect()
}
