//! A proxy by which connections to a platform leave: those of one account, or of all that a profile is about.
//!
//! It is asked for a tunnel (HTTP CONNECT, RFC 9110 §9.3.6), and TLS to the platform goes through that. So it learns the
//! host's name and no credential of an account. Who has a proxy is reached by it or not at all.

use std::fmt;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use zeroize::Zeroizing;

use crate::address::Network;
use crate::base_url::Host;

/// The longest URL of a proxy, in bytes: a host name, a user and a password of some hundred characters each.
const MAX_URL_BYTES: usize = 1024;

/// A proxy that was checked. Printed, it has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Zeroizing<String>,
    /// True if the proxy is spoken to over TLS: `https`.
    pub tls: bool,
    /// The name or address to connect to.
    pub host: Host,
    /// The port, also where the URL leaves it out.
    pub port: u16,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
}

/// The fault of a proxy's URL. It repeats nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidProxy(String);

impl Proxy {
    /// Reads `http://user:password@host:port`, or `https` for a proxy that is spoken to over TLS. `password` is that of a
    /// user whose password the URL leaves out.
    ///
    /// # Errors
    /// If it is none, or Envoy cannot speak to such a proxy.
    pub fn parse(text: &str, password: Option<&str>) -> Result<Proxy, InvalidProxy> {
        let invalid = |problem: &str| Err(InvalidProxy(problem.to_owned()));
        if text.len() > MAX_URL_BYTES {
            return invalid("expected the URL of a proxy, of at most 1024 bytes");
        }
        let Ok(mut url) = Url::parse(text) else {
            return invalid("expected the URL of a proxy, like http://user@proxy.example.com:3128");
        };
        if url.scheme().starts_with("socks") {
            return invalid(
                "expected a proxy that is asked by HTTP CONNECT, like http://proxy.example.com:3128: Envoy speaks no SOCKS",
            );
        }
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return invalid("expected a URL that begins with http:// or https://, and a host");
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return invalid(
                "expected a proxy's host and port, found a path, a query or a fragment behind them",
            );
        }
        if let (false, None, Some(password)) = (url.username().is_empty(), url.password(), password)
            && url.set_password(Some(password)).is_err()
        {
            return invalid("expected a proxy that takes a password");
        }
        let user = decoded(url.username())?.filter(|user| !user.is_empty());
        let password = decoded(url.password().unwrap_or_default())?.map(Zeroizing::new);
        let password = password.filter(|password| !password.is_empty());
        if user.is_none() && password.is_some()
            || user.as_ref().is_some_and(|user| user.contains(':'))
        {
            return invalid(
                "expected a user before the proxy's password, and no colon in the user's name",
            );
        }
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse().ok();
        if address.is_some_and(|address| Network::Own.check(address).is_err()) {
            return invalid(
                "expected the address of a proxy, found one that is link-local, multicast or unspecified",
            );
        }
        Ok(Proxy {
            tls: url.scheme() == "https",
            host: address.map_or_else(|| Host::Name(host.to_owned()), Host::Address),
            port: url.port_or_known_default().unwrap_or_default(),
            user,
            password,
            url: Zeroizing::new(url.into()),
        })
    }

    /// The URL with the password in it, as [`Proxy::parse`] reads it.
    pub fn exposed(&self) -> &str {
        &self.url
    }

    /// The URL without anybody's name.
    pub fn server(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let port = self.port;
        match &self.host {
            Host::Address(address) if address.is_ipv6() => format!("{scheme}://[{address}]:{port}"),
            host => format!("{scheme}://{host}:{port}"),
        }
    }

    /// The value of `proxy-authorization`; none for a proxy that asks for nobody's name.
    pub fn authorization(&self) -> Option<Zeroizing<String>> {
        let user = self.user.as_ref()?;
        let password = self.password.as_ref().map_or("", |password| password);
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
        Some(Zeroizing::new(format!("Basic {}", *encoded)))
    }
}

/// A part of a URL as it was meant, if it can go into a header.
fn decoded(part: &str) -> Result<Option<String>, InvalidProxy> {
    let text = percent_decode_str(part).decode_utf8();
    match text {
        Ok(text) if !text.contains(char::is_control) => Ok(Some(text.into_owned())),
        _ => Err(InvalidProxy(
            "expected a user and a password of printable characters in UTF-8".to_owned(),
        )),
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server();
        let (Some(user), Some((scheme, host))) = (&self.user, server.split_once("://")) else {
            return formatter.write_str(&server);
        };
        let password = if self.password.is_some() { ":***" } else { "" };
        write!(formatter, "{scheme}://{user}{password}@{host}")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        for (text, password, shown, authorization) in [
            (
                "http://proxy.test:3128",
                None,
                "http://proxy.test:3128",
                None,
            ),
            ("https://10.0.0.7", None, "https://10.0.0.7:443", None),
            ("http://[::1]:1", Some("unused"), "http://[::1]:1", None),
            (
                "http://us%40er:p%3Ass@proxy.test:1/",
                Some("unused"),
                "http://us@er:***@proxy.test:1",
                Some("Basic dXNAZXI6cDpzcw=="),
            ),
            (
                "http://user@proxy.test:1",
                Some("p@ss/word"),
                "http://user:***@proxy.test:1",
                Some("Basic dXNlcjpwQHNzL3dvcmQ="),
            ),
            (
                "http://user@proxy.test:1",
                None,
                "http://user@proxy.test:1",
                Some("Basic dXNlcjo="),
            ),
        ] {
            let proxy = Proxy::parse(text, password).unwrap();
            assert_eq!(
                (proxy.to_string(), format!("{proxy:?}")),
                (shown.to_owned(), format!("Proxy({shown})"))
            );
            assert_eq!(
                proxy.authorization().as_deref().map(String::as_str),
                authorization,
                "{text}"
            );
            assert_eq!(Proxy::parse(proxy.exposed(), None).unwrap(), proxy);
        }
    }

    #[test]
    fn what_envoy_could_not_leave_by_is_refused_and_not_repeated() {
        for (text, says) in [
            ("socks5://u:secret@proxy.test", "no SOCKS"),
            ("proxy.test", "like http://"),
            ("proxy.test:3128", "begins with http://"),
            ("ftp://proxy.test", "begins with http://"),
            ("http://u:secret@proxy.test/path", "a path"),
            ("http://proxy.test?secret", "a query"),
            ("http://:secret@proxy.test", "a user before"),
            ("http://u%3A:secret@proxy.test", "no colon"),
            ("http://u%0d:secret@proxy.test", "printable"),
            ("http://u:secret%ff@proxy.test", "UTF-8"),
            ("http://169.254.169.254", "link-local"),
            ("http://[::ffff:169.254.169.254]:1", "link-local"),
            ("http://0.0.0.0", "unspecified"),
        ] {
            let refused = Proxy::parse(text, None).unwrap_err().to_string();
            assert!(refused.contains(says), "{text}: {refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
        assert!(Proxy::parse(&format!("http://{}.test", "x".repeat(1_100)), None).is_err());
    }
}
