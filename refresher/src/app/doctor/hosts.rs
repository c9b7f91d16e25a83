//! The hosts of the accounts' platforms, asked for the time and for nothing else: no credential goes there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::future::join_all;
use jiff::fmt::rfc2822;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use crate::address::Network;
use crate::app::App;
use crate::app::status::AccountView;
use crate::clock::{Clock, SystemClock};
use crate::oauth::http::{ApiRequest, HttpClient};
use crate::platform::Profile;

/// The most hosts that are asked.
const MOST: usize = 16;

/// A host, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, as the URL has it, with a port that is not the usual one.
    pub name: String,
    /// An account that is reached there.
    pub account: String,
    /// True if the host is told by an address, or as this machine: no name service leads there.
    pub is_address: bool,
    /// By how many milliseconds our clock goes before its; none where it says no time.
    pub ahead_ms: Result<Option<i64>, String>,
}

/// Asks the hosts of these accounts.
pub async fn ask(app: &App, accounts: &[AccountView]) -> Vec<Host> {
    let mut hosts = BTreeMap::new();
    // Who has a proxy of its own is reached by that alone.
    for account in accounts.iter().filter(|account| account.proxy.is_none()) {
        let Ok(profile) = app.catalog.usable(&account.platform) else {
            continue;
        };
        let own = account.base_url.as_deref();
        let Ok(mut url) = Url::parse(own.unwrap_or(profile.upstream.url.as_str())) else {
            continue;
        };
        url.set_path("/");
        let mut name = url.host_str().unwrap_or_default().to_owned();
        if let Some(port) = url.port() {
            name += &format!(":{port}");
        }
        let network = own.map(|_| profile.upstream.network);
        let account = &account.name;
        hosts
            .entry(name)
            .or_insert((account, profile, url, network));
    }
    let all = hosts.into_iter().take(MOST);
    let asked = all.map(async |(name, (account, profile, url, network))| Host {
        is_address: is_address(url.host_str().unwrap_or_default()),
        account: account.clone(),
        name,
        ahead_ms: ahead(profile, url, network).await,
    });
    join_all(asked).await
}

/// True for a host, as a URL has it, that no name service leads to.
fn is_address(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok()
}

/// By how much our clock goes before that of the host of `url`.
async fn ahead(
    profile: &Profile,
    url: Url,
    network: Option<Network>,
) -> Result<Option<i64>, String> {
    let ca_file = profile.upstream.ca_file.as_deref();
    let proxy = profile.upstream.proxy.as_ref();
    let client = HttpClient::to_account(&url, ca_file, network, proxy);
    let client = client.map_err(|error| error.to_string())?;
    let request = ApiRequest {
        method: Method::HEAD,
        url,
        headers: HeaderMap::new(),
        body: None,
    };
    let before = SystemClock.now();
    let answer = client.ask(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let middle = before.0 + (SystemClock.now().0 - before.0) / 2;
    let date = answer.headers.iter().find(|(name, _)| name == "date");
    let date = date.and_then(|(_, value)| seconds(value));
    // A date is cut to its second.
    Ok(date.map(|seconds| middle - (seconds * 1_000 + 500)))
}

/// The Unix seconds of a `date` header.
fn seconds(value: &[u8]) -> Option<i64> {
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value);
    Some(date.ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_name_service() {
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            assert!(is_address(host), "{host}");
        }
        assert!(!is_address("chatgpt.com") && !is_address(""));
    }

    #[test]
    fn a_date_is_read_as_servers_write_it() {
        assert_eq!(
            seconds(b"Mon, 21 Sep 2026 14:13:20 GMT"),
            Some(1_790_000_000)
        );
        assert_eq!(seconds(b"yesterday"), None);
    }
}
