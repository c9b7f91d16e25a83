//! The list of models that a pool serves, in the shape that the caller's client reads.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    dialect::{Dialect, ListedModel},
    snapshot::{Models, Pool, View},
};

/// The models that a key may ask for.
#[derive(Debug)]
pub struct Listed<'a>(BTreeMap<&'a str, &'a str>);

// === impl Listed ===

impl<'a> Listed<'a> {
    /// The models that `pool` serves at `now`, by name, as far as they are `allowed`, and those that they serve by
    /// other names.
    pub fn of(view: &'a View, pool: &'a Pool, allowed: Option<&Models>, now: u64) -> Self {
        let mut models = models(view, pool, now);
        for map in pool.maps.maps() {
            let owner = models.get(map.served().as_str()).copied();
            if let (Some(asked), Some(owner)) = (map.asked().exact(), owner) {
                models.insert(asked, owner);
            }
        }
        models.retain(|model, _| allowed.is_none_or(|allowed| allowed.contain(Some(model))));
        Self(models)
    }

    /// The list, for who asks in `dialect`.
    pub fn all(&self, dialect: Dialect) -> Value {
        let models = self.0.iter();
        let listed: Vec<_> = models
            .map(|(id, owner)| ListedModel { id, owner })
            .collect();
        dialect.format().models(&listed)
    }

    /// The model called `id`, for who asks in `dialect`; none where it is not listed.
    pub fn one(&self, dialect: Dialect, id: &str) -> Option<Value> {
        let (id, owner) = self.0.get_key_value(id)?;
        Some(dialect.format().model(&ListedModel { id, owner }))
    }
}

/// Each model and its owner: those of the accounts' platforms that the accounts serve, and those
/// that an operator named for an account. An account past its end serves none.
fn models<'a>(view: &'a View, pool: &Pool, now: u64) -> BTreeMap<&'a str, &'a str> {
    let mut models = BTreeMap::new();
    let accounts = pool
        .members
        .iter()
        .filter_map(|member| view.account(member.account.as_str()))
        .filter(|account| !account.has_expired(now));
    let mut seen = Vec::new();
    for account in accounts {
        let same = (&account.platform, &account.models);
        if seen.contains(&same) {
            continue;
        }
        seen.push(same);
        let Some(platform) = view.platform(&account.platform) else {
            continue;
        };
        let listed = platform.models.iter().map(|model| model.as_str());
        let listed = listed.filter(|model| account.models.contain(Some(model)));
        let named = account.models.patterns().iter();
        let named = named.filter_map(|pattern| pattern.exact());
        let owner = platform.owner.as_str();
        models.extend(listed.chain(named).map(|model| (model, owner)));
    }
    models
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::{Policy, Record, fixture};

    #[test]
    fn lists_of_accounts_and_keys_hold() {
        let list = |patterns: &str| -> Models { serde_json::from_str(patterns).unwrap() };
        let mut account = fixture::account("acc_1", "codex");
        account.models = list(r#"["gpt-7","nothing*"]"#);
        account.expires_at = Some(10);
        let view = View::of(&[
            Record::Platform(fixture::platform("codex")),
            Record::Platform(fixture::platform("anthropic")),
            Record::Account(account),
            Record::Account(fixture::account("acc_2", "anthropic")),
        ]);
        let pool = fixture::pool("default", Policy::Sticky, &["acc_1", "acc_2"]);
        let ids = |now, allowed: Option<&Models>| -> Vec<String> {
            let body = Listed::of(&view, &pool, allowed, now).all(Dialect::Chat);
            let data = body["data"].as_array().unwrap().iter();
            data.map(|model| model["id"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(ids(9, None), ["claude-opus-5-5", "gpt-7"]);
        assert_eq!(ids(9, Some(&list(r#"["gpt*"]"#))), ["gpt-7"]);
        assert!(ids(9, Some(&list(r#"["o3"]"#))).is_empty());
        assert_eq!(ids(10, None), ["claude-opus-5-5"], "an account has ended");
    }

    #[test]
    fn a_model_that_another_one_serves_is_listed_where_that_is() {
        let view = View::of(&[
            Record::Platform(fixture::platform("codex")),
            Record::Account(fixture::account("acc_1", "codex")),
        ]);
        let mut pool = fixture::pool("default", Policy::Sticky, &["acc_1"]);
        let maps = r#"["fast=gpt-6.1-sol","claude-*=gpt-6.1-sol","other=gpt-9"]"#;
        pool.maps = serde_json::from_str(maps).unwrap();
        let body = Listed::of(&view, &pool, None, 0).all(Dialect::Chat);
        let data = body["data"].as_array().unwrap().iter();
        let ids: Vec<_> = data.map(|model| model["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["fast", "gpt-6.1-sol"]);
    }

    #[test]
    fn each_client_gets_its_shape() {
        let view = View::of(&[
            Record::Platform(fixture::platform("codex")),
            Record::Platform(fixture::platform("anthropic")),
            Record::Account(fixture::account("acc_1", "codex")),
            Record::Account(fixture::account("acc_2", "anthropic")),
        ]);
        let pool = fixture::pool("default", Policy::Sticky, &["acc_1", "acc_2"]);
        let listed = Listed::of(&view, &pool, None, 0);
        let body = |dialect| listed.all(dialect);
        let openai = body(Dialect::Chat);
        assert_eq!(openai["data"][0]["id"], "claude-opus-5-5");
        assert_eq!(openai["data"][1]["owned_by"], "openai");
        let anthropic = body(Dialect::Messages);
        assert_eq!(anthropic["last_id"], "gpt-6.1-sol");
        assert_eq!(anthropic["has_more"], false);
        assert_eq!(body(Dialect::Responses), json!({"models": []}));
        let one = |dialect| listed.one(dialect, "gpt-6.1-sol").unwrap();
        assert_eq!(one(Dialect::Chat), openai["data"][1]);
        assert_eq!(one(Dialect::Messages), anthropic["data"][1]);
        assert_eq!(one(Dialect::Responses), openai["data"][1]);
        assert_eq!(listed.one(Dialect::Chat, "gpt-7"), None);
    }
}
