"""Meets the refusals of the gateway with the clients for Python: the cases are JSON in argv[1], each with a `name`, a
`base`, a `key` and the `mebibytes` of its prompt. Prints what a person would read, in how many tries."""

import json
import sys
import threading
import time

from anthropic import Anthropic
from openai import DefaultHttpxClient, OpenAI


def openai(base, content, options):
    client = OpenAI(base_url=f"{base}/v1", **options)
    client.chat.completions.create(model="gpt-5.6", messages=[{"role": "user", "content": content}])


def anthropic(base, content, options):
    client = Anthropic(base_url=base, **options)
    client.messages.create(model="claude-opus-5-5", max_tokens=64, messages=[{"role": "user", "content": content}])


got = {}


def meet(client, ask):
    got[client] = {}
    for case in json.loads(sys.argv[1]):
        tries = []
        http_client = DefaultHttpxClient(event_hooks={"request": [tries.append]}, trust_env=False)
        options = {"api_key": case["key"], "max_retries": case["retries"], "http_client": http_client}
        began = time.monotonic()
        try:
            ask(case["base"], "x" * (case["mebibytes"] << 20 or 1), options)
            seen = {"text": "no refusal"}
        except Exception as error:
            seen = {"text": str(error), "kind": type(error).__name__}
        got[client][case["name"]] = {**seen, "tries": len(tries), "ms": int(1000 * (time.monotonic() - began))}


clients = {"openai python": openai, "anthropic python": anthropic}.items()
threads = [threading.Thread(target=meet, args=client) for client in clients]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(got))
