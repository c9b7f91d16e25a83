//! Hostcalls, in the form that the pure modules use. Byte getters only: the SDK's string getters
//! panic on a byte that is not UTF-8.

use std::time::UNIX_EPOCH;

use proxy_wasm::{
    hostcalls,
    types::{MapType, MetricType},
};

use crate::{
    attempt::ACCOUNT_PROPERTY,
    dialect::refusal::Reply,
    header::HeaderMap,
    host::{SharedData, Token},
};

/// Envoy's shared data of this `vm_id`.
#[derive(Debug, Default)]
pub(super) struct EnvoySharedData;

impl SharedData for EnvoySharedData {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), cas)) => Some((value, Token(cas.unwrap_or_default()))),
            // Envoy gives an empty value as none, with the token of the write that made it so.
            Ok((None, Some(cas))) => Some((Vec::new(), Token(cas))),
            _ => None,
        }
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        if hostcalls::set_shared_data(key, Some(value), None).is_err() {
            log::error!("shared data refused a write of {key}");
        }
    }

    fn swap(&mut self, key: &str, value: &[u8], token: Token) -> bool {
        hostcalls::set_shared_data(key, Some(value), Some(token.0)).is_ok()
    }
}

/// A number that Envoy's stats show as `wasmcustom.latchkey.<name>`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric(Option<u32>);

impl Metric {
    /// A number that goes up.
    pub(super) fn counter(name: &str) -> Self {
        Self(hostcalls::define_metric(MetricType::Counter, &format!("latchkey.{name}")).ok())
    }

    /// A number that is set.
    pub(super) fn gauge(name: &str) -> Self {
        Self(hostcalls::define_metric(MetricType::Gauge, &format!("latchkey.{name}")).ok())
    }

    /// Adds one.
    pub(super) fn increment(self) {
        if let Some(id) = self.0 {
            let _ = hostcalls::increment_metric(id, 1);
        }
    }

    /// Sets the number.
    pub(super) fn set(self, value: u64) {
        if let Some(id) = self.0 {
            let _ = hostcalls::record_metric(id, value);
        }
    }
}

/// Unix milliseconds.
pub(super) fn now() -> u64 {
    let since = hostcalls::get_current_time()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The request's headers.
pub(super) fn request_headers() -> HeaderMap {
    hostcalls::get_map_bytes(MapType::HttpRequestHeaders)
        .unwrap_or_default()
        .into()
}

/// Answers the request, or replaces its answer, from here.
pub(super) fn send(reply: &Reply) {
    let headers = reply
        .headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let body = Some(reply.body.as_bytes());
    if hostcalls::send_http_response(reply.status.into(), headers, body).is_err() {
        log::error!("a reply of status {} could not be sent", reply.status);
    }
}

/// Makes the property by which the gate tells the attempt the account one of the downstream
/// request, so that it is seen by the upstream filters and survives an internal redirect.
///
/// The argument is Envoy's `DeclarePropertyArguments` in protobuf's wire format: the name is
/// field 1, the type field 3 (1: string, so that access logs show it as it is), the life span
/// field 5 (1: downstream request). Field 2 would make it read-only: a second pass through the
/// gate could then not set it, and the SDK panics on Envoy's refusal.
pub(super) fn declare_account_property() {
    let mut arguments = vec![0x0a];
    arguments.extend(u8::try_from(ACCOUNT_PROPERTY.len()));
    arguments.extend_from_slice(ACCOUNT_PROPERTY.as_bytes());
    arguments.extend_from_slice(&[0x18, 0x01, 0x28, 0x01]);
    // A VM with both roles declares it twice; the second time is refused and changes nothing.
    let _ = hostcalls::call_foreign_function("declare_property", Some(&arguments));
}

/// Tells the attempt the account.
pub(super) fn set_account_property(account: &str) {
    let value = Some(account.as_bytes());
    if hostcalls::set_property(vec![ACCOUNT_PROPERTY], value).is_err() {
        log::error!("the request's account could not be set");
    }
}

/// What the gate told.
pub(super) fn account_property() -> Option<Vec<u8>> {
    hostcalls::get_property(vec![ACCOUNT_PROPERTY])
        .ok()
        .flatten()
}
