//! The list of models that a pool serves, in the shape that the caller's client reads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    dialect::Dialect,
    snapshot::{Models, Pool, View},
};

/// The paths on which callers ask for it.
pub const MODEL_PATHS: [&str; 3] = ["/v1/models", "/models", "/backend-api/codex/models"];

/// Who asks, by what their client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"object":"list","data":[…]}`, as OpenAI answers.
    OpenAi,
    /// `{"data":[…],"has_more":false}`, as Anthropic answers.
    Anthropic,
    /// `{"models":[…]}`, as the ChatGPT backend answers Codex, which has its own metadata for
    /// models and reads an empty list as no change.
    Codex,
}

// === impl Shape ===

impl Shape {
    /// The shape for a request of `dialect` with this query. Codex alone sends `client_version`.
    pub fn of(dialect: Dialect, query: &[u8]) -> Self {
        match dialect {
            Dialect::Messages => Self::Anthropic,
            _ if query.starts_with(b"client_version=") => Self::Codex,
            _ => Self::OpenAi,
        }
    }

    /// The body for the models that `pool` serves at `now`, by name, as far as they are `allowed`.
    pub fn body(self, view: &View, pool: &Pool, allowed: Option<&Models>, now: u64) -> String {
        let mut models = models(view, pool, now);
        models.retain(|model, _| allowed.is_none_or(|allowed| allowed.contain(Some(model))));
        let body = match self {
            Self::Codex => json!({"models": []}),
            Self::OpenAi => {
                let entry = |(id, owner): (&&str, &&str)| json!({"id": id, "object": "model", "created": 0, "owned_by": owner});
                json!({"object": "list", "data": models.iter().map(entry).collect::<Vec<Value>>()})
            }
            Self::Anthropic => {
                let entry = |id: &&str| json!({"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"});
                json!({
                    "data": models.keys().map(entry).collect::<Vec<Value>>(),
                    "has_more": false,
                    "first_id": models.keys().next(),
                    "last_id": models.keys().next_back(),
                })
            }
        };
        body.to_string()
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
        .filter(|account| !account.has_ended(now));
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
    use super::*;
    use crate::snapshot::{Policy, Record, fixture};

    #[test]
    fn lists_of_accounts_and_keys_hold() {
        let list = |patterns: &str| -> Models { serde_json::from_str(patterns).unwrap() };
        let mut account = fixture::account("acc_1", "codex");
        account.models = list(r#"["gpt-7","nothing*"]"#);
        account.ends_at = Some(10);
        let view = View::of(&[
            Record::Platform(fixture::platform("codex")),
            Record::Platform(fixture::platform("anthropic")),
            Record::Account(account),
            Record::Account(fixture::account("acc_2", "anthropic")),
        ]);
        let pool = fixture::pool("default", Policy::Sticky, &["acc_1", "acc_2"]);
        let ids = |now, allowed: Option<&Models>| -> Vec<String> {
            let body = Shape::OpenAi.body(&view, &pool, allowed, now);
            let body: Value = serde_json::from_str(&body).unwrap();
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
    fn each_client_gets_its_shape() {
        let view = View::of(&[
            Record::Platform(fixture::platform("codex")),
            Record::Platform(fixture::platform("anthropic")),
            Record::Account(fixture::account("acc_1", "codex")),
            Record::Account(fixture::account("acc_2", "anthropic")),
        ]);
        let pool = fixture::pool("default", Policy::Sticky, &["acc_1", "acc_2"]);
        let body = |shape: Shape| -> Value {
            serde_json::from_str(&shape.body(&view, &pool, None, 0)).unwrap()
        };
        let openai = body(Shape::OpenAi);
        assert_eq!(openai["data"][0]["id"], "claude-opus-5-5");
        assert_eq!(openai["data"][1]["owned_by"], "openai");
        let anthropic = body(Shape::Anthropic);
        assert_eq!(anthropic["last_id"], "gpt-6.1-sol");
        assert_eq!(anthropic["has_more"], false);
        assert_eq!(body(Shape::Codex), json!({"models": []}));
        assert_eq!(
            Shape::of(Dialect::Chat, b"client_version=0.169.0"),
            Shape::Codex
        );
    }
}
