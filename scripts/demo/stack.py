"""The stack that the demo shows: started on this machine (`Local`), or as containers that run already (`Compose`)."""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ALICE, BOB = "alice@example.test", "bob@example.test"
# Whom a person who tries it may log in as.
YOU = "you@example.test"
API_KEY = "sk-demo-0123456789abcdefghijklmnop"
MODEL = "gpt-6.1-sol"

# How long a login's access token lives in the demo, in seconds: short, so that it is seen to rotate.
TOKEN_SECONDS = 10
# How long anything may take before the demo gives up on it, in seconds.
PATIENCE = 60


class Failed(Exception):
    """Something that should have happened did not."""


def eventually(what, probe):
    """Waits until `probe` returns something true, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := probe():
            return result
        time.sleep(0.1)
    raise Failed(f"{what}: not seen within {PATIENCE} s")


class Stack:
    """What both have: the refresher's commands, a person with a browser, and somebody who calls.

    `gateway` is where the demo itself calls, `refresher_words` what a command of the refresher begins with.
    """

    def __init__(self, state, gateway, refresher, closing):
        self.state = state
        self.gateway = gateway
        self.refresher_words = refresher
        self.closing = closing
        self.platform = None
        self.key = None
        self.asked = 0

    # --- the refresher -----------------------------------------------------------------------------

    def environment(self):
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
        return kept | {"LATCHKEY_STATE_DIR": str(self.state), "NO_COLOR": "1"}

    def refresher(self, *words, stdin=""):
        """Runs one command of the refresher, as a person would, and returns what it prints."""
        done = subprocess.run(
            [self.refresher_words, *words],
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

    def counted(self):
        """How many requests `refresher usage` counts."""
        usage = json.loads(self.refresher("usage", "--by", "account", "--json"))
        return sum(row["requests"] for row in usage["rows"])

    # --- the platform ------------------------------------------------------------------------------

    def register(self, lifetime):
        """Gives the platform its users and its API key; tokens live for `lifetime` seconds from now on."""
        for email, account in ((ALICE, "ws-alice"), (BOB, "ws-bob"), (YOU, "ws-you")):
            self.control(
                "/users",
                email=email,
                account_id=account,
                plan="plus",
                access_lifetime_seconds=lifetime,
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

    # --- logging in --------------------------------------------------------------------------------

    def log_in(self, name, email):
        """Runs `refresher login codex` and plays the person with the browser."""
        process = subprocess.Popen(
            [self.refresher_words, "login", "codex", "--name", name, "--no-browser"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
        )
        self.closing.callback(stop, process)
        words = []
        for line in process.stdout:
            words.append(line)
            if url := next((word for word in line.split() if "/oauth/authorize?" in word), None):
                self.browse(f"{self.reachable(url)}&sim_user={urllib.parse.quote(email)}")
        if process.wait(timeout=PATIENCE):
            raise Failed(f"refresher login codex: {''.join(words).strip()}")

    def reachable(self, url):
        """The platform's page at that URL, from where the demo is."""
        return url

    def browse(self, url):
        trust = ssl.create_default_context(cafile=self.platform["ca_file"])
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        with opener.open(url, timeout=PATIENCE) as page:
            page.read()

    # --- calling -----------------------------------------------------------------------------------

    def models(self):
        request = urllib.request.Request(f"{self.gateway}/v1/models", headers={"x-api-key": self.key})
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
        host = urllib.parse.urlsplit(self.gateway).netloc
        connection = http.client.HTTPConnection(host, timeout=PATIENCE + TOKEN_SECONDS)
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


class Local(Stack):
    """All three on this machine, in a folder, as long as the demo runs."""

    def __init__(self, folder, port, closing):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        gateway = f"http://127.0.0.1:{port}"
        require_free(port, "stop it, or choose another: make demo PORT=8081")
        super().__init__(folder / "state", gateway, target / "debug" / "refresher", closing)
        self.folder = folder
        self.port = port
        self.sim = target / "debug" / "sim"
        self.wasm = (target / "latchkey.wasm").resolve()

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
        self.closing.callback(stop, process)
        return process

    def start_platform_and_refresher(self):
        process = self.start("sim", [self.sim, "--dir", self.folder / "sim"], stdout=subprocess.PIPE)
        line = process.stdout.readline()
        if not line:
            raise Failed(f"the simulated platform did not start: see {self.folder}/sim.log")
        self.platform = json.loads(line)
        self.register(TOKEN_SECONDS)
        self.state.mkdir(mode=0o700)
        config = self.state / "config.toml"
        config.write_text(
            'acknowledged_terms = ["codex"]\n'
            f'platforms_dir = "{self.platform["platforms_dir"]}"\n'
            "[refresh]\nfloor_seconds = 1\n"
            f'\n[envoy]\nwasm = "{self.wasm}"\n'
        )
        config.chmod(0o600)
        self.start("refresher", [self.refresher_words, "serve"])
        eventually("the refresher's socket", (self.state / "run" / "refresher.sock").exists)
        eventually("Envoy's clusters", (self.state / "envoy" / "clusters.json").exists)
        return f"the platform answers on {self.platform['tls']}: it checks logins, tokens and headers as the real ones do"

    def start_envoy(self):
        words = ["--port", self.port, "--state", self.state, "--wasm", self.wasm]
        rendered = subprocess.run(
            [ROOT / "scripts" / "envoy-config.sh", *map(str, words)], capture_output=True, text=True
        )
        if rendered.returncode:
            raise Failed(rendered.stderr.strip())
        config = self.folder / "envoy.yaml"
        config.write_text(rendered.stdout)
        options = ["--concurrency", "2", "--disable-hot-restart", "-l", "warning"]
        self.start("envoy", [os.environ["LATCHKEY_ENVOY"], "-c", config, *options])
        eventually("Envoy's first snapshot", lambda: self.models() is not None)
        return f"the gateway listens on {self.gateway}"

    def key_of_demo(self):
        return json.loads(self.refresher("keys", "create", "demo", "--json"))["key"]

    def for_people(self):
        return {
            "gateway": self.gateway,
            "refresher": f"LATCHKEY_STATE_DIR={self.state} {self.refresher_words}",
            "rest": f"Logs: {self.folder}\n  Stop with Ctrl-C.",
        }

    def ends_of_logs(self):
        for name in ("refresher", "envoy", "sim"):
            log = self.folder / f"{name}.log"
            if log.exists() and (tail := log.read_text(errors="replace").splitlines()[-5:]):
                yield f"the end of {name}'s log:\n  " + "\n  ".join(tail)


class Compose(Stack):
    """The containers of envoy/docker-compose.demo.yaml, seen from one of them. Their state outlives the demo."""

    # Where a person's browser finds the platform's pages, and where they are in the containers' network.
    PAGES, PAGES_INSIDE = "http://localhost:8445", "http://sim:8445"

    def __init__(self, closing):
        state = pathlib.Path(os.environ["LATCHKEY_STATE_DIR"])
        super().__init__(state, "http://envoy:8080", "refresher", closing)
        self.platform = {"control": "http://sim:8444", "ca_file": "/var/lib/sim/ca.pem"}

    def start_platform_and_refresher(self):
        self.register(TOKEN_SECONDS)
        # Logins of an earlier run have tokens that live for long.
        for name, account in self.accounts().items():
            if account["platform"] == "codex":
                self.refresher("refresh", name)
        return "they are containers beside this one; the platform checks logins, tokens and headers as the real ones do"

    def start_envoy(self):
        eventually("Envoy's first snapshot", lambda: self.models() is not None)
        return f"it listens on {self.for_people()['gateway']}"

    def reachable(self, url):
        return url.replace(self.PAGES, self.PAGES_INSIDE, 1)

    def key_of_demo(self):
        """The same key in each run: whoever tried the demo has it in their client."""
        file = self.state / "demo.key"
        if not file.exists():
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(json.loads(self.refresher("keys", "create", "demo", "--json"))["key"])
        return file.read_text()

    def for_people(self):
        compose = "docker compose -f envoy/docker-compose.yaml -f envoy/docker-compose.demo.yaml"
        return {
            "gateway": f"http://127.0.0.1:{os.environ['LATCHKEY_PORT']}",
            "refresher": f"{compose} exec refresher refresher",
            "rest": "Log one more account in, in your own browser (the simulated platform's page asks who you are):\n"
            f"  {compose} exec refresher refresher login codex --device --name mine\n\n"
            f"  Stop with Ctrl-C, and take all of it away: {compose} down --volumes",
        }

    def ends_of_logs(self):
        return ["docker compose logs tells more."]


def require_free(port, cure):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Failed(f"port {port} is taken by another program: {cure}") from None


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
