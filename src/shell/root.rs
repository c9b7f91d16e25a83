//! The root context: which role a plugin has, and the talk with the refresher.

use std::time::Duration;

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{BufferType, ContextType, MapType},
};

use super::{
    attempt::AttemptContext,
    config::Config,
    envoy,
    gate::{GateContext, look_at_waiting},
    held::look_at_held,
    vm,
};
use crate::sync::poll::Poll;

/// How often a gate's root looks whether something is to be done. A poll's answer is acted on
/// when it comes; this bounds how late the first poll, a lease taken over, and a report are.
const TICK: Duration = Duration::from_millis(100);

/// How long the refresher may take over a batch of reports or records, or over counts.
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// The root context of one plugin in one VM.
#[derive(Debug)]
pub(super) struct Root {
    id: u32,
    role: Option<Role>,
    cluster: String,
    poll: Option<u32>,
    report: Option<u32>,
    records: Option<u32>,
    counts: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Gate,
    Attempt,
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let root_id = hostcalls::get_property(vec!["plugin_root_id"])
            .ok()
            .flatten();
        let role = match root_id.as_deref() {
            Some(b"gate") => Role::Gate,
            Some(b"attempt") => Role::Attempt,
            _ => {
                log::error!("root_id: expected gate or attempt");
                return false;
            }
        };
        envoy::declare_properties();
        self.role = Some(role);
        if role == Role::Attempt {
            return true;
        }
        let bytes = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX);
        match Config::parse(bytes.ok().flatten().as_deref()) {
            Ok(config) => {
                vm::with(|vm| vm.configure(&config));
                self.cluster = config.refresher_cluster;
                hostcalls::set_tick_period(TICK).is_ok()
            }
            Err(error) => {
                log::error!("{error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        let due = vm::with(vm::Vm::tick).unwrap_or_default();
        if let Some(body) = due.report {
            self.report = self.post("/reports", &body);
            if self.report.is_none() {
                vm::with(|vm| vm.reported(b""));
            }
        }
        self.send_records(due.records);
        if let Some(body) = due.counts {
            self.send_counts(&body);
        }
        self.send_poll(due.poll);
        look_at_waiting(self.id);
        look_at_held(self.id);
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match self.role? {
            Role::Gate => Box::new(GateContext::new(context_id)),
            Role::Attempt => Box::new(AttemptContext::new(context_id)),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        size: usize,
        _trailers: usize,
    ) {
        let status = hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status");
        let status = status.ok().flatten().unwrap_or_default();
        if self.poll == Some(token) {
            self.poll = None;
            let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size);
            let body = body.ok().flatten().unwrap_or_default();
            #[cfg(feature = "fault-injection")]
            super::fault::on_page(&body);
            let next = vm::with(|vm| vm.polled(&status, &body)).flatten();
            self.send_poll(next);
            look_at_waiting(self.id);
        } else if self.report == Some(token) {
            self.report = None;
            vm::with(|vm| vm.reported(&status));
        } else if self.records == Some(token) {
            self.records = None;
            let next = vm::with(|vm| vm.recorded(&status)).flatten();
            self.send_records(next);
        } else if self.counts == Some(token) {
            self.counts = None;
            let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size);
            let body = body.ok().flatten().unwrap_or_default();
            vm::with(|vm| vm.counted(&status, &body));
            look_at_waiting(self.id);
        }
    }
}

// === impl Root ===

impl Root {
    /// The context that Envoy calls by this number, without a role yet.
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            role: None,
            cluster: String::new(),
            poll: None,
            report: None,
            records: None,
            counts: None,
        }
    }

    fn send_poll(&mut self, poll: Option<Poll>) {
        let Some(poll) = poll else { return };
        let headers = vec![
            (":method", "GET"),
            (":path", poll.path.as_str()),
            (":authority", "refresher"),
        ];
        let timeout = Duration::from_secs(poll.timeout_seconds);
        let call = hostcalls::dispatch_http_call(&self.cluster, headers, None, vec![], timeout);
        self.poll = call.ok();
        if self.poll.is_none() {
            vm::with(vm::Vm::poll_failed);
        }
    }

    fn send_records(&mut self, body: Option<String>) {
        let Some(body) = body else { return };
        self.records = self.post("/reports", &body);
        if self.records.is_none() {
            vm::with(|vm| vm.recorded(b""));
        }
    }

    fn send_counts(&mut self, body: &str) {
        self.counts = self.post("/counts", body);
        if self.counts.is_none() {
            vm::with(|vm| vm.counted(b"", b""));
        }
    }

    fn post(&self, path: &str, body: &str) -> Option<u32> {
        let headers = vec![
            (":method", "POST"),
            (":path", path),
            (":authority", "refresher"),
            ("content-type", "application/json"),
        ];
        let body = Some(body.as_bytes());
        hostcalls::dispatch_http_call(&self.cluster, headers, body, vec![], POST_TIMEOUT).ok()
    }
}
