"""What a host sends when something is wrong on it, once, by which channel, and what is no problem."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import alerts
import pytest
from ansible.module_utils import coldframe
from applications import evaluate, rendered
from fake_systemd import FakeModule
from support.receiver import Receiver

NOW = 1_700_000_000.0
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
            return 0, "Main process exited, code=killed, status=9/KILL\n", ""
        code, output, errors = super().run_command(arguments)
        # Each has just begun: that it was started again counts.
        begun = f"\nExecMainStartTimestampMonotonic={time.monotonic() * 1e6:.0f}\nNRestarts="
        return code, output.replace("\nNRestarts=", begun), errors


class Host:
    """A host of the application `blog`, with what a test changes, and a record of what was sent."""

    def __init__(self, folder, monkeypatch):
        """Make its folders."""
        self.system, self.config, self.now = System(), CONFIG | {"root": str(folder / "srv")}, NOW
        self.credentials, self.marks = folder / "credentials", folder / "run/coldframe-alerts-blog"
        for name in (
            "srv/releases",
            "etc/blog.target.wants",
            "credentials",
            "state",
            "lib/shop",
            "run/coldframe-alerts-blog",
        ):
            (folder / name).mkdir(parents=True)
        (folder / "srv/current").symlink_to("releases/b1b1b1b1b1b1")
        self.enable(folder, WORKER)
        (self.credentials / "lock").write_text("{}")
        monkeypatch.setattr(coldframe, "UNITS", folder / "etc")
        monkeypatch.setattr(coldframe, "STATE", folder / "lib")
        monkeypatch.setattr(coldframe, "MARKS", folder / "run")
        monkeypatch.setattr(coldframe, "Commands", lambda _: self.system)
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
        (
            {"blog-worker-x@a0a0a0a0a0a0.service": "failed"},
            ["blog-worker-x@a0a0a0a0a0a0.service"],
        ),  # one that was cut off
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
    assert causes["certificate:nginx"].startswith("The certificate /etc/x.crt of nginx ends on 2023-11-24")
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
            (str(1000 - age), json.dumps({"sent": 999 - age, "done": 1000 - age, "worker": "w"}))
            for age in self.ages.values()
        ]
        return "\n".join(["OK", "OK", "1000", "0", *(note for pair in notes for note in pair)])


@pytest.fixture
def broker(host, monkeypatch):
    """Have the host ask a broker."""
    said = Broker()
    host.config["broker"] = {
        "server": {"socket": "/x"},
        "user": "reader",
        "queues": ["mail", "bulk"],
        "index": 0,
        "locks_index": 1,
    }
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
    assert (event["problem"], event["cause"]) == (
        "dead:mail",
        "Dead letters of queue mail: 5, 2 more than before. Show them: make queues",
    )
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
    assert host.events(3) == [("began", "look:unit:")]
    assert "unit:nginx.service" in json.loads(host.record.file.read_text())["problems"]


@pytest.mark.parametrize(
    "unit, counts",
    [
        (WORKER, True),
        ("nginx.service", True),
        ("blog-worker-mail@a0a0a0a0a0a0.service", False),  # of an old release
        ("shop-web@b1b1b1b1b1b1.service", False),
        ("else.service", False),
        ("blog-beat@b1b1b1b1b1b1.service", False),  # it has lost its lease once
    ],
)
def test_which_failures_are_sent_at_once(host, unit, counts):
    assert bool(host.look.failure(unit)) == counts


def test_beat_that_fails_again_is_sent(host):
    beat = "blog-beat@b1b1b1b1b1b1.service"
    host.system.states[beat], host.system.restarts[beat] = "deactivating", 1
    assert host.look.failure(beat).startswith(f"{beat} has failed (Main process exited, code=killed")


# --- sending --------------------------------------------------------------------------------


@pytest.fixture
def receiver():
    """Return what receives requests and mail."""
    with Receiver() as receiving:
        yield receiving


@pytest.fixture
def channels(host, receiver):
    """Have the host send by every channel."""
    host.config["email"] = {
        "host": "127.0.0.1",
        "port": receiver.port,
        "encryption": "none",
        "user": "",
        "sender": "Blog <blog@example.com>",
        "to": ["a@example.com", "b@example.com"],
    }
    (host.credentials / "webhook_url").write_text(f"{receiver.url}/hook?token=t")
    (host.credentials / "ping_url").write_text(f"{receiver.url}/ping/app1\n")
    return alerts.Channels(host.config, host.credentials)


def sent(receiver, kind="mail"):
    """What was received: mails, or requests that are no pings."""
    return [each for each in receiver.received if each["kind"] == kind and not each.get("path", "").startswith("/ping")]


def pings(receiver):
    """How many pings were received."""
    return sum(each.get("path", "") == "/ping/app1" for each in receiver.received)


def wait(condition):
    """Wait until a condition is true."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_failure_is_sent_at_once_by_each_channel_and_once(host, channels, receiver):
    host.system.journal = (
        "12:00 login of postgres://ann:secret@db.example.net\n\x1b[31mred\x1b[0m\n"  # pragma: allowlist secret
    )
    for _ in range(5):
        alerts.unit(host.look, host.record, channels, WORKER)
    (mail,), (hook,) = sent(receiver), sent(receiver, "http")
    assert mail["subject"] == f"[blog] app1: began: {WORKER} has failed"
    assert (mail["from"], mail["to"]) == ("blog@example.com", ["a@example.com", "b@example.com"])
    said = json.loads(hook["body"])
    assert (hook["path"], hook["type"]) == ("/hook?token=t", "application/json")
    assert mail["text"].replace("\r\n", "\n").strip() == said["text"].strip()
    (event,) = said["events"]
    assert event["cause"] == f"{WORKER} has failed (Main process exited, code=killed, status=9/KILL)"
    assert event["next"] == f"make status ENV=production; on app1 as root: journalctl -u {WORKER}"
    assert event["runbook"] == "docs/runbooks/worker-killed.md" and event["since"] == "2023-11-14 22:13:20 UTC"
    assert event["lines"][-2:] == ["12:00 login of postgres://***@db.example.net", " [31mred [0m"]


def test_a_failure_that_was_sent_is_not_sent_by_the_next_look(host, channels, receiver):
    alerts.unit(host.look, host.record, channels, WORKER)
    host.system.restarts[WORKER] = 1
    for _ in range(4):
        host.now += 60
        alerts.look(host.look, host.record, channels)
    assert len(sent(receiver)) == 1
    host.system.restarts[WORKER] = 0
    for _ in range(2):
        host.now += 60
        alerts.look(host.look, host.record, channels)
    assert sent(receiver)[-1]["subject"].startswith("[blog] app1: ended: ")


def test_what_begins_in_one_look_is_one_message(host, channels, receiver):
    host.system.states = {WORKER: "failed", "nginx.service": "failed"}
    for _ in range(2):
        alerts.look(host.look, host.record, channels)
    (mail,) = sent(receiver)
    assert mail["subject"].endswith("(2 began)") and mail["text"].count("BEGAN: ") == 2


def test_a_good_turn_pings_also_with_a_problem_that_was_sent(host, channels, receiver):
    host.system.states["nginx.service"] = "failed"
    for _ in range(3):
        alerts.look(host.look, host.record, channels)
    assert pings(receiver) == 3


def test_no_ping_while_something_cannot_be_looked_at(host, channels, receiver, monkeypatch):
    monkeypatch.setattr(host.system, "run_command", lambda _: (1, "", "no bus"))
    alerts.look(host.look, host.record, channels)
    assert pings(receiver) == 0


def test_a_channel_that_refuses_is_tried_again_and_the_others_have_sent(host, channels, receiver, capsys):
    host.system.states["nginx.service"] = "failed"
    receiver.refuse["DATA"] = "451 try later"
    now = [NOW]
    for _ in range(2):
        alerts.look(host.look, host.record, channels)
    assert (len(sent(receiver, "http")), sent(receiver), pings(receiver)) == (1, [], 1), (
        "no ping while a message is refused"
    )
    assert "<3>email: not sent (" in capsys.readouterr().err
    receiver.refuse.clear()
    with host.record.open() as state:
        (waiting,) = state["waiting"]["email"]
        now[0] = waiting["next"]
    assert not alerts.deliver(host.record, channels, lambda: now[0] - 1) and sent(receiver) == [], "it waits a minute"
    assert alerts.deliver(host.record, channels, lambda: now[0] + 1)
    assert len(sent(receiver)) == 1


def test_a_message_is_given_up_after_some_attempts_with_longer_waits(host, channels, receiver, capsys):
    receiver.status = 500
    with host.record.open() as state:
        alerts.post(state, ["webhook"], alerts.message(host.config, [], NOW, "a test"), NOW)
    times, now = [], NOW
    while True:
        alerts.deliver(host.record, channels, lambda now=now: now)
        with host.record.open() as state:
            if not state["waiting"]["webhook"]:
                break
            times.append(state["waiting"]["webhook"][0]["next"] - now)
            now = state["waiting"]["webhook"][0]["next"]
    assert times[:7] == [60, 120, 240, 480, 960, 1920, 3600] and set(times[7:]) == {3600}
    assert len(sent(receiver, "http")) == alerts.ATTEMPTS == len(times) + 1
    said = capsys.readouterr().err
    assert (
        "webhook: not sent (500 Internal Server Error: answer of the receiver), attempt 1; the next is in 60 s" in said
    )
    assert "<3>webhook: given up after 15 attempts: [blog] app1: a test" in said


def test_no_more_messages_wait_than_so_many(host, channels):
    with host.record.open() as state:
        for number in range(alerts.WAITING + 5):
            alerts.post(state, ["webhook"], alerts.message(host.config, [], NOW, str(number)), NOW)
        assert len(state["waiting"]["webhook"]) == alerts.WAITING
        assert state["waiting"]["webhook"][0]["message"]["subject"].endswith(" 5")


def test_a_channel_that_hangs_does_not_hold_up_the_others(host, channels, receiver, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(alerts, "LONGEST", 0.5)
    monkeypatch.setattr(alerts, "send_mail", lambda *_: hangs.wait(20))
    host.system.states["nginx.service"] = "failed"
    for _ in range(2):
        alerts.look(host.look, host.record, channels)
    assert len(sent(receiver, "http")) == 1
    hangs.set()


def test_two_processes_send_a_message_once(host, channels, receiver):
    with host.record.open() as state:
        alerts.post(state, ["webhook"], alerts.message(host.config, [], NOW, "a test"), NOW)
    both = [threading.Thread(target=alerts.deliver, args=(host.record, channels)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(sent(receiver, "http")) == 1


def test_a_channel_that_is_no_longer_set_keeps_no_message(host, channels, receiver):
    receiver.status = 500
    with host.record.open() as state:
        alerts.post(state, ["webhook"], alerts.message(host.config, [], NOW, "a test"), NOW)
    assert not alerts.deliver(host.record, channels)
    (host.credentials / "webhook_url").write_text("")
    assert alerts.deliver(host.record, channels)


def test_a_redirect_is_not_followed(receiver):
    receiver.status = 302
    with pytest.raises(alerts.Refusal, match="302 Found"):
        alerts.request("POST", f"{receiver.url}/hook", b"{}")
    assert len(receiver.received) == 1


def test_a_server_with_a_login_gets_the_password(host, channels, receiver):
    host.config["email"] |= {"user": "ann"}
    (host.credentials / "smtp_password").write_text("kept")
    said = channels.senders()["email"](alerts.message(host.config, [], NOW, "a test"))
    assert said == "250 queued as 7"
    assert base64.b64decode(sent(receiver)[0]["login"]) == b"\0ann\0kept"


def test_a_recipient_that_is_refused_keeps_no_other_from_the_mail(host, channels, receiver):
    receiver.refuse["a@example.com"] = "550 nobody"
    said = channels.senders()["email"](alerts.message(host.config, [], NOW, "a test"))
    assert said == "250 queued as 7; refused: a@example.com: 550 nobody"
    receiver.refuse["RCPT"] = "550 nobody"
    with pytest.raises(alerts.Refusal, match=r"b@example[.]com: 550 nobody"):
        channels.senders()["email"](alerts.message(host.config, [], NOW, "a test"))


def test_a_test_says_what_each_channel_answered(host, channels, receiver, capsys):
    assert alerts.test(host.look, channels) == 0
    assert [line[3:] for line in capsys.readouterr().err.splitlines()] == [
        "email: 250 queued as 7",
        "webhook: 200 OK",
        "ping: 200 OK",
    ]
    receiver.status = 403
    assert alerts.test(host.look, channels) == 2
    said = capsys.readouterr().err
    assert "webhook: failed: 403 Forbidden: answer of the receiver" in said and "token" not in said
    assert json.loads(sent(receiver, "http")[0]["body"])["events"] == []


# --- what the role installs -----------------------------------------------------------------

ROOT = Path(__file__).parents[1]
ON = {"alerts_webhook_url": "https://hooks.example.com/t"}


def test_it_is_active_with_a_channel_and_without_a_host_for_monitoring():
    assert evaluate("blog", "{{ __alerts_active }}") is False
    assert evaluate("blog", "{{ __alerts_active }}", **ON) is True
    groups = {"monitoring": ["watch"], "redis": ["one"], "edge": ["one"]}
    assert evaluate("blog", "{{ __alerts_active }}", **ON, groups=groups) is False


def test_every_file_that_the_program_imports_is_installed(tmp_path):
    """Beside it there is no Ansible, and no more of Coldframe."""
    for there, here in evaluate("blog", "{{ __alerts_files }}").items():
        (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / there).write_text((ROOT / here).read_text())
    for name in ("ansible", "ansible/module_utils"):
        (tmp_path / name / "__init__.py").touch()
    code = "import sys, alerts; assert sys.modules['ansible'].__file__.startswith(sys.argv[1]), sys.modules['ansible']"
    environment = {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-S", "-c", code, str(tmp_path)], env=environment, check=True)


def test_program_gets_the_options_that_it_reads():
    config = evaluate("blog", "{{ __alerts_config }}", **ON, inventory_dir="", app_broker_host="one", nginx_acme=False)
    assert set(config) == set(CONFIG) | {"root"}
    assert config["services"] == [
        "nginx.service",
        "redis-server@blog-broker.service",
        "redis-server@blog-cache.service",
        "postgresql@17-main.service",
        "blog-flower.service",
        "blog-web.socket",
    ]
    assert config["broker"]["user"] == "reader" and config["email"] == {}
    mail = {"app_email": {"host": "mx.example.net", "user": "ann"}, "alerts_email": ["ops@example.com"]}
    server = evaluate("blog", "{{ __alerts_config.email }}", **mail)
    assert server["sender"] == "blog@www.blog.example" and (server["port"], server["to"]) == (587, ["ops@example.com"])
    mail["app_email"] |= {"sender": "Blog <b@example.com>"}
    assert evaluate("blog", "{{ __alerts_config.email.sender }}", **mail) == "Blog <b@example.com>"


def test_failures_of_the_applications_units_and_of_its_services_start_the_program():
    names = evaluate("blog", "{{ __alerts_drop_ins }}", **ON, nginx_acme=True)
    assert names == ["blog-.service", "nginx.service", "redis-server@blog-broker.service", "redis-server@blog-cache.service",
                     "postgresql@17-main.service"]  # fmt: skip
    text = rendered("blog", "systemd/alerts.service.d.j2")
    assert "OnFailure=coldframe-alert-blog@%n.service" in text
    unit = rendered("blog", "systemd/alert@.service.j2", **ON)
    assert "alerts.py /usr/local/lib/coldframe-alerts-blog/config.json unit %i" in unit
    assert not evaluate("blog", "{{ __alerts_unit }}").startswith("blog-"), "its own failure would start it again"


def test_one_ping_address_for_two_servers_is_refused():
    known = {"ansible_play_hosts_all": ["one", "two"], "alerts_ping_url": "https://ping.example.com/1"}
    hosts = {
        "one": {"alerts_ping_url": "https://ping.example.com/1"},
        "two": {"inventory_hostname": "two", "alerts_ping_url": "https://ping.example.com/1"},
    }
    (problem,) = evaluate("blog", "{{ __alerts_problems }}", **known, hostvars=hosts)
    assert problem.startswith("alerts_ping_url of one is also that of two") and "ping.example.com" not in problem
    hosts["two"]["alerts_ping_url"] = "https://ping.example.com/2"
    assert evaluate("blog", "{{ __alerts_problems }}", **known, hostvars=hosts) == []


def test_the_host_that_asks_the_broker_gets_its_login_and_no_other_does():
    unit, password = (
        "systemd/alerts.service.j2",
        "{{ __alerts_credentials.redis_password }}",
    )  # pragma: allowlist secret
    users = {"app_redis_passwords": {"reader": "x"}}
    assert "SupplementaryGroups=systemd-journal blog-redis\n" in rendered("blog", unit, **ON, app_broker_host="one")
    assert evaluate("blog", password, **ON, **users, app_broker_host="one") == "x"
    assert "SupplementaryGroups=systemd-journal\n" in rendered("blog", unit, **ON, app_broker_host="two")
    assert evaluate("blog", password, **ON, **users, app_broker_host="two") == ""
