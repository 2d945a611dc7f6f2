"""Further processes and timers of an application: what runs where, and the commands as systemd reads them."""

import shlex
import shutil
import subprocess

import pytest
from processes import calendar_problems, host_processes, process_table, process_units, systemd_command

SERVICES = {"bot": {"command": "manage.py bot"}, "feed": {"command": "feed", "hosts": "web", "memory_max": "1G"}}
TIMERS = {"report": {"command": "manage.py report", "calendar": "daily"}}
GROUPS = {"beat": ["b1", "b2"], "web": ["w1", "w2"], "workers": ["b1"]}


def tables():
    return process_table(SERVICES, "app_services"), process_table(TIMERS, "app_timers")


def test_what_an_entry_leaves_out_has_its_default():
    services, timers = tables()
    assert services["bot"]["hosts"] == "one" and services["feed"]["memory_max"] == "1G"
    assert timers["report"]["persistent"] is True and timers["report"]["sandbox"] == []


@pytest.mark.parametrize(
    "host, parts",
    [("b1", ["service-bot", "timer-report"]), ("b2", []), ("w1", ["service-feed"]), ("w2", ["service-feed"])],
)
def test_one_host_runs_timers_and_what_runs_once(host, parts):
    assert host_processes(*tables(), GROUPS, host) == parts


def test_each_has_its_unit_files():
    files = [(unit["file"], unit["template"]) for unit in process_units(*tables())]
    assert files == [
        ("service-bot.service", "service@.service.j2"),
        ("service-feed.service", "service@.service.j2"),
        ("timer-report.service", "timer@.service.j2"),
        ("timer-report.timer", "timer@.timer.j2"),
    ]


def test_command_is_run_to_the_letter():
    said = systemd_command(command="""node 'a b' "c\td" 50% $HOME ; 'say "x"'""", folder="/r")
    assert said == '"node" "a b" "c\td" "50%%" "$$HOME" ";" "say \\"x\\""'
    assert shlex.split(systemd_command("manage.py run --once", "/r")) == [
        "python",
        "-m",
        "coldframe.manage",
        "manage.py",
        "run",
        "--once",
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("./bot.sh --x ./y", ["/srv/bot/releases/@RELEASE@/bot.sh", "--x", "./y"]),
        ("bin/run", ["/srv/bot/releases/@RELEASE@/bin/run"]),
        ("a/../bin/run", ["/srv/bot/releases/@RELEASE@/bin/run"]),
        ("./manage.py run", ["/srv/bot/releases/@RELEASE@/manage.py", "run"]),
        ("/usr/bin/node bin/x", ["/usr/bin/node", "bin/x"]),
        ("bot.sh bin/x", ["bot.sh", "bin/x"]),
        ("env -C bin ./run", ["env", "-C", "bin", "./run"]),
    ],
)
def test_path_of_a_program_is_that_in_the_release(command, words):
    assert shlex.split(systemd_command(command, "/srv/bot/releases/@RELEASE@")) == words


def test_time_that_systemd_cannot_read_is_refused_with_the_variable():
    item = {"key": "report", "value": {"calendar": "often"}}
    assert calendar_problems([{"item": item, "rc": 0}]) == []
    (said,) = calendar_problems([{"item": item, "rc": 1}])
    assert said.startswith("app_timers.report.calendar is 'often', which systemd cannot read") and "OnCalendar" in said


NEVER = """  Original form: 2020-01-01
Normalized form: 2020-01-01 00:00:00
    Next elapse: never
"""


def test_time_that_never_comes_is_refused_with_the_variable():
    item = {"key": "report", "value": {"calendar": "2020-01-01"}}
    daily = NEVER.replace("never", "Sat 2030-11-28 00:00:00 UTC\n       From now: 10h left")
    assert calendar_problems([{"item": item, "rc": 0, "stdout": daily}]) == []
    (said,) = calendar_problems([{"item": item, "rc": 0, "stdout": NEVER}])
    assert (
        said.startswith("app_timers.report.calendar is '2020-01-01', which never comes") and "remove the timer" in said
    )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze here")
@pytest.mark.parametrize(
    ("calendar", "count"), [("2020-01-01", 1), ("*-02-31", 1), ("often", 1), ("*-02-29", 0), ("daily", 0)]
)
def test_times_are_told_apart_by_what_systemd_says(calendar, count):
    done = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=False)
    item = {"key": "report", "value": {"calendar": calendar}}
    assert len(calendar_problems([{"item": item, "rc": done.returncode, "stdout": done.stdout}])) == count, done
