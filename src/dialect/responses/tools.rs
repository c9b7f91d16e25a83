//! The tools that a request of `responses` has, and the forms of their calls.
//!
//! Other dialects know functions and, at most, free-form tools. So a tool in a namespace becomes a function with the
//! name of both, and a tool of the dialect's own that its caller runs becomes a function too; their calls come back as
//! what they were ([`Form`]). What the platform itself would run is left out by name.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    dialect::neutral::{
        Choice, Form, Request, Tool, ToolInput,
        read::{
            Read, add_tool, expect, foreign, named, optional_flag, optional_list, optional_text,
            spend_tool_name, text, tool_name, wrong,
        },
    },
    text::tree::{Json, JsonKind, Text},
};

/// A tool of the dialect's own that its caller runs.
#[derive(Debug)]
pub(super) struct BuiltIn {
    /// The type of the tool, and the name of the function that stands for it.
    pub(super) name: &'static str,
    /// The type of a call.
    pub(super) call: &'static str,
    /// The type of what it returned.
    pub(super) output: &'static str,
    /// The member of a call in which its arguments are.
    pub(super) member: &'static str,
    description: &'static str,
    schema: &'static str,
}

const BUILT_IN: [BuiltIn; 4] = [
    BuiltIn {
        name: "local_shell",
        call: "local_shell_call",
        output: "local_shell_call_output",
        member: "action",
        description: "Runs a command on the user's machine.",
        schema: r#"{"type":"object","properties":{"type":{"type":"string","enum":["exec"]},"command":{"type":"array","items":{"type":"string"}},"env":{"type":"object","additionalProperties":{"type":"string"}},"working_directory":{"type":"string"},"timeout_ms":{"type":"integer"}},"required":["type","command","env"]}"#,
    },
    BuiltIn {
        name: "shell",
        call: "shell_call",
        output: "shell_call_output",
        member: "action",
        description: "Runs commands in the user's shell.",
        schema: r#"{"type":"object","properties":{"commands":{"type":"array","items":{"type":"string"}},"timeout_ms":{"type":"integer"},"max_output_length":{"type":"integer"}},"required":["commands"]}"#,
    },
    BuiltIn {
        name: "apply_patch",
        call: "apply_patch_call",
        output: "apply_patch_call_output",
        member: "operation",
        description: "Creates, updates or deletes a file, by a diff in the V4A format.",
        schema: r#"{"type":"object","properties":{"type":{"type":"string","enum":["create_file","update_file","delete_file"]},"path":{"type":"string"},"diff":{"type":"string"}},"required":["type","path"]}"#,
    },
    BuiltIn {
        name: TOOL_SEARCH,
        call: "tool_search_call",
        output: "tool_search_output",
        member: "arguments",
        description: "Finds more tools.",
        schema: r#"{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer"}},"required":["query"]}"#,
    },
];

/// The one that a platform runs unless the tool says that its caller does.
pub(super) const TOOL_SEARCH: &str = "tool_search";

/// The longest name of a namespace, in bytes as it stands in the body: each of its tools has copies of it.
const MAX_NAMESPACE_BYTES: usize = 512;

/// The parts of the name of a tool in a namespace stand apart by this.
const BETWEEN: &str = "__";

// === impl BuiltIn ===

impl BuiltIn {
    /// The one of which `holds` is true.
    pub(super) fn find(holds: impl Fn(&Self) -> bool) -> Option<&'static Self> {
        BUILT_IN.iter().find(|built_in| holds(built_in))
    }
}

/// The names of the tools that a request has.
pub(super) type Known = BTreeSet<String>;

/// Reads the tools that a request begins with.
pub(super) fn read<'a>(
    body: Json<'_, 'a>,
    known: &mut Known,
    request: &mut Request<'a>,
) -> Read<()> {
    if let Some(list) = optional_list(body, "tools")? {
        add(list, known, request)?;
    }
    request.choice = choice(body)?;
    Ok(())
}

/// Adds tools to those that are there, of which none is replaced. One without a namespace comes before one that would
/// have the same name.
pub(super) fn add<'a>(
    list: Json<'_, 'a>,
    known: &mut Known,
    request: &mut Request<'a>,
) -> Read<()> {
    for tool in list.items() {
        if text(tool, "type")?.is("namespace") {
            continue;
        }
        add_one(tool, None, known, request)?;
    }
    for tool in list.items() {
        if !text(tool, "type")?.is("namespace") {
            continue;
        }
        let namespace = text(tool, "name")?;
        if namespace.len() > MAX_NAMESPACE_BYTES {
            let why = format!("expected a name of at most {MAX_NAMESPACE_BYTES} bytes");
            return Err(foreign(tool.get("name").unwrap_or(tool), &why));
        }
        let namespace = namespace.plain().into_owned();
        let within = optional_list(tool, "tools")?;
        for tool in within.into_iter().flat_map(Json::items) {
            add_one(tool, Some(&namespace), known, request)?;
        }
    }
    Ok(())
}

fn add_one<'a>(
    tool: Json<'_, 'a>,
    namespace: Option<&str>,
    known: &mut Known,
    request: &mut Request<'a>,
) -> Read<()> {
    let kind = text(tool, "type")?;
    let kind = &*kind.plain();
    let schema = tool.get("parameters").map(Json::raw);
    let (own, input, form) = match kind {
        "function" => {
            let schema = ToolInput::Schema(schema.map(Cow::Borrowed));
            (tool_name(tool)?, schema, None)
        }
        "custom" => {
            let format = tool.get("format").map(Json::raw);
            (tool_name(tool)?, ToolInput::Raw(format), None)
        }
        _ => {
            let built_in = BuiltIn::find(|built_in| built_in.name == kind);
            let built_in = built_in.filter(|_| kind != TOOL_SEARCH || is_callers(tool));
            let Some(built_in) = built_in else {
                request.left_out.insert("tools");
                return Ok(());
            };
            let schema = Cow::Borrowed(schema.unwrap_or(built_in.schema));
            let schema = ToolInput::Schema(Some(schema));
            let form = Form::BuiltIn(built_in.name);
            (Text::of(built_in.name), schema, Some(form))
        }
    };
    spend_tool_name(tool, namespace.map_or(0, str::len));
    let name = joined(namespace, &own);
    let key = name.plain().into_owned();
    if !known.insert(key.clone()) {
        return Ok(());
    }
    let within = |namespace: &str| Form::Within {
        namespace: namespace.to_owned(),
        name: own.plain().into_owned(),
    };
    if let Some(form) = form.or_else(|| namespace.map(within)) {
        request.forms.insert(key, form);
    }
    let built_in = BuiltIn::find(|built_in| built_in.name == kind);
    let described = optional_text(tool, "description")?;
    let read = Tool {
        name,
        description: described.or(built_in.map(|built_in| Text::of(built_in.description))),
        input,
        // Absent, the platform makes the schema a strict one where it can; another one takes it as it is.
        strict: optional_flag(tool, "strict")?,
    };
    add_tool(tool, read, request)
}

fn is_callers(tool: Json<'_, '_>) -> bool {
    let execution = tool.text_at("execution");
    execution.is_some_and(|execution| execution.is("client"))
}

/// The name of a tool in a namespace.
pub(super) fn joined<'a>(namespace: Option<&str>, name: &Text<'a>) -> Text<'a> {
    match namespace {
        None | Some("") => name.clone(),
        Some(namespace) => {
            let between = if namespace.ends_with(BETWEEN) {
                ""
            } else {
                BETWEEN
            };
            Text::made(format!("{namespace}{between}{}", name.plain()))
        }
    }
}

/// The name in a call, or in a choice, with its namespace.
pub(super) fn name<'a>(json: Json<'_, 'a>) -> Read<Text<'a>> {
    let namespace = optional_text(json, "namespace")?;
    let namespace = namespace.as_ref().map(Text::plain);
    let joined = joined(namespace.as_deref(), &text(json, "name")?);
    Ok(named(json, joined))
}

fn choice<'a>(body: Json<'_, 'a>) -> Read<Option<Choice<'a>>> {
    let Some(choice) = body.get("tool_choice") else {
        return Ok(None);
    };
    if let Some(word) = choice.text() {
        return Ok(Some(Choice::of_word(&word)));
    }
    expect(choice, JsonKind::Object).map_err(|_| wrong(choice, "a string or an object"))?;
    if !text(choice, "type")?.is("allowed_tools") {
        let why = "that tool is the platform's own, and not available here";
        let kind = choice.get("type").unwrap_or(choice);
        let one = chosen(choice)?.ok_or_else(|| foreign(kind, why))?;
        return Ok(Some(Choice::One(one)));
    }
    let mode = optional_text(choice, "mode")?;
    let tools = optional_list(choice, "tools")?;
    // One that the platform would run is not among the tools either.
    let names = tools.into_iter().flat_map(Json::items);
    let names = names.filter_map(|tool| chosen(tool).transpose());
    Ok(Some(Choice::Some {
        required: mode.is_some_and(|mode| mode.is("required")),
        names: names.collect::<Read<_>>()?,
    }))
}

/// The tool that a choice names; none if a platform would run it.
fn chosen<'a>(choice: Json<'_, 'a>) -> Read<Option<Text<'a>>> {
    let kind = text(choice, "type")?;
    Ok(match &*kind.plain() {
        "function" | "custom" => Some(name(choice)?),
        kind => {
            let built_in = BuiltIn::find(|built_in| built_in.name == kind);
            built_in.map(|built_in| Text::of(built_in.name))
        }
    })
}
