"""Talks through the gateway at argv[1] with the official Anthropic client, where nobody speaks messages; prints what came back as JSON."""

import json
import sys

from anthropic import Anthropic, APIStatusError

client = Anthropic(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=20)
ask = {"model": sys.argv[3], "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}]}
wish = [{"role": "user", "content": 'use the tool add {"a": 1}'}]
schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
calling = {**ask, "messages": wish, "tools": [{"name": "add", "input_schema": schema}]}

message = client.messages.create(**ask, thinking={"type": "enabled", "budget_tokens": 1024}, system="be brief")
with client.messages.stream(**ask) as stream:
    text = "".join(stream.text_stream)
    last = stream.get_final_message()
plain = client.messages.create(**ask)
asked = client.messages.create(**calling)
with client.messages.stream(**calling) as stream:
    asked_in_stream = stream.get_final_message()
call = next(block for block in asked.content if block.type == "tool_use")
call_in_stream = next(block for block in asked_in_stream.content if block.type == "tool_use")
result = {"type": "tool_result", "tool_use_id": call.id, "content": "2"}
turns = [*wish, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
after = client.messages.create(**{**calling, "messages": turns})

try:
    source = {"type": "file", "file_id": "file_1"}
    turn = {"role": "user", "content": [{"type": "image", "source": source}]}
    client.messages.create(**{**ask, "messages": [turn]})
    refused = None
except APIStatusError as error:
    refused = [type(error).__name__, error.status_code, error.body["error"]["code"]]

print(json.dumps({
    "message": next(block.text for block in message.content if block.type == "text"),
    "stop": message.stop_reason,
    "usage": plain.usage.input_tokens + plain.usage.output_tokens,
    "streamed": text,
    "streamed_usage": last.usage.input_tokens + last.usage.output_tokens,
    "call": [call.name, call.input],
    "call_stop": asked.stop_reason,
    "call_in_stream": call_in_stream.input,
    "after": next(block.text for block in after.content if block.type == "text"),
    "refused": refused,
}))
