//! The turns of a request in the order that platforms ask for: what the model said, then the result of each of
//! its calls, then everything else.

use std::collections::{BTreeMap, VecDeque};

use super::{Block, Call, Refused, Role, ToolResult, Turn, names::key};
use crate::text::tree::Text;

/// The text that tells the model of a call that nobody answered.
pub const NO_RESULT: &str = "The call was interrupted: it has no result.";

/// The most of a caller's name or id in a sentence about it, in bytes.
const MAX_SHOWN_BYTES: usize = 128;

/// A step of a conversation.
#[derive(Debug)]
pub enum Step<'r, 'a> {
    /// The model says this. Turns of its own that follow one another are one where it called tools in them.
    Assistant(Vec<&'r Block<'a>>),
    /// Its calls and their results, each of which was [`NO_RESULT`] where there is none. They follow what the
    /// model said.
    Results(Vec<(&'r Call<'a>, Option<&'r ToolResult<'a>>)>),
    /// The user says this.
    User(Vec<&'r Block<'a>>),
    /// The operator of the conversation says this, between turns.
    System(Vec<&'r Block<'a>>),
}

/// The steps of a conversation.
///
/// # Errors
/// A result without its call, or a call that is not the model's.
pub fn steps<'r, 'a>(turns: &'r [Turn<'a>]) -> Result<Vec<Step<'r, 'a>>, Refused> {
    let mut steps = Vec::new();
    let mut rest = turns;
    while let Some(turn) = rest.first() {
        if turn.role == Role::Assistant {
            rest = said(rest, &mut steps)?;
            continue;
        }
        rest = others(rest, &mut BTreeMap::new(), &mut steps)?;
    }
    Ok(steps)
}

/// Appends what the model says at the beginning of `turns`, the results, and what comes before it speaks again;
/// returns what is left.
fn said<'r, 'a>(
    turns: &'r [Turn<'a>],
    steps: &mut Vec<Step<'r, 'a>>,
) -> Result<&'r [Turn<'a>], Refused> {
    let mut blocks: Vec<&Block<'a>> = Vec::new();
    let mut calls: Vec<&Call<'a>> = Vec::new();
    let mut rest = turns;
    while let Some(turn) = rest.first().filter(|turn| turn.role == Role::Assistant) {
        let new = turn.blocks.iter().filter_map(|block| match block {
            Block::Call(call) => Some(call),
            _ => None,
        });
        let new: Vec<_> = new.collect();
        if !blocks.is_empty() && calls.is_empty() && new.is_empty() {
            break;
        }
        blocks.extend(&turn.blocks);
        calls.extend(new);
        rest = rest.get(1..).unwrap_or_default();
    }
    steps.push(Step::Assistant(blocks));
    if calls.is_empty() {
        return Ok(rest);
    }
    let mut results: BTreeMap<String, VecDeque<&ToolResult<'a>>> = BTreeMap::new();
    for call in &calls {
        results.entry(key(&call.id)).or_default();
    }
    let at = steps.len();
    steps.push(Step::Results(Vec::new()));
    rest = others(rest, &mut results, steps)?;
    let answered = calls.into_iter().map(|call| {
        let result = results.get_mut(&key(&call.id));
        (call, result.and_then(VecDeque::pop_front))
    });
    let answered = answered.collect();
    if let Some(step) = steps.get_mut(at) {
        *step = Step::Results(answered);
    }
    Ok(rest)
}

/// Appends all that is said before the model speaks again, without the results, which go to the calls that wait for
/// them; returns what is left.
fn others<'r, 'a>(
    turns: &'r [Turn<'a>],
    results: &mut BTreeMap<String, VecDeque<&'r ToolResult<'a>>>,
    steps: &mut Vec<Step<'r, 'a>>,
) -> Result<&'r [Turn<'a>], Refused> {
    let length = turns.iter().position(|turn| turn.role == Role::Assistant);
    let (others, rest) = turns.split_at(length.unwrap_or(turns.len()));
    for turn in others {
        let mut blocks = Vec::new();
        for block in &turn.blocks {
            let result = match block {
                Block::Result(result) => result,
                Block::Call(call) => {
                    let name = call.name.plain();
                    let name = shown(&name);
                    let why =
                        format!("the call of {name:?} stands in a turn that is not the model's");
                    return Err(Refused::at(String::new(), why));
                }
                other => {
                    blocks.push(other);
                    continue;
                }
            };
            let Some(of_call) = results.get_mut(&key(&result.id)) else {
                let id = result.id.plain();
                let id = shown(&id);
                let why = format!("the result of the call {id:?} does not follow that call");
                return Err(Refused::at(String::new(), why));
            };
            of_call.push_back(result);
        }
        if !blocks.is_empty() {
            steps.push(match turn.role {
                Role::System => Step::System(blocks),
                Role::User | Role::Assistant => Step::User(blocks),
            });
        }
    }
    Ok(rest)
}

/// Cuts a name or an id to what a sentence has of it.
fn shown(text: &str) -> &str {
    let end = text.floor_char_boundary(MAX_SHOWN_BYTES);
    text.get(..end).unwrap_or_default()
}

/// A text that only the operator of the conversation says, for platforms that take that from the user alone.
pub fn reminder<'a>(text: &Text<'a>) -> [Text<'a>; 3] {
    [
        Text::of("<system-reminder>\n"),
        text.clone(),
        Text::of("\n</system-reminder>"),
    ]
}

/// The texts with `between` after each but the last.
pub fn joined<'a>(
    texts: impl IntoIterator<Item = Text<'a>>,
    between: &'static str,
) -> Vec<Text<'a>> {
    let mut joined = Vec::new();
    for text in texts {
        if !joined.is_empty() {
            joined.push(Text::of(between));
        }
        joined.push(text);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::neutral::Arguments;

    fn text(text: &'static str) -> Block<'static> {
        Block::Text {
            text: Text::of(text),
        }
    }

    fn call(id: &'static str) -> Block<'static> {
        Block::Call(Call {
            id: Text::of(id),
            name: Text::of("f"),
            arguments: Arguments::Json("{}"),
        })
    }

    fn result(id: &'static str) -> Block<'static> {
        Block::Result(ToolResult {
            id: Text::of(id),
            blocks: Vec::new(),
            is_object: false,
            is_error: false,
        })
    }

    fn turn(role: Role, blocks: Vec<Block<'static>>) -> Turn<'static> {
        Turn { role, blocks }
    }

    /// The steps in short: `a` and the number of blocks, `r` and the calls, those without a result with `!`.
    fn short(turns: &[Turn<'_>]) -> String {
        let steps = steps(turns).unwrap();
        let words = steps.iter().map(|step| match step {
            Step::Assistant(blocks) => format!("a{}", blocks.len()),
            Step::User(blocks) => format!("u{}", blocks.len()),
            Step::System(blocks) => format!("s{}", blocks.len()),
            Step::Results(all) => all
                .iter()
                .map(|(call, result)| {
                    let is_its_own = result.is_none_or(|result| result.id.is(&call.id.plain()));
                    assert!(is_its_own);
                    format!(
                        "r{}{}",
                        call.id.plain(),
                        if result.is_some() { "" } else { "!" }
                    )
                })
                .collect(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn results_come_right_after_their_calls() {
        use Role::{Assistant, System, User};
        let turns = [
            turn(User, vec![text("hi")]),
            turn(Assistant, vec![text("I call"), call("1")]),
            turn(Assistant, vec![call("2")]),
            turn(System, vec![text("mind")]),
            turn(User, vec![text("before"), result("2")]),
            turn(User, vec![result("1"), text("after")]),
            turn(Assistant, vec![call("3")]),
            turn(User, vec![text("never mind")]),
            turn(Assistant, vec![text("ok")]),
            turn(Assistant, vec![text("again")]),
        ];
        assert_eq!(short(&turns), "u1 a3 r1r2 s1 u1 u1 a1 r3! u1 a1 a1");
    }

    #[test]
    fn a_call_of_the_same_id_in_a_later_turn_has_its_own_result() {
        let turns = [
            turn(Role::Assistant, vec![call("1")]),
            turn(Role::User, vec![result("1")]),
            turn(Role::Assistant, vec![call("1"), call("1")]),
            turn(Role::User, vec![result("1"), result("1")]),
        ];
        assert_eq!(short(&turns), "a1 r1 a2 r1r1");
    }

    #[test]
    fn a_result_without_its_call_is_refused() {
        for turns in [
            vec![turn(Role::User, vec![result("1")])],
            vec![
                turn(Role::Assistant, vec![call("2")]),
                turn(Role::User, vec![result("1")]),
            ],
        ] {
            let refused = steps(&turns).unwrap_err();
            assert!(refused.why.contains("the call \"1\""), "{refused:?}");
        }
    }
}
