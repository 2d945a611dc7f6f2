"""What starts a process in a container: readiness, watchdog, signals and health, as a real process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest
from waits import wait_for

PROGRAM = Path(__file__).parents[1] / "docker/app/supervise.py"
SAY = """
import os, signal, socket, sys, time
channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
say = lambda text: channel.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""


@pytest.fixture
def supervised(tmp_path):
    """Start the supervisor with a Python program as its command; end what is left."""
    started = []
    environment = os.environ | {"SUPERVISE_FOLDER": str(tmp_path / "state")}

    def start(code, *options):
        command = [sys.executable, PROGRAM, "run", *options, "--", sys.executable, "-c", SAY + code]
        started.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
        return started[-1]

    def health(*server):
        done = subprocess.run(
            [sys.executable, PROGRAM, "health", *server], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.strip()

    start.health = health
    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stderr.close()


def test_process_is_healthy_from_when_it_says_so(supervised, tmp_path):
    assert supervised.health() == (1, "not started")
    supervised(
        "say('STATUS=loading'); open('loading', 'w')\n"
        "while not os.path.exists('go'): time.sleep(0.02)\n"
        "say('READY=1\\nSTATUS=consuming'); time.sleep(60)",
        "--notify",
    )
    wait_for(lambda: supervised.health() == (1, "not ready: loading"), 20, "the state is told")
    (tmp_path / "go").touch()
    wait_for(lambda: supervised.health() == (0, "consuming"), 20, "the state is told")


def test_process_that_says_nothing_is_healthy_as_long_as_it_runs(supervised):
    supervised("time.sleep(60)")
    wait_for(lambda: supervised.health() == (0, "running"), 20, "the state is told")


def test_process_that_does_not_feed_the_watchdog_is_ended_and_says_where_it_hangs(supervised):
    process = supervised(
        "import faulthandler; faulthandler.enable(); say('READY=1'); time.sleep(600)", "--notify", "--watchdog=1"
    )
    assert process.wait(30) == 128 + signal.SIGABRT
    said = process.stderr.read()
    assert "has not fed its watchdog for 1 s" in said and "Current thread" in said


def test_process_that_catches_the_watchdogs_signal_is_killed(supervised):
    process = supervised(
        "signal.signal(signal.SIGABRT, signal.SIG_IGN); say('READY=1')\nwhile True: time.sleep(1)",
        "--notify",
        "--watchdog=1",
    )
    assert process.wait(30) == 128 + signal.SIGKILL


def test_worker_can_ask_to_be_ended(supervised):
    process = supervised(
        "say('READY=1\\nWATCHDOG=1'); say('WATCHDOG=trigger'); time.sleep(600)",
        "--notify",
        "--watchdog=600",
        "--watchdog-signal=SIGKILL",
    )
    assert process.wait(30) == 128 + signal.SIGKILL


def test_start_is_not_watched(supervised):
    process = supervised("time.sleep(2.5); sys.exit(7)", "--notify", "--watchdog=1")
    assert process.wait(30) == 7


def test_signal_reaches_the_process_alone_and_it_may_take_its_time(supervised, tmp_path):
    """A worker's children go on: it waits for them itself."""
    process = supervised(
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(2)'])\n"
        "def stop(*_): open('child', 'w').write(str(child.wait())); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); say('READY=1')\nwhile True: time.sleep(1)",
        "--notify",
    )
    wait_for(lambda: supervised.health()[0] == 0, 20, "the state is told")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert (tmp_path / "child").read_text() == "0"


def test_files_have_the_mode_of_the_units(supervised, tmp_path):
    supervised("os.makedirs('made')", "--umask=0002").wait(30)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o775


class Answer(BaseHTTPRequestHandler):
    """Answers a path that is a number with that status."""

    def do_GET(self):
        """Answer."""
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def address_string(self):
        """Name the client, which has no address."""
        return "-"

    def log_message(self, *_):
        """Log nothing."""


def test_server_behind_a_socket_is_asked(supervised, tmp_path):
    path = str(tmp_path / "http")
    supervised("time.sleep(60)")
    wait_for(lambda: supervised.health()[0] == 0, 20, "the state is told")
    assert supervised.health(path, "/200")[0] == 1, "nobody listens"
    with UnixStreamServer(path, Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert supervised.health(path, "/200") == (0, "running")
        assert supervised.health(path, "/503") == (1, f"{path} answers /503 with 503")
        server.shutdown()


@pytest.mark.parametrize(
    ("result", "code", "said"),
    [
        ({"error": None, "applied": ["blog.0001_initial"], "step": "check"}, 0, "blog.0001_initial"),
        ({"error": {"text": "no such table"}, "applied": [], "step": "migrate"}, 1, "(migrate):\nno such table"),
        (None, 3, "ended with 3"),
    ],
)
def test_release_is_prepared_or_the_reason_is_said(tmp_path, result, code, said):
    static = tmp_path / "static"
    (static / "css").mkdir(parents=True)
    (static / "css/a.css").touch(0o600)
    (static / "css").chmod(0o700)
    program = "import sys; assert sys.stdin.read() == '{\"check\": true}'\n"
    program += f"print({json.dumps(result)!r})" if result else "sys.exit(3)"
    done = subprocess.run(
        [sys.executable, PROGRAM, "prepare", '{"check": true}', "--", sys.executable, "-c", program],
        env=os.environ | {"STATIC_ROOT": str(static)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code and said in done.stdout + done.stderr
    assert bool((static / "css/a.css").stat().st_mode & 0o004) == (code == 0)
    assert bool((static / "css").stat().st_mode & 0o005) == (code == 0)


def test_messages_of_many_processes_are_taken_in_order(supervised):
    supervised("[say(f'STATUS={n}') for n in range(200)]; say('READY=1'); time.sleep(60)", "--notify")
    wait_for(lambda: supervised.health() == (0, "199"), 20, "the state is told")
