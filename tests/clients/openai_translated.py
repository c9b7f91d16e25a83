"""Chats through the gateway at argv[1] with the official OpenAI client, where nobody speaks chat; prints what came back as JSON."""

import json
import sys

from openai import APIStatusError, OpenAI

client = OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=sys.argv[2], max_retries=0, timeout=20)
model = sys.argv[3]
messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
tools = [{"type": "function", "function": {"name": "add", "parameters": parameters}}]

chat = client.chat.completions.create(model=model, messages=messages, temperature=0)
with client.chat.completions.stream(model=model, messages=messages, stream_options={"include_usage": True}) as stream:
    list(stream)
    streamed = stream.get_final_completion()

wish = [{"role": "user", "content": 'use the tool add {"a": 1}'}]
asked = client.chat.completions.create(model=model, messages=wish, tools=tools)
with client.chat.completions.stream(model=model, messages=wish, tools=tools) as stream:
    list(stream)
    asked_in_stream = stream.get_final_completion()
call = asked.choices[0].message.tool_calls[0]
result = {"role": "tool", "tool_call_id": call.id, "content": "2"}
second = [*wish, asked.choices[0].message.model_dump(exclude_none=True), result]
after = client.chat.completions.create(model=model, messages=second, tools=tools)

try:
    file = {"type": "file", "file": {"file_id": "file-1"}}
    client.chat.completions.create(model=model, messages=[{"role": "user", "content": [file]}])
    refused = None
except APIStatusError as error:
    refused = [type(error).__name__, error.status_code, error.code, error.body["message"]]

print(json.dumps({
    "chat": chat.choices[0].message.content,
    "finish": chat.choices[0].finish_reason,
    "usage": chat.usage.total_tokens,
    "model": chat.model,
    "streamed": streamed.choices[0].message.content,
    "streamed_usage": streamed.usage.total_tokens,
    "call": [call.function.name, json.loads(call.function.arguments)],
    "call_finish": asked.choices[0].finish_reason,
    "call_in_stream": json.loads(asked_in_stream.choices[0].message.tool_calls[0].function.arguments),
    "after": after.choices[0].message.content,
    "refused": refused,
}))
