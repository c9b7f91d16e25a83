"""Talks to the gateway at argv[1] with the official OpenAI client; prints what came back as JSON."""

import json
import sys

from openai import APIStatusError, OpenAI

client = OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=sys.argv[2], max_retries=0, timeout=20)
messages = [{"role": "user", "content": "hi"}]

chat = client.chat.completions.create(model="gpt-5.6", messages=messages)
chunks = list(client.chat.completions.create(model="gpt-5.6", messages=messages, stream=True))
response = client.responses.create(model="gpt-5.6", input="hi")
events = list(client.responses.create(model="gpt-5.6", input="hi", stream=True))
embedding = client.embeddings.create(model="text-embedding-3-small", input="hi")

again = client.responses.create(model="gpt-5.6", input="go on", previous_response_id=response.id)
without_v1 = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=20)

try:
    OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="lk_unknown", max_retries=0).models.list()
    refused = None
except APIStatusError as error:
    refused = [type(error).__name__, error.status_code, error.code]

print(json.dumps({
    "chat": chat.choices[0].message.content,
    "chat_stream": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
    "response": response.output_text,
    "response_stream": "".join(event.delta for event in events if event.type == "response.output_text.delta"),
    "last_event": events[-1].type,
    "embedding": len(embedding.data[0].embedding) > 0,
    "models": [model.id for model in client.models.list()],
    "again": again.output_text,
    "model": client.models.retrieve("gpt-5.6").id,
    "without_v1": without_v1.chat.completions.create(model="gpt-5.6", messages=messages).choices[0].message.content,
    "refused": refused,
}))
