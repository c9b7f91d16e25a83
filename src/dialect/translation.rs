//! A request of one dialect for a platform that speaks another, and its answer back.
//!
//! Nothing is translated where the platform speaks the caller's dialect. A translation is made for each
//! try from the caller's own body; what judges and meters an answer reads the platform's own bytes,
//! before they are translated.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Dialect, Steered,
    neutral::{BlockKind, Event, Failure, Finish, Refused, ToolInput, Unwrapping, names, read},
    parts::{About, AnswerReader, AnswerWriter, Target},
};
use crate::hash::hash64;
use crate::text::{
    edit::edited,
    kind::{Begun, BodyKind, Start},
    sse::{Framer, Piece},
    tree::Tree,
};

/// The largest request that is translated, in bytes.
pub const MAX_REQUEST_BYTES: usize = 31 * 1024 * 1024;

/// The largest event of a stream that is translated, in bytes: the last one may repeat the whole answer.
pub const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// The largest answer that is translated whole, in bytes: of a body, or of what is kept of a stream.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// The size of an answer's step beside its text, in bytes.
const EVENT_BYTES: usize = 96;

/// A translated request.
#[derive(Debug)]
pub struct TranslatedRequest {
    /// The body for the platform.
    pub body: Vec<u8>,
    /// The caller asked for a stream.
    pub stream: bool,
    /// The members that were left out and may change the answer, by the names of the caller's dialect.
    pub left_out: Vec<&'static str>,
    /// The facts that the answer is to state.
    pub about: About,
    /// The names of tools that the platform knows by others, by those.
    pub renamed: BTreeMap<String, String>,
}

/// The translation of an answer.
#[derive(Debug)]
pub struct AnswerTranslation {
    caller: Dialect,
    reader: Box<dyn AnswerReader>,
    writer: Box<dyn AnswerWriter>,
    source: Source,
    /// The steps that have come of an answer that goes out whole.
    kept: Option<Kept>,
    /// Its last step has come.
    ended: bool,
    /// The platform's dialect, and its account.
    maker: &'static str,
    owner: String,
    renamed: BTreeMap<String, String>,
    /// The caller's free-form tools, and the calls of them for which the platform called a function.
    raw: BTreeSet<String>,
    unwrapping: BTreeMap<u32, Unwrapping>,
    /// Calls of the caller's own tools were told, and the text of an answer that came as a call.
    called: bool,
    answered: bool,
    answer_tool: Option<&'static str>,
    /// The id for an answer that has none; calls without one get names made of it.
    name: String,
}

/// The form in which the platform's answer comes.
#[derive(Debug)]
enum Source {
    /// Nothing has come that tells.
    Unknown(Start),
    /// One text, as far as it has come.
    Json(Vec<u8>),
    /// A stream.
    Events {
        framer: Framer,
        /// The data of the event that has not ended.
        data: Vec<u8>,
    },
}

/// The steps of an answer that goes out whole.
#[derive(Debug, Default)]
struct Kept {
    events: Vec<Event>,
    bytes: usize,
}

/// The part of an answer that goes on to the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// These bytes of a stream.
    Stream(Vec<u8>),
    /// Nothing until there is more: the answer goes out whole.
    NotYet,
    /// The whole answer.
    Whole(Vec<u8>),
    /// The platform's failure with this status, in place of an answer.
    Failed(u16, Vec<u8>),
    /// Nothing more: the whole answer has gone out.
    Nothing,
}

// === impl Dialect ===

impl Dialect {
    /// Returns true if requests of this dialect are translated into `platform`'s.
    pub fn is_translated_to(self, platform: Self) -> bool {
        let (own, other) = (self.format().parts(), platform.format().parts());
        self != platform
            && own.read_request.is_some()
            && own.write_answer.is_some()
            && other.write_request.is_some()
            && other.read_answer.is_some()
    }

    /// The status with which a caller of this dialect is told what a platform of another one told with `status`.
    pub fn status_of(self, status: u16) -> u16 {
        match (status, self.format().parts().overloaded) {
            (422, _) => 400,
            (503 | 529, 0) => 503,
            (503 | 529, overloaded) => overloaded,
            _ => status,
        }
    }

    /// Returns true if every account of a platform reads what the platform alone can read.
    pub fn state_is_the_platforms(self) -> bool {
        self.format().parts().state_is_the_platforms
    }

    /// The rank of a platform's dialect by how much of a request and its answer it can say.
    pub fn richness(self) -> u8 {
        self.format().parts().richness
    }

    /// Translates a request of this dialect for a platform that speaks `platform`.
    ///
    /// # Errors
    /// The member that is wrong, or that cannot be said in the other dialect; or the body is beyond a
    /// bound.
    pub fn translate_request(
        self,
        platform: Self,
        body: &[u8],
        target: &Target<'_>,
        created: u64,
    ) -> Result<TranslatedRequest, Refused> {
        let tree = Tree::read(body).map_err(read::unread)?.bounded();
        let none = || Refused::at(String::new(), "the platform speaks another dialect");
        let own = self.format().parts();
        let read = own.read_request.ok_or_else(none)?;
        let write = platform.format().parts().write_request.ok_or_else(none)?;
        let mut request = read::request(&tree, read)?;
        request.length = body.len();
        if let Some(read_target) = own.read_target {
            read_target(&mut request, target.asked_at);
        }
        target.demands.change(&mut request, platform, target.accent);
        // As the caller names them: what writes the request may name them otherwise.
        let raw = request.tools.iter();
        let raw = raw.filter(|tool| matches!(tool.input, ToolInput::Raw(_)));
        let raw = raw.map(|tool| tool.name.plain().into_owned()).collect();
        let body = write(&mut request, target)?;
        let body = said_tier(platform, target, body);
        let model = request
            .model
            .as_ref()
            .map(|model| model.plain().into_owned());
        Ok(TranslatedRequest {
            body,
            stream: request.stream,
            left_out: request.left_out.into_iter().collect(),
            renamed: request.renamed,
            about: About {
                model: model.unwrap_or_default(),
                created,
                wants_usage: request.wants_usage,
                as_list: request.as_list,
                raw,
                forms: request.forms,
                repeated: request.repeated,
                answer_tool: request.answer_tool,
                state_beside_calls: platform.format().parts().state_is_of_calls,
            },
        })
    }
}

/// The body with the service tier that is demanded, in the members of the platform's dialect: as in what is not
/// translated.
fn said_tier(platform: Dialect, target: &Target<'_>, body: Vec<u8>) -> Vec<u8> {
    let steered = Steered {
        accent: target.accent,
        refuses: target.refuses,
    };
    let edits = target.demands.tier_edits(platform, steered);
    if edits.is_empty() {
        return body;
    }
    // It may have more values than the caller's.
    let made = Tree::read_of(&body, &mut { usize::MAX })
        .ok()
        .and_then(|tree| edited(&tree, &edits));
    made.unwrap_or(body)
}

impl Dialect {
    /// The answer to a request of this dialect for the count of its tokens, estimated; none where the dialect has no
    /// such answer.
    ///
    /// # Errors
    /// The member that is wrong.
    pub fn estimate(self, body: &[u8]) -> Result<Option<String>, Refused> {
        let parts = self.format().parts();
        let (Some(read), Some(counting)) = (parts.read_request, parts.count) else {
            return Ok(None);
        };
        let tree = Tree::read(body).map_err(read::unread)?.bounded();
        let tokens = read::request(&tree, read)?.estimated_tokens();
        Ok(String::from_utf8(counting.answer(tokens)).ok())
    }

    /// Translates a request of this dialect for the count of its tokens into one that a platform counts.
    ///
    /// # Errors
    /// Those of [`Self::translate_request`].
    pub fn translate_count(
        self,
        platform: Self,
        body: &[u8],
        target: &Target<'_>,
    ) -> Result<TranslatedRequest, Refused> {
        let mut made = self.translate_request(platform, body, target, 0)?;
        if let Some(counting) = platform.format().parts().count {
            made.body = counting.request(&made.body, &target.model);
        }
        made.stream = false;
        Ok(made)
    }
}

// === impl AnswerTranslation ===

impl AnswerTranslation {
    /// The translation of an answer of `platform` into `caller`, as a stream or whole; none where there is
    /// none. `owner`: the account, as [`Target::owner`] has it.
    pub fn new(
        platform: Dialect,
        caller: Dialect,
        as_stream: bool,
        about: About,
        owner: &str,
        renamed: BTreeMap<String, String>,
    ) -> Option<Self> {
        let (read, write) = (platform.format().parts(), caller.format().parts());
        let name = [
            owner.as_bytes(),
            about.model.as_bytes(),
            &about.created.to_le_bytes(),
        ];
        let name = format!("{:016x}", hash64(&name));
        let answer_tool = about.answer_tool;
        Some(Self {
            raw: about.raw.clone(),
            unwrapping: BTreeMap::new(),
            caller,
            reader: read.read_answer?(),
            writer: write.write_answer?(about),
            source: Source::Unknown(Start::default()),
            kept: (!as_stream).then(Kept::default),
            ended: false,
            maker: platform.word(),
            owner: owner.to_owned(),
            renamed,
            called: false,
            answered: false,
            answer_tool,
            name,
        })
    }

    /// The translation of a count of tokens; none where one of the dialects has none.
    pub fn of_count(platform: Dialect, caller: Dialect) -> Option<Self> {
        let (asked, told) = (platform.format().parts(), caller.format().parts());
        let (asked, told) = (asked.count?, told.count?);
        let whole = Self::new(
            platform,
            caller,
            false,
            About::default(),
            "",
            BTreeMap::new(),
        )?;
        Some(Self {
            reader: asked.reader(),
            writer: told.writer(whole.writer),
            ..whole
        })
    }

    /// The body of an error of the platform's, for the caller.
    pub fn error(&self, failure: &Failure) -> Vec<u8> {
        self.writer.error(failure)
    }

    /// Returns true if the answer is kept until it can go out whole.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some() && !self.ended
    }

    /// The bytes that it keeps of the answer, for what is to come.
    pub fn held_bytes(&self) -> usize {
        let source = match &self.source {
            Source::Unknown(_) => 0,
            Source::Json(bytes) => bytes.len(),
            Source::Events { data, .. } => data.len(),
        };
        let kept = self.kept.as_ref().map_or(0, |kept| kept.bytes);
        let parts = [kept, self.reader.held_bytes(), self.writer.held_bytes()];
        parts.into_iter().fold(source, usize::saturating_add)
    }

    /// Ends the answer with this failure, whatever is to come of it.
    pub fn fail(&mut self, failure: Failure) -> Written {
        if self.ended {
            return Written::Stream(Vec::new());
        }
        self.ended = true;
        self.lets_go();
        match self.kept {
            Some(_) => Written::Failed(failure.status, self.writer.error(&failure)),
            None => {
                let mut written = Vec::new();
                self.writer.stream(&Event::Fail(failure), &mut written);
                Written::Stream(written)
            }
        }
    }

    /// Translates the next bytes; `end`: they are the last.
    pub fn on_body(&mut self, bytes: &[u8], end: bool) -> Written {
        if self.ended {
            return match self.kept {
                Some(_) => Written::Nothing,
                None => Written::Stream(Vec::new()),
            };
        }
        let written = self.translate(bytes, end);
        if self.ended {
            self.lets_go();
        }
        written
    }

    /// Keeps nothing of the answer any more.
    fn lets_go(&mut self) {
        self.source = Source::Unknown(Start::default());
        self.kept = self.kept.take().map(|_| Kept::default());
    }

    fn translate(&mut self, bytes: &[u8], end: bool) -> Written {
        let mut events = Vec::new();
        self.read(bytes, end, &mut events);
        let is_end = |event: &Event| matches!(event, Event::End | Event::Fail(_));
        let last = events.iter().position(is_end);
        self.ended = last.is_some();
        // Nothing follows an end, whatever comes behind it at once.
        events.truncate(last.map_or(events.len(), |last| last.saturating_add(1)));
        let events = self.as_the_callers(events);
        let Some(kept) = &mut self.kept else {
            let mut written = Vec::new();
            events
                .iter()
                .for_each(|event| self.writer.stream(event, &mut written));
            return Written::Stream(written);
        };
        kept.take(events);
        if kept.bytes > MAX_ANSWER_BYTES {
            self.ended = true;
            let failure =
                Failure::grammar("the platform's answer is too long to be translated whole");
            return Written::Failed(failure.status, self.writer.error(&failure));
        }
        if !self.ended {
            return Written::NotYet;
        }
        match self.writer.whole(&kept.events) {
            Ok(body) => Written::Whole(body),
            Err(failure) => {
                let status = self.caller.status_of(failure.status);
                Written::Failed(status, self.writer.error(&failure))
            }
        }
    }

    /// Turns the platform's events into the caller's: names and forms of tools as the caller has them, opaque state wrapped.
    fn as_the_callers(&mut self, said: Vec<Event>) -> Vec<Event> {
        let mut events = Vec::with_capacity(said.len());
        for mut event in said {
            let mut last = None;
            match &mut event {
                Event::Opaque { data, .. } => {
                    *data = names::envelope(self.maker, &self.owner, data);
                }
                Event::Start { id, .. } if id.is_empty() => id.clone_from(&self.name),
                Event::Open { kind, .. } if kind.is_call_of(self.answer_tool) => {
                    self.answered = true;
                    *kind = BlockKind::Text;
                }
                Event::Finish(finish @ Finish::Calls) if self.answered && !self.called => {
                    *finish = Finish::Done;
                }
                Event::Open {
                    block,
                    kind: BlockKind::Call { id, name, raw },
                } => {
                    self.called = true;
                    if id.is_empty() {
                        // Another answer's calls have other ids.
                        *id = format!("call_{}_{block}", self.name);
                    }
                    if let Some(own) = self.renamed.get(name) {
                        name.clone_from(own);
                    }
                    if !*raw && self.raw.contains(name) {
                        *raw = true;
                        self.unwrapping.insert(*block, Unwrapping::default());
                    }
                }
                Event::Delta { block, text } => {
                    if let Some(unwrapping) = self.unwrapping.get_mut(block) {
                        *text = unwrapping.push(text);
                    }
                    if text.is_empty() {
                        continue;
                    }
                }
                Event::Close { block } => {
                    let unwrapping = self.unwrapping.remove(block);
                    let text = unwrapping.map(Unwrapping::end).unwrap_or_default();
                    let block = *block;
                    last = (!text.is_empty()).then_some(Event::Delta { block, text });
                }
                _ => {}
            }
            events.extend(last);
            events.push(event);
        }
        events
    }

    fn read(&mut self, bytes: &[u8], end: bool, events: &mut Vec<Event>) {
        let begun: Begun<'_>;
        let bytes = match &mut self.source {
            Source::Unknown(start) => {
                begun = start.read(bytes, end);
                self.source = match begun.kind {
                    None if !end => return,
                    Some(BodyKind::Events) => Source::Events {
                        framer: Framer::default(),
                        data: Vec::new(),
                    },
                    Some(BodyKind::Json | BodyKind::Other) | None => Source::Json(Vec::new()),
                };
                begun.text()
            }
            Source::Json(_) | Source::Events { .. } => bytes,
        };
        match &mut self.source {
            Source::Unknown(_) => {}
            Source::Json(body) => {
                body.extend_from_slice(bytes);
                if body.len() > MAX_ANSWER_BYTES {
                    let why = "the platform's answer is too long to be translated";
                    events.push(Event::Fail(Failure::grammar(why)));
                } else if end {
                    self.reader.on_whole(body, events);
                }
            }
            Source::Events { framer, data } => {
                let mut rest = bytes;
                while let Some(piece) = framer.next(&mut rest) {
                    match piece {
                        Piece::Data(piece) => data.extend_from_slice(piece),
                        Piece::End if data.is_empty() => {}
                        Piece::End => {
                            self.reader.on_event(data, events);
                            data.clear();
                        }
                        Piece::Name { .. } | Piece::Comment | Piece::Blank => {}
                    }
                    if data.len() > MAX_EVENT_BYTES {
                        let why = "an event of the platform is too long to be translated";
                        events.push(Event::Fail(Failure::grammar(why)));
                        return;
                    }
                }
                if end {
                    if !data.is_empty() {
                        self.reader.on_event(data, events);
                    }
                    self.reader.on_end(events);
                }
            }
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Keeps more steps. Pieces of one block become one.
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            let size = match &event {
                Event::Delta { text, .. } => text.len(),
                Event::Opaque { data, .. } => data.len(),
                _ => 0,
            };
            let size = size.saturating_add(EVENT_BYTES);
            self.bytes = self.bytes.saturating_add(size);
            match (self.events.last_mut(), event) {
                (
                    Some(Event::Delta { block, text }),
                    Event::Delta {
                        block: same,
                        text: more,
                    },
                ) if *block == same => text.push_str(&more),
                (_, event) => self.events.push(event),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
