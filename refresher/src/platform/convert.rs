//! The parts of a profile, from as they are written to as they are meant.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

use latchkey::dialect::Dialect;
use latchkey::header::{HeaderName, HeaderText, InvalidHeader, NamePattern, is_reserved};
use latchkey::label::WindowName;
use latchkey::snapshot::path::PathTemplate;
use latchkey::snapshot::query::ParameterName;
use latchkey::snapshot::{
    Endpoint, HeaderPlan, MAX_MEMBER_BYTES, Makes, Operation, QueryPlan, Template, Wrapper,
};
use latchkey::verdict::Rule;
use latchkey::verdict::quota::{WindowHeaders, Windows};
use reqwest::Url;
use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};

use super::{IDLE_SECONDS, Invalid, NOWHERE, OwnBaseUrl, Upstream, doors, raw};
use crate::address::Network;
use crate::base_url::{self, BaseUrl};
use crate::egress::Proxy;
use crate::toml_place::{self, problem};

pub(super) fn invalid(key: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid {
        key: key.into(),
        problem: problem.into(),
    }
}

/// An error of the first stage; the toml crate says the key in its message.
pub(super) fn from_toml(error: &toml::de::Error) -> Invalid {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let problem = problem(lines.next().unwrap_or_default());
    let table = lines.find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let named = problem.strip_prefix("unknown field `");
    let unknown = named.and_then(|rest| rest.split_once('`').map(|(key, _)| key));
    let key = match (table, unknown) {
        (Some(table), Some(key)) => format!("{table}.{key}"),
        (Some(key), None) | (None, Some(key)) => key.to_owned(),
        (None, None) => "profile".to_owned(),
    };
    invalid(key, problem)
}

pub(super) fn upstream(raw: raw::Upstream) -> Result<Upstream, Invalid> {
    let of_accounts = match (&raw.base_url, raw.account_base_url) {
        (Some(_), false) => OwnBaseUrl::None,
        (Some(_), true) => OwnBaseUrl::Optional,
        (None, true) => OwnBaseUrl::Required,
        (None, false) => {
            let problem = "expected where the platform is; or account_base_url = true, and each account has its own";
            return Err(invalid("upstream.base_url", problem));
        }
    };
    let url = raw.base_url.as_deref().unwrap_or(NOWHERE);
    let network = match raw.own_network {
        true => Network::Own,
        false => Network::Public,
    };
    Ok(Upstream {
        url: fit("upstream.base_url", BaseUrl::of_profile(url, network))?,
        of_accounts,
        network,
        ca_file: raw.ca_file,
        idle_seconds: raw.idle_seconds.map_or(IDLE_SECONDS, NonZeroU16::get),
        proxy: match raw.proxy {
            Some(text) => Some(fit("upstream.proxy", Proxy::parse(&text, None))?),
            None => None,
        },
    })
}

pub(super) fn web_url(key: &str, text: &str) -> Result<Url, Invalid> {
    fit(key, base_url::web_url(text))
}

/// Returns the endpoints at which the platform answers, in order of dialect and operation.
pub(super) fn endpoints(
    raw: BTreeMap<String, BTreeMap<String, raw::Endpoint>>,
) -> Result<Vec<Endpoint>, Invalid> {
    let mut endpoints = Vec::new();
    for (dialect, operations) in raw {
        for (operation, raw) in operations {
            endpoints.push(endpoint(&dialect, operation, raw)?);
        }
    }
    if endpoints.len() > usize::from(u8::MAX) {
        return Err(invalid("endpoints", "expected at most 255 endpoints"));
    }
    Ok(endpoints)
}

pub(super) fn endpoint(
    dialect: &str,
    operation: String,
    raw: raw::Endpoint,
) -> Result<Endpoint, Invalid> {
    let at = format!("endpoints.{dialect}.{operation}");
    if raw.keeps_days.is_none() && (raw.keeps_asked || raw.makes.is_some()) {
        return Err(invalid(
            at,
            "expected keeps_days beside keeps_asked and makes",
        ));
    }
    let dialect: Dialect = fit(
        &at,
        Deserialize::deserialize(dialect.into_deserializer()).map_err(|error: ValueError| error),
    )?;
    if !dialect.is_of_platforms() {
        let why = format!("no platform speaks {}", dialect.word());
        return Err(invalid(at, why));
    }
    let endpoint = Endpoint {
        dialect,
        operation: fit(&at, Operation::try_from(operation))?,
        path: fit(format!("{at}.path"), PathTemplate::try_from(raw.path))?,
        root: raw.root,
        requires: raw.requires,
        include_usage: raw.include_usage,
        free: raw.free,
        first_event_seconds: raw.first_event_seconds,
        omit: omitted(&at, raw.omit)?,
        opaque: raw.opaque,
        keeps_days: raw.keeps_days,
        keeps_asked: raw.keeps_asked,
        makes: match raw.makes {
            Some(makes) => fit(format!("{at}.makes"), Makes::try_from(makes))?,
            None => Makes::default(),
        },
        refuses: raw.refuses,
        untranslated: !raw.translated,
        accents: Vec::new(),
        wrapper: match raw.wrapper {
            Some(raw) => Some(wrapper(&format!("{at}.wrapper"), raw)?),
            None => None,
        },
    };
    let is_asked = |door| match dialect.is_of_callers() {
        true => endpoint.answers(door),
        // What only platforms speak is always translated.
        false => endpoint.answers_translated(door),
    };
    if doors().doors.iter().any(is_asked) {
        Ok(endpoint)
    } else {
        let asked = doors::asked();
        Err(invalid(
            at,
            format!("expected what callers ask; they ask {asked}"),
        ))
    }
}

/// The most members beside the body in a wrapper.
const MAX_WRAPPER_MEMBERS: usize = 16;

/// Returns what stands around the bodies at an endpoint.
fn wrapper(at: &str, raw: raw::Wrapper) -> Result<Wrapper, Invalid> {
    let is_name = |name: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        (1..=MAX_MEMBER_BYTES).contains(&name.len()) && name.bytes().all(legal)
    };
    let names = [&raw.request, &raw.answer].into_iter();
    if !names.chain(raw.members.keys()).all(|name| is_name(name)) {
        let problem = format!("expected names of at most {MAX_MEMBER_BYTES} letters, digits and _");
        return Err(invalid(at, problem));
    }
    if raw.members.contains_key(&raw.request) || raw.members.len() > MAX_WRAPPER_MEMBERS {
        let problem =
            format!("expected at most {MAX_WRAPPER_MEMBERS} members beside that of request");
        return Err(invalid(format!("{at}.members"), problem));
    }
    let member = |(name, text): (String, String)| {
        let key = format!("{at}.members.{name}");
        let template = fit(&key, HeaderText::try_from(text))?;
        let template = fit(&key, Template::try_from(template))?;
        match template.has_credential() {
            true => Err(invalid(
                key,
                "expected no {credential}: it goes into a header",
            )),
            false => Ok((name, template)),
        }
    };
    Ok(Wrapper {
        request: raw.request,
        answer: raw.answer,
        members: raw
            .members
            .into_iter()
            .map(member)
            .collect::<Result<_, _>>()?,
    })
}

/// The names of headers that an endpoint, or a probe, leaves out.
pub(super) fn omitted(at: &str, names: Vec<String>) -> Result<Vec<HeaderName>, Invalid> {
    let name = |name| fit(format!("{at}.omit"), HeaderName::try_from(name));
    names.into_iter().map(name).collect()
}

pub(super) fn query(raw: raw::Query) -> Result<QueryPlan, Invalid> {
    let parameter = |(name, template): (String, String)| {
        let key = format!("query.set.{name}");
        let template = fit(&key, HeaderText::try_from(template))?;
        Ok((
            fit(&key, ParameterName::try_from(name))?,
            fit(&key, Template::try_from(template))?,
        ))
    };
    raw.set
        .into_iter()
        .map(parameter)
        .collect::<Result<_, _>>()
        .map(QueryPlan)
}

pub(super) fn rule(index: usize, written: toml::Table) -> Result<Rule, Invalid> {
    let problem = "expected a key that this verdict uses, with a value";
    exact(&format!("verdicts[{index}]"), written, problem)
}

/// The windows whose usage the platform reports in headers.
pub(super) fn windows(raw: BTreeMap<String, toml::Table>) -> Result<Windows, Invalid> {
    let window = |(name, written)| {
        let at = format!("quota.{name}");
        let problem = "expected a key that a window has: used_percent, used_fraction, limit, remaining, refused, \
                       resets or minutes, with a value";
        let headers: WindowHeaders = exact(&at, written, problem)?;
        match headers.problem() {
            Some(problem) => Err(invalid(at, problem)),
            None => Ok((fit(at, WindowName::try_from(name))?, headers)),
        }
    };
    raw.into_iter().map(window).collect()
}

/// Reads one of the snapshot's own types, which must come back as it was written. The type lets keys pass that it does
/// not know, for the sake of newer refreshers; here such a key is a mistake.
pub(super) fn exact<T: DeserializeOwned + Serialize>(
    at: &str,
    written: toml::Table,
    problem: &str,
) -> Result<T, Invalid> {
    let message = |error: toml::de::Error| toml_place::problem(error.message());
    let value: T = fit(at, written.clone().try_into().map_err(message))?;
    let meant = fit(at, toml::Table::try_from(&value))?;
    match written.keys().find(|key| !meant.contains_key(*key)) {
        Some(key) => Err(invalid(format!("{at}.{key}"), problem)),
        None => Ok(value),
    }
}

pub(super) fn headers(raw: raw::Headers) -> Result<HeaderPlan, Invalid> {
    let mut plan = HeaderPlan {
        set: Vec::new(),
        default: Vec::new(),
        add: Vec::new(),
        remove: Vec::new(),
        allow: Vec::new(),
        hide: Vec::new(),
        model: None,
    };
    for (name, template) in raw.set {
        let key = format!("headers.set.{name}");
        require_unreserved(&key, &name)?;
        let template = fit(&key, HeaderText::try_from(template))?;
        plan.set.push((
            fit(&key, HeaderName::try_from(name))?,
            fit(&key, Template::try_from(template))?,
        ));
    }
    for (name, value) in raw.default {
        let key = format!("headers.default.{name}");
        require_unreserved(&key, &name)?;
        plan.default.push((
            fit(&key, HeaderName::try_from(name))?,
            fit(&key, HeaderText::try_from(value))?,
        ));
    }
    for (name, item) in raw.add {
        let key = format!("headers.add.{name}");
        require_unreserved(&key, &name)?;
        let is_whole = |known: &HeaderName| known.as_str() == name;
        let mut whole = plan.set.iter().map(|(name, _)| name);
        let mut filled = plan.default.iter().map(|(name, _)| name);
        if whole.any(is_whole) || filled.any(is_whole) {
            let problem = "expected a header that neither headers.set nor headers.default has";
            return Err(invalid(key, problem));
        }
        plan.add.push(item_of(&key, name, item)?);
    }
    for (name, item) in raw.remove {
        let key = format!("headers.remove.{name}");
        require_unreserved(&key, &name)?;
        let removed = item_of(&key, name, item)?;
        if plan.add.contains(&removed) {
            return Err(invalid(
                key,
                "expected an item that headers.add does not add",
            ));
        }
        plan.remove.push(removed);
    }
    for (word, patterns, place) in [
        ("allow", raw.allow, &mut plan.allow),
        ("hide", raw.hide, &mut plan.hide),
    ] {
        for (index, pattern) in patterns.into_iter().enumerate() {
            let key = format!("headers.{word}[{index}]");
            if word == "allow" {
                require_unreserved(key.clone(), pattern.trim_end_matches('*'))?;
            }
            place.push(fit(key, NamePattern::try_from(pattern))?);
        }
    }
    let model = raw
        .model
        .map(|name| fit("headers.model", HeaderName::try_from(name)));
    plan.model = model.transpose()?;
    Ok(plan)
}

/// One item of a header that is a list.
fn item_of(key: &str, name: String, item: String) -> Result<(HeaderName, HeaderText), Invalid> {
    let is_item = !item.is_empty() && !item.contains([',', ' ', '\t']);
    if !is_item {
        return Err(invalid(key, "expected one item, without commas and blanks"));
    }
    Ok((
        fit(key, HeaderName::try_from(name))?,
        fit(key, HeaderText::try_from(item))?,
    ))
}

/// Refuses a header that only the proxy writes.
pub(super) fn require_unreserved(key: impl Into<String>, name: &str) -> Result<(), Invalid> {
    match is_reserved(name) {
        true => fit(key, Err(InvalidHeader::Reserved)),
        false => Ok(()),
    }
}

/// Names the key of a value that the snapshot's types refuse: CR, LF and NUL among them.
pub(super) fn fit<T, E: fmt::Display>(
    key: impl Into<String>,
    value: Result<T, E>,
) -> Result<T, Invalid> {
    value.map_err(|error| invalid(key, error.to_string()))
}
