"""make logs merges the journals of several hosts in the order of time, and goes on without a host that is not reached."""

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from waits import wait_for

ROOT = Path(__file__).parents[1]
# ssh as if each host were this machine; one of them is never reached.
SSH = """#!/bin/sh
while [ $# -gt 1 ]; do HOST=$1; shift; done
export HOST
[ "$HOST" = down ] && { echo "ssh: connect to host down port 22: Connection refused" >&2; exit 255; }
sh -c "$1"  # which notices the end of this process by its input alone
exit $?
"""
# A host's journal: what a file has, and with --follow what it gets, until the reader ends it.
JOURNALCTL = """#!/usr/bin/env python3
import json, os, signal, sys, time
from pathlib import Path
here = Path(os.environ["JOURNALS"])
host = os.environ["HOST"]
(here / f"{host}.arguments").write_text(json.dumps([*sys.argv[1:], os.environ["TZ"]]))
if "--since=rubbish" in sys.argv:
    sys.exit("Failed to parse timestamp: rubbish")
def end(*_):
    (here / f"{host}.ended").write_text("")
    sys.exit()
signal.signal(signal.SIGTERM, end)
with (here / host).open() as file:
    while True:
        if line := file.readline():
            print(line, end="", flush=True)
        elif "--follow" in sys.argv:
            time.sleep(0.05)
        else:
            break
"""


def entry(at, message, unit="blog-web@0123456789ab.service", priority="6", **more):
    """A line of a journal, at a time in milliseconds."""
    fields = {"__REALTIME_TIMESTAMP": str(at * 1000), "MESSAGE": message, "_SYSTEMD_UNIT": unit, "PRIORITY": priority}
    return json.dumps(fields | more) + "\n"


@pytest.fixture
def site(tmp_path):
    """A folder with an inventory, the hosts' journals and the programs."""
    for folder in ("bin", "journals", "inventory"):
        (tmp_path / folder).mkdir()
    for name, text in {"ssh": SSH, "journalctl": JOURNALCTL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def logs(site):
    """Start the program for hosts with these journals."""

    def start(journals, *options, output=subprocess.PIPE):
        own = {"app_name": "blog", "celery_queues": {"mail": {}}, "app_timers": {"nightly": {}}}
        hosts = {"all": {"vars": own, "hosts": {name: {} for name in journals}}}
        (site / "inventory/hosts.yml").write_text(json.dumps(hosts))
        for name, lines in journals.items():
            (site / "journals" / name).write_text("".join(lines))
        environment = {"PATH": f"{site}/bin:{os.environ['PATH']}", "JOURNALS": str(site / "journals")}
        command = [ROOT / "bin/logs", str(site / "inventory"), "playbooks/servers.yml", *options]
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.fixture
def printed(logs):
    """Run the program to its end; return its output, its errors and its status."""

    def run(journals, *options):
        process = logs(journals, *options)
        output, errors = process.communicate()
        return output.splitlines(), errors, process.returncode

    return run


def arguments(site, host):
    """How journalctl was called on a host."""
    return json.loads((site / "journals" / f"{host}.arguments").read_text())


def test_hosts_are_merged_by_time_and_one_that_is_not_reached_is_named(printed):
    one = [entry(1000, "a"), entry(3000, "Traceback:\n  File", priority="3"), entry(5001, "e")]
    two = [entry(2000, "b", "nginx.service"), entry(4000, "Started.", "init.scope", UNIT="blog-beat@1.service")]
    lines, errors, status = printed({"one": one, "down": [], "two": ["a login's words\n", *two]})
    assert lines == [
        "1970-01-01 00:00:01.000 one web@0123456789ab: a",
        "1970-01-01 00:00:02.000 two nginx: b",
        "1970-01-01 00:00:03.000 one web@0123456789ab: Traceback:",
        "      File",
        "1970-01-01 00:00:04.000 two beat@1: Started.",
        "1970-01-01 00:00:05.001 one web@0123456789ab: e",
    ]
    assert errors == "make logs: down is not reached: ssh: connect to host down port 22: Connection refused\n"
    assert status == 1


def test_a_single_host_is_not_named_and_what_is_no_text_does_nothing_to_a_terminal(printed):
    lines, errors, status = printed(
        {"one": [entry(1000, "\x1b[2Ja\tb"), entry(2000, [104, 255, 105]), entry(3000, None)]}
    )
    assert [line.partition(": ")[2] for line in lines] == ["\\x1b[2Ja\tb", "h\ufffdi", ""]
    assert lines[0].startswith("1970-01-01 00:00:01.000 web@0123456789ab: ") and (errors, status) == ("", 0)


def test_journalctl_chooses(printed, site):
    printed({"one": []}, "UNIT=worker-mail,nginx", "SINCE=2026-01-01 10:00", "PRIORITY=err", "GREP=it's $x")
    given = arguments(site, "one")
    assert {"--unit=blog-worker-mail@*", "--unit=nginx.service", "--since=2026-01-01 10:00", "UTC"} < set(given)
    assert {"--priority=err", "--grep=it's $x"} < set(given) and len([g for g in given if g.startswith("--unit")]) == 2
    printed({"one": []})
    assert {"--unit=blog-web@*", "--unit=blog-timer-nightly@*", "--unit=redis-server@cache.service"} < set(
        arguments(site, "one")
    )
    assert "--since=-1h" in arguments(site, "one")


def test_id_is_found_in_any_field_of_any_host(printed):
    one = [entry(1000, "a 0d1f-77 b"), entry(2000, "other")]
    two = [entry(1500, "c", TASK_ID="0d1f-77"), entry(1700, "0d1f.77")]
    lines, errors, status = printed({"one": one, "two": two}, "ID=0d1f-77")
    assert [line.rpartition(": ")[2] for line in lines] == ["a 0d1f-77 b", "c"] and (errors, status) == ("", 0)
    assert printed({"one": one, "two": two}, "ID=nowhere") == ([], "", 0)


def test_host_chooses_one(printed, site):
    lines, _, _ = printed({"one": [entry(1000, "a")], "two": [entry(1000, "b")]}, "HOST=two")
    assert lines == ["1970-01-01 00:00:01.000 web@0123456789ab: b"]
    assert not (site / "journals/one.arguments").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("UNIT=mail", "UNIT=mail: set UNIT to one of: web beat worker worker-mail timer-nightly flower redis-broker"),
        ("UNIT=web,x", "UNIT=x: set UNIT to one of: web"),
        ("HOST=three", "HOST=three: set HOST to one of: one two"),
        ("PRIORITY=bad", "PRIORITY=bad: set PRIORITY to one of: emerg alert crit err"),
        ("ID=a b", "ID=a b: set ID to that of a task or a request"),
    ],
)
def test_what_is_wrong_is_refused_before_a_host_is_asked(printed, site, option, said):
    lines, errors, status = printed({"one": [], "two": []}, option)
    assert lines == [] and f"make logs: {said}" in errors and status == 1
    assert list((site / "journals").glob("*.arguments")) == []


def test_what_journalctl_refuses_is_told(printed):
    _, errors, status = printed({"one": [], "two": []}, "SINCE=rubbish")
    assert "one: Failed to parse timestamp: rubbish" in errors and "two: Failed" in errors and status == 1


@pytest.mark.parametrize("options", [(), ("ID=abcd",)])
def test_follow_prints_what_comes_and_ends_what_it_began(logs, site, options):
    journals = {"one": [entry(1000, "a abcd")], "down": [], "two": []}
    process = logs(journals, "FOLLOW=1", *options)
    try:
        assert process.stdout.readline().endswith("a abcd\n"), "a silent host holds up nothing"
        with (site / "journals/two").open("a") as two, (site / "journals/one").open("a") as one:
            one.write(entry(9000, "c abcd"))
            two.write(entry(8000, "b abcd"))
        assert [process.stdout.readline()[-7:] for _ in range(2)] == ["b abcd\n", "c abcd\n"]
        assert "--follow" in arguments(site, "two") and not [g for g in arguments(site, "two") if "since" in g]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        wait_for(
            lambda: (site / "journals/one.ended").exists() and (site / "journals/two.ended").exists(),
            20,
            "both are ended",
        )
        assert "down is not reached" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_colours_are_for_terminals(logs):
    master, terminal = pty.openpty()
    process = logs({"one": [entry(1000, "bad", priority="3"), entry(2000, "tight", priority="4")]}, output=terminal)
    process.communicate()
    os.close(terminal)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert "\033[31mbad\033[0m" in shown and "\033[33mtight\033[0m" in shown


def test_a_reader_that_has_seen_enough_ends_it(logs):
    process = logs({"one": [entry(at, "x" * 900) for at in range(2000)]})
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 0 and process.stderr.read() == ""
    process.stderr.close()
