"""Asks for responses through the gateway at argv[1] with the official OpenAI client, where nobody speaks responses; prints what came back as JSON."""

import json
import sys

from openai import APIStatusError, OpenAI

client = OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=sys.argv[2], max_retries=0, timeout=20)
model = sys.argv[3]
parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
tools = [
    {"type": "function", "name": "add", "parameters": parameters, "strict": False},
    {"type": "custom", "name": "note", "description": "Takes a note"},
]


def streamed(**arguments):
    """The final response that the client's helper makes of a stream, which throws at one that breaks the grammar."""
    with client.responses.stream(model=model, tools=tools, **arguments) as stream:
        for _ in stream:
            pass
        return stream.get_final_response()


hi = client.responses.create(model=model, instructions="be brief", input="hi")
told = streamed(input="hi")
wish = [{"role": "user", "content": 'use the tool add {"a": 1}'}]
asked = streamed(input=wish)
call = next(item for item in asked.output if item.type == "function_call")
history = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in asked.output]
result = {"type": "function_call_output", "call_id": call.call_id, "output": "2"}
after = client.responses.create(model=model, input=[*wish, *history, result], tools=tools)
noted = streamed(input='use the tool note {"input": "two\\nlines"}')
note = next(item for item in noted.output if item.type == "custom_tool_call")

try:
    client.responses.create(model=model, input="hi", previous_response_id="resp_1")
    refused = None
except APIStatusError as error:
    refused = [type(error).__name__, error.code]

print(json.dumps({
    "response": hi.output_text,
    "status": hi.status,
    "model": hi.model,
    "usage": hi.usage.total_tokens,
    "streamed": told.output_text,
    "streamed_usage": told.usage.total_tokens,
    "call": [call.name, json.loads(call.arguments)],
    "after": after.output_text,
    "note": [note.name, note.input],
    "refused": refused,
}))
