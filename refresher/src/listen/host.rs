//! The names by which a listener may be asked for over TCP.
//!
//! A page in a browser may have its own name resolve to an address of ours (DNS rebinding), and then reads what the listener
//! says as if it came from the page's own site. The name that it has to use stands in `Host`. An address there is no such
//! name: nobody makes one resolve elsewhere.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::advice;

/// Says what is wrong, and not the name: it is a stranger's.
const REFUSAL: &str =
    "expected in Host an IP address, localhost or a name that is allowed here; found another name";

/// Names beside addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// These names, in any case of letters, at any port.
    pub fn of(names: impl IntoIterator<Item = String>) -> HostNames {
        HostNames(names.into_iter().collect())
    }

    /// `router`, for requests by one of the names alone; 421 for others.
    pub fn guard(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, pass))
    }

    fn admit(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let Ok(authority) = Authority::try_from(host.as_bytes()) else {
            return false;
        };
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let names = self.0.iter().map(String::as_str).chain(["localhost"]);
        !authority.as_str().contains('@')
            && (address.parse::<IpAddr>().is_ok()
                || names
                    .into_iter()
                    .any(|known| known.eq_ignore_ascii_case(name)))
    }
}

async fn pass(State(names): State<HostNames>, request: Request, next: Next) -> Response {
    if names.admit(request.headers()) {
        next.run(request).await
    } else {
        let cure = advice::unknown_host();
        let refusal = format!("{REFUSAL}; {cure}\n");
        (StatusCode::MISDIRECTED_REQUEST, refusal).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn addresses_and_known_names_pass_and_no_other_name() {
        let names = HostNames::of(["gateway.internal".to_owned()]);
        let admit = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            names.admit(&headers)
        };
        for host in [
            "127.0.0.1:9464",
            "127.0.0.1",
            "10.0.0.7:9464",
            "[::1]:9464",
            "localhost",
            "LOCALHOST:9464",
            "gateway.internal:9464",
            "Gateway.Internal",
        ] {
            assert!(admit(&[host]), "{host}");
        }
        for host in [
            "",
            "attacker.test",
            "attacker.test:9464",
            "127.0.0.1.attacker.test",
            "localhost.attacker.test",
            "attacker.test@127.0.0.1",
            "127.0.0.1@attacker.test",
            "127.0.0.1:9464/x",
            "gateway.internal.",
            "2130706433",
        ] {
            assert!(!admit(&[host]), "{host}");
        }
        assert!(!admit(&[]));
        assert!(!admit(&["127.0.0.1", "attacker.test"]));
    }
}
