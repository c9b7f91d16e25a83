//! An answer that is whole: the steps of a stream, put together.

use std::collections::BTreeMap;

use super::{BlockKind, Event, Failure, Finish, Tokens, functions::is_object};

/// An answer that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The platform's name for it.
    pub id: String,
    /// The model that serves.
    pub model: String,
    /// The blocks, in the order in which they began.
    pub blocks: Vec<FoldedBlock>,
    /// The tokens that it took.
    pub usage: Tokens,
    /// The reason for its end.
    pub finish: Finish,
}

/// A block that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedBlock {
    /// Its kind.
    pub kind: BlockKind,
    /// Its text, or a call's arguments.
    pub text: String,
    /// State that only its maker reads.
    pub opaque: Option<String>,
}

// === impl Folded ===

impl Folded {
    /// The answer that `events` make.
    ///
    /// # Errors
    /// The platform's failure, which is among them, or their missing end.
    pub fn of(events: &[Event]) -> Result<Self, Failure> {
        let (mut id, mut model) = (String::new(), String::new());
        let mut blocks: BTreeMap<u32, FoldedBlock> = BTreeMap::new();
        let (mut usage, mut finish) = (Tokens::default(), None);
        for event in events {
            match event {
                Event::Start {
                    id: its_id,
                    model: its_model,
                } => {
                    id.clone_from(its_id);
                    model.clone_from(its_model);
                }
                Event::Open { block, kind } => {
                    let folded = FoldedBlock {
                        kind: kind.clone(),
                        text: String::new(),
                        opaque: None,
                    };
                    blocks.insert(*block, folded);
                }
                Event::Delta { block, text } => {
                    if let Some(block) = blocks.get_mut(block) {
                        block.text.push_str(text);
                    }
                }
                Event::Opaque { block, data } => {
                    if let Some(block) = blocks.get_mut(block) {
                        block.opaque = Some(data.clone());
                    }
                }
                Event::Usage(told) => usage.update(*told),
                Event::Finish(told) => finish = Some(told.clone()),
                Event::Fail(failure) => return Err(failure.clone()),
                Event::Close { .. } | Event::End => {}
            }
        }
        Ok(Self {
            id,
            model,
            blocks: blocks.into_values().collect(),
            usage,
            finish: finish.ok_or_else(Failure::answer_broke_off)?,
        })
    }

    /// The answer without calls that its end has cut.
    #[must_use]
    pub fn without_cut_calls(mut self) -> Self {
        let is_call = |block: &FoldedBlock| matches!(block.kind, BlockKind::Call { .. });
        let mut calls = self.blocks.iter().filter(|block| is_call(block)).count();
        self.blocks.retain(|block| {
            calls = calls.saturating_sub(usize::from(is_call(block)));
            !(is_call(block) && is_cut(&block.text, calls == 0, &self.finish))
        });
        self
    }
}

/// Returns true if the end of the answer has cut a call with these arguments, so that it is none; `is_last`: of its
/// calls.
pub fn is_cut(arguments: &str, is_last: bool, finish: &Finish) -> bool {
    let is_whole = is_object(arguments) || (arguments.is_empty() && !is_last);
    finish.cuts() && !is_whole
}
