//! Token requests that a client signs with its secret, which itself never leaves. Pure.
//!
//! The one scheme is Baidu's `bce-auth-v1`: an HMAC-SHA256 over method, path, query and host, with a key that is itself
//! an HMAC of the client's id, the time and how long the signature is good for.

use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

use crate::clock::UnixMillis;
use crate::id::hex;

/// The characters that are escaped in a canonical request: all but the unreserved ones (RFC 3986 §2.3).
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The signer of requests, and the life of a signature.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: SecretString,
    /// For how long a signature is good.
    pub validity: Duration,
}

impl Signer {
    /// The `Authorization` of a request without a body.
    pub fn authorization(&self, method: &str, url: &Url, now: UnixMillis) -> SecretString {
        let prefix = self.prefix(now);
        let signature = self.signature(&prefix, &canonical(method, url));
        format!("{prefix}/host/{signature}").into()
    }

    fn prefix(&self, now: UnixMillis) -> String {
        let time = Timestamp::from_millisecond(now.0).unwrap_or_default();
        let time = time.strftime("%Y-%m-%dT%H:%M:%SZ");
        let (id, validity) = (&self.client_id, self.validity.as_secs());
        format!("bce-auth-v1/{id}/{time}/{validity}")
    }

    fn signature(&self, prefix: &str, canonical: &str) -> String {
        let key = hmac_hex(self.client_secret.expose_secret(), prefix);
        hmac_hex(&key, canonical)
    }
}

/// Returns what is signed of a request.
fn canonical(method: &str, url: &Url) -> String {
    let mut query: Vec<String> = url
        .query_pairs()
        .map(|(name, value)| format!("{}={}", escaped(&name), escaped(&value)))
        .collect();
    query.sort();
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => escaped(&format!("{host}:{port}")),
        None => escaped(host),
    };
    // The path of a URL is escaped already.
    format!("{method}\n{}\n{}\nhost:{host}", url.path(), query.join("&"))
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, &ESCAPED).to_string()
}

fn hmac_hex(key: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, text.as_bytes());
    hex(tag.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-04-27T08:23:49Z
    const THEN: UnixMillis = UnixMillis(1_430_123_029_000);

    fn signer() -> Signer {
        Signer {
            client_id: "a".repeat(32),
            client_secret: "b".repeat(32).into(),
            validity: Duration::from_secs(1_800),
        }
    }

    /// The example of Baidu's own page on signatures.
    #[test]
    fn a_signature_is_that_of_the_documented_example() {
        let prefix = signer().prefix(THEN);
        assert_eq!(
            prefix,
            format!("bce-auth-v1/{}/2015-04-27T08:23:49Z/1800", "a".repeat(32))
        );
        let canonical = "PUT\n/v1/test/myfolder/readme.txt\n\
                         partNumber=9&uploadId=a44cc9bab11cbd156984767aad637851\n\
                         content-length:8\ncontent-md5:NFzcPqhviddjRNnSOGo4rw%3D%3D\ncontent-type:text%2Fplain\n\
                         host:bj.bcebos.com\nx-bce-date:2015-04-27T08%3A23%3A49Z";
        assert_eq!(
            signer().signature(&prefix, canonical),
            "d74a04362e6a848f5b39b15421cb449427f419c95a480fd6b8cf9fc783e2999e"
        );
    }

    #[test]
    fn method_path_query_and_host_are_signed_and_the_secret_stays_here() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (text, expected) in [
            (
                "https://iam.bj.baidubce.com/v1/BCE-BEARER/token?expireInSeconds=2592000",
                "GET\n/v1/BCE-BEARER/token\nexpireInSeconds=2592000\nhost:iam.bj.baidubce.com",
            ),
            (
                "http://127.0.0.1:81/a%20b?z=1&b=x%2By&a=%E6%B5%8B",
                "GET\n/a%20b\na=%E6%B5%8B&b=x%2By&z=1\nhost:127.0.0.1%3A81",
            ),
        ] {
            assert_eq!(canonical("GET", &url(text)), expected);
        }
        let token = url("https://iam.bj.baidubce.com/token");
        let authorization = signer().authorization("GET", &token, THEN);
        let (head, signature) = authorization.expose_secret().rsplit_once('/').unwrap();
        assert!(head.ends_with("/1800/host"), "{head}");
        assert_eq!(signature.len(), 64);
        assert!(!authorization.expose_secret().contains(&"b".repeat(32)));
        let later = signer().authorization("GET", &token, UnixMillis(THEN.0 + 1_000));
        assert_ne!(authorization.expose_secret(), later.expose_secret());
    }
}
