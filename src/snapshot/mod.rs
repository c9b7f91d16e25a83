//! The snapshot: what the refresher publishes and every Envoy holds.
//!
//! A snapshot is a set of [`Record`]s, one line of JSON each. [`page`] is how they travel,
//! [`bucket`] how they lie in Envoy's shared data, [`view`] what one VM has parsed of them.
//! Parsing refuses what does not fit and ignores fields it does not know, so that an older
//! filter reads a newer refresher.

pub mod account;
pub mod bucket;
pub mod client_key;
pub mod door;
pub mod endpoint;
pub mod fit;
pub mod health;
pub mod limits;
pub mod model;
pub mod model_map;
pub mod page;
pub mod path;
pub mod platform;
pub mod pool;
pub mod query;
pub mod template;
pub mod unread;
pub mod view;
pub mod wrapper;

use serde::{Deserialize, Serialize};

pub use self::{
    account::{Account, Needles},
    client_key::{ClientKey, KeyHash, MayChoose},
    door::{Door, DoorId, Doors, Entered, Knock, NoDoor, Operation, Own},
    endpoint::{
        Endpoint, EndpointId, MAX_MEMBER_BYTES, MadeMember, Makes, ModelAccent, Requirement,
    },
    health::{Cooldown, Health},
    limits::Limits,
    model::{ModelPattern, Models},
    model_map::{ModelMap, ModelMaps},
    path::Places,
    platform::{BasePath, HeaderPlan, Platform},
    pool::{Member, Policy, Pool, Tier},
    query::{QueryPlan, escaped},
    template::Template,
    view::View,
    wrapper::Wrapper,
};
use crate::id::Id;

/// The version of the record and page format that this crate reads and writes.
pub const FORMAT: u32 = 2;

/// The longest record line, in bytes. An account with its tokens is 3 to 6 KiB, a pool of
/// 10,000 members 500 KiB.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// One thing of the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The requests that callers may make.
    Doors(Doors),
    /// A service, and how to talk to it.
    Platform(Platform),
    /// A usable account.
    Account(Account),
    /// A set of accounts and a policy.
    Pool(Pool),
    /// A key that a caller may present.
    Key(ClientKey),
    /// The cooldowns of an account, and what is left of its quota.
    Health(Health),
    /// A record that is no more, or must not be used.
    Removed(Removed),
}

/// The kind of a record. An id is unique within its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Record::Doors`]
    Doors,
    /// [`Record::Platform`]
    Platform,
    /// [`Record::Account`]
    Account,
    /// [`Record::Pool`]
    Pool,
    /// [`Record::Key`]
    Key,
    /// [`Record::Health`]
    Health,
}

/// Names a record that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The kind of the record.
    pub kind: Kind,
    /// Its id.
    pub id: Id,
}

/// The reason why a line is not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidRecord {
    /// Longer than [`MAX_RECORD_BYTES`].
    TooLong,
    /// Not the JSON of a record. The position is kept, the text is not: it may hold a secret.
    Json {
        /// Column in the line, from 1.
        column: usize,
    },
    /// The record does not fit beside the others.
    NoRoom,
}

// === impl Record ===

impl Record {
    /// Reads one line.
    ///
    /// # Errors
    /// [`InvalidRecord`], which never repeats the line.
    pub fn from_line(line: &[u8]) -> Result<Self, InvalidRecord> {
        if line.len() > MAX_RECORD_BYTES {
            return Err(InvalidRecord::TooLong);
        }
        serde_json::from_slice(line).map_err(|error| InvalidRecord::Json {
            column: error.column(),
        })
    }

    /// Writes one line, without its end.
    ///
    /// # Errors
    /// [`InvalidRecord::TooLong`] for a record over [`MAX_RECORD_BYTES`].
    pub fn to_line(&self) -> Result<String, InvalidRecord> {
        let line = serde_json::to_string(self).map_err(|error| InvalidRecord::Json {
            column: error.column(),
        })?;
        if line.len() > MAX_RECORD_BYTES {
            return Err(InvalidRecord::TooLong);
        }
        Ok(line)
    }

    /// The kind and id of the record, or of what it says is gone.
    pub fn key(&self) -> (Kind, &Id) {
        match self {
            Self::Doors(doors) => (Kind::Doors, &doors.id),
            Self::Platform(platform) => (Kind::Platform, &platform.id),
            Self::Account(account) => (Kind::Account, &account.id),
            Self::Pool(pool) => (Kind::Pool, &pool.id),
            Self::Key(key) => (Kind::Key, &key.id),
            Self::Health(health) => (Kind::Health, &health.id),
            Self::Removed(removed) => (removed.kind, &removed.id),
        }
    }
}

// === impl InvalidRecord ===

impl std::fmt::Display for InvalidRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => write!(f, "expected a record of at most {MAX_RECORD_BYTES} bytes"),
            Self::NoRoom => write!(
                f,
                "expected at most {} bytes of records in its part of the snapshot, one of {}, and found more; remove some, and add or change this one again",
                bucket::MAX_BUCKET_BYTES,
                bucket::BUCKETS
            ),
            Self::Json { column } => write!(
                f,
                "expected the JSON of a record of format {FORMAT}; it breaks at column {column}"
            ),
        }
    }
}

impl std::error::Error for InvalidRecord {}

#[cfg(test)]
pub(crate) mod fixture {
    //! A small snapshot that the tests of several modules start from.

    use super::*;

    pub(crate) const PLATFORMS: &str = concat!(
        r#"{"platform":{"id":"codex","owner":"openai","endpoints":[{"dialect":"responses","operation":"generate","path":"/backend-api/codex/responses"}],"headers":{"set":[["authorization","Bearer {credential}"],["chatgpt-account-id","{account_id}"]],"default":[],"allow":["accept","content-type","user-agent","session-id","x-codex-*"]},"models":["gpt-6.1-sol"]}}"#,
        "\n",
        r#"{"platform":{"id":"anthropic","owner":"anthropic","endpoints":[{"dialect":"messages","operation":"generate","path":"/v1/messages"}],"headers":{"set":[["x-api-key","{credential}"]],"default":[["anthropic-version","2023-06-01"]],"allow":["accept","content-type","anthropic-*"]},"models":["claude-opus-5-5"]}}"#,
    );

    /// The number of the door at `/v1/responses`.
    pub(crate) const RESPONSES: u16 = 1;
    /// The number of the door at `/v1/messages`.
    pub(crate) const MESSAGES: u16 = 2;
    /// The number of the door at `/v1/chat/completions`.
    pub(crate) const CHAT: u16 = 3;

    /// The number of a door that no platform serves.
    pub(crate) const NOWHERE: u16 = 8;

    const DOORS: &str = r#"{"id":"doors","session_headers":["session-id","x-claude-code-session-id","thread-id"],"doors":[
        {"id":1,"method":"POST","path":"/v1/responses","dialect":"responses","operation":"generate","things":true},
        {"id":2,"method":"POST","path":"/v1/messages","dialect":"messages","operation":"generate"},
        {"id":3,"method":"POST","path":"/v1/chat/completions","dialect":"chat","operation":"generate"},
        {"id":4,"method":"POST","path":"/v1/deployments/{model}/chat","dialect":"chat","operation":"generate"},
        {"id":5,"method":"GET","path":"/v1/models","header":"anthropic-version","dialect":"messages","operation":"models"},
        {"id":6,"method":"GET","path":"/v1/models","query":"client_version","dialect":"responses","operation":"models"},
        {"id":7,"method":"GET","path":"/v1/models","dialect":"chat","operation":"models"},
        {"id":8,"method":"POST","path":"/v1/nowhere","dialect":"chat","operation":"nowhere"},
        {"id":9,"method":"GET","path":"/v1/models/{model}","header":"anthropic-version","dialect":"messages","operation":"model"},
        {"id":10,"method":"GET","path":"/v1/models/{model}","dialect":"chat","operation":"model"},
        {"id":11,"method":"GET","path":"/health","dialect":"chat","operation":"alive"},
        {"id":12,"method":"GET","path":"/v1/responses/{id}","dialect":"responses","operation":"get","opaque":true,"modelless":true},
        {"id":13,"method":"POST","path":"/v1beta/models/{model}:streamGenerateContent","dialect":"gemini","operation":"stream"},
        {"id":14,"method":"POST","path":"/v1/messages/count_tokens","dialect":"messages","operation":"count_tokens"},
        {"id":15,"method":"POST","path":"/v1beta/models/{model}:countTokens","dialect":"gemini","operation":"count_tokens"},
        {"id":16,"method":"POST","path":"/v1/responses/input_tokens","dialect":"responses","operation":"count_tokens"},
        {"id":17,"method":"POST","path":"/api/v1/oauth/chat/completions","dialect":"envelope","operation":"generate"}],
        "aliases":[{"from":"/v1/v1","to":"/v1"},{"from":"","to":"/v1"}]}"#;

    pub(crate) fn doors() -> Doors {
        serde_json::from_str(DOORS).unwrap()
    }

    pub(crate) fn platform(id: &str) -> Platform {
        PLATFORMS
            .lines()
            .filter_map(|line| match Record::from_line(line.as_bytes()).unwrap() {
                Record::Platform(platform) => Some(platform),
                _ => None,
            })
            .find(|platform| platform.id.as_str() == id)
            .unwrap()
    }

    pub(crate) fn account(id: &str, platform: &str) -> Account {
        let line = format!(
            r#"{{"account":{{"id":"{id}","name":"{id}","platform":"{platform}","cluster":"latchkey-{id}","authority":"up.test","credential":"token-of-{id}","vars":{{"account_id":"ws-{id}"}},"generation":1}}}}"#
        );
        match Record::from_line(line.as_bytes()).unwrap() {
            Record::Account(account) => account,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn pool(id: &str, policy: Policy, accounts: &[&str]) -> Pool {
        let member = |account: &&str| Member {
            account: Id::try_from(*account).unwrap(),
            weight: pool::Weight::default(),
            tier: Tier::default(),
        };
        Pool {
            id: Id::try_from(id).unwrap(),
            policy,
            members: accounts.iter().map(member).collect(),
            maps: ModelMaps::default(),
            untranslated: false,
            exact_model: false,
        }
    }

    pub(crate) fn client_key(id: &str, key: &[u8], pool: &str) -> ClientKey {
        ClientKey {
            id: Id::try_from(id).unwrap(),
            sha256: KeyHash::of(key),
            pool: Id::try_from(pool).unwrap(),
            models: Models::default(),
            maps: ModelMaps::default(),
            untranslated: false,
            exact_model: false,
            demands: crate::dialect::Demands::default(),
            may_choose: MayChoose::default(),
            name: None,
            expires_at: None,
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_line() {
        let records = [
            Record::Doors(fixture::doors()),
            Record::Platform(fixture::platform("codex")),
            Record::Account(fixture::account("acc_1", "codex")),
            Record::Account(Account {
                expires_at: Some(1),
                ..fixture::account("acc_2", "codex")
            }),
            Record::Pool(fixture::pool("default", Policy::Sticky, &["acc_1"])),
            Record::Key(fixture::client_key("key_1", b"lk_x", "default")),
            Record::Removed(Removed {
                kind: Kind::Account,
                id: Id::try_from("acc_9").unwrap(),
            }),
        ];
        for record in records {
            let line = record.to_line().unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(Record::from_line(line.as_bytes()).unwrap(), record);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_without_repeating_it() {
        let good = Record::Account(fixture::account("acc_1", "codex"))
            .to_line()
            .unwrap();
        for bad in [
            good.replace("token-of-acc_1", "token\\r\\nx: y"),
            good.replace("up.test", "up.test\\n"),
            good.replace("ws-acc_1", "ws\\u0000"),
            good.replace("acc_1", "../acc"),
            good.replace("\"generation\":1", "\"generation\":-1"),
            good[..good.len() - 1].to_owned(),
        ] {
            let error = Record::from_line(bad.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("token"), "{error}");
        }
        let newer = good.replace("{\"id\"", "{\"colour\":\"blue\",\"id\"");
        assert!(Record::from_line(newer.as_bytes()).is_ok());
    }
}
