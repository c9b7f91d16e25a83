//! A profile as it is written: TOML with no key unknown. What the values mean is [`super::Profile`]'s business.

use std::collections::BTreeMap;
use std::path::PathBuf;

use latchkey::snapshot::Requirement;
use serde::Deserialize;

use crate::credential::CredentialKind;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub id: String,
    pub name: String,
    pub owner: String,
    pub terms: Option<String>,
    pub credentials: Vec<CredentialKind>,
    #[serde(default)]
    pub api_key: super::KeyForm,
    #[serde(default)]
    pub models: Vec<String>,
    #[serde(default)]
    pub limits: super::limits::Raw,
    pub upstream: Upstream,
    #[serde(default)]
    pub elsewhere: Vec<String>,
    #[serde(default)]
    pub auth: super::Auth,
    pub signing: Option<super::signing::Raw>,
    #[serde(default)]
    pub endpoints: BTreeMap<String, BTreeMap<String, Endpoint>>,
    #[serde(default)]
    pub accents: Vec<toml::Table>,
    pub headers: Headers,
    #[serde(default)]
    pub query: Query,
    #[serde(default)]
    pub verdicts: Vec<toml::Table>,
    #[serde(default)]
    pub quota: BTreeMap<String, toml::Table>,
    pub probe: Option<super::probe::Raw>,
    pub quota_endpoint: Option<super::quota::Raw>,
    pub oauth: Option<super::oauth::Raw>,
    #[serde(default)]
    pub login: super::flow::Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub base_url: Option<String>,
    #[serde(default)]
    pub account_base_url: bool,
    #[serde(default)]
    pub own_network: bool,
    pub ca_file: Option<PathBuf>,
    pub idle_seconds: Option<std::num::NonZeroU16>,
    pub proxy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    pub path: String,
    #[serde(default)]
    pub root: bool,
    #[serde(default)]
    pub requires: Vec<Requirement>,
    #[serde(default)]
    pub include_usage: bool,
    #[serde(default)]
    pub free: bool,
    pub first_event_seconds: Option<u32>,
    #[serde(default)]
    pub omit: Vec<String>,
    #[serde(default)]
    pub opaque: bool,
    pub keeps_days: Option<u16>,
    #[serde(default)]
    pub keeps_asked: bool,
    pub makes: Option<Vec<String>>,
    #[serde(default)]
    pub refuses: Vec<String>,
    #[serde(default = "is_translated")]
    pub translated: bool,
    pub wrapper: Option<Wrapper>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wrapper {
    pub request: String,
    pub answer: String,
    #[serde(default)]
    pub members: BTreeMap<String, String>,
}

fn is_translated() -> bool {
    true
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    #[serde(default)]
    pub set: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Headers {
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    #[serde(default)]
    pub default: BTreeMap<String, String>,
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    #[serde(default)]
    pub remove: BTreeMap<String, String>,
    pub allow: Vec<String>,
    #[serde(default)]
    pub hide: Vec<String>,
    pub model: Option<String>,
}
