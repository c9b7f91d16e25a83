//! `[probe]` of a profile: the cheapest call that proves a credential, which the refresher makes by itself.

use std::collections::BTreeMap;

use latchkey::dialect::Dialect;
use latchkey::header::{HeaderName, HeaderText};
use latchkey::snapshot::path::{PathTemplate, Place};
use latchkey::snapshot::{Endpoint, HeaderPlan, Makes, Operation};
use latchkey::verdict::Reason;
use reqwest::Method;
use serde::Deserialize;

use super::{Invalid, fit, invalid, omitted, require_unreserved};

/// The most bytes of its body: it is to cost next to nothing.
const MAX_BODY_BYTES: usize = 4 * 1024;

/// A call that proves a credential.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The method of the question.
    pub method: Method,
    /// The place that is asked: its path follows that of the base URL, as an endpoint's does.
    pub endpoint: Endpoint,
    /// The query, without the credential's place; empty for none.
    pub query: String,
    /// Headers beside the profile's own.
    pub headers: Vec<(HeaderName, HeaderText)>,
    /// The body.
    pub body: Option<String>,
    /// The reasons of deaths that a good answer speaks against; empty for every reason.
    disproves: Vec<Reason>,
}

/// `[probe]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default)]
    pub method: Asks,
    pub path: String,
    #[serde(default)]
    pub root: bool,
    #[serde(default)]
    pub omit: Vec<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    #[serde(default)]
    pub disproves: Vec<String>,
}

/// The methods of calls that change nothing, or as little as an answer costs.
#[derive(Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Asks {
    #[default]
    Get,
    Post,
}

impl Probe {
    /// Returns true if a good answer speaks against a death for that reason: whose key is known may still be out of
    /// money.
    pub fn disproves(&self, reason: &Reason) -> bool {
        self.disproves.is_empty() || self.disproves.contains(reason)
    }
}

impl Raw {
    /// `at`: the table's key. `dialect`: that of the platform's answers. `plan`: what the profile itself sends.
    pub(super) fn check(
        self,
        at: &str,
        dialect: Dialect,
        plan: &HeaderPlan,
    ) -> Result<Probe, Invalid> {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let path = fit(
            format!("{at}.path"),
            PathTemplate::try_from(path.to_owned()),
        )?;
        let is_plain = query
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if Place::ALL.iter().any(|place| path.has(*place))
            || path.vars().next().is_some()
            || !is_plain
        {
            let problem = "expected a path, and perhaps a query, without places in braces";
            return Err(invalid(format!("{at}.path"), problem));
        }
        let mut headers = Vec::new();
        for (name, value) in self.headers {
            let key = format!("{at}.headers.{name}");
            require_unreserved(&key, &name)?;
            if plan.set.iter().any(|(set, _)| set.as_str() == name) {
                return Err(invalid(
                    key,
                    "expected a header that headers.set does not set",
                ));
            }
            let value = fit(&key, HeaderText::try_from(value))?;
            headers.push((fit(&key, HeaderName::try_from(name))?, value));
        }
        if self
            .body
            .as_ref()
            .is_some_and(|body| body.len() > MAX_BODY_BYTES)
        {
            let problem = format!("expected at most {MAX_BODY_BYTES} bytes");
            return Err(invalid(format!("{at}.body"), problem));
        }
        let disproves = self
            .disproves
            .into_iter()
            .enumerate()
            .map(|(index, reason)| {
                fit(format!("{at}.disproves[{index}]"), Reason::try_from(reason))
            });
        Ok(Probe {
            method: match self.method {
                Asks::Get => Method::GET,
                Asks::Post => Method::POST,
            },
            endpoint: Endpoint {
                dialect,
                operation: fit(at, Operation::try_from("probe".to_owned()))?,
                path,
                root: self.root,
                requires: Vec::new(),
                include_usage: false,
                free: true,
                first_event_seconds: None,
                omit: omitted(at, self.omit)?,
                opaque: false,
                keeps_days: None,
                keeps_asked: false,
                makes: Makes::default(),
                refuses: Vec::new(),
                untranslated: false,
                accents: Vec::new(),
                wrapper: None,
            },
            query: query.to_owned(),
            headers,
            body: self.body,
            disproves: disproves.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Profile;

    fn read(probe: &str) -> Result<Profile, Invalid> {
        let text = format!(
            "id = 'own'\nname = 'Own'\nowner = 'own'\ncredentials = ['api_key']\n\
             upstream.base_url = 'https://own.test/v1'\nendpoints.chat.generate = {{ path = '/c' }}\n\
             headers = {{ set = {{ authorization = 'Bearer {{credential}}' }}, allow = [] }}\n[probe]\n{probe}\n"
        );
        Profile::from_table(text.parse().unwrap())
    }

    #[test]
    fn a_probe_is_a_plain_call() {
        let probe = read(
            "method = 'POST'\npath = '/ping?a=b'\nroot = true\nbody = '{}'\nheaders.content-type = 'application/json'\n\
             disproves = ['invalid_api_key']",
        );
        let probe = probe.unwrap().probe.unwrap();
        assert_eq!(
            (probe.method.as_str(), probe.query.as_str()),
            ("POST", "a=b")
        );
        assert!(probe.endpoint.root && probe.headers.len() == 1);
        let reason = |word: &str| Reason::try_from(word.to_owned()).unwrap();
        assert!(probe.disproves(&reason("invalid_api_key")));
        assert!(!probe.disproves(&reason("billing")));
        let any = read("path = '/models'").unwrap().probe.unwrap();
        assert!(any.disproves(&reason("billing")));
        for (bad, key) in [
            ("", "probe"),
            ("path = 'models'", "probe.path"),
            ("path = '/models/{model}'", "probe.path"),
            ("path = '/{account_id}'", "probe.path"),
            ("path = '/a?b c'", "probe.path"),
            ("path = '/a'\nmethod = 'DELETE'", "probe.method"),
            ("path = '/a'\nheaders.host = 'x'", "probe.headers.host"),
            (
                "path = '/a'\nheaders.authorization = 'x'",
                "probe.headers.authorization",
            ),
            ("path = '/a'\nheaders.a = \"x\\n\"", "probe.headers.a"),
            ("path = '/a'\ndisproves = ['A b']", "probe.disproves[0]"),
            ("path = '/a'\nother = 1", "probe.other"),
        ] {
            let refused = read(bad).unwrap_err();
            assert_eq!(refused.key, key, "{bad}: {refused}");
        }
        let long = format!("path = '/a'\nbody = '{}'", "x".repeat(MAX_BODY_BYTES + 1));
        assert_eq!(read(&long).unwrap_err().key, "probe.body");
    }
}
