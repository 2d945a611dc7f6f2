"""What a host sends when something is wrong on it, once, by which channel, and what is no problem."""

import base64
import json
import os
import threading
import time
from pathlib import Path

import alerts
import pytest
from ansible.module_utils import coldframe
from applications import evaluate, rendered
from fake_systemd import FakeModule
from support.receiver import Receiver

NOW = 1_800_000_000.0
WORKER = "blog-worker-mail@b1b1b1b1b1b1.service"
CONFIG = {
    "app": "blog",
    "host": "app1",
    "environment": "production",
    "services": ["nginx.service"],
    "certificates": {},
    "broker": {},
    "email": {},
    "repeat_hours": 24,
    "disk_free_percent": 10,
    "memory_available_percent": 5,
    "certificate_days": 14,
}


class System(FakeModule):
    """A systemd with an application's units and services, whose properties a test changes."""

    def __init__(self):
        """Begin with all in order."""
        super().__init__()
        self.states = {WORKER: "active", "nginx.service": "active"}
        self.failed = []

    def run_command(self, arguments):
        """Answer as the program would."""
        if "--failed" in arguments:
            return 0, "".join(f"{unit} loaded failed failed x\n" for unit in self.failed), ""
        if arguments[0] == "openssl":
            return 0, f"notAfter={self.certificate}\n", ""
        if arguments[0] == "journalctl" and "--lines=2" in arguments:
            return 0, "blog: Main process exited, code=killed, status=9/KILL\n", ""
        return super().run_command(arguments)


class Host:
    """A host of the application `blog`, with what a test changes, and a record of what was sent."""

    def __init__(self, folder, monkeypatch):
        """Make its folders."""
        self.system, self.config, self.now = System(), CONFIG | {"root": str(folder / "srv")}, NOW
        self.credentials, self.marks = folder / "credentials", folder / "run/coldframe-alerts-blog"
        for name in ("srv/releases", "etc/blog.target.wants", "credentials", "state", "lib/shop", "run/coldframe-alerts-blog"):
            (folder / name).mkdir(parents=True)
        (folder / "srv/current").symlink_to("releases/b1b1b1b1b1b1")
        self.enable(folder, WORKER)
        (self.credentials / "lock").write_text("{}")
        monkeypatch.setattr(coldframe, "UNITS", folder / "etc")
        monkeypatch.setattr(coldframe, "STATE", folder / "lib")
        monkeypatch.setattr(coldframe, "MARKS", folder / "run")
        monkeypatch.setattr(alerts, "Commands", lambda: self.system)
        monkeypatch.setattr(alerts, "file_systems", dict)
        monkeypatch.setattr(alerts, "meminfo", lambda name: {"MemAvailable": 50, "MemTotal": 100}[name])
        self.record = alerts.Record(folder / "state")

    def enable(self, folder, unit):
        """Have a unit start at boot."""
        (folder / "etc/blog.target.wants" / unit).touch()

    @property
    def look(self):
        """One look at it now."""
        return alerts.Look(self.config, self.credentials, self.now)

    def turn(self, seconds=60):
        """Have a minute pass and look; return the events."""
        self.now += seconds
        found, unknown = self.look.problems()
        with self.record.open() as state:
            return alerts.changes(state, found, unknown, self.now, self.look.repeat)

    def events(self, turns=2):
        """Return what some turns make of it, each event with its problem."""
        return [(event["event"], event["problem"]) for _ in range(turns) for event in self.turn()]

    def lock(self, since):
        """Have a deploy hold its lock."""
        (self.credentials / "lock").write_text(json.dumps({"deploy": "x", "who": "ann", "since": since}))

    def mark(self, name):
        """Plan a stop."""
        (self.marks / name).touch()
        os.utime(self.marks / name, (self.now, self.now))


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return a host on which all is in order."""
    return Host(tmp_path, monkeypatch)


def test_nothing_is_sent_where_all_is_in_order(host):
    assert host.events(3) == []


def test_a_problem_is_sent_once_again_after_a_day_and_when_it_has_ended(host):
    host.system.states["nginx.service"] = "failed"
    assert host.events(1) == [], "one look may be a moment"
    assert host.events(1) == [("began", "unit:nginx.service")]
    assert host.events(5) == []
    (again,) = host.turn(24 * 3600)
    assert (again["event"], again["since"]) == ("continues", NOW + 60)
    host.system.states["nginx.service"] = "active"
    assert host.events(1) == []
    assert host.events(1) == [("ended", "unit:nginx.service")]
    assert host.events(2) == []


def test_what_is_there_for_one_look_is_not_sent(host):
    for state in ("activating", "active") * 3:
        host.system.states["nginx.service"] = state
        assert host.events(1) == []


@pytest.mark.parametrize(
    "states, failed, problem",
    [
        ({WORKER: "failed"}, [WORKER], f"unit:{WORKER}"),
        ({WORKER: "inactive"}, [], f"unit:{WORKER}"),
        ({"nginx.service": "inactive"}, [], "unit:nginx.service"),
        ({}, ["logrotate.service"], "unit:logrotate.service"),
        (
            {"blog-timer-report@b1b1b1b1b1b1.service": "failed"},
            ["blog-timer-report@b1b1b1b1b1b1.service"],
            "unit:blog-timer-report@b1b1b1b1b1b1.service",
        ),
        ({"blog-web@a0a0a0a0a0a0.service": "active"}, [], "unit:blog-web@a0a0a0a0a0a0.service"),
    ],
)
def test_units_that_do_not_do_their_work_are_problems(host, states, failed, problem):
    host.system.states |= states
    host.system.failed = failed
    assert host.events() == [("began", problem)]


@pytest.mark.parametrize(
    "states, failed",
    [
        ({"blog-web@a0a0a0a0a0a0.service": "deactivating"}, []),  # an old release that drains
        ({"blog-worker-x@a0a0a0a0a0a0.service": "failed"}, ["blog-worker-x@a0a0a0a0a0a0.service"]),  # one that was cut off
        ({}, ["shop-web@c2c2c2c2c2c2.service"]),  # of another application, which tells of it itself
        ({}, ["coldframe-alert-blog@x.service"]),
    ],
)
def test_what_is_left_of_others_is_no_problem(host, states, failed):
    host.system.states |= states
    host.system.jobs = dict.fromkeys(states, "stop")
    host.system.failed = failed
    assert host.events(3) == []


def test_a_unit_that_was_started_again_is_a_problem(host):
    host.system.restarts[WORKER] = 2
    (event,) = [event for _ in range(2) for event in host.turn()]
    assert "was started again 2 times" in event["cause"]


def test_a_deploy_interrupts_nothing_that_is_sent(host):
    """And what was a problem before stays one: that it is not seen is no end."""
    host.system.states["nginx.service"] = "failed"
    host.events()
    host.lock(host.now)
    host.system.states = {WORKER: "inactive", "nginx.service": "active"}
    assert host.events(5) == []
    assert host.look.failure(WORKER) == "", "nor when systemd says so"
    (host.credentials / "lock").write_text("{}")
    host.system.states[WORKER] = "active"
    assert host.events(3) == [("ended", "unit:nginx.service")]


def test_a_lock_that_is_old_is_a_problem_and_holds_nothing_back(host):
    host.lock(host.now - 2 * 3600)
    host.system.states["nginx.service"] = "failed"
    assert host.events() == [("began", "lock"), ("began", "unit:nginx.service")]


def test_a_planned_stop_is_no_problem_for_a_day(host):
    host.system.states[WORKER] = "inactive"
    host.mark("paused-mail")
    assert host.events(3) == []
    host.now += 24 * 3600
    assert host.events() == [("began", f"unit:{WORKER}")]


def test_another_queue_than_the_paused_one_is_a_problem(host):
    host.system.states[WORKER] = "inactive"
    host.mark("paused-bulk")
    assert host.events() == [("began", f"unit:{WORKER}")]


def test_during_maintenance_nothing_is_sent(host):
    host.mark("maintenance")
    host.system.states = {WORKER: "inactive", "nginx.service": "failed"}
    assert host.events(3) == []
    (host.marks / "maintenance").unlink()
    assert len(host.events(2)) == 2


def test_a_successful_deploy_ends_a_pause_and_a_failed_one_does_not(host):
    host.mark("paused-mail")
    for outcome, there in (("failed", True), ("done", False)):
        host.look.app.state.mkdir(exist_ok=True)
        app = coldframe.Application(host.system, "blog", host.config["root"])
        app.take_lock({"deploy": "d", "who": "ann", "since": 0})
        app.finish("d", outcome)
        assert (host.marks / "paused-mail").exists() == there, outcome


def test_disk_memory_and_certificates_are_looked_at(host, monkeypatch):
    full = os.statvfs_result((4096, 4096, 10**6, 50_000, 50_000, 10**6, 10**6, 10**6, 0, 255))
    no_inodes = os.statvfs_result((4096, 4096, 10**6, 900_000, 900_000, 10**6, 10**3, 10**3, 0, 255))
    monkeypatch.setattr(alerts, "file_systems", lambda: {"/": full, "/var": no_inodes})
    monkeypatch.setattr(alerts, "meminfo", lambda name: {"MemAvailable": 4 << 20, "MemTotal": 100 << 20}[name])
    host.config["certificates"] = {"nginx": "/etc/x.crt", "redis": "/etc/redis/tls.crt"}
    (host.credentials / "certificate_nginx").write_text("-----BEGIN CERTIFICATE-----")
    (host.credentials / "certificate_redis").write_text("none")
    host.system.certificate = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(NOW + 10 * 86400))
    causes = {event["problem"]: event["cause"] for _ in range(2) for event in host.turn()}
    assert causes["disk:/"] == "The file system of / has 195 MiB left (5%): df -h /"
    assert causes["disk:/var"] == "The file system of /var has 0% of its inodes left: df -i /var"
    assert causes["memory"].startswith("4 MiB of 100 MiB memory are available (4%)")
    assert causes["certificate:nginx"].startswith("The certificate /etc/x.crt of nginx ends on 2027-01-25")
    assert len(causes) == 4


class Broker:
    """What the broker says: when each probe was done, and how many dead letters there are."""

    def __init__(self):
        """Begin with all in order."""
        self.ages, self.dead, self.down = {"mail": 10, "bulk": 10}, {"mail": 3, "bulk": 0}, ""

    def conversation(self, _, commands):
        """Answer the commands."""
        if self.down:
            return self.down
        if "LLEN" in commands:
            return "\n".join(["OK", *(str(count) for count in self.dead.values())])
        notes = [
            (str(1000 - age), json.dumps({"sent": 999 - age, "done": 1000 - age, "worker": "w"})) for age in self.ages.values()
        ]
        return "\n".join(["OK", "OK", "1000", "0", *(note for pair in notes for note in pair)])


@pytest.fixture
def broker(host, monkeypatch):
    """Have the host ask a broker."""
    said = Broker()
    host.config["broker"] = {"server": {"socket": "/x"}, "user": "reader", "queues": ["mail", "bulk"], "index": 0, "locks_index": 1}
    (host.credentials / "redis_password").write_text('a"b')
    monkeypatch.setattr(alerts.Redis, "behind", lambda path: alerts.Redis(open(os.devnull)))  # noqa: SIM115
    monkeypatch.setattr(alerts, "conversation", said.conversation)
    return said


def test_queues_that_are_overdue_are_problems_unless_they_are_paused(host, broker):
    assert host.events(3) == []
    broker.ages = {"mail": 400, "bulk": 400}
    host.mark("paused-bulk")
    (event,) = [event for _ in range(2) for event in host.turn()]
    assert event["problem"] == "queue:mail" and event["cause"].startswith("Queue mail OVERDUE: done 400 s ago by w")


def test_dead_letters_are_a_problem_when_they_are_more_than_before(host, broker):
    assert host.events(3) == [], "those that were there at first are none"
    broker.dead["mail"] = 5
    (event,) = [event for _ in range(2) for event in host.turn()]
    assert (event["problem"], event["cause"]) == ("dead:mail", "Queue mail has 5 dead letters, 2 more than before: make queues")
    broker.dead["mail"] = 0
    assert host.events() == [("ended", "dead:mail")]
    broker.dead["mail"] = 1
    assert host.events() == [("began", "dead:mail")], "it is compared with the least"


def test_a_broker_that_does_not_answer_is_one_problem_and_ends_no_other(host, broker):
    broker.ages["mail"] = 400
    assert host.events() == [("began", "queue:mail")]
    broker.down = "WRONGPASS invalid username-password pair"
    assert host.events() == [("began", "broker")]
    broker.down = ""
    assert host.events() == [("ended", "broker")]


def test_what_cannot_be_looked_at_is_a_problem_and_ends_no_other(host, monkeypatch):
    host.system.states["nginx.service"] = "failed"
    host.events()
    monkeypatch.setattr(host.system, "run_command", lambda _: (1, "", "no bus"))
    host.system.fail_json = alerts.Commands.fail_json if hasattr(alerts.Commands, "fail_json") else host.fail
    assert [event for event, _ in host.events(3)] == ["began"]
    assert host.record.file.read_text().count("unit:nginx.service") == 1
