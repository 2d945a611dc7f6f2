"""The load's clock: time in which the machine stands still is noted, and is not the deploy's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.load import Machine, Request

ROOT = Path(__file__).parents[1]

WATCH = """
import json
import sys
from pathlib import Path
from support.load import Machine

machine = Machine(Path(sys.argv[1]))
machine.start()
print("begun", flush=True)
sys.stdin.readline()
machine.stop()
print(json.dumps(machine.stalls))
"""


@pytest.mark.parametrize("stopped", [0, 0.7])
def test_machine_that_stands_still_is_noted(tmp_path, stopped):
    """A process that is stopped sees what a machine that is stopped sees."""
    process = subprocess.Popen(
        [sys.executable, "-c", WATCH, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "molecule")},
    )
    assert process.stdout and process.stdout.readline() == "begun\n"
    if stopped:
        process.send_signal(signal.SIGSTOP)
    began = time.time()
    time.sleep(stopped)  # it is how long it stands still
    process.send_signal(signal.SIGCONT)
    stalls = [stall for stall in json.loads(process.communicate("\n")[0]) if stall[1] > 0.5]
    assert len(stalls) == bool(stopped)
    for at, seconds in stalls:
        assert abs(at - began) < 0.2 and stopped - 0.1 < seconds < stopped + 0.5


@pytest.mark.parametrize(
    ("at", "seconds", "own"),
    [
        (100.0, 0.3, 0.3),  # before the stall
        (109.5, 0.5, 0.5),
        (109.5, 2.0, 0.5),  # it waited all through it, and until what had queued up was worked off
        (110.5, 0.6, 0.0),
        (111.9, 0.6, 0.5),  # from shortly before its end
        (112.0, 0.6, 0.6),
        (120.2, 3.0, 2.0),  # two stalls, the second before the end of the first's queue: no moment counts twice
    ],
)
def test_time_that_the_machine_stood_still_is_taken_off(tmp_path, at, seconds, own):
    machine = Machine(tmp_path)
    machine.stalls += [(110.0, 1.0), (120.0, 0.4), (120.6, 0.3)]
    [request] = machine.without_stalls([Request(at, "page", seconds, "")])
    assert request.seconds == pytest.approx(own)
