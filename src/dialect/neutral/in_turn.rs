//! The blocks of an answer whose dialect has none: they are made as its pieces come, one after the other.

use super::{BlockKind, Event};
use crate::text::tree::Text;

/// Such blocks. One ends where another one begins.
#[derive(Debug, Default)]
pub struct InTurn {
    count: u32,
    open: Option<(u32, BlockKind)>,
}

// === impl InTurn ===

impl InTurn {
    /// The block that is open, by its number and kind.
    pub fn open(&self) -> Option<(u32, &BlockKind)> {
        self.open.as_ref().map(|(block, kind)| (*block, kind))
    }

    /// Begins a block, and ends the one that is open.
    pub fn begin(&mut self, kind: BlockKind, events: &mut Vec<Event>) -> u32 {
        self.close(events);
        let block = self.count;
        self.count = block.saturating_add(1);
        self.open = Some((block, kind.clone()));
        events.push(Event::Open { block, kind });
        block
    }

    /// Adds a piece of text to the events, in a block of this kind.
    pub fn text(&mut self, kind: BlockKind, text: &Text<'_>, events: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        let block = match self.open() {
            Some((block, open)) if *open == kind => block,
            _ => self.begin(kind, events),
        };
        let text = text.plain().into_owned();
        events.push(Event::Delta { block, text });
    }

    /// Ends the block that is open.
    pub fn close(&mut self, events: &mut Vec<Event>) {
        if let Some((block, _)) = self.open.take() {
            events.push(Event::Close { block });
        }
    }
}
