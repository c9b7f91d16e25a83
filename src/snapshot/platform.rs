//! A platform as the filter knows it: where it answers, what goes out to it and what its answers
//! mean.

use serde::{Deserialize, Serialize};

use super::{
    Account, Door, Endpoint, EndpointId, QueryPlan, Template, Wrapper,
    path::{InvalidPath, is_plain},
};
use crate::{
    header::{HeaderName, HeaderText, InvalidHeader, NamePattern, is_reserved},
    id::Id,
    newtype::checked_text,
    verdict::{Rule, quota::Windows},
};

/// A service that answers LLM requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// The id, for example `codex`.
    pub id: Id,
    /// `owned_by` in the list of models.
    pub owner: HeaderText,
    /// The path of its base URL; an account may have another one.
    #[serde(default, skip_serializing_if = "BasePath::is_empty")]
    pub base_path: BasePath,
    /// The endpoints at which it answers what callers ask. Everything else is not sent there.
    pub endpoints: Vec<Endpoint>,
    /// The headers that go out.
    pub headers: HeaderPlan,
    /// The query parameters that go out beside the caller's.
    #[serde(default, skip_serializing_if = "QueryPlan::is_empty")]
    pub query: QueryPlan,
    /// The models that it serves, as it names them.
    #[serde(default)]
    pub models: Vec<HeaderText>,
    /// The rules by which its answers are judged; the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Rule>,
    /// The codes of errors that say of a thing, or of what is encrypted for one account, that this
    /// account does not have it: another one may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
    /// The headers in which its answers report an account's windows.
    #[serde(default, skip_serializing_if = "Windows::is_empty")]
    pub quota: Windows,
}

/// The headers that go out to a platform, none of which is reserved, and those of its answer that stay here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPlan")]
pub struct HeaderPlan {
    /// Put on always, in place of whatever the caller sent.
    pub set: Vec<(HeaderName, Template)>,
    /// Put on where the caller sent none.
    #[serde(default)]
    pub default: Vec<(HeaderName, HeaderText)>,
    /// Items of headers that are lists, put behind those that the caller sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(HeaderName, HeaderText)>,
    /// An item that stays here of a header that is a list, whoever sent it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<(HeaderName, HeaderText)>,
    /// The caller's headers that may pass. All others stay here.
    pub allow: Vec<NamePattern>,
    /// The answer's headers that stay here, beside those that no platform's answer keeps: they name the
    /// account's owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hide: Vec<NamePattern>,
    /// The answer's header that names the model that has served it, beside the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<HeaderName>,
}

/// A plan as it is written.
#[derive(Deserialize)]
struct RawPlan {
    set: Vec<(HeaderName, Template)>,
    #[serde(default)]
    default: Vec<(HeaderName, HeaderText)>,
    #[serde(default)]
    add: Vec<(HeaderName, HeaderText)>,
    #[serde(default)]
    remove: Vec<(HeaderName, HeaderText)>,
    allow: Vec<NamePattern>,
    #[serde(default)]
    hide: Vec<NamePattern>,
    #[serde(default)]
    model: Option<HeaderName>,
}

/// The path of a base URL: empty, or an absolute path that does not end in a slash.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BasePath(String);

checked_text! {
    BasePath, InvalidPath;
}

// === impl Platform ===

impl Platform {
    /// The endpoint that answers what is asked at `door`, if the platform has one.
    ///
    /// This is the one place that decides: an endpoint that speaks the caller's dialect comes before one
    /// for which the request is translated, and of those the one whose dialect says most.
    pub fn endpoint_for(&self, door: &Door) -> Option<EndpointId> {
        let mut endpoints = self.endpoints.iter();
        let own = endpoints.position(|one| one.answers(door));
        let translated = || {
            let endpoints = self.endpoints.iter().enumerate();
            endpoints.filter(|(_, one)| one.answers_translated(door))
        };
        let generates = translated().filter(|(_, one)| !one.counts());
        let richest = generates.max_by_key(|(_, one)| one.dialect.richness());
        // Where the platform counts tokens in that dialect, they are not estimated.
        let counts = richest.and_then(|(_, generates)| {
            translated().find(|(_, one)| one.counts() && one.dialect == generates.dialect)
        });
        let at = own.or_else(|| counts.or(richest).map(|(at, _)| at))?;
        u8::try_from(at).ok().map(EndpointId)
    }

    /// The endpoint of this number.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(id.0))
    }

    /// The path of the base URL of `account`.
    pub fn base_path_of<'a>(&'a self, account: &'a Account) -> &'a str {
        let own = account.base_path.as_ref();
        own.unwrap_or(&self.base_path).as_str()
    }

    /// The names of the account variables that its templates need, each as often as it is used.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        let paths = self.endpoints.iter().flat_map(|one| one.path.vars());
        let wrappers = self.endpoints.iter().filter_map(|one| one.wrapper.as_ref());
        let wrappers = wrappers.flat_map(Wrapper::vars);
        let vars = self.headers.vars().chain(self.query.vars());
        vars.chain(paths).chain(wrappers)
    }

    /// Returns true if an account of it has things that no other one has.
    pub fn keeps_things(&self) -> bool {
        self.endpoints.iter().any(|one| one.keeps_days.is_some())
    }

    /// Returns true if it may limit one model of an account alone.
    pub fn limits_models(&self) -> bool {
        self.verdicts.iter().any(Rule::limits_models)
    }
}

// === impl HeaderPlan ===

impl TryFrom<RawPlan> for HeaderPlan {
    type Error = InvalidHeader;

    fn try_from(raw: RawPlan) -> Result<Self, InvalidHeader> {
        let set = raw.set.iter().map(|(name, _)| name.as_str());
        let others = raw.default.iter().chain(&raw.add);
        let others = others.map(|(name, _)| name.as_str());
        let allow = raw.allow.iter().map(NamePattern::as_str);
        if set.chain(others).chain(allow).any(is_reserved) {
            return Err(InvalidHeader::Reserved);
        }
        Ok(Self {
            set: raw.set,
            default: raw.default,
            add: raw.add,
            remove: raw.remove,
            allow: raw.allow,
            hide: raw.hide,
            model: raw.model,
        })
    }
}

impl HeaderPlan {
    /// Returns true if a credential goes out in it.
    pub fn has_credential(&self) -> bool {
        self.set
            .iter()
            .any(|(_, template)| template.has_credential())
    }

    /// The names of the account variables that it needs, each as often as it is used.
    pub fn vars(&self) -> impl Iterator<Item = &str> {
        self.set.iter().flat_map(|(_, template)| template.vars())
    }
}

// === impl BasePath ===

impl BasePath {
    /// Returns true if the base URL has no path.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check(text: &str) -> Result<(), InvalidPath> {
        let fits = text.is_empty() || is_plain(text) && !text.ends_with('/');
        fits.then_some(()).ok_or(InvalidPath::Path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{fixture, path::Places};

    #[test]
    fn a_base_path_goes_before_the_endpoints() {
        let mut platform = fixture::platform("codex");
        let mut account = fixture::account("acc_1", "codex");
        let path = |platform: &Platform, account: &Account| {
            let endpoint = &platform.endpoints[0];
            endpoint.path(platform.base_path_of(account), &Places::default(), account)
        };
        let base = |text: &str| BasePath::try_from(text.to_owned()).unwrap();
        assert_eq!(
            path(&platform, &account).unwrap(),
            "/backend-api/codex/responses"
        );
        platform.base_path = base("/a");
        assert_eq!(
            path(&platform, &account).unwrap(),
            "/a/backend-api/codex/responses"
        );
        account.base_path = Some(base(""));
        assert_eq!(
            path(&platform, &account).unwrap(),
            "/backend-api/codex/responses"
        );
        account.base_path = Some(base("/b/c"));
        platform.endpoints[0].root = true;
        assert_eq!(
            path(&platform, &account).unwrap(),
            "/backend-api/codex/responses"
        );
        for bad in ["/", "/a/", "a", "/a/..", "/a?b"] {
            assert!(BasePath::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_plan_frames_or_routes_a_request() {
        let line = serde_json::to_string(&fixture::platform("anthropic")).unwrap();
        for (from, to) in [
            ("x-api-key", "host"),
            ("anthropic-version", "transfer-encoding"),
            ("\"accept\"", "\"content-length\""),
            ("\"accept\"", "\"x-envoy-*\""),
        ] {
            let plan: Result<Platform, _> = serde_json::from_str(&line.replace(from, to));
            assert!(plan.is_err(), "{to}");
        }
    }

    #[test]
    fn an_endpoint_answers_its_dialect_and_operation() {
        let platform = fixture::platform("codex");
        let doors = fixture::doors();
        let at = |id: u16| {
            let door = doors.get(crate::snapshot::DoorId(id)).unwrap();
            platform.endpoint_for(door)
        };
        assert_eq!(at(fixture::RESPONSES), Some(EndpointId(0)));
        assert_eq!(at(fixture::MESSAGES), Some(EndpointId(0)), "translated");
        assert_eq!(at(fixture::NOWHERE), None);
        let mut in_path = doors
            .get(crate::snapshot::DoorId(fixture::RESPONSES))
            .unwrap()
            .clone();
        in_path.path = "/m/{model}".to_owned().try_into().unwrap();
        assert_eq!(
            platform.endpoint_for(&in_path),
            None,
            "the model would be lost"
        );
    }
}
