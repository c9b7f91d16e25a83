//! Hostcalls, in the form that the pure modules use. Byte getters only: the SDK's string getters
//! panic on a byte that is not UTF-8.

use std::time::UNIX_EPOCH;

use proxy_wasm::{
    hostcalls,
    types::{BufferType, MapType, MetricType},
};

use crate::{
    attempt::early::Early,
    gate::refusal::Reply,
    header::HeaderMap,
    host::{SharedData, Token},
    id::Id,
    request::carried::PROPERTY,
    request::record::{PROPERTY as USAGE_PROPERTY, Record},
    snapshot::bucket::HEAD_KEY,
};

/// Envoy's shared data of this `vm_id`.
#[derive(Debug, Default)]
pub(super) struct EnvoySharedData {
    /// This VM wrote to the head.
    moved: bool,
}

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
        self.moved |= key == HEAD_KEY;
        if hostcalls::set_shared_data(key, Some(value), None).is_err() {
            log::error!("shared data refused a write of {key}");
        }
    }

    fn swap(&mut self, key: &str, value: &[u8], token: Token) -> bool {
        self.moved |= key == HEAD_KEY;
        hostcalls::set_shared_data(key, Some(value), Some(token.0)).is_ok()
    }
}

impl EnvoySharedData {
    /// Whether this VM has written to the head since this was last asked.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
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

    /// Adds so many; nothing is said where nothing is to be added.
    pub(super) fn add(self, number: u64) {
        let step = i64::try_from(number).unwrap_or(i64::MAX);
        if let Some(id) = self.0.filter(|_| step > 0) {
            let _ = hostcalls::increment_metric(id, step);
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

/// What no other Envoy has: how many nanoseconds after the start of time it is, looked at often
/// enough that the time between the looks differs too.
pub(super) fn seed() -> [u64; 32] {
    std::array::from_fn(|_| {
        let since = hostcalls::get_current_time()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
    })
}

/// The node id that the operator gave this Envoy.
pub(super) fn node() -> Option<Id> {
    let node = hostcalls::get_property(vec!["xds", "node", "id"])
        .ok()
        .flatten()?;
    Id::try_from(String::from_utf8(node).ok()?).ok()
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

/// Answers the request with what its platform had answered before the request was whole.
pub(super) fn send_early(early: &Early) {
    let sent = hostcalls::send_http_response(early.status(), early.headers(), Some(early.body()));
    if sent.is_err() {
        log::error!("a platform's early answer could not be sent");
    }
}

/// Lets an answer go on that was held back, once this call is over.
pub(super) fn resume_answer() {
    let _ = hostcalls::resume_http_response();
}

/// The answer's headers.
pub(super) fn response_headers() -> HeaderMap {
    hostcalls::get_map_bytes(MapType::HttpResponseHeaders)
        .unwrap_or_default()
        .into()
}

/// One header of the answer.
pub(super) fn response_header(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, name)
        .ok()
        .flatten()
}

/// Sets a header of the answer, or takes it off.
pub(super) fn set_response_header(name: &str, value: Option<&[u8]>) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpResponseHeaders, name, value);
}

/// Writes the request's header block whole. The SDK crashes the VM where Envoy does not take it, so
/// it is called only while the request's headers are this filter's to write.
pub(super) fn set_request_headers(headers: Vec<(&str, &[u8])>) -> bool {
    hostcalls::set_map_bytes(MapType::HttpRequestHeaders, headers).is_ok()
}

/// Sets a header of the request, while its headers are this filter's to write.
pub(super) fn set_request_header(name: &str, value: &str) -> bool {
    hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value)).is_ok()
}

/// Makes the properties by which a try tells the next steps of a request, and access logs, what
/// is known of it properties of the downstream request, so that they are seen by the upstream
/// filters and survive an internal redirect.
///
/// The argument is Envoy's `DeclarePropertyArguments` in protobuf's wire format: the name is
/// field 1, the type field 3 (1: string, so that access logs show it as it is), the life span
/// field 5 (1: downstream request). Field 2 would make it read-only: a second try through the
/// gate could then not set it, and the SDK panics on Envoy's refusal.
pub(super) fn declare_properties() {
    declare(PROPERTY);
    declare(USAGE_PROPERTY);
}

fn declare(name: &str) {
    let mut arguments = vec![0x0a];
    arguments.extend(u8::try_from(name.len()));
    arguments.extend_from_slice(name.as_bytes());
    arguments.extend_from_slice(&[0x18, 0x01, 0x28, 0x01]);
    // A VM with both roles declares it twice; the second time is refused and changes nothing.
    let _ = hostcalls::call_foreign_function("declare_property", Some(&arguments));
}

/// Sets what is known of the request, as a carried writes itself.
pub(super) fn set_carried(text: &str) {
    if hostcalls::set_property(vec![PROPERTY], Some(text.as_bytes())).is_err() {
        log::error!("the request's carried could not be set");
    }
}

/// Shows access logs what became of the request.
pub(super) fn set_usage(record: &Record) {
    let _ = hostcalls::set_property(vec![USAGE_PROPERTY], Some(record.line().as_bytes()));
}

/// The `size` bytes that have come of a body.
pub(super) fn body(kind: BufferType, size: usize) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    let body = hostcalls::get_buffer(kind, 0, size);
    body.ok().flatten().unwrap_or_default()
}

/// Puts other bytes in the place of those `size`.
pub(super) fn set_body(kind: BufferType, size: usize, body: &[u8]) -> bool {
    hostcalls::set_buffer(kind, 0, size, body).is_ok()
}

/// What is known of the request, as it was set.
pub(super) fn carried() -> Option<Vec<u8>> {
    hostcalls::get_property(vec![PROPERTY]).ok().flatten()
}
