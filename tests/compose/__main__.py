"""Runs the stack of envoy/docker-compose*.yaml on a Docker engine, and tries what its operators count on.

    python3 tests/compose

It needs `docker` with Compose v2, and root to kill a container's process as the kernel would. It uses a project
name and ports of its own, and takes everything away at its end but the images.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROJECT = "latchkey-test"
FILES = ["envoy/docker-compose.yaml", "envoy/docker-compose.demo.yaml", "tests/compose/docker-compose.second.yaml"]
SERVICES = ["sim", "refresher", "envoy", "envoy2"]
USER = 10001

# Seconds: for the images, cold; for the show of the demo; for anything else.
BUILD, SHOW, PATIENCE = 2400, 180, 60


class Failed(Exception):
    """A check did not hold."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PORT, SECOND_PORT = free_port(), free_port()
ENVIRONMENT = os.environ | {
    "LATCHKEY_PORT": str(PORT),
    "LATCHKEY_SECOND_PORT": str(SECOND_PORT),
    "DOCKER_BUILDKIT": "1",
    "COMPOSE_PROJECT_NAME": PROJECT,
    "LATCHKEY_COMMIT": "of-the-test",
}


def run(words, limit=PATIENCE, check=True, quiet=True):
    output = subprocess.PIPE if quiet else None
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, text=True, timeout=limit, stdout=output, stderr=output)
    if check and done.returncode:
        raise Failed(f"{' '.join(words)}: status {done.returncode}\n{done.stdout or ''}{done.stderr or ''}")
    return done


def compose(*words, **options):
    files = [word for file in FILES for word in ("--file", file)]
    return run(["docker", "compose", *files, *words], **options)


def eventually(what, probe, limit=PATIENCE):
    """Waits until `probe` returns something true; says how long that took."""
    start, last = time.monotonic(), None
    while time.monotonic() < start + limit:
        try:
            if result := probe():
                return result, time.monotonic() - start
        except (Failed, OSError, http.client.HTTPException) as error:
            last = error
        time.sleep(0.2)
    raise Failed(f"{what}: not within {limit} s ({last})")


def step(text):
    print(f"compose: {text}", flush=True)


def ask(key, port=PORT):
    """One whole answer through the gateway, from outside the containers' network; None where it is an error."""
    body = {"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": "hello"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        raise Failed(f"{error.code}: {error.read().decode()}") from None


def answers(what, key, port=PORT):
    said, took = eventually(what, lambda: ask(key, port))
    step(f"{what}: {said!r} after {took:.1f} s")


def refresher(*words):
    return compose("exec", "--no-TTY", "refresher", "refresher", *words).stdout


def container(service):
    found = compose("ps", "--all", "--quiet", service).stdout.split()
    if len(found) != 1:
        raise Failed(f"{service}: expected one container, found {len(found)}")
    return json.loads(run(["docker", "inspect", found[0]]).stdout)[0]


# --- the checks ----------------------------------------------------------------------------------


def shows_its_story():
    """The demo's container shows all of its steps, and what it says to try can be tried."""

    def over():
        return "It keeps running" in compose("logs", "demo").stdout or not container("demo")["State"]["Running"]

    eventually("the end of the demo's show", over, SHOW)
    said = compose("logs", "--no-log-prefix", "demo").stdout
    for line in ("logged in as alice@example.test", "the stream did not notice", "usage_limit", "refused none"):
        if line not in said:
            raise Failed(f"the demo does not show {line!r}:\n{said}")
    found = re.search(r"authorization: Bearer (lk_\S+)'", said)
    if not found or f"http://127.0.0.1:{PORT}/v1" not in said:
        raise Failed(f"the demo does not say how to call it:\n{said}")
    step("the demo shows its story, and names an address and a key")
    return found.group(1)


def a_person_logs_in():
    """A login by code, of which the page is opened from outside the containers' network."""
    files = [word for file in FILES for word in ("--file", file)]
    words = ["exec", "--no-TTY", "refresher", "refresher", "login", "codex", "--device", "--name", "mine"]
    login = subprocess.Popen(
        ["docker", "compose", *files, *words],
        cwd=ROOT, env=ENVIRONMENT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = ""
    for line in login.stdout:
        said += line
        if "http://localhost:8445/codex/device" in said and (code := re.fullmatch(r"\s+(\w{4}-\w{4})\s+", line)):
            typed = f"http://localhost:8445/codex/device?user_code={code[1]}"
            page = urllib.request.urlopen(typed, timeout=10).read().decode()
            if "you@example.test" not in page:
                raise Failed(f"the platform's page does not ask who it is: {page}")
            urllib.request.urlopen(f"{typed}&sim_user=you@example.test", timeout=10).close()
    if login.wait(PATIENCE) or "mine" not in refresher("accounts", "list"):
        raise Failed(f"the login by code: {said}")
    step("a person logs in at the platform's page, from outside")


def is_confined():
    """Each container has a read-only root, no capability, and the user that the files are for."""
    for service in SERVICES:
        state = container(service)
        status = pathlib.Path(f"/proc/{state['State']['Pid']}/status").read_text()
        field = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if set(field["Uid"].split()) != {str(USER)} or set(field["Gid"].split()) != {str(USER)}:
            raise Failed(f"{service} runs as {field['Uid']}, {field['Gid']}; expected {USER}")
        for kind in ("CapEff", "CapPrm", "CapBnd"):
            if int(field[kind], 16):
                raise Failed(f"{service} has capabilities: {kind} {field[kind]}")
        if field["NoNewPrivs"] != "1":
            raise Failed(f"{service} may gain privileges")
        written = compose("exec", "--no-TTY", service, "sh", "-c", ": > /usr/local/bin/x", check=False)
        if not written.returncode or not state["HostConfig"]["ReadonlyRootfs"]:
            raise Failed(f"{service} can write into its image")
    step(f"{', '.join(SERVICES)}: user {USER}, no capability, a read-only root")


def says_what_it_is():
    """Both name what they were built of, and the refresher's log has no alarm about a stack that is as it should be."""
    version = refresher("--version")
    if "commit of-the-test" not in version:
        raise Failed(f"the refresher does not say what it was built of: {version}")
    expected = (ROOT / ".envoy-version").read_text().strip()
    version = compose("exec", "--no-TTY", "envoy", "envoy", "--version").stdout
    if f"/{expected}/" not in version:
        raise Failed(f"Envoy is not {expected}: {version}")
    said = compose("logs", "--no-log-prefix", "refresher").stdout
    alarms = [line for line in said.splitlines() if '"level":"ERROR"' in line]
    if alarms:
        raise Failed("the refresher's log has errors:\n" + "\n".join(alarms))
    step("Envoy and the refresher say what they are, and the refresher raises no alarm")


def survives_kill(key):
    """`kill -9` of each, as the kernel does when memory is short: the engine starts it again, and callers are served."""
    for service in ("envoy", "refresher", "sim"):
        before = container(service)
        os.kill(before["State"]["Pid"], 9)

        def restarted():
            now = container(service)
            return now["RestartCount"] > before["RestartCount"] and now["State"]["Running"]

        eventually(f"{service} again", restarted)
        answers(f"an answer after kill -9 of {service}", key)


def survives_restart(key):
    for service in ("sim", "refresher", "envoy"):
        compose("restart", service)
        answers(f"an answer after a restart of {service}", key)
    for name in ("alice", "bob"):
        refresher("refresh", name)
    answers("an answer with refreshed tokens", key)


def survives_down_and_up(key):
    before = {account["name"] for account in json.loads(refresher("accounts", "list", "--json"))}
    start = time.monotonic()
    compose("down")
    step(f"down took {time.monotonic() - start:.1f} s")
    compose("up", "--detach", limit=SHOW)
    answers("an answer after down and up", key)
    after = {account["name"] for account in json.loads(refresher("accounts", "list", "--json"))}
    if after != before:
        raise Failed(f"accounts before down {before}, after up {after}")


def logs():
    said = compose("logs", "--no-color", "--tail", "40", check=False).stdout
    print(said, file=sys.stderr)


def main():
    with contextlib.ExitStack() as closing:
        closing.callback(compose, "down", "--volumes", "--timeout", "2", check=False)
        try:
            compose("down", "--volumes", check=False)
            start = time.monotonic()
            compose("build", "--quiet", limit=BUILD, quiet=False)
            step(f"the images are built, in {time.monotonic() - start:.0f} s")
            compose("up", "--detach", limit=SHOW)
            key = shows_its_story()
            answers("an answer through the first Envoy", key)
            answers("an answer through the second Envoy", key, SECOND_PORT)
            a_person_logs_in()
            is_confined()
            says_what_it_is()
            survives_kill(key)
            survives_restart(key)
            survives_down_and_up(key)
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            logs()
            print(f"compose: FAILED: {error}", file=sys.stderr)
            return 1
    step("all of it held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
