//! Requests that were made to be dear: what they cost grows with their length alone, and has a bound.

use super::*;
use crate::dialect::neutral::read::MAX_TOOLS;
use crate::text::{find::work, tree::MAX_VALUES};
use requests::{Size, requests};

#[path = "../../../../bench/dear.rs"]
mod requests;

/// The steps of a lookup of every member, and of a search of every byte, that a byte of a request may cost.
const STEPS_A_BYTE: usize = 32;

/// What a request costs that has nothing.
const LEAST: usize = 20_000;

const ASKED_AT: &str = "/v1beta/models/m:generateContent";

/// What a translation costs, in bytes that are searched or hashed, values, and steps of lookups.
fn cost(caller: Dialect, platform: Dialect, body: &str) -> (usize, Result<usize, Refused>) {
    let target = Target {
        asked_at: ASKED_AT,
        ..target()
    };
    let mut made = Ok(0);
    let cost = work::of(|| {
        let all = caller.translate_request(platform, body.as_bytes(), &target, 0);
        made = all.map(|made| made.body.len());
    });
    (cost, made)
}

fn pairs() -> impl Iterator<Item = (Dialect, Dialect)> {
    let platforms = |caller: Dialect| Dialect::OF_PLATFORMS.map(|platform| (caller, platform));
    let all = Dialect::OF_CALLERS.into_iter().flat_map(platforms);
    all.filter(|(caller, platform)| caller.is_translated_to(*platform))
}

#[test]
fn the_work_grows_with_the_request_alone() {
    let size = |times: usize| Size {
        bytes: times * 40_000,
        values: times * 4_000,
    };
    for (caller, platform) in pairs() {
        let bodies = requests(caller, size(1)).into_iter();
        for ((name, small), (_, large)) in bodies.zip(requests(caller, size(4))) {
            let [(less, small_made), (more, large_made)] =
                [&small, &large].map(|body| cost(caller, platform, body));
            let place = format!(
                "{caller:?} {platform:?} {name}: {less} of {}, {more} of {}",
                small.len(),
                large.len()
            );
            assert!(more <= LEAST + STEPS_A_BYTE * large.len(), "{place}");
            assert!(more <= LEAST + 5 * less, "{place}");
            for (made, body) in [(small_made, small), (large_made, large)] {
                let most = 8 * body.len() + LEAST;
                assert!(
                    made.is_ok_and(|made| made <= most) || platform == Dialect::Ernie,
                    "{place}"
                );
            }
        }
    }
}

/// A request that costs more than a bound is refused before it does.
#[test]
fn what_costs_too_much_is_refused() {
    let many = |member: &str| member.repeat(MAX_VALUES / 2 - 32);
    let long = "c/".repeat((1 << 20) + 1);
    let half = "t/".repeat(1_000);
    let tools =
        (0..200).map(|at| json!({"type": "function", "function": {"name": format!("{half}{at}")}}));
    let names = vec!["x"; MAX_TOOLS + 1];
    let chosen = names
        .iter()
        .map(|name| json!({"type": "function", "function": {"name": name}}));
    let chosen = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": chosen.collect::<Vec<_>>()}});
    let user = json!({"role": "user", "content": "x"});
    let called = |id: &str, arguments: &str| {
        json!({"messages": [user, {"role": "assistant", "tool_calls": [
            {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}},
        ]}]})
        .to_string()
    };
    let own = json!({"messages": [user]}).to_string();
    let own = own.strip_prefix('{').unwrap();
    let objects = format!("{{\"a\":[{}1]}}", "1,".repeat(MAX_VALUES));
    for (body, why, too_large) in [
        (
            format!("{{{}{own}", many(r#""\u006dodel":"m","#)),
            "too many members",
            true,
        ),
        (called(&long, "{}"), "names and ids are too long", true),
        (
            json!({"messages": [user], "tools": tools.collect::<Vec<_>>()}).to_string(),
            "names and ids are too long",
            true,
        ),
        (
            json!({"messages": [user], "tool_choice": chosen}).to_string(),
            "more than 4096",
            false,
        ),
        (
            called("c", &objects),
            "the arguments of its calls have more than",
            true,
        ),
    ] {
        for platform in [Dialect::Messages, Dialect::Gemini] {
            let (cost, made) = cost(Dialect::Chat, platform, &body);
            let refused = made.unwrap_err();
            assert!(refused.why.contains(why), "{why}: {refused:?}");
            assert_eq!(refused.too_large, too_large, "{why}");
            assert!(
                cost < 2 * crate::text::tree::MAX_STEPS + 8 * body.len(),
                "{why}: {cost}"
            );
        }
    }
}

/// The longest session of an agent: 2,500 turns with calls and results fill a million tokens; and 128 tools of a hundred
/// values each.
#[test]
fn the_longest_session_is_far_from_every_bound() {
    let properties: serde_json::Map<_, _> = (0..25)
        .map(|at| {
            (
                format!("p{at}"),
                json!({"type": "string", "description": "what it is"}),
            )
        })
        .collect();
    let tool = |at: usize| {
        let schema = json!({"type": "object", "properties": properties});
        json!({"type": "function", "function": {"name": format!("mcp__server__tool_{at}"), "description": "d", "parameters": schema}})
    };
    let turn = |at: usize| {
        let id = format!("call_{at:024}");
        let arguments = json!({"path": "src/main.rs", "content": "line\n".repeat(20)}).to_string();
        [
            json!({"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": id, "type": "function", "function": {"name": "mcp__server__tool_1", "arguments": arguments}},
            ]}),
            json!({"role": "tool", "tool_call_id": id, "content": "line\n".repeat(100)}),
        ]
    };
    let user = json!({"role": "user", "content": "go on"});
    let turns: Vec<_> = std::iter::once(user.clone())
        .chain((0..2_500).flat_map(turn))
        .chain([user])
        .collect();
    let tools: Vec<_> = (0..128).map(tool).collect();
    let chat = json!({"model": "m", "messages": turns, "tools": tools}).to_string();
    for caller in grammar::of_both() {
        let to = Target {
            asked_at: ASKED_AT,
            ..target()
        };
        let own = Dialect::Chat
            .translate_request(caller, chat.as_bytes(), &to, 0)
            .unwrap()
            .body;
        let own = String::from_utf8(own).unwrap();
        for platform in Dialect::OF_PLATFORMS {
            let (cost, made) = cost(caller, platform, &own);
            assert!(made.is_ok(), "{caller:?} {platform:?} {made:?}");
            let mut left = MAX_VALUES / 2;
            assert!(Tree::read_of(own.as_bytes(), &mut left).is_ok());
            assert!(
                cost < crate::text::tree::MAX_STEPS,
                "{caller:?} {platform:?} {cost}"
            );
        }
    }
}
