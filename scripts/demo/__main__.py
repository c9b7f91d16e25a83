"""Shows Latchkey at work against a simulated platform: the refresher, Envoy and the platform, on this machine alone.

Every step checks what it shows; where something does not happen the demo says so and ends with
status 1. It stops every process that it started.

    PORT=8081       where the gateway listens (8080)
    ONCE=1          stop after the show, with status 0 if all of it happened
    STACK=compose   show the containers of envoy/docker-compose.demo.yaml, from one of them
"""

import contextlib
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile

from show import heading, show, what_to_try
from stack import Compose, Failed, Local


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as closing:
        stack = None
        try:
            if os.environ.get("STACK") == "compose":
                stack = Compose(closing)
            else:
                # A short name: a Unix socket's path may have 107 bytes.
                folder = pathlib.Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="latchkey-demo-")))
                stack = Local(folder, int(os.environ.get("PORT", "8080")), closing)
            show(stack)
            if os.environ.get("ONCE", "") not in ("", "0"):
                heading("All of it happened.")
                return 0
            what_to_try(stack)
            signal.pause()
        except KeyboardInterrupt:
            print()
            return 0
        except (Failed, subprocess.TimeoutExpired, sqlite3.Error, OSError) as error:
            for end in stack.ends_of_logs() if stack else ():
                print(f"\n{end}", file=sys.stderr)
            print(f"\ndemo: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
