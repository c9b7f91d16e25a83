"""Generates through the gateway at argv[1] with Google's own client, whoever serves the model argv[3]; prints what came back
as JSON."""

import json
import sys

from google import genai
from google.genai import errors, types

options = types.HttpOptions(base_url=sys.argv[1], timeout=20_000)
client = genai.Client(api_key=sys.argv[2], http_options=options)
model = sys.argv[3]

whole = client.models.generate_content(
    model=model, contents="hi", config={"system_instruction": "be brief", "temperature": 0}
)
pieces = list(client.models.generate_content_stream(model=model, contents="hi", config={"system_instruction": "be brief"}))

parameters = {"type": "OBJECT", "properties": {"a": {"type": "INTEGER"}}}
tool = types.Tool(function_declarations=[{"name": "add", "description": "adds", "parameters": parameters}])
config = types.GenerateContentConfig(
    tools=[tool], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
)


def conversation(streams):
    """A turn with a call of a tool, and the turn after it: what was called, the answer, and the turns that are kept."""
    chat = client.chats.create(model=model, config=config)

    def send(message):
        if not streams:
            return chat.send_message(message)
        return [chunk for chunk in chat.send_message_stream(message) if chunk.function_calls or chunk.text][0]

    call = send('use the tool add {"a": 1}').function_calls[0]
    response = types.FunctionResponse(id=call.id, name=call.name, response={"output": "2"})
    after = send(types.Part(function_response=response))
    return {"call": [call.name, call.args], "after": after.text, "turns": len(chat.get_history(curated=True))}


try:
    file = types.Part.from_uri(file_uri="https://generativelanguage.googleapis.com/v1beta/files/1", mime_type="image/png")
    client.models.generate_content(model=model, contents=[file])
    refused = None
except errors.ClientError as error:
    refused = [error.code, error.status, error.message]

print(json.dumps({
    "whole": whole.text,
    "finish": whole.candidates[0].finish_reason.value,
    "usage": whole.usage_metadata.total_token_count,
    "model": whole.model_version,
    "streamed": "".join(piece.text or "" for piece in pieces),
    "streamed_finish": pieces[-1].candidates[0].finish_reason.value,
    "streamed_usage": pieces[-1].usage_metadata.total_token_count,
    "asked": conversation(False),
    "asked_in_stream": conversation(True),
    "refused": refused,
}))
