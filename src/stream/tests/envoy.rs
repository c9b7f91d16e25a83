//! Plays Envoy around the streams of fake VMs: one request runs through the gate, the router and
//! the attempts, with the internal redirect, the retry to the escape listener and the replay of
//! the body as Envoy does them.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use serde_json::Value;

use crate::{
    gate::Request,
    home::ThingHash,
    host::{
        Action, SharedData, Side,
        fake::{FakeHeaders, FakeHost, FakeReply, FakeStream, State, first},
    },
    id::Id,
    snapshot::{
        Account, Policy, Record,
        bucket::HEAD_KEY,
        fixture,
        page::{Epoch, PageHeader},
    },
    stream::{Event, Role, Turns},
    worker::refresher::home_path,
};

/// When the tests begin, in Unix milliseconds: the start of a minute.
pub(super) const START: u64 = 1_790_000_040_000;

/// The key that callers present.
pub(super) const KEY: &str = "lk_0123456789";

/// The header that the router takes its deadline for an attempt from.
const DEADLINE: &str = "x-envoy-upstream-rq-per-try-timeout-ms";

/// The root context of the gate in each VM.
const ROOT: u32 = 1;

/// The most that Envoy keeps of a request for another try, in bytes. Envoy's own is 32 MiB.
pub(super) const BUFFER_LIMIT: usize = 64 * 1024;

/// A request to the Responses API.
pub(super) const BODY: &[u8] = br#"{"model":"gpt-6.1-sol","input":"hi"}"#;

/// An Envoy process with one worker, and its refresher.
pub(super) struct Envoy {
    pub(super) host: FakeHost,
    vm: Rc<Turns<FakeHost>>,
    contexts: u32,
    revision: u64,
    /// Callers speak HTTP/2.
    pub(super) is_http2: bool,
}

/// A request of a caller.
pub(super) struct Call {
    vm: Rc<Turns<FakeHost>>,
    host: FakeHost,
    /// Shared by all filters, and by the tries: what one changes the next ones see.
    headers: FakeHeaders,
    properties: Rc<RefCell<BTreeMap<String, String>>>,
    /// The bytes of its body that the caller has sent.
    body: Vec<u8>,
    /// The bytes of it that its attempt let go.
    sent: Vec<u8>,
    whole: bool,
    /// Its request ends with trailers.
    has_trailers: bool,
    /// More came than Envoy keeps.
    is_over: bool,
    gate: (u32, FakeStream),
    /// Lets the gate's filter chain go on.
    is_open: bool,
    attempt: Option<(u32, FakeStream)>,
    /// Counts the attempts of the try.
    count: u32,
    /// The milliseconds after which the router gives an attempt of the try up.
    deadline: Option<String>,
    answer: Option<FakeReply>,
    contexts: u32,
    connection: u64,
    is_http2: bool,
}

impl Envoy {
    /// One whose refresher has published these records.
    pub(super) fn with(records: &[Record]) -> Self {
        let host = FakeHost::default();
        host.time.set(START);
        let mut envoy = Self::on(host, records);
        envoy.publish(records);
        envoy
    }

    /// One with these accounts of the platform `codex`, the first of which serves while it can.
    pub(super) fn with_accounts(accounts: &[Account]) -> Self {
        Self::with(&records(accounts))
    }

    /// One that has not heard from its refresher yet.
    pub(super) fn starting() -> Self {
        let host = FakeHost::default();
        host.time.set(START);
        Self::on(host, &[])
    }

    fn on(host: FakeHost, _: &[Record]) -> Self {
        let vm = Rc::new(Turns::new(host.clone()));
        vm.take(|vm| vm.configure(None)).unwrap().unwrap();
        Self {
            host,
            vm,
            contexts: 100,
            revision: 0,
            is_http2: false,
        }
    }

    /// Has the VM read the snapshot, as its first request does.
    pub(super) fn reads_the_snapshot(&self) {
        let asked = self.vm.take(|vm| vm.worker.ask(&mut Request::default()));
        assert!(asked.is_some_and(|asked| asked.is_err()));
    }

    /// Gives the gate this configuration.
    pub(super) fn configure(&mut self, json: &str) {
        let configured = self.vm.take(|vm| vm.configure(Some(json.as_bytes())));
        configured.unwrap().unwrap();
    }

    /// Runs a callback on the VM.
    pub(super) fn take<T>(&self, callback: impl FnOnce(&mut super::Vm<FakeHost>) -> T) -> T {
        self.vm.take(callback).unwrap()
    }

    /// Another VM of the same process, as after a crash or a reload.
    pub(super) fn new_vm(&self) -> Self {
        Self {
            contexts: self.contexts + 1_000,
            revision: self.revision,
            ..Self::on(self.host.clone(), &[])
        }
    }

    /// Lets time pass, ticks, and answers all that the refresher is told. Returns those bodies.
    pub(super) fn after(&mut self, milliseconds: u64) -> Vec<Value> {
        self.host.time.set(self.host.time.get() + milliseconds);
        self.vm.take(|vm| vm.tick(ROOT)).unwrap();
        let mut told = Vec::new();
        loop {
            let calls = self.host.take_calls("/reports");
            if calls.is_empty() {
                return told;
            }
            for call in calls {
                told.push(serde_json::from_str(&call.body).unwrap());
                let answered = |vm: &mut super::Vm<FakeHost>| {
                    vm.on_call_answer(ROOT, call.id, b"204", Vec::new);
                };
                self.vm.take(answered).unwrap();
            }
        }
    }

    /// Returns what the refresher is told of the requests that came to their end: for each its
    /// account, status, and what there is of verdict, error and tokens.
    pub(super) fn records(&mut self) -> Vec<String> {
        let told = self.after(2_000);
        let records = told.iter().filter_map(|body| body["records"].as_array());
        let line = |record: &Value| {
            let text = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
            let tokens = &record["usage"]["total"];
            format!(
                "{} {} attempts={} {} {} {} tokens={tokens}",
                text("account"),
                record["status"],
                record["attempts"],
                text("verdict"),
                text("error"),
                text("completeness"),
            )
        };
        records.flatten().map(line).collect()
    }

    /// Has the refresher answer a poll with these records, in place of all that it has said.
    pub(super) fn publish(&mut self, records: &[Record]) {
        self.after(600);
        let lines: Vec<String> = records.iter().map(|one| one.to_line().unwrap()).collect();
        let lines = lines.iter().map(String::as_str);
        self.revision += 1;
        let epoch = Epoch::from_bytes([1; 16]);
        let page = PageHeader::encode(epoch, true, (0, self.revision), false, lines);
        let poll = self.host.take_calls("/snapshot").pop();
        let poll = poll.expect("a poll was sent");
        self.vm
            .take(|vm| vm.on_call_answer(ROOT, poll.id, b"200", || page.clone()))
            .unwrap();
        assert!(self.host.read(HEAD_KEY).is_some());
    }

    /// Has the refresher say which account has `resp_1`, which `key` names.
    pub(super) fn tells_home(&mut self, key: &str, account: &str) {
        self.answers_about(key, "200", account, 1);
    }

    /// Has it say that another key made `resp_1`.
    pub(super) fn tells_others(&mut self, key: &str) {
        self.answers_about(key, "403", "", 1);
    }

    /// Has it not know `resp_1`, however often it is asked.
    pub(super) fn tells_of_no_home(&mut self, key: &str) {
        self.answers_about(key, "404", "", 4);
    }

    /// Has it not know `resp_1` yet.
    pub(super) fn is_asked_in_vain(&mut self, key: &str) {
        self.answers_about(key, "404", "", 1);
    }

    /// Has it not answer.
    pub(super) fn fails_home(&mut self, key: &str) {
        self.answers_about(key, "", "", 4);
    }

    /// Has it say at one tick which accounts have these things, which key_1 names.
    #[track_caller]
    pub(super) fn tells_homes_of(&mut self, homes: &[(&str, &str)]) {
        let key = Id::try_from("key_1").unwrap();
        self.vm.take(|vm| vm.tick(ROOT)).unwrap();
        for (thing, account) in homes {
            let calls = self
                .host
                .take_calls(&home_path(&ThingHash::of(thing), &key));
            assert_eq!(calls.len(), 1, "{thing} is asked about once");
            let answered = |vm: &mut super::Vm<FakeHost>| {
                let body = || account.as_bytes().to_vec();
                vm.on_call_answer(ROOT, calls[0].id, b"200", body);
            };
            self.vm.take(answered).unwrap();
        }
    }

    #[track_caller]
    fn answers_about(&mut self, key: &str, status: &str, body: &str, times: usize) {
        let key = Id::try_from(key).unwrap();
        let path = home_path(&ThingHash::of("resp_1"), &key);
        let early = self.host.take_calls(&path);
        assert!(early.is_empty(), "a stream does not hear of its calls");
        for time in 0..times {
            if time > 0 {
                self.host.time.set(self.host.time.get() + 400);
            }
            self.vm.take(|vm| vm.tick(ROOT)).unwrap();
            let calls = self.host.take_calls(&path);
            assert_eq!(calls.len(), 1, "it is asked about once");
            let answered = |vm: &mut super::Vm<FakeHost>| {
                let body = || body.as_bytes().to_vec();
                vm.on_call_answer(ROOT, calls[0].id, status.as_bytes(), body);
            };
            self.vm.take(answered).unwrap();
        }
    }

    /// A request begins, on a connection of its own.
    pub(super) fn call(&mut self, headers: &[(&str, &str)]) -> Call {
        self.call_on(u64::from(self.contexts), headers)
    }

    /// A request begins on the connection of this number.
    pub(super) fn call_on(&mut self, connection: u64, headers: &[(&str, &str)]) -> Call {
        self.contexts += 10;
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let headers: FakeHeaders = Rc::new(RefCell::new(headers.collect()));
        let mut call = Call {
            vm: Rc::clone(&self.vm),
            host: self.host.clone(),
            properties: Rc::default(),
            gate: (0, FakeStream::default()),
            headers,
            body: Vec::new(),
            sent: Vec::new(),
            whole: false,
            has_trailers: false,
            is_over: false,
            is_open: false,
            attempt: None,
            count: 0,
            deadline: None,
            answer: None,
            contexts: self.contexts,
            connection,
            is_http2: self.is_http2,
        };
        call.at_the_gate();
        call
    }

    /// A whole request to the Responses API.
    pub(super) fn ask(&mut self) -> Call {
        self.ask_as(KEY)
    }

    /// A caller's whole request with another key.
    pub(super) fn ask_as(&mut self, key: &str) -> Call {
        let bearer = format!("Bearer {key}");
        let mut headers = head("/v1/responses");
        headers[4].1 = &bearer;
        let mut call = self.call(&headers);
        call.sends(BODY, true);
        call
    }
}

/// The headers of a request to `path`.
pub(super) fn head(path: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "gateway:8080"),
        (":path", path),
        ("authorization", "Bearer lk_0123456789"),
        ("content-type", "application/json"),
    ]
}

/// The whole of a snapshot with these accounts of the platform `codex`, the first of which serves
/// while it can.
pub(super) fn records(accounts: &[Account]) -> Vec<Record> {
    let ids: Vec<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    let mut records = vec![
        Record::Doors(fixture::doors()),
        Record::Platform(fixture::platform("codex")),
        Record::Pool(fixture::pool("default", Policy::FillFirst, &ids)),
        Record::Key(fixture::client_key("key_1", KEY.as_bytes(), "default")),
    ];
    records.extend(accounts.iter().cloned().map(Record::Account));
    records
}

impl Call {
    fn next_context(&mut self) -> u32 {
        self.contexts += 1;
        self.contexts
    }

    fn stream(&mut self, request_body: Vec<u8>, answer: FakeHeaders) -> (u32, FakeStream) {
        let context = self.next_context();
        let stream = FakeStream::new(State {
            request: Rc::clone(&self.headers),
            answer,
            request_body,
            properties: Rc::clone(&self.properties),
            connection: Some(self.connection),
            may_break_off: self.is_http2,
            log: Rc::clone(&self.host.log),
            ..State::default()
        });
        let mut streams = self.host.streams.borrow_mut();
        streams.insert(context, stream.clone());
        (context, stream)
    }

    fn on(&self, role: Role, event: Event) -> Action {
        let (context, stream) = match role {
            Role::Gate => &self.gate,
            Role::Attempt => self.attempt.as_ref().expect("an attempt"),
        };
        self.vm.on(role, *context, event, &mut stream.clone())
    }

    fn end(&self, role: Role, (context, mut stream): (u32, FakeStream)) {
        self.host.streams.borrow_mut().remove(&context);
        self.vm.end(role, context, &mut stream);
    }

    /// The request's headers come to the gate, for the first time or again.
    fn at_the_gate(&mut self) {
        self.is_open = false;
        self.gate = self.stream(Vec::new(), FakeHeaders::default());
        let action = self.on(Role::Gate, Event::RequestHeaders { end: false });
        self.after_gate(action);
        if self.answer.is_none() && !self.body.is_empty() {
            self.body_at_the_gate();
        }
    }

    fn body_at_the_gate(&mut self) {
        if self.is_open {
            return;
        }
        self.gate.1.state().request_body = self.body.clone();
        let event = Event::RequestBody {
            size: self.body.len(),
            end: self.whole,
        };
        let action = self.on(Role::Gate, event);
        self.body_after_the_gate();
        self.after_gate(action);
    }

    /// What the gate made of the body goes on, and is what runs again.
    fn body_after_the_gate(&mut self) {
        self.body.clone_from(&self.gate.1.state().request_body);
    }

    /// A piece passes the gate, which has let the request go.
    fn piece_at_the_gate(&mut self, size: usize) {
        let event = Event::RequestBody {
            size,
            end: self.whole,
        };
        let action = self.on(Role::Gate, event);
        self.after_gate(action);
    }

    /// Does what the gate said: its own answer, or on to the router.
    fn after_gate(&mut self, action: Action) {
        let reply = self.gate.1.state().reply.take();
        if let Some(reply) = reply {
            assert_eq!(action, Action::Pause);
            self.answers(reply);
        } else if action == Action::Continue && !self.is_open {
            self.is_open = true;
            self.new_attempt();
        }
    }

    /// The router begins an attempt, and replays what has come of the body.
    fn new_attempt(&mut self) {
        self.count += 1;
        if self.count == 1 {
            self.deadline = self.header(DEADLINE);
            let mut headers = self.headers.borrow_mut();
            headers.retain(|(name, _)| name != DEADLINE);
        }
        let count = ("x-envoy-attempt-count", self.count.to_string().into_bytes());
        {
            let mut headers = self.headers.borrow_mut();
            headers.retain(|(name, _)| name != count.0);
            headers.push((count.0.to_owned(), count.1));
        }
        let attempt = self.stream(Vec::new(), FakeHeaders::default());
        self.sent.clear();
        self.attempt = Some(attempt);
        let action = self.on(Role::Attempt, Event::RequestHeaders { end: false });
        self.after_attempt(action);
        if self.answer.is_none() && !self.body.is_empty() {
            let body = self.body.clone();
            self.body_at_the_attempt(&body);
        }
    }

    fn body_at_the_attempt(&mut self, piece: &[u8]) {
        let stream = self.attempt.as_ref().expect("an attempt").1.clone();
        let size = {
            let mut state = stream.state();
            state.request_body.extend_from_slice(piece);
            state.request_body.len()
        };
        let end = self.whole && !self.has_trailers;
        self.at_the_attempt(&stream, Event::RequestBody { size, end });
        if self.has_trailers && self.answer.is_none() && self.attempt.is_some() {
            self.at_the_attempt(&stream, Event::RequestTrailers);
        }
    }

    /// The body goes on as the attempt left it, if it may.
    fn at_the_attempt(&mut self, stream: &FakeStream, event: Event) {
        let action = self.on(Role::Attempt, event);
        self.after_attempt(action);
        // Where it went back to the gate, a new attempt has it all.
        if action == Action::Continue && self.attempt.is_some() {
            let sent = std::mem::take(&mut stream.state().request_body);
            self.sent.extend(sent);
        }
    }

    fn after_attempt(&mut self, action: Action) {
        let stream = self.attempt.as_ref().map(|(_, stream)| stream.clone());
        let reply = stream.and_then(|stream| stream.state().reply.take());
        if let Some(reply) = reply {
            assert_eq!(action, Action::Pause);
            // It runs through the gate's filters of the answer, and is not redirected.
            self.answers(reply);
        }
    }

    /// The caller sends more of its body.
    pub(super) fn sends(&mut self, piece: &[u8], end: bool) {
        self.body.extend_from_slice(piece);
        self.whole = end;
        self.is_over |= self.body.len() > BUFFER_LIMIT;
        if self.answer.is_some() {
            return;
        }
        if self.attempt.is_some() {
            self.piece_at_the_gate(piece.len());
            if self.answer.is_none() {
                self.body_at_the_attempt(piece);
                self.escape_answers();
            }
        } else {
            self.body_at_the_gate();
        }
    }

    /// The caller ends its request with trailers.
    pub(super) fn sends_trailers(&mut self) {
        (self.whole, self.has_trailers) = (true, true);
        match self.attempt.as_ref().map(|(_, stream)| stream.clone()) {
            Some(stream) => {
                let action = self.on(Role::Gate, Event::RequestTrailers);
                self.after_gate(action);
                if self.answer.is_none() {
                    self.at_the_attempt(&stream, Event::RequestTrailers);
                }
            }
            None => {
                let action = self.on(Role::Gate, Event::RequestTrailers);
                self.body_after_the_gate();
                self.after_gate(action);
            }
        }
    }

    /// Returns the caller's answer as far as it has come.
    #[track_caller]
    pub(super) fn answer(&self) -> FakeReply {
        self.answer.clone().expect("an answer")
    }

    /// Returns the milliseconds after which the router gives the attempt up.
    pub(super) fn deadline(&self) -> Option<&str> {
        self.deadline.as_deref()
    }

    /// Returns true if it is at a platform.
    pub(super) fn has_attempt(&self) -> bool {
        self.attempt.is_some()
    }

    /// Returns true if there is an answer, of anybody.
    pub(super) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// The caller goes away.
    pub(super) fn goes_away(mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.1.state().caller_left = true;
            self.end(Role::Attempt, attempt);
        }
        let gate = std::mem::take(&mut self.gate);
        self.end(Role::Gate, gate);
    }

    /// The platform breaks its answer off.
    pub(super) fn breaks_off(mut self) {
        self.ends();
    }

    /// A header that is on the wire.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let value = first(&self.headers.borrow(), name)?;
        Some(String::from_utf8(value).unwrap())
    }

    /// The names of those that are.
    pub(super) fn header_names(&self) -> Vec<String> {
        let headers = self.headers.borrow();
        headers.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The body that the platform has got.
    #[track_caller]
    pub(super) fn sent_on(&self) -> Value {
        serde_json::from_slice(&self.sent).expect("JSON")
    }

    /// The bytes of that.
    pub(super) fn sent_bytes(&self) -> &[u8] {
        &self.sent
    }

    /// The body that the caller sent.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The request is at this account's cluster, with its credential.
    #[track_caller]
    pub(super) fn is_at(&self, account: &str) {
        assert!(self.answer.is_none(), "answered: {:?}", self.answer);
        assert!(self.attempt.is_some(), "it is still at the gate");
        let credential = format!("Bearer token-of-{account}");
        assert_eq!(self.header("authorization"), Some(credential));
    }

    /// The request waits at the gate.
    #[track_caller]
    pub(super) fn waits(&self) {
        assert!(self.answer.is_none() && self.attempt.is_none());
    }

    /// A tick has decided about a request that waited.
    pub(super) fn is_decided(&self) -> bool {
        let state = self.gate.1.state();
        state.reply.is_some() || !state.resumed.is_empty()
    }

    /// A tick has the gate answer a request that waited.
    pub(super) fn is_answered(&mut self) {
        let reply = self.gate.1.state().reply.take();
        self.answers(reply.expect("a reply"));
    }

    /// The router goes on with a request that the gate resumed.
    #[track_caller]
    pub(super) fn resumes(&mut self) {
        let resumed = std::mem::take(&mut self.gate.1.state().resumed);
        assert_eq!(resumed, [Side::Request]);
        self.body_after_the_gate();
        self.is_open = true;
        self.new_attempt();
    }

    /// The platform answers, whole.
    pub(super) fn platform(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        self.platform_begins(status, headers);
        self.platform_goes_on(body, true);
    }

    /// The platform sends its answer's headers.
    pub(super) fn platform_begins(&mut self, status: u16, headers: &[(&str, &str)]) {
        let stream = self.attempt.as_ref().expect("an attempt").1.clone();
        let status = (":status".to_owned(), status.to_string().into_bytes());
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        *stream.state().answer.borrow_mut() = [status].into_iter().chain(headers).collect();
        let action = self.on(Role::Attempt, Event::AnswerHeaders { end: false });
        self.after_attempt(action);
        if action == Action::Continue {
            self.answer_goes();
        }
    }

    /// The platform sends more of its answer's body. Where the attempt lets it go, the answer, or
    /// what became of it, goes on.
    pub(super) fn platform_goes_on(&mut self, piece: &[u8], end: bool) {
        let Some((_, stream)) = self.attempt.clone() else {
            return;
        };
        let size = {
            let mut state = stream.state();
            state.holds_answer = true;
            state.answer_body.extend_from_slice(piece);
            state.answer_body.len()
        };
        let action = self.on(Role::Attempt, Event::AnswerBody { size, end });
        self.after_attempt(action);
        if action == Action::Continue {
            stream.state().holds_answer = false;
            self.answer_goes();
            let body = std::mem::take(&mut stream.state().answer_body);
            if let Some(answer) = &mut self.answer {
                answer.body.extend(body);
            }
            if end && self.answer.is_some() && self.attempt.is_some() {
                self.ends();
            }
        }
    }

    /// The platform ends its answer, which is held, with trailers.
    pub(super) fn platform_sends_trailers(&mut self) {
        let stream = self.attempt.as_ref().expect("an attempt").1.clone();
        let action = self.on(Role::Attempt, Event::AnswerTrailers);
        self.after_attempt(action);
        if action == Action::Pause {
            return;
        }
        self.answer_goes();
        let body = std::mem::take(&mut stream.state().answer_body);
        if let Some(answer) = &mut self.answer {
            answer.body.extend(body);
        }
    }

    /// A tick has the attempt let go the answer that it held.
    #[track_caller]
    pub(super) fn is_judged(&mut self) {
        let stream = self.attempt.as_ref().expect("an attempt").1.clone();
        let resumed = std::mem::take(&mut stream.state().resumed);
        assert_eq!(resumed, [Side::Answer]);
        stream.state().holds_answer = false;
        self.answer_goes();
        let body = std::mem::take(&mut stream.state().answer_body);
        if let Some(answer) = &mut self.answer {
            answer.body.extend(body);
        }
    }

    /// The attempt holds the answer: no tick has let it go.
    #[track_caller]
    pub(super) fn is_held(&self) {
        let stream = &self.attempt.as_ref().expect("an attempt").1;
        assert!(!self.has_answer() && stream.state().resumed.is_empty());
    }

    /// The cluster has no host but the escape listener, which answers the first attempt.
    pub(super) fn platform_has_no_host(&mut self) {
        let stream = self.attempt.as_ref().expect("an attempt").1.clone();
        stream.state().answered_by = "/run/envoy-escape.sock";
        self.platform_begins(503, &[]);
    }

    /// The platform cannot be reached, or hangs up before it answers.
    pub(super) fn platform_hangs_up(&mut self) {
        self.escapes();
    }

    /// There is no connection to the platform.
    pub(super) fn platform_has_no_connection(&mut self) {
        let stream = self.attempt.as_ref().expect("an attempt").1.clone();
        stream.state().was_not_sent = true;
        self.escapes();
    }

    /// The router's retry goes to the escape listener.
    fn escapes(&mut self) {
        let attempt = self.attempt.take().expect("an attempt");
        self.end(Role::Attempt, attempt);
        self.new_attempt();
        assert_eq!(
            self.header("authorization"),
            None,
            "the escape hears nothing"
        );
        self.escape_answers();
    }

    /// The escape listener answers as soon as the headers are there, which the attempt keeps until
    /// the request is whole.
    fn escape_answers(&mut self) {
        if self.count == 2 && self.answer.is_none() && (self.whole || self.is_over) {
            self.platform_begins(503, &[]);
        }
    }

    /// The answer's headers go to the router: back to the gate, to the escape listener, or to the
    /// caller.
    fn answer_goes(&mut self) {
        if self.answer.is_some() {
            return;
        }
        let stream = self.attempt.as_ref().expect("an attempt").1.clone();
        let headers = stream.state().answer.borrow().clone();
        let status = first(&headers, ":status").unwrap();
        let can_run = self.whole && !self.is_over;
        match &*status {
            b"307" if can_run => self.runs_again(&headers),
            b"308" if !self.is_over => self.escapes(),
            _ => self.answers(FakeReply {
                status: String::from_utf8(status).unwrap().parse().unwrap(),
                headers,
                body: Vec::new(),
            }),
        }
    }

    /// Envoy's internal redirect: the whole filter chain anew, on the headers as they are.
    fn runs_again(&mut self, answer: &[(String, Vec<u8>)]) {
        let location = first(answer, "location").expect("a location");
        let location = String::from_utf8(location).unwrap();
        let path = location.split_once("gateway:8080").expect("its own URL").1;
        let attempt = self.attempt.take().expect("an attempt");
        self.end(Role::Attempt, attempt);
        let gate = std::mem::take(&mut self.gate);
        self.end(Role::Gate, gate);
        {
            let mut headers = self.headers.borrow_mut();
            headers.retain(|(name, _)| name != ":path" && name != "x-envoy-original-url");
            headers.push((":path".to_owned(), path.as_bytes().to_vec()));
            headers.push(("x-envoy-original-url".to_owned(), location.into_bytes()));
        }
        self.count = 0;
        self.at_the_gate();
    }

    /// An answer runs through the gate to the caller.
    fn answers(&mut self, mut reply: FakeReply) {
        reply.headers.retain(|(name, _)| name != ":status");
        let status = (":status".to_owned(), reply.status.to_string().into_bytes());
        reply.headers.push(status);
        *self.gate.1.state().answer.borrow_mut() = reply.headers.clone();
        let action = self.on(Role::Gate, Event::AnswerHeaders { end: false });
        assert_eq!(action, Action::Continue);
        reply.headers = self.gate.1.state().answer.borrow().clone();
        let status = first(&reply.headers, ":status").unwrap();
        reply.status = String::from_utf8(status).unwrap().parse().unwrap();
        self.answer = Some(reply);
    }

    /// The streams end as usual.
    fn ends(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.end(Role::Attempt, attempt);
        }
        let gate = std::mem::take(&mut self.gate);
        self.end(Role::Gate, gate);
    }

    /// The caller has this answer, and nothing of ours in it.
    #[track_caller]
    pub(super) fn gets(&mut self, status: u16, body: &[u8]) {
        let answer = self.answer.clone().expect("an answer");
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{text}");
        assert_eq!(text, String::from_utf8_lossy(body));
        for ours in ["x-latchkey-status", "location"] {
            assert_eq!(first(&answer.headers, ours), None, "{ours}");
        }
        if self.attempt.is_some() || self.gate.0 > 0 {
            self.ends();
        }
    }

    /// The caller has an error of the gateway's own, of this code. Returns the answer.
    #[track_caller]
    pub(super) fn is_refused(&mut self, status: u16, code: &str) -> FakeReply {
        let answer = self.answer.clone().expect("an answer");
        assert_eq!(answer.status, status);
        let found = first(&answer.headers, "x-latchkey-error").expect("an error of ours");
        assert_eq!(String::from_utf8_lossy(&found), code);
        self.ends();
        answer
    }
}
