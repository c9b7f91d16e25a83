"""Talks to the gateway at argv[1] with the official Anthropic client; prints what came back as JSON."""

import json
import sys

from anthropic import Anthropic, APIStatusError

client = Anthropic(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=20)
bearer = Anthropic(base_url=sys.argv[1], auth_token=sys.argv[2], api_key=None, max_retries=0, timeout=20)
ask = {"model": "claude-opus-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}

message = client.messages.create(**ask)
with bearer.messages.stream(**ask) as stream:
    text = "".join(stream.text_stream)
    last = stream.get_final_message()
tokens = client.messages.count_tokens(model=ask["model"], messages=ask["messages"])

with_v1 = Anthropic(base_url=f"{sys.argv[1]}/v1", api_key=sys.argv[2], max_retries=0, timeout=20)

try:
    Anthropic(base_url=sys.argv[1], api_key="lk_unknown", max_retries=0).messages.create(**ask)
    refused = None
except APIStatusError as error:
    refused = [type(error).__name__, error.status_code, error.body["error"]["code"]]

print(json.dumps({
    "message": message.content[0].text,
    "stream": text,
    "stop_reason": last.stop_reason,
    "tokens": tokens.input_tokens > 0,
    "models": [model.id for model in client.models.list()],
    "model": client.models.retrieve(ask["model"]).display_name,
    "with_v1": with_v1.messages.create(**ask).content[0].text,
    "refused": refused,
}))
