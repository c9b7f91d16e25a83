//! The cost to the filter of a byte that a stranger made dear: a caller's body and a platform's answer, as native code.
//!
//! `make bench-scan` prints nanoseconds of CPU for each byte of 1 MiB, whole and in tiny pieces, and how long the whole
//! takes, which is how long a worker would stand still if all of it came at once. A plain answer stands beside them. CPU is
//! what the kernel charges to this thread; a figure is the least of some batches, since what else the machine does only adds.

mod dear;

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use latchkey::attempt::{answer::Mask, forwarding::Forwarding, usage_ask::UsageAsk};
use latchkey::dialect::{
    Accent, Demands, Dialect, EffortWord, MAX_REQUEST_BYTES, ServiceTier, Steered, Target,
};
use latchkey::request::{
    body::BodyReader,
    peek::{Peek, Wanted},
};
use latchkey::snapshot::Account;
use latchkey::text::{
    edit::{Edit, EditKind, edited},
    tree::{MAX_VALUES, Text, Tree},
};

const BYTES: usize = 1 << 20;
const BATCHES: usize = 5;
/// A batch has so many runs at least, and takes so long: the kernel charges in steps of some milliseconds.
const RUNS: u32 = 3;
const BATCH: Duration = Duration::from_millis(100);
/// A byte in each piece makes a million pieces.
const TINY: usize = 1;

const PLAIN: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"some words of an answer\"}}]}\n\n";

/// The name, what stands before, and what is repeated.
const ANSWERS: [(&str, &str, &str); 13] = [
    ("a plain stream", "", PLAIN),
    ("blank lines", "data: x\n\n", "\n"),
    ("lone CRs", "data: x\n\n", "\r"),
    ("blank lines of CR and LF", "data: x\n\n", "\r\n"),
    ("lines of one byte", "data: x\n\n", "a\n"),
    ("events of one byte", "data: x\n\n", "a\n\n"),
    ("`data:` alone", "data: x\n\n", "data:\n"),
    ("`data:` without an end", "data: x\n\n", "data:"),
    ("events of `data:`", "data: x\n\n", "data:\n\n"),
    ("events of `data:` and a byte", "data: x\n\n", "data:{\n\n"),
    ("comments", "data: x\n\n", ":\n"),
    ("an answer nested deep", "", "["),
    ("an answer of empty strings", "{\"choices\":[", "\"\","),
];
/// The text that is looked through for the account's credential, beside the rest.
const SEARCHED: [(&str, &str, &str); 3] = [
    ("a plain stream, looked through", "", PLAIN),
    (
        "the credential's beginning, looked through",
        "",
        "sk-proj-2b7Jq0dW_x",
    ),
    ("the credential's rarest byte, looked through", "", "Q"),
];
const OPENINGS: [(&str, &str, &str); 5] = [
    ("an opening of words", "{\"instructions\":\"", "some words "),
    ("an opening nested deep", "{\"input\":", "["),
    ("an opening of empty strings", "{\"input\":[", "\"\","),
    ("an opening of members", "{\"input\":[{", "\"\":0,"),
    (
        "a conversation of turns",
        "{\"input\":[",
        "{\"role\":\"user\",\"content\":\"some words of a turn\"},",
    ),
];
const BODIES: [(&str, &str, &str); 9] = [
    ("a body nested deep", "{\"a\":", "["),
    ("a body of empty strings", "{\"a\":[", "\"\","),
    ("a body of escapes", "{\"a\":\"", "\\u0022"),
    ("a body of members", "{", "\"\":0,"),
    ("a body of members of a letter", "{", "\"m\":0,"),
    ("a body of members of empty strings", "{", "\"\":\"\","),
    ("a body of members of empty lists", "{", "\"\":[],"),
    ("a body of blanks", "{", " "),
    ("a body of models", "{", "\"model\":\"\","),
];
/// The largest body into which a model or an effort is put, in bytes, and the most values beside those of the bodies below.
const EDITED_BYTES: usize = 16 << 20;
const OTHER_VALUES: usize = 8;
/// The dialect, the name, what stands before, what is repeated, how many values that is, and what stands behind.
const EDITED: [(Dialect, &str, &str, &str, usize, &str); 12] = [
    (Dialect::Responses, "members", "{", "\"\":0,", 2, "\"\":0}"),
    (
        Dialect::Responses,
        "members of a letter",
        "{",
        "\"m\":0,",
        2,
        "\"\":0}",
    ),
    (
        Dialect::Responses,
        "members called almost `reasoning`",
        "{",
        "\"reasonin\":0,",
        2,
        "\"\":0}",
    ),
    (
        Dialect::Responses,
        "members called `reasoning`",
        "{",
        "\"reasoning\":{},",
        2,
        "\"\":0}",
    ),
    (
        Dialect::Responses,
        "efforts",
        "{\"reasoning\":{",
        "\"effort\":\"low\",",
        2,
        "\"\":0}}",
    ),
    (
        Dialect::Gemini,
        "levels of thinking",
        "{\"generationConfig\":{\"thinkingConfig\":{",
        "\"thinkingLevel\":\"LOW\",",
        2,
        "\"\":0}}}",
    ),
    (
        Dialect::Responses,
        "models",
        "{",
        "\"model\":\"gpt-6\",",
        2,
        "\"\":0}",
    ),
    (
        Dialect::Responses,
        "empty lists",
        "{\"input\":[",
        "[],",
        1,
        "0]}",
    ),
    (
        Dialect::Responses,
        "escapes",
        "{\"input\":\"",
        "\\u0022",
        0,
        "\"}",
    ),
    (
        Dialect::Responses,
        "words",
        "{\"input\":\"",
        "some words ",
        0,
        "\"}",
    ),
    (Dialect::Responses, "blanks", "{", " ", 0, "}"),
    (
        Dialect::Responses,
        "turns",
        "{\"input\":[",
        "{\"role\":\"user\",\"content\":\"some words of a turn\"},",
        5,
        "0]}",
    ),
];

/// The CPU that this thread has had.
fn cpu() -> Duration {
    let charged = fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux");
    let nanoseconds = charged.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

/// The least CPU that `work` takes.
fn least(mut work: impl FnMut()) -> Duration {
    let batch = |_| {
        let (start, mut runs) = (cpu(), 0);
        loop {
            work();
            runs += 1;
            let taken = cpu() - start;
            if runs >= RUNS && taken >= BATCH {
                return taken / runs;
            }
        }
    };
    (0..BATCHES).map(batch).min().unwrap_or_default()
}

fn answer(bytes: &[u8], piece: usize) {
    let mut forwarding = Forwarding::new(Dialect::Chat, UsageAsk::Asked);
    for piece in bytes.chunks(piece) {
        black_box(forwarding.on_body(piece, false));
    }
    black_box(forwarding.finish(true, 0));
}

/// Looks for a credential of the usual form.
fn searched(bytes: &[u8], piece: usize) {
    let account = r#"{"id": "acc_1", "name": "one", "platform": "openai", "cluster": "c", "authority": "a", "vars": {}, "generation": 1,
        "credential": "sk-proj-2b7Jq0dW_x9TfLkUe4mYh1RzVnB8aCsGp6oXtEiDuKwMvNyQ3"}"#;
    let account: Account = serde_json::from_str(account).expect("an account");
    let mut mask = Mask::of(&account);
    let pieces = bytes.chunks(piece);
    let count = pieces.len();
    for (index, piece) in pieces.enumerate() {
        black_box(mask.on_body(piece, index + 1 == count));
    }
}

/// The same for a session that no member names: the opening of a conversation.
fn opening(bytes: &[u8], piece: usize) {
    let format = Dialect::Responses.format();
    let wanted = Wanted {
        members: format.request_members(),
        session: Dialect::Responses.best_session_name(),
        opening: format.opening(),
        ..Wanted::default()
    };
    let mut reader = BodyReader::new(None, wanted);
    for piece in bytes.chunks(piece) {
        reader.push(piece);
    }
    black_box(reader.into_facts());
}

fn body(bytes: &[u8], piece: usize) {
    let wanted = Wanted {
        members: Dialect::Responses.format().request_members(),
        background: true,
        whole: true,
        ..Wanted::default()
    };
    let mut peek = Peek::new(wanted);
    for piece in bytes.chunks(piece) {
        peek.push(piece);
    }
    black_box(peek.into_facts());
}

fn print(name: &str, start: &str, repeated: &str, work: fn(&[u8], usize)) {
    let bytes: Vec<u8> = [
        start.as_bytes(),
        &repeated.as_bytes().repeat(BYTES / repeated.len()),
    ]
    .concat();
    let (whole, tiny) = (
        least(|| work(&bytes, bytes.len())),
        least(|| work(&bytes, TINY)),
    );
    let each = |time: Duration| time.as_secs_f64() * 1e9 / bytes.len() as f64;
    let stall = whole.as_secs_f64() * 1e3;
    println!(
        "| {name} | {:.1} | {:.1} | {stall:.1} |",
        each(whole),
        each(tiny)
    );
}

/// Puts another model into a body, an effort and a tier; false for a body that is beyond a bound.
fn edit(dialect: Dialect, bytes: &[u8]) -> bool {
    let demands = Demands {
        effort: Some(EffortWord::Low),
        max_effort: Some(EffortWord::High),
        tier: Some(ServiceTier::Flex),
    };
    let accent = Accent::default();
    let steered = Steered {
        accent: &accent,
        refuses: &[],
    };
    let Ok(body) = Tree::read(bytes) else {
        return false;
    };
    let mut edits = demands.edits(dialect, steered, &body).unwrap_or_default();
    edits.push(Edit {
        path: vec!["model".to_owned()],
        value: "\"m\"".to_owned(),
        kind: EditKind::ReplaceText,
    });
    black_box(edited(&body, &edits)).is_some()
}

fn print_edits() {
    println!("\n| the largest body that is edited, of | MiB | values | ns a byte | ms at once |");
    println!("|---|--:|--:|--:|--:|");
    let most = MAX_VALUES - OTHER_VALUES;
    let row = |dialect, name: &str, bytes: &[u8], values: usize| {
        let whole = least(|| {
            black_box(edit(dialect, bytes));
        });
        println!(
            "| {name} | {:.1} | {values} | {:.1} | {:.1} |",
            bytes.len() as f64 / f64::from(1 << 20),
            whole.as_secs_f64() * 1e9 / bytes.len() as f64,
            whole.as_secs_f64() * 1e3
        );
    };
    for (dialect, name, start, repeated, values, end) in EDITED {
        let fits = EDITED_BYTES / repeated.len() - OTHER_VALUES * 8;
        let count = most.checked_div(values).map_or(fits, |most| most.min(fits));
        let bytes = [start, &repeated.repeat(count), end].concat();
        row(dialect, name, bytes.as_bytes(), values * count);
    }
    let beyond = format!("{{{}", "\"\":0,".repeat(EDITED_BYTES / 5));
    row(
        Dialect::Responses,
        "members, which is refused",
        beyond.as_bytes(),
        EDITED_BYTES / 5 * 2,
    );
}

/// Translates a request; false for one that is refused.
fn translate(caller: Dialect, platform: Dialect, body: &[u8]) -> bool {
    let accent = Accent::default();
    let target = Target {
        model: Text::of("m"),
        refuses: &[],
        accent: &accent,
        streams_only: false,
        asks_usage: false,
        owner: "1f",
        demands: Demands::default(),
        asked_at: "/v1beta/models/m:generateContent",
    };
    black_box(caller.translate_request(platform, body, &target, 0)).is_ok()
}

/// Prints how long each caller's dearest requests take into each other dialect; in brackets where they are refused.
fn print_translations() {
    let platforms = Dialect::OF_PLATFORMS.map(Dialect::word);
    println!(
        "\n| caller | the largest request that is translated, of | MiB | ms into {} |",
        platforms.join(" | ")
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    let most = dear::Size {
        bytes: MAX_REQUEST_BYTES,
        values: MAX_VALUES,
    };
    let callers = Dialect::OF_CALLERS.into_iter();
    for caller in callers.filter(|one| one.is_of_platforms()) {
        for (name, body) in dear::requests(caller, most) {
            let cell = |platform: Dialect| {
                if !caller.is_translated_to(platform) {
                    return String::new();
                }
                let mut is_taken = false;
                let took = least(|| is_taken = translate(caller, platform, body.as_bytes()));
                let took = took.as_secs_f64() * 1e3;
                match is_taken {
                    true => format!("{took:.0}"),
                    false => format!("({took:.0})"),
                }
            };
            println!(
                "| {} | {name} | {:.1} | {} |",
                caller.word(),
                body.len() as f64 / f64::from(1 << 20),
                Dialect::OF_PLATFORMS.map(cell).join(" | ")
            );
        }
    }
}

fn main() {
    // Words pick tables: `edits` or `translations` alone.
    let asks_for = |table: &str| std::env::args().any(|argument| argument == table);
    if asks_for("edits") {
        return print_edits();
    }
    if asks_for("translations") {
        return print_translations();
    }
    println!("| 1 MiB of | ns a byte | … in pieces of a byte | ms at once |");
    println!("|---|--:|--:|--:|");
    for (name, start, repeated) in ANSWERS {
        print(name, start, repeated, answer);
    }
    for (name, start, repeated) in SEARCHED {
        print(name, start, repeated, searched);
    }
    for (name, start, repeated) in BODIES {
        print(name, start, repeated, body);
    }
    for (name, start, repeated) in OPENINGS {
        print(name, start, repeated, opening);
    }
    print_edits();
    print_translations();
}
