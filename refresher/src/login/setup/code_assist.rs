//! Google's Code Assist: each request names the Google Cloud project that an account works in.
//!
//! `loadCodeAssist` tells an account's tier and project. One that has no tier yet gets its default one by `onboardUser`,
//! which is a long-running operation. The steps are those of Google's own Gemini CLI; who asks is told as unspecified.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::oauth::claims;
use crate::oauth::http::{self, ApiRequest, CallError, HttpClient};
use crate::platform::Profile;

const LOAD: &str = "v1internal:loadCodeAssist";
const ONBOARD: &str = "v1internal:onboardUser";
/// Stands before the name of an operation.
const OPERATIONS: &str = "v1internal/";
/// The pause between two looks at an operation.
const POLL: Duration = Duration::from_secs(5);
/// The longest that an account may take to be set up.
const LIMIT: Duration = Duration::from_secs(120);
/// The tier of an account to which the platform offers none: it works in a project of its own.
const NO_TIER: &str = "legacy-tier";
/// The tier whose project is the platform's: a request that names one is refused.
const FREE_TIER: &str = "free-tier";
/// The reason that a person can do something about, at an address.
const VALIDATION: &str = "VALIDATION_REQUIRED";
/// The longest name of an operation, in bytes.
const MAX_OPERATION: usize = 256;
/// The longest id of a project, in bytes: theirs have 30 characters, and may have a domain before them.
const MAX_PROJECT: usize = 128;
/// The words for what an operator says of an account.
pub const A_PROJECT: &str = "the id of a Google Cloud project";
/// The most of the platform's own words that are repeated, in characters; and the most tiers.
const MAX_WORDS: usize = 300;
const MAX_TIERS: usize = 4;
/// The longest address that a person is sent to, in bytes. A longer one is none: cut, it leads elsewhere.
const MAX_ADDRESS: usize = 1_024;

/// The reason why an account has no project.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There can be no client for the platform.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The platform said no.
    #[error("the platform refused {call} (HTTP {status}{why}); nothing was saved")]
    Refused {
        /// The call.
        call: &'static str,
        /// The status.
        status: u16,
        /// Its own words, behind a comma; empty where it has none.
        why: String,
    },
    /// The answer is something else.
    #[error(
        "expected JSON with the documented fields as the answer of {0}, found another; nothing was saved"
    )]
    Malformed(&'static str),
    /// The account may have none of the platform's tiers.
    #[error("the platform does not take this account: {0}; nothing was saved")]
    Ineligible(String),
    /// A person has to do something first.
    #[error(
        "the platform wants this account validated first: open {url} in a browser, then log in again ({reason})"
    )]
    Validation {
        /// The address.
        url: String,
        /// Its own words.
        reason: String,
    },
    /// The account works in a project of its own, and nobody said which.
    #[error(
        "expected the Google Cloud project in which this account works, as the platform names none; \
         nothing was saved"
    )]
    NoProject,
    /// The operation did not end.
    #[error("the platform did not set the account up within {} seconds; nothing was saved", LIMIT.as_secs())]
    TimedOut,
}

impl From<Error> for super::Error {
    fn from(error: Error) -> super::Error {
        match error {
            Error::Http(error) => super::Error::Http(error),
            Error::NoProject => super::Error::NotSaid(error.to_string()),
            error => super::Error::Refused(error.to_string()),
        }
    }
}

/// The next step towards a project.
#[derive(Debug, PartialEq)]
enum Next {
    /// The account has this project.
    Project(String),
    /// The account gets a tier by this request.
    Onboard(Value),
    /// The operation of this name goes on.
    Wait(String),
}

/// The project of the account that `access` is of. `given`: the one that its operator says; it goes before what the platform
/// tells, except in the tier whose project is the platform's.
///
/// # Errors
/// If there is none, and why.
pub async fn project(
    profile: &Profile,
    access: &SecretString,
    given: Option<&str>,
) -> Result<String, Error> {
    let api = Api::new(profile, access)?;
    let found = async {
        let loaded = api.post(LOAD, &load(given)).await?;
        let mut next = loaded_says(&loaded, given)?;
        let mut given = given;
        loop {
            next = match next {
                Next::Project(project) => return Ok(project),
                Next::Onboard(body) => {
                    given = allowed(body["tierId"].as_str(), given);
                    let operation = api.post(ONBOARD, &body).await?;
                    operation_says(&operation, &loaded, given)?
                }
                Next::Wait(name) => {
                    sleep(POLL).await;
                    let operation = api.operation(&name).await?;
                    operation_says(&operation, &loaded, given)?
                }
            };
        }
    };
    timeout(LIMIT, found).await.map_err(|_| Error::TimedOut)?
}

/// True for a text that could be the id of a project, and that a request can carry.
pub fn is_project(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (1..=MAX_PROJECT).contains(&text.len()) && text.bytes().all(legal)
}

/// The platform's API, as one account.
struct Api {
    http: HttpClient,
    base: String,
    headers: HeaderMap,
}

impl Api {
    fn new(profile: &Profile, access: &SecretString) -> Result<Api, Error> {
        let upstream = &profile.upstream;
        let base = upstream.url.as_str().trim_end_matches('/').to_owned();
        let url = Url::parse(&base).map_err(|_| Error::Malformed(LOAD))?;
        let ca_file = upstream.ca_file.as_deref();
        let http = HttpClient::to_account(&url, ca_file, None, upstream.proxy.as_ref())?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // An access token fits into a header: it was checked when it was granted.
        if let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {}", access.expose_secret()))
        {
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(Api {
            http,
            base,
            headers,
        })
    }

    async fn post(&self, call: &'static str, body: &Value) -> Result<Value, Error> {
        self.ask(Method::POST, call, call, Some(body.to_string()))
            .await
    }

    async fn operation(&self, name: &str) -> Result<Value, Error> {
        let path = format!("{OPERATIONS}{name}");
        self.ask(Method::GET, &path, ONBOARD, None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        call: &'static str,
        body: Option<String>,
    ) -> Result<Value, Error> {
        let call = call.rsplit(':').next().unwrap_or(call);
        let url = Url::parse(&format!("{}/{path}", self.base));
        let request = ApiRequest {
            method,
            url: url.map_err(|_| Error::Malformed(call))?,
            headers: self.headers.clone(),
            body,
        };
        let answer = self.http.ask(request).await?;
        let read = serde_json::from_slice(&answer.body).ok();
        match (answer.status, read) {
            (200..=299, Some(Value::Object(members))) => Ok(Value::Object(members)),
            (200..=299, _) => Err(Error::Malformed(call)),
            (status, read) => Err(refused(call, status, &read.unwrap_or_default())),
        }
    }
}

/// A refusal, in the platform's own words where they are there.
fn refused(call: &'static str, status: u16, body: &Value) -> Error {
    let error = body.pointer("/0/error").unwrap_or(&body["error"]);
    let mut details = error["details"].as_array().into_iter().flatten();
    let reason = details.clone().find_map(|detail| words(&detail["reason"]));
    let links = ["/links/0/url", "/metadata/validation_url"];
    let link = |detail: &Value| links.iter().find_map(|at| address(detail.pointer(at)?));
    let message = words(&error["message"]);
    match (reason.as_deref(), details.find_map(link)) {
        (Some(VALIDATION), Some(url)) => Error::Validation {
            url,
            reason: message.unwrap_or_else(|| VALIDATION.to_owned()),
        },
        _ => {
            let told = [reason.or_else(|| words(&error["status"])), message];
            let why = told.into_iter().flatten().map(|text| format!(", {text}"));
            Error::Refused {
                call,
                status,
                why: why.collect(),
            }
        }
    }
}

/// A text of the platform's that a person may see: one line of ASCII, and short.
fn words(value: &Value) -> Option<String> {
    let shown = |char: char| match char {
        _ if char.is_whitespace() => ' ',
        _ if char.is_ascii_graphic() => char,
        _ => '?',
    };
    let text: String = value.as_str()?.chars().take(MAX_WORDS).map(shown).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// An address of the platform's that a person may be sent to.
fn address(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let is_whole = text.len() <= MAX_ADDRESS && text.bytes().all(|byte| byte.is_ascii_graphic());
    let url = Url::parse(text).ok().filter(|_| is_whole)?;
    let names_nobody = url.username().is_empty() && url.password().is_none();
    (url.scheme() == "https" && names_nobody).then(|| text.to_owned())
}

fn metadata(project: Option<&str>) -> Value {
    let mut metadata = json!({
        "ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "PLUGIN_UNSPECIFIED",
    });
    if let Some(project) = project {
        metadata["duetProject"] = project.into();
    }
    metadata
}

fn load(given: Option<&str>) -> Value {
    let mut body = json!({"metadata": metadata(given)});
    if let Some(project) = given {
        body["cloudaicompanionProject"] = project.into();
    }
    body
}

/// The operator's project, where an account of this tier may have one.
fn allowed<'a>(tier: Option<&str>, given: Option<&'a str>) -> Option<&'a str> {
    given.filter(|_| tier != Some(FREE_TIER))
}

/// Returns what the answer of `loadCodeAssist` says.
fn loaded_says(loaded: &Value, given: Option<&str>) -> Result<Next, Error> {
    if loaded["currentTier"].is_object() {
        let own = allowed(loaded["currentTier"]["id"].as_str(), given).map(str::to_owned);
        let project = own.or_else(|| claims::text(&loaded["cloudaicompanionProject"]));
        return project.map(Next::Project).ok_or_else(|| no_project(loaded));
    }
    let mut validations =
        ineligible(loaded).filter(|tier| tier["reasonCode"].as_str() == Some(VALIDATION));
    let place = |tier: &Value| {
        Some((
            address(&tier["validationUrl"])?,
            words(&tier["reasonMessage"]),
        ))
    };
    if let Some((url, reason)) = validations.find_map(place) {
        let reason = reason.unwrap_or_else(|| VALIDATION.to_owned());
        return Err(Error::Validation { url, reason });
    }
    let mut tiers = loaded["allowedTiers"].as_array().into_iter().flatten();
    let tier = tiers.find(|tier| tier["isDefault"].as_bool() == Some(true));
    let id = tier.and_then(|tier| claims::text(&tier["id"]));
    let own =
        tier.is_none_or(|tier| tier["userDefinedCloudaicompanionProject"].as_bool() == Some(true));
    let id = id.unwrap_or_else(|| NO_TIER.to_owned());
    let project = allowed(Some(&id), given);
    if own && project.is_none() && id != FREE_TIER {
        return Err(no_project(loaded));
    }
    let mut body = json!({"tierId": id, "metadata": metadata(project)});
    if let Some(project) = project {
        body["cloudaicompanionProject"] = project.into();
    }
    Ok(Next::Onboard(body))
}

/// Returns what the state of the operation that sets an account up says.
fn operation_says(operation: &Value, loaded: &Value, given: Option<&str>) -> Result<Next, Error> {
    if operation["done"].as_bool() != Some(true) {
        let name = operation["name"].as_str().unwrap_or_default();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/.".contains(&byte);
        let is_name = (1..=MAX_OPERATION).contains(&name.len())
            && name.bytes().all(legal)
            && !name.starts_with('/')
            && !name.contains("..");
        return match is_name {
            true => Ok(Next::Wait(name.to_owned())),
            false => Err(Error::Malformed("onboardUser")),
        };
    }
    if operation["error"].is_object() {
        return Err(refused("onboardUser", 200, operation));
    }
    let told = operation.pointer("/response/cloudaicompanionProject/id");
    let own = given.map(str::to_owned);
    let project = own.or_else(|| claims::text(told?));
    project.map(Next::Project).ok_or_else(|| no_project(loaded))
}

fn ineligible(loaded: &Value) -> impl Iterator<Item = &Value> {
    loaded["ineligibleTiers"].as_array().into_iter().flatten()
}

/// Says why an account has no project, by what the platform told of it.
fn no_project(loaded: &Value) -> Error {
    let reason = |tier: &Value| {
        let code = words(&tier["reasonCode"])?;
        Some(match words(&tier["reasonMessage"]) {
            Some(message) => format!("{code}: {message}"),
            None => code,
        })
    };
    let reasons: Vec<String> = ineligible(loaded)
        .filter_map(reason)
        .take(MAX_TIERS)
        .collect();
    match reasons.is_empty() {
        true => Error::NoProject,
        false => Error::Ineligible(reasons.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(loaded: &Value, given: Option<&str>) -> String {
        match loaded_says(loaded, given) {
            Ok(Next::Project(project)) => format!("project {project}"),
            Ok(Next::Onboard(body)) => body.to_string(),
            Ok(Next::Wait(name)) => panic!("{name}"),
            Err(error) => error.to_string(),
        }
    }

    fn project_of(next: Result<Next, Error>) -> Option<String> {
        match next {
            Ok(Next::Project(project)) => Some(project),
            _ => None,
        }
    }

    #[test]
    fn an_account_with_a_tier_has_its_project_or_the_given_one() {
        let tier = json!({"id": "standard-tier"});
        let told = json!({"currentTier": tier, "cloudaicompanionProject": "proj-1"});
        assert_eq!(says(&told, None), "project proj-1");
        assert_eq!(says(&told, Some("mine")), "project mine");
        let untold = json!({"currentTier": tier});
        assert_eq!(says(&untold, Some("mine")), "project mine");
        assert!(says(&untold, None).contains("names none"));
        for odd in ["a\r\nb: c".to_owned(), "p".repeat(2_000)] {
            let odd = json!({"currentTier": tier, "cloudaicompanionProject": odd});
            assert!(says(&odd, None).contains("names none"));
        }
        // The platform refuses another project there.
        let free = json!({"currentTier": {"id": "free-tier"}, "cloudaicompanionProject": "proj-1"});
        assert_eq!(says(&free, Some("mine")), "project proj-1");
    }

    #[test]
    fn an_account_without_a_tier_gets_its_default_one() {
        let metadata = |project: Option<&str>| metadata(project);
        let standard = json!({"id": "standard-tier", "isDefault": true, "userDefinedCloudaicompanionProject": true});
        let free = json!({"id": "free-tier", "isDefault": true});
        let body = |loaded: Value, given| -> Value {
            serde_json::from_str(&says(&loaded, given)).unwrap()
        };
        let expected = json!({
            "tierId": "standard-tier", "cloudaicompanionProject": "mine", "metadata": metadata(Some("mine")),
        });
        assert_eq!(
            body(
                json!({"allowedTiers": [{"id": "x"}, standard]}),
                Some("mine")
            ),
            expected
        );
        // The platform refuses a project there.
        let expected = json!({"tierId": "free-tier", "metadata": metadata(None)});
        assert_eq!(
            body(json!({"allowedTiers": [free]}), Some("mine")),
            expected
        );
        assert_eq!(body(json!({}), Some("mine"))["tierId"], "legacy-tier");
        assert!(says(&json!({"allowedTiers": [standard]}), None).contains("names none"));
        assert!(says(&json!({}), None).contains("names none"));
    }

    #[test]
    fn an_account_that_is_not_taken_is_told_why() {
        let loaded = json!({"ineligibleTiers": [
            {"tierId": "free-tier", "reasonCode": "UNSUPPORTED_CLIENT", "reasonMessage": "This client is no longer supported."},
            {"reasonCode": "DASHER_USER", "reasonMessage": "x".repeat(2_000)},
        ]});
        let told = says(&loaded, None);
        assert!(
            told.contains("UNSUPPORTED_CLIENT: This client is no longer supported.; DASHER_USER"),
            "{told}"
        );
        assert!(told.len() < 1_000);
        let loaded = json!({"ineligibleTiers": [
            {"reasonCode": "VALIDATION_REQUIRED", "reasonMessage": "Verify it.", "validationUrl": "https://accounts.example/v"},
        ]});
        for given in [None, Some("mine")] {
            let told = says(&loaded, given);
            assert!(
                told.contains("open https://accounts.example/v") && told.contains("Verify it."),
                "{told}"
            );
        }
        let body = json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "Validate.", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "VALIDATION_REQUIRED", "domain": "cloudcode-pa.googleapis.com"},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"description": "x", "url": "https://accounts.example/v"}]},
        ]}});
        let told = refused("loadCodeAssist", 403, &body).to_string();
        assert!(told.contains("open https://accounts.example/v"), "{told}");
        let body =
            json!([{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "No."}}]);
        let told = refused("loadCodeAssist", 403, &body).to_string();
        assert!(told.contains("HTTP 403, PERMISSION_DENIED, No."), "{told}");
    }

    #[test]
    fn an_address_is_told_whole_or_not_at_all() {
        // As long as real ones are.
        let long = format!("https://accounts.example/v?plt={}", "x".repeat(285));
        assert_eq!(long.len(), 316);
        let by_tier = |url: &str| {
            let tier = json!({"reasonCode": "VALIDATION_REQUIRED", "reasonMessage": "Verify\nit.", "validationUrl": url});
            says(&json!({"ineligibleTiers": [tier]}), None)
        };
        let by_refusal = |detail: Value| {
            let info = json!({"reason": "VALIDATION_REQUIRED"});
            let error = json!({"message": "Verify\nit.", "details": [info, detail]});
            refused("loadCodeAssist", 403, &json!({"error": error})).to_string()
        };
        let all = |url: &str| {
            [
                by_tier(url),
                by_refusal(json!({"links": [{"url": url}]})),
                by_refusal(json!({"reason": "x", "metadata": {"validation_url": url}})),
            ]
        };
        for told in all(&long) {
            assert!(
                told.contains(&format!("open {long} in a browser")),
                "{told}"
            );
            assert!(told.contains("(Verify it.)"), "{told}");
        }
        let endless = format!("https://accounts.example/{}", "x".repeat(MAX_ADDRESS));
        for odd in [
            "http://accounts.example/v",
            "file:///etc/passwd",
            "javascript:x",
            "https://a b/",
            "https://",
            "https://a@b/",
            &endless,
        ] {
            for told in all(odd) {
                assert!(!told.contains("open ") && !told.contains(odd), "{told}");
                assert!(
                    told.contains("VALIDATION_REQUIRED") && told.contains("Verify it."),
                    "{told}"
                );
            }
        }
    }

    #[test]
    fn an_operation_is_waited_for_by_a_name_that_is_one() {
        let says = |operation: Value, given| operation_says(&operation, &json!({}), given);
        let wait = says(json!({"name": "operations/a-1_b.c"}), None).unwrap();
        assert_eq!(wait, Next::Wait("operations/a-1_b.c".to_owned()));
        for name in [
            "",
            "/etc",
            "a/../b",
            "a?b",
            "a:b",
            "a b",
            &"a".repeat(MAX_OPERATION + 1),
        ] {
            let refused = says(json!({"name": name, "done": false}), None);
            assert!(matches!(refused, Err(Error::Malformed(_))), "{name}");
        }
        let done = json!({"name": "x", "done": true, "response": {"cloudaicompanionProject": {"id": "proj-2"}}});
        assert_eq!(
            project_of(says(done, Some("mine"))).as_deref(),
            Some("mine")
        );
        let done = json!({"done": true, "response": {"cloudaicompanionProject": {"id": "proj-2"}}});
        assert_eq!(project_of(says(done, None)).as_deref(), Some("proj-2"));
        let done = json!({"done": true, "response": {}});
        assert_eq!(
            project_of(says(done.clone(), Some("mine"))).as_deref(),
            Some("mine")
        );
        assert!(matches!(says(done, None), Err(Error::NoProject)));
        let failed = json!({"done": true, "error": {"code": 9, "message": "Precondition"}});
        assert!(matches!(
            says(failed, Some("mine")),
            Err(Error::Refused { .. })
        ));
    }
}
