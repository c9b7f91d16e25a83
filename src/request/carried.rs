//! The facts about a request that go from one try through Envoy's filters to the next.
//!
//! An internal redirect runs the whole request again, gate included. What the gate needs then
//! travels in the request's filter state, which no caller can reach; headers could be forged.

use std::fmt::Write;

use super::{Lacks, digits::push_number};
use crate::{
    dialect::{Demands, Dialect, EffortWord, ServiceTier},
    header::HeaderText,
    id::Id,
    snapshot::{Account, DoorId, EndpointId, ModelMap, Places},
};

/// The property that carries it, readable and in one line, so that access logs can show it:
/// `%FILTER_STATE(wasm.latchkey.request:PLAIN)%`.
pub const PROPERTY: &str = "latchkey.request";

/// The most accounts that one request is tried on, whatever the configuration says.
pub const MAX_TRIES: usize = 16;

/// The choice of an account that a request makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: any other would do.
    #[default]
    Any,
    /// The account of the try and no other.
    Account,
    /// One of the same platform.
    Platform,
}

/// The key that a request is from, the account that it is on, and where it has been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The account of this try.
    pub account: Id,
    /// The client key that it came with.
    pub key: Id,
    /// The pool that serves it.
    pub pool: Id,
    /// The URL to which the caller sent it, without the query.
    pub url: Url,
    /// The door that it came through.
    pub door: DoorId,
    /// The dialect of that door: what its caller speaks.
    pub dialect: Dialect,
    /// The endpoint at which the account's platform answers it.
    pub endpoint: EndpointId,
    /// Envoy's `x-request-id`; none where a caller sent one that is no [`Id`].
    pub id: Option<Id>,
    /// The time at which it came, in Unix milliseconds.
    pub at: u64,
    /// The number of this try.
    pub try_id: TryId,
    /// The time at which its first attempt failed, in Unix milliseconds; 0 where none has.
    pub since: u64,
    /// The accounts that it was tried on before, with the generation of the credential.
    pub tried: Vec<(Id, u64)>,
    /// The statuses of those tries that blame the request where a second account answers with one of
    /// them, each once.
    pub refused: Vec<u16>,
    /// An earlier try speaks against its account: no later one may.
    pub blames: bool,
    /// The account that told it to pause, and for which it was to wait: once. It may speak against that one again.
    pub waited: Option<Id>,
    /// The request is sent once more to an account that has not answered it
    /// ([`crate::worker::Worker::sends_again`]).
    pub resent: bool,
    /// The first account that may not do what is asked. It is left alone for that if another one does it.
    pub unable: Option<Id>,
    /// The model that it asks for, in visible ASCII, if that is known.
    pub model: Option<HeaderText>,
    /// The model that its caller asked for, where another one serves it.
    pub asked: Option<HeaderText>,
    /// The thing of an account that its path names.
    pub thing: Option<HeaderText>,
    /// The part of that thing that its path names.
    pub part: Option<HeaderText>,
    /// Its session, if it has one.
    pub session: Option<u64>,
    /// The turn is the first of that, as far as can be told.
    pub opens: bool,
    /// The requirements of platforms that it does not meet.
    pub lacks: Lacks,
    /// The request may not be translated.
    pub untranslated: bool,
    /// The model that it asks for serves it, or none.
    pub exact_model: bool,
    /// The demands of its operator.
    pub demands: Demands,
    /// The choice of an account that it makes.
    pub wish: Wish,
    /// The request is known to ask for a stream.
    pub streams: bool,
    /// The thing that it goes on from exists in this account and in no other.
    pub at_home: bool,
    /// An earlier try found that its account does not have what the request goes on from, or serves another model.
    pub moved: bool,
    /// Its key has a list of models, and nothing in the body names another one than [`Self::model`] or [`Self::asked`].
    pub one_model: bool,
    /// The request asks the platform to keep the answer, or not to; none where it leaves that to the platform.
    pub stored: Option<bool>,
}

/// One try of a request at the gate: a context. Those of a VM that came after a crash have the
/// same numbers as those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TryId {
    /// The number of its VM, which no other VM of this Envoy has had.
    pub vm: u64,
    /// Its number there.
    pub context: u32,
}

/// An absolute URL without a query, in visible ASCII; empty where the request's own is not so, or
/// names a user, whom Envoy would drop from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Url(String);

/// The longest [`Url`], in bytes: a host name is at most 253, our paths at most 256.
const MAX_URL_BYTES: usize = 1024;

/// The pairs `name=value` of [`Carried::encode`]'s text, with a space between each two.
#[derive(Clone, Copy)]
struct Pairs<'a>(&'a str);

/// Room for what [`Carried::encode`] usually writes, in bytes: it is made for every request.
const USUAL_BYTES: usize = 384;

// === impl Url ===

impl Url {
    /// The URL of a request that Envoy received by `scheme` for `authority` and `path`.
    pub fn new(scheme: &str, authority: &[u8], path: &str) -> Self {
        match std::str::from_utf8(authority) {
            Ok(authority) => Self::checked([scheme, "://", authority, path].concat()),
            Err(_) => Self::default(),
        }
    }

    /// The URL with a query put back, for a `location`; none where there is no URL.
    pub fn with_query(&self, query: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut url = self.0.clone().into_bytes();
        if !query.is_empty() {
            url.push(b'?');
            url.extend_from_slice(query);
        }
        Some(url)
    }

    fn checked(text: String) -> Self {
        if text.len() <= MAX_URL_BYTES
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'@')
        {
            Self(text)
        } else {
            Self::default()
        }
    }
}

// === impl TryId ===

impl TryId {
    fn parse(text: &str) -> Option<Self> {
        let (vm, context) = text.split_once(':')?;
        Some(Self {
            vm: vm.parse().ok()?,
            context: context.parse().ok()?,
        })
    }
}

// === impl Carried ===

impl Carried {
    /// The one account that it may be on, if it asked for it.
    pub fn wished_account(&self) -> Option<&str> {
        (self.wish == Wish::Account).then_some(self.account.as_str())
    }

    /// The property's value.
    pub fn encode(&self) -> String {
        // A new field that is not named here does not compile: what is not written below is lost on the way.
        let Self {
            account: _,
            key: _,
            pool: _,
            url: _,
            door: _,
            dialect: _,
            endpoint: _,
            id: _,
            at: _,
            try_id: _,
            since: _,
            tried: _,
            refused: _,
            blames: _,
            waited: _,
            resent: _,
            unable: _,
            model: _,
            asked: _,
            thing: _,
            part: _,
            session: _,
            opens: _,
            lacks: _,
            untranslated: _,
            exact_model: _,
            demands: _,
            wish: _,
            streams: _,
            at_home: _,
            moved: _,
            one_model: _,
            stored: _,
        } = self;
        let mut text = String::with_capacity(USUAL_BYTES);
        self.write_request(&mut text);
        self.write_wishes(&mut text);
        self.write_tries(&mut text);
        text
    }

    /// Writes whose request it is, where it goes, and what it names.
    fn write_request(&self, text: &mut String) {
        for (name, value) in [
            ("account=", self.account.as_str()),
            (" key=", self.key.as_str()),
            (" pool=", self.pool.as_str()),
            (" url=", &self.url.0),
        ] {
            text.push_str(name);
            text.push_str(value);
        }
        text.push_str(" door=");
        push_number(text, self.door.0.into());
        text.push_str(" dialect=");
        text.push_str(self.dialect.word());
        text.push_str(" endpoint=");
        push_number(text, self.endpoint.0.into());
        for (name, value) in [
            (" model=", &self.model),
            (" asked=", &self.asked),
            (" thing=", &self.thing),
            (" part=", &self.part),
        ] {
            if let Some(value) = value {
                text.push_str(name);
                text.push_str(value.as_str());
            }
        }
        if let Some(session) = self.session {
            // Writing to a String does not fail.
            let _ = write!(text, " session={session:016x}");
        }
    }

    /// Writes what it asks of an account, and what its operator demands.
    fn write_wishes(&self, text: &mut String) {
        let Self { lacks, demands, .. } = self;
        for (is_so, flag) in [
            (self.opens, " turn=first"),
            (lacks.stream, " lacks=stream"),
            (lacks.store_false, " lacks=store_false"),
            (lacks.foreground, " lacks=foreground"),
            (lacks.small, " lacks=small"),
            (self.untranslated, " translation=off"),
            (self.exact_model, " models=exact"),
            (self.wish == Wish::Account, " wish=account"),
            (self.wish == Wish::Platform, " wish=platform"),
            (self.streams, " answer=stream"),
            (self.at_home, " home=account"),
            (self.moved, " moved=yes"),
            (self.one_model, " names=one"),
            (self.stored == Some(false), " stored=no"),
            (self.stored == Some(true), " stored=yes"),
        ] {
            text.push_str(if is_so { flag } else { "" });
        }
        for (name, word) in [
            (" effort=", demands.effort.map(EffortWord::as_str)),
            (" most=", demands.max_effort.map(EffortWord::as_str)),
            (" tier=", demands.tier.map(ServiceTier::as_str)),
        ] {
            if let Some(word) = word {
                text.push_str(name);
                text.push_str(word);
            }
        }
    }

    /// Writes which try it is, and what came of those before.
    fn write_tries(&self, text: &mut String) {
        if let Some(id) = &self.id {
            text.push_str(" id=");
            text.push_str(id.as_str());
        }
        text.push_str(" at=");
        push_number(text, self.at);
        text.push_str(" try=");
        push_number(text, self.try_id.vm);
        text.push(':');
        push_number(text, self.try_id.context.into());
        // Writing to a String does not fail.
        if self.since > 0 {
            let _ = write!(text, " since={}", self.since);
        }
        for (index, (id, generation)) in self.tried.iter().enumerate() {
            let before = if index == 0 { " tried=" } else { "," };
            let _ = write!(text, "{before}{id}:{generation}");
        }
        for (index, status) in self.refused.iter().enumerate() {
            let before = if index == 0 { " refused=" } else { "," };
            let _ = write!(text, "{before}{status}");
        }
        if self.blames {
            text.push_str(" blames=account");
        }
        if self.resent {
            text.push_str(" resent=once");
        }
        for (name, account) in [(" waited=", &self.waited), (" unable=", &self.unable)] {
            if let Some(account) = account {
                text.push_str(name);
                text.push_str(account.as_str());
            }
        }
    }

    /// The try that [`Carried::encode`]'s text is about, without a look at the rest of it: it
    /// stands near the end.
    pub fn try_of(bytes: &[u8]) -> Option<TryId> {
        let mut pairs = bytes.rsplit(|byte| *byte == b' ');
        let try_id = pairs.find_map(|pair| pair.strip_prefix(b"try="))?;
        TryId::parse(std::str::from_utf8(try_id).ok()?)
    }

    /// Reads [`Carried::encode`]'s text.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let pairs = Pairs(std::str::from_utf8(bytes).ok()?);
        Some(Self {
            account: pairs.id("account")??,
            key: pairs.id("key")??,
            pool: pairs.id("pool")??,
            url: Url::checked(pairs.get("url")?.to_owned()),
            door: DoorId(pairs.get("door")?.parse().ok()?),
            dialect: Dialect::of_word(pairs.get("dialect")?)?,
            endpoint: EndpointId(pairs.get("endpoint")?.parse().ok()?),
            id: pairs.id("id")?,
            at: pairs.number("at")?,
            try_id: pairs
                .get("try")
                .map_or(Some(TryId::default()), TryId::parse)?,
            since: pairs.number("since")?,
            tried: pairs.list("tried", |pair| {
                let (id, generation) = pair.split_once(':')?;
                Some((Id::try_from(id).ok()?, generation.parse().ok()?))
            })?,
            refused: pairs.list("refused", |status| status.parse().ok())?,
            blames: pairs.has("blames=account"),
            waited: pairs.id("waited")?,
            resent: pairs.has("resent=once"),
            unable: pairs.id("unable")?,
            model: pairs.text("model"),
            asked: pairs.text("asked"),
            thing: pairs.text("thing"),
            part: pairs.text("part"),
            session: pairs
                .get("session")
                .and_then(|hash| u64::from_str_radix(hash, 16).ok()),
            opens: pairs.has("turn=first"),
            lacks: pairs.lacks(),
            untranslated: pairs.has("translation=off"),
            exact_model: pairs.has("models=exact"),
            demands: pairs.demands(),
            wish: pairs.wish(),
            streams: pairs.has("answer=stream"),
            at_home: pairs.has("home=account"),
            moved: pairs.has("moved=yes"),
            one_model: pairs.has("names=one"),
            stored: match (pairs.has("stored=yes"), pairs.has("stored=no")) {
                (false, false) => None,
                (asks, _) => Some(asks),
            },
        })
    }

    /// The model, as the platform of `account` names it.
    pub fn model_at(&self, account: &Account) -> Option<HeaderText> {
        let model = self.model.as_ref()?;
        let named = account.maps.served(model.as_str());
        Some(named.unwrap_or(model).clone())
    }

    /// Returns the demands on a try as `account`, whose maps may say an effort.
    pub fn demands_at(&self, account: &Account) -> Demands {
        let model = self.model.as_ref().map(HeaderText::as_str);
        let map = model.and_then(|model| account.maps.of(model));
        self.demands.or_effort(map.and_then(ModelMap::effort))
    }

    /// The values for the places of a platform's path, which names the model so.
    pub fn places(&self, model: Option<HeaderText>) -> Places {
        Places {
            model,
            thing: self.thing.clone(),
            part: self.part.clone(),
        }
    }

    /// Returns true if the request was tried on this account, with this credential.
    pub fn has_tried(&self, account: &Account) -> bool {
        let mut tried = self.tried.iter();
        tried.any(|(id, generation)| *id == account.id && *generation == account.generation)
    }

    /// Counts the attempts that failed.
    pub fn failed_attempts(&self) -> usize {
        self.tried
            .len()
            .saturating_add(self.waited.iter().count())
            .saturating_add(usize::from(self.resent))
    }

    /// The time at which it began, which is `now` where it begins; none once that is `max_ms` ago.
    fn since_if_in_time(&self, now: u64, max_ms: u64) -> Option<u64> {
        let since = if self.since == 0 { now } else { self.since };
        (now.saturating_sub(since) < max_ms).then_some(since)
    }

    /// The carried of a request that is sent once more at `now` to the same account; none
    /// where that happened before, or it has been on its way for longer than `max_ms`.
    pub fn after_no_delivery(&self, now: u64, max_ms: u64) -> Option<Self> {
        let since = self.since_if_in_time(now, max_ms)?;
        (!self.resent).then(|| Self {
            since,
            resent: true,
            ..self.clone()
        })
    }

    /// The carried of a request that is to wait for the account that told it at `now` to pause; none where
    /// that happened before, or it has been on its way for longer than `max_ms`.
    pub fn after_throttle(&self, now: u64, max_ms: u64) -> Option<Self> {
        let since = self.since_if_in_time(now, max_ms)?;
        self.waited.is_none().then(|| Self {
            since,
            waited: Some(self.account.clone()),
            blames: true,
            ..self.clone()
        })
    }

    /// The carried after its attempt with `generation` of the account failed at `now`; none where
    /// it has been tried `max_attempts` times, or for longer than `max_ms`.
    pub fn after_failure(
        &self,
        generation: u64,
        now: u64,
        max_attempts: usize,
        max_ms: u64,
    ) -> Option<Self> {
        let since = self.since_if_in_time(now, max_ms)?;
        let attempts = self.tried.len().saturating_add(1);
        if attempts >= max_attempts.min(MAX_TRIES) {
            return None;
        }
        let mut next = self.clone();
        next.since = since;
        next.tried.push((self.account.clone(), generation));
        Some(next)
    }
}

// === impl Pairs ===

impl<'a> Pairs<'a> {
    /// The value of a name.
    // Asked for fifteen names: without this each has a copy of the search.
    #[inline(never)]
    fn get(self, name: &str) -> Option<&'a str> {
        self.0
            .split(' ')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns true if this pair is among them.
    // Asked for as many, and so here.
    #[inline(never)]
    fn has(self, wanted: &str) -> bool {
        self.0.split(' ').any(|pair| pair == wanted)
    }

    /// The id of a name, if it is there; none for a value that is no id.
    fn id(self, name: &str) -> Option<Option<Id>> {
        match self.get(name) {
            Some(id) => Id::try_from(id).ok().map(Some),
            None => Some(None),
        }
    }

    /// The number of a name, 0 if it is not there; none for a value that is no number.
    fn number(self, name: &str) -> Option<u64> {
        self.get(name)
            .map_or(Some(0), |number| number.parse::<u64>().ok())
    }

    fn text(self, name: &str) -> Option<HeaderText> {
        HeaderText::try_from(self.get(name)?).ok()
    }

    /// The list of a name, empty if it is not there; none where an item cannot be read.
    fn list<T>(self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        match self.get(name) {
            Some(list) => list.split(',').map(read).collect(),
            None => Some(Vec::new()),
        }
    }

    fn lacks(self) -> Lacks {
        Lacks {
            stream: self.has("lacks=stream"),
            store_false: self.has("lacks=store_false"),
            foreground: self.has("lacks=foreground"),
            small: self.has("lacks=small"),
        }
    }

    fn demands(self) -> Demands {
        Demands {
            effort: self.get("effort").and_then(EffortWord::parse),
            max_effort: self.get("most").and_then(EffortWord::parse),
            tier: self.get("tier").and_then(ServiceTier::parse),
        }
    }

    fn wish(self) -> Wish {
        match (self.has("wish=account"), self.has("wish=platform")) {
            (true, _) => Wish::Account,
            (false, true) => Wish::Platform,
            (false, false) => Wish::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> Id {
        Id::try_from(text).unwrap()
    }

    fn first() -> Carried {
        Carried {
            account: id("acc_1"),
            key: id("key_1"),
            pool: id("default"),
            url: Url::new("https", b"gateway:8443", "/v1/responses"),
            door: DoorId(7),
            dialect: Dialect::Messages,
            endpoint: EndpointId(2),
            id: Some(id("req-1")),
            at: 900,
            try_id: TryId { vm: 3, context: 4 },
            since: 0,
            tried: Vec::new(),
            refused: Vec::new(),
            blames: false,
            waited: None,
            resent: false,
            unable: None,
            model: None,
            thing: None,
            part: None,
            session: None,
            opens: false,
            lacks: Lacks::default(),
            untranslated: false,
            exact_model: false,
            demands: Demands::default(),
            wish: Wish::Any,
            streams: false,
            at_home: false,
            moved: false,
            one_model: false,
            stored: None,
            asked: None,
        }
    }

    #[test]
    fn what_is_carried_survives_the_property() {
        let first = first();
        assert_eq!(
            first.encode(),
            "account=acc_1 key=key_1 pool=default url=https://gateway:8443/v1/responses door=7 dialect=messages endpoint=2 id=req-1 at=900 try=3:4"
        );
        let mut second = first.after_failure(7, 1_000, 3, 10_000).unwrap();
        second.account = id("acc_2");
        let third = second.after_failure(1, 2_000, 3, 10_000).unwrap();
        let told = Carried {
            model: HeaderText::try_from("gpt-6.1-sol").ok(),
            thing: HeaderText::try_from("resp_1").ok(),
            part: HeaderText::try_from("a=b").ok(),
            session: Some(7),
            opens: true,
            lacks: Lacks {
                stream: true,
                store_false: true,
                foreground: true,
                small: true,
            },
            untranslated: true,
            exact_model: true,
            demands: Demands {
                effort: Some(EffortWord::Low),
                max_effort: Some(EffortWord::Xhigh),
                tier: Some(ServiceTier::Flex),
            },
            wish: Wish::Account,
            streams: true,
            at_home: true,
            moved: true,
            one_model: true,
            stored: Some(false),
            asked: HeaderText::try_from("claude-x").ok(),
            ..first.clone()
        };
        let refused = Carried {
            refused: vec![400, 403],
            blames: true,
            waited: Some(id("acc_2")),
            resent: true,
            unable: Some(id("acc_1")),
            ..second.clone()
        };
        let words = format!(
            "{} refused=400,403 blames=account resent=once waited=acc_2 unable=acc_1",
            second.encode()
        );
        assert_eq!(refused.encode(), words);
        let words = " model=gpt-6.1-sol asked=claude-x thing=resp_1 part=a=b session=0000000000000007 turn=first lacks=stream lacks=store_false lacks=foreground lacks=small translation=off models=exact wish=account answer=stream home=account moved=yes names=one stored=no effort=low most=xhigh tier=flex id=";
        assert_eq!(told.encode(), first.encode().replace(" id=", words));
        for carried in [first, second, third, told, refused] {
            let text = carried.encode();
            assert_eq!(Carried::try_of(text.as_bytes()), Some(carried.try_id));
            assert_eq!(Carried::decode(text.as_bytes()), Some(carried));
        }
    }

    #[test]
    fn a_url_takes_its_query_back_and_breaks_nothing() {
        let url = first().url;
        assert_eq!(Url::default().with_query(b"a=b"), None);
        let location = url.with_query(b"a=b").unwrap();
        assert_eq!(location, b"https://gateway:8443/v1/responses?a=b");
        assert_eq!(Url::new("http", b"a b", "/").with_query(b""), None);
        assert_eq!(Url::new("http", b"u@evil:81", "/").with_query(b""), None);
        assert_eq!(Url::new("http", b"\xff", "/").with_query(b""), None);
        assert_eq!(Url::new("http", &[b'a'; 2_000], "/").with_query(b""), None);
    }

    #[test]
    fn tries_and_time_are_bounded() {
        let second = first().after_failure(1, 1_000, 2, 10_000).unwrap();
        assert_eq!(second.after_failure(1, 1_001, 2, 10_000), None);
        assert!(second.after_failure(1, 10_999, 3, 10_000).is_some());
        assert_eq!(second.after_failure(1, 11_000, 3, 10_000), None);
        assert_eq!(first().after_failure(1, 1_000, 1, 10_000), None);
    }

    #[test]
    fn a_request_waits_once_and_is_resent_once_and_those_were_attempts() {
        let waits = first().after_throttle(1_000, 10_000).unwrap();
        assert_eq!((waits.since, waits.failed_attempts()), (1_000, 1));
        assert_eq!(Carried::decode(waits.encode().as_bytes()).unwrap(), waits);
        assert_eq!(waits.after_throttle(1_001, 10_000), None);
        let again = first().after_no_delivery(1_000, 10_000).unwrap();
        assert_eq!((again.since, again.failed_attempts()), (1_000, 1));
        assert_eq!(again.after_no_delivery(1_001, 10_000), None);
        let late = first().after_failure(1, 1_000, 3, 10_000).unwrap();
        assert_eq!(late.after_throttle(11_000, 10_000), None);
    }

    proptest! {
        #[test]
        fn no_property_panics(bytes: Vec<u8>, text in "[a-z=:, 0-9]{0,80}") {
            Carried::decode(&bytes);
            Carried::decode(text.as_bytes());
            Carried::try_of(&bytes);
        }
    }
}
