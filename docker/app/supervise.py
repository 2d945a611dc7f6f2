"""Runs a process of the application in a container as systemd runs its unit on a server. It needs nothing but Python.

    supervise.py run [--umask=0002] [--notify] [--watchdog=30] [--watchdog-signal=SIGKILL] -- COMMAND...
    supervise.py prepare [--umask=0002] ORDER -- COMMAND...
    supervise.py health [SOCKET PATH]

run      starts the command, and is to it what systemd is: it passes on signals to this process alone, takes its messages
         (sd_notify(3)), ends it when it does not feed the watchdog, and ends as it ends.
prepare  gives the command (coldframe.release.prepare) its order, and fails as it does.
health   exits with 0 if the process is ready and feeds the watchdog, and prints its status. With a socket it asks the
         HTTP server behind it, too.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("SUPERVISE_FOLDER", "/tmp/coldframe"))  # noqa: S108  # a tmpfs of the container
ABORTING = 5.0  # seconds that a process has to say where it hangs, after SIGABRT
PASSED_ON = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Process:
    """The command, and what it has said of itself."""

    def __init__(self, command: list[str], notify: bool, watchdog: float, watchdog_signal: int) -> None:
        """Remember how it is run; nothing is started yet.

        :param notify: whether it says when it is ready.
        :param watchdog: seconds within which it must say that it lives, from then on; 0 for ever.
        """
        self.command, self.watchdog, self.watchdog_signal = command, watchdog, watchdog_signal
        self.ready, self.status = not notify, ""
        self.fed = time.monotonic()
        self.killed = 0.0  # when the watchdog has ended it

    def run(self) -> int:
        """Run it to its end; return its exit status, as a shell has it."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        messages = FOLDER / "notify"
        messages.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(str(messages))
            channel.setblocking(False)
            wake, woken = os.pipe()
            for end in (wake, woken):
                os.set_blocking(end, False)
            signal.set_wakeup_fd(woken)
            for name in (*PASSED_ON, "SIGCHLD"):
                signal.signal(getattr(signal, name), lambda *_: None)
            self.write()
            waited: list[Any] = [channel, wake]
            child = subprocess.Popen(self.command, env=os.environ | {"NOTIFY_SOCKET": str(messages)})
            while True:
                select.select(waited, [], [], 1.0)
                self.listen(channel)
                ended = self.signals(wake, child.pid)
                if ended is not None:
                    return ended
                self.watch(child.pid)

    def listen(self, channel: socket.socket) -> None:
        """Take the messages that have come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.take(channel.recv(65536).decode(errors="replace"))

    def take(self, message: str) -> None:
        """Take one message."""
        for line in message.splitlines():
            name, _, value = line.partition("=")
            if name == "STATUS":
                self.status = value
            elif name == "READY":
                self.ready, self.fed = True, time.monotonic()
            elif name == "WATCHDOG":
                self.fed = time.monotonic() if value == "1" else 0.0
        self.write()

    def write(self) -> None:
        """Write down its state, for `health`."""
        new = FOLDER / "state.new"
        new.write_text(
            json.dumps({"ready": self.ready, "status": self.status, "fed": self.fed, "watchdog": self.watchdog})
        )
        new.replace(FOLDER / "state")

    def signals(self, wake: int, pid: int) -> int | None:
        """Pass on the signals that have come, and collect what has ended; return the exit status if the process is among it."""
        with contextlib.suppress(BlockingIOError):
            for number in os.read(wake, 4096):
                if number != signal.SIGCHLD:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == pid:
                    code = os.waitstatus_to_exitcode(found[1])
                    return code if code >= 0 else 128 - code
        return None

    def watch(self, pid: int) -> None:
        """End the process if it does not feed the watchdog."""
        if not self.ready or not self.watchdog or time.monotonic() - self.fed < self.watchdog:
            return
        if not self.killed:
            print(
                f"The process has not fed its watchdog for {self.watchdog:g} s: it is ended.",
                file=sys.stderr,
                flush=True,
            )
            self.killed = time.monotonic()
            os.kill(pid, self.watchdog_signal)
        elif time.monotonic() - self.killed > ABORTING:
            os.kill(pid, signal.SIGKILL)


def prepare(order: str, command: list[str]) -> int:
    """Run the command with its order; print what failed, and return the exit status."""
    done = subprocess.run(command, input=order, stdout=subprocess.PIPE, text=True, check=False)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        print(f"The release cannot be prepared: its process ended with {done.returncode}.", file=sys.stderr)
        return done.returncode or 1
    if result["error"]:
        print(f"The release cannot be prepared ({result['step']}):\n{result['error']['text']}", file=sys.stderr)
        return 1
    open_static(Path(os.environ["STATIC_ROOT"]))
    print(f"Migrations that were applied: {', '.join(result['applied']) or 'none'}")
    return 0


def open_static(folder: Path) -> None:
    """Let nginx read the static files, whatever the application's settings say."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def asked(path: str, request: str) -> int:
    """Return the status with which the HTTP server behind a socket answers. Raises OSError and http.client.HTTPException."""
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(5)
    connection.sock.connect(path)
    connection.request("GET", request)
    return connection.getresponse().status


def health(server: list[str]) -> int:
    """Print the state of the process; return 0 if it is well.

    :param server: a socket and a path, or nothing.
    """
    try:
        state = json.loads((FOLDER / "state").read_text())
    except FileNotFoundError:
        print("not started")
        return 1
    late = time.monotonic() - state["fed"]
    if not state["ready"]:
        print(f"not ready: {state['status'] or 'starting'}")
        return 1
    if state["watchdog"] and late > state["watchdog"]:
        print(f"no sign of life for {late:.0f} s: {state['status']}")
        return 1
    if server:
        try:
            status = asked(*server)
        except (OSError, http.client.HTTPException) as error:
            print(f"{server[0]} does not answer: {error}")
            return 1
        if status >= 400:
            print(f"{server[0]} answers {server[1]} with {status}")
            return 1
    print(state["status"] or "running")
    return 0


def arguments(given: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("supervise.py")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run, once, look = (verbs.add_parser(name) for name in ("run", "prepare", "health"))
    for verb in (run, once):
        verb.add_argument("--umask", type=lambda text: int(text, 8), default=0o022)
    run.add_argument("--notify", action="store_true")
    run.add_argument("--watchdog", type=float, default=0)
    run.add_argument("--watchdog-signal", type=lambda name: signal.Signals[name], default=signal.SIGABRT)
    once.add_argument("order")
    for verb in (run, once):
        verb.add_argument("command", nargs="+")
    look.add_argument("server", nargs="*")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Do what is asked; return the exit status."""
    read = arguments(given)
    if read.verb == "health":
        return health(read.server)
    os.umask(read.umask)
    if read.verb == "prepare":
        return prepare(read.order, read.command)
    return Process(read.command, read.notify, read.watchdog, read.watchdog_signal).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
