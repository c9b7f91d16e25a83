//! Calls of tools: a user who says `use the tool NAME {…}`, of a tool that the request has, gets a call of it with
//! these arguments. Once its result is there, the answer is a text as ever.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Context, last_user_text};
use crate::answer::Answer;

/// What the user says before the tool's name.
const WISH: &str = "use the tool ";

/// The wire formats that have tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Chat,
    Responses,
    Messages,
}

/// Answers with a call of the tool that the user wishes; None where there is no such wish.
pub fn answer(format: Format, body: &Value, context: &Context<'_>) -> Option<Answer> {
    let (name, arguments) = wished(body)?;
    let streams = body["stream"] == Value::Bool(true);
    let fill = context.reply(body);
    let call = Call {
        id: &context.id,
        name,
        arguments: &arguments,
        model: &fill.model,
        input: fill.input_tokens,
        output: fill.output_tokens,
    };
    Some(match (format, streams) {
        (Format::Chat, false) => call.chat(),
        (Format::Chat, true) => {
            call.chat_stream(body["stream_options"]["include_usage"] == Value::Bool(true))
        }
        (Format::Responses, false) => whole(&call.response("completed")),
        (Format::Responses, true) => call.response_stream(),
        (Format::Messages, false) => whole(&call.message()),
        (Format::Messages, true) => call.message_stream(),
    })
}

/// The tool that the user wishes and that the request has, and its arguments.
fn wished(body: &Value) -> Option<(&str, String)> {
    let items = body["input"].as_array().or(body["messages"].as_array());
    let last = items.and_then(|items| items.last());
    let is_result =
        last.is_some_and(|last| last["role"] == "tool" || last["type"] == "function_call_output");
    let (_, wish) = last_user_text(body)
        .split_once(WISH)
        .filter(|_| !is_result)?;
    let tools = body["tools"].as_array()?;
    let has = |name: &str| {
        let mut tools = tools.iter();
        tools.any(|tool| tool["name"] == name || tool["function"]["name"] == name)
    };
    let (name, arguments) = called(wish, has)?;
    Some((name, arguments.to_string()))
}

/// The tool that a text wishes, if the request `has` it, and its arguments.
pub fn wish(text: &str, has: impl FnMut(&str) -> bool) -> Option<(&str, Value)> {
    called(text.split_once(WISH)?.1, has)
}

fn called(wish: &str, mut has: impl FnMut(&str) -> bool) -> Option<(&str, Value)> {
    let name = wish.split([' ', '\n']).next().filter(|name| has(name))?;
    let rest = wish[name.len()..].trim_start();
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    let arguments = values.next().and_then(Result::ok).unwrap_or(json!({}));
    Some((name, arguments))
}

/// A call of a tool, as part of an answer.
struct Call<'a> {
    id: &'a str,
    name: &'a str,
    arguments: &'a str,
    model: &'a str,
    input: u64,
    output: u64,
}

impl Call<'_> {
    fn chat(&self) -> Answer {
        let function = json!({"name": self.name, "arguments": self.arguments});
        let call =
            json!({"id": format!("call_{}", self.id), "type": "function", "function": function});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        whole(&json!({
            "id": format!("chatcmpl-{}", self.id), "object": "chat.completion", "created": 1, "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": self.chat_usage(),
        }))
    }

    fn chat_usage(&self) -> Value {
        let total = self.input + self.output;
        json!({"prompt_tokens": self.input, "completion_tokens": self.output, "total_tokens": total})
    }

    fn chat_stream(&self, with_usage: bool) -> Answer {
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = json!({
                "id": format!("chatcmpl-{}", self.id), "object": "chat.completion.chunk", "created": 1,
                "model": self.model, "choices": choices,
            });
            if !usage.is_null() {
                chunk["usage"] = usage;
            }
            format!("data: {chunk}\n\n")
        };
        let choice = |delta: Value, end: Value| {
            let choice = json!([{"index": 0, "delta": delta, "finish_reason": end}]);
            chunk(choice, Value::Null)
        };
        let begin = json!([{"index": 0, "id": format!("call_{}", self.id), "type": "function",
            "function": {"name": self.name, "arguments": ""}}]);
        let arguments = json!([{"index": 0, "function": {"arguments": self.arguments}}]);
        let mut events = vec![
            choice(
                json!({"role": "assistant", "content": null, "tool_calls": begin}),
                Value::Null,
            ),
            choice(json!({"tool_calls": arguments}), Value::Null),
            choice(json!({}), "tool_calls".into()),
        ];
        if with_usage {
            events.push(chunk(json!([]), self.chat_usage()));
        }
        events.push("data: [DONE]\n\n".to_owned());
        Answer::events(events)
    }

    fn item(&self, status: &str, arguments: &str) -> Value {
        json!({"id": format!("fc_{}", self.id), "type": "function_call", "status": status,
            "call_id": format!("call_{}", self.id), "name": self.name, "arguments": arguments})
    }

    fn response(&self, status: &str) -> Value {
        let (output, usage) = if status == "completed" {
            let usage = json!({"input_tokens": self.input, "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.output, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.input + self.output});
            (json!([self.item(status, self.arguments)]), usage)
        } else {
            (json!([]), Value::Null)
        };
        json!({"id": format!("resp_{}", self.id), "object": "response", "created_at": 1, "status": status,
            "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "model": self.model,
            "output": output, "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "usage": usage})
    }

    fn response_stream(&self) -> Answer {
        let item = format!("fc_{}", self.id);
        let values = [
            json!({"type": "response.created", "response": self.response("in_progress")}),
            json!({"type": "response.output_item.added", "output_index": 0, "item": self.item("in_progress", "")}),
            json!({"type": "response.function_call_arguments.delta", "item_id": item, "output_index": 0,
                "delta": self.arguments}),
            json!({"type": "response.function_call_arguments.done", "item_id": item, "output_index": 0,
                "name": self.name, "arguments": self.arguments}),
            json!({"type": "response.output_item.done", "output_index": 0,
                "item": self.item("completed", self.arguments)}),
            json!({"type": "response.completed", "response": self.response("completed")}),
        ];
        named_events(values)
    }

    fn message(&self) -> Value {
        let input: Value = serde_json::from_str(self.arguments).unwrap_or_default();
        let content = json!([{"type": "tool_use", "id": format!("toolu_{}", self.id), "name": self.name, "input": input}]);
        json!({"id": format!("msg_{}", self.id), "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": self.input, "output_tokens": self.output}})
    }

    fn message_stream(&self) -> Answer {
        let mut message = self.message();
        message["content"] = json!([]);
        message["stop_reason"] = Value::Null;
        let block = json!({"type": "tool_use", "id": format!("toolu_{}", self.id), "name": self.name, "input": {}});
        let values = [
            json!({"type": "message_start", "message": message}),
            json!({"type": "content_block_start", "index": 0, "content_block": block}),
            json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": self.arguments}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
                "usage": {"input_tokens": self.input, "output_tokens": self.output}}),
            json!({"type": "message_stop"}),
        ];
        named_events(values)
    }
}

fn whole(value: &Value) -> Answer {
    Answer::json(StatusCode::OK, value.to_string())
}

/// Events that have their names beside the type in their data, and their numbers.
fn named_events(values: impl IntoIterator<Item = Value>) -> Answer {
    let event = |(number, mut value): (usize, Value)| {
        let kind = value["type"].as_str().unwrap_or_default().to_owned();
        if kind.starts_with("response.") {
            value["sequence_number"] = number.into();
        }
        format!("event: {kind}\ndata: {value}\n\n")
    };
    Answer::events(values.into_iter().enumerate().map(event).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    #[test]
    fn a_wished_tool_is_called_until_its_result_is_there() {
        let context = Context {
            account: "a",
            id: "1".into(),
            pieces: 1,
            now: UnixMillis(1),
        };
        let tools = json!([{"type": "function", "name": "add"}]);
        let wish = "use the tool add {\"a\": 1} now";
        let mut body = json!({"messages": [{"role": "user", "content": wish}], "tools": tools});
        assert_eq!(wished(&body), Some(("add", "{\"a\":1}".to_owned())));
        for (format, streams) in [Format::Chat, Format::Responses, Format::Messages]
            .into_iter()
            .flat_map(|format| [(format, false), (format, true)])
        {
            body["stream"] = streams.into();
            assert!(answer(format, &body, &context).is_some());
        }
        let turns = body["messages"].as_array_mut().expect("turns");
        turns.push(json!({"role": "tool", "content": "2"}));
        assert_eq!(wished(&body), None);
        let other =
            json!({"messages": [{"role": "user", "content": "use the tool rm"}], "tools": tools});
        assert_eq!(wished(&other), None);
    }
}
