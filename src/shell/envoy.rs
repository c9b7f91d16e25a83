//! Hostcalls. Byte getters only: the SDK's string getters panic on a byte that is not UTF-8.

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::{
    hostcalls,
    types::{BufferType, MapType, MetricType},
};

use crate::{
    header::HeaderMap,
    host::{Call, CallId, Host, Metric, MetricKind, SharedData, Side, Stream, Version},
    id::Id,
    request::{carried, record},
};

/// Envoy, to the VM that calls it.
#[derive(Debug)]
pub(super) struct Envoy;

/// The stream that the callback is about, or that was entered.
#[derive(Debug)]
pub(super) struct EnvoyStream;

/// The response flags that say that the caller went away: its connection ended (DC), or it reset its stream (DR). The
/// property has a bit for each of Envoy's `CoreResponseFlag`, in their order.
const CALLER_LEFT: u64 = 1 << 14 | 1 << 28;

/// Returns which plugin the root context is of.
pub(super) fn root_id() -> Option<Vec<u8>> {
    let id = hostcalls::get_property(vec!["plugin_root_id"]);
    id.ok().flatten()
}

/// Returns the body of the call's answer that the callback is about.
pub(super) fn call_body(size: usize) -> Vec<u8> {
    let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size);
    let body = body.ok().flatten().unwrap_or_default();
    #[cfg(feature = "fault-injection")]
    super::fault::on_call_answer(&body);
    body
}

/// Makes properties of the downstream request of what a try tells the next steps of its request,
/// and access logs, so that upstream filters see them and they survive an internal redirect.
///
/// The argument is Envoy's `DeclarePropertyArguments` in protobuf's wire format: the name is
/// field 1, the type field 3 (1: string, so that access logs show it as it is), the life span
/// field 5 (1: downstream request). Field 2 would make it read-only: a second try at the gate
/// could then not set it, and the SDK panics on Envoy's refusal.
pub(super) fn declare_properties() {
    for name in [carried::PROPERTY, record::PROPERTY] {
        let mut arguments = vec![0x0a];
        arguments.extend(u8::try_from(name.len()));
        arguments.extend_from_slice(name.as_bytes());
        arguments.extend_from_slice(&[0x18, 0x01, 0x28, 0x01]);
        // A VM with both roles declares it twice; the second time is refused and changes nothing.
        let _ = hostcalls::call_foreign_function("declare_property", Some(&arguments));
    }
}

/// Nanoseconds since 1970.
fn nanoseconds() -> u128 {
    let time = hostcalls::get_current_time().ok();
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.unwrap_or_default().as_nanos()
}

fn headers_of(side: Side) -> MapType {
    match side {
        Side::Request => MapType::HttpRequestHeaders,
        Side::Answer => MapType::HttpResponseHeaders,
    }
}

fn body_of(side: Side) -> BufferType {
    match side {
        Side::Request => BufferType::HttpRequestBody,
        Side::Answer => BufferType::HttpResponseBody,
    }
}

/// The number that the attribute at `path` is, as Envoy writes it.
fn number_at(path: Vec<&str>) -> Option<u64> {
    let bytes = hostcalls::get_property(path).ok().flatten()?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

// === impl Envoy ===

impl SharedData for Envoy {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), cas)) => Some((value, Version(cas.unwrap_or_default()))),
            // Envoy gives an empty value as none, with the version of the write that made it so.
            Ok((None, Some(cas))) => Some((Vec::new(), Version(cas))),
            _ => None,
        }
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        if hostcalls::set_shared_data(key, Some(value), None).is_err() {
            log::error!("shared data refused a write of {key}");
        }
    }

    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
        hostcalls::set_shared_data(key, Some(value), Some(version.0)).is_ok()
    }
}

impl Host for Envoy {
    type Stream = EnvoyStream;

    fn clock(&self) -> u64 {
        u64::try_from(nanoseconds() / 1_000_000).unwrap_or(u64::MAX)
    }

    /// The time between two looks at the clock differs from process to process too.
    fn seed(&self) -> [u64; 32] {
        std::array::from_fn(|_| u64::try_from(nanoseconds()).unwrap_or(u64::MAX))
    }

    fn node(&self) -> Option<Id> {
        let node = hostcalls::get_property(vec!["xds", "node", "id"]);
        Id::try_from(String::from_utf8(node.ok().flatten()?).ok()?).ok()
    }

    fn define(&mut self, kind: MetricKind, name: &str) -> Metric {
        let kind = match kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
        };
        Metric(hostcalls::define_metric(kind, &format!("latchkey.{name}")).ok())
    }

    fn add(&mut self, metric: Metric, step: u64) {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        if let Some(id) = metric.0 {
            let _ = hostcalls::increment_metric(id, step);
        }
    }

    fn set(&mut self, metric: Metric, value: u64) {
        if let Some(id) = metric.0 {
            let _ = hostcalls::record_metric(id, value);
        }
    }

    fn call(&mut self, call: &Call<'_>) -> Option<CallId> {
        let mut headers = vec![
            (":method", call.method),
            (":path", call.path),
            (":authority", "refresher"),
        ];
        if call.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = call.body.map(str::as_bytes);
        let sent = hostcalls::dispatch_http_call(call.cluster, headers, body, vec![], call.timeout);
        sent.ok().map(CallId)
    }

    fn tick_each(&mut self, milliseconds: u64) {
        let _ = hostcalls::set_tick_period(Duration::from_millis(milliseconds));
    }

    fn enter(&mut self, context: u32) -> Option<EnvoyStream> {
        let entered = hostcalls::set_effective_context(context);
        entered.ok().map(|()| EnvoyStream)
    }

    fn leave(&mut self, root: u32) {
        let _ = hostcalls::set_effective_context(root);
    }
}

// === impl EnvoyStream ===

impl Stream for EnvoyStream {
    fn headers(&self, side: Side) -> HeaderMap {
        let headers = hostcalls::get_map_bytes(headers_of(side));
        let headers = headers.unwrap_or_default().into();
        #[cfg(feature = "fault-injection")]
        super::fault::on_headers(&headers);
        headers
    }

    fn header(&self, side: Side, name: &str) -> Option<Vec<u8>> {
        let value = hostcalls::get_map_value_bytes(headers_of(side), name);
        value.ok().flatten()
    }

    fn set_header(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool {
        hostcalls::set_map_value_bytes(headers_of(side), name, value).is_ok()
    }

    fn set_request_headers(&mut self, headers: Vec<(&str, &[u8])>) -> bool {
        hostcalls::set_map_bytes(MapType::HttpRequestHeaders, headers).is_ok()
    }

    fn body(&self, side: Side, start: usize, size: usize) -> Vec<u8> {
        let body = hostcalls::get_buffer(body_of(side), start, size);
        body.ok().flatten().unwrap_or_default()
    }

    fn set_body(&mut self, side: Side, size: usize, body: &[u8]) {
        let _ = hostcalls::set_buffer(body_of(side), 0, size, body);
    }

    fn append_body(&mut self, side: Side, size: usize, body: &[u8]) {
        // Envoy appends what begins where the buffer ends, and puts what has no length before it.
        let _ = hostcalls::set_buffer(body_of(side), size, 0, body);
    }

    fn property(&self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_property(vec![name]).ok().flatten()
    }

    fn answered_by(&self) -> Option<Vec<u8>> {
        let address = hostcalls::get_property(vec!["upstream", "address"]);
        address.ok().flatten()
    }

    fn connection(&self) -> Option<u64> {
        number_at(vec!["connection", "id"])
    }

    fn may_break_off(&self) -> bool {
        let protocol = hostcalls::get_property(vec!["request", "protocol"]);
        let protocol = protocol.ok().flatten().unwrap_or_default();
        !protocol.starts_with(b"HTTP/1")
    }

    fn was_not_sent(&self) -> bool {
        // The address on this side is known once there is a connection.
        let has = |name| {
            let found = hostcalls::get_property(vec!["upstream", name]);
            found.ok().flatten().is_some_and(|value| !value.is_empty())
        };
        has("address") && !has("local_address")
    }

    fn caller_left(&self) -> bool {
        let flags = number_at(vec!["response", "flags"]);
        flags.is_some_and(|flags| flags & CALLER_LEFT != 0)
    }

    fn set_property(&mut self, name: &str, value: &str) {
        if hostcalls::set_property(vec![name], Some(value.as_bytes())).is_err() {
            log::error!("the property {name} could not be set");
        }
    }

    fn reply(&mut self, status: u16, headers: Vec<(&str, &str)>, body: &[u8]) {
        if hostcalls::send_http_response(status.into(), headers, Some(body)).is_err() {
            log::error!("a reply of status {status} could not be sent");
        }
    }

    fn resume(&mut self, side: Side) {
        let _ = match side {
            Side::Request => hostcalls::resume_http_request(),
            Side::Answer => hostcalls::resume_http_response(),
        };
    }
}
