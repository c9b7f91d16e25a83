"""Shows Latchkey at work: a simulated platform, the refresher and Envoy, on this machine alone.

Every step checks what it shows; where something does not happen the demo says so and ends with
status 1. It keeps its files in a temporary folder and stops every process that it started.
"""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REFRESHER = TARGET / "debug" / "refresher"
SIM = TARGET / "debug" / "sim"
WASM = TARGET / "latchkey.wasm"
ENVOY = os.environ["LATCHKEY_ENVOY"]
PORT = int(os.environ.get("PORT", "8080"))
ONCE = os.environ.get("ONCE", "") not in ("", "0")
GATEWAY = f"http://127.0.0.1:{PORT}"

ALICE, BOB = "alice@example.test", "bob@example.test"
API_KEY = "sk-demo-0123456789abcdefghijklmnop"
MODEL = "gpt-6.1-sol"

# How long a login's access token lives in the demo, in seconds: short, so that it is seen to rotate.
TOKEN_SECONDS = 20
# How long anything may take before the demo gives up on it, in seconds.
PATIENCE = 20
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class Failed(Exception):
    """Something that should have happened did not."""


def heading(text):
    print(f"\n\033[1m{text}\033[0m" if COLOUR else f"\n{text}", flush=True)


def say(text):
    print(f"  {text}", flush=True)


def eventually(what, probe):
    """Waits until `probe` returns something true, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := probe():
            return result
        time.sleep(0.1)
    raise Failed(f"{what}: not seen within {PATIENCE} s")


def require_free(port, cure):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Failed(f"port {port} is taken by another program: {cure}") from None


class Demo:
    """The running stack and its files."""

    def __init__(self, folder, stack):
        self.folder = folder
        self.state = folder / "state"
        self.stack = stack
        self.platform = None
        self.key = None
        self.asked = 0

    def start(self, name, command, **options):
        log = open(self.folder / f"{name}.log", "wb")
        # They end with this process, also where it is killed.
        command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            env=self.environment(),
            **({"stdout": log} | options),
        )
        self.stack.callback(stop, process)
        return process

    def environment(self):
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
        return kept | {"LATCHKEY_STATE_DIR": str(self.state), "NO_COLOR": "1"}

    def refresher(self, *words, stdin=""):
        """Runs one command of the refresher, as a person would, and returns what it prints."""
        done = subprocess.run(
            [REFRESHER, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=self.environment(),
        )
        if done.returncode:
            raise Failed(f"refresher {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def accounts(self):
        return {account["name"]: account for account in json.loads(self.refresher("accounts", "list", "--json"))}

    # --- the stack -------------------------------------------------------------------------------

    def start_platform(self):
        process = self.start("sim", [SIM, "--dir", self.folder / "sim"], stdout=subprocess.PIPE)
        line = process.stdout.readline()
        if not line:
            raise Failed(f"the simulated platform did not start: see {self.folder}/sim.log")
        self.platform = json.loads(line)
        for email, account in ((ALICE, "ws-alice"), (BOB, "ws-bob")):
            self.control(
                "/users",
                email=email,
                account_id=account,
                plan="plus",
                access_lifetime_seconds=TOKEN_SECONDS,
            )
        self.control("/api_keys", platform="openai", key=API_KEY, name="team-key")

    def control(self, path, **body):
        request = urllib.request.Request(
            self.platform["control"] + path,
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            answer.read()

    def seen_by_platform(self):
        with urllib.request.urlopen(self.platform["control"] + "/stats", timeout=PATIENCE) as answer:
            return json.load(answer)

    def start_refresher(self):
        self.state.mkdir(mode=0o700)
        config = self.state / "config.toml"
        config.write_text(
            'acknowledged_terms = ["codex"]\n'
            f'platforms_dir = "{self.platform["platforms_dir"]}"\n'
            "[refresh]\nfloor_seconds = 1\n"
            f'\n[envoy]\nwasm = "{WASM}"\n'
        )
        config.chmod(0o600)
        self.start("refresher", [REFRESHER, "serve"])
        eventually("the refresher's socket", (self.state / "run" / "refresher.sock").exists)
        eventually("Envoy's clusters", (self.state / "envoy" / "clusters.json").exists)

    def start_envoy(self):
        words = ["--port", PORT, "--state", self.state, "--wasm", WASM]
        rendered = subprocess.run(
            [ROOT / "scripts" / "envoy-config.sh", *map(str, words)], capture_output=True, text=True
        )
        if rendered.returncode:
            raise Failed(rendered.stderr.strip())
        config = self.folder / "envoy.yaml"
        config.write_text(rendered.stdout)
        options = ["--concurrency", "2", "--disable-hot-restart", "-l", "warning"]
        self.start("envoy", [ENVOY, "-c", config, *options])
        eventually("Envoy's first snapshot", lambda: self.models() is not None)

    # --- logging in ------------------------------------------------------------------------------

    def log_in(self, name, email):
        """Runs `refresher login codex` and plays the person with the browser."""
        process = subprocess.Popen(
            [REFRESHER, "login", "codex", "--name", name, "--no-browser"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
        )
        self.stack.callback(stop, process)
        words = []
        for line in process.stdout:
            words.append(line)
            if url := next((word for word in line.split() if word.startswith("https://")), None):
                self.browse(f"{url}&sim_user={urllib.parse.quote(email)}")
        if process.wait(timeout=PATIENCE):
            raise Failed(f"refresher login codex: {''.join(words).strip()}")

    def browse(self, url):
        trust = ssl.create_default_context(cafile=self.platform["ca_file"])
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        with opener.open(url, timeout=PATIENCE) as page:
            page.read()

    # --- calling ---------------------------------------------------------------------------------

    def models(self):
        request = urllib.request.Request(f"{GATEWAY}/v1/models", headers={"x-api-key": self.key})
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return json.load(answer)["data"] or None
        except (urllib.error.URLError, OSError):
            return None

    def ask(self, session, text="hello", on_event=lambda: None):
        """Streams one answer through the gateway; what it said, and in how many events."""
        body = {
            "model": MODEL,
            "instructions": "",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}],
            "stream": True,
            "store": False,
        }
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE + TOKEN_SECONDS)
        headers = {
            "authorization": f"Bearer {self.key}",
            "content-type": "application/json",
            "session-id": session,
        }
        with contextlib.closing(connection):
            connection.request("POST", "/v1/responses", json.dumps(body), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise Failed(f"the gateway answered {answer.status}: {answer.read().decode()}")
            said, events, done = "", 0, False
            for line in answer:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "response.output_text.delta":
                        said, events = said + event["delta"], events + 1
                        on_event()
                    done |= event["type"] == "response.completed"
        if not done:
            raise Failed(f"the stream ended before its last event, after: {said!r}")
        self.asked += 1
        return said, events

    def session_of(self, who):
        """A session that the pool keeps on the account of `who`."""
        for number in range(64):
            said, _ = self.ask(f"demo-{number}")
            if f"from {who}" in said:
                return f"demo-{number}", said
        raise Failed(f"64 sessions, and none was served by {who}")


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- the show ------------------------------------------------------------------------------------


def show(demo):
    heading("1. Starting a simulated LLM platform and the refresher")
    demo.start_platform()
    demo.start_refresher()
    say(f"the platform answers on {demo.platform['tls']}: it checks logins, tokens and headers as the real ones do")

    heading("2. Logging in two ChatGPT accounts (OAuth, authorization code with PKCE) and adding an API key")
    for name, email in (("alice", ALICE), ("bob", BOB)):
        demo.log_in(name, email)
        say(f"{f'refresher login codex --name {name}':52}logged in as {email}")
    demo.refresher("accounts", "add", "team-key", "--platform", "openai", stdin=API_KEY)
    say(f"{'refresher accounts add team-key --platform openai':52}added")
    demo.key = json.loads(demo.refresher("keys", "create", "demo", "--json"))["key"]
    say(f"{'refresher keys create demo':52}made the one key that callers need")

    heading("3. Starting Envoy with the Latchkey filter")
    demo.start_envoy()
    say(f"the gateway listens on {GATEWAY}")

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
    show_usage(demo)

    heading("8. What is at rest in the database")
    show_database(demo)

    seen = demo.seen_by_platform()
    if seen["refused"] or seen["expired_token_uses"] or seen["reuse_detected"]:
        raise Failed(f"the platform saw what it should not have: {json.dumps(seen)}")
    say(f"the platform answered {seen['requests']} requests and refused none: no foreign header, no expired token")


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


def show_usage(demo):
    def counted():
        table = demo.refresher("usage", "--by", "account")
        requests = table.splitlines()[-1].split()[1:2]
        return table if requests == [str(demo.asked)] else None

    for line in eventually("the usage of every request", counted).splitlines():
        say(line)


def show_database(demo):
    path = demo.state / "latchkey.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT name, credential FROM accounts ORDER BY name").fetchall()
    if len(rows) != 3:
        raise Failed(f"expected 3 accounts in {path}, found {len(rows)}")
    for name, sealed in rows:
        say(f"{name:8} {bytes(sealed)[:32].hex()}… ({len(sealed)} bytes, AES-256-GCM)")
    for file in sorted(demo.state.glob("latchkey.db*")):
        content = file.read_bytes()
        for secret in (API_KEY.encode(), b"eyJ", demo.key.encode()):
            if secret in content:
                raise Failed(f"{file} holds a secret in plain text")
    say("no token, API key or client key stands in it in plain text")


def what_to_try(demo):
    heading("It keeps running. Try it, in another terminal:")
    print(
        f"""
  curl {GATEWAY}/v1/chat/completions -H 'authorization: Bearer {demo.key}' \\
       -H 'content-type: application/json' \\
       -d '{{"model":"{MODEL}","messages":[{{"role":"user","content":"hello"}}]}}'

  # Codex, in ~/.codex/config.toml, then: GATEWAY_KEY={demo.key} codex
  model = "{MODEL}"
  model_provider = "latchkey"
  [model_providers.latchkey]
  name = "latchkey"
  base_url = "{GATEWAY}/v1"
  env_key = "GATEWAY_KEY"

  # Python, the OpenAI SDK
  from openai import OpenAI
  client = OpenAI(base_url="{GATEWAY}/v1", api_key="{demo.key}")
  messages = [{{"role": "user", "content": "hello"}}]
  print(client.chat.completions.create(model="{MODEL}", messages=messages).choices[0].message.content)

  LATCHKEY_STATE_DIR={demo.state} {REFRESHER} status

  Logs: {demo.folder}
  Stop with Ctrl-C.""",
        flush=True,
    )


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        # A short name: a Unix socket's path may have 107 bytes.
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latchkey-demo-")))
        try:
            require_free(PORT, "stop it, or choose another: make demo PORT=8081")
            demo = Demo(folder, stack)
            show(demo)
            if ONCE:
                heading("All of it happened.")
                return 0
            what_to_try(demo)
            signal.pause()
        except KeyboardInterrupt:
            print()
            return 0
        except (Failed, subprocess.TimeoutExpired, sqlite3.Error, OSError) as error:
            for name in ("refresher", "envoy", "sim"):
                log = folder / f"{name}.log"
                if log.exists() and (tail := log.read_text(errors="replace").splitlines()[-5:]):
                    print(f"\nthe end of {name}'s log:\n  " + "\n  ".join(tail), file=sys.stderr)
            print(f"\ndemo: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
