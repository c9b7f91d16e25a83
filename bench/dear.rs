//! Requests that were made to be dear to translate, each as large as one may be, in every dialect of callers.

// The tests of the filter have this file too.
use super::Dialect;

/// What a body may have beside what is repeated.
const OTHER: Size = Size {
    bytes: 4096,
    values: 64,
};

/// The most that a body may have.
#[derive(Clone, Copy)]
pub struct Size {
    pub bytes: usize,
    pub values: usize,
}

/// As many tools as a request may have.
const TOOLS: usize = 4096;

/// What a request is to be.
#[derive(Clone, Copy)]
struct Of {
    caller: Dialect,
    most: Size,
}

/// What stands before, what is repeated, how many values that is, and what stands behind.
type Repeated = (String, String, usize, String);

/// The dear requests of a dialect, by name.
pub fn requests(caller: Dialect, most: Size) -> Vec<(&'static str, String)> {
    let most = Size {
        bytes: most.bytes - OTHER.bytes,
        values: most.values - OTHER.values,
    };
    let of = Of { caller, most };
    let text_of = |repeated: &str, end: &str| text_of(of, repeated, end);
    let text = |repeated: &str| said(caller, &text_of(repeated, ""));
    let mut all = vec![
        ("words", text("some words ")),
        ("words of other letters", text("сло́во и дело ")),
        ("line ends", text("a\\n")),
        ("escapes", text("\\u0022")),
        ("blanks", text(" ")),
        ("blanks and an escape", said(caller, &text_of(" ", "\\n"))),
        ("a picture", picture(of)),
        ("members", members(of, "\"a\":1,")),
        (
            "members called almost `model`",
            members(of, "\"modem\":\"m\","),
        ),
        ("members called `model`", members(of, "\"model\":\"m\",")),
        (
            "members called `model` in escapes",
            members(of, "\"\\u006d\\u006fdel\":\"m\","),
        ),
        ("a long name of a member", {
            let name = "n".repeat(most.bytes);
            members_of(caller, &format!("\"{name}\":1,"))
        }),
        ("turns", turns(of)),
        (
            "turns of the user's",
            filled(of, list(caller, &turn(caller, false, "a"))),
        ),
        ("members of a turn", {
            let (start, _, _, end) = list(caller, "");
            let mine = turn(caller, false, "a");
            let mine = mine
                .strip_prefix('{')
                .unwrap_or_default()
                .trim_end_matches(',')
                .to_owned();
            filled(of, (start + "{", "\"a\":1,".to_owned(), 2, mine + &end))
        }),
        ("parts", parts(of)),
        ("calls, each with its result", calls(of, "c", "", true)),
        ("calls at once", calls(of, "c", "", false)),
        ("calls at once, of ids almost alike", many_ids(of)),
        ("calls of odd ids", calls(of, &"c/".repeat(1_100), "", true)),
        (
            "a long id of a call",
            one_call(of, &"c/".repeat(most.bytes / 4), ""),
        ),
        ("arguments of members", one_call(of, "c", "\"a\":1,")),
        ("arguments nested deep", one_call(of, "c", &nested())),
        ("tools", tools(of, "", "")),
        ("tools of long schemas", tools(of, "t", &schema(caller))),
        ("tools of odd names", tools(of, &"t/".repeat(3_700), "")),
    ];
    all.extend(json_mode(of).map(|body| ("words, to be answered in JSON", body)));
    all
}

fn text_of(of: Of, repeated: &str, end: &str) -> String {
    repeated.repeat(of.most.bytes / repeated.len()) + end
}

/// A list of JSON that is filled up to what a body may have.
fn filled(of: Of, (start, repeated, values, end): Repeated) -> String {
    let room = of.most.bytes - start.len() - end.len();
    let most = of.most.values.checked_div(values).unwrap_or(usize::MAX);
    let all = repeated.repeat(most.min(room / repeated.len()));
    match end.starts_with([']', '}']) {
        true => start + all.trim_end_matches(',') + &end,
        false => start + &all + &end,
    }
}

/// The conversation of which each turn is this one.
fn list(caller: Dialect, turn: &str) -> Repeated {
    let values = turn.matches(':').count() * 2 + turn.matches(['{', '[']).count();
    let start = match caller {
        Dialect::Responses => r#"{"model":"m","input":["#,
        Dialect::Gemini => r#"{"contents":["#,
        _ => r#"{"model":"m","max_tokens":9,"messages":["#,
    };
    (start.to_owned(), turn.to_owned(), values, "]}".to_owned())
}

fn turn(caller: Dialect, is_model: bool, text: &str) -> String {
    let role = match (is_model, caller) {
        (false, _) => "user",
        (true, Dialect::Gemini) => "model",
        (true, _) => "assistant",
    };
    match caller {
        Dialect::Gemini => format!(r#"{{"role":"{role}","parts":[{{"text":"{text}"}}]}},"#),
        _ => format!(r#"{{"role":"{role}","content":"{text}"}},"#),
    }
}

fn turns(of: Of) -> String {
    let caller = of.caller;
    filled(
        of,
        list(
            caller,
            &(turn(caller, false, "a") + &turn(caller, true, "b")),
        ),
    )
}

/// A request that says this, as it stands in a string.
fn said(caller: Dialect, text: &str) -> String {
    let (start, _, _, end) = list(caller, "");
    start + turn(caller, false, text).trim_end_matches(',') + &end
}

fn part(caller: Dialect) -> &'static str {
    match caller {
        Dialect::Responses => r#"{"type":"input_text","text":"a"},"#,
        Dialect::Gemini => r#"{"text":"a"},"#,
        _ => r#"{"type":"text","text":"a"},"#,
    }
}

fn parts(of: Of) -> String {
    let caller = of.caller;
    let (start, _, _, end) = list(caller, "");
    let role = match caller {
        Dialect::Gemini => r#"{"role":"user","parts":["#,
        _ => r#"{"role":"user","content":["#,
    };
    let values = part(caller).matches(':').count() * 2 + 1;
    filled(
        of,
        (
            start + role,
            part(caller).to_owned(),
            values,
            "]}".to_owned() + &end,
        ),
    )
}

fn picture(of: Of) -> String {
    let caller = of.caller;
    let base64 = text_of(of, "QUJD", "");
    let part = match caller {
        Dialect::Responses => {
            format!(r#"{{"type":"input_image","image_url":"data:image/png;base64,{base64}"}}"#)
        }
        Dialect::Gemini => {
            format!(r#"{{"inlineData":{{"mimeType":"image/png","data":"{base64}"}}}}"#)
        }
        Dialect::Messages => format!(
            r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{base64}"}}}}"#
        ),
        _ => format!(
            r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{base64}"}}}}"#
        ),
    };
    let (start, _, _, end) = list(caller, "");
    let name = if caller == Dialect::Gemini {
        "parts"
    } else {
        "content"
    };
    format!("{start}{{\"role\":\"user\",\"{name}\":[{part}]}}{end}")
}

/// A request with members beside its own.
fn members_of(caller: Dialect, members: &str) -> String {
    let own = said(caller, "a");
    format!("{{{members}{}", own.strip_prefix('{').unwrap_or_default())
}

fn members(of: Of, repeated: &str) -> String {
    let caller = of.caller;
    let own = said(caller, "a");
    let own = own.strip_prefix('{').unwrap_or_default();
    filled(of, ("{".to_owned(), repeated.to_owned(), 2, own.to_owned()))
}

fn nested() -> String {
    format!("\"a\":{}1{},", "[".repeat(100), "]".repeat(100))
}

/// A call of the model's and its result, of these arguments.
fn call(caller: Dialect, id: &str, arguments: &str) -> [String; 2] {
    let text = arguments.replace('"', "\\\"");
    match caller {
        Dialect::Responses => [
            format!(
                r#"{{"type":"function_call","call_id":"{id}","name":"f","arguments":"{{{text}}}"}},"#
            ),
            format!(r#"{{"type":"function_call_output","call_id":"{id}","output":"o"}},"#),
        ],
        Dialect::Messages => [
            format!(r#"{{"type":"tool_use","id":"{id}","name":"f","input":{{{arguments}}}}},"#),
            format!(r#"{{"type":"tool_result","tool_use_id":"{id}","content":"o"}},"#),
        ],
        Dialect::Gemini => [
            format!(r#"{{"functionCall":{{"id":"{id}","name":"f","args":{{{arguments}}}}}}},"#),
            format!(
                r#"{{"functionResponse":{{"id":"{id}","name":"f","response":{{"output":"o"}}}}}},"#
            ),
        ],
        _ => [
            format!(
                r#"{{"id":"{id}","type":"function","function":{{"name":"f","arguments":"{{{text}}}"}}}},"#
            ),
            format!(r#"{{"role":"tool","tool_call_id":"{id}","content":"o"}},"#),
        ],
    }
}

/// The call as a turn, and its result as one.
fn as_turns(caller: Dialect, calls: &str, results: &str) -> String {
    let [calls, bare] = [calls, results].map(|text| text.trim_end_matches(','));
    match caller {
        Dialect::Responses => format!("{calls},{results}"),
        Dialect::Messages => format!(
            r#"{{"role":"assistant","content":[{calls}]}},{{"role":"user","content":[{bare}]}},"#
        ),
        Dialect::Gemini => {
            format!(r#"{{"role":"model","parts":[{calls}]}},{{"role":"user","parts":[{bare}]}},"#)
        }
        _ => format!(r#"{{"role":"assistant","content":null,"tool_calls":[{calls}]}},{results}"#),
    }
}

fn calls(of: Of, id: &str, arguments: &str, in_turn: bool) -> String {
    let caller = of.caller;
    let [call, result] = call(caller, id, arguments);
    let one = as_turns(caller, &call, &result);
    let (start, one, values, end) = list(caller, &one);
    if in_turn {
        return filled(of, (start, one, values, end));
    }
    let count = (of.most.values / values).min(of.most.bytes / one.len());
    let all = as_turns(caller, &call.repeat(count), &result.repeat(count));
    start + all.trim_end_matches(',') + &end
}

/// Calls at once whose ids differ at their ends.
fn many_ids(of: Of) -> String {
    let caller = of.caller;
    let id = "i".repeat(56);
    let [call, result] = call(caller, &format!("{id}00000000"), "");
    let (start, one, values, end) = list(caller, &as_turns(caller, &call, &result));
    let count = (of.most.values / values).min(of.most.bytes / one.len());
    let each = |one: &str| {
        let numbered = |at: usize| one.replace("00000000", &format!("{at:08}"));
        (0..count).map(numbered).collect::<String>()
    };
    let all = as_turns(caller, &each(&call), &each(&result));
    start + all.trim_end_matches(',') + &end
}

/// One call, whose arguments fill the body.
fn one_call(of: Of, id: &str, repeated: &str) -> String {
    let caller = of.caller;
    let as_text = matches!(caller, Dialect::Chat | Dialect::Responses);
    let one = repeated.replace('"', "\\\"");
    let (one, values) = match as_text {
        // Of what stands in a string no values are counted until that is read.
        true => (one.as_str(), 0),
        false => (repeated, repeated.matches(['"', '[', '1']).count()),
    };
    let room = of.most.bytes - 2 * id.len();
    let most = of
        .most
        .values
        .checked_div(values.max(2))
        .unwrap_or_default();
    let count = room.checked_div(one.len()).unwrap_or_default().min(most);
    let arguments = repeated.repeat(count);
    let [call, result] = call(caller, id, arguments.trim_end_matches(','));
    let (start, one, _, end) = list(caller, &as_turns(caller, &call, &result));
    start + one.trim_end_matches(',') + &end
}

fn schema(caller: Dialect) -> String {
    let (kind, more) = match caller {
        Dialect::Gemini => ("STRING", r#","nullable":true"#),
        _ => ("string", ""),
    };
    let property = |at: usize| format!(r#""p{at}":{{"type":"{kind}"{more}}}"#);
    let properties: Vec<_> = (0..9).map(property).collect();
    properties.join(",")
}

fn tools(of: Of, name: &str, properties: &str) -> String {
    let caller = of.caller;
    let one = |at: usize| {
        let object = format!(r#"{{"type":"object","properties":{{{properties}}}}}"#);
        match caller {
            Dialect::Responses => {
                format!(r#"{{"type":"function","name":"{name}{at}","parameters":{object}}}"#)
            }
            Dialect::Messages => format!(r#"{{"name":"{name}{at}","input_schema":{object}}}"#),
            Dialect::Gemini => format!(r#"{{"name":"{name}{at}","parameters":{object}}}"#),
            _ => format!(
                r#"{{"type":"function","function":{{"name":"{name}{at}","parameters":{object}}}}}"#
            ),
        }
    };
    let values = one(0).matches(':').count() * 2 + one(0).matches('{').count();
    let count = TOOLS
        .min(of.most.values / values)
        .min(of.most.bytes / one(0).len());
    let all: Vec<_> = (0..count).map(one).collect();
    let all = all.join(",");
    let all = match caller {
        Dialect::Gemini => format!(r#"{{"functionDeclarations":[{all}]}}"#),
        _ => all,
    };
    members_of(caller, &format!("\"tools\":[{all}],"))
}

/// Long words, and the wish for an answer in JSON, which most platforms take only beside that word.
fn json_mode(of: Of) -> Option<String> {
    let caller = of.caller;
    let asked = match caller {
        Dialect::Chat => r#"{"response_format":{"type":"json_object"},"#,
        Dialect::Responses => r#"{"text":{"format":{"type":"json_object"}},"#,
        Dialect::Gemini => r#"{"generationConfig":{"responseMimeType":"application/json"},"#,
        _ => return None,
    };
    let own = said(caller, &text_of(of, "some words ", ""));
    Some(asked.to_owned() + own.strip_prefix('{').unwrap_or_default())
}
