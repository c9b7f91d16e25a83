//! The HTTP client for a platform's OAuth endpoints, and for a call of our own to its API: TLS to known roots, no
//! redirects followed, every answer bounded in time and size. It repeats nothing: a token call must not leave twice
//! unasked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::answer::Answer;
use super::signed::Signer;
use super::{broken, roots};
use crate::address::Network;
use crate::base_url::{is_loopback, is_private};
use crate::clock::{Clock, SystemClock};
use crate::egress::Proxy;
use crate::guarded::Guarded;
use crate::platform::{Encoding, Profile};

/// From the first byte sent to the last one read.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte sent to an API to the last one read: nobody waits for a call of our own.
const API_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an API's answer that are read: as much as the filter reads of an error.
const API_ANSWER_LIMIT: usize = latchkey::verdict::MAX_BODY_BYTES;
/// Bytes of an answer that are read. A token answer has a few KiB, an HTML error page some tens.
const ANSWER_LIMIT: usize = 256 * 1024;
/// We are nobody else's client (README.md, "Terms").
const USER_AGENT: &str = concat!("latchkey/", env!("CARGO_PKG_VERSION"));
/// The pause that some servers ask for in milliseconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// The reason why there can be no client for a platform.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A token would travel in the clear.
    #[error("{url}: expected https; plain http is for loopback addresses alone")]
    Insecure {
        /// The endpoint.
        url: Url,
    },
    /// No certificates to trust.
    #[error(transparent)]
    Roots(#[from] roots::Error),
    /// The TLS library or the HTTP client refused its settings.
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
}

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent.
    #[error("no connection to {host}: {cause}")]
    NotSent {
        /// The endpoint's host.
        host: String,
        /// The client's own words.
        cause: String,
    },
    /// The request went out, or may have.
    #[error("no answer from {host}: {cause}")]
    Unanswered {
        /// The endpoint's host.
        host: String,
        /// The client's own words.
        cause: String,
    },
}

/// A client for one platform's OAuth endpoints.
#[derive(Debug, Clone)]
pub struct HttpClient(Client);

impl HttpClient {
    /// A client for the platform's endpoints that trusts the profile's `ca_file`, or else what [`roots`] finds.
    ///
    /// # Errors
    /// If an endpoint is plain http and not on a loopback address, or there are no certificates to trust.
    pub fn for_platform(profile: &Profile) -> Result<HttpClient, Error> {
        let endpoints: Vec<&Url> = profile.endpoints().collect();
        let ca_file = profile
            .oauth
            .as_ref()
            .and_then(|oauth| oauth.ca_file.as_deref());
        HttpClient::new(&endpoints, ca_file, profile.upstream.proxy.as_ref())
    }

    /// A client for these endpoints that trusts the certificates in `ca_file`, or else what [`roots`] finds. With `proxy` it
    /// reaches them by that or not at all; without, as the environment says (`HTTPS_PROXY`).
    ///
    /// # Errors
    /// As [`HttpClient::for_platform`].
    pub fn new(
        endpoints: &[&Url],
        ca_file: Option<&Path>,
        proxy: Option<&Proxy>,
    ) -> Result<HttpClient, Error> {
        HttpClient::build(endpoints, ca_file, None, proxy)
    }

    /// A client for an account's API, at `url`. Where that is a base URL of its own, it is in `network`, and the client
    /// connects to no address that is not; a proxy that is the account's connects to what it may.
    ///
    /// # Errors
    /// As [`HttpClient::for_platform`].
    pub fn to_account(
        url: &Url,
        ca_file: Option<&Path>,
        network: Option<Network>,
        proxy: Option<&Proxy>,
    ) -> Result<HttpClient, Error> {
        HttpClient::build(&[url], ca_file, network, proxy)
    }

    fn build(
        endpoints: &[&Url],
        ca_file: Option<&Path>,
        network: Option<Network>,
        proxy: Option<&Proxy>,
    ) -> Result<HttpClient, Error> {
        let is_plain =
            |url: &Url| is_loopback(url) || (network == Some(Network::Own) && is_private(url));
        if let Some(url) = endpoints
            .iter()
            .find(|url| url.scheme() != "https" && !is_plain(url))
        {
            return Err(Error::Insecure {
                url: (*url).clone(),
            });
        }
        let mut encrypted = endpoints.iter().any(|url| url.scheme() == "https");
        encrypted |= proxy.is_some_and(|proxy| proxy.tls);
        let roots = if encrypted {
            roots::roots(ca_file, |name| std::env::var_os(name))?
        } else {
            RootCertStore::empty()
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Setup(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A token call that meets a connection closed by the server would go unanswered for nothing.
            .pool_max_idle_per_host(0)
            .user_agent(USER_AGENT);
        let setup = |error: reqwest::Error| Error::Setup(error.without_url().to_string());
        if let Some(proxy) = proxy {
            // The environment's exceptions (`NO_PROXY`) are for the environment's proxy.
            let proxy = reqwest::Proxy::all(proxy.exposed()).map_err(setup)?;
            builder = builder.no_proxy().proxy(proxy);
        } else if !may_use_environments_proxy(endpoints, network) {
            builder = builder.no_proxy();
        }
        if let (Some(network), None) = (network, proxy) {
            builder = builder.dns_resolver(Arc::new(Guarded::new(network)));
        }
        builder.build().map(HttpClient).map_err(setup)
    }

    /// Sends a request, once.
    ///
    /// # Errors
    /// If no answer came; the error tells a request that may have gone out from one that did not.
    pub async fn send(&self, request: &Request) -> Result<Answer, CallError> {
        let fields: Vec<(&str, &str)> = request.exposed().collect();
        let post = || self.0.post(request.url.clone());
        let asked = match (&request.signer, request.encoding) {
            (Some(signer), _) => {
                let url = with_query(&request.url, &fields);
                let now = SystemClock.now();
                let authorization = signer.authorization("GET", &url, now);
                self.0
                    .get(url)
                    .header(AUTHORIZATION, authorization.expose_secret())
            }
            (None, Encoding::Query) => self.0.post(with_query(&request.url, &fields)),
            (None, Encoding::Form) => post().form(&fields),
            (None, Encoding::Json) => post().json(&fields.into_iter().collect::<BTreeMap<_, _>>()),
        };
        call(&request.url, asked).await
    }

    /// Asks an API, once.
    ///
    /// # Errors
    /// If no answer came.
    pub async fn ask(&self, request: ApiRequest) -> Result<ApiAnswer, CallError> {
        let ApiRequest {
            method,
            url,
            headers,
            body,
        } = request;
        let ask = self.0.request(method, url.clone()).headers(headers);
        let ask = body.into_iter().fold(ask, RequestBuilder::body);
        let mut response = sent(&url, ask.timeout(API_TIMEOUT)).await?;
        let (body, is_whole) = read(&mut response, API_ANSWER_LIMIT).await;
        let headers = response.headers().iter();
        Ok(ApiAnswer {
            status: response.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect(),
            body,
            is_whole,
        })
    }
}

/// A request to a platform's API. Its headers, and perhaps its URL, hold a credential, so it does not print them.
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// Every header, but for those of the HTTP client itself.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<String>,
}

impl fmt::Debug for ApiRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ApiRequest");
        shown.field("host", &self.url.host_str());
        shown.finish_non_exhaustive()
    }
}

/// An API's answer. Its body may repeat the credential, so it does not print it.
pub struct ApiAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The beginning of the body.
    pub body: Zeroizing<Vec<u8>>,
    /// True if that is all of the body.
    pub is_whole: bool,
}

impl fmt::Debug for ApiAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ApiAnswer");
        shown.field("status", &self.status);
        shown.finish_non_exhaustive()
    }
}

/// A request to an OAuth endpoint. Its fields may be secrets, so it does not print them.
#[derive(Clone)]
pub struct Request {
    /// The endpoint.
    pub url: Url,
    encoding: Encoding,
    /// The signer, if it is signed.
    signer: Option<Signer>,
    fields: Vec<(String, SecretString)>,
}

impl Request {
    /// A request without fields.
    pub fn new(url: &Url, encoding: Encoding) -> Request {
        Request {
            url: url.clone(),
            encoding,
            signer: None,
            fields: Vec::new(),
        }
    }

    /// A request without fields that `signer` signs.
    pub fn signed(url: &Url, signer: Signer) -> Request {
        Request {
            signer: Some(signer),
            ..Request::new(url, Encoding::Query)
        }
    }

    /// Adds a field, in place of one that has the name.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<SecretString>) -> Request {
        self.fields.retain(|(known, _)| known != name);
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a field unless one has the name.
    #[must_use]
    pub fn unless_given(self, name: &str, value: &str) -> Request {
        if self.fields.iter().any(|(known, _)| known == name) {
            return self;
        }
        self.field(name, value)
    }

    /// The fields in the clear.
    pub fn exposed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Request")
            .field("host", &self.url.host_str())
            .field("fields", &names)
            .finish_non_exhaustive()
    }
}

/// The URL with these fields in its query.
fn with_query(url: &Url, fields: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    if !fields.is_empty() {
        url.query_pairs_mut().extend_pairs(fields);
    }
    url
}

async fn call(url: &Url, request: RequestBuilder) -> Result<Answer, CallError> {
    let mut response = sent(url, request.header(ACCEPT, "application/json")).await?;
    let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
    // A body cut short stays as it is: where it mattered, it will not parse.
    let (body, _) = read(&mut response, ANSWER_LIMIT).await;
    Ok(Answer {
        status,
        retry_after,
        body,
    })
}

/// The beginning of the answer to a request.
async fn sent(url: &Url, request: RequestBuilder) -> Result<Response, CallError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    request.send().await.map_err(|error| {
        let cause = broken::in_words(&error);
        // A timeout while connecting counts as connect.
        if error.is_connect() || error.is_builder() {
            CallError::NotSent { host, cause }
        } else {
            CallError::Unanswered { host, cause }
        }
    })
}

/// At most `limit` bytes of a body; true if that is all of it.
async fn read(response: &mut Response, limit: usize) -> (Zeroizing<Vec<u8>>, bool) {
    let mut body = Zeroizing::new(Vec::new());
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return (body, true),
            Err(_) => return (body, false),
        };
        let room = limit - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() >= room {
            return (body, false);
        }
    }
}

/// The pause that a server asks for: `retry-after-ms`, which says it exactly, or else `Retry-After` in either of its forms
/// (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim());
    let exact = text(RETRY_AFTER_MS).and_then(|value| value.parse().ok());
    if let Some(milliseconds) = exact {
        return Some(Duration::from_millis(milliseconds));
    }
    let value = text(RETRY_AFTER)?;
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
            date.duration_since(Timestamp::now()).try_into().ok()
        }
    }
}

/// True where the environment may name a proxy to leave by (`HTTPS_PROXY`): nothing goes there in the clear, for the proxy
/// would read a token then.
fn may_use_environments_proxy(endpoints: &[&Url], network: Option<Network>) -> bool {
    let is_plain = endpoints.iter().any(|url| url.scheme() != "https");
    // A proxy would connect where nobody checks, and its own name is none of an account's.
    network.is_none() && !is_plain && !endpoints.iter().all(|url| is_loopback(url))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use reqwest::header::HeaderValue;

    use super::*;

    fn client(token_url: &str, ca_file: Option<&Path>) -> Result<HttpClient, Error> {
        HttpClient::new(&[&token_url.parse().unwrap()], ca_file, None)
    }

    #[test]
    fn nothing_goes_to_the_environments_proxy_in_the_clear() {
        let may = |urls: &[&str], network| {
            let urls: Vec<Url> = urls.iter().map(|url| url.parse().unwrap()).collect();
            may_use_environments_proxy(&urls.iter().collect::<Vec<_>>(), network)
        };
        let (far, plain, near) = (
            "https://auth.example.com/token",
            "http://127.0.0.1:1/token",
            "https://127.0.0.1:1/token",
        );
        assert!(may(&[far], None) && may(&[far, near], None));
        for refused in [&[plain][..], &[near], &[far, plain]] {
            assert!(!may(refused, None), "{refused:?}");
        }
        assert!(!may(&[far], Some(Network::Public)));
    }

    #[test]
    fn plain_http_is_for_loopback() {
        for url in [
            "http://127.0.0.1:1/token",
            "http://[::1]:1/token",
            "http://localhost:1/token",
        ] {
            client(url, None).unwrap();
        }
        for url in [
            "http://auth.example.com/token",
            "http://127.0.0.1.example.com/",
            "http://10.0.0.1/",
        ] {
            assert!(
                matches!(client(url, None), Err(Error::Insecure { .. })),
                "{url}"
            );
        }
    }

    #[test]
    fn roots_that_are_none_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        fs::write(&path, "no certificate").unwrap();
        for path in [path, folder.path().join("missing.pem")] {
            let message = client("https://auth.example.com/token", Some(&path))
                .unwrap_err()
                .to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
        }
    }

    #[test]
    fn retry_after_is_milliseconds_seconds_or_a_date() {
        let read = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        let soon = Timestamp::now() + Duration::from_secs(90);
        let soon = rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&soon)
            .unwrap();
        let read_back = read(&soon).unwrap().as_secs();
        assert!((80..=90).contains(&read_back), "{read_back}");
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(read("-1"), None);
        assert_eq!(read("soon"), None);
        let both = |exact: &'static str| {
            let seconds = (RETRY_AFTER, HeaderValue::from_static("7"));
            let exact = (RETRY_AFTER_MS, HeaderValue::from_static(exact));
            retry_after(&HeaderMap::from_iter([seconds, exact]))
        };
        assert_eq!(both("6400"), Some(Duration::from_millis(6_400)));
        assert_eq!(both("soon"), Some(Duration::from_secs(7)));
    }
}
