//! The reason why a call came to nothing, in words for people: what the HTTP and the TLS library say goes to the log.

use std::error::Error;
use std::io;

use rustls::{CertificateError, Error as Tls};

use crate::os_error;

/// Returns what `error` says, as the end of a sentence.
pub fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    // What an `io::Error` wraps is not among its sources, and it may wrap another one.
    while let Some(inner) = innermost
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .filter(|inner| inner.is::<io::Error>() || inner.is::<Tls>())
    {
        innermost = inner;
    }
    if let Some(tls) = innermost.downcast_ref::<Tls>() {
        tracing::debug!(error = %tls, "TLS failed");
        return of_tls(tls).to_owned();
    }
    if let Some(system) = innermost.downcast_ref::<io::Error>() {
        let said = os_error::in_words(system);
        // The resolver's own words differ from system to system.
        return match said.starts_with("failed to lookup address") {
            true => "no such host is known".to_owned(),
            false => said,
        };
    }
    // The outer ones repeat the URL.
    tracing::debug!(error = %innermost, "a call failed");
    let words = match error {
        _ if error.is_connect() => "no connection came about",
        _ if error.is_builder() => "the request could not be made",
        _ => "the connection ended before an answer came",
    };
    words.to_owned()
}

fn of_tls(error: &Tls) -> &'static str {
    match error {
        Tls::InvalidCertificate(why) => of_certificate(why),
        Tls::InvalidMessage(_) => "it does not speak TLS there",
        Tls::AlertReceived(_) => "it broke the TLS handshake off",
        Tls::PeerIncompatible(_) => "it speaks no TLS that is safe enough",
        Tls::NoCertificatesPresented => "it showed no certificate",
        _ => "its TLS fails",
    }
}

fn of_certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or this machine's clock is wrong"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or this machine's clock is wrong"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another host: something stands between, or the address is wrong"
        }
        CertificateError::UnknownIssuer => {
            "its certificate is not trusted: nobody known here signed it. If that is a proxy of your own, name its \
             authority's file as ca_file in [oauth] of config.toml"
        }
        CertificateError::Revoked => "its certificate was revoked",
        _ => "its certificate is not trusted",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Returns what a call says of a server that answers the first bytes with these, and then ends.
    async fn said_of(scheme: &str, answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls);
        let client = client.no_proxy().build().unwrap();
        let url = format!("{scheme}://127.0.0.1:{port}/");
        let error = client.get(url).send().await.unwrap_err();
        server.await.unwrap();
        let nobody = client.get(format!("http://127.0.0.1:{port}/")).send();
        assert_eq!(
            in_words(&nobody.await.unwrap_err()),
            "nothing listens there"
        );
        let nowhere = client.get("http://nowhere.invalid/").send().await;
        assert_eq!(in_words(&nowhere.unwrap_err()), "no such host is known");
        in_words(&error)
    }

    #[tokio::test]
    async fn a_call_that_fails_says_why_in_words() {
        for (scheme, answer, expected) in [
            (
                "https",
                b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
                "it does not speak TLS there",
            ),
            (
                "https",
                b"\x15\x03\x03\x00\x02\x02\x28",
                "it broke the TLS handshake off",
            ),
            ("http", b"", "the connection ended before an answer came"),
            (
                "http",
                b"SSH-2.0-x\r\n\r\n",
                "the connection ended before an answer came",
            ),
        ] {
            assert_eq!(said_of(scheme, answer).await, expected);
        }
    }

    #[test]
    fn a_certificate_that_is_not_good_says_whose_fault_that_is() {
        for (why, said) in [
            (CertificateError::UnknownIssuer, "ca_file"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidForName, "another host"),
            (CertificateError::BadSignature, "not trusted"),
        ] {
            let words = of_tls(&Tls::InvalidCertificate(why.clone()));
            assert!(words.contains(said), "{why:?}: {words}");
        }
    }
}
