"""Processes in the foreground: how they are ended, and what is ended with them."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import foreground
import pytest

BIN = Path(foreground.__file__).parent
# Ignores the signals that it is given, and has a child in its group that does so too.
DEAF = """
import os, signal, sys, time
for number in map(int, sys.argv[1:]):
    signal.signal(number, signal.SIG_IGN)
os.fork()
os.write(1, b"%d\\n" % os.getpid())
time.sleep(600)
"""


def is_there(process):
    """Whether a process is there, and not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def started(name, ask, *ignored):
    """Start a process and its child that ignore signals; return it when both run."""
    output = foreground.Output([name], colour=False)
    command = [sys.executable, "-c", DEAF, *(str(int(number)) for number in ignored)]
    process = foreground.Process(name, command, os.environ, Path("/"), output, ask)
    process.start()
    wait_for(lambda: len(process.last) == 2)
    return process, [int(each) for each in process.last]


def test_program_that_cannot_be_started_has_ended_as_in_a_shell(tmp_path, capsys):
    (tmp_path / "closed").write_text("#!/bin/sh\n")
    for program, why in (("absent", "No such file"), ("closed", "Permission denied")):
        output = foreground.Output(["bot"], colour=False)
        process = foreground.Process("bot", [str(tmp_path / program)], os.environ, tmp_path, output)
        process.start()
        assert process.ended() and process.reap() == 127
        assert f"bot | {tmp_path / program} cannot be started: {why}" in capsys.readouterr().out
    foreground.stop([process])


@pytest.mark.parametrize(
    ("ignored", "least", "most"),
    [
        ([], 0, 0.5),
        ([signal.SIGTERM], 0.5, 1),
        ([signal.SIGTERM, signal.SIGQUIT], 1, 5),
    ],
)
def test_process_that_does_not_hear_a_signal_gets_the_next_one_and_is_killed_at_last(ignored, least, most):
    process, both = started("deaf", [(signal.SIGTERM, 0.5), (signal.SIGQUIT, 0.5)], *ignored)
    start = time.monotonic()
    foreground.stop([process])
    assert least <= time.monotonic() - start < most + 1
    wait_for(lambda: not any(map(is_there, both)), 5)


def test_whoever_is_in_a_hurry_has_them_killed():
    process, both = started("deaf", [(signal.SIGTERM, 600.0)], signal.SIGTERM)
    start = time.monotonic()
    foreground.stop([process], lambda: time.monotonic() > start + 0.3)
    wait_for(lambda: not any(map(is_there, both)), 5)


def test_lines_have_the_name_of_their_process_with_a_colour_on_a_terminal():
    said = io.StringIO()
    with redirect_stdout(said):
        foreground.Output(["web", "worker-a"], colour=False).tell("web", "line")
        foreground.Output(["web", "worker-a"], colour=True).tell("worker-a", "line")
    assert said.getvalue() == "web      | line\n\x1b[33mworker-a | \x1b[0mline\n"
    closed = open(os.devnull, "w")  # noqa: SIM115
    closed.close()
    with redirect_stdout(closed):
        foreground.Output(["web"], colour=False).tell("web", "a terminal that was closed")


# Starts a process that leaves the session and its parent, and ends as the argument says.
LEAVES = """
import os, signal, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from foreground import keep

def run():
    ready, tell = os.pipe()
    if not os.fork():
        os.setsid()
        if not os.fork():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print(os.getpid(), flush=True)
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            os.write(tell, b"1")
            time.sleep(600)
        os._exit(0)
    os.wait()
    os.read(ready, 1)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "waits":
        time.sleep(600)
    if sys.argv[2] == "exits":
        sys.exit("a reason")
    return 3

sys.exit(keep(run))
"""


@pytest.mark.parametrize(("how", "status"), [("returns", 3), ("exits", 1), ("killed", 137), ("waits", 143)])
def test_what_left_its_session_is_ended_too(how, status):
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES, BIN, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        stray = int(process.stdout.readline())
        if how == "waits":
            process.terminate()
        assert process.wait(20) == status
        assert how != "exits" or process.stderr.read() == "a reason\n"
    left = is_there(stray)
    if left:
        os.kill(stray, signal.SIGKILL)
    assert not left
