"""Talks through the gateway at argv[1] with the official OpenAI client, where nobody speaks its dialects. argv[2] is JSON: a
list with the `key` of each pool, the `model` to ask for and the `dialects` to ask in. Prints what came back as JSON."""

import json
import sys

from openai import APIError, APIStatusError, OpenAI
from pydantic import BaseModel

parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
WISH = 'use the tool add {"a": 1}'


class Said(BaseModel):
    said: str


def failure(ask):
    """The client's own exception: its class, the status, our code and the sentence."""
    try:
        ask()
    except APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code, error.body["message"]]
    return None


def chat(client, model):
    create = client.chat.completions.create
    user = lambda text: [{"role": "user", "content": text}]
    messages = [{"role": "system", "content": "be brief"}, *user("hi")]
    tools = [{"type": "function", "function": {"name": "add", "parameters": parameters}}]

    def streamed(**arguments):
        with client.chat.completions.stream(model=model, **arguments) as stream:
            pieces = sum(event.type == "content.delta" for event in stream)
            return pieces, stream.get_final_completion()

    whole = create(model=model, messages=messages, temperature=0)
    pieces, told = streamed(messages=messages, stream_options={"include_usage": True})
    asked = create(model=model, messages=user(WISH), tools=tools).choices[0]
    _, in_stream = streamed(messages=user(WISH), tools=tools)
    call = asked.message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "2"}
    turns = [*user(WISH), asked.message.model_dump(exclude_none=True), result]
    after = create(model=model, messages=turns, tools=tools)
    parsed = client.chat.completions.parse(model=model, messages=user("hi"), response_format=Said)
    file = {"type": "file", "file": {"file_id": "file-1"}}
    try:
        for _ in create(model=model, messages=user("please break off"), stream=True):
            pass
        broken = None
    except APIError as error:
        broken = type(error).__name__
    return {
        "text": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "tokens": whole.usage.total_tokens,
        "model": whole.model,
        "streamed": told.choices[0].message.content,
        "pieces": pieces,
        "streamed_tokens": told.usage.total_tokens,
        "call": [call.function.name, json.loads(call.function.arguments)],
        "call_finish": asked.finish_reason,
        "call_in_stream": json.loads(in_stream.choices[0].message.tool_calls[0].function.arguments),
        "after": after.choices[0].message.content,
        "parsed": parsed.choices[0].message.parsed.said,
        "refused": failure(lambda: create(model=model, messages=user([file]))),
        "wrong": failure(lambda: create(model=model, messages=user("please refuse this"))),
        "broken": broken,
    }


def responses(client, model):
    create = client.responses.create
    tools = [
        {"type": "function", "name": "add", "parameters": parameters, "strict": False},
        {"type": "custom", "name": "note", "description": "Takes a note"},
    ]

    def streamed(**arguments):
        """The final response that the client's helper makes of a stream, which throws at one that breaks the grammar."""
        with client.responses.stream(model=model, tools=tools, **arguments) as stream:
            pieces = sum(event.type == "response.output_text.delta" for event in stream)
            return pieces, stream.get_final_response()

    whole = create(model=model, instructions="be brief", input="hi")
    pieces, told = streamed(input="hi")
    wish = [{"role": "user", "content": WISH}]
    called = create(model=model, input=wish, tools=tools)
    call = next(item for item in called.output if item.type == "function_call")
    _, asked = streamed(input=wish)
    in_stream = next(item for item in asked.output if item.type == "function_call")
    history = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in asked.output]
    result = {"type": "function_call_output", "call_id": in_stream.call_id, "output": "2"}
    after = create(model=model, input=[*wish, *history, result], tools=tools)
    _, noted = streamed(input='use the tool note {"input": "two\\nlines"}')
    note = next(item for item in noted.output if item.type == "custom_tool_call")
    parsed = client.responses.parse(model=model, input="hi", text_format=Said)
    last = None
    for event in create(model=model, input="please break off", stream=True):
        last = event.type
    return {
        "text": whole.output_text,
        "finish": whole.status,
        "tokens": whole.usage.total_tokens,
        "model": whole.model,
        "streamed": told.output_text,
        "pieces": pieces,
        "streamed_tokens": told.usage.total_tokens,
        "call": [call.name, json.loads(call.arguments)],
        "call_finish": called.status,
        "call_in_stream": json.loads(in_stream.arguments),
        "after": after.output_text,
        "note": [note.name, note.input],
        "parsed": parsed.output_parsed.said,
        "refused": failure(lambda: create(model=model, input="hi", previous_response_id="resp_1")),
        "wrong": failure(lambda: create(model=model, input="please refuse this")),
        "broken": last,
    }


got = []
for target in json.loads(sys.argv[2]):
    client = OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=target["key"], max_retries=0, timeout=20)
    for name in target["dialects"]:
        ask = {"chat": chat, "responses": responses}[name]
        got.append({"at": target["pool"], "dialect": name, **ask(client, target["model"])})
print(json.dumps(got))
