//! The calls in an answer of `chat`, told apart.

use crate::{
    dialect::neutral::{BlockKind, Event, Failure, Progress},
    text::tree::{Json, JsonKind},
};

/// The most bytes of arguments that wait for the name of their tool.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// The most calls of one answer.
const MAX_CALLS: usize = 1024;

/// The calls so far.
#[derive(Debug, Default)]
pub(super) struct Calls {
    all: Vec<Called>,
    /// The number of the list of calls that is read.
    list: u32,
}

/// A call of which something has come.
#[derive(Debug)]
struct Called {
    index: Option<u64>,
    id: String,
    /// An earlier call has that id: this one is told without it, and gets one of its own.
    repeats_id: bool,
    name: String,
    raw: bool,
    /// The list in which a piece of it came last.
    list: u32,
    /// Its block; none before its name is known.
    block: Option<u32>,
    /// The arguments that wait for that.
    waiting: String,
    arguments: Progress,
    closed: bool,
}

// === impl Calls ===

impl Calls {
    /// Returns true if there is one.
    pub(super) fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Begins a list: it has no two pieces of one call that say its name.
    pub(super) fn begin_list(&mut self) {
        self.list = self.list.saturating_add(1);
    }

    /// The bytes of arguments that wait for the name of their tool.
    pub(super) fn waiting_bytes(&self) -> usize {
        let waiting = self.all.iter().map(|called| called.waiting.len());
        waiting.fold(0, usize::saturating_add)
    }

    /// Reads a piece of a call, or a whole one.
    ///
    /// # Errors
    /// There is too much of them.
    pub(super) fn read(
        &mut self,
        call: Json<'_, '_>,
        blocks: &mut u32,
        events: &mut Vec<Event>,
    ) -> Result<(), Failure> {
        let custom = call.get("custom");
        let said = custom
            .or_else(|| call.get("function"))
            .or_else(|| call.get("function_call"));
        let text = |json: Option<Json<'_, '_>>, name| {
            let text = json.and_then(|json| json.text_at(name));
            text.map(|text| text.plain().into_owned())
                .unwrap_or_default()
        };
        let index = call.get("index").and_then(Json::whole);
        // The id beside a call of the old form is the message's.
        let id = match call.get("function_call") {
            None => text(Some(call), "id"),
            Some(_) => String::new(),
        };
        let name = text(said, "name");
        let arguments = said.and_then(|said| said.get("arguments").or_else(|| said.get("input")));
        let is_blank = |arguments: Json<'_, '_>| match arguments.text() {
            Some(text) => text.is_blank(),
            None => arguments.is_null(),
        };
        let says = arguments.is_some_and(|arguments| !is_blank(arguments));
        let at = match self.find(index, &id, &name, says) {
            Some(at) => at,
            None => {
                if self.all.len() >= MAX_CALLS {
                    return Err(Failure::grammar("the platform calls too many tools"));
                }
                self.all.push(Called {
                    index,
                    id: String::new(),
                    repeats_id: false,
                    name: String::new(),
                    raw: custom.is_some(),
                    list: self.list,
                    block: None,
                    waiting: String::new(),
                    arguments: Progress::default(),
                    closed: false,
                });
                self.all.len().saturating_sub(1)
            }
        };
        let (before, from) = self.all.split_at_mut_checked(at).unwrap_or_default();
        let Some(called) = from.first_mut() else {
            return Ok(());
        };
        // Only once: each piece of a call may have its id.
        if called.id.is_empty() && !id.is_empty() {
            called.repeats_id = before.iter().any(|called| called.id == id);
            called.id = id;
        }
        if called.name.is_empty() {
            called.name = name;
        }
        called.list = self.list;
        if let Some(arguments) = arguments {
            match arguments.kind() {
                JsonKind::Text => {
                    let text = arguments.text().map(|text| text.plain().into_owned());
                    called.waiting.push_str(&text.unwrap_or_default());
                }
                _ => called.waiting.push_str(arguments.raw()),
            }
        }
        if called.waiting.len() > MAX_WAITING_BYTES && called.name.is_empty() {
            return Err(Failure::grammar("the platform calls a tool without a name"));
        }
        if !called.name.is_empty() {
            called.go_on(blocks, events);
        }
        Ok(())
    }

    /// The call of which this is a piece; none for a new one.
    fn find(&self, index: Option<u64>, id: &str, name: &str, says: bool) -> Option<usize> {
        let last = |is_it: &dyn Fn(&Called) -> bool| self.all.iter().rposition(is_it);
        let found = match index {
            Some(_) => last(&|called| called.index == index),
            None if id.is_empty() => self.all.len().checked_sub(1),
            None => last(&|called| called.id == id),
        };
        let called = self.all.get(found?)?;
        // Some servers give all calls the same number: their ids differ, or one is whole when the next one begins.
        let has_other_id = !id.is_empty() && !called.id.is_empty() && called.id != id;
        // Others have no numbers, and the tool's name for an id: what has a name there is a call of its own, in the
        // same list, or with arguments once the one before it has all of its own.
        let is_another = match index {
            None if !id.is_empty() => {
                called.list == self.list || (called.arguments.is_whole() && says)
            }
            _ => id.is_empty() && called.arguments.is_whole(),
        };
        let begins_anew = !name.is_empty() && is_another;
        found.filter(|_| !called.closed && !has_other_id && !begins_anew)
    }

    /// Ends all of them. One whose name never came has it now, empty.
    pub(super) fn close(&mut self, blocks: &mut u32, events: &mut Vec<Event>) {
        for called in self.all.iter_mut().filter(|called| !called.closed) {
            called.go_on(blocks, events);
            called.closed = true;
            if let Some(block) = called.block {
                events.push(Event::Close { block });
            }
        }
    }
}

// === impl Called ===

impl Called {
    /// Adds the call's open and delta events for what has come of it.
    fn go_on(&mut self, blocks: &mut u32, events: &mut Vec<Event>) {
        let block = *self.block.get_or_insert_with(|| {
            let block = *blocks;
            *blocks = block.saturating_add(1);
            let id = (!self.repeats_id).then(|| self.id.clone());
            let kind = BlockKind::Call {
                id: id.unwrap_or_default(),
                name: self.name.clone(),
                raw: self.raw,
            };
            events.push(Event::Open { block, kind });
            block
        });
        let text = std::mem::take(&mut self.waiting);
        if !text.is_empty() {
            self.arguments.read(&text);
            events.push(Event::Delta { block, text });
        }
    }
}
