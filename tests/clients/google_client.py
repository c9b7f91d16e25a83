"""Generates through the gateway at argv[1] with Google's own client. argv[2] is JSON: a list with the `key` of each pool and
the `model` to ask for, whoever serves it. Prints what came back as JSON."""

import json
import sys

from google import genai
from google.genai import errors, types
from pydantic import BaseModel

parameters = {"type": "OBJECT", "properties": {"a": {"type": "INTEGER"}}}
tool = types.Tool(function_declarations=[{"name": "add", "description": "adds", "parameters": parameters}])
calling = types.GenerateContentConfig(
    tools=[tool], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
)
FILE = "https://generativelanguage.googleapis.com/v1beta/files/1"


class Said(BaseModel):
    said: str


def failure(ask):
    """The client's own exception: its class, the status, its word for that and the sentence."""
    try:
        ask()
    except errors.APIError as error:
        return [type(error).__name__, error.code, error.status, error.message]
    return None


def conversation(client, model, streams):
    """A turn with a call of a tool, and the turn after it: what was called, the answer, and the turns that are kept."""
    chat = client.chats.create(model=model, config=calling)

    def send(message):
        if not streams:
            return chat.send_message(message)
        return [chunk for chunk in chat.send_message_stream(message) if chunk.function_calls or chunk.text][0]

    call = send('use the tool add {"a": 1}').function_calls[0]
    response = types.FunctionResponse(id=call.id, name=call.name, response={"output": "2"})
    after = send(types.Part(function_response=response))
    return [call.name, call.args], after.text, len(chat.get_history(curated=True))


def generate(client, model):
    def create(contents, **config):
        return client.models.generate_content(model=model, contents=contents, config=config)

    def stream(contents, **config):
        return list(client.models.generate_content_stream(model=model, contents=contents, config=config))

    whole = create("hi", system_instruction="be brief", temperature=0)
    pieces = stream("hi", system_instruction="be brief")
    call, after, turns = conversation(client, model, False)
    in_stream, after_stream, turns_in_stream = conversation(client, model, True)
    parsed = create("hi", response_mime_type="application/json", response_schema=Said)
    file = types.Part.from_uri(file_uri=FILE, mime_type="image/png")
    broken = failure(lambda: stream("please break off"))
    return {
        "text": whole.text,
        "finish": whole.candidates[0].finish_reason.value,
        "tokens": whole.usage_metadata.total_token_count,
        "model": whole.model_version,
        "streamed": "".join(piece.text or "" for piece in pieces),
        "pieces": len(pieces),
        "streamed_tokens": pieces[-1].usage_metadata.total_token_count,
        "call": call,
        "call_in_stream": in_stream[1],
        "after": after,
        "after_stream": after_stream,
        "turns": [turns, turns_in_stream],
        "parsed": parsed.parsed.said,
        "refused": failure(lambda: create([file])),
        "wrong": failure(lambda: create("please refuse this")),
        "broken": broken and broken[0],
    }


got = []
for target in json.loads(sys.argv[2]):
    options = types.HttpOptions(base_url=sys.argv[1], timeout=20_000)
    client = genai.Client(api_key=target["key"], http_options=options)
    got.append({"at": target["pool"], "dialect": "gemini", **generate(client, target["model"])})
print(json.dumps(got))
