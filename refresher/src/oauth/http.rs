//! The HTTP client for a platform's OAuth endpoints: TLS to known roots, no redirects followed, every answer bounded in
//! time and size. It repeats nothing: a token call must not leave twice unasked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use zeroize::Zeroizing;

use crate::oauth::answer::Answer;
use crate::platform::OAuth;

/// From the first byte sent to the last one read.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read. A token answer has a few KiB, an HTML error page some tens.
const ANSWER_LIMIT: usize = 256 * 1024;
/// We are nobody else's client (README.md, "Terms and limits").
const USER_AGENT: &str = concat!("latchkey/", env!("CARGO_PKG_VERSION"));
/// Where systems keep their root certificates: Debian, Fedora, Alpine and macOS.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why there can be no client for a platform.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A token would travel in the clear.
    #[error("{url}: expected https; plain http is for loopback addresses alone")]
    Insecure {
        /// The endpoint.
        url: Url,
    },
    /// No certificates to trust.
    #[error("no bundle of root certificates at {}; install one (ca-certificates), or name a file as [oauth] ca_file or SSL_CERT_FILE", SYSTEM_BUNDLES.join(", "))]
    NoRoots,
    /// The file of certificates cannot be used.
    #[error("{}: expected PEM certificates to trust: {problem}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
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
        /// What the client said.
        cause: String,
    },
    /// The request went out, or may have.
    #[error("no answer from {host}: {cause}")]
    Unanswered {
        /// The endpoint's host.
        host: String,
        /// What the client said.
        cause: String,
    },
}

/// A client for one platform's OAuth endpoints.
#[derive(Debug, Clone)]
pub struct HttpClient(Client);

impl HttpClient {
    /// A client that trusts the profile's `ca_file`, or else the system's roots.
    ///
    /// # Errors
    /// If an endpoint is plain http and not on a loopback address, or there are no certificates to trust.
    pub fn for_platform(oauth: &OAuth) -> Result<HttpClient, Error> {
        let endpoints = [
            Some(&oauth.authorize_url),
            Some(&oauth.token_url),
            oauth.revoke_url.as_ref(),
        ];
        let endpoints: Vec<&Url> = endpoints.into_iter().flatten().collect();
        if let Some(url) = endpoints
            .iter()
            .find(|url| url.scheme() != "https" && !is_loopback(url))
        {
            return Err(Error::Insecure {
                url: (*url).clone(),
            });
        }
        let encrypted = endpoints.iter().any(|url| url.scheme() == "https");
        let roots = if encrypted {
            roots(oauth.ca_file.as_deref())?
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
        if endpoints.iter().all(|url| is_loopback(url)) {
            builder = builder.no_proxy();
        }
        builder
            .build()
            .map(HttpClient)
            .map_err(|error| Error::Setup(error.without_url().to_string()))
    }

    /// Posts `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// If no answer came; whether the request may have gone out is in the error.
    pub async fn post_form(&self, url: &Url, fields: &impl Serialize) -> Result<Answer, CallError> {
        call(url, self.0.post(url.clone()).form(fields)).await
    }

    /// Posts `application/json`.
    ///
    /// # Errors
    /// If no answer came; whether the request may have gone out is in the error.
    pub async fn post_json(&self, url: &Url, fields: &impl Serialize) -> Result<Answer, CallError> {
        call(url, self.0.post(url.clone()).json(fields)).await
    }
}

async fn call(url: &Url, request: RequestBuilder) -> Result<Answer, CallError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut response = request
        .header(ACCEPT, "application/json")
        .send()
        .await
        .map_err(|error| {
            let cause = innermost(&error);
            // A timeout while connecting counts as connect.
            if error.is_connect() || error.is_builder() {
                CallError::NotSent { host, cause }
            } else {
                CallError::Unanswered { host, cause }
            }
        })?;
    let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
    let mut body = Zeroizing::new(Vec::new());
    // A body cut short stays as it is: where it mattered, it will not parse.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_LIMIT - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() >= room {
            break;
        }
    }
    Ok(Answer {
        status,
        retry_after,
        body,
    })
}

/// The root of an error's causes: the operating system's or the TLS library's words. The outer ones repeat the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// `Retry-After` in either of its forms (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => (OffsetDateTime::parse(value, &Rfc2822).ok()? - OffsetDateTime::now_utc())
            .try_into()
            .ok(),
    }
}

/// Whether the URL's host is a loopback address or `localhost`.
fn is_loopback(url: &Url) -> bool {
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Error> {
    let named = ca_file
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    let system = || {
        SYSTEM_BUNDLES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    };
    let path = named.or_else(system).ok_or(Error::NoRoots)?;
    let problem = |problem: String| Error::Roots {
        path: path.clone(),
        problem,
    };
    let certificates = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| problem(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold a certificate that this library cannot read; one that it can is enough.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(problem("found none".into()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use reqwest::header::HeaderValue;

    use super::*;
    use crate::login::code::example;

    fn client(token_url: &str, ca_file: Option<PathBuf>) -> Result<HttpClient, Error> {
        HttpClient::for_platform(&OAuth {
            token_url: token_url.parse().unwrap(),
            ca_file,
            ..example()
        })
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
            let message = client("https://auth.example.com/token", Some(path.clone()))
                .unwrap_err()
                .to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        let soon = (OffsetDateTime::now_utc() + Duration::from_secs(90))
            .format(&Rfc2822)
            .unwrap();
        let read_back = read(&soon.replace("+0000", "GMT")).unwrap().as_secs();
        assert!((80..=90).contains(&read_back), "{read_back}");
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(read("-1"), None);
        assert_eq!(read("soon"), None);
    }
}
