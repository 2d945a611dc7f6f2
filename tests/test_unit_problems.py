"""What is told of units that systemd calls active and that do not work."""

import re

import pytest
from units import unit_problems

UNIT = {"unit": "blog-worker-mail@b.service", "part": "worker-mail", "release": "b", "state": "active", "age": 5000}
UNIT |= {"doing": "consuming, running blog.send[1]", "since": "", "restarts": 0, "ended": ""}


def problems(lock=(), current="b", **changed):
    return unit_problems({"current": current, "lock": dict(lock), "units": [UNIT | changed]})


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"restarts": 3, "age": 700},  # long ago
        {"restarts": 1, "age": 20, "part": "beat"},  # it has lost its lease
        {"release": "a", "state": "draining", "restarts": 2, "age": 10},
        {"doing": "draining, running blog.send[1]", "state": "draining", "lock": {"deploy": "x"}},
        {"release": "a", "lock": {"deploy": "x"}},  # a deploy is under way
        {"release": "a", "state": "failed"},
        {"unit": "blog-timer-x@b.service", "part": "timer-x", "state": "activating"},  # a command of a timer
        {"unit": "blog-timer-x@a.service", "part": "timer-x", "release": "a", "state": "activating"},
        {"unit": "blog-timer-x@b.timer", "part": "timer-x", "doing": ""},
    ],
)
def test_what_is_right_is_no_problem(right):
    assert problems(**right) == []


@pytest.mark.parametrize(
    "wrong, said",
    [
        (
            {"restarts": 1, "age": 42, "ended": "Failed with result 'watchdog'"},
            "blog-worker-mail@b.service was started again once, the last time 42 s ago .Failed with result 'watchdog'.: journalctl -u blog-worker",
        ),
        ({"unit": "blog-timer-x@b.timer", "part": "timer-x", "state": "inactive"}, "blog-timer-x@b.timer does not run"),
        ({"restarts": 9, "age": 2, "state": "activating"}, "was started again 9 times"),
        ({"restarts": 2, "age": 20, "part": "beat"}, "was started again 2 times"),
        (
            {"doing": "waiting for the broker: invalid password"},
            "does no work, waiting for the broker: invalid password",
        ),
        (
            {"restarts": 4, "age": 9, "doing": "waiting for the broker: x"},
            "started again 4 times.*; now waiting for the broker: x",
        ),
        ({"doing": "consuming, not watched: KeyError: 'x'"}, "would not be restarted if it hung"),
        ({"state": "inactive", "doing": ""}, "does not run \\(inactive\\): systemctl start blog-worker-mail@b"),
        ({"state": "failed"}, "does not run \\(failed\\)"),
        ({"state": "activating", "doing": ""}, "is not ready yet"),
        ({"state": "draining"}, "is being stopped, and belongs to the current release"),
        (
            {"release": "a"},
            "runs beside the release b, and does its part of the work: systemctl stop blog-worker-mail@b",
        ),
    ],
)
def test_what_is_wrong_is_told(wrong, said):
    (problem,) = problems(**wrong)
    assert re.search(said, problem), problem
