//! The address of a platform, or of one account of it: scheme, host, port and a path before those of the endpoints.
//!
//! A credential goes wherever a base URL leads, so its owner alone sets it, and it leads over TLS or nowhere but to this
//! machine. Addresses of a private network are the owner's to choose: models are hosted there. Those at which no platform
//! can be are refused, a cloud's metadata among them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use latchkey::header::HeaderText;
use latchkey::snapshot::BasePath;
use latchkey::snapshot::path::PathTemplate;
use reqwest::Url;

use crate::address::{Network, Place, Refused};

/// A base URL that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    /// The origin that its connections go to.
    pub origin: Origin,
    /// `:authority` of requests: host, and port where it is not the scheme's own.
    pub authority: HeaderText,
    /// The path that goes before those of the endpoints.
    pub path: BasePath,
}

/// The target of connections, and how they are kept from being read (RFC 6454 §4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// True if the host speaks TLS: `https`.
    pub tls: bool,
    /// The name or address to connect to.
    pub host: Host,
    /// The port, also where the URL leaves it out.
    pub port: u16,
}

/// A host to connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// To be resolved.
    Name(String),
    /// As it is.
    Address(IpAddr),
}

/// The fault of a URL. It repeats nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

/// The reason why no account is reached at a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOfAccount {
    /// Text that is no base URL.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// A URL that leads where its platform's accounts are not.
    #[error(transparent)]
    Elsewhere(#[from] Refused),
}

impl BaseUrl {
    /// Reads a base URL that its owner wrote into a file.
    ///
    /// # Errors
    /// If it is none, or a credential could be read on the way there.
    pub fn parse(text: &str) -> Result<BaseUrl, InvalidUrl> {
        BaseUrl::read(text, Network::Public)
    }

    /// Reads a base URL that its owner wrote into the profile of a platform whose accounts are in `network`.
    ///
    /// # Errors
    /// As [`BaseUrl::parse`].
    pub fn of_profile(text: &str, network: Network) -> Result<BaseUrl, InvalidUrl> {
        BaseUrl::read(text, network)
    }

    /// Reads the base URL of an account of a platform whose accounts are in `network`.
    ///
    /// # Errors
    /// As [`BaseUrl::parse`], or if it leads elsewhere. A name is asked for by those who connect
    /// ([`guarded`](crate::guarded)).
    pub fn of_account(text: &str, network: Network) -> Result<BaseUrl, NotOfAccount> {
        let url = BaseUrl::read(text, network)?;
        url.check(network)?;
        Ok(url)
    }

    /// Reads a base URL that was checked when it was stored.
    ///
    /// # Errors
    /// If it is none.
    pub fn stored(text: &str) -> Result<BaseUrl, InvalidUrl> {
        BaseUrl::read(text, Network::Own)
    }

    /// Refuses a host that does not belong to `network`, as far as that can be told without asking for its name.
    ///
    /// # Errors
    /// Saying what its address is.
    pub fn check(&self, network: Network) -> Result<(), Refused> {
        match &self.origin.host {
            Host::Address(address) => network.check(*address),
            Host::Name(name) if is_localhost(name) => network.check(Ipv4Addr::LOCALHOST.into()),
            Host::Name(_) => Ok(()),
        }
    }

    fn read(text: &str, network: Network) -> Result<BaseUrl, InvalidUrl> {
        let url = url_in(text, network)?;
        if url.query().is_some() {
            return Err(InvalidUrl("expected a URL without a query".to_owned()));
        }
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let address = bare.parse().ok();
        if address.is_some_and(|address| Place::of(address) == Place::Nowhere) {
            return Err(InvalidUrl(
                "expected the address of a platform, found one that is link-local, multicast or unspecified".to_owned(),
            ));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let invalid = |error: &dyn fmt::Display| InvalidUrl(error.to_string());
        Ok(BaseUrl {
            text: text.to_owned(),
            origin: Origin {
                tls: url.scheme() == "https",
                host: address.map_or_else(|| Host::Name(host.to_owned()), Host::Address),
                port: url.port_or_known_default().unwrap_or_default(),
            },
            authority: HeaderText::try_from(authority).map_err(|error| invalid(&error))?,
            path: BasePath::try_from(path).map_err(|error| invalid(&error))?,
        })
    }

    /// The end of its path that is that of an endpoint, as `/chat/completions`; none where it has none.
    pub fn end_at(&self, endpoint: &PathTemplate) -> Option<String> {
        let path = String::from(endpoint.clone());
        let is_plain = path.len() > 1 && !path.contains(['{', '}']);
        let ends = is_plain && self.path.as_str().ends_with(&path);
        ends.then_some(path)
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => formatter.write_str(name),
            Host::Address(address) => address.fmt(formatter),
        }
    }
}

/// Reads a URL to which credentials go: https, or plain http to this machine.
///
/// # Errors
/// If it is none, or a credential could be read on the way there.
pub fn web_url(text: &str) -> Result<Url, InvalidUrl> {
    url_in(text, Network::Public)
}

/// [`web_url`], where the operator's own network may do without TLS.
fn url_in(text: &str, network: Network) -> Result<Url, InvalidUrl> {
    let invalid = |problem: String| InvalidUrl(problem);
    if text != text.trim() || text.contains(char::is_whitespace) {
        return Err(invalid(
            "expected a URL without white space in it".to_owned(),
        ));
    }
    let url = Url::parse(text).map_err(|error| invalid(in_words(&error)))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "expected a URL without a user name or password".to_owned(),
        ));
    }
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid(
            "expected an http or https URL with a host".to_owned(),
        ));
    }
    let is_own = network == Network::Own && is_private(&url);
    if url.scheme() == "http" && !is_loopback(&url) && !is_own {
        return Err(invalid(
            "expected https: over plain http to another machine, credentials could be read on the way"
                .to_owned(),
        ));
    }
    if url.fragment().is_some() {
        return Err(invalid("expected a URL without a fragment".to_owned()));
    }
    Ok(url)
}

/// The parser's error.
type ParseError = <Url as FromStr>::Err;

/// Says why a text is no URL, in our words: the parser's are those of its standard.
fn in_words(error: &ParseError) -> String {
    let words = match error {
        ParseError::RelativeUrlWithoutBase => "expected a URL that begins with https://",
        ParseError::EmptyHost => "expected a URL with the name of a host",
        ParseError::InvalidPort => "expected a port from 1 to 65535 behind the host",
        ParseError::InvalidIpv4Address => "expected a host, found numbers that are no address",
        ParseError::InvalidIpv6Address => "expected an address of IPv6 between [ and ]",
        ParseError::IdnaError | ParseError::InvalidDomainCharacter => {
            "expected the name of a host, found characters that no host's has"
        }
        _ => "expected a URL, like https://api.example.com/v1",
    };
    words.to_owned()
}

/// True for a page or an endpoint that nothing between here and there can read.
pub fn is_web(url: &Url) -> bool {
    url.has_host() && (url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)))
}

/// True if the URL's host is this machine by its very name: no resolver is asked.
pub fn is_loopback(url: &Url) -> bool {
    let address = address_of(url);
    url.host_str() == Some("localhost") || address.is_some_and(|address| address.is_loopback())
}

/// True if the URL's host is an address of a private network.
pub fn is_private(url: &Url) -> bool {
    address_of(url).is_some_and(|address| Place::of(address) == Place::Private)
}

fn address_of(url: &Url) -> Option<IpAddr> {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// True for a name of this machine, whatever a resolver says (RFC 6761 §6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_says_host_port_and_path() {
        let parsed = |text: &str| BaseUrl::parse(text).unwrap();
        let url = parsed("https://api.test/compatible-mode/v1/");
        assert_eq!((url.origin.tls, url.origin.port), (true, 443));
        assert_eq!(url.origin.host, Host::Name("api.test".into()));
        assert_eq!(url.authority.as_str(), "api.test");
        assert_eq!(url.path.as_str(), "/compatible-mode/v1");
        let url = parsed("http://[::1]:8080");
        assert_eq!((url.origin.tls, url.origin.port), (false, 8080));
        assert_eq!(url.origin.host, Host::Address("::1".parse().unwrap()));
        assert_eq!(url.authority.as_str(), "[::1]:8080");
        assert!(url.path.is_empty());
    }

    #[test]
    fn what_is_no_url_is_told_in_our_words() {
        for (wrong, says) in [
            ("", "begins with https://"),
            ("api.test/v1", "begins with https://"),
            ("https://", "the name of a host"),
            ("https://api.test:99999", "a port from 1 to 65535"),
            ("https://1.2.3.4.5", "numbers that are no address"),
            ("https://[::1", "an address of IPv6"),
            ("https://a%b.test", "characters that no host's has"),
            ("https://api.test/v1 ", "without white space"),
            ("https://a b", "without white space"),
        ] {
            let said = BaseUrl::parse(wrong).unwrap_err().to_string();
            assert!(said.contains(says), "{wrong}: {said}");
        }
    }

    #[test]
    fn the_url_of_an_endpoint_is_told_from_a_base_url() {
        let end_at = |url: &str, path: &str| {
            let path = PathTemplate::try_from(path.to_owned()).unwrap();
            BaseUrl::parse(url).unwrap().end_at(&path)
        };
        let chat = "/chat/completions";
        assert_eq!(
            end_at("https://api.test/v1/chat/completions/", chat).as_deref(),
            Some(chat)
        );
        assert_eq!(end_at("https://api.test/v1", chat), None);
        assert_eq!(end_at("https://api.test/files/x", "/files/{id}"), None);
    }

    /// `@` and `#` end a host for one reader and not for another: nobody is asked which.
    #[test]
    fn an_account_leads_into_the_own_network_where_its_profile_says_so() {
        for own in [
            "https://127.1/v1",
            "https://2130706433",
            "http://localhost:11434/v1",
            "https://db.localhost",
            "https://[::1]",
            "https://10.1.2.3",
            "https://[fd12::1]",
        ] {
            let NotOfAccount::Elsewhere(refused) =
                BaseUrl::of_account(own, Network::Public).unwrap_err()
            else {
                panic!("{own}")
            };
            assert!(refused.is_own_network(), "{own}: {refused}");
            assert!(BaseUrl::of_account(own, Network::Own).is_ok(), "{own}");
        }
        let plain = "http://192.168.1.5:11434/v1";
        assert!(BaseUrl::of_account(plain, Network::Own).is_ok());
        assert_eq!(
            BaseUrl::stored(plain).unwrap().authority.as_str(),
            "192.168.1.5:11434"
        );
        for (network, nowhere) in [
            (Network::Public, plain),
            (Network::Own, "http://gpu.lan:11434"),
            (Network::Own, "http://8.8.8.8"),
            (Network::Own, "https://169.254.169.254"),
            (Network::Own, "https://[fd00:ec2::254]"),
            (Network::Own, "https://api.test@10.0.0.1/"),
            (Network::Own, "https://api.test#@10.0.0.1/"),
            (Network::Own, "unix:/run/x.sock"),
            (Network::Own, "http+unix://%2Frun%2Fx.sock/v1"),
        ] {
            assert!(BaseUrl::of_account(nowhere, network).is_err(), "{nowhere}");
        }
        assert!(BaseUrl::of_account("https://localhost.example.com", Network::Public).is_ok());
    }

    #[test]
    fn a_credential_goes_nowhere_in_the_open() {
        for bad in [
            "",
            "api.test",
            "unix:/x",
            "ftp://api.test",
            "http://api.test",
            "http://169.254.169.254",
            "http://localhost.example.com",
            "https://169.254.169.254/latest",
            "https://2852039166",
            "https://[::ffff:169.254.169.254]",
            "https://[fe80::1]",
            "https://0.0.0.0",
            "https://0",
            "https://[::]",
            "https://[ff02::1]",
            "https://255.255.255.255",
            "https://u:p@api.test",
            "https://u@api.test",
            "https://api.test/v1?key=x",
            "https://api.test/v1#x",
            "https://api.test/%2e%2e/x y",
            "https://api.test/a;b",
        ] {
            let refused = BaseUrl::parse(bad);
            assert!(refused.is_err(), "{bad}: {refused:?}");
        }
        let secret = BaseUrl::parse("http://user:secret@api.test").unwrap_err();
        assert!(!secret.to_string().contains("secret"), "{secret}");
    }
}
