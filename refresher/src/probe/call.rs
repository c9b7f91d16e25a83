//! The request of a probe: the one that the filter would send there for the account.

use latchkey::attempt;
use latchkey::gate::refusal::Refusal;
use latchkey::header::HeaderMap;
use latchkey::snapshot::{Account, Places};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use crate::oauth::http::ApiRequest;
use crate::platform::Profile;
use crate::platform::probe::Probe;

/// The request of `probe` for `account`.
///
/// # Errors
/// In a sentence that names nothing of the account's, if the account lacks what the profile's templates need.
pub(super) fn request(
    profile: &Profile,
    probe: &Probe,
    account: &Account,
    tls: Option<bool>,
) -> Result<ApiRequest, &'static str> {
    let path = match probe.query.as_str() {
        "" => "/".to_owned(),
        query => format!("/?{query}"),
    };
    let asked: HeaderMap = [(":path", path.as_str())].into_iter().collect();
    let sent = attempt::headers(
        &asked,
        &profile.record,
        &probe.endpoint,
        account,
        &Places::default(),
    );
    let sent = sent.map_err(|_: Refusal| "the account lacks what the profile's headers need")?;
    let unfit = "a header of the profile cannot be sent";
    let (mut target, mut headers) = (String::new(), reqwest::header::HeaderMap::new());
    for (name, value) in &sent {
        match *name {
            ":path" => target = String::from_utf8_lossy(value).into_owned(),
            name if name.starts_with(':') => {}
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit)?;
                let mut value = HeaderValue::from_bytes(value).map_err(|_| unfit)?;
                value.set_sensitive(true);
                headers.append(name, value);
            }
        }
    }
    for (name, value) in &probe.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| unfit)?;
        let value = HeaderValue::from_str(value.as_str()).map_err(|_| unfit)?;
        headers.insert(name, value);
    }
    let scheme = match tls.unwrap_or(profile.upstream.url.origin.tls) {
        true => "https",
        false => "http",
    };
    let authority = account.authority.as_str();
    let url = Url::parse(&format!("{scheme}://{authority}{target}"));
    Ok(ApiRequest {
        method: probe.method.clone(),
        url: url.map_err(|_| "its URL cannot be used")?,
        headers,
        body: probe.body.clone(),
    })
}
