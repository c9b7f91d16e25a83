"""The steps of the demo. Each checks what it shows."""

import contextlib
import json
import os
import sqlite3
import sys
import threading

from stack import ALICE, API_KEY, BOB, MODEL, TOKEN_SECONDS, Failed, eventually

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def heading(text):
    print(f"\n\033[1m{text}\033[0m" if COLOUR else f"\n{text}", flush=True)


def say(text):
    print(f"  {text}", flush=True)


def show(demo):
    heading("1. A simulated LLM platform and the refresher")
    say(demo.start_platform_and_refresher())
    before = demo.counted()

    heading("2. Logging in two ChatGPT accounts (OAuth, authorization code with PKCE) and adding an API key")
    there = demo.accounts()
    for name, email in (("alice", ALICE), ("bob", BOB)):
        if name not in there:
            demo.log_in(name, email)
        done = "logged in" if name not in there else "logged in since an earlier run"
        say(f"{f'refresher login codex --name {name}':52}{done} as {email}")
    if "team-key" not in there:
        demo.refresher("accounts", "add", "team-key", "--platform", "openai", stdin=API_KEY)
    say(f"{'refresher accounts add team-key --platform openai':52}{'there' if 'team-key' in there else 'added'}")
    demo.key = demo.key_of_demo()
    say(f"{'refresher keys create demo':52}made the one key that callers need")

    heading("3. Envoy with the Latchkey filter")
    say(demo.start_envoy())

    heading("4. One client key, three accounts: each session stays on its account")
    sessions = {}
    for name, who in (("alice", ALICE), ("bob", BOB), ("team-key", "team-key")):
        sessions[name], said = demo.session_of(who)
        say(f"session {sessions[name]:8} -> account {name:8} streamed: {said!r}")

    heading("5. A token rotates while a stream runs")
    rotate_during_stream(demo, sessions["alice"])

    heading("6. An account reaches its limit, and nobody who calls notices")
    run_into_limit(demo, sessions["bob"])

    heading("7. Who used what")
    show_usage(demo, before)

    heading("8. What is at rest in the database")
    show_database(demo)

    seen = demo.seen_by_platform()
    if seen["refused"] or seen["expired_token_uses"] or seen["reuse_detected"]:
        raise Failed(f"the platform saw what it should not have: {json.dumps(seen)}")
    say(f"the platform answered {seen['requests']} requests and refused none: no foreign header, no expired token")
    demo.register(None)  # from now on tokens live as long as they usually do


def rotate_during_stream(demo, session):
    before = demo.accounts()["alice"]["generation"]
    demo.control("/settings", events=TOKEN_SECONDS * 2, event_delay_ms=600)
    seen = {before}
    watching = threading.Event()

    def watch():
        while not watching.wait(0.3):
            seen.add(demo.accounts()["alice"]["generation"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    dots = (lambda: print(".", end="", flush=True)) if sys.stdout.isatty() else (lambda: None)
    try:
        said, events = demo.ask(session, "please take your time", dots)
    finally:
        watching.set()
        watcher.join()
        demo.control("/settings", events=6, event_delay_ms=0)
    if sys.stdout.isatty():
        print()
    if len(seen) < 2:
        raise Failed("alice's token did not rotate while the stream ran")
    say(f"{events} events of one answer arrived: {said!r}")
    say(f"meanwhile alice's token went from generation {before} to {max(seen)}; the stream did not notice")
    said, _ = demo.ask(session)
    say(f"the next request of the session uses the new token: {said!r}")


def run_into_limit(demo, session):
    demo.control("/faults", target="upstream", account=BOB, times=1, fixture="codex/usage_limit_reached.json")
    said, _ = demo.ask(session)
    if BOB in said:
        raise Failed("bob's account has reached its limit and served all the same")
    say(f"the platform told bob's account that its limit is reached; the caller got: {said!r}")

    def limited():
        line = next((line for line in demo.refresher("status").splitlines() if "usage_limit" in line), "")
        return line[line.find("cooling down, back") :]

    say(f"refresher status says of bob: {eventually('the limit in the status', limited).strip()}")
    demo.refresher("accounts", "reset", "bob")

    def back():
        said, _ = demo.ask(session)
        return said if BOB in said else None

    said = eventually("the session on bob's account again", back)
    say(f"after `refresher accounts reset bob` the session is back: {said!r}")


def show_usage(demo, before):
    eventually("the usage of every request", lambda: demo.counted() == before + demo.asked)
    for line in demo.refresher("usage", "--by", "account").splitlines():
        say(line)


def show_database(demo):
    path = demo.state / "latchkey.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT name, credential FROM accounts ORDER BY name").fetchall()
    if len(rows) < 3:
        raise Failed(f"expected 3 accounts in {path}, found {len(rows)}")
    for name, sealed in rows:
        say(f"{name:8} {bytes(sealed)[:32].hex()}… ({len(sealed)} bytes, AES-256-GCM)")
    for file in sorted(demo.state.glob("latchkey.db*")):
        content = file.read_bytes()
        # So begins each JWT of the platform's. Its first three letters alone stand in what is sealed too, now and then.
        for secret in (API_KEY.encode(), b"eyJhbGciOi", demo.key.encode()):
            if secret in content:
                raise Failed(f"{file} holds a secret in plain text")
    say("no token, API key or client key stands in it in plain text")


def what_to_try(demo):
    people = demo.for_people()
    gateway = people["gateway"]
    heading("It keeps running. Try it, in another terminal:")
    print(
        f"""
  curl {gateway}/v1/chat/completions -H 'authorization: Bearer {demo.key}' \\
       -H 'content-type: application/json' \\
       -d '{{"model":"{MODEL}","messages":[{{"role":"user","content":"hello"}}]}}'

  # Codex, in ~/.codex/config.toml, then: GATEWAY_KEY={demo.key} codex
  model = "{MODEL}"
  model_provider = "latchkey"
  [model_providers.latchkey]
  name = "latchkey"
  base_url = "{gateway}/v1"
  env_key = "GATEWAY_KEY"

  # Python, the OpenAI SDK
  from openai import OpenAI
  client = OpenAI(base_url="{gateway}/v1", api_key="{demo.key}")
  messages = [{{"role": "user", "content": "hello"}}]
  print(client.chat.completions.create(model="{MODEL}", messages=messages).choices[0].message.content)

  {people["refresher"]} status

  {people["rest"]}""",
        flush=True,
    )


