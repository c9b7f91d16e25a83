//! The contexts that Envoy calls: one root for each plugin in each VM, and one for each stream of
//! it.

use std::time::Duration;

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{Action, BufferType, ContextType, MapType},
};

use super::{
    VM,
    envoy::{self, EnvoyStream},
};
use crate::{
    host::{self, CallId},
    stream::{Event, Role, Vm, beat::TICK_MS},
};

/// The interval at which a gate's root ticks.
const TICK: Duration = Duration::from_millis(TICK_MS);

/// The root context of one plugin in one VM.
#[derive(Debug)]
pub(super) struct Root {
    id: u32,
    role: Option<Role>,
}

/// The context of one stream.
#[derive(Debug)]
struct StreamContext {
    id: u32,
    role: Role,
}

// === impl Root ===

impl Root {
    /// Makes the context that Envoy calls by this number, without a role yet.
    pub(super) fn new(id: u32) -> Self {
        Self { id, role: None }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        let status = hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status");
        let status = status.ok().flatten().unwrap_or_default();
        let body = || envoy::call_body(size);
        VM.with(|vm| vm.take(|vm| vm.on_call_answer(self.id, CallId(call), &status, body)));
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        self.role = envoy::root_id().and_then(|id| Role::parse(&id));
        envoy::declare_properties();
        match self.role {
            Some(Role::Attempt) => true,
            Some(Role::Gate) => {
                let config = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX);
                let config = config.ok().flatten();
                let taken = VM.with(|vm| vm.take(|vm| vm.configure(config.as_deref())));
                match taken {
                    Some(Ok(())) => hostcalls::set_tick_period(TICK).is_ok(),
                    Some(Err(error)) => {
                        log::error!("{error}");
                        false
                    }
                    None => false,
                }
            }
            None => {
                log::error!("root_id: expected gate or attempt");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        VM.with(|vm| vm.take(|vm| vm.tick(self.id)));
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let role = self.role?;
        Some(Box::new(StreamContext { id, role }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// A listener that is replaced takes its plugin's roots away, and Envoy their calls: where another root of the VM goes on,
/// it makes them anew.
impl Drop for Root {
    fn drop(&mut self) {
        if self.role == Some(Role::Gate) {
            VM.with(|vm| vm.take(Vm::lose_calls));
        }
    }
}

// === impl StreamContext ===

impl StreamContext {
    fn on(&self, event: Event) -> Action {
        match VM.with(|vm| vm.on(self.role, self.id, event, &mut EnvoyStream)) {
            host::Action::Continue => Action::Continue,
            host::Action::Pause => Action::Pause,
        }
    }
}

impl Context for StreamContext {}

impl HttpContext for StreamContext {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        self.on(Event::RequestHeaders { end })
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.on(Event::RequestBody { size, end })
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.on(Event::RequestTrailers)
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.on(Event::AnswerHeaders { end })
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.on(Event::AnswerBody { size, end })
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.on(Event::AnswerTrailers)
    }
}

impl Drop for StreamContext {
    fn drop(&mut self) {
        VM.with(|vm| vm.end(self.role, self.id, &mut EnvoyStream));
    }
}
