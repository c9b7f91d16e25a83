//! The models that a client key and a pool mean by others' names, and the list of those that a key may ask for, in the
//! shape that the caller's client reads.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    dialect::{Dialect, EffortWord, ListedModel},
    header::HeaderText,
    snapshot::{Account, ClientKey, Pool, View},
};

/// The most lists of accounts of which it is known that they were looked at. Most accounts of a pool have the same; where
/// they have thousands, looking for one among all takes longer than reading it again, as anybody with a key may have done
/// again and again.
const MAX_SEEN: usize = 32;

/// The meaning of the maps for a model that is asked for.
#[derive(Debug, Default)]
pub struct Mapped<'a> {
    /// The model that serves it; none where it serves itself.
    pub model: Option<&'a HeaderText>,
    /// The effort in thinking, from the first map that says one.
    pub effort: Option<EffortWord>,
}

/// Returns true if each model serves itself or is not served.
pub fn is_exact(key: &ClientKey, pool: Option<&Pool>) -> bool {
    key.exact_model || pool.is_some_and(|pool| pool.exact_model)
}

/// Applies the maps of the key, and then those of its pool, to the model that is asked for.
pub fn mapped<'a>(key: &'a ClientKey, pool: Option<&'a Pool>, asked: &str) -> Mapped<'a> {
    let exact = is_exact(key, pool);
    let mut mapped = Mapped::default();
    let lists = [Some(&key.maps), pool.map(|pool| &pool.maps)];
    for maps in lists.into_iter().flatten() {
        let name = mapped.model.map_or(asked, HeaderText::as_str);
        let Some(map) = maps.of(name) else { continue };
        let is_other = map.served().as_str() != name;
        if exact && is_other {
            continue;
        }
        mapped.effort = mapped.effort.or(map.effort());
        if is_other {
            mapped.model = Some(map.served());
        }
    }
    mapped
}

/// The models that a key may ask for, by who asks in a dialect.
#[derive(Debug)]
pub struct Listed<'a> {
    dialect: Dialect,
    /// The models, each with its owner.
    models: BTreeMap<&'a str, &'a str>,
}

// === impl Listed ===

impl<'a> Listed<'a> {
    /// The models that `pool` serves at `now`, by the names by which `key` may ask for them, for who asks in `dialect`.
    /// Where nothing may be translated, these are those of the accounts that speak it.
    pub fn of(
        view: &'a View,
        pool: &'a Pool,
        key: &'a ClientKey,
        dialect: Dialect,
        now: u64,
    ) -> Self {
        let untranslated = key.untranslated || pool.untranslated;
        let spoken: &[Dialect] = match untranslated {
            true => dialect.listed_with(),
            false => &Dialect::OF_PLATFORMS,
        };
        let own = models(view, pool, spoken, now);
        let maps = key.maps.maps().iter().chain(pool.maps.maps());
        let names = own
            .keys()
            .copied()
            .chain(maps.filter_map(|map| map.asked().exact()));
        let names = names.filter(|name| key.models.contain(Some(name)));
        let owner = |name: &str| {
            let served = mapped(key, Some(pool), name).model;
            own.get(served.map_or(name, HeaderText::as_str)).copied()
        };
        let models = names.filter_map(|name| Some((name, owner(name)?)));
        Self {
            dialect,
            models: models.collect(),
        }
    }

    /// The list.
    pub fn all(&self) -> Value {
        let models = self.models.iter();
        let listed: Vec<_> = models
            .map(|(id, owner)| ListedModel { id, owner })
            .collect();
        self.dialect.format().models(&listed)
    }

    /// The model called `id`; none where it is not listed.
    pub fn one(&self, id: &str) -> Option<Value> {
        let (id, owner) = self.models.get_key_value(id)?;
        Some(self.dialect.format().model(&ListedModel { id, owner }))
    }
}

/// Each model and its owner: those of the accounts' platforms that the accounts serve, and those
/// that an operator named for an account, also by its maps. An account past its end serves none, nor does one whose
/// platform speaks none of the dialects that are `spoken`.
fn models<'a>(
    view: &'a View,
    pool: &Pool,
    spoken: &[Dialect],
    now: u64,
) -> BTreeMap<&'a str, &'a str> {
    let mut models = BTreeMap::new();
    let accounts = pool
        .members
        .iter()
        .filter_map(|member| view.account(member.account.as_str()))
        .filter(|account| !account.has_expired(now));
    let mut seen = Vec::new();
    for account in accounts {
        let same = (&account.platform, &account.models, &account.maps);
        #[cfg(test)]
        crate::text::find::work::add(seen.len());
        if seen.contains(&same) {
            continue;
        }
        if seen.len() < MAX_SEEN {
            seen.push(same);
        }
        let Some(platform) = view.platform(&account.platform) else {
            continue;
        };
        let mut endpoints = platform.endpoints.iter();
        if !endpoints.any(|endpoint| spoken.contains(&endpoint.dialect)) {
            continue;
        }
        let listed = platform.models.iter().map(HeaderText::as_str);
        let names = listed.chain(names(account));
        let names = names.filter(|model| account.models.contain(Some(model)));
        let owner = platform.owner.as_str();
        models.extend(names.map(|model| (model, owner)));
        #[cfg(test)]
        crate::text::find::work::add(1);
    }
    models
}

/// The models that an operator named for an account.
fn names(account: &Account) -> impl Iterator<Item = &str> {
    let listed = account.models.patterns().iter();
    let mapped = account.maps.maps().iter().map(|map| map.asked());
    listed.chain(mapped).filter_map(|pattern| pattern.exact())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::{Models, Policy, Record, fixture};
    use crate::text::find::work;

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
            let key = ClientKey {
                models: allowed.cloned().unwrap_or_default(),
                ..fixture::client_key("key_1", b"lk_x", "default")
            };
            let body = Listed::of(&view, &pool, &key, Dialect::Chat, now).all();
            let data = body["data"].as_array().unwrap().iter();
            data.map(|model| model["id"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(ids(9, None), ["claude-opus-5-5", "gpt-7"]);
        assert_eq!(ids(9, Some(&list(r#"["gpt*"]"#))), ["gpt-7"]);
        assert!(ids(9, Some(&list(r#"["o3"]"#))).is_empty());
        assert_eq!(ids(10, None), ["claude-opus-5-5"], "an account has ended");
    }

    /// A list is no request that counts, so it must not cost what a key's limits are there for.
    #[test]
    fn the_work_grows_with_the_accounts_alone_whatever_lists_they_have() {
        let work = |accounts: u32| {
            let ids: Vec<String> = (0..accounts).map(|n| format!("acc_{n}")).collect();
            let mut records = vec![Record::Platform(fixture::platform("codex"))];
            records.extend(ids.iter().map(|id| {
                let mut account = fixture::account(id, "codex");
                account.models = serde_json::from_value(json!([id])).unwrap();
                Record::Account(account)
            }));
            let view = View::of(&records);
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let pool = fixture::pool("default", Policy::Sticky, &ids);
            work::of(|| {
                let models = models(&view, &pool, &Dialect::OF_PLATFORMS, 0);
                assert_eq!(models.len(), ids.len());
            })
        };
        for accounts in [500, 2_000] {
            let most = (MAX_SEEN + 1) * accounts as usize;
            let work = work(accounts);
            assert!(work <= most, "{accounts} accounts: {work}");
        }
    }

    /// The names that are listed where the account, the pool and the key have these maps.
    fn listed([account, pool, key]: [&str; 3], exact: bool) -> Vec<String> {
        let maps = |maps: &str| serde_json::from_str(maps).unwrap();
        let mut named = fixture::account("acc_1", "codex");
        named.maps = maps(account);
        let view = View::of(&[
            Record::Platform(fixture::platform("codex")),
            Record::Account(named),
        ]);
        let mut within = fixture::pool("default", Policy::Sticky, &["acc_1"]);
        within.maps = maps(pool);
        let mut asking = fixture::client_key("key_1", b"lk_x", "default");
        asking.maps = maps(key);
        asking.exact_model = exact;
        let body = Listed::of(&view, &within, &asking, Dialect::Chat, 0).all();
        let data = body["data"].as_array().unwrap().iter();
        data.map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_model_that_another_one_serves_is_listed_where_that_is() {
        let pool = r#"["fast=gpt-6.1-sol","claude-*=gpt-6.1-sol","other=gpt-9"]"#;
        assert_eq!(listed(["[]", pool, "[]"], false), ["fast", "gpt-6.1-sol"]);
        let key = r#"["mine=fast","lost=other"]"#;
        assert_eq!(
            listed(["[]", pool, key], false),
            ["fast", "gpt-6.1-sol", "mine"]
        );
        let account = r#"["gpt-9=deployment","o*=deployment"]"#;
        assert_eq!(
            listed([account, pool, key], false),
            ["fast", "gpt-6.1-sol", "gpt-9", "lost", "mine", "other"]
        );
        assert_eq!(
            listed([account, pool, key], true),
            ["gpt-6.1-sol", "gpt-9"],
            "each serves itself"
        );
    }

    #[test]
    fn a_name_that_means_what_nobody_serves_is_not_listed() {
        let pool = r#"["gpt-6.1-sol=gpt-9","fast=gpt-6.1-sol"]"#;
        assert_eq!(listed(["[]", pool, "[]"], false), ["fast"]);
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
        let key = fixture::client_key("key_1", b"lk_x", "default");
        let listed = |dialect| Listed::of(&view, &pool, &key, dialect, 0);
        let body = |dialect| listed(dialect).all();
        let openai = body(Dialect::Chat);
        assert_eq!(openai["data"][0]["id"], "claude-opus-5-5");
        assert_eq!(openai["data"][1]["owned_by"], "openai");
        let anthropic = body(Dialect::Messages);
        assert_eq!(anthropic["last_id"], "gpt-6.1-sol");
        assert_eq!(anthropic["has_more"], false);
        assert_eq!(body(Dialect::Responses), json!({"models": []}));
        let one = |dialect| listed(dialect).one("gpt-6.1-sol").unwrap();
        assert_eq!(one(Dialect::Chat), openai["data"][1]);
        assert_eq!(one(Dialect::Messages), anthropic["data"][1]);
        assert_eq!(one(Dialect::Responses), openai["data"][1]);
        assert_eq!(listed(Dialect::Chat).one("gpt-7"), None);
    }

    /// By the key or by the pool.
    #[test]
    fn where_nothing_is_translated_each_shape_has_the_models_of_who_speaks_it() {
        let view = View::of(&[
            Record::Platform(fixture::platform("codex")),
            Record::Platform(fixture::platform("anthropic")),
            Record::Account(fixture::account("acc_1", "codex")),
            Record::Account(fixture::account("acc_2", "anthropic")),
        ]);
        for by_key in [true, false] {
            let mut pool = fixture::pool("default", Policy::Sticky, &["acc_1", "acc_2"]);
            pool.untranslated = !by_key;
            pool.maps = serde_json::from_str(r#"["fast=gpt-6.1-sol"]"#).unwrap();
            let mut key = fixture::client_key("key_1", b"lk_x", "default");
            key.untranslated = by_key;
            let names = |dialect| -> Vec<String> {
                let listed = Listed::of(&view, &pool, &key, dialect, 0);
                listed
                    .models
                    .keys()
                    .map(|name| (*name).to_owned())
                    .collect()
            };
            // OpenAI's clients ask for it on one of their two paths.
            assert_eq!(names(Dialect::Chat), ["fast", "gpt-6.1-sol"]);
            assert_eq!(names(Dialect::Messages), ["claude-opus-5-5"]);
            assert!(names(Dialect::Gemini).is_empty());
            let listed = Listed::of(&view, &pool, &key, Dialect::Messages, 0);
            assert_eq!(listed.one("fast"), None);
        }
    }
}
