"""Talks through the gateway at argv[1] with the official Anthropic client, where nobody speaks messages. argv[2] is JSON: a list
with the `key` of each pool and the `model` to ask for. Prints what came back as JSON."""

import json
import sys

from anthropic import Anthropic, APIError, APIStatusError
from pydantic import BaseModel

schema = {"type": "object", "properties": {"a": {"type": "integer"}}}


class Said(BaseModel):
    said: str


def failure(ask):
    """The client's own exception: its class, the status, our code and the sentence."""
    try:
        ask()
    except APIStatusError as error:
        told = error.body["error"]
        return [type(error).__name__, error.status_code, told.get("code"), told["message"]]
    return None


def talk(client, model):
    create = client.messages.create
    user = lambda content: [{"role": "user", "content": content}]
    ask = {"model": model, "max_tokens": 2000, "messages": user("hi")}
    wish = user('use the tool add {"a": 1}')
    calling = {**ask, "messages": wish, "tools": [{"name": "add", "input_schema": schema}]}
    text = lambda message: next(block.text for block in message.content if block.type == "text")
    use = lambda message: next(block for block in message.content if block.type == "tool_use")
    tokens = lambda message: message.usage.input_tokens + message.usage.output_tokens

    thought = create(**ask, thinking={"type": "enabled", "budget_tokens": 1024}, system="be brief")
    with client.messages.stream(**ask) as stream:
        pieces = list(stream.text_stream)
        told = stream.get_final_message()
    whole = create(**ask)
    asked = create(**calling)
    with client.messages.stream(**calling) as stream:
        asked_in_stream = stream.get_final_message()
    call = use(asked)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "2"}
    turns = [*wish, {"role": "assistant", "content": asked.content}, *user([result])]
    after = create(**{**calling, "messages": turns})
    parsed = client.messages.parse(**ask, output_format=Said)
    image = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
    try:
        with client.messages.stream(**{**ask, "messages": user("please break off")}) as stream:
            stream.get_final_message()
        broken = None
    except APIError as error:
        broken = type(error).__name__
    return {
        "text": text(thought),
        "finish": whole.stop_reason,
        "tokens": tokens(whole),
        "model": whole.model,
        "streamed": "".join(pieces),
        "pieces": len(pieces),
        "streamed_tokens": tokens(told),
        "call": [call.name, call.input],
        "call_finish": asked.stop_reason,
        "call_in_stream": use(asked_in_stream).input,
        "after": text(after),
        "parsed": parsed.parsed_output.said,
        "refused": failure(lambda: create(**{**ask, "messages": user([image])})),
        "wrong": failure(lambda: create(**{**ask, "messages": user("please refuse this")})),
        "broken": broken,
    }


got = []
for target in json.loads(sys.argv[2]):
    client = Anthropic(base_url=sys.argv[1], api_key=target["key"], max_retries=0, timeout=20)
    got.append({"at": target["pool"], "dialect": "messages", **talk(client, target["model"])})
print(json.dumps(got))
