//! A fake of the proxy.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use super::*;

/// Shared data that several fake VMs hold in common.
#[derive(Debug, Default, Clone)]
pub(crate) struct FakeSharedData(Rc<RefCell<HashMap<String, Value>>>);

type Value = (Vec<u8>, u32);

impl SharedData for FakeSharedData {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        let map = self.0.borrow();
        map.get(key)
            .map(|(value, cas)| (value.clone(), Version(*cas)))
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        let mut map = self.0.borrow_mut();
        let entry = map.entry(key.to_owned()).or_default();
        *entry = (value.to_vec(), entry.1 + 1);
    }

    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
        let fits = self.read(key).is_none_or(|(_, now)| now == version);
        if fits {
            self.write(key, value);
        }
        fits
    }
}

/// A proxy process, as each of its VMs sees it: clones are further VMs.
#[derive(Debug, Default, Clone)]
pub(crate) struct FakeHost {
    pub(crate) shared: FakeSharedData,
    /// Unix milliseconds.
    pub(crate) time: Rc<Cell<u64>>,
    /// The calls that nobody has answered.
    pub(crate) calls: Rc<RefCell<Vec<FakeCall>>>,
    pub(crate) metrics: Rc<RefCell<BTreeMap<String, u64>>>,
    /// The interval of ticks, once it was set.
    pub(crate) interval: Rc<Cell<u64>>,
    /// The streams that may be entered.
    pub(crate) streams: Rc<RefCell<HashMap<u32, FakeStream>>>,
    /// The calls of this host and its streams, in order.
    pub(crate) log: Log,
    numbers: Rc<Cell<u32>>,
    names: Rc<RefCell<Vec<String>>>,
}

/// Names of calls.
pub(crate) type Log = Rc<RefCell<Vec<String>>>;

/// A call that was sent.
#[derive(Debug, Clone)]
pub(crate) struct FakeCall {
    pub(crate) id: CallId,

    pub(crate) path: String,
    pub(crate) body: String,
}

/// A header block. The proxy has one for all filters of a request.
pub(crate) type FakeHeaders = Rc<RefCell<Vec<(String, Vec<u8>)>>>;

/// One filter of one request.
#[derive(Debug, Default, Clone)]
pub(crate) struct FakeStream(Rc<RefCell<State>>);

/// A stream, as the proxy has it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) request: FakeHeaders,
    pub(crate) answer: FakeHeaders,
    /// The bytes of the bodies that the proxy holds.
    pub(crate) request_body: Vec<u8>,
    pub(crate) answer_body: Vec<u8>,
    pub(crate) properties: Rc<RefCell<BTreeMap<String, String>>>,
    /// The caller has gone away.
    pub(crate) caller_left: bool,
    /// There was no connection to the platform.
    pub(crate) was_not_sent: bool,
    /// The number of the caller's connection.
    pub(crate) connection: Option<u64>,
    /// The caller speaks HTTP/2.
    pub(crate) may_break_off: bool,
    /// The address of the host that answers.
    pub(crate) answered_by: &'static str,
    /// A piece of the answer's body is there, or waits: before and after that a body that is set crashes the VM.
    pub(crate) holds_answer: bool,
    /// The request's headers were let go alone: the SDK crashes on a write to them.
    pub(crate) headers_went: bool,
    pub(crate) reply: Option<FakeReply>,
    pub(crate) resumed: Vec<Side>,
    pub(crate) log: Log,
}

/// An answer that a filter gave.
#[derive(Debug, Clone)]
pub(crate) struct FakeReply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl FakeHost {
    fn next_number(&self) -> u32 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    fn note(&self, call: String) {
        self.log.borrow_mut().push(call);
    }

    /// Takes the calls that nobody has answered, but for those to `path` and its queries.
    pub(crate) fn take_calls(&self, path: &str) -> Vec<FakeCall> {
        let mut calls = self.calls.borrow_mut();
        let (taken, left) = std::mem::take(&mut *calls)
            .into_iter()
            .partition(|call| call.path == path || call.path.split('?').next() == Some(path));
        *calls = left;
        taken
    }
}

impl SharedData for FakeHost {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.note(format!("read {key}"));
        self.shared.read(key)
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        self.note(format!("write {key}"));
        self.shared.write(key, value);
    }

    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
        self.note(format!("swap {key}"));
        self.shared.swap(key, value, version)
    }
}

impl Host for FakeHost {
    type Stream = FakeStream;

    fn clock(&self) -> u64 {
        self.note("clock".to_owned());
        self.time.get()
    }

    fn seed(&self) -> [u64; 32] {
        [7; 32]
    }

    fn node(&self) -> Option<Id> {
        Id::try_from("node-1").ok()
    }

    fn define(&mut self, _: MetricKind, name: &str) -> Metric {
        let mut names = self.names.borrow_mut();
        let known = names.iter().position(|one| one == name);
        let number = known.unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        Metric(u32::try_from(number).ok())
    }

    fn add(&mut self, metric: Metric, step: u64) {
        let name = self.names.borrow()[metric.0.unwrap() as usize].clone();
        *self.metrics.borrow_mut().entry(name).or_default() += step;
    }

    fn set(&mut self, metric: Metric, value: u64) {
        let name = self.names.borrow()[metric.0.unwrap() as usize].clone();
        self.metrics.borrow_mut().insert(name, value);
    }

    fn call(&mut self, call: &Call<'_>) -> Option<CallId> {
        let id = CallId(self.next_number());
        self.calls.borrow_mut().push(FakeCall {
            id,

            path: call.path.to_owned(),
            body: call.body.unwrap_or_default().to_owned(),
        });
        Some(id)
    }

    fn tick_each(&mut self, milliseconds: u64) {
        self.interval.set(milliseconds);
    }

    fn enter(&mut self, context: u32) -> Option<FakeStream> {
        self.streams.borrow().get(&context).cloned()
    }

    fn leave(&mut self, _: u32) {}
}

impl FakeStream {
    pub(crate) fn new(state: State) -> Self {
        Self(Rc::new(RefCell::new(state)))
    }

    /// Returns the stream as the proxy has it.
    pub(crate) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.0.borrow_mut()
    }

    fn note(&self, call: String) {
        self.0.borrow().log.borrow_mut().push(call);
    }

    fn block(&self, side: Side) -> FakeHeaders {
        let state = self.0.borrow();
        Rc::clone(match side {
            Side::Request => &state.request,
            Side::Answer => &state.answer,
        })
    }
}

impl Stream for FakeStream {
    fn headers(&self, side: Side) -> HeaderMap {
        self.note(format!("headers of {side:?}"));
        self.block(side).borrow().clone().into()
    }

    fn header(&self, side: Side, name: &str) -> Option<Vec<u8>> {
        self.note(format!("header {name}"));
        first(&self.block(side).borrow(), name)
    }

    fn set_header(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool {
        self.note(format!("set header {name}"));
        assert!(
            side == Side::Answer || !self.0.borrow().headers_went,
            "the headers are not this filter's any more"
        );
        let block = self.block(side);
        let mut block = block.borrow_mut();
        block.retain(|(one, _)| one != name);
        if let Some(value) = value {
            block.push((name.to_owned(), value.to_vec()));
        }
        true
    }

    fn set_request_headers(&mut self, headers: Vec<(&str, &[u8])>) -> bool {
        self.note("set request headers".to_owned());
        assert!(
            !self.0.borrow().headers_went,
            "the headers are not this filter's any more"
        );
        let owned = headers.into_iter();
        let owned = owned.map(|(name, value)| (name.to_owned(), value.to_vec()));
        *self.block(Side::Request).borrow_mut() = owned.collect();
        true
    }

    fn body(&self, side: Side, start: usize, size: usize) -> Vec<u8> {
        self.note(format!("body of {side:?}"));
        let state = self.0.borrow();
        let body = match side {
            Side::Request => &state.request_body,
            Side::Answer => &state.answer_body,
        };
        let end = body.len().min(start.saturating_add(size));
        body.get(start..end).unwrap_or_default().to_vec()
    }

    fn set_body(&mut self, side: Side, size: usize, body: &[u8]) {
        self.note(format!("set body of {side:?}"));
        let mut state = self.0.borrow_mut();
        assert!(
            side == Side::Request || state.holds_answer,
            "there is no body"
        );
        let held = match side {
            Side::Request => &mut state.request_body,
            Side::Answer => &mut state.answer_body,
        };
        held.splice(..size, body.iter().copied());
    }

    fn append_body(&mut self, side: Side, size: usize, body: &[u8]) {
        self.note(format!("append to body of {side:?}"));
        let mut state = self.0.borrow_mut();
        let held = match side {
            Side::Request => &mut state.request_body,
            Side::Answer => &mut state.answer_body,
        };
        assert_eq!(held.len(), size, "the proxy holds something else");
        held.extend_from_slice(body);
    }

    fn property(&self, name: &str) -> Option<Vec<u8>> {
        self.note(format!("property {name}"));
        let state = self.0.borrow();
        let properties = state.properties.borrow();
        properties.get(name).map(|value| value.clone().into_bytes())
    }

    fn answered_by(&self) -> Option<Vec<u8>> {
        self.note("answered by".to_owned());
        Some(self.0.borrow().answered_by.as_bytes().to_vec())
    }

    fn connection(&self) -> Option<u64> {
        self.note("connection".to_owned());
        self.0.borrow().connection
    }

    fn may_break_off(&self) -> bool {
        self.0.borrow().may_break_off
    }

    fn was_not_sent(&self) -> bool {
        self.0.borrow().was_not_sent
    }

    fn caller_left(&self) -> bool {
        self.0.borrow().caller_left
    }

    fn set_property(&mut self, name: &str, value: &str) {
        self.note(format!("set property {name}"));
        let state = self.0.borrow();
        let mut properties = state.properties.borrow_mut();
        properties.insert(name.to_owned(), value.to_owned());
    }

    fn reply(&mut self, status: u16, headers: Vec<(&str, &str)>, body: &[u8]) {
        let owned = headers.into_iter();
        let owned = owned.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        self.0.borrow_mut().reply = Some(FakeReply {
            status,
            headers: owned.collect(),
            body: body.to_vec(),
        });
    }

    fn resume(&mut self, side: Side) {
        self.0.borrow_mut().resumed.push(side);
    }
}

/// The first value of a header.
pub(crate) fn first(headers: &[(String, Vec<u8>)], name: &str) -> Option<Vec<u8>> {
    let found = headers.iter().find(|(one, _)| one == name);
    found.map(|(_, value)| value.clone())
}
