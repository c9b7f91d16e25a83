//! Lines of the snapshot, for the fake refresher.

use std::{collections::BTreeSet, iter, path::Path};

use latchkey::{
    dialect::Dialect,
    snapshot::{KeyHash, Record},
};
use refresher::platform::{Catalog, doors};
use serde_json::{Value, json};

use super::{
    clusters,
    stack::{CHAT_ALONE, GEMINI_ALONE},
};

/// The doors and the shipped platforms, pointed at the simulated one, one line each.
pub fn platforms(platforms_dir: &Path) -> Vec<String> {
    let acknowledged = BTreeSet::from(["codex".to_owned()]);
    let catalog = Catalog::load(Some(platforms_dir), acknowledged).expect("profiles");
    let platforms = catalog.all_usable();
    let platforms = platforms.map(|profile| Record::Platform(profile.publication().record));
    iter::once(Record::Doors(doors().clone()))
        .chain(platforms)
        .map(|record| record.to_line().expect("a line"))
        .collect()
}

/// The shipped platforms `openai` and `gemini`, as ones that speak a single dialect: chat completions, and Google's own.
pub fn of_one_dialect(platforms_dir: &Path) -> [String; 2] {
    let catalog = Catalog::load(Some(platforms_dir), BTreeSet::new()).expect("profiles");
    let alone = |platform: &str, id: &str, dialect| {
        let profile = catalog.usable(platform).expect("it is shipped");
        let mut record = profile.publication().record;
        record.id = id.to_owned().try_into().expect("an id");
        record.endpoints.retain(|one| one.dialect == dialect);
        if dialect == Dialect::Chat {
            // That of Codex.
            let model = "gpt-6.1-sol".to_owned();
            record.models.push(model.try_into().expect("a model"));
        }
        let record = Record::Platform(record);
        record.to_line().expect("a line")
    };
    [
        alone("openai", CHAT_ALONE, Dialect::Chat),
        alone("gemini", GEMINI_ALONE, Dialect::Gemini),
    ]
}

/// An account at `authority` with an API key, and what differs in it from others.
pub fn account(
    id: &str,
    platform: &str,
    authority: &str,
    credential: &str,
    other: Value,
) -> String {
    let mut account = json!({
        "id": id, "name": id, "platform": platform, "cluster": clusters::name(id),
        "authority": authority, "credential": credential, "vars": {}, "generation": 1,
    });
    let (Value::Object(values), Value::Object(other)) = (&mut account, other) else {
        panic!("expected an object")
    };
    values.extend(other);
    json!({"account": account}).to_string()
}

/// A pool of these accounts.
pub fn pool(id: &str, policy: &str, accounts: &[&str]) -> String {
    let members: Vec<Value> = accounts.iter().map(|id| json!({"account": id})).collect();
    json!({"pool": {"id": id, "policy": policy, "members": members}}).to_string()
}

/// A client key.
pub fn key(id: &str, key: &str, pool: &str) -> String {
    let sha256 = String::from(KeyHash::of(key.as_bytes()));
    json!({"key": {"id": id, "sha256": sha256, "pool": pool}}).to_string()
}

/// A client key, and what differs in it from others.
pub fn key_with(id: &str, key: &str, pool: &str, other: Value) -> String {
    let mut record: Value = serde_json::from_str(&self::key(id, key, pool)).expect("JSON");
    let (Value::Object(values), Value::Object(other)) = (&mut record["key"], other) else {
        panic!("expected an object")
    };
    values.extend(other);
    record.to_string()
}

/// That a record is no more.
pub fn removed(kind: &str, id: &str) -> String {
    json!({"removed": {"kind": kind, "id": id}}).to_string()
}
