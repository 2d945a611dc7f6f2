"""The history, as `make status` tells it."""

import os
import platform
import sys

import pytest
from ansible.module_utils.coldframe import Commands
from deploy_state import clusters, deploys, disk_free, interpreter, meminfo, memory, processors, umask

BEGUN = {"event": "begun", "action": "deploy", "who": "anna@desk", "release": "r1"}


def entries(*events, lock=None):
    return deploys([{"when": 100, **event} for event in events], lock or {}, 10)


def test_deploy_that_ended_has_its_outcome_and_time():
    (entry,) = entries({**BEGUN, "deploy": "a"}, {"deploy": "a", "event": "ended", "when": 107, "outcome": "done"})
    assert (entry["who"], entry["release"], entry["outcome"], entry["seconds"]) == ("anna@desk", "r1", "done", 7)


def test_failed_deploy_has_its_reason():
    ended = {"deploy": "a", "event": "ended", "outcome": "failed", "reason": "one: Release checked"}
    assert entries({**BEGUN, "deploy": "a"}, ended)[0]["reason"] == "one: Release checked"


def test_deploy_without_an_end_did_not_finish_unless_it_has_the_lock():
    events = [{**BEGUN, "deploy": "a"}, {**BEGUN, "deploy": "b"}]
    assert [e["outcome"] for e in entries(*events, lock={"deploy": "b"})] == ["running, or cut off", "did not finish"]


def test_newest_comes_first_and_other_events_are_no_deploys():
    events = [
        {**BEGUN, "deploy": "a"},
        {"deploy": "a", "event": "activated", "release": "r1"},
        {**BEGUN, "deploy": "b"},
    ]
    assert [entry["deploy"] for entry in entries(*events)] == ["b", "a"]


def test_clusters_of_postgresql_are_known_by_their_ports(tmp_path):
    for name, text in {
        "15/main": "#port = 1\nport = 5433\t# (change requires restart)\n",
        "17/main": "listen_addresses = ''\n",
        "9.6/old": "port 5434\n",
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "postgresql.conf").write_text(text)
    assert clusters(tmp_path) == {"15/main": 5433, "17/main": 5432, "9.6/old": 5434}
    assert clusters(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("text", "version", "said"),
    [
        (None, "", "is not there"),
        ("#!/bin/sh\necho CPython 3.12.9", "3.12.9", ""),
        ("#!/bin/sh\necho PyPy 3.11.4", "3.11.4", "is PyPy, and not CPython"),
        (
            "#!/bin/sh\necho 'libpython3.12.so.1.0: cannot open' >&2; exit 127",
            "",
            "is no Python that runs: libpython3.12.so.1.0: cannot open",
        ),
        ("#!/bin/sh\necho hello world", "", "is no Python that runs: hello world"),
    ],
)
def test_python_of_the_application_is_tried(tmp_path, text, version, said):
    program = tmp_path / "python3"
    if text:
        program.write_text(text)
        program.chmod(0o755)
    assert interpreter(Commands(20), str(program)) == {"version": version, "error": said}


def test_python_of_this_machine_is_one():
    assert interpreter(Commands(20), sys.executable) == {"version": platform.python_version(), "error": ""}


def test_memory_is_the_containers_where_it_has_less_than_the_machine(tmp_path):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "meminfo").write_text(f"MemTotal:       {machine // 1024} kB\nSwapTotal:          0 kB\n")
    assert memory(tmp_path, tmp_path) == pytest.approx(machine, abs=2**20), "no limit"
    for name, text, size in (
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", machine),
        ("memory/memory.limit_in_bytes", "536870912\n", 2**29),
        ("memory.max", "max\n", machine),
        ("memory.max", "402653184\n", 384 * 2**20),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        assert memory(tmp_path, tmp_path) == pytest.approx(size, abs=2**20), (name, text)
    (tmp_path / "meminfo").write_text("MemTotal:  131072 kB\n")
    assert memory(tmp_path, tmp_path) == 128 * 2**20, "lxcfs and OpenVZ tell it here"
    assert meminfo("SwapTotal", tmp_path) == 0


def test_processors_are_the_containers_share(tmp_path):
    here = len(os.sched_getaffinity(0))
    assert processors(tmp_path) == here
    for text, count in (("max 100000", here), ("50000 100000", 1), ("100000 100000", 1), (f"{here}50000 100000", here)):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert processors(tmp_path) == count, text


def test_each_file_system_is_told_once_by_the_first_folder_on_it():
    free = disk_free()
    assert free["/"] > 0 and len({os.stat(folder).st_dev for folder in free}) == len(free)


@pytest.mark.parametrize("mask", ["022", "077", "007"])
def test_umask_is_told_and_stays(mask):
    before = os.umask(int(mask, 8))
    try:
        assert (umask(), umask()) == (mask, mask)
    finally:
        os.umask(before)
